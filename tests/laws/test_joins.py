"""Requests that wait for several others are sent when all of these have let them go."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from test_twin import agree

import toy_costs as toy
from apexsim.engine import kernel
from worlds import World, graphs, worlds

few = settings(max_examples=100, deadline=None, derandomize=True)


@few
@given(graphs(worlds(modes=("sessions",))))
def test_twin(world: World) -> None:
    agree(world)


@few
@given(graphs(worlds(modes=("sessions",))))
def test_nobody_is_sent_before_those_he_waits_for(world: World) -> None:
    asked, found = world.requests, world.run()
    assert (found.sent[asked.join] >= found.finish[asked.join_after] + asked.join_delay - 1e-9).all()
    after = np.flatnonzero(asked.after >= 0)
    assert (found.sent[after] >= found.finish[asked.after[after]] + asked.delay[after] - 1e-9).all()


def test_the_last_of_them_counts() -> None:
    """A parent, two that it calls, and one that waits for both of these."""
    asked = toy.open_loop([0.0] * 4, [10, 10, 10, 10], [2, 2, 200, 2])._replace(
        after=np.array([-1, 0, 0, 1]), delay=np.zeros(4), join=np.array([3]), join_after=np.array([2]), join_delay=np.array([0.5])
    )
    found = kernel.simulate(asked, toy.VLLM_V1, toy.NO_HOST, toy.costs(toy.Toy()), 400)
    assert found.finish[1] < found.finish[2] and abs(found.sent[3] - found.finish[2] - 0.5) < 1e-9
