"""The catalogues of models and GPUs as rows and as tables (floor 6)."""

from __future__ import annotations

from typing import Any

from apexsim.hardware import all_gpus
from apexsim.model.names import aliases, catalogue, hub_id
from apexsim.report.page import columns, page
from apexsim.units import GB, TFLOPS, GiB, format_count

Rows = list[dict[str, Any]]


def models_json(text: str = "") -> Rows:
    """Bundled models whose name, family or alias holds `text`."""
    others: dict[str, list[str]] = {}
    for alias, known in aliases().items():
        others.setdefault(known.stem, []).append(alias)
    found = []
    for entry in catalogue():
        mine = sorted(others.get(entry.name, []))
        if text and not any(
            text.lower() in word.lower() for word in (entry.name, hub_id(entry.name), entry.family, *mine)
        ):
            continue
        found.append(
            {
                "name": hub_id(entry.name),
                "family": entry.family,
                "total_parameters": entry.total,
                "active_parameters": entry.active,
                "max_length": entry.max_length,
                "aliases": mine,
                "source": entry.source,
            }
        )
    return sorted(found, key=lambda row: str(row["name"]).lower())


def models_text(rows: Rows, color: bool = False) -> str:
    """The models as a table."""
    heads = [
        ("model", "left"),
        ("family", "left"),
        ("parameters", "right"),
        ("active", "right"),
        ("max length", "right"),
        ("aliases", "left"),
    ]
    lines = [
        [
            row["name"], row["family"], format_count(row["total_parameters"]), format_count(row["active_parameters"]),
            f"{row['max_length']:,}", _some(row["aliases"]),
        ]
        for row in rows
    ]  # fmt: skip
    return page([columns(heads, lines, indent=0)], color) if rows else "no model matches\n"


def _some(words: list[str], most: int = 2) -> str:
    return ", ".join(words[:most]) + (f" +{len(words) - most}" if len(words) > most else "")


def gpus_json(text: str = "") -> Rows:
    """GPUs whose name or alias holds `text`."""
    found = []
    for gpu in all_gpus():
        if text and not any(text.lower() in word.lower() for word in (gpu.name, *gpu.aliases)):
            continue
        joined = gpu.link if gpu.has_scale_up else gpu.host
        found.append(
            {
                "name": gpu.name,
                "vendor": gpu.vendor,
                "memory_bytes": gpu.memory_bytes,
                "memory_bandwidth_bytes_s": gpu.memory_bandwidth,
                "flops": dict(gpu.flops),
                "link": joined.name,
                "link_bandwidth_bytes_s": joined.bandwidth,
                "link_span": gpu.link.span if gpu.has_scale_up else 1,
                "kernels": "measured" if gpu.kernels else (f"from {gpu.borrow}" if gpu.borrow else "roofline"),
                "price_usd_h": dict(gpu.prices),
                "aliases": list(gpu.aliases),
            }
        )
    return found


def gpus_text(rows: Rows, color: bool = False) -> str:
    """The GPUs as a table."""
    heads = [("GPU", "left"), ("memory", "right"), ("bandwidth", "right"), ("bf16", "right"), ("fp8", "right"),
             ("link", "left"), ("kernels", "left"), ("price", "right")]  # fmt: skip
    lines = [
        [
            row["name"], f"{row['memory_bytes'] / GiB:.1f} GiB", f"{row['memory_bandwidth_bytes_s'] / GB:,.0f} GB/s",
            _peak(row["flops"], "bf16"), _peak(row["flops"], "fp8"),
            f"{row['link']} {row['link_bandwidth_bytes_s'] / GB:.3g} GB/s", row["kernels"], _price(row["price_usd_h"]),
        ]
        for row in rows
    ]  # fmt: skip
    return page([columns(heads, lines, indent=0)], color) if rows else "no GPU matches\n"


def _peak(flops: dict[str, float], fmt: str) -> str:
    return f"{flops[fmt] / TFLOPS:,.0f} TFLOP/s" if flops.get(fmt) else "–"


def _price(prices: dict[str, float]) -> str:
    """The range over price books, per GPU and hour."""
    if not prices:
        return "–"
    low, high = min(prices.values()), max(prices.values())
    return f"${low:.2f}/h" if low == high else f"${low:.2f}–{high:.2f}/h"
