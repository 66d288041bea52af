"""Quantisation of activations in front of a GEMM, from measured grids (floor 3).

Measured for per-tensor FP8 over (m tokens, k numbers): the static kernel, and the extra time of finding a dynamic
scale.  Other formats read the same 16-bit input and are priced alike, labelled transferred.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from apexsim.cost.grid import bilinear, bracket, fill
from apexsim.cost.kernels import Table
from apexsim.cost.library import Library
from apexsim.cost.roofline import Array, Bounds, Peaks, Priced, Provenance, flat, labelled, worst

BYTES = 3.0  # per number: 16 bit read, 8 bit written


class QuantiseSurface:
    """Time of one quantisation kernel over (m, k)."""

    def __init__(self, table: Table, peaks: Peaks) -> None:
        self.peaks = peaks
        self.m, self.k = table.axes["m"].astype(float), table.axes["k"].astype(float)
        self.seconds, self.holes = fill(table.seconds)
        self.launch = 0.9 * float(np.nanmin(table.seconds))

    def price(self, m: Array, k: int) -> Priced:
        """Seconds; beyond the grid in proportion to the numbers."""
        seconds, label = bilinear(self.seconds, self.holes, bracket(self.m, m), bracket(self.k, k))
        return Priced(seconds * np.maximum(m / self.m[-1], 1.0) * max(k / self.k[-1], 1.0), label)


def price(library: Library, m: ArrayLike, k: int, kernel: str, dynamic: bool) -> Priced:
    """Seconds of quantising x[m, k] for a GEMM kernel."""
    rows = np.asarray(m, float)
    parts = [_part(library, rows, k, kind) for kind in (("static", "scale") if dynamic else ("static",))]
    seconds = np.sum([p.seconds for p in parts], axis=0)
    label = np.maximum.reduce([p.provenance for p in parts])
    return Priced(seconds, label if kernel == "fp8" else worst(label, Provenance.TRANSFERRED))


def _part(library: Library, m: Array, k: int, kind: str) -> Priced:
    key = (kind, "any")
    home = next((h for h in library.homes if key in h.tables.keys("quantise")), None)
    if home is None:
        return labelled(flat(0.0, BYTES * m * k, library.peaks, "bf16"), Provenance.ROOFLINE)
    surface = library.surface(home, "quantise", key, QuantiseSurface)
    priced = surface.price(m, k)
    if home.native:
        return priced
    none = np.zeros_like(m)
    here, there = (Bounds(BYTES * m * k / peaks.bandwidth, none) for peaks in (surface.peaks, library.peaks))
    return library.moved(priced, surface.launch, here, there)
