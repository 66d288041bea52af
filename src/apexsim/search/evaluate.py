"""One plan from lowering to outcome: the walk as a short list (floor 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from apexsim.cost.batches import by_sequences
from apexsim.cost.tables import Axes, axes_for, compile_costs, host_for, rules_for
from apexsim.cost.vision import image_seconds, with_images
from apexsim.engine.kernel import Outcome, simulate, slack
from apexsim.engine.types import AFFINITY, DECODE, NO_DRAFTS, NO_OFFLOAD, PROMPT, TICKS, Costs, Drafts, Offload, Requests, Route, Rules
from apexsim.engine_file import LOADED, WRITTEN, Behind
from apexsim.engines import EngineRow, drafting
from apexsim.errors import Rejected
from apexsim.offload import way_of
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
    start: EngineRow  # as it can be started with this plan
    engine: EngineRow  # the same with its captured sizes in tokens
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
    if len(workload.join) and len(workload.after) and not users:
        asked = asked._replace(join=workload.join[:, 0], join_after=workload.join[:, 1], join_delay=workload.join_delay)
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
    return replace(
        found,
        kv_bytes=found.kv_bytes * factor,
        blocks=max(1, round(found.blocks * factor)),
        tokens=round(found.tokens * factor),
        max_concurrency=found.max_concurrency * factor,
    )


def drafts_of(setting: Setting, plan: Plan, seats: int) -> Drafts:
    """What decode steps make of each of up to `seats` sequences."""
    if plan.draft is None:
        return NO_DRAFTS
    accepted, drafts = setting.accepts(plan.draft), plan.draft.of_batches(seats)
    gain = {k: round(accepted.length(k) * TICKS) for k in set(drafts)}
    return Drafts(np.array([gain[k] for k in drafts]), np.array(drafts) + 1)


def look_of(engine: EngineRow, plan: Plan, drafts: Drafts) -> int:
    """Slots that a decoding sequence keeps behind its tokens: those of its drafts and of what is looked ahead for the next ones, less what
    a step makes, for which blocks are taken anyway."""
    if plan.draft is None:
        return 0
    made = -(-drafts.gain // TICKS)
    return max(0, (engine.draft_slots - 1) * plan.draft.tokens + int((drafts.width - made).max()))


def _roomy(blocks: int, longest: int, rules: Rules, drafts: Drafts) -> int:
    """Blocks, and where one request of full length alone has no room behind it, as many as it needs: engines stop drafting there."""
    return max(blocks, -(-(longest + slack(rules, drafts)) // rules.block))


@dataclass(frozen=True, slots=True)
class Compiled:
    """A plan in tables: the engine that they are for, with captured sizes in tokens."""

    engine: EngineRow
    stages: tuple[StageOps, ...]
    axes: Axes
    costs: Costs


def compiled(setting: Setting, plan: Plan, engine: EngineRow) -> Compiled:
    """Lower a plan and compile its tables; setting: at its clock; engine: as it can be started with it."""
    width = plan.draft.width if plan.draft else 1
    axes = axes_for(engine, plan.lanes, setting.workload.size, setting.workload.longest, width)
    engine, stages, costs = _priced(setting, plan, engine, axes)
    if setting.images:
        each = image_seconds(setting.model.vision, setting.image_patches, plan.attention.tp, setting.pricer.bank)
        costs = with_images(costs, setting.images * setting.workload.size * each / float(setting.workload.prompt.sum()))
    return Compiled(engine, stages, axes, costs)


def _priced(setting: Setting, plan: Plan, engine: EngineRow, axes: Axes) -> tuple[EngineRow, tuple[StageOps, ...], Costs]:
    """The engine with captured sizes in tokens, the ops of a plan and its tables; where drafts follow the batch, these of all its numbers
    of drafts, and the rest of the most."""
    if plan.draft and plan.draft.by:
        each = {kind.tokens: _priced(setting, replace(plan, draft=kind), engine, axes) for kind in plan.draft.kinds}
        drafts = np.array([plan.draft.drafts(d * plan.lanes) for d in range(axes.sequences + 2)])
        return *each[plan.draft.tokens][:2], by_sequences({k: costs for k, (*_, costs) in each.items()}, drafts, plan.lanes)
    engine = drafting(engine, plan.draft.width if plan.draft else 1)
    stages = lower(setting.model, plan, setting.cluster.gpu.flops, setting.cluster.domain)
    return engine, stages, compile_costs(stages, plan, setting.pricer, engine, axes, setting.model.hidden)


@dataclass(frozen=True, slots=True)
class Ready:
    """A plan, sized and priced, before a request is sent.

    room: as this workload is served; rules, blocks [of one lane]: as the engine takes them; reuse: with the prefixes that requests share.
    """

    plan: Plan
    start: EngineRow  # as it can be started with this plan
    engine: EngineRow  # the same with its captured sizes in tokens
    room: Room
    stages: tuple[StageOps, ...]
    axes: Axes
    costs: Costs
    rules: Rules
    blocks: int
    reuse: bool
    drafts: Drafts
    offload: Offload

    def done(self, outcome: Outcome) -> Evaluation:
        """The same with what happened."""
        return Evaluation(self.plan, self.start, self.engine, self.room, self.stages, self.axes, self.costs, outcome)


def offload_of(setting: Setting, plan: Plan, room: Room, block: int) -> Offload:
    """The tiers of a lane in its blocks of so many tokens: the GPUs of a lane read from the host side by side, from elsewhere together."""
    if not setting.offload:
        return NO_OFFLOAD
    way, gpus = way_of(setting.engine.server, setting.offload), plan.attention.tp * plan.stages
    mine = block * room.kv_bytes / max(room.tokens, 1)  # bytes of a block on one GPU
    sizes = np.array([int(tier.size / plan.lanes / (gpus * mine)) for tier in setting.offload], np.int64)
    most = 4 * int((-(-(setting.workload.prompt + setting.workload.output) // block)).sum())  # more are never written
    block_s = np.array([tier.block + mine * (1 if tier.kind == "cpu" else gpus) / tier.rate for tier in setting.offload])
    return Offload(np.minimum(sizes, most), np.array([tier.latency for tier in setting.offload]), block_s, *_codes(way))


def _codes(way: Behind) -> tuple[int, int, int]:
    """What an engine does with tiers, as the simulation takes it."""
    return WRITTEN.index(way.write), LOADED.index(way.load), int(way.prompts)


COLD, LONG = 4, 8192  # prompts one after the other, and tokens of each: what llm-d's guide measures a replica with


def peak_prefill(setting: Setting, plan: Plan) -> float:
    """Prompt tokens per second of one cold replica in chunks of 8,192 tokens; NaN where the plan cannot be started so."""
    work = Workload("cold", np.zeros(COLD), np.full(COLD, LONG), np.ones(COLD, np.int64), "offline")
    engine = replace(setting.engine, max_num_batched_tokens=LONG, reuse=0)
    length = max(setting.max_model_len, LONG + 1)
    alone = replace(setting, workload=work, engine=engine, router=IN_TURN, offload=(), images=0, max_model_len=length)
    found = evaluate(alone, replace(plan, replicas=1))
    return math.nan if isinstance(found, Rejected) else COLD * LONG / float(found.outcome.finish.max() - found.outcome.start.min())


def route_of(setting: Setting, plan: Plan) -> Route:
    """The router as the engine takes it."""
    kind = ROUTES.index(setting.router.name)
    route = Route(kind, setting.router.look, late=setting.router.penalty, explore=setting.router.explore)
    if kind != AFFINITY or plan.replicas == 1:
        return route
    peak = peak_prefill(setting, plan)
    return route if math.isnan(peak) else route._replace(peak=peak)


def ready(setting: Setting, plan: Plan) -> Ready | Rejected:
    """Lower, size and compile one plan."""
    setting = setting.at(plan.clock)
    start = started(setting.model, plan, setting.cluster, setting.engine, setting.max_model_len)
    if isinstance(start, Rejected):
        return start
    room = _calibrated_room(start[1], setting.pricer.factors.kv)
    found, made = _as_served(room, start[0], setting.workload), compiled(setting, plan, start[0])
    engine = made.engine
    reuse = engine.reuse > 0
    coarse = _coarse(found.block_size, reuse and setting.workload.block > 0)
    blocks = max(found.blocks // coarse, -(-setting.workload.longest // (found.block_size * coarse))) if coarse > 1 else found.blocks
    seats = _seats(setting, found)
    drafts = drafts_of(setting, plan, min(engine.max_num_seqs, max(seats, 1)) * plan.lanes)
    rules = rules_for(engine, blocks, found.block_size * coarse, seats, plan.lanes, look_of(engine, plan, drafts))
    blocks = _roomy(blocks, setting.workload.longest, rules, drafts) if plan.draft else blocks
    return Ready(
        plan,
        start[0],
        engine,
        found,
        made.stages,
        made.axes,
        made.costs,
        rules,
        blocks,
        reuse,
        drafts,
        offload_of(setting, plan, room, rules.block),
    )


def boarding(costs: Costs) -> Costs:
    """Tables of servers that compute no prompts: a step that a request joins costs what a step of decodes does."""
    alike = {name: getattr(costs, name).copy() for name in ("lane", "total", "floor", "add")}
    for table in alike.values():
        table[:, PROMPT] = table[:, DECODE]
    return costs._replace(**alike, prefill=np.zeros_like(costs.prefill), prompt_base=np.zeros_like(costs.prompt_base), beside=0.0)


def evaluate(setting: Setting, plan: Plan, handed: bool = False) -> Evaluation | Rejected:
    """Lower, size, compile and simulate one plan; handed: prompts come computed but for one token, from servers of their own."""
    made = ready(setting, plan)
    if isinstance(made, Rejected):
        return made
    asked = requests_of(setting.workload, made.reuse and not handed)
    if handed:
        asked = asked._replace(cached=setting.workload.prompt - 1)
        made = replace(made, costs=boarding(made.costs)) if made.rules.mix else made
    return made.done(
        simulate(
            asked,
            made.rules,
            host_for(made.engine),
            made.costs,
            made.blocks,
            replicas=plan.replicas,
            lanes=plan.lanes,
            route=route_of(setting, plan),
            gaps=setting.workload.size < GAP_LIMIT,
            drafts=made.drafts,
            offload=made.offload,
            noted=setting.noted,
        )
    )
