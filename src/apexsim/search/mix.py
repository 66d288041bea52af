"""Replicas of two kinds of GPU behind one router: the cheapest mix that keeps the limits of each interval (floor 5).

The router deals requests to the kinds in fixed shares, as much to each as its replicas serve under a steady load, evenly interleaved.  So
the kinds never meet, each is simulated with the requests that it is dealt, and the limits are held against all of them together.
Mixes of the best kind with one other are tried, cheapest first, while they cost less than the best kind alone; those that would serve
less under a steady load than the number of replicas at which the best kind fails are left out.

Ignored: routers that look at the replicas, and prefixes of prompts that one kind holds and the other does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.engine.kernel import Outcome
from apexsim.metrics import measure
from apexsim.search.evaluate import Evaluation, evaluate
from apexsim.search.fleet import Interval, Mix, Trace
from apexsim.search.pool import evaluated
from apexsim.search.size import SizeAnswer
from apexsim.workload.trace import Workload

TRIED = 8  # mixes of an interval that are simulated
FEWER = 0.97  # of the load at which the best kind fails: what a steady load says of a mix may be so much off
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ReplicaKind:
    """One kind of replica over a trace."""

    unit: SizeAnswer
    trace: Trace
    inputs: Mapping[str, Any] = field(default_factory=dict)  # of its question

    @property
    def rent(self) -> float:
        """Of a replica [$/h]."""
        return self.unit.rent


def mixed(
    kinds: Sequence[ReplicaKind],
    intervals: Sequence[Interval],
    progress: Callable[[int, int, str], None] | None = None,
    *,
    workers: int = 0,
    ray: str | None = None,
) -> Mix:
    """The cheapest mix of every interval.  workers, ray: as of a search (`search.pool`)."""
    rows = []
    for t, row in enumerate(evaluated(partial(_cheapest, kinds, intervals), range(len(intervals)), workers, ray)):
        rows.append(row)
        if progress:
            progress(t + 1, len(intervals), "mixes")
    return Mix(tuple(kind.unit for kind in kinds), np.array(rows, np.int64).reshape(-1, len(kinds)), kinds[0].trace.asked.every)


def _cheapest(kinds: Sequence[ReplicaKind], intervals: Sequence[Interval], t: int) -> list[int]:
    """Replicas of each kind."""
    need, alone = intervals[t].need, [0] * len(kinds)
    alone[0] = need
    if not intervals[t].requests:
        return alone
    for at, first, other in list(_candidates(kinds, need))[:TRIED]:
        if _keeps(kinds[0].trace, first, kinds[at].trace, other, t):
            found = [0] * len(kinds)
            found[0], found[at] = first, other
            return found
    return alone


def _candidates(kinds: Sequence[ReplicaKind], need: int) -> Iterator[tuple[int, int, int]]:
    """(other kind, replicas of the best kind, of the other) of mixes that cost less than the best kind alone, cheapest first."""
    best, found = kinds[0], []
    for at, other in enumerate(kinds[1:], 1):
        for first in range(need):
            lacks = (need - 1) * FEWER * best.trace.rate - first * best.trace.rate
            least = max(1, math.ceil(lacks / other.trace.rate))
            most = math.ceil((need - first) * best.rent / other.rent) - 1
            found += [
                (first * best.rent + n * other.rent, at, first, n) for n in range(least, most + 1) if first + n >= best.trace.asked.least
            ]
    yield from (row[1:] for row in sorted(found))


def dealt(size: int, share: float) -> Bools:
    """[size] requests that go to the kind with a share of them, evenly interleaved."""
    steps = np.floor(np.arange(size + 1) * share + 0.5)
    return np.asarray(np.diff(steps) > 0)


def _keeps(a: Trace, first: int, b: Trace, other: int, t: int) -> bool:
    """Whether an interval keeps the limits with replicas of two kinds."""
    if not first:
        return b.keeps(t, other)
    work = a.slice(t)
    to_b = dealt(work.size, other * b.rate / (first * a.rate + other * b.rate))
    if not to_b.any() or to_b.all():
        return False
    runs = [_run(trace, count, work.only(mine)) for trace, count, mine in ((a, first, ~to_b), (b, other, to_b))]
    return a.held(measure(_together(runs, to_b), work, devices=1, slos=a.goal.slos))


def _run(trace: Trace, count: int, work: Workload) -> Outcome:
    found = evaluate(replace(trace.setting, workload=work), replace(trace.plan, replicas=count))
    assert isinstance(found, Evaluation)
    return found.outcome


def _together(runs: Sequence[Outcome], to_b: Bools) -> Outcome:
    """What happened to all requests, of those dealt to one kind and to the other."""
    a, b = runs

    def column(name: str) -> NDArray[Any]:
        one, two = getattr(a, name), getattr(b, name)
        made = np.empty(len(to_b), one.dtype)
        made[~to_b], made[to_b] = one, two
        return made

    columns = {name: column(name) for name in ("sent", "start", "first", "finish", "preempted")}
    return replace(a, **columns, gaps=np.concatenate((a.gaps, b.gaps)), hit=a.hit[:0])
