"""The words of a command line, before they are parsed: other tools' names become ours, options without a value get one (floor 7)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from apexsim.cli.names import MODEL, TOTAL, VERSION, check_word, name_of
from apexsim.cli.options import flags_of_command, number
from apexsim.cli.rows import RAY, Opt
from apexsim.engine_file import DEFAULT_ENGINE
from apexsim.errors import InputError
from apexsim.slo import ALIASES, LATENCIES

ADDRESS = re.compile(r"auto|local|.+:\d+")
LIMIT = re.compile(rf"({'|'.join((*LATENCIES, *ALIASES))})[:=<]", re.IGNORECASE)  # --goodput ttft:500 tpot:50
NODE = 8  # GPUs of a node where only a total is given


@dataclass(slots=True)
class LineWords:
    """What was found on the line: parsed words, and by option what was given and how it was typed."""

    plain: list[str] = field(default_factory=list)  # arguments, and options that nobody knows
    given: dict[str, str] = field(default_factory=dict)  # option (or TOTAL, VERSION, MODEL) -> value
    typed: dict[str, str] = field(default_factory=dict)  # option -> its spelling

    def put(self, option: str, value: str, flag: str, opt: Opt | None) -> None:
        """Note an option; raises InputError where it was given before, in this spelling or another, and said something else."""
        other, before = self.typed.get(option, flag), self.given.get(option, value)
        if before != value and _value(opt, before) != _value(opt, value):
            hint = f"drop one of both{f', or ask with each: {flag} {before},{value}' if opt and opt.axis else ''}"
            raise InputError(f"{other} {before} and {flag} {value} are one option with two values", flag, hint)
        self.given[option], self.typed[option] = value, flag


def _value(opt: Opt | None, text: str) -> object:
    """What a value means, as far as it can be read."""
    try:
        return number(opt, text) if opt else text
    except InputError:
        return text


def translated(command: str, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words as our options, and for each of our flags that was spelled otherwise, its spelling."""
    flags, found, made = flags_of_command(command), LineWords(), []
    options = {opt.name: opt for opt in flags.values()}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            made += [word, *rest]
            break
        flag, sign, value = word.partition("=")
        if flag in flags:
            made += _ours(flags[flag], flag, [value] if sign else None, rest, found)
        elif (row := name_of(flag) if word.startswith("-") else None) and (row.option in options or _special(row.option, options)):
            if not sign and not row.bare:
                if not rest:
                    raise InputError("it is given without a value", flag)
                value = rest.pop(0)
            for option, each in row.options(value).items():
                found.put(option, each, flag, options.get(option))
        else:
            found.plain.append(word)
            made.append(word)
    return _joined(made, found, options), {options[name].flag: flag for name, flag in found.typed.items() if name in options}


def _special(option: str, options: Mapping[str, Opt]) -> bool:
    """Whether a command understands what is no option of its own."""
    return {TOTAL: "gpus" in options, VERSION: "engine" in options, MODEL: "tp" in options}.get(option, False)


def _ours(opt: Opt, flag: str, value: list[str] | None, rest: list[str], found: LineWords) -> list[str]:
    """One of our own options; lists stay as they are, the rest is noted and written later."""
    if opt.type is bool:
        if not value:
            found.put(opt.name, "", flag, opt)
            return []
        return [f"{flag}={value[0]}"]
    if value is None:
        if opt.bare and not _follows(opt, rest):
            value = [opt.bare]
        elif not rest:
            return [flag]
        else:
            value = [rest.pop(0)]
    if opt.type not in (str, int, float):
        made = [flag, value[0]]
        while opt.several and rest and LIMIT.match(rest[0]):
            made += [flag, rest.pop(0)]
        return made
    found.put(opt.name, value[0], flag, opt)
    return []


def _follows(opt: Opt, rest: Sequence[str]) -> bool:
    """Whether the next word is the value of an option that can do without."""
    if opt is RAY:
        return bool(rest and ADDRESS.fullmatch(rest[0]))
    return bool(rest) and (rest[0] == "-" or not rest[0].startswith("-"))


def _joined(made: list[str], found: LineWords, options: Mapping[str, Opt]) -> list[str]:
    """All words, the options that need others in sight made up."""
    given, typed = found.given, found.typed
    if TOTAL in given:
        _divided(found, int(number(options["gpus"], given.pop(TOTAL), typed[TOTAL])))
    if VERSION in given:
        engine = given.get("engine", DEFAULT_ENGINE)
        if "@" in engine:
            raise InputError(f"'{engine}' names its version", typed[VERSION], "drop one of both")
        given["engine"] = f"{engine}@{given.pop(VERSION)}"
    for name, flag in typed.items():
        if name in options and "engine" in options:
            check_word(flag, name, given.get("engine", DEFAULT_ENGINE))
    if MODEL in given:
        made = [given.pop(MODEL), *made]
        if any(not word.startswith("-") for word in found.plain):
            raise InputError("the model is given twice", typed[MODEL], "drop one of both")
    pairs = ([options[name].flag] if options[name].type is bool else [options[name].flag, value] for name, value in given.items())
    return [*(word for pair in pairs for word in pair), *made]


def _divided(found: LineWords, total: int) -> None:
    """So many GPUs as nodes of 8, or of what --nodes leaves for each."""
    nodes = number(None, found.given["nodes"]) if "nodes" in found.given else max(1, -(-total // NODE))
    if "gpus" in found.given or nodes < 1 or total % nodes:
        told = f"{total} GPUs in all do not divide into {nodes} nodes" if "gpus" not in found.given else "the GPUs are counted twice"
        raise InputError(told, found.typed[TOTAL], "give --gpus per node and --nodes")
    found.given |= {"gpus": str(total // nodes), "nodes": str(nodes)}


def json_on_stdout(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON on standard output."""
    pairs = zip(words, [*words[1:], "-"])
    return any(word == "--json=-" or (word == "--json" and after.startswith("-")) for word, after in pairs)
