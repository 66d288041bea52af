"""Reading request traces (floor 2).

A format is a row of `FORMATS`: which columns hold arrival, prompt and output, in which unit, from which clock.  The
container (CSV, JSON lines, one JSON object) and the row are found from the file's content; a file of other column
names is read by what these mean (`meaning`), or with a column map.  Everything a file can have wrong becomes one
`InputError` with the line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.errors import InputError, nearest
from apexsim.units import TIME_UNITS, format_seconds
from apexsim.workload.cells import floats, lengths
from apexsim.workload.containers import FileTable
from apexsim.workload.dates import stamps
from apexsim.workload.meaning import (
    Meaning,
    is_aggregate,
    is_counted,
    is_missing,
    is_number,
    meaning_of,
    prefix_of,
    ungrouped,
)
from apexsim.workload.trace import NO_CHAINS, NO_INTS, Chains, Floats, Ints, Workload, chains_of

MANY = 100  # requests from which on a mean rate says something
RATE_HIGH = {True: 1e4, False: 1e6}  # [requests/s] many requests, few requests: above this the unit is wrong
RATE_ODD = 100.0  # [requests/s] above this the unit is worth a note
SPAN_HIGH = 2 * 365 * 86400.0  # [s] longer than this the unit is wrong
EPOCH = (1e9, 4.2e9)  # [s] after 1970 within which clocks of traces lie: 2001 to 2103
DATES = ("clock", "mdy", "dmy")  # units that are dates; where day and month cannot be told apart, "clock" reads the month first
TEXTS = ("prompt", "input", "question", "instruction", "messages", "conversations", "text", "query", "request", "payload")


@dataclass(frozen=True, slots=True)
class Format:
    """One trace format: columns, time unit ("clock" = date and time), `zero`: whether time starts at the first row.

    hashes: column of prefix block ids, one per `block` prompt tokens; marker: a column that only this format has;
    arrive "": lengths without times, all sent at once; shared: columns of prompt tokens that come on top of the prompt's own;
    note: what the reader should know; chars: lengths are characters; loose: other tools write this format in seconds too.
    unit "": found from the times themselves; mdy, dmy: dates whose month, or day, comes first; linked: records say whom they wait for,
    and may have no time of their own.
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
    shared: tuple[str, ...] = ()
    chars: bool = False
    loose: bool = False
    linked: bool = False


IMAGES = "NumImages is not counted: the tokens of images are those that ContextTokens holds"
EARLIEST = "turns come at the earliest moment, as from a server that takes no time: the file holds no service times"
PARTS = "hash_ids name the parts of a prompt, not its blocks: prefix reuse is not read"
WAITS = "turns without a delay are sent as long after the answer before them as their times lie apart"
ROUNDS = "of each prompt the recorded prefix_tokens are shared with the round before it: which tokens sessions share is not in the file"
TURNS = "turns of a trajectory are read as requests of their own, each after all that was said before"
FORMATS = (
    Format("apex", "jsonl", "StartTimeOffset", "ContextTokens", "GeneratedTokens", "ns"),
    Format("azure-lmm", "csv", "TIMESTAMP", "ContextTokens", "GeneratedTokens", "clock", True, marker="NumImages", note=IMAGES),
    Format("azure", "csv", "TIMESTAMP", "ContextTokens", "GeneratedTokens", "clock", zero=True),
    Format("bailian", "jsonl", "timestamp", "input_length", "output_length", "s", True, "hash_ids", 16, "chat_id"),
    Format("ragpulse", "jsonl", "timestamp", "input_length", "output_length", "s", marker="hash_ids.sys_prompt", note=PARTS),
    Format("mooncake-sessions", "jsonl", "timestamp", "input_length", "output_length", "ms", True, "hash_ids", 512, "link", note=WAITS,
           linked=True),
    Format("dynamo", "jsonl", "not_before_ms", "input_length", "output_length", "ms", False, "hash_ids", 64, "not_before_ms", linked=True),
    Format("tracelab", "jsonl", "sent_s", "input_tokens_total", "output_tokens", "s", True, "", 64, "sent_s", note=ROUNDS, linked=True),
    Format("mooncake", "jsonl", "timestamp", "input_length", "output_length", "ms", True, "hash_ids", 512, loose=True),
    Format("mooncake-tokens", "jsonl", "timestamp", "input_tokens", "output_tokens", "ms", True, "hash_ids", 512, loose=True),
    Format("burstgpt", "csv", "Timestamp", "Request tokens", "Response tokens", "s", zero=True),
    Format("blis", "csv", "arrival_time_us", "input_tokens", "output_tokens", "us", marker="prefix_length", shared=("prefix_length",)),
    Format("vidur-lengths", "csv", "", "num_prefill_tokens", "num_decode_tokens", "s", marker="num_total_tokens"),
    Format("vidur", "csv", "arrived_at", "num_prefill_tokens", "num_decode_tokens", "s"),
    Format("llmservingsim", "jsonl", "arrival_time_ns", "input_toks", "output_toks", "ns"),
    Format("request-log", "csv", "arrival_s", "isl", "osl", "s"),
    Format("weka", "jsonl", "t", "in", "out", "s", hashes="hash_ids", block=64,
           note="times count from the start of each conversation: all conversations start at 0", linked=True),
    Format("trie", "jsonl", "arrive_s", "prompt_tokens", "output_tokens", "s", note=EARLIEST),
    Format("aiperf", "jsonl", "request_start_ns", "input_sequence_length", "output_sequence_length", "ns", zero=True),
    Format("sharegpt", "jsonl", "", "prompt_chars", "output_chars", "s", marker="prompt_chars", chars=True),
    Format("genai-perf", "jsonl", "sent_ns", "payload_chars", "response_chars", "ns", True, marker="sent_ns", chars=True),
    Format("guidellm", "jsonl", "start_time", "prompt_tokens", "output_tokens", "s", True),
    Format("rollout", "jsonl", "", "turn_prompt", "turn_output", "s", marker="turn_prompt", note=TURNS),
    Format("sglang-bench", "json", "", "input_lens", "output_lens", "s", marker="itls"),
    Format("vllm-bench", "json", "start_times", "input_lens", "output_lens", "s", zero=True),
)  # fmt: skip


# ---- choice -------------------------------------------------------------------------------------------------------


def _names() -> str:
    return ", ".join(f.name for f in FORMATS)


def chosen(table: FileTable, fmt: str, columns: Mapping[str, str] | None, time_unit: str) -> Format:
    """The row of `FORMATS` for the table, or one made of the user's column map, or of what the columns mean."""
    if time_unit and time_unit not in (*TIME_UNITS, *DATES):
        raise InputError(f"unknown time unit '{time_unit}'", "--time-unit", f"one of {', '.join((*TIME_UNITS, *DATES))}")
    if columns:
        row = _mapped(table, columns, time_unit)
    elif fmt == "auto":
        row = _detected(table)
    elif fmt in (names := {f.name: f for f in FORMATS}):
        row = names[fmt]
    else:
        raise InputError(f"unknown trace format '{fmt}'", "--format", nearest(fmt, names))
    if row.arrive and not row.unit and not time_unit and row.arrive in table.columns and len(table.line):
        row = row if _sample(table.column(row.arrive), _timed) is not None else replace(row, unit="clock")
    return replace(row, unit=time_unit, loose=False) if time_unit else row


def _mapped(table: FileTable, columns: Mapping[str, str], time_unit: str) -> Format:
    """The user's column map; a column of prefix tokens is kept, unless the map names another, or "" for none."""
    missing = {"prompt", "output"} - set(columns)
    if missing or set(columns) - {"arrive", "prompt", "output", "shared"}:
        raise InputError(f"a column map names the prompt and the output; {', '.join(sorted(missing))}?", "--map")
    own = [name for name in table.columns if name not in columns.values()]
    shared = ((columns["shared"],) if columns["shared"] else ()) if "shared" in columns else prefix_of(own)
    apart = " + ".join(shared)
    note = f"prompt = {columns['prompt']} + {apart}, which is the prefix before it (--map prefix= leaves it out)" if shared else ""
    return Format(
        "map",
        table.container,
        columns.get("arrive", ""),
        columns["prompt"],
        columns["output"],
        time_unit,
        note=note if "shared" not in columns else "",
        shared=shared,
    )


def _detected(table: FileTable) -> Format:
    """A known format, if all its columns are there; else what the names of the columns mean."""
    fits = [f for f in FORMATS if f.container == table.container and (not f.marker or f.marker in table.columns)]
    row = max(fits, key=lambda f: _hits(f, table)) if fits else None
    if row and row.arrive and _hits(row, table) == 3:
        return row
    if is_aggregate(table.columns):
        raise _unknown(table, {})
    first = {name: _shown(table, name) for name in table.columns} if len(table.line) else {}
    found = meaning_of(table.columns, first.get) if first else Meaning()
    if (
        row
        and row.marker
        and _hits(row, table) == len([key for key in (row.arrive, row.prompt, row.output) if key])
        and not (found.arrive and found.prompt and found.output)
    ):
        return row
    if found.prompt and found.output:
        return _meant(table, found)
    named = meaning_of(table.columns, lambda name: 0 if is_counted(name) and isinstance(first.get(name), str) else first.get(name))
    if first and named.prompt and named.output:  # the cell that is no number is named when it is read
        return _meant(table, named)
    if row and _hits(row, table) >= 2:  # with two of three, the missing one can be named
        return row
    raise _unknown(table, first)


LOOKED = 1000  # rows in which a value is looked for


def _sample(cells: Sequence[Any], good: Callable[[Any], bool]) -> Any:
    """The first cell that says what a column holds, None where none of the first ones does."""
    return next((cell for cell in cells[:LOOKED] if good(cell)), None)


def _timed(cell: Any) -> bool:
    """Whether a cell is a number of a clock, also one that is no moment (infinite)."""
    return is_number(ungrouped(cell, ",")) or is_missing(cell)


def _shown(table: FileTable, name: str) -> Any:
    """A cell of a column that is there, the first one where none is; None where records lack the key."""
    try:
        cells = table.column(name)
    except InputError:
        return None
    found = _sample(cells, lambda cell: not is_missing(cell))
    return cells[0] if found is None else found


def _meant(table: FileTable, found: Meaning) -> Format:
    """A row for the columns that were recognised, with a note of what was taken for what."""
    prompt = " + ".join((*found.shared, found.prompt))
    when = f"time={found.arrive}, " if found.arrive else ""
    limit = " (the limits that requests state)" if found.limited else ""
    note = f"columns read by their names: {when}in={prompt}, out={found.output}{limit}; --map names others"
    return Format("columns", table.container, found.arrive, found.prompt, found.output, found.unit, note=note,
                  shared=found.shared)  # fmt: skip


def _unknown(table: FileTable, first: Mapping[str, Any]) -> InputError:
    """Why a file is no trace, and what would make it one."""
    if is_aggregate(table.columns):
        hint = "save it with --save-detailed (vLLM) or --output-details (SGLang), or state the load: --prompt-len N --output-len N"
        return InputError("holds the totals of a benchmark run, not its requests", table.where, hint)
    texts = [name for name, cell in first.items() if isinstance(cell, str) and not is_number(cell) and name.lower() in TEXTS]
    if texts:
        told = f"'{texts[0]}' holds texts, whose tokens depend on a tokenizer"
        return InputError(told, table.where, "apexsim trace tokenize FILE makes a trace of them")
    if table.container == "csv" and all(map(is_number, filter(None, table.columns))):
        told = f"the first line holds numbers, no names of columns: {', '.join(table.columns[:8])}"
        raise InputError(told, f"{table.where}:{table.head}", "put a header above it: arrival_s,prompt_tokens,output_tokens")
    have, hint = ", ".join(table.columns[:8]), f"--map time=COLUMN,in=COLUMN,out=COLUMN names them; known formats: {_names()}"
    return InputError(f"no columns of prompt and output lengths among: {have}", table.where, hint)


def _hits(row: Format, table: FileTable) -> int:
    return sum(key in table.columns for key in (row.arrive, row.prompt, row.output))


def complete(table: FileTable, row: Format) -> None:
    """Complain where a column is missing, or every request."""
    for key in (row.arrive, row.prompt, row.output, *row.shared):
        if key and key not in table.columns:
            hint = f"columns: {', '.join(table.columns[:8])}"
            hint = "save it with --save-detailed" if row.name == "vllm-bench" else hint
            raise InputError(f"key '{key}' is missing (read as {row.name})", f"{table.where}:{table.head}", hint)
    if not len(table.line):
        raise InputError("the trace has a header and no requests", table.where)


# ---- columns ------------------------------------------------------------------------------------------------------


def prompts(table: FileTable, row: Format, whole: bool = True) -> Ints:
    """Prompt lengths [tokens], with the shared prefix where the format counts it apart."""
    own = lengths(table, row.prompt, "prompt", whole)
    for key in row.shared:
        shared = floats(table, key, "prefix length")
        bad = (shared < 0) | (shared % 1 != 0) | (shared > 2**40)
        if bad.any():
            at = int(np.argmax(bad))
            raise InputError(f"prefix length '{key}' is no number of tokens: {shared[at]:g}", table.at(at))
        own = own + shared.astype(np.int64)
    return own


ALL_AT_ONCE = "no arrival times: all requests are sent at once"


def raw_times(table: FileTable, row: Format) -> NDArray[Any]:
    """Arrival times as the file has them: numbers in the row's unit, or dates (datetime64[ns])."""
    if not row.arrive:
        return np.zeros(len(table.line))
    if row.unit in DATES:
        return stamps(table, row.arrive, row.unit)
    if row.linked:
        return _own_times(table, row)
    raw = floats(table, row.arrive, "arrival")
    if not row.zero and raw.min() < 0:
        at = int(np.argmax(raw < 0))
        told = f"{raw[at] * TIME_UNITS[row.unit]:g} s" if row.unit else f"{raw[at]:g}"  # no unit: it is told from all times later
        raise InputError(f"arrival '{row.arrive}' is negative: {told}", table.at(at))
    return raw


def _own_times(table: FileTable, row: Format) -> NDArray[Any]:
    """Times where records may have none, NaN there."""
    cells = table.column(row.arrive)
    bad = next((i for i, cell in enumerate(cells) if cell is not None and (is_missing(cell) or not is_number(cell))), -1)
    if bad >= 0:
        raise InputError(f"arrival '{row.arrive}' is not a number: {cells[bad]!r}", table.at(bad))
    raw = np.array([np.nan if cell is None else cell for cell in cells], np.float64)
    if (raw < 0).any():
        at = int(np.argmax(raw < 0))
        raise InputError(f"arrival '{row.arrive}' is negative: {raw[at] * TIME_UNITS[row.unit]:g} s", table.at(at))
    return raw


def arrivals(raw: NDArray[Any], row: Format, where: str) -> tuple[Floats, tuple[str, ...]]:
    """Arrival times [s] of raw ones, checked for their unit, and what is worth saying about them."""
    told = (row.note,) if row.note else ()
    if not row.arrive:
        return raw, (*told, ALL_AT_ONCE)
    if row.unit in DATES:
        whole = raw.astype("datetime64[s]")  # nanoseconds span 292 years
        if float((whole.max() - whole.min()).astype(np.int64)) > SPAN_HIGH:
            raise InputError(f"'{row.arrive}' spans from {whole.min()} to {whole.max()}", where, "is a date mistyped?")
        seconds = (raw - raw.min()).astype(np.float64) * 1e-9
        return seconds, told + _unit_notes(seconds, None, row, where)
    row, why = _with_unit(raw, row, where)
    clock = float(raw.min()) * TIME_UNITS[row.unit] > SPAN_HIGH
    base = float(raw.min()) if row.zero or clock else 0.0
    seconds = (raw - base) * TIME_UNITS[row.unit]
    why += ("times are those of a clock: counted from the first request",) if clock and not row.zero else ()
    return seconds, (*told, *why, *_unit_notes(seconds, raw, row, where))


def _with_unit(raw: Floats, row: Format, where: str) -> tuple[Format, tuple[str, ...]]:
    """The row with the unit of its times, where the format leaves it open, and why.

    Times since 1970 tell their unit by their size.  Else it is the unit in which the mean rate comes nearest to 1
    request/s; a format whose unit is a habit keeps it while its times are whole and give at most `RATE_ODD`.
    """
    if row.unit and not row.loose:
        return row, ()
    low, span = float(raw.min()), float(raw.max() - raw.min())
    first, last = _clock(low), _clock(low + span)
    if first and last and first != last and _on_clocks(raw):
        hint = "write all in one of them, or say which they are: --time-unit UNIT"
        raise InputError(f"'{row.arrive}' holds times since 1970 of two units, {first} and {last}", where, hint)
    for unit, scale in TIME_UNITS.items():
        if EPOCH[0] <= low * scale <= float(raw.max()) * scale <= EPOCH[1] and span * scale < SPAN_HIGH and len(raw) > 1:
            return replace(row, unit=unit, zero=True), (f"times are read as {unit} since 1970, from the first request on",)
    usual = row.unit or "s"
    plain = bool(row.unit) and not np.any(raw % 1) and len(raw) <= RATE_ODD * span * TIME_UNITS[usual]
    unit = usual if plain or not span > 0 else _unit_guess(raw) or usual
    if unit == row.unit or not span > 0:
        return replace(row, unit=unit), ()
    told = f"times are read in {unit}: {len(raw)} requests within {format_seconds(span * TIME_UNITS[unit])} (--time-unit UNIT for another)"
    return replace(row, unit=unit), (told,)


def _clock(value: float) -> str:
    """The unit in which a number is a time of today, counted since 1970; "" where it is none."""
    return next((unit for unit, scale in TIME_UNITS.items() if EPOCH[0] <= value * scale <= EPOCH[1]), "")


def _on_clocks(raw: Floats) -> bool:
    """Whether each of raw [R] is a time of today in one of the units."""
    scales = np.array(sorted(set(TIME_UNITS.values())))[:, None] * raw
    return bool(((scales >= EPOCH[0]) & (scales <= EPOCH[1])).any(axis=0).all())


def _unit_notes(seconds: Floats, raw: Floats | None, row: Format, where: str) -> tuple[str, ...]:
    """A note where the arrival rate is odd, an error where the unit cannot be right."""
    count, span = len(seconds), float(seconds.max() - seconds.min())
    rate = count / span if span > 0 else 0.0
    told = f"{count} requests within {format_seconds(span)}"
    wrong = count > 1 and ((rate > RATE_HIGH[count >= MANY] and count >= 10) or span > SPAN_HIGH)
    if raw is not None and wrong:
        guess = _unit_guess(raw)
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


def hashes_of(table: FileTable, row: Format, prompt: Ints, names: dict[str, int]) -> Chains:
    """Prefix block ids of each request; chains of none where the file has none.  names: numbers of ids that are texts."""
    if not row.hashes or row.hashes not in table.columns:
        return Chains(NO_INTS, np.zeros(len(prompt) + 1, np.int64))
    cells, kinds = table.column(row.hashes), set[type]()
    for i, (cell, tokens) in enumerate(zip(cells, prompt.tolist())):
        here = set(map(type, cell)) if isinstance(cell, list) else {type(cell)}
        kinds |= here
        if not isinstance(cell, list) or not here <= {int, str}:
            raise InputError(f"'{row.hashes}' must be a list of whole numbers or texts", table.at(i))
        fits = tokens // row.block <= len(cell) or not cell or row.name == "weka"
        if len(cell) > -(-tokens // row.block) or not fits:
            told = f"{len(cell)} prefix blocks of {row.block} tokens for a prompt of {tokens}"
            raise InputError(told, table.at(i), "a prompt has all of its blocks, or none; the file may be of another format: --format")
    if str in kinds:
        cells = [[h if type(h) is int else -1 - names.setdefault(h, len(names)) for h in cell] for cell in cells]
    try:
        return chains_of(cells)
    except OverflowError:
        raise InputError(f"'{row.hashes}' holds numbers of more than 64 bits", table.at(0)) from None


# ---- lengths against a limit --------------------------------------------------------------------------------------

POLICIES = ("error", "drop", "clip")


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
        lines = [n for n in workload.line[long].tolist() if n][:3] if len(workload.line) else []
        told += f", first on line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}" if lines else ""
        raise InputError(told, workload.source or workload.name, "--too-long drop|clip, or a larger --max-model-len")
    if policy == "drop":
        if count == workload.size:
            raise InputError(f"no request is left: {told}", workload.source or workload.name, "--too-long clip")
        return workload.only(~long, f"{told}: dropped")
    prompt = np.minimum(workload.prompt, max_length - 1)
    prefix = workload.prefix.cut(-(-prompt // workload.block)) if workload.block else NO_CHAINS
    notes = (*workload.notes, f"{told}: clipped, output first")
    return replace(workload, prompt=prompt, output=np.minimum(workload.output, max_length - prompt), prefix=prefix, notes=notes)
