"""Does it fit: one plan sized, what would give it more room, or why it does not fit and what would (floor 3).  Nothing is
simulated.

A width that is not given is filled by model replicas; where none is given, the first layout that fits is taken, in the
order in which the field tries them (`plan.widths.layouts`).
"""

from __future__ import annotations

from dataclasses import replace

from apexsim.engines import EngineRow
from apexsim.errors import Rejected
from apexsim.hardware import Cluster
from apexsim.model.model import Model
from apexsim.plan.levers import levers, nearest
from apexsim.plan.limits import unstartable
from apexsim.plan.plan import Precision
from apexsim.plan.sized import Fit, Typical, judged, longest, usual
from apexsim.plan.widths import Widths, island, layouts, plan_of

OTHERS = 3  # further layouts that are shown
__all__ = ["Fit", "Typical", "Widths", "fit", "longest", "plan_of"]


def fit(
    model: Model,
    cluster: Cluster,
    engine: EngineRow,
    widths: Widths,
    precision: Precision,
    length: int,
    typical: Typical | None = None,
) -> Fit:
    """Size the plan that the widths mean; `engine` must be settled for the length."""
    typical = typical or usual(length)
    if widths.given:
        plan = plan_of(model, cluster, widths, precision)
        why = unstartable(model, plan, cluster, engine)
        found = judged(model, plan, cluster, engine, length)
        answer = Fit(model, cluster, engine, plan, length, found, notes=(f"it cannot be started: {why}",) if why else (), typical=typical)
    else:
        answer = _first(model, cluster, engine, precision, length, typical)
    pulled = levers(answer)
    return replace(answer, levers=pulled, nearest="" if answer.fits else nearest(answer, pulled))


def _first(model: Model, cluster: Cluster, engine: EngineRow, precision: Precision, length: int, typical: Typical) -> Fit:
    """The first layout that fits, with others over as many GPUs; else the first of those over most GPUs, with its reason."""
    tried = [*layouts(model, cluster, engine, precision)] or [plan_of(model, cluster, Widths(tp=1), precision)]
    answers = [Fit(model, cluster, engine, plan, length, judged(model, plan, cluster, engine, length), typical=typical) for plan in tried]
    fitting = [answer for answer in answers if answer.fits]
    if not fitting:
        return max(answers, key=lambda answer: answer.plan.replica_devices)
    first, inside = fitting[0], island(cluster)
    if first.plan.replica_devices <= inside:
        told = f"no width given: {first.plan.shorthand} is the narrowest that fits"
        return replace(first, notes=(told,) if first.plan.replica_devices > 1 else ())
    across = [answer for answer in fitting[1:] if answer.plan.stages == 1]
    return replace(first, notes=(_across(first, answers, inside),), others=tuple(across[:OTHERS]))


def _across(first: Fit, answers: list[Fit], inside: int) -> str:
    """Why a layout over several islands was taken."""
    alone = max((a for a in answers if a.plan.replica_devices <= inside), key=lambda a: a.plan.replica_devices, default=None)
    short = f": {alone.plan.shorthand} {alone.found.reason}" if alone and isinstance(alone.found, Rejected) else ""
    how = "tensor parallel inside, pipeline stages across" if first.plan.stages > 1 else "the first that fits"
    return f"no width given: {inside} GPUs beside each other are not enough{short}; so {first.plan.shorthand}, {how}"
