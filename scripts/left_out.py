"""Errors of predictions for systems that a fit did not see, into validation/left_out.csv.

    python scripts/left_out.py [ENGINE …]        vllm, sglang, trtllm; a quarter of an hour on two cores

For each engine the host constants are fitted again on the InferenceX rows without one model, then without one GPU, then without one
release (three rounds from the shipped constants, every second row), and the rows left out are predicted; `known` are the shipped
constants, which saw all rows, and `system` the same on validation/new_systems.csv, which no fit ever sees.
What is written is
log(measured / predicted) of mean TTFT, mean TPOT and mean E2E (TTFT + TPOT · (output − 1) where E2E was not measured).
scripts/certainty.py makes the error bars of it, scripts/fidelity_page.py the first table of docs/fidelity.md.
"""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apexsim.engines import load_engine, server_named
from apexsim.errors import Rejected
from apexsim.search.error import release_of, signature
from apexsim.search.evaluate import evaluate
from apexsim.validate.cases import Case
from apexsim.validate.fit_host import CONSTANTS, fit
from apexsim.validate.kinds import read_cases
from apexsim.validate.replay import Bench, predicted_ms

ROOT = Path(__file__).resolve().parent.parent
MEASURED, UNSEEN, FILE = (ROOT / "validation" / name for name in ("closed_loop.csv", "new_systems.csv", "left_out.csv"))
ENGINES, LEFT_OUT = ("vllm", "sglang", "trtllm"), ("model", "gpu", "version")
METRICS = ("ttft", "tpot", "e2e")
COLUMNS = ("engine", "left_out", "id", "model", "gpu", "version", "formats", *METRICS)
ROUNDS, EVERY = 3, 2  # of a fit, which starts from the shipped constants; and rows that it takes
Array = NDArray[np.float64]


def main(argv: list[str]) -> int:
    """Write the rows of the engines named, beside those of the others that are there."""
    engines = argv or list(ENGINES)
    named = {server_named(engine) for engine in engines}
    before = []
    if FILE.exists():
        with FILE.open(newline="", encoding="utf-8") as file:
            before = [row for row in csv.DictReader(file) if row["engine"] not in named]
    cases, unseen = ([case for case in read_cases(path)[1] if isinstance(case, Case)] for path in (MEASURED, UNSEEN))
    rows = [row for engine in engines for row in of_engine(sound(cases, engine), sound(unseen, engine), engine)]
    with FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(before + rows, key=lambda row: (row["engine"], row["left_out"], row["id"])))
    return 0


def sound(cases: list[Case], engine: str) -> list[Case]:
    """The rows of an engine whose harness and measurement are known to be sound."""
    return [c for c in cases if c.labels["engine"] == engine and c.labels["origin"] == "inferencex" and not c.labels["suspect"]]


def of_engine(cases: list[Case], unseen: list[Case], engine: str) -> list[dict[str, str]]:
    """Errors in sample, with each model, GPU and release left out of the fit, and on systems that no fit ever saw."""
    bench, names = Bench(), tuple(n for n in CONSTANTS if any(getattr(c.engine, n) > 0 for c in cases))
    rows = errors(cases, bench, names, np.ones(len(names)), "known")
    rows += errors(unseen, bench, names, np.ones(len(names)), "system")
    for what in LEFT_OUT:
        for value in sorted({c.labels[what] for c in cases}):
            held = [unheard(c) if what == "gpu" else c for c in cases if c.labels[what] == value]
            rest = [c for c in cases if c.labels[what] != value]
            if rest:
                rows += errors(held, bench, names, fit(rest[::EVERY], bench, names, ROUNDS), what)
            print(f"{engine} without {what} {value}: {len(held)} rows", file=sys.stderr, flush=True)
    return rows


def unheard(case: Case) -> Case:
    """The case without what its engine's row says of its GPU alone, which was fitted on it."""
    row, gpu = load_engine(f"{case.engine.name}@{case.engine.version}"), case.cluster.gpu
    names = {key for one in row.here if one.holds(gpu.name, gpu.memory_bytes) for key, _ in one.constants if key in CONSTANTS}
    return replace(case, engine=replace(case.engine, **{name: getattr(row, name) for name in names}))


def errors(cases: list[Case], bench: Bench, names: tuple[str, ...], factors: Array, left_out: str) -> list[dict[str, str]]:
    """A row of the file for each case, priced with constants scaled by `factors`."""
    rows = []
    for case in cases:
        scaled = {n: getattr(case.engine, n) * f for n, f in zip(names, factors)}
        found = evaluate(bench.setting(replace(case, engine=replace(case.engine, **scaled))), case.plan)
        if isinstance(found, Rejected):
            continue
        predicted, length = predicted_ms(found, case), float(case.workload.output.mean())
        off = {name: math.log(was / said) for name, said, was in pairs(predicted, case.measured, length) if said > 0 and was > 0}
        formats = case.plan.precision
        system = {
            "engine": case.engine.server.name,
            "model": signature(case.model),
            "gpu": case.cluster.gpu.name,
            "version": release_of(case.engine) if case.labels["version"][:1].isdecimal() else "",
            "formats": "+".join(sorted({formats.default, *(fmt for _, fmt in formats.weights)})),
        }
        rows.append({**system, "left_out": left_out, "id": case.id, **{n: f"{off[n]:.4f}" if n in off else "" for n in METRICS}})
    return rows


def pairs(predicted: dict[str, float], measured: dict[str, float], length: float) -> list[tuple[str, float, float]]:
    """(metric, predicted, measured) of TTFT, TPOT and E2E [ms]; 0 where not measured."""

    def whole(of: dict[str, float]) -> float:
        ttft, tpot = of.get("ttft_mean_ms", 0.0), of.get("tpot_mean_ms", 0.0)
        return of.get("e2e_mean_ms", 0.0) or (ttft + tpot * (length - 1.0) if ttft > 0 and tpot > 0 else 0.0)

    return [*((n, predicted[f"{n}_mean_ms"], measured.get(f"{n}_mean_ms", 0.0)) for n in ("ttft", "tpot")),
            ("e2e", whole(predicted), whole(measured))]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
