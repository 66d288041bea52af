"""What a prefix cache of some size holds of a stream of prompts, whatever the time: plain counting, block by block (floor 2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from apexsim.workload.prefixes import prefixes_of
from apexsim.workload.trace import Chain, Ints, Workload

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000)  # tokens: a GPU's KV cache, a node's, its host memory's
MOST_IDS = 3_000_000  # of all prompts together: more would take seconds for each size


@dataclass(slots=True)
class Lru:
    """A cache of so many blocks; those that were touched longest ago go first, once a prompt is in it."""

    blocks: float  # may be infinite
    held: OrderedDict[int, None] = field(default_factory=OrderedDict)

    def match(self, chain: Chain) -> int:
        """Leading blocks that it has."""
        return next((n for n, block in enumerate(chain) if block not in self.held), len(chain))

    def touch(self, chain: Chain) -> None:
        """All blocks of a prompt are used, in their order; the oldest give way."""
        for block in chain:
            self.held[block] = None
            self.held.move_to_end(block)
        while len(self.held) > self.blocks:
            self.held.popitem(last=False)


def hits(work: Workload, blocks: float, replica: Sequence[int] | Ints | None = None) -> Ints:
    """Prompt tokens [R] that caches of so many blocks have when the requests come one by one; replica: [R] whose cache each finds,
    one for all where it is not given.  A block counts whole, the last one by the tokens that the prompt has of it."""
    where = np.zeros(work.size, np.int64) if replica is None else np.asarray(replica)
    caches = [Lru(blocks) for _ in range(int(where.max(initial=0)) + 1)]
    found = np.zeros(work.size, np.int64)
    for i, (chain, r) in enumerate(zip(work.prefix, where.tolist())):
        found[i] = caches[r].match(chain)
        caches[r].touch(chain)
    return np.minimum(found * work.block, work.prompt)


@dataclass(frozen=True, slots=True)
class Reach:
    """Share of prompt tokens that a cache of so many tokens holds."""

    tokens: int
    hit: float


def reachable(work: Workload) -> tuple[Reach, ...]:
    """The hits of one cache by its size, up to one that holds as much as an unlimited one; none where prefixes are not known, or are
    too many to count."""
    if prefixes_of(work) is None or len(work.prefix.ids) > MOST_IDS:
        return ()
    whole, found = float(work.prompt.sum()), list[Reach]()
    most = float(hits(work, np.inf).sum()) / whole
    for tokens in SIZES:
        if tokens < work.block:
            continue
        found.append(Reach(tokens, float(hits(work, tokens // work.block).sum()) / whole))
        if found[-1].hit >= most:
            break
    return tuple(found)
