"""Numbers, bars and sparklines as text (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence

SHADES = "█▓▒░■·"  # one per part of a stacked bar; the last one is for what is free
SPARKS = "▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉█"
UNKNOWN = "–"


def sig(value: float, digits: int = 3) -> str:
    """A number to some significant digits, never in exponents: 0.0433, 13.0, 1,234."""
    if not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, places)}f}"


def percent(share: float) -> str:
    """A share with the digits it deserves: 51%, 2.3%, 0.1%."""
    if not math.isfinite(share):
        return UNKNOWN
    return f"{share:.0%}" if abs(share) >= 0.0995 else f"{share:.1%}"


def change(new: float, old: float) -> str:
    """The relative change from old to new: −24%, +3.0%."""
    if not (math.isfinite(new) and math.isfinite(old)) or old == 0:
        return UNKNOWN
    relative = new / old - 1.0
    return f"{'−' if relative < 0 else '+'}{percent(abs(relative))}" if abs(relative) >= 0.0005 else "same"


def times(ratio: float) -> str:
    """A ratio: 1.31×."""
    return f"{ratio:.2f}×" if math.isfinite(ratio) else UNKNOWN


def bar(share: float, width: int) -> str:
    """A bar of `share` (0 to 1) of `width` characters, to an eighth of one."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return SPARKS[-1] * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")


def stacked(parts: Sequence[float], width: int, glyphs: str = SHADES) -> str:
    """Parts of a whole as one bar of `width` characters; every part above 0 gets at least one."""
    total = sum(parts)
    if total <= 0:
        return ""
    cells = [max(1, round(part / total * width)) if part > 0 else 0 for part in parts]
    cells[max(range(len(cells)), key=lambda i: cells[i])] += width - sum(cells)
    return "".join(glyphs[min(i, len(glyphs) - 1)] * n for i, n in enumerate(cells))


def sparkline(values: Sequence[float], top: float | None = None) -> str:
    """Values as one line of small bars, from 0 to `top` (their largest, if not given)."""
    peak = max(values, default=0.0) if top is None else top
    if not peak > 0:
        return SPARKS[0] * len(values)
    return "".join(SPARKS[min(len(SPARKS) - 1, int(v / peak * len(SPARKS)))] for v in values)
