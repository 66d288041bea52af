"""The ranked plans as one table (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from apexsim.plan.space import runnable
from apexsim.report.draw import percent, sig, times
from apexsim.search.study import Ranked, Study
from apexsim.slo import parse_slos
from apexsim.units import format_count

STATS = ("mean", "p50", "p95", "p99")
WIDE_STATS = ("mean", "std", "min", "p50", "p75", "p90", "p95", "p99", "max")
LATENCIES = (("ttft", "TTFT"), ("tpot", "TPOT"), ("itl", "ITL"), ("e2e", "E2E"))
# Sets of statistics from the richest to the leanest; the first whose table is not too wide is shown.
CHOICES = (STATS, ("mean", "p50", "p99"), ("mean", "p99"), ("mean",))


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, side and cells."""

    title: str
    side: str
    cells: tuple[str, ...]

    @property
    def width(self) -> int:
        """Characters it takes, gap included."""
        return 2 + max(len(line) for text in (self.title, *self.cells) for line in text.split("\n"))


def ranking(
    study: Study, rows: Sequence[Ranked], width: float, everything: bool = False
) -> tuple[list[Column], tuple[str, ...]]:
    """The richest columns that fit `width` characters, and remarks: what was left out, what initials mean."""
    wanted = (WIDE_STATS, *CHOICES) if everything else CHOICES
    for stats, short in product(wanted, (False, True)):
        made = _columns(study, rows, stats, short)
        if 2 + sum(c.width for c in made) <= width or (everything and short):
            break
    remarks = ("more statistics on a wider page or with --json",) if len(stats) < len(STATS) else ()
    used = {mark for r in rows for mark in marks(study, r)}
    return made, (*remarks, *(f"{mark[0]}: {mark}" for mark in sorted(used) if short))


def _columns(study: Study, rows: Sequence[Ranked], stats: Sequence[str], short: bool) -> list[Column]:
    place = {id(r): i + 1 for i, r in enumerate(study.ranked)}
    left = [
        _column("#", "right", rows, lambda r: str(place[id(r)])),
        _column("plan", "left", rows, lambda r: r.plan.shorthand),
        _column("ratio", "right", rows, lambda r: times(r.ratio)),
        _column("KV room\n[tokens]", "right", rows, lambda r: format_count(r.room.tokens * r.plan.lanes)),
    ]
    middle = [_latency(name, title, rows, stats) for name, title in LATENCIES]
    right = [
        _column("req/s", "right", rows, lambda r: sig(r.metrics.request_throughput_per_s)),
        _column("output\ntok/s", "right", rows, lambda r: sig(r.metrics.output_throughput_tok_s, 4)),
        _column("tok/s\nper GPU", "right", rows, lambda r: sig(r.metrics.output_throughput_tok_s / r.plan.devices)),
        *_goodput(study, rows),
        *_spent(study, rows),
        _column(
            "", "left", rows, lambda r: " ".join(m[0] for m in marks(study, r)) if short else ", ".join(marks(study, r))
        ),
    ]
    return [*left, *middle, *right]


def _column(title: str, side: str, rows: Sequence[Ranked], cell: Callable[[Ranked], str]) -> Column:
    return Column(title, side, tuple(cell(r) for r in rows))


def _latency(name: str, title: str, rows: Sequence[Ranked], stats: Sequence[str]) -> Column:
    """One latency with all its statistics, right-aligned side by side, in the unit that suits the largest."""
    numbers = [[r.metrics.latency(name, stat) for stat in stats] for r in rows]
    largest = max((x for row in numbers for x in row if math.isfinite(x)), default=0.0)
    scale, unit = (1.0, "s") if largest >= 10.0 else (1e3, "ms")
    cells = [[sig(x * scale) for x in row] for row in numbers]
    if len(stats) == 1:
        return Column(f"{title}\n{stats[0]} {unit}", "right", tuple(row[0] for row in cells))
    widths = [max(len(stat), *(len(row[i]) for row in cells)) for i, stat in enumerate(stats)]
    lines = [" ".join(text.rjust(w) for text, w in zip(row, widths)) for row in (stats, *cells)]
    return Column(
        f"{title} [{unit}]".center(len(lines[0])).rstrip().ljust(len(lines[0])) + "\n" + lines[0],
        "right",
        tuple(lines[1:]),
    )


def _goodput(study: Study, rows: Sequence[Ranked]) -> list[Column]:
    """Goodput and attainment where requests have limits."""
    if not any(slo.per_request for slo in parse_slos(study.slos)):
        return []
    return [
        _column("goodput\nreq/s", "right", rows, lambda r: sig(r.metrics.goodput_req_s)),
        _column("meet\nSLOs", "right", rows, lambda r: percent(r.metrics.attainment)),
    ]


SPENT = {"energy": "J per\ntoken", "wall-energy": "J per\ntoken", "cost": "$ per\n1M out"}


def _spent(study: Study, rows: Sequence[Ranked]) -> list[Column]:
    """The objective, where it is an energy or a cost."""
    title = SPENT.get(study.objective)
    return [_column(title, "right", rows, lambda r: sig(r.value))] if title else []


def marks(study: Study, ranked: Ranked) -> list[str]:
    """What a reader should know of a plan beside its numbers; the first letters differ."""
    first = study.ranked[0]
    facts = {
        "heuristic": ranked.plan.shorthand == study.heuristic,
        "≈ the first": ranked.tie and first.tie and ranked is not first,
        "saturated": ranked.metrics.saturated,
        "misses a limit": not ranked.keeps,
        "preempts": ranked.metrics.preemptions > 0,
        f"not in {study.setting.engine.name}": bool(runnable(ranked.plan, study.setting.model, study.setting.engine.engine)),
    }
    return [mark for mark, holds in facts.items() if holds]
