"""What one GPU of a pipeline stage stores: the weights of its cells, embedding, head, towers and rotary cache (floor 3).

Not counted: the few buffers a quantised kernel keeps beside its weights (a workspace, an activation scale).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil

from apexsim.engines import MemoryRules
from apexsim.model import cells
from apexsim.model.dtypes import dtype
from apexsim.model.model import Block, Cell, Experts, Model
from apexsim.plan.plan import Plan, Precision
from apexsim.plan.space import cell_split, stage_layers

KEPT = frozenset({"embedding", "head", "norm", "router", "position"})  # quantised checkpoints keep these in 16 bit


@dataclass(frozen=True, slots=True)
class Stage:
    """One pipeline stage: its distinct blocks with their number of layers, and whether it is the first or last."""

    index: int
    layers: tuple[tuple[Block, int], ...]
    first: bool
    last: bool


def stages_of(model: Model, stages: int) -> tuple[Stage, ...]:
    """The model's generating stack cut into pipeline stages."""
    stack, start, cut = model.decoder, 0, []
    for index, layers in enumerate(stage_layers(len(stack.layers), stages)):
        counts = Counter(stack.layers[start : start + layers])
        start += layers
        blocks = tuple((stack.blocks[i], n) for i, n in sorted(counts.items()))
        cut.append(Stage(index, blocks, index == 0, index == stages - 1))
    return tuple(cut)


def stored(precision: Precision, part: str) -> float:
    """Bytes per parameter of a part; embeddings, head, norms and router stay in 16 bit unless named."""
    named = dict(precision.weights).get(part)
    each = dtype(named or precision.default).stored
    return each if named or part not in KEPT or each >= 2.0 else 2.0


def stage_weights(model: Model, plan: Plan, stage: Stage, rules: MemoryRules | None = None) -> float:
    """Weights of one GPU of a stage [byte]: cells, norms, embedding (first), head (last), rotary cache, towers (first).

    Key/value heads beyond tp are repeated; the vocabulary is padded to 64 and divided by the attention's tp; tied
    embeddings are one copy per stage that uses them; MLA keeps an absorbed 16-bit copy of its up-projections.
    """
    size = sum(n * _block_weights(model.hidden, plan, block, rules) for block, n in stage.layers)
    vocab = cells.device_vocab(model, plan.attention.tp)
    precision = plan.precision
    if stage.first:
        size += vocab["embedding"] * stored(precision, "embedding")
        size += model.position_rows * model.hidden * stored(precision, "position")
        size += _extra(model, plan, rules)
    if stage.last:
        tied = model.tied and not stage.first
        size += vocab["embedding"] * stored(precision, "embedding") if tied else 0.0
        size += vocab["head"] * stored(precision, "head")
        size += model.final_norm_parameters * stored(precision, "norm")
    return size + cells.rope_bytes(model)


def _block_weights(hidden: int, plan: Plan, block: Block, rules: MemoryRules | None) -> float:
    size = block.norm_parameters * stored(plan.precision, "norm")
    for cell in block.cells:
        tp, ep = cell_split(cell, plan)
        parts = cells.device_parameters(cell, hidden, tp, ep, plan.attention.tp)
        for part, n in parts.items():
            padded = _padded(cell, hidden, tp, rules) if part == "experts" and _is_mxfp4(plan.precision) else 1.0
            size += n * stored(plan.precision, part) * padded
        size += 2.0 * cells.absorbed_parameters(cell, tp)
    return size


def _is_mxfp4(precision: Precision) -> bool:
    return dtype(precision.weight("experts")).name == "mxfp4"


def _padded(cell: Cell, hidden: int, tp: int, rules: MemoryRules | None) -> float:
    """How much larger MXFP4 experts are in memory: their kernels want both widths in multiples."""
    assert isinstance(cell, Experts)
    if rules is None:
        return 1.0
    wide, inner = cell.latent or hidden, ceil(cell.inner / tp)
    return _up(wide, rules.mxfp4_pad_hidden) * _up(inner, rules.mxfp4_pad_inner) / (wide * inner)


def _up(width: int, multiple: int) -> int:
    return ceil(width / multiple) * multiple


def _extra(model: Model, plan: Plan, rules: MemoryRules | None) -> float:
    """Towers and projections beside the generating stack, divided by tp, and encoder stacks [byte]; 16 bit.

    Towers outside the published total are loaded too; multi-token-prediction layers are not.
    """
    outside = sum(n for name, n in model.outside_parts if name != "mtp")
    size = 2.0 * (model.extra_parameters + outside) / plan.attention.tp
    for stack in model.stacks[:-1]:
        for i, n in Counter(stack.layers).items():
            size += n * _block_weights(stack.hidden, plan, stack.blocks[i], rules)
    return size
