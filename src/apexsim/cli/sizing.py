"""The command `fit`: memory only, no simulation, so that it answers at once (floor 7)."""

from __future__ import annotations

from typing import Any

from apexsim.cli.options import Model, checked, with_options
from apexsim.cli.outside import STDOUT, deliver, page_size, present
from apexsim.errors import Infeasible, InputError, Rejected

FIT_HELP = """Does it fit? The memory of one GPU line by line, KV tokens and concurrency, in the words of the engine's log.

A width that is not given is filled by model replicas; with none, the narrowest that fits is taken. Exit code 3 when it
does not fit, with the reason and the nearest that would.

Examples:

  apexsim fit llama-3.1-70b --gpu h100-sxm --gpus 8 --tp 4

  apexsim fit deepseek-ai/DeepSeek-V3 --gpu h200-sxm --gpus 8 --plan DEP8 --max-model-len 32768 --json

  apexsim fit llama-3.1-8b --gpu l40s:1 --workload chat

  apexsim fit qwen3-8b --gpu h100-sxm --gpus 1 --max-model-len 8192 --log examples/qwen3-8b-startup.log
"""
SETTINGS = {
    "max_num_seqs": "max_num_seqs", "max_num_batched_tokens": "max_num_batched_tokens", "block_size": "block_size",
    "gpu_memory_utilization": "memory_fraction", "num_speculative_tokens": "draft_tokens",
}  # fmt: skip


@with_options("fit")
def fit(model: Model, **given: Any) -> None:
    """Size one plan."""
    from apexsim.report.ledger import fit_json, fit_text, predictions
    from apexsim.report.plain import dumps
    from apexsim.report.startup_log import compared, read_log

    given = checked("fit", given)
    text = read_log(given["log"]) if given["log"] else ""
    answer = _answer(model, given)
    lines = compared(text, predictions(answer)) if given["log"] else ()
    if isinstance(answer.found, Rejected):
        reason = f"{answer.model.name} as {answer.plan.shorthand} does not fit: {answer.found.reason}"
        record = fit_json(answer, lines)
        if given["json"] not in (None, STDOUT):
            deliver(dumps(record), given["json"], "--json")
        raise Infeasible(reason, answer.nearest, record)
    present(fit_json(answer, lines), lambda: fit_text(answer, lines, page_size()[1]), given["json"])


def _answer(name: str, given: dict[str, Any]) -> Any:
    from apexsim.hardware import cluster_of
    from apexsim.model.families import load_model
    from apexsim.plan.choose import engine_of, precision_of
    from apexsim.plan.fit import Widths, for_workload
    from apexsim.plan.fit import fit as sized
    from apexsim.workload.load import model_length
    from apexsim.workload.presets import preset_of

    model, cluster = load_model(name), cluster_of(given["gpu"], given["gpus"], given["nodes"])
    if given["num_speculative_tokens"] and "mtp" not in dict(model.outside_parts):
        told = f"it has no effect: {model.name} has no multi-token-prediction layers"
        raise InputError(told, "--num-speculative-tokens", "drop it")
    preset = preset_of(given["workload"]) if given["workload"] else None
    length = given["max_model_len"] or (model_length(preset.longest, model.max_length) if preset else model.max_length)
    settings = {theirs: given[ours] for ours, theirs in SETTINGS.items() if given[ours] is not None}
    if given["enforce_eager"]:
        settings["pad"] = ()
    engine = engine_of(given["engine"], settings, cluster, length)
    precision = precision_of(model, given["weight_dtype"], None, given["kv_dtype"], given["dtype"])
    widths = Widths(
        given["tp"] or 0, given["pp"] or 0, given["dp"] or 0, given["enable_expert_parallel"], given["plan"] or "",
        given["ep"] or 0,
    )  # fmt: skip
    answer = sized(model, cluster, engine, widths, precision, length)
    return for_workload(answer, preset) if preset else answer
