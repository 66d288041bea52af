"""What counts in a search (floor 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from apexsim.aims import Aim
from apexsim.metrics import Metrics
from apexsim.objective import Doubts, Margin, Objective, margins, rank_key
from apexsim.slo import Slo

Key = tuple[float, bool, float, str]  # limits missed, overload, objective, shorthand


@dataclass(frozen=True, slots=True)
class Goal:
    """An objective, and limits that requests or percentiles must keep."""

    objective: Objective
    slos: tuple[Slo, ...] = ()
    power_cap: float = math.inf  # mean power of a GPU [W]
    risk: float = 0.0  # chance of missing a limit that is allowed; 0: the median decides
    aims: tuple[Aim, ...] = ()  # of a Pareto front, where one is asked for

    @property
    def limited(self) -> bool:
        """Whether there are limits on the run."""
        return math.isfinite(self.power_cap) or any(not slo.per_request for slo in self.slos)

    def key(self, metrics: Metrics, limits: tuple[Margin, ...], shorthand: str) -> Key:
        """Sorts plans, best first (`objective.rank_key`)."""
        return rank_key(metrics, self.objective, limits, shorthand)

    def limits(self, metrics: Metrics, doubts: Doubts) -> tuple[Margin, ...]:
        """Every limit on a run, and how it fares."""
        return margins(metrics, self.slos, self.power_cap, doubts, self.risk)

    def behind(self, metrics: Metrics, other: Metrics) -> float:
        """How many times worse than another run one is; infinite where it reaches nothing."""
        return self.objective.ratio(self.objective.value(other), self.objective.value(metrics))
