"""An earlier answer to hold a new one against: the JSON of a study, read back (floor 5)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from apexsim.errors import InputError
from apexsim.examples import expanded
from apexsim.search.study import FORMAT

WHERE = "--against"
HINT = "name a file that apexsim plan --json wrote"
MOST = 1 << 28  # bytes


def read_before(path: str) -> Mapping[str, Any]:
    """The study of a file; raises InputError where it holds none of this format."""
    try:
        file = expanded(path)
        if file.stat().st_size > MOST:
            raise InputError(f"'{path}' is too large for a study", WHERE, HINT)
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else "it is no JSON"
        raise InputError(f"'{path}' cannot be read: {told}", WHERE, HINT) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        kind = found.get("format") if isinstance(found, dict) else None
        other = str(kind).startswith("apexsim.study/")
        hint = "another version of apexsim wrote it: ask that question again with this one, --json FILE" if other else HINT
        raise InputError(f"expected a study ({FORMAT}) in '{path}', got {str(kind)[:40] if kind else 'something else'}", WHERE, hint)
    if not _complete(found):
        raise InputError(f"the study in '{path}' is not complete", WHERE, HINT)
    return found


def _complete(found: Mapping[str, Any]) -> bool:
    """Whether everything that is compared is there."""
    ranked = found.get("ranked")
    first = ranked[0] if isinstance(ranked, list) and ranked else None
    return (
        isinstance(found.get("inputs"), dict) and isinstance(found.get("objective"), str) and isinstance(first, dict)
        and isinstance(first.get("shorthand"), str) and isinstance(first.get("metrics"), dict)
        and all(isinstance(first["metrics"].get(name), dict) for name in ("ttft_ms", "tpot_ms", "e2el_ms"))
    )  # fmt: skip
