"""Laws of attention over the best k tokens of a prompt, and the modules of DeepSeek-V3.2 and GLM-5 that were timed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from apexsim.cost import sparse
from apexsim.cost.bank import load_bank
from apexsim.cost.price import pricer_for
from apexsim.cost.tables import runs
from apexsim.engine.types import PROMPT
from apexsim.engines import load_engine
from apexsim.hardware import cluster_of, load_gpu
from apexsim.model.families import load_model
from apexsim.model.ops import Gemm, Index, Mla
from apexsim.plan.lower import lower
from apexsim.plan.plan import Precision, parse_plan

LENGTHS = np.array([0.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0])


def mla(heads: int, kv: str = "bf16") -> Mla:
    return Mla("attention", heads, 512, 64, 128, 128, kv, top_k=2048)


@pytest.mark.parametrize("gpu", ["h100-sxm", "b200-sxm", "a100-sxm-80gb", "mi300x"])
def test_sparse_prompts_grow_with_length_and_heads_and_by_the_token_beyond_k(gpu: str) -> None:
    bank = load_bank(load_gpu(gpu), "sglang")
    found = [sparse.mla_prefill(bank, mla(heads), LENGTHS)[0].seconds for heads in (8, 16, 64, 128)]
    assert all((np.diff(seconds) >= 0).all() for seconds in found)
    assert all((more >= fewer).all() for fewer, more in pairwise(found))
    assert found[0][5] == pytest.approx(2 * found[0][4]) and found[0][4] == pytest.approx(found[1][4])  # padded alike


def test_an_eight_bit_cache_is_padded_less_on_blackwell() -> None:
    bank = load_bank(load_gpu("b200-sxm"), "sglang")
    wide, narrow = (sparse.mla_prefill(bank, mla(16, kv), LENGTHS)[0].seconds[4] for kv in ("bf16", "fp8"))
    assert wide == pytest.approx(2 * narrow)


# Milliseconds of a whole module (projections, indexer, attention) of SGLang 0.5.14 on one prompt, aiconfigurator-core 0.12.0 (Apache-2.0):
# model, GPU, cache, heads of a device, tokens..
V32 = "deepseek-ai/DeepSeek-V3.2"
TIMED = (
    (V32, "h200-sxm", "bf16", 16, 8192, 5.908), (V32, "h200-sxm", "bf16", 128, 8192, 12.052),
    (V32, "b200-sxm", "fp8", 16, 8192, 2.781), (V32, "b200-sxm", "bf16", 128, 8192, 6.644),
)  # fmt: skip


@pytest.mark.parametrize(("name", "gpu", "kv", "heads", "tokens", "measured"), TIMED)
def test_modules_of_sparse_attention_are_met(name: str, gpu: str, kv: str, heads: int, tokens: int, measured: float) -> None:
    model, cluster = load_model(name), cluster_of(gpu, 8, 1)
    plan, pricer = parse_plan(f"TP{128 // heads}", Precision(default="fp8_block", kv=kv)), pricer_for(load_engine("sglang"), cluster)
    total = 0.0
    for op in lower(model, plan, cluster.gpu.flops, 8)[0].layers[-1][0].ops:
        if isinstance(op, Mla | Index):
            priced, launch = pricer.prefill(op, LENGTHS)
            total += priced.seconds[LENGTHS.tolist().index(tokens)] + launch
        elif isinstance(op, Gemm) and op.label in ("qkv", "out", "index") and runs(op, PROMPT):
            total += pricer.dense(op, np.array([float(tokens)]), False).seconds[0]
    assert total * 1e3 == pytest.approx(measured, rel=0.25)
