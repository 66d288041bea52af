"""FLOP and bytes of ops on one device, for utilisation and for checks (floor 3).

What kernels really do: replicated heads, touched weights of every step, cache read by every decode.  Padding is no work.
Products count 2·m·n·k; attention 2·heads·(key + value width) per query-key pair; scans 8·state per token; norms, top-k and
collectives nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from apexsim.cost.roofline import KERNELS, Array, Peaks
from apexsim.cost.shapes import STATE_BYTES
from apexsim.cost.sparse import SCALE, seen
from apexsim.engine.types import FULL
from apexsim.model.dtypes import dtype
from apexsim.model.ops import Attend, Axis, Cross, Gemm, Grouped, Index, Mla, Op, Scan


@dataclass(frozen=True, slots=True)
class Demand:
    """What a replica processed: tokens of all lanes, steps, query-key pairs by window, and how large the steps were.

    sizes: (tokens of all lanes [n], steps of that size [n]); () = all steps alike.
    """

    decode: float
    prompt: float
    steps: float = 1.0
    lanes: int = 1
    pairs: tuple[tuple[int, float, float], ...] = ()  # (window, decode, prompt), all lanes
    sampled: float = 0.0
    sizes: tuple[Array, ...] = ()

    def tokens(self, op: Any) -> float:
        """Tokens that one device meets in an op."""
        if op.axis is Axis.SEQUENCE:
            return self.sampled
        share = self.lanes if op.axis is Axis.LANE else op.split
        kinds = {"": self.decode + self.prompt, "decode": self.decode, "prompt": self.prompt}
        return kinds[getattr(op, "only", "")] / share

    def read(self, window: int) -> tuple[float, float]:
        """Query-key pairs (decode, prompt) of one lane under a window, or under the nearest one that was counted."""
        if not self.pairs:
            return 0.0, 0.0
        _, decode, prompt = min(self.pairs, key=lambda row: abs(np.log(row[0]) - np.log(window or FULL)))
        return decode / self.lanes, prompt / self.lanes


def _gemm(op: Gemm, d: Demand) -> tuple[float, float]:
    m = d.tokens(op)
    return 2.0 * op.n * op.k * m, op.weight_bytes * op.n * op.k * d.steps + 2.0 * (op.n + op.k) * m


def _grouped(op: Grouped, d: Demand) -> tuple[float, float]:
    pairs = d.tokens(op) * op.top_k / op.ep
    expert = (3 if op.gated else 2) * op.hidden * op.inner / op.tp
    n, steps = d.sizes or (np.array([(d.decode + d.prompt) / max(d.steps, 1.0)]), np.array([d.steps]))
    idle = 1.0 - op.top_k / max(op.experts, op.top_k + 1)
    touched = float((steps * (1.0 - idle ** (n / op.split))).sum()) * op.experts / op.ep
    return 2.0 * expert * pairs, op.weight_bytes * expert * touched


def _attend(op: Attend, d: Demand) -> tuple[float, float]:
    decode, prompt = d.read(op.window)
    if not op.causal:  # each token sees all, not those before it
        prompt *= 2.0
    width = op.head_dim + op.v_head_dim
    return 2.0 * op.heads * width * (decode + prompt), dtype(op.kv_dtype).stored * op.kv_heads * width * decode


def _cross(op: Cross, d: Demand) -> tuple[float, float]:
    """Every token reads the source; a request (what is sampled and not decoded) projects it once."""
    decode, prompt, requests = d.decode / d.lanes, d.prompt / d.lanes, max(0.0, d.sampled - d.decode / d.lanes)
    width, size = op.head_dim + op.v_head_dim, op.project.n * op.project.k
    flop = 2.0 * op.heads * width * op.source * (decode + prompt) + 2.0 * size * op.source * requests
    read = dtype(op.kv_dtype).stored * op.kv_heads * width * op.source * decode
    return flop, read + op.project.weight_bytes * size * requests


def _mla(op: Mla, d: Demand) -> tuple[float, float]:
    """Absorbed products of a decode and its reading of the latent; decompressed heads of a prompt."""
    decode, prompt = d.read(op.top_k if not op.compress else 0)
    tokens = d.decode / d.lanes
    if op.compress:
        decode, prompt = (float(n * seen(op, np.asarray(r / max(n, 1.0)))) for n, r in ((tokens, decode), (d.prompt / d.lanes, prompt)))
    absorbed = 2 * op.kv_rank + op.rope_dim if not op.direct else op.kv_rank + op.rope_dim + op.v_dim
    plain = absorbed if op.direct else op.nope_dim + op.rope_dim + op.v_dim
    products = 0.0 if op.direct else 2.0 * op.heads * op.kv_rank * (op.nope_dim + op.v_dim) * tokens
    each = dtype(op.kv_dtype).stored * (op.kv_rank + op.rope_dim)
    return products + 2.0 * op.heads * (absorbed * decode + plain * prompt), each * decode


def _index(op: Index, d: Demand) -> tuple[float, float]:
    decode, prompt = d.read(FULL)
    return 2.0 * op.heads * op.dim * (decode + prompt) / op.compress, (op.dim + SCALE) * decode / op.compress


def _scan(op: Scan, d: Demand) -> tuple[float, float]:
    size = op.value_heads * op.key_dim * op.value_dim
    decode = d.decode / (d.lanes if op.axis is Axis.LANE else op.split)
    return 8.0 * size * d.tokens(op), 2.0 * STATE_BYTES * size * decode


WORK: dict[type, Callable[[Any, Demand], tuple[float, float]]] = {
    Gemm: _gemm, Grouped: _grouped, Attend: _attend, Cross: _cross, Mla: _mla, Index: _index, Scan: _scan,
}  # fmt: skip


def work(op: Op, demand: Demand) -> tuple[float, float]:
    """(FLOP, bytes) of one op on one device."""
    rule = WORK.get(type(op))
    return rule(op, demand) if rule else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Done:
    """Work of one device: FLOP, FLOP as bf16 would need them (a format that is twice as fast counts half), DRAM bytes."""

    flop: float = 0.0
    flop16: float = 0.0
    nbytes: float = 0.0


def done(ops: Iterable[tuple[Op, int]], demand: Demand, peaks: Peaks) -> Done:
    """The work of ops and how often each occurs."""
    flop = flop16 = nbytes = 0.0
    for op, count in ops:
        f, b = work(op, demand)
        flop, nbytes = flop + count * f, nbytes + count * b
        flop16 += count * f * peaks.rate("bf16") / peaks.rate(compute_of(op))
    return Done(flop, flop16, nbytes)


def compute_of(op: Op) -> str:
    """The format an op multiplies in: that of its kernel, bf16 for attention and scans."""
    kernel = KERNELS.get(getattr(op, "kernel", ""))
    return kernel.compute if kernel else "bf16"
