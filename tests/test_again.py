"""Commands under an answer: what they ask is what was asked, digit for digit."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apexsim import api
from apexsim.cli import main
from apexsim.cli.rows import COMMANDS, FOLLOWED, SIZED, Opt, options_of
from apexsim.engines import engine_names, flags_of, load_engine
from apexsim.errors import InputError
from apexsim.report import text
from apexsim.report.again import SETTINGS, again
from apexsim.report.page import pasted
from apexsim.search import follow, inverse
from test_options import CONTEXTS, EXPERTS, OTHERWISE, words_of

Question = dict[str, Any]
# how an answer is made and told, and GPUs, which stand in every base
HOW = {"gpu", "gpus"} | {opt.name for verb in ("plan", "simulate", "size", "fleet") for opt in COMMANDS[verb]["Output"]}
POOLS = {opt.name for opt in COMMANDS["plan"]["Pools"]}
BESIDE: Mapping[str, dict[str, Any]] = {  # what an option wants beside it
    "image_size": {"images": 1}, "risk": {"ttft": "500"}, "map": {"trace": "my.csv"}, "time_unit": {"trace": "my.csv"},
    "burstiness": {"request_rate": 3.5}, "share": {"goodput": "ttft:500"}, "budget": {"find": "gpus"},
    "lengths": {"prompt_cv": 0.5},
    "turn_gap": {"turns": 2}, "signal_age": {"route": "least-outstanding"}, **{name: {"disaggregate": True} for name in POOLS},
}  # fmt: skip
DIGITS = 0.123456789012  # of every number that is no whole one, within its limits
MODELS = dict.fromkeys((*EXPERTS, "enable_expert_parallel"), "mixtral-8x7b") | {"images": "qwen2.5-vl-7b", "image_size": "qwen2.5-vl-7b"}


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, Question]:
    """The command, the model and the keywords that a command line asks with; nothing is answered."""
    found: list[tuple[str, str, Question]] = []

    def catch(verb: str) -> Any:
        def stop(model: str, *plan: str, **question: Any) -> None:
            found.append((verb, model, {**question, **({"plan": plan[0]} if plan and plan[0] else {})}))
            raise InputError("caught")

        return stop

    with monkeypatch.context() as patch:
        patch.setattr(api, "plan", catch("plan"))
        patch.setattr(api, "simulate", catch("simulate"))
        patch.setattr(inverse, "size", catch("size"))
        patch.setattr(follow, "fleet", catch("fleet"))
        main(words)
    assert found, words
    verb, model, question = found[0]
    for name in ("workers", "ray", "progress"):
        question.pop(name, None)
    return verb, model, {name: value for name, value in question.items() if value is not None}


def value_of(opt: Opt) -> Any:
    """A value that is not the default, numbers with digits."""
    if opt.type is float:
        inside = DIGITS if opt.least < DIGITS < opt.most else opt.least + DIGITS
        return f"{inside!r}"
    return OTHERWISE.get(opt.name, 3 if opt.type is int else True if opt.type is bool else "drop" if opt.name == "too_long" else "mine")


CASES = [(verb, opt) for verb in ("plan", "simulate", "size", "fleet") for opt in options_of(verb) if opt.name not in HOW]


def base_of(verb: str, opt: Opt) -> dict[str, Any]:
    """A question that an option can be added to."""
    alone = {} if opt.name in ("plan", "tp", "pp", "dp", "ep") else {"plan": "TP1+TP1"} if opt.name in POOLS else {"tp": 2}
    named = {"plan": {}, "simulate": alone, "size": {"request_rate": 3.5}, "fleet": {"trace": "my.csv"}}[verb]
    made = {} if verb == "fleet" or opt.name in ("trace", "workload", "map", "time_unit") else CONTEXTS["lengths"]
    return {**made, **named, **BESIDE.get(opt.name, {})}


@pytest.mark.parametrize(("verb", "opt"), CASES, ids=lambda v: v if isinstance(v, str) else v.name)
def test_a_question_that_is_asked_again_is_the_same(verb: str, opt: Opt, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {
        "plan": "2xTP1@fp8@1410MHz",
        "find": "ttft:p95",
        "trace": "my file's.csv",
        "stages": "3:20,5:20",
        "prefill_settings": "max-num-seqs=64",
        "decode_settings": "max-num-seqs=64",
        "connector": "mooncake",
        "conditional_disagg": "2048,0.7,busy:2",
    }.get(opt.name) or value_of(opt)
    asked = {**base_of(verb, opt), opt.name: value}
    if opt.name in ("workload", "trace", "stages"):
        asked.pop("num_requests", None)
    if opt.name in ("prompt_cv", "output_cv", "lengths"):
        asked.pop("length_spread", None)
    head = [verb, MODELS.get(opt.name, "llama-3.1-8b"), "--gpu", "h100-sxm", "--gpus", "2"]
    first = parsed([*head, *words_of(asked)], monkeypatch)
    defaults = api.defaults() | {row.name: row.default for row in (*FOLLOWED, *SIZED)}
    typed = again(verb, {"model": first[1], **first[2]}, defaults)
    assert parsed(shlex.split(typed)[1:], monkeypatch) == first


@pytest.mark.parametrize("engine", engine_names())
@pytest.mark.parametrize("said", SETTINGS, ids=lambda said: said.option)
def test_every_engine_is_told_its_settings_in_words_that_it_takes(engine: str, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    value = said.value if said.value is not None else "top-p" if said.setting == "sampling" else 0.5 if "fraction" in said.setting else 64
    asked = {"gpu": "h100:2", "engine": engine, "prompt_len": 64, "output_len": 8, "settings": {said.setting: value}}
    typed = again("plan", {"model": "llama-3.1-8b", **asked}, api.defaults())
    assert parsed(shlex.split(typed)[1:], monkeypatch)[2]["settings"] == {said.setting: value}
    own = flags_of(load_engine(engine).name)
    assert own.get(said.setting, "") in typed or said.value is not None


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_a_number_comes_back_with_all_its_digits(value: float) -> None:
    typed = again("plan", {"model": "m", "request_rate": value, "settings": {"memory_fraction": value}}, {})
    rate, fraction = (float(shlex.split(typed)[i]) for i in (4, 6))
    assert rate == fraction == value


def test_a_setting_that_no_option_says_makes_no_command() -> None:
    for settings in ({"reuse": 1}, {"order": "lcfs"}, {"pad": (1, 2, 4)}):
        assert again("plan", {"model": "m", "settings": settings}, {}) == ""


def test_what_was_given_as_zero_is_asked_with_zero() -> None:
    question = {"prompt_len": 64, "output_len": 8, "num_requests": 12, "concurrency": 2, "warmup": 0, "seed": 0}
    found = api.sweep("llama-3.1-8b", gpu=["h100:1", "l40s:1"], **question)
    assert found.inputs["warmup"] == found.inputs["seed"] == 0


def test_a_plan_that_names_its_format_and_clock_is_ranked_among_plans_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    study = api.simulate("llama-3.1-8b", "TP1@fp8@1410MHz", gpu="h100-sxm:1", prompt_len=64, output_len=8, num_requests=12)
    for line in text._suggestions(study):
        asked = parsed(shlex.split(line)[1:], monkeypatch)[2]
        assert (asked["quant"], asked["clock"]) == ("fp8", "1410") and "plan" not in asked


def test_a_command_is_broken_between_options_only() -> None:
    command = "apexsim plan m --trace 'my -odd --file.jsonl' --gpu h100-sxm --prompt-len 64 --output-len 8 --num-requests 12"
    lines = pasted(command, 40)
    assert lines.count("\n") > 1 and shlex.split(lines.replace("\\\n", "")) == shlex.split(command)
