"""Random small worlds for the laws: requests, rules, costs and a replica shape that fit together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import naive
import toy_costs as toy
from apexsim.engine import kernel
from apexsim.engine.types import (
    ADMIT_CHUNK,
    ADMIT_RESERVE,
    FULL,
    IN_TURN,
    INFINITY,
    NO_DRAFTS,
    NO_OFFLOAD,
    OK,
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
    signals_of,
)
from apexsim.engine.types import World as Inside

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class World:
    """Everything that `simulate` needs."""

    requests: Requests
    rules: Rules
    host: Host
    costs: Costs
    blocks: int
    replicas: int = 1
    lanes: int = 1
    route: Route = IN_TURN
    drafts: Drafts = NO_DRAFTS
    offload: Offload = NO_OFFLOAD

    def run(self, jump: bool = True) -> kernel.Outcome:
        """What the engine says."""
        return kernel.simulate(self.requests, self.rules, self.host, self.costs, self.blocks, replicas=self.replicas,
                               lanes=self.lanes, route=self.route, jump=jump, drafts=self.drafts, offload=self.offload)  # fmt: skip

    def twin(self) -> naive.Naive:
        """What the twin says."""
        return naive.simulate(self.requests, self.rules, self.host, self.costs, self.blocks, replicas=self.replicas,
                              lanes=self.lanes, route=self.route, drafts=self.drafts, offload=self.offload)  # fmt: skip

    def inside(self) -> tuple[Work, State, Log]:
        """The engine's own books after the last request."""
        size, stages, windows = len(self.requests.prompt), len(self.costs.hop), len(self.costs.windows)
        state = kernel._state(self.replicas, stages, self.lanes, self.rules, self.costs, self.blocks, size)
        asked = kernel.requests_as_cast(self.requests)
        work, log = kernel._work(asked), kernel._log(self.replicas, self.lanes, 0, self.costs.total.shape[2], windows, kernel.NOTED)
        inside = Inside(asked, work, state, self.rules, self.host, self.costs, log, self.blocks, self.replicas,
                        stages, self.lanes, windows, self.route, signals_of(self.replicas, size), True, drafts=self.drafts)  # fmt: skip
        if self.drafts is NO_DRAFTS:
            status, _ = kernel.run(inside._replace(ticks=None), 0, 0)  # as it is compiled without drafts
        else:
            status, _ = kernel.run_drafts(inside._replace(plain=1, ticks=TICKS), 0, 0)
        assert status == OK
        return work, state, log


def all_gaps(gaps: Array) -> Array:
    """Every inter-token gap of a log of segments [s], ascending."""
    rows = [np.repeat(first + slope * np.arange(int(steps)), int(weight)) for first, slope, steps, weight in gaps]
    return np.sort(np.concatenate([np.zeros(0), *rows]))


MODES = ("open", "closed", "offline", "sessions", "stages")
seconds = st.floats(0.0, 1.0, allow_subnormal=False).map(lambda x: round(x, 6))


def joined(asked: Requests, rng: np.random.Generator, pace: float) -> Requests:
    """Some that wait for one wait for others, too."""
    pairs = sorted((int(rng.integers(0, i)), i) for i in np.flatnonzero(asked.after >= 0) for _ in range(rng.integers(0, 3)))
    before, who = np.array(pairs or np.zeros((0, 2)), np.int64).T
    return asked._replace(join=who, join_after=before, join_delay=rng.choice([0.0, 1.0], len(pairs)) * rng.exponential(pace, len(pairs)))


@st.composite
def requests(draw: st.DrawFn, modes: tuple[str, ...] = MODES, most: int = 24) -> Requests:
    """A handful of requests, open loop, closed loop or all at once."""
    size = draw(st.integers(1, most))
    longest, pace = draw(st.sampled_from([4, 40, 300])), draw(st.sampled_from([0.003, 0.03, 0.3]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    prompt = rng.integers(1, longest, size, endpoint=True)
    output = rng.integers(1, draw(st.sampled_from([1, 6, 80])), size, endpoint=True)
    mode = draw(st.sampled_from(modes))
    if mode == "open":
        asked = toy.open_loop(np.cumsum(rng.exponential(pace, size)), prompt, output)
    elif mode == "sessions":
        asked = toy.open_loop(np.cumsum(rng.exponential(pace, size)), prompt, output)
        before = [int(rng.integers(-1, i)) if i and rng.random() < 0.7 else -1 for i in range(size)]
        asked = asked._replace(after=np.array(before), delay=rng.choice([0.0, 0.3, 1.0], size) * rng.exponential(pace, size))
    elif mode == "stages":
        cuts = np.unique(rng.integers(1, size, rng.integers(0, 4))) if size > 1 else np.zeros(0, np.int64)
        gaps = rng.exponential(pace, size)
        since = np.repeat(np.cumsum(gaps)[np.append(0, cuts)], np.diff([0, *cuts, size]))
        asked = toy.open_loop(np.cumsum(gaps) - since, prompt, output)._replace(stage=cuts)
    elif mode == "offline":
        asked = toy.offline(prompt, output)
    else:
        asked = toy.closed_loop(draw(st.integers(1, 8)), prompt, output, draw(st.sampled_from([0.0, pace])))
    known = rng.integers(0, prompt) if draw(st.sampled_from([False, False, True])) else np.zeros(size, np.int64)
    return asked._replace(cached=known)


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    """Any combination of the policy's numbers."""
    one = st.integers(0, 1)
    return Rules(
        mix=draw(one), chunk=draw(one), budget=draw(st.sampled_from([8, 32, 256])),
        max_seqs=draw(st.sampled_from([1, 2, 4, 16])), block=draw(st.sampled_from([1, 4, 16])),
        watermark=draw(st.sampled_from([0, 1, 3])), admission=draw(st.integers(0, 3)), preempt=1, order=draw(one),
        lag=draw(st.integers(0, 2)), poll=draw(st.sampled_from([1, 2, 5])), pad_lanes=draw(one),
        prefill_limit=draw(st.sampled_from([FULL, FULL, 12, 100])), wait=draw(st.sampled_from([0, 0, 1, 3, 20])),
        wait_tokens=draw(st.sampled_from([6, 20, 200])),
    )  # fmt: skip


@st.composite
def tables(draw: st.DrawFn, stages: int = 1) -> Costs:
    """Cost tables with and without windows, floors, uneven stages and host work per sequence."""
    return toy.costs(toy.Toy(
        stages=stages, windows=draw(st.sampled_from([(FULL,), (FULL, 64), (48,), (FULL, 16, 100)])),
        weight=1e-3 + 1e-2 * draw(seconds), token=3e-5 * draw(seconds), read=draw(st.sampled_from([2e-8, 5e-6])),
        floor=draw(st.sampled_from([0.0, 2e-2])) * draw(seconds), bare=draw(st.sampled_from([0.0, 2e-2])) * draw(seconds),
        loose=draw(st.sampled_from([0.0, 4e-2])) * draw(seconds), captured=draw(st.sampled_from([0, 2, 5, 40, 1 << 30])),
        add_seq=3e-4 * draw(seconds),
        uneven=draw(st.sampled_from([0.0, 0.3])) * draw(seconds), hop=1e-3 * draw(seconds),
        prompt_add=2e-3 * draw(seconds), ramp=draw(st.sampled_from([1.0, 7.0, 90.0])), beside=draw(st.sampled_from([0.0, 1.2])),
    ))  # fmt: skip


@st.composite
def routes(draw: st.DrawFn) -> Route:
    """Every policy, with signals of any age."""
    near, explore = draw(st.sampled_from([0.3, 0.8])), draw(st.sampled_from([0.0, 0.5]))
    return Route(draw(st.integers(0, 9)), draw(st.sampled_from([0.0, 0.0, 0.05, 3.0])), near,
                 draw(st.sampled_from([0.0, 0.1, 5.0])), explore, draw(st.sampled_from([100.0, 1e4, INFINITY])))  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn, stages: int = 1, most_lanes: int = 3, modes: tuple[str, ...] = MODES
           ) -> World:  # fmt: skip
    """A world in which every request fits, often with few blocks to spare."""
    asked, policy = draw(requests(modes)), draw(rules())
    longest = int((asked.prompt + asked.output).max())
    blocks = int(-(-longest // policy.block) * draw(st.sampled_from([1.0, 1.3, 2.0, 5.0, 50.0])))
    host = Host(1e-4 * draw(seconds), 1e-2 * draw(seconds)) if draw(st.booleans()) else toy.NO_HOST
    return World(asked, policy, host, draw(tables(stages)), blocks, draw(st.sampled_from([1, 1, 2, 3])),
                 draw(st.integers(1, most_lanes)), draw(routes()))  # fmt: skip


def tight(world: World) -> World:
    """The same world with only just enough blocks, given out as late as possible, so that requests are thrown out."""
    longest = int((world.requests.prompt + world.requests.output).max())
    late = ADMIT_CHUNK if world.rules.admission == ADMIT_RESERVE else world.rules.admission
    policy = world.rules._replace(admission=late, block=1, max_seqs=16)
    return World(world.requests, policy, world.host, world.costs, longest + 2, 1, world.lanes, world.route)


@st.composite
def stories(draw: st.DrawFn, stages: int = 1, modes: tuple[str, ...] = MODES) -> World:
    """A world in which prompts, and answers where one goes on with another's, share prefixes."""
    world = draw(worlds(stages, modes=modes, most_lanes=2))
    policy = world.rules._replace(reuse=draw(st.integers(1, 2)), rest_first=draw(st.integers(0, 1)))
    asked = world.requests._replace(cached=np.zeros_like(world.requests.prompt))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    unit, tellers = draw(st.sampled_from([1, 3, 4, 16, 24])), draw(st.sampled_from([1, 2, 4]))
    known: dict[tuple[int, ...], int] = {}
    chains, reach = [], []
    for p, o in zip(asked.prompt, asked.output):
        covers = int(rng.integers(0, p, endpoint=True)) if rng.random() < 0.3 else int(p + (o if rng.random() < 0.5 else 0))
        turns = rng.random(-(-covers // unit)) < draw(st.sampled_from([0.02, 0.0]))
        path = (int(rng.integers(tellers)), *np.cumsum(turns * rng.integers(1, 9)).tolist())
        chains.append([known.setdefault(path[: n + 2], len(known)) for n in range(len(path) - 1)])
        reach.append(covers)
    at = np.cumsum([0, *map(len, chains)])[:-1]
    flat = np.array([x for chain in chains for x in chain] or [0], np.int64)
    asked = asked._replace(chain=flat, chain_at=at, reach=np.array(reach), unit=unit)
    return World(asked, policy, world.host, world.costs, world.blocks, world.replicas, world.lanes, world.route)


@st.composite
def tiers(draw: st.DrawFn) -> Offload:
    """One or two tiers."""
    count = draw(st.integers(1, 2))
    blocks = np.array([draw(st.sampled_from([0, 1, 3, 9, 40, 400])) for _ in range(count)], np.int64)
    latency, block = (np.array([draw(st.sampled_from([0.0, 0.001, 0.02])) for _ in range(count)]) for _ in range(2))
    return Offload(blocks, latency, block, draw(st.integers(0, 1)), draw(st.integers(0, 2)), draw(st.integers(0, 1)))


@st.composite
def behind(draw: st.DrawFn, base: st.SearchStrategy[World]) -> World:
    """A world with tiers behind the blocks of each lane."""
    return replace(draw(base), route=IN_TURN, offload=draw(tiers()))


@st.composite
def graphs(draw: st.DrawFn, base: st.SearchStrategy[World]) -> World:
    """A world in which some who wait for one wait for others, too."""
    world = draw(base)
    asked = joined(world.requests, np.random.default_rng(draw(st.integers(0, 2**32))), 0.03)
    return replace(world, requests=asked, route=IN_TURN)


@st.composite
def drafting(draw: st.DrawFn, policy: Rules, lanes: int) -> tuple[Rules, Drafts]:
    """The same policy with room behind each sequence, and drafts: some fewer, or more, the more sequences decode."""
    policy = policy._replace(look=0 if policy.admission == ADMIT_RESERVE else draw(st.sampled_from([0, 1, 6])))
    most = draw(st.integers(1, 5))
    less = draw(st.sampled_from([0, 0, 1, -1])) if lanes == 1 else 0
    x = np.arange(policy.max_seqs * lanes + 1)
    width = np.clip(most - less * (x // 3), 1, 5)
    gain = TICKS + np.round((width - 1) * TICKS * draw(seconds)).astype(np.int64)
    return policy, Drafts(gain, width)


@st.composite
def drafted(draw: st.DrawFn, base: st.SearchStrategy[World]) -> World:
    """A world whose steps draft: every request fits with what stands behind it."""
    world = draw(base)
    policy, drafts = draw(drafting(world.rules, world.lanes))
    blocks = world.blocks + -(-kernel.slack(policy, drafts) // policy.block)
    return replace(world, rules=policy, drafts=drafts, blocks=blocks)
