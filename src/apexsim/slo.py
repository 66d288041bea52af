"""Service level objectives as people type them (floor 1).

    slo := [class ":"] metric [":" stat] ("=" | ":" | "<" | "<=") number [unit]       unit: ms (default), s, us

Without a statistic an SLO is met or missed by each request (`ttft=500ms`: goodput, attainment); with one it is a
constraint on the whole run (`ttft:p95=500ms`).  `ttft:500` is the spelling of `vllm bench serve --goodput` [ms].
With a class (`chat:ttft:p95=500ms`) it holds for the requests of that class alone.
`=` is the form that is shown, since a shell takes an unquoted `<` for itself.  `str(slo)` reads back to the same value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations

from apexsim.errors import InputError, nearest
from apexsim.units import TIME_UNITS

LATENCIES = ("ttft", "tpot", "itl", "e2e", "queue")
STATS = ("mean", "p50", "p75", "p90", "p95", "p99", "max")  # statistics that may be asked for, by canonical name
ALIASES = {"e2el": "e2e", "median": "p50", "avg": "mean"}
PARTS = (("ttft", "e2e"), ("queue", "ttft"), ("queue", "e2e"))  # a latency and one that holds it, of every request
NAMES = (*LATENCIES, *(alias for alias, name in ALIASES.items() if name in LATENCIES))  # all spellings of a latency
UNITS = {unit: TIME_UNITS[unit] for unit in ("ms", "s", "us", "µs")}  # [s]

_SLO = re.compile(
    r"^\s*(?P<metric>[a-z][a-z0-9_]*)\s*(?::\s*(?P<stat>[a-z][a-z0-9.]*)\s*)?(?:<=?|=|:)"
    r"\s*(?P<number>[0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?)\s*(?P<unit>[a-zµ]*)\s*$"
)
_CLASS = re.compile(rf"^\s*(?P<kind>[^:=<]*[^:=<\s])\s*:\s*(?=(?:{'|'.join(NAMES)})\b)", re.IGNORECASE)
_GRAMMAR = "write e.g. ttft:p95=500ms (a constraint on the run) or ttft=500ms (counts requests)"


@dataclass(frozen=True, slots=True)
class Slo:
    """An upper limit [s] of one latency: per request (stat "") or of a statistic of the run; of one class, or of all requests (kind "")."""

    metric: str  # one of LATENCIES
    stat: str  # one of STATS, or "" for every request
    limit_s: float
    kind: str = ""

    @property
    def per_request(self) -> bool:
        """Is it met or missed by each request (else a constraint on the run)?"""
        return not self.stat

    def __str__(self) -> str:
        return f"{self.kind}{':' if self.kind else ''}{self.metric}{':' if self.stat else ''}{self.stat}={_limit(self.limit_s)}"


def _limit(seconds: float) -> str:
    """The first of s (from one second on), ms, s, us that reads back to exactly these seconds."""
    for unit in ("s", "ms", "us") if seconds >= 1.0 else ("ms", "s", "us"):
        text = f"{seconds / UNITS[unit]:.12g}"
        if float(text) * UNITS[unit] == seconds and "e" not in text:
            return text + unit
    return f"{seconds!r}s"


def canonical(word: str) -> str:
    """One spelling of a metric or statistic: e2el → e2e, median → p50."""
    low = word.strip().lower()
    return ALIASES.get(low, low)


def parse_slo(text: str, where: str = "--slo") -> Slo:
    """The SLO that `text` states; raises InputError where it is none."""
    of = _CLASS.match(text)
    match = _SLO.match(text[of.end() if of else 0 :].lower())
    if not match:
        raise InputError(f"cannot read '{text}' as an SLO", where, _unread(text))
    metric, stat = canonical(match["metric"]), canonical(match["stat"] or "")
    unit = match["unit"] or "ms"
    if metric not in LATENCIES:
        raise InputError(f"unknown latency '{match['metric']}' in SLO '{text}'", where, nearest(metric, LATENCIES))
    if stat and stat not in STATS:
        raise InputError(f"unknown statistic '{stat}' in SLO '{text}'", where, f"known: {', '.join(STATS)}")
    if unit not in UNITS:
        raise InputError(f"unknown unit '{unit}' in SLO '{text}'", where, "known: ms (default), s, us")
    limit = float(match["number"]) * UNITS[unit]
    if not (0.0 < limit < math.inf):
        raise InputError(f"the limit of SLO '{text}' must be above 0", where, _GRAMMAR)
    kind = of["kind"].strip() if of and of["kind"].strip().lower() not in NAMES else ""
    if of and not kind:
        raise InputError(f"cannot read '{text}' as an SLO", where, _GRAMMAR)
    if kind and stat and metric == "itl":
        raise InputError(f"single gaps are not known by class, and '{text}' limits them", where, f"write {kind}:tpot:{stat}=…")
    return Slo(metric, stat, limit, kind)


def split_slos(text: str) -> list[str]:
    """The SLOs of a text that holds several, as other benchmarks take them in one quoted word: "ttft:500 tpot:50"."""
    return re.split(rf"\s+(?=(?:{'|'.join(NAMES)})\s*[:=<])", text.strip(), flags=re.IGNORECASE)


def _unread(text: str) -> str:
    """What to try where a limit cannot be read: a shell that took "<500ms" for a file leaves the name alone."""
    if re.fullmatch(r"\s*[a-z0-9]+(:[a-z0-9]+)?\s*", text.lower()):
        return f"a shell takes an unquoted < for itself: write {text.strip()}=500ms"
    return _GRAMMAR


def parse_slos(texts: Iterable[str], where: str = "--slo") -> tuple[Slo, ...]:
    """Several SLOs in the order given, each once; raises InputError where one makes another idle."""
    found = tuple(dict.fromkeys(parse_slo(text, where) for text in texts))
    for one, other in permutations(found, 2):
        why = _idle(one, other)
        if why:
            raise InputError(f"{one} has no effect beside {other}: {why}", where, "drop it, or tighten it")
    return found


def _idle(one: Slo, other: Slo) -> str:
    """Why a limit is kept wherever another one is; "" where it may be missed."""
    if one.kind != other.kind or one.limit_s < other.limit_s:
        return ""
    if one.metric == other.metric and one.per_request == other.per_request:
        if one.stat == other.stat:
            return "they are two limits of one thing"
        rising = [stat for stat in STATS if stat != "mean"]
        if one.stat in rising and other.stat in rising and rising.index(one.stat) < rising.index(other.stat):
            return f"no {one.stat} is above its {other.stat}"
    if (one.metric, other.metric) in PARTS and one.stat == other.stat:
        return f"{one.metric} is a part of {other.metric}"
    return ""
