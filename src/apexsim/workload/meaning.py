"""What the columns of an unknown trace mean, by the words of their names (floor 2).

Known formats are rows of `formats.FORMATS`; here any other file finds its arrival, prompt and output.  What was taken
for what is always said, and a column map overrules it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
COUNTED = frozenset({
    "tokens", "token", "toks", "tok", "len", "length", "lens", "lengths", "size", "count", "num", "n", "number", "sequence",
    "seq", "ids",
})  # fmt: skip
# a word of the name -> how surely it is that column; one such word, a word of COUNTED, and none of the barred ones
PROMPT = {"prompt": 3, "input": 3, "prefill": 3, "context": 2, "in": 2, "query": 1, "request": 1, "question": 1, "human": 1, "user": 1}
OUTPUT = {"output": 3, "completion": 3, "generated": 3, "generation": 3, "decode": 3, "response": 2, "gen": 2, "out": 2,
          "answer": 1, "new": 1, "reply": 1, "candidates": 2, "eval": 1, "assistant": 1, "gpt": 1, "bot": 1}  # fmt: skip
PREFIX = {"prefix": 1}
APART = ("cache_creation_input_tokens", "cache_read_input_tokens")  # of one interface: prompt tokens beside its input_tokens
ARRIVAL = {"arrival": 6, "arrive": 6, "arrived": 6, "launch": 5, "submitted": 5, "submit": 5, "submission": 5, "sent": 5,
           "send": 5, "issued": 5, "created": 5, "queued": 5, "scheduled": 4, "received": 4, "start": 4, "started": 4,
           "startedat": 4, "begin": 4, "timestamp": 3, "ts": 3, "datetime": 3, "date": 2, "time": 1, "t": 1}  # fmt: skip
WHOLE = {"isl": "prompt", "osl": "output", "in": "prompt", "out": "output", "input": "prompt", "output": "output",
         "prompt": "prompt", "completion": "output", "response": "output"}  # fmt: skip # names of one word that say enough
TOTALS = frozenset({
    "total", "cached", "cache", "cost", "price", "spend", "rate", "per", "mean", "avg", "average", "median", "max", "min",
    "std", "limit", "budget", "chars", "char", "id", "type", "text", "hash", "hashes", "image", "images", "audio",
    "details", "reasoning", "words", "throughput",
})  # fmt: skip
TIMES = frozenset({
    "time", "latency", "duration", "s", "ms", "sec", "seconds", "ttft", "tpot", "itl",
})  # fmt: skip
LATER = frozenset({
    "end", "ended", "first", "finish", "finished", "completion", "completed", "complete", "ttft", "latency", "duration",
    "elapsed", "total", "tool", "wait", "generation", "token", "tokens", "to", "response", "ready", "done", "last", "inter",
    "processing", "decode", "prefill", "zone", "out", "per", "gap", "think", "interval", "delta", "queue", "update",
    "updated", "modified", "expires",
})  # fmt: skip
UNITS = {"ns": "ns", "nanos": "ns", "nanoseconds": "ns", "us": "us", "micros": "us", "microseconds": "us", "ms": "ms",
         "millis": "ms", "milliseconds": "ms", "s": "s", "sec": "s", "secs": "s", "seconds": "s"}  # fmt: skip
LIMITS = ("max_tokens", "max_new_tokens", "max_completion_tokens", "max_output_tokens")  # what a request allows, no length
AGGREGATE = re.compile(r"(mean|median|p\d+|avg|std)_|^total_(input|output)|_throughput$|^(completed|num_prompts|benchmark_duration)$")
MISSING = ("", "-", "na", "n/a", "nan", "null", "none", "inf", "-inf", "infinity")
GROUPS = re.compile(r"[,'\u2019 \u00a0\u202f]")
GROUPED = re.compile(r"[+-]?\d{1,3}(?:([,'\u2019 \u00a0\u202f])\d{3})(?:\1\d{3})*(?:\.\d+)?")
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
ENOUGH = 3  # names of totals that make a file one of totals


@dataclass(frozen=True, slots=True)
class Meaning:
    """Columns by what they mean, "" where there is none; unit: of the arrivals, "" where the name does not say it."""

    arrive: str = ""
    prompt: str = ""
    output: str = ""
    shared: tuple[str, ...] = ()
    unit: str = ""
    limited: bool = False  # the output is what the request allows


def words(name: str) -> list[str]:
    """The words of a name in small letters: arrivalTime_ms is arrival, time, ms."""
    return [word.lower() for word in WORD.findall(name)]


def meaning_of(columns: Sequence[str], cell: Callable[[str], Any]) -> Meaning:
    """What the columns mean; `cell` gives a value of one, which must be a number or a list for a length, or missing."""
    lengths = [name for name in columns if is_length(cell(name)) or is_missing(cell(name))]
    moments = [name for name in columns if not isinstance(cell(name), (list, dict, bool, type(None)))]
    arrive = _best(moments, ARRIVAL, LATER, ())
    prompt = _length(lengths, PROMPT, "prompt")
    output = _length([name for name in lengths if name != prompt], OUTPUT, "output")
    limit = next((name for name in lengths if name.rpartition(".")[2] in LIMITS), "") if not output else ""
    unit = next((UNITS[word] for word in reversed(words(arrive)) if word in UNITS), "")
    return Meaning(arrive, prompt, output or limit, prefix_of(lengths), unit, bool(limit))


def prefix_of(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of prompt tokens that the file counts apart from the prompt's own ones."""
    apart = tuple(name for name in columns if name.rpartition(".")[2] in APART)
    found = _best(columns, PREFIX, TOTALS | TIMES, COUNTED)
    return apart or ((found,) if found else ())


def _length(columns: Sequence[str], subjects: Mapping[str, int], role: str) -> str:
    found = _best(columns, subjects, TOTALS | TIMES | PREFIX.keys(), COUNTED)
    return found or next((name for name in columns if WHOLE.get(name.rpartition(".")[2].lower()) == role), "")


def _best(columns: Sequence[str], subjects: Mapping[str, int], barred: frozenset[str], needed: Sequence[str] | frozenset[str]) -> str:
    """The column whose name says most surely what is looked for, the first of equals."""
    sure = {}
    for name in columns:
        said = words(name.rpartition(".")[2])
        if barred.isdisjoint(said) and (not needed or not frozenset(needed).isdisjoint(said)):
            score = sum(subjects.get(word, 0) for word in said)
            if score:
                sure[name] = score
    return max(sure, key=sure.__getitem__, default="")


def is_counted(name: str) -> bool:
    """Whether a name speaks of a count."""
    return not COUNTED.isdisjoint(words(name.rpartition(".")[2]))


def is_length(value: Any) -> bool:
    """Whether a cell can be a number of tokens, or a list of them."""
    if isinstance(value, list):
        return not value or not isinstance(value[0], (dict, list))
    return is_number(value)


def is_missing(value: Any) -> bool:
    """Whether a cell stands for a number that is not there."""
    return (
        value is None
        or isinstance(value, bool)
        or (isinstance(value, float) and not math.isfinite(value))
        or (isinstance(value, str) and value.strip().lower() in MISSING)
    )


def is_number(value: Any) -> bool:
    """Whether a cell is a finite number, also with thousands set apart."""
    try:
        return not isinstance(value, bool) and math.isfinite(float(ungrouped(value)))
    except (TypeError, ValueError, OverflowError):
        return False


def ungrouped(value: Any, decimal: str = ".") -> Any:
    """A number in a text without what sets its thousands apart, and with a point; anything else as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if decimal == "," and DECIMAL_COMMA.fullmatch(text):
        return text.replace(",", ".")
    return GROUPS.sub("", text) if GROUPED.fullmatch(text) else value


def is_aggregate(columns: Sequence[str]) -> bool:
    """Whether a record holds the totals of a run."""
    return sum(bool(AGGREGATE.search(name)) for name in columns) >= ENOUGH
