"""Reading a `config.json`: the quirks of its keys in one place (floor 1).

`Config` looks a dimension up under all names that families give it, checks it, and names the file and key when it is
missing or impossible.  `_source`, a note on where a file comes from, is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apexsim.errors import InputError
from apexsim.files import loads, read_text

HIDDEN = ("hidden_size", "n_embd", "n_embed", "d_model", "embed_dim")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "depth")
HEADS = ("num_attention_heads", "n_head", "num_heads")
INNER = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff")
POSITIONS = ("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length", "n_ctx")
EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts")
TOP_K = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "experts_per_token", "moe_topk")
NESTED = (("thinker_config", "text_config"), ("text_config",), ("llm_config",), ("language_config",))
INHERITED = ("tie_word_embeddings", "torch_dtype", "dtype", "quantization_config")  # read from outside when not inside
TABLE_DTYPES = {"float16": "fp16", "bfloat16": "bf16", "half": "fp16"}
READ_AS_BF16 = ("", "auto", "float32", "float", "fp32", "bf16")  # nothing is said, or it is served in 16 bit
MOST_LAYERS = 10_000
LARGEST = 10**12  # no dimension of a model is larger; guards against mistyped numbers


@dataclass(frozen=True, slots=True)
class Config:
    """One JSON object of a model's configuration, and where it was read."""

    data: Mapping[str, Any]
    where: str
    name: str = ""

    def has(self, *keys: str) -> bool:
        """Is one of the keys present and not null?"""
        return any(self.data.get(k) is not None for k in keys)

    def count(self, *keys: str, default: int | None = None, low: int = 1) -> int:
        """The first present key as an integer of at least `low`; `default` when all are missing or null."""
        for key in keys:
            value = self.data.get(key)
            if value is not None:
                return self._whole(key, value, low)
        if default is None:
            others = f"also looked for {', '.join(keys[1:])}" if keys[1:] else ""
            raise InputError(f"key '{keys[0]}' is missing", self.where, others)
        return default

    def _whole(self, key: str, value: Any, low: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
            raise InputError(f"key '{key}' must be a whole number, got {json.dumps(value)[:40]}", self.where)
        if not low <= value <= LARGEST:
            bound = f"at least {low}" if value < low else f"at most {LARGEST:,}"
            raise InputError(f"key '{key}' must be {bound}, got {value}", self.where)
        return int(value)

    def number(self, key: str, default: float) -> float:
        """A real number above 0."""
        value = self.data.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LARGEST:
            raise self._impossible(key, "a number above 0", value)
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """A truth value; 0 and 1 stand for it."""
        value = self.data.get(key)
        if value is not None and value not in (0, 1):
            raise self._impossible(key, "true or false", value)
        return default if value is None else bool(value)

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, str):
            raise self._impossible(key, "a name", value)
        return default if value is None else value

    def numbers(self, key: str) -> list[int]:
        """A list of whole numbers, empty when the key is missing."""
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in value):
            raise self._impossible(key, "a list of whole numbers", value)
        return list(value)

    def size(self, key: str) -> int:
        """Entries of a list, 0 when the key is missing."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, list):
            raise self._impossible(key, "a list", value)
        return len(value or ())

    def _impossible(self, key: str, wanted: str, value: Any) -> InputError:
        return InputError(f"key '{key}' must be {wanted}, got {json.dumps(value, default=str)[:40]}", self.where)

    def per_layer(self, key: str, layers: int) -> list[Any] | None:
        """A list with (at least) one entry per layer, cut to `layers`; None when the key is missing."""
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) < layers:
            size = len(value) if isinstance(value, list) else type(value).__name__
            raise InputError(f"key '{key}' must list {layers} layers, got {size}", self.where)
        return value[:layers]

    def sub(self, *keys: str) -> Config | None:
        """A nested object, or None when it is missing."""
        data: Any = self.data
        for key in keys:
            data = data.get(key)
            if data is None:
                return None
            if not isinstance(data, Mapping):
                raise self._impossible(key, "an object", data)
        return Config(data, f"{self.where}: {'.'.join(keys)}", self.name)

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.count(*HIDDEN)

    @property
    def layers(self) -> int:
        """Number of layers."""
        layers = self.count(*LAYERS)
        if layers > MOST_LAYERS:
            raise InputError(f"key '{LAYERS[0]}' must be at most {MOST_LAYERS}, got {layers}", self.where)
        return layers

    @property
    def dtype(self) -> str:
        """Number format of unquantised weights; fp32 checkpoints are served in 16 bit by engines, so bf16 there."""
        key = "torch_dtype" if self.text("torch_dtype") else "dtype"
        name = self.text(key).removeprefix("torch.").lower()
        if name in READ_AS_BF16:
            return "bf16"
        if name not in TABLE_DTYPES:
            wanted = "the format of the unquantised weights (bfloat16, float16 or float32)"
            raise self._impossible(key, wanted, self.text(key))
        return TABLE_DTYPES[name]

    @property
    def kinds(self) -> list[str]:
        """Names to find the family by: the model type, then the architectures."""
        listed = self.data.get("architectures")
        return [self.text("model_type"), *(str(a) for a in (listed if isinstance(listed, list) else []))]


def language(config: Config) -> Config:
    """The part that describes the language model, with what it inherits from the outside."""
    for keys in NESTED:
        inner = config.sub(*keys)
        if inner is not None:
            outside = {k: config.data[k] for k in INHERITED if k in config.data}
            stated = {k: v for k, v in inner.data.items() if v is not None}
            return Config({**outside, **stated}, inner.where, config.name)
    return config


def parse_config(text: str, where: str, name: str, changes: Mapping[str, Any] | None = None) -> Config:
    """The configuration in `text`; `changes` replace top-level keys."""
    try:
        data = loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})", where) from None
    if not isinstance(data, dict):
        raise InputError(f"expected a JSON object, got {type(data).__name__}", where)
    stated = data.get("quantization_config")
    if stated is not None and not isinstance(stated, dict):
        raise InputError(f"key 'quantization_config' must be an object, got {type(stated).__name__}", where)
    return Config({**{k: v for k, v in data.items() if k != "_source"}, **(changes or {})}, where, name)


def read_config(path: Path, changes: Mapping[str, Any] | None = None) -> Config:
    """The configuration in a file, or in the `config.json` of a folder (with its `hf_quant_config.json`)."""
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError("no config.json there" if path.is_dir() else "no such file", str(path))
    name = file.parent.resolve().name if file.name == "config.json" else file.stem
    config = parse_config(read_text(file, "model file"), str(file), name, changes)
    beside = file.parent / "hf_quant_config.json"
    if beside.is_file() and file.name == "config.json" and not config.has("quantization_config"):
        quant = parse_config(read_text(beside, "file of formats"), str(beside), name).sub("quantization")
        if quant is not None:
            section = {"quant_method": "modelopt", **quant.data}
            return Config({**config.data, "quantization_config": section}, config.where, name)
    return config
