"""One optimisation of the whole engine instead of one for each of its functions (floor E).

numba optimises each function with all that it calls and makes machine code of it, then does so again for each of its
callers: with levels of functions the same code is worked on again and again.  Here a function that only compiled code
calls is a part: it is translated and waits.  The one that is called from Python takes in all its parts, and LLVM sees
the engine once, as a whole.
"""

from __future__ import annotations

from typing import Any

from llvmlite.binding import Linkage
from numba.core import config
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

settings: Any = config  # numba's stubs lack most of them


class UnlinkedCode(JITCodeLibrary):  # type: ignore[misc]
    """Neither optimised nor made machine code."""

    def finalize(self) -> None:
        """Nothing can be added anymore."""
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """It has no address."""
        return 0

    @property
    def codegen(self) -> Any:
        """What numba hands the function's environment to: of use to exceptions, which a part does not raise."""
        return _NOWHERE


class _Nowhere:
    def set_env(self, *_: Any) -> None:
        """There is no address to keep it at."""


_NOWHERE = _Nowhere()


class Whole(JITCodeLibrary):  # type: ignore[misc]
    """Takes in its parts and what they call."""

    def finalize(self) -> None:
        """Callers are linked before what they call: LLVM leaves out what nobody has asked for yet."""
        self._linking_libraries = _callers_first(self._linking_libraries)
        super().finalize()

    def _optimize_final_module(self) -> None:
        """Nobody else calls the parts, so that LLVM may put each where it is needed and drop the rest.

        Loops over stages, lanes and windows turn a few times: preparing them for vectors costs a tenth of the speed.
        """
        for function in self._final_module.functions:
            if function.linkage == Linkage.linkonce_odr:
                function.linkage = "internal"
        wanted, settings.LOOP_VECTORIZE = settings.LOOP_VECTORIZE, 0  # under numba's lock, as all of this
        try:
            super()._optimize_final_module()
        finally:
            settings.LOOP_VECTORIZE = wanted


def _callers_first(libraries: list[Any]) -> list[Any]:
    """These libraries and all that parts among them link to, each behind everything that links to it."""
    order: dict[Any, None] = {}

    def visit(library: Any) -> None:
        if library in seen:
            return
        seen.add(library)
        for one in library._linking_libraries if isinstance(library, UnlinkedCode) else ():
            visit(one)
        order[library] = None

    seen: set[Any] = set()
    for library in libraries:
        visit(library)
    return list(order)[::-1]


class _Compiler(Compiler):  # type: ignore[misc]
    KIND = Whole

    def __init__(self, typing: Any, target: Any, library: Any, *more: Any) -> None:
        library = self.KIND(target.codegen(), "apexsim.engine")
        library.enable_object_caching()
        super().__init__(typing, target, library, *more)


class CompileWhole(_Compiler):
    """For the function that is called from Python."""


class CompilePart(_Compiler):
    """For those that compiled code calls."""

    KIND = UnlinkedCode
