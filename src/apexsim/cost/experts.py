"""Routed experts from measured grids (floor 3).

t tokens enter a layer of E experts of inner size i over hidden size d, k per token, split tp-fold and ep-fold:
    pairs = t·k / ep        FLOP = 2·M·pairs·d·i/tp            M = 3 matrices when gated, else 2
    experts touched = E/ep · (1 - (1 - k/E)^t)                 bytes = touched·M·d·(i/tp)·w + activations
The tables hold the slowest rank under a load that is balanced or follows a power law.  Time is linear in t between
grid points.  A layer that was not timed takes the nearest one that was, at equal tokens per expert; the ideal times of
both account for the rest.  Ignored there: that another E makes another imbalance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apexsim.cost.grid import bracket, bridged, fill, linear
from apexsim.cost.kernels import Table
from apexsim.cost.library import Home, Library
from apexsim.cost.roofline import (
    KERNELS,
    Array,
    Peaks,
    Priced,
    Provenance,
    bounds,
    flat,
    ideal,
    labelled,
    possible,
    transfer,
    worst,
)
from apexsim.cost.shapes import LOADS, Layer, expert_least, expert_work, pairs
from apexsim.errors import InputError, nearest

WEIGHTS = np.array([1.0, 1.0, 0.5, 0.5, 0.4])  # of a factor e in d, i/tp, k, E/ep, ep (least leave-one-model-out error)
FEW = 8.0  # tokens an expert up to which 4- and 8-bit weights are read in no more time than 16-bit ones
OTHER_ENGINE = 0.7  # distance at which another engine's kernel is preferred to this one's nearest layer
# A format that was not timed -> formats whose utilisation it takes, best first; "bf16" serves every other one.
SURROGATES = {
    "fp8": ("fp8_block",), "fp8_block": ("fp8",), "int8": ("fp8", "fp8_block"), "w4a16": ("w4a16_mxfp4",),
    "w4a16_nvfp4": ("w4a16", "w4a16_mxfp4"), "w4a16_mxfp4": ("w4a16",), "w4a8_mxfp4": ("nvfp4",), "nvfp4": ("w4a8_mxfp4",), "w8a16": ("w4a16",),
}  # fmt: skip


class Match(NamedTuple):
    """A measured layer that stands for the one asked for."""

    row: int
    distance: float
    scale: float  # measured tokens per token asked for


class ExpertSurface:
    """Times of one engine's grouped GEMM over (layer, load, tokens)."""

    def __init__(self, table: Table, peaks: Peaks) -> None:
        self.kernel, self.peaks = KERNELS[table.key[0]], peaks
        self.layers = [Layer._make([*row[:6], bool(row[6])]) for row in table.axes["shape"].tolist()]
        self.features = np.array([layer.features() for layer in self.layers])
        self.gated = table.axes["shape"][:, 6].astype(bool)
        self.index = {layer: i for i, layer in enumerate(self.layers)}
        self.loads, self.tokens = table.axes["load"].tolist(), table.axes["tokens"].astype(float)
        self.seconds = table.seconds
        self.launch = 0.9 * float(np.nanmin(table.seconds))
        self._curves: dict[tuple[int, int], tuple[Array, NDArray[np.bool_]]] = {}

    def match(self, layer: Layer) -> Match:
        """The nearest measured layer."""
        if layer in self.index:
            return Match(self.index[layer], 0.0, 1.0)
        distance = np.abs(self.features - layer.features()) @ WEIGHTS + 1.0 * (self.gated != layer.gated)
        row = int(distance.argmin())
        near = self.layers[row]
        scale = (layer.top_k / layer.experts) / (near.top_k / near.experts)
        return Match(row, max(float(distance[row]), 1e-3), scale)

    def best(self, tokens: Array, layer: Layer) -> Array:
        """Ideal time [s] on the GPU that was measured."""
        return ideal(*expert_work(tokens, layer, self.kernel), self.peaks, self.kernel.compute)

    def curve(self, row: int, load: int) -> tuple[Array, NDArray[np.bool_]]:
        """Seconds over tokens of one layer under the nearest load that was timed, and the mask of holes."""
        if (row, load) not in self._curves:
            timed = [i for i in range(len(self.loads)) if not np.isnan(self.seconds[row, i]).all()]
            at = min(timed, key=lambda i: abs(self.loads[i] - load))
            best = self.best(self.tokens, self.layers[row])
            util, _ = fill(best / bridged(self.seconds[row, at], self.tokens))
            self._curves[row, load] = best / util, np.isnan(self.seconds[row, at])
        return self._curves[row, load]

    def price(self, tokens: Array, layer: Layer, match: Match, load: int) -> Priced:
        """Seconds on the GPU that was measured."""
        along = bracket(self.tokens, tokens * match.scale)
        seconds, label = linear(*self.curve(match.row, load), along)
        if match.distance == 0 and not (label == Provenance.EXTRAPOLATED).any():
            return Priced(seconds, label)
        here = self.best(along.inside, self.layers[match.row])
        there = self.best(np.maximum(tokens, self.tokens[0] / match.scale), layer)
        if match.distance > 0:
            label = worst(label, Provenance.TRANSFERRED)
        return Priced(transfer(seconds, self.launch, here, there), label)


class Found(NamedTuple):
    """A surface, its nearest layer, and whether GPU and format are its own."""

    surface: ExpertSurface
    match: Match
    own: bool


def price(library: Library, tokens: ArrayLike, layer: Layer, kernel: str, load: str) -> Priced:
    """Seconds of one rank's experts; `tokens` are those of the whole layer (all ep ranks together)."""
    if load not in LOADS:
        raise InputError(f"unknown expert load '{load}'", "distribution", nearest(load, LOADS))
    name, t = _format(library, kernel), np.asarray(tokens, float)
    priced = _price(library, t, layer, name, load)
    row = KERNELS[name]
    if row.weight_bytes < KERNELS["bf16"].weight_bytes:
        priced = _no_slower(priced, _price(library, t, layer, "bf16", load), pairs(t, layer))
    return possible(priced, *expert_least(t, layer, row), library.peaks, row.compute)


def _no_slower(priced: Priced, whole: Priced, each: Array) -> Priced:
    """Experts in few bits, no slower than in 16 bit as long as reading weights is what takes the time.

    An engine that found its 8- or 4-bit kernel slower would unpack the weights once.  Up to FEW tokens an expert the law is strict, then
    it fades: kernels that unpack or quantise on the way do lose to 16-bit ones on large batches.
    """
    cap = whole.seconds * np.maximum(1.0, each / FEW)
    label = np.where(priced.seconds > cap, worst(whole.provenance, Provenance.TRANSFERRED), priced.provenance)
    return Priced(np.minimum(priced.seconds, cap), label.astype(np.int8))


def _price(library: Library, t: Array, layer: Layer, name: str, load: str) -> Priced:
    found = library.kept(("experts", name, layer), lambda: _find(library, name, layer))
    row = KERNELS[name]
    if found is None:
        return labelled(flat(*expert_work(t, layer, row), library.peaks, row.compute), Provenance.ROOFLINE)
    surface, match, own = found
    priced = surface.price(t, layer, match, LOADS[load])
    if own:
        return priced
    here = bounds(*expert_work(t, layer, surface.kernel), surface.peaks, surface.kernel.compute)
    there = bounds(*expert_work(t, layer, row), library.peaks, row.compute)
    return library.moved(priced, surface.launch, here, there)


def _format(library: Library, kernel: str) -> str:
    """The kernel an engine runs for a format: MXFP4 weights meet MXFP8 activations where there are FP4 units, else
    16-bit ones."""
    if kernel == "mxfp4":
        return "w4a8_mxfp4" if library.peaks.has("fp4") else "w4a16_mxfp4"
    if kernel not in KERNELS:
        raise InputError(f"unknown expert kernel '{kernel}'", "kernel", nearest(kernel, KERNELS))
    return kernel


def _find(library: Library, kernel: str, layer: Layer) -> Found | None:
    """The nearest measured layer, in this format before others, by this engine before others."""
    units = library.peaks.has(KERNELS[kernel].compute)
    for home in library.homes:
        for name in dict.fromkeys((kernel, *SURROGATES.get(kernel, ()), "bf16")):
            own = home.native and name == kernel
            if not (own or units or KERNELS[name].compute == "bf16"):
                continue
            keys = [key for key in home.tables.keys("moe") if key[0] == name]
            near = _nearest(library, home, layer, [key for key in keys if key[1] == library.source][:1])
            if near is None or near[1].distance > OTHER_ENGINE:
                other = _nearest(library, home, layer, [key for key in keys if key[1] != library.source])
                if near is None or (other is not None and other[1].distance + OTHER_ENGINE < near[1].distance):
                    near = other
            if near is not None:
                return Found(near[0], near[1], own)
    return None


def _nearest(
    library: Library, home: Home, layer: Layer, keys: list[tuple[str, ...]]
) -> tuple[ExpertSurface, Match] | None:
    surfaces = [library.surface(home, "moe", key, ExpertSurface) for key in keys]
    matches = [(s, s.match(layer)) for s in surfaces]
    return min(matches, key=lambda pair: pair[1].distance) if matches else None
