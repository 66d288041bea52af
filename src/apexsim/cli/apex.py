"""The command `apex`: APEX+'s flags and layout, a drop-in for its main.py (floor 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from apexsim.cli.options import checked, with_options
from apexsim.cli.outside import Progress, present, say
from apexsim.cli.rows import options_of
from apexsim.errors import InputError

APEX_HELP = """APEX+'s command line: its flags, defaults, room and layout, with true values.

Takes the flags of its main.py word for word, unambiguous beginnings of them too. Encoder-decoder models get two searches:
of the encoder, then of the decoder on requests that arrive when they have been encoded.

Examples:

  apexsim apex --model llama3-70b --num-gpus-per-node 2 --prompt-len 128 --output-len 2048 --num-requests 100 --all

  apexsim apex --model whisper --num-gpus-per-node 2 --prompt-len 128 --output-len 256 --num-requests 100

  apexsim apex --model llama3-70b --num-gpus-per-node 4 --trace-file examples/lmsys_05.jsonl --kv-dtype float8
"""
SHORTCUTS = {
    "t5": "google/flan-t5-xxl", "opt": "facebook/opt-13b", "mixtral-8x7b-local": "mixtral-8x7b",
    "mixtral-8x22b-local": "mixtral-8x22b", "mistral-7b-local": "mistral-7b",
}  # fmt: skip
LISTS = ("--request-percentiles", "--token-percentiles")
MOST_WINDOWS = 20_000_000  # requests that recordings may become
UNLIMITED = 8192  # sequences: more never fit


def spelled(words: Sequence[str]) -> list[str]:
    """Beginnings of flags written out, and lists of percentiles as repeated flags; raises InputError where two fit."""
    flags = [opt.flag for opt in options_of("apex")] + ["--help"]
    found: list[str] = []
    several = ""
    for word in words:
        if not word.startswith("--"):
            repeat = several and not word.startswith("-") and found[-1] != several
            found += [several, word] if repeat else [word]
            continue
        name, sign, value = word.partition("=")
        fitting = [name] if name in flags else [flag for flag in flags if flag.startswith(name)]
        if len(fitting) > 1:
            raise InputError(f"'{name}' may be {' or '.join(fitting)}", "apex", "write more of it")
        whole = fitting[0] if fitting else name
        several = whole if whole in LISTS and not sign else ""
        found.append(whole + sign + value)
    return found


@with_options("apex")
def apex(**given: Any) -> None:
    """Search and print."""
    from apexsim.report.apexpage import PageWanted, apex_json, apex_page

    given = checked("apex", given)
    if given["disable_ray"] and given["ray"]:
        raise InputError("Ray is both wanted and disabled", "--ray", "drop one")
    with Progress() as progress:
        parts, notes = _answer(given, progress)
    wanted = PageWanted(
        given["all"],
        tuple(given["request_percentiles"] or ()),
        tuple(given["token_percentiles"] or ()),
        given["ttft_slo"],
        given["tpot_slo"],
        given["max_batch_size"],
    )
    record = apex_json(parts, wanted, notes) if given["json"] is not None else None
    present(record, lambda: apex_page(parts, wanted, notes), given["json"])


def _answer(given: dict[str, Any], progress: Any) -> tuple[Any, list[str]]:
    from apexsim.clock import at_clock
    from apexsim.cost.load import ExpertLoad
    from apexsim.hardware import Cluster, load_gpu
    from apexsim.model.families import load_model
    from apexsim.model.parts import routed, with_experts, with_image
    from apexsim.objective import parse_objective
    from apexsim.plan.choose import precision_of
    from apexsim.search.chain import ChainQuestion, chained
    from apexsim.search.goal import Goal

    model = with_experts(load_model(SHORTCUTS.get(given["model"], given["model"])), given["num_experts"], given["topk"])
    model = with_image(model, given["image_size"]) if given["image_size"] else model
    gpu = load_gpu(given["gpu"])
    gpu = at_clock(gpu, given["frequency"], "--frequency") if given["frequency"] else gpu
    gpu = replace(gpu, memory_bytes=gpu.memory_nominal_bytes)
    cluster = Cluster(gpu, given["num_gpus_per_node"], given["num_nodes"])
    work = _workload(given, model)
    notes, more = _notes(model, work), []
    if routed(model):
        more.append(f"Every expert works on {given['capacity_factor']:g} x its even share of the tokens (--capacity-factor).")
    goal = Goal(parse_objective("throughput" if work.mode == "offline" else "e2e", ()))
    precision = precision_of(model, given["weight_dtype"], given["activation_dtype"], given["kv_dtype"])
    batch = given["max_batch_size"] or min(work.size, UNLIMITED)
    question = ChainQuestion(
        precision, goal, "apex", batch, ExpertLoad(capacity=given["capacity_factor"]), int(given["disable_ray"]), given["ray"], given["all"]
    )
    aside = Cluster(gpu, given["encoder_gpus"]) if given["encoder_gpus"] else None
    if aside and model.stacks[0].role != "encoder":
        raise InputError(f"{model.name} has no encoder", "--encoder-gpus", "drop --encoder-gpus")
    found = chained(model, cluster, work, question, encoder_cluster=aside, progress=progress)
    for note in notes:
        say(f"apexsim: {note}")
    return found, [*notes, *more]


def _workload(given: dict[str, Any], model: Any) -> Any:
    """Requests of a trace, or all alike and at once; a recording is as many as it has windows."""
    import numpy as np

    from apexsim.model.parts import audio_windows
    from apexsim.workload.stream import read_trace
    from apexsim.workload.synth import synthetic

    if given["trace_file"]:
        work = read_trace(given["trace_file"])
    else:
        work = synthetic(given["prompt_len"], given["output_len"], given["num_requests"])
    if not given["audio_seconds"]:
        return work
    each = audio_windows(model, given["audio_seconds"])
    if each * work.size > MOST_WINDOWS:
        told = f"{work.size:,} recordings of {each:,} windows are more than {MOST_WINDOWS:,} requests"
        raise InputError(told, "--audio-seconds", "fewer requests, or shorter ones")
    return work.without_prefixes().only(np.arange(work.size).repeat(each))


def _notes(model: Any, work: Any) -> list[str]:
    """What the user should know of the model's own limits."""
    notes, first = [], model.stacks[0]
    decodes = model.decoder.role == "decoder"
    longest = int(work.output.max()) + 1 if first.role == "encoder" and not first.source_length else work.longest
    if decodes and longest > model.max_length:
        notes.append(f"Warning: the longest request has {longest:,} tokens, {model.name} was made for {model.max_length:,}.")
    if first.role == "encoder":
        fixed = f"its own {first.source_length:,} positions for every request" if first.source_length else "the prompt"
        starts = f"the decoder starts from {'the prompt' if first.source_length else 'one token'}"
        alone = "the encoder of images alone; --output-len has no meaning"
        notes.append(f"The encoder reads {fixed}; {starts if decodes else alone}.")
    return notes
