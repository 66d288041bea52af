"""A question as it is typed: the command line that asks it again, with changes (floor 6).

Every option comes back as a user would give it, with all its digits.  What no option says (a setting that only Python can give) makes
no command line: a line that asks another question is worse than none.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apexsim.engine_file import DEFAULT_ENGINE
from apexsim.engines import flags_of, load_engine, our_flag
from apexsim.slo import parse_slo

NAMES = {"slos": "--slo", "columns": "--map"}  # keywords of the API whose option has another name
REPEATED = ("slos",)  # given once for each value; other lists have commas
PLAIN: dict[str, Callable[[str], str]] = {  # in the spelling that every shell and keyboard has
    "plan": lambda text: text.replace("×", "x"),
    "slos": lambda text: str(parse_slo(text)),
}


@dataclass(frozen=True, slots=True)
class Said:
    """An option and the engine's setting that it says.  value: what it sets, of an option that takes none."""

    option: str
    setting: str
    value: Any = None


SETTINGS = (  # read by `cli.options` from the left, by `again` from the right
    Said("max_num_seqs", "max_num_seqs"),
    Said("max_num_batched_tokens", "max_num_batched_tokens"),
    Said("gpu_memory_utilization", "memory_fraction"),
    Said("block_size", "block_size"),
    Said("max_cudagraph_capture_size", "capture"),
    Said("sampling", "sampling"),
    Said("enable_chunked_prefill", "chunk", 1),
    Said("no_enable_chunked_prefill", "chunk", 0),
    Said("enforce_eager", "pad", ()),
    Said("no_enable_prefix_caching", "reuse", 0),
)


def again(verb: str, inputs: Mapping[str, Any], defaults: Mapping[str, Any], **changes: Any) -> str:
    """The command line that asks the question of `inputs`, with changes; defaults are left out.  "" where it cannot be typed."""
    asked = {**inputs, **changes}
    model = shlex.quote(str(asked.pop("model", "")))
    told = {name: value for name, value in asked.items() if value != defaults.get(name)}
    words = options(told, last=[name for name in changes if name not in inputs])
    return "" if words is None else " ".join(["apexsim", verb, model, *words])


def options(asked: Mapping[str, Any], last: Sequence[str] = ()) -> list[str] | None:
    """The options of a question as words of a command line, engine settings in the engine's own; None where some cannot be typed.

    last: keywords that stand behind the settings."""
    asked = dict(asked)
    settings = dict(asked.pop("settings", None) or {})
    settings |= {said.setting: asked.pop(said.setting) for said in SETTINGS if said.setting in asked}  # a list's values stand beside
    own = flags_of(load_engine(str(asked.get("engine") or DEFAULT_ENGINE)).name)
    told = {
        name: _option(name, NAMES.get(name, _flag(name, own)), value)
        for name, value in asked.items()
        if value is not None and value is not False
    }
    said = [_setting(name, value, own) for name, value in settings.items() if value is not None]
    if None in said:
        return None
    first, then = ([words for name, words in told.items() if (name in last) is behind] for behind in (False, True))
    return [word for words in (*first, *(words or [] for words in said), *then) for word in words]


def _flag(name: str, own: Mapping[str, str]) -> str:
    """The engine's own word, else ours."""
    return own.get(name) or "--" + name.replace("_", "-")


def _setting(name: str, value: Any, own: Mapping[str, str]) -> list[str] | None:
    """The words that say a setting, None where no option does."""
    for said in SETTINGS:
        if said.setting == name and said.value is None:
            return _option(name, own.get(name) or our_flag(name), value)
        if said.setting == name and said.value == value:
            return [_flag(said.option, own)]
    return None


def _option(name: str, flag: str, value: Any) -> list[str]:
    if value is True:
        return [flag]
    values = value if isinstance(value, (list, tuple)) else (value,)
    texts = [_typed(name, each) for each in values]
    return [word for text in texts for word in (flag, shlex.quote(text))] if name in REPEATED else [flag, shlex.quote(",".join(texts))]


def _typed(name: str, value: Any) -> str:
    """A value as it reads back to the same, all digits of a number and no more; signs in their plain spelling."""
    if isinstance(value, float):
        short = f"{value:.12g}"
        return short if float(short) == value else repr(float(value))
    return PLAIN.get(name, str)(str(value))
