"""Readers of the measured families: folder of parquet or CSV files in, dense tables in seconds out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

import kernel_choices as choose

MS, US = 1e-3, 1e-6
SHAPE = ["num_heads", "num_key_value_heads", "head_dim", "window_size"]


@dataclass(frozen=True, slots=True)
class Table:
    """A dense grid of seconds (NaN = not measured), the values along each axis, and where it comes from."""

    key: tuple[str, ...]
    seconds: np.ndarray
    axes: dict[str, np.ndarray]
    file: str
    kernels: set[str] = field(default_factory=set)
    note: str = ""


def dense(frame: pd.DataFrame, columns: Sequence[str], value: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Pivot rows into a grid over `columns`; several rows of one cell give their median."""
    axes = [np.sort(frame[c].unique()) for c in columns]
    cells = frame.groupby(list(columns), sort=False)[value].median()
    index = tuple(np.searchsorted(a, cells.index.get_level_values(i)) for i, a in enumerate(axes))
    grid = np.full([len(a) for a in axes], np.nan)
    grid[index] = cells.to_numpy()
    grid[~(grid > 0)] = np.nan
    return grid, axes


def whole(grid: np.ndarray, axes: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """A grid without the planes of which more than a third is missing: a few shapes timed beside the grid."""
    for dim in range(grid.ndim):
        missing = np.isnan(grid).mean(axis=tuple(d for d in range(grid.ndim) if d != dim))
        keep = missing < 1 / 3
        grid, axes = np.compress(keep, grid, axis=dim), [a[keep] if d == dim else a for d, a in enumerate(axes)]
    return grid, axes


def shaped(frame: pd.DataFrame, shape: list[str], columns: list[str], value: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """As `dense`, with a leading axis of the distinct combinations of the `shape` columns [C, len(shape)]."""
    combos = frame[shape].drop_duplicates().sort_values(shape).reset_index(drop=True)
    numbered = frame.merge(combos.assign(combo=combos.index), on=shape)
    grid, axes = dense(numbered, ["combo", *columns], value)
    return grid, [combos.to_numpy(), *axes[1:]]


def gemm(root: Path, system: str) -> Iterator[Table]:
    """GEMM tables [m, n, k]."""
    for row in choose.GEMM:
        if system not in row.systems:
            continue
        file = root / system / "gemm" / row.folder / "gemm_perf.parquet"
        frame = pd.read_parquet(file)
        frame = _bare(frame[frame.gemm_dtype == row.dtype], row, root / system / "quantize" / row.folder)
        grid, axes = whole(*dense(frame, ["m", "n", "k"], "latency"))
        yield Table((row.kernel, row.source), grid * MS, dict(zip("mnk", axes)), f"gemm/{row.folder}",
                    set(frame.kernel_source), row.note)  # fmt: skip


LEAST = 0.5  # of a time with quantisation that a bare GEMM is given at least


def _bare(frame: pd.DataFrame, row: choose.GemmRow, folder: Path) -> pd.DataFrame:
    """The rows of a table less what its quantisation kernels took at the same (m, k)."""
    bare = frame
    for name in row.less:
        beside = pd.read_parquet(folder / f"{name}.parquet").groupby(["m", "k"]).latency.median().rename("beside")
        bare = bare.join(beside, on=["m", "k"])
        bare = bare.assign(latency=bare.latency - bare.beside.fillna(0.0)).drop(columns="beside")
    return bare.assign(latency=np.maximum(bare.latency, LEAST * frame.latency))


def v100_gemm(frame: pd.DataFrame) -> Table:
    """FP16 GEMM of apex_plus: its m is the output size, k the input, n the tokens; sizes below 32 are left out.

    Tokens are kept at 1-64, then at the multiples of 64 of the form 2^i or 3·2^(i-1).
    """
    frame = frame.rename(columns={"m": "n", "n": "m"})
    m = np.sort(frame.m.unique())
    keep = {int(x) for x in m if x <= 64 or (x & (x - 1)) == 0 or (x % 3 == 0 and ((x // 3) & (x // 3 - 1)) == 0)}
    frame = frame[frame.m.isin(keep) & (frame.n >= 32) & (frame.k >= 32)]
    grid, axes = dense(frame, ["m", "n", "k"], "time(us)")
    return Table(("bf16", "any"), grid * US, dict(zip("mnk", axes)), "_apex_plus/comp/V100-PCIE-16GB/gemm_0.csv",
                 {"cublas"}, "FP16; whole microseconds, launch included")  # fmt: skip


def pick_kernel(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """One kernel per key, the first in the engine's order of preference (never the fastest)."""
    order = {k: next((i for i, word in enumerate(choose.KERNEL_ORDER) if word in k), 99) for k in frame.kernel_source.unique()}
    ranked = frame.assign(rank=frame.kernel_source.map(order)).sort_values("rank", kind="stable")
    best = ranked.groupby(keys)["rank"].transform("min")
    return ranked[ranked["rank"] == best]


def attention(root: Path, system: str) -> Iterator[Table]:
    """Attention tables [shape, batch, length]; length is the prompt (prefill) or the cached tokens (decode)."""
    for phase, theirs in choose.PHASES.items():
        for (name, engine), folder in choose.ATTENTION.items():
            if name == system:
                frame = pd.read_parquet(root / system / "attention" / folder / f"{theirs}_attention_perf.parquet")
                yield from attention_tables(frame, phase, engine, f"attention/{folder}")


def attention_tables(frame: pd.DataFrame, phase: str, engine: str, file: str) -> Iterator[Table]:
    """The tables of one engine and phase, by format of the cache."""
    if "window_size" not in frame:
        frame = frame.assign(window_size=0)
    frame = frame.assign(length=frame.isl if phase == "prefill" else frame.step + 1)
    for kv in ("bf16", "fp8"):
        cached = frame[frame.kv_cache_dtype == {"bf16": "bfloat16", "fp8": "fp8"}[kv]]
        for dtype in choose.ATTENTION_DTYPES[kv, engine]:
            rows = cached[cached.attn_dtype == dtype]
            if rows.empty:
                continue
            rows = pick_kernel(rows, [*SHAPE, "batch_size", "length"])
            grid, (shape, batch, length) = shaped(rows, SHAPE, ["batch_size", "length"], "latency")
            compute = "fp8" if dtype == "fp8" else "bf16"
            yield Table((phase, kv, engine, compute), grid * MS, {"shape": shape, "batch": batch, "length": length},
                        file, set(rows.kernel_source))  # fmt: skip
            break


def without_spikes(seconds: np.ndarray) -> np.ndarray:
    """A curve that never falls with size: a point above a later, larger message is lowered to it (timing noise is
    one-sided).  Applied to collectives only, along the last axis."""
    filled = np.where(np.isnan(seconds), np.inf, seconds)
    low = np.minimum.accumulate(filled[..., ::-1], axis=-1)[..., ::-1]
    return np.where(np.isnan(seconds), np.nan, low)


def curve_table(frame: pd.DataFrame, key: tuple[str, ...], file: str, note: str = "") -> Table:
    """One collective [gpus, bytes] from rows with gpus, bytes, seconds."""
    grid, (gpus, size) = dense(frame, ["gpus", "bytes"], "seconds")
    smooth = without_spikes(grid)
    lowered = int((smooth < grid * 0.98).sum())
    note = f"{note}; {lowered} points lowered".lstrip("; ") if lowered else note
    return Table(key, smooth, {"gpus": gpus, "bytes": size}, file, set(), note)


def latest(folder: Path) -> Path | None:
    """The newest version of a folder of versions."""
    found = sorted(folder.glob("*/custom_allreduce_perf.parquet"), key=lambda f: version(f.parent.name))
    return found[-1] if found else None


def version(name: str) -> tuple[int, ...]:
    """A release as numbers that sort."""
    digits = name.replace("rc", ".").replace("post", ".").split(".")
    return tuple(int(d) for d in digits if d.isdigit())


def comm(root: Path, system: str) -> Iterator[Table]:
    """Collectives: all-reduce kernels of the engines (graph and eager) and the vendor library; sizes become bytes."""
    for engine in ("vllm", "sglang", "trtllm"):
        file = latest(root / system / "comm" / engine)
        if file is None:
            continue
        frame = pd.read_parquet(file)
        frame = frame[~frame.kernel_source.str.contains("MNNVL")]
        frame = frame.assign(gpus=frame.num_gpus, bytes=frame.message_size * 2, seconds=frame.latency * MS)
        eager = frame.kernel_source.str.contains("eager")
        for mode, rows in (("graph", frame[~eager]), ("eager", frame[eager])):
            if not rows.empty:
                path = f"comm/{engine}/{file.parent.name}"
                yield curve_table(rows, ("all_reduce", engine, mode), path)
    yield from vendor(root, system)
    if system in choose.SENDRECV:
        yield from curves(read_csv(root / "_apex_plus/comm" / choose.SENDRECV[system] / "sendrecv.csv"), "sendrecv")


def vendor(root: Path, system: str) -> Iterator[Table]:
    """NCCL or oneCCL in 16 bit."""
    folder = choose.NCCL[system]
    frame = pd.read_parquet(next((root / system / "comm" / folder).glob("*.parquet")))
    frame = frame[frame.nccl_dtype == "half"]
    frame = frame.assign(gpus=frame.num_gpus, bytes=frame.message_size * 2, seconds=frame.latency * MS)
    for name, kind in choose.KINDS.items():
        rows = frame[frame.op_name == name]
        if not rows.empty:
            yield curve_table(rows, (kind, "nccl", "1"), f"comm/{folder}")


def read_csv(file: Path) -> pd.DataFrame:
    """An apex_plus collective file with swapped columns put right.

    In V100 reduce_scatter.csv, lines 138-153, number of GPUs and size are exchanged: size is 1 (KB) in every row while
    the "GPUs per node" run through the powers of two.  Such a run is recognised by more GPUs than a node holds.
    """
    frame = pd.read_csv(file)
    frame["file"] = f"_apex_plus/comm/{file.parent.name}/{file.name}"
    count, size = "num_gpus_per_node", "size(kb)"
    odd = frame[size] == 1
    runs = (odd != odd.shift()).cumsum()
    swapped = odd & (frame.groupby(runs)[count].transform("max") > 8)
    frame.loc[swapped, [count, size]] = frame.loc[swapped, [size, count]].to_numpy()
    return frame


def curves(frame: pd.DataFrame, name: str) -> Iterator[Table]:
    """apex_plus collectives: KB of the whole message, µs, one table per number of nodes."""
    kind = {**choose.KINDS, "sendrecv": "send"}[name]
    frame = frame[(frame.dtype == "half") & (frame["size(kb)"] > 0)]
    frame = frame.assign(bytes=frame["size(kb)"] * 1024, seconds=frame["time(us)"] * US,
                         gpus=frame.num_gpus_per_node * frame.num_nodes)  # fmt: skip
    for nodes, rows in frame.groupby("num_nodes"):
        yield curve_table(rows, (kind, "nccl", str(nodes)), str(rows.file.iloc[0]))


def quantise(root: Path, system: str) -> Iterator[Table]:
    """Quantisation of activations [m, k]: the static kernel and the extra time of a dynamic scale."""
    for kind, (folder, name) in choose.QUANTISE.items():
        file = root / system / "quantize" / folder / f"{name}.parquet"
        if file.exists():
            frame = pd.read_parquet(file)
            grid, axes = dense(frame, ["m", "k"], "latency")
            yield Table((kind, "any"), grid * MS, dict(zip("mk", axes)), f"quantize/{folder}", set(frame.kernel_source))
