"""One plan in full: layout, memory, time, why it wins, and how it went (floor 6)."""

from __future__ import annotations

import math
from dataclasses import replace

from apexsim.metrics import Metrics
from apexsim.objective import Objective
from apexsim.plan.memory import log_lines
from apexsim.report.draw import SHADES, UNKNOWN, bar, change, percent, sig, sparkline, stacked, times
from apexsim.report.figures import TITLES, objective_words, scale_of
from apexsim.report.layout import layouts
from apexsim.report.page import Row
from apexsim.report.ranking import room_tokens
from apexsim.search.assess import Assessed, Side, course_of
from apexsim.search.setting import Setting
from apexsim.search.study import Study
from apexsim.units import GiB, format_seconds

BAR = 60  # most characters of the memory bar and of sparklines
BESIDE, BESIDE_BAR = 44, 32  # characters that stand beside a sparkline, beside the bar
CLASSES = 8  # kinds of work named in the breakdown
# kind of work -> in plain words, where its name is not
PLAIN = {
    "qkv": "attention input (QKV)", "out": "attention output", "ffn": "feed-forward (FFN)", "host": "waiting for the CPU",
    "collectives": "GPU to GPU traffic", "small kernels": "norms and small kernels", "elementwise": "elementwise kernels",
    "head and sampling": "vocabulary and sampling", "decode attention": "attention, generating", "prefill attention": "attention, prompts",
    "busy": "at work, in all", "idle": "idle, no request",
}  # fmt: skip


def fitted(width: float, beside: int = BESIDE) -> int:
    """Characters of a sparkline on a page."""
    return int(max(16, min(BAR, width - beside)))


def layout_rows(setting: Setting, ranked: Side) -> list[Row]:
    """The layout of each cell and the collectives of a layer; equal stages are said once."""
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for part in layouts(setting, ranked.plan, ranked.stages):
        cells = "; ".join(f"{c['cell']} {c['layout']}: {c['per_gpu']} on each GPU" for c in part["cells"])
        moves = ", ".join(c["words"] for c in part["collectives"]) or "no collectives"
        text = f"{cells}; {moves}"
        if text in seen:
            continue
        seen[text] = part["layers"]
        rows.append((f"{part['layers']} layers", text))
    plan = ranked.plan
    if plan.stages > 1:
        counts = " + ".join(str(sum(n for _, n in stage.layers)) for stage in ranked.stages)
        rows.append(("stages", f"{plan.stages} with {counts} layers; activations are handed on between them"))
    return rows


def memory_rows(ranked: Side, width: float = math.inf) -> list[Row]:
    """The memory of the tightest GPU as a bar, its legend, and the engine's own lines."""
    room = ranked.room
    used = [(name, size) for name, size in room.ledger if name != "free"]
    free = dict(room.ledger).get("free", 0.0)
    total = sum(size for _, size in room.ledger)
    glyphs = SHADES[: len(used)] + SHADES[-1]
    legend = "  ".join(f"{glyph} {name} {size / GiB:.1f}" for glyph, (name, size) in zip(glyphs, used))
    low, high = (x / GiB for x in room.kv_range)
    tokens, concurrency = log_lines(room)[1:]
    return [
        ("memory", f"{stacked([size for _, size in used] + [free], fitted(width, BESIDE_BAR), glyphs)} {total / GiB:.1f} GiB"),
        ("", f"{legend}  {SHADES[-1]} free {free / GiB:.1f} GiB"),
        ("", f"{tokens}; {concurrency}; real servers lay within {low:.1f} to {high:.1f} GiB of KV cache"),
    ]


def gpu_seconds(ranked: Assessed) -> dict[str, float]:
    """GPU-seconds by op class: group-seconds times the GPUs of a group."""
    found: dict[str, float] = {}
    for side in ranked.sides:
        for name, t in side.account.seconds:
            found[name] = found.get(name, 0.0) + t * side.plan.stage_devices
    return found


def idle_seconds(ranked: Assessed) -> float:
    """GPU-seconds without a request."""
    return sum(side.account.idle * side.plan.stage_devices for side in ranked.sides)


def time_table(ranked: Assessed, other: Assessed | None, width: float = math.inf) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Heads and rows: kind of work, GPU-seconds, share of the busy time, and the ratio to another plan's seconds."""
    mine, theirs = gpu_seconds(ranked), gpu_seconds(other) if other else {}
    total, total_theirs = sum(mine.values()) or 1.0, sum(theirs.values())
    names = sorted(mine, key=lambda name: -mine[name])
    shown, rest = names[:CLASSES], names[CLASSES:]
    if len(rest) == 1:
        shown, rest = names, []
    lines = [(name, mine[name], theirs.get(name, math.nan)) for name in shown]
    if rest:
        lines.append(("other", sum(mine[n] for n in rest), sum(theirs.get(n, 0.0) for n in rest) if theirs else math.nan))
    lines.append(("busy", sum(mine.values()), total_theirs))
    lines.append(("idle", idle_seconds(ranked), idle_seconds(other) if other else math.nan))
    heads = [("where GPU time goes", "left"), ("GPU seconds", "right"), ("share", "right"), ("", "left")]
    heads += [(f"of {other.plan.shorthand}'s", "right")] if other else []
    cells = 24 if width >= 100 else 12
    return heads, [
        [
            PLAIN.get(name, name), sig(t), percent(t / total) if name != "idle" else "",
            bar(t / total, cells) if name not in ("busy", "idle") else "",
            *([_beside(name, t, t0, total)] if other else []),
        ]
        for name, t, t0 in lines
    ]  # fmt: skip


def _beside(name: str, mine: float, theirs: float, total: float) -> str:
    """Seconds over those of another plan, where there is enough of them to compare."""
    if theirs > 1e-2 * total:
        return f"{mine / theirs:.2f}×"
    return UNKNOWN if name == "idle" or not theirs else times(mine / theirs)


def use_rows(ranked: Assessed) -> list[Row]:
    """Bottleneck, use of the hardware, and how well the costs are known."""
    spent, found = ranked.account, ranked.account.bottleneck
    known = ", ".join(f"{percent(share)} {name}" for name, share in sorted(spent.provenance, key=lambda p: -p[1]))
    idle = spent.idle / max(spent.idle + spent.busy, 1e-30)
    return [
        ("bottleneck", str(replace(found, kind=PLAIN.get(found.kind, found.kind)) if found.peak else found)),
        (
            "use",
            f"MFU {percent(spent.mfu)} of peak FLOP/s, MBU {percent(spent.mbu)} of memory bandwidth, while at work; a request is "
            f"there {percent(1 - idle)} of the time, which says nothing about room for more: requests share steps",
        ),
        ("cost data", f"{known} (shares of the GPU time)"),
    ]


# ---- why it wins ----------------------------------------------------------------------------------------------------

COMPARED = (("ttft", "mean"), ("ttft", "p99"), ("tpot", "mean"), ("itl", "p99"), ("e2e", "mean"), ("e2e", "p99"))


def rival_of(study: Study, ranked: Assessed) -> Assessed | None:
    """The plan to compare with: the heuristic one, or for that itself the best other."""
    others = [r for r in study.ranked if r is not ranked]
    return next((r for r in others if r.plan.shorthand == study.heuristic), others[0] if others else None)


def why_rows(study: Study, ranked: Assessed, rival: Assessed) -> list[Row]:
    """Two plans metric by metric, and where the time differs."""
    objective = study.goal.objective
    which = "heuristic" if rival.plan.shorthand == study.heuristic else "next"
    name = f"{rival.plan.shorthand} (the {which} plan)"
    return [
        (
            f"{'why not' if _wins(ranked, rival, objective) else 'against'} {rival.plan.shorthand}",
            _verdict(study, ranked, rival, objective, name),
        ),
        ("", "; ".join(_compared(study, ranked.metrics, rival.metrics))),
        ("", f"GPU time: {_time_words(ranked, rival)}; KV room {_room_words(ranked, rival)}"),
    ]


def _verdict(study: Study, ranked: Assessed, rival: Assessed, objective: Objective, name: str) -> str:
    better = _wins(ranked, rival, objective)
    ratio = max(rival.value, ranked.value) / max(min(rival.value, ranked.value), 1e-30)
    if abs(math.log(max(ratio, 1e-30))) <= study.error[1]:
        return f"{objective_words(objective)} is within the error of a comparison with {name}"
    return f"{objective_words(objective)} is {ratio:.2f}× {'better' if better else 'worse'} than with {name}"


def _wins(ranked: Assessed, rival: Assessed, objective: Objective) -> bool:
    return objective.sign * (rival.value - ranked.value) >= 0


def _compared(study: Study, mine: Metrics, theirs: Metrics) -> list[str]:
    words = []
    for metric, stat in COMPARED:
        a, b = mine.latency(metric, stat), theirs.latency(metric, stat)
        if math.isfinite(a) and math.isfinite(b):
            scale, title = scale_of(study, metric), f"{TITLES[metric]}{f' {stat}' if stat != 'mean' else ''}"
            words.append(f"{title} {scale.bare(a)} vs {scale(b)} ({change(a, b)})")
    a, b = mine.output_throughput_tok_s, theirs.output_throughput_tok_s
    return [*words, f"output {sig(a, 4)} vs {sig(b, 4)} tok/s ({change(a, b)})"]


def _time_words(ranked: Assessed, rival: Assessed) -> str:
    """The op classes that differ most, saved ones first."""
    mine, theirs = gpu_seconds(ranked), gpu_seconds(rival)
    total = sum(mine.values())
    gaps = {name: mine.get(name, 0.0) - theirs.get(name, 0.0) for name in mine | theirs}
    most = [n for n in sorted(gaps, key=lambda n: -abs(gaps[n]))[:3] if abs(gaps[n]) > 0.01 * total]
    if not most:
        return "the same within 1 %"
    return ", ".join(
        f"{PLAIN.get(n, n)} {sig(mine.get(n, 0.0))} vs {sig(theirs.get(n, 0.0))} GPU seconds" for n in sorted(most, key=lambda n: gaps[n])
    )


def _room_words(ranked: Assessed, rival: Assessed) -> str:
    return f"{room_tokens(ranked):,} vs {room_tokens(rival):,} tokens in all"


# ---- how it went ----------------------------------------------------------------------------------------------------


def course_rows(study: Study, ranked: Assessed, width: float = math.inf) -> list[Row]:
    """Batch, queue and KV cache over time as sparklines."""
    found = course_of(study.setting, ranked, fitted(width))
    rows = [("running", found.running, ""), ("waiting", found.waiting, ""), ("KV used", found.kv_share, "%")]
    over = format_seconds(ranked.metrics.duration_s)
    made = []
    for name, values, unit in rows:
        top = max(values, default=0.0)
        peak = percent(top) if unit else sig(top, 2 if top < 100 else 3)
        made.append((name, f"{sparkline(values)} peak {peak}" + (f", over {over}" if name == "running" else "")))
    metrics, scale = ranked.metrics, scale_of(study, "queue")
    words = f"mean {scale(metrics.queue.mean)}, p99 {scale(metrics.queue.p99)}; {metrics.preemptions:,} preemptions"
    made.append(("queue", words + (f"; saturated: {metrics.why}" if metrics.saturated else "")))
    return made
