"""Requests that are given as columns: arrays, a DataFrame, rows of (time, prompt, output) (floor 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from apexsim.errors import InputError, nearest
from apexsim.workload.classes import Reader
from apexsim.workload.trace import NO_INTS, Floats, Ints, Workload

NAMES = {  # our column -> what people call it
    "arrive": ("arrive", "arrival", "arrival_s", "time", "timestamp", "start", "sent"),
    "prompt": ("prompt", "prompt_tokens", "prompt_len", "input", "input_tokens", "input_len", "isl"),
    "output": ("output", "output_tokens", "output_len", "completion_tokens", "generated_tokens", "osl"),
    "kind": ("class",),  # for limits of a class
}
WHERE = "trace"


def workload_of(given: Any) -> Workload:
    """A workload from a mapping of columns, a DataFrame, or rows of (time, prompt, output) or (prompt, output).

    A column `class` names the class of each request.
    Times in seconds, ascending or not; without times all requests come at once.  Raises InputError."""
    columns = _columns(given)
    prompt, output = (_tokens(columns[name], name) for name in ("prompt", "output"))
    if len(prompt) != len(output) or not len(prompt):
        raise InputError(f"{len(prompt)} prompts and {len(output)} outputs", WHERE, "give one of each for every request")
    arrive = _times(columns.get("arrive"), len(prompt))
    order = np.argsort(arrive, kind="stable")
    mode = "open" if "arrive" in columns else "offline"
    classes = Reader("class")
    kind = classes.of(columns["kind"]) if "kind" in columns else NO_INTS
    if len(kind) not in (0, len(prompt)):
        raise InputError(f"{len(kind)} classes of {len(prompt)} requests", WHERE, "give one for every request")
    return Workload(
        "given",
        (arrive - arrive.min())[order],
        prompt[order],
        output[order],
        mode,
        line=NO_INTS,
        source="given",
        kind=kind[order] if len(kind) else kind,
        kinds=classes.names,
    )


def _columns(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping) or hasattr(given, "columns"):
        keys = {str(key).lower().strip(): key for key in (given.keys() if isinstance(given, Mapping) else given.columns)}
        found = {ours: given[keys[name]] for ours, names in NAMES.items() for name in names[::-1] if name in keys}
        missing = next((ours for ours in ("prompt", "output") if ours not in found), None)
        if missing:
            raise InputError(f"no column of {missing} tokens", WHERE, f"name it {missing}; {nearest(missing, keys)}")
        return found
    if not isinstance(given, Iterable):
        raise InputError(f"no requests: {type(given).__name__}", WHERE, "give a file, a DataFrame, a dict of columns, or rows")
    rows = [tuple(row) if isinstance(row, Sequence) and not isinstance(row, str) else () for row in given]
    width = len(rows[0]) if rows else 0
    if width not in (2, 3) or any(len(row) != width for row in rows):
        raise InputError("expected rows of (time, prompt, output) or of (prompt, output)", WHERE, "or a DataFrame, or a dict of columns")
    return dict(zip(("arrive", "prompt", "output")[3 - width :], zip(*rows)))


def _tokens(values: Any, name: str) -> Ints:
    found = _numbers(values, name)
    if np.any(found < 1) or np.any(found != np.rint(found)) or np.any(found > 1 << 30):
        raise InputError(f"expected whole numbers of tokens above 0 in column {name}", WHERE)
    return found.astype(np.int64)


def _times(values: Any, size: int) -> Floats:
    if values is None:
        return np.zeros(size)
    found = _numbers(values, "arrive")
    if len(found) != size:
        raise InputError(f"{len(found)} times of {size} requests", WHERE, "give one for every request")
    return found


def _numbers(values: Any, name: str) -> Floats:
    try:
        kind = np.asarray(values)
        dated = np.issubdtype(kind.dtype, np.datetime64) or np.issubdtype(kind.dtype, np.timedelta64)
        found = kind.astype("M8[ns]" if kind.dtype.kind == "M" else "m8[ns]").astype(np.int64) / 1e9 if dated else kind.astype(float)
    except (TypeError, ValueError):
        raise InputError(f"column {name} holds what is no number", WHERE) from None
    if found.ndim != 1 or not np.all(np.isfinite(found)):
        raise InputError(f"column {name} must be a list of finite numbers", WHERE)
    return np.asarray(found, np.float64)
