"""Inverse questions: bisection equals brute force, looser limits never allow less, and questions without an answer are refused."""

from __future__ import annotations

import html
import json
import math
import random
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import apexsim
from apexsim import api
from apexsim.cli import main
from apexsim.errors import Infeasible, InputError
from apexsim.report.sizepage import sentences
from apexsim.search import size as sizes
from apexsim.workload.synth import longest_of, mean_of

ASKED: dict[str, Any] = {"gpu": "l40s", "gpus": 1, "prompt_len": 500, "output_len": 100, "num_requests": 300}


def best(**more: Any) -> sizes.SizeAnswer:
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


@pytest.mark.parametrize("words", [
    ["--gpu", "l4,l40s", "--request-rate", "2", "--prompt-len", "200", "--output-len", "20", "--num-requests", "200", "--ttft", "900"],
    ["--gpu", "l40s:1", "--users", "4", "--prompt-len", "200", "--output-len", "20", "--num-requests", "100", "--ttft", "900",
     "--think", "2", "--find", "users"],
    ["--gpu", "l40s:1", "--find", "context", "--output-len", "20", "--ttft", "2s"],
], ids=" ".join)  # fmt: skip
def test_the_command_under_a_page_gives_the_same_answer(words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Its words are those of the question, not what the search made of them."""
    assert main(["size", "llama-3.1-8b", *words, "--html", str(tmp_path / "a.html"), "--json", "-"]) == 0
    first, page = json.loads(capsys.readouterr().out), (tmp_path / "a.html").read_text(encoding="utf-8")
    line = shlex.split(html.unescape(re.search(r"apexsim size llama-3.1-8b[^<]*", page)[0]))  # type: ignore[index]
    assert main([*line[1:], "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_gpus_without_a_known_rent_that_would_do_are_told_and_are_no_next_cheapest() -> None:
    asked = {**ASKED, "gpus": None, "request_rate": 2.0, "slos": ("ttft:p95=1s",)}
    found = apexsim.size("llama-3.1-8b", **{**asked, "gpu": ["mi355x", "h100"]})
    told = " ".join(sentences(found))
    assert found.best is not None and found.best.setting.cluster.gpu.name == "h100-sxm"
    assert "Enough too, at a rent that is not known: 1 × mi355x" in told and "Next comes" not in told
    alone = " ".join(sentences(apexsim.size("llama-3.1-8b", **{**asked, "gpu": "mi355x"})))
    assert "enough" in alone and "not known" not in alone


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
    """Of every plan of a cluster, on every rate of the grid from the answer to twice it; with half the requests a p99 goes up and down."""
    asked = {**ASKED, "gpus": 2, "num_requests": 160, "slos": (limit,)}
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


@pytest.mark.parametrize(
    "limit", [{"power_cap": 3.0}, {"slos": ("ttft=1ms",)}, {"slos": ("tpot=1ms",)}, {"slos": ("e2e=5ms",)}, {"slos": ("ttft:mean=1ms",)}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("find", [{}, {"find": "users"}, {"find": "gpus", "request_rate": 1.0}], ids=str)
def test_a_limit_of_any_kind_that_the_emptiest_load_breaks_is_decided_without_bisection(
    limit: dict[str, Any], find: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[float] = []
    whole = sizes.Trials.run
    monkeypatch.setattr(sizes, "MOST_GPUS", 2)
    monkeypatch.setattr(sizes.counts, "__defaults__", (2, 2))
    monkeypatch.setattr(sizes.Trials, "run", lambda self, plan, load, *how: loads.append(load) or whole(self, plan, load, *how))
    size = {} if find.get("find") == "gpus" else {"gpus": 1}
    found = apexsim.size("llama-3.1-8b", gpu="h100-sxm", prompt_len=500, output_len=50, num_requests=200, **size, **find, **limit)
    assert not found.found and found.nearest is not None
    assert len(loads) <= 2 * sizes.FIRST  # those that come nearest


@pytest.mark.parametrize("cap", [95.0, 110.0, 150.0])
def test_a_cap_that_an_idle_gpu_keeps_is_not_taken_for_hopeless(cap: float) -> None:
    asked = {"gpu": "h100-sxm", "gpus": 1, "prompt_len": 500, "output_len": 50, "num_requests": 200}
    found = apexsim.size("llama-3.1-8b", **asked, power_cap=cap)
    assert found.best is not None and found.best.run.metrics.energy.watts <= cap


# ---- the longest prompt --------------------------------------------------------------------------------------------------

PROMPTS: dict[str, Any] = {"gpu": "h100-sxm", "gpus": 1, "find": "context", "num_requests": 40}


def longest(model: str = "llama-2-7b", **more: Any) -> sizes.Size:
    """The answer to a question about the longest prompt."""
    return apexsim.size(model, **{**PROMPTS, **more})


ROOMY: list[dict[str, Any]] = [
    {}, {"max_model_len": 2000}, {"concurrency": 3}, {"concurrency": 3, "length_spread": 0.4}, {"request_rate": 0.2},
]  # fmt: skip


@pytest.mark.parametrize("more", ROOMY)
def test_the_longest_prompt_is_one_that_the_model_length_leaves(more: dict[str, Any]) -> None:
    """Loose limits: all that the length leaves beside the longest answer is held, and no request is longer."""
    found = longest(output_len=300, slos=("ttft:p95=60s",), **more)
    assert found.best is not None and found.best.open_end
    work, whole = found.best.setting.workload, more.get("max_model_len", 4096)
    spread = more.get("length_spread", 0.1 if "concurrency" in more else 0.0)
    assert found.best.value == whole - longest_of(300, spread)
    assert int(work.prompt.max()) <= found.best.value and work.longest <= whole
    assert spread or int(work.prompt.max()) == found.best.value


def test_a_tighter_limit_holds_shorter_prompts_down_to_single_tokens() -> None:
    values = [found.best.value for ms in (10, 18, 60) if (found := longest(output_len=20, slos=(f"ttft:p95={ms}ms",))).best]
    assert values == sorted(values) and len(set(values)) == 3 and values[0] < 128


def test_where_no_prompt_is_short_enough_the_shortest_comes_nearest() -> None:
    found = longest(output_len=20, slos=("ttft:p95=1ms",))
    assert found.best is None and found.nearest is not None and int(found.nearest.setting.workload.prompt.max()) == 1
    assert sentences(found)[0].startswith("No prompt is short enough for 1 user within ttft:p95=1ms: TP1 on 1 × h100-sxm comes nearest")


@pytest.mark.parametrize(("more", "most"), [({}, "4,095"), ({"max_model_len": 1000}, "999"), ({"concurrency": 4}, "3,723")])
def test_answers_that_leave_no_prompt_are_refused_with_the_longest_that_do(more: dict[str, Any], most: str) -> None:
    with pytest.raises(InputError) as told:
        longest(output_len=4096, **({"slos": ("ttft=1s",)} if "concurrency" in more else {}), **more)
    assert told.value.where == "output_len" and told.value.hint == f"at most {most}"


@given(st.integers(1, 10**6), st.floats(0.0, 1.0))
def test_the_mean_of_a_longest_length_is_the_largest_that_fits(length: int, spread: float) -> None:
    mean = mean_of(length, spread)
    assert longest_of(mean, spread) <= length < longest_of(mean + 1, spread) if mean else longest_of(1, spread) > length


def test_at_the_price_that_is_told_other_gpus_cost_the_same() -> None:
    asked = {"gpu": "l4,l40s", "prompt_len": 500, "output_len": 50, "num_requests": 200, "slos": ("ttft:p95=1s",), "request_rate": 3.0}
    found = apexsim.size("llama-3.1-8b", **asked)
    other = next(one for one in found.found if one.setting.cluster.gpu != found.found[0].setting.cluster.gpu)
    assert found.found[0].rent * (1.0 + found.may_rise) == pytest.approx(other.rent) and found.may_rise >= 0.0
    assert math.isnan(apexsim.size("llama-3.1-8b", **{**asked, "gpu": "l4"}).may_rise)


@pytest.mark.parametrize(("asked", "load"), [
    ({"find": "users"}, {}), ({}, {}), ({"concurrency": 40, "gpus": None}, {"concurrency": 40}),
    ({"request_rate": 2.0, "gpus": None}, {"request_rate": 2.0}),
])  # fmt: skip
def test_inputs_hold_the_load_that_was_asked_for_and_no_other(asked: dict[str, Any], load: dict[str, Any]) -> None:
    found = apexsim.size("llama-3.1-8b", **{**ASKED, "slos": ("ttft:p95=1s",), **asked})
    assert {name: found.inputs[name] for name in ("concurrency", "request_rate") if name in found.inputs} == load
