"""How a device's KV memory becomes blocks, and blocks become requests (floor 3)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil

from apexsim.engines import EngineRow
from apexsim.model import cells
from apexsim.model.dtypes import dtype
from apexsim.model.model import Attention, Cell, LatentAttention
from apexsim.plan.plan import Plan
from apexsim.plan.weights import Stage


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


def concurrency(pool: Pool, count: int, length: int, engine: EngineRow) -> float:
    """Requests of `length` tokens that `count` blocks hold at once: the engine's "Maximum concurrency"."""
    return count / request_blocks(pool, length, engine)


def token_line(pool: Pool, count: int, length: int, engine: EngineRow) -> int:
    """The engine's line "GPU KV cache size" for `count` blocks [tokens]; what it means depends on the version."""
    if engine.memory.tokens_line == "concurrency":
        return int(concurrency(pool, count, length, engine) * length)
    return count // pool.groups * pool.block_tokens
