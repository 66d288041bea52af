"""Puts this folder on the path, so that tests in subfolders can import `naive` and `toy_costs`; keeps clock and terminal out."""

from __future__ import annotations

import contextlib
from importlib import import_module

import pytest

from apexsim.cli import outside

# Hypothesis makes examples of the constants in whatever source happens to be loaded: a law would meet other worlds in each order of tests,
# and after each change of any file.  Without them the same law meets the same worlds.
with contextlib.suppress(ImportError, AttributeError):  # releases that do not do so lack the names
    _providers = import_module("hypothesis.internal.conjecture.providers")
    _providers._get_local_constants = _providers.Constants


@pytest.fixture(autouse=True)
def _no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a command says that it is alive hangs on the speed of this machine: here it never takes long enough."""
    monkeypatch.setattr(outside, "PATIENCE", 1e6)


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are as wide as they want to be, on whatever terminal the tests run."""
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
