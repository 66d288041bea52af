"""What steps cost: one of a stated size, decodes as they stand now, and as a line over the next ones (floor E)."""

from __future__ import annotations

from apexsim.engine.jit import inner
from apexsim.engine.pace import gain
from apexsim.engine.types import BARE, DECODE, FIRST, LOOSE, PROMPT, SLOPE, Costs, World


@inner
def node_below(costs: Costs, m: float) -> int:
    """Index of the context node at or below m, at most the last but one."""
    x = min(int(m) >> 4, costs.locate.shape[0] - 1)
    i = costs.locate[x]
    last = costs.nodes.shape[0] - 2
    while i < last and costs.nodes[i + 1] <= m:
        i += 1
    return i


@inner
def least(costs: Costs, s: int, kind: int, widest: int) -> float:
    """What the host needs at least for a step on stage s [s]: graphs hold steps, or parts of them, up to a size of the busiest lane."""
    if widest > costs.captured:
        return costs.floor[s, BARE if kind == DECODE else LOOSE]
    return costs.floor[s, kind]


@inner
def prompt_share(costs: Costs, tokens: int) -> float:
    """How much of a prompt step a step is, by the prompt tokens of the lane with most."""
    return min(tokens / costs.ramp, 1.0)


@inner
def beside_prompts(costs: Costs, share: float) -> float:
    """How much longer decode attention takes in a step that is that share of a prompt step."""
    return 1.0 + costs.beside * share


@inner
def stage_seconds(costs: Costs, s: int, size: tuple[int, int, int, int, int], share: float, attention: float) -> tuple[float, float, float]:
    """What the device, what the host adds and what both take for a step on stage s [s].

    size: kind, tokens of all lanes, of the busiest lane, sequences sampled in the lane that samples most, in the batch; share: see
    `prompt_share`; attention: of the lane that needs longest [s].
    """
    kind, total, widest, sampled, seqs = size
    device = costs.lane[s, kind, widest] + costs.total[s, kind, total] + costs.sample[s, sampled] + attention
    host = costs.add[s, DECODE] * (1.0 - share) + costs.add[s, PROMPT] * share + (costs.add_seq * seqs if s == 0 else 0.0)
    return device, host, max(device, least(costs, s, kind, widest)) + host


@inner
def decode_size(world: World, r: int, g: int) -> tuple[int, int, int]:
    """Of a step that holds the group's decodes alone: its sequences (padded), in truth, of the busiest lane."""
    seqs, widest = world.state.busy[r, g], 0
    for l in range(world.lanes):
        widest = max(widest, world.state.decoding[r, g, l])
    return widest * world.lanes if world.rules.pad_lanes == 1 else seqs, seqs, widest


@inner
def decode_attention(world: World, r: int, g: int, l: int, s: int) -> float:
    """Decode attention of one lane's next step on stage s [s]."""
    state, costs = world.state, world.costs
    d = state.decoding[r, g, l]
    if d == 0:
        return 0.0
    y, each = 0.0, gain(world, state.busy[r, g])
    for w in range(world.windows):
        m = (state.context[r, g, l, w] + each * state.growing[r, g, l, w]) / (d * world.ticks)
        i = node_below(costs, m)
        a, b = costs.nodes[i], costs.nodes[i + 1]
        row = costs.decode[s, w, d]
        y += row[i] + (m - a) * (row[i + 1] - row[i]) / (b - a)
    return y


@inner
def slowest(world: World, r: int, g: int, s: int, most: int) -> tuple[float, float, int]:
    """Attention of the next step on stage s [s], its growth per step, and for how many steps both hold."""
    lines = world.state.lines
    top = slope = -1.0
    n = most
    for l in range(world.lanes):
        a, b, m = _lane_line(world, r, g, l, s, most)
        lines[r, l, FIRST], lines[r, l, SLOPE] = a, b
        n = min(n, m)
        if a > top or (a == top and b > slope):
            top, slope = a, b
    if world.lanes > 1:
        for l in range(world.lanes):
            a, b = lines[r, l, FIRST], lines[r, l, SLOPE]
            if b > slope and a < top:
                n = min(n, int((top - a) / (b - slope)) + 1)
    return top, slope, max(n, 1)


@inner
def _lane_line(world: World, r: int, g: int, l: int, s: int, most: int) -> tuple[float, float, int]:
    """Attention of one lane as a line over the next steps, and its length in steps."""
    state, costs = world.state, world.costs
    d = state.decoding[r, g, l]
    if d == 0:
        return 0.0, 0.0, most
    y = slope = 0.0
    n, each, parts = most, gain(world, state.busy[r, g]), d * world.ticks
    last = costs.nodes.shape[0] - 2
    for w in range(world.windows):
        up, x = each * state.growing[r, g, l, w], state.context[r, g, l, w]
        m = (x + up) / parts
        i = node_below(costs, m)
        a, b = costs.nodes[i], costs.nodes[i + 1]
        row = costs.decode[s, w, d]
        tilt = (row[i + 1] - row[i]) / (b - a)
        y += row[i] + (m - a) * tilt
        slope += tilt * up / parts
        if up > 0 and i < last:
            n = min(n, max(1, (int(b) * parts - x) // up))
    return y, slope, n
