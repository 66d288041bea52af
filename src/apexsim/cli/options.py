"""What the rows of `cli/rows.py` become: signatures for typer, checks of numbers, the question for the API (floor 7)."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

import typer

from apexsim.cli.clashes import CLASHES
from apexsim.cli.files import check_files, check_picture
from apexsim.cli.rows import AXES, CALIBRATED, COMMANDS, POOLS, REQUIRED, WIDTHS, Opt, options_of
from apexsim.errors import InputError
from apexsim.examples import expanded
from apexsim.report.again import SETTINGS
from apexsim.slo import parse_slo, split_slos
from apexsim.units import parse_count
from apexsim.workload.clashes import refuse

Model = Annotated[
    str,
    typer.Argument(
        help="Bundled name or alias, path of a config.json or its folder, or a hub id.",
        metavar="MODEL",
        show_default=False,
        autocompletion=lambda: known("model"),
    ),
]
THOUSANDS = re.compile(r"\d{1,2}(,\d{3})+|\d{1,3}(,\d{3})*,0\d\d(,\d{3})*")  # 8,192; 1,024
TEXTS: dict[Any, Any] = {int: str, float: str, list[int]: list[str]}  # numbers are read here, so that complaints are ours


def known(what: str) -> list[str]:
    """Names that an option or the argument MODEL may have, for the shell's completion."""
    from apexsim.engines import engine_names
    from apexsim.hardware import gpu_names
    from apexsim.model.names import aliases, model_names

    return sorted({"model": (*model_names(), *aliases()), "gpu": gpu_names(), "engine": engine_names()}[what])


def flags_of_command(command: str) -> dict[str, Opt]:
    """The option of every spelling that a command shows."""
    return {flag: opt for opt in options_of(command) for flag in opt.flags or (opt.flag,)}


def parameter(opt: Opt, panel: str) -> inspect.Parameter:
    """The option as a parameter that typer understands."""
    info = typer.Option(
        *(opt.flags or (opt.flag,)),
        help=opt.help,
        metavar=opt.metavar or " ",
        rich_help_panel=panel,
        autocompletion=(lambda: known(opt.name)) if opt.name in ("gpu", "engine", "model") else None,
        show_default=isinstance(opt.default, (int, float, str)) and opt.default is not False,
    )
    kind = TEXTS.get(opt.type, opt.type)
    kind = kind if opt.default is REQUIRED or opt.default is not None else kind | None
    default = str(opt.default) if opt.type in (int, float) and isinstance(opt.default, (int, float)) else opt.default
    return inspect.Parameter(opt.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def with_options(command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a function `f(argument, **given)` the options of a command as its signature, and its outputs a look before it runs."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
        listed = [parameter(opt, panel) for panel, group in COMMANDS[command].items() for opt in group]

        @functools.wraps(function)
        def run(*arguments: Any, **given: Any) -> None:
            check_files(_as_given(options_of(command), given), {**{p.name: a for p, a in zip(own, arguments)}, **given})
            if given.get("plot"):
                check_picture(given["plot"])
            function(*arguments, **given)

        run.__signature__ = inspect.Signature([*own, *listed])  # type: ignore[attr-defined]
        return run

    return decorate


def _as_given(opts: list[Opt], given: Mapping[str, Any]) -> list[Opt]:
    """The options as this command line means them: beside --emit, --output names a folder."""
    return [replace(opt, folder=True) if opt.name == "output" and given.get("emit") is not None else opt for opt in opts]


def checked(command: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, numbers read and within their limits, nothing in vain; raises InputError."""
    made = dict(given)
    for opt in options_of(command):
        value = given.get(opt.name)
        if isinstance(value, (list, tuple)):
            made[opt.name] = [one_value(opt, each) for each in value]
        elif opt.axis and isinstance(value, str) and "," in value and not os.path.exists(expanded(value)):
            made[opt.name] = several(opt, value)
        elif value is not None:
            made[opt.name] = one_value(opt, value)
    check_clashes(command, made)
    return made


def check_clashes(command: str, made: Mapping[str, Any]) -> None:
    """Raise InputError for an option that would do nothing beside the others."""
    defaults = {opt.name: opt.default for opt in options_of(command)}
    # of a list the first value; each combination is looked at again where it is asked
    first = {name: value[0] if isinstance(value, tuple) else value for name, value in made.items()}
    refuse(CLASHES.get(command, ()), {name: value for name, value in first.items() if value is not None and value != defaults.get(name)})


def several(opt: Opt, text: str) -> tuple[Any, ...]:
    """The values of a list; raises InputError where it may be one number with separators of thousands."""
    if THOUSANDS.fullmatch(text.strip()):
        hint = f"write {text.replace(',', '')} for one number, or the list with its longest value first"
        raise InputError(f"expected a whole number or a list of them, and '{text}' may be both", opt.flag, hint)
    return tuple(dict.fromkeys(one_value(opt, each.strip()) for each in text.split(",")))


def one_value(opt: Opt, value: Any) -> Any:
    """A value of an option as its type, within its limits; raises InputError."""
    if value == "" and opt.default != "":  # as a shell variable that is not set
        raise InputError("it is given without a value", opt.flag)
    made = number(opt, value) if isinstance(value, str) else value
    if isinstance(made, (int, float)) and not isinstance(made, bool):
        opt.check(made)
    return made


def number(opt: Opt | None, text: str, flag: str = "") -> Any:
    """A value as its option's type, whole numbers where there is no option; raises InputError."""
    kind, where = (opt.type, flag or opt.flag) if opt else (int, flag)
    if kind in (int, list[int]):
        return parse_count(text, opt is not None and opt.tokens, where)
    if kind is not float:
        return text
    try:
        return float(text)
    except ValueError:
        if opt is not None and opt.tokens:
            return float(parse_count(text, True, where))
        raise InputError(f"expected a number, got '{text}'", where) from None


def limits(asked: dict[str, Any]) -> tuple[str, ...]:
    """The limits of a question, in one spelling; takes their options out of `asked`."""
    found = [parse_slo(text) for text in asked.pop("slo") or ()]
    for name in ("ttft", "tpot"):
        value = asked.pop(name)
        try:
            found += [parse_slo(f"{name}:p95={value}", f"--{name}")] if value is not None else []
        except InputError:
            raise InputError(f"cannot read '{value}' as a time", f"--{name}", "write milliseconds, e.g. 500, or 1s") from None
    for text in (one for given in asked.pop("goodput") or () for one in split_slos(given)):
        found.append(parse_slo(text, "--goodput"))
        if not found[-1].per_request:
            raise InputError(f"'{text}' limits a statistic, goodput counts requests", "--goodput", "write ttft:500, or use --slo")
    return tuple(dict.fromkeys(map(str, found)))


def question(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options as the API takes them: engine settings apart, an infinite rate as all at once."""
    names = {opt.name for group in (*CALIBRATED.values(), WIDTHS, AXES, POOLS) for opt in group}
    asked = {name: value for name, value in given.items() if name in names}
    if asked["enable_chunked_prefill"] and asked["no_enable_chunked_prefill"]:
        raise InputError("chunked prefill is both enabled and disabled", "--enable-chunked-prefill", "drop one")
    for name in ("tune", "sensitivity", "headroom"):  # of the search, not of the question
        asked.pop(name, None)
    said = [(row, value) for row in SETTINGS if (value := asked.pop(row.option)) not in (None, False)]
    asked["settings"] = {row.setting: value if row.value is None else row.value for row, value in said}
    asked["slos"] = limits(asked)
    asked["columns"] = asked.pop("map")
    return asked
