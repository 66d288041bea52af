"""How a fleet follows its load: how many replicas are asked for in each interval, and how many are there (floor 5).

A policy sees what was needed in the intervals before, never in the one that begins; a timetable alone is drawn up from the whole trace.
A replica takes `lag` intervals from being asked for to serving, and is paid for from the first of them: what serves in an interval
is the least that was asked for in it and the `lag` before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
DAY = 86_400.0  # s
NEAR = 0.1  # of a replica that is not asked for: a tenth more requests than one serves is within what its limits leave
SWING = (0.5, 2.0)  # today may be so many times yesterday, as the last interval says, where tomorrow is foretold


@dataclass(frozen=True, slots=True)
class ScalingRule:
    """lag: intervals until a replica serves; hold: intervals for which one is kept that is no longer needed; day: intervals of a day;
    load: [T] requests that came in each interval."""

    lag: int
    hold: int
    day: int
    load: Counts

    def grown(self, t: int, before: int) -> float:
        """How many times as many requests came in an interval as in another, within `SWING`."""
        return float(np.clip(max(self.load[t], 1) / max(self.load[before], 1), *SWING))

    def ready(self, asked: Counts) -> Counts:
        """Replicas that serve in each interval [T], of those that are asked for and paid [T]; the first ones were started in time."""
        padded = np.concatenate((np.full(self.lag, asked[0]), asked))
        return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, self.lag + 1).min(axis=1), np.int64)


def fixed(need: Counts, rule: ScalingRule) -> Counts:
    """The peak, always."""
    return np.full_like(need, need.max())


def instant(need: Counts, rule: ScalingRule) -> Counts:
    """What each interval needs, as if replicas came and went at once: nothing keeps the limits with less."""
    return need.copy()


def reactive(need: Counts, rule: ScalingRule) -> Counts:
    """The most that was needed in the last `hold` intervals; the first one's need is known."""
    return _following(need, rule, lambda t: int(need[max(0, t - 1)]))


def predictive(need: Counts, rule: ScalingRule) -> Counts:
    """What is foretold up to the moment at which a replica that is asked for now serves: the same time yesterday, times how today compares
    with it so far; on the first day the line through the last two intervals.

    A need is a whole number and may have room: requests grow by half and one replica still serves them.  So no more are asked for than
    serve what is foretold at the most requests that one has been seen to serve."""
    most = np.maximum.accumulate(rule.load / np.maximum(need, 1))  # requests of an interval, by a replica

    def grown(x: int, times: float, t: int) -> int:
        by_need = times * float(need[x])
        by_load = times * float(rule.load[x]) / most[t - 1] if most[t - 1] > 0 else by_need
        return ceil(min(by_need, by_load) - NEAR)

    def told(t: int) -> int:
        if t == 0:
            return int(need[0])
        if t - 1 < rule.day:
            growth = 1.0 + (rule.grown(t - 1, max(0, t - 2)) - 1.0) * (rule.lag + 1)
            return max(int(need[t - 1]), grown(t - 1, max(1.0, growth), t))
        swing, ahead = rule.grown(t - 1, t - 1 - rule.day), range(t, t + rule.lag + 1)
        return max(grown(min(x, t - 1 + rule.day) - rule.day, swing, t) for x in ahead)

    return _following(need, rule, told)


def scheduled(need: Counts, rule: ScalingRule) -> Counts:
    """A timetable of a day, drawn up from this trace: the most that was needed at each time of day, asked for in time."""
    by_time = [int(need[at :: rule.day].max()) for at in range(min(rule.day, len(need)))]
    table = np.array([by_time[min(t % rule.day, len(by_time) - 1)] for t in range(len(need) + rule.lag)], np.int64)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(table, rule.lag + 1).max(axis=1), np.int64)


POLICIES: dict[str, Callable[[Counts, ScalingRule], Counts]] = {
    "instant": instant,
    "reactive": reactive,
    "predictive": predictive,
    "scheduled": scheduled,
    "fixed": fixed,
}


def _following(need: Counts, rule: ScalingRule, told: Callable[[int], int]) -> Counts:
    """What is told of each interval, or, where that is less, the most that was told in the last `hold`."""
    every = [max(1, told(t)) for t in range(len(need))]
    return np.array([max(every[max(0, t - rule.hold) : t + 1]) for t in range(len(need))], np.int64)
