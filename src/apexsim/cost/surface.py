"""Times of one kernel on one GPU, from one measured table (floor 3).

A table holds seconds of the shapes that were timed (its rows; none where every size is an axis) over sizes.  Between two sizes time is
interpolated linearly; beyond the grid, and for a shape that was not timed, the utilisation of the nearest cell is held:
    t = launch + (t_near - launch) · ideal / ideal_near
What kernels of one family have in common stands in a `Kind`; which shape is near another, each family's module says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apexsim.cost.grid import bracket, fill, multilinear
from apexsim.cost.kernels import Table
from apexsim.cost.roofline import Array, Peaks, Priced, Provenance, Work, ideal, transfer, worst

LAUNCH_SHARE = 0.9  # of the shortest time of a table, taken for its kernel's launch: the smallest size that was timed is some work too


Demand = Callable[..., Work]  # (shape, *sizes) -> FLOP and bytes


class Match(NamedTuple):
    """A row that stands for the shape asked for; distance 0 means it is the same."""

    row: tuple[int, ...] = ()
    distance: float = 0.0
    scale: float = 1.0  # measured first size (batch, tokens) per one asked for


SAME = Match()


class Lent(NamedTuple):
    """Where an engine borrows another's table: a shape that both engines were timed at, in both tables.

    The lender's curve is right for the shape, but not for the engine; what the engines differ by is read off at this shape:
        t = lender(shape, sizes) · own(common, sizes) / lender(common, sizes)
    """

    own: Surface
    mine: Match
    lender: Surface
    theirs: Match

    def ratio(self, sizes: Sequence[ArrayLike]) -> Array:
        """Own over lender's seconds at the common shape, at the nearest sizes that both tables reach."""
        scales = [self.mine.scale] + [1.0] * (len(sizes) - 1)
        axes = zip(self.own.sizes, self.lender.sizes, strict=True)
        reach = [(max(a[0], b[0]), min(a[-1], b[-1])) for a, b in axes]
        at = [np.clip(np.asarray(size, float) * scale, *ends) for size, scale, ends in zip(sizes, scales, reach, strict=True)]
        common = self.own.shape(self.mine.row)
        own, lender = (surface.price(Match(match.row), common, *at).seconds for surface, match in (self[:2], self[2:]))
        return np.asarray(own / lender)


def held(seconds: Array, best: Array, along: Array) -> Array:
    """Times with their holes filled at the utilisation of the nearest cell."""
    del along
    return np.asarray(best / fill(best / seconds)[0])


def in_proportion(seconds: Array, launch: float, here: Array, there: Array) -> Array:
    """Times that grow with the ideal, launch and all."""
    del launch
    return seconds * (there / here)


@dataclass(frozen=True, slots=True)
class KernelKind:
    """What the kernels of a table have in common.

    sizes: axes between whose points time is interpolated; work: what they demand; compute: the units it uses;
    shape, rows: what a row of which axis is, none where every size is an axis; along: shape -> what time is linear in along the last size;
    complete: (times [*sizes] with NaN, ideal times, last size along) -> times; beyond: (times, launch, ideal times at the edge and beyond)
    -> times, of other shapes too.
    """

    sizes: tuple[str, ...]
    work: Demand
    compute: str = "bf16"
    shape: Callable[[Any], Any] | None = None
    rows: str = "shape"
    along: Callable[[Any], Callable[[Array], Array] | None] = lambda shape: None
    complete: Callable[[Array, Array, Array], Array] = held
    beyond: Callable[[Array, float, Array, Array], Array] = transfer


class Surface:
    """Seconds over rows and sizes on the GPU that was measured, whose peaks are `peaks`."""

    def __init__(self, table: Table, peaks: Peaks, kind: KernelKind) -> None:
        self.kind, self.peaks, self.axes, self.seconds = kind, peaks, table.axes, table.seconds
        self.sizes = [table.axes[name].astype(float) for name in kind.sizes]
        self.shapes: list[Any] = [kind.shape(row) for row in table.axes[kind.rows].tolist()] if kind.shape else [None]
        self.launch = LAUNCH_SHARE * float(np.nanmin(table.seconds))
        self._planes: dict[tuple[int, ...], tuple[Array, NDArray[np.bool_]]] = {}

    def shape(self, row: tuple[int, ...]) -> Any:
        """The shape of a row."""
        return self.shapes[row[0] if row else 0]

    def best(self, shape: Any, *sizes: Array) -> Array:
        """Ideal time [s]."""
        return ideal(*self.kind.work(shape, *sizes), self.peaks, self.kind.compute)

    def plane(self, row: tuple[int, ...]) -> tuple[Array, NDArray[np.bool_]]:
        """Seconds [*sizes] of a row, holes filled, and the mask of holes."""
        if row not in self._planes:
            shape, last = self.shape(row), self.sizes[-1]
            along = self.kind.along(shape)
            best = self.best(shape, *np.meshgrid(*self.sizes, indexing="ij", sparse=True))
            filled = self.kind.complete(self.seconds[row], best, last if along is None else along(last))
            self._planes[row] = filled, np.isnan(self.seconds[row])
        return self._planes[row]

    def price(self, match: Match, shape: Any, *sizes: ArrayLike) -> Priced:
        """Seconds of a shape for which a row stands; sizes broadcast."""
        scales, near = [match.scale] + [1.0] * (len(sizes) - 1), self.shape(match.row)
        asked = [np.asarray(size, float) for size in sizes]
        along = [None] * (len(sizes) - 1) + [self.kind.along(near)]
        at = [bracket(axis, size * scale, line) for axis, size, scale, line in zip(self.sizes, asked, scales, along, strict=True)]
        seconds, label = multilinear(*self.plane(match.row), at)
        if match.distance == 0 and not (label == Provenance.EXTRAPOLATED).any():
            return Priced(seconds, label)
        here = self.best(near, *(b.inside for b in at))
        there = self.best(shape, *(np.maximum(size, axis[0] / scale) for axis, size, scale in zip(self.sizes, asked, scales, strict=True)))
        if match.distance > 0:
            label = worst(label, Provenance.TRANSFERRED)
        return Priced(self.kind.beyond(seconds, self.launch, here, there), label)
