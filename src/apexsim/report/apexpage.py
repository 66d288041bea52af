"""The report in the layout of APEX+, one search after the other (floor 6).

Rows carry its names; what they hold is defined in the notes at the end, wherever that differs from the original.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apexsim.cost.account import Account
from apexsim.errors import shown as printable
from apexsim.metrics import Times
from apexsim.plan.space import stage_layers
from apexsim.report.jsonout import study_json
from apexsim.report.layout import layouts
from apexsim.search.assess import Assessed, outcome_of
from apexsim.search.chain import ChainPart
from apexsim.search.study import Study
from apexsim.units import GiB

FORMAT = "apexsim.apex/1"
RULE = "=" * 80
NOTHING = 1e-5  # rows below are left out


@dataclass(frozen=True, slots=True)
class PageWanted:
    """What is asked of the page.  Percentiles beyond P50 and P95; SLOs [ms]; batch: 0 = unlimited; frequency [MHz]."""

    everything: bool = False
    request_percentiles: tuple[int, ...] = ()
    token_percentiles: tuple[int, ...] = ()
    ttft_slo: float = 10.0
    tpot_slo: float = 10.0
    batch: int = 0


def times_of(part: ChainPart, ranked: Assessed) -> Times:
    """The run of one plan as its clients see it: from sending, encoding included."""
    setting = part.study.setting
    outcome = outcome_of(setting, ranked)
    begun = part.sent if setting.workload.mode != "closed" else outcome.sent
    return Times(begun, outcome.first, outcome.finish, setting.workload.output)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns between rules."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    texts = ["  ".join(f" {cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    rule = "-" * (sum(widths) + 3 * len(widths) + 1)
    return "\n".join([rule, texts[0], rule, *texts[1:], rule])


def apex_page(parts: Sequence[ChainPart], wanted: PageWanted, notes: Sequence[str] = ()) -> str:
    """All searches, and the notes."""
    lines: list[str] = []
    for part in parts:
        study = part.study
        built = next((step.count for step in study.funnel if step.name == "enumerated"), 0)
        outside = sum(step.count for step in study.funnel if step.name in BUILD_RULES)
        lines += [f"Generated {built - outside} {part.role} candidate plans.", RULE]
        for i, (ranked, accounts) in enumerate(zip(study.ranked, part.apart)):
            title = f"Parallel schedule {i} for" if wanted.everything else "Optimal schedule for"
            lines += [f"* {title} {part.role}:", *_plan(study, ranked), *_output(part, ranked, accounts, wanted), RULE]
    return printable("\n".join([*lines, "Notes:", *(f"  [{i}] {note}" for i, note in enumerate([*NOTES, *notes], 1))]) + "\n")


def apex_json(parts: Sequence[ChainPart], wanted: PageWanted, notes: Sequence[str] = ()) -> dict[str, Any]:
    """All searches as plain values: the studies whole, and the numbers that the page defines in its own way."""
    return {
        "format": FORMAT,
        "parts": [
            {
                "role": part.role,
                "schedules": [_schedule(part, ranked, wanted) for ranked in part.study.ranked],
                "study": study_json(part.study),
            }
            for part in parts
        ],
        "notes": [*NOTES, *notes],
    }


def _schedule(part: ChainPart, ranked: Assessed, wanted: PageWanted) -> dict[str, Any]:
    times = times_of(part, ranked)
    rows = _performance(part, ranked, times, wanted)
    limits = zip(("ttft", "tpot"), (wanted.ttft_slo, wanted.tpot_slo), _met(times, wanted))
    return {
        "shorthand": ranked.plan.shorthand,
        "performance": [{"name": name, "value": value, "unit": unit} for name, value, unit in rows],
        "slos": [{"metric": metric, "limit_ms": limit, "attainment": met} for metric, limit, met in limits],
    }


BUILD_RULES = (
    "cell replicas are coprime", "experts split both ways stay in a node",
    "a layer for every stage", "attention divides", "feed-forward divides",
)  # fmt: skip
NOTES = (
    "TTFT and completion latency run from sending to the token, queueing and encoding included; the original counts the step alone.",
    "Throughput is over the makespan, first sending to last token; the original adds up the steps of its slowest replica.",
    "TBT percentiles are of each request's mean gap over its gaps; the original divides by its tokens, first one included.",
    "MFU and MBU are FLOP done and bytes moved over the peaks, while busy; the original takes 6 FLOP per parameter and 12 h^2 a layer.",
    "Schedules are ranked by makespan when all requests come at once, by mean completion latency when they arrive over time.",
    "Times are those of a replica's stage, mean and deviation over replicas; prefill attention holds cross-attention's keys and values.",
    "Energy is that of whole GPUs while the run lasts, idle included; the original adds up kernels.",
    "Requests that are stopped for memory are recomputed; the original resumes them at no cost.",
)


def _plan(study: Study, ranked: Assessed) -> list[str]:
    plan = ranked.only.plan
    blocks = sorted(set(stage_layers(len(study.setting.model.decoder.layers), plan.stages)))
    found = layouts(study.setting, plan, ranked.only.stages)[0]
    rows = [[cell["cell"], f"{cell['layout']}: {cell['per_gpu']} on each GPU"] for cell in found["cells"]]
    rows += [[_kind(move["kind"]), f"{move['per_layer']} x {move['group']} devices ({move['link']})"] for move in found["collectives"]]
    return [
        f"  # Model replicas: {plan.replicas}", f"  # Stages: {plan.stages}",
        f"  # Blocks per stage: {' or '.join(map(str, blocks))}", table(("Name", "Value"), rows),
    ]  # fmt: skip


def _kind(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _output(part: ChainPart, ranked: Assessed, accounts: Sequence[Account], wanted: PageWanted) -> list[str]:
    times = times_of(part, ranked)
    joules = ranked.metrics.energy.joules
    power = f"{joules / 1e3:.2f} KJ" if joules == joules else "unknown (no power figures of this GPU)"
    return [
        "* Statistics:", table(("Name", "Value"), _statistics(part.study, ranked)),
        "* Performance Metrics:", table(("Name", "Value", "Units"), _shown(_performance(part, ranked, times, wanted))),
        "* Latency SLO Metrics:", f"* Batch Size: {wanted.batch}",
        table(("Name", "Target SLO(msec)", "SLOs Met(%)"), _slos(times, wanted)),
        "* Time breakdown:", table(("Name", "Time (sec)", "Ratio (%)"), _breakdown(accounts, len(ranked.only.stages), times.duration)),
        f"Energy Consumption: {power}",
    ]  # fmt: skip


def _statistics(study: Study, ranked: Assessed) -> list[list[str]]:
    outcome, ledger = outcome_of(study.setting, ranked), dict(ranked.room.ledger)
    steps = max(outcome.total("decode_steps") + outcome.total("prompt_steps"), 1.0)
    decode, prompt = outcome.total("decode_tokens"), outcome.total("prompt_tokens")
    return [
        ["Parameter size per device (GB)", f"{ledger['weights'] / GiB:.1f}"],
        ["Activation memory per device (GB)", f"{(ledger['non-torch'] + ledger['KV cache']) / GiB:.1f}"],
        ["Avg. requests per iteration (per microbatch)", f"{(decode + len(outcome.finish)) / steps:.1f}"],
        ["Avg. tokens per iteration (per microbatch)", f"{(decode + prompt) / steps:.1f}"],
    ]


def _shown(rows: list[tuple[str, float, str]]) -> list[list[str]]:
    return [[name, f"{value:.3f}", unit] for name, value, unit in rows if value > NOTHING]


def _performance(part: ChainPart, ranked: Assessed, times: Times, wanted: PageWanted) -> list[tuple[str, float, str]]:
    work, decodes = part.study.setting.workload, part.role == "decoder"
    made, asked = (float(work.output.sum()) if decodes else 0.0), float(part.prompt.sum())
    if not decodes:
        asked = float(work.prompt.sum())
    rows: list[tuple[str, float, str]] = [
        ("Throughput: Avg. Tokens generated per second", made / times.duration, "tokens/sec"),
        ("Throughput: Avg. Tokens processed per second", (asked + made) / times.duration, "tokens/sec"),
        ("Throughput: Requests per second", work.size / times.duration, "requests/sec"),
    ]
    if decodes:
        gap = ranked.metrics.itl.mean
        rows += [
            ("Latency: Avg. Time to first token (TTFT in msec)", 1e3 * float(times.ttft.mean()), "msec"),
            ("Latency: Avg. Time per output token (TPOT in msec)", 1e3 * gap if gap == gap else 0.0, "msec"),
        ]
    gaps, e2e = times.tpot[times.several], times.e2e
    if len(gaps) and decodes:
        wide = sorted({50, 95, *wanted.token_percentiles})
        rows += [(f"Avg. TBT Percentile: P{p}", 1e3 * float(np.percentile(gaps, p)), "msec") for p in wide]
    for p in sorted({50, 95, *wanted.request_percentiles}):
        rows.append((f"Request Completion Latency: {p}th percentile", float(np.percentile(e2e, p)), "sec"))
    return [*rows, ("Avg. MFU Per iteration", 100 * ranked.account.mfu, "%"), ("MBU", 100 * ranked.account.mbu, "%")]


def _met(times: Times, wanted: PageWanted) -> tuple[float, float]:
    """Shares of the requests that keep the limit of TTFT, and of TPOT."""
    return float((times.ttft <= wanted.ttft_slo / 1e3).mean()), float((times.tpot <= wanted.tpot_slo / 1e3).mean())


def _slos(times: Times, wanted: PageWanted) -> list[list[str]]:
    first, paced = _met(times, wanted)
    return [["TTFT", f"{wanted.ttft_slo:g}", f"{100 * first:.3f} %"], ["TPOT", f"{wanted.tpot_slo:g}", f"{100 * paced:.3f} %"]]


def _breakdown(accounts: Sequence[Account], stages: int, duration: float) -> list[list[str]]:
    """Seconds of each class on a replica's stage, idle, and their sum, the duration."""
    each = [{name: seconds / stages for name, seconds in account.seconds} for account in accounts]
    names = dict.fromkeys(name for seconds in each for name in seconds)
    series = {name: np.array([seconds.get(name, 0.0) for seconds in each]) for name in names}
    series["Idle"] = duration - np.sum([*series.values()], axis=0)
    rows = [
        [name, f"{x.mean():.2f} ± {x.std():.1f}", f"{100 * x.mean() / duration:.1f}"]
        for name, x in series.items()
        if name == "Idle" or x.mean() > NOTHING
    ]
    return [*rows, ["Total", f"{duration:.2f}", "100.0"]]
