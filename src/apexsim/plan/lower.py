"""From a plan to the ops of one device (floor 3).

Each cell lowers itself (`model/cells/`) with its share of a device; here stand what a plan makes of that share, what moves
between the cells, and what stands before the first layer and after the last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from apexsim.model.cell import Cell, Share
from apexsim.model.count import device_vocab
from apexsim.model.draft import draft_block
from apexsim.model.dtypes import dtype
from apexsim.model.model import Block, Model
from apexsim.model.ops import ACT, Axis, Collective, Gemm, Layer, Op, Stream
from apexsim.plan.plan import Layout, Plan
from apexsim.plan.reshard import expected_copies, layer_collectives
from apexsim.plan.second import second_of
from apexsim.plan.space import cell_split, stage_layers
from apexsim.plan.templates import ffn_template

GREEDY_BYTES = 10.0  # per entry of the vocabulary: logits read, written as fp32, read again
DOMAIN = 8  # GPUs joined by a scale-up link where the caller does not say


@dataclass(frozen=True, slots=True)
class Drafter:
    """What makes the drafts of a step: its layers, run for all tokens first and then `again` times for the newest draft of each
    sequence alone, and the head that chooses each of them."""

    layers: tuple[tuple[Layer, int], ...]
    head: tuple[Op, ...]
    again: int

    @property
    def gaps(self) -> int:
        """Small kernels of one pass."""
        return sum(layer.gaps * n for layer, n in self.layers)

    @property
    def decode_launches(self) -> int:
        """Host launch units of one eager pass."""
        return sum(layer.decode_launches * n for layer, n in self.layers)


@dataclass(frozen=True, slots=True)
class StageOps:
    """One pipeline stage on one device: its layers, what stands before the first and after the last."""

    layers: tuple[tuple[Layer, int], ...]  # those that draft among them: they see all tokens once, as the others do
    entry: tuple[Op, ...]
    head: tuple[Op, ...]  # by sampled sequences
    drafter: Drafter | None = None  # where the plan drafts, of the last stage

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

    @property
    def compiled_launches(self) -> int:
        """Host launch units of one step that holds prompts, of a compiled model outside graphs."""
        return sum(layer.compiled_launches * n for layer, n in self.layers)


@dataclass(frozen=True, slots=True)
class Context:
    """What every layer is lowered with."""

    hidden: int
    plan: Plan
    flops: Mapping[str, float]
    domain: int = DOMAIN

    def share(self, cell: Cell) -> Share:
        """One device's share of a cell."""
        plan, (tp, ep), own = self.plan, cell_split(cell, self.plan), own_parts(self.plan)
        axis, split = (lane_axis(plan), 1) if cell.place == "attention" else (Axis.TOTAL, plan.ffn.dp)
        split = plan.lanes if cell.place == "ffn" and plan.wide else split
        sent = exchanges(plan, self.domain)
        return Share(self.hidden, tp, ep, axis, split, own, plan.attention.tp, self.kernel, plan.precision.kv, sent)

    def kernel(self, part: str) -> tuple[str, float]:
        """(GEMM kernel, bytes per weight) that weight format, activations and GPU lead to for a part of the model."""
        return kernel_for(self.plan.precision.weight(part), self.plan.precision.activation, self.flops)


def lane_axis(plan: Plan) -> Axis:
    """The axis of attention: the lane's tokens where there are several lanes."""
    return Axis.LANE if plan.lanes > 1 else Axis.TOTAL


def own_parts(plan: Plan) -> int:
    """Parts that the tokens between two cells lie in: what is done to a device's own tokens, before these are gathered or sent."""
    return plan.lanes if plan.lanes > 1 else plan.ffn.dp


def exchanges(plan: Plan, domain: int) -> bool:
    """Whether tokens travel to their experts.  Engines gather all tokens instead (vLLM's allgather_reducescatter,
    SGLang and TensorRT-LLM without an all-to-all library) as long as a fast link joins a group that is not `wide`."""
    return plan.wide or (plan.lanes > 1 and plan.ffn.ep > 1 and plan.stage_devices > domain)


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


def lower_block(block: Block, ctx: Context) -> Layer:
    """All ops of one block on one device, its collectives included."""
    ops = [op for cell in block.cells for op in cell.lower(ctx.share(cell))]
    kernels = [each for cell in block.cells for each in cell.kernels()]
    return Layer((*ops, *_collectives(block, ctx)), *(sum(column) for column in zip(*kernels, strict=True)))


def _collectives(block: Block, ctx: Context) -> tuple[Collective, ...]:
    """What moves between the cells of a block and to the next one."""
    plan, nbytes = ctx.plan, ACT * ctx.hidden
    crossed = sum(cell.cross for cell in block.cells)
    if crossed:  # self- and cross-attention are split alike: one reduction between them
        rest = replace(block, cells=tuple(cell for cell in block.cells if not cell.cross))
        return (*layer_collectives(plan.attention, plan.attention, True, nbytes) * crossed, *_collectives(rest, ctx))
    route = next((way for cell in block.cells if (way := cell.route(ctx.hidden))), None)
    if len(block.cells) == 1:  # a mixer or an FFN alone: one reduction
        whole = plan.attention if route is None else Layout(tp=plan.ffn.devices)
        return layer_collectives(whole, whole, True, nbytes)
    dense = plan.attention if plan.wide else Layout(plan.ffn.dp, plan.ffn.tp * plan.ffn.ep)
    ffn = plan.ffn if route else dense
    sent = route if exchanges(plan, ctx.domain) else None
    feed, copies = ffn_template(plan.ffn, route is not None, sent is not None), 1.0
    if sent:
        _, top_k, experts, _ = sent
        copies = expected_copies(experts, top_k, plan.ffn.ep)
    moves = layer_collectives(plan.attention, ffn, block.parallel, nbytes, feed=feed, copies=copies)
    return _routed(moves, sent) if sent else moves


def _routed(moves: tuple[Collective, ...], route: tuple[int, int, int, int]) -> tuple[Collective, ...]:
    """Dispatch and combine joined into one call that knows its route, as libraries are measured."""
    found = [move if move.kind != "all_to_all" else replace(move, route=route) for move in moves]
    return tuple(move for i, move in enumerate(found) if move.route is None or i == found.index(move))


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
        last = stage == plan.stages - 1
        head, drafter = _head(model, ctx) if last else (), _drafter(model, ctx) if last else None
        rows = tuple((layers[i], n) for i, n in sorted(counts.items()))
        found.append(StageOps((*rows, *drafter.layers) if drafter else rows, entry, head, drafter))
    return tuple(found)


def _entry(model: Model, plan: Plan) -> tuple[Op, ...]:
    """Embedding: look-up and, where the vocabulary is divided, a reduction."""
    axis = lane_axis(plan)
    front = model.decoder.front
    if front:  # whole on every device
        return tuple(Gemm("front end", n, k, "bf16", 2.0, axis) for n, k in front)
    ops: list[Op] = [Stream("embedding", 2 * ACT * model.hidden, axis)]
    if plan.attention.tp > 1:
        ops.append(Collective("all_reduce", "all_reduce", ACT * model.hidden, plan.attention.tp, 1, axis))
    return tuple(ops)


def _drafter(model: Model, ctx: Context) -> Drafter | None:
    """What a plan's drafts cost beside their verification; nothing where they are looked up."""
    draft = ctx.plan.draft
    if draft is None or draft.method == "ngram":
        return None
    if draft.model:
        return _second(*second_of(ctx.plan), ctx, max(draft.tokens - 1, 0))
    block, joined = draft_block(model, draft.method)
    layer, hidden = lower_block(block, ctx), model.hidden
    join = Gemm("drafting", hidden, joined * hidden, "bf16", ACT, lane_axis(ctx.plan))  # whole on every device
    return Drafter(((replace(layer, ops=(*layer.ops, join)), 1),), _head(model, ctx), max(draft.tokens - 1, 0))


def _second(model: Model, plan: Plan, ctx: Context, again: int) -> Drafter:
    """A model that drafts: all its layers, its embedding before them and its head."""
    own, stack = replace(ctx, hidden=model.hidden, plan=plan), model.decoder
    rows = tuple((lower_block(stack.blocks[i], own), n) for i, n in sorted(Counter(stack.layers).items()))
    return Drafter((*rows, (Layer(_entry(model, plan), 0, 0, 0, 0), 1)), _head(model, own), again)


def _head(model: Model, ctx: Context) -> tuple[Op, ...]:
    """LM head, gathering of logits and greedy sampling."""
    if not model.has_head:
        return ()
    tp = ctx.plan.attention.tp
    vocab = device_vocab(model, tp)
    n = vocab["head"] // model.hidden if vocab["head"] else vocab["embedding"] // model.hidden
    kernel, size = kernel_for(dict(ctx.plan.precision.weights).get("head", "bf16"), "auto", ctx.flops)
    ops: list[Op] = [
        Gemm("head", n, model.hidden, kernel, size, Axis.SEQUENCE),
        Stream("sample", GREEDY_BYTES * model.vocab, Axis.SEQUENCE),
    ]
    if tp > 1:
        ops.append(Collective("all_gather", "all_gather", ACT * model.vocab, tp, 1, Axis.SEQUENCE))
    return tuple(ops)
