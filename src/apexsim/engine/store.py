"""Machine code on disk, one file for each function that Python calls and its signature (floor E).

numba's own cache believes its files: one that a power failure cut short ends every later run, and so does a disk that
is full.  Here a file begins with a hash of the rest.  What does not match is thrown away and compiled again, what cannot
be written stays unwritten; neither ends a run.  `STATE` says how far the compilation is, for who waits for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from apexsim.engine import cache

fcntl: Any = None  # on another system: who comes at the same time compiles too
with contextlib.suppress(ImportError):
    fcntl = import_module("fcntl")

T = TypeVar("T")
HASH_BYTES = 32
PATIENCE, GLANCE = 120.0, 0.05  # s that a process waits for another one's compilation, and between two looks


@dataclass(slots=True)
class StoreState:
    """What became of the functions of this process; written under numba's lock, read by anybody."""

    functions: int = 0  # that are compiled one by one
    begun: set[str] = field(default_factory=set)  # those compiled here, or being compiled
    running: int = 0  # compilations that are not done: a function waits for those that it calls
    damaged: str = ""  # the first file that could not be used
    unsaved: str = ""  # why the first file could not be written


STATE = StoreState()


class Damaged(Exception):
    """A file is not what was once written."""


def name_of(function: Callable[..., Any]) -> str:
    """Module and function, as files and progress name it."""
    return f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"


def file_of(name: str, kind: str) -> Path | None:
    """Named after the function and what its arguments are; the folder stands for the source and the processor."""
    return cache.FOLDER / f"{name}-{hashlib.blake2b(kind.encode(), digest_size=8).hexdigest()}.code" if cache.FOLDER else None


def read(file: Path | None, use: Callable[[bytes], T]) -> T | None:
    """What can be made of a file; None where it has to be compiled."""
    try:
        return use(_read(file)) if file is not None else None
    except FileNotFoundError:
        return None
    except Exception:  # whatever a broken file leads to: it is as good as missing
        STATE.damaged = STATE.damaged or str(file)
        _remove(file)
        return None


def keep(file: Path | None, content: bytes) -> None:
    """Keep what has been compiled; failing that, say why in STATE."""
    try:
        if file is not None:
            _write(file, content)
    except OSError as error:
        STATE.unsaved = STATE.unsaved or f"{error.strerror or error}"


@contextlib.contextmanager
def alone(file: Path | None) -> Iterator[bool]:
    """Of several processes that lack a file one compiles at a time: half a minute of a core is not spent twice.  Says whether another one
    had to be waited for, and may have left the file; where none can be told, or it takes too long, nobody waits."""
    handle, waited, patience = -1, False, time.monotonic() + PATIENCE
    lock = file.with_name(f".{file.name}.lock") if file is not None and fcntl else None
    try:
        with contextlib.suppress(OSError):
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600) if lock else -1
        while handle >= 0 and time.monotonic() < patience and not _claimed(handle):
            waited = True
            time.sleep(GLANCE)
        yield waited
    finally:
        if lock and handle >= 0:
            _remove(lock)  # who waits holds the same file still; who comes now finds what was kept
            os.close(handle)


def _claimed(handle: int) -> bool:
    """Is the lock ours now, or such that nobody can have it?  The system gives it back when its process ends, however that comes."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


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
