"""Where the compiled engine is kept between runs (floor E).

Numba's own cache looks only at the file of a function, not at the functions it calls, so an edited or upgraded engine
could run old machine code.  Here the folder carries the package version and a hash of every file of the engine; a new
engine gets a new folder.  `prepare` runs before the first function is declared.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"
ENTRY = "kernel.run-*.nbi"  # index that numba writes for the one function that is called from Python

NOTICE = ""  # what the user should know about the cache; empty when all is well
ENABLED = True  # False: nothing could be written, every process compiles anew
FOLDER: Path | None = None


def digest(engine: Path) -> str:
    """Hash of the engine's files."""
    files = sorted(engine.glob("*.py"))
    content = b"\0".join(f.name.encode() + b"\0" + f.read_bytes() for f in files)
    return hashlib.blake2b(content, digest_size=6).hexdigest()


def key() -> str:
    """What the machine code depends on: package version, the engine's files, numba and Python."""
    engine = digest(Path(__file__).parent)
    return f"{_version('apexsim')}-{engine}-numba{_version('numba')}-{sys.implementation.cache_tag}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "source"


def root() -> Path:
    """The user's cache folder for this package."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path(os.path.expanduser("~")) / ".cache") / "apexsim"


def _temporary() -> Path:
    """A folder for this user where temporary files go."""
    return Path(tempfile.gettempdir()) / f"apexsim-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def _usable(folder: Path) -> bool:
    """Make the folder; True if it is this user's alone (cached code is executed) and can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for place in (folder, folder.parent):
            found = place.stat()
            if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o002):
                return False
        with tempfile.TemporaryFile(dir=folder):
            return True
    except (OSError, RuntimeError):
        return False


def _set(folder: Path) -> None:
    """Tell numba, whether or not it has been imported."""
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(folder)
    else:
        os.environ[VARIABLE] = str(folder)


def prepare() -> None:
    """Choose the folder: the one the user set, the user's cache, a temporary one, or none with a notice."""
    global NOTICE, ENABLED, FOLDER
    chosen, ours = os.environ.get(VARIABLE, ""), (root(), _temporary())
    if chosen and not any(base in Path(chosen).parents for base in ours):  # ours: inherited from a parent process
        FOLDER = Path(chosen)
        return
    name = key()
    for base in ours:
        if _usable(base / name):
            FOLDER = base / name
            _set(FOLDER)
            if base != ours[0]:
                NOTICE = f"{ours[0]} cannot be written: the compiled engine is kept in {FOLDER}"
            return
    FOLDER, ENABLED = None, False
    NOTICE = f"neither {ours[0]} nor {ours[1]} can be written: the engine is compiled anew in every process"


def is_compiled() -> bool:
    """Is machine code of this engine at hand, so that the first simulation starts at once?"""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return True
    return FOLDER is not None and next(FOLDER.glob(f"*/{ENTRY}"), None) is not None
