"""The keys of a GPU file, what they may hold, and files that are another GPU's with changes (floor 1).

A file that says `base = "h100-sxm"` holds only what differs from that GPU: keys replace keys, table by table.  What belongs to the
card itself is not taken over: its names, notes and prices.  Measured kernels of the base are borrowed, no longer its own.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from typing import Any

from apexsim.errors import InputError, nearest

PEAKS = ("fp32", "tf32", "bf16", "fp8", "int8", "fp4")  # formats a GPU file may quote; fp16 runs at the bf16 peak
PRICE_BOOKS = ("hyperscaler", "neocloud", "retail", "on_demand")
LARGEST, SMALLEST = 1e9, 1e-6  # of a figure in a GPU file, in the unit it is written in
LIMITS = {"tdp_w": 1e5, "idle_w": 1e5, "clock_mhz": 1e5, "total_gib": 1e6, "nominal_gb": 1e6, "bandwidth_gb_s": 1e7,
          "latency_us": 1e6, "launch_us": 1e6, "cache_mb": 1e6, **dict.fromkeys(PEAKS, 1e6)}  # fmt: skip # any machine is far below
POSITIVE = ("tdp_w", "idle_w", "clock_mhz", "nominal_gb")  # absent or above 0
TOP = {"name", "base", "vendor", "arch", "kernels", "borrow", "aliases", "notes", "tdp_w", "idle_w", "clock_mhz"}
TABLES: dict[str, set[str]] = {
    "tflops": set(PEAKS),
    "memory": {"total_gib", "nominal_gb", "bandwidth_gb_s", "cache_mb"},
    "sustained": {"bf16"},
    "link": {"name", "bandwidth_gb_s", "latency_us", "launch_us", "span", "multi_node", "peer"},
    "nic": {"name", "bandwidth_gb_s", "latency_us", "launch_us"},
    "host": {"name", "bandwidth_gb_s", "latency_us", "launch_us"},
    "price_usd_h": set(PRICE_BOOKS),
    "sources": set(),  # any key
}  # fmt: skip
OWN = ("name", "aliases", "notes", "price_usd_h", "kernels", "base")  # of the card itself, never taken from the base


def part_of(text: str, table: str = "") -> dict[str, Any]:
    """The keys of one table of a file of the catalogue, or of its head; nothing else of it is parsed."""
    inside = text.partition(f"\n[{table}]")[2] if table else text
    return tomllib.loads(inside.partition("\n[")[0])


def known_keys(data: Mapping[str, Any], where: str) -> None:
    """Raise InputError where a file has a key that nobody reads."""
    for key in data:
        if key not in TOP and key not in TABLES:
            raise InputError(f"unknown key '{key}'", where, nearest(key, [*TOP, *TABLES]))


def changed(base: Mapping[str, Any], own: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The whole of a file that holds changes to a base."""
    known_keys(own, where)
    made: dict[str, Any] = {key: value for key, value in base.items() if key not in OWN}
    made["sources"] = {key: value for key, value in base.get("sources", {}).items() if key != "price"}
    if base.get("kernels"):
        made["borrow"] = base["kernels"]
    if isinstance(own.get("memory"), dict) and "total_gib" in own["memory"]:  # the base's label is not this card's
        made["memory"] = {key: value for key, value in base["memory"].items() if key != "nominal_gb"}
    if {"tflops", "tdp_w"} & own.keys():  # what the base was measured to hold is not this card's
        made.pop("sustained", None)
    for key, value in own.items():
        both = isinstance(made.get(key), dict) and isinstance(value, dict)
        made[key] = {**made[key], **value} if both else value
    made.pop("base")
    return made


WORDS = {"tflops": "peaks", "memory": "memory", "link": "link between GPUs", "nic": "network", "host": "host link", "tdp_w": "power",
         "idle_w": "idle power", "clock_mhz": "clock"}  # fmt: skip


def differences(own: Mapping[str, Any]) -> str:
    """What of its base a file changes, in words."""
    return ", ".join(word for key, word in WORDS.items() if key in own) or "its name"


def number_at(table: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    """A positive number (0 allowed where a default exists)."""
    value = table.get(key, default)
    if value is None:
        raise InputError(f"key '{key}' is missing", where)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"key '{key}' must be a number, got {value!r}", where)
    if key not in table and math.isnan(value):
        return value  # unknown, and allowed to be
    if value != value or value < 0 or (value == 0 and (default is None or key in POSITIVE)):
        raise InputError(f"key '{key}' must be positive, got {str(value)[:40]}", where)
    if value > LIMITS.get(key, LARGEST) or 0 < value < SMALLEST:
        told = f"from {SMALLEST:g} to {LIMITS.get(key, LARGEST):g}"
        raise InputError(f"key '{key}' must lie {told}, got {str(value)[:40]}", where, "is the unit right?")
    return float(value)


def text_at(table: Mapping[str, Any], key: str, where: str, needed: bool = True) -> str:
    """A text, "" where it may be absent."""
    value = table.get(key, None if needed else "")
    if not isinstance(value, str) or (needed and not value.strip()):
        raise InputError(f"key '{key}' must be a text, got {value!r}", where)
    return value


def texts_at(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """A list of texts, maybe empty."""
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise InputError(f"key '{key}' must be a list of texts, got {value!r}", where)
    return tuple(value)


def table_at(data: Mapping[str, Any], key: str, where: str, needed: bool = True) -> Mapping[str, Any]:
    """A table whose keys are all known."""
    value = data.get(key, None if needed else {})
    if not isinstance(value, dict):
        raise InputError(f"table [{key}] is missing" if value is None else f"[{key}] must be a table", where)
    known = TABLES[key]
    for name in value:
        if known and name not in known:
            raise InputError(f"unknown key '{name}' in [{key}]", where, nearest(name, known))
    return value
