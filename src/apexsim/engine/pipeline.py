"""Decode steps of a replica with several stages, while nothing but decoding happens (floor E).

The same steps as one by one, in the same order, with the price of each group's next steps kept as one line per stage: a step
costs one addition and two comparisons per stage.  Modified in place.
"""

from __future__ import annotations

import numpy as np

from apexsim.engine.batch import grant, size_of
from apexsim.engine.handover import knocks
from apexsim.engine.jit import inner
from apexsim.engine.leave import passes
from apexsim.engine.notes import note_decodes, note_gap, note_run, note_seconds
from apexsim.engine.pace import blocks_of_step, gain, width
from apexsim.engine.prefix import despair, hopes
from apexsim.engine.price import decode_size, least, slowest
from apexsim.engine.run import advance_context, horizon
from apexsim.engine.types import (
    ADMIT_RESERVE,
    ATTENTION,
    DECODE,
    DECODES,
    DONE,
    FCFS,
    FIRST,
    FRESH,
    HOP,
    HOST,
    INFINITY,
    LEFT,
    NEW,
    PIECE,
    SEQS,
    SINCE,
    SLOPE,
    STEPS,
    TIE,
    TOTAL,
    WEIGHT,
    WIDEST,
    World,
)  # fmt: skip

PATIENCE = 2048  # steps of one call, so that the gap log cannot overflow within it
SAME = 1e-12  # s: a gap this close to its line belongs to it


@inner
def glide(world: World, r: int, t0: float, halt: float) -> int:
    """Decode steps of all groups from t0 on as long as no prompt can start and nothing finishes; the number of steps."""
    cut = _calm(world, r, t0)
    return _decode_all(world, r, min(cut, halt)) if cut > t0 else 0


@inner
def _calm(world: World, r: int, t0: float) -> float:
    """Until when [s] the replica only decodes, if nothing finishes: 0 where a step from t0 on might take a prompt."""
    state, rules = world.state, world.rules
    if rules.poll > 1 or (rules.wait > 0 and world.lanes > 1):
        return 0.0
    for l in range(world.lanes):
        if state.partial[r, l] >= 0:
            return 0.0
        for g in range(world.stages):
            if state.fresh_size[r, g, l, FRESH] > 0:
                return 0.0
    if rules.order != FCFS and state.sorted_size[r] > 0:
        return 0.0
    if passes(world) and (knocks(world, r) < INFINITY or world.hand.head[r, NEW] >= 0):
        return 0.0
    if state.head[r] < 0:
        return INFINITY
    seen = world.work.seen[state.head[r]]
    if seen > t0 + 2 * TIE:
        return seen - TIE
    return INFINITY if rules.order == FCFS and _blocked(world, r) else 0.0


@inner
def _blocked(world: World, r: int) -> bool:
    """Do all groups decode, and the first waiting request fits none of them?

    Decoding only takes blocks, so that it stays so until something finishes.  A group without decodes would try again and
    again, and the times of its trials decide who goes first later.
    """
    state, rules = world.state, world.rules
    i = state.head[r]
    despair(world, r)
    for g in range(world.stages):
        if state.busy[r, g] == 0:
            return False
        for l in range(world.lanes):
            if state.running[r, l] >= rules.max_seqs:
                continue
            left = rules.budget - (state.decoding[r, g, l] * width(world, state.busy[r, g]) if rules.mix == 1 else 0)
            size = size_of(world, r, g, l, i)
            if grant(rules, size, 0, left, state.running[r, l], state.free[r, l]) > 0:
                return False
    return not hopes(world, r)


@inner
def _decode_all(world: World, r: int, cut: float) -> int:
    """Decode steps of all groups that start before `cut`, until one may finish or fill a window or blocks run out.

    Returns the steps done; the groups' last steps stay in flight.
    """
    state, plan = world.state, world.state.group_plan
    for g in range(world.stages):
        plan[r, g, LEFT] = horizon(world, r, g)
        plan[r, g, PIECE] = plan[r, g, DONE] = 0
        state.segment[r, g, STEPS] = 0.0
    count = 0
    while count < PATIENCE:
        g, ends = _next_group(world, r)
        if g < 0:
            break
        t0 = max(state.ready[r, g], state.avail[r, 0])
        if t0 >= cut or t0 >= ends:
            break
        if plan[r, g, DONE] == plan[r, g, PIECE]:
            _close_line(world, r, g)
            _line(world, r, g)
        if not _blocks(world, r, g):
            break
        _land(world, r, g, t0, _step(world, r, g, t0))
        count += 1
    for g in range(world.stages):
        _close_line(world, r, g)
        if state.segment[r, g, STEPS] > 0.0:
            _close_segment(world, r, g)
    return count


@inner
def _next_group(world: World, r: int) -> tuple[int, float]:
    """The decoding group whose results are known first, −1 if none decodes, and when the first group is at its end [s]."""
    state, plan = world.state, world.state.group_plan
    best, ends = np.int64(-1), INFINITY
    for g in range(world.stages):
        if plan[r, g, LEFT] < 0:
            continue
        if plan[r, g, LEFT] == 0 and state.ready[r, g] < ends:
            ends = state.ready[r, g]
        if best < 0 or state.ready[r, g] < state.ready[r, best]:
            best = g
    return best, ends


@inner
def _line(world: World, r: int, g: int) -> None:
    """Price the group's next steps: per stage the first step [s] and its growth, valid for PIECE steps."""
    costs, line, plan = world.costs, world.state.line, world.state.group_plan
    total, seqs, widest = decode_size(world, r, g)
    each = width(world, seqs)
    n = plan[r, g, LEFT]
    for s in range(world.stages):
        attention, slope, piece = slowest(world, r, g, s, n)
        n = min(n, piece)
        base = costs.lane[s, DECODE, widest * each] + costs.total[s, DECODE, total * each] + costs.sample[s, widest]
        line[r, g, s, FIRST] = base + attention
        line[r, g, s, SLOPE] = slope
        line[r, g, s, ATTENTION] = attention
        line[r, g, s, HOST] = costs.add[s, DECODE] + (costs.add_seq * seqs if s == 0 else 0.0)
        line[r, g, s, HOP] = costs.hop[s] + costs.hop_token[s] * total * each
    plan[r, g, PIECE], plan[r, g, DONE] = n, 0
    plan[r, g, TOTAL], plan[r, g, SEQS], plan[r, g, WIDEST] = total, seqs, widest


@inner
def _below(first: float, slope: float, n: int, floor: float) -> float:
    """Seconds that the steps first, first + slope, … (n of them) lack of a floor."""
    if first >= floor:
        return 0.0
    low = n
    if slope > 0.0:
        low = min(n, int((floor - first) / slope) + 1)
    return low * (floor - first) - 0.5 * slope * low * (low - 1)


@inner
def _close_line(world: World, r: int, g: int) -> None:
    """Book the steps done on the group's line."""
    costs, line, plan = world.costs, world.state.line, world.state.group_plan
    n = plan[r, g, DONE]
    if n == 0:
        return
    total, seqs, widest = plan[r, g, TOTAL], plan[r, g, SEQS], plan[r, g, WIDEST]
    each = width(world, seqs)
    for s in range(world.stages):
        first, slope, attention = line[r, g, s, FIRST], line[r, g, s, SLOPE], line[r, g, s, ATTENTION]
        attended = n * attention + 0.5 * slope * n * (n - 1)
        device = n * first + 0.5 * slope * n * (n - 1)
        lack = _below(first, slope, n, least(costs, s, DECODE, widest * each))
        host, hop = n * line[r, g, s, HOST], n * line[r, g, s, HOP]
        note_seconds(world.log, r, (attended, 0.0, n * costs.sample[s, widest], host, lack, hop, device + lack + host))
    note_decodes(world, r, n, total, seqs, widest)
    advance_context(world, r, g, n)
    plan[r, g, DONE] = 0


@inner
def _blocks(world: World, r: int, g: int) -> bool:
    """Take the blocks of the group's next step; False, and nothing taken, where a lane is short."""
    state, rules = world.state, world.rules
    if rules.admission == ADMIT_RESERVE:
        return True
    clock = state.clock[r, g] + state.group_plan[r, g, DONE] * gain(world, state.busy[r, g])
    for l in range(world.lanes):
        state.needs[r, l] = blocks_of_step(world, r, g, l, clock)
        if state.needs[r, l] > state.free[r, l]:
            return False
    for l in range(world.lanes):
        state.free[r, l] -= state.needs[r, l]
    return True


@inner
def _step(world: World, r: int, g: int, t0: float) -> float:
    """One step of the group through the stages; returns its end [s]."""
    state, line = world.state, world.state.line
    j, widest = state.group_plan[r, g, DONE], state.group_plan[r, g, WIDEST] * width(world, state.busy[r, g])
    end = t0
    for s in range(world.stages):
        took = line[r, g, s, FIRST] + line[r, g, s, SLOPE] * j
        low = least(world.costs, s, DECODE, widest)
        if took < low:
            took = low
        begin = end + line[r, g, s, HOP]
        if state.avail[r, s] > begin:
            begin = state.avail[r, s]
        end = begin + took + line[r, g, s, HOST]
        state.avail[r, s] = end
    return end


@inner
def _land(world: World, r: int, g: int, t0: float, end: float) -> None:
    """The group's step from t0 is in flight until `end`."""
    state, plan = world.state, world.state.group_plan
    if state.flying[r, g] == DECODES and state.cohort_size[r, g] == 1:
        _gap(world, r, g, end - state.ready[r, g])
        state.cohort[r, g, 0, SINCE] = end
    else:
        note_run(world, r, g, end - t0, 0.0, 1, t0)
    state.flying[r, g] = DECODES
    state.ready[r, g] = end
    plan[r, g, DONE] += 1
    plan[r, g, LEFT] -= 1


@inner
def _gap(world: World, r: int, g: int, gap: float) -> None:
    """Add a gap of the whole group to its open segment, or open a new one where it leaves the line."""
    segment = world.state.segment
    n = segment[r, g, STEPS]
    if n == 1.0:
        segment[r, g, SLOPE] = gap - segment[r, g, FIRST]
    elif n > 1.0 and abs(gap - segment[r, g, FIRST] - n * segment[r, g, SLOPE]) > SAME * n:
        _close_segment(world, r, g)
        n = 0.0
    if n == 0.0:
        segment[r, g, FIRST], segment[r, g, SLOPE] = gap, 0.0
        segment[r, g, WEIGHT] = world.state.group_plan[r, g, SEQS]
    segment[r, g, STEPS] = n + 1.0


@inner
def _close_segment(world: World, r: int, g: int) -> None:
    """The open segment becomes a row of the gap log."""
    row = world.state.segment
    note_gap(world.log, row[r, g, FIRST], row[r, g, SLOPE], int(row[r, g, STEPS]), row[r, g, WEIGHT])
