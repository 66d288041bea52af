"""What every reader of measured rows needs: cells as numbers, and the answers that need no simulation (floor 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from apexsim.model.families import load_model
from apexsim.model.model import Model

Row = Mapping[str, str]


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
    """A cell as a number; empty is `default`."""
    text = (row.get(key) or "").strip()
    try:
        return float(text) if text else default
    except ValueError:
        return default


def whole(row: Row, key: str, default: int = 0) -> int:
    """A cell as a whole number; empty is `default`."""
    value = number(row, key)
    return default if math.isnan(value) else int(value)


def flag(row: Row, key: str) -> bool:
    """Is a cell true?"""
    return (row.get(key) or "").strip().lower() in ("1", "1.0", "true", "yes")


@lru_cache(maxsize=256)
def model_named(name: str) -> Model:
    """A bundled model, read once for all the rows that name it."""
    return load_model(name)
