"""Datasets of texts, read record by record (floor 2).

JSON lines, one JSON document (an array is never held as a whole), CSV or TSV with a header, or plain text with one
prompt a line; also gzipped.  Each record comes with its line.  What cannot be read comes as the `InputError` itself, so
that the caller may pass over it; after a broken JSON document nothing else follows.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from apexsim.errors import InputError
from apexsim.files import FAULTS, PEEK, opened, unreadable
from apexsim.files import LINE as LONGEST

Record = dict[str, Any]
BLOCK = 1 << 20  # [byte] read at once
LARGEST = 1 << 28  # [character] one record of an array
SPACE = " \t\r\n"
MAYBE_CUT = 32  # [character] a fault so near to the end of what was read may be a cut
LINE = "text of a line"  # the column of a plain text
ROWS_OF = ("data", "rows", "examples", "instances", "train")  # keys whose list is the dataset


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a file holds: its kind ("jsonl", "json", "csv" or "text") and its records, each with its line."""

    kind: str
    records: Iterator[tuple[int, Record | InputError]]
    read: Callable[[], int]  # bytes of the file that have been read


def read_texts(path: str | Path, known: Iterable[str]) -> Dataset:
    """The records of a dataset; `known`: columns, in small letters, by which the header of a table is told from a text."""
    where, name = str(path), str(path).lower().removesuffix(".gz")
    file = opened(Path(path), "dataset")
    try:
        head = file.peek(PEEK)  # type: ignore[attr-defined]
    except FAULTS as error:
        raise unreadable(error, "dataset", where) from None
    if b"\0" in head:
        raise InputError("the dataset is binary, expected JSON, JSON lines, CSV or text", where, "write it as JSON lines")
    start = head.decode("utf-8-sig", "replace").lstrip()
    if not start and len(head) < PEEK:
        raise InputError("the dataset is empty", where)
    first = start.partition("\n")[0]
    kind, sign = "text", ","
    if not name.endswith(".txt"):
        kind = _container(start, first)
        sign = "\t" if name.endswith(".tsv") or first.count("\t") > first.count(",") else ","
        if kind == "text" and (name.endswith((".csv", ".tsv")) or _is_header(first, sign, set(known))):
            kind = "csv"
    make = {"jsonl": _json_lines, "json": _document, "text": _plain}.get(kind)
    records = make(file, where) if make else _cells(file, where, sign)
    return Dataset(kind, records, lambda: _position(file))


def _container(start: str, first: str) -> str:
    """Whether a file that begins so is one JSON document, JSON lines, or neither."""
    if start[0] == "[" and start[1:].lstrip(SPACE)[:1] in ("{", "]"):
        return "json"
    if start[0] != "{":
        return "text"
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        over_lines = start[1:].lstrip(SPACE)[:1] in ('"', "}") and len(first.strip(SPACE + "{")) < 2
        return "json" if over_lines else "jsonl"
    return "jsonl"


def _is_header(first: str, sign: str, known: set[str]) -> bool:
    return sign in first and any(cell.strip(' "\r').lower() in known for cell in first.split(sign))


def _position(file: IO[bytes]) -> int:
    """Bytes read of the file itself, also where it is packed."""
    inner = getattr(file, "fileobj", None) or file
    return int(inner.tell()) if not inner.closed else 0


# ---- lines --------------------------------------------------------------------------------------------------------


def _lines(file: IO[bytes], where: str) -> Iterator[tuple[int, str | InputError]]:
    """The lines of a file and their numbers, from 1."""
    number = 0
    try:
        with file:
            for number, raw in enumerate(iter(lambda: file.readline(LONGEST), b""), 1):
                if len(raw) == LONGEST:
                    raise InputError(f"line {number} of the dataset is longer than {LONGEST >> 20} MiB", where)
                if b"\0" in raw:
                    yield number, InputError("binary data in a file of text", f"{where}:{number}")
                    continue
                try:
                    yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    yield number, InputError("the line is not UTF-8 text", f"{where}:{number}")
    except FAULTS as error:
        raise unreadable(error, f"dataset after line {number}", where) from None


def _json_lines(file: IO[bytes], where: str) -> Iterator[tuple[int, Record | InputError]]:
    for number, line in _lines(file, where):
        if isinstance(line, InputError):
            yield number, line
        elif not line.isspace():
            try:
                yield number, _object(json.loads(line), f"{where}:{number}")
            except (ValueError, RecursionError) as error:
                yield number, InputError(f"not JSON: {getattr(error, 'msg', error)}", f"{where}:{number}")


def _object(value: Any, place: str) -> Record | InputError:
    if not isinstance(value, dict):
        return InputError(f"expected a JSON object, got {type(value).__name__}", place)
    inner = value.get("row")  # how dataset servers wrap them
    return inner if isinstance(inner, dict) else value


def _plain(file: IO[bytes], where: str) -> Iterator[tuple[int, Record | InputError]]:
    for number, line in _lines(file, where):
        if isinstance(line, InputError):
            yield number, line
        elif text := line.strip():
            yield number, {LINE: text}


def _cells(file: IO[bytes], where: str, sign: str) -> Iterator[tuple[int, Record | InputError]]:
    """Rows of a table with a header; cells of any size.  A fault of one line does not reach beyond it."""
    held: list[InputError] = []

    def good() -> Iterator[str]:
        for _, line in _lines(file, where):
            if isinstance(line, InputError):
                held.append(line)
            yield "\n" if isinstance(line, InputError) else line  # keeps the numbers of the lines

    usual = csv.field_size_limit(LARGEST)
    try:
        reader = csv.reader(good(), delimiter=sign, strict=True, skipinitialspace=True)
        head: list[str] = []
        before = 1
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                yield before, InputError(f"not CSV: {str(error).partition(' - ')[0]}", f"{where}:{before}")
                continue
            for fault in held:
                yield before, fault
            held.clear()
            if row is None:
                return
            if not head:
                head = [cell.strip().lower() for cell in row]
                if twice := next((name for name in head if name and head.count(name) > 1), ""):
                    raise InputError(f"the header names '{twice}' twice", f"{where}:{before}")
            elif len(row) == len(head):
                yield before, dict(zip(head, row))
            elif any(row):
                yield before, InputError(f"{len(row)} cells, the header has {len(head)}", f"{where}:{before}")
            before = reader.line_num + 1
    finally:
        csv.field_size_limit(usual)


# ---- one document -------------------------------------------------------------------------------------------------


def _document(file: IO[bytes], where: str) -> Iterator[tuple[int, Record | InputError]]:
    """The records of an array, one at a time; an object is one record, or holds the array under a key of its own."""
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        source = _Text(text, where)
        if source.next_sign() == "[":
            source.at += 1
            yield from _elements(source)
        else:
            line, whole = source.value()
            rows = next((whole[key] for key in ROWS_OF if isinstance(whole.get(key), list)), [whole])
            for row in rows:
                yield line, _object(row, where)
        if rest := source.next_sign():
            raise InputError(f"not JSON: '{rest}' after the end", f"{where}:{source.line()}")


def _elements(source: _Text) -> Iterator[tuple[int, Record | InputError]]:
    """Objects between commas up to the closing bracket, which is taken."""
    sign = source.next_sign()
    while sign != "]":
        line, value = source.value()
        yield line, _object(value, f"{source.where}:{line}")
        sign = source.next_sign()
        if sign not in (",", "]"):
            told = "the array is not closed" if not sign else f"not JSON: expected ',' or ']', got '{sign}'"
            raise InputError(told, f"{source.where}:{source.line()}")
        source.at += sign == ","
    source.at += 1


class _Text:
    """Text of a file in a window: values are taken from its front, and more is read where one is not complete."""

    def __init__(self, file: IO[str], where: str) -> None:
        self.file, self.where = file, where
        self.window, self.at, self.over = "", 0, False
        self.counted, self.lines = 0, 1  # up to which place of the window lines are counted, and the line there

    def line(self) -> int:
        """The line of the next character."""
        self.lines += self.window.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.lines

    def next_sign(self) -> str:
        """The next character that is no blank, "" at the end."""
        while True:
            while self.at < len(self.window) and self.window[self.at] in SPACE:
                self.at += 1
            if self.at < len(self.window):
                return self.window[self.at]
            if not self._more(BLOCK):
                return ""

    def value(self) -> tuple[int, Any]:
        """The next JSON value and its line."""
        decoder, wanted = json.JSONDecoder(), BLOCK
        self.next_sign()
        line = self.line()
        while True:
            try:
                value, self.at = decoder.raw_decode(self.window, self.at)
                return line, value
            except (ValueError, RecursionError) as error:
                pos = getattr(error, "pos", self.at)
                far = pos < len(self.window) - MAYBE_CUT and not str(error).startswith("Unterminated")
                place = f"{self.where}:{line + self.window.count(chr(10), self.at, pos)}"
                broken = far or isinstance(error, RecursionError) or len(self.window) > LARGEST
                if broken or not self._more(wanted):
                    raise InputError(f"not JSON: {getattr(error, 'msg', error)}", place) from None
            wanted = 2 * len(self.window)

    def _more(self, size: int) -> bool:
        """Read on, and forget what has been taken; False at the end of the file."""
        if self.over:
            return False
        line = self.line()
        self.window, self.at, self.counted = self.window[self.at :], 0, 0
        try:
            read = self.file.read(size)
        except FAULTS as error:
            raise unreadable(error, "dataset", f"{self.where}:{line}") from None
        except UnicodeDecodeError:
            raise InputError("the dataset is not UTF-8 text", self.where) from None
        self.over = not read
        self.window += read
        return bool(read)
