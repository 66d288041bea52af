"""The study of the APEX paper, on one of its questions."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from apexsim.model.count import total_parameters
from apexsim.model.families import load_model

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    sys.path.insert(0, str(BENCH))
    return importlib.import_module("claims")


@pytest.fixture(scope="module")
def cell(claims: ModuleType):
    return claims.study_cell(("Llama-3.1-405B", "2×8 H100", "creation"))


def test_the_best_plan_is_never_worse_than_the_heuristic_one(cell) -> None:
    assert all(gain >= 1.0 for gain in cell.gains.values())
    assert cell.gains["e2e"] > 1.1  # two stages over the network against tensor parallel over both nodes


def test_more_freedom_saves_more_energy(cell) -> None:
    own, clocked, bounded = cell.saved
    assert 0.0 <= own <= clocked < 1.0 and bounded <= clocked
    assert all(paid >= 1.0 for paid in cell.paid) and cell.paid[2] <= 1.5


def test_rent_is_time_times_gpus_times_price(cell) -> None:
    assert cell.rent_usd == pytest.approx(cell.cluster_s / 3600 * 16 * 1.78)


def test_every_claim_has_a_line(claims: ModuleType, cell) -> None:
    lines = "\n".join(claims.summary([cell], [], 1.0))
    assert all(words in lines for words in ("over the heuristic", "with clocks", "rented GPUs", "the paper"))
    assert claims.as_page(claims.cells_table([cell]), [lines]).count("| Llama-3.1-405B |") == 1


def test_measured_runs_say_that_tensor_parallel_is_faster_and_that_sums_mislead(claims: ModuleType) -> None:
    found = claims.ratios()
    assert all(r.agree for r in found) and all(r.mean[0] > 1.0 for r in found if r.same)
    assert all(r.sums[0] > 1.0 for r in found), "by sums over their share of the requests replicas always look faster"
    assert all(r.cell in claims.section(found) for r in found)


def test_the_synthetic_model_has_a_trillion_parameters() -> None:
    assert total_parameters(load_model(str(BENCH / "synthetic-1t.json"))) == pytest.approx(1e12, rel=0.02)
