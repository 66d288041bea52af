"""Laws of the memory ledger: what one line takes, the KV cache loses, by as much as the engine's budget says, and no other line moves.

docs/memory.md has the three budgets.  KV lost per byte of a line:

    budget   weights  activation peak  non-torch  CUDA graphs           dispatch buffers
    total    1        1                1          1 where they count    1 at most
    static   1        0                fraction   0                     1
    free     fraction, of every line
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apexsim.engines import EngineRow, load_engine, override, settled
from apexsim.errors import Rejected
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.model.model import Model
from apexsim.plan.memory import Room, activations, graphs, non_torch, size
from apexsim.plan.plan import Layout, Plan, Precision, parse_plan
from apexsim.plan.pool import concurrency, kv_pool, request_blocks
from apexsim.plan.weights import stage_weights, stages_of, stored
from apexsim.units import GiB, MiB

H100, L40S = load_gpu("h100-sxm"), load_gpu("l40s")
ENGINES = ("vllm@0.6.0", "vllm@0.19.0", "vllm", "sglang", "tensorrt-llm")
LENGTH = 4096
MORE = 0.25 * GiB  # what a line gets on top


def row(spec: str, **memory: Any) -> EngineRow:
    """A settled engine with other memory rules."""
    found = settled(load_engine(spec), H100.memory_bytes, H100.name, LENGTH)
    return replace(found, memory=replace(found.memory, **memory))


def sized(model: Model, plan: str, engine: EngineRow, gpu: Any = H100, length: int = LENGTH) -> Room:
    """The room of a plan that fits."""
    parsed = parse_plan(plan)
    found = size(model, parsed, Cluster(gpu, parsed.devices), engine, length)
    assert isinstance(found, Room), found
    return found


# ---- each line up, the cache down ---------------------------------------------------------------------------------------

LLAMA, QWEN, NEXT = (load_model(name) for name in ("llama-3.1-8b", "qwen--qwen3-30b-a3b", "qwen3-next-80b-a3b"))
PLANS = [(LLAMA, "TP1"), (LLAMA, "TP2"), (LLAMA, "TP8"), (LLAMA, "PP2×TP2"), (QWEN, "TEP4"), (QWEN, "DEP4"), (QWEN, "TP2")]
NON_TORCH = ("non_torch_bytes", "non_torch_nvlink_bytes", "non_torch_wide_bytes", "non_torch_pcie_bytes")


def more_of(line: str, model: Model, plan: str, engine: EngineRow) -> tuple[Model, EngineRow, float]:
    """(model, engine, byte by which the line must have grown on the tightest GPU)."""
    rules = engine.memory
    if line == "non-torch":
        changed = {name: getattr(rules, name) + MORE for name in NON_TORCH}
        return model, replace(engine, memory=replace(rules, **changed)), MORE
    if line == "CUDA graphs":
        each = MORE / len(engine.pad)
        count = graphs(replace(engine, memory=replace(rules, graph_bytes=1.0)))
        return model, replace(engine, memory=replace(rules, graph_bytes=rules.graph_bytes + each)), each * count
    if line == "dispatch buffers":
        held = MORE if parse_plan(plan).ffn.ep > 1 else 0.0
        return model, replace(engine, memory=replace(rules, dispatch_bytes=rules.dispatch_bytes + MORE)), held
    if line == "activation peak":
        return model, replace(engine, memory=replace(rules, sampler_bytes=rules.sampler_bytes + MORE)), MORE
    assert line == "weights"
    parameters = MORE / 2.0 * parse_plan(plan).attention.tp
    return replace(model, extra_parameters=model.extra_parameters + int(parameters)), engine, MORE


def lost(line: str, engine: EngineRow) -> float:
    """KV bytes lost per byte of a line, by the table above."""
    rules, fraction = engine.memory, engine.memory_fraction
    if rules.budget == "free":
        return fraction
    if rules.budget == "static":
        return {"weights": 1.0, "dispatch buffers": 1.0, "non-torch": fraction}.get(line, 0.0)
    return float(rules.graphs_in_budget) if line == "CUDA graphs" else 1.0


@pytest.mark.parametrize("line", ["weights", "activation peak", "non-torch", "CUDA graphs", "dispatch buffers"])
@pytest.mark.parametrize("spec", ENGINES)
@pytest.mark.parametrize(("model", "plan"), PLANS, ids=[plan for _, plan in PLANS])
def test_what_a_line_takes_the_cache_loses(model: Model, plan: str, spec: str, line: str) -> None:
    engine = row(spec)
    if line == "dispatch buffers" and engine.memory.budget == "total":
        pytest.skip("no engine with this budget has such buffers")
    if line == "activation peak":  # before and after, the sampler is the larger of the two peaks
        engine = replace(engine, memory=replace(engine.memory, sampler_bytes=engine.memory.sampler_bytes + 4 * GiB))
    fuller, heavier, grown = more_of(line, model, plan, engine)
    if parse_plan(plan).stages > 1 and line in ("weights", "activation peak"):
        pytest.skip("another stage may become the tightest one")
    before, after = sized(model, plan, engine), sized(fuller, plan, heavier)
    old, new = dict(before.ledger), dict(after.ledger)
    assert new.get(line, 0.0) - old.get(line, 0.0) == pytest.approx(grown, abs=2 * MiB)  # tensors are rounded up
    assert before.kv_bytes - after.kv_bytes == pytest.approx(lost(line, engine) * grown, abs=2 * MiB)
    for name in old.keys() - {line, "KV cache", "free"}:
        assert new[name] == old[name]
    for found in (before, after):
        assert sum(n for _, n in found.ledger) == pytest.approx(H100.memory_bytes) and min(n for _, n in found.ledger) >= 0
        assert dict(found.ledger)["KV cache"] == found.kv_bytes


@pytest.mark.parametrize("spec", ENGINES)
def test_the_budget_is_the_fraction_of_what_it_is_said_to_be_of(spec: str) -> None:
    """One more per cent of the fraction is one per cent of: the GPU, the GPU less non-torch, or all that is left."""
    engine = row(spec)
    low, high = (sized(LLAMA, "TP1", replace(engine, memory_fraction=f)) for f in (0.6, 0.61))
    parts = {name: n for name, n in low.ledger if name not in ("KV cache", "free")}
    of = {"total": 0.0, "static": parts["non-torch"], "free": sum(parts.values())}[engine.memory.budget]
    assert high.kv_bytes - low.kv_bytes == pytest.approx(0.01 * (H100.memory_bytes - of))


def test_recurrent_state_shares_the_cache() -> None:
    """A pool of its own takes its share of what both have; the cache keeps the rest."""
    engine = row("sglang")
    share = engine.memory.state_share
    found, plain = sized(NEXT, "TP4", engine), sized(NEXT, "TP4", row("sglang", state_share=0.0))
    state = dict(found.ledger)["recurrent state"]
    assert state == pytest.approx(share * found.kv_bytes) and state + found.kv_bytes == pytest.approx(plain.kv_bytes)
    assert "recurrent state" not in dict(sized(LLAMA, "TP1", engine).ledger)


# ---- each line by itself ------------------------------------------------------------------------------------------------


def test_contexts_grow_with_the_gpus_that_talk() -> None:
    rules = {name: float(i + 1) for i, name in enumerate((*NON_TORCH, "non_torch_stage_bytes"))}
    engine = row("vllm", **rules)
    alone, few, wide, pcie, stage = rules.values()

    def held(plan: str, gpu: Any = H100) -> float:
        parsed = parse_plan(plan)
        return non_torch(parsed, Cluster(gpu, parsed.devices), engine)

    assert [held(p) for p in ("TP1", "TP2", "TP4", "TP8", "TP16")] == [alone, few, few, wide, wide]
    assert [held(p) for p in ("2×TP4", "DEP4", "DEP8", "PP2×TP4", "PP8×TP1")] == [few, few, wide, few + stage, alone + stage]
    assert [held(p, L40S) for p in ("TP1", "TP2", "TP8")] == [alone, pcie, pcie]
    assert non_torch(parse_plan("TP2"), Cluster(L40S, 2), row("vllm", **{**rules, "non_torch_bytes": 99.0})) == 99.0


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.sets(st.integers(1, 40), min_size=1), st.integers(1, 50), st.integers(1, 2))
@example({1, 2, 4, 8}, 4, 2)
def test_a_graph_of_each_mode_for_each_size(sizes: set[int], sequences: int, modes: int) -> None:
    """Full graphs hold decodes only, so none is larger than the largest batch of them; that batch has one."""
    engine = replace(row("vllm", graph_bytes=1.0, graph_modes=modes), pad=tuple(sorted(sizes)), max_num_seqs=sequences)
    full = len([s for s in sizes if s < sequences or s == sequences])
    assert graphs(engine) == len(sizes) + (full if modes == 2 else 0)


def test_the_forward_peak_is_linear_in_tokens_and_split_over_tp() -> None:
    engine = replace(row("vllm", sampler_factor=0.0, sampler_bytes=0.0, sampler_experts_bytes=0.0), profile_tokens=0)
    one, two = (activations(LLAMA, parse_plan("TP1"), replace(engine, max_num_batched_tokens=n)) for n in (1000, 2000))
    assert two == pytest.approx(2 * one) and one == pytest.approx(engine.memory.forward_factor * 1000 * (4 * 4096 + 6 * 14336))
    split = activations(LLAMA, parse_plan("TP2"), replace(engine, max_num_batched_tokens=1000))
    assert split == pytest.approx(engine.memory.forward_factor * 1000 * (4 * 4096 + 3 * 14336))
    assert activations(LLAMA, parse_plan("TP1"), replace(engine, max_num_batched_tokens=9, profile_tokens=1000)) == pytest.approx(one)


def test_the_sampler_stands_on_the_last_stage_and_holds_a_batch_of_logits() -> None:
    engine = row("vllm", forward_factor=0.0, sampler_factor=3.0, sampler_bytes=7.0, sampler_experts_bytes=0.0)
    plan = parse_plan("TP1")
    assert activations(LLAMA, plan, engine, last=False) == 0.0
    assert activations(LLAMA, plan, engine) == pytest.approx(3.0 * engine.max_num_seqs * LLAMA.vocab * 4 + 7.0)
    assert activations(replace(LLAMA, has_head=False), plan, engine) == 0.0
    with_experts = row("vllm", forward_factor=0.0, sampler_experts_bytes=1e9)
    without = row("vllm", forward_factor=0.0, sampler_experts_bytes=0.0)
    assert activations(QWEN, plan, with_experts) - activations(QWEN, plan, without) == pytest.approx(1e9)
    assert activations(LLAMA, plan, with_experts) == activations(LLAMA, plan, without)


@pytest.mark.parametrize("spec", ENGINES)
@pytest.mark.parametrize("plan", ["PP2×TP1", "PP2×TP2", "PP3×TP1"])
def test_the_stage_with_least_room_is_the_one_that_counts(plan: str, spec: str) -> None:
    """A sampler as large as it gets makes the last stage the tightest where the budget counts it; else it is the heaviest one."""
    engine, parsed = replace(row(spec, sampler_bytes=12 * GiB), memory_fraction=0.5), parse_plan(plan)
    found = sized(LLAMA, plan, engine)
    stages = stages_of(LLAMA, parsed.stages)
    peak = 0.0 if engine.memory.budget == "static" else 12 * GiB
    held = {s.index: stage_weights(LLAMA, parsed, s, engine) + peak * s.last for s in stages}
    layers = {s.index: sum(n for _, n in s.layers) for s in stages}
    fraction = {"free": engine.memory_fraction}.get(engine.memory.budget, 1.0)
    room = {i: (found.kv_bytes + fraction * (held[found.stage] - held[i])) / layers[i] for i in held}
    assert room[found.stage] <= min(room.values()) + 1024
    assert found.stage == parsed.stages - 1 or engine.memory.budget == "static"
    assert (dict(found.ledger)["activation peak"] >= 12 * GiB) == (found.stage == parsed.stages - 1)


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_an_expert_layer_sees_the_tokens_of_all_lanes(lanes: int) -> None:
    engine = row("vllm", sampler_factor=0.0, sampler_bytes=0.0, sampler_experts_bytes=0.0)
    plan = Plan(1, 1, Layout(lanes, 4 // lanes), Layout(ep=4))
    cell = max(c.top_k * c.inner + c.shared_inner for b in QWEN.decoder.blocks for c in b.cells if hasattr(c, "top_k"))  # type: ignore[attr-defined]
    wanted = engine.memory.forward_factor * engine.max_num_batched_tokens * (4 * QWEN.hidden + 6 * cell / 4) * lanes
    assert activations(QWEN, plan, engine) == pytest.approx(wanted)


# ---- weights ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama-3.1-70b", "qwen--qwen3-30b-a3b", "deepseek-ai--deepseek-v3", "google--gemma-2-9b-it"])
def test_splitting_weights_never_repeats_less_nor_more_than_it_must(name: str) -> None:
    """All devices of a replica together hold the model once or more; twice as many devices, between half and all of it each."""
    model = load_model(name)

    def held(plan: str) -> float:
        parsed = parse_plan(plan)
        return max(stage_weights(model, parsed, stage) for stage in stages_of(model, parsed.stages))

    whole = held("TP1")
    for tp in (2, 4, 8):
        assert whole / tp * 0.999 <= held(f"TP{tp}") < held(f"TP{tp // 2}")
    assert held("PP2×TP1") < whole and held("PP2×TP2") < held("TP2")


def test_formats_change_what_they_name() -> None:
    """Bytes per parameter of each part; embedding, head, norms and router stay in 16 bit unless they are named."""
    fp8 = Precision(default="fp8")
    assert [stored(fp8, part) for part in ("attention", "ffn", "experts", "shared")] == [1.0] * 4
    assert [stored(fp8, part) for part in ("embedding", "head", "norm", "router", "position")] == [2.0] * 5
    assert stored(Precision((("head", "fp8"),), "fp8"), "head") == 1.0 and stored(Precision(), "ffn") == 2.0


# ---- blocks and tokens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ENGINES)
@pytest.mark.parametrize("name", ["llama-3.1-8b", "google--gemma-2-9b-it", "deepseek-ai--deepseek-v2-lite", "openai--gpt-oss-20b"])
def test_blocks_fill_the_cache_and_requests_fill_the_blocks(name: str, spec: str) -> None:
    model = load_model(name)
    engine = row(spec)
    found = sized(model, "TP1", engine)
    pool, count = found.pool, int(found.kv_bytes // found.pool.block_bytes)
    assert 0 <= found.kv_bytes - count * pool.block_bytes < pool.block_bytes
    need = request_blocks(pool, LENGTH, engine)
    assert found.max_concurrency == pytest.approx(count / need) == concurrency(pool, count, LENGTH, engine)
    lengths = [request_blocks(pool, n, engine) for n in range(1, 600)]
    assert lengths == sorted(lengths) and lengths[0] >= len(pool.groups)
    assert found.tokens <= found.max_concurrency * LENGTH * len(pool.groups) + LENGTH


def test_a_window_keeps_no_more_than_it_needs() -> None:
    """A windowed group needs its window and the tokens of one step, and one block more where a window may straddle it."""
    model, engine = load_model("google--gemma-2-9b-it"), replace(row("vllm"), max_num_batched_tokens=512)
    pool = kv_pool(parse_plan("TP1"), stages_of(model, 1)[0], engine)
    windowed = [g for g in pool.groups if g.reach]
    assert windowed and all(g.reach == 4095 and g.spare == 1 for g in windowed)
    far = request_blocks(pool, 1 << 17, engine) - request_blocks(pool, (1 << 17) - 1600, engine)
    assert far == (len(pool.groups) - len(windowed)) * 100  # only full layers grow


def test_longer_requests_fit_less_often_and_more_memory_never_holds_less() -> None:
    engine = row("vllm")
    many = [sized(LLAMA, "TP1", engine, length=n).max_concurrency for n in (256, 1024, 4096, 16384)]
    assert many == sorted(many, reverse=True)
    bytes_ = [sized(LLAMA, "TP1", override(engine, memory_fraction=f)).kv_bytes for f in (0.4, 0.6, 0.8, 0.95)]
    assert bytes_ == sorted(bytes_)


def test_what_is_short_is_said_in_bytes() -> None:
    """The reason of a rejected plan names the very sum that failed."""
    model, plan = load_model("llama-3.1-70b"), parse_plan("TP1")
    engine = row("vllm")
    found = size(model, plan, Cluster(H100, 1), engine, LENGTH)
    assert isinstance(found, Rejected)
    stage = stages_of(model, 1)[0]
    taken = stage_weights(model, plan, stage, engine) + activations(model, plan, engine) + non_torch(plan, Cluster(H100, 1), engine)
    taken += graphs(engine) * engine.memory.graphs_in_budget
    short = (taken - engine.memory_fraction * H100.memory_bytes) / GiB
    assert f"{short:.1f} GiB short" in found.reason
