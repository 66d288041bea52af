"""The commands `trace …`: describe, convert, synth, filter, scale and tokenize request traces (floor 7)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apexsim.cli.files import STDOUT
from apexsim.cli.options import checked, with_options
from apexsim.cli.outside import page_size, present, say, write_atomic
from apexsim.errors import InputError

if TYPE_CHECKING:
    from apexsim.workload.presets import Preset
    from apexsim.workload.synth import Spread
    from apexsim.workload.tokens import Counter
    from apexsim.workload.trace import Workload

ABOUT = "Describe, convert, make, filter and scale request traces of any size and format; make them of texts."
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
SYNTH_HELP = """Make a trace: lengths of a known use, of a given mean and spread, or drawn from another trace; gamma arrivals from a seed.

Examples:

  apexsim trace synth --prompt-len 500 --prompt-cv 1.2 --output-len 200 --output-cv 0.8 --request-rate 4 --num-requests 100

  apexsim trace synth --workload chat --request-rate 4 --num-requests 100

  apexsim trace synth --like examples/lmsys_05.jsonl --request-rate 5 --seed 1

  apexsim trace synth --prompt-len 200 --output-len 100 --request-rate 2 --shared-prefix 2000x10 --turns 4 --turn-gap 5 --to dynamo
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
TOKENIZE_HELP = """Make a trace of a dataset of texts: lengths by a tokenizer, arrivals from a seed.

Reads ShareGPT, chats, columns of prompts and answers (JSON, JSON lines, CSV), OpenAI batches, and one prompt per line.

Examples:

  apexsim trace tokenize examples/conversations.json --chars-per-token 4 --request-rate 2

  apexsim trace tokenize examples/conversations.json --tokens-per-word 1.3 --turns all --to mooncake
"""
File = Annotated[str, typer.Argument(help="Trace: CSV, JSON lines or JSON, also as .gz.", metavar="FILE", show_default=False)]

Texts = Annotated[
    str, typer.Argument(help="Dataset of texts: JSON, JSON lines, CSV or plain text, also as .gz.", metavar="DATASET", show_default=False)
]


@with_options("trace describe")
def describe(file: File, **given: Any) -> None:
    """Statistics and pictures."""
    given = checked("trace describe", given)
    requests = _read(file, given)
    from apexsim.report.tracepage import describe_json, describe_text, drawn
    from apexsim.workload.describe import describe as described

    found = described(requests)
    if given["plot"]:
        write_atomic(given["plot"], drawn(requests, found, given["plot"]), "--plot")
    present(describe_json(requests, found), lambda: describe_text(requests, found, page_size()[1]), given["json"])


@with_options("trace convert")
def convert(file: File, **given: Any) -> None:
    """Another format."""
    given = _begun("trace convert", given)
    _write(_read(file, given), given)


@with_options("trace synth")
def synth(**given: Any) -> None:
    """A made-up trace."""
    import numpy as np

    from apexsim.workload.made import made
    from apexsim.workload.shared import related

    given = _begun("trace synth", given)
    wanted = ("num_requests", "request_rate", "burstiness", "seed", "max_length")
    work = made(like=_like(given), **{name: given[name] for name in wanted})
    _write(related(work, given["shared_prefix"], given["turns"], given["turn_gap"], np.random.default_rng((given["seed"], 1))), given)


def _like(given: dict[str, Any]) -> Spread | Workload | Preset:
    """Where the lengths of a made-up trace come from."""
    if given["like"]:
        from apexsim.workload.stream import read_trace

        return read_trace(given["like"])
    if given["workload"]:
        from apexsim.workload.presets import preset_of

        return preset_of(given["workload"])
    if given["prompt_len"] is None or given["output_len"] is None:
        raise InputError("no lengths", "", "give --workload NAME, --prompt-len N and --output-len N, or --like FILE")
    from apexsim.workload.synth import Spread

    return Spread(given["prompt_len"], given["output_len"], given["prompt_cv"], given["output_cv"], given["lengths"])


@with_options("trace filter")
def filter_trace(file: File, **given: Any) -> None:
    """Fewer requests."""
    from apexsim.units import parse_duration
    from apexsim.workload.convert import KeptLengths, filtered

    given = _begun("trace filter", given)
    lengths = ("min_prompt", "max_prompt", "min_output", "max_output", "max_context", "head", "share")
    limits: dict[str, Any] = {name: given[name] for name in lengths if given[name] is not None}
    for name in ("since", "until"):
        if given[name] is not None:
            limits[name] = parse_duration(given[name], "s", f"--{name}")
    _write(filtered(_read(file, given), KeptLengths(**limits), given["seed"]), given)


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


@with_options("trace tokenize")
def tokenize(file: Texts, **given: Any) -> None:
    """Lengths of texts."""
    from apexsim.cli.outside import Progress
    from apexsim.errors import nearest
    from apexsim.workload.convert import writer_of
    from apexsim.workload.talks import LONGEST, Wish
    from apexsim.workload.tokenize import KeptBounds, Pace, tokenized

    given = _begun("trace tokenize", given)
    if given["turns"] not in ("first", "all"):
        raise InputError(f"unknown choice of turns '{given['turns']}'", "--turns", nearest(given["turns"], ("first", "all")))
    every = given["turns"] == "all"
    wish = Wish(given["prompt_field"] or "", given["output_field"] or "", every, given["output_len"] or 0)
    bounds = KeptBounds(given["max_model_len"] or 2 * LONGEST, given["limit"] or LONGEST, given["skip_bad"])
    pace = Pace(given["request_rate"], given["burstiness"], given["seed"], given["turn_gap"])
    with Progress() as progress:
        made = tokenized(file, _counter(given), wish, bounds, pace, writer_of(given["to"]).block, progress)
    _write(made, given)


def _counter(given: dict[str, Any]) -> Counter:
    """How tokens are counted: exactly one way."""
    from apexsim.workload.tokens import by_chars, by_tokenizer, by_words

    ways = ("tokenizer", "chars_per_token", "tokens_per_word")
    asked = [way for way in ways if given[way] is not None]
    flags = ", ".join("--" + way.replace("_", "-") for way in asked or ways)
    if len(asked) != 1:
        told = "tokens are counted in more than one way" if asked else "no way to count tokens is given"
        raise InputError(told, flags, "give one of them")
    if given["tokenizer"] is not None:
        return by_tokenizer(given["tokenizer"], given["download"])
    return by_chars(given["chars_per_token"]) if given["chars_per_token"] else by_words(given["tokens_per_word"])


# ---- in and out ---------------------------------------------------------------------------------------------------


def _begun(command: str, given: dict[str, Any]) -> dict[str, Any]:
    """What was given, refused before any work where the result could not be written."""
    from apexsim.workload.convert import writer_of

    given = checked(command, given)
    writer_of(given["to"])
    return given


def _read(file: str, given: dict[str, Any]) -> Workload:
    from apexsim.workload.asked import columns_of
    from apexsim.workload.stream import read_trace

    return read_trace(
        file,
        given["format"],
        columns_of(given["map"]),
        given["time_unit"] or "",
        given["skip_bad"],
        given["chars_per_token"] or 0.0,
    )


def _write(requests: Workload, given: dict[str, Any]) -> None:
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
    "trace tokenize": TOKENIZE_HELP,
}
RUN = {
    "trace describe": describe,
    "trace convert": convert,
    "trace synth": synth,
    "trace filter": filter_trace,
    "trace scale": scale,
    "trace tokenize": tokenize,
}
