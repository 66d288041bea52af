"""Tiers behind the prefix cache: the engine agrees with its twin, and keeps the laws of docs/caching.md."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from test_prefix import same, told

import toy_costs as toy
from apexsim.engine import kernel
from apexsim.engine.types import ASIDE, BEFORE, BESIDE, EVICTED, FILLED, NO_OFFLOAD, Offload, Requests
from worlds import World, behind, stories, tight

few = settings(max_examples=100, deadline=None, derandomize=True)


@few
@given(behind(stories()))
def test_twin(world: World) -> None:
    same(world)


@few
@given(behind(stories().map(tight)))
def test_twin_of_few_blocks(world: World) -> None:
    same(world)


def tier(blocks: int, latency: float = 0.0, block: float = 0.0, write: int = FILLED, load: int = BEFORE) -> Offload:
    """One tier."""
    return Offload(np.array([blocks]), np.array([latency]), np.array([block]), write, load, 0)


def served(requests: Requests, blocks: int, offload: Offload = NO_OFFLOAD, **rules: int) -> kernel.Outcome:
    """By one replica with vLLM's rules."""
    rules = {"reuse": 1} | rules
    return kernel.simulate(requests, toy.VLLM_V1._replace(**rules), toy.NO_HOST, toy.costs(toy.Toy()), blocks, offload=offload)


THREE = [[100 * x + n for n in range(6)] for x in range(3)]


def in_turn(rounds: int = 3) -> Requests:
    """Three prompts of six blocks each, one after the other, again and again."""
    return told([97] * 3 * rounds, THREE * rounds)


@pytest.mark.parametrize("load", [BEFORE, BESIDE, ASIDE])
@pytest.mark.parametrize("write", [FILLED, EVICTED])
def test_a_tier_without_latency_is_a_larger_cache(write: int, load: int) -> None:
    """Seven blocks hold one prompt; a tier of all holds what a cache of all does, at the same times."""
    behind_it, large, alone = served(in_turn(), 7, tier(100, write=write, load=load)), served(in_turn(), 100), served(in_turn(), 7)
    assert behind_it.hit.tolist() == large.hit.tolist() == [0] * 3 + [96] * 6 and not alone.hit.any()
    assert behind_it.loaded.tolist() == [0] * 3 + [96] * 6
    np.testing.assert_allclose(behind_it.first, large.first)


@pytest.mark.parametrize("load", [BEFORE, BESIDE, ASIDE])
def test_a_load_takes_its_latency_and_its_blocks(load: int) -> None:
    slow, fast = (served(in_turn(), 7, tier(100, *times, load=load)) for times in ((0.05, 0.01), (0.0, 0.0)))
    later = slow.first[3:] - fast.first[3:]
    took = 0.05 + 6 * 0.01
    alone = fast.first[3:] - fast.start[3:]  # its step
    np.testing.assert_allclose(later, took - alone if load == BESIDE else took, rtol=1e-6)


@few
@given(behind(stories()))
def test_no_room_is_no_tier_bit_for_bit(world: World) -> None:
    none = world.offload._replace(blocks=np.zeros_like(world.offload.blocks))
    one, two = (World(world.requests, world.rules, world.host, world.costs, world.blocks, world.replicas, world.lanes, world.route,
                      offload=offload).run() for offload in (none, NO_OFFLOAD))  # fmt: skip
    for name in ("start", "first", "finish", "hit"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@few
@given(behind(stories().map(tight)))
def test_blocks_are_conserved(world: World) -> None:
    """After the last request each tier has as many as it had, each entry once, and each key once."""
    made = kernel.world_of(world.requests, world.rules, world.host, world.costs, world.blocks, replicas=world.replicas, lanes=world.lanes,
                           route=world.route, gaps=False, offload=world.offload).world  # fmt: skip
    if made.plain:
        return
    serve, inside = kernel._version(made)
    serve(inside, 0, 0)
    pool, room = made.tiers.pool, world.offload.blocks[world.offload.blocks > 0]
    for r in range(world.replicas):
        for x in range(made.lanes * made.tiers.count):
            at, keys, blocks = pool.behind[r, x, -1], [], 0
            while at != pool.before.shape[2] - 1:
                key = int(pool.key[r, x, at])
                keys += [key] if key != -1 else []
                blocks += 1 if key != -1 else int(pool.count[r, x, at])
                at = pool.behind[r, x, at]
            assert blocks == pool.size[r, x] == room[x % made.tiers.count] and len(set(keys)) == len(keys)


def test_others_go_on_while_one_waits_aside() -> None:
    """A prompt that waits for its blocks holds up the step of nobody else, as it does where steps wait."""
    prompt, chains = [97, 97, 97, 40], [THREE[0], THREE[1], THREE[0], [900, 901, 902]]
    asked = told(prompt, chains)._replace(arrive=np.array([0.0, 10.0, 20.0, 20.0]))
    aside, before = (served(asked, 9, tier(100, 5.0, load=load)) for load in (ASIDE, BEFORE))
    assert aside.first[3] < 21.0 < 25.0 < aside.first[2] and before.first[3] > 25.0


def test_the_second_tier_has_what_the_first_has_lost() -> None:
    both = Offload(np.array([6, 100]), np.array([0.0, 0.5]), np.zeros(2), FILLED, BEFORE, 0)
    found = served(in_turn(), 7, both)
    assert found.loaded.tolist() == [0] * 3 + [96] * 6 and (found.first[3:] - found.start[3:]).min() > 0.5


def test_loads_aside_come_one_after_the_other() -> None:
    asked = told([97] * 6, [*THREE, [700, *range(701, 706)], *THREE[:2]])._replace(arrive=np.array([0.0, 10.0, 20.0, 25.0, 30.0, 30.0]))
    found = served(asked, 14, tier(100, 1.0, load=ASIDE))
    assert found.loaded.tolist() == [0, 0, 0, 0, 96, 96] and found.first[4] > 31.0 and found.first[5] > 32.0
