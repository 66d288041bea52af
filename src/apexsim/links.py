"""Links that a question states: the network and the PCIe slots of its cluster, instead of those that GPU files assume (floor 1).

A network is stated per GPU and direction in bits, as data sheets do: 400Gb is 400 Gbit/s for each GPU; `400Gb/node` and `4x100Gb` (four
ports of a node) are divided over its GPUs; 50GB/s counts bytes.  A slot is a generation, a width or both (gen4, x8, 4.0x16); what is not
said is the card's own.  Latencies and launches stay as they are; the network passes the slot, so it is no faster than a narrower one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from apexsim.errors import InputError
from apexsim.units import GB

if TYPE_CHECKING:
    from apexsim.gpu import Gpu, GpuLink
    from apexsim.hardware import Cluster

GBIT = 1e9 / 8  # [byte/s]
LANE = {1: 0.25, 2: 0.5, 3: 1.0, 4: 2.0, 5: 4.0, 6: 8.0}  # [GB/s] per direction, by PCIe generation, as data sheets count
WIDTHS = (1, 2, 4, 8, 16)
NAMED = {"edr": 100, "hdr": 200, "ndr": 400, "xdr": 800}  # InfiniBand generations [Gbit/s]
LEAST, MOST = 0.1 * GBIT, 6400 * GBIT  # [byte/s] of a network: less or more is a slip
NETWORK = re.compile(
    r"(?:(?P<ports>\d{1,3}) *[x×*] *)?(?P<size>\d{1,6}(?:\.\d{1,6})?) *(?P<unit>gbit/s|gbits|gbit|gbps|gb/s|gbe|gb|g|"
    r"tbit/s|tbit|tbps|tb/s|tb)(?P<node> *(?:/|per) *node| *(?:/|per) *gpu)?",
    re.IGNORECASE,
)
SLOT = re.compile(r"(?:pcie|pci-e|pci)? *(?:gen *)?(?P<gen>[1-6])?(?:\.0)? *(?:[x×] *(?P<lanes>\d{1,2}))?", re.IGNORECASE)
OWN = re.compile(r"PCIe (?P<gen>\d)\.0 x(?P<lanes>\d+)")


def with_links(cluster: Cluster, nic: str | None = None, pcie: str | None = None) -> Cluster:
    """The cluster with its network and its slots as stated; raises InputError for what cannot be, or would do nothing."""
    for text, flag, made in ((pcie, "--pcie", _slotted), (nic, "--nic", _networked)):
        if text is not None:
            cluster = _checked(cluster, text, flag, made)
    return cluster


def _checked(cluster: Cluster, text: str, flag: str, made: Callable[[Cluster, str], Gpu]) -> Cluster:
    gpu = made(cluster, text)
    used = crossed(cluster)
    if flag == "--nic" and cluster.gpu.nic not in used:
        told = "one node" if cluster.nodes == 1 else f"{cluster.gpu.link.name}, which joins all nodes"
        raise InputError(f"it has no effect: nothing crosses the network of {told}", flag, "drop it, or give --nodes")
    if flag == "--pcie" and cluster.gpu.host not in used and cluster.gpu.nic not in used:
        alone = "there is one GPU" if cluster.size == 1 else "MIG slices serve alone" if gpu.profile else ""
        told = alone or f"the GPUs are joined by {cluster.gpu.link.name}"
        raise InputError(f"it has no effect: {told}", flag, "drop it")
    return replace(cluster, gpu=gpu)


def crossed(cluster: Cluster) -> set[GpuLink]:
    """The links that some group of GPUs of the cluster crosses."""
    if cluster.gpu.profile:
        return set()  # slices serve alone
    sizes = [n for n in range(2, cluster.size + 1) if cluster.size % n == 0] if cluster.size <= 64 else [2, cluster.per_node, cluster.size]
    return {cluster.link(n, stride) for n in sizes if n > 1 for stride in (1, cluster.size // n)}


def _networked(cluster: Cluster, text: str) -> Gpu:
    gpu, (bandwidth, name) = cluster.gpu, read_network(text, cluster.per_node)
    if gpu.slot < 1.0:
        bandwidth = min(bandwidth, gpu.host.bandwidth)
    nic = replace(gpu.nic, name=name, bandwidth=bandwidth)
    return replace(gpu, nic=nic, network=gpu.network * bandwidth / gpu.nic.bandwidth, stated=(*gpu.stated, "nic"))


def read_network(text: str, per_node: int) -> tuple[float, str]:
    """Bandwidth per GPU and direction [byte/s], and a name."""
    word = text.strip()
    found = NETWORK.fullmatch(f"{NAMED[word.lower()]}Gb" if word.lower() in NAMED else word)
    if not found:
        hint = "write 400Gb (Gbit/s per GPU), 400Gb/node, 4x100Gb (ports of a node) or 50GB/s (bytes)"
        raise InputError(f"cannot read the network '{text}'", "--nic", hint)
    unit, node = found["unit"], (found["node"] or "").strip().lower()
    if found["ports"] and node.endswith("gpu"):
        raise InputError(f"'{text}' counts the ports of a node and is said per GPU", "--nic", "write 400Gb, or 4x100Gb")
    octets = unit in ("GB/s", "TB/s")
    if "B" in unit and not octets:
        raise InputError(f"'{text}' may be bits or bytes", "--nic", "write 400Gb for bits, 50GB/s for bytes")
    scale = (1e3 if unit[0].lower() == "t" else 1.0) * (GB if octets else GBIT)
    whole = float(found["size"]) * scale * int(found["ports"] or 1)
    shared = bool(found["ports"]) or node.endswith("node")
    bandwidth = whole / per_node if shared else whole
    if not LEAST <= bandwidth <= MOST:
        told = f"'{text}' is {bandwidth / GBIT:,.4g} Gbit/s per GPU"
        raise InputError(told, "--nic", f"expected from {LEAST / GBIT:g} to {MOST / GBIT:,.0f}: is the unit right?")
    return bandwidth, f"{bandwidth / GBIT:.4g} Gbit/s" + f" ({text.strip()} over {per_node} GPUs)" * (shared and per_node > 1)


def _slotted(cluster: Cluster, text: str) -> Gpu:
    gpu = cluster.gpu
    own = OWN.fullmatch(gpu.host.name)
    if not own:
        raise InputError(f"{gpu.name} is joined to its host by {gpu.host.name}, not by PCIe", "--pcie", "drop it")
    gen, lanes = read_slot(text, int(own["gen"]), int(own["lanes"]))
    share = LANE[gen] * lanes / (LANE[int(own["gen"])] * int(own["lanes"]))
    if share > 1.0 or gen > int(own["gen"]) or lanes > int(own["lanes"]):
        raise InputError(f"{gpu.name} is a card of {gpu.host.name}: a slot of {text} gives no more", "--pcie", "state what it gives")
    host = replace(gpu.host, name=f"PCIe {gen}.0 x{lanes}", bandwidth=gpu.host.bandwidth * share)
    link = gpu.link if gpu.has_scale_up else replace(gpu.link, name=host.name, bandwidth=gpu.link.bandwidth * share)
    nic = replace(gpu.nic, bandwidth=min(gpu.nic.bandwidth, host.bandwidth)) if share < 1.0 else gpu.nic
    return replace(gpu, host=host, link=link, nic=nic, slot=share, network=nic.bandwidth / gpu.nic.bandwidth, stated=(*gpu.stated, "pcie"))


def read_slot(text: str, gen: int, lanes: int) -> tuple[int, int]:
    """Generation and width of a slot; what is not said is the card's own."""
    word = text.strip()
    found = SLOT.fullmatch(word)
    if not found or not (found["gen"] or found["lanes"]):
        raise InputError(f"cannot read the PCIe slot '{text}'", "--pcie", "write x8, gen4 or 4.0x16")
    width = int(found["lanes"] or lanes)
    if width not in WIDTHS:
        raise InputError(f"there are no slots of {width} lanes", "--pcie", "x1, x2, x4, x8 or x16")
    return int(found["gen"] or gen), width
