"""Lowered ops against counts made without them: FLOP per token, volumes of exchanged tokens, windows, what runs beside."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from apexsim.cost import experts, gemm
from apexsim.cost.bank import load_bank
from apexsim.cost.load import ExpertLoad, imbalance, read_load
from apexsim.cost.price import Pricer
from apexsim.cost.shapes import ExpertLayer
from apexsim.cost.sparse import seen
from apexsim.cost.tables import runs
from apexsim.cost.work import Demand, work
from apexsim.engine.types import DECODE, PROMPT
from apexsim.engines import load_engine
from apexsim.errors import InputError
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.count import active_parameters, device_vocab
from apexsim.model.families import load_model
from apexsim.model.ops import Attend, Axis, Collective, Gemm, Grouped, Index, Mla, Op, Scan
from apexsim.plan.lower import lower
from apexsim.plan.plan import parse_plan
from apexsim.plan.reshard import expected_copies

H200 = load_gpu("h200_sxm")
FLOPS = H200.flops


def ops_of(model: str, plan: str, domain: int = 8) -> list[tuple[Op, int]]:
    """All ops of one device, and how often each occurs."""
    stages = lower(load_model(model), parse_plan(plan), FLOPS, domain)
    found: list[tuple[Op, int]] = []
    for stage in stages:
        found += [(op, n) for layer, n in stage.layers for op in layer.ops]
        found += [(op, 1) for op in (*stage.entry, *stage.head)]
    return found


def flop_per_token(model: str, plan: str, prompt: bool = True) -> float:
    """FLOP of one token without any context, all devices of a replica, its logits included."""
    shape = parse_plan(plan)
    demand = Demand(0.0 if prompt else 1.0, 1.0 if prompt else 0.0, 1.0, shape.lanes, (), 1.0)
    return shape.stage_devices * sum(n * work(op, demand)[0] for op, n in ops_of(model, plan))


# Attention without context costs nothing, so what is left is 2 FLOP for every active parameter but the embedding.
@pytest.mark.parametrize(
    ("model", "plan"),
    [("llama-3.1-8b", "TP1"), ("llama-3.1-70b", "TP8"), ("llama-3.1-70b", "PP4×TP2"), ("qwen--qwen3-30b-a3b", "TP1"),
     ("mistralai--mixtral-8x7b-v0.1", "TP2"), ("mistralai--mixtral-8x7b-v0.1", "TEP2"), ("openai--gpt-oss-120b", "TP1"),
     ("deepseek-ai--deepseek-v3", "TP1"), ("moonshotai--kimi-k2-instruct", "TP1"), ("minimaxai--minimax-m2.5", "TP1")],
)  # fmt: skip
def test_flop_per_token_is_twice_the_active_parameters(model: str, plan: str) -> None:
    m = load_model(model)
    embedding = 0 if m.tied else device_vocab(m, 1)["embedding"]
    assert flop_per_token(model, plan) == pytest.approx(2.0 * (active_parameters(m) - embedding), rel=0.02)


@pytest.mark.parametrize("plan", ["PP2×TP1", "PP4×TP2", "PP3×TEP4"])
@pytest.mark.parametrize("model", ["llama-3.1-70b", "qwen--qwen3-30b-a3b", "deepseek-ai--deepseek-v3", "openai--gpt-oss-120b"])
def test_stages_together_do_what_one_stage_does(model: str, plan: str) -> None:
    def done(of: str) -> Counter[Op]:
        found: Counter[Op] = Counter()
        for op, n in ops_of(model, of):
            found[op] += n
        return found

    assert done(plan) == done(plan.split("×")[1])


def test_absorbed_decode_multiplies_by_the_same_projections() -> None:
    # without context, absorbing kv_b into the queries and outputs is the same number of products as decompressing
    assert flop_per_token("deepseek-ai--deepseek-v3", "TP1", prompt=False) == pytest.approx(
        flop_per_token("deepseek-ai--deepseek-v3", "TP1"), rel=1e-3
    )


@pytest.mark.parametrize("plan", ["TP8", "TEP8", "TP8/TP2EP4"])
def test_every_split_of_experts_does_the_same_work(plan: str) -> None:
    def experts(p: str) -> float:
        one = Demand(0.0, 8.0)
        return parse_plan(p).stage_devices * sum(
            n * work(op, one)[0] for op, n in ops_of("qwen--qwen3-235b-a22b", p) if isinstance(op, Grouped)
        )

    assert experts(plan) == pytest.approx(experts("TP1"))


@pytest.mark.parametrize(("experts", "top_k", "ranks"), [(256, 8, 8), (256, 8, 32), (128, 4, 4), (384, 8, 16)])
def test_copies_sent_agree_with_emulated_routing(experts: int, top_k: int, ranks: int) -> None:
    rng = np.random.default_rng(7)
    chosen = np.argsort(rng.random((4000, experts)), axis=1)[:, :top_k] // (experts // ranks)
    mean = np.mean([len(set(row)) for row in chosen.tolist()])
    assert expected_copies(experts, top_k, ranks) == pytest.approx(mean, rel=0.02)


def test_tokens_are_gathered_inside_a_domain_and_sent_beyond_it() -> None:
    near = [op for op, _ in ops_of("deepseek-ai--deepseek-v3", "DEP8") if isinstance(op, Collective)]
    far = [op for op, _ in ops_of("deepseek-ai--deepseek-v3", "DEP16") if isinstance(op, Collective)]
    assert {op.kind for op in near} == {"all_gather", "reduce_scatter"}
    sent = [op for op in far if op.route]
    assert sent and all(op.kind == "all_to_all" and op.route == (7168, 8, 256, 4) for op in sent)
    assert sent[0].bytes_per_token == pytest.approx(2 * 7168 * expected_copies(256, 8, 16))


@pytest.mark.parametrize(("plan", "heads"), [("TP1", (64, 8)), ("TP4", (16, 2)), ("TP16", (4, 1)), ("DP2TP4/TP8", (16, 2))])
def test_attention_reads_the_heads_of_its_device(plan: str, heads: tuple[int, int]) -> None:
    assert {(op.heads, op.kv_heads) for op, _ in ops_of("llama-3.1-70b", plan) if isinstance(op, Attend)} == {heads}


@pytest.mark.parametrize("model", ["minimaxai--minimax-text-01", "qwen--qwen3.5-0.8b", "ai21labs--ai21-jamba-1.5-mini", "qwen3-next"])
@pytest.mark.parametrize("tp", [1, 2, 4])
def test_one_projection_leads_out_of_a_recurrent_mixer_by_rows(model: str, tp: int) -> None:
    cell = next(c for b in load_model(model).decoder.blocks for c in b.cells if c.recurrent)
    layer = next(layer for layer, _ in lower(load_model(model), parse_plan(f"TP{tp}"), FLOPS)[0].layers
                 if any(isinstance(op, Scan) for op in layer.ops))  # fmt: skip
    *inward, out = [(op.label, op.n, op.k) for op in layer.ops if isinstance(op, Gemm) and op.label in ("qkv", "out")]
    (*wide, (n, k)) = cell.projections  # type: ignore[attr-defined]
    assert out == ("out", n, k // tp)
    assert inward == [("qkv", width // tp, depth) for width, depth in wide]


def test_windowed_layers_read_no_more_than_their_window() -> None:
    windows = [op.window for op, n in ops_of("openai--gpt-oss-120b", "TP1") if isinstance(op, Attend) for _ in range(n)]
    assert sorted(set(windows)) == [0, 128] and windows.count(128) == windows.count(0) == 18
    pricer = Pricer(load_bank(H200, "vllm"), Cluster(H200, 1))
    local = next(op for op, _ in ops_of("openai--gpt-oss-120b", "TP1") if isinstance(op, Attend) and op.window)
    full = next(op for op, _ in ops_of("openai--gpt-oss-120b", "TP1") if isinstance(op, Attend) and not op.window)
    batch, context = np.array([8.0, 16.0]), np.array([4096.0, 65536.0])
    took, whole = (pricer.decode(op, batch, context).seconds for op in (local, full))
    assert took[:, 1] == pytest.approx(took[:, 0], rel=0.05)  # the launch, whatever the context
    assert (took[:, 1] < 0.2 * whole[:, 1]).all()


def test_sparse_attention_scores_everything_and_reads_the_best() -> None:
    ops = [op for op, _ in ops_of("deepseek-ai--deepseek-v3.2", "TP8")]
    index, mla = next(o for o in ops if isinstance(o, Index)), next(o for o in ops if isinstance(o, Mla))
    assert (index.heads, index.dim, mla.top_k) == (64, 128, 2048)
    assert seen(mla, np.array([100.0, 2048.0, 1e5])).tolist() == [100.0, 2048.0, 2048.0]
    pricer = Pricer(load_bank(H200, "vllm"), Cluster(H200, 8))
    long = pricer.prefill(mla, np.array([0.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0]))[0].seconds
    assert (np.diff(long) > 0).all()
    assert long[5] - long[4] == pytest.approx(2 * (long[4] - long[3]))  # linear beyond k
    scores = pricer.prefill(index, np.array([8192.0, 16384.0]))[0].seconds
    assert scores[1] == pytest.approx(4 * scores[0], rel=0.01)  # every pair is scored


def test_compressed_latents_are_a_window_and_a_fraction() -> None:
    ops = [op for op, _ in ops_of("deepseek-ai--deepseek-v4-pro", "TP8") if isinstance(op, Mla)]
    ratios = {op.compress: op for op in ops}
    assert all(op.direct for op in ops) and {4, 128} <= set(ratios)
    assert seen(ratios[128], np.array([12_800.0]))[0] == ratios[128].window + 100
    assert seen(ratios[4], np.array([1e6]))[0] == ratios[4].window + ratios[4].top_k


def test_a_full_width_norm_adds_one_small_all_reduce() -> None:
    def reductions(plan: str) -> list[float]:
        return [op.bytes_per_token for op, n in ops_of("minimaxai--minimax-m2.5", plan)
                if isinstance(op, Collective) and op.kind == "all_reduce" for _ in range(n)]  # fmt: skip

    assert reductions("TP8").count(8.0) == 62
    assert not reductions("TP1")


def test_shared_experts_cost_nothing_extra_in_captured_steps() -> None:
    layer = [op for op, _ in ops_of("deepseek-ai--deepseek-v3", "TP8")]
    routed = next(op for op in layer if isinstance(op, Grouped))
    shared = [op for op in layer if isinstance(op, Gemm) and op.beside]
    assert len(shared) == 2 and routed.beside == tuple(shared)
    assert [(runs(op, DECODE), runs(op, PROMPT)) for op in shared] == [(False, True)] * 2
    pricer = Pricer(load_bank(H200, "vllm"), Cluster(H200, 8))
    n = np.array([1.0, 64.0])
    alone = experts.routed(pricer.bank, n, ExpertLayer(7168, 2048, 8, 256, 8, 1), routed.kernel, routed.skew).seconds
    beside = np.sum([pricer.dense(op, n, True).seconds for op in shared], axis=0)
    assert pricer.dense(routed, n, True).seconds == pytest.approx(np.maximum(alone, beside))


def test_lanes_run_router_and_shared_experts_on_their_own_tokens() -> None:
    own = [op for op, _ in ops_of("deepseek-ai--deepseek-v3", "DEP8") if isinstance(op, Gemm) and (op.beside or op.label == "router")]
    assert own and all(op.axis is Axis.TOTAL and op.split == 8 for op in own)


def test_static_fp8_on_tensorrt_llm_is_the_bare_product() -> None:
    # less its quantisation kernels (8.5 to 10.5 µs here), and no faster than the memory
    b200, n = load_gpu("b200_sxm"), np.array([4.0, 64.0])
    bare, other = (gemm.price(load_bank(b200, source), n, 8192, 16384, "fp8").seconds for source in ("trtllm", "sglang"))
    assert (bare < other).all() and (bare > 8192 * 16384 / b200.memory_bandwidth).all()


@pytest.mark.parametrize(
    ("source", "kernel", "extra"),
    [("sglang", "fp8_block", True), ("vllm", "fp8_block", False), ("trtllm", "fp8", False)],
)
def test_activations_are_quantised_apart_where_engines_do(source: str, kernel: str, extra: bool) -> None:
    pricer, n = Pricer(load_bank(H200, source), Cluster(H200, 1)), np.array([16.0, 64.0])
    took = pricer.dense(Gemm("ffn", 4096, 4096, kernel, 1.0, after="norm"), n, True).seconds
    bare = pricer.dense(Gemm("ffn", 4096, 4096, kernel, 1.0), n, True).seconds
    assert ((took - bare > 1e-6) == extra).all()


@pytest.mark.parametrize(("after", "extra"), [("activation", True), ("norm", False), ("attention", False)])
def test_nvfp4_is_quantised_apart_behind_an_activation_only(after: str, extra: bool) -> None:
    b200, n = load_gpu("b200-sxm"), np.array([16.0])
    pricer = Pricer(load_bank(b200, "vllm"), Cluster(b200, 1))
    took, bare = (pricer.dense(Gemm("ffn", 4096, 4096, "nvfp4", 0.5625, after=a), n, True).seconds for a in (after, ""))
    assert ((took - bare > 1e-6) == extra).all()


def test_vllm_joins_all_reduce_and_norm_from_0_17_on_hopper_and_blackwell() -> None:
    old, new, newer = (load_engine(f"vllm@{v}") for v in ("0.16.0", "0.17.0", "0.19.0"))
    assert not old.fused("hopper") and new.fused("hopper") and not new.fused("blackwell-ultra") and newer.fused("blackwell-ultra")
    assert not newer.fused("ampere") and not load_engine("sglang").fused("hopper")


@pytest.mark.parametrize(("ranks", "largest"), [(4, 2.0), (8, 0.5)])
def test_larger_messages_are_reduced_apart_from_the_norm(ranks: int, largest: float) -> None:
    """vLLM's limits on Hopper [MiB]: above them its own kernels, symmetric memory and NCCL, which are faster there."""
    h100 = load_gpu("h100-sxm")
    cluster, engine = Cluster(h100, 8), load_engine("vllm@0.25.0")
    joined, apart = (Pricer(load_bank(h100, "vllm"), cluster, fused=f) for f in (engine.fused("hopper"), ()))
    op, n = Collective("out", "all_reduce", 2**14, ranks), np.array([0.5, 1.0, 2.0, 16.0]) * largest * 64.0
    with_norm, without = (p.dense(op, n, False).seconds for p in (joined, apart))
    assert with_norm[3] == without[3] and (with_norm[:2] != without[:2]).all()


def test_ranks_that_no_limit_names_are_never_joined() -> None:
    assert 6 not in dict(load_engine("vllm").fused("hopper"))


# ---- expert load ----------------------------------------------------------------------------------------------------


def test_even_counts_have_no_imbalance() -> None:
    assert imbalance(np.ones(64), 8) == pytest.approx(1.0)
    assert ExpertLoad().imbalance(64, 8) == 1.0


def test_a_hot_expert_loads_its_rank() -> None:
    counts = np.ones(64)
    counts[0] = 9.0  # 72 in all, 16 on the first of eight ranks, whose even share is 9
    assert imbalance(counts, 8) == pytest.approx(16 / 9)


def test_copies_level_a_skewed_load() -> None:
    counts = 1.0 / np.arange(1, 257)
    levels = [imbalance(counts, 8, copies) for copies in (0, 8, 32, 64)]
    assert levels[0] > 5 and max(levels[1:]) < 1.001


def test_measured_counts_come_from_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "counts.json"
    file.write_text("[9, 1, 1, 1]")
    load = read_load(str(file))
    assert load.imbalance(4, 2) == pytest.approx(2 * 10 / 12) and load.timed(8, 4) == "balanced"
    with pytest.raises(InputError, match="4 expert counts for a layer of 8"):
        load.imbalance(8, 2)
    with pytest.raises(InputError, match="unknown expert load 'power'"):
        read_load("power")
    file.write_text("[0, 0]")
    with pytest.raises(InputError, match="not all be 0"):
        read_load(str(file))


def test_an_uneven_load_costs_more() -> None:
    cluster, op = Cluster(H200, 8), Grouped("experts", 7168, 2048, 256, 8, 1, 8, True, "fp8_block", 1.0)
    hot = tuple([30.0] * 8 + [1.0] * 248)
    prices = [Pricer(load_bank(H200, "vllm"), cluster, load=load).dense(op, np.array([512.0]), True).seconds[0]
              for load in (ExpertLoad("balanced"), ExpertLoad("measured", hot), ExpertLoad("measured", hot, 32))]  # fmt: skip
    assert prices[0] <= prices[2] < prices[1]
