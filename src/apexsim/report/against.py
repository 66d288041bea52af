"""A sizing held against a start-up log: lines, settings, and what the log does not hold (floor 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apexsim.engine_file import DEFAULT_ENGINE, order
from apexsim.engines import EngineRow, closest, load_engine
from apexsim.errors import InputError
from apexsim.model.dtypes import dtype
from apexsim.plan.choose import CACHES
from apexsim.plan.memory import DISPATCH, stage_parts, stages_of
from apexsim.plan.pool import request_blocks
from apexsim.plan.sized import Fit, longest
from apexsim.report.log_settings import LogSetting, settings, spec
from apexsim.report.startup_log import LogLine, compared, failure, logged, missing, remarks
from apexsim.units import GiB

LINES = {
    "weights_gib": "weights", "activation_gib": "activation peak", "non_torch_gib": "non-torch", "graph_gib": "CUDA graphs",
    "kv_gib": "KV cache",
}  # fmt: skip
ADD_UP = (("consumed_gib",), ("weights_gib", "non_torch_gib"))  # what vLLM's lines of use name beside activations, graphs and cache
ONES = ("gpu_memory_utilization", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "kv_dtype", "enforce_eager")


@dataclass(frozen=True, slots=True)
class Against:
    """lines: those that both have; settings: of the log; missing: lines of a whole log that it lacks; failure: what the engine
    said when it did not start, "" where it did; remarks: what explains differences; fraction: of this GPU that its lines of
    use add up to, 0 where they do not say; engine: that was taken from it, "" where that is what is asked about anyway."""

    lines: tuple[LogLine, ...]
    settings: tuple[LogSetting, ...]
    missing: tuple[str, ...]
    failure: str
    remarks: tuple[str, ...]
    fraction: float
    engine: str = ""


def asked_as(given: Mapping[str, Any], text: str, gpus: int) -> dict[str, Any]:
    """What is asked, with what the log says of settings that were not given; raises InputError where it is no log.

    Settings of another engine than the one that is asked about are not taken.  gpus: of the cluster; the log's widths are
    taken where no width is given and they divide that.
    """
    logged(text)
    told, made = settings(text), dict(given)
    name, sign, _ = str(given["engine"]).partition("@")
    if spec(told) and not sign and name in (DEFAULT_ENGINE, told["engine"]):
        made["engine"] = _known(spec(told))
    row = load_engine(made["engine"])
    if row.server.name != told["engine"]:
        return made
    for option in ONES:
        if option in told and given[option] in (None, False) and _possible(option, told[option], row):
            made[option] = told[option]
    wide: dict[str, Any] = {option: told[option] for option in ("tp", "pp") if option in told}
    free = not any(given[option] for option in ("tp", "pp", "dp", "ep", "enable_expert_parallel", "plan"))
    if free and wide and not gpus % (wide.get("tp", 1) * wide.get("pp", 1)):
        made |= wide
    return made


def _possible(option: str, value: Any, row: EngineRow) -> bool:
    """Whether a setting of a log can be sized with: caches in known formats; budgets of engines that cut prompts."""
    return value in CACHES if option == "kv_dtype" else bool(row.chunk) or option != "max_num_batched_tokens"


def _known(named: str) -> str:
    """The engine of a log, at the nearest version that has rules where its own is older or newer than all of them."""
    try:
        load_engine(named)
    except InputError:
        row = closest(named)
        return f"{row.name}@{row.version}"
    return named


def against(answer: Fit, text: str, given: Mapping[str, Any], asked: Mapping[str, Any]) -> Against:
    """A sizing beside a log; `given`: the options as the user gave them, `asked`: with what was taken from the log."""
    stated, told = logged(text), settings(text)
    fraction = _fraction(stated, answer.cluster.gpu.memory_bytes)
    taken = {name for name, value in asked.items() if value != given.get(name)}
    rows, lines = _settings(answer, told, taken), compared(text, predictions(answer))
    engine = str(asked["engine"]) if "engine" in taken else ""
    return Against(lines, rows, missing(text), failure(text), remarks(text), fraction, engine)


def _fraction(stated: Mapping[str, float], memory: float) -> float:
    """The share of the GPU that the lines of use add up to."""
    rest = ("activation_gib", "graph_gib", "kv_gib")
    for whole in ADD_UP:
        if all(name in stated for name in (*whole, *rest)):
            return sum(stated[name] for name in (*whole, *rest)) / stated.get("gpu_memory_gib", memory / GiB)
    return 0.0


def _settings(answer: Fit, told: Mapping[str, Any], taken: set[str]) -> tuple[LogSetting, ...]:
    """The log's settings beside those used; taken: options that were filled in from the log."""
    row, plan = answer.engine, answer.plan
    used: dict[str, Any] = {
        "engine": row.server.name, "version": row.spoken, "gpu_memory_utilization": row.memory_fraction,
        "max_model_len": answer.max_model_len, "max_num_seqs": row.max_num_seqs,
        "max_num_batched_tokens": row.max_num_batched_tokens, "kv_dtype": plan.precision.kv,
        "tp": plan.stage_devices if row.server.lanes_inside else plan.attention.tp, "pp": plan.stages,
        "enforce_eager": not row.pad,
    }  # fmt: skip
    own_cache = dtype(answer.model.kv_dtype).name if answer.model.kv_dtype else "bf16"
    rows = []
    for name, value in told.items():
        value = own_cache if value == "auto" else value
        same = order(value)[:3] == order(used[name])[:3] if name == "version" else value == used[name]
        rows.append(LogSetting(name, value, value if same else used[name], same and ("engine" if name == "version" else name) in taken))
    return tuple(rows)


def predictions(answer: Fit) -> dict[str, float]:
    """Everything a start-up log states, as predicted; without the cache's counts where nothing is left for a cache."""
    found = answer.room
    memory = {"gpu_memory_gib": answer.cluster.gpu.memory_bytes / GiB}
    if found is None:
        return memory | _without_room(answer)
    sizes = _sizes(dict(found.ledger))
    counts = {
        "kv_tokens": found.tokens, "kv_blocks": found.kv_bytes // found.pool.block_bytes, "max_concurrency": found.max_concurrency,
        "max_model_len": found.max_model_len, "longest_request": longest(answer),
        "one_request_gib": request_blocks(found.pool, found.max_model_len, answer.engine) * found.pool.block_bytes / GiB,
    }  # fmt: skip
    return memory | sizes | (counts if found.pool.groups else {})


def _without_room(answer: Fit) -> dict[str, float]:
    """The lines of the tightest stage of a plan that does not fit."""
    model, plan, engine, cluster = answer.model, answer.plan, answer.engine, answer.cluster
    if plan.stages > len(model.decoder.layers):
        return {}
    made = [stage_parts(model, plan, cluster, engine, stage) for stage in stages_of(model, plan.stages)]
    parts, cache = min(made, key=lambda one: one[1])
    return _sizes(parts | {"KV cache": cache})


def _sizes(ledger: Mapping[str, float]) -> dict[str, float]:
    """The lines of a ledger [byte] as a log states them [GiB]."""
    sizes = {name: ledger[line] / GiB for name, line in LINES.items()}
    sizes["weights_gib"] += ledger.get(DISPATCH, 0.0) / GiB  # SGLang logs what loading took in all
    sizes["consumed_gib"] = sizes["weights_gib"] + sizes["non_torch_gib"]
    if "recurrent state" in ledger:
        sizes["state_gib"] = ledger["recurrent state"] / GiB
    return sizes
