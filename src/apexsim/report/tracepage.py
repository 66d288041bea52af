"""A trace as text, as plain values and as a picture (floor 6)."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from apexsim.report.draw import bar, percent, sig, sparkline
from apexsim.report.page import columns, heading, labelled, page
from apexsim.report.picture import figure, picture, titled
from apexsim.stats import plain
from apexsim.units import format_count, format_seconds
from apexsim.workload.describe import Arrivals, Description, Lengths
from apexsim.workload.lru import HitReach
from apexsim.workload.trace import Workload

FORMAT = "apexsim.trace/1"
BAR = 24  # characters of the longest bar
PERCENTILES = ("median", "p75", "p90", "p95", "p99", "max")
KINDS = ("prompt", "output", "context")


def skipped(requests: Workload) -> tuple[str, ...]:
    """Lines that were passed over, if any, in one sentence."""
    if not requests.skipped:
        return ()
    more = " …" if requests.skipped > len(requests.faults) else ""
    lines = "line" if requests.skipped == 1 else "lines"
    return (f"{requests.skipped} {lines} passed over: {'; '.join(requests.faults)}{more}",)


KV_BYTES = {"Llama-3.1-8B": 2 * 32 * 8 * 128 * 2, "70B": 2 * 80 * 8 * 128 * 2}  # per token in bf16: keys, values · layers · heads · size


# ---- plain values -------------------------------------------------------------------------------------------------


def describe_json(requests: Workload, found: Description) -> dict[str, Any]:
    """Everything that is known about the trace; times in seconds, lengths in tokens."""
    return {
        "format": FORMAT, "source": requests.source, "trace_format": requests.fmt, "requests": found.requests,
        "span_s": found.span, **{f"{kind}_tokens": _lengths_json(getattr(found, kind)) for kind in KINDS},
        "log_correlation": plain(found.correlation), "ideal_hit": plain(found.ideal_hit),
        "reachable_hits": [{"cache_tokens": reach.tokens, "hit": reach.hit} for reach in found.reachable],
        "arrivals": None if found.arrivals is None else _arrivals_json(found.arrivals),
        "skipped": requests.skipped, "faults": requests.faults, "notes": requests.notes,
    }  # fmt: skip


def _lengths_json(lengths: Lengths) -> dict[str, Any]:
    octaves = [{"from": 2**k, "below": 2 ** (k + 1), "requests": n} for k, n in enumerate(lengths.octaves) if n]
    return lengths.stats.to_json() | {"cv": lengths.cv, "total": lengths.total, "histogram": octaves}


def _arrivals_json(arrivals: Arrivals) -> dict[str, Any]:
    windows = [{"window_s": w.width, "peak_rate": w.peak, "dispersion": w.dispersion} for w in arrivals.windows]
    return {
        "request_rate": arrivals.rate, "gap_s": arrivals.gap.to_json(), "gap_cv": arrivals.gap_cv,
        "burstiness": plain(arrivals.burstiness), "together": arrivals.together, "windows": windows,
        "part_s": arrivals.part, "rate_over_time": arrivals.over_time,
    }  # fmt: skip


# ---- text ---------------------------------------------------------------------------------------------------------


def describe_text(requests: Workload, found: Description, color: bool = False) -> str:
    """The trace on a page."""
    told = f"{requests.source} ({requests.fmt})"
    head = [("requests", f"{found.requests:,}"), ("span", format_seconds(found.span) if requests.timed else "no times")]
    if found.ideal_hit == found.ideal_hit:
        head.append(("prefix reuse", f"{percent(found.ideal_hit)} of the prompt tokens, with an unlimited cache"))
    if found.correlation == found.correlation:
        head.append(("correlation", f"{found.correlation:+.2f} between the logarithms of prompt and output"))
    parts: list[RenderableType] = [
        heading("trace", told),
        labelled(head),
        "",
        heading("lengths", "tokens"),
        _table(found),
        "",
    ]
    parts += [_histogram(found), ""]
    if found.reachable:
        parts += [heading("prefix cache", "share of the prompt tokens that one LRU cache of a size holds"), _reach(found.reachable), ""]
    if found.arrivals is not None:
        parts += [heading("arrivals"), labelled(_arrival_rows(found, found.arrivals)), ""]
    notes = [("note", note) for note in (*skipped(requests), *requests.notes)]
    return page([*parts, labelled(notes)] if notes else parts, color)


def _table(found: Description) -> RenderableType:
    heads = [("", "left"), *((name, "right") for name in ("mean", *PERCENTILES, "cv", "total"))]
    rows = []
    for kind in KINDS:
        lengths: Lengths = getattr(found, kind)
        numbers = [sig(lengths.stats.mean, 4), *(f"{lengths.stats.value(name):,.0f}" for name in PERCENTILES)]
        label = "prompt + output" if kind == "context" else kind
        rows.append((label, *numbers, f"{lengths.cv:.2f}", format_count(lengths.total)))
    return columns(heads, rows)


def _reach(reachable: tuple[HitReach, ...]) -> RenderableType:
    """Hits by size, in tokens and in memory of two known models."""
    heads = [("tokens", "right"), *((f"GB of {name}", "right") for name in KV_BYTES), ("held", "right")]
    rows = [
        (format_count(each.tokens), *(sig(each.tokens * size / 1e9, 3) for size in KV_BYTES.values()), percent(each.hit))
        for each in reachable
    ]
    return columns(heads, rows)


def _histogram(found: Description) -> RenderableType:
    """Shares of prompts and outputs by octave of length."""
    prompt, output = found.prompt.octaves, found.output.octaves
    last = max(len(prompt), len(output))
    counts = [tuple(kind[k] if k < len(kind) else 0 for kind in (prompt, output)) for k in range(last)]
    first = next(k for k, pair in enumerate(counts) if any(pair))
    peak = max(map(max, counts))
    rows = []
    for k in range(first, last):
        cells = [_bar(n, peak, found.requests) for n in counts[k]]
        rows.append((f"{2**k:,} – {2 ** (k + 1) - 1:,}" if k else "1", *cells))
    return columns([("tokens", "right"), ("prompt", "left"), ("output", "left")], rows)


def _bar(count: int, peak: int, whole: int) -> str:
    drawn = bar(count / peak, BAR) or "·"
    return f"{drawn:<{BAR}} {percent(count / whole):>5}" if count else ""


def _arrival_rows(found: Description, arrivals: Arrivals) -> list[tuple[str, str]]:
    tokens = [format_count(kind.total / found.span) for kind in (found.prompt, found.output)]
    gaps = f"gaps: cv {arrivals.gap_cv:.2f}, mean {format_seconds(arrivals.gap.mean)}"
    rows = [
        ("rate", f"{sig(arrivals.rate)} requests/s, {tokens[0]} prompt and {tokens[1]} output tokens/s"),
        ("burstiness", f"{arrivals.burstiness:.2f} ({gaps}; 1 is Poisson, below 1 burstier)"),
    ]
    if arrivals.together >= 0.0005:
        told = f"{percent(arrivals.together)} of the requests come in the same moment as the one before"
        rows.append(("together", told))
    for w in arrivals.windows:
        told = f"up to {sig(w.peak)} requests/s, variance over mean of the counts {w.dispersion:.2f}"
        rows.append((f"in {format_seconds(w.width)}", told))
    scale = f"0 to {sig(float(arrivals.over_time.max()))} requests/s, {format_seconds(arrivals.part)} each"
    return [*rows, ("over time", f"{sparkline(arrivals.over_time.tolist())}  {scale}")]


# ---- picture ------------------------------------------------------------------------------------------------------


def drawn(requests: Workload, found: Description, path: str) -> bytes:
    """Lengths, gaps and rate over time as a picture; its kind follows from the name of the file."""
    drawing = figure(path)
    axes = drawing.subplots(2, 2)
    for ax, kind in zip(axes[0], ("prompt", "output")):
        octaves = getattr(found, kind).octaves
        edges = [2.0**k for k in range(len(octaves) + 1)]
        ax.stairs([n / found.requests for n in octaves], edges, fill=True)
        ax.set(xscale="log", xlabel=f"{kind} tokens", ylabel="share of requests")
    _draw_arrivals(axes[1], found)
    some = slice(None, None, max(1, requests.size // 20_000))
    axes[1][1].scatter(requests.prompt[some], requests.output[some], s=3, alpha=0.4, linewidths=0)
    axes[1][1].set(xscale="log", yscale="log", xlabel="prompt tokens", ylabel="output tokens")
    titled(drawing, f"{requests.source}: {found.requests:,} requests")
    return picture(drawing, path)


def _draw_arrivals(axes: Any, found: Description) -> None:
    """Rate over time in the left one of two axes."""
    axes[0].set(xlabel="time [s]", ylabel="requests/s")
    if found.arrivals is None:
        axes[0].text(0.5, 0.5, "no arrival times", ha="center", transform=axes[0].transAxes)
        return
    rate = found.arrivals.over_time
    axes[0].stairs(rate, [found.arrivals.part * i for i in range(len(rate) + 1)], fill=True)
