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

from apexsim.cost.account import Account, account, run_energy, usage
from apexsim.cost.power import Energy
from apexsim.engine.kernel import Outcome
from apexsim.engine.types import I4
from apexsim.errors import Rejected
from apexsim.metrics import Metrics, Series, measure, series
from apexsim.objective import Margin
from apexsim.plan.lower import StageOps
from apexsim.plan.memory import Room
from apexsim.plan.plan import Plan
from apexsim.search.drafts import Drafted, drafted
from apexsim.search.error import doubt_of
from apexsim.search.evaluate import Evaluation, evaluate
from apexsim.search.goal import Goal, Key
from apexsim.search.setting import Setting
from apexsim.search.startable import blocked
from apexsim.slo import Slo
from apexsim.workload.trace import Workload

POINTS = 60  # of a series over time


@dataclass(frozen=True, slots=True)
class Assessed:
    """A simulated plan with what it means; `ratio` and `tie` are known when it stands among others."""

    plan: Plan
    room: Room
    stages: tuple[StageOps, ...]
    outcome: Outcome | None  # without its histograms; of long runs only the first plan's is kept
    series: Series  # in POINTS bins
    metrics: Metrics
    account: Account
    limits: tuple[Margin, ...]  # how each limit on the run fares
    key: Key  # sorts plans, best first
    value: float  # of the objective, in SI units
    blocked: str  # why the engine cannot be started with it; "" when it can
    ratio: float = math.nan  # how many times better than the heuristic plan (> 1 is better); NaN when that one is missing
    tie: bool = False  # within the error bars of the best
    drafts: Drafted | None = None  # what drafting is worth to it, where it drafts

    @property
    def keeps(self) -> bool:
        """Whether it meets every limit."""
        return self.key[0] == 0


def assess(setting: Setting, goal: Goal, plan: Plan) -> Assessed | Rejected:
    """Simulate a plan and measure what came of it."""
    found = evaluate(setting, plan)
    if isinstance(found, Rejected):
        return found
    why = blocked(setting, plan)
    setting = setting.at(plan.clock)
    metrics = _metrics(setting, goal.slos, found)
    course = series(found.outcome, setting.workload, POINTS, blocks=found.room.blocks * plan.lanes)
    spent = _account(setting, found, found.outcome, metrics)
    limits = goal.limits(metrics, partial(doubt_of, system=setting, spent=spent))
    key, value = goal.key(metrics, limits, plan.shorthand), goal.objective.value(metrics)
    return Assessed(
        plan,
        found.room,
        found.stages,
        _light(found.outcome, setting.workload),
        course,
        metrics,
        spent,
        limits,
        key,
        value,
        why,
        drafts=drafted(setting, found, metrics.mean_concurrency),
    )


def outcome_of(setting: Setting, run: Assessed) -> Outcome:
    """What happened in a run that was simulated before: as it was kept, or once more."""
    return run.outcome if run.outcome is not None else _again(setting, run).outcome


def apart(setting: Setting, run: Assessed) -> tuple[Account, ...]:
    """Where the time of each replica of a run went: once more, since its histograms were dropped."""
    found, own = _again(setting, run), setting.at(run.plan.clock)
    whole = found.outcome
    ones = (slice(r, r + 1) for r in range(run.plan.replicas))
    each = (replace(whole, hist=whole.hist[r], hist_lane=whole.hist_lane[r], sums=whole.sums[r], read=whole.read[r]) for r in ones)
    return tuple(_account(own, found, outcome, run.metrics) for outcome in each)


def _again(setting: Setting, run: Assessed) -> Evaluation:
    found = evaluate(setting, run.plan)
    assert not isinstance(found, Rejected)
    return found


def _account(setting: Setting, found: Evaluation, outcome: Outcome, metrics: Metrics) -> Account:
    return account(found.stages, found.costs, outcome, setting.pricer, found.engine, found.axes, metrics.duration_s)


def _light(outcome: Outcome, workload: Workload) -> Outcome:
    """The outcome without its histograms, and without what is the same in every run or of every request."""
    sent = workload.arrive if np.array_equal(outcome.sent, workload.arrive) else outcome.sent
    return replace(outcome, sent=sent, preempted=_folded(outcome.preempted), replica=_folded(outcome.replica),
                   hist=outcome.hist[..., :0].copy(), hist_lane=outcome.hist_lane[..., :0].copy())  # fmt: skip


def _folded(values: I4) -> I4:
    """The same numbers [R] without their memory, where all are equal."""
    return np.broadcast_to(values[:1].copy(), values.shape) if len(values) and (values == values[0]).all() else values


def _metrics(setting: Setting, slos: tuple[Slo, ...], found: Evaluation) -> Metrics:
    """What a run means, with what it drew and cost."""
    metrics = measure(found.outcome, setting.workload, devices=found.plan.devices, slos=slos)
    return replace(metrics, energy=replace(energy_of(setting, found), server=setting.server), usd_h=setting.price[0])


def energy_of(setting: Setting, found: Evaluation) -> Energy:
    """Power and energy of the GPUs over a whole run."""
    used = usage(found.stages, found.costs, found.outcome, found.plan.lanes, setting.pricer.bank.peaks)
    energy = run_energy(setting.cluster.gpu, used, found.outcome, setting.workload, found.plan.devices)
    return replace(energy, watts=energy.watts * setting.pricer.factors.power)
