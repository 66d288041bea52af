"""Readers of the measured families beyond dense layers: experts, latent and encoder attention, scans."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import kernel_choices as choose
from kernel_families import MS, US, Table, dense, shaped, version

LAYER = ["hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"]
STATE = ["num_k_heads", "num_v_heads", "head_k_dim", "head_v_dim"]


def moe(root: Path, system: str) -> Iterator[Table]:
    """Expert tables [layer, load, tokens]; key (format, engine, variant)."""
    for (name, engine), folders in choose.MOE.items():
        if name == system:
            frames = [_moe_frame(root, system, folder, only) for folder, only in folders]
            frame = pd.concat([f for f in frames if f is not None], ignore_index=True)
            yield from _moe_tables(frame, engine)


def _moe_frame(root: Path, system: str, folder: str, only: tuple[str, ...] | None) -> pd.DataFrame | None:
    """One release's rows, of another system where the folder names one before a colon; None where it was not timed."""
    *other, release = folder.split(":")
    file = root / (other or [system])[0] / "moe" / release / "moe_perf.parquet"
    if not file.exists():
        return None
    frame = pd.read_parquet(file)
    frame = frame[frame.moe_dtype.isin(only or choose.MOE_NAMES)]
    return frame.assign(file="/".join([*other, "moe", release]))


def _moe_tables(frame: pd.DataFrame, engine: str) -> Iterator[Table]:
    frame = frame[frame.distribution.isin(choose.LOADS) & ~frame.kernel_source.isin(choose.MOE_LEFT_OUT)]
    bare = frame.kernel_source.str.contains("nongated") | (frame.topk == choose.NONGATED_TOP_K)
    frame = frame.assign(
        load=frame.distribution.map(choose.LOADS),
        gated=(~(bare | (frame.inter_size == choose.NONGATED_INNER))).astype(int),
        variant=[choose.MOE_VARIANTS.get(pair, "") for pair in zip(frame.moe_dtype, frame.kernel_source, strict=True)],
    )
    shape = [*LAYER, "gated"]
    frame = frame.drop_duplicates(["moe_dtype", "variant", *shape, "load", "num_tokens"], keep="first")
    for (dtype, variant), rows in sorted(frame.groupby(["moe_dtype", "variant"]), key=lambda g: (g[0][0], not g[0][1])):
        grid, (layers, load, tokens) = shaped(rows, shape, ["load", "num_tokens"], "latency")
        yield Table((choose.MOE_NAMES[dtype], engine, variant), grid * MS,
                    {"shape": layers, "load": load, "tokens": tokens}, " + ".join(sorted(set(rows.file))),
                    set(rows.kernel_source))  # fmt: skip


def local(root: Path, system: str) -> Iterator[Table]:
    """Experts of a rank that gets its own tokens [layer, load, tokens of all ranks]; key (phase, format, engine)."""
    for engine, (folder, files) in choose.LOCAL.items():
        for phase, name in files.items():
            file = root / system / "moe" / folder / f"{name}.parquet"
            if not file.exists():
                continue
            frame = pd.read_parquet(file)
            frame = frame[frame.distribution.isin(choose.LOCAL_LOADS)]
            if "num_slots" in frame:
                frame = frame[frame.num_slots == frame.num_experts]
            frame = frame.assign(load=frame.distribution.map(choose.LOCAL_LOADS), gated=1)
            for dtype, rows in frame.groupby("moe_dtype"):
                grid, (layers, load, tokens) = shaped(rows, [*LAYER, "gated"], ["load", "num_tokens"], "latency")
                axes = {"shape": layers, "load": load, "tokens": tokens}
                yield Table((phase, choose.MOE_NAMES[dtype], engine), grid * MS, axes, f"moe/{folder}", set(rows.kernel_source))


def newest(folder: Path, name: str) -> Path | None:
    """The newest release of a folder that holds a file."""
    found = sorted(folder.glob(f"*/{name}.parquet"), key=lambda f: version(f.parent.name))
    return found[-1] if found else None


def mla(root: Path, system: str) -> Iterator[Table]:
    """Latent attention [shape, batch, length] without its projections, keyed like attention."""
    for phase, theirs in choose.PHASES.items():
        for engine in choose.MLA:
            file = newest(root / system / "mla" / engine, f"{theirs}_mla_perf")
            if file is None:
                continue
            frame = pd.read_parquet(file)
            prefill = phase == "prefill"
            frame = frame.assign(
                length=frame.isl if prefill else frame.step + 1,
                kv_heads=frame.num_heads if prefill else 1,
                head_dim=choose.EXPANDED_DIM if prefill else choose.LATENT_DIM,
                window=0,
            )
            for kv, stored in (("bf16", "bfloat16"), ("fp8", "fp8")):
                rows = frame[frame.kv_cache_dtype == stored]
                if not rows.empty:
                    yield _plane(rows, (phase, kv, engine, "bf16"), ["num_heads", "kv_heads", "head_dim", "window"], file)


def _plane(rows: pd.DataFrame, key: tuple[str, ...], shape: list[str], file: Path) -> Table:
    grid, (shapes, batch, length) = shaped(rows, shape, ["batch_size", "length"], "latency")
    origin = "/".join(file.parts[-4:-1])
    return Table(key, grid * MS, {"shape": shapes, "batch": batch, "length": length}, origin, set(rows.kernel_source))


def encoder(root: Path, system: str) -> Iterator[Table]:
    """Bidirectional attention [shape, batch, length]."""
    for engine in ("vllm", "sglang", "trtllm"):
        file = newest(root / system / "encoder_attention" / engine, "encoder_attention_perf")
        if file is not None:
            frame = pd.read_parquet(file)
            frame = frame[frame.attn_dtype == "bfloat16"]
            frame = frame.assign(length=frame.isl, kv_heads=frame.num_heads, window=0)
            yield _plane(frame, ("prefill", "bf16", engine, "bf16"), ["num_heads", "kv_heads", "head_dim", "window"], file)


def mla_bmm(root: Path, system: str) -> Iterator[Table]:
    """Absorbed products [heads, tokens]; key (pre or post, format, engine)."""
    for engine in ("vllm", "sglang", "trtllm"):
        file = newest(root / system / "mla_bmm" / engine, "mla_bmm_perf")
        if file is None:
            continue
        frame = pd.read_parquet(file)
        for (op, dtype), rows in frame.groupby(["op_name", "bmm_dtype"]):
            grid, (heads, tokens) = dense(rows, ["num_heads", "num_tokens"], "latency")
            key = (op.removeprefix("mla_gen_"), "bf16" if dtype == "bfloat16" else dtype, engine)
            axes = {"heads": heads, "tokens": tokens}
            yield Table(key, grid * MS, axes, f"mla_bmm/{engine}/{file.parent.name}", set(rows.kernel_source))


def scan(root: Path, system: str) -> Iterator[Table]:
    """Scans [state, batch, length]: convolution + recurrence, where both were timed; key (kind, phase, engine)."""
    for (kind, engine), (folder, name) in choose.SCANS.items():
        file = newest(root / system / folder, name)
        if file is None:
            continue
        frame = pd.read_parquet(file)
        for phase, parts in choose.SCAN_KERNELS.items():
            rows = frame[frame.phase == choose.PHASES[phase]]
            cells = [*STATE, "batch_size", "seq_len"]
            times = [rows[rows.kernel_source.str.startswith(p)].groupby(cells).latency.median() for p in parts]
            both = (times[0] + times[1]).dropna().rename("latency").reset_index()
            if not both.empty:
                grid, (states, batch, length) = shaped(both, STATE, ["batch_size", "seq_len"], "latency")
                yield Table((kind, phase, engine), grid * MS, {"shape": states, "batch": batch, "length": length},
                            f"{folder}/{file.parent.name}", set(parts))  # fmt: skip


def dispatch(root: Path, system: str) -> Iterator[Table]:
    """Expert-parallel dispatch + combine [route, tokens per rank]; key (mode, nodes), 8 ranks a node."""
    for mode, folder, name, nodes in choose.DISPATCH:
        file = root / system / "comm" / folder / f"{name}.parquet"
        if not file.exists():
            continue
        frame = pd.read_parquet(file)
        if mode == "ht":
            frame = frame[(frame.dispatch_sms == choose.DISPATCH_SMS) & (frame.combine_sms == choose.DISPATCH_SMS)]
            parts = ["dispatch_transmit_us", "dispatch_notify_us", "combine_transmit_us", "combine_notify_us"]
        else:
            parts = ["dispatch_avg_t_us", "combine_avg_t_us"]
        frame = frame.assign(seconds=frame[parts].sum(axis=1) * US)
        for count in nodes:
            rows = frame[frame.node_num == count]
            if not rows.empty:
                grid, (routes, tokens) = shaped(rows, ["hidden_size", "num_topk", "num_experts"], ["num_token"], "seconds")
                yield Table((mode, str(count)), grid, {"shape": routes, "tokens": tokens}, f"comm/{folder}", {"deepep"})
