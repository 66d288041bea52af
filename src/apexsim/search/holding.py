"""How much of a load a plan of a study holds, within the limits or else before its queue grows (floor 5).

Loads are those of `search.size`: the requests of the question, enough times over that the batch fills, their arrivals stretched or sent by
more users, and bisection on a fixed grid.  So head-room, what is advised in overload and `size` speak of the same load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from apexsim.plan.split import AnyPlan
from apexsim.search.size import COMING, EACH, MADE, USUAL, Slower, Trials, Wanted, most, user_grid
from apexsim.search.study import Study
from apexsim.workload.load import mean_rate
from apexsim.workload.repeat import repeated

STEP, FARTHEST = 1.02, 32.0  # from one rate of the grid to the next, and how far they go up and down


def load_of(study: Study) -> float:
    """The load of the question: requests/s, or users."""
    work = study.setting.workload
    return float(work.concurrency) if work.mode == "closed" else mean_rate(work.arrive)


def trials_of(study: Study) -> Trials:
    """Plans of a study under other loads."""
    work = study.setting.workload
    closed = work.mode == "closed"
    setting = replace(study.setting, workload=repeated(work, MADE if closed else COMING))
    return Trials(setting, study.goal, Wanted("users" if closed else "rate", think=work.think))


def grid_of(study: Study, trials: Trials) -> Sequence[float]:
    """The loads that are looked at, ascending."""
    if trials.closed:
        return user_grid(max(1, trials.setting.workload.size // EACH))
    far, rate = math.ceil(math.log(FARTHEST) / math.log(STEP)), load_of(study)
    return [rate * STEP**k for k in range(-far, far + 1)]


def most_held(trials: Trials, plan: AnyPlan, grid: Sequence[float], slower: Slower = USUAL) -> float:
    """The most load of the grid that holds; 0 where none does."""
    at = most(len(grid), lambda k: trials.holds(plan, grid[k], slower))
    return grid[at] if at >= 0 else 0.0
