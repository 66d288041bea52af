"""The cells of a column as numbers, however they are written; what is none is named with its line (floor 2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.errors import InputError
from apexsim.workload.containers import FileTable
from apexsim.workload.meaning import is_number, ungrouped

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DOTTED = re.compile(r"\d{1,3}(\.\d{3})+")  # as beside decimal commas


def _first_bad(cells: Sequence[Any], good: Callable[[Any], bool]) -> int:
    """Index of the first cell that is not good."""
    return next((i for i, cell in enumerate(cells) if not good(cell)), 0)


def floats(table: FileTable, key: str, what: str) -> Floats:
    """A column of finite numbers."""
    cells = table.column(key)
    if isinstance(cells[0], list) and all(isinstance(cell, list) for cell in cells):
        return np.array(list(map(len, cells)), dtype=np.float64)  # the tokens themselves
    if table.sign == ";" and what != "arrival" and _dotted(cells):
        cells = [cell.replace(".", "") for cell in cells]
    values, clean = _as_floats(cells)
    if not clean and any(isinstance(cell, str) for cell in cells):
        decimal = "," if what == "arrival" and table.sign == ";" else "."
        values, clean = _as_floats([ungrouped(cell, decimal) for cell in cells])
    if not clean:
        row = _first_bad(cells, is_number)
        raise InputError(f"{what} '{key}' is not a number: {cells[row]!r}", table.at(row), _hint_of(what, cells[row]))
    return values


def _dotted(cells: Sequence[Any]) -> bool:
    """Whether points set thousands apart, as beside decimal commas: every cell with a point has three digits behind each."""
    some = [cell for cell in cells if "." in cell]
    return bool(some) and all(DOTTED.fullmatch(cell.strip()) for cell in some)


def _as_floats(cells: Sequence[Any]) -> tuple[Floats, bool]:
    """Cells as numbers, and whether all of them are finite ones."""
    try:
        values = np.array(cells, dtype=np.float64)
        return values, values.ndim == 1 and bool(np.isfinite(values).all()) and bool not in set(map(type, cells))
    except (TypeError, ValueError, OverflowError):
        return np.zeros(0), False


def _hint_of(what: str, cell: Any) -> str:
    """What to try where a cell is no number."""
    return "for dates: --time-unit clock" if what == "arrival" and isinstance(cell, str) and re.match(r"\s*\d+[-/.]\d", cell) else ""


def lengths(table: FileTable, key: str, what: str, whole: bool = True) -> Ints:
    """A column of token counts ≥ 1; `whole`: the table is all of the file, so that faults can be counted."""
    values = floats(table, key, f"{what} length")
    for bad, fault in ((values < 0, "is negative"), (values % 1 != 0, "is not a whole number"), (values == 0, "is 0")):
        if bad.any():
            row, count = int(np.argmax(bad)), int(bad.sum())
            more = f" ({count if whole else 'several'} such requests, this is the first)" if count > 1 else ""
            hint = "a request has at least 1 token each way; take failed ones out: apexsim trace convert --skip-bad N"
            raise InputError(f"{what} length '{key}' {fault}: {values[row]:g}{more}", table.at(row), hint)
    if values.max() > 2**40:
        row = int(np.argmax(values))
        raise InputError(f"{what} length '{key}' cannot be tokens: {values[row]:g}", table.at(row))
    return values.astype(np.int64)
