"""Laws of the answer: what is a tie, how wide an error bar is and what widens it, who comes first, what carries over from a run."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import apexsim
from apexsim.cost.account import Account
from apexsim.cost.power import power_spread
from apexsim.doubt import SIGMA
from apexsim.errors import Infeasible
from apexsim.hardware import Cluster, load_gpu
from apexsim.metrics import measure
from apexsim.model.families import load_model
from apexsim.objective import OBJECTIVES, chance_of, overrun, parse_objective
from apexsim.plan.plan import parse_plan
from apexsim.plan.space import candidates, heuristic_plan, stage_layers
from apexsim.search.error import certainty, comparison_error, doubt_of, error_of, kind_of, news, signature
from apexsim.search.evaluate import Evaluation, evaluate
from apexsim.search.study import Study

MADE = {"prompt_len": 300, "output_len": 40, "num_requests": 40}
POWER = ("energy", "wall-energy")


@cache
def study(objective: str = "e2e", **asked: Any) -> Study:
    """Plans of a small model on four GPUs."""
    return apexsim.plan("llama-3.1-8b", gpu="h100-sxm", gpus=4, objective=objective, **{**MADE, "request_rate": 8.0, **asked})


# ---- ties ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["e2e", "ttft", "tpot:p99", "throughput", "cost", "energy", "wall-energy"])
def test_what_a_comparison_cannot_tell_apart_is_a_tie(objective: str) -> None:
    found = study(objective)
    width, best = comparison_error(objective.partition(":")[0]), found.ranked[0].value
    assert found.ranked[0].tie
    for row in found.ranked:
        assert row.tie == (abs(math.log(row.value) - math.log(best)) <= width), row.plan.shorthand


def test_there_are_ties_and_there_are_differences() -> None:
    """A law of ties that no study meets would hold nothing."""
    rows = [row.tie for name in ("e2e", "ttft", "throughput", "energy") for row in study(name).ranked[1:]]
    assert True in rows and False in rows


@pytest.mark.parametrize("objective", ["e2e", "tpot", "throughput", "energy"])
def test_plans_stand_in_the_order_of_their_values(objective: str) -> None:
    found, sign = study(objective), parse_objective(objective).sign
    keeping = [row for row in found.ranked if not row.metrics.saturated]
    assert [sign * row.value for row in keeping] == sorted(sign * row.value for row in keeping)
    assert all(row.value == parse_objective(objective).value(row.metrics) for row in found.ranked)


# ---- error bars ---------------------------------------------------------------------------------------------------------


def spent(**shares: float) -> Account:
    """An account in which nothing but provenance matters."""
    return Account((), 1.0, 0.0, tuple(shares.items()), 0.0, 0.0, 0.0, 0.0, "")


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_power_widens_the_bars_of_energy_and_of_nothing_else(name: str) -> None:
    kind, setting = {"ttft": "ttft", "queue": "ttft", "tpot": "tpot", "itl": "tpot"}.get(name, "e2e"), study().setting
    run, pair = power_spread() if name in POWER else (0.0, 0.0)
    usual, found = (
        doubt_of({"e2e": "throughput"}.get(kind, kind), setting, spent(measured=1.0)),
        doubt_of(name, setting, spent(measured=1.0)),
    )
    assert found.offset == usual.offset and found.rest == pytest.approx(math.hypot(usual.rest, run / SIGMA))
    assert comparison_error(name) == pytest.approx(math.hypot(certainty()["comparison"][kind], pair))


@pytest.mark.parametrize("name", ["ttft", "e2e", "energy"])
def test_bars_widen_with_the_share_that_was_not_measured(name: str) -> None:
    setting = study().setting
    bars = [error_of(name, setting, spent(measured=1.0 - share, transferred=share)) for share in (0.0, 0.3, 0.6, 1.0)]
    assert bars == sorted(bars) and bars[0] < bars[-1]
    both, one = spent(measured=0.2, transferred=0.5, roofline=0.3), spent(measured=0.2, roofline=0.8)
    assert error_of(name, setting, both) == pytest.approx(error_of(name, setting, one))


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
def test_bars_widen_with_everything_that_is_new(engine: str) -> None:
    seen = certainty()["seen"][engine]
    gpu, release = seen["gpus"][0], seen["releases"][-1]
    known = apexsim.plan("llama-3.1-8b", gpu=gpu, gpus=2, engine=f"{engine}@{release}", **MADE).setting
    assert news(known) == (("model",) if signature(known.model) not in seen["models"] else ())
    other = replace(known, cluster=Cluster(load_gpu("rtx-4090"), 2))
    assert set(news(other)) == {*news(known), "gpu"}
    for name in ("ttft", "tpot", "e2e"):
        assert doubt_of(name, other, spent(measured=1.0)).offset >= doubt_of(name, known, spent(measured=1.0)).offset
        assert doubt_of(name, other, spent(measured=1.0)).rest == doubt_of(name, known, spent(measured=1.0)).rest


def test_an_engine_that_nobody_measured_has_the_widest_bars() -> None:
    setting = study().setting
    other = replace(setting, engine=replace(setting.engine, server=replace(setting.engine.server, name="toy")))
    assert set(news(other)) == {"model", "gpu", "release"}
    for name in ("ttft", "tpot", "e2e"):
        assert error_of(name, other, spent(measured=1.0)) >= error_of(name, setting, spent(measured=1.0))


def test_a_study_shows_the_bar_of_its_objective() -> None:
    for name in ("e2e", "energy"):
        found = study(name)
        assert found.error[1] == comparison_error(name)
        assert found.error[0] == error_of(name, found.setting, found.ranked[0].account)


# ---- limits -------------------------------------------------------------------------------------------------------------


def test_plans_that_miss_a_limit_stand_behind_those_that_keep_it() -> None:
    times = sorted(row.metrics.latency("tpot", "p95") for row in study().ranked)
    middle = max(pairwise(times), key=lambda pair: pair[1] - pair[0])
    limit = sum(middle) / 2
    found = study(slos=(f"tpot:p95={limit * 1e3:.6f}ms",))
    kept = [row.metrics.latency("tpot", "p95") <= limit for row in found.ranked]
    assert kept == sorted(kept, reverse=True) and {True, False} == set(kept)
    assert [row.keeps for row in found.ranked] == kept


@pytest.mark.parametrize("risk", [0.01, 0.05, 0.2, 0.5])
def test_a_risk_ranks_last_what_misses_its_limit_more_often(risk: float) -> None:
    times = sorted(row.metrics.latency("tpot", "p95") for row in study().ranked)
    found = study(slos=(f"tpot:p95={times[len(times) // 2] * 1.02e3:.6f}ms",), risk=risk)
    for row in found.ranked:
        assert row.keeps == (row.limits[0].chance >= 1.0 - risk - 1e-9), row.plan.shorthand
    assert [row.keeps for row in found.ranked] == sorted((row.keeps for row in found.ranked), reverse=True)


def test_less_risk_keeps_fewer_plans_and_none_lets_the_median_decide() -> None:
    limit = (f"tpot:p95={sorted(row.metrics.latency('tpot', 'p95') for row in study().ranked)[-1] * 1.05e3:.6f}ms",)
    keeping = [sum(row.keeps for row in study(slos=limit, risk=risk).ranked) for risk in (0.01, 0.1, 0.3, 0.5)]
    assert keeping == sorted(keeping)
    none = study(slos=limit)
    assert all(row.keeps == (row.limits[0].measured <= row.limits[0].limit) for row in none.ranked)
    assert keeping[-1] == sum(row.keeps for row in none.ranked), "half the runs lie under the median"


def limited(share: float, *names: str) -> tuple[str, ...]:
    """Limits on p95, each `share` above what the middle plan reaches."""
    reached = {name: sorted(row.metrics.latency(name, "p95") for row in study().ranked) for name in names}
    return tuple(f"{name}:p95={values[len(values) // 2] * (1 + share) * 1e3:.6f}ms" for name, values in reached.items())


@pytest.mark.parametrize("risk", [0.0, 0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("names", [("tpot",), ("tpot", "e2e"), ("ttft", "tpot"), ("ttft", "queue", "tpot", "itl", "e2e")])
def test_a_plan_keeps_its_limits_where_it_keeps_them_all_often_enough(risk: float, names: tuple[str, ...]) -> None:
    """Together, not each: and without a risk where the median of each does."""
    for share in (0.05, 0.2, 0.4):
        found = study(slos=limited(share, *names), risk=risk)
        for row in found.ranked:
            each = [m.chance for m in row.limits]
            assert max(0.0, sum(each) - len(each) + 1.0) - 1e-9 <= row.chance <= min(each) + 1e-12
            wanted = row.chance >= 1.0 - risk - 1e-9 if risk else all(m.measured <= m.limit for m in row.limits)
            assert row.keeps == wanted, row.plan.shorthand
            assert row.keeps <= all(m.kept for m in row.limits), "what is kept together is kept alone"


def test_how_far_limits_are_missed_together_is_how_much_more_they_would_have_to_allow() -> None:
    """Also where each alone is kept often enough."""
    between = 0
    for share in (0.2, 0.25, 0.3, 0.35, 0.4, 0.5):
        for row in study(slos=limited(share, "ttft", "tpot"), risk=0.1).ranked:
            over = overrun(row.limits)
            assert (over == 0.0) == row.keeps and chance_of(row.limits) == row.chance
            if over:
                assert over >= 1.0 and chance_of(row.limits, over) == pytest.approx(0.9, abs=1e-6)
                between += all(m.kept for m in row.limits)
    assert between, "no plan lies between"


def test_no_risk_is_too_small_to_be_answered() -> None:
    for row in study(slos=limited(0.2, "ttft", "tpot"), risk=1e-17).ranked:
        assert not row.keeps and math.isfinite(overrun(row.limits))


def test_latencies_of_one_kind_go_wrong_together() -> None:
    """So a second limit of a kind costs no chance, and one of another kind does."""
    alone, alike, other = (study(slos=limited(0.1, *names)).ranked for names in (("tpot",), ("tpot", "itl"), ("tpot", "ttft")))
    at = {row.plan.shorthand: row for row in alone}
    for row in alike:
        assert row.chance == min(m.chance for m in row.limits)
    assert any(row.chance < at[row.plan.shorthand].chance for row in other)


@pytest.mark.parametrize("risk", [0.05, 0.3])
def test_what_size_finds_is_what_the_plan_keeps(risk: float) -> None:
    """The rate that a plan is said to hold at a risk is kept at that risk by `simulate`'s rule, and all limits together decide."""
    found = apexsim.size("llama-3.1-8b", gpu="h100-sxm", gpus=1, find="rate", ttft=100, tpot=10, risk=risk, **{**MADE, "num_requests": 200})
    best = found.best
    assert best is not None and best.run.keeps and best.run.chance >= 1.0 - risk - 1e-9
    easy = apexsim.size("llama-3.1-8b", gpu="h100-sxm", gpus=1, find="rate", ttft=100, tpot=10, **{**MADE, "num_requests": 200})
    assert easy.best is not None and best.value <= easy.best.value


@pytest.mark.parametrize("model", ["llama-3.1-8b", "openai--gpt-oss-20b"])
def test_dense_models_and_those_with_experts_have_bars_of_their_own(model: str) -> None:
    setting = apexsim.plan(model, gpu="h100-sxm", gpus=1, **MADE).setting
    kind = kind_of(setting.model)
    assert kind == ("dense" if model.startswith("llama") else "experts")
    assert doubt_of("tpot", setting, spent(measured=1.0)).rest == certainty()["vllm"][kind]["tpot"]["rest"]


# ---- what crosses from question to run ----------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["TP1", "2×TP2", "PP2×TP1"])
def test_metrics_are_those_of_the_run(plan: str) -> None:
    found = apexsim.simulate("llama-3.1-8b", plan, gpu="h100-sxm", gpus=parse_plan(plan).devices, request_rate=8.0, price=3.5, **MADE)
    row = found.ranked[0]
    run = evaluate(found.setting, row.plan)
    assert isinstance(run, Evaluation) and row.plan.shorthand == plan
    again = measure(run.outcome, found.setting.workload, devices=row.plan.devices)
    assert again.ttft == row.metrics.ttft and again.e2el == row.metrics.e2el and again.duration_s == row.metrics.duration_s
    assert row.metrics.usd_h == 3.5 and row.metrics.devices == row.plan.devices
    energy, work = row.metrics.energy, found.setting.workload
    assert energy.span == pytest.approx(run.outcome.finish.max() - run.outcome.sent.min())
    assert (energy.prompt_tokens, energy.output_tokens, energy.requests) == (work.prompt.sum(), work.output.sum(), work.size)
    per_hour, tokens_per_hour = 3.5 * row.plan.devices, row.metrics.output_throughput_tok_s * 3600.0
    assert row.metrics.usd_per_million == pytest.approx(per_hour / (tokens_per_hour / 1e6))


def test_users_of_a_closed_loop_wait_for_their_answers() -> None:
    found = apexsim.simulate("llama-3.1-8b", "TP1", gpu="h100-sxm", gpus=1, concurrency=3, **MADE).ranked[0].outcome
    alive = [int(((found.sent < t - 1e-9) & (found.finish > t)).sum()) for t in found.finish[:-1]]
    assert max(alive) <= 3 and max(alive) >= 2 and (np.sort(found.sent)[:3] == 0).all() and found.sent.max() > 0


def test_whoever_is_least_busy_gets_the_next_request_where_so_routed() -> None:
    asked = {"gpu": "h100-sxm", "gpus": 2, "request_rate": 20.0, "length_spread": 0.9, **MADE}
    both = (apexsim.simulate("llama-3.1-8b", "2×TP1", route=r, **asked) for r in ("round-robin", "least-outstanding"))
    turn, least = (found.ranked[0].outcome for found in both)
    assert (turn.replica == np.arange(len(turn.replica)) % 2).all() and (turn.replica != least.replica).any()
    for i in range(len(least.replica)):
        busy = [int(((least.replica[:i] == r) & (least.finish[:i] > least.sent[i])).sum()) for r in (0, 1)]
        assert busy[int(least.replica[i])] == min(busy)


# ---- the plan to compare with -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 8])
def test_the_heuristic_has_a_stage_for_each_node_while_layers_last(layers: int) -> None:
    model = load_model("llama-3.1-8b")
    short = replace(model, stacks=(replace(model.decoder, layers=model.decoder.layers[:layers]),))
    for nodes in (1, 2, 4):
        plan = heuristic_plan(short, Cluster(load_gpu("h100-sxm"), 2, nodes))
        assert plan.stages == max(d for d in (1, 2, 4) if nodes % d == 0 and not d > layers)
        assert plan.devices == 2 * nodes and plan in candidates(short, Cluster(load_gpu("h100-sxm"), 2, nodes)).plans


@pytest.mark.parametrize(("layers", "stages"), [(7, 3), (32, 5), (61, 16), (4, 4), (9, 1)])
def test_the_last_stage_has_no_more_layers_than_the_one_before(layers: int, stages: int) -> None:
    """It holds the head too; the remainder goes to the stages before it, last ones first."""
    dealt = stage_layers(layers, stages)
    assert sum(dealt) == layers and max(dealt) - min(dealt) <= 1 and dealt[-1] == layers // stages
    assert list(dealt[:-1]) == sorted(dealt[:-1])


def test_nothing_that_fits_is_said_with_the_shortage() -> None:
    with pytest.raises(Infeasible, match="GiB short"):
        apexsim.plan("llama-3.1-70b", gpu="h100-sxm", gpus=1, **MADE)
