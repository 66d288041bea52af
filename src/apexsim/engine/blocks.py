"""Blocks by what they hold, and the queue in which they wait to be taken again (floor E).  Modified in place.

An *entry* of a pool is a block with a key, or in the queue any number of blocks without.  The KV blocks of a lane are such a pool
(engine/prefix.py), and so is each tier behind it (engine/tiers.py).
"""

from __future__ import annotations

import numpy as np

from apexsim.engine.jit import inner
from apexsim.engine.types import NOBODY, BlockPool, World

NO_KEY = -1
OWN = 1 << 24  # own keys: blocks of one request


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
def find(pool: BlockPool, r: int, l: int, key: int) -> int:
    """The oldest entry with this key, NOBODY if there is none."""
    c = np.int64(pool.bucket[r, l, key & (pool.bucket.shape[2] - 1)])
    while c >= 0 and pool.key[r, l, c] != key:
        c = np.int64(pool.younger[r, l, c])
    return c


@inner
def named(pool: BlockPool, r: int, l: int, key: int) -> int:
    """A new entry with this key; it stands behind older ones."""
    c = _entry(pool, r, l)
    pool.key[r, l, c], pool.younger[r, l, c] = key, NOBODY
    _enter(pool, r, l, c, key)
    return c


@inner
def _enter(pool: BlockPool, r: int, l: int, c: int, key: int) -> None:
    """Entry c is found by its key from now on."""
    at = key & (pool.bucket.shape[2] - 1)
    x = np.int64(pool.bucket[r, l, at])
    if x < 0:
        pool.bucket[r, l, at] = c
        return
    while pool.younger[r, l, x] >= 0:
        x = np.int64(pool.younger[r, l, x])
    pool.younger[r, l, x] = c


@inner
def _entry(pool: BlockPool, r: int, l: int) -> int:
    """An entry that nothing uses."""
    pool.spares[r, l] -= 1
    return np.int64(pool.spare[r, l, pool.spares[r, l]])


@inner
def forget(pool: BlockPool, r: int, l: int, c: int) -> None:
    """Entry c is found no longer."""
    at = pool.key[r, l, c] & (pool.bucket.shape[2] - 1)
    x = np.int64(pool.bucket[r, l, at])
    if x == c:
        pool.bucket[r, l, at] = pool.younger[r, l, c]
    else:
        while pool.younger[r, l, x] != c:
            x = np.int64(pool.younger[r, l, x])
        pool.younger[r, l, x] = pool.younger[r, l, c]
    pool.key[r, l, c] = NO_KEY


# ---- the queue of free blocks: a ring of entries, closed by the place behind the last one -----------------------------


@inner
def unlink(pool: BlockPool, r: int, l: int, c: int) -> None:
    """Entry c leaves the queue."""
    a, b = pool.before[r, l, c], pool.behind[r, l, c]
    pool.behind[r, l, a] = b
    pool.before[r, l, b] = a


@inner
def link(pool: BlockPool, r: int, l: int, c: int, first: bool) -> None:
    """Entry c joins the queue as the first or the last one."""
    end = pool.before.shape[2] - 1
    a = np.int64(end if first else pool.before[r, l, end])
    b = np.int64(pool.behind[r, l, a])
    pool.before[r, l, c], pool.behind[r, l, c] = a, b
    pool.behind[r, l, a] = c
    pool.before[r, l, b] = c


@inner
def link_alike(pool: BlockPool, r: int, l: int, blocks: int, first: bool) -> None:
    """So many blocks without keys join the queue; beside others of their kind they are one entry."""
    end = pool.before.shape[2] - 1
    if blocks <= 0:
        return
    pool.size[r, l] += blocks
    c = np.int64(pool.behind[r, l, end] if first else pool.before[r, l, end])
    if c != end and pool.key[r, l, c] == NO_KEY:
        pool.count[r, l, c] += blocks
        return
    c = _entry(pool, r, l)
    pool.key[r, l, c], pool.count[r, l, c] = NO_KEY, blocks
    link(pool, r, l, c, first)


@inner
def take_first(pool: BlockPool, r: int, l: int, most: int) -> tuple[int, int]:
    """Take the first block of the queue, or at most so many of those that are alike: how many they are, and the key that is lost."""
    c = np.int64(pool.behind[r, l, pool.before.shape[2] - 1])
    key, blocks = pool.key[r, l, c], np.int64(1)
    if key != NO_KEY:
        forget(pool, r, l, c)
    else:
        blocks = np.int64(pool.count[r, l, c])
    if blocks > most:
        pool.count[r, l, c] -= most
        blocks = np.int64(most)
    else:
        unlink(pool, r, l, c)
        pool.spare[r, l, pool.spares[r, l]] = c
        pool.spares[r, l] += 1
    pool.size[r, l] -= blocks
    return blocks, key
