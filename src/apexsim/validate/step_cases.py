"""Rows that isolate one mechanism: single steps, cold prompts, saturated batches (floor 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from apexsim.cost.price import Pricer
from apexsim.cost.tables import axes_for, compile_costs
from apexsim.engine.price import beside_prompts, prompt_share, stage_seconds
from apexsim.engine.types import DECODE, PROMPT, Costs
from apexsim.engines import EngineRow
from apexsim.errors import Rejected
from apexsim.gpu import Gpu
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.model import Model
from apexsim.model.parts import routed
from apexsim.plan.limits import started
from apexsim.plan.lower import lower
from apexsim.plan.plan import Layout, Plan
from apexsim.units import GB
from apexsim.validate.cases import Case, engine_for, formats, labels_of, measured, rules_of
from apexsim.validate.energy_cases import LEADERBOARD, leaderboard
from apexsim.validate.energy_cases import PROMPT as PROMPTS
from apexsim.validate.facts import spelled, suspect
from apexsim.validate.rows import REQUESTS, WIDEST, Row, Skipped, amount, needed, share, whole
from apexsim.workload.trace import Workload

PROMPT_SHARE, BESIDE_PROMPTS, STAGE_SECONDS = prompt_share, beside_prompts, stage_seconds


@dataclass(frozen=True, slots=True)
class Machine:
    """What runs the steps, and how large they get: sequences of a lane, and tokens of a request."""

    model: Model
    cluster: Cluster
    engine: EngineRow
    plan: Plan
    sequences: int
    longest: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """What every lane has in one step: `decodes` sequences of mean `context` tokens, and prompts that each go on from `done` tokens."""

    decodes: int = 0
    context: float = 0.0
    prompts: int = 0
    chunk: int = 0  # tokens of each prompt
    done: int = 0


@dataclass(frozen=True, slots=True)
class Steps:
    """A measured step: its metric is `scale` × seconds, or work over seconds where `work` is given."""

    id: str
    machine: Machine
    batch: Batch
    metric: str
    measured: float
    labels: dict[str, str]
    work: float = 0.0  # what is divided by the seconds of the step; 0 = the metric is the time [ms]
    notes: tuple[str, ...] = ()

    def value(self, seconds: float) -> float:
        """The metric of a step that takes so long."""
        return self.work / seconds if self.work else 1e3 * seconds


def costs_of(machine: Machine, pricer: Pricer) -> Costs:
    """The engine's tables for a machine."""
    model, plan, engine = machine.model, machine.plan, machine.engine
    start = started(model, plan, machine.cluster, engine, machine.longest)
    engine = engine if isinstance(start, Rejected) else start[0]
    stages = lower(model, plan, machine.cluster.gpu.flops, machine.cluster.domain)
    axes = axes_for(
        replace(engine, max_num_seqs=max(engine.max_num_seqs, machine.sequences)), plan.lanes, machine.sequences, machine.longest
    )
    return compile_costs(stages, plan, pricer, engine, axes, model.hidden)


def step_seconds(costs: Costs, batch: Batch, lanes: int) -> float:
    """Seconds of one step that holds the same batch on each lane, all stages after each other (docs/mechanisms.md)."""
    prompt_tokens, sequences = batch.prompts * batch.chunk, batch.decodes + batch.prompts
    kind, own, share = PROMPT if batch.prompts else DECODE, batch.decodes + prompt_tokens, PROMPT_SHARE(costs, prompt_tokens)
    size = (kind, own * lanes, own, sequences, sequences * lanes)
    total = 0.0
    for s in range(len(costs.floor)):
        took = STAGE_SECONDS(costs, s, size, share, _attention(costs, s, batch, BESIDE_PROMPTS(costs, share)))[2]
        total += took + costs.hop[s] + costs.hop_token[s] * own * lanes
    return float(total)


def _attention(costs: Costs, s: int, batch: Batch, longer: float) -> float:
    """Attention of one lane on a stage [s]; longer: the factor of its decodes."""
    found = 0.0
    if batch.decodes:
        for w, window in enumerate(costs.windows):
            found += longer * float(np.interp(min(batch.context, float(window)), costs.nodes, costs.decode[s, w, batch.decodes]))
    if batch.prompts:
        at = costs.stride * np.arange(costs.prefill.shape[1])
        low, high = np.interp([batch.done, batch.done + batch.chunk], at, costs.prefill[s])
        found += float(costs.prompt_base[s]) + batch.prompts * float(high - low)
    return found


def _named_engine(text: str) -> tuple[str, str]:
    """(engine, version) of words such as "vllm 0.15.1"; another's own engine has no rules here and stands for SGLang's newest."""
    name, _, version = text.strip().partition(" ")
    return (name, version) if name in ("vllm", "sglang", "trtllm") else ("sglang", "")


# ---- steps of a scheduler ------------------------------------------------------------------------------------------------

BLOCK = 16  # tokens of a KV block
MOST_STEPS = 512  # sequences for which tables are made
LONGEST = 32768  # tokens
MOST_USERS = 1 << 20  # sequences at once


@lru_cache(maxsize=64)
def _scheduler(config: str, gpu: str, engine: str, tp: int) -> Machine:
    """The server whose steps were timed."""
    card = load_gpu(gpu)
    model, precision, assumed = formats({}, config, "", card)
    rules, note = rules_of(*_named_engine(engine))
    row = engine_for(rules, {}, card, LONGEST)
    plan = Plan(1, 1, Layout(tp=tp), Layout(tp=tp), precision)
    return Machine(model, Cluster(card, tp), row, plan, MOST_STEPS, LONGEST, (*assumed, *note))


STEP_NOTE = "contexts are the mean of those in the step's KV blocks, prompts included"


def scheduler_step(row: Row, where: Path) -> Steps | Skipped:
    """One step with its batch: decodes, and prompts that go on from where the mean sequence stands."""
    machine = _scheduler(row["config"], row["gpu"], row["engine"], needed(row, "tp", 1, WIDEST))
    tokens, decodes = (whole(row, f"batch_{kind}_tokens") for kind in ("prefill", "decode"))
    decodes = whole(row, "batch_num_decode_reqs", decodes)  # each has one token
    prompts = needed(row, "batch_num_prefill_reqs", 0) if tokens else 0
    labels = labels_of(row, _named_engine(row["engine"])[0], row["gpu"], workload="mixed" if tokens else "decode", suspect=suspect(row))
    if prompts + decodes == 0:
        return Skipped(row["id"], "the step held nothing", labels)
    held = BLOCK * (needed(row, "kv_blocks_total_gpu", 0) - needed(row, "kv_blocks_free_gpu", 0))
    mean = held / max(prompts + decodes, whole(row, "queue_running_depth"))
    chunk = -(-tokens // prompts) if prompts else 0
    if max(mean, chunk) > LONGEST or decodes + prompts > MOST_STEPS:
        return Skipped(row["id"], f"beyond {MOST_STEPS} sequences or {LONGEST:,} tokens", labels)
    batch = Batch(decodes, mean, prompts, chunk, max(0, round(mean) - chunk)) if tokens else Batch(decodes, mean)
    return Steps(row["id"], machine, batch, "step_ms", amount(row, "period_us") / 1e3, labels, notes=(STEP_NOTE, *machine.notes))


# ---- gaps at a batch -----------------------------------------------------------------------------------------------------

GAP_NOTE = "vLLM 0.11.1, prompt lengths assumed, logits sorted on each step as in energy rows"


def batch_gap(row: Row, at: int, where: Path) -> Steps | Skipped:
    """The gap between tokens at the mean batch of a saturated server of ML.ENERGY."""
    name, task, gpu = f"{row['model']}-{row['task']}-{at}", row["task"], load_gpu(row["gpu_model"])
    labels = labels_of(row, "vllm", row["gpu_model"], workload=task, suspect=suspect(row))
    if task not in PROMPTS:
        return Skipped(name, "the prompt length is not recorded", labels)
    gpus, ep = needed(row, "num_gpus", 1, WIDEST), max(1, whole(row, "expert_parallel", 1, most=WIDEST))
    model, precision, assumed = formats(row, row["model"], row["weight_precision"], gpu)
    ffn = Layout(tp=share(row, gpus, "expert_parallel", ep), ep=ep) if routed(model) else Layout(tp=gpus)
    plan = Plan(1, 1, Layout(tp=gpus), ffn, precision)
    output, users = amount(row, "avg_output_len"), max(1, round(amount(row, "avg_batch_size", most=MOST_USERS)))
    longest = PROMPTS[task] + math.ceil(output)
    settings = {"max_num_seqs": whole(row, "max_num_seqs") or None, "max_num_batched_tokens": whole(row, "max_num_batched_tokens") or None}
    engine = leaderboard(engine_for(rules_of("vllm", LEADERBOARD)[0], settings, gpu, longest), model.name)
    machine = Machine(model, Cluster(gpu, gpus), engine, plan, users + 1, longest)
    return Steps(
        name,
        machine,
        Batch(users, PROMPTS[task] + output / 2),
        "itl_median_ms",
        amount(row, "median_itl_ms"),
        labels,
        notes=(GAP_NOTE, *assumed),
    )


# ---- wide expert parallelism -----------------------------------------------------------------------------------------------

CHUNK = 16384  # tokens of a prompt step on each GPU: SGLang's deployment guide for this layout


def wide(row: Row, where: Path) -> Steps | Skipped:
    """Tokens per second of a node in prefill or decode, attention on every GPU by itself and experts over all of them."""
    gpu, ways, length = load_gpu(row["gpu"]), needed(row, "ep", 1, WIDEST), needed(row, "prompt_tokens")
    per_node, name = whole(row, "gpus_per_node", 8, 1, 1024), _named_engine(spelled(row, "engine"))
    labels = labels_of(row, name[0], row["gpu"], workload=row["phase"], layout=f"DEP{ways}", suspect=suspect(row))
    model, precision, assumed = formats(row, row["config"], "fp8", gpu)
    plan = Plan(1, 1, Layout(dp=ways), Layout(ep=ways), precision)
    rules, note = rules_of(*name)
    decodes = whole(row, "batch_per_gpu")
    prompts = 0 if decodes else max(1, CHUNK // length)
    engine = engine_for(rules, {"max_num_batched_tokens": max(CHUNK, length), "max_num_seqs": max(decodes, 64)}, gpu, 2 * length)
    cluster = Cluster(gpu, per_node, -(-ways // per_node))
    machine = Machine(model, cluster, engine, plan, max(decodes, prompts) + 1, 2 * length)
    batch = Batch(decodes, float(length)) if decodes else Batch(0, 0.0, prompts, length)
    work = per_node * (decodes or prompts * length)
    return Steps(row["id"], machine, batch, "tok_s_per_node", amount(row, "tok_s_per_node", most=math.inf), labels, work, (*assumed, *note))


# ---- one prompt, and all at once --------------------------------------------------------------------------------------------


def cold_prompt(row: Row, where: Path) -> Case | Skipped:
    """One request on an empty server, sent as token ids."""
    name, gpu, width = _named_engine(row["engine"]), load_gpu(row["gpu"]), needed(row, "tp", 1, WIDEST)
    labels = labels_of(row, name[0], row["gpu"], suspect=suspect(row))
    model, precision, assumed = formats(row, row["config"], "", gpu)
    length = needed(row, "prompt_tokens")
    rules, note = rules_of(*name)
    engine = engine_for(rules, {"max_num_batched_tokens": whole(row, "max_num_batched_tokens") or None, "tokenise_s": 0.0}, gpu, length + 1)
    plan = Plan(1, 1, Layout(tp=width), Layout(tp=width), precision)
    work = Workload(row["id"], np.zeros(1), np.array([length]), np.array([1]))
    return Case(
        row["id"],
        model,
        Cluster(gpu, width),
        engine,
        plan,
        work,
        length + 1,
        measured(row, {"ttft_ms": "ttft_ms"}),
        labels,
        notes=assumed + note,
    )


QUEUED = {
    "tpot_mean_ms": "mean_tpot_ms",
    "tpot_median_ms": "median_tpot_ms",
    "ttft_mean_ms": "mean_ttft_ms",
    "ttft_median_ms": "median_ttft_ms",
}
NARROW = 2020.0  # GB/s and
SMALL = 64.0  # GB: the H100 of the files of this kind (their README)


def _narrow() -> Gpu:
    """The card, its kernels scaled from those of the one with 80 GB."""
    card = load_gpu("h100-sxm")
    return replace(card, name="h100-sxm-64gb", kernels="", borrow=card.kernels, memory_bytes=SMALL * GB, memory_bandwidth=NARROW * GB)


def queued(row: Row, at: int, where: Path) -> Case | Skipped:
    """All requests at once on an H100 of 64 GB; true lengths are the totals over the requests."""
    gpu, name = _narrow(), f"{row['kind']}{row['run']}-{at}"
    labels = labels_of(row, "vllm", gpu.name, workload=row["kind"], suspect=suspect(row))
    model, precision, assumed = formats(row, row["model"], "", gpu)
    count = needed(row, "num_prompts", most=REQUESTS)
    isl, osl = (max(1, round(amount(row, f"total_{side}_tokens", most=1e12) / count)) for side in ("input", "output"))
    work = Workload(name, np.zeros(count), np.full(count, isl), np.full(count, osl), "offline")
    rules, note = rules_of("vllm", row["engine"].removeprefix("vllm_").removesuffix(".sif"))
    engine = engine_for(rules, {"max_num_seqs": whole(row, "max_num_seqs") or None}, gpu, work.longest)
    found = {key: value for key, value in measured(row, QUEUED).items() if osl > 1 or key.startswith("ttft")}
    plan = Plan(1, 1, Layout(), Layout(), precision)
    return Case(name, model, Cluster(gpu, 1), engine, plan, work, work.longest, found, labels, notes=assumed + note)
