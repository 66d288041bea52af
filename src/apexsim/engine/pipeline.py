"""Decode steps of a replica with several stages, while nothing but decoding happens (floor E).

The same steps as one by one, in the same order, with the price of each group's next steps kept as one line per stage: a step
costs one addition and two comparisons per stage.  Modified in place.
"""

from __future__ import annotations

import numpy as np

from apexsim.engine.batch import grant, note_gap
from apexsim.engine.jit import inner
from apexsim.engine.run import advance_context, horizon, least, note_step, note_sums, slowest
from apexsim.engine.types import (
    ADMIT_RESERVE,
    DECODE,
    FCFS,
    S_DSTEPS,
    S_DTOKENS,
    S_SAMPLED,
    TIE,
    Costs,
    Log,
    Requests,
    Rules,
    State,
    Work,
)  # fmt: skip

LEFT, PIECE, DONE, TOTAL, SEQS, WIDEST = range(6)  # columns of State.group_plan, see types
PATIENCE = 2048  # steps of one call, so that the gap log cannot overflow within it
SAME = 1e-12  # s: a gap this close to its line belongs to it


@inner
def calm(req: Requests, work: Work, state: State, rules: Rules, r: int, t0: float) -> float:
    """Until when [s] the replica only decodes, if nothing finishes: 0 where a step from t0 on might take a prompt."""
    if rules.poll > 1 or (rules.wait > 0 and state.partial.shape[1] > 1):
        return 0.0
    for l in range(state.partial.shape[1]):
        if state.partial[r, l] >= 0:
            return 0.0
    for g in range(state.ready.shape[1]):
        for l in range(state.partial.shape[1]):
            if state.fresh_size[r, g, l, 0] > 0:
                return 0.0
    if rules.order != FCFS and state.sorted_size[r] > 0:
        return 0.0
    if state.head[r] < 0:
        return 1e300
    seen = work.seen[state.head[r]]
    if seen > t0 + 2 * TIE:
        return seen - TIE
    return 1e300 if rules.order == FCFS and _blocked(req, work, state, rules, r) else 0.0


@inner
def _blocked(req: Requests, work: Work, state: State, rules: Rules, r: int) -> bool:
    """Do all groups decode, and the first waiting request fits none of them?

    Decoding only takes blocks, so that it stays so until something finishes.  A group without decodes would try again and
    again, and the times of its trials decide who goes first later.
    """
    i = state.head[r]
    target, whole = req.prompt[i] + work.made[i], req.prompt[i] + req.output[i]
    for g in range(state.ready.shape[1]):
        busy = 0
        for l in range(state.partial.shape[1]):
            busy += state.decoding[r, g, l]
            left = rules.budget - (state.decoding[r, g, l] if rules.mix == 1 else 0)
            if grant(rules, target, whole, 0, left, state.running[r, l], state.free[r, l]) > 0:
                return False
        if busy == 0:
            return False
    return True


@inner
def _line(state: State, rules: Rules, costs: Costs, r: int, g: int, most: int) -> None:
    """Price the group's next steps: per stage the first step [s] and its growth, valid for PIECE steps."""
    seqs = total = widest = 0
    lanes = state.decoding.shape[2]
    for l in range(lanes):
        seqs += state.decoding[r, g, l]
        widest = max(widest, state.decoding[r, g, l])
    total = widest * lanes if rules.pad_lanes == 1 else seqs
    n = most
    for s in range(state.avail.shape[1]):
        attention, slope, piece = slowest(state, costs, r, g, s, n)
        n = min(n, piece)
        base = costs.lane[s, DECODE, widest] + costs.total[s, DECODE, total] + costs.sample[s, widest]
        state.line[r, g, s, 0] = base + attention
        state.line[r, g, s, 1] = slope
        state.line[r, g, s, 2] = attention
        state.line[r, g, s, 3] = costs.add[s, DECODE] + (costs.add_seq * seqs if s == 0 else 0.0)
        state.line[r, g, s, 4] = costs.hop[s] + costs.hop_token[s] * total
    state.group_plan[r, g, PIECE], state.group_plan[r, g, DONE] = n, 0
    state.group_plan[r, g, TOTAL], state.group_plan[r, g, SEQS], state.group_plan[r, g, WIDEST] = total, seqs, widest


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
def _close_line(state: State, costs: Costs, log: Log, r: int, g: int) -> None:
    """Book the steps done on the group's line."""
    n = state.group_plan[r, g, DONE]
    if n == 0:
        return
    seqs, total, widest = state.group_plan[r, g, SEQS], state.group_plan[r, g, TOTAL], state.group_plan[r, g, WIDEST]
    for s in range(state.avail.shape[1]):
        first, slope, attention = state.line[r, g, s, 0], state.line[r, g, s, 1], state.line[r, g, s, 2]
        attended = n * attention + 0.5 * slope * n * (n - 1)
        device = n * first + 0.5 * slope * n * (n - 1)
        idle = _below(first, slope, n, least(costs, s, DECODE, widest))
        note_sums(log, r, attended, 0.0, n * costs.sample[s, widest], n * state.line[r, g, s, 3], idle, n * state.line[r, g, s, 4],
                  device + idle + n * state.line[r, g, s, 3])  # fmt: skip
    log.hist[r, DECODE, total] += n
    if state.decoding.shape[2] > 1:
        log.hist_lane[r, DECODE, widest] += n
    log.sums[r, S_DSTEPS] += n
    log.sums[r, S_SAMPLED] += n * seqs
    log.sums[r, S_DTOKENS] += n * seqs
    advance_context(state, costs, log, r, g, n)
    state.group_plan[r, g, DONE] = 0


@inner
def _blocks(state: State, rules: Rules, r: int, g: int, steps: int) -> bool:
    """Take the blocks of the group's step number `steps`; False, and nothing taken, where a lane is short."""
    if rules.admission == ADMIT_RESERVE:
        return True
    at = (-steps) % rules.block
    for l in range(state.decoding.shape[2]):
        if state.residue[r, g, l, at] > state.free[r, l]:
            return False
    for l in range(state.decoding.shape[2]):
        state.free[r, l] -= state.residue[r, g, l, at]
    return True


@inner
def _step(state: State, costs: Costs, log: Log, r: int, g: int, t0: float) -> float:
    """One step of the group through the stages; returns its end [s]."""
    j = state.group_plan[r, g, DONE]
    end = t0
    for s in range(state.avail.shape[1]):
        took = state.line[r, g, s, 0] + state.line[r, g, s, 1] * j
        low = least(costs, s, DECODE, state.group_plan[r, g, WIDEST])
        if took < low:
            took = low
        begin = end + state.line[r, g, s, 4]
        if state.avail[r, s] > begin:
            begin = state.avail[r, s]
        end = begin + took + state.line[r, g, s, 3]
        state.avail[r, s] = end
    return end


@inner
def _gap(state: State, log: Log, r: int, g: int, gap: float, weight: float) -> None:
    """Add a gap of the whole group to its open segment, or open a new one where it leaves the line."""
    n = state.segment[r, g, 2]
    if n == 1.0:
        state.segment[r, g, 1] = gap - state.segment[r, g, 0]
    elif n > 1.0 and abs(gap - state.segment[r, g, 0] - n * state.segment[r, g, 1]) > SAME * n:
        note_gap(log, state.segment[r, g, 0], state.segment[r, g, 1], int(n), state.segment[r, g, 3])
        n = 0.0
    if n == 0.0:
        state.segment[r, g, 0], state.segment[r, g, 1], state.segment[r, g, 3] = gap, 0.0, weight
    state.segment[r, g, 2] = n + 1.0


@inner
def pipeline_run(state: State, rules: Rules, costs: Costs, log: Log, r: int, cut: float) -> int:
    """Decode steps of all groups that start before `cut`, until one may finish or fill a window or blocks run out.

    Returns the steps done; the groups' last steps stay in flight.
    """
    groups = state.ready.shape[1]
    for g in range(groups):
        state.group_plan[r, g, LEFT] = horizon(state, rules, costs, r, g)
        state.group_plan[r, g, PIECE] = state.group_plan[r, g, DONE] = 0
        state.segment[r, g, 2] = 0.0
    count = 0
    while count < PATIENCE:
        best, ends = np.int64(-1), 1e300
        for g in range(groups):
            if state.group_plan[r, g, LEFT] < 0:
                continue
            if state.group_plan[r, g, LEFT] == 0 and state.ready[r, g] < ends:
                ends = state.ready[r, g]
            if best < 0 or state.ready[r, g] < state.ready[r, best]:
                best = g
        if best < 0:
            break
        t0 = max(state.ready[r, best], state.avail[r, 0])
        if t0 >= cut or t0 >= ends:
            break
        if state.group_plan[r, best, DONE] == state.group_plan[r, best, PIECE]:
            _close_line(state, costs, log, r, best)
            _line(state, rules, costs, r, best, state.group_plan[r, best, LEFT])
        if not _blocks(state, rules, r, best, state.steps[r, best] + state.group_plan[r, best, DONE]):
            break
        end = _step(state, costs, log, r, best, t0)
        if state.flying[r, best] == 2 and state.cohort_size[r, best] == 1:
            _gap(state, log, r, best, end - state.ready[r, best], state.group_plan[r, best, SEQS])
            state.cohort[r, best, 0, 0] = end
        else:
            note_step(state, log, r, best, end - t0, 0.0, 1, t0)
        state.flying[r, best] = 2
        state.ready[r, best] = end
        state.group_plan[r, best, DONE] += 1
        state.group_plan[r, best, LEFT] -= 1
        count += 1
    for g in range(groups):
        _close_line(state, costs, log, r, g)
        if state.segment[r, g, 2] > 0.0:
            note_gap(log, state.segment[r, g, 0], state.segment[r, g, 1], int(state.segment[r, g, 2]), state.segment[r, g, 3])
    return count


@inner
def glide(req: Requests, work: Work, state: State, rules: Rules, costs: Costs, log: Log, r: int, t0: float, halt: float) -> int:
    """Decode steps of all groups from t0 on as long as no prompt can start and nothing finishes; the number of steps."""
    cut = calm(req, work, state, rules, r, t0)
    return pipeline_run(state, rules, costs, log, r, min(cut, halt)) if cut > t0 else 0
