"""How the engine's functions are compiled (floor E).

Inner functions get no Python and C wrappers: unpacking some sixty arrays in each of them was half of the compile time.
They still run as plain Python under NUMBA_DISABLE_JIT=1.
"""

from __future__ import annotations

from functools import partial

from numba import njit

from apexsim.engine import cache

inner = partial(njit, cache=cache.ENABLED, nogil=True, error_model="numpy", _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)()

merged = partial(njit, cache=cache.ENABLED, nogil=True, error_model="numpy", _nrt=False, inline="always", no_cpython_wrapper=True, no_cfunc_wrapper=True)()
