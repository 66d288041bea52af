"""What was passed over in silence once, or told as something else: one line each, with the exit code of its kind."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from apexsim.cli import main

ROOT = Path(__file__).parent.parent
LOAD = ["--prompt-len", "20", "--output-len", "4", "--num-requests", "4", "--request-rate", "1"]
HEAD = "time,prompt_tokens,completion_tokens\n"
TRACES = {
    "two units": (HEAD + "1700000000,9,4\n1700000001,9,4\n1700000002000,9,4\n1700000003000,9,4\n", "csv", "of two units"),
    "two finer units": (HEAD + "1700000000000,9,4\n1700000001000,9,4\n1700000002000000,9,4\n", "csv", "ms and us"),
    "a zone of some": (HEAD + "2023-11-16T18:15:46Z,9,4\n2023-11-16T20:15:50,9,4\n", "csv", "with a zone and without one"),
    "ids of some": ('{"timestamp":0,"input_length":600,"output_length":9}\n'
                    '{"timestamp":900,"input_length":600,"output_length":9,"hash_ids":[1,2]}\n', "jsonl", "'hash_ids' is missing"),
}  # fmt: skip


def refused(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The line that says why."""
    assert main(words) == code
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and told[0].startswith("apexsim: ") and "fault of apexsim" not in told[0], told
    return told[0]


@pytest.mark.parametrize("kind", TRACES)
def test_a_trace_that_contradicts_itself_is_not_read(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, suffix, told = TRACES[kind]
    path = tmp_path / f"trace.{suffix}"
    path.write_text(text, encoding="utf-8")
    assert told in refused(["trace", "describe", str(path)], capsys)


@pytest.mark.parametrize(
    ("times", "unit"), [(range(2_000_000_000, 2_000_000_000_000, 2_000_000_000), "ns"), (range(1_700_000_000, 1_700_000_020), "s")]
)
def test_clocks_of_one_unit_are_read(times: range, unit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(HEAD + "".join(f"{time},9,4\n" for time in times), encoding="utf-8")
    assert main(["trace", "describe", str(path)]) == 0 and f"read as {unit} " in capsys.readouterr().out.replace(
        "read in", "read as"
    ).replace(":", " ")


@pytest.mark.parametrize(("file", "column"), [("offline.csv", "num_requests"), ("offline.csv", "isl"), ("energy.csv", "osl_mean")])
def test_a_zero_in_a_measured_row_spoils_no_other(file: str, column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (ROOT / "validation" / file).open(newline="", encoding="utf-8") as read:
        rows = list(csv.DictReader(read))[:3]
    path = tmp_path / file
    with path.open("w", newline="", encoding="utf-8") as written:
        writer = csv.DictWriter(written, list(rows[0]))
        writer.writeheader()
        writer.writerows([{**rows[0], column: "0"}, *rows[1:]])
    assert main(["validate", str(path)]) == 0 and "fault of apexsim" not in capsys.readouterr().err


def test_limits_that_no_replica_keeps_are_told_with_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(HEAD + "0,10,4\n30,10,4\n70,10,4\n", encoding="utf-8")
    fleet = ["fleet", "llama-3.1-8b", "--gpu", "l4:1", "--trace", str(path), "--every", "1min"]
    assert "TP1 on 1 × l4 comes nearest, with ttft:p95 of" in refused([*fleet, "--ttft", "0.01"], capsys, 4)
    assert "--hold" in refused([*fleet, "--ttft", "1s", "--policy", "instant", "--hold", "3"], capsys)


def test_an_answer_is_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study.json"
    assert main(["plan", "llama-3.1-8b", "--gpu", "l4:1", *LOAD, "--json", str(study)]) == 0
    capsys.readouterr()
    assert "no log" in refused(["fit", "llama-3.1-8b", "--gpu", "l4:1", "--tp", "1", "--log", str(study)], capsys).replace(
        "an answer of apexsim", "no log"
    )
    assert json.loads(study.read_text(encoding="utf-8"))["format"].startswith("apexsim.")


@pytest.mark.parametrize("figure", ["bandwidth_gb_s = 3.35", "bandwidth_gb_s = 33500"])
def test_measured_kernels_are_those_of_a_gpu_as_fast(figure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "src/apexsim/data/gpus/h100-sxm.toml").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("bandwidth_gb_s"))
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(line, figure).replace('name = "h100-sxm"', 'name = "mine"'), encoding="utf-8")
    assert "were timed on h100-sxm" in refused(["plan", "llama-3.1-8b", "--gpu", str(path), "--gpus", "1", *LOAD], capsys)
