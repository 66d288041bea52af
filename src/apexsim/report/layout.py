"""How each cell of a plan is laid out, in words and as plain values (floor 6)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from apexsim.hardware import Cluster
from apexsim.model.cell import Cell
from apexsim.model.ops import Axis, Collective
from apexsim.plan.lower import StageOps
from apexsim.plan.plan import Plan
from apexsim.plan.space import cell_split
from apexsim.plan.weights import stages_of
from apexsim.search.setting import Setting


def link_name(cluster: Cluster, op: Collective) -> str:
    """The link a collective crosses."""
    if op.group * op.stride > cluster.size:
        return ""
    return cluster.link(op.group, op.stride).name


def collective_words(op: Collective, count: int, cluster: Cluster) -> str:
    """One kind of collective: 2 × all-reduce over 8 GPUs (NVLink 4, 16.0 KiB per token)."""
    apart = f" {op.stride} apart" if op.stride > 1 else ""
    share = " of its lane" if op.axis == Axis.LANE else (f", 1/{op.split} of the tokens" if op.split > 1 else "")
    return (
        f"{count} × {op.kind.replace('_', '-')} over {op.group} GPUs{apart} "
        f"({link_name(cluster, op)}, {op.bytes_per_token / 1024:.3g} KiB per token{share})"
    )


def layouts(setting: Setting, plan: Plan, stages: tuple[StageOps, ...]) -> list[dict[str, Any]]:
    """Per stage and kind of layer: its cells with their layouts, and the collectives of one layer."""
    found = []
    for stage, ops in zip(stages_of(setting.model, plan.stages), stages):
        for (block, count), (layer, _) in zip(stage.layers, ops.layers):
            moves = Counter(op for op in layer.ops if isinstance(op, Collective))
            found.append(
                {
                    "stage": stage.index,
                    "layers": count,
                    "cells": [_cell(cell, plan) for cell in block.cells],
                    "collectives": [_collective(op, n, setting.cluster) for op, n in moves.items()],
                }
            )
    return found


def _cell(cell: Cell, plan: Plan) -> dict[str, Any]:
    layout = plan.attention if cell.place == "attention" else plan.ffn
    return {"cell": cell.name, "layout": str(layout), "per_gpu": cell.words(*cell_split(cell, plan))}


def _collective(op: Collective, count: int, cluster: Cluster) -> dict[str, Any]:
    return {
        "kind": op.kind,
        "per_layer": count,
        "group": op.group,
        "stride": op.stride,
        "link": link_name(cluster, op),
        "bytes_per_token": op.bytes_per_token,
        "tokens": "lane" if op.axis == Axis.LANE else "all",
        "split": op.split,
        "words": collective_words(op, count, cluster),
    }
