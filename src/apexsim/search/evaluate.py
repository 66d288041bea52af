"""One plan from lowering to outcome: the walk as a short list (floor 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from apexsim.cost.power import Server, power_law
from apexsim.cost.price import Pricer
from apexsim.cost.tables import axes_for, compile_costs, host_for, rules_for
from apexsim.cost.vision import image_seconds, with_images
from apexsim.engine.kernel import Outcome, simulate
from apexsim.engine.types import Costs, Requests
from apexsim.engines import EngineRow
from apexsim.errors import Rejected
from apexsim.hardware import Cluster
from apexsim.model.model import Model
from apexsim.plan.limits import started
from apexsim.plan.lower import StageOps, lower
from apexsim.plan.memory import Room
from apexsim.plan.plan import Plan
from apexsim.workload.trace import Workload

GAP_LIMIT = 1_000_000  # requests from which single gaps are no longer recorded


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything but the plan.  `engine` is settled; `max_model_len` [tokens] bounds a request."""

    model: Model
    cluster: Cluster
    engine: EngineRow
    workload: Workload
    pricer: Pricer
    max_model_len: int
    route: str = "round-robin"
    image_patches: int = 0  # patches of each image, and images of each request
    images: int = 0
    price: tuple[float, str] = (math.nan, "")  # of one GPU [$/h], and whose it is
    server: Server = field(default_factory=lambda: power_law()[1])  # what surrounds the GPUs
    length_given: bool = False  # the user named max_model_len; else it is the longest request, rounded up
    clocked: tuple[tuple[int, Cluster, Pricer], ...] = ()  # the cluster at each other SM clock [MHz] of the search

    def at(self, clock: int) -> Setting:
        """The setting in which plans of this SM clock [MHz] run; 0 is the GPUs' own."""
        if not clock:
            return self
        _, cluster, pricer = next(row for row in self.clocked if row[0] == clock)
        return replace(self, cluster=cluster, pricer=pricer)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A simulated plan with everything that explains it."""

    plan: Plan
    engine: EngineRow  # as it can be started with this plan
    room: Room
    stages: tuple[StageOps, ...]
    costs: Costs
    outcome: Outcome


def requests_of(workload: Workload) -> Requests:
    """The workload as the engine takes it."""
    users = workload.concurrency if workload.mode == "closed" else 0
    return Requests(workload.arrive, workload.prompt, workload.output, users, workload.think)


def _seats(setting: Setting, found: Room) -> int:
    """Sequences of a lane: no more than requests, and with cross-attention than fit at full length, since what a request
    keeps of the encoder's output stands beside its own blocks."""
    crossed = any(cell.cross for block in setting.model.decoder.blocks for cell in block.cells)
    return min(setting.workload.size, int(found.max_concurrency)) if crossed else setting.workload.size


def evaluate(setting: Setting, plan: Plan) -> Evaluation | Rejected:
    """Lower, size, compile and simulate one plan."""
    setting = setting.at(plan.clock)
    start = started(setting.model, plan, setting.cluster, setting.engine, setting.max_model_len)
    if isinstance(start, Rejected):
        return start
    engine, found = start
    link = setting.cluster.gpu.link
    domain = link.span if link.multi_node else setting.cluster.per_node
    stages = lower(setting.model, plan, setting.cluster.gpu.flops, domain)
    axes = axes_for(engine, plan.lanes, setting.workload.size, setting.workload.longest)
    costs = compile_costs(stages, plan, setting.pricer, engine, axes, setting.model.hidden)
    if setting.images:
        each = image_seconds(setting.model.vision, setting.image_patches, plan.attention.tp, setting.pricer.bank)
        costs = with_images(costs, setting.images * setting.workload.size * each / float(setting.workload.prompt.sum()))
    rules = rules_for(engine, found.blocks, found.block_size, _seats(setting, found), plan.lanes)
    outcome = simulate(
        requests_of(setting.workload), rules, host_for(engine), costs, found.blocks, replicas=plan.replicas,
        lanes=plan.lanes, route=int(setting.route == "least-outstanding"), gaps=setting.workload.size < GAP_LIMIT,
    )  # fmt: skip
    return Evaluation(plan, engine, found, stages, costs, outcome)
