"""How many replicas a load needs that changes over the day, what they cost, and what a policy makes of it (floor 5).

A replica is the plan, of those that serve most within the limits on so many GPUs, that a steady load as high as each interval's costs
least with (fewest GPUs where no price is known).  The trace is cut into intervals.  Of each, the fewest replicas that keep the limits are
found by simulating its own requests, led in by those that came just before; a policy then asks for replicas without knowing what comes
(`search.policy`), and each interval is simulated with those that serve.

Ignored: a backlog that outlives the lead-in, requests that move when a replica stops, and the time a replica takes to drain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.cost.account import Account
from apexsim.cost.power import gpu_watts
from apexsim.errors import Infeasible, InputError, Unkept
from apexsim.metrics import Metrics, measure
from apexsim.objective import overrun
from apexsim.plan.plan import Plan
from apexsim.search.assess import energy_of
from apexsim.search.error import doubt_of
from apexsim.search.evaluate import Evaluation, evaluate
from apexsim.search.goal import Goal
from apexsim.search.policy import DAY, POLICIES, Counts, ScalingRule
from apexsim.search.pool import evaluated, kept_open
from apexsim.search.setting import Setting
from apexsim.search.size import APART, SHARE, SLACK, CandidateCluster, SizeAnswer, Trials, Wanted, most_load, startable
from apexsim.search.size import overrun as missed_by
from apexsim.units import format_seconds
from apexsim.views import Shown
from apexsim.workload.trace import Workload

LEAD = 300.0  # s of requests before an interval that fill the batch, and are not measured
SAMPLE = 4096  # requests that say how much one replica serves
LOADED = 2.0e9  # byte/s at which weights come from a local disk or a fast network: a stated assumption
STARTED = 60.0  # s for the process, compilation and the capture of graphs: a stated assumption
MOST = 4096  # replicas
FARTHER, NEARER = 4, 0.95  # times as many replicas that must bring the limits so much nearer, or no number of them will do
UNHELPED = "looser limits, faster GPUs, or more of them for a replica (--gpus)"


@dataclass(frozen=True, slots=True)
class FleetAsk:
    """every: seconds of an interval; start_up: seconds until a replica serves; hold: intervals for which one is kept that is no longer
    needed; spare: share of replicas on top; least: replicas at any time; share: of the requests that must keep limits of each request."""

    every: float
    start_up: float
    hold: int
    spare: float
    least: int
    share: float
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """begin [s]; requests; need: fewest replicas."""

    begin: float
    requests: int
    need: int


@dataclass(frozen=True, slots=True)
class Course:
    """What a policy does.  paid, serving: replicas [T]; kept: intervals that keep the limits [T]; watts: of all GPUs [T].

    requests: of each interval [T]."""

    policy: str
    paid: Counts
    serving: Counts
    kept: NDArray[np.bool_]
    watts: NDArray[np.float64]
    requests: Counts

    @property
    def late(self) -> float:
        """Requests of intervals that miss the limits, as a share."""
        return float(self.requests[~self.kept].sum() / max(self.requests.sum(), 1))

    def part(self, part: slice) -> Course:
        """Some of its intervals."""
        return Course(self.policy, self.paid[part], self.serving[part], self.kept[part], self.watts[part], self.requests[part])


@dataclass(frozen=True, slots=True)
class Mix:
    """The cheapest mix of kinds in each interval (`search.mix`), as if replicas came and went at once.  units: the kinds, the best first;
    counts: replicas of each kind [T, K]; every: seconds of an interval."""

    units: tuple[SizeAnswer, ...]
    counts: NDArray[np.int64]
    every: float

    @property
    def dollars(self) -> float:
        """Rent of the whole time."""
        return self._rent(self.counts)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the kinds."""
        return tuple(f"{unit.gpus} × {unit.setting.cluster.gpu.name}" for unit in self.units)

    def alone(self, need: Sequence[int]) -> float:
        """Rent of the whole time of the best kind alone."""
        counts = np.zeros_like(self.counts)
        counts[:, 0] = need
        return self._rent(counts)

    def _rent(self, counts: NDArray[np.int64]) -> float:
        return float((counts @ np.array([unit.rent for unit in self.units])).sum()) * self.every / 3600.0


@dataclass(frozen=True, slots=True, repr=False)
class Fleet(Shown):
    """The answer.  unit: one replica, simulated at the most load that it takes."""

    model: str
    unit: SizeAnswer
    asked: FleetAsk
    goal: Goal
    intervals: tuple[Interval, ...]
    courses: tuple[Course, ...]
    lost: Mapping[str, float] = field(default_factory=dict)  # what the busiest interval does with one replica fewer
    inputs: Mapping[str, Any] = field(default_factory=dict)
    mix: Mix | None = None  # of several kinds of GPU

    @property
    def gpus(self) -> int:
        """Of one replica."""
        return self.unit.plan.devices

    @property
    def hours(self) -> float:
        """Of an interval."""
        return self.asked.every / 3600.0

    def gpu_hours(self, course: Course) -> float:
        """That are paid."""
        return float(course.paid.sum()) * self.gpus * self.hours

    def dollars(self, course: Course) -> float:
        """Rent of the whole time; NaN where no price is known."""
        return self.gpu_hours(course) * self.unit.setting.price[0]

    def kwh(self, course: Course) -> float:
        """Of the GPUs, over the whole time."""
        return float(course.watts.sum()) * self.hours / 1000.0

    @property
    def days(self) -> float:
        """That the trace lasts."""
        return len(self.intervals) * self.asked.every / DAY


# ---- one replica ---------------------------------------------------------------------------------------------------------


def steady(work: Workload, seed: int = 0) -> Workload:
    """A sample of the requests that come at random at one rate, whatever their own times."""
    at = np.unique(np.linspace(0, work.size - 1, min(SAMPLE, work.size)).astype(np.int64))
    sample = work.without_prefixes().only(at)
    gaps = np.random.default_rng(seed).exponential(1.0, sample.size)
    return replace(sample, arrive=np.cumsum(gaps) - gaps[0], warmup=0)


SINGLY = 1e-3  # requests/s at which none meets another


def _unkept(clusters: Sequence[CandidateCluster]) -> Infeasible:
    """Why no replica will do: it does not fit, or misses the limits however small the load is."""
    near = [one for cluster in clusters if (one := cluster.nearest(SINGLY))]
    if not near:
        return Infeasible("no replica fits", "give larger GPUs, or more with --gpus")
    one = min(near, key=lambda found: (missed_by(found.run, SHARE), found.run.key))
    missed = [f"{limit.name.rpartition('=')[0]} of {format_seconds(limit.measured)}" for limit in one.run.limits if not limit.kept]
    how = ", ".join(missed) or f"{one.run.metrics.least_attained:.0%} of its requests within their limits"
    gpus = f"{one.gpus} × {one.setting.cluster.gpu.name}"
    return Unkept("no replica keeps the limits, however small the load is", f"{one.plan.shorthand} on {gpus} comes nearest, with {how}")


def best_units(clusters: Sequence[CandidateCluster]) -> tuple[SizeAnswer, ...]:
    """Of each number of GPUs the replica that serves most, ascending in GPUs; raises Infeasible where none keeps the limits."""
    found: dict[int, SizeAnswer] = {}
    for cluster in clusters:
        for one in most_load(cluster.trials, cluster.plans):
            found[one.gpus] = max(found.get(one.gpus, one), one, key=lambda each: each.value)
    if not found:
        raise _unkept(clusters)
    return tuple(found[gpus] for gpus in sorted(found))


def steady_rent(one: SizeAnswer, work: Workload, asked: FleetAsk) -> float:
    """Rent of all intervals [$/h times intervals], or GPUs where no price is known, if each held its mean load throughout."""
    loads = np.bincount((work.arrive / asked.every).astype(np.int64)) / asked.every
    replicas = np.maximum(np.ceil(loads / one.value), asked.least)
    return float(replicas.sum()) * (one.rent if math.isfinite(one.rent) else one.gpus)


def per_request(one: SizeAnswer) -> float:
    """Rent, or GPUs where no price is known, for each request/s."""
    return (one.rent if math.isfinite(one.rent) else one.gpus) / one.value


def unit_cluster(setting: Setting, goal: Goal, plans: Sequence[Plan], share: float) -> CandidateCluster:
    """Plans of one replica on a cluster, under a steady load."""
    single = tuple(plan for plan in startable(setting, plans) if plan.replicas == 1)
    sampled = replace(setting, workload=steady(setting.workload))
    return CandidateCluster(Trials(sampled, goal, Wanted("rate", share=share)), single)


def start_up(setting: Setting, plan: Plan) -> float:
    """How long a replica takes to start [s]: the process and its graphs, and the weights of a node over its disk or network."""
    found = evaluate(replace(setting, workload=steady(setting.workload).only(np.arange(1))), plan)
    assert isinstance(found, Evaluation)
    on_node = min(plan.replica_devices, setting.cluster.per_node)
    return STARTED + dict(found.room.ledger)["weights"] * on_node / LOADED


# ---- intervals ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tried:
    """An interval under some replicas.  watts: of all GPUs."""

    metrics: Metrics
    watts: float


def intervals_of(work: Workload, every: float) -> int:
    """How many intervals of so many seconds a workload has, the last one whole."""
    return max(1, math.ceil((float(work.arrive[-1]) + 1e-9) / every))


@dataclass(slots=True)
class Trace:
    """The intervals of a trace, each simulated once with any number of replicas."""

    setting: Setting
    plan: Plan
    goal: Goal
    asked: FleetAsk
    rate: float  # 1/s that one replica serves
    spent: Account  # by one replica
    done: dict[int, dict[int, Tried]] = field(default_factory=dict)  # interval -> replicas -> what comes of it

    @property
    def count(self) -> int:
        """Intervals, the last one whole."""
        return intervals_of(self.setting.workload, self.asked.every)

    def ends(self, t: int) -> tuple[int, int]:
        """Requests of an interval: first, and first of the next."""
        edges = np.searchsorted(self.setting.workload.arrive, [t * self.asked.every, (t + 1) * self.asked.every])
        return int(edges[0]), int(edges[1])

    def slice(self, t: int) -> Workload:
        """The requests of an interval, led in by those before."""
        work, begin = self.setting.workload, t * self.asked.every
        first, last = self.ends(t)
        lead = int(np.searchsorted(work.arrive, begin - min(LEAD, self.asked.every)))
        part = work.only(np.arange(lead, last))
        return replace(part, arrive=part.arrive - part.arrive[0], warmup=first - lead)

    def tried(self, t: int, count: int) -> Tried:
        """An interval with so many replicas, one at least, simulated once."""
        done = self.done.setdefault(t, {})
        if count not in done:
            setting, plan = replace(self.setting, workload=self.slice(t)), replace(self.plan, replicas=count)
            found = evaluate(setting, plan)
            assert isinstance(found, Evaluation)
            metrics = measure(found.outcome, setting.workload, devices=plan.devices, slos=self.goal.slos)
            done[count] = Tried(metrics, energy_of(setting.at(plan.clock), found).watts * plan.devices)
        return done[count]

    def keeps(self, t: int, count: int) -> bool:
        """Whether an interval keeps the limits with so many replicas."""
        return self.held(self.tried(t, count).metrics)

    def held(self, metrics: Metrics) -> bool:
        """Whether a run keeps the limits."""
        return not self.over(metrics)

    def over(self, metrics: Metrics) -> float:
        """How many times over its limit the worst of a run is; 0 where it keeps them all."""
        attained = metrics.least_attained
        limits = self.goal.limits(metrics, partial(doubt_of, system=self.setting, spent=self.spent))
        short = 0.0 if math.isnan(attained) or attained >= self.asked.share else self.asked.share / max(attained, 1e-3)
        return max(overrun(limits), short)

    def need(self, t: int) -> int:
        """Fewest replicas that keep the limits in an interval: from what a steady load needs, outwards, then by bisection."""
        first, last = self.ends(t)
        if first == last:
            return self.asked.least
        guess = max(1, math.ceil((last - first) / self.asked.every / self.rate))
        low, high = (guess - 1, guess) if self.keeps(t, guess) else self._more(t, guess)
        step = 1
        while low >= 1 and self.keeps(t, low):  # fewer
            low, high, step = max(0, low - step), low, 2 * step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.keeps(t, middle) else (middle, high)
        return max(high, self.asked.least)

    def _more(self, t: int, low: int) -> tuple[int, int]:
        """(replicas that do not keep the limits of an interval, more that do) from a number that does not, in growing steps.

        Raises Unkept where requests that never meet miss them, each has a replica of its own, or FARTHER times as many come no NEARER."""
        each, step, missed = min(MOST, self.slice(t).size), 1, {low: self.missed(t, low)}
        begin = format_seconds(t * self.asked.every)
        told = f"no number of replicas keeps the limits in the interval from {begin}"
        apart = self.apart(t)
        if apart > SLACK or (apart and missed[low] < SLACK * apart):
            raise Unkept(f"{told}: its requests miss them even one by one", UNHELPED)
        while low < each:
            tried = min(low + step, each)
            if self.keeps(t, tried):
                return low, tried
            low, step = tried, 2 * step
            missed[low] = self.missed(t, low)
            if any(FARTHER * count <= low and missed[low] > NEARER * far for count, far in missed.items()):
                break
        raise Unkept(f"{told}: {low:,} come no nearer to them than fewer", UNHELPED)

    def apart(self, t: int) -> float:
        """How many times over its limit the worst of an interval is where its requests never meet, and find all that one cache holds."""
        work = self.slice(t)
        setting = replace(self.setting, workload=replace(work, arrive=np.arange(work.size, dtype=np.float64) * APART))
        found = evaluate(setting, replace(self.plan, replicas=1))
        assert isinstance(found, Evaluation)
        return self.over(measure(found.outcome, setting.workload, devices=self.plan.replica_devices, slos=self.goal.slos))

    def missed(self, t: int, count: int) -> float:
        """How many times over its limit the worst is in an interval with so many replicas."""
        return self.over(self.tried(t, count).metrics)


# ---- the whole time -----------------------------------------------------------------------------------------------------------


def followed(
    trace: Trace, progress: Callable[[int, int, str], None] | None = None, *, workers: int = 0, ray: str | None = None
) -> tuple[tuple[Interval, ...], tuple[Course, ...]]:
    """What every interval needs, and what each policy makes of it.  workers, ray: as of a search (`search.pool`)."""
    asked, count = trace.asked, trace.count
    with kept_open(ray, workers):
        need = []
        for t, (found, done) in enumerate(evaluated(partial(_looked_at, trace), range(count), workers, ray)):
            need.append(found)
            trace.done[t] = done  # what a worker has simulated elsewhere
            if progress:
                progress(t + 1, count, "intervals")
        intervals = tuple(Interval(t * asked.every, _size(trace, t), n) for t, n in enumerate(need))
        wanted = np.array([math.ceil(n * (1.0 + asked.spare) - 1e-9) for n in need], np.int64)
        rule = scaling_rule(asked, intervals)
        paid = {name: POLICIES[name](wanted, rule) for name in asked.policies}
        serving = {name: readied(asked, name, counts) for name, counts in paid.items()}
        asked_for = {(t, int(n)) for counts in serving.values() for t, n in enumerate(counts) if intervals[t].requests}
        left = sorted((t, n) for t, n in asked_for if n not in trace.done[t])
        for (t, n), tried in zip(left, evaluated(partial(_tried, trace), left, workers, ray)):
            trace.done[t][n] = tried
    return intervals, tuple(course_of(trace, name, counts, serving[name], intervals) for name, counts in paid.items())


def scaling_rule(asked: FleetAsk, intervals: Sequence[Interval] = ()) -> ScalingRule:
    """How replicas are asked for, and wait until they serve."""
    load = np.array([interval.requests for interval in intervals], np.int64)
    return ScalingRule(math.ceil(asked.start_up / asked.every), asked.hold, max(1, round(DAY / asked.every)), load)


def readied(asked: FleetAsk, policy: str, paid: Counts) -> Counts:
    """Replicas that serve in each interval [T] of those that a policy has; those of the bound start at once."""
    return paid if policy == "instant" else scaling_rule(asked).ready(paid)


def _looked_at(trace: Trace, t: int) -> tuple[int, dict[int, Tried]]:
    """What an interval needs, and all that was simulated of it."""
    return trace.need(t), trace.done.get(t, {})


def _tried(trace: Trace, key: tuple[int, int]) -> Tried:
    return trace.tried(*key)


def _size(trace: Trace, t: int) -> int:
    first, last = trace.ends(t)
    return last - first


def course_of(trace: Trace, name: str, paid: Counts, serving: Counts, intervals: Sequence[Interval]) -> Course:
    """A policy over the whole time."""
    devices = trace.plan.devices
    idle_w = gpu_watts(trace.setting.cluster.gpu, 0.0, 0.0, active=0.0)

    def of(t: int) -> tuple[bool, float]:
        if not intervals[t].requests:
            return True, idle_w * devices * int(paid[t])
        count = int(serving[t])
        if not count:  # of a cluster that has none to give
            return False, idle_w * devices * int(paid[t])
        return trace.keeps(t, count), trace.tried(t, count).watts + idle_w * devices * int(paid[t] - serving[t])

    found = [of(t) for t in range(len(paid))]
    kept = np.array([k for k, _ in found])
    sizes = np.array([interval.requests for interval in intervals])
    return Course(name, paid, serving, kept, np.array([w for _, w in found]), sizes)


def one_fewer(trace: Trace, intervals: Sequence[Interval]) -> dict[str, float]:
    """What the busiest interval does with one replica fewer than it needs, as when a node fails in it."""
    t = max(range(len(intervals)), key=lambda i: (intervals[i].need, intervals[i].requests))
    need = intervals[t].need
    if need < 2 or not intervals[t].requests:
        return {}
    metrics = trace.tried(t, need - 1).metrics
    return {"begin_s": intervals[t].begin, "replicas": float(need - 1), "attainment": metrics.attainment,
            "ttft_p95_s": metrics.ttft.p95, "tpot_p95_s": metrics.tpot.p95}  # fmt: skip


def check_asked(asked: FleetAsk, work: Workload) -> None:
    """Raise InputError where the question has no answer."""
    unknown = [name for name in asked.policies if name not in POLICIES]
    if unknown:
        raise InputError(f"unknown policy '{unknown[0]}'", "--policy", f"use {', '.join(POLICIES)}")
    if work.mode != "open" or not work.span > 0:
        raise InputError("a fleet follows a load over time, and these requests have no times", "--trace", "give a trace with arrivals")
    if len(work.after) and (work.after >= 0).any():
        raise InputError("requests wait for others, and intervals cut them apart", "--trace", "give a trace of arrivals alone")
    if asked.every > work.span:
        raise InputError(f"one interval is longer than the trace, {work.span:g} s", "--every", "give less")
    if work.span / asked.every > 100_000:
        raise InputError(f"{work.span / asked.every:,.0f} intervals are more than 100,000", "--every", "give more")
