"""Metrics: definitions, exact percentiles over every gap, saturation, SLOs and time series."""

from __future__ import annotations

import heapq
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexsim import stats
from apexsim.engine.kernel import Outcome
from apexsim.engine.types import SUM_NAMES
from apexsim.errors import InputError
from apexsim.metrics import measure, saturation, series
from apexsim.slo import parse_slo, parse_slos
from apexsim.stats import segment_stats, stats_of
from apexsim.workload.trace import Workload

FIELDS = ("mean", "median", "std", "min", "max", "p75", "p90", "p95", "p99")


def outcome_of(sent, start, first, finish, gaps=None, timeline=None, replicas=1) -> Outcome:
    """An outcome with the given times; the counters are empty."""
    n = len(sent)
    none = np.zeros((replicas, 1), np.int64)
    return Outcome(
        sent=np.asarray(sent, float), start=np.asarray(start, float), first=np.asarray(first, float),
        finish=np.asarray(finish, float), preempted=np.zeros(n, np.int64), replica=np.zeros(n, np.int64),
        gaps=np.zeros((0, 4)) if gaps is None else np.asarray(gaps, float), hist=none, hist_lane=none,
        sums=np.zeros((replicas, len(SUM_NAMES))), read=np.zeros((replicas, 2, 1)),
        timeline=np.zeros((0, 5)) if timeline is None else np.asarray(timeline, float),
    )  # fmt: skip


def workload_of(outcome: Outcome, output, mode="open", warmup=0, prompt=100) -> Workload:
    n = len(outcome.sent)
    lengths = np.broadcast_to(np.asarray(output, np.int64), n)
    return Workload("w", outcome.sent, np.full(n, prompt, np.int64), lengths, mode, warmup=warmup)


def expand(first, slope, steps, weight):
    """Every single gap, written out."""
    runs = [np.repeat(f + s * np.arange(int(n)), int(w)) for f, s, n, w in zip(first, slope, steps, weight)]
    return np.concatenate(runs)


def assert_as_numpy(got: stats.Stats, values: np.ndarray) -> None:
    median, p75, p90, p95, p99 = np.percentile(values, [50, 75, 90, 95, 99])
    want = (values.mean(), median, values.std(), values.min(), values.max(), p75, p90, p95, p99)
    assert [getattr(got, f) for f in FIELDS] == pytest.approx(want, rel=1e-9, abs=1e-12)


def queue_of_one(rho: float, n: int, seed: int) -> Outcome:
    """M/D/1 with a service of 1 s, started when the server is free."""
    sent = np.cumsum(np.random.default_rng(seed).exponential(1.0 / rho, n))
    start = np.maximum.accumulate(sent - np.arange(n)) + np.arange(n)
    return outcome_of(sent, start, start + 0.1, start + 1.0)


# --- distributions


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=60))
def test_stats_of_a_series_are_numpys(values):
    assert_as_numpy(stats_of(np.array(values)), np.array(values))


def test_stats_of_a_long_series_are_numpys():
    values = np.random.default_rng(0).exponential(1.0, 20_000)
    assert_as_numpy(stats_of(values), values)


segment = st.tuples(
    st.sampled_from([0.01, 0.02, 0.0201, 0.5]) | st.floats(1e-4, 2.0), st.sampled_from([0.0, 1e-6, 1e-4, -1e-8]),
    st.integers(1, 40), st.integers(1, 5),
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.lists(segment, min_size=1, max_size=40), st.sampled_from([1, 8, 1500]))
def test_segment_percentiles_are_those_of_every_gap(segments, few):
    columns = np.array(segments, float).T
    before, stats.FEW = stats.FEW, few  # few = 1: bisection down to single values
    try:
        assert_as_numpy(segment_stats(*columns), expand(*columns))
    finally:
        stats.FEW = before


def test_percentile_between_two_clusters():
    """The median of 4,000 gaps of 20 ms and 4,000 of 30 ms lies half way, though no gap does."""
    first = np.repeat([0.02, 0.03], 4000)
    got = segment_stats(first, np.zeros(8000), np.ones(8000), np.ones(8000))
    assert (got.median, got.p99) == pytest.approx((0.025, 0.03))


# --- definitions


def test_latencies_follow_their_definitions():
    """Two requests, 1 and 5 output tokens: TPOT leaves the first out, TTFT and E2E count from sending."""
    out = outcome_of([0, 1], [0.5, 1.2], [1, 2], [1, 4], gaps=[[0.25, 0.0, 2, 1], [0.5, 0.5, 2, 1]])
    m = measure(out, workload_of(out, [1, 5]), devices=2)
    assert (m.ttft.mean, m.tpot.mean, m.e2el.max, m.queue.max) == pytest.approx((1.0, 0.5, 3.0, 0.5))
    assert (m.itl.mean, m.itl.median, m.itl.max) == pytest.approx((0.5, 0.375, 1.0))
    assert m.itl_exact
    assert (m.duration_s, m.request_throughput_per_s, m.output_throughput_tok_s, m.total_throughput_tok_s) == (
        4.0,
        0.5,
        1.5,
        51.5,
    )
    assert m.mean_concurrency == pytest.approx((1 + 3) / 4)
    assert m.to_json()["output_throughput_tok_s_per_gpu"] == 0.75


def test_warmup_is_left_out_of_everything_but_itl():
    out = outcome_of([0, 0, 2], [0, 0, 2], [9, 1, 3], [19, 11, 13], gaps=[[1.0, 0.0, 10, 3]])
    m = measure(out, workload_of(out, 11, "closed", warmup=1), devices=1)
    assert (m.completed, m.ttft.max, m.duration_s, m.output_tokens) == (2, 1.0, 13.0, 22)
    with pytest.raises(InputError, match="nothing to measure"):
        measure(out, workload_of(out, 11, "closed", warmup=3), devices=1)


def test_itl_without_gaps_falls_back_to_mean_gaps():
    out = outcome_of([0, 0], [0, 0], [1, 1], [2, 4])
    m = measure(out, workload_of(out, [11, 4]), devices=1)
    assert not m.itl_exact
    assert m.itl.mean == pytest.approx((1.0 + 3.0) / 13)
    assert m.itl.median == pytest.approx(0.1)


def test_one_token_outputs_have_no_tpot_and_no_itl():
    out = outcome_of([0, 0], [0, 0], [1, 1], [1, 1])
    m = measure(out, workload_of(out, 1), devices=1)
    assert m.itl_exact
    assert m.to_json()["tpot_ms"]["p99"] is None
    assert json.loads(json.dumps(m.to_json(), allow_nan=False))["completed"] == 2


# --- SLOs


def test_goodput_counts_requests_that_meet_every_slo():
    """Limits are inclusive; one-token requests count as TPOT 0."""
    out = outcome_of([0, 0, 0, 0], [0] * 4, [1, 2, 3, 1], [1, 4, 4, 10])
    slos = parse_slos(["ttft<2s", "tpot<1s", "ttft:p95<2s", "e2e:max<60s"])
    m = measure(out, workload_of(out, [1, 3, 11, 4]), devices=1, slos=slos)
    assert (m.attainment, m.goodput_req_s) == (0.5, 0.2)
    assert [v.attained for v in m.fates] == [0.75, 0.75, 0.0, 1.0]
    assert [row["kept"] for row in m.to_json()["slos"]] == [False, False, False, True]


def test_without_slos_there_is_no_goodput():
    out = outcome_of([0], [0], [1], [2])
    assert measure(out, workload_of(out, 2), devices=1).to_json()["goodput_req_s"] is None


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("ttft<500ms", "ttft=500ms"), ("ttft:500", "ttft=500ms"), ("ttft=500ms", "ttft=500ms"), ("ttft:p95=1s", "ttft:p95=1s"),
        ("TTFT : P95 <= 0.5 s", "ttft:p95=500ms"), ("e2el:5000", "e2e=5s"), ("itl:median<7500us", "itl:p50=7.5ms"),
        ("queue<2s", "queue=2s"), ("tpot:p99:50", "tpot:p99=50ms"),
    ],
)  # fmt: skip
def test_slo_spellings(text, printed):
    assert str(parse_slo(text)) == printed


@given(st.sampled_from(["ttft", "tpot", "itl", "e2e", "queue"]), st.sampled_from(["", ":p99", ":max"]),
       st.floats(1e-9, 1e7))  # fmt: skip
def test_a_printed_slo_reads_back(metric, stat, limit):
    slo = parse_slo(f"{metric}{stat}<{limit!r}s")
    assert parse_slo(str(slo)) == slo


@pytest.mark.parametrize(
    "text",
    ["", "ttft", "ttft>500ms", "ttft<", "ttft<500m", "ttft<500 ns", "ttft<-5ms", "ttft<0ms", "ttft:p42<5ms",
     "latency<5ms", "ttft<nan", "ttft<1e400s", "ttft<5ms,tpot<5ms"],
)  # fmt: skip
def test_bad_slos_are_input_errors(text):
    with pytest.raises(InputError):
        parse_slo(text)


# --- saturation


ONES = np.ones(1000, np.int64)


@pytest.mark.parametrize(("rho", "most", "least"), [(0.5, 0, 0), (0.9, 1, 0), (1.1, 20, 12), (2.0, 20, 20)])
def test_saturation_of_md1_queues(rho, most, least):
    """20 queues of 1,000 requests: ρ ≤ 0.9 is (nearly) never called saturated, ρ = 1.1 mostly, ρ = 2 always."""
    called = sum(saturation(queue_of_one(rho, 1000, seed), ONES)[0] for seed in range(20))
    assert least <= called <= most


def test_light_load_with_long_requests_is_not_saturated():
    """512 requests at 0.5/s that stay 20 s on average: ten run at once, none waits."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        sent, output = np.cumsum(rng.exponential(2.0, 512)), 1 + rng.poisson(rng.gamma(2.0, 500.0, 512))
        out = outcome_of(sent, sent + 0.01, sent + 0.2, sent + 0.2 + 0.02 * (output - 1))
        assert not saturation(out, output)[0]


def test_a_trace_that_ends_while_the_batch_fills_is_not_saturated():
    sent = np.arange(1000) * 0.01
    out = outcome_of(sent, sent, sent + 0.1, sent + 20.1)
    assert not saturation(out, np.full(1000, 1001))[0]


def test_sessions_are_judged_by_those_that_begin():
    """Later turns are sent when the system has answered: their times tell its pace; the last row need not be the last sent."""
    served, slow = sessions_of(1.0), sessions_of(3.0)
    assert saturation(slow[0], np.ones(2000, np.int64), slow[1])[0] and not saturation(served[0], np.ones(2000, np.int64), served[1])[0]


def sessions_of(service: float):
    """500 sessions of four turns, one begun every 5 s; each turn takes `service` of one server, in the order in which they are sent."""
    first = np.arange(500) * 5.0
    after = np.where(np.arange(2000) % 4 == 0, -1, np.arange(2000) - 1)
    sent, start, finish = np.zeros(2000), np.zeros(2000), np.zeros(2000)
    queue = [(t, 4 * i) for i, t in enumerate(first)]
    heapq.heapify(queue)
    free = 0.0
    while queue:
        t, row = heapq.heappop(queue)
        sent[row], start[row] = t, max(t, free)
        free = finish[row] = start[row] + service
        if row % 4 < 3:
            heapq.heappush(queue, (finish[row], row + 1))
    return outcome_of(sent, start, finish, finish), after


def test_a_burst_that_drains_is_not_saturation():
    """60 requests at once in the last third are served long before the last arrival."""
    sent = np.sort(np.concatenate([np.arange(600.0), np.full(60, 450.0)]))
    start = np.maximum.accumulate(sent - 0.5 * np.arange(660)) + 0.5 * np.arange(660)
    assert not saturation(outcome_of(sent, start, start + 0.5, start + 0.5), ONES[:660])[0]


@pytest.mark.parametrize(("slower", "called"), [(0.2, True), (0.0, False)])
def test_a_batch_that_grows_without_end_is_saturated(slower, called):
    """Nothing waits, but requests stay 0.2 s longer for every second of the run."""
    sent = np.arange(1000.0)
    out = outcome_of(sent, sent, sent + 1.0, sent + 5.0 + slower * sent)
    grows, why = saturation(out, np.full(1000, 401))
    assert (grows, "unfinished" in why) == (called, called)


@pytest.mark.parametrize("mode", ["closed", "offline"])
def test_closed_loop_and_offline_are_never_saturated(mode):
    out = queue_of_one(2.0, 300, 0)
    assert not measure(out, workload_of(out, 2, mode), devices=1).saturated


# --- laws


def test_littles_law_on_a_queue():
    """Mean concurrency = request throughput × mean time in the system, by construction of both."""
    out = queue_of_one(0.7, 2000, 3)
    m = measure(out, workload_of(out, 5), devices=1)
    assert m.mean_concurrency == pytest.approx(m.request_throughput_per_s * m.e2el.mean)


def test_series_conserve_request_seconds():
    """Running and waiting, integrated, give the sums over requests."""
    out = queue_of_one(0.9, 500, 4)
    s = series(out, workload_of(out, 5), points=37)
    width = s.time[1] - s.time[0]
    assert sum(s.running) * width == pytest.approx(500.0, rel=1e-6)
    assert sum(s.waiting) * width == pytest.approx(float((out.start - out.sent).sum()), rel=1e-6)


def test_series_hold_the_batch_between_rows_and_add_replicas():
    rows = [[0, 0, 10, 40, 0], [5, 0, 20, 80, 100], [0, 1, 2, 10, 0]]
    out = outcome_of([0.0], [0.0], [1.0], [10.0], timeline=rows, replicas=2)
    s = series(out, workload_of(out, 5), points=2, blocks=100)
    assert s.sequences == (12.0, 22.0)
    assert s.kv_share == (0.25, 0.45)
    assert s.prompt_tokens == (0.0, 100.0)
    assert s.to_json()["time_s"] == [2.5, 7.5]
