"""How the engine's functions are compiled (floor E).

Inner functions get no Python and C wrappers: unpacking some sixty arrays in each of them was half of the compile time.
They still run as plain Python under NUMBA_DISABLE_JIT=1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from numba import njit

from apexsim.engine.store import Store

OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}  # _nrt: nothing here allocates
BARE = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
Function = TypeVar("Function", bound=Callable[..., Any])


def outer(function: Function, **more: Any) -> Function:
    """Called from Python; compiled once and kept."""
    compiled: Any = njit(**OPTIONS, **more)(function)
    if compiled is not function:  # it is under NUMBA_DISABLE_JIT
        compiled._cache = Store(function)
    return compiled


inner = partial(outer, **BARE)  # called
merged = njit(**OPTIONS, **BARE, inline="always")  # becomes part of its caller, for what is called from one place
