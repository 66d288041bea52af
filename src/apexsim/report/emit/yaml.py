"""Plain values as YAML text: what a manifest needs and no more (floor 6).

A text that YAML could read as anything else stands in double quotes, escaped as JSON escapes it, which YAML reads alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from apexsim.report.plain import ESCAPED

PLAIN = re.compile(r"[A-Za-z_/][\w./-]*(?::(?!//)[\w./-]+)*")  # needs no quotes, unless it is one of …
NO_CHARACTERS = re.compile("[\ufffe\uffff]")  # which YAML refuses as they are, beside what is escaped everywhere
WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"))
STEP = "  "
WIDTH = 80  # columns of a list on one line


def yaml(value: Any) -> str:
    """A mapping or a list in blocks, two blanks deep each."""
    return "\n".join(_block(value)) + "\n"


def documents(values: list[dict[str, Any]]) -> str:
    """Several documents of one file."""
    return "---\n".join(yaml(value) for value in values)


def scalar(value: Any) -> str:
    """One value on a line."""
    if value is None:
        return "null"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if not isinstance(value, str):
        return "{}" if isinstance(value, Mapping) else "[]"  # the empty ones
    if PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return NO_CHARACTERS.sub(_escape, ESCAPED.sub(_escape, json.dumps(value, ensure_ascii=False)))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _block(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [line for key, inner in value.items() for line in _entry(f"{scalar(key)}:", inner)]
    return [line for inner in value for line in _item(inner)]


def _entry(head: str, inner: Any) -> list[str]:
    """A key with its value: on the line, below it, or, of a text of several lines, as it stands."""
    if isinstance(inner, str) and _literal(inner):
        return [f"{head} |{'' if inner.endswith(chr(10)) else '-'}", *(STEP + line if line else "" for line in inner.splitlines())]
    if not inner or not isinstance(inner, (Mapping, list, tuple)):
        return [f"{head} {scalar(inner)}"]
    flow = _flow(inner)
    if flow:
        return [f"{head} {flow}"]
    return [head, *(STEP + line for line in _block(inner))]


def _flow(inner: Any) -> str:
    """A short list of single values on one line; "" where it is none."""
    if isinstance(inner, Mapping) or any(isinstance(v, (Mapping, list, tuple)) for v in inner):
        return ""
    text = f"[{', '.join(scalar(v) for v in inner)}]"
    return text if len(text) <= WIDTH and len(inner) > 1 else ""


def _item(inner: Any) -> list[str]:
    if isinstance(inner, str) and _literal(inner):
        return _entry("-", inner)
    if not inner or not isinstance(inner, (Mapping, list, tuple)):
        return [f"- {scalar(inner)}"]
    first, *rest = _block(inner)
    return [f"- {first}", *(STEP + line for line in rest)]


def _literal(text: str) -> bool:
    """Whether a text of several lines can stand as it is: nothing that is not printed, no blanks where they would count."""
    lines = text.split("\n")
    odd = any(line != line.rstrip() or not all(c.isprintable() for c in line) for line in lines)
    return len(lines) > 2 and not odd and not text.startswith((" ", "\n")) and not text.endswith("\n\n")
