"""Counts, shares and cache of cells against published figures, formulas and laws."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexsim.model.cell import Cell
from apexsim.model.cells import Attention, Experts, Ffn, LatentAttention, LinearAttention
from apexsim.model.count import active_parameters, device_vocab, model_parameters, rope_bytes, total_parameters
from apexsim.model.families import load_model
from apexsim.model.model import Model
from apexsim.model.names import model_names

GIB = 2.0**30
TPS = st.sampled_from([1, 2, 4, 8, 16])
ATTENTION = st.builds(
    Attention,
    heads=st.sampled_from([8, 16, 32, 64]),
    kv_heads=st.sampled_from([1, 2, 4, 8]),
    head_dim=st.sampled_from([64, 128]),
    qkv_bias=st.booleans(),
    out_bias=st.booleans(),
    sinks=st.booleans(),
)
LATENT = st.builds(
    LatentAttention,
    heads=st.sampled_from([16, 64, 128]),
    q_rank=st.sampled_from([0, 1536]),
    kv_rank=st.just(512),
    nope_dim=st.just(128),
    rope_dim=st.just(64),
    v_dim=st.just(128),
)
FFN = st.builds(Ffn, inner=st.sampled_from([1024, 11008]), gated=st.booleans(), bias=st.booleans())
CELLS = st.one_of(ATTENTION, LATENT, FFN)


def of(model: Model, kind: type) -> Cell:
    """The first cell of a kind in the generating stack."""
    return next(c for b in model.decoder.blocks for c in b.cells if isinstance(c, kind))


def cache_bytes(model: Model, tp: int = 1, element: float = 2.0) -> float:
    """Cache of one token over all layers and one device [byte]."""
    stack = model.decoder
    return sum(c.kv_bytes(tp, element) for i in stack.layers for c in stack.blocks[i].cells)


def test_llama_3_70b_caches_327680_bytes_per_token() -> None:
    assert cache_bytes(load_model("llama-3-70b")) == 327_680


@pytest.mark.parametrize("tp", [1, 8])
def test_deepseek_v3_caches_70272_bytes_per_token_on_every_device(tp: int) -> None:
    assert cache_bytes(load_model("deepseek-v3"), tp) == 61 * 576 * 2 == 70_272


def test_deepseek_v32_adds_132_bytes_of_index_per_layer() -> None:
    assert cache_bytes(load_model("deepseek-v3.2")) == 70_272 + 61 * 132


def test_gpt_oss_bounds_every_second_layer_by_its_window() -> None:
    stack = load_model("gpt-oss-120b").decoder
    assert [stack.blocks[i].cells[0].kv_window() for i in stack.layers] == [128, 0] * 18


@pytest.mark.parametrize(("tp", "heads"), [(1, 8), (2, 4), (8, 1), (16, 1)])
def test_key_value_heads_repeat_beyond_their_number(tp: int, heads: int) -> None:
    assert of(load_model("llama-3-70b"), Attention).kv_elements(tp) == 2 * heads * 128


def test_encoders_and_cross_attention_cache_nothing_per_generated_token() -> None:
    own, cross, _ = load_model("whisper").decoder.blocks[0].cells
    assert (own.kv_elements(), cross.kv_elements(), cross.prompt_elements()) == (2 * 1280, 0, 2 * 1280)


def test_gated_delta_net_state_of_qwen3_next() -> None:
    # (2·16·128 + 32·128)·3 inputs of 2 byte and 32·128·128 numbers of 4 byte, halved by tp 2
    cell = of(load_model("qwen3-next"), LinearAttention)
    assert cell.state_bytes(2) == (8192 * 3 * 2 + 32 * 128 * 128 * 4) / 2


def test_compressed_attention_caches_a_fraction_and_a_window() -> None:
    cells = [b.cells[0] for b in load_model("deepseek-v4-flash").decoder.blocks]
    facts = [(c.kv_elements(), c.kv_window(), c.state_bytes(), c.index_bytes()) for c in cells]
    assert facts == [(512, 128, 0.0, 0.0), (128, 0, 131072.0, 33.0), (4, 0, 131072.0, 0.0)]


@pytest.mark.parametrize(
    ("name", "billions", "embedding"),
    [
        ("mixtral-8x7b", 12.9, True),
        ("mixtral-8x22b", 39.1, True),
        ("qwen3-235b-a22b", 22, True),
        ("qwen3-30b-a3b", 3.3, True),
        ("qwen1.5-moe", 2.7, True),
        ("deepseek-v3", 37, True),
        ("llama-4-scout", 17, True),
        ("gpt-oss-120b", 5.1, False),
        ("gpt-oss-20b", 3.6, False),
        ("nemotron-3-nano", 3.6, True),
        ("minimax-m3", 26, True),
        ("llama-3.1-70b", 70.55, True),
    ],
)
def test_flop_per_token_is_twice_the_published_active_parameters(name: str, billions: float, embedding: bool) -> None:
    model = load_model(name)
    idle = 0 if embedding else model_parameters(model)["embedding"]
    assert 2 * (active_parameters(model) - idle) == pytest.approx(2e9 * billions, rel=0.02)


def test_rotary_cache_of_llama_4_scout_is_2_5_gib() -> None:
    assert rope_bytes(load_model("llama-4-scout")) / GIB == pytest.approx(2.5)


def test_no_rotary_cache_with_learned_positions() -> None:
    assert [rope_bytes(load_model(n)) for n in ("gpt2", "opt-13b", "bloom", "wizardcoder")] == [0.0] * 4


def test_vocabulary_is_padded_to_64_and_divided() -> None:
    rows = ceil(50257 / 64) * 64 // 2
    assert device_vocab(load_model("gpt2"), 2) == {"embedding": rows * 768, "head": 0}


def test_untied_head_is_a_second_copy() -> None:
    share = device_vocab(load_model("llama-3.1-70b"), 8)
    assert share == {"embedding": 128256 // 8 * 8192, "head": 128256 // 8 * 8192}


def test_absorbed_projections_of_deepseek_v3() -> None:
    assert of(load_model("deepseek-v3"), LatentAttention).absorbed(8) == 512 * 16 * 256


def test_experts_are_divided_by_tp_or_ep() -> None:
    cell = Experts(128, 8, 768)
    whole = cell.count(2048)["experts"]
    shares = [cell.count(2048, tp, ep)["experts"] for tp, ep in ((8, 1), (1, 8), (2, 4))]
    assert shares == [whole // 8] * 3


def test_router_is_whole_on_every_device() -> None:
    cell = Experts(128, 8, 768, router_bias=True)
    assert cell.count(2048, 8, 1)["router"] == 2048 * 128 + 128


def test_shared_experts_can_follow_the_attention_width() -> None:
    cell = Experts(256, 8, 2048, shared_inner=2048)
    assert cell.count(7168, 1, 8, shared_tp=8)["shared"] == 3 * 7168 * 256


def test_llama_3_1_70b_weights_on_eight_devices() -> None:
    # 70,553,706,496 parameters, norms replicated, all else divided by 8
    model = load_model("llama-3.1-70b")
    cells = sum(n for c in model.decoder.blocks[0].cells for n in c.count(8192, 8).values())
    norms = 80 * 2 * 8192 + 8192
    assert 8 * (80 * cells + sum(device_vocab(model, 8).values())) + norms == total_parameters(model)


@settings(max_examples=60, deadline=None)
@given(CELLS, TPS)
def test_large_tensors_and_named_modules_are_part_of_what_is_counted(cell: Cell, tp: int) -> None:
    assert sum(n for _, n in cell.tensors(4096, tp, 1)) <= sum(cell.count(4096, tp).values())
    assert sum(module.size for module in cell.modules(4096, "llama")) <= sum(cell.count(4096).values())


@settings(max_examples=100, deadline=None)
@given(CELLS, TPS)
def test_all_devices_together_hold_at_least_the_cell(cell: Cell, tp: int) -> None:
    share, whole = (sum(d.values()) for d in (cell.count(4096, tp), cell.count(4096)))
    assert tp * share >= whole >= share


@settings(max_examples=60, deadline=None)
@given(CELLS, TPS)
def test_a_wider_split_never_needs_more(cell: Cell, tp: int) -> None:
    narrow, wide = (sum(cell.count(4096, n).values()) for n in (tp, 2 * tp))
    assert (narrow >= wide, cell.kv_elements(tp) >= cell.kv_elements(2 * tp)) == (True, True)


@pytest.mark.parametrize("name", model_names())
def test_totals_are_sums_of_parts(name: str) -> None:
    counts = model_parameters(load_model(name))
    assert all(n > 0 for n in counts.values())


@pytest.mark.parametrize(
    ("cell", "tp", "ep", "words"),
    [
        (Attention(12, 12, 64), 8, 1, "12 attention heads"),
        (Attention(64, 8, 128), 8, 1, None),
        (Attention(64, 8, 128), 16, 1, None),
        (Attention(24, 6, 128), 4, 1, "6 key/value heads"),
        (Attention(71, 1, 64), 1, 1, None),
        (LatentAttention(20, 0, 512, 128, 64, 128), 8, 1, "20 attention heads"),
        (Ffn(11008), 3, 1, "inner width 11008"),
        (Experts(8, 2, 14336), 1, 16, "8 experts are fewer than ep 16"),
        (Experts(128, 4, 2880), 64, 1, None),
        (Experts(128, 4, 2881), 64, 1, "expert inner width 2881"),
        (LinearAttention("gdn", 16, 32, 128, 128), 64, 1, "32 gdn heads"),
    ],
)
def test_split_rules(cell: Cell, tp: int, ep: int, words: str | None) -> None:
    reason = cell.split_rules(tp, ep)
    assert reason is None if words is None else words in str(reason)
