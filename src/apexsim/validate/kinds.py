"""Files of measured systems: the kinds, each known by its columns, and their readers (floor 5)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from apexsim.errors import InputError
from apexsim.files import lines
from apexsim.validate.cases import Case, closed_loop, open_loop, request_level
from apexsim.validate.energy_cases import energy_row
from apexsim.validate.memory_cases import memory_row
from apexsim.validate.offline_cases import offline
from apexsim.validate.rows import Answered, Cells, Row, Skipped

Reader = Callable[[list[Row], Path], Iterator[Case | Answered | Skipped]]


def _each(reader: Callable[[Row, Path], Case | Answered | Skipped]) -> Reader:
    def read(rows: list[Row], where: Path) -> Iterator[Case | Answered | Skipped]:
        for row in rows:
            try:
                yield reader(row, where)
            except (InputError, KeyError) as error:
                told = error.line() if isinstance(error, InputError) else f"the row has no '{error.args[0]}'"
                yield Skipped(row["id"], told, {"engine": row.get("backend", row.get("engine", "")), "gpu": "", "model": ""})

    return read


KINDS: dict[str, tuple[frozenset[str], Reader]] = {
    "closed loop": (frozenset({"id", "backend", "system", "concurrency", "attn_tp", "ttft_mean_ms"}), _each(closed_loop)),
    "open loop": (frozenset({"id", "engine", "requests_file", "ttft_mean_s", "itl_mean_s"}), _each(open_loop)),
    "request level": (frozenset({"hw", "request_id", "arrival_s", "isl", "osl", "ttft_s"}), request_level),
    "offline throughput": (frozenset({"id", "config", "isl", "osl", "num_requests", "out_tok_s_per_gpu", "pp", "tp"}), _each(offline)),
    "energy": (
        frozenset({"id", "quality_class", "gpu", "config", "load", "osl_mean", "power_w_per_gpu", "J_per_out_token"}),
        _each(energy_row),
    ),
    "start-up memory": (frozenset({"id", "engine", "gpu_known", "weights_gib", "kv_tokens", "kv_gib", "outcome"}), _each(memory_row)),
}


def _cells(path: str | Path) -> Iterator[Row]:
    """The rows of a file, each with a cell for every column of its header."""
    table = csv.reader(lines(path, "file of measured runs"))
    head = next(table, [])
    for cells in table:
        if cells and len(cells) != len(head):
            raise InputError(f"{len(cells)} cells, the header names {len(head)} columns", f"{path}:{table.line_num}")
        if cells:
            yield Cells(zip(head, cells))


def read_rows(path: str | Path, kind: str = "") -> tuple[str, list[Row]]:
    """(kind, rows) of a file; raises InputError when it cannot be read, is empty, or has not the columns of (that) kind."""
    try:
        rows = list(_cells(path))
    except csv.Error as error:
        raise InputError(f"cannot be read as CSV ({error})", str(path), "give a file of measured runs") from error
    if not rows:
        raise InputError("holds no rows", str(path), "give a file of measured runs")
    wanted = {kind: KINDS[kind]} if kind else KINDS
    for name, (needed, _) in wanted.items():
        if needed <= set(rows[0]):
            return name, rows
    columns = "; ".join(f"{name}: {', '.join(sorted(needed))}" for name, (needed, _) in wanted.items())
    raise InputError("has the columns of no known kind", str(path), f"expected one of {columns}")


def read_cases(path: str | Path) -> tuple[str, list[Case | Answered | Skipped]]:
    """(kind, cases) of a file; raises InputError when it cannot be read or no kind has its columns."""
    kind, rows = read_rows(path)
    return kind, list(KINDS[kind][1](rows, Path(path)))
