"""What people get wrong: one clear line and exit code 2 or 3, no traceback, no wrong number, nothing destroyed."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from apexsim.cli import main
from apexsim.cli.outside import write_atomic
from apexsim.slo import parse_slos
from lines import varied

EXAMPLES = Path(__file__).parents[1] / "examples"
TRACE = EXAMPLES / "creation_05.jsonl"
AXES = ["--gpu", "h100-sxm", "--gpus", "1"]
GOOD = '{"StartTimeOffset": 0, "ContextTokens": 10, "GeneratedTokens": 5}\n'
STAMPS = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
Capture = pytest.CaptureFixture[str]


def refused(capsys: Capture, *words: object) -> str:
    """The one line of a refusal."""
    code = main(varied([str(word) for word in words]))
    out, err = capsys.readouterr()
    assert (code in (2, 3), out, err.count("\n")) == (True, "", 1), (code, out, err)
    return err


# ---- files in and out ----------------------------------------------------------------------------------------------

SAME = [
    ["simulate", "llama-3.1-8b", "--plan", "TP1", *AXES, "--trace", "t", "--json", "t"],
    ["plan", "llama-3.1-8b", *AXES, "--trace", "t", "-o", "./t"],
    ["plan", "t", *AXES, "--prompt-len", "9", "--output-len", "9", "-o", "t"],
    ["validate", "t", "--json", "t"],
    ["trace", "tokenize", "t", "--chars-per-token", "4", "-o", "t"],
    ["trace", "synth", "--like", "t", "-o", "t"],
    ["trace", "describe", "t", "--plot", "t"],
    ["replay", "t", "--url", "http://127.0.0.1:9", "--model", "m", "--json", "t"],
]


@pytest.mark.parametrize("words", SAME, ids=" ".join)
def test_an_input_is_not_overwritten(words: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t").write_text(GOOD)
    assert "is the input and would be overwritten" in refused(capsys, *words) and Path("t").read_text() == GOOD


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "llama-3.1-8b", "--gpu", "~nouser:8"], ["fit", "~nouser/x.json", *AXES], ["device", "check", "~nouser/x"],
        ["simulate", "llama-3.1-8b", "--plan", "TP1", *AXES, "--trace", "~nouser/t.csv"],
        ["trace", "synth", "--like", "~nouser/t", "--num-requests", "2", "-o", "~nouser/u"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_home_that_nobody_has_is_a_path_like_others(words: list[str], capsys: Capture) -> None:
    assert "nouser" in refused(capsys, *words)


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, read = tmp_path / "p", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert main(["trace", "convert", str(TRACE), "-o", str(pipe)]) == 0
    reader.join(10)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and read[0].count("\n") == 512
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line() -> None:
    with pytest.raises(Exception, match="No space left"):
        write_atomic("/dev/full", "x", "--output")
    assert Path("/dev/full").is_char_device()
    words = [sys.executable, "-m", "apexsim", "trace", "convert", str(TRACE)]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    said = done.stderr.removeprefix("apexsim: trace convert is running …\n")  # on a slow machine
    assert (done.returncode, said) == (2, "apexsim: No space left on device\n")


@pytest.mark.parametrize("pack", ["cat", "gzip -c"])
def test_a_trace_is_read_from_a_pipe(pack: str) -> None:
    words = f"{pack} {TRACE} | {sys.executable} -m apexsim trace describe /dev/stdin"
    done = subprocess.run(words, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "requests     512" in done.stdout


# ---- traces --------------------------------------------------------------------------------------------------------

FILES = [
    (STAMPS + "9999-01-01,1,2\n1000-01-01,1,2\n", "t:2: 'TIMESTAMP' is not a date and time: '9999-01-01'; expected a year from"),
    (STAMPS + "1700000000,1,2\n", "for numbers: --time-unit UNIT"),
    (STAMPS + "2024-01-01,1,2\ntoday,1,2\n", "t:3: 'TIMESTAMP' is not a date and time"),
    ("arrived_at,arrived_at,num_prefill_tokens,num_decode_tokens\n1,2,3,4\n", "t:1: the header names 'arrived_at' twice"),
]


@pytest.mark.parametrize(("text", "told"), FILES, ids=[told[:40] for _, told in FILES])
def test_a_trace_that_would_give_wrong_numbers_is_refused(
    text: str, told: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t").write_text(text)
    assert told in refused(capsys, "trace", "describe", "t")
    assert told in refused(capsys, "simulate", "llama-3.1-8b", "--plan", "TP1", *AXES, "--trace", "t")


MADE = ["trace", "synth", "--prompt-len", "5", "--output-len", "5", "--num-requests", "3"]
NUMBERS = [
    (["trace", "scale", TRACE, "--prompt-factor", "1e300"], "would have a request of"),
    (["trace", "scale", TRACE, "--rate-factor", "1e-300"], "would last"),
    (["trace", "scale", TRACE, "--rate-factor", "inf"], "expected a finite number above 0, got inf"),
    (["trace", "scale", TRACE, "--request-rate", "1e-300"], "would last"),
    ([*MADE, "--prompt-len", "1e18"], "at most 1,073,741,824"),
    ([*MADE, "--prompt-cv", "inf"], "expected a finite number"),
    ([*MADE, "--request-rate", "1e-300"], "would last"),
    ([*MADE, "--request-rate", "1", "--burstiness", "inf"], "expected a finite number"),
]


@pytest.mark.parametrize(("words", "told"), NUMBERS, ids=lambda v: " ".join(map(str, v[-2:])) if isinstance(v, list) else None)
def test_numbers_out_of_all_proportion_are_refused(words: list[object], told: str, capsys: Capture) -> None:
    assert told in refused(capsys, *words)


def test_an_endless_rate_is_all_at_once(capsys: Capture) -> None:
    assert main([*MADE, "--request-rate", "inf"]) == 0 and capsys.readouterr().out.count('"StartTimeOffset": 0,') == 3


# ---- accelerators --------------------------------------------------------------------------------------------------

WORK = ["--gpus", "1", "--prompt-len", "500", "--output-len", "50", "--num-requests", "5"]
GPUS = [
    ("h100-sxm@5000", "no clock of 5000 MHz; h100-sxm runs from 198 to 1980 MHz"),
    ("h100-sxm@77", "no clock of 77 MHz"),
    ("h100-sxm@abc", "'abc' is no clock in MHz; write e.g. h100-sxm@1200"),
    ("h100-sxm@", "'' is no clock in MHz"),
    ("h100-sxm@-5", "'-5' is no clock in MHz"),
    ("h100-sxm@1200@1300", "has a clock already"),
    (str(EXAMPLES), "the folder holds no device.toml"),
    ("x" * 5000, "File name too long"),
    ("", "--gpu: it is given without a value"),
]


@pytest.mark.parametrize(("gpu", "told"), GPUS, ids=[told for _, told in GPUS])
def test_an_unknown_clock_or_device_is_refused(gpu: str, told: str, capsys: Capture) -> None:
    assert told in refused(capsys, "plan", "llama-3.1-8b", "--gpu", gpu, *WORK)


@pytest.mark.parametrize(("mhz", "told"), [
    ("77", "--frequency: no clock of 77"), ("-1", "at least 0"), ("abc", "expected a whole number, got 'abc'"),
])  # fmt: skip
def test_an_unknown_frequency_is_refused(mhz: str, told: str, capsys: Capture) -> None:
    assert told in refused(capsys, "apex", "--model", "llama3-8b", "--num-gpus-per-node", "1", "--frequency", mhz)


UNITS = [("time(us)", "time(ms)", "no row reaches more than"), ("time(us)", "time(ns)", "times the peak's speed")]


@pytest.mark.parametrize(("before", "after", "told"), UNITS, ids=[after for _, after, _ in UNITS])
def test_a_device_in_another_unit_is_not_planned_with(before: str, after: str, told: str, tmp_path: Path, capsys: Capture) -> None:
    folder = Path(shutil.copytree(EXAMPLES / "devices/npu-1", tmp_path / "npu"))
    sheet = folder / "gemm_0.csv"
    sheet.write_text(sheet.read_text().replace(before, after))
    assert told in refused(capsys, "plan", "llama-3.1-8b", "--gpu", folder, *WORK)


# ---- questions -----------------------------------------------------------------------------------------------------

APEX = ["apex", "--model", "llama3-8b", "--num-gpus-per-node", "1", "--num-requests", "5"]
ASK = ["simulate", "llama-3.1-8b", "--plan", "TP1", *AXES, "--prompt-len", "100", "--output-len", "10"]
ASKED = [
    ([*APEX, "--request-percentiles", "101"], "--request-percentiles: expected a whole number of at least 0 and at most 100"),
    ([*APEX, "--token-percentiles", "50", "500"], "--token-percentiles: expected a whole number of at least 0"),
    ([*ASK, "--ttft", "500", "--risk", "0.7"], "--risk: expected a number of at least 0 and at most 0.5, got 0.7"),
    ([*APEX, "--trace-file", ""], "--trace-file: it is given without a value"),
    ([*APEX, "--kv-dtype", ""], "--kv-dtype: it is given without a value"),
    ([*APEX, "--prompt-len", "9" * 20], "at most 1,073,741,824"),
    ([*APEX, "--capacity-factor", "1e30"], "at most 1,000"),
    ([*APEX, "--num-experts", "8", "--topk", "9"], "9 experts per token of 8"),
    ([*APEX[:2], "whisper", *APEX[3:], "--audio-seconds", "1e9"], "recordings of 33,333,334 windows are more than 20,000,000"),
    ([*APEX[:2], "clip", *APEX[3:], "--image-size", "100000"], "at most 8,192"),
    ([*ASK, "--prompt-len", "9" * 20], "at most 1,073,741,824"),
    ([*ASK, "--concurrency", "9" * 20], "at most 20,000,000"),
    ([*ASK, "--request-rate", "1e-300"], "requests would last"),
    ([*ASK, "--slo", ""], "--slo: it is given without a value"),
    (
        ["simulate", "mixtral-8x7b", "--gpu", "h100:1", *ASK[ASK.index("--plan") :], "--expert-load", "none.json"],
        "the file of expert counts does not exist",
    ),
]


@pytest.mark.parametrize(("words", "told"), ASKED, ids=[told for _, told in ASKED])
def test_a_question_that_cannot_be_meant_is_refused(words: list[str], told: str, capsys: Capture) -> None:
    assert told in refused(capsys, *words)


@pytest.mark.parametrize(
    ("text", "told"), [("[" * 100_000, "not JSON"), ('{"model_type": "llama", "quantization_config": 5}', "must be an object, got int")]
)
def test_a_broken_configuration_is_refused(text: str, told: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "config.json").write_text(text)
    assert told in refused(capsys, "fit", tmp_path, *AXES)


# ---- measured systems ----------------------------------------------------------------------------------------------

CELLS = [
    ("backend", "orca", "unknown engine 'orca'"),
    ("attn_tp", "0", "'attn_tp' is no whole number from 1 to 4,096: 0"),
    ("replicas", "1e300", "'replicas' is no whole number"),
    ("isl", "many", "'isl' is no number: 'many'"),
    ("num_prompts", "inf", "'num_prompts' is no number: 'inf'"),
    ("ttft_mean_ms", "-3", "'ttft_mean_ms' is no measured value: -3"),
]


@pytest.mark.parametrize(("column", "cell", "told"), CELLS, ids=[told for _, _, told in CELLS])
def test_a_measured_row_that_cannot_be_is_skipped_with_the_reason(
    column: str, cell: str, told: str, tmp_path: Path, capsys: Capture
) -> None:
    with (EXAMPLES.parent / "validation/closed_loop.csv").open(newline="") as file:
        rows = list(itertools.islice(csv.DictReader(file), 2))
    with (tmp_path / "m.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([rows[0], rows[1] | {column: cell}])
    assert main(["validate", str(tmp_path / "m.csv"), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in found["rows"]] == ["ok", "skipped"] and told in found["rows"][1]["reason"]


def test_a_timed_request_without_a_number_is_named(tmp_path: Path, capsys: Capture) -> None:
    lines = (EXAMPLES.parent / "validation/request_level.csv").read_text().splitlines()[:3]
    at = lines[0].split(",").index("ttft_s")
    cells = lines[2].split(",")
    (tmp_path / "m.csv").write_text("\n".join([*lines[:2], ",".join([*cells[:at], "soon", *cells[at + 1 :]])]) + "\n")
    assert "'ttft_s' is no number: 'soon'" in refused(capsys, "validate", tmp_path / "m.csv")


@pytest.mark.parametrize("name", [".", "../..", "/", "x" * 300])
def test_a_device_without_a_name_does_not_replace_all_others(
    name: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APEXSIM_DEVICES", str(tmp_path))
    (tmp_path / "kept").mkdir()
    assert "is no name of a device" in refused(capsys, "device", "add", EXAMPLES / "devices/npu-1", "--name", name, "--force")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_an_empty_log_holds_no_line(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "log").write_text("")
    assert "holds no memory line" in refused(capsys, "fit", "llama-3.1-8b", *AXES, "--log", tmp_path / "log")


@pytest.mark.parametrize(("limits", "told"), [
    (("ttft:p95=1s", "ttft:p95=2s"), "ttft:p95=2s has no effect beside ttft:p95=1s"),
    (("ttft:p50=2s", "ttft:p95=1s"), "no p50 is above its p95"), (("ttft:p95=2s", "e2e:p95=1s"), "ttft is a part of e2e"),
    (("tpot=50", "tpot=60"), "two limits of one thing"), (("queue:mean=3s", "ttft:mean=3s"), "queue is a part of ttft"),
])  # fmt: skip
@pytest.mark.parametrize("verb", ["plan", "size"])
def test_a_limit_that_another_makes_idle_is_refused(verb: str, limits: tuple[str, ...], told: str, capsys: Capture) -> None:
    words = [verb, "llama-3.1-8b", "--gpu", "l4:1", "--prompt-len", "64", "--output-len", "8", *(w for s in limits for w in ("--slo", s))]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


def test_limits_that_may_both_be_missed_stand_together() -> None:
    fine = ("ttft:p50=500ms", "ttft:p95=1s", "ttft=2s", "e2e:p95=9s", "tpot:mean=50ms", "tpot:p95=40ms", "a:ttft:p95=1s", "b:ttft:p95=2s")
    assert len(parse_slos(fine)) == len(fine)


@pytest.mark.parametrize("words", [["plan", "--against"], ["compare"]], ids=" ".join)
def test_a_study_of_another_version_says_so(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    old = tmp_path / "old.json"
    old.write_text('{"format": "apexsim.study/1", "ranked": []}', encoding="utf-8")
    question = ["llama-3.1-8b", "--gpu", "l4:1", "--prompt-len", "64", "--output-len", "8", "--num-requests", "4"]
    asked = ["plan", *question, "--against", str(old)] if words[0] == "plan" else ["compare", str(old), str(old)]
    assert main(asked) == 2
    err = capsys.readouterr().err
    assert "got apexsim.study/1" in err and "another version of apexsim wrote it" in err and err.count("\n") == 1


def test_a_budget_that_is_too_small_names_one_that_is_enough(capsys: Capture) -> None:
    words = ["size", "llama-3.1-8b", "--gpu", "l4,l40s", "--request-rate", "6", "--prompt-len", "500", "--output-len", "60",
             "--num-requests", "200", "--ttft", "600ms"]  # fmt: skip
    assert main([*words, "--budget", "0.9"]) == 4
    told = " ".join(capsys.readouterr().out.split())
    enough = told.partition("--budget ")[2].split()[0]
    assert float(enough) > 0.9 and main([*words, "--budget", enough]) == 0


@pytest.mark.parametrize("form", [["--json"], ["--csv"], ["--html"], ["--emit", "run.sh", "-o"]], ids=" ".join)
def test_a_disk_that_fills_is_one_line(form: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    words = ["plan", "llama-3.1-8b", "--gpu", "l4:1", "--prompt-len", "64", "--output-len", "8", "--num-requests", "4"]
    assert main([*words, *form, str(tmp_path / ("out.html" if "--html" in form else "out"))]) == 2
    err = capsys.readouterr().err
    assert "No space left on device" in err and err.count("apexsim: -") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_budget_below_all_numbers_that_are_asked_for_is_refused(capsys: Capture) -> None:
    words = ["size", "llama-3.1-8b", "--gpu", "h100", "--gpus", "4", "--find", "gpus", "--request-rate", "2", "--workload", "chat",
             "--num-requests", "99", "--ttft", "1s", "--budget", "3"]  # fmt: skip
    assert main(words) == 2
    assert "--budget: $3 per hour pay for none of the numbers of GPUs" in capsys.readouterr().err
