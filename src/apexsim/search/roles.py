"""The setting of each pool of plans that have two: its GPUs, its engine's settings, and who cannot be split (floor 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from apexsim.cost.books import price_of
from apexsim.cost.price import pricer_for
from apexsim.engines import flags_of
from apexsim.errors import InputError, nearest
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.model import Model
from apexsim.model.parts import encoder_part
from apexsim.plan.choose import engine_of
from apexsim.plan.flags import words_of
from apexsim.plan.split import ROLES, Split
from apexsim.plan.splits import refused
from apexsim.search.setting import FAR, Decider, Setting
from apexsim.units import parse_count

NAMED = {  # what a pool may have of its own: the engine's words stand for them too
    "max_num_seqs": "max_num_seqs", "max_num_batched_tokens": "max_num_batched_tokens", "gpu_memory_utilization": "memory_fraction",
    "memory_fraction": "memory_fraction", "block_size": "block_size",
    "max_cudagraph_capture_size": "capture", "capture": "capture",
}  # fmt: skip


MOST = 1 << 40  # tokens: more than any prompt has
CONNECTORS = ("nixl", "mooncake", "ucx")


def role_settings(text: str, role: str, engine: str) -> dict[str, Any]:
    """The settings that "max-num-seqs=64,max-num-batched-tokens=16k" names for one role; raises InputError where it does not."""
    where = f"--{role}-settings"
    own = {flag.lstrip("-").replace("-", "_"): name for name, flag in flags_of(engine).items() if name in NAMED.values()}
    found: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, sign, value = part.partition("=")
        key = (NAMED | own).get(name.strip().lstrip("-").replace("-", "_"))
        if not sign or not value.strip():
            raise InputError(f"cannot read '{part}'", where, "write NAME=VALUE with commas, e.g. max-num-seqs=64")
        if key is None:
            raise InputError(f"a pool has no setting '{name.strip()}' of its own", where, nearest(name.strip(), NAMED))
        found[key] = _value(key, value.strip(), where)
    if not found:
        raise InputError("it names no setting", where, "write NAME=VALUE with commas, e.g. max-num-seqs=64")
    return found


def _value(key: str, text: str, where: str) -> int | float:
    return _number(text, where) if key == "memory_fraction" else parse_count(text, True, where)


def _number(text: str, where: str) -> float:
    try:
        found = float(text)
    except ValueError:
        raise InputError(f"expected a number, got '{text}'", where) from None
    if math.isnan(found):
        raise InputError(f"expected a number, got '{text}'", where)
    return found


def parse_decider(text: str, where: str = "--conditional-disagg") -> Decider:
    """ "2048", "2048,0.7" or "2048,0.7,busy:2": uncached tokens, their share of the prompt, largest steps before a prefill server."""
    told: dict[str, float] = {}
    for part in (word.strip().lower() for word in text.split(",")):
        name, sign, value = part.rpartition(":")
        key = name if sign else next((key for key in ("tokens", "share") if key not in told), "")
        if key not in ("tokens", "share", "busy") or key in told:
            raise InputError(f"cannot read '{part}'", where, "write TOKENS, TOKENS,SHARE or busy:STEPS, e.g. 2048,0.7,busy:2")
        told[key] = float(parse_count(value, True, where)) if key == "tokens" else _number(value, where)
    if not 0.0 < told.get("share", 1.0) <= 1.0:
        raise InputError(f"the uncached share of a prompt lies between 0 and 1, got {told['share']:g}", where, "e.g. 2048,0.7")
    for key in ("tokens", "busy"):
        if told.get(key, 0.0) < 0.0:
            raise InputError(f"expected 0 or more, got {told[key]:g}", where)
    return Decider(int(min(told.get("tokens", 0), MOST)), told.get("share", math.inf), told.get("busy", math.inf))


def one_stack(model: Model) -> None:
    """Raise InputError where a model has more to hand over than a cache."""
    crossed = any(cell.cross for block in model.decoder.blocks for cell in block.cells)
    if encoder_part(model) is not None or crossed or model.decoder.role == "encoder":
        what = f"{model.name} has an encoder: no engine hands its output from a prefill server to a decode server"
        raise InputError(what, "--disaggregate", "drop it")


def splittable(setting: Setting) -> None:
    """Raise InputError where an engine or the GPUs hand no cache over."""
    if setting.engine.server.crossed is None:
        raise InputError(f"{setting.engine.server.name} does not hand a cache over", "--disaggregate", "use vllm, sglang or tensorrt-llm")
    if setting.decider != FAR and not setting.engine.server.crossed.finds:
        name = setting.engine.server.name
        raise InputError(
            f"decode servers of {name} compute no prompts that their own cache lacks", "--conditional-disagg", "use vllm, or drop it"
        )
    if setting.cluster.gpu.profile:
        raise InputError("MIG slices have no peer-to-peer copies: a cache cannot be handed over", "--disaggregate", "drop it")
    known = words_of(setting.engine)
    if setting.connector and setting.engine.has_server and not known.has("transfer", setting.connector):
        what = f"{setting.engine.label} has no connector '{setting.connector}'"
        raise InputError(what, "--connector", "drop it, for the engine's own choice")


@dataclass(frozen=True, slots=True)
class Roles:
    """What a question says of its pools.  engine, settings: of both; own: settings by role beside them; price: as it was typed."""

    engine: str
    settings: Mapping[str, Any]
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    connector: str = ""
    price: str | None = None
    decider: Decider = FAR


def with_pools(setting: Setting, roles: Roles, plan: Split | None = None) -> Setting:
    """The setting with one for each role, on the GPUs that a plan names."""
    setting = replace(setting, connector=roles.connector, decider=roles.decider)
    splittable(setting)
    if plan is None and setting.cluster.size < len(ROLES):
        raise InputError("one GPU holds one pool", "--disaggregate", "give two GPUs or more, or drop it")
    if plan is None:
        return replace(setting, pools=tuple(_pool(setting, roles, role) for role in ROLES))
    named = zip(ROLES, plan.gpus, plan.pools)
    return replace(setting, pools=tuple(_pool(setting, roles, role, gpu, pool.devices) for role, gpu, pool in named))


def _pool(setting: Setting, roles: Roles, role: str, gpu: str = "", size: int = 0) -> Setting:
    """The setting of one role; gpu, size: where it has GPUs of its own."""
    cluster = _own(gpu, size, setting.cluster) if gpu else setting.cluster
    row = engine_of(
        roles.engine, {**roles.settings, **roles.own.get(role, {})}, cluster, setting.max_model_len, int(setting.workload.prompt.max())
    )
    row = setting.profile.factors.on_host(row) if setting.profile else row
    pool = replace(setting, cluster=cluster, engine=row)
    if not gpu:
        return pool
    fresh = pricer_for(row, cluster, setting.pricer.load).scaled(setting.pricer.factors)
    tiers = tuple(tier.on(cluster.gpu) for tier in setting.offload)
    return replace(pool, pricer=fresh, price=price_of(roles.price, cluster.gpu), offload=tiers)


def _own(gpu: str, size: int, beside: Cluster) -> Cluster:
    """A cluster of a pool's own GPUs, in nodes as large as those beside it."""
    found = load_gpu(gpu)
    per_node = min(size, beside.per_node)
    if size % per_node:
        what = f"{size} × {found.name} do not fill nodes of {per_node} GPUs"
        raise InputError(what, "--plan", f"give the pool a multiple of {per_node} GPUs")
    return Cluster(found, per_node, size // per_node)


def checked_split(setting: Setting, plan: Split) -> None:
    """Raise InputError where the two pools of a plan contradict each other or the cluster."""
    own = sum(pool.devices for pool, gpu in zip(plan.pools, plan.gpus) if not gpu)
    size, name = setting.cluster.size, setting.cluster.gpu.name
    if own > size:
        raise InputError(f"{plan.shorthand} takes {own} × {name}, the cluster has {size}", "--plan", f"use --gpus {own} or smaller pools")
    if own < size:
        more = f"use --gpus {own}" if own else "name only the other GPU, or give the pools no GPU of their own"
        raise InputError(f"{plan.shorthand} takes {own} of {size} × {name}", "--plan", f"{more}, or more workers")
    first, last = setting.of(plan)
    broken = refused(setting.model, plan, first.engine, last.engine, setting.connector)
    if broken:
        raise InputError(broken.reason, "--plan", "give both pools the same")
    for one, role in ((first, "prefill"), (last, "decode")):
        if not one.cluster.gpu.nic.bandwidth > 0:
            raise InputError(f"the {role} pool has no network: its cache cannot be sent", "--nic", "give its speed, e.g. 400Gb")
