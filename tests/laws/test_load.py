"""The load that is asked for is the load that is simulated, written and sent, whatever trace it is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from apexsim import api
from apexsim.cli.replay import _workload
from apexsim.errors import InputError
from apexsim.replay.prompts import Prompts
from apexsim.replay.run import Patience, Session
from apexsim.replay.wire import Target
from apexsim.workload.convert import scaled
from apexsim.workload.describe import describe
from apexsim.workload.load import mean_rate, paced
from apexsim.workload.stream import read_trace
from apexsim.workload.trace import Workload

F8 = NDArray[np.float64]
GAPS = st.lists(st.floats(0, 1e4, allow_subnormal=False), min_size=1, max_size=200)
RATES = st.floats(1e-3, 1e4)
FORMATS = {  # how the same requests look in formats whose times need not start at 0
    "apex": lambda t: f'{{"StartTimeOffset": {round(t * 1e9)}, "ContextTokens": 9, "GeneratedTokens": 3}}',
    "vidur": lambda t: f"{t},9,3",
    "request-log": lambda t: f"{t},9,3",
}
HEADS = {"vidur": "arrived_at,num_prefill_tokens,num_decode_tokens", "request-log": "arrival_s,isl,osl"}


def times(gaps: list[float], first: float) -> F8:
    return first + np.concatenate(([0.0], np.cumsum(gaps)))


def trace(arrive: F8) -> Workload:
    n = len(arrive)
    return Workload("t", arrive, np.full(n, 9), np.full(n, 3))


@given(GAPS, st.floats(0, 1e9), RATES)
@settings(max_examples=300, deadline=None)
def test_any_trace_is_stretched_to_the_rate_and_keeps_its_pattern(gaps: list[float], first: float, rate: float) -> None:
    arrive = times(gaps, first)
    span = float(arrive[-1] - arrive[0])
    if not 1e-3 < span < math.inf:
        return
    made = paced(arrive, rate)
    assert made[0] == 0.0 and np.all(np.diff(made) >= 0) and mean_rate(made) == pytest.approx(rate, rel=1e-6)
    assert np.allclose(np.diff(made) / made[-1], np.diff(arrive) / span, atol=1e-6)


@given(st.integers(2, 400), RATES, st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_a_trace_without_times_gets_poisson_arrivals_at_the_rate(count: int, rate: float, seed: int) -> None:
    made = paced(np.zeros(count), rate, seed)
    assert made[0] == 0.0 and np.all(np.diff(made) >= 0) and np.array_equal(made, paced(np.full(count, 7.0), rate, seed))
    assert mean_rate(made) == pytest.approx(rate, rel=8.0 / math.sqrt(count))  # the gap before the first one is left out
    with pytest.raises(InputError, match="no arrival times"):
        paced(np.zeros(count), rate)


@given(GAPS, st.floats(0, 1e6), st.floats(-1e6, 1e6), RATES)
@settings(max_examples=100, deadline=None)
def test_the_moment_of_the_first_request_does_not_matter(gaps: list[float], first: float, shift: float, rate: float) -> None:
    a, b = times(gaps, first), times(gaps, first + shift)
    if min(a[-1] - a[0], b[-1] - b[0]) > 1.0:
        assert np.allclose(paced(a, rate), paced(b, rate), rtol=1e-6, atol=1e-6 / rate)


@pytest.mark.parametrize("first", [0.0, 1000.0, 1e6])
@pytest.mark.parametrize("fmt", FORMATS)
def test_simulated_written_and_sent_are_one_load(fmt: str, first: float, tmp_path: Path) -> None:
    arrive = times(np.random.default_rng(1).exponential(1.0, 59).tolist(), first)
    path = tmp_path / ("t.jsonl" if fmt == "apex" else "t.csv")
    path.write_text("\n".join([*([HEADS[fmt]] if fmt in HEADS else []), *map(FORMATS[fmt], arrive)]) + "\n")
    question = {"gpu": "h100:1", "trace": str(path), "columns": None}
    study = api.simulate("llama-3.1-8b", "TP1", **question, request_rate=5.0)
    simulated = study.setting.workload.arrive
    given_ = {"workload": None, "map": None, "time_unit": None, "num_requests": None, "warmup": 0, "request_rate": 5.0,
              "concurrency": None, "seed": None}  # fmt: skip
    work = _workload(str(path), given_)
    session = Session(work, Target("http://localhost:1", "m"), Prompts(work, "ids"), Patience(), lambda *_: None)
    sent = np.array([request.due for request in session.sent])
    requests = read_trace(str(path))
    written = scaled(requests, rate=5.0)
    assert mean_rate(simulated) == pytest.approx(5.0) and np.array_equal(simulated, sent)
    assert np.allclose(simulated, written.arrive, atol=1e-6) and describe(written).arrivals.rate == pytest.approx(5.0)  # type: ignore[union-attr]
    assert describe(requests).arrivals.rate == pytest.approx(mean_rate(arrive), rel=1e-5)  # type: ignore[union-attr]
    assert any("stretched to 5 requests/s" in note for note in study.notes)


def test_the_latency_at_a_rate_does_not_depend_on_when_the_trace_was_cut_out() -> None:
    arrive = times(np.random.default_rng(2).exponential(1.0, 59).tolist(), 0.0)
    found = [
        api.simulate("llama-3.1-8b", "TP1", gpu="h100:1", trace=trace(arrive + shift), request_rate=5.0).ranked[0].metrics.e2el.mean
        for shift in (0.0, 1000.0)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_lengths_without_times_are_sent_at_the_rate_and_the_note_says_so() -> None:
    lengths = replace(trace(np.zeros(200)), mode="offline")
    study = api.simulate("llama-3.1-8b", "TP1", gpu="h100:1", trace=lengths, request_rate=2.0)
    work = study.setting.workload
    assert work.mode == "open" and mean_rate(work.arrive) == pytest.approx(2.0, rel=0.05)
    assert any("drawn at random" in note for note in study.notes)
    other = api.simulate("llama-3.1-8b", "TP1", gpu="h100:1", trace=lengths, request_rate=2.0, seed=1).setting.workload
    assert not np.array_equal(other.arrive, work.arrive) and study.ranked[0].metrics.request_throughput_per_s == pytest.approx(2.0, rel=0.1)


def test_no_load_of_a_trace_is_lost_in_the_note_or_in_an_infinite_rate() -> None:
    at_once = api.simulate("llama-3.1-8b", "TP1", gpu="h100:1", trace=trace(np.arange(9.0)), request_rate=math.inf)
    assert at_once.setting.workload.mode == "offline" and not at_once.setting.workload.arrive.any()
    one = api.simulate("llama-3.1-8b", "TP1", gpu="h100:1", trace=trace(np.array([3.0])), request_rate=2.0)
    assert one.setting.workload.arrive.tolist() == [0.0]
    with pytest.raises(InputError, match="would last"):
        paced(np.arange(5.0), 1e-300)


def test_a_described_rate_is_that_of_the_gaps() -> None:
    late = Workload("late", np.arange(61.0) + 1000.0, np.full(61, 9), np.full(61, 3))
    assert describe(late).arrivals.rate == 1.0  # type: ignore[union-attr]


def test_requests_that_wait_keep_whom_they_wait_for_when_some_are_left_out() -> None:
    work = replace(trace(np.arange(5.0)), after=np.array([-1, 0, 1, -1, 3]), delay=np.full(5, 2.0))
    kept = work.only(np.array([True, False, True, True, True]))
    assert kept.after.tolist() == [-1, -1, -1, 2] and len(kept.delay) == 4


def test_a_turn_is_sent_after_the_one_before_it() -> None:
    work = replace(trace(np.zeros(4)), after=np.array([-1, 0, 1, 2]), delay=np.full(4, 0.5))
    done = api.simulate("llama-3.1-8b", "TP1", gpu="h100:1", trace=work).ranked[0].outcome
    assert done is not None
    np.testing.assert_allclose(done.sent[1:], done.finish[:-1] + 0.5, rtol=1e-12)
