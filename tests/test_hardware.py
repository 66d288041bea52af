"""The catalogue of accelerators: every spelling, every figure sane, every mistake in a user's file one clear line."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from apexsim import hardware
from apexsim.cost.fitted import fitted_for
from apexsim.engine_file import bundled
from apexsim.errors import InputError
from apexsim.gpu_file import TABLES, part_of
from apexsim.hardware import Cluster, all_gpus, cluster_of, gpu_names, load_gpu
from apexsim.units import GiB, format_count, format_seconds, parse_duration

# canonical name: spellings of the source table, of the kernel folders and of the measured rows
SPELLINGS = {
    "v100-pcie-16gb": ["V100-PCIE-16GB"],
    "v100-sxm-16gb": ["V100-SXM2-16/32GB"],
    "a100-pcie-40gb": ["A100-40GB-PCIe"],
    "a100-pcie-80gb": ["A100-80GB-PCIe", "a100_pcie"],
    "a100-sxm-40gb": ["A100-40GB-SXM", "A100-40GB", "A100-40GB?"],
    "a100-sxm-80gb": ["A100-80GB-SXM", "a100_sxm", "A100-80GB", "A100-SXM4-80GB"],
    "a10g": ["A10G"],
    "a10": ["A10-24GB"],
    "a30": ["A30", "a30"],
    "rtx-a6000": ["A6000-48GB"],
    "l4": ["L4", "l4"],
    "l40s": ["L40S", "l40s"],
    "h100-pcie": ["H100-PCIe-80GB", "h100_pcie"],
    "h100-sxm": ["H100-SXM-80GB", "h100_sxm", "H100-SXM", "H100", "H100-80GB-SXM", "H100-80GB", "80GB-class(H100)"],
    "h100-nvl": ["H100-NVL-94GB", "H100-NVL (from run log)"],
    "h200-sxm": ["H200-SXM-141GB", "h200_sxm", "H200", "H200-141GB"],
    "h20": ["H20"],
    "gh200-96gb": ["GH200-96/144GB", "GH200-96GB"],
    "b200-sxm": ["B200-SXM-180GB", "b200_sxm", "B200", "B200-180GB"],
    "b300-sxm": ["B300-SXM-288GB", "b300_sxm"],
    "gb200": ["GB200-NVL72", "gb200"],
    "gb300": ["GB300-NVL72", "gb300"],
    "gb10": ["GB10(DGX Spark)", "GB10?"],
    "rtx-3090": ["RTX3090-24GB", "D1 (NVIDIA GeForce RTX 3090 - 24GB)"],
    "rtx-6000-ada": ["D4 (NVIDIA RTX 6000 Ada - 48GB)"],
    "rtx-4090": ["RTX-4090", "RTX4090-24GB"],
    "rtx-5090": ["RTX-5090"],
    "rtx-pro-6000": ["RTX-PRO-6000-Blackwell-Server", "rtx_pro_6000_server", "RTXPRO6000", "RTX PRO 6000 96GB"],
    "t4": ["T4-16GB", "T4-16GB(Kaggle x2)"],
    "mi250": ["MI250"],
    "mi300x": ["MI300X", "MI300X-192GB"],
    "mi325x": ["MI325X"],
    "mi355x": ["MI355X"],
    "tpu-v5e": ["TPU-v5e"],
    "tpu-v5p": ["TPU-v5p"],
    "tpu-v6e": ["TPU-v6e"],
    "gaudi2": ["Gaudi2"],
    "gaudi3": ["Gaudi3"],
    "trainium2": ["Trainium2"],
    "b60": ["b60"],
    # what people ask about in forums, as they type it
    "rtx-2080-ti-22gb": ["RTX2080Ti-22GB"],
    "rtx-4090-48gb": ["4090-48gb", "4090 48G", "RTX 4090 48GB"],
    "rtx-4090-d": ["4090D", "4090d"],
    "rtx-3080-20gb": ["3080-20gb", "3080 20G"],
    "rtx-3060-12gb": ["3060", "3060 12GB"],
    "rtx-5060-ti-16gb": ["5060ti", "5060 Ti", "rtx-5060-ti", "5060 Ti 16GB"],
    "rtx-5070-ti": ["5070ti", "5070 Ti", "RTX 5070 Ti"],
    "rtx-5080": ["5080", "NVIDIA GeForce RTX 5080"],
    "rtx-4060-ti-16gb": ["4060 Ti 16GB", "4060ti"],
    "rtx-4070-ti-super": ["4070 Ti Super", "RTX4070TiSuper"],
    "a800-sxm-80gb": ["a800", "A800-SXM4-80GB"],
    "a800-pcie-80gb": ["A800 PCIe", "NVIDIA A800 80GB PCIe"],
    "h800-sxm": ["h800", "NVIDIA H800"],
    "h800-pcie": ["H800 PCIe"],
    "h20-141gb": ["H20-141GB", "H20-3e"],
    "h200-nvl": ["H200 NVL"],
    "l20": ["L20", "NVIDIA L20"],
    "l40": ["L40", "NVIDIA L40"],
    "rtx-a5000": ["A5000", "NVIDIA RTX A5000"],
    "ascend-910b3": ["910b", "Ascend 910B", "910B3"],
    "ascend-910b4": ["910B4"],
    "mi50-32gb": ["MI50", "mi50"],
    "mi100": ["MI100"],
    "mi210": ["MI210", "AMD Instinct MI210"],
    "b70": ["Arc Pro B70", "b70"],
    "b580": ["Arc B580"],
    "strix-halo": ["Ryzen AI Max+ 395", "strix halo", "gfx1151"],
    "n300": ["n300", "Tenstorrent n300"],
}

# rows of measured files that name no one GPU, or one without published peaks or of no known make
KNOWN_UNKNOWN = (
    "24GB-class", "24GB-class(3090/4090)", "80GB-class", "A10/L4-24GB", "A100/A800-80GB", "Ascend-910(64GB)",
    "GB200/B200", "GB200/B200(184GiB)", "GB200/B200?", "H100-64GB(MN5)", "RTX2060-12GB", "RTX3090/4090-24GB",
)  # fmt: skip

# [GiB] what engines see, from start-up logs
LOGGED = {
    "h100-sxm": 79.19, "h200-sxm": 139.81, "a100-sxm-40gb": 39.39, "mi300x": 191.98, "b200-sxm": 178.4, "l40s": 44.4,
    "rtx-pro-6000": 94.97, "rtx-5090": 31.84, "rtx-4090": 23.6, "l4": 22.03, "a10": 22.03, "gb10": 121.63,
}  # fmt: skip

MEASURED = (
    "a100_sxm", "b200_sxm", "b300_sxm", "b60", "gb200", "gb300", "h100_sxm", "h200_sxm", "l40s", "rtx_pro_6000_server",
    "v100_pcie",
)  # fmt: skip

UNLIKE = ("davinci-910b", "wormhole", "rdna3", "rdna3.5", "rdna4")  # nothing that was measured is like them: the stated roofline

MADE_UP = """
name = "tomorrow-1"
vendor = "Example"
arch = "hopper"
borrow = "h200_sxm"
tdp_w = 900
[tflops]
bf16 = 1500
fp8 = 3000
[memory]
total_gib = 200
bandwidth_gb_s = 6000
[link]
name = "fabric"
bandwidth_gb_s = 600
latency_us = 1
span = 16
[nic]
name = "Ethernet"
bandwidth_gb_s = 50
latency_us = 5
[host]
name = "PCIe 5.0 x16"
bandwidth_gb_s = 64
latency_us = 1
"""


@pytest.mark.parametrize(("name", "spelling"), [(n, s) for n, group in SPELLINGS.items() for s in (n, *group)])
def test_every_spelling_names_its_gpu(name: str, spelling: str) -> None:
    assert load_gpu(spelling).name == name


@pytest.mark.parametrize("spelling", KNOWN_UNKNOWN)
def test_ambiguous_spellings_are_refused(spelling: str) -> None:
    with pytest.raises(InputError, match="unknown GPU"):
        load_gpu(spelling)


def test_unknown_gpu_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean .*h100-sxm"):
        load_gpu("h100-smx")


NEAR = {"5060": "rtx-5060-ti-16gb", "4090-64gb": "rtx-4090-48gb", "910d": "ascend-910b3", "h100-slm:3g.40gb": "h100-sxm", "mi201": "mi210",
        "a880": "a800-sxm-80gb", "l45": "l4", "strix-hallo": "strix-halo", "rtx 5070 tie": "rtx-5070-ti", "b75": "b70"}  # fmt: skip


@pytest.mark.parametrize(("typed", "meant"), NEAR.items())
def test_near_misses_name_what_was_meant(typed: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"did you mean .*{meant}"):
        load_gpu(typed)


def test_names_are_canonical_and_sorted() -> None:
    names = gpu_names()
    assert names == tuple(sorted(names)) and all(n == n.lower() and " " not in n and "_" not in n for n in names)


@pytest.mark.parametrize("name", gpu_names())
def test_a_part_of_a_gpu_file_is_what_the_whole_file_says_there(name: str) -> None:
    data, text = _file(name), _text(name)
    assert part_of(text) == {key: value for key, value in data.items() if not isinstance(value, dict)}
    assert {key: part_of(text, key) for key in TABLES} == {key: data.get(key, {}) for key in TABLES}
    assert data["name"] == name


PARSED = """
import json, sys, tomllib
from pathlib import Path
from apexsim import hardware
from apexsim.cost.books import price_of
from apexsim.engines import load_engine
texts = {path.read_text(): path.stem for kind in ("gpus", "engines") for path in Path(hardware.__file__).parent.glob(f"data/{kind}/*.toml")}
parsed, loads = [], tomllib.loads
def counted(text):
    parsed.extend([texts[text]] if text in texts else [])
    return loads(text)
tomllib.loads = counted
for name in sys.argv[1:]:
    price_of(None, hardware.cluster_of(name).gpu)
    load_engine()
print(json.dumps(sorted(parsed)))
"""


@pytest.mark.parametrize(("asked", "gpus"), [
    (["H100:8", "h100:2", "h100:3g.40gb"], ["h100-sxm"]),
    (["h20:8"], ["h20"]),
    (["h800-sxm:8"], ["h100-sxm", "h800-sxm"]),
])  # fmt: skip
def test_a_question_parses_the_file_of_its_gpu_and_of_what_that_is_based_on_once(asked: list[str], gpus: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PARSED, *asked], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == sorted([*gpus, *bundled()])


@pytest.mark.parametrize("gpu", all_gpus(), ids=lambda g: g.name)
def test_figures_are_in_si_and_sourced(gpu) -> None:
    assert 10e12 < gpu.flops["bf16"] < 5e15
    assert 1e11 < gpu.memory_bandwidth < 1e13 and 10 * GiB < gpu.memory_bytes < 300 * GiB
    assert gpu.memory_bytes <= 1.001 * gpu.memory_nominal_bytes
    assert gpu.flops.get("fp8", 1e99) >= gpu.flops["bf16"] and gpu.flops.get("fp4", 1e99) >= 1.9 * gpu.flops["bf16"]
    assert all(1e9 < x.bandwidth < 1e12 and 1e-7 < x.latency < 5e-5 for x in (gpu.link, gpu.nic, gpu.host))
    assert {"peaks", "memory", "link", "nic", "host"} <= set(gpu.sources)
    assert gpu.kernels or gpu.borrow or gpu.arch in UNLIKE or fitted_for(gpu.arch)
    assert {gpu.kernels, gpu.borrow} - {""} <= set(MEASURED)
    assert math.isnan(gpu.idle_w) or gpu.idle_w < gpu.tdp_w
    assert bool(gpu.prices) <= ("price" in gpu.sources)


def test_every_measured_system_has_a_gpu() -> None:
    assert sorted(g.kernels for g in all_gpus() if g.kernels) == sorted(MEASURED)


@pytest.mark.parametrize(("name", "gib"), LOGGED.items())
def test_memory_is_what_engines_log(name: str, gib: float) -> None:
    assert load_gpu(name).memory_bytes == pytest.approx(gib * GiB)


# NVIDIA H100 data sheet (SXM5): 989.4 TFLOP/s dense BF16, 3.35 TB/s, NVLink 900 GB/s both ways, 700 W
def test_h100_sxm_data_sheet() -> None:
    gpu = load_gpu("h100-sxm")
    assert (gpu.flops["bf16"], gpu.memory_bandwidth, gpu.link.bandwidth, gpu.tdp_w) == (989.4e12, 3.35e12, 450e9, 700)


# NCCL 2.29.2 on H100: an all-reduce of almost nothing takes 5.9, 9.3 and 15.5 µs on 2, 4 and 8 GPUs
@pytest.mark.parametrize(("gpus", "measured"), [(2, 5.9e-6), (4, 9.3e-6), (8, 15.5e-6)])
def test_latency_and_launch_give_small_all_reduces(gpus: int, measured: float) -> None:
    link = load_gpu("h100-sxm").link
    assert link.launch + 2 * (gpus - 1) * link.latency == pytest.approx(measured, rel=0.05)


LINKS = [  # gpu, per node, nodes, group, stride -> link
    ("h100-sxm", 8, 2, 8, 1, "link"),
    ("h100-sxm", 8, 2, 16, 1, "nic"),
    ("h100-sxm", 8, 2, 2, 8, "nic"),
    ("h100-sxm", 8, 2, 4, 2, "link"),
    ("h100-sxm", 8, 2, 4, 4, "nic"),
    ("h100-sxm", 4, 2, 8, 1, "nic"),  # NVLink ends at the node, even where it could reach 8 GPUs
    ("h100-sxm", 6, 2, 4, 1, "nic"),  # the second group of 4 straddles the nodes of 6
    ("h100-sxm", 6, 1, 6, 1, "link"),
    ("h100-sxm", 8, 1, 1, 1, "link"),
    ("l40s", 8, 1, 4, 1, "host"),
    ("l40s", 4, 2, 8, 1, "nic"),
    ("h100-nvl", 4, 1, 2, 1, "link"),
    ("h100-nvl", 4, 1, 4, 1, "host"),
    ("h100-nvl", 4, 1, 2, 2, "host"),
    ("gb200", 4, 18, 72, 1, "link"),
    ("gb200", 4, 36, 144, 1, "nic"),
    ("gb200", 4, 36, 8, 1, "link"),
]


@pytest.mark.parametrize(("name", "per_node", "nodes", "group", "stride", "expected"), LINKS)
def test_link_a_collective_crosses(name, per_node, nodes, group, stride, expected) -> None:
    gpu = load_gpu(name)
    assert Cluster(gpu, per_node, nodes).link(group, stride) is getattr(gpu, expected)


@pytest.mark.parametrize(("per_node", "nodes"), [(0, 1), (-8, 1), (8, 0), (2.5, 1)])
def test_cluster_counts_are_checked(per_node, nodes) -> None:
    with pytest.raises(InputError, match="at least 1"):
        Cluster(load_gpu("h100-sxm"), per_node, nodes)


@pytest.mark.parametrize(("group", "stride"), [(0, 1), (-1, 1), (2, 0), (9, 1), (4, 4)])
def test_group_must_exist(group: int, stride: int) -> None:
    with pytest.raises(InputError, match="no group"):
        Cluster(load_gpu("h100-sxm"), 8).link(group, stride)


def test_a_made_up_gpu_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "tomorrow.toml"
    path.write_text(MADE_UP)
    gpu = load_gpu(path)
    assert (gpu.name, gpu.flops["fp8"], gpu.memory_bytes, gpu.link.span) == ("tomorrow-1", 3e15, 200 * GiB, 16)


def test_a_file_may_be_another_gpu_with_changes(tmp_path: Path) -> None:
    path, base = tmp_path / "mine.toml", load_gpu("h100-sxm")
    path.write_text('name = "mine"\nbase = "H100"\n[memory]\ntotal_gib = 94\n[link]\nbandwidth_gb_s = 200\n')
    gpu = load_gpu(path)
    assert (gpu.memory_bytes, gpu.memory_nominal_bytes, gpu.link.bandwidth) == (94 * GiB, 94 * GiB, 200e9)
    assert (gpu.flops, gpu.memory_bandwidth, gpu.link.latency) == (base.flops, base.memory_bandwidth, base.link.latency)
    assert (gpu.kernels, gpu.borrow, gpu.aliases, dict(gpu.prices)) == ("", base.kernels, (), {})
    assert gpu.notes == ("as H100 but for: memory, link between GPUs",)


@pytest.mark.parametrize(("text", "told"), [
    ('name = "mine"\nbase = "h100-smx"', "unknown base 'h100-smx'.*h100-sxm"),
    ('base = "h100-sxm"', "'name' must be a text"),
    ('name = "mine"\nbase = 3', "'base' must be a text"),
    ('name = "mine"\nbase = "h100-sxm"\n[memroy]\ntotal_gib = 3', "unknown key 'memroy'"),
    ('name = "mine"\nbase = "h100-sxm"\nmemory = 3', r"\[memory\] must be a table"),
    ('name = "mine"\nbase = "h100-sxm"\n[memory]\ntotal_gib = "x"', "'total_gib' must be a number"),
])  # fmt: skip
def test_a_fault_in_a_changed_gpu_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        load_gpu(path)


def _leaves(data: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    """Every figure of a GPU file, by its table and key."""
    apart = ("name", "base", "aliases", "notes", "sources", "price_usd_h")
    pairs = ((key, value if isinstance(value, dict) else {"": value}) for key, value in data.items() if key not in apart)
    return {(key, name): figure for key, table in pairs for name, figure in table.items()}


def _text(name: str) -> str:
    return (Path(hardware.__file__).parent / f"data/gpus/{name}.toml").read_text(encoding="utf-8")


def _file(name: str) -> dict[str, Any]:
    return tomllib.loads(_text(name))


def _whole(name: str) -> dict[tuple[str, ...], Any]:
    data = _file(name)
    return {**(_whole(data["base"]) if "base" in data else {}), **_leaves(data)}


@pytest.mark.parametrize("name", [name for name in gpu_names() if "base" in _file(name)])
def test_a_changed_gpu_holds_only_what_differs_and_says_where_that_is_from(name: str) -> None:
    data = _file(name)
    base = _whole(data["base"])
    same = [key for key, figure in _leaves(data).items() if base.get(key) == figure]
    assert same == []
    source = {"tflops": "peaks", "tdp_w": "tdp", "clock_mhz": "clock"}
    changed = {source.get(table, table) for table, _ in _leaves(data)} - {"arch", "clock"}
    assert changed <= set(data["sources"]) and data["sources"]


FAULTS = [  # change to the made-up file -> what the error names
    (("bf16 = 1500", ""), "'bf16' is missing in .tflops"),
    (("bf16 = 1500", "bf16 = nan"), "'bf16' must be positive"),
    (("bf16 = 1500", 'bf16 = "fast"'), "'bf16' must be a number"),
    (("bf16 = 1500", "bf61 = 1500"), "unknown key 'bf61'.*did you mean bf16"),
    (("total_gib = 200", "total_gib = -1"), "'total_gib' must be positive"),
    (("total_gib = 200", ""), r"\[memory\]: key 'total_gib' is missing"),
    (("span = 16", "span = 0"), "'span' must be a whole number"),
    (("[nic]", "[network]"), "unknown key 'network'"),
    (('name = "fabric"', ""), "'name' must be a text"),
    (("tdp_w = 900", "tdp_w = -3"), "'tdp_w' must be positive"),
    (("tdp_w = 900", "tdp_w = = 3"), "is not TOML"),
    (("bandwidth_gb_s = 6000", "bandwidth_gb_s = 6000000000000"), "is the unit right"),
    (("tdp_w = 900", "tdp_w = 1" + "0" * 400), "a number of more than 40 digits"),
]


@pytest.mark.parametrize(("change", "told"), FAULTS)
def test_a_fault_in_a_gpu_file_is_named(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(MADE_UP.replace(*change))
    with pytest.raises(InputError, match=told) as error:
        load_gpu(str(path))
    assert "bad.toml" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("typed", ["h100", "h100:", "h100 : "])
def test_who_leaves_the_count_out_is_shown_a_line_that_works(typed: str) -> None:
    with pytest.raises(InputError) as error:
        cluster_of(typed)
    assert "--gpu h100:N" in error.value.hint


def test_a_folder_in_the_place_of_a_gpu_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.toml").mkdir()
    with pytest.raises(InputError, match="this is a directory, not the GPU file"):
        load_gpu(tmp_path / "x.toml")


def test_a_missing_gpu_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the GPU file does not exist"):
        load_gpu(tmp_path / "none.toml")


def test_units_read_well() -> None:
    told = [format_seconds(t) for t in (0, 3e-9, 12e-6, 0.0345, 2.5, 200, 7500, 273600)]
    assert told == ["0 s", "3 ns", "12 µs", "34.5 ms", "2.5 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"]
    assert [format_count(n) for n in (950, 12345, 70.6e9, 1.03e12)] == ["950", "12.3k", "70.6B", "1.03T"]


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("2s", 2), ("1.5 min", 90), ("3", 3), ("1e3us", 1e-3)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "fast", "3 parsecs", "-1s", "nan"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(InputError, match="as a time"):
        parse_duration(text)
