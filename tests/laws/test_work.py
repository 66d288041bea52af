"""Work that ops ask of a device, against counts made from their definitions; and what a run sums up from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apexsim.cost.work import Demand, work
from apexsim.engine.types import FULL
from apexsim.hardware import load_gpu
from apexsim.model.cells import LinearAttention
from apexsim.model.families import load_model
from apexsim.model.ops import Attend, Axis, Gemm, Grouped, Index, Mla, Op, Scan
from apexsim.plan.lower import lower
from apexsim.plan.plan import parse_plan

COUNT = st.integers(1, 500)
SHAPE = st.integers(1, 64)
HEADS = (8, 2, 64, 32)  # query heads, key heads, width of keys and of values


@given(COUNT, COUNT, COUNT, SHAPE, SHAPE, st.sampled_from([1.0, 2.0]))
def test_a_product_reads_its_weights_once_a_step(decode: int, prompt: int, steps: int, n: int, k: int, each: float) -> None:
    flop, moved = work(Gemm("ffn", n, k, weight_bytes=each), Demand(decode, prompt, steps))
    rows = decode + prompt
    assert flop == 2.0 * rows * n * k
    assert moved == pytest.approx(each * n * k * steps + 2.0 * rows * (n + k))


@given(COUNT, COUNT, st.sampled_from([1, 2, 4]))
def test_an_op_meets_the_tokens_of_its_axis(decode: int, prompt: int, lanes: int) -> None:
    demand = Demand(decode, prompt, 1.0, lanes, sampled=7.0)
    met = {axis: work(Gemm("x", 1, 1, axis=axis, split=1), demand)[0] / 2.0 for axis in Axis}
    assert met == pytest.approx({Axis.LANE: (decode + prompt) / lanes, Axis.TOTAL: decode + prompt, Axis.SEQUENCE: 7.0})
    assert work(Gemm("x", 1, 1, split=4), demand)[0] / 2.0 == pytest.approx((decode + prompt) / 4)
    for only, tokens in (("decode", decode), ("prompt", prompt)):
        assert work(Gemm("x", 1, 1, only=only), demand)[0] / 2.0 == tokens


@given(st.integers(2, 64), st.integers(1, 8), st.integers(1, 200), st.sampled_from([1, 2]), st.booleans())
def test_experts_that_no_token_chose_are_not_read(experts: int, top_k: int, tokens: int, ep: int, gated: bool) -> None:
    """Expected experts of a step: E · (1 − (1 − k/E)^n); each is read once, on the device that holds it."""
    top_k = min(top_k, experts - 1)
    op = Grouped("experts", 16, 32, experts, top_k, 1, ep, gated, "bf16", 2.0)
    flop, moved = work(op, Demand(tokens, 0.0, 3.0, sizes=(np.array([float(tokens)]), np.array([3.0]))))
    one = (3 if gated else 2) * 16 * 32
    assert flop == pytest.approx(2.0 * one * tokens * top_k / ep)
    assert moved == pytest.approx(3.0 * 2.0 * one * experts / ep * (1.0 - (1.0 - top_k / experts) ** tokens))
    split = Grouped("experts", 16, 32, experts, top_k, 2, ep, gated, "bf16", 2.0)
    assert work(split, Demand(tokens, 0.0))[0] == pytest.approx(flop / 2)


@given(COUNT, COUNT, st.sampled_from([1, 2, 4]))
def test_only_decodes_read_the_cache_of_attention(decode: int, prompt: int, lanes: int) -> None:
    """Query-key pairs: 2 · heads · (key + value width) FLOP each; a decode reads keys and values of each context token."""
    heads, kv, key, value = HEADS
    demand = Demand(3.0, 5.0, 1.0, lanes, ((FULL, float(decode), float(prompt)),))
    flop, moved = work(Attend("attention", heads, kv, key, value, kv_dtype="fp8"), demand)
    assert flop == pytest.approx(2.0 * heads * (key + value) * (decode + prompt) / lanes)
    assert moved == pytest.approx(1.0 * kv * (key + value) * decode / lanes)
    seen = work(Attend("attention", heads, kv, key, value, causal=False), demand)[0]
    assert seen == pytest.approx(2.0 * heads * (key + value) * (decode + 2 * prompt) / lanes)


def test_a_window_counts_the_pairs_of_its_own() -> None:
    demand = Demand(1.0, 1.0, pairs=((128, 10.0, 20.0), (FULL, 1000.0, 2000.0)))
    near, far = (work(Attend("attention", *HEADS, window=w), demand) for w in (128, 0))
    assert far[0] == pytest.approx(100 * near[0]) and far[1] == pytest.approx(100 * near[1])


def test_an_absorbed_decode_reads_the_latent_and_multiplies_in_its_rank() -> None:
    op = Mla("attention", 16, 512, 64, 128, 128)
    flop, moved = work(op, Demand(4.0, 0.0, pairs=((FULL, 4000.0, 0.0),)))
    assert moved == 2.0 * (512 + 64) * 4000
    assert flop == 2.0 * 16 * 512 * (128 + 128) * 4 + 2.0 * 16 * (512 + 64 + 512) * 4000
    assert work(op, Demand(0.0, 4.0, pairs=((FULL, 0.0, 100.0),)))[0] == 2.0 * 16 * (128 + 64 + 128) * 100
    scores = work(Index("index", 4, 128, 2), Demand(1.0, 0.0, pairs=((FULL, 100.0, 0.0),)))
    assert scores == (2.0 * 4 * 128 * 100 / 2, (128 + 4) * 100 / 2)


@given(COUNT, COUNT, st.sampled_from([1, 2]))
def test_a_decoded_token_reads_and_writes_the_whole_state(decode: int, prompt: int, lanes: int) -> None:
    """A scan keeps values × keys numbers of 4 bytes a head: read once, written once; prompts keep it on the chip."""
    for axis, share in ((Axis.LANE, lanes), (Axis.TOTAL, 1)):
        op = Scan("scan", "gdn", 4, 8, 128, 64, axis)
        flop, moved = work(op, Demand(decode, prompt, lanes=lanes))
        assert moved == pytest.approx(2 * 4 * 8 * 128 * 64 * decode / share)
        assert flop == pytest.approx(8.0 * 8 * 128 * 64 * (decode + prompt) / share)


@pytest.mark.parametrize(("name", "plan"), [("qwen3-next-80b-a3b", "TP1"), ("qwen3-next-80b-a3b", "TP4")])
def test_the_state_of_a_model_moves_twice_a_token(name: str, plan: str) -> None:
    """All scans of a replica: the states that its layers keep, there and back."""
    model, parsed = load_model(name), parse_plan(plan)
    cells = [c for i in model.decoder.layers for c in model.decoder.blocks[i].cells if isinstance(c, LinearAttention)]
    state = sum(4.0 * c.value_heads * c.key_dim * c.value_dim for c in cells)
    ops = [(op, n) for stage in lower(model, parsed, load_gpu("h200-sxm").flops) for layer, n in stage.layers for op in layer.ops]
    moved = sum(n * work(op, Demand(1.0, 0.0))[1] for op, n in ops if isinstance(op, Scan))
    assert moved * parsed.devices == pytest.approx(2 * state)


@pytest.mark.parametrize("op", [Gemm("x", 8, 8), Grouped("e", 8, 8, 8, 2, 1, 1), Attend("a", *HEADS), Scan("s", "gdn", 2, 2, 8, 8)])
def test_twice_the_run_is_twice_the_work(op: Op) -> None:
    one = Demand(3.0, 5.0, 2.0, 1, ((FULL, 30.0, 50.0),), 4.0, (np.array([4.0]), np.array([2.0])))
    two = Demand(6.0, 10.0, 4.0, 1, ((FULL, 60.0, 100.0),), 8.0, (np.array([4.0]), np.array([4.0])))
    assert work(op, two) == pytest.approx(tuple(2 * x for x in work(op, one)))


@pytest.mark.parametrize("tp", [1, 2, 4, 8, 16])
def test_key_heads_are_divided_and_beyond_their_number_repeated(tp: int) -> None:
    stages = lower(load_model("llama-3.1-70b"), parse_plan(f"TP{tp}"), load_gpu("h100-sxm").flops)
    found = {(op.heads, op.kv_heads) for layer, _ in stages[0].layers for op in layer.ops if isinstance(op, Attend)}
    assert found == {(64 // tp, max(1, 8 // tp))}
