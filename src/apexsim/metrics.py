"""What an outcome means: latencies, throughput, goodput, saturation, time series (floor 4).

Definitions are those of vLLM's `bench serve`; docs/vocabulary.md holds each with its unit and the tools that differ.
Inside all times are seconds; `to_json` writes them as people read them, with the unit in the key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apexsim.cost.power import Energy
from apexsim.errors import InputError
from apexsim.slo import LATENCIES, Slo
from apexsim.stats import NAN, Stats, plain, segment_stats, stats_of, weighted_stats
from apexsim.units import format_seconds
from apexsim.workload.trace import NO_INTS, Workload

if TYPE_CHECKING:
    from apexsim.engine.kernel import Outcome

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]

FIELDS = {name: name for name in LATENCIES} | {"e2e": "e2el"}  # attribute of Metrics and stem of its JSON key
RATES = ("request_throughput_per_s", "output_throughput_tok_s", "total_throughput_tok_s")


@dataclass(frozen=True, slots=True)
class Times:
    """What clients see of a run, simulated or measured, and the one place where their latencies are defined.

    sent, first, last: moments of sending, of the first and of the last token [R] s; output: tokens of each answer [R].
    Latencies are worked out whenever they are asked for: of ten million requests one kind takes 80 MB.
    """

    sent: F8
    first: F8
    last: F8
    output: I8

    @property
    def ttft(self) -> F8:
        """Time to the first token [R] s."""
        return self.first - self.sent

    @property
    def e2e(self) -> F8:
        """Time to the last token [R] s."""
        return self.last - self.sent

    @property
    def several(self) -> NDArray[np.bool_]:
        """[R] answers of more than one token, which alone have gaps."""
        return self.output > 1

    @property
    def tpot(self) -> F8:
        """Mean gap of each answer [R] s; 0 of one token, as in vLLM's goodput."""
        steps = self.output - 1
        decode = self.e2e
        decode -= self.ttft
        np.divide(decode, steps, out=decode, where=steps > 0)
        decode[steps <= 0] = 0.0
        return decode

    @property
    def duration(self) -> float:
        """From the first sending to the last token [s]."""
        return max(float(self.last.max() - self.sent.min()), 1e-9)

    @property
    def concurrency(self) -> float:
        """Time mean of requests sent and not finished."""
        return float(self.e2e.sum()) / self.duration


@dataclass(frozen=True, slots=True)
class Fate:
    """How one SLO fared.

    Per request: `attained` is the share of requests that met it.  A constraint: `measured` [s], attained 0 or 1.
    """

    slo: Slo
    measured: float
    attained: float

    @property
    def kept(self) -> bool:
        """Is it kept (a per-request SLO: by every request)?"""
        return self.attained >= 1.0


@dataclass(frozen=True, slots=True)
class Rung:
    """A stage of a load: its requests, the rate at which they were sent [1/s], and from its first sending to its last token [s]."""

    requests: int
    rate: float
    duration_s: float
    output_tok_s: float
    ttft: Stats
    e2el: Stats

    def to_json(self) -> dict[str, Any]:
        """Units in the keys."""
        return {"requests": self.requests, "request_rate": self.rate, "duration_s": self.duration_s, "ttft_ms": self.ttft.to_json(1e3),
                "output_throughput_tok_s": self.output_tok_s, "e2el_ms": self.e2el.to_json(1e3)}  # fmt: skip


def rungs(outcome: Outcome, workload: Workload) -> tuple[Rung, ...]:
    """The stages of a load one by one, warm-up included; none where it has none."""
    if not len(workload.stage):
        return ()
    edges, since, found = [0, *workload.stage.tolist(), workload.size], workload.since, []
    for a, b in pairwise(edges):
        times = Times(outcome.sent[a:b], outcome.first[a:b], outcome.finish[a:b], workload.output[a:b])
        rate = (b - a) / max(float(since[b - 1]), 1e-9)
        found.append(
            Rung(b - a, rate, times.duration, float(times.output.sum()) / times.duration, stats_of(times.ttft), stats_of(times.e2e))
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """The requests of one class after the warm-up [s].  attainment: the share that meets every limit of its own (NaN without any),
    goodput_req_s: how many of them a second of the run."""

    name: str
    requests: int
    ttft: Stats
    tpot: Stats
    e2el: Stats
    queue: Stats
    attainment: float
    goodput_req_s: float

    def latency(self, metric: str, stat: str) -> float:
        """One statistic [s]; NaN where no request has one."""
        found: Stats = getattr(self, FIELDS[metric])
        return found.value(stat)

    def to_json(self) -> dict[str, Any]:
        """Units in the keys."""
        times = {f"{FIELDS[name]}_ms": getattr(self, FIELDS[name]).to_json(1e3) for name in BY_CLASS}
        return {"class": self.name, "requests": self.requests, **times, "attainment": plain(self.attainment),
                "goodput_req_s": plain(self.goodput_req_s)}  # fmt: skip


BY_CLASS = ("ttft", "tpot", "e2e", "queue")  # single gaps are not known by class


@dataclass(frozen=True, slots=True)
class Metrics:
    """One run in numbers, over the requests after the warm-up.

    duration_s: first send to last finish of these; mean_concurrency: time mean of requests sent and not finished;
    itl covers every gap of the run, also those of the warm-up; itl_exact is False where single gaps were not recorded
    and each request counts with its mean gap; goodput_req_s: requests per second that meet all per-request SLOs (NaN
    without any), attainment: their share; saturated, why: the queue still grew at the last arrival (open loop only).
    """

    devices: int
    completed: int
    warmup_excluded: int
    prompt_tokens: int
    output_tokens: int
    duration_s: float
    ttft: Stats
    tpot: Stats
    itl: Stats
    e2el: Stats
    queue: Stats
    itl_exact: bool
    mean_concurrency: float
    preemptions: int
    goodput_req_s: float
    attainment: float
    fates: tuple[Fate, ...]
    saturated: bool
    why: str
    energy: Energy = field(default_factory=Energy)  # of the whole run, warm-up included; unknown until the run is priced
    prefix_hit: float = NAN  # share of the prompt tokens that requests found in the cache when they first started; NaN: none share any
    prefix_loaded: float = NAN  # of the prompt tokens, part of it: loaded from tiers behind the KV cache; NaN: there are none
    stages: tuple[Rung, ...] = ()  # of a load in stages
    usd_h: float = math.nan  # rent of one GPU [$/h]
    kinds: tuple[ClassMetrics, ...] = ()  # of requests that have classes

    @property
    def request_throughput_per_s(self) -> float:
        """Finished requests per second [1/s]."""
        return self.completed / self.duration_s

    @property
    def output_throughput_tok_s(self) -> float:
        """Output tokens per second [token/s]."""
        return self.output_tokens / self.duration_s

    @property
    def total_throughput_tok_s(self) -> float:
        """Prompt and output tokens per second [token/s]."""
        return (self.prompt_tokens + self.output_tokens) / self.duration_s

    @property
    def usd_per_million(self) -> float:
        """Rent of all GPUs over output tokens [$ per 10⁶]; NaN where no price is known."""
        return self.usd_h * self.devices / 3600.0 / max(self.output_throughput_tok_s, 1e-300) * 1e6

    def stats(self, metric: str) -> Stats:
        """The distribution of ttft, tpot, itl, e2e or queue [s]."""
        found: Stats = getattr(self, FIELDS[metric])
        return found

    def latency(self, metric: str, stat: str = "mean") -> float:
        """One statistic of it [s]; NaN where no request has one."""
        return self.stats(metric).value(stat)

    def of(self, slo: Slo) -> float:
        """What a limit with a statistic is held against [s]: of its class, or of all requests."""
        if not slo.kind:
            return self.latency(slo.metric, slo.stat)
        return next(kind.latency(slo.metric, slo.stat) for kind in self.kinds if kind.name == slo.kind)

    def met(self, slo: Slo) -> float:
        """The share of requests, of its class if it has one, that meet a limit of each request."""
        return next(fate.attained for fate in self.fates if fate.slo == slo)

    @property
    def least_attained(self) -> float:
        """The least share of requests that meet their limits: of all, or of a class; NaN without limits of each request."""
        known = [share for share in (self.attainment, *(kind.attainment for kind in self.kinds)) if not math.isnan(share)]
        return min(known, default=NAN)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers for files and screens, units in the keys; unknown numbers are None."""
        rates = {name: float(getattr(self, name)) for name in RATES}
        return {
            "completed": self.completed,
            "warmup_excluded": self.warmup_excluded,
            "duration_s": self.duration_s,
            **{f"{FIELDS[name]}_ms": self.stats(name).to_json(1e3) for name in LATENCIES},
            "itl_exact": self.itl_exact,
            **rates,
            **{f"{name}_per_gpu": rate / self.devices for name, rate in rates.items()},
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "mean_concurrency": self.mean_concurrency,
            "preemptions": self.preemptions,
            "prefix_hit": plain(self.prefix_hit),
            "prefix_loaded": plain(self.prefix_loaded),
            "stages": [rung.to_json() for rung in self.stages],
            **({"classes": [kind.to_json() for kind in self.kinds]} if self.kinds else {}),
            "goodput_req_s": plain(self.goodput_req_s),
            "attainment": plain(self.attainment),
            "slos": [_fate_json(v) for v in self.fates],
            "saturated": self.saturated,
            "saturated_why": self.why,
            "energy": self.energy.to_json(),
            "usd_per_gpu_h": self.usd_h if math.isfinite(self.usd_h) else None,
            "usd_per_million_output_tokens": self.usd_per_million if math.isfinite(self.usd_h) else None,
        }


def _fate_json(fate: Fate) -> dict[str, Any]:
    head = {"slo": str(fate.slo), "limit_ms": fate.slo.limit_s * 1e3, "kept": fate.kept}
    if fate.slo.per_request:
        return head | {"attainment": fate.attained}
    return head | {"measured_ms": plain(fate.measured * 1e3)}


def measure(outcome: Outcome, workload: Workload, *, devices: int, slos: tuple[Slo, ...] = ()) -> Metrics:
    """What the outcome of `workload` on `devices` GPUs means; raises InputError when the warm-up leaves nothing."""
    skip = workload.warmup
    if skip >= workload.size:
        raise InputError(f"nothing to measure: {workload.size} requests, {skip} of them warm-up", "warm-up")
    times = Times(outcome.sent[skip:], outcome.first[skip:], outcome.finish[skip:], workload.output[skip:])
    found = _Latencies(slos, np.ones(len(times.sent), np.bool_), workload.kind[skip:], workload.kinds)
    kinds: tuple[tuple[str, Callable[[], F8]], ...] = (
        ("ttft", lambda: times.ttft), ("queue", lambda: outcome.start[skip:] - times.sent), ("e2e", lambda: times.e2e),
    )  # fmt: skip
    for name, since in kinds:
        spent = since()
        found.add(name, spent, stats_of(spent))
        found.apart(name, spent)
    del spent
    exact = _decoding(found, outcome, times)
    fates, good, duration = found.fates(), found.good, times.duration
    judged = any(slo.per_request for slo in slos)
    saturated, why = saturation(outcome, workload.output, workload.after) if workload.mode == "open" else (False, "")
    named: dict[str, Any] = {FIELDS[name]: one for name, one in found.stats.items()}
    return Metrics(
        devices=devices,
        completed=len(times.sent),
        warmup_excluded=skip,
        prompt_tokens=int(workload.prompt[skip:].sum()),
        output_tokens=int(times.output.sum()),
        duration_s=duration,
        **named,
        itl_exact=exact,
        mean_concurrency=times.concurrency,
        preemptions=int(outcome.preempted[skip:].sum()),
        goodput_req_s=float(good.sum()) / duration if judged else NAN,
        attainment=float(good.mean()) if judged else NAN,
        fates=fates,
        saturated=saturated,
        why=why,
        stages=rungs(outcome, workload),
        kinds=found.classes(duration),
        prefix_hit=float(outcome.hit[skip:].sum() / workload.prompt[skip:].sum()) if len(outcome.hit) else NAN,
        prefix_loaded=float(outcome.loaded[skip:].sum() / workload.prompt[skip:].sum()) if len(outcome.loaded) else NAN,
    )


@dataclass(slots=True)
class _Latencies:
    """What the latencies of the requests come to.  Each is looked at and forgotten: ten million of one kind take 80 MB.

    good: [R] requests that met all per-request SLOs so far, each those of its class; kind: [R] place in `kinds`, empty without classes.
    """

    slos: Sequence[Slo]
    good: NDArray[np.bool_]
    kind: I8
    kinds: tuple[str, ...]
    by_class: dict[tuple[str, str], Stats] = field(default_factory=dict)
    stats: dict[str, Stats] = field(default_factory=dict)
    met: dict[Slo, float] = field(default_factory=dict)

    def add(self, name: str, values: F8, stats: Stats) -> None:
        """One kind of latency [R] s, with its statistics."""
        self.stats[name] = stats
        for slo in self.slos:
            if slo.per_request and slo.metric == name:
                met = values <= slo.limit_s
                if slo.kind:
                    own = self.kind == self.kinds.index(slo.kind)
                    self.met[slo] = float(met[own].mean()) if own.any() else 1.0
                    self.good &= met | ~own
                else:
                    self.good &= met
                    self.met[slo] = float(met.mean())

    def apart(self, name: str, values: F8, counted: NDArray[np.bool_] | None = None) -> None:
        """The same latency of each class.  counted: [R] requests that have one."""
        for place, kind in enumerate(self.kinds):
            own = self.kind == place
            self.by_class[kind, name] = stats_of(values[own if counted is None else own & counted])

    def classes(self, duration: float) -> tuple[ClassMetrics, ...]:
        """Each class over a run [s]."""
        return tuple(self._class(place, duration) for place in range(len(self.kinds)))

    def _class(self, place: int, duration: float) -> ClassMetrics:
        name, own = self.kinds[place], self.kind == place
        judged = own.any() and any(slo.per_request and slo.kind in ("", name) for slo in self.slos)
        good = int(self.good[own].sum())
        stats = {FIELDS[metric]: self.by_class[name, metric] for metric in BY_CLASS}
        return ClassMetrics(
            name,
            int(own.sum()),
            **stats,
            attainment=good / int(own.sum()) if judged else NAN,
            goodput_req_s=good / duration if judged else NAN,
        )

    def fates(self) -> tuple[Fate, ...]:
        """Each SLO's fate.  A statistic of nothing keeps its limit."""
        made = []
        for slo in self.slos:
            stats = self.by_class[slo.kind, slo.metric] if slo.kind and slo.stat else self.stats[slo.metric]
            measured = NAN if slo.per_request else stats.value(slo.stat)
            made.append(Fate(slo, measured, self.met[slo] if slo.per_request else 0.0 if measured > slo.limit_s else 1.0))
        return tuple(made)


def _decoding(found: _Latencies, outcome: Outcome, times: Times) -> bool:
    """TPOT and ITL of the requests; is ITL exact?

    An ITL limit for each request is held against its mean gap, that is its TPOT (as GuideLLM and aiperf define ITL).
    """
    tpot, many = times.tpot, times.several
    several = slice(None) if many.all() else many
    found.add("tpot", tpot, stats_of(tpot[several]))
    found.apart("tpot", tpot, many)
    itl, exact = _itl_stats(outcome, tpot[several], times.output[several] - 1)
    found.add("itl", tpot, itl)
    return exact


def _itl_stats(outcome: Outcome, tpot: F8, gaps: I8) -> tuple[Stats, bool]:
    """ITL over every gap of the run, or over each request's mean gap where gaps were not recorded."""
    if len(outcome.gaps):
        return segment_stats(*np.ascontiguousarray(outcome.gaps.T)), True
    return weighted_stats(tpot, gaps.astype(np.float64)), len(tpot) == 0


# --- saturation -------------------------------------------------------------------------------------------------------

JUDGED = 30  # fewer requests say nothing about a trend
CHANCE = {"waiting": 0.5, "unfinished": 1.0}  # of √n: growth of the mean backlog between two thirds put down to chance


def saturation(outcome: Outcome, output: I8, after: I8 = NO_INTS) -> tuple[bool, str]:
    """Does the queue still grow at the last arrival (open loop)?  And the numbers that say so.

    Arrivals are those of requests that wait for nobody (after: whom each waits for, −1 = nobody): the others are sent when the system has
    answered, however slow it is.  All of them may wait; of the unfinished those that wait for nobody are counted, since while sessions
    begin those that go on add to the others.
    The time of arrivals is cut into thirds.  Two backlogs are looked at: *waiting* (sent, not started) and
    *unfinished* (sent, not finished).  A backlog grows when its time mean in the last third exceeds that in the middle
    third by more than chance, c·√n for n arrivals (the means of a random walk of n unit steps over two neighbouring
    thirds differ by √(2n)/3 ≈ 0.47·√n, one standard deviation), and its mean in the last ninth is above four fifths of
    that of the last third.  Waiting that grows is saturation.  Unfinished that grows, by a quarter or more, is
    saturation only if the batch is not just filling: a third of the trace is longer than two requests on an idle
    system, and what is left at the last arrival takes as long as three (`_alone`).

    On 400 simulated M/D/1 queues each, the share called saturated: with 1,000 requests 0 % at ρ = 0.9, 80 % at 1.1,
    100 % at 1.2; with 100 requests 7 % at 0.9 and 94 % at 1.5.  Within about 2/√n of ρ = 1 no trace can tell.
    The factors of the second test are a judgement, not a theorem.
    """
    sent, first = outcome.sent, after < 0 if len(after) else np.ones(len(outcome.sent), np.bool_)
    came = sent[first]
    begin, end = (float(came.min()), float(came.max())) if len(came) else (0.0, 0.0)
    if int((sent <= end).sum()) < JUDGED or end <= begin:
        return False, ""
    third = (end - begin) / 3.0
    for name, enter, leave in (("waiting", sent, outcome.start), ("unfinished", came, outcome.finish[first])):
        was, is_ = _backlog(enter, leave, end - 2.0 * third, end - third), _backlog(enter, leave, end - third, end)
        n, drain = int((enter <= end).sum()), float(leave.max()) - end if name == "unfinished" else float(outcome.finish.max()) - end
        if is_ - was <= CHANCE[name] * math.sqrt(n) or _backlog(enter, leave, end - third / 3.0, end) <= 0.8 * is_:
            continue
        if name == "waiting" or (is_ > 1.25 * was and min(third / 2.0, drain / 3.0) > _alone(outcome, output, end)):
            return True, (
                f"{name} requests grow from {was:.0f} to {is_:.0f} between the middle and the last third of the "
                f"arrivals; the last finishes {format_seconds(drain)} after the last arrival"
            )
    return False, ""


def _alone(outcome: Outcome, output: I8, end: float) -> float:
    """How long the longest request in flight at the last arrival, at `end` [s], or sent later would stay on an idle system [s].

    Its decode steps at the shortest gap of the run (TPOT where gaps were not recorded), after the median time from
    start to first token.
    """
    steps = output - 1
    last = int(steps[outcome.finish > end].max(initial=0))
    prompt = float(np.median(outcome.first - outcome.start))
    if last == 0:
        return prompt
    tpot = (outcome.finish - outcome.first) / np.maximum(steps, 1)
    return prompt + last * float(outcome.gaps[:, 0].min() if len(outcome.gaps) else tpot[steps > 0].min())


def _backlog(enter: F8, leave: F8, a: float, b: float) -> float:
    """Time mean over [a, b] of the requests that have entered and not left."""
    stay = np.clip(leave, a, b)
    stay -= np.clip(enter, a, b)
    return float(stay.sum()) / (b - a)


# --- time series ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Series:
    """Time means over equal bins from the first send to the last finish, over all replicas.

    time: middle of the bin [s]; running: started and not finished (a preempted request still counts); waiting: sent and
    not started; kv_share: used share of all KV blocks (empty when their number is not given); sequences, prompt_tokens:
    decoding sequences of a replica's group and prompt tokens of its step, summed over replicas.
    The last three come from an even sample of the steps: good for a chart, not for sums.
    """

    time: tuple[float, ...]
    running: tuple[float, ...]
    waiting: tuple[float, ...]
    kv_share: tuple[float, ...]
    sequences: tuple[float, ...]
    prompt_tokens: tuple[float, ...]

    def to_json(self) -> dict[str, list[float]]:
        """Lists, with the unit in the key."""
        return {("time_s" if name == "time" else name): list(values) for name, values in asdict(self).items()}


def series(outcome: Outcome, workload: Workload, points: int = 120, *, blocks: int = 0) -> Series:
    """How the run went, in `points` bins.  blocks: KV blocks of one replica (all its lanes), 0 = unknown."""
    if workload.size == 0:
        return Series((), (), (), (), (), ())
    edges = np.linspace(float(outcome.sent.min()), float(outcome.finish.max()), points + 1)
    width = np.maximum(np.diff(edges), 1e-12)
    sent, start, finish = (_area(x, edges) for x in (outcome.sent, outcome.start, outcome.finish))
    rows, replicas = outcome.timeline, len(outcome.sums)
    held = np.zeros((3, points))
    for r in range(replicas):
        mine = rows[rows[:, 1] == r]
        if len(mine):
            held += [_held(mine[:, 0], mine[:, c], edges) for c in (2, 3, 4)]
    running = np.maximum(np.diff(start - finish), 0.0) / width
    held *= running > 1e-9  # nothing is held while all replicas idle
    waiting = np.maximum(np.diff(sent - start), 0.0) / width
    share = held[1] / (blocks * replicas) if blocks else np.empty(0)
    columns = (edges[:-1] + 0.5 * width, running, waiting, share, held[0], held[2])
    return Series(*(tuple(np.round(c, 9).tolist()) for c in columns))


def _area(times: F8, edges: F8) -> F8:
    """∫ of the number of `times` that have passed, up to each edge [s]."""
    x = np.sort(times, kind="stable")  # nearly in order already
    passed = x.searchsorted(edges, "right")
    np.cumsum(x, out=x)
    return passed * edges - np.where(passed > 0, x[passed - 1], 0.0)


def _held(time: F8, value: F8, edges: F8) -> F8:
    """Time mean in each bin of a value that holds until the next row (0 before the first)."""
    order = time.argsort(kind="stable")
    t, v = time[order], value[order]
    passed = t.searchsorted(edges, "right")
    area = np.concatenate(([0.0], (v[:-1] * np.diff(t)).cumsum()))
    at = np.maximum(passed - 1, 0)
    total = np.where(passed > 0, area[at] + v[at] * (edges - t[at]), 0.0)
    mean: F8 = np.diff(total) / np.maximum(np.diff(edges), 1e-12)
    return mean
