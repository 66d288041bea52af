"""What counts in a search (floor 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from apexsim.metrics import Metrics
from apexsim.objective import Margin, Objective, margins, rank_key
from apexsim.slo import Slo

Key = tuple[float, bool, float, str]  # limits missed, overload, objective, shorthand


@dataclass(frozen=True, slots=True)
class Goal:
    """An objective, and limits that requests or percentiles must keep."""

    objective: Objective
    slos: tuple[Slo, ...] = ()
    power_cap: float = math.inf  # mean power of a GPU [W]

    def key(self, metrics: Metrics, shorthand: str) -> Key:
        """Sorts plans, best first (`objective.rank_key`)."""
        return rank_key(metrics, self.objective, self.slos, shorthand, self.power_cap)

    def limits(self, metrics: Metrics) -> tuple[Margin, ...]:
        """Every limit on a run, and how it fares."""
        return margins(metrics, self.slos, self.power_cap)

    def behind(self, metrics: Metrics, other: Metrics) -> float:
        """How many times worse than another run one is; infinite where it reaches nothing."""
        return self.objective.ratio(self.objective.value(other), self.objective.value(metrics))
