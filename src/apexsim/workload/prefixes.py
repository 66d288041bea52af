"""Which tokens requests share, as the engine takes it: a chain of ids each, cut where nobody else goes on (floor 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apexsim.workload.trace import Chains, Ints, Workload


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Equal ids: equal tokens from the first one on.  chain: ids of all requests; chain_at: [R] where each begins; reach: [R]
    tokens that another request has too; unit: tokens of an id."""

    chain: Ints
    chain_at: Ints
    reach: Ints
    unit: int


def prefixes_of(work: Workload) -> Prefixes | None:
    """What the requests of a workload share; None where it does not say."""
    if not work.block or not len(work.prefix.ids):
        return None
    chains, unit = work.prefix, work.block
    ids = _chained(chains)
    known = np.bincount(ids)[ids] > 1
    shared = np.concatenate(([0], np.cumsum(known)))  # ids that two have stand in front of those that one has
    common = shared[chains.first[1:]] - shared[chains.first[:-1]]
    spoken = np.diff(chains.first) > -(-work.prompt // unit)  # ids of the answer, too
    return Prefixes(ids, chains.first[:-1], np.minimum(common * unit, work.prompt + spoken * work.output), unit)


def _chained(chains: Chains) -> Ints:
    """Small ids that stand for all before them, in order of appearance; as they are told, they may stand for their own block."""
    _, at, told = np.unique(chains.ids, return_index=True, return_inverse=True)
    rank = np.empty(len(at), np.int64)
    rank[np.argsort(at)] = np.arange(len(at))
    ids = rank[told]
    before = np.concatenate(([-1], ids[:-1])) if len(ids) else ids
    before[chains.first[:-1][np.diff(chains.first) > 0]] = -1
    parent = np.full(len(at), -1)
    parent[ids] = before
    if (parent[ids] == before).all():
        return ids
    found: dict[tuple[int, int], int] = {}
    again, node = np.empty(len(ids), np.int64), -1
    starts = set(chains.first[:-1].tolist())
    for x, one in enumerate(ids.tolist()):
        node = found.setdefault((-1 if x in starts else node, one), len(found))
        again[x] = node
    return again
