"""What a checkpoint's `quantization_config` says, method by method (floor 2).

One reader per method, one `Scheme` out of each: the format of linear layers, rules for modules that differ, the format of
the KV cache.  A method or scheme that is not known stands in `Scheme.unread`: it is refused unless the user gives the
format himself.  Keys follow the methods' own writers: AutoAWQ, GPTQModel, bitsandbytes, compressed-tensors, ModelOpt, AMD
Quark, torchao, HQQ, AutoRound, AQLM, VPTQ, HIGGS, optimum-quanto, EETQ, FBGEMM.
"""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from apexsim.errors import InputError
from apexsim.model.config import Config
from apexsim.model.dtypes import with_bits

EVERYWHERE = "re:.*"
FLAGS = re.compile(r"\(\?[aiLmsux]+\)")  # of a whole expression, which stand first


def _everywhere(pattern: str) -> str:
    """A pattern of GPTQ or AutoRound for whole names: an expression, or where it is none a name with wildcards."""
    flags = "".join(FLAGS.findall(pattern))
    bare = FLAGS.sub("", pattern).lstrip("^")
    try:
        re.compile(f".*{bare}")
    except re.error:
        bare = fnmatch.translate(bare) if set(bare) & set("*?") else bare
    return f"re:{flags}.*{bare}"


DROPPED = "<dropped"  # a bundled configuration without its long list of exceptions
ALGORITHMS = {  # ModelOpt's `quant_algo`
    "FP8": "fp8", "FP8_PER_CHANNEL_PER_TOKEN": "fp8", "FP8_PB_WO": "fp8_block", "FP8_BLOCK_SCALES": "fp8_block",
    "FP8_PB": "fp8_block", "FP8_PER_TENSOR": "fp8", "NVFP4": "nvfp4", "W4A16_NVFP4": "nvfp4", "NVFP4_AWQ": "nvfp4",
    "NVFP4_SVDQUANT": "nvfp4", "W4A8_NVFP4_FP8": "nvfp4", "MXFP4": "mxfp4", "W4A8_MXFP4_FP8": "mxfp4",
    "W4A8_MXFP4_MXFP8": "mxfp4", "W4A16_MXFP4": "mxfp4", "MXFP8": "fp8~8.25", "W4A16": "int4", "W4A16_AWQ": "awq",
    "W4A16_GPTQ": "int4", "W4A8_AWQ": "awq", "INT4_AWQ": "awq", "W8A16": "int8", "W8A16_GPTQ": "int8", "INT8": "w8a8",
    "W8A8_SQ_PER_CHANNEL": "w8a8", "W8A8_SQ_PER_TENSOR_PLUGIN": "w8a8", "INT8_SQ": "w8a8",
}  # fmt: skip
FIXED = {  # methods whose one format says it all
    "fbgemm_fp8": "fp8", "ptpc_fp8": "fp8", "w8a8_fp8": "fp8", "marlin_fp8": "fp8", "mxfp8": "fp8~8.25",
    "w8a8_int8": "w8a8", "blockwise_int8": "w8a8", "eetq": "int8", "tpu_int8": "int8", "qoq": "w4a8",
    "petit_nvfp4": "nvfp4", "modelopt_fp4": "nvfp4", "nvfp4": "nvfp4", "quark_mxfp4": "mxfp4",
}  # fmt: skip
EXCEPTIONS = (
    "ignore", "modules_to_not_convert", "exclude_modules", "exclude", "ignored_layers", "skip_modules",
    "llm_int8_skip_modules", "exclude_layers",
)  # fmt: skip
CACHES = {
    "FP8": "fp8", "FP8_E4M3": "fp8", "FLOAT8": "fp8", "INT8": "int8",
    **dict.fromkeys(("BF16", "BFLOAT16", "FLOAT16", "FP16", "AUTO", "NONE", ""), ""),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FormatRule:
    """Modules that `patterns` name have `format`; "" = 16 bit."""

    patterns: tuple[str, ...]
    format: str


@dataclass(frozen=True, slots=True)
class Scheme:
    """Formats of a checkpoint: the first rule that names a module decides, else `base`."""

    base: str = ""
    rules: tuple[FormatRule, ...] = ()
    only: tuple[str, ...] = ()  # parts that `base` is meant for; () = all linear layers
    kv: str = ""
    notes: tuple[str, ...] = ()
    unread: str = ""  # what is not understood, in words
    unread_kv: str = ""


Reader = Callable[[Config], Scheme]


def scheme_of(row: Config) -> Scheme:
    """The scheme that a quantisation section describes; raises InputError where a key has an impossible value."""
    stated = row.data.get("quant_method")
    if stated is not None and not isinstance(stated, str):
        raise _bad(row, "quant_method", "a name", stated)
    method = str(stated or "").lower().replace("_", "-")
    reader = READERS.get(method) or (_unknown if method else _without_method)
    scheme = reader(row)
    kept = () if _mixed(row) else exceptions(row)  # beside a list of layers it repeats what the list leaves out
    first = (FormatRule(kept, ""),) if kept else ()
    cache, unread = _cache(row)
    return replace(scheme, rules=first + scheme.rules, kv=scheme.kv or cache, unread_kv=scheme.unread_kv or unread)


def _mixed(row: Config) -> bool:
    return row.text("quant_algo").upper() == "MIXED_PRECISION"


def listless(row: Config) -> bool:
    """Whether a bundled configuration has lost its long list of exceptions."""
    return any(str(row.data.get(key)).startswith(DROPPED) for key in EXCEPTIONS)


def exceptions(row: Config) -> tuple[str, ...]:
    """Patterns of the modules that stay in 16 bit."""
    found: list[str] = []
    for key in EXCEPTIONS:
        value = row.data.get(key)
        if value is None or (isinstance(value, str) and value.startswith(DROPPED)):
            continue
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            raise _bad(row, key, "a list of module names", value)
        found += value
    return tuple(found)


def _bad(row: Config, key: str, wanted: str, value: Any) -> InputError:
    return InputError(f"key '{key}' must be {wanted}, got {json.dumps(value, default=str)[:40]}", row.where)


def _bits(row: Config, *keys: str, default: int | None = None) -> int:
    bits = row.count(*(keys or ("bits",)), default=default)
    if bits > 16:
        raise _bad(row, next(k for k in keys or ("bits",) if row.has(k)), "at most 16", bits)
    return bits


def _group(row: Config, default: int = 128, key: str = "group_size") -> int:
    """Weights per scale; 0 = one scale per channel (written as -1 or null)."""
    value = row.count(key, default=default, low=-1)
    if value == 0 and row.has(key):
        raise _bad(row, key, "-1 or at least 1", 0)
    return max(value, 0)


def integer(bits: float, group: int = 128, zeros: float = 0.0, base: str = "") -> str:
    """A weight-only integer format: bits, one 16-bit scale per group and `zeros` bits of zero point."""
    stored = bits + ((16.0 + zeros) / group if group else 0.0)
    return with_bits(base or f"int{min(max(math.ceil(bits), 2), 8) if bits <= 6 else 8}", stored)


def _fixed(name: str) -> Reader:
    return lambda row: Scheme(name)


def _fp8(row: Config) -> Scheme:
    """Per tensor, channel or block.  A list of layers in another format (ModelOpt on top of it) counts too."""
    block = row.data.get("weight_block_size")
    if block is not None and not (isinstance(block, list) and len(block) == 2 and all(_whole(x) for x in block)):
        raise _bad(row, "weight_block_size", "two whole numbers", block)
    return replace(Scheme("fp8_block" if block else "fp8"), rules=_layers(row))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _awq(row: Config) -> Scheme:
    bits, group = _bits(row, "bits", "w_bit", default=4), _group(row, 128, "q_group_size" if row.has("q_group_size") else "group_size")
    zeros = bits if row.flag("zero_point", True) else 0
    return Scheme(integer(bits, group, zeros, "awq" if bits == 4 else ""))


def _gptq(row: Config) -> Scheme:
    """GPTQ and its kernels' names; `dynamic` (GPTQModel) skips modules ("-:") or gives them other bits ("+:")."""
    bits, group = _bits(row, "bits", "weight_bits", default=4), _group(row)
    rules = []
    for pattern, change in _mapping(row, "dynamic").items():
        named = _everywhere(pattern.removeprefix("+:").removeprefix("-:"))
        if pattern.startswith("-:"):
            rules.append(FormatRule((named,), ""))
            continue
        if not isinstance(change, Mapping):
            raise _bad(row, f"dynamic.{pattern}", "an object", change)
        own = Config({**row.data, **change}, f"{row.where}: dynamic")
        rules.append(FormatRule((named,), integer(_bits(own, default=4), _group(own))))
    head = (FormatRule(("lm_head",), integer(bits, group)),) if row.data.get("lm_head") is True else ()
    return Scheme(integer(bits, group), (*rules, *head))


def _mapping(row: Config, key: str) -> Mapping[str, Any]:
    value = row.data.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _bad(row, key, "an object", value)
    return value


def _bitsandbytes(row: Config) -> Scheme:
    eight = row.flag("load_in_8bit") or row.flag("_load_in_8bit")
    return Scheme("int8" if eight and not row.flag("load_in_4bit") else "nf4")


def _bits_only(default: int, group: int, zeros: float = 0.0) -> Reader:
    def read(row: Config) -> Scheme:
        return Scheme(integer(_bits(row, "bits", "nbits", "weight_bits", default=default), _group(row, group), zeros))

    return read


def _auto_round(row: Config) -> Scheme:
    """AutoRound and Intel's Neural Compressor; `extra_config` gives layers of their own bits (16 = untouched)."""
    name = row.text("data_type", "int").lower()
    plain = {"mx_fp": "mxfp4", "mx_fp4": "mxfp4", "nv_fp": "nvfp4", "nv_fp4": "nvfp4", "fp8": "fp8"}.get(name)
    zeros = 0.0 if row.flag("sym", True) else 16.0

    def form(own: Config) -> str:
        bits = _bits(own, default=4)
        return "" if bits >= 16 else plain or integer(bits, _group(own), zeros)

    rules = []
    for module, change in _mapping(row, "extra_config").items():
        if not isinstance(change, Mapping):
            raise _bad(row, f"extra_config.{module}", "an object", change)
        own = {**row.data, **change}
        listed = _everywhere(module) if set(module) & set("*|()[]\\") else module
        rules.append(FormatRule((listed,), form(Config(own, f"{row.where}: extra_config.{module}"))))
    named = row.data.get("block_name_to_quantize") or row.data.get("to_quant_block_names")
    return Scheme(form(row), tuple(rules), notes=() if named is None else ("only the blocks that AutoRound names are quantised",))


def _compressed_tensors(row: Config) -> Scheme:
    """Groups with targets ("Linear", module names, "re:" expressions), as an object or a list."""
    groups = row.data.get("config_groups")
    if isinstance(groups, str) and groups.startswith(DROPPED):
        return Scheme(unread="its list of groups is left out")
    rows = (
        list(groups.items())
        if isinstance(groups, Mapping)
        else [(str(i), g) for i, g in enumerate(groups or ())]
        if isinstance(groups, list)
        else None
    )
    if rows is None:
        raise _bad(row, "config_groups", "an object of groups", groups)
    base, rules, unread = "", [], ""
    for name, group in rows:
        if not isinstance(group, Mapping):
            raise _bad(row, f"config_groups.{name}", "an object", group)
        here = Config(group, f"{row.where}: config_groups.{name}")
        form, why = _group_format(here, row.text("format"))
        unread = unread or why
        targets = group.get("targets", ["Linear"])
        if not isinstance(targets, list) or not all(isinstance(t, str) for t in targets):
            raise _bad(here, "targets", "a list of names", targets)
        if set(targets) & {"Linear", "LinearBase", "FusedMoE", "MoE"}:
            base = base or form
        modules = tuple(t for t in targets if t not in ("Linear", "LinearBase", "FusedMoE", "MoE"))
        rules += [FormatRule(modules, form)] if modules else []
    sparse = row.sub("sparsity_config")
    thin = (sparse is not None and "24" in sparse.text("format")) or row.text("format").startswith("marlin-24")
    notes = ("2:4 sparsity is not counted: sizes are those of the dense weights",) if thin else ()
    if not rows:
        unread = unread or "what it means without a group"
    return Scheme(base, tuple(rules), notes=notes, unread=unread)


def _group_format(group: Config, form: str) -> tuple[str, str]:
    """(format, what is not understood) of one group: bits and type of the weights, and whether activations are quantised."""
    weights = group.sub("weights")
    if weights is None:
        return "", ""
    bits, kind = _bits(weights, "num_bits", default=8), weights.text("type", "int")
    strategy, form = weights.text("strategy"), group.text("format") or form
    size = _group(weights, 0) if strategy in ("group", "tensor_group", "") else 0
    acts = group.sub("input_activations")
    symmetric = weights.flag("symmetric", True)
    if (bits, kind) == (8, "float"):
        return ("fp8~8.25" if form.startswith("mxfp8") else "fp8_block" if strategy == "block" else "fp8"), ""
    if (bits, kind) == (4, "float"):
        return ("nvfp4" if form.startswith("nvfp4") or size == 16 else "mxfp4"), ""
    if kind == "int" and bits == 8 and acts is not None:
        return "w8a8", ""
    if kind == "int" and bits <= 8:
        wide = bits == 4 and acts is not None
        return integer(bits, size, 0.0 if symmetric else bits, "w4a8" if wide else ""), ""
    return "", f"weights of {bits} bits and type '{kind}'"


def _modelopt(row: Config) -> Scheme:
    """ModelOpt: one algorithm, or MIXED_PRECISION with a list of layers."""
    value = row.data.get("quant_algo")
    if value is None and row.has("config_groups"):
        return _compressed_tensors(row)
    if not isinstance(value, str):
        raise _bad(row, "quant_algo", "a name", value)
    name = value.upper()
    if _mixed(row):
        layers = _layers(row)
        return Scheme(rules=layers) if layers else Scheme(unread="mixed precision without 'quantized_layers'")
    if name not in ALGORITHMS:
        return Scheme(unread=f"algorithm '{value}'")
    form = ALGORITHMS[name]
    if form in ("int4", "awq") and row.has("group_size"):
        form = integer(4, _group(row), 0.0 if form == "int4" else 4.0, form)
    return Scheme(form)


def _layers(row: Config) -> tuple[FormatRule, ...]:
    """Rules of a list `quantized_layers`: one per format, modules named in full."""
    found: dict[str, list[str]] = {}
    for module, value in _mapping(row, "quantized_layers").items():
        name = str(value.get("quant_algo") if isinstance(value, Mapping) else value)
        if name.upper() not in ALGORITHMS:
            raise _bad(row, f"quantized_layers.{module}", "an algorithm that is known", name)
        found.setdefault(ALGORITHMS[name.upper()], []).append(module)
    return tuple(FormatRule(tuple(modules), form) for form, modules in found.items())


QUARK = {
    "fp4": "mxfp4", "mxfp4": "mxfp4", "mx": "mxfp4", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "fp8": "fp8", "mxfp8": "fp8~8.25",
    "fp6_e3m2": "fp6", "fp6_e2m3": "fp6", "mxfp6": "fp6", "mxfp6_e3m2": "fp6", "mxfp6_e2m3": "fp6",
}  # fmt: skip


def _quark(row: Config) -> Scheme:
    """AMD Quark: a global scheme, schemes by layer or layer type, excluded modules, the cache's scheme."""
    whole = row.sub("global_quant_config")
    base, unread = _quark_format(whole) if whole else ("", "no 'global_quant_config'")
    rules = []
    for module, value in _mapping(row, "layer_quant_config").items():
        form, why = _quark_format(Config(value, f"{row.where}: layer_quant_config.{module}")) if isinstance(value, Mapping) else ("", "")
        rules.append(FormatRule((module,), form))
        unread = unread or why
    stated = [
        Config(value, row.where).sub("output_tensors")
        for value in _mapping(row, "kv_cache_quant_config").values()
        if isinstance(value, Mapping)
    ]
    caches = [out.text("dtype").upper() for out in stated if out]
    strange = next((f"KV cache format '{name[:40]}'" for name in caches if name not in CACHES), "")
    cache = next((CACHES[name] for name in caches if CACHES.get(name)), "")
    return Scheme(base, tuple(rules), kv=cache, unread=unread, unread_kv=strange)


def _quark_format(row: Config) -> tuple[str, str]:
    weight = row.data.get("weight")
    if isinstance(weight, list):  # two stages: the last one is what is stored
        weight = weight[-1] if weight else None
    if weight is None:
        return "", ""
    if not isinstance(weight, Mapping):
        raise _bad(row, "weight", "an object", weight)
    here = Config(weight, f"{row.where}: weight")
    name, group = here.text("dtype").lower().replace("-", "_"), _group(here, 0)
    if name in QUARK:
        wide = name == "fp4" and group == 16
        return ("nvfp4" if wide else QUARK[name]), ""
    number = re.fullmatch(r"u?int(\d+)", name)
    if number and 2 <= int(number[1]) <= 8:
        acts = row.sub("input_tensors")
        if number[1] == "8" and acts is not None:
            return "w8a8", ""
        return integer(int(number[1]), group, 0.0 if here.flag("symmetric", name[0] != "u") else float(number[1])), ""
    return "", f"weights of type '{name or '?'}'"


def _torchao(row: Config) -> Scheme:
    """torchao: a name with arguments, or a serialised configuration, one for all layers or by module."""
    kind = row.data.get("quant_type")
    if isinstance(kind, str):
        form, why = _torchao_format(kind, _mapping(row, "quant_type_kwargs"))
        return Scheme(form, unread=why)
    if not isinstance(kind, Mapping):
        raise _bad(row, "quant_type", "a name or an object", kind)
    inner = kind.get("default", kind)
    by_module = inner.get("_data", {}).get("module_fqn_to_config") if isinstance(inner, Mapping) else None
    if isinstance(by_module, Mapping):
        forms = {m: _torchao_typed(value) for m, value in by_module.items()}
        base, why = forms.pop("_default", ("", ""))
        unread = next((w for _, w in (("", why), *forms.values()) if w), "")
        return Scheme(base, tuple(FormatRule((m,), form) for m, (form, _) in forms.items()), unread=unread)
    form, why = _torchao_typed(inner)
    return Scheme(form, unread=why)


def _torchao_typed(value: Any) -> tuple[str, str]:
    if value is None:
        return "", ""
    if not isinstance(value, Mapping):
        return "", f"'{value}'"
    data = value.get("_data") or {}
    if not isinstance(data, Mapping):
        return "", f"'_data' {json.dumps(data, default=str)[:40]}"
    return _torchao_format(str(value.get("_type", "")), data)


TORCHAO = (  # words in the name -> format; the first row whose words all occur counts
    (("nvfp4",), "nvfp4"), (("mxfp4",), "mxfp4"), (("mxfp8",), "fp8~8.25"), (("float8", "int4"), "w4a8"), (("float8",), "fp8"),
    (("int8dynamic", "int4"), "w4a8"), (("int8dynamic", "int8weight"), "w8a8"), (("int8dyn", "intx"), "w4a8"),
    (("int8weight",), "int8"), (("int4weight",), "int4"), (("gemlite",), "int4"),
)  # fmt: skip
TORCHAO_META = 32.0  # bits of scale and zero point per group


def _torchao_format(kind: str, data: Mapping[str, Any]) -> tuple[str, str]:
    word = kind.lower().replace("_", "")
    row = Config(data, f"quantization_config: {kind}")
    form = next((f for words, f in TORCHAO if all(w in word for w in words)), "")
    if form == "int4":
        return integer(_bits(row, "bit_width", default=4), _group(row), TORCHAO_META - 16.0), ""
    if not form and ("intx" in word or "uintx" in word):
        digits = re.search(r"(\d)", str(data.get("weight_dtype") or data.get("dtype") or ""))
        if digits:
            return integer(int(digits[1]), _group(row), TORCHAO_META - 16.0), ""
    return form, "" if form else f"type '{kind}'"


def _hqq(row: Config) -> Scheme:
    """HQQ: 16-bit scale and zero point per group of 64; layers can have their own."""
    inner = row.sub("quant_config")
    inner = row if inner is None else inner
    weights = inner.sub("weight_quant_params")
    if weights is not None:
        return Scheme(_hqq_format(weights))
    tagged = {tag: Config(v, row.where).sub("weight_quant_params") for tag, v in inner.data.items() if isinstance(v, Mapping)}
    rules = tuple(FormatRule((tag,), _hqq_format(own)) for tag, own in tagged.items() if own is not None)
    if rules:
        return Scheme(rules=rules)
    return Scheme(_hqq_format(inner)) if inner.has("nbits", "bits") else Scheme(unread="no 'weight_quant_params'")


def _hqq_format(row: Config) -> str:
    return integer(_bits(row, "nbits", "bits"), _group(row, 64), 16.0)


def _quanto(row: Config) -> Scheme:
    name = row.text("weights", "int8").lower()
    form = {"float8": "fp8", "int8": "int8", "int4": "int4~4.25", "int2": "int2~2.25"}.get(name, "")
    return Scheme(form, unread="" if form else f"weights of type '{name}'")


def _aqlm(row: Config) -> Scheme:
    """Additive codebooks: codebooks x bits of an index per group of weights."""
    group = row.count("in_group_size", default=8) * row.count("out_group_size", default=1)
    bits = row.count("num_codebooks", default=1) * row.count("nbits_per_codebook", default=16) / group
    return Scheme(integer(bits, 0))


def _last(value: Any) -> Any:
    """The last entry of a list; None of anything else."""
    return value[-1] if isinstance(value, list) and value else None


def _vptq(row: Config) -> Scheme:
    """Vector quantisation: the index bits of each layer over the length of its vectors."""
    layers = _mapping(row, "config_for_layers") or _mapping(row, "shared_layer_config")
    sizes = []
    for value in layers.values():
        if isinstance(value, Mapping):
            length, main, rest = (_last(value.get(key)) for key in ("vector_lens", "num_centroids", "num_res_centroids"))
            if _whole(length) and _whole(main):
                sizes.append((math.log2(main) + (math.log2(rest) if _whole(rest) else 0.0)) / length)
    return Scheme(integer(sum(sizes) / len(sizes), 0)) if sizes else Scheme(unread="no layer with vectors and centroids")


def _higgs(row: Config) -> Scheme:
    return Scheme(integer(_bits(row, default=4), _group(row, 256)))


def _fp_quant(row: Config) -> Scheme:
    name = row.text("forward_dtype", "mxfp4").lower()
    return Scheme(name) if name in ("mxfp4", "nvfp4") else Scheme(unread=f"forward_dtype '{name}'")


def _mxfp4(row: Config) -> Scheme:
    """OpenAI's recipe quantises the experts alone; a model without experts has it everywhere."""
    return Scheme("mxfp4", only=("experts",))


def _w4afp8(row: Config) -> Scheme:
    """4-bit experts in an FP8 model (SGLang)."""
    return Scheme("fp8_block" if row.has("weight_block_size") else "fp8", (FormatRule((EVERYWHERE + r"\.experts\..*",), "w4a8"),))


def _ascend(row: Config) -> Scheme:
    name = row.text("model_quant_type").upper()
    form = {"W8A8": "w8a8", "W8A8_DYNAMIC": "w8a8", "W4A8_DYNAMIC": "w4a8", "W4A16": "int4", "W8A16": "int8"}.get(name, "")
    return Scheme(form, unread="" if form else f"type '{name or '?'}'")


def _without_method(row: Config) -> Scheme:
    """A section without `quant_method`: older ModelOpt and compressed-tensors writers."""
    for key, reader in (
        ("quant_algo", _modelopt),
        ("config_groups", _compressed_tensors),
        ("quant_type", _torchao),
        ("global_quant_config", _quark),
    ):
        if row.has(key):
            return reader(row)
    if row.flag("load_in_4bit") or row.flag("load_in_8bit"):
        return _bitsandbytes(row)
    return Scheme(unread="what it means without a 'quant_method'")


def _unknown(row: Config) -> Scheme:
    return Scheme(unread=f"method '{row.text('quant_method')}'")


def _cache(row: Config) -> tuple[str, str]:
    """(format of the KV cache, what is not understood): compressed-tensors' scheme, ModelOpt's algorithm."""
    scheme = row.data.get("kv_cache_scheme") or row.data.get("kv_cache_quant_algo") or row.data.get("kv_cache_dtype")
    if scheme is None:
        return "", ""
    if isinstance(scheme, Mapping):
        bits, kind = scheme.get("num_bits", 8), str(scheme.get("type", "float"))
        found = {(8, "float"): "fp8", (8, "int"): "int8"}.get((bits, kind)) if isinstance(bits, int) else None
        return (found, "") if found else ("", f"a KV cache of {str(bits)[:8]} bits and type '{kind[:20]}'")
    if not isinstance(scheme, str):
        raise _bad(row, "kv_cache_quant_algo" if row.has("kv_cache_quant_algo") else "kv_cache_scheme", "a name or an object", scheme)
    found = CACHES.get(scheme.upper())
    return ("", f"KV cache format '{scheme[:40]}'") if found is None else (found, "")


READERS: dict[str, Reader] = {
    **{name.replace("_", "-"): _fixed(form) for name, form in FIXED.items()},
    "fp8": _fp8, "finegrained-fp8": _fp8, "deepgemm": _fp8, "mxfp4": _mxfp4, "gpt-oss-mxfp4": _mxfp4,
    **dict.fromkeys(("awq", "awq-marlin", "cpu-awq", "moe-wna16-awq", "awq-gemm", "awq-triton"), _awq),
    **dict.fromkeys(
        ("gptq", "gptq-marlin", "gptqmodel", "gptq-bitblas", "bitblas", "marlin", "gptq-marlin-24", "moe-wna16", "autogptq",
         "auto-gptq", "cpu-gptq", "ipex"), _gptq),
    **dict.fromkeys(("bitsandbytes", "bnb", "bitsandbytes-4bit", "bitsandbytes-8bit"), _bitsandbytes),
    **dict.fromkeys(("auto-round", "autoround", "intel/auto-round", "inc", "intel", "auto-round-kernel"), _auto_round),
    **dict.fromkeys(("compressed-tensors", "compressed-tensor", "sparseml"), _compressed_tensors),
    **dict.fromkeys(("modelopt", "modelopt-fp8", "modelopt-mixed", "modelopt-mxfp8", "nvidia-modelopt"), _modelopt),
    "quark": _quark, "torchao": _torchao, "hqq": _hqq, "hqq-marlin": _hqq, "quanto": _quanto, "aqlm": _aqlm, "vptq": _vptq,
    "higgs": _higgs, "fp-quant": _fp_quant, "w4afp8": _w4afp8, "ascend": _ascend,
    "experts-int8": lambda row: Scheme("int8", only=("experts",)),
    "rtn": _bits_only(4, 128), "deepspeedfp": _bits_only(8, 512), "sinq": _bits_only(4, 64, 16.0),
}  # fmt: skip
