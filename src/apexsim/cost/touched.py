"""How many experts a batch touches: as a router draws them, and as the tables' sampler laid them out (floor 3).

At small batches experts take as long as reading the weights of those that any token chose.  A router with popularities i^-s (i = 1 … E)
chooses expert i with a probability p_i per token, in proportion to them, capped at 1 and together k:

    drawn(t)   = sum over i of 1 - (1 - p_i)^t                       s = 0: E (1 - (1 - k/E)^t)

The tables' power law lays t·k pairs out once instead: E loads at the quantiles of a density x^-a on [1, 0.8 t], or on [0.01, 2] while
t·k ≤ E, are scaled to t·k pairs, rounded and capped at t; pairs left over go to the emptiest experts, missing ones are taken from the
fullest (collector of aiconfigurator, helper.py, Apache-2.0).  So nearly all pairs meet experts of their own while t·k ≤ E, fewer than any
router would touch just below, and half as many again just above: the tables have a dent there that no engine has.

Between two batches that were timed `laid_out` is linear, as their times are.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SPARSE, DENSE = (0.01, 2.0), (1.0, 0.8)  # range of the law's density, the upper end of DENSE per token


@lru_cache(maxsize=256)
def _chances(experts: int, top_k: int, skew: float) -> Array:
    """[E] chance of each expert to be among the k of a token."""
    popular = np.arange(1.0, experts + 1.0) ** -skew
    chance, free = np.ones(experts), np.ones(experts, bool)
    for _ in range(top_k + 1):  # each round caps one expert at least, k of them at most
        chance = np.where(free, (top_k - (~free).sum()) * popular / popular[free].sum(), 1.0)
        over = free & (chance > 1.0)
        if not over.any():
            break
        free &= ~over
    return np.minimum(chance, 1.0 - 1e-12)


def drawn(tokens: Array, experts: int, top_k: int, skew: float) -> Array:
    """Mean number of experts [T] that any of so many tokens [T] chooses."""
    if top_k >= experts:
        return np.full(np.shape(tokens), float(experts))
    idle = np.log1p(-_chances(experts, top_k, skew))
    return np.asarray(-np.expm1(np.asarray(tokens, float)[..., None] * idle).sum(axis=-1))


def laid_out(tokens: Array, experts: int, top_k: int, power: float, timed: Array) -> Array:
    """Experts [T] that the tables' sampler gives any pair; timed: batches of the table."""
    return np.asarray(np.interp(tokens, timed, _layout(experts, top_k, power, tuple(float(t) for t in timed))))


@lru_cache(maxsize=256)
def _layout(experts: int, top_k: int, power: float, timed: tuple[float, ...]) -> Array:
    return np.array([_sampled(t, experts, top_k, power) for t in timed])


def _sampled(tokens: float, experts: int, top_k: int, power: float) -> float:
    """Experts with any pair, loads at the quantiles of the law."""
    pairs, end = tokens * top_k, 1.0 - power
    low, high = SPARSE if pairs <= experts else (DENSE[0], max(DENSE[0], DENSE[1] * tokens))
    at = (np.arange(experts) + 0.5) / experts
    loads = ((high**end - low**end) * at + low**end) ** (1.0 / end)
    counts = np.round(loads / loads.sum() * pairs)
    left = pairs - np.minimum(counts, tokens).sum()  # over: to the emptiest, each at first to one that has none
    return float(min((counts > 0).sum() + max(left, 0.0), pairs, experts))
