"""Traces of any size, read block by block into a few arrays: what is kept is columns, never rows (floor 2).

The formats and their checks are those of `formats`; here a file of CSV or JSON lines goes through them some megabytes
at a time.  Lines that cannot be used may be passed over, up to a number that the user allows, and are counted and named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import IO

import numpy as np

from apexsim.errors import InputError
from apexsim.files import BLOCK, DOCUMENT, LINE, blocks, opened
from apexsim.units import TIME_UNITS
from apexsim.workload.cells import lengths
from apexsim.workload.classes import Reader
from apexsim.workload.columns import GrowingArray
from apexsim.workload.containers import FileTable, csv_table, document, is_whole, jsonl_table, separator
from apexsim.workload.dates import ordered
from apexsim.workload.formats import (
    Format,
    arrivals,
    chosen,
    complete,
    hashes_of,
    prompts,
    raw_times,
)
from apexsim.workload.nested import LINK, agreed
from apexsim.workload.trace import NO_CHAINS, NO_INTS, Chains, Floats, Ints, Workload
from apexsim.workload.waits import MINTED, RecordLink, answered, minted, woven

WHAT = "trace file"
NAMED = 5  # faults that are kept in words


# ---- blocks of lines ----------------------------------------------------------------------------------------------


def _blocks(file: IO[bytes], where: str) -> Iterator[tuple[str, int]]:
    """Whole lines as text, and the number of the first of them; a quoted cell is never cut.

    What is read at once grows with the line that is not complete, up to a limit: the work stays in proportion to the
    file, and the memory bounded, whatever the file holds.
    """
    source = blocks(file, WHAT, where, BLOCK)
    held, start, objects, over = b"", 1, False, False
    while not over:
        parts, size = [held], len(held)
        while size < 2 * len(held) + 1 and not over:
            read = next(source, b"")
            over = not read
            parts.append(read)
            size += len(read)
        data = b"".join(parts)
        objects = objects or (start == 1 and data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["))
        cut = len(data) if over else data.rfind(b"\n") + 1
        if not over and not objects:
            cut = _outside_quotes(data, cut)
        if cut:
            yield _decoded(data[:cut], where, start), start
            start += data.count(b"\n", 0, cut)
        held = data[cut:]
        if len(held) > (DOCUMENT if objects and start == 1 else LINE):
            raise InputError(f"line {start} of the trace file is longer than {len(held) >> 20} MiB", where, "is it a trace?")


def _outside_quotes(data: bytes, cut: int) -> int:
    """The last end of a line up to `cut` that lies in no quoted cell, 0 for none."""
    odd = data.count(b'"', 0, cut) % 2
    while odd and cut:
        earlier = data.rfind(b"\n", 0, cut - 1) + 1
        odd ^= data.count(b'"', earlier, cut) % 2
        cut = earlier
    return cut


def _decoded(data: bytes, where: str, start: int) -> str:
    try:
        return data.decode("utf-8-sig" if start == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line = start + data.count(b"\n", 0, error.start)
        raise InputError("the trace file is not UTF-8 text", f"{where}:{line}", "expected CSV or JSON lines") from None


# ---- pieces -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Reading:
    """How a file is read, and what has been found so far."""

    where: str
    fmt: str
    columns: Mapping[str, str] | None
    time_unit: str
    limit: int  # lines that may be passed over
    chars: float  # characters per token of a file of text, 0 = not given
    row: Format | None = None
    head: tuple[str, ...] = ()  # columns of a CSV file, empty for JSON lines
    sign: str = ","
    dates: str = ""  # what the dates have told of their order
    skipped: int = 0
    faults: list[str] = field(default_factory=list)
    raw: GrowingArray = field(default_factory=GrowingArray)
    line: GrowingArray = field(default_factory=GrowingArray)
    prompt: GrowingArray = field(default_factory=GrowingArray)
    output: GrowingArray = field(default_factory=GrowingArray)
    hashes: GrowingArray = field(default_factory=GrowingArray)
    counts: GrowingArray = field(default_factory=GrowingArray)
    names: dict[str, int] = field(default_factory=dict)  # of blocks whose ids are texts
    links: list[RecordLink] = field(default_factory=list)
    block: int = 0  # tokens of a prefix block that the file has stated
    classes: Reader | None = None
    kind: GrowingArray = field(default_factory=GrowingArray)


def _take(reading: _Reading, table: FileTable) -> None:
    """Add the requests of one table."""
    reading.block = agreed(reading.block, table.block, table.at(0) if table.line else reading.where)
    if not table.line:
        return
    if reading.row is None:
        row = chosen(table, reading.fmt, reading.columns, reading.time_unit)
        complete(table, row)
        if row.chars and not reading.chars > 0:
            what = "ShareGPT" if row.name == "sharegpt" else row.name
            hint = "make a trace of it: apexsim trace tokenize FILE, or trace convert --chars-per-token 4 estimates them"
            raise InputError(f"{what} holds text, and its tokens depend on a tokenizer", reading.where, hint)
        if reading.chars and not row.chars:
            raise InputError("it has no effect: the file has lengths in tokens, and nothing is estimated", "--chars-per-token", "drop it")
        reading.row = replace(row, block=reading.block or row.block)
    row = reading.row
    places: list[str] = []
    if reading.limit:
        table, places = _served(reading, table, row)
        if not table.line:
            _pass_over(reading, places)
            return
    raw = raw_times(table, row)
    if row.unit == "clock":
        row = reading.row = _dated(reading, row, table)
    prompt = prompts(table, row, whole=False)
    output = lengths(table, row.output, "output", whole=False)
    if row.chars:
        prompt, output = (np.maximum(1, np.rint(n / reading.chars)).astype(np.int64) for n in (prompt, output))
    chains = hashes_of(table, row, prompt, reading.names)
    _pass_over(reading, places)
    if row.linked:
        reading.links += table.column(LINK)
    reading.raw.add(raw)
    reading.line.add(np.asarray(table.line, dtype=np.uint32))  # more lines than that are more than any memory
    reading.prompt.add(prompt)
    reading.output.add(output)
    if reading.classes:
        reading.kind.add(_classes(table, reading.classes))
    if row.hashes:
        reading.hashes.add(chains.ids)
        reading.counts.add(np.diff(chains.first))


def _classes(table: FileTable, classes: Reader) -> Ints:
    """The class of each request of a table."""
    if classes.column not in table.columns:
        hint = f"columns: {', '.join(table.columns[:12])}; or prompt lengths: short:2k,long"
        raise InputError(f"the trace has no column '{classes.column}'", "--classes", hint)
    return classes.of(table.column(classes.column))


def _dated(reading: _Reading, row: Format, table: FileTable) -> Format:
    """The row with the order of day and month, once a date tells it."""
    told = ordered(table.column(row.arrive))
    if told in ("mdy", "dmy"):
        if told == "dmy" and reading.dates == "open":
            raise InputError(f"'{row.arrive}' holds days above 12 from here on", table.at(0), "--time-unit dmy reads the day first")
        row = replace(row, unit=told)
    reading.dates = told
    return row


def _served(reading: _Reading, table: FileTable, row: Format) -> tuple[FileTable, list[str]]:
    """The table without requests that have no prompt or no output (failed ones, as a rule), while the limit allows;
    and their faults."""
    try:
        empty = [np.array(table.column(key), dtype=np.float64) == 0 for key in (row.prompt, row.output)]
    except (TypeError, ValueError, OverflowError, InputError):
        return table, []  # other faults, told by the checks
    keep = (~(empty[0] | empty[1])).tolist()
    places = [f"{table.at(i)}: {'prompt' if empty[0][i] else 'output'} length is 0" for i, good in enumerate(keep) if not good]
    if not places or reading.skipped + len(places) > reading.limit:
        return table, []
    left = replace(table, column=lambda key: list(compress(table.column(key), keep)), line=list(compress(table.line, keep)))
    return left, places


def _pass_over(reading: _Reading, faults: list[str]) -> None:
    """Count lines that are not used, and keep the first in words."""
    reading.skipped += len(faults)
    reading.faults += faults[: max(0, NAMED - len(reading.faults))]


def _try(reading: _Reading, text: str, start: int) -> None:
    """Add the requests of some lines; a line that cannot be used is passed over while the limit allows.

    Where the lines fail together each half is tried: a fault costs about as much as reading its block twice more.
    """
    try:
        return _take(reading, _parsed(reading, text, start))
    except InputError as error:
        if reading.skipped >= reading.limit:
            raise _beyond(reading, error) from None
        cut = _middle(text)
        if not cut:
            _pass_over(reading, [f"{error.where}: {error.what}"])
            return None
    _try(reading, text[:cut], start)
    return _try(reading, text[cut:], start + text.count("\n", 0, cut))


def _beyond(reading: _Reading, error: InputError) -> InputError:
    if not reading.limit:
        return InputError(error.what, error.where, error.hint or "--skip-bad N passes over such lines")
    told = f"more than {reading.limit} lines cannot be used, the next one: {error.what}"
    return InputError(told, error.where, error.hint)


def _parsed(reading: _Reading, text: str, start: int) -> FileTable:
    """Some lines as a table, with no rows where all are blank."""
    if reading.head or text.isspace():
        return csv_table(text, reading.where, start, reading.head or ("", ""), reading.sign)
    return jsonl_table(text, reading.where, start)


def _middle(text: str) -> int:
    """Where to cut some lines into two halves, 0 for a single line."""
    half = len(text) // 2
    cut = text.find("\n", half) + 1
    if not 0 < cut < len(text):
        cut = text.rfind("\n", 0, half) + 1
    return cut if 0 < cut < len(text) else 0


def read_trace(
    path: str | Path,
    fmt: str = "auto",
    columns: Mapping[str, str] | None = None,
    time_unit: str = "",
    skip: int = 0,
    chars_per_token: float = 0.0,
    classes: str = "",
) -> Workload:
    """The requests of a trace file of any size, ascending by arrival.

    fmt: a name in `FORMATS` or "auto"; columns: {"arrive", "prompt", "output", "shared": column} for other files;
    time_unit: ns, us, ms, s, or clock, mdy, dmy for dates, instead of what the format or the times say;
    classes: a column that holds the class of each request; skip: lines that may be passed over;
    chars_per_token: how lengths are estimated from files that hold text.  Memory
    is about 60 bytes per request, besides its prefix blocks; a file that is one JSON document is read as a whole.
    """
    reading = _Reading(str(path), fmt, columns, time_unit, skip, chars_per_token, classes=Reader(classes) if classes else None)
    with opened(path, WHAT) as file:
        blocks = _blocks(file, reading.where)
        text, start = next(((t, n) for t, n in blocks if t.strip()), ("", 1))
        if not text:
            raise InputError("the trace file is empty", reading.where)
        if text.lstrip()[0] not in "{[":
            text, start = _header(reading, text, start)
        elif not _is_lines(text):
            _take(reading, document(_rest(text, blocks, reading.where), reading.where))
            return _settled(reading)
        _try(reading, text, start)
        for text, start in blocks:
            _try(reading, text, start)
    return _settled(reading)


def _rest(text: str, more: Iterator[tuple[str, int]], where: str) -> str:
    """All of a JSON document."""
    parts, size = [text], len(text)
    for part, _ in more:
        parts.append(part)
        size += len(part)
        if size > DOCUMENT:
            raise InputError(f"one JSON document of more than {DOCUMENT >> 20} MiB", where, "write it as JSON lines")
    return "".join(parts)


def _header(reading: _Reading, text: str, start: int) -> tuple[str, int]:
    """Takes the names of the columns; the lines below them."""
    blank = len(text) - len(text.lstrip())
    while text.startswith("#", blank) and "\n" in text[blank:]:  # remarks above the table
        blank = text.find("\n", blank) + 1
        blank += len(text[blank:]) - len(text[blank:].lstrip())
    end = text.find("\n", blank) + 1 or len(text)
    reading.sign = separator(text[blank:end])
    table = csv_table(text[blank:end], reading.where, start + text.count("\n", 0, blank), sign=reading.sign)
    reading.head = table.columns
    return text[end:], start + text.count("\n", 0, end)


def _is_lines(text: str) -> bool:
    """Whether a file that begins so is JSON lines, and no single JSON document."""
    first, _, rest = text.lstrip().partition("\n")
    try:
        record = json.loads(first)
    except (ValueError, RecursionError):  # a broken line, or a document over several lines
        return first[0] == "{" and rest.lstrip()[:1] in ("{", "")
    return isinstance(record, dict) and not is_whole(record)


def _settled(reading: _Reading) -> Workload:
    """All pieces as one, sorted by arrival."""
    row = reading.row
    if row is None:
        told = "the trace has a header and no requests" if reading.head else "the trace has no requests"
        raise InputError(told, reading.where, "; ".join(reading.faults[:1]))
    if not reading.raw.size:
        told = f"all {reading.skipped} lines that were read cannot be used"
        raise InputError(told, reading.where, "; ".join(reading.faults[:1]))
    raw = reading.raw.taken()
    untimed = np.isnan(raw) if row.linked else np.zeros(0, np.bool_)
    if untimed.any():
        raw[untimed] = 0.0 if untimed.all() else raw[~untimed].min()
    arrive, notes = arrivals(raw, row, reading.where)
    if reading.dates == "open":
        notes += (f"'{row.arrive}' is read with the month first (--time-unit dmy reads the day first)",)
    prompt, output = reading.prompt.taken(), reading.output.taken()
    prefix = NO_CHAINS
    if reading.hashes.size:
        prefix = Chains(reading.hashes.taken(), np.concatenate(([0], np.cumsum(reading.counts.taken()))))
    if row.chars:
        notes += (f"lengths are estimates: characters over {reading.chars:g}",)
    found = Workload(
        Path(reading.where).name.split(".")[0],
        arrive,
        prompt,
        output,
        "open" if row.arrive else "offline",
        prefix=prefix,
        block=row.block if len(prefix.ids) else 0,
        line=reading.line.taken(),
        kind=reading.kind.taken() if reading.classes else NO_INTS,
        kinds=reading.classes.names if reading.classes else (),
        source=reading.where,
        notes=notes,
        fmt=row.name,
        skipped=reading.skipped,
        faults=tuple(reading.faults),
    )
    if any(link.name or link.session for link in reading.links):
        clock = float(raw[0]) * TIME_UNITS[row.unit] - float(arrive[0])  # what the moments of the file are ahead of the arrivals
        return _linked(found, [replace(link, ended=link.ended - clock) for link in reading.links], np.where(untimed, np.nan, arrive))
    if np.all(arrive[1:] >= arrive[:-1]):
        return found
    order = np.argsort(arrive, kind="stable")
    return found.only(order, "" if row.name in ("weka", "trie") else "arrivals were not in order: sorted")


def _linked(found: Workload, links: list[RecordLink], times: Floats) -> Workload:
    """The requests with whom they wait for, each behind those; times: [R] s, NaN where a record has none."""
    where = [f"{found.source}:{line}" for line in found.line.tolist()]
    web = woven(links, times, where)
    if found.block and len(found.prefix):
        found = replace(found, prefix=answered(found.prefix, found.prompt, found.output, web.after, found.block))
    elif any(link.prefix >= 0 for link in links):
        found = replace(found, prefix=minted(links, found.prompt, found.output, web.turns, where), block=MINTED)
    if (web.after < 0).all():
        return found.only(web.order)
    told = replace(found, arrive=web.arrive, after=web.after, delay=web.delay, join=web.join, join_delay=web.join_delay)
    return told.only(web.order)
