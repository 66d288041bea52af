"""What touches the outside: files, the terminal, progress (floor 7)."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from apexsim.cli.files import STDOUT
from apexsim.errors import InputError, cut, shown

PATIENCE = 1.0  # s before progress is shown
NOTICE_AFTER = 1.5  # s before compilation is announced


def write_atomic(path: str, text: str | Iterable[str], flag: str) -> None:
    """Replace a file in one step: written beside it, then renamed; a symbolic link keeps pointing to its file.

    text: the whole of it, or its parts one after the other.  A device or a pipe is written to, never replaced.
    """
    if Path(path).expanduser().exists() and not Path(path).expanduser().is_file():
        _write_through(path, text, flag)
        return
    target = Path(os.path.realpath(Path(path).expanduser()))
    name = ""
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="replace", dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as file:
            name = file.name
            file.writelines([text] if isinstance(text, str) else text)
        os.chmod(name, mode)
        os.replace(name, target)
    except BaseException as error:
        if name:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"cannot write '{path}': {error.strerror}", flag) from None
        raise


def _write_through(path: str, text: str | Iterable[str], flag: str) -> None:
    try:
        with Path(path).expanduser().open("w", encoding="utf-8", errors="replace") as file:
            file.writelines([text] if isinstance(text, str) else text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror}", flag) from None


def deliver(text: str, path: str, flag: str) -> None:
    """Write to standard output, or atomically to the file that `flag` named."""
    if path == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_atomic(path, text, flag)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def page_size() -> tuple[int | None, bool]:
    """(columns, colour) of standard output; no columns where it is no terminal."""
    terminal = bool(sys.stdout) and sys.stdout.isatty()
    color = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    columns = os.environ.get("COLUMNS", "")
    if not terminal and not (columns.isdecimal() and int(columns) > 0):
        return None, False
    return shutil.get_terminal_size().columns, color


def say(text: str) -> None:
    """One line to the user, beside the results."""
    print(cut(shown(text)), file=sys.stderr, flush=True)


class Progress:
    """Says on the terminal how far the work is, as a context manager that cleans up after itself.

    A search that takes longer than a moment gets a line that is redrawn; where nobody looks there is none.  Work that
    has to wait for the simulator to be compiled says so once, everywhere; bad input has been refused by then.
    """

    def __init__(self, simulates: bool = True) -> None:
        self._simulates = simulates
        self._begun, self._shown = time.monotonic(), False
        self._wanted = sys.stderr.isatty()
        self._notice = threading.Timer(NOTICE_AFTER, _announce_compilation)
        self._notice.daemon = True

    def __enter__(self) -> Progress:
        if self._simulates and not _compiled():
            self._notice.start()
        return self

    def __call__(self, done: int, total: int, what: str) -> None:
        """Called for each plan or row done."""
        self._notice.cancel()
        if not self._wanted or time.monotonic() - self._begun < PATIENCE:
            return
        self._shown = True
        cells = 24 * done // max(total, 1)
        line = f"{'█' * cells}{'░' * (24 - cells)} {done}/{total} {what}"
        print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        self._notice.cancel()
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _compiled() -> bool:
    """Whether the simulator's machine code is at hand."""
    from apexsim.engine import cache

    cache.prepare()
    return cache.is_compiled()


def _announce_compilation() -> None:
    say("apexsim: compiling the simulator once, under a minute")
