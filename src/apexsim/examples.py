"""The examples that come with the package, by name or by the path that help and documents give them (floor 0).

`example:creation` is the file `creation_05.jsonl` of the folder `examples/`; `examples/creation_05.jsonl` means the same
wherever no such file lies.  Installed, the folder is part of the package's data; in a clone it is the clone's own.
"""

from __future__ import annotations

import os
from pathlib import Path

from apexsim.errors import InputError

PREFIX, FOLDER = "example:", "examples"
KINDS = (".csv", ".json", ".jsonl", ".log")
PACKAGE = Path(__file__).resolve().parent


def located(path: str | Path) -> Path:
    """The file or folder that is meant: an example, or what lies at the path.  Raises InputError for an unknown example."""
    text = str(path)
    if text.startswith(PREFIX):
        return _named(text.removeprefix(PREFIX).strip())
    return packaged(text) or expanded(text)


def expanded(path: str | Path) -> Path:
    """A path with the home folder that its ~ means; as it stands where nobody has that name (where pathlib raises)."""
    return Path(os.path.expanduser(path))


def packaged(path: str) -> Path | None:
    """The example of a path that begins with examples/ where no such file lies; None for other paths."""
    parts = Path(path).parts
    if len(parts) < 2 or parts[0] != FOLDER or ".." in parts or Path(path).exists():
        return None
    found = _folder().joinpath(*parts[1:])
    return found if found.exists() else None


def names() -> dict[str, Path]:
    """The shortest name of every example, and where it lies."""
    files = [file for file in sorted(_folder().iterdir()) if file.suffix in KINDS]
    return {file.stem.split("_")[0]: file for file in files} | {d.name: d for d in sorted((_folder() / "devices").iterdir())}


def _named(name: str) -> Path:
    known = names()
    longer = {other: path for path in known.values() for other in (path.stem, path.name)}
    found = known.get(name) or longer.get(name)
    if found is None:
        raise InputError(f"no example '{name[:80]}'", "", f"there are {', '.join(known)}")
    return found


def _folder() -> Path:
    """Where they lie: in the package, or beside src/ in a clone."""
    inside = PACKAGE / "data" / FOLDER
    return inside if inside.is_dir() else PACKAGE.parent.parent / FOLDER
