"""A fleet over time: sentences first, then what each policy costs and keeps, and the course of the load (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from apexsim.report.draw import UNKNOWN, percent, sig, sparkline
from apexsim.report.figures import listed
from apexsim.report.launch import launch
from apexsim.report.page import columns, heading, labelled, page
from apexsim.report.plain import clean
from apexsim.search.fleet import Course, Fleet
from apexsim.units import format_seconds

FORMAT = "apexsim.fleet/1"
POINTS = 96  # of a course on a page
DOES = {
    "instant": "what each interval needs, no sooner and no later: a bound, not a policy",
    "reactive": "follows what was needed in the last intervals",
    "predictive": "yesterday at this time, times how today compares with it",
    "scheduled": "a timetable of the day, drawn up with this trace in hand",
    "fixed": "as many as the peak needs, always",
}


def render(fleet: Fleet, *, width: int | None = None, color: bool = False, top: int = 0, everything: bool = False) -> str:
    """The whole page.  width: columns of the terminal, if any; everything: every interval."""
    return page(_parts(fleet, width or math.inf, everything), color)


def _parts(fleet: Fleet, width: float, everything: bool) -> Iterator[RenderableType]:
    begun = f"{fleet.model}: {len(fleet.intervals):,} intervals of {format_seconds(fleet.asked.every)}"
    yield heading("apexsim", begun, width=width)
    yield labelled([("answer", " ".join(sentences(fleet)))], width)
    yield Text()
    yield heading("policies", limits_of(fleet), width=width)
    heads = [("policy", "left"), ("replicas", "right"), ("peak", "right"), ("GPU-hours", "right"), ("$/day", "right"), ("kWh/day", "right"),
             ("within limits", "right"), ("late requests", "right")]  # fmt: skip
    yield columns(heads, [_row(fleet, course) for course in fleet.courses])
    yield labelled([(course.policy, DOES[course.policy]) for course in fleet.courses], width)
    yield Text()
    yield heading("over time", "requests, and replicas that they need", width=width)
    shown = int(min(POINTS, max(20, width - 14)))
    yield labelled([("requests", _course([i.requests for i in fleet.intervals], shown)),
                    ("replicas", _course([i.need for i in fleet.intervals], shown))], width)  # fmt: skip
    if everything:
        rows = [(format_seconds(i.begin), f"{i.requests:,}", f"{i.need}", *(f"{c.serving[t]}" for c in fleet.courses),
                 *_row_of_mix(fleet, t))
                for t, i in enumerate(fleet.intervals)]  # fmt: skip
        yield columns(
            [
                ("from", "right"),
                ("requests", "right"),
                ("needed", "right"),
                *((c.policy, "right") for c in fleet.courses),
                *((name, "right") for name in (fleet.mix.names if fleet.mix else ())),
            ],
            rows,
        )
    yield Text()
    yield heading("launch", f"each replica: {fleet.unit.plan.shorthand} on {_gpus(fleet)}", width=width)
    started = launch(fleet.unit.setting, fleet.unit.plan)
    if started.runnable:
        yield Text(started.script, no_wrap=True)
    yield labelled([("", note) for note in (*started.notes, *notes(fleet))], width)


def _row_of_mix(fleet: Fleet, t: int) -> list[str]:
    return [str(n) for n in fleet.mix.counts[t]] if fleet.mix else []


def _gpus(fleet: Fleet) -> str:
    return f"{fleet.gpus} × {fleet.unit.setting.cluster.gpu.name}"


def limits_of(fleet: Fleet) -> str:
    """Its limits in words."""
    return listed([f"{slo}{f' ({fleet.asked.share:.0%} of requests)' * slo.per_request}" for slo in fleet.goal.slos])


def _course(values: list[int], points: int) -> str:
    """The largest of each part of the time, as a line."""
    parts = np.array_split(np.asarray(values, float), min(points, len(values)))
    return f"{sparkline([float(part.max()) for part in parts])}  up to {max(values):,}"


def _row(fleet: Fleet, course: Course) -> tuple[str, ...]:
    rent = fleet.dollars(course) / fleet.days
    return (course.policy, f"{course.paid.mean():.1f}", f"{course.paid.max()}", hours_of(fleet.gpu_hours(course)),
            f"{rent:,.0f}" if math.isfinite(rent) else UNKNOWN, _number(fleet.kwh(course) / fleet.days),
            percent(float(course.kept.mean())), percent(course.late))  # fmt: skip


def _number(value: float) -> str:
    return sig(value) if math.isfinite(value) else UNKNOWN


def sentences(fleet: Fleet) -> list[str]:
    """The answer in two or three sentences."""
    need = np.array([i.need for i in fleet.intervals])
    most, mean = int(need.max()), float(need.mean())
    peak, spare = most * fleet.gpus, fleet.asked.spare
    told = [f"{peak} GPU{'s' * (peak > 1)} at the peak and {mean * fleet.gpus:.1f} on average{', the spare not counted' * (spare > 0)}: "
            f"replicas of {_gpus(fleet)} as {fleet.unit.plan.shorthand}, {_range(int(need.min()), most)} of them, each good for "
            f"{sig(fleet.unit.value)} requests/s within {limits_of(fleet)}."]  # fmt: skip
    return [*told, *_cheapest(fleet), *_mixed(fleet), *_lost(fleet)]


def _mixed(fleet: Fleet) -> list[str]:
    """What several kinds of GPU behind one router save."""
    mix = fleet.mix
    if mix is None:
        return []
    alone, rent = mix.alone([i.need for i in fleet.intervals]), mix.dollars
    both = int((np.count_nonzero(mix.counts, axis=1) > 1).sum())
    used = [name for name, count in zip(mix.names, mix.counts.sum(axis=0)) if count]
    if rent < 0.995 * alone and len(used) == 1:
        return [f"{used[0]} alone would do for ${sig(rent / fleet.days)} a day, {1.0 - rent / alone:.0%} less than {mix.names[0]} "
                f"(${sig(alone / fleet.days)}), both as if replicas came and went at once."]  # fmt: skip
    if rent >= 0.995 * alone:
        return [f"No mix with {listed(mix.names[1:], 'or')} is cheaper by half a percent: {mix.names[0]} alone will do."]
    return [f"Each interval's cheapest mix with {listed(mix.names[1:], 'or')} costs ${sig(rent / fleet.days)} a day, "
            f"{1.0 - rent / alone:.0%} less than {mix.names[0]} alone (${sig(alone / fleet.days)}), both as if replicas came and went at "
            f"once; {both} of {len(fleet.intervals):,} intervals have two kinds."]  # fmt: skip


def mix_json(fleet: Fleet) -> dict[str, Any]:
    """Replicas of each kind in every interval."""
    mix = fleet.mix
    if mix is None:
        return {}
    kinds = [{"gpu": unit.setting.cluster.gpu.name, "plan": unit.plan.shorthand, "gpus_per_replica": unit.gpus,
              "request_rate_per_replica": unit.value, "usd_per_hour": unit.rent} for unit in mix.units]  # fmt: skip
    return {"mix": {"kinds": kinds, "replicas": mix.counts.tolist(), "usd": mix.dollars,
                    "usd_alone": mix.alone([i.need for i in fleet.intervals])}}  # fmt: skip


def _range(least: int, most: int) -> str:
    return f"{most}" if least == most else f"{least} to {most}"


def _cheapest(fleet: Fleet) -> list[str]:
    able = [c for c in fleet.courses if c.policy not in ("instant",)]
    if not able:
        return []
    best = min(able, key=lambda c: (c.late > 1.0 - fleet.asked.share, fleet.gpu_hours(c)))
    fixed = next((c for c in fleet.courses if c.policy == "fixed"), None)
    less = 0.0 if fixed is None else 1.0 - fleet.gpu_hours(best) / fleet.gpu_hours(fixed)
    saved = f", {less:.0%} less than the peak all the time" if less >= 0.005 else ""
    rent = fleet.dollars(best) / fleet.days
    cost = f" (${rent:,.0f} a day)" if math.isfinite(rent) else ""
    return [f"{best.policy.capitalize()} takes {hours_of(fleet.gpu_hours(best))} GPU-hours{cost}{saved}; "
            f"{percent(best.late)} of the requests come in intervals that miss the limits."]  # fmt: skip


def _lost(fleet: Fleet) -> list[str]:
    lost = fleet.lost
    if not lost:
        return []
    share = (
        f"{lost['attainment']:.0%} of the requests keep theirs"
        if math.isfinite(lost["attainment"])
        else (f"TTFT p95 is {format_seconds(lost['ttft_p95_s'])}, TPOT p95 {format_seconds(lost['tpot_p95_s'])}")
    )
    return [f"With one replica lost in the busiest interval {share}."]


def notes(fleet: Fleet) -> list[str]:
    """What the figures rest on."""
    return [f"a replica serves {format_seconds(fleet.asked.start_up)} after it is asked for and is paid from then on",
            "intervals are simulated apart, each led in by the requests before it: a backlog that lasts longer is not carried on",
            "a replica that is let go takes no time to drain"]  # fmt: skip


def fleet_json(fleet: Fleet) -> dict[str, Any]:
    """The answer as plain values."""
    told: dict[str, Any] = clean({
        "format": FORMAT, "model": fleet.model, "inputs": dict(fleet.inputs), "slos": [str(slo) for slo in fleet.goal.slos],
        "share": fleet.asked.share, "every_s": fleet.asked.every, "start_up_s": fleet.asked.start_up, "hold": fleet.asked.hold,
        "spare": fleet.asked.spare, "min_replicas": fleet.asked.least, "sentences": sentences(fleet), "notes": notes(fleet),
        "gpu": fleet.unit.setting.cluster.gpu.name, "plan": fleet.unit.plan.shorthand, "gpus_per_replica": fleet.gpus,
        "request_rate_per_replica": fleet.unit.value, "launch": launch(fleet.unit.setting, fleet.unit.plan).script or None,
        "intervals": [{"begin_s": i.begin, "requests": i.requests, "replicas": i.need} for i in fleet.intervals],
        "policies": [_course_json(fleet, course) for course in fleet.courses], "one_replica_lost": dict(fleet.lost) or None,
        **mix_json(fleet),
    })  # fmt: skip
    return told


def _course_json(fleet: Fleet, course: Course) -> dict[str, Any]:
    return {
        "policy": course.policy, "mean_replicas": float(course.paid.mean()), "peak_replicas": int(course.paid.max()),
        "gpu_hours": fleet.gpu_hours(course), "usd": fleet.dollars(course), "usd_per_day": fleet.dollars(course) / fleet.days,
        "kwh": fleet.kwh(course), "kwh_per_day": fleet.kwh(course) / fleet.days, "kept": float(course.kept.mean()),
        "late_requests": course.late, "paid": course.paid, "serving": course.serving,
    }  # fmt: skip


def hours_of(spent: float) -> str:
    """GPU-hours; of a short fleet two figures."""
    return f"{spent:,.0f}" if spent >= 9.5 else sig(spent, 2)
