"""A Study as blocks of a page in the browser (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from apexsim.aims import USUAL, parse_aims
from apexsim.api import defaults, explicit
from apexsim.errors import InputError
from apexsim.metrics import Times
from apexsim.plan.plan import Plan, parse_plan
from apexsim.report import beforeafter
from apexsim.report.again import again
from apexsim.report.apart import launched
from apexsim.report.blocks import Bars, Chart, ChartSeries, Code, Heat, Page, PageTable, Rows, Section, TableCell, Tile
from apexsim.report.detail import CLASSES, gpu_seconds, layout_rows, rival_of, use_rows, why_rows
from apexsim.report.detail import PLAIN as KINDS
from apexsim.report.draw import percent, sig
from apexsim.report.energy import cost_rows, power_rows
from apexsim.report.figures import TITLES, objective_short, reached
from apexsim.report.further import room_rows, tuned_rows, turn_rows
from apexsim.report.intro import REPEATS, funnel_line, funnel_rows, understood
from apexsim.report.ranking import STATS, grammar, headroom_cell, limit_cell, marks, room_tokens, sure_cell
from apexsim.report.verdict import also, verdict
from apexsim.report.webcharts import curve_charts, front_chart
from apexsim.search.assess import Assessed, outcome_of
from apexsim.search.front import of_study
from apexsim.search.study import Study
from apexsim.units import GiB, format_seconds

DETAILED = 60  # plans whose launch lines and memory a click opens
COMPARED = 5  # plans with bars
SHARES = 100  # steps of a distribution
FOOT = ("Made by apexsim; this file is complete and loads nothing. Charts: uPlot (MIT licence, text in this file).",)
LATENCIES = ("ttft", "tpot", "e2e")
OPEN = "ttft,tpot"  # goals of a front where the load decides what is served
FEWEST = 20  # requests: a distribution of fewer is none


def page_of(study: Study) -> Page:
    """The whole report of a study."""
    best, setting = study.ranked[0], study.setting
    started = best if study.single or study.best is None else study.best
    aside = also(study)
    sections = [
        Section("launch", f"Launch {started.plan.shorthand}", [_launch(study, started)]),
        Section("plans", f"Ranked by {objective_short(study.goal.objective)}", [_table(study)]),
        *_drawn(study),
        Section("layouts", funnel_line(study), [_heat(study), Rows(funnel_rows(study))]) if not study.single else None,
        Section("tuned", "Settings worth a flag", [Rows(rows)]) if (rows := tuned_rows(study)) else None,
        Section("what if", "What would change the winner, by more than a tie", [Rows(rows)]) if (rows := turn_rows(study)) else None,
        Section("head-room", "The most load that plans hold", [Rows(rows)]) if (rows := room_rows(study)) else None,
        Section("against", "Against the earlier answer", [Rows(rows)]) if (rows := beforeafter.rows(study)) else None,
        Section("memory", "Memory of the tightest GPU, and where GPU time goes", [_memory(study), _time(study)]),
        Section("latency", f"Latencies of all requests, {best.plan.shorthand} and others", _distributions(study)),
        Section("course", f"{best.plan.shorthand} over time", _course(best)),
        Section("why", f"{best.plan.shorthand} in detail", [Rows(_detail(study, best))]),
        Section("question", "The question as it was understood", [Rows(understood(study))]),
        Section("sources", "Inputs, versions, provenance", [Rows(_sources(study, best))]),
    ]
    gpus = setting.cluster
    return Page(
        f"{setting.model.name} on {gpus.size} × {gpus.gpu.name}",
        (*verdict(study).sentences, *([f"Also: {aside}"] if aside else [])),
        [s for s in sections if s is not None and s.blocks],
        FOOT,
        {r.plan.shorthand: opened(study, r) for r in study.ranked[:DETAILED]},
    )


def _drawn(study: Study) -> list[Section]:
    """The front and the curves."""
    usual = OPEN if study.setting.workload.mode == "open" else USUAL
    front = of_study(study, study.goal.aims or parse_aims(usual))
    made = [Section("pareto", "What no other plan beats", [front_chart(front, study.goal.slos)])] if len(study.ranked) > 1 else []
    charts = curve_charts(study.curves, study.goal.slos)
    return [*made, *([Section("load", "Latency and throughput against the load", charts)] if charts else [])]


# ---- the table ---------------------------------------------------------------------------------------------------------

Column = tuple[str, str, Callable[[Study, Assessed], tuple[str, float]]]


def _latency(metric: str, stat: str) -> Column:
    return f"{TITLES[metric]} {stat}\n[ms]", "right", lambda study, r: _milli(r.metrics.latency(metric, stat))


def _milli(seconds: float) -> tuple[str, float]:
    return sig(1e3 * seconds), seconds


def _number(value: float) -> tuple[str, float]:
    return sig(value), value


def _columns(study: Study) -> list[Column]:
    place = {id(r): float(i + 1) for i, r in enumerate(study.ranked)}
    limited: list[Column] = [
        ("limits", "left", lambda s, r: (limit_cell(r), -r.key[0])),
        ("sure", "right", lambda s, r: (sure_cell(r), r.chance)),
    ] if study.goal.limited else []  # fmt: skip
    roomy: list[Column] = [
        ("head-\nroom", "right", lambda s, r: (headroom_cell(r), r.headroom.times if r.headroom else math.nan)),
    ] if any(r.headroom for r in study.ranked) else []  # fmt: skip
    return [
        ("#", "right", lambda s, r: (f"{place[id(r)]:.0f}", place[id(r)])),
        ("plan", "left", lambda s, r: (r.plan.shorthand, math.nan)),
        (objective_short(study.goal.objective), "right", lambda s, r: (reached(s, r, error=r is s.ranked[0]), r.value)),
        ("ratio", "right", lambda s, r: (f"{sig(r.ratio)}×" if math.isfinite(r.ratio) else "–", r.ratio)),
        *limited,
        *roomy,
        *(_latency(metric, stat) for metric in LATENCIES for stat in ("mean", "p95")),
        ("output\ntok/s", "right", lambda s, r: _number(r.metrics.output_throughput_tok_s)),
        ("tok/s/GPU\nin + out", "right", lambda s, r: _number(r.metrics.total_throughput_tok_s / r.metrics.devices)),
        ("$ per\n1M out", "right", lambda s, r: _number(r.metrics.usd_per_million)),
        ("J per\ntoken", "right", lambda s, r: _number(r.metrics.energy.per_output_token)),
        ("W per\nGPU", "right", lambda s, r: _number(r.metrics.energy.watts)),
        ("KV room\ntokens", "right", lambda s, r: (f"{room_tokens(r):,}", float(room_tokens(r)))),
        ("", "left", lambda s, r: (", ".join(marks(s, r)), math.nan)),
    ]


def _table(study: Study) -> PageTable:
    made = _columns(study)
    rows = [[TableCell(*cell(study, r)) for _, _, cell in made] for r in study.ranked]
    legend = grammar([r.plan.shorthand for r in study.ranked])
    keys = [r.plan.shorthand if i < DETAILED else "" for i, r in enumerate(study.ranked)]
    return PageTable(
        [head for head, _, _ in made],
        [side for _, side, _ in made],
        rows,
        keys,
        [*legend, ("click", "a plan for its launch lines, memory and time")],
    )


# ---- the heat map --------------------------------------------------------------------------------------------------------


def _heat(study: Study) -> Heat:
    """The best plan of each number of stages and layout of a stage; what cannot be, with its reason."""
    tiles: dict[tuple[int, str], Tile] = {}
    order: dict[str, tuple[int, ...]] = {}

    def place(plan: Plan) -> tuple[int, str]:
        name = _stage(plan)
        order[name] = (plan.stage_devices, -plan.attention.tp, -plan.ffn.tp)
        return plan.stages, name

    every = [run for run in (*study.ranked, *study.hypothetical) if not run.split]  # layouts of one pool
    best = study.ranked[0].value
    for run in every:
        tiles.setdefault(place(run.only.plan), _tile(study, run, best))
    for one in (r for r in study.rejected if r.rule != REPEATS):
        with_plan = _plan_of(one.shorthand)
        if with_plan is not None:
            at = place(with_plan)
            tiles.setdefault(at, Tile(_short(one.rule), math.nan, f"{one.shorthand}: {one.reason}"))
    stages = sorted({at[0] for at in tiles})
    names = sorted(order, key=lambda name: (order[name], name))
    apart = f" †: {study.setting.engine.name} cannot be started with it." if any(r.blocked for r in every) else ""
    note = f"{objective_short(study.goal.objective)} of the best plan of each layout of a stage; darker is better.{apart}"
    grid = [[tiles.get((n, name)) for name in names] for n in stages]
    return Heat([f"PP{n}" for n in stages], names, grid, f"{note} Orange cannot be: click for the reason.")


def _tile(study: Study, run: Assessed, best: float) -> Tile:
    ratio = study.goal.objective.ratio(run.value, best)  # 1 is the best, below 1 worse
    share = max(0.0, min(1.0, ratio)) if math.isfinite(ratio) else 0.0
    marked = " †" * bool(run.blocked) + " saturated" * run.metrics.saturated + " ✗" * (not run.keeps)
    why = f"{run.plan.shorthand}: {reached(study, run)}{marked}{f'; {run.blocked}' if run.blocked else ''}"
    key = run.plan.shorthand if not run.blocked or run in study.ranked[:DETAILED] else ""
    return Tile(f"{run.plan.shorthand}{marked}\n{reached(study, run)}", share, why, key)


def _stage(plan: Plan) -> str:
    """The layout of one stage, formats and clocks aside."""
    return Plan(1, 1, plan.attention, plan.ffn).shorthand


def _plan_of(shorthand: str) -> Plan | None:
    """The plan of a rejected one's name, if it is a plan's."""
    try:
        return parse_plan(shorthand)
    except InputError:
        return None


def _short(rule: str) -> str:
    return {"weights fit": "does not fit", "room for one request": "no room"}.get(rule, rule)


# ---- bars ------------------------------------------------------------------------------------------------------------------


def _memory(study: Study) -> Bars:
    rows = [
        (r.plan.shorthand, [(name, size / GiB, f"{size / GiB:.1f} GiB") for name, size in r.room.ledger if size > 0])
        for r in study.ranked[:COMPARED]
    ]
    return Bars(rows, f"Memory of one GPU, in GiB; numbers of {study.ranked[0].plan.shorthand}.")


def _time(study: Study) -> Bars:
    names = sorted(gpu_seconds(study.ranked[0]), key=lambda name: -gpu_seconds(study.ranked[0])[name])[:CLASSES]
    rows = []
    for run in study.ranked[:COMPARED]:
        spent = gpu_seconds(run)
        parts = [(KINDS.get(name, name), spent.get(name, 0.0)) for name in names]
        parts += [("other", sum(t for name, t in spent.items() if name not in names))]
        rows.append((run.plan.shorthand, [(name, t, f"{sig(t)} s") for name, t in parts if t > 0]))
    return Bars(rows, f"GPU seconds at work by kind; numbers of {study.ranked[0].plan.shorthand}.")


# ---- distributions and course ----------------------------------------------------------------------------------------------


def _distributions(study: Study) -> list[Chart]:
    """TTFT, TPOT and E2E as cumulative distributions."""
    rival = rival_of(study, study.ranked[0])
    runs = [study.ranked[0], *([rival] if rival else []), *(r for r in study.ranked[1:3] if r is not rival)][:3]
    runs = [r for r in runs if r.outcome is not None or r is study.ranked[0]]
    if study.setting.workload.size - study.setting.workload.warmup < FEWEST:
        return []
    times = [(r.plan.shorthand, times_of(study, r)) for r in runs]
    made = []
    for metric in LATENCIES:
        series = [_distribution(name, metric, found) for name, found in times]
        unit = f"{TITLES[metric]} [ms]"
        made.append(Chart(f"{TITLES[metric]}: share of requests below", unit, "%", series, zero=True))
    return made


def times_of(study: Study, run: Assessed) -> Times:
    """What clients saw of a run, warm-up left out."""
    work, outcome = study.setting.workload, outcome_of(study.setting, run)
    skip = work.warmup
    return Times(outcome.sent[skip:], outcome.first[skip:], outcome.finish[skip:], work.output[skip:])


def _distribution(name: str, metric: str, times: Times) -> ChartSeries:
    values = getattr(times, metric)
    values = values[times.several] if metric == "tpot" else values
    shares = np.linspace(0.0, 100.0, SHARES + 1)
    found = np.percentile(1e3 * values, shares) if len(values) else np.empty(0)
    return ChartSeries(name, found.tolist(), shares.tolist() if len(values) else [], line=True)


def _course(best: Assessed) -> list[Chart]:
    """KV cache, batch and queue of the first plan over time."""
    found = best.series
    over = f"time [s], {format_seconds(best.metrics.duration_s)} in all"
    rows: list[tuple[str, str, Sequence[tuple[str, Sequence[float]]]]] = [
        ("Requests at work and in the queue", "requests", [("running", found.running), ("waiting", found.waiting)]),
        ("KV cache in use", "%", [("KV cache", [100.0 * v for v in found.kv_share])]),
        ("A step's batch", "sequences, tokens", [("sequences", found.sequences), ("prompt tokens", found.prompt_tokens)]),
    ]
    return [
        Chart(title, over, unit, [ChartSeries(name, found.time, values, line=True) for name, values in series])
        for title, unit, series in rows
        if any(len(values) for _, values in series)
    ]


# ---- words -----------------------------------------------------------------------------------------------------------------


def _detail(study: Study, best: Assessed) -> list[tuple[str, str]]:
    rival = rival_of(study, best)
    rows = [
        *(row for side in best.sides for row in layout_rows(study.setting, side)),
        *use_rows(best),
        *cost_rows(study, best),
        *power_rows(study, best),
    ]
    return [*rows, *(why_rows(study, best, rival) if rival else [])]


def _launch(study: Study, best: Assessed) -> Code:
    started = launched(study.tuned.setting if study.tuned else study.setting, best.plan)
    return Code(started.script or "it cannot be started with this engine", started.notes)


def _sources(study: Study, best: Assessed) -> list[tuple[str, str]]:
    """What went in, by what rules, and the command that repeats it."""
    row = study.setting.engine
    verb = "simulate" if study.single else "plan"
    given = [(name.replace("_", " "), _said(value)) for name, value in explicit(study.inputs).items() if value != {}]
    rules = f"{row.name} {row.spoken}, rules of {row.version}" + (f" ({row.released})" if row.released else "")
    shares = ", ".join(f"{percent(share)} {name}" for name, share in sorted(best.account.provenance, key=lambda p: -p[1]))
    return [*given, ("engine's rules", rules), ("kernel times", f"{shares} (shares of the GPU time)"),
            ("again", again(verb, study.inputs, defaults()))]  # fmt: skip


def _said(value: Any) -> str:
    """A word of the question."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {v}" for name, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def opened(study: Study, run: Assessed) -> dict[str, Any]:
    """What a click on a plan shows."""
    started = launched(study.setting, run.plan)
    stats = [
        (TITLES[m], "  ".join(f"{stat} {sig(1e3 * run.metrics.latency(m, stat))}" for stat in STATS) + " ms")
        for m in (*LATENCIES, "itl")
        if math.isfinite(run.metrics.latency(m))
    ]
    memory = ", ".join(f"{name} {size / GiB:.1f}" for name, size in run.room.ledger if size > 0)
    spent = gpu_seconds(run)
    whole = sum(spent.values()) or 1.0
    times = ", ".join(f"{KINDS.get(n, n)} {percent(spent[n] / whole)}" for n in sorted(spent, key=lambda n: -spent[n])[:6])
    limits = [("limits", "; ".join(f"{m.name}: {percent(m.chance)} sure" for m in run.limits))] if run.limits else []
    rows = [*stats, *limits, ("memory [GiB]", memory), ("GPU time", times), ("bottleneck", str(run.account.bottleneck))]
    return {"title": f"{run.plan.shorthand}: {reached(study, run)}", "rows": rows, "script": started.script, "notes": list(started.notes)}
