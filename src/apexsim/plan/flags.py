"""The words in which an engine is told what a prediction assumed: one row per meaning and versions (floor 3).

The file of each engine holds them ([server] words), and where they were read.  A meaning without a row in a version cannot be
said there.  A flag may name the values that it takes ("fp8=fp8_e4m3": ours = the engine's).
"""

from __future__ import annotations

from functools import lru_cache

from apexsim.engine_file import Engine, Word, order
from apexsim.engines import EngineRow


def in_version(word: Word, version: str) -> bool:
    """Whether a version has a word."""
    here = order(version)
    return (not word.since or order(word.since) <= here) and (not word.until or here < order(word.until))


def words_of(row: EngineRow) -> Words:
    """The words of an engine's row, in the version that the user named."""
    return _words(row.server, row.spoken)


@lru_cache(maxsize=64)
def _words(engine: Engine, version: str) -> Words:
    return Words(engine, version)


class Words:
    """The words of one engine in one version."""

    def __init__(self, engine: Engine, version: str) -> None:
        rows = [word for word in engine.words if in_version(word, version)]
        self.rows = {word.means: word for word in rows}
        assert len(self.rows) == len(rows), f"a meaning of {engine.name} {version} has two words"

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
