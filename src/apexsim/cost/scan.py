"""Linear attention and state-space layers, and the small products around latent attention (floor 3).

A scan keeps a state of value_heads × key_dim × value_dim numbers of 4 bytes per sequence.
    decode   bytes = 2 · state per sequence
    prefill  FLOP = t·value_heads·(8·key_dim·value_dim + 128·(key_dim + value_dim)), chunks of 64 tokens
Tables hold the whole mixer between its projections: short convolution + scan.  Kinds: gdn (Gated DeltaNet), kda (Kimi
Delta Attention); mamba2 has no measured scan and is priced by the roofline.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apexsim.cost.grid import bilinear, bracket, fill
from apexsim.cost.kernels import Table
from apexsim.cost.library import ENGINES, Library
from apexsim.cost.roofline import (
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
from apexsim.cost.shapes import State, bmm_work, scan_work

KINDS = {"kda": ("kda", "gdn"), "gdn": ("gdn", "kda")}  # kind -> measured kinds that may stand for it


class ScanSurface:
    """Times of one engine's scan in one phase over (state, batch, length)."""

    def __init__(self, table: Table, peaks: Peaks) -> None:
        self.phase, self.peaks = table.key[1], peaks
        self.states = [State(*(int(x) for x in row)) for row in table.axes["shape"]]
        self.sizes = np.log(
            np.array([[s.value_heads, s.key_heads, s.key_dim * s.value_dim] for s in self.states], float)
        )
        self.batch, self.length = table.axes["batch"].astype(float), table.axes["length"].astype(float)
        self.seconds = table.seconds
        self.launch = 0.9 * float(np.nanmin(table.seconds))

    def best(self, batch: Array, length: Array, state: State) -> Array:
        """Ideal time [s] on the GPU that was measured."""
        return ideal(*scan_work(self.phase, batch, length, state), self.peaks, "bf16")

    def price(self, batch: Array, length: Array, state: State) -> Priced:
        """Seconds on the GPU that was measured, from the nearest state that was timed."""
        # a short convolution keeps no state of its own: the smallest that was timed stands for it
        asked = np.log(np.maximum([state.value_heads, state.key_heads, state.key_dim * state.value_dim], 1))
        row = int((np.abs(self.sizes - asked) @ np.array([1.0, 0.3, 1.0])).argmin())
        near = self.states[row]
        best = self.best(self.batch[:, None], self.length[None, :], near)
        util, holes = fill(best / self.seconds[row])
        b, s = bracket(self.batch, batch), bracket(self.length, length)
        seconds, label = bilinear(best / util, holes, b, s)
        here, there = (
            self.best(b.inside, s.inside, near),
            self.best(np.maximum(batch, 1.0), np.maximum(length, 1.0), state),
        )
        return Priced(transfer(seconds, self.launch, here, there),
                      label if near == state else worst(label, Provenance.TRANSFERRED))  # fmt: skip


def scan(library: Library, kind: str, phase: str, batch: ArrayLike, length: ArrayLike, state: State) -> Priced:
    """Seconds of a scan: phase prefill (batch prompts of length tokens) or decode (one token each).

    A decode reads and writes the states of its sequences, which no cache keeps from step to step."""
    b, s = np.broadcast_arrays(np.asarray(batch, float), np.asarray(length, float))
    priced = _scan(library, kind, phase, b, s, state)
    flop, nbytes = scan_work(phase, b, s, state)
    return possible(priced, 0.0 * flop, nbytes if phase == "decode" else 0.0 * nbytes, library.peaks, "bf16")


def _scan(library: Library, kind: str, phase: str, b: Array, s: Array, state: State) -> Priced:
    for home in library.homes:
        for name in KINDS.get(kind, ()):
            engines = [e for e in (library.source, *ENGINES) if (name, phase, e) in home.tables.keys("scan")]
            if engines:
                surface = library.surface(home, "scan", (name, phase, engines[0]), ScanSurface)
                priced = surface.price(b, s, state)
                if home.native and name == kind:
                    return priced
                here, there = (bounds(*scan_work(phase, b, s, state), p, "bf16") for p in (surface.peaks, library.peaks))
                return library.moved(priced, surface.launch, here, there)
    return labelled(flat(*scan_work(phase, b, s, state), library.peaks, "bf16"), Provenance.ROOFLINE)


class BmmSurface:
    """Times of one absorbed product over (heads, tokens)."""

    def __init__(self, table: Table, peaks: Peaks) -> None:
        self.weight_bytes = 1.0 if table.key[1] == "fp8" else 2.0
        self.compute, self.peaks = table.key[1], peaks
        self.heads, self.tokens = table.axes["heads"].astype(float), table.axes["tokens"].astype(float)
        best = self.best(self.tokens[None, :], self.heads[:, None])
        util, self.holes = fill(best / table.seconds)
        self.seconds: Array = best / util
        self.launch = 0.9 * float(np.nanmin(table.seconds))

    def best(self, tokens: Array, heads: Array | NDArray[np.float64]) -> Array:
        """Ideal time [s] on the GPU that was measured."""
        return ideal(*bmm_work(tokens, heads, self.weight_bytes), self.peaks, self.compute)

    def price(self, tokens: Array, heads: int) -> Priced:
        """Seconds on the GPU that was measured."""
        h, t = bracket(self.heads, heads), bracket(self.tokens, tokens)
        seconds, label = bilinear(self.seconds, self.holes, h, t)
        beyond = self.best(np.maximum(tokens, 1.0), np.asarray(float(heads))) / self.best(t.inside, h.inside)
        return Priced(seconds * beyond, label)


def bmm(library: Library, tokens: ArrayLike, heads: int, dtype: str) -> Priced:
    """Both absorbed products of latent attention in decode: queries into the latent, and the latent into values."""
    t, many = np.asarray(tokens, float), np.asarray(float(heads))
    wanted = "fp8" if dtype.startswith("fp8") else "bf16"
    flop, nbytes = bmm_work(t, many, 1.0 if wanted == "fp8" else 2.0)
    return possible(_bmm(library, t, many, wanted), 2.0 * flop, 2.0 * nbytes, library.peaks, wanted)


def _bmm(library: Library, t: Array, many: Array, wanted: str) -> Priced:
    parts = []
    for op in ("pre", "post"):
        keys = [(op, kind, engine) for kind in dict.fromkeys((wanted, "bf16")) for engine in (library.source, *ENGINES)]
        found = [(home, key) for home in library.homes for key in keys if key in home.tables.keys("mla_bmm")]
        if not found:
            return labelled(2 * flat(*bmm_work(t, many, 2.0), library.peaks, "bf16"), Provenance.ROOFLINE)
        home, key = found[0]
        surface = library.surface(home, "mla_bmm", key, BmmSurface)
        priced = surface.price(t, int(many))
        if not (home.native and key[1] == wanted):
            demand = bmm_work(t, many, surface.weight_bytes)
            here, there = (bounds(*demand, p, surface.compute) for p in (surface.peaks, library.peaks))
            priced = library.moved(priced, surface.launch, here, there)
        parts.append(priced)
    return Priced(parts[0].seconds + parts[1].seconds, np.maximum(parts[0].provenance, parts[1].provenance))
