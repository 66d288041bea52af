"""Who leaves the batch, when seats and blocks are free, and who is thrown out for them (floor E).  Modified in place."""

from __future__ import annotations

from apexsim.engine.heap import drop
from apexsim.engine.jit import inner, merged
from apexsim.engine.queue import put_back, send
from apexsim.engine.types import (
    ADMIT_CHUNK,
    ADMIT_FIT,
    ADMIT_RESERVE,
    AHEAD,
    LEAVING,
    S_PREEMPT,
    TIE,
    Costs,
    Host,
    Log,
    Requests,
    Rules,
    State,
    Work,
)  # fmt: skip

FRESH, GONE = 0, 1  # rows of State.fresh


@merged
def blocks_of(tokens: int, block: int) -> int:
    """KV blocks that hold `tokens`."""
    return (tokens + block - 1) // block


@inner
def ahead(lag: int, stages: int) -> bool:
    """Are steps formed while the one before them runs?"""
    return lag == AHEAD and stages == 1


@inner
def by_chunk(admission: int) -> bool:
    """Are blocks taken chunk by chunk?"""
    return admission in (ADMIT_CHUNK, ADMIT_FIT)


@inner
def leave(work: Work, state: State, rules: Rules, costs: Costs, r: int, g: int, l: int, i: int) -> int:
    """Take a decoding request out of the group's sums; returns its context."""
    done = state.steps[r, g] - work.joined[i]
    context = work.context[i] + done
    state.residue[r, g, l, (work.context[i] - work.joined[i]) % rules.block] -= 1
    for w in range(costs.windows.shape[0]):
        window = costs.windows[w]
        state.context[r, g, l, w] -= min(context, window)
        if context < window:
            state.growing[r, g, l, w] -= 1
    state.decoding[r, g, l] -= 1
    work.made[i] += done
    work.ends[i] = -1
    return context


@inner
def release(req: Requests, state: State, rules: Rules, r: int, l: int, i: int, context: int) -> None:
    """Its seat and blocks are free."""
    if rules.admission == ADMIT_RESERVE:
        context = req.prompt[i] + req.output[i]
    state.free[r, l] += blocks_of(context, rules.block)
    state.running[r, l] -= 1


@inner
def finish(req: Requests, work: Work, state: State, rules: Rules, host: Host, r: int, g: int, l: int, i: int, t: float
           ) -> None:  # fmt: skip
    """The last token of request i is out at t; in a closed loop its user sends the next request."""
    work.finish[i] = t
    if ahead(rules.lag, state.ready.shape[1]):
        work.ends[i] = LEAVING
        state.fresh[r, g, l, GONE, state.fresh_size[r, g, l, GONE]] = i
        state.fresh_size[r, g, l, GONE] += 1
    else:
        release(req, state, rules, r, l, i, req.prompt[i] + req.output[i] - 1)
    state.outstanding[r] -= 1
    if req.users > 0:
        n = state.unsent[r]
        if n < req.prompt.shape[0]:
            state.unsent[r] = n + min(state.unsent.shape[0], req.users)
            send(req, work, state, host, r, n, t + req.think)


@inner
def let_go(req: Requests, work: Work, state: State, rules: Rules, r: int) -> bool:
    """AHEAD: seats and blocks of what has finished are free; False if nothing had."""
    any_gone = False
    for l in range(state.running.shape[1]):
        for x in range(state.fresh_size[r, 0, l, GONE]):
            i = state.fresh[r, 0, l, GONE, x]
            if work.ends[i] == LEAVING:
                work.ends[i] = -1
                release(req, state, rules, r, l, i, req.prompt[i] + req.output[i] - 1)
                any_gone = True
        state.fresh_size[r, 0, l, GONE] = 0
    return any_gone


@inner
def catch_up(req: Requests, work: Work, state: State, rules: Rules, r: int, t0: float) -> None:
    """AHEAD: no step was formed ahead of t0, so the next one knows what is known by then."""
    let_go(req, work, state, rules, r)
    state.front[r, 2] = t0 + 2 * TIE


@inner
def grow(req: Requests, work: Work, state: State, rules: Rules, costs: Costs, log: Log, r: int, g: int, l: int) -> bool:
    """Give every decoding sequence of the lane the block its next token needs; preempt the youngest until it fits."""
    preempted = False
    if rules.admission == ADMIT_RESERVE:
        return preempted
    while True:
        need = state.residue[r, g, l, (-state.steps[r, g]) % rules.block]
        if need <= state.free[r, l]:
            state.free[r, l] -= need
            return preempted
        preempt(req, work, state, rules, costs, log, r, g, l)
        preempted = True


@inner
def preempt(req: Requests, work: Work, state: State, rules: Rules, costs: Costs, log: Log, r: int, g: int, l: int) -> None:
    """Throw out the youngest sequence; it starts over at the front of the queue, unless it has finished."""
    i = state.partial[r, l]
    if i >= 0:
        state.partial[r, l] = -1
        held = work.computed[i] if by_chunk(rules.admission) else req.prompt[i] + work.made[i]
        state.free[r, l] += blocks_of(held, rules.block)
        state.running[r, l] -= 1
    else:
        n = state.stack_size[r, g, l]
        while n > 0:
            n -= 1
            i = state.stack[r, g, l, n]
            if work.ends[i] != -1 and work.group[i] == g and work.lane[i] == l:
                break
        state.stack_size[r, g, l] = n
        if work.ends[i] == LEAVING:
            work.ends[i] = -1
            release(req, state, rules, r, l, i, req.prompt[i] + req.output[i] - 1)
            return
        joined_at = work.last[i]
        release(req, state, rules, r, l, i, leave(work, state, rules, costs, r, g, l, i))
        work.last[i] = max(joined_at, state.decoded[r, g])
        state.heap_size[r, g, l] = drop(state.heap_key[r, g, l], state.heap_req[r, g, l], state.heap_size[r, g, l], i)
        for w in range(costs.windows.shape[0]):
            size = state.cross_size[r, g, l, w]
            state.cross_size[r, g, l, w] = drop(state.cross_key[r, g, l, w], state.cross_req[r, g, l, w], size, i)
        n = state.cohort_size[r, g]
        for c in range(n):
            if state.cohort[r, g, c, 0] == work.last[i]:
                state.cohort[r, g, c, 1] -= 1
        while n > 0 and state.cohort[r, g, n - 1, 1] <= 0:
            n -= 1
        state.cohort_size[r, g] = n
    log.sums[r, S_PREEMPT] += 1
    work.computed[i] = 0
    work.preempted[i] += 1
    put_back(work, state, rules, req, r, i)
