"""Result files and a question as points of one system (floor 5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeVar

from apexsim import api
from apexsim.calibrate.cells import Bad
from apexsim.calibrate.measured import group_of, read_measured
from apexsim.calibrate.points import RunPoint
from apexsim.calibrate.read import FileRun, Passed, is_sweep, read_results
from apexsim.calibrate.server import same_gpu, same_release
from apexsim.cost.price import Pricer
from apexsim.engine_file import DEFAULT_ENGINE
from apexsim.engines import closest, server_named
from apexsim.errors import InputError, Rejected, nearest
from apexsim.files import opened
from apexsim.hardware import cluster_of
from apexsim.model.families import load_model
from apexsim.model.model import Model
from apexsim.model.served import served
from apexsim.plan.limits import started
from apexsim.plan.plan import Plan, parse_plan
from apexsim.plan.widths import Widths, plan_of
from apexsim.search.error import signature
from apexsim.search.setting import Setting

MOST_TOLD = 20  # runs of which it is told what they are
Kind = TypeVar("Kind")
LEAST = 2  # runs: one cannot be held against the others
LABELS = ("engine", "release", "model", "gpu", "formats")
ROOM = (1 / 3, 3.0)  # of the cache that a server states over the predicted one; beyond, it counts something else


@dataclass(frozen=True, slots=True)
class Gathered:
    """Points of one system, by LABELS, what was passed over, and the cache that the servers stated over the predicted one."""

    points: tuple[RunPoint, ...]
    passed: tuple[Passed, ...]
    system: Mapping[str, str]
    dates: tuple[str, ...]
    kv: float


@dataclass(frozen=True, slots=True)
class RunsWanted:
    """What the user says of the runs: model and plan ("" = the file's), which rows of a file of several systems, lengths' half width over
    their mean where a file has only means, and keywords of `api.ask` for cluster, engine and precision."""

    model: str
    plan: str
    where: Mapping[str, str]
    spread: float
    question: Mapping[str, Any]


def gather(paths: Sequence[str], wanted: RunsWanted) -> Gathered:
    """All points; raises InputError where none can be used, or they are of several systems."""
    points, passed, dates, kv = list[RunPoint](), list[Passed](), list[str](), list[float]()
    asked = _Asked(wanted)
    keeps, spared = _keeper(wanted), list[RunPoint]()
    for path in paths:
        if is_table(path) and not is_sweep(path):
            found = asked.file(path, partial(read_measured, path, keeps))
            points += [each for each in found if isinstance(each, RunPoint)]
            passed += [each for each in found if isinstance(each, Passed)]
            continue
        for run in asked.file(path, partial(read_results, path, wanted.spread)):
            point = asked.point(run) if isinstance(run, FileRun) else run
            if isinstance(point, Passed):
                passed.append(point)
                continue
            if not _chosen(wanted.where, point):
                spared.append(point)
                continue
            points.append(point)
            dates += [run.about["date"]] if isinstance(run, FileRun) and run.about.get("date") else []
            kv += asked.cache(run, point) if isinstance(run, FileRun) else []
    if wanted.where and not spared and not any(map(is_table, paths)):
        raise InputError("it has no effect: all runs are of it", "--where", "drop it")
    if spared and not points:
        there = "; ".join(dict.fromkeys(" ".join(group_of(point.setting, point.plan)) for point in spared[:MOST_TOLD]))
        raise InputError(f"no run is of {', '.join(map('='.join, wanted.where.items()))}", "--where", f"they are of {there}")
    if len(points) < LEAST:
        why = f"; {passed[0].where}: {passed[0].reason}" if passed else ""
        raise (
            asked.fault
            if asked.fault and not points
            else InputError(
                f"{len(points)} run{'s' * (len(points) != 1)} can be used, expected at least {LEAST}{why}",
                ", ".join(paths),
                "see: apexsim calibrate --suggest MODEL --gpu NAME",
            )
        )
    room = sorted(kv)[len(kv) // 2] if kv else 1.0
    return Gathered(tuple(points), tuple(passed), _system(points, paths), tuple(dict.fromkeys(dates)), room)


def is_table(path: str) -> bool:
    """Whether a file is no JSON of any kind."""
    with opened(path, "result file") as file:
        head = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")
    return bool(head) and head[:1] not in (b"{", b"[")


def _system(points: Sequence[RunPoint], paths: Sequence[str]) -> dict[str, str]:
    """The one system of all points."""
    groups = Counter(group_of(point.setting, point.plan) for point in points)
    if len(groups) > 1:
        differ = [label for at, label in enumerate(LABELS) if len({group[at] for group in groups}) > 1]
        rows = "; ".join(f"{n} × {' '.join(group)}" for group, n in groups.most_common(4))
        told = f"the runs are of {len(groups)} systems: {rows}{'; …' * (len(groups) > 4)}"
        raise InputError(told, ", ".join(paths), f"choose one: --where {differ[0]}=…")
    return dict(zip(LABELS, next(iter(groups))))


def _has(where: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(value.lower() in labels[label].lower() for label, value in where.items())


def _chosen(where: Mapping[str, str], point: RunPoint) -> bool:
    """Whether a run is of the system that was asked for among several."""
    return _has(where, dict(zip(LABELS, group_of(point.setting, point.plan)))) if where else True


def _keeper(wanted: RunsWanted) -> Callable[[Setting, Plan], bool]:
    """Which rows of a file of many systems were asked for; raises InputError for labels and names that nobody knows."""
    unknown = next((label for label in wanted.where if label not in LABELS), None)
    if unknown is not None:
        raise InputError(f"rows have no label '{unknown}'", "--where", nearest(unknown, LABELS))
    gpu, engine = wanted.question.get("gpu"), str(wanted.question.get("engine") or "")
    model = signature(load_model(wanted.model)) if wanted.model else ""
    name = cluster_of(gpu, wanted.question.get("gpus") or (None if ":" in gpu else 1), None).gpu.name if gpu else ""
    plan = parse_plan(wanted.plan).shorthand if wanted.plan else ""
    row = closest(engine) if engine else None

    def keeps(setting: Setting, own: Plan) -> bool:
        labels = dict(zip(LABELS, group_of(setting, own)))
        released = row is None or (row.name == setting.engine.name and ("@" not in engine or row.spoken == setting.engine.spoken))
        return (
            released
            and model in ("", signature(setting.model))
            and name in ("", setting.cluster.gpu.name)
            and plan in ("", own.shorthand.partition("@")[0])
            and _has(wanted.where, labels)
        )

    return keeps


@lru_cache(maxsize=256)
def _signature(name: str) -> str:
    """The signature of a model that a file names; "" where nobody knows it (a path, or a name of the server's own)."""
    try:
        return signature(load_model(name))
    except InputError:
        return ""


# ---- runs of a question --------------------------------------------------------------------------------------------------


class _Asked:
    """Turns runs into points; equal clusters share their prices.  fault: the first complaint about what the user gave."""

    def __init__(self, wanted: RunsWanted) -> None:
        self.wanted = wanted
        self.pricers: dict[tuple[Any, ...], Pricer] = {}
        self.fault: InputError | None = None

    def file(self, path: str, read: Callable[[], Sequence[Kind]]) -> Sequence[Kind | Passed]:
        """What a file holds; one that is broken is passed over, and its complaint kept."""
        try:
            return read()
        except InputError as error:
            self.fault = self.fault or error
            return [Passed(error.where or path, error.what)]

    def point(self, run: FileRun) -> RunPoint | Passed:
        """The run as a question and a plan."""
        try:
            setting, plan = self._setting(run)
        except Bad as bad:
            return Passed(run.where, str(bad))
        except InputError as error:
            self.fault = self.fault or error
            return Passed(run.where, error.line())
        start = started(setting.model, plan, setting.cluster, setting.engine, setting.max_model_len)
        if isinstance(start, Rejected):
            return Passed(run.where, f"{plan.shorthand} cannot be simulated: {start.reason}")
        return RunPoint(run.where, setting, plan, {key: value for key, value in run.measured.items() if value == value and value > 0.0})

    def cache(self, run: FileRun, point: RunPoint) -> list[float]:
        """What the run's server said of its cache over the predicted one."""
        start = started(point.setting.model, point.plan, point.setting.cluster, point.setting.engine, point.setting.max_model_len)
        if isinstance(start, Rejected) or not run.kv_tokens:
            return []
        ratio = run.kv_tokens / (start[1].blocks * start[1].block_size)
        return [ratio] if ROOM[0] < ratio < ROOM[1] and run.kv_tokens > point.setting.workload.longest else []

    def _setting(self, run: FileRun) -> tuple[Setting, Plan]:
        wanted = self.wanted
        question = dict(wanted.question)
        if not (wanted.model or run.about.get("model")):
            raise InputError("the file names no model", "--model", "give it, e.g. llama-3.1-8b")
        if not question.get("gpu"):
            raise InputError("missing option '--gpu'", "", "a result file does not say the GPU: give --gpu NAME")
        self._agrees(run, question)
        said, own = run.server, str(question.get("engine") or run.server.engine or DEFAULT_ENGINE)
        question["engine"] = f"{own}@{said.release}" if said.release and "@" not in own else own
        question["settings"] = {**said.settings, **(question.get("settings") or {})}
        question = {**said.question, **question}
        what = self._model(run, question)
        if ":" not in question["gpu"] and not question.get("gpus"):
            question["gpus"] = self._devices(run, what)
        setting, precision, _, _ = api.ask(what, **question, trace=run.workload)
        plan = self._plan(run, what, setting, precision)
        if plan.devices != setting.cluster.size:
            raise InputError(f"{plan.shorthand} takes {plan.devices} GPUs, the cluster has {setting.cluster.size}", "--plan", "drop --gpus")
        key = (setting.cluster.gpu.name, setting.cluster.size, setting.cluster.per_node, setting.engine.server.name)
        return replace(setting, pricer=self.pricers.setdefault(key, setting.pricer)), plan

    def _model(self, run: FileRun, question: Mapping[str, Any]) -> Model:
        """The model of a run in the formats that its file says; raises Bad where the user asked for another."""
        named, wanted = run.about.get("model", ""), self.wanted.model
        if named and wanted and _signature(named) not in ("", signature(load_model(wanted))):
            raise Bad(f"a run of {named}, asked was {wanted}")
        model, label = wanted or named, run.server.precision
        if not label or any(question.get(name) for name in ("weight_dtype", "quant", "dtype")):
            return load_model(model)
        gpu = cluster_of(question["gpu"], question.get("gpus") or (None if ":" in question["gpu"] else 1), None).gpu
        return served(model, label, gpu.vendor).model

    def _agrees(self, run: FileRun, question: Mapping[str, Any]) -> None:
        """Raise Bad where the file speaks of another engine, release or GPU than the user."""
        engine, gpu, release = run.server.engine, run.about.get("gpu", ""), run.server.release
        asked = str(question.get("engine") or "")
        name, _, version = asked.partition("@")
        if engine and asked and server_named(name) not in ("", engine):
            raise Bad(f"a run of {engine}, asked was {asked}")
        if release and version and not same_release(release, version):
            raise Bad(f"a run of {engine} {release}, asked was {asked}")
        named = str(question["gpu"]).lower()
        if gpu and not named.endswith((".toml", "/")) and not same_gpu(gpu, named):
            raise Bad(f"a run on {gpu}, asked was {question['gpu']}")

    def _widths(self, run: FileRun) -> Widths:
        if self.wanted.plan:
            return Widths(plan=self.wanted.plan)
        if run.widths is None:
            raise InputError("the file does not say how the model was split", "--plan", "give it, e.g. TP1")
        return run.widths

    def _devices(self, run: FileRun, model: Model) -> int:
        widths = self._widths(run)
        return parse_plan(widths.plan).devices if widths.plan else max(1, widths.tp) * max(1, widths.pp) * max(1, widths.dp)

    def _plan(self, run: FileRun, model: Model, setting: Setting, precision: Any) -> Plan:
        widths = self._widths(run)
        plan = parse_plan(widths.plan, precision) if widths.plan else plan_of(model, setting.cluster, widths, precision)
        if (
            self.wanted.plan
            and run.widths
            and run.widths.plan
            and parse_plan(run.widths.plan).shorthand != parse_plan(self.wanted.plan).shorthand
        ):
            raise Bad(f"a run of {run.widths.plan}, asked was {self.wanted.plan}")
        if self.wanted.plan and run.widths and run.widths.tp not in (0, plan.attention.tp):
            raise Bad(f"a run with tp {run.widths.tp}, asked was {self.wanted.plan}")
        return plan
