"""How a pool takes in what another one has computed: a place is booked, the cache lands, the request boards (floor E).

Modified in place.  A place is a slot and the KV blocks of the prompt, or of prompt and output where these are reserved.  It is booked
when a step is formed, in order of asking; what the lane has of the prompt need not be sent.  A request whose cache has landed boards when
a step is formed and a seat is free, and then decodes like any other.  docs/pools.md says whose rules these are.
"""

from __future__ import annotations

import numpy as np

from apexsim.engine.batch import WaitingSize, first_blocks, slots
from apexsim.engine.heap import push
from apexsim.engine.jit import inner
from apexsim.engine.leave import blocks_of
from apexsim.engine.prefix import catch, come, go, matched, name, reuses, take_until
from apexsim.engine.settle import join, stir, wait_from
from apexsim.engine.types import ADMIT_RESERVE, ASKING, INFINITY, LANDED, NEW, NOBODY, READ_UNTIL, World


@inner
def line_up(world: World, r: int, queue: int, i: int) -> None:
    """Request i stands at the end of a queue."""
    hand = world.hand
    hand.next[i] = NOBODY
    if hand.head[r, queue] < 0:
        hand.head[r, queue] = i
    else:
        hand.next[hand.tail[r, queue]] = i
    hand.tail[r, queue] = i


@inner
def step_out(world: World, r: int, queue: int) -> None:
    """The first of a queue leaves it."""
    hand = world.hand
    hand.head[r, queue] = hand.next[hand.head[r, queue]]


@inner
def knock(world: World, r: int, queue: int, i: int, t: float) -> None:
    """Request i comes to replica r at t, to ask for a place or with its cache."""
    world.work.seen[i] = t
    world.work.replica[i] = r
    line_up(world, r, queue, i)
    stir(world, r, t)


@inner
def knocks(world: World, r: int) -> float:
    """Since when somebody from another pool waits to be looked at [s]; INFINITY for nobody."""
    hand, first = world.hand, INFINITY
    for queue in (ASKING, LANDED):
        if hand.head[r, queue] >= 0:
            first = min(first, world.work.seen[hand.head[r, queue]])
    return first


@inner
def unseen(world: World, r: int) -> bool:
    """Does somebody from another pool wait who came after the last look?"""
    hand = world.hand
    for queue in (ASKING, LANDED):
        if hand.head[r, queue] >= 0 and world.work.seen[hand.tail[r, queue]] > world.state.front[r, READ_UNTIL]:
            return True
    return False


# ---- booking -------------------------------------------------------------------------------------------------------


@inner
def _size(world: World, i: int, shared: int) -> WaitingSize:
    """Request i when nothing of it has to be computed here."""
    req = world.req
    return WaitingSize(0, np.int64(world.work.computed[i]), req.prompt[i] + req.output[i], shared, 0)


@inner
def place(world: World, i: int) -> int:
    """KV blocks that request i takes before it is computed here or sent, or holds after it was computed."""
    return first_blocks(world.rules, _size(world, i, 0), 0)


@inner
def _lane_for(world: World, r: int, g: int, i: int) -> int:
    """The lane with the fewest booked requests among those that have a slot and the blocks; NOBODY if none has."""
    state, hand, rules, all_blocks = world.state, world.hand, world.rules, place(world, i)
    best = np.int64(NOBODY)
    for l in range(world.lanes):
        spare = 0 if hand.booked[r, l] == 0 or rules.admission == ADMIT_RESERVE else rules.watermark
        full = hand.booked[r, l] >= hand.slots or (hand.seated == 1 and state.running[r, l] >= rules.max_seqs)
        if full or (best >= 0 and hand.booked[r, l] >= hand.booked[r, best]):
            continue
        if all_blocks - _shared(world, r, g, l, i) + spare <= state.free[r, l]:
            best = l
    return best


@inner
def _shared(world: World, r: int, g: int, l: int, i: int) -> int:
    """Blocks of request i that the lane has, and others hold."""
    return matched(world, r, g, l, i)[1] if reuses(world) else np.int64(0)


@inner
def _take_place(world: World, r: int, g: int, l: int, i: int) -> None:
    """Request i has its blocks in the lane: those that it finds there need not be sent."""
    blocks = place(world, i)
    if reuses(world):
        hit, shared = matched(world, r, g, l, i)
        come(world, r, l, i, hit, np.int64(world.req.prompt[i]))
        take_until(world, r, l, i, blocks_of(slots(world.rules, _size(world, i, shared), 0), world.rules.block))
        world.pool.first_hit[i] = hit * world.rules.block
        blocks -= shared
    world.state.free[r, l] -= blocks


@inner
def give_back(world: World, i: int, known: int) -> None:
    """The blocks of request i, `known` tokens in which are what others may find, are free, though it has not run on."""
    r, l = np.int64(world.work.replica[i]), np.int64(world.work.lane[i])
    blocks = place(world, i)
    if reuses(world):
        catch(world, r, l)
        blocks = go(world, r, l, i, known, 0, blocks)
    world.state.free[r, l] += blocks


@inner
def found(world: World, i: int) -> int:
    """Tokens of request i's prompt that its lane had when it was given its place."""
    return world.pool.hit[i] * world.rules.block if reuses(world) else 0


@inner
def book(world: World, r: int, g: int, t0: float, limit: float) -> bool:
    """Give places to those who ask for one, seen by `limit`, until one finds none; whether anybody got one.  g: the group whose decodes
    have their blocks for the step being formed, NOBODY if none has."""
    work, hand, some = world.work, world.hand, False
    while True:
        i = hand.head[r, ASKING]
        if i < 0 or work.seen[i] > limit:
            return some
        l = _lane_for(world, r, g, i)
        if l < 0:
            return some
        step_out(world, r, ASKING)
        _take_place(world, r, g, l, i)
        hand.booked[r, l] += 1
        work.lane[i] = l
        push(work.due, work.due_req, work.due_size[0], t0, i)
        work.due_size[0] += 1
        some = True


# ---- boarding ------------------------------------------------------------------------------------------------------


@inner
def board(world: World, r: int, g: int, t0: float, limit: float) -> bool:
    """Requests whose cache has landed, seen by `limit`, decode from this step on, as far as there are seats; whether anybody does whose
    first token this step makes."""
    work, state, hand, new = world.work, world.state, world.hand, False
    while True:
        i = hand.head[r, LANDED]
        if i < 0 or work.seen[i] > limit:
            return new
        l = np.int64(work.lane[i])
        if state.running[r, l] >= world.rules.max_seqs:
            return new
        step_out(world, r, LANDED)
        if reuses(world):
            name(world, r, g, l, i, work.computed[i])
        state.running[r, l] += 1
        work.start[i] = t0
        if work.made[i] > 0:  # its first token has been made elsewhere, and goes out from here
            join(world, r, g, l, i, t0)
            wait_from(world, r, g, t0)
            work.first[i] = t0
        else:
            join(world, r, g, l, i, INFINITY)
            line_up(world, r, NEW, i)
            new = True
