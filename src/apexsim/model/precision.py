"""Which number format each part of a checkpoint has: what `quantization_config` says, or the checkpoint's name (floor 2).

A part whose modules differ has the format that most of its weights have, with the bits that all of them store on average
("fp8~9.1").  Embeddings, head, router and norms stay unquantised unless a list of layers names them.  Where a config carries
no such section but the checkpoint's name states a format, the name is believed, with a note.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from apexsim.errors import InputError
from apexsim.model.cell import LINEAR
from apexsim.model.config import Config
from apexsim.model.count import model_parameters
from apexsim.model.dtypes import dtype, with_bits
from apexsim.model.model import Model
from apexsim.model.modules import HEAD, Patterns, modules
from apexsim.model.parts import routed
from apexsim.model.quantisation import Scheme, listless, scheme_of

IN_NAME = (  # words of a checkpoint's name -> format; the first row whose words stand there together counts
    ("nvfp4", "nvfp4"), ("mxfp4", "mxfp4"), ("fp4", "nvfp4"), ("fp8-block", "fp8_block"), ("mxfp8", "fp8~8.25"), ("fp8", "fp8"),
    ("w8a8", "w8a8"), ("w4a16", "int4"), ("w8a16", "int8"), ("w4a8", "w4a8"), ("bnb-4bit", "nf4"), ("bnb-8bit", "int8"),
    ("nf4", "nf4"), ("int8", "int8"), ("8bit", "int8"), ("int3", "int3"), ("3bit", "int3"), ("int2", "int2"), ("2bit", "int2"),
    ("awq", "awq"), ("gptq", "int4"), ("int4", "int4"), ("4bit", "int4"), ("autoround", "int4"), ("6bit", "int6"),
    ("5bit", "int5"), ("w4", "int4"), ("w8", "int8"),
)  # fmt: skip
CACHE = re.compile(r"fp8-kv\b|kv-?fp8")  # names of checkpoints that state the format of the cache too
# Whose NVFP4 checkpoints are made by ModelOpt, which states FP8 keys and values (no owner: NVIDIA's); llm-compressor leaves them alone.
# Start-up logs: unsloth's Qwen3.8 holds twice what 16 bit gives, RedHatAI's Gemma 4 and Qwen3.6 and poolside's Laguna hold just that.
MODELOPT = re.compile(r"(nvidia|unsloth)/|[^/]*$")
FOUR_BIT = ("nvfp4", "mxfp4")  # ModelOpt's and OpenAI's recipes leave the attention of expert models in 16 bit
BLOCK_FP8 = re.compile(r"^(qwen/qwen3|deepseek-ai/|xiaomimimo/|zai-org/glm-5|minimaxai/)")  # owners whose "-FP8" is block-wise


@dataclass(frozen=True, slots=True)
class Formats:
    """Formats by part, of the KV cache ("" = not said), remarks, and what could not be read of each."""

    weights: tuple[tuple[str, str], ...] = ()
    kv: str = ""
    notes: tuple[str, ...] = ()
    unread: str = ""
    unread_kv: str = ""


def formats(outer: Config, inner: Config, model: Model) -> Formats:
    """The formats that a configuration states, else those that its name does."""
    row = outer.sub("quantization_config") or inner.sub("quantization_config") or outer.sub("compression_config")
    if row is None or not row.data:
        return formats_from_name(outer.name, model)
    scheme = scheme_of(row)
    if scheme.unread:
        return Formats(unread=f"{row.where}: {scheme.unread} is not known", unread_kv=_unknown(row, scheme))
    weights, notes = _by_part(scheme, model)
    if listless(row) and scheme.base in FOUR_BIT:
        weights.pop("attention", None)
        notes += ("list of unquantised modules is not in the config: attention taken as 16 bit",)
    if outer.text("expert_dtype") == "fp4" and weights.get("experts", "").startswith("fp8"):
        weights["experts"] = "mxfp4"
    if scheme.rules and not scheme.base and not weights:
        return Formats(unread=f"{row.where}: none of its targets names a layer here", unread_kv=_unknown(row, scheme))
    return Formats(tuple(sorted(weights.items())), scheme.kv, scheme.notes + notes, "", _unknown(row, scheme))


def _unknown(row: Config, scheme: Scheme) -> str:
    return f"{row.where}: {scheme.unread_kv} is not known" if scheme.unread_kv else ""


def _by_part(scheme: Scheme, model: Model) -> tuple[dict[str, str], tuple[str, ...]]:
    """The format of each part, and a remark on parts of several."""
    rules = [(Patterns(rule.patterns), rule.format) for rule in scheme.rules]
    only = scheme.only if routed(model) or "experts" not in scheme.only else LINEAR
    found: dict[str, Counter[str]] = {}
    for layer, module in modules(model):
        base = scheme.base if module.part in (only or LINEAR) else ""
        name = next((form for patterns, form in rules if patterns.names(layer, module)), base)
        found.setdefault(module.part, Counter())[name or "bf16"] += module.size
    head = next((form for patterns, form in rules if patterns.names(None, HEAD)), "")
    parts = {part: _blend(counts) for part, counts in found.items()}
    weights = {part: name for part, name in {**parts, "head": head}.items() if name and name != "bf16"}
    mixed = [
        f"{part}: {' and '.join(sorted(found[part]))} by layer or module, counted as {weights[part]}"
        for part in weights
        if part in found and len(found[part]) > 1 and "~" in weights[part]
    ]
    return weights, tuple(mixed)


def _blend(counts: Counter[str]) -> str:
    """One format for weights in several: the most frequent, with the average of what all store."""
    name = counts.most_common(1)[0][0]
    if len(counts) == 1:
        return name
    bits = 8.0 * sum(dtype(form).stored * n for form, n in counts.items()) / sum(counts.values())
    return with_bits(name.partition("~")[0], bits)


def format_in_name(name: str) -> str:
    """The format that a checkpoint's name states, such as "-FP8" or "-w4a16"; "" when none."""
    words = "-" + "-".join(re.split(r"[-_./]", name.lower())) + "-"
    if "-unquantized-" in words or "-bf16-" in words:
        return ""
    found = next((form for word, form in IN_NAME if f"-{word}-" in words), "")
    return "fp8_block" if found == "fp8" and BLOCK_FP8.match(name.lower()) else found


def formats_from_name(name: str, model: Model) -> Formats:
    """The formats that a checkpoint's name states, by the usual recipe of each."""
    found = format_in_name(name)
    if not found:
        return Formats()
    experts = bool(model_parameters(model).get("experts"))
    parts = [p for p in LINEAR if p != "attention"] if experts and found in FOUR_BIT else LINEAR
    note = f"number format {found} taken from the checkpoint's name, the config does not state it"
    own = name.replace("--", "/", 1).lower()
    cache = CACHE.search(own) or (found == "nvfp4" and MODELOPT.match(own))
    return Formats(tuple((p, found) for p in sorted(parts)), "fp8" if cache else "", (note,))


def refuse(unread: str, option: str) -> None:
    """Raise what a checkpoint's section says that is not known, naming the option that decides it."""
    if unread:
        like = "bf16, fp8, int8, awq, int4, nvfp4, mxfp4" if option == "--weight-dtype" else "bf16, fp8, int8"
        raise InputError(unread, hint=f"give {option} ({like} …)")
