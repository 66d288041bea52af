"""Charts as a picture in a file, by matplotlib (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from apexsim.errors import InputError, shown
from apexsim.report.blocks import Chart, ChartSeries, Page
from apexsim.report.picture import figure, picture, titled

WANTED = ("pareto", "load")  # sections of a page whose charts are drawn
MOST, WIDE, HIGH = 5, 6.4, 4.2  # charts; inches of one
# Okabe and Ito, "Color universal design", 2008: told apart by everyone
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
FAINT = "#8a939d"


def drawn(page: Page, path: str) -> bytes:
    """What the file holds: the front and the curves of a page; raises InputError where there are none."""
    charts = [block for section in page.sections if section.anchor in WANTED for block in section.blocks if isinstance(block, Chart)][:MOST]
    charts = [chart for chart in charts if any(_finite(one) for one in chart.series)]
    if not charts:
        raise InputError("there is nothing to draw: neither plans to compare nor loads", "--plot", "ask with apexsim plan")
    across = min(2, len(charts))
    rows = math.ceil(len(charts) / across)
    made = figure(path, (WIDE * across, HIGH * rows))
    for i, chart in enumerate(charts):
        _chart(made.add_subplot(rows, across, i + 1), chart)
    titled(made, page.title)
    return picture(made, path)


def _finite(series: ChartSeries) -> list[int]:
    """Places of the points that can be drawn."""
    return [i for i, (x, y) in enumerate(zip(series.x, series.y)) if math.isfinite(x) and math.isfinite(y)]


def _chart(axes: Any, chart: Chart) -> None:
    for i, series in enumerate(chart.series):
        _series(axes, series, FAINT if series.faint else COLOURS[i % len(COLOURS)])
    for line in chart.lines:
        (axes.axvline if line.axis == "x" else axes.axhline)(line.at, color="#b3541e", lw=0.9, ls="--", label=shown(line.text))
    if chart.log_x:
        axes.set_xscale("log")
    if chart.log_y:
        axes.set_yscale("log")
    elif chart.zero:
        axes.set_ylim(bottom=0)
    for what, text in ((axes.set_xlabel, chart.x), (axes.set_ylabel, chart.y), (axes.set_title, chart.title)):
        what(shown(text), parse_math=False, fontsize=9)
    axes.grid(alpha=0.3)
    for text in axes.legend(fontsize=7, frameon=False).get_texts():
        text.set_parse_math(False)


def _series(axes: Any, series: ChartSeries, colour: str) -> None:
    at = _finite(series)
    x, y = [series.x[i] for i in at], [series.y[i] for i in at]
    label = shown(series.name).lstrip("_") or " "
    if series.band:
        axes.fill_between(x, [series.low[i] for i in at], [series.high[i] for i in at], color=colour, alpha=0.13, lw=0)
    elif series.low:
        axes.errorbar(
            x,
            y,
            _ends(series.low, y, series.high, at),
            _ends(series.x_low, x, series.x_high, at),
            fmt="none",
            ecolor=colour,
            alpha=0.35,
            lw=1,
        )
    axes.plot(x, y, color=colour, label=label, marker="o", ms=3 if series.faint else 4.5, lw=1.6 if series.line else 0)
    if series.named:
        for i in at:
            axes.annotate(
                shown(series.labels[i]), (series.x[i], series.y[i]), xytext=(4, 4), textcoords="offset points", fontsize=7, parse_math=False
            )


def _ends(low: Sequence[float], middle: Sequence[float], high: Sequence[float], at: Sequence[int]) -> list[list[float]] | None:
    """Lengths of error bars below and above."""
    if not low:
        return None
    return [[m - low[i] for m, i in zip(middle, at)], [high[i] - m for m, i in zip(middle, at)]]
