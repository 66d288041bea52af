"""The two kinds of failure a caller can meet (floor 0).

Bad input raises `InputError`: what was expected, what came, what to try.  An infeasible plan is a *value*,
`Rejected`, because a search meets thousands of them.  A broken invariant is an `assert`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class InputError(Exception):
    """Something the user gave cannot be used.

    what: the problem, naming what was expected and what came; where: the file, option or key; hint: what to try.
    """

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(self.line())

    def line(self) -> str:
        """The error as one line."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}; {self.hint}" if self.hint else head


class Infeasible(Exception):
    """The request is sound, but nothing the user has can serve it (exit code 3)."""

    def __init__(self, reason: str, nearest: str = "") -> None:
        self.reason, self.nearest = reason, nearest
        super().__init__(f"{reason}; {nearest}" if nearest else reason)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A plan that cannot be built or does not fit, with the numbers that failed."""

    rule: str
    reason: str
    shorthand: str = ""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint with the known names closest to `name`, or all of them when few."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name.lower(), names, n=4, cutoff=0.4)
    return f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(names[:12])}{' …' if len(names) > 12 else ''}"
