"""Workloads by name: joint distributions of prompt and output lengths, each with its source (floor 2).

A preset is a table of a TOML file, of `data/workloads.toml` or of one of the user's own: lengths at given percentiles,
between which they are taken to be evenly spread, and the rank correlation of prompt and output.  A pair is drawn through
a Gaussian copula: two normal numbers of correlation r = 2 sin(π ρ / 6), whose ranks pick the two lengths (Kruskal 1958,
for Spearman's ρ of a bivariate normal).  Arrivals are not part of a preset, and neither are prefixes that prompts share.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.errors import InputError, nearest
from apexsim.files import read_toml

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WHERE, SUFFIX, WHAT = "--workload", ".toml", "workload file"
MOST = 1 << 30  # tokens of a request: more is a slip
PREFIXES = "prefixes that prompts share are not part of a workload preset"
_TEXTS = ("about", "source", "url", "licence", "note")
_KEYS = frozenset({*_TEXTS, "requests", "percent", "prompt", "output", "rank_correlation"})


@dataclass(frozen=True, slots=True)
class Preset:
    """Lengths of one kind of use.

    percent: [q] ascending from 0 to 100; prompt, output: [q] tokens at these percentiles, ≥ 1, ascending;
    rank_correlation: Spearman's, of prompt and output; requests: how many the figures are of, 0 = not known.
    """

    name: str
    about: str
    percent: tuple[float, ...]
    prompt: tuple[float, ...]
    output: tuple[float, ...]
    rank_correlation: float = 0.0
    requests: int = 0
    source: str = ""
    url: str = ""
    licence: str = ""
    note: str = ""

    def at(self, kind: str, percent: float) -> float:
        """The length of a kind, prompt or output, at a percentile [tokens]."""
        return float(np.interp(percent, self.percent, getattr(self, kind)))

    def mean(self, kind: str) -> float:
        """Mean length of a kind, prompt or output [tokens]: the area below the line through the percentiles."""
        lengths = np.array(getattr(self, kind))
        return float((np.diff(self.percent) * (lengths[1:] + lengths[:-1])).sum()) / 200.0

    @property
    def longest(self) -> int:
        """Longest prompt + longest output [tokens]."""
        return math.ceil(self.prompt[-1]) + math.ceil(self.output[-1])

    @property
    def told(self) -> str:
        """The preset in a line: its name, its means, where they are from."""
        whose = f" ({self.source})" if self.source else ""
        return f"workload {self.name}: means of {self.mean('prompt'):,.0f} prompt and {self.mean('output'):,.0f} output tokens{whose}"


def drawn(preset: Preset, count: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """`count` pairs of prompt and output lengths [tokens], ≥ 1."""
    r = 2.0 * math.sin(math.pi * preset.rank_correlation / 6.0)
    first = rng.standard_normal(count)
    second = rng.standard_normal(count)
    second *= math.sqrt(1.0 - r * r)
    second += r * first
    return _lengths(preset.prompt, preset.percent, first), _lengths(preset.output, preset.percent, second)


@lru_cache(1)
def _normal() -> tuple[Floats, Floats]:
    """Where the normal distribution is tabulated, and its ranks there: between two, off by less than 1e-6."""
    at = np.linspace(-6.0, 6.0, 4801)
    return at, np.array([0.5 * math.erfc(-z / math.sqrt(2.0)) for z in at.tolist()])


def _lengths(lengths: tuple[float, ...], percent: tuple[float, ...], normal: Floats) -> Ints:
    """The lengths at the ranks that normal numbers have."""
    found = np.interp(np.interp(normal, *_normal()), np.array(percent) / 100.0, lengths)
    return np.maximum(1, np.rint(found)).astype(np.int64)


# ---- where they come from -----------------------------------------------------------------------------------------


@lru_cache(1)
def presets() -> dict[str, Preset]:
    """The presets that come with the package, by name."""
    text = (files("apexsim") / "data/workloads.toml").read_text(encoding="utf-8")
    return {name: _preset(name, table, "workloads.toml") for name, table in tomllib.loads(text).items()}


def preset_of(name: str) -> Preset:
    """The preset of a name, or the one table of a TOML file; raises InputError."""
    if name.lower().endswith(SUFFIX):
        return _own(name)
    found = presets().get(name.strip().lower())
    if found is None:
        raise InputError(f"no workload is called '{name[:80]}'", WHERE, f"{nearest(name, presets())}; or a {SUFFIX} file (docs/traces.md)")
    return found


def _own(path: str) -> Preset:
    """The preset of a file of the user's."""
    tables = read_toml(path, WHAT)
    if len(tables) != 1 or not isinstance(next(iter(tables.values())), dict):
        raise InputError(f"a {WHAT} holds one table, [NAME], this one {len(tables)} keys", path, "docs/traces.md shows one")
    name, table = next(iter(tables.items()))
    return _preset(name, table, path)


def _preset(name: str, table: Mapping[str, Any], where: str) -> Preset:
    """A table as a preset; raises InputError where it is none."""
    where = f"{where}: [{name}]"
    strange = sorted(set(table) - _KEYS)
    if strange:
        raise InputError(f"unknown key '{strange[0]}'", where, nearest(strange[0], sorted(_KEYS)))
    percent = _ascending(table, "percent", where, 0.0, 100.0)
    if percent[0] != 0.0 or percent[-1] != 100.0 or len(set(percent)) < len(percent):
        raise InputError("'percent' must rise from 0 to 100", where)
    prompt, output = (_ascending(table, kind, where, 1.0, MOST) for kind in ("prompt", "output"))
    for kind, lengths in (("prompt", prompt), ("output", output)):
        if len(lengths) != len(percent):
            raise InputError(f"'{kind}' has {len(lengths)} lengths, 'percent' {len(percent)}", where)
    texts = {key: table.get(key, "") for key in _TEXTS}
    wrong = next((key for key, value in texts.items() if not isinstance(value, str)), None)
    if wrong:
        raise InputError(f"'{wrong}' must be a text", where)
    correlation, requests = table.get("rank_correlation", 0.0), table.get("requests", 0)
    if not _is_number(correlation) or abs(correlation) > 1.0:
        raise InputError(f"'rank_correlation' must be a number from -1 to 1, got {correlation}", where)
    if not _is_number(requests) or requests < 0 or requests % 1:
        raise InputError(f"'requests' must be a whole number, got {requests}", where)
    return Preset(name, **texts, percent=percent, prompt=prompt, output=output, rank_correlation=float(correlation), requests=int(requests))


def _ascending(table: Mapping[str, Any], key: str, where: str, least: float, most: float) -> tuple[float, ...]:
    """A list of at least two numbers that do not fall."""
    values = table.get(key)
    if not isinstance(values, list) or len(values) < 2 or not all(map(_is_number, values)):
        raise InputError(f"'{key}' must be a list of at least two numbers", where, "docs/traces.md shows one")
    if sorted(values) != values or values[0] < least or values[-1] > most:
        raise InputError(f"'{key}' must rise, from {least:g} or more to at most {most:,.0f}", where)
    return tuple(map(float, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
