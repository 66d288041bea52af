"""The engine does what docs/mechanisms.md says: it agrees with the twin that was written from that page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apexsim.engine.types import LEAST_OUTSTANDING, LEAST_WAITING, POWER_OF_TWO
from worlds import World, all_gaps, drafted, stories, tight, worlds

LOADS = (LEAST_OUTSTANDING, POWER_OF_TWO, LEAST_WAITING)
few = settings(max_examples=60, deadline=None, derandomize=True)
many = settings(max_examples=120, deadline=None, derandomize=True)


def agree(world: World) -> None:
    """Same times, routes, preemptions, gaps and steps."""
    engine, twin = world.run(), world.twin()
    for name in ("replica", "preempted"):
        np.testing.assert_array_equal(getattr(engine, name), twin.column(name), name)
    for name in ("sent", "start", "first", "finish"):
        np.testing.assert_allclose(getattr(engine, name), twin.column(name), rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(all_gaps(engine.gaps), twin.gaps(), rtol=1e-9, atol=1e-9)
    steps = np.zeros_like(engine.hist)
    for step in twin.steps:
        steps[step.replica, step.kind, step.tokens] += 1
    np.testing.assert_array_equal(engine.hist, steps)


@many
@given(worlds())
def test_one_stage(world: World) -> None:
    agree(world)


@few
@given(st.sampled_from([2, 3]).flatmap(lambda stages: worlds(stages, most_lanes=2)))
def test_several_stages(world: World) -> None:
    agree(world)


@many
@given(worlds().map(tight))
def test_few_blocks(world: World) -> None:
    agree(world)


@few
@given(worlds(stages=2).map(tight))
def test_few_blocks_and_two_stages(world: World) -> None:
    agree(world)


@many
@given(drafted(worlds()))
def test_drafts(world: World) -> None:
    agree(world)


@many
@given(drafted(worlds().map(tight)))
def test_drafts_and_few_blocks(world: World) -> None:
    agree(world)


@few
@given(drafted(st.sampled_from([2, 3]).flatmap(lambda stages: worlds(stages, most_lanes=2))))
def test_drafts_and_several_stages(world: World) -> None:
    agree(world)


@few
@given(drafted(stories()))
def test_drafts_and_prefixes(world: World) -> None:
    agree(world)


@many
@given(worlds(modes=("sessions", "stages", "closed")), st.sampled_from([0.003, 0.01, 0.05, 0.3]), st.sampled_from(LOADS))
def test_who_is_called_and_signals_of_any_age(world: World, age: float, kind: int) -> None:
    """The router looks on time, though nobody knows who is sent next before somebody has finished."""
    agree(replace(world, replicas=max(2, world.replicas), route=world.route._replace(age=age, kind=kind)))
