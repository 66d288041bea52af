"""Who is right about replicas, cell by cell: the paper, or the open-loop runs of vLLM 0.6.0 that its authors published.

    python bench/measured.py

A cell is a trace at a rate on eight GPUs, served by one server of TP8, two of TP4 or four of TP2; each server has its own file of
requests.  "mean" compares the mean E2E over all requests; "sum" what gives the published ratios: the sum of E2E over all requests of
the one server, over the largest sum that one of the replicas has over its half or quarter of them.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from apexsim.validate.replay import run

FILE = Path(__file__).resolve().parent.parent / "validation/open_loop.csv"
GPUS = 8
HEAD = (
    "trace, rate",
    "layout",
    "mean E2E over TP8's, measured",
    "predicted",
    "same side",
    "TP8's sum over a replica's, measured",
    "predicted",
    "",
)


@dataclass(frozen=True, slots=True)
class Server:
    """One server of a cell: requests, and their mean E2E [s], measured and predicted."""

    requests: int
    measured: float
    predicted: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """What several smaller servers take against one of TP8 (> 1: TP8 is faster), measured and predicted, by mean and by sum."""

    cell: str
    layout: str
    whole: bool  # every replica was measured
    same: bool  # both served the same number of requests
    mean: tuple[float, float]
    sums: tuple[float, float]  # TP8's sum over the largest replica's: as published

    @property
    def agree(self) -> bool:
        """Whether the faster layout is predicted."""
        return (self.mean[0] > 1.0) == (self.mean[1] > 1.0)


def servers() -> dict[tuple[str, str], dict[int, list[Server]]]:
    """(trace, rate) -> replicas -> servers of eight GPUs in all."""
    with FILE.open(newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    found: dict[tuple[str, str], dict[int, list[Server]]] = defaultdict(lambda: defaultdict(list))
    for got in run(FILE)["rows"]:
        row = rows[got["id"]]
        if int(row["dp"]) * int(row["tp"]) == GPUS and "e2e_mean_ms" in got["metrics"]:
            e2e = got["metrics"]["e2e_mean_ms"]
            server = Server(int(row["num_requests"]), e2e["measured"] / 1e3, e2e["predicted"] / 1e3)
            found[row["workload"], row["rate"]][int(row["dp"])].append(server)
    return found


def ratios() -> list[Ratio]:
    """Every comparison that was measured."""
    found = []
    for (trace, rate), by in sorted(servers().items()):
        (one,) = by[1]
        for replicas, many in sorted(by.items()):
            if replicas > 1:
                count = sum(s.requests for s in many)
                mean = tuple(sum(s.requests * of(s) for s in many) / count / of(one) for of in SIDES)
                sums = tuple(one.requests * of(one) / max(s.requests * of(s) for s in many) for of in SIDES)
                layout = f"{replicas} × TP{GPUS // replicas}"
                same = len(many) == replicas and abs(count - one.requests) <= 1
                found.append(Ratio(f"{trace}, {rate}/s", layout, len(many) == replicas, same, (mean[0], mean[1]), (sums[0], sums[1])))
    return found


SIDES = (lambda server: server.measured, lambda server: server.predicted)


def section(found: list[Ratio]) -> str:
    """The comparison as a section of a page."""
    fair, off = [r for r in found if r.same], sorted(abs(r.mean[1] / r.mean[0] - 1.0) for r in found)
    told = (
        f"Where both served the same requests, one server of TP8 has the lower mean E2E in {sum(r.mean[0] > 1.0 for r in fair)} of "
        f"{len(fair)} cells. The predicted ratio is off by {off[len(off) // 2]:.1%} (median), on the right side in "
        f"{sum(r.agree for r in found)} of {len(found)}. By the published way of counting, replicas look up to "
        f"{max(r.sums[0] for r in found):.2f} times as fast as TP8: each of them has only its share of the requests to add up."
    )
    rows = [f"| {' | '.join(row)} |" for row in (HEAD, ["---"] * len(HEAD), *map(cells, found))]
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    return "\n".join(["## Replicas against TP8, measured\n", about, "", told, "", *rows]) + "\n"


def cells(ratio: Ratio) -> list[str]:
    """A row of the table."""
    remark = "" if ratio.same else "other requests" if ratio.whole else "not all replicas measured"
    mean, sums = ([f"{value:.2f}×" for value in pair] for pair in (ratio.mean, ratio.sums))
    return [ratio.cell, ratio.layout, *mean, "yes" if ratio.agree else "no", *sums, remark]


if __name__ == "__main__":
    print(section(ratios()))
    sys.exit(0)
