"""The benchmark that measures the very workload that was simulated, and the sweep that measures the best plans (floor 6).

bench.sh sends the trace beside it and holds what comes back against the prediction, so that the loop closes; where the requests are
of one length it has the engine's own benchmark too, whose result file the same comparison reads.
"""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from apexsim.errors import InputError, Rejected
from apexsim.plan.flags import words_of
from apexsim.report.again import options
from apexsim.report.emit.deployment import Deployment, File
from apexsim.report.launch import asked
from apexsim.report.launch import server_of as server_commands
from apexsim.report.servers import FIRST_PORT, Place, Shell
from apexsim.workload.asked import Asked
from apexsim.workload.convert import written
from apexsim.workload.load import mean_rate
from apexsim.workload.trace import Workload

SYSTEM = ("gpu", "gpus", "nodes", "nic", "pcie", "engine", "settings", "max_model_len", "route", "weight_dtype", "activation_dtype",
          "kv_dtype", "dtype", "expert_load")  # fmt: skip # of a question: what a comparison must know of the server
CHOSEN = {"top-p": {"temperature": 1.0, "top_p": 0.95}, "penalties": {"temperature": 1.0, "top_p": 0.95, "frequency_penalty": 0.1}}
LONGEST_SWEEP = 12  # plans of a sweep
TEACH = "# apexsim calibrate measured.json --save NAME: from then on --profile NAME predicts with what was measured\n"
SAID = {
    "prompt_len",
    "output_len",
    "num_requests",
    "request_rate",
    "burstiness",
    "concurrency",
    "seed",
    "length_spread",
    "warmup",
    "max_model_len",
}  # what of a question vLLM's benchmark can be told, or need not
PICTURES = "no pictures are sent: --images were simulated, whose tokens go as text, so that no encoder runs"
AFTER = "who waits for whose answer is not sent: requests go out at the times of the trace"
SCRIPT = """#!/usr/bin/env bash
{head}{losses}# Measures this workload on a running server: ./bench.sh [URL], then says how far the prediction was off.
set -euo pipefail
cd "$(dirname "$0")"
URL="${{1:-http://127.0.0.1:{port}}}"
{replay}
{compare}
{more}"""


def bench_files(made: Deployment) -> list[File]:
    """bench.sh and the trace that it sends."""
    work = made.setting.workload
    fmt = "mooncake" if work.block else "request-log"
    name = "trace.jsonl" if work.block else "trace.csv"
    text, losses = written(work, fmt)
    lost = [*losses, *([AFTER] if len(work.after) else [])]
    lost += ["users do not pause: --think was simulated"] if work.think else []
    lost += [PICTURES] if made.asked.get("images") else []
    served = shlex.quote(made.started.ask.weights.name)
    script = SCRIPT.format(
        head=made.head,
        losses="".join(f"# {line}\n" for line in lost),
        port=FIRST_PORT,
        replay=_replay(work, name, served, made.setting.engine.sampling),
        compare=_compare(made, "measured.json"),
        more=_own_bench(made) + TEACH,
    )
    return [File("bench.sh", script, True), File(name, "".join(text))]


def _replay(work: Workload, trace: str, served: str, sampling: str) -> str:
    load = {"closed": f" --concurrency {work.concurrency}", "offline": " --request-rate inf"}.get(work.mode, "")
    warmup = f" --warmup {work.warmup}" if work.warmup else ""
    chosen = f" --extra-body {shlex.quote(json.dumps(CHOSEN[sampling]))}" if sampling in CHOSEN else ""
    return f'apexsim replay {trace} --url "$URL" --model {served}{load}{warmup}{chosen} --json measured.json'


def _compare(made: Deployment, measured: str) -> str:
    inputs = made.asked
    served = made.started.ask.weights.name
    model = str(inputs.get("model", ""))
    config = f" --config {shlex.quote(model)}" if model and model != served else ""
    known = {name: inputs[name] for name in SYSTEM if inputs.get(name)}
    told = str(inputs.get("acceptance") or "")
    if told and made.plan.draft:
        known["acceptance"] = str(Path(told).resolve()) if Path(told).is_file() else told  # the script runs in a folder of its own
    words = options({**known, "plan": made.plan.shorthand, "engine": known.get("engine") or made.setting.engine.label}) or []
    return f"apexsim replay --compare {measured} --model {shlex.quote(served)}{config} {' '.join(words)}"


def _own_bench(made: Deployment) -> str:
    """The same with vLLM's benchmark, which speaks to every OpenAI server, as a comment."""
    line = _vllm_bench(made)
    if not line:
        return ""
    told = f"or: {line} --save-result --save-detailed --result-filename vllm-bench.json\n    {_compare(made, 'vllm-bench.json')}"
    return "".join(f"# {part}\n" for part in told.splitlines())  # a path may hold a line's end


def _vllm_bench(made: Deployment) -> str:
    """vLLM's benchmark with the lengths and the load of a made-up workload; "" where it cannot make them: a question says more of its
    requests than it can be told."""
    asked_, work = made.asked, made.setting.workload
    more = [
        each.name for each in fields(Asked) if each.name not in SAID and asked_.get(each.name, each.default) not in (None, each.default)
    ]
    if not asked_.get("prompt_len") or more or made.setting.engine.sampling in CHOSEN:
        return ""
    spread = float(asked_.get("length_spread") or (0.1 if work.mode == "closed" else 0.0))
    rate = "inf" if work.mode != "open" else f"{asked_.get('request_rate') or mean_rate(work.arrive):g}"
    words = [
        "vllm bench serve --backend openai", f"--model {shlex.quote(made.started.ask.weights.name)}", '--base-url "$URL"',
        f"--dataset-name random --random-input-len {asked_['prompt_len']} --random-output-len {asked_['output_len']}",
        f"--random-range-ratio {spread:g} --ignore-eos --num-prompts {work.size} --request-rate {rate}",
    ]  # fmt: skip
    words += [f"--burstiness {float(asked_['burstiness']):g}"] if asked_.get("burstiness") else []
    words += [f"--max-concurrency {work.concurrency}"] if work.mode == "closed" else []
    words += [f"--seed {asked_.get('seed') or 0}"]
    return " ".join(words)


# ---- the best plans, measured ----------------------------------------------------------------------------------------------


def sweep_files(made: Deployment) -> list[File]:
    """vLLM's own sweep over the best plans that are one server on one node: serve.json, bench.json, sweep.sh."""
    if made.setting.engine.server.name != "vllm":
        raise InputError("vllm bench sweep starts vLLM alone", "--emit", "ask with --engine vllm, or use bench")
    if not words_of(made.setting.engine).has("sweep"):
        raise InputError(f"{made.setting.engine.label} has no `vllm bench sweep`", "--emit", "use run.sh and bench")
    line = _vllm_bench(made)
    if not line:
        told = "vllm bench serve cannot make these requests"
        raise InputError(told, "--emit", "ask with --prompt-len, --output-len and a rate or users alone, or use bench")
    served = [found for run in made.others for found in _flags(made, run)][:LONGEST_SWEEP]
    if not served:
        raise InputError("no plan of the study is one server on one node", "--emit", "use run.sh and bench")
    line = line.replace(' --base-url "$URL"', "")
    name = made.started.ask.weights.name
    text = (
        f"#!/usr/bin/env bash\n{made.head_of_plans}"
        "# Starts vLLM with each plan of serve.json, one after the other, and measures the workload.\n"
        'set -euo pipefail\ncd "$(dirname "$0")"\n'
        f"vllm bench sweep serve --serve-cmd {shlex.quote(f'vllm serve {shlex.quote(name)}')} \\\n"
        f"  --bench-cmd {shlex.quote(line)} \\\n  --serve-params serve.json --output-dir results\n"
    )
    return [File("sweep.sh", text, True), File("serve.json", json.dumps(served, indent=1) + "\n")]


def _flags(made: Deployment, run: Any) -> list[dict[str, Any]]:
    """What vLLM is told of a plan, by keys of a sweep; none where it is more than one server, or on more than one node."""
    ask = asked(made.setting, run.plan)
    cluster = made.setting.cluster
    if run.blocked or run.plan.replicas > 1 or cluster.nodes > 1 or isinstance(ask, Rejected):
        return []
    here = Place(0, (0,), tuple(range(cluster.per_node)), True, FIRST_PORT)
    (command,) = server_commands(ask, here, [])
    found: dict[str, Any] = {}
    for flag, *values in command.parts[2:]:
        key, value = flag.removeprefix("--").replace("-", "_"), values[0] if len(values) == 1 else list(values)
        found[key] = True if not values else _number(value)
    return [found]


def _number(value: Any) -> Any:
    """A number as one; a text as it is."""
    if not isinstance(value, str) or isinstance(value, Shell):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() and value.lstrip("-").isdigit() else number if math.isfinite(number) else value
