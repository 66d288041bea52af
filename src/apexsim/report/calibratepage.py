"""A calibration as text and as plain values (floor 6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import RenderableType

from apexsim.calibrate.corners import Shape
from apexsim.calibrate.fit import NAMES
from apexsim.calibrate.points import RunPoint
from apexsim.calibrate.profile import plain_of
from apexsim.calibrate.run import FORMAT, Calibration, Score, best, middle
from apexsim.doubt import Doubt
from apexsim.plan.plan import Plan
from apexsim.report.draw import percent
from apexsim.report.page import columns, heading, labelled, page, pasted
from apexsim.stats import plain

SUGGESTED = "apexsim.suggestion/1"
TITLES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E", "throughput": "output tok/s", "power": "power"}
ACTS = {"decode": "decode steps on the GPU", "prefill": "prompt steps on the GPU", "launch": "host: launches, scheduler, requests",
        "kv": "blocks of the KV cache", "power": "power of the GPUs"}  # fmt: skip
UNIT = {
    "ttft": ("_ms", 1e3),
    "tpot": ("_ms", 1e3),
    "itl": ("_ms", 1e3),
    "e2e": ("_ms", 1e3),
    "throughput": ("_tok_s", 1.0),
    "power": ("_w", 1.0),
}
ENGINE = ("engine", "release", "formats")
SHOWN = 8  # runs and reasons that are listed


# ---- plain values --------------------------------------------------------------------------------------------------------


def calibration_json(found: Calibration) -> dict[str, Any]:
    """Everything that was found."""
    gathered = found.gathered
    return {
        "format": FORMAT, "system": dict(gathered.system), "files": found.profile.about["files"], "dates": list(gathered.dates),
        "factors": {name: _factor(found, name) for name in ACTS},
        "errors": {score.metric: _score(score) for score in found.scores},
        "error_bars": {name: _doubt(doubt) for name, doubt in found.profile.left.items()},
        "runs": [_run(found, i, point) for i, point in enumerate(gathered.points)],
        "passed": [{"where": each.where, "reason": each.reason} for each in gathered.passed],
        "odd": dict(found.odd), "next": _shapes(found.wanted),
        "profile": plain_of(found.profile)["name"] or None,
    }  # fmt: skip


def _doubt(doubt: Doubt) -> dict[str, float]:
    return {"offset": doubt.offset, "rest": doubt.rest, "half": doubt.half}


def _factor(found: Calibration, name: str) -> dict[str, Any]:
    low = high = None
    value = getattr(found.factors, name)
    if name in NAMES:
        sd = float(found.found.sd[NAMES.index(name)])
        low, high = value * float(np.exp(-sd)), value * float(np.exp(sd))
    return {"value": value, "low": low, "high": high, "told": found.told[name], "means": ACTS[name]}


def _score(score: Score) -> dict[str, Any]:
    told = {}
    for when, logs in (("before", score.before), ("after", score.after)):
        size = np.abs(np.expm1(logs))
        told[when] = {"n": len(logs), "median_abs_error": float(np.median(size)), "p90_abs_error": float(np.quantile(size, 0.9)),
                      "mean_abs_error": float(size.mean()), "bias": float(np.median(np.expm1(logs)))}  # fmt: skip
    return told


def _run(found: Calibration, i: int, point: RunPoint) -> dict[str, Any]:
    kind, load = point.load
    values = []
    for metric, (unit, scale) in UNIT.items():
        key = best(point, metric)
        if key and key in found.found.before[i] and key in found.found.after[i]:
            was = point.measured[key]
            told = [plain(was * float(np.exp(logs[i][key])) * scale) for logs in (found.found.before, found.found.after)]
            values.append({"metric": metric + unit, "stat": key[1], "measured": plain(was * scale), "before": told[0], "after": told[1]})
    work = point.setting.workload
    return {"where": point.name, "plan": point.plan.shorthand, "load": load, "load_is": kind, "requests": work.size,
            "prompt_mean": point.prompt, "output_mean": float(work.output.mean()), "values": values}  # fmt: skip


def _shapes(wanted: Sequence[tuple[Shape, str]]) -> list[dict[str, Any]]:
    return [
        {"prompt": shape.prompt, "output": shape.output, "users": shape.users, "requests": shape.requests, "command": line}
        for shape, line in wanted
    ]


def suggestion_json(plan: Plan, wanted: Sequence[tuple[Shape, str]]) -> dict[str, Any]:
    """What to measure."""
    return {"format": SUGGESTED, "plan": plan.shorthand, "runs": _shapes(wanted)}


# ---- text ----------------------------------------------------------------------------------------------------------------


def calibration_text(found: Calibration, color: bool = False) -> str:
    """The page: factors, errors before and after, what is odd, what to measure next."""
    gathered, system = found.gathered, found.gathered.system
    engine = " ".join(system[label] for label in ENGINE)
    passed = [("passed", f"{n} × {reason}") for reason, n in Counter(each.reason for each in gathered.passed).most_common(SHOWN)]
    parts: list[RenderableType] = [
        heading("calibrate", f"{len(gathered.points)} runs of {system['model']} on {system['gpu']}, {engine}"),
        labelled(passed),
        "", heading("factors", "measured over predicted; 1 changes nothing"), _factors(found),
        "", heading("errors", "median of |predicted / measured − 1|, of runs held back"), _errors(found.scores),
    ]  # fmt: skip
    notes = [("look at", f"{name} × {getattr(found.factors, name):.2f}: {meaning}") for name, meaning in found.odd.items()]
    notes += [("note", f"{name} is not told by these runs and stays near 1") for name in NAMES if not found.told[name]]
    notes += [("note", f"{TITLES[s.metric]} is no better by it") for s in found.scores if middle(s.after) > middle(s.before)]
    parts += ["", labelled(notes)] if notes else []
    if found.wanted:
        parts += ["", heading("measure next", "short and long prompt, lowest and highest load: these are missing"), _lines(found.wanted)]
    return page(parts, color)


def render(found: Calibration, *, width: int | None = None, color: bool = False, top: int = 0, everything: bool = False) -> str:
    """The page, as every answer has one."""
    return calibration_text(found, color)


def title(found: Calibration) -> str:
    """What was calibrated, in a line."""
    system = found.gathered.system
    return f"{len(found.gathered.points)} runs of {system['model']} on {system['gpu']}, {' '.join(system[label] for label in ENGINE)}"


def sentences(found: Calibration) -> list[str]:
    """The factors, and what they are worth on runs held back."""
    factors = ", ".join(f"{name} × {told['value']:.3f}" for name, told in _shown(found).items())
    errors = ", ".join(f"{TITLES[s.metric]} {percent(middle(s.before))} → {percent(middle(s.after))}" for s in found.scores)
    return [f"Measured over predicted: {factors}.", *([f"Median errors of runs held back: {errors}."] if errors else [])]


def _factors(found: Calibration) -> RenderableType:
    rows = []
    for name, told in _shown(found).items():
        spread = f"{told['low']:.2f} to {told['high']:.2f}" if told["low"] else ""
        rows.append((name, f"{told['value']:.3f}", spread, ACTS[name]))
    return columns([("", "left"), ("factor", "right"), ("± 1 sd", "right"), ("of", "left")], rows)


def _bias(logs: Sequence[float]) -> str:
    return f"{100.0 * float(np.median(np.expm1(logs))):+.1f}".replace("-", "−")


def _shown(found: Calibration) -> dict[str, dict[str, Any]]:
    return {name: _factor(found, name) for name in ACTS if name in NAMES or getattr(found.factors, name) != 1.0}


def _errors(scores: Sequence[Score]) -> RenderableType:
    rows = [(TITLES[s.metric], str(len(s.after)), percent(middle(s.before)), percent(middle(s.after)),
             f"{_bias(s.before)} → {_bias(s.after)}") for s in scores]  # fmt: skip
    return columns([("", "left"), ("runs", "right"), ("before", "right"), ("after", "right"), ("bias [%]", "right")], rows)


def suggestion_text(plan: Plan, wanted: Sequence[tuple[Shape, str]]) -> str:
    """The commands."""
    return page([heading("measure", f"four runs of {plan.shorthand} that tell most; then: apexsim calibrate FILES --plan {plan.shorthand}"),
                 _lines(wanted)])  # fmt: skip


def _lines(wanted: Sequence[tuple[Shape, str]]) -> RenderableType:
    return labelled([(f"{shape.prompt:,} tokens × {shape.users}", pasted(line, margin=30)) for shape, line in wanted])
