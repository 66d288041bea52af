"""Measured rows are replayed in the formats and layouts that were served, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from apexsim.errors import InputError
from apexsim.model.families import load_model
from apexsim.model.names import model_names
from apexsim.model.served import served
from apexsim.validate.cases import Case, rules_of
from apexsim.validate.closed_cases import closed_loop
from apexsim.validate.open_cases import open_loop, request_level
from apexsim.validate.rows import Skipped

ROW = {"id": "a", "origin": "inferencex", "backend": "trtllm", "backend_version": "1.1.0", "system": "h200_sxm",
       "config": "openai--gpt-oss-120b", "precision": "fp4", "concurrency": "16", "isl": "1024", "osl": "1024", "len_dist": "",
       "attn_tp": "2", "attn_dp": "1", "moe_tp": "2", "moe_ep": "1", "measured_date": "2025-12-15",
       "ttft_mean_ms": "100", "tpot_mean_ms": "10", "e2e_mean_ms": ""}  # fmt: skip


def case(**over: str) -> Case:
    found = closed_loop({**ROW, **over}, Path("rows.csv"))
    assert isinstance(found, Case)
    return found


@pytest.mark.parametrize(
    ("config", "label", "vendor", "parts", "kv"),
    [
        ("zai-org--GLM-5", "fp8", "NVIDIA", {"attention": "fp8_block", "experts": "fp8_block"}, ""),
        ("zai-org--GLM-5", "fp4", "NVIDIA", {"attention": "bf16", "experts": "nvfp4"}, "fp8"),
        ("deepseek-ai--DeepSeek-V3", "fp8", "NVIDIA", {"attention": "fp8_block", "experts": "fp8_block"}, ""),
        ("deepseek-ai--DeepSeek-V4-Pro", "fp8", "NVIDIA", {"experts": "fp8_block"}, ""),
        ("deepseek-ai--DeepSeek-V4-Pro", "fp4", "NVIDIA", {"experts": "mxfp4", "attention": "fp8_block"}, ""),
        ("Qwen--Qwen3-235B-A22B", "fp4", "NVIDIA", {"attention": "nvfp4", "experts": "nvfp4"}, "fp8"),
        ("Qwen--Qwen3-32B", "bfloat16", "NVIDIA", {"attention": "bf16", "ffn": "bf16"}, ""),
        ("moonshotai--Kimi-K2.5", "int4", "NVIDIA", {"attention": "bf16", "shared": "bf16", "experts": "int4"}, ""),
        ("moonshotai--Kimi-K2.5", "fp4", "NVIDIA", {"attention": "bf16", "experts": "nvfp4"}, "fp8"),
        ("openai--gpt-oss-120b", "fp4", "NVIDIA", {"attention": "bf16", "experts": "mxfp4"}, ""),
        ("openai--gpt-oss-120b", "", "AMD", {"attention": "bf16", "experts": "mxfp4"}, ""),
    ],
)
def test_formats_are_those_of_the_checkpoint(config: str, label: str, vendor: str, parts: dict[str, str], kv: str) -> None:
    found = served(config, label, vendor)
    weights = dict(found.model.weight_dtypes)
    assert {part: weights.get(part, "bf16").partition("~")[0] for part in parts} == parts
    assert (found.model.kv_dtype, found.assumed) == (kv, "")


@pytest.mark.parametrize(
    ("config", "label", "vendor", "parts", "told"),
    [
        ("deepseek-ai--DeepSeek-R1", "fp4", "NVIDIA", {"experts": "nvfp4", "shared": "nvfp4"}, "as in nvidia--DeepSeek-V3.1-NVFP4"),
        ("deepseek-ai--DeepSeek-R1", "fp4", "AMD", {"experts": "mxfp4"}, "MXFP4 as amd makes it"),
        ("Qwen--Qwen3.5-397B-A17B", "fp8", "NVIDIA", {"attention": "fp8_block", "experts": "fp8_block"}, "as in Qwen--Qwen3"),
        ("meta-llama--Meta-Llama-3.1-8B", "fp8", "NVIDIA", {"attention": "fp8"}, "as in nvidia--Llama-3.1-70B-Instruct-FP8"),
        ("meta-llama--Meta-Llama-3.1-8B", "fp4", "NVIDIA", {"attention": "nvfp4", "ffn": "nvfp4"}, "NVFP4 as nvidia makes it"),
        ("01-ai--Yi-34B", "fp8", "NVIDIA", {"attention": "fp8", "ffn": "fp8"}, "FP8 as nvidia makes it"),
        ("openai--gpt-oss-20b", "fp8", "NVIDIA", {"experts": "mxfp4"}, "all that its own checkpoint has"),
    ],
)
def test_without_such_a_checkpoint_its_makers_others_speak_and_it_is_said(
    config: str, label: str, vendor: str, parts: dict[str, str], told: str
) -> None:
    found = served(config, label, vendor)
    assert parts.items() <= dict(found.model.weight_dtypes).items() and told in found.assumed


def test_a_known_maker_comes_before_the_owner() -> None:
    assert dict(served("Qwen--Qwen3-235B-A22B", "fp8").model.weight_dtypes)["experts"] == "fp8_block"
    assert dict(served("Qwen--Qwen3-235B-A22B", "fp8", maker="nvidia").model.weight_dtypes)["experts"] == "fp8"


@pytest.mark.parametrize("label", ["fp8", "fp4"])
def test_bundled_checkpoints_speak_for_the_models_that_they_quantise(label: str) -> None:
    """Every model whose quantised checkpoint is bundled is read in that checkpoint's formats."""
    tail, start = {"fp8": ("-FP8", ""), "fp4": ("-NVFP4", "nvidia--")}[label]
    known = [n for n in model_names() if n.startswith(start) and n.endswith(tail)]
    pairs = [(m, n) for n in known for m in model_names() if n == m + tail or (start and n == start + m.partition("--")[2] + tail)]
    assert len(pairs) > 4
    for plain, quantised in pairs:
        own = dict(load_model(plain).weight_dtypes)
        if any(fmt in ("nvfp4", "mxfp4") if label == "fp4" else fmt.startswith("fp8") for fmt in own.values()):
            continue  # the model itself carries the format
        assert dict(served(plain, label).model.weight_dtypes) == dict(load_model(quantised).weight_dtypes), quantised


def test_formats_that_nobody_states_are_not_guessed() -> None:
    with pytest.raises(InputError, match=r"number formats of .* are not known"):
        served("zai-org--GLM-5", "fp6")


def test_a_format_that_only_the_label_states_is_of_the_usual_recipe_and_says_so() -> None:
    found = served("zai-org--GLM-5", "int4")
    assert found.assumed and {form.partition("~")[0] for _, form in found.model.weight_dtypes} >= {"int4"}


@pytest.mark.parametrize(("stated", "kv"), [("", "fp8"), ("auto", "fp8"), ("fp8_e4m3", "fp8"), ("bfloat16", "bf16")])
def test_a_cache_without_a_word_is_the_checkpoints(stated: str, kv: str) -> None:
    """NVIDIA's NVFP4 checkpoints state an FP8 cache."""
    row = {"config": "moonshotai--Kimi-K2.5", "backend": "vllm", "system": "b200_sxm", "attn_tp": "8", "moe_tp": "8"}
    assert case(**row, launch_kv_dtype=stated).plan.precision.kv == kv


@pytest.mark.parametrize(("name", "kv"), [("nvidia/Llama-3.1-8B-NVFP4", "fp8"), ("unsloth/Llama-3.1-8B-NVFP4", "fp8"),
                                          ("RedHatAI/Llama-3.1-8B-NVFP4", ""), ("meta-llama/Llama-3.1-8B", "")])  # fmt: skip
def test_only_modelopts_nvfp4_checkpoints_state_an_fp8_cache(name: str, kv: str) -> None:
    assert load_model(name).kv_dtype == kv


@pytest.mark.parametrize(("date", "plan"), [("2025-11-02", "TEP2"), ("2025-12-15", "TP2")])
def test_gpt_oss_ran_expert_parallel_whatever_rows_of_2025_11_say(date: str, plan: str) -> None:
    assert case(measured_date=date).plan.shorthand == plan


def test_graphs_are_those_of_the_launch() -> None:
    assert case(launch_cudagraph="256").engine.max_capture == 256
    assert case(launch_cudagraph="4").engine.pad == (1, 2, 4) and case().engine.max_capture == 128


def test_a_version_that_is_not_stated_is_the_newest_of_its_day() -> None:
    assert rules_of("vllm", "", "2025-11-07")[0].version == "0.11.0" and "2025-11-07" in rules_of("vllm", "nightly", "2025-11-07")[1][0]
    assert rules_of("vllm", "0.12.3", "2020-01-01") == (replace(rules_of("vllm", "0.12.0")[0], asked="0.12.3"), ())


def test_the_template_stands_in_front_of_every_prompt() -> None:
    plain, longer = (case(len_dist="uniform[0.8L,L] seed0", template_tokens=t, num_prompts="50").workload for t in ("0", "67"))
    assert plain.prompt.min() >= int(0.8 * 1024) and longer.prompt.min() >= int(0.8 * (1024 - 67)) + 67
    assert longer.prompt.max() <= 1024 and longer.size == 50


def test_rows_of_drafting_servers_say_so() -> None:
    found = closed_loop({**ROW, "spec": "mtp"}, Path("rows.csv"))
    assert isinstance(found, Skipped) and "speculative" in found.reason


@pytest.mark.parametrize(("ep", "plan"), [("True", "DEP2"), ("False", "2×TP1")])
def test_data_parallel_ranks_with_expert_parallelism_are_lanes(ep: str, plan: str) -> None:
    cells = {"hw": "H100", "model": "m", "tp": "1", "dp": "2", "ep": ep, "max_num_seqs": "", "max_num_batched_tokens": "2048",
             "vllm": "0.19.0", "dtype": "bf16", "config": "Qwen--Qwen3-30B-A3B", "request_id": "r", "arrival_s": "0", "isl": "10",
             "osl": "10", "ttft_s": "0.1", "tpot_ms": "10", "latency_s": "1"}  # fmt: skip
    found = next(request_level([cells], Path("rows.csv")))
    assert isinstance(found, Case) and found.plan.shorthand == plan and found.engine.max_num_seqs > 1


def test_a_blank_setting_is_the_engines_own(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"StartTimeOffset": 0, "ContextTokens": 10, "GeneratedTokens": 5}\n')
    cells = {"id": "a", "engine": "sglang", "engine_version": "0.5.6", "gpu": "H100-SXM-80GB", "weight_dtype": "bf16", "kv_dtype": "bf16",
             "memory_fraction": "", "max_model_len": "4096", "max_num_seqs": "", "chunked_prefill": "0", "token_budget": "",
             "custom_all_reduce": "1", "workload": "w", "rate": "1", "dp": "1", "tp": "1", "pp": "1", "requests_file": "r.jsonl",
             "ttft_mean_s": "1", "itl_mean_s": "1", "e2e_mean_s": "1", "config": "meta-llama--Meta-Llama-3.1-8B"}  # fmt: skip
    found = open_loop(cells, tmp_path / "rows.csv")
    assert isinstance(found, Case) and found.engine.max_num_seqs > 1
