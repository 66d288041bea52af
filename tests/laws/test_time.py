"""Causality, determinism, no idling, and jumping = stepping."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import toy_costs as toy
from apexsim.engine.types import DECODE, FULL, LEAST_OUTSTANDING, PROMPT, S_BUSY, TIE, Host, Route
from worlds import World, all_gaps, tight, worlds

LEAST = Route(LEAST_OUTSTANDING)

quick = settings(max_examples=60, deadline=None, derandomize=True)
TIMES = ("sent", "start", "first", "finish", "preempted", "replica", "gaps", "hist", "sums", "read", "timeline")


def assert_in_order(world: World) -> None:
    """sent ≤ seen ≤ start < first ≤ finish, and nothing is faster than its own work."""
    work, _, _ = world.inside()
    costs, output = world.costs, world.requests.output
    assert (work.sent <= work.seen).all() and (work.seen <= work.start + TIE).all()
    add = costs.add.copy()
    add[:, PROMPT] = add[:, DECODE] + (add[:, PROMPT] - add[:, DECODE]) * min(1.0, 1.0 / costs.ramp)  # a step of one prompt token
    least = (costs.total[:, :, 1] + add).sum(axis=0) + costs.hop.sum()  # s, one token through all stages
    assert (work.first - work.start >= least[PROMPT] * (1 - 1e-9)).all()
    assert (work.finish - work.first >= (output - 1) * least[DECODE] * (1 - 1e-9)).all()


@quick
@given(worlds())
def test_effects_follow_causes(world: World) -> None:
    assert_in_order(world)


@quick
@given(worlds(stages=2).map(tight))
def test_effects_follow_causes_in_a_pipeline(world: World) -> None:
    assert_in_order(world)


@quick
@given(worlds())
def test_same_inputs_same_bits(world: World) -> None:
    first, second = world.run(), world.run()
    assert all(np.array_equal(getattr(first, name), getattr(second, name)) for name in TIMES)


def assert_jumps_are_steps(world: World) -> None:
    """Two ways to the same result."""
    jumped, stepped = world.run(), world.run(jump=False)
    for name in ("preempted", "replica", "hist", "hist_lane"):
        np.testing.assert_array_equal(getattr(jumped, name), getattr(stepped, name), name)
    for name in ("sent", "start", "first", "finish", "read"):
        np.testing.assert_allclose(getattr(jumped, name), getattr(stepped, name), rtol=1e-9, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(jumped.sums, stepped.sums, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(all_gaps(jumped.gaps), all_gaps(stepped.gaps), rtol=1e-9, atol=1e-12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(worlds())
def test_jumping_is_stepping(world: World) -> None:
    assert_jumps_are_steps(world)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from([2, 3]).flatmap(lambda stages: worlds(stages, most_lanes=2)))
def test_jumping_is_stepping_with_several_stages(world: World) -> None:
    assert_jumps_are_steps(world)


@quick
@given(worlds(stages=2, most_lanes=2).map(tight))
def test_jumping_is_stepping_with_several_stages_and_few_blocks(world: World) -> None:
    assert_jumps_are_steps(world)


@quick
@given(worlds().map(tight))
def test_jumping_is_stepping_with_few_blocks(world: World) -> None:
    assert_jumps_are_steps(world)


@pytest.mark.parametrize("policy", [toy.VLLM_V1, toy.VLLM_V0, toy.SGLANG, toy.TRTLLM, toy.TRTLLM_WAIT, toy.ORCA])
@pytest.mark.parametrize(("lanes", "stages"), [(1, 1), (4, 1), (1, 4)])
def test_jumping_is_stepping_on_a_long_trace(policy: toy.Rules, lanes: int, stages: int) -> None:
    costs = toy.costs(toy.Toy(stages=stages, windows=(FULL, 128), tokens=8192))
    asked = toy.poisson(60.0 * lanes, 400, seed=lanes, prompt=(1, 400), output=(1, 900))
    assert_jumps_are_steps(World(asked, policy, Host(1e-6, 1e-3), costs, 20_000 // policy.block, 2, lanes, LEAST))


@quick
@given(worlds())
def test_never_idle_with_work_waiting(world: World) -> None:
    """One stage is busy exactly while a request that has been seen is unfinished."""
    work, _, _ = world.inside()
    for r in range(world.replicas):
        mine = work.replica == r
        intervals = sorted(zip(work.seen[mine], work.finish[mine]))
        busy, end = 0.0, -1.0
        for seen, finish in intervals:
            busy += max(0.0, finish - max(seen, end))
            end = max(end, finish)
        done = world.run()
        assert np.isclose(done.sums[r, S_BUSY], busy, rtol=1e-9, atol=TIE * (1 + mine.sum()))


def stretched(world: World, factor: float) -> float:
    """Mean time in the system [s] when the same requests come `factor` times as far apart."""
    asked = world.requests._replace(arrive=world.requests.arrive * factor)
    done = World(asked, world.rules, world.host, world.costs, world.blocks).run()
    return float((done.finish - done.sent).mean())


@quick
@given(worlds(most_lanes=1, modes=("open",)))
def test_one_server_first_come_first_served_is_monotone_in_load(world: World) -> None:
    """Exact for one request at a time, in order (Lindley's recursion).

    It need not hold for a batch: a request that comes a little later may join a batch that it would have missed, or
    miss one that its own prompt would have slowed down; and shortest-first may let a shorter one pass.
    """
    single = World(world.requests, world.rules._replace(max_seqs=1, order=0), toy.NO_HOST, world.costs, world.blocks)
    assert stretched(single, 2.0) <= stretched(single, 1.0) * (1 + 1e-9)


@pytest.mark.parametrize("policy", [toy.VLLM_V1, toy.VLLM_V0, toy.SGLANG, toy.TRTLLM, toy.TRTLLM_WAIT, toy.ORCA])
def test_batches_are_monotone_in_load_on_average(policy: toy.Rules) -> None:
    asked = toy.poisson(20.0, 600, seed=5)
    world = World(asked, policy, toy.NO_HOST, toy.costs(toy.Toy()), 4_000)
    assert np.all(np.diff([stretched(world, f) for f in (0.5, 1.0, 2.0, 4.0, 8.0)]) < 0)


@quick
@given(worlds(stages=2))
def test_one_replica_needs_no_routing(world: World) -> None:
    one = [World(world.requests, world.rules, world.host, world.costs, world.blocks, 1, world.lanes, Route(r)) for r in (0, 1)]
    assert np.array_equal(one[0].run().finish, one[1].run().finish)


@quick
@given(worlds(modes=("open", "offline")))
def test_round_robin_replicas_are_separate_machines(world: World) -> None:
    asked, n = world.requests, world.replicas
    whole = World(asked, world.rules, world.host, world.costs, world.blocks, n, world.lanes).run()
    for r in range(min(n, len(asked.prompt))):
        mine = asked._replace(**{name: getattr(asked, name)[r::n].copy() for name in ("arrive", "prompt", "output", "cached")})
        alone = World(mine, world.rules, world.host, world.costs, world.blocks, 1, world.lanes).run()
        assert np.array_equal(whole.finish[r::n], alone.finish)


def outstanding(world: World) -> tuple[np.ndarray, np.ndarray]:
    """[R, N] requests sent and not finished when each one arrives, and the replica that it went to."""
    done = world.run()
    counts = np.zeros((len(done.sent), world.replicas), np.int64)
    for i, t in enumerate(done.sent):
        before = (done.sent < t) | ((done.sent == t) & (np.arange(len(done.sent)) < i))
        open_ones = done.replica[before & (done.finish > t)]
        counts[i] = np.bincount(open_ones, minlength=world.replicas)
    return counts, done.replica


@quick
@given(worlds(modes=("open", "offline", "sessions")))
def test_least_outstanding_goes_where_fewest_are(world: World) -> None:
    assume(world.replicas > 1)
    counts, chosen = outstanding(World(world.requests, world.rules, world.host, world.costs, world.blocks,
                                       world.replicas, world.lanes, LEAST))  # fmt: skip
    assert np.array_equal(chosen, counts.argmin(axis=1))


@pytest.mark.parametrize("rate", [20.0, 60.0, 200.0])
def test_least_outstanding_balances_no_worse_than_round_robin(rate: float) -> None:
    spread = []
    for route in (0, 1):
        asked = toy.poisson(rate, 500, seed=11)
        counts, _ = outstanding(World(asked, toy.VLLM_V1, toy.NO_HOST, toy.costs(toy.Toy()), 2_000, 4, 1, Route(route)))
        spread.append(np.ptp(counts, axis=1).mean())
    assert spread[1] <= spread[0]


PYTHON_RUN = """
import sys, numpy as np, test_time
np.savez(sys.argv[1], **test_time.small_runs())
"""


def small_runs() -> dict[str, np.ndarray]:
    """Every result of a few small worlds."""
    costs = [toy.costs(toy.Toy(stages=s, windows=(FULL, 64), floor=9e-3)) for s in (1, 2)]
    found: dict[str, np.ndarray] = {}
    for number, policy in enumerate([toy.VLLM_V1, toy.VLLM_V0, toy.SGLANG, toy.TRTLLM_WAIT]):
        for stages in (1, 2):
            world = World(toy.poisson(40.0, 20, seed=number), policy, Host(1e-6, 1e-3), costs[stages - 1],
                          700 // policy.block, 2, 2, Route(number % 2))  # fmt: skip
            done = world.run()
            found |= {f"{number}-{stages}-{name}": getattr(done, name) for name in TIMES}
    return found


def test_compiled_code_equals_python_bit_for_bit(tmp_path: Path) -> None:
    here = Path(__file__).parent
    folders = (here, here.parent, *(Path(p) for p in sys.path if p))
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join(str(p) for p in folders)}
    subprocess.run([sys.executable, "-c", PYTHON_RUN, str(tmp_path / "python.npz")], env=environment, check=True)
    python, compiled = np.load(tmp_path / "python.npz"), small_runs()
    assert [k for k, v in compiled.items() if v.tobytes() != python[k].tobytes()] == []
