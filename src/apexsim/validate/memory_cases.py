"""Rows of start-up logs: weights, KV tokens and admission predicted from launch flags alone (floor 5).

Metrics: `weights_gib`; `kv_tokens` from the flags, only where the GPU's memory is known; `kv_tokens_given_kv_gib` from the
KV memory that the log states; `fits` 0 or 1.  Also: `kv_gib`, and `kv_in_interval`, whether the log lies in the interval stated with it.
Nothing is simulated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apexsim.engines import HOLDS_PROMPT, EngineRow, closest, load_engine, override, settled
from apexsim.errors import InputError, Rejected
from apexsim.gpu import Gpu
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.cell import LINEAR
from apexsim.model.model import Model
from apexsim.model.parts import routed
from apexsim.model.precision import format_in_name, formats_from_name
from apexsim.model.served import label_word
from apexsim.plan.memory import Room, room, size
from apexsim.plan.plan import Layout, Plan, Precision
from apexsim.plan.pool import kv_pool, token_line
from apexsim.plan.weights import Stage, stage_weights, stages_of
from apexsim.units import GiB
from apexsim.validate.cases import labels_of
from apexsim.validate.facts import spelled, suspect
from apexsim.validate.rows import WIDEST, Answered, Row, Skipped, amount, flag, model_named, number, share, whole

KNOWN = ("log", "stated", "repo")  # beginnings of `gpu_known` where the GPU was seen, not inferred
LONG = 32768  # tokens
LARGEST = 1e5  # GiB of a GPU: more is a slip
OLD = "0.6.0"  # the rules of vLLM's V0 engine
DRAFTS = 2  # draft tokens where a log shows speculative decoding but not how many (the engines' recipe for MTP)
HEADLESS = ("embedding", "reranker")  # words in the names of checkpoints that answer with vectors
SAME_TOTAL = 0.02  # a catalogue GPU stands for the row's unless their memories differ by more than this
# What the logs' `quant` column means for the linear layers; the rest stays in 16 bit.  "experts" applies to those alone.
QUANT: dict[str, dict[str, str]] = {
    "w8a8": dict.fromkeys(LINEAR, "w8a8"),
    "w4a8": {**dict.fromkeys(LINEAR, "w8a8"), "experts": "w4a8"},
    "int4": dict.fromkeys(LINEAR, "int4"),
    "fp8": dict.fromkeys(LINEAR, "fp8"),
    "fp8_block": dict.fromkeys(LINEAR, "fp8_block"),
    "awq": dict.fromkeys(LINEAR, "awq"),
    "nf4": dict.fromkeys(LINEAR, "nf4"),
    "fp8_tensor": dict.fromkeys(LINEAR, "fp8"),
    "int8": dict.fromkeys(LINEAR, "int8"),
    "mxfp4": {"experts": "mxfp4"},
    "nvfp4": dict.fromkeys((part for part in LINEAR if part != "attention"), "nvfp4"),
}


@dataclass(frozen=True, slots=True)
class LaunchedServer:
    """One launch: what the flags say, resolved."""

    model: Model
    gpu: Gpu
    plan: Plan
    engine: EngineRow
    length: int


def id_of(row: Row) -> str:
    """The checkpoint that a row names; its configuration where it names none."""
    return spelled(row, "model_id") or row["config"]


def formats_of(row: Row, model: Model) -> tuple[tuple[str, str], ...]:
    """Number formats of the weights: the row's, else those that its checkpoint's name states, else the config's."""
    named = format_in_name(id_of(row).replace("/", "-"))
    given = (row.get("quant") or "").strip().lower()
    wanted = QUANT.get(given) or QUANT.get(label_word(given)) or (dict.fromkeys(LINEAR, named) if named else None)
    return model.weight_dtypes if wanted is None else tuple(sorted(wanted.items()))


def cache_of(row: Row, model: Model) -> str:
    """Number format of the KV cache: the row's, else that of the checkpoint that its id names."""
    stated = (row.get("kv_dtype") or "").strip()
    if word := label_word(stated):
        return "fp8" if word.startswith("fp8") else "bf16"
    return formats_from_name(id_of(row), model).kv or "bf16"


def _gib(row: Row, key: str, least: float = 0.0) -> float:
    """A cell of so much memory; NaN where it is empty."""
    return amount(row, key, least, LARGEST) if not math.isnan(number(row, key)) else math.nan


def gpu_of(row: Row) -> Gpu | None:
    """The catalogue's GPU, or one of the stated memory where the catalogue has none such; None = unknown."""
    name, total = (row.get("gpu") or "").strip(), _gib(row, "gpu_total_gib", 1.0)
    try:
        found = load_gpu(name)
    except InputError:
        found = None
    if found and (math.isnan(total) or abs(found.memory_bytes / GiB / total - 1.0) < SAME_TOTAL):
        return found
    if math.isnan(total):
        return None
    return replace(found or load_gpu("l4"), name=name or "unknown", memory_bytes=total * GiB)


def engine_row(row: Row) -> EngineRow:
    """The engine's rules at the row's version; the V0 engine of later releases has those of 0.6."""
    name, version = row["engine"], (row.get("version") or "").strip()
    if name == "vllm" and "V0" in version:
        return load_engine(f"{name}@{OLD}")
    match = re.search(r"\d+\.\d+(?:\.\d+)?", version.replace("1x", "10"))
    if not match:
        return load_engine(name)
    return closest(f"{name}@{match[0]}")


def _plan(row: Row, model: Model, precision: Precision) -> Plan:
    """The launch's layout: SGLang's data parallel attention lies inside tp; its experts are then expert parallel."""
    tp, dp, stages = whole(row, "tp", 1, 1, WIDEST), max(1, whole(row, "dp", 1, most=WIDEST)), max(1, whole(row, "pp", 1, most=WIDEST))
    spread = routed(model) and (flag(row, "ep") or (row["engine"] == "sglang" and dp > 1))
    if row["engine"] == "sglang" and dp > 1:
        attention, tp = Layout(dp, share(row, tp, "dp", dp)), tp
    else:
        attention = Layout(1, tp)
    return Plan(1, stages, attention, Layout(ep=tp) if spread else Layout(tp=tp), precision)


def _settings(row: Row) -> dict[str, Any]:
    given: dict[str, Any] = {key: whole(row, key) or None for key in ("max_num_seqs", "max_num_batched_tokens", "block_size")}
    share = number(row, "util")
    given["memory_fraction"] = None if math.isnan(share) else share
    given["pad"] = () if flag(row, "enforce_eager") else None
    given["draft_tokens"] = DRAFTS if row.get("spec_decode") else None
    return given


def server(row: Row) -> LaunchedServer:
    """The launch that a row describes."""
    model, gpu = model_named(row["config"]), gpu_of(row)
    if any(word in id_of(row).lower() for word in HEADLESS):
        model = replace(model, has_head=False)
    precision = Precision(formats_of(row, model), "bf16", "auto", cache_of(row, model))
    length = whole(row, "max_model_len") or model.max_length
    unknown = gpu is None
    gpu = gpu or load_gpu("h100-sxm")
    engine = _engine(row, gpu, length)
    gpu = replace(gpu, memory_bytes=math.nan) if unknown else gpu
    return LaunchedServer(model, gpu, _plan(row, model, precision), engine, length)


def _engine(row: Row, gpu: Gpu, length: int) -> EngineRow:
    """The row's rules and flags; V0 chunked prompts by itself beyond 32k tokens, and otherwise took the longest whole."""
    rules, given = engine_row(row), _settings(row)
    if 0 < rules.length_budget < HOLDS_PROMPT and (given["max_num_batched_tokens"] or length) < length > LONG:
        given["chunk"] = 1
    return settled(override(rules, **given), gpu.memory_bytes, gpu.name, length)


def given_tokens(it: LaunchedServer, kv: float) -> int:
    """The line "GPU KV cache size" where the log's KV memory is given [tokens]: that of the fullest stage."""
    return min(_stage_tokens(it, stage, kv) for stage in stages_of(it.model, it.plan.stages))


def _stage_tokens(it: LaunchedServer, stage: Stage, kv: float) -> int:
    pool = kv_pool(it.plan, stage, it.engine)
    return token_line(pool, int(kv // pool.block_bytes), it.length, it.engine)


def _add(metrics: dict[str, Any], name: str, measured: float, predicted: float) -> None:
    if not math.isnan(measured):
        metrics[name] = {"measured": measured, "predicted": predicted}


def memory_row(row: Row, where: Path) -> Answered | Skipped:
    """A start-up log's row, answered."""
    labels = labels_of(row, row["engine"], spelled(row, "gpu"), quant=row.get("quant") or "-", suspect=suspect(row))
    if not spelled(row, "config"):
        return Skipped(row["id"], "the row names no model that is known", labels)
    it = server(row)
    metrics: dict[str, Any] = {}
    weights = max(stage_weights(it.model, it.plan, s, it.engine) for s in stages_of(it.model, it.plan.stages))
    loaded = it.engine.memory.dispatch_bytes if it.plan.ffn.ep > 1 else 0.0  # SGLang logs what loading took in all
    _add(metrics, "weights_gib", _gib(row, "weights_gib"), (weights + loaded) / GiB)
    kv, tokens = _gib(row, "kv_gib"), number(row, "kv_tokens")
    if not math.isnan(kv):
        _add(metrics, "kv_tokens_given_kv_gib", tokens, given_tokens(it, kv * GiB))
    if row["gpu_known"].startswith(KNOWN) and not math.isnan(it.gpu.memory_bytes):
        labels |= _end_to_end(row, it, metrics)
    return Answered(row["id"], metrics, labels)


def _end_to_end(row: Row, it: LaunchedServer, metrics: dict[str, Any]) -> Mapping[str, str]:
    """Adds what follows from flags alone; whether the log's KV memory lies in the stated interval."""
    where = (it.model, it.plan, Cluster(it.gpu, it.plan.devices), it.engine, it.length)
    found, admitted = size(*where), room(*where)
    starts = isinstance(found, Room) and (isinstance(admitted, Room) or not it.engine.memory.refuses)
    _add(metrics, "fits", float(row["outcome"] == "ok"), float(starts))
    if isinstance(found, Rejected):
        return {"refused": found.reason}
    kv = _gib(row, "kv_gib")
    _add(metrics, "kv_tokens", number(row, "kv_tokens"), found.tokens)
    _add(metrics, "kv_gib", kv, found.kv_bytes / GiB)
    low, high = found.kv_range
    if not math.isnan(kv):
        _add(metrics, "kv_in_interval", 1.0, float(low <= kv * GiB <= high))
    return {}
