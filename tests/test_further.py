"""What is looked at beside plans: settings worth a flag, what would change the winner, what if, and an earlier answer."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from apexsim import api
from apexsim.cli import main
from apexsim.cost.factors import Factors
from apexsim.engines import override
from apexsim.errors import InputError
from apexsim.report.further import tuned_rows, turn_rows
from apexsim.report.schema import schema_of
from apexsim.search.assess import Assessed, assess
from apexsim.search.sensitivity import STEPS, _bandwidth, _network, sensitive
from apexsim.search.study import Study
from apexsim.search.tune import beats

Capture = pytest.CaptureFixture[str]
TRACE = str(Path(__file__).parent.parent / "examples/lmsys_05.jsonl")
STALLS = {"workload": "chat", "num_requests": 400, "request_rate": 8.0, "gpu": "l40s", "gpus": 2}  # long prompts between decodes
SMALL = ["llama-3.1-8b", "--gpu", "h100:2", "--prompt-len", "64", "--output-len", "8", "--num-requests", "12"]


# ---- settings ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study() -> Study:
    return api.plan("llama-3.1-8b", tune=True, sensitivity=True, **STALLS)


def with_settings(study: Study, **settings: float) -> Assessed:
    """The first plan with some settings, asked for by name."""
    found = api.simulate("llama-3.1-8b", study.ranked[0].plan.shorthand, settings=settings, **STALLS)
    return found.ranked[0]


def test_every_move_is_worth_more_than_a_tie(study: Study) -> None:
    found = study.tuned
    assert found is not None and found.moves
    settings = {move.name: move.after for move in found.moves}
    whole = with_settings(study, **settings)
    assert whole.value == found.run.value
    for move in found.moves:
        without = with_settings(study, **{name: v for name, v in settings.items() if name != move.name})
        assert without.value == move.without.value and beats(whole, without, study.goal)
        assert move.before == getattr(study.setting.engine, move.name) != move.after


def test_no_single_value_of_what_was_left_alone_is_better(study: Study) -> None:
    found = study.tuned
    assert found is not None and found.apart
    settings = {move.name: move.after for move in found.moves}
    for value in (32, 1024):
        if "max_num_seqs" in found.apart:
            assert not beats(with_settings(study, **settings, max_num_seqs=value), found.run, study.goal)


def test_the_launch_line_has_the_flags(capsys: Capture) -> None:
    words = ["plan", "llama-3.1-8b", "--gpu", "l40s:2", "--workload", "chat", "--num-requests", "400", "--request-rate", "8", "--tune"]
    assert main(words) == 0
    text = capsys.readouterr().out
    moved = text.partition("\ntuned ")[2].partition("\n\n")[0]
    value = moved.partition("→ ")[2].partition(":")[0].replace(",", "")
    assert "--max-num-batched-tokens" in moved
    assert f"--max-num-batched-tokens {value}" in text.partition("\nlaunch ")[2]


def test_where_nothing_helps_nothing_is_moved() -> None:
    found = api.plan("llama-3.1-8b", gpu="h100:1", prompt_len=64, output_len=8, num_requests=20, request_rate=1.0, tune=True)
    assert found.tuned is not None and not found.tuned.moves and "Nothing to change" in tuned_rows(found)[0][1]


def test_settings_that_are_given_are_not_walked() -> None:
    found = api.plan("llama-3.1-8b", tune=True, **STALLS, settings={"max_num_batched_tokens": 4096})
    assert found.tuned is not None
    assert "max_num_batched_tokens" not in {m.name for m in found.tuned.moves} | set(found.tuned.apart)
    assert found.tuned.setting.engine.max_num_batched_tokens == 4096


# ---- what would change the winner -----------------------------------------------------------------------------------------------


def test_a_turn_is_a_plan_that_then_wins_and_smaller_steps_do_not(study: Study) -> None:
    first = study.ranked[0].plan
    turns = {(turn.what, turn.factor > 1): turn for turn in study.turns}
    assert all(turn.factor in STEPS or 1.0 / turn.factor in STEPS for turn in study.turns)
    turn = turns["time of prompts", False]
    assert turn.winner and turn.gain > 1
    for factor, wins in ((turn.factor, True), (1.0, False)):
        changed = replace(study.setting, pricer=study.setting.pricer.scaled(Factors(prefill=factor)))
        plan = next(r.plan for r in study.ranked if r.plan.shorthand == turn.winner)
        mine, other = assess(changed, study.goal, first), assess(changed, study.goal, plan)
        assert isinstance(mine, Assessed) and isinstance(other, Assessed) and beats(other, mine, study.goal) is wins


def test_what_stays_is_told_too(study: Study) -> None:
    rows = turn_rows(study)
    assert any("wins" in text for _, text in rows) and rows[-1][0] == "stays"


def test_one_plan_has_nothing_to_lose_to() -> None:
    found = api.plan("llama-3.1-8b", gpu="h100:1", prompt_len=64, output_len=8, num_requests=20, sensitivity=True)
    assert not found.turns and "only plan" in turn_rows(found)[0][1]


def test_both_keep_the_schema_and_say_how_they_were_asked(capsys: Capture) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    assert main(["plan", *SMALL, "--request-rate", "9", "--tune", "--sensitivity", "--pareto", "ttft,$", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(schema_of("study")).validate(found)
    assert found["inputs"]["tune"] and found["tuned"]["tried"] > 5 and len(found["sensitivity"]) == 14


@pytest.mark.parametrize("name", ["tune", "sensitivity"])
def test_lists_are_not_looked_at_further(name: str) -> None:
    with pytest.raises(InputError, match="lists are given"):
        api.sweep("llama-3.1-8b", gpu=["l4", "h100"], gpus=1, prompt_len=64, output_len=8, num_requests=20, **{name: True})


# ---- what if ---------------------------------------------------------------------------------------------------------------------


def test_factors_are_the_trace_scaled() -> None:
    ask = {"gpu": "h100:1", "trace": TRACE}
    plain = api.plan("llama-3.1-8b", **ask).setting.workload
    found = api.plan("llama-3.1-8b", **ask, rate_factor=2.0, prompt_factor=3.0, output_factor=0.5).setting.workload
    assert found.arrive[-1] == pytest.approx(plain.arrive[-1] / 2)
    assert found.prompt.sum() == 3 * plain.prompt.sum()
    assert found.output.mean() == pytest.approx(plain.output.mean() / 2, rel=0.02) and found.output.min() >= 1
    assert any("what if: arrivals × 2, prompt lengths × 3, output lengths × 0.5" in note for note in found.notes)


@pytest.mark.parametrize(("more", "told"), [
    ({"rate_factor": 2.0}, "do not come at a rate"), ({"rate_factor": 2.0, "concurrency": 4}, "users send"),
    ({"rate_factor": 2.0, "request_rate": 4.0}, "the rate is given"), ({"prompt_factor": 0.0}, "above 0"),
    ({"output_factor": float("inf")}, "expected a number"), ({"prompt_factor": 1e9}, "longer than|tokens"),
])  # fmt: skip
def test_factors_in_vain_are_one_line(more: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        api.plan("llama-3.1-8b", gpu="h100:1", prompt_len=64, output_len=8, num_requests=20, **more)


# ---- an earlier answer --------------------------------------------------------------------------------------------------------------


def test_an_earlier_answer_stands_beside(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "a.json"
    assert main(["plan", *SMALL, "--request-rate", "4", "--json", str(file)]) == 0
    capsys.readouterr()
    assert main(["plan", *SMALL, "--request-rate", "40", "--against", str(file), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["against"]["question"] == {"request_rate": {"before": 4.0, "after": 40.0}}
    old = json.loads(file.read_text())["ranked"][0]["metrics"]
    assert found["against"]["metrics"]["TTFT p95"]["before"] == old["ttft_ms"]["p95"]
    assert found["against"]["metrics"]["TTFT p95"]["after"] == found["ranked"][0]["metrics"]["ttft_ms"]["p95"]
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator(schema_of("study")).validate(found)


@pytest.mark.parametrize(("content", "told"), [
    (None, "does not exist"), (b"", "no JSON"), (b"[]", "got list"), (b'{"format": "apexsim.sweep/1"}', "apexsim.sweep/1"),
    (b"\xff\xfe", "UTF-8"), (b'{"format": "apexsim.study/2"}', "not complete"), (b"[" * 100_000, "no JSON"),
    (b'{"format":"apexsim.study/2","inputs":{},"objective":"e2e","ranked":[{"shorthand":"TP1","metrics":{"ttft_ms":3}}]}', "not complete"),
])  # fmt: skip
def test_what_is_no_study_is_one_line(content: bytes | None, told: str, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "a.json"
    if content is not None:
        file.write_bytes(content)
    assert main(["plan", *SMALL, "--against", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "a.json" in err and told in err


def test_numbers_of_an_odd_study_are_left_out(tmp_path: Path, capsys: Capture) -> None:
    metrics = {name: {"mean": None} for name in ("ttft_ms", "tpot_ms", "e2el_ms")} | {"output_throughput_tok_s": "many", "energy": None}
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"format": "apexsim.study/2", "inputs": {"x": [1, "<b>"]}, "objective": "e2e",
                                "ranked": [{"shorthand": "TP1", "metrics": metrics}]}))  # fmt: skip
    assert main(["plan", *SMALL, "--against", str(file), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["against"]["metrics"] == {}


def test_lists_are_held_against_nothing(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "a.json"
    assert main(["plan", *SMALL, "--json", str(file)]) == 0
    assert main(["plan", *SMALL, "--request-rate", "1,2", "--against", str(file)]) == 2
    assert "lists are given" in capsys.readouterr().err


def test_an_engine_row_keeps_what_is_not_walked() -> None:
    """A walked value is the same as the option's."""
    found = api.plan("llama-3.1-8b", gpu="h100:1", prompt_len=64, output_len=8, num_requests=20)
    assert override(found.setting.engine, max_num_seqs=64).max_num_seqs == 64


def test_other_bandwidths_begin_where_the_question_stands_and_more_is_never_slower() -> None:
    """At once the own bandwidth times are those of the study, to what interpolation leaves."""
    study = api.plan("llama-3.1-70b", gpu="h100:8", nodes=2, prompt_len=500, output_len=40, num_requests=60, request_rate=2.0)
    for change in (_bandwidth, _network):
        for run in study.ranked[:2]:
            values = [assess(change(study.setting, factor), study.goal, run.plan).value for factor in (0.5, 1.0, 2.0)]  # type: ignore[union-attr]
            assert values[1] == pytest.approx(run.value, rel=0.005)
            assert all(slower >= 0.999 * faster for slower, faster in pairwise(values))  # batches form earlier
    assert {"memory bandwidth", "network bandwidth"} <= {turn.what for turn in sensitive(study, api.ask).turns}  # type: ignore[arg-type]


def test_what_decides_is_told_where_it_is_not_the_objective() -> None:
    """Under a load that is too much the plan wins that misses the limits by less; it may be the slower one, and is not called better."""
    asked = {"gpu": "h100-sxm", "gpus": 4, "prompt_len": 3000, "output_len": 400, "num_requests": 150, "request_rate": 6.0,
             "slos": ("ttft:p95=500ms", "tpot:p95=40ms")}  # fmt: skip
    study = api.plan("qwen3-32b", sensitivity=True, **asked)
    assert any(turn.why for turn in study.turns) and all(turn.why or turn.gain > 1.0 for turn in study.turns if turn.winner)


def test_a_flag_that_is_worth_nothing_is_not_advised_where_a_limit_is_missed() -> None:
    """How far a limit is missed is a number like others: what is within a tie of it is no reason for a flag."""
    asked = {"gpu": "h100-sxm", "gpus": 4, "prompt_len": 3000, "output_len": 400, "num_requests": 150, "request_rate": 6.0,
             "slos": ("ttft:p95=500ms", "tpot:p95=40ms")}  # fmt: skip
    tuned = api.plan("qwen3-32b", tune=True, **asked).tuned
    assert tuned is not None
    for move in tuned.moves:
        less = move.without.key[0] / max(move.found.key[0], 1e-9)
        assert less > 1.02 or abs(move.without.value / move.found.value - 1.0) > 0.02
