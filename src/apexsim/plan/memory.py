"""What fits: the memory of one GPU as the engine divides it (floor 3).

Source of all formulas: 238 public start-up logs of vLLM 0.3-0.27, SGLang and TensorRT-LLM; the constants, with the logs
they rest on, are in `data/engines`.  The three budgets (MemoryRules.budget):

    total    KV = fraction × total − weights − activations − non-torch − [graphs]     vLLM
    static   KV = fraction × (total − non-torch) − weights                            SGLang
    free     KV = fraction × (total − non-torch − weights − activations − graphs)     TensorRT-LLM

activations = max(forward, sampler); forward = f · tokens · (4 · hidden + 6 · inner / tp) byte;
sampler = s · max_num_seqs · vocabulary · 4 byte + base.  Independent logs lay −2.5 … +0.5 GiB around the KV so found:
one-sided, since something unmodelled may sit on the GPU (KV connectors, profiling of vision encoders).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil

from apexsim.engines import EngineRow
from apexsim.errors import Rejected
from apexsim.hardware import Cluster
from apexsim.model import cells
from apexsim.model.dtypes import dtype
from apexsim.model.model import Attention, Block, Cell, Experts, Ffn, LatentAttention, Model
from apexsim.plan.plan import Plan, Precision
from apexsim.plan.space import cell_split, routed, stage_layers
from apexsim.units import GiB

KEPT = frozenset({"embedding", "head", "norm", "router", "position"})  # quantised checkpoints keep these in 16 bit
KV_SCATTER = (-2.5 * GiB, 0.5 * GiB)  # covered 28 of 36 independent logs [byte]


@dataclass(frozen=True, slots=True)
class Pool:
    """How one device's KV cache is dealt to its layers.

    block_tokens: tokens in a block; block_bytes: bytes of a block over the layers of one group; reach: per attention
    group (tokens it looks back, spare blocks), (0, 0) = all; state_groups: groups of recurrent layers, each taking
    one block per request.
    """

    block_tokens: int
    block_bytes: float
    reach: tuple[tuple[int, int], ...]
    state_groups: int = 0

    @property
    def groups(self) -> int:
        """Groups of layers; each request takes blocks of every one."""
        return len(self.reach) + self.state_groups


@dataclass(frozen=True, slots=True)
class Room:
    """What one plan's tightest GPU has room for, in the engine's own terms.

    blocks: blocks of block_size tokens per attention lane, as admission sees them; tokens: the engine's line "GPU KV
    cache size"; max_concurrency: requests of max_model_len at once; ledger: (line, byte) of one GPU, adding up to its
    memory; stage: the pipeline stage of that GPU; kv_range: where independent logs lay [byte].
    """

    kv_bytes: float
    blocks: int
    tokens: int
    block_size: int
    max_concurrency: float
    max_model_len: int
    ledger: tuple[tuple[str, float], ...]
    stage: int
    pool: Pool
    kv_range: tuple[float, float]


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


# ---- weights ------------------------------------------------------------------------------------------------------


def stored(precision: Precision, part: str) -> float:
    """Bytes per parameter of a part; embeddings, head, norms and router stay in 16 bit unless named."""
    named = dict(precision.weights).get(part)
    each = dtype(named or precision.default).stored
    return each if named or part not in KEPT or each >= 2.0 else 2.0


def stage_weights(model: Model, plan: Plan, stage: Stage) -> float:
    """Weights of one GPU of a stage [byte]: cells, norms, embedding (first), head (last), rotary cache, towers (first).

    Key/value heads beyond tp are repeated; the vocabulary is padded to 64 and divided by the attention's tp; tied
    embeddings are one copy per stage that uses them; MLA keeps an absorbed 16-bit copy of its up-projections.
    """
    size = sum(n * _block_weights(model.hidden, plan, block) for block, n in stage.layers)
    vocab = cells.device_vocab(model, plan.attention.tp)
    precision = plan.precision
    if stage.first:
        size += vocab["embedding"] * stored(precision, "embedding")
        size += model.position_rows * model.hidden * stored(precision, "position")
        size += _extra(model, plan)
    if stage.last:
        tied = model.tied and not stage.first
        size += vocab["embedding"] * stored(precision, "embedding") if tied else 0.0
        size += vocab["head"] * stored(precision, "head")
        size += model.final_norm_parameters * stored(precision, "norm")
    return size + cells.rope_bytes(model)


def _block_weights(hidden: int, plan: Plan, block: Block) -> float:
    size = block.norm_parameters * stored(plan.precision, "norm")
    for cell in block.cells:
        tp, ep = cell_split(cell, plan)
        parts = cells.device_parameters(cell, hidden, tp, ep, plan.attention.tp)
        size += sum(n * stored(plan.precision, part) for part, n in parts.items())
        size += 2.0 * cells.absorbed_parameters(cell, tp)
    return size


def _extra(model: Model, plan: Plan) -> float:
    """Towers and projections beside the generating stack, divided by tp, and encoder stacks [byte]; 16 bit.

    Towers outside the published total are loaded too; multi-token-prediction layers are not.
    """
    outside = sum(n for name, n in model.outside_parts if name != "mtp")
    size = 2.0 * (model.extra_parameters + outside) / plan.attention.tp
    for stack in model.stacks[:-1]:
        for i, n in Counter(stack.layers).items():
            size += n * _block_weights(stack.hidden, plan, stack.blocks[i])
    return size


# ---- overheads ----------------------------------------------------------------------------------------------------


def activations(model: Model, plan: Plan, engine: EngineRow, last: bool = True) -> float:
    """Peak of the engine's profiling run [byte]: the larger of the forward pass and, on the last stage, the sampler.

    An FFN replica sees the tokens of attention.dp / ffn.dp lanes; the formulas were fitted on plans with one lane.
    """
    rules, tokens = engine.memory, engine.profile_tokens or engine.max_num_batched_tokens
    lanes = plan.attention.dp / plan.ffn.dp
    inner = max((_inner(cell, plan) for block in model.decoder.blocks for cell in block.cells), default=0.0)
    forward = rules.forward_factor * tokens * (4 * model.hidden * max(1.0, lanes) + 6 * inner * lanes)
    if not last:
        return forward
    sampler = rules.sampler_factor * engine.max_num_seqs * model.vocab * 4 + rules.sampler_bytes
    sampler += rules.sampler_experts_bytes if routed(model) else 0
    sampler += (
        rules.sampler_vision_bytes
        if any("vision" in name for name, _ in model.extra_parts + model.outside_parts)
        else 0
    )
    return max(forward, sampler)


def _inner(cell: Cell, plan: Plan) -> float:
    """Inner width per token and device; a token passes through top_k experts."""
    tp, ep = cell_split(cell, plan)
    if isinstance(cell, Ffn):
        return cell.inner / tp
    return (cell.top_k * cell.inner + cell.shared_inner) / (tp * ep) if isinstance(cell, Experts) else 0.0


def non_torch(plan: Plan, cluster: Cluster, engine: EngineRow) -> float:
    """Contexts and communicators of one GPU [byte], by the number of GPUs that talk and what joins them."""
    rules, group = engine.memory, plan.stage_devices
    size = rules.non_torch_bytes
    if group > 1:
        fast = cluster.gpu.has_scale_up
        joined = rules.non_torch_nvlink_bytes if group <= 4 else rules.non_torch_wide_bytes
        size = joined if fast else max(size, rules.non_torch_pcie_bytes)
    return size + (rules.non_torch_stage_bytes if plan.stages > 1 else 0)


def graphs(engine: EngineRow) -> float:
    """Captured CUDA graphs [byte]: one of each mode per capture size; full graphs end at max_num_seqs."""
    full = sum(size <= engine.max_num_seqs for size in engine.pad) if engine.memory.graph_modes > 1 else 0
    return engine.memory.graph_bytes * (len(engine.pad) + full)


# ---- cache --------------------------------------------------------------------------------------------------------


def kv_token_bytes(cell: Cell, tp: int, plan: Plan, engine: EngineRow) -> float:
    """Cache of one cell per token and device [byte]; some engines pad latent rows."""
    element = dtype(plan.precision.kv).stored
    size = cells.kv_bytes(cell, tp, element)
    if isinstance(cell, LatentAttention) and engine.memory.latent_pad:
        width = cell.kv_rank + cell.rope_dim
        size += (ceil(width / engine.memory.latent_pad) * engine.memory.latent_pad - width) * element
    return size


def kv_pool(plan: Plan, stage: Stage, engine: EngineRow) -> Pool:
    """How the cache of a stage is dealt: one pool over all layers, or groups of equally many layers of one kind.

    Groups (vLLM 0.9 on): g = fewest layers of a kind, ⌈layers of the kind / g⌉ groups of each.  Recurrent layers are a
    kind too: a block grows to as many tokens (a multiple of block_size) as fill the bytes of one layer's state.  Before
    that version every layer is charged with the whole context, and state comes on top.
    """
    kinds, row, state = _kinds(plan, stage, engine)
    recurrent = sum(n for _, n in state)
    largest = max((size for size, _ in state), default=0.0)
    layers = sum(kinds.values())
    if not layers:
        return Pool(engine.block_size, max(largest * recurrent, 1.0), (), 1)
    if engine.memory.kv_pool != "groups":
        block = engine.block_size * row
        return Pool(engine.block_size, block, ((0, 0),), ceil(largest * recurrent / block))
    tokens = engine.block_size
    if recurrent:
        tokens = ceil(largest / (row / layers) / tokens) * tokens
    least = min(*kinds.values(), recurrent or layers)
    reach = tuple(kind for kind, n in sorted(kinds.items()) for _ in range(ceil(n / least)))
    return Pool(tokens, tokens * row * least / layers, reach, ceil(recurrent / least))


def _kinds(
    plan: Plan, stage: Stage, engine: EngineRow
) -> tuple[Counter[tuple[int, int]], float, list[tuple[float, int]]]:
    """(reach -> layers), bytes per token over all layers, and (state bytes, layers) of the recurrent ones."""
    kinds: Counter[tuple[int, int]] = Counter()
    row, state = 0.0, []
    for block, n in stage.layers:
        for cell in block.cells:
            each = kv_token_bytes(cell, plan.attention.tp, plan, engine)
            held = cells.state_bytes(cell, plan.attention.tp)
            if each:
                kinds[_reach(cell)] += n
                row += each * n
            if held:
                state.append((held, n))
    return kinds, row, state


def _reach(cell: Cell) -> tuple[int, int]:
    """(tokens looked back, spare blocks) of a cell: a window may straddle one more block, a chunk starts on its own."""
    window = cells.kv_window(cell)
    if not window:
        return (0, 0)
    return (window, 0) if isinstance(cell, Attention) and cell.chunk else (window - 1, 1)


def request_blocks(pool: Pool, length: int, engine: EngineRow) -> int:
    """Blocks that one request of `length` tokens needs: full groups keep all, others their reach + one step."""
    need = pool.state_groups
    for reach, spare in pool.reach:
        kept = min(reach + engine.max_num_batched_tokens, length) if reach or spare else length
        need += ceil(kept / pool.block_tokens) + spare
    return need


# ---- room ---------------------------------------------------------------------------------------------------------


def _total(fraction: float, total: float, parts: dict[str, float], in_budget: int) -> float:
    graph = parts["CUDA graphs"] if in_budget else 0.0
    return fraction * total - parts["weights"] - parts["activation peak"] - parts["non-torch"] - graph


def _static(fraction: float, total: float, parts: dict[str, float], in_budget: int) -> float:
    return fraction * (total - parts["non-torch"]) - parts["weights"]


def _free(fraction: float, total: float, parts: dict[str, float], in_budget: int) -> float:
    return fraction * (total - sum(parts.values()))


BUDGETS = {"total": _total, "static": _static, "free": _free}


def room(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow, max_model_len: int) -> Room | Rejected:
    """What fits beside the weights on the tightest GPU of a plan, or why nothing does; `engine` must be settled."""
    tightest: Room | None = None
    for stage in stages_of(model, plan.stages):
        found = _stage_room(model, plan, cluster, engine, max_model_len, stage)
        if isinstance(found, Rejected):
            return found
        if tightest is None or found.blocks < tightest.blocks:
            tightest = found
    assert tightest is not None
    if tightest.max_concurrency < 1.0:
        reason = f"KV holds {tightest.tokens:,} tokens < one request of {max_model_len:,}"
        return Rejected("room for one request", reason, plan.shorthand)
    return tightest


def _stage_room(
    model: Model, plan: Plan, cluster: Cluster, engine: EngineRow, max_model_len: int, stage: Stage
) -> Room | Rejected:
    total, fraction, rules = cluster.gpu.memory_bytes, engine.memory_fraction, engine.memory
    parts = {
        "weights": stage_weights(model, plan, stage),
        "activation peak": activations(model, plan, engine, stage.last),
        "non-torch": non_torch(plan, cluster, engine),
        "CUDA graphs": graphs(engine),
    }
    kv = BUDGETS[rules.budget](fraction, total, parts, rules.graphs_in_budget)
    pool = kv_pool(plan, stage, engine)
    if kv < pool.block_bytes:
        return Rejected("weights fit", _short(parts, fraction, total, -kv, plan, stage), plan.shorthand)
    free = total - kv - sum(parts.values())
    if free < 0:
        lines = " + ".join(f"{name} {size / GiB:.1f}" for name, size in (*parts.items(), ("KV cache", kv)))
        return Rejected(
            "overheads fit", f"{lines} GiB > {total / GiB:.1f} GiB: {-free / GiB:.1f} GiB short", plan.shorthand
        )
    count = int(kv // pool.block_bytes)
    concurrency = count / request_blocks(pool, max_model_len, engine)
    blocks = _lane_blocks(pool, count, concurrency, max_model_len)
    by_length = rules.tokens_line == "concurrency"
    tokens = int(concurrency * max_model_len) if by_length else count // pool.groups * pool.block_tokens
    ledger = (*parts.items(), ("KV cache", kv), ("free", free))
    around = (max(0.0, kv + KV_SCATTER[0]), max(0.0, kv + KV_SCATTER[1]))
    return Room(kv, blocks, tokens, pool.block_tokens, concurrency, max_model_len, ledger, stage.index, pool, around)


def _lane_blocks(pool: Pool, count: int, concurrency: float, max_model_len: int) -> int:
    """Blocks as admission sees them: one pool's own; of several groups, what requests of full length would take."""
    if pool.reach == ((0, 0),) and not pool.state_groups:
        return count
    return int(concurrency * ceil(max_model_len / pool.block_tokens))


def _short(parts: dict[str, float], fraction: float, total: float, missing: float, plan: Plan, stage: Stage) -> str:
    """The sum that failed, in GiB."""
    rest = sum(parts.values()) - parts["weights"]
    where = f" on stage {stage.index + 1} of {plan.stages}" if plan.stages > 1 else ""
    return (
        f"weights {parts['weights'] / GiB:.1f} GiB + overheads {rest / GiB:.1f} GiB > "
        f"{fraction:.2f} × {total / GiB:.1f} GiB{where}: {max(missing, 0.0) / GiB:.1f} GiB short"
    )


def log_lines(room: Room) -> tuple[str, ...]:
    """The room in the words of vLLM's start-up log."""
    return (
        f"Available KV cache memory: {room.kv_bytes / GiB:.2f} GiB",
        f"GPU KV cache size: {room.tokens:,} tokens",
        f"Maximum concurrency for {room.max_model_len:,} tokens per request: {room.max_concurrency:.2f}x",
    )
