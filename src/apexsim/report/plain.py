"""Plain JSON values and their text (floor 6)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, overload

import numpy as np

ESCAPED = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # what terminals obey and no encoding holds


def dumps(value: Any) -> str:
    """JSON text with a final newline; everything in it is finite."""
    text = json.dumps(clean(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@overload
def clean(value: Mapping[Any, Any]) -> dict[str, Any]: ...
@overload
def clean(value: object) -> Any: ...
def clean(value: Any) -> Any:
    """Plain JSON values: tuples become lists, numpy numbers plain ones, what is not finite null."""
    if isinstance(value, dict):
        return {str(key): clean(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    if isinstance(value, np.ndarray):
        return clean(value.tolist())
    if isinstance(value, np.generic):
        return clean(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
