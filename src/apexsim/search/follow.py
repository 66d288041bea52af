"""The question of `apexsim fleet`, from names and numbers to an answer (floor 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any

from apexsim.api import ask, read_once, space_of
from apexsim.errors import Infeasible, InputError
from apexsim.hardware import counted
from apexsim.search.fleet import (
    Fleet,
    FleetAsk,
    Trace,
    best_units,
    check_asked,
    followed,
    one_fewer,
    per_request,
    start_up,
    steady_rent,
    unit_cluster,
)
from apexsim.search.mix import ReplicaKind, mixed
from apexsim.search.policy import POLICIES
from apexsim.search.size import SHARE, CandidateCluster
from apexsim.units import parse_duration

OWN: dict[str, Any] = {"start_up_time": None, "hold": 2, "spare": 0.0, "min_replicas": 1, "share": SHARE}  # which each model may have
WORDS = ("every", "policy", *OWN)  # of a fleet alone
UNITS = (1, 2, 4, 8)  # GPUs of a replica that are tried where none are given


def fleet(
    model: str,
    *,
    every: str | float = "15min",
    policy: str = "all",
    start_up_time: str | float | None = OWN["start_up_time"],
    hold: int = OWN["hold"],
    spare: float = OWN["spare"],
    min_replicas: int = OWN["min_replicas"],
    share: float = OWN["share"],
    workers: int = 0,
    ray: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    **question: Any,
) -> Fleet:
    """Replicas over the time of a trace; further keywords are those of `ask`, where gpus are those of one replica and may be missing,
    and gpu may be several kinds: "l4,l40s".

    every, start_up_time: "15min", or seconds; policy: one of `POLICIES`, several with commas, or "all"; hold: intervals for which a replica
    is kept that is no longer needed; spare: share of replicas on top; workers, ray: how intervals are
    simulated (`search.pool`).  Raises InputError, and Infeasible where no replica keeps the limits.
    """
    own = {"start_up_time": start_up_time, "hold": hold, "spare": spare, "min_replicas": min_replicas, "share": share}
    return followed_alone(model, {**question, **own}, every=every, policy=policy, progress=progress, workers=workers, ray=ray)[0]


def followed_alone(
    model: str,
    question: dict[str, Any],
    *,
    every: str | float,
    policy: str,
    workers: int = 0,
    ray: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[Fleet, Trace]:
    """The answer for one model, with what its intervals were simulated with.  question: all other keywords of `fleet`."""
    own = {name: question.get(name, OWN[name]) for name in OWN} | {"every": every, "policy": policy}
    question = {name: value for name, value in question.items() if name not in OWN}
    if question.get("trace") is None:
        raise InputError("a fleet follows a load over time", "--trace", "give a trace with arrivals")
    if not question.get("slos"):
        raise InputError("without a limit any number of replicas will do", "", "give --ttft MS, --tpot MS, --slo or --goodput")
    question = read_once(question)
    gpus, asked = _kinds(question.get("gpu")), _asked(own)
    kinds = _replicas(model, question, gpus, asked)
    unit, trace = kinds[0].unit, kinds[0].trace
    if own["start_up_time"] is None:
        trace.asked = asked = replace(asked, start_up=start_up(trace.setting, unit.plan))
    intervals, courses = followed(trace, progress, workers=workers, ray=ray)
    mix = mixed(kinds, intervals, progress, workers=workers, ray=ray) if len(kinds) > 1 else None
    inputs = {name: value for name, value in kinds[0].inputs.items() if question.get(name) is not None} | {
        name: own[name] for name in WORDS if own[name] != signature(fleet).parameters[name].default
    }
    inputs |= {"gpu": ",".join(gpus)} if len(gpus) > 1 else {}
    return Fleet(model, unit, asked, trace.goal, intervals, courses, one_fewer(trace, intervals), inputs, mix), trace


def _asked(own: Mapping[str, Any]) -> FleetAsk:
    start = 0.0 if own["start_up_time"] is None else seconds_of(own["start_up_time"], "--start-up-time", least=False)
    every = seconds_of(own["every"], "--every")
    return FleetAsk(every, start, own["hold"], own["spare"], own["min_replicas"], own["share"], _policies(own["policy"]))


def _kinds(named: Any) -> list[str]:
    """The GPUs that are named, one or several."""
    texts = named.split(",") if isinstance(named, str) else list(named) if isinstance(named, (list, tuple)) else [str(named)]
    found = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not found:
        raise InputError("missing option '--gpu'", "", "name one GPU, or several: --gpu l4,l40s")
    return found


def _replicas(model: str, question: dict[str, Any], gpus: Sequence[str], asked: FleetAsk) -> list[ReplicaKind]:
    """The best and the smallest replicas of each GPU, the cheapest for this load first; GPUs on which nothing fits are left out."""
    found: list[ReplicaKind] = []
    told: Infeasible | None = None
    for gpu in gpus:
        try:
            found += _kinds_on(model, {**question, "gpu": gpu}, asked)[: 2 if len(gpus) > 1 else 1]
        except Infeasible as error:
            told = error
    if not found:
        raise told or Infeasible(f"no plan of {model} has one replica on these GPUs")
    unknown = next((kind for kind in found if math.isnan(kind.rent)), None)
    if unknown and len(found) > 1:
        what = f"kinds are mixed by price, and none of {unknown.trace.setting.cluster.gpu.name} is known"
        raise InputError(what, "--gpu", "name GPUs with prices, or one kind")
    return sorted(found, key=_dearness)


def _dearness(kind: ReplicaKind) -> tuple[float, float, int]:
    """By which kinds of replicas are put in order: what they cost under this load, then for each request, then their size."""
    return steady_rent(kind.unit, kind.trace.setting.workload, kind.trace.asked), per_request(kind.unit), kind.unit.gpus


def _kinds_on(model: str, question: dict[str, Any], asked: FleetAsk) -> list[ReplicaKind]:
    """The replica of a GPU that is cheapest for this load, and the smallest where that is another."""
    counts = [None] if counted(str(question["gpu"]))[1].get("gpus") or question.get("gpus") else list(UNITS)
    found = []
    for unit in best_units(_clusters(model, question, counts, asked.share)):
        setting, _, goal, inputs = ask(model, **{**question, "gpus": question.get("gpus") or (unit.gpus if counts[0] else None)})
        check_asked(asked, setting.workload)
        found.append(ReplicaKind(unit, Trace(setting, unit.plan, goal, asked, unit.value, unit.run.account), inputs))
    best = min(found, key=_dearness)
    return [best] if best is found[0] else [best, found[0]]


def _clusters(model: str, question: dict[str, Any], counts: Sequence[int | None], share: float) -> list[CandidateCluster]:
    """The clusters that one replica may stand on; raises Infeasible where the model fits on none."""
    found: list[CandidateCluster] = []
    told: Infeasible | None = None
    for count in counts:
        try:
            setting, precision, goal, inputs = ask(model, **{**question, **({"gpus": count} if count else {})})
            cluster = unit_cluster(setting, goal, space_of(setting, precision, inputs).plans, share)
        except Infeasible as error:
            told = error
            continue
        found += [cluster] if cluster.plans else []
    if not found:
        raise told or Infeasible(f"no plan of {model} has one replica on these GPUs")
    return found


def _policies(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    return tuple(POLICIES) if names == ("all",) else names


def seconds_of(value: str | float, flag: str, least: bool = True) -> float:
    """A time that is typed [s]."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"expected a time, got {value!r}", flag, "write e.g. 15min")
    seconds = parse_duration(value, "s", flag) if isinstance(value, str) else float(value)
    if not (0.0 < seconds < math.inf or (seconds == 0.0 and not least)):
        raise InputError(f"expected a time {'above 0' if least else 'of 0 or more'}, got {value}", flag, "write e.g. 15min")
    return seconds
