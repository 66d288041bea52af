"""What other programs read: tables, runs in their own layouts, and two results held against each other."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

import apexsim
from apexsim import api
from apexsim.calibrate.read import Passed, read_results
from apexsim.cli import main
from apexsim.replay.compare import compare
from apexsim.replay.record import measured, read_run, run_json
from apexsim.report.emit.known import unknown
from apexsim.report.exchange import bench_json, benchmark_report
from apexsim.report.table import columns_of, csv_text, rows

ASKED: dict[str, Any] = {"gpu": "l4:1", "prompt_len": 200, "output_len": 20, "num_requests": 40, "request_rate": 2.0}
WORDS = ["simulate", "llama-3.1-8b", "--plan", "TP1", "--gpu", "l4:1", "--prompt-len", "200", "--output-len", "20", "--num-requests", "40",
         "--request-rate", "2"]  # fmt: skip


@pytest.fixture(scope="module")
def study() -> Any:
    return api.simulate("llama-3.1-8b", "TP1", **ASKED)


# ---- tables -------------------------------------------------------------------------------------------------------------------


def test_csv_reads_back_to_the_rows(study: Any) -> None:
    read = list(csv.DictReader(io.StringIO(csv_text(study))))
    made = rows(study)
    assert list(read[0]) == columns_of(made) and len(read) == len(made)
    assert float(read[0]["ttft_p95_ms"]) == made[0]["ttft_p95_ms"] and read[0]["plan"] == "TP1" and read[0]["goodput_req_s"] == ""


def test_parquet_holds_the_same(tmp_path: Path, study: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main([*WORDS, "--parquet", str(tmp_path / "x.parquet"), "--json", str(tmp_path / "x.json")]) == 0
    assert parquet.read_table(tmp_path / "x.parquet").to_pylist()[0]["plan"] == rows(study)[0]["plan"]


@pytest.mark.parametrize("words", [["gpus", "h100"], ["models", "llama"], ["engines"], ["workloads"], WORDS,
                                   ["plan", *WORDS[1:2], "--gpu", "l4,l40s", "--gpus", "1", *WORDS[6:]],
                                   ["size", "llama-3.1-8b", "--gpu", "l4:1", *WORDS[6:12], "--ttft", "900"]])  # fmt: skip
def test_every_table_is_csv_and_nothing_else_on_standard_output(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--csv", "-"]) == 0
    out = capsys.readouterr().out
    read = list(csv.DictReader(io.StringIO(out)))
    assert read and all(None not in row for row in read)


def test_a_parquet_file_has_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--parquet", "-"]) == 2 and "name a file, or use --csv -" in capsys.readouterr().err


def test_a_run_in_another_layout_is_of_one_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["plan", "llama-3.1-8b", "--gpu", "l4,l40s", "--gpus", "1", *WORDS[6:], "--bench-json", str(tmp_path / "x")]
    assert main(words) == 2 and "a run is of one plan" in capsys.readouterr().err


# ---- runs ---------------------------------------------------------------------------------------------------------------------


def test_the_bench_file_says_the_rate_that_was_asked_for() -> None:
    """Few arrivals drawn at 4 requests/s come at another rate, which has a field of its own."""
    asked = apexsim.plan("llama-3.1-8b", gpu="h100:1", prompt_len=100, output_len=10, request_rate=4, num_requests=50)
    assert bench_json(asked)["request_rate"] == 4.0 != bench_json(asked)["request_throughput"]


def test_the_bench_file_is_read_as_a_measured_run_with_the_same_numbers(tmp_path: Path, study: Any) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(bench_json(study)), encoding="utf-8")
    was, said = measured(read_run(str(path))), study.ranked[0].metrics
    assert (was.completed, was.prompt_tokens, was.output_tokens) == (said.completed, said.prompt_tokens, said.output_tokens)
    for ours, theirs in ((said.ttft, was.ttft), (said.tpot, was.tpot), (said.e2el, was.e2el)):
        assert (ours.mean, ours.p95) == pytest.approx((theirs.mean, theirs.p95), rel=1e-9)
    (passed,) = read_results(str(path))  # a calibration learns nothing from what it was told itself
    assert isinstance(passed, Passed) and "prediction of apexsim" in str(passed)
    path.write_text(json.dumps(bench_json(study) | {"backend": "openai"}), encoding="utf-8")
    assert not any(isinstance(run, Passed) for run in read_results(str(path)))


def test_the_benchmark_report_is_known_to_its_schema_and_says_that_it_is_predicted(study: Any) -> None:
    yaml = pytest.importorskip("yaml")
    held = yaml.safe_load(benchmark_report(study))
    assert list(unknown("benchmark-report", held)) == []
    assert held["version"] == "0.2" and "predicted" in held["run"]["keywords"]
    aggregate = held["results"]["request_performance"]["aggregate"]
    assert aggregate["latency"]["time_to_first_token"]["p95"] == pytest.approx(study.ranked[0].metrics.ttft.p95)
    assert benchmark_report(study) == benchmark_report(api.simulate("llama-3.1-8b", "TP1", **ASKED))  # the same bytes for the same question


# ---- before and after -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("results")
    before, after = str(folder / "before.json"), str(folder / "after.json")
    main([*WORDS, "--json", before])
    main([*WORDS[:4], "--gpu", "l40s:1", *WORDS[6:], "--max-num-seqs", "7", "--json", after])
    return before, after


def test_compare_says_what_changed_and_where_the_time_went(results: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["compare", *results, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    changed = {row["name"]: (row["before"], row["after"]) for row in found["changed"]}
    assert changed["gpu"] == ("l4:1", "l40s:1") and changed["engine.max_num_seqs"][1] == 7 and "plan" not in changed
    ttft = next(row for row in found["metrics"] if row["metric"] == "TTFT p95")
    assert ttft["after"] < ttft["before"]
    first = found["why"][0]
    assert abs(first["after_gpu_s"] - first["before_gpu_s"]) == max(abs(r["after_gpu_s"] - r["before_gpu_s"]) for r in found["why"])
    assert main(["compare", *results]) == 0
    assert "l4:1 → l40s:1" in capsys.readouterr().out


def test_a_result_compared_with_itself_is_the_same(results: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["compare", results[0], results[0]]) == 0
    out = capsys.readouterr().out
    assert "Nothing differs by more than a comparison can tell" in out and "changed  nothing" in out


@pytest.mark.parametrize(("text", "told"), [
    ("{}", "expected a study of format"), ("[1]", "expected a study"), ("x", "is no JSON"),
    ('{"format": "apexsim.study/2"}', "not complete"), ('{"format": "apexsim.study/2", "inputs": {}, "best": 3}', "not complete"),
])  # fmt: skip
def test_files_that_are_no_results_are_one_line(text: str, told: str, tmp_path: Path, results: tuple[str, str],
                                                capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    capsys.readouterr()
    assert main(["compare", str(path), results[0]]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


@pytest.mark.parametrize("more", [{"shared_prefix": "800x3"}, {}], ids=str)
def test_a_run_is_compared_with_what_its_prompts_have_in_common(tmp_path: Path, more: dict[str, Any]) -> None:
    """A perfect prediction is told to be one, also where a prefix cache finds most of every prompt."""
    asked = {"gpu": "l4:1", "prompt_len": 100, "output_len": 12, "num_requests": 60, "request_rate": 2.0}
    study = api.simulate("llama-3.1-8b", "TP1", **asked, **more)
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(bench_json(study)), encoding="utf-8")
    found = compare(read_run(path), "llama-3.1-8b", "TP1", {"gpu": "l4:1", "engine": study.setting.engine.label.replace(" ", "@")})
    assert found.off("ttft") == pytest.approx(0.0, abs=1e-6) and found.off("e2el") == pytest.approx(0.0, abs=1e-6)
    assert (run_json(read_run(path)).get("prefix_ids") is None) is (not more)
