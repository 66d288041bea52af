"""Widths in a user's words and the plan that they mean; the layouts that one would try without any (floor 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from apexsim.engines import EngineRow
from apexsim.errors import InputError
from apexsim.hardware import Cluster
from apexsim.model.model import Model
from apexsim.model.parts import routed
from apexsim.plan.limits import unstartable
from apexsim.plan.plan import Layout, Plan, Precision, parse_plan
from apexsim.plan.space import DRAFTS, Scene, check, divisors

NODE = 8  # GPUs of the largest server whose GPUs are used as one although nothing but its own bus joins them


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
    broken = check(plan, Scene(model, cluster), DRAFTS)
    if broken:
        raise InputError(f"{plan.shorthand} cannot be built: {broken.reason}", "--plan")
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


# ---- without widths -------------------------------------------------------------------------------------------------


def island(cluster: Cluster) -> int:
    """GPUs among which tensor parallelism stays: a node, of a larger one what one link joins; where a link joins nodes
    (NVL72), all that it reaches."""
    link = cluster.gpu.link
    most = min(link.span, cluster.size) if link.multi_node else min(cluster.per_node, max(link.span, NODE))
    return max(n for n in divisors(cluster.size) if n <= most)


def layouts(model: Model, cluster: Cluster, engine: EngineRow, precision: Precision) -> Iterator[Plan]:
    """The plans of a cluster in the order in which the field tries them: tensor parallel inside an island, narrow first
    (replicas fill the rest); then pipeline stages over islands, each as wide as the model divides; then tensor parallel
    across islands; then, of expert models, data parallel attention with the experts over all GPUs.

    Only what can be divided, and what the engine can start where it can start anything here.
    """
    scene, size = Scene(model, cluster), cluster.size
    plans = [made for made in _tried(model, cluster, precision) if check(made, scene) is None and made.devices == size]
    able = [made for made in plans if not unstartable(model, made, cluster, engine)]
    yield from able or plans


def _tried(model: Model, cluster: Cluster, precision: Precision) -> Iterator[Plan]:
    size, inside, scene = cluster.size, divisors(island(cluster)), Scene(model, cluster)

    def made(stages: int, tp: int) -> Plan:
        return Plan(size // (stages * tp), stages, Layout(tp=tp), Layout(tp=tp), precision)

    yield from (made(1, tp) for tp in inside)
    for stages in divisors(size)[1:]:
        wide = (made(stages, tp) for tp in reversed(inside) if not size % (stages * tp))
        yield from [plan for plan in wide if check(plan, scene) is None][:1]
    yield from (made(1, tp) for tp in divisors(size) if tp > inside[-1])
    if routed(model):
        lanes = {size, size // inside[-1]} - {1}
        yield from (Plan(1, 1, Layout(n, size // n), Layout(ep=size), precision) for n in sorted(lanes))
