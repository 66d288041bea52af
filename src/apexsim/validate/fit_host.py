"""Fit the host constants of an engine row on measured runs, and judge them by leaving groups out (floor 5).

    apexsim fit-host validation/open_loop.csv --engine vllm --leave-out workload

Least squares on log(predicted / measured) of mean TTFT (weight 1/2), ITL or TPOT (weight 1), with a soft-L1 loss; every constant moves as a
factor of its present value, so it stays positive.  Of a shipped file those constants move that have their source in it, and the lines
for data/engines/*.toml are printed; of any other file all.  Nothing is written: the report is to be read before a constant is changed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apexsim.engines import fitted, server_named
from apexsim.errors import InputError, Rejected, nearest
from apexsim.search.evaluate import evaluate
from apexsim.validate.cases import Case
from apexsim.validate.kinds import read_cases
from apexsim.validate.replay import Bench, predicted_ms

CONSTANTS = ("gap_s", "prompt_factor", "prompt_add_launch_s", "prompt_floor_launch_s", "prompt_eager_launch_s",
             "prompt_decode_share", "tokenise_s", "request_s", "step_s", "sequence_s")  # fmt: skip
WEIGHTS = {"ttft_mean_ms": 0.5, "tpot_mean_ms": 1.0, "itl_mean_ms": 1.0}
Array = NDArray[np.float64]


def log_errors(cases: list[Case], bench: Bench, names: tuple[str, ...], factors: Array) -> Array:
    """[cases, metrics] log(predicted / measured) with constants scaled by `factors`; 0 where not measured."""
    rows = []
    for case in cases:
        scaled = {n: getattr(case.engine, n) * f for n, f in zip(names, factors)}
        found = evaluate(bench.setting(replace(case, engine=replace(case.engine, **scaled))), case.plan)
        predicted = {} if isinstance(found, Rejected) else predicted_ms(found, case)
        rows.append([math.log(predicted[m] / case.measured[m]) if m in predicted and case.measured.get(m, 0) > 0 else 0.0 for m in WEIGHTS])
    return np.asarray(rows)


def fit(cases: list[Case], bench: Bench, names: tuple[str, ...], rounds: int = 12) -> Array:
    """Factors of the constants by damped Gauss-Newton on the soft-L1 loss (scale 0.03)."""
    weights, z, scale = np.asarray(list(WEIGHTS.values())), np.zeros(len(names)), 0.03

    def residual(at: Array) -> Array:
        return np.ravel(log_errors(cases, bench, names, np.exp(at)) * weights)

    damp, now = 1e-3, residual(z)
    for _ in range(rounds):
        slope = np.stack([(residual(z + 0.02 * e) - now) / 0.02 for e in np.eye(len(names))], axis=1)
        loss_weight = 1.0 / np.sqrt(1.0 + (now / scale) ** 2)
        gram = slope.T @ (slope * loss_weight[:, None]) + damp * np.eye(len(names))
        step = np.clip(np.linalg.solve(gram, -slope.T @ (loss_weight * now)), -0.5, 0.5)
        trial = residual(z + step)
        if soft(trial, scale) < soft(now, scale):
            z, now = z + step, trial
            if np.abs(step).max() < 1e-3:
                break
        else:
            damp *= 10.0
    return np.exp(z)


def soft(residual: Array, scale: float) -> float:
    """Soft-L1 loss."""
    return float((2 * scale**2 * (np.sqrt(1 + (residual / scale) ** 2) - 1)).sum())


def report(errors: Array, title: str) -> str:
    """One line per metric: median and p90 of the absolute error, bias."""
    lines = [title]
    for i, metric in enumerate(WEIGHTS):
        e = np.expm1(errors[:, i][errors[:, i] != 0.0])
        if len(e):
            size = np.abs(e)
            middle, high = np.median(size), np.quantile(size, 0.9)
            lines.append(f"  {metric:14s} n={len(e):4d}  median {middle:6.1%}  p90 {high:6.1%}  bias {np.median(e):+6.1%}")
    return "\n".join(lines)


def chosen(cases: list[Case], engine: str, where: str, leave_out: str, file: str) -> list[Case]:
    """The runs that are fitted: sound rows of one engine, with a label if one is asked for."""
    labels = sorted({name for c in cases for name in c.labels})
    if not cases:
        raise InputError("holds no runs that can be replayed", file, "give closed-loop, open-loop or per-request measurements")
    key, _, value = where.partition("=")
    for name, flag in ((key, "--where"), (leave_out, "--leave-out")):
        if name and name not in labels:
            raise InputError(f"the rows have no label '{name}'", flag, nearest(name, labels))
    mine = [c for c in cases if c.labels.get("engine") == engine]
    if not mine:
        raise InputError(f"no rows of engine '{engine}'", "--engine", nearest(engine, {c.labels.get("engine", "") for c in cases}))
    found = [c for c in mine if not c.labels.get("suspect") and (not key or c.labels.get(key) == value)]
    if not found:
        raise InputError(f"no rows of {engine} with {where}", "--where", nearest(value, {c.labels.get(key, "") for c in mine}))
    return found


def wanted(only: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The constants to fit, of those that the engine has."""
    given = tuple(n.strip() for n in only.split(",") if n.strip())
    for name in given:
        if name not in names:
            raise InputError(f"no such constant: '{name}'", "--only", nearest(name, names))
    return given or names


def fitted_names(file: str, engine: str) -> tuple[str, ...]:
    """The constants that rows of an engine have from this file; all of CONSTANTS where none does."""
    found = {constant for _, constant, _, _ in fitted(server_named(engine), Path(file).name)}
    return tuple(name for name in CONSTANTS if name in found or not found)


def lines(file: str, engine: str, factors: dict[str, float]) -> list[str]:
    """What goes into the engine's file: each constant from this measured file, times its factor."""
    told = []
    for version, constant, value, source in fitted(server_named(engine), Path(file).name):
        if constant in factors:
            told.append(f'  [[row]] {version}: {constant} = [{value * factors[constant]:.3g}, "{source}"]')
    return told


def tell(file: str, engine: str, leave_out: str, where: str, only: str) -> None:
    """Fit, print constants, errors in sample and with each group left out; raises InputError."""
    cases = chosen([c for c in read_cases(file)[1] if isinstance(c, Case)], engine, where, leave_out, file)
    names = wanted(only, tuple(n for n in fitted_names(file, engine) if any(getattr(c.engine, n) > 0 for c in cases)))
    bench = Bench()
    factors = fit(cases, bench, names)
    print(f"{len(cases)} runs; constants:")
    for n, f in zip(names, factors):
        print(f"  {n:22s} {getattr(cases[0].engine, n) * f:.4g}  (was {getattr(cases[0].engine, n):.4g})")
    print("\n".join(lines(file, engine, dict(zip(names, factors)))))
    print(report(log_errors(cases, bench, names, factors), "in sample"))
    groups = sorted({c.labels.get(leave_out, "") for c in cases})
    left = []
    for group in groups if len(groups) > 1 else []:
        rest = [c for c in cases if c.labels.get(leave_out, "") != group]
        held = [c for c in cases if c.labels.get(leave_out, "") == group]
        left.append(log_errors(held, bench, names, fit(rest, bench, names, 6)))
    if left:
        print(report(np.concatenate(left), f"leaving each {leave_out} out ({len(groups)} groups)"))
