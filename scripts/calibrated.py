"""How good a calibration on four designed runs is, on measured systems (docs/calibrate.md).

    python scripts/calibrated.py [--groups N] [--rows M]

Groups of validation/closed_loop.csv (engine, release, model, GPU, formats; InferenceX) with at least eight rows.  Each is calibrated on the
four rows nearest to a short and a long prompt at the lowest and the highest load, and predicts its other rows.
N: only so many groups, evenly spread; M: at most so many other rows of each.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apexsim.calibrate.corners import corners
from apexsim.calibrate.fit import factors_of, fit
from apexsim.calibrate.measured import group_of, read_measured
from apexsim.calibrate.points import RunPoint, log_errors, predicted
from apexsim.cost.factors import UNCHANGED, Factors
from apexsim.errors import Rejected
from apexsim.validate.kinds import read_rows

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "validation/closed_loop.csv"
LEAST = 8  # rows of a group
KNOWN = "inferencex"  # origin of the rows whose harness is published
METRICS = ("ttft", "tpot", "e2e")
Errors = dict[str, list[float]]


def main() -> int:
    """Read, calibrate, tell."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--groups", type=int, default=0)
    ask.add_argument("--rows", type=int, default=0)
    asked = ask.parse_args()
    groups = chosen(asked.groups)
    before, after, apart = defaultdict(list), defaultdict(list), defaultdict(list)
    unseen = {row["id"] for row in read_rows(FILE)[1] if row["origin"] != KNOWN}
    for name, points in groups:
        four = corners(points)
        rest = [point for point in points if point not in four]
        rest = rest[:: max(1, -(-len(rest) // asked.rows))] if asked.rows else rest
        found = fit(four)
        were, are = errors(rest, UNCHANGED), errors(rest, factors_of(found.log))
        tell(" ".join(name), len(rest), were, are, np.exp(found.log))
        known = not any(point.name.rpartition(" ")[2] in unseen for point in points)
        for metric in METRICS:
            before[metric] += were[metric]
            after[metric] += are[metric]
            apart[f"{metric} before"] += were[metric] if known else []
            apart[metric] += are[metric] if known else []
    tell(f"all {len(groups)} groups", len(after["ttft"]), before, after, np.ones(0))
    first = {metric: apart[f"{metric} before"] for metric in METRICS}
    tell("without those of a harness that nobody knows", len(apart["ttft"]), first, apart, np.ones(0))
    return 0


def chosen(most: int) -> list[tuple[tuple[str, ...], list[RunPoint]]]:
    """The groups, evenly spread where they are too many."""
    groups = defaultdict(list)
    for point in read_measured(FILE):
        if isinstance(point, RunPoint) and point.setting.workload.size == 10 * point.setting.workload.concurrency:
            groups[group_of(point.setting, point.plan)].append(point)
    found = sorted((name, points) for name, points in groups.items() if len(points) >= LEAST)
    return found[:: max(1, len(found) // most)][:most] if most else found


def errors(points: Sequence[RunPoint], factors: Factors) -> Errors:
    """Log errors by metric; end to end, where it was not measured, from TTFT, TPOT and the mean answer."""
    found: Errors = {metric: [] for metric in METRICS}
    for point in points:
        told = predicted(point, factors)
        if isinstance(told, Rejected):
            continue
        off = log_errors(point, told)
        for (metric, _), value in off.items():
            if metric in found:
                found[metric].append(value)
        steps = float(point.setting.workload.output.mean()) - 1.0
        if ("e2e", "mean") not in off and {("ttft", "mean"), ("tpot", "mean")} <= off.keys():
            was = point.measured[("ttft", "mean")] + steps * point.measured[("tpot", "mean")]
            found["e2e"].append(float(np.log((told[("ttft", "mean")] + steps * told[("tpot", "mean")]) / was)))
    return found


def tell(name: str, rows: int, were: Errors, are: Errors, factors: np.ndarray) -> None:
    """One line: medians before and after, in per cent, and the factors."""
    pairs = [f"{metric} {middle(were[metric]):5.1f} -> {middle(are[metric]):5.1f}" for metric in METRICS]
    print(f"{name[:90]:90s} {rows:4d}  {'   '.join(pairs)}   {' '.join(f'{f:.2f}' for f in factors)}", flush=True)


def middle(logs: list[float]) -> float:
    """Median of the absolute relative error [%]."""
    return 100.0 * float(np.median(np.abs(np.expm1(logs)))) if logs else float("nan")


if __name__ == "__main__":
    sys.exit(main())
