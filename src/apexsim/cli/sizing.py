"""The command `fit`: memory only, no simulation, so that it answers at once (floor 7)."""

from __future__ import annotations

from typing import Any

from apexsim.cli.files import STDOUT
from apexsim.cli.options import Model, checked, with_options
from apexsim.cli.outside import deliver, page_size, present
from apexsim.errors import Infeasible, InputError, Rejected

FIT_HELP = """Does it fit? The memory of one GPU line by line, KV tokens and users, in the words of the engine's log.

A width that is not given is filled by model replicas; with none, the first layout that fits is taken: tensor parallel in a
node, then pipeline stages across. Where it does not fit (exit code 3), or barely, every change that helps is sized.

Examples:

  apexsim fit llama-3.1-70b --gpu h100-sxm --gpus 8 --tp 4

  apexsim fit deepseek-ai/DeepSeek-V3 --gpu h200-sxm --gpus 8 --plan DEP8 --max-model-len 32768 --json

  apexsim fit gpt-oss-120b --gpu h100:1 --max-model-len 32k --prompt-len 4000 --output-len 500

  apexsim fit llama-3.1-8b --gpu l40s:1 --workload chat

  apexsim fit qwen3-8b --gpu h100-sxm --gpus 1 --log examples/qwen3-8b-startup.log
"""
DRAWN = 2_000  # requests of a preset: users are counted to three digits
SETTINGS = {
    "max_num_seqs": "max_num_seqs", "max_num_batched_tokens": "max_num_batched_tokens", "block_size": "block_size",
    "gpu_memory_utilization": "memory_fraction", "num_speculative_tokens": "draft_tokens",
    "max_cudagraph_capture_size": "capture",
}  # fmt: skip


@with_options("fit")
def fit(model: Model, **given: Any) -> None:
    """Size one plan."""
    from apexsim.hardware import cluster_of
    from apexsim.links import with_links
    from apexsim.report.against import against, asked_as
    from apexsim.report.ledger import fit_json, fit_text, log_text
    from apexsim.report.plain import dumps
    from apexsim.report.startup_log import read_log

    given = checked("fit", given)
    text = read_log(given["log"]) if given["log"] else ""
    cluster = with_links(cluster_of(given["gpu"], given["gpus"], given["nodes"]), given["nic"], given["pcie"])
    asked = asked_as(given, text, cluster.size) if given["log"] else given
    answer = answer_of(model, cluster, asked)
    log = against(answer, text, given, asked) if given["log"] else None
    record = fit_json(answer, log)
    columns, color = page_size()
    if isinstance(answer.found, Rejected):
        reason = f"{answer.model.name} as {answer.plan.shorthand} does not fit: {answer.found.reason}"
        if given["json"] not in (None, STDOUT):
            deliver(dumps(record), given["json"], "--json")
        if log and given["json"] != STDOUT:
            deliver(log_text(log, color, columns), STDOUT, "--output")
        raise Infeasible(reason, answer.nearest, record)
    present(record, lambda: fit_text(answer, log, color, columns), given["json"])


def answer_of(name: Any, cluster: Any, given: dict[str, Any]) -> Any:
    """The memory of a plan, from the options of `fit`."""
    from apexsim.model.families import load_model
    from apexsim.plan.choose import engine_of, precision_of
    from apexsim.plan.fit import Widths
    from apexsim.plan.fit import fit as sized

    model = load_model(name)
    if given["num_speculative_tokens"] and "mtp" not in dict(model.outside_parts):
        told = f"it has no effect: {model.name} has no multi-token-prediction layers"
        raise InputError(told, "--num-speculative-tokens", "drop it")
    length = given["max_model_len"] or model.max_length
    settings = {theirs: given[ours] for ours, theirs in SETTINGS.items() if given[ours] is not None}
    if given["enforce_eager"]:
        settings["pad"] = ()
    typical = _typical(given, length)
    engine = engine_of(given["engine"], settings, cluster, length, typical.longest_prompt if typical else 0)
    precision = precision_of(model, given["weight_dtype"], None, given["kv_dtype"], given["dtype"])
    widths = Widths(
        given["tp"] or 0,
        given["pp"] or 0,
        given["dp"] or 0,
        given["enable_expert_parallel"],
        given["plan"] or "",
        given["ep"] or 0,
    )
    return sized(model, cluster, engine, widths, precision, length, typical)


def _typical(given: dict[str, Any], length: int) -> Any:
    """The requests that users are counted for, where they are given; None leaves it at what is usual."""
    from apexsim.plan.sized import Typical, typical_of

    prompt, output = given["prompt_len"], given["output_len"]
    if given["trace"]:
        from apexsim.workload.asked import columns_of
        from apexsim.workload.stream import read_trace

        work = read_trace(given["trace"], columns=columns_of(given["map"]))
        return typical_of(work.prompt.tolist(), work.output.tolist(), length, given["trace"], "--trace")
    if given["workload"]:
        import numpy as np

        from apexsim.workload.presets import drawn, preset_of

        preset = preset_of(given["workload"])
        prompts, outputs = drawn(preset, DRAWN, np.random.default_rng(0))
        return typical_of(prompts.tolist(), outputs.tolist(), length, f"workload {preset.name}", "--workload")
    if prompt is None and output is None:
        return None
    if prompt is None or output is None:
        missing = "--output-len" if output is None else "--prompt-len"
        raise InputError(f"missing option '{missing}'", "", "a typical request is --prompt-len N and --output-len N")
    if prompt + output > length:
        told = f"requests of {prompt} + {output} tokens are longer than the {length} that the server allows"
        raise InputError(told, "--prompt-len", "give shorter ones, or a larger --max-model-len")
    return Typical(float(prompt), float(output), prompt, ((prompt + output, 1),), "as asked")
