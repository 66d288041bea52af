"""How unevenly tokens fall on experts, and what the busiest rank carries (floor 3).

A load is a name or measured counts.  Names are those under which the kernels were timed: "balanced", "power_law_1.01"
and "power_law_1.2", whose tables hold the slowest rank already.  Measured counts (tokens per expert of a run) act twice:

    imbalance = ep · max over ranks (Σ counts of its experts) / Σ counts
    lean      = (s - 1/E) / (s' - 1/E), at most 1;   s = max counts / Σ counts, at most 1/k
    seconds   = balanced(tokens · imbalance)                          whole experts on ranks
    seconds   = balanced + lean · max(0, power_law_1.2 - balanced)    every device holds a part of all E experts

s' is the busiest expert's share where E loads are the quantiles of the law that the tables were timed with, density x^-1.2 on
[1, 0.8 · TIMED] (aiconfigurator-core 0.12.0).  So even counts cost what "balanced" does, and more skew never less: what a skewed
load saves at small batches by touching fewer experts is ignored.

Experts lie on the ranks in order.  Redundancy keeps `copies` further experts: the busiest expert is copied first, its
load shared evenly over its copies, and experts are then dealt, busiest first, to the lightest rank with a free slot.
Without a name: power_law_1.2, which serves measured systems best (docs/log.md), with as many experts read as the model's router touches
(`touched`: the tables' own layout touches too few just below as many pairs as experts), but balanced where each token goes to one expert:
there the power law would send 28 % of all tokens to one of 128 experts, which no trained router does, while with several
experts per token no expert can take more than 1 / top_k of the pairs.  Balanced, too, where there are FEW experts or fewer, of which a
power law would leave most untouched (Mixtral): all are read at any batch, and between ranks that hold whole ones the busiest carries what
popularities of 1 / i^MILD give it, the experts dealt round.

Where tokens travel to their experts, the busiest rank gets SPREAD · log2(ep) more than an even share in decode steps, whose few tokens
are not spread evenly, and an even share of prompts, unless the load is named or counted.  (Set with 30 µs an exchange on 150 served
configurations of DeepSeek-R1; skewed draws of single ranks would give 1.5 to 4.)

Ignored: that counts differ by layer and drift with time; all layers take the counts given.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apexsim.errors import InputError, nearest
from apexsim.files import read_json

NAMES = ("balanced", "power_law_1.01", "power_law_1.2")
STEEPEST, EXPONENT = "power_law_1.2", 1.2
TIMED = 1024.0  # tokens whose law stands for all
FEW, MILD = 16, 0.3  # experts; exponent of their popularity
SPREAD = 0.15  # of an even share, per doubling of the ranks
MOST, LARGEST, BYTES = 1 << 16, 1e18, 1 << 22  # counts of a file, a count, bytes of a file


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """A named distribution, or measured counts with redundant copies; without a name, see above."""

    name: str = ""
    counts: tuple[float, ...] = ()
    copies: int = 0
    capacity: float = 0.0  # > 0: every expert has this x its even share of slots; further tokens are dropped, free ones padded

    def timed(self, top_k: int, experts: int) -> str:
        """The distribution whose table is read for a layer of `top_k` of `experts` per token."""
        usual = "balanced" if top_k == 1 or experts <= FEW else STEEPEST
        return "balanced" if self.counts or self.capacity else self.name or usual

    def imbalance(self, experts: int, ep: int) -> float:
        """Tokens of the busiest rank over an even share; 1 for named loads and the usual one of many experts, whose tables hold it."""
        if self.capacity:
            return self.capacity
        if not self.counts:
            return mild(experts, ep) if not self.name and experts <= FEW else 1.0
        self.check(experts)
        return 1.0 if ep == 1 else imbalance(np.asarray(self.counts), ep, self.copies)

    def sent(self, experts: int, ep: int, decodes: bool) -> tuple[str, float]:
        """Where tokens travel to their experts: the distribution whose table is read, and tokens of the busiest rank over an even share."""
        if self.name and not self.counts and not self.capacity:
            return self.name, 1.0
        if self.counts or self.capacity:
            return "balanced", self.imbalance(experts, ep)
        return "balanced", 1.0 + SPREAD * math.log2(ep) if decodes else 1.0

    def check(self, experts: int) -> None:
        """Raise InputError unless the counts are those of a layer of so many experts."""
        if self.counts and len(self.counts) != experts:
            what = f"{len(self.counts)} expert counts for a layer of {experts} experts"
            raise InputError(what, "expert load", "give one count per routed expert" if experts else "the model has no routed experts")

    def lean(self, experts: int, top_k: int) -> float:
        """How far measured counts lie from an even load towards STEEPEST: 0 to 1."""
        if not self.counts or experts <= top_k:
            return 0.0
        even, share = 1.0 / experts, min(max(self.counts) / sum(self.counts), 1.0 / top_k)
        return min(1.0, max(0.0, share - even) / (min(_law(experts), 1.0 / top_k) - even))


def _law(experts: int) -> float:
    """The busiest expert's share under STEEPEST."""
    power, top = 1.0 - EXPONENT, 0.8 * TIMED
    at = (np.arange(experts) + 0.5) / experts
    loads = (1.0 + at * (top**power - 1.0)) ** (1.0 / power)
    return float(loads[-1] / loads.sum())


def imbalance(counts: NDArray[np.float64], ep: int, copies: int = 0) -> float:
    """ep · busiest rank / all, see above."""
    total = float(counts.sum())
    if copies == 0:
        ranks = np.add.reduceat(counts, np.arange(ep) * len(counts) // ep)
        return ep * float(ranks.max()) / total
    return ep * max(_packed(_replicated(counts, copies), ep)) / total


def _replicated(counts: NDArray[np.float64], copies: int) -> list[float]:
    """Load of every physical expert when the busiest is split, again and again."""
    heap = [(-float(c), 1, float(c)) for c in counts]
    heapq.heapify(heap)
    for _ in range(copies):
        _, many, whole = heapq.heappop(heap)
        heapq.heappush(heap, (-whole / (many + 1), many + 1, whole))
    return [-each for each, many, _ in heap for _ in range(many)]


def _packed(loads: list[float], ep: int) -> list[float]:
    """Load of every rank: busiest expert first, to the lightest rank with a free slot."""
    slots = -(-len(loads) // ep)
    ranks = [(0.0, r, 0) for r in range(ep)]
    full: list[float] = []
    for each in sorted(loads, reverse=True):
        load, r, held = heapq.heappop(ranks)
        if held + 1 == slots:
            full.append(load + each)
        else:
            heapq.heappush(ranks, (load + each, r, held + 1))
    return full + [load for load, _, _ in ranks]


def mild(experts: int, ep: int) -> float:
    """Pairs of the busiest of `ep` ranks over an even share, where few experts are of mildly different popularity."""
    popular = np.arange(1.0, experts + 1.0) ** -MILD
    return float(ep * popular[::ep].sum() / popular.sum())


def read_load(text: str, copies: int = 0) -> ExpertLoad:
    """A load by name, or the JSON file of counts per expert that `text` names: [c0, c1, …]."""
    if text in NAMES:
        return ExpertLoad(text, (), copies)
    if not text.endswith(".json"):
        raise InputError(f"unknown expert load '{text}'", "expert load", f"{nearest(text, NAMES)}, or a .json file")
    return ExpertLoad("measured", _sound(read_json(text, "file of expert counts", BYTES), text), copies)


WANTED = f"expected a list of numbers, one per routed expert, {MOST:,} at most"


def _sound(counts: object, where: str) -> tuple[float, ...]:
    """Counts as numbers; raises InputError where they are none that can be."""
    if not isinstance(counts, list) or not 1 <= len(counts) <= MOST:
        raise InputError("the file holds no list of expert counts", where, WANTED)
    for i, count in enumerate(counts):
        if isinstance(count, bool) or not isinstance(count, int | float) or not 0 <= count <= LARGEST:
            raise InputError(f"expert count {i} is no number from 0 to {LARGEST:g}: {str(count)[:40]}", where, WANTED)
    if not any(counts):
        raise InputError("expert counts must not all be 0", where, WANTED)
    return tuple(float(count) for count in counts)
