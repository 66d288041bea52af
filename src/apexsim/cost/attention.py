"""Attention of one device from measured grids, and what is done where none was timed (floor 3).

Within a table time is linear in the batch and in the cached tokens c (decode) or A + 500·l (prefill; a token's own traffic weighs like
500 of its keys; A: see `shapes`).  A (h, g, d) that was not timed takes the nearest one that was; its batch is scaled so that the number of
kv heads (decode) or of heads (prefill) in flight is equal, and the ideal times account for the rest.  Different sizes of K and V heads are
priced at the size of K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from apexsim.cost.bank import Bank, BankMatch
from apexsim.cost.grid import bridged, continued, convex_minorant
from apexsim.cost.kernels import Table
from apexsim.cost.roofline import Array, Peaks, Priced, Provenance, flat, ideal, labelled, possible, worst
from apexsim.cost.shapes import ATTENTION, KV_BYTES, Heads, area
from apexsim.cost.surface import KernelKind, Match, Surface

DIM_WEIGHT, GROUP_WEIGHT, COUNT_WEIGHT = 4.0, 1.0, 0.3  # how much a factor e in d, h/g, g counts against a shape
OTHER_ENGINE = 1.0  # distance at which another engine's attention kernel is preferred to this one's nearest shape
STORED = {"fp16": "bf16", "int8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8"}  # cache formats that cost alike
SATURATED = 8192  # tokens in flight from which a batch of prompts is taken to fill the GPU
TOKEN_AREA = 500.0  # query-key pairs that take as long as one prompt token's own traffic (least leave-one-out error)
DENSE = np.exp2(np.arange(0.0, 20.01, 1 / 12))  # lengths on which the cost of a prompt is tabulated


class AttentionShape(NamedTuple):
    """One attention kernel: family (attention, mla, encoder), phase (prefill, decode), heads, cache format."""

    family: str
    phase: str
    heads: Heads
    kv_dtype: str = "bf16"

    @property
    def stored(self) -> str:
        """The measured cache format that costs like this one."""
        return STORED.get(self.kv_dtype, self.kv_dtype)

    def demand(self, heads: Heads, batch: Array, length: Array) -> tuple[Array, Array]:
        """FLOP and bytes of so many heads."""
        return ATTENTION[self.family, self.phase](batch, length, heads, KV_BYTES[self.stored])

    @property
    def fastest(self) -> str:
        """The fastest units that a kernel over this cache may use: an 8-bit cache may be multiplied as it is."""
        return "fp8" if self.stored == "fp8" else "bf16"

    def least(self, batch: Array, length: Array) -> tuple[Array, Array]:
        """FLOP and bytes that take time whatever the kernel: of a prompt no bytes, since the products in front wrote them to the cache."""
        flop, nbytes = self.demand(self.heads, batch, length)
        return flop, nbytes if self.phase == "decode" else np.zeros_like(nbytes)

    def whole(self) -> AttentionShape:
        """The same without a window."""
        return self._replace(heads=self.heads._replace(window=0))


def causal(phase: str, heads: int, kv_heads: int, head_dim: int, window: int = 0, kv_dtype: str = "bf16") -> AttentionShape:
    """Attention over all tokens before, or over the last `window` of them."""
    return AttentionShape("attention", phase, Heads(heads, kv_heads, head_dim, window), kv_dtype)


def latent(phase: str, heads: int, head_dim: int, kv_dtype: str = "bf16") -> AttentionShape:
    """Latent attention without its projections: a decode absorbed (head_dim = rank + rope), a prompt decompressed (nope + rope)."""
    return AttentionShape("mla", phase, Heads(heads, heads if phase == "prefill" else 1, head_dim), kv_dtype)


def bidirectional(heads: int, head_dim: int) -> AttentionShape:
    """Attention of an encoder: every token, or patch, sees all."""
    return AttentionShape("encoder", "prefill", Heads(heads, heads, head_dim))


# ---- measured surfaces -----------------------------------------------------------------------------------------------


def surface_of(table: Table, peaks: Peaks, family: str = "attention") -> Surface:
    """Times of one engine's attention kernel, one phase, one cache format over (heads, batch, length)."""
    phase, kv, _, compute = table.key

    def work(heads: Heads, batch: Array, length: Array) -> tuple[Array, Array]:
        return ATTENTION[family, phase](batch, length, heads, KV_BYTES[kv])

    def complete(seconds: Array, best: Array, along: Array) -> Array:
        return continued(bridged(seconds, along), best)[0]

    kind = KernelKind(("batch", "length"), work, compute, Heads._make, along=partial(_along, family, phase), complete=complete)
    return Surface(table, peaks, kind)


def _along(family: str, phase: str, heads: Heads) -> Callable[[Array], Array] | None:
    """What time is linear in along the length: the cached tokens, or the area of a prompt and its tokens."""
    if phase == "decode":
        return None
    if family == "encoder":
        return lambda length: length * length + TOKEN_AREA * length
    return lambda length: area(length, float(heads.window)) + TOKEN_AREA * length


def match_of(surface: Surface, heads: Heads, phase: str, among: Sequence[Heads] = ()) -> Match | None:
    """The nearest measured heads, of all or of those named, with this very window; None when the window was not timed."""
    rows = [i for i, near in enumerate(surface.shapes) if near.window == heads.window and (not among or near in among)]
    if not rows:
        return None
    h, g, d, _ = np.array([surface.shapes[i] for i in rows], float).T
    distance = (
        DIM_WEIGHT * np.abs(np.log(d / heads.head_dim))
        + GROUP_WEIGHT * np.abs(np.log(h / g * heads.kv_heads / heads.heads))
        + COUNT_WEIGHT * np.abs(np.log(g / heads.kv_heads))
    )
    best = int(distance.argmin())
    scale = heads.kv_heads / g[best] if phase == "decode" else heads.heads / h[best]
    return Match((rows[best],), float(distance[best]), float(scale))


def find(bank: Bank, ask: AttentionShape) -> BankMatch | None:
    """The measured surface nearest to some heads; None where this window was not timed."""
    return bank.kept(ask, lambda: _find(bank, ask))


def _find(bank: Bank, ask: AttentionShape) -> BankMatch | None:
    make = partial(surface_of, family=ask.family)
    for home in bank.homes:
        for kv in dict.fromkeys((ask.stored, "bf16")):
            head = (ask.phase, kv)
            near = bank.nearest(home, ask.family, head, make, lambda s, among: match_of(s, ask.heads, ask.phase, among), OTHER_ENGINE)
            if near is not None:
                return BankMatch(*near[:2], home.native and kv == ask.stored, near[2])
    return None


# ---- one kernel ------------------------------------------------------------------------------------------------------


def price(bank: Bank, ask: AttentionShape, batch: ArrayLike, length: ArrayLike) -> Priced:
    """One kernel: of a decode one new token per sequence over `length` cached (need not be whole), of a prefill `batch` whole prompts.

    A window that was not timed: a decode reads min(length, window) with the full kernel; a prompt goes on beyond W at the slope the full
    kernel has at W.
    """
    b, s, window = np.asarray(batch, float), np.asarray(length, float), ask.heads.window
    if not window:
        return _price(bank, ask, b, s)
    if ask.phase == "prefill" and s.max(initial=0.0) <= window:
        return _price(bank, ask.whole(), b, s)
    if find(bank, ask) is not None:
        return _price(bank, ask, b, s)
    inside = _price(bank, ask.whole(), b, np.minimum(s, window))
    if ask.phase == "decode":
        return inside
    beyond = b * np.maximum(s - window, 0.0) * _slope(saturated(bank, ask.whole())[0], window)
    return Priced(inside.seconds + beyond, worst(inside.provenance, Provenance.TRANSFERRED))


def _price(bank: Bank, ask: AttentionShape, b: Array, s: Array) -> Priced:
    """A kernel whose window, if any, was timed."""
    found = find(bank, ask)
    compute = found.surface.kind.compute if found is not None else "bf16"
    return possible(bank.price(found, ask.heads, (b, s), ask.demand, compute, "attention"), *ask.least(b, s), bank.peaks, ask.fastest)


# ---- prompts in a batch that fills the GPU ---------------------------------------------------------------------------


def marginal(bank: Bank, ask: AttentionShape, length: ArrayLike) -> Priced:
    """P(l): what one more prompt of l tokens costs in a batch that fills the GPU; P(0) = 0, rising, convex.

    A chunk of q tokens after c cached costs P(c + q) - P(c).
    """
    cost, label = saturated(bank, ask)
    return labelled(np.interp(np.asarray(length, float), np.r_[0.0, DENSE], np.r_[0.0, cost]), label)


def launch(bank: Bank, ask: AttentionShape) -> float:
    """Fixed time [s] of one prefill kernel: what one tiny prompt takes beyond its marginal cost."""
    tiny = np.array([1.0, 16.0])
    alone = price(bank, ask, 1.0, tiny).seconds
    return float(max(0.0, (alone - marginal(bank, ask, tiny).seconds).min()))


def saturated(bank: Bank, ask: AttentionShape) -> tuple[Array, Provenance]:
    """Marginal prompt costs at the lengths DENSE, and their label."""
    return bank.kept(("saturated", ask), lambda: _possible(bank, ask))


def _possible(bank: Bank, ask: AttentionShape) -> tuple[Array, Provenance]:
    """`_saturated`, no less than the FLOP take: of two convex functions the larger is convex."""
    cost, label = _saturated(bank, ask)
    return np.maximum(cost, ideal(*ask.least(np.ones_like(DENSE), DENSE), bank.peaks, ask.fastest)), label


def _saturated(bank: Bank, ask: AttentionShape) -> tuple[Array, Provenance]:
    found = find(bank, ask)
    window, one = ask.heads.window, np.ones_like(DENSE)
    if found is None and window:
        full, _ = saturated(bank, ask.whole())
        beyond = np.interp(window, DENSE, full) + _slope(full, window) * (DENSE - window)
        return _convex(np.where(window >= DENSE, full, beyond)), Provenance.TRANSFERRED
    if found is None:
        speed = bank.speed("attention")
        return _convex(flat(*ask.demand(ask.heads, one, DENSE), bank.peaks, "bf16", speed) - speed.launch), Provenance.ROOFLINE
    surface, match, own, lent = found
    cost = in_full_batches(surface, ask.heads, match)
    if lent is not None:
        common = lent.own.shape(lent.mine.row)
        mine, theirs = (in_full_batches(s, common, Match(m.row)) for s, m in (lent[:2], lent[2:]))
        cost = _convex(cost * mine / theirs)
    if own:
        return cost, Provenance.TRANSFERRED if match.distance > 0 or lent is not None else Provenance.INTERPOLATED
    there = ideal(*ask.demand(ask.heads, one, DENSE), bank.reach(surface.peaks), surface.kind.compute)
    return _convex(cost * there / surface.best(ask.heads, one, DENSE)), Provenance.TRANSFERRED


def in_full_batches(surface: Surface, heads: Heads, match: Match) -> Array:
    """Cost [s] of one more prompt of DENSE lengths in a batch that fills the GPU, on the GPU that was measured.

    Per measured length the smallest batch with SATURATED tokens in flight (else the largest timed) is divided by
    its size; in between time is linear in the prompt's area and tokens; the greatest convex function below,
    through zero, makes the difference P(c + q) - P(c) of a chunk positive and growing in c.
    """
    seconds, (batch, lengths) = surface.seconds[match.row], surface.sizes
    timed = ~np.isnan(seconds)
    columns = np.flatnonzero(timed.any(axis=0))
    full = timed & (batch[:, None] * lengths / match.scale >= SATURATED)
    last = timed.shape[0] - 1 - timed[::-1].argmax(axis=0)
    pick = np.where(full.any(axis=0), full.argmax(axis=0), last)[columns]
    length = lengths[columns]
    many = batch[pick] / match.scale  # prompts of the heads asked for
    cost = seconds[pick, columns] / many
    near = surface.shape(match.row)
    if match.distance > 0:
        cost *= surface.best(heads, many, length) / surface.best(near, batch[pick], length)
    along = surface.kind.along(near)
    assert along is not None
    inside = np.interp(along(DENSE), along(length), cost)
    one = surface.best(heads, many[-1], DENSE) / many[-1]
    beyond = one * cost[-1] / np.interp(length[-1], DENSE, one)
    return _convex(np.where(length[-1] >= DENSE, inside, beyond))


def _slope(cost: Array, at: float) -> float:
    """Slope [s/token] of a tabulated prompt cost at a length."""
    low, high = np.interp([0.95 * at, 1.05 * at], DENSE, cost)
    return float((high - low) / (0.1 * at))


def _convex(cost: Array) -> Array:
    """The greatest convex function below a cost over DENSE that is nothing at 0."""
    return convex_minorant(np.r_[0.0, DENSE], np.r_[0.0, cost])[1:]
