"""What the rows of `cli/rows.py` become: signatures for typer, checks of numbers, the question for the API (floor 7)."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from apexsim.cli.files import check_files
from apexsim.cli.rows import AXES, COMMANDS, QUESTION, RAY, REQUIRED, Opt
from apexsim.errors import InputError

Model = Annotated[
    str,
    typer.Argument(
        help="Bundled name or alias, path of a config.json or its folder, or a hub id.",
        metavar="MODEL",
        show_default=False,
    ),
]
ADDRESS = re.compile(r"auto|local|.+:\d+")


def options_of(command: str) -> list[Opt]:
    """All options of a command."""
    return [opt for group in COMMANDS[command].values() for opt in group]


def parameter(opt: Opt, panel: str) -> inspect.Parameter:
    """The option as a parameter that typer understands."""
    info = typer.Option(
        *(opt.flags or (opt.flag,)),
        help=opt.help,
        metavar=opt.metavar or " ",
        rich_help_panel=panel,
        show_default=isinstance(opt.default, (int, float, str)) and opt.default is not False,
    )
    kind = opt.type if opt.default is REQUIRED or opt.default is not None else opt.type | None
    return inspect.Parameter(
        opt.name, inspect.Parameter.KEYWORD_ONLY, default=opt.default, annotation=Annotated[kind, info]
    )


def with_options(command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a function `f(argument, **given)` the options of a command as its signature, and its outputs a look before it runs."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
        listed = [parameter(opt, panel) for panel, group in COMMANDS[command].items() for opt in group]

        @functools.wraps(function)
        def run(*arguments: Any, **given: Any) -> None:
            check_files(options_of(command), {**{p.name: a for p, a in zip(own, arguments)}, **given})
            function(*arguments, **given)

        run.__signature__ = inspect.Signature([*own, *listed])  # type: ignore[attr-defined]
        return run

    return decorate


def checked(command: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, every number within its limits; raises InputError."""
    for opt in options_of(command):
        value = given.get(opt.name)
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(each, (int, float)) and not isinstance(each, bool):
                _check_number(opt, each)
            if each == "" and opt.default != "":  # as a shell variable that is not set
                raise InputError("it is given without a value", opt.flag)
    return dict(given)


def _check_number(opt: Opt, value: float) -> None:
    low = value <= opt.least if opt.above else value < opt.least
    if value != value or low or value > opt.most or (math.isinf(value) and not opt.endless):
        kind = "a whole number" if opt.type in (int, list[int]) else "a finite number" if math.isinf(value) else "a number"
        least = f" {'above' if opt.above else 'of at least'} {opt.least:g}" if math.isfinite(opt.least) else ""
        most = f" and at most {opt.most:,.0f}" if math.isfinite(opt.most) and (value > opt.most or not least) else ""
        raise InputError(f"expected {kind}{least}{most}, got {value}", opt.flag)


def addressed(words: Sequence[str]) -> list[str]:
    """A --ray that no address follows as --ray=local: the one option whose value may be left out."""
    pairs = zip(words, [*words[1:], ""])
    return [f"{RAY.flag}=local" if word == RAY.flag and not ADDRESS.fullmatch(after) else word for word, after in pairs]


def question(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options as the API takes them: engine settings apart, an infinite rate as all at once."""
    names = {opt.name for group in (*QUESTION.values(), AXES) for opt in group}
    asked = {name: value for name, value in given.items() if name in names}
    eager, chunk, whole = (
        asked.pop(n) for n in ("enforce_eager", "enable_chunked_prefill", "no_enable_chunked_prefill")
    )
    if chunk and whole:
        raise InputError("chunked prefill is both enabled and disabled", "--enable-chunked-prefill", "drop one")
    asked["settings"] = {
        "max_num_seqs": asked.pop("max_num_seqs"),
        "max_num_batched_tokens": asked.pop("max_num_batched_tokens"),
        "memory_fraction": asked.pop("gpu_memory_utilization"),
        "block_size": asked.pop("block_size"),
        "chunk": int(chunk) if chunk or whole else None,
        "pad": () if eager else None,
    }
    asked["settings"] = {name: value for name, value in asked["settings"].items() if value is not None}
    asked["slos"] = tuple(asked.pop("slo") or ())
    asked["columns"] = asked.pop("map")
    if asked["request_rate"] == math.inf:
        if asked["trace"] is not None:
            raise InputError(
                "a trace has its own arrivals and cannot be sent all at once", "--request-rate", "give a finite rate"
            )
        asked["request_rate"] = None
    return asked
