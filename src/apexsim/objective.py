"""What the user wants, and the order it puts plans in (floor 4).

    objective := name [":" stat]          e2e | ttft:p99 | itl:p95 | throughput | goodput | energy …      default e2e (mean)

A new objective is one row of `OBJECTIVES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from apexsim.data_files import table
from apexsim.doubt import CERTAIN, Doubt, both
from apexsim.errors import InputError, nearest
from apexsim.metrics import Metrics
from apexsim.slo import LATENCIES, STATS, Slo, canonical

DEFAULT = "e2e"
ALIKE = {  # what goes wrong together
    "ttft": "first token", "queue": "first token", "tpot": "pace", "itl": "pace", "e2e": "pace", "power": "power",
}  # fmt: skip
HALVINGS = 30  # of a factor of two
FARTHEST = 1e30  # times a limit: no risk is as small
LOWER, HIGHER = 1, -1  # sign: the smaller sign · value, the better


@dataclass(frozen=True, slots=True)
class ObjectiveKind:
    """One kind of objective: how to read it from Metrics (SI), which way is better, and how people read it."""

    get: Callable[[Metrics, str], float]
    sign: int
    unit: str  # of `scale` · value
    scale: float = 1.0
    stats: bool = False  # is it a distribution, so that a statistic may be named?
    needs_slo: bool = False  # means nothing without a per-request SLO


def _latency(name: str, metrics: Metrics, stat: str) -> float:
    return metrics.latency(name, stat)


OBJECTIVES = {name: ObjectiveKind(partial(_latency, name), LOWER, "ms", 1e3, stats=True) for name in LATENCIES} | {
    "throughput": ObjectiveKind(lambda metrics, _stat: metrics.output_throughput_tok_s, HIGHER, "tok/s"),  # output tokens
    "goodput": ObjectiveKind(lambda metrics, _stat: metrics.goodput_req_s, HIGHER, "req/s", needs_slo=True),
    "energy": ObjectiveKind(lambda metrics, _stat: metrics.energy.per_output_token, LOWER, "J/output token"),  # of GPUs
    "cost": ObjectiveKind(lambda metrics, _stat: metrics.usd_per_million, LOWER, "$/1M output tokens"),
    "wall-energy": ObjectiveKind(lambda metrics, _stat: metrics.energy.wall_per_output_token, LOWER, "J/output token"),  # of servers
}


@dataclass(frozen=True, slots=True)
class Objective:
    """A number to make small (sign 1) or large (sign −1).  `stat` is "" where there is no distribution."""

    name: str
    stat: str
    sign: int

    @property
    def better(self) -> str:
        """Which way is better: "lower" or "higher"."""
        return "lower" if self.sign == LOWER else "higher"

    def value(self, metrics: Metrics) -> float:
        """The number, in SI units; raises InputError where the workload has none (e.g. TPOT of one-token outputs)."""
        value = OBJECTIVES[self.name].get(metrics, self.stat)
        if value != value:
            raise InputError(f"'{self}' cannot be computed", "--objective", _why_missing(self.name))
        return value

    def ratio(self, value: float, base: float) -> float:
        """How many times better `value` is than `base` (> 1: better); NaN where the base is."""
        good, bad = (base, value) if self.sign == LOWER else (value, base)
        return 1.0 if good == bad else good / bad if bad else math.inf

    def __str__(self) -> str:
        return f"{self.name}:{self.stat}" if self.stat else self.name


def _why_missing(name: str) -> str:
    if OBJECTIVES[name].needs_slo:
        return "give a limit for each request, e.g. --goodput ttft:500"
    if name == "cost":
        return "the GPU's price is unknown: give --price"
    if name.endswith("energy"):
        return "the GPU's power limit is unknown: give a GPU file with tdp_w"
    return "no request has more than one output token"


def parse_objective(text: str = DEFAULT, slos: Sequence[Slo] = (), where: str = "--objective") -> Objective:
    """The objective that `text` names (mean where a distribution has no statistic); `slos` are those of the run."""
    head, colon, tail = text.partition(":")
    name, stat = canonical(head), canonical(tail)
    if name not in OBJECTIVES:
        raise InputError(f"unknown objective '{head.strip()}'", where, nearest(name, OBJECTIVES))
    row = OBJECTIVES[name]
    if colon and not row.stats:
        raise InputError(f"{name} is one number of a run, '{text}' asks for a statistic", where, f"write {name}")
    if colon and stat not in STATS:
        raise InputError(f"unknown statistic '{tail.strip()}' in '{text}'", where, f"known: {', '.join(STATS)}")
    if row.needs_slo and not any(slo.per_request for slo in slos):
        raise InputError(f"{name} counts requests that meet their SLOs, and none is given", where, _why_missing(name))
    return Objective(name, (stat or "mean") if row.stats else "", row.sign)


@dataclass(frozen=True, slots=True)
class Margin:
    """How one limit of a run fared.  limit, measured and reach in SI units: s, or W of each GPU."""

    name: str  # of the limit, as people type it
    metric: str  # one of `slo.LATENCIES`, or "power"
    stat: str
    limit: float
    measured: float  # in the simulated run
    reach: float  # what a real run may come to at the risk allowed: the measured value where the median decides
    chance: float  # that a real run keeps the limit
    kind: str = ""  # class of requests; "" all
    doubt: Doubt = CERTAIN
    risk: float = 0.0  # of missing any of the limits that is allowed

    @property
    def share(self) -> float:
        """What is left of the limit as a share of it; below 0 where it is missed.  A statistic of nothing keeps all of it."""
        return 1.0 if math.isnan(self.measured) else 1.0 - self.measured / self.limit

    @property
    def kept(self) -> bool:
        """Is it kept, whatever becomes of other limits?"""
        return not self.reach > self.limit

    def within(self, factor: float) -> float:
        """The chance that a real run keeps so many times the limit."""
        return self.doubt.chance(math.log(self.limit * factor / self.measured)) if self.measured > 0.0 else 1.0


Doubts = Callable[[str], Doubt]  # of a metric


def certain(_metric: str) -> Doubt:
    """No doubt: a measured run."""
    return CERTAIN


def margins(
    metrics: Metrics, constraints: Sequence[Slo], power_cap: float = math.inf, doubts: Doubts = certain, risk: float = 0.0
) -> tuple[Margin, ...]:
    """Every limit on a run: SLOs with a statistic, and the power of a GPU; per-request SLOs constrain nothing.

    risk: the chance of missing any of them that is allowed; 0 lets the median decide."""
    asked = [(s.kind, (str(s), s.metric, s.stat, s.limit_s, metrics.of(s))) for s in constraints if s.stat]
    if math.isfinite(power_cap):
        asked.append(("", (f"power-cap={power_cap:.12g}W", "power", "mean", power_cap, metrics.energy.watts)))
    return tuple(replace(_margin(*one, doubts(one[1]), risk), kind=kind) for kind, one in asked)


def _margin(name: str, metric: str, stat: str, limit: float, measured: float, doubt: Doubt, risk: float) -> Margin:
    if not measured > 0.0:  # nothing to measure, or no wait at all
        return Margin(name, metric, stat, limit, measured, measured, 1.0)
    reach = measured * math.exp(doubt.quantile(1.0 - risk)) if risk else measured
    return Margin(name, metric, stat, limit, measured, reach, doubt.chance(math.log(limit / measured)), doubt=doubt, risk=risk)


def correlation() -> float:
    """Between the errors of first tokens and of the pace after them (scripts/certainty.py)."""
    return float(table("certainty.toml")["together"]["correlation"])


def chance_of(limits: Sequence[Margin], factor: float = 1.0) -> float:
    """The chance that a real run keeps so many times every limit at once.

    What is wrong with one latency of a kind (`ALIKE`) is wrong with the others, so the least likely of a kind decides.  First tokens and
    the pace after them go wrong together as `correlation` says, power by itself."""
    least = dict.fromkeys(ALIKE.values(), 1.0)
    for m in limits:
        least[ALIKE[m.metric]] = min(least[ALIKE[m.metric]], m.within(factor))
    return both(least["first token"], least["pace"], correlation()) * least["power"]


def overrun(limits: Sequence[Margin]) -> float:
    """How many times over its limit the worst of them is; 0 where all are kept.

    With a risk, all together must be kept often enough: else it is how many times as much they would have to allow."""
    alone, risk = max((m.reach / m.limit for m in limits if not m.kept), default=0.0), max((m.risk for m in limits), default=0.0)
    if not risk or len({ALIKE[m.metric] for m in limits}) < 2 or chance_of(limits) >= 1.0 - risk:
        return alone
    low, high = max(alone, 1.0), 2.0 * max(alone, 1.0)
    while chance_of(limits, high) < 1.0 - risk and high < FARTHEST:
        low, high = high, 2.0 * high
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if chance_of(limits, middle) < 1.0 - risk else (low, middle)
    return high


def rank_key(metrics: Metrics, objective: Objective, limits: Sequence[Margin] = (), shorthand: str = "") -> tuple[float, bool, float, str]:
    """Sorts plans, best first: those that keep every limit (0.0), the others by how far they miss; those that keep up with the
    load; then by the objective; ties in the order of their shorthand."""
    return overrun(limits), metrics.saturated, objective.sign * objective.value(metrics), shorthand
