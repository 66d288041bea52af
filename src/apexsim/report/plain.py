"""Plain JSON values and their text (floor 6)."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np


def dumps(value: Any) -> str:
    """JSON text with a final newline; everything in it is finite."""
    return json.dumps(clean(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


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
