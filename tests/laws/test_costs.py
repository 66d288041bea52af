"""The compile step: what the tables say of a step is what its ops cost, one by one, and what may not change does not.

The twin (naive_costs.py) prices each op of a step from the kernel tables' sources.  It and the tables may differ by what
linear interpolation between priced counts costs, and by nothing else.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
import naive_price
from apexsim.cost import collectives
from apexsim.cost.bank import load_bank
from apexsim.cost.price import Pricer
from apexsim.cost.tables import axes_for, compile_costs, host_for, padded, rules_for
from apexsim.engine.types import BARE, BEFORE, DECODE, LOOSE, PROMPT, Costs
from apexsim.engines import EngineRow, load_engine, override, settled
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.model.ops import Collective, Gemm, Grouped
from apexsim.plan.limits import norms_joined, started
from apexsim.plan.lower import lower
from apexsim.plan.plan import parse_plan
from apexsim.search.evaluate import Evaluation, evaluate, requests_of
from apexsim.search.setting import Setting
from apexsim.workload.trace import Workload
from naive_costs import NaiveCosts, domain_of
from naive_records import Chunk, Sequence, Step

SOURCE = {"vllm": "vllm", "sglang": "sglang", "tensorrt-llm": "trtllm"}
LENGTH = 4096  # longest request [tokens]
# model, plan, GPU, nodes, engine.  Every kind of cell, layout, link and engine once.
SCENES = [
    ("llama-3.1-8b", "TP1", "h100-sxm", 1, "vllm"),
    ("llama-3.1-70b", "TP8@fp8", "h100-sxm", 1, "sglang"),
    ("llama-3.1-70b", "PP2×TP4", "h100-sxm", 1, "vllm@0.6.0"),
    ("llama-3.1-70b", "PP3×TP2", "a100-sxm", 1, "sglang"),
    ("llama-3.1-70b", "PP2×TP8", "h100-sxm", 2, "vllm"),
    ("llama-3.1-70b", "TP16", "h100-sxm", 2, "vllm"),
    ("qwen--qwen3-30b-a3b", "DEP4", "h100-sxm", 1, "vllm"),
    ("qwen--qwen3-30b-a3b", "TEP2", "l40s", 1, "tensorrt-llm"),
    ("deepseek-ai--deepseek-v3", "DEP8", "h200-sxm", 1, "sglang"),
    ("deepseek-ai--deepseek-v3", "DEP16", "h200-sxm", 2, "vllm"),
    ("deepseek-ai--deepseek-v3", "DEP16", "gb200", 4, "vllm"),
    ("deepseek-ai--deepseek-v3.2", "TP8", "h200-sxm", 1, "sglang"),
    ("openai--gpt-oss-120b", "TP2", "b200-sxm", 1, "tensorrt-llm"),
    ("qwen3-next-80b-a3b", "TP2", "h200-sxm", 1, "vllm"),
    ("qwen--qwen3.5-35b-a3b", "TP2", "b200-sxm", 1, "sglang@0.5.6"),
    ("qwen--qwen3.5-35b-a3b", "TP2", "h200-sxm", 1, "sglang"),
    ("google--gemma-2-9b-it", "TP2", "l4", 1, "vllm"),
    ("mixtral-8x7b", "TP2", "a100-sxm", 1, "orca"),
    ("qwen--qwen3-30b-a3b", "TP4/DP2TP2", "h200-sxm", 1, "vllm"),
]
NAMES = [f"{model.split('--')[-1]} {plan} {nodes}×{gpu} {spec}" for model, plan, gpu, nodes, spec in SCENES]
FAST = {"prompt_floor_launch_s": 0.0, "prompt_eager_launch_s": 0.0, "bare_launch_s": 0.0, "eager_launch_s": 0.0}
scenes = pytest.mark.parametrize("at", range(len(SCENES)), ids=NAMES)


@dataclass(frozen=True, slots=True)
class Scene:
    """A plan with its tables and its twin."""

    costs: Costs
    twin: NaiveCosts

    @property
    def lanes(self) -> int:
        """Attention lanes of a replica."""
        return self.twin.plan.lanes


@cache
def cluster_of(at: int) -> Cluster:
    """The GPUs of a scene: its plan fills them."""
    _, plan, gpu, nodes, _ = SCENES[at]
    return Cluster(load_gpu(gpu), parse_plan(plan).devices // nodes, nodes)


def engine_of(at: int, **changed: Any) -> EngineRow:
    """The settled engine of a scene with some constants changed."""
    gpu = cluster_of(at).gpu
    return replace(settled(load_engine(SCENES[at][4]), gpu.memory_bytes, gpu.name, LENGTH), **changed)


@cache
def pricer_of(at: int) -> Pricer:
    """Prices of a scene."""
    engine, cluster = engine_of(at), cluster_of(at)
    bank = load_bank(cluster.gpu, SOURCE.get(engine.server.name, "vllm"))
    return Pricer(bank, cluster, fused=engine.fused(cluster.gpu.arch), joined=engine.joined_inputs)


def scene(at: int, **changed: Any) -> Scene:
    """Tables and twin of a scene."""
    model, plan, cluster = load_model(SCENES[at][0]), parse_plan(SCENES[at][1]), cluster_of(at)
    engine, pricer = norms_joined(model, plan, cluster, engine_of(at, **changed)), pricer_of(at)
    stages = lower(model, plan, cluster.gpu.flops, domain_of(cluster))
    costs = compile_costs(stages, plan, pricer, engine, axes_for(engine, plan.lanes, 64, LENGTH), model.hidden)
    return Scene(costs, NaiveCosts(stages, plan, cluster, engine, pricer.bank, model.hidden, pricer.bank.source))


def random_step(rng: random.Random, lanes: int, prompt: bool, small: bool) -> Step:
    """A step of some sequences in each lane; small: counts and contexts at which everything is priced, so nothing is interpolated."""
    most, step = (max(1, 8 // lanes), Step(0, 0, [], [])) if small else (12, Step(0, 0, [], []))
    for lane in range(lanes):
        for _ in range(rng.randint(0 if prompt else 1, most)):
            context = rng.choice([16, 32, 48, 64, 96, 128]) if small else rng.randint(20, 3000)
            step.decodes.append(Sequence(len(step.decodes), 9, 9, lane=lane, context=context - 1))
        for _ in range(rng.randint(lane == 0, 1 if small else 2) if prompt else 0):
            target = rng.randint(2, 7) if small else rng.choice([40, 500, 1900])
            tokens = rng.randint(1, target)
            step.chunks.append(Chunk(Sequence(99, 9, 9, lane=lane, target=target), rng.choice([0, target - tokens]), tokens))
    return step


def off(it: Scene, step: Step, spread: float) -> float:
    """How far the tables leave what the twin says of the step with 1 ± spread times its tokens, as a share; the worst stage counts."""
    naive_price.price(step, 0.0, it.costs, [0.0] * len(it.twin.stages), it.lanes, it.lanes > 1, BEFORE)  # counts the tokens
    loads = [sum(x.lane == i for x in step.decodes) + naive_price.prompt_tokens(step, i) for i in range(it.lanes)]
    worst = 0.0
    for s in range(len(it.twin.stages)):
        told = naive_price.stage_time(step, s, max(loads), it.costs, it.lanes)
        low, high = (it.twin.stage_time(step, s, max(loads), it.lanes, 1.0 + x) for x in (-spread, spread))
        worst = max(worst, 1.0 - told / low, told / high - 1.0)
    return worst


# ---- the twin -----------------------------------------------------------------------------------------------------------


@scenes
@pytest.mark.parametrize("host", [{}, FAST, {"pad": (1, 2, 4)}], ids=["as it is", "a fast host", "small graphs"])
def test_every_step_costs_what_its_ops_cost(at: int, host: dict[str, Any]) -> None:
    """Where every count is priced the two agree; between two of those, 6 % apart, the tables lie between what these cost."""
    it, rng = scene(at, **host), random.Random(at)
    for i in range(16):
        step = random_step(rng, it.lanes, i % 2 == 1, small=True)
        assert off(it, step, 0.0) < 0.005, step
        step = random_step(rng, it.lanes, i % 2 == 1, small=False)
        assert off(it, step, 0.065) < 0.015, step


@scenes
def test_dense_tables_are_exact_where_every_count_is_priced(at: int) -> None:
    """Up to 32 tokens nothing is interpolated; what quantises apart is smoothed over all counts."""
    it = scene(at)
    smooth = any(it.twin.apart(op) for stage in it.twin.stages for layer, _ in stage.layers for op in layer.ops)
    graphs = it.twin.engine.pad or it.twin.engine.spare
    for s, stage in enumerate(it.twin.stages):
        for each in range(1, 1 + 32 // it.lanes):
            for kind in (DECODE, PROMPT):
                n, at_most = each * it.lanes, [size for size in graphs if size >= each][:1] or [each]
                if kind == DECODE and at_most[0] * it.lanes > 32:
                    continue
                told = it.costs.total[s, kind, n] + (it.costs.lane[s, kind, each] if it.lanes > 1 else 0.0)
                assert told == pytest.approx(it.twin.dense(stage, each, n, kind == PROMPT), rel=5e-3 if smooth else 1e-9), (s, n, kind)
        for sampled in range(1, 33):
            assert it.costs.sample[s, sampled] == pytest.approx(it.twin.head(stage, sampled), rel=1e-9)
        assert not it.costs.sample[s, 0] and not it.costs.total[s, :, 0].any()


@scenes
def test_between_priced_counts_tables_do_not_jump(at: int) -> None:
    """A step of one token more is never cheaper, but for a captured size reached, and never dearer than the next priced count is."""
    costs = scene(at, pad=(), spare=()).costs
    for table in (costs.total, costs.lane, costs.sample[:, None, :]):
        rows = table.reshape(-1, table.shape[-1])[:, 1:]
        assert (np.diff(rows, axis=1) >= -1e-15).all()
    held = costs.decode[:, :, 1:-1]  # the last row only closes the interpolation
    assert (np.diff(held, axis=3) >= -1e-15).all() and (np.diff(held, axis=2) >= -1e-15).all()


RUNS = [0, 2, 4, 6, 10, 13, 15]


@pytest.mark.parametrize("at", RUNS, ids=[NAMES[i] for i in RUNS])
def test_a_whole_run_costs_what_its_ops_cost(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a question to times: the evaluated plan against the twin of the engine that is charged by the twin of the costs.

    An arrival close to a step's start may fall on its other side, so a few requests may differ by a step.
    """
    model, plan, cluster = load_model(SCENES[at][0]), parse_plan(SCENES[at][1]), cluster_of(at)
    rng = np.random.default_rng(at)
    count = 4 * plan.lanes
    work = Workload("made", np.cumsum(rng.exponential(0.02, count)), rng.integers(3, 90, count), rng.integers(1, 30, count))
    engine = replace(engine_of(at), **FAST)
    found = evaluate(Setting(model, cluster, engine, work, pricer_of(at), LENGTH), plan)
    start = started(model, plan, cluster, engine, LENGTH)
    assert isinstance(found, Evaluation) and isinstance(start, tuple)
    stages = lower(model, plan, cluster.gpu.flops, domain_of(cluster))
    twin = NaiveCosts(stages, plan, cluster, start[0], pricer_of(at).bank, model.hidden, pricer_of(at).bank.source)
    monkeypatch.setattr(naive_price, "stage_time", lambda step, s, busiest, costs, lanes: costs.stage_time(step, s, busiest, lanes))
    rules = rules_for(start[0], found.room.blocks, found.room.block_size, count, plan.lanes)
    told = naive.simulate(requests_of(work), rules, host_for(start[0]), twin, found.room.blocks, lanes=plan.lanes)  # type: ignore[arg-type]
    for name in ("first", "finish"):
        took, wanted = getattr(found.outcome, name) - found.outcome.sent, np.array(told.column(name)) - np.array(told.column("sent"))
        assert np.quantile(np.abs(took / wanted - 1.0), 0.9) < 0.02, name
    assert found.outcome.finish.max() == pytest.approx(max(told.column("finish")), rel=0.005)


@pytest.mark.parametrize(("split", "own"), [(1, 1), (1, 4), (2, 2), (4, 2)])
def test_what_runs_beside_the_experts_counts_where_it_is_longer(split: int, own: int) -> None:
    """Routed experts see the tokens of their replica, the shared ones those of their device; a captured step waits for both."""
    shared = Gemm("shared", 16384, 8192, split=own, beside=True)
    op = Grouped("experts", 2048, 768, 128, 8, 1, 1, split=split, beside=(shared,))
    it, n = scene(6), np.arange(1.0, 600.0)
    for captured in (True, False):
        told = pricer_of(6).dense(op, n, captured).seconds
        wanted = np.maximum.accumulate(it.twin.raw(op, n, captured))
        assert told == pytest.approx(wanted)
    both = pricer_of(6).dense(op, n, True).seconds
    assert (both >= pricer_of(6).dense(replace(op, beside=()), n, True).seconds).all()


# ---- padding ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.sets(st.integers(1, 64), min_size=1, max_size=8), st.integers(1, 4))
def test_a_batch_is_padded_to_the_smallest_graph_that_holds_it(sizes: set[int], lanes: int) -> None:
    captured, size = tuple(sorted(sizes)), 400
    at = padded(captured, size, lanes)
    for n in range(size):
        each = -(-n // lanes)
        fitting = [s for s in captured if s >= each]
        wanted = min(fitting) * lanes if n and fitting else n
        assert at[n] == min(wanted, size - 1)


@pytest.mark.parametrize("spec", ["vllm", "vllm@0.6.0", "sglang", "tensorrt-llm"])
def test_captured_sizes_are_their_own(spec: str) -> None:
    pad = engine_of(0).pad if spec == "vllm" else settled(load_engine(spec), 80e9, "h100-sxm", LENGTH).pad
    at = padded(pad, max(pad) + 50)
    assert (at >= np.arange(len(at))).all() and (at[list(pad)] == pad).all() and (at[at] == at).all()
    assert (at[max(pad) + 1 :] == np.arange(max(pad) + 1, len(at))).all()


# ---- host terms ---------------------------------------------------------------------------------------------------------

# constant -> what a millisecond more of it changes: (of the floor, of the addition), each on (decode, prompt) steps; on which stages
LAUNCHED = 0.001
HOST = {
    "step_s": ((0, 0), (1, 1), "first"),
    "prompt_add_launch_s": ((0, 0), (0, 1), "each"),
    "prompt_floor_launch_s": ((0, 1), (0, 0), "each"),
}


@scenes
@pytest.mark.parametrize("pad", [None, (), (1, 2, 4)], ids=["own graphs", "no graphs", "small graphs"])
def test_floors_and_additions_are_launches_and_the_scheduler(at: int, pad: tuple[int, ...] | None) -> None:
    """A decode that a graph holds has no floor; one that none holds launches its own kernels, not those of a prompt."""
    it = scene(at, **({} if pad is None else {"pad": pad}))
    engine, costs = it.twin.engine, it.costs
    assert costs.captured == max(engine.pad, default=0) and costs.add_seq == (engine.sequence_s if engine.lag < 2 else 0.0)
    for s, stage in enumerate(it.twin.stages):
        assert costs.floor[s, DECODE] == 0.0 == it.twin.floor(stage, False, min(engine.pad, default=0))
        assert costs.floor[s, PROMPT if engine.pad else LOOSE] == pytest.approx(it.twin.floor(stage, True, 1))
        assert costs.floor[s, BARE] == pytest.approx(it.twin.floor(stage, False, costs.captured + 1))
        assert costs.floor[s, LOOSE] == pytest.approx(it.twin.floor(stage, True, costs.captured + 1))
        for kind in (DECODE, PROMPT):
            assert costs.add[s, kind] == pytest.approx(it.twin.added(stage, s, kind == PROMPT, 0))


@pytest.mark.parametrize("name", HOST)
@pytest.mark.parametrize("at", [0, 4])
def test_each_host_constant_reaches_the_steps_it_is_for(name: str, at: int) -> None:
    (floors, adds, where), zero = HOST[name], dict.fromkeys(HOST, 0.0) | FAST | {"lag": 1}
    less, more = (scene(at, **{**zero, name: value}).costs for value in (0.0, LAUNCHED))
    for s in range(len(less.hop)):
        on = where == "each" or s == 0
        for kind in (DECODE, PROMPT):
            grown = more.floor[s, kind] - less.floor[s, kind], more.add[s, kind] - less.add[s, kind]
            assert [g > 0 for g in grown] == [bool(floors[kind]) and on, bool(adds[kind]) and on]
            assert where == "each" or grown[1] == pytest.approx(LAUNCHED * adds[kind] * on)
        assert more.floor[s, BARE] >= less.floor[s, BARE]


def test_the_scheduler_hides_behind_the_gpu_where_steps_are_formed_ahead() -> None:
    """Its time per step and per sequence is added only where the GPU waits for it."""
    in_turn, ahead = (scene(0, lag=lag, step_s=LAUNCHED, sequence_s=LAUNCHED).costs for lag in (1, 2))
    assert in_turn.add_seq == LAUNCHED and ahead.add_seq == 0.0
    assert in_turn.add[0] - ahead.add[0] == pytest.approx([LAUNCHED, LAUNCHED])


def test_choosing_among_logits_grows_with_the_vocabulary_and_not_with_the_plan() -> None:
    """Every rank sorts whole rows of logits: bytes per entry over the bandwidth that streams reach."""
    for at in (0, 1):
        row = engine_of(at, logit_sort_bytes=350, logit_penalty_bytes=100)
        greedy, sorts, punishes = (scene(at, **_sampled(row, how)).costs.sample[0] for how in ("greedy", "top-p", "penalties"))
        entries = load_model(SCENES[at][0]).vocab / (0.8 * pricer_of(at).bank.peaks.bandwidth)
        n = np.arange(len(greedy))
        assert sorts - greedy == pytest.approx(350 * entries * n) and punishes - sorts == pytest.approx(100 * entries * n)


def _sampled(row: EngineRow, how: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("logit_sort_bytes", "logit_penalty_bytes")} | {"sampling": how}


def test_gaps_are_charged_once_per_step_and_kind() -> None:
    less, more = (scene(0, gap_s=g, prompt_factor=1.5) for g in (0.0, 1e-6))
    gaps = sum(layer.gaps * n for layer, n in more.twin.stages[0].layers)
    grown = more.costs.total[0, :, 8] - less.costs.total[0, :, 8]
    assert grown == pytest.approx([gaps * 1e-6, 1.5 * gaps * 1e-6])


def test_a_factor_of_prompts_multiplies_their_kernels_only() -> None:
    one, two = (scene(6, prompt_factor=f).costs for f in (1.0, 2.0))
    for name in ("total", "lane"):
        plain, double = getattr(one, name), getattr(two, name)
        assert double[:, PROMPT] == pytest.approx(2.0 * plain[:, PROMPT]) and (double[:, DECODE] == plain[:, DECODE]).all()
    for name in ("decode", "prefill", "sample", "floor", "add"):
        assert (getattr(one, name) == getattr(two, name)).all()


# ---- hops ---------------------------------------------------------------------------------------------------------------


@scenes
def test_a_hop_hands_on_hidden_states_and_residual(at: int) -> None:
    it = scene(at)
    assert list(it.costs.hop) == pytest.approx(it.twin.hop) and list(it.costs.hop_token) == pytest.approx(it.twin.hop_token)
    assert len(it.costs.hop) == it.twin.plan.stages and it.costs.hop[0] == it.costs.hop_token[0] == 0


def test_ranks_of_a_stage_share_what_is_handed_on() -> None:
    """bytes per token × ranks = two tensors of 16 bit, whatever the tensor parallel width."""
    gpu, model, engine = load_gpu("a100-sxm"), load_model("llama-3.1-70b"), engine_of(3)
    for tp in (1, 2, 4):
        plan, cluster = parse_plan(f"PP2×TP{tp}"), Cluster(gpu, 2 * tp)
        pricer = Pricer(load_bank(gpu, "sglang"), cluster)
        costs = compile_costs(lower(model, plan, gpu.flops), plan, pricer, engine, axes_for(engine, 1, 8, 512), model.hidden)
        _, per_byte = collectives.hop(pricer.bank, cluster.link(2, tp), 1)
        assert costs.hop_token[1] * tp / per_byte == pytest.approx(2 * 2 * model.hidden)


# ---- what crosses from the engine's row ---------------------------------------------------------------------------------


def test_rules_are_those_of_the_row() -> None:
    row = override(engine_of(0), max_num_seqs=50, max_num_batched_tokens=1001)
    row = replace(row, watermark=0.019, batch_wait_ratio=0.5, batch_wait_iters=7, balance_wait=9, prefill_limit=0, poll_interval=3)
    one, many = rules_for(row, 1000, 16, 30, 1), rules_for(row, 1000, 16, 300, 4)
    assert (one.budget, one.block, one.max_seqs, many.max_seqs) == (1001, 16, 30, 50)
    assert (one.watermark, one.wait_tokens) == (19, 501)  # a step must hold the share, so part of a token is a whole one
    assert (one.wait, many.wait, one.pad_lanes, many.pad_lanes, one.poll) == (7, 9, 0, 1, 3)
    assert one.prefill_limit > 1 << 30 and rules_for(replace(row, prefill_limit=77), 1, 1, 1, 1).prefill_limit == 77


@given(st.integers(1, 3000), st.integers(1, 8), st.integers(1, 9000))
def test_tables_are_as_long_as_the_longest_step(requests: int, lanes: int, longest: int) -> None:
    row = engine_of(0)
    axes = axes_for(row, lanes, requests, longest)
    sequences = min(requests, row.max_num_seqs)
    assert axes.sequences == sequences and axes.tokens >= lanes * (max(row.max_num_batched_tokens, longest) + sequences)
    assert axes.nodes()[-1] >= axes.length and axes.token_points()[-1] >= axes.tokens and axes.batch_points()[-1] >= axes.sequences


@pytest.mark.parametrize(("gpu", "group"), [("l40s", 8), ("l40s", 2), ("h200-sxm", 4), ("a100-sxm", 8)])
def test_tokens_whose_way_nobody_timed_travel_to_their_experts_and_back(gpu: str, group: int) -> None:
    cluster, op = Cluster(load_gpu(gpu), 8), Collective("dispatch", "all_to_all", 8.0 * 7168, group, route=(7168, 8, 256, 0))
    tokens = np.array([1.0, 64.0, 1000.0])
    told = Pricer(load_bank(cluster.gpu, "vllm"), cluster).dense(op, tokens, True).seconds
    copies = np.ceil(tokens / group) * 8 * (1 - 1 / group)  # of every rank's tokens, one for each expert elsewhere
    assert told == pytest.approx(2 * 30e-6 + copies * 7168 * 3 / (0.6 * cluster.link(2).bandwidth), rel=1e-12)


@pytest.mark.parametrize("captured", [True, False])
@pytest.mark.parametrize("gpu", ["h100-sxm", "gb200", "mi300x"])
def test_an_exchange_grows_with_the_ranks_to_a_plateau(gpu: str, captured: bool) -> None:
    found = []
    for ranks in (24, 48, 72, 144, 288):  # none of which was timed
        cluster = Cluster(load_gpu(gpu), 8, ranks // 8)
        op = Collective("dispatch", "all_to_all", 8.0 * 7168, ranks, route=(7168, 8, 256, 4))
        found.append(float(Pricer(load_bank(cluster.gpu, "sglang"), cluster).dense(op, np.array([256.0 * ranks]), captured).seconds[0]))
    across, fitted = 256 * 7168 * 3 * 8 / (0.85 * cluster.gpu.nic.bandwidth), load_bank(cluster.gpu, "sglang").fitted
    fixed = 201e-6 + (2 * fitted.exchange if fitted and captured else 0.0)
    assert all(a <= b * 1.0001 for a, b in pairwise(found)) and found[-1] < across + fixed
    assert gpu == "gb200" or found[-1] < 1.1 * found[-2]  # there the rack is the domain, and the last step doubles the racks


def test_no_more_domains_than_the_kept_groups_are_sent_a_token_of_a_prompt() -> None:
    cluster = Cluster(load_gpu("h100-sxm"), 8, 18)
    price = Pricer(load_bank(cluster.gpu, "sglang"), cluster).dense

    def sent(kept: int, captured: bool) -> float:
        return float(
            price(Collective("x", "all_to_all", 1.0, 144, route=(7168, 8, 256, kept)), np.array([144.0 * 4096]), captured).seconds[0]
        )

    assert sent(4, False) < 0.7 * sent(0, False) and sent(4, True) == sent(0, True) and sent(0, False) < sent(0, True)
