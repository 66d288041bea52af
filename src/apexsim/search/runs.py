"""A plan of one pool or of two, simulated: the same record for both (floor 5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from apexsim.engine.kernel import Outcome
from apexsim.errors import Rejected
from apexsim.plan.plan import Plan
from apexsim.plan.split import ROLES, AnyPlan, Split
from apexsim.search.apart import ApartEvaluation, evaluate_apart, handover_of
from apexsim.search.evaluate import Evaluation, evaluate
from apexsim.search.setting import Setting
from apexsim.workload.trace import Workload


@dataclass(frozen=True, slots=True)
class PoolRun:
    """One pool of a run: what explains it, and its setting at the clock of its plan."""

    role: str
    setting: Setting
    found: Evaluation


@dataclass(frozen=True, slots=True)
class FirstTokenWait:
    """Where the time to the first token goes in a plan of two pools: means over the requests after the warm-up [s].

    queue: until the prompt's first step; prefill: until its end; transfer: router, hand-shake and cache; slot: for a place in the decode
    pool or a step of it, and for results that go out late; step: until the first token is out."""

    queue: float
    prefill: float
    transfer: float
    slot: float
    step: float


@dataclass(frozen=True, slots=True)
class Run:
    """What happened to the requests, and each pool.  course: the outcome whose timeline and groups are those of the pool that makes the
    tokens."""

    outcome: Outcome
    parts: tuple[PoolRun, ...]
    course: Outcome
    wait: FirstTokenWait | None = None


def run_of(setting: Setting, plan: AnyPlan) -> Run | Rejected:
    """Simulate a plan."""
    return _split(setting, plan) if isinstance(plan, Split) else _whole(setting, plan)


def _whole(setting: Setting, plan: Plan) -> Run | Rejected:
    found = evaluate(setting, plan)
    if isinstance(found, Rejected):
        return found
    return Run(found.outcome, (PoolRun("", setting.at(plan.clock), found),), found.outcome)


def _split(setting: Setting, plan: Split) -> Run | Rejected:
    prefill, decode = setting.of(plan)
    handover = handover_of(decode.engine, decode.cluster)
    found = evaluate_apart(prefill, plan.prefill, decode, plan.decode, handover)
    if isinstance(found, Rejected):
        return replace(found, shorthand=plan.shorthand)
    pools, settings = (found.prefill, found.decode), (prefill, decode)
    parts = tuple(PoolRun(role, own.at(pool.plan.clock), pool) for role, own, pool in zip(ROLES, settings, pools))
    last = found.decode.outcome
    course = replace(found.outcome, timeline=last.timeline, sums=last.sums)
    return Run(found.outcome, parts, course, wait_of(found, setting.workload))


def wait_of(found: ApartEvaluation, work: Workload) -> FirstTokenWait:
    """The parts of the mean time to the first token; they sum to it."""
    before, after, whole, way = found.prefill.outcome, found.decode.outcome, found.outcome, found.crossing
    local = found.local
    one = local | (whole.finish <= before.finish)  # answers of one token are done when their prompt is
    booked = np.where(
        local, 0.0, before.sent - whole.sent
    )  # of a place at decode, and the hop to the prefill server, where that comes first
    crossed = np.where(one, 0.0, after.start - before.finish)
    sent = work.prompt - after.hit if len(after.hit) else work.prompt
    wire = np.where(local, 0.0, way.hop_s) + np.where(one, 0.0, way.latency_s + way.fixed_s + way.token_s * sent)
    moved = np.minimum(booked + crossed, wire)
    step = np.where(one, 0.0, whole.first - after.start)
    queue = np.where(local, after.start - whole.sent, before.start - before.sent)
    prefill = np.where(local, whole.first - after.start, before.first - before.start)
    parts = (queue, prefill, moved, booked + crossed - moved, step)
    return FirstTokenWait(*(float(part[work.warmup :].mean()) for part in parts))
