"""One plan from lowering to outcome: the walk as a short list (floor 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from apexsim.cost.tables import Axes, axes_for, compile_costs, host_for, rules_for
from apexsim.cost.vision import image_seconds, with_images
from apexsim.engine.kernel import Outcome, simulate
from apexsim.engine.types import AFFINITY, Costs, Requests, Route
from apexsim.engines import EngineRow
from apexsim.errors import Rejected
from apexsim.plan.limits import started
from apexsim.plan.lower import StageOps, lower
from apexsim.plan.memory import Room
from apexsim.plan.plan import Plan
from apexsim.plan.pool import served_blocks
from apexsim.search.setting import IN_TURN, ROUTES, Setting
from apexsim.workload.prefixes import prefixes_of
from apexsim.workload.trace import Workload

COARSE = 16  # tokens of a block that holds what others may find, at least
GAP_LIMIT = 1_000_000  # requests from which single gaps are no longer recorded


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A simulated plan with everything that explains it."""

    plan: Plan
    engine: EngineRow  # as it can be started with this plan
    room: Room
    stages: tuple[StageOps, ...]
    axes: Axes
    costs: Costs
    outcome: Outcome


def requests_of(workload: Workload, reuse: bool = False) -> Requests:
    """The workload as the engine takes it; users of a closed loop wait for nothing but their own last request; reuse: with the
    prefixes that requests share."""
    users = workload.concurrency if workload.mode == "closed" else 0
    asked = Requests(workload.since, workload.prompt, workload.output, users, workload.think)
    asked = asked if users else asked._replace(after=workload.after, delay=workload.delay, stage=workload.stage)
    if reuse and len(workload.cached):
        return asked._replace(cached=workload.cached)
    shared = prefixes_of(workload) if reuse else None
    return asked if shared is None else asked._replace(chain=shared.chain, chain_at=shared.chain_at, reach=shared.reach, unit=shared.unit)


def _coarse(block: int, reuse: bool) -> int:
    """Blocks that are one in a simulation with prefixes: token by token it would take 16 times as long, and hit 1 % more."""
    return COARSE // block if reuse and block < COARSE else 1


def _seats(setting: Setting, found: Room) -> int:
    """Sequences of a lane: no more than requests, and with cross-attention than fit at full length, since what a request
    keeps of the encoder's output stands beside its own blocks."""
    crossed = any(cell.cross for block in setting.model.decoder.blocks for cell in block.cells)
    return min(setting.workload.size, int(found.max_concurrency)) if crossed else setting.workload.size


def _as_served(found: Room, engine: EngineRow, work: Workload) -> Room:
    """The room with the blocks that its pool is worth to this workload: requests are in flight for about as long as they decode, at
    contexts from their prompt to their end."""
    held = work.output.astype(float)
    context = float((held * (work.prompt + 0.5 * work.output)).sum() / held.sum())
    count = int(found.kv_bytes // found.pool.block_bytes)
    return replace(found, blocks=served_blocks(found.pool, count, context, work.longest, engine))


def _calibrated_room(found: Room, factor: float) -> Room:
    """The room with as many blocks as the user's own server has; its ledger stays as predicted."""
    if factor == 1.0:
        return found
    return replace(found, kv_bytes=found.kv_bytes * factor, blocks=max(1, round(found.blocks * factor)),
                   tokens=round(found.tokens * factor), max_concurrency=found.max_concurrency * factor)  # fmt: skip


COLD, LONG = 4, 8192  # prompts one after the other, and tokens of each: what llm-d's guide measures a replica with


def peak_prefill(setting: Setting, plan: Plan) -> float:
    """Prompt tokens per second of one cold replica in chunks of 8,192 tokens; NaN where the plan cannot be started so."""
    work = Workload("cold", np.zeros(COLD), np.full(COLD, LONG), np.ones(COLD, np.int64), "offline")
    engine = replace(setting.engine, max_num_batched_tokens=LONG, reuse=0)
    alone = replace(setting, workload=work, engine=engine, router=IN_TURN, images=0, max_model_len=max(setting.max_model_len, LONG + 1))
    found = evaluate(alone, replace(plan, replicas=1))
    return math.nan if isinstance(found, Rejected) else COLD * LONG / float(found.outcome.finish.max() - found.outcome.start.min())


def _route(setting: Setting, plan: Plan) -> Route:
    """The router as the engine takes it."""
    kind = ROUTES.index(setting.router.name)
    route = Route(kind, setting.router.look, late=setting.router.penalty, explore=setting.router.explore)
    if kind != AFFINITY or plan.replicas == 1:
        return route
    peak = peak_prefill(setting, plan)
    return route if math.isnan(peak) else route._replace(peak=peak)


def evaluate(setting: Setting, plan: Plan) -> Evaluation | Rejected:
    """Lower, size, compile and simulate one plan."""
    setting = setting.at(plan.clock)
    start = started(setting.model, plan, setting.cluster, setting.engine, setting.max_model_len)
    if isinstance(start, Rejected):
        return start
    room = _calibrated_room(start[1], setting.pricer.factors.kv)
    engine, found = start[0], _as_served(room, start[0], setting.workload)
    stages = lower(setting.model, plan, setting.cluster.gpu.flops, setting.cluster.domain)
    axes = axes_for(engine, plan.lanes, setting.workload.size, setting.workload.longest)
    costs = compile_costs(stages, plan, setting.pricer, engine, axes, setting.model.hidden)
    if setting.images:
        each = image_seconds(setting.model.vision, setting.image_patches, plan.attention.tp, setting.pricer.bank)
        costs = with_images(costs, setting.images * setting.workload.size * each / float(setting.workload.prompt.sum()))
    reuse = engine.reuse > 0
    coarse = _coarse(found.block_size, reuse and setting.workload.block > 0)
    blocks = max(found.blocks // coarse, -(-setting.workload.longest // (found.block_size * coarse))) if coarse > 1 else found.blocks
    rules = rules_for(engine, blocks, found.block_size * coarse, _seats(setting, found), plan.lanes)
    outcome = simulate(
        requests_of(setting.workload, reuse), rules, host_for(engine), costs, blocks, replicas=plan.replicas,
        lanes=plan.lanes, route=_route(setting, plan), gaps=setting.workload.size < GAP_LIMIT,
    )  # fmt: skip
    return Evaluation(plan, engine, found, stages, axes, costs, outcome)
