"""Start-up logs of every engine and release: what they state, what the server was started with, and what they lack.

Wordings as in the sources of vLLM (worker.py, gpu_worker.py, gpu_model_runner.py, kv_cache_utils.py, llm_engine.py, core.py), SGLang
(model_runner.py, memory_pool.py, scheduler.py) and TensorRT-LLM (py_executor _util.py, kvCacheManager.cpp); all figures are made up.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from apexsim.cli import main
from apexsim.errors import InputError
from apexsim.hardware import cluster_of
from apexsim.model.families import load_model
from apexsim.plan.choose import engine_of, precision_of
from apexsim.plan.fit import Widths, fit
from apexsim.report.against import asked_as, predictions
from apexsim.report.log_settings import PATTERNS, settings, spec
from apexsim.report.startup_log import engine_of_log, failure, gaps, logged, missing, read_log, remarks, stated_rows

LOG = str(Path(__file__).parent.parent / "examples/qwen3-8b-startup.log")
V062 = """\
INFO 10-01 10:00:00 llm_engine.py:223] Initializing an LLM engine (v0.6.2) with config: model='m', dtype=torch.bfloat16, \
max_seq_len=4096, tensor_parallel_size=2, pipeline_parallel_size=1, quantization=None, enforce_eager=False, kv_cache_dtype=auto
INFO 10-01 10:00:09 model_runner.py:1025] Loading model weights took 7.7093 GB
INFO 10-01 10:00:12 gpu_executor.py:122] # GPU blocks: 10845, # CPU blocks: 2048
"""
V064 = """\
INFO 12-25 14:00:09 model_runner.py:1094] Loading model weights took 67.6979 GB
INFO 12-25 14:00:28 worker.py:265] Memory profiling results: duration=18.41 seconds, total_gpu_memory=191.98GiB, \
initial_memory_usage=71.40GiB, peak_torch_memory=86.79GiB, non_torch_memory=6.07GiB, kv_cache_size=95.28GiB, gpu_memory_utilization=0.98.
INFO 12-25 14:00:28 gpu_executor.py:76] # GPU blocks: 19513, # CPU blocks: 819
INFO 12-25 14:00:28 gpu_executor.py:80] Maximum concurrency for 32768 tokens per request: 9.53x
"""
V07 = """\
INFO worker.py:267] Memory profiling takes 0.75 seconds
INFO worker.py:267] the current vLLM instance can use total_gpu_memory (39.56GiB) x gpu_memory_utilization (0.90) = 35.60GiB
INFO worker.py:267] model weights take 7.17GiB; non_torch_memory takes 0.01GiB; PyTorch activation peak memory takes 1.83GiB; the rest of \
the memory reserved for KV Cache is 26.60GiB.
INFO executor_base.py:111] # cuda blocks: 13618, # CPU blocks: 2048
"""
V010 = """\
(APIServer pid=1) INFO [utils.py:326] non-default args: {'model': 'm', 'max_model_len': 32768, 'gpu_memory_utilization': 0.85, \
'tensor_parallel_size': 2, 'kv_cache_dtype': 'fp8', 'max_num_seqs': 128, 'max_num_batched_tokens': 4096, 'enforce_eager': True}
(EngineCore_0 pid=2) INFO [core.py:70] Initializing a V1 LLM engine (v0.10.1.1) with config: model='m', speculative_config=None, \
max_seq_len=32768, tensor_parallel_size=2, kv_cache_dtype=fp8, enforce_eager=True
(EngineCore_0 pid=2) INFO [gpu_model_runner.py:2007] Model loading took 14.2717 GiB and 3.2 seconds
(EngineCore_0 pid=2) DEBUG [gpu_worker.py:270] Total non KV cache memory: 16.0GiB; torch peak memory increase: 1.21GiB; non-torch \
forward increase memory: 0.13GiB; weights memory: 14.27GiB.
(EngineCore_0 pid=2) INFO [gpu_worker.py:276] Available KV cache memory: 55.10 GiB
(EngineCore_0 pid=2) INFO [kv_cache_utils.py:849] GPU KV cache size: 802,480 tokens
(EngineCore_0 pid=2) INFO [kv_cache_utils.py:853] Maximum concurrency for 32,768 tokens per request: 24.49x
(EngineCore_0 pid=2) INFO [gpu_model_runner.py:2700] Graph capturing finished in 20 secs, took 0.51 GiB
"""
V011 = """\
INFO [gpu_worker.py:400] Free memory on device (78.6/79.19 GiB) on startup. Desired GPU memory utilization is (0.9, 71.27 GiB). Actual \
usage is 14.99 GiB for weight, 1.21 GiB for peak activation, 0.13 GiB for non-torch memory, and 0.62 GiB for CUDAGraph memory. Replace \
gpu_memory_utilization config with `--kv-cache-memory=57000000000` to fit into requested memory, or `--kv-cache-memory=64000000000` to \
fully utilize gpu memory. Current kv cache memory in use is 54.9 GiB.
"""
V021 = """\
(Worker_TP0 pid=5) INFO [gpu_worker.py:716] CUDA graph memory profiling is enabled (default since v0.21.0). The current \
--gpu-memory-utilization=0.9700 is equivalent to --gpu-memory-utilization=0.9574 without CUDA graph memory profiling. To maintain the \
same effective KV cache size as before, increase --gpu-memory-utilization to 0.9826.
(Worker_TP0 pid=5) INFO [gpu_worker.py:872] CUDA graph pool memory: 0.49 GiB (actual), 0.4 GiB (estimated), difference: 0.09 GiB (18.6%).
(Worker_TP0 pid=5) INFO [mem_utils.py:363] total consumed (from mem_get_info): 24.58GiB
(Worker_TP0 pid=5) INFO [gpu_worker.py:935] Free memory on device cuda:0 (31.23/31.86 GiB) on startup. Desired GPU memory utilization is \
(0.97, 30.9 GiB). Actual usage is 24.58 GiB for consumed memory (weights + non-torch), 1.46 GiB for peak activation, and 0.49 GiB for \
CUDAGraph memory. Current kv cache memory in use is 4.37 GiB.
(EngineCore pid=3) INFO [kv_cache_utils.py:2393] GPU KV cache size: 651,081 tokens, \
Maximum concurrency for 262,144 tokens per request: 2.48x
"""
RESERVED = """\
INFO [gpu_worker.py:459] Initial free memory 99.75 GiB, reserved 8.0 GiB memory for KV Cache as specified by kv_cache_memory_bytes config \
and skipped memory profiling. This does not respect the gpu_memory_utilization config.
INFO [gpu_worker.py:500] Estimated CUDA graph memory: 1.59 GiB total
"""
FAILED = """\
ValueError: To serve at least one request with the models's max seq len (40960), (10.00 GiB KV cache is needed, which is larger than the \
available KV cache memory (1.25 GiB)). Based on the available memory, the estimated maximum model length is 5120. Try increasing \
`gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.
"""
FAILED_V0 = """\
ValueError: The model's max seq len (131072) is larger than the maximum number of tokens that can be stored in KV cache (41152). Try
"""
SGLANG03 = """\
[gpu=0] Load weight begin. avail mem=78.50 GB
[gpu=0] Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=63.48 GB
[gpu=0] Memory pool end. avail mem=8.30 GB
[gpu=0] Capture cuda graph end. Time elapsed: 7.00 s. avail mem=7.40 GB
[gpu=0] max_total_num_token=442750, max_prefill_tokens=16384, context_len=8192
"""
SGLANG05 = """\
[2026-05-15 08:39:19] server_args=ServerArgs(model_path='m', context_length=None, quantization=None, kv_cache_dtype='fp8_e4m3', \
mem_fraction_static=0.908, max_running_requests=None, max_total_tokens=None, chunked_prefill_size=8192, tp_size=8, pp_size=1, \
speculative_algorithm=None, disable_cuda_graph=False)
[2026-05-15 08:39:30 TP0] Load weight end. elapsed=1.0 s, type=Q, avail mem=60.00 GB, mem usage=15.11 GB.
[2026-05-15 08:39:31 TP0] Mamba Cache is allocated. max_mamba_cache_size: 22, conv_state size: 0.06GB, ssm_state size: 3.23GB
[2026-05-15 08:39:31 TP0] KV Cache is allocated. dtype: torch.float8_e4m3fn, #tokens: 442750, K size: 27.02 GB, V size: 27.02 GB
[2026-05-15 08:39:40 TP0] Capture cuda graph end. Time elapsed: 7.23 s. mem usage=0.93 GB. avail mem=0.53 GB.
[2026-05-15 08:39:41 TP0] max_total_num_tokens=442750, chunked_prefill_size=8192, max_prefill_tokens=16384, max_running_requests=2048, \
context_len=131072, available_gpu_mem=0.53 GB
"""
SGLANG_DRAFT = """\
server_args={'model_path': 'm', 'tp_size': 4, 'mem_fraction_static': 0.83, 'kv_cache_dtype': 'auto', 'speculative_algorithm': 'EAGLE'}
Load weight end. elapsed=787.55 s, type=Q, quant=modelopt_fp4, avail mem=29.01 GB, mem usage=82.97 GB.
Load weight end. elapsed=94.49 s, type=QMTP, quant=modelopt_fp4, avail mem=30.67 GB, mem usage=-1.86 GB.
KV Cache is allocated. dtype: torch.bfloat16, #tokens: 500000, KV size: 20.00 GB
KV Cache is allocated. dtype: torch.bfloat16, #tokens: 500000, KV size: 0.50 GB
Capture target decode CUDA graph end. elapsed=16.40 s, mem usage=1.22 GB, avail mem=5.00 GB.
"""
SGLANG_SIZED = """\
Memory profiling: available_gpu_memory=57.01 GB, total_gpu_memory=93.58 GB, mem_fraction_static=0.60, rest_memory=19.58 GB
DSv4 memory calculation: bytes_per_full_token=15955.85, available_bytes=19.58 GB, full_token=1317632
"""
TRT = """\
[TensorRT-LLM] TensorRT-LLM version: 1.2.0
[TRT-LLM] [I] Memory used after loading model weights (inside torch) in memory usage profiling: 63.52 GiB
[TRT-LLM] [I] Memory dynamically allocated during inference (inside torch) in memory usage profiling: 0.85 GiB
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.52 GiB for max tokens in paged KV cache (8256).
[TRT-LLM] [I] Peak memory during memory usage profiling (torch + non-torch): 91.46 GiB, available KV cache memory when calculating max \
tokens: 41.11 GiB, fraction is set 0.85, kv size is 35136. device total memory 139.81 GiB, , tmp kv_mem 0.52 GiB
[TRT-LLM] [I] Estimated max memory in KV cache : 41.11 GiB
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 41.11 GiB for max tokens in paged KV cache (524288).
[TRT-LLM] [I] max_seq_len=131072, max_num_requests=2048, max_num_tokens=8192
"""
TRT_ENGINE = """\
[TensorRT-LLM][INFO] Loaded engine size: 15360 MiB
[TensorRT-LLM][INFO] Memory usage when calculating max tokens in paged kv cache: total: 79.11 GiB, available: 61.94 GiB
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 55.74 GiB for max tokens in paged KV cache (456704).
"""
CASES = {
    "vllm 0.6.2": (V062, {"weights_gib": 7.7093, "kv_blocks": 10845},
                   {"engine": "vllm", "version": "0.6.2", "max_model_len": 4096, "kv_dtype": "auto", "tp": 2, "pp": 1}),
    "vllm 0.6.4": (V064, {"weights_gib": 67.6979, "non_torch_gib": 6.07, "kv_gib": 95.28, "kv_blocks": 19513, "max_concurrency": 9.53,
                          "max_model_len": 32768, "gpu_memory_gib": 191.98},
                   {"engine": "vllm", "gpu_memory_utilization": 0.98, "max_model_len": 32768}),
    "vllm 0.7": (V07, {"weights_gib": 7.17, "activation_gib": 1.83, "non_torch_gib": 0.01, "kv_gib": 26.6, "kv_blocks": 13618,
                       "gpu_memory_gib": 39.56}, {"engine": "vllm", "gpu_memory_utilization": 0.9}),
    "vllm 0.10": (V010, {"weights_gib": 14.27, "activation_gib": 1.21, "non_torch_gib": 0.13, "graph_gib": 0.51, "kv_gib": 55.1,
                         "kv_tokens": 802480, "max_concurrency": 24.49, "max_model_len": 32768},
                  {"engine": "vllm", "version": "0.10.1.1", "gpu_memory_utilization": 0.85, "max_model_len": 32768, "max_num_seqs": 128,
                   "max_num_batched_tokens": 4096, "kv_dtype": "fp8", "tp": 2, "enforce_eager": True}),
    "vllm 0.11": (V011, {"weights_gib": 14.99, "activation_gib": 1.21, "non_torch_gib": 0.13, "graph_gib": 0.62, "kv_gib": 54.9,
                         "gpu_memory_gib": 79.19}, {"engine": "vllm", "gpu_memory_utilization": 0.9}),
    "vllm 0.21": (V021, {"consumed_gib": 24.58, "activation_gib": 1.46, "graph_gib": 0.49, "kv_gib": 4.37, "kv_tokens": 651081,
                         "max_concurrency": 2.48, "max_model_len": 262144, "gpu_memory_gib": 31.86},
                  {"engine": "vllm", "gpu_memory_utilization": 0.97, "max_model_len": 262144}),
    "vllm in bytes": (RESERVED, {"graph_gib": 1.59, "kv_gib": 8.0}, {"engine": "vllm"}),
    "vllm failed": (FAILED, {"kv_gib": 1.25, "one_request_gib": 10.0, "longest_request": 5120}, {"engine": "vllm", "max_model_len": 40960}),
    "vllm failed V0": (FAILED_V0, {"kv_tokens": 41152}, {"engine": "vllm", "max_model_len": 131072}),
    "sglang 0.3": (SGLANG03, {"weights_gib": 15.02, "graph_gib": 0.9, "kv_gib": 55.18, "kv_tokens": 442750, "max_model_len": 8192},
                   {"engine": "sglang", "max_model_len": 8192}),
    "sglang 0.5": (SGLANG05, {"weights_gib": 15.11, "graph_gib": 0.93, "kv_gib": 54.04, "kv_tokens": 442750, "state_gib": 3.29,
                              "max_model_len": 131072},
                   {"engine": "sglang", "gpu_memory_utilization": 0.908, "max_model_len": 131072, "max_num_seqs": 2048,
                    "max_num_batched_tokens": 8192, "kv_dtype": "fp8", "tp": 8, "pp": 1}),
    "sglang with a draft": (SGLANG_DRAFT, {"weights_gib": 82.97, "graph_gib": 1.22, "kv_gib": 20.0, "kv_tokens": 500000},
                            {"engine": "sglang", "gpu_memory_utilization": 0.83, "kv_dtype": "bf16", "tp": 4}),
    "sglang sized": (SGLANG_SIZED, {"kv_gib": 19.58, "kv_tokens": 1317632}, {"engine": "sglang", "gpu_memory_utilization": 0.6}),
    "tensorrt-llm": (TRT, {"weights_gib": 63.52, "activation_gib": 0.85, "kv_gib": 41.11, "kv_tokens": 524288, "gpu_memory_gib": 139.81},
                     {"engine": "tensorrt-llm", "version": "1.2.0", "gpu_memory_utilization": 0.85, "max_model_len": 131072,
                      "max_num_seqs": 2048, "max_num_batched_tokens": 8192}),
    "tensorrt-llm engine": (TRT_ENGINE, {"weights_gib": 15.0, "kv_gib": 55.74, "kv_tokens": 456704, "gpu_memory_gib": 79.11},
                            {"engine": "tensorrt-llm"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_a_log_states_and_was_started_with(case: str) -> None:
    text, values, told = CASES[case]
    assert logged(text) == pytest.approx(values) and settings(text) == told and spec(told).startswith(engine_of_log(text))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("change", ["prefixed", "coloured", "broken", "twice", "amid others"])
def test_how_a_log_was_kept_changes_nothing(case: str, change: str, tmp_path: Path) -> None:
    """Prefixes of containers, colours, lines broken by a terminal, several ranks, and a log that goes on for a day."""
    text, values, told = CASES[case]
    rows = text.splitlines()
    rng = random.Random(case)
    made = {
        "prefixed": "\n".join(f"vllm-1  | 2026-01-01T00:00:00Z stdout F {row}" for row in rows),
        "coloured": "\n".join(f"\x1b[1;36m(EngineCore pid=7)\x1b[0;0m \x1b[32m{row}\x1b[0m" for row in rows),
        "broken": "".join("\n" if c == " " and rng.random() < 0.1 and not _unbreakable(text, i) else c for i, c in enumerate(text)),
        "twice": text + text,
        "amid others": "\n".join(["Loading safetensors"] * 50 + rows + ["Avg generation throughput: 9.0 tokens/s, Running: 3 reqs"] * 500),
    }[change]
    file = tmp_path / "log"
    file.write_text(made, encoding="utf-8")
    kept = read_log(str(file))
    assert logged(kept) == pytest.approx(values) and settings(kept) == told


def _unbreakable(text: str, at: int) -> bool:
    """Where a wording skips over words that it does not know, it stays on one line; nor does a table of arguments break."""
    row = text[text.rfind("\n", 0, at) + 1 :].partition("\n")[0]
    return any(word in row for word in (" end.", " begin.", "allocated.", "finished in", "server_args", "max_total_num"))


def test_every_wording_is_read_from_a_log_here() -> None:
    whole = {(row.name, row.pattern) for row in stated_rows() for text, *_ in CASES.values() if row.values(text)}
    tried = {(row.name, row.pattern) for row in stated_rows()} - whole
    assert {name for name, _ in tried} <= {"kv_gib", "gpu_memory_gib", "kv_tokens"}, tried
    assert all(any(row.values(line) for line in OTHERS) for row in stated_rows() if (row.name, row.pattern) in tried), tried
    assert {gap.name for gap in gaps()} == {"weights_gib", "kv_gib", "graph_gib"}


OTHERS: tuple[str, ...] = (
    "SWAKVPool mem usage: 21.00 GB, swa size: 100, full size: 900",
    "Available memory: 32212254720, total memory: 65464696832",
    "Post-capture KV sizing: KV cache allocated. #tokens: 900, KV size: 20.00 GB, avail mem=3 GB",
)


def test_the_settings_of_a_command_line_are_read() -> None:
    line = "vllm serve m --tensor-parallel-size 4 --gpu-memory-utilization=0.93 --max-model-len 16384 --kv-cache-dtype fp8_e5m2"
    line += " --enforce-eager"
    assert settings(line) == {"tp": 4, "gpu_memory_utilization": 0.93, "max_model_len": 16384, "kv_dtype": "fp8", "enforce_eager": True}
    assert settings("--no-enforce-eager --max-model-len auto --gpu-memory-utilization-x 0.3 --kv-cache-dtype turboquant") == {}
    assert set(settings("sglang 0.5.6 --tp 2 --mem-fraction-static 0.8")) == {"version", "tp", "gpu_memory_utilization"}
    assert set(PATTERNS) >= {"version", "gpu_memory_utilization", "max_model_len", "kv_dtype"}


HOSTILE = ("1", " ", "'", "[", "1.", "a ")
BEFORE = ("model's", "max_num_seqs=", "LLM engine (v", "sglang", "Load weight end.")


@pytest.mark.parametrize("before", BEFORE)
def test_rows_of_one_sign_are_read_at_once_and_state_nothing(before: str) -> None:
    """25,000 digits, blanks, quotes or brackets behind the beginning of a wording, or that beginning a thousand times."""
    log = "INFO Model loading took 15.0 GiB\n"
    for sign in HOSTILE:
        for text in (before + sign * 25_000, (before + sign) * 500):
            began = time.process_time()
            found = settings(f"{log}{text}\n")
            held, why = logged(log + text), failure(text)
            assert time.process_time() - began < 1.0, (sign, text[:60])
            assert held["weights_gib"] == 15.0 and not why and spec(found) == "vllm", (sign, found)


@pytest.mark.parametrize("version", ["...1", "1" * 5000 + ".1", "1." + "1" * 5000, "7", ".", "1..2", "1." * 5000 + "1"])
def test_a_version_that_is_none_is_not_read(version: str) -> None:
    assert "version" not in settings(f"INFO LLM engine (v{version}) Model loading took 15.0 GiB")


@pytest.mark.parametrize("text", ["gpu_memory_utilization=7.5", "gpu_memory_utilization=0.0", "max_num_seqs=0", "tp_size=" + "9" * 5000])
def test_a_setting_that_cannot_be_is_not_read(text: str) -> None:
    assert settings(f"INFO Model loading took 15.0 GiB {text}, and more") == {"engine": "vllm"}


def test_what_a_log_lacks_is_said() -> None:
    assert missing(V010) == () and missing(V021) == () and missing(SGLANG05) == () and missing(TRT) == ()
    assert missing(V062) == ("activation_gib", "graph_gib", "kv_gib", "max_concurrency")
    assert missing("nothing") == ()


@pytest.mark.parametrize(("text", "says"), [
    (FAILED, "To serve at least one request"), (FAILED_V0, "larger than the maximum number of tokens"),
    ("ValueError: No available memory for the cache blocks. Try", "No available memory"),
    ("ValueError: Free memory on device (3.21/4.0 GiB) on startup is less than desired GPU memory utilization (0.85, 3.4 GiB).", "0.85"),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 270.00 MiB.", "270.00"),
    ("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.", "--mem-fraction-static"), (V010, ""),
])  # fmt: skip
def test_a_start_that_failed_says_why(text: str, says: str) -> None:
    assert (says in failure(text)) if says else failure(text) == ""


def test_what_explains_a_difference_is_said() -> None:
    assert "in bytes" in remarks(RESERVED)[0] and "draft" in remarks(SGLANG_DRAFT)[0] and len(remarks("'enable_lora': True")) == 1
    assert not any(remarks(text) for text in (V010, V021, SGLANG05, TRT))


@pytest.mark.parametrize("text", ["", "hello", "GPU KV cache usage: 0.0%", "--gpu-memory-utilization 0.9", "mem usage=12"])
def test_a_log_without_memory_lines_is_refused_in_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no memory line"):
        logged(text)
    file = tmp_path / "log"
    file.write_text(text)
    assert main(["fit", "llama-3.1-8b", "--gpu", "h100:1", "--log", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Model loading took" in said


# ---- held against the prediction ------------------------------------------------------------------------------------


def held(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, *words: str) -> tuple[int, dict]:
    file = tmp_path / "log"
    file.write_text(text, encoding="utf-8")
    code = main(["fit", *words, "--log", str(file), "--json", "-"])
    return code, json.loads(capsys.readouterr().out)


def test_settings_that_are_not_given_come_from_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["fit", "qwen3-8b", "--gpu", "h100:1", "--log", LOG]
    assert main([*base, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["memory_fraction"], found["max_model_len"], found["engine"]) == (0.95, 8192, "vllm 0.19.0")
    for row in found["comparison"]:
        assert row["predicted"] == pytest.approx(row["logged"], rel=0.002) or row["line"] == "graph_gib", row
    assert main(base) == 0
    assert "--engine vllm@0.19.0, --gpu-memory-utilization 0.95, --max-model-len 8,192" in " ".join(capsys.readouterr().out.split())


def test_what_is_given_stays_and_the_difference_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--gpu-memory-utilization", "0.9", "--engine", "vllm@0.25", "--kv-dtype", "fp8"]
    assert main(["fit", "qwen3-8b", "--gpu", "h100:1", "--log", LOG, *words]) == 0
    page = capsys.readouterr().out
    assert "--gpu-memory-utilization: 0.95 in the log, 0.9 here" in page and "--engine: 0.19.0 in the log, 0.25.0 here" in page


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("words", [("--gpu", "h100:8"), ("--gpu", "h100:8", "--tp", "2", "--engine", "sglang"), ("--gpu", "l4:1")])
def test_every_log_is_compared_or_refused(case: str, words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = held(capsys, tmp_path, CASES[case][0], "llama-3.1-8b", *words)
    assert code in (0, 3) and {row["line"] for row in found["comparison"]} <= set(CASES[case][1])
    assert all(row["logged"] == row["used"] for row in found["log_settings"] if row["taken"])
    assert code == 3 or len(found["comparison"]) >= len(CASES[case][1]) - 1


def test_widths_of_a_log_are_taken_where_they_divide_the_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = held(capsys, tmp_path, V010, "llama-3.1-8b", "--gpu", "h100:8")
    _, single = held(capsys, tmp_path, V010, "llama-3.1-8b", "--gpu", "h100:1")
    _, given = held(capsys, tmp_path, V010, "llama-3.1-8b", "--gpu", "h100:8", "--plan", "TP8")
    assert (found["plan"], single["plan"], given["plan"]) == ("4×TP2", "TP1", "TP8")


def test_settings_of_another_engine_are_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = held(capsys, tmp_path, SGLANG05, "llama-3.1-8b", "--gpu", "h100:8", "--engine", "vllm@0.19")
    assert found["memory_fraction"] == 0.9 and not any(row["taken"] for row in found["log_settings"])
    _, found = held(capsys, tmp_path, SGLANG05, "llama-3.1-8b", "--gpu", "h100:8")
    assert found["memory_fraction"] == 0.908 and found["engine"].startswith("sglang")


def test_a_version_beyond_all_rules_is_read_with_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = held(capsys, tmp_path, V010.replace("v0.10.1.1", "v0.99.0"), "llama-3.1-8b", "--gpu", "h100:2")
    rows = {row["setting"]: row for row in found["log_settings"]}
    assert code == 0 and rows["version"]["logged"] == "0.99.0" and not rows["version"]["taken"] and rows["max_num_seqs"]["taken"]


def test_lines_of_use_alone_tell_the_fraction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = V021.splitlines()[3].partition("Actual")[2].join(["INFO Actual", "\n"])
    code, found = held(capsys, tmp_path, text, "qwen3.5-27b", "--gpu", "rtx-5090:2", "--tp", "2", "--weight-dtype", "fp8")
    assert code == 0 and found["log_fraction"] == pytest.approx((24.58 + 1.46 + 0.49 + 4.37) / 31.84, abs=0.001)
    assert {row["line"] for row in found["comparison"]} == {"consumed_gib", "activation_gib", "graph_gib", "kv_gib"}
    assert found["log_missing"] == ["kv_tokens", "max_concurrency"]


def test_a_log_of_what_does_not_fit_is_compared_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """gpt-oss-120b on one H100 with vLLM 0.10: 65.97 GiB of weights, a cache of −2.14 GiB, no start."""
    text = ("Initializing a V1 LLM engine (v0.10.1) with config: model='m'\nModel loading took 65.9728 GiB and 3 seconds\n"
            "Available KV cache memory: -2.14 GiB\nValueError: No available memory for the cache blocks.\n")  # fmt: skip
    code, found = held(capsys, tmp_path, text, "gpt-oss-120b", "--gpu", "h100:1")
    rows = {row["line"]: row for row in found["comparison"]}
    assert code == 3 and rows["weights_gib"]["predicted"] == pytest.approx(65.97, rel=0.03) and rows["kv_gib"]["predicted"] < 0
    file = tmp_path / "log"
    assert main(["fit", "gpt-oss-120b", "--gpu", "h100:1", "--log", str(file)]) == 3
    out, err = capsys.readouterr()
    assert "against the log" in out and "it failed" in out and err.count("\n") == 1


@pytest.mark.parametrize("engine", ["vllm@0.19", "sglang", "tensorrt-llm"])
def test_lines_of_what_does_not_fit_follow_the_rule_of_what_fits(engine: str) -> None:
    """The same experts on GPUs that hold them and on others: weights with the engine's dispatch buffers, cache less what is lacking."""
    model, asked = load_model("deepseek-v3"), {}
    for gpu in ("h200:8", "h100:8"):
        cluster = cluster_of(gpu, None, None)
        row = engine_of(engine, {}, cluster, 8192)
        asked[gpu] = fit(model, cluster, row, Widths(plan="DEP8"), precision_of(model, None, None, None), 8192)
    large, small = asked.values()
    assert large.fits and small.room is None
    held, short = predictions(large), predictions(small)
    for name in ("weights_gib", "non_torch_gib", "consumed_gib"):
        assert short[name] == pytest.approx(held[name]), name
    assert short["kv_gib"] < 0.0


def test_a_text_that_is_no_log_is_refused_before_anything_is_sized() -> None:
    with pytest.raises(InputError, match="no memory line"):
        asked_as({"engine": "vllm"}, "hello", 1)
