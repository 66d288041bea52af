"""Build the package's operator tables from a folder of kernel measurements.

    python scripts/build_kernels.py MEASUREMENTS [--out src/apexsim/data/kernels] [--page docs/kernels.md]

MEASUREMENTS holds `<system>/<family>/<engine>/<version>/*.parquet` (aiconfigurator-core 0.12.0, Apache-2.0, latencies
in ms) and `_apex_plus/` (microsoft/apex_plus @ 87690965, MIT, times in µs).  Out come `<system>/<family>.npz` (seconds,
float32 cut to 13 mantissa bits: relative error 6e-5, NaN where nothing was measured), and `manifest.json`
with the origin of every table.  What is picked and why stands in `kernel_choices.py`; what is refused and why is found by
`kernel_checks.py`, told in the manifest and in docs/kernels.md.  It takes about a minute.
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

import kernel_checks as checks
import kernel_choices as choose
import kernel_families as dense
import kernel_layers as layers
from apexsim.cost.roofline import Peaks
from kernel_families import Table, curves, read_csv, v100_gemm

FORMAT = 1
HOME = Path(__file__).parents[1]
FAMILIES: dict[str, Callable[[Path, str], Iterator[Table]]] = {
    "gemm": dense.gemm,
    "attention": dense.attention,
    "comm": dense.comm,
    "quantise": dense.quantise,
    "moe": layers.moe,
    "local": layers.local,
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
    "changes": "reshaped, one kernel chosen per key, cut to 13 mantissa bits; upward spikes of collectives removed; "
    "spoiled times refused, bound or lowered as told per table",
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


def write_family(folder: Path, family: str, tables: Iterable[Table], checked: dict[tuple[str, ...], list[str]]) -> list[dict[str, Any]]:
    """Write one npz; the manifest rows of its tables, with what was found and done by `kernel_checks`."""
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
            "note": table.note, "checked": checked.get(table.key, []),
        })  # fmt: skip
    if rows:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / f"{family}.npz", **arrays)  # type: ignore[arg-type]
    return rows


def read_system(root: Path, system: str) -> dict[str, list[Table]]:
    """All families of one measured system."""
    return {family: list(read(root, system)) for family, read in FAMILIES.items()}


def read_v100(root: Path) -> dict[str, list[Table]]:
    """V100-PCIE-16GB of apex_plus: FP16 GEMM and NCCL on one to four nodes."""
    old = root / "_apex_plus"
    gemm = v100_gemm(pd.read_csv(old / "comp/V100-PCIE-16GB/gemm_0.csv"))
    comm = [t for kind in ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "sendrecv")
            for t in curves(read_csv(old / f"comm/V100-PCIE-16GB/{kind}.csv"), kind)]  # fmt: skip
    return {"gemm": [gemm], "comm": comm}


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--out", type=Path, default=HOME / "src/apexsim/data/kernels")
    parser.add_argument("--page", type=Path, default=HOME / "docs/kernels.md")
    args = parser.parse_args()
    root = args.measurements
    raw = {**{s: read_system(root, s) for s in choose.SYSTEMS}, "v100_pcie": read_v100(root)}
    stated = {**{s: peaks(root, s) for s in choose.SYSTEMS}, "v100_pcie": choose.V100_PEAKS}
    sizes = {(s, f, t.key): int(np.isfinite(t.seconds).sum()) for s, rows in raw.items() for f, ts in rows.items() for t in ts}
    tables, told = checks.check(raw, {s: Peaks(p["flops"], p["bandwidth"], p["link"]) for s, p in stated.items()})
    systems = {}
    for system in sorted(tables):
        written = {f: write_family(args.out / system, f, ts, _done(told, system, f)) for f, ts in tables[system].items()}
        systems[system] = {**stated[system], "families": {f: rows for f, rows in written.items() if rows}}
    manifest = {"format": FORMAT, "source": SOURCE, "systems": systems}
    text = json.dumps(manifest, indent=None, separators=(",", ":"), ensure_ascii=False) + "\n"
    (args.out / "manifest.json").write_text(text, encoding="utf-8")
    checks.write_page(args.page, checks.page(told, sizes))
    for npz in sorted(args.out.rglob("*.npz")):
        print(f"{npz.stat().st_size / 1024:9.0f} KiB  {npz.relative_to(args.out)}")


def _done(told: checks.Told, system: str, family: str) -> dict[tuple[str, ...], list[str]]:
    """What the checks did to the tables of a family, in words."""
    return {
        key: [f"{cells} cells {what}: {why}" for (what, why), cells in sorted(counts.items())]
        for (where, kind, key), counts in told.done.items()
        if (where, kind) == (system, family)
    }


if __name__ == "__main__":
    main()
