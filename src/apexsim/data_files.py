"""Tables of facts that come with the package (floor 0)."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def table(name: str) -> dict[str, Any]:
    """A TOML file of the package's data, read once."""
    return tomllib.loads((files("apexsim") / "data" / name).read_text(encoding="utf-8"))
