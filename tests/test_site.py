"""The documents as a site: every page is in its contents, links that leave the folder become words, and it builds without a warning."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOOKS = runpy.run_path(str(ROOT / "scripts/site_pages.py"))


def linked(text: str, page: str = "howto.md") -> str:
    """A text of a page as the site has it."""
    return str(HOOKS["LINK"].sub(lambda found: HOOKS["_linked"](found, Path(page).parent), text))


def test_every_page_is_in_the_contents() -> None:
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")} | {HOOKS["FIRST"]}


@pytest.mark.parametrize(("text", "page", "made"), [
    ("[a](fleet.md#speed)", "howto.md", "[a](fleet.md#speed)"), ("[first](../README.md)", "howto.md", "[first](start.md)"),
    ("[first](../../README.md)", "decisions/0001.md", "[first](../start.md)"), ("[w](https://a.b)", "howto.md", "[w](https://a.b)"),
    ("[p](../examples/x.py)", "howto.md", "p (`examples/x.py`)"), ("[`tests/x.py`](../tests/x.py)", "howto.md", "`tests/x.py`"),
    ("![i](images/x.png)", "howto.md", "![i](images/x.png)"),
])  # fmt: skip
def test_links_that_leave_the_folder_become_words(text: str, page: str, made: str) -> None:
    assert linked(text, page) == made


@pytest.mark.skipif(find_spec("mkdocs") is None or find_spec("material") is None, reason="mkdocs-material is not installed: make site")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/fleet/index.html").exists()
