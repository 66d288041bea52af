"""A fleet over time as blocks of a page in the browser (floor 6)."""

from __future__ import annotations

import math

from apexsim.api import defaults
from apexsim.report import fleetpage, sharedpage
from apexsim.report.again import again
from apexsim.report.apart import launched
from apexsim.report.blocks import Chart, ChartSeries, Code, Page, PageTable, Rows, Section, TableCell
from apexsim.report.draw import UNKNOWN, percent, sig
from apexsim.report.webstudy import FOOT
from apexsim.search.fleet import Course, Fleet
from apexsim.search.together import SharedFleet
from apexsim.units import format_seconds

HEADS = ("policy", "replicas", "peak", "GPU-hours", "$ per day", "kWh per day", "within limits", "late requests")


def page_of_fleet(found: Fleet) -> Page:
    """The whole report of a fleet."""
    started = launched(found.unit.setting, found.unit.plan)
    rows = [_row(found, course) for course in found.courses]
    table = PageTable(HEADS, ["left", *["right"] * 7], rows, legend=[(c.policy, fleetpage.DOES[c.policy]) for c in found.courses])
    repeat = again("fleet", {"model": found.model, **found.inputs}, defaults())
    sections = [
        Section("policies", "What following the load costs and misses", [table]),
        Section("time", "Over time", _charts(found)),
        Section("launch", "Launch each replica", [Code(started.script or "it cannot be started with this engine", started.notes)]),
        Section("notes", "What it rests on", [Rows([("note", note) for note in fleetpage.notes(found)])]),
        Section("again", "The command that repeats it", [Rows([("again", repeat)])]),
    ]
    title = f"{found.model}: {len(found.intervals):,} intervals of {format_seconds(found.asked.every)}"
    return Page(title, fleetpage.sentences(found), sections, FOOT, {})


def _row(found: Fleet, course: Course) -> list[TableCell]:
    mean, hours, peak = float(course.paid.mean()), found.gpu_hours(course), int(course.paid.max())
    rent, energy, kept = found.dollars(course) / found.days, found.kwh(course) / found.days, float(course.kept.mean())
    told = [(f"{mean:.1f}", mean), (f"{peak}", float(peak)), (fleetpage.hours_of(hours), hours), (_number(rent), rent),
            (_number(energy), energy), (percent(kept), kept), (percent(course.late), course.late)]  # fmt: skip
    return [TableCell(course.policy), *(TableCell(text, value) for text, value in told)]


def _number(value: float) -> str:
    return sig(value) if math.isfinite(value) else UNKNOWN


def _charts(found: Fleet) -> list[Chart]:
    hours = [i.begin / 3600.0 for i in found.intervals]
    rate = [i.requests / found.asked.every for i in found.intervals]
    serving = [ChartSeries(c.policy, hours, c.serving.tolist(), line=True) for c in found.courses]
    return [Chart("Requests", "time [h]", "requests/s", [ChartSeries("requests", hours, rate, line=True)]),
            Chart("Replicas that serve", "time [h]", "replicas", serving)]  # fmt: skip


def page_of_shared(found: SharedFleet) -> Page:
    """The whole report of several models on one cluster."""
    models = PageTable(
        sharedpage.MODEL_HEADS, ["left", "left", *["right"] * 5], [_cells(sharedpage.model_row(found, one)) for one in found.tenants]
    )
    policies = PageTable(
        sharedpage.HEADS,
        ["left", *["right"] * 7],
        [_cells(sharedpage.policy_row(found, at)) for at in range(len(found.policies))],
        legend=[(name, fleetpage.DOES[name]) for name in found.policies],
    )
    late = PageTable(
        ("policy", *(one.ask.name for one in found.tenants)),
        ["left", *["right"] * len(found.tenants)],
        [_cells((name, *(percent(one.courses[at].late) for one in found.tenants))) for at, name in enumerate(found.policies)],
    )
    sections = [
        Section("models", "What each model needs", [models]),
        Section("policies", "GPUs of all models together", [policies]),
        Section("late", "Share of requests in intervals that miss the limits", [late]),
        Section("time", "Over time", _charts_of_shared(found)),
        Section("notes", "What it rests on", [Rows([("note", note) for note in sharedpage.notes(found)])]),
    ]
    return Page(sharedpage.title(found), sharedpage.sentences(found), sections, FOOT, {})


def _cells(row: tuple[str, ...]) -> list[TableCell]:
    return [TableCell(text) for text in row]


def _charts_of_shared(found: SharedFleet) -> list[Chart]:
    hours = [(found.begin + t * found.every) / 3600.0 for t in range(found.count)]
    series = [ChartSeries(one.ask.name, hours, one.need(found.count).tolist(), line=True) for one in found.tenants]
    asked = [ChartSeries(name, hours, found.wanted(at).tolist(), line=True) for at, name in enumerate(found.policies)]
    return [Chart("GPUs that are needed", "time [h]", "GPUs", [*series, ChartSeries("sum", hours, found.need.tolist(), line=True)]),
            Chart("GPUs that all models ask for", "time [h]", "GPUs", asked)]  # fmt: skip
