"""Inverse questions: bisection equals brute force, looser limits never allow less, and questions without an answer are refused."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

import apexsim
from apexsim import api
from apexsim.cli import main
from apexsim.errors import Infeasible, InputError
from apexsim.search import size as sizes

ASKED: dict[str, Any] = {"gpu": "l40s", "gpus": 1, "prompt_len": 500, "output_len": 100, "num_requests": 300}


def best(**more: Any) -> sizes.Found:
    """The answer to a question."""
    found = apexsim.size("llama-3.1-8b", **{**ASKED, **more}).best
    assert found is not None
    return found


def test_bisection_finds_the_last_place_that_holds() -> None:
    for count in range(8):
        for last in range(-1, count):
            assert sizes.most(count, lambda k, last=last: k <= last) == last  # type: ignore[misc]


@pytest.mark.parametrize("limit", ["ttft:p95=300ms", "tpot:p95=40ms"])
def test_the_most_rate_is_that_of_brute_force(limit: str) -> None:
    found = best(slos=(limit,))
    setting = found.setting
    goal = apexsim.size("llama-3.1-8b", **ASKED, slos=(limit,)).goal
    trials = sizes.Trials(setting, goal, sizes.Wanted("rate"))
    grid = [rate for rate in trials.grid(found.plan) if 0.7 * found.value < rate < 1.3 * found.value]
    held = [trials.holds(found.plan, rate) for rate in grid]
    edges = [rate for rate, now, after in zip(grid, held, held[1:]) if now and not after]
    assert any(rate == pytest.approx(found.value, rel=0.011) for rate in edges)


def test_a_looser_limit_never_allows_less_and_intervals_hold_the_answer() -> None:
    found = [best(slos=(f"ttft:p95={ms}ms",)) for ms in (150, 300, 1000)]
    assert [one.value for one in found] == sorted(one.value for one in found)
    assert all(one.low <= one.value <= one.high for one in found)


def test_the_example_of_the_page_and_its_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = "size llama-3.1-8b --gpu l40s --gpus 1 --prompt-len 500 --output-len 100 --num-requests 500 --ttft 500ms --json -"
    assert main(words.split()) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["max_request_rate"]["low"] < told["max_request_rate"]["value"] < told["max_request_rate"]["high"]
    assert told["max_users"] is None and told["found"][0]["usd_per_million"]["total"] > 0


def test_nothing_that_keeps_the_limits_is_exit_code_4(capsys: pytest.CaptureFixture[str]) -> None:
    words = "size llama-3.1-8b --gpu l4 --gpus 1 --prompt-len 500 --output-len 50 --num-requests 60 --ttft 2"
    assert main(words.split()) == 4
    assert "comes nearest" in capsys.readouterr().out


@pytest.mark.parametrize("more", [
    {"gpus": None}, {"find": "speed"}, {"think": 3.0}, {"slos": ("ttft:p95=1s", "ttft:p95=2s")}, {"find": "users"},
    {"find": "gpus", "gpus": None, "request_rate": 1.0, "budget": 0.01}, {"find": "ttft:p95"},
])  # fmt: skip
def test_questions_without_an_answer_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        apexsim.size("llama-3.1-8b", **{**ASKED, **more})


# ---- held against trying everything --------------------------------------------------------------------------------------------

RANDOM = random.Random(20)
LIMITS = (("ttft:p95=300ms",), ("tpot:p95=15ms",), ("tpot:p90=30ms", "ttft:mean=500ms"), ("e2e:p95=3s",), ("ttft=400ms",))
WORLDS = [
    {"model": RANDOM.choice(("llama-3.1-8b", "qwen3-8b", "mixtral-8x7b")), "gpu": RANDOM.choice(("l4", "l40s", "h100-sxm")),
     "request_rate": RANDOM.choice((0.5, 2.0, 6.0, 15.0)), "prompt_len": RANDOM.choice((200, 1500)), "output_len": RANDOM.choice((40, 150)),
     "num_requests": 60, "slos": RANDOM.choice(LIMITS)}
    for _ in range(30)
]  # fmt: skip


def everything(world: dict[str, Any]) -> float:
    """The fewest GPUs by simulating every plan of every cluster."""
    asked = {name: value for name, value in world.items() if name not in ("model", "gpu")}
    for gpus, nodes in sizes.counts():
        if gpus * nodes > MOST:
            break
        try:
            setting, precision, goal, inputs = api.ask(world["model"], gpu=world["gpu"], gpus=gpus, nodes=nodes, **asked)
            plans = sizes.startable(setting, api.space_of(setting, precision, inputs).plans)
        except Infeasible:
            continue
        trials = sizes.Trials(setting, goal, sizes.Wanted("gpus"))
        if any(trials.holds(plan, world["request_rate"]) for plan in plans):
            return gpus * nodes
    return math.inf


MOST = 8  # GPUs that are tried: more takes minutes


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_the_fewest_gpus_are_those_of_trying_everything(world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "MOST_GPUS", MOST)
    monkeypatch.setattr(sizes.counts, "__defaults__", (sizes.NODE, MOST))
    try:
        found = apexsim.size(**world).best
    except Infeasible:
        found = None
    assert (found.value if found else math.inf) == everything(world)


@pytest.mark.parametrize("limit", ["ttft:p95=150ms", "tpot:p95=30ms", "e2e:p90=5s", "tpot:mean=25ms", "itl:p99=100ms"])
def test_no_rate_above_the_answer_holds(limit: str) -> None:
    """Of every plan of a cluster, on every rate of the grid from the answer to twice it."""
    asked = {**ASKED, "gpus": 2, "num_requests": 80, "slos": (limit,)}
    whole = apexsim.size("llama-3.1-8b", **asked)
    assert whole.best is not None
    setting, precision, goal, inputs = api.ask("llama-3.1-8b", **{**asked, "request_rate": 1.0})
    trials = sizes.Trials(setting, goal, sizes.Wanted("rate"))
    for plan in sizes.startable(setting, api.space_of(setting, precision, inputs).plans):
        above = [rate for rate in trials.grid(plan) if 1.05 * whole.best.value < rate < 2.0 * whole.best.value][::4]
        assert not any(trials.holds(plan, rate) for rate in above), plan.shorthand


def test_more_load_never_needs_fewer_gpus_and_more_gpus_never_serve_less() -> None:
    asked = {name: value for name, value in ASKED.items() if name != "gpus"} | {"slos": ("ttft:p95=300ms", "tpot:p95=40ms")}
    needed = [apexsim.size("llama-3.1-8b", **asked, request_rate=rate).best for rate in (2.0, 8.0, 20.0)]
    values = [one.value for one in needed if one is not None]
    assert len(values) == 3 and values == sorted(values)
    served = [apexsim.size("llama-3.1-8b", **asked, gpus=gpus).best for gpus in (1, 2, 4)]
    rates = [one.value for one in served if one is not None]
    assert len(rates) == 3 and rates == sorted(rates)


def test_reruns_with_other_seeds_lie_in_the_interval() -> None:
    first = best(slos=("ttft:p95=400ms",), num_requests=1500)
    again = [best(slos=("ttft:p95=400ms",), num_requests=1500, seed=seed).value for seed in (1, 2, 3, 4)]
    assert all(first.low <= value <= first.high for value in again)


def test_a_plan_that_is_too_slow_alone_is_not_simulated_under_load(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    whole = sizes.assess
    monkeypatch.setattr(sizes, "assess", lambda setting, goal, plan: runs.append(setting.workload.size) or whole(setting, goal, plan))
    found = apexsim.size(
        "llama-3.1-8b", gpu="l4", request_rate=1.0, prompt_len=500, output_len=50, num_requests=400, slos=("tpot:p95=2ms",)
    )
    assert not found.found and runs.count(400) < len(runs) / 2
