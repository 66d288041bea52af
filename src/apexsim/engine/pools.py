"""Two pools in one event loop: what the prefill pool computes, the decode pool goes on with (floor E).  Modified in place.

Whoever acts next, acts: a replica of either pool steps, or a request moves on.  A replica runs on only until anybody else may do
something, since that may send it a request, give back a block, or take a place.  Where a request stands is its stage; an event is the
moment at which it leaves it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from apexsim.engine.handover import found, give_back, knock
from apexsim.engine.heap import pop, push
from apexsim.engine.jit import inner, outer
from apexsim.engine.leave import let_go
from apexsim.engine.loop import advance, pick
from apexsim.engine.policies import chosen, held_of, sent
from apexsim.engine.queue import next_due, send
from apexsim.engine.route import ROUNDING, acts_at
from apexsim.engine.settle import stir
from apexsim.engine.types import (
    ASKING,
    BEGAN,
    F8,
    I4,
    I8,
    IDLE,
    INFINITY,
    LANDED,
    LOCAL,
    NOBODY,
    OK,
    STUCK,
    TIE,
    Requests,
    World,
)  # fmt: skip

# Stages: what happens to a request at its next event.
COMES, ASKS, BOOKED, COMPUTES, MADE, SENT, LANDS, ENDS = range(8)


class Between(NamedTuple):
    """What lies between the pools, and the clients; arrays modified in place.  Times in seconds."""

    req: Requests  # as clients ask: users, think, output, after, delay
    heir: I4  # [R] the first that waits for it, NOBODY; empty: nobody waits for another
    sibling: I4  # [R] the next one that waits for the same
    joins_at: I8  # [R + 1] see Work
    lacks: I4  # [R]
    ready: F8  # [R]
    due: F8  # [R] heap of the requests that are on their way
    due_req: I8  # [R]
    count: I8  # [3] see ON_WAY
    wire: F8  # [N, L] when the wire to a lane of the decode pool is free
    late: I8  # [N] of the prefill pool: the first whose result waits for the step that follows, NOBODY
    late_since: F8  # [N]
    late_until: F8  # [N]
    hop: float
    latency: float
    token: float  # s per prompt token on the wire
    fixed: float  # s per request on the wire
    first: int  # 1: a place at decode comes before the prompt is computed; 0: after that
    parallel: int  # 1: transfers to a lane overlap in all but the wire; 0: one after the other
    lag: int  # 1: results of a prefill step go out when the step that follows it has ended
    ahead: I8  # [N] of the prefill pool: prompt tokens that it has been sent and has not computed
    near: int  # prompts of which decode has to compute fewer tokens …
    share: float  # … and less than this share stay there
    busy: float  # all stay there while their prefill server has more prompt tokens than this to compute


# Places of Line.count: requests on their way | the users' next request | finished.
ON_WAY, UNSENT, DONE = range(3)


@outer
def run_pools(p: World, d: World, line: Between, margin: int) -> int:
    """`serve_pools` as Python calls it."""
    return serve_pools(p, d, line, margin)


@inner
def serve_pools(p: World, d: World, line: Between, margin: int) -> int:
    """Serve every request in the prefill pool p and the decode pool d; the status.  It goes on where it stopped."""
    while True:
        event = min(next_due(p), next_due(d), _next_call(line))
        a, first_a, second_a = _first_two(p)
        b, first_b, second_b = _first_two(d)
        first = min(first_a, first_b)
        if first <= event and first < INFINITY:
            soon = first * (1.0 + ROUNDING) + TIE  # of several that start together one goes first, for one step
            if first_a <= first_b:
                bound = max(min(second_a, first_b), soon)
                if line.lag == 1:  # what waited for the step in flight goes out before another one begins
                    bound = first if line.late[a] >= 0 and p.state.flying[a, 0] > IDLE else soon
                status = advance(p, a, min(event, bound), margin)
                _flush(p, line, a)
                moved = acts_at(p, a) != first or next_due(p) <= event
            else:
                status = advance(d, b, min(event, max(min(second_b, first_a), soon)), margin)
                moved = acts_at(d, b) != first or next_due(d) <= event
            if status != OK or moved:
                if status != OK:
                    return status
                continue
        if event >= INFINITY:
            break
        _happen(p, d, line)
    for r in range(p.replicas):
        let_go(p, r)
    for r in range(d.replicas):
        let_go(d, r)
    return OK if line.count[DONE] == line.req.prompt.shape[0] else STUCK


@inner
def _first_two(world: World) -> tuple[int, float, float]:
    """The replica that acts first, when, and when the next one does [s]."""
    best, first, second = np.int64(NOBODY), INFINITY, INFINITY
    for r in range(world.replicas):
        when = acts_at(world, r)
        if when < first:
            best, first, second = np.int64(r), when, first
        else:
            second = min(second, when)
    return best, first, second


@inner
def _next_call(line: Between) -> float:
    """When the first request that is on its way arrives [s]."""
    return line.due[0] if line.count[ON_WAY] > 0 else INFINITY


@inner
def _call(line: Between, i: int, t: float) -> None:
    """Request i arrives at t where its stage says."""
    push(line.due, line.due_req, line.count[ON_WAY], t, i)
    line.count[ON_WAY] += 1


@inner
def _taken(world: World) -> int:
    """The request that the pool has done something with first, taken off its list."""
    work = world.work
    i = work.due_req[0]
    pop(work.due, work.due_req, work.due_size[0])
    work.due_size[0] -= 1
    return i


@inner
def _happen(p: World, d: World, line: Between) -> None:
    """The next event happens: of those at the same time first what ends at decode, then what the prefill pool has made."""
    event = min(next_due(p), next_due(d), _next_call(line))
    if next_due(d) == event:
        i = _taken(d)
    elif next_due(p) == event:
        i = _taken(p)
    else:
        i = line.due_req[0]
        pop(line.due, line.due_req, line.count[ON_WAY])
        line.count[ON_WAY] -= 1
    stage = d.hand.stage
    if stage[i] == COMES:
        d.work.sent[i] = event
        if (line.near > 0 or line.busy < INFINITY) and _stays(p, d, line, i, event):
            _stay(d, i, event)
            return
        stage[i] = ASKS if line.first == 1 else COMPUTES
        _call(line, i, event)
    elif stage[i] == ASKS:
        stage[i] = BOOKED
        r = chosen(d, i, event)
        sent(d, r, i)
        d.state.outstanding[r] += 1
        knock(d, r, ASKING, i, event)
    elif stage[i] == BOOKED:
        if line.first == 1:
            stage[i] = COMPUTES
            _call(line, i, event + line.hop)
        else:
            _transfer(d, line, i, event)
    elif stage[i] == COMPUTES:
        stage[i] = MADE
        r = chosen(p, i, event)
        sent(p, r, i)
        send(p, r, i, event)
        line.ahead[r] += p.req.prompt[i]
        stir(p, r, p.work.seen[i])
    elif stage[i] == MADE:
        _made(p, line, i, event)
    elif stage[i] == SENT:
        _sent(p, d, line, i, event)
    elif stage[i] == LANDS:
        stage[i] = ENDS
        _free(p, i, event)
        knock(d, np.int64(d.work.replica[i]), LANDED, i, event)
    else:
        _end(line, i, event)


@inner
def _stays(p: World, d: World, line: Between, i: int, t: float) -> bool:
    """Is the prompt of request i computed at decode?  Where little of it is left to compute there, or much before its prefill server."""
    if line.near > 0:
        rest = d.req.prompt[i] - held_of(d, chosen(d, i, t), i)[0]
        if rest < line.near and rest < line.share * d.req.prompt[i]:
            return True
    return line.busy < INFINITY and line.ahead[chosen(p, i, t)] > line.busy


@inner
def _stay(d: World, i: int, t: float) -> None:
    """Request i is sent to the decode pool alone, as to servers that have no others before them."""
    d.hand.stage[i] = LOCAL
    d.work.computed[i] = d.work.made[i] = 0
    r = chosen(d, i, t)
    sent(d, r, i)
    send(d, r, i, t)
    stir(d, r, d.work.seen[i])


@inner
def _made(p: World, line: Between, i: int, t: float) -> None:
    """The prompt of request i is computed at t: it goes out at once or, with a lag, once the step that follows has ended."""
    r = np.int64(p.work.replica[i])
    p.hand.stage[i] = SENT
    line.ahead[r] -= p.req.prompt[i]
    if line.lag == 1 and line.late_since[r] < t:
        _release(p, line, r, line.late_until[r])
    g, t0 = pick(p, r)
    if line.lag == 1 and g >= 0 and t0 <= t + TIE:
        p.hand.next[i] = line.late[r]
        line.late[r], line.late_since[r], line.late_until[r] = i, t, t
        return
    _call(line, i, t)


@inner
def _flush(p: World, line: Between, r: int) -> None:
    """Results that waited for the step that followed go out once it has ended."""
    if line.lag == 0 or line.late[r] < 0:
        return
    if p.state.flying[r, 0] > IDLE and abs(p.state.front[r, BEGAN] - line.late_since[r]) <= 2 * TIE:
        line.late_until[r] = p.state.ready[r, 0]
        return
    _release(p, line, r, line.late_until[r])


@inner
def _release(p: World, line: Between, r: int, t: float) -> None:
    """They go out at t."""
    i = line.late[r]
    line.late[r] = NOBODY
    while i >= 0:
        _call(line, i, t)
        i = np.int64(p.hand.next[i])


@inner
def _sent(p: World, d: World, line: Between, i: int, t: float) -> None:
    """The first token of request i is known at t: its cache is sent, or asks for a place; an answer of one token is done."""
    stage = d.hand.stage
    if line.req.output[i] == 1:
        _free(p, i, t)
        d.work.first[i] = d.work.finish[i] = t
        if line.first == 1:
            r, l = np.int64(d.work.replica[i]), np.int64(d.work.lane[i])
            give_back(d, i, found(d, i))
            d.hand.booked[r, l] -= 1
            d.state.outstanding[r] -= 1
            stir(d, r, t)
        _end(line, i, t)
    elif line.first == 1:
        _transfer(d, line, i, t)
    else:
        stage[i] = ASKS
        _call(line, i, t + line.hop)


@inner
def _free(p: World, i: int, t: float) -> None:
    """Blocks of request i in the prefill pool are free."""
    give_back(p, i, p.req.prompt[i])
    stir(p, np.int64(p.work.replica[i]), t)


@inner
def _transfer(d: World, line: Between, i: int, t: float) -> None:
    """What its lane of the decode pool lacks of the cache of request i is sent there from t on."""
    r, l = np.int64(d.work.replica[i]), np.int64(d.work.lane[i])
    took, begin = line.token * (line.req.prompt[i] - found(d, i)) + line.fixed, max(t, line.wire[r, l])
    done = begin + took + line.latency
    line.wire[r, l] = done - line.latency if line.parallel == 1 else done
    d.hand.stage[i] = LANDS
    _call(line, i, done)


@inner
def _end(line: Between, i: int, t: float) -> None:
    """Request i has finished at t: its user sends the next one, and those that waited for it are called."""
    req, count = line.req, line.count
    count[DONE] += 1
    if req.users > 0:
        if count[UNSENT] < req.prompt.shape[0]:
            _call(line, count[UNSENT], t + req.think)
            count[UNSENT] += 1
    elif line.heir.shape[0] > 0:
        j = np.int64(line.heir[i])
        while j >= 0:
            _let_go(line, j, t + req.delay[j])
            j = np.int64(line.sibling[j])
        if line.joins_at.shape[0] > 0:
            for x in range(line.joins_at[i], line.joins_at[i + 1]):
                _let_go(line, req.join[x], t + req.join_delay[x])


@inner
def _let_go(line: Between, j: int, t: float) -> None:
    """One of those that request j waits for lets it go at t; it comes once all have."""
    if line.joins_at.shape[0] > 0:
        line.lacks[j] -= 1
        line.ready[j] = t = max(line.ready[j], t)
        if line.lacks[j] > 0:
            return
    _call(line, j, t)
