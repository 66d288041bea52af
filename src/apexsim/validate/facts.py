"""What is known of measured runs beside their columns: `data/measured.toml` (floor 5).

A fact holds for a row whose columns match its patterns; the file says what each kind of fact means and where it comes from.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from apexsim.errors import InputError
from apexsim.hardware import load_gpu
from apexsim.model.served import label_word
from apexsim.plan.plan import Layout
from apexsim.validate.rows import Row, number, whole

Fact = Mapping[str, Any]


@cache
def facts() -> dict[str, tuple[Fact, ...]]:
    """Kind of fact -> all of it, as the file has them."""
    data = tomllib.loads((files("apexsim") / "data/measured.toml").read_text(encoding="utf-8"))
    return {kind: tuple(rows) for kind, rows in data.items()}


def spelled(row: Row, column: str) -> str:
    """A cell without the decimals that tables give whole numbers; "" where there is no such column."""
    text = (row.get(column) or "").strip()
    head, dot, tail = text.partition(".")
    return head if dot and head.isdecimal() and not tail.strip("0") else text


def _matches(row: Row, column: str, patterns: str | list[str]) -> bool:
    found = {spelled(row, column)} | (ALIKE[column](spelled(row, column)) if column in ALIKE else frozenset())
    return any(fnmatchcase(each, p) for p in ([patterns] if isinstance(patterns, str) else patterns) for each in found)


@lru_cache(maxsize=256)
def _gpu_spelled(text: str) -> frozenset[str]:
    """The GPU's own name, as rows write it."""
    try:
        return frozenset((load_gpu(text).name.replace("-", "_"),)) if text else frozenset()
    except InputError:
        return frozenset()


def _format_spelled(text: str) -> frozenset[str]:
    return frozenset((label_word(text),)) if text else frozenset()


ALIKE: Mapping[str, Callable[[str], frozenset[str]]] = {"system": _gpu_spelled, "gpu": _gpu_spelled, "precision": _format_spelled}


def holds(fact: Fact, row: Row, lanes: int = 1) -> bool:
    """Whether a fact is one of a row's, which ran with so many attention lanes."""
    date = spelled(row, "measured_date")
    return (
        all(_matches(row, column, wanted) for column, wanted in fact.get("when", {}).items())
        and not any(_matches(row, column, wanted) for column, wanted in fact.get("unless", {}).items())
        and all(number(row, column, 0.0) >= low for column, low in fact.get("least", {}).items())
        and ("before" not in fact or "" < date < fact["before"])
        and lanes >= fact.get("lanes", 1)
    )


def known(kind: str, row: Row, lanes: int = 1) -> Iterator[Fact]:
    """The facts of a kind that hold for a row."""
    return (fact for fact in facts()[kind] if holds(fact, row, lanes))


def suspect(row: Row) -> str:
    """Why a row is scored apart: what its file says, else what is known of it; "" where nothing is."""
    return spelled(row, "suspect") or next((fact["told"] for fact in known("suspect", row)), "")


def stall(row: Row) -> float:
    """Seconds for which the first requests of a row waited for what a server without warm-up does at first use."""
    return next((float(fact["seconds"]) for fact in known("stall", row)), 0.0)


def cache_of(row: Row) -> str:
    """The KV cache that a row ran with without saying so; "" where nothing is known."""
    return next((fact["kv"] for fact in reversed(tuple(known("cache", row)))), "")


def maker_of(row: Row) -> str:
    """Who made the checkpoint that a row served; "" where nothing is known."""
    return next((fact["maker"] for fact in known("checkpoint", row)), "")


def release(row: Row) -> str:
    """The release of the engine that served a row; "" where nothing is known."""
    return next((fact["version"] for fact in known("release", row)), "")


def network(row: Row) -> str | None:
    """The network of a run across nodes; None where nothing is known."""
    return next((fact["nic"] for fact in known("network", row)), None)


def settings(row: Row, lanes: int, users: int) -> dict[str, Any]:
    """Engine settings that were in force without a column of their own."""
    found: dict[str, Any] = {}
    for fact in known("setting", row, lanes):
        found |= fact.get("set", {})
        if "fewer_slots" in fact:
            found["max_num_seqs"] = max(1, users - fact["fewer_slots"])
    return found


def scripted(row: Row, tp: int) -> tuple[Layout, Layout] | None:
    """Layouts that the launch script chose by itself; None where it took the row's."""
    fact = next(known("layout", row), None)
    if fact is None or tp == 1:
        return None
    users, lengths = whole(row, "concurrency"), f"{whole(row, 'isl')}/{whole(row, 'osl')}"
    experts, lanes = fact["above"].get(lengths, (None, None)) if "above" in fact else (0, None)
    if experts is None or users <= experts:
        return None
    return Layout(tp, 1) if lanes is not None and users > lanes else Layout(tp=tp), Layout(ep=tp)
