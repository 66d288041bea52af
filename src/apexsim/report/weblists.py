"""Lists of combinations and questions asked backwards as blocks of a page in the browser (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from apexsim.aims import USUAL, parse_aims
from apexsim.api import defaults
from apexsim.report import sizepage, sweep
from apexsim.report.again import again
from apexsim.report.apart import launched
from apexsim.report.blocks import Bars, Code, Page, PageTable, Rows, Section, TableCell
from apexsim.report.draw import UNKNOWN, sig
from apexsim.report.figures import objective_short
from apexsim.report.intro import understood
from apexsim.report.ranking import HEADROOM, headroom_cell, limit_cell, sure_cell
from apexsim.report.webcharts import curve_charts, front_chart
from apexsim.report.webstudy import FOOT, opened
from apexsim.search.size import Size, SizeAnswer
from apexsim.search.sweep import Sweep, SweepPoint
from apexsim.units import GiB

BARS = 12  # answers with a bar


def page_of_sweep(found: Sweep) -> Page:
    """The whole report of many combinations."""
    best = found.best
    front = sweep.front_of(found, found.goal.aims or parse_aims(USUAL))
    shown = [section for load, group in found.scenarios for section in _scenario(found, load, group)]
    missing = [(sweep.words(found, p), p.why) for p in found.points if p.study is None]
    sections = [
        *([Section("launch", f"Launch {sweep.named(found, best)}", [_code(best)])] if best else []),
        *shown,
        Section("pareto", "What no other combination beats", [front_chart(front, found.goal.slos, keyed=False)]),
        Section("load", "Against the load", curve_charts(sweep.curves(found), found.goal.slos)),
        Section("memory", "Memory of the tightest GPU", [_bars(found)]),
        Section("no room", "What does not fit", [Rows(missing)] if missing else []),
        Section("question", "The best combination as it was understood", [Rows(understood(best.study))] if best and best.study else []),
        Section("again", "The command that repeats it", [Rows([("again", again("plan", _question(found), defaults()))])]),
    ]
    details = {_key(found, p): opened(p.study, p.first) for p in found.points if p.study is not None}
    return Page(f"{found.model}: {sweep.axes_words(found)}", sweep.sentences(found), [s for s in sections if s.blocks], FOOT, details)


def _question(found: Sweep) -> dict[str, Any]:
    """The question with its lists as the command line takes them."""
    listed = {axis.name: ",".join(map(str, axis.values)) for axis in found.axes}
    return {"model": found.model, **found.inputs, **listed}


def _key(found: Sweep, point: SweepPoint) -> str:
    return ", ".join(map(str, point.values))


def _scenario(found: Sweep, load: tuple[Any, ...], group: tuple[SweepPoint, ...]) -> list[Section]:
    title = ", ".join(filter(None, [f"Ranked by {objective_short(found.goal.objective)}", sweep.load_words(found, load)]))
    return [Section(sweep.load_words(found, load) or "ranked", title, [_table(found, group)])] if group else []


def _table(found: Sweep, group: tuple[SweepPoint, ...]) -> PageTable:
    limited = found.goal.limited
    roomy = any(point.first.headroom for point in group)
    heads = ["#", "combination", "plan", objective_short(found.goal.objective), *(["limits", "sure"] if limited else []),
             *([HEADROOM] if roomy else []), "TTFT p95\n[ms]",
             "TPOT p95\n[ms]", "output\ntok/s", "tok/s/GPU\nin + out", "$ per\nhour", "$ per\n1M out", "J per\ntoken"]  # fmt: skip
    sides = ["right", "left", "left", "right", *(["left", "right"] if limited else []), *["right"] * (7 + roomy)]
    legend = [("click", "a row for its launch lines, memory and time")] if group == found.scenarios[0][1] else []
    rows = [_row(found, i, point, limited, roomy) for i, point in enumerate(group)]
    return PageTable(heads, sides, rows, [_key(found, p) for p in group], legend)


def _row(found: Sweep, i: int, point: SweepPoint, limited: bool, roomy: bool) -> list[TableCell]:
    run, m = point.first, point.first.metrics
    kept = [TableCell(limit_cell(run), -run.key[0]), TableCell(sure_cell(run), run.chance)] if limited else []
    kept += [TableCell(headroom_cell(run), run.headroom.times if run.headroom else math.nan)] if roomy else []
    numbers = (1e3 * m.latency("ttft", "p95"), 1e3 * m.latency("tpot", "p95"), m.output_throughput_tok_s,
               m.total_throughput_tok_s / m.devices, Sweep.rent(point), m.usd_per_million, m.energy.per_output_token)  # fmt: skip
    value = TableCell(sweep.value(point, error=i == 0) + " saturated" * m.saturated, run.value)
    return [TableCell(str(i + 1), i + 1.0), TableCell(sweep.words(found, point)), TableCell(run.plan.shorthand), value, *kept,
            *(TableCell(sig(v), v) for v in numbers)]  # fmt: skip


def _code(point: SweepPoint) -> Code:
    assert point.study is not None
    started = launched(point.study.setting, point.first.plan)
    return Code(started.script or "it cannot be started with this engine", started.notes)


def _bars(found: Sweep) -> Bars:
    group = found.scenarios[-1][1][:BARS]
    rows = [
        (sweep.named(found, p), [(name, size / GiB, f"{size / GiB:.1f} GiB") for name, size in p.first.room.ledger if size > 0])
        for p in group
    ]
    return Bars(rows, "Memory of one GPU, in GiB; numbers of the first.")


# ---- the question backwards ---------------------------------------------------------------------------------------------


def _under(found: Size) -> str:
    head, means = sizepage.condition(found)
    return f"{head.capitalize()}: {means}" if head == "at the limit" else f"{head.capitalize()} {means}"


def page_of_size(found: Size) -> Page:
    """The whole report of an answer to a question asked backwards."""
    best = found.best
    heads, rows = sizepage.table(found, found.found)
    launches = [Section("launch", f"Launch {best.plan.shorthand}", [_started(best)])] if best else []
    sections = [
        *launches,
        Section("answers", _under(found), [
            PageTable([head for head, _ in heads], [side for _, side in heads], [[_cell(text) for text in row] for row in rows])
        ] if rows else []),
        Section("load", "Against the load", curve_charts([found.curve] if found.curve else [], found.goal.slos)),
        Section("in vain", "Tried in vain", [Rows([("", told) for told in found.unmet])] if found.unmet else []),
        Section("inputs", "Inputs", [Rows([(name.replace("_", " "), told) for name, each in found.said.items() if (told := _said(each))])]),
        Section("again", "The command that repeats it", [Rows([("again", _again(found))])]),
    ]  # fmt: skip
    title = f"{found.model}: {sizepage.question(found)}"
    return Page(title, sizepage.sentences(found), [s for s in sections if s.blocks], FOOT)


def _said(value: Any) -> str:
    """A value of a question; "" of what says nothing."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_said(each)}" for name, each in value.items())
    return "" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)


def _again(found: Size) -> str:
    """The question as it was asked, as a command line."""
    return again("size", {"model": found.model, **found.said}, defaults())


def _started(one: SizeAnswer) -> Code:
    started = launched(one.setting, one.plan)
    return Code(started.script or "it cannot be started with this engine", started.notes)


def _cell(text: str) -> TableCell:
    """A cell sorted by its number, where it begins with one."""
    head = text.removeprefix("≥ ").split(" ")[0].replace(",", "")
    try:
        value = float(head)
    except ValueError:
        return TableCell(text)
    return TableCell(text, value if text != UNKNOWN and math.isfinite(value) else None)
