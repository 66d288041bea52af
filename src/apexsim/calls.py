"""What a verb of Python does with its keywords: as the command line means them, and with messages that speak Python (floor 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib import import_module
from numbers import Real
from typing import Any, TypeVar

from apexsim.errors import Infeasible, InputError
from apexsim.typed import check_annotated
from apexsim.views import spoken

Made = TypeVar("Made")
Verb = Callable[..., Any]  # of apexsim.verbs
SETTINGS = {"max_num_seqs": "max_num_seqs", "max_num_batched_tokens": "max_num_batched_tokens", "block_size": "block_size",
            "gpu_memory_utilization": "memory_fraction", "sampling": "sampling",
            "max_cudagraph_capture_size": "capture"}  # fmt: skip


def in_python(verb: Callable[..., Made]) -> Callable[..., Made]:
    """A verb whose errors name keywords, not options."""

    @wraps(verb)
    def run(*arguments: Any, **given: Any) -> Made:
        try:
            return verb(*arguments, **given)
        except InputError as error:
            said = InputError(spoken(error.what), spoken(error.where), spoken(error.hint), error.record)
        except Infeasible as error:
            raise Infeasible(spoken(error.reason), spoken(error.nearest), error.record) from None
        raise said from None

    return run


def asked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a question as `api.ask` takes them: short limits and engine settings where they belong, columns as requests."""
    question = {name: value for name, value in given.items() if value is not None}
    limits = [question.pop("slos", ())]
    slos = [limits[0]] if isinstance(limits[0], str) else list(limits[0])
    for name in ("ttft", "tpot"):
        if name in question:
            slos.append(f"{name}:p95={question.pop(name)}")
    own = {ours: question.pop(name) for name, ours in SETTINGS.items() if name in question}
    if own:
        question["settings"] = {**question.get("settings", {}), **own}
    if slos:
        question["slos"] = tuple(slos)
    if "trace" in question:
        question["trace"] = _requests(question["trace"])
    return question


def _requests(given: Any) -> Any:
    """A trace: a file's name, a workload, or columns."""
    from apexsim.workload.asked import TraceFile
    from apexsim.workload.given import workload_of
    from apexsim.workload.trace import Workload

    return given if isinstance(given, (str, Workload, TraceFile)) or hasattr(given, "__fspath__") else workload_of(given)


def model_named(model: Any) -> Any:
    """A model by its name, or one that is given as the keys of its config.json."""
    from apexsim.model.families import model_of

    return model_of(model) if isinstance(model, Mapping) else model


def gpu_named(question: dict[str, Any]) -> dict[str, Any]:
    """The question with a GPU that is given as the keys of its file."""
    from apexsim.hardware import gpu_of

    return {**question, "gpu": gpu_of(question["gpu"])} if isinstance(question.get("gpu"), Mapping) else question


def _check(verb: Verb, given: Mapping[str, Any]) -> None:
    """Raise InputError where a keyword is of another type than the verb says, or a number beyond what the option of its name takes."""
    from apexsim.cli.rows import options_of

    options = options_of("plan" if verb.__name__ == "sweep" else verb.__name__)
    check_annotated(verb, given, [opt.name for opt in options_of("plan") if opt.axis])
    for opt in options:
        value = given.get(opt.name)
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if opt.type is not str and isinstance(each, Real) and not isinstance(each, bool):
                opt.check(each)  # type: ignore[arg-type]  # numpy's numbers too


@in_python
def call(verb: Verb, /, model: Any, **given: Any) -> Any:
    """A question of one answer."""
    _check(verb, {"model": model, **given})
    question = gpu_named(asked(given))
    return getattr(import_module("apexsim.api"), verb.__name__)(model_named(model), **question)


@in_python
def several(verb: Verb, /, model: Any, **given: Any) -> Any:
    """A question of many, whose models and GPUs have names."""
    named = isinstance(model, Mapping) or isinstance(given.get("gpu"), Mapping)
    _check(verb, given if named else {"model": model, **given})
    question = asked(given)
    if verb.__name__ == "fleet" and (tables := _tables(model)):
        return _shared(verb, tables, question, list(given))
    if isinstance(model, Mapping) or isinstance(question.get("gpu"), Mapping):
        raise InputError("models and GPUs given as dicts are taken one by one", "", "ask plan or simulate, or write them into files")
    module = {"sweep": "apexsim.api", "size": "apexsim.search.inverse", "fleet": "apexsim.search.follow"}[verb.__name__]
    return getattr(import_module(module), verb.__name__)(model, **question)


def _tables(model: Any) -> dict[str, Mapping[str, Any]]:
    """The questions of several models, by their names; none where one is named.  From a file they are as on the command line."""
    from apexsim.cli.models_file import is_tables, keywords_of, named_file

    if named_file(model):
        return dict(keywords_of(model))
    return dict(model) if is_tables(model) else {}


def _shared(verb: Verb, tables: Mapping[str, Mapping[str, Any]], question: dict[str, Any], words: Sequence[str]) -> Any:
    """Several models on one cluster; what a table does not say is in the question.  words: that it may say."""
    from apexsim.cli.models_file import TENANT, check_keywords, tenant
    from apexsim.search.together import together

    whole = {
        name: question.pop(name) for name in ("gpu", "gpus", "nodes", "every", "policy", "progress", "workers", "ray") if name in question
    }
    asks = []
    for name, table in tables.items():
        check_keywords(name, table, words)
        _check(verb, {key: value for key, value in table.items() if key != "model"})
        own = asked({key: value for key, value in table.items() if key not in TENANT})
        settings = {**question.get("settings", {}), **own.get("settings", {})}
        asks.append(tenant(name, table, {**question, **own, **({"settings": settings} if settings else {})}, ""))
    return together(asks, **whole, inputs=question)


@in_python
def fitted(verb: Verb, /, model: Any, **given: Any) -> Any:
    """The memory of a plan."""
    _check(verb, {"model": model, **given})
    from apexsim.cli.rows import options_of
    from apexsim.cli.sizing import answer_of
    from apexsim.hardware import cluster_of
    from apexsim.links import with_links

    full = {**{opt.name: opt.default for opt in options_of("fit")}, **given}
    gpu = gpu_named({"gpu": full["gpu"]})["gpu"]
    cluster = with_links(cluster_of(gpu, full["gpus"], full["nodes"]), full["nic"], full["pcie"])
    return answer_of(model_named(model), cluster, full)


@in_python
def catalogue(what: str, name: str) -> list[dict[str, Any]]:
    """The rows of a catalogue."""
    if not isinstance(name, str):
        raise InputError(f"expected a text, got {type(name).__name__}", "name", "give a part of a name, or nothing")
    rows: list[dict[str, Any]] = getattr(import_module("apexsim.report.catalogue"), f"{what}_json")(name)
    return rows


@in_python
def calibrated(verb: Verb, /, results: Any, **given: Any) -> Any:
    """A calibration."""
    _check(verb, {"results": results, **given})
    from apexsim.calibrate.run import calibrate

    return calibrate(results, **given)


def views() -> Mapping[str, Callable[..., Any]]:
    """How answers show themselves."""
    found: Mapping[str, Callable[..., Any]] = import_module("apexsim.report.notebook").VIEWS
    return found
