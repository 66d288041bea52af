"""What a search looked at beside its plans: settings worth a flag, and what would change the winner (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from apexsim.engines import flags_of, our_flag
from apexsim.report import beforeafter
from apexsim.report.apart import launched
from apexsim.report.draw import change, sig, times
from apexsim.report.figures import listed, objective_short, reached, scale_of, sentence
from apexsim.report.page import Row, heading, labelled
from apexsim.search.assess import Assessed
from apexsim.search.study import SettingMove, Study, Turn

COMPARED = (("ttft", "p95"), ("tpot", "p95"), ("itl", "p99"), ("e2e", "mean"))
WORTH = 0.01  # relative change of a metric that is told


def parts(study: Study, width: float) -> Iterator[RenderableType]:
    """The sections of a page."""
    for title, rows in (
        ("tuned", tuned_rows(study)),
        ("what if", turn_rows(study)),
        ("head-room", room_rows(study)),
        ("against", beforeafter.rows(study)),
    ):
        if rows:
            yield Text()
            yield heading(title, TOLD[title](study), width=width)
            yield labelled(rows, width)


TOLD: dict[str, Callable[[Any], str]] = {
    "against": lambda study: "the first plan of an earlier answer → this one",
    "head-room": lambda study: "the most load that plans hold",
    "tuned": lambda study: f"{study.tuned.tried} settings of {study.tuned.run.plan.shorthand} simulated",
    "what if": lambda study: f"what would change the winner, {study.ranked[0].plan.shorthand}, by more than a tie",
}


# ---- settings -----------------------------------------------------------------------------------------------------------


def tuned_rows(study: Study) -> list[Row]:
    """Each flag that is worth a change with the reason, what they come to, and what is left alone."""
    found = study.tuned
    if found is None:
        return []
    rows = [(flag(study, move.name), _moved(study, move)) for move in found.moves]
    apart = listed([flag(study, name) for name in found.apart])
    if not found.moves:
        return [("", f"Nothing to change: no value of {apart} is better than a tie." if apart else "All settings are given.")]
    rows.append(("together", f"{objective_short(study.goal.objective)} {_before_after(study, found.start, found.run)}"))
    rows += [("left alone", f"{apart}: no value is better than a tie")] if apart else []
    return rows


def flag(study: Study, name: str) -> str:
    """The engine's own word for a setting."""
    row = study.setting.engine
    return flags_of(row.name).get(name, our_flag(name))


def _moved(study: Study, move: SettingMove) -> str:
    told = _compared(study, move.without, move.found)
    return sentence(f"{_number(move.before)} → {_number(move.after)}: {move.why}{f'; without it {told}' if told else ''}")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _before_after(study: Study, start: Assessed, run: Assessed) -> str:
    state = "" if start.keeps == run.keeps else ", which now keeps the limits"
    keeps_up = ", which now keeps up with the load" if start.metrics.saturated and not run.metrics.saturated else ""
    return f"{reached(study, start)} → {reached(study, run)} ({change(run.value, start.value)}){state}{keeps_up}"


def _compared(study: Study, without: Assessed, found: Assessed) -> str:
    words = []
    for metric, stat in COMPARED:
        a, b = found.metrics.latency(metric, stat), without.metrics.latency(metric, stat)
        if math.isfinite(a) and math.isfinite(b) and b > 0 and abs(a / b - 1.0) >= WORTH:
            scale = scale_of(study, metric)
            words.append(f"{metric.upper()} {stat} is {scale.bare(b)}, not {scale(a)}")
    a, b = found.metrics.output_throughput_tok_s, without.metrics.output_throughput_tok_s
    words += [f"output is {sig(b)}, not {sig(a)} tok/s"] if abs(a / b - 1.0) >= WORTH else []
    return ", ".join(words)


# ---- what would change the winner -----------------------------------------------------------------------------------------


def turn_rows(study: Study) -> list[Row]:
    """What changes it, and what does not."""
    if not study.turns:
        return [("", "nothing: it is the only plan")] if study.inputs.get("sensitivity") else []
    rows = [
        (f"{turn.what} {_step(turn)}", f"{turn.winner} wins{f': {turn.why}' if turn.why else f', {times(turn.gain)} better'}")
        for turn in study.turns
        if turn.winner
    ]
    firm: dict[str, list[str]] = {}
    for turn in study.turns:
        if not turn.winner:
            firm.setdefault(turn.what, []).append(_step(turn))
    told = ", ".join(f"{what} {' and '.join(steps)}" for what, steps in firm.items())
    return [*rows, *([("stays", f"it wins or ties up to {told}")] if firm else [])]


def _step(turn: Turn) -> str:
    return f"{'+' if turn.factor > 1 else '−'}{abs(turn.factor - 1.0):.0%}"


# ---- head-room ----------------------------------------------------------------------------------------------------------


def room_rows(study: Study) -> list[Row]:
    """What the first plan holds, and the plan that holds most."""
    if not study.inputs.get("headroom"):
        return []
    from apexsim.search.headroom import none_of
    from apexsim.search.size import SHARE

    why, known = none_of(study), [run for run in study.ranked if run.headroom]
    if why or not known:
        return [("", sentence(f"None is known: {why}" if why else "No plan was looked at"))]
    first, most = known[0], max(known, key=lambda run: run.headroom.times if run.headroom else 0.0)
    rows = [(first.plan.shorthand, _holds(study, first))]
    rows += [(most.plan.shorthand, f"{_holds(study, most)}: the most of these plans")] if most is not first else []
    shared = any(slo.per_request for slo in study.goal.slos)
    return [*rows, *([("", f"a plan holds a load where {SHARE:.0%} of its requests keep their own limits")] if shared else [])]


def _holds(study: Study, run: Assessed) -> str:
    from apexsim.search.holding import load_of

    found = run.headroom
    assert found is not None
    if not found.times:
        return "holds no load within the limits"
    load, unit = found.times * load_of(study), "users" if study.setting.workload.mode == "closed" else "requests/s"
    amount = f"{load:,.0f}" if unit == "users" else sig(load)
    ends = "" if math.isnan(found.low) else f" ({times(found.low)} to {times(found.high)} on two of three real systems)"
    return f"{'at least ' * found.open_end}{times(found.times)} the load{ends}: {amount} {unit}"


# ---- JSON -------------------------------------------------------------------------------------------------------------------


def tuned_json(study: Study) -> dict[str, Any] | None:
    """The settings as plain values; null where none were asked for."""
    found = study.tuned
    if found is None:
        return None
    started = launched(found.setting, found.run.plan)
    return {
        "plan": found.run.plan.shorthand, "tried": found.tried, "value_before": found.start.value, "value": found.run.value,
        "moves": [{"setting": m.name, "flag": flag(study, m.name), "before": m.before, "after": m.after, "why": m.why,
                   "value_without": m.without.value} for m in found.moves],
        "left_alone": list(found.apart), "keeps_constraints": found.run.keeps, "launch": started.script or None,
        "metrics": found.run.metrics.to_json(),
    }  # fmt: skip


def turns_json(study: Study) -> list[dict[str, Any]] | None:
    """What would change the winner; null where that was not asked for."""
    if not study.inputs.get("sensitivity"):
        return None
    return [
        {"what": t.what, "factor": t.factor, "winner": t.winner or None, "gain": t.gain if t.winner else None, "why": t.why or None}
        for t in study.turns
    ]
