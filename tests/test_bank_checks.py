"""Tables against physics, order and hosts (`scripts/kernel_checks.py`), on made ones; and what lookup does with the holes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from apexsim.cost.grid import bridged, settled
from apexsim.cost.roofline import Peaks
from apexsim.cost.shapes import ExpertLayer, chosen

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
checks = pytest.importorskip("kernel_checks")  # needs pandas
from kernel_families import Table  # noqa: E402

SIZES = np.arange(1.0, 13.0)
PLANE = SIZES[:, None] + 3.0 * SIZES[None, :]


@pytest.mark.parametrize("factor", [30.0, 1 / 30.0])
def test_a_spoiled_cell_goes_and_takes_no_sound_one_with_it(factor: float) -> None:
    spoiled = PLANE.copy()
    spoiled[5, 4] *= factor
    gone = checks.out_of_order(spoiled[None], (1, 2))[0]
    assert np.argwhere(gone).tolist() == [[5, 4]]
    filled = bridged(np.where(gone, np.nan, spoiled), SIZES)
    np.testing.assert_allclose(filled, PLANE)


def test_sound_planes_are_left_alone() -> None:
    assert not checks.out_of_order(PLANE[None], (1, 2)).any()


def test_products_timed_in_the_cache_are_bound_by_the_memory() -> None:
    m, n, k = np.array([1, 8]), 2 ** np.arange(9, 16), 2 ** np.arange(9, 16)
    peaks = Peaks({"bf16": 1e15}, 1e12)
    nbytes = 2.0 * n[:, None] * k[None, :]
    seconds = np.repeat((2e-6 + nbytes / np.where(nbytes > 1e8, 0.8e12, 3e12))[None], 2, axis=0)
    told = checks.Told()
    table = Table(("bf16", "any"), seconds, {"m": m, "n": n, "k": k}, "made")
    found = checks._physics({"made": {"gemm": [table]}}, {"made": peaks}, told)["made"]["gemm"][0]
    assert (found.seconds >= nbytes / 0.81e12).all()
    np.testing.assert_allclose(found.seconds[:, nbytes > 2.6e8], seconds[:, nbytes > 2.6e8])
    assert sum(told.done["made", "gemm", ("bf16", "any")].values()) > 0


def test_ranks_of_a_badly_wired_host_are_refused() -> None:
    size = 2.0 ** np.arange(10, 28)
    bus = np.array([20e9, 3.7e9])
    share = 2.0 * (1.0 - 1.0 / np.array([2.0, 4.0]))
    seconds = 5e-6 + share[:, None] * size / bus[:, None]
    table = Table(("all_reduce", "nccl", "1"), seconds, {"gpus": np.array([2, 4]), "bytes": size}, "made")
    found = checks._hosts({"made": {"comm": [table]}}, {}, checks.Told())["made"]["comm"][0]
    assert np.isnan(found.seconds).all(axis=1).tolist() == [False, True]


def test_settled_curves_never_fall_and_lie_between_dips_and_spikes() -> None:
    odd = np.array([1.0, 4.0, 2.0, 3.0, 0.5, 6.0])
    found = settled(odd)
    assert (np.diff(found) >= 0).all()
    assert (found <= np.maximum.accumulate(odd)).all()


@pytest.mark.parametrize("load", [0, 101, 120])
def test_chosen_experts_grow_from_k_to_all(load: int) -> None:
    layer, tokens = ExpertLayer(7168, 2048, 8, 256), np.array([1.0, 2.0, 8.0, 64.0, 1e5])
    share = chosen(tokens, layer, load)
    assert share[0] == pytest.approx(8 / 256)
    assert (np.diff(share) > 0).all()
    assert share[-1] <= 1.0
