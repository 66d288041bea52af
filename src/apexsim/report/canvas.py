"""A small picture of points in a terminal: a grid of characters with axes (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from apexsim.report.draw import sig

WIDE, HIGH = 56, 12  # characters of the area within the axes
LEAST = 24
CLOSE = 1.1  # times: values that are nearer look alike


@dataclass(frozen=True, slots=True)
class Mark:
    """Points of one kind: the character that stands for them, or one for each; later marks lie above earlier ones."""

    glyph: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Scaled:
    """An axis: its ends, and whether equal ratios are equally long."""

    low: float
    high: float
    log: bool

    def at(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        low, high, v = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (v - low) / (high - low) if high > low else 0.5


def scaled(values: Sequence[float], log: bool = False) -> Scaled:
    """An axis that holds some values; logarithmic only where all of them are above 0 and they span more than a factor of ten.  It starts
    at 0 where they are so close that a magnified difference would mislead."""
    low, high = min(values), max(values)
    low = 0.0 if low > 0 and high < CLOSE * low else low
    wide = log and low > 0 and high > 10 * low
    return Scaled(low, high, wide)


def picture(
    marks: Sequence[Mark], x_title: str, y_title: str, width: float = math.inf, log_x: bool = False, log_y: bool = False
) -> list[str]:
    """The lines of a picture; none without two finite points."""
    points = [(x, y) for mark in marks for x, y in zip(mark.x, mark.y) if math.isfinite(x) and math.isfinite(y)]
    if len(points) < 2:
        return []
    across, up = scaled([x for x, _ in points], log_x), scaled([y for _, y in points], log_y)
    top, bottom = sig(up.high), sig(up.low)
    edge = max(len(top), len(bottom))
    wide = int(max(LEAST, min(WIDE, width - edge - 4)))
    grid = [[" "] * wide for _ in range(HIGH)]
    for mark in marks:
        for i, (x, y) in enumerate(zip(mark.x, mark.y)):
            if math.isfinite(x) and math.isfinite(y):
                row, column = HIGH - 1 - round(up.at(y) * (HIGH - 1)), round(across.at(x) * (wide - 1))
                grid[row][column] = mark.glyph[i % len(mark.glyph)]
    labels = {0: top, HIGH - 1: bottom}
    lines = [f"{labels.get(i, '').rjust(edge)} {'┤' if i in labels else '│'}{''.join(row)}".rstrip() for i, row in enumerate(grid)]
    left, right = sig(across.low), sig(across.high)
    x_title += " (log)" * across.log
    under = f"{left}{x_title.center(max(0, wide - len(left) - len(right)))}{right}"
    return [f"{' ' * edge} {y_title}{' (log)' * up.log}", *lines, f"{' ' * edge} └{'─' * wide}", f"{' ' * edge}  {under}"]
