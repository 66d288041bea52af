"""What --emit writes: files that start a plan, into a folder in which nothing the user had is lost (floor 7)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apexsim.cli.files import STDOUT, files_named
from apexsim.cli.outside import say, write_atomic
from apexsim.cli.rows import options_of
from apexsim.errors import InputError
from apexsim.examples import expanded

if TYPE_CHECKING:
    from apexsim.report.emit.deployment import File
    from apexsim.search.size import Size
    from apexsim.search.study import Study

EMITTING = ("plan", "simulate", "size")


def check(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The forms that are asked for, () without --emit; raises InputError before anything is simulated."""
    if given.get("emit") is None:
        return ()
    from apexsim.report.emit.formats import formats_of

    names = formats_of(given["emit"])
    if given["output"] in (None, STDOUT):
        raise InputError("it needs a folder for its files", "--emit", "name one: -o DIR")
    _check_others(given, names)
    return names


def _check_others(given: Mapping[str, Any], forms: Sequence[str]) -> None:
    """Raise InputError where another output would take the place of a file of a form, or the other way round."""
    from apexsim.report.emit.formats import WRITES

    folder = os.path.realpath(expanded(given["output"]))
    others = {opt.name: opt.flag for command in EMITTING for opt in options_of(command) if opt.writes and opt.name != "output"}
    for name, flag in others.items():
        path = given.get(name)
        target = Path(os.path.realpath(expanded(path))) if isinstance(path, str) and path != STDOUT else None
        if target and str(target.parent) == folder and any(fnmatch(target.name, kind) for form in forms for kind in WRITES[form]):
            raise InputError(f"'{path}' may be written by --emit too", flag, "two outputs cannot share one file")


def emit(answer: Study | Size, names: Sequence[str], given: Mapping[str, Any]) -> None:
    """Write the files of all forms, or none."""
    from apexsim.report.emit.formats import files_of

    files = files_of(answer, names)
    folder = expanded(given["output"])
    targets = [folder / file.name for file in files]
    _keep(given, targets)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder '{given['output']}': {error.strerror}", "--output") from None
    for file, target in zip(files, targets):
        _write(file, target)
    say(f"apexsim: {given['output']} holds {', '.join(file.name for file in files)}")


def _keep(given: Mapping[str, Any], targets: Sequence[Path]) -> None:
    """Raise InputError where a file would be replaced that the user did not give up, or that this very run reads."""
    there = [target for target in targets if os.path.lexists(target)]
    if there and not given["force"]:
        names = ", ".join(target.name for target in there)
        raise InputError(f"'{given['output']}' has {names} already", "--output", "name another folder, or add --force to replace them")
    read = [path for name, value in given.items() if name != "output" for path in files_named(value)]
    for target in there:
        if not target.is_file():
            raise InputError(f"'{target.name}' in '{given['output']}' is no file", "--output", "name another folder")
        if any(path.is_file() and os.path.samefile(path, target) for path in read):
            raise InputError(f"'{target}' is the input and would be overwritten", "--output", "name another folder")


def _write(file: File, target: Path) -> None:
    if target.is_symlink():  # what is replaced is the name in this folder, not the file elsewhere that it leads to
        target.unlink()
    write_atomic(str(target), file.text, "--output")
    if file.runs:
        os.chmod(target, target.stat().st_mode | (target.stat().st_mode & 0o444) >> 2)
