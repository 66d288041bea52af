"""The study of the APEX paper (arXiv:2411.17651) again: how much better than the usual heuristic, how much energy, how fast.

    python bench/claims.py [--json FILE] [--page FILE] [--only TEXT]

Every model on every cluster with every trace: one search at the GPUs' own clock, one at lower SM clocks too, one with all requests at
once; each on one core, two questions at a time.  A model is served in the first of its own format, FP8 and 4-bit weights in which a
plan fits.  The heuristic plan: tensor parallel within the node, pipeline stages across.  Renting: every simulated plan run once on the
cluster, for as long as the simulation says that its requests take, one after the other, with nothing for loading, warming up or repeating.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from apexsim import api
from apexsim.errors import Infeasible
from apexsim.objective import parse_objective
from apexsim.search.assess import Assessed
from apexsim.search.study import Study
from apexsim.workload.stream import read_trace
from apexsim.workload.trace import Workload
from measured import ratios, section

ROOT = Path(__file__).resolve().parent.parent
MODELS = {
    "Llama-3.1-70B": "llama-3.1-70b",
    "Llama-3.1-405B": "llama-3.1-405b",
    "Mistral-Large FP8": "mistralai--Mistral-Large-Instruct-2407",
    "Mixtral-8x22B": "mixtral-8x22b",
    "synthetic 1T": str(ROOT / "bench" / "synthetic-1t.json"),
}
FORMATS = {"Mistral-Large FP8": ("fp8", "int4")}
FIRST_FIT = ("auto", "fp8", "int4")
CLUSTERS = {"8×H100": ("h100-sxm", 8, 1), "2×8 H100": ("h100-sxm", 8, 2), "8×H200": ("h200-sxm", 8, 1)}
TRACES = ("creation", "lmsys", "summarization")
CLOCKS = "810,1410"  # MHz, beside the GPUs' own 1,980
WITHIN = 1.5  # of the lowest E2E, that a frugal plan may take
OBJECTIVES = ("e2e", "e2e:p95", "ttft:p99", "tpot", "energy")  # with the trace's arrivals
FLOOD = ("throughput", "e2e")  # with all requests at once
CORES = 2
BOOK = "retail"  # price book of the rented GPUs
CPU_USD_H = 0.10  # two cores: about the list price of a two-core cloud machine; an assumption
APEX = {"speed-up": 3.37, "energy": 0.45, "faster": 71.0, "cheaper": 1234.0}  # published, abstract of the paper


@dataclass(frozen=True, slots=True)
class Cell:
    """One question and what came of it.

    gains: times better than the heuristic plan (NaN where that does not fit), by objective; saved: share of the energy per token
    of the fastest plan that the most frugal one saves, by what it may do (SAVINGS); paid: its E2E over the fastest's, likewise.
    """

    model: str
    cluster: str
    trace: str
    format: str
    plans: int
    best: str
    seconds: float
    gains: dict[str, float]
    saved: tuple[float, ...]
    paid: tuple[float, ...]
    cluster_s: float
    rent_usd: float


def traced(name: str) -> Workload:
    """The trace at half a request per second."""
    return read_trace(str(ROOT / "examples" / f"{name}_05.jsonl"))


def ask(model: str, cluster: str, work: Workload, fmt: str, **more: str) -> Study:
    """One search."""
    gpu, gpus, nodes = CLUSTERS[cluster]
    more = {name: value for name, value in more.items() if value}
    return api.plan(MODELS[model], gpu=gpu, gpus=gpus, nodes=nodes, trace=work, quant=fmt, too_long="clip", workers=1, price=BOOK, **more)


def first_fit(model: str, cluster: str, work: Workload) -> tuple[str, Study, float] | None:
    """The first format in which a plan fits: (format, study, seconds of the search)."""
    for fmt in FORMATS.get(model, FIRST_FIT):
        begin = time.perf_counter()
        try:
            return fmt, ask(model, cluster, work, fmt), time.perf_counter() - begin
        except Infeasible:
            continue
    return None


def able(plans: Sequence[Assessed]) -> list[Assessed]:
    """Plans that keep up with the load; all where none does."""
    return [r for r in plans if not r.metrics.saturated] or list(plans)


def gain(study: Study, name: str) -> float:
    """How many times better the best plan is than the heuristic one; NaN where that one does not fit."""
    goal = parse_objective(name)
    base = next((r for r in study.ranked if r.plan.shorthand == study.heuristic), None)
    values = [goal.value(r.metrics) for r in able(study.ranked)]
    best = min(values, key=lambda v: goal.sign * v)
    return math.nan if base is None else goal.ratio(best, goal.value(base.metrics))


def frugal(plans: Sequence[Assessed], within: float) -> tuple[float, float]:
    """(share of energy saved, E2E paid) by the plan of least energy whose E2E is `within` times the lowest, against that one."""
    fast = min(able(plans), key=lambda r: r.metrics.e2el.mean).metrics
    allowed = [r.metrics for r in able(plans) if r.metrics.e2el.mean <= within * fast.e2el.mean]
    least = min(allowed, key=lambda m: m.energy.per_output_token)
    return 1.0 - least.energy.per_output_token / fast.energy.per_output_token, least.e2el.mean / fast.e2el.mean


SAVINGS = {  # title: (lower clocks, E2E over the lowest)
    "energy saved": (False, math.inf),
    "with clocks": (True, math.inf),
    f"with clocks, E2E ≤ {WITHIN}×": (True, WITHIN),
}


def study_cell(question: tuple[str, str, str]) -> Cell | None:
    """All searches of one model, cluster and trace; None where no format fits."""
    model, cluster, trace = question
    work = traced(trace)
    found = first_fit(model, cluster, work)
    if found is None:
        return None
    fmt, study, seconds = found
    clocked = ask(model, cluster, work, fmt, clock=CLOCKS)
    flood = replace(work, arrive=np.zeros_like(work.arrive), mode="offline", name=f"{trace}, all at once")
    offline = ask(model, cluster, flood, fmt)
    gains = {name: gain(study, name) for name in OBJECTIVES} | {f"{name}, all at once": gain(offline, name) for name in FLOOD}
    both = (*study.ranked, *clocked.ranked)
    spared = [frugal(both if lower else study.ranked, within) for lower, within in SAVINGS.values()]
    spent = sum(r.metrics.duration_s for r in study.ranked)
    usd_h = study.setting.price[0] * study.setting.cluster.size
    return Cell(model, cluster, trace, _format(study), len(study.ranked), study.ranked[0].plan.shorthand, seconds, gains,
                tuple(s for s, _ in spared), tuple(p for _, p in spared), spent, spent / 3600 * usd_h)  # fmt: skip


def _format(study: Study) -> str:
    return study.ranked[0].plan.precision.tag or study.ranked[0].plan.precision.default


def middle(values: Iterable[float]) -> float:
    """Geometric mean of those that are known."""
    known = [v for v in values if v == v]
    return float(np.exp(np.mean(np.log(known)))) if known else math.nan


def cells_table(cells: Sequence[Cell]) -> list[list[str]]:
    """One row per cell."""
    names = list(cells[0].gains)
    head = ["model", "cluster", "trace", "weights", "plans", "search [s]", "lowest E2E", *names, *SAVINGS]
    rows = [
        [c.model, c.cluster, c.trace, c.format, str(c.plans), f"{c.seconds:.2f}", c.best,
         *(f"{c.gains[n]:.2f}×" if c.gains[n] == c.gains[n] else "–" for n in names),
         *(f"{s:.0%} at {p:.2f}×" for s, p in zip(c.saved, c.paid))]
        for c in cells
    ]  # fmt: skip
    return [head, *rows]


def summary(cells: Sequence[Cell], missing: Sequence[str], wall: float) -> list[str]:
    """The claims, one line each, with the arithmetic."""
    lines = []
    for name in cells[0].gains:
        known = [c for c in cells if c.gains[name] == c.gains[name]]
        top = max(known, key=lambda c: c.gains[name])
        lines.append(f"over the heuristic, {name}: up to {top.gains[name]:.2f}× ({top.model}, {top.cluster}, {top.trace}), "
                     f"geometric mean {middle(c.gains[name] for c in known):.2f}× of {len(known)} questions")  # fmt: skip
    for i, words in enumerate(SAVINGS):
        top = max(cells, key=lambda c: c.saved[i])
        lines.append(f"{words}, per token against the plan of lowest E2E: up to {top.saved[i]:.0%} ({top.model}, {top.cluster}, "
                     f"{top.trace}; E2E {top.paid[i]:.2f}×), median {np.median([c.saved[i] for c in cells]):.0%}")  # fmt: skip
    searched, plans = sum(c.seconds for c in cells), sum(c.plans for c in cells)
    rented, usd = sum(c.cluster_s for c in cells), sum(c.rent_usd for c in cells)
    cpu_usd = searched / 3600 * CPU_USD_H
    lines += [
        f"searches at the own clock, one core: {searched:.1f} s for {len(cells)} questions, {plans} plans "
        f"({1e3 * searched / plans:.1f} ms a plan); longest {max(c.seconds for c in cells):.2f} s",
        f"the same runs on rented GPUs: {rented / 3600:,.0f} h and ${usd:,.0f} = sum over plans of simulated duration × GPUs × $/h "
        f"({BOOK}); "
        f"{rented / searched:,.0f} times as long, {usd / cpu_usd:,.0f} times the ${cpu_usd:.4f} of a machine at ${CPU_USD_H:.2f}/h",
        "longest search of each model: " + ", ".join(f"{m} {s:.2f} s" for m, s in longest(cells).items()),
        f"whole study on two cores, clocks and floods included: {wall:.1f} s",
        "half a request a second leaves these clusters far from full, where splitting the model over the node is right: the heuristic "
        "loses across nodes and under floods",
        f"the paper: up to {APEX['speed-up']}× over heuristics, {APEX['energy']:.0%} of energy, {APEX['faster']:.0f} times as fast and "
        f"{APEX['cheaper']:.0f} times as cheap as deployment",
    ]
    return lines + ([f"fits in no format: {', '.join(missing)}"] if missing else [])


def longest(cells: Sequence[Cell]) -> dict[str, float]:
    """Seconds of the longest search of each model."""
    return {m: max(c.seconds for c in cells if c.model == m) for m in MODELS if any(c.model == m for c in cells)}


def as_text(table: Sequence[Sequence[str]]) -> str:
    """Aligned columns."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in table)


def as_page(table: Sequence[Sequence[str]], lines: Sequence[str]) -> str:
    """The study as a page of the docs."""
    rows = ["| " + " | ".join(row) + " |" for row in table]
    rows.insert(1, "|" + "---|" * len(table[0]))
    intro = (__doc__ or "").split("\n\n", 2)[2].strip()
    head = "# The claims of the APEX paper, again\n\n`make claims` writes this page (`bench/claims.py`).\n"
    claims = "\n".join(f"- {line}" for line in lines)
    return "\n".join([head, intro, "", claims, "", section(ratios()), "## Every question\n", *rows]) + "\n"


def main() -> int:
    """Run the study, print it, optionally write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="")
    parser.add_argument("--page", default="")
    parser.add_argument("--only", default="", help="cells whose model, cluster or trace holds this text")
    args = parser.parse_args()
    questions = [q for q in product(MODELS, CLUSTERS, TRACES) if args.only.lower() in " ".join(q).lower()]
    study_cell(questions[0])  # the engine compiles once
    begin, found = time.perf_counter(), []
    with ProcessPoolExecutor(CORES) as pool:
        for cell in pool.map(study_cell, questions):
            found.append(cell)
            if sys.stderr.isatty():
                print(f"\r{len(found)} of {len(questions)} questions ", end="", file=sys.stderr)
    cells = [cell for cell in found if cell is not None]
    missing = sorted({f"{model} on {cluster}" for (model, cluster, _), cell in zip(questions, found) if cell is None})
    table, lines = cells_table(cells), summary(cells, missing, time.perf_counter() - begin)
    print(as_text(table), *lines, sep="\n")
    if args.json:
        Path(args.json).write_text(json.dumps([{n: getattr(c, n) for n in Cell.__dataclass_fields__} for c in cells], indent=1) + "\n")
    if args.page:
        Path(args.page).write_text(as_page(table, lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
