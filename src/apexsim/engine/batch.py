"""Who is in the batch: results settled, joining, admission (floor E).  Modified in place."""

from __future__ import annotations

import numpy as np

from apexsim.engine.heap import pop, push
from apexsim.engine.jit import inner, merged
from apexsim.engine.leave import FRESH, blocks_of, by_chunk, finish, leave, preempt
from apexsim.engine.queue import peek, sort_visible, take
from apexsim.engine.types import (
    ADMIT_FIT,
    ADMIT_RESERVE,
    FCFS,
    LEAVING,
    Costs,
    Host,
    Log,
    Requests,
    Rules,
    State,
    Work,
)  # fmt: skip

NONE_VISIBLE, HELD, BLOCKED = 0, 1, 2  # why a step took no (more) new prompts


@inner
def prefill_cost(costs: Costs, s: int, a: int, b: int) -> float:
    """Attention of the prompt tokens a…b−1 on a tokens already cached [s]."""
    table = costs.prefill[s]
    x = b / costs.stride
    i = min(int(x), table.shape[0] - 2)
    y = table[i] + (x - i) * (table[i + 1] - table[i])
    if a > 0:
        x = a / costs.stride
        i = min(int(x), table.shape[0] - 2)
        y -= table[i] + (x - i) * (table[i + 1] - table[i])
    return y


@inner
def triangle(length: int, window: int) -> float:
    """Tokens attended by the first `length` tokens of a prompt under a window."""
    if length <= window:
        return 0.5 * length * (length + 1)
    return 0.5 * window * (window + 1) + float(length - window) * window


@inner
def join(req: Requests, work: Work, state: State, rules: Rules, costs: Costs, r: int, g: int, l: int, i: int, t: float) -> None:
    """Request i, its prompt computed and a token sampled at t, starts to decode in group g."""
    steps = state.steps[r, g]
    context = work.computed[i]
    work.joined[i], work.context[i], work.group[i], work.last[i] = steps, context, g, t
    work.ends[i] = steps + req.output[i] - work.made[i]
    push(state.heap_key[r, g, l], state.heap_req[r, g, l], state.heap_size[r, g, l], work.ends[i], i)
    state.heap_size[r, g, l] += 1
    state.residue[r, g, l, (context - steps) % rules.block] += 1
    for w in range(costs.windows.shape[0]):
        window = costs.windows[w]
        state.context[r, g, l, w] += min(context, window)
        if context < window:
            state.growing[r, g, l, w] += 1
            if steps + window - context <= work.ends[i]:  # it will fill the window
                push(state.cross_key[r, g, l, w], state.cross_req[r, g, l, w], state.cross_size[r, g, l, w],
                     steps + window - context, i)  # fmt: skip
                state.cross_size[r, g, l, w] += 1
    state.decoding[r, g, l] += 1
    _stack(work, state, r, g, l, i)
    n = state.cohort_size[r, g]
    if n > 0 and state.cohort[r, g, n - 1, 0] == t:
        state.cohort[r, g, n - 1, 1] += 1
    else:
        state.cohort[r, g, n, 0] = t
        state.cohort[r, g, n, 1] = 1
        state.cohort_size[r, g] += 1


@inner
def _stack(work: Work, state: State, r: int, g: int, l: int, i: int) -> None:
    """Remember admission order; drop entries that no longer decode here when full."""
    n = state.stack_size[r, g, l]
    if n == state.stack.shape[3]:
        m = 0
        for x in range(n):
            j = state.stack[r, g, l, x]
            if work.ends[j] != -1 and work.group[j] == g and work.lane[j] == l and j != i:
                state.stack[r, g, l, m] = j
                m += 1
        n = m
    state.stack[r, g, l, n] = i
    state.stack_size[r, g, l] = n + 1


@merged
def settle(req: Requests, work: Work, state: State, rules: Rules, host: Host, costs: Costs, log: Log, r: int, g: int) -> None:
    """The results of the group's step are known: finish, cross windows, let finished prompts join."""
    t = state.ready[r, g]
    steps = state.steps[r, g]
    decoded = state.flying[r, g] == 2
    state.flying[r, g] = 0
    for x in range(state.flying.shape[1]):
        if state.flying[r, x] < 0:  # it waited for these results
            state.flying[r, x] = 0
            state.ready[r, x] = max(state.ready[r, x], t)
    for l in range(state.decoding.shape[2]):
        if decoded:
            _cross(work, state, costs, r, g, l, steps)
            while state.heap_size[r, g, l] > 0 and state.heap_key[r, g, l, 0] <= steps:
                i = state.heap_req[r, g, l, 0]
                pop(state.heap_key[r, g, l], state.heap_req[r, g, l], state.heap_size[r, g, l])
                state.heap_size[r, g, l] -= 1
                leave(work, state, rules, costs, r, g, l, i)
                finish(req, work, state, rules, host, r, g, l, i, t)
    if decoded:
        state.decoded[r, g] = t
        d = 0
        for l in range(state.decoding.shape[2]):
            d += state.decoding[r, g, l]
        state.cohort_size[r, g] = 1 if d > 0 else 0
        state.cohort[r, g, 0, 0] = t
        state.cohort[r, g, 0, 1] = d
    for l in range(state.decoding.shape[2]):
        for x in range(state.fresh_size[r, g, l, FRESH]):
            _first(req, work, state, rules, host, costs, log, r, g, l, state.fresh[r, g, l, FRESH, x], t)
        state.fresh_size[r, g, l, FRESH] = 0


@merged
def _first(req: Requests, work: Work, state: State, rules: Rules, host: Host, costs: Costs, log: Log, r: int, g: int, l: int,
           i: int, t: float) -> None:  # fmt: skip
    """A prompt is computed: its first token, or the next one after a preemption."""
    if work.made[i] == 0:
        work.first[i] = t
    else:
        note_gap(log, t - work.last[i], 0.0, 1, 1)
    work.made[i] += 1
    if work.made[i] >= req.output[i]:
        finish(req, work, state, rules, host, r, g, l, i, t)
        if work.ends[i] == LEAVING:
            _stack(work, state, r, g, l, i)
    else:
        join(req, work, state, rules, costs, r, g, l, i, t)


@inner
def _cross(work: Work, state: State, costs: Costs, r: int, g: int, l: int, steps: int) -> None:
    """Sequences that filled a window stop growing in it."""
    for w in range(costs.windows.shape[0]):
        while state.cross_size[r, g, l, w] > 0 and state.cross_key[r, g, l, w, 0] <= steps:
            pop(state.cross_key[r, g, l, w], state.cross_req[r, g, l, w], state.cross_size[r, g, l, w])
            state.cross_size[r, g, l, w] -= 1
            state.growing[r, g, l, w] -= 1


@inner
def note_gap(log: Log, first: float, slope: float, steps: int, weight: float) -> None:
    """Record `steps` gaps first, first + slope, … of `weight` sequences (dropped when the log has no rows)."""
    n = log.counts[0]
    if n < log.gaps.shape[0]:
        log.gaps[n, 0], log.gaps[n, 1], log.gaps[n, 2], log.gaps[n, 3] = first, slope, steps, weight
        log.counts[0] = n + 1


@merged
def admit(req: Requests, work: Work, state: State, rules: Rules, costs: Costs, log: Log, r: int, g: int, t0: float,
          limit: float, with_decodes: bool, may_start: bool) -> int:  # fmt: skip
    """Fill the step with prompt tokens: the partly computed prompt first, then the queue.  Returns why it stopped."""
    lanes = state.tokens.shape[1]
    for l in range(lanes):
        state.tokens[r, l] = 0
        state.closed[r, l] = 0
        for s in range(state.attention.shape[1]):
            state.attention[r, s, l] = 0.0
        if state.partial[r, l] >= 0:
            may_start = _continue(req, work, state, rules, costs, log, r, g, l, with_decodes) and may_start
    if not may_start:
        return HELD
    if rules.order != FCFS:
        sort_visible(req, work, state, r, limit)
    while True:
        i = peek(work, state, rules, r, limit)
        if i < 0:
            return NONE_VISIBLE
        best = np.int64(-1)
        for l in range(lanes):
            if state.closed[r, l] == 0 and (best < 0 or state.running[r, l] < state.running[r, best]):
                best = l
        if best < 0:
            return BLOCKED
        _start(req, work, state, rules, costs, log, r, g, best, i, t0, with_decodes)


@inner
def _left(state: State, rules: Rules, r: int, g: int, l: int, with_decodes: bool) -> int:
    """Tokens of the budget that the lane has left."""
    left = rules.budget - state.tokens[r, l]
    if with_decodes:
        left -= state.decoding[r, g, l]
    return left


@inner
def _chunk(req: Requests, work: Work, state: State, costs: Costs, log: Log, r: int, g: int, l: int, i: int, q: int) -> None:
    """Put q prompt tokens of request i into the step being formed."""
    a = work.computed[i]
    b = a + q
    for s in range(state.attention.shape[1]):
        state.attention[r, s, l] += prefill_cost(costs, s, a, b)
    for w in range(costs.windows.shape[0]):
        log.read[r, 1, w] += triangle(b, costs.windows[w]) - triangle(a, costs.windows[w])
    state.tokens[r, l] += q
    work.computed[i] = b
    if b >= req.prompt[i] + work.made[i]:
        state.fresh[r, g, l, FRESH, state.fresh_size[r, g, l, FRESH]] = i
        state.fresh_size[r, g, l, FRESH] += 1
        state.partial[r, l] = -1
    else:
        state.partial[r, l] = i


@inner
def _continue(req: Requests, work: Work, state: State, rules: Rules, costs: Costs, log: Log, r: int, g: int, l: int,
              with_decodes: bool) -> bool:  # fmt: skip
    """Next chunk of the prompt that is partly computed; False where it was thrown out instead."""
    i = state.partial[r, l]
    a = work.computed[i]
    q = min(req.prompt[i] + work.made[i] - a, _left(state, rules, r, g, l, with_decodes))
    if q <= 0:
        state.closed[r, l] = 1
        return True
    if by_chunk(rules.admission):
        need = blocks_of(a + q, rules.block) - blocks_of(a, rules.block)
        if need > state.free[r, l]:
            state.closed[r, l] = 1
            if rules.mix == 1:
                preempt(req, work, state, rules, costs, log, r, g, l)
            return rules.mix == 0
        state.free[r, l] -= need
    _chunk(req, work, state, costs, log, r, g, l, i, q)
    if state.partial[r, l] >= 0:
        state.closed[r, l] = 1
    return True


@inner
def grant(rules: Rules, target: int, whole: int, tokens: int, left: int, running: int, free: int) -> int:
    """Tokens of the step that a lane gives to a waiting request; 0 if seats, budget or blocks do not allow it.

    target: tokens it has to compute; whole: prompt + output; of the lane, tokens: prompt tokens in the step, left: of its
    budget, running: admitted requests, free: blocks.
    """
    q = min(target, left) if rules.chunk == 1 else target
    alone = tokens == 0 and target > rules.budget
    if running >= rules.max_seqs or q <= 0 or (q > left and not alone):
        return 0
    if tokens > 0 and tokens + target >= rules.prefill_limit:
        return 0
    spare = 0 if running == 0 or rules.admission == ADMIT_RESERVE else rules.watermark
    must_fit = target if rules.admission == ADMIT_FIT else q
    return q if first_blocks(rules, target, whole, must_fit) + spare <= free else 0


@inner
def first_blocks(rules: Rules, target: int, whole: int, q: int) -> int:
    """KV blocks that a request takes when it is admitted with q tokens."""
    if by_chunk(rules.admission):
        return blocks_of(q, rules.block)
    return blocks_of(whole if rules.admission == ADMIT_RESERVE else target, rules.block)


@merged
def _start(req: Requests, work: Work, state: State, rules: Rules, costs: Costs, log: Log, r: int, g: int, l: int, i: int,
           t0: float, with_decodes: bool) -> None:  # fmt: skip
    """Admit request i to lane l if seats, budget and blocks allow, else close the lane for this step."""
    target, whole = req.prompt[i] + work.made[i], req.prompt[i] + req.output[i]
    left = _left(state, rules, r, g, l, with_decodes)
    q = grant(rules, target, whole, state.tokens[r, l], left, state.running[r, l], state.free[r, l])
    if q == 0:
        state.closed[r, l] = 1
        return
    take(work, state, rules, r)
    state.free[r, l] -= first_blocks(rules, target, whole, q)
    state.running[r, l] += 1
    work.lane[i] = l
    work.group[i] = g
    if work.start[i] < 0:
        work.start[i] = t0
    _chunk(req, work, state, costs, log, r, g, l, i, q)
    if state.partial[r, l] >= 0:
        state.closed[r, l] = 1
