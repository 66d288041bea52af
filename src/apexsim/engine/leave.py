"""Who leaves the batch, when seats and blocks are free, and who is thrown out for them (floor E).  Modified in place."""

from __future__ import annotations

from apexsim.engine.heap import drop, push
from apexsim.engine.jit import inner
from apexsim.engine.own import finds_own, leaves_behind
from apexsim.engine.pace import ahead, blocks_of_step, cohort, decodes_in, shown
from apexsim.engine.prefix import catch, go, reuses
from apexsim.engine.queue import call_next, put_back
from apexsim.engine.types import (
    ADMIT_CHUNK,
    ADMIT_FIT,
    ADMIT_RESERVE,
    BEGAN,
    COUNT,
    GONE,
    LEAVING,
    LOCAL,
    NOBODY,
    NOT_DECODING,
    S_PREEMPT,
    SINCE,
    TIE,
    World,
)  # fmt: skip


@inner
def blocks_of(tokens: int, block: int) -> int:
    """KV blocks that hold `tokens`."""
    return (tokens + block - 1) // block


@inner
def by_chunk(admission: int) -> bool:
    """Are blocks taken chunk by chunk?"""
    return admission in (ADMIT_CHUNK, ADMIT_FIT)


@inner
def leave(world: World, r: int, g: int, l: int, i: int) -> int:
    """Take a decoding request out of the group's sums; returns its context, with what its last step made beyond its end."""
    work, state = world.work, world.state
    clock, more = state.clock[r, g], world.req.output[i] - work.made[i]
    joined = work.ends[i] - more
    done = shown(world, clock) - joined
    context = work.computed[i] + done
    state.residue[r, g, l, cohort(world, work.computed[i], joined)] -= 1
    for w in range(world.windows):
        window = world.costs.windows[w]
        if context < window or grows_on(world, i, w, joined):
            state.context[r, g, l, w] -= (work.computed[i] - joined) * world.ticks + clock
            state.growing[r, g, l, w] -= 1
        else:
            state.context[r, g, l, w] -= window * world.ticks
    state.decoding[r, g, l] -= 1
    state.busy[r, g] -= 1
    work.made[i] += min(done, more)
    work.ends[i] = NOT_DECODING
    return context


@inner
def grows_on(world: World, i: int, w: int, joined: int) -> bool:
    """Does request i fill the window by what its last step makes beyond its end alone?  Then nobody waits for it to do so."""
    window = world.costs.windows[w]
    return world.ticks != 1 and world.work.computed[i] < window and joined + window - world.work.computed[i] > world.work.ends[i]


@inner
def release(world: World, r: int, l: int, i: int, room: int, known: int, late: int = 0) -> None:
    """Its seat is free, and the blocks that had room for so many tokens, `known` of which are in them; of those that it has decoded
    the last `late` have no name yet."""
    req, state, rules = world.req, world.state, world.rules
    if rules.admission == ADMIT_RESERVE:
        room = req.prompt[i] + req.output[i]
    blocks = blocks_of(room, rules.block)
    if reuses(world):
        catch(world, r, l)
        blocks = go(world, r, l, i, known, late, blocks)
    elif finds_own(world):
        leaves_behind(world, r, l, i, known, late, blocks)
    state.free[r, l] += blocks
    state.running[r, l] -= 1


@inner
def release_all(world: World, r: int, l: int, i: int, late: int = 0) -> None:
    """Seat and blocks of a request that has finished are free; its last token was never cached."""
    release(world, r, l, i, world.work.computed[i] + world.rules.look, world.req.prompt[i] + world.req.output[i] - 1, late)


@inner
def passes(world: World) -> bool:
    """Do requests pass several pools, of which this is one?"""
    return world.alone == 0


@inner
def pass_on(world: World, r: int, l: int, i: int, t: float) -> None:
    """This pool is done with request i at t, and whoever moves requests between pools will hear of it."""
    work = world.work
    if world.hand.keeps == 0 and world.hand.stage[i] != LOCAL:
        world.hand.booked[r, l] -= 1
    push(work.due, work.due_req, work.due_size[0], t, i)
    work.due_size[0] += 1


@inner
def finish(world: World, r: int, g: int, l: int, i: int, t: float) -> None:
    """The last token of request i is out at t, for which others may have waited."""
    work, state = world.work, world.state
    work.finish[i] = t
    if passes(world) and world.hand.keeps == 1:
        state.running[r, l] -= 1
    elif ahead(world):
        work.ends[i] = LEAVING
        state.fresh[r, g, l, GONE, state.fresh_size[r, g, l, GONE]] = i
        state.fresh_size[r, g, l, GONE] += 1
    else:
        release_all(world, r, l, i)
    state.outstanding[r] -= 1
    if passes(world):
        pass_on(world, r, l, i, t)
    else:
        call_next(world, r, i, t)


@inner
def let_go(world: World, r: int) -> bool:
    """AHEAD: seats and blocks of what has finished are free; False if nothing had."""
    work, state = world.work, world.state
    any_gone = False
    for l in range(world.lanes):
        for x in range(state.fresh_size[r, 0, l, GONE]):
            i = state.fresh[r, 0, l, GONE, x]
            if work.ends[i] == LEAVING:
                work.ends[i] = NOT_DECODING
                release_all(world, r, l, i)
                any_gone = True
        state.fresh_size[r, 0, l, GONE] = 0
    return any_gone


@inner
def catch_up(world: World, r: int, t0: float) -> None:
    """AHEAD: no step was formed ahead of t0, so the next one knows what is known by then."""
    let_go(world, r)
    world.state.front[r, BEGAN] = t0 + 2 * TIE


@inner
def grow(world: World, r: int, g: int) -> bool:
    """Give every decoding sequence of the group the blocks that the tokens of its next step need.  False where the youngest of a lane
    were thrown out for that."""
    state, rules = world.state, world.rules
    fits = True
    if rules.admission == ADMIT_RESERVE:
        return fits
    for l in range(world.lanes):
        need = blocks_of_step(world, r, g, l, state.clock[r, g])
        while need > state.free[r, l]:
            preempt(world, r, g, l)
            fits = False
            need = blocks_of_step(world, r, g, l, state.clock[r, g])
        state.free[r, l] -= need
    return fits


@inner
def preempt(world: World, r: int, g: int, l: int) -> None:
    """Throw out the youngest sequence; it starts over at the front of the queue, unless it has finished.  Where the last step's
    tokens are not known yet, what it made of it has no name."""
    req, work, state, late = world.req, world.work, world.state, 1 if ahead(world) else 0
    i = state.partial[r, l]
    if i >= 0:
        state.partial[r, l] = NOBODY
        room = work.computed[i] if by_chunk(world.rules.admission) else req.prompt[i] + work.made[i] + world.rules.look
        release(world, r, l, i, room, work.computed[i])
    else:
        i = _youngest(world, r, g, l)
        if work.ends[i] == LEAVING:
            work.ends[i] = NOT_DECODING
            release_all(world, r, l, i, late)
            return
        context = leave(world, r, g, l, i)
        release(world, r, l, i, context + world.rules.look, context, late)
        _forget(world, r, g, l, i)
    world.log.sums[r, S_PREEMPT] += 1
    work.computed[i] = req.cached[i]
    work.preempted[i] += 1
    put_back(world, r, i)


@inner
def _youngest(world: World, r: int, g: int, l: int) -> int:
    """The sequence that joined the decodes of the lane last, off the stack."""
    state = world.state
    n = state.stack_size[r, g, l] - 1
    while n > 0 and not decodes_in(world, g, l, state.stack[r, g, l, n]):
        n -= 1
    state.stack_size[r, g, l] = n
    return state.stack[r, g, l, n]


@inner
def _forget(world: World, r: int, g: int, l: int, i: int) -> None:
    """Request i no longer decodes: out of the heaps and of the cohort that waits for its next token."""
    work, state = world.work, world.state
    work.finish[i] = max(work.finish[i], state.decoded[r, g])  # its last token so far
    state.heap_size[r, g, l] = drop(state.heap_key[r, g, l], state.heap_req[r, g, l], state.heap_size[r, g, l], i)
    for w in range(world.windows):
        size = state.cross_size[r, g, l, w]
        state.cross_size[r, g, l, w] = drop(state.cross_key[r, g, l, w], state.cross_req[r, g, l, w], size, i)
    n = state.cohort_size[r, g]
    for c in range(n):
        if state.cohort[r, g, c, SINCE] == work.finish[i]:
            state.cohort[r, g, c, COUNT] -= 1
    while n > 0 and state.cohort[r, g, n - 1, COUNT] <= 0:
        n -= 1
    state.cohort_size[r, g] = n
