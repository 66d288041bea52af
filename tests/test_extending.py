"""Every example of docs/extending.md runs, and the page tells its length."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples/extending").glob("*.py"))
FILES = sorted((ROOT / "examples/extending").rglob("*.toml"))
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")


def code_lines(path: Path) -> int:
    """Lines that are neither blank nor comment nor docstring."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return sum(not line.strip().startswith(("#", '"""')) for line in lines)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_the_example_runs(path: Path) -> None:
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("path", [*EXAMPLES, *FILES], ids=lambda p: p.name)
def test_the_page_names_the_example_and_its_length(path: Path) -> None:
    row = re.search(rf"\[{re.escape(path.name)}\]\([^)]*\) \((\d+) lines\)", PAGE)
    assert row, f"{path.name} is missing in docs/extending.md"
    assert int(row[1]) == code_lines(path)
