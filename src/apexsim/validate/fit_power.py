"""Fit the power law on measured GPU power with the throughput given, and judge it by leaving models out (floor 5).

    apexsim fit-power energy.csv [--prompt-scale 2] [--simulate]

Least squares on log(predicted / measured) with a soft-L1 loss over the share of TDP at rest and the joules per byte and per FLOP, which
stay positive; ceiling and sharpness are kept.  --simulate: the same rows with the throughput simulated; the law and the cost of
sampling (SORTS, by the median error of the throughput) come from the other models alone.  Rows: quality `primary`, text, without the
FP8 giants.  Nothing is written.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apexsim.cost.account import usage
from apexsim.cost.power import PowerLaw, loaded_share, power_law
from apexsim.errors import InputError, shown
from apexsim.search.evaluate import Evaluation
from apexsim.validate.energy_cases import EnergyRun, Rates, case_of, given_rates, understand
from apexsim.validate.fit_host import soft
from apexsim.validate.kinds import read_rows
from apexsim.validate.replay import Bench
from apexsim.validate.rows import Skipped, number

Array = NDArray[np.float64]
SCALE = 0.1  # of the soft-L1 loss: errors beyond it count linearly
JUDGED = "primary"
SORTS = (0, 100, 200, 300, 350, 400, 500, 800)  # bytes per vocabulary entry and sequence


@dataclass(frozen=True, slots=True)
class Points:
    """Measured rows: rates of one GPU, its TDP and idle power [W], measured power [W], and the model of each; all [n]."""

    bytes_per_s: Array
    flop_per_s: Array
    tdp: Array
    idle: Array
    watts: Array
    model: NDArray[np.str_]

    def at(self, rows: NDArray[np.bool_]) -> Points:
        """Some of them."""
        return Points(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def read_runs(path: str | Path, prompt_scale: float = 1.0) -> list[EnergyRun]:
    """The rows that the law is fitted on."""
    _, rows = read_rows(path, "energy")
    runs = [run for run in (understand(row, prompt_scale) for row in rows) if not isinstance(run, Skipped)]
    judged = [run for run in runs if run.labels["quality"] == JUDGED]
    if not judged:
        raise InputError(f"holds no row of quality '{JUDGED}' that can be replayed", str(path))
    return judged


def points_of(runs: list[EnergyRun], rates: list[Rates]) -> Points:
    """Runs with what their GPUs did per second."""
    moved = [min(r.bytes_per_s, run.gpu.memory_bandwidth) for r, run in zip(rates, runs)]
    columns = (moved, [r.flop_per_s for r in rates], [x.gpu.tdp_w for x in runs], [x.gpu.idle_w for x in runs],
               [number(run.row, "power_w_per_gpu") for run in runs])  # fmt: skip
    moved_, done_, tdp, idle, watts = (np.array(c, float) for c in columns)
    return Points(moved_, done_, tdp, idle, watts, np.array([run.labels["model"] for run in runs]))


def predicted(law: PowerLaw, points: Points) -> Array:
    """Watts of one GPU, as `gpu_watts` has them for a GPU that always has work."""
    return np.clip(points.tdp * loaded_share(points.bytes_per_s, points.flop_per_s, points.tdp, law), points.idle, points.tdp)


def fit(points: Points, start: PowerLaw, rounds: int = 60) -> PowerLaw:
    """The law with refitted constants, by damped Gauss-Newton on their logarithms."""
    z, damp = np.zeros(3), 1e-3

    def residual(at: Array) -> Array:
        return np.log(predicted(_scaled(start, at), points) / points.watts)

    now = residual(z)
    for _ in range(rounds):
        slope = np.stack([(residual(z + 1e-4 * e) - now) / 1e-4 for e in np.eye(3)], axis=1)
        weight = 1.0 / np.sqrt(1.0 + (now / SCALE) ** 2)
        step = np.linalg.solve(slope.T @ (slope * weight[:, None]) + damp * np.eye(3), -slope.T @ (weight * now))
        trial = residual(z + step)
        if soft(trial, SCALE) < soft(now, SCALE):
            z, now, damp = z + step, trial, damp * 0.3
            if np.abs(step).max() < 1e-5:
                break
        else:
            damp *= 10.0
    return _scaled(start, z)


def _scaled(law: PowerLaw, logs: Array) -> PowerLaw:
    base, per_byte, per_flop = np.exp(logs) * (law.base, law.per_byte, law.per_flop)
    return replace(law, base=float(base), per_byte=float(per_byte), per_flop=float(per_flop))


def left_out(points: Points, start: PowerLaw) -> tuple[Array, dict[str, PowerLaw]]:
    """Relative errors [n] with each model predicted by a law that never saw it, and these laws."""
    laws = {str(name): fit(points.at(points.model != name), start) for name in np.unique(points.model)}
    made = np.empty(len(points.watts))
    for name, law in laws.items():
        mine = points.model == name
        made[mine] = predicted(law, points.at(mine))
    return made / points.watts - 1.0, laws


def simulated(runs: list[EnergyRun], sort: int) -> tuple[Points, Array]:
    """Runs with the rates that the simulation gives, and its output tokens per s and GPU [n]."""
    bench, rates, speed = Bench(), [], []
    for run in runs:
        case = case_of(run, sort)
        found, _ = bench.predict(case)
        assert isinstance(found, Evaluation), f"{case.id} does not fit"
        used = usage(found.stages, found.costs, found.outcome, case.plan.lanes, bench.pricer(case).bank.peaks)
        span = float(found.outcome.finish.max() - found.outcome.sent.min())
        rates.append(Rates(used.nbytes / span, used.flop16 / span))
        speed.append(float(case.workload.output.sum()) / span / case.plan.devices)
    return points_of(runs, rates), np.array(speed)


def judge_simulated(runs: list[EnergyRun], laws: dict[str, PowerLaw]) -> tuple[Array, Array, dict[str, int]]:
    """Errors of W and of J per output token [n], each model with constants of the others, and the cost of sampling each got."""
    trials = {sort: simulated(runs, sort) for sort in SORTS}
    truth = np.array([number(run.row, "out_tok_s_per_gpu") for run in runs])
    joules = np.array([number(run.row, "J_per_out_token") for run in runs])
    watts, per_token, chosen = np.empty(len(runs)), np.empty(len(runs)), dict[str, int]()
    for name, law in laws.items():
        mine = np.array([run.labels["model"] == name for run in runs])
        off = {sort: float(np.median(np.abs(np.log(speed / truth))[~mine])) for sort, (_, speed) in trials.items()}
        chosen[name] = min(off, key=lambda sort: off[sort])
        points, speed = trials[chosen[name]]
        watts[mine] = predicted(law, points.at(mine))
        per_token[mine] = watts[mine] / speed[mine]
    return watts / np.array([number(run.row, "power_w_per_gpu") for run in runs]) - 1.0, per_token / joules - 1.0, chosen


def report(errors: Array, title: str) -> str:
    """Median and mean of the absolute error, p90, bias."""
    size = np.abs(errors)
    return (
        f"{title:28s} n={len(size):4d}  median {np.median(size):6.1%}  mean {size.mean():6.1%}  "
        f"p90 {np.quantile(size, 0.9):6.1%}  bias {np.median(errors):+6.1%}"
    )


def spread(logs: Array) -> float:
    """Robust standard deviation."""
    return float(1.4826 * np.median(np.abs(logs - np.median(logs))))


def pair_spread(runs: list[EnergyRun], logs: Array) -> float:
    """Robust standard deviation [log] of the difference between two plans of one model, GPU, task, format and load."""
    alike = defaultdict(list)
    for i, run in enumerate(runs):
        alike[(run.gpu.name, *(run.row[name] for name in ("model", "task", "precision", "load")))].append(i)
    pairs = [p for group in alike.values() for p in combinations(group, 2)]
    apart = [logs[a] - logs[b] for a, b in pairs if runs[a].plan.shorthand != runs[b].plan.shorthand]
    return float(1.4826 * np.median(np.abs(apart)))


def words(law: PowerLaw) -> str:
    """The three constants as people write them."""
    return f"base {law.base:.3f} of TDP, {law.per_byte * 1e12:.1f} pJ/byte, {law.per_flop * 1e12:.2f} pJ/FLOP"


def tell(file: str, prompt_scale: float, simulate: bool) -> None:
    """Fit, print constants, errors in sample and with each model left out; raises InputError."""
    runs, shipped = read_runs(file, prompt_scale), power_law()[0]
    points = points_of(runs, [given_rates(run) for run in runs])
    law = fit(points, shipped)
    errors, laws = left_out(points, shipped)
    print(f"shipped: {words(shipped)}\nfitted:  {words(law)}")
    for name, other in laws.items():
        print(f"  without {shown(name):40s} {words(other)}")
    print(report(predicted(shipped, points) / points.watts - 1.0, "shipped constants"))
    print(report(predicted(law, points) / points.watts - 1.0, "in sample"))
    print(report(errors, f"leaving each of {len(laws)} models out"))
    print(f"spread of a run {spread(np.log1p(errors)):.3f}, between two plans of one load {pair_spread(runs, np.log1p(errors)):.3f}")
    share = np.median(points.watts / points.tdp) * points.tdp
    print(report(share / points.watts - 1.0, "a constant share of TDP"))
    if simulate:
        watts, joules, chosen = judge_simulated(runs, laws)
        print(f"sampling [bytes per vocabulary entry]: {', '.join(map(str, sorted(set(chosen.values()))))}")
        print(report(watts, "W simulated, left out") + "\n" + report(joules, "J/token simulated, left out"))
