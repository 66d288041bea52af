"""How well the cost bank predicts times it has not seen: leave-one-out and transfer errors, as Markdown.

    python scripts/kernel_errors.py [--write docs/kernels.md] [--systems h100_sxm …]

Leave one out: a whole plane of a measured grid (one n, one k, one m of a GEMM; one length or batch of attention; one
size of a collective) is taken away and predicted from the rest.  Transfer: a GPU's table is predicted from its
relative's, with both peaks.  Errors are |predicted / measured - 1|.  `--write` replaces the text between the markers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from apexsim.cost import attention, collectives, experts, gemm
from apexsim.cost.attention import causal
from apexsim.cost.bank import ENGINES, Bank
from apexsim.cost.kernels import Table, Tables, systems
from apexsim.cost.shapes import Heads
from apexsim.cost.surface import SAME, Match, Surface

MARKS = ("<!-- errors: begin -->", "<!-- errors: end -->")
PAIRS = (("h100_sxm", "h200_sxm"), ("b200_sxm", "b300_sxm"), ("h200_sxm", "b200_sxm"), ("h100_sxm", "l40s"),
         ("a100_sxm", "h100_sxm"))  # fmt: skip
Errors = dict[str, list[np.ndarray]]


def without(table: Table, name: str, index: int) -> Table:
    """A table less one plane."""
    dim = list(table.axes).index(name)
    axes = {**table.axes, name: np.delete(table.axes[name], index, axis=0)}
    return replace(table, seconds=np.delete(table.seconds, index, axis=dim), axes=axes)


def relative(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Absolute relative errors where there is a measurement."""
    known = ~np.isnan(measured)
    return np.abs(predicted[known] / measured[known] - 1)


def gemm_planes(table: Table, surface: Callable[[Table], Surface]) -> Errors:
    """Drop every n, k and (every second) m inside the grid."""
    m, n, k = (table.axes[a] for a in "mnk")
    out: Errors = {"n, k (m <= 64)": [], "n, k (m >= 1024)": [], "m": []}
    for i in range(1, len(n) - 1):
        rest = surface(without(table, "n", i))
        seen = np.stack([rest.price(SAME, None, m, int(n[i]), int(x)).seconds for x in k], axis=1)
        out["n, k (m <= 64)"].append(relative(seen[m <= 64], table.seconds[m <= 64, i]))
        out["n, k (m >= 1024)"].append(relative(seen[m >= 1024], table.seconds[m >= 1024, i]))
    for i in range(1, len(k) - 1):
        rest = surface(without(table, "k", i))
        seen = np.stack([rest.price(SAME, None, m, int(x), int(k[i])).seconds for x in n], axis=1)
        out["n, k (m <= 64)"].append(relative(seen[m <= 64], table.seconds[m <= 64, :, i]))
        out["n, k (m >= 1024)"].append(relative(seen[m >= 1024], table.seconds[m >= 1024, :, i]))
    for i in range(1, len(m) - 1, 2):
        rest = surface(without(table, "m", i))
        a, b = np.arange(2, len(n), 5), np.arange(2, len(k), 5)
        seen = np.array([[float(rest.price(SAME, None, [m[i]], int(n[x]), int(k[y])).seconds[0]) for y in b] for x in a])
        out["m"].append(relative(seen, table.seconds[i][np.ix_(a, b)]))
    return out


def attention_planes(table: Table, surface: Callable[[Table], Surface], phase: str, step: int = 6) -> Errors:
    """Drop every length and batch inside the grid, on every sixth shape; then every sixth shape itself."""
    out: Errors = {"length": [], "batch": [], "heads": []}
    rows = range(0, len(table.axes["shape"]), step)
    for name, dim in (("length", 1), ("batch", 0)):
        for i in range(1, len(table.axes[name]) - 1):
            rest = surface(without(table, name, i))
            for row in rows:
                shape = Heads(*(int(x) for x in table.axes["shape"][row]))
                other = table.axes["batch" if name == "length" else "length"].astype(float)
                here = float(table.axes[name][i])
                b, s = (other, here) if name == "length" else (here, other)
                seen = rest.price(Match((row,)), shape, b, s).seconds
                out[name].append(relative(seen, np.take(table.seconds[row], i, axis=dim)))
    for row in rows:
        rest = surface(without(table, "shape", row))
        shape = Heads(*(int(x) for x in table.axes["shape"][row]))
        match = attention.match_of(rest, shape, phase)
        if match is not None:
            grid = np.meshgrid(table.axes["batch"].astype(float), table.axes["length"].astype(float), indexing="ij")
            out["heads"].append(relative(rest.price(match, shape, *grid).seconds, table.seconds[row]))
    return out


def comm_points(table: Table, surface: Callable[[Table], Surface]) -> Errors:
    """Drop every size inside a curve."""
    out: Errors = {"size": []}
    for i in range(1, len(table.axes["bytes"]) - 1):
        rest = surface(without(table, "bytes", i))
        for row, gpus in enumerate(table.axes["gpus"]):
            seen = collectives.timed(rest, table.key[0], table.axes["bytes"][i : i + 1], int(gpus)).seconds
            out["size"].append(relative(seen, table.seconds[row, i : i + 1]))
    return out


def expert_points(table: Table, surface: Callable[[Table], Surface]) -> Errors:
    """Drop every number of tokens on every tenth layer; then every tenth layer itself."""
    out: Errors = {"tokens": [], "layer": []}
    loads = table.axes["load"].tolist()
    rows = range(0, len(table.axes["shape"]), 10)
    tokens = table.axes["tokens"].astype(float)
    whole = surface(table)
    for i in range(1, len(tokens) - 1):
        rest = surface(without(table, "tokens", i))
        for row in rows:
            for j, load in enumerate(loads):
                if not np.isnan(np.delete(table.seconds[row, j], i)).all():
                    seen = rest.price(experts.under(rest, Match((row,)), load), whole.shapes[row], tokens[i : i + 1]).seconds
                    out["tokens"].append(relative(seen, table.seconds[row, j, i : i + 1]))
    for row in rows if len(table.axes["shape"]) > 1 else ():
        rest = surface(without(table, "shape", row))
        layer = whole.shapes[row]
        for j, load in enumerate(loads):
            seen = rest.price(experts.under(rest, experts.match_of(rest, layer), load), layer, tokens).seconds
            out["layer"].append(relative(seen, table.seconds[row, j]))
    return out


def left_out(system: str) -> Iterator[tuple[str, str, str, str, np.ndarray]]:
    """(system, family, table, what was dropped, errors)."""
    tables = Tables(system)
    peaks = tables.peaks
    for key in tables.keys("gemm"):
        table = tables.table("gemm", key)
        for what, found in gemm_planes(table, lambda t: gemm.surface_of(t, peaks)).items():
            yield system, "gemm", " ".join(key), what, np.concatenate(found)
    for key in tables.keys("attention"):
        table = tables.table("attention", key)
        for what, found in attention_planes(table, lambda t: attention.surface_of(t, peaks), key[0]).items():
            yield system, "attention", " ".join(key[:3]), what, np.concatenate(found)
    for key in tables.keys("mla"):
        table = tables.table("mla", key)
        for what, found in attention_planes(table, lambda t: attention.surface_of(t, peaks, "mla"), key[0], step=1).items():
            yield system, "mla", " ".join(key[:3]), what, np.concatenate(found)
    for key in tables.keys("moe"):
        for what, found in expert_points(tables.table("moe", key), lambda t: experts.surface_of(t, peaks)).items():
            if found:
                yield system, "moe", " ".join(key).strip(), what, np.concatenate(found)
    pooled: dict[str, list[np.ndarray]] = {}
    for key in tables.keys("comm"):
        found = comm_points(tables.table("comm", key), collectives.surface_of)["size"]
        pooled.setdefault(f"{key[0]} {'nccl' if key[1] == 'nccl' else 'custom'}", []).extend(found)
    for name, errors in pooled.items():
        yield system, "comm", name, "size", np.concatenate(errors)


def borrower(here: str, there: str) -> Bank:
    """A bank for `there` that may only use the tables of `here`."""
    peaks = Tables(there).peaks
    gpu = SimpleNamespace(name=f"{there} from {here}", flops=peaks.flops, memory_bandwidth=peaks.bandwidth, kernels="",
                          borrow=here)  # fmt: skip
    return Bank(gpu)


def transferred(here: str, there: str) -> Iterator[tuple[str, str, str, str, np.ndarray]]:
    """Errors of one GPU's GEMM and attention tables predicted from another's."""
    bank, target = borrower(here, there), Tables(there)
    for key in target.keys("gemm"):
        table = target.table("gemm", key)
        if key[1] == "sglang" or not bank.peaks.flops.get({"bf16": "bf16", "nvfp4": "fp4"}.get(key[0], "fp8")):
            continue
        m = table.axes["m"]
        seen = np.stack([np.stack([gemm.price(bank, m, int(n), int(k), key[0]).seconds for k in table.axes["k"]], axis=-1)
                         for n in table.axes["n"]], axis=1)  # fmt: skip
        for what, rows in (("m <= 64", m <= 64), ("m >= 1024", m >= 1024)):
            yield f"{here} -> {there}", "gemm", key[0], what, relative(seen[rows], table.seconds[rows])
    for key in target.keys("attention"):
        table = target.table("attention", key)
        if key[2] != "vllm":
            continue
        grid = np.meshgrid(table.axes["batch"].astype(float), table.axes["length"].astype(float), indexing="ij")
        found = [relative(attention.price(bank, causal(key[0], *map(int, shape), kv_dtype=key[1]), *grid).seconds, table.seconds[row])
                 for row, shape in enumerate(table.axes["shape"]) if row % 6 == 0]  # fmt: skip
        yield f"{here} -> {there}", "attention", " ".join(key[:2]), "all", np.concatenate(found)


def saturation(system: str) -> Iterator[tuple[str, str, str, str, np.ndarray]]:
    """Errors of the smooth prompt cost P(l) against time / batch, where at least 8,192 tokens are in flight."""
    tables = Tables(system)
    for key in tables.keys("attention"):
        if key[0] != "prefill" or key[2] != "vllm":
            continue
        surface = attention.surface_of(tables.table("attention", key), tables.peaks)
        found = []
        for row in range(0, len(surface.shapes), 6):
            cost = attention.in_full_batches(surface, surface.shapes[row], Match((row,)))
            batch, length = np.meshgrid(*surface.sizes, indexing="ij")
            many = (batch * length >= attention.SATURATED) & (batch > 1)
            seen = np.interp(length, attention.DENSE, cost) * batch
            found.append(relative(seen[many], surface.seconds[row][many]))
        yield system, "attention", " ".join(key[:3]), "P(l) against batches", np.concatenate(found)


def report(rows: Iterator[tuple[str, str, str, str, np.ndarray]]) -> list[str]:
    """A Markdown table: one column per system, "median / p90" in percent, engines of one kernel pooled."""
    pooled: dict[tuple[str, str, str], dict[str, list[np.ndarray]]] = {}
    columns: dict[str, None] = {}
    for system, family, name, what, errors in rows:
        table = " ".join(w for w in name.split() if w not in (*ENGINES, "any", "trtllm-gen"))
        pooled.setdefault((family, table, what), {}).setdefault(system, []).append(errors)
        columns[system] = None
    lines = [f"| family | table | left out | {' | '.join(columns)} |", "|---|---|---|" + "---|" * len(columns)]
    for (family, table, what), found in pooled.items():
        cells = [_cell(np.concatenate(found.get(c, [np.empty(0)]))) for c in columns]
        lines.append(f"| {family} | {table} | {what} | {' | '.join(cells)} |")
    return lines


def _cell(errors: np.ndarray) -> str:
    if not errors.size:
        return ""
    low, high = 100 * np.quantile(errors, [0.5, 0.9])
    return f"{low:.1f} / {high:.0f}"


def main() -> None:
    """Print the report, or write it between the markers of a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="*", default=list(systems()))
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    parts = [
        "### Leave one out", "", *report(r for s in args.systems for r in left_out(s)), "",
        "### Prompt cost in a full batch", "", *report(r for s in args.systems for r in saturation(s)), "",
        "### Transfer", "", *report(r for a, b in PAIRS for r in transferred(a, b)),
    ]  # fmt: skip
    text = "\n".join(parts)
    if args.write is None:
        print(text)
        return
    page = args.write.read_text()
    before, after = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
    args.write.write_text(f"{page[:before]}\n\n{text}\n\n{page[after:]}")


if __name__ == "__main__":
    main()
