"""Many combinations of one question as one page: the answer, the table, what each value is worth (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from apexsim.aims import Aim
from apexsim.api import defaults
from apexsim.cost.books import told
from apexsim.engines import EngineRow, differences
from apexsim.report import curvepage, frontpage
from apexsim.report.again import again
from apexsim.report.apart import launched
from apexsim.report.draw import sig
from apexsim.report.figures import bare_with_error, listed, objective_short, reached, scale_for, sentence, unit_for
from apexsim.report.jsonout import margin_json
from apexsim.report.page import columns, heading, labelled, page, pasted
from apexsim.report.plain import clean
from apexsim.report.ranking import (
    HEADROOM,
    SATURATED,
    RankedColumn,
    grammar,
    headroom_cell,
    headroom_words,
    limit_cell,
    limit_words,
    sure_cell,
)
from apexsim.report.ranking import OTHERS as OF_PLANS
from apexsim.report.verdict import sure
from apexsim.search.assess import Assessed
from apexsim.search.curve import curves_of
from apexsim.search.front import Front
from apexsim.search.study import LoadCurve, Study
from apexsim.search.sweep import LOADS, Sweep, SweepPoint, SweptAxis, Value

FORMAT = "apexsim.sweep/1"
TOP = 40  # combinations shown of a scenario
TITLES = {
    "model": "model", "gpu": "GPU", "gpus": "GPUs\nper node", "nodes": "nodes", "engine": "engine", "max_num_seqs": "sequences",
    "max_num_batched_tokens": "batched\ntokens", "memory_fraction": "memory\nfraction", "block_size": "block", "capture": "captured",
    "kv_dtype": "KV",
    "weight_dtype": "weights", "sampling": "sampling", "route": "route", "tp": "TP", "pp": "PP", "dp": "DP", "ep": "EP",
    "request_rate": "requests/s",
    "concurrency": "users", "prompt_len": "prompt", "output_len": "output", "num_requests": "requests", "burstiness": "burstiness",
}  # fmt: skip


def render(sweep: Sweep, *, width: int | None = None, color: bool = False, top: int = TOP, everything: bool = False) -> str:
    """The whole page.  width: columns of the terminal, if any; top: combinations shown of a scenario."""
    return page(_parts(sweep, width or math.inf, top, everything), color)


def _parts(sweep: Sweep, width: float, top: int, everything: bool) -> Iterator[RenderableType]:
    yield heading("apexsim", f"{sweep.model}: {axes_words(sweep)}", width=width)
    yield labelled([("answer", " ".join(sentences(sweep)))], width)
    for load, group in sweep.scenarios:
        yield Text()
        title = load_words(sweep, load)
        yield heading("ranked", ", ".join(filter(None, [f"by {objective_short(sweep.goal.objective)}", title])), width=width)
        if group:
            shown = group if everything else group[:top]
            made = _fitting(sweep, group, shown, width)
            yield columns([(c.title, c.side) for c in made], list(zip(*(c.cells for c in made))), bold=0)
            yield labelled([*_legend(sweep, group, shown), *_worth(sweep, group), *_releases(sweep, group)], width)
        missing = [p for p in sweep.points if p.study is None and _load_of(sweep, p) == load]
        yield labelled(
            [("no room" if not i else "", ": ".join(filter(None, (words(sweep, p), p.why)))) for i, p in enumerate(missing)], width
        )
    yield from curvepage.parts(curves(sweep), width)
    if sweep.goal.aims:
        yield from frontpage.parts(front_of(sweep), width)
    best = sweep.best
    if best is None or best.study is None:
        return
    yield Text()
    started = launched(best.study.setting, best.first.plan)
    yield heading("launch", ", ".join(filter(None, (best.first.plan.shorthand, words(sweep, best)))), width=width)
    if started.runnable:
        yield Text(started.script, no_wrap=True)
    yield labelled([("", note) for note in started.notes], width)
    yield Text()
    yield heading("next", width=width)
    yield labelled([("then", pasted(line, width)) for line in [_alone(sweep, best)] if line], width)


# ---- the answer -------------------------------------------------------------------------------------------------------


def sentences(sweep: Sweep) -> list[str]:
    """Which combination is best under each load, which the cheapest that keeps the limits, and how sure that is."""
    found = [each for load, group in sweep.scenarios for each in _answer(sweep, load, group)]
    if sweep.interrupted:
        found.insert(0, "Interrupted after {} of {} combinations: a better one may be among the others.".format(*sweep.interrupted))
    best = sweep.best
    if best is not None and best.study is not None:
        found.append(sure(best.study, best.first, best.first.limits))
    return found


def _answer(sweep: Sweep, load: tuple[Value, ...], group: Sequence[SweepPoint]) -> list[str]:
    at = load_words(sweep, load)
    head = f"At {at} " if at else ""
    if not group:
        return [sentence(f"{head}nothing fits")]
    best = group[0]
    limits = best.first.limits
    name = named(sweep, best)
    reach = f"{objective_short(sweep.goal.objective)} {value(best, error=True)}"
    if not best.first.keeps:
        missed = f"no combination keeps {listed([m.name for m in limits])}; {name} comes nearest: {limit_cell(best.first)}"
        return [sentence(f"{head}{missed}")]
    if best.first.metrics.saturated:
        return [sentence(f"{head}no combination keeps up with the load; {name} is the fastest: {reach}")]
    keeping = [p for p in group if sweep.good(p)]
    tied = [words(sweep, p) for p in keeping[1:] if sweep.ties(p, best)]
    like = f"; {listed(tied[:3])}{' and others' * (len(tied) > 3)} cannot be told apart from it" if tied else ""
    keeps = (
        f"{len(keeping)} of {len(group)} keep{'s' * (len(keeping) == 1)} {'the limits and ' * bool(limits)}the load"
        if len(keeping) < len(group)
        else ""
    )
    told_ = [f"{head}{name} is best: {reach}{_rent_words(best)}{like}."]
    cheap = sweep.cheapest(group)
    if cheap is not None and cheap is not best and not sweep.rent(cheap) >= sweep.rent(best):
        told_.append(f"Cheapest that keeps {'the limits' if limits else 'up'}: {named(sweep, cheap)}, {value(cheap)}{_rent_words(cheap)}.")
    unknown = sorted({p.study.setting.cluster.gpu.name for p in keeping if p.study and math.isnan(sweep.rent(p))}) if cheap else []
    told_ += [f"No rent of {listed(unknown, 'or')} is known, so what is cheapest is said without."] if unknown else []
    return [*told_, f"{keeps}."] if keeps else told_


def _rent_words(point: SweepPoint) -> str:
    rent = Sweep.rent(point)
    return f", ${sig(rent)} per hour" if math.isfinite(rent) else ""


def value(point: SweepPoint, error: bool = False) -> str:
    """What a combination reaches of the objective, with its unit."""
    return reached(_study(point), point.first, error)


def _study(point: SweepPoint) -> Study:
    assert point.study is not None
    return point.study


# ---- words of a combination -------------------------------------------------------------------------------------------


def front_of(sweep: Sweep, aims: tuple[Aim, ...] = ()) -> Front:
    """The Pareto front of all combinations, each with its words and its load."""
    return sweep.front(lambda p: ", ".join(filter(None, (words(sweep, p), load_words(sweep, _load_of(sweep, p))))), aims)


def curves(sweep: Sweep) -> tuple[LoadCurve, ...]:
    """Every combination against the load."""
    return curves_of(sweep, partial(words, sweep))


def axes_words(sweep: Sweep) -> str:
    """12 combinations of 3 GPUs and 4 engines; a list of one value makes none."""
    several = listed([f"{len(axis.values)} {_plural(axis)}" for axis in sweep.axes if len(axis.values) > 1])
    count = sweep.interrupted[1] if sweep.interrupted else len(sweep.points)
    return f"{count} combinations of {several}" if several else "1 combination"


def _plural(axis: SweptAxis) -> str:
    return PLURALS.get(axis.name, f"values of {TITLES[axis.name]}".replace("\n", " "))


def _load_of(sweep: Sweep, point: SweepPoint) -> tuple[Value, ...]:
    return tuple(v for axis, v in zip(sweep.axes, point.values) if axis.name in LOADS)


def load_words(sweep: Sweep, load: tuple[Value, ...]) -> str:
    names = [axis.name for axis in sweep.axes if axis.name in LOADS]
    return listed([f"{_cell(value)} {UNITS.get(name, name)}" for name, value in zip(names, load)])


PLURALS = {"gpu": "GPUs", "gpus": "counts of GPUs", "engine": "engines", "model": "models", "request_rate": "rates",
           "concurrency": "numbers of users", "nodes": "numbers of nodes"}  # fmt: skip
UNITS = {"request_rate": "requests/s", "concurrency": "users", "prompt_len": "prompt tokens", "output_len": "output tokens",
         "num_requests": "requests"}  # fmt: skip
NAMED = {"gpus": "{} per node", "nodes": "{} nodes", "max_num_batched_tokens": "{} batched tokens", "max_num_seqs": "{} sequences",
         "memory_fraction": "memory fraction {}", "block_size": "blocks of {}", "capture": "graphs to {}",
         "kv_dtype": "{} KV", "weight_dtype": "{} weights",
         "tp": "TP{}", "pp": "PP{}", "dp": "DP{}", "ep": "EP{}"}  # fmt: skip


def words(sweep: Sweep, point: SweepPoint) -> str:
    """4 × l40s, vllm, 2,048 batched tokens."""
    given = {axis.name: _cell(value) for axis, value in zip(sweep.axes, point.values) if axis.name not in LOADS}
    if "gpu" in given:
        count = given.pop("gpus", "")
        name = given.pop("gpu")
        given = {"gpu": f"{count} × {name}" if count else name, **given}
    elif "gpus" in given and point.study is not None:
        given = {"gpu": f"{given.pop('gpus')} × {point.study.setting.cluster.gpu.name}", **given}
    if "model" in given:
        given = {"model": given.pop("model"), **given}
    return ", ".join(NAMED.get(name, "{}").format(text) for name, text in given.items())


def named(sweep: Sweep, point: SweepPoint) -> str:
    """4 × l40s (2×TP2); the plan alone where only loads have several values."""
    told_, plan = words(sweep, point), point.first.plan.shorthand
    return f"{told_} ({plan})" if told_ else plan


def _cell(value: Value) -> str:
    if value == math.inf:
        return "∞"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


# ---- the table ---------------------------------------------------------------------------------------------------------


def _fitting(sweep: Sweep, group: Sequence[SweepPoint], shown: Sequence[SweepPoint], width: float) -> list[RankedColumn]:
    """The columns that fit, the least wanted left out first."""
    made = _columns(sweep, group, shown)
    for extra in reversed(OTHERS):
        if sum(c.width for c in made) <= width:
            break
        made = [c for c in made if c.title != extra]
    return made


def _columns(sweep: Sweep, group: Sequence[SweepPoint], shown: Sequence[SweepPoint]) -> list[RankedColumn]:
    choices = [(i, axis) for i, axis in enumerate(sweep.axes) if axis.name not in LOADS]
    limited = sweep.goal.limited
    objective = sweep.goal.objective
    scale = unit_for(objective, max((p.first.value for p in shown if sweep.good(p)), default=shown[0].first.value))

    def column(title: str, side: str, cell: Callable[[SweepPoint], str]) -> RankedColumn:
        return RankedColumn(title, side, tuple(cell(p) for p in shown))

    def reach(point: SweepPoint) -> str:
        return bare_with_error(point.first.value, scale, _study(point).error[0])

    made = [column("#", "right", lambda p: str(group.index(p) + 1))]
    for i, axis in choices:
        side = "left" if isinstance(axis.values[0], str) else "right"
        made.append(column(TITLES[axis.name], side, partial(_value_of, i)))
    made.append(column("plan", "left", lambda p: p.first.plan.shorthand))
    made.append(column(f"{objective_short(objective)}\n[{scale.unit}]", "right", reach))
    if limited:
        made += [column("limits", "left", lambda p: limit_cell(p.first)), column("sure", "right", lambda p: sure_cell(p.first))]
    if any(p.first.headroom for p in group):
        made.append(column(HEADROOM, "right", lambda p: headroom_cell(p.first)))
    for title, (name, cell) in _EXTRA.items():
        if name != objective.name:
            made.append(column(title, "right", cell))
    made.append(column("", "left", lambda p: _mark(sweep, p, group[0])))
    return [c for c in made if c.title or any(c.cells)]


def _value_of(i: int, point: SweepPoint) -> str:
    return _cell(point.values[i])


def _latency(name: str, stat: str) -> Callable[[SweepPoint], str]:
    def cell(point: SweepPoint) -> str:
        seconds = point.first.metrics.latency(name, stat)
        return scale_for(seconds)(seconds)

    return cell


def _of_plan(cell: Callable[[Study, Assessed], str], point: SweepPoint) -> str:
    """A cell of the table of plans."""
    return cell(_study(point), point.first)


# title -> (objective that it repeats, cell), the most wanted first
_EXTRA: dict[str, tuple[str, Callable[[SweepPoint], str]]] = {
    "$ per\nhour": ("", lambda p: sig(Sweep.rent(p))),
    "TTFT\np95": ("ttft:p95", _latency("ttft", "p95")),
    "TPOT\np95": ("tpot:p95", _latency("tpot", "p95")),
    **{
        OF_PLANS[name][0]: (repeats, partial(_of_plan, OF_PLANS[name][1]))
        for name, repeats in (("per GPU", "throughput"), ("$ per 1M", "cost"), ("KV room", ""))
    },
}
OTHERS = tuple(_EXTRA)


def _mark(sweep: Sweep, point: SweepPoint, best: SweepPoint) -> str:
    if point.first.metrics.saturated:
        return "saturated"
    return "≈ the first" if point is not best and sweep.ties(point, best) else ""


def _legend(sweep: Sweep, group: Sequence[SweepPoint], shown: Sequence[SweepPoint]) -> list[tuple[str, str]]:
    found = grammar([p.first.plan.shorthand for p in shown])
    if sweep.goal.limited:
        found += limit_words(sweep.goal, [p.first for p in shown])
    if sweep.inputs.get("headroom") and not any(p.first.headroom for p in group):
        from apexsim.search.headroom import none_of

        found.append(("head-room", f"none is known: {none_of(_study(group[0]))}"))
    if any(p.first.headroom for p in group):
        found.append(headroom_words(sweep.goal))
    marks = {_mark(sweep, p, group[0]) for p in shown}
    words = {"saturated": SATURATED,
             "≈ the first": "a tie: the difference is within the errors of the predictions"}  # fmt: skip
    found += [(mark, words[mark]) for mark in words if mark in marks]
    usd, book = _study(shown[0]).setting.price
    found += [("$", told(book))] if math.isfinite(usd) else []
    hidden = len(group) - len(shown)
    return [*found, ("…", f"{hidden} more with --all")] if hidden else found


def _releases(sweep: Sweep, group: Sequence[SweepPoint]) -> list[tuple[str, str]]:
    """What differs between the releases of one engine that were asked for, each against the one before."""
    where = next((i for i, axis in enumerate(sweep.axes) if axis.name == "engine"), -1)
    if where < 0:
        return []
    rows = {str(p.values[where]): _study(p).setting.engine for p in group}
    asked = [str(value) for value in sweep.axes[where].values if str(value) in rows]
    pairs = [(a, b) for a, b in pairwise(asked) if rows[a].name == rows[b].name]
    said = [f"{a} → {b}  {_differing(rows[a], rows[b])}" for a, b in pairs]
    return [("releases" if not i else "", text) for i, text in enumerate(said)]


def _differing(before: EngineRow, now: EngineRow) -> str:
    found = [f"{name} {_short(a)} → {_short(b)}" for name, a, b in differences(before, now)]
    return "; ".join(found) or "nothing that is known"


def _short(value: Any) -> str:
    """1 2 4 … 512 of sizes; other constants as they are."""
    if isinstance(value, tuple):
        return f"up to {value[-1]} in {len(value)} sizes" if value else "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value) or "none"


def _worth(sweep: Sweep, group: Sequence[SweepPoint]) -> list[tuple[str, str]]:
    """What each value of a choice is worth: its best combination against the best of all."""
    rows = []
    for axis in sweep.axes:
        if axis.name in LOADS or len(axis.values) < 2:
            continue
        told_ = [f"{_cell(value)}: {_against(sweep, point, group[0])}" for value, point in sweep.worth(axis, group)]
        rows.append((TITLES[axis.name].replace("\n", " "), "; ".join(told_)))
    return [("worth" if not i else "", f"{name}  {text}") for i, (name, text) in enumerate(rows)]


def _against(sweep: Sweep, point: SweepPoint | None, best: SweepPoint) -> str:
    if point is None:
        return "does not fit"
    if point is best:
        return "best"
    if not point.first.keeps and best.first.keeps:
        return f"misses the limits ({limit_cell(point.first)})"
    if point.first.metrics.saturated and not best.first.metrics.saturated:
        return "does not keep up"
    if sweep.ties(point, best):
        return "a tie"
    behind = sweep.goal.behind(point.first.metrics, best.first.metrics)
    return f"{sig(behind)}× worse" if math.isfinite(behind) else "reaches nothing"


def _alone(sweep: Sweep, best: SweepPoint) -> str:
    """The best combination alone."""
    one = {axis.name: value for axis, value in zip(sweep.axes, best.values)}
    inputs: dict[str, Any] = {"model": sweep.model, **_study(best).inputs}
    return again("plan", inputs, defaults(), **one)


# ---- JSON --------------------------------------------------------------------------------------------------------------


def sweep_json(sweep: Sweep) -> dict[str, Any]:
    """Every combination as plain values, in the order of the question, with its place in its scenario."""
    place = {id(p): i + 1 for _, group in sweep.scenarios for i, p in enumerate(group)}
    best = {id(group[0]): group[0] for _, group in sweep.scenarios if group}
    cheap = {id(found) for _, group in sweep.scenarios if (found := sweep.cheapest(group)) is not None}
    return clean({
        "format": FORMAT,
        "model": sweep.model,
        "axes": [{"name": axis.name, "values": list(axis.values), "load": axis.name in LOADS} for axis in sweep.axes],
        "objective": str(sweep.goal.objective),
        "slos": [str(slo) for slo in sweep.goal.slos],
        "sentences": sentences(sweep),
        "keeps": sweep.keeps,
        "interrupted": dict(zip(("done", "of"), sweep.interrupted)) if sweep.interrupted else None,
        "pareto": frontpage.front_json(front_of(sweep)) if sweep.goal.aims else None,
        "curves": [curvepage.curve_json(curve) for curve in curves(sweep)],
        "points": [_point(sweep, p, place.get(id(p)), id(p) in best, id(p) in cheap) for p in sweep.points],
    })  # fmt: skip


def _point(sweep: Sweep, point: SweepPoint, rank: int | None, best: bool, cheapest: bool) -> dict[str, Any]:
    values = {axis.name: value for axis, value in zip(sweep.axes, point.values)}
    if point.study is None:
        return {"values": values, "fits": False, "why": point.why}
    study, first = point.study, point.first
    return {
        "values": values, "fits": True, "rank": rank, "best": best, "cheapest": cheapest, "plan": first.plan.shorthand,
        "gpu": study.setting.cluster.gpu.name, "gpus": first.metrics.devices, "engine": study.setting.engine.label,
        "value": first.value, "error": study.error[0], "keeps": first.keeps, "saturated": first.metrics.saturated,
        "limits": [margin_json(m) for m in first.limits], "usd_per_hour": Sweep.rent(point),
        "metrics": first.metrics.to_json(), "launch_commands": list(launched(study.setting, first.plan).commands),
        **({"headroom": asdict(first.headroom)} if first.headroom else {}),
    }  # fmt: skip
