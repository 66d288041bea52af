"""A plan of two pools in words: each pool, and where the time to the first token goes (floor 6)."""

from __future__ import annotations

import math

from apexsim.report.detail import layout_rows, memory_rows
from apexsim.report.draw import percent, sig
from apexsim.report.figures import listed, objective_short, sentence
from apexsim.report.page import Row
from apexsim.search.assess import Assessed, Side
from apexsim.search.setting import Setting
from apexsim.search.study import Study, Worth
from apexsim.units import format_seconds
from apexsim.workload.load import mean_rate

STEPS = (
    ("queue", "waiting for a prefill server"), ("prefill", "prefill"), ("transfer", "router, hand-shake and cache on its way"),
    ("slot", "waiting between the pools"), ("step", "first step at decode"),
)  # fmt: skip


def pool_rows(study: Study, ranked: Assessed, width: float = math.inf) -> list[Row]:
    """Layout and memory of each pool, and of two the way to the first token."""
    rows: list[Row] = []
    for own, side in zip(study.setting.of(ranked.plan), ranked.sides):
        rows += [(side.role, _about(own, side))] if side.role else []
        rows += [*layout_rows(own, side), *memory_rows(side, width)]
    return [*rows, *wait_rows(ranked)]


def _about(setting: Setting, side: Side) -> str:
    plan, row = side.plan, setting.engine
    each = plan.replica_devices
    servers = f"{plan.replicas} server{'s' * (plan.replicas > 1)} of {each} × {setting.cluster.gpu.name}"
    spent = side.account
    busy = spent.busy / max(spent.busy + spent.idle, 1e-30)
    return (
        f"{servers} ({plan.shorthand}), max-num-seqs {row.max_num_seqs:,}, max-num-batched-tokens {row.max_num_batched_tokens:,}; "
        f"at work {percent(busy)} of the time"
    )


# ---- is it worth it? -------------------------------------------------------------------------------------------------


def worth_rows(study: Study) -> list[Row]:
    """The answer as a line of the report; nothing where two pools were not asked for."""
    if study.worth:
        return [("worth it?", worth_words(study))]
    if study.single or not study.setting.pools or study.interrupted:
        return []
    kind = "two pools" if not any(run.split for run in study.ranked) else "one pool"
    return [("worth it?", f"Nothing to compare: no plan of {kind} fits and can be started.")]


def worth_words(study: Study) -> str:
    """The best plan of two pools against the best of one, and where that turns."""
    worth = study.worth
    assert worth is not None
    return f"{_now(study, worth)} {_elsewhere(study, worth)}".strip()


def _now(study: Study, worth: Worth) -> str:
    apart, together, width = worth.apart, worth.together, study.error[1]
    name, other = apart.plan.shorthand, together.plan.shorthand
    if apart.key[:2] != together.key[:2]:  # limits, then load
        yes = apart.key[:2] < together.key[:2]
        limits, kept = apart.key[0] != together.key[0], not min(apart.key[0], together.key[0])
        does = ("keeps the limits" if kept else "comes nearer to the limits") if limits else "keeps up with the load"
        best, rest = (name, other) if yes else (other, name)
        return f"{'Yes' if yes else 'No'}: {best} {does}, {rest}, the best {'with one pool' if yes else 'with two pools'}, does not."
    gain = study.goal.objective.ratio(apart.value, together.value)
    words = objective_short(study.goal.objective)
    told = f"{words} of {name} is {gain:.2f} ± {width * gain:.2f} times as good as that of {other}, the best with one pool"
    if abs(math.log(max(gain, 1e-9))) <= width:
        return f"A tie: {told}; differences under {percent(width)} say nothing."
    return f"{'Yes' if gain > 1 else 'No'}: {told}."


def _elsewhere(study: Study, worth: Worth) -> str:
    """From which prompt length and which load on two pools pay, with the plans at hand."""
    width, told = study.error[1], []
    for axis, unit in (("prompt", _tokens), ("load", _load)):
        points = [p for p in worth.points if p.axis == axis and not math.isnan(p.gain)]
        pays = [p.gain > 1.0 + width for p in points]
        if not points:
            continue
        tried = f"{unit(study, points[0].factor)} to {unit(study, points[-1].factor)} {noun(study, axis)}"
        if not any(pays):
            told.append(f"not worth it with {tried}")
        elif all(pays):
            told.append(f"worth it with all tried, {tried}")
        elif pays == sorted(pays):
            at = pays.index(True)
            told.append(
                f"worth it from {unit(study, points[at].factor)} {noun(study, axis)} on, not with {unit(study, points[at - 1].factor)}"
            )
        else:
            where = listed([unit(study, p.factor) for p, good in zip(points, pays) if good])
            told.append(f"of {tried} worth it with {where}")
    return sentence("; ".join(told)) if told else ""


def noun(study: Study, axis: str) -> str:
    """What the factors of an axis count."""
    return "prompt tokens" if axis == "prompt" else "users" if study.setting.workload.mode == "closed" else "requests/s"


def _tokens(study: Study, factor: float) -> str:
    return f"{max(1, round(float(study.setting.workload.prompt.mean()) * factor)):,}"


def _load(study: Study, factor: float) -> str:
    work = study.setting.workload
    return f"{max(1, round(work.concurrency * factor)):,}" if work.mode == "closed" else sig(mean_rate(work.arrive) * factor)


# ---- where the first token comes from --------------------------------------------------------------------------------


def wait_rows(ranked: Assessed) -> list[Row]:
    """Where the mean time to the first token goes; nothing of a plan of one pool."""
    wait = ranked.wait
    if wait is None:
        return []
    parts = [(words, getattr(wait, name)) for name, words in STEPS]
    return [("first token", "TTFT mean: " + " + ".join(f"{words} {format_seconds(value)}" for words, value in parts if value >= 5e-5))]
