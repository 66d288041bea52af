"""What a prefix cache of some size holds of a stream of prompts, whatever the time: plain counting, block by block (floor 2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from apexsim.workload.columns import ideal_hit
from apexsim.workload.prefixes import prefixes_of
from apexsim.workload.trace import Chain, Ints, Workload

SIZES = tuple(m * 10**k for k in range(4, 10) for m in (1, 3))  # tokens: a GPU's KV cache, a node's, its host memory's, its disks'
MOST_IDS = 30_000_000  # of all prompts together: more would take half a minute


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
class HitReach:
    """Share of prompt tokens that a cache of so many tokens holds."""

    tokens: int
    hit: float


def reachable(work: Workload) -> tuple[HitReach, ...]:
    """The hits of one cache by its size, up to one that holds as much as an unlimited one; none where prefixes are not known, or are
    too many to count."""
    if prefixes_of(work) is None or len(work.prefix.ids) > MOST_IDS:
        return ()
    whole, most = float(work.prompt.sum()), ideal_hit(work)
    needs, gains = _needs(work)
    found = list[HitReach]()
    for tokens in SIZES:
        if tokens < work.block:
            continue
        hit = float(gains[needs <= tokens // work.block].sum()) / whole
        found.append(HitReach(tokens, hit))
        if hit >= most:
            break
    return tuple(found)


def _needs(work: Workload) -> tuple[Ints, Ints]:
    """Blocks that a cache must have to hold the prompt up to each block that it can hold, and the prompt tokens of that block."""
    from apexsim.engine.stack import stack_distances  # most traces have no prefixes, and need no compiled code

    chains = work.prefix
    ids, size = np.unique(chains.ids, return_inverse=True)[1].astype(np.int64), np.diff(chains.first)
    out = np.zeros(len(ids), np.int64)
    stack_distances(ids, chains.first, np.zeros(int(ids.max(initial=0)) + 1, np.int64), np.zeros(len(ids) + 1, np.int64), out)
    place = np.arange(len(ids)) - np.repeat(chains.first[:-1], size)
    tokens = np.clip(np.repeat(work.prompt, size) - place * work.block, 0, work.block)  # what is behind them is answers
    return out[out > 0], tokens[out > 0]
