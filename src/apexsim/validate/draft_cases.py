"""The same run with drafts and without: by how much drafting was faster (floor 5).

What both runs share cancels out, so that a pair tells of verification, drafting and acceptance alone.  Where prompts are computed by
servers of their own, the decode servers are simulated: their requests come with the prompt known but for one token, which takes the
place of the hand-over, after the time that the run spent on first tokens, unless it waited for decode slots; only the time per token
is compared.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from apexsim.errors import InputError
from apexsim.files import lines
from apexsim.hardware import load_gpu
from apexsim.validate.apart_cases import pool_of
from apexsim.validate.cases import Case, accepted, formats, labels_of, measured, rules_of
from apexsim.validate.closed_cases import closed_loop, drafted, population
from apexsim.validate.facts import spelled, suspect
from apexsim.validate.rows import Cells, Row, Skipped, number
from apexsim.workload.trace import Workload

SPEEDUPS = {"speedup_tpot": "speedup_tpot", "speedup_e2e": "speedup_e2e"}
APART, PROMPT_BOUND, SLOT_BOUND = "disaggregated", "prefill-bound", "decode-capped"


@dataclass(frozen=True, slots=True)
class Pair:
    """A run with drafts and its twin without."""

    id: str
    drafts: Case
    plain: Case
    measured: dict[str, float]
    labels: dict[str, str]
    notes: tuple[str, ...] = ()


def pair(row: Row, where: Path) -> Pair | Skipped:
    """A row of pairs; the settings of both runs stand in the file that it names, beside its own."""
    name, model = f"{row['id_spec']}-{row['id_base']}", row["config"]
    grade, mode = spelled(row, "grade"), row["mode"]
    labels = labels_of(
        row,
        row["backend"],
        row["system"],
        draft_tokens=spelled(row, "draft_tokens"),
        concurrency=spelled(row, "concurrency"),
        grade=grade,
        mode=mode,
        quality="" if grade in ("", "A") else f"grade {grade}",
        suspect=suspect(row),
        precision=spelled(row, "precision"),
        lengths=f"{spelled(row, 'isl')}/{spelled(row, 'osl')}",
    )
    runs = _runs(str(where.parent / row["ids_in"]))
    both = [runs.get(row[key]) for key in ("id_spec", "id_base")]
    if None in both or not model:
        return Skipped(name, "its runs stand in no file beside it", labels)
    read = decode_server if mode == APART else closed_loop
    cases = [read(one, where) for one in both if one is not None]
    for case in cases:
        if isinstance(case, Skipped):
            return Skipped(name, case.reason, labels)
    drafts, plain = (case for case in cases if isinstance(case, Case))
    if drafts.plan.draft is None:
        return Skipped(name, "the row does not say how many tokens were drafted", labels)
    wanted = {key: column for key, column in SPEEDUPS.items() if mode != APART or key == "speedup_tpot"}
    return Pair(name, drafts, plain, measured(row, wanted), labels, plain.notes)


@lru_cache(maxsize=8)
def _runs(path: str) -> dict[str, Row]:
    """The rows of a file by their id."""
    table = csv.reader(lines(path, "file of measured runs"))
    head = next(table, [])
    if "id" not in head:
        raise InputError("has no column 'id'", path, "it holds the runs that a file of pairs names")
    return {cells[head.index("id")]: Cells(zip(head, cells)) for cells in table if len(cells) == len(head)}


def decode_server(row: Row, where: Path) -> Case | Skipped:
    """The decode servers of a run with pools of its own for prompts."""
    labels = labels_of(row, row["backend"], row["system"])
    gpu = load_gpu(row["system"])
    model, precision, assumed = formats(row, row["config"], spelled(row, "precision"), gpu, spelled(row, "kv_dtype"))
    rules, note = rules_of(row["backend"], spelled(row, "backend_version"), spelled(row, "measured_date"))
    case, draft = pool_of(row, "decode", model, precision, rules, gpu, _handed(population(row), row), labels), drafted(row)
    return replace(
        case,
        plan=replace(case.plan, draft=draft),
        notes=(*assumed, *note, "decode servers alone"),
        accepts=accepted(case.engine.name, row, draft),
        handed=True,
    )


def _handed(work: Workload, row: Row) -> Workload:
    """The requests as decode servers see them.  Where prompts take most of the time, these come at the rate at which prompts get done,
    evenly; elsewhere users are away while their prompts are computed, unless what they wait for is a place to decode."""
    first, whole_s = (number(row, key, 0.0) / 1e3 for key in ("ttft_median_ms", "e2e_median_ms"))
    if row["regime"] == PROMPT_BOUND and whole_s > 0.0:
        return replace(work, mode="open", concurrency=0, arrive=np.arange(work.size) * whole_s / work.concurrency)
    return replace(work, think=0.0 if row["regime"] == SLOT_BOUND else first)
