"""The compiled engine on disk: found by what it depends on, healed where it is damaged, never the end of a run."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import apexsim
import toy_costs as toy
from apexsim.engine import cache, native, store
from apexsim.engine.jit import outer
from worlds import World

SHOW = "import apexsim.engine.cache as c; print(c.FOLDER, c.ENABLED, c.is_compiled(), c.NOTICE, sep='|')"


def shown(**environment: str) -> list[str]:
    """Folder, enabled, compiled, notice in a fresh process."""
    kept = {k: v for k, v in os.environ.items() if k not in (cache.VARIABLE, "XDG_CACHE_HOME")}
    source = str(Path(apexsim.__path__[0]).parent)
    done = subprocess.run([sys.executable, "-c", SHOW], env={**kept, "PYTHONPATH": source, **environment},
                          check=True, capture_output=True, text=True)  # fmt: skip
    return done.stdout.strip("\n").split("|")


def name() -> str:
    return f"{cache.key()}-{cache.machine()}"


# ---- several processes ---------------------------------------------------------------------------------------------


def test_of_two_that_lack_a_file_one_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one waits and finds it; nothing but the file is left behind."""
    file, heard, began = tmp_path / "a.code", [], threading.Event()

    def compiles(seconds: float) -> None:
        with store.alone(file) as waited:
            began.set()
            heard.append((waited, store.read(file, bytes)))
            time.sleep(seconds)
            store.keep(file, b"code")

    first, second = (threading.Thread(target=compiles, args=(s,)) for s in (0.3, 0.0))
    first.start()
    began.wait()
    second.start()
    first.join()
    second.join()
    assert heard == [(False, None), (True, b"code")] and list(tmp_path.iterdir()) == [file]


def test_nobody_waits_for_ever_or_for_what_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    file = tmp_path / "a.code"
    with store.alone(file), store.alone(file) as waited:
        assert waited
    for lost in (None, tmp_path / "gone" / "a.code"):
        with store.alone(lost) as waited:
            assert not waited


# ---- the folder ----------------------------------------------------------------------------------------------------


def test_the_folder_is_named_after_the_engine_and_the_machine(tmp_path: Path) -> None:
    folder, enabled, compiled, notice = shown(XDG_CACHE_HOME=str(tmp_path))
    assert (folder, enabled, compiled, notice) == (str(tmp_path / "apexsim" / name()), "True", "False", "")


def test_the_users_choice_is_kept(tmp_path: Path) -> None:
    assert shown(NUMBA_CACHE_DIR=str(tmp_path))[0] == str(tmp_path / name())


def test_a_folder_that_cannot_be_made_falls_back_to_a_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "tmp").mkdir()
    folder, enabled, _, notice = shown(XDG_CACHE_HOME=str(tmp_path / "file"), TMPDIR=str(tmp_path / "tmp"))
    assert Path(folder).is_relative_to(tmp_path / "tmp") and enabled == "True" and "cannot be written" in notice


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process looks for a cache below tmp_path; the folder that it would take."""
    for setting in ("NOTICE", "ENABLED", "FOLDER"):
        monkeypatch.setattr(cache, setting, getattr(cache, setting))
    monkeypatch.setattr(cache, "_temporary", lambda: [tmp_path / "temporary"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    return tmp_path / "apexsim" / name()


def test_a_full_disk_is_left_for_another(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = lambda folder: (100, 100, 0 if "temporary" not in str(folder) else 2**40)  # noqa: E731
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": full(folder)[2]}))
    cache.prepare()
    assert cache.FOLDER and "temporary" in str(cache.FOLDER) and "is full" in cache.NOTICE


def test_where_nothing_can_be_written_every_run_compiles(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_usable", lambda folder: False)
    cache.prepare()
    assert (cache.FOLDER, cache.ENABLED) == (None, False) and "every run compiles" in cache.NOTICE and not cache.is_compiled()


def test_a_full_or_read_only_folder_that_holds_the_code_is_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir(parents=True)
    (place / "kernel.run-0.code").write_bytes(b"code")
    monkeypatch.setattr(cache.tempfile, "TemporaryFile", lambda **_: pytest.fail("was written to"))
    cache.prepare()
    assert (cache.FOLDER, cache.NOTICE, cache.is_compiled()) == (place, "", True)


@pytest.mark.parametrize("other", ["0.1.0-000000000000-numba0.0-cpython-311-00000000", "{}0", "engine_0123456789abcdef"])
def test_what_others_keep_beside_it_is_not_this_engine(place: Path, other: str) -> None:
    folder = place.parent / other.format(place.name)
    folder.mkdir(parents=True)
    (folder / "kernel.run-0.code").write_bytes(b"code")
    cache.prepare()
    assert place == cache.FOLDER and not cache.is_compiled()


@pytest.mark.parametrize("setting", ["NUMBA_OPT", "NUMBA_CPU_NAME", "NUMBA_BOUNDSCHECK"])
def test_another_machine_or_setting_is_another_folder(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.machine()
    monkeypatch.setenv(setting, "1")
    assert cache.machine() != before


def test_an_empty_file_does_not_count(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "kernel.run-0.code").touch()
    cache.prepare()
    assert not cache.is_compiled()


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


# ---- the files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[store.StoreState]:
    """An empty folder, and nothing compiled yet."""
    monkeypatch.setattr(cache, "FOLDER", tmp_path)
    monkeypatch.setattr(store, "STATE", store.StoreState())
    yield store.STATE


def twice() -> Any:
    """A function as each process declares it."""

    def double(x: int) -> int:
        return 2 * x

    return outer(double)


def test_what_is_compiled_is_kept_and_found(tmp_path: Path, state: store.StoreState) -> None:
    assert twice()(21) == 42 and (len(state.begun), state.running) == (1, 0)
    state.begun.clear()
    assert twice()(21) == 42 and not state.begun and len(list(tmp_path.iterdir())) == 1


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "one byte": lambda content: content[:1],
    "the hash alone": lambda content: content[: store.HASH_BYTES],
    "cut short": lambda content: content[: len(content) // 2],
    "the last byte is missing": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "garbage": lambda content: b"garbage" * 100,
    "one bit": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    "not code": lambda _: store._hash(b"not code") + b"not code",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_compiled_again_and_mended(damage: str, tmp_path: Path, state: store.StoreState) -> None:
    twice()(21)
    (file,) = tmp_path.iterdir()
    sound = file.read_bytes()
    file.write_bytes(DAMAGE[damage](sound))
    assert twice()(21) == 42 and state.damaged == str(file)
    state.begun.clear()
    assert twice()(21) == 42 and not state.begun, "it was not mended"


def test_a_folder_in_the_place_of_a_file_is_passed_by(tmp_path: Path, state: store.StoreState) -> None:
    twice()(21)
    (file,) = tmp_path.iterdir()
    file.unlink()
    file.mkdir()
    assert twice()(21) == 42 and state.unsaved


def test_a_folder_that_went_away_is_passed_by(tmp_path: Path, state: store.StoreState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "FOLDER", tmp_path / "gone")
    assert twice()(21) == 42 and "No such file" in state.unsaved


def test_without_a_folder_it_runs(state: store.StoreState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "FOLDER", None)
    assert twice()(21) == 42 and not state.unsaved


def test_a_disk_that_fills_up_is_survived_and_said(tmp_path: Path, state: store.StoreState, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "replace", full)
    assert twice()(21) == 42 and state.unsaved == "No space left on device" and not list(tmp_path.iterdir())


LOADED = """
import sys, toy_costs as toy
from worlds import World
World(toy.offline([5], [3]), toy.VLLM_V1, toy.NO_HOST, toy.costs(toy.Toy()), 10).run()
print("numba" in sys.modules)
"""


def test_code_that_is_at_hand_runs_without_numba() -> None:
    """Loading numba takes a third of the time of a question."""
    World(toy.offline([5], [3]), toy.VLLM_V1, toy.NO_HOST, toy.costs(toy.Toy()), 10).run()
    folders = (Path(apexsim.__path__[0]).parent, Path(toy.__file__).parent)
    given = {
        **os.environ,
        cache.VARIABLE: str(cache.FOLDER.parent if cache.FOLDER else ""),
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
    }
    done = subprocess.run([sys.executable, "-c", LOADED], env=given, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_a_function_outside_that_nobody_knows_is_as_a_damaged_file(tmp_path: Path, state: store.StoreState) -> None:
    """LLVM would end the process where it cannot find it."""
    twice()(21)
    (file,) = tmp_path.iterdir()
    head, _, machine = store._read(file).partition(b"\n")
    store._write(file, json.dumps({**json.loads(head), "needs": ["nobody_knows_it"]}).encode() + b"\n" + machine)
    assert twice()(21) == 42 and state.damaged == str(file)


# ---- arguments -----------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A tuple inside another."""

    yes: bool
    share: float


class Mixed(NamedTuple):
    """One member of each kind, those that are short before those that are not."""

    yes: bool
    rows: np.ndarray
    pair: Pair
    none: None
    last: int


def test_members_lie_where_compiled_code_reads_them(state: store.StoreState) -> None:
    def told(row: Mixed, out: np.ndarray, n: int) -> tuple[int, int]:
        out[0], out[1], out[2] = row.rows[1, 2], row.pair.share, row.none
        out[3], out[4] = row.yes, row.pair.yes
        return row.last, n + row.rows.shape[1]

    for yes in (True, False):
        out = np.zeros(5)
        row = Mixed(yes, np.arange(6.0).reshape(2, 3), Pair(not yes, 0.25), None, 7)
        assert outer(told)(row, out, 40) == (7, 43)
        assert out.tolist() == [5.0, 0.25, 1.0, yes, not yes]


def test_an_array_that_is_not_dense_is_refused() -> None:
    with pytest.raises(AssertionError, match="dense"):
        native.laid((np.arange(6)[::2],))
