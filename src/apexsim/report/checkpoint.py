"""Which checkpoint a server is started with, and whether the engine has to quantise it itself (floor 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from apexsim.errors import Rejected
from apexsim.model.dtypes import dtype
from apexsim.model.model import Model
from apexsim.plan.flags import words_of
from apexsim.plan.formats import parts_of
from apexsim.plan.limits import started
from apexsim.plan.plan import Plan, Precision
from apexsim.search.setting import Setting

SIXTEEN = ("bf16", "fp16")
SAME = {"fp8_block": "fp8", "awq": "int4"}  # formats that one checkpoint serves alike
NAMES = {"int4": "AWQ", "awq": "AWQ", "w4a8": "W4A8", "nf4": "BNB_4BIT"}  # of a placeholder; else the format's own
WORDS = {"int4": "int4 (AWQ or GPTQ)", "awq": "AWQ", "nf4": "4-bit bitsandbytes", "w4a8": "W4A8", "w8a8": "int8 (W8A8)"}
OLDER = ("volta", "turing")  # FP8 kernels of vLLM and SGLang want SM 8.0 or newer
UNJUDGED = "whether its answers are as good is not judged"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What to serve: an id, a folder or a placeholder; `quantise`: the format that the engine makes while it loads."""

    name: str
    quantise: str = ""
    dtype: str = ""
    notes: tuple[str, ...] = ()


def checkpoint(setting: Setting, plan: Plan) -> Checkpoint:
    """The checkpoint of a plan: the user's own where its formats are the plan's, else one that has them."""
    name, note = found_at(setting.model)
    notes = (note,) if note else ()
    stated, wanted = _native(setting), plan.precision
    changed = [part for part in parts_of(setting.model) if _same(stated.weight(part)) != _same(wanted.weight(part))]
    if not changed:
        return Checkpoint(name, notes=notes)
    form = wanted.weight(changed[0])
    sixteen = all(stated.weight(part) in SIXTEEN for part in parts_of(setting.model))
    if form in SIXTEEN and sixteen:
        return Checkpoint(name, dtype=form, notes=notes)
    if sixteen and _online(setting, plan, form):
        said = f"{name} is quantised to {form} while it loads; {UNJUDGED}"
        return Checkpoint(name, form, notes=(*notes, said))
    holder = f"YOUR_{NAMES.get(form, form).upper()}_CHECKPOINT"
    why = f"{WORDS.get(form, form)} weights were simulated: put a checkpoint of {name} in that format for {holder}"
    return Checkpoint(holder, notes=(*notes, f"{why}; {UNJUDGED}"))


def found_at(model: Model) -> tuple[str, str]:
    """The model as an engine finds it, and a word where it cannot know."""
    name, source = model.name, model.source
    file = Path(source)
    if source.endswith(".json") and file.is_file():  # a file of the user's
        if any(file.parent.glob("*.safetensors")):
            return str(file.parent), ""
        return "YOUR_MODEL_PATH", f"put the folder or hub id of the weights for YOUR_MODEL_PATH ({name})"
    if "/" not in name:
        return "YOUR_MODEL_PATH", f"put the folder or hub id of {name} for YOUR_MODEL_PATH"
    return name, ""


def _native(setting: Setting) -> Precision:
    """The formats that the checkpoint states."""
    return Precision(setting.model.weight_dtypes, dtype(setting.model.dtype).name)


def _same(form: str) -> str:
    return SAME.get(form, form)


def _online(setting: Setting, plan: Plan, form: str) -> bool:
    """Whether the engine quantises a 16-bit checkpoint itself, whose weights must first fit as they are."""
    if not words_of(setting.engine).has("quantise", form):
        return False
    if setting.cluster.gpu.arch in OLDER:
        return False
    whole = replace(plan, precision=replace(plan.precision, weights=(), default="bf16", tag=""))
    return not isinstance(started(setting.model, whole, setting.cluster, setting.engine, 1), Rejected)
