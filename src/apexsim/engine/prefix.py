"""The KV blocks of a lane with what they hold, so that a prompt finds what others have computed (floor E).  Modified in place.

A block that holds a whole block of tokens which another request may have is known by its key: equal keys, equal tokens from the
first one on.  All other blocks are alike, and need no identity: they are counted.  Blocks that nobody holds wait in a queue,
those that were given back first in front, and keep their keys until they are taken from there.  `State.free` counts the blocks
that are free.  What decodes take of them is counted first and taken from the queue when somebody looks at it (`catch`): until
then nobody can tell the difference.
docs/caching.md says whose rules these are.
"""

from __future__ import annotations

import numpy as np

from apexsim.engine.blocks import NO_KEY, find, key_of, link, link_alike, named, take_first, unlink
from apexsim.engine.jit import inner
from apexsim.engine.pace import decodes_in, settled
from apexsim.engine.tiers import keeps, keeps_alike, kept, tiered
from apexsim.engine.types import AT_ONCE, EVICTED, LEAVING, NOBODY, World


@inner
def reuses(world: World) -> bool:
    """Do prompts find what others have computed?"""
    return world.plain == 0


@inner
def _pop(world: World, r: int, l: int, blocks: int) -> None:
    """The first blocks of the queue; what they held is lost, or goes down to the tiers."""
    while blocks > 0:
        taken, key = take_first(world.pool, r, l, blocks)
        blocks -= taken
        if key != NO_KEY and tiered(world) and world.tiers.write == EVICTED:
            keeps(world, r, l, key)


@inner
def catch(world: World, r: int, l: int) -> None:
    """Take from the queue what has been counted as taken."""
    _pop(world, r, l, world.pool.size[r, l] - world.state.free[r, l])


# ---- requests come and go --------------------------------------------------------------------------------------------


@inner
def _seek(world: World, r: int, g: int, l: int, key: int, j: int, me: int, mine: int) -> bool:
    """Do decoding requests of the lane hold a block j with this key that has no name yet?  They get it now, the one that filled it
    first before the others.  g: the group whose decodes have their blocks for the step being formed, NOBODY if none has; of those that
    filled it later than request `me` did, which has `mine` tokens, none is meant.

    So nobody has to look after the blocks that decodes fill, and yet they are found at once.
    """
    if key < 0 or world.rules.reuse != AT_ONCE:
        return False
    any_has = False
    while True:
        i = _first_to_fill(world, r, g, l, key, j, me, mine)
        if i < 0:
            return any_has
        any_has = True
        catch(world, r, l)
        _name_until(world, r, l, i, j + 1)


@inner
def _first_to_fill(world: World, r: int, g: int, l: int, key: int, j: int, me: int, mine: int) -> int:
    """Of the decoding requests that hold such a block the one that filled it first, NOBODY if there is none.  Of two that did so in
    one step it is the one that joined first."""
    state, pool, block = world.state, world.pool, world.rules.block
    best, longest = np.int64(NOBODY), np.int64(mine - 1)
    for x in range(world.stages):
        more = 1 if x == g else 0  # it has the block of the token that this step computes
        for n in range(state.stack_size[r, x, l]):
            i = state.stack[r, x, l, n]
            if i == me:
                longest = max(longest, np.int64(mine))
            if pool.named[i] > j or not decodes_in(world, x, l, i) or (j + 1) * block > world.req.reach[i] or key_of(world, i, j) != key:
                continue
            filled = settled(world, r, x, i) + (more if world.work.ends[i] != LEAVING else 0)
            if filled < (j + 1) * block:
                pool.hope[r] = 1
            elif filled > longest:
                best, longest = np.int64(i), filled
    return best


@inner
def grown(world: World, g: int) -> int:
    """The group, where its decodes have their blocks before prompts look for theirs; else NOBODY."""
    return g if world.rules.mix == 1 else NOBODY


@inner
def hopes(world: World, r: int) -> bool:
    """May a request that found too little in this step find more once a decoding one has gone on?"""
    return reuses(world) and world.pool.hope[r] == 1


@inner
def despair(world: World, r: int) -> None:
    """Nobody has looked for anything yet."""
    if reuses(world):
        world.pool.hope[r] = 0


@inner
def matched(world: World, r: int, g: int, l: int, i: int) -> tuple[int, int]:
    """How many leading blocks of request i the lane has, and how many of these others hold; one token is left to compute.  g as above."""
    catch(world, r, l)
    most = (world.req.prompt[i] + world.work.made[i] - 1) // world.rules.block
    j = shared = 0
    while j < most:
        key = key_of(world, i, j)
        c = find(world.pool, r, l, key)
        if c < 0 and _seek(world, r, g, l, key, j, NOBODY, 0):
            c = find(world.pool, r, l, key)
        if c < 0:
            break
        shared += 1 if world.pool.held[r, l, c] > 0 else 0
        j += 1
    return j, shared


@inner
def come(world: World, r: int, l: int, i: int, hit: int, target: int) -> None:
    """Request i takes the `hit` leading blocks that it has found; it will hold `target` tokens before it decodes."""
    pool = world.pool
    for j in range(hit):
        c = find(world.pool, r, l, key_of(world, i, j))
        if pool.held[r, l, c] == 0:
            unlink(pool, r, l, c)
            pool.size[r, l] -= 1
        pool.held[r, l, c] += 1
    if tiered(world) and world.tiers.write != EVICTED:
        for j in range(min(hit, kept(world, i)) - 1, -1, -1):  # of blocks used together the first are thrown out last
            keeps(world, r, l, key_of(world, i, j))
    pool.hit[i] = pool.has[i] = pool.named[i] = hit
    pool.tail[i] = NOBODY
    pool.target[i] = target


@inner
def take_until(world: World, r: int, l: int, i: int, blocks: int) -> None:
    """Request i has so many blocks."""
    pool = world.pool
    if blocks > pool.has[i]:
        _pop(world, r, l, blocks - pool.has[i])
        pool.has[i] = blocks


@inner
def name(world: World, r: int, g: int, l: int, i: int, tokens: int) -> None:
    """Others find the blocks that the first `tokens` tokens of request i fill, where others may have these.  g as above."""
    pool = world.pool
    end = min(min(tokens, world.req.reach[i]) // world.rules.block, np.int64(pool.has[i]))
    _name_behind(world, r, g, l, i, end, 0)


@inner
def _name_behind(world: World, r: int, g: int, l: int, i: int, end: int, filled: int) -> None:
    """The same for its first `end` blocks, behind what decodes had filled before; filled: tokens that it has filled by decoding."""
    j = np.int64(world.pool.named[i])
    while j < end:
        key = key_of(world, i, j)
        if not _seek(world, r, grown(world, g), l, key, j, i, filled) and find(world.pool, r, l, key) < 0:
            break  # who has no such block has none behind it
        _name_until(world, r, l, i, j + 1)
        j += 1
    _name_until(world, r, l, i, end)


@inner
def _name_until(world: World, r: int, l: int, i: int, end: int) -> None:
    """The first `end` blocks of request i are entries of their own from now on."""
    pool = world.pool
    for j in range(pool.named[i], end):
        _keep(world, r, l, i, j)
    pool.named[i] = max(np.int64(pool.named[i]), end)


@inner
def _keep(world: World, r: int, l: int, i: int, j: int) -> None:
    """Block j of request i is an entry of its own from now on."""
    pool = world.pool
    key = key_of(world, i, j)
    c = named(pool, r, l, key)
    pool.held[r, l, c] = 1
    pool.own[r, l, c] = pool.tail[i]
    pool.tail[i] = c
    if tiered(world) and world.tiers.write != EVICTED and j < kept(world, i):
        keeps(world, r, l, key)


@inner
def go(world: World, r: int, l: int, i: int, known: int, late: int, blocks: int) -> int:
    """Request i gives its blocks back, the last one first; returns how many of them are free now.

    known: tokens in them; late: of those that it has decoded, the last ones that have no name yet.  Unless it has finished, it will
    come back and look for what is its own too.
    """
    pool, again = world.pool, known < world.req.prompt[i] + world.req.output[i] - 1
    known = max(known - late, min(known, np.int64(pool.target[i])))
    full, hit = known // world.rules.block, np.int64(pool.hit[i])
    end = max(hit, full if again else min(full, world.req.reach[i] // world.rules.block))  # of those with keys
    _name_behind(world, r, NOBODY, l, i, end, known)
    link_alike(pool, r, l, blocks - full, world.rules.rest_first == 1)
    link_alike(pool, r, l, full - end, False)
    if tiered(world):
        keeps_alike(world, r, l, min(full, kept(world, i)) - end)
    freed = blocks - end
    for _ in range(end - hit):
        c = np.int64(pool.tail[i])
        pool.tail[i] = pool.own[r, l, c]
        freed += _drop(world, r, l, c)
    for j in range(hit - 1, -1, -1):
        freed += _drop(world, r, l, find(pool, r, l, key_of(world, i, j)))
    return freed


@inner
def _drop(world: World, r: int, l: int, c: int) -> int:
    """One request less holds entry c; 1 if it was the last one."""
    pool = world.pool
    pool.held[r, l, c] -= 1
    if pool.held[r, l, c] > 0:
        return 0
    link(pool, r, l, c, False)
    pool.size[r, l] += 1
    return 1
