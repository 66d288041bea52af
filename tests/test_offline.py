"""Rows of offline throughput: how what they leave open is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from apexsim.cost.load import ExpertLoad
from apexsim.validate.cases import Case
from apexsim.validate.offline_cases import offline

ROW = {"id": "a", "model": "m", "gpu": "H200", "precision": "FP8", "tp": "8", "attn_dp": "1", "ep": "", "pp": "1", "gpus": "8",
       "isl": "1000", "osl": "1000", "num_requests": "10", "out_tok_s_per_gpu": "1000"}  # fmt: skip


def case(**over: str) -> Case:
    found = offline({**ROW, **over}, Path("rows.csv"))
    assert isinstance(found, Case)
    return found


@pytest.mark.parametrize(
    ("config", "over", "plan"),
    [
        ("Qwen--Qwen3-235B-A22B", {}, "DEP8"),
        ("Qwen--Qwen3-235B-A22B", {"ep": "8"}, "TEP8"),
        ("Qwen--Qwen3-235B-A22B", {"tp": "1", "attn_dp": "4", "ep": "4", "gpus": "4"}, "DEP4"),
        ("meta-llama--Meta-Llama-3.1-70B", {}, "TP8"),
    ],
)
def test_experts_without_a_stated_split_run_with_attention_data_parallel(config: str, over: dict[str, str], plan: str) -> None:
    assert case(config=config, **over).plan.shorthand == plan


@pytest.mark.parametrize(("gpu", "kv"), [("H100", "bf16"), ("H200", "bf16"), ("B200", "fp8")])
def test_gpt_oss_keeps_a_16_bit_cache_on_hopper(gpu: str, kv: str) -> None:
    assert case(config="openai--gpt-oss-120b", gpu=gpu, tp="1", gpus="1").plan.precision.kv == kv


def test_one_expert_per_token_is_balanced_unless_a_load_is_named() -> None:
    assert [ExpertLoad().timed(k, 128) for k in (1, 2, 8)] == ["balanced", "power_law_1.2", "power_law_1.2"]
    assert ExpertLoad("power_law_1.01").timed(1, 16) == "power_law_1.01"
