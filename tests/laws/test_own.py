"""Who was thrown out finds what is left of its own blocks: by places in the queue as by keys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from apexsim.engine.types import ADMIT_CHUNK, ADMIT_RESERVE, AT_ONCE, IN_TURN, NO_REUSE
from worlds import World, drafted, tight, worlds

ALIKE = ("sent", "start", "first", "finish", "preempted", "replica", "hist", "sums", "read")


@st.composite
def crowded(draw: st.DrawFn, stages: int = 1) -> World:
    """A world without shared prefixes whose engine keeps what blocks hold, often short of blocks."""
    world = draw(worlds(stages, most_lanes=1))  # who comes back to another lane finds nothing, and forgets what he had
    if draw(st.booleans()):
        world = tight(world)
    asked = world.requests._replace(cached=np.zeros_like(world.requests.prompt))
    policy = world.rules._replace(reuse=AT_ONCE, rest_first=draw(st.integers(0, 1)))
    if policy.admission == ADMIT_RESERVE:
        policy = policy._replace(admission=ADMIT_CHUNK)
    return replace(world, requests=asked, rules=policy, route=IN_TURN)


def keyed(world: World) -> World:
    """The same where every request has a chain that it shares with nobody."""
    size = len(world.requests.prompt)
    ids = np.arange(size)
    return replace(world, requests=world.requests._replace(chain=ids, chain_at=ids, reach=np.zeros(size, np.int64), unit=1))


@pytest.mark.parametrize("base", [crowded(), crowded(2), drafted(crowded())], ids=["one stage", "two stages", "drafts"])
def test_places_say_what_keys_say(base: st.SearchStrategy[World]) -> None:
    found = []

    @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(base)
    def compare(world: World) -> None:
        plain, known = world.run(), keyed(world).run()
        assert [name for name in ALIKE if getattr(plain, name).tobytes() != getattr(known, name).tobytes()] == []
        if plain.preempted.any():
            forgetful = replace(world, rules=world.rules._replace(reuse=NO_REUSE)).run()
            found.append(forgetful.finish.tobytes() != plain.finish.tobytes())

    compare()
    assert sum(found) >= 10  # worlds in which it matters


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(crowded())
def test_nobody_else_is_asked(world: World) -> None:
    """Without anybody thrown out nothing differs from an engine that keeps nothing."""
    kept, lost = world.run(), replace(world, rules=world.rules._replace(reuse=NO_REUSE)).run()
    assume(not lost.preempted.any())
    assert all(getattr(kept, name).tobytes() == getattr(lost, name).tobytes() for name in ALIKE)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(crowded())
def test_jumping_and_stepping_agree(world: World) -> None:
    jump, step = world.run(), world.run(jump=False)
    assert np.array_equal(jump.preempted, step.preempted)
    np.testing.assert_allclose(jump.finish, step.finish, rtol=1e-9)
