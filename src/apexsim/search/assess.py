"""One plan, simulated and understood (floor 5): what a ranking and its reports need of it, and no more.

The tables and histograms of a run are its heaviest part (20 MB a plan on large clusters), and at millions of requests what
is kept of each; they are used here, where the run is made, and dropped, or held once for all plans.  So the work of many
plans is shared between threads or workers, and thousands of them fit in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from apexsim.cost.account import Account, account, run_energy, usage
from apexsim.cost.tables import axes_for
from apexsim.engine.kernel import Outcome
from apexsim.engine.types import I4
from apexsim.errors import Rejected
from apexsim.metrics import Metrics, Series, measure, series
from apexsim.plan.lower import StageOps
from apexsim.plan.memory import Room
from apexsim.plan.plan import Plan
from apexsim.search.evaluate import Evaluation, evaluate
from apexsim.search.setting import Setting
from apexsim.slo import Slo
from apexsim.workload.trace import Workload

POINTS = 60  # of a series over time


@dataclass(frozen=True, slots=True)
class Assessed:
    """A simulated plan with what it means.  outcome: without its histograms, None where it was dropped for room; series: in POINTS bins."""

    plan: Plan
    room: Room
    stages: tuple[StageOps, ...]
    outcome: Outcome | None
    series: Series
    metrics: Metrics
    account: Account


def assess(setting: Setting, slos: tuple[Slo, ...], plan: Plan) -> Assessed | Rejected:
    """Simulate a plan and measure what came of it."""
    found = evaluate(setting, plan)
    if isinstance(found, Rejected):
        return found
    setting = setting.at(plan.clock)
    metrics = _metrics(setting, slos, found)
    axes = axes_for(found.engine, plan.lanes, setting.workload.size, setting.workload.longest)
    spent = account(found.stages, found.costs, found.outcome, setting.pricer, found.engine, axes, metrics.duration_s)
    course = series(found.outcome, setting.workload, POINTS, blocks=found.room.blocks * plan.lanes)
    return Assessed(plan, found.room, found.stages, _light(found.outcome, setting.workload), course, metrics, spent)


def outcome_of(setting: Setting, plan: Plan, kept: Outcome | None) -> Outcome:
    """The run of a plan that was simulated before: as it was kept, or once more."""
    if kept is not None:
        return kept
    found = evaluate(setting, plan)
    assert not isinstance(found, Rejected)
    return found.outcome


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
    plan = found.plan
    used = usage(found.stages, found.costs, found.outcome, plan.lanes, setting.pricer.bank.peaks)
    energy = run_energy(setting.cluster.gpu, used, found.outcome, setting.workload, plan.devices)
    metrics = measure(found.outcome, setting.workload, devices=plan.devices, slos=slos)
    return replace(metrics, energy=replace(energy, server=setting.server), usd_h=setting.price[0])
