"""Reads the memory lines of an engine's start-up log and holds a prediction against them (floor 6).

Patterns follow the wording of vLLM 0.4-0.30 (V0 and V1), SGLang 0.3-0.5 and TensorRT-LLM 0.17-1.3, read in their sources and
in published logs.  A log may hold lines of several ranks: loaded and reserved memory is that of the fullest rank, what is
left for the cache that of the tightest; where an engine also tells of a smaller, temporary or draft cache, the largest.
What a log says of its settings is in `log_settings`.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from apexsim.errors import InputError
from apexsim.files import lines, lines_of
from apexsim.units import GiB, MiB

NUMBER = r"(?<![\d,.])(-?[\d,]{0,24}\.?\d{1,24})"  # no longer: a row of a million digits is read in one go
VLLM, SGLANG, TRTLLM = "vllm", "sglang", "tensorrt-llm"
Join = Callable[[list[float]], float]


@dataclass(frozen=True, slots=True)
class Stated:
    """What a line of a log states: its name in the comparison, whose line it is, how ranks join, its wording with a blank for
    any white space (logs are pasted with their lines broken), and the unit over GiB, or 1 of a count."""

    name: str
    engine: str
    join: Join
    pattern: str
    unit: float = 1.0

    def values(self, text: str) -> list[float]:
        """Everything that a text states so; several numbers of one line are summed."""
        found = re.findall(spaced(self.pattern), text)
        sums = [sum(map(_value, v)) if isinstance(v, tuple) else _value(v) for v in found]
        return [value * self.unit for value in sums if value < MOST]


def spaced(pattern: str) -> str:
    """A pattern whose blanks match any white space, line breaks too."""
    return pattern.replace(" ?", r"\s*").replace(" ", r"\s+")


# of each name the first row that occurs counts
STATED = (
    Stated("weights_gib", VLLM, max, rf"weights memory: {NUMBER} ?GiB"),
    Stated("weights_gib", VLLM, max, rf"[Mm]odel loading took {NUMBER} Gi?B"),
    Stated("weights_gib", VLLM, max, rf"model weights take {NUMBER} ?GiB"),
    Stated("weights_gib", VLLM, max, rf"[Ll]oading model weights took {NUMBER} GB"),
    Stated("weights_gib", VLLM, max, rf"Actual usage is {NUMBER} GiB for weight"),
    Stated("weights_gib", SGLANG, max, rf"[Ll]oad weight end\..*?mem usage={NUMBER} GB"),
    Stated("weights_gib", TRTLLM, max, rf"after loading model weights \(inside torch\) in memory usage profiling: {NUMBER} GiB"),
    Stated("weights_gib", TRTLLM, max, rf"Loaded engine size: {NUMBER} MiB", MiB / GiB),
    Stated("consumed_gib", VLLM, max, rf"Actual usage is {NUMBER} GiB for consumed memory"),
    Stated("consumed_gib", VLLM, max, rf"total consumed \(from mem_get_info\): {NUMBER} ?GiB"),
    Stated("activation_gib", VLLM, max, rf"torch peak memory increase: {NUMBER} ?GiB"),
    Stated("activation_gib", VLLM, max, rf"PyTorch activation peak memory takes {NUMBER} ?GiB"),
    Stated("activation_gib", VLLM, max, rf"{NUMBER} GiB for peak activation"),
    Stated("activation_gib", TRTLLM, max, rf"during inference \(inside torch\) in memory usage profiling: {NUMBER} GiB"),
    Stated("non_torch_gib", VLLM, max, rf"non-torch forward increase memory: {NUMBER} ?GiB"),
    Stated("non_torch_gib", VLLM, max, rf"non_torch_memory takes {NUMBER} ?GiB"),
    Stated("non_torch_gib", VLLM, max, rf"non_torch_memory={NUMBER} ?GiB"),
    Stated("non_torch_gib", VLLM, max, rf"{NUMBER} GiB for non-torch memory"),
    Stated("graph_gib", VLLM, max, rf"Graph capturing finished in .*?took {NUMBER} GiB"),
    Stated("graph_gib", VLLM, max, rf"CUDA graph pool memory: {NUMBER} GiB \(actual\)"),
    Stated("graph_gib", VLLM, max, rf"{NUMBER} GiB for CUDAGraph memory"),
    Stated("graph_gib", VLLM, max, rf"Estimated CUDA graph memory: {NUMBER} GiB"),
    Stated("graph_gib", SGLANG, max, rf"Capture (?:cuda graph|target \w+ CUDA graph) end\..*?mem usage={NUMBER} GB"),
    Stated("kv_gib", VLLM, min, rf"Available KV cache memory: {NUMBER} GiB"),
    Stated("kv_gib", VLLM, min, rf"reserved for KV Cache is {NUMBER} ?GiB"),
    Stated("kv_gib", VLLM, min, rf"kv_cache_size={NUMBER} ?GiB"),
    Stated("kv_gib", VLLM, min, rf"reserved {NUMBER} GiB memory for KV Cache"),
    Stated("kv_gib", VLLM, min, rf"Current kv cache memory in use is {NUMBER} GiB"),
    Stated("kv_gib", VLLM, min, rf"available KV cache memory \({NUMBER} GiB\)"),
    Stated("kv_gib", VLLM, min, rf"Available memory: {NUMBER}, total memory: \d", 1 / GiB),  # on Ascend, in bytes
    Stated("kv_gib", SGLANG, min, rf"Post-capture KV sizing: .*?\bKV size: {NUMBER} GB"),
    Stated("kv_gib", SGLANG, min, rf"SWAKVPool mem usage: {NUMBER} GB"),
    Stated("kv_gib", SGLANG, max, rf"KV Cache is allocated\..*?\bKV size: {NUMBER} GB"),
    Stated("kv_gib", SGLANG, max, rf"\bK size: {NUMBER} GB, V size: {NUMBER} GB"),  # keys and values apart
    Stated("kv_gib", SGLANG, min, rf"rest_memory={NUMBER} GB"),
    Stated("kv_gib", SGLANG, min, rf"available_bytes={NUMBER} GB"),
    Stated("kv_gib", TRTLLM, max, rf"Allocated {NUMBER} GiB for max tokens"),
    Stated("kv_gib", TRTLLM, min, rf"Estimated max memory in KV cache ?: {NUMBER} GiB"),
    Stated("kv_gib", TRTLLM, min, rf"available KV cache memory when calculating max tokens: {NUMBER} GiB"),
    Stated("kv_tokens", VLLM, min, rf"\bKV cache size: {NUMBER} tokens"),
    Stated("kv_tokens", VLLM, min, rf"can be stored in KV cache \({NUMBER}\)"),
    Stated("kv_tokens", SGLANG, min, rf"max_total_num_tokens?={NUMBER}"),
    Stated("kv_tokens", SGLANG, max, rf"KV Cache is allocated\..*?#tokens: {NUMBER}"),
    Stated("kv_tokens", SGLANG, min, rf"\bfull_token={NUMBER}"),
    Stated("kv_tokens", TRTLLM, max, rf"GiB for max tokens(?: in paged KV cache)? \({NUMBER}\)"),
    Stated("state_gib", SGLANG, max, rf"conv_state size: {NUMBER} ?GB, ssm_state size: {NUMBER} ?GB"),
    Stated("kv_blocks", VLLM, min, rf"# (?!CPU)\w+ blocks: {NUMBER}"),
    Stated("max_concurrency", VLLM, min, rf"Maximum concurrency for [\d,]+ tokens per request: {NUMBER}x"),
    Stated("max_model_len", VLLM, max, rf"Maximum concurrency for {NUMBER} tokens per request"),
    Stated("max_model_len", SGLANG, max, rf"max_total_num_tokens?=.*?context_len={NUMBER}"),
    Stated("one_request_gib", VLLM, max, rf"{NUMBER} GiB KV cache is needed"),
    Stated("longest_request", VLLM, min, rf"estimated maximum model length is {NUMBER}"),
    Stated("gpu_memory_gib", VLLM, min, rf"Free memory on device (?:\S+ )?\([\d.]+/{NUMBER} GiB\)"),
    Stated("gpu_memory_gib", VLLM, min, rf"total_gpu_memory (?:= ?)?\({NUMBER} ?GiB\)"),
    Stated("gpu_memory_gib", VLLM, min, rf"total_gpu_memory={NUMBER} ?GiB"),
    Stated("gpu_memory_gib", VLLM, min, rf"Available memory: \d+, total memory: {NUMBER}", 1 / GiB),
    Stated("gpu_memory_gib", TRTLLM, min, rf"device total memory {NUMBER} GiB"),
    Stated("gpu_memory_gib", TRTLLM, min, rf"calculating max tokens in paged kv cache: total: {NUMBER} GiB"),
)  # fmt: skip

@dataclass(frozen=True, slots=True)
class Gap:
    """What older versions of SGLang leave to the reader: free memory before a step less that after it."""

    name: str
    before: str
    after: str


GAPS = (
    Gap("weights_gib", rf"[Ll]oad weight begin\..*?avail mem={NUMBER} GB", rf"[Ll]oad weight end\..*?avail mem={NUMBER} GB"),
    Gap("kv_gib", rf"[Ll]oad weight end\..*?avail mem={NUMBER} GB", rf"[Mm]emory pool end\..*?avail mem={NUMBER} GB"),
    Gap("graph_gib", rf"[Mm]emory pool end\..*?avail mem={NUMBER} GB", rf"Capture cuda graph end\..*?avail mem={NUMBER} GB"),
)
ANCHOR = re.compile(
    r"G[i]?B|MiB|total memory|full_token|KV [Cc]ache|kv cache|max_total_num_token|blocks: |Maximum concurrency|maximum model length|"
    r"utilization|fraction|"
    r"[Ss]erver_?[Aa]rgs|engine \(v|args: |args=|[Vv]ersion|vLLM|TensorRT|TRT-LLM|max_num|max_seq|max_model|max-model|model len|--\w"
)  # what every line holds that is read, here or in `log_settings`
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
LONGEST = 16384  # characters of a line that are looked at: an engine prints all its arguments in one
HEAD = 1 << 20  # characters that are looked at whole: lines may be broken anywhere
MOST = 1e12  # no count or size of a log is larger
SIGNS = {VLLM: "'Model loading took', 'Available KV cache memory', 'Actual usage is'", SGLANG: "'Load weight end', 'KV Cache is allocated'",
         TRTLLM: "'Allocated … for max tokens in paged KV cache'"}  # fmt: skip
NAMES = {VLLM: "vLLM", SGLANG: "SGLang", TRTLLM: "TensorRT-LLM"}
# what a complete log of an engine states, of what is compared: what is not there is said
WHOLE = {
    VLLM: ("weights_gib", "activation_gib", "graph_gib", "kv_gib", "kv_tokens", "max_concurrency"),
    SGLANG: ("weights_gib", "graph_gib", "kv_gib", "kv_tokens", "max_model_len"),
    TRTLLM: ("weights_gib", "activation_gib", "kv_gib", "kv_tokens"),
}
NAMED = tuple(dict.fromkeys(row.name for row in STATED))  # in the order of the comparison
INSTEAD = {"weights_gib": "consumed_gib", "kv_tokens": "kv_blocks"}  # told by some versions in the place of
REMARKS = (
    (r"as specified by kv_cache_memory_bytes config", "its cache was set in bytes, so that the fraction did not count"),
    (r"[Oo]verriding num_gpu_blocks", "its blocks were set by hand (--num-gpu-blocks-override)"),
    (r"max_total_tokens(?:'|\"|)[=:] ?\d", "its tokens were limited by hand (--max-total-tokens)"),
    (r"enable_lora(?:'|\"|)[=:] ?True|--enable-lora", "it has room for LoRA adapters, which are not counted here"),
    (r"SpeculativeConfig\(|speculative_algorithm(?:'|\"|)[=:] ?['\"]\w|--speculative", "it speculates: a draft may lie beside"),
    (r"kv_connector|--kv-transfer-config|--enable-hierarchical-cache", "a connector of its cache may hold memory"),
    (r"cpu_offload_gb(?:'|\"|)[=:] ?[1-9]|--cpu-offload-gb", "a part of its weights is in the host's memory"),
)  # what explains a difference
FAILURES = (
    r"To serve at least one request with the models?'s? ?(?:'s)? ?max seq len", r"No available memory for the cache blocks",
    r"is larger than the maximum number of tokens that can be stored in KV cache",
    r"on startup is less than desired GPU memory utilization", r"(?:CUDA|HIP) out of memory", r"Not enough memory",
)  # fmt: skip # of a start for want of memory


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the comparison."""

    name: str
    logged: float
    predicted: float


def read_log(path: str) -> str:
    """The beginning of a log, where the start is, and of the rest the lines that may state memory or settings, each with the next
    one, onto which it may have been broken; "-" is standard input."""
    if path == "-" and sys.stdin is None:
        raise InputError("standard input is closed", "--log", "give a file, or pipe the log in")
    source = lines_of(sys.stdin.buffer, "log", "-", lenient=True) if path == "-" else lines(path, "log", lenient=True)
    kept, seen, follows = [], 0, False
    for line in source:
        plain = ANSI.sub("", line[:LONGEST])
        here = bool(ANCHOR.search(plain))
        if here or follows or seen < HEAD:
            kept.append(plain if plain.endswith("\n") else plain + "\n")
        seen, follows = seen + len(plain), here
    return "".join(kept)


def stated(text: str) -> tuple[tuple[Stated, float], ...]:
    """What the log states: of each name the first wording that occurs, with its value."""
    found: dict[str, tuple[Stated, float]] = {}
    for row in STATED:
        values = [] if row.name in found else row.values(text)
        if values:
            found[row.name] = (row, row.join(values))
    for gap in GAPS:
        ends = [re.search(spaced(pattern), text) for pattern in (gap.before, gap.after)]
        if gap.name not in found and ends[0] and ends[1]:
            row = Stated(gap.name, SGLANG, max, gap.after)
            found[gap.name] = row, _value(ends[0][1]) - _value(ends[1][1])
    return tuple(found[name] for name in sorted(found, key=NAMED.index))


def logged(text: str, where: str = "--log") -> dict[str, float]:
    """What the log states: name -> value; raises InputError where it states nothing."""
    found = {row.name: value for row, value in stated(text)}
    if not found:
        signs = "; ".join(f"{NAMES[engine]}: {words}" for engine, words in SIGNS.items())
        raise InputError("holds no memory line of a start-up log", where, f"give the server's output from its start on ({signs})")
    return found


def engine_of_log(text: str) -> str:
    """The engine whose wording most lines have; "" where there is none."""
    counts = Counter(row.engine for row, _ in stated(text))
    return counts.most_common(1)[0][0] if counts else ""


def missing(text: str) -> tuple[str, ...]:
    """Lines of a complete log that this one does not hold."""
    there = {row.name for row, _ in stated(text)}
    instead = {name for name, other in INSTEAD.items() if other in there}
    return tuple(name for name in WHOLE.get(engine_of_log(text), ()) if name not in there | instead)


def failure(text: str) -> str:
    """What the engine said when it did not start for want of memory, cut to a line; "" where it did not."""
    for pattern in FAILURES:
        found = re.search(spaced(pattern) + r"[^\n]*", text)
        if found:
            return " ".join(found[0].split())[:160]
    return ""


def remarks(text: str) -> tuple[str, ...]:
    """What in the log explains that memory is used otherwise than is predicted."""
    return tuple(words for pattern, words in REMARKS if re.search(spaced(pattern), text))


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def compared(text: str, predicted: dict[str, float]) -> tuple[Line, ...]:
    """The log's lines beside the prediction's, in the order of the table; lines that only one has are left out."""
    found = logged(text)
    return tuple(Line(name, value, predicted[name]) for name, value in found.items() if name in predicted)
