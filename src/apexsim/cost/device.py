"""Bring your own hardware: a folder with `device.toml` and, where measured, CSV files of operator times (floor 3).

`device.toml` has the form of `data/gpus/*.toml`; `borrow` names the measured system whose utilisation stands in for
what the folder does not hold.  The files become the same tables as those of the package, so that points are used
verbatim, times between them are interpolated and times beyond them extrapolated.  A curve of collectives that falls
with size is lowered to its later, larger messages, as in the package's own tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from apexsim.cost.device_csv import ERROR, NOTE, SHEETS, Array, Finding, Sheet, kind_of, read_sheet
from apexsim.cost.kernels import Table
from apexsim.cost.roofline import Peaks
from apexsim.errors import InputError
from apexsim.gpu import Gpu
from apexsim.hardware import DEVICE_FILE, load_gpu_file

CELLS = 20_000_000  # of one table; sizes that share no grid would need more
COLLECTIVES = {"all_reduce": "all_reduce", "all_gather": "all_gather", "reduce_scatter": "reduce_scatter",
               "alltoall": "all_to_all", "sendrecv": "send"}  # fmt: skip
KV = {"bf16": "bf16", "fp8": "fp8", "int8": "fp8"}  # format of a row -> format of the cache


@dataclass(frozen=True)
class Device:
    """What a folder holds: the accelerator, its sheets, and what reading them found."""

    folder: Path
    gpu: Gpu
    sheets: tuple[Sheet, ...]
    findings: tuple[Finding, ...]


def read_device(folder: Path) -> Device:
    """Everything in a folder, with the faults of single rows as findings; raises InputError without a sound device.toml."""
    gpu = load_gpu_file(folder / DEVICE_FILE)
    findings: list[Finding] = []
    sheets: list[Sheet] = []
    for path in sorted(folder.glob("*.csv")):
        kind, clock = kind_of(path)
        if kind not in SHEETS:
            findings.append(Finding(NOTE, path.name, "not read: no operator of this name", f"known: {', '.join(SHEETS)}"))
        elif clock:
            findings.append(Finding(NOTE, path.name, f"not read: measured at {clock} MHz; only the default clock (_0) is"))
        else:
            sheet, found = read_sheet(path)
            findings += found
            sheets += [sheet] if sheet is not None else []
    return Device(folder, gpu, tuple(sheets), tuple(findings))


def refuse(folder: Path, findings: Iterable[Finding]) -> None:
    """Raise InputError with the first error, if there is one."""
    bad = next((f for f in findings if f.level == ERROR), None)
    if bad is not None:
        raise InputError(bad.what, f"{folder / bad.where}", bad.hint or f"see: apexsim device check {folder}")


class DeviceTables:
    """The tables of one folder, as `kernels.Tables` has those of the package."""

    def __init__(self, folder: Path) -> None:
        device = read_device(folder)
        refuse(folder, device.findings)
        self.system, self.device = device.gpu.name, device
        self.peaks = Peaks(device.gpu.flops, device.gpu.memory_bandwidth, device.gpu.link.bandwidth)

    @cached_property
    def _tables(self) -> dict[str, dict[tuple[str, ...], Table]]:
        return tables_of(self.device)

    def keys(self, family: str) -> tuple[tuple[str, ...], ...]:
        """Keys of a family's tables, () when the folder has none."""
        return tuple(self._tables.get(family, ()))

    def table(self, family: str, key: tuple[str, ...]) -> Table:
        """One table."""
        return self._tables[family][key]


def tables_of(device: Device) -> dict[str, dict[tuple[str, ...], Table]]:
    """family -> key -> table, from every sheet."""
    out: dict[str, dict[tuple[str, ...], Table]] = {}
    for sheet in device.sheets:
        for family, table in MAKE[sheet.kind](sheet):
            known = out.setdefault(family, {})
            if table.key in known:
                raise InputError(f"{known[table.key].origin} holds the same operator and format", sheet.path.name, "keep one")
            known[table.key] = table
    return out


def _grid(sheet: Sheet, pick: Array, axes: Iterable[Array]) -> tuple[Array, list[Array]]:
    """Median seconds on the grid of all sizes; NaN where nothing was measured.  An axis [rows] or [rows, columns]."""
    sizes, places = [], []
    for axis in axes:
        size, place = np.unique(axis[pick], axis=0, return_inverse=True)
        sizes.append(size)
        places.append(np.asarray(place).reshape(-1))
    shape = tuple(len(size) for size in sizes)
    if np.prod(shape, dtype=float) > CELLS:
        raise InputError(f"the sizes span a grid of {' × '.join(map(str, shape))} cells", sheet.path.name, "measure on common sizes")
    flat = np.ravel_multi_index(tuple(places), shape)
    order = np.lexsort((sheet.seconds[pick], flat))
    cell, first, count = np.unique(flat[order], return_index=True, return_counts=True)
    seconds = np.full(int(np.prod(shape)), np.nan)
    seconds[cell] = sheet.seconds[pick][order][first + (count - 1) // 2]  # of an even number the lower median
    return seconds.reshape(shape), sizes


def _gemm(sheet: Sheet) -> Iterator[tuple[str, Table]]:
    """Their n (tokens) is our m, their m (output) our n."""
    c = sheet.columns
    for kernel in np.unique(sheet.dtype):
        seconds, (m, n, k) = _grid(sheet, sheet.dtype == kernel, (c["n"], c["m"], c["k"]))
        yield "gemm", Table((str(kernel), "any"), seconds, {"m": m, "n": n, "k": k}, sheet.path.name, "")


def _heads(family: str, phase: str) -> Callable[[Sheet], Iterator[tuple[str, Table]]]:
    def make(sheet: Sheet) -> Iterator[tuple[str, Table]]:
        c = sheet.columns
        kv_heads = np.where(c["num_kv_heads"] > 0, c["num_kv_heads"], c["num_heads"])
        shapes = np.stack([c["num_heads"], kv_heads, c["head_size"], c["window"]], axis=1)
        stored = np.array([KV.get(str(name), "") for name in sheet.dtype])
        for kv in np.unique(stored[stored != ""]):
            seconds, (shape, batch, length) = _grid(sheet, stored == kv, (shapes, c["batch_size"], c["seq_len"]))
            axes = {"shape": shape.astype(int), "batch": batch, "length": length}
            yield family, Table((phase, str(kv), "any", "bf16"), seconds, axes, sheet.path.name, "")

    return make


def _moe(sheet: Sheet) -> Iterator[tuple[str, Table]]:
    c = sheet.columns
    shapes = np.stack([c[name] for name in ("hidden", "inner", "top_k", "experts", "tp", "ep", "gated")], axis=1)
    for kernel in np.unique(sheet.dtype):
        seconds, (shape, load, tokens) = _grid(sheet, sheet.dtype == kernel, (shapes, c["load"], c["tokens"]))
        axes = {"shape": shape.astype(int), "load": load, "tokens": tokens}
        yield "moe", Table((str(kernel), "any", ""), seconds, axes, sheet.path.name, "")


def _comm(sheet: Sheet) -> Iterator[tuple[str, Table]]:
    """One curve per number of nodes over all GPUs; messages of no bytes are left out; formats share bytes."""
    c = sheet.columns
    gpus = c["num_nodes"] * c["num_gpus_per_node"]
    for nodes in np.unique(c["num_nodes"]):
        pick = (c["num_nodes"] == nodes) & (c["size"] > 0) & (gpus > 1)
        if not pick.any():
            continue
        seconds, (ranks, size) = _grid(sheet, pick, (gpus, c["size"]))
        later = np.fmin.accumulate(seconds[:, ::-1], axis=1)[:, ::-1]
        seconds = np.where(np.isnan(seconds), np.nan, later)
        key = (COLLECTIVES[sheet.kind], "nccl", str(int(nodes)))
        yield "comm", Table(key, seconds, {"gpus": ranks, "bytes": size}, sheet.path.name, "lowered to later points")


MAKE: dict[str, Callable[[Sheet], Iterator[tuple[str, Table]]]] = {
    "gemm": _gemm,
    "mha": _heads("attention", "prefill"),
    "decode": _heads("attention", "decode"),
    "bimha": _heads("encoder", "prefill"),
    "moe": _moe,
    **dict.fromkeys(COLLECTIVES, _comm),
}
