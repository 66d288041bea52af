"""Collectives, and the dispatch of tokens to experts: measured curves within a node, a formula elsewhere (floor 3).

`nbytes` is what `ring` says.  Curves are linear in bytes or tokens, held below the smallest message, at the rate of the largest above.
Dispatch and combine (DeepEP): tables hold 8 ranks a node, 1 to 8 nodes; a route that was not timed is scaled by its bytes.  For any other
number of ranks `exchange` takes, both ways together,
    seconds = 2 · fixed + max(bytes that leave the domain / (85 % of the network), bytes inside / (60 % of the link))
with 3 bytes a number (8 bit out, 16 bit back).  Decode steps send a copy for every expert; prompts one to every domain that a token needs
and there one to every rank.  Ignored: uneven load of the ranks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from apexsim.cost.bank import ENGINES, Bank
from apexsim.cost.kernels import Table
from apexsim.cost.ring import MOVES, Wire, collective_formula, lent
from apexsim.cost.roofline import Array, Peaks, Priced, Provenance, Work, labelled, transfer, worst
from apexsim.cost.shapes import COPY_BYTES, Routing, met, volume
from apexsim.cost.surface import KernelKind, Match, Surface, in_proportion
from apexsim.errors import InputError

RANKS = 8  # of one node in the tables of dispatch
HOP = 2.0**24  # bytes: activations and residual of a thousand tokens
# Of a dispatch or a combine: decodes on 16 to 48 GPUs of a rack (DeepSeek-R1, truth of 150 configurations), prompts inside a node (DeepEP's
# normal kernels on 8 GPUs take 80 to 90 µs both ways), prompts across nodes (four published layouts of DeepSeek-V3).
EXCHANGE_DECODE, EXCHANGE_PROMPT, EXCHANGE_ACROSS = 30e-6, 45e-6, 100e-6
NETWORK_SHARE, DOMAIN_SHARE = 0.85, 0.6  # of the network's and of the scale-up link's peak that large exchanges reach
UNIT = Peaks({"bf16": 1.0}, 1.0)  # of a curve's ideal, which is its size


class Way(NamedTuple):
    """How a collective is run.

    graph: the step is replayed from a captured graph (else the engine's eager kernel with its launch); nccl: the vendor library even
    for all-reduces; fused: the all-reduce that adds residual and norm (FlashInfer's is TensorRT-LLM's kernel, and priced as that).
    """

    nodes: int = 1
    nccl: bool = False
    fused: bool = False
    graph: bool = True


USUAL = Way()


class RankReach(NamedTuple):
    """Where the ranks of an exchange lie: how many, in how many domains of a scale-up link, that link, and what joins the domains."""

    ranks: int
    domains: int
    inside: Wire
    across: Wire


class LinkCurve(NamedTuple):
    """A measured curve, whether it was measured on this very GPU, and how much longer bytes take on the link that it has here."""

    surface: Surface
    own: bool
    stretch: float = 1.0


def _size(_: int | Routing, size: Array) -> Work:
    return 0.0, size


def surface_of(table: Table, peaks: Peaks = UNIT) -> Surface:
    """Measured times of one collective over (ranks, bytes)."""
    del peaks
    return Surface(table, UNIT, KernelKind(("bytes",), _size, shape=int, rows="gpus", beyond=in_proportion))


def routes_of(table: Table, peaks: Peaks = UNIT) -> Surface:
    """Measured times of dispatch and combine over (route, tokens of a rank)."""
    del peaks
    return Surface(table, UNIT, KernelKind(("tokens",), _size, shape=lambda row: Routing(*row), beyond=in_proportion))


def _row(surface: Surface, gpus: int) -> int:
    """The row of so many ranks, or of the next fewer that were timed."""
    return max(int(np.searchsorted(surface.axes["gpus"], gpus, side="right")) - 1, 0)


def _knows(surface: Surface, gpus: int) -> bool:
    """Whether the row that serves so many ranks holds any time; those far below their siblings are refused (docs/kernels.md)."""
    return not bool(np.isnan(surface.seconds[_row(surface, gpus)]).all())


def timed(surface: Surface, kind: str, nbytes: ArrayLike, gpus: int) -> Priced:
    """Seconds of a measured collective of `gpus` ranks.

    A number of ranks that was not timed takes the next one below, times the ratio of the bytes a ring moves.
    """
    row = _row(surface, gpus)
    priced, near = surface.price(Match((row,)), gpus, nbytes), surface.shapes[row]
    if near == gpus:
        return priced
    there, here = MOVES[kind](float(gpus)), MOVES[kind](float(near))
    return Priced(priced.seconds * there[0] / here[0], worst(priced.provenance, Provenance.EXTRAPOLATED))


def price(bank: Bank, kind: str, nbytes: ArrayLike, gpus: int, way: Way = USUAL, link: Wire | None = None) -> Priced:
    """One collective of `gpus` ranks: from a measured curve where there is one, else by formula on the GPU's link; by formula where a
    link is given."""
    size = np.asarray(nbytes, float)
    if gpus <= 1 and kind != "send":
        return labelled(np.zeros_like(size), Provenance.MEASURED)
    found = measured(bank, kind, gpus, way) if link is None else None
    if found is not None:
        priced = timed(found.surface, kind, size, gpus)
        if found.own and found.stretch == 1.0:
            return priced
        least = timed(found.surface, kind, [0.0], gpus).seconds
        return Priced(least + (priced.seconds - least) * found.stretch, worst(priced.provenance, Provenance.TRANSFERRED))
    wire = link or bank.link
    if wire is None:
        raise InputError("no link to price a collective on", bank.gpu.name, "give the link's bandwidth and latency")
    if bank.fitted and link is None:
        return labelled(bank.fitted.collective(kind, size, gpus, wire), Provenance.ROOFLINE)
    return labelled(collective_formula(kind, size, gpus, wire.bandwidth, wire.latency, wire.launch), Provenance.ROOFLINE)


def measured(bank: Bank, kind: str, gpus: int, way: Way) -> LinkCurve | None:
    """The measured curve of a collective of so many ranks: the engine's own all-reduce (or the fused one's), else another engine's or the
    vendor library's.

    A relative's curve serves as `lent` says.  A network or a slot that the question states stretches what each byte takes.
    """
    modes, first = ("graph", "eager") if way.graph else ("eager", "graph"), "trtllm" if way.fused else bank.source
    custom = [(kind, name, mode) for name in (first, *ENGINES) for mode in modes]
    wanted = [*(custom if not way.nccl and way.nodes == 1 else ()), (kind, "nccl", str(way.nodes))]
    for home in bank.homes:
        keys = home.tables.keys("comm")
        there = [key for key in wanted if key in keys]
        key = next((key for key in there if _knows(bank.surface(home, "comm", key, surface_of), gpus)), None)
        if key is None:
            continue
        width = getattr(bank.link, "bandwidth", 0.0) / bank.link_share
        stretch = 1.0 if home.native else lent(key[1] != "nccl", bank.vendor, width, home.tables.peaks.link)
        if stretch:
            stated = bank.network if way.nodes > 1 else bank.link_share
            return LinkCurve(bank.surface(home, "comm", key, surface_of), home.native, stretch / stated)
    return None


def spans_measured(bank: Bank, kind: str, nodes: int) -> bool:
    """Whether a collective across so many nodes was timed on this very GPU."""
    found = measured(bank, kind, 2, Way(nodes, nccl=True))
    return found is not None and found.own


def hop(bank: Bank, link: Wire, nodes: int) -> tuple[float, float]:
    """Handing a message on to a GPU of this or of another node: fixed [s], and [s/byte].

    The straight line through the measured times of the smallest message and of one of HOP bytes where both were timed on this
    very GPU, else latency, launch and peak of the link.
    """
    found = measured(bank, "send", 2, Way(nodes, nccl=True))
    if found is None or not found.own:
        return link.latency + link.launch, 1.0 / link.bandwidth
    small = float(found.surface.sizes[0][0])
    short, long = (float(x) for x in timed(found.surface, "send", [small, HOP], 2).seconds)
    return short, found.stretch * (long - short) / (HOP - small)


def dispatch(bank: Bank, tokens: ArrayLike, route: Routing, gpus: int, nodes: int, low_latency: bool) -> Priced | None:
    """Expert-parallel dispatch and combine of `tokens` per rank over `gpus` ranks on `nodes` nodes; None where these ranks were not timed
    on this very GPU.  low_latency: the decode kernels, else the high-throughput ones of prefill.
    """
    key = ("ll" if low_latency else "ht", str(nodes))
    home = next((home for home in bank.homes if home.native and key in home.tables.keys("dispatch")), None)
    if gpus != RANKS * nodes or home is None:
        return None
    surface, route = bank.surface(home, "dispatch", key, routes_of), route._replace(kept=0)
    sizes = np.log([volume(near, gpus) for near in surface.shapes])
    row = int(np.abs(sizes - np.log(volume(route, gpus))).argmin())
    priced, near = surface.price(Match((row,)), route, tokens), surface.shapes[row]
    for same, ratio in ((near == route, volume(route, gpus) / volume(near, gpus)), (nodes == 1 or bank.network == 1.0, 1.0 / bank.network)):
        if not same:
            seconds = transfer(priced.seconds, surface.launch, np.ones(1), np.asarray(ratio))
            priced = Priced(seconds, worst(priced.provenance, Provenance.TRANSFERRED))
    return priced


def exchange(tokens: ArrayLike, route: Routing, reach: RankReach, low_latency: bool) -> Priced:
    """Tokens of a rank to their experts and back, by formula (see above)."""
    each, many = np.asarray(tokens, float) * route.hidden * COPY_BYTES, reach.domains
    reached = min(met(route.top_k, many), float(route.kept or many))  # domains that a token of a prompt is sent to
    away, near = (route.top_k, route.top_k) if low_latency else (reached, met(route.top_k, reach.ranks))
    leave = each * away * (1.0 - 1.0 / many) / (NETWORK_SHARE * reach.across.bandwidth)
    stay = each * near * (1.0 / many if low_latency else 1.0) * (1.0 - many / reach.ranks) / (DOMAIN_SHARE * reach.inside.bandwidth)
    fixed = EXCHANGE_DECODE if low_latency else EXCHANGE_PROMPT if many == 1 else EXCHANGE_ACROSS
    return labelled(2.0 * fixed + np.maximum(leave, stay), Provenance.ROOFLINE)
