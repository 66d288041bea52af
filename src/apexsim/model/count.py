"""What a model counts: parameters by part, in all and of one token; vocabulary and rotary cache of one device (floor 2)."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from apexsim.model.model import Block, Model

PARTS = ("attention", "ffn", "experts", "shared", "router", "norm", "embedding", "position", "head")
VOCAB_PAD = 64  # rows; engines pad the vocabulary to this multiple before dividing it (vLLM DEFAULT_VOCAB_PADDING_SIZE)
INACTIVE = ("per-layer embedding",)  # extra parts that are looked up, not multiplied


def _blocks(model: Model) -> Iterator[tuple[int, Block, int]]:
    """(hidden, block, times it occurs) of every block of every stack."""
    for stack in model.stacks:
        for i, block in enumerate(stack.blocks):
            times = stack.layers.count(i)
            if times:
                yield stack.hidden, block, times


def model_parameters(model: Model) -> dict[str, int]:
    """Parameters by part, extra parts that the total includes under their own names; tied weights count once.

    `Model.outside_parts` (MTP layers, towers that the published total leaves out) are not in it.
    """
    counts = dict.fromkeys(PARTS, 0)
    for hidden, block, times in _blocks(model):
        counts["norm"] += block.norm_parameters * times
        for cell in block.cells:
            for part, n in cell.count(hidden).items():
                counts[part] += n * times
    width = model.embed_dim or model.hidden
    counts["norm"] += model.final_norm_parameters
    counts["embedding"] = model.vocab * width
    counts["position"] = model.position_rows * model.hidden
    counts["head"] = (0 if model.tied or not model.has_head else model.vocab * width) + model.vocab * model.head_bias
    for name, n in model.extra_parts:
        counts[name] = counts.get(name, 0) + n
    rest = model.extra_parameters - sum(n for _, n in model.extra_parts)
    if rest:
        counts["other"] = rest
    return {part: n for part, n in counts.items() if n}


def total_parameters(model: Model) -> int:
    """All parameters of the model (see `model_parameters`)."""
    return sum(model_parameters(model).values())


def active_parameters(model: Model) -> int:
    """Parameters that take part in one token: all but the experts not chosen; embedding and head included."""
    counts = model_parameters(model)
    idle = sum(counts.get(name, 0) for name in INACTIVE)
    for hidden, block, times in _blocks(model):
        idle += times * sum(cell.idle(hidden) for cell in block.cells)
    return sum(counts.values()) - idle


def device_vocab(model: Model, tp: int) -> dict[str, int]:
    """Embedding and head parameters of one device: rows padded to a multiple of 64, divided by tp; tied is one copy."""
    rows = ceil(ceil(model.vocab / VOCAB_PAD) * VOCAB_PAD / tp)
    width = model.embed_dim or model.hidden
    head = 0 if model.tied or not model.has_head else rows * width
    return {"embedding": rows * width, "head": head + rows * model.head_bias}


def rope_bytes(model: Model) -> float:
    """The rotary cos/sin cache of one device [byte]: positions x rotary width, 16 bit; 0 without rotary positions."""
    return 2.0 * model.max_length * model.rope_dim
