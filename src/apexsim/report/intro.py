"""The question as it was understood, and what became of the plans (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os.path import isabs

from apexsim.cost.fitted import guessed
from apexsim.engines import EngineRow, flags_of, our_flag
from apexsim.errors import Rejected
from apexsim.hardware import Cluster
from apexsim.model.count import active_parameters, total_parameters
from apexsim.model.dtypes import dtype
from apexsim.model.model import Model
from apexsim.plan.plan import Precision
from apexsim.report.draw import percent, sig
from apexsim.report.figures import objective_words
from apexsim.report.page import Row
from apexsim.report.verdict import unmeasured
from apexsim.report.wiring import links_of
from apexsim.search import least, screen
from apexsim.search.setting import Setting
from apexsim.search.startable import has_server
from apexsim.search.study import Study
from apexsim.units import GB, TFLOPS, GiB, format_count, format_seconds
from apexsim.workload.trace import Workload


def understood(study: Study) -> list[Row]:
    """Model, cluster, workload, engine, goal and notes, one line each."""
    setting, precision = study.setting, study.ranked[0].plan.precision
    return [
        ("model", model_line(setting.model, precision)),
        ("cluster", cluster_line(setting.cluster)),
        ("workload", workload_line(setting.workload)),
        ("engine", engine_line(setting)),
        ("goal", goal_line(study)),
        *(("note", note) for note in study.notes),
    ]


def model_line(model: Model, precision: Precision) -> str:
    """Size, shape and number formats."""
    total, active = total_parameters(model), active_parameters(model)
    mixture = f" ({format_count(active)} active)" if active < 0.9 * total else ""
    heads = next((f", {words}" for b in model.decoder.blocks for c in b.cells if (words := c.heads_words())), "")
    kv = sum(c.kv_bytes(1, dtype(precision.kv).stored) for i in model.decoder.layers for c in model.decoder.blocks[i].cells)
    weights = "/".join(dict.fromkeys([precision.default, *(f for _, f in precision.weights)]))
    return (
        f"{format_count(total)} parameters{mixture}, {len(model.decoder.layers)} layers, "
        f"hidden {model.hidden:,}{heads}, weights {weights}, KV {precision.kv} ({kv / 1024:.4g} KiB per token)"
    )


def cluster_line(cluster: Cluster) -> str:
    """GPUs, their peaks, and the links between them."""
    gpu = cluster.gpu
    wires = "".join(f"; {link}" for link in links_of(cluster))
    nodes = f"{cluster.nodes} nodes × {cluster.per_node}" if cluster.nodes > 1 else f"{cluster.per_node}"
    return (
        f"{nodes} × {gpu.name}: {gpu.memory_bytes / GiB:.1f} GiB, {gpu.memory_bandwidth / GB:,.0f} GB/s, "
        f"{gpu.flops['bf16'] / TFLOPS:,.0f} TFLOP/s bf16{wires}; kernels {kernels_of(cluster)}"
    )


def kernels_of(cluster: Cluster) -> str:
    """Where kernel times come from."""
    gpu = cluster.gpu
    if isabs(gpu.kernels):  # a device folder, which may hold few operators
        return f"from its folder, else {f'transferred from {gpu.borrow}' if gpu.borrow else 'roofline'}"
    return "measured" if gpu.kernels else (f"transferred from {gpu.borrow}" if gpu.borrow else guessed(gpu))


def workload_line(work: Workload) -> str:
    """Requests, lengths and how they come."""
    span = float(work.arrive[-1] - work.arrive[0])
    how = {
        "open": f"over {format_seconds(span)} ({sig((work.size - 1) / span if span else float('nan'))} requests/s)",
        "closed": f"from {work.concurrency:,} users in a closed loop",
        "offline": "all at once",
    }[work.mode]
    warm = f", the first {work.warmup:,} left out as warm-up" if work.warmup else ""
    return (
        f"{work.source or work.name}: {work.size:,} requests {how}{warm}; prompt mean {work.prompt.mean():,.0f}, max "
        f"{work.prompt.max():,}; output mean {work.output.mean():,.0f}, max {work.output.max():,} tokens{_classes(work)}"
    )


def _classes(work: Workload) -> str:
    """How many requests each class has."""
    told = [f"{name} {int((work.kind == place).sum()):,}" for place, name in enumerate(work.kinds)]
    return f"; classes {', '.join(told)}" if told else ""


def engine_line(setting: Setting) -> str:
    """The settings that decide the batching."""
    row = setting.engine
    figures = {
        "max_model_len": f"{setting.max_model_len:,}", "max_num_seqs": f"{row.max_num_seqs:,}",
        "max_num_batched_tokens": f"{row.max_num_batched_tokens:,}", "memory_fraction": f"{row.memory_fraction:.12g}",
    }  # fmt: skip
    own = flags_of(row.name)
    told = ", ".join(f"{own.get(name, our_flag(name)).removeprefix('--')} {value}" for name, value in figures.items())
    return (
        f"{row.dated}{';' if row.asked else ':'} {_batching(row)}, {told}, "
        f"{f'CUDA graphs to batch {row.max_capture}' if row.pad else 'eager'}, {setting.router.name} over replicas"
    )


def _batching(row: EngineRow) -> str:
    if row.mix:
        return "chunked prefill mixed with decodes" if row.chunk else "prompts mixed with decodes"
    return "prompts first, in chunks" if row.chunk else "prompts first, whole"


def goal_line(study: Study) -> str:
    """Objective, limits and error bar."""
    goal, objective = study.goal, study.goal.objective
    kept = [*map(str, goal.slos), *([f"power-cap={goal.power_cap:.12g}W"] if math.isfinite(goal.power_cap) else [])]
    limits = f"; limits {', '.join(kept)}" if kept else ""
    return (
        f"{'lowest' if objective.better == 'lower' else 'highest'} {objective_words(objective)}{limits}; "
        f"predictions ±{percent(study.error[0])} (two of three real runs{unmeasured(study.setting)}), differences between plans "
        f"under {percent(study.error[1])} are ties"
    )


NEAR = 3  # rejected plans shown of a rule
NOT_RULES = ("enumerated", "left by the interrupt", "simulated")
REPEATS = "cell replicas are coprime"
# rule -> what it turns away, of one and of several layouts
PLAIN = {
    REPEATS: ("repeats another layout", "repeat other layouts"),
    "experts split both ways stay in a node": ("splits experts both ways across nodes", "split experts both ways across nodes"),
    "a layer for every stage": ("has more stages than layers", "have more stages than layers"),
    "a MIG slice serves alone": ("joins MIG slices", "join MIG slices"),
    "attention divides": ("cannot divide the attention", "cannot divide the attention"),
    "feed-forward divides": ("cannot divide the feed-forward layers", "cannot divide the feed-forward layers"),
    "the model drafts so": ("cannot draft so", "cannot draft so"),
    "weights fit": ("does not fit", "do not fit"),
    "room for one request": ("has no room for one request", "have no room for one request"),
    "has the widths asked for": ("has other widths than asked for", "have other widths than asked for"),
    "a pool has no room": ("server has no room", "servers have no room"),
    "slower server of its size": ("server is beaten by another of its size", "servers are beaten by another of their size"),
    "pools estimated far behind": ("pair of pools is estimated far behind", "pairs of pools are estimated far behind"),
    least.RULE: (
        "cannot be started and is slower even alone",
        "cannot be started and are slower even alone",
    ),
    screen.RULE: ("left out after a sample of the trace", "left out after a sample of the trace"),
    "left by the interrupt": ("not looked at, interrupted", "not looked at, interrupted"),
    "simulated": ("simulated", "simulated"),
}


def funnel_line(study: Study) -> str:
    """50 layouts: 20 repeat other layouts, 5 do not fit, 25 simulated; vllm can start 9 of them."""
    counts = {step.name: step.count for step in study.funnel}
    told = [f"{n:,} {PLAIN[name][n > 1] if name in PLAIN else name}" for name, n in counts.items() if n and name != "enumerated"]
    every = [*study.ranked, *study.hypothetical]
    able = sum(not r.blocked for r in every)
    can = f"; {study.setting.engine.name} can start {able:,} of these" if has_server(study.setting) and able < len(every) else ""
    layouts = f"{counts['enumerated']:,} layout{'s' * (counts['enumerated'] > 1)}"
    return f"{layouts}: {', '.join(told)}{can}"


def funnel_rows(study: Study) -> list[tuple[str, str]]:
    """(what, example) of every rule that turned plans away, but repetitions; of plans too large, the nearest misses."""
    rows: list[tuple[str, str]] = []
    for step in study.funnel:
        if step.name in (*NOT_RULES, REPEATS):
            continue
        near = nearest_misses([r for r in study.rejected if r.rule == step.name and not r.clock])
        examples = [f"{r.shorthand}: {r.reason}" for r in near] or [step.example]
        words = PLAIN[step.name][step.count > 1] if step.name in PLAIN else step.name
        rows += [(words if not i else "", text) for i, text in enumerate(examples)]
    return rows


def nearest_misses(rejected: Sequence[Rejected]) -> list[Rejected]:
    """Plans that did not fit by the least memory, nearest first; those that lack the same tenth of a GiB by name."""
    short = [r for r in rejected if not math.isnan(r.short_bytes)]
    return sorted(short, key=lambda r: (round(r.short_bytes / GiB, 1), r.shorthand))[:NEAR]
