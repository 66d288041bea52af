"""One plan from lowering to outcome: the walk as a short list (floor 5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from apexsim.cost.tables import Axes, axes_for, compile_costs, host_for, rules_for
from apexsim.cost.vision import image_seconds, with_images
from apexsim.engine.kernel import Outcome, simulate
from apexsim.engine.types import Costs, Requests, Rules
from apexsim.engines import EngineRow
from apexsim.errors import Rejected
from apexsim.plan.limits import started
from apexsim.plan.lower import StageOps, lower
from apexsim.plan.memory import Room
from apexsim.plan.plan import Plan
from apexsim.plan.pool import served_blocks
from apexsim.search.setting import ROUTES, Setting
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
    asked = Requests(workload.arrive, workload.prompt, workload.output, users, workload.think)
    asked = asked if users else asked._replace(after=workload.after, delay=workload.delay)
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


@dataclass(frozen=True, slots=True)
class Ready:
    """A plan, sized and priced, before a request is sent.

    room: as this workload is served; rules, blocks [of one lane]: as the engine takes them; reuse: with the prefixes that requests share.
    """

    plan: Plan
    engine: EngineRow
    room: Room
    stages: tuple[StageOps, ...]
    axes: Axes
    costs: Costs
    rules: Rules
    blocks: int
    reuse: bool

    def done(self, outcome: Outcome) -> Evaluation:
        """The same with what happened."""
        return Evaluation(self.plan, self.engine, self.room, self.stages, self.axes, self.costs, outcome)


def ready(setting: Setting, plan: Plan) -> Ready | Rejected:
    """Lower, size and compile one plan."""
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
    reuse = engine.reuse > 0 and setting.workload.block > 0
    coarse = _coarse(found.block_size, reuse)
    blocks = max(found.blocks // coarse, -(-setting.workload.longest // (found.block_size * coarse))) if coarse > 1 else found.blocks
    rules = rules_for(engine, blocks, found.block_size * coarse, _seats(setting, found), plan.lanes)
    return Ready(plan, engine, found, stages, axes, costs, rules, blocks, reuse)


def evaluate(setting: Setting, plan: Plan) -> Evaluation | Rejected:
    """Lower, size, compile and simulate one plan."""
    made = ready(setting, plan)
    if isinstance(made, Rejected):
        return made
    return made.done(simulate(
        requests_of(setting.workload, made.reuse), made.rules, host_for(made.engine), made.costs, made.blocks, replicas=plan.replicas,
        lanes=plan.lanes, route=ROUTES.index(setting.route), gaps=setting.workload.size < GAP_LIMIT,
    ))  # fmt: skip
