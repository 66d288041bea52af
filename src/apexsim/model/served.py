"""Which number formats a run served, from its model and the label of its precision: those of a checkpoint (floor 2).

A label ("fp8", "fp4", "int4") says too little: which parts have the format, and per tensor or per block, is the checkpoint's to
say.  So it is looked up, in this order, and what had to be assumed is said:

1. a 16-bit label, or none: 16 bit, or what the configuration itself states;
2. the configuration itself, where it states the labelled format;
3. another bundled checkpoint of the same architecture (its owner's before others') that does;
4. the configuration itself, where it stores fewer bits than the label says: nothing wider was published (gpt-oss);
5. the checkpoints that the maker of such formats publishes of other models: of the same line ("glm", "qwen") where there are any,
   else as the maker names and makes them;
6. the name of the checkpoint that was served ("…-GPTQ-Int4"), by the usual recipe of what it states.

The maker of 4-bit floating point checkpoints is the vendor of the GPU, of others the model's owner, then NVIDIA.
"""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

from apexsim.errors import InputError
from apexsim.model.cell import LINEAR
from apexsim.model.count import model_parameters
from apexsim.model.dtypes import dtype
from apexsim.model.families import load_model
from apexsim.model.model import Model
from apexsim.model.names import core, model_names
from apexsim.model.precision import format_in_name, formats_from_name

PLAIN = ("bf16", "bfloat16", "fp16", "float16", "half", "bf16/fp16", "16bit", "fp32", "none")
# Label -> formats that it may stand for: on NVIDIA's GPUs, on others.
STANDS_FOR: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fp8": (("fp8", "fp8_block"), ("fp8", "fp8_block")),
    "fp4": (("nvfp4", "mxfp4"), ("mxfp4",)),
    "int4": (("int4", "awq"), ("int4", "awq")),
    "int8": (("int8", "w8a8"), ("int8", "w8a8")),
    **{name: ((name,), (name,)) for name in ("nvfp4", "mxfp4", "fp8_block", "awq", "w8a8", "w4a8")},
}
SAME = {"fp8-block": "fp8_block", "fp8_blockwise": "fp8_block", "nvfp4/fp4": "nvfp4", "w4a16": "int4", "gptq": "int4", "mxfp4/fp4": "mxfp4"}
FEWER = 1.5  # times: bits of scales and unquantised layers make no other format
FOUR_BIT = ("fp4", "nvfp4", "mxfp4")
MADE = ("fp8", *FOUR_BIT)  # labels of which a vendor's checkpoints follow one recipe
METHODS = {"fp8_block": "FP8-block", "awq": "AWQ", "w8a8": "W8A8", "w4a8": "W4A8"}  # labels that are a recipe of their own
VENDORS = {"NVIDIA": ("nvidia", "NVFP4"), "AMD": ("amd", "MXFP4")}  # of a GPU: owner of its checkpoints, and their 4-bit format


@dataclass(frozen=True, slots=True)
class Served:
    """A model with the formats that it was served in, and what was assumed of them ("" = nothing)."""

    model: Model
    assumed: str = ""


@lru_cache(maxsize=512)
def served(config: str, label: str, vendor: str = "NVIDIA", maker: str = "", checkpoint: str = "") -> Served:
    """The model of a configuration as a run with this precision label served it; raises InputError where nothing tells.

    vendor: of the GPU, since 4-bit floating point checkpoints are made for one; maker: owner of the checkpoints, where it is known;
    checkpoint: the name of the one that was served.
    """
    model, word = _named(config), _word(label)
    if not word:
        return Served(model)
    if word in PLAIN:
        return Served(_in(model, {}, ""))
    if word not in STANDS_FOR:
        raise InputError(f"the number formats of {config} in '{label}' are not known", "", f"known labels: {', '.join(STANDS_FOR)}")
    formats = STANDS_FOR[word][vendor != "NVIDIA"]
    if _carries(model, formats):
        return Served(model)
    others = (name for name in _alike(config) if maker in ("", _owner(name)))
    alike = next((name for name in others if _carries(_named(name), formats)), "")
    if alike:
        return Served(_as(model, _named(alike)))
    if _narrower(model, formats):
        return Served(model, f"{label} taken as {_spelled(model)}, all that its own checkpoint has")
    named = checkpoint if format_in_name(checkpoint) in formats else ""
    return _made(model, config, word, formats, (maker,) if maker else _makers(config, word, vendor), named)


def _makers(config: str, word: str, vendor: str) -> tuple[str, ...]:
    """Who makes checkpoints of a model in a format, first choice first."""
    if word in FOUR_BIT:
        return (VENDORS.get(vendor, VENDORS["NVIDIA"])[0],)
    return tuple(dict.fromkeys((_owner(config), "nvidia"))) if word in MADE else (_owner(config),)


def _word(label: str) -> str:
    word = label.partition("(")[0].strip().lower()  # int4 (GPTQ)
    return SAME.get(word, word)


@lru_cache(maxsize=512)
def _named(name: str) -> Model:
    return load_model(name)


def _plain(fmt: str) -> str:
    return fmt.partition("~")[0]


def _main(model: Model) -> str:
    """The format of most of a checkpoint's quantised weights; "" where all are in 16 bit."""
    counted, stated = model_parameters(model), dict(model.weight_dtypes)
    there = [part for part in _parts(model) if part in stated]
    return _plain(stated[max(there, key=lambda part: counted[part])]) if there else ""


def _carries(model: Model, formats: tuple[str, ...]) -> bool:
    return _main(model) in formats


def _narrower(model: Model, formats: tuple[str, ...]) -> bool:
    """Whether what the checkpoint quantises is stored in far fewer bits than any of the formats."""
    own = [dtype(fmt).stored for _, fmt in model.weight_dtypes]
    return bool(own) and FEWER * max(own) < min(dtype(fmt).stored for fmt in formats)


def _spelled(model: Model) -> str:
    return ", ".join(f"{part} {fmt}" for part, fmt in model.weight_dtypes)


def _in(model: Model, weights: dict[str, str], kv: str) -> Model:
    """The model in these formats."""
    return replace(model, weight_dtypes=tuple(sorted(weights.items())), kv_dtype=kv, unread="", unread_kv="")


def _parts(model: Model) -> tuple[str, ...]:
    counted = model_parameters(model)
    return tuple(part for part in LINEAR if counted.get(part))


def _as(model: Model, other: Model) -> Model:
    """The model in another one's formats; parts that the other has not take the format of most of its weights."""
    stated, there = dict(other.weight_dtypes), _parts(other)
    chosen = {part: stated.get(part, "") if part in there else _main(other) for part in _parts(model)}
    return _in(model, {part: fmt for part, fmt in chosen.items() if fmt}, other.kv_dtype)


def _owner(stem: str) -> str:
    return stem.replace("/", "--", 1).partition("--")[0].lower()


@lru_cache(maxsize=512)
def _alike(config: str) -> tuple[str, ...]:
    """Bundled checkpoints of the same architecture: its owner's first, then the shortest names."""
    wanted, owner = core(config), _owner(config)
    found = [stem for stem in model_names() if core(stem) == wanted and stem != config]
    return tuple(sorted(found, key=lambda stem: (_owner(stem) != owner, len(stem), stem)))


def _line(name: str) -> str:
    """The line that a model belongs to: the first word of its name."""
    return core(name).partition("-")[0]


@lru_cache(maxsize=64)
def _published(maker: str, formats: tuple[str, ...]) -> tuple[str, ...]:
    """Bundled checkpoints of a maker in one of the formats."""
    return tuple(stem for stem in model_names() if _owner(stem) == maker and _carries(_named(stem), formats))


def _made(model: Model, config: str, word: str, formats: tuple[str, ...], makers: tuple[str, ...], named: str) -> Served:
    """The formats of the makers' checkpoints of other models, else as the last of them names and makes them, or the checkpoint is named."""
    none = f"no {word} checkpoint of {core(config)} is known"
    for maker in makers:
        published = _published(maker, formats)
        near = [stem for stem in published if _line(stem) == _line(config)]
        if near:
            closest = max(near, key=lambda stem: (_named(stem).family == model.family, _likeness(stem, config), stem))
            return Served(_as(model, _named(closest)), f"{none}: formats as in {closest}")
        if published and maker == _owner(config):
            usual = Counter(_main(_named(stem)) for stem in published).most_common(1)[0][0]
            return Served(_in(model, dict.fromkeys(_parts(model), usual), ""), f"{none}: {usual}, as in {maker}'s others")
    if word not in MADE and word not in METHODS:
        if named:
            return Served(_as_named(model, named), f"{none}: what {named} says, as usual")
        raise InputError(f"the number formats of {config} in {word} are not known: no such checkpoint of it or its maker", "")
    four_bit = next((name for owner, name in VENDORS.values() if owner == makers[-1]), "NVFP4")
    spelled = METHODS.get(word) or (four_bit if word == "fp4" else word.upper())
    made = _as_named(model, f"{makers[-1]}/{core(config)}-{spelled}")
    return Served(made, f"{none}: {spelled} as " + (f"{makers[-1]} makes it" if word in MADE else "usual"))


def _as_named(model: Model, checkpoint: str) -> Model:
    """The model in the formats that the name of a checkpoint states, by their usual recipes."""
    found = formats_from_name(checkpoint, model)
    return _in(model, {part: fmt for part, fmt in found.weights if part in _parts(model)}, found.kv)


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, core(a), core(b)).ratio()
