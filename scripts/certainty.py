"""Write src/apexsim/data/certainty.toml, the error bars, from predictions of systems that a fit did not see.

    python scripts/certainty.py        reads validation/left_out.csv (scripts/left_out.py); two minutes

Models with routed experts and dense ones have scales of their own.  The rest is the scatter of runs around the median of their system
(model, GPU, release, formats).  The offset of each kind of news is the one with which intervals of 68, 80 and 95 % hold as often as they
say over the rows left out, all scales those of Student's t with three degrees of freedom.  Each is an engine's own, which rests on n
models (GPUs, releases), drawn together with that of all engines, which counts as one more: (n · own² + all²) / (n + 1).  Any news adds
what lets intervals hold over systems that no fit ever saw (validation/new_systems.csv, and for E2E the throughputs of offline.csv): the
mean over the engines, in squares.  Borrowed kernels: the same over rows priced from another GPU's tables.
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
from apexsim.search.error import KINDS, kind_of, release_of, signature
from apexsim.validate.cases import Case
from apexsim.validate.kinds import read_cases
from apexsim.validate.replay import run
from apexsim.validate.score import counts
from fidelity_page import BORROW, FAR, comparisons, grouped, logs, transferred
from picks import kinds_of_models

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
Kinds = dict[str, dict[str, dict[str, float]]]  # kind of model -> metric -> name of a scale -> the scale


def main() -> int:
    """Read, estimate, write."""
    kinds = kinds_of_models()
    with LEFT_OUT.open(newline="", encoding="utf-8") as file:
        rows = [{**row, "kind": kinds[row["model"]]} for row in csv.DictReader(file)]
    engines = sorted({row["engine"] for row in rows})
    known = [row for row in rows if row["left_out"] == "known"]
    seen = {engine: seen_by([row for row in known if row["engine"] == engine], engine) for engine in engines}
    table = {engine: of_engine(rows, engine) for engine in engines}
    unseen = unseen_by(table, [row for row in rows if row["left_out"] == "system"] + throughputs(), seen)
    closed = ROOT / "validation/closed_loop.csv"
    far = {"transferred": lent(transferred(closed, BORROW, 8), table), "foreign": lent(transferred(closed, FAR, 3), table)}
    far |= {f"unseen.{kind}": row for kind, row in unseen.items()}
    TABLE.write_text(text(seen, table, far, between(run(closed)), correlated(rows)), encoding="utf-8")
    return 0


def of_engine(rows: Rows, engine: str) -> Kinds:
    """Scales of an engine by kind of model and metric: rest, and the offset of each kind of news."""
    alike = {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS}
    return {kind: {metric: scales_of(some, engine, metric) for metric in METRICS} for kind, some in alike.items()}


def scales_of(rows: Rows, engine: str, metric: str) -> dict[str, float]:
    """Scales of an engine, drawn together with those of all engines.  rows: of one kind of model."""
    own = [row for row in rows if row["engine"] == engine]
    every = rest_of(rows, metric)
    rest = drawn(rest_of(own, metric), every, count(own, "known"))
    wide = {}
    for what in NEWS:
        each = (offset_of(values(some, metric, what), Doubt(0.0, by)) for some, by in ((own, rest), (rows, every)))
        wide[what] = drawn(*each, count(own, what))
    return {"rest": rest, **{name: max(wide["known"], wide[what]) for what, name in NEWS.items()}}


def drawn(own: float, every: float, count: int) -> float:
    """An engine's scale, which rests on so many cases, drawn together with that of all engines, which counts as one more case."""
    return math.sqrt((count * own**2 + every**2) / (count + 1))


def count(rows: Rows, what: str) -> int:
    """How many models, GPUs or releases were left out, or systems were seen."""
    names = SYSTEM if what == "known" else ("engine", what)
    return len({tuple(row[name] for name in names) for row in rows if row["left_out"] == what})


def unseen_by(table: dict[str, Kinds], unseen: Rows, seen: dict[str, dict[str, list[str]]]) -> dict[str, dict[str, float]]:
    """What any news adds beyond that, by kind of model and metric: with it intervals hold over systems that no fit saw.

    Where no such system shows a kind's TPOT it is that of E2E, which is nine tenths of it; its TTFT that of the other kinds."""
    alike = {kind: [row for row in unseen if row["kind"] == kind] for kind in KINDS}
    found = {kind: {metric: further(table, some, seen, metric) for metric in METRICS} for kind, some in alike.items()}
    widest = max(row["ttft"] for row in found.values() if not math.isnan(row["ttft"]))
    for row in found.values():
        row.update({name: other for name, other in (("tpot", row["e2e"]), ("ttft", widest)) if math.isnan(row[name])})
    return found


def further(table: dict[str, Kinds], unseen: Rows, seen: dict[str, dict[str, list[str]]], metric: str) -> float:
    """The further offset of what no fit saw: mean over the engines, in squares; NaN without rows."""
    told: dict[str, list[tuple[float, Doubt]]] = defaultdict(list)
    for row in unseen:
        if row[metric]:
            told[row["engine"]].append((abs(float(row[metric])), expected(table[row["engine"]][row["kind"]][metric], news(row, seen))))
    each = [min(SCALES, key=lambda scale: off(some, float(scale))) for some in told.values()]
    return float(np.sqrt(np.mean(np.square(each)))) if each else math.nan


def throughputs() -> Rows:
    """Errors of output rates that no fit saw, as errors of E2E, whose inverse they are."""
    path, found = ROOT / "validation" / RATES, []
    cases = {case.id: case for case in read_cases(path)[1] if isinstance(case, Case)}
    for row in run(path)["rows"]:
        told, case = row.get("metrics", {}).get("out_tok_s_per_gpu"), cases.get(row["id"])
        if told and case and counts(row):
            found.append({
                "engine": case.engine.server.name, "model": signature(case.model), "gpu": case.cluster.gpu.name,
                "version": release_of(case.engine), "kind": kind_of(case.model),
                "ttft": "", "tpot": "", "e2e": str(math.log(told["predicted"] / told["measured"])),
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
    return float(np.quantile(around, 0.68)) / SIGMA if around else 0.0


def offset_of(errors: Array, known: Doubt) -> float:
    """The further offset with which intervals hold as often as they say; none without errors."""
    told = [(float(size), known) for size in np.abs(errors)]
    return float(min(SCALES, key=lambda scale: off(told, float(scale)))) if told else 0.0


def seen_by(rows: Rows, engine: str) -> dict[str, list[str]]:
    """What the fits of an engine have seen."""
    return {
        "models": sorted({row["model"] for row in rows}),
        "gpus": sorted({row["gpu"] for row in rows}),
        "releases": sorted({row["version"] for row in rows if row["version"]} | set(SEEN_APART.get(engine, ()))),
    }


def lent(rows: list[dict[str, Any]], table: dict[str, Kinds]) -> dict[str, float]:
    """What borrowed kernels add to the offset, by metric; E2E as TPOT, which is nine tenths of it."""
    found = {}
    for metric in METRICS[:2]:
        mean = {k: float(np.mean([kind[metric][k] for engine in table.values() for kind in engine.values()])) for k in ("known", "rest")}
        found[metric] = offset_of(logs(rows, f"{metric}_mean_ms"), Doubt(mean["known"], mean["rest"]))
    return {**found, "e2e": found["tpot"]}


def between(record: dict[str, Any]) -> dict[str, float]:
    """Robust spread of log ratios between two layouts of one load, by metric."""
    both = grouped(record)
    found = {metric: 1.4826 * float(np.median(np.abs(comparisons(both, f"{metric}_mean_ms")[0]))) for metric in METRICS[:2]}
    return {**found, "e2e": found["tpot"]}


def correlated(rows: Rows) -> float:
    """Of the normal scores of errors of TTFT and TPOT, from Kendall's tau: sin(π/2 · τ); mean over the engines."""
    each = []
    for engine in sorted({row["engine"] for row in rows}):
        mine = [row for row in rows if row["engine"] == engine and row["left_out"] == "known" and row["ttft"] and row["tpot"]]
        signs = [np.sign(np.subtract.outer(v, v)) for v in (np.array([float(row[m]) for row in mine]) for m in ("ttft", "tpot"))]
        pairs = np.triu_indices(len(mine), 1)
        each.append(math.sin(math.pi / 2.0 * float((signs[0] * signs[1])[pairs].mean())))
    return float(np.mean(each))


HEAD = """# Scales of log(measured / predicted), Student's t with three degrees of freedom, written by scripts/certainty.py from
# validation/left_out.csv; of dense models and of those with routed experts.  rest: between runs of one system.  known, model, gpu,
# release: the offset that all runs of a system share where the fit saw it, and where it did not see the model, GPU or release.  added: by
# kernels priced from another GPU's tables (transferred) or a far relative's (foreign, which stands for other vendors'), and by anything
# that no fit saw (unseen).  comparison: robust spread between two layouts of one load.  together: the correlation between the errors of
# TTFT and TPOT of a run.  seen: what the fits saw; a model is its architecture, layers and width.
"""


def text(
    seen: dict[str, dict[str, list[str]]],
    table: dict[str, Kinds],
    far: dict[str, dict[str, float]],
    pairs: dict[str, float],
    together: float,
) -> str:
    """The TOML file."""
    lines = [HEAD.rstrip()]
    for engine, lists in seen.items():
        lines += [f"\n[seen.{engine}]", *(f"{name} = [{', '.join(repr_of(v) for v in found)}]" for name, found in lists.items())]
    named = {f"{engine}.{kind}": rows for engine, kinds in table.items() for kind, rows in kinds.items()}
    for name, rows in named.items():
        for metric, row in rows.items():
            lines += [f"\n[{name}.{metric}]", *(f"{name} = {value:.3f}" for name, value in row.items())]
    for name, row in far.items():
        lines += [f"\n[added.{name}]", *(f"{metric} = {value:.3f}" for metric, value in row.items())]
    lines += ["\n[comparison]", *(f"{metric} = {value:.3f}" for metric, value in pairs.items())]
    return "\n".join([*lines, f"\n[together]\ncorrelation = {together:.2f}"]) + "\n"


def repr_of(value: str) -> str:
    """A TOML string."""
    return f'"{value}"'


if __name__ == "__main__":
    sys.exit(main())
