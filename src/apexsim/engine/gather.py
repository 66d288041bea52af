"""Prompts that wait for company: when the next step lets its decodes go on alone (floor E).

One lane: until the step would be nearly full.  Several lanes in lock-step: until each of them has a prompt.
"""

from __future__ import annotations

import numpy as np

from apexsim.engine.batch import first_blocks, grant
from apexsim.engine.jit import inner
from apexsim.engine.types import ADMIT_RESERVE, FCFS, Requests, Rules, State, Work

AGAIN = -1  # prompts may start now; ask again before the next step


@inner
def hold(req: Requests, work: Work, state: State, rules: Rules, r: int, g: int, limit: float) -> tuple[int, int]:
    """For how many steps prompts go on waiting if no further request is read (0 or AGAIN: they may start now), and the
    request, −1 for none, that would change the answer.  The group decodes."""
    if rules.order != FCFS:
        return 0, -1
    for l in range(state.partial.shape[1]):
        if state.partial[r, l] >= 0:
            return 0, -1
    if state.decoding.shape[2] == 1:
        return _for_tokens(req, work, state, rules, r, g, limit)
    return _for_lanes(work, state, rules, r, g, limit)


@inner
def _for_tokens(req: Requests, work: Work, state: State, rules: Rules, r: int, g: int, limit: float) -> tuple[int, int]:
    """Would the prompts that fit, with the decodes, fill the step?"""
    decodes = state.decoding[r, g, 0]
    budget = rules.budget - (decodes if rules.mix == 1 else 0)
    tokens, running, free = np.int64(0), state.running[r, 0], state.free[r, 0]
    i = np.int64(state.head[r])
    while i >= 0 and work.seen[i] <= limit and tokens + decodes < rules.wait_tokens:
        target, whole = req.prompt[i] + work.made[i], req.prompt[i] + req.output[i]
        q = grant(rules, target, whole, tokens, budget - tokens, running, free)
        if q > 0:
            free -= first_blocks(rules, target, whole, q)
            running += 1
            tokens += q
        if q < target:
            i = np.int64(-1)  # what comes behind it has no say
        else:
            i = np.int64(work.next[i])
    if tokens == 0 or tokens + decodes >= rules.wait_tokens or state.phase[r, g, 1] >= rules.wait:
        return 0, -1
    return rules.wait - state.phase[r, g, 1] if rules.admission == ADMIT_RESERVE else 1, i


@inner
def _for_lanes(work: Work, state: State, rules: Rules, r: int, g: int, limit: float) -> tuple[int, int]:
    """Would each lane get a prompt, or has none come for long enough?  The count runs on while nothing waits."""
    lanes = state.decoding.shape[2]
    seats = True
    for l in range(lanes):
        state.closed[r, l] = 0  # here: prompts that the lane would get
        seats = seats and state.decoding[r, g, l] < rules.max_seqs
        if state.decoding[r, g, l] == 0:
            state.phase[r, g, 1] = 0
            return 0, -1
    served, i = 0, np.int64(state.head[r])
    while i >= 0 and work.seen[i] <= limit and served < lanes:
        best = 0
        for l in range(1, lanes):
            if state.running[r, l] + state.closed[r, l] < state.running[r, best] + state.closed[r, best]:
                best = l
        served += 1 if state.closed[r, best] == 0 else 0
        state.closed[r, best] += 1
        i = np.int64(work.next[i])
    if (served == lanes and seats) or state.phase[r, g, 1] + 1 >= rules.wait:
        state.phase[r, g, 1] = 0
        return AGAIN, -1
    return rules.wait - 1 - state.phase[r, g, 1], i
