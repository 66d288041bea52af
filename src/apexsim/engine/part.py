"""A function of the engine that only compiled code calls (floor E)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Inner:
    """In Python it is Python; engine/build.py tells numba what to see in it."""

    __slots__ = ("compiled", "py_func")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.py_func = function
        self.compiled: Any = None  # numba's, once something that calls it is compiled

    def __call__(self, *arguments: Any) -> Any:
        """As Python runs it: for who prices one step outside of a run."""
        return self.py_func(*arguments)
