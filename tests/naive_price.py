"""What a step costs: the part of the twin (naive.py) that reads the tables, one look-up at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apexsim.engine.types import BARE, BEFORE, DECODE, LOOSE, Costs

if TYPE_CHECKING:
    from naive_records import Step


def price(step: Step, t: float, costs: Costs, stage_free: list[float], lanes: int, pad: bool, load: int) -> None:
    """Run the step through the stages from t on: sets its begin, end and tokens, and when each stage is free."""
    loads = [step.width * sum(x.lane == i for x in step.decodes) + prompt_tokens(step, i) for i in range(lanes)]
    holds_prompt = any(prompt_tokens(step, i) for i in range(lanes))
    step.tokens = lanes * max(loads) if pad and not holds_prompt else sum(loads)
    step.begin = t
    t += step.load if load == BEFORE else 0.0
    for s in range(len(stage_free)):
        enter = t if s == 0 else max(t + float(costs.hop[s] + costs.hop_token[s] * step.tokens), stage_free[s])
        t = enter + stage_time(step, s, max(loads), costs, lanes)
        stage_free[s] = t
    step.end = max(t, step.begin + step.load)


def prompt_tokens(step: Step, lane: int) -> int:
    """Prompt tokens of a lane in the step."""
    return sum(c.tokens for c in step.chunks if c.sequence.lane == lane)


def stage_time(step: Step, s: int, busiest: int, costs: Costs, lanes: int) -> float:
    """Seconds of the step on a stage."""
    kind = step.kind
    sampled = max(sum(x.lane == i for x in step.decodes) + sum(c.last and c.sequence.lane == i for c in step.chunks) for i in range(lanes))
    batch = len(step.decodes) + len(step.chunks)
    device = float(costs.lane[s, kind, busiest] + costs.total[s, kind, step.tokens] + costs.sample[s, sampled])
    share = min(1.0, max(prompt_tokens(step, i) for i in range(lanes)) / costs.ramp)
    device += max(attention(step, s, i, costs, 1.0 + costs.beside * share) for i in range(lanes))
    host = float(costs.add[s, 0] + (costs.add[s, 1] - costs.add[s, 0]) * share) + (costs.add_seq * batch if s == 0 else 0.0)
    outside = (BARE if kind == DECODE else LOOSE) if busiest > costs.captured else kind
    return max(device, float(costs.floor[s, outside])) + host


def attention(step: Step, s: int, lane: int, costs: Costs, longer: float) -> float:
    """Attention of one lane on a stage [s]; longer: the factor of its decodes."""
    contexts = [x.context for x in step.decodes if x.lane == lane]
    chunks = [c for c in step.chunks if c.sequence.lane == lane]
    time = float(costs.prompt_base[s]) if chunks else 0.0
    if contexts:
        nodes = [float(x) for x in costs.nodes]
        for w, span in enumerate(costs.windows):
            mean = sum(int(span) if c >= span else c + step.ahead for c in contexts) / len(contexts)
            time += longer * interpolate(nodes, [float(y) for y in costs.decode[s, w, len(contexts)]], mean)
    return time + sum(prefill(s, c.done + c.tokens, costs) - prefill(s, c.done, costs) for c in chunks)


def prefill(s: int, tokens: int, costs: Costs) -> float:
    """P of mechanisms.md [s]."""
    x, r = divmod(tokens, costs.stride)
    low = float(costs.prefill[s, x])
    return low if r == 0 else low + (float(costs.prefill[s, x + 1]) - low) * r / costs.stride


def interpolate(xs: list[float], ys: list[float], x: float) -> float:
    """Piecewise linear, x inside."""
    i = max(k for k in range(len(xs) - 1) if xs[k] <= x)
    if xs[i] == x:
        return ys[i]
    return ys[i] + (ys[i + 1] - ys[i]) * (x - xs[i]) / (xs[i + 1] - xs[i])
