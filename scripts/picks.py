"""How often a pick under a limit of TPOT breaks it, and what it costs to be careful, on measured runs.

    python scripts/picks.py        reads validation/closed_loop.csv and validation/left_out.csv

A choice is among all measured runs of one system and workload (model, GPU, engine release, formats, lengths): layouts and users.  Picked
is the highest predicted output tok/s/GPU among those whose TPOT keeps the limit, by the predicted value or with the chance that the risk
allows.  A pick breaks the limit when its measured TPOT is above it; its regret is what the best measured run that keeps the limit has
more.  Predictions are those with the model, the GPU or the release left out of the fit.

Where the regret comes from: the same with measured TPOT and rates in place of the predicted ones (what caution alone costs, by the same
bars, where the median is right), with measured rates (no wrong order is to blame for what is left), and with numbers of users between
the measured ones, of which TPOT and rates are interpolated in logarithms for each layout, for the pick and for what it is held against.
The chance that a risk allows is that of a plan at the edge; where only powers of two are offered most picks stand well inside it.
"""

from __future__ import annotations

import csv
import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from apexsim.doubt import Doubt
from apexsim.search.error import certainty, kind_of, signature
from apexsim.validate.cases import Case
from apexsim.validate.kinds import read_cases

ROOT = Path(__file__).resolve().parent.parent
LIMITS = (10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0)  # of mean TPOT [ms]
RISKS = (0.0, 0.05)
LAYOUT = ("gpus", "attn_tp", "attn_dp", "pp", "moe_tp", "moe_ep")
BETWEEN = 8  # numbers of users from one that was measured to the next
WAYS = {  # how a choice is made: what of a run is taken as measured, and whether users lie between the measured ones
    "as predicted": ((), False), "all as measured": (("tpot", "rate"), False), "rates as measured": (("rate",), False),
    "users in between": ((), True), "users in between, all as measured": (("tpot", "rate"), True),
}  # fmt: skip
LEFT_OUT = {"known": "known", "model": "model", "gpu": "gpu", "version": "release"}


@dataclass(frozen=True, slots=True)
class Run:
    """A measured run: layout, users, TPOT [ms] and output tok/s/GPU, measured and predicted."""

    layout: tuple[str, ...]
    users: float
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


@cache
def kinds_of_models() -> dict[str, str]:
    """The kind of each model that was measured, by its signature."""
    cases = [case for name in ("closed_loop.csv", "new_systems.csv") for case in read_cases(ROOT / "validation" / name)[1]]
    return {signature(case.model): kind_of(case.model) for case in cases if isinstance(case, Case)}


def choices(left_out: str) -> Iterator[tuple[Doubt, list[Run]]]:
    """The doubt of TPOT and the runs of every system and workload with more than one."""
    with (ROOT / "validation/closed_loop.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    found: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    kinds = kinds_of_models()
    with (ROOT / "validation/left_out.csv").open(newline="", encoding="utf-8") as file:
        for told in csv.DictReader(file):
            if told["left_out"] == left_out and told["tpot"] and told["e2e"] and told["id"] in rows:
                row = rows[told["id"]]
                key = (told["engine"], *(told[n] for n in ("model", "gpu", "version", "formats")), row["isl"], row["osl"])
                found[key].append(_run(row, float(told["tpot"]), float(told["e2e"])))
    for key, runs in found.items():
        if len(runs) > 1:
            scales = certainty()[key[0]][kinds[key[1]]]["tpot"]
            yield Doubt(scales[LEFT_OUT[left_out]], scales["rest"]), runs


def _run(row: dict[str, str], tpot_off: float, e2e_off: float) -> Run:
    tpot, length = float(row["tpot_mean_ms"]), float(row["osl_mean"])
    e2e = float(row["ttft_mean_ms"]) + tpot * (length - 1.0)
    rate = float(row["concurrency"]) * length * 1e3 / e2e / float(row["gpus"])
    return Run(
        tuple(row[name] for name in LAYOUT), float(row["concurrency"]), tpot, rate, tpot / math.exp(tpot_off), rate * math.exp(e2e_off)
    )


def between(runs: list[Run]) -> list[Run]:
    """The runs and those with numbers of users between them: logarithms interpolated, of several runs alike their mean."""
    found = []
    for layout in sorted({run.layout for run in runs}):
        mine = [run for run in runs if run.layout == layout]
        users = sorted({run.users for run in mine})
        at = np.log([users[0], *(u for pair in pairwise(users) for u in np.geomspace(*pair, BETWEEN + 1)[1:])])
        means = [np.mean([np.log(_numbers(run)) for run in mine if run.users == u], axis=0) for u in users]
        columns = [np.exp(np.interp(at, np.log(users), column)) for column in np.transpose(means)]
        found += [Run(layout, float(np.exp(x)), *map(float, row)) for x, *row in zip(at, *columns)]
    return found


def _numbers(run: Run) -> tuple[float, ...]:
    return run.tpot, run.rate, run.said_tpot, run.said_rate


def picks(left_out: str, risk: float, way: str = "as predicted") -> Picks:
    """All picks under all limits."""
    broken, regrets, possible = [], [], 0
    measured, dense = WAYS[way]
    for doubt, own in choices(left_out):
        room, runs = math.exp(doubt.quantile(1.0 - risk)) if risk else 1.0, between(own) if dense else own
        runs = [replace(run, **{f"said_{name}": getattr(run, name) for name in measured}) for run in runs]
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


def order(left_out: str) -> tuple[int, int, float, float]:
    """Choices between layouts on as many GPUs with as many users: how many, how often the best is picked, and the regret, mean and most."""
    right, regrets = 0, []
    for _, runs in choices(left_out):
        for alike in {(run.layout[0], run.users) for run in runs}:
            each = [run for run in runs if (run.layout[0], run.users) == alike]
            if len({run.layout for run in each}) > 1:
                best, pick = max(each, key=lambda run: run.rate), max(each, key=lambda run: run.said_rate)
                right += best.layout == pick.layout
                regrets.append(max(run.rate for run in each) / max(run.rate for run in each if run.layout == pick.layout) - 1.0)
    return len(regrets), right, float(np.mean(regrets)), max(regrets)


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
    out += ["", "| left out of the fit | at a risk of 0.05 | break the limit | regret, mean | p90 |", "|---|---|---|---|---|"]
    for what, told in words.items():
        for way in WAYS:
            p = picks(what, 0.05, way)
            out.append(f"| {told} | {way} | {p.broken:.1%} | {p.regret:.1%} | {p.high:.0%} |")
    out.append("\nLayouts on as many GPUs with as many users, of one system and workload:")
    for what, told in words.items():
        count, right, mean, most = order(what)
        out.append(
            f"- left out {told}: the measured best is picked in {right} of {count} choices; mean regret {mean:.1%}, at most {most:.0%}."
        )
    return out


if __name__ == "__main__":
    print("\n".join(section()))
    sys.exit(0)
