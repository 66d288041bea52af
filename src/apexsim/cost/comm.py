"""Collectives: measured curves within a node, a latency + bandwidth form elsewhere (floor 3).

Sizes, everywhere: `nbytes` is what one rank holds of the *whole* tensor: all_reduce the tensor itself; all_gather the
gathered result; reduce_scatter the input before it is scattered; all_to_all what one rank sends to all together;
send the message.  A ring of p ranks moves 2(p-1)/p of it for an all_reduce, (p-1)/p for the others (Thakur,
Rabenseifner, Gropp 2005), in 2(p-1) or p-1 steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from apexsim.cost.grid import bracket, fill, linear
from apexsim.cost.kernels import Table
from apexsim.cost.library import ENGINES, Library
from apexsim.cost.ring import MOVES, Wire, collective_formula, lent
from apexsim.cost.roofline import Peaks, Priced, Provenance, labelled, worst
from apexsim.errors import InputError


class Curve:
    """Measured times of one collective over (ranks, bytes)."""

    def __init__(self, table: Table, peaks: Peaks) -> None:
        self.gpus, self.bytes = table.axes["gpus"].astype(float), table.axes["bytes"].astype(float)
        rate, self.holes = fill(self.bytes / table.seconds)
        self.seconds = self.bytes / rate

    def knows(self, gpus: int) -> bool:
        """Whether the row that serves so many ranks holds any time; those far below their siblings are refused (docs/kernels.md)."""
        return not bool(self.holes[self.row(gpus)].all())

    def row(self, gpus: int) -> int:
        """The row of so many ranks, or of the next fewer that were timed."""
        return max(int(np.searchsorted(self.gpus, gpus, side="right")) - 1, 0)

    def price(self, kind: str, nbytes: ArrayLike, gpus: int) -> Priced:
        """Seconds for `gpus` ranks: linear in bytes, held below the smallest message, at the rate of the largest above.

        A number of ranks that was not timed takes the next one below, times the ratio of the bytes a ring moves.
        """
        row = self.row(gpus)
        along = bracket(self.bytes, nbytes)
        seconds, label = linear(self.seconds[row], self.holes[row], along)
        seconds = seconds * np.maximum(np.asarray(nbytes, float) / self.bytes[-1], 1.0)
        if self.gpus[row] != gpus:
            there, here = MOVES[kind](float(gpus)), MOVES[kind](float(self.gpus[row]))
            return Priced(seconds * there[0] / here[0], worst(label, Provenance.EXTRAPOLATED))
        return Priced(seconds, label)


class Found(NamedTuple):
    """A measured curve, whether it was measured on this very GPU, and how much longer bytes take on the link that it has here."""

    curve: Curve
    own: bool
    stretch: float = 1.0


def price(library: Library, kind: str, nbytes: ArrayLike, gpus: int, found: Found | None, link: Wire | None) -> Priced:
    """Seconds of a collective: from a measured curve where there is one, else by formula on the link."""
    size = np.asarray(nbytes, float)
    if gpus <= 1 and kind != "send":
        return labelled(np.zeros_like(size), Provenance.MEASURED)
    if found is not None and link is None:
        priced = found.curve.price(kind, size, gpus)
        if found.own and found.stretch == 1.0:
            return priced
        least = found.curve.price(kind, [0.0], gpus).seconds
        return Priced(least + (priced.seconds - least) * found.stretch, worst(priced.provenance, Provenance.TRANSFERRED))
    wire = link or library.link
    if wire is None:
        raise InputError("no link to price a collective on", library.gpu.name, "give the link's bandwidth and latency")
    return labelled(
        collective_formula(kind, size, gpus, wire.bandwidth, wire.latency, wire.launch), Provenance.ROOFLINE
    )


def measured(library: Library, kind: str, gpus: int, graph: bool, nccl: bool, nodes: int, engine: str = "") -> Found | None:
    """The measured curve of a collective of so many ranks: the engine's own all-reduce (or that of another, by name), else another
    engine's or the vendor library's.

    A relative's curve serves as `lent` says.  A network or a slot that the question states stretches what each byte takes.
    """
    modes = ("graph", "eager") if graph else ("eager", "graph")
    custom = [(kind, name, mode) for name in (engine or library.source, *ENGINES) for mode in modes]
    wanted = [*(custom if not nccl and nodes == 1 else ()), (kind, "nccl", str(nodes))]
    for home in library.homes:
        there = [w for w in wanted if w in home.tables.keys("comm")]
        key = next((w for w in there if library.surface(home, "comm", w, Curve).knows(gpus)), None)
        if key is None:
            continue
        width = getattr(library.link, "bandwidth", 0.0) / library.link_share
        stretch = 1.0 if home.native else lent(key[1] != "nccl", library.vendor, width, home.tables.peaks.link)
        if stretch:
            stated = library.network if nodes > 1 else library.link_share
            return Found(library.surface(home, "comm", key, Curve), home.native, stretch / stated)
    return None
