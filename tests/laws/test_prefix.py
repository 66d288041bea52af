"""Prefix caching: the engine agrees with its twin, and keeps the laws of docs/caching.md."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from test_twin import agree

import toy_costs as toy
from apexsim.engine import kernel
from apexsim.engine.types import Requests
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
