"""Nothing is lost and nothing is made: requests, tokens, gaps, KV blocks, seconds."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

import toy_costs as toy
from apexsim.engine.types import DECODE, PROMPT
from worlds import World, all_gaps, tight, worlds

quick = settings(max_examples=60, deadline=None, derandomize=True)


@quick
@given(worlds())
def test_every_request_finishes_with_all_its_tokens(world: World) -> None:
    done = world.run()
    assert np.isfinite(done.finish).all()
    np.testing.assert_allclose(done.gaps[:, 2] @ done.gaps[:, 3], (world.requests.output - 1).sum(), rtol=0, atol=0)


@quick
@given(worlds())
def test_tokens_computed_and_sampled_are_those_of_the_requests(world: World) -> None:
    done, output = world.run(), int(world.requests.output.sum())
    assert done.total("sampled") == output
    if not done.preempted.any():
        assert done.total("prompt_tokens") == (world.requests.prompt - world.requests.cached).sum()
        assert done.total("decode_tokens") == output - len(world.requests.output)


@quick
@given(worlds(stages=2))
def test_gaps_fill_the_time_from_first_to_last_token(world: World) -> None:
    done = world.run()
    assert np.isclose(all_gaps(done.gaps).sum(), (done.finish - done.first).sum(), rtol=1e-9, atol=1e-9)


@quick
@given(worlds().map(tight))
def test_gaps_fill_the_time_also_when_requests_are_thrown_out(world: World) -> None:
    done = world.run()
    assert np.isclose(all_gaps(done.gaps).sum(), (done.finish - done.first).sum(), rtol=1e-9, atol=1e-9)


def test_gaps_are_kept_when_their_log_has_to_grow() -> None:
    rng = np.random.default_rng(3)
    asked = toy.closed_loop(8, rng.integers(1, 50, 40), rng.integers(300, 700, 40))
    done = World(asked, toy.VLLM_V1, toy.NO_HOST, toy.costs(toy.Toy(stages=3)), 500).run()
    assert np.isclose(all_gaps(done.gaps).sum(), (done.finish - done.first).sum(), rtol=1e-9)


def assert_books_are_closed(world: World) -> None:
    """After the last request every count of the engine is back where it was."""
    _, state, log = world.inside()
    assert (state.free == world.blocks).all()
    assert (state.partial == -1).all() and (state.head == -1).all()
    empty = (state.running, state.decoding, state.context, state.growing, state.residue, state.heap_size,
             state.cross_size, state.fresh_size, state.sorted_size, state.outstanding, state.flying)  # fmt: skip
    assert all((table == 0).all() for table in empty)
    used = log.timeline[: log.counts[1], 3]
    assert (used >= 0).all() and (used <= world.blocks * world.lanes).all()


@quick
@given(worlds())
def test_books_are_closed(world: World) -> None:
    assert_books_are_closed(world)


@quick
@given(worlds().map(tight))
def test_books_are_closed_when_requests_are_thrown_out(world: World) -> None:
    assert_books_are_closed(world)


@quick
@given(worlds(stages=3, most_lanes=2).map(tight))
def test_books_are_closed_with_three_stages(world: World) -> None:
    assert_books_are_closed(world)


@quick
@given(worlds().map(tight))
def test_free_blocks_are_never_negative(world: World) -> None:
    assert world.twin().lowest >= 0


@quick
@given(worlds(most_lanes=1))
def test_busy_time_is_the_sum_of_its_parts(world: World) -> None:
    """Additivity, as stated in mechanisms.md: a step is a sum of look-ups, so a run is a sum over its steps."""
    done, costs = world.run(), world.costs
    steps = done.hist.sum(axis=0)
    dense = sum(float(steps[k] @ (costs.total[0, k] + costs.lane[0, k])) for k in (DECODE, PROMPT))
    parts = ("decode_attention_s", "prefill_attention_s", "sample_s", "host_s", "floor_s")
    assert np.isclose(done.total("busy_s"), dense + sum(done.total(p) for p in parts), rtol=1e-9)
    assert done.total("decode_steps") == steps[DECODE].sum()
    assert done.total("prompt_steps") == steps[PROMPT].sum()


@quick
@given(worlds(most_lanes=1))
def test_only_the_sum_of_the_tables_counts(world: World) -> None:
    """With one lane, cost moved from one token table to the other changes no time."""
    costs = world.costs
    moved = costs._replace(lane=costs.lane + 0.5 * costs.total, total=0.5 * costs.total)
    other = World(world.requests, world.rules, world.host, moved, world.blocks, world.replicas, 1, world.route)
    np.testing.assert_allclose(other.run().finish, world.run().finish, rtol=1e-9)


@quick
@given(worlds(modes=("offline",)))
def test_context_read_by_prompts_is_a_triangle(world: World) -> None:
    """Each prompt token attends to itself and all before it (at most a window), however the prompt is cut, cached ones too."""
    done = world.run()
    if done.preempted.any():
        return
    for w, window in enumerate(world.costs.windows):
        read = sum(
            int(np.minimum(np.arange(known + 1, p + 1), window).sum()) for p, known in zip(world.requests.prompt, world.requests.cached)
        )
        assert np.isclose(done.read[:, PROMPT, w].sum(), read, rtol=1e-12)
        spans = zip(world.requests.prompt, world.requests.output)
        read = sum(int(np.minimum(np.arange(p + 1, p + o), window).sum()) for p, o in spans)
        assert np.isclose(done.read[:, DECODE, w].sum(), read, rtol=1e-12)
