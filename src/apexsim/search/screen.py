"""Plans that a sample of a long trace shows to be hopeless, so that nobody waits for all of it (floor 5).

A trace of a million requests tells most about plans that are close; most plans are not close.  Each is first run on a window
of the trace whose load is that of the whole, or just less.  Left out are the plans

- whose queue grows in that window, if ten others keep up with the whole trace: they do not keep up with less than its mean load;
- whose objective there is several times that of the tenth best.

The first ten by the sample always run in full.  Where the window is no smaller than an eighth of the trace nothing is screened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from apexsim.errors import Rejected
from apexsim.plan.plan import Plan
from apexsim.plan.split import AnyPlan
from apexsim.search.assess import Assessed
from apexsim.search.goal import Goal
from apexsim.workload.trace import Workload

RULE = "screened on a sample"
WINDOW = 10_000  # requests
LEAST = 8  # windows in a trace that is screened: the sample costs an eighth of what it may save
FIRST = 10  # plans that always run in full
SLOW = "cannot keep up with {:,} requests at the trace's mean load"
BEHIND = 3.0  # times the objective of the last of them: errors of a window are far smaller
CHEAPER = 2  # times FIRST plans: fewer are not worth a screening


def sample(work: Workload, plans: int) -> Workload | None:
    """A window of a long open-loop trace with the load of the whole or just less; None where there is nothing to gain."""
    if work.mode != "open" or work.size < LEAST * WINDOW or plans < CHEAPER * FIRST:
        return None
    begin = _typical(work) if work.arrive[-1] > work.arrive[0] else None
    if begin is None:
        return None
    part = work.without_prefixes().only(np.arange(begin, begin + WINDOW))
    return replace(part, arrive=part.arrive - work.arrive[begin], warmup=0)


def _typical(work: Workload) -> int | None:
    """Where the window begins whose requests, prompt and output tokens per second all stay within the trace's means, next to them."""
    begin = np.arange(0, work.size - WINDOW, WINDOW // 2)
    end = begin + WINDOW
    share_of_time = (work.arrive[end] - work.arrive[begin]) / (work.arrive[-1] - work.arrive[0])
    shares = [np.full(len(begin), WINDOW / work.size)]
    for tokens in (work.prompt, work.output):
        before = np.concatenate(([0], tokens.cumsum()))
        shares.append((before[end] - before[begin]) / before[-1])
    heaviest = np.max(shares, axis=0) / np.maximum(share_of_time, 1e-12)
    fair = np.flatnonzero(heaviest <= 1.0)
    return int(begin[fair[heaviest[fair].argmax()]]) if len(fair) else None


@dataclass(frozen=True, slots=True)
class Screened:
    """Plans in their order.  worth: the whole trace; slow: too slow for the load, and worth it only where the others are, too;
    hopeless: far behind."""

    worth: tuple[AnyPlan, ...]
    slow: tuple[AnyPlan, ...] = ()
    hopeless: tuple[Rejected, ...] = ()

    def __add__(self, other: Screened) -> Screened:
        """Both together."""
        return Screened(self.worth + other.worth, self.slow + other.slow, self.hopeless + other.hopeless)

    @property
    def left_out(self) -> tuple[Rejected, ...]:
        """All but those that are worth it, with the reason."""
        return (*(Rejected(RULE, SLOW.format(WINDOW), plan.shorthand) for plan in self.slow), *self.hopeless)


def screened(found: Sequence[Assessed], goal: Goal, always: Plan) -> Screened:
    """What a sample says of the plans; the best ones by it and `always` are worth the whole trace whatever it says."""
    order = sorted(found, key=lambda x: x.key)
    last = order[:FIRST][-1].metrics
    first: set[AnyPlan] = {x.plan for x in order[:FIRST]} | {always}
    rest = [x for x in found if x.plan not in first]
    far = {x.plan: behind for x in rest if (behind := goal.behind(x.metrics, last)) > BEHIND}
    slow = tuple(x.plan for x in rest if x.metrics.saturated and not last.saturated and x.plan not in far)
    words = "{:.3g} times worse than the tenth plan on {:,} requests"
    hopeless = tuple(Rejected(RULE, words.format(behind, WINDOW), plan.shorthand) for plan, behind in far.items())
    return Screened(tuple(x.plan for x in found if x.plan not in far and x.plan not in slow), slow, hopeless)


def keep_up(found: Sequence[Assessed]) -> bool:
    """Whether the first ten plans keep up with the whole trace."""
    order = sorted(found, key=lambda x: x.key)[:FIRST]
    return len(order) == FIRST and not any(x.metrics.saturated for x in order)
