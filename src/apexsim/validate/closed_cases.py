"""Closed loops: a number of users, each sending its next request when one finishes (floor 5)."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from apexsim.drafting import METHODS, MOST, Drafting
from apexsim.engine.types import AHEAD
from apexsim.engines import server_named
from apexsim.hardware import Cluster, load_gpu
from apexsim.plan.plan import Layout, Plan
from apexsim.validate.cases import Case, accepted, engine_for, formats, labels_of, measured, rules_of, spread
from apexsim.validate.facts import scripted, settings, spelled, stall, suspect
from apexsim.validate.rows import REQUESTS, USERS, WIDEST, Row, Skipped, needed, number, whole
from apexsim.workload.synth import inferencex_population
from apexsim.workload.trace import Workload

TIMES = {f"{name}_{stat}_ms": f"{name}_{stat}_ms" for name in ("ttft", "tpot", "e2e") for stat in ("mean", "median")}
BUDGETS = ("launch_chunked_prefill_size", "eff_token_budget", "launch_max_num_tokens", "launch_max_num_batched_tokens")
NO_DRAFTS = "speculative decoding, and not how many drafts"
_population_of = lru_cache(maxsize=256)(inferencex_population)  # the same lengths serve every layout of a sweep


def closed_loop(row: Row, where: Path) -> Case | Skipped:
    """A row of InferenceX-style closed-loop results."""
    labels = labels_of(
        row,
        row["backend"],
        system_of(row),
        origin=spelled(row, "origin"),
        concurrency=row["concurrency"],
        suspect=suspect(row),
        version=spelled(row, "backend_version"),
    )
    if reason := _obstacle(row):
        return Skipped(row["id"], reason, labels)
    gpu = load_gpu(system_of(row))
    model, precision, assumed = formats(row, row["config"], spelled(row, "precision"), gpu, spelled(row, "launch_kv_dtype"))
    attention, ffn = scripted(row, whole(row, "attn_tp", 1, 1, WIDEST)) or spread(row, model)
    replicas, stages = (max(1, whole(row, key, 1, most=WIDEST)) for key in ("replicas", "pp"))
    plan = Plan(replicas, stages, attention, ffn, precision, draft=drafted(row))
    work = population(row)
    length = max(whole(row, "launch_max_model_len"), work.longest)
    rules, note = rules_of(row["backend"], spelled(row, "backend_version"), spelled(row, "measured_date"))
    engine = engine_for(rules, _launched(row, attention.dp), gpu, length)
    return Case(
        row["id"],
        model,
        Cluster(gpu, plan.devices),
        engine,
        plan,
        work,
        length,
        measured(row, TIMES),
        labels,
        notes=assumed + note,
        accepts=accepted(engine.name, row, plan.draft),
        stall=stall(row),
    )


def system_of(row: Row) -> str:
    """The GPU that a row names, in its own column or the one beside it."""
    return spelled(row, "system") or spelled(row, "gpu")


def _obstacle(row: Row) -> str:
    """Why a row cannot be predicted, or ""."""
    checks = (
        (not spelled(row, "config"), "the row names no model that is known"),
        (not server_named(row["backend"]), f"unknown engine '{row['backend']}'"),
        ((row.get("spec") or "none") != "none" and drafted(row) is None, NO_DRAFTS),
    )
    return next((reason for holds, reason in checks if holds), "")


def drafted(row: Row) -> Drafting | None:
    """How a row's server drafted; None where it did not, or not in a way that is modelled."""
    tokens, method = whole(row, "draft_tokens", most=MOST) if row.get("draft_tokens") else 0, (row.get("spec") or "").lower()
    return Drafting(method, tokens) if tokens and method in METHODS else None


def population(row: Row) -> Workload:
    """The requests: prompt lengths are drawn without the chat template, which is then added to each."""
    isl, osl, users, template = (
        needed(row, "isl"),
        needed(row, "osl"),
        needed(row, "concurrency", most=USERS),
        whole(row, "template_tokens"),
    )
    count = whole(row, "num_prompts", most=REQUESTS) or 10 * users
    if spelled(row, "len_dist").startswith("uniform"):
        prompt, output = _population_of(isl - template, osl, count)
        prompt = prompt + template
    else:
        prompt, output = np.full(count, isl, np.int64), np.full(count, osl, np.int64)
    return Workload(row["id"], np.zeros(count), prompt, output, "closed", users)


def captured(most: int) -> tuple[int, ...]:
    """Batches of CUDA graphs up to the largest one that was launched with."""
    return (*(n for n in (1, 2, 4) if n <= most), *range(8, most + 1, 8))


def _launched(row: Row, lanes: int) -> dict[str, Any]:
    """Engine settings that were in force: columns `launch_*` and, where defaults were resolved, `eff_*`; then what is known beside.

    `launch_decode_steps` changes nothing: SGLang took the loop of several decode steps out in November 2024.
    """
    fraction, backend = number(row, "launch_gpu_mem_frac"), row["backend"]
    found: dict[str, Any] = {
        "max_num_batched_tokens": next(filter(None, (whole(row, key) for key in BUDGETS)), None),
        "max_num_seqs": whole(row, "eff_max_seqs") or whole(row, "launch_max_num_seqs") or None,
        "memory_fraction": None if math.isnan(fraction) else fraction,
    }
    if backend == "vllm":
        found["lag"] = AHEAD if row.get("launch_async_sched") == "True" else None
        found["capture"] = whole(row, "launch_cudagraph") or None
    if backend == "sglang":
        found["poll_interval"] = whole(row, "launch_sched_recv_interval") or None
        found["prefill_limit"] = whole(row, "launch_max_prefill_tokens") or None
    if backend in ("sglang", "trtllm"):
        found["pad"] = captured(whole(row, "launch_cudagraph")) or None
    if backend == "trtllm":
        found["batch_wait_iters"] = whole(row, "launch_batch_wait") or None
    return found | settings(row, lanes, max(1, whole(row, "concurrency")))


# ---- results of a serving benchmark, settings in words ------------------------------------------------------------------

BENCH = {
    f"{name}_{stat}_ms": f"{stat}_{word}_ms"
    for name, word in (("ttft", "ttft"), ("tpot", "tpot"), ("e2e", "e2el"))
    for stat in ("mean", "median")
}
WORDS = {  # setting -> how a description says it
    "model": r"^\s*([\w.-]+)", "version": r"\bvLLM (\d[\w.]*)", "gpus": r"(\d+)x[A-Z]", "gpu": r"\d+x([A-Z]\w+)", "tp": r"\bTP(\d+)",
    "max_num_seqs": r"max-num-seqs (\d+)", "max_num_batched_tokens": r"max-num-batched-tokens (\d+)", "isl": r"\bISL (\d+)",
    "osl": r"\bOSL (\d+)", "low": r"U\[([\d.]+),",
}  # fmt: skip


def described(row: Row, at: int, where: Path) -> Case | Skipped:
    """A result file of `vllm bench serve` as a row, with the server described in the column `config`."""
    told = {key: (found[1] if (found := re.search(pattern, row["config"])) else "") for key, pattern in WORDS.items()}
    users, name = needed(row, "max_concurrency", most=USERS), f"{spelled(row, 'label') or spelled(row, 'date')}-{at}"
    labels = {"engine": row["backend"], "gpu": told["gpu"], "model": told["model"], "concurrency": str(users), "suspect": suspect(row)}
    missing = [key for key in ("model", "gpu", "isl", "osl") if not told[key]]
    if missing:
        return Skipped(name, f"the column 'config' does not say its {', '.join(missing)}", labels)
    if "spec" in spelled(row, "set"):
        return Skipped(name, NO_DRAFTS, labels)
    gpu, width = load_gpu(told["gpu"]), int(told["tp"] or 1)
    model, precision, assumed = formats(row, told["model"], "", gpu)
    prompt, output = inferencex_population(int(told["isl"]), int(told["osl"]), whole(row, "num_prompts", 10 * users, 1, REQUESTS))
    work = Workload(name, np.zeros(len(prompt)), prompt, output, "closed", users)
    rules, note = rules_of(row["backend"], told["version"])
    given = {key: int(told[key]) if told[key] else None for key in ("max_num_seqs", "max_num_batched_tokens")}
    engine = engine_for(rules, given, gpu, work.longest)
    plan = Plan(1, 1, Layout(tp=width), Layout(tp=width), precision)
    return Case(
        name, model, Cluster(gpu, plan.devices), engine, plan, work, work.longest, measured(row, BENCH), labels, notes=assumed + note
    )
