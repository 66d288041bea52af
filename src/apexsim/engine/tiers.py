"""Tiers behind the KV blocks of a lane: memory of the host, disks, stores, from which a prompt's blocks are loaded instead of computed
(floor E).  Modified in place.

Each tier is a pool of blocks none of which anybody holds, those that were used longest ago first in its queue.  What a tier is
given it keeps, and whom that throws out is lost there.  docs/caching.md says whose rules these are.
"""

from __future__ import annotations

from apexsim.engine.blocks import find, forget, key_of, link, link_alike, named, take_first, unlink
from apexsim.engine.heap import pop, push
from apexsim.engine.jit import inner
from apexsim.engine.queue import put_back, take
from apexsim.engine.types import ASIDE, EVICTED, INFINITY, World


@inner
def tiered(world: World) -> bool:
    """Are there tiers?"""
    return world.tiers.count > 0


@inner
def kept(world: World, i: int) -> int:
    """Leading blocks of request i that tiers are given."""
    prompt = world.req.prompt[i]
    return (prompt if world.tiers.prompts == 1 else prompt + world.req.output[i]) // world.rules.block


@inner
def keeps(world: World, r: int, l: int, key: int) -> None:
    """Every tier has this block, as the one that was used last."""
    pool = world.tiers.pool
    for t in range(world.tiers.count):
        x = l * world.tiers.count + t
        c = find(pool, r, x, key)
        if c >= 0:
            unlink(pool, r, x, c)
        else:
            take_first(pool, r, x, 1)
            c = named(pool, r, x, key)
            pool.size[r, x] += 1
        link(pool, r, x, c, False)


@inner
def keeps_alike(world: World, r: int, l: int, blocks: int) -> None:
    """Every tier has so many blocks, if any, that nobody will ask for."""
    pool = world.tiers.pool
    for t in range(world.tiers.count):
        x = l * world.tiers.count + t
        left = most = min(max(blocks, 0), pool.size[r, x])
        while left > 0:
            taken, _key = take_first(pool, r, x, left)
            left -= taken
        link_alike(pool, r, x, most, False)


@inner
def beyond(world: World, r: int, l: int, i: int, j: int) -> int:
    """How many blocks of request i from block j on some tier has; one token is left to compute."""
    most = (world.req.prompt[i] + world.work.made[i] - 1) // world.rules.block
    n = 0
    while j + n < most and _tier_of(world, r, l, key_of(world, i, j + n)) >= 0:
        n += 1
    return n


@inner
def _tier_of(world: World, r: int, l: int, key: int) -> int:
    """The first tier that has a block, −1 for none."""
    for t in range(world.tiers.count):
        if find(world.tiers.pool, r, l * world.tiers.count + t, key) >= 0:
            return t
    return -1


@inner
def _load(world: World, r: int, l: int, i: int, j: int, n: int) -> float:
    """Seconds that it takes to load n blocks of request i from block j on, each from the first tier that has it."""
    tiers, seconds = world.tiers, 0.0
    for t in range(tiers.count):
        some = 0
        for x in range(j, j + n):
            some += 1 if _tier_of(world, r, l, key_of(world, i, x)) == t else 0
        if some > 0:
            seconds += tiers.latency[t] + some * tiers.block[t]
    return seconds


@inner
def fetch(world: World, r: int, l: int, i: int, j: int, n: int, t0: float) -> bool:
    """Load n blocks of request i, which is the first of the queue, from block j on; False where it waits for them aside."""
    tiers = world.tiers
    if tiers.load != ASIDE:
        tiers.seconds[r] += _load(world, r, l, i, j, n)
    elif tiers.asked[i] == 0:
        tiers.asked[i] = 1
        done = max(t0, tiers.free[r]) + _load(world, r, l, i, j, n)
        tiers.free[r] = done
        take(world, r)
        push(tiers.key[r], tiers.req[r], tiers.size[r], done, i)
        tiers.size[r] += 1
        return False
    tiers.asked[i] = 0
    if world.work.start[i] < 0:
        tiers.loaded[i] = n * world.rules.block
    if tiers.write == EVICTED:
        for x in range(j, j + n):
            _gives(world, r, l, key_of(world, i, x))
    return True


@inner
def _gives(world: World, r: int, l: int, key: int) -> None:
    """The tiers lose a block that has gone up."""
    pool = world.tiers.pool
    for t in range(world.tiers.count):
        x = l * world.tiers.count + t
        c = find(pool, r, x, key)
        if c >= 0:
            forget(pool, r, x, c)
            unlink(pool, r, x, c)
            pool.count[r, x, c] = 1
            link(pool, r, x, c, True)


@inner
def next_loaded(world: World, r: int) -> float:
    """When the next request that waits aside has its blocks [s]."""
    tiers = world.tiers
    return tiers.key[r, 0] if tiered(world) and tiers.size[r] > 0 else INFINITY


@inner
def call_back(world: World, r: int, limit: float) -> None:
    """Who has his blocks by `limit` stands in front of the queue again, the last one first."""
    tiers = world.tiers
    while tiers.size[r] > 0 and tiers.key[r, 0] <= limit:
        i = tiers.req[r, 0]
        pop(tiers.key[r], tiers.req[r], tiers.size[r])
        tiers.size[r] -= 1
        put_back(world, r, i)
