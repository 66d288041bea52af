"""The results of a step are known: who finishes, fills a window, or joins the decodes (floor E).  Modified in place."""

from __future__ import annotations

import numpy as np

from apexsim.engine.heap import pop, push
from apexsim.engine.jit import inner
from apexsim.engine.leave import finish, leave, passes
from apexsim.engine.notes import note_gap
from apexsim.engine.pace import cohort, decodes_in, shown
from apexsim.engine.prefix import name, reuses
from apexsim.engine.types import ASLEEP, COUNT, DECODES, FRESH, IDLE, LEAVING, NEW, NOBODY, NOT_DECODING, SINCE, World


@inner
def settle(world: World, r: int, g: int) -> None:
    """The results of the group's step are known, in the order of docs/mechanisms.md, "When a step ends"."""
    state = world.state
    t, decoded = state.ready[r, g], state.flying[r, g] == DECODES
    state.flying[r, g] = IDLE
    stir(world, r, t)
    if decoded:
        if passes(world):
            _begun(world, r, g, t)
        for l in range(world.lanes):
            _cross(world, r, g, l)
            _end(world, r, g, l, t)
        state.decoded[r, g] = t
        d = state.busy[r, g]
        state.cohort_size[r, g] = 1 if d > 0 else 0
        state.cohort[r, g, 0, SINCE] = t
        state.cohort[r, g, 0, COUNT] = d
    for l in range(world.lanes):
        for x in range(state.fresh_size[r, g, l, FRESH]):
            _first(world, r, g, l, state.fresh[r, g, l, FRESH, x], t)
        state.fresh_size[r, g, l, FRESH] = 0


@inner
def stir(world: World, r: int, t: float) -> None:
    """Groups that found nothing to do look again at t: another one has results, blocks are back, or somebody has come."""
    state = world.state
    for x in range(world.stages):
        if state.flying[r, x] == ASLEEP:
            state.flying[r, x] = IDLE
            state.ready[r, x] = max(state.ready[r, x], t)


@inner
def _cross(world: World, r: int, g: int, l: int) -> None:
    """Sequences that filled a window stop growing in it; what they have beyond it does not count."""
    state, clock = world.state, world.state.clock[r, g]
    now = shown(world, clock)
    for w in range(world.windows):
        while state.cross_size[r, g, l, w] > 0 and state.cross_key[r, g, l, w, 0] <= now:
            if world.ticks != 1:
                state.context[r, g, l, w] -= clock - state.cross_key[r, g, l, w, 0] * world.ticks
            pop(state.cross_key[r, g, l, w], state.cross_req[r, g, l, w], state.cross_size[r, g, l, w])
            state.cross_size[r, g, l, w] -= 1
            state.growing[r, g, l, w] -= 1


@inner
def _end(world: World, r: int, g: int, l: int, t: float) -> None:
    """Decodes that reached their length finish; where their blocks are told apart, those that joined first before the others."""
    state, now, ended = world.state, shown(world, world.state.clock[r, g]), 0
    while state.heap_size[r, g, l] > 0 and state.heap_key[r, g, l, 0] <= now:
        i = state.heap_req[r, g, l, 0]
        pop(state.heap_key[r, g, l], state.heap_req[r, g, l], state.heap_size[r, g, l])
        state.heap_size[r, g, l] -= 1
        ended += 1
        if not reuses(world):
            _finish(world, r, g, l, i, t)
    n = 0
    while reuses(world) and ended > 0:
        i = state.stack[r, g, l, n]
        if decodes_in(world, g, l, i) and LEAVING < world.work.ends[i] <= now:
            _finish(world, r, g, l, i, t)
            ended -= 1
        n += 1


@inner
def _finish(world: World, r: int, g: int, l: int, i: int, t: float) -> None:
    """Request i has all its tokens at t."""
    world.work.computed[i] = leave(world, r, g, l, i)
    finish(world, r, g, l, i, t)


@inner
def _begun(world: World, r: int, g: int, t: float) -> None:
    """The step has made the first token of requests whose prompts came from another pool."""
    work, hand = world.work, world.hand
    i = hand.head[r, NEW]
    hand.head[r, NEW] = NOBODY
    while i >= 0:
        after = np.int64(hand.next[i])
        if decodes_in(world, g, np.int64(work.lane[i]), i):
            if np.isnan(work.first[i]):  # who was thrown out before, and computed again, has one already
                work.first[i] = t
                work.finish[i] = t
        elif world.stages > 1 and work.ends[i] != NOT_DECODING:  # another group's
            if hand.head[r, NEW] < 0:
                hand.tail[r, NEW] = i
            hand.next[i] = hand.head[r, NEW]
            hand.head[r, NEW] = i
        i = after


@inner
def _first(world: World, r: int, g: int, l: int, i: int, t: float) -> None:
    """A prompt is computed: its first token, or the next one after a preemption."""
    work = world.work
    if reuses(world):
        name(world, r, g, l, i, work.computed[i])
    if work.made[i] == 0:
        work.first[i] = t
    else:
        note_gap(world.log, t - work.finish[i], 0.0, 1, 1.0)
    work.made[i] += 1
    if work.made[i] < world.req.output[i]:
        join(world, r, g, l, i, t)
        wait_from(world, r, g, t)
        return
    finish(world, r, g, l, i, t)
    if work.ends[i] == LEAVING:
        _stack(world, r, g, l, i)


@inner
def join(world: World, r: int, g: int, l: int, i: int, t: float) -> None:
    """Request i, its prompt computed and a token sampled at t, starts to decode in group g."""
    work, state = world.work, world.state
    now, context = shown(world, state.clock[r, g]), work.computed[i]
    ends = now + world.req.output[i] - work.made[i]
    work.group[i], work.finish[i], work.ends[i] = g, t, ends
    push(state.heap_key[r, g, l], state.heap_req[r, g, l], state.heap_size[r, g, l], ends, i)
    state.heap_size[r, g, l] += 1
    state.residue[r, g, l, cohort(world, context, now)] += 1
    for w in range(world.windows):
        _join_window(world, r, g, l, w, i)
    state.decoding[r, g, l] += 1
    state.busy[r, g] += 1
    _stack(world, r, g, l, i)


@inner
def wait_from(world: World, r: int, g: int, t: float) -> None:
    """One more sequence of the group waits for its next token since t."""
    state = world.state
    n = state.cohort_size[r, g]
    if n > 0 and state.cohort[r, g, n - 1, SINCE] == t:
        state.cohort[r, g, n - 1, COUNT] += 1
    else:
        state.cohort[r, g, n, SINCE] = t
        state.cohort[r, g, n, COUNT] = 1
        state.cohort_size[r, g] += 1


@inner
def _join_window(world: World, r: int, g: int, l: int, w: int, i: int) -> None:
    """Request i counts in the context of an attention window, and grows in it until it fills it."""
    work, state = world.work, world.state
    window, context = world.costs.windows[w], work.computed[i]
    if context >= window:
        state.context[r, g, l, w] += window * world.ticks
        return
    now = shown(world, state.clock[r, g])
    state.context[r, g, l, w] += (context - now) * world.ticks + state.clock[r, g]
    state.growing[r, g, l, w] += 1
    full = now + window - context
    if full <= work.ends[i]:  # it will fill the window
        push(state.cross_key[r, g, l, w], state.cross_req[r, g, l, w], state.cross_size[r, g, l, w], full, i)
        state.cross_size[r, g, l, w] += 1


@inner
def _stack(world: World, r: int, g: int, l: int, i: int) -> None:
    """Remember who joined last; drop entries that no longer decode here when the stack is full."""
    state = world.state
    n = state.stack_size[r, g, l]
    if n == state.stack.shape[3]:
        m = 0
        for x in range(n):
            j = state.stack[r, g, l, x]
            if j != i and decodes_in(world, g, l, j):
                state.stack[r, g, l, m] = j
                m += 1
        n = m
    state.stack[r, g, l, n] = i
    state.stack_size[r, g, l] = n + 1
