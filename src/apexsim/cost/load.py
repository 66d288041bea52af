"""How unevenly tokens fall on experts, and what the busiest rank carries (floor 3).

A load is a name or measured counts.  Names are those under which the kernels were timed: "balanced", "power_law_1.01"
and "power_law_1.2", whose tables hold the slowest rank already.  Measured counts (tokens per expert of a run) become an
imbalance: the busiest rank's share of the pairs over an even share; the balanced table is then read at that many more
tokens.

    imbalance = ep · max over ranks (Σ counts of its experts) / Σ counts

Experts lie on the ranks in order.  Redundancy keeps `copies` further experts: the busiest expert is copied first, its
load shared evenly over its copies, and experts are then dealt, busiest first, to the lightest rank with a free slot.
Without a name: power_law_1.2, which serves measured systems best (docs/log.md), but balanced where each token goes to one expert:
there the power law would send 28 % of all tokens to one of 128 experts, which no trained router does, while with several
experts per token no expert can take more than 1 / top_k of the pairs.

Ignored: that counts differ by layer and drift with time; all layers take the counts given.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apexsim.errors import InputError, nearest
from apexsim.files import read_json

NAMES = ("balanced", "power_law_1.01", "power_law_1.2")


@dataclass(frozen=True, slots=True)
class Load:
    """A named distribution, or measured counts with redundant copies; without a name, see above."""

    name: str = ""
    counts: tuple[float, ...] = ()
    copies: int = 0
    capacity: float = 0.0  # > 0: every expert has this x its even share of slots; further tokens are dropped, free ones padded

    def timed(self, top_k: int) -> str:
        """The distribution whose table is read for a layer of `top_k` experts per token."""
        usual = "balanced" if top_k == 1 else "power_law_1.2"
        return "balanced" if self.counts or self.capacity else self.name or usual

    def imbalance(self, experts: int, ep: int) -> float:
        """Tokens of the busiest rank over an even share; 1 for named loads, whose tables hold it."""
        if self.capacity:
            return self.capacity
        if not self.counts or ep == 1:
            return 1.0
        if len(self.counts) != experts:
            what = f"{len(self.counts)} expert counts for a layer of {experts} experts"
            raise InputError(what, "expert load", "give one count per routed expert")
        return imbalance(np.asarray(self.counts), ep, self.copies)


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


def read_load(text: str, copies: int = 0) -> Load:
    """A load by name, or the JSON file of counts per expert that `text` names: [c0, c1, …]."""
    if text in NAMES:
        return Load(text, (), copies)
    if not text.endswith(".json"):
        raise InputError(f"unknown expert load '{text}'", "expert load", f"{nearest(text, NAMES)}, or a .json file")
    try:
        counts = read_json(text, "file of expert counts")
        good = tuple(float(c) for c in counts)
    except (ValueError, TypeError, OverflowError) as fault:
        raise InputError(f"cannot read expert counts: {fault}", text, "expected a JSON list of numbers") from None
    if not good or min(good) < 0 or sum(good) <= 0:
        raise InputError("expert counts must be numbers from 0 up, not all 0", text)
    return Load("measured", good, copies)
