"""The slow, obvious twin of the compile step: one step priced op by op from the kernel tables, with no tables of its own.

It is written from docs/mechanisms.md and the docstrings of `cost/`, and takes from the package only what is a source: the
bank (times of single kernels), the GPU's links and the engine's constants.  What the package spreads onto axes, pads,
multiplies and adds, this file adds up for one step at a time; where the two disagree, one of them is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from apexsim.cost import attention, collectives, experts, gemm, scan
from apexsim.cost.attention import causal, latent
from apexsim.cost.bank import Bank
from apexsim.cost.collectives import Way
from apexsim.cost.shapes import ExpertLayer, RecurrentState, Routing
from apexsim.engines import EngineRow
from apexsim.gpu import GpuLink
from apexsim.hardware import Cluster
from apexsim.model.ops import Attend, Axis, Collective, Cross, Gemm, Grouped, Index, Layer, Mla, Op, Scan, Stream
from apexsim.model.ops import Layer as Layered
from apexsim.plan.lower import StageOps
from apexsim.plan.plan import Plan
from naive_records import Step

Array = NDArray[np.float64]
WHOLE = 1 << 40  # a window that never ends
BATCHES, CONTEXTS = 64, 4112  # sequences of a lane and tokens of a context at most
# What writes the activations of a product, where the engine quantises them in a kernel of its own, by engine and format.
APART = {
    ("vllm", "nvfp4"): ("activation",),
    ("sglang", "nvfp4"): ("activation",), ("trtllm", "nvfp4"): ("activation",),
    ("sglang", "fp8_block"): ("norm", "attention", "activation"),
    ("trtllm", "fp8_block"): ("norm", "attention", "activation"),
}  # fmt: skip


def domain_of(cluster: Cluster) -> int:
    """GPUs that one scale-up link joins: its reach where it leaves the node, the node where it does not."""
    link = cluster.gpu.link
    return link.span if link.multi_node else cluster.per_node


def ring(kind: str, nbytes: Array, ranks: int, link: GpuLink) -> Array:
    """Seconds of a ring over a link that nobody timed: launch, hops, and the bytes at three quarters of the peak."""
    if ranks == 1:
        return 0.0 * nbytes
    times = 2 if kind == "all_reduce" else 1
    moved = times * nbytes * (ranks - 1) / ranks
    return link.launch + times * (ranks - 1) * link.latency + moved / (0.75 * link.bandwidth)


@dataclass(eq=False)
class NaiveCosts:
    """What a plan's steps cost.  Stands in for `Costs` in naive.py: it has hops, and prices a stage."""

    stages: tuple[StageOps, ...]
    plan: Plan
    cluster: Cluster
    engine: EngineRow
    bank: Bank
    hidden: int
    source: str = "vllm"
    custom: bool = True  # the engine has an all-reduce of its own

    def __post_init__(self) -> None:
        self.at = lru_cache(maxsize=None)(self._at)
        self.curves = lru_cache(maxsize=None)(self._curves)

    # --- between stages ------------------------------------------------------------------------------------------

    @property
    def hop(self) -> list[float]:
        """Seconds before each stage, whatever the step holds."""
        return [0.0] + [self._line()[0]] * (len(self.stages) - 1)

    @property
    def hop_token(self) -> list[float]:
        """Seconds per token: hidden states and residual, 16 bit each, shared by the ranks of a stage."""
        sent = (2 + 2) * self.hidden / self.plan.stage_devices
        return [0.0] + [sent * self._line()[1]] * (len(self.stages) - 1)

    def _line(self) -> tuple[float, float]:
        if len(self.stages) == 1:
            return 0.0, 0.0
        link = self.cluster.link(2, self.plan.stage_devices)
        return collectives.hop(self.bank, link, 1 + (link is self.cluster.gpu.nic))

    # --- a stage -------------------------------------------------------------------------------------------------

    def stage_time(self, step: Step, s: int, busiest: int, lanes: int, stretch: float = 1.0) -> float:
        """Seconds of a step on a stage; busiest: tokens of the lane that has most; stretch: dense ops see this many times the tokens."""
        stage, prompt = self.stages[s], bool(step.chunks)
        decodes = [sum(x.lane == i for x in step.decodes) for i in range(lanes)]
        ends = [sum(c.last and c.sequence.lane == i for c in step.chunks) for i in range(lanes)]
        device = self.dense(stage, busiest, step.tokens, prompt, stretch) + self.head(stage, max(d + e for d, e in zip(decodes, ends)))
        most = max(sum(c.tokens for c in step.chunks if c.sequence.lane == i) for i in range(lanes))
        part = min(1.0, most / self.engine.prompt_full_tokens)
        device += max(self._attention(step, stage, i, 1.0 + part * self.engine.prompt_decode_share) for i in range(lanes))
        return max(device, self.floor(stage, prompt, busiest)) + self.added(stage, s, part, len(step.decodes) + len(step.chunks))

    def dense(self, stage: StageOps, busiest: int, tokens: int, prompt: bool, stretch: float = 1.0) -> float:
        """Seconds of all that grows with tokens, of the busiest lane or of all, small kernels and the factor of prompts included."""
        time = self.engine.gap_s * sum((layer.gaps - self._joined(layer)) * count for layer, count in stage.layers)
        for op, count in ops_of(stage):
            if isinstance(op, Attend | Cross | Index) or op.axis is Axis.SEQUENCE or goes(op) or not self._runs(op, prompt):
                continue
            n, lanes = (busiest, 1) if op.axis is Axis.LANE else (tokens, self.plan.lanes)
            time += count * self.at(op, stretch * self._met(op, n, lanes, prompt), not prompt)
        return time * (self.engine.prompt_factor if prompt else 1.0) + sum(
            count * self.away(layer, tokens, prompt, stretch) for layer, count in stage.layers
        )

    def away(self, layer: Layered, tokens: int, prompt: bool, stretch: float) -> float:
        """Seconds that a layer's tokens are on the way to their experts and back, less what runs beside: with two half batches half of
        the shorter of this and of what else grows with tokens."""
        n = stretch * self._padded(tokens, self.plan.lanes, prompt)
        sent = sum(self.at(op, n, not prompt) for op in layer.ops if goes(op))
        if not sent or not self.engine.half_batches:
            return sent
        rest = 0.0
        for op in layer.ops:
            if not isinstance(op, Attend | Cross | Index) and op.axis is not Axis.SEQUENCE and not goes(op) and self._runs(op, prompt):
                rest += self.at(op, ceil(n / self.plan.lanes) if op.axis is Axis.LANE else n, not prompt)
        return sent - 0.5 * min(sent, rest * (self.engine.prompt_factor if prompt else 1.0))

    def head(self, stage: StageOps, sampled: int) -> float:
        """Seconds of logits and sampling."""
        return sum(self.at(op, float(sampled), True) for op in stage.head if sampled)

    @staticmethod
    def _runs(op: Op, prompt: bool) -> bool:
        """What a graph runs beside the experts is counted there; some products belong to one kind of step."""
        if not isinstance(op, Gemm):
            return True
        return op.only != ("decode" if prompt else "prompt") and (prompt or not op.beside)

    def _met(self, op: Op, n: int, lanes: int, prompt: bool) -> float:
        """Tokens that a step of n is priced at: a captured graph has a size, and its empty rows choose no experts of their own."""
        at = self._padded(n, lanes, prompt)
        if prompt:
            return at
        if not isinstance(op, Grouped):
            return float(at)
        missed = (1.0 - op.top_k / max(op.experts, op.top_k + 1)) ** (n / op.split)
        return n + (at - n) * (1.0 - missed)

    def _padded(self, n: int, lanes: int, prompt: bool) -> float:
        each = ceil(n / lanes)
        fitting = [size for size in (self.engine.pad or self.engine.spare) if size >= each and not prompt]
        return float(min(fitting) * lanes if fitting else n)

    # --- host ----------------------------------------------------------------------------------------------------

    def _units(self, stage: StageOps, of: str) -> int:
        """Kernels that the host launches one by one, those that quantise among them."""
        total = 0
        for layer, count in stage.layers:
            apart = sum(self.apart(op) for op in layer.ops)
            total += count * (getattr(layer, of) + apart)
        return total

    def floor(self, stage: StageOps, prompt: bool, busiest: int) -> float:
        """What a step takes at least, since the host launches its kernels; busiest: tokens of the lane that has most."""
        engine = self.engine
        each = engine.prompt_floor_launch_s if engine.prompt_graphs else engine.prompt_eager_launch_s
        if not engine.pad:
            each = max(each, engine.eager_launch_s)
        held = busiest <= max(engine.pad, default=0)
        if prompt:
            parts = engine.prompt_eager_launch_s if engine.prompt_graphs == 1 and not held else 0.0  # captured in parts, up to a size
            return max(each * self._units(stage, "launches"), parts * self._units(stage, "compiled_launches"))
        if held:
            return 0.0  # a graph holds the step
        return max(each, engine.bare_launch_s) * self._units(stage, "decode_launches")

    def added(self, stage: StageOps, s: int, prompt: float, sequences: int) -> float:
        """What the host adds: launches of a prompt step (prompt: how much of one it is) on every stage, the scheduler on the first."""
        engine = self.engine
        time = engine.prompt_add_launch_s * self._units(stage, "launches") * prompt
        serial = s == 0 and engine.lag != 2  # else the host works while the step before runs
        return time + (engine.step_s + engine.sequence_s * sequences if serial else 0.0)

    # --- attention -----------------------------------------------------------------------------------------------

    def _attention(self, step: Step, stage: StageOps, lane: int, longer: float) -> float:
        contexts = [x.context + 1 for x in step.decodes if x.lane == lane]
        chunks = [c for c in step.chunks if c.sequence.lane == lane]
        time = 0.0
        for op, count in ops_of(stage):
            if not isinstance(op, Attend | Cross | Mla | Index):
                continue
            if contexts:
                mean = sum(min(c, window(op)) for c in contexts) / len(contexts)
                time += longer * count * self.decode(op, len(contexts), mean)
            if chunks:
                time += count * self.launch(op)
            for c in chunks:
                time += count * (self.marginal(op, c.done + c.tokens) - self.marginal(op, c.done))
        return time

    def decode(self, op: Op, batch: int, context: float) -> float:
        """Seconds of one decode of `batch` sequences at a mean context, linear between contexts 16 apart."""
        contexts, seconds = self.curves(op)
        return float(np.interp(context, contexts, seconds[batch - 1]))

    def _curves(self, op: Op) -> tuple[Array, Array]:
        """Contexts up to the window, and seconds [batch - 1, context] as timed but never falling along either: measured curves dip, and
        who reads more is never done sooner."""
        contexts = np.arange(0.0, min(window(op), CONTEXTS) + 1.0, 16.0)
        timed = np.broadcast_to(self._timed(op, np.arange(1.0, BATCHES + 1.0)[:, None], contexts[None, :]), (BATCHES, len(contexts)))
        return contexts, never_falling(never_falling(timed.T).T)

    def _timed(self, op: Op, batch: Array, context: Array) -> Array:
        """Seconds of decodes of `batch` sequences at mean contexts, as the kernels were timed."""
        bank = self.bank
        if isinstance(op, Attend):
            if not op.causal:
                return 0.0 * context
            ask = causal("decode", op.heads, op.kv_heads, op.head_dim, op.window, op.kv_dtype)
            return attention.price(bank, ask, batch, np.maximum(context, 1.0)).seconds
        if isinstance(op, Cross):
            ask = causal("decode", op.heads, op.kv_heads, op.head_dim, 0, op.kv_dtype)
            return attention.price(bank, ask, batch, 0.0 * context + op.source).seconds
        if isinstance(op, Mla):
            ask = latent("decode", op.heads, op.kv_rank + op.rope_dim, op.kv_dtype)
            return attention.price(bank, ask, batch, np.maximum(latents(op, context), 1.0)).seconds
        assert isinstance(op, Index)
        return self.index(op, batch * context / op.compress, batch * context / op.compress * (op.dim + 4 + 4)) + 3.6e-6 + 4e-6

    def index(self, op: Index, pairs: Array | float, moved: Array | float) -> Array:
        """Scores (arithmetic or keys, whichever is longer) and the top k among them, launches apart."""
        peaks = self.bank.peaks
        scores = 2.0 * op.heads * op.dim * pairs / (0.42 * peaks.rate("fp8"))
        return np.maximum(scores, moved / (0.8 * peaks.bandwidth)) + 4.0 * pairs / (0.2 * peaks.bandwidth)

    def marginal(self, op: Op, length: int) -> float:
        """Seconds of attention of a prompt of so many tokens from nothing, launch apart."""
        bank, at = self.bank, [float(length)]
        if isinstance(op, Attend) and op.causal:
            return one(attention.marginal(bank, causal("prefill", op.heads, op.kv_heads, op.head_dim, op.window, op.kv_dtype), at))
        if isinstance(op, Mla) and not op.direct and (not op.top_k or length <= op.top_k):
            return one(attention.marginal(bank, latent("prefill", op.heads, op.nope_dim + op.rope_dim, op.kv_dtype), at))
        if isinstance(op, Index):
            return float(self.index(op, length * (length + 1) / 2 / op.compress, 0.0))
        raise NotImplementedError(op)

    def launch(self, op: Op) -> float:
        """Seconds that the attention kernel of a step with prompts takes beyond its work."""
        if isinstance(op, Attend):
            return attention.launch(self.bank, causal("prefill", op.heads, op.kv_heads, op.head_dim, op.window, op.kv_dtype))
        if isinstance(op, Mla):
            return attention.launch(self.bank, latent("prefill", op.heads, op.nope_dim + op.rope_dim, op.kv_dtype))
        assert isinstance(op, Index)
        return 3.6e-6 + 4e-6

    # --- ops that grow with tokens -------------------------------------------------------------------------------

    def _at(self, op: Op, n: float, captured: bool) -> float:
        """Seconds of an op of a step with n tokens, linear between whole ones; never less than for fewer tokens."""
        below, part = int(n), n - int(n)
        counts = np.arange(1.0, below + 2.0)  # what a replica of the cell sees of 1, 2 … tokens
        seconds = np.maximum.accumulate(self.raw(op, np.ceil(counts / getattr(op, "split", 1)), captured))
        return float(seconds[max(below, 1) - 1] * (1.0 - part) + seconds[below] * part if part else seconds[below - 1])

    def raw(self, op: Op, n: Array, captured: bool) -> Array:
        """Seconds of one op of n tokens, as its tables have it."""
        bank = self.bank
        match op:
            case Gemm():
                if op.aside and captured and self.engine.joined_inputs == 2:  # a second stream has it
                    return 0.0 * n
                if op.parts > 1 and not self.engine.joined_inputs:  # what the checkpoint holds apart runs one after the other
                    return op.parts * self.raw(replace(op, n=ceil(op.n / op.parts), parts=1), n, captured)
                extra = gemm.quantise(bank, n, op.k, op.kernel).seconds if self.apart(op) else 0.0
                return gemm.price(bank, n, op.n, op.k, op.kernel).seconds + extra
            case Stream():
                moved = n * op.bytes_per_token
                cached = np.minimum(moved, self.cluster.gpu.cache_bytes)  # read three times as fast
                return (moved - cached * 2 / 3) / (0.8 * bank.peaks.bandwidth)
            case Grouped():
                even = op.top_k == 1 or op.experts <= 16
                layer = ExpertLayer(op.hidden, op.inner, op.top_k, op.experts, op.tp, op.ep, op.gated)
                if op.sent:  # a rank meets its own pairs; the busiest has 15 % more for each doubling of the ranks, of decodes
                    most = 1.0 + 0.15 * log2(op.ep) if captured else 1.0
                    time = experts.local(bank, n * most, layer, op.kernel, "decode" if captured else "prefill").seconds
                elif even:
                    time = experts.price(bank, n, layer, op.kernel, "balanced").seconds
                else:  # as many experts are read as a router of that skew touches
                    time = experts.routed(bank, n, layer, op.kernel, op.skew).seconds
                beside = [self.raw(g, np.ceil(n * op.split / g.split), captured) for g in op.beside if captured]
                return np.maximum(time, sum(beside))
            case Scan():
                shape, each = (op.key_heads, op.value_heads, op.key_dim, op.value_dim), np.ones_like(n)
                phase, batch, length = ("decode", n, each) if captured else ("prefill", each, n)
                return scan.price(bank, op.kind, phase, batch, length, RecurrentState(*shape)).seconds
            case Mla():
                return scan.absorbed(bank, n, op.heads).seconds if captured and not op.direct else 0.0 * n
            case Collective():
                return self._collective(op, n, captured)
        raise NotImplementedError(op)

    def _collective(self, op: Collective, n: Array, captured: bool) -> Array:
        bank, cluster, nbytes = self.bank, self.cluster, n * op.bytes_per_token
        link = cluster.link(op.group, op.stride)
        if op.route is not None:
            return self._dispatch(op, np.ceil(n / op.group), captured)
        if link is not cluster.gpu.nic:
            found = [self._reduced(op, float(each)) for each in np.atleast_1d(nbytes)]
            return np.reshape(found, np.shape(nbytes))
        inside = max(1, min(op.group, cluster.per_node // op.stride))
        outside = ceil(op.group / inside)
        if op.stride == 1 and collectives.spans_measured(bank, op.kind, outside):
            return collectives.price(bank, op.kind, nbytes, op.group, Way(nodes=outside, nccl=True)).seconds
        # each GPU of a node sums its share with those of the other nodes, between a scatter and a gather in the node
        share, within = (1, (op.kind,)) if op.kind != "all_reduce" else (inside, ("reduce_scatter", "all_gather"))
        time = ring(op.kind, nbytes / share, outside, link)
        return time + sum(collectives.price(bank, kind, nbytes, inside).seconds for kind in within if inside > 1)

    def _reduced(self, op: Collective, size: float) -> float:
        """A message within a domain: joined with the norm where the engine's row says so for this many ranks and bytes."""
        largest = dict(self.engine.fused(self.cluster.gpu.arch)).get(op.group, -1.0)
        way = Way(nccl=not self.custom, fused=op.kind == "all_reduce" and size <= largest)
        return float(np.ravel(collectives.price(self.bank, op.kind, size, op.group, way).seconds)[0])

    def _dispatch(self, op: Collective, tokens: Array, captured: bool) -> Array:
        """Both ways: 3 bytes a number, out of the domain at 85 % of the network and inside it at 60 % of the link at once."""
        assert op.route is not None
        cluster, route = self.cluster, Routing(*op.route)
        nodes = max(1, op.group * op.stride // cluster.per_node)
        timed = collectives.dispatch(self.bank, tokens, route, op.group, nodes, captured)
        if timed is not None:
            return timed.seconds
        domains = ceil(op.group * op.stride / domain_of(cluster))
        away = near = float(route.top_k)
        if not captured:
            away = min(distinct(route.top_k, domains), route.kept or domains)
            near = distinct(route.top_k, op.group)
        each, gpu = 3.0 * route.hidden * tokens, cluster.gpu
        leave = each * away * (domains - 1) / domains / (0.85 * gpu.nic.bandwidth)
        inside = cluster.link(2) if domains < op.group else gpu.nic
        stay = each * near * (1 - domains / op.group) / (domains if captured else 1) / (0.6 * inside.bandwidth)
        fixed = 30e-6 if captured else 45e-6 if domains == 1 else 100e-6
        return np.maximum(leave, stay) + 2 * fixed

    def _joined(self, layer: Layer) -> int:
        """Norms of a layer that its all-reduces do."""
        return min(self.engine.joined_norms, len([op for op in layer.ops if isinstance(op, Collective) and op.kind == "all_reduce"]))

    def apart(self, op: Op) -> bool:
        return isinstance(op, Gemm) and op.after in APART.get((self.source, op.kernel), ())


def goes(op: Op) -> bool:
    """Whether an op carries tokens to their experts."""
    return isinstance(op, Collective) and op.route is not None


def distinct(draws: int, places: int) -> float:
    """Mean number of places that some of so many draws fall on."""
    return places * (1.0 - (1.0 - 1.0 / places) ** draws)


def one(priced: object) -> float:
    """The one number of a price."""
    return float(np.ravel(priced.seconds)[0])  # type: ignore[attr-defined]


def ops_of(stage: StageOps) -> Iterator[tuple[Op, int]]:
    """Every op of a stage, and how often it occurs."""
    for layer, count in stage.layers:
        yield from ((op, count) for op in layer.ops)
    yield from ((op, 1) for op in (*stage.entry, *stage.head))


def never_falling(seconds: Array) -> Array:
    """Curves [n, …] halfway, in logarithms, between the smallest above that never falls along n and the largest such one below."""
    below = np.minimum.accumulate(seconds[::-1])[::-1]
    return np.sqrt(np.maximum.accumulate(seconds) * below)


def window(op: Op) -> int:
    """Tokens of the context that an op reads at most."""
    if isinstance(op, Mla):
        return WHOLE if op.compress else (op.top_k or (op.window if op.direct else 0) or WHOLE)
    return op.window or WHOLE if isinstance(op, Attend) else WHOLE


def latents(op: Mla, context: Array) -> Array:
    """Latents that a token reads: all, the best k, or a window and what compression leaves of the rest."""
    if op.compress:
        rest = context / op.compress
        return np.minimum(context, op.window) + (np.minimum(rest, op.top_k) if op.top_k else rest)
    return np.minimum(context, window(op))
