"""What engines join by release: norms to all-reduces, products of one input, gates beside them; and whose kernels experts run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from apexsim.clock import at_clock
from apexsim.cost.factors import Factors
from apexsim.cost.price import Pricer, pricer_for
from apexsim.cost.tables import small_kernels
from apexsim.engines import EngineRow, load_engine
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.model.ops import Axis, Gemm, Grouped
from apexsim.plan.limits import norms_joined
from apexsim.plan.lower import lower
from apexsim.plan.plan import parse_plan

QWEN, DEEPSEEK = "qwen--qwen3.5-35b-a3b", "deepseek-ai--deepseek-v3"


def joined(model: str, plan: str, gpu: str, engine: str, nodes: int = 1) -> int:
    """All-reduces of a layer that take a norm along."""
    card, layout = load_gpu(gpu), parse_plan(plan)
    return norms_joined(load_model(model), layout, Cluster(card, layout.devices // nodes, nodes), load_engine(engine)).joined_norms


def test_norms_are_joined_for_the_models_that_a_release_names() -> None:
    assert joined(DEEPSEEK, "TP8", "b200-sxm", "sglang@0.5.6") == 2
    assert [joined(QWEN, "TP2", "b200-sxm", f"sglang@{version}") for version in ("0.5.6", "0.5.10")] == [0, 2]
    assert joined(DEEPSEEK, "TP8", "b200-sxm", "vllm") == joined("llama-3.1-70b", "TP8", "b200-sxm", "sglang") == 0


@pytest.mark.parametrize(("plan", "gpu", "nodes"), [("DEP8", "h200-sxm", 1), ("TP8", "l40s", 1), ("TP16", "h200-sxm", 2)])
def test_no_norm_is_joined_with_lanes_beyond_a_node_or_on_other_cards(plan: str, gpu: str, nodes: int) -> None:
    assert joined(DEEPSEEK, plan, gpu, "sglang", nodes) == 0


@pytest.mark.parametrize("model", [QWEN, DEEPSEEK, "llama-3.1-8b"])
def test_each_joined_norm_is_one_kernel_less_where_something_is_reduced(model: str) -> None:
    row, whole = load_engine("sglang"), load_model(model)
    for plan, left in (("TP1", 0), ("TP2", 2)):
        (stage,) = lower(whole, parse_plan(plan), load_gpu("b200-sxm").flops)
        counts = [small_kernels(stage, replace(row, joined_norms=n)) for n in (0, 1, 2)]
        assert [counts[0] - c for c in counts] == [0, len(whole.decoder.layers) * min(1, left), len(whole.decoder.layers) * left]


def inputs(engine: EngineRow, captured: bool) -> float:
    """Seconds that the input products of Qwen3.5's linear attention take."""
    cluster = Cluster(load_gpu("b200-sxm"), 2)
    (stage,) = lower(load_model(QWEN), parse_plan("TP2@fp8_block"), cluster.gpu.flops)
    pricer, ops = pricer_for(engine, cluster), {op for layer, _ in stage.layers for op in layer.ops if isinstance(op, Gemm)}
    return sum(float(pricer.dense(op, np.arange(1.0, 9.0), captured).seconds[-1]) for op in ops if op.parts > 1)


def test_products_of_one_input_take_less_time_the_more_of_them_are_joined() -> None:
    row = load_engine("sglang")
    apart, one, beside = (inputs(replace(row, joined_inputs=n), True) for n in (0, 1, 2))
    assert apart > 1.3 * one and one > beside > 0.0
    assert inputs(replace(row, joined_inputs=2), False) == inputs(replace(row, joined_inputs=1), False)  # a prompt has no second stream
    assert (load_engine("sglang@0.5.6").joined_inputs, row.joined_inputs, load_engine("vllm").joined_inputs) == (0, 2, 1)


def test_models_that_hold_one_product_know_no_difference() -> None:
    cluster = Cluster(load_gpu("h200-sxm"), 2)
    (stage,) = lower(load_model("qwen3-next-80b-a3b"), parse_plan("TP2"), cluster.gpu.flops)
    apart, one = (Pricer(pricer_for(load_engine("sglang"), cluster).bank, cluster, joined=n) for n in (0, 1))
    n = np.arange(1.0, 33.0)
    ops = [op for layer, _ in stage.layers for op in layer.ops if isinstance(op, Gemm)]
    assert all((apart.dense(op, n, True).seconds == one.dense(op, n, True).seconds).all() for op in ops)


def test_gates_stay_in_sixteen_bit() -> None:
    (stage,) = lower(load_model(QWEN), parse_plan("TP2@fp8_block"), load_gpu("h200-sxm").flops)
    gates = {op.kernel for layer, _ in stage.layers for op in layer.ops if isinstance(op, Gemm) and op.aside}
    assert gates == {"bf16"}


@pytest.mark.parametrize(
    ("engine", "gpu", "layer", "elsewhere"),
    [
        ("vllm@0.16.0", "h200-sxm", {}, True),
        ("vllm@0.17.0", "h200-sxm", {}, False),  # Triton's, which its own table holds
        ("vllm@0.16.0", "b200-sxm", {}, False),
        ("vllm@0.16.0", "h200-sxm", {"tp": 1, "ep": 4}, False),
        ("vllm@0.16.0", "h200-sxm", {"kernel": "bf16", "weight_bytes": 2.0}, False),
    ],
)
def test_whole_experts_run_the_kernel_that_a_release_picks(engine: str, gpu: str, layer: dict[str, Any], elsewhere: bool) -> None:
    cluster, n = Cluster(load_gpu(gpu), 4), np.arange(1.0, 65.0)
    op = replace(Grouped("experts", 3072, 1536, 256, 8, 4, 1, True, "fp8_block", 1.0), **layer)
    own, other = (pricer_for(load_engine(each), cluster).dense(op, n, True).seconds for each in ("vllm@0.17.0", engine))
    assert bool((own != other).any()) == elsewhere


@pytest.mark.parametrize(
    ("gpu", "kernel", "tp", "same"), [("b200-sxm", "nvfp4", 4, True), ("b200-sxm", "bf16", 4, False), ("b200-sxm", "nvfp4", 1, False)]
)
def test_sglang_runs_whole_nvfp4_experts_on_b200_as_tensorrt_llm_does(gpu: str, kernel: str, tp: int, same: bool) -> None:
    cluster, n = Cluster(load_gpu(gpu), 4), 2.0 ** np.arange(14)
    op = Grouped("experts", 7168, 2048, 256, 8, tp, 4 // tp, True, kernel, 0.5625 if kernel == "nvfp4" else 2.0)
    sglang, trtllm = (pricer_for(load_engine(each), cluster).dense(op, n, True).seconds for each in ("sglang", "trtllm"))
    assert bool((sglang == trtllm).all()) == same


@pytest.mark.parametrize("engine", ["sglang@0.5.6", "sglang", "vllm@0.16.0", "trtllm"])
def test_a_pricer_on_other_gpus_keeps_all_that_is_the_engines(engine: str) -> None:
    """A clock, or what a sensitivity changes: another GPU, the same engine and the same calibration."""
    cluster = Cluster(load_gpu("h200-sxm"), 4)
    pricer = pricer_for(load_engine(engine), cluster, custom_all_reduce=False).scaled(Factors(decode=1.1))
    slower = pricer.on(replace(cluster, gpu=at_clock(cluster.gpu, 990)))
    kept = {name for name, value in vars(pricer).items() if vars(slower)[name] == value}
    assert set(vars(pricer)) - kept <= {"cluster", "bank", "_seen", "elsewhere"} and slower.bank.gpu == slower.cluster.gpu
    assert (slower.elsewhere is None) == (pricer.elsewhere is None)
    assert slower.elsewhere is None or (slower.elsewhere[1].gpu == slower.cluster.gpu and slower.elsewhere[0] == pricer.elsewhere[0])

    ops = [Gemm("in", 4096, 2048, "bf16", 2.0, Axis.TOTAL, parts=4), Grouped("experts", 3072, 1536, 256, 8, 4, 1, True, "fp8_block", 1.0)]
    n, same = np.arange(1.0, 65.0), pricer.on(cluster)
    assert all((same.dense(op, n, True).seconds == pricer.dense(op, n, True).seconds).all() for op in ops)
