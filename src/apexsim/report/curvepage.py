"""A small picture of latency against the load, with the knee (floor 6)."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from apexsim.report.canvas import Mark, picture
from apexsim.report.draw import sig
from apexsim.report.figures import scale_for
from apexsim.report.page import heading, labelled
from apexsim.search.study import LoadCurve, LoadPoint

SHOWN = 6  # curves of a picture
KNEE = "◆"


def parts(curves: Sequence[LoadCurve], width: float) -> Iterator[RenderableType]:
    """The section of a page; nothing without two loads."""
    curves = [curve for curve in curves if len(curve.loads) > 1][:SHOWN]
    if not curves:
        return
    scale = scale_for(max((each.ttft for each in curves[0].loads if not each.saturated), default=0.0))
    marks = [
        Mark(string.ascii_lowercase[i], _loads(curve), [each.ttft * scale.factor for each in curve.loads]) for i, curve in enumerate(curves)
    ]
    bends = [curve.loads[curve.knee] for curve in curves if curve.knee >= 0]
    marks.append(Mark(KNEE, [each.load for each in bends], [each.ttft * scale.factor for each in bends]))
    drawn = picture(marks, _unit(curves[0]), f"TTFT p95 [{scale.unit}]", width - 2, curves[0].closed, log_y=True)
    if not drawn:
        return
    yield Text()
    yield heading("load", f"TTFT p95 against {_unit(curves[0])}", width=width)
    yield Text("\n".join(f"  {line}" for line in drawn), no_wrap=True)
    yield labelled([(string.ascii_lowercase[i], told(curve)) for i, curve in enumerate(curves)], width)


def _loads(curve: LoadCurve) -> list[float]:
    return [each.load for each in curve.loads]


def _unit(curve: LoadCurve) -> str:
    return "users" if curve.closed else "requests/s"


def told(curve: LoadCurve) -> str:
    """2×TP4: knee (◆) at 12 requests/s with TTFT p95 90 ms, TPOT p95 20 ms; does not keep up from 15 on."""
    words = f"{curve.label}: " * bool(curve.label)
    if curve.knee < 0:
        words += "no knee among these loads"
    else:
        at = curve.loads[curve.knee]
        words += f"knee ({KNEE}) at {sig(at.load)} {_unit(curve)}, {_latencies(at)}"
    over = next((each.load for each in curve.loads if each.saturated), math.nan)
    return words + (f"; does not keep up from {sig(over)} on" if math.isfinite(over) else "")


def _latencies(load: LoadPoint) -> str:
    tpot = f", TPOT p95 {scale_for(load.tpot)(load.tpot)}" if math.isfinite(load.tpot) else ""
    return f"TTFT p95 {scale_for(load.ttft)(load.ttft)}{tpot}"


def curve_json(curve: LoadCurve) -> dict[str, Any]:
    """A curve as plain values."""
    return {
        "label": curve.label, "load": "users" if curve.closed else "requests/s",
        "knee": curve.loads[curve.knee].load if curve.knee >= 0 else None,
        "loads": [
            {"load": x.load, "request_rate": x.served, "goodput_req_s": x.goodput, "ttft_p95_ms": 1e3 * x.ttft, "tpot_p95_ms": 1e3 * x.tpot,
             "e2e_mean_ms": 1e3 * x.e2e, "tok_s_user": x.pace, "tok_s_gpu": x.per_gpu, "keeps": x.keeps, "saturated": x.saturated}
            for x in curve.loads
        ],
    }  # fmt: skip
