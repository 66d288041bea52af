"""The recorded mutants still fit the code: each text stands there once, and the tests that must see it exist.  `make mutants` runs them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from mutants import Mutant, copied, misplaced, recorded  # noqa: E402


def test_every_mutant_has_its_place() -> None:
    assert misplaced(recorded()) == []


def test_what_feeds_the_engine_is_covered() -> None:
    files = [m.file for m in recorded()]
    assert len(files) >= 40 and len(set(map(str, recorded()))) == len(files)
    rooms = ("engine/", "plan/memory", "plan/space", "cost/tables", "cost/price", "cost/work", "search/evaluate", "search/error", "metrics", "report/dialects")
    assert [room for room in rooms if not any(room in file for file in files)] == []


def test_a_text_that_has_moved_is_an_error() -> None:
    one = recorded()[0]
    for mutant in (Mutant(one.file, "no such text", "x", one.tests, "gone"), Mutant("no/such.py", "a", "b", one.tests, "gone"),
                   Mutant(one.file, one.old, one.old, one.tests, "no change"), Mutant(one.file, one.old, one.new, ("no_test.py",), "gone")):  # fmt: skip
        assert misplaced([mutant])


def test_the_code_itself_is_never_touched(tmp_path: Path) -> None:
    package = copied(tmp_path)
    (package / "errors.py").write_text("x", encoding="utf-8")
    assert (ROOT / "src/apexsim/errors.py").read_text(encoding="utf-8") != "x" and (package / "data/power.toml").is_file()
