"""Hit shares of Mooncake's conversations (FAST'25 traces, Apache-2.0; the ten minutes of examples/) in block LRU caches.

Requests one by one in the order of the file; a lookup, then all blocks of the prompt are touched, then the oldest are evicted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apexsim.workload.lru import Lru, hits, reachable
from apexsim.workload.stream import read_trace
from apexsim.workload.trace import Workload

TRACE = read_trace(Path(__file__).parents[2] / "examples/mooncake_conversation.jsonl")
UNLIMITED = np.inf
ONE = {UNLIMITED: 0.2885, 500: 0.03771, 2000: 0.04628, 10_000: 0.21378, 50_000: 0.2885}  # blocks of 512 tokens -> share of tokens
IN_TURN = {  # replicas, blocks of each -> share of tokens
    (4, UNLIMITED): 0.12335, (16, UNLIMITED): 0.05614, (4, 500): 0.03685, (16, 500): 0.04529, (4, 2000): 0.08268, (16, 2000): 0.05243,
    (4, 10_000): 0.12335, (16, 10_000): 0.05614, (4, 50_000): 0.12335, (16, 50_000): 0.05614,
}  # fmt: skip


def share(found: np.ndarray) -> float:
    """Of all prompt tokens."""
    return float(found.sum()) / float(TRACE.prompt.sum())


@pytest.mark.parametrize("blocks", ONE)
def test_one_cache(blocks: float) -> None:
    assert share(hits(TRACE, blocks)) == pytest.approx(ONE[blocks], abs=1e-5)  # printed with five digits


@pytest.mark.parametrize(("replicas", "blocks"), IN_TURN)
def test_replicas_in_turn(replicas: int, blocks: float) -> None:
    assert share(hits(TRACE, blocks, np.arange(TRACE.size) % replicas)) == pytest.approx(IN_TURN[replicas, blocks], abs=1e-5)


def test_the_longest_prefix_alone_sends_all_to_one_replica() -> None:
    """All conversations begin with the same block: of 16 replicas one gets everything, and its cache is the only one."""
    caches, loads = [Lru(2000) for _ in range(16)], np.zeros(16)
    found = 0
    for chain, prompt in zip(TRACE.prefix, TRACE.prompt.tolist()):
        matches = [cache.match(chain) for cache in caches]
        r = max(range(16), key=lambda r: (matches[r], -loads[r], -r))
        known = min(matches[r] * TRACE.block, prompt)
        caches[r].touch(chain)
        found, loads[r] = found + known, loads[r] + prompt - known
    assert (round(found / float(TRACE.prompt.sum()), 5), np.count_nonzero(loads)) == (0.04628, 1)


def test_reachable_hits_grow_with_the_cache_to_the_ideal() -> None:
    shares = [reach.hit for reach in reachable(TRACE)]
    assert shares == sorted(shares) and round(shares[-1], 4) == 0.2885
    assert reachable(Workload("plain", np.zeros(2), np.ones(2, np.int64), np.ones(2, np.int64))) == ()
