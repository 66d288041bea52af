"""A page of text: headings, labelled lines and tables, for terminals and plain files alike (floor 6)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from apexsim.errors import shown

PROSE_WIDTH = 120  # columns at which sentences wrap
LEAST = 60  # columns of the narrowest page
ENDLESS = 1000  # columns of a table: it is never cut
WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|[^\s'"])+""")  # of a command line, what is quoted whole
Row = tuple[str, str]


def heading(title: str, rest: str = "", width: float = ENDLESS) -> RenderableType:
    """A section's first line."""
    return Constrain(Text.assemble((shown(title), "bold cyan"), f"  {shown(rest)}" if rest else ""), int(max(LEAST, min(width, ENDLESS))))


def labelled(rows: Iterable[Row], width: float = PROSE_WIDTH, indent: int = 2) -> RenderableType:
    """Label and text; long text wraps under itself."""
    grid = Table.grid(Column(no_wrap=True, style="dim"), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for label, text in rows:
        grid.add_row(Text(shown(label)), Text(shown(text)))
    return Constrain(Padding(grid, (0, 0, 0, indent)), int(max(LEAST, min(width, PROSE_WIDTH))))


def pasted(command: str, width: float = PROSE_WIDTH, margin: int = 14) -> str:
    """A command on as many lines as the page needs, so that it can be pasted: broken before options, with backslashes."""
    most = max(40, min(width, PROSE_WIDTH) - margin)
    words: list[str] = WORD.findall(command)
    at = [0, *(i for i, word in enumerate(words) if i and word.startswith("-")), len(words)]
    first, *rest = (" ".join(words[i:j]) for i, j in pairwise(at))
    lines = [first]
    for part in rest:
        if len(lines[-1]) + 1 + len(part) + 2 <= most:
            lines[-1] += f" {part}"
        else:
            lines.append(f"  {part}")
    return " \\\n".join(lines)


def columns(
    heads: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], bold: int = -1, indent: int = 2, width: float = 0
) -> RenderableType:
    """A table with few lines: heads are (title, "left" or "right"); row `bold` stands out.

    Nothing is cut off: the table is as wide as it must be or, where a `width` is given, its last column wraps.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_header=any(t for t, _ in heads))
    for i, (title, side) in enumerate(heads):
        fixed = not width or i < len(heads) - 1
        justify: Literal["left", "right"] = "right" if side == "right" else "left"
        table.add_column(Text(shown(title)), justify=justify, no_wrap=fixed, overflow="fold", vertical="top" if width else "bottom")
    for i, row in enumerate(rows):
        table.add_row(*(Text(shown(cell)) for cell in row), style="bold" if i == bold else "")
    padded = Padding(table, (0, 0, 0, indent), expand=False)
    return Constrain(padded, int(width)) if width else padded


def page(parts: Iterable[RenderableType], color: bool = False) -> str:
    """Everything as text; no line has blanks at its end."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=ENDLESS,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
        legacy_windows=False,
        force_jupyter=False,
        _environ={},
    )
    console.print(Group(*parts))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).rstrip() + "\n"
