"""GEMM times from measured grids (floor 3).

y[m, n] = x[m, k] · w[k, n]: 2mnk FLOP; bytes m·k·a + n·k·w + 2·m·n with the kernel's formats.  Between grid
points time is linear in m, n and k; above the grid the utilisation of the edge is held, below it its time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apexsim.cost.grid import Bracket, bracket, fill, linear
from apexsim.cost.kernels import Table
from apexsim.cost.library import ENGINES, Library
from apexsim.cost.roofline import (
    FLOP_SHARE,
    KERNELS,
    LAUNCH,
    Array,
    Peaks,
    Priced,
    Provenance,
    bounds,
    flat,
    ideal,
    labelled,
    possible,
    worst,
)
from apexsim.cost.shapes import gemm_work
from apexsim.errors import InputError, nearest

SPIKE, NEAR = 1.15, 2

# A kernel without a table -> kernels whose utilisation it takes, on GPUs that have its units.
SURROGATES = {"fp8_block": ("fp8",), "int8": ("fp8",), "fp8": ("fp8_block",), "nvfp4": ("fp8", "fp8_block"),
              "mxfp4": ("nvfp4", "fp8"), "w4a8_mxfp4": ("nvfp4", "fp8")}  # fmt: skip


def without_spikes(seconds: Array) -> Array:
    """Times over (m, n, k) where no product takes more than SPIKE times what a somewhat larger one takes.

    Larger: up to NEAR grid points further along every axis.  A product can be padded to a larger one, and timing jitter only adds.
    The tables hold such spikes (16 % of the B200's bf16 points, single ones three times too slow), and an engine that meets one
    shape in each of 80 layers would feel each.
    """
    least = seconds
    for axis in range(seconds.ndim):
        near = least
        for step in range(1, min(NEAR, seconds.shape[axis] - 1) + 1):
            ahead = [slice(None)] * seconds.ndim
            here = list(ahead)
            ahead[axis], here[axis] = slice(step, None), slice(None, -step)
            near = near.copy()
            near[tuple(here)] = np.minimum(near[tuple(here)], least[tuple(ahead)])
        least = near
    return np.where(seconds > SPIKE * least, least, seconds)


class GemmSurface:
    """Times of one GEMM kernel on one GPU over (m, n, k)."""

    def __init__(self, table: Table, kernel: str, peaks: Peaks) -> None:
        self.kernel, self.peaks = KERNELS[kernel], peaks
        self.m, self.n, self.k = (table.axes[name].astype(float) for name in "mnk")
        self.launch = 0.9 * float(np.nanmin(table.seconds))
        best = self.best(*np.meshgrid(self.m, self.n, self.k, indexing="ij", sparse=True))
        util, self.holes = fill(best / table.seconds)
        self.seconds = without_spikes(best / util)

    def best(self, m: ArrayLike, n: ArrayLike, k: ArrayLike) -> Array:
        """Ideal time [s] on the GPU that was measured."""
        return ideal(*gemm_work(m, n, k, self.kernel), self.peaks, self.kernel.compute)

    def price(self, m: ArrayLike, n: int, k: int) -> Priced:
        """Seconds of the GEMM for an array of token counts: linear in m, n and k between grid points."""
        across, down, along = bracket(self.n, n), bracket(self.k, k), bracket(self.m, m)
        seconds, label = linear(*self._slab(across, down), along)
        label = np.maximum(label, max(across.label, down.label))
        if not (label == Provenance.EXTRAPOLATED).any():
            return Priced(seconds, label)
        beyond = self.best(np.maximum(m, self.m[0]), max(n, self.n[0]), max(k, self.k[0]))
        return Priced(seconds * beyond / self.best(along.inside, across.inside, down.inside), label)

    def _slab(self, across: Bracket, down: Bracket) -> tuple[Array, NDArray[np.bool_]]:
        """Seconds over the m axis at one (n, k), and where they rest on holes."""
        a, b, w = int(across.low), int(across.high), float(across.weight)
        c, d, v = int(down.low), int(down.high), float(down.weight)
        left = self.seconds[:, a, c] * (1 - v) + self.seconds[:, a, d] * v
        right = self.seconds[:, b, c] * (1 - v) + self.seconds[:, b, d] * v
        holes = self.holes[:, a, c] | self.holes[:, a, d] | self.holes[:, b, c] | self.holes[:, b, d]
        return left * (1 - w) + right * w, holes


def price(library: Library, m: ArrayLike, n: int, k: int, kernel: str) -> Priced:
    """Seconds of y[m, n] = x[m, k] · w[k, n] on the library's GPU, no less than its bytes and FLOP take."""
    if kernel not in KERNELS:
        raise InputError(f"unknown GEMM kernel '{kernel}'", "kernel", nearest(kernel, KERNELS))
    row = KERNELS[kernel]
    return possible(_price(library, m, n, k, kernel), *gemm_work(m, n, k, row), library.peaks, row.compute)


def _price(library: Library, m: ArrayLike, n: int, k: int, kernel: str) -> Priced:
    found = library.kept(("gemm", kernel), lambda: _find(library, kernel))
    if found is None:
        return _formula(library, np.asarray(m, float), n, k, kernel)
    surface, own = found
    priced = surface.price(m, n, k)
    if own:
        return priced
    here = bounds(*gemm_work(m, n, k, surface.kernel), surface.peaks, surface.kernel.compute)
    there = bounds(*gemm_work(m, n, k, KERNELS[kernel]), library.peaks, KERNELS[kernel].compute)
    return library.moved(priced, surface.launch, here, there)


def _find(library: Library, kernel: str) -> tuple[GemmSurface, bool] | None:
    """The surface for a kernel and whether it is its own on this GPU; None where there is none."""
    row = KERNELS[kernel]
    for home in library.homes:
        for name in () if row.weight_only else (kernel, *SURROGATES.get(kernel, ())):
            sources = [key[1] for key in home.tables.keys("gemm") if key[0] == name]
            measured = home.native and name == kernel
            if sources and (measured or library.peaks.has(row.compute)):
                source = next((s for s in (library.source, "any", *ENGINES) if s in sources), sources[0])
                return library.surface(home, "gemm", (name, source), _surface), measured
    return None


def _surface(table: Table, peaks: Peaks) -> GemmSurface:
    return GemmSurface(table, table.key[0], peaks)


def _formula(library: Library, m: Array, n: int, k: int, kernel: str) -> Priced:
    """A kernel without a table.

    Weights that are unpacked to 16 bit, because the format has no units here: min(t16, launch + max((t16 - launch) ·
    bytes / bytes16, FLOP / 65 % of the 16-bit peak)) with t16 the 16-bit GEMM; fewer bytes move, the multiplication is
    no faster.  Anything else: the flat roofline.
    """
    row = KERNELS[kernel]
    if kernel == "bf16" or (library.peaks.has(row.compute) and not row.weight_only):
        return labelled(flat(*gemm_work(m, n, k, row), library.peaks, row.compute), Provenance.ROOFLINE)
    base = price(library, m, n, k, "bf16")
    flop, bytes16 = gemm_work(m, n, k, KERNELS["bf16"])
    nbytes = bytes16 - n * k * (2.0 - row.weight_bytes)
    fixed = np.minimum(LAUNCH, base.seconds)
    stored = (base.seconds - fixed) * nbytes / bytes16
    seconds = fixed + np.maximum(stored, flop / (FLOP_SHARE * library.peaks.rate("bf16")))
    cap = base.seconds if row.weight_bytes <= 2.0 else np.inf
    return Priced(np.minimum(cap, seconds), worst(base.provenance, Provenance.TRANSFERRED))
