"""A study's numbers as people read them: one unit per latency on the whole page, chosen by its size (floor 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from apexsim.objective import OBJECTIVES, Margin, Objective
from apexsim.report.draw import percent, sig
from apexsim.search.assess import Assessed
from apexsim.search.study import Study
from apexsim.slo import LATENCIES

LOOKED_AT = 10  # plans whose means decide a unit
SCALES = ((10.0, 1e3, "ms"), (600.0, 1.0, "s"), (math.inf, 1.0 / 60.0, "min"))  # below so many seconds: per second, unit
TITLES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E", "queue": "time in the queue"}
WORDS = {
    "ttft": "time to first token (TTFT)",
    "tpot": "time per output token (TPOT)",
    "itl": "inter-token latency (ITL)",
    "e2e": "end-to-end latency (E2E)",
    "queue": "time in the queue",
    "throughput": "output throughput",
    "goodput": "goodput",
    "energy": "GPU energy per output token",
    "cost": "rent per million output tokens",
    "wall-energy": "energy at the wall per output token",
}


@dataclass(frozen=True, slots=True)
class Scale:
    """A unit of time and how many of it are a second."""

    factor: float
    unit: str

    def bare(self, seconds: float, digits: int = 3) -> str:
        """The number alone."""
        return sig(seconds * self.factor, digits)

    def __call__(self, seconds: float, digits: int = 3) -> str:
        """The number with its unit."""
        return f"{self.bare(seconds, digits)} {self.unit}" if math.isfinite(seconds) else self.bare(seconds)


def scale_for(seconds: float) -> Scale:
    """ms below 10 s, then s, from 10 minutes on min."""
    return next(Scale(factor, unit) for most, factor, unit in SCALES if seconds < most or most == math.inf)


def unit_for(objective: Objective, seconds: float) -> Scale:
    """The unit of an objective on a page; of a latency that of `seconds`."""
    row = OBJECTIVES[objective.name]
    return scale_for(seconds) if objective.name in LATENCIES else Scale(row.scale, row.unit)


def with_error(value: float, scale: Scale, error: float) -> str:
    """A value in SI units with its unit, and with its error bar where a relative error is given."""
    return f"{bare_with_error(value, scale, error)} {scale.unit}"


def bare_with_error(value: float, scale: Scale, error: float) -> str:
    """The same without its unit, for a table that has it in its head."""
    value *= scale.factor
    return f"{sig(value)}{f' ± {sig(value * error, 2)}' if error else ''}"


def scale_of(study: Study, metric: str) -> Scale:
    """The unit of a latency on the study's page: that of the largest mean among the first plans that keep up."""
    first = study.ranked[:LOOKED_AT]
    means = [r.metrics.latency(metric) for r in first if r is first[0] or not r.metrics.saturated]
    return scale_for(max((x for x in means if math.isfinite(x)), default=0.0))


def objective_words(objective: Objective) -> str:
    """The objective in words: mean end-to-end latency (E2E)."""
    return f"{objective.stat} {WORDS[objective.name]}".strip()


def objective_short(objective: Objective) -> str:
    """The objective in few words: mean E2E."""
    return f"{objective.stat} {TITLES.get(objective.name, WORDS[objective.name])}".strip()


def reached(study: Study, ranked: Assessed, error: bool = False) -> str:
    """What a plan reaches of the objective, with its unit and with its error bar."""
    objective = study.goal.objective
    scale = scale_of(study, objective.name) if objective.name in LATENCIES else unit_for(objective, ranked.value)
    return with_error(ranked.value, scale, study.error[0] if error else 0.0)


def held(study: Study, margin: Margin) -> str:
    """What was measured of what is allowed: TTFT p95 265 of 1,000 ms."""
    if margin.metric == "power":
        return f"power {sig(margin.measured)} of {sig(margin.limit)} W per GPU"
    scale = scale_of(study, margin.metric)
    of = f"{margin.kind} " if margin.kind else ""
    return f"{of}{TITLES[margin.metric]} {margin.stat} {scale.bare(margin.measured)} of {margin.limit * scale.factor:,.6g} {scale.unit}"


def left(margin: Margin) -> str:
    """The margin: 78% below, or 6.3 times the limit; with a risk that is allowed, what too few real runs keep."""
    if margin.kept:
        return f"{percent(margin.share)} to spare"
    if margin.share >= 0.0:
        return f"{percent(margin.chance)} of real runs keep it, {percent(1.0 - margin.risk)} are to"
    times = margin.measured / margin.limit
    return f"{sig(times, 2)} times the limit" if times >= 1.1 else f"{percent(-margin.share)} over"


def listed(words: list[str] | tuple[str, ...], joint: str = "and") -> str:
    """a, b and c."""
    return f" {joint} ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def sentence(text: str) -> str:
    """Words with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."
