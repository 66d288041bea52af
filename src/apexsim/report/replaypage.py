"""A run on a server as text, as plain values and as a picture, beside its prediction (floor 6)."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import RenderableType

from apexsim.replay.compare import STATS, Comparison
from apexsim.replay.record import LATENCIES, PREDICTED, Measured, ReplayRun, measured, run_json
from apexsim.report.draw import percent, sig
from apexsim.report.page import columns, heading, labelled, page
from apexsim.report.picture import figure, picture, titled
from apexsim.stats import plain
from apexsim.units import format_seconds

FORMAT = "apexsim.replay/1"
TITLES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "E2E"}
RATES = {"request_throughput": "requests/s", "output_throughput": "output tok/s", "duration_s": "duration [s]",
         "mean_concurrency": "mean concurrency"}  # fmt: skip
LATE = 0.01  # [s] a p99 of lateness above this is worth a note
BUSY = 0.7  # share of a core from which the client's own delay shows
OFF = 0.005  # a prompt length that is further from what was asked is worth a note
FAILURES_SHOWN = 4


def replay_json(run: ReplayRun, found: Comparison | None) -> dict[str, Any]:
    """The detailed schema of `vllm bench serve`, with the comparison under one key of its own."""
    return {"format": FORMAT, **run_json(run), "comparison": None if found is None else _compared_json(found)}


def _compared_json(found: Comparison) -> dict[str, Any]:
    scale = dict.fromkeys(LATENCIES, 1e3)
    rows = [
        {
            "metric": row.metric + ("_ms" if row.metric in scale else ""),
            "stat": row.stat or None,
            "measured": plain(row.measured * scale.get(row.metric, 1.0)),
            "predicted": plain(row.predicted * scale.get(row.metric, 1.0)),
            "error": plain(row.error),
        }
        for row in found.rows
    ]
    per_request = {name: plain(found.off(name)) for name in found.series}
    return {"plan": found.plan, "rows": rows, "median_abs_error_per_request": per_request, "notes": found.study.notes}


# ---- text ---------------------------------------------------------------------------------------------------------


def replay_text(run: ReplayRun, found: Comparison | None, color: bool = False) -> str:
    """The run on a page."""
    was = measured(run)
    about = run.about
    how = {"open": "open loop", "closed": f"closed loop, {run.concurrency} users", "offline": "all at once"}[run.mode]
    head = [
        ("requests", f"{was.completed:,} finished, {was.failed:,} failed, {run.warmup:,} warm-up left out; {how}"),
        ("tokens", f"{was.prompt_tokens:,} prompt, {was.output_tokens:,} output, in {format_seconds(was.duration_s)}"),
    ]
    title = " at ".join(str(about[key]) for key in ("model_id", "url") if about.get(key))
    parts: list[RenderableType] = [heading("replay", title), labelled([*head, *_faults(run)]), ""]
    named = "measured" if found is None else f"measured, predicted for {found.plan}, error of the prediction"
    parts += [heading("latencies", f"{named} [ms]"), _latencies(was, found), "", heading("rates"), _rates(was, found)]
    if found is not None:
        parts += ["", labelled([("per request", _per_request(found))])]
    notes = [("note", note) for note in _notes(run, was, found)]
    return page([*parts, "", labelled(notes)] if notes else parts, color)


def _faults(run: ReplayRun) -> list[tuple[str, str]]:
    rows = [("PARTIAL", f"stopped early: {run.stopped}")] if run.stopped else []
    if run.failures and not run.stopped:
        rows.append(("PARTIAL", "some requests failed; numbers are over those that finished"))
    listed = list(run.failures.items())
    rows += [("failed", f"{count:,} × {error}") for error, count in listed[:FAILURES_SHOWN]]
    rest = sum(count for _, count in listed[FAILURES_SHOWN:])
    return [*rows, ("failed", f"{rest:,} × other reasons")] if rest else rows


def _latencies(was: Measured, found: Comparison | None) -> RenderableType:
    predicted = {} if found is None else {(row.metric, row.stat): row for row in found.rows}
    rows = []
    for name in LATENCIES:
        rows.append((TITLES[name], "measured", *(sig(getattr(was, name).value(stat) * 1e3) for stat in STATS)))
        if predicted:
            rows.append(("", "predicted", *(sig(predicted[name, stat].predicted * 1e3) for stat in STATS)))
            rows.append(("", "error", *(signed(predicted[name, stat].error) for stat in STATS)))
    return columns([("", "left"), ("", "left"), *((stat, "right") for stat in STATS)], rows)


def _rates(was: Measured, found: Comparison | None) -> RenderableType:
    if found is None:
        return columns([("", "left"), ("measured", "right")], [(title, sig(float(getattr(was, name)))) for name, title in RATES.items()])
    rows = [(RATES[row.metric], sig(row.measured), sig(row.predicted), signed(row.error)) for row in found.rows if row.metric in RATES]
    return columns([("", "left"), ("measured", "right"), ("predicted", "right"), ("error", "right")], rows)


def signed(error: float) -> str:
    """A relative error: +3.1%, −24%."""
    return percent(error) if error != error else f"{'−' if error < 0 else '+'}{percent(abs(error))}"


def _per_request(found: Comparison) -> str:
    return "median absolute error " + ", ".join(f"{TITLES[n]} {percent(found.off(n))}" for n in found.series)


def _notes(run: ReplayRun, was: Measured, found: Comparison | None) -> list[str]:
    notes = ["the file is a prediction of apexsim: nothing was measured"] if str(run.about.get("backend")).startswith(PREDICTED) else []
    share = float(run.about.get("client_cpu_share") or 0.0)
    if was.late.p99 > LATE:
        why = "this client is too slow for the rate" if share > BUSY else "its machine was busy with other work"
        notes.append(f"requests went out late (p99 {format_seconds(was.late.p99)}): {why}")
    if share > BUSY:
        notes.append(f"this program took {percent(share)} of a core: times may be its own, use a lower load or a faster machine")
    if was.uneven:
        notes.append(f"{was.uneven:,} outputs are not as long as was asked: the server may not know ignore_eos")
    if abs(was.prompt_off) > OFF:
        notes.append(f"prompts are {signed(was.prompt_off)} long by the server's count against the trace")
    if was.chunk_tokens > 1.05:
        notes.append(f"chunks hold {was.chunk_tokens:.2f} tokens on average: ITL is between chunks, not tokens")
    if found is not None and run.failures:
        notes.append("failed requests are not in the prediction, though they loaded the server")
    if found is not None and found.study.ranked[0].metrics.saturated:
        notes.append(f"predicted to be saturated: {found.study.ranked[0].metrics.why}")
    return notes + (list(found.study.notes) if found is not None else [])


# ---- picture ------------------------------------------------------------------------------------------------------


def drawn(run: ReplayRun, found: Comparison | None, path: str) -> bytes:
    """Distributions of TTFT, TPOT and E2E, and TTFT over time; the picture's kind follows from the file's name."""
    drawing = figure(path, (10, 7))
    axes = drawing.subplots(2, 2)
    series = _series(run, found)
    for ax, name in zip((axes[0][0], axes[0][1], axes[1][0]), ("ttft", "tpot", "e2el")):
        for label, values in zip(("measured", "predicted"), series[name]):
            if len(values):
                ax.ecdf(np.asarray(values) * 1e3, label=label)
        ax.set(xlabel=f"{TITLES[name]} [ms]", ylabel="share of requests")
        ax.legend()
    send = [s.start for s in run.good] if found is None else found.send
    for label, values in zip(("measured", "predicted"), series["ttft"]):
        axes[1][1].scatter(send, np.asarray(values) * 1e3, s=6, alpha=0.6, linewidths=0, label=label)
    axes[1][1].set(xlabel="sent at [s]", ylabel="TTFT [ms]")
    axes[1][1].legend()
    titled(drawing, f"{run.about.get('model_id', '')} {found.plan if found else ''}".strip() or "replay")
    return picture(drawing, path)


def _series(run: ReplayRun, found: Comparison | None) -> dict[str, tuple[Any, ...]]:
    """Measured and, where there is one, predicted values per request [s]."""
    if found is not None:
        return dict(found.series)
    good = run.good
    tpot = [(s.last - s.first) / (s.output_len - 1) for s in good if s.output_len > 1]
    return {"ttft": ([s.first - s.start for s in good],), "tpot": (tpot,), "e2el": ([s.last - s.start for s in good],)}
