"""How often a pick under a limit of TPOT breaks it, and what it costs to be careful, on measured runs.

    python scripts/picks.py        reads validation/closed_loop.csv and validation/left_out.csv

A choice is among all measured runs of one system and workload (model, GPU, engine release, formats, lengths): layouts and users.  Picked
is the highest predicted output tok/s/GPU among those whose TPOT keeps the limit, by the predicted value or with the chance that the risk
allows.  A pick breaks the limit when its measured TPOT is above it; its regret is what the best measured run that keeps the limit has
more.  Predictions are those with the model, the GPU or the release left out of the fit.
"""

from __future__ import annotations

import csv
import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apexsim.doubt import Doubt
from apexsim.search.error import certainty

ROOT = Path(__file__).resolve().parent.parent
LIMITS = (10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0)  # of mean TPOT [ms]
RISKS = (0.0, 0.05)
LEFT_OUT = {"known": "known", "model": "model", "gpu": "gpu", "version": "release"}


@dataclass(frozen=True, slots=True)
class Run:
    """A measured run: TPOT [ms] and output tok/s/GPU, measured and predicted."""

    tpot: float
    rate: float
    said_tpot: float
    said_rate: float


@dataclass(frozen=True, slots=True)
class Picks:
    """How picks fared: how many were made and could have been, the share that broke the limit, mean and p90 of the regret."""

    made: int
    possible: int
    broken: float
    regret: float
    high: float


def choices(left_out: str) -> Iterator[tuple[Doubt, list[Run]]]:
    """The doubt of TPOT and the runs of every system and workload with more than one."""
    with (ROOT / "validation/closed_loop.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    found: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    with (ROOT / "validation/left_out.csv").open(newline="", encoding="utf-8") as file:
        for told in csv.DictReader(file):
            if told["left_out"] == left_out and told["tpot"] and told["e2e"] and told["id"] in rows:
                row = rows[told["id"]]
                key = (told["engine"], *(told[n] for n in ("model", "gpu", "version", "formats")), row["isl"], row["osl"])
                found[key].append(_run(row, float(told["tpot"]), float(told["e2e"])))
    for key, runs in found.items():
        if len(runs) > 1:
            scales = certainty()[key[0]]["tpot"]
            yield Doubt(scales[LEFT_OUT[left_out]], scales["rest"]), runs


def _run(row: dict[str, str], tpot_off: float, e2e_off: float) -> Run:
    tpot, length = float(row["tpot_mean_ms"]), float(row["osl_mean"])
    e2e = float(row["ttft_mean_ms"]) + tpot * (length - 1.0)
    rate = float(row["concurrency"]) * length * 1e3 / e2e / float(row["gpus"])
    return Run(tpot, rate, tpot / math.exp(tpot_off), rate * math.exp(e2e_off))


def picks(left_out: str, risk: float) -> Picks:
    """All picks under all limits."""
    broken, regrets, possible = [], [], 0
    for doubt, runs in choices(left_out):
        room = math.exp(doubt.quantile(1.0 - risk)) if risk else 1.0
        for limit in LIMITS:
            able = [run.rate for run in runs if run.tpot <= limit]
            if not able or len(able) == len(runs):  # nothing keeps it, or everything: no choice
                continue
            possible += 1
            said = [run for run in runs if run.said_tpot * room <= limit]
            if said:
                pick = max(said, key=lambda run: run.said_rate)
                broken.append(pick.tpot > limit)
                regrets += [max(able) / pick.rate - 1.0] if pick.tpot <= limit else []
    return Picks(len(broken), possible, float(np.mean(broken)), float(np.mean(regrets)), float(np.quantile(regrets, 0.9)))


def section() -> list[str]:
    """The table of the page."""
    words = {"known": "nothing (in sample)", "model": "each model", "gpu": "each GPU", "version": "each release"}
    out = ["| left out of the fit | risk | picks | of limits that some run keeps | break the limit | regret, mean | p90 |",
           "|---|---|---|---|---|---|---|"]  # fmt: skip
    for what, told in words.items():
        for risk in RISKS:
            p = picks(what, risk)
            out.append(
                f"| {told} | {risk or 'median decides'} | {p.made} | {p.possible} | {p.broken:.1%} | {p.regret:.1%} | {p.high:.0%} |"
            )
    return out


if __name__ == "__main__":
    print("\n".join(section()))
    sys.exit(0)
