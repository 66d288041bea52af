"""A sizing as text and as plain values, in the words of the engine's start-up log (floor 6)."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from apexsim.engine_file import DEFAULT_ENGINE
from apexsim.engines import engine_facts, load_engine, servers
from apexsim.errors import Rejected
from apexsim.plan.flags import words_of
from apexsim.plan.levers import counted, flags_of_plan
from apexsim.plan.memory import DISPATCH, Room, fractions
from apexsim.plan.pool import request_blocks
from apexsim.plan.sized import Fit, Lever, caches, full_users, typical_users, users
from apexsim.report.against import Against
from apexsim.report.draw import percent, stacked
from apexsim.report.log_settings import LogSetting
from apexsim.report.page import PROSE_WIDTH, columns, heading, labelled, page
from apexsim.report.startup_log import LogLine
from apexsim.report.wiring import cluster_json, links_of
from apexsim.units import GiB

FORMAT = "apexsim.fit/1"
BAR = 60
USED, CACHE, FREE = "█▓▒░▚▞", "■", "·"
WORDS = {
    "weights_gib": "weights", "consumed_gib": "weights + non-torch", "activation_gib": "activation peak", "non_torch_gib": "non-torch",
    "graph_gib": "CUDA graphs", "state_gib": "recurrent state", "kv_gib": "KV cache", "kv_tokens": "KV tokens", "kv_blocks": "KV blocks",
    "max_concurrency": "maximum concurrency", "max_model_len": "longest request allowed", "one_request_gib": "KV of one such request",
    "longest_request": "longest that fits", "gpu_memory_gib": "GPU memory",
}  # fmt: skip
COUNTS = ("kv_tokens", "kv_blocks", "max_model_len", "longest_request")


def fit_json(answer: Fit, log: Against | None = None) -> dict[str, Any]:
    """The answer as plain values; sizes in bytes of the tightest GPU."""
    gpu = answer.cluster.gpu
    head: dict[str, Any] = {
        "format": FORMAT, "model": answer.model.name, "gpu": gpu.name, "gpus": answer.cluster.size,
        "cluster": cluster_json(answer.cluster),
        "engine": answer.engine.label, "plan": answer.plan.shorthand, "flags": flags_of_plan(answer.plan, answer.engine),
        "max_model_len": answer.max_model_len, "fits": answer.fits, "gpu_memory_bytes": gpu.memory_bytes,
        "memory_fraction": answer.engine.memory_fraction, "max_num_seqs": answer.engine.max_num_seqs,
        "max_num_batched_tokens": answer.engine.max_num_batched_tokens, "levers": [_lever_json(lever) for lever in answer.levers],
        **(_log_json(log) if log else {}),
    }  # fmt: skip
    if isinstance(answer.found, Rejected):
        return head | {"rule": answer.found.rule, "reason": answer.found.reason, "nearest": answer.nearest}
    found = answer.found
    return head | {
        "ledger": [{"line": name, "bytes": size} for name, size in found.ledger], "stage": found.stage,
        "kv_bytes": found.kv_bytes, "kv_range_bytes": found.kv_range, "kv_tokens": found.tokens if found.pool.groups else 0,
        "max_concurrency": found.max_concurrency, "block_tokens": found.block_size, "block_bytes": found.pool.block_bytes,
        "same_cache_fraction": fractions(found, answer.engine), "log": list(words(answer, found)),
        "users": _users_json(answer), "others": [_other_json(other) for other in answer.others],
        "notes": told(answer), "comparison": [] if log is None else head["comparison"],
    }  # fmt: skip


def _users_json(answer: Fit) -> dict[str, Any]:
    (full, full_stop), (many, many_stop) = users(answer, ((answer.max_model_len, 1),)), users(answer, answer.typical.lengths)
    typical = answer.typical
    return {
        "full_length": answer.max_model_len, "full": full, "full_limited_by_sequences": full_stop,
        "typical_prompt": typical.prompt, "typical_output": typical.output, "typical_source": typical.source,
        "typical": many, "typical_limited_by_sequences": many_stop,
    }  # fmt: skip


def _other_json(answer: Fit) -> dict[str, Any]:
    return {"plan": answer.plan.shorthand, "flags": flags_of_plan(answer.plan, answer.engine), "users_full": full_users(answer),
            "users_typical": typical_users(answer)}  # fmt: skip


def _lever_json(lever: Lever) -> dict[str, Any]:
    found = lever.answer
    return {"kind": lever.kind, "change": lever.words, "plan": found.plan.shorthand, "gpus": found.cluster.size,
            "max_model_len": found.max_model_len, "kv_bytes": found.room.kv_bytes if found.room else 0.0,
            "users_full": full_users(found), "users_typical": typical_users(found)}  # fmt: skip


def _log_json(log: Against) -> dict[str, Any]:
    return {
        "comparison": [{"line": x.name, "logged": x.logged, "predicted": x.predicted} for x in log.lines],
        "log_settings": [{"setting": x.name, "logged": x.logged, "used": x.used, "taken": x.taken} for x in log.settings],
        "log_missing": list(log.missing), "log_failure": log.failure, "log_remarks": list(log.remarks),
        "log_fraction": log.fraction or None,
    }  # fmt: skip


def words(answer: Fit, found: Room) -> tuple[str, ...]:
    """The lines that the engine would log."""
    ledger = dict(found.ledger)
    loaded = (ledger["weights"] + ledger.get(DISPATCH, 0.0)) / GiB
    usual = engine_facts(DEFAULT_ENGINE).says
    says = (answer.engine.server.says or usual) if found.pool.groups else usual[:1]
    figures = {"loaded": loaded, "kv": found.kv_bytes / GiB, "tokens": found.tokens, "length": found.max_model_len,
               "many": found.max_concurrency}  # fmt: skip
    return tuple(line.format(**figures) for line in says)


def fraction_words(answer: Fit, found: Room) -> str:
    """The memory fraction that leaves the same cache, in the words of an engine for each meaning of it; the one asked about first."""
    words: dict[str, str] = {}
    for row in (answer.engine, *map(load_engine, servers())):
        if words_of(row).has("memory"):
            words.setdefault(row.memory.budget, f"{row.server.about} {words_of(row).flag('memory')}")
    return ", ".join(f"{words[kind]} {share:.3f}" for kind, share in fractions(found, answer.engine).items())


def fit_text(answer: Fit, log: Against | None = None, color: bool = False, width: int | None = None) -> str:
    """The answer as a page; only for what fits (the rest is one line of an error)."""
    found, gpu = answer.found, answer.cluster.gpu
    assert isinstance(found, Room)
    wide = width or PROSE_WIDTH
    title = f"{answer.plan.shorthand} on {answer.cluster.size} × {gpu.name}, {answer.engine.dated}"
    glyphs = USED[: len(found.ledger) - 2] + CACHE + FREE
    shares = [size for _, size in found.ledger]
    rows = [(glyphs[i], name, f"{size / GiB:.2f} GiB", percent(size / gpu.memory_bytes)) for i, (name, size) in enumerate(found.ledger)]
    rows.append(("", "GPU memory", f"{gpu.memory_bytes / GiB:.2f} GiB", "100%"))
    parts = [
        heading(f"{answer.model.name} fits", title),
        labelled([("one GPU", stacked(shares, BAR, glyphs))]),
        columns([("", "left"), ("", "left"), ("", "right"), ("", "right")], rows),
        *([heading("as the engine logs it"), labelled([("", line) for line in words(answer, found)])] if answer.model.generates else []),
        labelled(_remarks(answer, found), wide),
    ]
    if answer.others:
        parts += [heading("other layouts that fit"), _table(answer, [(x, _spoken(x)) for x in answer.others], wide)]
    if answer.levers:
        parts += [heading("for more room, each alone"), _table(answer, [(x.answer, x.words) for x in answer.levers], wide)]
    return page([*parts, *(_log_parts(log, wide) if log else [])], color)


def render(answer: Fit, *, width: int | None = None, color: bool = False, top: int = 0, everything: bool = False) -> str:
    """The answer as a page, also of what does not fit.  width: columns of the terminal, if any."""
    if answer.fits:
        return fit_text(answer, color=color, width=width)
    return page([heading("apexsim", title(answer)), labelled([("answer", " ".join(sentences(answer)))], width or PROSE_WIDTH)], color)


def title(answer: Fit) -> str:
    """What was asked, in a line."""
    gpu = answer.cluster.gpu
    return f"memory of {answer.model.name} as {answer.plan.shorthand} on {answer.cluster.size} × {gpu.name}, {answer.engine.label}"


def sentences(answer: Fit) -> list[str]:
    """Whether it fits, and how many users there is room for."""
    name = answer.plan.shorthand
    if isinstance(answer.found, Rejected):
        return [f"{name} does not fit: {answer.found.reason}.", *([f"{answer.nearest}."] if answer.nearest else [])]
    found = answer.found
    left = f": {found.kv_bytes / GiB:.1f} GiB of KV cache, {found.tokens:,} tokens" if found.pool.groups else ""
    return [
        f"{name} fits{left}.",
        *([f"Users at once: {_users(answer)}."] if caches(found) else []),
        *(f"{note}." for note in answer.notes),
    ]


def _spoken(answer: Fit) -> str:
    return f"{flags_of_plan(answer.plan, answer.engine)}: {answer.plan.shorthand}"


def _table(answer: Fit, rows: list[tuple[Fit, str]], width: int) -> RenderableType:
    """Answers to changed questions: the cache, the users that it holds, and the change."""
    typical = answer.typical.prompt + answer.typical.output
    lengths = f"users of {answer.max_model_len:,}", f"of {typical:,.0f} tokens"
    heads = [("KV cache", "right"), *((length, "right") for length in lengths), ("with", "left")]
    cells = [
        (f"{found.room.kv_bytes / GiB:.1f} GiB" if found.room else "", counted(full_users(found)), counted(typical_users(found)), told)
        for found, told in rows
    ]
    return columns(heads, cells, width=min(width, PROSE_WIDTH))


def log_text(log: Against, color: bool = False, width: int | None = None) -> str:
    """The log's section alone, for what does not fit."""
    return page(_log_parts(log, width or PROSE_WIDTH), color)


def _log_parts(log: Against, width: int) -> list[RenderableType]:
    """The log's section of the page."""
    plain = [x for x in log.settings if x.taken and x.name not in ("engine", "version")]
    taken = [_setting(x) for x in plain if (x.name, x.logged) != ("pp", 1)]
    if log.engine:
        taken.insert(0, f"--engine {log.engine}")
    rows = [("from the log", ", ".join(taken))] if taken else []
    rows += [("differs", f"{x.flag}: {_value(x.logged)} in the log, {_value(x.used)} here") for x in log.settings if x.differs]
    if not any(x.name == "gpu_memory_utilization" for x in log.settings):
        summed = f"; its lines of use add up to {log.fraction:.3f} of the GPU" if log.fraction else ""
        rows.append(("not in the log", f"the memory fraction{summed}"))
    rows += [("not in the log", ", ".join(WORDS[name] for name in log.missing))] if log.missing else []
    rows += [("it failed", log.failure)] if log.failure else []
    rows += [("note", told) for told in log.remarks]
    return [heading("against the log"), columns(HEADS, [_compared(line) for line in log.lines]), labelled(rows, width)]


def _setting(x: LogSetting) -> str:
    return x.flag if x.logged is True else f"{x.flag} {_value(x.logged)}"


def _value(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value:,}" if isinstance(value, int) else str(value)


HEADS = [("line", "left"), ("logged", "right"), ("predicted", "right"), ("difference", "right")]


def _compared(line: LogLine) -> tuple[str, str, str, str]:
    digits = 0 if line.name in COUNTS else 2
    unit = " [GiB]" if line.name.endswith("_gib") else ""
    change = line.predicted - line.logged
    relative = f" ({line.predicted / line.logged - 1.0:+.1%})" if line.logged > 0 else ""
    named = WORDS[line.name] + unit
    return named, f"{line.logged:,.{digits}f}", f"{line.predicted:,.{digits}f}", f"{change:+,.{digits}f}{relative}"


def _remarks(answer: Fit, found: Room) -> list[tuple[str, str]]:
    rows = [("links", "; ".join(links_of(answer.cluster)))] if answer.cluster.gpu.stated else []
    if caches(found):
        rows.append(("users", _users(answer)))
    if found.pool.groups:
        rows.append(("expect", _expected(answer, found)))
        rows.append(("the same cache", fraction_words(answer, found)))
    if found.max_concurrency < 1.0:
        rows.append(("note", f"one request of {found.max_model_len:,} tokens does not fit into the cache; shorter ones do"))
    flags = flags_of_plan(answer.plan, answer.engine)
    if flags:
        rows.append(("layout", f"{flags}{f', {answer.plan.replicas} such servers' if answer.plan.replicas > 1 else ''}"))
    if answer.plan.stages > 1:
        rows.append(("tightest", f"stage {found.stage + 1} of {answer.plan.stages}"))
    return rows + [("note", note) for note in told(answer)]


def _users(answer: Fit) -> str:
    """Users at once, of full and of typical length."""
    typical = answer.typical
    told = []
    for lengths, length in (
        (((answer.max_model_len, 1),), f"{answer.max_model_len:,} tokens each"),
        (typical.lengths, f"{typical.prompt + typical.output:,.0f}"),
    ):
        many, stopped = users(answer, lengths)
        told.append(f"{counted(many)} of {length}{', as many as the engine runs' if stopped else ''}")
    return f"{'; '.join(told)} ({typical.prompt:,.0f} + {typical.output:,.0f}: {typical.source})"


def _expected(answer: Fit, found: Room) -> str:
    """Where the cache will lie, and whether the engine then starts."""
    low, high = (size / GiB for size in found.kv_range)
    told = f"KV cache of {low:.1f} to {high:.1f} GiB: where independent start-up logs lay"
    need = request_blocks(found.pool, found.max_model_len, answer.engine) * found.pool.block_bytes
    if answer.engine.memory.refuses and found.kv_range[0] < need:
        told += f"; one request of {found.max_model_len:,} tokens needs {need / GiB:.1f}, so at the low end it does not start"
    return told


def told(answer: Fit) -> tuple[str, ...]:
    """What the user should know of the plan, the model and the GPU."""
    gpu = answer.cluster.gpu
    return (*answer.notes, *answer.model.notes, *(f"{gpu.name}: {note}" for note in gpu.notes))
