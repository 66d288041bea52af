"""What each command does (floor 7).  Heavy modules are imported inside, so that help answers at once."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apexsim.cli import device, profile, replay, trace
from apexsim.cli.apex import APEX_HELP, apex
from apexsim.cli.options import Model, checked, question, with_options
from apexsim.cli.outside import STDOUT, Progress, deliver, page_size
from apexsim.cli.sizing import FIT_HELP, fit

INTERRUPTED = 130

if TYPE_CHECKING:
    from apexsim.search.study import Study

PLAN_HELP = """Rank every parallel plan of a model on a cluster for a stream of requests.

Examples:

  apexsim plan llama-3.1-70b --gpu h100-sxm --gpus 8 --trace examples/creation_05.jsonl

  apexsim plan llama-3.1-8b --gpu l4 --gpus 4 --prompt-len 1000 --output-len 200 --request-rate 2 --slo 'ttft:p95<500ms'

  apexsim plan qwen2.5-72b --gpu h200-sxm --gpus 8 --prompt-len 2048 --output-len 256 --concurrency 64
"""
SIMULATE_HELP = """Simulate one plan in full, beside the heuristic plan (tensor parallel in the node, pipeline across).

Examples:

  apexsim simulate llama-3.1-70b --plan 2×TP4 --gpu h100-sxm --gpus 8 --trace examples/creation_05.jsonl

  apexsim simulate llama-3.1-8b --plan TP1 --gpu l4 --gpus 1 --prompt-len 512 --output-len 128 --request-rate 1
"""
MODELS_HELP = """List the bundled models: parameters in all and per token, and the longest context.

Examples:

  apexsim models

  apexsim models llama --json
"""
GPUS_HELP = """List the GPUs: memory, bandwidth, peaks, link, where kernel times come from, price.

Examples:

  apexsim gpus

  apexsim gpus h100 --json
"""
FIT_HOST_HELP = """Refit an engine's host constants on measured runs, and judge them with whole groups left out.

Prints; changes nothing. The constants live in the engine's data file.

Examples:

  apexsim fit-host measured.csv --engine vllm --leave-out model
"""
FIT_POWER_HELP = """Refit the power law on measured runs, and judge it with each model left out.  Prints; changes nothing.

Examples:

  apexsim fit-power measured.csv
"""
VALIDATE_HELP = """Replay measured systems and report the errors of the predictions.

Takes files with the columns of closed-loop, open-loop or per-request measurements; docs/fidelity.md describes them.

Examples:

  apexsim validate measured.csv

  apexsim validate measured.csv --json errors.json
"""
Files = Annotated[
    list[str], typer.Argument(help="CSV files of measured systems.", metavar="FILE...", show_default=False)
]
MeasuredFile = Annotated[str, typer.Argument(help="CSV file of measured systems.", metavar="FILE", show_default=False)]
Filter = Annotated[str, typer.Argument(help="Only names that hold this text.", metavar="[FILTER]", show_default=False)]


@with_options("plan")
def plan(model: Model, **given: Any) -> None:
    """Search and report."""
    from apexsim import api
    from apexsim.search.study import Interrupted

    given = checked("plan", given)
    with Progress() as progress:
        try:
            study = api.plan(model, **question(given), workers=given["workers"], ray=given["ray"], progress=progress)
        except Interrupted as stop:
            study = stop.study
    _tell(study, given)
    if study.interrupted:
        raise typer.Exit(INTERRUPTED)


@with_options("simulate")
def simulate(model: Model, **given: Any) -> None:
    """One plan and its report."""
    from apexsim import api

    given = checked("simulate", given)
    with Progress():
        study = api.simulate(model, given["plan"], **question(given))
    _tell(study, given)


def _tell(study: Study, given: dict[str, Any]) -> None:
    """Write the JSON and the report to where they were asked for."""
    if given["json"] is not None:
        from apexsim.report.jsonout import study_json
        from apexsim.report.plain import dumps

        deliver(dumps(study_json(study)), given["json"], "--json")
    if given["json"] == STDOUT and given["output"] is None:
        return
    from apexsim.report.text import render

    columns, color = page_size() if given["output"] in (None, STDOUT) else (None, False)
    text = render(study, width=columns, color=color, top=given.get("top", 10), everything=given.get("all", False))
    deliver(text, given["output"] or STDOUT, "--output")



@with_options("models")
def models(name: Filter = "", **given: Any) -> None:
    """The catalogue of models."""
    from apexsim.report.catalogue import models_json, models_text

    _list(models_json(name), models_text, given["json"])


@with_options("gpus")
def gpus(name: Filter = "", **given: Any) -> None:
    """The catalogue of GPUs."""
    from apexsim.report.catalogue import gpus_json, gpus_text

    _list(gpus_json(name), gpus_text, given["json"])


def _list(rows: list[dict[str, Any]], render: Any, as_json: bool) -> None:
    from apexsim.report.plain import dumps

    sys.stdout.write(dumps(rows) if as_json else render(rows, page_size()[1]))
    sys.stdout.flush()


@with_options("validate")
def validate(files: Files, **given: Any) -> None:
    """Predict what was measured."""
    fidelity: Any = import_module("apexsim.validate")
    from apexsim.report.plain import dumps

    with Progress() as progress:
        results = [fidelity.run(path, progress=progress) for path in files]
    if given["json"] is not None:
        deliver(dumps(results[0] if len(results) == 1 else results), given["json"], "--json")
    if given["json"] != STDOUT or given["output"] is not None:
        deliver("\n".join(fidelity.render(result) for result in results), given["output"] or STDOUT, "--output")


@with_options("fit-host")
def fit_host(file: MeasuredFile, **given: Any) -> None:
    """Refit an engine's host constants."""
    from apexsim.validate.fit_host import main as run

    asked = {"--engine": given["engine"], "--leave-out": given["leave_out"], "--where": given["where"], "--only": given["only"]}
    run([str(file), *(word for pair in asked.items() for word in pair)])


@with_options("fit-power")
def fit_power(file: MeasuredFile, **given: Any) -> None:
    """Refit the power law."""
    from apexsim.validate.fit_power import main as run

    run([str(file), "--prompt-scale", str(given["prompt_scale"]), *(["--simulate"] if given["simulated"] else [])])


HELP = {
    "plan": PLAN_HELP,
    "simulate": SIMULATE_HELP,
    "fit": FIT_HELP,
    "apex": APEX_HELP,
    "models": MODELS_HELP,
    "gpus": GPUS_HELP,
    "validate": VALIDATE_HELP,
    "fit-host": FIT_HOST_HELP,
    "fit-power": FIT_POWER_HELP,
    **replay.HELP,
    **trace.HELP,
    **device.HELP,
    **profile.HELP,
}
RUN = {"plan": plan, "simulate": simulate, "fit": fit, "apex": apex, "models": models, "gpus": gpus, "validate": validate,
       "fit-host": fit_host, "fit-power": fit_power, **replay.RUN, **trace.RUN, **device.RUN, **profile.RUN}  # fmt: skip
ABOUT_GROUP = {"trace": trace.ABOUT, "device": device.ABOUT, "profile": profile.ABOUT}  # commands of two words
