"""Several models on one cluster: sentences first, then each model, each policy, and the sum over time (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from apexsim.report.draw import UNKNOWN, percent, sig, sparkline
from apexsim.report.figures import listed
from apexsim.report.fleetpage import DOES, POINTS, fleet_json, limits_of
from apexsim.report.page import columns, heading, labelled, page
from apexsim.report.plain import clean
from apexsim.search.together import SharedFleet, Tenant
from apexsim.units import format_seconds

FORMAT = "apexsim.shared_fleet/1"
RULE = (
    "where the cluster is short, a higher priority comes first; then, replica by replica, the model that has the smallest share of "
    "what it asks for; what does not fit is passed over"
)


def render(fleet: SharedFleet, *, width: int | None = None, color: bool = False, top: int = 0, everything: bool = False) -> str:
    """The whole page.  width: columns of the terminal, if any; everything: every interval."""
    return page(_parts(fleet, width or math.inf, everything), color)


def title(fleet: SharedFleet) -> str:
    """What was asked."""
    where = f" on {fleet.gpus} × {fleet.gpu}" if fleet.gpus else f" on {fleet.gpu}"
    return f"{count_of(len(fleet.tenants), 'model')}{where}: {count_of(fleet.count, 'interval')} of {format_seconds(fleet.every)}"


def count_of(number: int, word: str) -> str:
    """3 models."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def _parts(fleet: SharedFleet, width: float, everything: bool) -> Iterator[RenderableType]:
    yield heading("apexsim", title(fleet), width=width)
    yield labelled([("answer", " ".join(sentences(fleet)))], width)
    yield Text()
    yield heading("models", "GPUs that each needs to keep its limits", width=width)
    yield columns(_heads(MODEL_HEADS, 2), [model_row(fleet, one) for one in fleet.tenants])
    yield labelled([(one.ask.name, f"{one.ask.model}, {limits_of(one.alone)}") for one in fleet.tenants], width)
    yield Text()
    yield heading("policies", "GPUs that all models ask for, and the cost of those that they are given", width=width)
    yield columns(_heads(HEADS, 1), [policy_row(fleet, at) for at in range(len(fleet.policies))])
    yield labelled([(policy, DOES[policy]) for policy in fleet.policies], width)
    yield Text()
    late = [("policy", "left"), *((one.ask.name, "right") for one in fleet.tenants)]
    yield heading("late requests", "share that comes in intervals that miss the limits, with what the cluster has", width=width)
    yield columns(late, [(name, *(percent(one.courses[at].late) for one in fleet.tenants)) for at, name in enumerate(fleet.policies)])
    yield Text()
    yield heading("over time", "GPUs that are needed", width=width)
    shown = int(min(POINTS, max(20, width - 30)))
    rows = [(one.ask.name, one.need(fleet.count)) for one in fleet.tenants]
    yield labelled([(name, _line(values, shown)) for name, values in [*rows, ("sum", fleet.need)]], width)
    if everything:
        lacking = fleet.lacking(fleet.need)
        yield columns([("from", "right"), *((name, "right") for name, _ in rows), ("sum", "right"), ("short", "right")],
                      [(format_seconds(fleet.begin + t * fleet.every), *(str(values[t]) for _, values in rows), str(fleet.need[t]),
                        str(lacking[t])) for t in range(fleet.count)])  # fmt: skip
    yield labelled([("", note) for note in notes(fleet)], width)


def _line(values: Any, points: int) -> str:
    parts = np.array_split(np.asarray(values, float), min(points, len(values)))
    return f"{sparkline([float(part.max()) for part in parts])}  up to {int(max(values)):,}"


def model_row(fleet: SharedFleet, one: Tenant) -> tuple[str, ...]:
    """A model and its needs."""
    need, at = one.need(fleet.count), int(fleet.need.argmax())
    return (one.ask.name, one.alone.unit.plan.shorthand, f"{one.alone.gpus}", f"{need.max()}", f"{need.mean():.1f}", f"{need[at]}",
            f"{one.ask.priority}")  # fmt: skip


def _heads(names: Sequence[str], left: int) -> list[tuple[str, Any]]:
    """Heads of columns, the first ones on the left."""
    return [(name, "left" if i < left else "right") for i, name in enumerate(names)]


MODEL_HEADS = ("model", "replica", "GPUs", "peak", "mean", "at sum's peak", "priority")
HEADS = ("policy", "mean", "peak", "GPU-hours", "$/day", "kWh/day", "intervals short", "by at most")


def policy_row(fleet: SharedFleet, at: int) -> tuple[str, ...]:
    """A policy and what comes of it."""
    told = policy_json(fleet, at)
    day = {name: sig(told[name] / fleet.days) if math.isfinite(told[name]) else UNKNOWN for name in ("usd", "kwh")}
    return (told["policy"], f"{told['mean_gpus']:.1f}", f"{told['peak_gpus']}", sig(told["gpu_hours"]), day["usd"], day["kwh"],
            f"{told['short_intervals']:,}", f"{told['most_short_gpus']}")  # fmt: skip


def sentences(fleet: SharedFleet) -> list[str]:
    """The answer in a few sentences."""
    need, split = fleet.need, fleet.split
    most, at = int(need.max()), int(need.argmax())
    told = [f"Together the models need {count_of(most, 'GPU')} at the peak ({_when(fleet, at)}) and {need.mean():.1f} on average."]
    if len(fleet.tenants) > 1:
        parts = listed([f"{one.need(fleet.count).max()} for {one.ask.name}" for one in fleet.tenants])
        saved = f"sharing saves {split - most} of them ({1.0 - most / split:.0%})"
        none = "the peaks come together, so sharing saves none"
        told.append(f"A fixed split, each model its own peak, takes {split} ({parts}): {saved if split > most else none}.")
    return [*told, *_short(fleet, most, split)]


def _when(fleet: SharedFleet, t: int) -> str:
    return f"from {format_seconds(fleet.begin + t * fleet.every)} on" if fleet.begin + t * fleet.every else "from the beginning on"


def _short(fleet: SharedFleet, most: int, split: int) -> list[str]:
    """Whether the cluster is large enough."""
    if not fleet.gpus:
        return []
    lacking = fleet.lacking(fleet.need)
    if not lacking.any():
        left = f"{fleet.gpus - most} of {fleet.gpus} GPUs are left at the peak"
        fixed = "" if split <= fleet.gpus or len(fleet.tenants) < 2 else "; a fixed split would not fit"
        return [f"The cluster is large enough at all times: {left}{fixed}."]
    at, times = int(lacking.argmax()), int((lacking > 0).sum())
    return [f"The cluster is short in {times:,} of {count_of(fleet.count, 'interval')}, by {count_of(int(lacking[at]), 'GPU')} at worst "
            f"({_when(fleet, at)}).", *_missed(fleet)]  # fmt: skip


def _missed(fleet: SharedFleet) -> list[str]:
    """Whose limits are missed even where replicas come and go at once."""
    if "instant" not in fleet.policies:
        return []
    late = [(one.ask.name, one.courses[fleet.policies.index("instant")].late) for one in fleet.tenants]
    told = listed([f"{percent(share)} of the requests of {name}" for name, share in late if share > 0])
    return [f"Even if replicas came and went at once, intervals that miss the limits hold {told}."] if told else []


def notes(fleet: SharedFleet) -> list[str]:
    """What the figures rest on."""
    left = [f"{count_of(fleet.left_out, 'interval')} of single traces lie outside of the time that all have in common, and are left out"]
    return [*([RULE] if fleet.gpus else []), *(left if fleet.left_out else []),
            "GPUs are counted, not placed: whether a replica finds its GPUs in one node is not looked at",
            "each model is simulated apart from the others, as `apexsim fleet` does for one"]  # fmt: skip


def shared_json(fleet: SharedFleet) -> dict[str, Any]:
    """The answer as plain values."""
    need = fleet.need
    told: dict[str, Any] = clean({
        "format": FORMAT, "inputs": dict(fleet.inputs), "gpu": fleet.gpu, "gpus": fleet.gpus or None, "every_s": fleet.every,
        "begin_s": fleet.begin, "sentences": sentences(fleet), "notes": notes(fleet), "peak_gpus": int(need.max()),
        "mean_gpus": float(need.mean()), "fixed_split_gpus": fleet.split, "need": need, "lacking": fleet.lacking(need),
        "models": [_model_json(fleet, one) for one in fleet.tenants],
        "policies": [policy_json(fleet, at) for at in range(len(fleet.policies))],
    })  # fmt: skip
    return told


def _model_json(fleet: SharedFleet, one: Tenant) -> dict[str, Any]:
    return {
        "name": one.ask.name, "priority": one.ask.priority, "begins_s": one.ask.begins, "first": one.first, "need": one.need(fleet.count),
        "policies": [{"policy": course.policy, "asked": one.wanted(at, fleet.count), "given": course.paid * one.alone.gpus,
                      "serving": course.serving * one.alone.gpus, "kept": float(course.kept.mean()), "late_requests": course.late}
                     for at, course in enumerate(one.courses)],
        "alone": fleet_json(one.alone),
    }  # fmt: skip


def policy_json(fleet: SharedFleet, at: int) -> dict[str, Any]:
    """A policy over all models."""
    wanted, pairs = fleet.wanted(at), [(one.alone, one.courses[at]) for one in fleet.tenants]
    lacking = fleet.lacking(wanted)
    return {
        "policy": fleet.policies[at], "mean_gpus": float(wanted.mean()), "peak_gpus": int(wanted.max()),
        "gpu_hours": sum(alone.gpu_hours(course) for alone, course in pairs), "usd": sum(alone.dollars(course) for alone, course in pairs),
        "kwh": sum(alone.kwh(course) for alone, course in pairs), "short_intervals": int((lacking > 0).sum()),
        "most_short_gpus": int(lacking.max()),
    }  # fmt: skip
