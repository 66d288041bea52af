"""The waiting queue of a replica: sending, seeing, putting back (floor E).  Modified in place."""

from __future__ import annotations

from apexsim.engine.heap import pop, push
from apexsim.engine.jit import inner
from apexsim.engine.types import FCFS, FRONT_FREE, NOBODY, TIE, Rules, World


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
