"""Units at the edges: everything inside is SI (s, byte, FLOP) (floor 0)."""

from __future__ import annotations

import re

from apexsim.errors import InputError

KiB, MiB, GiB = 2.0**10, 2.0**20, 2.0**30  # [byte]
GB, TFLOPS, US = 1e9, 1e12, 1e-6  # [byte], [FLOP/s], [s]

TIME_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}  # [s]

_DURATION = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([a-zµ]*)\s*$")


_COUNT = re.compile(r"^\s*([-+]?[0-9]*\.?[0-9]+)\s*([kKmM])\s*$")
THOUSANDS = {False: {"k": 10**3, "m": 10**6}, True: {"k": 2**10, "m": 2**20}}  # of requests; of tokens: a context of 32k is 32,768


def parse_count(text: str, tokens: bool, where: str = "") -> int:
    """The whole number that `text` names: 300, 32k, 1.5M.  k and M are 1,024 and 1,024² of tokens, 1,000 and 10⁶ of anything else."""
    try:
        return int(text)
    except ValueError:
        found = _COUNT.match(text)
        value = round(float(found[1]) * THOUSANDS[tokens][found[2].lower()], 6) if found else 0.5  # 4.1M is 4,099,999.9999999995
    if not value.is_integer():
        raise InputError(f"expected a whole number, got '{text}'", where, "k and M may follow: 32k, 1.5M")
    return int(value)


def format_seconds(seconds: float) -> str:
    """A time in the unit that reads best: 12 µs, 3.4 ms, 2.5 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds != seconds:
        return "n/a"
    if abs(seconds) >= 86400:
        return f"{int(seconds // 86400)} d {int(seconds % 86400 // 3600)} h"
    if abs(seconds) >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    if abs(seconds) >= 120:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    for unit in ("s", "ms", "µs"):
        if abs(seconds) >= TIME_UNITS[unit]:
            return f"{seconds / TIME_UNITS[unit]:.3g} {unit}"
    return "0 s" if seconds == 0 else f"{seconds * 1e9:.3g} ns"


def format_count(count: float) -> str:
    """A count with a decimal suffix: 950, 12.3k, 70.6B (billion), 1.03T."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= size:
            return f"{count / size:.3g}{unit}" if abs(count) < 999.5 * size else f"{count / size:.0f}{unit}"
    return f"{count:.0f}"


def parse_duration(text: str, default_unit: str = "s", where: str = "") -> float:
    """Seconds of `text`, e.g. "500ms", "2s", "1.5 min"; a bare number is in `default_unit` [s]."""
    match = _DURATION.match(text)
    unit = (match[2] or default_unit) if match else ""
    if not match or unit not in TIME_UNITS:
        raise InputError(f"cannot read '{text}' as a time", where, f"write e.g. 500ms or 2s ({', '.join(TIME_UNITS)})")
    return float(match[1]) * TIME_UNITS[unit]
