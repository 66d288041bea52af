"""How the engine is compiled changes nothing: bits are those of plain Python, of the general version, and of any caller."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np
import pytest
import test_pools
from hypothesis import given, settings

import apexsim.engine
import toy_costs as toy
from apexsim.engine import apart, kernel
from apexsim.engine.types import FULL, Work
from worlds import World, worlds

ARRAYS = tuple(name for name in kernel.Outcome.__slots__)
MODULES = [import_module(f"apexsim.engine.{found.name}") for found in iter_modules(apexsim.engine.__path__)]


def of_one_lane(world: World) -> World:
    """The same world with one lane."""
    return World(world.requests, world.rules, world.host, world.costs, world.blocks, world.replicas, 1, world.route)


def of_one_window(world: World) -> World:
    """The same world with one lane and full attention."""
    costs = world.costs._replace(windows=np.array([FULL]), decode=world.costs.decode[:, -1:].copy())
    return World(world.requests, world.rules, world.host, costs, world.blocks, world.replicas, 1, world.route)


def answer(world: World, second: bool, jump: bool) -> kernel.Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "_pays", lambda *_: second)
        return world.run(jump)


@pytest.mark.parametrize("shape", [of_one_lane, of_one_window])
def test_the_versions_for_one_stage_and_lane_say_the_same_bit_for_bit(shape: Callable[[World], World]) -> None:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(worlds().map(shape))
    def compare(world: World) -> None:
        for jump in (True, False):
            general, second = answer(world, False, jump), answer(world, True, jump)
            assert [name for name in ARRAYS if getattr(general, name).tobytes() != getattr(second, name).tobytes()] == []

    compare()


@pytest.mark.parametrize(("shape", "size", "at_hand", "version"), [
    ((1, 1, 1), kernel.MANY - 1, False, "run"), ((1, 1, 1), kernel.MANY, False, "run_narrow"), ((1, 1, 1), 1, True, "run_narrow"),
    ((1, 1, 2), kernel.MANY - 1, False, "run"), ((1, 1, 2), kernel.MANY, False, "run_lane"), ((1, 1, 2), 1, True, "run_lane"),
    ((2, 1, 1), kernel.MANY, True, "run"), ((1, 2, 1), kernel.MANY, True, "run"),
])  # fmt: skip
def test_nobody_waits_for_a_second_compilation_that_does_not_pay(
    shape: tuple[int, int, int], size: int, at_hand: bool, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "Outer", Namespace)
    for name in ("run", "run_lane", "run_narrow"):
        monkeypatch.setattr(kernel, name, Namespace(loaded={}, __name__=name))
    monkeypatch.setattr(kernel.cache, "holds", lambda pattern: at_hand and version in pattern)
    known = {**dict(zip(("stages", "lanes", "windows"), shape)), "req": Namespace(prompt=range(size)), "plain": 1, "ticks": 1}
    replace = lambda **given: Namespace(**{**known, **given}, _replace=replace)  # noqa: E731
    world = Namespace(**known, _replace=replace)
    assert kernel._version(world)[0].__name__ == version


# ---- no negative index: compiled arrays do not count from the end --------------------------------------------------


class Guarded(np.ndarray):
    """An array that refuses what compiled code would read from somewhere else in memory."""

    def __getitem__(self, index: Any) -> Any:
        self.check(index)
        return super().__getitem__(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.check(index)
        super().__setitem__(index, value)

    @staticmethod
    def check(index: Any) -> None:
        for one in index if isinstance(index, tuple) else (index,):
            assert not isinstance(one, (int, np.integer)) or one >= 0, f"index {index}"


def guarded(row: Any) -> Any:
    """A named tuple whose arrays are guarded."""
    return type(row)(*(value.view(Guarded) if isinstance(value, np.ndarray) else value for value in row))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine in plain Python, on guarded arrays."""
    for module in MODULES:
        for name, value in list(vars(module).items()):
            if hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, value.py_func)
    inner, pools = kernel.run, apart.run_pools
    monkeypatch.setattr(kernel, "run", lambda world, begin, margin: inner(_guarded_world(world), begin, margin))
    monkeypatch.setattr(apart, "run_pools", lambda p, d, line, margin: pools(_guarded_world(p), _guarded_world(d), guarded(line), margin))


def _guarded_world(world: Any) -> Any:
    return type(world)(*(guarded(part) if isinstance(part, tuple) else part for part in world))


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_no_index_is_negative(stages: int, plain: None) -> None:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(worlds(stages=stages))
    def run_one(world: World) -> None:
        with np.errstate(all="ignore"):
            world.run()

    run_one()


def test_no_index_is_negative_where_requests_pass_two_pools(plain: None) -> None:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(test_pools.worlds() | test_pools.sharing() | test_pools.drafted(test_pools.sharing()))
    def run_one(world: test_pools.World) -> None:
        with np.errstate(all="ignore"):
            world.run()

    run_one()


def test_the_guard_refuses() -> None:
    work: Work = guarded(kernel._work(toy.offline(np.ones(3, np.int64), np.ones(3, np.int64))))
    with pytest.raises(AssertionError, match="index -1"):
        work.made[-1] = 1
