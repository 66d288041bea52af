"""Prefill and decode apart: plans on both sides, what engines say of the hand-over, and how measured rows are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apexsim import engine_file
from apexsim.engines import load_engine, settled
from apexsim.errors import InputError, Rejected
from apexsim.hardware import Cluster, load_gpu
from apexsim.metrics import measure
from apexsim.model.families import load_model
from apexsim.plan.plan import Layout, Plan, parse_plan
from apexsim.plan.pool import handed_bytes
from apexsim.plan.weights import stages_of
from apexsim.search.apart import ApartEvaluation, Handover, evaluate_apart, handover_of
from apexsim.search.evaluate import Evaluation, evaluate
from apexsim.search.setting import Setting, setting_of
from apexsim.validate.apart_cases import Apart, apart, gathered_by
from apexsim.validate.cases import Case
from apexsim.validate.draft_cases import decode_server
from apexsim.validate.rows import Cells, Skipped
from apexsim.workload.trace import Workload
from test_validate import APART

HERE = Path("rows.csv")
MODEL, GPU = load_model("meta-llama--Meta-Llama-3.1-8B"), load_gpu("h100-sxm")


def setting(engine: str, plan: Plan, users: int = 8, output: int = 64) -> Setting:
    """A closed loop of equal requests on just enough GPUs."""
    count = 6 * users
    work = Workload("w", np.zeros(count), np.full(count, 1000), np.full(count, output), "closed", users)
    row = settled(load_engine(engine), GPU.memory_bytes, GPU.name, work.longest)
    return setting_of(MODEL, Cluster(GPU, plan.devices), row, work, work.longest)


def served(engine: str, p: str = "TP1", d: str = "TP1", users: int = 8, **how: object) -> ApartEvaluation:
    """Both pools of an engine with its own hand-over, or parts of it changed."""
    one, two = parse_plan(p), parse_plan(d)
    left, right = setting(engine, one, users), setting(engine, two, users)
    found = evaluate_apart(left, one, right, two, replace(handover_of(right.engine, right.cluster), **how))  # type: ignore[arg-type]
    assert isinstance(found, ApartEvaluation)
    return found


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
def test_a_run_is_measured_like_any_other_on_the_gpus_of_both_pools(engine: str) -> None:
    found = served(engine, "2×TP1", "TP2")
    assert found.devices == 4 and found.prefill.plan.devices == 2
    told = measure(found.outcome, setting(engine, parse_plan("TP1")).workload, devices=found.devices)
    assert told.completed == 48 and told.ttft.mean > 0.0 and told.tpot.mean > 0.0


def test_engines_differ_in_when_a_place_is_taken() -> None:
    rules = {engine: served(engine).handover.rule for engine in ("sglang", "vllm", "tensorrt-llm")}
    assert rules == {"sglang": "decode-first", "vllm": "before-transfer", "tensorrt-llm": "footprint"}


def test_a_slower_link_is_felt_by_its_bytes() -> None:
    fast, slow = (served("tensorrt-llm", users=1, bytes_s=rate) for rate in (1e12, 1e9))
    each = handed_bytes(slow.decode.plan, stages_of(MODEL, 1), slow.decode.engine, 1000.0)
    assert each == pytest.approx(32 * 2 * 8 * 128 * 2 * 1000)  # layers, keys and values, heads, width, bytes
    late = np.median(slow.outcome.first - slow.outcome.sent) - np.median(fast.outcome.first - fast.outcome.sent)
    assert late == pytest.approx(each / 1e9, rel=0.05)


def test_a_plan_that_does_not_fit_is_the_answer() -> None:
    plan = parse_plan("TP1")
    big = replace(setting("vllm", plan), model=load_model("meta-llama--Llama-3.3-70B-Instruct"))
    assert isinstance(evaluate_apart(setting("vllm", plan), plan, big, plan, handover_of(big.engine, big.cluster)), Rejected)
    assert isinstance(evaluate_apart(big, plan, setting("vllm", plan), plan, handover_of(big.engine, big.cluster)), Rejected)


def test_an_engine_that_does_not_hand_over_is_one_line() -> None:
    row = load_engine("vllm")
    silent = replace(row, server=replace(row.server, crossed=None))
    with pytest.raises(InputError, match="does not serve prefill and decode apart"):
        handover_of(silent, Cluster(GPU, 1))


def test_few_running_sequences_have_places_beside_them() -> None:
    many, few = (served("sglang", users=40, staged=n) for n in (2, 0))
    assert np.median(many.outcome.first - many.outcome.sent) <= np.median(few.outcome.first - few.outcome.sent) + 1e-9


# ---- the table of an engine's file ------------------------------------------------------------------------------------------

TABLE = {"rule": ["footprint", "s"], "hop_s": [0.0, "s"], "latency_s": [0.001, "s"], "link_share": [0.7, "s"], "parallel": [True, "s"],
         "recompute_first": [False, "s"], "late": [False, "s"], "staged": [0, "s"], "staged_upto": [0, "s"],
         "finds": [False, "s"]}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("rule", ["someday", "s"], "unknown rule 'someday'"), ("hop_s", [-1.0, "s"], "a number of at least 0"),
        ("parallel", [1, "s"], "true or false"), ("late", ["yes", "s"], "true or false"), ("hop_s", [0.1, "nobody"], "a source of"),
        ("hop_s", 0.1, "must be a list"), ("speed", [1.0, "s"], "unknown key 'speed'"),
    ],
)  # fmt: skip
def test_a_table_that_is_wrong_is_one_clear_error(key: str, value: object, told: str) -> None:
    engine_file._handover({"handover": TABLE}, ["s"], "e.toml")
    with pytest.raises(InputError, match=told):
        engine_file._handover({"handover": {**TABLE, key: value}}, ["s"], "e.toml")


def test_a_table_is_whole() -> None:
    with pytest.raises(InputError, match="'late' is missing"):
        engine_file._handover({"handover": {key: value for key, value in TABLE.items() if key != "late"}}, ["s"], "e.toml")


# ---- rows ------------------------------------------------------------------------------------------------------------------


def test_a_row_is_two_pools_with_their_own_settings() -> None:
    found = apart(Cells(APART), HERE)
    assert isinstance(found, Apart)
    assert (found.prefill.plan.shorthand, found.decode.plan.shorthand) == ("TP2", "2×DP2/TP2")
    assert found.decode.engine.max_num_seqs == 32  # SGLang's are of a worker, shared among its lanes
    ranks = apart(Cells({**APART, "backend": "trtllm", "backend_version": "1.0"}), HERE)
    assert isinstance(ranks, Apart) and ranks.decode.engine.max_num_seqs == 64 and ranks.handover.rule == "footprint"


def test_rows_with_drafts_are_skipped_with_a_word() -> None:
    found = apart(Cells({**APART, "draft_tokens": "2"}), HERE)
    assert isinstance(found, Skipped) and "speculative" in found.reason  # no word of how


def test_drafts_of_a_row_are_the_decode_pools_with_the_acceptance_of_such_prompts() -> None:
    found = apart(Cells({**APART, "config": "deepseek-ai--DeepSeek-R1", "precision": "fp8", "draft_tokens": "2", "spec": "mtp"}), HERE)
    assert isinstance(found, Apart) and found.labels["drafts"] == "mtp, NVIDIA"
    assert found.prefill.plan.draft is None and str(found.decode.plan.draft) == "mtp:2"
    for side in (found.prefill, found.decode):
        assert side.accepts is not None and "random-tokens" in side.accepts.source and not side.accepts.assumed


@pytest.mark.parametrize("over", [
    {}, {"backend": "trtllm", "backend_version": "1.0"}, {"decode_cudagraph_max": "16"}, {"decode_gpu_mem_frac": "0.8"},
    {"config": "deepseek-ai--DeepSeek-R1", "precision": "fp8", "system": "h200_sxm", "decode_workers": "1", "decode_gpus": "16",
     "decode_attn_dp": "16", "decode_moe_ep": "16", "decode_moe_backend": "deepep", "draft_tokens": "2", "spec": "mtp"},
])  # fmt: skip
def test_the_decode_servers_of_a_pair_are_the_decode_pool_of_the_run(over: dict[str, str]) -> None:
    row = Cells({**APART, **over})
    alone, pools = decode_server(row, HERE), apart(row, HERE)
    assert isinstance(alone, Case) and isinstance(pools, Apart)
    for name in ("model", "cluster", "engine", "plan", "accepts"):
        assert getattr(alone, name) == getattr(pools.decode, name), name


@pytest.mark.parametrize("engine", ["vllm", "tensorrt-llm"])
def test_a_request_that_is_handed_over_joins_a_step_of_decodes(engine: str) -> None:
    """One arrives at most steps: each costs what one of as many sequences does, and nobody's prompt slows it."""
    plan = parse_plan("TP1")
    asked = setting(engine, plan, 64)
    staggered = replace(asked.workload, mode="open", concurrency=0, arrive=np.arange(asked.workload.size) * 0.01)
    together, apace = (evaluate(replace(asked, workload=work), plan, handed=True) for work in (asked.workload, staggered))
    assert isinstance(together, Evaluation) and isinstance(apace, Evaluation)
    each = [float(np.median((run.outcome.finish - run.outcome.first) / (asked.workload.output - 1))) for run in (together, apace)]
    assert each[1] <= each[0] * 1.05


def test_a_mean_width_means_that_every_gpu_is_a_lane() -> None:
    wide = {**APART, "config": "deepseek-ai--DeepSeek-R1", "precision": "fp8", "system": "h200_sxm", "decode_workers": "1",
            "decode_gpus": "48", "decode_attn_tp": "1.5", "decode_attn_dp": "32", "decode_moe_backend": "deepep"}  # fmt: skip
    found = apart(Cells(wide), HERE)
    assert isinstance(found, Apart) and found.decode.plan.attention == Layout(dp=48) and found.decode.plan.ffn == Layout(ep=48)


def test_a_row_without_a_column_says_so() -> None:
    with pytest.raises(InputError, match="the row has no 'regime'"):
        apart(Cells({key: value for key, value in APART.items() if key != "regime"}), HERE)


def test_the_backend_of_the_experts_decides_who_travels() -> None:
    eight = Plan(1, 1, Layout(dp=8), Layout(ep=8))
    assert not eight.wide and replace(eight, gathers=gathered_by("decode", "deepep")).wide
    sixteen = Plan(1, 1, Layout(dp=16), Layout(ep=16))
    assert sixteen.wide and not replace(sixteen, gathers=gathered_by("decode", "flashinfer_trtllm")).wide


def test_hand_overs_name_a_rule_that_is_known() -> None:
    plan = parse_plan("TP1")
    with pytest.raises(InputError, match="unknown rule"):
        evaluate_apart(setting("vllm", plan), plan, setting("vllm", plan), plan, Handover("someday", 0.0, 0.0, 1e9))
