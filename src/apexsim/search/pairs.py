"""Plans of two pools that are worth simulating: layouts of both, counts near balance (floor 5).

Every server is priced alone (`search.workers`).  Of each size those stay that no other beats in rate and in latency.  For each pair of
them all counts that use every GPU are estimated: the time of a prompt with the queue in front of it (M/D/n, Kingman's approximation),
the time of a token at the batch that the load makes, and the requests per second at which the slower pool is full.  The best by that
estimate, and the nearest to balance, are simulated in full; the others are told in the funnel.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from apexsim.drafting import Drafting
from apexsim.errors import Rejected
from apexsim.plan.plan import Plan, Precision
from apexsim.plan.space import Space
from apexsim.plan.split import Split, clocked
from apexsim.plan.splits import refused, straddles, unsplittable, workers
from apexsim.search.goal import Goal
from apexsim.search.setting import Setting
from apexsim.search.workers import Worker, decode_worker, prefill_worker
from apexsim.workload.load import mean_rate
from apexsim.workload.trace import Workload

FULL = 12  # plans that are simulated for their estimate …
BALANCED = 4  # … and for their capacity
UNFIT, BEATEN, FAR = "a pool has no room", "slower server of its size", "pools estimated far behind"
ROUNDS = 30  # of the fixed point of a closed loop


@dataclass(frozen=True, slots=True)
class Estimate:
    """A plan of two pools as its servers alone tell.  most: requests per second; ttft, tpot [s]; load: share of `most` that comes."""

    plan: Split
    most: float
    ttft: float
    tpot: float
    e2e: float
    load: float


def with_splits(setting: Setting, space: Space, goal: Goal, *, hypothetical: bool = False) -> Space:
    """The space with the plans of two pools that are worth it, in its formats and clocks, with its ways of drafting."""
    kinds = dict.fromkeys((plan.precision, plan.clock, plan.draft) for plan in space.plans)
    chosen: list[Split] = []
    left: list[Rejected] = []
    for precision in dict.fromkeys(kind[0] for kind in kinds):
        _, clocks, drafts = (dict.fromkeys(each) for each in zip(*(kind for kind in kinds if kind[0] == precision)))
        found = _of_format(setting, precision, tuple(drafts), goal, hypothetical, left)
        chosen += [made for clock in clocks for plan in found if isinstance(made := clocked(plan, clock), Split)]
    counts: dict[str, int] = defaultdict(int)
    for one in left:
        counts[one.rule] += 1
    return replace(space, splits=tuple(chosen), rejected=(*space.rejected, *left), funnel=(*space.funnel, *counts.items()))


def _of_format(
    setting: Setting, precision: Precision, drafts: tuple[Drafting | None, ...], goal: Goal, hypothetical: bool, left: list[Rejected]
) -> list[Split]:
    """Plans of one number format that are worth simulating, of each way of drafting; the others are left, with the reason.

    Layouts that lose without drafts lose with them: their servers are priced with the first way of drafting alone."""
    first, last = (replace(pool, workload=setting.workload) for pool in setting.pools)
    before = _best_of_size(_priced(_layouts(first, precision, hypothetical), prefill_worker, first, "prefill", left), "prefill", left)
    layouts = [replace(plan, draft=drafts[0]) for plan in _layouts(last, precision, hypothetical)]
    after = _best_of_size(_priced(layouts, decode_worker, last, "decode", left), "decode", left)
    found = _worth_it(setting, before, after, goal, hypothetical, left)
    for draft in drafts[1:]:
        layouts = [replace(worker.plan, draft=draft) for worker in after]
        found += _worth_it(setting, before, _priced(layouts, decode_worker, last, "decode", left), goal, hypothetical, left)
    return found


def _worth_it(
    setting: Setting, before: Sequence[Worker], after: Sequence[Worker], goal: Goal, hypothetical: bool, left: list[Rejected]
) -> list[Split]:
    """Of the plans that servers of both roles make, those that their estimates put first."""
    made = [_estimate(setting.workload, pair, plan) for pair, plan in _matched(setting, before, after, hypothetical)]
    order = sorted(made, key=lambda one: _score(one, goal))
    kept = dict.fromkeys(order[:FULL] + sorted(made, key=lambda one: -one.most)[:BALANCED])
    left += [Rejected(FAR, _behind(one, order[0]), one.plan.shorthand) for one in order if one not in kept]
    return [one.plan for one in kept]


def _layouts(setting: Setting, precision: Precision, hypothetical: bool) -> list[Plan]:
    """Servers of one role."""
    return [*workers(setting.model, setting.cluster, precision, setting.engine, hypothetical=hypothetical)]


def _priced(
    plans: Iterable[Plan], price: Callable[[Setting, Plan], Worker | Rejected], setting: Setting, role: str, left: list[Rejected]
) -> list[Worker]:
    """Those that have room, each priced alone."""
    kept = []
    for plan in plans:
        found = price(setting, plan)
        if isinstance(found, Rejected):
            left.append(Rejected(UNFIT, f"{role}: {found.reason}", plan.shorthand, found.short_bytes))
        else:
            kept.append(found)
    return kept


def _best_of_size(found: Iterable[Worker], role: str, left: list[Rejected]) -> list[Worker]:
    """The servers of one role that no other of their size beats."""
    sizes: dict[int, list[Worker]] = defaultdict(list)
    for worker in found:
        sizes[worker.size].append(worker)
    kept = []
    for found_of_size in sizes.values():
        for worker in found_of_size:
            better = next((other for other in found_of_size if worker.beaten(other)), None)
            if better is None:
                kept.append(worker)
            else:
                why = f"{role}: {worker.rate:.3g} requests/s a server, {better.plan.shorthand} {better.rate:.3g}"
                left.append(Rejected(BEATEN, why, worker.plan.shorthand))
    return kept


Pair = tuple[Worker, Worker]


def _matched(setting: Setting, before: Iterable[Worker], after: Sequence[Worker], hypothetical: bool) -> Iterator[tuple[Pair, Split]]:
    """Every pair of servers, in all counts that use every GPU of the cluster."""
    size = setting.cluster.size
    first, last = setting.pools
    for p in before:
        for d in after:
            for count in range(1, size // p.size + 1):
                rest = size - count * p.size
                if rest < d.size or rest % d.size:
                    continue
                plan = Split(replace(p.plan, replicas=count), replace(d.plan, replicas=rest // d.size))
                where = (setting.model, plan, first.engine, last.engine, setting.connector)
                if refused(*where) or straddles(plan, setting.cluster) or (not hypothetical and unsplittable(*where)):
                    break  # holds for every count, or for all that follow
                yield (p, d), plan


# ---- what to expect ---------------------------------------------------------------------------------------------------


def _estimate(work: Workload, pair: Pair, plan: Split) -> Estimate:
    """What a plan comes to, from what its servers do alone."""
    p, d = pair
    few, many = plan.prefill.replicas, plan.decode.replicas
    most, output = min(few * p.rate, many * d.rate), float(work.output.mean())

    def at(rate: float) -> tuple[float, float]:
        used = min(rate / (few * p.rate), 0.999)
        wait = used ** math.sqrt(2.0 * (few + 1.0)) / (2.0 * few * (1.0 - used)) / p.rate  # M/D/n: half of M/M/n (Sakasegawa 1977)
        return wait + p.alone, d.pace(output * rate / many)

    def whole(rate: float) -> float:
        ttft, tpot = at(rate)
        return ttft + (output - 1.0) * tpot

    rate = _rate(work, most, whole)
    return Estimate(plan, most, *at(min(rate, most)), whole(min(rate, most)), rate / most)


def _rate(work: Workload, most: float, spent: Callable[[float], float]) -> float:
    """Requests per second that come: of a closed loop as many as its users make."""
    if work.mode == "open":
        rate = mean_rate(work.arrive)
        return rate if math.isfinite(rate) else math.inf
    if work.mode != "closed":
        return math.inf
    rate = most
    for _ in range(ROUNDS):
        rate = 0.5 * (rate + min(most, work.concurrency / (spent(rate) + work.think)))
    return rate


READ: dict[str, Callable[[Estimate], float]] = {
    "ttft": lambda one: one.ttft, "queue": lambda one: one.ttft, "tpot": lambda one: one.tpot, "itl": lambda one: one.tpot,
    "e2e": lambda one: one.e2e,
}  # fmt: skip


def _score(one: Estimate, goal: Goal) -> tuple[float, bool, float]:
    """Sorts estimates, best first: by limits missed, load, objective."""
    limits = [READ[slo.metric](one) / slo.limit_s for slo in goal.slos if slo.metric in READ and not slo.kind]
    over, name = max([1.0, *limits]), goal.objective.name
    full = one.load > 1.0
    served = -min(1.0, one.load) * one.most
    latency = READ[name](one) if name in READ else one.e2e
    return over, full, latency if name in READ and not full else served + 1e-9 * latency


def _behind(one: Estimate, best: Estimate) -> str:
    return (
        f"{one.most:.3g} requests/s at most, E2E of {one.e2e:.3g} s, from its servers alone; {best.plan.shorthand}: {best.most:.3g}, "
        f"{best.e2e:.3g} s"
    )
