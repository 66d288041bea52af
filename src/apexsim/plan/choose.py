"""From a user's words to an engine row and number formats (floor 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apexsim.engines import EngineRow, load_engine, override, settled
from apexsim.errors import InputError
from apexsim.hardware import Cluster
from apexsim.model.dtypes import dtype
from apexsim.model.model import Model
from apexsim.model.precision import refuse
from apexsim.plan.plan import Precision

CACHES = ("bf16", "fp16", "fp32", "fp8", "int8")


def engine_of(spec: str, settings: Mapping[str, Any], cluster: Cluster, length: int) -> EngineRow:
    """The engine's row with the user's settings and all defaults decided."""
    row = override(load_engine(spec), **settings)
    return settled(row, cluster.gpu.memory_bytes, cluster.gpu.name, length)


def precision_of(model: Model, weight: str | None, activation: str | None, kv: str | None) -> Precision:
    """Number formats: the user's, else the checkpoint's; quantised parts stay as the checkpoint has them.

    What the checkpoint says and nobody knows is refused, unless the user says it."""
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
    return Precision(model.weight_dtypes, dtype(model.dtype).name, act, cache)
