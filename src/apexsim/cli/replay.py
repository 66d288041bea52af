"""The command `replay`: a trace sent to a running server, and held against the prediction (floor 7)."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apexsim.cli.files import STDOUT
from apexsim.cli.options import checked, question, with_options
from apexsim.cli.outside import Progress, deliver, page_size, write_atomic
from apexsim.cli.rows import QUESTION
from apexsim.errors import InputError, Stopped

if TYPE_CHECKING:
    from apexsim.replay.compare import Comparison
    from apexsim.replay.record import ReplayRun
    from apexsim.workload.trace import Workload

REPLAY_HELP = """Send a trace to a running server (OpenAI interface, streamed), and hold what it does against the prediction.

Needs httpx: pip install 'apexsim[replay]'.  --json keeps every request, also of a run that had to stop; such a file is
a trace itself, and --compare reads it again.  A key is taken from OPENAI_API_KEY.  docs/replay.md says what is sent.

Examples:

  apexsim replay examples/creation_05.jsonl --url http://localhost:8000 --model llama-3.1-70b --json measured.json

  apexsim replay examples/lmsys_05.jsonl --url http://localhost:8000 --model llama-3.1-8b --concurrency 16 --plan TP1 --gpu l4 --gpus 1

  apexsim replay --workload chat --request-rate 2 --num-requests 200 --url http://localhost:8000 --model llama-3.1-8b

  apexsim replay --compare measured.json --model llama-3.1-70b --plan TP8 --gpu h100-sxm --gpus 8 --plot compared.png
"""
Trace = Annotated[
    str,
    typer.Argument(
        help="Requests to send, in any trace format; none with --workload and --compare.", metavar="[TRACE]", show_default=False
    ),
]


@with_options("replay")
def replay(trace: Trace = "", **given: Any) -> None:
    """Measure, compare, tell."""
    given = checked("replay", given)
    if sum(map(bool, (trace, given["compare"], given["workload"]))) != 1:
        raise InputError("give a trace to send, --workload NAME, or --compare FILE with what was measured", "TRACE", "one of them")
    asked = _asked(given)
    run = _read(given) if given["compare"] else _sent(trace, given, asked)
    if not given["compare"] and given["json"] != STDOUT:
        _save(run, None, given)  # before anything else can fail
    found = _compared(run, given, asked)
    if given["json"] != STDOUT:
        _save(run, found, given)
    if given["plot"]:
        _draw(run, found, given["plot"])
    if given["json"] == STDOUT:
        _save(run, found, given)
    _tell(run, found, given)
    if _ends_early(run, given):
        _end(run, found, given)


def _ends_early(run: ReplayRun, given: dict[str, Any]) -> bool:
    return bool(run.stopped and not given["compare"])


def _asked(given: dict[str, Any]) -> dict[str, Any] | None:
    """The question of the prediction; None where none is wanted."""
    if given["plan"] is None:
        if given["compare"]:
            raise InputError("nothing to compare with", "--compare", "give --plan, --gpu and --gpus")
        return None
    if given["gpu"] is None:
        raise InputError("a prediction needs the cluster", "--plan", "give --gpu NAME and --gpus N")
    defaults = {opt.name: opt.default for group in QUESTION.values() for opt in group}
    names = {opt.name for panel in ("Cluster", "Engine", "Precision") for opt in QUESTION[panel]} & set(given)
    asked = question(defaults | {name: given[name] for name in names})
    drop = {opt.name for opt in QUESTION["Workload"]} - {"too_long"} | {"columns"}
    said = {} if given["acceptance"] is None else {"acceptance": given["acceptance"]}
    return {name: value for name, value in asked.items() if name not in drop} | said


def _sent(path: str, given: dict[str, Any], asked: dict[str, Any] | None) -> ReplayRun:
    """Read the trace, make sure that it can be predicted, and send it."""
    from apexsim.replay.prompts import Prompts
    from apexsim.replay.run import Patience
    from apexsim.replay.run import replay as send
    from apexsim.replay.wire import Target

    if given["url"] is None:
        raise InputError("no server", "--url", "give its address, e.g. http://localhost:8000")
    target = Target(given["url"], given["model"], given["api"], os.environ.get("OPENAI_API_KEY", ""), _extra(given["extra_body"]))
    kind = given["prompts"] or ("ids" if given["api"] == "completions" else "text")
    work = _workload(path, given)
    prompts = Prompts(work, kind, given["seed"] or 0, given["unique_prompts"])
    if asked is not None:  # what cannot be predicted is refused before hours of sending
        from apexsim.replay.compare import predicted

        with Progress(simulates=True):
            predicted(work, given["config"] or given["model"], given["plan"], asked)
    with Progress() as progress:
        progress(0, work.size, "requests")
        return send(work, target, prompts, Patience(given["timeout"], given["max_failures"], given["num_warmups"]), progress)


def _workload(path: str, given: dict[str, Any]) -> Workload:
    import numpy as np

    from apexsim.workload.asked import Asked, columns_of, reloaded
    from apexsim.workload.stream import read_trace

    if given["workload"]:
        said = ("workload", "num_requests", "request_rate", "burstiness", "concurrency", "seed", "warmup")
        return Asked(**{name: given[name] for name in said}).requests()
    work = read_trace(path, columns=columns_of(given["map"]), time_unit=given["time_unit"] or "")
    head = min(given["num_requests"] or work.size, work.size)
    work = replace(work.only(np.arange(head)), warmup=given["warmup"])
    if given["warmup"] >= work.size:
        raise InputError(f"{work.size} requests, {given['warmup']} of them warm-up: nothing to measure", "--warmup")
    return reloaded(work, given["request_rate"], given["concurrency"], given["seed"] or 0)


def _extra(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise InputError(f"is no JSON: {error}", "--extra-body") from None
    if not isinstance(found, dict):
        raise InputError("expected a JSON object", "--extra-body", """e.g. '{"top_k": 1}'""")
    return found


def _read(given: dict[str, Any]) -> ReplayRun:
    from apexsim.replay.record import read_run

    run = read_run(given["compare"])
    return replace(run, warmup=given["warmup"]) if given["warmup"] else run


def _compared(run: ReplayRun, given: dict[str, Any], asked: dict[str, Any] | None) -> Comparison | None:
    if asked is None or not run.good:
        return None
    from apexsim.replay.compare import compare

    with Progress(simulates=True):
        return compare(run, given["config"] or given["model"], given["plan"], asked)


def _save(run: ReplayRun, found: Comparison | None, given: dict[str, Any]) -> None:
    if given["json"] is None or (given["json"] == STDOUT and _ends_early(run, given)):  # the failure holds it then
        return
    from apexsim.report.plain import dumps
    from apexsim.report.replaypage import replay_json

    deliver(dumps(replay_json(run, found)), given["json"], "--json")


def _draw(run: ReplayRun, found: Comparison | None, path: str) -> None:
    """The picture; where it fails, what was measured is kept in the failure."""
    from apexsim.report.replaypage import drawn, replay_json

    try:
        write_atomic(path, drawn(run, found, path), "--plot")
    except InputError as error:
        raise InputError(error.what, error.where, error.hint, replay_json(run, found)) from None


def _tell(run: ReplayRun, found: Comparison | None, given: dict[str, Any]) -> None:
    from apexsim.report.replaypage import replay_text

    if given["json"] != STDOUT or given["output"] is not None:
        color = page_size()[1] if given["output"] in (None, STDOUT) else False
        deliver(replay_text(run, found, color), given["output"] or STDOUT, "--output")


def _end(run: ReplayRun, found: Comparison | None, given: dict[str, Any]) -> None:
    """A run that stopped early is told apart by its exit code."""
    from apexsim.replay.run import INTERRUPTED
    from apexsim.report.replaypage import replay_json

    kept = f"what came back is in {given['json']}" if given["json"] else "--json keeps what came back"
    record = replay_json(run, found)
    if run.stopped == INTERRUPTED:
        raise Stopped(record)
    raise InputError(f"the run stopped early: {run.stopped}", str(run.about.get("url", "")), kept, record)


HELP = {"replay": REPLAY_HELP}
RUN = {"replay": replay}
