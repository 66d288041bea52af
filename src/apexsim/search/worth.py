"""Is it worth it to serve prompts and tokens apart, and from which prompt length or load on? (floor 5)

The best plan of two pools against the best of one, by the goal of the search.  The same requests are then sent with shorter and longer
prompts, and at lower and higher load (common random numbers), to the first few plans of each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from apexsim.errors import Rejected
from apexsim.plan.split import AnyPlan
from apexsim.search.assess import Assessed, assess
from apexsim.search.goal import Goal
from apexsim.search.setting import Setting
from apexsim.search.study import Compared, Study, Worth
from apexsim.workload.trace import Workload

TRIED = 2  # plans of each kind that a point tries, and one that suits few prompts
REQUESTS = 500  # of a point, …
TURNS = 4  # … at least so many of each user
PROMPTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)
LOADS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)


def with_worth(study: Study) -> Study:
    """The study with what two pools are worth, where plans of both kinds are ranked."""
    apart, together = ([run for run in study.ranked if run.split is kind] for kind in (True, False))
    if not apart or not together:
        return study
    kinds = _tried(apart), _tried(together)
    work = _part(study.setting.workload)
    axes: list[tuple[str, tuple[float, ...], Callable[[Workload, float], Workload]]] = []
    if not work.block:  # prompts that share their beginnings are not cut
        axes.append(("prompt", PROMPTS, _prompts))
    if work.mode != "offline":
        axes.append(("load", LOADS, _load))
    points = tuple(
        _compared(study.goal, name, factor, apart[0], together[0])
        if factor == 1.0  # as the whole workload tells
        else _point(study, kinds, name, factor, change(work, factor))
        for name, factors, change in axes
        for factor in factors
    )
    return replace(study, worth=Worth(apart[0], together[0], points))


def _tried(runs: Sequence[Assessed]) -> list[AnyPlan]:
    """The first plans of a kind, and of two pools the one with fewest GPUs for prompts."""
    light = min(runs, key=lambda run: run.sides[0].plan.devices if run.split else 0)
    return list(dict.fromkeys([*(run.plan for run in runs[:TRIED]), light.plan]))


def _part(work: Workload) -> Workload:
    """Enough of the requests to compare by; sessions and prefixes stay whole."""
    if work.size <= REQUESTS or len(work.after) or work.block:
        return work
    count = min(work.size, max(REQUESTS, TURNS * work.concurrency))
    return replace(work.only(np.arange(count)), warmup=min(work.warmup, work.concurrency or count // 10))


def _prompts(work: Workload, factor: float) -> Workload:
    return replace(work, prompt=np.maximum(1, np.round(work.prompt * factor)).astype(np.int64))


def _load(work: Workload, factor: float) -> Workload:
    """The same requests, so many times as fast or from so many times the users."""
    if work.mode == "closed":
        users = max(1, min(round(work.concurrency * factor), work.size))
        return replace(work, concurrency=users, warmup=min(work.warmup, users))
    return replace(work, arrive=work.arrive / factor)


def _point(study: Study, kinds: tuple[Sequence[AnyPlan], ...], axis: str, factor: float, work: Workload) -> Compared:
    """How many times better the best plan of two pools is than the best of one."""
    length = max(study.setting.max_model_len, min(work.longest, study.setting.model.max_length))
    if work.longest > length:
        return Compared(axis, factor, float("nan"), "", "")
    setting = _at(study.setting, work, length)
    best = [_best(setting, study.goal, plans) for plans in kinds]
    apart, together = best
    if apart is None or together is None:
        return Compared(axis, factor, float("nan"), "", "")
    return _compared(study.goal, axis, factor, apart, together)


def _compared(goal: Goal, axis: str, factor: float, apart: Assessed, together: Assessed) -> Compared:
    names = apart.plan.shorthand, together.plan.shorthand
    if apart.key[:2] != together.key[:2]:  # limits, then load
        return Compared(axis, factor, float("inf") if apart.key[:2] < together.key[:2] else 0.0, *names)
    return Compared(axis, factor, goal.objective.ratio(apart.value, together.value), *names)


def _at(setting: Setting, work: Workload, length: int) -> Setting:
    """The question with another workload."""
    pools = tuple(replace(pool, max_model_len=length) for pool in setting.pools)
    return replace(setting, workload=work, max_model_len=length, pools=pools)


def _best(setting: Setting, goal: Goal, plans: Sequence[AnyPlan]) -> Assessed | None:
    found: list[Assessed] = [run for plan in plans if not isinstance(run := assess(setting, goal, plan), Rejected)]
    return min(found, key=lambda run: run.key) if found else None
