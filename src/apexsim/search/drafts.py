"""What drafting is worth to a plan: the acceptance that it was simulated with, and the one below which it loses (floor 5).

A step with drafts takes longer and makes more tokens.  At a batch of d sequences and their mean context it pays as long as

    acceptance length > (seconds of a step with drafts) / (seconds of a step without)

which grows with the batch: verification is nearly free while weights are read for few tokens, and costs its full share once products
are bound by compute.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from apexsim.drafting import Drafting, ranged
from apexsim.engine.types import BARE, DECODE, Costs
from apexsim.errors import Rejected
from apexsim.plan.limits import started
from apexsim.plan.plan import Plan
from apexsim.search.evaluate import Evaluation, compiled
from apexsim.search.setting import Setting

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
WORTH = 0.01  # of a batch's speed, below which the number of drafts stays what it is for smaller ones


@dataclass(frozen=True, slots=True)
class Drafted:
    """Of a plan that drafts: tokens of a step and who says so (`assumed`: nobody of this model and text), mean sequences of a lane in the
    run, tokens of a step below which drafting loses there, and the sequences of a lane up to which it pays (`all`: as many as run)."""

    method: str
    tokens: int
    length: float
    source: str
    assumed: bool
    batch: float
    break_even: float
    pays_to: int
    all: bool


def drafted(setting: Setting, found: Evaluation, concurrency: float) -> Drafted | None:
    """What drafting is worth to a simulated plan; None without drafts.  concurrency: mean requests in the system; setting: at its clock."""
    plan, draft = found.plan, found.plan.draft
    if draft is None:
        return None
    accepted, context = setting.accepts(draft), mean_context(setting)
    plain = compiled(setting, replace(plan, draft=None), found.start)
    ratio = step_seconds(found.costs, plan, context) / step_seconds(plain.costs, replace(plan, draft=None), context)
    seats = len(ratio)
    batch = min(max(concurrency / (plan.replicas * plan.lanes), 1.0), float(seats))
    lengths = np.array([accepted.length(k) for k in widths_of(plan, np.arange(1, seats + 1)) - 1])
    loses = np.flatnonzero(ratio >= lengths)
    pays_to = int(loses[0]) if len(loses) else seats
    length = float(np.interp(batch, np.arange(1, seats + 1), lengths)) if draft.by else accepted.length(draft.tokens)
    even = float(np.interp(batch, np.arange(1, seats + 1), ratio))
    return Drafted(draft.method, draft.tokens, length, accepted.source, accepted.assumed, batch, even, pays_to, not len(loses))


def mean_context(setting: Setting) -> float:
    """Tokens of context of a decode step, in the mean over requests."""
    work = setting.workload
    return float((work.prompt + 0.5 * work.output).mean())


def following(setting: Setting, plan: Plan, asked: Collection[int], batch: float) -> Drafting | None:
    """A plan's way of drafting with the number of drafts, of those asked for or none, that makes the most tokens a second of batches of 1,
    2 to 3, 4 to 7 … sequences, by the plan's own step times; None where one number is best for all, or the plan does not fit.

    batch: mean sequences of the run in which the plan's own number was the best.  It stays so there, and no larger batch has more: step
    times do not know that drafts make steps with prompts longer, and the run does."""
    setting, draft = setting.at(plan.clock), plan.draft
    found = started(setting.model, plan, setting.cluster, setting.engine, setting.max_model_len)
    if draft is None or isinstance(found, Rejected):
        return None
    accepted, context, speeds = setting.accepts(draft), mean_context(setting), {}
    for k in sorted({0, *asked}):
        one = replace(plan, draft=replace(draft, tokens=k))
        speeds[k] = accepted.length(k) / step_seconds(compiled(setting, one, found[0]).costs, one, context)
    drafts, seats = list[int](), min(len(speed) for speed in speeds.values())
    if setting.workload.mode == "closed":
        seats = min(seats, -(-setting.workload.concurrency // plan.replicas))
    while len(drafts) < seats:
        span = slice(len(drafts), min(2 * len(drafts) + 1, seats))
        rates = {k: float(np.log(speed[span]).mean()) for k, speed in speeds.items()}
        best = max(rates, key=rates.__getitem__)
        last = drafts[-1] if drafts else best
        pick = best if rates[best] > rates[last] + WORTH else last
        if batch <= span.stop:
            pick = draft.tokens if span.start < batch else min(pick, draft.tokens)
        drafts += [pick] * (span.stop - span.start)
    by = ranged(drafts)
    return replace(draft, tokens=max(drafts), by=by) if by else None


def widths_of(plan: Plan, d: Counts) -> Counts:
    """Tokens of the step that each of d sequences of every lane takes up."""
    return np.array([plan.draft.drafts(int(n) * plan.lanes) + 1 if plan.draft else 1 for n in d], np.int64)


def step_seconds(costs: Costs, plan: Plan, context: float) -> Array:
    """[d] seconds of a decode step of 1, 2 … sequences of each lane at a mean context, through all stages."""
    d = np.arange(1, costs.sample.shape[1] - 1)
    d = d[d * widths_of(plan, d) * plan.lanes < costs.total.shape[2]]
    width = widths_of(plan, d)
    total = np.zeros(len(d))
    for s in range(len(costs.hop)):
        attention = np.zeros(len(d))
        for w, window in enumerate(costs.windows):
            at = min(context + 1.0, float(window))
            attention += np.array([np.interp(at, costs.nodes, costs.decode[s, w, n]) for n in d])
        device = costs.lane[s, DECODE, d * width] + costs.total[s, DECODE, d * width * plan.lanes] + costs.sample[s, d] + attention
        floor = np.where(d * width > costs.captured, costs.floor[s, BARE], costs.floor[s, DECODE])
        total += np.maximum(device, floor) + costs.add[s, DECODE] + costs.hop[s] + costs.hop_token[s] * d * width * plan.lanes
    return np.asarray(total + costs.add_seq * d * plan.lanes, np.float64)


def told(shorthand: str, found: Drafted) -> str:
    """One sentence on it."""
    how = "are assumed" if found.assumed else "are taken"
    far = "at every batch that runs" if found.all else f"up to {found.pays_to:,} sequences of a lane" if found.pays_to else "at no batch"
    return (
        f"{shorthand}: {found.length:.2f} tokens a step {how} ({found.source}); with {found.batch:,.0f} sequences of a lane drafting loses "
        f"below {found.break_even:.2f}; it pays {far}"
    )
