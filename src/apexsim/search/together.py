"""Several models that share the GPUs of one cluster: what each needs, the sum, and who goes short (floor 5).

Each model is followed as if it were alone (`search.follow`).  Their intervals are laid side by side, and what a policy asks for is dealt
out where the cluster has too little: by priority, then replica by replica to the model that has the smallest share of what it asks for.
What does not fit is passed over, so that nothing lies idle that someone can use; with one GPU more the sum that is dealt is no smaller.

Ignored: which node a replica lies in, and the time a GPU takes to change hands beyond the start of the replica.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.api import ask as api_ask
from apexsim.api import read_once
from apexsim.errors import Infeasible, InputError
from apexsim.hardware import counted
from apexsim.search.fleet import Course, Fleet, Trace, course_of, intervals_of, readied
from apexsim.search.follow import OWN, followed_alone, seconds_of
from apexsim.search.policy import Counts
from apexsim.views import Shown


@dataclass(frozen=True, slots=True)
class TenantAsk:
    """A model of the cluster, as it is asked about.  question: keywords of `search.follow.fleet`; priority: those of a higher one come
    first where GPUs are short; begins: seconds from the first moment of the cluster to that of its trace."""

    name: str
    model: str
    question: Mapping[str, Any]
    priority: int = 0
    begins: float = 0.0


@dataclass(frozen=True, slots=True)
class Tenant:
    """A model of the cluster.  alone: its answer without the others; first: its interval at which all traces have begun; courses: what
    each policy does with what it is given, over the time that all traces have in common."""

    ask: TenantAsk
    alone: Fleet
    first: int
    courses: tuple[Course, ...]

    def need(self, count: int) -> Counts:
        """GPUs that keep the limits [T]."""
        need: Counts = np.array([i.need for i in self.alone.intervals[self.first : self.first + count]], np.int64) * self.alone.gpus
        return need

    def wanted(self, at: int, count: int) -> Counts:
        """GPUs that a policy asks for [T]."""
        wanted: Counts = self.alone.courses[at].paid[self.first : self.first + count] * self.alone.gpus
        return wanted


@dataclass(frozen=True, slots=True, repr=False)
class SharedFleet(Shown):
    """The answer.  gpus: of the cluster, 0 where it has as many as are asked for; count: intervals that all traces have in common;
    begin: of the first of them [s]; left_out: intervals of single traces beyond them."""

    gpu: str
    gpus: int
    every: float
    tenants: tuple[Tenant, ...]
    count: int
    begin: float
    left_out: int
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def policies(self) -> tuple[str, ...]:
        """Names."""
        return self.tenants[0].alone.asked.policies

    @property
    def need(self) -> Counts:
        """GPUs that all models need [T]."""
        return np.asarray(np.array([one.need(self.count) for one in self.tenants]).sum(axis=0), np.int64)

    def wanted(self, at: int) -> Counts:
        """GPUs that all models ask for under a policy [T]."""
        return np.asarray(np.array([one.wanted(at, self.count) for one in self.tenants]).sum(axis=0), np.int64)

    def lacking(self, wanted: Counts) -> Counts:
        """GPUs by which the cluster is short [T]."""
        return np.maximum(wanted - self.gpus, 0) if self.gpus else np.zeros_like(wanted)

    @property
    def split(self) -> int:
        """GPUs of a fixed split: each model its own peak."""
        return int(sum(one.need(self.count).max() for one in self.tenants))

    @property
    def days(self) -> float:
        """That all traces have in common."""
        return self.count * self.every / 86_400.0


def together(
    asks: Sequence[TenantAsk],
    *,
    gpu: str,
    gpus: int | None = None,
    nodes: int | None = None,
    every: str | float = "15min",
    policy: str = "all",
    inputs: Mapping[str, Any] | None = None,
    **how: Any,
) -> SharedFleet:
    """Several models on one cluster.  gpus, nodes: of the cluster, without them as many as are asked for; every, policy: of all; how:
    progress, workers and ray of `search.follow.fleet`."""
    name, held = _kind(gpu)
    size = (gpus or int(held.get("gpus") or 0)) * (nodes or int(held.get("nodes") or 1))
    seconds = seconds_of(every, "--every")
    asks = sorted(asks, key=lambda ask: ask.name)
    shifts = [_shift(ask, seconds) for ask in asks]
    asks, counts = zip(*(_read(ask, name, seconds) for ask in asks))
    if all(counts):  # before anything is simulated
        _refuse(asks, shifts, counts)
    made = [_alone(ask, name, every=every, policy=policy, **how) for ask in asks]
    begin = max(shifts)
    end = min(shift + len(fleet.intervals) for shift, (fleet, _) in zip(shifts, made))
    _refuse(asks, shifts, [len(fleet.intervals) for fleet, _ in made])
    window = [(begin - shift, end - begin) for shift in shifts]
    dealt = _dealt_policies(asks, made, window, size)
    tenants = tuple(Tenant(ask, fleet, first, courses) for ask, (fleet, _), (first, _), courses in zip(asks, made, window, dealt))
    left = sum(len(fleet.intervals) - (end - begin) for fleet, _ in made)
    return SharedFleet(name, size, seconds, tenants, end - begin, begin * seconds, left, dict(inputs or {}))


def _kind(gpu: Any) -> tuple[str, Mapping[str, Any]]:
    """The one GPU of the cluster, and how many of them its name says."""
    if not isinstance(gpu, str) or "," in gpu:
        raise InputError("models share GPUs of one kind", "--gpu", "name one, and ask about each other kind apart")
    return counted(gpu)


def _read(ask: TenantAsk, gpu: str, every: float) -> tuple[TenantAsk, int]:
    """The question with its trace read, and how many intervals that has; 0 where something is wrong, which is said when it is followed."""
    question = read_once(ask.question)
    try:
        asked = {key: value for key, value in question.items() if key not in OWN}
        setting = api_ask(ask.model, **{**asked, "gpu": gpu, "gpus": question.get("gpus") or 1})[0]
    except (InputError, Infeasible):
        return replace(ask, question=question), 0
    return replace(ask, question=question), intervals_of(setting.workload, every)


def _alone(ask: TenantAsk, gpu: str, **how: Any) -> tuple[Fleet, Trace]:
    """The answer for one of the models; a failure says whose it is."""
    try:
        return followed_alone(ask.model, {**ask.question, "gpu": gpu}, **how)
    except InputError as error:
        raise InputError(error.what, f"[{ask.name}] {error.where}".strip(), error.hint, error.record) from None
    except Infeasible as error:
        raise Infeasible(f"[{ask.name}] {error.reason}", error.nearest, error.record) from None


def _shift(ask: TenantAsk, every: float) -> int:
    """Intervals until a trace begins."""
    shift = ask.begins / every
    if abs(shift - round(shift)) > 1e-9:
        what = f"begins is {ask.begins:g} s, which is no whole number of intervals of {every:g} s"
        raise InputError(what, f"[{ask.name}]", "choose another --every")
    return round(shift)


def _refuse(asks: Sequence[TenantAsk], shifts: Sequence[int], counts: Sequence[int]) -> None:
    """Raise InputError where traces have no interval in common."""
    if min(shift + count for shift, count in zip(shifts, counts)) > max(shifts):
        return
    early = min(range(len(asks)), key=lambda i: shifts[i] + counts[i])
    late = max(range(len(asks)), key=lambda i: shifts[i])
    what = f"the traces of {asks[early].name} and {asks[late].name} have no interval in common"
    raise InputError(what, "begins", "give less, or longer traces")


# ---- who gets what ---------------------------------------------------------------------------------------------------------------


def dealt_out(wanted: Sequence[int], sizes: Sequence[int], priorities: Sequence[int], gpus: int) -> list[int]:
    """Replicas of each model, of those that are wanted, on so many GPUs.  sizes: GPUs of a replica."""
    if sum(n * size for n, size in zip(wanted, sizes)) <= gpus:
        return list(wanted)
    turns = sorted((-priorities[m], k / n, sizes[m], m) for m, n in enumerate(wanted) for k in range(n))
    given, left = [0] * len(wanted), gpus
    for _, _, size, m in turns:
        if size <= left:
            given[m], left = given[m] + 1, left - size
    return given


def _dealt_policies(
    asks: Sequence[TenantAsk], made: Sequence[tuple[Fleet, Trace]], window: Sequence[tuple[int, int]], gpus: int
) -> list[tuple[Course, ...]]:
    """The courses of every model under each policy, with what the cluster has for it."""
    found: list[list[Course]] = [[] for _ in asks]
    sizes, priorities = [fleet.gpus for fleet, _ in made], [ask.priority for ask in asks]
    for at in range(len(made[0][0].courses)):
        alone = [fleet.courses[at] for fleet, _ in made]
        wanted = np.array([course.paid[first : first + count] for course, (first, count) in zip(alone, window)])
        given = wanted
        if gpus:
            given = np.array([dealt_out(column, sizes, priorities, gpus) for column in wanted.T.tolist()], np.int64).T
        for m, (course, (first, count)) in enumerate(zip(alone, window)):
            short = not np.array_equal(given[m], wanted[m])
            whole = _with_less(made[m], course, first, given[m]) if short else course
            found[m].append(whole.part(slice(first, first + count)))
    return [tuple(courses) for courses in found]


def _with_less(made: tuple[Fleet, Trace], course: Course, first: int, given: NDArray[np.int64]) -> Course:
    """A policy's course where it is given less than it asks for: what is given late also serves late."""
    fleet, trace = made
    paid = course.paid.copy()
    paid[first : first + len(given)] = given
    return course_of(trace, course.policy, paid, readied(fleet.asked, course.policy, paid), fleet.intervals)
