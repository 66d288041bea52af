"""A question that comes as JSON, held against the table of options: its keys, their types, their limits (floor 7).

The keys are those of the verbs of Python, made from `cli.rows`, so that a new option appears here by itself.  No value is a path: texts
that could be one are refused, whatever option they are of, and the process that works on the question stands in an empty folder
(`worker`).  What is refused names the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from apexsim.cli.options import number, one_value, several
from apexsim.cli.rows import COMMANDS, REQUIRED, Opt
from apexsim.errors import UNPRINTABLE, InputError, nearest
from apexsim.model.names import find_known, names
from apexsim.views import RENAMED, spoken
from apexsim.web.limits import Limits

VERBS = ("plan", "simulate", "size", "fleet")
NAMED = ("size", "fleet")  # of models with a name alone
CLOSED = ("profile",)  # kept by who runs the server, for himself
GRAMMAR = ("plan", "pareto")  # a slash is part of what is said, and nothing is opened by it
RATE = re.compile(r"(?<=\d[kKMGT][bB])/(?=(s|node)\b)")  # 50GB/s, 400Gb/node
PATH = re.compile(r"[/\\~]|^\.(?!\d)|\.(toml|jsonl?|csv|gz|txt|log|ya?ml|parquet|py|html?)\b|^[a-zA-Z]:", re.IGNORECASE)
MODEL = re.compile(r"\w[\w.:@+ -]{0,95}(/\w[\w.-]{0,95})?")
UPLOADED, EXAMPLE = re.compile(r"upload:[0-9a-f]{64}"), re.compile(r"example:\w{1,40}")
TYPES = {int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True, slots=True)
class Question:
    """What a program or the page asks.  model: a name, or the keys of a config.json; given: every option of the verb by its name, with
    what was said; trace: `upload:` and a hash, `example:` and a name, or columns; page: whether the page is wanted too."""

    verb: str
    model: str | Mapping[str, Any]
    given: Mapping[str, Any]
    trace: Any = None
    page: bool = False


def key(opt: Opt) -> str:
    """The name of an option in JSON and Python."""
    return RENAMED.get(opt.name, opt.name)


def panels(verb: str) -> Iterator[tuple[str, list[Opt]]]:
    """The options of a verb that can be asked from outside, by their panels: no output, no file, no place to work."""
    for panel, group in COMMANDS[verb].items():
        opts = [opt for opt in group if opt.name == "trace" or not (opt.writes or opt.name in CLOSED or opt.metavar == "FILE")]
        if panel != "Output" and opts:
            yield panel, opts


def options(verb: str) -> dict[str, Opt]:
    """The same by key."""
    return {key(opt): opt for _, opts in panels(verb) for opt in opts}


# ---- JSON ----------------------------------------------------------------------------------------------------------------


def strict(data: bytes, depth: int) -> Any:
    """The value of a JSON text; raises InputError for what is none, is nested deeper than `depth`, or holds a key twice, a number that
    is not finite, or half a character."""
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_no_number, object_pairs_hook=_once)
    except RecursionError:
        raise InputError("the JSON is nested too deeply", "", f"at most {depth} levels") from None
    except UnicodeDecodeError:
        raise InputError("the body is not UTF-8") from None
    except ValueError as error:
        raise InputError(f"the body is no JSON: {error}") from None
    level: list[Any] = [found]
    for _ in range(depth + 1):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return found
    raise InputError("the JSON is nested too deeply", "", f"at most {depth} levels")


def _inside(value: Any) -> list[Any]:
    """What a value holds; raises InputError where it is a number or a text that nothing can be made of."""
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise InputError("a number is not finite")
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise InputError("a text holds half a character")
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


# ---- the question --------------------------------------------------------------------------------------------------------


def question(verb: str, body: Any, limits: Limits, page: bool = False) -> Question:
    """The question of a body; raises InputError that names the key."""
    if not isinstance(body, dict):
        raise InputError(f"expected an object, got {_kind(body)}")
    known = options(verb)
    unknown = next((name for name in body if name != "model" and name not in known), None)
    if unknown is not None:
        raise InputError(f"no such key of {verb}", unknown[:80], nearest(unknown[:80], ["model", *known]))
    missing = next((name for name in ("model", *(n for n, o in known.items() if o.default is REQUIRED)) if name not in body), None)
    if missing:
        raise InputError("it is missing", missing, "name a model" if missing == "model" else f"give one: {_example(known[missing])}")
    given = {opt.name: opt.default for group in COMMANDS[verb].values() for opt in group}
    given |= {
        known[name].name: _value(name, known[name], value, limits)
        for name, value in body.items()
        if name not in ("model", "trace") and value is not None
    }
    trace = _trace(body.get("trace"), limits)
    return Question(verb, _model(verb, body["model"], limits), {**given, "trace": None if trace is None else "trace"}, trace, page)


def _example(opt: Opt) -> str:
    return opt.help.partition(" (")[0].partition("e.g. ")[2] or opt.metavar


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _value(name: str, opt: Opt, value: Any, limits: Limits) -> Any:
    """A value as the command line would have read it."""
    if opt.type is bool:
        if not isinstance(value, bool):
            raise InputError(f"expected true or false, got {_kind(value)}", name)
        return value
    values = value if isinstance(value, list) else _split(value) if opt.axis and isinstance(value, str) else [value]
    if len(values) > 1 and not (opt.axis or opt.several):
        raise InputError("expected one value, got a list", name)
    if not 1 <= len(values) <= limits.values:
        raise InputError(f"expected 1 to {limits.values} values, got {len(values)}", name)
    made = [_one(name, opt, each, limits) for each in values]
    if opt.several:
        return made
    if isinstance(value, str) and len(values) > 1:
        return several(opt, value)
    return tuple(dict.fromkeys(made)) if len(made) > 1 else made[0]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _one(name: str, opt: Opt, value: Any, limits: Limits) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"expected {'a text' if opt.type is str else 'a number'}, got {_kind(value)}", name)
    text = value if isinstance(value, str) else json.dumps(value)
    _harmless(name, text, limits)
    if opt.type in (int, float):
        most = _most(limits).get(opt.name, opt.most)
        read = number(opt, text)
        if read > most and read <= opt.most and read != float("inf"):
            raise InputError(f"expected at most {most:,.12g} here, got {read:,.12g}", name, "apexsim on a command line has no such limit")
    return one_value(opt, text)


def _most(limits: Limits) -> dict[str, int]:
    """What this server takes less of than the command line does."""
    return {"num_requests": limits.requests, "concurrency": limits.requests, "gpus": limits.gpus, "nodes": limits.gpus}


def _harmless(name: str, text: str, limits: Limits) -> None:
    """Raise InputError where a text could be a path, is too long, or holds what is no letter."""
    if len(text) > limits.text:
        raise InputError(f"a text of {len(text):,} characters", name, f"at most {limits.text} are read")
    if UNPRINTABLE.search(text) or "\n" in text or "\t" in text:
        raise InputError("it holds characters that cannot be shown", name)
    if PATH.search(text.replace("/", " ") if name in GRAMMAR else RATE.sub(" ", text)):
        raise InputError("files are not read from here", name, "give a name or a number; a trace is uploaded")


def _model(verb: str, model: Any, limits: Limits) -> str | dict[str, Any]:
    """A model of the catalogue, several with commas, or the keys of a config.json."""
    if isinstance(model, dict) and verb not in NAMED:
        name = str(model.get("_name_or_path") or "model")
        return {**model, "_name_or_path": name if MODEL.fullmatch(name) else "model"}
    if not isinstance(model, str):
        raise InputError(f"expected a name{' or the keys of a config.json' * (verb not in NAMED)}, got {_kind(model)}", "model")
    each = _split(model) if verb == "plan" else [model.strip()]
    for name in each:
        if len(name) > limits.text or not MODEL.fullmatch(name) or find_known(name) is None:
            raise InputError(f"unknown model '{name[:80]}'", "model", f"{nearest(name[:80], names())} or give the keys of its config.json")
    if len(each) > limits.values:
        raise InputError(f"expected 1 to {limits.values} values, got {len(each)}", "model")
    return ",".join(each)


def _trace(trace: Any, limits: Limits) -> Any:
    """Where requests are from, None without a trace; never a path."""
    if trace is None or (isinstance(trace, str) and (UPLOADED.fullmatch(trace) or EXAMPLE.fullmatch(trace))):
        return trace
    if isinstance(trace, dict):
        trace = {str(name): column for name, column in trace.items()}
        if len(trace) <= 16 and all(isinstance(column, list) and len(column) <= limits.rows for column in trace.values()):
            return trace
    raise InputError("files are not read from here", "trace", "upload one (upload:…), or give columns: arrive [s], prompt, output")


# ---- the interface, described ----------------------------------------------------------------------------------------------


def described(verb: str) -> dict[str, Any]:
    """The JSON Schema of a question."""
    made = {name: _schema(opt) for name, opt in options(verb).items()}
    config = {"type": "object", "description": "The keys of a config.json."}
    model = {"type": "string", "description": f"A name of /api/models{', several with commas' * (verb == 'plan')}."}
    columns = {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "number"}}}
    told = "Requests: one that was uploaded to /api/traces, an example, or columns: arrive [s], prompt, output."
    trace = {"anyOf": [{"type": "string", "pattern": "^(upload:[0-9a-f]{64}|example:\\w+)$"}, columns], "description": told}
    made |= {"trace": trace} if "trace" in made else {}
    required = ["model", *(name for name, opt in options(verb).items() if opt.default is REQUIRED)]
    return {"type": "object", "additionalProperties": False, "required": required,
            "properties": {"model": model if verb in NAMED else {"anyOf": [model, config]}, **made}}  # fmt: skip


def _schema(opt: Opt) -> dict[str, Any]:
    told: dict[str, Any] = {"description": spoken(opt.help)}
    if opt.default not in (None, REQUIRED, []):
        told["default"] = opt.default
    if opt.type is bool:
        return {"type": "boolean", **told}
    kind = TYPES.get(opt.type)
    one: dict[str, Any] = {"type": ["string", kind] if kind else ["string", "number"]}
    if kind:
        bounds = {"exclusiveMinimum" if opt.above else "minimum": opt.least, "maximum": opt.most}
        one |= {name: bound for name, bound in bounds.items() if abs(bound) < float("inf")}
    return {"anyOf": [one, {"type": "array", "items": one}], **told} if opt.axis or opt.several else {**one, **told}
