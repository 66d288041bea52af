"""Rows of measured systems as cases: a setting to simulate and what was measured (floor 5).

One function per kind of row (`validate.kinds`).  A row that cannot be replayed becomes a `Skipped` with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from apexsim.engine.types import AHEAD
from apexsim.engines import EngineRow, closest, override, server_named, settled
from apexsim.errors import InputError
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.model import Model
from apexsim.model.names import model_names
from apexsim.model.parts import routed
from apexsim.plan.plan import Layout, Plan, Precision
from apexsim.validate.rows import MOST, WIDEST, Row, Skipped, flag, model_named, number, whole
from apexsim.workload.stream import read_trace
from apexsim.workload.synth import inferencex_population
from apexsim.workload.trace import Workload


@dataclass(frozen=True, slots=True)
class Case:
    """One measured run."""

    id: str
    model: Model
    cluster: Cluster
    engine: EngineRow
    plan: Plan
    workload: Workload
    max_model_len: int
    measured: dict[str, float]
    labels: dict[str, str]  # engine, gpu, model, and whatever a file groups by
    custom_all_reduce: bool = True
    notes: tuple[str, ...] = field(default=())
    known: dict[str, dict[str, float]] = field(default_factory=dict)  # metrics that need no simulation: measured, predicted


def measured_ms(row: Row, pairs: Mapping[str, str], scale: float = 1.0) -> dict[str, float]:
    """What the row measured: metric name -> value, empty cells left out."""
    found = {name: number(row, column) * scale for name, column in pairs.items()}
    for name, value in found.items():
        if value < 0 or value > LONGEST_MS:
            raise InputError(f"'{pairs[name]}' is no measured time: {row[pairs[name]]}", f"row {row.get('id', '')}".strip())
    return {name: value for name, value in found.items() if not math.isnan(value)}


# ---- closed loop --------------------------------------------------------------------------------------------------------

# First releases after which a rule set held, for rows that do not say their version: (date, version), newest last.
RELEASED = {"vllm": (("2025-07-24", "0.10.0"), ("2025-10-02", "0.11.0"), ("2025-12-03", "0.12.0"), ("2026-03-06", "0.17.0")),
            "sglang": (("2025-12-03", "0.5.6"), ("2026-04-05", "0.5.10"))}  # fmt: skip
LONGEST_MS = 1e9  # of a measured latency

# What was really served, by model family and label: formats of the parts; anything not named is `default`.  Other pairs take them from the
# bundled checkpoint of that format, and where there is none nobody knows.
SERVED: dict[tuple[str, str], dict[str, str]] = {
    ("llama", "fp8"): {"default": "fp8"},
    ("llama", "fp4"): {"default": "nvfp4"},
    ("qwen3", "fp8"): {"default": "fp8_block"},
    ("gptoss", "fp4"): {"default": "bf16", "experts": "mxfp4"},
    ("dsr1", "fp8"): {"default": "fp8_block"},
    ("dsr1", "fp4"): {"default": "nvfp4", "attention": "bf16"},
    ("qwen3.5", "fp8"): {"default": "fp8_block"},
    ("qwen3.5", "fp4"): {"default": "nvfp4", "attention": "bf16"},
    ("minimax", "fp8"): {"default": "fp8_block"},
    ("minimax", "fp4"): {"default": "bf16", "experts": "nvfp4"},
    ("kimi", "int4"): {"default": "bf16", "experts": "int4"},
    ("kimi", "fp4"): {"default": "bf16", "experts": "nvfp4"},
    ("modelopt", "fp8"): {"default": "fp8"},
    ("modelopt", "fp4"): {"default": "nvfp4"},
}
FAMILIES = ("llama", "gptoss", "dsr1", "qwen3.5", "qwen3", "minimax", "kimi")


# Checkpoints that carry a labelled format: what follows a model's name, the model itself first, and how its formats begin.
CHECKPOINTS = {"fp8": (("{0}", "{0}-FP8", "nvidia--{1}-FP8", "nvidia--{1}-Instruct-FP8"), ("fp8", "fp8_block")),
               "fp4": (("{0}", "nvidia--{1}-NVFP4"), ("nvfp4", "mxfp4")), "int4": (("{0}",), ("int4", "awq"))}  # fmt: skip


def served_precision(family: str, label: str, kv: str, config: str = "") -> Precision:
    """Number formats of a row: by its family and precision label, else those of the checkpoint; raises InputError where neither says.

    A cache without a word is what the checkpoint states: FP8 in NVIDIA's NVFP4 ones, 16 bit elsewhere."""
    name = next((f for f in FAMILIES if family.startswith(f)), family)
    if label == "bf16":
        formats = {"default": "bf16"}
    else:
        formats = dict(SERVED.get((name, label)) or _checkpoint(config, label))
    if not formats:
        raise InputError(f"the number formats of {family or config or 'the model'} in {label or 'no stated precision'} are not known", "")
    default = formats.pop("default")
    stated = kv or ("fp8" if "nvfp4" in (default, *formats.values()) else "")
    return Precision(tuple(formats.items()), default, "auto", "fp8" if stated.startswith("fp8") else "bf16")


def _checkpoint(config: str, label: str) -> dict[str, str]:
    """Formats by part of the bundled checkpoint of a model in a labelled format; {} where there is none."""
    names, kinds = CHECKPOINTS.get(label, ((), ()))
    known = set(model_names())
    for pattern in names if config else ():
        found = pattern.format(config, config.partition("--")[2])
        weights = dict(model_named(found).weight_dtypes) if found in known else {}
        if any(fmt in kinds for fmt in weights.values()):
            return {"default": "bf16", **weights}
    return {}


def _version(row: Row) -> str:
    """The row's engine version, or the newest rules before its date; "" is the newest of all."""
    given = (row.get("backend_version") or "").strip()
    if given and given[0].isdecimal():
        return given
    date, rules = row.get("measured_date") or "9999", RELEASED.get(row["backend"], (("", ""),))
    known = [v for day, v in rules if day <= date]
    return known[-1] if known else rules[0][1]


def _engine(name: str, version: str, settings: dict[str, Any], cluster: Cluster, length: int) -> EngineRow:
    row = closest(f"{name}@{version}" if version else name)
    return settled(override(row, **settings), cluster.gpu.memory_bytes, cluster.gpu.name, length)


# Until November 2025 the TensorRT-LLM launch scripts of DeepSeek-R1 chose expert parallel and attention data parallel themselves, while
# rows kept the labels ep 1 and dp 1 (runs labelled so in November and ep 8 in December agree within 0.5 % in TPOT): family, precision,
# GPU, tensor parallel -> (isl, osl) -> above how many users experts are parallel, and above how many attention is data parallel.
SCRIPTED_UNTIL = "2025-12"
SCRIPTED_EXPERTS = ("gptoss",)  # on every size and load: 15 runs on H200, labelled so in November, agree within 0.5 % with ep 2 in December
SCRIPTED: dict[tuple[str, str, str, int], dict[tuple[int, int], tuple[int, int]]] = {
    ("dsr1", "fp8", "b200_sxm", 8): {(1024, 1024): (0, 32), (1024, 8192): (0, 64), (8192, 1024): (0, 64)},
    ("dsr1", "fp8", "h200_sxm", 8): {(1024, 1024): (0, 64), (1024, 8192): (0, 64), (8192, 1024): (0, 32)},
    ("dsr1", "fp4", "b200_sxm", 4): {(1024, 1024): (32, 255), (1024, 8192): (32, 255), (8192, 1024): (32, 32)},
    ("dsr1", "fp4", "b200_sxm", 8): {(1024, 1024): (8, 255), (1024, 8192): (16, 255), (8192, 1024): (32, 32)},
}


def _scripted(row: Row, tp: int) -> tuple[Layout, Layout] | None:
    """Layouts that the launch script chose by itself; None where it took the row's."""
    if row["backend"] != "trtllm" or not "" < (row.get("measured_date") or "") < SCRIPTED_UNTIL:
        return None
    if row["family"] in SCRIPTED_EXPERTS and tp > 1 and whole(row, "attn_dp", 1) == 1:
        return Layout(tp=tp), Layout(ep=tp)
    above = SCRIPTED.get((row["family"], row["precision"], row["system"], tp), {}).get((whole(row, "isl"), whole(row, "osl")))
    if above is None or whole(row, "concurrency") <= above[0]:
        return None
    return Layout(tp, 1) if whole(row, "concurrency") > above[1] else Layout(tp=tp), Layout(ep=tp)


def _layout(row: Row, model: Model) -> tuple[Layout, Layout]:
    """Attention and FFN layouts of a closed-loop row."""
    scripted = _scripted(row, whole(row, "attn_tp", 1, 1, WIDEST))
    if scripted:
        return scripted
    attention = Layout(max(1, whole(row, "attn_dp", 1, most=WIDEST)), whole(row, "attn_tp", 1, 1, WIDEST))
    if not routed(model):
        return attention, Layout(tp=attention.devices) if attention.dp > 1 else attention
    tp, ep = max(1, whole(row, "moe_tp", 1, most=WIDEST)), max(1, whole(row, "moe_ep", 1, most=WIDEST))
    if tp * ep != attention.devices:
        tp = attention.devices // ep if attention.devices % ep == 0 else attention.devices
        ep = attention.devices // tp
    return attention, Layout(1, tp, ep)


_population_of = lru_cache(maxsize=256)(inferencex_population)  # the same lengths serve every layout of a sweep


def _population(row: Row) -> Workload:
    isl, osl, users = whole(row, "isl"), whole(row, "osl"), max(1, whole(row, "concurrency"))
    count = whole(row, "num_prompts") or 10 * users
    if row["len_dist"].startswith("uniform"):
        prompt, output = _population_of(isl, osl, count)
    else:
        prompt, output = np.full(count, isl, np.int64), np.full(count, osl, np.int64)
    return Workload(row["id"], np.zeros(count), prompt, output, "closed", users)


CLOSED = {"ttft_mean_ms": "ttft_mean_ms", "tpot_mean_ms": "tpot_mean_ms", "e2e_mean_ms": "e2e_mean_ms"}


def closed_loop(row: Row, where: Path) -> Case | Skipped:
    """A row of InferenceX-style closed-loop results."""
    labels = {"engine": row["backend"], "gpu": row["system"], "model": row["config"], "origin": row["origin"],
              "concurrency": row["concurrency"], "suspect": _suspect(row), "version": _version(row)}  # fmt: skip
    if not row["config"]:
        return Skipped(row["id"], "the row names no bundled model", labels)
    if not server_named(row["backend"]):
        return Skipped(row["id"], f"unknown engine '{row['backend']}'", labels)
    if (row.get("spec") or "none") != "none":
        return Skipped(row["id"], "speculative decoding is not modelled", labels)
    model, gpu = model_named(row["config"]), load_gpu(row["system"])
    attention, ffn = _layout(row, model)
    stages = max(1, whole(row, "pp", 1, most=WIDEST))
    # FP8 rows of the unseen harness keep an FP8 cache: the steps of long contexts and the queues of full caches say so (docs/log.md)
    unseen = "fp8" if row["origin"] == UNSEEN_HARNESS and row["precision"] == "fp8" else ""
    precision = served_precision(row["family"], row["precision"], row.get("launch_kv_dtype") or unseen, row["config"])
    plan = Plan(max(1, whole(row, "replicas", 1, most=WIDEST)), stages, attention, ffn, precision)
    cluster = Cluster(gpu, plan.devices)
    work = _population(row)
    length = max(whole(row, "launch_max_model_len"), work.longest)
    engine = _engine(row["backend"], _version(row), _launched(row, attention.dp), cluster, length)
    return Case(row["id"], model, cluster, engine, plan, work, length, measured_ms(row, CLOSED), labels)


WAIT_RATIO = {20: 0.9, 40: 0.8}  # batch_wait_timeout_iters -> batch_wait_max_tokens_ratio of the same launch scripts
BALANCE_WAIT = 60  # attention_dp_config.timeout_iters of the launch scripts with attention data parallel
# vLLM launch scripts for Blackwell switch the fused all-reduce on, those of Llama 70B also pass cudagraph_mode FULL_DECODE_ONLY.
BLACKWELL, DECODE_GRAPHS = "b200", "70b_"
UNSEEN_HARNESS = "nvidia-aic-gap-analysis"  # its flags are not published; what its TensorRT-LLM rows need:
UNSEEN_BUDGET = 3072  # tokens of a chunk
ONE_SLOT_FEWER = ("llama8b",)  # families whose sweeps had one slot fewer than users: TTFT falls as E2E / users; others' does not


def _captured(most: int) -> tuple[int, ...]:
    """Batches of CUDA graphs up to the largest one that was launched with."""
    return (*(n for n in (1, 2, 4) if n <= most), *range(8, most + 1, 8))


def _launched(row: Row, lanes: int) -> dict[str, Any]:
    """Engine settings that were in force: the columns `launch_*` and, where defaults were resolved, `eff_*`."""
    fraction, users = number(row, "launch_gpu_mem_frac"), max(1, whole(row, "concurrency"))
    script = row.get("launch_script") or ""
    found: dict[str, Any] = {
        "max_num_batched_tokens": whole(row, "launch_chunked_prefill_size") or whole(row, "eff_token_budget") or None,
        "max_num_seqs": whole(row, "eff_max_seqs") or None,
        "memory_fraction": None if math.isnan(fraction) else fraction,
    }
    if row["backend"] == "vllm" and row.get("launch_async_sched") == "True":
        found["lag"] = AHEAD
    if row["backend"] == "sglang":
        found["poll_interval"] = whole(row, "launch_sched_recv_interval") or None
        found["prefill_limit"] = whole(row, "launch_max_prefill_tokens") or None
    if row["backend"] in ("sglang", "trtllm"):
        found["pad"] = _captured(whole(row, "launch_cudagraph")) or None
    if row["backend"] == "trtllm":
        wait = whole(row, "launch_batch_wait")
        found |= {"batch_wait_iters": wait or None, "batch_wait_ratio": WAIT_RATIO.get(wait, 0.9) if wait else None}
        found["balance_wait"] = BALANCE_WAIT if lanes > 1 else None
    if row["backend"] == "vllm" and BLACKWELL in script:
        found |= {"fused_all_reduce": "blackwell", "prompt_graphs": 0 if DECODE_GRAPHS in script else None}
    if row["origin"] == UNSEEN_HARNESS:  # it sends token ids: nothing to tokenise
        found["tokenise_s"] = 0.0
        if row["backend"] == "trtllm":
            found |= {"chunk": 1, "max_num_batched_tokens": UNSEEN_BUDGET}
            found |= {"max_num_seqs": max(1, users - 1)} if row["family"] in ONE_SLOT_FEWER else {}
    return found


def _suspect(row: Row) -> str:
    """Rows whose measurement is known to be off, to be scored apart."""
    if row["family"] == "gptoss" and row["system"] == "h100_sxm" and number(row, "concurrency") >= 512:
        return "client saturated"
    if row["backend"] == "sglang" and row["family"] == "dsr1" and row["system"] == "b200_sxm" and not row["warmup"].startswith("2"):
        return "no warm-up"
    if row["origin"] == UNSEEN_HARNESS and row["backend"] == "vllm":  # several prompts are read faster than the GPU's peak
        return "prefix hits"
    return ""


# ---- open loop ----------------------------------------------------------------------------------------------------------

OPEN = {"ttft_mean_ms": "ttft_mean_s", "itl_mean_ms": "itl_mean_s", "e2e_mean_ms": "e2e_mean_s"}


def open_loop(row: Row, where: Path) -> Case | Skipped:
    """A row that names a file of timed requests; one replica of a deployment."""
    labels = {"engine": row["engine"], "gpu": row["gpu"], "model": row["config"], "workload": row["workload"],
              "rate": row["rate"], "layout": f"{row['dp']}DP{row['tp']}TP"}  # fmt: skip
    if not row["config"]:
        return Skipped(row["id"], "the row names no bundled model", labels)
    work = read_trace(str(where.parent / row["requests_file"]))
    layout = Layout(tp=whole(row, "tp", 1, 1, WIDEST))
    precision = Precision((), row["weight_dtype"], "auto", row["kv_dtype"])
    plan = Plan(1, whole(row, "pp", 1, 1, WIDEST), layout, layout, precision)
    cluster = Cluster(load_gpu(row["gpu"]), plan.devices)
    length = max(whole(row, "max_model_len"), work.longest)
    fraction = number(row, "memory_fraction")
    settings: dict[str, Any] = {"memory_fraction": None if math.isnan(fraction) else fraction,
                                "max_num_seqs": whole(row, "max_num_seqs") or None}  # fmt: skip
    if flag(row, "chunked_prefill"):
        settings |= {"chunk": 1, "max_num_batched_tokens": whole(row, "token_budget")}
    engine = _engine(row["engine"], row["engine_version"], settings, cluster, length)
    return Case(row["id"], model_named(row["config"]), cluster, engine, plan, work, length, measured_ms(row, OPEN, 1e3), labels,
                flag(row, "custom_all_reduce"))  # fmt: skip


# ---- request level ------------------------------------------------------------------------------------------------------

SETTINGS = ("hw", "model", "tp", "dp", "ep", "max_num_seqs", "max_num_batched_tokens", "vllm", "dtype", "config")


def request_level(rows: list[Row], where: Path) -> Iterator[Case | Skipped]:
    """Runs of single timed requests: rows of equal settings are one run."""
    runs: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        runs.setdefault(tuple(row[k] for k in SETTINGS), []).append(row)
    for key, members in runs.items():
        yield _request_run("|".join(key[:-1]), members)


def _needed(row: Row, key: str) -> float:
    """A cell of a timed request; raises InputError where it is none that can be."""
    value = number(row, key)
    least = 1 if key in ("isl", "osl") else 0
    if not least <= value <= MOST:
        told = f"'{key}' must be a number from {least} to {MOST:,}, got '{row.get(key) or ''}'"
        raise InputError(told, f"request {row.get('request_id') or ''}")
    return value


def _request_run(name: str, members: list[Row]) -> Case | Skipped:
    row = members[0]
    labels = {"engine": "vllm", "gpu": row["hw"], "model": row["config"]}
    if not row["config"]:
        return Skipped(name, "the row names no bundled model", labels)
    numbers = [{k: _needed(r, k) for k in ("arrival_s", "isl", "osl", "ttft_s", "tpot_ms", "latency_s")} for r in members]
    numbers.sort(key=lambda cells: cells["arrival_s"])
    column = {k: np.asarray([cells[k] for cells in numbers]) for k in numbers[0]}
    work = Workload(name, column["arrival_s"], column["isl"].astype(np.int64), column["osl"].astype(np.int64))
    tp, dp = whole(row, "tp", 1, 1, WIDEST), max(1, whole(row, "dp", 1, most=WIDEST))
    layout, precision = Layout(tp=tp), Precision((), row["dtype"], "auto", "bf16")
    # with expert parallelism, data parallel ranks are the attention lanes of one machine, not servers of their own
    plan = Plan(1, 1, Layout(dp, tp), Layout(ep=dp * tp), precision) if flag(row, "ep") else Plan(dp, 1, layout, layout, precision)
    cluster, model = Cluster(load_gpu(row["hw"]), plan.devices), model_named(row["config"])
    settings = {"max_num_seqs": whole(row, "max_num_seqs"), "max_num_batched_tokens": whole(row, "max_num_batched_tokens")}
    length = max(model.max_length if model.max_length < work.longest * 4 else work.longest, work.longest)
    engine = _engine("vllm", row["vllm"], settings, cluster, length)
    measured = {"ttft_mean_ms": column["ttft_s"].mean() * 1e3, "tpot_mean_ms": column["tpot_ms"].mean(),
                "e2e_mean_ms": column["latency_s"].mean() * 1e3}  # fmt: skip
    return Case(name, model, cluster, engine, plan, work, length, measured, labels)
