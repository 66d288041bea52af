"""How far a prediction may be off, as a distribution of log(measured / predicted) (floor 0).

It has two parts.  The *offset* is shared by every run of one system (model, GPU, engine release, format): what is wrong with its
kernels or its host constants is wrong in all of them, so it cancels between two layouts of one study.  The *rest* differs from run to
run.  Both are Student t with three degrees of freedom, scaled: systems that nobody measured miss by much now and then.

`chances` and `quantile` sum over the rest's quantiles, which is exact to the third digit and needs no table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVELS = (68, 80, 95)  # per cent of an interval
NODES = 256  # quantiles of the rest
FAR = 1e3  # scales: beyond any quantile that is asked for
SIGMA = 1.1889  # the quantile of T at 0.84: what a robust standard deviation is in scales


def below(x: Array | float) -> Array:
    """P(T <= x) of Student's t with three degrees of freedom."""
    z = np.asarray(x, float) / math.sqrt(3.0)
    return np.asarray(0.5 + (z / (1.0 + z * z) + np.arctan(z)) / math.pi)


@lru_cache(maxsize=1)
def _nodes() -> Array:
    """Quantiles of T at the middles of NODES equal shares [NODES]."""
    shares = (np.arange(NODES) + 0.5) / NODES
    low, high = np.full(NODES, -FAR), np.full(NODES, FAR)
    for _ in range(60):
        middle = 0.5 * (low + high)
        under = below(middle) < shares
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return np.asarray(0.5 * (low + high))


@dataclass(frozen=True, slots=True)
class Doubt:
    """Scales of the two parts of log(measured / predicted); 0 is certainty."""

    offset: float
    rest: float

    def chance(self, log_ratio: float) -> float:
        """P(measured <= predicted · exp(log_ratio)) in [0, 1]."""
        if self.offset <= 0.0 and self.rest <= 0.0:
            return float(log_ratio >= 0.0)
        wide, narrow = max(self.offset, self.rest), min(self.offset, self.rest)
        return float(below((log_ratio - narrow * _nodes()) / wide).mean())

    def quantile(self, share: float) -> float:
        """The log ratio that `share` of measured values stay under; share in (0, 1)."""
        return _quantile(self.offset, self.rest, share)

    def interval(self, level: float) -> tuple[float, float]:
        """Factors between which measured / predicted lies in `level` per cent of all cases."""
        half = self.quantile(0.5 + level / 200.0)
        return math.exp(-half), math.exp(half)

    @property
    def half(self) -> float:
        """Half width of the 68 % interval in logs: the ± that is shown."""
        return self.quantile(0.84)

    def wider(self, offset: float, rest: float = 0.0) -> Doubt:
        """With further independent causes, added in squares."""
        return Doubt(math.hypot(self.offset, offset), math.hypot(self.rest, rest))


CERTAIN = Doubt(0.0, 0.0)


@lru_cache(maxsize=4096)
def _quantile(offset: float, rest: float, share: float) -> float:
    doubt = Doubt(offset, rest)
    high = FAR * (offset + rest)
    low = -high
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if doubt.chance(middle) < share else (low, middle)
    return 0.5 * (low + high)


@lru_cache(maxsize=4096)
def both(one: float, other: float, correlation: float) -> float:
    """P(two things happen) of their chances, where their normal scores are so correlated (Gaussian copula).

    ∫ Φ((Φ⁻¹(v) − ρ Φ⁻¹(t)) / √(1 − ρ²)) dt from 0 to u, by the middles of NODES equal shares; 0: their product."""
    u, v = min(one, other), max(one, other)
    if u <= 0.0 or v >= 1.0:
        return max(u, 0.0)
    normal, left = NormalDist(), math.sqrt(1.0 - correlation**2)
    at = normal.inv_cdf(v)
    held = [normal.cdf((at - correlation * normal.inv_cdf(u * (i + 0.5) / NODES)) / left) for i in range(NODES)]
    return min(u, max(u + v - 1.0, u * math.fsum(held) / NODES))


def intervals(value: float, doubt: Doubt) -> dict[str, tuple[float, float]]:
    """{"68": (low, high), "80": …, "95": …} around a predicted value, in its unit."""
    return {str(level): (value * low, value * high) for level in LEVELS for low, high in [doubt.interval(level)]}
