"""Reading files of any size and any content: bounded in memory, linear in time, every fault one `InputError` (floor 0)."""

from __future__ import annotations

import gzip
import io
import json
import os
import tomllib
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any

from apexsim.errors import InputError
from apexsim.examples import expanded, located

BLOCK = 1 << 22  # [byte] read at once
PEEK = 1 << 16  # [byte] that can be looked at before they are read
TEXT = 1 << 26  # [byte] of a file that is read as a whole: a configuration, a table of figures
DOCUMENT = 1 << 28  # [byte] of one JSON document that holds the requests of a run
LINE = 1 << 26  # [byte] of one line
FAULTS = (OSError, EOFError, zlib.error)  # of reading, also of a packed file that is damaged
BOMS = (b"\xff\xfe", b"\xfe\xff")  # what UTF-16 begins with


def opened(path: str | Path, what: str) -> IO[bytes]:
    """The file as bytes, unpacked where it is gzip; `what` it is, in words.  A pipe is read once."""
    where = str(path)
    try:
        raw = io.BufferedReader(io.FileIO(located(path)), PEEK)
        if raw.peek(2)[:2] != b"\x1f\x8b":
            return raw
        packed = gzip.GzipFile(fileobj=raw, mode="rb")
        packed.myfileobj = raw  # type: ignore[assignment]  # closed with it
        return packed  # type: ignore[return-value]
    except FileNotFoundError:
        raise InputError(f"the {what} does not exist", where) from None
    except IsADirectoryError:
        raise InputError(f"this is a directory, not the {what}", where) from None
    except (*FAULTS, ValueError) as error:
        raise unreadable(error, what, where) from None


def unreadable(error: BaseException, what: str, where: str) -> InputError:
    """Why reading stopped."""
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    damaged = "damaged gzip: " if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)) else ""
    return InputError(f"the {what} cannot be read ({damaged}{told})", where)


def blocks(file: IO[bytes], what: str, where: str, size: int = BLOCK) -> Iterator[bytes]:
    """The file block by block; what is no text is refused at its first NUL."""
    first = True
    while True:
        try:
            block = file.read(size)
        except FAULTS as error:
            raise unreadable(error, what, where) from None
        if not block:
            return
        if b"\0" in block:
            wide = first and block[:2] in BOMS
            raise InputError(f"the {what} is {'UTF-16' if wide else 'binary'}, expected text in UTF-8", where)
        first = False
        yield block


def read_text(path: str | Path, what: str, most: int = TEXT, lenient: bool = False) -> str:
    """All of a file as text, at most `most` bytes of it; lenient: what is no UTF-8 is replaced."""
    where, parts, size = str(path), [], 0
    with opened(path, what) as file:
        for block in blocks(file, what, where):
            size += len(block)
            if size > most:
                raise InputError(f"the {what} is larger than {most >> 20} MiB", where, "is it the right file?")
            parts.append(block)
    try:
        return b"".join(parts).decode("utf-8-sig", "replace" if lenient else "strict")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"the {what} is not UTF-8 text", f"{where}:{line}") from None


def read_json(path: str | Path, what: str, most: int = TEXT) -> Any:
    """The JSON value of a file."""
    return json_of(read_text(path, what, most), what, str(path))


DIGITS = 40  # of a whole number: longer ones are no figure of anything, and no float holds those of hundreds


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def loads(text: str) -> Any:
    """The JSON value of a text; raises ValueError, also for numbers that are none, and RecursionError."""
    return json.loads(text, parse_int=_whole)


def read_toml(path: str | Path, what: str) -> dict[str, Any]:
    """The tables of a TOML file of the user's: of texts, numbers, truth values and lists of them."""
    where = str(path)
    text = read_text(path, what)
    try:
        found = tomllib.loads(text)
        _plain(found, what, where)
    except RecursionError:
        raise InputError(f"the {what} is nested too deeply", where) from None
    except ValueError as error:  # also a number of thousands of digits, which is no TOMLDecodeError
        raise InputError(f"the {what} is not TOML: {error}", where) from None
    return found


def _plain(value: Any, what: str, where: str) -> None:
    """Raise InputError for a value that nothing is told by: a day, a time, a number of hundreds of digits."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _plain(inner, what, f"{where} {key}")
    elif isinstance(value, list):
        for inner in value:
            _plain(inner, what, where)
    elif isinstance(value, int) and abs(value) >= 10**DIGITS:
        raise InputError(f"the {what} has a number of more than {DIGITS} digits", where)
    elif not isinstance(value, (str, int, float, bool)):
        raise InputError(
            f"the {what} has {value} without quotes, which TOML takes for a date or a time", where, f'write "{value}", or a number'
        )


def json_of(text: str, what: str, where: str) -> Any:
    """The JSON value of a text."""
    try:
        return loads(text)
    except RecursionError:
        raise InputError(f"the {what} is nested too deeply", where) from None
    except ValueError as error:
        at = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"the {what} is not JSON ({getattr(error, 'msg', str(error))})", where + at) from None


def lines(path: str | Path, what: str, lenient: bool = False) -> Generator[str, None, None]:
    """The lines of a text with their ends, one after the other."""
    where = str(path)
    with opened(path, what) as file:
        yield from lines_of(file, what, where, lenient)


def lines_of(file: IO[bytes], what: str, where: str, lenient: bool = False) -> Iterator[str]:
    """The lines of an open file; raises InputError where one does not end."""
    number = 0
    for whole in _whole_lines(blocks(file, what, where), what, where):
        for raw in whole.splitlines(keepends=True) if b"\r" in whole else whole.split(b"\n"):
            ended = raw if raw.endswith((b"\n", b"\r")) else raw + b"\n"
            number += 1
            try:
                yield ended.decode("utf-8-sig" if number == 1 else "utf-8", "replace" if lenient else "strict")
            except UnicodeDecodeError:
                raise InputError(f"the {what} is not UTF-8 text", f"{where}:{number}") from None


def _whole_lines(read: Iterator[bytes], what: str, where: str) -> Iterator[bytes]:
    """Blocks cut at ends of lines, without the last of them."""
    rest: list[bytes] = []
    held = 0
    for block in read:
        cut = block.rfind(b"\n")
        if cut < 0:
            rest.append(block)
            held += len(block)
            if held > LINE:
                raise InputError(f"the {what} has a line longer than {LINE >> 20} MiB", where, "is it the right file?")
            continue
        yield b"".join((*rest, block[:cut]))
        rest, held = ([block[cut + 1 :]] if cut + 1 < len(block) else []), len(block) - cut - 1
    if rest:
        yield b"".join(rest)


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it downloaded: $HF_HUB_CACHE, or in $HF_HOME, or in the user's cache folder."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return expanded(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def own_folder(variable: str, kind: str) -> Path:
    """Where people keep files of a kind of their own: the folder that the variable names, else one in their data folder."""
    data = os.environ.get("XDG_DATA_HOME") or expanded("~/.local/share")  # where nobody has a home, a folder that is not there
    return Path(os.environ.get(variable) or Path(data) / "apexsim" / kind)
