"""Does it fit: one plan sized, or why not and the nearest that would (floor 3).  Nothing is simulated.

A width that is not given is filled by model replicas; where none is given, the narrowest that fits is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from apexsim.engines import EngineRow
from apexsim.errors import InputError, Rejected
from apexsim.hardware import Cluster
from apexsim.model.model import Model
from apexsim.plan.limits import at_full_length
from apexsim.plan.memory import Room, room, size
from apexsim.plan.plan import Layout, Plan, Precision, parse_plan
from apexsim.plan.pool import request_blocks
from apexsim.plan.space import Scene, check, divisors, routed
from apexsim.workload.presets import Preset

NEVER = "no cache is kept: requests need no room in it"
MORE = (2, 4, 8, 16, 32, 64)  # times as many nodes tried where the cluster is too small


@dataclass(frozen=True, slots=True)
class Widths:
    """The widths a user gave; 0 = not given.

    dp: lanes of attention inside one replica (experts span dp × tp), of a model without experts replicas; ep: parts that
    the experts are spread over, what is left of dp × tp cuts each of them; expert_parallel: ep is all of dp × tp."""

    tp: int = 0
    pp: int = 0
    dp: int = 0
    expert_parallel: bool = False
    plan: str = ""
    ep: int = 0

    @property
    def given(self) -> bool:
        """Whether any was."""
        return bool(self.tp or self.pp or self.dp or self.ep or self.plan)

    @property
    def words(self) -> str:
        """The widths as flags."""
        counts = {"--tp": self.tp, "--pp": self.pp, "--dp": self.dp, "--ep": self.ep}
        told = [f"{flag} {n}" for flag, n in counts.items() if n]
        return " ".join([*told, *(["--enable-expert-parallel"] if self.expert_parallel else [])])


@dataclass(frozen=True, slots=True)
class Fit:
    """The answer: `found` is the room, or why there is none; nearest: what would fit, in words, "" = nothing tried does."""

    model: Model
    cluster: Cluster
    engine: EngineRow
    plan: Plan
    max_model_len: int
    found: Room | Rejected
    nearest: str = ""
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the engine would start."""
        return isinstance(self.found, Room)


def plan_of(model: Model, cluster: Cluster, widths: Widths, precision: Precision) -> Plan:
    """The plan that the widths mean on a cluster; raises InputError where they need another number of GPUs."""
    if widths.plan:
        plan = parse_plan(widths.plan, precision)
        each = plan.replica_devices
        plan = replace(plan, replicas=cluster.size // each) if plan.replicas == 1 and not cluster.size % each else plan
    else:
        tp, pp = max(1, widths.tp), max(1, widths.pp)
        dp = max(1, widths.dp) if routed(model) else 1  # lanes of a dense model are replicas
        each = pp * dp * tp
        plan = Plan(max(1, cluster.size // each), pp, Layout(dp, tp), _ffn(model, widths, dp * tp), precision)
        if not routed(model) and widths.dp not in (0, plan.replicas):
            told = f"{widths.words}: {cluster.size} GPUs in replicas of {each} make {plan.replicas} of them"
            raise InputError(told, "--dp", f"drop --dp, or use {each * widths.dp} GPUs")
    if plan.devices != cluster.size:
        hint = "widths multiply to a divisor of the GPUs; the rest is filled by replicas"
        raise InputError(f"{plan.shorthand} takes {plan.devices} GPUs, the cluster has {cluster.size}", "--tp", hint)
    return plan


def _ffn(model: Model, widths: Widths, wide: int) -> Layout:
    """How the FFN is split over a stage of `wide` GPUs."""
    ep = wide if widths.expert_parallel and not widths.ep else max(1, widths.ep)
    if ep > 1 and not routed(model):
        raise InputError(f"it has no effect: {model.name} has no routed experts", "--ep" if widths.ep else "--enable-expert-parallel")
    if wide % ep or (widths.expert_parallel and ep < wide):
        raise InputError(f"experts spread over {ep} of the {wide} GPUs of a stage", "--ep", f"use a divisor of tp × dp = {wide}")
    return Layout(tp=wide // ep, ep=ep)


def judged(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow, length: int) -> Room | Rejected:
    """The room of a plan as the engine sees it: rules of splitting first, then memory."""
    broken = check(plan, Scene(model, cluster))
    if broken:
        return broken
    asked = room if engine.memory.refuses else size
    return asked(model, plan, cluster, engine, length)


def fit(model: Model, cluster: Cluster, engine: EngineRow, widths: Widths, precision: Precision, length: int) -> Fit:
    """Size the plan that the widths mean; `engine` must be settled for the length."""
    if widths.given:
        plan = plan_of(model, cluster, widths, precision)
        found = judged(model, plan, cluster, engine, length)
        answer = Fit(model, cluster, engine, plan, length, found)
    else:
        answer = _narrowest(model, cluster, engine, precision, length)
    return answer if answer.fits else replace(answer, nearest=_nearest(answer))


def for_workload(answer: Fit, preset: Preset) -> Fit:
    """The answer with how many requests of a workload preset the cache holds, and whether its longest is allowed."""
    if isinstance(answer.found, Rejected):
        return answer
    mean = [round(preset.mean(kind)) for kind in ("prompt", "output")]
    many = at_full_length(answer.found, answer.engine, sum(mean)) if answer.found.pool.groups else math.inf
    each = " of each replica" if answer.plan.replicas > 1 else ""
    held = f"the cache{each} holds {many:,.0f} of its mean request ({mean[0]:,} + {mean[1]:,} tokens)"
    long = f"its longest requests, {preset.longest:,} tokens, are longer than the model length of {answer.max_model_len:,}"
    notes = [f"workload {preset.name}: {held if many < math.inf else NEVER}", *([long] if preset.longest > answer.max_model_len else [])]
    return replace(answer, notes=(*notes, *answer.notes))


def _narrowest(model: Model, cluster: Cluster, engine: EngineRow, precision: Precision, length: int) -> Fit:
    """The narrowest tensor parallel plan that fits; else the widest, with its reason."""
    last: Fit | None = None
    for tp in divisors(cluster.per_node):
        plan = plan_of(model, cluster, Widths(tp=tp), precision)
        found = judged(model, plan, cluster, engine, length)
        note = f"no width given: {plan.shorthand} is the narrowest that fits"
        if isinstance(found, Room):
            return Fit(model, cluster, engine, plan, length, found, "", (note,) if tp > 1 else ())
        if last is None or check(plan, Scene(model, cluster)) is None:
            last = Fit(model, cluster, engine, plan, length, found)
    assert last is not None
    return last


def longest(answer: Fit) -> int:
    """The longest request that the cache holds [token]; 0 where nothing is left for a cache."""
    where = (answer.model, answer.plan, answer.cluster, answer.engine, answer.max_model_len)
    found = size(*where)
    if isinstance(found, Rejected) or not found.pool.groups:
        return 0
    count, low, high = int(found.kv_bytes // found.pool.block_bytes), 0, answer.max_model_len
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if request_blocks(found.pool, middle, answer.engine) <= count else (low, middle - 1)
    return low


def _nearest(answer: Fit) -> str:
    """What would fit: a shorter length, another width on this cluster, or more GPUs."""
    model, cluster, engine, precision = answer.model, answer.cluster, answer.engine, answer.plan.precision
    ways = []
    if check(answer.plan, Scene(model, cluster)) is None:
        tokens = longest(answer)
        ways += [f"--max-model-len {tokens} on {answer.plan.shorthand}"] if tokens > 1 else []
    wider = _first(model, cluster, engine, precision, answer.max_model_len)
    if wider:
        ways.append(f"{wider.shorthand} on these GPUs")
    if not ways:
        for times in MORE:
            grown = replace(cluster, nodes=cluster.nodes * times)
            plan = _first(model, grown, engine, precision, answer.max_model_len)
            if plan:
                return f"{plan.shorthand} on {grown.size} GPUs would fit"
    return f"{' or '.join(ways)} would fit" if ways else ""


def _first(model: Model, cluster: Cluster, engine: EngineRow, precision: Precision, length: int) -> Plan | None:
    """The narrowest plan that fits: tensor parallel in the node, then pipeline stages across nodes."""
    widths = [Widths(tp=tp) for tp in divisors(cluster.per_node)]
    widths += [
        Widths(tp=tp, pp=pp) for pp in divisors(cluster.nodes)[1:] for tp in reversed(divisors(cluster.per_node))
    ]
    for each in widths:
        plan = plan_of(model, cluster, each, precision)
        if isinstance(judged(model, plan, cluster, engine, length), Room):
            return plan
    return None
