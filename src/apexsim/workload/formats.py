"""Reading request traces (floor 2).

A format is a row of `FORMATS`: which columns hold arrival, prompt and output, in which unit, from which clock.  The
container (CSV, JSON lines, one JSON object) and the row are found from the file's content; a file of other column
names is read with a column map.  Everything a file can have wrong becomes one `InputError` with the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.errors import InputError, nearest
from apexsim.units import TIME_UNITS, format_seconds
from apexsim.workload.containers import Table, read_table
from apexsim.workload.trace import Workload

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MANY = 100  # requests from which on a mean rate says something
RATE_HIGH = {True: 1e4, False: 1e6}  # [requests/s] many requests, few requests: above this the unit is wrong
RATE_ODD = 100.0  # [requests/s] above this the unit is worth a note
SPAN_HIGH = 2 * 365 * 86400.0  # [s] longer than this the unit is wrong


@dataclass(frozen=True, slots=True)
class Format:
    """One trace format: columns, time unit ("clock" = date and time), `zero`: whether time starts at the first row.

    hashes: column of prefix block ids, one per `block` prompt tokens; marker: a column that only this format has;
    arrive "": lengths without times, all sent at once; shared: a column of prefix tokens that come on top of the prompt;
    note: what the reader should know.
    """

    name: str
    container: str  # "csv", "jsonl" or "json"
    arrive: str
    prompt: str
    output: str
    unit: str
    zero: bool = False
    hashes: str = ""
    block: int = 0
    marker: str = ""
    note: str = ""
    shared: str = ""


IMAGES = "NumImages is not counted: the tokens of images are those that ContextTokens holds"
EARLIEST = "turns come at the earliest moment, as from a server that takes no time: the file holds no service times"
FORMATS = (
    Format("apex", "jsonl", "StartTimeOffset", "ContextTokens", "GeneratedTokens", "ns"),
    Format("azure-lmm", "csv", "TIMESTAMP", "ContextTokens", "GeneratedTokens", "clock", True, marker="NumImages", note=IMAGES),
    Format("azure", "csv", "TIMESTAMP", "ContextTokens", "GeneratedTokens", "clock", zero=True),
    Format("bailian", "jsonl", "timestamp", "input_length", "output_length", "s", True, "hash_ids", 16, "chat_id"),
    Format("mooncake", "jsonl", "timestamp", "input_length", "output_length", "ms", True, "hash_ids", 512),
    Format("mooncake-tokens", "jsonl", "timestamp", "input_tokens", "output_tokens", "ms", True, "hash_ids", 512),
    Format("burstgpt", "csv", "Timestamp", "Request tokens", "Response tokens", "s", zero=True),
    Format("blis", "csv", "arrival_time_us", "input_tokens", "output_tokens", "us", marker="prefix_length", shared="prefix_length"),
    Format("vidur-lengths", "csv", "", "num_prefill_tokens", "num_decode_tokens", "s", marker="num_total_tokens"),
    Format("vidur", "csv", "arrived_at", "num_prefill_tokens", "num_decode_tokens", "s"),
    Format("llmservingsim", "jsonl", "arrival_time_ns", "input_toks", "output_toks", "ns"),
    Format("request-log", "csv", "arrival_s", "isl", "osl", "s"),
    Format("weka", "jsonl", "t", "in", "out", "s", hashes="hash_ids", block=64,
           note="times count from the start of each conversation: all conversations start at 0"),
    Format("trie", "jsonl", "arrive_s", "prompt_tokens", "output_tokens", "s", note=EARLIEST),
    Format("aiperf", "jsonl", "request_start_ns", "input_sequence_length", "output_sequence_length", "ns", zero=True),
    Format("sharegpt", "jsonl", "", "prompt_chars", "output_chars", "s", marker="prompt_chars"),
    Format("sglang-bench", "json", "", "input_lens", "output_lens", "s", marker="itls"),
    Format("vllm-bench", "json", "start_times", "input_lens", "output_lens", "s", zero=True),
)  # fmt: skip


def read_trace(
    path: str | Path, fmt: str = "auto", columns: Mapping[str, str] | None = None, time_unit: str = "", name: str = ""
) -> Workload:
    """The requests of a trace file, ascending by arrival.

    fmt: a name in `FORMATS` or "auto"; columns: {"arrive", "prompt", "output": column} for other files; time_unit:
    ns, us, ms, s or "clock", instead of the format's own.
    """
    table = read_table(Path(path))
    row = chosen(table, fmt, columns, time_unit)
    complete(table, row)
    if row.name == "sharegpt":
        hint = "make a trace of it: apexsim trace tokenize FILE --tokenizer NAME"
        raise InputError("ShareGPT holds text, and its tokens depend on a tokenizer", str(path), hint)
    seconds, notes = arrivals(raw_times(table, row), row, table.where)
    prompt = prompts(table, row)
    output = lengths(table, row.output, "output")
    hashes = hashes_of(table, row, prompt)
    order = np.argsort(seconds, kind="stable")
    if np.any(np.diff(seconds) < 0):
        notes += ("arrivals were not in order: sorted",)
    hashes = tuple(hashes[i] for i in order) if hashes else ()
    prompt = prompt[order]
    return Workload(
        name or Path(path).name.split(".")[0], seconds[order], prompt, output[order], "open" if row.arrive else "offline",
        line=np.asarray(table.line, dtype=np.int64)[order], prefix_hashes=hashes, hash_block=row.block if hashes else 0,
        ideal_hit=ideal_hit(prompt, hashes, row.block) if hashes else float("nan"), source=str(path), notes=notes,
    )  # fmt: skip


# ---- choice -------------------------------------------------------------------------------------------------------


def _names() -> str:
    return ", ".join(f.name for f in FORMATS)


def chosen(table: Table, fmt: str, columns: Mapping[str, str] | None, time_unit: str) -> Format:
    """The row of `FORMATS` for the table, or one made of the user's column map."""
    if time_unit and time_unit not in TIME_UNITS and time_unit != "clock":
        raise InputError(f"unknown time unit '{time_unit}'", "--time-unit", f"one of {', '.join(TIME_UNITS)}, clock")
    if columns:
        missing = {"arrive", "prompt", "output"} ^ set(columns)
        if missing:
            raise InputError(f"a column map names arrive, prompt and output; {', '.join(missing)}?", "--map")
        return Format("map", table.container, columns["arrive"], columns["prompt"], columns["output"], time_unit or "s")
    if fmt == "auto":
        fits = [f for f in FORMATS if f.container == table.container and (not f.marker or f.marker in table.columns)]
        row = max(fits, key=lambda f: _hits(f, table))
        if _hits(row, table) < 2:  # with two of three, the missing one can be named
            have, hint = ", ".join(table.columns[:8]), f"known formats: {_names()}; or give a column map"
            raise InputError(f"no trace format has these columns: {have}", table.where, hint)
    elif fmt in (names := {f.name: f for f in FORMATS}):
        row = names[fmt]
    else:
        raise InputError(f"unknown trace format '{fmt}'", "--format", nearest(fmt, names))
    return replace(row, unit=time_unit) if time_unit else row


def _hits(row: Format, table: Table) -> int:
    return sum(key in table.columns for key in (row.arrive, row.prompt, row.output))


def complete(table: Table, row: Format) -> None:
    """Complain where a column is missing, or every request."""
    for key in (row.arrive, row.prompt, row.output):
        if key and key not in table.columns:
            hint = f"columns: {', '.join(table.columns[:8])}"
            hint = "save it with --save-detailed" if row.name == "vllm-bench" else hint
            raise InputError(f"key '{key}' is missing (read as {row.name})", f"{table.where}:{table.head}", hint)
    if not len(table.line):
        raise InputError("the trace has a header and no requests", table.where)


# ---- columns ------------------------------------------------------------------------------------------------------


def _first_bad(cells: Sequence[Any], good: Callable[[Any], bool]) -> int:
    """Index of the first cell that is not good."""
    return next(i for i, cell in enumerate(cells) if not good(cell))


def _is_number(cell: Any) -> bool:
    try:
        return not isinstance(cell, bool) and bool(np.isfinite(float(cell)))
    except (TypeError, ValueError, OverflowError):
        return False


def _floats(table: Table, key: str, what: str) -> Floats:
    """A column of finite numbers."""
    cells = table.column(key)
    try:
        values = np.array(cells, dtype=np.float64)
        clean = bool(np.isfinite(values).all()) and bool not in set(map(type, cells))
    except (TypeError, ValueError, OverflowError):
        clean = False
    if not clean or values.ndim != 1:
        row = _first_bad(cells, _is_number)
        raise InputError(f"{what} '{key}' is not a number: {cells[row]!r}", table.at(row))
    return values


def prompts(table: Table, row: Format, whole: bool = True) -> Ints:
    """Prompt lengths [tokens], with the shared prefix where the format counts it apart."""
    own = lengths(table, row.prompt, "prompt", whole)
    if not row.shared:
        return own
    shared = _floats(table, row.shared, "prefix length")
    bad = (shared < 0) | (shared % 1 != 0) | (shared > 2**40)
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(f"prefix length '{row.shared}' is no number of tokens: {shared[at]:g}", table.at(at))
    return own + shared.astype(np.int64)


def lengths(table: Table, key: str, what: str, whole: bool = True) -> Ints:
    """A column of token counts ≥ 1; `whole`: the table is all of the file, so that faults can be counted."""
    values = _floats(table, key, f"{what} length")
    for bad, fault in ((values < 0, "is negative"), (values % 1 != 0, "is not a whole number"), (values == 0, "is 0")):
        if bad.any():
            row, count = int(np.argmax(bad)), int(bad.sum())
            more = f" ({count if whole else 'several'} such requests, this is the first)" if count > 1 else ""
            hint = "a request has at least 1 token each way; take failed ones out of the file"
            raise InputError(f"{what} length '{key}' {fault}: {values[row]:g}{more}", table.at(row), hint)
    if values.max() > 2**40:
        row = int(np.argmax(values))
        raise InputError(f"{what} length '{key}' cannot be tokens: {values[row]:g}", table.at(row))
    return values.astype(np.int64)


_YEAR = re.compile(r"(1[7-9]|2[01])\d\d-")  # what nanoseconds in 64 bits reach, and no count of seconds
_ZONE = re.compile(r"\s*(?:Z|([+-])(\d\d):?(\d\d))$")


def _stamps(table: Table, key: str) -> NDArray[np.datetime64]:
    """Date and time, with any number of decimals and an optional zone [ns]; without a zone all rows share one."""
    cells = [str(cell).strip() for cell in table.column(key)]
    shift = _shifts(cells)
    strange = {begin for begin in {cell[:5] for cell in cells} if not _YEAR.fullmatch(begin)}
    if strange:
        row = next(i for i, cell in enumerate(cells) if cell[:5] in strange)
        hint = "for numbers: --time-unit UNIT" if _is_number(cells[row]) else "expected a year from 1700 to 2199"
        raise InputError(f"'{key}' is not a date and time: {cells[row]!r}", table.at(row), hint)
    try:
        stamps = np.array(cells, dtype="datetime64[ns]")
    except ValueError:
        row = _first_bad(cells, _is_stamp)
        raise InputError(f"'{key}' is not a date and time: {cells[row]!r}", table.at(row)) from None
    if np.isnat(stamps).any():
        raise InputError(f"'{key}' is not a date and time", table.at(int(np.argmax(np.isnat(stamps)))))
    return stamps - np.asarray(shift, dtype="timedelta64[s]")


def _shifts(cells: list[str]) -> NDArray[np.int64] | int:
    """Offset of each date and time from UTC [s], whose zones are cut off the cells (modified in place)."""
    every = "".join(cells)
    if not ("Z" in every or "+" in every or every.count("-") > 2 * len(cells)):
        return 0
    common = _ZONE.search(cells[0])
    if common and every.count(common[0]) == len(cells) and all(cell.endswith(common[0]) for cell in cells):
        size = len(common[0])
        cells[:] = [cell[:-size] for cell in cells]
        return _offset(common)
    shift = np.zeros(len(cells), dtype=np.int64)
    for i, cell in enumerate(cells):
        zone = _ZONE.search(cell) if cell[-1:] == "Z" or "+" in cell or cell.count("-") > 2 else None
        if zone:
            cells[i] = cell[: zone.start()]
            shift[i] = _offset(zone)
    return shift


def _offset(zone: re.Match[str]) -> int:
    return (int(zone[2]) * 3600 + int(zone[3]) * 60) * (1 if zone[1] == "+" else -1) if zone[1] else 0


def _is_stamp(cell: str) -> bool:
    try:
        return bool(cell) and np.datetime64(cell, "ns") is not None
    except ValueError:
        return False


ALL_AT_ONCE = "no arrival times: all requests are sent at once"


def raw_times(table: Table, row: Format) -> NDArray[Any]:
    """Arrival times as the file has them: numbers in the row's unit, or dates (datetime64[ns])."""
    if not row.arrive:
        return np.zeros(len(table.line))
    if row.unit == "clock":
        return _stamps(table, row.arrive)
    raw = _floats(table, row.arrive, "arrival")
    if not row.zero and raw.min() < 0:
        at = int(np.argmax(raw < 0))
        raise InputError(f"arrival '{row.arrive}' is negative: {raw[at] * TIME_UNITS[row.unit]:g} s", table.at(at))
    return raw


def arrivals(raw: NDArray[Any], row: Format, where: str) -> tuple[Floats, tuple[str, ...]]:
    """Arrival times [s] of raw ones, checked for their unit, and what is worth saying about them."""
    told = (row.note,) if row.note else ()
    if not row.arrive:
        return raw, (*told, ALL_AT_ONCE)
    if row.unit == "clock":
        seconds = (raw - raw.min()).astype(np.float64) * 1e-9
        return seconds, told + _unit_notes(seconds, None, row, where)
    base = float(raw.min()) if row.zero else 0.0
    seconds = (raw - base) * TIME_UNITS[row.unit]
    return seconds, told + _unit_notes(seconds, raw, row, where)


def _unit_notes(seconds: Floats, raw: Floats | None, row: Format, where: str) -> tuple[str, ...]:
    """A note where the arrival rate is odd, an error where the unit cannot be right."""
    count, span = len(seconds), float(seconds.max() - seconds.min())
    rate = count / span if span > 0 else 0.0
    first = float(seconds.min())
    told = f"{count} requests within {format_seconds(span)}"
    wrong = count > 1 and ((rate > RATE_HIGH[count >= MANY] and count >= 10) or span > SPAN_HIGH)
    if raw is not None and (wrong or first > SPAN_HIGH):
        guess = _unit_guess(raw)
        if first > SPAN_HIGH and not span > SPAN_HIGH:
            told = f"the first request {format_seconds(first)} after the start"
            hint = "these look like clock times: subtract the first one"
        else:
            hint = f"they look like {guess}: --time-unit {guess}" if guess else "check the unit (--time-unit)"
        raise InputError(f"'{row.arrive}' read in {row.unit} gives {told}", where, hint)
    if rate > RATE_ODD and count >= MANY:
        return (f"{told} ({rate:.0f}/s): check the time unit",)
    return ()


def _unit_guess(raw: Floats) -> str:
    """The unit whose mean arrival rate is nearest to one request per second, "" if none is near."""
    span = float(raw.max() - raw.min())
    far = {unit: abs(np.log10(len(raw) / (span * TIME_UNITS[unit]))) for unit in ("ns", "us", "ms", "s") if span > 0}
    best = min(far, key=far.__getitem__, default="")
    return best if best and far[best] <= 3 else ""


# ---- prefixes -----------------------------------------------------------------------------------------------------


def hashes_of(table: Table, row: Format, prompt: Ints) -> tuple[tuple[int, ...], ...]:
    """Prefix block ids of each request; () where the file has none."""
    if not row.hashes or row.hashes not in table.columns:
        return ()
    cells = table.column(row.hashes)
    for i, (cell, tokens) in enumerate(zip(cells, prompt.tolist())):
        if not isinstance(cell, list) or any(type(h) is not int for h in cell):
            raise InputError(f"'{row.hashes}' must be a list of whole numbers", table.at(i))
        if len(cell) > -(-tokens // row.block):
            told = f"{len(cell)} prefix blocks of {row.block} tokens for a prompt of {tokens}"
            raise InputError(told, table.at(i), "the file may be of another format: --format")
    return tuple(map(tuple, cells))


def ideal_hit(prompt: Ints, hashes: Iterable[tuple[int, ...]], block: int) -> float:
    """Share of prompt tokens that an unlimited prefix cache holds when each request comes.

    A hit ends at the first unseen block; a last block that the prompt fills in part counts by its tokens.
    """
    seen: set[int] = set()
    hit = 0
    for tokens, chain in zip(prompt.tolist(), hashes):
        known = next((i for i, h in enumerate(chain) if h not in seen), len(chain))
        hit += min(known * block, tokens)
        seen.update(chain[known:])
    return hit / max(1, int(prompt.sum()))


# ---- lengths against a limit --------------------------------------------------------------------------------------

POLICIES = ("error", "drop", "clip")


def _subset(workload: Workload, keep: NDArray[np.bool_]) -> Workload:
    hashes = tuple(h for h, k in zip(workload.prefix_hashes, keep) if k)
    return replace(
        workload, arrive=workload.arrive[keep], prompt=workload.prompt[keep], output=workload.output[keep],
        line=None if workload.line is None else workload.line[keep], prefix_hashes=hashes,
        warmup=int(keep[: workload.warmup].sum()),
    )  # fmt: skip


def fit_lengths(workload: Workload, max_length: int, policy: str = "error") -> Workload:
    """The workload with no request longer than `max_length` [tokens, prompt + output].

    "drop" leaves such requests out; "clip" shortens the output first, to at least 1 token, then the prompt; both add
    a note.  "error" names how many there are, the longest, and the first lines.
    """
    if policy not in POLICIES:
        raise InputError(f"unknown policy '{policy}'", "--too-long", nearest(policy, POLICIES))
    if max_length < 2:
        raise InputError(f"a length limit below 2 tokens fits no request: {max_length}", "--max-model-len")
    long = workload.prompt + workload.output > max_length
    count = int(long.sum())
    if not count:
        return workload
    told = f"{count} of {workload.size} requests are longer than {max_length} tokens (longest {workload.longest})"
    if policy == "error":
        lines = [] if workload.line is None else [n for n in workload.line[long].tolist() if n][:3]
        told += f", first on line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}" if lines else ""
        raise InputError(told, workload.source or workload.name, "--too-long drop|clip, or a larger --max-model-len")
    if policy == "drop":
        if count == workload.size:
            raise InputError(f"no request is left: {told}", workload.source or workload.name, "--too-long clip")
        fitted = replace(_subset(workload, ~long), notes=(*workload.notes, f"{told}: dropped"))
    else:
        prompt = np.minimum(workload.prompt, max_length - 1)
        hashes = workload.prefix_hashes
        if hashes:
            hashes = tuple(h[: -(-p // workload.hash_block)] for h, p in zip(hashes, prompt.tolist()))
        fitted = replace(
            workload, prompt=prompt, output=np.minimum(workload.output, max_length - prompt), prefix_hashes=hashes,
            notes=(*workload.notes, f"{told}: clipped, output first"),
        )  # fmt: skip
    if fitted.prefix_hashes:
        return replace(fitted, ideal_hit=ideal_hit(fitted.prompt, fitted.prefix_hashes, fitted.hash_block))
    return fitted
