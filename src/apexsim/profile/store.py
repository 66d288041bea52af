"""The folder that a measurement writes: one CSV per operator, a row at a time, so that it can go on (floor 5)."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from apexsim.cost.device_csv import SHEETS, UNITS
from apexsim.errors import InputError
from apexsim.hardware import DEVICE_FILE
from apexsim.profile.jobs import Job, names

UNIT = {"time": "time(us)", "size": "size(b)"}


class Store:
    """Rows that were measured: `seconds[job]`, NaN where a job cannot run (no memory, no kernel)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[Job, float] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder: {error.strerror}", str(folder), "give another --out") from None
        for kind in SHEETS:
            if self._path(kind).exists():
                self._read(kind)
        skipped = folder / "skipped.txt"
        if skipped.exists():
            for line in skipped.read_text(encoding="utf-8").splitlines():
                kind, dtype, *sizes = line.split()
                self.seconds[Job(kind, dtype, tuple(int(x) for x in sizes))] = math.nan

    def _path(self, kind: str) -> Path:
        return self.folder / f"{kind}_0.csv"

    def _read(self, kind: str) -> None:
        """Rows of an earlier run; a last line that was cut off is removed, and measured again."""
        path, wanted = (
            self._path(kind),
            ["dtype", *(UNIT.get(n, n) for n in names(kind)), UNIT["time"], "avg_energy(uJ)"],
        )
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            text = text[: text.rfind("\n") + 1]
            path.write_text(text, encoding="utf-8")
        rows = list(csv.reader(text.splitlines()))
        if not rows:
            path.unlink()
            return
        if rows[0] != wanted:
            raise InputError("the file was not written by a measurement", str(path), "give an empty folder as --out")
        try:
            for row in rows[1:]:
                job = Job(kind, row[0], tuple(int(x) for x in row[1:-2]))
                self.seconds[job] = float(row[-2]) * UNITS["time"]["us"]
        except (ValueError, IndexError):
            raise InputError(f"cannot read the row {','.join(row)}", str(path), "remove it and start again") from None

    def add(self, job: Job, seconds: float, joules: float = math.nan) -> None:
        """Keep one row [s], [J] at once."""
        self.seconds[job] = seconds
        if math.isnan(seconds):
            with (self.folder / "skipped.txt").open("a", encoding="utf-8") as file:
                file.write(" ".join((job.kind, job.dtype, *map(str, job.sizes))) + "\n")
            return
        path = self._path(job.kind)
        fresh = not path.exists()
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if fresh:
                writer.writerow(["dtype", *(UNIT.get(n, n) for n in names(job.kind)), UNIT["time"], "avg_energy(uJ)"])
            energy = "" if math.isnan(joules) else f"{joules * 1e6:.6g}"
            writer.writerow([job.dtype, *job.sizes, f"{seconds * 1e6:.6g}", energy])

    def describe(self, text: str) -> None:
        """Write device.toml, unless there is one."""
        path = self.folder / DEVICE_FILE
        if not path.exists():
            path.write_text(text, encoding="utf-8")
