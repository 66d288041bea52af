"""What a Pareto front is drawn over: numbers of a run, each to be made large or small (floor 4).

    aim := name [":" stat]        tok/s/GPU | tok/s/user | TTFT:p99 | $ | $/h | W | J | goodput …

`tok/s/GPU` and `tok/s/user` are InferenceX's axes: tokens of prompts and outputs per second and GPU (its tput_per_gpu), and the pace
that a user sees, 1/TPOT (its interactivity; median where no statistic is named).  A new aim is one row of `ROWS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from apexsim.errors import InputError, nearest
from apexsim.metrics import Metrics
from apexsim.objective import HIGHER, LOWER
from apexsim.slo import LATENCIES, STATS, canonical

MOST = 3  # aims of one front: more than three cannot be seen
USUAL = "tok/s/user,tok/s/gpu"
WHERE = "--pareto"


@dataclass(frozen=True, slots=True)
class AimRow:
    """One kind of aim.  get: from Metrics, in the unit shown; doubt: the metric whose error it has, in logs as wide one way as the
    other, so that of 1/TPOT is that of TPOT, "" of what is certain; stat: the usual one of a distribution, "" of a single number."""

    title: str
    unit: str
    get: Callable[[Metrics, str], float]
    sign: int
    doubt: str
    stat: str = ""
    aliases: tuple[str, ...] = ()


def _latency(name: str, metrics: Metrics, stat: str) -> float:
    return 1e3 * metrics.latency(name, stat)


def _pace(metrics: Metrics, stat: str) -> float:
    """1/TPOT [tok/s]: the slow end of TPOT is that of the pace."""
    tpot = metrics.latency("tpot", stat)
    return 1.0 / tpot if tpot > 0 else math.nan


def _per_gpu(metrics: Metrics, _stat: str) -> float:
    return metrics.total_throughput_tok_s / metrics.devices


ROWS: dict[str, AimRow] = {
    "tok/s/gpu": AimRow("total throughput per GPU", "tok/s/GPU", _per_gpu, HIGHER, "throughput", aliases=("tput_per_gpu", "per-gpu")),
    "out-tok/s/gpu": AimRow("output per GPU", "output tok/s/GPU", lambda m, _s: m.output_throughput_tok_s / m.devices, HIGHER, "throughput",
                         aliases=("output_tput_per_gpu",)),
    "tok/s/user": AimRow("interactivity", "tok/s/user", _pace, HIGHER, "tpot", "p50", ("interactivity", "intvty")),
    "throughput": AimRow("output throughput", "tok/s", lambda m, _s: m.output_throughput_tok_s, HIGHER, "throughput", aliases=("tok/s",)),
    "goodput": AimRow("goodput", "req/s", lambda m, _s: m.goodput_req_s, HIGHER, "goodput", aliases=("req/s",)),
    "cost": AimRow("cost", "$/1M output tokens", lambda m, _s: m.usd_per_million, LOWER, "cost", aliases=("$", "usd", "$/1m")),
    "rent": AimRow("rent", "$/h", lambda m, _s: m.usd_h * m.devices, LOWER, "", aliases=("$/h",)),
    "gpus": AimRow("GPUs", "GPUs", lambda m, _s: float(m.devices), LOWER, ""),
    "power": AimRow("power per GPU", "W", lambda m, _s: m.energy.watts, LOWER, "power", aliases=("w", "watts")),
    "energy": AimRow("energy", "J/output token", lambda m, _s: m.energy.per_output_token, LOWER, "energy", aliases=("j", "j/tok")),
    "wall-energy": AimRow("energy at the wall", "J/output token", lambda m, _s: m.energy.wall_per_output_token, LOWER, "wall-energy"),
    **{name: AimRow(name.upper(), "ms", partial(_latency, name), LOWER, name, stat="p95") for name in LATENCIES},
}  # fmt: skip
NAMES = {alias: name for name, row in ROWS.items() for alias in (name, *row.aliases)}


@dataclass(frozen=True, slots=True)
class Aim:
    """A row of ROWS and the statistic of it, "" of a single number."""

    name: str
    stat: str = ""

    @property
    def row(self) -> AimRow:
        """What it is."""
        return ROWS[self.name]

    @property
    def sign(self) -> int:
        """1: the smaller, the better; −1: the larger."""
        return self.row.sign

    @property
    def title(self) -> str:
        """TTFT p95 [ms]; interactivity [tok/s/user]."""
        stat = self.stat if self.stat != self.row.stat or self.name in LATENCIES else ""
        return f"{' '.join(filter(None, (self.row.title, stat)))} [{self.row.unit}]"

    def value(self, metrics: Metrics) -> float:
        """The number, in the row's unit; NaN where the run has none."""
        return self.row.get(metrics, self.stat)

    def __str__(self) -> str:
        return f"{self.name}:{self.stat}" if self.stat and self.stat != self.row.stat else self.name


def parse_aims(text: str = USUAL) -> tuple[Aim, ...]:
    """The two or three aims that a text names, with commas; raises InputError."""
    words = [word.strip() for word in text.split(",")]
    found = tuple(dict.fromkeys(map(_aim, words)))
    if not 2 <= len(found) <= MOST or len(found) < len(words):
        raise InputError(f"expected two or three different goals, got '{text}'", WHERE, f"write e.g. {USUAL}")
    return found


def _aim(word: str) -> Aim:
    head, colon, tail = word.partition(":")
    name = NAMES.get(head.strip().lower()) or NAMES.get(canonical(head), "")
    if not name:
        raise InputError(f"unknown goal '{head.strip()}'", WHERE, nearest(head.strip().lower(), NAMES))
    stat = canonical(tail) if colon else ROWS[name].stat
    if colon and not ROWS[name].stat:
        raise InputError(f"{name} is one number of a run, '{word}' asks for a statistic", WHERE, f"write {name}")
    if stat and stat not in STATS:
        raise InputError(f"unknown statistic '{tail.strip()}' in '{word}'", WHERE, f"known: {', '.join(STATS)}")
    return Aim(name, stat)


Values = tuple[float, ...]


def undominated(values: Sequence[Values], signs: Sequence[int]) -> list[int]:
    """Places of the values that no other one beats: none is as good in everything and better in something.  Of equal ones the first."""
    goods = [tuple(sign * value for sign, value in zip(signs, each)) for each in values]
    order = sorted((i for i, good in enumerate(goods) if not any(map(math.isnan, good))), key=lambda i: (goods[i], i))
    kept: list[int] = []
    for i in order:  # whatever beats it stands before it
        if not any(all(a <= b for a, b in zip(goods[j], goods[i])) for j in kept):
            kept.append(i)
    return kept


def knee_of(values: Sequence[Values], signs: Sequence[int]) -> int:
    """The place of the value nearest to the best of every aim at once, each scaled to the front's range: the compromise solution
    (Yu, Management Science 19, 1973; Zeleny 1973).  −1 of a front of fewer than three, which has no bend."""
    if len(values) < 3:
        return -1
    spans = []
    for axis, sign in enumerate(signs):
        column = [sign * each[axis] for each in values]
        spans.append((min(column), max(column) - min(column)))

    def far(each: Values) -> float:
        return math.hypot(*((sign * v - low) / wide if wide else 0.0 for v, sign, (low, wide) in zip(each, signs, spans)))

    return min(range(len(values)), key=lambda i: (far(values[i]), i))
