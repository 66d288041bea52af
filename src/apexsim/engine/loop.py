"""The event loop: a replica advances by steps and by runs of decode steps (floor E).  Modified in place.

docs/mechanisms.md states the rules that this file follows; tests/naive.py is a slow, independent twin written from that
page.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from apexsim.engine.batch import HELD, NONE_VISIBLE, admit
from apexsim.engine.gather import hold
from apexsim.engine.handover import board, book, knocks, unseen
from apexsim.engine.jit import inner
from apexsim.engine.leave import catch_up, grow, let_go, passes
from apexsim.engine.notes import note_batch
from apexsim.engine.pace import ahead, gain
from apexsim.engine.pipeline import glide
from apexsim.engine.prefix import hopes, reuses
from apexsim.engine.queue import next_due, sight
from apexsim.engine.run import decode_run, one_step
from apexsim.engine.settle import settle, stir
from apexsim.engine.tiers import next_loaded
from apexsim.engine.types import (
    ASLEEP,
    BEGAN,
    FCFS,
    FOREVER,
    GAPS,
    IDLE,
    INFINITY,
    LOG_FULL,
    NEW,
    NOBODY,
    OK,
    READ_UNTIL,
    S_PREEMPT,
    SINCE_READ,
    STUCK,
    TIE,
    WAITED,
    World,
)  # fmt: skip

NOTHING, STARTED, AGAIN = 0, 1, 2  # what became of a group's try to start a step


@inner
def advance(world: World, r: int, until: float, margin: int) -> int:
    """Advance replica r until its next step would see what arrives at `until`, or what is due before that."""
    log = world.log
    while True:
        if log.gaps.shape[0] > 0 and log.counts[GAPS] + margin > log.gaps.shape[0]:
            return LOG_FULL
        if world.stages == 1:  # nothing starts before the results of its only step are known
            _settle_until(world, r, until)
        until = min(until, next_due(world))
        halt = until - TIE
        g, t0 = pick(world, r)
        if world.stages > 1 and _settle_until(world, r, min(t0, until)):
            continue
        if g < 0 or t0 >= halt:
            return OK
        if world.state.flying[r, g] == ASLEEP:
            stir(world, r, t0)
        if world.jump and world.stages > 1 and next_in(world, r) == INFINITY and glide(world, r, t0, halt) > 0:
            continue
        if _schedule(world, r, g, t0, halt) == NOTHING and not _wait_for_blocks(world, r, g, t0):
            return STUCK


# ---- when a step starts --------------------------------------------------------------------------------------------


@inner
def pick(world: World, r: int) -> tuple[int, float]:
    """The group that can start a step first, and when; (−1, 0) when there is nothing to do."""
    state = world.state
    best, when = np.int64(-1), 0.0
    half = _halfway(world, r) or state.sorted_size[r] > 0
    for g in range(world.stages):
        if state.flying[r, g] == ASLEEP:
            t = _wakes(world, r, g) if passes(world) else INFINITY
            if t >= INFINITY:
                continue
            t = max(state.ready[r, g], t)
        elif state.flying[r, g] != IDLE or half or state.busy[r, g] > 0:
            t = state.ready[r, g]
        else:
            t = world.work.seen[state.head[r]] if state.head[r] >= 0 else INFINITY
            t = min(t, next_in(world, r))
            t = min(t, knocks(world, r)) if passes(world) else t
            if t >= INFINITY:
                continue
            t = max(state.ready[r, g], t)
        t = max(t, state.avail[r, 0])
        if best < 0 or t < when or (t == when and state.ready[r, g] < state.ready[r, best]):
            best, when = g, t
    return best, when


@inner
def _wakes(world: World, r: int, g: int) -> float:
    """When a group of one of several pools that found nothing looks again though nobody stirs it [s]: a load has ended, or the next
    request is seen."""
    when, i = next_in(world, r) + 2 * TIE, world.state.head[r]
    if i >= 0 and world.work.seen[i] > world.state.ready[r, g]:
        when = min(when, world.work.seen[i])
    return when


@inner
def next_in(world: World, r: int) -> float:
    """When the next request has its blocks from a tier, for which it waits aside [s]."""
    return next_loaded(world, r) if reuses(world) else INFINITY


@inner
def _halfway(world: World, r: int) -> bool:
    """Is a prompt half computed?"""
    for l in range(world.lanes):
        if world.state.partial[r, l] >= 0:
            return True
    return False


@inner
def _settle_until(world: World, r: int, t0: float) -> bool:
    """Settle, in order of time, every step whose results are known by t0; False where there was none."""
    state, any_settled = world.state, False
    while True:
        g = np.int64(-1)
        for x in range(world.stages):
            if state.flying[r, x] > IDLE and state.ready[r, x] <= t0 and (g < 0 or state.ready[r, x] < state.ready[r, g]):
                g = x
        if g < 0:
            return any_settled
        settle(world, r, g)
        any_settled = True


@inner
def _wait_for_blocks(world: World, r: int, g: int, t0: float) -> bool:
    """Nothing could be scheduled at t0: the group waits for the next results of another.  False when none can come."""
    flying = world.state.flying
    flying[r, g] = ASLEEP
    if passes(world):  # what another pool sends, or takes, may change it
        world.state.ready[r, g] = max(world.state.ready[r, g], t0)
        return True
    for x in range(world.stages):
        if flying[r, x] > IDLE or (flying[r, x] == IDLE and world.state.busy[r, x] > 0):
            return True
    return False


@inner
def _look(world: World, r: int, g: int, t0: float) -> float:
    """What a step from t0 sees: requests seen by then [s]."""
    state, early = world.state, ahead(world)
    idle = state.busy[r, g] == 0 and not _halfway(world, r)
    if early and idle and t0 > state.ready[r, g]:
        catch_up(world, r, t0)
    if idle:
        state.phase[r, g, SINCE_READ] = 0
    if state.phase[r, g, SINCE_READ] == 0:
        formed = max(state.front[r, READ_UNTIL], state.front[r, BEGAN] - TIE)
        state.front[r, READ_UNTIL] = formed if early else sight(world.rules, t0, idle)
    return state.front[r, READ_UNTIL]


# ---- forming a step ------------------------------------------------------------------------------------------------


class Form(NamedTuple):
    """A step as it was formed."""

    prompts: int  # prompt tokens in it
    decodes: bool  # the group's decodes are in it
    why: int  # why it took no more prompts: NONE_VISIBLE, HELD, BLOCKED
    held: int  # steps for which prompts go on waiting for company, as `hold` says
    until: int  # the request that would change this, NOBODY
    thrown: bool  # somebody was thrown out for it
    taken: bool  # of several pools: somebody was taken in, which others have to hear of


@inner
def _schedule(world: World, r: int, g: int, t0: float, halt: float) -> int:
    """Form the group's next step at t0 and run it: STARTED, NOTHING, or AGAIN when a later try may find more."""
    state, taken = world.state, False
    while True:
        step = _form(world, r, g, t0, _look(world, r, g, t0))
        taken = taken or step.taken
        if step.prompts > 0 or state.busy[r, g] > 0:
            break
        if not _tries_again(world, r, t0, step.thrown):
            return _wait_for_load(world, r, g, t0) if next_in(world, r) < INFINITY and not passes(world) else NOTHING
    decodes, before = state.busy[r, g], state.clock[r, g]
    gone = ahead(world) and let_go(world, r)
    note_batch(world, r, t0, decodes)
    if step.prompts > 0 or world.stages > 1 or not world.jump:
        one_step(world, r, g, t0, step.decodes and decodes > 0)
    else:
        most, cut = _how_far(world, r, g, step, gone, taken)
        decode_run(world, r, g, t0, most, cut, halt)
    if step.prompts > 0:
        state.phase[r, g, WAITED] = 0
    elif step.held > 0:
        state.phase[r, g, WAITED] += (state.clock[r, g] - before) // gain(world, state.busy[r, g])
    return STARTED


@inner
def _form(world: World, r: int, g: int, t0: float, limit: float) -> Form:
    """Fill the step: blocks for the decodes, company for the prompts, then the prompts; without `mix`, prompts first."""
    rules, thrown = world.rules, world.log.sums[r, S_PREEMPT]
    taken = passes(world) and board(world, r, g, t0, limit)
    decodes = world.state.busy[r, g] > 0
    mixed = rules.mix == 1 and decodes
    fits = grow(world, r, g) if mixed else True
    held, until = 0, NOBODY
    if rules.wait > 0 and fits and decodes:
        held, until = hold(world, r, g, limit)
    why = admit(world, r, g, t0, limit, mixed, fits and held <= 0)
    prompts = 0
    for l in range(world.lanes):
        prompts += world.state.tokens[r, l]
    if decodes and not mixed:
        decodes = prompts == 0
        if decodes and not grow(world, r, g):
            why, held = HELD, min(held, 1)
    thrown_out = world.log.sums[r, S_PREEMPT] > thrown
    if passes(world):
        taken = (not thrown_out and book(world, r, g if decodes else NOBODY, t0, limit)) or taken
    return Form(prompts, decodes, why, held, until, thrown_out, taken)


@inner
def _tries_again(world: World, r: int, t0: float, thrown: bool) -> bool:
    """The step would hold nothing: is it formed once more, since it was formed ahead of its time or somebody was thrown out?"""
    if ahead(world) and world.state.front[r, BEGAN] < t0:
        catch_up(world, r, t0)
        return True
    return thrown


@inner
def _wait_for_load(world: World, r: int, g: int, t0: float) -> int:
    """Whoever could start waits for blocks from a tier: the group tries again when they come, or somebody else."""
    state = world.state
    if state.head[r] >= 0 and world.work.seen[state.head[r]] <= t0 + 2 * TIE:
        state.ready[r, g] = max(state.ready[r, g], next_in(world, r))
    return AGAIN


# ---- runs ----------------------------------------------------------------------------------------------------------


@inner
def _how_far(world: World, r: int, g: int, step: Form, gone: bool, taken: bool) -> tuple[int, float]:
    """For how many decode steps at most the queue has no say, and the time [s] from which it has; taken: as in Form, at any try."""
    state, rules = world.state, world.rules
    most, until = FOREVER, step.until
    if step.held != 0:
        most = abs(step.held)
    elif step.why == HELD or hopes(world, r):
        most = 1
    elif step.why == NONE_VISIBLE or rules.order != FCFS:
        until = state.head[r]
    if rules.poll > 1 and step.why != NONE_VISIBLE:
        most = min(most, rules.poll - state.phase[r, g, SINCE_READ])  # to the next look: what it reads is remembered
    if gone and (step.held != 0 or step.why != NONE_VISIBLE or _halfway(world, r)):
        most = 1  # there is more room for the next step
    if passes(world) and (taken or world.hand.head[r, NEW] >= 0 or unseen(world, r) or (gone and knocks(world, r) < INFINITY)):
        most = 1
    cut = INFINITY
    if until >= 0:
        cut = world.work.seen[until] + (-TIE if rules.lag == 0 else TIE)
    return most, min(cut, next_in(world, r) + (-TIE if rules.lag == 0 else TIE))
