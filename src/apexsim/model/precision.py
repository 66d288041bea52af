"""Which number format each part of a checkpoint has: `quantization_config` and its relatives (floor 2).

Read: FP8 (per tensor, block), AWQ, GPTQ, bitsandbytes, MXFP4, compressed-tensors, ModelOpt (also `hf_quant_config.json`
and mixed precision by layer).  Embeddings, head, router and norms stay unquantised unless a layer list names them.
Where a config carries no such section but the checkpoint's name states a format, the name is believed, with a note.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from apexsim.model.config import Config

LINEAR = ("attention", "ffn", "experts", "shared")
# One made-up module per part, its path holding the names that the checkpoints of different families give it.
PROBES = {
    "attention": ("layers.N.self_attn.attn.q_proj",),
    "ffn": ("layers.N.mlp.gate_proj",),
    "experts": ("layers.N.mlp.experts.0.gate_proj", "layers.N.ffn.experts", "layers.N.experts.gate_up_proj"),
    "shared": ("layers.N.mlp.ffn.shared_experts.shared_expert.gate_proj",),
}
NAMED = (  # words of a module path -> part, first match counts
    ("shared_expert", "shared"), ("experts", "experts"), ("attn", "attention"), ("mixer", "attention"),
    ("mlp", "ffn"), ("ffn", "ffn"), ("lm_head", "head"),
)  # fmt: skip
ALGORITHMS = {
    "FP8": "fp8", "FP8_PER_CHANNEL_PER_TOKEN": "fp8", "FP8_PB_WO": "fp8_block", "FP8_BLOCK_SCALES": "fp8_block",
    "NVFP4": "nvfp4", "W4A16_NVFP4": "nvfp4", "NVFP4_AWQ": "nvfp4", "MXFP4": "mxfp4", "W4A8_MXFP4_FP8": "mxfp4",
    "W4A16": "int4", "W4A16_AWQ": "awq", "W4A8_AWQ": "awq", "W8A16": "int8", "W8A8_SQ_PER_CHANNEL": "w8a8",
    "INT8_SQ": "w8a8", "W4A16_GPTQ": "int4",
}  # fmt: skip
METHODS = {"awq": "awq", "fbgemm_fp8": "fp8", "ptpc_fp8": "fp8", "mxfp4": "mxfp4", "auto-round": "int4"}
IN_NAME = (
    ("nvfp4", "nvfp4"), ("mxfp4", "mxfp4"), ("fp4", "nvfp4"), ("fp8", "fp8"), ("awq", "awq"), ("gptq", "int4"),
    ("w8a8", "w8a8"), ("w4a16", "int4"), ("int4", "int4"), ("int8", "int8"), ("4bit", "int4"),
)  # fmt: skip
FOUR_BIT = ("nvfp4", "mxfp4")  # ModelOpt and OpenAI recipes leave attention in 16 bit


@dataclass(frozen=True, slots=True)
class Formats:
    """Formats by part, of the KV cache ("" = not said), and remarks."""

    weights: tuple[tuple[str, str], ...] = ()
    kv: str = ""
    notes: tuple[str, ...] = ()


def formats(outer: Config, inner: Config) -> Formats:
    """The formats that a configuration states, else those that its name does."""
    row = outer.sub("quantization_config") or inner.sub("quantization_config")
    if row is None:
        return _from_name(outer.name)
    weights, notes = _weights(row)
    if outer.text("expert_dtype") == "fp4" and weights.get("experts", "").startswith("fp8"):
        weights["experts"] = "mxfp4"
    return Formats(tuple(sorted(weights.items())), _kv(row), notes)


def _weights(row: Config) -> tuple[dict[str, str], tuple[str, ...]]:
    base = _base(row)
    weights = dict.fromkeys(LINEAR, base) if base else {}
    kept: Any = next((row.data[k] for k in ("ignore", "modules_to_not_convert", "exclude_modules") if row.has(k)), [])
    notes: tuple[str, ...] = ()
    if base == "mxfp4" and row.text("quant_method") == "mxfp4":
        weights = {"experts": base}
    elif isinstance(kept, list) and not _mixed(row):
        weights = {part: name for part, name in weights.items() if not _kept(part, [str(p) for p in kept])}
    elif isinstance(kept, str) and base in FOUR_BIT:
        weights.pop("attention", None)
        notes = ("list of unquantised modules is not in the config: attention taken as 16 bit",)
    weights.update(_by_layer(row.data.get("quantized_layers")))
    return weights, notes


def _mixed(row: Config) -> bool:
    return row.text("quant_algo") == "MIXED_PRECISION"


def _base(row: Config) -> str:
    """The format of quantised linear layers, "" when only a layer list says."""
    method, algorithm = row.text("quant_method").lower(), row.text("quant_algo").upper()
    if method == "fp8":
        return "fp8_block" if row.has("weight_block_size") else "fp8"
    if method in METHODS:
        return METHODS[method]
    if method in ("gptq", "bitsandbytes"):
        eight = row.count("bits", default=4) == 8 or row.flag("load_in_8bit")
        return "int8" if eight else "int4"
    if algorithm in ALGORITHMS:
        return ALGORITHMS[algorithm]
    return "" if _mixed(row) else _grouped(row)


def _grouped(row: Config) -> str:
    """The first group of compressed-tensors: bits and type of the weights, and whether activations are quantised."""
    groups = row.sub("config_groups")
    group = groups.sub(next(iter(groups.data), "")) if groups else None
    weights = group.sub("weights") if group else None
    if group is None or weights is None:
        return ""
    bits, kind = weights.count("num_bits", default=16), weights.text("type")
    block, size = weights.text("strategy") == "block", weights.count("group_size", default=0, low=-1)
    table = {
        (8, "float"): "fp8_block" if block else "fp8",
        (4, "float"): "nvfp4" if size == 16 else "mxfp4",
        (8, "int"): "w8a8" if group.has("input_activations") else "int8",
        (4, "int"): "int4",
    }
    return table.get((bits, kind), "")


def _kept(part: str, patterns: Iterable[str]) -> bool:
    """Do the patterns of unquantised modules cover the part?"""
    listed = list(patterns)
    return all(any(_covers(p, probe) for p in listed) for probe in PROBES[part])


def _covers(pattern: str, module: str) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern[3:], module) is not None
    plain = re.sub(r"^.*?(?=layers\.)", "", re.sub(r"layers\.(\d+|\*)", "layers.N", pattern))
    if "*" in plain:
        return fnmatchcase(module, plain + "*")
    return f".{plain}." in f".{module}."


def _by_layer(layers: Any) -> dict[str, str]:
    """The most frequent format of each part in a list of layers."""
    if not isinstance(layers, Mapping):
        return {}
    votes: dict[str, Counter[str]] = {}
    for module, row in layers.items():
        part = next((part for word, part in NAMED if word in module), "")
        name = ALGORITHMS.get(str(row.get("quant_algo")).upper() if isinstance(row, Mapping) else "")
        if part and name:
            votes.setdefault(part, Counter())[name] += 1
    return {part: count.most_common(1)[0][0] for part, count in votes.items()}


def _kv(row: Config) -> str:
    scheme = row.data.get("kv_cache_scheme") or row.data.get("kv_cache_quant_algo")
    if isinstance(scheme, Mapping):
        return {"float": "fp8", "int": "int8"}.get(str(scheme.get("type")), "") if scheme.get("num_bits") == 8 else ""
    return {"FP8": "fp8", "INT8": "int8"}.get(str(scheme).upper(), "")


def format_in_name(name: str) -> str:
    """The format that a checkpoint's name states, such as "-FP8" or "-w4a16"; "" when none."""
    words = re.split(r"[-_./]", name.lower())
    return next((fmt for word, fmt in IN_NAME if word in words), "")


def _from_name(name: str) -> Formats:
    found = format_in_name(name)
    if not found:
        return Formats()
    parts = [p for p in LINEAR if p != "attention"] if found in FOUR_BIT else LINEAR
    note = f"number format {found} taken from the checkpoint's name, the config does not state it"
    return Formats(tuple((p, found) for p in sorted(parts)), "fp8" if found == "nvfp4" else "", (note,))
