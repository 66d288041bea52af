"""Decode steps and prompts priced without an engine, beside what physics makes of them: for the laws, and for wider scans.

`tests/laws/test_physics.py` holds the laws on every GPU; `scripts/scan_physics.py` counts what breaks them over more models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from apexsim.cost.bank import load_bank
from apexsim.cost.price import Pricer
from apexsim.cost.roofline import Peaks
from apexsim.cost.tables import Reader, runs
from apexsim.cost.work import Demand, compute_of, work
from apexsim.engine.types import DECODE, FULL, PROMPT
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.model.ops import Attend, Cross, Grouped, Index, Mla, Op
from apexsim.plan.choose import precision_of
from apexsim.plan.lower import lower
from apexsim.plan.plan import parse_plan

Array = NDArray[np.float64]
Ops = tuple[tuple[Op, int], ...]
# One of each kind: dense, experts, latent attention with experts, linear attention with experts, windows with 4-bit experts, a text part.
KINDS = {"llama-3.1-8b": "TP1", "qwen3-30b-a3b": "TP1", "deepseek-v3": "TP8", "qwen3-next-80b-a3b-instruct": "TP2", "gpt-oss-20b": "TP1",
         "qwen2.5-vl-7b-instruct": "TP1"}  # fmt: skip
MORE = {"llama-2-7b": "TP1", "llama-3.1-70b": "TP8", "mixtral-8x7b": "TP2", "qwen3-8b": "TP1", "deepseek-v3.2": "TP8",
        "xiaomimimo--mimo-v2-flash": "TP4", "qwen--qwen3.5-35b-a3b": "TP1"}  # fmt: skip
WIDER = {"gpt-oss-20b": ("TP1", "TP2", "TP4"), "qwen3-30b-a3b": ("TP1", "TP2", "TP4"), "llama-3.1-8b": ("TP1", "TP2", "TP4", "TP8")}
SOURCES = ("vllm", "sglang", "trtllm")
FORMATS = ("bf16", "fp8", "fp8_block", "int4", "nvfp4")
BATCH = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0])
CONTEXT = np.array([128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0])
NTH, SMALL = 3, 16.0  # of the points that bounds are counted at; batch up to which weights are what takes the time
PROMPTS = np.array([128.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0])


@dataclass(frozen=True, slots=True)
class Step:
    """What one GPU of a plan takes, and takes at least [s]; decode steps are [batch, context], what is least at every NTH of both."""

    decode: Array
    moved: Array  # bytes / bandwidth
    products: Array  # FLOP / peak
    prompt: Array  # [length]
    prompt_products: Array  # [length]
    experts: Array  # [batch] experts of a decode step, without kernels that quantise their activations apart


@cache
def _pricer(gpu: str, source: str, gpus: int, apart: bool) -> Pricer:
    """apart: activations are quantised in kernels of their own where the engine does so."""
    found = load_gpu(gpu)
    return Pricer(load_bank(found, source), Cluster(found, gpus), apart=None if apart else {})


@cache
def _ops(model: str, plan: str, weights: str, flops: tuple[tuple[str, float], ...]) -> Ops:
    loaded = load_model(model)
    shape = parse_plan(plan, precision_of(loaded, None if weights == "auto" else weights, None, None))
    found: list[tuple[Op, int]] = []
    for stage in lower(loaded, shape, dict(flops), 8):
        found += [(op, n) for layer, n in stage.layers for op in layer.ops]
        found += [(op, 1) for op in (*stage.entry, *stage.head)]
    return tuple(found)


def _fastest(op: Op) -> str:
    """The fastest units that an op may use: an 8-bit cache may be multiplied as it is."""
    return "fp8" if getattr(op, "kv_dtype", "").startswith("fp8") else compute_of(op)


def step(model: str, plan: str, gpu: str, source: str, weights: str) -> Step:
    """One model on one GPU with one engine's kernels; weights: a format, or auto for the checkpoint's own."""
    pricer, joined = (_pricer(gpu, source, parse_plan(plan).stage_devices, apart) for apart in (True, False))
    ops = _ops(model, plan, weights, tuple(sorted(load_gpu(gpu).flops.items())))
    decode, prompt, experts = np.zeros((len(BATCH), len(CONTEXT))), np.zeros(len(PROMPTS)), np.zeros(len(BATCH))
    for op, n in ops:
        if isinstance(op, Reader):
            decode += n * pricer.decode(op, BATCH, CONTEXT).seconds
            cost, launch = pricer.prefill(op, PROMPTS)
            prompt += n * (cost.seconds + launch)
        if not isinstance(op, (Attend, Cross, Index)):
            each = n * pricer.dense(op, BATCH, True).seconds * runs(op, DECODE)
            decode += each[:, None]
            if isinstance(op, Grouped):
                experts += n * joined.dense(op, BATCH, True).seconds
            prompt += n * pricer.dense(op, PROMPTS, False).seconds * runs(op, PROMPT)
    moved, products, prompt_products = _bounds(model, plan, gpu, weights)
    return Step(decode, moved, products, prompt, prompt_products, experts)


@cache
def _bounds(model: str, plan: str, gpu: str, weights: str) -> tuple[Array, Array, Array]:
    """(moved, products, prompt_products) of a step: what physics asks of every engine."""
    card = load_gpu(gpu)
    ops, peaks = _ops(model, plan, weights, tuple(sorted(card.flops.items()))), load_bank(card, SOURCES[0]).peaks
    few = [[_least(ops, peaks, b, c) for c in CONTEXT[::NTH]] for b in BATCH[::NTH]]
    moved, products = (np.array([[cell[i] for cell in row] for row in few]) for i in (0, 1))
    return moved, products, np.array([_prompt(ops, peaks, q) for q in PROMPTS])


def _windows(ops: Ops) -> list[int]:
    """Of attention, and of sparse attention the tokens that its indexer keeps."""
    kept = {op.top_k for op, _ in ops if isinstance(op, Mla) and op.top_k and not op.compress}
    return sorted({getattr(op, "window", 0) or FULL for op, _ in ops} | kept | {FULL})


def _least(ops: Ops, peaks: Peaks, batch: float, context: float) -> tuple[float, float]:
    """Seconds that bytes and FLOP of a decode step take at the peaks."""
    pairs = tuple((w, batch * min(context, w), 0.0) for w in _windows(ops))
    done = [(op, n, work(op, Demand(batch, 0.0, 1.0, 1, pairs, batch))) for op, n in ops if runs(op, DECODE)]
    return sum(n * b for _, n, (_, b) in done) / peaks.bandwidth, sum(n * f / peaks.rate(_fastest(op)) for op, n, (f, _) in done)


def _prompt(ops: Ops, peaks: Peaks, length: float) -> float:
    """Seconds that the FLOP of a prompt take at the peaks."""
    pairs = tuple((w, 0.0, min(length, w) * (length - min(length, w) / 2.0)) for w in _windows(ops))
    done = ((op, n, work(op, Demand(0.0, length, 1.0, 1, pairs, 1.0))) for op, n in ops if runs(op, PROMPT))
    return sum(n * f / peaks.rate(_fastest(op)) for op, n, (f, _) in done)


# ── laws: each gives what breaks it, as ratios beyond 1 ─────────────────────────────────────────────────────────────

EXACT = 1e-6  # of arithmetic
SPLIT = 2.0  # times as long as on half of the GPUs: all-reduces of small models over PCIe take longer than what they save
LIGHT = 1.02  # reports count activations in 16 bit, which FP4 kernels read in fewer
JUMP = 1.6  # of a step's growth over that of its batch or context: kernels change tiles and splits
BETTER = 1.22  # measured tables of two GPUs agree no better; experts in NVFP4 of TensorRT-LLM, timed on B200 alone, are 1.5 at 512 tokens
FAMILIES = {
    "h200-sxm": "h100-sxm",
    "b200-sxm": "h200-sxm",
    "b300-sxm": "b200-sxm",
    "gb300": "gb200",
    "h100-sxm": "a100-sxm-80gb",
    "a100-sxm-80gb": "a100-sxm-40gb",
    "a100-pcie-80gb": "a100-pcie-40gb",
    "h100-nvl": "h100-pcie",
    "gh200-144gb": "gh200-96gb",
    "l40s": "l4",
    "rtx-6000-ada": "l4",
    "rtx-4090": "l4",
    "rtx-pro-6000": "gb10",
    "rtx-5090": "gb10",
    "mi325x": "mi300x",
    "rtx-5080": "rtx-5070-ti",
    "rtx-5070-ti": "rtx-5070",
    "rtx-5070": "rtx-5060-ti-16gb",
    "rtx-4080": "rtx-4070",
    "rtx-4090-d": "rtx-4080",
    "rtx-4070": "rtx-4060-ti-16gb",
    "rtx-3090-ti": "rtx-3090",
    "rtx-3090": "rtx-3080-20gb",
    "rtx-3080-20gb": "rtx-3060-12gb",
    "l40": "l20",
    "rtx-a6000": "rtx-a5000",
    "rtx-a5000": "rtx-a4000",
    "rtx-pro-5000": "rtx-pro-4500",
    "h20-141gb": "h20",
    "h200-nvl": "h100-pcie",
    "mi60": "mi50-32gb",
    "mi210": "mi100",
    "mi355x": "mi350x",
    "b70": "b580",
    "ascend-910b1": "ascend-910b2",
    "n300": "n150",
    "ascend-910b3": "ascend-910b4",
    "rx-7900-xtx": "strix-halo",
}
SLICES = {"h100:1g.10gb": "h100-sxm", "h100:3g.40gb": "h100-sxm", "a100-80gb:2g.20gb": "a100-sxm-80gb", "a30:1g.6gb": "a30",
          "b200:1g.23gb": "b200-sxm", "rtx-pro-6000:2g.48gb": "rtx-pro-6000"}  # fmt: skip


def comparable(plan: str, gpu: str, weights: str) -> bool:
    """Whether a GPU can be held against the lesser one.

    FP4 units exist from Blackwell on, where formulas of unpacking end; a tray of GB200 and GB300 has four GPUs, beyond which only GB300 was
    timed."""
    lesser = load_gpu(FAMILIES[gpu])
    return (weights != "nvfp4" or "fp4" in lesser.flops) and not (gpu == "gb300" and parse_plan(plan).stage_devices > 4)


def faster_than_light(found: Step) -> float:
    """The least time over the time taken, bytes and FLOP, decode steps and prompts; at most 1."""
    taken = found.decode[::NTH, ::NTH]
    return float(max((found.moved / taken).max(), (found.products / taken).max(), (found.prompt_products / found.prompt).max()))


def falls(found: Step) -> float:
    """How much longer a step takes than one of a larger batch, or of a longer context."""
    less = [found.decode[:-1] / found.decode[1:], (found.decode[:, :-1] / found.decode[:, 1:])]
    return float(max(x.max() for x in less))


def jumps(found: Step) -> float:
    """How much more a step takes than one of the next smaller batch or context, over how much larger that is."""
    grown = [found.decode[1:] / found.decode[:-1] / (BATCH[1:] / BATCH[:-1])[:, None],
             found.decode[:, 1:] / found.decode[:, :-1] / (CONTEXT[1:] / CONTEXT[:-1])]  # fmt: skip
    return float(max(x.max() for x in grown))


def slower(found: Step, other: Step, few: bool = False) -> float:
    """How much longer the experts (few: of small batches), or whole decode steps and prompts, take than another's."""
    if few:
        sums = found.experts[BATCH <= SMALL], other.experts[BATCH <= SMALL]
        return float((sums[0] / sums[1]).max()) if sums[1].all() else 0.0
    return float(max((found.decode / other.decode).max(), (found.prompt / other.prompt).max()))
