"""Expert-parallel dispatch and combine: measured DeepEP curves, else an all-to-all by formula (floor 3).

Each of t tokens of a rank goes to the ranks of its k experts in 8 bit and comes back in 16: at most t·min(k, ranks)
copies leave, of d·(1 + 2) bytes for both ways.  Tables hold 8 ranks a node, 1 to 8 nodes, linear in t between points;
a route that was not timed is scaled by its bytes.  Ignored: uneven load of the ranks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from apexsim.cost.grid import bracket, fill, linear
from apexsim.cost.kernels import Table
from apexsim.cost.library import Library
from apexsim.cost.ring import collective_formula
from apexsim.cost.roofline import Array, Peaks, Priced, Provenance, labelled, transfer, worst
from apexsim.cost.shapes import Route, volume
from apexsim.errors import InputError

RANKS = 8  # of one node in the tables
HOP, START = 2e-6, 5e-6  # [s] latency and launch where the link does not state its own


class DispatchSurface:
    """Times of dispatch + combine over (route, tokens per rank)."""

    def __init__(self, table: Table, peaks: Peaks) -> None:
        self.peaks = peaks
        self.routes = [Route._make(row) for row in table.axes["shape"].tolist()]
        self.tokens = table.axes["tokens"].astype(float)
        self.seconds = table.seconds
        self.launch = 0.9 * float(np.nanmin(table.seconds))

    def price(self, tokens: Array, route: Route, ranks: int) -> Priced:
        """Seconds of the nearest route that was timed, scaled by the bytes that leave a rank."""
        sizes = np.log([volume(r, ranks) for r in self.routes])
        row = int(np.abs(sizes - np.log(volume(route, ranks))).argmin())
        rate, holes = fill(self.tokens / self.seconds[row])
        along = bracket(self.tokens, tokens)
        seconds, label = linear(self.tokens / rate, holes, along)
        seconds = seconds * np.maximum(tokens / self.tokens[-1], 1.0)
        near = self.routes[row]
        if near == route:
            return Priced(seconds, label)
        ratio = np.asarray(volume(route, ranks) / volume(near, ranks))
        return Priced(transfer(seconds, self.launch, np.ones(1), ratio), worst(label, Provenance.TRANSFERRED))


def measured(library: Library, gpus: int, nodes: int, low_latency: bool) -> bool:
    """Whether this number of ranks and nodes was timed on this very GPU."""
    key = ("ll" if low_latency else "ht", str(nodes))
    return gpus == RANKS * nodes and any(h.native and key in h.tables.keys("dispatch") for h in library.homes)


def price(library: Library, tokens: ArrayLike, route: Route, gpus: int, low_latency: bool, nodes: int) -> Priced:
    """Seconds of dispatch and combine; measured where GPU and ranks were, else by all-to-all formula."""
    t = np.asarray(tokens, float)
    if gpus <= 1:
        return labelled(np.zeros_like(t), Provenance.MEASURED)
    key = ("ll" if low_latency else "ht", str(nodes))
    for home in library.homes:
        if home.native and key in home.tables.keys("dispatch"):
            surface = library.surface(home, "dispatch", key, DispatchSurface)
            priced = surface.price(t, route, RANKS * nodes)
            if nodes > 1 and library.network != 1.0:
                seconds = transfer(priced.seconds, surface.launch, np.ones(1), np.asarray(1.0 / library.network))
                priced = Priced(seconds, worst(priced.provenance, Provenance.TRANSFERRED))
            return (
                priced
                if gpus == RANKS * nodes
                else Priced(priced.seconds, worst(priced.provenance, Provenance.EXTRAPOLATED))
            )
    if library.link is None and not library.peaks.link:
        raise InputError("no link to price expert dispatch on", library.gpu.name, "give the GPU a link")
    bandwidth = getattr(library.link, "bandwidth", library.peaks.link)
    latency, launch = getattr(library.link, "latency", HOP), getattr(library.link, "launch", START)
    seconds = collective_formula("all_to_all", volume(route, gpus) * t, gpus, bandwidth, latency, launch)
    return labelled(seconds + launch, Provenance.ROOFLINE)
