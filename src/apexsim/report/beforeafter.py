"""An answer beside an earlier one: what changed of the question, and what that came to (floor 6)."""

from __future__ import annotations

import math
from typing import Any

from apexsim.report.draw import change, sig
from apexsim.report.page import Row
from apexsim.report.plain import clean
from apexsim.search.study import Study
from apexsim.search.written import number

# title -> (path in the metrics of a plan's JSON, unit)
COMPARED: dict[str, tuple[tuple[str, ...], str]] = {
    "TTFT p95": (("ttft_ms", "p95"), "ms"),
    "TPOT p95": (("tpot_ms", "p95"), "ms"),
    "E2E mean": (("e2el_ms", "mean"), "ms"),
    "output": (("output_throughput_tok_s",), "tok/s"),
    "total per GPU": (("total_throughput_tok_s_per_gpu",), "tok/s"),
    "cost": (("usd_per_million_output_tokens",), "$ per 1M output tokens"),
    "energy": (("energy", "j_per_out_token"), "J per output token"),
}


def rows(study: Study) -> list[Row]:
    """Before → after, the question first; nothing without an earlier answer."""
    if study.before is None:
        return []
    made = before_json(study)
    assert made is not None
    asked = [f"{name.replace('_', ' ')} {_said(pair['before'])} → {_said(pair['after'])}" for name, pair in made["question"].items()]
    told = [("question", "; ".join(asked) or "the same"), ("plan", f"{made['plan']['before']} → {made['plan']['after']}")]
    return [*told, *((title, _line(pair["before"], pair["after"], pair["unit"])) for title, pair in made["metrics"].items())]


def _said(value: Any) -> str:
    return "not given" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _line(before: float, after: float, unit: str) -> str:
    return f"{sig(before)} → {sig(after)} {unit} ({change(after, before)})"


def before_json(study: Study) -> dict[str, Any] | None:
    """The comparison as plain values; null without an earlier answer."""
    if study.before is None:
        return None
    old, new = study.before["inputs"], clean(dict(study.inputs))
    first = study.before["ranked"][0]
    after = study.ranked[0].metrics.to_json()
    metrics = {}
    for title, (path, unit) in COMPARED.items():
        a, b = number(first["metrics"], path), number(after, path)
        if math.isfinite(a) and math.isfinite(b):
            metrics[title] = {"before": a, "after": b, "unit": unit}
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return {
        "plan": {"before": first["shorthand"], "after": study.ranked[0].plan.shorthand},
        "question": {name: {"before": old.get(name), "after": new.get(name)} for name in names},
        "metrics": metrics,
    }
