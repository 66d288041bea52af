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

from dataclasses import dataclass
from math import ceil

from apexsim.engines import EngineRow
from apexsim.errors import Rejected
from apexsim.hardware import Cluster
from apexsim.model.model import Model
from apexsim.model.parts import routed
from apexsim.plan.plan import Plan
from apexsim.plan.pool import CacheShares, concurrency, kv_pool, request_blocks, token_line
from apexsim.plan.space import cell_split
from apexsim.plan.weights import Stage, stage_weights, stages_of
from apexsim.units import GiB

DISPATCH = "dispatch buffers"
ONE_REQUEST = "room for one request"
__all__ = [
    "CacheShares",
    "Room",
    "Stage",
    "kv_pool",
    "log_lines",
    "request_blocks",
    "room",
    "size",
    "stage_weights",
    "stages_of",
]


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
    pool: CacheShares
    kv_range: tuple[float, float]


# ---- overheads ----------------------------------------------------------------------------------------------------


def activations(model: Model, plan: Plan, engine: EngineRow, last: bool = True) -> float:
    """Peak of the engine's profiling run [byte]: the larger of the forward pass and, on the last stage, the sampler.

    An FFN replica sees the tokens of attention.dp / ffn.dp lanes; the formulas were fitted on plans with one lane.  In a wide plan tokens
    are sent: a GPU gets as many as it sends, at most top_k copies of its own, and dense layers see its own lane.
    """
    rules, tokens = engine.memory, engine.profile_tokens or engine.max_num_batched_tokens
    lanes = plan.attention.dp / plan.ffn.dp
    cells = [cell for block in model.decoder.blocks for cell in block.cells]
    inner = max(
        (cell.token_width(*cell_split(cell, plan)) * (1 if plan.wide and cell.place == "ffn" else lanes) for cell in cells), default=0.0
    )
    if plan.wide:
        lanes = min(lanes, max((way[1] for cell in cells if (way := cell.route(model.hidden))), default=lanes))
    forward = rules.forward_factor * tokens * (4 * model.hidden * max(1.0, lanes) + 6 * inner)
    if not last or not model.has_head:
        return forward
    sampler = rules.sampler_factor * engine.max_num_seqs * model.vocab * 4 + rules.sampler_bytes
    sampler += rules.sampler_experts_bytes if routed(model) else 0
    sampler += rules.sampler_vision_bytes if any("vision" in name for name, _ in model.extra_parts + model.outside_parts) else 0
    return max(forward, sampler)


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


# ---- room ---------------------------------------------------------------------------------------------------------


def _total(fraction: float, total: float, parts: dict[str, float], in_budget: int) -> float:
    graph = parts["CUDA graphs"] if in_budget else 0.0
    return fraction * total - parts["weights"] - parts["activation peak"] - parts["non-torch"] - graph


def _static(fraction: float, total: float, parts: dict[str, float], in_budget: int) -> float:
    return fraction * (total - parts["non-torch"]) - parts["weights"] - parts.get(DISPATCH, 0.0)


def _free(fraction: float, total: float, parts: dict[str, float], in_budget: int) -> float:
    return fraction * (total - sum(parts.values()))


BUDGETS = {"total": _total, "static": _static, "free": _free}


def room(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow, max_model_len: int) -> Room | Rejected:
    """What fits beside the weights on the tightest GPU of a plan, or why nothing does; `engine` must be settled.

    A cache that cannot hold one request of max_model_len is refused, as vLLM does (see `size` for engines that start).
    """
    found = size(model, plan, cluster, engine, max_model_len)
    if isinstance(found, Room) and found.max_concurrency < 1.0:
        reason = f"KV holds {found.tokens:,} tokens < one request of {max_model_len:,}"
        return Rejected(ONE_REQUEST, reason, plan.shorthand)
    return found


def size(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow, max_model_len: int) -> Room | Rejected:
    """The room of the tightest GPU, however small its cache, or why the weights and overheads do not fit."""
    tightest: Room | None = None
    for stage in stages_of(model, plan.stages):
        found = _stage_room(model, plan, cluster, engine, max_model_len, stage)
        if isinstance(found, Rejected):
            return found
        if tightest is None or found.blocks < tightest.blocks:
            tightest = found
    assert tightest is not None
    return tightest


def stage_parts(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow, stage: Stage) -> tuple[dict[str, float], float]:
    """What one GPU of a stage holds beside its cache [byte], and what the engine's budget leaves for that, below 0 where nothing."""
    rules = engine.memory
    parts = {
        "weights": stage_weights(model, plan, stage, engine),
        "activation peak": activations(model, plan, engine, stage.last),
        "non-torch": non_torch(plan, cluster, engine),
        "CUDA graphs": graphs(engine),
    }
    if plan.ffn.ep > 1 and rules.dispatch_bytes:
        parts[DISPATCH] = rules.dispatch_bytes
    return parts, BUDGETS[rules.budget](engine.memory_fraction, cluster.gpu.memory_bytes, parts, rules.graphs_in_budget)


def _stage_room(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow, max_model_len: int, stage: Stage) -> Room | Rejected:
    total, fraction, rules = cluster.gpu.memory_bytes, engine.memory_fraction, engine.memory
    parts, kv = stage_parts(model, plan, cluster, engine, stage)
    pool = kv_pool(plan, stage, engine)
    if rules.state_share and stage.recurrent:
        parts["recurrent state"] = kv * rules.state_share / (1.0 + rules.state_share)
        kv -= parts["recurrent state"]
    if kv < pool.block_bytes:
        short = max(-kv, 0.0)
        return Rejected("weights fit", _short(parts, fraction, total, short, plan, stage), plan.shorthand, short, plan.clock)
    free = total - kv - sum(parts.values())
    if free < 0:
        lines = " + ".join(f"{name} {size / GiB:.1f}" for name, size in (*parts.items(), ("KV cache", kv)))
        reason = f"{lines} GiB > {total / GiB:.1f} GiB: {-free / GiB:.1f} GiB short"
        return Rejected("overheads fit", reason, plan.shorthand, -free, plan.clock)
    count = int(kv // pool.block_bytes)
    many = concurrency(pool, count, max_model_len, engine)
    blocks = _lane_blocks(pool, count, many, max_model_len)
    tokens = token_line(pool, count, max_model_len, engine)
    ledger = (*parts.items(), ("KV cache", kv), ("free", free))
    around = (max(0.0, kv + rules.kv_low_bytes), max(0.0, kv + rules.kv_high_bytes))
    return Room(kv, blocks, tokens, pool.block_tokens, many, max_model_len, ledger, stage.index, pool, around)


def _lane_blocks(pool: CacheShares, count: int, concurrency: float, max_model_len: int) -> int:
    """Blocks as admission sees them: one pool's own; of several groups, what requests of full length would take."""
    if pool.uniform:
        return count
    return int(concurrency * ceil(max_model_len / pool.block_tokens))


def _short(parts: dict[str, float], fraction: float, total: float, missing: float, plan: Plan, stage: Stage) -> str:
    """The sum that failed, in GiB."""
    rest = sum(parts.values()) - parts["weights"]
    where = f" on stage {stage.index + 1} of {plan.stages}" if plan.stages > 1 else ""
    return (
        f"weights {parts['weights'] / GiB:.1f} GiB + overheads {rest / GiB:.1f} GiB > "
        f"{fraction:.2f} × {total / GiB:.1f} GiB{where}: {missing / GiB:.1f} GiB short"
    )


def fractions(room: Room, engine: EngineRow) -> dict[str, float]:
    """The memory fraction of each kind of budget that would leave this room's cache: the same GPU, three meanings."""
    parts = {name: size for name, size in room.ledger if name not in ("free", "KV cache")}
    total = sum(size for _, size in room.ledger)
    cache = room.kv_bytes + parts.pop("recurrent state", 0.0)
    graphs_out = 0.0 if engine.memory.graphs_in_budget else parts["CUDA graphs"]
    before = total - parts["non-torch"]
    return {
        "total": (cache + sum(parts.values()) - graphs_out) / total,
        "static": (cache + parts["weights"] + parts.get(DISPATCH, 0.0)) / before,
        "free": cache / (total - sum(parts.values())),
    }


def log_lines(room: Room) -> tuple[str, ...]:
    """The room in the words of vLLM's start-up log."""
    return (
        f"Available KV cache memory: {room.kv_bytes / GiB:.2f} GiB",
        f"GPU KV cache size: {room.tokens:,} tokens",
        f"Maximum concurrency for {room.max_model_len:,} tokens per request: {room.max_concurrency:.2f}x",
    )
