"""The waiting queue of a replica: sending, seeing, putting back (floor E).  Modified in place."""

from __future__ import annotations

import numpy as np

from apexsim.engine.heap import pop, push
from apexsim.engine.jit import inner
from apexsim.engine.types import FCFS, FRONT_FREE, INFINITY, NOBODY, ROUND_ROBIN, TIE, Rules, World


@inner
def send(world: World, r: int, i: int, t: float) -> None:
    """The client sends request i to replica r at time t; the front end tokenises one request after the other."""
    work, state, host = world.work, world.state, world.host
    work.sent[i] = t
    work.replica[i] = r
    begin = max(t, state.front[r, FRONT_FREE])
    state.front[r, FRONT_FREE] = begin + host.tokenise * world.req.prompt[i]
    work.seen[i] = state.front[r, FRONT_FREE] + host.request
    work.next[i] = NOBODY
    if state.head[r] < 0:
        state.head[r] = i
    else:
        work.next[state.tail[r]] = i
    state.tail[r] = i
    state.outstanding[r] += 1


@inner
def waits(world: World) -> bool:
    """Does any request wait for another one to finish?"""
    return world.req.after.shape[0] > 0


@inner
def roams(world: World) -> bool:
    """Do users of a closed loop belong to no replica, since a route asks where each of their requests goes?"""
    return world.req.users > 0 and world.replicas > 1 and world.route.kind != ROUND_ROBIN


@inner
def calls(world: World) -> bool:
    """May what one replica finishes be followed by a request to another?"""
    return waits(world) or roams(world)


@inner
def call_next(world: World, r: int, i: int, t: float) -> None:
    """Request i has finished on replica r at t: a closed-loop user sends its next one, and those that waited for i are due."""
    req, work, state = world.req, world.work, world.state
    if roams(world):
        n = state.unsent[0]
        if n < req.prompt.shape[0]:
            state.unsent[0] = n + 1
            _call(world, n, t + req.think)
    elif req.users > 0:
        n = state.unsent[r]
        if n < req.prompt.shape[0]:
            state.unsent[r] = n + min(world.replicas, req.users)
            send(world, r, n, t + req.think)
    elif waits(world):
        j = np.int64(work.heir[i])
        while j >= 0:
            _let_go(world, j, t + req.delay[j])
            j = np.int64(work.next[j])
        if work.joins_at.shape[0] > 0:
            for x in range(work.joins_at[i], work.joins_at[i + 1]):
                _let_go(world, req.join[x], t + req.join_delay[x])


@inner
def _let_go(world: World, j: int, t: float) -> None:
    """One of those that request j waits for lets it go at t; it is due once all have."""
    work = world.work
    if work.joins_at.shape[0] > 0:
        work.lacks[j] -= 1
        work.ready[j] = t = max(work.ready[j], t)
        if work.lacks[j] > 0:
            return
    _call(world, j, t)


@inner
def _call(world: World, j: int, t: float) -> None:
    """Request j is sent at t."""
    work = world.work
    push(work.due, work.due_req, work.due_size[0], t, j)
    work.due_size[0] += 1


@inner
def next_due(world: World) -> float:
    """When the first of those is sent that waited for another one [s]."""
    work = world.work
    return work.due[0] if work.due_size[0] > 0 else INFINITY


@inner
def sort_in(world: World, r: int, i: int) -> None:
    """SHORTEST: request i takes its place in the sorted heap."""
    state = world.state
    push(state.sorted_key[r], state.sorted_req[r], state.sorted_size[r], world.req.prompt[i], i)
    state.sorted_size[r] += 1


@inner
def put_back(world: World, r: int, i: int) -> None:
    """A preempted request returns to the front of the queue."""
    work, state = world.work, world.state
    if world.rules.order != FCFS:
        sort_in(world, r, i)
        return
    work.next[i] = state.head[r]
    if state.head[r] < 0:
        state.tail[r] = i
    state.head[r] = i


@inner
def sort_visible(world: World, r: int, limit: float) -> None:
    """SHORTEST: move every request seen by `limit` from the arrival list into the sorted heap."""
    work, state = world.work, world.state
    i = state.head[r]
    while i >= 0 and work.seen[i] <= limit:
        sort_in(world, r, i)
        i = work.next[i]
    state.head[r] = i
    if i < 0:
        state.tail[r] = NOBODY


@inner
def sight(rules: Rules, t0: float, idle: bool) -> float:
    """Latest `seen` time that a step starting at t0 may take."""
    if rules.lag != 0 and not idle:
        return t0 - TIE
    return t0 + TIE


@inner
def peek(world: World, r: int, limit: float) -> int:
    """The request that would be admitted next, NOBODY if none is visible."""
    state = world.state
    if world.rules.order != FCFS:
        return state.sorted_req[r, 0] if state.sorted_size[r] > 0 else NOBODY
    i = state.head[r]
    if i >= 0 and world.work.seen[i] <= limit:
        return i
    return NOBODY


@inner
def take(world: World, r: int) -> None:
    """Remove what `peek` returned."""
    state = world.state
    if world.rules.order != FCFS:
        pop(state.sorted_key[r], state.sorted_req[r], state.sorted_size[r])
        state.sorted_size[r] -= 1
        return
    i = state.head[r]
    state.head[r] = world.work.next[i]
    if state.head[r] < 0:
        state.tail[r] = NOBODY
