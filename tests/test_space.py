"""The plan space: what is enumerated, what each rule turns away, how layers are dealt to stages."""

from __future__ import annotations

from math import gcd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.plan.plan import Layout, Plan
from apexsim.plan.space import RULES, PlanRule, candidates, heuristic_plan, stage_layers

H100 = load_gpu("h100-sxm")


def space(model: str, per_node: int, nodes: int = 1):
    return candidates(load_model(model), Cluster(H100, per_node, nodes))


def test_all_thirty_layouts_of_a_70b_on_8_gpus() -> None:
    # replicas × stages × width = 8; a stage of 2^k GPUs has 2k + 1 coprime layouts: 4·1 + 3·3 + 2·5 + 1·7
    found = space("llama-3.1-70b", 8)
    assert len(found.plans) == 30
    assert {"TP8", "2×TP4", "PP2×TP4", "DP2TP4/TP8", "TP8/DP8", "8×TP1", "PP8×TP1"} <= {p.shorthand for p in found.plans}


@pytest.mark.parametrize(
    ("model", "per_node", "nodes"),
    [("llama-3.1-8b", 8, 1), ("llama-3.1-70b", 6, 1), ("gpt2", 3, 1), ("llama-3.1-70b", 8, 8)],
)
def test_plans_use_every_gpu_once(model: str, per_node: int, nodes: int) -> None:
    found = space(model, per_node, nodes)
    assert found.plans and len(set(found.plans)) == len(found.plans)
    assert all(p.devices == per_node * nodes and p.attention.devices == p.ffn.devices for p in found.plans)
    assert all(gcd(p.attention.dp, p.ffn.dp) == 1 for p in found.plans)


def test_the_funnel_accounts_for_every_plan() -> None:
    found = space("llama-3.1-70b", 8, 64)
    assert sum(n for _, n in found.funnel) == len(found.rejected) == found.enumerated - len(found.plans)
    assert dict(found.funnel)["a layer for every stage"] > 0
    assert all(r.reason and r.shorthand for r in found.rejected)


def test_cells_may_have_coprime_replica_counts() -> None:
    assert "DP2TP3/DP3TP2" in {p.shorthand for p in candidates(load_model("gpt2"), Cluster(H100, 6)).plans}


def test_rejections_name_the_numbers() -> None:
    reasons = {r.reason for r in space("gpt2", 8).rejected}
    assert "12 attention heads cannot be divided by tp 8" in reasons


def test_experts_may_be_parallel_over_the_stage() -> None:
    names = {p.shorthand for p in space("deepseek-ai--DeepSeek-V3", 8).plans}
    assert {"TP8", "TEP8", "DEP8", "DP2TP4/EP8", "DP8/TP8"} <= names
    assert not any("EP" in p.shorthand for p in space("llama-3.1-70b", 8).plans)


def test_a_rule_is_one_row() -> None:
    rules = (*RULES, PlanRule("no pipelines", lambda plan, scene: "a pipeline" if plan.stages > 1 else None))
    found = candidates(load_model("llama-3.1-70b"), Cluster(H100, 8), rules=rules)
    assert dict(found.funnel)["no pipelines"] == 14 and all(p.stages == 1 for p in found.plans)


@pytest.mark.parametrize(
    ("model", "per_node", "nodes", "shorthand"),
    [
        ("llama-3.1-70b", 8, 1, "TP8"),
        ("llama-3.1-70b", 8, 2, "PP2×TP8"),
        ("llama-3.1-70b", 1, 1, "TP1"),
        ("gpt2", 8, 1, "2×TP4"),
    ],
)
def test_the_heuristic_plan(model: str, per_node: int, nodes: int, shorthand: str) -> None:
    assert heuristic_plan(load_model(model), Cluster(H100, per_node, nodes)).shorthand == shorthand


def test_the_heuristic_plan_never_has_more_stages_than_layers() -> None:
    plan = heuristic_plan(load_model("gpt2"), Cluster(H100, 1, 64))
    assert plan == Plan(8, 8, Layout(), Layout())


@pytest.mark.parametrize(
    ("layers", "stages", "dealt"),
    [
        (80, 8, (10,) * 8),
        (61, 2, (31, 30)),
        (61, 4, (15, 15, 16, 15)),
        (62, 4, (15, 16, 16, 15)),
        (5, 3, (2, 2, 1)),
        (3, 1, (3,)),
    ],
)
def test_layers_are_dealt_as_vllm_deals_them(layers: int, stages: int, dealt: tuple[int, ...]) -> None:
    assert stage_layers(layers, stages) == dealt


@given(st.integers(1, 130), st.data())
@settings(max_examples=50, deadline=None)
def test_no_layer_is_lost_and_stages_differ_by_one(layers: int, data: st.DataObject) -> None:
    dealt = stage_layers(layers, data.draw(st.integers(1, layers)))
    assert sum(dealt) == layers and max(dealt) - min(dealt) <= 1
