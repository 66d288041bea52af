"""The event loop: replicas advance by steps and by runs of decode steps (floor E).

`simulate` is the only entry.  docs/mechanisms.md states the rules that this file follows; tests/naive.py is a slow,
independent twin written from that page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, get_type_hints

import numpy as np

from apexsim.engine.batch import HELD, NONE_VISIBLE, admit, settle
from apexsim.engine.gather import hold
from apexsim.engine.jit import inner, merged, outer
from apexsim.engine.leave import ahead, catch_up, grow, let_go
from apexsim.engine.pipeline import PATIENCE, glide
from apexsim.engine.queue import send, sight
from apexsim.engine.run import FOREVER, decode_run, one_step
from apexsim.engine.types import (
    F8,
    FCFS,
    FULL,
    I4,
    I8,
    LOG_FULL,
    OK,
    S_PREEMPT,
    STATUS,
    STUCK,
    SUM_NAMES,
    TIE,
    Costs,
    Host,
    Log,
    Requests,
    Rules,
    State,
    Work,
)  # fmt: skip

NOTHING, STARTED, AGAIN = 0, 1, 2  # what became of a group's try to start a step


@merged
def _busy(state: State, r: int, g: int) -> int:
    """Decoding sequences of a group."""
    n = 0
    for l in range(state.decoding.shape[2]):
        n += state.decoding[r, g, l]
    return n


@inner
def _halfway(state: State, r: int) -> bool:
    """Is a prompt partly computed?"""
    for l in range(state.partial.shape[1]):
        if state.partial[r, l] >= 0:
            return True
    return False


@merged
def _pick(work: Work, state: State, r: int) -> tuple[int, float]:
    """The group that can start a step first, and when; (−1, 0) when there is nothing to do."""
    best, when = np.int64(-1), 0.0
    halfway = _halfway(state, r) or state.sorted_size[r] > 0
    for g in range(state.ready.shape[1]):
        if state.flying[r, g] < 0:
            continue
        if state.flying[r, g] > 0 or _busy(state, r, g) > 0 or halfway:
            t = state.ready[r, g]
        elif state.head[r] >= 0:
            t = max(state.ready[r, g], work.seen[state.head[r]])
        else:
            continue
        t = max(t, state.avail[r, 0])
        if best < 0 or t < when or (t == when and state.ready[r, g] < state.ready[r, best]):
            best, when = g, t
    return best, when


@merged
def _settle_until(req: Requests, work: Work, state: State, rules: Rules, host: Host, costs: Costs, log: Log, r: int,
                  t0: float) -> bool:  # fmt: skip
    """Settle, in order of time, every step whose results are known by t0."""
    any_settled = False
    while True:
        g = np.int64(-1)
        for x in range(state.ready.shape[1]):
            if state.flying[r, x] > 0 and state.ready[r, x] <= t0 and (g < 0 or state.ready[r, x] < state.ready[r, g]):
                g = x
        if g < 0:
            return any_settled
        settle(req, work, state, rules, host, costs, log, r, g)
        any_settled = True


@inner
def _wait_for_blocks(state: State, r: int, g: int) -> bool:
    """Nothing could be scheduled: the group waits for the next results of another.  False when none can come."""
    state.flying[r, g] = -1
    for x in range(state.ready.shape[1]):
        if state.flying[r, x] > 0 or (state.flying[r, x] == 0 and _busy(state, r, x) > 0):
            return True
    return False


@inner
def _timeline(state: State, rules: Rules, log: Log, capacity: int, r: int, g: int, t0: float) -> None:
    """Keep an even sample of the batch: when the table is full, every second row goes."""
    log.counts[3] += 1
    if log.counts[3] < log.counts[2]:
        return
    log.counts[3] = 0
    n = log.counts[1]
    if n == log.timeline.shape[0]:
        for x in range(n // 2):
            for y in range(5):
                log.timeline[x, y] = log.timeline[2 * x, y]
        n //= 2
        log.counts[2] *= 2
    used = prompts = 0
    for l in range(state.free.shape[1]):
        used += capacity - state.free[r, l]
        prompts += state.tokens[r, l]
    log.timeline[n, 0], log.timeline[n, 1], log.timeline[n, 2] = t0, r, _busy(state, r, g)
    log.timeline[n, 3], log.timeline[n, 4] = used, prompts
    log.counts[1] = n + 1


@merged
def _schedule(req: Requests, work: Work, state: State, rules: Rules, costs: Costs, log: Log, capacity: int, r: int, g: int,
              t0: float, halt: float, jump: bool) -> int:  # fmt: skip
    """Form the group's next step at t0 and run it: STARTED, NOTHING, or AGAIN when a second try may find more."""
    d = _busy(state, r, g)
    idle, early, gone = d == 0 and not _halfway(state, r), ahead(rules.lag, state.ready.shape[1]), False
    if early and idle and t0 > state.ready[r, g]:
        catch_up(req, work, state, rules, r, t0)
    if idle:
        state.phase[r, g, 0] = 0
    if state.phase[r, g, 0] == 0:
        state.front[r, 1] = max(state.front[r, 1], state.front[r, 2] - TIE) if early else sight(rules, t0, idle)
    limit = state.front[r, 1]
    lanes = state.tokens.shape[1]
    decodes, thrown = d > 0, log.sums[r, S_PREEMPT]
    may_start = True
    if rules.mix == 1 and decodes:
        for l in range(lanes):
            may_start = not grow(req, work, state, rules, costs, log, r, g, l) and may_start
    held, until = 0, -1
    if rules.wait > 0 and may_start and decodes:
        held, until = hold(req, work, state, rules, r, g, limit)
        may_start = held <= 0
    why = admit(req, work, state, rules, costs, log, r, g, t0, limit, rules.mix == 1 and decodes, may_start)
    prompts = 0
    for l in range(lanes):
        prompts += state.tokens[r, l]
    if rules.mix == 0 and decodes:
        decodes = prompts == 0
        if decodes:
            for l in range(lanes):
                if grow(req, work, state, rules, costs, log, r, g, l):
                    why, held = HELD, min(held, 1)
    if prompts == 0 and _busy(state, r, g) == 0:
        if early and state.front[r, 2] < t0:
            catch_up(req, work, state, rules, r, t0)
            return AGAIN
        return AGAIN if log.sums[r, S_PREEMPT] > thrown else NOTHING
    if early:
        gone = let_go(req, work, state, rules, r)
    _timeline(state, rules, log, capacity, r, g, t0)
    if prompts > 0 or state.ready.shape[1] > 1 or not jump:
        one_step(state, rules, costs, log, r, g, t0, decodes and _busy(state, r, g) > 0)
        if prompts > 0:
            state.phase[r, g, 1] = 0
        elif held > 0:
            state.phase[r, g, 1] += 1
        return STARTED
    most, cut = FOREVER, 1e300
    if held != 0:
        most = abs(held)
    elif why == HELD:
        most = 1
    elif (why == NONE_VISIBLE or rules.order != FCFS) and state.head[r] >= 0:
        until = state.head[r]
    if rules.poll > 1 and why != NONE_VISIBLE:
        most = min(most, rules.poll - state.phase[r, g, 0])  # to the next look: what it reads is remembered
    if gone and (held != 0 or why != NONE_VISIBLE or _halfway(state, r)):
        most = 1  # there is more room for the next step
    if until >= 0:
        cut = work.seen[until] + (-TIE if rules.lag == 0 else TIE)
    before = state.steps[r, g]
    decode_run(state, rules, costs, log, r, g, t0, most, cut, halt)
    if held > 0:
        state.phase[r, g, 1] += state.steps[r, g] - before
    return STARTED


@merged
def advance(req: Requests, work: Work, state: State, rules: Rules, host: Host, costs: Costs, log: Log, capacity: int,
            r: int, until: float, jump: bool, margin: int) -> int:  # fmt: skip
    """Advance replica r until its next step would see what arrives at `until`."""
    halt = until - TIE
    while True:
        g, t0 = _pick(work, state, r)
        if log.gaps.shape[0] > 0 and log.counts[0] + margin > log.gaps.shape[0]:
            return LOG_FULL
        if _settle_until(req, work, state, rules, host, costs, log, r, min(t0, until)):
            continue
        if g < 0 or t0 >= halt:
            return OK
        several = jump and state.ready.shape[1] > 1
        if several and glide(req, work, state, rules, costs, log, r, t0, halt) > 0:
            continue
        done = _schedule(req, work, state, rules, costs, log, capacity, r, g, t0, halt, jump)
        if done == NOTHING and not _wait_for_blocks(state, r, g):
            return STUCK


@inner
def _route(state: State) -> int:
    """The replica with the fewest outstanding requests (lowest number wins ties)."""
    best = 0
    for r in range(1, state.outstanding.shape[0]):
        if state.outstanding[r] < state.outstanding[best]:
            best = r
    return best


@inner
def start_closed(req: Requests, work: Work, state: State, host: Host) -> None:
    """Closed loop: user u belongs to replica u mod N and sends at 0; request i belongs to replica i mod N.

    With fewer users than replicas, N is the number of users: the other replicas stay empty.
    """
    n = min(state.ready.shape[0], req.users)
    size = req.prompt.shape[0]
    for r in range(n):
        users = req.users // n + (1 if r < req.users % n else 0)
        i = r
        for _u in range(users):
            if i < size:
                send(req, work, state, host, r, i, 0.0)
                i += n
        state.unsent[r] = i


@outer
def run(req: Requests, work: Work, state: State, rules: Rules, host: Host, costs: Costs, log: Log, capacity: int,
        begin: int, route: int, jump: bool, margin: int) -> tuple[int, int]:  # fmt: skip
    """Serve everything.  `begin`: the first request not yet sent (resumes after LOG_FULL).  Returns (status, begin)."""
    n, size = state.ready.shape[0], req.prompt.shape[0]
    routed = req.users == 0 and route == 1 and n > 1
    if begin == 0 and req.users > 0:
        start_closed(req, work, state, host)
    elif begin == 0 and not routed:
        for i in range(size):
            send(req, work, state, host, i % n, i, req.arrive[i])
    if not routed:
        begin = size
    while True:
        until = req.arrive[begin] if begin < size else 1e300
        for r in range(n):
            status = advance(req, work, state, rules, host, costs, log, capacity, r, until, jump, margin)
            if status != OK:
                return status, begin
        if begin >= size:
            for r in range(n):
                let_go(req, work, state, rules, r)
            return OK, begin
        send(req, work, state, host, _route(state), begin, until)
        begin += 1


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
        steps=np.zeros((n, g), i8), phase=np.zeros((n, g, 2), i8), decoding=np.zeros((n, g, l), i8),
        context=np.zeros((n, g, l, w), i8), growing=np.zeros((n, g, l, w), i8),
        heap_key=np.zeros((n, g, l, cap), i8), heap_req=np.zeros((n, g, l, cap), i8), heap_size=np.zeros((n, g, l), i8),
        cross_key=np.zeros((n, g, l, w, cross), i8), cross_req=np.zeros((n, g, l, w, cross), i8),
        cross_size=np.zeros((n, g, l, w), i8), residue=np.zeros((n, g, l, rules.block), i8),
        stack=np.zeros((n, g, l, 2 * cap), i8), stack_size=np.zeros((n, g, l), i8),
        fresh=np.zeros((n, g, l, 2, cap), i8), fresh_size=np.zeros((n, g, l, 2), i8), running=np.zeros((n, l), i8),
        partial=np.full((n, l), -1, i8), free=np.full((n, l), blocks, i8), head=np.full(n, -1, i8), tail=np.full(n, -1, i8),
        unsent=np.zeros(n, i8), sorted_key=np.zeros((n, sorted_cap), i8), sorted_req=np.zeros((n, sorted_cap), i8),
        sorted_size=np.zeros(n, i8), outstanding=np.zeros(n, i8), cohort=np.zeros((n, g, l * cap + 4, 2)),
        cohort_size=np.zeros((n, g), i8), tokens=np.zeros((n, l), i8), closed=np.zeros((n, l), i8),
        attention=np.zeros((n, g, l)), decoded=np.zeros((n, g)),
        line=np.zeros((n, g, g, 5)), group_plan=np.zeros((n, g, 6), i8), segment=np.zeros((n, g, 4)),
    )  # fmt: skip


def _work(size: int) -> Work:
    f = [np.full(size, v) for v in (0.0, 0.0, -1.0, np.nan, np.nan, 0.0)]
    i = [np.full(size, v, np.int32) for v in (0, 0, 0, 0, -1, 0, 0, 0, 0, -1)]
    return Work(*f, *i)


def _log(n: int, lanes: int, rows: int, tokens: int, windows: int) -> Log:
    return Log(
        gaps=np.zeros((rows, 4)), counts=np.array([0, 0, 1, 0], np.int64), hist=np.zeros((n, 2, tokens), np.int64),
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
    state = _state(replicas, stages, lanes, rules, costs, blocks, size)
    work = _work(size)
    margin = state.cohort.shape[2] + rules.max_seqs * lanes + 64 * windows * max(lanes, 8) + 64
    margin += 2 * PATIENCE if stages > 1 else 0
    log = _log(replicas, lanes, 4 * size + 4 * margin if gaps else 0, costs.total.shape[2], windows)
    begin, status = 0, LOG_FULL
    while status == LOG_FULL:
        status, begin = run(requests, work, state, rules, host, costs, log, blocks, begin, route, jump, margin)
        if status == LOG_FULL:
            log = log._replace(gaps=np.concatenate([log.gaps, np.zeros_like(log.gaps)]))
    assert status == OK, STATUS[status]
    return Outcome(
        work.sent, work.start, work.first, work.finish, work.preempted, work.replica, log.gaps[: log.counts[0]], log.hist,
        log.hist_lane, log.sums, log.read, log.timeline[: log.counts[1]],
    )  # fmt: skip
