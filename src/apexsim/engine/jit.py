"""How the engine's functions are compiled (floor E).

Inner functions get no Python and C wrappers: unpacking some sixty arrays in each of them was half of the compile time.
They still run as plain Python under NUMBA_DISABLE_JIT=1.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from numba import njit

from apexsim.engine.store import Store

OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}  # _nrt: nothing here allocates
BARE = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def outer(function: Any, **more: Any) -> Any:
    """Called from Python; compiled once and kept."""
    compiled = njit(**OPTIONS, **more)(function)
    if compiled is not function:  # it is under NUMBA_DISABLE_JIT
        compiled._cache = Store(function)
    return compiled


inner: Any = partial(outer, **BARE)  # called
merged: Any = njit(**OPTIONS, **BARE, inline="always")  # becomes part of its caller, for what is called from one place
