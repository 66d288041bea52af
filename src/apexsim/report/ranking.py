"""The ranked plans as one table that fits the page, with what its columns mean (floor 6)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from apexsim.objective import overrun
from apexsim.report.draw import UNKNOWN, percent, sig, times
from apexsim.report.figures import objective_short, scale_of
from apexsim.report.verdict import ties
from apexsim.search.assess import Assessed
from apexsim.search.goal import Goal
from apexsim.search.startable import has_server
from apexsim.search.study import Study
from apexsim.slo import LATENCIES, Slo
from apexsim.units import format_count

CHANCE = "chance that a real run keeps every limit at once"
HEADROOM = "head-\nroom"
LIMITS = "✓ least margin, ✗ how far over the limit"
SATURATED = "does not keep up with the load: its queue grows as long as requests come"
STATS = ("mean", "p50", "p95", "p99")
WIDE_STATS = ("mean", "std", "min", "p50", "p75", "p90", "p95", "p99", "max")
SHOWN = (("ttft", "TTFT"), ("tpot", "TPOT"), ("itl", "ITL"), ("e2e", "E2E"), ("queue", "queue"))
# What a wider page adds, the most wanted first: a statistic, or a column by its title.
EXTRAS = (
    ("ttft", "mean"), ("tpot", "mean"), ("e2e", "mean"), "tok/s", "KV room", ("ttft", "p95"), ("tpot", "p95"), ("e2e", "p95"),
    "$ per 1M", ("itl", "p99"), ("ttft", "p99"), ("e2e", "p99"), "req/s", ("tpot", "p99"), "J per tok", ("itl", "p95"),
    ("ttft", "p50"), ("e2e", "p50"), ("tpot", "p50"), ("itl", "p50"), "per GPU",
)  # fmt: skip
Extra = tuple[str, str] | str


@dataclass(frozen=True, slots=True)
class RankedColumn:
    """One column: its title, side and cells."""

    title: str
    side: str
    cells: tuple[str, ...]

    @property
    def width(self) -> int:
        """Characters it takes, gap included."""
        return 2 + max(len(line) for text in (self.title, *self.cells) for line in text.split("\n"))

    @property
    def alike(self) -> bool:
        """Whether it tells no row from another."""
        return len(self.cells) > 1 and len(set(self.cells)) == 1


@dataclass(frozen=True, slots=True)
class Ranking:
    """The table, what is the same in every row, and (word, meaning) of what stands in it."""

    columns: tuple[RankedColumn, ...]
    same: tuple[str, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    whole: bool = True  # nothing was left out for want of width


@dataclass(slots=True)
class _Choice:
    """What a table shows beside the plan: statistics by metric, and titles of columns."""

    stats: dict[str, list[str]] = field(default_factory=dict)
    titles: set[str] = field(default_factory=set)

    def with_(self, extra: Extra) -> _Choice:
        """The choice and one thing more."""
        stats, titles = {metric: list(names) for metric, names in self.stats.items()}, set(self.titles)
        if isinstance(extra, str):
            titles.add(extra)
        else:
            metric, stat = extra
            stats[metric] = [s for s in WIDE_STATS if s in {*stats.get(metric, ()), stat}]
        return _Choice(stats, titles)


def ranking(study: Study, rows: Sequence[Assessed], width: float, everything: bool = False) -> Ranking:
    """The richest table that fits `width` characters; what a limit or the objective names is always in it."""
    choice, left_out = _required(study), False
    extras: list[Extra] = list(EXTRAS)
    if everything:
        extras += [(metric, stat) for metric, _ in SHOWN[:4] for stat in WIDE_STATS if (metric, stat) != ("itl", "mean")]
    for extra in extras:
        wider = choice.with_(extra)
        if everything or _fits(study, rows, wider, width):
            choice = wider
        else:
            left_out = True
    made = _columns(study, rows, choice, short=not _fits(study, rows, choice, width, short=False))
    same = tuple(_said(c) for c in made if c.alike and c.title not in KEPT and c.cells[0] not in ("", UNKNOWN))
    kept = tuple(c for c in made if c.title in KEPT or not c.alike)
    return Ranking(kept, same, tuple(_legend(study, rows, kept)), not left_out)


KEPT = ("#", "plan")  # columns that stay even if they tell no rows apart


def _said(column: RankedColumn) -> str:
    """A column that is the same in every row, in words."""
    title, unit = re.sub(r"\s+", " ", column.title.replace("\n", " ")).strip(), ""
    found = re.match(r"(.*) \[(.*)\] (.*)", title)
    if found:
        title, unit = f"{found[1]} {found[3]}", f" {found[2]}"
    return f"{title} {re.sub(r' +', ' ', column.cells[0]).strip()}{unit}"


def _required(study: Study) -> _Choice:
    """What limits and the objective name."""
    choice, objective = _Choice(), study.goal.objective
    for slo in (slo for slo in study.goal.slos if not slo.kind):
        choice = choice.with_((slo.metric, slo.stat or "p95"))
    if objective.name in LATENCIES:
        choice = choice.with_((objective.name, objective.stat))
    named = {"cost": "$ per 1M", "energy": "J per tok", "wall-energy": "J per tok", "throughput": "tok/s"}
    return choice.with_(named[objective.name]) if objective.name in named else choice


def _fits(study: Study, rows: Sequence[Assessed], choice: _Choice, width: float, short: bool = True) -> bool:
    made = _columns(study, rows, choice, short)
    return sum(c.width for c in made if c.title in KEPT or not c.alike) <= width


def _columns(study: Study, rows: Sequence[Assessed], choice: _Choice, short: bool) -> list[RankedColumn]:
    place = {id(r): i + 1 for i, r in enumerate(study.ranked)}
    made = [
        _column("#", "right", rows, lambda r: str(place[id(r)])),
        _column("plan", "left", rows, lambda r: r.plan.shorthand),
        _column("ratio", "right", rows, lambda r: times(r.ratio)),
        *([_column("limits", "left", rows, limit_cell), _column("sure", "right", rows, sure_cell)] if study.goal.limited else []),
        *([_column(HEADROOM, "right", rows, headroom_cell)] if any(r.headroom for r in rows) else []),
        *([_column("meet\nlimits", "right", rows, lambda r: percent(r.metrics.attainment)),
           _column("goodput\nreq/s", "right", rows, lambda r: sig(r.metrics.goodput_req_s))] if _counts(study) else []),
        *(_latency(study, metric, title, rows, choice.stats[metric]) for metric, title in SHOWN if metric in choice.stats),
    ]  # fmt: skip
    made += [_of_class(study, slo, rows) for slo in study.goal.slos if slo.kind]
    made += [
        RankedColumn(title, "right", tuple(cell(study, r) for r in rows)) for name, (title, cell) in OTHERS.items() if name in choice.titles
    ]
    remarks = _column("", "left", rows, lambda r: " ".join(m[0] for m in marks(study, r)) if short else ", ".join(marks(study, r)))
    return [*made, *([remarks] if any(remarks.cells) else [])]


OTHERS: dict[str, tuple[str, Callable[[Study, Assessed], str]]] = {
    "KV room": ("KV room\ntokens", lambda study, r: format_count(room_tokens(r))),
    "req/s": ("req/s", lambda study, r: sig(r.metrics.request_throughput_per_s)),
    "tok/s": ("output\ntok/s", lambda study, r: sig(r.metrics.output_throughput_tok_s, 4)),
    "per GPU": ("out tok/s\nper GPU", lambda study, r: sig(r.metrics.output_throughput_tok_s / r.plan.devices)),
    "J per tok": ("J per\ntoken", lambda study, r: sig(
        r.metrics.energy.wall_per_output_token if study.goal.objective.name == "wall-energy" else r.metrics.energy.per_output_token)),
    "$ per 1M": ("$ per\n1M out", lambda study, r: sig(r.metrics.usd_per_million)),
}  # fmt: skip


def room_tokens(ranked: Assessed) -> int:
    """Tokens that all KV caches of the plan hold; of two pools those of the one that makes the tokens."""
    last = ranked.sides[-1]
    return last.room.tokens * last.plan.lanes * last.plan.replicas


def limit_cell(ranked: Assessed) -> str:
    """✓ and the least margin, or ✗ and the worst overrun, at the risk that is allowed; with the limit's metric where there are several."""
    limits, ratio = ranked.limits, overrun(ranked.limits)
    worst = max(limits, key=lambda m: m.reach / m.limit) if ratio else min(limits, key=lambda m: m.share)
    name = f"{f' {worst.kind}' * bool(worst.kind)} {worst.metric}" if len(limits) > 1 else ""
    if not ratio:
        return f"✓ {percent(worst.share)}{name}"
    return f"✗ {f'{sig(ratio, 2)}×' if ratio >= 2 else f'+{percent(ratio - 1)}'}{name}"


def sure_cell(ranked: Assessed) -> str:
    """The chance that a real run keeps every limit."""
    return percent(ranked.chance)


def headroom_cell(ranked: Assessed) -> str:
    """How many times the load it holds."""
    found = ranked.headroom
    return UNKNOWN if found is None else "none" if not found.times else f"{'≥ ' * found.open_end}{sig(found.times)}×"


def limit_words(goal: Goal, rows: Sequence[Assessed]) -> list[tuple[str, str]]:
    """What the cells of limits mean, and of the chance to keep them."""
    which = ", and of which" if len(rows[0].limits) > 1 else ""
    risk = f"; by the end of the prediction that a risk of {percent(goal.risk)} leaves" if goal.risk else ""
    return [("limits", f"{LIMITS}{which}{risk}"), ("sure", CHANCE)]


def headroom_words(goal: Goal) -> tuple[str, str]:
    """What the cells of head-room mean."""
    return "head-room", f"times the load that the plan holds{' within the limits' if goal.limited or goal.slos else ''}"


def _counts(study: Study) -> bool:
    return any(slo.per_request for slo in study.goal.slos)


def _column(title: str, side: str, rows: Sequence[Assessed], cell: Callable[[Assessed], str]) -> RankedColumn:
    return RankedColumn(title, side, tuple(cell(r) for r in rows))


def _of_class(study: Study, slo: Slo, rows: Sequence[Assessed]) -> RankedColumn:
    """What a limit of a class is held against."""
    scale = scale_of(study, slo.metric)
    if slo.stat:
        return _column(
            f"{slo.kind}\n{slo.metric.upper()} {slo.stat} [{scale.unit}]", "right", rows, lambda r: scale.bare(r.metrics.of(slo))
        )
    return _column(f"{slo.kind}\nmeet {slo.metric.upper()}", "right", rows, lambda r: percent(r.metrics.met(slo)))


def _latency(study: Study, name: str, title: str, rows: Sequence[Assessed], stats: Sequence[str]) -> RankedColumn:
    """One latency with its statistics, right-aligned side by side, in the unit of the page."""
    scale = scale_of(study, name)
    cells = [[scale.bare(r.metrics.latency(name, stat)) for stat in stats] for r in rows]
    widths = [max(len(stat), *(len(row[i]) for row in cells)) for i, stat in enumerate(stats)]
    lines = [" ".join(text.rjust(w) for text, w in zip(row, widths)) for row in (stats, *cells)]
    head = f"{title} [{scale.unit}]"
    head = head.center(len(lines[0])).rstrip() if len(stats) > 1 else head
    return RankedColumn(f"{head.ljust(len(lines[0]))}\n{lines[0]}", "right", tuple(lines[1:]))


# ---- what it means ----------------------------------------------------------------------------------------------------


def marks(study: Study, ranked: Assessed) -> list[str]:
    """What a reader should know of a plan beside its numbers; the first letters differ."""
    return [mark for mark, (holds, _) in _marks(study).items() if holds(ranked)]


def _marks(study: Study) -> dict[str, tuple[Callable[[Assessed], bool], str]]:
    """Mark -> (whether it holds of a plan, what it means)."""
    first, engine = study.ranked[0], study.setting.engine
    return {
        "heuristic": (lambda r: r.plan.shorthand == study.heuristic, "the usual plan, tensor parallel in a node and pipeline across"),
        "≈ the first": (lambda r: r is not first and ties(first, r), f"a tie: differences under {percent(study.error[1])} say nothing"),
        "saturated": (lambda r: r.metrics.saturated, SATURATED),
        "preempts": (lambda r: r.metrics.preemptions > 0, "stops requests for want of KV room and computes them again"),
        f"not in {engine.name}": (lambda r: bool(r.blocked) and has_server(study.setting), f"{engine.name} cannot be started with it"),
    }  # fmt: skip


def _legend(study: Study, rows: Sequence[Assessed], made: Sequence[RankedColumn]) -> list[tuple[str, str]]:
    titles = {c.title for c in made}
    found = grammar([r.plan.shorthand for r in rows])
    if "ratio" in titles:
        found.append(("ratio", _ratio_words(study)))
    elif len(rows) > 1 and not math.isfinite(study.ranked[0].ratio):
        found.append(("ratio", f"none: {_no_base(study)}"))
    if "limits" in titles:
        found += limit_words(study.goal, rows)
    if HEADROOM in titles:
        found.append(headroom_words(study.goal))
    if "KV room\ntokens" in titles:
        found.append(("KV room", "tokens that the KV caches of the whole plan hold"))
    used = {mark for r in rows for mark in marks(study, r)}
    short = not any(", " in cell or cell in used for c in made if not c.title for cell in c.cells)
    found += [
        (mark[0] if short else mark, words if not short or mark[0] == "≈" else f"{mark}: {words}")
        for mark, (_, words) in _marks(study).items()
        if mark in used
    ]
    return found


def _no_base(study: Study) -> str:
    return study.heuristic_note or f"the heuristic plan {study.heuristic} does not keep up with the load"


def _ratio_words(study: Study) -> str:
    objective = study.goal.objective
    name = objective_short(objective)
    if objective.better == "lower":
        return f"{name} of the heuristic plan {study.heuristic} over this plan's; above 1 is better"
    return f"{name} of this plan over that of the heuristic plan {study.heuristic}; above 1 is better"


GRAMMAR = (
    (r"\+", "A+B", "prompts on the servers A, tokens on the servers B"),
    (r"^\d+×", "2×", "copies of the model, each with GPUs of its own"),
    (r"PP\d", "PP2", "stages of layers, one after the other"),
    (r"(?<!E)TP(?!1(?!\d))\d", "TP8", "each layer cut over 8 GPUs"),
    (r"TEP\d", "TEP8", "attention cut (TP8), experts spread (EP8)"),
    (r"DEP\d", "DEP8", "each GPU does attention for requests of its own (DP8), experts spread (EP8)"),
    (r"/", "A/B", "attention laid out as A, feed-forward as B"),
    (r"(?<!\w)DP\d|×DP\d", "DP2", "parts that each take requests of their own"),
    (r"(?<![TD])EP\d", "EP8", "experts spread over 8 GPUs"),
    (r"@(?!\d)", "@fp8", "format of the weights"),
    (r"@\d", "@810MHz", "clock of the GPUs"),
    (r"\+", "+mtp:3", "3 drafts of each sequence in a step"),
)


def grammar(plans: Sequence[str]) -> list[tuple[str, str]]:
    """How to read the names of some plans."""
    words = [f"{example} {meaning}" for pattern, example, meaning in GRAMMAR if any(re.search(pattern, p) for p in plans)]
    return [("plan", "; ".join(words))] if words else []
