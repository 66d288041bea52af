"""Files that users write: whatever a value is, one line says what is wrong with it, in every kind of file alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apexsim.cli import main

LOAD = ["--prompt-len", "20", "--output-len", "4", "--num-requests", "4", "--request-rate", "1"]
PLAN = ["plan", "llama-3.1-8b", "--gpu", "h100:1", *LOAD]
FLEET = '[chat]\nmodel = "llama-3.1-8b"\ntrace = "t.csv"\nttft = "1s"\n'
WORK = "[mine]\npercent = [0, 100]\nprompt = [1, 9]\noutput = [1, 9]\n"
GPU = 'base = "l4"\n[power]\n'
ENGINE = 'about = "mine"\nengine = "vllm"\n[[row]]\nversion = "1"\ninherits = "vllm@0.19.0"\n[row.rules]\n'
VALUES = {
    "a day": "1979-05-27", "a time": "07:32:00", "a moment": "1979-05-27T07:32:00Z", "a long number": "1" + "0" * 400,
    "a very long number": "1" + "0" * 5000, "no value": "= 3", "a deep list": "[" * 2000 + "]" * 2000,
    "a text": '"\\u001b[2J"', "not a number": "nan",
}  # fmt: skip
KINDS = {
    "models": (FLEET + "begins = {}\n", ["fleet", "own.toml", "--gpu", "l4", "--gpus", "2", "--every", "1min"]),
    "models, a number": (FLEET + "priority = {}\n", ["fleet", "own.toml", "--gpu", "l4", "--gpus", "2", "--every", "1min"]),
    "workload": (WORK + "requests = {}\n", ["plan", "llama-3.1-8b", "--gpu", "l4:1", "--workload", "own.toml", "--request-rate", "1"]),
    "GPU": (GPU + "tdp_w = {}\n", ["plan", "llama-3.1-8b", "--gpu", "own.toml", *LOAD]),
    "engine": (ENGINE + 'max_num_seqs = [{}, "code"]\n[sources]\ncode = "mine"\n', [*PLAN, "--engine", "own"]),
}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_nothing_is_told_by_is_one_line(
    kind: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APEXSIM_ENGINES", str(tmp_path))
    (tmp_path / "t.csv").write_text("arrival,prompt_tokens,output_tokens\n0,10,4\n30,10,4\n70,10,4\n")
    text, words = KINDS[kind]
    (tmp_path / "own.toml").write_text(text.format(VALUES[value]), encoding="utf-8")
    assert main(words) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("apexsim: ") and "\n" not in told and "fault" not in told and "own" in told and "\x1b" not in told


@pytest.mark.parametrize("path", [
    ("ranked", 0, "metrics", "e2el_ms", "mean"), ("ranked", 0, "metrics", "completed"), ("ranked", 0, "account", "seconds", "experts"),
    ("ranked", 0, "plan", "devices"), ("ranked", 0, "metrics", "ttft_ms"), ("ranked", 0, "metrics", "tpot_ms", "p95"),
])  # fmt: skip
@pytest.mark.parametrize("value", ["1" + "0" * 400, '"1"', "{}", "[]", "-5", "true"])
def test_a_study_with_another_value_is_no_study(
    path: tuple[str | int, ...], value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number that is none is no difference, and never `nothing differs`."""
    monkeypatch.chdir(tmp_path)
    assert main([*PLAN, "--json", "good.json"]) == 0
    whole = json.loads(Path("good.json").read_text(encoding="utf-8"))
    for side in (whole["ranked"][0], whole["best"]):
        at = side
        for key in path[2:-1]:
            at = at[key]
        at[path[-1]] = "@"
    Path("bad.json").write_text(json.dumps(whole).replace('"@"', value), encoding="utf-8")
    capsys.readouterr()
    status = main(["compare", "good.json", "bad.json"])
    out = capsys.readouterr()
    assert "fault of apexsim" not in out.err and "Nothing differs" not in out.out and status == 2, (status, out.out[:300])
