"""Build src/apexsim/data/models from a folder of `config.json` files.

usage: python scripts/build_models.py FOLDER [--into src/apexsim/data/models]
       python scripts/build_models.py FOLDER --add TABLE.csv

FOLDER holds `org--Name.json` files, `parameters.csv` (config, total_params, active_params, note) and a README.md whose
last table gives file, kind and source.  Written: one JSON per model, without notes on its origin, and `index.csv` with
the totals counted by this package, the published and the independently counted ones, and the source.  Rows of other
files stay.  With --add, FOLDER holds further `org--Name.json` files and TABLE.csv (config, recalled_total, kind, source) says
what is known of their checkpoints: the number of parameters (empty = nothing; a count that differs from it by more than 0.5 %
is refused), where the dimensions come from, and of which kind that is.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from pathlib import Path

from apexsim.model.config import read_config
from apexsim.model.count import active_parameters, total_parameters
from apexsim.model.families import build_model

CLOSE = 0.005
DROPPED = ("_source", "_name_or_path")
FIELDS = (
    "name", "family", "total", "active", "max_length", "published_total", "published_active", "counted_total",
    "counted_active", "kind", "source",
)  # fmt: skip
COUNTED = re.compile(r"config counts ([\d,]+)(?: total, ([\d,]+) active)?")
ROW = re.compile(r"^\| ([\w.\-]+--[\w.\-]+) \| (package|copy|published) \| (.+?) \|$", re.MULTILINE)


def facts(folder: Path) -> dict[str, dict[str, int]]:
    """Published and counted totals of each config; 0 where there is none."""
    out = {}
    with (folder / "parameters.csv").open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            found = COUNTED.search(row["note"])
            figures = found.groups() if found else (row["total_params"], None)
            total, active = (int((figure or "0").replace(",", "")) for figure in figures)
            published = "no published figure" not in row["note"]
            out[row["config"]] = {
                "published_total": int(row["total_params"] or 0) if published else 0,
                "published_active": int(row["active_params"] or 0) if published else 0,
                "counted_total": total,
                "counted_active": active,
            }
    return out


def sources(folder: Path) -> dict[str, tuple[str, str]]:
    """(kind, source) of each config."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    return {name: (kind, source) for name, kind, source in ROW.findall(text)}


def row_of(target: Path, known: dict[str, int], kind: str, source: str) -> dict[str, object]:
    """One row of the index."""
    model = build_model(read_config(target))
    return {
        "name": target.stem, "family": model.family, "total": total_parameters(model), "active": active_parameters(model),
        "max_length": model.max_length, **known, "kind": kind, "source": source,
    }  # fmt: skip


def place(path: Path, into: Path) -> Path:
    """A config without notes on its origin, among the bundled ones."""
    kept = {k: v for k, v in json.loads(path.read_text(encoding="utf-8")).items() if k not in DROPPED}
    target = into / path.name
    target.unlink(missing_ok=True)
    target.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return target


def write(rows: list[dict[str, object]], into: Path) -> None:
    """The index: these rows, and those of other files that it had."""
    file = into / "index.csv"
    with file.open(encoding="utf-8", newline="") as old:
        kept = {row["name"]: row for row in csv.DictReader(old)}
    merged = {**kept, **{str(row["name"]): row for row in rows}}
    with file.open("w", encoding="utf-8", newline="") as new:
        index = csv.DictWriter(new, FIELDS, lineterminator="\n")
        index.writeheader()
        index.writerows(merged[name] for name in sorted(merged))


def build(folder: Path, into: Path) -> None:
    """Write the configs and their index."""
    known, origin = facts(folder), sources(folder)
    paths = sorted(folder.glob("*.json"), key=lambda p: p.stem)
    write([row_of(place(p, into), known[p.stem], *origin[p.stem]) for p in paths], into)


def add(folder: Path, table: Path, into: Path) -> None:
    """Further configs, each checked against the number of parameters that is recalled of its checkpoint."""
    rows = []
    with table.open(encoding="utf-8", newline="") as file:
        for given in csv.DictReader(file):
            recalled = int(given["recalled_total"] or 0)
            known = {"published_total": 0, "published_active": 0, "counted_total": recalled, "counted_active": 0}
            row = row_of(place(folder / f"{given['config']}.json", into), known, given["kind"], given["source"])
            if recalled and abs(int(str(row["total"])) / recalled - 1.0) > CLOSE:
                raise SystemExit(f"{given['config']} counts {row['total']}, {recalled} is recalled of its checkpoint")
            rows.append(row)
    write(rows, into)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--into", type=Path, default=Path("src/apexsim/data/models"))
    parser.add_argument("--add", type=Path, metavar="TABLE")
    args = parser.parse_args()
    if args.add:
        add(args.folder, args.add, args.into)
    else:
        build(args.folder, args.into)


if __name__ == "__main__":
    main()
