"""The result record: everything that renderers see (floor 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from apexsim.cost.account import Account
from apexsim.engine.kernel import Outcome
from apexsim.errors import Rejected
from apexsim.metrics import Metrics
from apexsim.plan.lower import StageOps
from apexsim.plan.memory import Room
from apexsim.plan.plan import Plan
from apexsim.search.evaluate import Setting

FORMAT = "apexsim.study/1"


@dataclass(frozen=True, slots=True)
class Ranked:
    """One simulated plan with what it means."""

    plan: Plan
    room: Room
    stages: tuple[StageOps, ...]
    outcome: Outcome  # without its histograms
    metrics: Metrics
    account: Account
    value: float  # of the objective, in its own unit
    ratio: float  # how many times better than the heuristic plan (> 1 is better); NaN when that one is missing
    keeps: bool  # meets every constraint
    tie: bool  # within the error bars of the best


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the funnel: what happened to how many plans, with one example."""

    name: str
    count: int
    example: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """A question and its answer."""

    setting: Setting
    objective: str
    slos: tuple[str, ...]
    funnel: tuple[Step, ...]
    ranked: tuple[Ranked, ...]
    rejected: tuple[Rejected, ...]
    heuristic: str
    heuristic_note: str
    error: tuple[float, float]  # relative half-width of the objective's error bar, and of a comparison of two plans
    notes: tuple[str, ...]
    inputs: dict[str, Any] = field(default_factory=dict)
    power_cap: float = math.inf  # mean power that a GPU may draw [W]
    interrupted: tuple[int, int] | None = None  # plans looked at, of how many, where the user stopped the search


class Interrupted(KeyboardInterrupt):
    """The user stopped a search; `study` ranks the plans that were done by then."""

    def __init__(self, study: Study) -> None:
        self.study = study
        super().__init__("after {} of {} plans".format(*(study.interrupted or ())))
