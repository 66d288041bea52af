"""Every weight format on every GPU: multiplied by units that the GPU has, and said where that is not what the name promises."""

from __future__ import annotations

import numpy as np
import pytest

from apexsim.cost import gemm
from apexsim.cost.bank import load_bank
from apexsim.cost.roofline import KERNELS
from apexsim.hardware import gpu_names, load_gpu
from apexsim.model.dtypes import DTYPES
from apexsim.model.families import load_model
from apexsim.plan.formats import as_priced
from apexsim.plan.lower import kernel_for
from apexsim.plan.plan import Precision

SOURCES = ("vllm", "sglang", "trtllm")


@pytest.mark.parametrize("gpu", gpu_names())
def test_no_kernel_uses_units_that_the_gpu_lacks(gpu: str) -> None:
    card = load_gpu(gpu)
    for name in DTYPES:
        kernel, stored = kernel_for(name, "auto", card.flops)
        row = KERNELS[kernel]
        needs = "fp4" if name == "nvfp4" and not row.weight_only else row.compute
        assert card.flops.get(needs) or needs == "fp32", (name, kernel)
        assert stored == DTYPES[name].stored
        assert row.weight_bytes <= 2.0 or name == "fp32"


@pytest.mark.parametrize("gpu", gpu_names())
@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen--qwen3-30b-a3b"])
def test_a_format_without_units_is_said(gpu: str, model: str) -> None:
    card, what = load_gpu(gpu), load_model(model)
    for name, fmt in DTYPES.items():
        said = as_priced(what, [Precision(default=name)], card.name, card.flops)
        lacks = fmt.compute not in ("bf16", "fp32") and not card.flops.get(fmt.compute)
        assert bool(said) == (lacks or name == "w4a8"), (name, said)


@pytest.mark.parametrize("gpu", gpu_names())
@pytest.mark.parametrize("source", SOURCES)
def test_no_format_multiplies_faster_than_its_units(gpu: str, source: str) -> None:
    card = load_gpu(gpu)
    bank = load_bank(card, source)
    m, n, k = np.array([4096.0, 16384.0]), 8192, 8192
    for name in DTYPES:
        kernel, _ = kernel_for(name, "auto", card.flops)
        peak = bank.peaks.rate(KERNELS[kernel].compute)
        assert (gemm.price(bank, m, n, k, kernel).seconds >= 0.98 * 2.0 * m * n * k / peak).all(), name


@pytest.mark.parametrize("gpu", gpu_names())
@pytest.mark.parametrize("source", SOURCES)
def test_weights_that_are_only_unpacked_are_never_slower_than_16_bit(gpu: str, source: str) -> None:
    bank, m = load_bank(load_gpu(gpu), source), np.array([1.0, 8, 64, 512, 4096])
    wide = gemm.price(bank, m, 4096, 4096, "bf16").seconds
    for kernel in ("w8a16", "w4a16", "w4a16_mxfp4"):
        assert (gemm.price(bank, m, 4096, 4096, kernel).seconds <= wide * (1 + 1e-9)).all(), kernel
