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
from apexsim.engine.tiers import keeps, keeps_alike, kept, tiered
from apexsim.engine.types import EVICTED, NOBODY, World


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
def matched(world: World, r: int, l: int, i: int) -> tuple[int, int]:
    """How many leading blocks of request i the lane has, and how many of these others hold; one token is left to compute."""
    catch(world, r, l)
    most = (world.req.prompt[i] + world.work.made[i] - 1) // world.rules.block
    j = shared = 0
    while j < most:
        c = find(world.pool, r, l, key_of(world, i, j))
        if c < 0:
            break
        shared += 1 if world.pool.held[r, l, c] > 0 else 0
        j += 1
    return j, shared


@inner
def come(world: World, r: int, l: int, i: int, hit: int) -> None:
    """Request i takes the `hit` leading blocks that it has found."""
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


@inner
def take_until(world: World, r: int, l: int, i: int, blocks: int) -> None:
    """Request i has so many blocks."""
    pool = world.pool
    if blocks > pool.has[i]:
        _pop(world, r, l, blocks - pool.has[i])
        pool.has[i] = blocks


@inner
def name(world: World, r: int, l: int, i: int, tokens: int) -> None:
    """Others find the blocks that the first `tokens` tokens of request i fill, where others may have these."""
    pool = world.pool
    end = min(min(tokens, world.req.reach[i]) // world.rules.block, np.int64(pool.has[i]))
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
def go(world: World, r: int, l: int, i: int, known: int, blocks: int, again: bool) -> int:
    """Request i gives its blocks back, the last one first; returns how many of them are free now.

    known: tokens in them; again: it will come back, and look for what is its own too.
    """
    pool = world.pool
    full, hit = known // world.rules.block, np.int64(pool.hit[i])
    end = max(hit, full if again else min(full, world.req.reach[i] // world.rules.block))  # of those with keys
    for j in range(pool.named[i], end):
        _keep(world, r, l, i, j)
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
