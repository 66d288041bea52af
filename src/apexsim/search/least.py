"""What a plan cannot fall below, so that layouts that cannot be started and cannot win need no simulation (floor 5).

A decode step makes at most one token of a sequence, or one and its drafts, and takes no less than the same step of a single token:

    step  ≥ SHARE · Σ over stages and layers of op(1 token), attention left out
    E2E   ≥ (output tokens − 1) · step / (1 + drafts),   TPOT ≥ step / (1 + drafts)

SHARE leaves room for measured curves that are not monotone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from apexsim.cost.tables import hosted, runs
from apexsim.engine.types import DECODE
from apexsim.errors import Rejected
from apexsim.model.ops import Attend, Cross, Index, Mla
from apexsim.plan.lower import lower
from apexsim.plan.memory import room
from apexsim.plan.plan import Plan
from apexsim.plan.split import AnyPlan, pools_of
from apexsim.search.assess import Assessed
from apexsim.search.goal import Goal
from apexsim.search.setting import Setting
from apexsim.stats import stats_of

RULE = "slower even alone"
SHARE = 0.9
KNOWN = ("e2e", "tpot")  # objectives that a step bounds


def least_step(setting: Setting, plan: Plan) -> float:
    """Seconds that a decode step takes at least; 0 where half batches may hide one behind the other."""
    if setting.engine.half_batches:
        return 0.0
    own = setting.at(plan.clock)
    pace, one = hosted(own.pricer, own.engine)[1], np.ones(1)
    layers: dict[object, float] = {}
    total = 0.0
    for stage in lower(own.model, plan, own.cluster.gpu.flops, own.cluster.domain):
        for layer, count in stage.layers:
            if layer not in layers:
                ops = [op for op in layer.ops if not isinstance(op, (Attend, Cross, Index, Mla)) and runs(op, DECODE)]
                layers[layer] = sum(float(own.pricer.dense(op, one, True).seconds[0]) for op in ops)
            total += count * layers[layer]
    return SHARE * total * min(pace, 1.0)


def least_value(setting: Setting, plan: AnyPlan, goal: Goal) -> float:
    """What the objective is at least [s]; 0 where nothing is known of it."""
    if goal.objective.name not in KNOWN or goal.objective.stat == "std" or not isinstance(plan, Plan):
        return 0.0
    step = least_step(setting, plan) / (1 + (plan.draft.tokens if plan.draft else 0))
    more = _counted(setting) - 1.0
    values = np.full(1, step) if goal.objective.name == "tpot" else more * step
    return float(stats_of(values).value(goal.objective.stat)) if (more > 0).any() else 0.0


def _counted(setting: Setting) -> NDArray[np.float64]:
    """Output tokens of the requests that metrics count."""
    return setting.workload.output[setting.workload.warmup :].astype(float)


def apart(setting: Setting, goal: Goal, plans: Sequence[AnyPlan], done: Iterable[object]) -> tuple[list[AnyPlan], list[Rejected]]:
    """Of plans that will not be ranked those that may be better than the best that is done, or the nearest to it; and the rest."""
    best = min((run for run in done if isinstance(run, Assessed)), key=lambda run: run.key, default=None)
    if best is None or not plans or best.key[:2] > (0.0, False) or not math.isfinite(best.value):
        return [*plans], []
    least = [least_value(setting, plan, goal) for plan in plans]
    enough = max(best.value, min(least))
    worth, beaten = [], []
    for plan, value in zip(plans, least):
        if value > enough and _fits(setting, plan):
            told = f"{goal.objective} ≥ {value * 1e3:,.0f} ms, and {best.plan.shorthand} has {best.value * 1e3:,.0f}"
            beaten.append(Rejected(RULE, told, plan.shorthand))
        else:  # what does not fit is told with its own reason
            worth.append(plan)
    return worth, beaten


def _fits(setting: Setting, plan: AnyPlan) -> bool:
    sides = zip(setting.of(plan), pools_of(plan))
    return not any(isinstance(room(own.model, pool, own.cluster, own.engine, own.max_model_len), Rejected) for own, pool in sides)
