"""Inverse questions: the most load that keeps the limits, the fewest GPUs, the longest context, the tightest limit (floor 5).

A load is raised by bisection on a fixed grid whose ends depend on the plan alone, with the same requests at every load (arrivals are
stretched, users take the first requests of one list).  So what is allowed more never comes out as less, whatever the queue does in
between: at the first load on which two answers disagree, the one that keeps it goes up and the other down.

Error bars come from a law of scale.  On a system whose every step takes f times as long, requests that come at rate r fare as they do
here at f·r, with all latencies f times as long.  So the 68 % interval is what holds with limits divided by a metric's f and the rate
multiplied by throughput's f, at both ends of their doubt (`search.error`).  A closed loop has no rate to multiply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from apexsim.errors import Infeasible, InputError, Rejected
from apexsim.hardware import counted, load_gpu
from apexsim.plan.plan import Plan
from apexsim.plan.split import AnyPlan
from apexsim.search.assess import Assessed, assess
from apexsim.search.error import doubt_of
from apexsim.search.goal import Goal
from apexsim.search.setting import Setting
from apexsim.search.startable import blocked, has_server
from apexsim.search.study import LoadCurve
from apexsim.slo import LATENCIES, STATS, Slo
from apexsim.views import Shown
from apexsim.workload.load import mean_rate
from apexsim.workload.trace import NO_FLOATS, NO_INTS, Floats, Workload

LOADS = ("rate", "users")
FINDS = (*LOADS, "gpus", "context")  # and a statistic of a latency: ttft:p95
STEP = 1.01  # from one rate of the grid to the next
ABOVE = 4.0  # times what a plan serves of requests that all come at once: where the grid ends …
REACH = 800  # … and its rates, a factor of 2,900
SINGLE = 64  # users up to which every number is on the grid
WIDER = 1.02  # from there on
EACH = 8  # requests of a user at least: the first is left out
FEWEST = 1024  # requests of a closed loop
MADE = 16_384  # requests of a list for closed loops, where nothing else is said …
COMING = 4096  # … and of requests that come at a rate: a quarter of them is up to a quarter too hopeful (docs/log.md)
SETTLED = 6.0  # times the requests in flight: shorter runs end while the batch still fills
WORTH = 0.5  # of the most load so far: plans that do not hold as much are not looked at further
FIRST = 3  # plans of which the one that comes nearest is sought, where none holds
SAMPLE = 48  # requests that stand for all, one by one …
APART = 1e5  # … so many seconds apart …
SLACK = 1.1  # … and their latencies may be so much above a limit: of a sample, and of a doubt that differs a little from run to run
MEDIAN = 0.6  # share of the requests from which on half of a sample decides
SIDES = (0.16, 0.84)  # of the 68 % interval
SHARE = 0.95  # of the requests that must keep limits of each request
NODE, MOST_GPUS = 8, 64
Holds = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for.  find: one of FINDS or a statistic (ttft:p95); think [s] of a closed loop; share of the requests that must
    keep limits of each request; budget [$/h]."""

    find: str
    think: float = 0.0
    share: float = SHARE
    budget: float = math.inf


@dataclass(frozen=True, slots=True)
class SizeAnswer:
    """One answer: of a plan on some GPUs.  value, low, high: requests/s, users, GPUs, tokens or s, with the 68 % interval,
    NaN where it was not looked for; open_end: the
    grid ended before the limit was met; run: simulated there.  high is infinite where even the most that is tried does not suffice."""

    setting: Setting
    run: Assessed
    value: float
    low: float
    high: float
    open_end: bool = False

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.run.only.plan

    @property
    def gpus(self) -> int:
        """Of the whole plan."""
        return self.run.plan.devices

    @property
    def rent(self) -> float:
        """Of all GPUs [$/h]; NaN where no book has it."""
        return self.setting.price[0] * self.gpus

    @property
    def rate(self) -> float:
        """Requests/s that are served."""
        work = self.setting.workload
        return mean_rate(work.arrive) if work.mode == "open" else self.run.metrics.request_throughput_per_s

    @property
    def short(self) -> bool:
        """Whether the run is too short to be told from one in which the batch still fills."""
        return self.setting.workload.mode == "open" and self.setting.workload.size < SETTLED * self.run.metrics.mean_concurrency

    @property
    def dollars(self) -> dict[str, float]:
        """$ per million tokens: input alone, output alone, and of both."""
        work = self.setting.workload
        parts = {"input": float(work.prompt.mean()), "output": float(work.output.mean())}
        parts["total"] = parts["input"] + parts["output"]
        return {name: 1e6 * self.rent / 3600.0 / (self.rate * tokens) for name, tokens in parts.items()}


@dataclass(frozen=True, slots=True, repr=False)
class Size(Shown):
    """The answers, best first.  unmet: what was tried in vain, with the reason; nearest: the run that misses the limits by the least."""

    model: str
    wanted: Wanted
    goal: Goal
    found: tuple[SizeAnswer, ...]
    unmet: tuple[str, ...] = ()
    nearest: SizeAnswer | None = None
    asked: float = math.nan  # rate or users of the question
    helps: tuple[str, ...] = ()  # changes that were simulated and suffice, where nothing was found
    inputs: Mapping[str, Any] = field(default_factory=dict)
    curve: LoadCurve | None = None  # of the answer's plan against the load
    said: Mapping[str, Any] = field(default_factory=dict)  # the keywords of the question as they were given

    @property
    def best(self) -> SizeAnswer | None:
        """The answer."""
        return self.found[0] if self.found else None

    @property
    def may_rise(self) -> float:
        """Share by which the rent of the answer may rise until others are as cheap; NaN where none, or no rents, are known."""
        if self.best is None or self.wanted.find != "gpus":
            return math.nan
        own = self.best.setting.cluster.gpu.name
        others = [one.rent for one in self.found if one.setting.cluster.gpu.name != own and math.isfinite(one.rent)]
        return min(others) / self.best.rent - 1.0 if others else math.nan

    def question_of(self, one: SizeAnswer) -> dict[str, Any]:
        """The keywords of `ask` that ask for one of the answers: its cluster, under the load that it holds."""
        cluster, work = one.setting.cluster, one.setting.workload
        names = [counted(gpu)[0] for gpu in str(self.inputs["gpu"]).split(",")]
        gpu = next((name for name in names if load_gpu(name).name == cluster.gpu.name), cluster.gpu.name)
        load = {"concurrency": work.concurrency} if work.mode == "closed" else {"request_rate": one.rate}
        where = {"gpu": gpu, "gpus": cluster.per_node, "nodes": cluster.nodes if cluster.nodes > 1 else None}
        return {**self.inputs, "model": self.model, "concurrency": None, "request_rate": None, **where, **load}


# ---- loads -------------------------------------------------------------------------------------------------------------


def rate_grid(capacity: float) -> list[float]:
    """Rates [1/s], ascending, for a plan that serves `capacity` of requests that all come at once."""
    last = math.ceil(math.log(ABOVE * capacity) / math.log(STEP))
    return [STEP**k for k in range(last - REACH, last + 1)]


def user_grid(most: int) -> list[int]:
    """Users, ascending: each number, then in small steps."""
    found = list(range(1, min(most, SINGLE) + 1))
    while found and found[-1] < most:
        found.append(min(most, max(found[-1] + 1, round(found[-1] * WIDER))))
    return found


def at_rate(work: Workload, rate: float) -> Workload:
    """The same requests, their arrivals stretched to a mean rate [1/s]."""
    return replace(work, arrive=work.arrive * (mean_rate(work.arrive) / rate))


def with_users(work: Workload, users: int, think: float = 0.0) -> Workload:
    """The first requests of a list from so many users, the first of each left out of the metrics."""
    part = work.only(np.arange(min(work.size, max(FEWEST, EACH * users))))
    warmup = users if users > 1 and part.size >= 2 * users else 0
    return replace(part, arrive=np.zeros(part.size), mode="closed", concurrency=users, think=think, warmup=warmup)


def one_by_one(work: Workload) -> Workload:
    """A sample of the requests, from each of SAMPLE equal shares by length the middle one, which never meet."""
    order = np.argsort(work.prompt + work.output, kind="stable")
    middles = ((np.arange(min(SAMPLE, work.size)) + 0.5) * work.size / min(SAMPLE, work.size)).astype(np.int64)
    part = work.only(np.sort(order[middles]))
    arrive: Floats = np.arange(part.size, dtype=np.float64) * APART
    return replace(part, arrive=arrive, mode="open", concurrency=0, think=0.0, warmup=0, after=NO_INTS, delay=NO_FLOATS)


def at_once(work: Workload) -> Workload:
    """All requests at the same moment."""
    return replace(work, arrive=np.zeros(work.size), mode="offline", warmup=0)


def most(count: int, holds: Holds) -> int:
    """The place, of 0 … count − 1, up to which something holds by bisection; −1 where it never does."""
    low, high = -1, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


# ---- one plan under one load -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slower:
    """How many times slower a system may be than predicted: load by throughput's doubt, limits by that of their own metric."""

    load: float = 1.0
    by_metric: Mapping[str, float] = field(default_factory=dict)

    def goal(self, goal: Goal) -> Goal:
        """The limits that mean as much on the predicted system."""
        slos = tuple(replace(slo, limit_s=slo.limit_s / self.by_metric.get(slo.metric, 1.0)) for slo in goal.slos)
        return replace(goal, slos=slos, power_cap=goal.power_cap / self.by_metric.get("power", 1.0), risk=0.0)


USUAL = Slower()


def sides(setting: Setting, goal: Goal, run: Assessed) -> tuple[Slower, Slower]:
    """The fast and the slow end of what a prediction may be off."""
    names = ["throughput", *(slo.metric for slo in goal.slos), *(["power"] if math.isfinite(goal.power_cap) else [])]
    doubts = {name: doubt_of(name, setting, run.account) for name in dict.fromkeys(names)}
    fast, slow = ({name: math.exp(doubt.quantile(side)) for name, doubt in doubts.items()} for side in SIDES)
    return Slower(fast["throughput"], fast), Slower(slow["throughput"], slow)


@dataclass(slots=True)
class Trials:
    """Plans of one cluster under loads, each simulated once."""

    setting: Setting
    goal: Goal
    wanted: Wanted
    done: dict[tuple[Any, ...], Assessed | Rejected] = field(default_factory=dict)
    alone: dict[tuple[Any, ...], Assessed | Rejected] = field(default_factory=dict)  # of a replica, for all clusters of one kind of node

    def run(self, plan: AnyPlan, load: float, slower: Slower = USUAL) -> Assessed | Rejected:
        """A plan under a load (requests/s or users) on a system that may be slower."""
        key = (plan, load, slower.load, tuple(sorted(slower.by_metric.items())))
        if key not in self.done:
            goal = self.goal if slower is USUAL else slower.goal(self.goal)
            found = assess(self.under(load, slower), goal, plan)
            self.done[key] = found if isinstance(found, Rejected) else replace(found, outcome=None)
        return self.done[key]

    def under(self, load: float, slower: Slower = USUAL) -> Setting:
        """The setting under a load."""
        work = self.setting.workload
        return replace(
            self.setting, workload=with_users(work, int(load), self.wanted.think) if self.closed else at_rate(work, load * slower.load)
        )

    @property
    def closed(self) -> bool:
        """Whether the load is users."""
        return self.setting.workload.mode == "closed"

    def holds(self, plan: AnyPlan, load: float, slower: Slower = USUAL) -> bool:
        """Whether all limits and the load are kept."""
        found = self.run(plan, load, slower)
        return not isinstance(found, Rejected) and kept(found, self.wanted.share)

    def hopeless(self, plan: Plan, side: int | None = None) -> bool:
        """Whether a plan misses a limit even with requests that never meet: none of them is faster beside others, no GPU draws less.

        Replicas do not meet, so what one of them takes alone holds for every number of them."""
        shared = bool(self.setting.workload.block)  # what others computed shortens a prompt: its latencies say nothing
        if shared and self.goal.power_cap == math.inf:
            return False
        found = self.by_itself(plan)
        if isinstance(found, Rejected):
            return True
        goal = self.goal if side is None else self.end(found, side).goal(self.goal)
        if found.metrics.energy.watts > SLACK * goal.power_cap:  # next to idle power, as far apart as these requests are
            return True
        if shared:
            return False
        return any(found.metrics.of(slo) > SLACK * slo.limit_s for slo in map(self._of_sample, goal.slos) if slo)

    def _of_sample(self, slo: Slo) -> Slo | None:
        """What a limit asks of a sample at least; None: nothing, since it has few of a class, and some requests no time per token.

        Where more than half of the requests must keep a limit of each, so must the median: far from the share, as a sample should be."""
        if slo.kind or (not slo.stat and (self.wanted.share < MEDIAN or slo.metric == "itl")):
            return None
        if not slo.stat and slo.metric == "tpot" and self.setting.workload.output.min() < 2:
            return None
        return slo if slo.stat else replace(slo, stat="p50")

    def by_itself(self, plan: Plan) -> Assessed | Rejected:
        """A plan with requests that never meet."""
        cluster, work = self.setting.cluster, self.setting.workload
        key = (cluster.gpu.name, cluster.per_node, work.size, int(work.prompt[0]), replace(plan, replicas=1))
        if key not in self.alone:
            self.alone[key] = assess(replace(self.setting, workload=one_by_one(work)), self.goal, plan)
        return self.alone[key]

    def end(self, run: Assessed, side: int) -> Slower:
        """The fast (0) or the slow (1) end of what a run may be off."""
        return sides(self.setting, self.goal, run)[side]

    def capacity(self, plan: Plan) -> float:
        """Requests/s of requests that all come at once; 0 where the plan does not fit."""
        found = assess(replace(self.setting, workload=at_once(self.setting.workload)), replace(self.goal, slos=()), plan)
        return 0.0 if isinstance(found, Rejected) else found.metrics.request_throughput_per_s

    def grid(self, plan: Plan) -> Sequence[float]:
        """The loads that are looked at; none where the plan does not fit."""
        if self.closed:
            return user_grid(max(1, self.setting.workload.size // EACH))
        served = self.capacity(plan)
        return rate_grid(served) if served else ()

    def found(self, plan: Plan, value: float, low: float, high: float, load: float, open_end: bool = False) -> SizeAnswer:
        """An answer whose run is that of a load."""
        run = self.run(plan, load)
        assert isinstance(run, Assessed)
        return SizeAnswer(self.under(load), run, value, low, high, open_end)


def kept(run: Assessed, share: float) -> bool:
    """Whether a run keeps the load, limits on it, and those of each request for a share of the requests."""
    attained = run.metrics.least_attained
    return run.keeps and not run.metrics.saturated and (math.isnan(attained) or attained >= share)


def overrun(run: Assessed, share: float) -> float:
    """How far a run is from keeping everything: 0 where it does."""
    attained = run.metrics.least_attained
    short = 0.0 if math.isnan(attained) or attained >= share else share / max(attained, 1e-3)
    return max(run.key[0], short, 1.0 if run.metrics.saturated else 0.0)


# ---- the most load -----------------------------------------------------------------------------------------------------------


def most_load(trials: Trials, plans: Iterable[Plan]) -> list[SizeAnswer]:
    """The most load of every plan, best first; those that hold far less than another are left out.  The first has its interval."""
    found: list[SizeAnswer] = []
    grids = {plan: trials.grid(plan) for plan in plans if not trials.hopeless(plan)}
    for plan in sorted(grids, key=lambda p: -max(grids[p], default=0)):
        grid, least = grids[plan], WORTH * max((one.value for one in found), default=0.0)
        worth = next((load for load in grid if load >= least), None)
        if worth is None or (least and not trials.holds(plan, worth)):
            continue
        at = most(len(grid), lambda k, plan=plan, grid=grid: trials.holds(plan, grid[k]))  # type: ignore[misc]
        if at >= 0:
            found.append(trials.found(plan, grid[at], math.nan, math.nan, grid[at], at == len(grid) - 1))
    found.sort(key=lambda one: (-one.value, one.run.key[2:]))
    return [with_interval(trials, one) if not i else one for i, one in enumerate(found)]


def with_interval(trials: Trials, one: SizeAnswer) -> SizeAnswer:
    """The answer with the loads that hold at both ends of the doubt."""
    grid, ends = trials.grid(one.plan), []
    for slower in sides(one.setting, trials.goal, one.run):
        at = most(len(grid), lambda k, slower=slower: trials.holds(one.plan, grid[k], slower))  # type: ignore[misc]
        ends.append(grid[at] if at >= 0 else 0.0)
    high, low = ends
    return replace(one, low=min(low, one.value), high=max(high, one.value))


# ---- the fewest GPUs -----------------------------------------------------------------------------------------------------------


def counts(per_node: int = NODE, largest: int = MOST_GPUS) -> list[tuple[int, int]]:
    """(GPUs of a node, nodes) of clusters, ascending: any number in one node, then whole nodes."""
    return [(n, 1) for n in range(1, per_node + 1)] + [(per_node, m) for m in range(2, largest // per_node + 1)]


@dataclass(frozen=True, slots=True)
class CandidateCluster:
    """A cluster that may do: its plans, and trials on it."""

    trials: Trials
    plans: tuple[Plan, ...]

    def best(self, load: float, side: int | None = None) -> Plan | None:
        """The plan that keeps everything and is best by the objective; with a side of the doubt the first that does at that end."""
        able = []
        for plan in self.plans:
            if self.trials.hopeless(plan, side):
                continue
            run = self.trials.run(plan, load)
            if isinstance(run, Rejected):
                continue
            keeps = kept(run, self.trials.wanted.share)
            if side is None and keeps:
                able.append(run)
            elif side is not None and self._at_end(run, load, keeps, side):
                return plan
        return min(able, key=lambda run: run.key).only.plan if able else None

    def _at_end(self, run: Assessed, load: float, keeps: bool, side: int) -> bool:
        """Whether a plan keeps everything at an end of the doubt: what is slower keeps no more, what is faster no less."""
        return keeps if keeps != bool(side) else self.trials.holds(run.only.plan, load, self.trials.end(run, side))

    def _likely(self) -> list[Plan]:
        """The plans that may come nearest: those that single requests do not rule out, else the FIRST by what these take."""
        able = [plan for plan in self.plans if not self.trials.hopeless(plan)]
        alone = [(run, plan) for plan in self.plans if isinstance(run := self.trials.by_itself(plan), Assessed)]
        share = self.trials.wanted.share
        return able or [plan for _, plan in sorted(alone, key=lambda pair: (overrun(pair[0], share), pair[0].key))[:FIRST]]

    def nearest(self, load: float) -> SizeAnswer | None:
        """The plan that misses by the least."""
        runs = [run for plan in self._likely() if isinstance(run := self.trials.run(plan, load), Assessed)]
        if not runs:
            return None
        run = min(runs, key=lambda r: (overrun(r, self.trials.wanted.share), r.key))
        return self.trials.found(run.only.plan, math.nan, math.nan, math.nan, load)


def fewest(clusters: Sequence[Callable[[], CandidateCluster | None]], load: float) -> tuple[SizeAnswer | None, SizeAnswer | None]:
    """The smallest cluster that keeps the load, with its interval; and without one what comes nearest.  Ascending in GPUs."""
    made: dict[int, CandidateCluster | None] = {}

    def at(i: int) -> CandidateCluster | None:
        if i not in made:
            made[i] = clusters[i]()
        return made[i]

    def first(side: int, start: int = 0) -> int | None:
        """The first cluster that holds at one end of the doubt."""
        return next((i for i in range(start, len(clusters)) if (c := at(i)) and c.best(load, side)), None)

    index, plan = next(((i, p) for i in range(len(clusters)) if (c := at(i)) and (p := c.best(load))), (None, None))
    if index is None or plan is None:
        near = [one for c in made.values() if c and (one := c.nearest(load))]
        share = next((c.trials.wanted.share for c in made.values() if c), SHARE)
        return None, min(near, key=lambda one: overrun(one.run, share), default=None)
    low, high = first(0), first(1, index)
    chosen = at(index)
    assert chosen is not None
    one = chosen.trials.found(plan, float(plan.devices), 0.0, 0.0, load)
    sizes = [_size(at(i)) if i is not None else math.inf for i in (low, high)]
    return replace(one, low=min(sizes[0], one.value), high=max(sizes[1], one.value)), None


def _size(cluster: CandidateCluster | None) -> float:
    return float(cluster.trials.setting.cluster.size) if cluster else math.inf


# ---- the longest context -------------------------------------------------------------------------------------------------------


def lengths(longest: int, least: int = 1) -> list[int]:
    """Prompt lengths [tokens], ascending, up to the longest."""
    found = [min(least, longest)]
    while found[-1] < longest:
        found.append(min(longest, math.ceil(found[-1] * 1.03)))
    return found


def longest_prompt(cluster: Callable[[int], CandidateCluster | None], longest: int, load: float) -> SizeAnswer | None:
    """The longest prompt [tokens] with which a plan keeps everything, with its interval."""
    grid, made = lengths(longest), dict[int, CandidateCluster | None]()

    def plan_at(k: int, side: int | None = None) -> Plan | None:
        if k not in made:
            made[k] = cluster(grid[k])
        here = made[k]
        if here is None:
            return None
        return here.best(load, side)

    at, high, low = (most(len(grid), lambda k, side=side: plan_at(k, side) is not None) for side in (None, 0, 1))  # type: ignore[misc]
    found, plan = (made[at], plan_at(at)) if at >= 0 else (None, None)
    if found is None or plan is None:
        return None
    ends = [float(grid[k]) if k >= 0 else 0.0 for k in (low, high)]
    value = float(grid[at])
    return found.trials.found(plan, value, min(ends[0], value), max(ends[1], value), load, at == len(grid) - 1)


# ---- the tightest limit ----------------------------------------------------------------------------------------------------------


def tightest(trials: Trials, plans: Iterable[Plan], load: float) -> list[SizeAnswer]:
    """What each plan that keeps all other limits reaches of a statistic [s], best first."""
    metric, _, stat = trials.wanted.find.partition(":")
    found = []
    for plan in plans:
        run = trials.run(plan, load)
        if isinstance(run, Rejected) or not kept(run, trials.wanted.share):
            continue
        value = run.metrics.latency(metric, stat)
        low, high = (value * math.exp(doubt_of(metric, trials.setting, run.account).quantile(side)) for side in SIDES)
        if value > 0:
            found.append(trials.found(plan, value, low, high, load))
    return sorted(found, key=lambda one: (one.value, one.run.key))


# ---- questions that make no sense --------------------------------------------------------------------------------------------------


def check_wanted(wanted: Wanted, slos: Sequence[Slo], capped: bool, closed: bool) -> None:
    """Raise InputError where the question has no answer."""
    metric, sign, stat = wanted.find.partition(":")
    if wanted.find not in FINDS and not (sign and metric in LATENCIES and stat in STATS):
        raise InputError(f"nobody knows how to find '{wanted.find}'", "--find", f"use {', '.join(FINDS)}, or ttft:p95 …")
    if any((slo.kind, slo.metric, slo.stat) == ("", metric, stat) for slo in slos):
        raise InputError(f"a limit on {wanted.find} is given and asked for", "--find", "drop one of both")
    if not (slos or capped) and (wanted.find == "users" or (wanted.find == "gpus" and closed)):
        raise InputError("users without a limit: any number can wait", "", "give --ttft MS, --tpot MS, --slo or --goodput")
    if wanted.think and not closed:
        raise InputError("it has no effect: nobody thinks between requests that come at a rate", "--think", "add --users N or --find users")


def startable(setting: Setting, plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """The plans that the engine can be started with; of a policy without a server all; raises Infeasible without any."""
    plans = tuple(plans)
    able = tuple(p for p in plans if not has_server(setting) or not blocked(setting, p))
    if not able:
        where = f"{setting.cluster.size} × {setting.cluster.gpu.name}"
        raise Infeasible(f"{setting.engine.name} starts no plan of {setting.model.name} on {where}")
    return able
