"""Scores of predictions: median, p90 and mean absolute relative error, signed bias, rank correlation (floor 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
YES_OR_NO = ("fits", "kv_in_interval")
APART = {
    "suspect": ("",),
    "origin": ("", "inferencex"),
    "quality": ("", "primary"),
    "drafts": ("",),
}  # label -> classes that count; others stand apart
GROUPS = ("engine", "gpu", "model", "origin", "suspect", "workload", "layout", "quant", "quality", "drafts")


def ranks(values: Array) -> Array:
    """Ranks with ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - 0.5 * (counts - 1))[inverse]


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's rho; NaN for fewer than three pairs or constant values."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def score(pairs: list[dict[str, float]]) -> dict[str, float]:
    """Scores of (measured, predicted) pairs; errors are relative to the measured value."""
    measured = np.asarray([p["measured"] for p in pairs], float)
    predicted = np.asarray([p["predicted"] for p in pairs], float)
    if np.isin(measured, (0.0, 1.0)).all() and np.isin(predicted, (0.0, 1.0)).all():
        return answers(measured, predicted)
    good = measured > 0
    error = predicted[good] / measured[good] - 1.0
    size = np.abs(error)
    return {
        "n": int(good.sum()),
        "median_abs_error": float(np.median(size)),
        "p90_abs_error": float(np.quantile(size, 0.9)),
        "mean_abs_error": float(size.mean()),
        "bias": float(np.median(error)),
        "rank_correlation": rank_correlation(measured[good], predicted[good]),
    }


def answers(measured: Array, predicted: Array) -> dict[str, float]:
    """Scores of yes (1) and no (0): the share of right answers stands as accuracy, its rest as the error."""
    wrong = np.abs(predicted - measured)
    return {
        "n": len(measured),
        "accuracy": float(1.0 - wrong.mean()),
        "median_abs_error": float(np.median(wrong)),
        "p90_abs_error": float(np.quantile(wrong, 0.9)),
        "mean_abs_error": float(wrong.mean()),
        "bias": float((predicted - measured).mean()),
        "rank_correlation": rank_correlation(measured, predicted),
    }


def counts(row: dict[str, Any]) -> bool:
    """Whether a predicted row is one to judge by."""
    return row["status"] == "ok" and all((row["labels"].get(label) or "") in usual for label, usual in APART.items())


def by_metric(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """metric -> scores over rows that have it."""
    names = sorted({name for row in rows for name in row["metrics"]})
    found = {name: [r["metrics"][name] for r in rows if name in r["metrics"]] for name in names}
    return {name: score(pairs) for name, pairs in found.items() if any(p["measured"] > 0 for p in pairs) or name in YES_OR_NO}


def within(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """metric -> level [%] -> share of rows whose measured value lies in the interval that was stated for it."""
    held: dict[str, dict[str, list[bool]]] = {}
    for row in rows:
        for name, bar in row.get("interval", {}).items():
            value = row["metrics"][name]["measured"]
            for level, (low, high) in bar.items():
                held.setdefault(name, {}).setdefault(level, []).append(low <= value <= high)
    return {name: {level: sum(hits) / len(hits) for level, hits in bar.items()} for name, bar in sorted(held.items())}


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Coverage and scores: of the rows to judge by in all and by each label, of those that stand apart by what sets them apart."""
    ok = [r for r in rows if r["status"] == "ok"]
    judged = [r for r in ok if counts(r)]
    groups: dict[str, Any] = {}
    for label in GROUPS:
        mine = ok if label in APART else judged
        values = sorted({r["labels"].get(label, "") for r in mine})
        if len(values) > 1 or (mine and label in ("engine", "gpu", "model")) or (values not in ([], [""]) and label in APART):
            groups[label] = {v or "-": by_metric([r for r in mine if r["labels"].get(label, "") == v]) for v in values}
    reasons: dict[str, int] = {}
    for row in rows:
        if row["status"] != "ok":
            reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    share = len(ok) / len(rows) if rows else 0.0
    return {"rows": len(rows), "predicted": len(ok), "apart": len(ok) - len(judged), "coverage": share,
            "skipped": reasons, "metrics": by_metric(judged), "within": within(judged), "by": groups}  # fmt: skip
