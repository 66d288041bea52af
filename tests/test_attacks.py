"""A small share of the nightly attacks (scripts/attack.py), and one test for each kind of fault that they found."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jsonschema", reason="jsonschema is in the test extra")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import attack  # noqa: E402
from apexsim import api  # noqa: E402
from apexsim.cli import main  # noqa: E402
from apexsim.cli.outside import NUMBERS, tame_environment, write_atomic  # noqa: E402
from apexsim.errors import Infeasible, InputError  # noqa: E402
from hostile import BASES, KINDS, MADE, RUN, STANDING, dumped  # noqa: E402

CASES = 12  # of each kind; `make nightly` has 100,000
SMALL = ["llama-3.1-8b", "--gpu", "h100:1", *MADE]
Capture = pytest.CaptureFixture[str]
ENTRY = import_module("apexsim.cli.main")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The working folder as it was afterwards."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="cases are stopped by an alarm")
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_comes_is_answered_or_refused_in_one_line(kind: str, fast: None) -> None:
    attack.warm_up()
    faults = attack.attacked(kind, CASES, 1)
    assert not faults, "\n".join(f"{fault}: {case.told()}\n{found.err[-500:]}{found.trace}" for fault, (case, found) in faults.items())


def test_every_command_is_attacked() -> None:
    left = {name for name in ENTRY.RUN if name not in BASES}
    one = {f"profile {what}" for what in ("attention", "moe", "comm", "all")}  # which are one with `profile gemm`
    assert left == one | {"web"}  # which stays until it is ended: test_server


# ---- outputs -------------------------------------------------------------------------------------------------------


def test_a_picture_is_written_as_other_outputs_are(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    trace, real, link = tmp_path / "t.jsonl", tmp_path / "real.png", tmp_path / "link.png"
    trace.write_bytes(STANDING["t.jsonl"])
    real.write_bytes(b"old")
    link.symlink_to(real)
    assert main(["trace", "describe", str(trace), "--plot", str(link)]) == 0
    assert link.is_symlink() and real.read_bytes()[:4] == b"\x89PNG"
    assert main(["trace", "describe", str(trace), "--plot", os.devnull]) == 0
    assert not Path(os.devnull).is_file()


def test_no_two_outputs_share_standard_output(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "m.csv").write_bytes(STANDING["m.csv"])
    (tmp_path / "run.json").write_bytes(dumped(RUN))
    compare = ["replay", "--compare", str(tmp_path / "run.json"), "--model", "llama-3.1-8b", "--plan", "TP1", "--gpu", "h100:1"]
    for words in (["simulate", *SMALL, "--plan", "TP1"], ["plan", *SMALL], ["validate", str(tmp_path / "m.csv")], compare):
        assert main([*words, "--json=-", "-o", "-"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("json", ["-", "out.json"])
def test_what_was_measured_outlives_a_picture_that_fails(
    json: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apexsim.report import replaypage

    def fail(*_: object) -> bytes:
        raise InputError("no picture")

    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(replaypage, "drawn", fail)
    Path("run.json").write_bytes(dumped(RUN))
    words = ["replay", "--compare", "run.json", "--model", "llama-3.1-8b", "--plan", "TP1", "--gpu", "h100:1", "--plot", "p.png"]
    assert main([*words, "--json", json]) == 2
    import json as reader

    out = capsys.readouterr().out
    assert len(reader.loads(out if json == "-" else Path(json).read_text())["input_lens"]) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_failure_after_the_json_adds_no_second_one(tmp_path: Path, capsys: Capture) -> None:
    import json

    assert main(["simulate", *SMALL, "--plan", "TP1", "--json", "-", "-o", "/dev/full"]) == 2
    assert json.loads(capsys.readouterr().out)["best"]


def test_bytes_and_text_are_written_alike(tmp_path: Path) -> None:
    for content, kept in ((b"\x00\xff", b"\x00\xff"), ("é\ud83d", "é?".encode()), (["a", "b"], b"ab")):
        write_atomic(str(tmp_path / "x"), content, "--output")
        assert (tmp_path / "x").read_bytes() == kept and len(list(tmp_path.iterdir())) == 1


# ---- readers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["validate", "fit-host", "fit-power"])
def test_a_table_with_a_cell_too_few_or_another_column_is_one_line(command: str, tmp_path: Path, capsys: Capture) -> None:
    lines = (ROOT / "validation/request_level.csv").read_text().splitlines()[:3]
    for broken in ([*lines[:2], lines[2].rpartition(",")[0]], [lines[0].replace(",isl,", ",isll,"), *lines[1:]]):
        (tmp_path / "m.csv").write_text("\n".join(broken) + "\n")
        code = main([command, str(tmp_path / "m.csv")])
        assert (code, capsys.readouterr().err.count("\n")) == (2, 1)


@pytest.mark.parametrize("before", ["\n", "\r\n", " \n\n"])
def test_a_table_may_begin_with_empty_lines(before: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "t.csv").write_text(before + "hw,arrival_s,isl,osl\nx,1.5,7,3\nx,3,9,4\n", newline="")
    assert main(["trace", "describe", str(tmp_path / "t.csv")]) == 0


def test_no_part_of_an_address_is_shown_that_may_hold_a_secret() -> None:
    from apexsim.replay.wire import Target

    for url in ("http://h:1/v1?key=hunter2", "http://h:1/v1#hunter2", "http://u:hunter2@h:1/?a=hunter2#hunter2"):
        target = Target(url, "m")
        assert "hunter2" not in target.shown and ("hunter2" not in target.hidden("it was hunter2") or "#" in url)


def test_values_that_look_like_options_reach_the_fit(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "m.csv").write_bytes(STANDING["m.csv"])
    assert main(["fit-host", str(tmp_path / "m.csv"), "--engine", "sglang", "--only=-x"]) == 2
    assert "no such constant: '-x'" in capsys.readouterr().err


ODD = (None, True, -1, 0, 1.5, float("nan"), float("inf"), "x", "", [], {}, b"x", 10**30, 10**400, (1, 2), object())


@pytest.mark.parametrize("name", signature(api.ask).parameters)
def test_keywords_of_any_type_are_taken_or_refused_in_python_too(name: str) -> None:
    known = {"gpu": "h100:1", "prompt_len": 64, "output_len": 6, "num_requests": 6}
    for value in ODD:
        model = value if name == "model" else "llama-3.1-8b"
        with contextlib.suppress(InputError, Infeasible):
            api.simulate(model, "TP1", **(known if name == "model" else {**known, name: value}))  # type: ignore[arg-type]


def test_numbers_of_numpy_and_paths_are_taken(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(STANDING["t.jsonl"])
    lengths = {
        "prompt_len": np.int64(64),
        "output_len": np.int32(6),
        "num_requests": np.int64(6),
        "request_rate": np.float32(2),
        "price": 2.5,
    }
    assert api.simulate("llama-3.1-8b", "TP1", gpu="h100", gpus=1, **lengths).best is not None
    assert api.simulate("llama-3.1-8b", "TP1", gpu="h100:1", trace=tmp_path / "t.jsonl").best is not None


# ---- surroundings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["²", "0", "-1", "x", "", "9" * 30, "9" * 5000, " 8", "1e3"])
def test_numbers_of_the_environment_that_are_none_are_as_if_not_set(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, text)
    tame_environment()
    assert name not in os.environ
    monkeypatch.setenv(name, "80")
    tame_environment()
    assert os.environ[name] == "80"


@pytest.mark.parametrize("env", [{"COLUMNS": "²"}, {"TERMINAL_WIDTH": "x"}, {"_APEXSIM_COMPLETE": "complete_bash"},
    {"_APEXSIM_COMPLETE": "x"},
                                 {"NUMBA_NUM_THREADS": "0"}, {"HOME": "/nonexistent"}, {"APEXSIM_DEVICES": os.devnull}])  # fmt: skip
def test_an_odd_environment_is_none(env: dict[str, str]) -> None:
    code = "import sys; from apexsim.cli import main; sys.exit(main(sys.argv[1:]) or main([*sys.argv[1:], '--help']))"
    words = [sys.executable, "-c", code, "fit", "llama-3.1-8b", "--gpu", "h100:1"]
    done = subprocess.run(words, env={**os.environ, **env}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Examples:" in done.stdout, (env, done.stderr)


def test_a_fault_of_its_own_is_one_line_too(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from apexsim import __main__ as entry

    def fail(*_: object) -> None:
        raise IndexError("list \x1b[2J index\nout of range " + "x" * 9000)

    monkeypatch.setattr(ENTRY, "_run", fail)
    monkeypatch.setattr(sys, "argv", ["apexsim", "gpus"])
    monkeypatch.setattr(entry, "_heed_signals", lambda: None)
    assert entry.start() == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "IndexError at test_attacks.py" in err and "\x1b" not in err and len(err) < 1300
    monkeypatch.setenv(entry.WHOLE, "1")
    with pytest.raises(IndexError):
        entry.start()


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
@pytest.mark.parametrize(("wiring", "words"), [
    ("2> /dev/full", ""), ("2>&-", "--json"), ("> /dev/full", ""), ("> /dev/full", "--json"), (">&-", "--json"), ("<&- >&- 2>&-", ""),
    ("2>&1 | head -c 1 > /dev/null", "--json"), ("<&-", ""), ("2>&-", "--log - < /dev/null"), ("<&-", "--log -"),
])  # fmt: skip
def test_streams_that_nobody_reads_change_no_exit_code(wiring: str, words: str) -> None:
    model = "llama-3.1-8b" if "--log" in words else "zzz"
    line = f"set -o pipefail; {sys.executable} -m apexsim fit {model} --gpu h100:1 {words} {wiring}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, (line, done.stderr)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("name", "ignored"), [("SIGTERM", False), ("SIGHUP", False), ("SIGHUP", True)])
def test_a_signal_is_one_line_in_every_command_and_nohup_stays(name: str, ignored: bool, tmp_path: Path) -> None:
    number = getattr(signal, name)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # the command waits for its input
    run = subprocess.Popen(
        [sys.executable, "-m", "apexsim", "trace", "describe", str(fifo)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL),
    )  # fmt: skip
    time.sleep(4)
    run.send_signal(number)
    if ignored:
        fifo.write_bytes(STANDING["t.jsonl"])
    err = run.communicate(timeout=60)[1].replace("apexsim: trace describe is running …\n", "")
    assert (run.returncode, err) == ((0, "") if ignored else (130, "apexsim: interrupted\n"))


# ---- other systems -------------------------------------------------------------------------------------------------

POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog", "curses", "readline"}
NAMES = {"fork", "getuid", "geteuid", "getgid", "killpg", "setsid", "setpgid", "uname", "sysconf", "statvfs", "mkfifo", "mknod",
    "chown", "lchown", "nice",
         "getloadavg", "sched_getaffinity", "sched_setaffinity", "openpty", "wait", "waitpid", "O_DIRECTORY", "O_NOFOLLOW",
    "O_NONBLOCK", "getpgid", "getsid",
         "SIGHUP", "SIGKILL", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "SIGQUIT", "SIGTSTP", "SIGWINCH", "alarm",
    "setitimer", "pthread_sigmask",
         "AF_UNIX"}  # fmt: skip


@pytest.mark.parametrize("file", sorted((ROOT / "src/apexsim").rglob("*.py")), ids=lambda f: f.name)
def test_nothing_needs_a_posix_system(file: Path) -> None:
    """Modules and names that only POSIX has are asked for by `getattr` and `hasattr`, or stand behind a `hasattr`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level}
    used = {
        n.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in ("os", "signal", "socket")
    }
    asked = {n.args[1].value for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "hasattr"
             and isinstance(n.args[1], ast.Constant)}  # fmt: skip
    assert not imported & POSIX and not (used & NAMES) - asked


WINDOWS = """
import os, signal, sys
import numba, numpy, rich.console, typer  # what others do is theirs
import asyncio, multiprocessing, subprocess, tempfile, shutil, importlib.metadata, difflib
shutil.disk_usage = lambda path: shutil._ntuple_diskusage(1 << 40, 0, 1 << 40)  # Windows has one of its own
for name in {posix}: sys.modules[name] = None
for name in {names}:
    for module in (os, signal):
        if hasattr(module, name): delattr(module, name)
from apexsim.__main__ import start
for words in {commands}:
    sys.argv = ["apexsim", *words]
    code = start()
    if code: sys.exit(str(words) + ": " + str(code))
"""


WITHOUT = [
    ["plan", *SMALL, "--json", "out.json", "-o", "C:\\report.txt"], ["simulate", *SMALL[:1], "--gpu", "C:\\x\\gpu.toml:1", "--plan", "TP1",
                                                                                      *MADE],
    ["simulate", "llama-3.1-8b", "--gpu", "h100:1", "--plan", "TP1", "--trace", "C:\\x\\t.jsonl"],
    ["fit", "C:\\x\\config.json", "--gpu", "C:\\x\\gpu.toml:1"], ["fit", "llama-3.1-8b", "--gpu", "C:\\x\\npu:1"],
    ["trace", "convert", "C:\\x\\t.jsonl", "-o", "C:\\made.csv", "--to", "azure"],
]  # fmt: skip


def test_the_verbs_run_without_what_only_posix_has(tmp_path: Path) -> None:
    """Drive letters and backslashes name files here too: as names of their own."""
    (tmp_path / "C:\\x\\t.jsonl").write_bytes(STANDING["t.jsonl"])
    (tmp_path / "C:\\x\\gpu.toml").write_bytes((ROOT / "src/apexsim/data/gpus/h100-sxm.toml").read_bytes())
    (tmp_path / "C:\\x\\config.json").write_bytes(next((ROOT / "src/apexsim/data/models").glob("Qwen--Qwen3-8B.json")).read_bytes())
    (tmp_path / "C:\\x\\npu").mkdir()
    (tmp_path / "C:\\x\\npu/device.toml").write_bytes(STANDING["npu/device.toml"])
    code = WINDOWS.format(posix=sorted(POSIX - {"posix"}), names=sorted(NAMES - {"O_NONBLOCK", "waitpid", "wait"}), commands=WITHOUT)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
