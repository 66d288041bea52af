"""Rows of measured systems as cases: what to predict and what was measured (floor 5).

One reader per kind of row (`validate.kinds`).  A row that cannot be predicted becomes a `Skipped` with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apexsim.drafting import RANDOM, Acceptance, Drafting, acceptance_for, plain
from apexsim.engines import EngineRow, closest, engine_versions, load_engine, override, settled
from apexsim.errors import InputError
from apexsim.gpu import Gpu
from apexsim.hardware import Cluster
from apexsim.model.model import Model
from apexsim.model.parts import routed
from apexsim.model.served import served
from apexsim.plan.choose import precision_of
from apexsim.plan.plan import Layout, Plan, Precision
from apexsim.search.setting import IN_TURN, Router
from apexsim.validate.facts import cache_of, maker_of, spelled
from apexsim.validate.rows import WIDEST, Row, number, whole
from apexsim.workload.trace import Workload

LONGEST_MS = 1e9  # of a measured latency


@dataclass(frozen=True, slots=True)
class Case:
    """One measured run, to be simulated."""

    id: str
    model: Model
    cluster: Cluster
    engine: EngineRow
    plan: Plan
    workload: Workload
    max_model_len: int
    measured: dict[str, float]
    labels: dict[str, str]  # engine, gpu, model, and whatever a file groups by
    custom_all_reduce: bool = True
    router: Router = IN_TURN
    notes: tuple[str, ...] = field(default=())  # what was assumed
    known: dict[str, dict[str, float]] = field(default_factory=dict)  # metrics that need no simulation: measured, predicted
    accepts: Acceptance | None = None  # of its drafts
    stall: float = 0.0  # s for which its first wave stood still, which no prediction of a warm server holds
    handed: bool = False  # prompts come computed, from servers of their own


def served_as(row: Row) -> str:
    """Model and format of a row: what its acceptance is fitted for."""
    return f"{plain(row['config'])}-{row['precision']}"


def accepted(engine: str, row: Row, draft: Drafting | None) -> Acceptance | None:
    """How many drafts of a benchmark that sends random tokens are accepted; None without drafts."""
    return acceptance_for(engine, served_as(row), draft, RANDOM) if draft else None


def measured(row: Row, pairs: Mapping[str, str], scale: float = 1.0) -> dict[str, float]:
    """What the row measured: metric name -> value, empty cells and columns that are not there left out."""
    found = {name: number(row, column) * scale for name, column in pairs.items()}
    for name, value in found.items():
        if value < 0 or value > LONGEST_MS:
            raise InputError(f"'{pairs[name]}' is no measured value: {row[pairs[name]]}", f"row {row.get('id', '')}".strip())
    return {name: value for name, value in found.items() if not math.isnan(value)}


def labels_of(row: Row, engine: str, gpu: str, **more: str) -> dict[str, str]:
    """The labels that every row has, and more of its own."""
    return {"engine": engine, "gpu": gpu, "model": spelled(row, "config") or spelled(row, "model"), **more}


def formats(row: Row, config: str, label: str, gpu: Gpu, cache: str = "") -> tuple[Model, Precision, tuple[str, ...]]:
    """Model and number formats of a row, and what was assumed of them: the checkpoint's that its precision label means.

    cache: the KV cache that the row states; what is known of such rows comes before it, the checkpoint's after it.
    """
    found = served(config, label, gpu.vendor, maker_of(row), spelled(row, "model"))
    stated = cache.strip().lower()
    precision = precision_of(found.model, None, None, cache_of(row) or (None if stated in ("", "auto", "none") else stated))
    return found.model, precision, (found.assumed,) if found.assumed else ()


def rules_of(engine: str, version: str, date: str = "") -> tuple[EngineRow, tuple[str, ...]]:
    """The rules of a version; where none is stated those of the newest before the date, else the newest of all, and a note."""
    given = version.strip()
    if given[:1].isdecimal():
        return closest(f"{engine}@{given}"), ()
    rows = [load_engine(f"{engine}@{v}") for v in engine_versions(load_engine(engine).name)]
    before = [row for row in rows if row.released and row.released <= date] if date else rows
    row = before[-1] if before else rows[0]
    when = f"the newest before {date}" if date and before else "the oldest that is known" if date else "the newest"
    return row, (f"version not stated: rules of {row.label}, {when}",)


def engine_for(rules: EngineRow, settings: Mapping[str, Any], gpu: Gpu, length: int) -> EngineRow:
    """An engine's rules with the settings of a run (None keeps a default) and all other defaults decided."""
    return settled(override(rules, **settings), gpu.memory_bytes, gpu.name, length)


def spread(row: Row, model: Model) -> tuple[Layout, Layout]:
    """Attention and FFN layouts by the columns attn_dp, attn_tp, moe_tp, moe_ep."""
    attention = Layout(max(1, whole(row, "attn_dp", 1, most=WIDEST)), whole(row, "attn_tp", 1, 1, WIDEST))
    if not routed(model):
        return attention, Layout(tp=attention.devices) if attention.dp > 1 else attention
    tp, ep = max(1, whole(row, "moe_tp", 1, most=WIDEST)), max(1, whole(row, "moe_ep", 1, most=WIDEST))
    if tp * ep != attention.devices:
        tp = attention.devices // ep if attention.devices % ep == 0 else attention.devices
        ep = attention.devices // tp
    return attention, Layout(1, tp, ep)
