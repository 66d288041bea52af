"""The cost bank: what one GPU can be priced from, its own tables, a relative's, or none (floor 3).

A GPU with measured tables answers from them: points verbatim, utilisation interpolated in between.  A GPU without borrows the utilisation
of its nearest measured relative (`Gpu.borrow`) with its own peaks.  What nobody measured is priced by a stated formula.  So a `Bank` holds
up to two homes of tables, the GPU's own (`Gpu.kernels`) and the one it borrows from, in this order: a family missing at the first is
looked for at the second, and times found there are moved.

The families price from it (`gemm`, `attention`, `experts`, `scan`, `collectives`): sizes go in as arrays, `Priced` comes out, of their
broadcast shape.  Times are those of one device, alone and warm; nothing here knows about steps, layers or hosts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os.path import isabs
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from numpy.typing import ArrayLike

from apexsim.clock import stretch
from apexsim.cost.device import DeviceTables, refuse
from apexsim.cost.fitted import fitted_for
from apexsim.cost.kernels import ROOT, Table, Tables
from apexsim.cost.roofline import STATED, Peaks, Priced, Provenance, Speed, bounds, carry, flat, labelled, worst
from apexsim.cost.surface import SAME, Demand, Lent, Match, Surface
from apexsim.errors import InputError, nearest
from apexsim.sustained import against

ENGINES = ("vllm", "sglang", "trtllm")
T = TypeVar("T")
Key = tuple[str, ...]
Make = Callable[[Table, Peaks], Surface]


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


class BankMatch(NamedTuple):
    """A surface, the row that stands for the shape asked for, whether GPU and format are its own, and, of another engine's surface, where
    the two engines can be compared."""

    surface: Surface
    match: Match
    own: bool
    lent: Lent | None = None


class Bank:
    """Tables and peaks of one GPU; `source` is the engine whose kernels are preferred where engines differ."""

    def __init__(self, gpu: GpuLike, source: str = "vllm", root: Path = ROOT) -> None:
        if source not in ENGINES:
            raise InputError(f"unknown kernel source '{source}'", "source", nearest(source, ENGINES))
        self.gpu, self.source = gpu, source
        self.link, self.vendor = getattr(gpu, "link", None), getattr(gpu, "vendor", "")
        self.homes = tuple(Home(_tables(s, root), s == gpu.kernels) for s in (gpu.kernels, gpu.borrow) if s)
        stated = Peaks(gpu.flops, gpu.memory_bandwidth, float(getattr(self.link, "bandwidth", 0.0)))
        self.peaks = self.homes[0].tables.peaks if gpu.kernels else stated
        self.held, self.streamed = float(getattr(gpu, "held", math.nan)), float(getattr(gpu, "streamed", 1.0))
        self.stretch = stretch(getattr(gpu, "clock", 1.0))
        self.link_share, self.network = getattr(gpu, "link_share", 1.0), getattr(gpu, "network", 1.0)  # stated over assumed bandwidths
        self.fitted = None if self.homes else fitted_for(getattr(gpu, "arch", ""))
        self._kept: dict[Any, Any] = {}

    def reach(self, peaks: Peaks) -> Peaks:
        """Peaks to which times measured at `peaks` are carried: rates as this GPU holds them against the one that was measured."""
        system = next((home.tables.system for home in self.homes if not home.native and home.tables.peaks is peaks), "")
        flop, nbytes = against(self.held, self.streamed, system)
        if (flop, nbytes) == (1.0, 1.0):
            return self.peaks
        flops = {name: rate * flop for name, rate in self.peaks.flops.items()}
        return replace(self.peaks, flops=flops, bandwidth=self.peaks.bandwidth * nbytes)

    def speed(self, family: str) -> Speed:
        """What kernels of a family reach where there is no table of them."""
        if self.fitted:
            return self.fitted.speed(family)
        flop = min(STATED.flop, self.held) if self.held > 0 else STATED.flop
        return replace(STATED, flop=flop, nbytes=STATED.nbytes * self.streamed)

    def __getstate__(self) -> dict[str, Any]:
        """A worker elsewhere builds its surfaces anew: they hold functions, which do not travel."""
        return {**self.__dict__, "_kept": {}}

    def kept(self, key: Any, make: Callable[[], T]) -> T:
        """The value of `make()`, made once per key."""
        if key not in self._kept:
            self._kept[key] = make()
        value: T = self._kept[key]
        return value

    def surface(self, home: Home, family: str, key: Key, make: Make) -> Surface:
        """What `make` builds from one table and the peaks of the GPU it was measured on, once."""
        return self.kept((home.native, family, key), lambda: make(home.tables.table(family, key), home.tables.peaks))

    def first(self, family: str, heads: Sequence[Key], make: Make) -> BankMatch | None:
        """The first table whose key is one of `heads` and an engine, this one, any, or another; its own where it is native and of the
        first head."""
        for home in self.homes:
            keys = home.tables.keys(family)
            for head in heads:
                for engine in (self.source, "any", *ENGINES):
                    if (*head, engine) in keys:
                        return BankMatch(self.surface(home, family, (*head, engine), make), SAME, home.native and head == heads[0])
        return None

    def nearest(
        self,
        home: Home,
        family: str,
        head: Key,
        make: Make,
        match: Callable[[Surface, Sequence[Any]], Match | None],
        least: float,
        alike: bool = False,
    ) -> tuple[Surface, Match, Lent | None] | None:
        """Of the tables whose key begins with `head` and an engine, the one that holds the nearest shape: this engine's, or where that is
        further than `least`, another's if it is nearer by as much (others are opened only then).  alike: only another's of the same variant
        (the last word of a key) stands for this engine's.  match: (surface, shapes of it to choose from) -> the nearest."""
        keys = [key for key in home.tables.keys(family) if key[: len(head)] == head]

        def closest(keys: Iterable[Key]) -> tuple[Surface, Match] | None:
            surfaces = [self.surface(home, family, key, make) for key in keys]
            matches = [(s, m) for s in surfaces if (m := match(s, s.shapes)) is not None]
            return min(matches, key=lambda pair: pair[1].distance) if matches else None

        mine = [key for key in keys if key[len(head)] == self.source][:1]
        near = closest(mine)
        if near is None or near[1].distance > least:
            other = closest(k for k in keys if k[len(head)] != self.source and (near is None or not alike or k[-1] == mine[0][-1]))
            if near is None:
                return other and (*other, None)
            if other is not None and other[1].distance + least < near[1].distance:
                return (*other, _lent(near[0], other[0], match))
        return near and (*near, None)

    def price(
        self, found: BankMatch | None, shape: Any, sizes: tuple[ArrayLike, ...], work: Demand, compute: str = "bf16", family: str = ""
    ) -> Priced:
        """Seconds of a kernel that demands such work of such units: what its own surface holds; else, labelled transferred, those of
        another GPU, clock or format carried to this one's peaks; else, where nobody timed it, the stated roofline, or what was
        fitted for kernels of its family."""
        if found is None:
            return labelled(flat(*work(shape, *sizes), self.peaks, compute, self.speed(family)), Provenance.ROOFLINE)
        surface, match, own, lent = found
        priced = surface.price(match, shape, *sizes)
        if lent is not None:
            priced = Priced(priced.seconds * lent.ratio(sizes), worst(priced.provenance, Provenance.TRANSFERRED))
        if own:
            return priced
        here = bounds(*surface.kind.work(shape, *sizes), surface.peaks, surface.kind.compute)
        seconds = carry(
            priced.seconds, surface.launch, here, bounds(*work(shape, *sizes), self.reach(surface.peaks), compute), self.stretch
        )
        return Priced(seconds, worst(priced.provenance, Provenance.TRANSFERRED))


def _lent(own: Surface, lender: Surface, match: Callable[[Surface, Sequence[Any]], Match | None]) -> Lent | None:
    """The nearest shape that both were timed at, None where there is none."""
    common = [shape for shape in own.shapes if shape in lender.shapes]
    mine = match(own, common) if common else None
    if mine is None:
        return None
    return Lent(own, mine, lender, mine._replace(row=(lender.shapes.index(own.shape(mine.row)),)))


def _tables(system: str, root: Path) -> Tables | DeviceTables:
    """A measured system of the package by name, or a device folder by its path."""
    if not isabs(system):
        return Tables(system, root)
    from apexsim.cost.device_check import checked  # 6 ms that only those who measured a device pay

    tables = DeviceTables(Path(system))
    refuse(tables.device.folder, checked(tables.device))
    return tables


_BANKS: dict[tuple[Any, ...], Bank] = {}


def load_bank(gpu: GpuLike, source: str = "vllm", root: Path = ROOT) -> Bank:
    """The bank of a GPU, made once per GPU and source."""
    link = getattr(gpu, "link", None)
    links = tuple(getattr(x, name, None) for x, name in ((link, "bandwidth"), (link, "latency"), (link, "launch"), (gpu, "link_share"),
                                                         (gpu, "network")))  # fmt: skip
    key = (
        gpu.name,
        gpu.kernels,
        gpu.borrow,
        tuple(sorted(gpu.flops.items())),
        gpu.memory_bandwidth,
        links,
        str(getattr(gpu, "held", "")),
        getattr(gpu, "streamed", 1.0),
        source,
        root,
    )
    if key not in _BANKS:
        _BANKS[key] = Bank(gpu, source, root)
    return _BANKS[key]
