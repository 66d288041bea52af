"""Networks and PCIe slots that a question states, and MIG slices: read, refused, priced; better is never slower."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import apexsim
from apexsim.cost import collectives
from apexsim.cost.bank import load_bank
from apexsim.cost.collectives import Way
from apexsim.cost.price import Pricer
from apexsim.errors import InputError
from apexsim.hardware import Cluster, all_gpus, cluster_of, load_gpu
from apexsim.links import GBIT, crossed, with_links
from apexsim.model.ops import Collective
from apexsim.report.jsonout import study_json
from apexsim.slices import profiles, sliced

BYTES = 2.0 ** np.arange(8, 31)
ASKED = {"prompt_len": 256, "output_len": 32, "num_requests": 12, "concurrency": 4}


# text -> Gbit/s per GPU of nodes of 4
NETWORKS = {
    "400Gb": 400, "400gbit": 400, "400 Gbit/s": 400, "400Gbps": 400, "100G": 100, "25GbE": 25, "50GB/s": 400, "1.6Tb": 1600,
    "0.8 Tbit/s": 800,
    "400Gb/node": 100, "400Gb per node": 100, "400Gb/gpu": 400, "4x100Gb": 100, "8x400G": 800, "ndr": 400, "HDR": 200, "2.5GbE": 2.5,
}  # fmt: skip


@pytest.mark.parametrize(("text", "gbit"), NETWORKS.items())
def test_networks_are_read(text: str, gbit: float) -> None:
    assert with_links(cluster_of("2x4xh100"), nic=text).gpu.nic.bandwidth == pytest.approx(gbit * GBIT)


SLOTS = {"x8": ("4.0 x8", 16), "gen4": ("4.0 x16", 32), "gen3": ("3.0 x16", 16), "4.0x16": ("4.0 x16", 32), "PCIe 3.0 x8": ("3.0 x8", 8),
         "4x4": ("4.0 x4", 8), "gen4x8": ("4.0 x8", 16), "pcie gen 3": ("3.0 x16", 16), "x1": ("4.0 x1", 2)}  # fmt: skip


@pytest.mark.parametrize(("text", "slot"), SLOTS.items())
def test_slots_are_read(text: str, slot: tuple[str, float]) -> None:
    gpu = with_links(cluster_of("l40s:4"), pcie=text).gpu
    assert (gpu.host.name, gpu.host.bandwidth, gpu.link.bandwidth) == (f"PCIe {slot[0]}", slot[1] * 1e9, slot[1] * 1e9)


REFUSED = [
    ("2x4xh100", {"nic": text}, "cannot read the network") for text in ("", "400", "fast", "-1Gb", "1e9Gb", "Gb", "400 Gb Gb", "x400Gb")
] + [
    ("2x4xh100", {"nic": "400GB"}, "bits or bytes"),
    ("2x4xh100", {"nic": "0Gb"}, "is the unit right"),
    ("2x4xh100", {"nic": "400000Gb"}, "is the unit right"),
    ("2x4xh100", {"nic": "8x400Gb/gpu"}, "ports of a node"),
    ("h100:8", {"nic": "400Gb"}, "no effect.*one node"),
    ("2x4xgb200", {"nic": "400Gb"}, "no effect.*joins all nodes"),
    ("l40s:4", {"pcie": "fast"}, "cannot read the PCIe slot"),
    ("l40s:4", {"pcie": ""}, "cannot read the PCIe slot"),
    ("l40s:4", {"pcie": "x7"}, "no slots of 7 lanes"),
    ("l40s:4", {"pcie": "5.0x16"}, "card of PCIe 4.0 x16"),
    ("rtx-5060-ti:2", {"pcie": "x16"}, "card of PCIe 5.0 x8"),
    ("l40s:1", {"pcie": "x8"}, "no effect: there is one GPU"),
    ("h100:8", {"pcie": "x8"}, "no effect: the GPUs are joined by NVLink"),
    ("2xgb10", {"pcie": "x8"}, "not by PCIe"),
    ("h100:1g.10gb:2", {"pcie": "x8"}, "slices serve alone"),
]  # fmt: skip


@pytest.mark.parametrize(("cluster", "links", "told"), REFUSED)
def test_senseless_links_are_refused_in_one_line(cluster: str, links: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told) as error:
        with_links(cluster_of(cluster), **links)
    assert "\n" not in str(error.value)


def _seconds(cluster: Cluster, kind: str, group: int, stride: int, nbytes: float = 8192.0) -> np.ndarray:
    pricer = Pricer(load_bank(cluster.gpu), cluster)
    tokens = np.arange(1.0, 4097.0, 64.0)
    return pricer.dense(Collective("", kind, nbytes, group, stride), tokens, True).seconds


@pytest.mark.parametrize("name", [g.name for g in all_gpus() if g.host.name.startswith("PCIe")])
@pytest.mark.parametrize("kind", ["all_reduce", "all_gather"])
def test_a_better_link_is_never_slower(name: str, kind: str) -> None:
    cluster = Cluster(load_gpu(name), 4, 2)
    used = crossed(cluster)
    lanes = int(cluster.gpu.host.name.rpartition("x")[2])
    slots = [None, *(f"x{n}" for n in (16, 8, 4, 2, 1) if n <= lanes)]
    if cluster.gpu.host in used:
        times = [_seconds(with_links(Cluster(cluster.gpu, 4), pcie=slot), kind, 4, 1) for slot in slots]
        assert all((a <= b * (1 + 1e-9)).all() for a, b in pairwise(times))
        assert (times[-1] > times[0]).any() and np.array_equal(times[0], times[1])
    if cluster.gpu.nic in used:
        times = [_seconds(with_links(cluster, nic=nic), kind, 8, 1) for nic in ("1600Gb", "400Gb", "100Gb", "10Gb", "1Gb")]
        assert all((a < b).all() for a, b in pairwise(times))


@pytest.mark.parametrize("kind", ["all_reduce", "send"])
def test_measured_curves_stretch_with_the_slot(kind: str) -> None:
    whole, half = (load_bank(with_links(cluster_of("l40s:2"), pcie=slot).gpu) for slot in ("x16", "x8"))
    fast, slow = (collectives.price(bank, kind, BYTES, 2, Way(nccl=True)).seconds for bank in (whole, half))
    assert slow[-1] / fast[-1] == pytest.approx(2.0, rel=0.01) and slow[0] == pytest.approx(fast[0], rel=0.01)


def test_beyond_a_bridged_pair_the_host_is_crossed() -> None:
    pair, four = (_seconds(Cluster(load_gpu("h100-nvl"), 4), "all_reduce", n, 1)[-1] for n in (2, 4))
    alike = _seconds(Cluster(load_gpu("h100-pcie"), 4), "all_reduce", 4, 1)[-1]
    assert four > 4 * pair and four == pytest.approx(alike, rel=0.3)


def test_the_answer_says_what_is_assumed_and_what_is_stated() -> None:
    found = [apexsim.plan("llama-3.1-8b", gpu="2x2xl40s", **ASKED, **links) for links in ({}, {"nic": "25Gb", "pcie": "x8"})]
    assumed, stated = (" ".join(apexsim.render(study).split()) for study in found)
    assert "(assumed: --pcie)" in assumed and "(assumed: --nic)" in assumed
    assert "PCIe 4.0 x8, 16 GB/s (stated)" in stated and "25 Gbit/s, 3.12 GB/s per GPU (stated)" in stated and "--nic 25Gb" in stated
    links = [study_json(study)["understood"]["cluster"] for study in found]
    assert [x["network"]["stated"] for x in links] == [x["host"]["stated"] for x in links] == [False, True]
    assert found[1].best.metrics.e2el.mean >= found[0].best.metrics.e2el.mean


def test_notes_of_a_gpu_are_in_the_answer() -> None:
    study = apexsim.plan("llama-3.1-8b", gpu="l40s:1", **ASKED)
    assert all(f"l40s: {note}" in study.notes for note in load_gpu("l40s").notes)


# ---- MIG slices ---------------------------------------------------------------------------------------------------


SLICES = {
    "h100-sxm-mig-3g.40gb": ["h100:3g.40gb", "h100-mig-3g.40gb", "H100-SXM:MIG-3g.40gb", "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
                             "h100 3g.40gb"],
    "h100-sxm-mig-1g.10gb": ["h100:1g.10gb", "H100 MIG 1g.10gb+me"],
    "a100-sxm-80gb-mig-3g.40gb": ["a100-80gb-mig-3g.40gb", "a100:3g.40gb"],
    "a30-mig-1g.6gb": ["A30:1g.6gb"],
    "h200-sxm-mig-3g.71gb": ["h200:3g.71gb"],
    "rtx-pro-6000-mig-2g.48gb": ["NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 2g.48gb"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "spelling"), [(n, s) for n, group in SLICES.items() for s in (n, *group)])
def test_every_spelling_names_its_slice(name: str, spelling: str) -> None:
    assert load_gpu(spelling).name == name
    for text in (f"{spelling}:3", f"3x{spelling}"):
        cluster = cluster_of(text)
        assert (cluster.gpu.name, cluster.per_node) == (name, 3)
    assert cluster_of(spelling).per_node == 1


@pytest.mark.parametrize(("text", "told"), [
    ("h100-mig", "which slice of h100-sxm.*1g.10gb, 1g.20gb"), ("h100:5g.40gb", "no MIG profile '5g.40gb'.*4g.40gb"),
    ("h100:3g", "no MIG profile '3g'"), ("l40s:1g.10gb", "not cut into MIG"), ("h100x:1g.10gb", "unknown GPU"),
])  # fmt: skip
def test_unknown_slices_are_refused(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_gpu(text)


CUT = [(g.name, p.name) for g in all_gpus() for p in profiles(g.name)]


@pytest.mark.parametrize(("name", "profile"), CUT)
def test_a_slice_is_a_part_of_its_card(name: str, profile: str) -> None:
    whole, part = load_gpu(name), sliced(load_gpu(name), profile)
    most = float(profile.partition(".")[2].removesuffix("gb"))
    assert 0.9 * most < part.memory_bytes / 2**30 <= 1.01 * most and part.memory_bytes <= whole.memory_bytes
    assert all(part.flops[key] <= whole.flops[key] for key in whole.flops)
    assert part.memory_bandwidth <= whole.memory_bandwidth and part.tdp_w <= whole.tdp_w
    assert not part.has_scale_up and part.link.span == 1 and part.notes[0].startswith("a MIG slice")
    assert all(part.prices[book] <= usd for book, usd in whole.prices.items())


@pytest.mark.parametrize("name", sorted({name for name, _ in CUT}))
def test_slices_of_a_card_are_no_more_than_the_card(name: str) -> None:
    for profile in profiles(name):
        many = int(1 / max(profile.memory, profile.rent))
        assert many * profile.compute <= 1.0 and many * profile.memory <= 1.0


def test_a_server_sees_one_slice() -> None:
    study = apexsim.plan("llama-3.1-8b", gpu="h100:3g.40gb:2", **ASKED)
    assert [r.plan.shorthand for r in study.ranked] == ["2×TP1"]
    with pytest.raises(InputError, match="each serves alone"):
        apexsim.simulate("llama-3.1-8b", "TP2", gpu="h100:3g.40gb:2", **ASKED)
