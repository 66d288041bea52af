"""A Study as JSON: plain values, units in the keys, the same bytes for the same study (floor 6).

Nothing that depends on the machine or the hour is written; numbers that are not finite become null.
"interrupted" is null, or how many plans were looked at, of how many, when the user stopped the search.
History of the format: apexsim.study/1, the first; apexsim.study/2: `ranked` holds what the engine can be started with and
no more, limits are spelled ttft:p95=1s, the ratio to a heuristic plan that does not keep up with the load is null,
`error_bars` was `error`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from apexsim.cost.account import Account
from apexsim.cost.books import books, typed
from apexsim.doubt import intervals
from apexsim.drafting import Drafting
from apexsim.model.count import active_parameters, total_parameters
from apexsim.objective import OBJECTIVES, Margin, Objective
from apexsim.plan.memory import Room, log_lines
from apexsim.plan.plan import Layout, Plan
from apexsim.report.apart import launched
from apexsim.report.beforeafter import before_json
from apexsim.report.frontpage import front_json
from apexsim.report.further import tuned_json, turns_json
from apexsim.report.layout import layouts
from apexsim.report.plain import clean
from apexsim.report.pools import worth_words
from apexsim.report.stacks import stacks
from apexsim.report.verdict import verdict
from apexsim.report.wiring import cluster_json
from apexsim.search.assess import Assessed, Side
from apexsim.search.error import doubt_of
from apexsim.search.front import of_study
from apexsim.search.setting import Setting
from apexsim.search.startable import others
from apexsim.search.study import FORMAT, Study
from apexsim.workload.columns import ideal_hit


def study_json(study: Study) -> dict[str, Any]:
    """The whole study as plain values."""
    ranked = [_ranked(study.setting, each) for each in study.ranked]
    return clean(
        {
            "format": FORMAT,
            "inputs": study.inputs,
            "understood": _understood(study.setting),
            "objective": str(study.goal.objective),
            "value_unit": value_unit(study.goal.objective),
            "slos": [str(slo) for slo in study.goal.slos],
            "power_cap_w": study.goal.power_cap,
            "risk": study.goal.risk,
            "heuristic": {"shorthand": study.heuristic, "note": study.heuristic_note},
            "error_bars": {"objective": study.error[0], "comparison": study.error[1]},
            "funnel": [asdict(step) for step in study.funnel],
            "verdict": verdict_json(study),
            "worth": worth_json(study),
            "best": next((made for made, each in zip(ranked, study.ranked) if each is study.best), None),
            "ranked": ranked,
            "pareto": front_json(of_study(study)) if study.goal.aims else None,
            "tuned": tuned_json(study),
            "against": before_json(study),
            "sensitivity": turns_json(study),
            "hypothetical": hypothetical_json(study),
            "rejected": rejected_rules(study),
            "interrupted": dict(zip(("done", "of"), study.interrupted)) if study.interrupted else None,
            "notes": list(study.notes),
        }
    )


def worth_json(study: Study) -> dict[str, Any] | None:
    """What pools of their own for prompts and tokens are worth; null where plans of one kind are ranked."""
    worth = study.worth
    if worth is None:
        return None
    gain = study.goal.objective.ratio(worth.apart.value, worth.together.value)
    return {
        "sentence": worth_words(study), "apart": worth.apart.plan.shorthand, "together": worth.together.plan.shorthand, "gain": gain,
        "error": study.error[1], "points": [asdict(point) for point in worth.points],
    }  # fmt: skip


def verdict_json(study: Study) -> dict[str, Any]:
    """The answer: sentences, the plan that they speak of, whether it keeps every limit and by how much, and what would help."""
    found = verdict(study)
    return {
        "sentences": list(found.sentences), "plan": found.plan, "keeps": found.keeps, "saturated": found.saturated,
        "limits": [margin_json(m) for m in found.limits], "chance": study.ranked[0].chance if found.limits else None,
        "would_help": [{"change": r.words, "plan": r.shorthand, "inputs": dict(r.changes)} for r in study.remedies],
        "not_enough": list(study.tried),
    }  # fmt: skip


def margin_json(margin: Margin) -> dict[str, Any]:
    """One limit and how it fared."""
    unit, scale = ("W", 1.0) if margin.metric == "power" else ("ms", 1e3)
    return {"limit": margin.name, "kept": margin.kept, "margin": margin.share, "allowed": margin.limit * scale,
            "measured": margin.measured * scale, "chance": margin.chance, "unit": unit}  # fmt: skip


def hypothetical_json(study: Study) -> dict[str, Any] | None:
    """The simulated plans that the engine cannot be started with, in short; null where there are none."""
    apart = study.hypothetical or tuple(r for r in study.ranked if r.blocked)
    if not apart:
        return None
    first, best = apart[0], study.best
    gain = study.goal.objective.ratio(first.value, best.value) if best else math.nan
    return {
        "count": len(apart) + study.beaten, "ranked": not study.hypothetical, "best": first.plan.shorthand, "value": first.value,
        "ratio_to_best": gain, "keeps_constraints": first.keeps, "startable_by": list(others(study.setting, first.plan)),
        "reason": first.blocked,
    }  # fmt: skip


def value_unit(objective: Objective) -> str:
    """The unit of `value` of a ranked plan: that of the objective, in SI."""
    row = OBJECTIVES[objective.name]
    return "s" if row.stats else row.unit


def error_json(code: int, kind: str, message: str, where: str, hint: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Why a command failed, beside what it found out before; nearest: what would be feasible."""
    told = {"code": code, "kind": kind, "message": message, "where": where or None, "hint": hint or None}
    nearest = {"nearest": hint or None} if kind == "infeasible" else {}
    return {**record, "error": told | nearest}


def rejected_rules(study: Study) -> list[dict[str, Any]]:
    """How many plans each rule turned away, with one example."""
    counts = Counter(r.rule for r in study.rejected)
    first = {r.rule: r for r in reversed(study.rejected)}
    return [{"rule": rule, "count": n, "example": f"{first[rule].shorthand}: {first[rule].reason}"} for rule, n in counts.items()]


def _understood(setting: Setting) -> dict[str, Any]:
    model, work, row = setting.model, setting.workload, setting.engine
    return {
        "model": {
            "name": model.name,
            "family": model.family,
            "total_parameters": total_parameters(model),
            "active_parameters": active_parameters(model),
            "layers": len(model.decoder.layers),
            "hidden": model.hidden,
        },
        "cluster": cluster_json(setting.cluster),
        "workload": {
            "name": work.name,
            "mode": work.mode,
            "requests": work.size,
            "concurrency": work.concurrency,
            "warmup": work.warmup,
            "prompt_tokens_mean": float(work.prompt.mean()),
            "prompt_tokens_max": int(work.prompt.max()),
            "output_tokens_mean": float(work.output.mean()),
            "output_tokens_max": int(work.output.max()),
            "last_arrival_s": float(work.arrive[-1]),
            "ideal_hit": ideal_hit(work),
        },
        "engine": {
            "name": row.name,
            "version": row.version,
            "asked_version": row.asked or None,
            "released": row.released or None,
            "max_model_len": setting.max_model_len,
            "max_num_seqs": row.max_num_seqs,
            "max_num_batched_tokens": row.max_num_batched_tokens,
            "gpu_memory_utilization": row.memory_fraction,
            "block_size": row.block_size,
            "chunked_prefill": bool(row.chunk),
            "max_capture": row.max_capture,
            "route": setting.router.name,
        },
        "price": _price(setting),
    }


def _price(setting: Setting) -> dict[str, Any] | None:
    """What a GPU costs and by which book; None where no book has a price."""
    usd, name = setting.price
    book = books().get(name)
    known = {typed(key): usd for key, usd in setting.cluster.gpu.prices.items()}
    if not math.isfinite(usd) and not known:
        return None
    told = {"book": typed(name), "owners_cost": bool(book and book.owner), "date": book.date if book else None}
    return {"usd_per_gpu_h": usd, **told, "books": known}


def _ranked(setting: Setting, ranked: Assessed) -> dict[str, Any]:
    started = launched(setting, ranked.plan)
    return {
        "plan": None if ranked.split else plan_json(ranked.only.plan),
        "pools": [pool_json(own, side) for own, side in zip(setting.of(ranked.plan), ranked.sides)] if ranked.split else None,
        "first_token": wait_json(ranked),
        "shorthand": ranked.plan.shorthand,
        "value": ranked.value,
        "ratio_to_heuristic": ranked.ratio,
        "keeps_constraints": ranked.keeps,
        "tie_with_best": ranked.tie,
        "limits": [margin_json(margin) for margin in ranked.limits],
        "chance": ranked.chance if ranked.limits else None,
        "intervals": intervals_json(setting, ranked),
        "room": room_json(ranked.room),
        "metrics": ranked.metrics.to_json(),
        "account": account_json(ranked.account),
        "provenance": dict(ranked.account.provenance),
        "layout": layouts(setting, ranked.sides[-1].plan, ranked.sides[-1].stages),
        "launch": started.script or None,
        "launch_commands": list(started.commands),
        "launch_with": stacks(setting, ranked.plan),
        "not_runnable": ranked.blocked or None,
        "launch_notes": list(started.notes),
        "series": ranked.series.to_json(),
        "drafts": asdict(ranked.drafts) if ranked.drafts else None,
        **({"headroom": asdict(ranked.headroom)} if ranked.headroom else {}),
    }


def intervals_json(setting: Setting, ranked: Assessed) -> dict[str, Any]:
    """Factors between which measured over predicted lies in 68, 80 and 95 of 100 runs, by metric, with the two parts of the doubt."""
    found = {}
    for name in ("ttft", "tpot", "itl", "e2e", "throughput", "energy"):
        doubt = doubt_of(name, setting, ranked.account)
        found[name] = {"offset": doubt.offset, "rest": doubt.rest, **intervals(1.0, doubt)}
    return found


def pool_json(setting: Setting, side: Side) -> dict[str, Any]:
    """One pool of a plan of two."""
    row = setting.engine
    return {
        "role": side.role, "gpu": setting.cluster.gpu.name, "plan": plan_json(side.plan), "shorthand": side.plan.shorthand,
        "max_num_seqs": row.max_num_seqs, "max_num_batched_tokens": row.max_num_batched_tokens, "block_size": row.block_size,
        "room": room_json(side.room), "account": account_json(side.account), "layout": layouts(setting, side.plan, side.stages),
    }  # fmt: skip


def wait_json(ranked: Assessed) -> dict[str, float] | None:
    """Where the mean time to the first token goes [ms], of a plan of two pools."""
    wait = ranked.wait
    return None if wait is None else {f"{name}_ms": 1e3 * value for name, value in asdict(wait).items()}


def _draft(draft: Drafting) -> dict[str, Any]:
    by = [{"to": end or None, "tokens": k} for end, k in draft.by]
    return {"method": draft.method, "tokens": draft.tokens, "model": draft.model or None, "by_batch": by}


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan by its factors."""
    precision = plan.precision
    return {
        "replicas": plan.replicas,
        "stages": plan.stages,
        "attention": _layout(plan.attention),
        "ffn": _layout(plan.ffn),
        "devices": plan.devices,
        "clock_mhz": plan.clock or None,
        "draft": _draft(plan.draft) if plan.draft else None,
        "precision": {
            "weights": precision.default,
            "weights_by_part": dict(precision.weights),
            "activation": precision.activation,
            "kv": precision.kv,
        },
    }


def _layout(layout: Layout) -> dict[str, int]:
    return {"dp": layout.dp, "tp": layout.tp, "ep": layout.ep}


def room_json(room: Room) -> dict[str, Any]:
    """What fits, in bytes and tokens."""
    return {
        "kv_bytes": room.kv_bytes,
        "kv_bytes_range": list(room.kv_range),
        "blocks": room.blocks,
        "block_size": room.block_size,
        "tokens": room.tokens,
        "max_concurrency": room.max_concurrency,
        "max_model_len": room.max_model_len,
        "stage": room.stage,
        "ledger_bytes": dict(room.ledger),
        "log": list(log_lines(room)),
    }


def account_json(account: Account) -> dict[str, Any]:
    """Where the time went: group-seconds of all stages of all replicas."""
    return {
        "seconds": dict(account.seconds),
        "busy_s": account.busy,
        "idle_s": account.idle,
        "flop_per_gpu": account.flop,
        "bytes_per_gpu": account.nbytes,
        "mfu": account.mfu,
        "mbu": account.mbu,
        "bottleneck": str(account.bottleneck),
    }
