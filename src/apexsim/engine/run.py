"""The time of steps: one step over all stages, and many decode steps in closed form (floor E).  Modified in place."""

from __future__ import annotations

from apexsim.engine.jit import inner
from apexsim.engine.notes import note_decodes, note_run, note_seconds
from apexsim.engine.pace import gain, shown, steps_to, width
from apexsim.engine.prefix import reuses
from apexsim.engine.price import beside_prompts, decode_attention, decode_size, least, prompt_share, slowest, stage_seconds
from apexsim.engine.tiers import tiered
from apexsim.engine.types import (
    ADMIT_RESERVE,
    AHEAD,
    BEFORE,
    BEGAN,
    DECODE,
    DECODES,
    FOREVER,
    FRESH,
    INFINITY,
    PROMPT,
    PROMPTS,
    S_DSTEPS,
    S_DTOKENS,
    S_LOAD,
    S_PSTEPS,
    S_PTOKENS,
    S_SAMPLED,
    SINCE,
    SINCE_READ,
    World,
)  # fmt: skip

# ---- one step ------------------------------------------------------------------------------------------------------


@inner
def one_step(world: World, r: int, g: int, t0: float, decodes: bool) -> None:
    """Push one step of group g through the stages; sets when its results are known."""
    state, log = world.state, world.log
    total = widest = prompts = longest = decoded = sampled = most_sampled = seqs = 0
    each = width(world, state.busy[r, g])
    for l in range(world.lanes):
        tokens, ends = state.tokens[r, l], state.fresh_size[r, g, l, FRESH]
        d = state.decoding[r, g, l] if decodes else 0
        total += d * each + tokens
        widest = max(widest, d * each + tokens)
        prompts += tokens
        longest = max(longest, tokens)
        decoded += d
        sampled += d * each + ends
        most_sampled = max(most_sampled, d + ends)
        seqs += d + ends + (1 if tokens > 0 and state.partial[r, l] >= 0 else 0)
    kind = PROMPT if prompts > 0 else DECODE
    if world.rules.pad_lanes == 1 and kind == DECODE:  # only captured graphs need lanes of equal size
        total = widest * world.lanes
    load = world.tiers.seconds[r] if reuses(world) and tiered(world) else 0.0
    end = t0 + load if world.tiers.load == BEFORE else t0
    share = prompt_share(world.costs, longest)
    for s in range(world.stages):
        end = _stage(world, r, g, s, end, (kind, total, widest, most_sampled, seqs), share, decodes)
    if load > 0.0:
        end = max(end, t0 + load)
        log.sums[r, S_LOAD] += load
    log.hist[r, kind, total] += 1
    if world.lanes > 1:
        log.hist_lane[r, kind, widest] += 1
    log.sums[r, S_DSTEPS if kind == DECODE else S_PSTEPS] += 1
    log.sums[r, S_SAMPLED] += sampled
    log.sums[r, S_PTOKENS] += prompts
    if decodes:
        log.sums[r, S_DTOKENS] += decoded * each
        note_run(world, r, g, end - t0, 0.0, 1, t0)
        advance_context(world, r, g, 1)
    state.phase[r, g, SINCE_READ] = 0 if kind == PROMPT else (state.phase[r, g, SINCE_READ] + 1) % world.rules.poll
    state.front[r, BEGAN] = t0
    state.ready[r, g] = end
    state.flying[r, g] = DECODES if decodes else PROMPTS


@inner
def _stage(world: World, r: int, g: int, s: int, at: float, size: tuple[int, int, int, int, int], share: float, decodes: bool) -> float:
    """Push the step through stage s, which it reaches at `at`; returns when it leaves it [s].  size, share: see `stage_seconds`."""
    state, costs = world.state, world.costs
    kind, total, _, sampled, _ = size
    attention = decode_s = 0.0
    for l in range(world.lanes):
        y = decode_attention(world, r, g, l, s) * beside_prompts(costs, share) if decodes else 0.0
        base = costs.prompt_base[s] if state.tokens[r, l] > 0 else 0.0
        both = y + state.attention[r, s, l] + base if kind == PROMPT else y
        if both > attention:
            attention, decode_s = both, y
    device, host, took = stage_seconds(costs, s, size, share, attention)
    hop = costs.hop[s] + costs.hop_token[s] * total
    end = max(at + hop, state.avail[r, s]) + took
    state.avail[r, s] = end
    note_seconds(world.log, r, (decode_s, attention - decode_s, costs.sample[s, sampled], host, took - host - device, hop, took))
    return end


# ---- many decode steps ---------------------------------------------------------------------------------------------


@inner
def advance_context(world: World, r: int, g: int, n: int) -> None:
    """Every decoding sequence of the group gains the tokens of n steps (no window fills before the last of them)."""
    state, log = world.state, world.log
    each = gain(world, state.busy[r, g])
    state.clock[r, g] += n * each
    for l in range(world.lanes):
        for w in range(world.windows):
            up = state.growing[r, g, l, w]
            log.read[r, DECODE, w] += (n * float(state.context[r, g, l, w]) + up * (0.5 * each * n * (n + 1))) / world.ticks
            state.context[r, g, l, w] += up * each * n


@inner
def kv_limit(world: World, r: int, g: int, l: int, clock: int, k: int) -> int:
    """How many of k further decode steps from `clock` on the free blocks of the lane allow."""
    state, block = world.state, world.rules.block
    d = state.decoding[r, g, l]
    if world.rules.admission == ADMIT_RESERVE or d == 0:
        return k
    now, each = shown(world, clock), gain(world, state.busy[r, g])
    cycles = state.free[r, l] // d  # as often each of them can have a block
    if cycles * block >= shown(world, clock + k * each) - now:
        return k
    left = state.free[r, l] - cycles * d
    at = (-now) % block
    for x in range(block):
        left -= state.residue[r, g, l, at]
        if left < 0:
            return min(k, ((now + cycles * block + x + 1) * world.ticks - 1 - clock) // each)
        at = at - 1 if at > 0 else block - 1
    return k


@inner
def take_blocks(world: World, r: int, g: int, l: int, clock: int, k: int) -> None:
    """Allocate what k decode steps from `clock` on need; `kv_limit` said that it fits."""
    state, block = world.state, world.rules.block
    if world.rules.admission == ADMIT_RESERVE or k <= 0:
        return
    now = shown(world, clock)
    tokens = shown(world, clock + k * gain(world, state.busy[r, g])) - now
    cycles = tokens // block
    need = cycles * state.decoding[r, g, l]
    at = (-now) % block
    for _x in range(tokens - cycles * block):
        need += state.residue[r, g, l, at]
        at = at - 1 if at > 0 else block - 1
    state.free[r, l] -= need


@inner
def horizon(world: World, r: int, g: int) -> int:
    """Steps until the group's first completion or window crossing; 0 if one is due, −1 if nothing decodes."""
    state = world.state
    if state.busy[r, g] == 0:
        return -1
    k = FOREVER
    for l in range(world.lanes):
        if state.heap_size[r, g, l] > 0:
            k = min(k, steps_to(world, r, g, state.heap_key[r, g, l, 0]))
        for w in range(world.windows):
            if state.cross_size[r, g, l, w] > 0:
                k = min(k, steps_to(world, r, g, state.cross_key[r, g, l, w, 0]))
    return k


@inner
def steps_until(a: float, b: float, x: float, most: int) -> int:
    """Smallest n ≤ most for which n steps of a, a + b, a + 2b … last at least x (≥ 1)."""
    if x <= a:
        return 1
    if b <= 1e-18:
        n = int(x / a)
    else:
        h = a - 0.5 * b
        n = int((-h + (h * h + 2.0 * b * x) ** 0.5) / b)
    n = max(1, min(n, most))
    while n > 1 and (n - 1) * a + 0.5 * b * (n - 1) * (n - 2) >= x:
        n -= 1
    while n < most and n * a + 0.5 * b * n * (n - 1) < x:
        n += 1
    return n


@inner
def reach(a: float, b: float, t: float, at: float, most: int) -> int:
    """Number of steps a, a + b … from t with which `at` is reached; −1 where `most` are too few."""
    n = steps_until(a, b, at - t, most)
    return n if t + n * a + 0.5 * b * n * (n - 1) >= at else -1


@inner
def decode_run(world: World, r: int, g: int, t0: float, most: int, cut: float, halt: float) -> None:
    """Decode steps of a single-stage replica from t0 until something changes: at most `most` steps, a completion, a full
    window, no free block, the first look at the queue (every `poll` steps) at or after time `cut`, or any step at `halt`."""
    state, rules, costs = world.state, world.rules, world.costs
    total, seqs, widest = decode_size(world, r, g)
    each, second = width(world, seqs), state.clock[r, g] + gain(world, seqs)  # the first step has its blocks
    left = min(most, max(1, horizon(world, r, g)))
    for l in range(world.lanes):
        left = 1 + kv_limit(world, r, g, l, second, left - 1)
    sample = costs.sample[0, widest]
    base = costs.lane[0, DECODE, widest * each] + costs.total[0, DECODE, total * each] + sample
    host, floor = costs.add[0, DECODE] + costs.add_seq * seqs, least(costs, 0, DECODE, widest * each)
    t, last = t0, 0.0
    done, late = 0, 1 if rules.lag == AHEAD else 0
    while left > 0:
        attention, slope, n = slowest(world, r, g, 0, left)
        device = base + attention
        low = floor > device
        if low and slope > 0.0:
            n = min(n, max(1, int((floor - device) / slope)))
        a, b = (floor + host, 0.0) if low else (device + host, slope)
        if cut < INFINITY:
            m = 0 if late == 1 and cut <= t else reach(a, b, t, cut, n)
            if m >= 0:  # the next look at the queue is the last step's
                n, cut = max(m, 1), INFINITY
                left = min(left, m + late + (-(state.phase[r, g, SINCE_READ] + done + m + late)) % rules.poll)
        if halt < INFINITY:
            m = reach(a, b, t, halt, n)
            if m >= 0:
                n = left = m
        took = n * a + 0.5 * b * n * (n - 1)
        attended = n * attention + 0.5 * slope * n * (n - 1)
        note_seconds(world.log, r, (attended, 0.0, n * sample, n * host, took - n * (host + base) - attended, 0.0, took))
        note_run(world, r, g, a, b, n, t)
        advance_context(world, r, g, n)
        t += took
        last = a + b * (n - 1)
        state.cohort[r, g, 0, SINCE] = t
        done += n
        left -= n
    for l in range(world.lanes):
        take_blocks(world, r, g, l, second, done - 1)
    note_decodes(world, r, done, total, seqs, widest)
    state.phase[r, g, SINCE_READ] = (state.phase[r, g, SINCE_READ] + done) % rules.poll
    state.avail[r, 0] = state.ready[r, g] = t
    state.front[r, BEGAN] = t - last
    state.flying[r, g] = DECODES
