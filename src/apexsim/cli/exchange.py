"""What other programs read: --csv, --parquet, and a predicted run as their own tools write a measured one (floor 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apexsim.cli.files import STDOUT
from apexsim.cli.outside import deliver, write_atomic
from apexsim.errors import InputError


def exchange(answer: Any, given: Mapping[str, Any]) -> None:
    """Write each form that was asked for."""
    if given.get("csv") is not None:
        from apexsim.report.table import csv_text

        deliver(csv_text(answer), given["csv"], "--csv")
    if given.get("parquet") is not None:
        from apexsim.report.table import parquet_bytes

        if given["parquet"] == STDOUT:
            raise InputError("a Parquet file cannot be written to standard output", "--parquet", "name a file, or use --csv -")
        write_atomic(given["parquet"], parquet_bytes(answer), "--parquet")
    if given.get("bench_json") is not None:
        from apexsim.report.exchange import bench_json
        from apexsim.report.plain import dumps

        deliver(dumps(bench_json(_one(answer, "--bench-json"))), given["bench_json"], "--bench-json")
    if given.get("benchmark_report") is not None:
        from apexsim.report.exchange import benchmark_report

        deliver(benchmark_report(_one(answer, "--benchmark-report")), given["benchmark_report"], "--benchmark-report")


def _one(answer: Any, flag: str) -> Any:
    """A study; raises InputError of a table of many."""
    from apexsim.search.study import Study

    if not isinstance(answer, Study):
        raise InputError("several values are asked for, and a run is of one plan", flag, "name one value of each option")
    return answer
