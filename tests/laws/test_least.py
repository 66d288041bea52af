"""Layouts that are left out unseen could not have won: no simulated run is below what `search.least` says of it."""

from __future__ import annotations

from typing import Any

import pytest

import apexsim
from apexsim.search import least
from apexsim.search.goal import Goal
from apexsim.search.study import Study

QUESTIONS: dict[str, dict[str, Any]] = {
    "dense, two formats": {"model": "llama-3.1-8b", "gpu": "l4", "gpus": 4, "quant": "fp8,bf16"},
    "experts": {"model": "qwen3-30b-a3b", "gpu": "h100-sxm", "gpus": 8, "engine": "sglang"},
    "latent attention": {"model": "deepseek-v3", "gpu": "h200-sxm", "gpus": 8, "engine": "trtllm"},
    "drafts": {"model": "deepseek-v3", "gpu": "b200-sxm", "gpus": 8, "engine": "sglang", "speculate": "mtp:3"},
    "speeds fitted": {"model": "llama-3.3-70b", "gpu": "mi300x", "gpus": 8, "engine": "sglang"},
    "roofline": {"model": "gemma-3-27b", "gpu": "rtx-4090", "gpus": 4},
    "linear attention": {"model": "qwen3-next-80b-a3b", "gpu": "h200-sxm", "gpus": 4},
    "encoder and decoder": {"model": "whisper-large-v3", "gpu": "l4", "gpus": 2},
    "slow clock": {"model": "llama-3.1-8b", "gpu": "h100-sxm", "gpus": 4, "clock": "1200"},
}
LOADS: dict[str, dict[str, Any]] = {
    "one by one": {"request_rate": 0.05, "num_requests": 6},
    "many": {"request_rate": 20, "num_requests": 60},
}


def ranked(question: dict[str, Any], **more: Any) -> Study:
    lengths = {"prompt_len": 300, "output_len": 60}
    study: Study = apexsim.plan(**question, **lengths, **more)
    return study


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("name", QUESTIONS)
def test_no_run_is_faster_than_its_least(name: str, load: str) -> None:
    study = ranked(QUESTIONS[name], **LOADS[load], hypothetical=True)
    assert study.ranked
    for objective in ("e2e", "e2e:p95", "tpot", "tpot:p99"):
        goal = Goal(apexsim.objective.parse_objective(objective))
        for run in study.ranked:
            assert least.least_value(study.setting, run.plan, goal) <= goal.objective.value(run.metrics), run.plan.shorthand
    assert least.least_value(study.setting, study.ranked[0].plan, goal) > 0.0


@pytest.mark.parametrize("name", ["dense, two formats", "slow clock", "latent attention"])
def test_what_is_left_out_changes_no_answer(name: str) -> None:
    few = ranked(QUESTIONS[name], **LOADS["many"])
    every = ranked(QUESTIONS[name], **LOADS["many"], hypothetical=True)
    able = [run for run in every.ranked if not run.blocked]
    assert [run.plan for run in few.ranked] == [run.plan for run in able]
    blocked = [run for run in every.ranked if run.blocked]
    assert len(few.hypothetical) + few.beaten == len(blocked)
    better = [run.plan for run in blocked if run.key < able[0].key]
    assert [run.plan for run in few.hypothetical][: len(better)] == better


def test_other_objectives_and_fronts_leave_nothing_out() -> None:
    question = QUESTIONS["dense, two formats"]
    assert ranked(question, **LOADS["many"]).beaten > 0
    for more in ({"objective": "throughput"}, {"objective": "ttft"}, {"pareto": "e2e,cost"}):
        assert ranked(question, **LOADS["many"], **more).beaten == 0
