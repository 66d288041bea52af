"""Columns of a trace that may hold ten million requests: arrays that grow in place, chains of ids in one array (floor 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Chain = tuple[int, ...]
GROWTH = 1.125  # of an array that is full: what is moved is its page table, and little is touched in vain
SLICE = 4096  # requests whose chains are Python numbers at once


class Column:
    """An array to which pieces are added.  It is one block of memory that grows where it lies, so that nothing is held twice."""

    __slots__ = ("_held", "size")

    def __init__(self) -> None:
        self._held: NDArray[Any] | None = None
        self.size = 0

    def add(self, piece: NDArray[Any]) -> None:
        """Put a piece behind the others; all pieces have the type of the first."""
        if self._held is None:
            self._held = np.array(piece)
        elif self.size + len(piece) > len(self._held):
            self._held.resize(max(self.size + len(piece), int(len(self._held) * GROWTH)), refcheck=False)
        self._held[self.size : self.size + len(piece)] = piece
        self.size += len(piece)

    def taken(self) -> NDArray[Any]:
        """The array, which the column gives away."""
        assert self._held is not None
        whole, self._held = self._held, None
        whole.resize(self.size, refcheck=False)
        return whole


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
        size = np.diff(self.first)[at]
        begin = np.concatenate(([0], np.cumsum(size)))
        return Chains(self.ids[np.repeat(self.first[:-1][at] - begin[:-1], size) + np.arange(begin[-1])], begin)

    def cut(self, most: NDArray[Any]) -> Chains:
        """The first ids of each chain, at most so many."""
        size = np.minimum(np.diff(self.first), most)
        begin = np.concatenate(([0], np.cumsum(size)))
        return Chains(self.ids[np.repeat(self.first[:-1] - begin[:-1], size) + np.arange(begin[-1])], begin)


def chains_of(chains: Sequence[Chain]) -> Chains:
    """Chains as one array of ids."""
    if isinstance(chains, Chains):
        return chains
    first = np.cumsum([0, *map(len, chains)])
    return Chains(np.fromiter((i for chain in chains for i in chain), np.int64, int(first[-1])), first)


def ideal_hit(prompt: Ints, hashes: Sequence[Chain], block: int) -> float:
    """Share of prompt tokens that an unlimited prefix cache holds when each request comes.

    A hit ends at the first unseen block; a last block that the prompt fills in part counts by its tokens.
    """
    chains = chains_of(hashes)
    hit = 0
    for start, known in _known(chains):
        hit += int(np.minimum(known * block, prompt[start : start + len(known)]).sum())
    return hit / max(1, int(prompt.sum()))


def _known(chains: Chains) -> Iterator[tuple[int, Ints]]:
    """Per slice of requests its start, and how many blocks of each chain earlier requests have had without a gap."""
    parts = [(start, chains.first[start : start + SLICE + 1]) for start in range(0, len(chains), SLICE)]
    number = _numbered(chains.ids)
    seen = np.full(int(number.max(initial=-1)) + 1, len(chains), np.int32)  # the first request that has each id
    for start, edges in reversed(parts):
        whose = np.repeat(np.arange(start, start + len(edges) - 1), np.diff(edges))
        seen[number[edges[0] : edges[-1]][::-1]] = whose[::-1]  # of equal ids the last one that is written stays
    for start, edges in parts:
        size = np.diff(edges)
        whose = np.repeat(np.arange(start, start + len(size)), size)
        place = np.arange(edges[-1] - edges[0]) - np.repeat(edges[:-1] - edges[0], size)
        place[seen[number[edges[0] : edges[-1]]] < whose] = np.iinfo(np.int64).max
        known = size.copy()
        full = size > 0
        if full.any():
            known[full] = np.minimum(np.minimum.reduceat(place, (edges[:-1] - edges[0])[full]), size[full])
        yield start, known


def _numbered(ids: NDArray[Any]) -> NDArray[Any]:
    """Small numbers for ids: their own where they lie close together, as those of most traces do, else their ranks."""
    low, high = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
    return ids - low if high - low < 4 * len(ids) + 1_000_000 else np.unique(ids, return_inverse=True)[1]
