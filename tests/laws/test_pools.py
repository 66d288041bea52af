"""Two pools do what docs/pools.md says: they agree with the twin that was written from that page, and keep its laws."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive_pools
import toy_costs as toy
from apexsim.engine import apart
from apexsim.engine.apart import Both, Crossing, PoolSide, simulate_apart
from apexsim.engine.kernel import simulate, slack
from apexsim.engine.pools import run_pools
from apexsim.engine.types import (
    ADMIT_CHUNK,
    ADMIT_RESERVE,
    ASIDE,
    AT_ONCE,
    EVICTED,
    FILLED,
    FULL,
    INFINITY,
    NO_OFFLOAD,
    OK,
    TICKS,
    Drafts,
    Offload,
    Requests,
    Route,
    Rules,
)  # fmt: skip
from worlds import all_gaps, drafting, joined, requests, rules, seconds, stories, tables, tiers

brief = settings(max_examples=25, deadline=None, derandomize=True)
few = settings(max_examples=50, deadline=None, derandomize=True)
many = settings(max_examples=100, deadline=None, derandomize=True)


@dataclass(frozen=True, slots=True)
class World:
    """Everything that `simulate_apart` needs."""

    requests: Requests
    prefill: PoolSide
    decode: PoolSide
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
def sides(draw: st.DrawFn, asked: Requests, stages: int) -> PoolSide:
    """A pool in which every request fits, often with few blocks to spare."""
    policy: Rules = draw(rules())._replace(wait=0, poll=1)
    longest = int((asked.prompt + asked.output).max())
    blocks = int(-(-longest // policy.block) * draw(st.sampled_from([1.0, 1.3, 2.0, 5.0, 50.0])))
    return PoolSide(policy, toy.NO_HOST, draw(tables(stages)), blocks, draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 2)),
                Route(draw(st.integers(0, 1))))  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn, stages: int = 1) -> World:
    """Two random pools with a random line between them."""
    asked = draw(requests(("open", "closed", "offline", "sessions")))._replace(cached=np.zeros(0, np.int64))
    if len(asked.after) and draw(st.booleans()):
        asked = joined(asked, np.random.default_rng(draw(st.integers(0, 2**32))), 0.03)
    prefill, decode = draw(sides(asked, stages)), draw(sides(asked, stages))
    how = draw(crossings(decode.rules.max_seqs))
    return World(asked, prefill, decode, how if stages == 1 else replace(how, lag=False))


@st.composite
def sharing(draw: st.DrawFn, stages: int = 1) -> World:
    """Two pools that find prefixes again, or one of them does; some prompts stay at decode."""
    base = draw(stories(stages, modes=("open", "closed", "offline", "sessions")))
    asked = base.requests
    prefill, decode = draw(sides(asked, stages)), draw(sides(asked, stages))
    first, last = (draw(st.integers(0, 2)) for _ in range(2))
    rest, route = draw(st.integers(0, 1)), Route(draw(st.integers(0, 9)), near=0.3, explore=draw(st.sampled_from([0.0, 0.5])))
    how = draw(crossings(decode.rules.max_seqs))
    how = replace(how, latency_s=how.latency_s + 1e-4, lag=False, again=how.again or last > 0, **draw(deciders()))
    prefill = replace(prefill, rules=prefill.rules._replace(reuse=first, rest_first=rest), route=route)
    return World(asked, prefill, replace(decode, rules=decode.rules._replace(reuse=last, rest_first=rest), route=route), how)


def _as_engines(offload: Offload, policy: Rules) -> Offload:
    """The tiers as engines that find blocks so write them."""
    return offload._replace(prompts=1) if policy.reuse == AT_ONCE else offload


@st.composite
def tiered(draw: st.DrawFn, base: st.SearchStrategy[World]) -> World:
    """Tiers behind the blocks of both pools.  Where blocks are found at once the engine looks at what decodes fill once somebody asks
    for it, and writes it then: no engine that finds them so writes answers."""
    world = draw(base)
    p, d = (replace(side, offload=_as_engines(draw(tiers()), side.rules)) for side in (world.prefill, world.decode))
    return replace(world, prefill=p, decode=d)


@st.composite
def deciders(draw: st.DrawFn) -> dict[str, float]:
    """Which prompts stay at decode."""
    return {"near": draw(st.sampled_from([0, 0, 8, 100, FULL])), "share": draw(st.sampled_from([0.5, 1.0, INFINITY])),
            "busy": draw(st.sampled_from([INFINITY, INFINITY, 0.0, 60.0]))}  # fmt: skip


@st.composite
def drafted(draw: st.DrawFn, base: st.SearchStrategy[World]) -> World:
    """Two pools, the second of which drafts."""
    world = draw(base)
    side = world.decode
    policy, drafts = draw(drafting(side.rules, side.lanes))
    more = -(-slack(policy, drafts) // policy.block)
    return replace(world, decode=replace(side, rules=policy, drafts=drafts, blocks=side.blocks + more))


def agree(world: World) -> None:
    """Same times, replicas, preemptions, gaps and steps."""
    both, (p, d, sent) = world.run(), naive_pools.simulate(world.requests, world.prefill, world.decode, world.crossing)
    many_tokens = world.requests.output > 1
    np.testing.assert_allclose(both.whole.sent, sent, rtol=1e-9, atol=1e-9)
    far = ~both.local
    for name in ("start", "finish"):
        engine, twin = getattr(both.prefill, name)[far], np.array(p.column(name))[far]
        np.testing.assert_allclose(engine, twin, rtol=1e-9, atol=1e-9, err_msg=f"prefill {name}")
    for hit, naive in ((both.prefill.hit, p), (both.decode.hit, d)):
        if len(hit):
            np.testing.assert_array_equal(hit, naive.column("hit"))
    for name in ("first", "finish"):
        np.testing.assert_allclose(getattr(both.decode, name), d.column(name), rtol=1e-9, atol=1e-9, err_msg=f"decode {name}")
    np.testing.assert_array_equal(both.decode.preempted, d.column("preempted"))
    many_tokens |= both.local
    np.testing.assert_array_equal(both.decode.replica[many_tokens], np.array(d.column("replica"))[many_tokens])
    np.testing.assert_allclose(all_gaps(both.decode.gaps), d.gaps(), rtol=1e-9, atol=1e-9)
    for engine, twin in ((both.prefill, p), (both.decode, d)):
        steps = np.zeros_like(engine.hist[0])
        for step in twin.steps:
            steps[step.kind, step.tokens] += 1
        np.testing.assert_array_equal(engine.hist.sum(axis=0), steps)  # replicas that are alike may trade places where times are equal


@many
@given(worlds())
def test_one_stage(world: World) -> None:
    agree(world)


@few
@given(worlds(stages=2))
def test_two_stages(world: World) -> None:
    agree(world)


@few
@given(sharing())
def test_prefixes_and_prompts_that_stay(world: World) -> None:
    agree(world)


@brief
@given(sharing(stages=2))
def test_prefixes_and_two_stages(world: World) -> None:
    agree(world)


@many
@given(tiered(sharing()))
def test_tiers(world: World) -> None:
    agree(world)


@few
@given(tiered(sharing(stages=2)))
def test_tiers_and_two_stages(world: World) -> None:
    agree(world)


@few
@given(drafted(worlds()))
def test_drafts(world: World) -> None:
    agree(world)


@brief
@given(drafted(sharing()))
def test_drafts_and_prefixes(world: World) -> None:
    agree(world)


@brief
@given(drafted(worlds(stages=2)))
def test_drafts_and_two_stages(world: World) -> None:
    agree(world)


@many
@given(worlds() | sharing() | drafted(sharing()))
def test_jumping_and_stepping_agree(world: World) -> None:
    jumping, stepping = world.run(), world.run(jump=False)
    for name in ("sent", "start", "first", "finish"):
        np.testing.assert_allclose(getattr(jumping.whole, name), getattr(stepping.whole, name), rtol=1e-9, atol=1e-9, err_msg=name)


# ---- laws ------------------------------------------------------------------------------------------------------------------


@few
@given(worlds() | sharing() | drafted(sharing()))
def test_blocks_places_and_seats_come_back(world: World) -> None:
    asked = apart.requests_as_cast(world.requests)
    p, d, margin = apart._worlds(asked, world.prefill, world.decode, world.crossing, True, False)
    assert run_pools(p, d, apart._line(asked, p, d, world.crossing), margin) == OK
    for pool in (p, d):
        assert (pool.state.free == pool.capacity).all()
        assert (pool.state.running == 0).all() and (pool.state.outstanding == 0).all()
    assert (d.hand.booked == 0).all() and (d.hand.head < 0).all()


@st.composite
def crowded(draw: st.DrawFn) -> World:
    """Few blocks at decode, where first tokens are made, prompts go first, and who is thrown out keeps what was sent; most want two
    tokens."""
    world = draw(worlds())
    short = np.random.default_rng(draw(st.integers(0, 2**32))).random(len(world.requests.output)) < 0.7
    world = replace(world, requests=world.requests._replace(output=np.where(short, 2, world.requests.output)))
    longest = int((world.requests.prompt + world.requests.output).max())
    few_blocks = int(longest * draw(st.sampled_from([1.0, 1.3, 2.0])))
    rules = world.decode.rules._replace(mix=0, block=1, admission=ADMIT_CHUNK, watermark=0, max_seqs=4, lag=0)
    how = replace(world.crossing, first=True, recompute=True, again=False, seated=False, slots=FULL)
    return World(world.requests, world.prefill, replace(world.decode, rules=rules, blocks=few_blocks), how)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(crowded())
def test_first_tokens_are_known_where_prompts_come_between(world: World) -> None:
    """The step that makes a first token is one of its own, though a step of prompts may stand before it."""
    assert not np.isnan(world.run().whole.first).any()


def bits(both: Both) -> list[bytes]:
    """What clients see."""
    return [getattr(both.whole, name).tobytes() for name in ("sent", "start", "first", "finish")]


@brief
@given(sharing())
def test_prefixes_of_nothing_change_nothing(world: World) -> None:
    sides = {name: replace(getattr(world, name), blocks=20_000) for name in ("prefill", "decode")}  # who is thrown out finds its own
    world = replace(world, **sides)
    nothing = world.requests._replace(reach=np.zeros_like(world.requests.prompt))
    none = world.requests._replace(chain=np.zeros(0, np.int64))
    far = replace(world.crossing, near=0, busy=INFINITY)
    assert bits(replace(world, requests=nothing, crossing=far).run()) == bits(replace(world, requests=none, crossing=far).run())


@brief
@given(tiered(sharing()))
def test_tiers_without_room_are_none_bit_for_bit(world: World) -> None:
    sides = {name: getattr(world, name) for name in ("prefill", "decode")}
    empty = {name: replace(side, offload=side.offload._replace(blocks=np.zeros_like(side.offload.blocks))) for name, side in sides.items()}
    none = {name: replace(side, offload=NO_OFFLOAD) for name, side in sides.items()}
    assert bits(replace(world, **empty).run()) == bits(replace(world, **none).run())


@brief
@given(tiered(sharing()))
def test_blocks_of_tiers_come_back_and_no_key_stands_twice(world: World) -> None:
    asked = apart.requests_as_cast(world.requests)
    p, d, margin = apart._worlds(asked, world.prefill, world.decode, world.crossing, True, False)
    assert run_pools(p, d, apart._line(asked, p, d, world.crossing), margin) == OK
    for inside in (p, d):
        pool = inside.tiers.pool
        for r in range(inside.replicas):
            for x in range(inside.lanes * inside.tiers.count):
                at, keys, blocks = pool.behind[r, x, -1], [], 0
                while at != pool.before.shape[2] - 1:
                    keys += [int(pool.key[r, x, at])] if pool.key[r, x, at] != -1 else []
                    blocks += int(pool.count[r, x, at]) if pool.key[r, x, at] == -1 else 1
                    at = pool.behind[r, x, at]
                assert blocks == pool.size[r, x] and len(set(keys)) == len(keys)


@brief
@given(sharing())
def test_no_more_is_found_than_others_have(world: World) -> None:
    both, asked = world.run(), world.requests
    for hit in (both.prefill.hit, both.decode.hit):
        assert not len(hit) or (hit <= np.minimum(asked.reach, asked.prompt)).all()


@brief
@given(sharing())
def test_where_all_prompts_stay_the_decode_pool_is_one_by_itself(world: World) -> None:
    asked = world.requests if not world.requests.users else world.requests._replace(users=0)
    side, how = replace(world.decode, route=Route(0)), replace(world.crossing, near=FULL, share=INFINITY, again=True)
    both = simulate_apart(asked, world.prefill, side, how)
    one = simulate(asked, side.rules, side.host, side.costs, side.blocks, replicas=side.replicas, lanes=side.lanes)
    assert both.local.all()
    for name in ("start", "first", "finish"):
        np.testing.assert_allclose(getattr(both.whole, name), getattr(one, name), rtol=1e-9, atol=1e-9, err_msg=name)


@few
@given(worlds())
def test_steps_of_one_token_are_steps_without_drafts(world: World) -> None:
    side, ones = world.decode, np.ones(world.decode.rules.max_seqs * world.decode.lanes + 1, np.int64)
    drafted = replace(world, decode=replace(side, drafts=Drafts(ones * TICKS, ones)))
    for name in ("first", "finish"):
        np.testing.assert_allclose(getattr(drafted.run().whole, name), getattr(world.run().whole, name), rtol=1e-9, atol=1e-9)


@few
@given(worlds())
def test_nothing_is_known_before_it_is_made(world: World) -> None:
    both = world.run()
    whole = both.whole
    assert (whole.sent <= whole.start + 1e-12).all() and (whole.start < both.prefill.finish).all()
    assert (both.prefill.finish <= whole.first + 1e-12).all() and (whole.first <= whole.finish).all()
    several = world.requests.output > 1
    assert (whole.first[several] < whole.finish[several]).all()
    assert len(all_gaps(whole.gaps)) == (world.requests.output - 1).sum()


ROOMY = toy.VLLM_V1._replace(max_seqs=16)
FREE = Crossing(first=False)


def pool(policy: Rules = ROOMY, replicas: int = 1) -> PoolSide:
    """A pool of the toy model with blocks for everybody."""
    return PoolSide(policy, toy.NO_HOST, toy.costs(toy.Toy()), 4000, replicas)


def test_a_lone_request_is_computed_and_then_decoded_as_in_one_pool() -> None:
    asked = toy.open_loop([0.0], [200], [50])
    both, one = simulate_apart(asked, pool(), pool(), FREE), simulate(asked, ROOMY, toy.NO_HOST, toy.costs(toy.Toy()), 4000)
    np.testing.assert_allclose(both.whole.first, one.first, rtol=1e-12)
    np.testing.assert_allclose(both.whole.finish, one.finish, rtol=1e-12)


def test_the_way_takes_its_time_and_no_more() -> None:
    asked = toy.open_loop([0.0], [200], [50])
    free = simulate_apart(asked, pool(), pool(), FREE).whole
    for first in (True, False):
        way = Crossing(first, hop_s=0.04, latency_s=0.003, token_s=1e-5, fixed_s=0.001)
        slow = simulate_apart(asked, pool(), pool(), way).whole
        np.testing.assert_allclose(slow.first - free.first, 0.04 + 0.003 + 200e-5 + 0.001, rtol=1e-9)
        np.testing.assert_allclose(slow.finish - slow.first, free.finish - free.first, rtol=1e-9)


def test_transfers_one_after_the_other_wait_for_each_other() -> None:
    asked = toy.offline([8] * 12, [20] * 12)
    way = Crossing(first=False, latency_s=0.05)
    side_by_side, in_turn = (simulate_apart(asked, pool(), pool(), replace(way, parallel=how)).whole for how in (True, False))
    assert in_turn.first.max() - in_turn.first.min() > 11 * 0.05 - 1e-9 > side_by_side.first.max() - side_by_side.first.min()


def test_a_first_token_made_again_comes_one_step_later() -> None:
    asked = toy.open_loop([0.0], [200], [50])
    kept, again = (simulate_apart(asked, pool(), pool(), Crossing(False, recompute=how)) for how in (False, True))
    step = float(again.whole.first[0] - kept.whole.first[0])
    assert 0.0 < step < 0.05
    assert again.decode.total("decode_steps") == kept.decode.total("decode_steps") + 1


def test_more_places_are_never_later() -> None:
    rng = np.random.default_rng(5)
    asked = toy.closed_loop(24, rng.integers(50, 200, 200), np.full(200, 40), 0.0)
    for first in (True, False):
        ends = [simulate_apart(asked, pool(), pool(), Crossing(first, slots=n)).whole.finish.max() for n in (1, 2, 4, 8, 16)]
        assert ends == sorted(ends, reverse=True)


def test_users_beyond_the_places_wait_for_one() -> None:
    """Little's law at the door: of `users`, `slots` are inside for the time of their answer, and the others wait for their turn."""
    users, slots, output = 20, 8, 60
    asked = toy.closed_loop(users, np.full(400, 16), np.full(400, output), 0.0)
    for first, admission in ((True, 1), (False, ADMIT_RESERVE)):
        whole = simulate_apart(asked, pool(), pool(ROOMY._replace(admission=admission)), Crossing(first, slots=slots)).whole
        tpot = np.median((whole.finish - whole.first) / (output - 1))
        expected = (users / slots - 1.0) * tpot * output
        assert abs(np.mean(whole.first - whole.sent) / expected - 1.0) < 0.1


def test_a_place_before_the_prompt_holds_prompts_back() -> None:
    asked = toy.offline([100] * 10, [50] * 10)
    before, after = (simulate_apart(asked, pool(), pool(), Crossing(first, slots=1)) for first in (True, False))
    assert before.prefill.start.max() > before.whole.finish.min()
    assert after.prefill.start.max() < after.whole.finish.min()


def test_sessions_go_on_when_the_last_pool_has_finished() -> None:
    asked = toy.open_loop([0.0, 0.0, 0.0], [50, 60, 70], [20, 20, 1])._replace(after=np.array([-1, 0, 1]), delay=np.array([0.0, 0.5, 0.25]))
    whole = simulate_apart(asked, pool(), pool(), FREE).whole
    np.testing.assert_allclose(whole.sent[1:], whole.finish[:-1] + np.array([0.5, 0.25]), rtol=1e-12)
    assert whole.first[2] == whole.finish[2]


def test_what_decode_has_is_not_sent() -> None:
    asked = toy.open_loop([0.0, 9.0], [160, 160], [20, 20])._replace(chain=np.tile(np.arange(10), 2), chain_at=np.array([0, 10]),
                                                                      reach=np.array([160, 160]), unit=16)  # fmt: skip
    way = Crossing(False, token_s=1e-3, recompute=True)
    keeps, forgets = (replace(pool(), rules=ROOMY._replace(reuse=how)) for how in (1, 0))
    found, sent = (simulate_apart(asked, keeps, side, way) for side in (keeps, forgets))
    assert found.decode.hit.tolist() == found.prefill.hit.tolist() == [0, 144]
    assert found.whole.first[1] < sent.whole.first[1] - 0.14 and found.whole.first[0] == sent.whole.first[0]


def test_a_busy_prefill_server_leaves_prompts_at_decode() -> None:
    asked = toy.offline([100] * 10, [5] * 10)
    whole, some = (simulate_apart(asked, pool(), pool(), Crossing(False, busy=busy)).local for busy in (INFINITY, 250.0))
    assert not whole.any() and some.tolist() == [False] * 3 + [True] * 7


def test_blocks_of_the_prefill_pool_are_held_until_the_cache_is_sent() -> None:
    asked, small = toy.offline([160] * 4, [10] * 4), replace(pool(), blocks=12)  # of 16 tokens: one prompt at a time
    quick, slow = (simulate_apart(asked, small, pool(), Crossing(False, latency_s=t)) for t in (0.0, 1.0))
    assert np.diff(np.sort(slow.prefill.start)).min() > 1.0 > np.diff(np.sort(quick.prefill.start)).max()


def again_and_again() -> Requests:
    """Three prompts of six blocks each, in turn, three times, and an answer to each."""
    chain = np.tile(np.array([[100 * x + n for n in range(6)] for x in range(3)]), (3, 1))
    asked = toy.open_loop([10.0 * i for i in range(9)], [97] * 9, [20] * 9)
    return asked._replace(chain=chain.ravel(), chain_at=np.arange(0, 54, 6), reach=np.full(9, 96), unit=16)


@pytest.mark.parametrize("write", [FILLED, EVICTED])
def test_a_tier_of_the_prefill_pool_gives_back_what_its_gpu_has_lost(write: int) -> None:
    """Eight blocks hold one prompt: with a tier that takes no time later uses are found, as in a cache of all; a slow one comes later."""
    behind = [Offload(np.array([100]), np.array([t]), np.zeros(1), write, ASIDE, 1) for t in (0.0, 0.5)]
    side, decode = replace(pool(ROOMY._replace(reuse=1)), blocks=8), pool()
    large, alone = (simulate_apart(again_and_again(), replace(side, blocks=n), decode, FREE).whole for n in (4000, 8))
    quick, slow = (simulate_apart(again_and_again(), replace(side, offload=tier), decode, FREE).whole for tier in behind)
    assert quick.hit.tolist() == large.hit.tolist() == [0] * 3 + [96] * 6 and not alone.hit.any()
    assert quick.loaded.tolist() == [0] * 3 + [96] * 6
    np.testing.assert_allclose(quick.finish, large.finish, atol=1e-8)
    np.testing.assert_allclose(slow.first[3:] - quick.first[3:], 0.5, atol=1e-8)


def test_who_is_thrown_out_at_decode_finds_its_prompt_in_the_tier() -> None:
    """Few blocks at decode: prompts that are computed again come back from its tier."""
    asked = toy.offline([160] * 4, [120] * 4)
    asked = asked._replace(chain=np.arange(72), chain_at=np.arange(0, 72, 18), reach=np.full(4, 280), unit=16)
    few = replace(pool(ROOMY._replace(reuse=1, admission=ADMIT_CHUNK)), blocks=50)
    tier = Offload(np.array([400]), np.zeros(1), np.zeros(1), FILLED, ASIDE, 1)
    without, behind = (simulate_apart(asked, pool(), replace(few, offload=each), FREE) for each in (NO_OFFLOAD, tier))
    assert behind.decode.preempted.sum() > 0 < without.decode.preempted.sum()
    assert behind.decode.total("prompt_tokens") < without.decode.total("prompt_tokens")


@pytest.mark.parametrize("mix", [0, 1])
def test_a_place_is_booked_beside_the_blocks_of_the_step_that_is_formed(mix: int) -> None:
    """The fourth prompt begins as the second does, whose first answer fills a block in that very step."""
    chain = np.array([0, 1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11, 12, 13, 14, 0, 7, 8, 9, 0, 7, 8, 9, 10, 11, 12, 0])
    asked = toy.open_loop([0.0054, 0.0069, 0.00855, 0.00864, 0.01093, 0.01406], [2, 3, 4, 4, 1, 1], [5, 6, 2, 2, 6, 3])
    asked = asked._replace(chain=chain, chain_at=np.array([0, 7, 16, 16, 20, 27]), reach=np.array([7, 9, 0, 4, 7, 1]), unit=1)
    policy = toy.ORCA._replace(mix=mix, chunk=0, budget=8, max_seqs=1, admission=0)
    flat = toy.costs(toy.Toy(weight=1e-3, token=0.0, floor=0.0, hop=0.0, captured=0))
    prefill, decode = (PoolSide(policy._replace(reuse=reuse), toy.NO_HOST, flat, 9, 1) for reuse in (0, 1))
    agree(World(asked, prefill, decode, Crossing(first=False, slots=3, latency_s=1e-4)))
