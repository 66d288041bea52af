"""The answer comes first: laws of the page, the exit code and the JSON over all kinds of questions, on pages of any width."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from apexsim import api
from apexsim.cli import main
from apexsim.cli.notmodelled import NOT_MODELLED, SWITCHED_OFF, modelled, page
from apexsim.cli.options import flags_of_command
from apexsim.engines import servers
from apexsim.errors import Infeasible, InputError
from apexsim.model.families import load_model
from apexsim.plan.plan import parse_plan
from apexsim.plan.space import candidates, runnable
from apexsim.report.figures import scale_for, scale_of
from apexsim.report.jsonout import study_json
from apexsim.report.launch import launch
from apexsim.report.page import pasted
from apexsim.report.ranking import ranking, room_tokens
from apexsim.report.text import render
from apexsim.report.verdict import also, verdict
from apexsim.search.error import error_of
from apexsim.search.search import search
from apexsim.search.study import Study
from apexsim.slo import parse_slo

Capture = pytest.CaptureFixture[str]
SHORT = {"prompt_len": 300, "output_len": 30, "num_requests": 60}
DENSE, ROUTED = {"gpu": "h100-sxm", "gpus": 8, **SHORT}, {"gpu": "h200-sxm", "gpus": 8, **SHORT}
SINGLE = {**DENSE, "gpus": 1}
QUESTIONS: dict[str, Callable[[], Study]] = {
    "dense": lambda: api.plan("llama-3.3-70b", **DENSE, request_rate=4.0),
    "dense, kept": lambda: api.plan("llama-3.3-70b", **DENSE, request_rate=4.0, slos=("ttft:p95=1s", "tpot:p95=60ms")),
    "experts": lambda: api.plan("deepseek-r1", **ROUTED, request_rate=4.0),
    "experts, all": lambda: api.plan("deepseek-r1", **ROUTED, request_rate=4.0, hypothetical=True),
    "saturated": lambda: api.plan("llama-3.3-70b", **{**DENSE, "gpus": 2}, request_rate=200.0),
    "saturated, missed": lambda: api.plan("llama-3.3-70b", **{**DENSE, "gpus": 2}, request_rate=200.0, slos=("ttft:p95=100ms",)),
    "missed": lambda: api.plan("llama-3.3-70b", **DENSE, request_rate=4.0, slos=("ttft:p95=5ms", "itl:p99=1ms", "e2e:p50=2ms")),
    "counted": lambda: api.plan("llama-3.3-70b", **DENSE, request_rate=4.0, slos=("ttft=100ms", "tpot=20ms"), objective="goodput"),
    "power": lambda: api.plan("llama-3.1-8b", **{**DENSE, "gpus": 2}, request_rate=4.0, power_cap=150.0, clock="810,1980"),
    "users": lambda: api.plan("llama-3.1-8b", **DENSE, concurrency=8, slos=("tpot:p99=100ms",)),
    "crowd": lambda: api.plan("llama-3.1-8b", **DENSE, concurrency=50),
    "at once": lambda: api.plan("llama-3.1-8b", **DENSE, objective="throughput"),
    "at once, limit": lambda: api.plan("llama-3.1-8b", **{**DENSE, "gpus": 1}, slos=("ttft:p95=10ms",)),
    "formats": lambda: api.plan("llama-3.3-70b", **DENSE, request_rate=4.0, quant="auto,fp8", slos=("e2e:p99=20s",)),
    "cost": lambda: api.plan("mixtral-8x7b", **{**DENSE, "gpus": 4}, request_rate=4.0, objective="cost", engine="sglang"),
    "energy": lambda: api.plan("llama-3.1-8b", **{**DENSE, "gpus": 2}, request_rate=4.0, objective="energy"),
    "nodes": lambda: api.plan("qwen3-235b-a22b", **ROUTED, nodes=2, request_rate=9.0, engine="tensorrt-llm"),
    "policy": lambda: api.plan("llama-3.1-8b", **{**DENSE, "gpus": 2}, request_rate=4.0, engine="orca"),
    "trace": lambda: api.plan("llama-3.1-8b", gpu="l40s", gpus=1, trace="example:creation"),
    "one request, missed": lambda: api.plan("llama-3.1-8b", **{**SINGLE, "num_requests": 1}, request_rate=1.0, slos=("ttft:p95=1ms",)),
    "few users, missed": lambda: api.plan("llama-3.1-8b", **SINGLE, concurrency=1, slos=("ttft:p95=1ms",)),
    "largest, missed": lambda: api.plan("llama-3.1-8b", **DENSE, nodes=6, request_rate=4.0, slos=("ttft:p95=1ms",)),
    "one plan": lambda: api.simulate("llama-3.3-70b", "2×TP4", **DENSE, request_rate=4.0, slos=("ttft:p95=1s",)),
    "one plan, missed": lambda: api.simulate("llama-3.3-70b", "PP8×TP1", **DENSE, request_rate=4.0, slos=("e2e:mean=1s",)),
    "one plan, not startable": lambda: api.simulate("llama-3.3-70b", "DP2TP4/TP8", **DENSE, request_rate=4.0),
}  # fmt: skip
WIDTHS = (80, 100, 120, 200, None)


@cache
def study(name: str) -> Study:
    return QUESTIONS[name]()


every = pytest.mark.parametrize("name", QUESTIONS)


@every
def test_the_error_bar_is_that_of_the_plan_that_is_spoken_of(name: str) -> None:
    found = study(name)
    own = error_of(found.goal.objective.name, found.setting, found.ranked[0].account)
    assert found.error[0] == own


def test_only_what_was_simulated_is_said_to_be_not_enough() -> None:
    assert study("one request, missed").tried == ("64 GPUs", "fp8 weights")
    assert study("few users, missed").tried == ("64 GPUs", "fp8 weights")  # one user was asked for
    assert study("largest, missed").tried == ("0.12 requests/s", "fp8 weights")  # 96 GPUs would be more than are tried
    short = {"prompt_len": 64, "output_len": 8, "num_requests": 8, "request_rate": 4.0}
    slow = api.plan("llama-3.1-8b", gpu="h100@1200MHz", gpus=1, power_cap=50.0, **short)
    assert not slow.keeps and not any("MHz" in words for words in slow.tried)  # a GPU with a clock takes no other


# ---- the page ----------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_page(name: str, width: int | None) -> None:
    text = re.sub(r"<<'EOF'\n.*?\nEOF", "", render(study(name), width=width), flags=re.S)  # a file's lines are its own
    lines = text.splitlines()
    assert width is None or [line for line in lines if len(line) > width] == []


@every
@pytest.mark.parametrize("everything", [False, True])
def test_the_answer_stands_before_any_table(name: str, everything: bool) -> None:
    lines = render(study(name), width=100, everything=everything).splitlines()
    assert lines[0].startswith("apexsim  ") and lines[1].startswith("  answer  ")
    text = " ".join(verdict(study(name)).text.split())
    assert text in " ".join(" ".join(lines).split())


@every
def test_the_answer_is_a_few_plain_sentences(name: str) -> None:
    found = verdict(study(name))
    limits = " ".join(map(str, study(name).goal.slos))
    assert 2 <= len(found.sentences) <= 5 and all(s[0].isupper() or s[0].isdigit() or s.split()[0] in limits for s in found.sentences)
    assert all(s.endswith(".") for s in found.sentences)


@every
def test_numbers_are_neither_in_exponents_nor_in_needless_units(name: str) -> None:
    text = render(study(name))
    assert not re.search(r"\d\.?\d*e[+-]\d", text) and not re.search(r"\d{3},\d{3} ± ", text)


@every
@pytest.mark.parametrize("width", WIDTHS)
def test_what_a_limit_names_is_in_the_table(name: str, width: int | None) -> None:
    here = study(name)
    heads = {c.title.split()[0]: c.title.split() for c in ranking(here, here.ranked, width or 1e9).columns if c.title}
    titles = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E"}
    same = " ".join(ranking(here, here.ranked, width or 1e9).same)
    for slo in here.goal.slos:
        assert slo.stat in heads.get(titles[slo.metric], []) or titles[slo.metric] in same or not slo.stat


@every
@pytest.mark.parametrize("width", WIDTHS)
def test_no_column_is_the_same_in_every_row(name: str, width: int | None) -> None:
    made = ranking(study(name), study(name).ranked, width or 1e9)
    assert [c.title for c in made.columns if c.alike and c.title not in ("#", "plan")] == []


@every
def test_every_word_of_a_plans_name_and_every_mark_is_explained(name: str) -> None:
    here = study(name)
    legend = " ".join(f"{word} {meaning}" for word, meaning in ranking(here, here.ranked, 80).legend)
    for ranked in here.ranked:
        for sign, example in (("PP", "PP2"), ("TEP", "TEP8"), ("DEP", "DEP8"), ("/", "A/B"), ("@fp8", "@fp8"), ("MHz", "@810MHz")):
            assert sign not in ranked.plan.shorthand or example in legend
    assert "ratio" in legend or len(here.ranked) == 1 or len({r.ratio for r in here.ranked}) == 1


@every
def test_prose_and_table_have_one_unit(name: str) -> None:
    here = study(name)
    text = " ".join(render(here, width=80).split())
    for metric, title in (("ttft", "TTFT"), ("tpot", "TPOT"), ("e2e", "E2E")):
        unit = scale_of(here, metric).unit
        assert set(re.findall(rf"{title} (?:p\d\d |mean |max )?[\d.,]+ (?:vs [\d.,]+ |of [\d.,]+ )?(ms|s|min)\b", text)) <= {unit}


@pytest.mark.parametrize(("seconds", "unit"), [(0.02, "ms"), (9.99, "ms"), (10.0, "s"), (599.0, "s"), (4000.0, "min")])
def test_units_follow_the_size(seconds: float, unit: str) -> None:
    assert scale_for(seconds).unit == unit


def test_the_kv_room_is_that_of_the_whole_plan() -> None:
    two = next(r for r in study("dense").ranked if r.plan.shorthand == "2×TP4")
    assert room_tokens(two) == 2 * two.room.tokens
    assert f"{room_tokens(two):,} tokens in all" in " ".join(render(study("dense")).split())


def test_colour_is_only_colour() -> None:
    painted = render(study("missed"), width=80, color=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted).split() == render(study("missed"), width=80).split()


# ---- what is ranked ----------------------------------------------------------------------------------------------------


@every
def test_only_what_the_engine_can_be_started_with_is_ranked(name: str) -> None:
    here = study(name)
    engine = here.setting.engine
    if "plan" in here.inputs or here.inputs.get("hypothetical") or engine.name not in servers():
        return
    assert all(launch(here.setting, r.plan).runnable for r in here.ranked) and all(r.blocked for r in here.hypothetical)
    assert len(here.ranked) + len(here.hypothetical) == next(s.count for s in here.funnel if s.name == "simulated")
    assert here.best is here.ranked[0]


def test_hypothetical_plans_are_ranked_where_asked_for_and_told_in_one_line_else() -> None:
    usual, whole = study("experts"), study("experts, all")
    assert not whole.hypothetical and [r.plan for r in whole.ranked if not r.blocked] == [r.plan for r in usual.ranked]
    assert (
        whole.best is not None
        and whole.best.plan == usual.ranked[0].plan
        and {r.plan for r in whole.ranked} == {r.plan for r in (*usual.ranked, *usual.hypothetical)}
    )
    line = also(usual)
    best = usual.hypothetical[0]
    found = re.fullmatch(r"(\d+) layouts that vllm cannot start are up to ([\d.]+)× better \((.*); (.*) can\): --hypothetical", line)
    assert found and int(found[1]) == len(usual.hypothetical) and found[3] == best.plan.shorthand
    assert float(found[2]) == pytest.approx(usual.ranked[0].value / best.value, abs=0.006)
    model = load_model("deepseek-r1")
    assert all(runnable(best.plan, model, engine) == "" for engine in found[4].split(" or "))


@pytest.mark.parametrize(("plan", "who"), [("TP8/TP4EP2", "sglang"), ("DP2TP4/TP2DP4", "no engine")])
def test_an_engine_that_can_start_nothing_that_fits_says_who_can(plan: str, who: str) -> None:
    """A space of one plan, which the engine cannot be started with."""
    setting, precision, goal, _ = api.ask("deepseek-r1" if who == "sglang" else "llama-3.3-70b", **ROUTED, request_rate=4.0)
    every_plan = candidates(setting.model, setting.cluster, precision)
    only = [p for p in every_plan.plans if runnable(p, setting.model, "vllm") and (who == "sglang") is (p.shorthand == plan)]
    assert only
    with pytest.raises(Infeasible, match="--hypothetical") as told:
        search(setting, replace(every_plan, plans=tuple(only)), goal)
    assert f"({who}" in str(told.value) and "can start it)" in str(told.value)


@every
def test_json_has_the_best_plan_the_verdict_and_the_rest_in_short(name: str) -> None:
    here, found = study(name), study_json(study(name))
    assert (found["best"] or {}).get("shorthand") == (here.best.plan.shorthand if here.best else None)
    assert found["best"] is None or (found["best"]["launch"] and not found["best"]["not_runnable"])
    assert found["verdict"]["sentences"] == list(verdict(here).sentences) and found["verdict"]["plan"] == found["ranked"][0]["shorthand"]
    assert found["verdict"]["keeps"] == (here.ranked[0].keeps if found["verdict"]["limits"] else None)
    if here.hypothetical:
        assert found["hypothetical"]["count"] == len(here.hypothetical) + here.beaten and not found["hypothetical"]["ranked"]


@every
def test_margins_are_those_of_the_metrics(name: str) -> None:
    here = study(name)
    first = here.ranked[0]
    for margin in first.limits:
        measured = first.metrics.energy.watts if margin.metric == "power" else first.metrics.latency(margin.metric, margin.stat)
        assert margin.measured == measured and margin.kept == (measured <= margin.limit) == (margin.share >= 0)
    assert first.keeps == all(m.kept for m in first.limits)


# ---- what is said ------------------------------------------------------------------------------------------------------


def test_the_answer_begins_with_no_plan_where_none_keeps_the_limits() -> None:
    for name in ("missed", "saturated, missed", "power"):
        if not study(name).keeps:
            assert verdict(study(name)).text.startswith("No plan keeps ")
    assert not study("missed").keeps and not study("saturated, missed").keeps
    assert verdict(study("one plan, missed")).text.startswith("PP8×TP1 does not keep e2e:mean=1s")


def test_the_nearest_plan_is_the_one_that_misses_by_the_least() -> None:
    here = study("missed")
    worst = [max(m.measured / m.limit for m in r.limits) for r in here.ranked]
    assert worst == sorted(worst) and here.ranked[0].plan.shorthand in verdict(here).sentences[0]


def test_saturation_says_what_is_served_of_the_load() -> None:
    here = study("saturated")
    served = max(r.metrics.request_throughput_per_s for r in here.ranked)
    found = re.match(r"2 × h100-sxm serve ([\d.]+) of 200 requests/s", verdict(here).text)
    assert found and float(found[1]) == pytest.approx(served, rel=0.06) and verdict(here).keeps is None


def test_all_at_once_is_said_to_measure_throughput() -> None:
    text = verdict(study("at once")).text
    assert text.startswith("All 60 requests come at once (neither --request-rate nor --concurrency is given)") and "throughput, not" in text
    asked = api.plan("llama-3.1-8b", **{**DENSE, "gpus": 1}, request_rate=float("inf"))
    assert "(as asked)" in verdict(asked).text and "at once" not in verdict(study("dense")).text


def test_limits_nearer_than_the_error_are_said_to_be() -> None:
    p95 = study("dense").ranked[0].metrics.ttft.p95
    close = api.plan("llama-3.3-70b", **DENSE, request_rate=4.0, slos=(f"ttft:p95={1.02e3 * p95:.4g}ms",))
    assert close.keeps and "nearer than the error" in verdict(close).text and "measure" in verdict(close).text
    assert "nearer than" not in verdict(study("one plan")).text


def test_a_ratio_to_a_plan_that_does_not_keep_up_is_not_told() -> None:
    here = study("saturated")
    heuristic = next(r for r in here.ranked if r.plan.shorthand == here.heuristic)
    assert heuristic.metrics.saturated and all(r.ratio != r.ratio for r in here.ranked)
    assert all(each["ratio_to_heuristic"] is None for each in study_json(here)["ranked"])


# ---- what would help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["saturated", "saturated, missed", "missed", "one plan, missed"])
def test_what_would_help_does(name: str) -> None:
    here = study(name)
    question = {k: v for k, v in here.inputs.items() if k not in ("model", "plan", "settings", "engine", "images", "objective", "route",
                                                                  "too_long")}  # fmt: skip
    assert here.remedies or here.tried
    for remedy in here.remedies:
        asked = {**question, **remedy.changes}
        if "plan" in here.inputs:
            again = api.simulate(here.inputs["model"], here.inputs["plan"], **asked)
        else:
            again = api.plan(here.inputs["model"], **{k: v for k, v in asked.items() if v is not None})
        assert again.keeps and not again.ranked[0].metrics.saturated, remedy.words


def test_nothing_is_to_be_helped_where_all_is_well() -> None:
    assert not study("dense, kept").remedies and not study("dense, kept").tried


# ---- what to type next -------------------------------------------------------------------------------------------------


@every
def test_the_lines_of_a_page_can_be_pasted(name: str, capsys: Capture) -> None:
    here = study(name)
    lines = commands(render(here, width=80))
    assert lines
    for words in lines:
        assert "'" not in " ".join(words) and "<" not in " ".join(words)
        asked = [w for w in words[1:] if w not in ("study.json", "--json", "--all")]
        assert main([*asked, "--json", "-"]) in (0, 4), asked
        found = json.loads(capsys.readouterr().out)
        if asked[0] == "simulate":
            assert found["best"]


def commands(text: str) -> list[list[str]]:
    """The commands after `then`, joined as a shell joins them."""
    found = re.findall(r"(?:^|\n)  then +((?:[^\n]*\\\n)*[^\n]*)", text)
    return [shlex.split(command.replace("\\\n", " ")) for command in found]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_broken_command_is_the_same_command(width: int) -> None:
    line = "apexsim plan m --gpu h100 --slo ttft:p95=1s --plan '2×TP4' --json x.json --all"
    broken = pasted(line, width)
    assert shlex.split(broken.replace("\\\n", " ")) == shlex.split(line)


def test_suggested_limits_are_sensible() -> None:
    for name in QUESTIONS:
        for words in commands(render(study(name))):
            given = [parse_slo(words[i + 1]).limit_s for i, w in enumerate(words) if w == "--slo"]
            assert all(limit <= 20.0 for limit in given)


# ---- exit codes --------------------------------------------------------------------------------------------------------

ASKED = ["llama-3.1-8b", "--gpu", "h100:1", "--prompt-len", "200", "--output-len", "20", "--num-requests", "40"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["plan", *ASKED, "--request-rate", "4"], 0), (["plan", *ASKED, "--request-rate", "4", "--ttft", "5s", "--tpot", "1s"], 0),
        (["plan", *ASKED, "--request-rate", "4", "--ttft", "1"], 4), (["plan", *ASKED, "--request-rate", "4", "--tpot", "0.1ms"], 4),
        (["plan", *ASKED, "--request-rate", "4", "--slo", "e2e:mean=1ms"], 4), (["plan", *ASKED, "--request-rate", "9000"], 0),
        (["plan", *ASKED, "--request-rate", "4", "--power-cap", "20"], 4), (["plan", *ASKED, "--goodput", "ttft:1", "tpot:1"], 0),
        (["simulate", *ASKED, "--plan", "TP1", "--request-rate", "4", "--ttft", "1"], 4),
        (["simulate", *ASKED, "--plan", "TP1", "--request-rate", "4", "--ttft", "9s"], 0),
        (["plan", *ASKED, "--ttft", "soon"], 2), (["plan", "llama-3.1-405b", *ASKED[1:], "--ttft", "1"], 3),
        (["apex", "--model", "llama3-70b", "--num-gpus-per-node", "2", "--num-requests", "9", "--ttft-slo", "1"], 0),
    ],
)  # fmt: skip
def test_the_exit_code_tells_scripts_what_the_answer_is(words: list[str], code: int, capsys: Capture) -> None:
    assert main([*words, "--json", "-"]) == code
    out = capsys.readouterr().out
    assert json.loads(out)  # also of a failure


# ---- limits as people type them ----------------------------------------------------------------------------------------


def limits_asked(capsys: Capture, *words: str) -> Any:
    assert main(["plan", *ASKED, "--request-rate", "4", *words, "--json", "-"]) in (0, 4)
    return json.loads(capsys.readouterr().out)["slos"]


@pytest.mark.parametrize(
    ("words", "canonical"),
    [
        (["--slo", "ttft:p95=1s"], ["ttft:p95=1s"]), (["--slo", "ttft:p95<1000ms"], ["ttft:p95=1s"]),
        (["--slo", "ttft:p95:1000"], ["ttft:p95=1s"]),
        (["--slo", "ttft:p95<=1s"], ["ttft:p95=1s"]), (["--ttft", "500"], ["ttft:p95=500ms"]), (["--ttft", "0.5s"], ["ttft:p95=500ms"]),
        (["--tpot", "50", "--ttft", "500"], ["ttft:p95=500ms", "tpot:p95=50ms"]), (["--goodput", "ttft:500"], ["ttft=500ms"]),
        (["--goodput", "ttft:500", "tpot:50", "e2el:9000"], ["ttft=500ms", "tpot=50ms", "e2e=9s"]),
        (["--goodput", "ttft:500", "--goodput", "tpot:50"], ["ttft=500ms", "tpot=50ms"]),
        (["--slo", "ttft:p95=1s", "tpot:p95=40"], ["ttft:p95=1s", "tpot:p95=40ms"]),
    ],
)  # fmt: skip
def test_limits_have_one_spelling(words: list[str], canonical: list[str], capsys: Capture) -> None:
    assert limits_asked(capsys, *words) == canonical


def test_a_limit_that_the_shell_ate_is_recognised(capsys: Capture) -> None:
    assert main(["plan", *ASKED, "--slo", "ttft:p95"]) == 2
    assert "a shell takes an unquoted <" in capsys.readouterr().err


# ---- closed loops ------------------------------------------------------------------------------------------------------


def test_a_closed_loop_leaves_out_the_burst_of_its_start() -> None:
    asked = {"gpu": "l40s", "gpus": 1, "prompt_len": 1000, "output_len": 100, "num_requests": 200, "concurrency": 50}
    usual, whole = api.plan("llama-3.1-8b", **asked), api.plan("llama-3.1-8b", **asked, warmup=0)
    assert (usual.setting.workload.warmup, whole.setting.workload.warmup) == (50, 0)
    assert usual.ranked[0].metrics.ttft.p95 < 0.6 * whole.ranked[0].metrics.ttft.p95
    assert any("the first request of each of the 50 users is left out" in note for note in usual.notes)
    assert not any("left out" in note for note in whole.notes)


def test_with_fewer_than_two_requests_per_user_nothing_is_left_out_and_it_is_said() -> None:
    here = study("crowd")
    assert here.setting.workload.warmup == 0 and any("fewer than two requests per user" in note for note in here.notes)


def test_a_measured_run_keeps_the_burst_that_was_measured() -> None:
    from apexsim.workload.synth import Coming, synthetic

    work = synthetic(200, 20, 60, Coming(concurrency=8))
    found = api.simulate("llama-3.1-8b", "TP1", gpu="h100-sxm", gpus=1, trace=work)
    assert found.setting.workload.warmup == 0 and work.warmup == 0


# ---- what is not modelled ----------------------------------------------------------------------------------------------

SAMPLES = [
    "--speculative-config", "--speculative-algorithm", "--speculative-draft-model-path", "--num-speculative-tokens", "--speculative-model",
    "--enable-lora", "--lora-paths", "--lora-modules", "--max-loras", "--enable-prefix-caching", "--prefix-caching-hash-algo",
    "--disaggregated", "--disaggregation-mode", "--disaggregation-transfer-backend", "--kv-transfer-config", "--kv-offloading-size",
    "--kv-offloading-backend", "--swap-space", "--cpu-offload-gb", "--enable-hierarchical-cache", "--hicache-ratio", "--enable-dbo",
    "--enable-two-batch-overlap", "--enable-eplb", "--eplb-config", "--ep-num-redundant-experts", "--decode-context-parallel-size",
    "--enable-kv-cache-reuse", "--lora-dir", "--speculative-decoding-mode", "--nextn", "--guided-decoding-backend",
]  # fmt: skip


@pytest.mark.parametrize("flag", SAMPLES)
@pytest.mark.parametrize("command", ["plan", "simulate"])
def test_what_is_not_modelled_says_so_in_one_line(command: str, flag: str, capsys: Capture) -> None:
    for words in ([flag, "x"], [f"{flag}=x"], [flag.replace("-", "_").replace("__", "--", 1)]):
        assert main([command, *ASKED, *words]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and f"{flag}: not modelled: " in told and "; drop it" in told


@pytest.mark.parametrize("flag", [*SWITCHED_OFF, "--no-enable-lora", "--no-enable-eplb"])
def test_switching_off_what_is_not_modelled_is_taken(flag: str) -> None:
    assert modelled("plan", [*ASKED, flag]) == ASKED


def test_no_option_of_ours_is_said_to_be_missing() -> None:
    for command in ("plan", "simulate", "fit", "replay"):
        own = list(flags_of_command(command))
        assert modelled(command, own) == own
    with pytest.raises(InputError, match="speculative"):
        modelled("plan", ["--num-speculative-tokens", "2"])


def test_the_page_of_what_is_not_modelled_is_written_from_the_table() -> None:
    from pathlib import Path

    written = (Path(__file__).parent.parent / "docs/not-modelled.md").read_text(encoding="utf-8")
    assert written == page(), "run: python scripts/not_modelled_page.py > docs/not-modelled.md"
    assert len({row.name for row in NOT_MODELLED}) == len(NOT_MODELLED)


def test_plans_read_back(name: str = "experts") -> None:
    assert all(parse_plan(r.plan.shorthand) == r.plan for r in study(name).ranked if not r.plan.precision.weights)
