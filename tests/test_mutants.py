"""The recorded mutants still fit the code: each text stands there once, and the tests that must see it exist.  `make mutants` runs them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from mutants import copied, misplaced, recorded  # noqa: E402


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
    package = copied(tmp_path)
    (package / "errors.py").write_text("x", encoding="utf-8")
    assert (ROOT / "src/apexsim/errors.py").read_text(encoding="utf-8") != "x" and (package / "data/power.toml").is_file()
