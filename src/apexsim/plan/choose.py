"""From a user's words to an engine row and number formats (floor 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apexsim.engines import EngineRow, load_engine, override, settled
from apexsim.errors import InputError, Rejected
from apexsim.hardware import Cluster
from apexsim.model.dtypes import dtype
from apexsim.model.model import Model
from apexsim.model.parts import routed
from apexsim.model.precision import refuse
from apexsim.plan.fit import Widths, plan_of
from apexsim.plan.plan import Plan, Precision
from apexsim.plan.space import Space

CACHES = ("bf16", "fp16", "fp32", "fp8", "int8")


def engine_of(spec: str, settings: Mapping[str, Any], cluster: Cluster, length: int, prompt: int = 0) -> EngineRow:
    """The engine's row with the user's settings and all defaults decided; length, prompt: tokens of the longest request and prompt."""
    row = override(load_engine(spec), **settings)
    return settled(row, cluster.gpu.memory_bytes, cluster.gpu.name, length, prompt)


PLAIN = ("bf16", "fp16", "fp32")


def precision_of(model: Model, weight: str | None, activation: str | None, kv: str | None, plain: str | None = None) -> Precision:
    """Number formats: the user's, else the checkpoint's; quantised parts stay as the checkpoint has them.

    plain: the format of what the checkpoint leaves unquantised (an engine's --dtype).  What the checkpoint says and nobody
    knows is refused, unless the user says it.
    """
    plain = None if plain == "auto" else plain  # the engines' word for the checkpoint's own
    if plain and dtype(plain, "--dtype").name not in PLAIN:
        raise InputError(f"'{plain}' is no format of unquantised weights", "--dtype", f"use {', '.join(PLAIN)}, or --weight-dtype")
    if plain and weight:
        raise InputError("it has no effect: --weight-dtype names the format of all weights", "--dtype", "drop one of both")
    if not weight:
        refuse(model.unread, "--weight-dtype")
    if not kv:
        refuse(model.unread_kv, "--kv-dtype")
    cache = dtype(kv, "--kv-dtype").name if kv else (dtype(model.kv_dtype).name if model.kv_dtype else "bf16")
    if cache not in CACHES:
        raise InputError(f"a KV cache in {cache} is not supported", "--kv-dtype", f"use {', '.join(CACHES)}")
    act = dtype(activation, "--activation-dtype").name if activation else "auto"
    if weight:
        return Precision((), dtype(weight, "--weight-dtype").name, act, cache)
    own = dtype(model.dtype).name
    if plain and own not in PLAIN:
        raise InputError(f"it has no effect: all weights of {model.name} are in {own}", "--dtype", "drop it")
    return Precision(model.weight_dtypes, dtype(plain).name if plain else own, act, cache)


def named_plan(model: Model, cluster: Cluster, widths: Widths, precision: Precision) -> Plan:
    """The one plan that the widths mean; replicas fill the cluster."""
    if not widths.given:
        raise InputError("missing option '--plan'", "", "give --plan TP8, or its widths: --tp 8 (--pp, --dp, --ep)")
    return plan_of(model, cluster, widths, precision)


def restricted(space: Space, model: Model, widths: Widths) -> Space:
    """The plans of a space that have the widths; where nothing was given, all of them."""

    def keeps(plan: Plan) -> bool:
        copies = plan.lanes if routed(model) else plan.replicas
        wide = plan.ffn.ep == plan.stage_devices > 1 or not widths.expert_parallel
        pairs = ((widths.tp, plan.attention.tp), (widths.pp, plan.stages), (widths.dp, copies), (widths.ep, plan.ffn.ep))
        return wide and all(asked in (0, has) for asked, has in pairs)

    plans = tuple(plan for plan in space.plans if keeps(plan))
    if len(plans) == len(space.plans):
        return space
    if not plans:
        size = space.plans[0].devices
        raise InputError(f"no plan of {size} GPUs has {widths.words}", "--tp/--pp/--dp/--ep", "give fewer of them, or see all without")
    others = [Rejected("has the widths asked for", f"{widths.words} asked for", p.shorthand) for p in space.plans if not keeps(p)]
    funnel = (*space.funnel, ("has the widths asked for", len(others)))
    return Space(plans, (*space.rejected, *others), funnel)
