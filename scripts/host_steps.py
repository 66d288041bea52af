"""Single steps of measured engines against the tables they are priced by.

    python scripts/host_steps.py FOLDER      a folder with vllm_steps_h100.csv, cold_prefill.csv and itl_by_batch_h100.csv

Each file isolates a part of the host's share that closed loops only hold in sum: what prompt tokens add to a step, a cold prompt, and the
time per sequence.  The median and the bias of (predicted / measured - 1) of each class of steps are printed.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from apexsim.cost.price import pricer_for
from apexsim.cost.tables import axes_for, compile_costs
from apexsim.engine.types import DECODE, PROMPT, Costs
from apexsim.engines import EngineRow, closest, override, settled
from apexsim.errors import InputError
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.model.model import Model
from apexsim.model.parts import routed
from apexsim.plan.lower import lower
from apexsim.plan.plan import Layout, Plan
from apexsim.validate.cases import served_precision
from apexsim.validate.energy_cases import ALIKE, UNSORTED
from apexsim.validate.energy_cases import PROMPT as PROMPT_OF

Errors = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step holds: decoding sequences at a mean context [tokens], prompts of so many new tokens in all."""

    decodes: int
    context: float = 0.0
    prompts: int = 0
    tokens: int = 0


def step_s(costs: Costs, batch: Batch) -> float:
    """Seconds of one step of a plan with one stage and one lane."""
    kind, n = PROMPT if batch.tokens else DECODE, batch.decodes + batch.tokens
    share = min(1.0, batch.tokens / costs.ramp)
    time = costs.total[0, kind, n] + costs.sample[0, batch.decodes + batch.prompts]
    for w, window in enumerate(costs.windows if batch.decodes else ()):
        one = np.interp(min(batch.context, window), costs.nodes, costs.decode[0, w, batch.decodes])
        time += (1.0 + costs.beside * share) * float(one)
    if batch.tokens:
        time += costs.prompt_base[0] + batch.prompts * prefill_cost(costs, 0, max(1, round(batch.tokens / batch.prompts)))
    host = costs.add[0, DECODE] * (1.0 - share) + costs.add[0, PROMPT] * share + costs.add_seq * (batch.decodes + batch.prompts)
    return float(max(time, costs.floor[0, kind]) + host)


def prefill_cost(costs: Costs, done: int, until: int) -> float:
    """Attention of the prompt tokens done … until-1 [s]."""
    at = costs.stride * np.arange(costs.prefill.shape[1])
    return float(np.interp(until, at, costs.prefill[0]) - np.interp(done, at, costs.prefill[0]))


def costs_of(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow, sequences: int, longest: int) -> Costs:
    """The tables of a plan."""
    stages = lower(model, plan, cluster.gpu.flops, cluster.domain)
    axes = axes_for(engine, plan.lanes, sequences, longest)
    return compile_costs(stages, plan, pricer_for(engine, cluster), engine, axes, model.hidden)


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def served(spec: str, cluster: Cluster, longest: int, **settings: object) -> EngineRow:
    """The engine of a row with its settings."""
    return settled(override(closest(spec), **settings), cluster.gpu.memory_bytes, cluster.gpu.name, longest)


def steps(path: Path) -> Errors:
    """Decode steps and steps that hold prompts, by their prompt tokens."""
    cluster, found = Cluster(load_gpu("h100-sxm"), 2), defaultdict[str, list[float]](list)
    engine, plan = served("vllm@0.15.1", cluster, 16384), Plan(1, 1, Layout(tp=2), Layout(tp=2))
    costs = costs_of(load_model("codellama--CodeLlama-34b-hf"), plan, cluster, engine, 512, 16384)
    for row in rows_of(path):
        tokens, decodes = int(row["batch_prefill_tokens"]), int(row["batch_decode_tokens"])
        used = 16.0 * (int(row["kv_blocks_total_gpu"]) - int(row["kv_blocks_free_gpu"]))
        running = max(1, decodes + int(row["batch_num_prefill_reqs"]))
        batch = Batch(decodes, used / running, int(row["batch_num_prefill_reqs"]), tokens)
        name = next(text for most, text in CLASSES if tokens <= most)
        found[f"step, {name} prompt tokens"].append(1e6 * step_s(costs, batch) / float(row["period_us"]) - 1.0)
    return found


CLASSES = ((0, "no"), (16, "1-16"), (64, "17-64"), (128, "65-128"), (512, "129-512"), (1 << 40, "over 512"))


def cold(path: Path) -> Errors:
    """One prompt on an empty server, sent as token ids: all chunks one after the other."""
    found: Errors = {}
    for row in rows_of(path):
        version = row["engine"].removeprefix("vllm").strip()
        cluster, tp, budget = Cluster(load_gpu(row["gpu"]), int(row["tp"])), Layout(tp=int(row["tp"])), int(row["max_num_batched_tokens"])
        engine = served(f"vllm@{version}" if version else "vllm@0.22.0", cluster, 65536, max_num_batched_tokens=budget)
        family = "gptoss" if "gpt-oss" in row["config"] else "qwen3"
        precision = served_precision(family, "fp4" if family == "gptoss" else "bf16", "", row["config"])
        costs = costs_of(load_model(row["config"]), Plan(1, 1, tp, tp, precision), cluster, engine, 8, int(row["prompt_tokens"]) + 64)
        left, done, time = int(row["prompt_tokens"]), 0, 0.0
        while left:
            chunk = min(left, budget)
            alone = step_s(costs, Batch(0, 0.0, 1, chunk)) - prefill_cost(costs, 0, chunk)
            time, done, left = time + alone + prefill_cost(costs, done, done + chunk), done + chunk, left - chunk
        found[f"cold prompt, {row['id']}"] = [1e3 * (time + engine.request_s * REQUEST) / float(row["ttft_ms"]) - 1.0]
    return found


REQUEST = 0.0  # of the time of a request: sent as token ids to an idle server


def by_batch(path: Path) -> Errors:
    """Inter-token times at a mean batch, of servers that sample as the model's generation_config says."""
    found = defaultdict[str, list[float]](list)
    for row in rows_of(path):
        if row["task"] not in PROMPT_OF or int(float(row["data_parallel"])) > 1:
            continue
        try:
            model = load_model(row["model"])
        except InputError:
            continue
        gpus, ep = int(row["num_gpus"]), max(1, int(float(row["expert_parallel"] or 1)))
        ffn = Layout(1, gpus // ep, ep) if routed(model) else Layout(tp=gpus)
        family = next((v for k, v in ALIKE.items() if k in row["model"].lower()), "gptoss" if "gpt-oss" in row["model"] else "qwen3")
        label = {"bfloat16": "bf16", "mxfp4": "fp4"}.get(row["weight_precision"], row["weight_precision"])
        plan = Plan(1, 1, Layout(tp=gpus), ffn, served_precision(family, label, ""))
        cluster, output, batch = Cluster(load_gpu("h100-sxm"), gpus), float(row["avg_output_len"]), round(float(row["avg_batch_size"]))
        sampling = "greedy" if any(name in row["model"] for name in UNSORTED) else "top-p"
        engine = served("vllm@0.11.1", cluster, 32768, max_num_seqs=int(row["max_num_seqs"]), sampling=sampling)
        context = PROMPT_OF[row["task"]] + output / 2
        costs = costs_of(model, plan, cluster, replace(engine), batch, round(PROMPT_OF[row["task"]] + output) + 64)
        error = 1e3 * step_s(costs, Batch(batch, context)) / float(row["median_itl_ms"]) - 1.0
        found["gap between tokens, all"].append(error)
        found[f"gap between tokens, {'up to' if batch <= 80 else 'above'} 80 sequences"].append(error)
        found[f"  {row['model']}"].append(error)
    return found


FILES = {"vllm_steps_h100.csv": steps, "cold_prefill.csv": cold, "itl_by_batch_h100.csv": by_batch}


def main(folder: Path) -> None:
    """Print the errors of every class of steps."""
    for name, read in FILES.items():
        for label, errors in sorted(read(folder / name).items()):
            e = np.asarray(errors)
            median, high = np.median(np.abs(e)), np.quantile(np.abs(e), 0.9)
            print(f"{label:52s} n {len(e):4d}  median {median:6.1%}  p90 {high:6.1%}  bias {np.median(e):+6.1%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
