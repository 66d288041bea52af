"""Machine code on disk, one file for each function that Python calls and its signature (floor E).

numba's own cache believes its files: one that a power failure cut short ends every later run, and so does a disk that
is full.  Here a file begins with a hash of the rest.  What does not match is thrown away and compiled again, what cannot
be written stays unwritten; neither ends a run.  `STATE` says how far the compilation is, for who waits for it.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from apexsim.engine import cache

HASH_BYTES = 32


@dataclass(slots=True)
class StoreState:
    """What became of the functions of this process; written under numba's lock, read by anybody."""

    functions: int = 0  # that are compiled one by one
    begun: set[str] = field(default_factory=set)  # those compiled here, or being compiled
    running: int = 0  # compilations that are not done: a function waits for those that it calls
    collects: bool = False  # garbage is collected when none is running
    damaged: str = ""  # the first file that could not be used
    unsaved: str = ""  # why the first file could not be written


STATE = StoreState()


class Damaged(Exception):
    """A file is not what was once written."""


class CodeStore:
    """What numba asks for and hands over: the machine code of one function.  Not kept: it is a part of another's."""

    def __init__(self, function: Callable[..., Any], kept: bool = True) -> None:
        self._kept = kept
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        STATE.functions += 1

    @property
    def cache_path(self) -> str:
        """The folder, for numba's statistics."""
        return str(cache.FOLDER or "")

    def enable(self) -> None:
        """It always is."""

    def disable(self) -> None:
        """It never is."""

    def flush(self) -> None:
        """Forget what is kept of this function."""
        for file in cache.FOLDER.glob(f"{self._name}-*.code") if cache.FOLDER else ():
            _remove(file)

    def load_overload(self, signature: Any, context: Any) -> CompileResult | None:
        """The machine code for a signature; None where it has to be compiled, which then begins."""
        context.refresh()
        file = self._file(signature, context.codegen()) if self._kept else None
        if file is not None:
            try:
                return CompileResult._rebuild(context, *pickle.loads(_read(file)))
            except FileNotFoundError:
                pass
            except Exception:  # whatever a broken file leads to: it is as good as missing
                STATE.damaged = STATE.damaged or str(file)
                _remove(file)
        STATE.begun.add(self._name)
        if STATE.running == 0 and gc.isenabled():
            STATE.collects = True
            gc.disable()  # compiling makes millions of objects that live on, and looking through them takes a tenth of the time
        STATE.running += 1
        return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep what has been compiled; failing that, say why in STATE."""
        STATE.running -= 1
        if STATE.running == 0 and STATE.collects:
            gc.enable()
        file = self._file(signature, compiled.codegen) if self._kept else None
        if file is None or compiled.lifted or compiled.library.has_dynamic_globals:
            return
        try:
            _write(file, dumps(compiled._reduce()))
        except OSError as error:
            STATE.unsaved = STATE.unsaved or f"{error.strerror or error}"

    def _file(self, signature: Any, codegen: Any) -> Path | None:
        """Named after the function, the signature and the processor; the folder stands for the source."""
        if cache.FOLDER is None:
            return None
        told = repr((str(signature), codegen.magic_tuple())).encode()
        return cache.FOLDER / f"{self._name}-{hashlib.blake2b(told, digest_size=8).hexdigest()}.code"


def _read(file: Path) -> bytes:
    content = file.read_bytes()
    if _hash(content[HASH_BYTES:]) != content[:HASH_BYTES]:
        raise Damaged(str(file))
    return content[HASH_BYTES:]


def _write(file: Path, content: bytes) -> None:
    """In one step: nobody reads half a file."""
    name = ""
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as fresh:
            name = fresh.name
            fresh.write(_hash(content) + content)
        os.replace(name, file)
    except BaseException:
        if name:
            _remove(Path(name))
        raise


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=HASH_BYTES).digest()
