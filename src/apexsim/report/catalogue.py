"""The catalogues of models and GPUs as rows and as tables (floor 6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from apexsim.cost.books import typed, usual_book
from apexsim.cost.fitted import guessed
from apexsim.engines import (
    changes,
    engine_aliases,
    engine_names,
    engine_versions,
    facts,
    flags_of,
    load_engine,
    newest_version,
)
from apexsim.gpu import Gpu
from apexsim.hardware import all_gpus, load_gpu, spelling
from apexsim.model.names import aliases, catalogue, hub_id
from apexsim.report.page import columns, heading, labelled, page
from apexsim.slices import SPELLED, profiles
from apexsim.units import GB, TFLOPS, GiB, format_count
from apexsim.workload.presets import PREFIXES, SUFFIX, Preset, preset_of, presets

Rows = list[dict[str, Any]]


def models_json(text: str = "") -> Rows:
    """Bundled models whose name, family or alias holds `text`."""
    others: dict[str, list[str]] = {}
    for alias, known in aliases().items():
        others.setdefault(known.stem, []).append(alias)
    found = []
    for entry in catalogue():
        mine = sorted(others.get(entry.name, []))
        if text and not any(text.lower() in word.lower() for word in (entry.name, hub_id(entry.name), entry.family, *mine)):
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
            row["name"],
            row["family"],
            format_count(row["total_parameters"]),
            format_count(row["active_parameters"]),
            f"{row['max_length']:,}",
            _some(row["aliases"]),
        ]
        for row in rows
    ]
    return page([columns(heads, lines, indent=0)], color) if rows else "no model matches\n"


def _some(words: list[str], most: int = 2) -> str:
    return ", ".join(words[:most]) + (f" +{len(words) - most}" if len(words) > most else "")


def gpus_json(text: str = "") -> Rows:
    """GPUs whose name or alias holds `text`."""
    found, sought = [], spelling(text) or text
    for gpu in listed(text):
        if text and not any(text.lower() in word.lower() or sought in spelling(word) for word in (gpu.name, *gpu.aliases)):
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
                "kernels": "measured" if gpu.kernels else (f"from {gpu.borrow}" if gpu.borrow else guessed(gpu)),
                "price_usd_h": dict(gpu.prices),
                "aliases": list(gpu.aliases),
                "notes": list(gpu.notes),
                "sources": dict(gpu.sources),
                "mig_profiles": [profile.name for profile in profiles(gpu.name)],
            }
        )
    return found


def listed(text: str) -> tuple[Gpu, ...]:
    """All GPUs, or the MIG slice that a text names."""
    return (replace(load_gpu(text), aliases=(text,)),) if SPELLED.fullmatch(text.strip()) else all_gpus()


FEW = 8  # GPUs whose notes are shown


def gpus_text(rows: Rows, color: bool = False) -> str:
    """The GPUs as a table."""
    heads = [("GPU", "left"), ("memory", "right"), ("bandwidth", "right"), ("bf16", "right"), ("fp8", "right"),
             ("link", "left"), ("kernels", "left"), (f"{typed(usual_book())} price", "right")]  # fmt: skip
    lines = [
        [
            row["name"],
            f"{row['memory_bytes'] / GiB:.1f} GiB",
            f"{row['memory_bandwidth_bytes_s'] / GB:,.0f} GB/s",
            _peak(row["flops"], "bf16"),
            _peak(row["flops"], "fp8"),
            f"{row['link']} {row['link_bandwidth_bytes_s'] / GB:.3g} GB/s",
            row["kernels"],
            _price(row["price_usd_h"]),
        ]
        for row in rows
    ]
    if not rows:
        return "no GPU matches\n"
    return page([columns(heads, lines, indent=0), *([labelled(_remarks(rows))] if len(rows) <= FEW else [])], color)


def _remarks(rows: Rows) -> list[tuple[str, str]]:
    """Notes of a few GPUs, and the slices that they can be cut into."""
    told = []
    for row in rows:
        cut = row["mig_profiles"]
        slices = [f"MIG slices: {', '.join(cut)} (--gpu {row['name']}:{cut[0]})"] if cut else []
        told += [(row["name"] if not i else "", note) for i, note in enumerate([*row["notes"], *slices])]
    return told


def _peak(flops: dict[str, float], fmt: str) -> str:
    return f"{flops[fmt] / TFLOPS:,.0f} TFLOP/s" if flops.get(fmt) else "–"


def engines_json(text: str = "") -> Rows:
    """Engines whose name or alias holds `text`, each with its versions, oldest first."""
    found = []
    for name in engine_names():
        aliases = sorted(alias for alias, known in engine_aliases().items() if known == name)
        if text and not any(text.lower() in word.lower() for word in (name, *aliases)):
            continue
        known = facts(name)
        found.append(
            {
                "name": name,
                "about": known["about"],
                "server": load_engine(name).has_server,
                "aliases": aliases,
                "oldest": engine_versions(name)[0],
                "newest": newest_version(name),
                "settings": {setting: flag for setting, flag in flags_of(name).items() if "flags" in known},
                "versions": [_version(name, version) for version in engine_versions(name)],
            }
        )
    return found


LISTED = (50, 90, 99)  # percentiles of lengths that are told


def workloads_json(text: str = "") -> Rows:
    """Workload presets whose name or description holds `text`; of one that is named, or of a .toml file, that one alone."""
    known = presets()
    if text.lower() in known or text.lower().endswith(SUFFIX):
        chosen = [preset_of(text)]
    else:
        chosen = [each for each in known.values() if any(text.lower() in word.lower() for word in (each.name, each.about, each.source))]
    return [_workload(each) for each in chosen]


def _workload(preset: Preset) -> dict[str, Any]:
    lengths = {
        f"{kind}_tokens": {"mean": preset.mean(kind), **{f"p{p}": preset.at(kind, p) for p in LISTED}, "max": preset.at(kind, 100)}
        for kind in ("prompt", "output")
    }
    return {
        "name": preset.name, "about": preset.about, **lengths, "rank_correlation": preset.rank_correlation,
        "requests": preset.requests or None, "source": preset.source, "url": preset.url, "licence": preset.licence,
        "note": preset.note, "percent": list(preset.percent), "prompt": list(preset.prompt), "output": list(preset.output),
    }  # fmt: skip


def workloads_text(rows: Rows, color: bool = False) -> str:
    """The workload presets as a table with their sources; one alone with its percentiles."""
    if not rows:
        return "no workload matches\n"
    if len(rows) == 1:
        return page(_one_workload(rows[0]), color)
    heads = [("workload", "left"), *((f"{kind} {stat}", "right") for kind in ("prompt", "output") for stat in ("mean", "p50", "p90"))]
    lines = [
        [row["name"], *(f"{row[f'{kind}_tokens'][stat]:,.0f}" for kind in ("prompt", "output") for stat in ("mean", "p50", "p90"))]
        for row in rows
    ]
    about = [(row["name"], f"{row['about']}; {row['source']}") for row in rows]
    return page([columns(heads, lines, indent=0), Text(), labelled([*about, ("", PREFIXES)])], color)


def _one_workload(row: dict[str, Any]) -> list[RenderableType]:
    figures = [(f"{p:g}%", f"{a:,.0f}", f"{b:,.0f}") for p, a, b in zip(row["percent"], row["prompt"], row["output"])]
    means = ("mean", *(f"{row[f'{kind}_tokens']['mean']:,.0f}" for kind in ("prompt", "output")))
    many = f"{row['requests']:,} requests" if row["requests"] else ""
    told = [
        ("source", ", ".join(filter(None, (row["source"], row["url"], row["licence"], many)))),
        ("correlation", f"{row['rank_correlation']:+.2f} between the ranks of prompt and output"),
        ("note", row["note"]), ("note", PREFIXES),
    ]  # fmt: skip
    table = columns([("lengths", "left"), ("prompt", "right"), ("output", "right")], [means, *figures], indent=0)
    return [heading(row["name"], row["about"]), labelled([(name, text) for name, text in told if text]), Text(), table]


def _version(name: str, version: str) -> dict[str, Any]:
    changed = [{"constant": key, "before": before, "now": now} for key, before, now in changes(name, version)]
    return {"version": version, "released": load_engine(f"{name}@{version}").released or None, "changes": changed}


def engines_text(rows: Rows, color: bool = False) -> str:
    """The engines, newest version first, with what each version changes."""
    parts: list[RenderableType] = []
    for row in rows:
        until = "" if row["newest"] == row["versions"][-1]["version"] else f", rules hold to {row['newest']}"
        kind = "" if row["server"] else "; a batching policy, no server"
        named = f" (also {', '.join(row['aliases'])})" if row["aliases"] else ""
        parts += [heading(row["name"] + named, f"{row['about']}{until}{kind}"), labelled(_version_rows(row)), Text()]
    return page(parts[:-1], color) if rows else "no engine matches\n"


def _version_rows(row: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        (each["version"], "; ".join(filter(None, (each["released"] or "", _changes(each["changes"], each is row["versions"][0])))))
        for each in reversed(row["versions"])
    ]
    words = ", ".join(f"{setting} {flag}" for setting, flag in row["settings"].items())
    return [*lines, *([("its words", words)] if words else [])]


def _changes(changed: list[dict[str, Any]], first: bool) -> str:
    """What a version changes against the one before it."""
    if first:
        return "the oldest" if not changed else ""
    told = [f"{row['constant']} {_value(row['before'])} → {_value(row['now'])}" for row in changed]
    return ", ".join(told) or "same rules as the one before"


def _value(value: Any) -> str:
    text = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    return repr(text) if not text or " " in text else text


def _price(prices: dict[str, float]) -> str:
    """The price in the book that prices the most GPUs; several books do not compare."""
    return f"${prices[usual_book()]:.2f}/h" if usual_book() in prices else "–"
