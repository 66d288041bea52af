"""How an engine is started: the line serves the user's model, with what was simulated, on these GPUs, and can be pasted."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from apexsim import api
from apexsim.errors import InputError
from apexsim.plan.limits import sure_blocks
from apexsim.plan.plan import parse_plan
from apexsim.report.launch import Launch, ServerStart, asked, launch
from apexsim.search.setting import Setting

ENGINES = ("vllm", "sglang", "tensorrt-llm")
LOAD: dict[str, Any] = {"prompt_len": 1000, "output_len": 200, "num_requests": 8, "request_rate": 1.0}


def started(model: str, plan: str, gpu: str = "h100-sxm", gpus: int = 8, **asked: Any) -> tuple[Setting, Launch]:
    """The setting of a question and the launch of one plan of it."""
    setting, precision, *_ = api.ask(model, gpu=gpu, gpus=gpus, **{**LOAD, **asked})
    return setting, launch(setting, parse_plan(plan, precision))


def line(model: str, plan: str, gpu: str = "h100-sxm", gpus: int = 8, **asked: Any) -> list[str]:
    """The words of the command that starts the first server."""
    commands = started(model, plan, gpu, gpus, **asked)[1].commands
    return shlex.split(next(c for c in commands if "serve " in c or "launch_server" in c))


def flag(command: list[str], name: str) -> str:
    """The value that follows a flag."""
    return command[command.index(name) + 1]


# ---- the model and its format ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_the_line_serves_the_model(engine: str) -> None:
    assert "Qwen/Qwen2.5-72B" in " ".join(line("qwen2.5-72b", "TP8", engine=engine))


@pytest.mark.parametrize(
    "engine,weights,model,quantised",
    [
        ("vllm", "fp8", "Qwen/Qwen3-14B", True),
        ("sglang", "fp8", "Qwen/Qwen3-14B", True),
        ("tensorrt-llm", "fp8", "YOUR_FP8_CHECKPOINT", False),  # has no format that it makes while it loads
        ("vllm", "int4", "YOUR_AWQ_CHECKPOINT", False),
        ("sglang", "awq", "YOUR_AWQ_CHECKPOINT", False),
        ("vllm", "nvfp4", "YOUR_NVFP4_CHECKPOINT", False),
    ],
)
@pytest.mark.parametrize("by", ["plan", "option"])
def test_quantised_plans_name_a_checkpoint_that_has_the_format(engine: str, weights: str, model: str, quantised: bool, by: str) -> None:
    how: dict[str, Any] = {"weight_dtype": weights} if by == "option" else {}
    plan = "TP2" if by == "option" else f"TP2@{weights}"
    _, found = started("qwen3-14b", plan, gpus=2, engine=engine, **how)
    words = shlex.split(found.commands[-1])
    assert model in words and ("--quantization" in words) is quantised
    assert any("not judged" in note and "Qwen/Qwen3-14B" in note for note in found.notes)


def test_a_checkpoint_that_has_the_format_is_served_as_it_is() -> None:
    words = line("qwen3-235b-a22b-fp8", "TP8@fp8", "h200-sxm")
    assert "Qwen/Qwen3-235B-A22B-FP8" in words and "--quantization" not in words


def test_weights_that_do_not_fit_in_16_bit_are_not_quantised_while_they_load() -> None:
    assert "YOUR_FP8_CHECKPOINT" in line("llama-3.1-70b", "TP1@fp8", "h200-sxm", 1, max_model_len=2048)
    assert "YOUR_FP8_CHECKPOINT" in line("qwen3-14b", "TP2", "t4", 2, weight_dtype="fp8")  # no kernel for it


def test_a_file_of_the_users_own_has_a_placeholder_or_its_folder(tmp_path: Path) -> None:
    config = Path("src/apexsim/data/models/Qwen--Qwen3-14B.json")
    file = tmp_path / "config.json"
    file.write_text(config.read_text(encoding="utf-8"), encoding="utf-8")
    assert "YOUR_MODEL_PATH" in line(str(file), "TP2", gpus=2)
    (tmp_path / "model.safetensors").touch()
    assert str(tmp_path) in line(str(tmp_path), "TP2", gpus=2)


# ---- what was simulated ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "engine,off",
    [("vllm", "--no-enable-prefix-caching"), ("sglang", "--disable-radix-cache"), ("tensorrt-llm", "enable_block_reuse: false")],
)
def test_prefix_caching_is_as_simulated(engine: str, off: str) -> None:
    assert off not in started("qwen3-14b", "TP2", gpus=2, engine=engine)[1].script
    assert off in started("qwen3-14b", "TP2", gpus=2, engine=engine, settings={"reuse": 0})[1].script


def test_vllm_before_0_8_has_no_prefix_caching_to_switch_off() -> None:
    assert "prefix" not in " ".join(line("qwen3-14b", "TP2", gpus=2, engine="vllm@0.6.0"))


@pytest.mark.parametrize(
    "plan,engine,expected",
    [
        ("TEP4", "vllm", {"--tensor-parallel-size": "4"}),
        ("DEP4", "vllm", {"--tensor-parallel-size": "1", "--data-parallel-size": "4", "--all2all-backend": "allgather_reducescatter"}),
        ("PP2×TP2", "vllm", {"--tensor-parallel-size": "2", "--pipeline-parallel-size": "2"}),
        ("DEP4", "sglang", {"--tp-size": "4", "--dp-size": "4", "--ep-size": "4", "--max-running-requests": "4096"}),
        ("TP4/TP2EP2", "sglang", {"--tp-size": "4", "--ep-size": "2"}),
        ("TEP4", "tensorrt-llm", {"--tp_size": "4", "--ep_size": "4"}),
        ("DEP4", "tensorrt-llm", {"--tp_size": "4", "--ep_size": "4", "--max_batch_size": "2048"}),
    ],
)
def test_the_layout_is_in_the_line(plan: str, engine: str, expected: dict[str, str]) -> None:
    words = line("qwen3-30b-a3b", plan, gpus=4, engine=engine)
    assert {name: flag(words, name) for name in expected} == expected
    assert ("--enable-expert-parallel" in words) is (engine == "vllm" and "EP" in plan)


def test_tensorrt_llm_reads_the_rest_from_a_file() -> None:
    _, found = started("qwen3-30b-a3b", "DEP4", gpus=4, engine="tensorrt-llm", kv_dtype="fp8", settings={"chunk": 1})
    text = found.commands[0]
    for said in ("enable_attention_dp: true", "moe_expert_parallel_size: 4", "moe_tensor_parallel_size: 1",
                 "enable_chunked_prefill: true", "dtype: fp8", "free_gpu_memory_fraction: 0.9", "batch_sizes: [1, 2, 4, 8"):  # fmt: skip
        assert said in text
    assert "--extra_llm_api_options apexsim-trtllm.yaml" in found.commands[1]


@pytest.mark.parametrize(
    "version,word",
    [("0.19.0", "--all2all-backend deepep_low_latency"), ("0.11.0", "VLLM_ALL2ALL_BACKEND=deepep_low_latency")],
)
def test_experts_that_span_nodes_are_reached_as_was_simulated(version: str, word: str) -> None:
    _, found = started("deepseek-r1", "DEP16", nodes=2, engine=f"vllm@{version}")
    assert all(word in command for command in found.commands) and "SGLang" not in "".join(found.notes)


def test_a_server_of_prompts_and_decode_is_not_told_what_takes_one_of_them_alone() -> None:
    """Since 0.20 vLLM's low latency keeps buffers for a whole step, which DeepEP's queue does not hold: the server would not start."""
    _, found = started("deepseek-r1", "DEP16", nodes=2, engine="vllm@0.28.0")
    assert all("--all2all-backend allgather_reducescatter" in command for command in found.commands)
    assert any("not both, and gathers all tokens" in note for note in found.notes)


@pytest.mark.parametrize("seqs,told", [(None, 256), (64, 128), (300, 300), (2000, 511)])
def test_deepep_is_made_to_hold_what_sglang_captures_and_decodes(seqs: int | None, told: int) -> None:
    """A lane that sends more than its buffers hold stops the server, at capture already."""
    how = {"settings": {"max_num_seqs": seqs}} if seqs else {}
    _, found = started("deepseek-r1", "DEP16", nodes=2, engine="sglang", **how)
    for command in found.commands:
        words = shlex.split(command)
        sizes = [int(word) for word in words[words.index("--cuda-graph-bs") + 1 :] if word.isdigit()]
        most = int(words[words.index("--max-running-requests") + 1]) // 16
        assert words[0] == f"SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK={told}" and max(sizes[: sizes.index(max(sizes)) + 1]) <= told
        assert most == min(seqs or told, told)
    assert any("as was simulated" in note for note in found.notes) is (most < (seqs or 1024))


def test_servers_of_one_node_take_ports_of_their_own() -> None:
    """SGLang's lanes talk at the six ports behind --dist-init-addr, which otherwise follow the server's own."""
    for plan, gpus in (("2xDEP4", 8), ("4xDEP2", 8), ("2xTP2", 4)):
        _, found = started("qwen3-30b-a3b", plan, gpus=gpus, engine="sglang")
        taken: list[int] = []
        for words in (shlex.split(command) for command in found.commands if "launch_server" in command):
            taken.append(int(words[words.index("--port") + 1]))
            if "--dp-size" in words:
                head = int(words[words.index("--dist-init-addr") + 1].rpartition(":")[2])
                taken += range(head, head + 7)
        assert len(taken) == len(set(taken)) >= 2


@pytest.mark.parametrize("route", ["round-robin", "least-outstanding", "power-of-two", "session", "least-waiting"])
def test_a_router_deals_as_was_simulated_or_says_that_it_does_not(route: str) -> None:
    _, found = started("llama-3.1-8b-instruct", "4xTP1", gpus=4, engine="vllm", route=route)
    text, notes = " ".join(found.commands), " ".join(found.notes)
    rules = {"round-robin": "round_robin", "power-of-two": "power_of_two", "least-outstanding": "least_conn"}
    assert (
        (rules[route] in text and "in turn" not in notes)
        if route in rules
        else f"nginx deals requests in turn; {route} was simulated" in notes
    )


def test_nginx_takes_many_streams_and_long_prompts() -> None:
    _, found = started("llama-3.1-8b-instruct", "4xTP1", gpus=4, engine="vllm", route="least-outstanding")
    text = found.script
    assert "client_max_body_size 0;" in text and int(text.partition("worker_connections ")[2].partition(";")[0]) >= 16_384


def test_engines_without_such_a_library_say_so() -> None:
    _, found = started("deepseek-r1", "DEP16", "a100-sxm-80gb", nodes=4, weight_dtype="int4", engine="vllm")
    found = found if found.runnable else started("deepseek-r1", "DEP32", "a100-sxm-80gb", nodes=4, weight_dtype="int4")[1]
    assert any("gathers all tokens" in note for note in found.notes)


@pytest.mark.parametrize(
    "engine,asked,expected",
    [
        ("vllm", {"settings": {"pad": ()}}, "--enforce-eager"),
        ("sglang", {"settings": {"pad": ()}}, "--disable-cuda-graph"),
        ("tensorrt-llm", {"settings": {"pad": ()}}, "cuda_graph_config: null"),
        ("vllm", {"settings": {"max_num_seqs": 3}}, "--cudagraph-capture-sizes 1 2 4 8"),
        ("vllm@0.11.0", {"settings": {"pad": (1, 2, 32)}}, "--cuda-graph-sizes 1 2 32"),
        ("vllm", {"settings": {"lag": 1}}, "--no-async-scheduling"),
        ("vllm@0.10.0", {"settings": {"lag": 2}}, "--async-scheduling"),
        ("vllm", {"settings": {"chunk": 0, "max_num_batched_tokens": 16384}}, "--no-enable-chunked-prefill"),
        ("vllm@0.8.0", {"settings": {"chunk": 0}}, "--enable-chunked-prefill=False"),
        ("vllm@0.6.0", {"settings": {"chunk": 1}}, "--enable-chunked-prefill"),
        ("vllm", {"settings": {"block_size": 32}}, "--block-size 32"),
        ("vllm", {"settings": {"memory_fraction": 0.8}}, "--gpu-memory-utilization 0.8"),
        ("sglang", {"settings": {"memory_fraction": 0.8}}, "--mem-fraction-static 0.8"),
        ("tensorrt-llm", {"settings": {"memory_fraction": 0.8}}, "--kv_cache_free_gpu_memory_fraction 0.8"),
        ("vllm", {"kv_dtype": "fp8"}, "--kv-cache-dtype fp8"),
        ("sglang", {"kv_dtype": "fp8"}, "--kv-cache-dtype fp8_e4m3"),
        ("sglang", {"settings": {"mix": 1}}, "--enable-mixed-chunk"),
    ],
)  # fmt: skip
def test_settings_are_in_the_line(engine: str, asked: dict[str, Any], expected: str) -> None:
    _, found = started("qwen3-14b", "TP2", gpus=2, engine=engine, **asked)
    assert expected in found.script.replace(" \\\n ", "")


def test_a_gpu_without_bf16_is_told_half() -> None:
    assert flag(line("qwen3-14b", "TP8", "t4", 8), "--dtype") == "half"


def test_a_clock_is_locked_first() -> None:
    _, found = started("qwen3-14b", "TP2", "h100-sxm@1200MHz", gpus=2)
    assert found.script.startswith("sudo nvidia-smi --lock-gpu-clocks=1200,1200\nvllm serve")


# ---- lengths and limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine,name", [("vllm", "--max-model-len"), ("sglang", "--context-length"), ("tensorrt-llm", "--max_seq_len")])
def test_the_length_is_the_models_own(engine: str, name: str) -> None:
    setting, found = started("llama-3.1-70b", "TP8", engine=engine)
    assert flag(shlex.split(found.commands[-1]), name) == "131072" and setting.max_model_len == 2048
    whole = ", its prompts 8,192 (they are not chunked)" if engine == "tensorrt-llm" else ""
    assert any(n.startswith(f"longest simulated request 1,200 tokens; the model allows 131,072{whole}, room for") for n in found.notes)


def test_the_room_is_that_of_all_lanes_and_never_more_than_there_is() -> None:
    """As `fit` counts users: of the whole server, rounded down."""
    for model, plan, gpu, gpus, told in (("llama-3.1-8b", "TP2", "h100-sxm", 2, "7.5"), ("deepseek-r1", "DP8/TP8", "h200-sxm", 8, "19")):
        _, found = started(model, plan, gpu, gpus, engine="sglang" if "DP" in plan else "vllm")
        assert any(note.endswith(f"room for {told} of those") for note in found.notes), found.notes


def test_prompts_that_are_not_chunked_fit_the_budget_that_is_told() -> None:
    """TensorRT-LLM refuses every longer one."""
    words = line("qwen3-32b", "TP4", engine="tensorrt-llm", prompt_len=12_000)
    assert flag(words, "--max_num_tokens") == "12288"
    with pytest.raises(InputError, match="less than the longest prompt of 12000 tokens and prompts are not chunked"):
        line("qwen3-32b", "TP4", engine="tensorrt-llm", prompt_len=12_000, settings={"max_num_batched_tokens": 8192})
    assert flag(line("qwen3-32b", "TP4", engine="tensorrt-llm", prompt_len=12_000, settings={"chunk": 1}), "--max_num_tokens") == "8192"


@pytest.mark.parametrize("engine,gpu,runs", [
    ("vllm@0.22.0", "v100-sxm-16gb", True), ("vllm@0.28.0", "v100-sxm-16gb", False), ("sglang", "v100-sxm-16gb", False),
    ("sglang", "t4", True), ("tensorrt-llm", "t4", False), ("tensorrt-llm", "a100-sxm-80gb", True),
])  # fmt: skip
def test_releases_are_not_started_on_gpus_that_they_gave_up(engine: str, gpu: str, runs: bool) -> None:
    _, found = started("llama-3.1-8b", "TP2", gpu, 2, engine=engine)
    assert found.runnable is runs and (runs or "does not run on" in found.notes[0])


def test_a_cache_that_is_too_small_shortens_it_but_never_below_the_longest_request() -> None:
    setting, found = started("gpt-oss-120b", "TP1", gpus=1)
    length = int(flag(shlex.split(found.commands[0]), "--max-model-len"))
    assert 1200 < length < setting.model.max_length and length % 1024 == 0
    assert any(f"this server {length:,}" in note for note in found.notes)


def test_the_users_own_length_stands() -> None:
    assert flag(line("llama-3.1-70b", "TP8", max_model_len=5000), "--max-model-len") == "5000"


def test_prompts_that_are_not_cut_bound_the_length_by_the_budget() -> None:
    words = line("llama-3.1-70b", "TP8", engine="vllm@0.6.0")
    assert flag(words, "--max-model-len") == flag(words, "--max-num-batched-tokens") == "2048"


@pytest.mark.parametrize(
    "model,gpus,fraction,known",
    [
        ("qwen3.5-27b", 1, 0.95, 856),  # start-up logs: the engine counted as many blocks and refused more sequences
        ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8", 2, 0.92, 524),
    ],
)
def test_recurrent_models_have_no_more_sequences_than_blocks(model: str, gpus: int, fraction: float, known: int) -> None:
    weights = "fp8" if gpus == 1 else None
    setting, precision, *_ = api.ask(model, gpu="h100-sxm", gpus=gpus, settings={"memory_fraction": fraction}, weight_dtype=weights, **LOAD)
    ask = asked(setting, parse_plan(f"TP{gpus}", precision))
    assert isinstance(ask, ServerStart) and ask.engine.max_num_seqs <= min(known, sure_blocks(ask.room))
    assert ask.engine.max_num_seqs > known // 2


def test_sequences_stay_within_the_token_budget() -> None:
    words = line("qwen3-14b", "TP2", gpus=2, settings={"max_num_batched_tokens": 512})
    assert flag(words, "--max-num-seqs") == flag(words, "--max-num-batched-tokens") == "512"


# ---- what cannot be started --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model,plan,gpu,asked,why",
    [
        ("llama-3.1-70b", "DP2TP4/TP8", "h100-sxm", {}, "attention replicas"),
        ("qwen3-30b-a3b", "TP8/TP2EP4", "h100-sxm", {}, "over all GPUs"),
        ("qwen3-30b-a3b", "TEP6", "h200-sxm", {"engine": "sglang", "gpus": 6}, "128 do not divide by ep 6"),
        ("qwen3-30b-a3b", "DEP8", "h100-sxm", {"engine": "vllm@0.8.0"}, "no data parallel attention"),
        ("qwen3-30b-a3b", "TEP8", "h100-sxm", {"engine": "vllm@0.6.0"}, "no expert parallelism"),
        ("qwen3-30b-a3b", "TP4", "mi300x", {"engine": "tensorrt-llm", "gpus": 4}, "is not known to be started on GPUs of AMD"),
        ("qwen3-14b", "TP8", "h100-sxm", {"kv_dtype": "int8"}, "no KV cache in int8"),
        ("qwen3-14b", "2×TP6", "h100-sxm", {"gpus": 4, "nodes": 3}, "does not divide"),
        ("qwen3-14b", "TP8", "h100-sxm", {"engine": "orca"}, "without a server of its own"),
    ],
)
def test_what_an_engine_cannot_start_is_said(model: str, plan: str, gpu: str, asked: dict[str, Any], why: str) -> None:
    _, found = started(model, plan, gpu, **{"gpus": 8, **asked})
    assert not found.runnable and not found.script and why in found.notes[0]


def test_the_nearest_that_can_be_started_is_found() -> None:
    study = api.plan("llama-3.1-70b", gpu="h100-sxm", gpus=8, **{**LOAD, "num_requests": 8})
    assert study.best is not None and launch(study.setting, study.best.plan).runnable


# ---- replicas, nodes and pasting ---------------------------------------------------------------------------------

STUB = """#!/bin/bash
{ printf '%s\\0' "$(basename "$0")" "$CUDA_VISIBLE_DEVICES$HIP_VISIBLE_DEVICES" "$@"; } > "$RECORD/$$"
"""


def pasted(script: str, folder: Path, **env: str) -> list[list[str]]:
    """What programs a script starts when it is pasted into a shell: name, GPUs shown, arguments."""
    for name in ("vllm", "python", "trtllm-serve", "vllm-router", "nginx", "mpirun", "ray", "sudo"):
        stub = folder / name
        stub.write_text(STUB, encoding="utf-8")
        stub.chmod(0o755)
    record = folder / "record"
    record.mkdir(exist_ok=True)
    for old in record.iterdir():
        old.unlink()
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash"], input=script + "\nwait\n", text=True, check=True, cwd=folder,
                   env={"PATH": path, "RECORD": str(record), **env})  # fmt: skip
    return sorted(run.read_text(encoding="utf-8").split("\0")[:-1] for run in record.iterdir())


def test_replicas_stand_side_by_side_behind_a_router(tmp_path: Path) -> None:
    _, found = started("qwen3-14b", "4×TP2")
    runs = pasted(found.script, tmp_path)
    servers = [run for run in runs if run[0] == "vllm"]
    assert [run[1] for run in servers] == ["0,1", "2,3", "4,5", "6,7"]
    assert [flag(run, "--port") for run in servers] == ["8001", "8002", "8003", "8004"]
    router = next(run for run in runs if run[0] == "vllm-router")
    assert flag(router, "--policy") == "round_robin" and flag(router, "--port") == "8000"
    assert [word for word in router if word.startswith("http")] == [f"http://127.0.0.1:{8001 + i}" for i in range(4)]


def test_the_router_deals_as_was_simulated(tmp_path: Path) -> None:
    _, found = started("qwen3-14b", "2×TP1", "mi300x", 2, route="least-outstanding")
    runs = pasted(found.script, tmp_path)
    conf = (tmp_path / "apexsim-router.conf").read_text(encoding="utf-8")
    assert "least_conn;" in conf and "server 127.0.0.1:8002" in conf
    assert [run[1] for run in runs if run[0] == "vllm"] == ["0", "1"] and "nginx" in {run[0] for run in runs}


def test_lanes_are_dealt_to_nodes(tmp_path: Path) -> None:
    _, found = started("deepseek-r1", "DEP16", nodes=2)
    head, other = (pasted(found.script, tmp_path, NODE_RANK=str(i), NODE0="10.0.0.1") for i in range(2))
    assert len(head) == len(other) == 1
    for run, rank in ((head[0], None), (other[0], "8")):
        assert flag(run, "--data-parallel-size-local") == "8" and flag(run, "--data-parallel-address") == "10.0.0.1"
        assert ("--headless" in run) is (rank is not None) and (rank is None or flag(run, "--data-parallel-start-rank") == rank)


@pytest.mark.parametrize("engine", ["vllm", "vllm@0.11.0", "sglang", "tensorrt-llm"])
def test_a_server_over_nodes_is_started_on_each(engine: str, tmp_path: Path) -> None:
    _, found = started("deepseek-r1", "PP2×TP8", nodes=2, engine=engine)
    env = {"NODE0": "10.0.0.1", "NODE1": "10.0.0.2"}
    head, other = (pasted(found.script, tmp_path, NODE_RANK=str(i), **env) if f"\n{i})" in found.script else [] for i in range(2))
    if engine == "vllm":
        assert [flag(run[0], "--node-rank") for run in (head, other)] == ["0", "1"]
        assert flag(other[0], "--master-addr") == "10.0.0.1" and "--headless" in other[0] and "--headless" not in head[0]
    if engine == "vllm@0.11.0":
        assert [run[0] for run in head] == ["ray", "vllm"] and [run[0] for run in other] == ["ray"]
        assert "--address=10.0.0.1:6379" in other[0] and flag(head[1], "--distributed-executor-backend") == "ray"
    if engine == "sglang":
        assert [flag(run[0], "--node-rank") for run in (head, other)] == ["0", "1"]
        assert flag(other[0], "--dist-init-addr") == "10.0.0.1:20000"
    if engine == "tensorrt-llm":
        assert not other and flag(head[0], "--host") == "10.0.0.1:8,10.0.0.2:8" and flag(head[0], "-n") == "16"
        assert "trtllm-serve" in head[0] and (tmp_path / "apexsim-trtllm.yaml").is_file()


def test_replicas_on_several_nodes_are_reached_by_their_addresses(tmp_path: Path) -> None:
    _, found = started("qwen3-14b", "4×TP1", gpus=2, nodes=2, engine="sglang")
    head, other = (pasted(found.script, tmp_path, NODE_RANK=str(i), NODE0="10.0.0.1", NODE1="10.0.0.2") for i in range(2))
    router = next(run for run in head if "sglang_router.launch_router" in run)
    assert [w for w in router if w.startswith("http")] == [f"http://10.0.0.{n}:{p}" for n in (1, 2) for p in (8001, 8002)]
    assert [flag(run, "--host") for run in other] == ["0.0.0.0", "0.0.0.0"]


def test_json_has_the_script_and_every_command() -> None:
    from apexsim.report.jsonout import study_json

    study = api.simulate("qwen3-14b", "2×TP1", gpu="h100-sxm", gpus=2, **LOAD)
    row = study_json(study)["ranked"][0]
    assert row["launch"].startswith("CUDA_VISIBLE_DEVICES=0 vllm serve") and len(row["launch_commands"]) == 3
    assert json.dumps(row["launch_commands"]) and all("&" not in command for command in row["launch_commands"])


# ---- models that generate nothing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine,word", [("vllm", "--runner pooling"), ("vllm@0.8.0", "--task embed"), ("sglang", "--is-embedding")])
def test_models_of_vectors_are_served_as_such(engine: str, word: str) -> None:
    """vLLM takes no prompt of theirs in pieces, so that a step holds the longest."""
    setting, found = started("bge-m3", "TP1", "l4", 1, engine=engine, output_len=1)
    assert word in found.commands[0] and any("it generates nothing" in note for note in setting.model.notes)
    words = shlex.split(found.commands[0])
    assert "sglang" in engine or int(flag(words, "--max-num-batched-tokens")) >= int(flag(words, "--max-model-len"))


def test_an_engine_that_serves_no_vectors_says_so() -> None:
    _, found = started("bge-m3", "TP1", "l4", 1, engine="tensorrt-llm", output_len=1)
    assert not found.runnable and "models that generate nothing" in found.notes[0]


@pytest.mark.parametrize("seqs", [3, 100, 256])
def test_sglang_captures_what_was_simulated(seqs: int) -> None:
    """Its largest size is rounded up beyond the sequences: without it the last ones would run outside graphs."""
    setting, found = started("llama-3.1-8b", "TP1", gpus=1, engine="sglang", settings={"max_num_seqs": seqs})
    words = shlex.split(found.commands[0])
    sizes = [int(word) for word in words[words.index("--cuda-graph-bs") + 1 :] if word.isdigit()]
    assert tuple(sizes[: len(setting.engine.pad)]) == setting.engine.pad and setting.engine.pad[-1] >= seqs


def test_a_format_is_asked_for_once() -> None:
    asked = {"gpu": "h100:1", **LOAD}
    with pytest.raises(InputError, match="the plan names its own format"):
        api.simulate("llama-3.1-8b", "TP1@fp8", weight_dtype="int4", **asked)
    assert api.simulate("llama-3.1-8b", "TP1", weight_dtype="fp8", **asked).keeps
    pools = api.simulate("llama-3.1-8b", "TP1+TP1@h200-sxm", weight_dtype="fp8", gpu="h100:1", **LOAD)
    assert pools.ranked[0].plan.shorthand.count("@") >= 1
