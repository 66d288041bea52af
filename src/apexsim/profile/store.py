"""The folder that a measurement writes: one CSV per operator, a row at a time, so that it can go on (floor 5).

Sizes that only the pilots tried are moved to `probes/` at the end, since a table with them would have holes everywhere
else; they are known to a later run all the same.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

from apexsim.cost.device_csv import SHEETS, UNITS
from apexsim.errors import InputError
from apexsim.hardware import DEVICE_FILE
from apexsim.profile.jobs import TimedRow, names

UNIT = {"time": "time(us)", "size": "size(b)"}


class Store:
    """Rows that were measured: `seconds[job]`, NaN where a job cannot run (no memory, no kernel); `joules[job]` if known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[TimedRow, float] = {}
        self.joules: dict[TimedRow, float] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder: {error.strerror}", str(folder), "give another --out") from None
        for kind in SHEETS:
            for path in (self._path(kind), self._probes(kind)):
                if path.exists():
                    self._read(kind, path)
        skipped = folder / "skipped.txt"
        if skipped.exists():
            for line in skipped.read_text(encoding="utf-8").splitlines():
                kind, dtype, *sizes = line.split()
                self.seconds[TimedRow(kind, dtype, tuple(int(x) for x in sizes))] = math.nan

    def _path(self, kind: str) -> Path:
        return self.folder / f"{kind}_0.csv"

    def _probes(self, kind: str) -> Path:
        return self.folder / "probes" / f"{kind}_0.csv"

    def _read(self, kind: str, path: Path) -> None:
        """Rows of an earlier run; a last line that was cut off is removed, and measured again."""
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            text = text[: text.rfind("\n") + 1]
            path.write_text(text, encoding="utf-8")
        rows = list(csv.reader(text.splitlines()))
        if not rows:
            path.unlink()
            return
        if rows[0] != _header(kind):
            raise InputError("the file was not written by a measurement", str(path), "give an empty folder as --out")
        try:
            for row in rows[1:]:
                job = TimedRow(kind, row[0], tuple(int(x) for x in row[1:-2]))
                self.seconds[job] = float(row[-2]) * UNITS["time"]["us"]
                if row[-1]:
                    self.joules[job] = float(row[-1]) * 1e-6
        except (ValueError, IndexError):
            raise InputError(f"cannot read the row {','.join(row)}", str(path), "remove it and start again") from None

    def add(self, job: TimedRow, seconds: float, joules: float = math.nan) -> None:
        """Keep one row [s], [J] at once."""
        self.seconds[job] = seconds
        if math.isnan(seconds):
            with (self.folder / "skipped.txt").open("a", encoding="utf-8") as file:
                file.write(" ".join((job.kind, job.dtype, *map(str, job.sizes))) + "\n")
            return
        if not math.isnan(joules):
            self.joules[job] = joules
        path = self._path(job.kind)
        rows = [self._row(job)] if path.exists() else [_header(job.kind), self._row(job)]
        with path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def _row(self, job: TimedRow) -> list[str]:
        energy = f"{self.joules[job] * 1e6:.6g}" if job in self.joules else ""
        return [job.dtype, *map(str, job.sizes), f"{self.seconds[job] * 1e6:.6g}", energy]

    def settle(self, kind: str, dtype: str, wanted: list[TimedRow]) -> None:
        """Keep the rows that are wanted, in their order, and move the pilots' other sizes to `probes/`."""
        known = [job for job, t in self.seconds.items() if job.kind == kind and not math.isnan(t)]
        asked = set(wanted)
        others = [job for job in known if job.dtype != dtype]
        kept = [*others, *(job for job in wanted if job in self.seconds and not math.isnan(self.seconds[job]))]
        probes = [job for job in known if job.dtype == dtype and job not in asked]
        for path, rows in ((self._path(kind), kept), (self._probes(kind), probes)):
            if not rows:
                path.unlink(missing_ok=True)
                continue
            path.parent.mkdir(exist_ok=True)
            fresh = path.with_suffix(".new")
            with fresh.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([_header(kind), *map(self._row, rows)])
            fresh.replace(path)

    def describe(self, text: str) -> None:
        """Write device.toml, unless there is one."""
        path = self.folder / DEVICE_FILE
        if not path.exists():
            path.write_text(text, encoding="utf-8")


def _header(kind: str) -> list[str]:
    return ["dtype", *(UNIT.get(name, name) for name in names(kind)), UNIT["time"], "avg_energy(uJ)"]
