"""Measured rows are replayed in the formats and layouts that were served, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from apexsim.errors import InputError
from apexsim.model.families import load_model, model_names
from apexsim.validate.cases import Case, closed_loop, open_loop, request_level, served_precision

ROW = {"id": "a", "origin": "inferencex", "backend": "trtllm", "backend_version": "1.1.0", "system": "h200_sxm", "family": "gptoss",
       "config": "openai--gpt-oss-120b", "precision": "fp4", "concurrency": "16", "isl": "1024", "osl": "1024", "len_dist": "",
       "attn_tp": "2", "attn_dp": "1", "moe_tp": "2", "moe_ep": "1", "measured_date": "2025-12-15",
       "ttft_mean_ms": "100", "tpot_mean_ms": "10", "e2e_mean_ms": ""}  # fmt: skip


def case(**over: str) -> Case:
    found = closed_loop({**ROW, **over}, Path("rows.csv"))
    assert isinstance(found, Case)
    return found


@pytest.mark.parametrize(
    ("family", "label", "config", "experts", "kv"),
    [("glm5", "fp8", "zai-org--GLM-5", "fp8_block", "bf16"), ("glm5", "fp4", "zai-org--GLM-5", "nvfp4", "fp8"),
     ("deepseek-v3", "fp8", "deepseek-ai--DeepSeek-V3", "fp8_block", "bf16"), ("qwen3-coder", "bf16", "", "bf16", "bf16"),
     ("kimik2.5", "int4", "moonshotai--Kimi-K2.5", "int4", "bf16"), ("kimik2.5", "fp4", "moonshotai--Kimi-K2.5", "nvfp4", "fp8"),
     ("gptoss", "fp4", "openai--gpt-oss-120b", "mxfp4", "bf16")],
)  # fmt: skip
def test_formats_are_those_of_the_checkpoint(family: str, label: str, config: str, experts: str, kv: str) -> None:
    found = served_precision(family, label, "", config)
    assert (found.weight("experts"), found.kv) == (experts, kv)


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
        assert dict(served_precision("", label, "", plain).weights) == dict(load_model(quantised).weight_dtypes), quantised


@pytest.mark.parametrize(("family", "label", "config"), [("newmodel", "fp8", "01-ai--Yi-34B"), ("newmodel", "fp6", "zai-org--GLM-5"),
                                                         ("", "", ""), ("glm5", "int4", "zai-org--GLM-5")])  # fmt: skip
def test_formats_that_nobody_states_are_not_guessed(family: str, label: str, config: str) -> None:
    with pytest.raises(InputError, match=r"number formats of .* are not known"):
        served_precision(family, label, "", config)


@pytest.mark.parametrize(("date", "plan"), [("2025-11-02", "TEP2"), ("2025-12-15", "TP2")])
def test_gpt_oss_ran_expert_parallel_whatever_rows_of_2025_11_say(date: str, plan: str) -> None:
    assert case(measured_date=date).plan.shorthand == plan


def test_graphs_are_those_of_the_launch() -> None:
    assert case(launch_cudagraph="256").engine.max_capture == 256
    assert case(launch_cudagraph="4").engine.pad == (1, 2, 4) and case().engine.max_capture == 128


@pytest.mark.parametrize(("ep", "plan"), [("True", "DEP2"), ("False", "2×TP1")])
def test_data_parallel_ranks_with_expert_parallelism_are_lanes(ep: str, plan: str) -> None:
    cells = {"hw": "H100", "model": "m", "tp": "1", "dp": "2", "ep": ep, "max_num_seqs": "128", "max_num_batched_tokens": "2048",
             "vllm": "0.19.0", "dtype": "bf16", "config": "Qwen--Qwen3-30B-A3B", "request_id": "r", "arrival_s": "0", "isl": "10",
             "osl": "10", "ttft_s": "0.1", "tpot_ms": "10", "latency_s": "1"}  # fmt: skip
    found = next(request_level([cells], Path("rows.csv")))
    assert isinstance(found, Case) and found.plan.shorthand == plan


def test_a_blank_setting_is_the_engines_own(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"StartTimeOffset": 0, "ContextTokens": 10, "GeneratedTokens": 5}\n')
    cells = {"id": "a", "engine": "sglang", "engine_version": "0.5.6", "gpu": "H100-SXM-80GB", "weight_dtype": "bf16", "kv_dtype": "bf16",
             "memory_fraction": "", "max_model_len": "4096", "max_num_seqs": "", "chunked_prefill": "0", "token_budget": "",
             "custom_all_reduce": "1", "workload": "w", "rate": "1", "dp": "1", "tp": "1", "pp": "1", "requests_file": "r.jsonl",
             "ttft_mean_s": "1", "itl_mean_s": "1", "e2e_mean_s": "1", "config": "meta-llama--Meta-Llama-3.1-8B"}  # fmt: skip
    found = open_loop(cells, tmp_path / "rows.csv")
    assert isinstance(found, Case) and found.engine.max_num_seqs > 1
