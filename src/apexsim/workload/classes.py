"""Classes of requests, which limits may name: a column of the trace, or prompt lengths (floor 2).

classes := COLUMN | NAME ":" TOKENS {"," NAME ":" TOKENS} "," NAME      prompts up to so many tokens; the last has no bound
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from apexsim.errors import InputError
from apexsim.slo import NAMES, Slo
from apexsim.units import parse_count
from apexsim.workload.trace import Ints, Workload

WHERE = "--classes"
MOST = 20  # classes: a column of more values is something else
UNKNOWN = "none"  # of a request that says nothing
_NAME = re.compile(r"[\w./+-]+(?: [\w./+-]+)*")
_GRAMMAR = "name a column of the trace, or prompt lengths: short:2k,long"


def by_length(text: str) -> bool:
    """Whether classes are prompt lengths."""
    return ":" in text


def column_of(text: str | None) -> str:
    """The column of a trace that holds the classes; "" where they are prompt lengths, or none are asked for."""
    return "" if not text or by_length(text) else text.strip()


def bounds_of(text: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of classes by prompt length, and the longest prompts [tokens] of all but the last; raises InputError."""
    parts = [part.strip().partition(":") for part in text.split(",")]
    names = tuple(name.strip() for name, _, _ in parts)
    if len(parts) < 2 or parts[-1][1] or not all(sign for _, sign, _ in parts[:-1]):
        raise InputError(f"cannot read the classes '{text}'", WHERE, "every class but the last has its longest prompt: short:2k,long")
    bounds = tuple(parse_count(tokens.strip(), True, WHERE) for _, _, tokens in parts[:-1])
    if any(b <= a for a, b in zip((0, *bounds), bounds)):
        raise InputError("the longest prompts of the classes do not rise", WHERE, "the shortest class comes first: short:2k,long")
    return checked(names), bounds


def checked(names: Sequence[str]) -> tuple[str, ...]:
    """Names that a limit can name; raises InputError."""
    for name in names:
        if not _NAME.fullmatch(name) or name.lower() in NAMES:
            raise InputError(f"'{name}' cannot be the name of a class", WHERE, "letters, digits, '_', '-', '.', '/', and no latency's name")
    if len(set(names)) < len(names) or len(names) > MOST:
        raise InputError(f"expected at most {MOST} classes of different names", WHERE, _GRAMMAR)
    return tuple(names)


class Reader:
    """Class numbers of the cells of a column that is read piece by piece."""

    __slots__ = ("column", "numbers")

    def __init__(self, column: str) -> None:
        self.column, self.numbers = column, dict[str, int]()

    def of(self, cells: Iterable[Any]) -> Ints:
        """The class of each cell; raises InputError where there are too many."""
        known = self.numbers
        found = [known.setdefault(self._name(cell), len(known)) for cell in cells]
        if len(known) > MOST:
            told = f"column '{self.column}' has more than {MOST} values, such as {', '.join(list(known)[:3])}"
            raise InputError(told, WHERE, "name a column of a few classes, or prompt lengths: short:2k,long")
        return np.array(found, np.int64)

    @staticmethod
    def _name(cell: Any) -> str:
        whole = isinstance(cell, float) and cell.is_integer()
        return str(int(cell) if whole else cell).strip() if cell not in (None, "") else UNKNOWN

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of their numbers."""
        return checked(tuple(self.numbers))


def classed(work: Workload, text: str | None) -> Workload:
    """The requests with the classes that a question asks for; raises InputError where the requests have none."""
    if not text:
        return work
    if not by_length(text):
        if not work.kinds:
            what = "no trace is read" if not work.source or not work.fmt else f"the requests of {work.source} have no classes"
            raise InputError(f"'{text}' names a column, and {what}", WHERE, _GRAMMAR)
        return work
    names, bounds = bounds_of(text)
    return replace(work, kind=np.searchsorted(np.array(bounds), work.prompt, side="left").astype(np.int64), kinds=names)


def check_limits(work: Workload, slos: Sequence[Slo]) -> None:
    """Raise InputError where a limit names a class that the requests do not have."""
    for slo in slos:
        if slo.kind and not work.kinds:
            hint = "add --classes COLUMN of the trace, or prompt lengths: --classes short:2k,long"
            raise InputError(f"{slo} is a limit of the class '{slo.kind}', and the requests have no classes", "--slo", hint)
        if slo.kind and slo.kind not in work.kinds:
            raise InputError(f"no request is of the class '{slo.kind}' that {slo} names", "--slo", f"there are {', '.join(work.kinds)}")
