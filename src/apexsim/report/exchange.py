"""A predicted run in the layouts that other tools write for measured ones (floor 6).

`vllm bench serve`'s flat JSON, which comparisons and calibrations read, and llm-d's Benchmark Report v0.2.  Both say in words that the
run was predicted; no time of day is written, ids are hashes of the question.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import apexsim
from apexsim.metrics import FIELDS
from apexsim.replay.record import PREDICTED, prefix_json
from apexsim.report.emit.known import checked
from apexsim.report.emit.yaml import yaml
from apexsim.report.plain import clean
from apexsim.search.assess import Assessed, Side, outcome_of
from apexsim.search.study import Study
from apexsim.stats import Stats, stats_of
from apexsim.workload.load import mean_rate
from apexsim.workload.trace import NO_CHAINS

BENCH_STATS = {"mean": "mean", "median": "median", "std": "std", "p75": "p75", "p90": "p90", "p95": "p95", "p99": "p99"}
REPORT_STATS = {"mean": "mean", "stddev": "std", "min": "min", "p50": "median", "p75": "p75", "p90": "p90", "p95": "p95", "p99": "p99",
                "max": "max"}  # fmt: skip
LATENCIES = {"time_to_first_token": ("ttft", "s"), "time_per_output_token": ("tpot", "s/token"), "inter_token_latency": ("itl", "s/token"),
             "request_latency": ("e2e", "s")}  # fmt: skip


def bench_json(study: Study) -> dict[str, Any]:
    """The first plan's run with the keys of `vllm bench serve --save-result --save-detailed`; of each request's gaps only the mean is
    known, and stands for all of them."""
    run, work = study.ranked[0], study.setting.workload
    m, skip = run.metrics, work.warmup
    found: dict[str, Any] = {
        "backend": f"{PREDICTED} {apexsim.__version__} for {run.plan.shorthand} by {study.setting.engine.label}",
        "model_id": study.setting.model.name, "num_prompts": work.size - skip, "duration": m.duration_s, "completed": m.completed,
        "request_rate": float(study.inputs.get("request_rate") or mean_rate(work.arrive)) if work.mode == "open" else "inf",
        "max_concurrency": work.concurrency if work.mode == "closed" else None,
        "total_input_tokens": m.prompt_tokens, "total_output_tokens": m.output_tokens,
        "request_throughput": m.request_throughput_per_s, "output_throughput": m.output_throughput_tok_s,
        "total_token_throughput": m.total_throughput_tok_s,
    }  # fmt: skip
    for name in ("ttft", "tpot", "itl", "e2e"):
        stats = m.stats(name)
        found |= {f"{ours}_{FIELDS[name]}_ms": getattr(stats, theirs) * 1e3 for ours, theirs in BENCH_STATS.items()}
    return dict(clean(found | _requests(study, run, skip)))


def _requests(study: Study, run: Assessed, skip: int) -> dict[str, Any]:
    """Every request after the warm-up [s]."""
    work, outcome = study.setting.workload, outcome_of(study.setting, run)
    sent, first, finish = outcome.sent[skip:], outcome.first[skip:], outcome.finish[skip:]
    output = work.output[skip:]
    gaps = [[(b - a) / (n - 1)] * (n - 1) if n > 1 else [] for a, b, n in zip(first.tolist(), finish.tolist(), output.tolist())]
    return {
        "input_lens": work.prompt[skip:], "output_lens": output, "ttfts": first - sent, "itls": gaps, "start_times": sent,
        "generated_texts": [""] * len(output), "errors": [""] * len(output),
        **prefix_json(work.prefix[skip:] if work.block else NO_CHAINS, work.block),
    }  # fmt: skip


# ---- llm-d -------------------------------------------------------------------------------------------------------------------


def benchmark_report(study: Study) -> str:
    """The first plan's run as llm-d's Benchmark Report v0.2."""
    run, work = study.ranked[0], study.setting.workload
    m = run.metrics
    requests = {"total": m.completed, "failures": 0, "input_length": _stats(stats_of(work.prompt[work.warmup :].astype(float)), "count"),
                "output_length": _stats(stats_of(work.output[work.warmup :].astype(float)), "count")}  # fmt: skip
    rates = {"input_token_rate": m.prompt_tokens / m.duration_s, "output_token_rate": m.output_throughput_tok_s,
             "total_token_rate": m.total_throughput_tok_s}  # fmt: skip
    throughput = {name: {"units": "tokens/s", "mean": rate} for name, rate in rates.items()}
    throughput["request_rate"] = {"units": "queries/s", "mean": m.request_throughput_per_s}
    latency = {name: _stats(m.stats(ours), unit) for name, (ours, unit) in LATENCIES.items()}
    document = {
        "version": "0.2",
        "run": {"uid": _hash(study.inputs, run.plan.shorthand), "eid": _hash(study.inputs),
                "description": f"predicted, not measured: {run.plan.shorthand}", "keywords": ["predicted", "apexsim"],
                "time": {"duration": f"PT{m.duration_s:.6f}S"}},
        "scenario": {"stack": [_engine(study, side) for side in run.sides], "load": _load(study)},
        "results": {"request_performance": {"aggregate": {"requests": requests, "throughput": throughput, "latency": latency}}},
    }  # fmt: skip
    return yaml(checked("benchmark-report", clean(document)))


def _stats(stats: Stats, unit: str) -> dict[str, Any]:
    """A distribution; what is not known is left out."""
    found = {theirs: float(getattr(stats, ours)) for theirs, ours in REPORT_STATS.items()}
    return {"units": unit, **{name: value for name, value in found.items() if value == value}}


def _engine(study: Study, side: Side) -> dict[str, Any]:
    plan, setting = side.plan, study.setting
    widths = {"tp": plan.attention.tp, "dp": plan.lanes, "ep": plan.ffn.ep, "pp": plan.stages}
    accelerator = {"model": setting.cluster.gpu.name, "count": plan.replica_devices, "parallelism": widths}
    engine = {"kind": "inference_engine", "tool": setting.engine.name, "tool_version": setting.engine.spoken,
              "role": side.role or "replica", "replicas": plan.replicas, "model": {"name": setting.model.name},
              "accelerator": accelerator}  # fmt: skip
    label = f"{side.role} server" if side.role else "server"
    return {"metadata": {"label": label, "cfg_id": _hash(plan.shorthand, setting.engine.label)}, "standardized": engine, "native": {}}


def _load(study: Study) -> dict[str, Any]:
    work = study.setting.workload
    lengths = {
        name: {"distribution": "fixed" if (column == column[0]).all() else "other", "value": float(column.mean())}
        for name, column in (("input_seq_len", work.prompt), ("output_seq_len", work.output))
    }
    rate = {"rate_qps": mean_rate(work.arrive)} if work.mode == "open" else {}
    users = {"concurrency": work.concurrency} if work.mode == "closed" else {}
    load = {"tool": "apexsim", "tool_version": apexsim.__version__, "source": "unknown", **lengths, **rate, **users}
    return {"metadata": {"cfg_id": _hash(study.inputs)}, "standardized": load, "native": {}}


def _hash(*what: Any) -> str:
    return hashlib.sha256(json.dumps(clean(list(what)), sort_keys=True).encode()).hexdigest()[:32]
