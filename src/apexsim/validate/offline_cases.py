"""Offline throughput: all requests queued at once, fixed lengths (floor 5).

The rows state no engine settings, so the engine's defaults for offline runs are assumed and said: as many sequences as the cache
holds up to OFFLINE_SEQS per lane, and the largest default budget.  Lengths are constant by construction of the measurement.
Where a row of a model with experts names no expert parallel size, it is that of its tensor parallel one with attention data
parallel: so the commands say that are published with these figures (NVIDIA/TensorRT-LLM, perf-overview.md at 00f37686 and 03e27c7d).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from apexsim.engines import load_engine, override, settled
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.parts import routed
from apexsim.plan.plan import Layout, Plan
from apexsim.validate.cases import Case, formats, labels_of
from apexsim.validate.facts import spelled, suspect
from apexsim.validate.rows import REQUESTS, WIDEST, Cells, Row, Skipped, needed, number, share, whole
from apexsim.workload.trace import Workload

OFFLINE_SEQS, OFFLINE_TOKENS = 2048, 8192  # per lane: max_batch_size and max_num_tokens of the benchmark's own guide
CAPTURED = (1, 2, 4, 8, 16, 32, 64, 128, 256, 384, 512, 1024, 2048, 4096, 8192)  # batches of CUDA graphs that the guide's options name


def offline(row: Row, where: Path) -> Case | Skipped:
    """One row of maximum offline throughput."""
    row = Cells({"mode": "offline", **row})  # what is known of such runs holds for files without the column too
    stages = max(1, whole(row, "pp", 1, most=WIDEST))
    labels = labels_of(row, "trtllm", spelled(row, "gpu"), layout="PP" if stages > 1 else "TP", suspect=suspect(row))
    if not row["config"]:
        return Skipped(row["id"], "the row names no model that is known", labels)
    gpu = load_gpu(row["gpu"])
    model, precision, assumed = formats(row, row["config"], spelled(row, "precision"), gpu)
    attention, ffn = layouts(row, routed(model))
    plan = Plan(1, stages, attention, ffn, precision)
    gpus = whole(row, "gpus", plan.devices, 1, WIDEST)
    if plan.devices != gpus:
        plan = Plan(share(row, gpus, "tp", plan.devices), stages, attention, ffn, plan.precision)
    cluster = Cluster(gpu, plan.devices)
    isl, osl, count = needed(row, "isl"), needed(row, "osl"), needed(row, "num_requests", most=REQUESTS)
    work = Workload(row["id"], np.zeros(count), np.full(count, isl, np.int64), np.full(count, osl, np.int64), "offline")
    budget = max(OFFLINE_TOKENS, isl + OFFLINE_SEQS)  # a whole prompt must fit beside a full batch of decodes
    engine = override(load_engine("tensorrt-llm"), max_num_seqs=OFFLINE_SEQS, max_num_batched_tokens=budget, tokenise_s=0.0, pad=CAPTURED)
    engine = settled(engine, gpu.memory_bytes, gpu.name, isl + osl)
    measured = {"out_tok_s_per_gpu": number(row, "out_tok_s_per_gpu")}
    return Case(row["id"], model, cluster, engine, plan, work, isl + osl, measured, labels, notes=assumed)


def layouts(row: Row, mixture: bool) -> tuple[Layout, Layout]:
    """Attention and FFN of a row: attention data parallel over ep ranks where the row says so, or leaves ep open."""
    tp, dp, ep = (max(1, whole(row, key, 1, most=WIDEST)) for key in ("tp", "attn_dp", "ep"))
    if mixture and not spelled(row, "ep") and tp > 1:
        dp = ep = tp
    width = max(tp, dp, ep)
    attention = Layout(dp, share(row, width, "attn_dp", dp)) if dp > 1 else Layout(1, width)
    if not mixture:
        return attention, Layout(1, width)
    return attention, Layout(1, share(row, width, "ep", ep), ep)
