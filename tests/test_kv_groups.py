"""Hybrid caches: what the engine's log says, and what the pool is really worth."""

from __future__ import annotations

import pytest

from apexsim.engines import load_engine, override, settled
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.plan.memory import Room, room
from apexsim.plan.plan import Layout, Plan, Precision
from apexsim.plan.pool import BlockGroup, CacheShares, concurrency, request_blocks, served_blocks, steady_blocks
from apexsim.plan.weights import stages_of

VLLM = override(load_engine("vllm"), max_num_batched_tokens=8192)
HYBRID = CacheShares(1.0, (BlockGroup(16), BlockGroup(16, 127, 1)))


def sized(name: str, gpu: str, tp: int, kv: str, length: int, **settings: object) -> Room:
    cluster, model = Cluster(load_gpu(gpu), tp), load_model(name)
    engine = settled(override(load_engine("vllm@0.25.0"), **settings), cluster.gpu.memory_bytes, gpu, length)
    found = room(model, Plan(1, 1, Layout(tp=tp), Layout(1, 1, tp), Precision(tuple(model.weight_dtypes), "bf16", "auto", kv)),
                 cluster, engine, length)  # fmt: skip
    assert isinstance(found, Room)
    return found


def test_a_decoding_request_holds_its_window_not_the_chunk_it_came_in() -> None:
    assert steady_blocks(HYBRID, 8000.0) == pytest.approx(500 + 127 / 16 + 1)
    assert request_blocks(HYBRID, 8000, VLLM) > 1.9 * steady_blocks(HYBRID, 8000.0)
    worth = served_blocks(HYBRID, 100_000, 8000.0, 9000, VLLM)
    assert 96_000 < worth < 100_000  # nearly all of it serves what keeps everything


def test_a_plain_pool_is_worth_what_it_holds_and_a_small_one_holds_the_longest() -> None:
    assert served_blocks(CacheShares(1.0, (BlockGroup(16),)), 777, 5000.0, 9000, VLLM) == 777
    needed = request_blocks(HYBRID, 9000, VLLM)
    assert served_blocks(HYBRID, needed, 8000.0, 9000, VLLM) >= 9000 // 16


def test_short_contexts_are_worth_less_where_every_request_holds_a_state() -> None:
    pool = CacheShares(1.0, (BlockGroup(16),), state_groups=1, state_blocks=2)
    short, long = (served_blocks(pool, 10_000, context, 16_000, VLLM) for context in (64.0, 8000.0))
    assert short < 0.7 * long < 10_000


def test_deepseek_v4_has_the_five_groups_of_vllm_and_its_log_line() -> None:
    """8 × B200, TEP8: 20.43 requests of a million tokens (public start-up log of vLLM 0.25)."""
    found = sized("deepseek-ai/DeepSeek-V4-Flash", "b200-sxm", 8, "fp8", 1_048_576, memory_fraction=0.95, max_num_batched_tokens=8192,
                  max_num_seqs=256, block_size=256)  # fmt: skip
    assert sorted(group.block_tokens for group in found.pool.groups) == [4, 8, 64, 64, 256]
    assert found.pool.block_tokens == 256
    assert found.max_concurrency == pytest.approx(20.43, rel=0.03)


def test_a_request_of_deepseek_v4_costs_gigabytes_whatever_its_length() -> None:
    found = sized("deepseek-ai/DeepSeek-V4-Flash", "b200-sxm", 8, "fp8", 1_048_576)
    engine = override(load_engine("vllm@0.25.0"), max_num_batched_tokens=8192)
    short, long = (request_blocks(found.pool, n, engine) * found.pool.block_bytes / 2**30 for n in (16_384, 1_048_576))
    assert 3.0 < short < 4.0 and 6.0 < long < 8.0
    assert concurrency(found.pool, 100_000, 16_384, engine) < 40


def test_layers_that_look_at_a_window_alone_keep_one_cache() -> None:
    model = load_model("deepseek-ai/DeepSeek-V4-Flash")
    kept = {len(cell.caches()) for stage in stages_of(model, 1) for block, _ in stage.layers for cell in block.cells}
    assert kept == {0, 1, 3, 5}  # FFNs, the window, compressed by 128, by 4 with an indexer
