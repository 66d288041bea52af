"""The table of model families, and a model from any of its names (floor 2)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from apexsim.errors import InputError
from apexsim.model.config import Config, language, parse_config
from apexsim.model.families_dense import DENSE
from apexsim.model.families_encoder import ENCODER
from apexsim.model.families_hybrid import HYBRID
from apexsim.model.families_keys import KEYED, UNSUITED, by_keys
from apexsim.model.families_moe import MOE
from apexsim.model.families_recurrent import RECURRENT
from apexsim.model.model import Model
from apexsim.model.names import doubts, find_config
from apexsim.model.precision import formats
from apexsim.model.towers import tower_parts, uncounted
from apexsim.model.vision import vision_of

FAMILIES: dict[str, Callable[[Config], Model]] = {**KEYED, **DENSE, **MOE, **HYBRID, **RECURRENT, **ENCODER}
TYPO = 0.9  # similarity (difflib) above which an unknown type is taken for a slip of the pen
MROPE_ROWS = 4  # vLLM's MRotaryEmbedding keeps a table four times max_position_embeddings long


def build_model(config: Config) -> Model:
    """The model that a configuration describes; raises InputError naming file and key where it cannot be."""
    inner = config if set(config.kinds) & set(ENCODER) else language(config)
    kinds = [*inner.kinds, *config.kinds]
    family = next((FAMILIES[kind] for kind in kinds if kind in FAMILIES), None)
    if family is None:
        family = _generic(inner, config, kinds)
    try:
        return _complete(family(inner), config, inner)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError) as error:
        raise InputError(f"cannot be read as '{inner.text('model_type')}' ({error})", config.where) from None


def _generic(inner: Config, config: Config, kinds: list[str]) -> Callable[[Config], Model]:
    """The reading by keys, for decoders that have the keys of one; refused with the reason where they do not."""
    if not any(kinds):
        raise InputError("keys 'model_type' and 'architectures' are missing", config.where)
    kind = next(k for k in config.kinds + kinds if k)
    mixer = next((UNSUITED[k] for k in kinds if k in UNSUITED), "")
    if mixer:
        raise InputError(f"'{kind}' has {mixer}, which is not modelled (key 'model_type')", config.where)
    close = difflib.get_close_matches(kind.lower(), FAMILIES, n=1, cutoff=TYPO)
    if close:
        raise InputError(f"unknown architecture '{kind}' (key 'model_type')", config.where, f"did you mean {close[0]}?")

    def guessed(c: Config) -> Model:
        try:
            return by_keys(c)
        except InputError as error:
            what = f"unknown architecture '{kind}' (key 'model_type'); read as a plain decoder, {error.what}"
            raise InputError(what, error.where, error.hint) from None

    return guessed


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
        deepstack=len(vision.numbers("deepstack_visual_indexes")) if vision else 0,
        vision=vision_of(config),
        extra_parts=model.extra_parts + inside,
        extra_parameters=model.extra_parameters + sum(n for _, n in inside),
        outside_parts=model.outside_parts + outside,
        weight_dtypes=precision.weights,
        kv_dtype=precision.kv,
        unread=precision.unread,
        unread_kv=precision.unread_kv,
        notes=model.notes + precision.notes + uncounted(config) + doubts(config),
    )


def _multimodal_positions(inner: Config) -> bool:
    """Whether rotary positions have sections for time, height and width (M-RoPE, Qwen2-VL report, 2.1)."""
    row = inner.sub("rope_scaling") or inner.sub("rope_parameters")
    return row is not None and "mrope_section" in row.data


def model_of(config: Mapping[str, Any]) -> Model:
    """A model from the keys of a config.json; `_name_or_path` is its name."""
    return build_model(parse_config(json.dumps(config), "model", str(config.get("_name_or_path") or "model")))


def load_model(
    name_or_path: str | Model,
    *,
    max_length: int | None = None,
    dtype: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Model:
    """A model from a config.json (file or folder), a bundled name or alias, or a hub id when online.

    max_length and dtype override the model's; `changes` replace keys of the configuration before it is read.
    """
    model = name_or_path if isinstance(name_or_path, Model) else build_model(find_config(name_or_path, changes))
    if max_length is not None:
        if max_length < 1:
            raise InputError(f"the model length must be positive, got {max_length}", "max_length")
        model = replace(model, max_length=max_length)
    return replace(model, dtype=dtype) if dtype else model
