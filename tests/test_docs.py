"""The documents tell the truth: options, commands, tree and links."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from apexsim.cli import main
from apexsim.cli.commands import HELP, RUN
from apexsim.cli.rows import COMMANDS, options_of
from lines import varied

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
PAGES = runpy.run_path(str(ROOT / "scripts/pages.py"))
HOWTO = (ROOT / "docs/howto.md").read_text(encoding="utf-8")


def shell_lines(text: str) -> list[str]:
    """Lines of the ```sh blocks of a page."""
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines() if line.strip()]


def tree() -> list[str]:
    """Paths of the README's annotated tree."""
    block = README.split("## The tree\n")[1].split("\n## ")[0]
    paths, folder = [], ""
    for line in block.splitlines():
        if not line.startswith("    "):
            continue
        inner = line.startswith("      ")
        name = line.split()[0]
        folder = folder if inner else name
        paths.append(folder + name if inner else name)
    return paths


def test_the_commands_page_is_what_the_table_of_options_says() -> None:
    written = runpy.run_path(str(ROOT / "scripts/commands_page.py"))["page"]()
    assert written == PAGE, "run: python scripts/commands_page.py > docs/commands.md"


@pytest.mark.parametrize("command", RUN)
def test_every_command_and_flag_is_documented(command: str) -> None:
    section = PAGE.split(f"## apexsim {command} ")[1].split("\n## ")[0]
    missing = [opt.flag for opt in options_of(command) if f"`{opt.flag}" not in section]
    assert not missing


def test_every_command_has_options_help_and_an_example() -> None:
    assert all(command in COMMANDS and f"apexsim {command}" in HELP[command].split("Examples:")[1] for command in RUN)


def test_the_tree_of_the_readme_exists() -> None:
    assert [path for path in tree() if not (ROOT / path).exists()] == []


def test_the_tree_of_the_readme_is_complete() -> None:
    package = ROOT / "src/apexsim"
    there = {p.name + "/" * p.is_dir() for p in package.iterdir() if not p.name.startswith("__py")}
    assert sorted(there - {path.removeprefix("src/apexsim/") for path in tree()}) == []


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("line", dict.fromkeys(x for x in shell_lines(PAGE + HOWTO) if x.startswith("apexsim ")))
def test_commands_of_the_pages_are_understood(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command parses; those that need no file of the reader run."""
    words = shlex.split(line)[1:]
    if (
        "measured.csv" in words or words[0] in ("replay", "compare", "web") or "--save" in words or words[:2] == ["device", "add"]
    ):  # a server or a file of the reader
        assert main([words[0], "--help"]) == 0
        return
    cheap = ["--trace", str(ROOT / "examples/creation_05.jsonl")] if "--trace" in words else ["--num-requests", "20"]
    if words[0] in ("plan", "simulate"):
        words = [w for w in words if not w.startswith(("examples/", "example:")) and w != "--trace"] + cheap + ["--json", "-"]
    assert main(varied(words)) == 0 and capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES["PAGES"])
def test_outputs_on_the_pages_are_what_the_commands_print(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert PAGES["written"](text) == text, "run: make pages"


def test_the_picture_is_what_the_command_prints() -> None:
    assert PAGES["picture"]() == PAGES["PICTURE"].read_text(encoding="utf-8"), "run: make pages"


@pytest.mark.parametrize("page", PAGES["PAGES"])
def test_every_command_of_the_first_pages_is_run(page: str) -> None:
    """With its output beside it, which a test compares; completion is installed in another test, into another home."""
    text = (ROOT / page).read_text(encoding="utf-8")
    commands = {line for line in shell_lines(text) if line.startswith("apexsim ")}
    assert commands - {found[1] for found in PAGES["BLOCK"].findall(text)} <= {"apexsim --install-completion"}


def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(block, {})
    assert "TP8" in capsys.readouterr().out


def test_errors_on_the_first_page_are_those_of_the_study() -> None:
    study = "".join((ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("fidelity", "memory", "power"))
    told = set(re.findall(r"(\d+\.\d) %", README.split("## How far to believe it")[1].split("\n## ")[0]))
    assert told and [figure for figure in told if not re.search(rf"\b{re.escape(figure)} ?%", study)] == []


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").iterdir()} - {"README.md", "images"}
    assert [name for name in sorted(pages) if f"]({name})" not in index] == []


def test_the_makefile_has_the_targets_that_are_promised() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    names = ("demo", "test", "check", "ci", "fidelity", "mutants", "goldens", "bench", "clean")
    assert all(re.search(rf"^{name}:", text, re.M) for name in names)


def test_continuous_integration_runs_every_check() -> None:
    """Tests, style, types and the fidelity gate."""
    text, make = (ROOT / ".ci/run").read_text(encoding="utf-8"), (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "set -euo pipefail" in text and "make ci" in text
    recipe = make[make.index("\nci: ") :].split("\n\n")[0]
    assert "lint fidelity" in recipe and "-m pytest -n auto" in recipe and "\ncheck: lint " in make
    assert all(word in make for word in ("-m pytest", "-m ruff check", "-m ruff format --check", "-m mypy", "apexsim.validate.gate"))


@pytest.mark.parametrize(("engine", "name"), [("vllm", "vLLM V1"), ("sglang", "SGLang")])
def test_an_engine_says_of_its_fit_what_the_page_says(engine: str, name: str) -> None:
    page = (ROOT / "docs/fidelity.md").read_text("utf-8")
    row = re.search(rf"\| each model \| {name} \| (\d+) \| ([\d.]+)% / \d+% \| ([\d.]+)%", page)
    text = (ROOT / f"src/apexsim/data/engines/{engine}.toml").read_text("utf-8")
    assert row and f": {row[1]} closed-loop runs" in text
    assert f"leaving each model out: TPOT {row[3]} %, mean TTFT {row[2]} % median" in text


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_every_script_finds_what_it_imports(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(script.parent))
    runpy.run_path(str(script), run_name="looked_at")
