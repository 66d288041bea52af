"""Clusters of accelerators, and the catalogue (floor 1).

One TOML file per GPU in `data/gpus/`, written for people (TFLOP/s, GB/s, GiB, µs) with a source for every group of
figures; here they become SI.  `Cluster.link` answers the one topological question costs ask: which link does a
collective cross?
"""

from __future__ import annotations

import math
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from apexsim.clock import at_clock
from apexsim.errors import InputError, nearest
from apexsim.examples import expanded, located
from apexsim.files import own_folder, read_toml
from apexsim.gpu import Gpu, GpuLink
from apexsim.gpu_file import changed, differences, known_keys, number_at, part_of, table_at, text_at, texts_at
from apexsim.slices import SPELLED, sliced, spelled
from apexsim.sustained import held_share, streamed_share
from apexsim.units import GB, TFLOPS, US, GiB

DEVICE_FILE = "device.toml"  # describes the accelerator of a device folder
MOST = 4096  # GPUs of a node, and nodes: more is a slip


@dataclass(frozen=True, slots=True)
class Cluster:
    """`nodes` × `per_node` equal GPUs; ranks are numbered node by node."""

    gpu: Gpu
    per_node: int
    nodes: int = 1

    def __post_init__(self) -> None:
        for what, count, key in (("GPU per node", self.per_node, "--gpus"), ("node", self.nodes, "--nodes")):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise InputError(f"a cluster needs at least 1 {what}, got {count}", key)

    @property
    def size(self) -> int:
        """GPUs in the cluster."""
        return self.per_node * self.nodes

    @property
    def domain(self) -> int:
        """Consecutive ranks that one scale-up domain can hold: a node, or what a link that joins nodes reaches."""
        return self.gpu.link.span if self.gpu.link.multi_node else self.per_node

    def link(self, group: int, stride: int = 1) -> GpuLink:
        """The slowest link that a collective of `group` devices, `stride` ranks apart, crosses.

        Groups start at multiples of group × stride, so one straddles two domains only where its extent does not
        divide the domain.  Inside the scale-up domain: the GPU's link.  Inside a node but beyond that (PCIe cards,
        bridged pairs): the host's.  Beyond both: the network.  A domain is `span` consecutive ranks, cut at the node
        unless the link joins nodes.
        """
        if group < 1 or stride < 1 or group * stride > self.size:
            raise InputError(f"no group of {group} GPUs {stride} apart exists on {self.size} GPUs", "cluster")
        scale_up = self.gpu.link
        if self._inside(group, stride, min(scale_up.span, self.domain) if self.gpu.has_scale_up else 1):
            return scale_up if self.gpu.has_scale_up else self.gpu.host
        return self.gpu.host if self._inside(group, stride, self.per_node) else self.gpu.nic

    def _inside(self, group: int, stride: int, domain: int) -> bool:
        """Whether every such group lies inside one block of `domain` consecutive ranks."""
        if group == 1 or domain >= self.size:
            return True
        extent = group * stride
        return extent <= domain and domain % extent == 0


# ---- reading ------------------------------------------------------------------------------------------------------


def _link(data: Mapping[str, Any], key: str, where: str) -> GpuLink:
    table, at = table_at(data, key, where), f"{where} [{key}]"
    span = table.get("span", 0) if key == "link" else sys.maxsize
    if isinstance(span, bool) or not isinstance(span, int) or span < 1:
        raise InputError(f"key 'span' must be a whole number of GPUs ≥ 1, got {span!r}", at)
    flags = {"multi_node": table.get("multi_node", False), "peer": table.get("peer", True)}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InputError(f"key '{name}' must be true or false, got {value!r}", at)
    return GpuLink(
        name=text_at(table, "name", at),
        bandwidth=number_at(table, "bandwidth_gb_s", at) * GB,
        latency=number_at(table, "latency_us", at) * US,
        span=span,
        launch=number_at(table, "launch_us", at, 0.0) * US,
        **flags,
    )


def _held(data: Mapping[str, Any], where: str, tdp: float, peak: float) -> float:
    """Share of its peaks that a GPU holds: as its file says was measured, else by the law of `sustained`."""
    stated = table_at(data, "sustained", where, False)
    if not stated:
        return held_share(data["arch"], tdp, peak * TFLOPS)
    found = number_at(stated, "bf16", f"{where} [sustained]")
    if found > peak:
        raise InputError(f"'bf16' is {found:g}, above the peak of {peak:g}", f"{where} [sustained]", "TFLOP/s that large products reach")
    return found / peak


def _gpu(data: Mapping[str, Any], where: str) -> Gpu:
    """A Gpu from one parsed TOML file; every complaint names the key."""
    if "base" in data:
        data = changed(_base(text_at(data, "base", where), where), data, where)
    known_keys(data, where)
    peaks, memory = table_at(data, "tflops", where), table_at(data, "memory", where)
    if "bf16" not in peaks:
        raise InputError("key 'bf16' is missing in [tflops]", where, "the dense 16-bit peak is always needed")
    prices, sources = table_at(data, "price_usd_h", where, False), table_at(data, "sources", where, False)
    at = f"{where} [memory]"
    total = number_at(memory, "total_gib", at) * GiB
    nominal = number_at(memory, "nominal_gb", at, total / GiB) * GiB
    tdp, peak = number_at(data, "tdp_w", where, math.nan), number_at(peaks, "bf16", f"{where} [tflops]")
    return Gpu(
        name=text_at(data, "name", where),
        aliases=texts_at(data, "aliases", where),
        vendor=text_at(data, "vendor", where),
        arch=text_at(data, "arch", where),
        flops=MappingProxyType({key: number_at(peaks, key, f"{where} [tflops]") * TFLOPS for key in peaks}),
        memory_bytes=total,
        memory_nominal_bytes=nominal,
        memory_bandwidth=number_at(memory, "bandwidth_gb_s", at) * GB,
        cache_bytes=number_at(memory, "cache_mb", at, 0.0) * 1e6,
        link=_link(data, "link", where),
        nic=_link(data, "nic", where),
        host=_link(data, "host", where),
        tdp_w=tdp,
        idle_w=number_at(data, "idle_w", where, math.nan),
        prices=MappingProxyType({key: number_at(prices, key, f"{where} [price_usd_h]") for key in prices}),
        kernels=text_at(data, "kernels", where, False),
        borrow=text_at(data, "borrow", where, False),
        sources=MappingProxyType({key: text_at(sources, key, f"{where} [sources]") for key in sources}),
        notes=texts_at(data, "notes", where),
        held=_held(data, where, tdp, peak),
        streamed=streamed_share(data["arch"], total, nominal),
        clock_mhz=number_at(data, "clock_mhz", where, math.nan),
    )


def _base(name: str, where: str) -> dict[str, Any]:
    """What the file of a GPU of the catalogue holds, of whichever spelling; its own base is put in."""
    if spelling(name) not in _index():
        raise InputError(f"unknown base '{name}'", where, f"{_meant(name)} base is a GPU of the catalogue")
    return _whole(_index()[spelling(name)])


def spelling(name: str) -> str:
    """The form in which names are compared: letters and digits only, lower case, without a remark in brackets."""
    return "".join(c for c in re.sub(r"\(.*?\)", "", name.lower()) if c.isalnum())


# ---- the catalogue: all names from the heads of its files, a whole file where its GPU is asked for ------------------------


@cache
def _texts() -> Mapping[str, str]:
    """The text of every file of the catalogue by the name of its GPU, sorted."""
    folder = resources.files("apexsim") / "data" / "gpus"
    found = {f.name.removesuffix(".toml"): f for f in folder.iterdir() if f.name.endswith(".toml")}
    return {name: found[name].read_text(encoding="utf-8") for name in sorted(found)}


@cache
def _index() -> Mapping[str, str]:
    """Every spelling -> the name of its GPU."""
    index: dict[str, str] = {}
    for name, text in _texts().items():
        for each in (name, *part_of(text).get("aliases", ())):
            other = index.setdefault(spelling(each), name)
            assert other == name, f"'{each}' names both {other} and {name}"
    return index


@cache
def _whole(name: str) -> dict[str, Any]:
    """All that a file of the catalogue says, its base put in."""
    data, where = tomllib.loads(_texts()[name]), f"data/gpus/{name}.toml"
    return changed(_base(data["base"], where), data, where) if "base" in data else data


@cache
def _known(name: str) -> Gpu:
    """The GPU of a name of the catalogue."""
    return _gpu(_whole(name), f"data/gpus/{name}.toml")


def all_gpus() -> tuple[Gpu, ...]:
    """Every GPU of the catalogue, by name."""
    return tuple(map(_known, gpu_names()))


def gpu_names() -> tuple[str, ...]:
    """Canonical names of the catalogue, sorted."""
    return tuple(_texts())


def priced(book: str) -> int:
    """How many GPUs of the catalogue have a price in a book."""
    return sum(book in prices for prices in _prices())


@cache
def _prices() -> tuple[Mapping[str, float], ...]:
    return tuple(part_of(text, "price_usd_h") for text in _texts().values())


def load_gpu(name: str | Path) -> Gpu:
    """The GPU of any spelling of its name (a remark in brackets is tried last), of a TOML file of the same form, or of a
    device folder: one at a path, or one that was added under this name.

    A clock may follow: `h100-sxm@1200MHz`; or a MIG profile: `h100:3g.40gb`, `h100-mig-3g.40gb`.
    """
    text = str(name)
    if found := re.fullmatch(r"(.+)@(\d+) *(?:mhz)?", text, re.IGNORECASE):
        return at_clock(load_gpu(found[1]), float(found[2]))
    inside = re.search(r"\((.*?)\)", text)
    for form in (text, inside[1] if inside else ""):
        if spelling(form) in _index() and "@" not in form:
            return _known(_index()[spelling(form)])
    if (part := spelled(text)) and spelling(part[0]) in _index():
        return sliced(_known(_index()[spelling(part[0])]), part[1])
    if text.endswith(".toml"):
        return load_gpu_file(Path(text))
    for folder in (located(text), devices_folder() / spelling(text)):
        if text and (folder / DEVICE_FILE).is_file():
            return load_device(folder)
    base, sign, clock = text.rpartition("@")
    if sign and spelling(base) in _index():
        raise InputError(f"'{clock}' is no clock in MHz", "--gpu", f"write e.g. {base}@1200")
    if text and expanded(text).is_dir():
        raise InputError(f"the folder holds no {DEVICE_FILE}", text, "see: docs/devices.md")
    if text.strip().isdigit() and len(text.strip()) < 4:  # more digits are a card: 4090
        raise InputError(f"unknown GPU '{text}'", "--gpu", f"several numbers of GPUs are a list of --gpus: --gpus 1,{text.strip()}")
    hint = f"{_meant(part[0] if part else text)} or the path of a .toml file or of a folder with a {DEVICE_FILE}"
    raise InputError(f"unknown GPU '{text}'", "--gpu", hint)


def _meant(text: str) -> str:
    """A hint with the GPUs one of whose spellings is closest."""
    close = get_close_matches(spelling(text), sorted(_index()), n=12, cutoff=0.6)
    names = list(dict.fromkeys(_index()[each] for each in close))[:4]
    return f"did you mean {', '.join(names)}?" if names else nearest(text, gpu_names())


_COUNTED = (
    re.compile(r"(?P<gpus>\d{1,9}) *[x×*] *(?P<name>.+)", re.IGNORECASE),  # 8xh100 …
    re.compile(r"(?P<nodes>\d{1,9}) *[x×*] *(?P<gpus>\d{1,9}) *[x×*] *(?P<name>.+)", re.IGNORECASE),  # … and 2x8xh100
    re.compile(r"(?P<name>.+):(?P<gpus>\d{1,9})"),  # h100:8
    re.compile(r"(?P<name>.*\D.*?) *[x×*] *(?P<gpus>\d{1,9})", re.IGNORECASE),  # h100x8 …
    re.compile(r"(?P<name>.*\D.*x)(?P<gpus>\d{1,9})", re.IGNORECASE),  # … and mi300x8
)


def gpu_of(keys: Mapping[str, Any]) -> Gpu:
    """A GPU from the keys of its file."""
    found = _gpu(keys, "gpu")
    return found if "base" not in keys else replace(found, notes=(*found.notes, f"as {keys['base']} but for: {differences(keys)}"))


def cluster_of(gpu: str | Path | Gpu, gpus: int | None = None, nodes: int | None = None) -> Cluster:
    """The cluster of a GPU's name and counts; the name may hold the counts itself: h100:8, 8xh100, h100x8, 2x8xh100."""
    if isinstance(gpu, Gpu):
        if gpus is None:
            raise InputError("missing option '--gpus'", "", f"how many {gpu.name} has each node?")
        return Cluster(gpu, gpus, 1 if nodes is None else nodes)
    name, inside = counted(str(gpu))
    given = {"gpus": gpus, "nodes": nodes}
    for key, count in inside.items():
        if given[key] not in (None, count):
            raise InputError(f"'{gpu}' says {count} {key}, --{key} says {given[key]}", f"--{key}", "drop one of both")
        if count > MOST:
            raise InputError(f"'{gpu}' says {count} {key}", "--gpu", f"at most {MOST:,} are simulated")
    per_node = inside.get("gpus", gpus)
    if per_node is None and load_gpu(name).profile:
        per_node = 1
    if per_node is None:
        raise InputError("missing option '--gpus'", "", f"how many GPUs has each node? --gpus N, or --gpu {name.rstrip(': ')}:N")
    return Cluster(load_gpu(name), per_node, inside.get("nodes", 1 if nodes is None else nodes))


def counted(text: str) -> tuple[str, dict[str, int]]:
    """A GPU's name, and the counts that its spelling holds; a name that is known as it stands holds none."""
    if _is_gpu(text):
        return text, {}
    for found in filter(None, (form.fullmatch(text.strip()) for form in _COUNTED)):
        if _is_gpu(found["name"]):
            return found["name"], {key: int(count) for key, count in found.groupdict().items() if key != "name" and count}
    return text, {}


def _is_gpu(text: str) -> bool:
    """Whether a text names a GPU, without a look at counts."""
    base = re.sub(r"@\d+ *(?:mhz)?$", "", text, flags=re.IGNORECASE)
    inside = re.search(r"\((.*?)\)", base)
    part = SPELLED.fullmatch(base)
    known = any(form and spelling(form) in _index() for form in (base, inside[1] if inside else "", part["card"] if part else ""))
    folder = devices_folder() / spelling(base)
    return known or expanded(base).exists() or (bool(spelling(base)) and (folder / DEVICE_FILE).is_file())


def devices_folder() -> Path:
    """Where devices that people add are kept: $APEXSIM_DEVICES, else the user's data folder."""
    return own_folder("APEXSIM_DEVICES", "devices")


def load_device(folder: Path) -> Gpu:
    """The GPU of a device folder; its measured operators, if there are any, are read from there when first needed."""
    gpu = load_gpu_file(folder / DEVICE_FILE)
    if gpu.kernels:
        raise InputError("key 'kernels' is not for device folders", str(folder / DEVICE_FILE), "borrow = names a relative")
    return replace(gpu, kernels=str(folder.resolve())) if any(folder.glob("*.csv")) else gpu


ALIKE = 1.25  # times that a GPU may be faster or slower than the one whose kernels it names


def _as_fast(gpu: Gpu, where: str) -> None:
    """Raise InputError where measured kernel times are named of a GPU that is far from this one: they would count as they are."""
    timed = next((one for name in gpu_names() if (one := load_gpu(name)).kernels == gpu.kernels), None) if gpu.kernels else None
    if timed is None:
        return
    figures = {"bandwidth_gb_s": (gpu.memory_bandwidth / 1e9, timed.memory_bandwidth / 1e9)}
    figures |= {f"tflops.{form}": (rate / 1e12, timed.flops[form] / 1e12) for form, rate in gpu.flops.items() if form in timed.flops}
    for key, (own, theirs) in figures.items():
        if not theirs / ALIKE <= own <= theirs * ALIKE:
            told = f"kernels = '{gpu.kernels}' were timed on {timed.name}, with {key} = {theirs:,.4g}; this GPU has {own:,.4g}"
            raise InputError(told, where, f"borrow = '{gpu.kernels}' carries its times to other peaks")


def load_gpu_file(path: Path) -> Gpu:
    """The GPU that a user's TOML file describes; where it holds changes to another one, a note says to which."""
    data = read_toml(path, "GPU file")
    gpu = _gpu(data, str(path))
    _as_fast(gpu, str(path))
    if "base" not in data:
        return gpu
    return replace(gpu, notes=(*gpu.notes, f"as {data['base']} but for: {differences(data)}"))
