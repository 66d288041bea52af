"""Serving a workload: the entry of the engine (floor E).

`simulate` is the only one: it lays out the arrays, `run` serves every request with them, `Outcome` says what happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, get_type_hints

import numpy as np
from numba.core.dispatcher import Dispatcher

from apexsim.engine import cache
from apexsim.engine.jit import inner, outer
from apexsim.engine.leave import let_go
from apexsim.engine.loop import advance
from apexsim.engine.pipeline import PATIENCE
from apexsim.engine.queue import send
from apexsim.engine.ref import ref
from apexsim.engine.types import (
    F8,
    FULL,
    GAPS,
    I4,
    I8,
    INFINITY,
    LOG_FULL,
    NOBODY,
    NOT_DECODING,
    OK,
    ROUND_ROBIN,
    ROWS,
    STATUS,
    STUCK,
    SUM_NAMES,
    Costs,
    Host,
    Log,
    Requests,
    Rules,
    State,
    Work,
    World,
)  # fmt: skip

MANY = 100_000  # requests of one workload from which a second compilation is worth while


@inner
def _route(world: World, i: int) -> int:
    """The replica of request i: in turn, or the one with the fewest outstanding requests (lowest number wins ties)."""
    if world.route == ROUND_ROBIN:
        return i % world.replicas
    outstanding = world.state.outstanding
    best = 0
    for r in range(1, world.replicas):
        if outstanding[r] < outstanding[best]:
            best = r
    return best


@inner
def _send_users(world: World) -> None:
    """Closed loop: user u belongs to replica u mod N and sends at 0; request i belongs to replica i mod N.

    With fewer users than replicas, N is the number of users: the other replicas stay empty.
    """
    users, size = world.req.users, world.req.prompt.shape[0]
    n = min(world.replicas, users)
    for r in range(n):
        i = r
        for _u in range(users // n + (1 if r < users % n else 0)):
            if i < size:
                send(world, r, i, 0.0)
                i += n
        world.state.unsent[r] = i


@inner
def _send_known(world: World) -> int:
    """Send what needs no look at the replicas; returns the first request that does."""
    req = world.req
    size = req.prompt.shape[0]
    if req.users > 0:
        _send_users(world)
        return size
    if world.route != ROUND_ROBIN and world.replicas > 1:
        return 0
    for i in range(size):
        send(world, i % world.replicas, i, req.arrive[i])
    return size


@inner
def _serve(world: World, begin: int, margin: int) -> tuple[int, int]:
    """As `run`, with the world by reference."""
    req = world.req
    size = req.prompt.shape[0]
    if begin < 0:
        begin = _send_known(world)
    while True:
        until = req.arrive[begin] if begin < size else INFINITY
        for r in range(world.replicas):
            status = advance(world, r, until, margin)
            if status != OK:
                return status, begin
        if begin >= size:
            for r in range(world.replicas):
                let_go(world, r)
            return OK, begin
        send(world, _route(world, begin), begin, until)
        begin += 1


@outer
def run(world: World, begin: int, margin: int) -> tuple[int, int]:
    """Serve everything.  `begin`: −1, or the first request not yet sent, to go on after LOG_FULL.  Returns (status, begin)."""
    return _serve(ref(world), begin, margin)


@outer
def run_lane(world: World, begin: int, margin: int) -> tuple[int, int]:
    """`run` of one stage and lane: compiled for these numbers, it takes two thirds of the time."""
    return _serve(ref(world), begin, margin)


@outer
def run_narrow(world: World, begin: int, margin: int) -> tuple[int, int]:
    """`run_lane` of one attention window."""
    return _serve(ref(world), begin, margin)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened: per request and in all.  Arrays as in `Work` and `Log`."""

    sent: F8
    start: F8
    first: F8
    finish: F8
    preempted: I4
    replica: I4
    gaps: F8  # [m, 4] first [s], slope [s/step], steps, weight; empty when not recorded
    hist: I8
    hist_lane: I8
    sums: F8  # [N, SUMS], see SUM_NAMES
    read: F8
    timeline: F8

    def total(self, name: str) -> float:
        """One of SUM_NAMES over all replicas."""
        return float(self.sums[:, SUM_NAMES.index(name)].sum())


def _state(n: int, g: int, l: int, rules: Rules, costs: Costs, blocks: int, size: int) -> State:
    cap, w = rules.max_seqs + 1, len(costs.windows)
    cross = cap if bool((costs.windows < FULL).any()) else 1
    i8 = np.int64
    sorted_cap = size if rules.order else 1
    return State(
        ready=np.zeros((n, g)), avail=np.zeros((n, g)), front=np.zeros((n, 3)), flying=np.zeros((n, g), i8),
        steps=np.zeros((n, g), i8), phase=np.zeros((n, g, 2), i8), decoding=np.zeros((n, g, l), i8), busy=np.zeros((n, g), i8),
        context=np.zeros((n, g, l, w), i8), growing=np.zeros((n, g, l, w), i8),
        heap_key=np.zeros((n, g, l, cap), i8), heap_req=np.zeros((n, g, l, cap), i8), heap_size=np.zeros((n, g, l), i8),
        cross_key=np.zeros((n, g, l, w, cross), i8), cross_req=np.zeros((n, g, l, w, cross), i8),
        cross_size=np.zeros((n, g, l, w), i8), residue=np.zeros((n, g, l, rules.block), i8),
        stack=np.zeros((n, g, l, 2 * cap), i8), stack_size=np.zeros((n, g, l), i8),
        fresh=np.zeros((n, g, l, 2, cap), i8), fresh_size=np.zeros((n, g, l, 2), i8), running=np.zeros((n, l), i8),
        partial=np.full((n, l), -1, i8), free=np.full((n, l), blocks, i8), head=np.full(n, -1, i8), tail=np.full(n, -1, i8),
        unsent=np.zeros(n, i8), sorted_key=np.zeros((n, sorted_cap), i8), sorted_req=np.zeros((n, sorted_cap), i8),
        sorted_size=np.zeros(n, i8), outstanding=np.zeros(n, i8), cohort=np.zeros((n, g, l * cap + 4, 2)),
        cohort_size=np.zeros((n, g), i8), tokens=np.zeros((n, l), i8), closed=np.zeros((n, l), i8), would=np.zeros((n, l), i8),
        attention=np.zeros((n, g, l)), decoded=np.zeros((n, g)),
        lines=np.zeros((n, l, 2)), line=np.zeros((n, g, g, 5)), group_plan=np.zeros((n, g, 6), i8), segment=np.zeros((n, g, 4)),
    )  # fmt: skip


def _work(size: int) -> Work:
    zero, never = np.zeros(size), np.full(size, np.nan)
    none = np.zeros(size, np.int32)
    return Work(
        sent=zero, seen=zero.copy(), start=np.full(size, -1.0), first=never, finish=never.copy(), made=none,
        computed=none.copy(), ends=np.full(size, NOT_DECODING, np.int32), preempted=none.copy(),
        next=np.full(size, NOBODY, np.int32), replica=none.copy(), group=np.zeros(size, np.int16), lane=np.zeros(size, np.int16),
    )  # fmt: skip


def _log(n: int, lanes: int, rows: int, tokens: int, windows: int) -> Log:
    return Log(
        gaps=np.empty((rows, 4)), counts=np.array([0, 0, 1, 0], np.int64), hist=np.zeros((n, 2, tokens), np.int64),
        hist_lane=np.zeros((n, 2, tokens if lanes > 1 else 1), np.int64), sums=np.zeros((n, len(SUM_NAMES))),
        read=np.zeros((n, 2, windows)), timeline=np.zeros((2048, 5)),
    )  # fmt: skip


def _cast(row: Any) -> Any:
    """The tuple with every field of the one type that the kernel is compiled for: another would compile it anew."""
    return type(row)(*(cast(value) for cast, value in zip(_casts(type(row)), row)))


@lru_cache
def _casts(kind: type) -> tuple[Callable[[Any], Any], ...]:
    return tuple(_CAST[hint] for hint in get_type_hints(kind).values())


_CAST: dict[Any, Callable[[Any], Any]] = {
    int: int,
    float: float,
    F8: partial(np.require, dtype=np.float64, requirements=("C", "A", "W")),
    I8: partial(np.require, dtype=np.int64, requirements=("C", "A", "W")),
}


def _check_tables(rules: Rules, costs: Costs, lanes: int, longest: int) -> None:
    """The largest step that the rules allow lies inside the tables: compiled code would read past them in silence."""
    uncut = rules.chunk == 0 and longest > rules.budget  # it goes alone, with the decodes where they mix
    alone = longest + rules.max_seqs * rules.mix if uncut else 0
    tokens = max(rules.budget, rules.max_seqs, alone)
    assert costs.lane.shape[2] > tokens, f"lane table ends before {tokens} tokens"
    assert costs.total.shape[2] > lanes * tokens, f"token table ends before {lanes} × {tokens} tokens"
    assert costs.sample.shape[1] > rules.max_seqs, "sample table ends before the largest batch"
    assert costs.decode.shape[2] > rules.max_seqs, "decode table ends before the largest batch"


def _version(world: World) -> tuple[Any, World]:
    """The compiled function that serves the world, and the world as this one takes it.

    `run` serves all shapes and is what a first search needs.  Nobody waits for a second compilation that does not pay.
    """
    if (world.stages, world.lanes) != (1, 1):
        return run, world
    narrow = world.windows == 1
    found = run_narrow if narrow else run_lane
    if not _pays(found, len(world.req.prompt)):
        return run, world
    return found, world._replace(stages=None, lanes=None, windows=None if narrow else world.windows)


def _pays(version: Any, size: int) -> bool:
    """Is the function's machine code at hand, or worth compiling for so many requests?"""
    file = f"kernel.{version.__name__}-*.code"
    if not isinstance(version, Dispatcher):  # plain Python
        return False
    return size >= MANY or bool(version.overloads) or cache.holds(file)


def simulate(requests: Requests, rules: Rules, host: Host, costs: Costs, blocks: int, *, replicas: int = 1, lanes: int = 1,
             route: int = 0, jump: bool = True, gaps: bool = True) -> Outcome:  # fmt: skip
    """Serve `requests` on `replicas` equal replicas and say what happened.

    blocks: KV blocks of one lane; route: 0 round robin, 1 least outstanding (open loop; a closed-loop user stays with
    its replica); jump: False steps through every decode step (same result, slower); gaps: record inter-token gaps.
    Every request must fit: prompt + output ≤ blocks · block.  Raises AssertionError where it does not.
    """
    requests, rules, host, costs = _cast(requests), _cast(rules), _cast(host), _cast(costs)
    blocks, replicas, lanes, route, jump = int(blocks), int(replicas), int(lanes), int(route), bool(jump)
    size, stages, windows = len(requests.prompt), costs.lane.shape[0], len(costs.windows)
    longest = int((requests.prompt + requests.output).max()) if size else 0
    assert longest <= blocks * rules.block, STATUS[STUCK]
    _check_tables(rules, costs, lanes, longest)
    state, work = _state(replicas, stages, lanes, rules, costs, blocks, size), _work(size)
    margin = state.cohort.shape[2] + rules.max_seqs * lanes + 64 * windows * max(lanes, 8) + 64
    margin += 2 * PATIENCE if stages > 1 else 0
    log = _log(replicas, lanes, 4 * size + 4 * margin if gaps else 0, costs.total.shape[2], windows)
    world = World(requests, work, state, rules, host, costs, log, blocks, replicas, stages, lanes, windows, route, jump)
    serve, world = _version(world)
    begin, status = -1, LOG_FULL
    while status == LOG_FULL:
        status, begin = serve(world, begin, margin)
        if status == LOG_FULL:
            log = log._replace(gaps=np.concatenate([log.gaps, np.empty_like(log.gaps)]))
            world = world._replace(log=log)
    assert status == OK, STATUS[status]
    return Outcome(
        work.sent, work.start, work.first, work.finish, work.preempted, work.replica, log.gaps[: log.counts[GAPS]], log.hist,
        log.hist_lane, log.sums, log.read, log.timeline[: log.counts[ROWS]],
    )  # fmt: skip
