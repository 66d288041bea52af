"""What every reader of measured rows needs: cells as numbers, and the answers that need no simulation (floor 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from apexsim.errors import InputError
from apexsim.model.families import load_model
from apexsim.model.model import Model

Row = Mapping[str, str]
MOST = 10_000_000  # tokens or requests of one run: more is a slip
WIDEST = 4096  # ways that something is split or copied


class Cells(dict[str, str]):
    """A row by the names of its columns; one that is not there is the file's fault."""

    def __missing__(self, key: str) -> str:
        raise InputError(f"the row has no '{key}'", f"row {self.get('id', '')}".strip())


@dataclass(frozen=True, slots=True)
class Answered:
    """A row whose prediction needs no simulation: metric -> {"measured", "predicted"}."""

    id: str
    metrics: dict[str, Any]
    labels: dict[str, str]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is not replayed."""

    id: str
    reason: str
    labels: dict[str, str]


def number(row: Row, key: str, default: float = math.nan) -> float:
    """A cell as a finite number; empty or nan is `default`.  Raises InputError where it is none."""
    text = (row.get(key) or "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise InputError(f"'{key}' is no number: '{text[:40]}'", f"row {row.get('id', '')}".strip())
    return default if math.isnan(value) else value


def whole(row: Row, key: str, default: int = 0, least: int = 0, most: int = MOST) -> int:
    """A cell as a whole number within limits; empty is `default`.  Raises InputError where it is none."""
    value = number(row, key)
    if math.isnan(value):
        return default
    if value % 1 or not least <= value <= most:
        raise InputError(f"'{key}' is no whole number from {least} to {most:,}: {value:g}", f"row {row.get('id', '')}".strip())
    return int(value)


def flag(row: Row, key: str) -> bool:
    """Is a cell true?"""
    return (row.get(key) or "").strip().lower() in ("1", "1.0", "true", "yes")


@lru_cache(maxsize=256)
def model_named(name: str) -> Model:
    """A bundled model, read once for all the rows that name it."""
    return load_model(name)
