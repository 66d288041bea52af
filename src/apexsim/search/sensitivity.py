"""What would change the winner of a study: speeds that are other than predicted, loads and lengths other than asked (floor 5).

One thing is changed at a time, in steps up to twice and down to half, and the first plans are simulated again: the smallest step after
which another plan wins by more than a tie is told.  Speeds are those of a calibration's causes (`cost.factors`), multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from apexsim.cost.factors import Factors
from apexsim.errors import Rejected
from apexsim.gpu import Gpu
from apexsim.links import crossed
from apexsim.plan.split import AnyPlan
from apexsim.search.assess import Assessed, assess
from apexsim.search.remedy import Asked
from apexsim.search.setting import Setting
from apexsim.search.startable import has_server
from apexsim.search.study import Study, Turn
from apexsim.search.tune import beats
from apexsim.workload.convert import scaled
from apexsim.workload.formats import fit_lengths

PLANS = 6  # the first of a study, and the heuristic one
STEPS = (1.1, 1.25, 1.5, 2.0)
Change = Callable[[Setting, float], Setting]


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that may be other than assumed.  of: how a setting looks when it is a number of times as much."""

    words: str
    of: Change


def _speed(name: str) -> Change:
    def of(setting: Setting, factor: float) -> Setting:
        found = replace(setting.pricer.factors, **{name: getattr(setting.pricer.factors, name) * factor})
        host = Factors(launch=factor) if name == "launch" else Factors(decode=factor) if name == "decode" else Factors()
        return replace(setting, pricer=setting.pricer.scaled(found), engine=host.on_host(setting.engine))

    return of


def _bandwidth(setting: Setting, factor: float) -> Setting:
    """GPUs with other memory: kernels measured on this one are carried to those peaks, as to a lower clock (`apexsim.clock`)."""
    gpu, bank = setting.cluster.gpu, setting.pricer.bank
    other = replace(gpu, memory_bandwidth=bank.peaks.bandwidth * factor, kernels="", borrow=gpu.kernels or gpu.borrow)
    return _on(setting, other)


def _network(setting: Setting, factor: float) -> Setting:
    gpu = setting.cluster.gpu
    return _on(setting, replace(gpu, nic=replace(gpu.nic, bandwidth=gpu.nic.bandwidth * factor), network=gpu.network * factor))


def _on(setting: Setting, gpu: Gpu) -> Setting:
    """The setting on other GPUs."""
    cluster = replace(setting.cluster, gpu=gpu)
    return replace(setting, cluster=cluster, pricer=setting.pricer.on(cluster))


def _load(name: str) -> Change:
    def of(setting: Setting, factor: float) -> Setting:
        work = fit_lengths(scaled(setting.workload, **{name: factor}), max(setting.max_model_len, setting.model.max_length), "clip")
        return replace(setting, workload=work, max_model_len=max(setting.max_model_len, work.longest))

    return of


def _users(setting: Setting, factor: float) -> Setting:
    users = max(1, round(setting.workload.concurrency * factor))
    return replace(setting, workload=replace(setting.workload, concurrency=users, warmup=min(users, setting.workload.size // 2)))


SPEEDS = (
    Cause("time of decode steps", _speed("decode")),
    Cause("time of prompts", _speed("prefill")),
    Cause("time on the host", _speed("launch")),
)
MEMORY = (Cause("memory bandwidth", _bandwidth),)
NETWORK = (Cause("network bandwidth", _network),)
LENGTHS = (Cause("prompt lengths", _load("prompt")), Cause("output lengths", _load("output")))
LOADS = {"open": (Cause("requests/s", _load("factor")),), "closed": (Cause("users", _users),), "offline": ()}


def sensitive(study: Study, _asked: Asked) -> Study:
    """The study with what would change its winner."""
    first = study.ranked[0]
    able = [r for r in study.ranked if not r.blocked or not has_server(study.setting)] or list(study.ranked)
    plans = [r.plan for i, r in enumerate(able) if i < PLANS or r.plan.shorthand == study.heuristic]
    if len(plans) < 2 or first.plan not in plans:
        return replace(study, turns=())
    cluster = study.setting.cluster
    wires = NETWORK if cluster.gpu.nic in crossed(cluster) else ()
    one = () if study.setting.pools else (*MEMORY, *wires)  # pools have GPUs of their own
    causes = (*SPEEDS, *one, *LOADS[study.setting.workload.mode], *LENGTHS)
    return replace(study, turns=tuple(_turn(study, cause, up, plans) for cause in causes for up in (True, False)))


def _turn(study: Study, cause: Cause, up: bool, plans: Sequence[AnyPlan]) -> Turn:
    """The smallest step that changes the winner; bisection, from the largest."""
    steps = [step if up else 1.0 / step for step in STEPS]
    if _other(study, cause.of(study.setting, steps[-1]), plans) is None:
        return Turn(cause.words, steps[-1])
    low, high = -1, len(steps) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _other(study, cause.of(study.setting, steps[middle]), plans) else (middle, high)
    winner, gain, why = _other(study, cause.of(study.setting, steps[high]), plans) or ("", 0.0, "")
    return Turn(cause.words, steps[high], winner, gain, why)


def _other(study: Study, setting: Setting, plans: Sequence[AnyPlan]) -> tuple[str, float, str] | None:
    """The plan that then beats the first by more than a tie, how many times better it is, and what it is better in where that is not the
    objective; None where the first stays."""
    runs = [run for plan in plans if not isinstance(run := assess(setting, study.goal, plan), Rejected)]
    own = next((run for run in runs if run.plan == study.ranked[0].plan), None)
    best = min(runs, key=lambda run: run.key, default=None)
    if best is None or best is own:
        return None
    if own is not None and not beats(best, own, study.goal):
        return None
    return best.plan.shorthand, _gain(study, best, own), _why(best, own)


def _why(best: Assessed, own: Assessed | None) -> str:
    """What decides before the objective does."""
    if own is None:
        return "the first does not fit"
    if best.keeps != own.keeps:
        return "it keeps the limits"
    if not best.keeps:
        return "it misses the limits by less"
    return "it keeps up with the load" if best.metrics.saturated != own.metrics.saturated else ""


def _gain(study: Study, best: Assessed, own: Assessed | None) -> float:
    return study.goal.objective.ratio(best.value, own.value) if own else float("inf")
