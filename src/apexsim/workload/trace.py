"""A stream of requests as columns (floor 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Chain = tuple[int, ...]
NO_INTS: Ints = np.zeros(0, np.int64)
NO_FLOATS: Floats = np.zeros(0)
SLICE = 4096  # requests whose chains are Python numbers at once


class Chains(Sequence[Chain]):
    """Prefix block ids of each request, from one array of all; those of request r are ids[first[r] : first[r + 1]]."""

    __slots__ = ("first", "ids")

    def __init__(self, ids: NDArray[Any], first: Ints) -> None:
        self.ids, self.first = ids, first

    def __len__(self) -> int:
        return max(0, len(self.first) - 1)

    @overload
    def __getitem__(self, at: int) -> Chain: ...
    @overload
    def __getitem__(self, at: slice) -> Chains: ...
    def __getitem__(self, at: int | slice) -> Chain | Chains:
        if isinstance(at, slice):
            return self.only(np.arange(*at.indices(len(self))))
        r = range(len(self))[at]
        return tuple(self.ids[self.first[r] : self.first[r + 1]].tolist())

    def __iter__(self) -> Iterator[Chain]:
        for start in range(0, len(self), SLICE):
            edges = self.first[start : start + SLICE + 1].tolist()
            some = self.ids[edges[0] : edges[-1]].tolist()
            for a, b in pairwise(edges):
                yield tuple(some[a - edges[0] : b - edges[0]])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == tuple(b) for a, b in zip(self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def only(self, at: NDArray[Any]) -> Chains:
        """The chains of the requests at some positions, in that order."""
        return self._cut(self.first[:-1][at], np.diff(self.first)[at])

    def cut(self, most: NDArray[Any]) -> Chains:
        """The first ids of each chain, at most so many."""
        return self._cut(self.first[:-1], np.minimum(np.diff(self.first), most))

    def _cut(self, start: Ints, size: Ints) -> Chains:
        """`size` ids from each `start` on."""
        begin = np.concatenate(([0], np.cumsum(size)))
        return Chains(self.ids[np.repeat(start - begin[:-1], size) + np.arange(begin[-1])], begin)


NO_CHAINS = Chains(NO_INTS, NO_INTS)


def chains_of(chains: Sequence[Chain]) -> Chains:
    """Chains as one array of ids."""
    first = np.cumsum([0, *map(len, chains)])
    return Chains(np.fromiter(chain.from_iterable(chains), np.int64, int(first[-1])), first)


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests and how they come.  Columns that nothing is known of are empty.

    arrive: [R] s from the first moment of the trace, ascending (all 0 for closed and offline);
    prompt, output: [R] tokens, ≥ 1; mode: "open" (arrivals given), "closed" (`concurrency` users, each sends its
    next request `think` s after the last one finished) or "offline" (all queued at once);
    warmup: requests at the start that metrics leave out;
    after: [R] the request, one that stands before it, that must have finished `delay` [R] s before this one is sent, −1 = none;
    join: [J, 2] requests that wait for others, too, and whom: once for each of these, by whom; join_delay: [J] s from that finish on;
    prefix: block ids of each prompt, one per `block` tokens of it, equal where prompts begin equally;
    cached: [R] tokens of each prompt that are in the cache whatever comes, fewer than it has;
    stage: first requests of the stages of a load but the first, begin: s at which each begins by the clock of `arrive`: it waits until
    the last request of the one before has ended;
    kind: [R] class of each request, a place in `kinds`, their names;
    line: [R] line in the source file (0 = synthetic); fmt: the format of that file; skipped: lines of it that were passed
    over, faults: the first of them in words.
    """

    name: str
    arrive: Floats
    prompt: Ints
    output: Ints
    mode: str = "open"
    concurrency: int = 0
    think: float = 0.0
    warmup: int = 0
    after: Ints = field(default_factory=lambda: NO_INTS)
    delay: Floats = field(default_factory=lambda: NO_FLOATS)
    join: Ints = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    join_delay: Floats = field(default_factory=lambda: NO_FLOATS)
    prefix: Chains = NO_CHAINS
    block: int = 0
    cached: Ints = field(default_factory=lambda: NO_INTS)
    stage: Ints = field(default_factory=lambda: NO_INTS)
    begin: Floats = field(default_factory=lambda: NO_FLOATS)
    kind: Ints = field(default_factory=lambda: NO_INTS)
    kinds: tuple[str, ...] = ()
    line: NDArray[np.integer[Any]] = field(default_factory=lambda: NO_INTS)
    source: str = ""
    notes: tuple[str, ...] = ()
    fmt: str = ""
    skipped: int = 0
    faults: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of requests."""
        return len(self.prompt)

    @property
    def longest(self) -> int:
        """Longest prompt + output [tokens]."""
        return int((self.prompt + self.output).max())

    @property
    def timed(self) -> bool:
        """Whether requests have times of their own."""
        return self.mode == "open"

    @property
    def span(self) -> float:
        """From the first arrival to the last [s]."""
        return float(self.arrive[-1] - self.arrive[0]) if self.size else 0.0

    def only(self, index: NDArray[Any], note: str = "") -> Workload:
        """The requests that `index` (a mask or positions) selects, in that order."""
        at = np.flatnonzero(index) if index.dtype == np.bool_ else index
        chosen = {
            name: column[at]
            for name in ("arrive", "prompt", "output", "delay", "line", "cached", "kind")
            if len(column := getattr(self, name))
        }
        return replace(
            self,
            **chosen,
            **self._waits(at),
            **self._stages(at),
            prefix=self.prefix.only(at) if self.block else NO_CHAINS,
            warmup=int((at < self.warmup).sum()),
            notes=(*self.notes, note) if note else self.notes,
        )

    def _waits(self, at: NDArray[Any]) -> dict[str, Any]:
        """Whom the requests at some positions wait for, by their new places."""
        after = _renumbered(self.after, at)
        if not len(self.join) or not len(after):
            return {"after": after, "join": self.join[:0], "join_delay": self.join_delay[:0]}
        place = np.full(self.size, -1)
        place[at] = np.arange(len(at))
        join = place[self.join]
        kept = (join >= 0).all(axis=1) & (after[np.maximum(join[:, 0], 0)] >= 0)
        order = np.flatnonzero(kept)[np.argsort(join[kept, 1], kind="stable")]
        return {"after": after, "join": join[order], "join_delay": self.join_delay[order]}

    def _stages(self, at: NDArray[Any]) -> dict[str, Any]:
        """The stages of the requests at some positions, ascending; those that are left empty begin with the next."""
        first = np.searchsorted(at, self.stage)
        kept = (first > 0) & (first < np.append(first[1:], len(at)))
        return {"stage": first[kept], "begin": self.begin[kept]}

    @property
    def since(self) -> Floats:
        """Arrivals [R] s from the begin of their stage on."""
        if not len(self.stage):
            return self.arrive
        begun: Floats = self.arrive - np.repeat(np.append(0.0, self.begin), np.diff([0, *self.stage, self.size]))
        return begun

    def without_prefixes(self) -> Workload:
        """The same requests, whose prompts have nothing in common."""
        return replace(self, prefix=NO_CHAINS, block=0)


def _renumbered(after: Ints, at: NDArray[Any]) -> Ints:
    """Whom the requests at some positions wait for, by their new places; nobody where that one is left out."""
    if not len(after):
        return after
    place = np.full(len(after) + 1, -1)  # the last is that of nobody
    place[at] = np.arange(len(at))
    found: Ints = place[after[at]]
    return found
