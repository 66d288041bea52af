"""Two results side by side: what was asked otherwise, what came of it, and where the time went (floor 6).

Results are files of `plan --json` and `simulate --json`.  "Why" is the change of GPU seconds per finished request by class of work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from apexsim.report.draw import change, sig
from apexsim.report.page import columns, heading, labelled, page
from apexsim.report.plain import clean
from apexsim.search.written import has_latencies, number, read_study

FORMAT = "apexsim.compare/1"
METRICS = (  # title, path in a plan's metrics, unit
    ("TTFT mean", ("ttft_ms", "mean"), "ms"), ("TTFT p95", ("ttft_ms", "p95"), "ms"), ("TPOT mean", ("tpot_ms", "mean"), "ms"),
    ("TPOT p95", ("tpot_ms", "p95"), "ms"), ("ITL p99", ("itl_ms", "p99"), "ms"), ("E2E mean", ("e2el_ms", "mean"), "ms"),
    ("E2E p99", ("e2el_ms", "p99"), "ms"), ("queue mean", ("queue_ms", "mean"), "ms"),
    ("requests/s", ("request_throughput_per_s",), "1/s"), ("output throughput", ("output_throughput_tok_s",), "tok/s"),
    ("preemptions", ("preemptions",), ""), ("cost", ("usd_per_million_output_tokens",), "$/1M output tokens"),
    ("power", ("energy", "power_w_per_gpu"), "W per GPU"),
)  # fmt: skip
SETTINGS = ("cluster", "workload", "engine", "model", "price")  # of what was understood
QUIET = ("ideal_hit", "last_arrival_s", "notes")  # follow from others, or are names alone
SHARE = 0.02  # of the GPU time that a class must have changed by to be named
NOT_ASKED = ("plan", "settings")


@dataclass(frozen=True, slots=True)
class Result:
    """One result: its file, what it says, and the plan that it is about."""

    path: str
    study: Mapping[str, Any]

    @property
    def plan(self) -> Mapping[str, Any]:
        """The best plan; of one simulated plan that one."""
        single = "plan" in self.study["inputs"]
        found: Mapping[str, Any] = (None if single else self.study["best"]) or self.study["ranked"][0]
        return found

    def metric(self, path: tuple[str, ...]) -> float:
        """A number of the plan's metrics; NaN where it is not known."""
        return number(self.plan["metrics"], path)

    @property
    def seconds(self) -> dict[str, float]:
        """GPU seconds of each finished request by class of work."""
        done = max(1, self.plan["metrics"]["completed"])
        width = self.plan["plan"]["devices"] / max(1, self.plan["plan"]["replicas"] * self.plan["plan"]["stages"])
        return {name: s * width / done for name, s in self.plan["account"]["seconds"].items()}


def read_result(path: str) -> Result:
    """A file of `plan --json` or `simulate --json`; raises InputError where it is none."""
    return Result(path, read_study(path, lambda said: _lacks(Result(path, said))))


def _lacks(result: Result) -> bool:
    """Whether something that is compared is missing, or is of another kind; may raise what looking for it raises."""
    said = result.study
    return (
        not isinstance(result.plan["shorthand"], str)
        or not all(type(count) is int and count > 0 for count in _counts(result))
        or not all(type(s) in (int, float) and 0.0 <= s < math.inf for s in result.plan["account"]["seconds"].values())
        or not has_latencies(result.plan["metrics"])
        or not isinstance(said["inputs"], dict)
        or not isinstance(said["understood"], dict)
        or "keeps" not in said["verdict"]
        or not isinstance(said["error_bars"]["comparison"], float)
    )


def _counts(result: Result) -> list[Any]:
    """Whole numbers of a plan by which others are divided."""
    plan = result.plan["plan"]
    return [result.plan["metrics"]["completed"], plan["devices"], plan["replicas"], plan["stages"]]


def changes(a: Result, b: Result) -> list[dict[str, Any]]:
    """What was asked, or understood, otherwise: name, before, after."""
    asked = [
        (name, a.study["inputs"].get(name), b.study["inputs"].get(name))
        for name in dict.fromkeys((*a.study["inputs"], *b.study["inputs"]))
        if name not in NOT_ASKED
    ]
    known: list[tuple[str, Any, Any]] = [
        (f"{part}.{name}", _at(a, part).get(name), _at(b, part).get(name))
        for part in SETTINGS
        for name in dict.fromkeys((*_at(a, part), *_at(b, part)))
        if name not in QUIET
    ]
    plans: list[tuple[str, Any, Any]] = [("plan", a.plan["shorthand"], b.plan["shorthand"])]
    named = {name for name, before, after in asked if before != after}
    every: list[tuple[str, Any, Any]] = [*asked, *plans, *(row for row in known if str(row[0]).partition(".")[2] not in named)]
    return [
        {"name": name, "before": before, "after": after}
        for name, before, after in every
        if before != after and not (isinstance(before, Mapping) and isinstance(after, Mapping))
    ]


def _at(result: Result, part: str) -> Mapping[str, Any]:
    found = result.study["understood"].get(part)
    return found if isinstance(found, Mapping) else {}


def compare_json(a: Result, b: Result) -> dict[str, Any]:
    """Both as plain values."""
    known = [(title, unit, was, now) for title, path, unit in METRICS if math.isfinite((was := a.metric(path)) + (now := b.metric(path)))]
    before, after = a.seconds, b.seconds
    why = [
        {"class": name, "before_gpu_s": before.get(name, 0.0), "after_gpu_s": after.get(name, 0.0)}
        for name in sorted({*before, *after}, key=lambda n: -abs(after.get(n, 0.0) - before.get(n, 0.0)))
    ]
    told: dict[str, Any] = clean({
        "format": FORMAT, "before": a.path, "after": b.path, "plans": [a.plan["shorthand"], b.plan["shorthand"]],
        "changed": changes(a, b),
        "metrics": [{"metric": title, "unit": unit, "before": was, "after": now} for title, unit, was, now in known],
        "why": why, "keeps": [x.study["verdict"]["keeps"] for x in (a, b)], "comparison_error": b.study["error_bars"]["comparison"],
    })  # fmt: skip
    return told


def compare_text(record: Mapping[str, Any], color: bool = False, width: int | None = None) -> str:
    """The record as a page."""
    return page(_parts(record, width or 120), color)


def _parts(record: Mapping[str, Any], width: int) -> list[RenderableType]:
    told = [(row["name"].replace("_", " "), f"{_word(row['before'])} → {_word(row['after'])}") for row in record["changed"]]
    heads = [("", "left"), ("before", "right"), ("after", "right"), ("change", "right"), ("", "left")]
    rows = [
        [row["metric"], sig(row["before"]), sig(row["after"]), change(row["after"], row["before"]), row["unit"]]
        for row in record["metrics"]
    ]
    return [
        heading("compare", f"{record['plans'][0]} → {record['plans'][1]}"), labelled([("answer", sentence(record))], width), Text(),
        heading("changed", "nothing" if not told else ""), labelled(told, width), Text(),
        heading("metrics"), columns(heads, rows), Text(),
        heading("why", "GPU seconds of each request"), columns(heads[:4], _why(record)),
    ]  # fmt: skip


def sentence(record: Mapping[str, Any]) -> str:
    """What came of it in a sentence or two."""
    metrics = {row["metric"]: row for row in record["metrics"]}
    width = record["comparison_error"] or 0.0
    parts = []
    for title in ("TTFT p95", "TPOT p95", "E2E mean", "output throughput", "cost"):
        row = metrics.get(title)
        if row and row["before"] and abs(row["after"] / row["before"] - 1.0) > width:
            parts.append(f"{title} {sig(row['before'])} → {sig(row['after'])} {row['unit']} ({change(row['after'], row['before'])})")
    kept, keeps = record["keeps"]
    limits = "" if kept == keeps else " The limits are kept now." if keeps else " The limits are no longer kept."
    return ("; ".join(parts) or f"Nothing differs by more than a comparison can tell ({width:.1%})") + "." + limits


def _why(record: Mapping[str, Any]) -> list[list[str]]:
    """Classes of work whose time changed by more than a share of the whole."""
    whole = max(sum(row["before_gpu_s"] for row in record["why"]), 1e-12)
    shown = [row for row in record["why"] if abs(row["after_gpu_s"] - row["before_gpu_s"]) > SHARE * whole]
    return [
        [row["class"], sig(row["before_gpu_s"]), sig(row["after_gpu_s"]), change(row["after_gpu_s"], row["before_gpu_s"])] for row in shown
    ]


def _word(value: Any) -> str:
    return "none" if value in (None, "", [], {}) else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
