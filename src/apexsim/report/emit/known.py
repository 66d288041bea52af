"""Manifests hold fields that their schemas know, of the right types (floor 6).

`data/schemas.json` has the fields of each kind with their types and where they were read; [] is an entry of a list, * any key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "boolean": (bool,), "object": (Mapping,), "array": (list, tuple), "number": (int, float),
}  # fmt: skip


@cache
def schemas() -> dict[str, Any]:
    """By name of the kind."""
    found: dict[str, Any] = json.loads((files("apexsim") / "data/schemas.json").read_text(encoding="utf-8"))
    return found


def checked(kind: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document, of which everything is known."""
    odd = list(unknown(kind, document))
    assert not odd, f"{kind}: {odd[0]}"
    return document


def unknown(kind: str, document: Mapping[str, Any]) -> Iterator[str]:
    """Paths of a document that the schema of a kind does not have, or that hold another type."""
    fields: Mapping[str, str] = schemas()[kind]["fields"]
    for path, value in _paths(document, fields):
        known = fields.get(path)
        if known is None:
            yield f"{path} is unknown"
        elif known in TYPES and not (isinstance(value, TYPES[known]) and isinstance(value, bool) == (known == "boolean")):
            yield f"{path} is no {known}"


def _paths(value: Any, fields: Mapping[str, str], at: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of all that is in a document, * for keys that may be any."""
    if at:
        yield at, value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            own, free = (f"{at}.{key}" if at else str(key)), f"{at}.*"
            yield from _paths(inner, fields, free if own not in fields and free in fields else own)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _paths(inner, fields, f"{at}[]")
