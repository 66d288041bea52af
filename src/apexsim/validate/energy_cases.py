"""Rows of measured power and energy: W of a GPU and J per output token (floor 5).

Each text row is predicted twice: with the measured throughput given (metric `power_w_per_gpu_throughput_given`), and simulated.
Leaderboard rows are a saturated server in its steady state: `load` sequences at a time from an endless queue.  They record no prompt
lengths: PROMPT holds what is assumed.  Image and video prompts have no length that could be assumed; such rows are skipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apexsim.cost.power import PowerLaw, gpu_watts
from apexsim.cost.roofline import Peaks
from apexsim.cost.work import Demand, done
from apexsim.engine.types import FULL
from apexsim.engines import EngineRow, server_named
from apexsim.gpu import Gpu
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.model import Model
from apexsim.model.parts import routed
from apexsim.model.served import label_word
from apexsim.plan.lower import StageOps, lower
from apexsim.plan.plan import Layout, Plan
from apexsim.validate.cases import Case, engine_for, formats, labels_of, rules_of
from apexsim.validate.facts import spelled, suspect
from apexsim.validate.rows import USERS, WIDEST, Row, Skipped, amount, needed, number, share, whole
from apexsim.workload.synth import inferencex_population
from apexsim.workload.trace import Workload

PROMPT = {"gpqa": 250, "lm-arena-chat": 200, "sourcegraph-fim": 800}  # tokens, assumed
BENCHMARK = "random "  # beginning of tasks of the serving benchmark: "random 8192/1024"
# Servers of the leaderboard sample as the model's generation_config says, with top-k and top-p but for these, which state neither.
UNSORTED = ("gpt-oss", "Nemotron")
LEADERBOARD = "0.11.1"  # vLLM of ML.ENERGY v3
WAVES = 6  # times that each slot of a saturated server is refilled
GIANTS = ("235B", "480B")  # whose FP8 rows draw more than any law says: a class of its own
UNRELIABLE = "power derived and UNRELIABLE"  # words of a row's quality: only its J per token is measured


@dataclass(frozen=True, slots=True)
class EnergyRun:
    """A row understood: what was served, and lengths [tokens] with their source."""

    row: Row
    labels: dict[str, str]
    model: Model
    gpu: Gpu
    plan: Plan
    load: int  # sequences at a time
    prompt: float
    output: float
    assumed: tuple[str, ...] = ()

    @property
    def steady(self) -> bool:
        """Is it a server in its steady state (else a benchmark from its first to its last request)?"""
        return not self.row["task"].startswith(BENCHMARK)


@dataclass(frozen=True, slots=True)
class Rates:
    """What one GPU did per second: DRAM bytes and bf16-equivalent FLOP."""

    bytes_per_s: float
    flop_per_s: float


def quality(row: Row) -> str:
    """The class a row is scored in."""
    giant = label_word(spelled(row, "precision")) == "fp8" and any(g in (spelled(row, "model") or row["config"]) for g in GIANTS)
    return f"{row['quality_class']}, FP8 of {' and '.join(GIANTS)}" if giant else row["quality_class"]


def understand(row: Row, prompt_scale: float = 1.0) -> EnergyRun | Skipped:
    """A row as a run, or why it cannot be predicted.  `prompt_scale` multiplies assumed prompt lengths."""
    labels = labels_of(row, spelled(row, "engine"), row["gpu"], quality=quality(row), task=row["task"], suspect=suspect(row))
    if reason := _obstacle(row):
        return Skipped(row["id"], reason, labels)
    gpu = load_gpu(row["gpu"])
    model, precision, assumed = formats(row, row["config"], spelled(row, "precision"), gpu)
    gpus, dp, ep = needed(row, "gpus", 1, WIDEST), max(1, whole(row, "dp", 1, most=WIDEST)), max(1, whole(row, "ep", 1, most=WIDEST))
    ffn = Layout(1, share(row, gpus, "ep", ep), ep) if routed(model) else Layout(1, gpus)
    plan = Plan(1, 1, Layout(dp, share(row, gpus, "dp", dp)), ffn, precision)
    prompt = amount(row, "isl_mean", 1.0) if spelled(row, "isl_mean") else PROMPT[row["task"]] * prompt_scale
    load, output = needed(row, "load", most=USERS), amount(row, "osl_mean", 1.0)
    return EnergyRun(row, labels, model, gpu, plan, load, prompt, output, assumed)


def _obstacle(row: Row) -> str:
    """Why a row cannot be predicted, or ""."""
    checks = (
        (row["task"].endswith(("image-chat", "video-chat")), "image and video prompts of unknown length"),
        (row["quality_class"].endswith("spec"), "speculative decoding with unknown acceptance"),
        ((row.get("spec") or "none") != "none", "speculative decoding is not modelled"),
        (not row["config"], "the row names no model that is known"),
        (not server_named(row["engine"]), f"no rules for the engine {row['engine']}"),
        (math.isnan(number(row, "load")) or math.isnan(number(row, "osl_mean")), "settings and lengths are not recorded"),
        (math.isnan(number(row, "isl_mean")) and row["task"] not in PROMPT, "the prompt length is not recorded"),
    )
    return next((reason for holds, reason in checks if holds), "")


# ---- throughput given ---------------------------------------------------------------------------------------------------


def given_rates(run: EnergyRun) -> Rates:
    """Work per second of one GPU in a steady state at the measured throughput, `load` sequences in every step."""
    rate = number(run.row, "out_tok_s_per_gpu") * run.plan.devices
    stages = lower(run.model, run.plan, run.gpu.flops)
    ops = [(op, n) for stage in stages for layer, n in stage.layers for op in layer.ops]
    ops += [(op, 1) for stage in stages for op in (*stage.entry, *stage.head)]
    steps, starts = rate / run.load, rate / run.output
    pairs = tuple((w, rate * _context(run, w), starts * _prompt_pairs(run, w)) for w in _windows(stages))
    sizes = _step_sizes(run, steps, starts)
    demand = Demand(rate, starts * run.prompt, steps, run.plan.lanes, pairs, rate / run.plan.lanes, sizes)
    found = done(ops, demand, Peaks(run.gpu.flops, run.gpu.memory_bandwidth))
    return Rates(found.nbytes, found.flop16)


def _step_sizes(run: EnergyRun, steps: float, starts: float) -> tuple[NDArray[np.float64], ...]:
    """(tokens of a step, such steps per second): prompts one to a step, or evenly over all steps where there are more prompts."""
    mixed = min(steps, starts)
    tokens = np.array([run.load, run.load + run.prompt * starts / mixed])
    return tokens, np.array([steps - mixed, mixed])


def _windows(stages: tuple[StageOps, ...]) -> list[int]:
    found = {getattr(op, "window", 0) or FULL for s in stages for layer, _ in s.layers for op in layer.ops}
    return sorted(found | {FULL})


def _context(run: EnergyRun, window: int) -> float:
    """Mean of min(context, window) over the life of a sequence [tokens]."""
    at = np.linspace(run.prompt, run.prompt + run.output, 65)
    return float(np.minimum(at, window).mean())


def _prompt_pairs(run: EnergyRun, window: int) -> float:
    """Query-key pairs of one prompt under a causal mask and a window."""
    inside = min(run.prompt, window)
    return inside * (run.prompt - inside / 2.0)


def given_watts(run: EnergyRun, law: PowerLaw | None = None) -> float:
    """Power of one GPU [W] with the measured throughput given."""
    rates = given_rates(run)
    return gpu_watts(run.gpu, rates.bytes_per_s, rates.flop_per_s, 1.0, law)


# ---- simulated ----------------------------------------------------------------------------------------------------------


def energy_row(row: Row, where: Path) -> Case | Skipped:
    """A row to simulate, with the prediction from the measured throughput beside it."""
    run = understand(row)
    return run if isinstance(run, Skipped) else case_of(run)


def case_of(run: EnergyRun, sort: int = -1) -> Case:
    """The run as a case; `sort` [bytes per vocabulary entry and sequence], -1: as the engine is known to."""
    row = run.row
    cluster, work = Cluster(run.gpu, run.plan.devices), _saturated(run) if run.steady else _benchmark(run)
    rules, note = rules_of(row["engine"], LEADERBOARD if run.steady else "")
    engine = engine_for(rules, {}, run.gpu, work.longest)
    if run.steady:
        engine = replace(leaderboard(engine, spelled(row, "model") or row["config"], sort), max_num_seqs=-(-run.load // run.plan.lanes))
    measured = {"power_w_per_gpu": number(row, "power_w_per_gpu"), "j_per_out_token": number(row, "J_per_out_token"),
                "out_tok_s_per_gpu": number(row, "out_tok_s_per_gpu")}  # fmt: skip
    known: dict[str, dict[str, float]] = {}
    if UNRELIABLE in spelled(row, "quality"):
        measured = {"j_per_out_token": measured["j_per_out_token"]}
    elif measured["out_tok_s_per_gpu"] > 0:
        known["power_w_per_gpu_throughput_given"] = {"measured": measured["power_w_per_gpu"], "predicted": given_watts(run)}
    measured = {name: value for name, value in measured.items() if value > 0}
    return Case(
        row["id"], run.model, cluster, engine, run.plan, work, work.longest, measured, run.labels, notes=run.assumed + note, known=known
    )


def leaderboard(engine: EngineRow, model: str, sort: int = -1) -> EngineRow:
    """The engine as the leaderboard drives it: token ids sent, sampling as the model asks; sort [bytes] as in `case_of`."""
    sampling = "greedy" if any(name in model for name in UNSORTED) else "top-p"
    moved = engine.logit_sort_bytes if sort < 0 else sort
    return replace(engine, tokenise_s=0.0, request_s=0.0, sampling=sampling, logit_sort_bytes=moved)


def _saturated(run: EnergyRun) -> Workload:
    """An endless queue in its steady state.

    `load` sequences of equal length at a time, spread evenly over their life: the first of each slot are cut short, and so are the last,
    so that all slots end together and the batch is full throughout.
    """
    done_before = (np.arange(run.load) + 0.5) / run.load
    share = np.concatenate([done_before, np.ones(run.load * (WAVES - 1)), 1.0 - done_before])
    output = np.maximum(np.rint(share * run.output), 1).astype(np.int64)
    prompt = np.full(len(output), max(1, round(run.prompt)), np.int64)
    return Workload(run.row["id"], np.zeros(len(output)), prompt, output, "offline")


def _benchmark(run: EnergyRun) -> Workload:
    """The serving benchmark: ten requests per user, lengths uniform up to the nominal ones of the task's name."""
    isl, osl = (int(x) for x in run.row["task"].removeprefix(BENCHMARK).split("/"))
    prompt, output = inferencex_population(isl, osl, 10 * run.load)
    return Workload(run.row["id"], np.zeros(10 * run.load), prompt, output, "closed", run.load)
