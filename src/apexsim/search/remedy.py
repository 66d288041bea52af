"""What would help where no plan keeps the limits or the load: changes that were simulated, and do (floor 5).

Each kind of change is tried from the smallest on, with the plans nearest to the goal, and the first that suffices is told.
Nothing is told that was not simulated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from apexsim.errors import InputError, Rejected
from apexsim.hardware import counted
from apexsim.model.parts import routed
from apexsim.plan.plan import Precision, quantised
from apexsim.plan.space import candidates, heuristic_plan
from apexsim.plan.split import AnyPlan, clocked, copied, formatted, pools_of
from apexsim.search.assess import assess
from apexsim.search.goal import Goal
from apexsim.search.setting import Setting
from apexsim.search.startable import blocked, has_server
from apexsim.search.study import Remedy, Study

if TYPE_CHECKING:
    from apexsim.search.size import Trials

Asked = Callable[[Mapping[str, Any]], tuple[Setting, Precision, Goal, Any]]  # the question again, with changes
NEAR = 3  # plans of the study that are tried
TRIED = 12  # plans of a larger cluster that are tried
PLAIN = 5  # of tensor parallelism and replicas alone
CLOCKS = (0.8, 0.6, 0.45)  # of the GPU's own
NODE = 8  # GPUs, where a node is made larger
MOST_GPUS = 64
WIDE = ("bf16", "fp16", "fp32")
WIDTHS = {"tp": None, "pp": None, "dp": None, "ep": None, "enable_expert_parallel": False}  # of a smaller cluster, not said


@dataclass(frozen=True, slots=True)
class Trial:
    """A question asked again: what is changed of it, and the plans that are tried."""

    changes: Mapping[str, Any]
    plans: Callable[[Setting, Precision], Sequence[AnyPlan]]


def remedied(study: Study, asked: Asked) -> Study:
    """The study with the changes after which a plan keeps all limits and the load, and with those that do not suffice."""
    first = study.ranked[0]
    if first.keeps and not first.metrics.saturated:
        return study
    found = [kind(study, asked) for kind in ((_load, _format) if study.single else (_load, _clock, _gpus, _format))]
    return replace(
        study, remedies=tuple(x for x in found if isinstance(x, Remedy)), tried=tuple(x for x in found if isinstance(x, str) and x)
    )


def refused(trial: Trial, error: InputError) -> None:
    """A change that cannot be asked for does not help: a format or a clock that the GPU has not."""


def _works(asked: Asked, trial: Trial) -> AnyPlan | None:
    """The best of the plans that keep everything after a change."""
    try:
        setting, precision, goal, _ = asked(trial.changes)
    except InputError as error:
        refused(trial, error)
        return None
    found = []
    for plan in trial.plans(setting, precision):
        got = assess(setting, goal, plan)
        if isinstance(got, Rejected) or got.metrics.saturated or not got.keeps:
            continue
        found.append(got)
    return min(found, key=lambda run: run.key).plan if found else None


Near = Callable[[Setting, Precision], Sequence[AnyPlan]]


def _near(study: Study) -> Near:
    """The first plans of the study, the one that serves most, and plain ones: under a load that is too much those rank low which are best
    where it is not."""
    if study.single:
        return lambda setting, precision: [study.ranked[0].plan]
    able = [r for r in study.ranked if not r.blocked] or list(study.ranked)
    serves = max(able, key=lambda r: r.metrics.output_throughput_tok_s)
    plain = [r.plan for r in able if all(p.stages == p.lanes == 1 and p.ffn.ep in (1, p.attention.tp) for p in pools_of(r.plan))]
    plans = list(dict.fromkeys([serves.plan, *(r.plan for r in able[:NEAR]), *plain[:PLAIN]]))
    return lambda setting, precision: plans


def _load(study: Study, asked: Asked) -> Remedy | str:
    """A lower rate, or fewer users: the most that one of the near plans holds."""
    from apexsim.search.holding import grid_of, load_of, trials_of  # where all is well nobody needs it
    from apexsim.search.size import most

    work, whole = study.setting.workload, load_of(study)
    if work.mode == "offline" or len(work.stage) or not math.isfinite(whole):  # one request, or all at the same moment
        return ""
    trials = trials_of(study)
    loads = [load for load in grid_of(study, trials) if load < whole]
    if not loads:
        return ""
    near = _near(study)(study.setting, study.ranked[0].plan.precision)
    plan, value = _most_of(trials, near, loads)
    name = "concurrency" if trials.closed else "request_rate"
    rest = {"rate_factor": None} if study.inputs.get("rate_factor") is not None else {}
    below = list(dict.fromkeys(_rounded(load, trials.closed) for load in loads if load <= max(value, loads[0])))
    plans = [plan] if plan else near

    def changes(load: float) -> dict[str, Any]:
        return {name: int(load) if trials.closed else load, **rest}

    def works(at: int) -> AnyPlan | None:
        """With the requests of the question, which need not be easier than more of them."""
        return _works(asked, Trial(changes(below[at]), lambda setting, precision: plans))

    at = most(len(below), lambda at: works(at) is not None)
    if at < 0:
        return _words(below[0], trials.closed)
    found = works(at)
    assert found is not None
    return Remedy(_words(below[at], trials.closed), found.shorthand, changes(below[at]))


def _most_of(trials: Trials, plans: Sequence[AnyPlan], loads: Sequence[float]) -> tuple[AnyPlan | None, float]:
    """The plan that holds most of some loads, and how much; those that do not hold more than one before are not followed."""
    from apexsim.search.holding import most_held

    found, value = None, 0.0
    for plan in plans:
        more = [load for load in loads if load > value]
        if more and trials.holds(plan, more[0]):
            found, value = plan, most_held(trials, plan, more)
    return found, value


def _rounded(load: float, closed: bool) -> float:
    """A load that can be told, no more than it is."""
    if closed:
        return float(math.floor(load))
    places = 1 - math.floor(math.log10(load))
    return math.floor(load * 10.0**places + 1e-9) / 10.0**places


def _words(load: float, closed: bool) -> str:
    return f"{int(load):,} user{'s' * (load > 1)}" if closed else f"{load:g} requests/s"


def _clock(study: Study, asked: Asked) -> Remedy | str:
    """A lower clock of the GPUs, where they draw too much."""
    gpu, near = study.setting.cluster.gpu, _near(study)
    drawn = study.ranked[0].metrics.energy.watts
    if not drawn > study.goal.power_cap or study.inputs.get("clock") or not gpu.clock_mhz > 0 or gpu.clock < 1.0:
        return ""
    for share in CLOCKS:
        mhz = round(share * gpu.clock_mhz)
        slower = partial(_slower, near, mhz)
        plan = _works(asked, Trial({"clock": str(mhz)}, slower))
        if plan:
            return Remedy(f"a clock of {mhz:,} MHz", plan.shorthand, {"clock": str(mhz)})
    return f"{mhz:,} MHz"


def _slower(near: Near, mhz: int, setting: Setting, precision: Precision) -> list[AnyPlan]:
    return [clocked(plan, mhz) for plan in near(setting, precision)]


def _larger(study: Study) -> Iterator[tuple[int, int]]:
    """(GPUs of a node, nodes) of larger clusters, doubling."""
    per_node, nodes = study.setting.cluster.per_node, study.setting.cluster.nodes
    while 2 * per_node * nodes <= MOST_GPUS:
        per_node, nodes = (2 * per_node, nodes) if nodes == 1 and 2 * per_node <= NODE else (per_node, 2 * nodes)
        yield per_node, nodes


def _gpus(study: Study, asked: Asked) -> Remedy | str:
    """More of the same GPUs."""
    first, cluster, near = study.ranked[0].plan, study.setting.cluster, _near(study)
    name = counted(str(study.inputs["gpu"]))[0]
    tried = 0
    for per_node, nodes in _larger(study):
        tried = per_node * nodes
        counts = {"gpu": name, "gpus": per_node, "nodes": nodes if max(nodes, cluster.nodes) > 1 else None}
        plans = partial(_wider, near, first, tried // cluster.size)
        trial = Trial(WIDTHS | counts, plans)
        plan = _works(asked, trial)
        if plan:
            return Remedy(f"{tried} × {cluster.gpu.name}", plan.shorthand, trial.changes)
    return f"{tried} GPUs" if tried else ""


def _wider(near: Near, first: AnyPlan, more: int, setting: Setting, precision: Precision) -> list[AnyPlan]:
    """Plans for a larger cluster: copies of those near, the usual one, and plain ones that the engine can be started with."""
    copies = [copied(plan, more) for plan in near(setting, precision)]
    usual = replace(heuristic_plan(setting.model, setting.cluster, first.precision), clock=first.clock, draft=first.draft)
    able = [
        replace(p, clock=first.clock, draft=first.draft)
        for p in candidates(setting.model, setting.cluster, first.precision).plans
        if p.stages <= setting.cluster.nodes
        and (not has_server(setting) or not blocked(setting, p))
        and (p.lanes == 1 or (routed(setting.model) and p.attention.tp == 1))
    ]
    return list(dict.fromkeys([*copies, usual, *able]))[:TRIED]


def _format(study: Study, asked: Asked) -> Remedy | str:
    """8-bit weights, where they are wider and the GPU multiplies them."""
    first = study.ranked[0].plan
    if first.precision.default not in WIDE or first.precision.weights or not study.setting.cluster.gpu.flops.get("fp8"):
        return ""
    flag = "weight_dtype" if study.single else "quant"
    near = _near(study)

    def slim(setting: Setting, precision: Precision) -> list[AnyPlan]:
        own = precision if flag == "weight_dtype" else quantised(precision, "fp8")
        return [formatted(p, own) for p in near(setting, precision)]

    plan = _works(asked, Trial({flag: "fp8"}, slim))
    return Remedy("fp8 weights", plan.shorthand, {flag: "fp8"}) if plan else "fp8 weights"
