"""The answer in a few plain sentences, before anything else (floor 6).

Which plan, whether it keeps the limits and by what margin, what it costs, how sure that is; or that no plan keeps them, or
that nothing keeps up with the load, and what would help.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from apexsim.cost.books import told
from apexsim.objective import Margin
from apexsim.report.draw import percent, sig
from apexsim.report.figures import held, left, listed, objective_short, reached, scale_of, sentence
from apexsim.search.assess import Assessed
from apexsim.search.error import error_of, news
from apexsim.search.setting import Setting
from apexsim.search.startable import has_server, others
from apexsim.search.study import Study
from apexsim.workload.load import mean_rate

SURE = "two of three real runs should lie within ±{} of the prediction{}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer.  keeps: every limit, None where there is none; saturated: the plan does not keep up with the load."""

    sentences: tuple[str, ...]
    plan: str
    keeps: bool | None
    saturated: bool
    limits: tuple[Margin, ...]

    @property
    def text(self) -> str:
        """All sentences."""
        return " ".join(self.sentences)


def verdict(study: Study) -> Verdict:
    """The answer of a study."""
    first = study.ranked[0]
    limits = first.limits
    tell = _missed if not first.keeps else _saturated if first.metrics.saturated else _fine
    told_ = tuple(s for s in (*_how_it_comes(study), *tell(study, first, limits)) if s)
    return Verdict(told_, first.plan.shorthand, first.keeps if limits else None, first.metrics.saturated, limits)


def also(study: Study) -> str:
    """One line about the plans that the engine cannot be started with; "" where there are none."""
    first, engine = study.ranked[0], study.setting.engine
    if first.blocked and study.single and has_server(study.setting):
        able = listed(others(study.setting, first.plan), "or")
        return f"{engine.name} cannot be started with it: {first.blocked}{f'; {able} can' if able else ''}"
    if not has_server(study.setting):
        return f"{engine.name} is a batching policy without a server: all plans are ranked, none can be started as it is"
    count = len(study.hypothetical) + study.beaten
    layouts = f"{count} layout{'s' * (count > 1)} that {engine.name} cannot start"
    worse = f"{layouts} {'are' if count > 1 else 'is'} no better: --hypothetical"
    if not study.hypothetical:
        return worse if count else ""
    best = study.hypothetical[0]
    able = listed(others(study.setting, best.plan), "or")
    who = f"{able} can" if able else "no engine can"
    gain = study.goal.objective.ratio(best.value, first.value)
    better = best.key[:2] <= first.key[:2]  # limits, then load
    if best.keeps and not first.keeps:
        return f"{layouts}: {best.plan.shorthand} keeps the limits ({who} start it): --hypothetical"
    if better and gain > 1.0 + study.error[1] and math.isfinite(gain):
        return f"{layouts} {'are' if count > 1 else 'is'} up to {gain:.2f}× better ({best.plan.shorthand}; {who}): --hypothetical"
    return worse


def load_words(study: Study) -> str:
    """The load: at 4 requests/s, with 64 users."""
    work = study.setting.workload
    if work.mode == "closed":
        return f"with {work.concurrency:,} user{'s' * (work.concurrency > 1)}"
    if work.mode == "open" and (study.inputs.get("request_rate") or math.isfinite(mean_rate(work.arrive))):
        return f"at {_rate(study)} requests/s"
    return f"with {work.size:,} request{'s' * (work.size > 1)} at once"


def _rate(study: Study) -> str:
    given = study.inputs.get("request_rate")
    rate = mean_rate(study.setting.workload.arrive)
    return f"{given:g}" if given else sig(rate) if math.isfinite(rate) else "all its"


def _how_it_comes(study: Study) -> list[str]:
    work = study.setting.workload
    if work.mode != "offline":
        return []
    whose = "the trace has no arrival times" if "trace" in study.inputs else "neither --request-rate nor --concurrency is given"
    why = "as asked" if study.inputs.get("request_rate") else whose
    return [f"All {work.size:,} requests come at once ({why}): this measures throughput, not the latency of a service."]


# ---- the three answers --------------------------------------------------------------------------------------------


def _fine(study: Study, first: Assessed, limits: tuple[Margin, ...]) -> list[str]:
    load = f" {load_words(study)}" if study.setting.workload.mode != "offline" else ""
    standing = f"{objective_short(study.goal.objective)} {reached(study, first, error=True)}"
    name = first.plan.shorthand
    if limits:
        head = f"{name} keeps {_number(limits)}{load}: " + "; ".join(f"{held(study, m)} ({left(m)})" for m in limits) + "."
        return [head, _among(study, standing), _counted(study, first), _cost(study, first), sure(study, first, limits)]
    if study.single:
        head = f"{name} {'keeps up' if study.setting.workload.mode == 'open' else 'reaches'}{load}: {standing}{_pace(study, first)}."
    else:
        head = f"{name} is the best {_of_how_many(study)}{load}: {standing}{_pace(study, first)}."
    return [head, _beside(study, first), _counted(study, first), _cost(study, first), sure(study, first, limits)]


def _missed(study: Study, first: Assessed, limits: tuple[Margin, ...]) -> list[str]:
    missed = [m for m in limits if not m.kept] or list(limits)  # where each is kept often enough, but not all together
    names = listed([m.name for m in (missed if len(limits) > 1 and study.single else limits)])
    head = f"{first.plan.shorthand} does not keep {names}" if study.single else f"No plan keeps {names}"
    who = "" if study.single or len(study.ranked) == 1 else f"the nearest, {first.plan.shorthand}, has "
    how = "; ".join(f"{held(study, m)} ({left(m)})" for m in missed) + together(first)
    full = [_served(study, first)] if first.metrics.saturated else []
    return [f"{head} {load_words(study)}: {who}{how}.", *full, _helps(study), _counted(study, first), sure(study, first, limits)]


def together(ranked: Assessed) -> str:
    """How often all limits are kept, where each alone is kept often enough; else ""."""
    if not all(m.kept for m in ranked.limits):
        return ""
    return f"; {percent(ranked.chance)} of real runs keep {_number(ranked.limits)}, {percent(1.0 - ranked.limits[0].risk)} are to"


def _saturated(study: Study, first: Assessed, limits: tuple[Margin, ...]) -> list[str]:
    return [_served(study, first), _helps(study), _cost(study, first)]


def _served(study: Study, first: Assessed) -> str:
    """What is served of the load, at most."""
    able = [first] if study.single else study.ranked
    most = max(able, key=lambda r: r.metrics.request_throughput_per_s)
    gpus = study.setting.cluster
    return (
        f"{gpus.size} × {gpus.gpu.name} serve {sig(most.metrics.request_throughput_per_s, 2)} of {_rate(study)} requests/s "
        f"({most.plan.shorthand}): the queue grows as long as requests come, so latencies only say how long this lasted."
    )


def _helps(study: Study) -> str:
    kept = next((r for r in study.ranked[1:] if r.keeps and not r.metrics.saturated), None) if study.single else None
    also_ = f"{kept.plan.shorthand}, the usual plan, {'does' if study.goal.slos else 'keeps up'}. " if kept else ""
    return (also_ + _remedies(study)).strip()


def _remedies(study: Study) -> str:
    if study.remedies:
        words = listed([r.words if study.single else f"{r.words} ({r.shorthand})" for r in study.remedies], "or")
        return f"Would help, each simulated: {words}."
    if study.setting.workload.mode == "offline" and study.goal.slos:
        return "Limits on latency mean little when all requests come at once: give --request-rate or --concurrency."
    rest = "faster GPUs, shorter prompts or looser limits are left"
    return f"Simulated and not enough: {listed(study.tried)}; {rest}." if study.tried else ""


# ---- the parts of an answer -----------------------------------------------------------------------------------------


def _number(limits: tuple[Margin, ...]) -> str:
    return {1: limits[0].name, 2: "both limits"}.get(len(limits), f"all {len(limits)} limits")


def _of_how_many(study: Study) -> str:
    count, engine = len(study.ranked), study.setting.engine
    if any(r.blocked for r in study.ranked) or not has_server(study.setting):
        return f"of {count} plans"
    return f"of {count} plans that {engine.name} can start" if count > 1 else f"(and only) plan that {engine.name} can start"


def _among(study: Study, standing: str) -> str:
    """How many plans keep the limits, and what ranks them."""
    count = len(study.ranked)
    if study.single:
        return f"Its {standing}."
    keeping = [r for r in study.ranked if r.keeps and not r.metrics.saturated]
    who = f" that {study.setting.engine.name} can start" if has_server(study.setting) and not any(r.blocked for r in study.ranked) else ""
    if count == 1:
        return f"It is the only plan{who}: {standing}."
    many = (
        f"{'All' if len(keeping) == count else f'{len(keeping)} of'} {count} plans{who} keep{'s' * (len(keeping) == 1)} "
        f"{'it' if len(study.ranked[0].limits) == 1 else 'them'}"
    )
    tied = _tied(study)
    return f"{many}; this one has the best {standing}{f', a tie with {tied}' if tied else ''}."


def _tied(study: Study) -> str:
    first = study.ranked[0]
    same = [r.plan.shorthand for r in study.ranked[1:] if ties(first, r)]
    return listed(same) if len(same) <= 2 else f"{len(same)} others"


def ties(first: Assessed, other: Assessed) -> bool:
    """Whether another plan is as good as the first, as far as a prediction can tell."""
    good = all(r.tie and r.keeps and not r.metrics.saturated for r in (first, other))
    return good and bool(first.blocked) == bool(other.blocked)


def _beside(study: Study, first: Assessed) -> str:
    """The best plan against the others."""
    if study.single:
        return _against(study, first)
    tied, words = _tied(study), []
    if math.isfinite(first.ratio) and first.ratio > 1.0 + study.error[1]:
        words.append(f"it is {first.ratio:.2f}× better than the usual plan, {study.heuristic}")
    if tied:
        words.append(f"{tied} {'are' if ' ' in tied else 'is'} a tie with it")
    text = "; ".join(words)
    return sentence(text) if text else ""


def _against(study: Study, first: Assessed) -> str:
    """One plan against the usual one."""
    if first.plan.shorthand == study.heuristic or not math.isfinite(first.ratio):
        return ""
    better = first.ratio if first.ratio >= 1.0 else 1.0 / first.ratio
    if better <= 1.0 + study.error[1]:
        return f"It is a tie with the usual plan, {study.heuristic}."
    return f"It is {better:.2f}× {'better' if first.ratio >= 1.0 else 'worse'} than the usual plan, {study.heuristic}."


def _pace(study: Study, first: Assessed) -> str:
    """What a user of the service feels, and what it puts out."""
    objective, words = study.goal.objective, []
    for metric, title in (("ttft", "TTFT"), ("tpot", "TPOT")):
        value = first.metrics.latency(metric, "p95")
        if study.setting.workload.mode != "offline" and math.isfinite(value) and objective.name != metric:
            words.append(f"{title} p95 {scale_of(study, metric)(value)}")
    if study.setting.workload.mode != "open" and objective.name != "throughput":
        words.append(f"{sig(first.metrics.output_throughput_tok_s)} output tokens/s")
    return "".join(f", {word}" for word in words)


def _counted(study: Study, first: Assessed) -> str:
    """Limits of each request."""
    each = [str(s) for s in study.goal.slos if s.per_request]
    if not each:
        return ""
    share, goodput = percent(first.metrics.attainment), sig(first.metrics.goodput_req_s)
    return f"{share} of its requests keep {listed(each)}: goodput {goodput} requests/s."


def _cost(study: Study, ranked: Assessed) -> str:
    usd, book = ranked.metrics.usd_h, study.setting.price[1]
    if not math.isfinite(usd):
        return ""
    gpus = ranked.metrics.devices
    return f"It costs ${sig(usd * gpus)} per hour, ${sig(ranked.metrics.usd_per_million)} per million output tokens ({told(book)})."


def sure(study: Study, ranked: Assessed, limits: tuple[Margin, ...]) -> str:
    """How far to believe it, and which limits are nearer than that."""
    error = _error_of(study, ranked)
    close = [m for m in limits if abs(m.share) < error(m.metric)]
    text = SURE.format(percent(study.error[0]), unmeasured(study.setting))
    if not close:
        return sentence(text)
    names = listed([m.name for m in close])
    widest = max(error(m.metric) for m in close)
    nearer = f"{names} {'is' if len(close) == 1 else 'are'} nearer than the error of a prediction (±{percent(widest)})"
    return f"{nearer}: measure before you rely on it."


def unmeasured(setting: Setting) -> str:
    """What about a question stands outside the measurements behind the error bars: "; its model and GPU are in none of …"."""
    names = {"model": "model", "gpu": "GPU", "release": "engine release"}
    new = [names[what] for what in news(setting)]
    return f"; the {listed(new)} {'is' if len(new) == 1 else 'are'} in none of the measurements behind it" if new else ""


def _error_of(study: Study, ranked: Assessed) -> Callable[[str], float]:
    return lambda metric: error_of(metric, study.setting, ranked.account)
