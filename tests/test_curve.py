"""Curves against the load: their knee, what they take for loads, and how they are told."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from apexsim import api
from apexsim.cli import main
from apexsim.report.curvepage import told
from apexsim.search.curve import LEAST, bent, curve_of, load_of, with_curves
from apexsim.search.inverse import size
from apexsim.search.study import LoadPoint, Study
from apexsim.workload.columns import ideal_hit
from apexsim.workload.load import mean_rate
from apexsim.workload.repeat import repeated

Capture = pytest.CaptureFixture[str]
MADE = {"prompt_len": 300, "output_len": 40, "num_requests": 300}


def at(load: float, served: float, e2e: float, saturated: bool = False) -> LoadPoint:
    return LoadPoint(load, served, float("nan"), 0.1, 0.01, e2e, 50.0, 100.0, True, saturated)


def test_the_knee_is_the_load_of_most_power() -> None:
    """Of an M/M/1 queue power, ρ · (1 − ρ), is highest at half of the load (Kleinrock 1979)."""
    loads = [at(rho, rho, 1.0 / (1.0 - rho)) for rho in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert bent("mm1", False, loads).knee == 2


def test_no_knee_where_power_still_rises_or_loads_are_few() -> None:
    assert bent("", False, [at(r, r, 1.0) for r in (1.0, 2.0, 3.0)]).knee == -1
    assert bent("", False, [at(1.0, 1.0, 1.0), at(2.0, 1.0, 9.0)]).knee == -1
    assert "no knee" in told(bent("", False, [at(r, r, 1.0) for r in (1.0, 2.0, 3.0)]))


def test_a_load_that_is_not_kept_up_with_is_no_knee() -> None:
    loads = [at(1.0, 1.0, 1.0), at(2.0, 9.0, 1.0, saturated=True), at(3.0, 1.0, 3.0)]
    assert bent("", False, loads).knee == 0
    assert "does not keep up from 2.00 on" in told(bent("", False, loads))


@pytest.fixture(scope="module")
def study() -> Study:
    return api.plan("llama-3.1-8b", gpu="l40s", gpus=2, request_rate=2.0, **MADE)


def test_every_load_is_the_plan_simulated_under_it(study: Study) -> None:
    curve = curve_of(study.setting, study.goal, study.ranked[0].plan)
    assert [x.load for x in curve.loads] == sorted(x.load for x in curve.loads) and len(curve.loads) > 8
    assert not curve.loads[0].saturated and curve.loads[-1].ttft > curve.loads[0].ttft
    for x in curve.loads[:6]:
        assert x.served == pytest.approx(x.load, rel=0.1)


def test_curves_are_of_the_first_plans_and_the_usual_one(study: Study) -> None:
    found = with_curves(study)
    assert found.curves[0].label == study.ranked[0].plan.shorthand and study.heuristic in {c.label for c in found.curves}
    assert all(0 < half < 1 for half in found.curves[0].half.values())


def test_users_and_all_at_once_have_curves_too(study: Study) -> None:
    users = api.plan("llama-3.1-8b", gpu="l40s", gpus=2, concurrency=8, **MADE)
    curve = with_curves(users).curves[0]
    assert curve.closed and curve.loads[0].load == 1 and curve.loads[-1].load == 32
    offline = api.plan("llama-3.1-8b", gpu="l40s", gpus=2, **MADE)
    assert not with_curves(offline).curves[0].closed


def test_repeated_requests_come_at_the_same_rate(study: Study) -> None:
    work = study.setting.workload
    more = repeated(work, LEAST)
    assert more.size >= LEAST and (np.diff(more.arrive) >= 0).all()
    assert mean_rate(more.arrive) == pytest.approx(mean_rate(work.arrive), rel=1e-3)
    assert (more.prompt[: work.size] == work.prompt).all()


@pytest.mark.parametrize(
    "more", [{"shared_prefix": "200x3"}, {"turns": 4}, {"shared_prefix": "64x2", "turns": 3, "turn_gap": 2.0}], ids=str
)
def test_repeated_requests_share_and_wait_within_their_own_repetition(more: dict[str, Any]) -> None:
    """What a repetition finds in a cache is what the one before found: nothing of an earlier one."""
    work = api.ask("llama-3.1-8b", gpu="l40s", gpus=1, request_rate=4.0, **{**MADE, "num_requests": 60, **more})[0].workload
    more_work = repeated(work, 5 * work.size)
    assert more_work.size == 5 * work.size and (np.diff(more_work.arrive) >= 0).all()
    assert ideal_hit(more_work) == pytest.approx(ideal_hit(work))
    for k in range(5):
        part = more_work.only(np.arange(k * work.size, (k + 1) * work.size))
        assert ideal_hit(part) == pytest.approx(ideal_hit(work)) and (part.after == work.after).all()
        assert (part.prompt == work.prompt).all() and (part.delay == work.delay).all()


def test_a_sized_load_has_a_curve_that_agrees() -> None:
    found = size("llama-3.1-8b", gpu="l40s", gpus=1, slos=("ttft:p95=500ms",), **{**MADE, "num_requests": 600})
    assert found.curve is not None and found.best is not None
    kept = [x.load for x in found.curve.loads if x.keeps and not x.saturated]
    assert max(kept) <= 1.15 * found.best.value


def test_lists_of_loads_show_a_curve_in_text_and_json(capsys: Capture) -> None:
    words = ["plan", "llama-3.1-8b", "--gpu", "l40s:1", "--request-rate", "1,4,8,16", "--prompt-len", "300", "--output-len", "40",
             "--num-requests", "300"]  # fmt: skip
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "TTFT p95 against requests/s" in text and "└" in text
    assert main([*words, "--json", "-"]) == 0
    (curve,) = json.loads(capsys.readouterr().out)["curves"]
    assert [x["load"] for x in curve["loads"]] == [1, 4, 8, 16]


def test_a_load_is_read_from_its_run(study: Study) -> None:
    run = study.ranked[0]
    one = load_of(2.0, run)
    assert one.e2e == run.metrics.e2el.mean and one.pace == 1.0 / run.metrics.tpot.median and one.keeps


@pytest.mark.parametrize("users", [5, 50, 500])
def test_the_curve_of_a_size_has_the_load_that_was_asked_for(users: int) -> None:
    asked = {"gpu": "h100", "gpus": 1, "prompt_len": 200, "output_len": 20, "slos": ("ttft:p95=30s",)}
    found = size("llama-3.1-8b", concurrency=users, find="gpus", **asked)
    assert found.curve is not None and users in [each.load for each in found.curve.loads]
