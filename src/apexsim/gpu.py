"""One accelerator and the links that leave it (floor 1)."""

from __future__ import annotations

import copyreg
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


def _frozen(table: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    """A read-only view, by a name that pickle can look up."""
    return MappingProxyType(table)


copyreg.pickle(MappingProxyType, lambda table: (_frozen, (dict(table),)))  # Python has no way of its own


@dataclass(frozen=True, slots=True)
class GpuLink:
    """A way out of a GPU.

    bandwidth: peak [byte/s] per direction and GPU; latency: one hop [s], without the launch of the kernel;
    span: GPUs it reaches; launch: fixed cost of one collective on it [s]; multi_node: whether it joins the GPUs of
    several nodes (NVL72, TPU pods); peer: whether GPUs reach each other's memory over it.
    A ring collective of n GPUs that moves almost nothing takes about
    launch + steps × latency, with 2(n−1) steps for an all-reduce and n−1 for the others.
    """

    name: str
    bandwidth: float
    latency: float
    span: int
    launch: float = 0.0
    multi_node: bool = False
    peer: bool = True


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator model.

    flops: dense peaks [FLOP/s] by format; memory_bytes: what engines see at start-up [byte]; memory_nominal_bytes:
    what is on the label (memory vendors' GB are GiB); memory_bandwidth: peak [byte/s];
    cache_bytes: last-level cache, 0 = none known; link: scale-up; nic: network;
    host: PCIe or chip-to-chip; tdp_w, idle_w [W] (NaN where unknown); prices [$/h per GPU] by price book; kernels:
    name or path of its measured operator tables, or "", and then borrow names that of the nearest measured GPU;
    clock_mhz: the highest SM clock (NaN where unknown), clock: the share of it that is set.
    """

    name: str
    aliases: tuple[str, ...]
    vendor: str
    arch: str
    flops: Mapping[str, float]
    memory_bytes: float
    memory_nominal_bytes: float
    memory_bandwidth: float
    cache_bytes: float
    link: GpuLink
    nic: GpuLink
    host: GpuLink
    tdp_w: float
    idle_w: float
    prices: Mapping[str, float]
    kernels: str
    borrow: str
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    clock_mhz: float = math.nan  # highest SM clock
    clock: float = 1.0  # SM clock over that
    held: float = math.nan  # share of its peaks that it holds under its power limit (`sustained`)
    streamed: float = 1.0  # share of its bandwidth that ECC leaves
    profile: str = ""  # of a MIG slice
    slot: float = 1.0  # bandwidth of the PCIe slot over the card's own
    network: float = 1.0  # bandwidth of the network over the assumed one
    stated: tuple[str, ...] = ()  # links that the question states: "nic", "pcie"

    @property
    def has_scale_up(self) -> bool:
        """Whether GPUs are joined by more than the host's PCIe."""
        return self.link.span > 1 and self.link.bandwidth > self.host.bandwidth

    @property
    def link_share(self) -> float:
        """Bandwidth between the GPUs of a node over what it would be in a slot as wide as the card."""
        return 1.0 if self.has_scale_up else self.slot
