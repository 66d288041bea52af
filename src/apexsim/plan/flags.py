"""The words in which an engine is told what a prediction assumed: one row per engine, meaning and versions (floor 3).

`data/launch/flags.csv` holds them, `sources.csv` beside it where they were read.  A meaning without a row in a version
cannot be said there.  A flag may name the values that it takes ("fp8=fp8_e4m3": ours = the engine's).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from apexsim.engines import EngineRow, order


@dataclass(frozen=True, slots=True)
class Flag:
    """One row: the engine's word for a meaning from version `since` up to, but not in, `until` ("" = still there)."""

    engine: str
    means: str
    flag: str
    since: str
    until: str
    values: tuple[tuple[str, str], ...]
    source: str

    def in_version(self, version: str) -> bool:
        """Whether a version has it."""
        here = order(version)
        return order(self.since) <= here and (not self.until or here < order(self.until))


@cache
def flags() -> tuple[Flag, ...]:
    """All rows."""
    text = (files("apexsim") / "data/launch/flags.csv").read_text(encoding="utf-8")
    found = []
    for row in csv.DictReader(text.splitlines()):
        pairs = (value.partition("=") for value in row.pop("values").split(";") if value)
        found.append(Flag(**row, values=tuple((ours, theirs) for ours, _, theirs in pairs)))
    return tuple(found)


def words_of(row: EngineRow) -> Words:
    """The words of an engine's row, in the version that the user named."""
    return Words(row.engine, row.spoken)


class Words:
    """The words of one engine in one version."""

    def __init__(self, engine: str, version: str) -> None:
        rows = [flag for flag in flags() if flag.engine == engine and flag.in_version(version)]
        self.rows = {flag.means: flag for flag in rows}
        assert len(self.rows) == len(rows), f"data/launch/flags.csv: a meaning of {engine} {version} has two words"

    def has(self, means: str, value: str = "") -> bool:
        """Whether the engine can be told so, with this value if its values are listed."""
        row = self.rows.get(means)
        return row is not None and (not value or not row.values or value in dict(row.values))

    def flag(self, means: str) -> str:
        """The engine's word."""
        return self.rows[means].flag

    def value(self, means: str, ours: str) -> str:
        """The engine's word for a value of ours."""
        return dict(self.rows[means].values).get(ours, ours)
