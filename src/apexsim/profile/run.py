"""A measurement from start to end, on any backend (floor 5): pilots, sizes, rows, progress, and the time that is left."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from apexsim.cost.device_check import work_of
from apexsim.cost.device_csv import FORMATS, SHEETS, Sheet
from apexsim.cost.roofline import Peaks, flat
from apexsim.gpu import Gpu
from apexsim.profile.jobs import TimedRow, families, jobs, names, refined
from apexsim.profile.store import Store
from apexsim.units import format_seconds

PER_JOB = 0.05  # [s] of one job beside its kernel: operands, warm-up, synchronisation (an estimate, replaced as rows come in)
REPEATS = 20  # runs of a kernel that an estimate counts with


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: median time of one run [s] (NaN: cannot run), energy of one run [J] (NaN: unknown)."""

    seconds: float
    joules: float = math.nan


class Backend(Protocol):
    """What times a job; `ranks`: devices that collectives may span."""

    @property
    def ranks(self) -> int: ...
    def measure(self, job: TimedRow) -> Sample: ...


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did: rows measured now, rows known before, jobs that cannot run, jobs left by the budget, wall time [s]."""

    measured: int
    known: int
    impossible: int
    left: int
    seconds: float


class Timer:
    """Answers from the store, else measures and stores; counts and watches the budget [s of wall time]."""

    def __init__(self, backend: Backend, store: Store, budget: float) -> None:
        self.backend, self.store, self.budget = backend, store, budget
        self.measured, self.begun = 0, clock.monotonic()

    @property
    def spent(self) -> float:
        """Wall time so far [s]."""
        return clock.monotonic() - self.begun

    def __call__(self, job: TimedRow) -> float | None:
        """Seconds of a job; None where it cannot run or the budget is spent."""
        if job not in self.store.seconds:
            if self.spent >= self.budget:
                return None
            sample = self.backend.measure(job)
            self.store.add(job, sample.seconds, sample.joules)
            self.measured += 1
        seconds = self.store.seconds[job]
        return None if math.isnan(seconds) else seconds


Told = Callable[[int, int, str], None]


def measure(
    what: str,
    backend: Backend,
    store: Store,
    dtypes: tuple[str, ...] = ("half",),
    tolerance: float = 0.05,
    budget: float = math.inf,
    progress: Told | None = None,
) -> Summary:
    """Measure everything that `what` asks for; rows in the store are not measured again."""
    timer, before = Timer(backend, store, budget), len(store.seconds)
    todo: list[TimedRow] = []
    plans: list[tuple[str, str, list[TimedRow]]] = []
    for family in families(what, dtypes, backend.ranks):
        if progress:
            progress(0, 1, f"{family.kind}: finding sizes")
        plans.append((family.kind, family.dtype, jobs(family, refined(family, timer, tolerance))))
        todo += plans[-1][2]
    missing = [job for job in todo if job not in store.seconds]
    rate = _Rate(timer)
    for done, job in enumerate(missing):
        if timer.spent >= budget:
            break
        timer(job)
        if progress:
            progress(done + 1, len(missing), f"{job.kind}, {rate.left(done + 1, len(missing))} left")
    for plan in plans:
        store.settle(*plan)
    left = sum(job not in store.seconds for job in missing)
    impossible = sum(math.isnan(seconds) for seconds in store.seconds.values())
    return Summary(timer.measured, before, impossible, left, timer.spent)


class _Rate:
    """How long the rest takes: jobs so far per second of wall time."""

    def __init__(self, timer: Timer) -> None:
        self.timer, self.start = timer, timer.spent

    def left(self, done: int, total: int) -> str:
        """Time left, in words."""
        return format_seconds((self.timer.spent - self.start) / done * (total - done))


@dataclass(frozen=True)
class Paper:
    """A backend that measures nothing: the stated roofline of an accelerator, for plans and estimates."""

    gpu: Gpu
    ranks: int

    def measure(self, job: TimedRow) -> Sample:
        """The roofline's time."""
        flop, nbytes = (float(x[0]) for x in work_of(_sheet(job)))
        peaks = Peaks(self.gpu.flops, self.gpu.memory_bandwidth)
        if job.kind in ("mha", "decode", "gemm", "moe"):
            return Sample(float(flat(flop, nbytes, peaks, COMPUTE.get(job.dtype, "bf16"))))
        link = self.gpu.link if self.gpu.has_scale_up else self.gpu.host
        return Sample(float(link.launch + link.latency + nbytes / link.bandwidth))


COMPUTE = {"float": "fp32"}  # format of a job -> units that multiply, where not the 16-bit ones


def _sheet(job: TimedRow) -> Sheet:
    """A sheet of one row without a time."""
    columns = {name: np.array([float(size)]) for name, size in zip(names(job.kind), job.sizes)}
    assert set(columns) | {"time"} == set(SHEETS[job.kind])
    return Sheet(job.kind, Path(), columns, np.array([FORMATS[job.dtype]]), np.array([0]))


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would measure, by sheet: rows and seconds."""

    kind: str
    sizes: int
    rows: int
    seconds: float


def forecast(what: str, paper: Paper, dtypes: tuple[str, ...], tolerance: float) -> Iterator[Forecast]:
    """Rows and time of a run, with the roofline in place of the accelerator; real curves bend more and need more sizes."""
    for family in families(what, dtypes, paper.ranks):
        known: dict[TimedRow, float] = {}

        def time(job: TimedRow, known: dict[TimedRow, float] = known) -> float:
            if job not in known:
                known[job] = paper.measure(job).seconds
            return known[job]

        sizes = refined(family, time, tolerance)
        todo = jobs(family, sizes)
        yield Forecast(family.kind, len(sizes), len(todo), sum(REPEATS * time(job) + PER_JOB for job in todo))
