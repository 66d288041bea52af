"""How a device's KV memory becomes blocks, and blocks become requests (floor 3)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil

from apexsim.engines import EngineRow
from apexsim.model.cell import Cache, Cell
from apexsim.model.dtypes import dtype
from apexsim.model.model import Block
from apexsim.plan.plan import Plan
from apexsim.plan.second import second_of
from apexsim.plan.weights import Stage, drafts, stages_of

ALIGN = 576  # [byte] to which pages of latents are rounded up
MERGE = 1.25  # kinds whose numbers of layers differ by less form one size of group (vLLM kv_cache_utils)


@dataclass(frozen=True, slots=True)
class BlockGroup:
    """Attention layers that share blocks: tokens in a block, tokens looked back (0 with no spare block = all)."""

    block_tokens: int
    reach: int = 0
    spare: int = 0


@dataclass(frozen=True, slots=True)
class CacheShares:
    """How one device's KV cache is dealt to its layers.

    block_bytes: bytes of a block over the layers of one group; groups: of attention layers; state_groups: of recurrent
    layers; state_blocks: blocks that the recurrent state of a request takes, whatever its length; state_bytes: that
    state, where it lies in a pool of its own.
    """

    block_bytes: float
    groups: tuple[BlockGroup, ...]
    state_groups: int = 0
    state_blocks: int = 0
    state_bytes: float = 0.0

    @property
    def block_tokens(self) -> int:
        """Tokens of the smallest block of a group that keeps everything, or of all where none does."""
        whole = [group.block_tokens for group in self.groups if not group.reach]
        return min(whole or [group.block_tokens for group in self.groups], default=1)

    @property
    def uniform(self) -> bool:
        """One group that keeps everything and no state: a block is a block."""
        return len(self.groups) == 1 and not self.groups[0].reach and not self.state_blocks


Kind = tuple[int, int, float]  # tokens looked back, spare blocks, bytes per token of one layer


def kv_token_bytes(cell: Cell, tp: int, plan: Plan, engine: EngineRow) -> float:
    """Cache of one cell per token and device [byte]; some engines pad latent rows."""
    element = dtype(plan.precision.kv).stored
    size, width, pad = cell.kv_bytes(tp, element), cell.latent_width(), engine.memory.latent_pad
    return size + (ceil(width / pad) * pad - width) * element if pad else size


def kv_pool(plan: Plan, stage: Stage, engine: EngineRow) -> CacheShares:
    """How the cache of a stage is dealt: one pool over all layers, or groups of equally many layers of one kind.

    Groups (vLLM 0.9 on): all blocks have the bytes of the largest layer's; layers with fewer bytes per token hold more
    tokens in one.  g = fewest layers of a kind (or the most, if that is less than a quarter more), ⌈layers of the kind
    / g⌉ groups of each.  Recurrent layers are a kind too: the block grows to as many tokens (a multiple of block_size)
    as fill one layer's state.  Before that version every layer is charged with the whole context, state on top.
    """
    kinds, state, recurrent = _kinds(plan, stage, engine)
    if engine.memory.kv_pool == "groups" and any(cell.caches() for block, _ in stage.layers for cell in block.cells):
        return _packed(plan, stage, engine)
    row = sum(each * n for (_, _, each), n in kinds.items())
    tokens = engine.block_size
    if not kinds:
        return CacheShares(max(state * recurrent, 1.0), (), 1, 1)
    crossed = _crossed(plan, stage)
    if crossed:
        return CacheShares(tokens * row, (BlockGroup(tokens),), 0, ceil(crossed / (tokens * row)))
    alike = not recurrent and len({kind[:2] for kind in kinds}) == 1
    if alike and engine.memory.kv_pool == "groups":
        return CacheShares(tokens * row, (BlockGroup(tokens, *next(iter(kinds))[:2]),))
    if engine.memory.kv_pool != "groups":
        apart = engine.memory.state_share > 0
        held = 0 if apart else ceil(state * recurrent / (tokens * row))
        return CacheShares(tokens * row, (BlockGroup(tokens),), 0, held, state * recurrent if apart else 0.0)
    return _grouped(kinds, state, recurrent, engine, drafts(plan, engine))


def _crossed(plan: Plan, stage: Stage) -> float:
    """Keys and values of the encoder's output that a request holds on a device as long as it runs, as blocks of the one pool [byte]."""
    layers = ((cell, n) for block, n in stage.layers for cell in block.cells)
    held = sum(n * cell.prompt_elements(plan.attention.tp) * cell.source for cell, n in layers)
    return held * dtype(plan.precision.kv).stored


def _grouped(kinds: Counter[Kind], state: float, recurrent: int, engine: EngineRow, drafted: int) -> CacheShares:
    largest = max(each for _, _, each in kinds)
    tokens = max(1, ceil(state / largest / engine.block_size)) * engine.block_size
    counts = [*kinds.values(), *([recurrent] if recurrent else [])]
    size = max(counts) if max(counts) < MERGE * min(counts) else min(counts)
    groups = tuple(
        BlockGroup(tokens * int(largest // each), reach, spare)
        for (reach, spare, each), n in sorted(kinds.items())
        for _ in range(ceil(n / size))
    )
    held = ceil(recurrent / size)
    per_group = engine.memory.state_blocks + drafted
    return CacheShares(tokens * largest * size, groups, held, held * per_group)


def _packed(plan: Plan, stage: Stage, engine: EngineRow) -> CacheShares:
    """The pool of layers that keep several caches each (compressed latents): one block holds a page of every cache of the full group.

    Caches that keep everything are one group, those with a window one of each (block, window), cut into groups of as many layers as pad
    least (vLLM 0.25 kv_cache_utils, _get_kv_cache_groups_uniform_groups).  A page of a window group takes the place of a full one's, so
    every group's block has the bytes of the whole: a request costs several GiB whatever its length.
    """
    pages: Counter[Cache] = Counter()
    for block, n in (*stage.layers, *_second_layers(plan, stage)):
        for cell in block.cells:
            pages.update(dict.fromkeys(cell.caches(), n))
    if has_draft_layer(plan, stage, engine):
        pages[next(c for c in pages if c.window)] += 1  # the draft layer looks at a window alone
    full = {cache: n for cache, n in pages.items() if not cache.window}
    windows: dict[tuple[int, int], int] = {}
    for cache, n in pages.items():
        if cache.window:
            windows[cache.block, cache.window] = max(windows.get((cache.block, cache.window), 0), n)
    slots = _least_padding([max(full.values(), default=1), *windows.values()])
    sizes = sorted({ceil(cache.page / ALIGN) * ALIGN for cache in full}, reverse=True) or [max(cache.page for cache in pages)]
    share = {size: min(slots, sum(n for cache, n in full.items() if ceil(cache.page / ALIGN) * ALIGN == size)) for size in sizes}
    share[sizes[0]] = slots  # a window group fills the places of the largest pages
    groups = [BlockGroup(max(cache.block for cache in full) if full else engine.block_size)]
    groups += [BlockGroup(block, window - 1, 1) for (block, window), n in sorted(windows.items()) for _ in range(ceil(n / slots))]
    return CacheShares(float(sum(size * n for size, n in share.items())), tuple(groups))


def has_draft_layer(plan: Plan, stage: Stage, engine: EngineRow) -> bool:
    """Whether a draft layer stands behind the layers of a stage: the model's own, or that of the plan."""
    eagle = plan.draft is not None and plan.draft.method == "eagle3"
    apart = plan.draft is not None and not plan.draft.layers
    return drafts(plan, engine) > 0 and not apart and (stage.last if eagle else stage.mtp)


def _second_layers(plan: Plan, stage: Stage) -> tuple[tuple[Block, int], ...]:
    """The layers of a model that drafts, which keep what they have seen as the others do."""
    return stages_of(second_of(plan)[0], 1)[0].layers if plan.draft and plan.draft.model and stage.last else ()


def _least_padding(counts: list[int]) -> int:
    """Layers in a group, no fewer than the first count, with which rounding all counts up pads least; of several the most."""
    return max(range(counts[0], max(counts) + 1), key=lambda n: (-sum(-count % n for count in counts), n), default=counts[0])


def _kinds(plan: Plan, stage: Stage, engine: EngineRow) -> tuple[Counter[Kind], float, int]:
    """Layers of each kind that cache tokens; bytes of the largest recurrent state, and layers that have one."""
    kinds: Counter[Kind] = Counter()
    largest, recurrent = 0.0, 0
    for block, n in (*stage.layers, *_second_layers(plan, stage)):
        for cell in block.cells:
            each = kv_token_bytes(cell, plan.attention.tp, plan, engine)
            held = cell.state_bytes(plan.attention.tp)
            if each:
                kinds[(*cell.reach(), each)] += n
            if held:
                largest, recurrent = max(largest, held), recurrent + n
    if kinds and has_draft_layer(plan, stage, engine):
        kinds[min(kinds)] += 1  # the draft layer is of the kind that looks back farthest: (0, 0) sorts first
    return kinds, largest, recurrent


def handed_bytes(plan: Plan, stages: tuple[Stage, ...], engine: EngineRow, length: float) -> float:
    """What a request of `length` computed tokens holds on the GPU that holds most of it [byte]: keys, values and recurrent state, as far as
    windows reach; this is what another pool is sent."""
    most = 0.0
    for stage in stages:
        kinds, state, recurrent = _kinds(plan, stage, engine)
        most = max(most, sum(n * each * min(length, reach or length) for (reach, _, each), n in kinds.items()) + state * recurrent)
    return most


def request_blocks(pool: CacheShares, length: int, engine: EngineRow) -> int:
    """Blocks that one request of `length` tokens needs: full groups keep all, others their reach + one step."""
    need = pool.state_blocks
    for group in pool.groups:
        kept = min(group.reach + engine.max_num_batched_tokens, length) if group.reach else length
        need += ceil(kept / group.block_tokens) + group.spare
    return need


def steady_blocks(pool: CacheShares, context: float) -> float:
    """Blocks that a decoding request holds at a context: windowed groups let go what has slid out of their window."""
    need = float(pool.state_blocks)
    for group in pool.groups:
        kept = min(group.reach, context) if group.reach else context
        need += max(1.0, kept / group.block_tokens) + group.spare
    return need


def served_blocks(pool: CacheShares, count: int, context: float, longest: int, engine: EngineRow) -> int:
    """Blocks of one group's size that `count` blocks are worth to requests of a mean `context`, which is what the simulated engine counts.

    One chunk of a prompt is in flight, whose windowed blocks are not let go yet; the rest is held as `steady_blocks` says.  The engine's
    own line counts every request as one in the middle of its prompt at full length (`request_blocks`), three times as much for gpt-oss.
    Never less than the `longest` request needs, where the pool holds that.
    """
    if pool.uniform:
        return count
    flying = sum(ceil(engine.max_num_batched_tokens / group.block_tokens) for group in pool.groups if group.reach)
    whole = context / pool.block_tokens
    worth = max(count - flying, 0) * whole / steady_blocks(pool, context)
    least = min(1.0, count / request_blocks(pool, longest, engine)) * ceil(longest / pool.block_tokens)
    return int(max(worth, least))


def concurrency(pool: CacheShares, count: int, length: int, engine: EngineRow) -> float:
    """Requests of `length` tokens that `count` blocks hold at once: the engine's "Maximum concurrency"."""
    return count / request_blocks(pool, length, engine)


def token_line(pool: CacheShares, count: int, length: int, engine: EngineRow) -> int:
    """The engine's line "GPU KV cache size" for `count` blocks [tokens]; what it means depends on the version."""
    if engine.memory.tokens_line == "concurrency":
        return int(concurrency(pool, count, length, engine) * length)
    return count // (len(pool.groups) + pool.state_groups) * pool.block_tokens
