"""What measured tables must agree with: physics, themselves, and their siblings.  One law each, for every table.

Microbenchmarks are spoiled in ways of their own: weights that stayed in the last-level cache, a host that hiccuped, an untuned
kernel, one badly wired machine.  `check` takes the tables of all systems and gives back what may be shipped:

    bound     a time shorter than its bytes take from memory, of operands that fit the cache -> what they take out of the cache
    refuse    a cell that physics forbids though no cache explains it; a cell that breaks the order of its row and column;
              experts far slower than their siblings; ranks of a badly wired host -> a hole, or a sibling's curve
    lower     a time longer than on the lesser GPU of the family -> that of the lesser GPU

What was done is told per table, and `page` writes it into docs/kernels.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from apexsim.cost.roofline import KERNELS, Peaks
from apexsim.cost.shapes import ATTENTION, KV_BYTES, ExpertLayer, Heads, RecurrentState, bmm_work, expert_least, gemm_work, scan_work
from kernel_families import Table

Array = np.ndarray
Key = tuple[str, str, tuple[str, ...]]  # system, family, key of the table

CACHE = 256e6  # [byte] twice the largest last-level cache of the systems (RTX PRO 6000: 128 MB): operands beyond it are read from memory
STREAM = 0.9  # of the bandwidth reached by operands larger than that, where too few were timed
ENOUGH, TOP = 10, 0.99  # of such cells that must be there, quantile of their utilisation that is taken as reached
EXACT = 1.005  # of rounding
FALSE = 0.1  # share of an expert curve that beats the peaks from which none of it is believed
JUMP = 1.4  # how many times less a larger piece of work may take: kernels change tiles and splits, and some switches are not the best
SLOWER = 1.1  # how many times longer a better GPU of a family may take: the spread of repeated measurements
SIBLING, SIXTEEN = 2.0, 1.25  # how many times longer experts may take than the best sibling, and than 16 bit at few tokens
FEW = 64  # tokens up to which reading weights is what takes the time
UNLIKE = ("w4a16",)  # formats of which each variant is a kernel of its own right: only equal variants are siblings
SPOILED = 0.5  # share of the comparable curves of a table from which all of it is refused
WIRED = 0.4  # of the bus bandwidth that other numbers of ranks reach on the same host
# The lesser GPU of the same family: the same kernels on no more bandwidth, and no more FLOP.
LESSER = {"h200_sxm": "h100_sxm", "b300_sxm": "b200_sxm", "gb300": "gb200"}
LESSER_EXPERTS = {**LESSER, "b200_sxm": "h200_sxm"}
UPWARD = {
    "attention": (1, 2), "mla": (1, 2), "encoder": (1, 2), "moe": (2,), "local": (2,), "mla_bmm": (0, 1), "scan": (1, 2), "dispatch": (1,),
}  # fmt: skip


@dataclass
class Told:
    """What was done to the tables: (what, why) -> cells, per table, and the cells that each table has."""

    done: dict[Key, Counter[tuple[str, str]]] = field(default_factory=dict)

    def add(self, key: Key, what: str, why: str, cells: int) -> None:
        """Count cells of one table."""
        if cells:
            self.done.setdefault(key, Counter())[what, why] += int(cells)


Tables = dict[str, dict[str, list[Table]]]  # system -> family -> tables


def check(tables: Tables, peaks: dict[str, Peaks]) -> tuple[Tables, Told]:
    """The tables that may be shipped, and what was done to them."""
    told = Told()
    for step in (_physics, _order, _siblings, _lesser, _hosts):
        tables = step(tables, peaks, told)
    return tables, told


def _each(tables: Tables, change: Callable[[str, str, Table], Table | None]) -> Tables:
    """`change` of every table; None leaves it out."""
    return {
        system: {family: [new for table in rows if (new := change(system, family, table)) is not None] for family, rows in families.items()}
        for system, families in tables.items()
    }


# ── physics ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _physics(tables: Tables, peaks: dict[str, Peaks], told: Told) -> Tables:
    def change(system: str, family: str, table: Table) -> Table:
        demand = DEMAND.get(family)
        if demand is None:
            return table
        found = _possible(table, *demand(table, peaks[system]), peaks[system], (system, family, table.key), told)
        return found if family != "moe" else _without_false(found, table, (system, family, table.key), told)

    return _each(tables, change)


def _gemm(table: Table, peaks: Peaks) -> tuple[Array, Array]:
    m, n, k = (table.axes[a].astype(float) for a in "mnk")
    kernel = KERNELS[table.key[0]]
    flop, nbytes = gemm_work(m[:, None, None], n[None, :, None], k[None, None, :], kernel)
    return flop / peaks.rate(kernel.compute), nbytes


def _attention(family: str) -> Callable[[Table, Peaks], tuple[Array, Array]]:
    """Of a prompt the FLOP only: what it reads was written to the cache by the products in front."""

    def demand(table: Table, peaks: Peaks) -> tuple[Array, Array]:
        phase, kv = table.key[:2]
        batch, length = (table.axes[a].astype(float) for a in ("batch", "length"))
        rows = [
            ATTENTION[family, phase](batch[:, None], length[None, :], Heads(*(int(x) for x in row)), KV_BYTES[kv])
            for row in table.axes["shape"]
        ]
        flop, nbytes = np.stack([f for f, _ in rows]), np.stack([b for _, b in rows])
        return flop / peaks.rate("fp8" if kv == "fp8" else "bf16"), nbytes if phase == "decode" else np.zeros_like(nbytes)

    return demand


def _moe(table: Table, peaks: Peaks) -> tuple[Array, Array]:
    tokens, kernel = table.axes["tokens"].astype(float), KERNELS[table.key[0]]
    layers = [ExpertLayer._make([*row[:6], bool(row[6])]) for row in table.axes["shape"].tolist()]
    found = [[expert_least(tokens, layer, kernel, load) for load in table.axes["load"].tolist()] for layer in layers]
    flop, nbytes = (np.array([[cell[i] for cell in row] for row in found]) for i in (0, 1))
    return flop / peaks.rate(kernel.compute), nbytes


def _bmm(table: Table, peaks: Peaks) -> tuple[Array, Array]:
    heads, tokens = (table.axes[a].astype(float) for a in ("heads", "tokens"))
    compute = "fp8" if table.key[1] == "fp8" else "bf16"
    flop, nbytes = bmm_work(tokens[None, :], heads[:, None], 1.0 if compute == "fp8" else 2.0)
    return flop / peaks.rate(compute), nbytes


def _scan(table: Table, peaks: Peaks) -> tuple[Array, Array]:
    """Of a decode the states read and written; of a prompt nothing, which tells no cached state from another."""
    del peaks
    batch, length = (table.axes[a].astype(float) for a in ("batch", "length"))
    states = [RecurrentState(*(int(x) for x in row)) for row in table.axes["shape"]]
    phase = table.key[1]
    nbytes = np.stack([scan_work(phase, batch[:, None], length[None, :], state)[1] for state in states])
    return np.zeros_like(nbytes), nbytes if phase == "decode" else np.zeros_like(nbytes)


DEMAND: dict[str, Callable[[Table, Peaks], tuple[Array, Array]]] = {
    "gemm": _gemm, "attention": _attention("attention"), "mla": _attention("mla"), "encoder": _attention("encoder"), "moe": _moe,
    "mla_bmm": _bmm, "scan": _scan,
}  # fmt: skip


def _possible(table: Table, compute: Array, nbytes: Array, peaks: Peaks, key: Key, told: Told) -> Table:
    """Times no shorter than FLOP and bytes take.

    compute: seconds of the FLOP.  Where a table has cells beneath the time of their bytes that fit the cache, it was timed from there:
    then every such cell takes at least launch + bytes / reached bandwidth, the latter that of its operands which no cache holds.
    """
    seconds, memory, large = table.seconds, nbytes / peaks.bandwidth, nbytes > CACHE
    with np.errstate(invalid="ignore"):
        wrong = (seconds * EXACT < compute) | (large & (seconds * EXACT < memory))
        cached = ~large & (seconds * EXACT < memory)
        bound_by_bytes = large & ~wrong & (memory > compute) & ~np.isnan(seconds)
    told.add(key, "refused", "faster than the peaks, though no cache holds what is read", wrong.sum())
    seconds = np.where(wrong, np.nan, seconds)
    if not cached.any():
        return replace(table, seconds=seconds)
    used = (memory / seconds)[bound_by_bytes]
    reached = float(np.quantile(used, TOP)) if len(used) >= ENOUGH else STREAM
    launch = 0.9 * float(np.nanmin(seconds))
    least = np.maximum(compute, np.where(large, 0.0, launch + memory / reached))
    with np.errstate(invalid="ignore"):
        short = (memory > compute) & (seconds < least) & ~large
    told.add(key, "bound", "timed with its operands in the last-level cache", short.sum())
    return replace(table, seconds=np.where(short, least, seconds))


def _without_false(found: Table, table: Table, key: Key, told: Told) -> Table:
    """Expert layers without the curves of which more than FALSE was refused, and without the layers that have none left."""
    known, left = (~np.isnan(t.seconds) for t in (table, found))
    curves = (known & ~left).sum(axis=-1) > FALSE * known.sum(axis=-1)
    told.add(key, "refused", f"the rest of curves of which over {FALSE:.0%} beats the peaks", (left & curves[..., None]).sum())
    seconds = np.where(curves[..., None], np.nan, found.seconds)
    keep = ~np.isnan(seconds).all(axis=(1, 2))
    return replace(found, seconds=seconds[keep], axes={**found.axes, "shape": found.axes["shape"][keep]})


# ── order ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _order(tables: Tables, peaks: dict[str, Peaks], told: Told) -> Tables:
    del peaks

    def change(system: str, family: str, table: Table) -> Table:
        if family not in UPWARD:
            return table
        spoiled = out_of_order(table.seconds, UPWARD[family])
        told.add((system, family, table.key), "refused", f"out of the order of its row or column (more than {JUMP} times)", spoiled.sum())
        return replace(table, seconds=np.where(spoiled, np.nan, table.seconds))

    return _each(tables, change)


def out_of_order(seconds: Array, axes: tuple[int, ...], jump: float = JUMP) -> Array:
    """The fewest cells (found greedily) without which no cell takes more than `jump` times what a larger one of its line takes.

    Cells in conflict are counted along every axis; the one with the most goes, be it too slow or too fast, until none is left; of two
    that only accuse each other the slower one, since jitter adds.  So one spoiled cell takes no sound one with it, on either side.
    """
    left, gone = seconds.copy(), np.zeros(seconds.shape, bool)
    while True:
        accused = sum(_conflicts(left, axis, jump) for axis in axes)
        assert isinstance(accused, np.ndarray)
        if not accused.any():
            return gone
        # the worst of every plane (the axes that are not ordered are independent of each other)
        rank = accused + np.where(accused > 0, _slowness(left, axes), 0.0)
        worst = (accused > 0) & (rank >= rank.max(axis=axes, keepdims=True))
        gone |= worst
        left[worst] = np.nan


def _slowness(seconds: Array, axes: tuple[int, ...]) -> Array:
    """Between 0 and 1, larger for slower cells of a plane."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(seconds / (2.0 * np.nanmax(np.where(np.isnan(seconds), 0.0, seconds), axis=axes, keepdims=True)))


def _conflicts(seconds: Array, axis: int, jump: float) -> Array:
    """How many cells of its line along an axis each cell contradicts."""
    line = np.moveaxis(seconds, axis, -1)
    size, count = line.shape[-1], np.zeros(line.shape, int)
    for step in range(1, size):
        bad = line[..., :-step] > jump * line[..., step:]
        count[..., :-step] += bad
        count[..., step:] += bad
    return np.moveaxis(count, -1, axis)


# ── experts and their siblings ──────────────────────────────────────────────────────────────────────────────────────


def _siblings(tables: Tables, peaks: dict[str, Peaks], told: Told) -> Tables:
    """Experts compared with other engines, with 16 bit and with the lesser GPU; a spoiled curve becomes the best sibling's."""
    del peaks
    frame = _curves(tables)
    judged = _judged(frame)
    spoiled = judged[judged.why != ""]
    comparable = judged.groupby("table").size()
    share = spoiled.groupby("table").size() / comparable
    share = _inherited({k: float(v) for k, v in share.items()})
    whole = {k for k, v in share.items() if v > SPOILED}
    bad = {(r.table, r.row, r.load): r.why for r in spoiled.itertuples()}
    sound = {
        system: [_holed(t, bad, system) for t in rows["moe"] if _name(system, t) not in whole]
        for system, rows in tables.items()
        if "moe" in rows
    }

    def change(system: str, family: str, table: Table) -> Table | None:
        if family != "moe":
            return table
        key = (system, family, table.key)
        name = _name(system, table)
        known = int((~np.isnan(table.seconds)).sum())
        if name in whole:
            reasons = Counter(why for (t, _, _), why in bad.items() if t == name)
            most = reasons.most_common(1)[0][0] if reasons else "refused on the lesser GPU"
            told.add(key, "refused whole", f"{share[name]:.0%} of its comparable layers are {most}", known)
            return None
        return _mended(table, [(row, load, why) for (t, row, load), why in bad.items() if t == name], sound[system], key, told)

    return _each(tables, change)


def _inherited(share: dict[str, float]) -> dict[str, float]:
    """With what is refused on the lesser GPU of a family refused on the better one: it is the same kernel."""
    for better, lesser in LESSER.items():
        for name, value in list(share.items()):
            if value > SPOILED and name.startswith(f"{lesser}/"):
                mine = name.replace(lesser, better, 1)
                share[mine] = max(value, share.get(mine, 0.0))
    return share


def _holed(table: Table, bad: dict[tuple[str, int, int], str], system: str) -> Table:
    """A table without its spoiled curves."""
    seconds = table.seconds.copy()
    for name, row, load in bad:
        if name == _name(system, table):
            seconds[row, load] = np.nan
    return replace(table, seconds=seconds)


def _name(system: str, table: Table) -> str:
    return "/".join((system, *table.key))


def _curves(tables: Tables) -> pd.DataFrame:
    """All expert times: table, format, layer, load, tokens, seconds."""
    frames = []
    for system, families in tables.items():
        for table in families.get("moe", []):
            row, load, at = np.nonzero(~np.isnan(table.seconds))
            shapes = pd.Series([tuple(s) for s in table.axes["shape"].tolist()])
            frames.append(pd.DataFrame({
                "system": system, "format": table.key[0], "engine": table.key[1], "variant": table.key[2], "table": _name(system, table),
                "row": row, "layer": shapes.iloc[row].to_numpy(), "load": load, "skew": np.asarray(table.axes["load"])[load],
                "tokens": np.asarray(table.axes["tokens"])[at], "seconds": table.seconds[row, load, at],
            }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


CELL = ["layer", "skew", "tokens"]


def _judged(frame: pd.DataFrame) -> pd.DataFrame:
    """Every curve that can be compared, and why it is spoiled ("" where it is not)."""
    frame = frame.assign(code=pd.factorize(frame.layer)[0]).rename(columns={"layer": "shape", "code": "layer"})
    kind = [frame.system, frame.format, frame.variant.where(frame.format.isin(UNLIKE), ""), *(frame[c] for c in CELL)]
    cells = frame.seconds.groupby(kind)
    first, count = cells.transform("min"), cells.transform("size")
    second = frame.seconds.where(frame.seconds > first).groupby(kind).transform("min")
    frame["sibling"] = np.where(count > 1, frame.seconds / np.where(frame.seconds > first, first, second), np.nan)
    frame["sixteen"] = _against(frame, frame[frame.format == "bf16"], ["system", "engine", *CELL])
    frame.loc[(frame.format == "bf16") | (frame.tokens > FEW), "sixteen"] = np.nan
    below = frame.assign(system=frame.system.map({v: k for k, v in LESSER_EXPERTS.items()}))
    frame["below"] = _against(frame, below.dropna(subset=["system"]), ["system", "format", "engine", *CELL])
    logs = np.log(frame[["sibling", "sixteen", "below"]])
    curve = ["table", "row", "load"]
    means = np.exp(logs.groupby([frame[c] for c in curve]).mean())
    first_of = frame.groupby(curve)[["system", "format", "engine", "variant", "layer", "skew"]].first()
    found = means.join(first_of).dropna(subset=["sibling", "sixteen", "below"], how="all").reset_index()
    found["why"] = np.select(
        [found.sibling > SIBLING, found.sixteen > SIXTEEN, found.below > SIXTEEN],
        [f"over {SIBLING:g} times as slow as the best sibling", f"over {SIXTEEN:g} times as slow as 16 bit",
         f"over {SIXTEEN:g} times as slow as on the lesser GPU"], "",
    )  # fmt: skip
    # two kernels of one engine, of which the first is the default: the other is slower by right
    twice = found.groupby(["system", "format", "engine"]).variant.transform("nunique") > 1
    found.loc[twice & (found.variant == ""), "why"] = ""
    return found


def _against(frame: pd.DataFrame, others: pd.DataFrame, on: list[str]) -> Array:
    """Each time over the least of the others at the same key."""
    least = others.groupby(on).seconds.min().rename("least")
    return (frame.seconds / frame.join(least, on=on).least).to_numpy()


def _mended(table: Table, bad: list[tuple[int, int, str]], sound: list[Table], key: Key, told: Told) -> Table:
    """A table whose spoiled curves are a sibling's; where no other engine timed one, the caps of lookup and of the lesser GPU bound it."""
    seconds = table.seconds.copy()
    for row, load, why in bad:
        known = int((~np.isnan(seconds[row, load])).sum())
        other = _sibling_curve(sound, table, row, load)
        if other is not None:
            seconds[row, load] = other
            told.add(key, "replaced by a sibling's", why, known)
    return replace(table, seconds=seconds)


def _sibling_curve(rows: list[Table], table: Table, row: int, load: int) -> Array | None:
    """The fastest other curve of the same format, layer, load and tokens."""
    layer, skew, found = table.axes["shape"][row], table.axes["load"][load], []
    for other in rows:
        unlike = other.key[0] != table.key[0] or (table.key[0] in UNLIKE and other.key[2] != table.key[2])
        if other.key == table.key or unlike or not np.array_equal(other.axes["tokens"], table.axes["tokens"]):
            continue
        at = np.flatnonzero((other.axes["shape"] == layer).all(axis=1))
        on = np.flatnonzero(np.asarray(other.axes["load"]) == skew)
        if len(at) and len(on) and not np.isnan(curve := other.seconds[at[0], on[0]]).all():
            found.append(curve)
    return min(found, key=lambda c: float(np.nanmean(np.log(c)))) if found else None


# ── a better GPU of a family ────────────────────────────────────────────────────────────────────────────────────────


def _lesser(tables: Tables, peaks: dict[str, Peaks], told: Told) -> Tables:
    """No time longer than on the lesser GPU: what runs there in t runs here in t."""
    del peaks

    def change(system: str, family: str, table: Table) -> Table:
        below = (LESSER_EXPERTS if family == "moe" else LESSER).get(system)
        other = next((t for t in tables.get(below or "", {}).get(family, []) if t.key == table.key), None)
        if other is None:
            return table
        least = _aligned(other, table)
        with np.errstate(invalid="ignore"):
            slow = table.seconds > SLOWER * least
        told.add((system, family, table.key), "lowered", f"slower than on {below}", slow.sum())
        return replace(table, seconds=np.where(slow, least, table.seconds))

    # the lesser of a lesser first, so that what is lowered there counts here
    for system in ("h200_sxm", "b200_sxm", "b300_sxm", "gb300"):
        if system in tables:
            tables = {**tables, system: _each({system: tables[system]}, change)[system]}
    return tables


def _aligned(other: Table, table: Table) -> Array:
    """Another table's times at the cells of a table, NaN where it has none."""
    index, known = [], []
    for name, axis in table.axes.items():
        mine, theirs = (np.asarray(a).reshape(len(a), -1).tolist() for a in (axis, other.axes[name]))
        where = {tuple(v): i for i, v in enumerate(theirs)}
        at = np.array([where.get(tuple(v), -1) for v in mine])
        index.append(np.maximum(at, 0))
        known.append(at >= 0)
    values = other.seconds[np.ix_(*index)]
    for dim, held in enumerate(known):
        values = np.where(held.reshape([-1 if d == dim else 1 for d in range(values.ndim)]), values, np.nan)
    return values


# ── hosts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _hosts(tables: Tables, peaks: dict[str, Peaks], told: Told) -> Tables:
    """Collectives of one node: a number of ranks whose bus bandwidth is far below that of others says how one host is wired,
    or how one library fares; lookup then asks another engine's curve, else the formula."""
    del peaks

    def change(system: str, family: str, table: Table) -> Table:
        if family != "comm" or table.key[2] not in ("graph", "eager", "1") or len(table.axes["gpus"]) < 2:
            return table
        ranks = np.asarray(table.axes["gpus"], float)
        share = (2.0 if table.key[0] == "all_reduce" else 1.0) * (1.0 - 1.0 / ranks)
        bus = share * np.nanmax(np.asarray(table.axes["bytes"], float) / table.seconds, axis=1)
        poor = bus < WIRED * bus.max()
        many = ", ".join(f"{int(r)} ranks at {b / 1e9:.1f}" for r, b in zip(ranks[poor], bus[poor], strict=True))
        told.add((system, family, table.key), "refused", f"slower than other numbers of ranks allow: {many} of {bus.max() / 1e9:.0f} GB/s",
                 (~np.isnan(table.seconds[poor])).sum())  # fmt: skip
        return replace(table, seconds=np.where(poor[:, None], np.nan, table.seconds))

    return _each(tables, change)


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────────────────

MARKS = ("<!-- refused: begin -->", "<!-- refused: end -->")


def page(told: Told, sizes: dict[Key, int]) -> Iterator[str]:
    """Markdown lines: one row per family and reason, the tables with the share of their cells."""
    yield "| family | what | why | tables (cells) |"
    yield "|---|---|---|---|"
    rows: dict[tuple[str, str, str], list[str]] = {}
    for (system, family, key), counts in sorted(told.done.items()):
        for (what, why), cells in sorted(counts.items()):
            share = cells / sizes[system, family, key]
            if share >= 0.0005:
                name = " ".join(part for part in key if part)
                rows.setdefault((family, what, why), []).append(f"{system} {name} {cells:,} ({share:.1%})")
    for (family, what, why), names in sorted(rows.items()):
        yield f"| {family} | {what} | {why} | {'; '.join(names)} |"


def write_page(path: Path, lines: Iterator[str]) -> None:
    """Replace the text between the marks."""
    text = path.read_text(encoding="utf-8")
    head, rest = text.split(MARKS[0])
    path.write_text(head + MARKS[0] + "\n\n" + "\n".join(lines) + "\n\n" + MARKS[1] + rest.split(MARKS[1])[1], encoding="utf-8")
