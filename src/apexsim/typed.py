"""Types and sizes of a question's keywords, for who asks in Python: the command line has rows for it (floor 0)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping
from inspect import signature
from numbers import Integral, Real
from typing import Any

from apexsim.errors import InputError

ALLOWED: dict[str, tuple[Any, str]] = {  # the first word of an annotation -> what it takes, in words
    "str": (str, "a text"), "int": (Integral, "a whole number"), "float": (Real, "a number"), "bool": (bool, "True or False"),
    "Mapping[str,": (Mapping, "a mapping"), "tuple[str,": ((tuple, list), "a tuple of texts"),
}  # fmt: skip
MOST = {"gpus": 4096, "nodes": 4096, "num_requests": 20_000_000, "concurrency": 20_000_000, "seed": 1 << 128}  # of whole numbers
USUAL_MOST = 1 << 40  # of the other ones
ENDLESS = ("request_rate",)  # infinity has a meaning
FILES = ("gpu", "trace", "model", "results")  # which pathlib may name too
OBJECTS = {"model": "Model", "gpu": "Gpu"}  # that may stand for their names
HUGE = 1 << 128  # whole numbers that no float need hold
OF_ONE: dict[str, tuple[Any, str]] = {  # a part of an annotation -> what it takes, in words
    **{name: ALLOWED[name] for name in ("str", "int", "float", "bool")},
    "Mapping": (Mapping, "a mapping"), "Progress": (Callable, "a function"), "Callable": (Callable, "a function"),
}  # fmt: skip


def check_keywords(function: Any, given: Mapping[str, Any], least: int = 0) -> None:
    """Raise InputError where a keyword of `function` is of another type than its annotation says, or out of all proportion."""
    for name, parameter in signature(function).parameters.items():
        value, words = given[name], parameter.annotation.split()
        if value is None and "None" in words:
            continue
        takes, told = ALLOWED[words[0]]
        other = type(value).__name__ in words or (name in FILES and isinstance(value, os.PathLike))
        if not other and (not isinstance(value, takes) or (isinstance(value, bool) and takes is not bool)):
            raise InputError(f"expected {told}, got {_named(value)}", f"--{name.replace('_', '-')}")
        if takes in (Integral, Real):
            _check_size(name, value, least)
        elif takes == (tuple, list) and not all(isinstance(each, str) for each in value):
            raise InputError(f"expected {told}, got {_named(value)}", f"--{name}")


def check_annotated(function: Any, given: Mapping[str, Any], axes: Collection[str] = ()) -> None:
    """Raise InputError where a keyword of a verb is of no type that its annotation names; None says nothing, and is nobody's.

    axes: keywords of which another verb compares several values."""
    for name, parameter in signature(function).parameters.items():
        parts = str(parameter.annotation).split(" | ")
        if given.get(name) is None or "Any" in parts:
            continue
        takes = [_takes(part, name, given[name]) for part in parts if part != "None"]
        if not any(fits for fits, _ in takes):
            told = " or ".join(dict.fromkeys(words for _, words in takes))
            hint = "apexsim.sweep compares several" if name in axes and isinstance(given[name], (list, tuple)) else ""
            raise InputError(f"expected {told}, got {_named(given[name])}", f"--{name.replace('_', '-')}", hint)


def _takes(part: str, name: str, value: Any) -> tuple[bool, str]:
    """Whether a part of an annotation takes a value, and what it takes in words."""
    if part.startswith("Sequence["):
        inside = part[len("Sequence[") : -1]
        words = _takes(inside, name, None)[1].partition(" ")[2]
        several = isinstance(value, (list, tuple))
        return several and all(_takes(inside, name, each)[0] for each in value), f"a list of {words}s"
    kind, words = OF_ONE[part.partition("[")[0]]
    if kind is str and (type(value).__name__ == OBJECTS.get(name) or (name in FILES and isinstance(value, os.PathLike))):
        return True, words
    if kind is bool:
        return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"), words
    huge = isinstance(value, Integral) and abs(int(value)) > HUGE
    return isinstance(value, kind) and not isinstance(value, bool) and not huge, words


def stated(question: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that say something: neither absent, nor off, nor an empty list.  Zero says something."""
    return {name: v for name, v in question.items() if not (v is None or v is False or (isinstance(v, (tuple, list)) and not v))}


def _check_size(name: str, value: Any, least: int) -> None:
    most = MOST.get(name, USUAL_MOST)
    if value != value or value < least or (value > most and not (name in ENDLESS and value == math.inf)):
        raise InputError(f"expected a number from {least} to {most:,}, got {_named(value)}", f"--{name.replace('_', '-')}")


def _named(value: Any) -> str:
    """A value as a message shows it; of a number with thousands of digits its size alone."""
    if isinstance(value, int) and abs(value) > HUGE:
        return f"a number of {value.bit_length():,} bits"
    return f"{type(value).__name__} '{value}'" if isinstance(value, (str, int, float)) else type(value).__name__
