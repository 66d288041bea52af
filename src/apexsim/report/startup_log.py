"""Reads the memory lines of an engine's start-up log and holds a prediction against them (floor 6).

The wordings stand in the engines' files: vLLM 0.4-0.30 (V0 and V1), SGLang 0.3-0.5 and TensorRT-LLM 0.17-1.3, read in their
sources and in published logs.  A log may hold lines of several ranks: loaded and reserved memory is that of the fullest rank, what is
left for the cache that of the tightest; where an engine also tells of a smaller, temporary or draft cache, the largest.
What a log says of its settings is in `log_settings`.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from apexsim.engine_file import NUMBER, STATES
from apexsim.engines import engine_facts, servers
from apexsim.errors import InputError
from apexsim.files import lines, lines_of
from apexsim.units import GiB, MiB

Join = Callable[[list[float]], float]


@dataclass(frozen=True, slots=True)
class Stated:
    """What a line of a log states: its name in the comparison, whose line it is, how ranks join, its wording with a blank for
    any white space (logs are pasted with their lines broken), and the unit over GiB, or 1 of a count."""

    name: str
    engine: str
    join: Join
    pattern: str
    unit: float = 1.0

    def values(self, text: str) -> list[float]:
        """Everything that a text states so; several numbers of one line are summed."""
        found = re.findall(spaced(self.pattern), text)
        sums = [sum(map(_value, v)) if isinstance(v, tuple) else _value(v) for v in found]
        return [value * self.unit for value in sums if value < MOST]


def spaced(pattern: str) -> str:
    """A pattern whose blanks match any white space, line breaks too, and whose gaps end: no row is gone through again and again."""
    return pattern.replace(".*?", f".{{0,{GAP}}}?").replace(" ?", r"\s*").replace(" ", r"\s+")


def stated_rows() -> tuple[Stated, ...]:
    """Every line that some engine logs, in the order of the comparison; of each name the first row that occurs counts."""
    read = ((name, line) for name in servers() for line in engine_facts(name).logs)
    rows = [Stated(line.name, name, _JOINS[line.join], filled(line.pattern), UNITS[line.unit]) for name, line in read]
    return tuple(sorted(rows, key=lambda row: STATES.index(row.name)))


_JOINS: dict[str, Join] = {"max": max, "min": min}
UNITS = {"GiB": 1.0, "MiB": MiB / GiB, "byte": 1 / GiB, "count": 1.0}


def filled(pattern: str) -> str:
    """A wording of an engine's file with the pattern of numbers in it."""
    return pattern.replace("{NUMBER}", NUMBER)


@dataclass(frozen=True, slots=True)
class Gap:
    """What older versions leave to the reader: free memory before a step less that after it."""

    name: str
    engine: str
    before: str
    after: str


def gaps() -> tuple[Gap, ...]:
    """Every line that is such a difference."""
    found = [(engine, gap) for engine in servers() for gap in engine_facts(engine).gaps]
    return tuple(Gap(name, engine, filled(before), filled(after)) for engine, (name, before, after) in found)


ANCHOR = re.compile(
    r"G[i]?B|MiB|total memory|full_token|KV [Cc]ache|kv cache|max_total_num_token|blocks: |Maximum concurrency|maximum model length|"
    r"utilization|fraction|"
    r"[Ss]erver_?[Aa]rgs|engine \(v|args: |args=|[Vv]ersion|vLLM|TensorRT|TRT-LLM|max_num|max_seq|max_model|max-model|model len|--\w"
)  # what every line holds that is read, here or in `log_settings`
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
LONGEST = 16384  # characters of a line that are looked at: an engine prints all its arguments in one
GAP = 1000  # characters that a wording may skip over
HEAD = 1 << 20  # characters that are looked at whole: lines may be broken anywhere
MOST = 1e12  # no count or size of a log is larger
INSTEAD = {"weights_gib": "consumed_gib", "kv_tokens": "kv_blocks"}  # told by some versions in the place of
REMARKS = (
    (r"as specified by kv_cache_memory_bytes config", "its cache was set in bytes, so that the fraction did not count"),
    (r"[Oo]verriding num_gpu_blocks", "its blocks were set by hand (--num-gpu-blocks-override)"),
    (r"max_total_tokens(?:'|\"|)[=:] ?\d", "its tokens were limited by hand (--max-total-tokens)"),
    (r"enable_lora(?:'|\"|)[=:] ?True|--enable-lora", "it has room for LoRA adapters, which are not counted here"),
    (r"SpeculativeConfig\(|speculative_algorithm(?:'|\"|)[=:] ?['\"]\w|--speculative", "it speculates: a draft may lie beside"),
    (r"kv_connector|--kv-transfer-config|--enable-hierarchical-cache", "a connector of its cache may hold memory"),
    (r"cpu_offload_gb(?:'|\"|)[=:] ?[1-9]|--cpu-offload-gb", "a part of its weights is in the host's memory"),
)  # what explains a difference
FAILURES = (
    r"To serve at least one request with the models?'s? ?(?:'s ?)?max seq len", r"No available memory for the cache blocks",
    r"is larger than the maximum number of tokens that can be stored in KV cache",
    r"on startup is less than desired GPU memory utilization", r"(?:CUDA|HIP) out of memory", r"Not enough memory",
)  # fmt: skip # of a start for want of memory


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the comparison."""

    name: str
    logged: float
    predicted: float


def read_log(path: str) -> str:
    """The beginning of a log, where the start is, and of the rest the lines that may state memory or settings, each with the next
    one, onto which it may have been broken; "-" is standard input."""
    if path == "-" and sys.stdin is None:
        raise InputError("standard input is closed", "--log", "give a file, or pipe the log in")
    source = lines_of(sys.stdin.buffer, "log", "-", lenient=True) if path == "-" else lines(path, "log", lenient=True)
    kept, seen, follows = [], 0, False
    for line in source:
        plain = ANSI.sub("", line[:LONGEST])
        here = bool(ANCHOR.search(plain))
        if here or follows or seen < HEAD:
            kept.append(plain if plain.endswith("\n") else plain + "\n")
        seen, follows = seen + len(plain), here
    return "".join(kept)


def stated(text: str) -> tuple[tuple[Stated, float], ...]:
    """What the log states: of each name the first wording that occurs, with its value."""
    found: dict[str, tuple[Stated, float]] = {}
    for row in stated_rows():
        values = [] if row.name in found else row.values(text)
        if values:
            found[row.name] = (row, row.join(values))
    for gap in gaps():
        ends = [re.search(spaced(pattern), text) for pattern in (gap.before, gap.after)]
        if gap.name not in found and ends[0] and ends[1]:
            row = Stated(gap.name, gap.engine, max, gap.after)
            found[gap.name] = row, _value(ends[0][1]) - _value(ends[1][1])
    return tuple(found[name] for name in sorted(found, key=STATES.index))


def logged(text: str, where: str = "--log") -> dict[str, float]:
    """What the log states: name -> value; raises InputError where it states nothing, or is an answer of this program."""
    if re.match(r'\s*\{\s*"format": "apexsim\.', text):
        raise InputError("this is an answer of apexsim, which predicted what a server would log", where, "give what the server wrote")
    found = {row.name: value for row, value in stated(text)}
    if not found:
        signs = "; ".join(f"{engine.about}: {engine.signs}" for engine in map(engine_facts, servers()) if engine.signs)
        raise InputError("holds no memory line of a start-up log", where, f"give the server's output from its start on ({signs})")
    return found


def engine_of_log(text: str) -> str:
    """The engine whose wording most lines have; "" where there is none."""
    counts = Counter(row.engine for row, _ in stated(text))
    return counts.most_common(1)[0][0] if counts else ""


def missing(text: str) -> tuple[str, ...]:
    """Lines of a complete log that this one does not hold."""
    there = {row.name for row, _ in stated(text)}
    instead = {name for name, other in INSTEAD.items() if other in there}
    engine = engine_of_log(text)
    return tuple(name for name in (engine_facts(engine).whole if engine else ()) if name not in there | instead)


def failure(text: str) -> str:
    """What the engine said when it did not start for want of memory, cut to a line; "" where it did not."""
    for pattern in FAILURES:
        found = re.search(spaced(pattern) + r"[^\n]*", text)
        if found:
            return " ".join(found[0].split())[:160]
    return ""


def remarks(text: str) -> tuple[str, ...]:
    """What in the log explains that memory is used otherwise than is predicted."""
    return tuple(words for pattern, words in REMARKS if re.search(spaced(pattern), text))


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def compared(text: str, predicted: dict[str, float]) -> tuple[LogLine, ...]:
    """The log's lines beside the prediction's, in the order of the table; lines that only one has are left out."""
    found = logged(text)
    return tuple(LogLine(name, value, predicted[name]) for name, value in found.items() if name in predicted)
