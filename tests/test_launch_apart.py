"""How two pools are started: every engine's own words for a role, one port each, a router that knows both pools."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
from typing import Any

import pytest

from apexsim import api
from apexsim.plan.plan import parse_plan
from apexsim.plan.split import parse_split
from apexsim.report.apart import launched
from apexsim.report.launch import Launch
from apexsim.report.stacks import stacks
from apexsim.search.roles import Roles, with_pools
from apexsim.search.setting import Setting

LOAD: dict[str, Any] = {"prompt_len": 1000, "output_len": 200, "num_requests": 8, "request_rate": 1.0}
PLANS = ("2×TP2+TP4", "TP4+2×TP2", "TP4+TP4", "4×TP1+TP4", "2×TP1+TP2")
ENGINES = ("vllm", "sglang", "tensorrt-llm")


def started(
    plan: str, engine: str = "vllm", gpus: int = 8, nodes: int = 1, model: str = "llama-3.1-8b", connector: str = "", gpu: str = "h100-sxm"
) -> Launch:
    """The launch of a plan of two pools."""
    setting, precision, *_ = api.ask(model, gpu=gpu, gpus=gpus, nodes=nodes, engine=engine, **LOAD)
    split = parse_split(plan, precision)
    made: Setting = with_pools(setting, Roles(engine, {}, connector=connector), split)
    return launched(made, split)


def split_words(command: str) -> tuple[dict[str, str], list[str]]:
    """Variables and words of a command line."""
    words = shlex.split(command)
    env = {}
    while re.match(r"\w+=", words[0]):
        name, _, env[name] = words.pop(0).partition("=")
    return env, words


def servers(launch: Launch) -> list[tuple[dict[str, str], list[str]]]:
    """What starts servers, without the router and files."""
    found = [split_words(command) for command in launch.commands if "<<" not in command]
    return [(env, words) for env, words in found if ("serve" in words or "sglang.launch_server" in words or words[0] == "trtllm-serve")
            and "disaggregated" not in words]  # fmt: skip


def flag(words: list[str], name: str) -> str:
    """The value that follows a flag."""
    return words[words.index(name) + 1]


# ---- every engine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("plan", PLANS)
def test_no_two_servers_share_a_gpu_or_a_port(engine: str, plan: str) -> None:
    split = parse_split(plan)
    found = servers(started(plan, engine, split.devices))
    assert len(found) == split.prefill.replicas + split.decode.replicas
    gpus = [gpu for env, _ in found for gpu in env.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    assert sorted(gpus, key=int) == [str(i) for i in range(split.devices)]
    ports = [flag(words, "--port") for _, words in found]
    assert len(set(ports)) == len(ports) and "8000" not in ports


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("plan,nodes", [("2×TP2+TP4", 1), ("TP8+TP8", 2), ("2×TP8+TP16", 4)])
def test_scripts_are_sound(engine: str, plan: str, nodes: int) -> None:
    found = started(plan, engine, 8, nodes, model="qwen3-32b")
    assert found.runnable and subprocess.run(["bash", "-n"], input=found.script, text=True, check=False).returncode == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_each_pool_has_its_own_settings_in_its_line(engine: str) -> None:
    setting, precision, *_ = api.ask("llama-3.1-8b", gpu="h100-sxm", gpus=4, engine=engine, **LOAD)
    split = parse_split("TP2+TP2", precision)
    made = with_pools(setting, Roles(engine, {}, {"decode": {"max_num_seqs": 48}, "prefill": {"max_num_seqs": 7}}), split)
    word = {"vllm": "--max-num-seqs", "sglang": "--max-running-requests", "tensorrt-llm": "--max_batch_size"}[engine]
    assert [flag(words, word) for _, words in servers(launched(made, split))] == ["7", "48"]


# ---- vLLM --------------------------------------------------------------------------------------------------------------


def test_vllm_is_told_its_role_by_the_connector() -> None:
    found = servers(started("2×TP2+TP4"))
    told = [json.loads(flag(words, "--kv-transfer-config")) for _, words in found]
    assert [one["kv_role"] for one in told] == ["kv_producer", "kv_producer", "kv_consumer"]
    assert {one["kv_connector"] for one in told} == {"NixlConnector"}
    ports = [int(env["VLLM_NIXL_SIDE_CHANNEL_PORT"]) for env, _ in found]
    assert len(set(ports)) == len(ports) and not {*ports} & {int(flag(words, "--port")) for _, words in found}


def test_each_node_of_a_server_listens_at_its_own_address() -> None:
    """Ranks on the second node cannot listen at the first one's, and nobody would find their cache there."""
    found = started("DEP8+DEP16", "vllm", 8, 3, model="deepseek-r1", gpu="h200-sxm")
    here = dict(re.findall(r"(?m)^(\d)\)\n((?:.*\n)*?);;", found.script))
    assert len(here) == 3
    for node, text in here.items():
        assert set(re.findall(r'VLLM_NIXL_SIDE_CHANNEL_HOST="\$NODE(\d)"', text)) == {node}


def test_vllm_decodes_with_kernels_that_take_its_steps() -> None:
    """DeepEP's low latency: at decode alone, in steps that its queue holds; prompts take its other kernels."""
    found = started("DEP16+DEP16", "vllm", 8, 4, model="deepseek-r1", gpu="h200-sxm")
    told = {json.loads(flag(words, "--kv-transfer-config"))["kv_role"]: words for _, words in servers(found)}
    kinds = {role: flag(words, "--all2all-backend") for role, words in told.items()}
    assert kinds == {"kv_producer": "deepep_high_throughput", "kv_consumer": "deepep_low_latency"}
    words = told["kv_consumer"]
    assert int(flag(words, "--max-num-seqs")) <= int(flag(words, "--max-num-batched-tokens")) <= 511
    assert any("as was simulated" in note for note in found.notes)


def test_mooncake_has_no_side_channel() -> None:
    found = servers(started("TP4+TP4", connector="mooncake"))
    assert all("VLLM_NIXL_SIDE_CHANNEL_PORT" not in env for env, _ in found)
    assert {json.loads(flag(words, "--kv-transfer-config"))["kv_connector"] for _, words in found} == {"MooncakeConnector"}


def vllm_router() -> argparse.ArgumentParser:
    """The words of vllm-router that matter here (router_args.py)."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--vllm-pd-disaggregation", action="store_true")
    parser.add_argument("--pd-disaggregation", action="store_true")
    parser.add_argument("--prefill", nargs="+", action="append")
    parser.add_argument("--decode", nargs=1, action="append")
    parser.add_argument("--policy", choices=["random", "round_robin", "cache_aware", "power_of_two", "consistent_hash"])
    parser.add_argument("--kv-connector", choices=["nixl", "mooncake", "moriio"], default="nixl")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--worker-startup-timeout-secs", type=int)
    return parser


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_router_knows_every_server_by_its_role(engine: str, plan: str) -> None:
    split = parse_split(plan)
    found = started(plan, engine, split.devices)
    words = split_words(found.commands[-1])[1]
    read = vllm_router().parse_args(words[1 if engine == "vllm" else 3 :])
    ports = [flag(words, "--port") for _, words in servers(found)]
    assert [one[0].rpartition(":")[2] for one in [*read.prefill, *read.decode]] == ports
    assert len(read.prefill) == split.prefill.replicas and read.port == 8000
    assert read.vllm_pd_disaggregation is (engine == "vllm") and read.pd_disaggregation is (engine == "sglang")


# ---- SGLang ------------------------------------------------------------------------------------------------------------


def test_sglang_prefill_servers_have_bootstrap_ports_that_the_router_names() -> None:
    found = started("2×TP2+TP4", "sglang")
    roles = [flag(words, "--disaggregation-mode") for _, words in servers(found)]
    assert roles == ["prefill", "prefill", "decode"]
    ports = [flag(words, "--disaggregation-bootstrap-port") for _, words in servers(found)[:2]]
    assert "--disaggregation-bootstrap-port" not in servers(found)[2][1]
    read = vllm_router().parse_args(split_words(found.commands[-1])[1][3:])
    assert [one[1] for one in read.prefill] == ports and len(set(ports)) == 2


# ---- TensorRT-LLM --------------------------------------------------------------------------------------------------------


def test_tensorrt_llm_reads_a_file_for_each_role_and_one_of_all() -> None:
    yaml = pytest.importorskip("yaml")
    found = started("2×TP2+TP4", "tensorrt-llm")
    files = {match[1]: yaml.safe_load(match[2]) for command in found.commands
             if (match := re.match(r"cat > (\S+) <<'EOF'\n(.*)\nEOF", command, re.DOTALL))}  # fmt: skip
    context, generation, both = (files[f"apexsim-{name}.yaml"] for name in ("trtllm-prefill", "trtllm-decode", "disaggregated"))
    assert context["disable_overlap_scheduler"] is True and generation["disable_overlap_scheduler"] is False
    assert all(one["cache_transceiver_config"]["backend"] == "DEFAULT" for one in (context, generation))
    assert all(one["cache_transceiver_config"]["max_tokens_in_buffer"] >= LOAD["prompt_len"] for one in (context, generation))
    ports = [flag(words, "--port") for _, words in servers(found)]
    urls = [url.rpartition(":")[2] for side in ("context_servers", "generation_servers") for url in both[side]["urls"]]
    assert urls == ports and both["context_servers"]["num_instances"] == 2 and both["port"] == 8000
    assert [flag(words, "--extra_llm_api_options") for _, words in servers(found)] == ["apexsim-trtllm-prefill.yaml"] * 2 + [
        "apexsim-trtllm-decode.yaml"
    ]
    assert found.commands[-1] == "trtllm-serve disaggregated -c apexsim-disaggregated.yaml"


# ---- nodes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_pools_on_several_nodes_name_them(engine: str) -> None:
    found = started("2×TP8+TP8", engine, 8, 3, model="qwen3-32b")
    read = vllm_router().parse_args(split_words(found.commands[-1])[1][1 if engine == "vllm" else 3 :])
    heads = [re.search(r"\$(NODE\d)", one[0])[1] for one in [*read.prefill, *read.decode]]  # type: ignore[index]
    assert sorted(heads) == ["NODE0", "NODE1", "NODE2"]
    if engine == "vllm":
        hosts = [env["VLLM_NIXL_SIDE_CHANNEL_HOST"] for env, _ in servers(found)]
        assert sorted(hosts) == ["$NODE0", "$NODE1", "$NODE2"]


def test_pools_of_two_gpus_have_nodes_of_their_own() -> None:
    found = started("TP8+TP8@h200-sxm", gpus=8)
    assert "NODE_RANK" in found.script and "NODE1" in found.commands[-1] and "NODE0" in found.commands[-1]


def test_what_cannot_be_started_is_said() -> None:
    found = started("2×TP1+TP2", gpus=4, engine="vllm@0.8.0")
    assert not found.runnable and "no word for a prefill server" in found.notes[0]


# ---- orchestrators --------------------------------------------------------------------------------------------------------


def stacked(plan: str, engine: str, gpus: int = 8) -> dict[str, str | None]:
    """The same pools under each orchestrator."""
    setting, precision, *_ = api.ask("llama-3.1-8b", gpu="h100-sxm", gpus=gpus, engine=engine, **LOAD)
    split = parse_split(plan, precision)
    return stacks(with_pools(setting, Roles(engine, {}), split), split)


@pytest.mark.parametrize("engine", ENGINES)
def test_dynamo_starts_a_frontend_and_a_worker_for_each_server(engine: str) -> None:
    text = stacked("2×TP2+TP4", engine)["dynamo"]
    assert text and subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    lines = [split_words(line.removesuffix("&")) for line in re.sub(r"\\\n", " ", text).split("\n") if " -m dynamo." in line]
    assert lines[0][1][2] == "dynamo.frontend" and flag(lines[0][1], "--http-port") == "8000"
    workers = [words for _, words in lines[1:]]
    assert [flag(words, "--disaggregation-mode") for words in workers] == ["prefill", "prefill", "decode"]
    assert all("--port" not in words for words in workers)
    gpus = [gpu for env, _ in lines[1:] for gpu in env["CUDA_VISIBLE_DEVICES"].split(",")]
    assert sorted(gpus, key=int) == [str(i) for i in range(8)]
    if engine == "vllm":
        sides = [env["VLLM_NIXL_SIDE_CHANNEL_PORT"] for env, _ in lines[1:]]
        assert len(set(sides)) == 3 and flag(workers[0], "--model") == flag(workers[2], "--model")
    if engine == "tensorrt-llm":
        assert "tensor_parallel_size: 2" in text and "tensor_parallel_size: 4" in text


def test_llm_d_gets_the_values_of_both_roles() -> None:
    yaml = pytest.importorskip("yaml")
    values = yaml.safe_load(stacked("2×TP2+TP4", "vllm")["llm-d"] or "")
    assert values["routing"]["proxy"]["connector"] == "nixlv2"
    assert [values[role]["replicas"] for role in ("prefill", "decode")] == [2, 1]
    for role, width in (("prefill", "2"), ("decode", "4")):
        (container,) = values[role]["containers"]
        args = container["args"]
        assert container["image"].startswith("vllm/vllm-openai:v")  # which the chart requires
        assert flag(args, "--tensor-parallel-size") == width == container["resources"]["limits"]["nvidia.com/gpu"]
        assert json.loads(flag(args, "--kv-transfer-config"))["kv_role"] == "kv_both"
        assert args.count("--port") == 1 and int(flag(args, "--port")) == container["ports"][0]["containerPort"]
    assert stacked("2×TP2+TP4", "sglang")["llm-d"] is None


def test_one_pool_has_no_roles_to_orchestrate() -> None:
    setting, precision, *_ = api.ask("llama-3.1-8b", gpu="h100-sxm", gpus=2, **LOAD)
    assert stacks(setting, parse_plan("TP2", precision)) == {}
