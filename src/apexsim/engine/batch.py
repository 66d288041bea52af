"""Prompts for the step being formed: the half-computed one, then the queue (floor E).  Modified in place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from apexsim.engine.jit import inner
from apexsim.engine.leave import blocks_of, by_chunk, passes, preempt
from apexsim.engine.own import finds, finds_own, takes_back
from apexsim.engine.pace import width
from apexsim.engine.prefix import catch, come, despair, grown, matched, name, reuses, take_until
from apexsim.engine.queue import peek, sort_visible, take
from apexsim.engine.tiers import beyond, call_back, fetch, tiered
from apexsim.engine.types import ADMIT_FIT, ADMIT_RESERVE, AT_ONCE, FCFS, FRESH, LOCAL, NOBODY, PROMPT, Costs, Rules, World

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
def admit(world: World, r: int, g: int, t0: float, limit: float, mixed: bool, may_start: bool) -> int:
    """Fill the step with prompt tokens: the half-computed prompt first, then the queue.  Returns why it stopped.

    limit: requests seen by then [s] are visible; mixed: decodes share the step; may_start: new requests may be admitted.
    """
    state = world.state
    despair(world, r)
    if reuses(world) and tiered(world):
        world.tiers.seconds[r] = 0.0
        call_back(world, r, limit)
    for l in range(world.lanes):
        state.tokens[r, l] = state.closed[r, l] = 0
        for s in range(world.stages):
            state.attention[r, s, l] = 0.0
        if state.partial[r, l] >= 0:
            may_start = _continue(world, r, g, l, mixed) and may_start
    if not may_start:
        return HELD
    if world.rules.order != FCFS:
        sort_visible(world, r, limit)
    while True:
        i = peek(world, r, limit)
        if i < 0:
            return NONE_VISIBLE
        l = _open_lane(world, r)
        if l < 0:
            return BLOCKED
        _start(world, r, g, l, i, t0, mixed)


@inner
def _open_lane(world: World, r: int) -> int:
    """The lane with the fewest admitted requests among those that are open, −1 if none is."""
    state = world.state
    best = np.int64(-1)
    for l in range(world.lanes):
        if state.closed[r, l] == 0 and (best < 0 or state.running[r, l] < state.running[r, best]):
            best = l
    return best


@inner
def _left(world: World, r: int, g: int, l: int, mixed: bool) -> int:
    """Tokens of the budget that the lane has left."""
    left = world.rules.budget - world.state.tokens[r, l]
    if mixed:
        left -= world.state.decoding[r, g, l] * width(world, world.state.busy[r, g])
    return left


@inner
def _chunk(world: World, r: int, g: int, l: int, i: int, q: int) -> None:
    """Put q prompt tokens of request i into the step being formed."""
    req, work, state = world.req, world.work, world.state
    costs = world.costs
    a = work.computed[i]
    b = a + q
    for s in range(world.stages):
        state.attention[r, s, l] += prefill_cost(costs, s, a, b)
    for w in range(world.windows):
        world.log.read[r, PROMPT, w] += triangle(b, costs.windows[w]) - triangle(a, costs.windows[w])
    state.tokens[r, l] += q
    work.computed[i] = b
    if b >= req.prompt[i] + work.made[i]:
        state.fresh[r, g, l, FRESH, state.fresh_size[r, g, l, FRESH]] = i
        state.fresh_size[r, g, l, FRESH] += 1
        state.partial[r, l] = NOBODY
    else:
        state.partial[r, l] = i
        state.closed[r, l] = 1
    if reuses(world) and world.rules.reuse == AT_ONCE:
        name(world, r, g, l, i, b)


@inner
def _continue(world: World, r: int, g: int, l: int, mixed: bool) -> bool:
    """Next chunk of the prompt that is half computed; False where it was thrown out instead."""
    work, state, rules = world.work, world.state, world.rules
    i = state.partial[r, l]
    a = work.computed[i]
    rest = world.req.prompt[i] + work.made[i] - a
    q = min(rest, _left(world, r, g, l, mixed))
    if q <= 0:
        state.closed[r, l] = 1
        return True
    if reuses(world):
        catch(world, r, l)
        name(world, r, g, l, i, a)
    if by_chunk(rules.admission):
        blocks = blocks_of(a + q + (rules.look if q == rest else 0), rules.block)
        need = blocks - blocks_of(a, rules.block)
        if need > state.free[r, l]:
            state.closed[r, l] = 1
            if rules.mix == 1:
                preempt(world, r, g, l)
            return rules.mix == 0
        if reuses(world):
            take_until(world, r, l, i, blocks)
        state.free[r, l] -= need
    _chunk(world, r, g, l, i, q)
    return True


class WaitingSize(NamedTuple):
    """A waiting request in tokens."""

    rest: int  # it has to compute
    target: int  # it holds once it has: the rest and what is cached
    whole: int  # prompt + output
    shared: int  # blocks that it finds and others hold
    loaded: int  # blocks of what is cached that tiers have, and not the lane


@inner
def size_of(world: World, r: int, g: int, l: int, i: int) -> WaitingSize:
    """Request i as it waits for lane l and the step of group g that is formed."""
    req, target = world.req, world.req.prompt[i] + world.work.made[i]
    known, shared, loaded = world.work.computed[i], 0, 0
    if reuses(world):
        hit, shared = matched(world, r, grown(world, g), l, i)
        loaded = beyond(world, r, l, i, hit) if tiered(world) else 0
        known = (hit + loaded) * world.rules.block
    elif finds_own(world):
        known = max(known, finds(world, r, l, i) * world.rules.block)
    return WaitingSize(target - known, target, req.prompt[i] + req.output[i], shared, loaded)


@inner
def grant(rules: Rules, size: WaitingSize, tokens: int, left: int, running: int, free: int) -> int:
    """Tokens of the step that a lane with a free seat gives to a waiting request; 0 if budget or blocks do not allow it.

    Of the lane, tokens: prompt tokens in the step, left: of its budget, running: admitted requests, free: blocks.
    """
    q = min(size.rest, left) if rules.chunk == 1 else size.rest
    alone = tokens == 0 and size.rest > rules.budget
    if q <= 0 or (q > left and not alone):
        return 0
    if tokens > 0 and tokens + size.rest >= rules.prefill_limit:
        return 0
    spare = 0 if running == 0 or rules.admission == ADMIT_RESERVE else rules.watermark
    must_fit = size.rest if rules.admission == ADMIT_FIT else q
    return q if first_blocks(rules, size, must_fit) + spare <= free else 0


@inner
def first_blocks(rules: Rules, size: WaitingSize, q: int) -> int:
    """KV blocks that a request takes when it is admitted with q tokens to compute: those of what is cached among them, but for
    those that others hold."""
    held = size.whole if rules.admission == ADMIT_RESERVE else slots(rules, size, q)
    return blocks_of(held, rules.block) - size.shared


@inner
def slots(rules: Rules, size: WaitingSize, q: int) -> int:
    """Tokens that a request has room for with q tokens to compute: once its prompt is whole, also for what stands behind it."""
    if by_chunk(rules.admission) and q < size.rest:
        return size.target - size.rest + q
    return size.target + rules.look


@inner
def _start(world: World, r: int, g: int, l: int, i: int, t0: float, mixed: bool) -> None:
    """Admit request i to lane l if seats, budget and blocks allow, else close the lane for this step."""
    state, rules = world.state, world.rules
    if state.running[r, l] >= rules.max_seqs:  # nobody looks for what it could find
        state.closed[r, l] = 1
        return
    size = size_of(world, r, g, l, i)
    q = grant(rules, size, state.tokens[r, l], _left(world, r, g, l, mixed), state.running[r, l], state.free[r, l])
    if q == 0:
        state.closed[r, l] = 1
        return
    if (
        reuses(world)
        and size.loaded > 0
        and not fetch(world, r, l, i, (size.target - size.rest) // rules.block - size.loaded, size.loaded, t0)
    ):
        return
    take(world, r)
    if reuses(world):
        _settle_in(world, r, l, i, size, q)
    elif finds_own(world):
        _return(world, r, l, i, size)
    state.free[r, l] -= first_blocks(rules, size, q)
    _seat(world, r, g, l, i, t0)
    _chunk(world, r, g, l, i, q)


@inner
def _seat(world: World, r: int, g: int, l: int, i: int, t0: float) -> None:
    """Request i has a seat in lane l from t0 on; the place that it has in a pool that others hand over to moves with it."""
    work, hand = world.work, world.hand
    if passes(world) and hand.keeps == 0 and hand.stage[i] != LOCAL:
        hand.booked[r, work.lane[i]] -= 1
        hand.booked[r, l] += 1
    world.state.running[r, l] += 1
    work.group[i], work.lane[i] = g, l
    if work.start[i] < 0:
        work.start[i] = t0


@inner
def _found(rules: Rules, size: WaitingSize) -> int:
    """Blocks that the lane itself has of a request."""
    return (size.target - size.rest) // rules.block - size.loaded


@inner
def _return(world: World, r: int, l: int, i: int, size: WaitingSize) -> None:
    """Request i goes on behind what it has found of its own."""
    known = size.target - size.rest
    found = (known if known > world.work.computed[i] else 0) // world.rules.block
    world.work.computed[i] = known
    takes_back(world, r, l, i, found, size.target)


@inner
def _settle_in(world: World, r: int, l: int, i: int, size: WaitingSize, q: int) -> None:
    """Request i takes what it has found, and the blocks of what it computes first."""
    work, known = world.work, size.target - size.rest
    if work.start[i] < 0:
        world.pool.first_hit[i] = known
    work.computed[i] = known
    come(world, r, l, i, _found(world.rules, size), size.target)
    take_until(world, r, l, i, blocks_of(slots(world.rules, size, q), world.rules.block))
