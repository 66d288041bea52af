"""GPUs whose kernels nobody timed: speeds fitted on served runs."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apexsim.cost import collectives, gemm
from apexsim.cost.bank import load_bank
from apexsim.cost.fitted import fitted_for, guessed
from apexsim.cost.roofline import Provenance
from apexsim.engines import load_engine
from apexsim.hardware import all_gpus, load_gpu

AMD = [gpu for gpu in all_gpus() if fitted_for(gpu.arch)]


def test_only_gpus_without_tables_of_their_own_or_lent_are_fitted() -> None:
    assert {gpu.vendor for gpu in AMD} == {"AMD"} and len(AMD) >= 8
    assert all(not gpu.kernels and not gpu.borrow and guessed(gpu) == "fitted" for gpu in AMD)
    assert fitted_for("hopper") is None and load_bank(load_gpu("h100-sxm")).fitted is None


@pytest.mark.parametrize("gpu", AMD, ids=lambda g: g.name)
def test_no_product_beats_its_bytes_or_its_flop(gpu) -> None:
    m, n, k = np.array([1.0, 16.0, 256.0, 8192.0]), 8192, 8192
    priced = gemm.price(load_bank(gpu), m, n, k, "bf16")
    least = np.maximum(2 * m * n * k / gpu.flops["bf16"], 2.0 * n * k / gpu.memory_bandwidth)
    assert (priced.seconds > least).all() and (np.diff(priced.seconds) >= 0).all()
    assert (priced.provenance == Provenance.ROOFLINE).all()


def test_collectives_take_some_launches_and_their_bytes() -> None:
    bank = load_bank(load_gpu("mi355x"))
    small, large = collectives.price(bank, "all_reduce", [1024.0, 2.0**28], 8).seconds
    assert 5e-6 < small < 40e-6 and large > 2 * 7 / 8 * 2.0**28 / load_gpu("mi355x").link.bandwidth


def test_the_host_of_rocm_replaces_that_of_the_engines_row() -> None:
    row, old = load_engine("sglang"), fitted_for("cdna3")
    new = fitted_for("cdna4")
    assert old and new
    assert old.hosted(row).prompt_floor_launch_s > 2 * new.hosted(row).prompt_floor_launch_s > 0
    assert new.hosted(row).prompt_factor == 1.0 and new.hosted(row).max_num_seqs == row.max_num_seqs


def test_the_pace_is_that_of_the_newest_measured_release_that_is_no_newer() -> None:
    found, row = fitted_for("cdna4"), load_engine("sglang")
    assert found
    paces = [found.pace(replace(row, asked=version)) for version in ("0.5.2", "0.5.9", "0.5.12", "0.5.20")]
    assert paces[0] == paces[1] == 1.0 > paces[2] == paces[3]
    assert found.pace(load_engine("vllm")) == 1.0


HEAD = "id,suspect,origin,system,backend,backend_version,precision,isl,osl,template_tokens,concurrency,num_prompts,attn_tp,launch_chunked_prefill_size,launch_max_prefill_tokens,launch_gpu_mem_frac,launch_kv_dtype,launch_cudagraph,ttft_median_ms,tpot_median_ms,len_dist,config"  # noqa: E501
RUN = "a,,inferencex,mi300x,sglang,0.5.9,fp8,64,8,0,1,4,8,,,0.8,fp8,128,100,10,x,deepseek-ai--DeepSeek-R1"


@pytest.mark.parametrize(("text", "told"), [
    ("", "holds no rows"), ("a,b\n1,2\n", "the columns of no known kind"), (f"{HEAD}\n{RUN[:20]}\n", "cells, the header names"),
    (f"{HEAD}\n{RUN.replace('fp8,64', 'fp3,64')}\n", "expected a format of fp8, fp4, got 'fp3'"),
    (f"{HEAD}\n{RUN.replace('100,10', '100,x')}\n", "'tpot_median_ms' is no number"),
    (f"{HEAD}\n{RUN.replace('100,10', ',10')}\n", "expected a time in 'ttft_median_ms'"),
    (f"{HEAD}\n{RUN.replace('1,4,8', '1,4,0.5')}\n", "'attn_tp' is no whole number"),
    (f"{HEAD}\n{RUN.replace('mi300x', 'mi999')}\n", "unknown GPU 'mi999'"),
    (f"{HEAD}\n{RUN.replace('0.5.9', '')}\n", "holds no run of a known release"),
])  # fmt: skip
def test_a_file_that_no_speed_can_be_fitted_on_is_one_line(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(text)
    monkeypatch.setattr("sys.argv", ["fit_rocm.py", str(file)])
    assert runpy.run_path(str(Path(__file__).parent.parent / "scripts/fit_rocm.py"))["main"]() == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and told in err, err
