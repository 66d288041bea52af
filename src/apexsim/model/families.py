"""The table of model families, and a model from any of its names (floor 2)."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from apexsim.errors import InputError, nearest
from apexsim.model.config import Config, language, parse_config, read_config
from apexsim.model.families_dense import DENSE
from apexsim.model.families_encoder import ENCODER
from apexsim.model.families_hybrid import HYBRID
from apexsim.model.families_moe import MOE
from apexsim.model.model import Model
from apexsim.model.precision import format_in_name, formats
from apexsim.model.towers import tower_parts
from apexsim.model.vision import vision_of

FAMILIES: dict[str, Callable[[Config], Model]] = {**DENSE, **MOE, **HYBRID, **ENCODER}
DATA = Path(__file__).resolve().parent.parent / "data" / "models"
MROPE_ROWS = 4  # vLLM's MRotaryEmbedding keeps a table four times max_position_embeddings long
HUB_HINT = "or give the path of a config.json"


def build_model(config: Config) -> Model:
    """The model that a configuration describes; raises InputError naming file and key where it cannot be."""
    inner = config if set(config.kinds) & set(ENCODER) else language(config)
    kinds = [*inner.kinds, *config.kinds]
    family = next((FAMILIES[kind] for kind in kinds if kind in FAMILIES), None)
    if family is None:
        if not any(kinds):
            raise InputError("keys 'model_type' and 'architectures' are missing", config.where)
        kind = next(k for k in config.kinds + kinds if k)
        raise InputError(f"unknown architecture '{kind}' (key 'model_type')", config.where, nearest(kind, FAMILIES))
    try:
        return _complete(family(inner), config, inner)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError) as error:
        raise InputError(f"cannot be read as '{inner.text('model_type')}' ({error})", config.where) from None


def _complete(model: Model, config: Config, inner: Config) -> Model:
    """The model with what stands outside its language part: towers, number formats, its name."""
    inside, outside = tower_parts(config, inner)
    precision = formats(config, inner, model)
    vision = config.sub("vision_config") or config.sub("thinker_config", "vision_config")
    return replace(
        model,
        name=config.name,
        source=config.where,
        rope_dim=model.rope_dim * (MROPE_ROWS if _multimodal_positions(inner) else 1),
        deepstack=len(vision.data.get("deepstack_visual_indexes") or ()) if vision else 0,
        vision=vision_of(config),
        extra_parts=model.extra_parts + inside,
        extra_parameters=model.extra_parameters + sum(n for _, n in inside),
        outside_parts=model.outside_parts + outside,
        weight_dtypes=precision.weights,
        kv_dtype=precision.kv,
        unread=precision.unread,
        unread_kv=precision.unread_kv,
        notes=model.notes + precision.notes,
    )


def _multimodal_positions(inner: Config) -> bool:
    """Whether rotary positions have sections for time, height and width (M-RoPE, Qwen2-VL report, 2.1)."""
    row = inner.sub("rope_scaling") or inner.sub("rope_parameters")
    return row is not None and "mrope_section" in row.data


def load_model(
    name_or_path: str,
    *,
    max_length: int | None = None,
    dtype: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Model:
    """A model from a config.json (file or folder), a bundled name or alias, or a hub id when online.

    max_length and dtype override the model's; `changes` replace keys of the configuration before it is read.
    """
    model = build_model(find_config(name_or_path, changes))
    if max_length is not None:
        if max_length < 1:
            raise InputError(f"the model length must be positive, got {max_length}", "max_length")
        model = replace(model, max_length=max_length)
    return replace(model, dtype=dtype) if dtype else model


def find_config(name_or_path: str, changes: Mapping[str, Any] | None = None) -> Config:
    """The configuration that a path, bundled name, alias or hub id means."""
    path = Path(name_or_path).expanduser()
    if path.is_file() or (path / "config.json").is_file():
        return read_config(path, changes)
    if name_or_path.endswith(".json") or name_or_path.startswith((".", "/", "~")):
        raise InputError("no such model file", name_or_path)
    known = _bundled(name_or_path)
    if known is None:
        return _from_hub(name_or_path, changes)
    text = (DATA / f"{known.stem}.json").read_text(encoding="utf-8")
    config = parse_config(text, f"bundled {known.stem}.json", known.id, {**known.changes, **(changes or {})})
    if format_in_name(known.id) and not format_in_name(known.stem):  # a format that the name states replaces the file's
        kept = {k: v for k, v in config.data.items() if k != "quantization_config"}
        return Config(kept, config.where, known.id)
    return config


@dataclass(frozen=True, slots=True)
class Known:
    """What a name means: a bundled file, the keys that differ from it, and the hub id to serve."""

    stem: str
    id: str
    changes: Mapping[str, int]


def hub_id(stem: str) -> str:
    """The hub id of a bundled file's own checkpoint."""
    return stem.replace("--", "/", 1)


def _key(name: str) -> str:
    return name.strip().strip("/").lower().replace("--", "/")


@lru_cache(maxsize=1)
def _names() -> dict[str, Known]:
    """Lower-case name -> what it means: files by hub id and by bare name, then the aliases."""
    own = {stem: Known(stem, hub_id(stem), {}) for stem in model_names()}
    bare = {_key(stem).partition("/")[2]: own[stem] for stem in reversed(own)}
    return {**aliases(), **bare, **{_key(stem): known for stem, known in own.items()}}


@lru_cache(maxsize=1)
def aliases() -> dict[str, Known]:
    """Lower-case alias -> what it means; without an id of its own it is the file's checkpoint."""
    with (DATA / "aliases.csv").open(encoding="utf-8", newline="") as rows:
        return {
            r["alias"]: Known(r["config"], r["id"] or hub_id(r["config"]), _changes(r["changes"]))
            for r in csv.DictReader(rows)
        }


def _changes(text: str) -> dict[str, int]:
    pairs = (item.split("=") for item in text.split(";") if item)
    return {key: int(value) for key, value in pairs}


def _bundled(name: str) -> Known | None:
    """What a name means: one that is known, else a known bare name under another owner, which keeps its own id."""
    key = _key(name)
    found = _names().get(key)
    if found is None and "/" in key:
        found = _names().get(key.partition("/")[2])
    if found is None or found.id.lower() == key or "/" not in key:
        return found
    return replace(found, id=name.strip().strip("/").replace("--", "/"))


def _from_hub(name: str, changes: Mapping[str, Any] | None) -> Config:
    unknown = f"unknown model '{name}'"
    hint = f"{nearest(_key(name), _names())} {HUB_HINT}"
    if name.count("/") != 1:
        raise InputError(unknown, hint=hint)
    try:
        hub = import_module("huggingface_hub")
    except ImportError:
        raise InputError(unknown, hint=f"{hint}; huggingface_hub is not installed, so the hub was not asked") from None
    try:
        file = hub.hf_hub_download(name, "config.json")
    except Exception as error:  # the hub's own errors differ by version; all mean "not available"
        reason = str(error).strip().partition("\n")[0][:120]
        raise InputError(f"{unknown}, and the hub did not give it ({reason})", hint=hint) from None
    text = Path(file).read_text(encoding="utf-8")
    return parse_config(text, f"huggingface.co/{name}/config.json", name, changes)


@dataclass(frozen=True, slots=True)
class Entry:
    """A bundled model: totals are counted from its dimensions; published figures are 0 where none is known."""

    name: str
    family: str
    total: int  # parameters
    active: int  # parameters that take part in one token, embedding and head included
    max_length: int  # tokens
    published_total: int
    published_active: int
    source: str  # where the configuration comes from


def catalogue() -> list[Entry]:
    """All bundled models, from the index that stands beside them."""
    with (DATA / "index.csv").open(encoding="utf-8", newline="") as rows:
        return [
            Entry(
                r["name"], r["family"], int(r["total"]), int(r["active"]), int(r["max_length"]),
                int(r["published_total"]), int(r["published_active"]), r["source"],
            )
            for r in csv.DictReader(rows)
        ]  # fmt: skip


def model_names() -> list[str]:
    """File stems of the bundled configurations (`org--Name`)."""
    return sorted(f[:-5] for f in os.listdir(DATA) if f.endswith(".json"))
