"""How an answer shows itself to who asked in Python (floor 0).

Renderers stand above the answers.  The package says where they are (`apexsim/__init__`), so that an answer finds its views without
knowing them; an answer of a part of the package alone, without it, shows its type.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as `typing` has it: the package is imported with this, and loads nothing that takes time
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Views = Mapping[str, Callable[..., Any]]  # text, html, table, plot

source: Callable[[], Views] | None = None


def view(name: str, answer: Any, **how: Any) -> Any:
    """One view of an answer."""
    if source is None:
        return f"<{type(answer).__name__}>"
    return source()[name](answer, **how)


class Shown:
    """An answer that shows itself: three lines in Python, a page in a notebook, tables and pictures."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(view("text", self))

    def _repr_html_(self) -> str:
        return str(view("html", self))

    def table(self) -> Any:
        """Every row, units in the names of the columns: a pandas DataFrame where pandas is installed, else a list of dicts."""
        return view("table", self)

    def plot(self) -> Any:
        """A matplotlib figure; needs matplotlib."""
        return view("plot", self)


RENAMED = {"slo": "slos", "map": "columns"}  # option -> keyword
OPTION = r"--([a-z][a-z-]*[a-z])(?: (?=[A-Z\d'\"]))?"


def spoken(text: str) -> str:
    """A message in which options are keywords: --request-rate R is request_rate=R."""
    import re

    return re.sub(OPTION, lambda found: _keyword(found[1]) + "=" * found[0].endswith(" "), text)


def _keyword(option: str) -> str:
    name = option.replace("-", "_")
    return RENAMED.get(name, name)
