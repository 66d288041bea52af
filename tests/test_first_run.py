"""The first minute of a user: signs of life, help that loses no word, completion, examples, pipes, Ctrl-C, dependencies."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apexsim import examples
from apexsim.cli import main, outside
from apexsim.cli.commands import ABOUT_GROUP, HELP, RUN
from apexsim.cli.rows import options_of
from apexsim.engine import cache, store
from apexsim.errors import InputError

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src/apexsim"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
entry = sys.modules["apexsim.cli.main"]


def command(*words: str, code: str = "pass", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own; code: what runs before it."""
    call = f"import sys; sys.argv[1:] = {list(words)}; {code}; from apexsim.__main__ import start; sys.exit(start())"
    given = {**os.environ, "PYTHONPATH": str(SOURCE.parent), **environment}
    return subprocess.run([sys.executable, "-c", call], env=given, capture_output=True, text=True, timeout=120)


# ---- signs of life -------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """Standard error at which somebody looks; knows what stood on it, line by line."""

    def isatty(self) -> bool:
        return True


def working(until: Callable[[], bool], then: str = "") -> Callable[[], Callable[..., int]]:
    """A stand-in for all commands: works until somebody has seen something, then prints."""

    def run(**_: Any) -> int:
        pause = threading.Event()
        for _again in range(2000):
            if until():
                break
            pause.wait(0.005)
        sys.stdout.write(then)
        return 0

    return lambda: run


@pytest.fixture
def impatient(monkeypatch: Patch) -> None:
    monkeypatch.setattr(outside, "PATIENCE", 0.0)
    monkeypatch.setattr(outside, "TICK", 0.001)


@pytest.mark.parametrize("words", [name.split() for name in RUN] + [["gpus", "--json"]], ids=" ".join)
def test_every_command_that_takes_long_says_one_line_where_nobody_can_redraw(words: list[str], impatient: None, monkeypatch: Patch) -> None:
    error = io.StringIO()
    monkeypatch.setattr(sys, "stderr", error)
    monkeypatch.setattr(entry, "everything", working(lambda: bool(error.getvalue())))
    assert main(words) == 0
    assert error.getvalue() == f"apexsim: {' '.join(word for word in words if word[0] != '-')} is running …\n"


def test_on_a_terminal_the_line_is_redrawn_and_gone_before_the_answer(impatient: None, monkeypatch: Patch, capsys: Capture) -> None:
    error = Terminal()
    monkeypatch.setattr(sys, "stderr", error)
    monkeypatch.setattr(entry, "everything", working(lambda: error.getvalue().count("plan is running") > 2, "answer"))
    assert main(["plan", "x"]) == 0
    assert error.getvalue().endswith("\r\x1b[K") and "\n" not in error.getvalue() and capsys.readouterr().out == "answer"


def test_a_short_command_says_nothing(capsys: Capture) -> None:
    assert main(["gpus"]) == 0 and capsys.readouterr().err == ""


@pytest.fixture
def compiling(monkeypatch: Patch) -> store.StoreState:
    """As while the 3rd of 7 functions is being compiled."""
    monkeypatch.setattr(cache, "NOTICE", "")
    monkeypatch.setattr(cache, "ENABLED", True)
    monkeypatch.setattr(store, "STATE", store.StoreState(functions=7, begun={"a", "b", "c"}, running=1))
    return store.STATE


def told(monkeypatch: Patch, terminal: bool = False) -> str:
    """What is said during a compilation."""
    error = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", error)
    monkeypatch.setattr(entry, "everything", working(lambda: "compil" in error.getvalue()))
    assert main(["plan"]) == 0
    return error.getvalue()


def test_a_compilation_is_announced_with_how_long_it_takes(impatient: None, compiling: store.StoreState, monkeypatch: Patch) -> None:
    assert told(monkeypatch) == "apexsim: compiling the simulator once, 10 to 60 s\n"


def test_on_a_terminal_a_compilation_shows_how_far_it_is(impatient: None, compiling: store.StoreState, monkeypatch: Patch) -> None:
    assert re.search(r"█+░+ 3/7 compiling the simulator once, 10 to 60 s, \d+ s", told(monkeypatch, terminal=True))


def test_a_compilation_to_come_is_announced_before_anything_else_is(impatient: None, monkeypatch: Patch) -> None:
    """Loading alone may take a second: there is one line, and it is the one that matters."""
    monkeypatch.setattr(cache, "NOTICE", "")
    monkeypatch.setattr(cache, "is_compiled", lambda: False)
    monkeypatch.setattr(store, "STATE", store.StoreState())
    for words in (["plan"], ["simulate"], ["apex"], ["validate"]):
        error = io.StringIO()
        monkeypatch.setattr(sys, "stderr", error)
        monkeypatch.setattr(entry, "everything", working(lambda error=error: bool(error.getvalue())))
        assert main(words) == 0 and error.getvalue() == "apexsim: compiling the simulator once, 10 to 60 s\n"


def test_the_shell_that_asks_for_words_gets_no_line(impatient: None, monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setenv(outside.COMPLETION, "complete_bash")
    monkeypatch.setenv(outside.ASKED["bash"], "apexsim plan")
    monkeypatch.setattr(entry, "everything", working(lambda: True))
    monkeypatch.setattr(outside.threading, "Thread", None)  # nobody watches how long it takes
    assert main(["plan"]) == 0 and capsys.readouterr().err == ""


def test_a_damaged_file_is_named_in_the_same_line(impatient: None, compiling: store.StoreState, monkeypatch: Patch) -> None:
    compiling.damaged = "/cache/kernel.run-1.code"
    assert told(monkeypatch) == "apexsim: compiling the simulator once, 10 to 60 s (/cache/kernel.run-1.code was damaged)\n"


def test_a_cache_that_cannot_be_written_is_named_in_the_same_line(impatient: None, compiling: store.StoreState, monkeypatch: Patch) -> None:
    monkeypatch.setattr(cache, "NOTICE", "nothing can be written: every run compiles anew")
    monkeypatch.setattr(cache, "ENABLED", False)
    assert told(monkeypatch) == "apexsim: compiling the simulator, 10 to 60 s (nothing can be written: every run compiles anew)\n"


def test_code_that_could_not_be_kept_is_said_at_the_end(compiling: store.StoreState, monkeypatch: Patch, capsys: Capture) -> None:
    compiling.unsaved, compiling.running = "No space left on device", 0
    assert main(["gpus"]) == 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "No space left on device" in error and "compiles again" in error


# ---- help ----------------------------------------------------------------------------------------------------------


def bare(text: str) -> str:
    """Without blanks and the lines of tables: what is left is what can be read."""
    return re.sub(r"[\s│╭╮╰╯─]", "", text)


@pytest.mark.parametrize("words", [*RUN, *ABOUT_GROUP, ""])
def test_help_loses_no_text(words: str, monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert main([*words.split(), "--help"]) == 0
    shown = bare(capsys.readouterr().out)
    opts = options_of(words) if words in RUN else []
    texts = [HELP.get(words, ABOUT_GROUP.get(words, "")), *(opt.help for opt in opts), *(opt.metavar or "" for opt in opts)]
    assert [text for text in texts if bare(text) not in shown] == []


def test_the_package_that_help_names_can_be_typed(monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["replay", "--help"]) == 0 and "pip install 'apexsim[replay]'" in capsys.readouterr().out


def test_an_unknown_command_is_answered_from_its_own_level(capsys: Capture) -> None:
    assert main(["describ"]) == 2 and "describe" not in capsys.readouterr().err
    assert main(["trace", "discribe"]) == 2 and "describe" in capsys.readouterr().err


# ---- completion ----------------------------------------------------------------------------------------------------


def completed(line: str) -> list[str]:
    """What bash would be offered for a line."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - (not line.endswith(" ")))}
    done = command(_APEXSIM_COMPLETE="complete_bash", **words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(("line", "among"), [
    ("apexsim pl", "plan"), ("apexsim trace to", "tokenize"), ("apexsim plan m --gpu-mem", "--gpu-memory-utilization"),
    ("apexsim plan llama-3.1-8", "llama-3.1-8b"), ("apexsim plan m --gpu h100-s", "h100-sxm"), ("apexsim plan m --engine sg", "sglang"),
])  # fmt: skip
def test_bash_completes_commands_options_and_names(line: str, among: str) -> None:
    assert among in completed(line)


def test_bash_takes_the_script() -> None:
    script = command("--show-completion", "bash").stdout
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0 and "complete -o default" in script


def test_completion_can_be_installed(tmp_path: Path) -> None:
    done = command("--install-completion", "bash", HOME=str(tmp_path))
    assert done.returncode == 0 and (tmp_path / ".bashrc").is_file(), done.stderr


# ---- examples ------------------------------------------------------------------------------------------------------


def helped() -> set[str]:
    """Every path of an example in a help text."""
    return set(re.findall(r"examples/[\w./-]+\w", "\n".join(HELP.values())))


@pytest.mark.parametrize("name", examples.names())
def test_every_example_is_found_by_its_name_and_by_its_path(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    path = examples.located(f"example:{name}")
    assert path.exists() and examples.located(str(path.relative_to(ROOT))) == path == examples.located(f"example:{path.name}")


def test_the_files_that_help_names_come_with_the_package(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    named = set(re.findall(r"example:[\w.-]+\w", "\n".join(HELP.values())))
    assert all(examples.located(path).exists() for path in helped() | named)


def test_the_wheel_holds_every_example_and_its_licence() -> None:
    packed = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    wanted = {path.relative_to(ROOT).parts[:2] for path in examples.names().values()}
    assert {tuple(Path(path).parts[:2]) for path in packed} >= wanted | {("examples", "README.md"), ("examples", "LICENSE-MIT.txt")}
    assert all(target == f"apexsim/data/{path}" and (ROOT / path).exists() for path, target in packed.items())


def test_the_source_of_every_example_is_named() -> None:
    page = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    assert [path.name for path in examples.names().values() if path.name not in page] == []


@pytest.mark.parametrize("words", [
    ["trace", "describe", "{}"], ["plan", "llama-3.1-8b", "--gpu", "h100-sxm", "--gpus", "1", "--trace", "{}"],
    ["apex", "--model", "llama3-70b", "--num-gpus-per-node", "4", "--trace-file", "{}"],
])  # fmt: skip
@pytest.mark.parametrize("name", ["example:creation", "examples/creation_05.jsonl"])
def test_examples_work_from_any_folder(words: list[str], name: str, tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([word.format(name) for word in words]) == 0
    out, error = capsys.readouterr()
    assert out and ("the one that comes with apexsim is used" in error) == name.startswith("examples/")


def test_a_file_of_ones_own_goes_before_the_example(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples/creation_05.jsonl").touch()
    assert examples.located("examples/creation_05.jsonl") == Path("examples/creation_05.jsonl")


@pytest.mark.parametrize("name", ["creatoin", "", "../README.md", "README.md"])
def test_a_wrong_name_lists_the_examples(name: str) -> None:
    with pytest.raises(InputError, match="there are azure, conversations, creation, lmsys, minimax-h200-runs, mooncake"):
        examples.located(f"example:{name}")


# ---- pipes and Ctrl-C ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["", *RUN, *ABOUT_GROUP])
def test_help_into_a_closed_pipe_is_no_error(words: str, monkeypatch: Patch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with contextlib.suppress(BrokenPipeError), open(writing, "w", encoding="utf-8") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert main([*words.split(), "--help"]) == 0


@pytest.mark.parametrize("words", [["gpus"], ["models", "--json"], ["--help"], ["plan", "--help"], ["--version"],
                                   ["trace", "describe", "example:lmsys"],
                                   ["fit", "llama-3.1-8b", "--gpu", "l4", "--gpus", "1", "--max-model-len", "4096"]])  # fmt: skip
def test_a_closed_standard_output_is_one_line(words: list[str], monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(words) == 2
    monkeypatch.undo()
    assert capsys.readouterr().err == "apexsim: standard output is closed\n"


def test_a_closed_standard_error_does_not_harm_the_answer(monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["gpus", "h100"]) == 0 and main(["gpus", "--jsonn"]) == 2


@pytest.mark.parametrize("module", ["apexsim.cli", "typer", "numpy"])
def test_ctrl_c_while_loading_is_one_line(module: str, tmp_path: Path) -> None:
    """As if SIGINT came while a module was being loaded."""
    fake = tmp_path / f"{module.split('.')[0]}.py"
    fake.write_text("raise KeyboardInterrupt\n")
    code = f"sys.path.insert(0, '{tmp_path}')" if module != "apexsim.cli" else "sys.modules['typer'] = None; import signal, threading; " \
        "import builtins; old = builtins.__import__; builtins.__import__ = lambda name, *a, **k: signal.raise_signal(2) " \
        "if name == 'apexsim.cli' else old(name, *a, **k)"  # fmt: skip
    done = command("fit", "llama-3.1-8b", "--gpu", "l4", "--gpus", "1", code=code)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.removeprefix("apexsim: fit is running …\n") == "apexsim: interrupted\n"  # a slow machine says both


def test_the_console_script_loads_under_the_guard() -> None:
    assert PROJECT["project"]["scripts"] == {"apexsim": "apexsim.__main__:start"}
    loaded = ast.parse((SOURCE / "__main__.py").read_text(encoding="utf-8")).body
    assert {alias.name for node in loaded if isinstance(node, ast.Import) for alias in node.names} == {"sys"}
    assert not [node for node in loaded if isinstance(node, ast.ImportFrom)]


# ---- what is installed ---------------------------------------------------------------------------------------------


def imported() -> set[str]:
    """Modules that a line of the package imports, of other packages."""
    found = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return {name for name in found if name not in sys.stdlib_module_names and name != "apexsim"}


def required(lines: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", line)[0].lower().replace("-", "_") for line in lines}  # type: ignore[index]


def test_every_dependency_is_imported_by_some_line() -> None:
    modules = {name.lower(): name for name in imported()}
    assert required(PROJECT["project"]["dependencies"]) - set(modules) == set()


def test_every_import_comes_with_the_package_or_one_of_its_extras() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    brought = required([*PROJECT["project"]["dependencies"], *(line for lines in extras.values() for line in lines)])
    with_others = ("llvmlite", "anyio", "torch", "pynvml")  # with numba, httpx; on the machine that profiles its accelerator
    assert {name for name in imported() if name.lower() not in brought and name not in with_others} == set()


@pytest.mark.parametrize(("line", "says"), [
    ("Collecting numba>=0.60 (from apexsim==0.1.0)", ""),
    ("  Downloading numba-0.68.1-cp311-manylinux.whl.metadata (2.8 kB)", ""),
    ("  Downloading numba-0.68.1-cp311-manylinux.whl (3.8 MB)", "downloading numba (3.8 MB)"),
    ("Downloading llvmlite-0.50.0-cp311.whl (59.7 MB)", "downloading llvmlite (59.7 MB)"),
    ("  Using cached rich-15.0.0-py3-none-any.whl (310 kB)", "rich is in pip's cache (310 kB)"),
    ("Installing collected packages: rich, numba", "installing rich, numba"),
])  # fmt: skip
def test_installing_shows_its_steps(line: str, says: str) -> None:
    assert runpy.run_path(str(ROOT / "scripts/install.py"))["shown"](line) == says


def test_the_demo_installs_no_extra() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo: \$\(READY\) ", text, re.M) and re.search(r"^\$\(READY\):.*\n.*\n\t@\$\(PY\) scripts/install.py$", text, re.M)
    assert "READY_TEST" in text.split("test:")[1].split("\n")[0]


def test_what_is_loaded_before_the_guard_is_next_to_nothing() -> None:
    """The package itself comes before its `__main__`: what it loads is time in which Ctrl-C shows a traceback."""
    code = f"import sys; sys.path.insert(0, '{SOURCE.parent}'); import apexsim; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "apexsim.plan" in loaded and not loaded & {"typing", "typer", "numpy", "numba", "re", "dataclasses"}
