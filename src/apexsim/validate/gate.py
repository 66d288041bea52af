"""The fidelity gate: replay the shipped measurements and fail when an error has grown (floor 5).

    python -m apexsim.validate.gate            compare with validation/recorded.json
    python -m apexsim.validate.gate --record   write it (scripts/fidelity_page.py writes the page)

A median may grow by half a point before the gate fails: that is below the repeatability of the measurements; a 90th percentile, and how far
the share of values inside of their 80 % interval is from 80 %, by two points.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from apexsim.validate.replay import run
from apexsim.validate.score import YES_OR_NO, counts, score, within
from apexsim.validate.words import render

FILES = (
    "open_loop.csv",
    "request_level.csv",
    "closed_loop.csv",
    "new_systems.csv",
    "amd_closed_loop.csv",
    "start_up.csv",
    "energy.csv",
    "offline.csv",
)
SLACK = {"median": 0.005, "wrong": 0.005, "p90": 0.02, "interval": 0.02}  # by the last word of a figure
LEVEL = "80"  # of the intervals that are held
FEW = 20  # rows from which a 90th percentile and a share of intervals are held


def key_figures(record: dict[str, Any]) -> dict[str, float]:
    """Errors by engine and metric: medians and 90th percentiles, of yes and no the share of wrong answers, and how far intervals hold more
    or less often than they say; suspect rows and other harnesses left out."""
    rows = [row for row in record["rows"] if counts(row)]
    found: dict[str, float] = {"coverage": record["summary"]["coverage"]}
    for engine in sorted({row["labels"]["engine"] for row in rows}):
        own = [row for row in rows if row["labels"]["engine"] == engine]
        mine = [row["metrics"] for row in own]
        for metric in sorted({name for metrics in mine for name in metrics}):
            told = score([metrics[metric] for metrics in mine if metric in metrics])
            wrong = metric in YES_OR_NO
            if told["n"]:
                kind = "wrong" if wrong else "median"
                found[f"{engine} {metric} {kind}"] = round(told["mean_abs_error" if wrong else "median_abs_error"], 4)
            if told["n"] >= FEW and not wrong:
                found[f"{engine} {metric} p90"] = round(told["p90_abs_error"], 4)
        for metric, shares in within(own).items():
            if sum(metric in row.get("interval", {}) for row in own) >= FEW:
                found[f"{engine} {metric} interval"] = round(abs(shares[LEVEL] - int(LEVEL) / 100), 4)
    return found


def main(argv: list[str] | None = None) -> int:
    """Compare or record."""
    parser = argparse.ArgumentParser(prog="gate", description=__doc__)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--folder", default="validation")
    args = parser.parse_args(argv)
    folder = Path(args.folder)
    records = {name: run(folder / name) for name in FILES}
    figures = {name: key_figures(record) for name, record in records.items()}
    store = folder / "recorded.json"
    for name, record in records.items():
        print(render(record).split("\n\n")[0])
        for key, value in figures[name].items():
            print(f"  {key:48s} {value:7.2%}")
    if args.record:
        store.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    before = json.loads(store.read_text(encoding="utf-8"))
    grown = worse(before, figures)
    print("\n".join(grown) if grown else "no error has grown")
    return 1 if grown else 0


def worse(before: dict[str, dict[str, float]], now: dict[str, dict[str, float]]) -> list[str]:
    """Figures that got worse by more than the slack, or vanished."""
    found = []
    for name, figures in before.items():
        for key, value in figures.items():
            new = now.get(name, {}).get(key, float("nan"))
            bad = not new >= value - 1e-9 if key == "coverage" else not new <= value + SLACK[key.rsplit(" ", 1)[-1]]
            if bad:
                found.append(f"WORSE {name} {key}: {value:.2%} -> {new:.2%}")
    return found


if __name__ == "__main__":
    sys.exit(main())
