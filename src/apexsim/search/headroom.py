"""Head-room: how many times the load of the question a plan holds, within the limits or else before its queue grows (floor 5).

Loads are those of `search.size`: the requests of the question, enough times over that the batch fills, their arrivals stretched or sent by
more users, and bisection on a fixed grid.  Which side of once the answer lies on is what the study says of the load that was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from apexsim.plan.split import AnyPlan
from apexsim.search.assess import Assessed, Headroom
from apexsim.search.curve import repeated
from apexsim.search.remedy import Asked
from apexsim.search.size import COMING, EACH, MADE, USUAL, Slower, Trials, Wanted, kept, most, sides, user_grid
from apexsim.search.study import Study
from apexsim.workload.load import mean_rate

PLANS = 10  # the first of a study, as many as a page shows
STEP, FARTHEST = 1.02, 16.0  # from one load of the grid to the next, and how far they go up and down


def roomy(study: Study, _asked: Asked) -> Study:
    """The study with the head-room of its first plans and of the heuristic one; the first has its interval.

    A note says why there is none: requests that all come at once, or users without a limit."""
    why = none_of(study)
    if why:
        return replace(study, notes=(*study.notes, f"no head-room is known: {why}"))
    trials = _trials(study)
    found = [
        replace(run, headroom=_of(study, trials, run, not place)) if place < PLANS or run.plan.shorthand == study.heuristic else run
        for place, run in enumerate(study.ranked)
    ]
    return replace(study, ranked=tuple(found))


def none_of(study: Study) -> str:
    """Why a study has no head-room; "" where it has."""
    work = study.setting.workload
    mode = work.mode
    if len(work.stage):
        return "the stages have loads of their own"
    if mode == "offline":
        return "all requests come at once, so there is no load to raise"
    return "users without a limit can wait, however many" if mode == "closed" and not (study.goal.limited or study.goal.slos) else ""


def load_of(study: Study) -> float:
    """The load of the question: requests/s, or users."""
    work = study.setting.workload
    return float(work.concurrency) if work.mode == "closed" else mean_rate(work.arrive)


def _trials(study: Study) -> Trials:
    work = study.setting.workload
    closed = work.mode == "closed"
    setting = replace(study.setting, workload=repeated(work, MADE if closed else COMING))
    return Trials(setting, study.goal, Wanted("users" if closed else "rate", think=work.think))


def _grid(study: Study, trials: Trials) -> Sequence[float]:
    if trials.closed:
        return user_grid(max(1, trials.setting.workload.size // EACH))
    far, rate = math.ceil(math.log(FARTHEST) / math.log(STEP)), load_of(study)
    return [rate * STEP**k for k in range(-far, far + 1)]


def _of(study: Study, trials: Trials, run: Assessed, doubted: bool) -> Headroom:
    """Of one plan."""
    asked, grid = load_of(study), _grid(study, trials)
    at, holds = _most(trials, run.plan, grid), kept(run, trials.wanted.share)
    value = max(at, asked) if holds else min(at, asked / STEP)
    found = Headroom(value / asked, open_end=holds and at >= grid[-1])
    if not doubted:
        return found
    high, low = (_most(trials, run.plan, grid, slower) / asked for slower in sides(trials.setting, trials.goal, run))
    return replace(found, low=min(low, found.times), high=max(high, found.times))


def _most(trials: Trials, plan: AnyPlan, grid: Sequence[float], slower: Slower = USUAL) -> float:
    """The most load of the grid that holds; 0 where none does."""
    at = most(len(grid), lambda k: trials.holds(plan, grid[k], slower))
    return grid[at] if at >= 0 else 0.0
