"""A model taken apart or changed: its encoder, its decoder, experts in place of a dense FFN (floor 2).

Encoder and decoder are models of their own, with their own plans; a table that both read (T5's embedding) is stored by both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil, isqrt

from apexsim.errors import InputError
from apexsim.model.cell import Cell
from apexsim.model.cells import Attention, Experts, Ffn
from apexsim.model.model import Model, Stack

FRONT = ("audio input", "image input", "encoder position")  # extra parts that belong to the encoder
DEFAULT_TOP_K = 2
SECONDS_PER_POSITION, COLOURS = 0.02, 3


def encoder_part(model: Model) -> Model | None:
    """The first encoder as a model that answers with vectors; None for decoders.

    An encoder with a fixed input has a front end of its own, others look their tokens up.
    Of encoders side by side (CLIP) it is the first, the one of images, with its projection.
    """
    first = model.stacks[0]
    if first.role != "encoder":
        return None
    text = not first.source_length
    parts = tuple((name, n) for name, n in model.extra_parts if name in FRONT)
    return replace(
        model,
        name=f"{model.name} encoder",
        vocab=model.vocab if text else 0,
        stacks=(first,),
        has_head=False,
        notes=(),
        position_rows=model.position_rows if text else 0,
        extra_parts=parts,
        extra_parameters=sum(n for _, n in parts),
        final_norm_parameters=model.final_norm_parameters // 2 if len(model.stacks) > 1 else model.final_norm_parameters,
        rope_dim=0,
        max_length=first.source_length or model.max_length,
    )


def decoder_part(model: Model, source: int) -> Model | None:
    """The generating stack alone, its cross-attention reading `source` tokens; None for models of encoders only."""
    stack = model.decoder
    if stack.role == "encoder":
        return None
    if len(model.stacks) == 1:
        return model
    parts = tuple((name, n) for name, n in model.extra_parts if name not in FRONT)
    return replace(
        model,
        name=f"{model.name} decoder",
        stacks=(_mapped(stack, lambda cell: _reads(cell, source)),),
        extra_parts=parts,
        extra_parameters=sum(n for _, n in parts),
        final_norm_parameters=model.final_norm_parameters // 2,
        notes=(),
    )


def _reads(cell: Cell, source: int) -> Cell:
    return replace(cell, source=source) if isinstance(cell, Attention) and cell.cross else cell


def _mapped(stack: Stack, change: Callable[[Cell], Cell]) -> Stack:
    blocks = tuple(replace(block, cells=tuple(change(cell) for cell in block.cells)) for block in stack.blocks)
    return replace(stack, blocks=blocks)


def audio_windows(model: Model, seconds: float) -> int:
    """Windows that a recording is cut into, each a request: Whisper's encoder has one position per 20 ms (log-mel frames of
    10 ms, halved by a convolution; arXiv:2212.04356, 2.2)."""
    first = model.stacks[0]
    if len(first.front) != 2:
        raise InputError(f"{model.name} does not hear", "--audio-seconds", "it is for Whisper")
    return max(1, ceil(seconds / (first.source_length * SECONDS_PER_POSITION)))


def with_image(model: Model, size: int) -> Model:
    """The model with images of another size [pixels a side]: one position per whole patch, and one for all."""
    first = model.stacks[0]
    if len(first.front) != 1:
        raise InputError(f"{model.name} does not see", "--image-size", "it is for CLIP")
    patch = isqrt(first.front[0][1] // COLOURS)
    if size < patch:
        raise InputError(f"an image of {size} pixels is smaller than one patch of {patch}", "--image-size")
    return replace(model, stacks=(replace(first, source_length=(size // patch) ** 2 + 1), *model.stacks[1:]))


def routed(model: Model) -> bool:
    """Whether any layer of the generating stack is routed."""
    return any(cell.route(model.hidden) for block in model.decoder.blocks for cell in block.cells)


def routed_experts(model: Model) -> tuple[int, ...]:
    """Routed experts of the layers that have any, each number once; (0,) for a model without."""
    found = {cell.experts for block in model.decoder.blocks for cell in block.cells if isinstance(cell, Experts)}
    return tuple(sorted(found)) or (0,)


def with_experts(model: Model, experts: int | None, top_k: int | None) -> Model:
    """The model with another number of experts or experts per token.

    A dense model gets `experts` copies of its FFN in every layer of its generating stack, and a router; 1 makes an expert
    model dense.  What is None stays: a dense model without a number of experts stays dense.
    """
    mixture = routed(model)
    if experts in (None, 1) and not mixture:
        return model

    def change(cell: Cell) -> Cell:
        if isinstance(cell, Experts):
            count, chosen = experts or cell.experts, top_k or cell.top_k
            if count == 1:
                return Ffn(cell.inner + cell.shared_inner, cell.gated, cell.bias)
            return replace(cell, experts=_enough(count, chosen), top_k=chosen)
        if isinstance(cell, Ffn) and not mixture:
            chosen = top_k or DEFAULT_TOP_K
            return Experts(_enough(experts or 1, chosen), chosen, cell.inner, cell.gated, cell.bias)
        return cell

    return replace(model, stacks=(*model.stacks[:-1], _mapped(model.decoder, change)))


def _enough(experts: int, top_k: int) -> int:
    if top_k > experts:
        raise InputError(f"{top_k} experts per token of {experts}", "--topk", "lower --topk or raise --num-experts")
    return experts
