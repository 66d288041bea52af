"""Factors on decode, prefill and launch from measured runs (floor 5).

    min over z   Σ w · (log(predicted / measured) / noise)²  +  Σ (z / prior)²          factor = exp(z)

by Gauss-Newton with Broyden's update: one slope by differences, then ROUNDS steps.  The prior keeps what runs do not tell at 1; w is that
of Student's t with three degrees of freedom, so that one odd run does not rule.  Errors are judged on runs that were held back: the
fit is solved without them on the same slope, and they are simulated with its factors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apexsim.calibrate.points import Key, RunPoint, log_errors, predicted
from apexsim.cost.factors import Factors
from apexsim.errors import Rejected

Array = NDArray[np.float64]
NAMES = ("decode", "prefill", "launch")
PRIOR = np.array([0.15, 0.25, 0.5])  # one standard deviation of a log factor: systems nobody fitted (docs/calibrate.md)
NOISE = {"ttft": 0.10, "tpot": 0.05, "itl": 0.05, "e2e": 0.05, "throughput": 0.05}  # scatter of runs of one system, logs
STEP, ROUNDS, FAR = 0.1, 3, 1.5  # of a difference; steps; the farthest that one step goes, logs
SINGLY = 12  # from so many runs on, FOLDS shares are held back in turn instead of single runs
FOLDS = 4
FREEDOM = 3.0  # of Student's t
Told = dict[Key, float]


@dataclass(frozen=True, slots=True)
class CalibrationFit:
    """What was found.

    log: [3] of decode, prefill, launch; sd: [3] of what the runs leave open, in logs; before, after: by run, log(predicted / measured) of
    everything measured, with factors of 1, and with factors from the other runs.
    """

    log: Array
    sd: Array
    before: tuple[Told, ...]
    after: tuple[Told, ...]

    def factors(self, power: float = 1.0, kv: float = 1.0) -> Factors:
        """The factors."""
        return factors_of(self.log, power, kv)


def factors_of(log: Array, power: float = 1.0, kv: float = 1.0) -> Factors:
    """Log factors of NAMES as factors."""
    decode, prefill, launch = np.exp(log).tolist()
    return Factors(decode, prefill, launch, kv, power)


def fit(
    points: Sequence[RunPoint], kv: float = 1.0, done: Callable[[int, int, str], None] | None = None, workers: int = 2
) -> CalibrationFit:
    """Fit all points and hold each back in turn.  kv: the factor of the cache, which is measured and not fitted."""
    folds = folds_of(len(points))
    with ThreadPoolExecutor(workers) as pool:
        sky = _Sky(points, kv, pool, done, (3 + ROUNDS + 2) * len(points))
        z = np.zeros(len(NAMES))
        first = sky.at(z)
        slope = np.stack([(sky.rows(sky.at(z + STEP * e)) - sky.rows(first)) / STEP for e in np.eye(len(NAMES))], axis=1)
        now = sky.rows(first)
        for _ in range(ROUNDS):
            fresh = solved(slope, now - slope @ z, np.ones(len(now), bool), sky.noise)[0]
            fresh = np.clip(fresh, z - FAR, z + FAR)
            if np.abs(fresh - z).max() < 1e-3:
                break
            then = sky.rows(sky.at(fresh))
            move = fresh - z
            slope = slope + np.outer(then - now - slope @ move, move) / (move @ move)
            z, now = fresh, then
        found, sd = solved(slope, now - slope @ z, np.ones(len(now), bool), sky.noise)
        held = [solved(slope, now - slope @ z, ~np.isin(sky.owner, fold), sky.noise)[0] for fold in folds]
        after = sky.held(folds, [np.clip(each, -FAR, FAR) for each in held])
    return CalibrationFit(np.clip(found, -FAR, FAR), sd, tuple(log_errors(p, t) for p, t in zip(points, first)), after)


def folds_of(size: int) -> list[list[int]]:
    """Which runs are held back together."""
    count = size if size < SINGLY else FOLDS
    return [list(range(at, size, count)) for at in range(count)]


def solved(slope: Array, base: Array, some: NDArray[np.bool_], noise: Array) -> tuple[Array, Array]:
    """Log factors where `base + slope · z` of some rows is least, and their standard deviations."""
    z: Array = np.zeros(slope.shape[1])
    lever, rest = slope[some] / noise[some, None], base[some] / noise[some]
    prior = np.diag(PRIOR**-2.0)
    gram: Array = prior
    for _ in range(20):
        off = rest + lever @ z
        weight = (FREEDOM + 1.0) / (FREEDOM + off**2)
        gram = lever.T @ (lever * weight[:, None]) + prior
        z = np.asarray(np.linalg.solve(gram, -lever.T @ (weight * rest)), np.float64)
    return z, np.sqrt(np.diag(np.linalg.inv(gram)))


class _Sky:
    """All points, simulated together; rows are what is fitted of them, one after the other."""

    def __init__(
        self, points: Sequence[RunPoint], kv: float, pool: ThreadPoolExecutor, done: Callable[[int, int, str], None] | None, most: int
    ) -> None:
        self.points, self.kv, self.pool, self.done, self.most, self.count = points, kv, pool, done, most, 0
        self.keys = [(i, key) for i, point in enumerate(points) for key in point.fitted.values()]
        self.owner = np.array([i for i, _ in self.keys])
        self.noise = np.array([NOISE[key[0]] * (1.0 if key[1] in ("mean", "median") else 2.0) for _, key in self.keys])

    def at(self, log: Array) -> list[Told]:
        """Everything predicted of every point."""
        return self._run([(point, log) for point in self.points])

    def rows(self, told: list[Told]) -> Array:
        """[rows] log(predicted / measured) of what is fitted."""
        return np.array([np.log(told[i][key] / self.points[i].measured[key]) for i, key in self.keys])

    def held(self, folds: list[list[int]], logs: list[Array]) -> tuple[Told, ...]:
        """Log errors of each point with the factors of the fold that holds it back."""
        where = {i: log for fold, log in zip(folds, logs) for i in fold}
        told = self._run([(point, where[i]) for i, point in enumerate(self.points)])
        return tuple(log_errors(point, each) for point, each in zip(self.points, told))

    def _run(self, tasks: list[tuple[RunPoint, Array]]) -> list[Told]:
        made = []
        for (point, _), told in zip(tasks, self.pool.map(lambda task: predicted(task[0], factors_of(task[1], kv=self.kv)), tasks)):
            assert not isinstance(told, Rejected), point.name  # those that do not fit were left out
            self.count += 1
            made.append(told)
            if self.done:
                self.done(self.count, max(self.most, self.count), point.name)
        return made


def told_by(sd: Array) -> tuple[bool, ...]:
    """Which factors the runs told, rather than the prior."""
    return tuple(bool(each < 0.8 * prior) for each, prior in zip(sd, PRIOR))
