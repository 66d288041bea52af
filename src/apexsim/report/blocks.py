"""What a page of the browser is made of: a few kinds of blocks, which know words and numbers and no HTML (floor 6).

An answer becomes blocks (`report.webstudy`, `report.weblists`), blocks become a file (`report.html`) or a picture (`report.plot`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled lines."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class TableCell:
    """A cell of a table: what is shown, and what it is sorted by where that is not the text itself."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table that can be sorted and filtered.  sides: "left" or "right"; keys: the detail that a click on a row opens, "" for none."""

    heads: Sequence[str]
    sides: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    keys: Sequence[str] = ()
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class ChartSeries:
    """Points of a chart, or a line through them.  low, high: ends of error bars in y, x_low, x_high in x; band: they are drawn as a band
    around the line; labels, keys: of each point."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    line: bool = False
    faint: bool = False  # drawn without a colour of its own
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    x_low: Sequence[float] = ()
    x_high: Sequence[float] = ()
    labels: Sequence[str] = ()
    keys: Sequence[str] = ()
    band: bool = False
    named: bool = False  # labels stand in the chart, not only under the pointer


@dataclass(frozen=True, slots=True)
class ChartLine:
    """A straight line across a chart with words: a limit, a knee.  axis: "x" or "y", the one that it is a value of."""

    axis: str
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of series.  x, y: titles with units; log_x, log_y: equal ratios are equally long; up: bars from 0."""

    title: str
    x: str
    y: str
    series: Sequence[ChartSeries]
    lines: Sequence[ChartLine] = ()
    log_x: bool = False
    log_y: bool = False
    zero: bool = True  # the y axis begins at 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """A cell of a heat map.  share: 0 (worst) to 1 (best) of what fits; NaN: it does not, and `why` says so; key: of its detail."""

    text: str
    share: float
    why: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Heat:
    """A heat map: a tile for each row and column, None where there is no such thing."""

    rows: Sequence[str]
    columns: Sequence[str]
    tiles: Sequence[Sequence[Tile | None]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """Stacked bars of equal length scale: (name, (part, amount, words) …) each."""

    rows: Sequence[tuple[str, Sequence[tuple[str, float, str]]]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """Lines to be copied."""

    text: str
    notes: Sequence[str] = ()


Block = Rows | PageTable | Chart | Heat | Bars | Code


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a heading.  anchor: short name in the page's contents."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report.  answer: sentences, first of all; details: what a click opens, by key."""

    title: str
    answer: Sequence[str]
    sections: Sequence[Section]
    foot: Sequence[str] = ()
    details: dict[str, Any] = field(default_factory=dict)
