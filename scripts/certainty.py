"""Write src/apexsim/data/certainty.toml, the error bars, from predictions of systems that a fit did not see.

    python scripts/certainty.py        reads validation/left_out.csv (scripts/left_out.py); two minutes

The rest is the scatter of runs around the median of their system (model, GPU, release, formats); the offset of each kind of news is the
one with which intervals of 68, 80 and 95 % hold as often as they say over the rows left out, all scales those of Student's t with three
degrees of freedom.  Borrowed kernels: the same over rows priced from another GPU's tables.
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
from apexsim.validate.replay import run
from fidelity_page import BORROW, FAR, comparisons, grouped, logs, transferred

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT, TABLE = ROOT / "validation/left_out.csv", ROOT / "src/apexsim/data/certainty.toml"
METRICS = ("ttft", "tpot", "e2e")
NEWS = {"known": "known", "model": "model", "gpu": "gpu", "version": "release"}  # what was left out -> what it stands for
SEEN_APART = {"vllm": ("0.6.0",)}  # releases whose constants were fitted on files of their own
SYSTEM = ("engine", "model", "gpu", "version", "formats")
SCALES = np.concatenate([[0.0], np.geomspace(0.005, 1.0, 160)])  # offsets that are tried
Array = NDArray[np.float64]
Rows = list[dict[str, str]]


def main() -> int:
    """Read, estimate, write."""
    with LEFT_OUT.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    engines = sorted({row["engine"] for row in rows})
    table = {engine: of_engine([row for row in rows if row["engine"] == engine]) for engine in engines}
    seen = {engine: seen_by([row for row in rows if row["engine"] == engine], engine) for engine in engines}
    closed = ROOT / "validation/closed_loop.csv"
    far = {"transferred": lent(transferred(closed, BORROW, 8), table), "foreign": lent(transferred(closed, FAR, 3), table)}
    TABLE.write_text(text(seen, table, far, between(run(closed))), encoding="utf-8")
    return 0


def of_engine(rows: Rows) -> dict[str, dict[str, float]]:
    """Scales of an engine by metric: rest, and the offset of each kind of news."""
    found = {}
    for metric in METRICS:
        rest = rest_of(rows, metric)
        offsets = {name: offset_of(values(rows, metric, kind), Doubt(0.0, rest)) for kind, name in NEWS.items()}
        least = offsets["known"]
        found[metric] = {"rest": rest, **{name: max(least, value) for name, value in offsets.items()}}
    return found


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
    size = np.abs(errors)

    def wrong(scale: float) -> float:
        doubt = known.wider(scale)
        return sum((float(np.mean(size <= doubt.quantile(0.5 + level / 200.0))) - level / 100.0) ** 2 for level in LEVELS)

    return float(SCALES[int(np.argmin([wrong(float(scale)) for scale in SCALES]))])


def seen_by(rows: Rows, engine: str) -> dict[str, list[str]]:
    """What the fits of an engine have seen."""
    return {
        "models": sorted({row["model"] for row in rows}),
        "gpus": sorted({row["gpu"] for row in rows}),
        "releases": sorted({row["version"] for row in rows} | set(SEEN_APART.get(engine, ()))),
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
# where the fit saw it, and where it did not see the model, GPU or release.  borrowed: what kernels priced from another GPU's tables add;
# foreign: from a far relative's, which stands for other vendors'.  comparison: robust spread between two layouts of one load.
# seen: what the fits saw; a model is its architecture, layers and width.
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
        lines += [f"\n[borrowed.{name}]", *(f"{metric} = {value:.3f}" for metric, value in row.items())]
    return "\n".join([*lines, "\n[comparison]", *(f"{metric} = {value:.3f}" for metric, value in pairs.items())]) + "\n"


def repr_of(value: str) -> str:
    """A TOML string."""
    return f'"{value}"'


if __name__ == "__main__":
    sys.exit(main())
