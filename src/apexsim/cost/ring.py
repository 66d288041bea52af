"""Collectives by formula, and when a measured curve is lent (floor 3).

Sizes, everywhere: `nbytes` is what one rank holds of the *whole* tensor: all_reduce the tensor itself; all_gather the
gathered result; reduce_scatter the input before it is scattered; all_to_all what one rank sends to all together;
send the message.  A ring of p ranks moves 2(p-1)/p of it for an all_reduce, (p-1)/p for the others (Thakur,
Rabenseifner, Gropp 2005), in 2(p-1) or p-1 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from apexsim.cost.roofline import Array
from apexsim.errors import InputError, nearest

LINK_SHARE = 0.75  # of the peak that large messages reach: all_gather on 8 GPUs, 0.73 (H200) to 0.78 (A100)
VENDOR = "NVIDIA"  # of all GPUs whose collectives are lent
SAME_LINK = 0.02  # relative difference of link bandwidths up to which a curve is lent as it is
REDUCING = ("NVIDIA", "AMD")  # vendors for which engines have an all-reduce of their own, one kernel over mapped memory
MESH = 100e9  # [byte/s] of links (NVLink, Infinity Fabric; no PCIe) along which those kernels are lent


class Wire(Protocol):
    """What a link must tell: peak [byte/s] per direction, latency of a step [s], launch of a collective [s]."""

    @property
    def bandwidth(self) -> float: ...
    @property
    def latency(self) -> float: ...
    @property
    def launch(self) -> float: ...


def _ring(p: float) -> tuple[float, float]:
    return 1.0 - 1.0 / p, p - 1.0


# kind -> (share of nbytes that crosses a link, steps) for p ranks
MOVES: dict[str, Callable[[float], tuple[float, float]]] = {
    "all_reduce": lambda p: (2 * _ring(p)[0], 2 * _ring(p)[1]),
    "all_gather": _ring,
    "reduce_scatter": _ring,
    "all_to_all": _ring,
    "send": lambda p: (1.0, 1.0),
}


def collective_formula(kind: str, nbytes: ArrayLike, gpus: int, bandwidth: float, latency: float, launch: float = 0.0) -> Array:
    """Seconds = launch + steps · latency + moved bytes / (0.75 · bandwidth).

    bandwidth: peak [byte/s] per direction and GPU; latency: one step [s].  Ignored: trees and in-network reduction,
    which are faster for small messages, and congestion between collectives.
    """
    if kind not in MOVES:
        raise InputError(f"unknown collective '{kind}'", "collective", nearest(kind, MOVES))
    size = np.asarray(nbytes, float)
    if gpus <= 1 and kind != "send":
        return np.zeros_like(size)
    share, steps = MOVES[kind](float(max(gpus, 2)))
    return np.asarray(launch + steps * latency + share * size / (LINK_SHARE * bandwidth))


def lent(custom: bool, vendor: str, width: float, lender: float) -> float:
    """How many times as long the bytes of a lent curve take on a link of `width` [byte/s]; 0: the curve is not lent.

    Between equal links of one vendor (A100 40 and 80 GB, H100 and H20) as it is.  The engines' own all-reduce also between links of other
    widths, its shortest time kept: that is flags and memory latency, not width.  Held against the tables of another generation this is
    0.5 to 1.9 of what was measured below 1 MiB, the ring formula 1.3 to 4.5; against eight MI355X (6.3 to 24 µs for 24 KiB to 1.5 MiB,
    github.com/vllm-project/vllm/pull/39080) 8.7 to 27 µs, the formula 53 to 60.
    """
    if vendor == VENDOR and abs(width / lender - 1) < SAME_LINK:
        return 1.0
    return lender / width if custom and vendor in REDUCING and min(width, lender) >= MESH else 0.0
