"""The cost bank: seconds and provenance of every op on one GPU (floor 3).

A GPU with measured tables answers from them: points verbatim, utilisation interpolated in between.  A GPU without
borrows the utilisation of its nearest measured relative (`Gpu.borrow`) with its own peaks.  What nobody measured is
priced by a stated formula.  Everything is vectorised: sizes go in as arrays, `Priced` comes out, of their broadcast
shape.  Times are those of one device, alone and warm; nothing here knows about steps, layers or hosts.  Measured
curves dip where a kernel changes its tile: `grid.rising` makes them monotone where a caller needs that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from apexsim.cost import attend, comm, dispatch, gemm, quantise, scan
from apexsim.cost import experts as moe
from apexsim.cost.grid import rising
from apexsim.cost.kernels import ROOT
from apexsim.cost.library import GpuLike, Library
from apexsim.cost.ring import Wire, collective_formula
from apexsim.cost.roofline import BYTE_SHARE, Peaks, Priced, Provenance, labelled
from apexsim.cost.shapes import Heads, Layer, Route, State

__all__ = ["Bank", "Peaks", "Priced", "Provenance", "collective_formula", "load_bank", "rising"]


HOP = 2.0**24  # bytes: activations and residual of a thousand tokens


class Bank:
    """Prices of one GPU; `source` (vllm, sglang, trtllm) is the engine whose kernels are preferred."""

    def __init__(self, gpu: GpuLike, source: str = "vllm", root: Path = ROOT) -> None:
        self.library = Library(gpu, source, root)
        self.peaks: Peaks = self.library.peaks

    def gemm(self, m: ArrayLike, n: int, k: int, kernel: str) -> Priced:
        """y[m, n] = x[m, k] · w[k, n] for an array of m tokens; kernels: the keys of roofline.KERNELS."""
        return gemm.price(self.library, m, n, k, kernel)

    def prefill(self, batch: ArrayLike, length: ArrayLike, heads: int, kv_heads: int, head_dim: int, window: int = 0,
                kv_dtype: str = "bf16") -> Priced:  # fmt: skip
        """Causal attention of `batch` prompts of `length` tokens each, nothing cached before."""
        return attend.prefill(self.library, _ask("prefill", heads, kv_heads, head_dim, window, kv_dtype), batch, length)

    def decode(self, batch: ArrayLike, context: ArrayLike, heads: int, kv_heads: int, head_dim: int, window: int = 0,
               kv_dtype: str = "bf16") -> Priced:  # fmt: skip
        """Attention of one new token for each of `batch` sequences over `context` tokens (need not be whole)."""
        return attend.decode(
            self.library, _ask("decode", heads, kv_heads, head_dim, window, kv_dtype), batch, context
        )

    def prefill_saturated(self, length: ArrayLike, heads: int, kv_heads: int, head_dim: int, window: int = 0,
                          kv_dtype: str = "bf16") -> Priced:  # fmt: skip
        """Marginal cost P(l) of one prompt of l tokens in a batch that fills the GPU: P(0) = 0, rising, convex.

        A chunk of q tokens after c cached costs P(c + q) - P(c).
        """
        return attend.marginal(self.library, _ask("prefill", heads, kv_heads, head_dim, window, kv_dtype), length)

    def prefill_launch(
        self, heads: int, kv_heads: int, head_dim: int, window: int = 0, kv_dtype: str = "bf16"
    ) -> float:
        """Fixed time [s] of one prefill attention kernel: what one tiny prompt takes beyond its marginal cost."""
        return attend.launch(self.library, _ask("prefill", heads, kv_heads, head_dim, window, kv_dtype))

    def mla_prefill(
        self, batch: ArrayLike, length: ArrayLike, heads: int, qk_dim: int = 192, kv_dtype: str = "bf16"
    ) -> Priced:
        """Latent attention over prompts, keys and values decompressed (qk_dim = nope + rope); no projections."""
        return attend.prefill(self.library, _latent("prefill", heads, qk_dim, kv_dtype), batch, length)

    def mla_prefill_saturated(self, length: ArrayLike, heads: int, qk_dim: int = 192, kv_dtype: str = "bf16") -> Priced:
        """As `prefill_saturated`, for latent attention."""
        return attend.marginal(self.library, _latent("prefill", heads, qk_dim, kv_dtype), length)

    def mla_prefill_launch(self, heads: int, qk_dim: int = 192, kv_dtype: str = "bf16") -> float:
        """As `prefill_launch`, for latent attention."""
        return attend.launch(self.library, _latent("prefill", heads, qk_dim, kv_dtype))

    def mla_decode(
        self, batch: ArrayLike, context: ArrayLike, heads: int, latent: int = 576, kv_dtype: str = "bf16"
    ) -> Priced:
        """Absorbed latent attention, one new token per sequence (latent = rank + rope); no projections.

        Sparse attention that reads the best k tokens: give min(context, k), and price its indexer apart.
        """
        return attend.decode(self.library, _latent("decode", heads, latent, kv_dtype), batch, context)

    def mla_bmm(self, tokens: ArrayLike, heads: int, dtype: str = "bf16") -> Priced:
        """Both absorbed products of latent attention in decode."""
        return scan.bmm(self.library, tokens, heads, dtype)

    def encoder(self, batch: ArrayLike, length: ArrayLike, heads: int, head_dim: int) -> Priced:
        """Bidirectional attention of `batch` sequences of `length` tokens or patches."""
        ask = attend.Ask("encoder", "prefill", Heads(heads, heads, head_dim))
        return attend.price(self.library, ask, batch, length)

    def encoder_saturated(self, length: ArrayLike, heads: int, head_dim: int) -> tuple[Priced, float]:
        """As `prefill_saturated` and `prefill_launch`, for bidirectional attention."""
        ask = attend.Ask("encoder", "prefill", Heads(heads, heads, head_dim))
        return attend.marginal(self.library, ask, length), attend.launch(self.library, ask)

    def moe(self, tokens: ArrayLike, hidden: int, inner: int, experts: int, top_k: int, tp: int, ep: int, kernel: str,
            distribution: str = "power_law_1.2", gated: bool = True) -> Priced:  # fmt: skip
        """Routed experts of the slowest rank, without router and shared expert.

        tokens: of the whole layer, all ep ranks together; inner: of a whole expert, before tp; kernel: as in `gemm`,
        where mxfp4 is W4A8 on GPUs with FP4 units and W4A16 elsewhere; distribution: of the load, see experts.LOADS.
        """
        layer = Layer(hidden, inner, top_k, experts, tp, ep, gated)
        return moe.price(self.library, tokens, layer, kernel, distribution)

    def scan(self, kind: str, phase: str, batch: ArrayLike, length: ArrayLike, key_heads: int, value_heads: int,
             key_dim: int, value_dim: int) -> Priced:  # fmt: skip
        """Convolution and scan of a linear-attention layer (gdn, kda, mamba2); phase: prefill or decode."""
        state = State(key_heads, value_heads, key_dim, value_dim)
        return scan.scan(self.library, kind, phase, batch, length, state)

    def collective(self, kind: str, nbytes: ArrayLike, gpus: int, graph: bool = True, nccl: bool = False,
                   link: Wire | None = None, nodes: int = 1, fused: bool = False) -> Priced:  # fmt: skip
        """One collective of `gpus` ranks; `nbytes` as defined in `comm`.

        graph: the step is replayed from a captured graph (else the engine's eager kernel with its launch); nccl: the
        vendor library even for all-reduces; link: price by formula on this link, not from measurements; fused: the
        all-reduce that adds residual and norm (FlashInfer's is TensorRT-LLM's kernel, and priced as that).
        """
        found = comm.measured(self.library, kind, gpus, graph, nccl, nodes, "trtllm" if fused else "")
        return comm.price(self.library, kind, nbytes, gpus, found, link)

    def spans_measured(self, kind: str, nodes: int) -> bool:
        """Whether a collective across so many nodes was timed on this very GPU."""
        found = comm.measured(self.library, kind, 2, True, True, nodes)
        return found is not None and found.own

    def hop(self, link: Wire, nodes: int) -> tuple[float, float]:
        """Handing a message on to a GPU of this or of another node: fixed [s], and [s/byte].

        The straight line through the measured times of the smallest message and of one of HOP bytes where both were timed on this
        very GPU, else latency, launch and peak of the link.
        """
        found = comm.measured(self.library, "send", 2, True, True, nodes)
        if found is None or not found.own:
            return link.latency + link.launch, 1.0 / link.bandwidth
        small = float(found.curve.bytes[0])
        short, long = (float(x) for x in found.curve.price("send", [small, HOP], 2).seconds)
        return short, found.stretch * (long - short) / (HOP - small)

    def dispatch(self, tokens: ArrayLike, hidden: int, top_k: int, experts: int, gpus: int, low_latency: bool = True,
                 nodes: int = 1) -> Priced:  # fmt: skip
        """Expert-parallel dispatch and combine (DeepEP) of `tokens` per rank over `gpus` ranks on `nodes` nodes.

        low_latency: the decode kernels, else the high-throughput ones of prefill.
        """
        route = Route(hidden, top_k, experts)
        return dispatch.price(self.library, tokens, route, gpus, low_latency, nodes)

    def dispatch_measured(self, gpus: int, nodes: int, low_latency: bool) -> bool:
        """Whether dispatch over these ranks was timed on this very GPU."""
        return dispatch.measured(self.library, gpus, nodes, low_latency)

    def stream(self, nbytes: ArrayLike) -> Priced:
        """Element-wise work: bytes / (0.8 · bandwidth), no launch."""
        return labelled(np.asarray(nbytes, float) / (BYTE_SHARE * self.peaks.bandwidth), Provenance.ROOFLINE)

    def quantise(self, m: ArrayLike, k: int, kernel: str, dynamic: bool = False) -> Priced:
        """Quantisation of m tokens of k numbers for a GEMM kernel; dynamic adds the search for the scale."""
        return quantise.price(self.library, m, k, kernel, dynamic)


def _ask(phase: str, heads: int, kv_heads: int, head_dim: int, window: int, kv_dtype: str) -> attend.Ask:
    return attend.Ask("attention", phase, Heads(heads, kv_heads, head_dim, window), kv_dtype)


def _latent(phase: str, heads: int, head_dim: int, kv_dtype: str) -> attend.Ask:
    return attend.Ask("mla", phase, Heads(heads, heads if phase == "prefill" else 1, head_dim), kv_dtype)


_BANKS: dict[tuple[Any, ...], Bank] = {}


def load_bank(gpu: GpuLike, source: str = "vllm", root: Path = ROOT) -> Bank:
    """The bank of a GPU, made once per GPU and source."""
    link = getattr(gpu, "link", None)
    links = tuple(getattr(x, name, None) for x, name in ((link, "bandwidth"), (link, "latency"), (link, "launch"), (gpu, "link_share"),
                                                         (gpu, "network")))  # fmt: skip
    key = (gpu.name, gpu.kernels, gpu.borrow, tuple(sorted(gpu.flops.items())), gpu.memory_bandwidth, links, source, root)
    if key not in _BANKS:
        _BANKS[key] = Bank(gpu, source, root)
    return _BANKS[key]
