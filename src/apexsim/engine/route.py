"""Clients and their router: which request is sent when, and to which replica (floor E).  Modified in place.

One loop for every way of coming: arrivals, users of a closed loop, requests that wait for others.  Replicas do not see each
other.  They work on until somebody has to look at them: a route that asks what they have to do, or a request that may be
sent by what another one has finished.
"""

from __future__ import annotations

import numpy as np

from apexsim.engine.heap import pop
from apexsim.engine.jit import inner
from apexsim.engine.leave import let_go
from apexsim.engine.loop import advance, pick
from apexsim.engine.prefix import matched, reuses
from apexsim.engine.queue import next_due, send, waits
from apexsim.engine.types import (
    CACHE_AWARE,
    FOREVER,
    IDLE,
    INFINITY,
    LEAST_WAITING,
    NOBODY,
    OK,
    POWER_OF_TWO,
    ROUND_ROBIN,
    SAME_START,
    TIE,
    World,
)  # fmt: skip

ROUNDING = 1e-15  # of a time


@inner
def serve(world: World, begin: int, margin: int) -> tuple[int, int]:
    """Send every request when and where it is due.  Returns the status, and the first request not yet sent by itself."""
    looks = waits(world) or (world.route != ROUND_ROBIN and world.replicas > 1 and world.req.users == 0)
    while True:
        i, t = _next(world, begin)
        if looks or i < 0:
            status = _together(world, t, margin) if waits(world) else _apart(world, t, margin)
            if status != OK:
                return status, begin
            i, t = _next(world, begin)  # what has finished may have called another one
        if i < 0:
            for r in range(world.replicas):
                let_go(world, r)
            return OK, begin
        begin = _send(world, begin, i, t)


# ---- who, when, where ----------------------------------------------------------------------------------------------


@inner
def _next(world: World, begin: int) -> tuple[int, float]:
    """The request that is sent next, and when; (NOBODY, INFINITY) where none is known.

    begin: the first of those that come by themselves: all that wait for no other, or the first ones of the users.
    """
    req = world.req
    i, t = np.int64(NOBODY), INFINITY
    if req.users > 0:
        if begin < min(req.users, req.prompt.shape[0]):
            i, t = begin, 0.0
    elif begin < req.prompt.shape[0]:
        i, t = begin, req.arrive[begin]
    if next_due(world) < t:
        i, t = world.work.due_req[0], next_due(world)
    return i, t


@inner
def _route(world: World, i: int) -> int:
    """The replica of request i: in turn, or as the route says.

    Users belong to replicas in turn; with fewer users than replicas the others stay empty.
    """
    if world.req.users > 0:
        return i % min(world.replicas, world.req.users)
    if world.route == ROUND_ROBIN:
        return i % world.replicas
    if world.route == POWER_OF_TWO:
        return _one_of_two(world, i)
    if world.route == LEAST_WAITING:
        return _least_waiting(world)
    if world.route == CACHE_AWARE:
        return _cache_aware(world, i)
    if world.route == SAME_START:
        return _same_start(world, i)
    return _least(world)


@inner
def _least(world: World) -> int:
    """The replica with the fewest outstanding requests; here as below the lowest number wins ties."""
    outstanding = world.state.outstanding
    best = 0
    for r in range(1, world.replicas):
        if outstanding[r] < outstanding[best]:
            best = r
    return best


@inner
def mixed_up(x: int) -> int:
    """A number of 31 bits that looks random (multiplicative hashing, twice)."""
    x = ((x + 1) * 2654435761) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 2246822519) & 0xFFFFFFFF
    return (x ^ (x >> 13)) & 0x7FFFFFFF


@inner
def _one_of_two(world: World, i: int) -> int:
    """Of two replicas drawn for this request, the one with fewer outstanding ones."""
    a = mixed_up(2 * i) % world.replicas
    b = (a + 1 + mixed_up(2 * i + 1) % max(1, world.replicas - 1)) % world.replicas
    a, b = min(a, b), max(a, b)
    return b if world.state.outstanding[b] < world.state.outstanding[a] else a


@inner
def _least_waiting(world: World) -> int:
    """vLLM's own data parallel balancer: the least of 4 · waiting + running (v1/engine/core_client.py)."""
    state, best, least = world.state, 0, FOREVER
    for r in range(world.replicas):
        running = np.int64(0)
        for l in range(world.lanes):
            running += state.running[r, l]
        load = 4 * (state.outstanding[r] - running) + running
        if load < least:
            best, least = r, load
    return best


@inner
def _cache_aware(world: World, i: int) -> int:
    """SGLang's router: the least loaded where loads are far apart, else the longest match above 0.3 of the prompt (of equal
    ones the less loaded), else the least loaded (cache_aware.rs)."""
    load, best, longest, most = world.state.outstanding, np.int64(NOBODY), np.int64(0), np.int64(0)
    for r in range(world.replicas):
        hit = np.int64(0)
        if reuses(world):
            for l in range(world.lanes):
                hit = max(hit, matched(world, r, l, i)[0])
        if hit > longest or (hit == longest and best >= 0 and load[r] < load[best]):
            best, longest = np.int64(r), hit
        most = max(most, load[r])
    least = _least(world)
    apart = most - load[least] > 64 and 2 * most > 3 * load[least]
    return least if apart or 10 * longest * world.rules.block <= 3 * world.req.prompt[i] else best


@inner
def _same_start(world: World, i: int) -> int:
    """The hash of the prompt's first ids: those that share them meet, whatever the load."""
    req = world.req
    return mixed_up(req.chain[req.chain_at[i]] if reuses(world) and req.reach[i] > 0 else i) % world.replicas


@inner
def _send(world: World, begin: int, i: int, t: float) -> int:
    """Send request i at t; returns the first that has yet to come by itself."""
    req, work = world.req, world.work
    r = _route(world, i)
    send(world, r, i, t)
    if req.users > 0:
        world.state.unsent[r] = i + min(world.replicas, req.users)
    if i != begin:
        pop(work.due, work.due_req, work.due_size[0])
        work.due_size[0] -= 1
        return begin
    begin += 1
    while waits(world) and begin < req.prompt.shape[0] and req.after[begin] >= 0:
        begin += 1
    return begin


# ---- replicas work -------------------------------------------------------------------------------------------------


@inner
def _apart(world: World, until: float, margin: int) -> int:
    """Replicas that do not depend on each other, one after the other, until what is sent at `until` would be seen."""
    for r in range(world.replicas):
        status = advance(world, r, until, margin)
        if status != OK:
            return status
    return OK


@inner
def _together(world: World, until: float, margin: int) -> int:
    """All replicas in order of time, until what is sent at `until`, or what one of them has called, would be seen: what one
    finishes may be sent to any other."""
    while True:
        until = min(until, next_due(world))
        best, first, second = np.int64(NOBODY), INFINITY, INFINITY
        for r in range(world.replicas):
            when = _stirs(world, r)
            if when < first:
                best, first, second = r, when, first
            else:
                second = min(second, when)
        if best < 0 or first > until:
            return OK
        soon = first * (1.0 + ROUNDING) + TIE  # of several that start together one goes first, for one step
        status = advance(world, best, min(until, max(second, soon)), margin)
        if status != OK or _stirs(world, best) == first:  # its step would start within TIE of `until`
            return status


@inner
def _stirs(world: World, r: int) -> float:
    """When replica r acts next [s]: results are known, or, TIE later, a step starts; INFINITY where it has nothing to do."""
    state = world.state
    lands = INFINITY
    for g in range(world.stages):
        if state.flying[r, g] > IDLE:
            lands = min(lands, state.ready[r, g])
    g, t0 = pick(world, r)
    return lands if g < 0 or lands <= t0 else t0 + TIE
