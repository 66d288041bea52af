"""Charts that several answers have: a Pareto front, curves against the load (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from apexsim.aims import USUAL, Aim, parse_aims
from apexsim.report.blocks import Chart, ChartLine, ChartSeries
from apexsim.report.draw import percent, sig
from apexsim.report.figures import TITLES
from apexsim.search.front import Front, Member
from apexsim.search.study import LoadCurve, LoadPoint
from apexsim.slo import Slo

MOST_NAMES = 14  # labels that stand in a chart
KNEE = "knee"


def front_chart(front: Front, slos: Sequence[Slo], keyed: bool = True) -> Chart:
    """The first two goals of a front: what nothing beats as a line with error bars, the rest as dots."""
    first, second = front.aims[:2]
    risk = f"; at a risk of {percent(front.risk)}" if front.risk else ""
    third = f" The third goal, {front.aims[2].title}, is not drawn." if len(front.aims) > 2 else ""
    members = list(front.members)
    knee = [members[front.knee]] if front.knee >= 0 else []
    series = [
        _points("on the front", members, keyed, line=len(front.aims) == 2, named=len(members) <= MOST_NAMES),
        _points(f"{len(front.others)} beaten", front.others, keyed, faint=True) if front.others else None,
        _points(KNEE, knee, keyed) if knee else None,
    ]
    note = (
        f"{front.out} more miss a limit or do not keep up. Bars: two of three real runs{risk}.{third}"
        if front.out
        else (f"Bars: two of three real runs{risk}.{third}")
    )
    lines = [line for slo in slos for axis, aim in (("x", first), ("y", second)) if (line := limit_line(slo, aim, axis))]
    title = f"{second.title.partition(' [')[0]} against {first.title.partition(' [')[0]}"
    return Chart(title, first.title, second.title, [s for s in series if s], lines, zero=False, note=note)


def _points(name: str, members: Sequence[Member], keyed: bool, line: bool = False, faint: bool = False, named: bool = False) -> ChartSeries:
    (x, x_low, x_high), (y, low, high) = ([[getattr(m, what)[i] for m in members] for what in ("values", "low", "high")] for i in (0, 1))
    made = ChartSeries(
        name,
        x,
        y,
        line,
        faint,
        labels=[m.candidate.name for m in members],
        named=named,
        keys=[m.candidate.run.plan.shorthand if keyed else "" for m in members],
    )
    return made if faint or name == KNEE else replace(made, low=low, high=high, x_low=x_low, x_high=x_high)


def limit_line(slo: Slo, aim: Aim, axis: str) -> ChartLine | None:
    """Where a limit lies on a goal's axis; nothing on the axis of another."""
    if slo.kind or not slo.stat or slo.stat != aim.stat:
        return None
    if slo.metric == aim.name:
        return ChartLine(axis, 1e3 * slo.limit_s, str(slo))
    return ChartLine(axis, 1.0 / slo.limit_s, str(slo)) if slo.metric == "tpot" and aim.name == "tok/s/user" else None


def curve_charts(curves: Sequence[LoadCurve], slos: Sequence[Slo]) -> list[Chart]:
    """TTFT, TPOT and what is served against the load, with the first curve's knee and the limits."""
    if not any(len(curve.loads) > 1 for curve in curves):
        return []
    x = "users" if curves[0].closed else "requests/s"
    lines = knee_lines(curves[0])
    made = []
    for metric in ("ttft", "tpot"):
        limits = [
            ChartLine("y", 1e3 * slo.limit_s, str(slo)) for slo in slos if slo.metric == metric and slo.stat == "p95" and not slo.kind
        ]
        series = [
            _curve(curve, [1e3 * getattr(each, metric) for each in curve.loads], curve.half.get(metric, 0.0) * (not i))
            for i, curve in enumerate(curves)
        ]
        made.append(
            Chart(
                f"{TITLES[metric]} p95 against the load",
                x,
                f"{TITLES[metric]} p95 [ms]",
                series,
                [*lines, *limits],
                log_x=curves[0].closed,
                log_y=_wide(series),
            )
        )
    good = any(math.isfinite(each.goodput) for curve in curves for each in curve.loads)
    served = [_curve(curve, [each.goodput if good else each.served for each in curve.loads], 0.0) for curve in curves]
    title = "Goodput" if good else "Served"
    note = "Knee: the load of most served requests/s over the mean time that a request stays. Band: two of three real runs of the first."
    made.append(Chart(f"{title} against the load", x, f"{title.lower()} [requests/s]", served, lines, curves[0].closed, note=note))
    pace, per_gpu = parse_aims(USUAL)
    limits = [line for slo in slos if (line := limit_line(slo, pace, "x"))]
    title = "Total throughput per GPU against interactivity, load by load"
    return [*made, Chart(title, pace.title, per_gpu.title, list(map(_along, curves)), limits)]


def knee_lines(curve: LoadCurve) -> list[ChartLine]:
    """Where a curve bends."""
    if curve.knee < 0:
        return []
    load = curve.loads[curve.knee].load
    return [ChartLine("x", load, f"knee {curve.label} {sig(load)}")]


def _curve(curve: LoadCurve, values: Sequence[float], half: float) -> ChartSeries:
    """A line; with a band where it is drawn for its error."""
    ends = [[v * factor for v in values] if half else [] for factor in (math.exp(-half), math.exp(half))]
    return ChartSeries(
        curve.label,
        [each.load for each in curve.loads],
        values,
        line=True,
        low=ends[0],
        high=ends[1],
        band=bool(half),
        labels=[_label(curve, each) for each in curve.loads],
    )


def _along(curve: LoadCurve) -> ChartSeries:
    """A curve over InferenceX's axes, load by load."""
    loads = [each for each in curve.loads if not each.saturated and math.isfinite(each.pace)]
    unit = "users" if curve.closed else "requests/s"
    return ChartSeries(
        curve.label,
        [each.pace for each in loads],
        [each.per_gpu for each in loads],
        line=True,
        labels=[f"{curve.label} at {sig(each.load)} {unit}" for each in loads],
    )


def _label(curve: LoadCurve, load: LoadPoint) -> str:
    state = "does not keep up" if load.saturated else "" if load.keeps else "misses a limit"
    return f"{curve.label}{f': {state}' if state else ''}"


def _wide(series: Sequence[ChartSeries]) -> bool:
    """Whether values span more than a factor of ten."""
    values = [v for one in series for v in one.y if v > 0 and math.isfinite(v)]
    return bool(values) and max(values) > 10 * min(values)
