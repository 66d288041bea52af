"""What a run costs and draws, and what the plan of least energy costs in latency (floor 6)."""

from __future__ import annotations

import math

from apexsim.cost.books import missing, told, typed
from apexsim.cost.power import J_PER_KWH
from apexsim.report.draw import change, sig
from apexsim.report.figures import scale_of
from apexsim.report.page import Row
from apexsim.search.assess import Assessed
from apexsim.search.error import OF_POWER
from apexsim.search.study import Study


def cost_rows(study: Study, ranked: Assessed) -> list[Row]:
    """What the GPUs cost, and by which book; nothing where no book has a price."""
    book, usd, per_million = study.setting.price[1], ranked.metrics.usd_h, ranked.metrics.usd_per_million
    gpu = study.setting.cluster.gpu
    if not math.isfinite(usd):
        known = [typed(name) for name in gpu.prices]
        return [("cost", f"unknown: {missing(gpu, book)}: --price {known[0]}")] if known else []
    gpus = ranked.metrics.devices
    rent = f"${sig(usd * gpus)}/h for {gpus} GPU{'s' * (gpus > 1)} (${sig(usd)} each, {told(book)})"
    return [("cost", f"${sig(per_million)} per million output tokens at {rent}")]


def power_rows(study: Study, ranked: Assessed) -> list[Row]:
    """What the run draws, and the plan of least energy beside the fastest one; nothing where the GPU's power is unknown."""
    spent, tdp = ranked.metrics.energy, _limit(study, ranked)
    if not math.isfinite(spent.joules):
        return []
    rows: list[Row] = [
        (
            "power",
            f"{sig(spent.watts)} of {sig(tdp)} W per GPU; {sig(spent.per_output_token)} J per output token, {sig(spent.per_token)} per "
            f"token, {sig(spent.per_request)} per request; {sig(spent.joules / J_PER_KWH)} kWh of GPUs in all; with its servers "
            f"{sig(spent.wall_w)} W and {sig(spent.wall_per_output_token)} J per output token at the wall",
        )
    ]
    asked = study.goal.objective.name in OF_POWER and not study.single and len(study.ranked) > 1
    return [*rows, ("energy", least_energy(study))] if asked else rows


def _limit(study: Study, ranked: Assessed) -> float:
    """Mean power limit of the plan's GPUs [W]."""
    each = [(own.cluster.gpu.tdp_w, side.plan.devices) for own, side in zip(study.setting.of(ranked.plan), ranked.sides)]
    return sum(watts * gpus for watts, gpus in each) / sum(gpus for _, gpus in each)


def least_energy(study: Study) -> str:
    """The plan of least energy per output token against the one of lowest mean E2E, among those that keep the limits and the load."""
    able = [r for r in study.ranked if r.keeps and not r.metrics.saturated] or list(study.ranked)
    least = min(able, key=lambda r: r.metrics.energy.per_output_token)
    fast = min(able, key=lambda r: r.metrics.e2el.mean)
    if least is fast:
        return f"{least.plan.shorthand} has both the lowest E2E and the least energy per output token"
    a, b = least.metrics, fast.metrics
    joules = a.energy.per_output_token, b.energy.per_output_token
    words = [f"{least.plan.shorthand} spends least: {sig(joules[0])} vs {sig(joules[1])} J per output token ({change(*joules)}) of "
             f"{fast.plan.shorthand}, the lowest E2E"]  # fmt: skip
    for title, metric in (("TTFT", "ttft"), ("TPOT", "tpot")):
        x, y = a.latency(metric), b.latency(metric)
        if math.isfinite(x) and math.isfinite(y):
            scale = scale_of(study, metric)
            words.append(f"{title} {scale.bare(x)} vs {scale(y)} ({change(x, y)})")
    return "; ".join(words)
