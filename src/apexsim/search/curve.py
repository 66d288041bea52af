"""Latency and throughput of a plan against its load, and where the curve bends (floor 5).

The knee is the load of most *power*, the rate that is served over the mean time that a request stays (Kleinrock, "Power and deterministic
rules of thumb for probabilistic problems in computer communications", ICC 1979): below it more load costs little latency, above it latency
grows faster than what is served.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apexsim.aims import USUAL, parse_aims
from apexsim.errors import Rejected
from apexsim.plan.split import AnyPlan
from apexsim.search.assess import Assessed, assess
from apexsim.search.error import error_of
from apexsim.search.goal import Goal
from apexsim.search.setting import Setting
from apexsim.search.size import EACH, at_once, at_rate, with_users
from apexsim.search.study import LoadCurve, LoadPoint, Study
from apexsim.search.sweep import LOADS, Sweep, SweepPoint, Value
from apexsim.workload.load import mean_rate, paced
from apexsim.workload.repeat import repeated
from apexsim.workload.trace import Workload

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)  # of what a plan serves of requests that all come at once
LEAST, MOST = 2_048, 16_384  # requests of a run
DRAWN = 3  # plans, beside the heuristic one
DOUBTED = ("ttft", "tpot", "throughput")
BY = {"request_rate": False, "concurrency": True}  # axis of a sweep -> whether its loads are users


@dataclass(frozen=True, slots=True)
class _Range:
    """Loads of a kind and the work under each."""

    closed: bool
    loads: tuple[float, ...]
    base: Workload

    def work(self, load: float) -> Workload:
        """The requests under a load."""
        return with_users(self.base, int(load), self.base.think) if self.closed else at_rate(self.base, load)


def with_curves(study: Study) -> Study:
    """The study with the curves of its first plans and of the heuristic one."""
    runs = [run for i, run in enumerate(study.ranked) if i < DRAWN or run.plan.shorthand == study.heuristic]
    found = (curve_of(study.setting, study.goal, run.plan) for run in runs)
    return replace(study, curves=tuple(curve for curve in found if curve.loads))


def curve_of(setting: Setting, goal: Goal, plan: AnyPlan, most: float = 0.0, label: str = "") -> LoadCurve:
    """A plan under loads from almost none to more than it can serve, or up to `most` [requests/s or users]."""
    span = _range(setting, goal, plan, most)
    runs = [(load, assess(replace(setting, workload=span.work(load)), goal, plan)) for load in span.loads]
    done = [(load, run) for load, run in runs if isinstance(run, Assessed)]
    half = {name: error_of(name, setting, done[len(done) // 2][1].account) for name in DOUBTED} if done else {}
    return replace(bent(label or plan.shorthand, span.closed, [load_of(load, run) for load, run in done]), half=half)


def _range(setting: Setting, goal: Goal, plan: AnyPlan, most: float) -> _Range:
    work = setting.workload
    part = replace(work.only(np.arange(MOST)), warmup=0) if work.size > MOST else repeated(work, LEAST)
    if work.mode == "closed":
        top = int(most or 4 * work.concurrency)
        users = sorted({n for k in range(40) if (n := round(2 ** (k / 2))) < top} | {top, work.concurrency})
        return _Range(True, tuple(float(n) for n in users if n <= max(1, part.size // EACH)), part)
    run = assess(replace(setting, workload=at_once(part)), replace(goal, slos=()), plan) if not most else None
    if isinstance(run, Rejected):
        return _Range(False, (), part)
    served = most if run is None else run.metrics.request_throughput_per_s
    spread = part if work.mode == "open" and mean_rate(part.arrive) < math.inf else _spaced(part)
    return _Range(False, tuple(share * served for share in SHARES), spread)


def _spaced(work: Workload) -> Workload:
    """Requests that all come at once, coming one after the other (Poisson)."""
    return replace(work, arrive=paced(np.zeros(work.size), 1.0, 0), mode="open")


def load_of(load: float, run: Assessed) -> LoadPoint:
    """What a run tells of a load."""
    m = run.metrics
    pace, per_gpu = (parse_aims(USUAL)[i].value(m) for i in (0, 1))
    return LoadPoint(
        load,
        m.request_throughput_per_s,
        m.goodput_req_s,
        m.latency("ttft", "p95"),
        m.latency("tpot", "p95"),
        m.e2el.mean,
        pace,
        per_gpu,
        run.keeps,
        m.saturated,
    )


def bent(label: str, closed: bool, loads: Sequence[LoadPoint]) -> LoadCurve:
    """A curve and its knee: none of fewer than three loads, nor where power still rises at the last one."""
    power = [each.served / each.e2e if each.e2e > 0 and not each.saturated else 0.0 for each in loads]
    knee = max(range(len(loads)), key=lambda i: (power[i], -i)) if len(loads) >= 3 and max(power) > 0 else -1
    return LoadCurve(label, closed, tuple(loads), -1 if knee == len(loads) - 1 else knee)


def curves_of(sweep: Sweep, words: Callable[[SweepPoint], str]) -> tuple[LoadCurve, ...]:
    """One curve for each combination of a list, of its best plan at each load; none where only one load, or a list of lengths, is asked.

    words: what tells a combination from others."""
    name = next((axis.name for axis in sweep.axes if axis.name in BY and len(axis.values) > 1), "")
    if not name or any(axis.name in LOADS and axis.name not in BY for axis in sweep.axes):
        return ()
    at = next(i for i, axis in enumerate(sweep.axes) if axis.name == name)
    groups: dict[tuple[Value, ...], list[SweepPoint]] = {}
    for point in sweep.points:
        if point.study is not None and math.isfinite(float(point.values[at])):
            groups.setdefault((*point.values[:at], *point.values[at + 1 :]), []).append(point)
    return tuple(bent(words(group[0]), BY[name], _loads(group, at)) for group in groups.values())


def _loads(group: Iterable[SweepPoint], at: int) -> list[LoadPoint]:
    return sorted((load_of(float(p.values[at]), p.first) for p in group), key=lambda each: each.load)
