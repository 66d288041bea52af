"""Where the twin's router sends a request, written from docs/caching.md."""

from __future__ import annotations

from typing import Any

from apexsim.engine.types import CACHE_AWARE, LEAST_OUTSTANDING, LEAST_WAITING, POWER_OF_TWO, ROUND_ROBIN, SAME_START, Requests
from naive_records import Sequence


def draw(x: int) -> int:
    """A number that looks random."""
    x = (x + 1) * 2654435761 % 2**32
    x = (x ^ x >> 15) * 2246822519 % 2**32
    return (x ^ x >> 13) % 2**31


def least(replicas: list[Any]) -> Any:
    """The one with the fewest outstanding requests."""
    return min(replicas, key=lambda r: (r.outstanding, r.number))


def match(replica: Any, x: Sequence) -> int:
    """Tokens of the prompt that one of its lanes has."""
    x.target = x.prompt
    found = 0
    for lane in replica.lanes:
        if lane.pool:
            lane.pool.look(x)
            found = max(found, len(x.found) * replica.rules.block)
    return found


def cache_aware(replicas: list[Any], x: Sequence) -> Any:
    """The longest match above 0.3 of the prompt, unless loads are far apart."""
    loads = [r.outstanding for r in replicas]
    matches = {r.number: match(r, x) for r in replicas}
    apart = max(loads) - min(loads) > 64 and max(loads) > 1.5 * min(loads)
    if apart or max(matches.values()) * 10 <= 3 * x.prompt:
        return least(replicas)
    return min(replicas, key=lambda r: (-matches[r.number], r.outstanding, r.number))


def choose(route: int, replicas: list[Any], x: Sequence, requests: Requests) -> Any:
    """The replica of a request."""
    n = len(replicas)
    if route == LEAST_OUTSTANDING:
        return least(replicas)
    if route == POWER_OF_TWO:
        a = draw(2 * x.index) % n
        return least([replicas[a], replicas[(a + 1 + draw(2 * x.index + 1) % max(1, n - 1)) % n]])
    if route == LEAST_WAITING:
        running = [sum(lane.admitted for lane in r.lanes) for r in replicas]
        return min(replicas, key=lambda r: (4 * (r.outstanding - running[r.number]) + running[r.number], r.number))
    if route == CACHE_AWARE:
        return cache_aware(replicas, x)
    if route == SAME_START:
        told = replicas[0].lanes[0].pool and requests.reach[x.index] > 0
        return replicas[draw(int(requests.chain[requests.chain_at[x.index]]) if told else x.index) % n]
    assert route == ROUND_ROBIN
    return replicas[x.index % n]
