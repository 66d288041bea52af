"""How the engine's functions are compiled (floor E).

Inner functions are parts of the whole that is called from Python (engine/whole.py); they get no Python and C wrappers and
are not kept by themselves.  A number in a call is an int like any other, not a reason to compile the function for that
number alone.  All run as plain Python under NUMBA_DISABLE_JIT=1.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

from numba import njit, types

from apexsim.engine.store import CodeStore
from apexsim.engine.whole import CompilePart, CompileWhole

F = TypeVar("F", bound=Callable[..., Any])
OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}  # _nrt: nothing here allocates
BARE = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def outer(function: F) -> F:
    """Called from Python; compiled once and kept."""
    return _declared(function, njit(**OPTIONS, pipeline_class=CompileWhole)(function), kept=True)


def inner(function: F) -> F:
    """Called by compiled code."""
    return _declared(function, njit(**OPTIONS, **BARE, pipeline_class=CompilePart)(function), kept=False)


def python_of(function: F) -> F:
    """An inner function, and those that it calls, as Python runs them: for who prices one step outside of a run."""
    plain = getattr(function, "py_func", None)
    if plain is None:  # no compiled function
        return function
    below = {name: python_of(plain.__globals__[name]) for name in plain.__code__.co_names if name in plain.__globals__}
    return cast(F, FunctionType(plain.__code__, plain.__globals__ | below, plain.__name__))


def _declared(function: F, compiled: Any, kept: bool) -> F:
    if compiled is not function:  # it is under NUMBA_DISABLE_JIT
        compiled._cache = CodeStore(function, kept)
        template = compiled.get_call_template
        compiled.get_call_template = lambda args, kws: template(tuple(map(types.unliteral, args)), kws)
    return cast(F, compiled)
