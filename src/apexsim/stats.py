"""Distributions in nine numbers, of plain series and of weighted arithmetic progressions (floor 0)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

F8 = NDArray[np.float64]

RANKS = np.array([0.5, 0.75, 0.9, 0.95, 0.99])
NAN = float("nan")


def plain(number: float) -> float | None:
    """The number, or None (JSON null) where it is unknown."""
    return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True)
class Stats:
    """A distribution in nine numbers [s]: percentiles interpolate linearly between order statistics (numpy's
    default), std is that of the population.  All NaN when nothing was measured."""

    mean: float = NAN
    median: float = NAN
    std: float = NAN
    min: float = NAN
    max: float = NAN
    p75: float = NAN
    p90: float = NAN
    p95: float = NAN
    p99: float = NAN

    def value(self, stat: str) -> float:
        """One number; p50 and median are the same."""
        return float(getattr(self, "median" if stat == "p50" else stat))

    def to_json(self, scale: float = 1.0) -> dict[str, float | None]:
        """Every number times `scale`, None where it is unknown."""
        return {name: plain(number * scale) for name, number in asdict(self).items()}


def stats_of(values: F8) -> Stats:
    """The nine numbers of one series."""
    n = len(values)
    if n == 0:
        return Stats()
    at = RANKS * (n - 1)
    low = at.astype(np.int64)
    high = np.minimum(low + 1, n - 1)
    y = np.partition(values, np.concatenate(([0, n - 1], low, high))) if n > 4096 else np.sort(values)
    q, least, most = y[low] + (at - low) * (y[high] - y[low]), float(y[0]), float(y[-1])
    mean = float(values.sum()) / n
    np.subtract(values, mean, out=y)  # at ten million values each copy is 80 MB
    y *= y
    return _stats(mean, math.sqrt(float(y.sum()) / n), least, most, q)


def _stats(mean: float, std: float, low: float, high: float, q: F8) -> Stats:
    median, p75, p90, p95, p99 = (float(x) for x in q)
    return Stats(mean, median, std, low, high, p75, p90, p95, p99)


def segment_stats(first: F8, slope: F8, steps: F8, weight: F8) -> Stats:
    """Statistics of all values first, first + slope, … (`steps` of them), each counted `weight` times.

    The same numbers as numpy would give for the expanded series (to rounding): order statistics are found by
    bracketing in bins of the float's leading bits, then bisection over the segments that cross the bracket.
    """
    if len(first) == 0:
        return Stats()
    last = first + slope * (steps - 1.0)
    low, high, count = np.minimum(first, last), np.maximum(first, last), steps * weight
    n = float(count.sum())
    mean = float((count * (first + last)).sum()) / (2.0 * n)  # not @: its last bits depend on the number of cores
    off = 0.5 * (first + last) - mean
    spread = slope * slope * (steps * steps - 1.0) / 12.0  # variance of an arithmetic progression
    std = math.sqrt(max(float((count * (off * off + spread)).sum()) / n, 0.0))
    at = RANKS * (n - 1.0)
    tilt = np.abs(slope)
    q = _order_statistics((low, high, tilt, steps, weight), count, np.floor(at))
    return _stats(mean, std, float(low.min()), float(high.max()), q[:, 0] + (at - np.floor(at)) * (q[:, 1] - q[:, 0]))


def weighted_stats(values: F8, weight: F8) -> Stats:
    """Statistics of values, each counted `weight` times; the numbers of `segment_stats` of one step each, in less memory."""
    if len(values) == 0:
        return Stats()
    n = float(weight.sum())
    part = weight * values
    mean = float(part.sum()) / n
    np.subtract(values, mean, out=part)
    part *= part
    part *= weight
    std = math.sqrt(max(float(part.sum()) / n, 0.0))
    del part
    at = RANKS * (n - 1.0)
    q = _order_statistics((values, values, None, None, weight), weight, np.floor(at))
    return _stats(mean, std, float(values.min()), float(values.max()), q[:, 0] + (at - np.floor(at)) * (q[:, 1] - q[:, 0]))


SHIFT = 44  # low bits of a float that bins ignore: 2⁸ bins per octave
FEW = 1500  # values that are simply sorted
Segments = tuple[F8, F8, F8 | None, F8 | None, F8]  # low, high, tilt, steps, weight; without tilt and steps: single values
MARGIN = 0.02  # share of the bracket kept on either side of an interpolated guess


def _order_statistics(segments: Segments, count: F8, k: F8) -> F8:
    """Values number k and k + 1 (from 0; the last has no successor) of the expanded segments [len(k), 2]."""
    low, high, tilt, steps, weight = segments
    keys_low = _keys(low)
    keys_high = keys_low if high is low else _keys(high)
    base = int(keys_low.min())
    bins = int(keys_high.max()) + 1 - base
    keys_low -= base
    if keys_high is not keys_low:
        keys_high -= base
    begun = np.bincount(keys_low, count, bins).cumsum()  # values of segments that begin in this bin or before
    ended = begun if keys_high is keys_low else np.bincount(keys_high, count, bins).cumsum()
    after = np.minimum(k + 1.0, ended[-1] - 1.0)
    first_bin = begun.searchsorted(k, "right")
    last_bin = np.minimum(ended.searchsorted(after, "right"), bins - 1)
    found = np.empty((len(k), 2))
    for i, (a, b) in enumerate(zip(first_bin, last_bin)):
        some = np.flatnonzero((keys_high >= a) & (keys_low <= b))
        below = ended[a - 1] if a else 0.0
        edges = (np.array([a, b + 1]) + base << SHIFT).view(np.float64)
        wanted = np.array([k[i], after[i]]) - below
        if tilt is None or steps is None:
            found[i] = _picked(low[some], weight[some], wanted)
        else:
            found[i] = _select((low[some], high[some], tilt[some], steps[some], weight[some]), wanted, edges)
    return found


def _picked(values: F8, weight: F8, k: F8) -> F8:
    """Values number k[0] and k[1] of some, each counted `weight` times."""
    order = values.argsort()
    at = weight[order].cumsum().searchsorted(k, "right")
    return values[order[np.minimum(at, len(order) - 1)]]


def _keys(values: F8) -> NDArray[np.int64]:
    """The leading bits of floats, as numbers in their order."""
    keys: NDArray[np.int64] = np.maximum(values, 1e-12).view(np.int64)
    keys >>= SHIFT
    return keys


def _select(segments: tuple[F8, F8, F8, F8, F8], k: F8, edges: F8) -> F8:
    """Values number k[0] and k[1] (the same or the next) of some segments, looked for between two edges."""
    low, high, tilt, steps, weight = segments
    flat = high <= low * (1.0 + 1e-15)
    weight = np.where(flat, weight * steps, weight)
    steps = np.where(flat, 1.0, steps)
    per = 1.0 / np.where(flat, 1.0, tilt)
    begin, end = np.zeros(len(low)), steps  # values begin … end − 1 of each segment are still in question
    bottom, top = max(float(edges[0]), float(low.min())), min(float(edges[1]), float(high.max()))
    below, above, smooth = 0.0, float(weight @ steps), False
    while float((end - begin).sum()) > FEW and top - bottom > 1e-13 * top:
        width = top - bottom
        guess = min(max((k[0] - below) / (above - below), 0.02), 0.98) if smooth else 0.5
        marks = bottom + width * np.array((guess - MARGIN, guess + MARGIN) if smooth else (0.25, 0.5, 0.75))
        up_to = np.clip(np.floor((marks[:, None] - low) * per) + 1.0, begin, end)
        n = below + (up_to - begin) @ weight
        x, y = int(n.searchsorted(k[0], "right")), int(n.searchsorted(k[1], "right"))
        if x == 0 and y == len(marks):  # all marks lie between the two values
            return np.array([_select(segments, np.full(2, one), edges)[0] for one in k])
        if y < len(marks):
            top, above, end = marks[y], n[y], up_to[y]
        if x > 0:
            bottom, below, begin = marks[x - 1], n[x - 1], up_to[x - 1]
        smooth = top - bottom < 0.5 * width
        some = end > begin
        low, per, tilt, weight = low[some], per[some], tilt[some], weight[some]
        begin, end = begin[some], end[some]
    if top - bottom <= 1e-13 * top:
        return np.array([top, top])
    number = (end - begin).astype(np.int64)
    which = np.repeat(np.arange(len(low)), number)
    j = np.arange(len(which)) - np.repeat(number.cumsum() - number, number) + begin[which]
    values = low[which] + tilt[which] * j
    order = values.argsort()
    at = weight[which][order].cumsum().searchsorted(k - below, "right")
    return values[order][np.minimum(at, len(order) - 1)]
