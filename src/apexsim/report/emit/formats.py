"""Which forms of deployment there are, and what an answer becomes in them (floor 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apexsim.errors import Infeasible, InputError, Rejected, nearest
from apexsim.report.emit.bench import bench_files, sweep_files
from apexsim.report.emit.compose import compose_files
from apexsim.report.emit.deployment import Deployment, File
from apexsim.report.emit.kubernetes import k8s_files, lws_files
from apexsim.report.emit.scripts import run_files
from apexsim.report.emit.stacks import dynamo_files, kserve_files, llmd_files
from apexsim.report.launch import start
from apexsim.report.servers import CONF
from apexsim.search.assess import Assessed
from apexsim.search.setting import Setting
from apexsim.search.size import Size
from apexsim.search.study import Study

FORMATS: dict[str, Callable[[Deployment], list[File]]] = {
    "run.sh": run_files,
    "compose": compose_files,
    "k8s": k8s_files,
    "lws": lws_files,
    "kserve": kserve_files,
    "llm-d": llmd_files,
    "dynamo": dynamo_files,
    "vllm-sweep": sweep_files,
    "bench": bench_files,
}

# what the files of each form may be called
WRITES: dict[str, tuple[str, ...]] = {
    "run.sh": ("run.sh", "node-*.sh"),
    "compose": ("compose.yaml", CONF),
    "k8s": ("k8s.yaml",),
    "lws": ("lws.yaml",),
    "kserve": ("kserve.yaml",),
    "llm-d": ("llm-d-values.yaml",),
    "dynamo": ("dynamo.yaml",),
    "vllm-sweep": ("sweep.sh", "serve.json"),
    "bench": ("bench.sh", "trace.csv", "trace.jsonl"),
}


def formats_of(text: str) -> tuple[str, ...]:
    """The forms that a list with commas names; raises InputError for an unknown one."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in FORMATS:
            raise InputError(f"unknown form '{name}'", "--emit", nearest(name, FORMATS))
    if not names:
        raise InputError("no form is named", "--emit", f"known: {', '.join(FORMATS)}")
    return names


def deployment(answer: Study | Size) -> Deployment:
    """The plan of an answer that is deployed: the one that was asked for, else the best; raises Infeasible where it cannot be started."""
    return _sized(answer) if isinstance(answer, Size) else _ranked(answer)


def _ranked(study: Study) -> Deployment:
    run = study.ranked[0] if study.single else study.best
    if run is None:
        raise Infeasible(f"no plan can be started: {study.ranked[0].blocked}", "another --engine")
    return _started(study.setting, run, study.inputs, study.ranked)


def _sized(size: Size) -> Deployment:
    """The best answer, under the load that it holds."""
    best = size.best
    assert best is not None, "files are of an answer"
    alike = tuple(one.run for one in size.found if one.setting.cluster == best.setting.cluster)
    return _started(best.setting, best.run, size.question_of(best), alike)


def _started(setting: Setting, run: Assessed, asked: Mapping[str, Any], others: tuple[Assessed, ...]) -> Deployment:
    if run.split:
        raise InputError(
            f"files are written for plans of one pool, and {run.plan.shorthand} has two", "--emit", "its launch lines start it"
        )
    started = start(setting, run.only.plan)
    if isinstance(started, Rejected):
        raise Infeasible(f"{run.plan.shorthand} cannot be started: {started.reason}", "another --plan or --engine")
    return Deployment(setting, run, started, asked, others)


def files_of(answer: Study | Size, names: Sequence[str]) -> list[File]:
    """The files of all forms that are named."""
    made = deployment(answer)
    return [file for name in names for file in FORMATS[name](made)]
