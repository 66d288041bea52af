"""Loads of experts: even counts are "balanced", more skew is never faster, and files of counts are checked."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from apexsim.cost.bank import load_bank
from apexsim.cost.load import FEW, LARGEST, MOST, STEEPEST, ExpertLoad, read_load
from apexsim.cost.price import Pricer
from apexsim.errors import InputError
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.cells import Experts
from apexsim.model.families import load_model
from apexsim.model.ops import Grouped
from apexsim.plan.lower import lower
from apexsim.plan.plan import parse_plan

MODELS = ["mistralai--mixtral-8x7b-v0.1", "qwen--qwen3-235b-a22b", "openai--gpt-oss-120b"]
TOKENS = np.array([1.0, 8, 64, 256, 2048, 8192])


def seconds(model: str, plan: str, gpu: str, load: ExpertLoad) -> np.ndarray:
    """Routed experts of all layers over TOKENS [s]."""
    card, shape = load_gpu(gpu), parse_plan(plan)
    pricer = Pricer(load_bank(card, "vllm"), Cluster(card, shape.stage_devices), load=load)
    found = [(op, n) for stage in lower(load_model(model), shape, card.flops) for layer, n in stage.layers for op in layer.ops]
    return sum(n * pricer.dense(op, TOKENS, False).seconds for op, n in found if isinstance(op, Grouped))


def skewed(experts: int, hot: float) -> ExpertLoad:
    """One expert `hot` times as busy as each other one."""
    return ExpertLoad("measured", (hot, *[1.0] * (experts - 1)))


def experts_of(model: str) -> int:
    return next(c.experts for b in load_model(model).decoder.blocks for c in b.cells if isinstance(c, Experts))


@pytest.mark.parametrize("gpu", ["h100_sxm", "b200_sxm", "l40s", "mi300x"])
@pytest.mark.parametrize("plan", ["TP1", "TP2", "TP4", "TEP2", "TEP4", "DEP4"])
@pytest.mark.parametrize("model", MODELS)
def test_even_counts_are_balanced_and_more_skew_is_never_faster(model: str, plan: str, gpu: str) -> None:
    many = experts_of(model)
    took = [seconds(model, plan, gpu, ExpertLoad("balanced"))]
    took += [seconds(model, plan, gpu, skewed(many, hot)) for hot in (1.0, 1.5, 3.0, 10.0, 100.0, 1e6)]
    np.testing.assert_allclose(took[1], took[0], rtol=1e-12)
    for less, more in pairwise(took):
        assert (more >= less * (1 - 1e-12)).all()


@pytest.mark.parametrize("model", MODELS)
def test_a_load_as_skewed_as_the_steepest_law_costs_tensor_parallel_plans_as_much(model: str) -> None:
    steepest, counted, even = (seconds(model, "TP2", "h100_sxm", load) for load in
                               (ExpertLoad(STEEPEST), skewed(experts_of(model), 1e9), ExpertLoad("balanced")))  # fmt: skip
    np.testing.assert_allclose(counted, np.maximum(np.maximum.accumulate(steepest), even), rtol=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_the_usual_load_is_even_among_few_experts_and_steepest_among_many(model: str) -> None:
    few = experts_of(model) <= FEW
    took, table = (seconds(model, "TP2", "h100_sxm", load) for load in (ExpertLoad(), ExpertLoad("balanced" if few else STEEPEST)))
    np.testing.assert_allclose(took[[0, -1]], table[[0, -1]], rtol=0.01)  # of one token, and where all experts are read
    assert few == bool((took == table).all())  # between them as many are read as a router draws


@pytest.mark.parametrize(
    ("text", "told"),
    [("[1, NaN]", "expert count 1 is no number"), ("[Infinity, 1]", "expert count 0 is no number"), ("[1e308, 1]", "expert count 0 is no"),
     ("[1, -2]", "expert count 1 is no"), ("[1" + "0" * 400 + ", 1]", "a number of 401 digits"), ("[1" + "0" * 9000 + "]", "not JSON"),
     ("[0, 0]", "not all be 0"), ("[]", "no list"), ("{}", "no list"), ("3", "no list"), ('["3", 1]', "expert count 0 is no"),
     ("[true, 1]", "expert count 0 is no"), ("[[1], 1]", "expert count 0 is no"), ("[1,", "not JSON"), ("[" * 5000, "nested too deeply"),
     (str([1] * (MOST + 1)), "no list"), ("[1]" + " " * (1 << 22), "larger than 4 MiB"), ("\x00\xff", "is binary")],
)  # fmt: skip
def test_what_is_no_count_is_one_clear_error(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=told) as fault:
        read_load(str(file))
    assert len(fault.value.line()) < 400


@pytest.mark.parametrize("plan", ["TP2", "TEP2"])
def test_counts_of_another_number_of_experts_are_refused(plan: str) -> None:
    with pytest.raises(InputError, match="3 expert counts for a layer of 8 experts"):
        seconds(MODELS[0], plan, "h100_sxm", ExpertLoad("measured", (1.0, 2.0, 3.0)))


def test_the_largest_counts_are_still_added() -> None:
    load = ExpertLoad("measured", (LARGEST,) * 8)
    assert load.imbalance(8, 4) == pytest.approx(1.0) and load.lean(8, 2) == 0.0
