"""The folder of the compiled engine: keyed by what it depends on, the user's own choice wins, never fatal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import apexsim
import toy_costs as toy
from apexsim.engine import cache
from worlds import World

SHOW = "import apexsim.engine.cache as c; print(c.FOLDER, c.ENABLED, c.is_compiled(), c.NOTICE, sep='|')"


def shown(**environment: str) -> list[str]:
    """Folder, enabled, compiled, notice in a fresh process."""
    kept = {k: v for k, v in os.environ.items() if k not in (cache.VARIABLE, "XDG_CACHE_HOME")}
    source = str(Path(apexsim.__path__[0]).parent)
    done = subprocess.run([sys.executable, "-c", SHOW], env={**kept, "PYTHONPATH": source, **environment},
                          check=True, capture_output=True, text=True)  # fmt: skip
    return done.stdout.strip("\n").split("|")


def test_the_folder_is_named_after_the_engine(tmp_path: Path) -> None:
    folder, enabled, compiled, notice = shown(XDG_CACHE_HOME=str(tmp_path))
    assert (folder, enabled, compiled, notice) == (str(tmp_path / "apexsim" / cache.key()), "True", "False", "")


def test_the_users_choice_is_kept(tmp_path: Path) -> None:
    assert shown(NUMBA_CACHE_DIR=str(tmp_path))[0] == str(tmp_path)


def test_a_folder_that_cannot_be_made_falls_back_to_a_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "tmp").mkdir()
    folder, enabled, _, notice = shown(XDG_CACHE_HOME=str(tmp_path / "file"), TMPDIR=str(tmp_path / "tmp"))
    assert Path(folder).is_relative_to(tmp_path / "tmp") and enabled == "True" and "cannot be written" in notice


def test_a_changed_file_changes_the_key(tmp_path: Path) -> None:
    before = cache.digest(Path(cache.__file__).parent)
    for file in Path(cache.__file__).parent.glob("*.py"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert cache.digest(tmp_path) == before
    (tmp_path / "heap.py").write_bytes((tmp_path / "heap.py").read_bytes() + b"\n")
    assert cache.digest(tmp_path) != before


def test_after_a_run_the_engine_is_compiled() -> None:
    World(toy.offline([5], [3]), toy.VLLM_V1, toy.NO_HOST, toy.costs(toy.Toy()), 10).run()
    assert cache.is_compiled()
