"""The shorthand of plans, and the arithmetic of layouts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apexsim.errors import InputError
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.plan.plan import Layout, Plan, Precision, parse_plan
from apexsim.plan.space import candidates


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("TP8", Plan(1, 1, Layout(tp=8), Layout(tp=8))),
        ("2xTP4", Plan(2, 1, Layout(tp=4), Layout(tp=4))),
        ("pp2*tp4", Plan(1, 2, Layout(tp=4), Layout(tp=4))),
        ("2×PP2×TP2", Plan(2, 2, Layout(tp=2), Layout(tp=2))),
        ("DP2TP4/TP8", Plan(1, 1, Layout(2, 4), Layout(tp=8))),
        ("TEP8", Plan(1, 1, Layout(tp=8), Layout(ep=8))),
        ("2×DEP8", Plan(2, 1, Layout(dp=8), Layout(ep=8))),
        ("DP2TP4/EP8", Plan(1, 1, Layout(2, 4), Layout(ep=8))),
        ("PP2", Plan(1, 2, Layout(), Layout())),
        ("tp4pp2", Plan(1, 2, Layout(tp=4), Layout(tp=4))),
        ("tp4, pp2", parse_plan("PP2×TP4")),
        ("2xTP4PP2", parse_plan("2×PP2×TP4")),
        ("TP8@1410mhz", Plan(1, 1, Layout(tp=8), Layout(tp=8), clock=1410)),
        ("TP8@fp8@810 MHz", replace(parse_plan("TP8@fp8"), clock=810)),
    ],
)
def test_shorthand_is_read(text: str, plan: Plan) -> None:
    assert parse_plan(text) == plan


@pytest.mark.parametrize("text", ["", "TP", "TP0", "TP4PP2x2", "TP1PP1x6", "DP2TP2PP2x2",
                                   "0×TP2", "TP4/TP8", "TP8TP8", "EPP2", "2××TP4", "TP-2", "PP2PP4", "xPP2"])  # fmt: skip
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_plan(text)


@pytest.mark.parametrize(
    ("model", "per_node", "nodes"),
    [("llama-3.1-70b", 8, 1), ("llama-3.1-8b", 6, 2), ("deepseek-ai--DeepSeek-V3", 8, 2)],
)
def test_every_enumerated_plan_is_read_back_from_its_shorthand(model: str, per_node: int, nodes: int) -> None:
    plans = candidates(load_model(model), Cluster(load_gpu("h100-sxm"), per_node, nodes)).plans
    assert len({plan.shorthand for plan in plans}) == len(plans)
    assert all(parse_plan(plan.shorthand) == plan for plan in plans)


def test_devices_multiply() -> None:
    plan = Plan(3, 2, Layout(2, 4), Layout(tp=8))
    assert (plan.stage_devices, plan.replica_devices, plan.devices, plan.lanes) == (8, 16, 48, 2)


def test_precision_falls_back_to_its_default() -> None:
    precision = Precision((("head", "bf16"),), default="fp8")
    assert (precision.weight("head"), precision.weight("ffn")) == ("bf16", "fp8")


def test_a_plan_may_choose_its_own_quantisation() -> None:
    plan = parse_plan("2xTP4@fp8")
    assert plan.shorthand == "2×TP4@fp8"
    assert plan.precision.weight("ffn") == "fp8"
    assert parse_plan(plan.shorthand) == plan
    with pytest.raises(InputError):
        parse_plan("TP4@fp9")
