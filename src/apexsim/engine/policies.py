"""Which replica gets a request: the routers' policies, and what they know (floor E).  Modified in place.

A router knows what it has sent, and of the replicas what it saw when it last looked (`Signals`): at once, or every `Route.age`
seconds.  Caches it asks themselves.  docs/caching.md says whose policies these are.
"""

from __future__ import annotations

import numpy as np

from apexsim.engine.jit import inner
from apexsim.engine.prefix import matched, reuses
from apexsim.engine.queue import roams, waits
from apexsim.engine.types import (
    AFFINITY,
    BLOCK_COST,
    CACHE_AWARE,
    FOREVER,
    INFINITY,
    LEAST_WAITING,
    NOBODY,
    POWER_OF_TWO,
    ROUND_ROBIN,
    SAME_SESSION,
    SAME_START,
    STICKY,
    World,
)  # fmt: skip

ASKING = (AFFINITY, BLOCK_COST)  # routes that ask what each request has to compute


@inner
def chosen(world: World, i: int, t: float) -> int:
    """The replica of request i, sent at t: in turn, or as the route says.

    Where they are dealt in turn users belong to replicas; with fewer users than replicas the others stay empty.
    """
    kind = world.route.kind
    if world.req.users > 0 and not roams(world):
        return i % min(world.replicas, world.req.users)
    if kind == ROUND_ROBIN or world.replicas == 1:
        return i % world.replicas
    if world.route.age == 0.0:
        look(world, t)
    if kind == POWER_OF_TWO:
        return _one_of_two(world, i)
    if kind == LEAST_WAITING:
        return _least_waiting(world)
    if kind == CACHE_AWARE:
        return _cache_aware(world, i)
    if kind == SAME_START:
        return _same_start(world, i)
    if kind == AFFINITY:
        return _affinity(world, i)
    if kind == BLOCK_COST:
        return _block_cost(world, i)
    if kind == STICKY and waits(world) and world.req.after[i] >= 0:
        return np.int64(world.work.replica[world.req.after[i]])
    if kind == SAME_SESSION:
        return mixed_up(_root(world, i)) % world.replicas
    return _least(world)


# ---- what the router knows -------------------------------------------------------------------------------------------


@inner
def tick(world: World, t: float) -> float:
    """The last moment up to t at which the router looks at the replicas [s]; before its last look where that was every time."""
    age = world.route.age
    return min(t, np.floor(t / age) * age) if age > 0.0 else -INFINITY


@inner
def look(world: World, t: float) -> None:
    """What the router sees of the replicas at t."""
    state, seen, work = world.state, world.signals, world.work
    seen.look[0] = t
    for r in range(world.replicas):
        seen.load[r], seen.tokens[r], seen.running[r], seen.blocks[r] = state.outstanding[r], 0, 0, 0
        for l in range(world.lanes):
            seen.running[r] += state.running[r, l]
            seen.blocks[r] += world.capacity - state.free[r, l]
    kept = 0
    for x in range(seen.count[0]):
        i = seen.waiting[x]
        if work.first[i] <= t:  # never where it is not known yet
            continue
        seen.waiting[kept] = i
        kept += 1
        _count(world, work.replica[i], i, work.start[i] < 0.0)
    seen.count[0] = kept


@inner
def _count(world: World, r: int, i: int, queued: bool) -> None:
    """Request i is at replica r, and has no token yet; queued: nor blocks."""
    seen = world.signals
    seen.tokens[r] += seen.rest[i]
    if queued:
        seen.blocks[r] += seen.rest[i] // world.rules.block


@inner
def sent(world: World, r: int, i: int) -> None:
    """The router has sent request i to replica r."""
    seen, kind = world.signals, world.route.kind
    seen.load[r] += 1
    if kind in ASKING:
        seen.rest[i] = world.req.prompt[i] - held_of(world, r, i)[0]
        seen.waiting[seen.count[0]] = i
        seen.count[0] += 1
        _count(world, r, i, True)


@inner
def held_of(world: World, r: int, i: int) -> tuple[int, int]:
    """Tokens of request i's prompt that the best lane of replica r has, and of them those that others hold."""
    hit = shared = np.int64(0)
    if reuses(world):
        for l in range(world.lanes):
            found, held = matched(world, r, NOBODY, l, i)
            if found > hit:
                hit, shared = found, held
    return hit * world.rules.block, shared * world.rules.block


@inner
def mixed_up(x: int) -> int:
    """A number of 31 bits that looks random (multiplicative hashing, twice)."""
    x = ((x + 1) * 2654435761) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 2246822519) & 0xFFFFFFFF
    return (x ^ (x >> 13)) & 0x7FFFFFFF


# ---- by load -----------------------------------------------------------------------------------------------------------


@inner
def _least(world: World) -> int:
    """The replica with the fewest outstanding requests; here as below the lowest number wins ties, where nothing else is said."""
    load = world.signals.load
    best = 0
    for r in range(1, world.replicas):
        if load[r] < load[best]:
            best = r
    return best


@inner
def _one_of_two(world: World, i: int) -> int:
    """Of two replicas drawn for this request, the one with fewer outstanding ones."""
    a = mixed_up(2 * i) % world.replicas
    b = (a + 1 + mixed_up(2 * i + 1) % max(1, world.replicas - 1)) % world.replicas
    a, b = min(a, b), max(a, b)
    return b if world.signals.load[b] < world.signals.load[a] else a


@inner
def _least_waiting(world: World) -> int:
    """vLLM's own data parallel balancer: the least of 4 · waiting + running (v1/engine/core_client.py)."""
    seen, best, least = world.signals, 0, FOREVER
    for r in range(world.replicas):
        load = 4 * (seen.load[r] - seen.running[r]) + seen.running[r]
        if load < least:
            best, least = r, load
    return best


# ---- by what replicas have ---------------------------------------------------------------------------------------------


@inner
def _cache_aware(world: World, i: int) -> int:
    """SGLang's router: the least loaded where loads are far apart, else the longest match above 0.3 of the prompt (of equal
    ones the less loaded), else the least loaded (cache_aware.rs)."""
    load, best, longest, most = world.signals.load, np.int64(NOBODY), np.int64(0), np.int64(0)
    for r in range(world.replicas):
        hit = held_of(world, r, i)[0]
        if hit > longest or (hit == longest and best >= 0 and load[r] < load[best]):
            best, longest = np.int64(r), hit
        most = max(most, load[r])
    least = _least(world)
    apart = most - load[least] > 64 and 2 * most > 3 * load[least]
    return least if apart or 10 * longest <= 3 * world.req.prompt[i] else best


@inner
def _affinity(world: World, i: int) -> int:
    """llm-d: of the replicas that have `near` of the prompt the one with the fewest tokens to compute, this request's among them, ties
    at random; of all where there are none, where the best of them is `late` behind the best of the others, and now and then to `explore`.

    What a request has to compute counts until its first token; a replica is behind by those tokens over `peak`
    (prefixcacheaffinity/plugin.go at 066c20ea, tokenload/token_load.go at 1b30d10f, inflightload/producer.go at 003369e0).
    """
    seen, prompt, late = world.signals, world.req.prompt[i], world.route.late * world.route.peak
    every = mixed_up(i) < world.route.explore * (1 << 31)
    near, far = FOREVER, FOREVER
    for r in range(world.replicas):
        seen.hit[r] = held_of(world, r, i)[0]
        if seen.hit[r] >= world.route.near * prompt:
            near = min(near, seen.tokens[r])
        else:
            far = min(far, seen.tokens[r])
    every = every or near == FOREVER or (far < FOREVER and near - far > late)
    best, least, ties = np.int64(NOBODY), FOREVER, 0
    for r in range(world.replicas):
        if not every and seen.hit[r] < world.route.near * prompt:
            continue
        load = seen.tokens[r] + prompt - seen.hit[r]
        ties = ties + 1 if load == least else 1 if load < least else ties
        if load < least or (load == least and mixed_up(i * world.replicas + r) % ties == 0):
            best, least = np.int64(r), load
    return best


@inner
def _block_cost(world: World, i: int) -> int:
    """Dynamo: the least sum of the blocks to be computed and the blocks held, with this request; ties at random."""
    seen, block, prompt = world.signals, world.rules.block, world.req.prompt[i]
    best, least, ties = np.int64(NOBODY), INFINITY, 0
    for r in range(world.replicas):
        hit, shared = held_of(world, r, i)
        cost = (seen.tokens[r] + 2 * prompt - hit - shared) / block + seen.blocks[r]
        ties = ties + 1 if cost == least else 1 if cost < least else ties
        if cost < least or (cost == least and mixed_up(i * world.replicas + r) % ties == 0):
            best, least = np.int64(r), cost
    return best


# ---- by who asks -------------------------------------------------------------------------------------------------------


@inner
def _same_start(world: World, i: int) -> int:
    """The hash of the prompt's first ids: those that share them meet, whatever the load."""
    req = world.req
    return mixed_up(req.chain[req.chain_at[i]] if reuses(world) and req.reach[i] > 0 else i) % world.replicas


@inner
def _root(world: World, i: int) -> int:
    """The first request of the session that request i belongs to."""
    while waits(world) and world.req.after[i] >= 0:
        i = world.req.after[i]
    return i
