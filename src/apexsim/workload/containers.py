"""What a trace file is made of: CSV, JSON lines or one JSON object, as columns (floor 2)."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from apexsim.errors import InputError
from apexsim.examples import located
from apexsim.workload.nested import is_nested, unfolded


@dataclass(frozen=True, slots=True)
class Table:
    """The cells of a file by column, and the line of each row; `head`: the line that names the columns."""

    container: str  # "csv", "jsonl" or "json"
    columns: tuple[str, ...]
    column: Callable[[str], Sequence[Any]]
    line: Sequence[int]
    where: str
    head: int = 1

    def at(self, row: int) -> str:
        """The place of a row, for an error."""
        return f"{self.where}:{self.line[row]}"


def read_table(path: Path) -> Table:
    """The file as columns, its container found from the content."""
    text, where = _text(path), str(path)
    if text.lstrip()[0] not in "{[":
        return csv_table(text, where)
    try:
        first = json.loads(text.lstrip().split("\n", 1)[0])
    except (ValueError, RecursionError):
        first = None  # a JSON document over several lines, or a broken first line
    if isinstance(first, dict) and not isinstance(first.get("input_lens"), list):
        return jsonl_table(text, where)
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return jsonl_table(text, where)  # names the broken line
    if isinstance(whole, dict) and not is_nested(whole):
        return _columns(whole, where)
    records = [whole] if isinstance(whole, dict) else whole
    return _records(records, range(1, len(records) + 1), where)


def _text(path: Path) -> str:
    """The file's text, or the reason why there is none."""
    where = str(path)
    try:
        raw = located(path).read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except FileNotFoundError:
        raise InputError("the trace file does not exist", where) from None
    except IsADirectoryError:
        raise InputError("a trace file is expected, this is a directory", where) from None
    except (OSError, EOFError) as error:
        raise InputError(f"the trace file cannot be read ({error})", where) from None
    if b"\0" in raw:
        raise InputError("the trace file is binary, expected CSV or JSON lines", where)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("the trace file is not UTF-8 text", where, "expected CSV or JSON lines") from None
    if not text.strip():
        raise InputError("the trace file is empty", where)
    return text


def csv_table(text: str, where: str, start: int = 1, head: tuple[str, ...] = ()) -> Table:
    """CSV text, whose first line is number `start` of the file; `head` names the columns where the text does not."""
    cells = _plain_cells(text, len(head)) if len(head) > 1 else []
    if cells:
        columns = dict(zip(head, (cells[i :: len(head)] for i in range(len(head)))))
        return Table("csv", head, columns.__getitem__, range(start, start + len(cells) // len(head)), where, 1)
    reader = csv.reader(io.StringIO(text), skipinitialspace=True)
    named, before = len(head), start - 1
    first = 1 if named else 0
    rows: list[list[str]] = []
    line: list[int] = []
    try:
        for row in reader:
            if len(row) == named and row[0]:
                rows.append(row)
                line.append(reader.line_num + before)
                continue
            if not any(row):
                continue
            if not named:
                head, first = tuple(cell.strip() for cell in row), reader.line_num + before
                named = len(head)
                continue
            if len(row) != named:
                raise InputError(f"{len(row)} cells, the header has {named}", f"{where}:{reader.line_num + before}")
            rows.append(row)
            line.append(reader.line_num + before)
    except csv.Error as error:
        raise InputError(f"not CSV: {str(error).partition(' - ')[0]}", f"{where}:{reader.line_num + before}") from None
    if named < 2:
        other = next((f"'{sign.strip() or 'tab'}'" for sign in "\t;|" if head and sign in head[0]), "")
        hint = f"columns are separated by {other}, expected ','" if other else ""
        raise InputError("neither CSV with a header nor JSON lines", where, hint)
    twice = next((name for name in head if name and head.count(name) > 1), "") if len(set(head)) < named else ""
    if twice:
        raise InputError(f"the header names '{twice}' twice", f"{where}:{first}")
    by_name: dict[str, Sequence[str]] = dict(zip(head, zip(*rows))) if rows else dict.fromkeys(head, ())
    return Table("csv", head, by_name.__getitem__, line, where, first)


def _plain_cells(text: str, named: int) -> list[str]:
    """All cells of lines that need no CSV rules (no quotes, no blanks, `named` cells each); [] where some do."""
    text = text.replace("\r\n", "\n").removesuffix("\n")
    if '"' in text or "\r" in text or ", " in text:
        return []
    commas = set(map(str.count, lines := text.split("\n"), repeat(",")))
    return ",".join(lines).split(",") if commas == {named - 1} else []


def jsonl_table(text: str, where: str, start: int = 1) -> Table:
    """JSON lines, the first of which is number `start` of the file."""
    lines = text.split("\n")
    line = [n for n, raw in enumerate(lines, start) if raw and not raw.isspace()]
    full = lines if len(line) == len(lines) else [lines[n - start] for n in line]
    try:
        records = json.loads("[" + ",".join(full) + "]")  # one call for all lines
        if len(records) == len(full):
            return _records(records, line, where)
    except (ValueError, RecursionError):
        pass
    records = []
    for number, raw in zip(line, full):
        try:
            records.append(json.loads(raw))
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON: {getattr(error, 'msg', error)}", f"{where}:{number}") from None
    return _records(records, line, where)


def _records(records: Sequence[Any], line: Sequence[int], where: str) -> Table:
    """One object per request."""
    if not records:
        raise InputError("the trace has no requests", where)
    for number, record in zip(line, records):
        if not isinstance(record, dict):
            raise InputError(f"expected a JSON object, got {type(record).__name__}", f"{where}:{number}")
    if is_nested(records[0]):
        records, line = unfolded(records, line, where)

    def column(key: str) -> Sequence[Any]:
        try:
            return [record[key] for record in records]
        except KeyError:
            row = next(i for i, record in enumerate(records) if key not in record)
            raise InputError(f"key '{key}' is missing", f"{where}:{line[row]}") from None

    return Table("jsonl", tuple(records[0]), column, line, where, line[0])


def _columns(whole: dict[str, Any], where: str) -> Table:
    """One object whose columns are lists (vLLM's detailed benchmark result); requests with an error are left out."""
    lists = {key: value for key, value in whole.items() if isinstance(value, list)}
    failed = lists.get("errors", [])
    size = len(lists.get("input_lens", []))
    keep = [i for i in range(size) if not (i < len(failed) and failed[i])]

    def column(key: str) -> Sequence[Any]:
        if len(lists[key]) != size:
            raise InputError(f"'{key}' has {len(lists[key])} entries, 'input_lens' {size}", where)
        return [lists[key][i] for i in keep]

    return Table("json", tuple(lists), column, [i + 1 for i in keep], where)
