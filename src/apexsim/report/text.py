"""A Study as a page of text (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from apexsim.objective import OBJECTIVES, parse_objective
from apexsim.report.detail import course_rows, layout_rows, memory_rows, rival_of, time_table, use_rows, why_rows
from apexsim.report.draw import sig, times
from apexsim.report.energy import cost_rows, power_rows
from apexsim.report.intro import funnel_line, funnel_rows, objective_words, understood
from apexsim.report.launch import again, launch, nearest_runnable
from apexsim.report.page import Row, columns, heading, labelled, page
from apexsim.report.ranking import ranking
from apexsim.search.study import Ranked, Study
from apexsim.slo import parse_slos

TOP = 10  # plans shown
WIDEST = 160  # columns of the funnel


def render(
    study: Study, *, width: int | None = None, color: bool = False, top: int = TOP, everything: bool = False
) -> str:
    """The whole report.  width: columns of the terminal, if any; everything: every plan with every statistic."""
    return page(_parts(study, width or math.inf, top, everything), color)


def _parts(study: Study, width: float, top: int, everything: bool) -> Iterator[RenderableType]:
    gpus = study.setting.cluster
    single = "plan" in study.inputs
    title = f"{study.setting.model.name.replace('--', '/')} on {gpus.size} × {gpus.gpu.name}"
    yield heading("apexsim", title)
    yield labelled(understood(study), width)
    if not single:
        yield Text()
        yield heading("plans", funnel_line(study))
        yield columns([("", "right"), ("", "left"), ("", "left")], funnel_rows(study), width=min(width, WIDEST))
    yield Text()
    yield from _ranked(study, width, top, everything, single)
    yield Text()
    yield from _detail(study, study.ranked[0], width)
    yield Text()
    yield from _launch(study, width)
    yield Text()
    yield heading("next")
    yield labelled([("then", line) for line in _suggestions(study)], width)


def _ranked(study: Study, width: float, top: int, everything: bool, single: bool) -> Iterator[RenderableType]:
    shown = chosen(study, len(study.ranked) if everything else top)
    made, more = ranking(study, shown, width, everything)
    hidden = len(study.ranked) - len(shown)
    remarks = [*([f"{hidden} more with --all"] if hidden else []), *more]
    yield heading("simulated" if single else "ranked", f"by {study.objective}")
    yield columns([(c.title, c.side) for c in made], list(zip(*(c.cells for c in made))), bold=0)
    if remarks or study.heuristic_note:
        yield labelled([("", "; ".join([*remarks, *([study.heuristic_note] if study.heuristic_note else [])]))], width)


def chosen(study: Study, top: int) -> list[Ranked]:
    """The first `top` plans, and the heuristic one wherever it stands."""
    return [r for i, r in enumerate(study.ranked) if i < top or r.plan.shorthand == study.heuristic]


def _detail(study: Study, best: Ranked, width: float) -> Iterator[RenderableType]:
    rival = rival_of(study, best)
    yield heading(f"{best.plan.shorthand} in detail", _standing(study, best))
    yield labelled([*layout_rows(study.setting, best), *memory_rows(best)], width)
    heads, rows = time_table(best, rival)
    yield columns(heads, rows)
    used = [*use_rows(best), *cost_rows(study, best), *power_rows(study, best), *course_rows(study.setting, best)]
    yield labelled([*used, *(why_rows(study, best, rival) if rival else [])], width)


def _standing(study: Study, best: Ranked) -> str:
    """The objective with its error bar, and against the heuristic plan."""
    objective = parse_objective(study.objective, parse_slos(study.slos))
    unit, shown = OBJECTIVES[objective.name].unit, objective.shown(best.metrics)
    beside = (
        "the heuristic plan"
        if best.plan.shorthand == study.heuristic
        else f"{times(best.ratio)} as good as the heuristic plan"
    )
    return f"{objective_words(objective)} {sig(shown)} ± {sig(shown * study.error[0], 2)} {unit}; {beside}"


def _launch(study: Study, width: float) -> Iterator[RenderableType]:
    """How to start the best plan, or the nearest that the engine can start, as text that can be pasted."""
    best = study.ranked[0]
    started, rest = launch(study.setting, best.plan), ""
    rows: list[Row] = [("", note) for note in started.notes]
    if not started.runnable and (other := nearest_runnable(study)):
        ranked, started = other
        rest = f"nearest: {ranked.plan.shorthand}, {times(ranked.value / best.value)} the objective"
        rows += [("", note) for note in started.notes]
    yield heading("launch", rest)
    if started.runnable:
        yield Text(started.script, no_wrap=True)
    yield labelled(rows, width)


def _suggestions(study: Study) -> list[str]:
    """Two or three commands that look further."""
    from inspect import signature

    from apexsim.api import ask

    defaults = {name: p.default for name, p in signature(ask).parameters.items()} | {"slos": ()}
    inputs = {k: v for k, v in study.inputs.items() if k != "plan"}
    if "plan" in study.inputs:
        return [again("plan", inputs, defaults), again("plan", inputs, defaults, json="study.json")]
    second = study.ranked[1].plan.shorthand if len(study.ranked) > 1 else study.ranked[0].plan.shorthand
    limit = max(1, round(2e3 * study.ranked[0].metrics.ttft.p95))
    slo = study.inputs.get("slos") or (f"ttft:p95<{limit}ms",)
    return [
        again("simulate", inputs, defaults, plan=second, quant=None, clock=None),  # the plan names its own
        again("plan", inputs, defaults, objective="throughput", slos=slo),
        again("plan", inputs, defaults, json="study.json") + " --all",
    ]
