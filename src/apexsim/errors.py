"""The kinds of failure a caller can meet (floor 0).

Bad input raises `InputError`: what was expected, what came, what to try.  An infeasible plan is a *value*,
`Rejected`, because a search meets thousands of them.  A broken invariant is an `assert`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST_VALUE = 80  # characters of a quoted value that a message repeats …
LONGEST_WORD = 200  # … of a path or another word without a space …
LONGEST_LINE = 1000  # … and of a whole message
FEW = 12  # names that are simply listed


def shortened(text: str) -> str:
    """A message in which values of the user, quoted or without a space, are cut to a size that can be read."""
    text = re.sub(rf"'[^']{{{LONGEST_VALUE + 1},}}'|\S{{{LONGEST_WORD + 1},}}", _cut, text)
    return text if len(text) <= LONGEST_LINE else text[: LONGEST_LINE - 1] + "…"


def _cut(found: re.Match[str]) -> str:
    """Head and tail of a value: paths are told apart by their ends."""
    return f"{found[0][: LONGEST_VALUE - 24]}…{found[0][-23:]}"


class Error(Exception):
    """What this package raises: `InputError` or `Infeasible`."""


class InputError(Error):
    """Something the user gave cannot be used.

    what: the problem, naming what was expected and what came; where: the file, option or key; hint: what to try;
    record: what was found out before it failed, as plain values.
    """

    def __init__(self, what: str, where: str = "", hint: str = "", record: Mapping[str, Any] | None = None) -> None:
        self.what, self.where, self.hint, self.record = shortened(what), shortened(where), shortened(hint), record or {}
        super().__init__(self.line())

    def line(self) -> str:
        """The error as one line."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}; {self.hint}" if self.hint else head


class Infeasible(Error):
    """The request is sound, but nothing the user has can serve it (exit code 3); nearest: what would; record: as in InputError."""

    def __init__(self, reason: str, nearest: str = "", record: Mapping[str, Any] | None = None) -> None:
        self.reason, self.nearest, self.record = reason, nearest, record or {}
        super().__init__(f"{reason}; {nearest}" if nearest else reason)


class Unkept(Infeasible):
    """What is asked for fits, but no plan keeps its limits (exit code 4); nearest: what comes nearest."""


class Stopped(KeyboardInterrupt):
    """The user interrupted something whose results so far are `record`, as plain values."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = record
        super().__init__("interrupted")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A plan that cannot be built or does not fit, with the numbers that failed.

    short_bytes: memory that it lacks, NaN where that is not what it lacks; clock: of its GPUs [MHz], 0 = their own.
    """

    rule: str
    reason: str
    shorthand: str = ""
    short_bytes: float = math.nan
    clock: int = 0


# what a terminal would obey, what turns the direction of a text around, and halves of pairs, which no encoding holds
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
SCREEN = 1200  # characters of a message


def shown(text: str) -> str:
    """A text of foreign origin as it may be put on a terminal or into a page: what is no letter becomes its code."""
    return UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def cut(line: str, most: int = SCREEN) -> str:
    """A message that fits on a screen: the middle of a longer one is left out."""
    return line if len(line) <= most else f"{line[: most // 2]} … {line[-most // 2 :]}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint with the known names closest to `name`; where they are few and none is really close, all of them."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name.lower(), names, n=4, cutoff=0.7 if len(names) <= FEW else 0.4)
    return f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(names[:FEW])}{' …' * (len(names) > FEW)}"
