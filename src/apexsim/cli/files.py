"""No output of a command takes the place of a file that its run reads (floor 7).

Which options are outputs stands in their rows (`Opt.writes`).  Every other word of a command line that names a file or
a folder counts as read, whatever the option: an option that is added later is protected without a word.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import Any

from apexsim.cli.rows import Opt
from apexsim.errors import InputError
from apexsim.examples import PREFIX, expanded, located, packaged
from apexsim.files import hub_cache, read_toml

SEVERAL = ".toml"  # of a file of models, which stands in a model's place
STDOUT = "-"
SIGNS, CUTS = "@:=", 12  # between the parts of a short form; how many of them are looked at
# what is read of a folder that is named: a model, a device, a tokenizer
OF_FOLDERS = ("*config.json", "*.index.json", "tokenizer*", "params.json", "*.toml", "*.csv", "*.txt", "*.py", "*.model",
              "*.safetensors", "*.gguf", "*.bin", "*.pt", "*.pth")  # fmt: skip


def check_files(opts: Sequence[Opt], given: Mapping[str, Any]) -> None:
    """Raise InputError, before any work is done, where an output cannot be written or would replace what is read.

    given: all that stands on the command line, arguments too.
    """
    named = [opt for opt in opts if opt.writes and isinstance(given.get(opt.name), str)]
    outputs = [opt for opt in named if given[opt.name] != STDOUT]
    if len(named) > len(outputs) + 1:  # two of them are STDOUT
        raise InputError("standard output is taken by another output", named[-1].flag, "name a file for one of them")
    wanted = {opt.name: expanded(given[opt.name]) for opt in outputs}
    read = [path for name, value in given.items() if name not in wanted for path in files_named(value)] if outputs else []
    for opt in outputs:
        text, target = given[opt.name], wanted[opt.name]
        _check_name(text, target, opt.flag)
        (_check_folder if opt.folder else _check_writable)(text, target, opt.flag)
        _check_suffix(text, target, opt)
        if any(replaces(target, path) for path in (*read, *(_kept() if not opt.folder else ()))):
            raise InputError(f"'{text}' is the input and would be overwritten", opt.flag, "name another file")
    for at, opt in enumerate(outputs):
        other = next((o for o in outputs[:at] if _place(wanted[o.name]) == _place(wanted[opt.name])), None)
        if other:
            raise InputError(f"'{given[opt.name]}' is written by {other.flag} too", opt.flag, "two outputs cannot share one file")


def check_picture(path: str) -> None:
    """Raise InputError, before any work is done, where no picture can be drawn or none of this kind."""
    from apexsim.report.picture import figure

    if path == STDOUT:
        raise InputError("a picture cannot be written to standard output", "--plot", "name a file")

    figure(path)


def _check_name(text: str, target: Path, flag: str) -> None:
    """A name that the system takes: without NUL bytes or halves of characters, not too long, no links that go round."""
    try:
        target.lstat()
        target.stat()
    except ValueError:
        raise InputError(f"'{text}' has a character that no file name may have", flag, "name another file") from None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise InputError(f"cannot write '{text}': {error.strerror}", flag, "name another file") from None


def _check_writable(text: str, target: Path, flag: str) -> None:
    folder = target.parent
    if not text or _is(os.path.isdir, target):
        raise InputError(f"'{text}' is a folder, not a file", flag, "name a file")
    if not _is(os.path.isdir, folder):
        raise InputError(f"the folder '{folder}' does not exist", flag, "create it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"the folder '{folder}' cannot be written", flag)


def _check_suffix(text: str, target: Path, opt: Opt) -> None:
    """A file that another program opens by its name is called so; a device or a pipe has no such name."""
    special = _is(os.path.exists, target) and not _is(os.path.isfile, target)
    if opt.suffixes and not special and target.suffix.lower() not in opt.suffixes:
        raise InputError(f"expected a file that ends in {' or '.join(opt.suffixes)}, got '{text}'", opt.flag, f"add {opt.suffixes[0]}")


def _check_folder(text: str, target: Path, flag: str) -> None:
    if not text or (target.exists() and not target.is_dir()):
        raise InputError(f"'{text}' is a file, not a folder", flag, "name a folder")


# ---- what is read -------------------------------------------------------------------------------------------------


def files_named(value: Any) -> Iterator[Path]:
    """The files and folders that a value names: as a whole, in a list with commas, or between the signs of a short form (a clock
    behind `@`, a method and a number around a draft model); and those that stand in a file of models."""
    for text in value if isinstance(value, (list, tuple)) else [value]:
        if not isinstance(text, str):
            continue
        whole = {text, *(part.strip() for part in text.split(","))}
        for word in whole | {inside for one in whole for inside in _between(one)}:
            path = expanded(word)
            example = _example(word)
            if word and _is(os.path.exists, path):
                yield path
                yield from _told(path)
            elif word and example:
                yield example


def _between(word: str) -> Iterator[str]:
    """The parts of a word that stand between any two of its signs; of very many signs those next to the ends."""
    cuts = [-1, *(at for at, sign in enumerate(word) if sign in SIGNS), len(word)]
    for i, first in enumerate(cuts[:CUTS]):
        for last in (cuts if len(cuts) <= CUTS else cuts[-CUTS:])[-CUTS:]:
            if first < last and (i or last < len(word)):
                yield word[first + 1 : last]


def _told(path: Path) -> Iterator[Path]:
    """The files that stand in the tables of a file of models: whatever a text in it names."""
    if path.suffix.lower() != SEVERAL or not _is(os.path.isfile, path):
        return
    try:
        data = read_toml(path, "file")
    except InputError:  # which whoever reads it tells
        return
    for text in _texts(data):
        for near in (path.parent / text, expanded(text)):
            if text and _is(os.path.exists, near):
                yield near


def _texts(value: Any) -> Iterator[str]:
    """Every text of tables and lists."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)


def _example(word: str) -> Path | None:
    """The file of an example's name."""
    try:
        return located(word) if word.startswith(PREFIX) else packaged(word)
    except (InputError, OSError, ValueError):
        return None


def _kept() -> tuple[Path, ...]:
    """Folders that names, and not paths, lead into: the program's own data, kept devices, profiles and engines, the hub's cache."""
    from apexsim.calibrate.profile import profiles_folder
    from apexsim.engine_file import engines_folder
    from apexsim.hardware import devices_folder

    return Path(str(resources.files("apexsim"))), devices_folder(), profiles_folder(), engines_folder(), hub_cache()


# ---- one compare of paths -----------------------------------------------------------------------------------------


def replaces(target: Path, read: Path) -> bool:
    """Whether writing `target` replaces `read`, or a file of the folder `read` that a run would read."""
    if not _is(os.path.isfile, target):  # a new file, or a device, takes nobody's place
        return False
    if not _is(os.path.isdir, read):
        return _is(os.path.isfile, read) and os.path.samefile(target, read)
    inside = _place(read) in map(str, Path(_place(target)).parents)
    linked = any(_is(os.path.isfile, path) and os.path.samefile(target, path) for path in _direct(read))
    return linked or (inside and _is_of_folders(target))


def _direct(folder: Path) -> Iterable[Path]:
    """What lies directly in a folder and would be read: files, and links to files elsewhere."""
    try:
        return [path for path in folder.iterdir() if _is_of_folders(path)]
    except OSError:
        return []


def _is_of_folders(path: Path) -> bool:
    return any(fnmatch(name, kind) for kind in OF_FOLDERS for name in (path.name.lower(), os.path.realpath(path).lower()))


def _place(path: Path) -> str:
    """Where a path leads, the same for all its spellings, also while there is nothing yet."""
    real = os.path.realpath(path)
    folder = os.path.dirname(real)
    try:
        blind = os.path.samefile(folder, folder.swapcase())  # a file system that does not know capitals
    except (OSError, ValueError):
        blind = False
    return real.casefold() if blind else os.path.normcase(real)


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    """A question about a path; no path at all (too long, a NUL in it) is nothing."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False
