"""Seconds of an op on an array of token counts (floor 3): one row per op type, remembered per op."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.cost import attention, collectives, experts, gemm, scan, sparse
from apexsim.cost.attention import bidirectional, causal
from apexsim.cost.bank import Bank, load_bank
from apexsim.cost.collectives import Way
from apexsim.cost.factors import UNCHANGED, Factors
from apexsim.cost.grid import rising, settled
from apexsim.cost.load import STEEPEST, ExpertLoad
from apexsim.cost.ring import Wire, collective_formula
from apexsim.cost.roofline import BYTE_SHARE, Priced, Provenance, labelled
from apexsim.cost.shapes import ExpertLayer, RecurrentState, Routing
from apexsim.engine_file import Apart
from apexsim.engines import EngineRow, Fused, kernels_of
from apexsim.hardware import Cluster
from apexsim.model.ops import Attend, Collective, Cross, Gemm, Grouped, Index, Mla, Op, Scan, Stream

Array = NDArray[np.float64]
USUAL = ExpertLoad()
CACHE_SPEED = 3.0  # last-level cache over DRAM bandwidth: 2 (H100) to 4.5 (RTX PRO 6000) by vendors' figures


class Pricer:
    """Prices ops on one cluster.  Equal ops on equal axes are priced once, whatever plan they come from.

    load: how unevenly tokens fall on routed experts; fused: up to which message all-reduces of so many ranks run the kernel that adds
    residual and norm; apart: what the quantisation of activations is not joined to, by format; by default as the engine does whose
    kernels these are; joined: how products of one input run, as `EngineRow.joined_inputs`; elsewhere: a format of whole experts and the
    source whose kernels they run.
    """

    def __init__(
        self,
        bank: Bank,
        cluster: Cluster,
        custom_all_reduce: bool = True,
        load: ExpertLoad = USUAL,
        fused: Fused = (),
        apart: Apart | None = None,
        joined: int = 1,
        elsewhere: tuple[str, str] | None = None,
    ) -> None:
        self.bank, self.cluster, self.custom, self.load, self.fused = bank, cluster, custom_all_reduce, load, dict(fused)
        self.joined = joined
        self.elsewhere = (elsewhere[0], load_bank(cluster.gpu, elsewhere[1])) if elsewhere else None
        self.apart = dict(kernels_of(bank.source).quantises_apart if apart is None else apart)
        self.factors = UNCHANGED
        self._seen: dict[tuple[Any, ...], Any] = {}

    def scaled(self, factors: Factors) -> Pricer:
        """The same prices times what a calibration found; what was priced before is not priced again."""
        other = copy.copy(self)
        other.factors = factors
        return other

    def on(self, cluster: Cluster) -> Pricer:
        """What the same kernels take on other GPUs, say the same at another clock."""
        other = copy.copy(self)
        other.cluster, other.bank, other._seen = cluster, load_bank(cluster.gpu, self.bank.source), {}
        other.elsewhere = (self.elsewhere[0], load_bank(cluster.gpu, self.elsewhere[1].source)) if self.elsewhere else None
        return other

    def dense(self, op: Op, n: Array, captured: bool) -> Priced:
        """Seconds [n] of an op that grows with tokens, n ascending; `captured`: the step is replayed from a graph."""
        return _times(self.as_timed(op, n, captured), self.factors.decode if captured else self.factors.prefill)

    def as_timed(self, op: Op, n: Array, captured: bool) -> Priced:
        """The same before any calibration."""
        key = (op, captured, len(n), float(n[-1]))
        if key not in self._seen:
            priced = DENSE[type(op)](self, op, n, captured)
            self._seen[key] = Priced(rising(priced.seconds), priced.provenance)
        found: Priced = self._seen[key]
        return found

    def decode(self, op: Attend | Cross | Mla | Index, batch: Array, context: Array) -> Priced:
        """Seconds [d, c] of decode attention for `batch` sequences at mean `context`, both ascending: never falling along either."""
        key = (op, "decode", len(batch), float(batch[-1]), len(context), float(context[-1]))
        if key not in self._seen:
            priced = ATTEND[type(op)][0](self.bank, op, batch[:, None], context[None, :])
            self._seen[key] = Priced(settled(settled(priced.seconds, 0), 1), priced.provenance)
        return _times(self._seen[key], self.factors.decode)

    def prefill(self, op: Attend | Cross | Mla | Index, length: Array) -> tuple[Priced, float]:
        """Marginal seconds [x] of one prompt of `length`, and the launch of the kernel [s]."""
        key = (op, "prefill", len(length), float(length[-1]))
        if key not in self._seen:
            self._seen[key] = ATTEND[type(op)][1](self.bank, op, length)
        priced, launch = self._seen[key]
        return _times(priced, self.factors.prefill), launch * self.factors.prefill


def _times(priced: Priced, factor: float) -> Priced:
    return priced if factor == 1.0 else Priced(priced.seconds * factor, priced.provenance)


def pricer_for(engine: EngineRow, cluster: Cluster, load: ExpertLoad = USUAL, custom_all_reduce: bool = True) -> Pricer:
    """The pricer of an engine's kernels on a cluster; their own all-reduce reads the memory of other GPUs, so that it needs a way there."""
    bank, server = load_bank(cluster.gpu, engine.server.kernels), engine.server
    custom, fused = custom_all_reduce and cluster.gpu.link.peer, engine.fused(cluster.gpu.arch)
    arch, form, source = engine.experts_as.split() if engine.experts_as else ("", "", "")
    elsewhere = (form, source) if form and arch == cluster.gpu.arch else None
    return Pricer(bank, cluster, custom, load, fused, server.quantises_apart, engine.joined_inputs, elsewhere)


def quantised_apart(pricer: Pricer, op: Op) -> bool:
    """Whether a kernel of its own quantises the activations in front of an op."""
    return isinstance(op, Gemm) and op.after in pricer.apart.get(op.kernel, ())


def _gemm(pricer: Pricer, op: Gemm, n: Array, captured: bool) -> Priced:
    if op.aside and captured and pricer.joined > 1:
        return labelled(np.zeros_like(n), Provenance.MEASURED)
    if op.parts > 1 and not pricer.joined:
        one = _gemm(pricer, replace(op, n=-(-op.n // op.parts), parts=1), n, captured)
        return Priced(op.parts * one.seconds, one.provenance)
    priced = gemm.price(pricer.bank, n, op.n, op.k, op.kernel)
    if not quantised_apart(pricer, op):
        return priced
    return Priced(rising(priced.seconds) + settled(gemm.quantise(pricer.bank, n, op.k, op.kernel).seconds), priced.provenance)


def _stream(pricer: Pricer, op: Stream, n: Array, captured: bool) -> Priced:
    """Bytes / (0.8 · bandwidth), no launch; what fits the last-level cache was written there by the kernel before and is read CACHE_SPEED
    times faster."""
    nbytes = n * op.bytes_per_token
    cached = np.minimum(nbytes, pricer.cluster.gpu.cache_bytes)
    seconds = (nbytes - cached + cached / CACHE_SPEED) / (BYTE_SHARE * pricer.bank.peaks.bandwidth)
    return labelled(seconds, Provenance.ROOFLINE)


def _grouped(pricer: Pricer, op: Grouped, n: Array, captured: bool) -> Priced:
    """Routed experts; a captured step runs the shared ones on a second stream, so the longer of both counts.

    Ignored: that engines do so only up to some batch (256 tokens in vLLM); beyond it the routed experts are far longer.
    """
    priced = _sent(pricer, op, n, captured) if op.sent else _gathered(pricer, op, n)
    if captured and op.beside:
        own = [np.ceil(n * op.split / product.split) for product in op.beside]
        other = np.sum([pricer.as_timed(g, m, captured).seconds for g, m in zip(op.beside, own, strict=True)], axis=0)
        return Priced(np.maximum(priced.seconds, other), priced.provenance)
    return priced


def _sent(pricer: Pricer, op: Grouped, n: Array, captured: bool) -> Priced:
    """Experts of the rank that is sent most."""
    name, more = pricer.load.sent(op.experts, op.ep, captured)
    priced = experts.local(pricer.bank, n * more, _layer(op), op.kernel, "decode" if captured else "prefill", name)
    return Priced(rising(priced.seconds), priced.provenance)


def _gathered(pricer: Pricer, op: Grouped, n: Array) -> Priced:
    """Experts of a rank that is handed the tokens of all."""
    load = pricer.load
    name, more, lean = load.timed(op.top_k, op.experts), load.imbalance(op.experts, op.ep), load.lean(op.experts, op.top_k)
    if not load.name and name == STEEPEST:
        priced = experts.routed(_bank_of(pricer, op), n, _layer(op), op.kernel, op.skew)
    else:
        priced = _experts(pricer, op, n * (load.capacity or 1.0), name)
    seconds = rising(priced.seconds)
    if more > 1.0 and not load.capacity:
        seconds = np.maximum(seconds, _busiest(pricer, op, n * more, name))
    elif lean and op.ep == 1:
        uneven = rising(_experts(pricer, op, n, STEEPEST).seconds)
        seconds = seconds + lean * np.maximum(uneven - seconds, 0.0)
    return Priced(seconds, priced.provenance)


def _busiest(pricer: Pricer, op: Grouped, n: Array, load: str) -> Array:
    """Seconds of a rank that carries as much as an even one does of n tokens, on points that are the same for every n: measured curves
    dip, and who carries more is never done sooner."""
    points = _SIZES[: int(np.searchsorted(_SIZES, n.max())) + 1]
    return np.interp(n, points, rising(_experts(pricer, op, points, load).seconds))


_SIZES = np.unique(np.concatenate([np.arange(1.0, 65.0), *np.outer(2.0 ** np.arange(6, 26), 1.0 + np.arange(8) / 8)]))


def _experts(pricer: Pricer, op: Grouped, n: Array, load: str) -> Priced:
    return experts.price(_bank_of(pricer, op), n, _layer(op), op.kernel, load)


def _bank_of(pricer: Pricer, op: Grouped) -> Bank:
    """Where the kernels of gathered experts stand."""
    return pricer.elsewhere[1] if pricer.elsewhere and op.ep == 1 and pricer.elsewhere[0] == op.kernel else pricer.bank


def _layer(op: Grouped) -> ExpertLayer:
    return ExpertLayer(op.hidden, op.inner, op.top_k, op.experts, op.tp, op.ep, op.gated)


def _scan(pricer: Pricer, op: Scan, n: Array, captured: bool) -> Priced:
    phase, batch, length = ("decode", n, np.ones_like(n)) if captured else ("prefill", np.ones_like(n), n)
    state = RecurrentState(op.key_heads, op.value_heads, op.key_dim, op.value_dim)
    return scan.price(pricer.bank, op.kind, phase, batch, length, state)


def _mla_bmm(pricer: Pricer, op: Mla, n: Array, captured: bool) -> Priced:
    if not captured or op.direct:
        return labelled(np.zeros_like(n), Provenance.MEASURED)
    return scan.absorbed(pricer.bank, n, op.heads)


def _collective(pricer: Pricer, op: Collective, n: Array, captured: bool) -> Priced:
    """Within the scale-up domain as measured, and across nodes where whole nodes (or a GPU of each) were timed so; otherwise
    scatter inside, exchange across, gather inside."""
    if op.route is not None:
        return _dispatch(pricer, op, n, captured)
    nbytes, gpu = n * op.bytes_per_token, pricer.cluster.gpu
    link = pricer.cluster.link(op.group, op.stride)
    if link is not gpu.nic:
        beyond = link if gpu.has_scale_up and link is gpu.host else None  # of bridged pairs
        return _within(pricer, op, nbytes, beyond)
    inside = max(1, min(op.group, pricer.cluster.per_node // op.stride))
    outside = -(-op.group // inside)
    if op.stride == 1 and collectives.spans_measured(pricer.bank, op.kind, outside):
        return collectives.price(pricer.bank, op.kind, nbytes, op.group, Way(outside, nccl=True))
    across = nbytes / inside if op.kind == "all_reduce" else nbytes
    seconds = collective_formula(op.kind, across, outside, link.bandwidth, link.latency, link.launch)
    if inside > 1:
        for kind in ("reduce_scatter", "all_gather") if op.kind == "all_reduce" else (op.kind,):
            seconds = seconds + collectives.price(pricer.bank, kind, nbytes, inside).seconds
    return labelled(seconds, Provenance.ROOFLINE)


def _within(pricer: Pricer, op: Collective, nbytes: Array, beyond: Wire | None) -> Priced:
    """Within a scale-up domain: all-reduces of small messages join the norm behind them, larger ones and other collectives do not."""
    way = Way(nccl=not pricer.custom)
    apart = collectives.price(pricer.bank, op.kind, nbytes, op.group, way, beyond)
    largest = pricer.fused.get(op.group, 0.0) if op.kind == "all_reduce" else 0.0
    if not largest:
        return apart
    joined, small = collectives.price(pricer.bank, op.kind, nbytes, op.group, way._replace(fused=True), beyond), nbytes <= largest
    return Priced(np.where(small, joined.seconds, apart.seconds), np.where(small, joined.provenance, apart.provenance))


def _dispatch(pricer: Pricer, op: Collective, n: Array, captured: bool) -> Priced:
    """Tokens to their experts and back: as measured for 8 GPUs a node, else by formula on the links that they cross."""
    assert op.route is not None
    cluster, route = pricer.cluster, Routing(*op.route)
    tokens = np.ceil(n / op.group)
    nodes = max(1, op.group * op.stride // cluster.per_node)
    timed = collectives.dispatch(pricer.bank, tokens, route, op.group, nodes, captured)
    if timed is not None:
        return timed
    domains = -(-op.group * op.stride // cluster.domain)
    reach = collectives.RankReach(op.group, domains, cluster.link(2) if domains < op.group else cluster.gpu.nic, cluster.gpu.nic)
    priced = collectives.exchange(tokens, route, reach, captured)
    fitted = pricer.bank.fitted
    return Priced(priced.seconds + 2.0 * fitted.exchange, priced.provenance) if fitted and captured else priced


DENSE: dict[type, Callable[[Pricer, Any, Array, bool], Priced]] = {
    Gemm: _gemm,
    Stream: _stream,
    Grouped: _grouped,
    Scan: _scan,
    Mla: _mla_bmm,
    Collective: _collective,
}


def _attend_decode(bank: Bank, op: Attend, batch: Array, context: Array) -> Priced:
    if not op.causal:  # an encoder does not decode
        return labelled(np.zeros(np.broadcast_shapes(batch.shape, context.shape)), Provenance.MEASURED)
    ask = causal("decode", op.heads, op.kv_heads, op.head_dim, op.window, op.kv_dtype)
    return attention.price(bank, ask, batch, np.maximum(context, 1.0))


def _attend_prefill(bank: Bank, op: Attend, length: Array) -> tuple[Priced, float]:
    shape = (op.heads, op.kv_heads, op.head_dim, op.window, op.kv_dtype)
    ask = causal("prefill", *shape) if op.causal else bidirectional(op.heads, op.head_dim)
    return attention.marginal(bank, ask, length), attention.launch(bank, ask)


def _cross_decode(bank: Bank, op: Cross, batch: Array, context: Array) -> Priced:
    """Decode attention over `source` tokens, however long the request's own context."""
    ask = causal("decode", op.heads, op.kv_heads, op.head_dim, 0, op.kv_dtype)
    return attention.price(bank, ask, batch, context * 0.0 + op.source)


def _cross_prefill(bank: Bank, op: Cross, length: Array) -> tuple[Priced, float]:
    """Per prompt: projecting the source once (also at length 0, so that a prompt cut in chunks pays once), and q tokens over
    S: the share q / S of bidirectional attention over S."""
    if not op.source:
        return labelled(np.zeros_like(length), Provenance.MEASURED), 0.0
    ask, source = bidirectional(op.heads, op.head_dim), np.array([float(op.source)])
    whole, once = attention.marginal(bank, ask, source), gemm.price(bank, source, op.project.n, op.project.k, op.project.kernel)
    seconds = once.seconds[0] + length / op.source * whole.seconds[0]
    return labelled(seconds, Provenance(int(max(whole.provenance[0], once.provenance[0])))), attention.launch(bank, ask)


ATTEND: dict[type, tuple[Callable[..., Priced], Callable[..., tuple[Priced, float]]]] = {
    Attend: (_attend_decode, _attend_prefill),
    Cross: (_cross_decode, _cross_prefill),
    Mla: (sparse.mla_decode, sparse.mla_prefill),
    Index: (sparse.index_decode, sparse.index_prefill),
}
