"""Which plans exist: declared axes, named rules, and how many plans each rule turned away (floor 3).

A plan uses every GPU: replicas × stages × devices per stage = cluster size.  Inside a stage attention and FFN may be
split differently; where both have replicas, their numbers must be coprime, since a common factor is nothing but model
replicas in lock step.  Expert layers may also be expert parallel over the whole stage beside any attention layout:
TP n, TEP n (attention TP), DEP n (attention DP) and what lies between; inside a node experts may be divided both ways
(TP8/TP2EP4).  `runnable` says which of these an engine can be told to run.

Not enumerated: plans that leave GPUs idle, replicas of unequal shape, expert parallel groups smaller than a stage, and,
as a declared bound, expert splits of both kinds across nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import gcd
from typing import Any

from apexsim.drafting import Drafting
from apexsim.engines import engine_facts
from apexsim.errors import Rejected
from apexsim.hardware import Cluster
from apexsim.model.cell import Cell, Place
from apexsim.model.model import Block, Model
from apexsim.model.parts import routed
from apexsim.model.precision import refuse
from apexsim.plan.plan import Layout, Plan, Precision
from apexsim.plan.second import second_of
from apexsim.plan.split import AnyPlan, Split


def divisors(n: int) -> tuple[int, ...]:
    """All divisors of n, ascending."""
    low = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return tuple(sorted({*low, *(n // d for d in low)}))


@dataclass(frozen=True, slots=True)
class Scene:
    """What a rule may look at beside the plan."""

    model: Model
    cluster: Cluster


AXES: dict[str, Callable[[Scene], tuple[Any, ...]]] = {
    "stages": lambda scene: divisors(scene.cluster.size),
    "width": lambda scene: divisors(scene.cluster.size),  # devices of a stage
    "attention_dp": lambda scene: divisors(scene.cluster.size),
    "ffn": lambda scene: (
        tuple(("tp", dp) for dp in divisors(scene.cluster.size))
        + (tuple(("ep", tp) for tp in divisors(scene.cluster.size)) if routed(scene.model) else ())
    ),  # ("tp", replicas), or ("ep", columns of each expert)
}


@dataclass(frozen=True, slots=True)
class PlanRule:
    """A named reason why a plan cannot be; `why` gives it in words with the numbers, or None."""

    name: str
    why: Callable[[Plan, Scene], str | None]


def blocks(model: Model) -> tuple[Block, ...]:
    """The distinct blocks of the generating stack."""
    stack = model.decoder
    return tuple(stack.blocks[i] for i in sorted(set(stack.layers)))


SPLITS: dict[Place, Callable[[Plan], tuple[int, int]]] = {
    "attention": lambda plan: (plan.attention.tp, 1),
    "ffn": lambda plan: (plan.attention.tp if plan.wide else plan.ffn.tp * plan.ffn.ep, 1),
    "experts": lambda plan: (plan.ffn.tp, plan.ffn.ep),
}


def cell_split(cell: Cell, plan: Plan) -> tuple[int, int]:
    """(tp, ep) that divide a cell; a dense FFN beside expert parallel ones is divided over the whole group, or in a wide plan as the
    attention is."""
    return SPLITS[cell.place](plan)


def _coprime(plan: Plan, scene: Scene) -> str | None:
    common = gcd(plan.attention.dp, plan.ffn.dp)
    return f"attention DP{plan.attention.dp} and FFN DP{plan.ffn.dp} are {common} model replicas in lock step" if common > 1 else None


def _stages(plan: Plan, scene: Scene) -> str | None:
    layers = len(scene.model.decoder.layers)
    return f"{plan.stages} stages for {layers} layers" if plan.stages > layers else None


def _splits(*places: Place) -> Callable[[Plan, Scene], str | None]:
    def why(plan: Plan, scene: Scene) -> str | None:
        for block in blocks(scene.model):
            for cell in block.cells:
                reason = cell.split_rules(*cell_split(cell, plan)) if cell.place in places else None
                if reason:
                    return reason
        return None

    return why


def _mixed(plan: Plan, scene: Scene) -> str | None:
    both = plan.ffn.ep > 1 and plan.ffn.tp > 1
    if both and plan.stage_devices > scene.cluster.per_node:
        return f"experts split TP{plan.ffn.tp} and EP{plan.ffn.ep} over {plan.stage_devices} GPUs span nodes"
    return None


def _alone(plan: Plan, scene: Scene) -> str | None:
    each, gpu = plan.replica_devices, scene.cluster.gpu
    return f"{each} MIG slices have no peer-to-peer copies: each serves alone" if gpu.profile and each > 1 else None


def _drafts(plan: Plan, scene: Scene) -> str | None:
    """Why a model cannot draft so."""
    model, draft = scene.model, plan.draft
    if draft is None:
        return None
    if not model.has_head:
        return f"{model.name} generates nothing"
    if draft.model:
        return _seconds(plan, model)
    if draft.method == "mtp" and "mtp" not in dict(model.outside_parts):
        return f"{model.name} has no multi-token-prediction layers (eagle3, ngram and draft need none)"
    attends = any(cell.place == "attention" and not cell.recurrent for block in blocks(model) for cell in block.cells)
    return None if draft.method != "eagle3" or attends else f"{model.name} has no attention that an EAGLE-3 head could have"


def _seconds(plan: Plan, model: Model) -> str | None:
    """Why a model cannot draft for another."""
    second, own = second_of(plan)
    refuse(second.unread, "--speculate")
    cells = [cell for block in blocks(second) for cell in block.cells]
    if not second.has_head or len(second.stacks) > 1:
        return f"{second.name} is no model that writes on from its prompt"
    if second.vocab != model.vocab:
        return f"{second.name} has {second.vocab:,} entries in its vocabulary, {model.name} {model.vocab:,}: its drafts are other tokens"
    if any(cell.recurrent for cell in cells):
        return f"{second.name} has recurrent layers, whose state cannot be taken back by the drafts that are refused"
    if any(cell.caches() for cell in cells) != any(cell.caches() for block in blocks(model) for cell in block.cells):
        return f"the caches of {second.name} and {model.name} are of two kinds"
    reasons = (cell.split_rules(*cell_split(cell, own)) for cell in cells)
    return next((f"{second.name}: {reason}" for reason in reasons if reason), None)


DRAFTS = (PlanRule("the model drafts so", _drafts),)
RULES = (
    PlanRule("a MIG slice serves alone", _alone),
    PlanRule("cell replicas are coprime", _coprime),
    PlanRule("experts split both ways stay in a node", _mixed),
    PlanRule("a layer for every stage", _stages),
    PlanRule("attention divides", _splits("attention")),
    PlanRule("feed-forward divides", _splits("ffn", "experts")),
    *DRAFTS,
)


@dataclass(frozen=True, slots=True)
class Space:
    """The outcome of enumerating: plans that can be built, rejected ones, and the funnel (rule, plans it rejected)."""

    plans: tuple[Plan, ...]
    rejected: tuple[Rejected, ...]
    funnel: tuple[tuple[str, int], ...]
    splits: tuple[Split, ...] = ()  # plans of two pools beside them

    @property
    def enumerated(self) -> int:
        """Plans looked at."""
        return len(self.all) + len(self.rejected)

    @property
    def all(self) -> tuple[AnyPlan, ...]:
        """Plans of one pool and of two."""
        return (*self.plans, *self.splits)


def every_plan(scene: Scene, precision: Precision) -> Iterator[Plan]:
    """The product of the axes, as far as the factors divide each other; rules come after."""
    size = scene.cluster.size
    for stages, width, attention_dp, (kind, part) in product(*(axis(scene) for axis in AXES.values())):
        if size % (stages * width) or width % attention_dp or width % part or (kind == "ep" and width == part):
            continue
        ffn = Layout(tp=part, ep=width // part) if kind == "ep" else Layout(part, width // part)
        yield Plan(size // (stages * width), stages, Layout(attention_dp, width // attention_dp), ffn, precision)


def check(plan: Plan, scene: Scene, rules: tuple[PlanRule, ...] = RULES) -> Rejected | None:
    """The first rule that a plan breaks, with its reason."""
    for rule in rules:
        reason = rule.why(plan, scene)
        if reason:
            return Rejected(rule.name, reason, plan.shorthand)
    return None


def candidates(model: Model, cluster: Cluster, precision: Precision | None = None, rules: tuple[PlanRule, ...] = RULES) -> Space:
    """Every plan of a model on a cluster: those that can be built, and why the others cannot."""
    scene, plans, rejected = Scene(model, cluster), [], []
    for plan in every_plan(scene, precision or Precision()):
        broken = check(plan, scene, rules)
        if broken:
            rejected.append(broken)
        else:
            plans.append(plan)
    counts = Counter(r.rule for r in rejected)
    return Space(tuple(plans), tuple(rejected), tuple((rule.name, counts[rule.name]) for rule in rules))


def merged(spaces: list[Space]) -> Space:
    """Several spaces as one: the same layouts in several number formats."""
    counts: Counter[str] = Counter()
    for space in spaces:
        counts.update(dict(space.funnel))
    plans = tuple(p for space in spaces for p in space.plans)
    return Space(plans, tuple(r for space in spaces for r in space.rejected), tuple(counts.items()))


def at_clocks(space: Space, clocks: Sequence[int]) -> Space:
    """Every plan of the space at every SM clock [MHz]; 0 is the GPUs' own."""
    return replace(space, plans=tuple(replace(plan, clock=clock) for clock in clocks for plan in space.plans))


def with_drafts(space: Space, drafts: Sequence[Drafting | None]) -> Space:
    """Every plan of the space with every way of drafting; None is none."""
    return replace(space, plans=tuple(replace(plan, draft=draft) for draft in drafts for plan in space.plans))


def heuristic_plan(model: Model, cluster: Cluster, precision: Precision | None = None) -> Plan:
    """The usual baseline: tensor parallel within the node, pipeline stages across nodes, one replica.

    Where the model cannot be divided so widely, tp is the largest divisor of the node that it can, and replicas fill
    up; a model with fewer layers than nodes gets as many stages as divide the nodes.
    """
    scene, precision = Scene(model, cluster), precision or Precision()
    layers = len(model.decoder.layers)
    stages = max(d for d in divisors(cluster.nodes) if d <= layers)
    for tp in reversed(divisors(cluster.per_node)):
        plan = Plan(cluster.size // (stages * tp), stages, Layout(tp=tp), Layout(tp=tp), precision)
        if check(plan, scene) is None:
            return plan
    return Plan(cluster.size // stages, stages, Layout(), Layout(), precision)


def runnable(plan: Plan, model: Model, engine: str) -> str:
    """Why the server of an engine cannot be told to run a plan; "" when it can."""
    able, ffn, experts = engine_facts(engine), plan.ffn, routed(model)
    if able.name != engine or not able.program:
        return f"{engine} is a batching policy without a server of its own"
    if ffn.dp > 1 and not (plan.attention == ffn and plan.lanes == 1):
        return f"{engine} has no feed-forward replicas beside wider attention ({plan.attention}/{ffn})"
    if plan.lanes > 1 and not experts:
        return f"{engine} has no attention replicas beside a differently split dense FFN ({plan.attention}/{ffn})"
    if ffn.tp > 1 and ffn.ep > 1 and not able.mixed_experts:
        return f"{engine} spreads experts over all GPUs of a replica or over none ({ffn})"
    if plan.lanes > 1 and plan.attention.tp > 1 and not able.wide_lanes:
        return f"{engine} gives every GPU an attention lane of its own ({plan.attention})"
    return ""


def stage_layers(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of each pipeline stage.

    As vLLM deals them (get_pp_indices): evenly; a remainder r goes one each to the r stages before the last, since the
    last one also holds the head; so the first stage, which holds the embedding, gets one only when r = stages − 1.
    """
    each, rest = divmod(layers, stages)
    return tuple(each + (stages - 1 - rest <= i < stages - 1) for i in range(stages))
