"""Long traces: plans that a sample rules out are none of the first ten, the sample is no heavier than the trace, and little is kept."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexsim import api
from apexsim.search import screen, search
from apexsim.workload.trace import Workload

QUESTION = {"gpu": "h100-sxm", "gpus": 8, "prompt_len": 800, "output_len": 60, "num_requests": 2400, "request_rate": 30.0,
            "length_spread": 0.5, "hypothetical": True, "workers": 1}  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that a test can pay for."""
    monkeypatch.setattr(screen, "WINDOW", 250)


@pytest.mark.parametrize("objective", ["e2e", "ttft:p99", "throughput", "cost"])
@pytest.mark.parametrize("rate", [8.0, 30.0, 400.0])
def test_the_first_ten_are_those_of_the_whole_trace(small: None, monkeypatch: pytest.MonkeyPatch, objective: str, rate: float) -> None:
    asked = QUESTION | {"objective": objective, "request_rate": rate}
    short = api.plan("llama-3.1-70b", **asked)
    monkeypatch.setattr(screen, "LEAST", 1 << 40)
    whole = api.plan("llama-3.1-70b", **asked)
    first = [(r.plan, r.value, r.keeps, r.tie) for r in short.ranked[: screen.FIRST]]
    assert first == [(r.plan, r.value, r.keeps, r.tie) for r in whole.ranked[: screen.FIRST]]
    assert len(short.ranked) + sum(r.rule == screen.RULE for r in short.rejected) == len(whole.ranked)
    assert short.heuristic == whole.heuristic and (short.ranked[0].ratio == whole.ranked[0].ratio or math.isnan(whole.ranked[0].ratio))


@pytest.mark.parametrize("rate", [30.0, 400.0])
def test_a_plan_called_hopeless_for_its_queue_is_saturated_by_the_whole(small: None, monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
    asked = QUESTION | {"request_rate": rate}
    short = api.plan("llama-3.1-70b", **asked)
    monkeypatch.setattr(screen, "LEAST", 1 << 40)
    whole = {r.plan.shorthand: r for r in api.plan("llama-3.1-70b", **asked).ranked}
    told = [r.shorthand for r in short.rejected if r.rule == screen.RULE and "keep up" in r.reason]
    assert all(whole[name].metrics.saturated for name in told)


@given(st.integers(0, 2**32), st.floats(0.1, 3.0), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_window_is_no_heavier_than_the_trace(seed: int, swing: float, bursts: bool) -> None:
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(np.exp(swing * np.sin(np.linspace(0.0, 9.0, 100_000))))
    arrive = np.cumsum(np.where(rng.random(100_000) < 0.5, 0.0, gaps) if bursts else gaps)
    work = Workload("w", arrive - arrive[0], rng.integers(1, 2000, 100_000), rng.integers(1, 400, 100_000))
    part = screen.sample(work, 100)
    if part is None:
        return
    span = float(work.arrive[-1])
    assert part.size == screen.WINDOW and part.arrive[0] == 0.0
    for mine, whole in ((part.size, work.size), (part.prompt.sum(), work.prompt.sum()), (part.output.sum(), work.output.sum())):
        assert mine / max(part.arrive[-1], 1e-9) <= whole / span * (1.0 + 0.01 + 5.0 / screen.WINDOW)


@pytest.mark.parametrize("change", [{"mode": "closed", "concurrency": 4}, {"mode": "offline"}])
def test_only_long_open_loops_are_screened(change: dict[str, object]) -> None:
    n = screen.LEAST * screen.WINDOW
    work = Workload("w", np.arange(n) * 1.0, np.full(n, 10), np.full(n, 10))
    assert screen.sample(work, 100) is not None and screen.sample(work, screen.FIRST) is None
    assert screen.sample(replace(work, **change), 100) is None
    assert screen.sample(replace(work, arrive=np.zeros(n)), 100) is None


def test_long_runs_keep_the_first_plan_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = api.plan("llama-3.1-70b", **QUESTION)
    monkeypatch.setattr(search, "LIGHT", 1000)
    short = api.plan("llama-3.1-70b", **QUESTION)
    assert [r.outcome is not None for r in short.ranked] == [i == 0 for i in range(len(short.ranked))]
    assert np.array_equal(short.ranked[0].outcome.finish, whole.ranked[0].outcome.finish)  # type: ignore[union-attr]
    assert [r.series for r in short.ranked] == [r.series for r in whole.ranked]


def test_what_the_engine_can_start_is_screened_by_itself(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = QUESTION | {"hypothetical": False, "request_rate": 400.0}
    short = api.plan("llama-3.1-70b", **asked)
    monkeypatch.setattr(screen, "LEAST", 1 << 40)
    whole = api.plan("llama-3.1-70b", **asked)
    assert [r.plan for r in short.ranked[: screen.FIRST]] == [r.plan for r in whole.ranked[: screen.FIRST]]
    assert short.hypothetical[0].plan == whole.hypothetical[0].plan
