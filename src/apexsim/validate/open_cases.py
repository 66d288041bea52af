"""Open loops: requests that arrive at their own times (floor 5)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from apexsim.errors import InputError
from apexsim.hardware import Cluster, load_gpu
from apexsim.links import with_links
from apexsim.plan.plan import Layout, Plan
from apexsim.validate.cases import Case, engine_for, formats, labels_of, measured, rules_of
from apexsim.validate.facts import network, spelled, suspect
from apexsim.validate.rows import MOST, REQUESTS, WIDEST, Cells, Row, Skipped, amount, flag, needed, number, share, whole
from apexsim.workload.stream import read_trace
from apexsim.workload.synth import spread_lengths
from apexsim.workload.trace import Workload

NAMELESS = "the row names no model that is known"
OPEN = {"ttft_mean_ms": "ttft_mean_s", "itl_mean_ms": "itl_mean_s", "e2e_mean_ms": "e2e_mean_s"}
SLOWEST = 1e-6  # requests/s, or seconds: less is a slip
SEED = 0  # of arrivals that were not recorded


def open_loop(row: Row, where: Path) -> Case | Skipped:
    """A row that names a file of timed requests; one replica of a deployment."""
    labels = labels_of(
        row,
        row["engine"],
        spelled(row, "gpu"),
        workload=spelled(row, "workload"),
        rate=spelled(row, "rate"),
        layout=f"{spelled(row, 'dp') or 1}DP{spelled(row, 'tp')}TP",
        suspect=suspect(row),
    )
    if not spelled(row, "config"):
        return Skipped(row["id"], NAMELESS, labels)
    gpu, work = load_gpu(row["gpu"]), read_trace(str(where.parent / row["requests_file"]))
    model, precision, assumed = formats(row, row["config"], spelled(row, "weight_dtype"), gpu, spelled(row, "kv_dtype"))
    layout = Layout(tp=needed(row, "tp", 1, WIDEST))
    plan = Plan(1, whole(row, "pp", 1, 1, WIDEST), layout, layout, precision)
    length, fraction = max(whole(row, "max_model_len"), work.longest), number(row, "memory_fraction")
    settings: dict[str, Any] = {"memory_fraction": None if math.isnan(fraction) else fraction,
                                "max_num_seqs": whole(row, "max_num_seqs") or None}  # fmt: skip
    if flag(row, "chunked_prefill"):
        settings |= {"chunk": 1, "max_num_batched_tokens": whole(row, "token_budget") or None}
    rules, note = rules_of(row["engine"], spelled(row, "engine_version"))
    engine = engine_for(rules, settings, gpu, length)
    return Case(
        row["id"],
        model,
        Cluster(gpu, plan.devices),
        engine,
        plan,
        work,
        length,
        measured(row, OPEN, 1e3),
        labels,
        flag(row, "custom_all_reduce") or not spelled(row, "custom_all_reduce"),
        notes=assumed + note,
    )


# ---- request level ------------------------------------------------------------------------------------------------------

SETTINGS = ("hw", "model", "tp", "dp", "ep", "max_num_seqs", "max_num_batched_tokens", "vllm", "dtype", "config")


def request_level(rows: list[Row], where: Path) -> Iterator[Case | Skipped]:
    """Runs of single timed requests: rows of equal settings are one run."""
    runs: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        runs.setdefault(tuple(spelled(row, k) for k in SETTINGS), []).append(row)
    for key, members in runs.items():
        name = "|".join(key[:-1])
        try:
            yield _request_run(name, members)
        except InputError as error:
            if len(runs) == 1:
                raise  # nothing else is in the file
            yield Skipped(name, error.line(), labels_of(members[0], "vllm", members[0]["hw"]))


def _timed(row: Row, key: str) -> float:
    """A cell of a timed request; raises InputError where it is none that can be."""
    value = number(row, key)
    least = 1 if key in ("isl", "osl") else 0
    if not least <= value <= MOST:
        told = f"'{key}' must be a number from {least} to {MOST:,}, got '{row.get(key) or ''}'"
        raise InputError(told, f"request {row.get('request_id') or ''}")
    return value


def _times(row: Row) -> dict[str, float]:
    """When a request came and how long it took; of latency and time per token the one that is not there follows from the other."""
    found = {k: _timed(row, k) for k in ("arrival_s", "isl", "osl", "ttft_s")}
    steps, both = found["osl"] - 1, {k: k in row for k in ("tpot_ms", "latency_s")}
    if not any(both.values()):
        raise InputError("the rows have neither 'latency_s' nor 'tpot_ms'", f"request {row.get('request_id') or ''}")
    told = {k: _timed(row, k) for k, there in both.items() if there}
    ttft = found["ttft_s"]
    other = {
        "latency_s": ttft + told.get("tpot_ms", 0.0) / 1e3 * steps,
        "tpot_ms": 1e3 * max(0.0, told.get("latency_s", ttft) - ttft) / max(1.0, steps),
    }
    return found | other | told


def _request_run(name: str, members: list[Row]) -> Case | Skipped:
    row = members[0]
    labels = labels_of(row, "vllm", row["hw"], suspect=suspect(row))
    if not spelled(row, "config"):
        return Skipped(name, NAMELESS, labels)
    numbers = [_times(r) for r in members]
    numbers.sort(key=lambda cells: cells["arrival_s"])
    column = {k: np.asarray([cells[k] for cells in numbers]) for k in numbers[0]}
    work = Workload(name, column["arrival_s"], column["isl"].astype(np.int64), column["osl"].astype(np.int64))
    gpu = load_gpu(row["hw"])
    model, precision, assumed = formats(row, row["config"], spelled(row, "dtype"), gpu)
    tp, dp = needed(row, "tp", 1, WIDEST), max(1, whole(row, "dp", 1, most=WIDEST))
    # with expert parallelism, data parallel ranks are the attention lanes of one machine, not servers of their own
    own = Layout(tp=tp)
    plan = Plan(1, 1, Layout(dp, tp), Layout(ep=dp * tp), precision) if flag(row, "ep") else Plan(dp, 1, own, own, precision)
    settings = {key: whole(row, key) or None for key in ("max_num_seqs", "max_num_batched_tokens")}
    length = max(model.max_length if model.max_length < work.longest * 4 else work.longest, work.longest)
    rules, note = rules_of("vllm", spelled(row, "vllm"))
    engine = engine_for(rules, settings, gpu, length)
    found = {
        f"{metric}_{stat}_ms": float(how(column[key]) * scale)
        for metric, key, scale in (("ttft", "ttft_s", 1e3), ("tpot", "tpot_ms", 1.0), ("e2e", "latency_s", 1e3))
        for stat, how in (("mean", np.mean), ("median", np.median))
    }
    return Case(name, model, Cluster(gpu, plan.devices), engine, plan, work, length, found, labels, notes=assumed + note)


# ---- arrivals drawn here, as the source says they were ---------------------------------------------------------------------

RATED = {"itl_mean_ms": "itl_ms_mean", "out_tok_s_per_gpu": "out_tok_s"}  # TTFT holds the client's own time
ACROSS = {"ttft_mean_ms": "ttft_ms", "tpot_mean_ms": "tpot_ms", "req_s": "req_s"}
NO_ENGINE = "engine not stated: vLLM"
CHAT = 0.9  # standard deviation over mean of the answers of LMSYS requests (validation/open_loop_requests/llama_lmsys_*)
DRAWN = f"only mean lengths are known: drawn about them as chats are (standard deviation {CHAT} of the mean)"
LONGEST = 2048  # tokens: longer ones are left out of ShareGPT by vLLM's benchmark
NIGHTLY = "0.8.0"  # vLLM, by the note of the rows


def arrivals(rate: float, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Poisson arrivals [count] s; an endless rate is all at once."""
    return np.zeros(count) if math.isinf(rate) else np.cumsum(np.random.default_rng(SEED).exponential(1.0 / rate, count))


def rated(row: Row, where: Path) -> Case | Skipped:
    """A benchmark at a Poisson rate with lengths that are all alike; the engine is not named: vLLM's newest rules."""
    strategy, name = spelled(row, "strategy"), f"{row['gpu']}-{row['model']}-{row['strategy']}"
    labels = labels_of(row, "vllm", row["gpu"], workload=strategy, suspect=suspect(row))
    kind, _, rate = strategy.partition("@")
    if kind != "poisson":
        return Skipped(name, f"arrivals '{kind}' are not known", labels)
    gpu, count = load_gpu(row["gpu"]), needed(row, "n", most=REQUESTS)
    model, precision, assumed = formats(row, row["model"], "", gpu)
    isl, osl = (max(1, round(amount(row, f"{key}_tokens_mean"))) for key in ("prompt", "output"))
    work = Workload(name, arrivals(amount({"rate": rate}, "rate", SLOWEST), count), np.full(count, isl), np.full(count, osl))
    rules, note = rules_of("vllm", "")
    engine = engine_for(rules, {}, gpu, work.longest)
    plan = Plan(1, 1, Layout(), Layout(), precision)
    cells = Cells({**row, "out_tok_s": str(count * osl / amount(row, "duration_s", SLOWEST))})
    return Case(
        name, model, Cluster(gpu, 1), engine, plan, work, work.longest, measured(cells, RATED), labels, notes=(NO_ENGINE, *assumed, *note)
    )


def across(row: Row, where: Path) -> Case | Skipped:
    """Pipeline stages across nodes, at a Poisson rate."""
    labels = labels_of(row, "vllm", row["gpu"], layout=f"TP{spelled(row, 'tp')}PP{spelled(row, 'pp')}", suspect=suspect(row))
    found = measured(row, ACROSS)
    if not found:
        return Skipped(row["id"], "no times were measured", labels)
    gpu, nodes = load_gpu(row["gpu"]), needed(row, "nodes", 1, WIDEST)
    model, precision, assumed = formats(row, row["config"], "", gpu)
    width, count = Layout(tp=needed(row, "tp", 1, WIDEST)), needed(row, "requests", most=REQUESTS)
    plan = Plan(1, needed(row, "pp", 1, WIDEST), width, width, precision)
    rate = math.inf if spelled(row, "request_rate") == "inf" else amount(row, "request_rate", SLOWEST)
    rng = np.random.default_rng(SEED)
    isl, osl = (spread_lengths(needed(row, key), CHAT, count, rng, longest=LONGEST) for key in ("prompt_mean", "output_mean"))
    work = Workload(row["id"], arrivals(rate, count), isl, osl)
    rules, _ = rules_of("vllm", NIGHTLY)
    engine = engine_for(rules, {}, gpu, work.longest)
    cluster = with_links(Cluster(gpu, share(row, plan.devices, "nodes", nodes), nodes), nic=network(row))
    return Case(
        row["id"],
        model,
        cluster,
        engine,
        plan,
        work,
        work.longest,
        found,
        labels,
        notes=(DRAWN, f"version not stated: rules of {rules.label}", *assumed),
    )
