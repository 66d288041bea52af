"""Where the compiled engine is kept (floor E).

The folder's name carries all that machine code depends on: the package's version, a hash of every file of the engine,
numba, Python, the processor and numba's own settings.  So what lies there is for this engine on this machine, whoever
else keeps something beside it, and what is missing there is not compiled yet.  `prepare` runs before the first function
is declared; `engine/store.py` reads and writes the files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"
ENTRY = "kernel.run-*.code"  # of the function that serves every shape
ROOM = 32 * 2**20  # bytes that a folder needs: machine code takes 3 MiB, its files are written beside the old ones
NOT_CODE = (VARIABLE, "NUMBA_NUM_THREADS", "NUMBA_DISABLE_JIT")  # settings that change no machine code

NOTICE = ""  # what the user should know about the cache; empty when all is well
ENABLED = True  # False: nothing could be written, every process compiles anew
FOLDER: Path | None = None


def digest(engine: Path) -> str:
    """Hash of the engine's files."""
    files = sorted(engine.glob("*.py"))
    content = b"\0".join(f.name.encode() + b"\0" + f.read_bytes() for f in files)
    return hashlib.blake2b(content, digest_size=6).hexdigest()


def key() -> str:
    """What an engine is, wherever it runs: package version, the engine's files, numba and Python."""
    engine = digest(Path(__file__).parent)
    return f"{_version('apexsim')}-{engine}-numba{_version('numba')}-{sys.implementation.cache_tag}"


def machine() -> str:
    """Hash of what machine code depends on besides: the processor, its features, numba's settings."""
    from llvmlite import binding

    told = [binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()]
    told += sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("NUMBA_") and name not in NOT_CODE)
    return hashlib.blake2b("\0".join(told).encode(errors="surrogateescape"), digest_size=4).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "source"


def root() -> Path:
    """The user's cache folder for this package."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path(os.path.expanduser("~")) / ".cache") / "apexsim"


def _temporary() -> list[Path]:
    """A folder for this user where temporary files go, if there is such a place."""
    try:
        return [Path(tempfile.gettempdir()) / f"apexsim-{os.getuid() if hasattr(os, 'getuid') else 'user'}"]
    except OSError:
        return []


def _usable(folder: Path) -> bool:
    """Whether machine code can be read there or, as a rule, written; the folder is made.

    Cached code is executed: nobody but this user and the system's own may be able to put it there.
    """
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, mode=0o700)
        for place in (folder, folder.parent):
            found = place.stat()
            if hasattr(os, "getuid") and (found.st_uid not in (0, os.getuid()) or found.st_mode & 0o002):
                return False
        if _holds_code(folder):
            return True
        with tempfile.TemporaryFile(dir=folder):
            return shutil.disk_usage(folder).free >= ROOM
    except (OSError, RuntimeError):
        return False


def _holds_code(folder: Path) -> bool:
    return any(file.stat().st_size > 0 for file in folder.glob(ENTRY))


def prepare() -> None:
    """Choose the folder: below the one the user set, in the user's cache, a temporary one, or none, with a notice."""
    global NOTICE, ENABLED, FOLDER
    chosen = os.environ.get(VARIABLE, "")
    bases = [*([Path(chosen).absolute()] if chosen else []), root(), *_temporary()]
    name = f"{key()}-{machine()}"
    found = next((base for base in bases if _usable(base / name)), None)
    FOLDER, ENABLED, NOTICE = (found / name if found else None), found is not None, ""
    if found is None:
        NOTICE = f"neither {' nor '.join(str(base) for base in bases)} can be written: every run compiles anew"
    elif found != bases[0]:
        NOTICE = f"{bases[0]} cannot be written or is full: kept in {FOLDER}"


def is_compiled() -> bool:
    """Is machine code of this engine for this machine at hand, so that the first simulation starts at once?"""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return True
    return holds(ENTRY)


def holds(pattern: str) -> bool:
    """Is there machine code in files of this name?"""
    try:
        return FOLDER is not None and any(file.stat().st_size > 0 for file in FOLDER.glob(pattern))
    except OSError:
        return False
