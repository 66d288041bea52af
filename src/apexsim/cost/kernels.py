"""Reader of the measured operator tables in the package (floor 3).

`data/kernels/manifest.json` lists, per system and family, which tables exist, their axes and their origin; the numbers
lie in one npz per family and are read table by table when first asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.cost.roofline import Array, Peaks
from apexsim.errors import InputError, nearest

FORMAT = 1
ROOT = Path(__file__).parents[1] / "data" / "kernels"


@dataclass(frozen=True)
class Table:
    """Measured seconds on a grid (NaN = not measured), the sizes along each axis, and the origin."""

    key: tuple[str, ...]
    seconds: Array
    axes: Mapping[str, NDArray[Any]]
    origin: str
    note: str


class Tables:
    """All tables of one measured system; each is read once, when first asked for."""

    def __init__(self, system: str, root: Path = ROOT) -> None:
        entries = manifest(root)["systems"]
        if system not in entries:
            raise InputError(f"no kernel tables for system '{system}'", str(root), nearest(system, entries))
        self.system, self.root, self.entry = system, root, entries[system]
        self._read: dict[tuple[str, tuple[str, ...]], Table] = {}

    @cached_property
    def peaks(self) -> Peaks:
        """The peaks that the measurements are compared with."""
        return Peaks(self.entry["flops"], self.entry["bandwidth"], self.entry["link"])

    @cached_property
    def index(self) -> dict[str, dict[tuple[str, ...], dict[str, Any]]]:
        """family -> key -> manifest row."""
        return {family: {tuple(row["key"]): row for row in rows} for family, rows in self.entry["families"].items()}

    def keys(self, family: str) -> tuple[tuple[str, ...], ...]:
        """Keys of a family's tables, () when the system has none."""
        return tuple(self.index.get(family, ()))

    def table(self, family: str, key: tuple[str, ...]) -> Table:
        """One table, checked against the manifest."""
        found = self._read.get((family, key))
        if found is None:
            found = self._read[family, key] = self._open(family, self.index[family][key])
        return found

    def _open(self, family: str, row: Mapping[str, Any]) -> Table:
        path = self.root / self.system / f"{family}.npz"
        try:
            with np.load(path) as data:
                seconds = data[row["array"]].astype(float)
                axes = {name: data[f"{row['array']}.{name}"] for name in row["axes"]}
        except (OSError, KeyError, ValueError) as fault:
            raise InputError(f"cannot read the kernel table {row['key']}: {fault}", str(path), REBUILD) from None
        _check(seconds, axes, row, path)
        return Table(tuple(row["key"]), seconds, axes, row["file"], row["note"])


REBUILD = "reinstall the package, or rebuild its tables with scripts/build_kernels.py"


def manifest(root: Path = ROOT) -> dict[str, Any]:
    """The parsed manifest; read once per folder."""
    if root not in _MANIFESTS:
        path = root / "manifest.json"
        try:
            doc = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as fault:
            raise InputError(f"cannot read the manifest of the kernel tables: {fault}", str(path), REBUILD) from None
        if not isinstance(doc, dict) or doc.get("format") != FORMAT or "systems" not in doc:
            raise InputError(f"expected a kernel manifest of format {FORMAT}", str(path), REBUILD)
        _MANIFESTS[root] = doc
    return _MANIFESTS[root]


_MANIFESTS: dict[Path, dict[str, Any]] = {}


def systems(root: Path = ROOT) -> tuple[str, ...]:
    """Names of the measured systems."""
    return tuple(manifest(root)["systems"])


def _check(seconds: Array, axes: Mapping[str, NDArray[Any]], row: Mapping[str, Any], path: Path) -> None:
    """Shapes, number of holes and signs are what the manifest says."""
    where = f"{path} {row['key']}"
    sizes = [len(a) for a in axes.values()]
    if list(seconds.shape) != list(row["shape"]) or sizes != list(row["shape"]):
        raise InputError(f"kernel table of shape {seconds.shape}, expected {tuple(row['shape'])}", where, REBUILD)
    holes = int(np.isnan(seconds).sum())
    if holes != row["holes"]:
        raise InputError(f"kernel table holds {holes} NaN, expected {row['holes']}", where, REBUILD)
    if not (seconds[~np.isnan(seconds)] > 0).all():
        raise InputError("kernel table holds a time that is not positive", where, REBUILD)
