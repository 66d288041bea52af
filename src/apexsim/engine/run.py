"""The time of steps: one step over all stages, and many decode steps in closed form (floor E)."""

from __future__ import annotations

from apexsim.engine.batch import note_gap
from apexsim.engine.jit import inner, merged
from apexsim.engine.types import (
    ADMIT_RESERVE,
    AHEAD,
    BARE,
    DECODE,
    PROMPT,
    S_BUSY,
    S_DECODE,
    S_DSTEPS,
    S_DTOKENS,
    S_FLOOR,
    S_HOP,
    S_HOST,
    S_PREFILL,
    S_PSTEPS,
    S_PTOKENS,
    S_SAMPLE,
    S_SAMPLED,
    Costs,
    Log,
    Rules,
    State,
)  # fmt: skip

FOREVER = 1 << 40


@merged
def node_below(costs: Costs, m: float) -> int:
    """Index of the context node at or below m, at most the last but one."""
    x = min(int(m) >> 4, costs.locate.shape[0] - 1)
    i = costs.locate[x]
    last = costs.nodes.shape[0] - 2
    while i < last and costs.nodes[i + 1] <= m:
        i += 1
    return i


@merged
def least(costs: Costs, s: int, kind: int, widest: int) -> float:
    """What the host needs at least for a step on stage s [s]: graphs hold decode steps up to a size of the busiest lane."""
    return costs.floor[s, BARE if kind == DECODE and widest > costs.captured else kind]


@inner
def decode_attention(state: State, costs: Costs, r: int, g: int, l: int, s: int) -> float:
    """Decode attention of one lane's next step on stage s [s]."""
    d = state.decoding[r, g, l]
    if d == 0:
        return 0.0
    y = 0.0
    for w in range(costs.windows.shape[0]):
        m = (state.context[r, g, l, w] + state.growing[r, g, l, w]) / d
        i = node_below(costs, m)
        a, b = costs.nodes[i], costs.nodes[i + 1]
        row = costs.decode[s, w, d]
        y += row[i] + (m - a) * (row[i + 1] - row[i]) / (b - a)
    return y


@inner
def advance_context(state: State, costs: Costs, log: Log, r: int, g: int, n: int) -> None:
    """Every decoding sequence of the group gains n tokens (no window fills before the last of them)."""
    state.steps[r, g] += n
    for l in range(state.decoding.shape[2]):
        for w in range(costs.windows.shape[0]):
            up = state.growing[r, g, l, w]
            log.read[r, 0, w] += n * float(state.context[r, g, l, w]) + 0.5 * up * n * (n + 1)
            state.context[r, g, l, w] += up * n


@inner
def note_step(state: State, log: Log, r: int, g: int, first: float, slope: float, n: int, start: float) -> None:
    """Record the gaps of n decode steps that begin at `start`; sequences that waited longer get a longer first gap."""
    weight = 0.0
    even = True
    for c in range(state.cohort_size[r, g]):
        weight += state.cohort[r, g, c, 1]
        even = even and abs(state.cohort[r, g, c, 0] - start) <= 1e-12 * (1.0 + start)
    if weight <= 0.0:
        return
    if even:
        note_gap(log, first, slope, n, weight)
    else:
        for c in range(state.cohort_size[r, g]):
            if state.cohort[r, g, c, 1] > 0.0:
                note_gap(log, start + first - state.cohort[r, g, c, 0], 0.0, 1, state.cohort[r, g, c, 1])
        if n > 1:
            note_gap(log, first + slope, slope, n - 1, weight)
    state.cohort[r, g, 0, 0] = start + first  # a further piece of the same run follows without a pause
    state.cohort[r, g, 0, 1] = weight
    state.cohort_size[r, g] = 1


@inner
def one_step(state: State, rules: Rules, costs: Costs, log: Log, r: int, g: int, t0: float, decodes: bool) -> None:
    """Push one step of group g through the stages; sets when its results are known."""
    lanes = state.decoding.shape[2]
    total = widest = sampled = busiest = prompts = seqs = decoded = 0
    for l in range(lanes):
        d = state.decoding[r, g, l] if decodes else 0
        n = d + state.tokens[r, l]
        decoded += d
        total += n
        widest = max(widest, n)
        prompts += state.tokens[r, l]
        sampled += d + state.fresh_size[r, g, l, 0]
        busiest = max(busiest, d + state.fresh_size[r, g, l, 0])
        seqs += d + state.fresh_size[r, g, l, 0] + (1 if state.tokens[r, l] > 0 and state.partial[r, l] >= 0 else 0)
    kind = PROMPT if prompts > 0 else DECODE
    if rules.pad_lanes == 1 and kind == DECODE:  # only captured graphs need lanes of equal size
        total = widest * lanes
    end = t0
    for s in range(costs.lane.shape[0]):
        attention = decode_s = 0.0
        for l in range(lanes):
            y = decode_attention(state, costs, r, g, l, s) if decodes else 0.0
            base = costs.prompt_base[s] if state.tokens[r, l] > 0 else 0.0
            both = y + state.attention[r, s, l] + base if kind == PROMPT else y
            if both > attention:
                attention, decode_s = both, y
        sample = costs.sample[s, busiest]
        device = costs.lane[s, kind, widest] + costs.total[s, kind, total] + sample + attention
        host = costs.add[s, kind] + (costs.add_seq * seqs if s == 0 else 0.0)
        hop = costs.hop[s] + costs.hop_token[s] * total
        took = max(device, least(costs, s, kind, widest)) + host
        begin = max(end + hop, state.avail[r, s])
        end = begin + took
        state.avail[r, s] = end
        note_sums(log, r, decode_s, attention - decode_s, sample, host, took - host - device, hop, took)
    log.hist[r, kind, total] += 1
    if lanes > 1:
        log.hist_lane[r, kind, widest] += 1
    log.sums[r, S_DSTEPS if kind == DECODE else S_PSTEPS] += 1
    log.sums[r, S_SAMPLED] += sampled
    log.sums[r, S_PTOKENS] += prompts
    if decodes:
        log.sums[r, S_DTOKENS] += decoded
        note_step(state, log, r, g, end - t0, 0.0, 1, t0)
        advance_context(state, costs, log, r, g, 1)
    state.phase[r, g, 0] = 0 if kind == PROMPT else (state.phase[r, g, 0] + 1) % rules.poll
    state.front[r, 2] = t0
    state.ready[r, g] = end
    state.flying[r, g] = 2 if decodes else 1


@inner
def note_sums(log: Log, r: int, decode: float, prefill: float, sample: float, host: float, floor: float, hop: float,
               took: float) -> None:  # fmt: skip
    log.sums[r, S_DECODE] += decode
    log.sums[r, S_PREFILL] += prefill
    log.sums[r, S_SAMPLE] += sample
    log.sums[r, S_HOST] += host
    log.sums[r, S_FLOOR] += floor
    log.sums[r, S_HOP] += hop
    log.sums[r, S_BUSY] += took


@inner
def kv_limit(state: State, rules: Rules, r: int, g: int, l: int, steps: int, k: int) -> int:
    """How many of k further decode steps from step count `steps` the free blocks of the lane allow."""
    d = state.decoding[r, g, l]
    if rules.admission == ADMIT_RESERVE or d == 0:
        return k
    cycles = state.free[r, l] // d
    if cycles * rules.block >= k:
        return k
    left = state.free[r, l] - cycles * d
    for j in range(rules.block):
        need = state.residue[r, g, l, (-(steps + j)) % rules.block]
        if need > left:
            return min(k, cycles * rules.block + j)
        left -= need
    return k


@merged
def take_blocks(state: State, rules: Rules, r: int, g: int, l: int, steps: int, k: int) -> None:
    """Allocate what k decode steps from step count `steps` need; `kv_limit` said that it fits."""
    if rules.admission == ADMIT_RESERVE or k <= 0:
        return
    cycles = k // rules.block
    need = cycles * state.decoding[r, g, l]
    for j in range(k - cycles * rules.block):
        need += state.residue[r, g, l, (-(steps + j)) % rules.block]
    state.free[r, l] -= need


@inner
def horizon(state: State, rules: Rules, costs: Costs, r: int, g: int) -> int:
    """Steps until the group's first completion or window crossing; 0 if one is due, −1 if nothing decodes."""
    k, steps, busy = FOREVER, state.steps[r, g], 0
    for l in range(state.decoding.shape[2]):
        busy += state.decoding[r, g, l]
        if state.heap_size[r, g, l] > 0:
            k = min(k, max(0, state.heap_key[r, g, l, 0] - steps))
        for w in range(costs.windows.shape[0]):
            if state.cross_size[r, g, l, w] > 0:
                k = min(k, max(0, state.cross_key[r, g, l, w, 0] - steps))
    return k if busy > 0 else -1


@merged
def slowest(state: State, costs: Costs, r: int, g: int, s: int, most: int) -> tuple[float, float, int]:
    """Attention of the next step on stage s [s], its growth per step, and for how many steps both hold."""
    top = slope = -1.0
    n = most
    for l in range(state.decoding.shape[2]):
        a, b, m = _lane_line(state, costs, r, g, l, s, most)
        n = min(n, m)
        if a > top or (a == top and b > slope):
            top, slope = a, b
    if state.decoding.shape[2] > 1:
        for l in range(state.decoding.shape[2]):
            a, b, _m = _lane_line(state, costs, r, g, l, s, most)
            if b > slope and a < top:
                n = min(n, int((top - a) / (b - slope)) + 1)
    return top, slope, max(n, 1)


@inner
def _lane_line(state: State, costs: Costs, r: int, g: int, l: int, s: int, most: int) -> tuple[float, float, int]:
    """Attention of one lane as a line over the next steps, and its length in steps."""
    d = state.decoding[r, g, l]
    if d == 0:
        return 0.0, 0.0, most
    y = slope = 0.0
    n = most
    last = costs.nodes.shape[0] - 2
    for w in range(costs.windows.shape[0]):
        up, x = state.growing[r, g, l, w], state.context[r, g, l, w]
        m = (x + up) / d
        i = node_below(costs, m)
        a, b = costs.nodes[i], costs.nodes[i + 1]
        row = costs.decode[s, w, d]
        tilt = (row[i + 1] - row[i]) / (b - a)
        y += row[i] + (m - a) * tilt
        slope += tilt * up / d
        if up > 0 and i < last:
            n = min(n, max(1, (int(b) * d - x) // up))
    return y, slope, n


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


@merged
def decode_run(state: State, rules: Rules, costs: Costs, log: Log, r: int, g: int, t0: float, most: int, cut: float,
               halt: float) -> None:  # fmt: skip
    """Decode steps of a single-stage replica from t0 until something changes: at most `most` steps, a completion, a full
    window, no free block, the first look at the queue (every `poll` steps) at or after time `cut`, or any step at `halt`."""
    lanes = state.decoding.shape[2]
    total = widest = 0
    for l in range(lanes):
        total += state.decoding[r, g, l]
        widest = max(widest, state.decoding[r, g, l])
    seqs = total
    if rules.pad_lanes == 1:
        total = widest * lanes
    left = min(most, max(1, horizon(state, rules, costs, r, g)))
    steps = state.steps[r, g]  # before the run
    for l in range(lanes):
        left = 1 + kv_limit(state, rules, r, g, l, steps + 1, left - 1)
    sample = costs.sample[0, widest]
    base = costs.lane[0, DECODE, widest] + costs.total[0, DECODE, total] + sample
    host = costs.add[0, DECODE] + costs.add_seq * seqs
    floor = least(costs, 0, DECODE, widest)
    t, last = t0, 0.0
    done, late = 0, 1 if rules.lag == AHEAD else 0
    while left > 0:
        attention, slope, n = slowest(state, costs, r, g, 0, left)
        device = base + attention
        low = floor > device
        if low and slope > 0.0:
            n = min(n, max(1, int((floor - device) / slope)))
        a, b = (floor + host, 0.0) if low else (device + host, slope)
        if cut < 1e300:
            m = 0 if late == 1 and cut <= t else steps_until(a, b, cut - t, n)
            if m == 0 or t + m * a + 0.5 * b * m * (m - 1) >= cut:
                n = max(m, 1)
                left = min(left, m + late + (-(state.phase[r, g, 0] + done + m + late)) % rules.poll)
                cut = 1e301
        if halt < 1e300:
            m = steps_until(a, b, halt - t, n)
            if t + m * a + 0.5 * b * m * (m - 1) >= halt:
                n = left = m
        took = n * a + 0.5 * b * n * (n - 1)
        attended = n * attention + 0.5 * slope * n * (n - 1)
        note_sums(log, r, attended, 0.0, n * sample, n * host, took - n * (host + base) - attended, 0.0, took)
        note_step(state, log, r, g, a, b, n, t)
        advance_context(state, costs, log, r, g, n)
        t += took
        last = a + b * (n - 1)
        state.cohort[r, g, 0, 0] = t
        done += n
        left -= n
    for l in range(lanes):
        take_blocks(state, rules, r, g, l, steps + 1, done - 1)
    log.hist[r, DECODE, total] += done
    if lanes > 1:
        log.hist_lane[r, DECODE, widest] += done
    log.sums[r, S_DSTEPS] += done
    log.sums[r, S_SAMPLED] += done * seqs
    log.sums[r, S_DTOKENS] += done * seqs
    state.phase[r, g, 0] = (state.phase[r, g, 0] + done) % rules.poll
    state.avail[r, 0] = t
    state.front[r, 2] = t - last
    state.ready[r, g] = t
    state.flying[r, g] = 2
