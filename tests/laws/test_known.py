"""Requests that wait for others, and prompts of which a part is known already."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import toy_costs as toy
from apexsim.engine.types import ADMIT_CHUNK, ADMIT_FIT, ADMIT_PROMPT, NO_DELAY, NONE
from worlds import World, worlds

quick = settings(max_examples=60, deadline=None, derandomize=True)
COSTS = toy.costs(toy.Toy())


def alone(prompt: int, cached: int, output: int = 1, **rules: int) -> World:
    """One request on an empty server."""
    asked = toy.offline(np.array([prompt]), np.array([output]))._replace(cached=np.array([cached]))
    return World(asked, toy.VLLM_V1._replace(budget=4_000, **rules), toy.NO_HOST, COSTS, 1_000)


# ---- who waits for whom ----------------------------------------------------------------------------------------------


@quick
@given(worlds(modes=("sessions",)))
def test_a_request_is_sent_its_delay_after_the_one_it_waits_for(world: World) -> None:
    asked, done = world.requests, world.run()
    waits = asked.after >= 0
    np.testing.assert_allclose(done.sent[waits], done.finish[asked.after[waits]] + asked.delay[waits], rtol=1e-12)
    assert np.array_equal(done.sent[~waits], asked.arrive[~waits])


@quick
@given(worlds(modes=("open", "offline")))
def test_columns_that_name_nobody_change_nothing(world: World) -> None:
    size = len(world.requests.prompt)
    nobody = world.requests._replace(after=np.full(size, -1), delay=np.zeros(size))
    other = World(nobody, world.rules, world.host, world.costs, world.blocks, 1, world.lanes)
    own = World(world.requests, world.rules, world.host, world.costs, world.blocks, 1, world.lanes)
    np.testing.assert_allclose(other.run().finish, own.run().finish, rtol=1e-9, atol=1e-9)


@quick
@given(worlds(modes=("closed",)))
def test_one_user_is_a_chain_of_requests(world: World) -> None:
    """A closed loop of one user, said in both ways."""
    asked, size = world.requests, len(world.requests.prompt)
    loop = asked._replace(users=1)
    chain = asked._replace(users=0, after=np.arange(size) - 1, delay=np.full(size, asked.think))
    both = [World(one, world.rules, world.host, world.costs, world.blocks, 1, world.lanes).run() for one in (loop, chain)]
    np.testing.assert_allclose(both[1].finish, both[0].finish, rtol=1e-9)
    np.testing.assert_allclose(both[1].sent, both[0].sent, rtol=1e-9)


@pytest.mark.parametrize("after", [[0, -1], [-1, 1], [-2, -1]])
def test_a_request_waits_for_one_that_stands_before_it(after: list[int]) -> None:
    asked = toy.offline(np.array([5, 5]), np.array([2, 2]))._replace(after=np.array(after), delay=np.zeros(2))
    with pytest.raises(AssertionError, match="stands before it"):
        World(asked, toy.VLLM_V1, toy.NO_HOST, COSTS, 100).run()


# ---- what is known already -------------------------------------------------------------------------------------------


def test_a_cached_token_costs_nothing_but_is_attended_to() -> None:
    """The step computes the rest alone; its attention is that of the rest on what is cached."""
    done = alone(900, 600).run()
    tokens, whole, known = (
        300,
        *(float(np.interp(n / COSTS.stride, np.arange(COSTS.prefill.shape[1]), COSTS.prefill[0])) for n in (900, 600)),
    )
    dense = COSTS.lane[0, 1, tokens] + COSTS.total[0, 1, tokens] + COSTS.sample[0, 1] + COSTS.prompt_base[0]
    took = max(dense + whole - known, COSTS.floor[0, 1]) + COSTS.add[0, 1] + COSTS.add_seq
    assert done.finish[0] == pytest.approx(took, rel=1e-12)
    assert done.total("prompt_tokens") == tokens


@pytest.mark.parametrize("admission", [ADMIT_CHUNK, ADMIT_PROMPT, ADMIT_FIT])
def test_cached_tokens_take_room(admission: int) -> None:
    """As many requests run at once as without: what is cached stands in the cache too."""
    asked = toy.offline(np.full(8, 160), np.full(8, 40))._replace(cached=np.full(8, 120))
    rules = toy.VLLM_V1._replace(admission=admission, block=16, budget=4_000, watermark=0)
    world = World(asked, rules, toy.NO_HOST, COSTS, 26)  # two of them, not three: 13 blocks each at the end
    first = np.sort(world.run().start)
    assert (first == first[0]).sum() == 2
    assert world.twin().lowest >= 0


@quick
@given(worlds())
def test_nothing_cached_is_the_default(world: World) -> None:
    none = world.requests._replace(cached=np.zeros(len(world.requests.prompt), np.int64))
    said, left_out = (World(one, *[getattr(world, f) for f in ("rules", "host", "costs", "blocks", "replicas", "lanes", "route")])
                      for one in (none, none._replace(cached=NONE)))  # fmt: skip
    assert np.array_equal(said.run().finish, left_out.run().finish)
    assert not len(NO_DELAY)


@pytest.mark.parametrize("cached", [-1, 5])
def test_something_is_left_to_compute(cached: int) -> None:
    with pytest.raises(AssertionError, match="at least one token"):
        alone(5, cached).run()
