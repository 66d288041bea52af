"""Interpolation of dense grids of times (floor 3).

Between two measured sizes a kernel takes launch + work / rate, so time is interpolated linearly in the work (the size,
unless a position is given), not in logarithms: on the shipped tables that is unbiased, where log-log interpolation is
1-4 % too slow (docs/kernels.md).  Beyond the grid the caller holds the utilisation of the edge.  Holes (NaN) are filled
at held utilisation when a table is opened, and remembered, so that a price built on a filled cell is labelled
extrapolated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apexsim.cost.roofline import Array, Provenance


class Bracket(NamedTuple):
    """Neighbours of each query: lower and upper index, weight of the upper, the clipped query, and its label."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    weight: Array
    inside: Array
    label: NDArray[np.int8]


def bracket(sizes: Array, query: ArrayLike, position: Callable[[Array], Array] | None = None) -> Bracket:
    """Neighbours of `query` among ascending sizes; beyond an end both neighbours are that end.

    position: a rising function of the size in which time is interpolated; the size itself when not given.
    """
    x = np.asarray(query, float)
    inside = np.minimum(np.maximum(x, sizes[0]), sizes[-1])
    high = np.searchsorted(sizes, inside, side="left")
    exact = sizes[high] == inside
    low = np.where(exact, high, high - 1)
    at, here = (sizes, inside) if position is None else (position(sizes), position(inside))
    gap = np.where(exact, 1.0, at[high] - at[low])
    label = np.where(inside != x, Provenance.EXTRAPOLATED, np.where(exact, 0, Provenance.INTERPOLATED))
    return Bracket(low, high, (here - at[low]) / gap, inside, label.astype(np.int8))


def fill(values: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Fill NaN along the last axis from the nearest lower index, then the nearest higher, then along the axes before.

    A hole at a large size thus holds the value of the largest measured one.  Returns the filled copy and the mask of
    cells that were holes.
    """
    holes = np.isnan(values)
    out = values
    for dim in range(values.ndim - 1, -1, -1):
        if not np.isnan(out).any():
            break
        along = np.moveaxis(out, dim, -1)
        out = np.moveaxis(_push(_push(along)[..., ::-1])[..., ::-1], -1, dim)
    return np.ascontiguousarray(out), holes


def bridged(seconds: Array, position: Array) -> Array:
    """Holes between two measured sizes of the last axis filled linearly in `position`, its sizes; others stay NaN."""
    out = seconds.reshape(-1, seconds.shape[-1]).copy()
    holes = np.isnan(out)
    for row in np.flatnonzero(holes.any(axis=1) & ~holes.all(axis=1)):
        known = np.flatnonzero(~holes[row])
        inside = np.flatnonzero(holes[row])
        inside = inside[(inside > known[0]) & (inside < known[-1])]
        out[row, inside] = np.interp(position[inside], position[known], out[row, known])
    return out.reshape(seconds.shape)


def continued(seconds: Array, best: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Times [batch, length] with their holes filled, and the mask of holes; best: the ideal times of all cells.

    Tables of attention end on a diagonal: no long contexts at large batches.  Beyond the last length measured at a batch the
    smaller of two times is taken: that at the higher utilisation of the two nearest measured neighbours (this batch at its last
    length, this length at its last batch), since more work never uses a GPU worse; and the straight line through the last two
    lengths of this batch, over the ideal time and never steeper than its rate allows.  Other holes hold the utilisation of a neighbour.

    With the cells of the shipped tables beyond a quarter of their largest work hidden, decode: median 10.0 -> 2.2 %, bias +7.7 ->
    0.1 % against holding the utilisation along the length; prefill 13 -> 4.8 % (scripts/holdout_attention.py).
    """
    along, holes = fill(best / seconds)
    across = np.ascontiguousarray(fill(np.ascontiguousarray((best / seconds).T))[0].T)
    held = best / np.maximum(along, across)
    known = ~holes
    last = known.shape[1] - 1 - known[:, ::-1].argmax(axis=1)  # of each batch; of one without any, the end
    out = best / along
    for i in np.flatnonzero(known.any(axis=1)):
        end = int(last[i])
        out[i, end + 1 :] = np.minimum(held[i, end + 1 :], _line(seconds[i], best[i], np.flatnonzero(known[i])[-2:], end + 1))
    out[~known.any(axis=1)] = held[~known.any(axis=1)]
    return out, holes


def _line(seconds: Array, best: Array, ends: NDArray[np.intp], start: int) -> Array:
    """The line through the last measured points, over the ideal time, from index `start` on."""
    a, b = int(ends[0]), int(ends[-1])
    rise = best[b] - best[a]
    slope = max((seconds[b] - seconds[a]) / rise, 1.0) if rise > 0 else seconds[b] / best[b]
    return np.asarray(seconds[b] + slope * (best[start:] - best[b]))


def _push(values: Array) -> Array:
    """Carry the last number before each NaN along the last axis."""
    index = np.where(np.isnan(values), 0, np.arange(values.shape[-1]))
    np.maximum.accumulate(index, axis=-1, out=index)
    return np.take_along_axis(values, index, axis=-1)


def multilinear(values: Array, holes: NDArray[np.bool_], at: Sequence[Bracket]) -> tuple[Array, NDArray[np.int8]]:
    """Interpolate values at one bracket per axis, all broadcastable, the last axis first; labels are the worst of axes and cells used.

    Last axes that are asked at one size only (n and k of a product) leave a smaller grid, once for all queries."""
    label = reduce(np.maximum, (b.label for b in at))
    while at and at[-1].low.ndim == 0:
        *at, last = at
        low, high, weight = int(last.low), int(last.high), float(last.weight)
        values = values[..., low] * (1 - weight) + values[..., high] * weight
        holes = holes[..., low] | holes[..., high]
    if holes.any():
        filled = reduce(np.logical_or, (holes[corner] for corner in product(*((b.low, b.high) for b in at))))
        label = np.maximum(label, np.where(filled, np.int8(Provenance.EXTRAPOLATED), np.int8(0)))
    return _blend(values, at), label


def _blend(values: Array, at: Sequence[Bracket], corner: tuple[NDArray[np.intp], ...] = ()) -> Array:
    """Values weighted between the neighbours on the axes that `corner` leaves open."""
    if not at:
        return np.asarray(values[corner])
    low, high = (_blend(values, at[1:], (*corner, end)) for end in (at[0].low, at[0].high))
    return low * (1 - at[0].weight) + high * at[0].weight


def rising(seconds: Array, along: int = -1) -> Array:
    """The smallest curve that never falls along an axis and lies on or above `seconds`.

    Measured times dip where a kernel switches tile; work never costs less by being more, since an engine may pad.
    """
    return np.maximum.accumulate(seconds, axis=along)


def settled(seconds: Array, along: int = -1) -> Array:
    """A curve that never falls along an axis: halfway, in logarithms, between the smallest such one above and the largest below.

    A dip and a spike weigh alike, so that a single odd point moves its neighbours by half of what `rising` would, on either side.
    """
    above = np.maximum.accumulate(seconds, axis=along)
    below = np.flip(np.minimum.accumulate(np.flip(seconds, along), axis=along), along)
    return np.asarray(np.sqrt(above * below))


def convex_minorant(x: Array, y: Array) -> Array:
    """The greatest convex function below the points (x ascending, y), at x: their lower hull."""
    keep: list[int] = []
    xs, ys = x.tolist(), y.tolist()
    for i in range(len(xs)):
        while len(keep) > 1:
            a, b = keep[-2], keep[-1]
            if (ys[b] - ys[a]) * (xs[i] - xs[a]) < (ys[i] - ys[a]) * (xs[b] - xs[a]):
                break
            keep.pop()
        keep.append(i)
    return np.interp(x, x[keep], y[keep])
