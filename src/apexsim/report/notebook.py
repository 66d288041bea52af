"""Answers in a notebook: three lines, a page of HTML, a table, a picture (floor 6)."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import numpy as np

from apexsim.calibrate.run import Calibration
from apexsim.errors import InputError
from apexsim.plan.sized import Fit
from apexsim.report import calibratepage, fleetpage, ledger, sharedpage, sizepage, sweep
from apexsim.report.table import Row, rows
from apexsim.report.verdict import verdict
from apexsim.search.assess import outcome_of
from apexsim.search.fleet import Fleet
from apexsim.search.size import Size
from apexsim.search.study import Study
from apexsim.search.sweep import Sweep
from apexsim.search.together import SharedFleet
from apexsim.units import format_seconds
from apexsim.views import spoken

FEW = 10  # rows of a page
STYLE = "text-align:right;padding:2px 8px;white-space:nowrap"


@singledispatch
def title(answer: Any) -> str:
    """What was asked, in a line."""
    raise InputError(f"a {type(answer).__name__} has no views")


@title.register
def _(answer: Study) -> str:
    cluster = answer.setting.cluster
    what = f"{len(answer.ranked)} plan{'s' * (len(answer.ranked) != 1)}" if not answer.single else f"{answer.ranked[0].plan.shorthand}"
    return f"{answer.setting.model.name} on {cluster.size} × {cluster.gpu.name}, {answer.setting.engine.label}: {what}"


@title.register
def _(answer: Sweep) -> str:
    return f"{answer.model}: {len(answer.points)} combinations of {', '.join(axis.name for axis in answer.axes)}"


@title.register
def _(answer: Size) -> str:
    return f"{answer.model}: {answer.wanted.find}"


@title.register
def _(answer: Fleet) -> str:
    return f"{answer.model}: {len(answer.intervals):,} intervals of {format_seconds(answer.asked.every)}"


@title.register
def _(answer: SharedFleet) -> str:
    return sharedpage.title(answer)


@title.register
def _(answer: Fit) -> str:
    return ledger.title(answer)


@title.register
def _(answer: Calibration) -> str:
    return calibratepage.title(answer)


SENTENCES: dict[type, Callable[[Any], Sequence[str]]] = {
    Study: lambda study: verdict(study).sentences, Sweep: sweep.sentences, Size: sizepage.sentences, Fleet: fleetpage.sentences,
    SharedFleet: sharedpage.sentences, Fit: ledger.sentences, Calibration: calibratepage.sentences,
}  # fmt: skip


def sentences(answer: Any) -> list[str]:
    """The answer in sentences."""
    return [spoken(line) for line in SENTENCES[type(answer)](answer)]


def text(answer: Any) -> str:
    """Three lines: what was asked, the answer, and where there is more."""
    more = ".table() has every row, .plot() a picture, apexsim.render(…) the report"
    return f"{title(answer)}\n{' '.join(sentences(answer)[:3])}\n{more}"


def page(answer: Any) -> str:
    """The answer and its best rows as HTML."""
    found = rows(answer)[:FEW]
    shown = [name for name in COLUMNS if any(row.get(name) is not None for row in found)]
    heads = "".join(f'<th style="{STYLE}">{html.escape(name)}</th>' for name in shown)
    body = "".join(f"<tr>{''.join(_cell(row.get(name)) for name in shown)}</tr>" for row in found)
    said = "".join(f"<p>{html.escape(line)}</p>" for line in sentences(answer))
    return f"<div><b>{html.escape(title(answer))}</b>{said}<table><tr>{heads}</tr>{body}</table></div>"


COLUMNS = ("rank", "policy", "model", "gpu", "gpus", "nodes", "engine", "request_rate", "concurrency", "max_num_batched_tokens", "plan",
           "value", "low", "high", "keeps", "saturated", "ttft_p95_ms", "tpot_p95_ms", "e2e_mean_ms", "output_tok_s_per_gpu", "usd_per_h",
           "usd_per_million_output_tokens", "power_w_per_gpu", "kv_tokens", "mean_gpus", "gpu_hours", "usd", "kwh", "kept",
           "late_requests", "line", "gib_per_gpu", "share_of_gpu", "metric", "stat", "load",
           "measured", "before", "after")  # fmt: skip


def _cell(value: Any) -> str:
    told = "" if value is None else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
    return f'<td style="{STYLE}">{html.escape(told)}</td>'


def table(answer: Any) -> Any:
    """Every row as a pandas DataFrame; as a list of dicts where pandas is not installed."""
    return _framed(rows(answer))


def _framed(found: Any) -> Any:
    """A DataFrame where pandas is installed; else what it would be made of."""
    try:
        import pandas
    except ImportError:
        return found
    return pandas.DataFrame(found)


def requests(study: Study) -> Any:
    """What happened to every request under the first plan: times in seconds from the first moment of the trace."""
    work, outcome = study.setting.workload, outcome_of(study.setting, study.ranked[0])
    times = {"sent_s": outcome.sent, "start_s": outcome.start, "first_s": outcome.first, "finish_s": outcome.finish}
    found = {"prompt": work.prompt, "output": work.output, **times, "replica": outcome.replica, "preempted": outcome.preempted}
    return _framed({name: np.asarray(column) for name, column in found.items()})


def steps(study: Study) -> Any:
    """The batches of the first plan's run (`Study.steps`)."""
    run = study.ranked[0]
    outcome, pool = outcome_of(study.setting, run), run.sides[-1]
    noted = outcome.timeline[np.argsort(outcome.timeline[:, 0], kind="stable")]
    replica = noted[:, 1].astype(np.int64)
    last = np.array([outcome.finish[outcome.replica == r].max(initial=0.0) for r in range(pool.plan.replicas)])
    until = last[replica]
    for r in range(pool.plan.replicas):
        mine = np.flatnonzero(replica == r)
        until[mine[:-1]] = noted[mine[1:], 0]
    blocks = max(1, run.room.blocks * pool.plan.lanes)
    found = {"start_s": noted[:, 0], "duration_s": np.maximum(until - noted[:, 0], 0.0), "replica": replica,
             "sequences": noted[:, 2].astype(np.int64), "prompt_tokens": noted[:, 4].astype(np.int64),
             "kv_blocks": noted[:, 3].astype(np.int64), "kv_share": noted[:, 3] / blocks}  # fmt: skip
    return _framed(found)


def plot(answer: Any) -> Any:
    """A matplotlib figure: of a study speed for each user against throughput of each GPU; of the others their answer by row."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("pictures need matplotlib", "", "pip install 'apexsim[plot]'") from None
    drawing = Figure(figsize=(8, 5), layout="constrained")
    axes, found = drawing.add_subplot(), [row for row in rows(answer) if row.get("plan")]
    drawing.suptitle(title(answer), parse_math=False)
    DRAWN.get(type(answer), _frontier)(axes, found)
    return drawing


def _frontier(axes: Any, found: list[Row]) -> None:
    """Tokens/s of each user against tokens/s of each GPU; filled: it keeps its limits."""
    for row in found:
        user = 1e3 / row["tpot_mean_ms"] if row["tpot_mean_ms"] else 0.0
        kept = row["keeps"] and not row["saturated"]
        axes.plot(user, row["output_tok_s_per_gpu"], "o" if kept else "x", color="tab:blue" if kept else "tab:gray")
        axes.annotate(row["plan"], (user, row["output_tok_s_per_gpu"]), fontsize=7, xytext=(4, 3), textcoords="offset points")
    axes.set_xlabel("output tokens/s of each user (1 / mean TPOT)")
    axes.set_ylabel("output tokens/s of each GPU")


def _bars(axes: Any, found: list[Row]) -> None:
    """The answers of a size, with their intervals."""
    names = [f"{row['gpus']} × {row['gpu']} {row['plan']}" for row in found]
    axes.barh(names, [row["value"] for row in found])
    for at, row in enumerate(found):
        if row["low"] is not None and row["high"] is not None:
            axes.plot([row["low"], row["high"]], [at, at], "|-", color="black")
    axes.invert_yaxis()


def _hours(axes: Any, found: list[Row]) -> None:
    """GPU-hours of each policy of a fleet."""
    axes.barh([row["policy"] for row in found], [row["gpu_hours"] for row in found])
    axes.set_xlabel("GPU-hours")
    axes.invert_yaxis()


def _shares(axes: Any, found: list[Row]) -> None:
    """GPU-hours of each policy of each model that shares a cluster."""
    axes.barh([f"{row['name']}, {row['policy']}" for row in found], [row["gpu_hours"] for row in found])
    axes.set_xlabel("GPU-hours")
    axes.invert_yaxis()


def _memory(axes: Any, found: list[Row]) -> None:
    """What the memory of one GPU holds."""
    axes.barh([row.get("line", row["plan"]) for row in found], [row.get("gib_per_gpu", 0.0) for row in found])
    axes.set_xlabel("GiB of one GPU")
    axes.invert_yaxis()


def _measured(axes: Any, found: list[Row]) -> None:
    """Predicted over measured of each run, without and with the factors."""
    for name, mark in (("before", "x"), ("after", "o")):
        axes.plot([row[name] / row["measured"] for row in found], range(len(found)), mark, label=name)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(found)), [f"{row['metric']} at {row['load']:g}" for row in found], fontsize=6)
    axes.set_xlabel("predicted / measured")
    axes.legend()


DRAWN: dict[type, Callable[[Any, list[Row]], None]] = {
    Size: _bars,
    Fleet: _hours,
    SharedFleet: _shares,
    Fit: _memory,
    Calibration: _measured,
}
VIEWS: dict[str, Callable[..., Any]] = {"text": text, "html": page, "table": table, "requests": requests, "steps": steps, "plot": plot}
