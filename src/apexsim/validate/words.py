"""The record of a validation as plain text (floor 5)."""

from __future__ import annotations

import math
from typing import Any

from apexsim.errors import shown

HEAD = f"{'':34s} {'rows':>5s} {'median':>8s} {'p90':>8s} {'mean':>8s} {'bias':>8s} {'rank':>6s}"


def line(name: str, scores: dict[str, float]) -> str:
    """One row of scores."""
    if "accuracy" in scores:
        return f"{name:34s} {scores['n']:5d} {scores['accuracy']:8.1%} right"
    rank = scores["rank_correlation"]
    shown = "     –" if rank is None or math.isnan(rank) else f"{rank:6.3f}"
    return (
        f"{name:34s} {scores['n']:5d} {scores['median_abs_error']:8.1%} {scores['p90_abs_error']:8.1%} {scores['mean_abs_error']:8.1%} "
        f"{scores['bias']:+8.1%} {shown}"
    )


def held(shares: dict[str, float]) -> list[str]:
    """How often intervals held, in a line; nothing where none were stated."""
    told = ", ".join(f"{share:.0%} in that of {level} %" for level, share in shares.items())
    return [f"  measured values inside of the stated intervals: {told}"] if told else []


def render(record: dict[str, Any]) -> str:
    """Coverage, then median, p90 and mean absolute relative error, signed bias and rank correlation by metric and group."""
    summary = record["summary"]
    out = [f"{record['file']}: {record['kind']}, {summary['predicted']} of {summary['rows']} rows predicted ({summary['coverage']:.1%})"]
    out += [f"  skipped {n}: {reason}" for reason, n in summary["skipped"].items()]
    out += [f"  {summary['apart']} of them stand apart (suspect, or of another harness): not in 'all'"] * (summary["apart"] > 0)
    for metric, scores in summary["metrics"].items():
        out += ["", f"{metric}", HEAD, line("all", scores), *held(summary["within"].get(metric, {}))]
        for label, groups in summary["by"].items():
            for value, metrics in groups.items():
                if metric in metrics:
                    out.append(line(f"  {label} {value}"[:34], metrics[metric]))
    return "\n".join(map(shown, out))
