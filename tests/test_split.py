"""Plans of two pools: their names, which are worth simulating, what they are worth, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apexsim import api
from apexsim.cli.main import main
from apexsim.cost.tables import host_for
from apexsim.errors import InputError
from apexsim.plan.plan import Precision, parse_plan
from apexsim.plan.split import Split, parse_any, parse_split
from apexsim.plan.splits import straddles, unsplittable
from apexsim.report.jsonout import study_json
from apexsim.report.plain import dumps
from apexsim.report.schema import schema_of
from apexsim.report.text import render
from apexsim.search import pairs, workers, worth
from apexsim.search.assess import assess
from apexsim.search.goal import Goal
from apexsim.search.setting import Setting
from apexsim.search.study import Study

MODEL = "llama-3.1-8b"
ASKED: dict[str, Any] = {"gpu": "h100-sxm", "gpus": 4, "prompt_len": 2000, "output_len": 100, "num_requests": 120, "request_rate": 8.0}
EIGHT = ("--gpu", "h100:4", "--prompt-len", "500", "--output-len", "20", "--num-requests", "20")

# ---- names -----------------------------------------------------------------------------------------------------------

SHAPES = st.sampled_from(["TP1", "TP4", "2×TP2", "DEP8", "TEP4", "PP2×TP4", "3×DP2TP2/TP4", "TP8@fp8", "2×TP2@810MHz", "TP4@fp8@1410MHz"])
DRAFTS = st.sampled_from(["", "+mtp:3", "+ngram:2"])
GPUS = st.sampled_from(["", "h100-sxm", "h200-sxm", "mi300x"])


@given(SHAPES, SHAPES, GPUS, GPUS, DRAFTS)
def test_a_name_is_read_back(first: str, last: str, gpu: str, other: str, drafts: str) -> None:
    name = f"{first}{f'@{gpu}' if gpu else ''}+{last}{f'@{other}' if other else ''}{drafts}"
    plan = parse_split(name)
    assert plan.shorthand == name and parse_split(plan.shorthand) == plan and plan.gpus == (gpu, other)
    assert plan.devices == parse_any(first).devices + parse_any(last).devices
    assert parse_any(name.replace("×", "x")) == plan


def test_a_count_of_one_says_nothing() -> None:
    assert parse_any("3xTP4+1xDEP8", Precision()) == parse_any("3×TP4+DEP8", Precision())


# ---- the search ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study() -> Study:
    return api.plan(MODEL, **ASKED, disaggregate=True)


def setting_of(**asked: Any) -> tuple[Setting, Precision, Goal]:
    setting, precision, goal, _ = api.ask(MODEL, **{**ASKED, "disaggregate": True, **asked})
    return setting, precision, goal


def test_plans_of_both_kinds_stand_in_one_ranking(study: Study) -> None:
    assert {run.split for run in study.ranked} == {True, False}
    assert [run.key for run in study.ranked] == sorted(run.key for run in study.ranked)
    assert all(run.plan.devices == run.metrics.devices == study.setting.cluster.size for run in study.ranked)


def test_plans_of_one_pool_are_as_without(study: Study) -> None:
    alone = {run.plan: run.metrics for run in api.plan(MODEL, **ASKED).ranked}
    assert {run.plan: run.metrics for run in study.ranked if not run.split} == alone


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_server_alone_takes_what_the_simulation_has_behind_its_front_end(engine: str) -> None:
    setting, _, goal = setting_of(engine=engine, num_requests=1, output_len=20)
    plan, host = parse_plan("TP1"), host_for(setting.engine)
    metrics = assess(setting, goal, plan).metrics
    prefill, decode = workers.prefill_worker(setting, plan), workers.decode_worker(setting, plan)
    assert prefill.alone == pytest.approx(metrics.ttft.mean - host.request - host.tokenise * setting.workload.prompt[0])
    assert decode.alone == pytest.approx(metrics.tpot.mean, rel=0.01)  # with as many tokens held as in the middle


QUESTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"objective": "throughput", "request_rate": float("inf")},
    {"objective": "ttft", "request_rate": 2.0},
    {"request_rate": None, "concurrency": 40, "objective": "tpot"},
)


@pytest.mark.parametrize("asked", QUESTIONS)
def test_what_is_left_out_is_no_better(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    setting, precision, goal = setting_of(**asked)
    space = api.space_of(setting, precision, {})
    chosen = pairs.with_splits(setting, space, goal).splits
    monkeypatch.setattr(pairs, "FULL", 10**6)
    monkeypatch.setattr("apexsim.search.workers.SLOWER", 10.0)
    every = pairs.with_splits(setting, space, goal).splits
    values = {plan: assess(setting, goal, plan) for plan in every}
    best, found = (min(values[plan].key for plan in plans) for plans in (every, chosen))  # type: ignore[union-attr]
    assert set(chosen) <= set(every) and found[:2] == best[:2]
    assert found[2] - best[2] <= 0.02 * abs(best[2])  # nearer than a comparison can tell


def test_the_funnel_counts_all(study: Study) -> None:
    counts = {step.name: step.count for step in study.funnel}
    assert counts["enumerated"] == sum(count for name, count in counts.items() if name != "enumerated")
    assert all(step.example for step in study.funnel if step.name in (pairs.BEATEN, pairs.FAR))


def test_no_server_straddles_nodes() -> None:
    setting, *_ = setting_of(gpus=6)
    assert straddles(parse_split("TP2+TP3"), setting.cluster) and not straddles(parse_split("TP3+TP3"), setting.cluster)
    assert not straddles(parse_split("2×TP2+TP2"), setting.cluster) and not straddles(parse_split("3×TP1+TP3"), setting.cluster)


# ---- what a run means ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
def test_the_way_to_the_first_token_adds_up(engine: str) -> None:
    found = api.simulate(MODEL, "2×TP1+TP2", **ASKED, engine=engine).ranked[0]
    assert found.wait is not None
    parts = [found.wait.queue, found.wait.prefill, found.wait.transfer, found.wait.slot, found.wait.step]
    assert sum(parts) == pytest.approx(found.metrics.ttft.mean) and min(parts) >= 0.0
    assert found.wait.prefill > 0.0 and found.wait.transfer > 0.0


def test_both_pools_are_accounted_for() -> None:
    found = api.simulate(MODEL, "2×TP1+TP2@h200-sxm", **{**ASKED, "gpus": 2}).ranked[0]
    first, last = found.sides
    assert (first.role, last.role) == ("prefill", "decode") and found.room is last.room
    assert found.account.busy == pytest.approx(first.account.busy + last.account.busy)
    alone = [api.ask(MODEL, **{**ASKED, "gpu": gpu})[0].price[0] for gpu in ("h100-sxm", "h200-sxm")]
    assert found.metrics.usd_h == pytest.approx(sum(alone) / 2) and found.metrics.devices == 4
    assert sum(dict(found.account.provenance).values()) == pytest.approx(1.0)


def test_a_pool_may_have_settings_of_its_own() -> None:
    few = api.simulate(MODEL, "2×TP1+2×TP1", **ASKED, decode_settings="max-num-seqs=2")
    many = api.simulate(MODEL, "2×TP1+2×TP1", **ASKED)
    assert [own.engine.max_num_seqs for own in few.setting.of(few.ranked[0].plan)] == [many.setting.engine.max_num_seqs, 2]
    assert few.ranked[0].metrics.ttft.mean > many.ranked[0].metrics.ttft.mean  # prompts wait for a place at decode


# ---- is it worth it? -------------------------------------------------------------------------------------------------


def test_what_it_is_worth_is_the_best_of_each_kind(study: Study) -> None:
    found = study.worth
    assert found is not None and found.apart.split and not found.together.split
    assert found.apart is next(run for run in study.ranked if run.split)
    assert found.together is next(run for run in study.ranked if not run.split)
    here = [point.gain for point in found.points if point.factor == 1.0]
    assert here == pytest.approx([found.together.value / found.apart.value] * 2)


def test_a_part_of_the_requests_keeps_the_load() -> None:
    closed, *_ = setting_of(request_rate=None, concurrency=300, num_requests=3000)
    part = worth._part(closed.workload)
    assert part.concurrency == 300 and part.size == worth.TURNS * 300 and part.warmup <= 300
    opened, *_ = setting_of(num_requests=3000)
    part = worth._part(opened.workload)
    assert part.size == worth.REQUESTS and (part.arrive == opened.workload.arrive[: part.size]).all()


def test_limits_decide_what_it_is_worth() -> None:
    found = api.plan(MODEL, **ASKED, disaggregate=True, slos=("tpot:p99=9ms",))
    assert found.worth is not None
    assert (found.worth.apart.key < found.worth.together.key) is found.ranked[0].split


def test_the_json_of_both_kinds_keeps_its_schema(study: Study) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is in the test extra")
    found = json.loads(dumps(study_json(study)))
    jsonschema.Draft202012Validator(schema_of("study")).validate(found)
    split = next(run for run in found["ranked"] if run["pools"])
    assert [pool["role"] for pool in split["pools"]] == ["prefill", "decode"] and split["plan"] is None
    assert sum(split["first_token"].values()) == pytest.approx(split["metrics"]["ttft_ms"]["mean"])
    assert found["worth"]["apart"] == split["shorthand"] and set(split["launch_with"]) == {"dynamo", "llm-d"}


def test_the_report_answers_whether_it_is_worth_it(study: Study) -> None:
    page = render(study, width=120)
    assert "worth it?" in page and "prompts on the servers A" in page
    alone = api.simulate(MODEL, "2×TP1+TP2", **ASKED)
    told = render(alone, width=120)
    assert "first token" in told and "2 servers of 1 × h100-sxm" in told and "--disaggregation" not in told and "vllm-router" in told


# ---- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words,told",
    [
        (["simulate", MODEL, *EIGHT, "--plan", "TP4", "--disaggregate"], "--disaggregate: the plan 'TP4' has one pool"),
        (["simulate", MODEL, *EIGHT, "--tp", "4", "--connector", "nixl"], "--connector: it has no effect: plans have one pool"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP4+"], "the decode pool of plan 'TP4+' is empty"),
        (["simulate", MODEL, *EIGHT, "--plan", "+TP4"], "the prefill pool of plan '+TP4' is empty"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+ngram:2+TP2"], "write drafts behind the decode pool"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+TP2+mtp:2"], "it cannot draft so"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+TP2", "--acceptance", "0.8"], "nothing is drafted"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP1+TP1+TP2"], "has 3 pools"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP4+TP4"], "takes 8 × h100-sxm, the cluster has 4; use --gpus 8"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP1+TP1"], "takes 2 of 4 × h100-sxm"),
        (["simulate", MODEL, *EIGHT, "--plan", "0×TP1+TP4"], "factor of 0"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+TP2", "--prefill-settings", "block-size=32"], "blocks of 32 tokens"),
        (["simulate", MODEL, *EIGHT, "--plan", "2xTP1+TP2", "--connector", "mooncake"], "wants the same tensor parallel size"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+TP2", "--connector", "carrier-pigeon"], "unknown connector"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+TP2", "--connector", "ucx"], "has no connector 'ucx'"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+TP2", "--decode-settings", "max-num-seqs"], "write NAME=VALUE"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+TP2", "--decode-settings", "lunch=1"], "has no setting 'lunch'"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+TP2", "--decode-settings", ","], "it names no setting"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2@warp9+TP2"], "unknown GPU 'warp9'"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2@h100@h200+TP2"], "names two GPUs"),
        (["plan", MODEL, *EIGHT, "--disaggregate", "--tp", "2"], "each pool has widths of its own"),
        (["plan", MODEL, *EIGHT, "--prefill-settings", "max-num-seqs=2"], "add --disaggregate"),
        (["plan", MODEL, *EIGHT, "--conditional-disagg", "2048"], "add --disaggregate"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+TP2", "--conditional-disagg", "2048,1.5"], "lies between 0 and 1"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+TP2", "--conditional-disagg", "soon"], "soon"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+TP2", "--conditional-disagg=-5"], "expected 0 or more, got -5"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+TP2", "--conditional-disagg", "1,0.5,0.4"], "cannot read '0.4'"),
        (["simulate", MODEL, *EIGHT, "--plan", "TP2+TP2", "--conditional-disagg", "9", "--engine", "sglang"], "use vllm"),
        (["plan", MODEL, "--disaggregate", "--gpu", "h100:1", *EIGHT[2:]], "one GPU holds one pool"),
        (["plan", "whisper", *EIGHT[:2], "--disaggregate", *EIGHT[2:]], "has an encoder"),
    ],
)
def test_contradictions_are_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert told in error and len(error.splitlines()) == 1


def test_a_pool_that_does_not_fit_names_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "llama-3.1-70b", *EIGHT, "--plan", "2xTP1+TP2"]) == 3
    error = capsys.readouterr().err.strip()
    assert "does not fit" in error and "it would fit" in error and len(error.splitlines()) == 1


def test_recurrent_state_is_handed_over_between_equals_only() -> None:
    model = "nvidia/NVIDIA-Nemotron-Nano-9B-v2"
    setting, precision, *_ = api.ask(model, **{**ASKED, "disaggregate": True})
    unequal, equal = (parse_split(text, precision) for text in ("2×TP1+TP2", "TP2+TP2"))
    rows = setting.engine, setting.engine
    assert unsplittable(setting.model, unequal, *rows) and not unsplittable(setting.model, equal, *rows)


def test_caches_of_two_formats_are_not_handed_over() -> None:
    setting, precision, _ = setting_of()
    plan = parse_split("TP2+TP2", precision)
    other = Split(plan.prefill, replace(plan.decode, precision=replace(precision, kv="fp8")))
    assert "cache in bf16" in unsplittable(setting.model, other, setting.engine, setting.engine)


def test_a_connector_that_is_no_word_is_an_input_error() -> None:
    with pytest.raises(InputError, match="unknown connector"):
        api.plan(MODEL, **ASKED, disaggregate=True, connector="smoke")
