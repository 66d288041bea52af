"""Which forms of deployment there are, and what a study becomes in them (floor 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apexsim.errors import Infeasible, InputError, Rejected, nearest
from apexsim.report.emit.bench import bench_files, sweep_files
from apexsim.report.emit.compose import compose_files
from apexsim.report.emit.deployment import Deployment, File
from apexsim.report.emit.kubernetes import k8s_files, lws_files
from apexsim.report.emit.scripts import run_files
from apexsim.report.emit.stacks import dynamo_files, kserve_files, llmd_files
from apexsim.report.launch import start
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


def formats_of(text: str) -> tuple[str, ...]:
    """The forms that a list with commas names; raises InputError for an unknown one."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in FORMATS:
            raise InputError(f"unknown form '{name}'", "--emit", nearest(name, FORMATS))
    if not names:
        raise InputError("no form is named", "--emit", f"known: {', '.join(FORMATS)}")
    return names


def deployment(study: Study) -> Deployment:
    """The plan of a study that is deployed: the one that was asked for, else the best; raises Infeasible where it cannot be started."""
    run = study.ranked[0] if study.single else study.best
    if run is None:
        raise Infeasible(f"no plan can be started: {study.ranked[0].blocked}", "another --engine")
    if run.split:
        raise InputError(
            f"files are written for plans of one pool, and {run.plan.shorthand} has two", "--emit", "its launch lines start it"
        )
    started = start(study.setting, run.only.plan)
    if isinstance(started, Rejected):
        raise Infeasible(f"{run.plan.shorthand} cannot be started: {started.reason}", "another --plan or --engine")
    return Deployment(study, run, started)


def files_of(study: Study, names: Sequence[str]) -> list[File]:
    """The files of all forms that are named."""
    made = deployment(study)
    return [file for name in names for file in FORMATS[name](made)]
