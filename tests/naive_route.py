"""Where the twin's router sends a request, written from docs/caching.md."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from apexsim.engine.types import (
    AFFINITY,
    BLOCK_COST,
    CACHE_AWARE,
    LEAST_OUTSTANDING,
    LEAST_WAITING,
    POWER_OF_TWO,
    ROUND_ROBIN,
    SAME_SESSION,
    SAME_START,
    STICKY,
    Requests,
    Route,
)
from naive_records import NEVER, Sequence


def draw(x: int) -> int:
    """A number that looks random."""
    x = (x + 1) * 2654435761 % 2**32
    x = (x ^ x >> 15) * 2246822519 % 2**32
    return (x ^ x >> 13) % 2**31


@dataclass
class Seen:
    """What the router knows of a replica."""

    number: int
    load: int = 0
    running: int = 0
    blocks: int = 0  # held
    tokens: int = 0  # to be computed before first tokens


@dataclass
class Router:
    """It looks at the replicas at whole multiples of its age, or whenever it sends."""

    route: Route
    replicas: list[Any]
    requests: Requests
    blocks: int
    sequences: list[Sequence]
    looked: float = -NEVER
    seen: list[Seen] = field(default_factory=list)
    waiting: list[tuple[Sequence, int]] = field(default_factory=list)  # for a first token, and what it had to compute

    @property
    def asks(self) -> bool:
        """Whether there is anything to decide: else requests are dealt in turn."""
        return len(self.replicas) > 1 and self.route.kind != ROUND_ROBIN

    def looks_at(self, t: float) -> float:
        """When it looks next, if that is up to t, when the next thing happens; else never."""
        if not self.route.age or not self.asks:
            return NEVER
        tick = min(t, math.floor(t / self.route.age) * self.route.age)
        return tick if tick > self.looked else NEVER

    def look(self, t: float) -> None:
        """Note what there is to be seen."""
        self.looked = t
        self.waiting = [(x, rest) for x, rest in self.waiting if not x.times or x.times[0] > t]
        self.seen = [Seen(r.number, r.outstanding, sum(lane.admitted for lane in r.lanes), sum(self.blocks - lane.free for lane in r.lanes))
                     for r in self.replicas]  # fmt: skip
        for x, rest in self.waiting:
            self.count(x, rest)

    def count(self, x: Sequence, rest: int) -> None:
        """A request is on its way to its first token."""
        self.seen[x.replica].tokens += rest
        if x.start == NEVER:
            self.seen[x.replica].blocks += rest // self.replicas[0].rules.block

    def send(self, x: Sequence, t: float) -> Any:
        """The replica of a request."""
        r = self.would(x, t)
        if not self.asks:
            return r
        x.replica = r.number
        self.seen[r.number].load += 1
        if self.route.kind in (AFFINITY, BLOCK_COST):
            self.waiting.append((x, x.prompt - match(r, x)[0]))
            self.count(*self.waiting[-1])
        return r

    def would(self, x: Sequence, t: float) -> Any:
        """The same if it were sent now."""
        if not self.asks:
            return self.replicas[x.index % len(self.replicas)]
        if not self.route.age:
            self.look(t)
        return self.choose(x)

    def least(self, among: list[int]) -> Any:
        """The one with the fewest outstanding requests."""
        return self.replicas[min(among, key=lambda r: (self.seen[r].load, r))]

    def choose(self, x: Sequence) -> Any:
        """The replica of a request."""
        n, every, kind = len(self.replicas), list(range(len(self.replicas))), self.route.kind
        if kind == LEAST_OUTSTANDING:
            return self.least(every)
        if kind == POWER_OF_TWO:
            a = draw(2 * x.index) % n
            return self.least([a, (a + 1 + draw(2 * x.index + 1) % max(1, n - 1)) % n])
        if kind == LEAST_WAITING:
            return self.replicas[min(every, key=lambda r: (4 * self.seen[r].load - 3 * self.seen[r].running, r))]
        if kind == CACHE_AWARE:
            return self.cache_aware(x)
        if kind == SAME_START:
            told = self.replicas[0].lanes[0].pool and self.requests.reach[x.index] > 0
            return self.replicas[draw(int(self.requests.chain[self.requests.chain_at[x.index]]) if told else x.index) % n]
        if kind == AFFINITY:
            return self.affinity(x)
        if kind == BLOCK_COST:
            return self.block_cost(x)
        if kind in (STICKY, SAME_SESSION):
            return self.session(x)
        raise AssertionError(kind)

    def cache_aware(self, x: Sequence) -> Any:
        """The longest match above 0.3 of the prompt, unless loads are far apart."""
        loads = [s.load for s in self.seen]
        matches = [match(r, x)[0] for r in self.replicas]
        apart = max(loads) - min(loads) > 64 and max(loads) > 1.5 * min(loads)
        if apart or max(matches) * 10 <= 3 * x.prompt:
            return self.least(list(range(len(loads))))
        return self.replicas[min(range(len(loads)), key=lambda r: (-matches[r], loads[r], r))]

    def affinity(self, x: Sequence) -> Any:
        """Those that have most of the prompt, unless they are far behind; the one with the fewest tokens to compute, its own among them."""
        matches = [match(r, x)[0] for r in self.replicas]
        tokens = [s.tokens for s in self.seen]
        near = [r for r in range(len(tokens)) if matches[r] >= self.route.near * x.prompt]
        far = [r for r in range(len(tokens)) if r not in near]
        behind = min(tokens[r] for r in near) - min(tokens[r] for r in far) if near and far else 0
        sticks = near and behind <= self.route.late * self.route.peak and draw(x.index) >= self.route.explore * 2**31
        return self.any_of(x, {r: tokens[r] + x.prompt - matches[r] for r in sorted(near if sticks else near + far)})

    def block_cost(self, x: Sequence) -> Any:
        """The fewest blocks to compute and to hold."""
        costs: dict[int, float] = {}
        for r, seen in enumerate(self.seen):
            hit, shared = match(self.replicas[r], x)
            costs[r] = (seen.tokens + 2 * x.prompt - hit - shared) / self.replicas[r].rules.block + seen.blocks
        return self.any_of(x, costs)

    def any_of(self, x: Sequence, costs: dict[int, float]) -> Any:
        """One with the least cost: of those that come, each takes the place of the one before with chance 1/how many."""
        best, ties = -1, 0
        for r, cost in costs.items():
            if best < 0 or cost < costs[best]:
                best, ties = r, 1
            elif cost == costs[best]:
                ties += 1
                best = r if draw(x.index * len(self.replicas) + r) % ties == 0 else best
        return self.replicas[best]

    def session(self, x: Sequence) -> Any:
        """Where the turn before went, or all turns of a session by their first."""
        before = list(self.requests.after) if len(self.requests.after) else [-1] * len(self.requests.prompt)
        if self.route.kind == STICKY:
            last = int(before[x.index])
            return self.least(list(range(len(self.replicas)))) if last < 0 else self.replicas[self.sequences[last].replica]
        root = x.index
        while before[root] >= 0:
            root = int(before[root])
        return self.replicas[draw(root) % len(self.replicas)]


def match(replica: Any, x: Sequence) -> tuple[int, int]:
    """Tokens of the prompt that its best lane has, and those of them that others hold."""
    x.target = max(x.target, x.prompt)
    best = 0, 0
    for lane in replica.lanes:
        if lane.pool:
            lane.pool.look(x)
            if len(x.found) * replica.rules.block > best[0]:
                best = len(x.found) * replica.rules.block, x.shared * replica.rules.block
    return best
