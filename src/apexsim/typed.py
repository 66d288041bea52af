"""Types and sizes of a question's keywords, for who asks in Python: the command line has rows for it (floor 0)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
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
FILES = ("gpu", "trace")  # which pathlib may name too


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


def stated(question: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that say something: neither absent, nor off, nor an empty list.  Zero says something."""
    return {name: v for name, v in question.items() if not (v is None or v is False or (isinstance(v, (tuple, list)) and not v))}


def _check_size(name: str, value: Any, least: int) -> None:
    most = MOST.get(name, USUAL_MOST)
    if value != value or value < least or (value > most and not (name in ENDLESS and value == math.inf)):
        raise InputError(f"expected a number from {least} to {most:,}, got {_named(value)}", f"--{name.replace('_', '-')}")


def _named(value: Any) -> str:
    """A value as a message shows it; of a number with thousands of digits its size alone."""
    if isinstance(value, int) and abs(value) > 1 << 128:
        return f"a number of {value.bit_length():,} bits"
    return f"{type(value).__name__} '{value}'" if isinstance(value, (str, int, float)) else type(value).__name__
