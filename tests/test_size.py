"""Inverse questions: bisection equals brute force, looser limits never allow less, and questions without an answer are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

import apexsim
from apexsim.cli import main
from apexsim.errors import InputError
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
