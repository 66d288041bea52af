"""Attention times from measured grids (floor 3).

decode   b sequences, one new token each over c cached: 4·b·c·h·d FLOP; 2·b·c·g·d·s bytes of cache plus queries, outputs
prefill  b prompts of l tokens from zero: 4·b·h·d·A FLOP, A = l(l+1)/2, or W·l - W(W-1)/2 with a window W < l

(h heads and g kv heads on this device, d head size, s bytes per cached number.)  Within a table time is linear in the
batch and in c (decode) or A + 500·l (prefill; a token's own traffic weighs like 500 of its keys).  A (h, g, d) that was
not timed takes the nearest one that was; its batch is scaled so that the number of kv heads (decode) or of heads
(prefill) in flight is equal, and the ideal times account for the rest.  Different sizes of K and V heads are priced at
the size of K.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apexsim.cost.grid import bilinear, bracket, bridged, continued, convex_minorant
from apexsim.cost.kernels import Table
from apexsim.cost.roofline import Array, Peaks, Priced, Provenance, ideal, transfer, worst
from apexsim.cost.shapes import ATTENTION, KV_BYTES, Heads, area

DIM_WEIGHT, GROUP_WEIGHT, COUNT_WEIGHT = 4.0, 1.0, 0.3  # how much a factor e in d, h/g, g counts against a shape
SATURATED = 8192  # tokens in flight from which a batch of prompts is taken to fill the GPU
TOKEN_AREA = 500.0  # query-key pairs that take as long as one prompt token's own traffic (least leave-one-out error)
DENSE = np.exp2(np.arange(0.0, 20.01, 1 / 12))  # lengths on which the cost of a prompt is tabulated


class Match(NamedTuple):
    """A measured shape that stands for the one asked for; distance 0 means it is the same."""

    row: int
    distance: float
    scale: float  # measured batch per batch asked for


class AttentionSurface:
    """Times of one engine's attention kernel, one phase, one cache format, on one GPU."""

    def __init__(self, table: Table, peaks: Peaks, family: str = "attention") -> None:
        self.phase, kv, self.engine, self.compute = table.key
        self.kv_bytes, self.peaks, self.work = KV_BYTES[kv], peaks, ATTENTION[family, self.phase]
        self.family = family
        self.shapes: Array = table.axes["shape"].astype(float)
        self.batch, self.length = table.axes["batch"].astype(float), table.axes["length"].astype(float)
        self.seconds = table.seconds
        self.launch = 0.9 * float(np.nanmin(table.seconds))
        self._planes: dict[int, tuple[Array, NDArray[np.bool_]]] = {}

    def match(self, shape: Heads) -> Match | None:
        """The nearest measured shape with this very window; None when the window was not timed."""
        rows = np.flatnonzero(self.shapes[:, 3] == shape.window)
        if rows.size == 0:
            return None
        h, g, d = self.shapes[rows, 0], self.shapes[rows, 1], self.shapes[rows, 2]
        distance = (
            DIM_WEIGHT * np.abs(np.log(d / shape.head_dim))
            + GROUP_WEIGHT * np.abs(np.log(h / g * shape.kv_heads / shape.heads))
            + COUNT_WEIGHT * np.abs(np.log(g / shape.kv_heads))
        )
        best = int(distance.argmin())
        scale = shape.kv_heads / g[best] if self.phase == "decode" else shape.heads / h[best]
        return Match(int(rows[best]), float(distance[best]), float(scale))

    def shape(self, row: int) -> Heads:
        """One measured shape."""
        return Heads(*(int(x) for x in self.shapes[row]))

    def plane(self, row: int) -> tuple[Array, NDArray[np.bool_]]:
        """Seconds [batch, length] of one measured shape, holes filled by `continued`, and the mask of holes."""
        if row not in self._planes:
            best = self.best(self.batch[:, None], self.length[None, :], self.shape(row))
            along = self.position(row)
            known = bridged(self.seconds[row], self.length if along is None else along(self.length))
            self._planes[row] = continued(known, best)[0], np.isnan(self.seconds[row])
        return self._planes[row]

    def best(self, batch: Array, length: Array, shape: Heads) -> Array:
        """Ideal time [s] on the GPU that was measured."""
        return ideal(*self.work(batch, length, shape, self.kv_bytes), self.peaks, self.compute)

    def position(self, row: int) -> Callable[[Array], Array] | None:
        """What time is linear in along the length: the cached tokens, or the area of a prompt and its tokens."""
        if self.phase == "decode":
            return None
        if self.family == "encoder":
            return lambda length: length * length + TOKEN_AREA * length
        window = float(self.shapes[row, 3])
        return lambda length: area(length, window) + TOKEN_AREA * length

    def price(self, batch: ArrayLike, length: ArrayLike, shape: Heads, match: Match) -> Priced:
        """Seconds on the GPU that was measured; batch and length broadcast."""
        b, s = np.asarray(batch, float), np.asarray(length, float)
        row, column = bracket(self.batch, b * match.scale), bracket(self.length, s, self.position(match.row))
        seconds, label = bilinear(*self.plane(match.row), row, column)
        if match.distance == 0 and not (label == Provenance.EXTRAPOLATED).any():
            return Priced(seconds, label)
        here = self.best(row.inside, column.inside, self.shape(match.row))
        there = self.best(np.maximum(b, self.batch[0] / match.scale), np.maximum(s, self.length[0]), shape)
        if match.distance > 0:
            label = worst(label, Provenance.TRANSFERRED)
        return Priced(transfer(seconds, self.launch, here, there), label)

    def saturated(self, shape: Heads, match: Match) -> Array:
        """Cost [s] of one more prompt of DENSE lengths in a batch that fills the GPU, on the GPU that was measured.

        Per measured length the smallest batch with SATURATED tokens in flight (else the largest timed) is divided by
        its size; in between time is linear in the prompt's area and tokens; the greatest convex function below,
        through zero, makes the difference P(c + q) - P(c) of a chunk positive and growing in c.
        """
        timed = ~np.isnan(self.seconds[match.row])
        columns = np.flatnonzero(timed.any(axis=0))
        full = timed & (self.batch[:, None] * self.length / match.scale >= SATURATED)
        last = timed.shape[0] - 1 - timed[::-1].argmax(axis=0)
        pick = np.where(full.any(axis=0), full.argmax(axis=0), last)[columns]
        length = self.length[columns]
        many = self.batch[pick] / match.scale  # prompts of the shape asked for
        cost = self.seconds[match.row][pick, columns] / many
        if match.distance > 0:
            cost *= self.best(many, length, shape) / self.best(self.batch[pick], length, self.shape(match.row))
        along = self.position(match.row)
        assert along is not None
        inside = np.interp(along(DENSE), along(length), cost)
        one = self.best(many[-1], DENSE, shape) / many[-1]
        beyond = one * cost[-1] / np.interp(length[-1], DENSE, one)
        whole = np.where(length[-1] >= DENSE, inside, beyond)
        return convex_minorant(np.r_[0.0, DENSE], np.r_[0.0, whole])[1:]
