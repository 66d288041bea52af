"""What a card holds of its peaks: power limit, ECC, and times carried with both."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from apexsim.cost import gemm
from apexsim.cost.bank import load_bank
from apexsim.cost.kernels import systems
from apexsim.cost.price import pricer_for
from apexsim.engines import load_engine
from apexsim.errors import InputError
from apexsim.gpu import Gpu
from apexsim.hardware import Cluster, all_gpus, load_gpu
from apexsim.sustained import against, held_share, streamed_share

LENDER = tomllib.loads((files("apexsim") / "data/sustained.toml").read_text(encoding="utf-8"))["lender"]


def test_every_measured_system_lends_what_the_law_says_of_it() -> None:
    assert set(LENDER) == set(systems())
    for gpu in all_gpus():
        if gpu.kernels:
            held, streamed = LENDER[gpu.kernels]
            assert streamed == gpu.streamed
            assert math.isnan(gpu.held) or held == pytest.approx(gpu.held, abs=1e-3), gpu.name


def test_less_power_holds_no_more_and_enough_power_holds_the_ceiling() -> None:
    shares = [held_share("ada", watts, 121e12) for watts in (40.0, 72.0, 150.0, 350.0, 900.0)]
    assert shares == sorted(shares) and shares[-1] == held_share("ada", 1e4, 121e12) < 1.0
    assert shares[1] == pytest.approx(shares[0] * 72 / 40)


def test_what_is_not_known_changes_nothing() -> None:
    assert math.isnan(held_share("unheard-of", 300.0, 1e14)) and math.isnan(held_share("ada", math.nan, 1e14))
    assert against(math.nan, 1.0, "h100_sxm") == (1.0, 1.0) and against(0.5, 1.0, "nobody") == (1.0, 1.0)


def test_memory_that_a_card_keeps_to_itself_tells_of_ecc() -> None:
    assert streamed_share("ada", 22.03, 24.0) == 15 / 16
    assert streamed_share("ada", 23.6, 24.0) == 1.0
    assert streamed_share("hopper", 70.0, 80.0) == 1.0  # ECC beside the data
    assert load_gpu("l40s").streamed < 1.0 == load_gpu("rtx-4090").streamed


def rate(gpu: Gpu, m: int = 8192) -> float:
    """FLOP/s of one large product."""
    seconds = gemm.price(load_bank(gpu), np.array([float(m)]), 8192, 8192, "bf16").seconds[0]
    return 2.0 * m * 8192 * 8192 / float(seconds)


@pytest.mark.parametrize("name", ["a10", "l4", "h100-pcie", "h100-nvl", "a30", "t4", "rtx-6000-ada", "rtx-pro-6000-max-q"])
def test_a_card_with_little_power_multiplies_no_faster_than_it_holds(name: str) -> None:
    gpu = load_gpu(name)
    assert rate(gpu) < 1.15 * gpu.held * gpu.flops["bf16"]


def test_a_card_with_power_to_spare_is_not_as_slow_as_one_without() -> None:
    card, other = load_gpu("rtx-4090"), load_gpu("l40s")
    assert rate(card) / card.flops["bf16"] > 1.4 * rate(other) / other.flops["bf16"]


@pytest.mark.parametrize("name", ["rtx-4090", "rtx-6000-ada", "rtx-5090", "rtx-3090", "rtx-a6000"])
@pytest.mark.parametrize("tokens", [1.0, 16.0, 36.0, 64.0])
def test_a_card_without_ecc_streams_the_weights_of_a_batch(name: str, tokens: float) -> None:
    """Its lender's own limits are not its: three quarters of the bandwidth, whatever the batch."""
    gpu = load_gpu(name)
    seconds = gemm.price(load_bank(gpu), np.array([tokens]), 28672, 4096, "bf16").seconds[0]
    assert 2.0 * 28672 * 4096 / seconds > 0.73 * gpu.memory_bandwidth


@pytest.mark.parametrize("gpu", [g for g in all_gpus() if not g.link.peer], ids=lambda g: g.name)
def test_gpus_that_do_not_reach_each_other_run_no_all_reduce_over_mapped_memory(gpu: Gpu) -> None:
    assert not pricer_for(load_engine("vllm"), Cluster(gpu, 2)).custom


@pytest.mark.parametrize("gpu", [g for g in all_gpus() if g.borrow], ids=lambda g: g.name)
def test_more_power_is_never_slower(gpu: Gpu) -> None:
    less = replace(gpu, held=0.5 * gpu.held)
    assert rate(less) <= rate(gpu) * (1 + 1e-9) <= gpu.flops["bf16"] * 1.0001


def test_a_lower_clock_borrows_its_own_tables_with_the_same_share() -> None:
    card = load_gpu("h100-sxm")
    assert load_gpu("h100-sxm@1200").held == card.held
    assert against(card.held, card.streamed, "h100_sxm")[0] == pytest.approx(1.0, abs=1e-3)


def test_a_file_may_state_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nbase = "l4"\n[sustained]\nbf16 = 60.5\n', encoding="utf-8")
    assert load_gpu(path).held == pytest.approx(0.5)
    path.write_text('name = "mine"\nbase = "l4"\n[sustained]\nbf16 = 200\n', encoding="utf-8")
    with pytest.raises(InputError, match="above the peak"):
        load_gpu(path)
