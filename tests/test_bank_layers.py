"""The cost bank beyond dense layers: experts, latent and encoder attention, scans, expert dispatch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from apexsim.cost import attention, collectives, experts, gemm, scan
from apexsim.cost.attention import bidirectional, causal, latent
from apexsim.cost.bank import Bank, load_bank
from apexsim.cost.kernels import Tables, manifest
from apexsim.cost.price import Pricer
from apexsim.cost.roofline import KERNELS, Provenance
from apexsim.cost.shapes import ExpertLayer, RecurrentState, Routing, expert_work
from apexsim.cost.surface import Lent, Match, Surface
from apexsim.errors import InputError
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.ops import Collective


def bank(system: str, source: str = "vllm", borrow: str = "", **over: object) -> Bank:
    """A bank with the peaks of a measured system."""
    entry = manifest()["systems"][system or borrow]
    fields = {"name": system or f"like {borrow}", "flops": entry["flops"], "memory_bandwidth": entry["bandwidth"],
              "kernels": system, "borrow": borrow}  # fmt: skip
    return load_bank(SimpleNamespace(**{**fields, **over}), source)


DEEPSEEK = {"hidden": 7168, "inner": 2048, "experts": 256, "top_k": 8}


@pytest.mark.parametrize("source", ["vllm", "sglang", "trtllm"])
def test_experts_return_measured_points_verbatim_or_16_bit(source: str) -> None:
    table = Tables("h200_sxm").table("moe", ("fp8_block", source, ""))
    row = table.axes["shape"].tolist().index([7168, 2048, 8, 256, 8, 1, 1])
    load = table.axes["load"].tolist().index(120)
    priced = experts.price(bank("h200_sxm", source), table.axes["tokens"], ExpertLayer(**DEEPSEEK, tp=8, ep=1), "fp8_block")
    sixteen = experts.price(bank("h200_sxm", source), table.axes["tokens"], ExpertLayer(**DEEPSEEK, tp=8, ep=1), "bf16").seconds
    measured = table.seconds[row, load]
    same = np.isclose(priced.seconds, measured, rtol=1e-12)
    assert same.sum() > 0.4 * len(same)
    assert (priced.provenance[same] == Provenance.MEASURED).all()
    np.testing.assert_array_less(priced.seconds[~same], measured[~same])  # lowered to 16 bit while weights are what is read
    assert (priced.seconds[~same] >= sixteen[~same] * (1 - 1e-12)).all()


def test_balanced_load_is_the_slow_one_at_small_batch() -> None:
    few = [experts.price(bank("h200_sxm"), [32], ExpertLayer(**DEEPSEEK, tp=8, ep=1), "fp8_block", d).seconds[0]
           for d in ("balanced", "power_law_1.2")]  # fmt: skip
    assert few[0] > few[1]


def test_experts_never_beat_the_memory() -> None:
    layer = ExpertLayer(7168, 2048, 8, 256, 8, 1)
    tokens = np.array([512.0])
    nbytes = expert_work(tokens, layer, KERNELS["fp8_block"])[1]
    assert experts.price(bank("h200_sxm"), tokens, ExpertLayer(**DEEPSEEK, tp=8, ep=1), "fp8_block").seconds[0] > nbytes[0] / 4.8e12


def test_a_layer_that_was_not_timed_is_transferred_and_near_its_ideal() -> None:
    priced = experts.price(bank("h200_sxm"), [1, 64, 4096], ExpertLayer(2048, 1408, 4, 60, 2, 1), "bf16")
    ideal = expert_work(np.array([1.0, 64, 4096]), ExpertLayer(2048, 1408, 4, 60, 2, 1), KERNELS["bf16"])
    bound = np.maximum(ideal[0] / 989e12, ideal[1] / 4.8e12)
    assert (priced.provenance >= Provenance.TRANSFERRED).all()
    assert (priced.seconds > bound).all()
    assert (priced.seconds[1:] < 8 * bound[1:]).all()
    assert (np.diff(priced.seconds) > 0).all()


def test_mxfp4_runs_w4a8_where_there_are_fp4_units_and_w4a16_elsewhere() -> None:
    size = {"hidden": 2880, "inner": 2880, "experts": 128, "top_k": 4, "tp": 4, "ep": 1}
    for system, source, kernel in (("b200_sxm", "sglang", "w4a8_mxfp4"), ("h200_sxm", "vllm", "w4a16_mxfp4")):
        got = experts.price(bank(system, source), [64], ExpertLayer(**size), "mxfp4")
        assert got.seconds == experts.price(bank(system, source), [64], ExpertLayer(**size), kernel).seconds
        assert got.provenance[0] == Provenance.MEASURED


@pytest.mark.parametrize("kernel", ["bf16", "fp8", "fp8_block", "nvfp4", "mxfp4", "int8", "w8a16", "w4a16"])
@pytest.mark.parametrize("system", ["a100_sxm", "h100_sxm", "b300_sxm", "l40s", "b60", "v100_pcie"])
def test_experts_in_any_format_have_a_sane_price_everywhere(system: str, kernel: str) -> None:
    seconds = experts.price(bank(system), [1, 64, 4096], ExpertLayer(4096, 14336, 2, 8, 2, 1), kernel).seconds
    assert (seconds > 1e-6).all()
    assert (seconds < 2.0).all()
    assert seconds[0] < seconds[2]


def test_unknown_load_is_told() -> None:
    with pytest.raises(InputError, match="skewed"):
        experts.price(bank("h200_sxm"), [1], ExpertLayer(**DEEPSEEK, tp=8, ep=1), "bf16", "skewed")


def test_latent_attention_reads_its_cache_once_for_all_heads() -> None:
    b = bank("h200_sxm")
    one, many = (attention.price(b, latent("decode", h, 576), [64], 8192.0).seconds[0] for h in (8, 16))
    read = 64 * 8192 * 576 * 2 / 4.8e12
    assert read < one < 3 * read
    assert many < 1.5 * one
    small = attention.price(b, latent("decode", 16, 576, kv_dtype="fp8"), [64], 8192.0)
    assert small.seconds[0] < many
    assert small.provenance[0] == Provenance.MEASURED


def test_latent_prompt_cost_is_rising_and_convex() -> None:
    length = np.unique(np.geomspace(1, 65536, 200).astype(int)).astype(float)
    cost = attention.marginal(bank("b200_sxm"), latent("prefill", 16, 192), length).seconds
    slope = np.diff(np.r_[0.0, cost]) / np.diff(np.r_[0.0, length])
    assert (slope > 0).all()
    assert (np.diff(slope) >= -1e-12 * slope[1:]).all()
    assert 0 < attention.launch(bank("b200_sxm"), latent("prefill", 16, 192)) < 50e-6


def test_absorbed_products_cost_their_weights_once() -> None:
    few, many = scan.absorbed(bank("h200_sxm"), [1, 4096], 16).seconds
    assert 2e-6 < few < 15e-6
    assert many > 2 * few


def test_encoder_attention_is_quadratic() -> None:
    near, far = attention.price(bank("h200_sxm"), bidirectional(16, 80), 1, [4096, 16384]).seconds
    assert 10 < far / near < 20


def test_scans_grow_with_tokens_and_a_state_is_read_and_written() -> None:
    b = bank("h200_sxm")
    short, long = scan.price(b, "gdn", "prefill", 1, [1024, 16384], RecurrentState(16, 32, 128, 128)).seconds
    assert 10 < long / short < 20
    step = scan.price(b, "gdn", "decode", [64], 1, RecurrentState(16, 32, 128, 128))
    assert step.seconds[0] > 2 * 64 * 32 * 128 * 128 * 4 / 4.8e12
    assert step.provenance[0] == Provenance.MEASURED
    assert scan.price(b, "mamba2", "decode", [64], 1, RecurrentState(8, 64, 128, 64)).provenance[0] == Provenance.ROOFLINE


def test_expert_dispatch_is_measured_on_its_node_and_a_formula_elsewhere() -> None:
    b = bank("h200_sxm")
    route = Routing(7168, 8, 256)
    one, two = (collectives.dispatch(b, [1, 128], route, 8 * nodes, nodes, True) for nodes in (1, 2))
    assert one is not None and two is not None
    assert (one.provenance == Provenance.MEASURED).all()
    assert 10e-6 < one.seconds[0] < one.seconds[1] < 300e-6
    assert two.seconds[1] > one.seconds[1]
    assert collectives.dispatch(bank("l40s"), [128], route, 8, 1, True) is None
    assert collectives.dispatch(b, [128], route, 4, 1, True) is None
    pricer = Pricer(load_bank(load_gpu("l40s")), Cluster(load_gpu("l40s"), 8))
    op = Collective("x", "all_to_all", 7168.0, 8, route=route)
    assert pricer.dense(op, np.array([128.0]), True).provenance[0] == Provenance.ROOFLINE


def test_a_gpu_with_few_tables_of_its_own_borrows_the_rest() -> None:
    b = bank("v100_pcie", borrow="a100_sxm", name="v100 and a100")
    assert gemm.price(b, [1], 4096, 4096, "bf16").provenance[0] == Provenance.MEASURED
    assert attention.price(b, causal("decode", 8, 1, 128), [8], 1024).provenance[0] == Provenance.TRANSFERRED
    assert experts.price(b, [8], ExpertLayer(4096, 14336, 2, 8, 2, 1), "bf16").provenance[0] == Provenance.TRANSFERRED
    # the A100's attention at 900 instead of 2,039 GB/s
    own, lender = (attention.price(x, causal("decode", 8, 1, 128), [64], 8192).seconds for x in (b, bank("a100_sxm")))
    ratio = own / lender
    assert 1.8 < ratio[0] < 2.3


def test_tables_of_all_systems_open() -> None:
    for system in manifest()["systems"]:
        tables = Tables(system)
        for family in tables.index:
            for key in tables.keys(family):
                assert tables.table(family, key).seconds.size


MAKERS = {
    "gemm": gemm.surface_of, "quantise": partial(Surface, kind=gemm.QUANTISE), "moe": experts.surface_of, "scan": scan.surface_of,
    "mla_bmm": scan.product_of, "comm": collectives.surface_of, "dispatch": collectives.routes_of,
    **{family: partial(attention.surface_of, family=family) for family in ("attention", "mla", "encoder")},
}  # fmt: skip


@pytest.mark.parametrize("family", MAKERS)
def test_a_surface_gives_its_own_table_back(family: str) -> None:
    """Every family: at the points that were timed the times themselves, measured; a GEMM's but for spikes, which only come down."""
    tables = Tables("h200_sxm")
    for key in tables.keys(family):
        table = tables.table(family, key)
        made = MAKERS[family](table, tables.peaks)
        rows = list(np.ndindex(table.seconds.shape[: table.seconds.ndim - len(made.sizes)]))
        for row in rows[:: 1 + len(rows) // 12]:
            known = ~np.isnan(table.seconds[row])
            if not known.any():
                continue
            priced = made.price(Match(row), made.shape(row), *np.meshgrid(*made.sizes, indexing="ij", sparse=True))
            off = priced.seconds[known] / table.seconds[row][known] - 1
            assert (off < 1e-9).all() and (family == "gemm" or (off > -1e-9).all()), key
            assert (priced.provenance[known] == Provenance.MEASURED).all(), key
            assert (priced.provenance[~known] == Provenance.EXTRAPOLATED).all(), key


GPT_OSS = {"hidden": 2880, "inner": 2880, "top_k": 4, "experts": 128}


@pytest.mark.parametrize(("source", "tp"), [("trtllm", 4), ("trtllm", 8), ("vllm", 1), ("vllm", 8)])
def test_what_another_engine_lends_is_scaled_by_what_both_were_timed_at(source: str, tp: int) -> None:
    """Its curve times own over lender's at the nearest common layer, read from the tables themselves at equal tokens an expert."""
    tables, layer, at = Tables("b200_sxm"), ExpertLayer(**GPT_OSS, tp=tp, ep=1), np.array([1.0, 32.0, 256.0, 2048.0, 16384.0])
    own, lender = (experts.surface_of(tables.table("moe", ("w4a8_mxfp4", name, "")), tables.peaks) for name in (source, "sglang"))
    common = sorted((s for s in own.shapes if s in lender.shapes),
                    key=lambda s: float(np.abs(np.array(s.features()) - layer.features()) @ experts.WEIGHTS))[0]  # fmt: skip
    load = own.axes["load"].tolist().index(120)
    assert own.axes["load"].tolist() == lender.axes["load"].tolist() and layer not in own.shapes

    def seconds(surface: Surface, shape: ExpertLayer, t: np.ndarray) -> np.ndarray:
        return surface.price(Match((surface.shapes.index(shape), load)), shape, t).seconds

    there = np.clip(at * (layer.top_k / layer.experts) / (common.top_k / common.experts), 1.0, 16384.0)
    expected = seconds(lender, layer, at) * seconds(own, common, there) / seconds(lender, common, there)
    found = experts._find(bank("b200_sxm", source), "w4a8_mxfp4", layer)
    assert found is not None and found.lent is not None
    moved = experts.loaded(found, 120)
    priced = bank("b200_sxm", source).price(moved, layer, (at,), found.surface.kind.work)
    assert priced.seconds == pytest.approx(expected)
    assert (priced.provenance >= Provenance.TRANSFERRED).all()


@pytest.mark.parametrize(("family", "key"), [("moe", ("w4a8_mxfp4", "sglang", "")), ("attention", ("decode", "bf16", "vllm", "bf16"))])
def test_a_lender_that_is_the_engine_times_a_number_gives_the_engine_back(family: str, key: tuple[str, ...]) -> None:
    """Law of every family: where the lender is c times as slow throughout, what it lends is what the engine was timed at."""
    tables = Tables("b200_sxm")
    table = tables.table(family, key)
    own, slow = (MAKERS[family](replace(table, seconds=c * table.seconds), tables.peaks) for c in (1.0, 3.0))
    rows = [row for row in np.ndindex(table.seconds.shape[: table.seconds.ndim - len(own.sizes)]) if not np.isnan(table.seconds[row]).all()]
    asked, common = Match(rows[0]), Match(rows[-1], 1.0)
    sizes = np.meshgrid(*own.sizes, indexing="ij", sparse=True)
    given = slow.price(asked, slow.shape(asked.row), *sizes).seconds * Lent(own, common, slow, common).ratio(sizes)
    timed = ~np.isnan(table.seconds[asked.row]) & ~np.isnan(table.seconds[common.row])
    assert timed.any() and given[timed] == pytest.approx(own.price(asked, own.shape(asked.row), *sizes).seconds[timed])
