"""What holds of a step's price whatever the tables say: tokens met, work kept, eager steps, captured sizes, loads of experts."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from apexsim.cost.bank import load_bank
from apexsim.cost.price import Pricer
from apexsim.cost.tables import Axes, compile_costs, padded, seen_tokens
from apexsim.cost.work import Demand, work
from apexsim.engine.price import least
from apexsim.engine.types import BARE, DECODE, PROMPT, Costs
from apexsim.engines import EngineRow, engine_names, engine_versions, load_engine, override, settled
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.model.ops import Attend, Axis, Collective, Cross, Gemm, Grouped, Index, Op
from apexsim.plan.lower import StageOps, lower
from apexsim.plan.plan import Plan, Precision, parse_plan

SOURCE = {"sglang": "sglang", "tensorrt-llm": "trtllm"}
ENGINES = [f"{name}@{version}" for name in engine_names() for version in engine_versions(name)]
# One of each kind: dense, latent attention with dense first layers and shared experts, experts alone, linear attention, sparse attention.
KINDS = ["llama-3.1-8b", "deepseek-ai--deepseek-v3", "qwen--qwen3-235b-a22b", "openai--gpt-oss-120b", "qwen--qwen3.5-397b-a17b",
         "zai-org--glm-5"]  # fmt: skip
GPUS = ["h100_sxm", "a100_sxm_80gb", "l4", "b200_sxm", "mi300x"]
EACH = 64  # tokens of a lane


@lru_cache(maxsize=64)
def stages_of(model: str, plan: str, gpu: str = "h200_sxm", weights: str = "bf16") -> tuple[StageOps, ...]:
    return lower(load_model(model), planned(plan, weights), load_gpu(gpu).flops, 8)


def planned(plan: str, weights: str = "bf16") -> Plan:
    return parse_plan(plan, Precision(default=weights))


@lru_cache(maxsize=32)
def pricer_of(gpu: str, source: str = "vllm", devices: int = 8) -> Pricer:
    card = load_gpu(gpu)
    return Pricer(load_bank(card, source), Cluster(card, devices, max(1, devices // 8)))


def ops_of(model: str, plan: str) -> list[tuple[Op, int]]:
    found: list[tuple[Op, int]] = []
    for stage in stages_of(model, plan):
        found += [(op, n) for layer, n in stage.layers for op in layer.ops]
        found += [(op, 1) for op in (*stage.entry, *stage.head)]
    return found


def costs_of(model: str, plan: str, gpu: str, engine: EngineRow, sequences: int = EACH, tokens: int = 2048) -> Costs:
    shape, source = planned(plan), SOURCE.get(engine.server.name, "vllm")
    axes = Axes(shape.lanes * (tokens + sequences), sequences, 4096, shape.lanes)
    pricer = pricer_of(gpu, source, shape.stage_devices)
    return compile_costs(stages_of(model, plan, gpu), shape, pricer, engine, axes, load_model(model).hidden)


def row_of(engine: str, gpu: str, **settings: object) -> EngineRow:
    card = load_gpu(gpu)
    return settled(override(load_engine(engine), **settings), card.memory_bytes, card.name, 4096)


def decode_step(costs: Costs, batch: int, lanes: int = 1, context: int = 8) -> float:
    """Seconds of a decode step of `batch` sequences a lane at one context node."""
    device = costs.lane[:, DECODE, batch] + costs.total[:, DECODE, batch * lanes] + costs.sample[:, batch]
    device = device + costs.decode[:, :, batch, context].sum(axis=1)
    floor = costs.floor[:, BARE if batch > costs.captured else DECODE]
    return float((np.maximum(device, floor) + costs.add[:, DECODE]).sum() + costs.add_seq * batch * lanes)


# ---- tokens that an op meets ---------------------------------------------------------------------------------------------


def met(op: Op, lanes: int) -> float:
    """Tokens that one device meets in an op when each of `lanes` lanes holds EACH."""
    return float(EACH if op.axis is not Axis.TOTAL else seen_tokens(op, np.asarray([float(lanes * EACH)]))[0])


def whole(op: Op) -> bool:
    """Whether a device does an op for its own tokens alone; the rest is done for tokens that were gathered or sent."""
    gathered = isinstance(op, Gemm) and op.label == "ffn"
    return not gathered and not isinstance(op, (Collective, Grouped, Attend, Cross, Index))


@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("decode", [True, False])
def test_at_equal_tokens_a_lane_nothing_done_to_own_tokens_grows_with_the_lanes(model: str, decode: bool) -> None:
    took = []
    for lanes in (1, 2, 8, 64):
        pricer = pricer_of("h200_sxm", "vllm", max(lanes, 1))
        found = [(op, n) for op, n in ops_of(model, f"DEP{lanes}" if lanes > 1 else "TP1") if whole(op)]
        took.append(sum(n * float(pricer.dense(op, np.asarray([met(op, lanes)]), decode).seconds[0]) for op, n in found))
    assert max(took[1:]) <= took[0] * (1 + 1e-9)


@pytest.mark.parametrize("model", KINDS)
def test_the_head_and_the_attention_of_a_lane_do_not_depend_on_the_other_lanes(model: str) -> None:
    engine = row_of("vllm", "h200_sxm")
    one, many = (costs_of(model, plan, "h200_sxm", engine) for plan in ("TP1", "DEP8"))
    for name in ("sample", "decode", "prefill"):
        np.testing.assert_allclose(getattr(many, name), getattr(one, name), rtol=1e-12)


@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("plan", ["DEP2", "DEP8", "TP8", "TEP8", "DP2TP4/EP8", "PP2×DEP4"])
def test_all_devices_together_do_the_work_of_the_whole_model(model: str, plan: str, decode: bool) -> None:
    tokens, read = 512.0, 512.0 * 1000

    def flop(name: str) -> float:
        shape = planned(name)
        pairs = ((1 << 40, read if decode else 0.0, 0.0 if decode else read),)
        demand = Demand(tokens if decode else 0.0, 0.0 if decode else tokens, 1.0, shape.lanes, pairs, tokens / shape.lanes)
        divided = [(op, n) for op, n in ops_of(model, name) if shared_out(op) or planned(plan).attention.tp == 1]
        return shape.stage_devices * sum(n * work(op, demand)[0] for op, n in divided)

    assert flop(plan) == pytest.approx(flop("TP1"), rel=1e-3)


def shared_out(op: Op) -> bool:
    """Whether tensor parallel devices of a lane divide an op evenly, rather than repeat it (router, indexer, latents, keys)."""
    return isinstance(op, Grouped) or getattr(op, "label", "") in ("ffn", "shared")


# ---- eager steps and captured sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gpu", GPUS)
def test_an_eager_step_is_never_shorter_than_a_captured_one(engine: str, gpu: str) -> None:
    for model in KINDS:
        plan = "TP1" if model == KINDS[0] else "TP8"
        graph, eager = (costs_of(model, plan, gpu, row, 40) for row in (row_of(engine, gpu), row_of(engine, gpu, pad=())))
        steps = [(decode_step(graph, n), decode_step(eager, n)) for n in range(1, 41)]
        assert all(slow >= fast for fast, slow in steps), model
        assert (eager.total >= graph.total).all() and (eager.floor >= graph.floor).all() and (eager.add >= graph.add).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_without_graphs_a_small_model_waits_for_its_host(engine: str) -> None:
    graph, eager = (costs_of(KINDS[0], "TP1", "h100_sxm", row) for row in (row_of(engine, "h100_sxm"), row_of(engine, "h100_sxm", pad=())))
    assert decode_step(eager, 1) > 1.2 * decode_step(graph, 1)
    assert eager.floor[0, PROMPT] >= graph.floor[0, PROMPT]


def test_qwen3_14b_awq_eager_on_an_a100() -> None:
    # measured: 20.63 ms a token, vLLM 0.9.1 --enforce-eager, context 16,000, batch 1
    row, card = row_of("vllm@0.9.1", "a100_sxm_80gb", pad=()), "a100_sxm_80gb"
    stages = stages_of("qwen--qwen3-14b", "TP1", card, "int4")
    costs = compile_costs(stages, planned("TP1", "int4"), pricer_of(card, "vllm", 1), row, Axes(2304, 8, 16384, 1), 5120)
    assert decode_step(costs, 1) == pytest.approx(20.63e-3, rel=0.05)


@pytest.mark.parametrize("engine", ENGINES)
def test_beyond_the_largest_graph_a_step_is_launched_kernel_by_kernel(engine: str) -> None:
    row = row_of(engine, "h100_sxm", pad=(1, 2, 4, 8))
    costs, full = costs_of("qwen--qwen3-235b-a22b", "TP8", "h100_sxm", row), row_of(engine, "h100_sxm")
    assert costs.captured == 8 and costs.floor[0, DECODE] == 0.0 < costs.floor[0, BARE]
    assert costs.floor[0, BARE] <= costs_of("qwen--qwen3-235b-a22b", "TP8", "h100_sxm", override(full, pad=())).floor[0, BARE]
    # no other jump at the edge: what the graph leaves out is padding and launches
    inside, outside = (float(costs.total[0, DECODE, n]) for n in (8, 9))
    assert inside <= outside <= inside * 1.25


def test_a_prompt_step_above_the_largest_graph_waits_for_its_launches() -> None:
    """vLLM captures the parts of prompt steps up to a size; one that is asked to capture more computes longer prompts without waiting."""
    usual, more = (
        costs_of("qwen--qwen3-235b-a22b", "TP8", "h100_sxm", row_of("vllm", "h100_sxm", **more)) for more in ({}, {"capture": 2048})
    )
    assert usual.captured < 1024 < more.captured == 2048
    below, above = least(usual, 0, PROMPT, usual.captured), least(usual, 0, PROMPT, usual.captured + 1)
    assert below == least(more, 0, PROMPT, 2048) < above == least(more, 0, PROMPT, 2049)
    assert least(usual, 0, DECODE, usual.captured) == 0.0


@pytest.mark.parametrize("lanes", [1, 2, 8])
def test_each_lane_is_padded_to_a_captured_size(lanes: int) -> None:
    sizes = padded((1, 2, 4, 8, 16), 40 * lanes + 1, lanes)
    assert [int(sizes[n * lanes]) // lanes for n in (0, 1, 3, 5, 9, 16, 17, 33)] == [0, 1, 4, 8, 16, 16, 17, 33]


# ---- smoothness ----------------------------------------------------------------------------------------------------------

EXPERTS = ["openai--gpt-oss-120b", "qwen--qwen3-235b-a22b", "deepseek-ai--deepseek-v3"]


@pytest.mark.parametrize("model", [*EXPERTS, KINDS[0]])
@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
def test_a_captured_size_is_no_cliff(model: str, engine: str) -> None:
    """What a step gains by one more sequence does not depend much on where graphs were captured."""
    plan = "TP1" if model == KINDS[0] else "TP8"
    padded_, exact = (costs_of(model, plan, "h100_sxm", row_of(engine, "h100_sxm", **given)) for given in
                      ({}, {"pad": tuple(range(1, EACH + 1))}))  # fmt: skip
    for n in range(1, EACH):
        cliff = decode_step(padded_, n + 1) / decode_step(padded_, n)
        assert cliff <= 1.2 * max(decode_step(exact, n + 1) / decode_step(exact, n), 1.0), n


@pytest.mark.parametrize("plan", ["TP1", "TP8"])
def test_context_only_lengthens_a_step_and_batches_too(plan: str) -> None:
    for model in KINDS if plan == "TP8" else KINDS[:1]:
        costs = costs_of(model, plan, "h100_sxm", row_of("vllm", "h100_sxm"))
        assert (np.diff(costs.decode, axis=3) >= -1e-15).all(), model
        assert (np.diff(costs.total[0, DECODE]) >= -1e-12).all() and (np.diff(costs.sample[0]) >= -1e-12).all(), model
