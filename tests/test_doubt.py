"""The distribution behind error bars: chances and quantiles agree, with each other and with drawn numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from apexsim.doubt import LEVELS, SIGMA, Doubt, below, both, intervals

PARTS = [(0.1, 0.05), (0.05, 0.1), (0.2, 0.0), (0.0, 0.3), (0.1, 0.1)]


@pytest.mark.parametrize("offset, rest", PARTS)
def test_intervals_hold_as_often_as_they_say(offset: float, rest: float) -> None:
    draw = np.random.default_rng(1)
    drawn = np.abs(offset * draw.standard_t(3, 400_000) + rest * draw.standard_t(3, 400_000))
    for level in LEVELS:
        low, high = Doubt(offset, rest).interval(level)
        assert low * high == pytest.approx(1.0)
        assert abs(float(np.mean(drawn <= math.log(high))) - level / 100) < 0.003


@pytest.mark.parametrize("offset, rest", PARTS)
def test_a_quantile_is_where_the_chance_is_its_share(offset: float, rest: float) -> None:
    doubt = Doubt(offset, rest)
    for share in (0.01, 0.3, 0.5, 0.84, 0.99):
        assert doubt.chance(doubt.quantile(share)) == pytest.approx(share, abs=1e-9)
    assert doubt.quantile(0.5) == pytest.approx(0.0, abs=1e-9) and doubt.quantile(0.05) == pytest.approx(-doubt.quantile(0.95), rel=1e-6)


def test_more_causes_are_more_doubt_and_none_is_certainty() -> None:
    assert Doubt(0.1, 0.1).half < Doubt(0.1, 0.1).wider(0.05).half < Doubt(0.1, 0.1).wider(0.05, 0.2).half
    assert Doubt(0.0, 0.0).chance(0.0) == 1.0 and Doubt(0.0, 0.0).chance(-1e-9) == 0.0
    assert float(below(SIGMA)) == pytest.approx(0.84, abs=1e-4)
    assert list(intervals(2.0, Doubt(0.1, 0.0))) == ["68", "80", "95"] and intervals(2.0, Doubt(0.0, 0.0))["95"] == pytest.approx(
        (2.0, 2.0)
    )


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.33, 0.9])
def test_two_chances_together_lie_between_the_bounds_and_rise_with_each(correlation: float) -> None:
    shares = (0.0, 0.02, 0.3, 0.5, 0.95, 0.999, 1.0)
    for one in shares:
        found = [both(one, other, correlation) for other in shares]
        assert found == sorted(found) and found[0] == 0.0 and found[-1] == one
        assert all(one + other - 1.0 - 1e-12 <= value <= min(one, other) for other, value in zip(shares, found))
        assert found == [both(other, one, correlation) for other in shares]


def test_two_chances_together_are_those_of_drawn_numbers() -> None:
    """Sheppard: P of two halves is 1/4 + asin(ρ) / 2π; without correlation it is the product."""
    for correlation in (-0.6, 0.33, 0.8):
        assert both(0.5, 0.5, correlation) == pytest.approx(0.25 + math.asin(correlation) / (2 * math.pi), abs=1e-4)
    assert both(0.9, 0.7, 0.0) == pytest.approx(0.63, rel=1e-9) and both(0.9, 0.95, 0.5) > 0.9 * 0.95 > both(0.9, 0.95, -0.5)
