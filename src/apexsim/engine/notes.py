"""What a run writes down (floor E).  Modified in place."""

from __future__ import annotations

from apexsim.engine.jit import inner
from apexsim.engine.pace import width
from apexsim.engine.types import (
    COUNT,
    DECODE,
    EVENTS,
    FIRST,
    GAPS,
    ROWS,
    S_BUSY,
    S_DECODE,
    S_DSTEPS,
    S_DTOKENS,
    S_FLOOR,
    S_HOP,
    S_HOST,
    S_PREFILL,
    S_SAMPLE,
    S_SAMPLED,
    SINCE,
    SLOPE,
    STEPS,
    STRIDE,
    WEIGHT,
    Log,
    World,
)  # fmt: skip

SAME = 1e-12  # of the time: sequences whose last tokens are this close wait equally long


@inner
def note_gap(log: Log, first: float, slope: float, steps: int, weight: float) -> None:
    """Record `steps` gaps first, first + slope, … of `weight` sequences (dropped when the log has no rows)."""
    n = log.counts[GAPS]
    if n < log.gaps.shape[0]:
        log.gaps[n, FIRST], log.gaps[n, SLOPE], log.gaps[n, STEPS], log.gaps[n, WEIGHT] = first, slope, steps, weight
        log.counts[GAPS] = n + 1


@inner
def note_run(world: World, r: int, g: int, first: float, slope: float, n: int, start: float) -> None:
    """Record the gaps of n decode steps that begin at `start`; sequences that waited longer get a longer first gap."""
    log, cohort, size = world.log, world.state.cohort, world.state.cohort_size[r, g]
    weight = 0.0
    even = True
    for c in range(size):
        weight += cohort[r, g, c, COUNT]
        even = even and abs(cohort[r, g, c, SINCE] - start) <= SAME * (1.0 + start)
    if weight <= 0.0:
        return
    if even:
        note_gap(log, first, slope, n, weight)
    else:
        for c in range(size):
            if cohort[r, g, c, COUNT] > 0.0:
                note_gap(log, start + first - cohort[r, g, c, SINCE], 0.0, 1, cohort[r, g, c, COUNT])
        if n > 1:
            note_gap(log, first + slope, slope, n - 1, weight)
    cohort[r, g, 0, SINCE] = start + first  # a further piece of the same run follows without a pause
    cohort[r, g, 0, COUNT] = weight
    world.state.cohort_size[r, g] = 1


@inner
def note_seconds(log: Log, r: int, seconds: tuple[float, float, float, float, float, float, float]) -> None:
    """Add up what steps took: decode and prompt attention, sampling, host, lack of a floor, hop, in all [s]."""
    decode, prefill, sample, host, floor, hop, took = seconds
    log.sums[r, S_DECODE] += decode
    log.sums[r, S_PREFILL] += prefill
    log.sums[r, S_SAMPLE] += sample
    log.sums[r, S_HOST] += host
    log.sums[r, S_FLOOR] += floor
    log.sums[r, S_HOP] += hop
    log.sums[r, S_BUSY] += took


@inner
def note_decodes(world: World, r: int, n: int, total: int, seqs: int, widest: int) -> None:
    """Count n steps that hold nothing but decodes: sequences (padded), in truth, of the busiest lane."""
    log, each = world.log, width(world, seqs)
    log.hist[r, DECODE, total * each] += n
    if world.lanes > 1:
        log.hist_lane[r, DECODE, widest * each] += n
    log.sums[r, S_DSTEPS] += n
    log.sums[r, S_SAMPLED] += n * seqs * each
    log.sums[r, S_DTOKENS] += n * seqs * each


@inner
def note_batch(world: World, r: int, t0: float, decodes: int) -> None:
    """Keep an even sample of the batch: when the table is full, every second row goes."""
    counts, rows, state = world.log.counts, world.log.timeline, world.state
    counts[EVENTS] += 1
    if counts[EVENTS] < counts[STRIDE]:
        return
    counts[EVENTS] = 0
    n = counts[ROWS]
    if n == rows.shape[0]:
        for x in range(n // 2):
            for y in range(rows.shape[1]):
                rows[x, y] = rows[2 * x, y]
        n //= 2
        counts[STRIDE] *= 2
    used = prompts = 0
    for l in range(world.lanes):
        used += world.capacity - state.free[r, l]
        prompts += state.tokens[r, l]
    rows[n, 0], rows[n, 1], rows[n, 2], rows[n, 3], rows[n, 4] = t0, r, decodes, used, prompts
    counts[ROWS] = n + 1
