"""Build src/apexsim/data/models from a folder of `config.json` files.

usage: python scripts/build_models.py FOLDER [--into src/apexsim/data/models]

FOLDER holds `org--Name.json` files, `parameters.csv` (config, total_params, active_params, note) and a README.md whose
last table gives file, kind and source.  Written: one JSON per model, without notes on its origin, and `index.csv` with
the totals counted by this package, the published and the independently counted ones, and the source.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from pathlib import Path

from apexsim.model.cells import active_parameters, total_parameters
from apexsim.model.config import read_config
from apexsim.model.families import build_model

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


def build(folder: Path, into: Path) -> None:
    """Write the configs and their index."""
    into.mkdir(parents=True, exist_ok=True)
    known, origin = facts(folder), sources(folder)
    with (into / "index.csv").open("w", encoding="utf-8", newline="") as file:
        index = csv.DictWriter(file, FIELDS, lineterminator="\n")
        index.writeheader()
        for path in sorted(folder.glob("*.json"), key=lambda p: p.stem):
            data = json.loads(path.read_text(encoding="utf-8"))
            kept = {k: v for k, v in data.items() if k not in DROPPED}
            target = into / path.name
            target.unlink(missing_ok=True)
            target.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            model = build_model(read_config(target))
            kind, source = origin[path.stem]
            index.writerow({
                "name": path.stem, "family": model.family, "total": total_parameters(model),
                "active": active_parameters(model), "max_length": model.max_length, **known[path.stem], "kind": kind,
                "source": source,
            })  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--into", type=Path, default=Path("src/apexsim/data/models"))
    args = parser.parse_args()
    build(args.folder, args.into)


if __name__ == "__main__":
    main()
