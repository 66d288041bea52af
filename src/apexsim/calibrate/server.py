"""What a result file says of the server that was measured: settings, formats, release (floor 5).

| file | where it stands |
|---|---|
| vLLM's sweeps | flags of the server beside the results, as the user spelled them |
| SGLang's bench_serving | `server_info`: arguments as they were resolved, and the release |
| InferenceX | the image's tag |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apexsim.calibrate.cells import Bad, Fields
from apexsim.engine_file import order
from apexsim.engines import server_named
from apexsim.errors import InputError
from apexsim.hardware import counted, load_gpu

DRAFTS = "speculative decoding is not modelled"
MOST = 1 << 20  # tokens or sequences of a setting
UNSAID = (None, "", "auto", "none", "None", "null")  # values that leave a setting to the engine


@dataclass(frozen=True, slots=True)
class ServerSaid:
    """settings: of the engine, by the names of `engines.override`; question: keywords of `api.ask` that the server's flags stand for;
    engine, release, precision: "" where the file does not say; precision is a label of the checkpoint's formats."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    question: Mapping[str, Any] = field(default_factory=dict)
    engine: str = ""
    release: str = ""
    precision: str = ""


def _count(value: Any) -> int | None:
    """A whole number from 1 to MOST; None where there is none (-1 and 0 leave a setting to the engine)."""
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 1 <= value <= MOST else None


def _share(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1 else None


def _said(value: Any) -> str | None:
    return value if isinstance(value, str) and value not in UNSAID else None


def _eager(value: Any) -> tuple[int, ...] | None:
    return () if str(value).lower() in ("true", "1") else None


Table = Mapping[str, tuple[str, Callable[[Any], Any]]]
VLLM: Table = {  # flag -> setting, and how its value is read
    "max_num_seqs": ("max_num_seqs", _count), "max_num_batched_tokens": ("max_num_batched_tokens", _count),
    "gpu_memory_utilization": ("memory_fraction", _share), "block_size": ("block_size", _count), "enforce_eager": ("pad", _eager),
    "max_cudagraph_capture_size": ("capture", _count),
}  # fmt: skip
SGLANG: Table = {
    "max_running_requests": ("max_num_seqs", _count), "chunked_prefill_size": ("max_num_batched_tokens", _count),
    "mem_fraction_static": ("memory_fraction", _share), "max_prefill_tokens": ("prefill_limit", _count),
    "disable_cuda_graph": ("pad", _eager), "cuda_graph_max_bs": ("capture", _count),
    "scheduler_recv_interval": ("poll_interval", _count),
}  # fmt: skip
ASKED: Table = {"max_model_len": ("max_model_len", _count), "context_length": ("max_model_len", _count),
                "kv_cache_dtype": ("kv_dtype", _said)}  # fmt: skip


def flags(value: Mapping[str, Any]) -> dict[str, Any]:
    """Flags by their names with underscores, however they are spelled: "--max-num-seqs" is max_num_seqs."""
    return {key.lstrip("-").replace("-", "_"): each for key, each in value.items() if isinstance(key, str)}


def _taken(table: Table, given: Mapping[str, Any]) -> dict[str, Any]:
    read = {ours: how(given[name]) for name, (ours, how) in table.items() if given.get(name) is not None}
    return {ours: value for ours, value in read.items() if value is not None}


def of_vllm(doc: Fields) -> ServerSaid:
    """The flags beside the results of a sweep; raises Bad where drafts were verified."""
    given = flags(doc.value)
    if given.get("speculative_config") not in UNSAID:
        raise Bad(DRAFTS)
    return ServerSaid(_taken(VLLM, given), _taken(ASKED, given))


def of_sglang(info: Fields, lanes: int) -> ServerSaid:
    """The server's own account; lanes of attention share its seats.  Raises Bad where it drafts or computes no whole answers."""
    if info.value.get("speculative_algorithm") not in UNSAID:
        raise Bad(DRAFTS)
    if info.value.get("disaggregation_mode") not in UNSAID:
        raise Bad("prefill and decode were apart")
    settings = _taken(SGLANG, info.value)
    if "max_num_seqs" in settings:
        settings["max_num_seqs"] = max(1, settings["max_num_seqs"] // lanes)
    return ServerSaid(settings, _taken(ASKED, info.value), "sglang", released(info.text("version")))


TAG = re.compile(r":v?(\d+\.\d+(?:\.\d+)?(?:rc\d+)?(?:\.post\d+)?)(?![\d.])")


def of_image(framework: str, image: str, precision: str) -> ServerSaid:
    """What an InferenceX row says: its framework under the engine's name, the release in the image's tag."""
    parts = (framework, *re.split(r"[-_]", framework))
    engine = next(filter(None, (server_named(SHORT.get(part, part)) for part in parts)), framework)
    tag = TAG.search(image)
    return ServerSaid({}, {}, engine, tag[1] if tag else "", precision)


SHORT = {"trt": "trtllm"}


def released(text: str) -> str:
    """A version that can be compared; "" for builds that have none."""
    found = re.match(r"v?(\d+\.\d+(?:\.\d+)?(?:rc\d+)?(?:\.post\d+)?)", text.strip())
    return found[1] if found else ""


def same_release(one: str, other: str) -> bool:
    """Whether two versions are one release: candidates and post-releases count as it."""
    try:
        return order(one) == order(other)
    except InputError:
        return False


def same_gpu(told: str, asked: str) -> bool:
    """Whether a GPU that a file names ("h200", "b200-nv") is the one that was asked for."""
    name = counted(asked)[0]
    own, wanted = _catalogued(told), _catalogued(name)
    if own and wanted:
        return own == wanted or wanted.startswith(f"{told.lower()}-")
    return re.search(rf"(?<![a-z0-9]){re.escape(told.lower())}(?![0-9])", name.lower()) is not None


def _catalogued(name: str) -> str:
    try:
        return load_gpu(name).name
    except InputError:
        return ""
