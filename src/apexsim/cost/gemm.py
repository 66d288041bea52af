"""GEMM times from measured grids, and those of quantising the activations in front (floor 3).

Between grid points time is linear in m, n and k; above the grid the utilisation of the edge is held, below it its time.
Quantisation was measured for per-tensor FP8 over (m tokens, k numbers).  Other formats read the same 16-bit input and are priced alike,
labelled transferred.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from apexsim.cost.bank import Bank, BankMatch
from apexsim.cost.grid import fill
from apexsim.cost.kernels import Table
from apexsim.cost.roofline import (
    KERNELS,
    Array,
    Kernel,
    Peaks,
    Priced,
    Provenance,
    Work,
    flat,
    labelled,
    possible,
    transfer,
    worst,
)
from apexsim.cost.shapes import gemm_work
from apexsim.cost.surface import Demand, KernelKind, Surface, held, in_proportion
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


def _work(kernel: Kernel) -> Demand:
    return lambda _, m, n, k: gemm_work(m, n, k, kernel)


def surface_of(table: Table, peaks: Peaks) -> Surface:
    """Times of one GEMM kernel over (m, n, k)."""
    kernel = KERNELS[table.key[0]]

    def complete(seconds: Array, best: Array, along: Array) -> Array:
        return without_spikes(held(seconds, best, along))

    def beyond(seconds: Array, launch: float, here: Array, there: Array) -> Array:
        return transfer(seconds, 0.0, here, there)  # `in_proportion` but for the last bit, by which answers would differ

    kind = KernelKind(("m", "n", "k"), _work(kernel), kernel.compute, complete=complete, beyond=beyond)
    return Surface(table, peaks, kind)


def price(bank: Bank, m: ArrayLike, n: int, k: int, kernel: str) -> Priced:
    """Seconds of y[m, n] = x[m, k] · w[k, n] for an array of m tokens, no less than its bytes and FLOP take; kernel: one of KERNELS."""
    if kernel not in KERNELS:
        raise InputError(f"unknown GEMM kernel '{kernel}'", "kernel", nearest(kernel, KERNELS))
    row = KERNELS[kernel]
    return possible(_price(bank, m, n, k, kernel), *gemm_work(m, n, k, row), bank.peaks, row.compute)


def _price(bank: Bank, m: ArrayLike, n: int, k: int, kernel: str) -> Priced:
    found = bank.kept(("gemm", kernel), lambda: _find(bank, kernel))
    if found is None:
        return _formula(bank, np.asarray(m, float), n, k, kernel)
    return bank.price(found, None, (m, n, k), _work(KERNELS[kernel]), KERNELS[kernel].compute, "gemm")


def _find(bank: Bank, kernel: str) -> BankMatch | None:
    """The surface for a kernel, its own or a surrogate's on a GPU that has the units; None where there is none."""
    row, units = KERNELS[kernel], bank.peaks.has(KERNELS[kernel].compute)
    names = () if row.weight_only else (kernel, *(SURROGATES.get(kernel, ()) if units else ()))
    found = bank.first("gemm", [(name,) for name in names], surface_of)
    return found if found is not None and (units or found.own) else None


def _formula(bank: Bank, m: Array, n: int, k: int, kernel: str) -> Priced:
    """A kernel without a table.

    Weights that are unpacked to 16 bit, because the format has no units here: min(t16, launch + max((t16 - launch) ·
    bytes / bytes16, FLOP / 65 % of the 16-bit peak)) with t16 the 16-bit GEMM; fewer bytes move, the multiplication is
    no faster.  Anything else: the flat roofline.
    """
    row = KERNELS[kernel]
    if kernel == "bf16" or (bank.peaks.has(row.compute) and not row.weight_only):
        return labelled(flat(*gemm_work(m, n, k, row), bank.peaks, row.compute, bank.speed("gemm")), Provenance.ROOFLINE)
    base = price(bank, m, n, k, "bf16")
    flop, bytes16 = gemm_work(m, n, k, KERNELS["bf16"])
    nbytes = bytes16 - n * k * (2.0 - row.weight_bytes)
    speed = bank.speed("gemm")
    fixed = np.minimum(speed.launch, base.seconds)
    stored = (base.seconds - fixed) * nbytes / bytes16
    seconds = fixed + np.maximum(stored, flop / (speed.flop * bank.peaks.rate("bf16")))
    cap = base.seconds if row.weight_bytes <= 2.0 else np.inf
    return Priced(np.minimum(cap, seconds), worst(base.provenance, Provenance.TRANSFERRED))


QUANTISED = 3.0  # bytes per number: 16 bit read, 8 bit written


def _numbers(_: None, m: Array, k: Array | int) -> Work:
    return 0.0, QUANTISED * m * k


QUANTISE = KernelKind(("m", "k"), _numbers, complete=lambda seconds, best, along: fill(seconds)[0], beyond=in_proportion)


def quantise(bank: Bank, m: Array, k: int, kernel: str) -> Priced:
    """Seconds of quantising x[m, k] for a GEMM kernel, with a static scale."""
    found = bank.first("quantise", [("static",)], partial(Surface, kind=QUANTISE))
    priced = bank.price(found, None, (m, k), _numbers, family="small")
    return priced if kernel == "fp8" else Priced(priced.seconds, worst(priced.provenance, Provenance.TRANSFERRED))
