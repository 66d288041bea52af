"""What one GPU can be priced from: its own tables, a relative's, or none (floor 3).

A `Library` holds up to two homes of measured tables, the GPU's own (`Gpu.kernels`) and the one it borrows from
(`Gpu.borrow`), in this order: a family missing at the first is looked for at the second.  Surfaces made from tables
are kept; times found abroad are moved by `Library.moved`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os.path import isabs
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from apexsim.clock import stretch
from apexsim.cost.device import DeviceTables, refuse
from apexsim.cost.kernels import ROOT, Table, Tables
from apexsim.cost.roofline import Bounds, Peaks, Priced, Provenance, carry, worst
from apexsim.errors import InputError, nearest

ENGINES = ("vllm", "sglang", "trtllm")
T = TypeVar("T")


class GpuLike(Protocol):
    """The part of a Gpu that prices need; a `link` (bandwidth, latency, launch) and a `vendor` are used if stated."""

    @property
    def name(self) -> str: ...
    @property
    def flops(self) -> Mapping[str, float]: ...
    @property
    def memory_bandwidth(self) -> float: ...
    @property
    def kernels(self) -> str: ...
    @property
    def borrow(self) -> str: ...


class Home(NamedTuple):
    """One system's tables; native: they were measured on this very GPU."""

    tables: Tables | DeviceTables
    native: bool


class Library:
    """Tables and peaks of one GPU; `source` is the engine whose kernels are preferred where engines differ."""

    def __init__(self, gpu: GpuLike, source: str, root: Path = ROOT) -> None:
        if source not in ENGINES:
            raise InputError(f"unknown kernel source '{source}'", "source", nearest(source, ENGINES))
        self.gpu, self.source = gpu, source
        self.link, self.vendor = getattr(gpu, "link", None), getattr(gpu, "vendor", "")
        self.homes = tuple(Home(_tables(s, root), s == gpu.kernels) for s in (gpu.kernels, gpu.borrow) if s)
        stated = Peaks(gpu.flops, gpu.memory_bandwidth, float(getattr(self.link, "bandwidth", 0.0)))
        self.peaks = self.homes[0].tables.peaks if gpu.kernels else stated
        self.stretch = stretch(getattr(gpu, "clock", 1.0))
        self.link_share, self.network = getattr(gpu, "link_share", 1.0), getattr(gpu, "network", 1.0)  # stated over assumed bandwidths
        self._kept: dict[Any, Any] = {}

    def kept(self, key: Any, make: Callable[[], T]) -> T:
        """The value of `make()`, made once per key."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def surface(self, home: Home, family: str, key: tuple[str, ...], make: Callable[[Table, Peaks], T]) -> T:
        """What `make` builds from one table and the peaks of the GPU it was measured on, once."""
        return self.kept((home.native, family, key), lambda: make(home.tables.table(family, key), home.tables.peaks))

    def moved(self, priced: Priced, launch: float, here: Bounds, there: Bounds) -> Priced:
        """Times of another GPU, clock or format, carried to where the bounds are `there`, and labelled transferred."""
        seconds = carry(priced.seconds, launch, here, there, self.stretch)
        return Priced(seconds, worst(priced.provenance, Provenance.TRANSFERRED))


def _tables(system: str, root: Path) -> Tables | DeviceTables:
    """A measured system of the package by name, or a device folder by its path."""
    if not isabs(system):
        return Tables(system, root)
    from apexsim.cost.device_check import checked  # its rooflines and shapes are built on this module

    tables = DeviceTables(Path(system))
    refuse(tables.device.folder, checked(tables.device))
    return tables
