"""One question asked with several values of some of its words: GPUs, counts, engines, settings, loads (floor 5).

Every combination is a search of its own.  Values of the *load* (rates, users, lengths) make scenarios, which are not compared with
each other; in each scenario the *choices* (GPU, counts, engine, settings, formats, model) are ranked like plans: those that keep the
limits first, then those that keep up with the load, then by the objective.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from numbers import Real
from typing import Any

from apexsim.aims import Aim
from apexsim.errors import Infeasible, InputError
from apexsim.search.assess import Assessed
from apexsim.search.error import tie
from apexsim.search.front import Candidate, Front, front_of, worth_keeping
from apexsim.search.goal import Goal
from apexsim.search.search import Progress
from apexsim.search.study import Study
from apexsim.typed import stated
from apexsim.views import Shown

LOADS = ("request_rate", "concurrency", "prompt_len", "output_len", "num_requests", "burstiness")
CHOICES = ("model", "gpu", "gpus", "nodes", "engine", "max_num_seqs", "max_num_batched_tokens", "memory_fraction", "block_size",
           "capture", "kv_dtype", "weight_dtype", "sampling", "route", "tp", "pp", "dp", "ep")  # fmt: skip
MOST = 512  # combinations
Value = str | int | float


@dataclass(frozen=True, slots=True)
class SweptAxis:
    """A word of the question and the values that it takes."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One combination.  study: its answer with the first plan alone, None where nothing fits; why: then the reason."""

    values: tuple[Value, ...]  # in the order of the axes
    study: Study | None
    why: str = ""
    front: tuple[Assessed, ...] = ()  # further plans that a Pareto front may need

    @property
    def first(self) -> Assessed:
        """The plan that stands for it."""
        assert self.study is not None
        return self.study.ranked[0]


@dataclass(frozen=True, repr=False)
class Sweep(Shown):
    """All combinations, in the order of the question, with what counts."""

    model: str
    inputs: Mapping[str, Any]  # the question, lists as tuples
    axes: tuple[SweptAxis, ...]
    points: tuple[SweepPoint, ...]
    goal: Goal
    interrupted: tuple[int, int] | None = None  # combinations done, of how many, where the user stopped

    @cached_property
    def scenarios(self) -> tuple[tuple[tuple[Value, ...], tuple[SweepPoint, ...]], ...]:
        """(values of the load's axes, combinations that fit, best first) of each load."""
        at = [i for i, axis in enumerate(self.axes) if axis.name in LOADS]
        groups: dict[tuple[Value, ...], list[SweepPoint]] = {}
        for point in self.points:
            groups.setdefault(tuple(point.values[i] for i in at), []).append(point)
        return tuple((load, tuple(sorted((p for p in group if p.study), key=lambda p: p.first.key))) for load, group in groups.items())

    @property
    def best(self) -> SweepPoint | None:
        """The best combination of the last scenario in which anything fits, by the order of the question."""
        return next((group[0] for _, group in reversed(self.scenarios) if group), None)

    @property
    def keeps(self) -> bool:
        """Whether every scenario has a combination that keeps the limits."""
        return all(group and group[0].first.keeps for _, group in self.scenarios)

    def good(self, point: SweepPoint) -> bool:
        """Whether a combination keeps the limits and the load."""
        return point.first.keeps and not point.first.metrics.saturated

    def cheapest(self, group: Sequence[SweepPoint]) -> SweepPoint | None:
        """The combination of least rent that keeps the limits and the load; None where no rent is known."""
        able = [p for p in group if self.good(p) and math.isfinite(self.rent(p))]
        return min(able, key=lambda p: (self.rent(p), p.first.key)) if able else None

    @staticmethod
    def rent(point: SweepPoint) -> float:
        """Of all GPUs [$/h]; NaN where no book has it."""
        return point.first.metrics.usd_h * point.first.metrics.devices

    def ties(self, point: SweepPoint, other: SweepPoint) -> bool:
        """Whether two combinations cannot be told apart.

        Two of one GPU, engine and model differ as two plans of one study do, others by the errors of both.
        """
        assert point.study is not None and other.study is not None
        if not (self.good(point) and self.good(other)):
            return False
        differ = [axis.name for axis, a, b in zip(self.axes, point.values, other.values) if a != b]
        alike = not {"gpu", "engine", "model"} & set(differ)
        width = point.study.error[1] if alike else math.hypot(point.study.error[0], other.study.error[0])
        return tie(point.first.value, other.first.value, width)

    def front(self, words: Callable[[SweepPoint], str], aims: tuple[Aim, ...] = ()) -> Front:
        """One Pareto front of all combinations under all loads; words: what tells a point from others."""
        every = [(point, run) for point in self.points if point.study for run in (point.first, *point.front)]
        candidates = (Candidate(words(point), point.study.setting, run) for point, run in every if point.study)
        return front_of(aims or self.goal.aims, self.goal.risk, candidates)

    def worth(self, axis: SweptAxis, group: Sequence[SweepPoint]) -> tuple[tuple[Value, SweepPoint | None], ...]:
        """(value, best combination that has it) of an axis in one scenario."""
        at = self.axes.index(axis)
        return tuple((value, next((p for p in group if p.values[at] == value), None)) for value in axis.values)


def axes_of(model: str | Sequence[str], question: Mapping[str, Any]) -> tuple[SweptAxis, ...]:
    """The words of a question that have several values; raises InputError for a word that takes one."""
    every = {"model": model, **question, **_settings(question)}
    found = [
        SweptAxis(name, _values(name, value))
        for name, value in every.items()
        if isinstance(value, (list, tuple)) and name in (*CHOICES, *LOADS)
    ]
    order = (*LOADS, *CHOICES)
    return tuple(sorted(found, key=lambda axis: order.index(axis.name)))


def _settings(question: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's settings in a question; none where they are no mapping, which `check_keywords` refuses."""
    settings = question.get("settings")
    return dict(settings) if isinstance(settings, Mapping) else {}


def _values(name: str, given: Sequence[Any]) -> tuple[Value, ...]:
    """The values of a list, each once; raises InputError where there are none, or one that is a list itself."""
    flag = f"--{name.replace('_', '-')}"
    if not given:
        raise InputError("a list without values", flag, "name one value at least")
    for value in given:
        if isinstance(value, bool) or not isinstance(value, (str, Real, os.PathLike)):
            raise InputError(f"expected a list of names or numbers, got {type(value).__name__} in it", flag)
    return tuple(dict.fromkeys(str(value) if isinstance(value, os.PathLike) else value for value in given))


def combinations(
    model: str | Sequence[str], question: Mapping[str, Any], axes: Sequence[SweptAxis]
) -> Iterator[tuple[tuple[Value, ...], str, dict[str, Any]]]:
    """(values, model, question) of every combination; raises InputError where there are too many."""
    size = math.prod(len(axis.values) for axis in axes)
    if size > MOST:
        raise InputError(f"{size:,} combinations are asked for", "", f"at most {MOST} are: fewer values, or fewer lists")
    settings = _settings(question)
    for values in product(*(axis.values for axis in axes)):
        changes = dict(zip((axis.name for axis in axes), values))
        own = {name: changes.pop(name) for name in tuple(changes) if name in settings}
        name = str(changes.pop("model", model))
        yield values, name, {**question, **changes, **({"settings": {**settings, **own}} if own else {})}


class SweepInterrupted(KeyboardInterrupt):
    """The user stopped a sweep; `sweep` holds the combinations that were done by then."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        super().__init__("after {} of {} combinations".format(*(sweep.interrupted or ())))


def swept(
    model: str | Sequence[str],
    question: Mapping[str, Any],
    axes: tuple[SweptAxis, ...],
    asked: Callable[[str, dict[str, Any]], Study],
    progress: Progress | None = None,
    seen: Callable[[SweepPoint], None] | None = None,
) -> Sweep:
    """The answer to every combination; raises Infeasible where nothing fits in any, and SweepInterrupted when the user stops it."""
    every = list(combinations(model, question, axes))
    points: list[SweepPoint] = []
    with suppress(KeyboardInterrupt):
        for values, name, one in every:
            points.append(_point(values, partial(asked, name, one)))
            if seen:
                seen(points[-1])
            if progress:
                progress(len(points), len(every), ", ".join(map(str, values)))
    stopped = len(points) < len(every)
    goal = next((p.study.goal for p in points if p.study), None)
    if goal is None:
        if stopped:
            raise KeyboardInterrupt
        raise Infeasible(f"none of {len(points)} combinations fits: {points[-1].why}", "larger or more GPUs")
    found = Sweep(model if isinstance(model, str) else ",".join(model), stated(question), axes, tuple(points), goal)
    if stopped:
        raise SweepInterrupted(replace(found, interrupted=(len(points), len(every))))
    return found


def _point(values: tuple[Value, ...], asked: Callable[[], Study]) -> SweepPoint:
    """The answer to one combination, its first plan alone and without what is kept of each request."""
    try:
        study = asked()
    except Infeasible as error:
        return SweepPoint(values, None, error.reason)
    first = replace(study.ranked[0], outcome=None)
    front = tuple(replace(run, outcome=None) for run in worth_keeping(study))
    return SweepPoint(values, replace(study, ranked=(first,), hypothetical=(), rejected=()), front=front)
