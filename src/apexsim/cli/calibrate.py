"""The command `calibrate`: a user's own benchmark results into factors, errors and a profile (floor 7)."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from apexsim.cli.files import STDOUT
from apexsim.cli.options import checked, question, with_options
from apexsim.cli.outside import Progress, deliver, page_size, say
from apexsim.cli.rows import CALIBRATED, CALIBRATION
from apexsim.errors import InputError

CALIBRATE_HELP = """Calibrate on your own benchmark results: what to multiply decode, prefill and host times by, and what that mends.

Reads results of vllm bench serve (plain and --save-detailed), SGLang's bench_serving, GuideLLM, aiperf, InferenceX, apexsim replay, and
closed-loop CSVs of `apexsim validate`. Errors are shown before and after, on runs that were held back. docs/calibrate.md

Examples:

  apexsim calibrate examples/minimax-h200-runs.json --gpu h200 --engine vllm@0.16.0

  apexsim calibrate examples/minimax-h200-runs.json --gpu h200 --engine vllm@0.16.0 --save my-h200 --force

  apexsim calibrate --suggest llama-3.1-8b --gpu h100
"""
Results = Annotated[list[str] | None, typer.Argument(help="Result files; none with --suggest.", metavar="[RESULT]...", show_default=False)]


@with_options("calibrate")
def calibrate(results: Results = None, **given: Any) -> None:
    """Read, fit, tell, keep."""
    from apexsim.calibrate.profile import place
    from apexsim.calibrate.run import calibrate as calibrated
    from apexsim.calibrate.run import suggest
    from apexsim.report.calibratepage import calibration_json, calibration_text, suggestion_json, suggestion_text

    given = checked("calibrate", given)
    if bool(results) == bool(given["suggest"]):
        raise InputError("give result files, or --suggest MODEL", "RESULT", "one of them")
    asked = _asked(given)
    if given["suggest"]:
        plan, lines = suggest(given["suggest"], plan=given["plan"] or "", **asked)
        return _tell(suggestion_json(plan, lines), suggestion_text(plan, lines), given)
    if given["save"]:
        place(given["save"])
    with Progress(simulates=True) as progress:
        found = calibrated(
            results or [],
            model=given["model"] or "",
            plan=given["plan"] or "",
            where=dict(map(_pair, given["where"])),
            length_spread=given["length_spread"],
            save_as=given["save"] or "",
            force=given["force"],
            progress=progress,
            **asked,
        )
    _tell(calibration_json(found), calibration_text(found, page_size()[1] if given["output"] in (None, STDOUT) else False), given)
    if given["save"]:
        say(f"apexsim: kept in {place(given['save'])}; use it as --profile {given['save']}")


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """The question's keywords for cluster, engine and precision; what was not given is left out."""
    defaults = {opt.name: opt.default for group in CALIBRATED.values() for opt in group}
    names = {opt.name for panel in ("Cluster", "Engine", "Precision") for opt in CALIBRATION[panel]}
    asked = question(defaults | {"tp": None} | {name: given[name] for name in names})
    kept = {name: value for name, value in asked.items() if name in names and value is not None}
    return kept | ({"settings": asked["settings"]} if asked["settings"] else {})


def _pair(text: str) -> tuple[str, str]:
    label, sign, value = text.partition("=")
    if not sign or not value.strip():
        raise InputError(f"cannot read '{text}'", "--where", "write LABEL=VALUE, e.g. release=0.19.0")
    return label.strip(), value.strip()


def _tell(record: dict[str, Any], text: str, given: dict[str, Any]) -> None:
    from apexsim.report.plain import dumps

    if given["json"] is not None:
        deliver(dumps(record), given["json"], "--json")
    if given["json"] != STDOUT or given["output"] is not None:
        deliver(text, given["output"] or STDOUT, "--output")


HELP = {"calibrate": CALIBRATE_HELP}
RUN = {"calibrate": calibrate}
