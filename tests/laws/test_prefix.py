"""Prefix caching: the engine agrees with its twin, and keeps the laws of docs/caching.md."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from test_twin import agree

import toy_costs as toy
from apexsim.engine import kernel
from apexsim.engine.types import Requests
from apexsim.workload.columns import ideal_hit
from apexsim.workload.prefixes import prefixes_of
from apexsim.workload.trace import Workload, chains_of
from worlds import World, stories, tight

few = settings(max_examples=100, deadline=None, derandomize=True)


def same(world: World) -> None:
    """What the twin does, and finds."""
    agree(world)
    found = world.run().hit
    assert len(found) == 0 or found.tolist() == world.twin().column("hit")


@few
@given(stories())
def test_twin(world: World) -> None:
    same(world)


@few
@given(stories().map(tight))
def test_twin_of_few_blocks(world: World) -> None:
    same(world)


@few
@given(stories(stages=2))
def test_twin_of_two_stages(world: World) -> None:
    same(world)


def served(requests: Requests, blocks: int = 400, **rules: int) -> kernel.Outcome:
    """By one replica with vLLM's rules."""
    return kernel.simulate(requests, toy.VLLM_V1._replace(**({"reuse": 1} | rules)), toy.NO_HOST, toy.costs(toy.Toy()), blocks)


def stream(prompt: list[int], chains: list[list[int]], gap: float, output: int, unit: int) -> Workload:
    """A workload whose prompts share what their ids share."""
    size = len(prompt)
    known = chains_of([tuple(c) for c in chains])
    return Workload("", gap * np.arange(size), np.array(prompt), np.full(size, output), prefix=known, block=unit)


def told(prompt: list[int], chains: list[list[int]], gap: float = 1.0, output: int = 4, unit: int = 16) -> Requests:
    """Requests that come one after the other, with the ids of their prompts' blocks."""
    work = stream(prompt, chains, gap, output, unit)
    shared = prefixes_of(work)
    assert shared is not None
    asked = toy.open_loop(work.arrive, work.prompt, work.output)
    return asked._replace(chain=shared.chain, chain_at=shared.chain_at, reach=shared.reach, unit=shared.unit)


def test_hits_by_hand() -> None:
    """Full blocks only, at least one token is computed, and a chain ends with the first block that differs."""
    chains = [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3], [0, 1, 9, 3, 4], [7]]
    assert served(told([100, 100, 64, 80, 10], chains)).hit.tolist() == [0, 96, 48, 32, 0]


def test_requests_of_one_step_share_where_blocks_are_found_at_once() -> None:
    asked = told([100, 100], [[0, 1, 2, 3, 4, 5, 6]] * 2, gap=0.0)
    assert served(asked).hit.tolist() == [0, 96] and served(asked, reuse=2).hit.tolist() == [0, 0]


def test_what_is_thrown_out_of_the_cache_is_computed_again() -> None:
    """The queue of free blocks gives the longest unused first: 7 + 7 blocks do not fit 13."""
    chains = [[0, 1, 2, 3, 4, 5], [10, 11, 12, 13, 14, 15]] * 2
    assert served(told([97] * 4, chains), blocks=14).hit.tolist() == [0, 0, 96, 96]
    assert served(told([97] * 4, chains), blocks=7).hit.tolist() == [0, 0, 0, 0]


def test_ids_that_stand_for_their_block_alone_are_chained() -> None:
    chains = [[0, 5], [1, 5], [0, 5]]
    assert served(told([40] * 3, chains)).hit.tolist() == [0, 0, 32]


@few
@given(stories())
def test_nobody_hits_more_than_was_there(world: World) -> None:
    """All blocks are free in the end, and hits stay below those of an unlimited cache."""
    r, found = world.requests, world.run().hit
    ends = np.append(r.chain_at[1:], len(r.chain))
    if len(found):
        assert (found < r.prompt).all() and (found <= r.reach).all()
        shared = {
            int(x)
            for x, n in zip(*np.unique(np.concatenate([r.chain[a:b] for a, b in zip(r.chain_at, ends)]), return_counts=True))
            if n > 1
        }
        first = [r.chain[a] in shared if b > a else False for a, b in zip(r.chain_at, ends)]
        assert not found[~np.array(first)].any()


@few
@given(stories())
def test_no_reach_is_no_cache_bit_for_bit(world: World) -> None:
    none = world.requests._replace(reach=np.zeros_like(world.requests.reach))
    plain = world.requests._replace(chain=none.chain[:0], chain_at=none.chain[:0], reach=none.chain[:0])
    one, two = (
        World(r, world.rules, world.host, world.costs, world.blocks, world.replicas, world.lanes, world.route).run() for r in (none, plain)
    )
    if not one.preempted.any():  # who was thrown out finds what was his own
        np.testing.assert_array_equal(one.start, two.start)
        np.testing.assert_array_equal(one.finish, two.finish)


def test_reuse_does_not_hurt_a_request_alone() -> None:
    rng = np.random.default_rng(0)
    prompt = rng.integers(20, 1200, 30)
    chains = [[0, 1, 2, *range(100 * i, 100 * i + 80)][: -(-int(p) // 16)] for i, p in enumerate(prompt, 1)]
    asked = told(prompt.tolist(), chains)
    with_, without = served(asked), served(asked, reuse=0)
    assert (with_.first <= without.first).all() and with_.hit.sum() <= ideal_hit(stream(prompt.tolist(), chains, 1.0, 4, 16)) * prompt.sum()
    assert with_.hit[1:].min() >= 16
