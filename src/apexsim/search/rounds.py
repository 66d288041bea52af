"""Plans that are run in groups, of which the later depend on what came of the earlier (floor 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apexsim.plan.split import AnyPlan
from apexsim.search.assess import Assessed
from apexsim.search.pool import Result


class Rounds:
    """Plans that are run group after group, each to its end unless the user stops it: then no other begins."""

    def __init__(self, go: Callable[[Sequence[AnyPlan], list[Result]], list[Result]]) -> None:
        self.go = go
        self.plans: tuple[AnyPlan, ...] = ()
        self.results: list[Result] = []

    @property
    def stopped(self) -> bool:
        """Whether there are plans that nobody looked at."""
        return len(self.results) < len(self.plans)

    @property
    def fitting(self) -> list[Assessed]:
        """What came of the plans that fit."""
        return [result for result in self.results if isinstance(result, Assessed)]

    def add(self, plans: Sequence[AnyPlan]) -> None:
        """Run these too."""
        stopped = self.stopped
        self.plans = (*self.plans, *plans)
        if plans and not stopped:
            self.results = self.go(plans, self.results)

    def keep_winners(self, asked: int) -> None:
        """Of what came after the first `asked` plans only what beats them all stays."""
        mark = min((run.key for run in self.results[:asked] if isinstance(run, Assessed)), default=None)
        won = [run for run in self.results[asked:] if isinstance(run, Assessed) and (mark is None or run.key < mark)]
        self.plans, self.results = (*self.plans[:asked], *(run.plan for run in won)), [*self.results[:asked], *won]
