"""The recorded mutants still fit the code: each text stands there once, and the tests that must see it exist.  `make mutants` runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from mutants import PACKAGE, Mutant, copied, misplaced, put, recorded  # noqa: E402


def contents(package: Path) -> dict[str, bytes]:
    """Every file of a package, by its name there."""
    files = (file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(package)): file.read_bytes() for file in files}


def test_every_mutant_has_its_place() -> None:
    assert misplaced(recorded()) == []


def test_what_feeds_the_engine_is_covered() -> None:
    files = [m.file for m in recorded()]
    assert len(files) >= 40 and len(set(map(str, recorded()))) == len(files)
    rooms = {"engine/", "plan/memory", "plan/space", "cost/tables", "cost/price", "cost/work", "search/evaluate", "search/error"}
    assert [room for room in rooms | {"metrics", "report/dialects"} if not any(room in file for file in files)] == []


def test_a_text_that_has_moved_is_an_error() -> None:
    one = recorded()[0]
    changes = ({"old": "no such text"}, {"file": "no/such.py"}, {"new": one.old}, {"tests": ("no_test.py",)})
    assert all(misplaced([replace(one, **change)]) for change in changes) and not misplaced([one])


def test_the_code_itself_is_never_touched(tmp_path: Path) -> None:
    """Every mutant at once, then a word into every file: the package is as it was."""
    before, package = contents(PACKAGE), copied(tmp_path)
    assert contents(package) == before
    for mutant in recorded():
        put(mutant, package)
    assert contents(package) != before
    for file in package.rglob("*"):
        assert not file.is_symlink()
        if file.is_file():
            assert file.stat().st_ino != (PACKAGE / file.relative_to(package)).stat().st_ino
            file.write_text("x", encoding="utf-8")
    assert contents(PACKAGE) == before


@pytest.mark.parametrize("file", ["../elsewhere.py", "data/link/there.py", str(ROOT / "src/apexsim/errors.py")])
def test_no_mutant_leaves_its_copy(tmp_path: Path, file: str) -> None:
    package, elsewhere = copied(tmp_path), tmp_path / "there"
    elsewhere.mkdir()
    (package / "data/link").symlink_to(elsewhere)
    for place in (tmp_path / "elsewhere.py", elsewhere / "there.py"):
        place.write_text("right", encoding="utf-8")
    before, stray = contents(PACKAGE), Mutant(file, "right", "wrong", (), "strays")
    with pytest.raises(ValueError, match="not in the copy"):
        put(stray, package)
    with pytest.raises(ValueError, match="not in the copy"):
        put(recorded()[0], PACKAGE)
    assert misplaced([stray]) and contents(PACKAGE) == before
    assert (tmp_path / "elsewhere.py").read_text(encoding="utf-8") == (elsewhere / "there.py").read_text(encoding="utf-8") == "right"


def test_one_that_is_killed_in_the_middle_leaves_the_code_as_it_was(tmp_path: Path) -> None:
    before, slow = contents(PACKAGE), tmp_path / "test_slow.py"
    started = tmp_path / "started"
    slow.write_text(f"import pathlib, time\ndef test(): pathlib.Path({str(started)!r}).touch(); time.sleep(20)\n", encoding="utf-8")
    one = replace(next(m for m in recorded() if m.file.startswith("data/")), tests=(str(slow),))
    code = f"import mutants; from mutants import Mutant; print(mutants.outcome({one!r}))"
    where = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], env=where, start_new_session=True) as running:
        try:
            end = time.monotonic() + 60
            while not started.exists() and running.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
    assert started.exists() and contents(PACKAGE) == before
