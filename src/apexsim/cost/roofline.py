"""Ideal times, transfer between GPUs, and the stated roofline (floor 3).

    ideal    = max(FLOP / peak, bytes / bandwidth)                          the speed of light of one kernel
    transfer = launch + (t - launch) · ideal_there / ideal_here             another shape: utilisation stays, and so does the launch
    carry    = latency + (t - latency) · ideal_there / ideal_here           another GPU, latency >= launch
    flat     = 2 µs + max(FLOP / (0.65 · peak), bytes / (0.8 · bandwidth))  a kernel nobody measured; of GPUs whose served runs
               were fitted, with their own three numbers (`fitted`)

The launch floor of a kernel (2.4-8 µs from first block to last store) is set by the driver and the clock, not by the
memory, so it is kept apart when a surface moves.  On another GPU more than that stays: what a memory-bound kernel takes beyond
streaming its bytes at STREAMING of the bandwidth is waiting for memory, tails of waves and reductions, which wider memory does not
shorten (a GEMM of 5,120 x 8,192 in FP8 takes 12.5, 8.7 and 5.2 µs at the bandwidths of H100, H200 and B200, and 9.6, 9.7 and 9.2 µs
more).  The more a kernel is bound by its FLOP, the less of it stays:
    latency = max(launch, (t - ideal_here / STREAMING) · max(0, 1 - compute / memory))
At a lower SM clock such waiting takes longer, as memory-bound work does (`clock`): latency - launch is stretched; the launch stays.
Carrying whole tables (m <= 128, median errors of the tables) from H100 to H200: decode attention 9-15 -> 2-4 %, GEMM 4-12 -> 3-6 %,
experts 7-20 -> 4-8 %; from H100 to L40S: 46-159 -> 29-44 %, 20-53 -> 20-35 %, 11-114 -> 12-68 %; from A100 to H100, whose kernels differ
more than their memories, it is worse: 14-23 -> 26-47 %.  Ignored: clock throttling, caches larger than the
working set, contention with other kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Work = tuple[ArrayLike, ArrayLike]  # FLOP and bytes

STREAMING = 0.9  # of the bandwidth that a kernel reaches on bytes alone
FLOP_SHARE = 0.65  # of the peak that an unmeasured compute-bound kernel is given
BYTE_SHARE = 0.8  # of the bandwidth that an unmeasured memory-bound kernel is given
LAUNCH = 2e-6  # [s] fixed part of an unmeasured kernel


@dataclass(frozen=True, slots=True)
class Speed:
    """What kernels that nobody timed one by one reach: fixed part [s], shares of the peak and of the bandwidth."""

    launch: float = LAUNCH
    flop: float = FLOP_SHARE
    nbytes: float = BYTE_SHARE


STATED = Speed()


class Provenance(IntEnum):
    """Where a time comes from, from best to worst; the worst of several speaks for their sum."""

    MEASURED = 0
    INTERPOLATED = 1
    EXTRAPOLATED = 2
    TRANSFERRED = 3
    ROOFLINE = 4


class Priced(NamedTuple):
    """Times of one op on an array of sizes."""

    seconds: Array  # [s]
    provenance: NDArray[np.int8]  # Provenance, same shape


@dataclass(frozen=True)
class Peaks:
    """What a GPU could do at best: dense FLOP/s by format, memory and link bandwidth [byte/s, per direction]."""

    flops: Mapping[str, float]
    bandwidth: float
    link: float = 0.0

    def rate(self, compute: str) -> float:
        """Peak FLOP/s of a format; a format without units runs at the next wider one that has them."""
        for name in _WIDER[compute]:
            if self.flops.get(name):
                return float(self.flops[name])
        return float(max(self.flops.values()))

    def has(self, compute: str) -> bool:
        """Whether the GPU multiplies in this format."""
        return bool(self.flops.get(compute))


_WIDER = {
    "fp4": ("fp4", "fp8", "bf16"), "fp8": ("fp8", "bf16"), "int8": ("int8", "bf16"), "bf16": ("bf16", "fp32"),
    "fp32": ("fp32", "bf16"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kernel:
    """A GEMM kernel's formats: bytes per weight (scales included) and per activation element, and the units it uses.

    weight_only: multiplies in 16 bit, the weights are unpacked on the way.
    """

    weight_bytes: float
    act_bytes: float
    compute: str
    weight_only: bool = False


KERNELS = {
    "fp32": Kernel(4.0, 4.0, "fp32"),
    "bf16": Kernel(2.0, 2.0, "bf16"),
    "fp8": Kernel(1.0, 1.0, "fp8"),
    "fp8_block": Kernel(1.0 + 4.0 / 128**2, 1.0 + 4.0 / 128, "fp8"),
    "int8": Kernel(1.0, 1.0, "int8"),
    "nvfp4": Kernel(0.5 + 1.0 / 16, 0.5 + 1.0 / 16, "fp4"),
    "mxfp4": Kernel(0.5 + 1.0 / 32, 1.0 + 1.0 / 32, "fp8"),
    "w4a8_mxfp4": Kernel(0.5 + 1.0 / 32, 1.0 + 1.0 / 32, "fp8"),
    "w4a16_mxfp4": Kernel(0.5 + 1.0 / 32, 2.0, "bf16", weight_only=True),
    "w4a16_nvfp4": Kernel(0.5 + 1.0 / 16, 2.0, "bf16", weight_only=True),
    "w8a16": Kernel(1.0 + 2.0 / 128, 2.0, "bf16", weight_only=True),
    "w4a16": Kernel(0.5 + 2.0 / 128, 2.0, "bf16", weight_only=True),
}


def ideal(flop: ArrayLike, nbytes: ArrayLike, peaks: Peaks, compute: str) -> Array:
    """Time [s] at the peaks: max(FLOP / peak, bytes / bandwidth)."""
    return np.maximum(np.asarray(flop, float) / peaks.rate(compute), np.asarray(nbytes, float) / peaks.bandwidth)


class Bounds(NamedTuple):
    """Times [s] at the peaks of a GPU: of moving the bytes, and of the FLOP."""

    memory: Array
    compute: Array

    @property
    def ideal(self) -> Array:
        """The longer of both."""
        return np.maximum(self.memory, self.compute)


def bounds(flop: ArrayLike, nbytes: ArrayLike, peaks: Peaks, compute: str) -> Bounds:
    """Both times of `ideal`."""
    return Bounds(np.asarray(nbytes, float) / peaks.bandwidth, np.asarray(flop, float) / peaks.rate(compute))


def possible(priced: Priced, flop: ArrayLike, nbytes: ArrayLike, peaks: Peaks, compute: str) -> Priced:
    """Times no shorter than the FLOP and the bytes take at the peaks, which are then transferred, not measured.

    A microbenchmark that runs one product again and again finds its operands in the last-level cache; the weights of a model and the
    keys of its requests never are, since a step reads all others in between.
    """
    least = ideal(flop, nbytes, peaks, compute)
    short = priced.seconds < least
    if not short.any():
        return priced
    label = np.where(short, worst(priced.provenance, Provenance.TRANSFERRED), priced.provenance)
    return Priced(np.maximum(priced.seconds, least), label.astype(np.int8))


def flat(flop: ArrayLike, nbytes: ArrayLike, peaks: Peaks, compute: str, speed: Speed = STATED) -> Array:
    """The stated roofline [s]: 2 µs + max(FLOP / 65 % of peak, bytes / 80 % of bandwidth), or with what was fitted."""
    busy = np.asarray(flop, float) / (speed.flop * peaks.rate(compute))
    return speed.launch + np.maximum(busy, np.asarray(nbytes, float) / (speed.nbytes * peaks.bandwidth))


def transfer(seconds: Array, launch: float, here: Array, there: Array) -> Array:
    """Times measured where the ideal is `here`, moved to a GPU or shape where it is `there` (all [s])."""
    fixed = np.minimum(launch, seconds)
    return fixed + (seconds - fixed) * there / here


def carry(seconds: Array, launch: float, here: Bounds, there: Bounds, stretch: float = 1.0) -> Array:
    """Times measured on a GPU with the bounds `here`, on one with the bounds `there` (all [s]); the law stands above.

    stretch: of what a lower SM clock makes longer beside the bounds."""
    latency = (seconds - here.ideal / STREAMING) * np.maximum(0.0, 1.0 - here.compute / here.memory)
    fixed = np.minimum(np.maximum(latency, launch), seconds)
    slower = (stretch - 1.0) * (fixed - np.minimum(launch, seconds))
    return fixed + slower + (seconds - fixed) * there.ideal / here.ideal


def labelled(seconds: ArrayLike, label: Provenance | NDArray[np.int8]) -> Priced:
    """A Priced with one label for all, or one each."""
    values = np.asarray(seconds, float)
    return Priced(values, np.broadcast_to(np.asarray(label, np.int8), values.shape))


def worst(label: NDArray[np.int8], least: Provenance) -> NDArray[np.int8]:
    """Labels no better than `least`."""
    return np.maximum(label, np.int8(least))
