"""What a trace file is made of: CSV, JSON lines or one JSON object, as columns (floor 2)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from apexsim.errors import InputError
from apexsim.workload.meaning import meaning_of, words
from apexsim.workload.nested import block_of, is_nested, unfolded

ROWS_OF = ("requests", "records", "data", "rows", "results", "traces", "entries")  # keys whose list is the trace
DEEPEST = 4  # objects within objects that are looked into
SIGNS = ",\t;|"


TELLING = ("hash_ids",)  # keys that say of every request what it has in common with others


@dataclass(frozen=True, slots=True)
class FileTable:
    """The cells of a file by column, and the line of each row; `head`: the line that names the columns; sign: what separates cells;
    block: tokens of a prefix block, where records state it."""

    container: str  # "csv", "jsonl" or "json"
    columns: tuple[str, ...]
    column: Callable[[str], Sequence[Any]]
    line: Sequence[int]
    where: str
    head: int = 1
    sign: str = ","
    block: int = 0

    def at(self, row: int) -> str:
        """The place of a row, for an error."""
        return f"{self.where}:{self.line[row]}"


def document(text: str, where: str) -> FileTable:
    """One JSON document: columns as lists, a list of records, or an object that holds one."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return jsonl_table(text, where)  # names the broken line
    if isinstance(whole, dict) and not is_nested(whole):
        inner = next((whole[key] for key in ROWS_OF if isinstance(whole.get(key), list) and whole[key]), None)
        if inner is None and isinstance(whole.get("input_lens"), list):
            return _columns(whole, where)
        whole = _laid_out(whole, where) if inner is None or not isinstance(inner[0], dict) else inner
    records = [whole] if isinstance(whole, dict) else whole
    if not isinstance(records, list):
        raise InputError(f"expected requests, got {type(records).__name__}", where)
    return _records(records, range(1, len(records) + 1), where)


def _laid_out(whole: dict[str, Any], where: str) -> Any:
    """The records of an object that holds them by column (lists, or objects by row), by name, or as names and rows; else itself."""
    names, rows = whole.get("columns"), whole.get("data")
    if isinstance(names, list) and isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return [dict(zip(names, row)) for row in rows]
    if _is_columns(whole):
        lists = {key: value for key, value in whole.items() if isinstance(value, list)}
        size = len(next(iter(lists.values())))
        other = next((key for key, value in lists.items() if len(value) != size), None)
        if other:
            raise InputError(f"'{other}' has {len(lists[other])} entries, '{next(iter(lists))}' {size}", where)
        return [dict(zip(lists, row)) for row in zip(*lists.values())]
    inner = list(whole.values())
    if not inner or not all(isinstance(value, dict) and value and value.keys() == inner[0].keys() for value in inner):
        return whole
    if all(str(key).isdecimal() for key in inner[0]):  # a table written column by column
        return [{name: column[row] for name, column in whole.items()} for row in inner[0]]
    found = meaning_of(tuple(inner[0]), inner[0].get)
    return inner if found.prompt and found.output else whole


def _is_columns(record: dict[str, Any]) -> bool:
    """Whether a record holds all requests column by column: lists of numbers, of which several are no lists of token ids."""
    lists = [key for key, value in record.items() if isinstance(value, list) and value and not isinstance(value[0], (dict, list))]
    return len([key for key in lists if "ids" not in words(key)]) > 1


def is_whole(record: dict[str, Any]) -> bool:
    """Whether an object holds all requests of a file: as columns, or as records under a key of its own."""
    lists = [record[key] for key in ROWS_OF if isinstance(record.get(key), list) and record[key]]
    if isinstance(record.get("input_lens"), list):
        return True
    return not is_nested(record) and (_laid_out(record, "") is not record or any(isinstance(rows[0], dict) for rows in lists))


def separator(line: str) -> str:
    """What separates the names of a header: a comma, tab, semicolon or bar."""
    return max(SIGNS, key=line.count)


def csv_table(text: str, where: str, start: int = 1, head: tuple[str, ...] = (), sign: str = "") -> FileTable:
    """CSV text, whose first line is number `start` of the file; `head` names the columns where the text does not."""
    sign = sign or separator(text.lstrip("\r\n ").partition("\n")[0])
    cells = _plain_cells(text, len(head), sign) if len(head) > 1 else []
    if cells:
        columns = dict(zip(head, (cells[i :: len(head)] for i in range(len(head)))))
        return FileTable("csv", head, columns.__getitem__, range(start, start + len(cells) // len(head)), where, 1, sign)
    reader = csv.reader(io.StringIO(text), delimiter=sign, skipinitialspace=True)
    named, before = len(head), start - 1
    first = 1 if named else 0
    rows: list[list[str]] = []
    line: list[int] = []
    try:
        for row in reader:
            if row and len(row) == named and row[0]:
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
        hint = "lines must end in a line feed" if "new-line" in str(error) else ""
        raise InputError(f"not CSV: {str(error).partition(' - ')[0]}", f"{where}:{reader.line_num + before}", hint) from None
    if named < 2:
        raise InputError("neither CSV with a header nor JSON lines", where)
    twice = next((name for name in head if name and head.count(name) > 1), "") if len(set(head)) < named else ""
    if twice:
        raise InputError(f"the header names '{twice}' twice", f"{where}:{first}")
    by_name: dict[str, Sequence[str]] = dict(zip(head, zip(*rows))) if rows else dict.fromkeys(head, ())
    return FileTable("csv", head, by_name.__getitem__, line, where, first, sign)


def _plain_cells(text: str, named: int, sign: str) -> list[str]:
    """All cells of lines that need no CSV rules (no quotes, no blanks, `named` cells each); [] where some do."""
    text = text.replace("\r\n", "\n").removesuffix("\n")
    if '"' in text or "\r" in text or sign + " " in text:
        return []
    commas = set(map(str.count, lines := text.split("\n"), repeat(sign)))
    return sign.join(lines).split(sign) if commas == {named - 1} else []


def jsonl_table(text: str, where: str, start: int = 1) -> FileTable:
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


def _records(records: Sequence[Any], line: Sequence[int], where: str) -> FileTable:
    """One object per request."""
    if not records:
        raise InputError("the trace has no requests", where)
    for number, record in zip(line, records):
        if not isinstance(record, dict):
            raise InputError(f"expected a JSON object, got {type(record).__name__}", f"{where}:{number}")
    block = 0
    if is_nested(records[0]):
        block = block_of(records, line, where)
        records, line = unfolded(records, line, where)
    paths = dict(_names(records[0])) if records else {}
    for key in TELLING:
        late = next((row for row, record in enumerate(records) if key in record), 0) if key not in paths else 0
        if late:
            raise InputError(f"key '{key}' is missing, which line {line[late]} has", f"{where}:{line[0]}", "every request has it, or none")

    def column(key: str) -> Sequence[Any]:
        path = None if key in records[0] else paths.get(key) or key.split(".")
        try:
            return [_inner(record, path) for record in records] if path else [record[key] for record in records]
        except (KeyError, TypeError):
            row = next(i for i, record in enumerate(records) if not _has(record, path or [key]))
            raise InputError(f"key '{key}' is missing", f"{where}:{line[row]}") from None

    return FileTable("jsonl", tuple(paths), column, line, where, line[0] if line else 1, block=block)


def _names(record: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Keys of a record, those of objects in it as outer.inner, each with the way to it: keys may hold dots themselves."""
    for key, value in record.items():
        yield ".".join((*before, key)), (*before, key)
        if isinstance(value, dict) and len(before) < DEEPEST:
            yield from _names(value, (*before, key))


def _inner(record: Any, path: Sequence[str]) -> Any:
    for key in path:
        record = record[key]
    return record


def _has(record: Any, path: Sequence[str]) -> bool:
    try:
        _inner(record, path)
    except (KeyError, TypeError):
        return False
    return True


def _columns(whole: dict[str, Any], where: str) -> FileTable:
    """One object whose columns are lists (vLLM's detailed benchmark result); requests with an error are left out."""
    lists = {key: value for key, value in whole.items() if isinstance(value, list)}
    failed = lists.get("errors", [])
    size = len(lists.get("input_lens", []))
    keep = [i for i in range(size) if not (i < len(failed) and failed[i])]

    def column(key: str) -> Sequence[Any]:
        if len(lists[key]) != size:
            raise InputError(f"'{key}' has {len(lists[key])} entries, 'input_lens' {size}", where)
        return [lists[key][i] for i in keep]

    return FileTable("json", tuple(lists), column, [i + 1 for i in keep], where)
