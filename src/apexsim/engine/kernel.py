"""Serving a workload: the entry of the engine (floor E).

`simulate` is the only one: it lays out the arrays, `run` serves every request with them, `Outcome` says what happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, NamedTuple, get_type_hints

import numpy as np

from apexsim.engine import cache
from apexsim.engine.jit import Outer, outer
from apexsim.engine.pipeline import PATIENCE
from apexsim.engine.policies import ASKING
from apexsim.engine.route import serve
from apexsim.engine.types import (
    ADMIT_RESERVE,
    F8,
    FULL,
    GAPS,
    I4,
    I8,
    IN_TURN,
    LOG_FULL,
    NO_DRAFTS,
    NO_OFFLOAD,
    NO_POOL,
    NO_REUSE,
    NOBODY,
    NONE,
    NOT_DECODING,
    OK,
    ROWS,
    STATUS,
    STUCK,
    SUM_NAMES,
    TICKS,
    Costs,
    Drafts,
    Host,
    Log,
    Offload,
    Requests,
    Route,
    Rules,
    State,
    Work,
    World,
    pool_of,
    signals_of,
    tiers_of,
)  # fmt: skip

MANY = 100_000  # requests of one workload from which a second compilation is worth while


@outer
def run(world: World, begin: int, margin: int) -> tuple[int, int]:
    """Serve everything.  `begin`: 0, or the first request not yet sent, to go on after LOG_FULL.  Returns (status, begin)."""
    return serve(world, begin, margin)


@outer
def run_lane(world: World, begin: int, margin: int) -> tuple[int, int]:
    """`run` of one stage and lane: compiled for these numbers, it takes two thirds of the time."""
    return serve(world, begin, margin)


@outer
def run_narrow(world: World, begin: int, margin: int) -> tuple[int, int]:
    """`run_lane` of one attention window."""
    return serve(world, begin, margin)


@outer
def run_reuse(world: World, begin: int, margin: int) -> tuple[int, int]:
    """`run` where prompts share prefixes."""
    return serve(world, begin, margin)


@outer
def run_drafts(world: World, begin: int, margin: int) -> tuple[int, int]:
    """`run` where decode steps make more than one token of a sequence."""
    return serve(world, begin, margin)


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
    hit: I4 = field(
        default_factory=lambda: NO_POOL.first_hit
    )  # [R] tokens of the prompt found in the cache when it first started; empty where no two share a prefix
    loaded: I4 = field(default_factory=lambda: NO_POOL.first_hit)  # [R] of them, those loaded from tiers; empty without

    def total(self, name: str) -> float:
        """One of SUM_NAMES over all replicas."""
        return float(self.sums[:, SUM_NAMES.index(name)].sum())


def _state(n: int, g: int, l: int, rules: Rules, costs: Costs, blocks: int, size: int) -> State:
    cap, w = rules.max_seqs + 1, len(costs.windows)
    cross = cap if bool((costs.windows < FULL).any()) else 1
    i8 = np.int64
    sorted_cap = size if rules.order else 1
    return State(
        ready=np.zeros((n, g)),
        avail=np.zeros((n, g)),
        front=np.zeros((n, 3)),
        flying=np.zeros((n, g), i8),
        clock=np.zeros((n, g), i8),
        phase=np.zeros((n, g, 2), i8),
        decoding=np.zeros((n, g, l), i8),
        busy=np.zeros((n, g), i8),
        context=np.zeros((n, g, l, w), i8),
        growing=np.zeros((n, g, l, w), i8),
        heap_key=np.zeros((n, g, l, cap), i8),
        heap_req=np.zeros((n, g, l, cap), i8),
        heap_size=np.zeros((n, g, l), i8),
        cross_key=np.zeros((n, g, l, w, cross), i8),
        cross_req=np.zeros((n, g, l, w, cross), i8),
        cross_size=np.zeros((n, g, l, w), i8),
        residue=np.zeros((n, g, l, rules.block), i8),
        stack=np.zeros((n, g, l, 2 * cap), i8),
        stack_size=np.zeros((n, g, l), i8),
        fresh=np.zeros((n, g, l, 2, cap), i8),
        fresh_size=np.zeros((n, g, l, 2), i8),
        running=np.zeros((n, l), i8),
        partial=np.full((n, l), -1, i8),
        free=np.full((n, l), blocks, i8),
        queue=np.tile(np.array([0, 0, blocks, blocks], i8), (n, l, 1)),
        holes=np.zeros((n, l, cap + 1, 2), i8),
        holes_size=np.zeros((n, l), i8),
        head=np.full(n, -1, i8),
        tail=np.full(n, -1, i8),
        unsent=np.zeros(n, i8),
        sorted_key=np.zeros((n, sorted_cap), i8),
        sorted_req=np.zeros((n, sorted_cap), i8),
        sorted_size=np.zeros(n, i8),
        outstanding=np.zeros(n, i8),
        cohort=np.zeros((n, g, l * cap + 4, 2)),
        cohort_size=np.zeros((n, g), i8),
        tokens=np.zeros((n, l), i8),
        closed=np.zeros((n, l), i8),
        would=np.zeros((n, l), i8),
        needs=np.zeros((n, l), i8),
        attention=np.zeros((n, g, l)),
        decoded=np.zeros((n, g)),
        lines=np.zeros((n, l, 2)),
        line=np.zeros((n, g, g, 5)),
        group_plan=np.zeros((n, g, 6), i8),
        segment=np.zeros((n, g, 4)),
    )


def _work(requests: Requests) -> Work:
    size = len(requests.prompt)
    zero, never = np.zeros(size), np.full(size, np.nan)
    none = np.zeros(size, np.int32)
    heir, siblings = heirs(requests)
    joins_at, lacks, ready = joins_of(requests)
    waiting = max(1, int((requests.after >= 0).sum()), min(requests.users, size))
    return Work(
        sent=zero,
        seen=zero.copy(),
        start=np.full(size, -1.0),
        first=never,
        finish=never.copy(),
        made=none,
        computed=requests.cached.astype(np.int32),
        ends=np.full(size, NOT_DECODING, np.int32),
        preempted=none.copy(),
        left=none.copy(),
        left_at=np.zeros(size, np.int64),
        target=none.copy(),
        next=siblings,
        replica=none.copy(),
        group=np.zeros(size, np.int16),
        lane=np.zeros(size, np.int16),
        heir=heir,
        joins_at=joins_at,
        lacks=lacks,
        ready=ready,
        due=np.zeros(waiting),
        due_req=np.zeros(waiting, np.int64),
        due_size=np.zeros(1, np.int64),
        opened=np.zeros(1, np.int64),
        begun=np.zeros(1),
    )


def joins_of(requests: Requests) -> tuple[I8, I4, F8]:
    """Work.joins_at, lacks and ready before the first request is sent; empty where nobody waits for several."""
    size = len(requests.prompt)
    if not len(requests.join):
        return NONE, np.zeros(0, np.int32), np.zeros(0)
    lacks = (requests.after >= 0) + np.bincount(requests.join, minlength=size)
    return np.searchsorted(requests.join_after, np.arange(size + 1)), lacks.astype(np.int32), np.zeros(size)


def heirs(requests: Requests) -> tuple[I4, I4]:
    """Of each request the first that waits for it, and of each that waits the next one that waits for the same; NOBODY for none."""
    heir, siblings = (np.full(len(requests.prompt), NOBODY, np.int32) for _ in range(2))
    if not len(requests.after):
        return heir[:0], siblings
    waiting = np.flatnonzero(requests.after >= 0)
    waiting = waiting[np.argsort(requests.after[waiting], kind="stable")]
    before = requests.after[waiting]
    same = before[1:] == before[:-1]
    siblings[waiting[:-1][same]] = waiting[1:][same]
    heir[before[::-1]] = waiting[::-1]  # of several, the first stays
    return heir, siblings


NOTED = 2048  # batches of a run that are kept: of more every second goes, and so on


def _log(n: int, lanes: int, rows: int, tokens: int, windows: int, noted: int) -> Log:
    return Log(
        gaps=np.empty((rows, 4)),
        counts=np.array([0, 0, 1, 0], np.int64),
        hist=np.zeros((n, 2, tokens), np.int64),
        hist_lane=np.zeros((n, 2, tokens if lanes > 1 else 1), np.int64),
        sums=np.zeros((n, len(SUM_NAMES))),
        read=np.zeros((n, 2, windows)),
        timeline=np.zeros((noted, 5)),
    )


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


def requests_as_cast(requests: Requests) -> Requests:
    """The requests with the columns that may be left out; what cannot be served is refused."""
    size = len(requests.prompt)
    requests = _cast(requests._replace(cached=requests.cached if len(requests.cached) else np.zeros(size, np.int64)))
    assert ((requests.cached >= 0) & (requests.cached < requests.prompt)).all(), "a request has at least one token to compute"
    if len(requests.after):
        assert not requests.users, "users of a closed loop wait for their own requests only"
        assert len(requests.delay) == size and (requests.delay >= 0.0).all(), "each request waits for 0 s or more"
        assert ((requests.after >= NOBODY) & (requests.after < np.arange(size))).all(), "a request waits for one that stands before it"
    if len(requests.join):
        _check_joins(requests)
    if len(requests.chain):
        _check_chains(requests)
    if len(requests.stage):
        edges = np.concatenate(([0], requests.stage, [size]))
        assert not requests.users and not len(requests.after), "stages are those of an open loop in which nobody waits for another"
        assert (np.diff(edges) > 0).all(), "each stage has requests"
    return requests


def _check_joins(requests: Requests) -> None:
    """Who waits for several names one of them as `after`, and all of them stand before it."""
    size = len(requests.prompt)
    assert len(requests.after) == size and len(requests.join) == len(requests.join_after) == len(requests.join_delay), "joins lack a part"
    assert (np.diff(requests.join_after) >= 0).all() and (requests.join_delay >= 0.0).all(), "joins are out of order"
    assert ((requests.join_after >= 0) & (requests.join_after < requests.join) & (requests.join < size)).all(), "a join names nobody before"
    assert (requests.after[requests.join] >= 0).all(), "who waits for several waits for one"


def _check_chains(requests: Requests) -> None:
    """Compiled code would read behind their end in silence."""
    size, end = len(requests.prompt), np.append(requests.chain_at[1:], len(requests.chain))
    assert len(requests.chain_at) == len(requests.reach) == size and requests.unit > 0, "each request has a chain"
    assert ((requests.reach >= 0) & (requests.reach <= (end - requests.chain_at) * requests.unit)).all(), "a chain ends before its reach"
    assert requests.chain.min() >= 0 and requests.chain_at[0] == 0 and (end >= requests.chain_at).all(), "chains are out of order"
    assert not requests.cached.any(), "what is cached is found, or given, not both"


def _check_tables(rules: Rules, drafts: Drafts, costs: Costs, lanes: int, longest: int) -> None:
    """The largest step that the rules allow lies inside the tables: compiled code would read past them in silence."""
    uncut = rules.chunk == 0 and longest > rules.budget  # it goes alone, with the decodes where they mix
    decodes = rules.max_seqs * int(drafts.width.max())
    alone = longest + decodes * rules.mix if uncut else 0
    tokens = max(rules.budget, decodes, alone)
    assert costs.lane.shape[2] > tokens, f"lane table ends before {tokens} tokens"
    assert costs.total.shape[2] > lanes * tokens, f"token table ends before {lanes} × {tokens} tokens"
    assert costs.sample.shape[1] > rules.max_seqs, "sample table ends before the largest batch"
    assert costs.decode.shape[2] > rules.max_seqs, "decode table ends before the largest batch"


def _check_drafts(rules: Rules, drafts: Drafts, lanes: int) -> None:
    """Each step makes a token at least, and no more than it holds, of as many sequences as may decode."""
    if drafts is NO_DRAFTS:
        return
    assert len(drafts.gain) == len(drafts.width) > rules.max_seqs * lanes, "drafts are known for fewer sequences than may decode"
    assert ((drafts.gain >= TICKS) & (drafts.gain <= drafts.width * TICKS)).all(), "a step makes 1 to `width` tokens of a sequence"
    assert rules.look == 0 or (rules.look > 0 and rules.admission != ADMIT_RESERVE), "what is reserved needs no room behind"


def slack(rules: Rules, drafts: Drafts) -> int:
    """Tokens beside prompt and output that a request needs room for: behind its own, and those of its last step beyond its end."""
    return rules.look + (-(-int(drafts.gain.max()) // TICKS) - 1 if drafts is not NO_DRAFTS else 0)


def undrafted(world: World) -> World:
    """The world where it is known when the engine is compiled that a step makes one token; plain Python takes the number."""
    return world._replace(ticks=None) if isinstance(run, Outer) else world


def _version(world: World) -> tuple[Any, World]:
    """The compiled function that serves the world, and the world as this one takes it.

    `run` serves all shapes and is what a first search needs.  Nobody waits for a second compilation that does not pay.
    """
    if not isinstance(run, Outer):  # plain Python
        return run, world
    if world.ticks != 1:
        return run_drafts, world
    world = undrafted(world)
    if world.plain == 0:
        return run_reuse, world
    world = world._replace(plain=None)
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
    return size >= MANY or bool(version.loaded) or cache.holds(file)


class Made(NamedTuple):
    """A world, and the gaps [rows of the log] that one call of the engine may write without asking."""

    world: World
    margin: int


def world_of(
    requests: Requests,
    rules: Rules,
    host: Host,
    costs: Costs,
    blocks: int,
    *,
    replicas: int = 1,
    lanes: int = 1,
    route: Route = IN_TURN,
    jump: bool = True,
    gaps: bool = True,
    drafts: Drafts = NO_DRAFTS,
    offload: Offload = NO_OFFLOAD,
    noted: int = NOTED,
) -> Made:
    """All that serves `requests` on `replicas` equal replicas, before the first is sent; arguments as in `simulate`."""
    requests, rules, host, costs = requests_as_cast(requests), _cast(rules), _cast(host), _cast(costs)
    route, blocks, replicas, lanes, jump = _cast(route), int(blocks), int(replicas), int(lanes), bool(jump)
    size, stages, windows = len(requests.prompt), costs.lane.shape[0], len(costs.windows)
    longest = int((requests.prompt + requests.output).max()) if size else 0
    drafts = drafts if drafts is NO_DRAFTS else _cast(drafts)
    _check_drafts(rules, drafts, lanes)
    assert longest + slack(rules, drafts) <= blocks * rules.block, STATUS[STUCK]
    _check_tables(rules, drafts, costs, lanes, longest)
    state, work = _state(replicas, stages, lanes, rules, costs, blocks, size), _work(requests)
    margin = state.cohort.shape[2] + rules.max_seqs * lanes + 64 * windows * max(lanes, 8) + 64
    margin += 2 * PATIENCE if stages > 1 else 0
    log = _log(replicas, lanes, 4 * size + 4 * margin if gaps else 0, costs.total.shape[2], windows, noted)
    reuse = rules.reuse != NO_REUSE and len(requests.chain) > 0
    pool = pool_of(replicas, lanes, blocks, size) if reuse else NO_POOL
    tiers = tiers_of(_cast(offload) if reuse else NO_OFFLOAD, replicas, lanes, size)
    signals = signals_of(replicas, size if route.kind in ASKING else 0)
    alone, ticks = int(not reuse), TICKS if drafts is not NO_DRAFTS else 1
    world = World(
        requests, work, state, rules, host, costs, log, blocks, replicas, stages, lanes, windows, route, signals, jump, pool, tiers, alone,
        drafts=drafts, ticks=ticks,
    )  # fmt: skip
    return Made(world, margin)


def roomier(world: World) -> World:
    """The same with a gap log of twice the size."""
    return world._replace(log=world.log._replace(gaps=np.concatenate([world.log.gaps, np.empty_like(world.log.gaps)])))


def outcome_of(world: World) -> Outcome:
    """What has happened in a world."""
    work, log = world.work, world.log
    return Outcome(
        work.sent, work.start, work.first, work.finish, work.preempted, work.replica, log.gaps[: log.counts[GAPS]], log.hist,
        log.hist_lane, log.sums, log.read, log.timeline[: log.counts[ROWS]], world.pool.first_hit,
        world.tiers.loaded,
    )  # fmt: skip


def simulate(
    requests: Requests,
    rules: Rules,
    host: Host,
    costs: Costs,
    blocks: int,
    *,
    replicas: int = 1,
    lanes: int = 1,
    route: Route = IN_TURN,
    jump: bool = True,
    gaps: bool = True,
    drafts: Drafts = NO_DRAFTS,
    offload: Offload = NO_OFFLOAD,
    noted: int = NOTED,
) -> Outcome:
    """Serve `requests` on `replicas` equal replicas and say what happened.

    blocks: KV blocks of one lane; route: where requests go;
    jump: False steps through every decode step (same result, slower); gaps: record inter-token gaps.
    drafts: what decode steps make of a sequence where that is more than one token; offload: tiers behind the KV blocks of each lane;
    noted: rows of the timeline, an even number.
    Every request must fit: prompt + output ≤ blocks · block (see `slack`).  Raises AssertionError where it does not.
    """
    made = world_of(requests, rules, host, costs, blocks, replicas=replicas, lanes=lanes, route=route, jump=jump, gaps=gaps, drafts=drafts,
                    offload=offload, noted=noted)  # fmt: skip
    serve, world = _version(made.world)
    begin, status = 0, LOG_FULL
    while status == LOG_FULL:
        status, begin = serve(world, begin, made.margin)
        if status == LOG_FULL:
            world = roomier(world)
    assert status == OK, STATUS[status]
    return outcome_of(world)
