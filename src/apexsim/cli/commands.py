"""What each command does (floor 7).  Heavy modules are imported inside, so that help answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apexsim.cli import calibrate, device, emitting, fleet, profile, replay, trace, web
from apexsim.cli.apex import APEX_HELP, apex
from apexsim.cli.exchange import exchange
from apexsim.cli.files import STDOUT
from apexsim.cli.options import Model, checked, question, with_options
from apexsim.cli.outside import Progress, deliver, page_size, present
from apexsim.cli.sizing import FIT_HELP, fit
from apexsim.cli.telling import tell
from apexsim.errors import InputError
from apexsim.examples import expanded

INTERRUPTED, MISSED = 130, 4

if TYPE_CHECKING:
    from apexsim.search.size import Size
    from apexsim.search.study import Study

PLAN_HELP = """Rank every parallel plan of a model on a cluster for a stream of requests.

Exit code 4: no plan keeps the limits of --slo, --ttft, --tpot or --power-cap.

Examples:

  apexsim plan llama-3.1-70b --gpu h100-sxm --gpus 8 --trace examples/creation_05.jsonl

  apexsim plan llama-3.1-8b --gpu l4 --gpus 4 --prompt-len 1000 --output-len 200 --request-rate 2 --slo ttft:p95=500ms

  apexsim plan qwen2.5-72b --gpu h200-sxm --gpus 8 --prompt-len 2048 --output-len 256 --concurrency 64

Lists with commas ask the question with each value, in one table: models, --gpu, --gpus, --engine, settings, loads.

  apexsim plan llama-3.1-8b --gpu l4,l40s,h100-sxm --gpus 1,2 --trace example:creation --slo ttft:p95=500ms
"""
SIMULATE_HELP = """Simulate one plan in full, beside the heuristic plan (tensor parallel in the node, pipeline across).

Exit code 4: it does not keep the limits of --slo, --ttft, --tpot or --power-cap.

Examples:

  apexsim simulate llama-3.1-70b --plan 2×TP4 --gpu h100-sxm --gpus 8 --trace examples/creation_05.jsonl

  apexsim simulate llama-3.1-8b --plan TP1 --gpu l4 --gpus 1 --prompt-len 512 --output-len 128 --request-rate 1
"""
SIZE_HELP = """How much load, how many GPUs, how long a context, how tight a limit: the question backwards.

Without --gpus the fewest GPUs for the load (--request-rate, --users), the cheapest of the GPUs named; with --gpus the most load within
the limits; --find asks for one of: rate, users, gpus, context, or the tightest limit (ttft:p95). With error bars, and $ per million
tokens at the limit. Exit code 4: nothing keeps the limits.

Examples:

  apexsim size llama-3.1-70b --gpu h100-sxm --gpus 8 --workload chat --ttft 1s --tpot 40ms

  apexsim size llama-3.1-70b --gpu h100-sxm,l40s,mi300x --request-rate 4 --prompt-len 1000 --output-len 300 --ttft 1s --tpot 40ms

  apexsim size llama-3.1-8b --gpu l4 --users 50 --workload chat --ttft 2s --think 10

  apexsim size llama-3.1-8b --gpu l40s:1 --find context --output-len 300 --ttft 5s
"""
COMPARE_HELP = """Hold two results against each other: what was asked otherwise, what came of it, and where the time went.

Takes files of plan --json and simulate --json; of a search its best plan.

Examples:

  apexsim compare before.json after.json

  apexsim compare before.json after.json --json
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
ENGINES_HELP = """List the engines: versions, their days, what changes from one to the next, and their words for settings.

A version between two rows has the rules of the earlier one; older or newer than all rows it is refused. An engine of your own
is a file in the folder of $APEXSIM_ENGINES, else in the user's data folder: docs/extending.md.

Examples:

  apexsim engines

  apexsim engines sglang --json
"""
WORKLOADS_HELP = """List the workloads that --workload knows by name: lengths of prompts and outputs, and where they are from.

Of one workload, or of a .toml file, all percentiles are shown.

Examples:

  apexsim workloads

  apexsim workloads chat --json
"""
SCHEMA_HELP = """Print the JSON Schema (2020-12) of what --json writes: of all outputs, or of one of them.

Examples:

  apexsim schema

  apexsim schema study
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

Takes files of closed loops, open loops, single requests, steps, offline throughput, energy and start-up memory, known by their columns:
docs/validation.md lists them.

Examples:

  apexsim validate measured.csv

  apexsim validate measured.csv --json errors.json

  apexsim validate measured.csv --profile my-h200
"""
Files = Annotated[list[str], typer.Argument(help="CSV files of measured systems.", metavar="FILE...", show_default=False)]
MeasuredFile = Annotated[str, typer.Argument(help="CSV file of measured systems.", metavar="FILE", show_default=False)]
Before = Annotated[str, typer.Argument(help="Result of plan or simulate, by --json FILE.", metavar="BEFORE", show_default=False)]
After = Annotated[str, typer.Argument(help="Another one.", metavar="AFTER", show_default=False)]
Filter = Annotated[str, typer.Argument(help="Only names that hold this text.", metavar="[FILTER]", show_default=False)]
SchemaName = Annotated[
    str, typer.Argument(help="Of one output: study, fit, models, gpus, engines, workloads, …", metavar="[NAME]", show_default=False)
]


@with_options("plan")
def plan(model: Model, **given: Any) -> None:
    """Search and report."""
    from apexsim import api
    from apexsim.search.study import Interrupted
    from apexsim.search.sweep import axes_of

    given = checked("plan", given)
    forms, asked = emitting.check(given), question(given)
    models = model.split(",") if "," in model and not os.path.exists(expanded(model)) else model
    before = _before(given)
    if axes_of(models, asked):
        if forms:
            raise InputError("several values are asked for, and files are of one plan", "--emit", "name one value of each option")
        if before is not None:
            raise InputError("one study is held against another, and lists are given", "--against", "drop it, or the lists")
        return _sweep(models, asked, given)
    with Progress() as progress:
        try:
            further = {name: given[name] for name in api.FURTHER}
            study = api.plan(model, **asked, **further, workers=given["workers"], ray=given["ray"], progress=progress)
        except Interrupted as stop:
            study = stop.study
    _deliver(replace(study, before=before), given, forms)
    if study.interrupted:
        raise typer.Exit(INTERRUPTED)
    _judge(study)


def _before(given: dict[str, Any]) -> Mapping[str, Any] | None:
    """The earlier answer, where one is named."""
    from apexsim.search.written import read_earlier

    return read_earlier(given["against"]) if given["against"] else None


def _sweep(models: str | list[str], asked: dict[str, Any], given: dict[str, Any]) -> None:
    """The question with each value of its lists, in one table."""
    from apexsim import api
    from apexsim.search.sweep import SweepInterrupted

    with Progress() as progress:
        try:
            further = {name: given[name] for name in api.FURTHER}
            found = api.sweep(models, **asked, **further, workers=given["workers"], ray=given["ray"], progress=progress)
        except SweepInterrupted as stop:
            found = stop.sweep
    tell(found, given)
    if found.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not found.keeps:
        raise typer.Exit(MISSED)


@with_options("simulate")
def simulate(model: Model, **given: Any) -> None:
    """One plan and its report."""
    from apexsim import api

    given = checked("simulate", given)
    forms, before = emitting.check(given), _before(given)
    with Progress():
        study = api.simulate(model, given["plan"] or "", **question(given))
    study = replace(study, before=before)
    if given["perfetto"]:
        from apexsim.report.perfetto import rendered

        deliver("".join(rendered(study)), given["perfetto"], "--perfetto")
    _deliver(study, given, forms)
    _judge(study)


@with_options("size")
def size(model: Model, **given: Any) -> None:
    """The question backwards."""
    from apexsim.search.inverse import size as sized

    given = checked("size", given)
    forms = emitting.check(given)
    with Progress() as progress:
        found = sized(model, **question(given), **{name: given[name] for name in ("find", "think", "share", "budget")}, progress=progress)
    _deliver(found, given, forms if found.best else ())
    if found.best is None:
        raise typer.Exit(MISSED)


def _deliver(answer: Study | Size, given: dict[str, Any], forms: tuple[str, ...]) -> None:
    """The answer, and the files that start it where they were asked for."""
    tell(answer, {**given, "output": None} if given.get("emit") else given)
    if forms:
        emitting.emit(answer, forms, given)


def _judge(study: Study) -> None:
    """No plan keeps the limits: an exit code of its own, for scripts."""
    if not study.keeps:
        raise typer.Exit(MISSED)


@with_options("compare")
def compare(before: Before, after: After, **given: Any) -> None:
    """Two results side by side."""
    from apexsim.report.difference import compare_json, compare_text, read_result

    record = compare_json(read_result(before), read_result(after))
    columns, color = page_size()
    present(record, lambda: compare_text(record, color, columns), given["json"])


@with_options("models")
def models(name: Filter = "", **given: Any) -> None:
    """The catalogue of models."""
    from apexsim.report.catalogue import models_json, models_text

    _list(models_json(name), models_text, given)


@with_options("gpus")
def gpus(name: Filter = "", **given: Any) -> None:
    """The catalogue of GPUs."""
    from apexsim.report.catalogue import gpus_json, gpus_text

    _list(gpus_json(name), gpus_text, given)


@with_options("engines")
def engines(name: Filter = "", **given: Any) -> None:
    """The engines and their versions."""
    from apexsim.report.catalogue import engines_json, engines_text

    _list(engines_json(name), engines_text, given)


@with_options("workloads")
def workloads(name: Filter = "", **given: Any) -> None:
    """The workload presets."""
    from apexsim.report.catalogue import workloads_json, workloads_text

    _list(workloads_json(name), workloads_text, given)


def _list(rows: list[dict[str, Any]], render: Any, given: dict[str, Any]) -> None:
    exchange(rows, given)
    if given["csv"] != STDOUT or given["json"] is not None:
        present(rows, lambda: render(rows, page_size()[1]), given["json"])


@with_options("schema")
def schema(name: SchemaName = "", **given: Any) -> None:
    """The JSON Schema of what commands write."""
    from apexsim.report.plain import dumps
    from apexsim.report.schema import json_page, schema_of

    sys.stdout.write(json_page() if given["markdown"] else dumps(schema_of(name)))
    sys.stdout.flush()


@with_options("validate")
def validate(files: Files, **given: Any) -> None:
    """Predict what was measured."""
    from apexsim.report.plain import dumps
    from apexsim.validate.replay import run
    from apexsim.validate.words import render

    with Progress() as progress:
        results = [run(path, progress=progress, profile=given["profile"] or "") for path in files]
    if given["json"] is not None:
        deliver(dumps(results[0] if len(results) == 1 else results), given["json"], "--json")
    if given["json"] != STDOUT or given["output"] is not None:
        deliver("\n".join(render(result) for result in results), given["output"] or STDOUT, "--output")


@with_options("fit-host")
def fit_host(file: MeasuredFile, **given: Any) -> None:
    """Refit an engine's host constants."""
    from apexsim.validate.fit_host import tell

    tell(file, **checked("fit-host", given))


@with_options("fit-power")
def fit_power(file: MeasuredFile, **given: Any) -> None:
    """Refit the power law."""
    from apexsim.validate.fit_power import tell

    given = checked("fit-power", given)
    tell(file, given["prompt_scale"], given["simulated"])


HELP = {
    "plan": PLAN_HELP,
    "simulate": SIMULATE_HELP,
    "size": SIZE_HELP,
    "fit": FIT_HELP,
    "apex": APEX_HELP,
    "compare": COMPARE_HELP,
    "models": MODELS_HELP,
    "gpus": GPUS_HELP,
    "engines": ENGINES_HELP,
    "workloads": WORKLOADS_HELP,
    "schema": SCHEMA_HELP,
    "validate": VALIDATE_HELP,
    "fit-host": FIT_HOST_HELP,
    "fit-power": FIT_POWER_HELP,
    **fleet.HELP,
    **calibrate.HELP,
    **replay.HELP,
    **web.HELP,
    **trace.HELP,
    **device.HELP,
    **profile.HELP,
}
RUN = {
    "plan": plan, "simulate": simulate, "size": size, "fit": fit, "compare": compare, "apex": apex, "models": models, "gpus": gpus,
    "engines": engines, "workloads": workloads, "schema": schema, "validate": validate, "fit-host": fit_host, "fit-power": fit_power,
    **fleet.RUN, **calibrate.RUN, **replay.RUN, **web.RUN, **trace.RUN, **device.RUN, **profile.RUN,
}  # fmt: skip
ABOUT_GROUP = {"trace": trace.ABOUT, "device": device.ABOUT, "profile": profile.ABOUT}  # commands of two words
