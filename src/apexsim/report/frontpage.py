"""A Pareto front: as a table, a small picture and JSON (floor 6)."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from apexsim.report.canvas import Mark, picture
from apexsim.report.draw import percent, sig
from apexsim.report.page import columns, heading, labelled
from apexsim.search.front import Front, Member

SHOWN = 26  # members that have a letter in the picture
BEATEN = "·"
KNEE = "knee: nearest to the best of every goal at once, each scaled to the front's range"


def parts(front: Front, width: float) -> Iterator[RenderableType]:
    """The section of a page."""
    yield Text()
    yield heading("pareto", _told(front), width=width)
    if not front.members:
        return
    heads = [("", "left"), ("plan", "left"), *((aim.title.replace(" [", "\n["), "right") for aim in front.aims), ("", "left")]
    shown = front.members[:SHOWN]
    rows = [[string.ascii_uppercase[i], m.candidate.name, *_cells(m), "knee" if i == front.knee else ""] for i, m in enumerate(shown)]
    yield columns(heads, rows, bold=front.knee)
    yield Text("\n".join(f"  {line}" for line in drawn(front, width - 2)), no_wrap=True)
    yield labelled(_legend(front), width)


def _told(front: Front) -> str:
    aims = ", ".join(f"{aim.title} {'up' if aim.sign < 0 else 'down'}" for aim in front.aims)
    if not front.members:
        return f"{aims}: no plan keeps limits and load"
    risk = f", at a risk of {percent(front.risk)}" * bool(front.risk)
    return f"{len(front.members)} of {len(front.members) + len(front.others) + front.out} by {aims}{risk}"


def _cells(member: Member) -> list[str]:
    return [
        f"{sig(v)} ± {sig((high - low) / 2, 2)}" if high > low else sig(v) for v, low, high in zip(member.values, member.low, member.high)
    ]


def _legend(front: Front) -> list[tuple[str, str]]:
    rows = [("knee", KNEE.partition(": ")[2])] if front.knee >= 0 else []
    rows += [(BEATEN, f"{len(front.others)} beaten in every goal by one on the front, not listed")] if front.others else []
    rows += [("risk", "what competes is every value at the bad end of its doubt")] if front.risk else []
    rows += [("out", f"{front.out} that miss a limit or do not keep up with the load")] if front.out else []
    hidden = len(front.members) - SHOWN
    return [*rows, *([("…", f"{hidden} more on the front: --json")] if hidden > 0 else [])]


def drawn(front: Front, width: float) -> list[str]:
    """The picture of the first two goals."""
    first, second = (aim.title for aim in front.aims[:2])
    beaten, kept = front.others, front.members[:SHOWN]
    marks = [
        Mark(BEATEN, [m.values[0] for m in beaten], [m.values[1] for m in beaten]),
        Mark(string.ascii_uppercase, [m.values[0] for m in kept], [m.values[1] for m in kept]),
    ]
    return picture(marks, first, second, width)


def front_json(front: Front) -> dict[str, Any]:
    """The front as plain values."""
    return {
        "goals": [{"name": str(aim), "title": aim.row.title, "unit": aim.row.unit, "stat": aim.stat or None,
                   "better": "lower" if aim.sign > 0 else "higher"} for aim in front.aims],
        "risk": front.risk, "members": [_record(front, i) for i in range(len(front.members))],
        "beaten": len(front.others), "out": front.out,
    }  # fmt: skip


def _record(front: Front, i: int) -> dict[str, Any]:
    member = front.members[i]
    return {
        "label": member.candidate.label, "plan": member.candidate.run.plan.shorthand, "knee": i == front.knee,
        "values": list(member.values), "low": list(member.low), "high": list(member.high), "at_risk": list(member.at),
    }  # fmt: skip
