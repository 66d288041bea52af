"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import apexsim
from apexsim import api
from apexsim.cli import commands, main
from apexsim.cli.options import question
from apexsim.cli.outside import write_atomic
from apexsim.cli.rows import Opt, options_of
from apexsim.errors import InputError
from lines import varied

SMALL = [
    "llama-3.1-8b",
    "--gpu",
    "h100-sxm",
    "--gpus",
    "2",
    "--prompt-len",
    "64",
    "--output-len",
    "8",
    "--num-requests",
    "20",
]
Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command."""
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: Capture, *words: str, code: int = 2) -> str:
    """The one line that says why a command was refused."""
    got, out, err = run(capsys, *varied(words))
    assert (got, out, err.count("\n")) == (code, "", 1) and err.startswith("apexsim: "), (got, out, err)
    return err


def without(words: Sequence[str], option: str) -> list[str]:
    i = list(words).index(option)
    return [*words[:i], *words[i + 2 :]]


# ---- help ----------------------------------------------------------------------------------------------------------


def test_help_loads_nothing_heavy() -> None:
    """What makes it answer at once; `bench/run.py` times it."""
    code = (
        "import sys; from apexsim.cli import main; code = main(['--help']); "
        "print(code, {'numba', 'numpy', 'pydantic', 'httpx', 'ray', 'torch', 'matplotlib'} & set(sys.modules), file=sys.stderr)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stderr.splitlines()[-1] == "0 set()" and "plan" in out.stdout


def test_a_question_loads_what_it_needs() -> None:
    """Each module that nobody uses is a millisecond or more of every command."""
    code = (
        "import sys, io; out, sys.stdout = sys.stdout, io.StringIO(); from apexsim.cli import main; "
        "main(['plan', 'llama-3.1-8b', '--gpu', 'l4:1', '--prompt-len', '100', '--output-len', '9', '--num-requests', '5']); "
        "print(*(name for name in sys.modules if name.startswith('apexsim.')), file=out)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    searches = ("size", "fleet", "tune", "sensitivity", "worth", "pairs", "chain", "curve")
    pages = ("html", "sweep", "fleetpage", "plot", "emit")
    others = {"validate.replay", "validate.kinds", "replay", "calibrate.fit", "profile.run"} | {f"search.{name}" for name in searches}
    assert (
        not {f"apexsim.{name}" for name in others | {f"report.{name}" for name in pages}} & set(loaded) and "apexsim.report.text" in loaded
    )


def test_importing_the_package_and_its_command_line_loads_nothing_heavy() -> None:
    code = "import sys, apexsim, apexsim.cli; print({'numba', 'numpy', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


def test_no_command_shows_the_help(capsys: Capture) -> None:
    code, out, _ = run(capsys)
    assert code == 0 and all(name.split()[0] in out for name in commands.RUN)


@pytest.mark.parametrize("command", commands.RUN)
def test_every_command_has_help_with_examples(command: str, capsys: Capture) -> None:
    code, out, _ = run(capsys, *command.split(), "--help")
    assert code == 0 and "Examples:" in out


def test_version(capsys: Capture) -> None:
    assert run(capsys, "--version")[1] == f"apexsim {apexsim.__version__}\n"


def test_the_version_is_that_of_the_project_file() -> None:
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{apexsim.__version__}"' in project


# ---- public names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", apexsim.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(apexsim, name) is not None


def test_plan_is_both_the_package_and_the_verb() -> None:
    study = apexsim.plan("llama-3.1-8b", gpu="h100-sxm", gpus=1, prompt_len=64, output_len=8, num_requests=5)
    assert apexsim.plan.plan.Plan is type(study.ranked[0].plan)


# ---- plans ---------------------------------------------------------------------------------------------------------


def test_plan_prints_a_report(capsys: Capture) -> None:
    code, out, err = run(capsys, "plan", *SMALL)
    assert code == 0 and "ranked" in out and "in detail" in out and err == ""


def test_simulate_takes_the_shorthand_that_plan_prints(capsys: Capture) -> None:
    for entry in json.loads(run(capsys, "plan", *SMALL, "--json", "-")[1])["ranked"]:
        again = json.loads(run(capsys, "simulate", *SMALL, "--plan", entry["shorthand"], "--json", "-")[1])
        assert again["ranked"][0]["metrics"] == entry["metrics"]


def test_json_alone_on_standard_output_and_the_same_bytes_twice(capsys: Capture) -> None:
    first = run(capsys, "plan", *SMALL, "--json", "-")[1]
    assert json.loads(first)["format"] == "apexsim.study/2" and run(capsys, "plan", *SMALL, "--json", "-")[1] == first


def test_files_are_replaced_and_nothing_else_is_touched(tmp_path: Path, capsys: Capture) -> None:
    report, data = tmp_path / "report.txt", tmp_path / "study.json"
    data.write_text("old", encoding="utf-8")
    code, out, _ = run(capsys, "plan", *SMALL, "-o", str(report), "--json", str(data))
    assert (code, out, sorted(tmp_path.iterdir())) == (0, "", [report, data])
    assert "in detail" in report.read_text(encoding="utf-8") and json.loads(data.read_text(encoding="utf-8"))["ranked"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "study.json"
    target.write_text("old", encoding="utf-8")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(InputError, match="No space left"):
        write_atomic(str(target), "new", "--json")
    assert (target.read_text(encoding="utf-8"), list(tmp_path.iterdir())) == ("old", [target])


def test_a_link_keeps_pointing_to_its_file(tmp_path: Path) -> None:
    target, link = tmp_path / "real.json", tmp_path / "link.json"
    target.write_text("old", encoding="utf-8")
    link.symlink_to(target)
    write_atomic(str(link), "new", "--json")
    assert link.is_symlink() and target.read_text(encoding="utf-8") == "new"


def test_top_keeps_the_heuristic_plan_in_sight(capsys: Capture) -> None:
    out = run(capsys, "plan", *SMALL, "--top", "1")[1]
    assert "heuristic" in out.split("ranked")[1].split("in detail")[0]


def test_engine_options_are_read_as_engines_spell_them(capsys: Capture) -> None:
    found = json.loads(run(capsys, "plan", *SMALL, "--max_num_seqs=7", "--block-size", "32", "--json", "-")[1])
    assert (found["understood"]["engine"]["max_num_seqs"], found["understood"]["engine"]["block_size"]) == (7, 32)


def test_options_reach_the_question() -> None:
    given = {opt.name: opt.default for opt in options_of("plan")}
    asked = question(
        {
            **given,
            "gpu_memory_utilization": 0.8,
            "enforce_eager": True,
            "slo": ["ttft<1s"],
            "request_rate": float("inf"),
        }
    )
    assert (
        asked["settings"] == {"memory_fraction": 0.8, "pad": ()} and asked["slos"] == ("ttft=1s",) and asked["request_rate"] == float("inf")
    )


# ---- catalogues ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command,word", [("models", "llama-3.1-70b"), ("gpus", "h100-sxm")])
def test_catalogues_filter_and_speak_json(command: str, word: str, capsys: Capture) -> None:
    rows = json.loads(run(capsys, command, word, "--json")[1])
    table = run(capsys, command, word)[1].splitlines()
    assert rows and all(row["name"] in line for row, line in zip(rows, table[1:], strict=False))
    told = " ".join(" ".join(table[len(rows) + 1 :]).split())
    assert all(" ".join(note.split()) in told for row in rows for note in row.get("notes", ())) and bool(told) == (command == "gpus")


# ---- refusals: one line, exit 2 or 3 --------------------------------------------------------------------------------

BAD = [
    (["plann"], "did you mean 'plan'"),
    (["list"], "no such command 'list'; known: apex, calibrate, compare, device, engines"),
    (["trace", "discribe"], "did you mean 'describe'?; see: apexsim trace --help"),
    (["gemm"], "no such command 'gemm'; known: apex"),
    (["plan"], "missing argument 'MODEL'"),
    (["plan", *without(SMALL, "--gpus")], "missing option '--gpus'"),
    (["plan", *SMALL, "--request-rat", "3"], "--request-rate"),
    (["plan", *SMALL, "--gpus", "0"], "--gpus: expected a whole number of at least 1, got 0"),
    (["plan", *SMALL, "--gpus", "two"], "--gpus: expected a whole number, got 'two'"),
    (["plan", *SMALL, "--request-rate", "fast"], "--request-rate: expected a number, got 'fast'"),
    (["plan", *SMALL, "--nodes", "-1"], "--nodes"),
    (["plan", *SMALL, "--request-rate", "nan"], "--request-rate: expected a number above 0, got nan"),
    (["plan", *SMALL, "--prompt-len", "-5"], "--prompt-len"),
    (["plan", *SMALL, "--gpu-memory-utilization", "1.5"], "at most 1"),
    (["plan", *SMALL, "--gpu", "h1000-sxm"], "h100-sxm"),
    (["plan", *SMALL, "--engine", "vlm"], "did you mean vllm"),
    (["plan", "lama-3.1-8b", *SMALL[1:]], "llama-3.1-8b"),
    (["plan", *SMALL, "--objective", "tfft"], "did you mean ttft"),
    (["plan", *SMALL, "--objective", "goodput"], "--goodput"),
    (["plan", *SMALL, "--slo", "ttft<fast"], "--slo"),
    (["plan", *SMALL[:5], "--trace", "missing.jsonl"], "missing.jsonl"),
    (["plan", *SMALL[:5]], "--trace"),
    (["plan", *SMALL, "--max-model-len", "32"], "--too-long"),
    (["plan", *SMALL, "--json", "/no/such/folder/x.json"], "--json: the folder '/no/such/folder' does not exist"),
    (["plan", *SMALL, "-o", "x.json", "--json", "x.json"], "cannot share"),
    (["plan", *SMALL, "--enable-chunked-prefill", "--no-enable-chunked-prefill"], "both"),
    (["simulate", *SMALL, "--plan", "TP4"], "takes 4 GPUs"),
    (["simulate", *SMALL, "--plan", "fast"], "expected e.g. TP8"),
    (["simulate", *SMALL[:4], "3", *SMALL[5:], "--plan", "TP3"], "cannot be divided"),
]


@pytest.mark.parametrize("words,hint", BAD, ids=[hint for _, hint in BAD])
def test_bad_input_is_one_line_that_helps(words: list[str], hint: str, capsys: Capture) -> None:
    assert hint in refused(capsys, *words)


def test_a_model_that_fits_nowhere_exits_3_and_says_what_is_missing(capsys: Capture) -> None:
    words = ["llama-3.1-405b", "--gpu", "l4", *SMALL[3:]]
    assert "GiB short" in refused(capsys, "plan", *words, code=3)


def test_an_interrupted_run_is_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "plan", interrupt)
    assert "interrupted" in refused(capsys, "plan", *SMALL, code=130)


@pytest.mark.parametrize("value,ok", [(1, True), (0, False), (5, True), (6, False), (float("nan"), False)])
def test_limits_of_a_number(value: float, ok: bool) -> None:
    opt = Opt("x", float, None, "", least=1, most=5)
    if ok:
        return opt.check(value)
    with pytest.raises(InputError):
        opt.check(value)


@pytest.mark.parametrize(("more", "says"), [
    (["--engine", "vlm"], "no rows of engine 'vlm'"),
    (["--where", "orign=x"], "no label 'orign'"),
    (["--leave-out", "color"], "no label 'color'"),
])  # fmt: skip
def test_a_fit_of_nothing_is_refused(more: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(Path(__file__).parent.parent / "validation/open_loop.csv")
    assert main(["fit-host", file, *more]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
