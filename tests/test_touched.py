"""How many experts a batch touches: what a router draws, what the tables' sampler lays out, and prices between the two."""

from __future__ import annotations

import numpy as np
import pytest

from apexsim.cost import experts
from apexsim.cost.bank import load_bank
from apexsim.cost.load import ExpertLoad
from apexsim.cost.price import Pricer
from apexsim.cost.shapes import ExpertLayer
from apexsim.cost.touched import drawn, laid_out
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.model.ops import Grouped

TOKENS = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0])
SHAPES = ((128, 4), (256, 8), (512, 10), (128, 8))


@pytest.mark.parametrize(("count", "top_k"), SHAPES)
def test_a_router_touches_more_with_tokens_and_less_with_skew(count: int, top_k: int) -> None:
    even, mild, steep = (drawn(TOKENS, count, top_k, skew) for skew in (0.0, 0.5, 0.9))
    np.testing.assert_allclose(even, count * (1 - (1 - top_k / count) ** TOKENS))
    for found in (even, mild, steep):
        assert found[0] == pytest.approx(top_k) and (np.diff(found) > 0).all() and (found <= count).all()
    assert (steep[1:] < mild[1:]).all() and (mild[1:] < even[1:]).all()


def test_every_expert_of_a_dense_choice_is_touched() -> None:
    assert drawn(TOKENS, 4, 4, 0.5).tolist() == [4.0] * len(TOKENS)


def test_draws_by_the_same_chances_touch_as_many() -> None:
    random, count, top_k = np.random.default_rng(0), 64, 4
    popular = np.arange(1, count + 1) ** -0.9
    chance = np.minimum(top_k * popular / popular.sum(), 1.0)  # the most popular of these is below 1
    assert chance.max() < 1.0
    seen = [(random.random((16, count)) < chance).any(axis=0).sum() for _ in range(2000)]
    assert drawn(np.array([16.0]), count, top_k, 0.9)[0] == pytest.approx(np.mean(seen), rel=0.01)


def slowly_laid_out(tokens: int, count: int, top_k: int) -> int:
    """The sampler step by step: leftover pairs one by one to the emptiest, missing ones from the fullest."""
    low, high = (1.0, max(1.0, 0.8 * tokens)) if tokens * top_k > count else (0.01, 2.0)
    loads = ((high**-0.2 - low**-0.2) * (np.arange(count) + 0.5) / count + low**-0.2) ** -5.0
    counts = np.minimum(np.round(loads / loads.sum() * tokens * top_k), tokens)
    while counts.sum() < tokens * top_k:
        counts[np.argmin(counts)] += 1
    while counts.sum() > tokens * top_k:
        counts[np.argmax(counts)] -= 1
    return int((counts > 0).sum())


@pytest.mark.parametrize(("count", "top_k"), SHAPES)
def test_the_sampler_is_that_of_the_tables(count: int, top_k: int) -> None:
    wanted = [slowly_laid_out(int(t), count, top_k) for t in TOKENS]
    assert laid_out(TOKENS, count, top_k, 1.2, TOKENS).tolist() == wanted
    at = int(np.searchsorted(TOKENS, count / top_k, side="right")) - 1
    assert wanted[at] < 0.85 * drawn(TOKENS, count, top_k, 0.0)[at]  # the dent: up to as many pairs as experts


def test_prices_follow_what_is_touched() -> None:
    bank, layer = load_bank(load_gpu("b200-sxm"), "vllm"), ExpertLayer(2880, 2880, 4, 128, 1, 1, True)
    table = experts.price(bank, TOKENS, layer, "mxfp4")
    mild, steep = (experts.routed(bank, TOKENS, layer, "mxfp4", skew).seconds for skew in (0.5, 0.9))
    assert (steep <= mild * (1 + 1e-9)).all() and steep[3] < 0.9 * table.seconds[3]
    assert mild[5] > 1.05 * table.seconds[5]  # in the dent
    assert mild[-1] == pytest.approx(table.seconds[-1], rel=0.05)  # nearly all are read


def test_a_load_that_is_named_is_the_table() -> None:
    gpu = load_gpu("h200-sxm")
    op = next(Grouped("experts", 3072, 1536, 256, 8, 4, 1, kernel="fp8_block", skew=skew) for skew in (0.9,))
    told = experts.price(load_bank(gpu), TOKENS, ExpertLayer(3072, 1536, 8, 256, 4, 1, True), "fp8_block").seconds
    named, usual = (
        Pricer(load_bank(gpu), Cluster(gpu, 8), load=load).dense(op, TOKENS, True).seconds
        for load in (ExpertLoad("power_law_1.2"), ExpertLoad())
    )
    np.testing.assert_allclose(named, np.maximum.accumulate(told))
    assert usual[3] < named[3]


def test_gpt_oss_is_the_uneven_one() -> None:
    skews = {name: {c.skew for s in load_model(name).stacks for b in s.blocks for c in b.cells if hasattr(c, "skew")}
             for name in ("gpt-oss-20b", "deepseek-v3", "qwen3-30b-a3b")}  # fmt: skip
    assert skews == {"gpt-oss-20b": {0.9}, "deepseek-v3": {0.5}, "qwen3-30b-a3b": {0.5}}


@pytest.mark.parametrize("gpu", ["h100-sxm", "b200-sxm", "a100-sxm-80gb", "rtx-4090"])
def test_half_of_each_expert_takes_no_longer_than_all_of_it(gpu: str) -> None:
    tokens = np.array([1.0, 16.0, 256.0, 2048.0, 8192.0])
    for source in ("vllm", "sglang", "trtllm"):
        for kernel in ("bf16", "fp8", "fp8_block", "nvfp4", "w4a16"):
            each = [
                experts.price(load_bank(load_gpu(gpu), source), tokens, ExpertLayer(2560, 2880, 5, 40, tp, 1, True), kernel).seconds
                for tp in (1, 2, 4)
            ]
            assert (each[1] <= each[0] * (1 + 1e-9)).all() and (each[2] <= each[1] * (1 + 1e-9)).all(), (source, kernel)
