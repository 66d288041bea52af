"""Answers that were written as JSON and are read back, to hold others against them (floor 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from apexsim.errors import InputError
from apexsim.examples import expanded
from apexsim.files import DOCUMENT, loads, read_text
from apexsim.search.study import FORMAT

OLDER = "another version of apexsim wrote it: ask that question again with this one, --json FILE"
HINT = "name a file that apexsim plan --json wrote"
Said = Mapping[str, Any]  # a study's JSON
SHOWN = ("ttft_ms", "tpot_ms", "e2el_ms")  # of a plan's metrics, groups that any comparison needs


def read_study(path: str, lacks: Callable[[Said], bool]) -> Said:
    """The study of a file; `lacks`: whether something that the caller compares is missing.  Raises InputError where it holds none."""
    try:
        found = loads(read_text(expanded(path), "study", DOCUMENT))
    except (ValueError, RecursionError) as error:
        raise InputError(f"the study is no JSON: {error}", path, HINT) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        kind = found.get("format") if isinstance(found, dict) else type(found).__name__
        other = str(kind).startswith(FORMAT.rpartition("/")[0])
        raise InputError(f"expected a study of format {FORMAT}, got {str(kind)[:40]}", path, OLDER if other else HINT)
    try:
        damaged = lacks(found)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        damaged = True
    if damaged:
        raise InputError("the study is not complete: a plan or what is told of it is missing", path, "write it again")
    return found


def read_earlier(path: str) -> Said:
    """The study that `--against` names, with its first plan; raises InputError."""
    return read_study(path, _lacks)


def _lacks(said: Said) -> bool:
    first = said["ranked"][0]
    return (
        not isinstance(said["inputs"], dict)
        or not isinstance(said["objective"], str)
        or not isinstance(first["shorthand"], str)
        or not has_latencies(first["metrics"])
    )


def has_latencies(metrics: Said) -> bool:
    """Whether the latencies of a run are there, as times or as none (null: of answers without a second token)."""
    groups = [metrics[name] for name in SHOWN]
    return all(isinstance(group, dict) and "mean" in group and all(map(_is_time, group.values())) for group in groups)


def _is_time(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0.0 <= value < math.inf)


def number(metrics: Said, path: tuple[str, ...]) -> float:
    """A number of a plan's metrics; NaN where there is none."""
    found: Any = metrics
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else math.nan
