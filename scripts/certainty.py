"""Write src/apexsim/data/certainty.toml, the error bars, from predictions of systems that a fit did not see.

    python scripts/certainty.py        reads validation/left_out.csv (scripts/left_out.py); two minutes

The rest is the scatter of runs around the median of their system (model, GPU, release, formats).  The offset of each kind of news is
the one with which intervals of 68, 80 and 95 % hold as often as they say over the rows left out, all scales those of Student's t with
three degrees of freedom: the larger of an engine's own and that of all engines, times √(1 + 1/n) for the n models (GPUs, releases)
that it rests on.  Any news adds what lets intervals hold over systems that no fit ever saw (validation/new_systems.csv, and for E2E the
throughputs of offline.csv): the mean over the engines, in squares.  Borrowed kernels: the same over rows priced from another GPU's tables.
"""

from __future__ import annotations

import csv
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.doubt import LEVELS, SIGMA, Doubt
from apexsim.search.error import release_of, signature
from apexsim.validate.cases import Case
from apexsim.validate.kinds import read_cases
from apexsim.validate.replay import run
from apexsim.validate.score import counts
from fidelity_page import BORROW, FAR, comparisons, grouped, logs, transferred

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT, TABLE = ROOT / "validation/left_out.csv", ROOT / "src/apexsim/data/certainty.toml"
METRICS = ("ttft", "tpot", "e2e")
NEWS = {"known": "known", "model": "model", "gpu": "gpu", "version": "release"}  # what was left out -> what it stands for
SEEN_APART = {"vllm": ("0.6.0",)}  # releases whose constants were fitted on files of their own
RATES = "offline.csv"
SYSTEM = ("engine", "model", "gpu", "version", "formats")
SCALES = np.concatenate([[0.0], np.geomspace(0.01, 0.6, 60)])  # offsets that are tried
Array = NDArray[np.float64]
Rows = list[dict[str, str]]


def main() -> int:
    """Read, estimate, write."""
    with LEFT_OUT.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    engines = sorted({row["engine"] for row in rows})
    known = [row for row in rows if row["left_out"] == "known"]
    seen = {engine: seen_by([row for row in known if row["engine"] == engine], engine) for engine in engines}
    table = {engine: of_engine(rows, engine) for engine in engines}
    unseen = unseen_by(table, [row for row in rows if row["left_out"] == "system"] + throughputs(), seen)
    closed = ROOT / "validation/closed_loop.csv"
    far = {"transferred": lent(transferred(closed, BORROW, 8), table), "foreign": lent(transferred(closed, FAR, 3), table)}
    TABLE.write_text(text(seen, table, {**far, "unseen": unseen}, between(run(closed))), encoding="utf-8")
    return 0


def of_engine(rows: Rows, engine: str) -> dict[str, dict[str, float]]:
    """Scales of an engine by metric: rest, and the offset of each kind of news."""
    mine, found = [row for row in rows if row["engine"] == engine], {}
    for metric in METRICS:
        rest = rest_of(mine, metric)
        own, all_ = (
            {what: offset_of(values(some, metric, what), Doubt(0.0, rest_of(some, metric))) for what in NEWS} for some in (mine, rows)
        )
        wide = {what: max(own[what], all_[what] if what != "known" else 0.0) * math.sqrt(1.0 + 1.0 / count(rows, what)) for what in NEWS}
        found[metric] = {"rest": rest, **{name: max(wide["known"], wide[what]) for what, name in NEWS.items()}}
    return found


def count(rows: Rows, what: str) -> int:
    """How many models, GPUs or releases of an engine were left out, or systems were seen."""
    names = SYSTEM if what == "known" else ("engine", what)
    return len({tuple(row[name] for name in names) for row in rows if row["left_out"] == what})


def unseen_by(table: dict[str, dict[str, dict[str, float]]], unseen: Rows, seen: dict[str, dict[str, list[str]]]) -> dict[str, float]:
    """What any news adds beyond that, by metric: with it intervals hold over systems that no fit saw."""
    found = {}
    for metric in METRICS:
        told: dict[str, list[tuple[float, Doubt]]] = defaultdict(list)
        for row in unseen:
            if row[metric]:
                told[row["engine"]].append((abs(float(row[metric])), expected(table[row["engine"]][metric], news(row, seen))))
        each = [min(SCALES, key=lambda scale: off(some, float(scale))) for some in told.values()]
        found[metric] = float(np.sqrt(np.mean(np.square(each))))
    return found


def throughputs() -> Rows:
    """Errors of output rates that no fit saw, as errors of E2E, whose inverse they are."""
    path, found = ROOT / "validation" / RATES, []
    cases = {case.id: case for case in read_cases(path)[1] if isinstance(case, Case)}
    for row in run(path)["rows"]:
        told, case = row.get("metrics", {}).get("out_tok_s_per_gpu"), cases.get(row["id"])
        if told and case and counts(row):
            found.append({
                "engine": case.engine.server.name, "model": signature(case.model), "gpu": case.cluster.gpu.name,
                "version": release_of(case.engine), "ttft": "", "tpot": "", "e2e": str(math.log(told["predicted"] / told["measured"])),
            })  # fmt: skip
    return found


def expected(scales: dict[str, float], new: list[str]) -> Doubt:
    """The doubt of a system with some news, as `search.error.doubt_of` adds it up."""
    return Doubt(math.sqrt(scales["known"] ** 2 + sum(scales[name] ** 2 - scales["known"] ** 2 for name in new)), scales["rest"])


def news(row: dict[str, str], seen: dict[str, dict[str, list[str]]]) -> list[str]:
    """What the fits of an engine have not seen of a system."""
    lists = {"model": "models", "gpu": "gpus", "version": "releases"}
    return [NEWS[what] for what, where in lists.items() if row[what] not in seen[row["engine"]][where]]


def off(told: list[tuple[float, Doubt]], scale: float) -> float:
    """How far the shares of errors inside intervals are from what they should be, in squares, with a further offset."""
    held = np.mean([[size <= doubt.wider(scale).quantile(0.5 + level / 200.0) for level in LEVELS] for size, doubt in told], axis=0)
    return float(sum((share - level / 100.0) ** 2 for share, level in zip(held, LEVELS)))


def values(rows: Rows, metric: str, left_out: str) -> Array:
    """log(measured / predicted) of the rows with something left out."""
    return np.asarray([float(row[metric]) for row in rows if row["left_out"] == left_out and row[metric]])


def rest_of(rows: Rows, metric: str) -> float:
    """Scale of what is left around the median of each system, small groups corrected for the median they set themselves."""
    groups: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in rows:
        if row["left_out"] == "known" and row[metric]:
            groups[tuple(row[name] for name in SYSTEM)].append(float(row[metric]))
    around = [abs(v - np.median(g)) * math.sqrt(len(g) / (len(g) - 1.0)) for g in groups.values() if len(g) > 2 for v in g]
    return float(np.quantile(around, 0.68)) / SIGMA


def offset_of(errors: Array, known: Doubt) -> float:
    """The further offset with which intervals hold as often as they say."""
    told = [(float(size), known) for size in np.abs(errors)]
    return float(min(SCALES, key=lambda scale: off(told, float(scale))))


def seen_by(rows: Rows, engine: str) -> dict[str, list[str]]:
    """What the fits of an engine have seen."""
    return {
        "models": sorted({row["model"] for row in rows}),
        "gpus": sorted({row["gpu"] for row in rows}),
        "releases": sorted({row["version"] for row in rows if row["version"]} | set(SEEN_APART.get(engine, ()))),
    }


def lent(rows: list[dict[str, Any]], table: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """What borrowed kernels add to the offset, by metric; E2E as TPOT, which is nine tenths of it."""
    found = {}
    for metric in METRICS[:2]:
        mean = {k: float(np.mean([engine[metric][k] for engine in table.values()])) for k in ("known", "rest")}
        found[metric] = offset_of(logs(rows, f"{metric}_mean_ms"), Doubt(mean["known"], mean["rest"]))
    return {**found, "e2e": found["tpot"]}


def between(record: dict[str, Any]) -> dict[str, float]:
    """Robust spread of log ratios between two layouts of one load, by metric."""
    both = grouped(record)
    found = {metric: 1.4826 * float(np.median(np.abs(comparisons(both, f"{metric}_mean_ms")[0]))) for metric in METRICS[:2]}
    return {**found, "e2e": found["tpot"]}


HEAD = """# Scales of log(measured / predicted), Student's t with three degrees of freedom, written by scripts/certainty.py from
# validation/left_out.csv.  rest: between runs of one system.  known, model, gpu, release: the offset that all runs of a system share
# where the fit saw it, and where it did not see the model, GPU or release.  added: by kernels priced from another GPU's tables
# (transferred) or a far relative's (foreign, which stands for other vendors'), and by anything that no fit saw (unseen).
# comparison: robust spread between two layouts of one load.  seen: what the fits saw; a model is its architecture, layers and width.
"""


def text(
    seen: dict[str, dict[str, list[str]]],
    table: dict[str, dict[str, dict[str, float]]],
    far: dict[str, dict[str, float]],
    pairs: dict[str, float],
) -> str:
    """The TOML file."""
    lines = [HEAD.rstrip()]
    for engine, lists in seen.items():
        lines += [f"\n[seen.{engine}]", *(f"{name} = [{', '.join(repr_of(v) for v in found)}]" for name, found in lists.items())]
    for engine, rows in table.items():
        for metric, row in rows.items():
            lines += [f"\n[{engine}.{metric}]", *(f"{name} = {value:.3f}" for name, value in row.items())]
    for name, row in far.items():
        lines += [f"\n[added.{name}]", *(f"{metric} = {value:.3f}" for metric, value in row.items())]
    return "\n".join([*lines, "\n[comparison]", *(f"{metric} = {value:.3f}" for metric, value in pairs.items())]) + "\n"


def repr_of(value: str) -> str:
    """A TOML string."""
    return f'"{value}"'


if __name__ == "__main__":
    sys.exit(main())
