"""Attention of one device: which measured surface answers, and what is done where none does (floor 3)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from apexsim.cost.attention import DENSE, AttentionSurface, Match
from apexsim.cost.grid import convex_minorant
from apexsim.cost.library import Home, Library
from apexsim.cost.roofline import LAUNCH, Array, Priced, Provenance, bounds, flat, ideal, labelled, possible, worst
from apexsim.cost.shapes import ATTENTION, KV_BYTES, Heads

OTHER_ENGINE = 1.0  # distance at which another engine's attention kernel is preferred to this one's nearest shape
STORED = {"fp16": "bf16", "int8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8"}  # cache formats that cost alike


class Ask(NamedTuple):
    """One attention kernel: family (attention, mla, encoder), phase (prefill, decode), heads, cache format."""

    family: str
    phase: str
    shape: Heads
    kv_dtype: str = "bf16"

    @property
    def stored(self) -> str:
        """The measured cache format that costs like this one."""
        return STORED.get(self.kv_dtype, self.kv_dtype)

    def work(self, batch: Array, length: Array) -> tuple[Array, Array]:
        """FLOP and bytes."""
        return ATTENTION[self.family, self.phase](batch, length, self.shape, KV_BYTES[self.stored])

    @property
    def fastest(self) -> str:
        """The fastest units that a kernel over this cache may use: an 8-bit cache may be multiplied as it is."""
        return "fp8" if self.stored == "fp8" else "bf16"

    def least(self, batch: Array, length: Array) -> tuple[Array, Array]:
        """FLOP and bytes that take time whatever the kernel: of a prompt no bytes, since the products in front wrote them to the cache."""
        flop, nbytes = self.work(batch, length)
        return flop, nbytes if self.phase == "decode" else np.zeros_like(nbytes)

    def whole(self) -> Ask:
        """The same without a window."""
        return self._replace(shape=self.shape._replace(window=0))


class Found(NamedTuple):
    """A surface, its nearest shape, and whether GPU and cache format are its own."""

    surface: AttentionSurface
    match: Match
    own: bool


def find(library: Library, ask: Ask) -> Found | None:
    """The measured surface nearest to a shape; None where this window was not timed."""
    return library.kept(ask, lambda: _find(library, ask))


def _find(library: Library, ask: Ask) -> Found | None:
    for home in library.homes:
        for kv in dict.fromkeys((ask.stored, "bf16")):
            keys = [key for key in home.tables.keys(ask.family) if key[:2] == (ask.phase, kv)]
            near = _nearest(library, home, ask, [key for key in keys if key[2] == library.source])
            if near is None or near[1].distance > OTHER_ENGINE:  # the others are opened only when needed
                other = _nearest(library, home, ask, [key for key in keys if key[2] != library.source])
                if near is None or (other is not None and other[1].distance + OTHER_ENGINE < near[1].distance):
                    near = other
            if near is not None:
                return Found(near[0], near[1], home.native and kv == ask.stored)
    return None


def _nearest(
    library: Library, home: Home, ask: Ask, keys: list[tuple[str, ...]]
) -> tuple[AttentionSurface, Match] | None:
    """The surface with the nearest shape of this window."""
    make = partial(AttentionSurface, family=ask.family)
    surfaces = [library.surface(home, ask.family, key, make) for key in keys]
    matches = [(s, m) for s in surfaces if (m := s.match(ask.shape)) is not None]
    return min(matches, key=lambda pair: pair[1].distance) if matches else None


def price(library: Library, ask: Ask, batch: ArrayLike, length: ArrayLike) -> Priced:
    """One attention kernel whose window, if any, was timed; moved where it was timed on another GPU or format."""
    b, s = np.asarray(batch, float), np.asarray(length, float)
    return possible(_price(library, ask, b, s), *ask.least(b, s), library.peaks, ask.fastest)


def _price(library: Library, ask: Ask, b: Array, s: Array) -> Priced:
    found = find(library, ask)
    if found is None:
        return labelled(flat(*ask.work(b, s), library.peaks, "bf16"), Provenance.ROOFLINE)
    surface, match, own = found
    priced = surface.price(b, s, ask.shape, match)
    if own:
        return priced
    here = bounds(*surface.work(b, s, ask.shape, surface.kv_bytes), surface.peaks, surface.compute)
    there = bounds(*ask.work(b, s), library.peaks, surface.compute)
    return library.moved(priced, surface.launch, here, there)


def decode(library: Library, ask: Ask, batch: ArrayLike, context: ArrayLike) -> Priced:
    """One new token per sequence; a window that was not timed reads min(context, window) with the full kernel."""
    if ask.shape.window and find(library, ask) is None:
        context, ask = np.minimum(context, ask.shape.window), ask.whole()
    return price(library, ask, batch, context)


def prefill(library: Library, ask: Ask, batch: ArrayLike, length: ArrayLike) -> Priced:
    """Whole prompts; a window that was not timed goes on beyond W at the slope the full kernel has at W."""
    window = ask.shape.window
    b, s = np.broadcast_arrays(np.asarray(batch, float), np.asarray(length, float))
    if window and s.max(initial=0.0) <= window:
        return price(library, ask.whole(), b, s)
    if not window or find(library, ask) is not None:
        return price(library, ask, b, s)
    inside = price(library, ask.whole(), b, np.minimum(s, window))
    beyond = b * np.maximum(s - window, 0.0) * _slope(saturated(library, ask.whole())[0], window)
    return Priced(inside.seconds + beyond, worst(inside.provenance, Provenance.TRANSFERRED))


def _slope(cost: Array, at: float) -> float:
    """Slope [s/token] of a tabulated prompt cost at a length."""
    low, high = np.interp([0.95 * at, 1.05 * at], DENSE, cost)
    return float((high - low) / (0.1 * at))


def saturated(library: Library, ask: Ask) -> tuple[Array, Provenance]:
    """Marginal prompt costs at the lengths DENSE, and their label."""
    return library.kept(("saturated", ask), lambda: _possible(library, ask))


def _possible(library: Library, ask: Ask) -> tuple[Array, Provenance]:
    """`_saturated`, no less than the FLOP take: of two convex functions the larger is convex."""
    cost, label = _saturated(library, ask)
    return np.maximum(cost, ideal(*ask.least(np.ones_like(DENSE), DENSE), library.peaks, ask.fastest)), label


def _saturated(library: Library, ask: Ask) -> tuple[Array, Provenance]:
    found = find(library, ask)
    window, one = ask.shape.window, np.ones_like(DENSE)
    if found is None and window:
        full, _ = saturated(library, ask.whole())
        beyond = np.interp(window, DENSE, full) + _slope(full, window) * (DENSE - window)
        return _convex(np.where(window >= DENSE, full, beyond)), Provenance.TRANSFERRED
    if found is None:
        return _convex(flat(*ask.work(one, DENSE), library.peaks, "bf16") - LAUNCH), Provenance.ROOFLINE
    surface, match, own = found
    cost = surface.saturated(ask.shape, match)
    if own:
        return cost, Provenance.TRANSFERRED if match.distance > 0 else Provenance.INTERPOLATED
    there = ideal(*ask.work(one, DENSE), library.peaks, surface.compute)
    return _convex(cost * there / surface.best(one, DENSE, ask.shape)), Provenance.TRANSFERRED


def marginal(library: Library, ask: Ask, length: ArrayLike) -> Priced:
    """P(l): what one more prompt of l tokens costs in a batch that fills the GPU; P(0) = 0, rising, convex."""
    cost, label = saturated(library, ask)
    return labelled(np.interp(np.asarray(length, float), np.r_[0.0, DENSE], np.r_[0.0, cost]), label)


def launch(library: Library, ask: Ask) -> float:
    """Fixed time [s] of one prefill kernel: what one tiny prompt takes beyond its marginal cost."""
    tiny = np.array([1.0, 16.0])
    alone = prefill(library, ask, 1.0, tiny).seconds
    return float(max(0.0, (alone - marginal(library, ask, tiny).seconds).min()))


def _convex(cost: Array) -> Array:
    """The greatest convex function below a cost over DENSE that is nothing at 0."""
    return convex_minorant(np.r_[0.0, DENSE], np.r_[0.0, cost])[1:]
