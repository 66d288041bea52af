"""Evaluate every plan of a space and rank what comes back (floor 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from apexsim.drafting import Drafting
from apexsim.errors import Infeasible, Rejected
from apexsim.hardware import Cluster
from apexsim.objective import Objective
from apexsim.plan.formats import as_priced
from apexsim.plan.limits import follows
from apexsim.plan.memory import room
from apexsim.plan.plan import Plan
from apexsim.plan.space import Space, candidates, heuristic_plan
from apexsim.plan.split import AnyPlan, pools_of
from apexsim.search import least
from apexsim.search.assess import Assessed, assess
from apexsim.search.drafts import following, told
from apexsim.search.error import calibrated_note, comparison_error, tie
from apexsim.search.goal import Goal
from apexsim.search.pool import Result, Work, evaluated
from apexsim.search.rounds import Rounds
from apexsim.search.screen import Screened, keep_up, sample, screened
from apexsim.search.setting import Setting
from apexsim.search.startable import blocked, has_server, others
from apexsim.search.study import Interrupted, Step, Study
from apexsim.slo import LATENCIES
from apexsim.workload.columns import ideal_hit

Progress = Callable[[int, int, str], None]
Unranked = Callable[[Assessed], bool]
Seen = Callable[[Result], None]  # told what came of each plan, in their order
LIGHT = 20_000  # requests: of longer runs only the first plan's is kept, 40 bytes a request each
MOST_GPUS = 512  # where the search for a cluster that is large enough ends


def search(
    setting: Setting,
    space: Space,
    goal: Goal,
    *,
    workers: int = 0,
    ray: str | None = None,
    progress: Progress | None = None,
    seen: Seen | None = None,
    hypothetical: bool = False,
) -> Study:
    """Rank every plan of `space` that the engine can be started with, and with `hypothetical` the others too.

    progress, seen: called after each plan, with counts and with what came of it.  Raises Infeasible when none fits, and Interrupted when
    the user stops it after one did.
    """
    for plan in space.all:
        for own, pool in zip(setting.of(plan), pools_of(plan)):
            own.at(pool.clock)  # its prices are made once, before threads share them
    heuristic = _usual(setting, space)
    run = partial(_run, workers=workers, ray=ray, progress=progress)
    free = hypothetical or not has_server(setting)

    def unranked(run: Assessed) -> bool:
        return not free and bool(run.blocked)

    chosen, unfit = _screening(setting, space.all, goal, heuristic, unranked, run)
    first = _First(unranked, setting.workload.size > LIGHT)
    rounds = Rounds(lambda plans, done: run(partial(assess, setting, goal), plans, first.keep, done=done, seen=seen))
    plans, late = _in_turn(setting, chosen.worth, heuristic, goal, free)
    rounds.add(plans)
    late, beaten = least.apart(setting, goal, late, rounds.results)
    rounds.add(late)
    left_out = chosen.left_out
    if chosen.slow and not rounds.stopped and not keep_up([r for r in rounds.fitting if not unranked(r)]):
        rounds.add(chosen.slow)
        left_out = chosen.hopeless
    asked = len(rounds.plans)
    if not rounds.stopped:
        rounds.add(_following(setting, rounds.results, unranked))
        rounds.keep_winners(asked)
        space = replace(space, plans=(*space.plans, *(p for p in rounds.plans[asked:] if isinstance(p, Plan))))
    results, fitting, stopped = rounds.results, rounds.fitting, rounds.stopped
    rejected = [*space.rejected, *unfit, *left_out, *beaten, *(r for r in results if isinstance(r, Rejected))]
    if not fitting:
        if stopped:
            raise KeyboardInterrupt
        raise Infeasible(*_why_nothing_fits(setting, space, rejected))
    study = _study(setting, goal, fitting, rejected, space, heuristic)
    if not hypothetical and has_server(setting):
        study = _startable(study, space, stopped)
    if stopped:
        raise Interrupted(_partial(study, len(results), len(rounds.plans)))
    return study


def _in_turn(setting: Setting, plans: tuple[AnyPlan, ...], heuristic: Plan, goal: Goal, free: bool) -> tuple[list[AnyPlan], list[AnyPlan]]:
    """The plans that are simulated whatever comes, and those that are not ranked and may have lost by then (`search.least`)."""
    late = [not free and not goal.aims and plan != heuristic and bool(blocked(setting, plan)) for plan in plans]
    return [p for p, last in zip(plans, late) if not last], [p for p, last in zip(plans, late) if last]


def _startable(study: Study, space: Space, stopped: bool) -> Study:
    """The study with plans that the engine cannot be started with set apart; raises Infeasible where no other fits."""
    setting = study.setting
    able = tuple(r for r in study.ranked if not r.blocked)
    if able:
        width = study.error[1]
        ranked = tuple(replace(r, tie=tie(r.value, able[0].value, width)) for r in able)
        return replace(study, ranked=ranked, hypothetical=tuple(r for r in study.ranked if r.blocked))
    if stopped:  # one that can be started may be among the rest: what there is is shown
        return study
    first = study.ranked[0]
    named = ", ".join(others(setting, first.plan)) or "no engine"
    able_plans = [p for p in space.plans if not blocked(setting, p)]
    head = (
        f"no plan of {setting.model.name} on {setting.cluster.size} × {setting.cluster.gpu.name} that {setting.engine.name} can start fits"
    )
    why = f"{first.plan.shorthand} fits, but {first.blocked} ({named} can start it): --hypothetical ranks it"
    raise Infeasible(head, "; ".join([*([nearest_fit(setting, able_plans[0])] if able_plans else []), why]))


def simulate_one(setting: Setting, plan: AnyPlan, goal: Goal) -> Study:
    """One plan in full, with the heuristic plan beside it where that differs and fits."""
    found = assess(setting, goal, plan)
    if isinstance(found, Rejected):
        raise Infeasible(f"{plan.shorthand} does not fit: {found.reason}", _nearest_of(setting, plan))
    heuristic = replace(heuristic_plan(setting.model, setting.cluster, plan.precision), clock=plan.clock)
    other = assess(setting, goal, heuristic) if heuristic != plan else found
    both = [found] if heuristic == plan or isinstance(other, Rejected) else [found, other]
    study = _study(setting, goal, both, [], None, heuristic)
    first = next(r for r in study.ranked if r.plan == plan)
    rest = tuple(r for r in study.ranked if r.plan != plan)
    return replace(study, ranked=(first, *rest))


def _following(setting: Setting, results: Sequence[Result], unranked: Unranked) -> tuple[Plan, ...]:
    """Of each way of drafting of which several numbers were asked for, the best plan with a number that follows the batch, where the
    engine has such."""
    ways: dict[tuple[str, str], list[tuple[Assessed, Plan, Drafting]]] = {}
    for run in results:
        if isinstance(run, Assessed) and isinstance(run.plan, Plan) and run.plan.draft and run.plan.lanes == 1 and not unranked(run):
            ways.setdefault((run.plan.draft.method, run.plan.draft.model), []).append((run, run.plan, run.plan.draft))
    found = list[Plan]()
    for (method, _), runs in ways.items():
        asked = {draft.tokens for *_, draft in runs}
        if len(asked) > 1 and follows(setting.engine, method) and not any(draft.by for *_, draft in runs):
            run, plan, _ = min(runs, key=lambda one: one[0].key)
            best = following(setting, plan, asked, run.drafts.batch if run.drafts else 1.0)
            found += [replace(plan, draft=best)] if best else []
    return tuple(found)


def _usual(setting: Setting, space: Space) -> Plan:
    """The heuristic plan in the format and at the clock that the search begins with."""
    first = space.plans[0] if space.plans else None
    heuristic = heuristic_plan(setting.model, setting.cluster, first.precision if first else None)
    return replace(heuristic, clock=first.clock, draft=first.draft) if first else heuristic


class _First:
    """Keeps the run of the plan that stands first so far, and drops those of the others where they fill memory."""

    def __init__(self, unranked: Unranked, many: bool) -> None:
        self.unranked, self.many = unranked, many
        self.best: Assessed | None = None
        self.key: tuple[Any, ...] = ()

    def keep(self, done: list[Result]) -> None:
        """Looks at the newest result."""
        newest = done[-1]
        if not self.many or not isinstance(newest, Assessed):
            return
        key = (self.unranked(newest), *newest.key)
        if self.best is None or key < self.key:
            loser, self.best, self.key = self.best, newest, key
        else:
            loser = newest
        if loser is not None:
            at = next(i for i, one in enumerate(done) if one is loser)
            done[at] = replace(loser, outcome=None)


def _run(
    work: Work,
    plans: Sequence[AnyPlan],
    keep: Callable[[list[Result]], None],
    *,
    workers: int,
    ray: str | None,
    progress: Progress | None,
    done: Sequence[Result] = (),
    seen: Seen | None = None,
) -> list[Result]:
    """The results of the plans after those that are done, of the first ones where the user interrupts; `keep` sees them after each."""
    found = [*done]
    with suppress(KeyboardInterrupt), closing(evaluated(work, plans, workers, ray)) as results:
        for plan, result in zip(plans, results):
            found.append(result)
            keep(found)
            if seen:
                seen(result)
            if progress:
                progress(len(found), len(done) + len(plans), plan.shorthand)
    return found


def _screening(
    setting: Setting, plans: tuple[AnyPlan, ...], goal: Goal, heuristic: Plan, unranked: Unranked, run: Callable[..., list[Result]]
) -> tuple[Screened, list[Rejected]]:
    """What a sample of a long trace says of the plans that will be ranked, and of the others; and those that do not fit."""
    part = None if goal.aims else sample(setting.workload, len(plans))  # what loses by the objective may be on a front
    if part is None:
        return Screened(plans), []
    found = run(partial(assess, replace(setting, workload=part), goal), plans, lambda done: None)
    if len(found) < len(plans):
        raise KeyboardInterrupt
    fitting = [x for x in found if isinstance(x, Assessed)]
    unfit = [x for x in found if isinstance(x, Rejected)]
    groups = [[x for x in fitting if unranked(x) is apart] for apart in (False, True)]
    return sum((screened(group, goal, heuristic) for group in groups if group), Screened(())), unfit


def _partial(study: Study, done: int, of: int) -> Study:
    """The study of an interrupted search, which says so."""
    *funnel, simulated = study.funnel
    left = Step("left by the interrupt", of - done, "not looked at")
    note = f"interrupted after {done} of {of} plans: a better one may be among the others"
    return replace(study, funnel=(*funnel, left, simulated), notes=(note, *study.notes), interrupted=(done, of))


def _study(setting: Setting, goal: Goal, fitting: list[Assessed], rejected: list[Rejected], space: Space | None, heuristic: Plan) -> Study:
    order = sorted(fitting, key=lambda run: run.key)
    usual = next((run for run in fitting if run.plan == heuristic), None)
    base = usual.value if usual and _tells(usual, goal.objective) else math.nan
    ratio, width = goal.objective.ratio, comparison_error(goal.objective.name)
    ranked = tuple(replace(run, ratio=ratio(run.value, base), tie=tie(run.value, order[0].value, width)) for run in order)
    clocked = any(plan.clock for plan in (space.all if space else [x.plan for x in fitting]))
    note, gpu = "" if usual else _heuristic_note(setting, heuristic), setting.cluster.gpu
    return Study(
        setting,
        goal,
        _funnel(space, fitting, rejected),
        ranked,
        tuple(rejected),
        heuristic.shorthand,
        note,
        (
            *_notes(setting, clocked),
            *_drafting(ranked),
            *as_priced(setting.model, [x.plan.precision for x in fitting], gpu.name, gpu.flops),
        ),
    )


def _tells(found: Assessed, objective: Objective) -> bool:
    """Whether a run's value is one to compare with: latencies of a queue that grows are not."""
    return not (found.metrics.saturated and objective.name in LATENCIES)


def _heuristic_note(setting: Setting, heuristic: Plan) -> str:
    found = room(setting.model, heuristic, setting.cluster, setting.engine, setting.max_model_len)
    return f"the heuristic plan {heuristic.shorthand} does not fit: {found.reason}" if isinstance(found, Rejected) else ""


def _funnel(space: Space | None, fitting: list[Assessed], rejected: list[Rejected]) -> tuple[Step, ...]:
    """Enumerated → rejected by each rule → simulated."""
    if space is None:
        return (Step("simulated", len(fitting)),)
    names = list(dict.fromkeys([*(rule for rule, _ in space.funnel), *(r.rule for r in rejected)]))
    rows = [Step("enumerated", space.enumerated)]
    for name in names:
        hit = [r for r in rejected if r.rule == name]
        if hit:
            rows.append(Step(name, len(hit), f"{hit[0].shorthand}: {hit[0].reason}"))
    return (*rows, Step("simulated", len(fitting)))


def _drafting(ranked: tuple[Assessed, ...]) -> tuple[str, ...]:
    """What the best plan of each way of drafting was simulated with, and when it pays."""
    drafting = [run for run in ranked if run.drafts and not run.blocked] or [run for run in ranked if run.drafts]
    best = {str(run.plan.draft): run for run in reversed(drafting)}
    return tuple(told(run.plan.shorthand, run.drafts) for run in drafting if run.drafts and best[str(run.plan.draft)] is run)


FITTED = "speeds fitted on served runs of DeepSeek-R1 on MI300X and MI355X with SGLang (docs/devices.md); two runs of your own tell more"


def _notes(setting: Setting, clocked: bool) -> tuple[str, ...]:
    work, notes = setting.workload, list(setting.model.notes)
    notes += work.notes
    if work.block:
        notes.append(_reuse(setting))
    gpu = setting.cluster.gpu
    if clocked:
        notes.append("speed and power at locked clocks are estimates, nothing measured (docs/power.md)")
    if not gpu.kernels:
        where = f"times transferred from {gpu.borrow} to its own peaks" if gpu.borrow else "all from the stated roofline"
        where = FITTED if setting.pricer.bank.fitted else where
        notes.append(f"no measured kernels for {gpu.name}: {where}")
    notes += [f"{gpu.name}: {note}" for note in gpu.notes]
    notes += [calibrated_note(setting)] if setting.profile else []
    return tuple(dict.fromkeys(notes))


def _reuse(setting: Setting) -> str:
    """What becomes of common prefixes."""
    ideal = f"an unlimited cache would hold {ideal_hit(setting.workload):.1%} of the prompt tokens"
    if setting.engine.reuse and setting.workload.block:
        return f"prefix caching is on: {ideal}"
    return f"prefix reuse ignored; {ideal}"


def _why_nothing_fits(setting: Setting, space: Space, rejected: list[Rejected]) -> tuple[str, str]:
    """The widest plan's shortage, and the smallest change that would fit."""
    if not space.plans:
        return f"no way to split {setting.model.name} over {setting.cluster.size} GPUs", _examples(rejected)
    widest = max(space.plans, key=lambda p: (p.attention.tp * p.ffn.tp * p.stages, p.attention.tp))
    found = room(setting.model, widest, setting.cluster, setting.engine, setting.max_model_len)
    reason = found.reason if isinstance(found, Rejected) else "no plan fits"
    gpu = setting.cluster.gpu
    head = f"{setting.model.name} fits on no plan of {setting.cluster.size} × {gpu.name}: {widest.shorthand}: {reason}"
    return head, nearest_fit(setting, widest)


def _examples(rejected: list[Rejected]) -> str:
    return "; ".join(f"{r.shorthand}: {r.reason}" for r in rejected[:2])


def nearest_fit(setting: Setting, plan: Plan) -> str:
    """The smallest change that would fit: 8- or 4-bit weights on the same GPUs, or more of them (doubling)."""
    found = []
    for fmt in ("fp8", "int4"):
        slim = replace(plan, precision=replace(plan.precision, weights=(), default=fmt))
        if _fits(setting, slim, setting.cluster) and not (has_server(setting) and blocked(setting, slim)):
            found.append(f"with --weight-dtype {fmt}")
            break
    size = setting.cluster.size
    while size < MOST_GPUS:
        size *= 2
        cluster = Cluster(setting.cluster.gpu, min(size, max(8, setting.cluster.per_node)), max(1, size // 8))
        wider = [p for p in candidates(setting.model, cluster, plan.precision).plans if p.replicas == p.lanes == p.ffn.dp == 1]
        fitting = [p for p in wider if _fits(setting, p, cluster)]
        if fitting:
            found.append(f"as {fitting[0].shorthand} on {size} × {cluster.gpu.name}")
            break
    return f"it would fit {' or '.join(found)}" if found else f"not even {MOST_GPUS} of these GPUs would hold it"


def _nearest_of(setting: Setting, plan: AnyPlan) -> str:
    """The same of the pool that does not fit."""
    for own, pool in zip(setting.of(plan), pools_of(plan)):
        if not _fits(own, pool, own.cluster):
            return nearest_fit(own, pool)
    return ""


def _fits(setting: Setting, plan: Plan, cluster: Cluster) -> bool:
    return not isinstance(room(setting.model, plan, cluster, setting.engine, setting.max_model_len), Rejected)
