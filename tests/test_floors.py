"""Imports go down only (docs/design.md), the library neither prints nor logs, and importing it is light."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src/apexsim"
ENGINE = 0.5  # knows numpy and numba only, but floor 0 may be read by everyone
FLOORS = {
    "units": 0, "errors": 0, "examples": 0, "stats": 0, "files": 0, "data_files": 0, "views": 0, "typed": 0, "doubt": 0,
    "engine": ENGINE,
    "drafting": 1, "offload": 1, "gpu": 1, "clock": 1, "gpu_file": 1, "slices": 1, "sustained": 1, "hardware": 1, "links": 1,
    "engine_file": 1, "engines": 1, "slo": 1, "model/ops": 1, "model/cell": 1, "model/model": 1, "model/dtypes": 1, "workload/trace": 1,
    "model": 2, "workload": 2, "plan/plan": 2, "plan/templates": 2, "plan/reshard": 2,
    "cost": 3, "plan": 3,
    "metrics": 4, "objective": 4, "aims": 4,
    "search": 5, "calibrate": 5, "validate": 5, "api": 5, "replay": 5, "profile": 5,
    "report": 6,
    "cli": 7, "web": 7, "calls": 7, "verbs": 7, "__init__": 7, "__main__": 7,
}  # fmt: skip

MEMBERS = 8  # of a call that are a table


def test_the_table_of_the_design_names_every_floor() -> None:
    text = (PACKAGE.parent.parent / "docs/design.md").read_text(encoding="utf-8")
    rows = {row[0]: row[1:] for row in (line.split() for line in text.partition("## Floors")[2].partition("##")[0].splitlines()) if row}
    told = {word.rstrip("/*"): key for key, words in rows.items() for word in words}
    missing = [name for name, at in FLOORS.items() if name != "__main__" and told.get(name) != str(at).replace("0.5", "E")
               and not any(word.startswith(f"{name}/") and key == str(at) for word, key in told.items())]  # fmt: skip
    assert missing == []


def floor(module: str) -> float:
    """The floor of "plan/lower" is its own or that of its folder."""
    return FLOORS[module] if module in FLOORS else FLOORS[module.split("/")[0]]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path) -> list[str]:
    """Modules of the package that a file imports when it is loaded or run, as "plan/lower"."""
    found = []
    for node in ast.walk(parsed(path)):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.split(".")[0] != "apexsim" or (name == "apexsim" and isinstance(node, ast.Import)):
                continue
            parts = name.split(".")[1:]
            submodule = isinstance(node, ast.ImportFrom) and (PACKAGE / "/".join(parts)).is_dir()
            inside = ["/".join([*parts, a.name]) for a in node.names] if submodule else ["/".join(parts)]
            found += inside if parts else [each for each in inside if (PACKAGE / f"{each}.py").is_file() or (PACKAGE / each).is_dir()]
    return found


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.parent == PACKAGE)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    module = str(path.relative_to(PACKAGE).with_suffix(""))
    own = floor(module)
    higher = [name for name in imports(path) if floor(name) > own]
    assert not higher, f"{module} (floor {own}) imports {higher}"


def test_no_imports_go_in_a_circle() -> None:
    modules = {str(path.relative_to(PACKAGE).with_suffix("")): path for path in FILES}
    below = {name: {other for other in imports(path) if other in modules} for name, path in modules.items()}
    while free := [name for name, others in below.items() if not others]:
        below = {name: others - {*free} for name, others in below.items() if name not in free}
    assert not below, f"circles among {sorted(below)}"


def test_nobody_asks_what_kind_a_cell_is() -> None:
    asking = [path.name for path in FILES if path.parent.parent.name != "model" and path.parent.name != "model"
               and any(name.startswith("model/cells") for name in imports(path))]  # fmt: skip
    assert asking == [], "a cell answers for itself: put the question into model/cell.py"


def test_no_two_classes_have_one_name() -> None:
    """One meaning each (docs/vocabulary.md): who searches for a word finds one thing."""
    names = [node.name for path in FILES for node in parsed(path).body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def names_only(value: ast.expr) -> bool:
    while isinstance(value, (ast.Attribute, ast.Starred, ast.Subscript)):
        value = value.value
    return isinstance(value, (ast.Name, ast.Constant))


def table(statement: ast.stmt) -> bool:
    """A literal, a list of imports, or a call that lists members: rows that are read side by side."""
    if isinstance(statement, ast.ImportFrom):
        return True
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.For, ast.If, ast.With)):
        return False
    for node in ast.walk(statement):
        if isinstance(node, (ast.Dict, ast.List, ast.Tuple, ast.Set)) and lines(node) >= max(2, lines(statement) - 2):
            return True
        if isinstance(node, ast.Call):
            members = [*node.args, *(word.value for word in node.keywords)]
            if len(members) >= MEMBERS and all(map(names_only, members)):
                return True
    return False


def lines(node: ast.stmt | ast.expr) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_tables_keep_a_layout_of_their_own(path: Path) -> None:
    """Everything else looks as the formatter has it."""
    text = path.read_text(encoding="utf-8")
    kept = [at for at, line in enumerate(text.splitlines(), 1) if "# fmt: skip" in line]
    around = {at: min((n for n in ast.walk(parsed(path)) if isinstance(n, ast.stmt) and n.lineno <= at <= (n.end_lineno or 0)), key=lines)
              for at in kept}  # fmt: skip
    assert [at for at, statement in around.items() if not table(statement)] == [] and "# fmt: off" not in text


def test_the_engine_knows_arrays_only() -> None:
    for path in (PACKAGE / "engine").glob("*.py"):
        assert all(name.startswith("engine") for name in imports(path)), path.name


@pytest.mark.parametrize("folder", ["model", "workload", "plan", "cost", "engine", "search", "report", "replay"])
def test_library_code_does_not_print(folder: str) -> None:
    for path in (PACKAGE / folder).rglob("*.py"):
        calls = [n for n in ast.walk(parsed(path)) if isinstance(n, ast.Call)]
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path.name


def test_importing_the_package_is_light() -> None:
    code = "import sys, apexsim; print([m for m in ('torch', 'ray', 'numba', 'pandas', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
