"""One plan, simulated and understood (floor 5): what a ranking and its reports need of it, and no more.

The tables and histograms of a run are its heaviest part (20 MB a plan on large clusters), and at millions of requests what
is kept of each; they are used here, where the run is made, and dropped, or held once for all plans.  So the work of many
plans is shared between threads or workers, and thousands of them fit in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from apexsim.cost.account import Account, account, run_energy, together, usage
from apexsim.cost.power import Energy
from apexsim.engine.kernel import Outcome
from apexsim.engine.types import I4
from apexsim.errors import Rejected
from apexsim.metrics import Metrics, Series, measure, series
from apexsim.objective import Margin, chance_of
from apexsim.plan.lower import StageOps
from apexsim.plan.memory import Room
from apexsim.plan.plan import Plan
from apexsim.plan.split import AnyPlan
from apexsim.search.drafts import Drafted, drafted
from apexsim.search.error import doubt_of
from apexsim.search.evaluate import Evaluation
from apexsim.search.goal import Goal, Key
from apexsim.search.runs import FirstTokenWait, PoolRun, Run, run_of
from apexsim.search.setting import Setting
from apexsim.search.startable import blocked
from apexsim.slo import Slo
from apexsim.workload.trace import Workload

POINTS = 60  # of a series over time


@dataclass(frozen=True, slots=True)
class Side:
    """One pool of a plan, as it ran; `role` is "" where there is only one."""

    role: str
    plan: Plan
    room: Room
    stages: tuple[StageOps, ...]
    account: Account


@dataclass(frozen=True, slots=True)
class Headroom:
    """How many times the load of the question a plan holds (`search.headroom`), with the 68 % interval, NaN where it was not looked for.
    open_end: it holds more than was tried."""

    times: float
    low: float = math.nan
    high: float = math.nan
    open_end: bool = False


@dataclass(frozen=True, slots=True)
class Assessed:
    """A simulated plan with what it means; `ratio` and `tie` are known when it stands among others."""

    plan: AnyPlan
    sides: tuple[Side, ...]  # its pools, in the order in which a request passes them
    outcome: Outcome | None  # without its histograms; of long runs only the first plan's is kept
    series: Series  # in POINTS bins
    metrics: Metrics
    account: Account  # of all pools together
    limits: tuple[Margin, ...]  # how each limit on the run fares
    key: Key  # sorts plans, best first
    value: float  # of the objective, in SI units
    blocked: str  # why the engine cannot be started with it; "" when it can
    wait: FirstTokenWait | None = None  # where the first token's time goes, of a plan of two pools
    ratio: float = math.nan  # how many times better than the heuristic plan (> 1 is better); NaN when that one is missing
    tie: bool = False  # within the error bars of the best
    drafts: Drafted | None = None  # what drafting is worth to it, where it drafts
    headroom: Headroom | None = None  # where that was asked for

    @property
    def keeps(self) -> bool:
        """Whether it meets every limit."""
        return self.key[0] == 0

    @property
    def chance(self) -> float:
        """That a real run keeps every limit at once."""
        return chance_of(self.limits)

    @property
    def room(self) -> Room:
        """What fits beside the weights, in the pool that makes the tokens."""
        return self.sides[-1].room

    @property
    def only(self) -> Side:
        """The one pool of a plan that has no other."""
        assert len(self.sides) == 1, "a plan of several pools has no one side"
        return self.sides[0]

    @property
    def split(self) -> bool:
        """Whether prompts and tokens have pools of their own."""
        return len(self.sides) > 1


def assess(setting: Setting, goal: Goal, plan: AnyPlan) -> Assessed | Rejected:
    """Simulate a plan and measure what came of it."""
    found = run_of(setting, plan)
    if isinstance(found, Rejected):
        return found
    metrics = _metrics(setting, goal.slos, found)
    last = found.parts[-1]
    course = series(found.course, setting.workload, POINTS, blocks=last.found.room.blocks * last.found.plan.lanes)
    sides = tuple(_side(part, metrics.duration_s) for part in found.parts)
    spent = together([(side.account, side.plan) for side in sides])
    limits = goal.limits(metrics, partial(doubt_of, system=setting, spent=spent))
    key, value = goal.key(metrics, limits, plan.shorthand), goal.objective.value(metrics)
    drafts = drafted(last.setting, last.found, _at_once(found, metrics) if len(sides) > 1 else metrics.mean_concurrency)
    light, why = _light(found.outcome, setting.workload), blocked(setting, plan)
    return Assessed(plan, sides, light, course, metrics, spent, limits, key, value, why, found.wait, drafts=drafts)


def _at_once(found: Run, metrics: Metrics) -> float:
    """Mean requests in the pool that makes the tokens."""
    own = found.parts[-1].found.outcome
    there = own.start >= 0.0  # answers of one token never come there
    return float((own.finish - own.start)[there].sum()) / metrics.duration_s


def _side(part: PoolRun, duration: float) -> Side:
    found = part.found
    return Side(part.role, found.plan, found.room, found.stages, _account(part.setting, found, found.outcome, duration))


def outcome_of(setting: Setting, run: Assessed) -> Outcome:
    """What happened in a run that was simulated before: as it was kept, or once more."""
    return run.outcome if run.outcome is not None else _again(setting, run).outcome


def course_of(setting: Setting, run: Assessed, points: int) -> Series:
    """The run over time in so many bins; the cache is that of the pool that makes the tokens."""
    last = run.sides[-1]
    found = _again(setting, run).course if run.split or run.outcome is None else run.outcome
    return series(found, setting.workload, points, blocks=last.room.blocks * last.plan.lanes)


def apart(setting: Setting, run: Assessed) -> tuple[Account, ...]:
    """Where the time of each replica of a run went: once more, since its histograms were dropped."""
    part = _again(setting, run).parts[-1]
    found, whole = part.found, part.found.outcome
    ones = (slice(r, r + 1) for r in range(found.plan.replicas))
    each = (replace(whole, hist=whole.hist[r], hist_lane=whole.hist_lane[r], sums=whole.sums[r], read=whole.read[r]) for r in ones)
    return tuple(_account(part.setting, found, outcome, run.metrics.duration_s) for outcome in each)


def _again(setting: Setting, run: Assessed) -> Run:
    found = run_of(setting, run.plan)
    assert not isinstance(found, Rejected)
    return found


def _account(setting: Setting, found: Evaluation, outcome: Outcome, duration: float) -> Account:
    return account(found.stages, found.costs, outcome, setting.pricer, found.engine, found.axes, duration)


def _light(outcome: Outcome, workload: Workload) -> Outcome:
    """The outcome without its histograms, and without what is the same in every run or of every request."""
    sent = workload.arrive if np.array_equal(outcome.sent, workload.arrive) else outcome.sent
    return replace(
        outcome,
        sent=sent,
        preempted=_folded(outcome.preempted),
        replica=_folded(outcome.replica),
        hist=outcome.hist[..., :0].copy(),
        hist_lane=outcome.hist_lane[..., :0].copy(),
    )


def _folded(values: I4) -> I4:
    """The same numbers [R] without their memory, where all are equal."""
    return np.broadcast_to(values[:1].copy(), values.shape) if len(values) and (values == values[0]).all() else values


def _metrics(setting: Setting, slos: tuple[Slo, ...], found: Run) -> Metrics:
    """What a run means, with what it drew and cost."""
    devices = [part.found.plan.devices for part in found.parts]
    metrics = measure(found.outcome, setting.workload, devices=sum(devices), slos=slos)
    usd = sum(n * part.setting.price[0] for n, part in zip(devices, found.parts)) / sum(devices)
    return replace(metrics, energy=replace(_energy(found), server=setting.server), usd_h=usd)


def _energy(found: Run) -> Energy:
    """Power and energy of the GPUs of all pools over the whole run."""
    each = [energy_of(part.setting, part.found, found.outcome) for part in found.parts]
    devices = sum(energy.devices for energy in each)
    return replace(each[-1], watts=sum(energy.watts * energy.devices for energy in each) / devices, devices=devices)


def energy_of(setting: Setting, found: Evaluation, whole: Outcome | None = None) -> Energy:
    """Power and energy of the GPUs of a pool over a whole run.  setting: at the plan's clock; whole: the run, where it is more than the
    pool's."""
    used = usage(found.stages, found.costs, found.outcome, found.plan.lanes, setting.pricer.bank.peaks)
    own = found.outcome if whole is None else replace(found.outcome, sent=whole.sent, finish=whole.finish)
    energy = run_energy(setting.cluster.gpu, used, own, setting.workload, found.plan.devices)
    return replace(energy, watts=energy.watts * setting.pricer.factors.power)
