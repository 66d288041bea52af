"""The Pareto front of what was simulated: plans of a study, or of every combination of a list (floor 5).

With a risk, the numbers that compete are those that a real run comes to at that risk: every value moved to the bad end of its doubt.
Errors that all plans of one system share move them together, so a front changes where plans are doubted differently: other GPUs, other
engines, kernels that nobody measured.  A plan that misses a limit, or does not keep up with the load, is on no front.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from apexsim.aims import Aim, Values, knee_of, undominated
from apexsim.search.assess import Assessed
from apexsim.search.error import doubt_of
from apexsim.search.setting import Setting
from apexsim.search.study import Study

HALF = 0.84  # the upper end of the 68 % interval


@dataclass(frozen=True, slots=True)
class Candidate:
    """A simulated plan.  label: what tells it from others beside its shorthand, "" in a study."""

    label: str
    setting: Setting
    run: Assessed

    @property
    def name(self) -> str:
        """4 × l40s, vllm TP2; the plan alone in a study."""
        return f"{self.label} {self.run.plan.shorthand}".strip()


@dataclass(frozen=True, slots=True)
class Member:
    """One on the front.  values, low, high: of each aim, in its unit, with its 68 % interval; at: what competes, that is `values`, or with
    a risk their bad ends."""

    candidate: Candidate
    values: Values
    low: Values
    high: Values
    at: Values


@dataclass(frozen=True, slots=True)
class Front:
    """What nothing else beats, by the first aim.  knee: a place in `members`, −1 without a bend; others: beaten members; out: plans that
    miss a limit, do not keep up or have no such number."""

    aims: tuple[Aim, ...]
    risk: float
    members: tuple[Member, ...]
    knee: int
    others: tuple[Member, ...]
    out: int


def front_of(aims: tuple[Aim, ...], risk: float, candidates: Iterable[Candidate]) -> Front:
    """The front of some plans."""
    every = list(candidates)
    able = [member_of(aims, risk, c) for c in every if c.run.keeps and not c.run.metrics.saturated]
    able = [m for m in able if all(map(math.isfinite, m.at))]
    signs = [aim.sign for aim in aims]
    kept = undominated([m.at for m in able], signs)
    members = tuple(sorted((able[i] for i in kept), key=lambda m: (m.at, m.candidate.name)))
    others = tuple(m for i, m in enumerate(able) if i not in set(kept))
    return Front(aims, risk, members, knee_of([m.at for m in members], signs), others, len(every) - len(able))


def member_of(aims: tuple[Aim, ...], risk: float, candidate: Candidate) -> Member:
    """A plan's place."""
    values = tuple(aim.value(candidate.run.metrics) for aim in aims)
    halves = [_factor(aim, candidate, HALF) for aim in aims]
    low, high = (tuple(v * half**way for v, half in zip(values, halves)) for way in (-1, 1))
    at = tuple(v * _factor(aim, candidate, 1.0 - risk) ** aim.sign for v, aim in zip(values, aims)) if risk else values
    return Member(candidate, values, low, high, at)


def _factor(aim: Aim, candidate: Candidate, side: float) -> float:
    """What a value may have to be multiplied with, at a quantile of its doubt, which is as wide one way as the other."""
    if not aim.row.doubt:
        return 1.0
    return math.exp(doubt_of(aim.row.doubt, candidate.setting, candidate.run.account).quantile(side))


def of_study(study: Study, aims: tuple[Aim, ...] | None = None) -> Front:
    """The front of a study's ranked plans."""
    return front_of(aims or study.goal.aims, study.goal.risk, (Candidate("", study.setting, run) for run in study.ranked))


def worth_keeping(study: Study) -> tuple[Assessed, ...]:
    """The plans of a study but its first that a front over many studies may need: those on its own front, without what is kept of
    each request."""
    first = study.ranked[0]
    return tuple(m.candidate.run for m in of_study(study).members if m.candidate.run is not first) if study.goal.aims else ()
