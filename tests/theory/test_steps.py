"""Corners that have closed forms: pipelines, roofline-like floors, single requests."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import toy_costs as toy
from apexsim.engine.types import DECODE, FULL, PROMPT, Costs, Host
from worlds import World

TAU = 0.01  # s, one stage of one step


def pipeline(stages: int, groups: int, outputs: int, batch: int = 1) -> NDArray[np.float64]:
    """Finish times [s] of groups·batch equal requests on equal stages, `batch` prompts to a step.

    Groups fill greedily, so that only a budget of `batch` prompts per step spreads the requests over them.
    """
    prompt = 8
    rules = toy.ORCA._replace(budget=batch * prompt, max_seqs=groups * batch)
    asked = toy.offline(np.full(groups * batch, prompt), np.full(groups * batch, outputs))
    costs = toy.plain(stages=stages, step=TAU, max_seqs=groups * batch)
    return World(asked, rules, toy.NO_HOST, costs, 100_000).run().finish


@pytest.mark.parametrize("stages", [1, 2, 4, 8])
@pytest.mark.parametrize("batches", [1, 3, 8, 64])
def test_pipeline_bubble(stages: int, batches: int) -> None:
    """m micro-batches through S equal stages take (m + S − 1)·τ: a bubble of (S − 1) / (S − 1 + m)."""
    span = pipeline(stages, batches, outputs=1).max()
    idle = 1 - batches * TAU / span
    assert np.isclose(idle, (stages - 1) / (stages - 1 + batches), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("stages", [2, 4])
@pytest.mark.parametrize("batch", [1, 5])
def test_full_pipeline_decodes_one_group_per_stage_time(stages: int, batch: int) -> None:
    """S groups on S stages: group g takes its steps at τ·(g + S·k) and ends at τ·(g + S·o), no stage ever waits."""
    outputs = 50
    finish = pipeline(stages, stages, outputs, batch)
    exact = TAU * (np.repeat(np.arange(stages), batch) + stages * outputs)
    np.testing.assert_allclose(finish, exact, rtol=1e-9)


@pytest.mark.parametrize("stages", [2, 4])
def test_one_group_leaves_the_other_stages_empty(stages: int) -> None:
    """One request gains nothing from stages: each token passes all of them, S·τ."""
    assert np.isclose(pipeline(stages, 1, 50).max(), 50 * stages * TAU, rtol=1e-9)


def test_a_budget_that_takes_all_prompts_fills_one_group() -> None:
    """Greedy filling: all prompts in the first step means one group, and 1/S of the throughput."""
    costs = toy.plain(stages=4, step=TAU)
    rules = toy.ORCA._replace(budget=1024)
    done = World(toy.offline(np.full(8, 8), np.full(8, 20)), rules, toy.NO_HOST, costs, 10_000).run()
    np.testing.assert_allclose(done.finish, 20 * 4 * TAU, rtol=1e-9)


def test_the_slowest_stage_sets_the_pace() -> None:
    """With many micro-batches the time per batch is that of the slowest stage."""
    costs = toy.plain(stages=3, step=TAU, max_seqs=200)
    costs.total[1] *= 2.0
    asked = toy.offline(np.full(200, 8), np.ones(200))
    done = World(asked, toy.ORCA._replace(budget=8, max_seqs=200), toy.NO_HOST, costs, 10_000).run()
    assert np.isclose(done.finish.max(), TAU + 200 * 2 * TAU + TAU, rtol=1e-9)


def at(costs: Costs, s: int, d: int, context: NDArray[np.int64]) -> NDArray[np.float64]:
    """Decode attention of d sequences at equal contexts [s]."""
    spans = [np.minimum(context, window) for window in costs.windows]
    return sum((np.interp(x, costs.nodes, costs.decode[s, w, d]) for w, x in enumerate(spans)), np.zeros(len(context)))


@pytest.mark.parametrize("windows", [(FULL,), (64,), (FULL, 100)])
@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("stages", [1, 3])
def test_equal_requests_take_the_closed_sum(windows: tuple[int, ...], batch: int, stages: int) -> None:
    """Prompt step, then o − 1 decode steps at contexts p + 1 … p + o − 1, each the sum of its look-ups."""
    prompt, output = 30, 300
    costs = toy.costs(toy.Toy(stages=stages, windows=windows, add_seq=1e-4))
    asked = toy.offline(np.full(batch, prompt), np.full(batch, output))
    done = World(asked, toy.VLLM_V1, Host(0.0, 0.02), costs, 1_000).run()
    first = decode = costs.add_seq * batch
    for s in range(stages):
        n = batch * prompt
        first += costs.total[s, PROMPT, n] + costs.lane[s, PROMPT, n] + costs.sample[s, batch] + costs.add[s, PROMPT]
        first += costs.prompt_base[s] + batch * np.interp(prompt, 16.0 * np.arange(3), costs.prefill[s, :3])
        first += costs.hop[s] + costs.hop_token[s] * n
        decode += costs.total[s, DECODE, batch] + costs.lane[s, DECODE, batch] + costs.sample[s, batch]
        decode += costs.add[s, DECODE] + costs.hop[s] + costs.hop_token[s] * batch
        decode = decode + at(costs, s, batch, prompt + 1 + np.arange(output - 1))
    np.testing.assert_allclose(done.first, 0.02 + first, rtol=1e-9)
    np.testing.assert_allclose(done.finish, 0.02 + first + decode.sum(), rtol=1e-9)


def test_below_the_floor_only_the_floor_counts() -> None:
    """Launch-bound corner: every step takes floor + add."""
    costs = toy.costs(toy.Toy(floor=1.0, add=0.5))
    done = World(toy.offline([40], [101]), toy.VLLM_V1, toy.NO_HOST, costs, 1_000).run()
    assert np.isclose(done.finish[0], 101 * 1.5, rtol=1e-9)


@pytest.mark.parametrize("budget", [16, 48, 333, 2000])
def test_chunks_cost_as_much_attention_as_the_whole_prompt(budget: int) -> None:
    """P(c + q) − P(c) telescopes: attention over all chunks is P(p), plus one launch per step."""
    costs = toy.costs(toy.Toy())
    done = World(toy.offline([1600], [1]), toy.VLLM_V1._replace(budget=budget), toy.NO_HOST, costs, 1_000).run()
    steps = -(-1600 // budget)
    assert done.total("prompt_steps") == steps
    exact = costs.prefill[0, 100] + steps * costs.prompt_base[0]
    assert np.isclose(done.total("prefill_attention_s"), exact, rtol=1e-9)


def test_lanes_wait_for_the_busiest() -> None:
    """Two lanes, one long context: the step takes the longer attention, the shared part sees both."""
    costs = toy.plain(step=TAU)
    costs.decode[:] = 1e-4 * costs.nodes
    done = World(toy.offline([64, 640], [11, 11]), toy.VLLM_V1._replace(budget=640), toy.NO_HOST, costs, 1_000,
                 lanes=2).run()  # fmt: skip
    exact = TAU + 10 * TAU + 1e-4 * (640 + np.arange(1, 11)).sum()
    np.testing.assert_allclose(done.finish, exact, rtol=1e-9)


def test_tokenising_is_serial_and_the_request_path_is_not() -> None:
    """Prompts of 100 and 300 tokens sent together are seen after 100·c + r and 400·c + r."""
    costs = toy.plain(step=1e-6)
    done = World(toy.offline([100, 300], [1, 1]), toy.VLLM_V1, Host(1e-3, 0.5), costs, 1_000).run()
    np.testing.assert_allclose(done.start, [0.1 + 0.5, 0.4 + 0.5], rtol=1e-9)
