"""From a plan to the ops of one device (floor 3).

Each cell has one lowering function and each number of launches and gaps stands beside the kernels it counts.  Gaps are
the small kernels that no table holds (norm, rotary, cache write, activation, routing …); launches are the kernels that an
eager forward starts one by one on the host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from apexsim.model import cells
from apexsim.model.dtypes import dtype
from apexsim.model.model import Attention, Block, Cell, Experts, Ffn, LatentAttention, LinearAttention, Model
from apexsim.model.ops import Attend, Axis, Collective, Cross, Gemm, Grouped, Index, Layer, Mla, Op, Scan, Stream
from apexsim.plan.plan import Layout, Plan
from apexsim.plan.reshard import expected_copies, layer_collectives
from apexsim.plan.space import cell_split, stage_layers
from apexsim.plan.templates import ffn_template

ACT = 2.0  # bytes of an activation between kernels: engines keep the residual stream in 16 bit

# Kernels of one layer: small ones that leave a gap in a captured step, and all that an eager step launches.
# attention: norm, qkv, rotary, cache write, attention, out | ffn: norm, up, activation, down | experts: router, top-k, sort,
# two grouped products with their activation and quantisation, gather, combine | latent: two low-rank pairs with norms,
# absorbed products, rotary, cache write | gdn: convolution, gates, norms and the chunked scan's many parts | index: two
# projections, key norm, rotary with quantisation, cache write, scores, top-k.
GAPS = {"attention": 3, "qk_norm": 2, "latent": 3, "ffn": 1, "experts": 3, "shared": 2, "scan": 8, "index": 2}
LAUNCHES = {"attention": 6, "qk_norm": 0, "latent": 16, "ffn": 4, "experts": 12, "shared": 3, "scan": 46, "index": 8}
# A decode updates the state in one kernel.  Held against one system: Qwen3.8-27B (48 such layers of 64), batch 1, eager vLLM: 41.7 ms
# (github.com/local-inference-lab/vllm/pull/314), 50 µs a unit.
DECODE_LAUNCHES = LAUNCHES | {"scan": 10}
NORM_BYTES = 8.0  # per token: two sums of squares, of queries and keys, in 32 bit
QUANTISED = ("fp8_block", "nvfp4", "mxfp4", "int8")  # kernels whose activations get their scales at run time
DOMAIN = 8  # GPUs joined by a scale-up link where the caller does not say


@dataclass(frozen=True, slots=True)
class StageOps:
    """One pipeline stage on one device: its layers, what stands before the first and after the last."""

    layers: tuple[tuple[Layer, int], ...]
    entry: tuple[Op, ...]
    head: tuple[Op, ...]  # by sampled sequences

    @property
    def gaps(self) -> int:
        """Small kernels of one step."""
        return sum(layer.gaps * n for layer, n in self.layers)

    @property
    def launches(self) -> int:
        """Host launch units of one eager step that holds prompts."""
        return sum(layer.launches * n for layer, n in self.layers)

    @property
    def decode_launches(self) -> int:
        """Host launch units of one eager step of decodes."""
        return sum(layer.decode_launches * n for layer, n in self.layers)


@dataclass(frozen=True, slots=True)
class Context:
    """What every lowering function needs."""

    hidden: int
    plan: Plan
    flops: Mapping[str, float]
    domain: int = DOMAIN

    @property
    def axis(self) -> Axis:
        """The axis of attention: the lane's tokens where there are several lanes."""
        return Axis.LANE if self.plan.lanes > 1 else Axis.TOTAL

    @property
    def own(self) -> int:
        """Parts that the tokens between two cells lie in: what is done to a device's own tokens, before these are gathered or sent."""
        return self.plan.lanes if self.plan.lanes > 1 else self.plan.ffn.dp

    @property
    def exchange(self) -> bool:
        """Whether tokens travel to their experts.  Engines gather all tokens instead (vLLM's allgather_reducescatter,
        SGLang and TensorRT-LLM without an all-to-all library) as long as a fast link joins the group."""
        return self.plan.lanes > 1 and self.plan.ffn.ep > 1 and self.plan.stage_devices > self.domain

    def gemm(self, label: str, part: str, n: int, k: int, lane: bool, split: int = 1, only: str = "", after: str = "norm") -> Gemm:
        """A GEMM with the kernel that the weight format, the activations and the GPU lead to; `after`: what wrote its input."""
        kernel, size = kernel_for(self.plan.precision.weight(part), self.plan.precision.activation, self.flops)
        axis = Axis.LANE if lane else Axis.TOTAL
        return Gemm(label, n, k, kernel, size, axis, split, after if kernel in QUANTISED else "", only)


UNPACKED = {"mxfp4": "w4a16_mxfp4", "nvfp4": "w4a16_nvfp4"}  # formats whose scales are their own, unpacked too


def kernel_for(weight: str, activation: str, flops: Mapping[str, float]) -> tuple[str, float]:
    """(GEMM kernel, bytes per weight).  Formats that the GPU cannot multiply, or that meet wider activations, are
    unpacked and multiplied in 16 bit: fewer bytes, same FLOP."""
    fmt = dtype(weight)
    if fmt.compute in ("fp32", "bf16"):
        wide = activation != "auto" and dtype(activation).compute == "fp32"
        return ("fp32" if wide else fmt.kernel), fmt.stored
    wide = activation != "auto" and dtype(activation).compute in ("bf16", "fp32")
    if wide or not flops.get(fmt.compute):
        return UNPACKED.get(fmt.kernel) or ("w4a16" if fmt.stored < 0.9 else "w8a16"), fmt.stored
    return fmt.kernel, fmt.stored


def _heads(total: int, tp: int) -> int:
    return -(-total // tp)


def _attention(cell: Attention, ctx: Context) -> tuple[list[Op], str]:
    tp, lane = ctx.plan.attention.tp, ctx.plan.lanes > 1
    q, kv, dim = _heads(cell.heads, tp), max(1, _heads(cell.kv_heads, tp)), cell.head_dim
    v_dim = cell.v_head_dim or dim
    if cell.cross:
        return _cross(cell, ctx, q, kv, v_dim), "attention"
    kv_width = 0 if cell.shares_kv else kv * dim + (0 if cell.k_is_v else kv * v_dim)
    window = min((w for w in (cell.window, cell.chunk, cell.index_top_k) if w), default=0)
    moved = 4 * ctx.hidden + 2 * (q + kv) * dim + 2 * kv * (dim + v_dim)  # norm with residual, rotary, cache write
    ops: list[Op] = [
        ctx.gemm("qkv", "attention", q * dim * (2 if cell.gate else 1) + kv_width, ctx.hidden, lane),
        Attend("attention", q, kv, dim, v_dim, window, ctx.plan.precision.kv, cell.causal),
        ctx.gemm("out", "attention", ctx.hidden, q * v_dim, lane, after="attention"),
        Stream("elementwise", ACT * moved, ctx.axis),
    ]
    if cell.qkv_out_extra >= ctx.hidden and not cell.shares_kv:  # gates per head and kin, beside the queries
        ops.append(ctx.gemm("qkv", "attention", -(-cell.qkv_out_extra // ctx.hidden // tp), ctx.hidden, lane))
    if cell.qk_norm == "full" and tp > 1:  # the norm runs over all heads: their sums of squares are added
        ops.append(Collective("all_reduce", "all_reduce", NORM_BYTES, tp, 1, ctx.axis))
    return [*ops, *_indexer(cell, ctx, ctx.hidden, 1)], "attention"


def _cross(cell: Attention, ctx: Context, q: int, kv: int, v_dim: int) -> list[Op]:
    """Queries of the decoder over keys and values of the encoder's output, which is as wide as the decoder."""
    lane, dim = ctx.plan.lanes > 1, cell.head_dim
    project = ctx.gemm("cross keys", "attention", kv * (dim + v_dim), ctx.hidden, lane)
    return [
        ctx.gemm("qkv", "attention", q * dim, ctx.hidden, lane),
        Cross("cross attention", q, kv, dim, v_dim, cell.source, project, ctx.plan.precision.kv),
        ctx.gemm("out", "attention", ctx.hidden, q * v_dim, lane, after="attention"),
        Stream("elementwise", ACT * (4 * ctx.hidden + 2 * q * dim), ctx.axis),
    ]


def _indexer(cell: Attention | LatentAttention, ctx: Context, rank: int, compress: int) -> list[Op]:
    """Query, key and head-weight projections of an indexer (whole on every device), its scores and top k."""
    if not cell.index_heads or cell.index_shared:
        return []
    lane = ctx.plan.lanes > 1
    return [
        ctx.gemm("index", "attention", cell.index_heads * cell.index_dim, rank, lane),
        Gemm("index", cell.index_dim + cell.index_heads, ctx.hidden, "bf16", 2.0, ctx.axis),
        Index("index", cell.index_heads, cell.index_dim, max(1, compress)),
    ]


def _latent(cell: LatentAttention, ctx: Context) -> tuple[list[Op], str]:
    tp, lane = ctx.plan.attention.tp, ctx.plan.lanes > 1
    heads, qk, latent = _heads(cell.heads, tp), cell.nope_dim + cell.rope_dim, cell.kv_rank + cell.rope_dim
    top_k = cell.index_top_k if cell.index_heads else 0
    ops: list[Op] = []
    if cell.q_rank:
        ops.append(ctx.gemm("qkv", "attention", cell.q_rank + latent, ctx.hidden, lane))
        ops.append(ctx.gemm("qkv", "attention", heads * qk, cell.q_rank, lane))
    else:
        ops.append(ctx.gemm("qkv", "attention", heads * qk + latent, ctx.hidden, lane))
    if not cell.shared_kv:
        ops.append(ctx.gemm("qkv", "attention", heads * (cell.nope_dim + cell.v_dim), cell.kv_rank, lane, only="prompt"))
    if cell.gate:
        ops.append(ctx.gemm("qkv", "attention", heads * cell.v_dim, ctx.hidden, lane))
    if cell.extra >= ctx.hidden:  # compressors of keys and values, whole on every device
        ops.append(ctx.gemm("qkv", "attention", cell.extra // ctx.hidden, ctx.hidden, lane))
    ops.append(Mla("attention", heads, cell.kv_rank, cell.rope_dim, cell.nope_dim, cell.v_dim, ctx.plan.precision.kv, top_k,
                   cell.window, cell.compress, cell.shared_kv, ctx.axis))  # fmt: skip
    ops += _indexer(cell, ctx, cell.q_rank or ctx.hidden, cell.compress)
    width = heads * cell.v_dim
    if cell.o_groups:  # each group of heads has a low-rank product of its own, then one product joins them
        ops.append(ctx.gemm("out", "attention", cell.o_rank, width, lane, after="attention"))
        width = _heads(cell.o_groups, tp) * cell.o_rank
    ops.append(ctx.gemm("out", "attention", ctx.hidden, width, lane, after="attention"))
    moved = 4 * ctx.hidden + 2 * (cell.q_rank + latent) + 2 * heads * qk + 2 * latent
    ops.append(Stream("elementwise", ACT * moved, ctx.axis))
    return ops, "latent"


def _ffn(cell: Ffn, ctx: Context) -> tuple[list[Op], str]:
    tp, split = ctx.plan.ffn.tp * ctx.plan.ffn.ep, ctx.plan.ffn.dp
    return _dense("ffn", "ffn", cell.inner, cell.gated, tp, split, ctx), "ffn"


def _dense(label: str, part: str, inner: int, gated: bool, tp: int, split: int, ctx: Context) -> list[Op]:
    """A two-layer FFN: norm with residual (of a device's own tokens), up (and gate), activation, down."""
    width, up = -(-inner // tp), 2 if gated else 1
    return [
        ctx.gemm(label, part, up * width, ctx.hidden, False, split),
        ctx.gemm(label, part, ctx.hidden, width, False, split, after="activation"),
        *_streams(4.0 * ctx.hidden, (up + 1.0) * width, split, ctx),
    ]


def _streams(own: float, all_: float, split: int, ctx: Context) -> list[Op]:
    """Element-wise work on numbers of a device's own tokens, and of the tokens that its replica of the cell sees."""
    if ctx.own == split:
        return [Stream("elementwise", ACT * (own + all_), Axis.TOTAL, split)]
    return [Stream("elementwise", ACT * own, Axis.TOTAL, ctx.own), Stream("elementwise", ACT * all_, Axis.TOTAL, split)]


def _experts(cell: Experts, ctx: Context) -> tuple[list[Op], str]:
    """Router, shared experts and latent projections run on a device's own tokens, before these are gathered or sent."""
    tp, ep = cell_split(cell, ctx.plan)
    split, hidden = ctx.plan.ffn.dp, cell.latent or ctx.hidden
    own = ctx.own
    kernel, size = kernel_for(ctx.plan.precision.weight("experts"), ctx.plan.precision.activation, ctx.flops)
    routed = cell.top_k * 2 * hidden / max(1, ep)
    shared: list[Gemm] = []
    if cell.shared_inner:
        dense = _dense("shared", "shared", cell.shared_inner, cell.gated, ctx.plan.attention.tp, own, ctx)
        shared = [replace(op, beside=True) for op in dense if isinstance(op, Gemm)]
    ops: list[Op] = [
        Gemm("router", cell.experts, ctx.hidden, "bf16", 2.0, Axis.TOTAL, own),
        Grouped("experts", hidden, cell.inner, cell.experts, cell.top_k, tp, ep, cell.gated, kernel, size, Axis.TOTAL, split,
                beside=tuple(shared)),
        *shared,
        *_streams(4.0 * ctx.hidden, routed, split, ctx),
    ]  # fmt: skip
    if cell.latent:
        ops += [ctx.gemm("experts", "experts", cell.latent, ctx.hidden, False, own),
                ctx.gemm("experts", "experts", ctx.hidden, cell.latent, False, own)]  # fmt: skip
    return ops, "experts"


def _scan(cell: LinearAttention, ctx: Context) -> tuple[list[Op], str]:
    tp, lane = ctx.plan.attention.tp, ctx.plan.lanes > 1
    ops: list[Op] = []
    for n, k in cell.projections:
        n, k = (n, -(-k // tp)) if n == ctx.hidden else (-(-n // tp), k)
        ops.append(ctx.gemm("qkv" if n != ctx.hidden else "out", "attention", n, k, lane))
    heads = (max(1, _heads(cell.key_heads, tp)), max(1, _heads(cell.value_heads, tp)))
    axis = Axis.LANE if lane else Axis.TOTAL
    ops.append(Scan("scan", cell.kind, *heads, cell.key_dim, cell.value_dim, axis))
    ops.append(Stream("elementwise", ACT * 4 * ctx.hidden, axis))
    return ops, "scan"


LOWERINGS: dict[type[Cell], Callable[[Any, Context], tuple[list[Op], str]]] = {
    Attention: _attention,
    LatentAttention: _latent,
    Ffn: _ffn,
    Experts: _experts,
    LinearAttention: _scan,
}


def _extras(cell: Cell) -> tuple[str, ...]:
    """Kernels beyond the usual ones of a cell."""
    found = []
    if isinstance(cell, Attention) and cell.qk_norm:
        found.append("qk_norm")
    if isinstance(cell, Experts) and cell.shared_inner:
        found.append("shared")
    if isinstance(cell, Attention | LatentAttention) and cell.index_heads and not cell.index_shared:
        found.append("index")
    return tuple(found)


def lower_block(block: Block, ctx: Context) -> Layer:
    """All ops of one block on one device, its collectives included."""
    ops: list[Op] = []
    kernels: list[str] = []
    for cell in block.cells:
        more, kind = LOWERINGS[type(cell)](cell, ctx)
        ops += more
        kernels += (kind, *_extras(cell))
    counts = (sum(table[name] for name in kernels) for table in (GAPS, LAUNCHES, DECODE_LAUNCHES))
    return Layer((*ops, *_collectives(block, ctx)), *counts)


def _collectives(block: Block, ctx: Context) -> tuple[Collective, ...]:
    """What moves between the cells of a block and to the next one."""
    plan = ctx.plan
    experts = next((cell for cell in block.cells if isinstance(cell, Experts)), None)
    nbytes = ACT * ctx.hidden
    crossed = [cell for cell in block.cells if isinstance(cell, Attention) and cell.cross]
    if crossed:  # self- and cross-attention are split alike: one reduction between them
        rest = replace(block, cells=tuple(cell for cell in block.cells if cell not in crossed))
        return (*layer_collectives(plan.attention, plan.attention, True, nbytes) * len(crossed), *_collectives(rest, ctx))
    if len(block.cells) == 1:  # a mixer or an FFN alone: one reduction
        whole = plan.attention if experts is None else Layout(tp=plan.ffn.devices)
        return layer_collectives(whole, whole, True, nbytes)
    exchange = experts is not None and ctx.exchange
    feed = ffn_template(plan.ffn, experts is not None, exchange)
    copies = expected_copies(experts.experts, experts.top_k, plan.ffn.ep) if experts is not None and exchange else 1.0
    ffn = plan.ffn if experts is not None else Layout(plan.ffn.dp, plan.ffn.tp * plan.ffn.ep)
    moves = layer_collectives(plan.attention, ffn, block.parallel, nbytes, feed=feed, copies=copies)
    return _routed(moves, experts, ctx.hidden) if experts is not None and exchange else moves


def _routed(moves: tuple[Collective, ...], experts: Experts, hidden: int) -> tuple[Collective, ...]:
    """Dispatch and combine joined into one call that knows its route, as libraries are measured."""
    found = [m if m.kind != "all_to_all" else replace(m, route=(hidden, experts.top_k, experts.experts)) for m in moves]
    return tuple(m for i, m in enumerate(found) if m.route is None or i == found.index(m))


def lower(model: Model, plan: Plan, flops: Mapping[str, float], domain: int = DOMAIN) -> tuple[StageOps, ...]:
    """The ops of every pipeline stage; `flops`: the GPU's peaks by format, which decide the kernels; `domain`: GPUs that a
    scale-up link joins, which decides how tokens reach their experts."""
    ctx = Context(model.hidden, plan, flops, domain)
    stack = model.decoder
    layers = {i: lower_block(stack.blocks[i], ctx) for i in set(stack.layers)}
    found, start = [], 0
    for stage, count in enumerate(stage_layers(len(stack.layers), plan.stages)):
        counts = Counter(stack.layers[start : start + count])
        start += count
        entry = _entry(model, plan) if stage == 0 else ()
        head = _head(model, ctx) if stage == plan.stages - 1 else ()
        found.append(StageOps(tuple((layers[i], n) for i, n in sorted(counts.items())), entry, head))
    return tuple(found)


def _entry(model: Model, plan: Plan) -> tuple[Op, ...]:
    """Embedding: look-up and, where the vocabulary is divided, a reduction."""
    axis = Axis.LANE if plan.lanes > 1 else Axis.TOTAL
    front = model.decoder.front
    if front:  # whole on every device
        return tuple(Gemm("front end", n, k, "bf16", 2.0, axis) for n, k in front)
    ops: list[Op] = [Stream("embedding", 2 * ACT * model.hidden, axis)]
    if plan.attention.tp > 1:
        ops.append(Collective("all_reduce", "all_reduce", ACT * model.hidden, plan.attention.tp, 1, axis))
    return tuple(ops)


def _head(model: Model, ctx: Context) -> tuple[Op, ...]:
    """LM head, gathering of logits and greedy sampling (logits read, written as fp32, read again)."""
    if not model.has_head:
        return ()
    tp = ctx.plan.attention.tp
    vocab = cells.device_vocab(model, tp)
    n = vocab["head"] // model.hidden if vocab["head"] else vocab["embedding"] // model.hidden
    kernel, size = kernel_for(dict(ctx.plan.precision.weights).get("head", "bf16"), "auto", ctx.flops)
    ops: list[Op] = [
        Gemm("head", n, model.hidden, kernel, size, Axis.SEQUENCE),
        Stream("sample", 10.0 * model.vocab, Axis.SEQUENCE),
    ]
    if tp > 1:
        ops.append(Collective("all_gather", "all_gather", ACT * model.vocab, tp, 1, Axis.SEQUENCE))
    return tuple(ops)
