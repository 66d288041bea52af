"""Head-room: how many times the load of the question a plan holds, within the limits or else before its queue grows (floor 5).

Which side of once the answer lies on is what the study says of the load that was asked for.
"""

from __future__ import annotations

from dataclasses import replace

from apexsim.search.assess import Assessed, Headroom
from apexsim.search.holding import STEP, grid_of, load_of, most_held, trials_of
from apexsim.search.remedy import Asked
from apexsim.search.size import Trials, kept, sides
from apexsim.search.study import Study

PLANS = 10  # the first of a study, as many as a page shows


def roomy(study: Study, _asked: Asked) -> Study:
    """The study with the head-room of its first plans and of the heuristic one; the first has its interval.

    A note says why there is none: requests that all come at once, or users without a limit."""
    why = none_of(study)
    if why:
        return replace(study, notes=(*study.notes, f"no head-room is known: {why}"))
    trials = trials_of(study)
    found = [
        replace(run, headroom=_of(study, trials, run, not place)) if place < PLANS or run.plan.shorthand == study.heuristic else run
        for place, run in enumerate(study.ranked)
    ]
    return replace(study, ranked=tuple(found))


def room_of_first(study: Study) -> Study:
    """The study with the head-room of its first plan, without an interval; as it is where none is known."""
    if none_of(study):
        return study
    first = replace(study.ranked[0], headroom=_of(study, trials_of(study), study.ranked[0], doubted=False))
    return replace(study, ranked=(first, *study.ranked[1:]))


def none_of(study: Study) -> str:
    """Why a study has no head-room; "" where it has."""
    work = study.setting.workload
    mode = work.mode
    if len(work.stage):
        return "the stages have loads of their own"
    if mode == "offline":
        return "all requests come at once, so there is no load to raise"
    return "users without a limit can wait, however many" if mode == "closed" and not (study.goal.limited or study.goal.slos) else ""


def _of(study: Study, trials: Trials, run: Assessed, doubted: bool) -> Headroom:
    """Of one plan."""
    asked, grid = load_of(study), grid_of(study, trials)
    at, holds = most_held(trials, run.plan, grid), kept(run, trials.wanted.share)
    value = max(at, asked) if holds else min(at, asked / STEP)
    found = Headroom(value / asked, open_end=holds and at >= grid[-1])
    if not doubted:
        return found
    high, low = (most_held(trials, run.plan, grid, slower) / asked for slower in sides(trials.setting, trials.goal, run))
    return replace(found, low=min(low, found.times), high=max(high, found.times))
