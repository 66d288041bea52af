"""Prompts that wait for company: when the next step lets its decodes go on alone (floor E).

One lane: until the step would be nearly full.  Several lanes in lock-step: until each of them has a prompt.
"""

from __future__ import annotations

import numpy as np

from apexsim.engine.batch import first_blocks, grant, size_of
from apexsim.engine.jit import inner
from apexsim.engine.pace import width
from apexsim.engine.types import ADMIT_RESERVE, FCFS, NOBODY, WAITED, World

AGAIN = -1  # prompts may start now; ask again before the next step


@inner
def hold(world: World, r: int, g: int, limit: float) -> tuple[int, int]:
    """For how many steps prompts go on waiting if no further request is read (0 or AGAIN: they may start now), and the
    request that would change the answer.  The group decodes."""
    if world.rules.order != FCFS:
        return 0, NOBODY
    for l in range(world.lanes):
        if world.state.partial[r, l] >= 0:
            return 0, NOBODY
    if world.lanes == 1:
        return _for_tokens(world, r, g, limit)
    return _for_lanes(world, r, g, limit)


@inner
def _for_tokens(world: World, r: int, g: int, limit: float) -> tuple[int, int]:
    """Would the prompts that fit, with the decodes, fill the step?"""
    work, state, rules = world.work, world.state, world.rules
    decodes, waited = state.decoding[r, g, 0] * width(world, state.busy[r, g]), state.phase[r, g, WAITED]
    budget = rules.budget - (decodes if rules.mix == 1 else 0)
    tokens, running, free = np.int64(0), state.running[r, 0], state.free[r, 0]
    i = np.int64(state.head[r])
    while i >= 0 and work.seen[i] <= limit and tokens + decodes < rules.wait_tokens:
        size = size_of(world, r, g, 0, i)
        q = grant(rules, size, tokens, budget - tokens, running, free) if running < rules.max_seqs else 0
        if q > 0:
            free -= first_blocks(rules, size, q)
            running += 1
            tokens += q
        if q < size.rest:
            i = np.int64(NOBODY)  # what comes behind it has no say
        else:
            i = np.int64(work.next[i])
    if tokens == 0 or tokens + decodes >= rules.wait_tokens or waited >= rules.wait:
        return 0, NOBODY
    return rules.wait - waited if rules.admission == ADMIT_RESERVE else 1, i


@inner
def _for_lanes(world: World, r: int, g: int, limit: float) -> tuple[int, int]:
    """Would each lane get a prompt, or has none come for long enough?  The count runs on while nothing waits."""
    work, state, rules = world.work, world.state, world.rules
    would, running = state.would, state.running
    seats = True
    for l in range(world.lanes):
        would[r, l] = 0
        seats = seats and state.decoding[r, g, l] < rules.max_seqs
        if state.decoding[r, g, l] == 0:
            state.phase[r, g, WAITED] = 0
            return 0, NOBODY
    served, i = 0, np.int64(state.head[r])
    while i >= 0 and work.seen[i] <= limit and served < world.lanes:
        best = 0
        for l in range(1, world.lanes):
            if running[r, l] + would[r, l] < running[r, best] + would[r, best]:
                best = l
        served += 1 if would[r, best] == 0 else 0
        would[r, best] += 1
        i = np.int64(work.next[i])
    if (served == world.lanes and seats) or state.phase[r, g, WAITED] + 1 >= rules.wait:
        state.phase[r, g, WAITED] = 0
        return AGAIN, NOBODY
    return rules.wait - 1 - state.phase[r, g, WAITED], i
