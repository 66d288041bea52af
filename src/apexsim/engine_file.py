"""The files of engines: where they are, what their keys may hold, and what holds for every version of an engine (floor 1).

An engine is one TOML file: those of the package, and those that people add in $APEXSIM_ENGINES.  Its head says what all
versions share (`Engine`), its `[[row]]` tables the rules of versions, which `engines` reads.  The file of a batching policy
names the engine whose server, words and kernels it has: `engine = "vllm"`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from apexsim.errors import InputError, nearest
from apexsim.files import own_folder, read_toml
from apexsim.model.dtypes import dtype

DEFAULT_ENGINE = "vllm"
VARIABLE = "APEXSIM_ENGINES"
SUFFIX = ".toml"
Apart = tuple[tuple[str, tuple[str, ...]], ...]  # number format -> what its quantisation is not joined to


@dataclass(frozen=True, slots=True)
class Word:
    """The engine's word for a meaning from version `since` up to, but not in, `until` ("" = no end); values: (ours, theirs)."""

    engine: str
    means: str
    flag: str
    since: str = ""
    until: str = ""
    values: tuple[tuple[str, str], ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True)
class Logged:
    """A line of the engine's start-up log: what it states, how ranks join, its wording (a blank is any white space), its unit."""

    name: str
    join: str
    pattern: str
    unit: str = "GiB"


@dataclass(frozen=True, slots=True)
class Crossed:
    """How a server hands a request from a prefill pool to a decode pool; docs/pools.md says what the rules mean."""

    rule: str
    hop_s: float  # router and hand-shake [s]
    latency_s: float  # of a transfer [s]
    link_share: float  # of the network's bandwidth that transfers reach
    parallel: bool  # a receiver's transfers overlap
    recompute_first: bool  # the first token is made at decode
    late: bool  # results of a prefill step go out one step late while more prompts wait
    staged: int  # places at decode beyond those that run, for each that may run …
    staged_upto: int  # … where no more than this many may
    finds: bool  # decode looks for a prompt in its own cache first, and is sent what it lacks


@dataclass(frozen=True, slots=True)
class Behind:
    """What a server does with tiers behind its KV cache; docs/caching.md says what the rules mean."""

    write: str  # a block goes to all tiers when it is filled, or down from the GPU when it is evicted
    load: str  # whose wait it is: the step before it, the step beside it, or the request's aside
    prompts: bool  # only blocks of prompts are written
    tiers: str  # kinds that it has


@dataclass(frozen=True, slots=True)
class Engine:
    """What holds for every version of an engine: its measured kernels, what its server can be told and in which words."""

    name: str
    about: str
    kernels: str  # whose kernel times are its own, where engines differ
    quantises_apart: Apart = ()
    program: tuple[str, ...] = ()  # what starts a server; () = there is none
    dialect: str = "plain"  # which function of `report.dialects` says a plan in its words
    router: tuple[str, ...] = ()  # what deals requests to several servers in turn; () = nginx
    vendors: tuple[str, ...] = ()  # whose GPUs it runs on; () = all there are
    not_on: tuple[tuple[str, str, str, str], ...] = ()  # (GPU architecture, since which version, weight format or "" for all, source)
    lanes_without: tuple[str, ...] = ()  # ways of drafting that it refuses with lanes of attention
    mixed_experts: bool = False  # experts may be spread over some of a replica's GPUs and cut over the others
    even_experts: bool = False  # each rank of expert parallelism must hold as many experts
    wide_lanes: bool = False  # a lane of attention may hold several GPUs
    lanes_inside: bool = False  # lanes of attention live inside the tensor parallel size, not beside it
    loopback: bool = False  # a server listens on the loopback only, unless told
    words: tuple[Word, ...] = ()
    says: tuple[str, ...] = ()  # the lines that it logs of a sizing
    logs: tuple[Logged, ...] = ()  # what is read from its start-up log
    gaps: tuple[tuple[str, str, str], ...] = ()  # … where that tells free memory before and after a step: name, before, after
    whole: tuple[str, ...] = ()  # what a complete log states, of what is compared
    signs: str = ""  # wordings by which people know such a log
    crossed: Crossed | None = None  # None: it does not serve prefill and decode apart
    behind: Behind | None = None  # None: it has no tiers behind its KV cache


STATES = (
    "weights_gib", "consumed_gib", "activation_gib", "non_torch_gib", "graph_gib", "kv_gib", "kv_tokens", "state_gib", "kv_blocks",
    "max_concurrency", "max_model_len", "one_request_gib", "longest_request", "gpu_memory_gib",
)  # fmt: skip # what a line of a start-up log may state, in the order of a comparison
SETTINGS = ("memory_fraction", "max_num_seqs", "max_num_batched_tokens", "block_size", "max_model_len", "enforce_eager", "capture")
DIALECTS = ("plain", "vllm", "sglang", "trtllm")
FIGURES = {"loaded": 1.0, "kv": 1.0, "tokens": 1, "length": 1, "many": 1.0}  # what a logged line may hold
CROSSINGS = ("decode-first", "before-transfer", "footprint")  # when, and for what, a decode pool takes a request in
TIERS = ("cpu", "disk", "remote")  # kinds of tiers behind a KV cache, the nearest first
WRITTEN, LOADED = ("filled", "evicted"), ("before", "beside", "aside")  # in the order of engine.types
PLACES = ("norm", "attention", "activation")  # what the quantisation of activations may be joined to
JOINS, UNITS = ("max", "min"), ("GiB", "MiB", "byte", "count")
NUMBER = r"(?<![\d,.])(-?[\d,]{0,24}\.?\d{1,24})"  # no longer: a row of a million digits is read in one go


# ---- where they are -------------------------------------------------------------------------------------------------


def shelf() -> Mapping[str, Path]:
    """Every engine's file by the engine's name, sorted: the package's and the user's own."""
    return _shelf(*map(os.environ.get, (VARIABLE, "XDG_DATA_HOME", "HOME")))


@cache
def bundled() -> Mapping[str, Path]:
    """The files of the package."""
    return {path.stem: path for path in sorted(Path(str(files("apexsim") / "data/engines")).glob(f"*{SUFFIX}"))}


def engines_folder() -> Path:
    """Where the user's own engines are."""
    return own_folder(VARIABLE, "engines")


@cache
def _shelf(named: str | None, *homes: str | None) -> Mapping[str, Path]:
    """Looked through once for each place where the user's own may be."""
    folder = engines_folder()
    if named and not folder.is_dir():
        raise InputError("there is no such folder", f"${VARIABLE}={folder}", "it holds the files of your own engines")
    own = {path.stem: path for path in folder.glob(f"*{SUFFIX}")} if folder.is_dir() else {}
    for name, path in own.items():
        _typed(name, str(path))
        if name in bundled():
            raise InputError(f"there is an engine '{name}' already", str(path), "rename the file")
    return dict(sorted({**bundled(), **own}.items()))


@cache
def read(path: Path) -> dict[str, Any]:
    """What a file holds, its head checked; raises InputError where it cannot be."""
    data = read_toml(path, "engine file")
    _checked(data, str(path))
    return data


@lru_cache(maxsize=4096)
def order(version: str, spec: str = "", where: str = "--engine") -> tuple[int, ...]:
    """Sort key of a version: its leading numbers, three of them ("0.19.2rc1" is 0.19.2)."""
    match = re.match(r"v?(\d{1,9}(?:\.\d{1,9})*)(?!\d)", version)
    if not match or "@" in version:
        raise InputError(f"cannot read engine version '{version}' of '{spec or version}'", where, "expected e.g. vllm@0.19.0")
    numbers = [int(n) for n in match[1].split(".")][:3]
    return tuple(numbers + [0] * (3 - len(numbers)))


# ---- what they may hold ---------------------------------------------------------------------------------------------


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


KINDS = {
    "a text": lambda value: isinstance(value, str) and bool(value.strip()),
    "a list of texts": lambda value: _texts(value) and all(each.strip() for each in value),
    "true or false": lambda value: isinstance(value, bool),
    "a table": lambda value: isinstance(value, dict),
    "a list": lambda value: isinstance(value, list),
    "a table of texts": lambda value: isinstance(value, dict) and _texts(list(value.values())) and all(map(str.strip, value.values())),
    "a list of tables": lambda value: isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value),
    "a number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "a list of rows of texts": lambda value: isinstance(value, list) and all(map(_texts, value)),
}
HEAD = {
    "about": "a text", "engine": "a text", "through": "a text", "kernels": "a text", "aliases": "a list of texts",
    **dict.fromkeys(("quantises_apart", "flags", "sources"), "a table of texts"), "server": "a table", "log": "a table",
    "handover": "a table", "offload": "a table",
    "row": "a list of tables", "here": "a list of tables",
}  # fmt: skip
SERVER = {
    "program": "a list of texts", "dialect": "a text", "router": "a list of texts", "vendors": "a list of texts",
    "lanes_without": "a list of texts", "not_on": "a list of rows of texts",
    **dict.fromkeys(("mixed_experts", "even_experts", "wide_lanes", "lanes_inside", "loopback"), "true or false"),
    "words": "a list of rows of texts", "sources": "a table of texts",
}  # fmt: skip
LOG = {
    "says": "a list of texts", "lines": "a list of rows of texts", "gaps": "a list of rows of texts", "whole": "a list of texts",
    "signs": "a text",
}  # fmt: skip


ROW = {"version": "a text", "released": "a text", "inherits": "a text", "rules": "a table", "host": "a table", "memory": "a table"}
TABLES = ("rules", "host", "memory")
HERE = {"gpus": "a text", "least_gib": "a number", "below_gib": "a number", "since": "a text", "until": "a text"}  # of constants by GPU


def keys(table: Mapping[str, Any], known: Mapping[str, str], where: str, needed: tuple[str, ...] = ()) -> None:
    """Raise InputError where a key is missing, is one that nobody reads, or holds another kind of value."""
    for key in needed:
        if key not in table:
            raise InputError(f"key '{key}' is missing", where)
    for key, value in table.items():
        if key not in known:
            raise InputError(f"unknown key '{key}'", where, nearest(key, known))
        if not KINDS[known[key]](value):
            raise InputError(f"key '{key}' must be {known[key]}, got {str(value)[:40]!r}", where)


def among(value: str, known: Iterable[str], what: str, where: str) -> None:
    """Raise InputError where a word is none of those that are known."""
    words = tuple(known)
    if value not in words:
        raise InputError(f"unknown {what} '{value}'", where, nearest(value, words))


def _checked(data: Mapping[str, Any], where: str) -> None:
    keys(data, HEAD, where, ("about", "row") if "engine" in data else ("about", "kernels", "row"))
    server, log = data.get("server", {}), data.get("log", {})
    if "engine" in data and (server or log or "kernels" in data):
        raise InputError("a policy has the server, log and kernels of its engine", where, "drop 'engine', or the tables [server] and [log]")
    keys(server, SERVER, f"{where} [server]", ("program",) if server else ())
    keys(log, LOG, f"{where} [log]")
    among(server.get("dialect", DIALECTS[0]), DIALECTS, "dialect", f"{where} [server]")
    for setting in data.get("flags", {}):
        among(setting, SETTINGS, "setting", f"{where} [flags]")
    _versions(data, where)
    for table in data.get("here", ()):
        _here(table, list(data.get("sources", {})), f"{where} [[here]]")
    for alias in data.get("aliases", ()):
        _typed(alias, f"{where} aliases")
    for fmt, at in data.get("quantises_apart", {}).items():
        dtype(fmt, f"{where} [quantises_apart]")
        for place in at.split():
            among(place, PLACES, "place", f"{where} [quantises_apart]")
    _spoken(server.get("words", ()), f"{where} [server] words")
    for row in server.get("not_on", ()):
        _nowhere(row, list(server.get("sources", {})), f"{where} [server] not_on")
    for gap in log.get("gaps", ()):
        if len(gap) != 3:
            raise InputError(f"a gap is [name, wording before, wording after], got {gap}", f"{where} [log] gaps")
        _line([gap[0], JOINS[0], gap[1]], f"{where} [log] gaps")
        _line([gap[0], JOINS[0], gap[2]], f"{where} [log] gaps")
    for name in log.get("whole", ()):
        among(name, STATES, "line of a log", f"{where} [log] whole")
    for row in log.get("lines", ()):
        _line(row, f"{where} [log] lines")
    for text in log.get("says", ()):
        try:
            text.format(**FIGURES)
        except (KeyError, IndexError, ValueError):
            raise InputError(f"cannot be filled in: {text}", f"{where} [log] says", f"it may hold {', '.join(FIGURES)}") from None


def _typed(name: str, where: str) -> None:
    """Raise InputError where a name cannot be that of an engine on the command line."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise InputError(f"'{name}' is no name of an engine", where, "small letters, digits, '-', '_' and '.'")


def _spoken(rows: list[list[str]], where: str) -> None:
    """Words that are whole, and no meaning with two of them in one version."""
    spans: dict[str, list[tuple[tuple[float, ...], tuple[float, ...]]]] = {}
    for row in rows:
        if not 2 <= len(row) <= 6:
            raise InputError(f"a word is [meaning, word, since, until, values, source], or less at the end, got {row}", where)
        means, word, since, until, values = (*row, "", "", "")[:5]
        if not (means.strip() and word.strip()):
            raise InputError(f"a meaning or its word is blank: {row}", where)
        first: tuple[float, ...] = order(since, where=where) if since else ()
        end: tuple[float, ...] = order(until, where=where) if until else (math.inf,)
        if not first < end or any(first < other_end and other < end for other, other_end in spans.get(means, ())):
            raise InputError(f"'{means}' has two words, or none, in a version: {row}", where)
        spans.setdefault(means, []).append((first, end))
        if any(value.count("=") != 1 for value in values.split(";") if value):
            raise InputError(f"values are written 'ours=theirs;…', got '{values}'", where)


def _nowhere(row: list[str], sources: list[str], where: str) -> None:
    """GPUs that versions do not run on."""
    if len(row) != 4 or not row[0].strip() or row[3] not in sources:
        raise InputError(f"a row is [architecture, since, weight format or nothing, a source of [server.sources]], got {row}", where)
    order(row[1], where=where)
    if row[2]:
        dtype(row[2], where)


def _versions(data: Mapping[str, Any], where: str) -> None:
    """Rows in the order of their versions, each constant with its source; none is newer than what the rules hold to."""
    last: tuple[int, ...] = ()
    sources = list(data.get("sources", {}))
    for row in data["row"]:
        here = f"{where} [[row]] {row.get('version', '')}".rstrip()
        keys(row, ROW, here, ("version",))
        if order(row["version"], where=here) <= last:
            raise InputError("versions must ascend", here)
        last = order(row["version"])
        for table in TABLES:
            for key, constant in row.get(table, {}).items():
                if not isinstance(constant, list) or len(constant) != 2 or constant[1] not in sources:
                    raise InputError(f"constant '{key}' must be [value, a source of [sources]], got {str(constant)[:60]}", here)
    _handover(data, sources, where)
    _offload(data, sources, where)
    if "through" in data and order(data["through"], where=f"{where} through") < last:
        raise InputError(f"rules hold to {data['through']}, but there are newer ones", f"{where} through")


def _handover(data: Mapping[str, Any], sources: Iterable[str], where: str) -> None:
    """The table [handover]: every value of `Crossed`, each with its source."""
    table, here = data.get("handover"), f"{where} [handover]"
    if table is None:
        return
    kinds = {each.name: each.type for each in fields(Crossed)}
    keys(table, dict.fromkeys(kinds, "a list"), here, tuple(kinds))
    for key, pair in table.items():
        if len(pair) != 2 or pair[1] not in sources:
            raise InputError(f"constant '{key}' must be [value, a source of [sources]], got {str(pair)[:60]}", here)
        if key == "rule":
            among(pair[0], CROSSINGS, "rule", here)
        elif isinstance(pair[0], bool) != (kinds[key] == "bool") or isinstance(pair[0], str) or not 0 <= pair[0] <= LARGEST:
            raise InputError(f"constant '{key}' must be {'true or false' if kinds[key] == 'bool' else 'a number of at least 0'}", here)


def _offload(data: Mapping[str, Any], sources: Iterable[str], where: str) -> None:
    """The table [offload]: every value of `Behind`, each with its source."""
    table, here = data.get("offload"), f"{where} [offload]"
    if table is None:
        return
    names = tuple(each.name for each in fields(Behind))
    keys(table, dict.fromkeys(names, "a list"), here, names)
    known = {"write": WRITTEN, "load": LOADED, "tiers": TIERS}
    for key, pair in table.items():
        if len(pair) != 2 or pair[1] not in sources or isinstance(pair[0], bool) != (key == "prompts"):
            raise InputError(f"constant '{key}' must be [value, a source of [sources]], got {str(pair)[:60]}", here)
        for word in str(pair[0]).split() if key in known else ():
            among(word, known[key], key, here)


def _here(table: Mapping[str, Any], sources: list[str], where: str) -> None:
    """Constants that hold on some GPUs only, each with its source."""
    for key, value in table.items():
        if key in HERE and not KINDS[HERE[key]](value):
            raise InputError(f"key '{key}' must be {HERE[key]}, got {str(value)[:40]!r}", where)
        if key in ("since", "until"):
            order(value, where=where)
        if key not in HERE and (not isinstance(value, list) or len(value) != 2 or value[1] not in sources):
            raise InputError(f"constant '{key}' must be [value, a source of [sources]], got {str(value)[:60]}", where)


def _line(row: list[str], where: str) -> None:
    if not 3 <= len(row) <= 4:
        raise InputError(f"a line of a log is [name, max or min, wording, unit], or without its unit, got {row}", where)
    name, join, pattern, unit = (*row, "GiB")[:4]
    among(name, STATES, "line of a log", where)
    among(join, JOINS, "way in which ranks join", where)
    among(unit, UNITS, "unit", where)
    try:
        groups = re.compile(pattern.replace("{NUMBER}", NUMBER)).groups
    except re.error as error:
        raise InputError(f"cannot read the wording {pattern} ({error})", where) from None
    if not groups:
        raise InputError(f"the wording {pattern} has no number", where, "write {NUMBER} where it stands")


# ---- what a constant may be ------------------------------------------------------------------------------------------


COUNTS = {"capture", "max_num_batched_tokens", "max_num_seqs", "block_size", "chunked_budget", "prompt_full_tokens"}
CODES = {"mix": 1, "chunk": 1, "admission": 3, "preempt": 1, "order": 1, "lag": 2, "prompt_graphs": 2, "reuse": 2, "rest_first": 1}
CHOICES = {"budget": ("total", "static", "free"), "kv_pool": ("full", "groups"), "tokens_line": ("blocks", "concurrency"),
           "sampling": ("greedy", "top-p", "penalties")}  # fmt: skip
LARGEST = 2**53  # of a constant
SIZES = re.compile(r"[1-9]\d{0,5}(:[1-9]\d{0,5}:[1-9]\d{0,5})?")


def sizes(text: str) -> tuple[int, ...]:
    """Capture sizes from "1 2 4 8:256:8"."""
    found: list[int] = []
    for word in text.split():
        first, _, rest = word.partition(":")
        last, _, step = rest.partition(":")
        found += range(int(first), int(last or first) + 1, int(step or 1))
    return tuple(found)


def wrong(key: str, value: Any, kind: str) -> str:
    """What is wrong with the value of a constant in a file; "" where nothing is."""
    if kind.startswith("tuple"):
        fine = isinstance(value, str) and all(map(SIZES.fullmatch, value.split()))
        found = sizes(value) if fine else ()
        rising = all(a < b for a, b in pairwise(found))
        return "" if fine and rising else f'expected ascending sizes like "1 2 4 8:256:8", got {value!r}'
    if kind == "str":
        known = CHOICES.get(key)
        fine = isinstance(value, str) and (known is None or value in known)
        return "" if fine else f"expected {' or '.join(known or ('a text',))}, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, int if kind == "int" else int | float):
        return f"expected a {'whole ' * (kind == 'int')}number, got {value!r}"
    if not abs(value) <= LARGEST or (value < 0 and key != "kv_low_bytes"):
        return f"expected a number of at least 0, got {value!r}"
    return unsound(key.removeprefix("large_"), value)


def unsound(key: str, value: Any) -> str:
    """Why a number cannot be that of a setting; "" where it can."""
    whole = isinstance(value, int)
    if key in CHOICES and value not in CHOICES[key]:
        return f"expected {' or '.join(CHOICES[key])}, got {value!r}"
    if key in COUNTS and (not whole or value < 1):
        return f"expected a positive whole number, got {value!r}"
    if key in CODES and (not whole or not 0 <= value <= CODES[key]):
        return f"expected 0 to {CODES[key]}, got {value!r}"
    if key == "memory_fraction" and not (isinstance(value, int | float) and 0 < value <= 1):
        return f"expected a fraction above 0 and up to 1, got {value!r}"
    return ""


# ---- what they say of the engine ------------------------------------------------------------------------------------


def engine_at(name: str, path: Path) -> Engine:
    """The engine that a file describes; raises InputError where it names what nobody knows."""
    return _engine(name, path)


@cache
def _engine(name: str, path: Path) -> Engine:
    data = read(path)
    server, log = data.get("server", {}), data.get("log", {})
    words, lines = tuple(_words(name, server.get("words", ()))), tuple(Logged(*row) for row in log.get("lines", ()))
    if path not in bundled().values():
        known = [engine_at(*item) for item in bundled().items() if "engine" not in read(item[1])]
        among(data["kernels"], {each.kernels for each in known}, "source of kernel times", str(path))
        for word in words:
            among(word.means, {one.means for each in known for one in each.words}, "meaning", f"{path} [server] words")
    plain = {key: value for key, value in server.items() if key not in ("words", "sources")}
    several = {
        key: tuple(tuple(one) if isinstance(one, list) else one for one in value) for key, value in plain.items() if isinstance(value, list)
    }
    gaps = tuple((name, before, after) for name, before, after in log.get("gaps", ()))
    return Engine(
        name,
        data["about"],
        data["kernels"],
        tuple((fmt, tuple(at.split())) for fmt, at in data.get("quantises_apart", {}).items()),
        **{**plain, **several},
        words=words,
        says=tuple(log.get("says", ())),
        logs=lines,
        gaps=gaps,
        whole=tuple(log.get("whole", ())),
        signs=log.get("signs", ""),
        crossed=_crossed(data),
        behind=Behind(**{key: value for key, (value, _) in data["offload"].items()}) if "offload" in data else None,
    )


def _crossed(data: Mapping[str, Any]) -> Crossed | None:
    """The values of the table [handover], of which each is [value, source]."""
    return Crossed(**{key: value for key, (value, _) in data["handover"].items()}) if "handover" in data else None


def _words(engine: str, rows: Iterable[list[str]]) -> Iterator[Word]:
    """Words from rows: meaning, word, since, until, "ours=theirs;…", source."""
    for row in rows:
        means, flag, since, until, values, source = (*row, "", "", "", "")[:6]
        pairs = (value.partition("=") for value in values.split(";") if value)
        yield Word(engine, means, flag, since, until, tuple((ours, theirs) for ours, _, theirs in pairs), source)
