"""Prefill and decode apart: rows of served pools (floor 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from apexsim.engines import EngineRow
from apexsim.gpu import Gpu
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.model import Model
from apexsim.plan.plan import GATHERED, Layout, Plan, Precision
from apexsim.search.apart import Handover, handover_of
from apexsim.validate.cases import Case, accepted, engine_for, formats, labels_of, measured, rules_of, spread
from apexsim.validate.closed_cases import NO_DRAFTS, captured, drafted, population
from apexsim.validate.facts import spelled, suspect
from apexsim.validate.open_cases import arrivals
from apexsim.validate.rows import WIDEST, Row, Skipped, number, whole
from apexsim.workload.trace import Workload

GATHERS = {  # (pool, backend of the experts) -> GPUs up to which it gathers all tokens
    ("", "deepep"): 1, ("", "mori"): 1, ("", "flashinfer"): WIDEST, ("prefill", "DEEPGEMM"): 1,
}  # fmt: skip
MEASURED = {"ttft_median_ms": "ttft_median_ms", "tpot_median_ms": "tpot_median_ms", "e2e_median_ms": "e2e_median_ms"}


@dataclass(frozen=True, slots=True)
class Apart:
    """One measured run of two pools, to be simulated; each as the case that it would be by itself."""

    id: str
    prefill: Case
    decode: Case
    handover: Handover
    measured: dict[str, float]
    labels: dict[str, str]
    notes: tuple[str, ...] = field(default=())


def apart(row: Row, where: Path) -> Apart | Skipped:
    """A row of a closed loop on two pools, in the style of InferenceX."""
    shape = f"{spelled(row, 'prefill_workers')}P{spelled(row, 'decode_workers')}D"
    labels = labels_of(
        row,
        row["backend"],
        row["system"],
        origin=row["origin"],
        concurrency=row["concurrency"],
        suspect=suspect(row),
        version=spelled(row, "backend_version"),
        layout=shape,
        workload=row["regime"],
        quant=row["precision"],
    )
    draft, gpu = drafted(row), load_gpu(row["system"])
    if number(row, "draft_tokens", 0.0) > 0 and draft is None:
        return Skipped(row["id"], NO_DRAFTS, labels)
    labels |= {"drafts": f"{draft.method}, {gpu.vendor}"} if draft else {}
    model, precision, assumed = formats(row, row["config"], row["precision"], gpu, spelled(row, "kv_dtype"))
    work = population(row)
    rules, note = rules_of(row["backend"], spelled(row, "backend_version"), spelled(row, "measured_date"))
    one, two = (pool_of(row, side, model, precision, rules, gpu, work, labels) for side in ("prefill", "decode"))
    two = replace(two, plan=replace(two.plan, draft=draft))
    one, two = (replace(case, accepts=accepted(case.engine.name, row, draft)) for case in (one, two))
    found = measured(row, MEASURED) | {"out_tok_s_per_gpu": number(row, "tput_out_per_gpu")}
    told = {name: value for name, value in found.items() if not math.isnan(value)}
    return Apart(row["id"], one, two, handover_of(two.engine, two.cluster), told, labels, assumed + note)


def pool_of(
    row: Row, side: str, model: Model, precision: Precision, rules: EngineRow, gpu: Gpu, work: Workload, labels: dict[str, str]
) -> Case:
    """One pool as its columns say."""
    plan = _plan(row, side, model, precision)
    engine = engine_for(rules, _settings(row, side, plan, work), gpu, work.longest)
    return Case(f"{row['id']} {side}", model, Cluster(gpu, plan.devices), engine, plan, work, work.longest, {}, labels)


def _plan(row: Row, side: str, model: Model, precision: Precision) -> Plan:
    """The plan of a pool.  Tables give a mean tensor parallel width where redundant experts take more GPUs than there are lanes: then every
    GPU is a lane."""
    workers = whole(row, f"{side}_workers", 1, 1, WIDEST)
    each = whole(row, f"{side}_gpus", 1, 1, WIDEST) // workers
    gathers = gathered_by(side, spelled(row, f"{side}_moe_backend") or spelled(row, "kv_transfer"))
    if number(row, f"{side}_attn_tp", 1.0) % 1:
        return Plan(workers, 1, Layout(dp=each), Layout(ep=each), precision, gathers=gathers)
    named = ("attn_tp", "attn_dp", "moe_tp", "moe_ep")
    attention, ffn = spread({**row, **{key: spelled(row, f"{side}_{key}") for key in named}}, model)
    return Plan(workers, 1, attention, ffn, precision, gathers=gathers)


def gathered_by(side: str, backend: str) -> int:
    """GPUs up to which a backend of the experts gathers all tokens; beyond it they travel."""
    return next((width for (where, name), width in GATHERS.items() if where in ("", side) and backend.startswith(name)), GATHERED)


def _settings(row: Row, side: str, plan: Plan, work: Workload) -> dict[str, Any]:
    """Settings of a pool's engine: TensorRT-LLM's are of a rank, SGLang's of a worker, which shares them among its lanes."""
    lanes = plan.lanes if row["backend"] == "sglang" else 1
    seats, tokens = whole(row, f"{side}_max_seqs"), whole(row, f"{side}_max_tokens")
    fraction, graphs = number(row, f"{side}_gpu_mem_frac"), whole(row, "decode_cudagraph_max")
    found: dict[str, Any] = {
        "max_num_seqs": max(1, seats // lanes) if seats else None,
        "max_num_batched_tokens": max(1, tokens // lanes) if tokens else None,
        "memory_fraction": None if math.isnan(fraction) else fraction,
    }
    graphs = graphs or (seats if row["backend"] == "trtllm" else 0)  # the recipes capture up to max_batch_size
    if side == "decode" and graphs:
        found["pad"] = captured(graphs)
    return found | {"lag": 1} if row["backend"] == "sglang" else found


# ---- open loops -----------------------------------------------------------------------------------------------------------

EVEN = "gamma"  # arrivals of a burstiness of 50 and more: an even pace


def apart_open(row: Row, where: Path) -> Apart | Case | Skipped:
    """A row of an open loop on two pools, or on replicas of the same GPUs beside them."""
    labels = labels_of(
        row,
        row["backend"],
        row["gpu"],
        workload=f"{spelled(row, 'isl')}/{spelled(row, 'osl')}",
        layout=row["mode"],
        rate=spelled(row, "rate_rps"),
        suspect=suspect(row),
    )
    gpu, count, width = load_gpu(row["gpu"]), whole(row, "num_requests", 1, 1), Layout(tp=whole(row, "attn_tp", 1, 1, WIDEST))
    model, precision, assumed = formats(row, row["config"], row["precision"], gpu)
    rate, flat = number(row, "rate_rps"), np.ones(count, np.int64)
    arrive = np.arange(count) / rate if row["arrival"].startswith(EVEN) else arrivals(rate, count)
    work = Workload(row["id"], arrive, flat * whole(row, "isl", 1, 1), flat * whole(row, "osl", 1, 1))
    rules, note = rules_of(row["backend"], row["backend_version"].lstrip("~").partition(" ")[0], spelled(row, "date"))
    found = measured(row, MEASURED | {"out_tok_s_per_gpu": "out_tok_s"})
    if "out_tok_s_per_gpu" in found:
        found["out_tok_s_per_gpu"] /= whole(row, "gpus", 1, 1, WIDEST)

    def pool(workers: int, eager: bool) -> Case:
        plan = Plan(workers, 1, width, width, precision)
        engine = engine_for(rules, {"pad": ()} if eager else {}, gpu, work.longest)
        return Case(row["id"], model, Cluster(gpu, plan.devices), engine, plan, work, work.longest, found, labels, notes=assumed + note)

    if row["mode"] != "disaggregated":
        return pool(whole(row, "replicas", 1, 1, WIDEST), False)
    one = pool(whole(row, "prefill_workers", 1, 1, WIDEST), False)
    two = pool(whole(row, "decode_workers", 1, 1, WIDEST), "enforce-eager" in row["notes"])
    return Apart(row["id"], one, two, handover_of(two.engine, two.cluster), found, labels, assumed + note)
