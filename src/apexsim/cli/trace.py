"""The commands `trace …`: describe, convert, synth, filter and scale request traces (floor 7)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apexsim.cli.options import checked, with_options
from apexsim.cli.outside import STDOUT, check_writable, page_size, say, write_atomic
from apexsim.errors import InputError

if TYPE_CHECKING:
    from apexsim.workload.stream import Requests

ABOUT = "Describe, convert, make, filter and scale request traces of any size and format."
DESCRIBE_HELP = """What a trace is like: lengths, arrivals, burstiness, rate over time, prefix reuse.

Reads files of any size: millions of rows in seconds, in little memory.

Examples:

  apexsim trace describe examples/azure_conversation.csv

  apexsim trace describe examples/mooncake_conversation.jsonl --json
"""
CONVERT_HELP = """Write a trace in another format, sorted by arrival; what the format cannot hold is said.

Examples:

  apexsim trace convert examples/azure_conversation.csv --to mooncake

  apexsim trace convert examples/creation_05.jsonl --to vidur
"""
SYNTH_HELP = """Make a trace: lengths of a given mean and spread, or drawn from another trace, and gamma arrivals from a seed.

Examples:

  apexsim trace synth --prompt-len 500 --prompt-cv 1.2 --output-len 200 --output-cv 0.8 --request-rate 4 --num-requests 100

  apexsim trace synth --like examples/lmsys_05.jsonl --request-rate 5 --seed 1
"""
FILTER_HELP = """Keep the requests within limits of length and time, or a random share of them.

Examples:

  apexsim trace filter examples/summarization_05.jsonl --max-context 4096

  apexsim trace filter examples/azure_conversation.csv --since 60s --until 3min --share 0.5 --to azure
"""
SCALE_HELP = """The same trace at another load: arrivals stretched in time, lengths times a number.

Examples:

  apexsim trace scale examples/creation_05.jsonl --request-rate 2

  apexsim trace scale examples/lmsys_05.jsonl --rate-factor 3 --output-factor 1.5
"""
File = Annotated[
    str, typer.Argument(help="Trace: CSV, JSON lines or JSON, also as .gz.", metavar="FILE", show_default=False)
]


@with_options("trace describe")
def describe(file: File, **given: Any) -> None:
    """Statistics and pictures."""
    given = checked("trace describe", given)
    check_writable(given["plot"], "--plot")
    requests = _read(file, given)
    from apexsim.report.tracepage import describe_json, describe_text, drawn
    from apexsim.workload.describe import describe as described

    found = described(requests)
    if given["plot"]:
        drawn(requests, found, given["plot"])
    if given["json"]:
        from apexsim.report.plain import dumps

        sys.stdout.write(dumps(describe_json(requests, found)))
    else:
        sys.stdout.write(describe_text(requests, found, page_size()[1]))
    sys.stdout.flush()


@with_options("trace convert")
def convert(file: File, **given: Any) -> None:
    """Another format."""
    given = _begun("trace convert", given)
    _write(_read(file, given), given)


@with_options("trace synth")
def synth(**given: Any) -> None:
    """A made-up trace."""
    from apexsim.workload.made import made

    given = _begun("trace synth", given)
    like = None
    if given["like"]:
        clash = [f for f in ("prompt_len", "output_len", "prompt_cv", "output_cv") if given[f]]
        if clash:
            flag = "--" + clash[0].replace("_", "-")
            raise InputError("lengths are given and drawn from a trace", flag, "drop one of both")
        from apexsim.workload.stream import read_requests

        like = read_requests(given["like"])
    elif given["prompt_len"] is None or given["output_len"] is None:
        raise InputError("no lengths", "", "give --prompt-len N and --output-len N, or --like FILE")
    wanted = ("num_requests", "request_rate", "burstiness", "seed", "prompt_len", "output_len", "prompt_cv", "output_cv",
              "lengths", "max_length")  # fmt: skip
    _write(made(like=like, **{name: given[name] for name in wanted}), given)


@with_options("trace filter")
def filter_trace(file: File, **given: Any) -> None:
    """Fewer requests."""
    from apexsim.units import parse_duration
    from apexsim.workload.convert import Limits, filtered

    given = _begun("trace filter", given)
    lengths = ("min_prompt", "max_prompt", "min_output", "max_output", "max_context", "head", "share")
    limits: dict[str, Any] = {name: given[name] for name in lengths if given[name] is not None}
    for name in ("since", "until"):
        if given[name] is not None:
            limits[name] = parse_duration(given[name], "s", f"--{name}")
    _write(filtered(_read(file, given), Limits(**limits), given["seed"]), given)


@with_options("trace scale")
def scale(file: File, **given: Any) -> None:
    """Another load."""
    from apexsim.workload.convert import scaled

    given = _begun("trace scale", given)
    if given["rate_factor"] is not None and given["request_rate"] is not None:
        raise InputError("give a rate or a factor, not both", "--request-rate/--rate-factor")
    factor = 1.0 if given["rate_factor"] is None else given["rate_factor"]
    loaded = scaled(_read(file, given), factor, given["request_rate"], given["prompt_factor"], given["output_factor"])
    _write(loaded, given)


# ---- in and out ---------------------------------------------------------------------------------------------------


def _begun(command: str, given: dict[str, Any]) -> dict[str, Any]:
    """What was given, refused before any work where the result could not be written."""
    from apexsim.workload.convert import writer_of

    given = checked(command, given)
    writer_of(given["to"])
    check_writable(given["output"], "--output")
    return given


def _read(file: str, given: dict[str, Any]) -> Requests:
    from apexsim.api import columns_of
    from apexsim.workload.stream import read_requests

    return read_requests(
        file, given["format"], columns_of(given["map"]), given["time_unit"] or "", given["skip_bad"],
        given["chars_per_token"] or 0.0,
    )  # fmt: skip


def _write(requests: Requests, given: dict[str, Any]) -> None:
    """The trace to where it was asked for; what there is to say about it beside."""
    from apexsim.report.tracepage import skipped
    from apexsim.workload.convert import written

    parts, losses = written(requests, given["to"])
    _deliver(parts, given["output"])
    for note in (*skipped(requests), *requests.notes, *losses):
        say(f"apexsim: {note}")


def _deliver(parts: Iterable[str], path: str | None) -> None:
    if path is None or path == STDOUT:
        sys.stdout.writelines(parts)
        sys.stdout.flush()
    else:
        write_atomic(path, parts, "--output")


HELP = {
    "trace describe": DESCRIBE_HELP,
    "trace convert": CONVERT_HELP,
    "trace synth": SYNTH_HELP,
    "trace filter": FILTER_HELP,
    "trace scale": SCALE_HELP,
}
RUN = {
    "trace describe": describe,
    "trace convert": convert,
    "trace synth": synth,
    "trace filter": filter_trace,
    "trace scale": scale,
}
