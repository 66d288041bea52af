"""Blocks as one offline file: page, style, script, charts and data together (floor 6).

Every word of foreign origin is escaped where it becomes HTML, and in data that a script reads `<`, `>` and `&` are written as codes, so
that no name can end the script.  The page's own policy forbids it to load anything.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from html import escape
from importlib.resources import files
from itertools import groupby
from typing import Any

from apexsim.errors import shown
from apexsim.report.blocks import Bars, Block, Chart, Code, Heat, Page, PageTable, Rows, Section, TableCell, Tile
from apexsim.report.plain import clean

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
CODED = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}
HOLE = re.compile(r"\{\{(\w+)\}\}")  # in page.html; what is put in is not looked at again
DIGITS = 6  # of a number in a chart
COLOURS = 10  # of the parts of a bar, in page.css


@cache
def web(name: str) -> str:
    """A file of the page."""
    return (files("apexsim") / "data/web" / name).read_text(encoding="utf-8")


def parts(content: Page) -> dict[str, Any]:
    """What a page shows, apart from the file around it: title, answer, contents, body and foot as HTML, and the data of its scripts."""
    charts: list[Chart] = []
    body = "".join(_section(section, charts) for section in content.sections)
    contents = "".join(f'<a href="#{_word(s.anchor)}">{_text(s.anchor)}</a>' for s in content.sections)
    data = {"charts": [_plain(asdict(chart)) for chart in charts], "details": content.details}
    return {
        "title": _text(content.title), "answer": _paragraphs(content.answer), "contents": contents, "body": body,
        "foot": _paragraphs(content.foot), "data": clean(data),
    }  # fmt: skip


def filed(shown: Mapping[str, Any]) -> str:
    """The parts of a page as one file."""
    values = {
        **shown, "data": coded(shown["data"]), "policy": POLICY, "style": web("uPlot.min.css") + web("page.css"),
        "licence": web("uPlot.LICENSE"), "charts": web("uPlot.iife.min.js"), "script": web("page.js"),
    }  # fmt: skip
    return HOLE.sub(lambda hole: values[hole[1]], web("page.html"))


def page(content: Page) -> str:
    """The whole file."""
    return filed(parts(content))


def _paragraphs(words: Sequence[str]) -> str:
    return "".join(f"<p>{_text(one)}</p>" for one in words)


def coded(data: Any) -> str:
    """JSON that can stand inside a script."""
    return json.dumps(clean(data), separators=(",", ":"), ensure_ascii=False, allow_nan=False).translate(CODED)


def _plain(value: Any) -> Any:
    """Numbers with as many digits as a chart shows."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) and math.isfinite(value) else value


def _text(words: str) -> str:
    """Words as HTML."""
    return escape(shown(words))


def _note(words: str) -> str:
    return f'<p class="note">{_text(words)}</p>' if words else ""


def _word(name: str) -> str:
    """A name that can be an anchor."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower())


def _section(section: Section, charts: list[Chart]) -> str:
    inside = "".join(_run(list(run), charts) for _, run in groupby(section.blocks, lambda block: isinstance(block, Chart)))
    return f'<section id="{_word(section.anchor)}"><h2>{_text(section.title)}</h2>{inside}</section>\n'


def _run(blocks: list[Block], charts: list[Chart]) -> str:
    """Charts that follow each other stand side by side where there is room."""
    inside = "".join(_block(block, charts) for block in blocks)
    return f'<div class="pair">{inside}</div>' if len(blocks) > 1 and isinstance(blocks[0], Chart) else inside


def _block(block: Block, charts: list[Chart]) -> str:
    if isinstance(block, Chart):
        charts.append(block)
        drawn = f'<div class="chart" data-chart="{len(charts) - 1}"></div>'
        return f"<figure><figcaption>{_text(block.title)}</figcaption>{drawn}{_note(block.note)}</figure>"
    return MADE[type(block)](block)


def _rows(block: Rows) -> str:
    return f"<dl>{''.join(f'<dt>{_text(a)}</dt><dd>{_text(b)}</dd>' for a, b in block.rows)}</dl>"


def _table(block: PageTable) -> str:
    heads = "".join(f'<th class="{side}"><button type="button">{_text(head)}</button></th>' for head, side in zip(block.heads, block.sides))
    keys = block.keys or [""] * len(block.rows)
    rows = "".join(_line(row, block.sides, key) for row, key in zip(block.rows, keys))
    legend = _rows(Rows(block.legend)) if block.legend else ""
    find = '<input type="search" placeholder="filter" aria-label="filter">' if len(block.rows) > 8 else ""
    inside = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="table">{find}<div class="scroll">{inside}</div></div>{legend}'


def _line(row: Sequence[TableCell], sides: Sequence[str], key: str) -> str:
    cells = "".join(_cell(cell, side) for cell, side in zip(row, sides))
    opens = f' data-key="{escape(key)}" tabindex="0"' if key else ""
    return f"<tr{opens}>{cells}</tr>"


def _cell(cell: TableCell, side: str) -> str:
    value = f' data-v="{cell.value:.9g}"' if cell.value is not None and math.isfinite(cell.value) else ""
    return f'<td class="{side}"{value}>{_text(cell.text)}</td>'


def _heat(block: Heat) -> str:
    heads = "".join(f"<th>{_text(name)}</th>" for name in ("", *block.columns))
    rows = "".join(f"<tr><th>{_text(name)}</th>{''.join(map(_tile, tiles))}</tr>" for name, tiles in zip(block.rows, block.tiles))
    return f'<div class="scroll"><table class="heat"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{_note(block.note)}'


def _tile(tile: Tile | None) -> str:
    if tile is None:
        return "<td></td>"
    opens = f' data-key="{escape(tile.key)}" tabindex="0"' if tile.key else ""
    if math.isnan(tile.share):
        return f'<td class="no" tabindex="0" title="{_text(tile.why)}" data-why="{_text(tile.why)}">{_text(tile.text)}</td>'
    return f'<td class="yes" style="--share:{tile.share:.3f}" title="{_text(tile.why)}"{opens}>{_text(tile.text)}</td>'


def _bars(block: Bars) -> str:
    most = max((sum(amount for _, amount, _ in parts) for _, parts in block.rows), default=0.0) or 1.0
    names = list(dict.fromkeys(name for _, parts in block.rows for name, _, _ in parts))
    shade = {name: i % COLOURS for i, name in enumerate(names)}
    rows = "".join(
        f'<div class="bar"><span>{_text(name)}</span><div>'
        + "".join(
            f'<i class="c{shade[part]}" style="width:{100 * amount / most:.3f}%" title="{_text(f"{part} {words}")}"></i>'
            for part, amount, words in parts
        )
        + "</div></div>"
        for name, parts in block.rows
    )
    first = {part: words for _, parts in reversed(block.rows) for part, _, words in parts}
    legend = "".join(f'<span><i class="c{shade[name]}"></i>{_text(f"{name} {first[name]}")}</span>' for name in names)
    return f'<div class="bars">{rows}<div class="legend">{legend}</div></div>{_note(block.note)}'


def _code(block: Code) -> str:
    notes = "".join(map(_note, block.notes))
    return f'<div class="code"><button type="button" class="copy">copy</button><pre>{_text(block.text)}</pre></div>{notes}'


MADE: dict[type, Callable[[Any], str]] = {Rows: _rows, PageTable: _table, Heat: _heat, Bars: _bars, Code: _code}
