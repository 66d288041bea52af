"""Linear attention and state-space layers, and the small products around latent attention (floor 3).

Tables hold the whole mixer between its projections: short convolution + scan.  Kinds: gdn (Gated DeltaNet), kda (Kimi
Delta Attention); mamba2 has no measured scan and is priced by the roofline.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from apexsim.cost.bank import Bank
from apexsim.cost.kernels import Table
from apexsim.cost.roofline import Array, Peaks, Priced, Work, possible
from apexsim.cost.shapes import RecurrentState, bmm_work, scan_work
from apexsim.cost.surface import Demand, KernelKind, Match, Surface, in_proportion

KINDS = {"kda": ("kda", "gdn"), "gdn": ("gdn", "kda")}  # kind -> measured kinds that may stand for it
WEIGHTS = np.array([1.0, 0.3, 1.0])  # of a factor e in value heads, key heads, size of a head's state


def _work(phase: str) -> Demand:
    return lambda state, b, s: scan_work(phase, b, s, state)


def surface_of(table: Table, peaks: Peaks) -> Surface:
    """Times of one engine's scan in one phase over (state, batch, length)."""
    return Surface(table, peaks, KernelKind(("batch", "length"), _work(table.key[1]), shape=RecurrentState._make))


def _features(state: RecurrentState) -> Array:
    """What makes two states alike, as logarithms [3]; a short convolution keeps none: the smallest that was timed stands for it."""
    return np.log(np.maximum([state.value_heads, state.key_heads, state.key_dim * state.value_dim], 1))


def match_of(surface: Surface, state: RecurrentState) -> Match:
    """The nearest state that was timed."""
    distance = np.array([np.abs(_features(near) - _features(state)) @ WEIGHTS for near in surface.shapes])
    row = int(distance.argmin())
    return Match((row,), 0.0 if surface.shapes[row] == state else max(float(distance[row]), 1e-3))


def price(bank: Bank, kind: str, phase: str, batch: ArrayLike, length: ArrayLike, state: RecurrentState) -> Priced:
    """Seconds of a scan: phase prefill (batch prompts of length tokens) or decode (one token each).

    A decode reads and writes the states of its sequences, which no cache keeps from step to step."""
    b, s = np.broadcast_arrays(np.asarray(batch, float), np.asarray(length, float))
    found = bank.first("scan", [(name, phase) for name in KINDS.get(kind, ())], surface_of)
    if found is not None:
        found = found._replace(match=match_of(found.surface, state))
    nbytes = scan_work(phase, b, s, state)[1] if phase == "decode" else 0.0
    return possible(bank.price(found, state, (b, s), _work(phase), family="small"), 0.0, nbytes, bank.peaks, "bf16")


def _product(_: None, heads: Array, tokens: Array) -> Work:
    return bmm_work(tokens, heads)


def product_of(table: Table, peaks: Peaks) -> Surface:
    """Times of one absorbed product over (heads, tokens)."""
    return Surface(table, peaks, KernelKind(("heads", "tokens"), _product, beyond=in_proportion))


def absorbed(bank: Bank, tokens: ArrayLike, heads: int) -> Priced:
    """Both absorbed products of latent attention in decode, in 16 bit: queries into the latent, and the latent into values."""
    t, many = np.asarray(tokens, float), np.asarray(float(heads))
    flop, nbytes = bmm_work(t, many)
    parts = [
        bank.price(bank.first("mla_bmm", [(op, "bf16")], product_of), None, (many, t), _product, family="gemm") for op in ("pre", "post")
    ]
    both = Priced(parts[0].seconds + parts[1].seconds, np.maximum(parts[0].provenance, parts[1].provenance))
    return possible(both, 2.0 * flop, 2.0 * nbytes, bank.peaks, "bf16")
