"""How the engine's functions are compiled (floor E).

Inner functions get no Python and C wrappers: unpacking some sixty arrays in each of them was half of the compile time.
They still run as plain Python under NUMBA_DISABLE_JIT=1.
"""

from __future__ import annotations

from functools import partial

from numba import njit

from apexsim.engine import cache

OPTIONS = {"cache": cache.ENABLED, "nogil": True, "error_model": "numpy", "_nrt": False}  # _nrt: nothing here allocates
BARE = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

inner = partial(njit, **OPTIONS, **BARE)()  # called
merged = partial(njit, **OPTIONS, **BARE, inline="always")()  # becomes part of its caller, for what is called from one place
