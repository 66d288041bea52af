"""CSV files of one operator each, as people bring them for their own accelerator (floor 3).

The layout is that of APEX+ (`gemm_0.csv`, `mha_0.csv`, `all_reduce.csv` …), with three files more that it lacks:
`decode`, `moe` and optional columns for grouped heads, windows and expert splits.  A unit stands in brackets in the
header, `time(us)`, `size(kb)`; here everything becomes SI.  A row that cannot be used is a `Finding`, never a guess.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.errors import InputError, nearest
from apexsim.files import lines

Array = NDArray[np.float64]
ERROR, WARNING, NOTE = "error", "warning", "note"
SHOWN = 4  # faults of one kind that are named line by line


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a check found.  error: the folder is refused; warning: look at it; note: good to know."""

    level: str
    where: str
    what: str
    hint: str = ""

    def line(self) -> str:
        """One line, as `file line 7: what; hint`."""
        return "; ".join(part for part in (f"{self.where}: {self.what}", self.hint) if part)


@dataclass(frozen=True, slots=True)
class CsvColumn:
    """A column: what it means, its unit if it has one, its limits, and what it is where it is missing (None: needed)."""

    meaning: str
    unit: str = ""
    least: float = 1
    most: float = 1e7
    default: float | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """One file: columns [rows] in SI, the format of each row, the line each row stands on.  along: the column that grows."""

    kind: str
    path: Path
    columns: Mapping[str, Array]
    dtype: NDArray[np.str_]
    line: NDArray[np.int64]

    @property
    def seconds(self) -> Array:
        """Measured times [s]."""
        return self.columns["time"]

    def where(self, row: int) -> str:
        """File and line of a row."""
        return f"{self.path.name} line {self.line[row]}"


TIME = {"time": CsvColumn("measured time", "time", 0, 1e3)}
HEADS = {
    "head_size": CsvColumn("numbers of one head", most=4096),
    "num_heads": CsvColumn("query heads", most=4096),
    "num_kv_heads": CsvColumn("key-value heads; 0 or missing: as many as query heads", least=0, most=4096, default=0),
    "window": CsvColumn("sliding window [tokens]; 0 or missing: none", least=0, default=0),
    "batch_size": CsvColumn("sequences", most=1e6),
    "seq_len": CsvColumn("tokens of each: prompt, or cached in decode", most=1e8),
    **TIME,
}
MESSAGE = {
    "num_nodes": CsvColumn("nodes", most=65536),
    "num_gpus_per_node": CsvColumn("GPUs of each node"),
    "size": CsvColumn("message of one rank, whole tensor", "size", 0, 2.0**42),
    **TIME,
}
LAYER = {
    "hidden": CsvColumn("hidden size"), "inner": CsvColumn("inner size of a whole expert"), "top_k": CsvColumn("experts per token"),
    "experts": CsvColumn("experts"), "tp": CsvColumn("tensor split", default=1), "ep": CsvColumn("expert split", default=1),
    "gated": CsvColumn("1: three matrices, 0: two", least=0, most=1, default=1),
    "load": CsvColumn("0 balanced, 101 or 120 power law", least=0, most=500, default=0),
    "tokens": CsvColumn("tokens of the whole layer"), **TIME,
}  # fmt: skip
GEMM = {"m": CsvColumn("output size"), "k": CsvColumn("input size"), "n": CsvColumn("tokens"), **TIME}
SHEETS: dict[str, Mapping[str, CsvColumn]] = {
    "gemm": GEMM, "mha": HEADS, "bimha": HEADS, "decode": HEADS, "moe": LAYER, "all_reduce": MESSAGE, "all_gather": MESSAGE,
    "reduce_scatter": MESSAGE, "alltoall": MESSAGE, "sendrecv": MESSAGE,
}  # fmt: skip
ALONG = {"gemm": "n", "mha": "seq_len", "bimha": "seq_len", "decode": "seq_len", "moe": "tokens"}  # else: size
UNITS = {
    "time": {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "ns": 1e-9},
    "size": {"kb": 1024.0, "kib": 1024.0, "mb": 2.0**20, "mib": 2.0**20, "b": 1.0, "bytes": 1.0},
}
FORMATS = {
    "half": "bf16", "fp16": "bf16", "float16": "bf16", "bf16": "bf16", "bfloat16": "bf16", "float": "fp32", "fp32": "fp32",
    "float32": "fp32", "fp8": "fp8", "fp8_e4m3": "fp8", "fp8_block": "fp8_block", "int8": "int8", "nvfp4": "nvfp4",
    "mxfp4": "mxfp4", "w4a16": "w4a16", "w8a16": "w8a16",
}  # fmt: skip
IGNORED = ("gpu", "avg_energy", "power", "version", "note")


def kind_of(path: Path) -> tuple[str, int]:
    """What a file holds and at which SM clock [MHz] (0: the default): `gemm_1200.csv` -> ("gemm", 1200)."""
    found = re.fullmatch(r"(.+?)(?:_(\d+))?", path.stem.lower())
    assert found is not None
    return found[1], int(found[2] or 0)


@dataclass(slots=True)
class _Reading:
    """A file while it is read."""

    path: Path
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, level: str, what: str, line: int = 0, hint: str = "") -> None:
        """Note a fault; of one kind only the first few are named."""
        kind = re.sub(r"'.*?'", "", what)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self.counts[kind] <= SHOWN:
            where = f"{self.path.name} line {line}" if line else self.path.name
            self.findings.append(Finding(level, where, what, hint))

    def close(self) -> list[Finding]:
        """All findings, with how many were left out."""
        more = [(kind, n - SHOWN) for kind, n in self.counts.items() if n > SHOWN]
        return [*self.findings, *(Finding(ERROR, self.path.name, f"{n} more like: {kind}") for kind, n in more)]


def read_sheet(path: Path) -> tuple[Sheet | None, list[Finding]]:
    """One file and what is wrong with it; no sheet where the header is, or no row is left."""
    reading, kind = _Reading(path), kind_of(path)[0]
    try:
        with closing(lines(path, "file")) as text:
            rows = csv.reader(text, strict=True)
            header = next(rows, [])
            if not any(cell.strip() for cell in header):
                return None, [Finding(ERROR, path.name, "the file is empty", "leave it out, or measure")]
            if other := next((sign for sign in ";\t|" if len(header) == 1 and sign in header[0]), ""):
                sign = other.strip() or "tab"
                return None, [Finding(ERROR, f"{path.name} line 1", f"columns are separated by '{sign}', expected ','")]
            places = _places(header, SHEETS[kind], reading)
            if places is None:
                return None, reading.close()
            sheet = _rows(rows, kind, places, reading, len(header))
    except csv.Error as error:
        raise InputError(f"not CSV: {error}", f"{path} line {rows.line_num}") from None
    return sheet, reading.close()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a column stands (-1: nowhere) and what its numbers are multiplied by."""

    index: int
    factor: float


def _places(header: list[str], columns: Mapping[str, CsvColumn], reading: _Reading) -> dict[str, _Place] | None:
    """Column -> place; None where one that is needed is missing or has no unit."""
    names: dict[str, tuple[int, str]] = {}
    for i, cell in enumerate(header):
        found = re.fullmatch(r"\s*([\w/]+)\s*(?:[(\[]\s*([\wµ]+)\s*[)\]])?\s*", cell.lower())
        name, unit = (found[1], found[2] or "") if found else (cell.strip(), "")
        if name in names:
            reading.add(ERROR, f"column '{name}' stands twice", 1)
        names[name] = (i, unit)
    for name in names:
        if name not in columns and name != "dtype" and name not in IGNORED:
            reading.add(WARNING, f"column '{name}' is unknown and not read", 1, nearest(name, columns))
    places: dict[str, _Place] = {"dtype": _Place(names.get("dtype", (-1, ""))[0], 1.0)}
    for name, column in columns.items():
        if name not in names:
            if column.default is None:
                reading.add(ERROR, f"column '{name}' ({column.meaning}) is missing", 1, nearest(name, names) if names else "")
            places[name] = _Place(-1, 1.0)
            continue
        index, unit = names[name]
        factors = UNITS.get(column.unit, {})
        if column.unit and unit not in factors:
            reading.add(
                ERROR,
                f"column '{name}' has the unit '{unit or 'none'}'",
                1,
                f"write {name}({next(iter(factors))}); known: {', '.join(factors)}",
            )
        places[name] = _Place(index, factors.get(unit, 1.0))
    return places if not any(f.level == ERROR for f in reading.findings) else None


def _rows(rows: Any, kind: str, places: Mapping[str, _Place], reading: _Reading, width: int) -> Sheet | None:
    """All rows of a CSV reader that can be used."""
    columns = SHEETS[kind]
    values: dict[str, list[float]] = {name: [] for name in columns}
    formats: list[str] = []
    lines: list[int] = []
    at = places["dtype"].index
    for cells in rows:
        line = rows.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if any(cell.strip() for cell in cells[width:]):
            reading.add(ERROR, f"{len(cells)} cells, the header has {width}", line, "is a decimal comma among them?")
            continue
        word = cells[at].strip().lower() if 0 <= at < len(cells) else ("half" if at < 0 else "")
        numbers = [_number(cells, name, column, places[name], reading, line) for name, column in columns.items()]
        if word not in FORMATS:
            hint = "are columns swapped?" if _is_number(word) else nearest(word, FORMATS)
            reading.add(ERROR, f"unknown dtype '{word}'", line, hint)
            continue
        if any(number is None for number in numbers):
            continue
        for name, number in zip(columns, numbers, strict=True):
            values[name].append(number)  # type: ignore[arg-type]
        formats.append(FORMATS[word])
        lines.append(line)
    if not lines:
        reading.add(ERROR, "no row can be used")
        return None
    arrays = {name: np.array(column) for name, column in values.items()}
    return Sheet(kind, reading.path, arrays, np.array(formats), np.array(lines))


def _number(cells: list[str], name: str, column: CsvColumn, place: _Place, reading: _Reading, line: int) -> float | None:
    """One cell in SI, or None with a finding."""
    if place.index < 0:
        return column.default
    text = cells[place.index].strip() if place.index < len(cells) else ""
    if not _is_number(text):
        what = f"'{text}' is no number" if text else "a cell is empty"
        reading.add(ERROR, f"{what} in column {name}", line, "are columns swapped?" if text.lower() in FORMATS else "")
        return None
    value = float(text) * place.factor
    if not math.isfinite(value):
        reading.add(ERROR, f"'{text}' in column {name} is not finite", line, "leave the row out where nothing was measured")
        return None
    if value < column.least or value > column.most or (name == "time" and value == 0):
        limits = f"between {column.least:g} and {column.most:g} in SI" if name != "time" else "above 0 and below 1,000 s"
        reading.add(ERROR, f"'{text}' in column {name} is not {limits}", line)
        return None
    if not column.unit and value % 1:
        reading.add(ERROR, f"'{text}' in column {name} is not a whole number", line)
        return None
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
