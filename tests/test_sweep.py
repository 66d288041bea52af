"""Lists on the words of a question: one table whose rows are the answers to the single questions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from apexsim import api
from apexsim.cli import main
from apexsim.errors import Infeasible, InputError
from apexsim.report.plain import dumps
from apexsim.report.schema import schema_of
from apexsim.report.sweep import render, sweep_json
from apexsim.search.study import Study
from apexsim.search.sweep import MOST

Capture = pytest.CaptureFixture[str]
MADE = {"prompt_len": 400, "output_len": 40, "num_requests": 60, "request_rate": 4.0}
LISTS = {
    "gpu": ["h100-sxm", "l4"], "gpus": [1, 2], "nodes": [1, 2], "engine": ["vllm", "sglang", "trtllm@1.0.0"], "kv_dtype": ["bf16", "fp8"],
    "weight_dtype": ["bf16", "int8"], "route": ["round-robin", "least-outstanding"], "tp": [1, 2], "request_rate": [2.0, 6.0],
    "prompt_len": [100, 900], "output_len": [10, 80], "num_requests": [30, 50],
}  # fmt: skip
SETTINGS = {
    "max_num_seqs": [4, 64],
    "max_num_batched_tokens": [512, 4096],
    "memory_fraction": [0.6, 0.9],
    "block_size": [16, 32],
    "capture": [64, 1024],
}


@pytest.mark.parametrize("name", [*LISTS, *SETTINGS, "model"])
def test_every_row_is_the_answer_to_its_question_alone(name: str) -> None:
    base = {"gpu": "h100-sxm", "gpus": 2, **MADE}
    models = ["llama-3.1-8b", "qwen2.5-7b"] if name == "model" else "llama-3.1-8b"
    several = {"settings": {name: SETTINGS[name]}} if name in SETTINGS else {name: LISTS[name]} if name in LISTS else {}
    found = api.sweep(models, **{**base, **several})
    values = SETTINGS.get(name) or LISTS.get(name) or models
    assert [p.values for p in found.points] == [(v,) for v in values]
    for value, point in zip(values, found.points):
        one = {"settings": {name: value}} if name in SETTINGS else {} if name == "model" else {name: value}
        alone = api.plan(value if name == "model" else models, **{**base, **one})
        assert point.first.plan == alone.ranked[0].plan and point.first.value == alone.ranked[0].value


def test_loads_make_scenarios_and_choices_are_ranked_in_each() -> None:
    found = api.sweep("llama-3.1-8b", gpu=["l4", "h100-sxm"], gpus=1, **(MADE | {"request_rate": [1.0, 30.0]}), slos=("tpot:p95<150ms",))
    assert [load for load, _ in found.scenarios] == [(1.0,), (30.0,)]
    for _, group in found.scenarios:
        assert group[0].study is not None and group[0].study.setting.cluster.gpu.name == "h100-sxm"
    low, high = (group for _, group in found.scenarios)
    cheap = found.cheapest(low)
    assert cheap is not None and cheap.study is not None and cheap.study.setting.cluster.gpu.name == "l4"
    assert found.cheapest(high) is high[0]  # the small one does not keep up


def test_gpus_without_a_known_rent_are_told_where_the_cheapest_is() -> None:
    asked = MADE | {"request_rate": 1.0}
    told = sweep_json(api.sweep("llama-3.1-8b", gpu=["mi355x", "h100-sxm"], gpus=1, **asked))["sentences"]
    assert any("No rent of mi355x is known" in one for one in told) and any(one.startswith("Cheapest") for one in told)
    alone = sweep_json(api.sweep("llama-3.1-8b", gpu="mi355x", gpus=[1, 2], **asked))["sentences"]
    assert not any("rent" in one.lower() for one in alone)


def test_what_does_not_fit_stays_in_the_table_with_its_reason() -> None:
    found = api.sweep("llama-3.1-70b", gpu=["l4", "h100-sxm"], gpus=4, **MADE)
    assert found.points[0].study is None and "l4" in found.points[0].why
    assert "no room" in render(found) and sweep_json(found)["points"][0]["fits"] is False
    with pytest.raises(Infeasible, match="none of 2 combinations fits"):
        api.sweep("llama-3.1-70b", gpu=["l4", "t4"], gpus=1, **MADE)


def test_ties_are_of_the_errors_of_what_differs() -> None:
    found = api.sweep("llama-3.1-8b", gpu="h100-sxm", gpus=1, **MADE, settings={"max_num_batched_tokens": [4096, 8192]})
    assert found.ties(found.points[0], found.points[1])
    far = api.sweep("llama-3.1-8b", gpu=["h100-sxm", "l4"], gpus=1, **MADE)
    assert not far.ties(*far.points)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gpu", "h100-sxm,l4o", "--gpus", "1"], "unknown GPU 'l4o'"),
        (["--gpu", "h100-sxm", "--gpus", "1,x"], "--gpus"),
        (["--gpu", "h100-sxm", "--gpus", "1,,2"], "--gpus"),
        (["--gpu", "h100-sxm", "--gpus", "1", "--engine", "vllm,sglng"], "sglng"),
        (["--gpu", "h100-sxm", "--gpus", "1", "--max-num-seqs", ",".join(map(str, range(1, MOST + 9)))], "combinations are asked for"),
    ],
)
def test_a_bad_value_in_a_list_is_one_line(words: list[str], told: str, capsys: Capture) -> None:
    assert main(["plan", "llama-3.1-8b", *words, "--prompt-len", "64", "--output-len", "8", "--num-requests", "8"]) == 2
    err = capsys.readouterr().err
    assert told in err and len(err.splitlines()) <= 2


def test_lists_are_for_the_search_alone(capsys: Capture) -> None:
    with pytest.raises(InputError, match=r"apexsim\.sweep"):
        api.plan("llama-3.1-8b", gpu=["l4", "h100-sxm"], gpus=1, **MADE)
    assert main(["simulate", "llama-3.1-8b", "--plan", "TP1", "--gpu", "l4", "--gpus", "1,2", "--prompt-len", "9"]) == 2
    assert "--gpus" in capsys.readouterr().err


def test_the_page_has_the_answer_first_and_fits_eighty_columns(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ["plan", "llama-3.1-8b", "--gpu", "l4,l40s,h100-sxm", "--gpus", "1,2", "--engine", "vllm,sglang", "--prompt-len", "300",
             "--output-len", "30", "--num-requests", "40", "--qps", "3", "--slo", "ttft:p95=1s"]  # fmt: skip
    assert main(words) == 0
    page = capsys.readouterr().out
    assert page.index("answer") < page.index("ranked") < page.index("worth") < page.index("launch")
    assert max(map(len, page.splitlines())) <= 80
    out = tmp_path / "all.json"
    assert main([*words, "--json", str(out)]) == 0
    points = json.loads(out.read_text())["points"]
    assert len(points) == 12 and sum(p["best"] for p in points) == 1
    assert all(math.isfinite(p["value"]) for p in points) and sorted(p["rank"] for p in points) == list(range(1, 13))


def test_limits_that_no_combination_keeps_have_their_exit_code(capsys: Capture) -> None:
    words = ["plan", "llama-3.1-8b", "--gpu", "l4,h100-sxm", "--gpus", "1", "--prompt-len", "300", "--output-len", "30"]
    assert main([*words, "--num-requests", "20", "--qps", "3", "--slo", "ttft:p95=1ms"]) == 4
    assert "no combination keeps ttft:p95=1ms" in capsys.readouterr().out.replace("\n          ", " ").lower()


@pytest.mark.parametrize("text", ["8,192", "1,024", "12,000,000", "128,000"])
def test_separators_of_thousands_are_no_list_in_silence(text: str, capsys: Capture) -> None:
    assert main(["plan", "llama-3.1-8b", "--gpu", "l4", "--gpus", "1", "--prompt-len", text, "--output-len", "9", "--qps", "1"]) == 2
    assert "may be both" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"gpu": []}, "without values"),
        ({"gpu": [["l4"], ["t4"]]}, "--gpu: expected a list of names or numbers, got list in it"),
        ({"gpus": [1, True]}, "got bool in it"),
        ({"gpus": [1, None]}, "got NoneType in it"),
        ({"settings": "abc"}, "--settings: expected a mapping"),
        ({"settings": [{"max_num_seqs": 4}]}, "--settings: expected a mapping"),
        ({"settings": {"max_num_seqs": [{4}]}}, "--max-num-seqs: expected a list"),
        ({"seed": [1, 2]}, "--seed: expected a whole number, got list"),
    ],
)
def test_a_list_of_what_is_no_value_is_refused(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(InputError) as error:
        api.sweep("llama-3.1-8b", **{"gpu": "l4", "gpus": 1, **MADE, **wrong})
    assert told in str(error.value)


def test_ctrl_c_keeps_the_combinations_that_are_done(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    ranked, done = api._ranked, []

    def second_is_stopped(model: str, question: dict[str, Any], run: dict[str, Any]) -> Study:
        done.append(question["gpu"])
        if len(done) > 1:
            raise KeyboardInterrupt
        return ranked(model, question, run)

    monkeypatch.setattr(api, "_ranked", second_is_stopped)
    words = ["plan", "llama-3.1-8b", "--gpu", "h100-sxm,l4,l40s", "--gpus", "1", "--prompt-len", "300", "--output-len", "30",
             "--num-requests", "20", "--qps", "3"]  # fmt: skip
    assert main([*words, "--json", "-"]) == 130
    found = json.loads(capsys.readouterr().out)
    assert found["interrupted"] == {"done": 1, "of": 3} and [p["gpu"] for p in found["points"]] == ["h100-sxm"]
    done.clear()
    assert main(words) == 130
    assert "Interrupted after 1 of 3 combinations" in capsys.readouterr().out
    done[:] = ["one"]
    assert main(words) == 130  # nothing is done
    assert capsys.readouterr().out == ""


def test_nothing_of_each_request_is_kept_of_a_combination() -> None:
    found = api.sweep("llama-3.1-8b", gpu=["h100-sxm", "l4"], gpus=1, **MADE)
    assert all(p.first.outcome is None for p in found.points)


def test_an_infinite_rate_is_null_in_json_and_a_sign_on_the_page() -> None:
    found = api.sweep("llama-3.1-8b", gpu="l4", gpus=1, **(MADE | {"request_rate": [1.0, math.inf]}))
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is in the test extra")
    jsonschema.validate(json.loads(dumps(sweep_json(found))), schema_of("sweep"))
    assert "∞ requests/s" in render(found) and "inf requests/s" not in render(found)


@pytest.mark.parametrize(("words", "rows"), [([], 3), (["--top", "1"], 1), (["--top", "2"], 2), (["--top", "1", "--all"], 3)])
def test_top_is_how_many_combinations_are_shown(words: list[str], rows: int, capsys: Capture) -> None:
    asked = ["plan", "llama-3.1-8b", "--gpu", "l4,l40s,h100-sxm", "--gpus", "1", "--prompt-len", "300", "--output-len", "30"]
    assert main([*asked, "--num-requests", "20", "--qps", "3", *words]) == 0
    page = capsys.readouterr().out
    table = page[page.index("ranked") : page.index("worth")]
    assert sum(f"  {i}  " in table for i in (1, 2, 3)) == rows
    assert (f"{3 - rows} more with --all" in table) is (rows < 3)


def test_names_stay_as_they_are_and_loads_alone_name_the_plan() -> None:
    assert "l4 (TP1) is best" in render(api.sweep("llama-3.1-8b", gpu=["l4", "l4"], gpus=1, **MADE))
    page = render(api.sweep("llama-3.1-8b", gpu="l4", gpus=1, **(MADE | {"request_rate": [1.0, 2.0]})))
    assert "At 1 requests/s TP1 is best" in page and "it (TP1)" not in page
    assert "llama-3.1-8b: 1 combination\n" in render(api.sweep("llama-3.1-8b", gpu=["l4"], gpus=1, **MADE))


def test_a_combination_that_reaches_nothing_of_the_objective_is_told_so() -> None:
    found = api.sweep("llama-3.1-8b", gpu=["l4", "h100-sxm"], gpus=1, **MADE, objective="goodput", slos=["ttft<50ms"])
    assert [p.first.value > 0 for p in found.points] == [False, True]
    assert "l4: reaches nothing; h100-sxm: best" in render(found)
