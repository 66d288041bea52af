"""Serving a workload in two pools: the entry of `pools` (floor E)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from apexsim.engine.kernel import Outcome, heirs, joins_of, outcome_of, requests_as_cast, roomier, undrafted, world_of
from apexsim.engine.pools import COMES, Between, run_pools
from apexsim.engine.types import (
    FULL,
    I4,
    I8,
    IN_TURN,
    INFINITY,
    LOCAL,
    LOG_FULL,
    NO_DRAFTS,
    NO_OFFLOAD,
    NO_REUSE,
    NOBODY,
    OK,
    STATUS,
    Costs,
    Drafts,
    Host,
    Offload,
    Requests,
    Route,
    Rules,
    World,
    hand_of,
)  # fmt: skip

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PoolSide:
    """One pool: equal replicas of one plan.  blocks: KV blocks of one lane; route, drafts, offload: as in `simulate`.  Prompts have no
    drafts."""

    rules: Rules
    host: Host
    costs: Costs
    blocks: int
    replicas: int = 1
    lanes: int = 1
    route: Route = IN_TURN
    drafts: Drafts = NO_DRAFTS
    offload: Offload = NO_OFFLOAD


@dataclass(frozen=True, slots=True)
class Crossing:
    """How requests go from the prefill pool to the decode pool.

    first: a place at decode is booked before the prompt is computed, else after it; slots: of places of a decode lane; seated: a place
    needs a free seat of the batch when it is booked; recompute: the first token is made at decode; again: tokens of the prompt are computed
    at decode by who was thrown out there; hop_s: [s] between booking and prefill, or prefill and booking; latency_s, token_s, fixed_s: of a
    transfer [s], [s per token of the prompt], [s] on the wire; parallel: transfers to a lane overlap in all but the wire; lag: results of a
    prefill step go out when the step that follows it at once has ended.

    A prompt of which decode has fewer than `near` tokens to compute, and less than `share` of it, is computed there, and every one while
    its prefill server has more than `busy` prompt tokens to compute.
    """

    first: bool
    slots: int = FULL
    seated: bool = False
    recompute: bool = False
    again: bool = True
    hop_s: float = 0.0
    latency_s: float = 0.0
    token_s: float = 0.0
    fixed_s: float = 0.0
    parallel: bool = True
    lag: bool = False
    near: int = 0
    share: float = INFINITY
    busy: float = INFINITY


@dataclass(frozen=True, slots=True)
class Both:
    """What happened in each pool, and to the requests as their clients see them: the first token goes out from the decode pool.

    local: [R] whether the prompt was computed at decode; `whole.hit` and `whole.loaded` are of the pool that computed
    it.  Where decode finds prefixes, `decode.hit` is what needed not be sent.
    """

    prefill: Outcome
    decode: Outcome
    whole: Outcome
    local: Flags


def simulate_apart(
    requests: Requests, prefill: PoolSide, decode: PoolSide, crossing: Crossing, *, jump: bool = True, gaps: bool = True
) -> Both:
    """Serve `requests` in both pools and say what happened; every request must fit into a lane of each.

    Prefixes that they share are found again in a pool whose rules reuse blocks.  A decode pool finds them only where who is thrown out
    there is computed again: else what was sent is given, not found.
    """
    asked = requests_as_cast(requests)
    size = len(asked.prompt)
    p, d, margin = _worlds(asked, prefill, decode, crossing, jump, gaps)
    line = _line(asked, p, d, crossing)
    status = LOG_FULL
    while status == LOG_FULL:
        status = run_pools(p, d, line, margin)
        d = roomier(d) if status == LOG_FULL else d
    assert status == OK, STATUS[status]
    a, b = outcome_of(p), outcome_of(d)
    assert not size or np.isfinite(b.finish).all()
    local = d.hand.stage == LOCAL
    start, hit, loaded = np.where(local, b.start, a.start), _where(local, b.hit, a.hit), _where(local, b.loaded, a.loaded)
    return Both(a, b, replace(b, start=start, preempted=a.preempted + b.preempted, hit=hit, loaded=loaded), local)


def _where(local: Flags, there: I4, here: I4) -> I4:
    """Of each request what the pool that computed its prompt says, 0 where that says nothing; empty where neither does."""
    if not len(there) + len(here):
        return here
    return np.where(local, there if len(there) else 0, here if len(here) else 0).astype(np.int32)


def _worlds(asked: Requests, prefill: PoolSide, decode: PoolSide, crossing: Crossing, jump: bool, gaps: bool) -> tuple[World, World, int]:
    """Both pools before the first request is sent, and the gaps that one call of the engine may write."""
    assert crossing.again or decode.rules.reuse == NO_REUSE or not len(asked.chain), "what comes back from the host is not found"
    none = np.zeros(len(asked.prompt))
    bare = Requests(none, asked.prompt, np.ones_like(asked.output), after=asked.after, delay=asked.delay)
    shared = {"chain": asked.chain, "chain_at": asked.chain_at, "reach": asked.reach, "unit": asked.unit}
    known = np.zeros_like(asked.prompt) if crossing.again else asked.prompt - 1
    before, after = (bare._replace(**shared if side.rules.reuse != NO_REUSE else {}) for side in (prefill, decode))
    p, _ = world_of(
        before,
        *_parts(prefill),
        replicas=prefill.replicas,
        lanes=prefill.lanes,
        route=prefill.route,
        jump=jump,
        gaps=False,
        offload=prefill.offload,
    )
    d, margin = world_of(
        after._replace(output=asked.output, cached=known),
        *_parts(decode),
        replicas=decode.replicas,
        lanes=decode.lanes,
        route=decode.route,
        jump=jump,
        gaps=gaps,
        drafts=decode.drafts,
        offload=decode.offload,
    )
    d.work.computed[:] = asked.prompt - int(crossing.recompute)
    d.work.made[:] = int(not crossing.recompute)
    stage = np.full(len(asked.prompt), COMES, np.int64)
    p, d = _linked(p, stage, FULL, False, True), _linked(d, stage, crossing.slots, crossing.seated, False)
    if p.plain == d.plain == 1 and d.drafts is NO_DRAFTS:  # known when the engine is compiled
        return undrafted(p)._replace(plain=None), undrafted(d)._replace(plain=None), margin
    return undrafted(p), d, margin


def _parts(side: PoolSide) -> tuple[Rules, Host, Costs, int]:
    return side.rules, side.host, side.costs, side.blocks


def _linked(world: World, stage: I8, slots: int, seated: bool, keeps: bool) -> World:
    """A world as one of several pools."""
    size = len(stage)
    hand = hand_of(world.replicas, world.lanes, size, int(slots), int(seated), int(keeps))._replace(stage=stage)
    work = world.work._replace(due=np.zeros(size + 1), due_req=np.zeros(size + 1, np.int64))
    return world._replace(work=work, hand=hand, alone=0)


def _line(asked: Requests, p: World, d: World, crossing: Crossing) -> Between:
    """The line with every request on its way that comes by itself, in order of arrival."""
    size = len(asked.prompt)
    heir, sibling = heirs(asked)
    alone = asked.after < 0 if len(asked.after) else np.ones(size, np.bool_)
    own: I8 = np.arange(min(asked.users, size)) if asked.users else np.flatnonzero(alone)
    due, due_req = np.zeros(size + 1), np.zeros(size + 1, np.int64)
    due_req[: len(own)] = own
    due[: len(own)] = 0.0 if asked.users else asked.arrive[own]
    return Between(
        asked,
        heir,
        sibling,
        *joins_of(asked),
        due,
        due_req,
        np.array([len(own), len(own) if asked.users else size, 0], np.int64),
        np.zeros((d.replicas, d.lanes)),
        np.full(p.replicas, NOBODY, np.int64),
        np.zeros(p.replicas),
        np.zeros(p.replicas),
        float(crossing.hop_s),
        float(crossing.latency_s),
        float(crossing.token_s),
        float(crossing.fixed_s),
        int(crossing.first),
        int(crossing.parallel),
        int(crossing.lag),
        np.zeros(p.replicas, np.int64),
        int(crossing.near),
        float(crossing.share),
        float(crossing.busy),
    )
