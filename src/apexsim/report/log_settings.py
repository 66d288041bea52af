"""Reads from a start-up log what the server was started with (floor 6).

A statement of the engine about what it uses comes before its list of arguments, and that before a command line: of each
setting the first wording that occurs counts.  Values are in our words; what is unknown there says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from apexsim.engine_file import order
from apexsim.engines import engine_facts
from apexsim.errors import InputError
from apexsim.model.dtypes import dtype
from apexsim.report.startup_log import engine_of_log, spaced

FLOAT, COUNT, WORD = r"(\d*\.\d+|[01])", r"(\d[\d,]{0,24})\b(?!\.)", r"([A-Za-z][\w.]*)"
VERSION = r"(\d{1,9}(?:\.\d{1,9}){1,4})(?!\.?\d)"
RELEASE = r"(\d{1,9}\.\d{1,9}\.\d{1,9})(?!\d)"  # where a word before it is common


@dataclass(frozen=True, slots=True)
class LogSetting:
    """One setting of `fit` as a log has it, and as it is used."""

    name: str
    logged: Any
    used: Any = None
    taken: bool = False  # from the log, since it was not given

    @property
    def flag(self) -> str:
        """Our option."""
        return "--engine" if self.name == "version" else "--" + self.name.replace("_", "-")

    @property
    def differs(self) -> bool:
        """Whether what is used is something else."""
        return bool(self.used != self.logged)


def _of(key: str, value: str) -> tuple[str, ...]:
    """The wordings of one argument: 'key': value, key=value, --key value."""
    name = key.replace("_", "[-_]")
    return (rf"['\"]{name}['\"]: ?['\"]?{value}", rf"(?<![-\w]){name}=['\"]?{value}", rf"--{name}(?:=| ){value}")


def _all(keys: Iterable[str], value: str) -> tuple[str, ...]:
    """Those of several keys, each wording of all keys before the next one."""
    each = [_of(key, value) for key in keys]
    return tuple(pattern for wording in zip(*each, strict=True) for pattern in wording)


FRACTIONS = ("gpu_memory_utilization", "mem_fraction_static", "kv_cache_free_gpu_memory_fraction", "free_gpu_memory_fraction")
PATTERNS: Mapping[str, tuple[str, ...]] = {
    "version": (
        rf"LLM engine \(v{VERSION}", rf"vLLM API server version v?{VERSION}", rf"TensorRT-LLM version: {VERSION}",
        rf"sglang(?: version)?[ =:v]+{RELEASE}", rf"\bversion v?{RELEASE}", rf"vLLM v?{RELEASE}",
    ),
    "gpu_memory_utilization": (
        rf"Desired GPU memory utilization is \({FLOAT},", rf"less than desired GPU memory utilization \({FLOAT},",
        rf"gpu_memory_utilization \({FLOAT}\)", rf"fraction is set {FLOAT}", rf"Requested memory: {FLOAT} \(util\)",
        rf"The current --gpu-memory-utilization={FLOAT}", *_all(FRACTIONS, FLOAT),
    ),
    "max_model_len": (
        rf"Maximum concurrency for {COUNT} tokens", rf"models?'s? ?(?:'s ?)?max seq len \({COUNT}\)", rf"[Uu]sing max model len {COUNT}",
        *_all(("max_seq_len", "context_len"), COUNT), *_all(("max_model_len", "context_length"), COUNT),
    ),
    "max_num_seqs": _all(("max_num_seqs", "max_running_requests", "max_num_requests", "max_batch_size"), COUNT),
    "max_num_batched_tokens": (
        rf"Chunked prefill is enabled with max_num_batched_tokens={COUNT}",
        *_all(("max_num_batched_tokens", "chunked_prefill_size", "max_num_tokens"), COUNT),
    ),
    "kv_dtype": (
        rf"[Uu]sing KV cache dtype: {WORD}", rf"KV Cache is allocated\. dtype: {WORD}", rf"Using {WORD} data type to store kv cache",
        *_of("kv_cache_dtype", WORD),
    ),
    "tp": _all(("tensor_parallel_size", "tp_size"), COUNT) + _of("tp", COUNT)[2:],
    "pp": _all(("pipeline_parallel_size", "pp_size"), COUNT) + _of("pp", COUNT)[2:],
    "enforce_eager": (
        r"['\"]enforce_eager['\"]: ?(True|False)", r"(?<![-\w])enforce_eager=(True|False)",
        r"['\"]?disable_cuda_graph['\"]?[=:] ?(True|False)",
        r"(?<!no)--(enforce-eager|disable-cuda-graph)\b",
    ),
}  # fmt: skip


def _count(text: str) -> int:
    return int(text.replace(",", ""))


def _format(text: str) -> str | None:
    """A format in our words, "auto" for the checkpoint's own; None where it is none."""
    plain = text.removeprefix("torch.").lower()
    if plain == "auto":
        return plain
    try:
        return dtype("fp8" if plain.startswith(("fp8", "float8")) else plain).name
    except InputError:
        return None


READ: Mapping[str, Callable[[str], Any]] = {
    "version": str, "gpu_memory_utilization": float, "kv_dtype": _format, "enforce_eager": lambda text: text != "False",
}  # fmt: skip
MOST = {int: 1 << 30, float: 1.0}  # of a count, of a fraction


def settings(text: str) -> dict[str, Any]:
    """What a log says of its settings: name of our option -> value; `engine` and `version` too, where they are told."""
    engine = engine_of_log(text)
    found: dict[str, Any] = {"engine": engine}
    for name, patterns in PATTERNS.items():
        for pattern in (*patterns, *_own(name, engine)):
            match = re.search(spaced(pattern), text)
            value = READ.get(name, _count)(match[1]) if match else None
            if value is not None and (isinstance(value, (str, bool)) or 0 < value <= MOST[type(value)]):
                found[name] = value
                break
    return {name: value for name, value in found.items() if value}


OWN = {
    "gpu_memory_utilization": ("memory", FLOAT), "max_model_len": ("length", COUNT), "max_num_seqs": ("sequences", COUNT),
    "max_num_batched_tokens": ("tokens", COUNT), "kv_dtype": ("kv", WORD), "tp": ("tensor", COUNT), "pp": ("stages", COUNT),
}  # fmt: skip # setting -> its meaning among an engine's words, and its value


def _own(name: str, engine: str) -> Iterator[str]:
    """The wordings of a setting in the words of the log's engine, which may be one of the user's own."""
    means, value = OWN.get(name, ("", ""))
    for word in engine_facts(engine).words if engine and means else ():
        if word.means == means and word.flag.startswith("--"):
            yield from _of(word.flag.removeprefix("--").replace("-", "_"), value)


def spec(found: Mapping[str, Any]) -> str:
    """The engine of a log as --engine names it: vllm@0.19.0, vllm, or ""."""
    name, version = found.get("engine", ""), found.get("version", "")
    return f"{name}@{'.'.join(map(str, order(version)))}" if name and version else str(name)
