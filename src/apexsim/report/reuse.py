"""What prefix caching came to: hits, what a cold replica reads, from which length on a pull pays, stages and classes (floor 6)."""

from __future__ import annotations

import math
from dataclasses import replace

from apexsim.errors import Rejected
from apexsim.metrics import ClassMetrics, Metrics, measure
from apexsim.offload import Tier
from apexsim.plan.memory import Room
from apexsim.report.draw import change, percent, sig
from apexsim.report.page import Row
from apexsim.search.assess import Assessed
from apexsim.search.evaluate import evaluate, peak_prefill
from apexsim.search.setting import Setting
from apexsim.units import format_seconds
from apexsim.validate.facts import facts
from apexsim.workload.columns import ideal_hit

COMPARED = 50_000  # requests up to which a run without prefix caching is simulated beside
PULLED = "openai--gpt-oss-120b"  # of the measured pulls those between single servers


def crossover(room: Room, peak: float) -> float:
    """Tokens from which a prefix is pulled from a peer sooner than it is computed; infinite where never.

    latency + tokens · bytes / rate = tokens / peak, with the latency [s] and rate [byte/s] of data/measured.toml; bytes are those of
    one GPU, since all of a replica's pull at once.
    """
    pull = next(fact for fact in facts()["pull"] if fact["when"]["config"] == PULLED)
    saved = 1.0 / peak - room.kv_bytes / max(room.tokens, 1) / pull["bytes_s"]
    return float(pull["latency_s"]) / saved if saved > 0 else math.inf


def reuse_rows(setting: Setting, ranked: Assessed) -> list[Row]:
    """Hits beside those of an unlimited cache; the speed at which a cold replica reads, as routers ask for it."""
    metrics = ranked.metrics
    if not math.isfinite(metrics.prefix_hit):
        return []
    ideal = ideal_hit(setting.workload)
    told = f"{percent(metrics.prefix_hit)} of the prompt tokens; an unlimited cache that all share would hold {percent(ideal)}"
    saved = _saved(setting, ranked)
    peak = math.nan if ranked.split else peak_prefill(setting, ranked.only.plan)
    if not math.isfinite(peak):
        return [("prefix hits", told), *saved, *_tier_rows(setting, ranked, peak)]
    least = crossover(ranked.room, peak)
    pays = f"pays from {least:,.0f} tokens on" if math.isfinite(least) else "never pays"
    cold = f"a cold replica reads {sig(peak, 3)} prompt tokens/s in chunks of 8,192 (llm-d: peakPrefillThroughput)"
    return [("prefix hits", told), *saved, ("", f"{cold}; pulling a prefix from a peer {pays}"), *_tier_rows(setting, ranked, peak)]


def _saved(setting: Setting, ranked: Assessed) -> list[Row]:
    """What prefix caching saves: the same plan, simulated without it."""
    if ranked.split or not setting.engine.reuse or setting.workload.size > COMPARED:
        return []
    bare = replace(setting, engine=replace(setting.engine, reuse=0), offload=())
    found = evaluate(bare, ranked.only.plan)
    if isinstance(found, Rejected):
        return []
    now, before = ranked.metrics, measure(found.outcome, bare.workload, devices=ranked.plan.devices)
    pairs = (("mean E2E", before.e2el.mean, now.e2el.mean), ("TTFT p95", before.ttft.p95, now.ttft.p95))
    told = ", ".join(f"{name} {format_seconds(a)} → {format_seconds(b)} ({change(b, a)})" for name, a, b in pairs)
    return [("", f"what caching does, each simulated (without → with): {told}")]


def worth_loading(tier: Tier, room: Room, gpus: int, block: int, peak: float) -> float:
    """Tokens from which a prefix is loaded from a tier sooner than it is computed; infinite where never.

    latency + tokens · (bytes / rate + block cost / block) = tokens / peak; bytes of one GPU from the host, of all from elsewhere.
    """
    token = room.kv_bytes / max(room.tokens, 1) * (1 if tier.kind == "cpu" else gpus) / tier.rate + tier.block / block
    saved = 1.0 / peak - token
    return tier.latency / saved if saved > 0 else math.inf


def _tier_rows(setting: Setting, ranked: Assessed, peak: float) -> list[Row]:
    """What tiers gave, and from which length on a load from each is sooner than computing."""
    if not setting.offload:
        return []
    told = f"{percent(ranked.metrics.prefix_loaded)} of the prompt tokens were loaded"
    if ranked.split:
        named = ", ".join(f"{tier.kind} of {tier.size / 1e9:,.4g} GB" for tier in setting.offload)
        return [("tiers", f"{told}; each server has {named}")]
    plan = ranked.only.plan
    for tier in setting.offload:
        least = worth_loading(tier, ranked.room, plan.attention.tp * plan.stages, ranked.room.block_size, peak)
        far = f"pays from {least:,.0f} tokens on" if least > ranked.room.block_size else "always pays"
        pays = "" if math.isnan(least) else f", {far if math.isfinite(least) else 'never pays'}"
        told += f"; {tier.kind} of {tier.size / 1e9:,.4g} GB at {tier.rate / 1e9:.3g} GB/s{pays}"
    return [("tiers", told)]


def class_rows(metrics: Metrics) -> list[Row]:
    """One row for each class of requests."""
    return [(kind.name, f"{kind.requests:,} requests: {_class_words(kind)}") for kind in metrics.kinds]


def _class_words(kind: ClassMetrics) -> str:
    if not kind.requests:
        return "none that is measured"
    times = [
        f"{name} p50 {format_seconds(stats.median)}, p95 {format_seconds(stats.p95)}"
        for name, stats in (("TTFT", kind.ttft), ("TPOT", kind.tpot), ("E2E", kind.e2el))
    ]
    good = (
        [] if math.isnan(kind.attainment) else [f"{percent(kind.attainment)} within their limits: goodput {sig(kind.goodput_req_s)} req/s"]
    )
    return "; ".join([*times, *good])


def stage_rows(metrics: Metrics) -> list[Row]:
    """One row for each stage."""
    return [
        (
            f"{sig(rung.rate, 3)} req/s",
            f"{rung.requests:,} requests in {format_seconds(rung.duration_s)}: {rung.output_tok_s:,.0f} tok/s, "
            f"TTFT p50 {format_seconds(rung.ttft.median)}, p95 {format_seconds(rung.ttft.p95)}, E2E mean {format_seconds(rung.e2el.mean)}",
        )
        for rung in metrics.stages
    ]
