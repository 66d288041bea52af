"""Answers as flat rows, units in the names of the columns: for DataFrames, CSV and Parquet (floor 6)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from apexsim.calibrate.run import Calibration
from apexsim.errors import InputError
from apexsim.metrics import Metrics
from apexsim.plan.sized import Fit
from apexsim.report.calibratepage import calibration_json
from apexsim.report.plain import clean
from apexsim.report.ranking import room_tokens
from apexsim.search.assess import Assessed
from apexsim.search.fleet import Fleet
from apexsim.search.size import Size, SizeAnswer
from apexsim.search.study import Study
from apexsim.search.sweep import Sweep
from apexsim.search.together import SharedFleet
from apexsim.units import GiB

Row = dict[str, Any]
SHOWN = ("mean", "p50", "p95", "p99")  # of each latency
LATENCIES = ("ttft", "tpot", "itl", "e2e", "queue")


def rows(answer: Any) -> list[Row]:
    """The rows of an answer: of a study its plans, best first; of a sweep its combinations; of a size its clusters; of a fleet its
    policies, of models that share a cluster each with its policies; records as they are."""
    for kind, made in ROWS.items():
        if isinstance(answer, kind):
            return [clean(row) for row in made(answer)]
    raise InputError(f"a {type(answer).__name__} has no table")


def _study(study: Study) -> Iterable[Row]:
    for rank, run in enumerate(study.ranked, 1):
        yield {"rank": rank, **_run(study, run)}


def _run(study: Study, run: Assessed) -> Row:
    """One simulated plan."""
    m = run.metrics
    head: Row = {"plan": run.plan.shorthand, "gpus": m.devices, "gpu": study.setting.cluster.gpu.name, "engine": study.setting.engine.label,
                 "keeps": run.keeps, "saturated": m.saturated, "startable": not run.blocked,
                 "objective": str(study.goal.objective), "value": run.value,
                 "ratio_to_heuristic": run.ratio, "tie_with_best": run.tie}  # fmt: skip
    times = {f"{name}_{stat}_ms": m.latency(name, stat) * 1e3 for name in LATENCIES for stat in SHOWN}
    return head | times | _by_class(m) | {
        "request_throughput_per_s": m.request_throughput_per_s, "output_throughput_tok_s": m.output_throughput_tok_s,
        "output_tok_s_per_gpu": m.output_throughput_tok_s / m.devices, "goodput_req_s": m.goodput_req_s, "attainment": m.attainment,
        **_headroom(run), "preemptions": m.preemptions, "kv_tokens": room_tokens(run), "mfu": run.account.mfu, "mbu": run.account.mbu,
        "power_w_per_gpu": m.energy.watts, "usd_per_h": m.usd_h * m.devices, "usd_per_million_output_tokens": m.usd_per_million,
    }  # fmt: skip


def _by_class(m: Metrics) -> Row:
    """Latencies and limits of each class of requests."""
    found: Row = {}
    for kind in m.kinds:
        found |= {
            f"{kind.name}_{name}_{stat}_ms": kind.latency(name, stat) * 1e3 for name in ("ttft", "tpot", "e2e") for stat in ("mean", "p95")
        }
        found |= {f"{kind.name}_requests": kind.requests, f"{kind.name}_attainment": kind.attainment}
    return found


def _headroom(run: Assessed) -> Row:
    """Where it was asked for."""
    found = run.headroom
    return {} if found is None else {"headroom": found.times, "headroom_low": found.low, "headroom_high": found.high}


def _sweep(sweep: Sweep) -> Iterable[Row]:
    for point in sweep.points:
        values = {axis.name: value for axis, value in zip(sweep.axes, point.values)}
        yield {**values, "fits": point.study is not None, "why": point.why or None} | (
            {name: v for name, v in _run(point.study, point.first).items() if name not in values} if point.study else {}
        )


def _size(size: Size) -> Iterable[Row]:
    for one in size.found:
        yield {"find": size.wanted.find, **_found(one)}


def _found(one: SizeAnswer) -> Row:
    usd = {f"usd_per_million_{kind}_tokens": value for kind, value in one.dollars.items()}
    return {
        "gpu": one.setting.cluster.gpu.name, "gpus": one.gpus, "plan": one.plan.shorthand, "value": one.value, "low": one.low,
        "high": one.high, "request_rate": one.rate, "usd_per_h": one.rent, **usd,
        **{f"{name}_{stat}_ms": one.run.metrics.latency(name, stat) * 1e3 for name in LATENCIES[:4] for stat in ("mean", "p95")},
    }  # fmt: skip


def _fleet(fleet: Fleet) -> Iterable[Row]:
    for course in fleet.courses:
        yield {"policy": course.policy, "plan": fleet.unit.plan.shorthand, "gpus": int(course.paid.max()) * fleet.gpus,
               "mean_gpus": float(course.paid.mean()) * fleet.gpus, "gpu_hours": fleet.gpu_hours(course), "usd": fleet.dollars(course),
               "kwh": fleet.kwh(course), "kept": float(course.kept.mean()), "late_requests": course.late}  # fmt: skip


def _shared(shared: SharedFleet) -> Iterable[Row]:
    for one in shared.tenants:
        for course, row in zip(one.courses, _fleet(replace(one.alone, courses=one.courses))):
            asked = one.wanted(one.courses.index(course), shared.count)
            yield {"name": one.ask.name, "model": one.ask.model, **row, "asked_peak_gpus": int(asked.max())}


def _fit(fit: Fit) -> Iterable[Row]:
    head: Row = {"plan": fit.plan.shorthand, "gpu": fit.cluster.gpu.name, "gpus": fit.cluster.size, "fits": fit.fits}
    room = fit.room
    if room is None:
        yield head
    for line, size in room.ledger if room else ():
        yield {**head, "line": line, "gib_per_gpu": size / GiB, "share_of_gpu": size / fit.cluster.gpu.memory_bytes}


def _calibration(found: Calibration) -> Iterable[Row]:
    """Every metric of every run: measured, and predicted before and after."""
    for run in calibration_json(found)["runs"]:
        values = run.pop("values")
        yield from ({**run, **value} for value in values)


def _records(records: Sequence[Mapping[str, Any]]) -> Iterable[Row]:
    for record in records:
        yield {
            name: ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            for name, value in record.items()
            if not isinstance(value, Mapping)
        }


ROWS: dict[type, Callable[[Any], Iterable[Row]]] = {
    Study: _study,
    Sweep: _sweep,
    Size: _size,
    Fleet: _fleet,
    SharedFleet: _shared,
    Fit: _fit,
    Calibration: _calibration,
    list: _records,
}


# ---- files -------------------------------------------------------------------------------------------------------------------


def columns_of(found: Sequence[Row]) -> list[str]:
    """The columns of all rows, in the order in which they come."""
    return list(dict.fromkeys(name for row in found for name in row))


def csv_text(answer: Any) -> str:
    """The rows as CSV with a header (RFC 4180, \\n at line ends); what is not known is empty."""
    found = rows(answer)
    held = io.StringIO()
    writer = csv.DictWriter(held, columns_of(found), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return held.getvalue()


def parquet_bytes(answer: Any) -> bytes:
    """The rows as a Parquet file; raises InputError where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError("Parquet files need pyarrow", "--parquet", "pip install pyarrow, or write --csv") from None
    found = rows(answer)
    table = pyarrow.table({name: [row.get(name) for row in found] for name in columns_of(found)})
    held = io.BytesIO()
    parquet.write_table(table, held)
    return held.getvalue()
