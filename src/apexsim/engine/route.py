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
from apexsim.engine.policies import chosen, look, sent, tick
from apexsim.engine.queue import calls, next_due, roams, send, waits
from apexsim.engine.types import IDLE, INFINITY, NOBODY, OK, ROUND_ROBIN, TIE, World

ROUNDING = 1e-15  # of a time


@inner
def serve(world: World, begin: int, margin: int) -> tuple[int, int]:
    """Send every request when and where it is due.  Returns the status, and the first request not yet sent by itself."""
    looks = world.route.kind != ROUND_ROBIN and world.replicas > 1
    while True:
        i, t = _next(world, begin)
        soon = _looks_at(world, t) if looks else -INFINITY
        if world.signals.look[0] < soon < INFINITY:
            status = _go_on(world, soon, margin)
            if status != OK:
                return status, begin
            i, t = _next(world, begin)
            if t >= soon and (i >= 0 or _acts(world) < INFINITY):  # else what has finished may have called another one, or a stage
                look(world, soon)
            continue
        if looks or calls(world) or i < 0:
            status = _go_on(world, t, margin)
            if status != OK:
                return status, begin
            i, t = _next(world, begin)
        if i < 0 and _open(world):
            continue
        if i < 0:
            for r in range(world.replicas):
                let_go(world, r)
            return OK, begin
        begin = _send(world, begin, i, t)


@inner
def _looks_at(world: World, t: float) -> float:
    """When the router looks next, if the next request is sent at t [s]: by then, and where what finishes may call another one before, at
    its last look before whatever happens next, or else at the first behind it."""
    soon, age = tick(world, t), world.route.age
    if age <= 0.0 or not (calls(world) or world.work.opened[0] < world.req.stage.shape[0]):
        return soon
    acts = _acts(world)
    if acts >= INFINITY:
        return soon
    ticks = np.floor(max(acts, world.signals.look[0]) / age * (1.0 + ROUNDING))
    return min(soon, (ticks if ticks * age > world.signals.look[0] else ticks + 1.0) * age)


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
    elif begin < _end(world):
        i, t = begin, req.arrive[begin] + world.work.begun[0]
    if next_due(world) < t:
        i, t = world.work.due_req[0], next_due(world)
    return i, t


@inner
def _end(world: World) -> int:
    """Where the requests of the stage that runs end."""
    opened, stage = world.work.opened[0], world.req.stage
    return stage[opened] if opened < stage.shape[0] else world.req.prompt.shape[0]


@inner
def _open(world: World) -> bool:
    """All that was sent has finished: the next stage begins, if there is one."""
    work = world.work
    if work.opened[0] >= world.req.stage.shape[0]:
        return False
    last = work.begun[0]
    for i in range(_end(world)):
        last = max(last, work.finish[i])
    work.opened[0] += 1
    work.begun[0] = last
    return True


@inner
def _send(world: World, begin: int, i: int, t: float) -> int:
    """Send request i at t; returns the first that has yet to come by itself."""
    req, work = world.req, world.work
    r = chosen(world, i, t)
    sent(world, r, i)
    send(world, r, i, t)
    if req.users > 0 and not roams(world):
        world.state.unsent[r] = i + min(world.replicas, req.users)
    elif req.users > begin:  # the first of each user come before anybody is free
        world.state.unsent[0] = begin + 1
    if i != begin or (req.users > 0 and begin >= req.users):
        pop(work.due, work.due_req, work.due_size[0])
        work.due_size[0] -= 1
        return begin
    begin += 1
    while waits(world) and begin < req.prompt.shape[0] and req.after[begin] >= 0:
        begin += 1
    return begin


# ---- replicas work -------------------------------------------------------------------------------------------------


@inner
def _go_on(world: World, until: float, margin: int) -> int:
    """All replicas, until what is sent at `until` would be seen."""
    return _together(world, until, margin) if calls(world) else _apart(world, until, margin)


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
            when = acts_at(world, r)
            if when < first:
                best, first, second = r, when, first
            else:
                second = min(second, when)
        if best < 0 or first > until:
            return OK
        soon = first * (1.0 + ROUNDING) + TIE  # of several that start together one goes first, for one step
        status = advance(world, best, min(until, max(second, soon)), margin)
        if status != OK or acts_at(world, best) == first:  # its step would start within TIE of `until`
            return status


@inner
def _acts(world: World) -> float:
    """When a replica acts next [s]."""
    acts = INFINITY
    for r in range(world.replicas):
        acts = min(acts, acts_at(world, r))
    return acts


@inner
def acts_at(world: World, r: int) -> float:
    """When replica r acts next [s]: results are known, or, TIE later, a step starts; INFINITY where it has nothing to do."""
    state = world.state
    lands = INFINITY
    for g in range(world.stages):
        if state.flying[r, g] > IDLE:
            lands = min(lands, state.ready[r, g])
    g, t0 = pick(world, r)
    return lands if g < 0 or lands <= t0 else t0 + TIE
