"""One optimisation of the whole engine instead of one for each of its functions (floor E).

numba optimises each function with all that it calls and makes machine code of it, then does so again for each of its
callers: with levels of functions the same code is worked on again and again.  Here a function that only compiled code
calls is a part: it is translated and waits.  The one that is called from Python takes in all its parts, and LLVM sees
the engine once, as a whole.  What comes out is an object file that runs without numba, see engine/native.py.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from llvmlite.binding import Linkage
from numba import njit, typeof, types
from numba.core import config
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.extending import typeof_impl

from apexsim.engine import store
from apexsim.engine.native import packed
from apexsim.engine.part import Inner
from apexsim.engine.ref import Ref
from apexsim.engine.store import name_of

settings: Any = config  # numba's stubs lack most of them
# _nrt: nothing here allocates; no wrappers: Python calls the machine code as it is
OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


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


# ---- numba's view of the functions -----------------------------------------------------------------------------------


class CompileProgress:
    """In the place of numba's cache, which is told of each function before and after: says how far a compilation is."""

    cache_path = ""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = name_of(function)

    def load_overload(self, *_: Any) -> None:
        """Nothing is kept of single functions; the compilation begins."""
        store.STATE.begun.add(self._name)
        store.STATE.running += 1

    def save_overload(self, *_: Any) -> None:
        """It has ended."""
        store.STATE.running -= 1


def _declared(function: Callable[..., Any], pipeline: type[_Compiler]) -> Any:
    """A number in a call is an int like any other, not a reason to compile the function for that number alone."""
    compiled = njit(**OPTIONS, pipeline_class=pipeline)(function)
    compiled._cache = CompileProgress(function)
    template = compiled.get_call_template
    compiled.get_call_template = lambda args, kws: template(tuple(map(types.unliteral, args)), kws)
    return compiled


@typeof_impl.register(Inner)
def _type_of_inner(function: Inner, _: Any) -> Any:
    """What compiled code sees where it names an inner function."""
    if function.compiled is None:
        function.compiled = _declared(function.py_func, CompilePart)
    return types.Dispatcher(function.compiled)


def built(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    """An outer function compiled for such arguments, as `native.packed` keeps it."""
    kinds = tuple(_kind(value) for value in arguments)
    collects = gc.isenabled()
    gc.disable()  # compiling makes millions of objects that live on, and looking through them takes a tenth of the time
    try:
        compiled = _declared(function, CompileWhole)
        compiled.compile(kinds)
    finally:
        store.STATE.running = 0
        if collects:
            gc.enable()
    found = compiled.overloads[kinds]
    library, returned = found.library, found.signature.return_type
    needs = [one.name for one in library._final_module.functions if one.is_declaration and not one.name.startswith("llvm.")]
    words = sum(5 + 2 * kind.ndim if isinstance(kind, types.Array) else 1 for kind in kinds)
    returns = len(returned) if isinstance(returned, types.BaseTuple) else 1
    return packed(found.fndesc.llvm_func_name, words, returns, needs, library._get_compiled_object())


def _kind(value: Any) -> Any:
    """Named tuples are handed over by reference."""
    return Ref(typeof(value)) if isinstance(value, tuple) else types.unliteral(typeof(value))
