"""A Study as a page of text: the answer first (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from apexsim.api import defaults
from apexsim.plan.split import AnyPlan, pools_of
from apexsim.report import frontpage, further
from apexsim.report.again import again
from apexsim.report.apart import launched
from apexsim.report.detail import course_rows, rival_of, time_table, use_rows, why_rows
from apexsim.report.draw import times
from apexsim.report.energy import cost_rows, power_rows
from apexsim.report.figures import objective_short, objective_words, reached
from apexsim.report.intro import funnel_line, funnel_rows, understood
from apexsim.report.page import columns, heading, labelled, page, pasted
from apexsim.report.pools import pool_rows, worth_rows
from apexsim.report.ranking import ranking
from apexsim.report.reuse import class_rows, reuse_rows, stage_rows
from apexsim.report.verdict import also, verdict
from apexsim.search.assess import Assessed
from apexsim.search.front import of_study
from apexsim.search.study import Study
from apexsim.workload.load import mean_rate

TOP = 10  # plans shown
WIDEST = 160  # columns of the funnel
LIMITS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # s that a limit on TTFT may be suggested with


def render(study: Study, *, width: int | None = None, color: bool = False, top: int = TOP, everything: bool = False) -> str:
    """The whole report.  width: columns of the terminal, if any; everything: every plan with every statistic."""
    return page(_parts(study, width or math.inf, top, everything), color)


def _parts(study: Study, width: float, top: int, everything: bool) -> Iterator[RenderableType]:
    gpus = study.setting.cluster
    yield heading("apexsim", f"{study.setting.model.name} on {gpus.size} × {gpus.gpu.name}", width=width)
    aside = also(study)
    yield labelled([("answer", verdict(study).text), *([("also", aside)] if aside else []), *worth_rows(study)], width)
    yield Text()
    yield heading("question", width=width)
    yield labelled(understood(study), width)
    if not study.single:
        yield Text()
        yield heading("plans", funnel_line(study), width=width)
        yield columns([("", "left"), ("", "left")], funnel_rows(study), width=min(width, WIDEST))
    yield Text()
    yield from _ranked(study, width, top, everything)
    if study.goal.aims:
        yield from frontpage.parts(of_study(study), width)
    yield from further.parts(study, width)
    yield Text()
    yield from _detail(study, study.ranked[0], width)
    yield Text()
    yield from _launch(study, width)
    yield heading("next", width=width)
    yield labelled([("then", pasted(line, width)) for line in _suggestions(study) if line], width)


def _ranked(study: Study, width: float, top: int, everything: bool) -> Iterator[RenderableType]:
    shown = chosen(study, len(study.ranked) if everything else top)
    made = ranking(study, shown, width, everything)
    hidden = len(study.ranked) - len(shown)
    yield heading("simulated" if study.single else "ranked", f"by {objective_short(study.goal.objective)}", width=width)
    yield columns([(c.title, c.side) for c in made.columns], list(zip(*(c.cells for c in made.columns))), bold=0)
    more = [f"{hidden} more plan{'s' * (hidden > 1)} with --all"] if hidden else []
    more += [] if made.whole else ["more columns on a wider page"]
    rows = [*([("all", "; ".join(made.same))] if made.same else []), *made.legend]
    rows += [("…", "; ".join(more))] if more else []
    yield labelled(rows, width)


def chosen(study: Study, top: int) -> list[Assessed]:
    """The first `top` plans, and the heuristic one wherever it stands."""
    return [r for i, r in enumerate(study.ranked) if i < top or r.plan.shorthand == study.heuristic]


def _detail(study: Study, best: Assessed, width: float) -> Iterator[RenderableType]:
    rival = rival_of(study, best)
    yield heading(f"{best.plan.shorthand} in detail", _standing(study, best), width=width)
    yield labelled(pool_rows(study, best, width), width)
    heads, rows = time_table(best, rival, width)
    yield columns(heads, rows)
    used = [*use_rows(best), *cost_rows(study, best), *power_rows(study, best), *course_rows(study, best, width),
            *reuse_rows(study.setting, best), *stage_rows(best.metrics), *class_rows(best.metrics)]  # fmt: skip
    yield labelled([*used, *(why_rows(study, best, rival) if rival else [])], width)


def _standing(study: Study, best: Assessed) -> str:
    """The objective with its error bar, and against the heuristic plan."""
    if best.plan.shorthand == study.heuristic:
        beside = "; the heuristic plan"
    elif math.isfinite(best.ratio):
        beside = f"; {times(best.ratio)} as good as the heuristic plan {study.heuristic}"
    else:
        beside = ""
    return f"{objective_words(study.goal.objective)} {reached(study, best, error=True)}{beside}"


def _launch(study: Study, width: float) -> Iterator[RenderableType]:
    """How to start the plan, from the first column on so that it can be pasted, and what to know about it."""
    best = study.ranked[0] if study.single else study.best
    if best is None:
        return
    moved = study.tuned is not None and bool(study.tuned.moves)
    started = launched(study.tuned.setting if study.tuned else study.setting, best.plan)
    yield heading("launch", f"{best.plan.shorthand}{', tuned' * moved}", width=width)
    if started.runnable:
        yield Text(started.script, no_wrap=True)
    yield labelled([("", note) for note in started.notes], width)
    yield Text()


def _suggestions(study: Study) -> list[str]:
    """Two or three commands that look further."""
    inputs = {k: v for k, v in study.inputs.items() if k != "plan"}
    if study.single:
        searched = _searched(study.ranked[0].plan)
        return [again("plan", inputs, defaults(), **searched), again("plan", inputs, defaults(), **searched, json="study.json")]
    lines = [again("plan", inputs, defaults(), **remedy.changes) for remedy in study.remedies[:2]]
    second = next((r.plan for r in study.ranked[1:] if not r.blocked), None)
    if second and not lines:  # the plan names its own format and clock
        alone = dict.fromkeys(("quant", "clock", "speculate", "hypothetical", "pareto", "tune", "sensitivity", "headroom"))
        alone |= {"weight_dtype": None} if any(pool.precision.tag for pool in pools_of(second)) else {}
        lines.append(again("simulate", inputs, defaults(), plan=second.shorthand, **alone))
    lines += [again("plan", inputs, defaults(), **change) for change in _further(study)]
    return [*lines, again("plan", inputs, defaults(), json="study.json", all=True)]


def _searched(plan: AnyPlan) -> dict[str, object]:
    """The question that ranks others beside a plan: any widths, in the format and at the clock that it names, with its drafts."""
    widths = dict.fromkeys(("tp", "pp", "dp", "ep", "enable_expert_parallel"))
    tag = {"quant": plan.precision.tag, "weight_dtype": None} if plan.precision.tag else {}
    drafts = {"speculate": str(plan.draft)} if plan.draft else {}
    return widths | tag | drafts | ({"clock": str(plan.clock)} if plan.clock else {})


def _further(study: Study) -> list[dict[str, object]]:
    """One change of the question that is worth a look where the answer is a good one."""
    work, first = study.setting.workload, study.ranked[0]
    if not first.keeps or first.metrics.saturated or work.mode == "offline":
        return []
    if not study.goal.slos:
        limit = next((x for x in LIMITS if x >= 1.5 * first.metrics.ttft.p95), None)
        return [{"slos": (f"ttft:p95={limit:g}s" if limit >= 1 else f"ttft:p95={1e3 * limit:g}ms",)}] if limit else []
    if work.mode == "closed":
        return [{"concurrency": 2 * work.concurrency}] if 4 * work.concurrency <= work.size else []
    rate = study.inputs.get("request_rate") or mean_rate(work.arrive)
    return [{"request_rate": float(f"{2 * rate:.3g}")}] if math.isfinite(rate) else []
