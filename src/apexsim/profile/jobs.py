"""What to measure on an accelerator of one's own: shapes, first sizes, and which sizes to add (floor 5).

Every job is a row of a device folder's CSV without its time.  Along the column that grows (tokens, message) a few
shapes are measured first: where a straight line between two sizes misses the size in the middle by more than the
tolerance, the middle stays and both halves are tried.  All other shapes are then measured on these sizes, so that the
table has no holes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import NamedTuple

from apexsim.cost.device_csv import ALONG, SHEETS

SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384, 28672)  # inputs and outputs of matrix products
HEADS = ((32, 8, 128), (8, 8, 128), (8, 2, 128), (8, 1, 128), (64, 8, 128), (8, 8, 64), (16, 8, 256))  # query, kv, size
LAYERS = (
    (4096, 14336, 2, 8),
    (2048, 768, 8, 128),
    (4096, 1536, 8, 128),
    (7168, 2048, 8, 256),
)  # hidden, inner, k, experts
BATCHES = (1, 4, 16, 64, 256)
PROMPT_TOKENS, CACHED_TOKENS = 65536, 4_194_304  # of one attention job, all sequences together
COARSE = {
    "n": (1, 16, 128, 1024, 8192), "tokens": (1, 16, 256, 4096), "seq_len": (128, 1024, 8192, 32768),
    "size": (4096, 65536, 2**20, 2**24, 2**28),
}  # fmt: skip
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "sendrecv")
WHAT: dict[str, tuple[str, ...]] = {
    "gemm": ("gemm",),
    "attention": ("mha", "decode"),
    "moe": ("moe",),
    "comm": COLLECTIVES,
}
WHAT["all"] = tuple(kind for kinds in WHAT.values() for kind in kinds)
STEPS = 4  # halvings of one coarse interval


class TimedRow(NamedTuple):
    """One row to be timed: the sheet, the format, and the sizes in the order of the sheet's columns, without the time."""

    kind: str
    dtype: str
    sizes: tuple[int, ...]

    def size(self, name: str) -> int:
        """One column."""
        return self.sizes[names(self.kind).index(name)]


def names(kind: str) -> list[str]:
    """Columns of a sheet that make a job."""
    return [name for name in SHEETS[kind] if name != "time"]


@dataclass(frozen=True, slots=True)
class Family:
    """The jobs of one sheet: fixed sizes by name, the pilots among them, and the column that grows."""

    kind: str
    dtype: str
    shapes: tuple[dict[str, int], ...]
    pilots: tuple[int, ...]

    @property
    def along(self) -> str:
        """The column that grows."""
        return ALONG.get(self.kind, "size")

    def job(self, shape: dict[str, int], size: int) -> TimedRow | None:
        """A shape at a size; None where it is beyond what is asked of one kernel."""
        full = {**shape, self.along: size}
        tokens = full.get("batch_size", 0) * full.get("seq_len", 0)
        if tokens > {"mha": PROMPT_TOKENS, "decode": CACHED_TOKENS}.get(self.kind, tokens):
            return None
        return TimedRow(self.kind, self.dtype, tuple(full[name] for name in names(self.kind)))


def families(what: str, dtypes: tuple[str, ...], ranks: int) -> Iterator[Family]:
    """Everything that `what` asks for; collectives of 2, 4, 8 … ranks up to those there are."""
    for kind in WHAT[what]:
        shapes = tuple(_shapes(kind, ranks))
        for dtype in dtypes if kind == "gemm" else ("half",):
            if shapes:
                yield Family(kind, dtype, shapes, tuple(sorted({0, len(shapes) // 2, len(shapes) - 1})))


def _shapes(kind: str, ranks: int) -> Iterator[dict[str, int]]:
    """All columns but the one that grows."""
    if kind == "gemm":
        yield from ({"m": m, "k": k} for m, k in product(SIZES, SIZES))
    elif kind in ("mha", "decode"):
        for (heads, kv, size), batch in product(HEADS, BATCHES):
            yield {"head_size": size, "num_heads": heads, "num_kv_heads": kv, "window": 0, "batch_size": batch}
    elif kind == "moe":
        for hidden, inner, top_k, experts in LAYERS:
            yield {
                "hidden": hidden,
                "inner": inner,
                "top_k": top_k,
                "experts": experts,
                "tp": 1,
                "ep": 1,
                "gated": 1,
                "load": 0,
            }
    else:
        count = 2
        while count <= (min(ranks, 2) if kind == "sendrecv" else ranks):
            yield {"num_nodes": 1, "num_gpus_per_node": count}
            count *= 2


def middle(low: int, high: int) -> int:
    """The size halfway in ratio, whole, and a multiple of 8 where there is room."""
    size = round(math.sqrt(low * high))
    return round(size / 8) * 8 if high - low > 32 else size


def refined(family: Family, time: Callable[[TimedRow], float | None], tolerance: float) -> list[int]:
    """The sizes on which the pilots' curves are straight to within the tolerance; `time` in seconds, None: not possible."""
    keep = set(COARSE[family.along])
    coarse = sorted(keep)
    for shape in (family.shapes[i] for i in family.pilots):
        todo = [(a, b, STEPS) for a, b in pairwise(coarse)]
        while todo:
            low, high, steps = todo.pop()
            at = middle(low, high)
            if not low < at < high or steps == 0:
                continue
            jobs = [family.job(shape, size) for size in (low, at, high)]
            times = [time(job) if job is not None else None for job in jobs]
            if None in times:
                continue
            t0, t, t1 = (float(x) for x in times if x is not None)
            straight = t0 + (t1 - t0) * (at - low) / (high - low)
            if abs(straight - t) > tolerance * t:
                keep.add(at)
                todo += [(low, at, steps - 1), (at, high, steps - 1)]
    return sorted(keep)


def jobs(family: Family, sizes: list[int]) -> list[TimedRow]:
    """Every shape on every size, small sizes first, so that a run cut short has the whole range of shapes."""
    return [job for size in sizes for shape in family.shapes if (job := family.job(shape, size)) is not None]
