"""A sizing as text and as plain values, in the words of the engine's start-up log (floor 6)."""

from __future__ import annotations

from typing import Any

from apexsim.errors import Rejected
from apexsim.plan.fit import Fit
from apexsim.plan.memory import Room, fractions, log_lines
from apexsim.report.draw import percent, stacked
from apexsim.report.page import columns, heading, labelled, page
from apexsim.report.startup_log import Line
from apexsim.report.wiring import cluster_json, links_of
from apexsim.units import GiB

FORMAT = "apexsim.fit/1"
BAR = 60
USED, CACHE, FREE = "█▓▒░▚▞", "■", "·"
FLAGS = {"total": "vLLM --gpu-memory-utilization", "static": "SGLang --mem-fraction-static",
         "free": "TensorRT-LLM --kv_cache_free_gpu_memory_fraction"}  # fmt: skip
LINES = {
    "weights_gib": "weights", "activation_gib": "activation peak", "non_torch_gib": "non-torch", "graph_gib": "CUDA graphs",
    "kv_gib": "KV cache",
}  # fmt: skip


def predictions(answer: Fit) -> dict[str, float]:
    """Everything a start-up log states, as predicted; empty where it does not fit."""
    if isinstance(answer.found, Rejected):
        return {}
    ledger = dict(answer.found.ledger)
    sizes = {name: ledger[line] / GiB for name, line in LINES.items()}
    if "dispatch buffers" in ledger:  # SGLang logs what loading took in all
        sizes["weights_gib"] += ledger["dispatch buffers"] / GiB
    found = answer.found
    counts = {"kv_tokens": found.tokens, "kv_blocks": found.kv_bytes // found.pool.block_bytes,
              "max_concurrency": found.max_concurrency, "max_model_len": found.max_model_len}  # fmt: skip
    return sizes | (counts if found.pool.groups else {})


def fit_json(answer: Fit, lines: tuple[Line, ...] = ()) -> dict[str, Any]:
    """The answer as plain values; sizes in bytes of the tightest GPU."""
    gpu = answer.cluster.gpu
    head: dict[str, Any] = {
        "format": FORMAT, "model": answer.model.name, "gpu": gpu.name, "gpus": answer.cluster.size,
        "cluster": cluster_json(answer.cluster),
        "engine": answer.engine.label, "plan": answer.plan.shorthand, "max_model_len": answer.max_model_len,
        "fits": answer.fits, "gpu_memory_bytes": gpu.memory_bytes, "memory_fraction": answer.engine.memory_fraction,
        "max_num_seqs": answer.engine.max_num_seqs, "max_num_batched_tokens": answer.engine.max_num_batched_tokens,
    }  # fmt: skip
    if isinstance(answer.found, Rejected):
        return head | {"rule": answer.found.rule, "reason": answer.found.reason, "nearest": answer.nearest}
    found = answer.found
    return head | {
        "ledger": [{"line": name, "bytes": size} for name, size in found.ledger], "stage": found.stage,
        "kv_bytes": found.kv_bytes, "kv_range_bytes": found.kv_range, "kv_tokens": found.tokens if found.pool.groups else 0,
        "max_concurrency": found.max_concurrency, "block_tokens": found.block_size, "block_bytes": found.pool.block_bytes,
        "same_cache_fraction": fractions(found, answer.engine), "log": list(words(answer, found)),
        "notes": told(answer),
        "comparison": [{"line": x.name, "logged": x.logged, "predicted": x.predicted} for x in lines],
    }  # fmt: skip


def words(answer: Fit, found: Room) -> tuple[str, ...]:
    """The lines that the engine would log."""
    ledger = dict(found.ledger)
    loaded = (ledger["weights"] + ledger.get("dispatch buffers", 0.0)) / GiB
    engine = answer.engine.engine
    if not found.pool.groups:
        return (f"Model loading took {loaded:.2f} GiB",)
    if engine == "sglang":
        return (f"Load weight end. mem usage={loaded:.2f} GB",
                f"KV Cache is allocated. #tokens: {found.tokens}, KV size: {found.kv_bytes / GiB:.2f} GB")  # fmt: skip
    if engine == "tensorrt-llm":
        return (f"Allocated {found.kv_bytes / GiB:.2f} GiB for max tokens in paged KV cache ({found.tokens}).",)
    return f"Model loading took {loaded:.2f} GiB", *log_lines(found)


def fit_text(answer: Fit, lines: tuple[Line, ...] = (), color: bool = False) -> str:
    """The answer as a page; only for what fits (the rest is one line of an error)."""
    found, gpu = answer.found, answer.cluster.gpu
    assert isinstance(found, Room)
    title = f"{answer.plan.shorthand} on {answer.cluster.size} × {gpu.name}, {answer.engine.dated}"
    glyphs = USED[: len(found.ledger) - 2] + CACHE + FREE
    shares = [size for _, size in found.ledger]
    rows = [
        (glyphs[i], name, f"{size / GiB:.2f} GiB", percent(size / gpu.memory_bytes))
        for i, (name, size) in enumerate(found.ledger)
    ]
    rows.append(("", "GPU memory", f"{gpu.memory_bytes / GiB:.2f} GiB", "100%"))
    parts = [
        heading(f"{answer.model.name} fits", title),
        labelled([("one GPU", stacked(shares, BAR, glyphs))]),
        columns([("", "left"), ("", "left"), ("", "right"), ("", "right")], rows),
        heading("as the engine logs it"),
        labelled([("", line) for line in words(answer, found)]),
        labelled(_remarks(answer, found)),
    ]
    if lines:
        parts += [heading("against the log"), columns(HEADS, [_compared(line) for line in lines])]
    return page(parts, color)


HEADS = [("line", "left"), ("logged", "right"), ("predicted", "right"), ("difference", "right")]


def _compared(line: Line) -> tuple[str, str, str, str]:
    digits = 0 if line.name in ("kv_tokens", "kv_blocks", "max_model_len") else 2
    change = line.predicted - line.logged
    relative = f" ({line.predicted / line.logged - 1.0:+.1%})" if line.logged > 0 else ""
    return line.name, f"{line.logged:,.{digits}f}", f"{line.predicted:,.{digits}f}", f"{change:+,.{digits}f}{relative}"


def _remarks(answer: Fit, found: Room) -> list[tuple[str, str]]:
    rows = [("links", link) for link in ("; ".join(links_of(answer.cluster)),)] if answer.cluster.gpu.stated else []
    if found.pool.groups:
        low, high = (size / GiB for size in found.kv_range)
        rows.append(("expect", f"KV cache of {low:.1f} to {high:.1f} GiB: where independent start-up logs lay"))
        same = fractions(found, answer.engine)
        rows.append(("the same cache", ", ".join(f"{FLAGS[k]} {v:.3f}" for k, v in same.items())))
    if found.max_concurrency < 1.0:
        rows.append(
            ("note", f"one request of {found.max_model_len:,} tokens does not fit into the cache; shorter ones do")
        )
    if answer.plan.stages > 1:
        rows.append(("tightest", f"stage {found.stage + 1} of {answer.plan.stages}"))
    return rows + [("note", note) for note in told(answer)]


def told(answer: Fit) -> tuple[str, ...]:
    """What the user should know of the plan, the model and the GPU."""
    gpu = answer.cluster.gpu
    return (*answer.notes, *answer.model.notes, *(f"{gpu.name}: {note}" for note in gpu.notes))
