"""Objectives: reading, values, and the order they put plans in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from apexsim.errors import InputError
from apexsim.metrics import Metrics, measure
from apexsim.objective import margins, parse_objective, rank_key
from apexsim.slo import parse_slo, parse_slos
from apexsim.stats import Stats
from test_metrics import outcome_of, workload_of

SLOS = parse_slos(["ttft<1500ms", "e2e:max<4s"])


@pytest.fixture
def metrics() -> Metrics:
    out = outcome_of([0, 0], [0, 0], [1, 2], [3, 4])
    return measure(out, workload_of(out, 3), devices=2, slos=SLOS)


@pytest.mark.parametrize(
    ("text", "printed", "value", "better"),
    [
        ("e2e", "e2e:mean", 3.5, "lower"), ("E2EL:max", "e2e:max", 4.0, "lower"),
        ("ttft:p50", "ttft:p50", 1.5, "lower"),
        ("tpot:median", "tpot:p50", 1.0, "lower"),
        ("itl:p95", "itl:p95", 1.0, "lower"), ("queue", "queue:mean", 0.0, "lower"),
        ("throughput", "throughput", 1.5, "higher"), ("goodput", "goodput", 0.25, "higher"),
    ],
)  # fmt: skip
def test_objectives_read_print_and_evaluate(metrics, text, printed, value, better):
    objective = parse_objective(text, SLOS)
    assert (str(objective), objective.better) == (printed, better)
    assert objective.value(metrics) == pytest.approx(value)
    assert parse_objective(printed, SLOS) == objective


@pytest.mark.parametrize("text", ["", "latency", "e2e:", "e2e:p42", "throughput:p99", "goodput", "e2e:mean:p50"])
def test_bad_objectives_are_input_errors(text):
    with pytest.raises(InputError):
        parse_objective(text)


def test_goodput_needs_a_limit_for_each_request():
    with pytest.raises(InputError, match="ttft:500"):
        parse_objective("goodput", parse_slos(["ttft:p95<500ms"]))


def test_an_objective_that_no_request_has_is_an_input_error(metrics):
    with pytest.raises(InputError, match="one output token"):
        parse_objective("tpot").value(replace(metrics, tpot=Stats()))


def test_constraints_come_before_saturation_and_saturation_before_the_value(metrics):
    e2e, limit = parse_objective(), (parse_slo("ttft:max<1900ms"), parse_slo("tpot<1ms"))
    fast = replace(metrics, ttft=Stats(max=1.0))
    runs = {
        "A": replace(fast, e2el=Stats(mean=9.0)),
        "B": replace(fast, e2el=Stats(mean=5.0)),
        "C": replace(fast, e2el=Stats(mean=5.0)),
        "D": replace(fast, e2el=Stats(mean=1.0), saturated=True),
        "E": replace(metrics, e2el=Stats(mean=0.1)),
    }
    order = sorted(runs, key=lambda name: rank_key(runs[name], e2e, margins(runs[name], limit), name))
    assert order == ["B", "C", "A", "D", "E"]
    assert [m.name for m in margins(runs["E"], limit) if not m.kept] == ["ttft:max=1900ms"]


def test_plans_that_miss_are_in_the_order_of_how_far_they_miss(metrics):
    limits = (parse_slo("ttft:max=1s"),)
    runs = {name: replace(metrics, ttft=Stats(max=worst), e2el=Stats(mean=e2e))
            for name, worst, e2e in (("far", 9.0, 1.0), ("near", 1.1, 5.0), ("kept", 0.9, 9.0))}  # fmt: skip
    order = sorted(runs, key=lambda name: rank_key(runs[name], parse_objective(), margins(runs[name], limits), name))
    assert order == ["kept", "near", "far"]


def test_a_margin_is_the_share_of_the_limit_that_is_left(metrics):
    (found,) = margins(replace(metrics, ttft=Stats(p95=0.25)), (parse_slo("ttft:p95=1s"), parse_slo("ttft=1ms")))
    assert (found.share, found.kept, found.name) == (0.75, True, "ttft:p95=1s")
    power = margins(metrics, (), 300.0)[0]
    assert power.metric == "power" and power.kept and power.share == 1.0  # nothing is known of it


def test_more_throughput_ranks_first_and_a_ratio_above_one_is_better(metrics):
    throughput = parse_objective("throughput")
    slow = replace(metrics, duration_s=2 * metrics.duration_s)
    assert rank_key(metrics, throughput) < rank_key(slow, throughput)
    assert throughput.ratio(3.0, 1.5) == parse_objective("e2e").ratio(1.5, 3.0) == 2.0
    assert all(np.isfinite(x) for x in rank_key(slow, throughput)[:3])


# ---- cost ---------------------------------------------------------------------------------------------------------------


def test_rent_per_million_tokens_is_price_times_gpus_over_throughput():
    import apexsim

    asked = {"gpu": "h100-sxm", "gpus": 2, "prompt_len": 256, "output_len": 64, "num_requests": 48, "objective": "cost"}
    study = apexsim.plan("llama-3.1-8b", **asked, price="2.5")
    best = study.ranked[0]
    assert best.value == pytest.approx(2.5 * 2 / 3600 / best.metrics.output_throughput_tok_s * 1e6)
    assert [r.value for r in study.ranked] == sorted(r.value for r in study.ranked)
    assert "at $5.00/h for 2 GPUs ($2.50 each, given)" in " ".join(apexsim.render(study).split())
    booked = apexsim.plan("llama-3.1-8b", **asked, price="on-demand")
    assert booked.setting.price == (2.95, "on_demand")


def test_an_unknown_price_is_said_so():
    import apexsim

    asked = {"gpus": 1, "prompt_len": 16, "output_len": 4, "num_requests": 4, "objective": "cost"}
    with pytest.raises(InputError, match="give price"):
        apexsim.plan("llama-3.1-8b", gpu="h100-nvl", **asked)
    for bad in ("cheap", "-1", "nan", "inf"):
        with pytest.raises(InputError, match="price book"):
            apexsim.plan("llama-3.1-8b", gpu="h100-sxm", **asked, price=bad)
