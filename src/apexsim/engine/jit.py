"""How the engine's functions are declared, and what becomes of a call from Python (floor E).

Inner functions are called by compiled code alone; in Python they are Python.  An outer one runs as machine code.  Where
that is at hand (engine/store.py), it is loaded and called as it is (engine/native.py); numba, a third of the time that a
question takes, comes in only to compile (engine/build.py).  All run as plain Python under NUMBA_DISABLE_JIT=1.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from apexsim.engine import native, store
from apexsim.engine.part import Inner

F = TypeVar("F", bound=Callable[..., Any])
PLAIN = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
_LOCK = threading.RLock()  # one compilation at a time


class Outer:
    """A function that is called from Python and runs as machine code, of which there is one for each kind of arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.py_func, self.__name__, self.__doc__ = function, function.__name__, function.__doc__
        self.name = store.name_of(function)
        self.loaded: dict[str, native.MachineCode] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Call the machine code, which is found or made first."""
        laid = native.laid(arguments)
        entry = self.loaded.get(laid.kind)
        if entry is None:
            with _LOCK:
                entry = self.loaded.get(laid.kind) or self._entry(laid.kind, arguments)
                self.loaded[laid.kind] = entry
        return entry.call(laid)

    def _entry(self, kind: str, arguments: tuple[Any, ...]) -> native.MachineCode:
        file = store.file_of(self.name, kind)
        kept = store.read(file, native.MachineCode.of)
        if kept is not None:
            return kept
        with store.alone(file):
            kept = store.read(file, native.MachineCode.of)  # another process may have made it in the meantime
            if kept is not None:
                return kept
            from apexsim.engine.build import built

            code = built(self.py_func, arguments)
            store.keep(file, code)
        return native.MachineCode.of(code)


def outer(function: F) -> F:
    """Called from Python; compiled once and kept."""
    store.STATE.functions += 1
    return function if PLAIN else cast(F, Outer(function))


def inner(function: F) -> F:
    """Called by compiled code."""
    store.STATE.functions += 1
    return function if PLAIN else cast(F, Inner(function))
