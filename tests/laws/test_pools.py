"""Two pools do what docs/pools.md says: they agree with the twin that was written from that page, and keep its laws."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive_pools
import toy_costs as toy
from apexsim.engine.apart import Both, Crossing, Side, simulate_apart
from apexsim.engine.types import ADMIT_RESERVE, FULL, Requests, Rules
from worlds import all_gaps, requests, rules, seconds, tables

few = settings(max_examples=60, deadline=None, derandomize=True)
many = settings(max_examples=150, deadline=None, derandomize=True)


@dataclass(frozen=True, slots=True)
class World:
    """Everything that `simulate_apart` needs."""

    requests: Requests
    prefill: Side
    decode: Side
    crossing: Crossing

    def run(self, jump: bool = True) -> Both:
        """What the engine says."""
        return simulate_apart(self.requests, self.prefill, self.decode, self.crossing, jump=jump)


@st.composite
def crossings(draw: st.DrawFn, seats: int) -> Crossing:
    """Any way of handing over."""
    return Crossing(
        first=draw(st.booleans()), slots=draw(st.sampled_from([1, seats, seats + 2, FULL])), seated=draw(st.booleans()),
        recompute=draw(st.booleans()), again=draw(st.booleans()), hop_s=draw(st.sampled_from([0.0, 0.03])) * draw(seconds),
        latency_s=draw(st.sampled_from([0.0, 0.01])) * draw(seconds), token_s=draw(st.sampled_from([0.0, 1e-4])) * draw(seconds),
        fixed_s=draw(st.sampled_from([0.0, 1e-3])), parallel=draw(st.booleans()), lag=draw(st.booleans()),
    )  # fmt: skip


@st.composite
def sides(draw: st.DrawFn, asked: Requests, stages: int) -> Side:
    """A pool in which every request fits, often with few blocks to spare."""
    policy: Rules = draw(rules())._replace(wait=0, poll=1)
    longest = int((asked.prompt + asked.output).max())
    blocks = int(-(-longest // policy.block) * draw(st.sampled_from([1.0, 1.3, 2.0, 5.0, 50.0])))
    return Side(policy, toy.NO_HOST, draw(tables(stages)), blocks, draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 2)),
                draw(st.integers(0, 1)))  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn, stages: int = 1) -> World:
    """Two random pools with a random line between them."""
    asked = draw(requests())._replace(cached=np.zeros(0, np.int64))
    prefill, decode = draw(sides(asked, stages)), draw(sides(asked, stages))
    how = draw(crossings(decode.rules.max_seqs))
    return World(asked, prefill, decode, how if stages == 1 else replace(how, lag=False))


def agree(world: World) -> None:
    """Same times, replicas, preemptions, gaps and steps."""
    both, (p, d, sent) = world.run(), naive_pools.simulate(world.requests, world.prefill, world.decode, world.crossing)
    many_tokens = world.requests.output > 1
    np.testing.assert_allclose(both.whole.sent, sent, rtol=1e-9, atol=1e-9)
    for name in ("start", "finish"):
        np.testing.assert_allclose(getattr(both.prefill, name), p.column(name), rtol=1e-9, atol=1e-9, err_msg=f"prefill {name}")
    for name in ("first", "finish"):
        np.testing.assert_allclose(getattr(both.decode, name), d.column(name), rtol=1e-9, atol=1e-9, err_msg=f"decode {name}")
    np.testing.assert_array_equal(both.decode.preempted, d.column("preempted"))
    np.testing.assert_array_equal(both.decode.replica[many_tokens], np.array(d.column("replica"))[many_tokens])
    np.testing.assert_allclose(all_gaps(both.decode.gaps), d.gaps(), rtol=1e-9, atol=1e-9)
    for engine, twin in ((both.prefill, p), (both.decode, d)):
        steps = np.zeros_like(engine.hist)
        for step in twin.steps:
            steps[step.replica, step.kind, step.tokens] += 1
        np.testing.assert_array_equal(engine.hist, steps)


@many
@given(worlds())
def test_one_stage(world: World) -> None:
    agree(world)


@few
@given(worlds(stages=2))
def test_two_stages(world: World) -> None:
    agree(world)


@many
@given(worlds())
def test_jumping_and_stepping_agree(world: World) -> None:
    jumping, stepping = world.run(), world.run(jump=False)
    for name in ("sent", "start", "first", "finish"):
        np.testing.assert_allclose(getattr(jumping.whole, name), getattr(stepping.whole, name), rtol=1e-9, atol=1e-9, err_msg=name)
