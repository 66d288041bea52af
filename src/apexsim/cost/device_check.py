"""Is a device folder sound, and what will its times be? (floor 3)

Checks of one sheet, each a function of it and the accelerator, listed in `CHECKS`: faster than the peaks allow (a wrong
unit), hardly used at all, columns swapped, the same size twice, outliers along the axis that grows, gaps and ends of
that axis.  The limits below are this project's choices; a check that only suspects something warns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apexsim.cost.device import COLLECTIVES, Device, read_device, tables_of
from apexsim.cost.device_csv import ALONG, ERROR, NOTE, WARNING, Array, Finding, Sheet
from apexsim.cost.kernels import Table, Tables, systems
from apexsim.cost.ring import MOVES, lent
from apexsim.cost.roofline import KERNELS, Peaks
from apexsim.cost.shapes import ExpertLayer, Heads, decode_work, encoder_work, expert_work, gemm_work, prefill_work
from apexsim.errors import InputError, nearest
from apexsim.gpu import Gpu

TOO_FAST = 1.1  # times the peak that no kernel passes: peaks are quoted at some clock, and clocks differ
TOO_SLOW = 0.02  # share of the peak that the best kernel of a sheet should pass
NEVER = 0.002  # share below which times or sizes are in another unit, unless all rows are as long as a launch:
FLAT = 5.0  # longest over shortest time of such a sheet
JUMP = 1.3  # times that a smaller size may take longer than a larger one
DIP = 0.5  # of the time of the next smaller size that a size must at least take
GAP = 4.5  # ratio of neighbouring sizes above which the axis has a gap
SPAN = {
    "n": (1, 8192),
    "seq_len": (128, 32768),
    "tokens": (1, 8192),
    "size": (4096, 2.0**26),
}  # a good axis, first and last
MOST_GPUS = 256  # of one node
NAMED = 5  # rows that one finding names


@dataclass(frozen=True, slots=True)
class Cover:
    """One operator: where its times come from (measured, transferred, roofline) and the range that was measured."""

    operator: str
    source: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of a check."""

    gpu: Gpu
    findings: tuple[Finding, ...]
    covers: tuple[Cover, ...]

    @property
    def sound(self) -> bool:
        """Whether the folder can be used."""
        return not any(f.level == ERROR for f in self.findings)


def check_device(folder: Path) -> Report:
    """Read a device folder and hold it against physics, its own neighbours and what planning asks for."""
    device = read_device(folder)
    findings = [*_described(device.gpu), *device.findings, *checked(device)]
    try:
        tables = tables_of(device)
    except InputError as error:
        findings.append(Finding(ERROR, error.where, error.what, error.hint))
        tables = {}
    order = {ERROR: 0, WARNING: 1, NOTE: 2}
    findings.sort(key=lambda f: order[f.level])
    return Report(device.gpu, tuple(findings), tuple(_covers(device.gpu, tables)))


def checked(device: Device) -> Iterator[Finding]:
    """What the checks find in the sheets of a device."""
    peaks = Peaks(device.gpu.flops, device.gpu.memory_bandwidth, device.gpu.link.bandwidth)
    for sheet in device.sheets:
        for check in CHECKS:
            yield from check(sheet, device.gpu, peaks)


def _described(gpu: Gpu) -> Iterator[Finding]:
    """Figures of device.toml that are probably in another unit."""
    where = "device.toml"
    ranges = (
        ("[tflops] bf16", gpu.flops["bf16"] / 1e12, 1, 2e4, "TFLOP/s"),
        ("[memory] total_gib", gpu.memory_bytes / 2**30, 4, 4096, "GiB"),
        ("[memory] bandwidth_gb_s", gpu.memory_bandwidth / 1e9, 50, 1e5, "GB/s"),
        ("[link] bandwidth_gb_s", gpu.link.bandwidth / 1e9, 1, 1e4, "GB/s per direction"),
        ("[link] latency_us", gpu.link.latency * 1e6, 0.05, 1000, "µs"),
    )  # fmt: skip
    for key, value, least, most, unit in ranges:
        if not least <= value <= most:
            yield Finding(WARNING, where, f"{key} = {value:g} {unit} is unusual", f"most lie between {least:g} and {most:g}")
    if gpu.kernels:
        yield Finding(ERROR, where, "key 'kernels' is not for device folders", "drop it; borrow = names a relative")
    if gpu.borrow and gpu.borrow not in systems():
        yield Finding(ERROR, where, f"borrow = '{gpu.borrow}' is no measured system", nearest(gpu.borrow, systems()))
    if not gpu.sources:
        yield Finding(NOTE, where, "no [sources]", "say where the figures come from")


def work_of(sheet: Sheet) -> tuple[Array, Array]:
    """FLOP and bytes of every row (bytes that must cross the memory bus, or a link)."""
    c = sheet.columns
    if sheet.kind in COLLECTIVES:
        gpus = c["num_nodes"] * c["num_gpus_per_node"]
        share = np.array([MOVES[COLLECTIVES[sheet.kind]](float(max(p, 2)))[0] for p in gpus])
        return np.zeros_like(gpus), share * c["size"]
    flop, nbytes = np.zeros(len(sheet.line)), np.zeros(len(sheet.line))
    if sheet.kind == "gemm":
        for name in np.unique(sheet.dtype):
            rows = sheet.dtype == name
            flop[rows], nbytes[rows] = gemm_work(c["n"][rows], c["m"][rows], c["k"][rows], KERNELS[str(name)])
        return flop, nbytes
    if sheet.kind == "moe":
        for i, row in enumerate(np.stack([c[n] for n in ("hidden", "inner", "top_k", "experts", "tp", "ep")], axis=1)):
            layer = ExpertLayer._make([*(int(x) for x in row), bool(c["gated"][i])])
            f, b = expert_work(c["tokens"][i : i + 1], layer, KERNELS[str(sheet.dtype[i])])
            flop[i], nbytes[i] = f[0], b[0]
        return flop, np.zeros_like(nbytes)  # how many experts are touched is a matter of luck
    kv_heads = np.where(c["num_kv_heads"] > 0, c["num_kv_heads"], c["num_heads"])
    formula = {"mha": prefill_work, "bimha": encoder_work, "decode": decode_work}[sheet.kind]
    for i in range(len(sheet.line)):
        shape = Heads(int(c["num_heads"][i]), int(kv_heads[i]), int(c["head_size"][i]), int(c["window"][i]))
        f, b = formula(c["batch_size"][i : i + 1], c["seq_len"][i : i + 1], shape, 2.0 if sheet.dtype[i] == "bf16" else 1.0)
        flop[i], nbytes[i] = f[0], b[0]
    return flop, nbytes


def _speed(sheet: Sheet, gpu: Gpu, peaks: Peaks) -> Iterator[Finding]:
    """Shares of the peaks: above them the unit or a column is wrong; far below them perhaps too."""
    flop, nbytes = work_of(sheet)
    compute = [KERNELS[str(n)].compute if sheet.kind in ("gemm", "moe") else "bf16" for n in sheet.dtype]
    rate = np.array([peaks.rate(name) for name in compute])
    used = flop / (rate * sheet.seconds)
    if sheet.kind in COLLECTIVES:
        wire = max(gpu.link.bandwidth, gpu.host.bandwidth, gpu.nic.bandwidth)
        used = nbytes / (wire * sheet.seconds)
    else:  # what fits the last-level cache need not cross the memory bus
        big = nbytes > 4 * max(gpu.cache_bytes, 64e6)
        used = np.maximum(used, np.where(big, nbytes / (peaks.bandwidth * sheet.seconds), 0.0))
    best = int(used.argmax())
    what = "link" if sheet.kind in COLLECTIVES else "peak"
    many = int((used > TOO_FAST).sum())
    if many:
        unit = next((u for u, f in (("ms", 1e3), ("s", 1e6)) if TOO_SLOW < used[best] / f <= TOO_FAST), "")
        hint = f"are the times in {unit}?" if unit else "check the columns, the unit and the peaks in device.toml"
        yield Finding(ERROR, sheet.where(best), f"{used[best]:.3g} times the {what}'s speed; {many} rows above {TOO_FAST}", hint)
    elif used[best] < TOO_SLOW:
        hint = "are the times in ns?" if used[best] * 1e3 <= TOO_FAST and used[best] * 1e3 > 0.1 else "check the unit; time longer sizes"
        hint = "check the units of size and time" if sheet.kind in COLLECTIVES else hint
        absurd = used[best] < NEVER and sheet.seconds[best] > FLAT * sheet.seconds.min()
        level = ERROR if absurd else WARNING
        yield Finding(level, sheet.path.name, f"no row reaches more than {used[best]:.2g} of the {what}", hint)


def _swapped(sheet: Sheet, gpu: Gpu, peaks: Peaks) -> Iterator[Finding]:
    """Columns that seem to have changed places."""
    c = sheet.columns
    if sheet.kind in COLLECTIVES and c["num_gpus_per_node"].max() > MOST_GPUS:
        wide = np.flatnonzero(c["num_gpus_per_node"] > MOST_GPUS)
        first = wide[0]
        while first > 0 and all(c[name][first - 1] == c[name][wide[0]] for name in ("size", "num_nodes")):
            first -= 1
        lines = f"{sheet.path.name} lines {sheet.line[first]} to {sheet.line[wide[-1]]}"
        what = f"{c['num_gpus_per_node'].max():.0f} GPUs in a node"
        yield Finding(ERROR, lines, what, "num_gpus_per_node and size look swapped")
    if sheet.kind == "gemm" and len(np.unique(c["m"])) > 2 and c["m"].min() < 16 and c["n"].min() >= 256:
        hint = "m = output size, k = input size, n = tokens"
        yield Finding(WARNING, sheet.path.name, "the outputs m look like tokens and the tokens n like sizes", hint)
    if sheet.kind in ("mha", "bimha", "decode") and c["head_size"].max() > 1024:
        yield Finding(WARNING, sheet.path.name, f"a head of {c['head_size'].max():.0f} numbers", "are columns swapped?")
    if sheet.kind in ("mha", "bimha", "decode"):
        odd = np.flatnonzero((c["num_kv_heads"] > 0) & (c["num_heads"] % np.maximum(c["num_kv_heads"], 1) != 0))
        if odd.size:
            yield Finding(ERROR, sheet.where(odd[0]), "query heads are no multiple of kv heads", "are columns swapped?")


def _lines(sheet: Sheet) -> Iterator[NDArray[np.int64]]:
    """Row numbers of each curve: equal in all but the column that grows, in its order."""
    along = ALONG.get(sheet.kind, "size")
    keys = [sheet.columns[name] for name in sheet.columns if name not in (along, "time")]
    keys.append(np.unique(sheet.dtype, return_inverse=True)[1].astype(float))
    order = np.lexsort((sheet.seconds, sheet.columns[along], *keys))
    stacked = np.stack(keys, axis=1)[order]
    cuts = np.flatnonzero((stacked[1:] != stacked[:-1]).any(axis=1)) + 1
    yield from np.split(order.astype(np.int64), cuts)


def _curves(sheet: Sheet, gpu: Gpu, peaks: Peaks) -> Iterator[Finding]:
    """The same size twice, and points that stand apart from their neighbours."""
    along = ALONG.get(sheet.kind, "size")
    odd: dict[str, list[int]] = {"a size stands twice with times that differ by more than 10 %": [],
                                 f"slower than larger sizes by {JUMP} times or more": [],
                                 f"faster than {DIP:g} of a smaller size, and alone": []}  # fmt: skip
    twice, slow, fast = odd.values()
    for rows in _lines(sheet):
        size, t = sheet.columns[along][rows], sheet.seconds[rows]
        same = np.flatnonzero((np.diff(size) == 0) & (t[1:] > 1.1 * t[:-1]))
        twice += rows[same + 1].tolist()
        if len(t) < 3:
            continue
        later = np.minimum.accumulate(t[::-1])[::-1]
        before = np.maximum.accumulate(t)
        dip = np.zeros(len(t), bool)
        dip[1:-1] = (t[1:-1] < DIP * t[:-2]) & (t[1:-1] < DIP * t[2:]) & (before[:-2] <= 1.2 * t[:-2])
        lasting = np.r_[np.where(dip[1:], np.r_[later[2:], t[-1]], later[1:]), t[-1]]
        slow += rows[(t > JUMP * lasting) & ~dip & (t > 5e-6)].tolist()
        fast += rows[dip].tolist()
    for what, found in odd.items():
        if found:
            named = ", ".join(str(sheet.line[row]) for row in sorted(found)[:NAMED])
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            yield Finding(WARNING, f"{sheet.path.name} line {named}{more}", what, "measure again, or leave the rows out")


def _axis(sheet: Sheet, gpu: Gpu, peaks: Peaks) -> Iterator[Finding]:
    """Gaps and ends of the column that grows, and how much of the common grid is empty."""
    along = ALONG.get(sheet.kind, "size")
    size = np.unique(sheet.columns[along])
    size = size[size > 0]
    first, last = SPAN[along]
    scale, unit = (1024.0, " KiB") if along == "size" else (1.0, "")
    wide = np.flatnonzero(size[1:] > GAP * size[:-1])
    if wide.size:
        gaps = ", ".join(f"{size[i] / scale:g} to {size[i + 1] / scale:g}{unit}" for i in wide[:NAMED])
        yield Finding(WARNING, sheet.path.name, f"gaps in {along}: {gaps}", "times there are interpolated over a wide range")
    ends = [
        f"{side} {value / scale:g}{unit}"
        for side, value, bad in (("below", size[0], size[0] > first), ("above", size[-1], size[-1] < last))
        if bad
    ]
    if ends:
        yield Finding(NOTE, sheet.path.name, f"{along} {' and '.join(ends)} was not timed", "times there are extrapolated")


CHECKS: tuple[Callable[[Sheet, Gpu, Peaks], Iterator[Finding]], ...] = (_speed, _swapped, _curves, _axis)

# ---- what will be measured, transferred or computed ----------------------------------------------------------------

# name shown -> (family, what a table's key begins with)
OPERATORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "matrix products, 16 bit": ("gemm", ("bf16",)),
    "matrix products, 8 bit": ("gemm", ("fp8",)),
    "prompt attention": ("attention", ("prefill", "bf16")),
    "decode attention": ("attention", ("decode", "bf16")),
    "encoder attention": ("encoder", ("prefill", "bf16")),
    "routed experts, 16 bit": ("moe", ("bf16",)),
    "latent attention": ("mla", ("decode",)),
    "state-space scans": ("scan", ()),
    "all-reduce in a node": ("comm", ("all_reduce",)),
    "all-gather in a node": ("comm", ("all_gather",)),
    "reduce-scatter in a node": ("comm", ("reduce_scatter",)),
    "all-to-all in a node": ("comm", ("all_to_all",)),
    "send": ("comm", ("send",)),
}


def _covers(gpu: Gpu, tables: Mapping[str, Mapping[tuple[str, ...], Table]]) -> Iterator[Cover]:
    """One row per operator that planning may ask for; collectives are lent as `ring.lent` lends them."""
    formula = "latency + bytes / bandwidth of the link"
    lender = Tables(gpu.borrow) if gpu.borrow and gpu.borrow in systems() else None
    for name, (family, head) in OPERATORS.items():
        own = [t for key, t in tables.get(family, {}).items() if key[: len(head)] == head]
        if own:
            yield Cover(name, "measured", _range(own[0]))
            continue
        there = lender is not None and any(key[: len(head)] == head for key in lender.keys(family))
        if family == "comm":
            used = there and lender and lent(head[0] == "all_reduce", gpu.vendor, gpu.link.bandwidth, lender.peaks.link)
            yield Cover(name, *(("transferred", f"curve of {gpu.borrow}") if used else ("roofline", formula)))
        elif there:
            yield Cover(name, "transferred", f"utilisation of {gpu.borrow}, peaks of {gpu.name}")
        else:
            yield Cover(name, "roofline", "2 µs + the longer of FLOP and bytes at fixed shares of the peaks")
    yield Cover("element-wise kernels, network", "roofline", "bytes / bandwidth; latency + bytes / bandwidth of the network")


def _range(table: Table) -> str:
    """Sizes of a table in words; what lies beyond them is extrapolated."""
    axes, seconds = table.axes, table.seconds
    parts = [f"{len(a)} shapes" if a.ndim > 1 else f"{name} {a.min():g} to {a.max():g}" for name, a in axes.items()]
    holes = float(np.isnan(seconds).mean())
    return ", ".join(parts) + (f"; {holes:.0%} of the grid empty, filled at held utilisation" if holes > 0.005 else "")
