"""What touches the outside: files, the terminal, progress (floor 7)."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from apexsim.cli.files import STDOUT
from apexsim.errors import InputError, cut, shown
from apexsim.examples import expanded

PATIENCE = 0.8  # s before a command says that it is alive
TICK = 0.25  # s from one look at its state to the next
COMPLETION = "_APEXSIM_COMPLETE"  # set by the shell that asks for words
COMPILES, COMPILES_FOR = "compiling the simulator", "10 to 60 s"


Content = str | bytes | Iterable[str]


def write_atomic(path: str, content: Content, flag: str) -> None:
    """Replace a file in one step: written beside it, then renamed; a symbolic link keeps pointing to its file.

    content: the whole of it, or its parts one after the other.  A device or a pipe is written to, never replaced.
    """
    if expanded(path).exists() and not expanded(path).is_file():
        _write_through(path, content, flag)
        return
    target = Path(os.path.realpath(expanded(path)))
    name = ""
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name[:100]}.", delete=False) as file:
            name = file.name
            file.writelines(_encoded(content))
        os.chmod(name, mode)
        os.replace(name, target)
    except BaseException as error:
        if name:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"cannot write '{path}': {error.strerror}", flag) from None
        raise


def _encoded(content: Content) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
    else:
        for part in [content] if isinstance(content, str) else content:
            yield part.encode("utf-8", "replace")


def _write_through(path: str, content: Content, flag: str) -> None:
    try:
        with expanded(path).open("wb") as file:
            file.writelines(_encoded(content))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror}", flag) from None


DELIVERED: set[str] = set()  # flags whose output standard output holds already: a failure after that adds none


def deliver(text: str, path: str, flag: str) -> None:
    """Write to standard output, or atomically to the file that `flag` named."""
    if path == STDOUT:
        DELIVERED.add(flag)
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_atomic(path, text, flag)


def present(record: Any, text: Callable[[], str], json: str | None) -> None:
    """A result as JSON where that was asked for, and as text unless the JSON has standard output."""
    if json is not None:
        from apexsim.report.plain import dumps

        deliver(dumps(record), json, "--json")
    if json != STDOUT:
        deliver(text(), STDOUT, "--output")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class _Closed(io.TextIOBase):
    """Standard output that was closed before the start."""

    def write(self, _: str) -> int:
        raise OSError(errno.EBADF, "standard output is closed")


def open_streams() -> None:
    """Make sure that there are both: what is written to a closed output is an error in one line, and no error is lost in it."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # until the end
    if sys.stdout is None:
        sys.stdout = cast(TextIO, _Closed())


# numbers in the environment that libraries read without a look -> the most that means something
NUMBERS = {"COLUMNS": 10_000, "LINES": 10_000, "TERMINAL_WIDTH": 10_000, "NUMBA_NUM_THREADS": 1024}
ASKED = {"bash": "COMP_WORDS", "zsh": "_TYPER_COMPLETE_ARGS", "fish": "_TYPER_COMPLETE_ARGS", "powershell": "_TYPER_COMPLETE_ARGS",
         "pwsh": "_TYPER_COMPLETE_ARGS"}  # fmt: skip  # what a shell sets when it asks for words


def tame_environment() -> None:
    """Take out of the environment what libraries would stumble over: it is as if it were not set."""
    for name, most in NUMBERS.items():
        text = os.environ.get(name, "1")
        if not (text.isascii() and text.isdecimal() and len(text) < 9 and 0 < int(text) <= most):
            del os.environ[name]
    word, _, shell = os.environ.get(COMPLETION, "").partition("_")
    if word not in ("source", "complete") or shell not in ASKED or (word == "complete" and ASKED[shell] not in os.environ):
        os.environ.pop(COMPLETION, None)


def page_size() -> tuple[int | None, bool]:
    """(columns, colour) of standard output; no columns where it is no terminal."""
    terminal = bool(sys.stdout) and sys.stdout.isatty()
    color = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if not terminal and "COLUMNS" not in os.environ:
        return None, False
    return shutil.get_terminal_size().columns, color


def say(text: str) -> None:
    """One line to the user, beside the results."""
    if _life is not None:
        _life.wipe()
    _tell_user(cut(shown(text)) + "\n")


def settle() -> None:
    """This command stays: it is not shown again and again that it runs."""
    if _life is not None:
        _life.end()


def _tell_user(text: str) -> None:
    """Write to standard error; where nobody can hear it, nothing is said from then on."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        drop(sys.stderr)


def drop(stream: TextIO) -> None:
    """What is left to be written cannot be: let nothing try again at the end."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Life:
    """Shows that a command is alive, from the second on that it takes longer than one; a context manager.

    On a terminal a line on standard error is redrawn, and taken away before anything is printed.  Elsewhere it is one
    line, once.  Who has to wait for the simulator to be compiled is told so, and what is wrong with the place it is kept in.
    """

    def __init__(self, doing: str, simulates: bool = False) -> None:
        self.doing, self.work = doing, (0, 0, "")  # what is done, of how many, of what
        self.simulates = simulates  # it needs the compiled engine
        self._begun, self._told, self._drawn = time.monotonic(), "", False
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._out = sys.stdout
        self._lock, self._over = threading.RLock(), threading.Event()

    def __enter__(self) -> Life:
        global _life
        _life = self
        if self._terminal:
            sys.stdout = cast(TextIO, _After(self._out, self.end))
        if COMPLETION not in os.environ:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        global _life
        self.end()
        sys.stdout, _life = self._out, None
        unsaved = _unsaved()
        if unsaved:
            say(f"apexsim: {unsaved}")

    def _watch(self) -> None:
        pause = PATIENCE
        while not self._over.wait(pause):
            pause = TICK
            with self._lock:
                if not self._over.is_set():
                    self._draw() if self._terminal else self._tell()

    def _tell(self) -> None:
        """One line where nothing can be redrawn: that of the compilation, or that the command is running."""
        waits = _compilation() is not None or (self.simulates and not self._told and not _compiled())
        text = _compiling() if waits else self._told or f"{self.doing} …"
        if text != self._told and not self._told.startswith(COMPILES):
            self._told = text
            say(f"apexsim: {text}")

    def _draw(self) -> None:
        """The line of now: a bar where something is counted."""
        done, total, what = _compilation() or self.work
        cells = 24 * done // max(total, 1)
        bar = f"{'█' * cells}{'░' * (24 - cells)} {done}/{total} " if total else ""
        line = f"{bar}{what or self.doing}, {time.monotonic() - self._begun:.0f} s"
        self._drawn = True
        _tell_user(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")

    def wipe(self) -> None:
        """Take the line away until the next one is drawn."""
        with self._lock:
            if self._drawn:
                self._drawn = False
                _tell_user("\r\x1b[K")

    def end(self) -> None:
        """Take the line away for good."""
        with self._lock:
            self._over.set()
            self.wipe()


class _After:
    """Standard output before whose first word something is done."""

    def __init__(self, stream: TextIO, first: Callable[[], None]) -> None:
        self._stream, self._first = stream, first

    def write(self, text: str) -> int:
        self._first()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_life: Life | None = None  # of the command that runs


class Progress:
    """How far a piece of work is, for who waits at the terminal; simulates: whether it
    needs the compiled engine, where that is not known of the command."""

    def __init__(self, simulates: bool = False) -> None:
        self._simulates = simulates

    def __enter__(self) -> Progress:
        if _life is not None:
            _life.simulates |= self._simulates
        return self

    def __call__(self, done: int, total: int, what: str) -> None:
        """Called for each plan or row done."""
        if _life is not None:
            _life.work = (min(done, total), total, what)

    def __exit__(self, *_: object) -> None:
        if _life is not None:
            _life.work, _life.simulates = (0, 0, ""), False


def _compiled() -> bool:
    """Whether the simulator's machine code is at hand."""
    from apexsim.engine import cache

    return cache.is_compiled()


def _state() -> Any:
    """What became of the engine's functions; None while nothing has asked for them."""
    store = sys.modules.get("apexsim.engine.store")
    return getattr(store, "STATE", None)


def _compilation() -> tuple[int, int, str] | None:
    """How far the compilation is; None where nothing is being compiled."""
    state = _state()
    return (len(state.begun), state.functions, _compiling()) if state is not None and state.running else None


def _compiling() -> str:
    """What is said of the compilation, and what is wrong with the place where it is kept."""
    from apexsim.engine import cache

    state = _state()
    damaged = f"{state.damaged} was damaged" if state is not None and state.damaged else ""
    why = cache.NOTICE or damaged
    return f"{COMPILES}{' once' * cache.ENABLED}, {COMPILES_FOR}" + (f" ({why})" if why else "")


def _unsaved() -> str:
    """What is to be said where the compiled engine could not be kept."""
    state = _state()
    if state is None or not state.unsaved:
        return ""
    from apexsim.engine import cache

    return f"the compiled simulator could not be kept in {cache.FOLDER} ({state.unsaved}): the next run compiles again"
