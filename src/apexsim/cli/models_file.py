"""The models that share a cluster, from a file with a table for each, or as dicts (floor 7).

    [chat]
    model = "llama-3.1-8b"
    trace = "chat.csv"
    ttft = "1s"

Keys are options of `fleet`; what a table does not say is as on the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from apexsim.cli.files import SEVERAL
from apexsim.cli.options import check_clashes, one_value, question
from apexsim.cli.rows import COMMANDS, Opt, options_of
from apexsim.errors import InputError, nearest
from apexsim.examples import located
from apexsim.files import read_toml
from apexsim.search.follow import OWN, seconds_of
from apexsim.search.together import TenantAsk

LIMITS = ("slo", "ttft", "tpot", "goodput", "slos")  # a model that has one of its own has none of the others
CLUSTER = ("gpu", "nodes", "nic", "pcie", "every", "policy", *(opt.name for opt in COMMANDS["fleet"]["Output"]))  # of all models
TENANT = ("model", "priority", "begins")
WHOLE = ("progress", "workers", "ray")
NAMED = ("model", "trace", "engine", "workload", "route", "columns", "classes")  # texts that no number can be


def named_file(model: Any) -> bool:
    """Whether what stands in a model's place is a file of several."""
    return isinstance(model, str) and model.lower().endswith(SEVERAL)


def is_tables(model: Any) -> bool:
    """Whether what stands in a model's place is several, by their names."""
    return isinstance(model, Mapping) and bool(model) and all(isinstance(value, Mapping) for value in model.values())


def read_tables(path: str) -> dict[str, dict[str, Any]]:
    """The options of every model, as the command line has them; raises InputError."""
    data = read_toml(path, "file of models")
    loose = next((name for name, value in data.items() if not isinstance(value, dict)), None)
    if loose is not None:
        raise InputError(f"'{loose}' stands outside of a table", path, "words of all models are options: give them on the command line")
    if not data:
        raise InputError("no model stands in it", path, "write a table for each: [chat], then model = …, trace = …, ttft = …")
    known = {opt.name: opt for opt in options_of("fleet") if opt.name not in CLUSTER}
    return {name: _table(table, known, Path(located(path)).parent, f"{path} [{name}]") for name, table in data.items()}


def _table(table: Mapping[str, Any], known: Mapping[str, Opt], folder: Path, where: str) -> dict[str, Any]:
    """One model's options."""
    made: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in CLUSTER:
            raise InputError(f"'{key}' is of the whole cluster", where, "give it on the command line")
        if name not in known and name not in TENANT:
            raise InputError(f"unknown key '{key}'", where, nearest(key, [*known, *TENANT]))
        if name in made:
            raise InputError(f"'{key}' is given twice, with - and with _", where, "drop one of both")
        made[name] = _value(known.get(name), name, value, where)
    if "trace" in made and (folder / made["trace"]).exists():
        made["trace"] = str(folder / made["trace"])
    return made


def _value(opt: Opt | None, name: str, value: Any, where: str) -> Any:
    """A value of a table as the command line would have read it."""
    kind = {"priority": int, "begins": str, "model": str}.get(name) if opt is None else opt.type
    expected = "list of texts" if kind == list[str] else "text" if name in NAMED else _said(kind)
    wrong = InputError(f"{name} = {value!r} is not what was expected", where, f"write a {expected}")
    if (isinstance(value, (Mapping, list)) and kind != list[str]) or isinstance(value, bool) != (kind is bool):
        raise wrong
    if kind is bool:
        return value
    if kind is str and name in NAMED and not isinstance(value, str):
        raise wrong
    if opt is None:
        if kind is int and not isinstance(value, int):
            raise wrong
        return value
    try:
        values = [one_value(opt, str(each)) for each in (value if isinstance(value, list) else [value])]
    except InputError as error:
        raise InputError(error.what, f"{where} {name}", error.hint) from None
    return values if kind == list[str] else values[0]


def _said(kind: Any) -> str:
    return {bool: "true or false", int: "whole number", float: "number"}.get(kind, "text or a number")


def tenants_typed(path: str, given: Mapping[str, Any]) -> list[TenantAsk]:
    """The models of a file, where all other options are those of the command line."""
    found = []
    for name, table in read_tables(path).items():
        shared = dict(given) | {"gpus": None, "nodes": None}
        if any(limit in table for limit in LIMITS):
            shared |= {"slo": [], "goodput": [], "ttft": None, "tpot": None}
        merged = shared | {key: value for key, value in table.items() if key not in TENANT}
        try:
            check_clashes("fleet", merged)
            asked = question(merged)
        except InputError as error:
            raise InputError(error.what, f"{path} [{name}] {error.where}".strip(), error.hint) from None
        found.append(tenant(name, table, {**asked, **{own: merged[own] for own in OWN}}, path))
    return found


def tenant(name: str, table: Mapping[str, Any], asked: Mapping[str, Any], where: str) -> TenantAsk:
    """One model of the cluster; raises InputError for what it lacks."""
    place = f"{where} [{name}]".strip()
    lacks = next((word for word, there in (("model", "model" in table), ("trace", asked.get("trace") is not None),
                                           ("limit", bool(asked.get("slos")))) if not there), None)  # fmt: skip
    if lacks:
        examples = {"model": 'model = "llama-3.1-8b"', "trace": 'trace = "chat.csv"', "limit": 'ttft = "1s", tpot, slo or goodput'}
        raise InputError(f"a model without a {lacks}" if lacks != "model" else "no model is named", place, f"write {examples[lacks]}")
    priority = table.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise InputError(f"priority = {priority!r} is no whole number", place, "the higher comes first where GPUs are short")
    begins = seconds_of(table["begins"], place, least=False) if table.get("begins") else 0.0
    return TenantAsk(name, str(table["model"]), dict(asked), priority, begins)


def keywords_of(path: str) -> dict[str, dict[str, Any]]:
    """The models of a file as keywords of Python."""
    defaults = {opt.name: opt.default for opt in options_of("fleet")}
    found = {}
    for name, table in read_tables(path).items():
        asked = question(defaults | {key: value for key, value in table.items() if key not in TENANT})
        kept = {"slos": asked["slos"] or None, "settings": asked["settings"] or None, "columns": asked["columns"]}
        found[name] = {
            key: value for key, value in (table | asked).items() if (key in asked and key in table) or key in (*TENANT, *OWN)
        } | kept
        found[name] = {key: value for key, value in found[name].items() if value is not None}
    return found


def check_keywords(name: str, table: Mapping[str, Any], words: Iterable[str]) -> None:
    """Raise InputError for a word that a model has none of; words: the keywords of `fleet`."""
    known = [word for word in words if word not in CLUSTER and word not in WHOLE]
    for key in table:
        if key in CLUSTER or key in WHOLE:
            raise InputError(f"'{key}' is of the whole cluster", f"[{name}]", "give it beside the models")
        if key not in known and key not in TENANT:
            raise InputError(f"unknown keyword '{key}'", f"[{name}]", nearest(key, [*known, *TENANT]))
