"""Memory of one GPU against start-up logs of real engines, and the laws the ledger keeps.

Log figures: vLLM 0.15-0.19 on H100-80GB-SXM (79.19 GiB), from github.com/llm-d-incubation/llm-d-planner (Apache-2.0).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from apexsim.engines import EngineRow, load_engine, override, settled
from apexsim.errors import Rejected
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.plan.memory import Room, kv_pool, log_lines, request_blocks, room, stage_weights, stages_of
from apexsim.plan.plan import Layout, Plan, Precision, parse_plan
from apexsim.plan.space import candidates
from apexsim.units import GiB

H100 = replace(load_gpu("h100-sxm"), memory_bytes=79.19 * GiB)
B70 = load_model("llama-3.1-70b")


def engine(spec: str, length: int, **given: object) -> EngineRow:
    return settled(override(load_engine(spec), **given), H100.memory_bytes, H100.name, length)


def fits(model: str, plan: str, spec: str, length: int, **given: object) -> Room | Rejected:
    parsed = parse_plan(plan)
    return room(load_model(model), parsed, Cluster(H100, parsed.devices), engine(spec, length, **given), length)


LOGS = [
    # version, model, weights GiB, activation GiB, non-torch GiB, KV GiB, KV tokens
    ("0.19.0", "codellama--CodeLlama-7b-hf", 12.56, 0.77, 0.25, 61.66, 126256),
    ("0.19.0", "google--gemma-2-9b-it", 17.22, 3.65, 0.25, 54.12, 168880),
    ("0.19.0", "google--gemma-7b", 15.91, 3.63, 0.25, 55.44, 129760),
    ("0.19.0", "microsoft--phi-4", 27.39, 1.52, 0.25, 46.08, 241568),
    ("0.19.0", "Qwen--Qwen3-8B", 15.27, 2.21, 0.25, 57.50, 418688),
    ("0.19.0", "Qwen--Qwen3-30B-A3B", 56.88, 2.68, 0.27, 15.41, 168288),
    ("0.16.0", "Qwen--Qwen3-14B", 27.52, 5.64, 0.13, 41.94, 274848),
    ("0.17.0", "Qwen--Qwen3-14B", 27.52, 2.23, 0.13, 45.34, 297152),
    ("0.18.0", "Qwen--Qwen3-14B", 27.52, 2.23, 0.25, 45.23, 296400),
]


@pytest.mark.parametrize(("version", "model", "weights", "peak", "other", "kv", "tokens"), LOGS)
def test_start_up_logs_of_vllm(version: str, model: str, weights: float, peak: float, other: float, kv: float, tokens: int) -> None:
    found = fits(model, "TP1", f"vllm@{version}", 8192, memory_fraction=0.95)
    assert isinstance(found, Room)
    ledger = dict(found.ledger)
    assert ledger["weights"] / GiB == pytest.approx(weights, rel=0.004)
    assert ledger["activation peak"] / GiB == pytest.approx(peak, abs=0.2)
    assert ledger["non-torch"] / GiB == pytest.approx(other, abs=0.03)
    assert found.tokens == pytest.approx(tokens, rel=0.015)


@pytest.mark.parametrize(("version", "model", "weights", "peak", "other", "kv", "tokens"), LOGS)
def test_tokens_follow_from_kv_bytes(version: str, model: str, weights: float, peak: float, other: float, kv: float, tokens: int) -> None:
    row = engine(f"vllm@{version}", 8192)
    pool = kv_pool(parse_plan("TP1"), stages_of(load_model(model), 1)[0], row)
    assert int(kv * GiB // pool.block_bytes) // len(pool.groups) * 16 == pytest.approx(tokens, rel=0.001)


def test_the_log_is_repeated_in_its_own_words() -> None:
    found = fits("Qwen--Qwen3-8B", "TP1", "vllm@0.19.0", 8192)
    assert isinstance(found, Room)
    assert log_lines(found)[1].startswith("GPU KV cache size: ") and log_lines(found)[2].endswith("x")


def test_kv_bytes_per_token_of_a_70b_are_327680() -> None:
    pool = kv_pool(parse_plan("TP1"), stages_of(B70, 1)[0], engine("vllm", 8192))
    assert pool.block_bytes / pool.block_tokens == 327680


def test_fp8_cache_is_half_and_kv_heads_repeat_beyond_tp_8() -> None:
    row, stage = engine("vllm", 8192), stages_of(B70, 1)[0]
    per = {
        tp: kv_pool(Plan(1, 1, Layout(tp=tp), Layout(tp=tp), Precision(kv=kv)), stage, row).block_bytes
        for tp, kv in ((8, "bf16"), (16, "bf16"), (4, "fp8"))
    }
    assert per[8] == per[16] == per[4]


def test_mla_cache_is_whole_on_every_device() -> None:
    row, stage = engine("vllm", 8192), stages_of(load_model("deepseek-ai--DeepSeek-V3"), 1)[0]
    sizes = {kv_pool(parse_plan(p), stage, row).block_bytes / 16 for p in ("TP1", "TP8")}
    assert sizes == {70272}


def test_windowed_layers_form_pools_and_need_fewer_blocks() -> None:
    model = load_model("google--gemma-2-9b-it")
    stage, row = stages_of(model, 1)[0], engine("vllm@0.19.0", 8192, max_num_batched_tokens=2048)
    pool, old = kv_pool(parse_plan("TP1"), stage, row), kv_pool(parse_plan("TP1"), stage, engine("vllm@0.8.0", 8192))
    assert (len(pool.groups), len(old.groups), old.block_bytes) == (2, 1, 2 * pool.block_bytes)
    assert request_blocks(pool, 8192, row) == 512 + (4095 + 2048 + 15) // 16 + 1


def test_the_ledger_adds_up_to_the_gpu_and_names_the_tightest_stage() -> None:
    for plan in candidates(B70, Cluster(H100, 8)).plans:
        found = room(B70, plan, Cluster(H100, 8), engine("vllm", 8192), 8192)
        if isinstance(found, Room):
            assert sum(size for _, size in found.ledger) == pytest.approx(H100.memory_bytes)
            assert all(size >= 0 for _, size in found.ledger)
            assert found.stage < plan.stages and found.max_concurrency >= 1


def test_stages_share_the_weights_and_the_last_one_holds_the_head() -> None:
    whole = stage_weights(B70, parse_plan("TP1"), stages_of(B70, 1)[0])
    plan = parse_plan("PP8×TP1")
    parts = [stage_weights(B70, plan, stage) for stage in stages_of(B70, 8)]
    rope = 2.0 * B70.max_length * 128
    assert sum(parts) - 7 * rope == pytest.approx(whole)
    assert parts[0] > parts[1] == parts[6] < parts[7]


def test_tied_embeddings_are_one_copy_on_one_stage_and_two_on_several() -> None:
    model = load_model("gpt2")
    alone = stage_weights(model, parse_plan("TP1"), stages_of(model, 1)[0])
    two = sum(stage_weights(model, parse_plan("PP2×TP1"), stage) for stage in stages_of(model, 2))
    assert two - alone == 2.0 * 50304 * 768


def test_quantised_models_keep_embedding_and_head_in_16_bit() -> None:
    plan = Plan(1, 1, Layout(), Layout(), Precision(default="fp8"))
    linear = (70_553_706_496 - 2 * 128256 * 8192) * 1.0
    assert stage_weights(B70, plan, stages_of(B70, 1)[0]) == pytest.approx(linear + 2 * 2 * 128256 * 8192, rel=0.001)


def test_cell_replicas_repeat_weights() -> None:
    sizes = [stage_weights(B70, parse_plan(p), stages_of(B70, 1)[0]) for p in ("TP8", "DP2TP4/TP8", "TP8/DP2TP4", "TP8/DP8")]
    assert sizes == sorted(sizes)


def test_what_does_not_fit_says_how_much_is_missing() -> None:
    found = fits("llama-3.1-70b", "8×TP1", "vllm", 8192)
    assert isinstance(found, Rejected) and found.shorthand == "8×TP1"
    assert found.reason.startswith("weights 131.4 GiB") and found.reason.endswith("GiB short")


def test_a_cache_smaller_than_one_request_is_refused() -> None:
    found = fits("llama-3.1-70b", "TP2", "vllm", 65536)
    assert isinstance(found, Rejected) and found.reason.endswith("tokens < one request of 65,536")


def test_graphs_count_inside_the_budget_from_0_21() -> None:
    before, after = (fits("Qwen--Qwen3-8B", "TP1", f"vllm@{v}", 8192) for v in ("0.20.0", "0.21.0"))
    assert isinstance(before, Room) and isinstance(after, Room)
    assert before.kv_bytes - after.kv_bytes == pytest.approx(dict(after.ledger)["CUDA graphs"])


def test_eager_mode_captures_nothing() -> None:
    found = fits("Qwen--Qwen3-8B", "TP1", "vllm", 8192, pad=())
    assert isinstance(found, Room) and dict(found.ledger)["CUDA graphs"] == 0


@pytest.mark.parametrize(("spec", "base"), [("sglang", "static"), ("tensorrt-llm", "free")])
def test_memory_fractions_mean_different_things(spec: str, base: str) -> None:
    row = load_engine(spec)
    found = fits("Qwen--Qwen3-8B", "TP1", spec, 8192)
    assert isinstance(found, Room) and row.memory.budget == base
    ledger = dict(found.ledger)
    rest = H100.memory_bytes - ledger["non-torch"]
    if base == "static":
        assert found.kv_bytes == pytest.approx(row.memory_fraction * rest - ledger["weights"])
    else:
        used = ledger["weights"] + ledger["activation peak"] + ledger["CUDA graphs"]
        assert found.kv_bytes == pytest.approx(row.memory_fraction * (rest - used))


def test_more_memory_never_holds_less() -> None:
    tokens = [fits("llama-3.1-8b", "TP1", "vllm", 8192, memory_fraction=f).tokens for f in (0.3, 0.5, 0.7, 0.9)]
    assert tokens == sorted(tokens)
