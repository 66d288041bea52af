"""A plan of two pools in words: each pool, and where the time to the first token goes (floor 6)."""

from __future__ import annotations

import math

from apexsim.report.detail import layout_rows, memory_rows
from apexsim.report.draw import percent
from apexsim.report.page import Row
from apexsim.search.assess import Assessed, Side
from apexsim.search.setting import Setting
from apexsim.search.study import Study
from apexsim.units import format_seconds

STEPS = (
    ("queue", "waiting for a prefill server"), ("prefill", "prefill"), ("transfer", "router, hand-shake and cache on its way"),
    ("slot", "waiting for a place at decode"), ("step", "first step at decode"),
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


def wait_rows(ranked: Assessed) -> list[Row]:
    """Where the mean time to the first token goes; nothing of a plan of one pool."""
    wait = ranked.wait
    if wait is None:
        return []
    parts = [(words, getattr(wait, name)) for name, words in STEPS]
    return [("first token", "TTFT mean: " + " + ".join(f"{words} {format_seconds(value)}" for words, value in parts if value >= 5e-5))]
