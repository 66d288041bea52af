"""The waiting queue of a replica: sending, seeing, putting back (floor E).  Modified in place."""

from __future__ import annotations

from apexsim.engine.heap import pop, push
from apexsim.engine.jit import inner, merged
from apexsim.engine.types import FCFS, TIE, Host, Requests, Rules, State, Work


@inner
def send(req: Requests, work: Work, state: State, host: Host, r: int, i: int, t: float) -> None:
    """The client sends request i to replica r at time t; the front end tokenises one request after the other."""
    work.sent[i] = t
    work.replica[i] = r
    begin = max(t, state.front[r, 0])
    state.front[r, 0] = begin + host.tokenise * req.prompt[i]
    work.seen[i] = state.front[r, 0] + host.request
    work.next[i] = -1
    if state.head[r] < 0:
        state.head[r] = i
    else:
        work.next[state.tail[r]] = i
    state.tail[r] = i
    state.outstanding[r] += 1


@inner
def put_back(work: Work, state: State, rules: Rules, req: Requests, r: int, i: int) -> None:
    """A preempted request returns to the front of the queue."""
    if rules.order != FCFS:
        push(state.sorted_key[r], state.sorted_req[r], state.sorted_size[r], req.prompt[i], i)
        state.sorted_size[r] += 1
        return
    work.next[i] = state.head[r]
    if state.head[r] < 0:
        state.tail[r] = i
    state.head[r] = i


@inner
def sort_visible(req: Requests, work: Work, state: State, r: int, limit: float) -> None:
    """SHORTEST: move every request seen by `limit` from the arrival list into the sorted heap."""
    i = state.head[r]
    while i >= 0 and work.seen[i] <= limit:
        push(state.sorted_key[r], state.sorted_req[r], state.sorted_size[r], req.prompt[i], i)
        state.sorted_size[r] += 1
        i = work.next[i]
    state.head[r] = i
    if i < 0:
        state.tail[r] = -1


@merged
def sight(rules: Rules, t0: float, idle: bool) -> float:
    """Latest `seen` time that a step starting at t0 may take."""
    if rules.lag != 0 and not idle:
        return t0 - TIE
    return t0 + TIE


@merged
def peek(work: Work, state: State, rules: Rules, r: int, limit: float) -> int:
    """The request that would be admitted next, -1 if none is visible."""
    if rules.order != FCFS:
        return state.sorted_req[r, 0] if state.sorted_size[r] > 0 else -1
    i = state.head[r]
    if i >= 0 and work.seen[i] <= limit:
        return i
    return -1


@inner
def take(work: Work, state: State, rules: Rules, r: int) -> None:
    """Remove what `peek` returned."""
    if rules.order != FCFS:
        pop(state.sorted_key[r], state.sorted_req[r], state.sorted_size[r])
        state.sorted_size[r] -= 1
        return
    i = state.head[r]
    state.head[r] = work.next[i]
    if state.head[r] < 0:
        state.tail[r] = -1
