"""Build the package's operator tables from a folder of kernel measurements.

    python scripts/build_kernels.py MEASUREMENTS [--only SYSTEM …] [--families FAMILY …] [--out src/apexsim/data/kernels]

MEASUREMENTS holds `<system>/<family>/<engine>/<version>/*.parquet` (aiconfigurator-core 0.12.0, Apache-2.0, latencies
in ms) and `_apex_plus/` (microsoft/apex_plus @ 87690965, MIT, times in µs).  Out come `<system>/<family>.npz` (seconds,
float32 cut to 13 mantissa bits: relative error 6e-5, NaN where nothing was measured), and `manifest.json`
with the origin of every table.  What is picked and why stands in `kernel_choices.py`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import kernel_choices as choose
import kernel_families as dense
import kernel_layers as layers
from kernel_families import Table, curves, read_csv, v100_gemm

FORMAT = 1
FAMILIES: dict[str, Callable[[Path, str], Iterator[Table]]] = {
    "gemm": dense.gemm,
    "attention": dense.attention,
    "comm": dense.comm,
    "quantise": dense.quantise,
    "moe": layers.moe,
    "mla": layers.mla,
    "mla_bmm": layers.mla_bmm,
    "encoder": layers.encoder,
    "scan": layers.scan,
    "dispatch": layers.dispatch,
}
MANTISSA = np.uint32(0xFFFFFC00)  # keeps 13 of the 23 stored bits
SOURCE = {
    "measurements": "aiconfigurator-core 0.12.0, Copyright (c) 2025-2026 NVIDIA CORPORATION & AFFILIATES, Apache-2.0",
    "apex_plus": "microsoft/apex_plus @ 87690965, Copyright (c) Microsoft Corporation, MIT",
    "changes": "reshaped, one kernel chosen per key, cut to 13 mantissa bits; upward spikes of collectives removed",
}


def trim(seconds: np.ndarray) -> np.ndarray:
    """float32 with the low mantissa bits rounded away, which is below timing noise and halves the file."""
    bits = np.ascontiguousarray(seconds, np.float32).view(np.uint32)
    keep = ((bits + np.uint32(0x200)) & MANTISSA).view(np.float32)
    return np.where(np.isfinite(seconds), keep, np.float32(np.nan)).astype(np.float32)


def peaks(root: Path, system: str) -> dict[str, Any]:
    """Peaks the source states for a system: dense FLOP/s by format, memory and link bandwidth [byte/s]."""
    text = (root / "_systems" / f"{system}.yaml").read_text()
    doc = {k: float(v) for k, v in re.findall(r"^ +(\w+): ([0-9.e+-]+) *(?:#.*)?$", text, re.M)}
    flops = {short: doc[long] for long, short in choose.PEAKS.items() if long in doc}
    return {"flops": flops, "bandwidth": doc["mem_bw"], "link": doc["intra_node_bw"]}


def write_family(folder: Path, family: str, tables: Iterable[Table]) -> list[dict[str, Any]]:
    """Write one npz; the manifest rows of its tables."""
    arrays: dict[str, np.ndarray] = {}
    rows = []
    for i, table in enumerate(tables):
        values = trim(table.seconds)
        arrays[f"{i}"] = values
        for name, axis in table.axes.items():
            whole = np.asarray(axis)
            arrays[f"{i}.{name}"] = whole.astype(np.int32 if whole.max() < 2**31 else np.int64)
        rows.append({
            "key": list(table.key), "array": f"{i}", "axes": list(table.axes), "shape": list(values.shape),
            "holes": int(np.isnan(values).sum()), "file": table.file, "kernels": sorted(table.kernels),
            "note": table.note,
        })  # fmt: skip
    if rows:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / f"{family}.npz", **arrays)  # type: ignore[arg-type]
    return rows


def build_system(root: Path, out: Path, system: str, old: dict[str, Any], only: list[str]) -> dict[str, Any]:
    """All families of one measured system; those not in `only` stay as they are in the old manifest."""
    families = {}
    for family, read in FAMILIES.items():
        if only and family not in only:
            if family in old.get("families", {}):
                families[family] = old["families"][family]
            continue
        rows = write_family(out / system, family, read(root, system))
        if rows:
            families[family] = rows
    return {**peaks(root, system), "families": families}


def build_v100(root: Path, out: Path) -> dict[str, Any]:
    """V100-PCIE-16GB of apex_plus: FP16 GEMM and NCCL on one to four nodes."""
    old = root / "_apex_plus"
    system = "v100_pcie"
    gemm = v100_gemm(pd.read_csv(old / "comp/V100-PCIE-16GB/gemm_0.csv"))
    comm = [t for kind in ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "sendrecv")
            for t in curves(read_csv(old / f"comm/V100-PCIE-16GB/{kind}.csv"), kind)]  # fmt: skip
    families = {"gemm": write_family(out / system, "gemm", [gemm]), "comm": write_family(out / system, "comm", comm)}
    return {**choose.V100_PEAKS, "families": families}


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src/apexsim/data/kernels")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--families", nargs="*", default=[], choices=list(FAMILIES))
    args = parser.parse_args()
    manifest_path = args.out / "manifest.json"
    args.out.mkdir(parents=True, exist_ok=True)
    part = (args.only or args.families) and manifest_path.exists()
    old = json.loads(manifest_path.read_text())["systems"] if part else {}
    systems = dict(old)
    for system in args.only or choose.SYSTEMS:
        if system != "v100_pcie":
            systems[system] = build_system(args.measurements, args.out, system, old.get(system, {}), args.families)
    if "v100_pcie" in args.only or not (args.only or args.families):
        systems["v100_pcie"] = build_v100(args.measurements, args.out)
    manifest = {"format": FORMAT, "source": SOURCE, "systems": dict(sorted(systems.items()))}
    manifest_path.write_text(json.dumps(manifest, indent=None, separators=(",", ":"), ensure_ascii=False) + "\n")
    for npz in sorted(args.out.rglob("*.npz")):
        print(f"{npz.stat().st_size / 1024:9.0f} KiB  {npz.relative_to(args.out)}")


if __name__ == "__main__":
    main()
