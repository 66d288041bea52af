"""Columns of a trace that may hold ten million requests: arrays that grow in place, and what is found in chains of ids (floor 2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.workload.trace import SLICE, Chains, Ints, Workload

GROWTH = 1.125  # of an array that is full: what is moved is its page table, and little is touched in vain


class GrowingArray:
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


def ideal_hit(work: Workload) -> float:
    """Share of prompt tokens that an unlimited prefix cache holds when each request comes; NaN where prefixes are not known.

    A hit ends at the first unseen block; a last block that the prompt fills in part counts by its tokens.
    """
    if not work.block:
        return float("nan")
    hit = 0
    for start, known in _known(work.prefix):
        hit += int(np.minimum(known * work.block, work.prompt[start : start + len(known)]).sum())
    return hit / max(1, int(work.prompt.sum()))


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
