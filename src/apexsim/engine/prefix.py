"""The KV blocks of a lane with what they hold, so that a prompt finds what others have computed (floor E).  Modified in place.

A block that holds a whole block of tokens is known by its key: equal keys, equal tokens from the first one on.  Blocks that
nobody holds wait in a queue, those that were given back first in front, and keep their keys until they are taken from there.
`State.free` counts the blocks that are free.  What decodes take of them is counted first and taken from the queue when
somebody looks at it (`catch`): until then nobody can tell the difference.  docs/caching.md says whose rules these are.
"""

from __future__ import annotations

import numpy as np

from apexsim.engine.jit import inner
from apexsim.engine.types import NOBODY, World

NO_KEY = -1
OWN = 1 << 24  # own keys: blocks of one request


@inner
def reuses(world: World) -> bool:
    """Do prompts find what others have computed?"""
    return world.plain == 0


# ---- keys ----------------------------------------------------------------------------------------------------------


@inner
def key_of(world: World, i: int, j: int) -> int:
    """Key of block j of request i: of the part of its chain that ends there, or its own where nobody else can have the tokens."""
    req, block = world.req, world.rules.block
    last = (j + 1) * block - 1
    if last >= req.reach[i]:
        return -2 - (i * OWN + j)
    at = last // req.unit
    return req.chain[req.chain_at[i] + at] * ((req.unit + block - 1) // block) + (last - at * req.unit) // block


@inner
def find(world: World, r: int, l: int, key: int) -> int:
    """The oldest block with this key, NOBODY if there is none."""
    pool = world.pool
    c = np.int64(pool.bucket[r, l, key & (pool.bucket.shape[2] - 1)])
    while c >= 0 and pool.key[r, l, c] != key:
        c = np.int64(pool.younger[r, l, c])
    return c


@inner
def _name(world: World, r: int, l: int, c: int, key: int) -> None:
    """Block c has this key from now on; it stands behind older ones."""
    pool = world.pool
    pool.key[r, l, c], pool.younger[r, l, c] = key, NOBODY
    at = key & (pool.bucket.shape[2] - 1)
    x = np.int64(pool.bucket[r, l, at])
    if x < 0:
        pool.bucket[r, l, at] = c
        return
    while pool.younger[r, l, x] >= 0:
        x = np.int64(pool.younger[r, l, x])
    pool.younger[r, l, x] = c


@inner
def _forget(world: World, r: int, l: int, c: int) -> None:
    """Block c is about to hold something else."""
    pool = world.pool
    if pool.key[r, l, c] == NO_KEY:
        return
    at = pool.key[r, l, c] & (pool.bucket.shape[2] - 1)
    x = np.int64(pool.bucket[r, l, at])
    if x == c:
        pool.bucket[r, l, at] = pool.younger[r, l, c]
    else:
        while pool.younger[r, l, x] != c:
            x = np.int64(pool.younger[r, l, x])
        pool.younger[r, l, x] = pool.younger[r, l, c]
    pool.key[r, l, c] = NO_KEY


# ---- the queue of free blocks: a ring, closed by the block behind the last one --------------------------------------


@inner
def _unlink(world: World, r: int, l: int, c: int) -> None:
    """Block c leaves the queue."""
    pool = world.pool
    a, b = pool.before[r, l, c], pool.behind[r, l, c]
    pool.behind[r, l, a] = b
    pool.before[r, l, b] = a
    pool.size[r, l] -= 1


@inner
def _link(world: World, r: int, l: int, c: int, first: bool) -> None:
    """Block c joins the queue as the first or the last one."""
    pool, end = world.pool, world.capacity
    a = np.int64(end if first else pool.before[r, l, end])
    b = np.int64(pool.behind[r, l, a])
    pool.before[r, l, c], pool.behind[r, l, c] = a, b
    pool.behind[r, l, a] = c
    pool.before[r, l, b] = c
    pool.size[r, l] += 1


@inner
def _pop(world: World, r: int, l: int) -> int:
    """The first block of the queue; what it held is lost."""
    pool = world.pool
    c = np.int64(pool.behind[r, l, world.capacity])
    _unlink(world, r, l, c)
    _forget(world, r, l, c)
    pool.held[r, l, c] = 1
    return c


@inner
def catch(world: World, r: int, l: int) -> None:
    """Take from the queue what has been counted as taken."""
    pool = world.pool
    while pool.size[r, l] > world.state.free[r, l]:
        c = _pop(world, r, l)
        pool.own[r, l, c] = pool.aside[r, l]
        pool.aside[r, l] = c


# ---- requests come and go --------------------------------------------------------------------------------------------


@inner
def matched(world: World, r: int, l: int, i: int) -> tuple[int, int]:
    """How many leading blocks of request i the lane has, and how many of these others hold; one token is left to compute."""
    catch(world, r, l)
    most = (world.req.prompt[i] + world.work.made[i] - 1) // world.rules.block
    j = shared = 0
    while j < most:
        c = find(world, r, l, key_of(world, i, j))
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
        c = find(world, r, l, key_of(world, i, j))
        if pool.held[r, l, c] == 0:
            _unlink(world, r, l, c)
        pool.held[r, l, c] += 1
    pool.hit[i] = pool.has[i] = pool.named[i] = hit
    pool.tail[i] = NOBODY


@inner
def take_until(world: World, r: int, l: int, i: int, blocks: int) -> None:
    """Request i has so many blocks."""
    pool = world.pool
    while pool.has[i] < blocks:
        c = _pop(world, r, l)
        pool.own[r, l, c] = pool.tail[i]
        pool.tail[i] = c
        pool.has[i] += 1


@inner
def name(world: World, r: int, l: int, i: int, tokens: int) -> None:
    """Others find the blocks that the first `tokens` tokens of request i fill."""
    pool = world.pool
    full = tokens // world.rules.block
    c = np.int64(pool.tail[i])
    j = np.int64(pool.has[i] - 1)
    while j >= pool.named[i]:
        if j < full:
            key = key_of(world, i, j)
            if key >= 0:  # its own ones it will look for only when it has been thrown out
                _name(world, r, l, c, key)
        c = np.int64(pool.own[r, l, c])
        j -= 1
    pool.named[i] = max(pool.named[i], full)


@inner
def go(world: World, r: int, l: int, i: int, known: int, blocks: int, again: bool) -> int:
    """Request i gives its blocks back, the last one first; returns how many of them are free now.

    known: tokens in them; again: it will come back, and look for what is its own too.
    """
    pool, freed = world.pool, 0
    full = known // world.rules.block
    while pool.has[i] < blocks:  # its decodes took them
        c = np.int64(pool.aside[r, l])
        pool.aside[r, l] = pool.own[r, l, c]
        pool.own[r, l, c] = pool.tail[i]
        pool.tail[i] = c
        pool.has[i] += 1
    for j in range(blocks - 1, pool.hit[i] - 1, -1):
        c = np.int64(pool.tail[i])
        pool.tail[i] = pool.own[r, l, c]
        if j < full and pool.key[r, l, c] == NO_KEY:
            key = key_of(world, i, j)
            if key >= 0 or again:
                _name(world, r, l, c, key)
        freed += _drop(world, r, l, c, j < full)
    for j in range(pool.hit[i] - 1, -1, -1):
        freed += _drop(world, r, l, find(world, r, l, key_of(world, i, j)), True)
    return freed


@inner
def _drop(world: World, r: int, l: int, c: int, full: bool) -> int:
    """One request less holds block c; 1 if it was the last one."""
    pool = world.pool
    pool.held[r, l, c] -= 1
    if pool.held[r, l, c] > 0:
        return 0
    _link(world, r, l, c, not full and world.rules.rest_first == 1)
    return 1
