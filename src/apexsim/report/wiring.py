"""The links of a cluster, in words and as plain values: which plans may cross, and whether they are stated or assumed (floor 6)."""

from __future__ import annotations

from typing import Any

from apexsim.hardware import Cluster
from apexsim.links import crossed
from apexsim.units import GB


def links_of(cluster: Cluster) -> list[str]:
    """The links that plans may cross; of those that the question could state, whether it does or the GPU's file assumes them."""
    gpu, used = cluster.gpu, crossed(cluster)
    told = []
    if gpu.link in used and gpu.has_scale_up:
        told.append(f"{gpu.link.name}, {gpu.link.bandwidth / GB:.3g} GB/s" + f", joins {gpu.link.span} GPUs" * (gpu.host in used))
    if gpu.host in used:
        how = "" if "PCIe" not in gpu.host.name else " (stated)" if "pcie" in gpu.stated else " (assumed: --pcie)"
        told.append(f"{gpu.host.name}, {gpu.host.bandwidth / GB:.3g} GB/s{how}")
    if gpu.nic in used:
        how = "stated" if "nic" in gpu.stated else "assumed: --nic"
        told.append(f"between nodes {gpu.nic.name}, {gpu.nic.bandwidth / GB:.3g} GB/s per GPU ({how})")
    return told


def cluster_json(cluster: Cluster) -> dict[str, Any]:
    """GPUs and the links between them, with what the question states of them."""
    gpu = cluster.gpu
    links = {"scale_up": gpu.link if gpu.has_scale_up else None, "host": gpu.host, "network": gpu.nic}
    stated = {"host": "pcie" in gpu.stated, "network": "nic" in gpu.stated}
    told = {
        key: {"name": link.name, "bandwidth_bytes_s": link.bandwidth, "stated": stated.get(key, False)} if link else None
        for key, link in links.items()
    }
    return {"gpu": gpu.name, "per_node": cluster.per_node, "nodes": cluster.nodes, **told, "notes": list(gpu.notes)}
