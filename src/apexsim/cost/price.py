"""Seconds of an op on an array of token counts (floor 3): one row per op type, remembered per op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.cost.bank import Bank, Priced, Provenance, collective_formula
from apexsim.cost.roofline import labelled
from apexsim.hardware import Cluster
from apexsim.model.ops import Attend, Collective, Gemm, Grouped, Mla, Op, Scan, Stream

Array = NDArray[np.float64]
CACHE_SPEED = 3.0  # last-level cache over DRAM bandwidth: 2 (H100) to 4.5 (RTX PRO 6000) by vendors' figures


class Pricer:
    """Prices ops on one cluster.  Equal ops on equal axes are priced once, whatever plan they come from."""

    def __init__(self, bank: Bank, cluster: Cluster, custom_all_reduce: bool = True) -> None:
        self.bank, self.cluster, self.custom = bank, cluster, custom_all_reduce
        self._seen: dict[tuple[Any, ...], Any] = {}

    def dense(self, op: Op, n: Array, captured: bool) -> Priced:
        """Seconds [n] of an op that grows with tokens; `captured`: the step is replayed from a graph."""
        key = (op, captured, len(n), float(n[-1]))
        if key not in self._seen:
            self._seen[key] = DENSE[type(op)](self, op, n, captured)
        return self._seen[key]

    def decode(self, op: Attend | Mla, batch: Array, context: Array) -> Priced:
        """Seconds [d, c] of decode attention for `batch` sequences at mean `context`."""
        key = (op, "decode", len(batch), float(batch[-1]), len(context), float(context[-1]))
        if key not in self._seen:
            self._seen[key] = ATTEND[type(op)][0](self.bank, op, batch[:, None], context[None, :])
        return self._seen[key]

    def prefill(self, op: Attend | Mla, length: Array) -> tuple[Priced, float]:
        """Marginal seconds [x] of one prompt of `length`, and the launch of the kernel [s]."""
        key = (op, "prefill", len(length), float(length[-1]))
        if key not in self._seen:
            self._seen[key] = ATTEND[type(op)][1](self.bank, op, length)
        return self._seen[key]


def _gemm(pricer: Pricer, op: Gemm, n: Array, captured: bool) -> Priced:
    priced = pricer.bank.gemm(n, op.n, op.k, op.kernel)
    return Priced(np.maximum.accumulate(priced.seconds), priced.provenance)


def _stream(pricer: Pricer, op: Stream, n: Array, captured: bool) -> Priced:
    """What fits the last-level cache was written there by the kernel before and is read CACHE_SPEED times faster."""
    nbytes = n * op.bytes_per_token
    cached = np.minimum(nbytes, pricer.cluster.gpu.cache_bytes)
    return pricer.bank.stream(nbytes - cached + cached / CACHE_SPEED)


def _grouped(pricer: Pricer, op: Grouped, n: Array, captured: bool) -> Priced:
    priced = pricer.bank.moe(
        n, op.hidden, op.inner, op.experts, op.top_k, op.tp, op.ep, op.kernel, op.distribution, op.gated
    )
    return Priced(np.maximum.accumulate(priced.seconds), priced.provenance)


def _scan(pricer: Pricer, op: Scan, n: Array, captured: bool) -> Priced:
    phase, batch, length = ("generation", n, np.ones_like(n)) if captured else ("context", np.ones_like(n), n)
    priced = pricer.bank.scan(op.kind, phase, batch, length, op.key_heads, op.value_heads, op.key_dim, op.value_dim)
    return Priced(np.maximum.accumulate(priced.seconds), priced.provenance)


def _mla_bmm(pricer: Pricer, op: Mla, n: Array, captured: bool) -> Priced:
    if not captured:
        return labelled(np.zeros_like(n), Provenance.MEASURED)
    return pricer.bank.mla_bmm(n, op.heads)


def _collective(pricer: Pricer, op: Collective, n: Array, captured: bool) -> Priced:
    """Within the scale-up domain as measured; across nodes scatter inside, exchange across, gather inside."""
    nbytes, gpu = n * op.bytes_per_token, pricer.cluster.gpu
    link = pricer.cluster.link(op.group, op.stride)
    if link is not gpu.nic:
        return pricer.bank.collective(op.kind, nbytes, op.group, graph=True, nccl=not pricer.custom)
    inside = max(1, min(op.group, pricer.cluster.per_node // op.stride))
    outside = -(-op.group // inside)
    across = nbytes / inside if op.kind == "all_reduce" else nbytes
    seconds = collective_formula(op.kind, across, outside, link.bandwidth, link.latency, link.launch)
    if inside > 1:
        for kind in ("reduce_scatter", "all_gather") if op.kind == "all_reduce" else (op.kind,):
            seconds = seconds + pricer.bank.collective(kind, nbytes, inside).seconds
    return labelled(seconds, Provenance.ROOFLINE)


DENSE: dict[type, Callable[[Pricer, Any, Array, bool], Priced]] = {
    Gemm: _gemm,
    Stream: _stream,
    Grouped: _grouped,
    Scan: _scan,
    Mla: _mla_bmm,
    Collective: _collective,
}


def _attend_decode(bank: Bank, op: Attend, batch: Array, context: Array) -> Priced:
    return bank.decode(batch, np.maximum(context, 1.0), op.heads, op.kv_heads, op.head_dim, op.window, op.kv_dtype)


def _attend_prefill(bank: Bank, op: Attend, length: Array) -> tuple[Priced, float]:
    shape = (op.heads, op.kv_heads, op.head_dim, op.window, op.kv_dtype)
    return bank.prefill_saturated(length, *shape), bank.prefill_launch(*shape)


def _mla_decode(bank: Bank, op: Mla, batch: Array, context: Array) -> Priced:
    seen = np.minimum(context, op.top_k) if op.top_k else context
    return bank.mla_decode(batch, np.maximum(seen, 1.0), op.heads, op.kv_rank + op.rope_dim, op.kv_dtype)


def _mla_prefill(bank: Bank, op: Mla, length: Array) -> tuple[Priced, float]:
    qk = op.nope_dim + op.rope_dim
    return bank.mla_prefill_saturated(length, op.heads, qk, op.kv_dtype), bank.mla_prefill_launch(
        op.heads, qk, op.kv_dtype
    )


ATTEND: dict[type, tuple[Callable[..., Priced], Callable[..., tuple[Priced, float]]]] = {
    Attend: (_attend_decode, _attend_prefill),
    Mla: (_mla_decode, _mla_prefill),
}
