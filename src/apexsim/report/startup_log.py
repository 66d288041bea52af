"""Reads the memory lines of an engine's start-up log (floor 6).

Patterns follow the wording of vLLM 0.4-0.27, SGLang 0.4-0.5 and TensorRT-LLM; a log may hold lines of several ranks:
loaded and reserved memory is that of the fullest rank, what is left for the cache that of the tightest.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

from apexsim.errors import InputError
from apexsim.files import lines, lines_of

NUMBER = r"(-?[\d,]*\.?\d+)"
# line of the comparison -> (how ranks join, patterns: the first that occurs counts)
PATTERNS: dict[str, tuple[Callable[[list[float]], float], tuple[str, ...]]] = {
    "weights_gib": (max, (
        rf"weights memory: {NUMBER} ?GiB", rf"[Mm]odel loading took {NUMBER} Gi?B", rf"model weights take {NUMBER} ?GiB",
        rf"[Ll]oading model weights took {NUMBER} GB", rf"Load weight end\..*?mem usage={NUMBER} GB",
    )),
    "activation_gib": (max, (
        rf"torch peak memory increase: {NUMBER} ?GiB", rf"PyTorch activation peak memory takes {NUMBER} ?GiB",
    )),
    "non_torch_gib": (max, (
        rf"non-torch forward increase memory: {NUMBER} ?GiB", rf"non_torch_memory takes {NUMBER} ?GiB",
    )),
    "graph_gib": (max, (
        rf"Graph capturing finished in .*?took {NUMBER} GiB", rf"Estimated CUDA graph memory: {NUMBER} GiB",
        rf"Capture cuda graph end\..*?mem usage={NUMBER} GB",
    )),
    "kv_gib": (min, (
        rf"Available KV cache memory: {NUMBER} GiB", rf"reserved for KV Cache is {NUMBER} ?GiB", rf"\bKV size: {NUMBER} GB",
        rf"Allocated {NUMBER} GiB for max tokens in paged KV cache",
    )),
    "kv_tokens": (min, (
        rf"GPU KV cache size: {NUMBER} tokens", rf"max_total_num_tokens={NUMBER}", rf"KV Cache is allocated.*?#tokens: {NUMBER}",
        rf"max tokens in paged KV cache \({NUMBER}\)",
    )),
    "kv_blocks": (min, (rf"# (?:GPU|cuda|CUDA) blocks: {NUMBER}",)),
    "max_concurrency": (min, (rf"Maximum concurrency for [\d,]+ tokens per request: {NUMBER}x",)),
    "max_model_len": (max, (rf"Maximum concurrency for {NUMBER} tokens per request",)),
}  # fmt: skip
STATES = re.compile(r"G[i]?B|tokens|blocks|utilization|mem_fraction|usage")  # what every line that is read holds
LONGEST = 4096  # characters of a line that are looked at
MOST = 1e12  # no count or size of a log is larger
HALVES = re.compile(rf"K size: {NUMBER} GB, V size: {NUMBER} GB")  # SGLang states keys and values apart


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the comparison."""

    name: str
    logged: float
    predicted: float


def read_log(path: str) -> str:
    """The lines of a log that may state memory; "-" is standard input."""
    if path == "-" and sys.stdin is None:
        raise InputError("standard input is closed", "--log", "give a file, or pipe the log in")
    source = lines_of(sys.stdin.buffer, "log", "-", lenient=True) if path == "-" else lines(path, "log", lenient=True)
    return "".join(line[:LONGEST] for line in source if STATES.search(line[:LONGEST]))


def logged(text: str, where: str = "--log") -> dict[str, float]:
    """What the log states: name -> value; raises InputError where it states nothing."""
    found: dict[str, float] = {}
    for name, (join, patterns) in PATTERNS.items():
        for pattern in patterns:
            values = [value for v in re.findall(pattern, text) if (value := _value(v)) < MOST]
            if values:
                found[name] = join(values)
                break
    halves = [both for k, v in HALVES.findall(text) if (both := _value(k) + _value(v)) < MOST]
    if halves:
        found.setdefault("kv_gib", min(halves))
    if not found:
        raise InputError(
            "holds no memory line of a start-up log", where, "give the output of vllm serve, SGLang or trtllm-serve"
        )
    return found


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def compared(text: str, predicted: dict[str, float]) -> tuple[Line, ...]:
    """The log's lines beside the prediction's, in the order of the table; lines that only one has are left out."""
    stated = logged(text)
    return tuple(Line(name, value, predicted[name]) for name, value in stated.items() if name in predicted)
