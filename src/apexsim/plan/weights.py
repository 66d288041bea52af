"""What one GPU of a pipeline stage stores: the weights of its cells, embedding, head, towers and rotary cache (floor 3).

Tensors have the sizes that PyTorch's allocator gives them.  Not counted: what a quantised kernel keeps beside its
weights (a workspace, an activation scale), and experts kept twice for balance.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import ceil

from apexsim.engines import EngineRow
from apexsim.model.count import device_vocab, rope_bytes
from apexsim.model.draft import draft_block
from apexsim.model.dtypes import dtype
from apexsim.model.model import Block, Model
from apexsim.plan.plan import Plan, Precision
from apexsim.plan.second import second_of
from apexsim.plan.space import cell_split, stage_layers
from apexsim.units import MiB

EAGLE_VOCAB = 32_000  # entries that an EAGLE-3 head chooses among (2503.01840; the published heads of Llama 3 have as many)
KEPT = frozenset({"embedding", "head", "norm", "router", "position"})  # quantised checkpoints keep these in 16 bit


@dataclass(frozen=True, slots=True)
class Stage:
    """One pipeline stage: its distinct blocks with their number of layers, and whether it is the first or last.

    mtp: the model has multi-token-prediction layers, which stand behind this stage's own where the engine drafts.
    """

    index: int
    layers: tuple[tuple[Block, int], ...]
    first: bool
    last: bool
    mtp: bool = False

    @property
    def recurrent(self) -> bool:
        """Whether any of its layers keeps a recurrent state."""
        return any(cell.recurrent for block, _ in self.layers for cell in block.cells)


def stages_of(model: Model, stages: int) -> tuple[Stage, ...]:
    """The model's generating stack cut into pipeline stages."""
    stack, start, cut = model.decoder, 0, []
    mtp = any(name == "mtp" for name, _ in model.outside_parts)
    for index, layers in enumerate(stage_layers(len(stack.layers), stages)):
        counts = Counter(stack.layers[start : start + layers])
        start += layers
        blocks = tuple((stack.blocks[i], n) for i, n in sorted(counts.items()))
        cut.append(Stage(index, blocks, index == 0, index == stages - 1, mtp and index == stages - 1))
    return tuple(cut)


def stored(precision: Precision, part: str) -> float:
    """Bytes per parameter of a part; embeddings, head, norms and router stay in 16 bit unless named."""
    named = dict(precision.weights).get(part)
    each = dtype(named or precision.default).stored
    return each if named or part not in KEPT or each >= 2.0 else 2.0


def stage_weights(model: Model, plan: Plan, stage: Stage, engine: EngineRow | None = None) -> float:
    """Weights of one GPU of a stage [byte]: cells, norms, embedding (first), head (last), rotary cache, towers (first).

    Key/value heads beyond tp are repeated; the vocabulary is padded to 64 and divided by the attention's tp; tied
    embeddings are one copy per stage that uses them; MLA keeps an absorbed 16-bit copy of its up-projections.
    An `engine` adds what its own kernels pad, its buffers, and the model's draft layers where it drafts (last stage).
    """
    size = sum(n * _block_weights(model.hidden, plan, block, engine) for block, n in stage.layers)
    vocab = device_vocab(model, plan.attention.tp)
    precision = plan.precision
    if stage.first:
        size += vocab["embedding"] * stored(precision, "embedding")
        size += model.position_rows * model.hidden * stored(precision, "position")
        size += _extra(model, plan, engine)
    if stage.last:
        tied = model.tied and not stage.first
        size += vocab["embedding"] * stored(precision, "embedding") if tied else 0.0
        size += vocab["head"] * stored(precision, "head")
        size += model.final_norm_parameters * stored(precision, "norm")
        size += draft_bytes(model, plan, engine) if engine is not None and drafts(plan, engine) else 0.0
    return size + rope_bytes(model)


def drafts(plan: Plan, engine: EngineRow) -> int:
    """Drafts of a step that memory is set aside for: the plan's, else those that the engine was told to size for."""
    return plan.draft.tokens if plan.draft else engine.draft_tokens


def draft_bytes(model: Model, plan: Plan, engine: EngineRow) -> float:
    """Weights of what drafts on one GPU [byte]: the model's own layer or an EAGLE-3 head with an LM head of its own, 16 bit; or a model."""
    if plan.draft is None or plan.draft.method == "mtp":
        return 2.0 * dict(model.outside_parts).get("mtp", 0) / plan.attention.tp
    if plan.draft.model:
        second, own = second_of(plan)
        return stage_weights(second, own, stages_of(second, 1)[0], replace(engine, draft_tokens=0))
    if not plan.draft.layers:
        return 0.0
    block, joined = draft_block(model, plan.draft.method)
    cells = sum(n for cell in block.cells for n in cell.count(model.hidden, cell_split(cell, plan)[0]).values())
    head = min(model.vocab, EAGLE_VOCAB) * model.hidden / plan.attention.tp
    return 2.0 * (cells + head + joined * model.hidden**2)


def _block_weights(hidden: int, plan: Plan, block: Block, engine: EngineRow | None) -> float:
    size = block.norm_parameters * stored(plan.precision, "norm")
    for cell in block.cells:
        tp, ep = cell_split(cell, plan)
        whole = engine is not None and engine.memory.shared_experts_whole and ep > 1
        parts = cell.count(hidden, tp, ep, 1 if whole else plan.attention.tp)
        each = {part: stored(plan.precision, part) for part in parts}
        if engine is not None and "experts" in each and _is_mxfp4(plan.precision):
            each["experts"] *= cell.padded(hidden, tp, engine.memory.mxfp4_pad_hidden, engine.memory.mxfp4_pad_inner)
        size += sum(n * each[part] for part, n in parts.items())
        size += 2.0 * cell.absorbed(tp)
        if engine is not None:
            size += sum(unsplit(n * each[part]) for part, n in cell.tensors(hidden, tp, ep))
    return size


def unsplit(size: float) -> float:
    """What PyTorch's caching allocator adds to one tensor [byte].

    A request of 10 MiB and more gets a segment rounded up to 2 MiB; a rest of up to 1 MiB is not split off
    (CUDACachingAllocator: kMinLargeAlloc, kRoundLarge, kSmallSize).  Smaller tensors share segments: nothing is added.
    """
    if size < 10 * MiB:
        return 0.0
    rest = ceil(size / (2 * MiB)) * 2 * MiB - size
    return rest if rest <= MiB else 0.0


def _is_mxfp4(precision: Precision) -> bool:
    return dtype(precision.weight("experts")).kernel == "mxfp4"


def _extra(model: Model, plan: Plan, engine: EngineRow | None) -> float:
    """Towers and projections beside the generating stack, divided by tp, and encoder stacks [byte]; 16 bit.

    Towers outside the published total are loaded too, multi-token-prediction layers only to draft.  A vision tower that
    also feeds the first layers (`Model.deepstack`) has a buffer of one step's tokens for each.
    """
    outside = sum(n for name, n in model.outside_parts if name != "mtp")
    size = 2.0 * (model.extra_parameters + outside) / plan.attention.tp
    if engine is not None:
        size += 2.0 * model.deepstack * engine.max_num_batched_tokens * model.hidden
    for stack in model.stacks[:-1]:
        for i, n in Counter(stack.layers).items():
            size += n * _block_weights(stack.hidden, plan, stack.blocks[i], engine)
    return size
