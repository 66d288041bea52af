"""Everything people serve: every bundled decoder gets a plan and a simulated result on a cluster large enough."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from apexsim import api
from apexsim.cost.account import account
from apexsim.cost.bank import load_bank
from apexsim.cost.price import Pricer
from apexsim.cost.tables import axes_for
from apexsim.engines import load_engine, settled
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.model.model import Model
from apexsim.model.names import DATA
from apexsim.plan.plan import Precision, parse_plan
from apexsim.plan.space import candidates, runnable
from apexsim.search.evaluate import Evaluation, evaluate
from apexsim.search.setting import Setting
from apexsim.workload.trace import Workload

with (DATA / "index.csv").open(encoding="utf-8", newline="") as _file:
    NAMES = [row["name"] for row in csv.DictReader(_file)]
DECODERS = [name for name in NAMES if load_model(name).has_head]
FOUR = Workload("four", np.zeros(4), np.array([200, 900, 40, 2000]), np.array([20, 50, 10, 64]))
LENGTH = 4096
GPU = load_gpu("h200_sxm")
WIDE = {n: Pricer(load_bank(GPU, "vllm"), Cluster(GPU, min(8, n), max(1, n // 8))) for n in (1, 2, 4, 8, 16, 32, 64)}


def setting(model: Model, gpus: int, gpu: str = "h200_sxm", engine: str = "vllm") -> Setting:
    """Four requests on a cluster of nodes of 8."""
    pricer = WIDE[gpus] if (gpu, engine) == ("h200_sxm", "vllm") else None
    card = load_gpu(gpu)
    cluster = Cluster(card, min(8, gpus), max(1, gpus // 8))
    source = {"sglang": "sglang", "tensorrt-llm": "trtllm"}.get(engine, "vllm")
    length = min(LENGTH, model.max_length)
    row = settled(load_engine(engine), card.memory_bytes, card.name, length)
    work = FOUR if model.max_length >= LENGTH else Workload("short", np.zeros(4), FOUR.prompt // 10 + 1, FOUR.output)
    return Setting(model, cluster, row, work, pricer or Pricer(load_bank(card, source), cluster), length)


def precision(model: Model) -> Precision:
    """As the checkpoint has it."""
    return Precision(model.weight_dtypes, model.dtype, "auto", model.kv_dtype or "bf16")


def first_fit(model: Model) -> tuple[Setting, Evaluation] | None:
    """The first plan that fits on the smallest cluster where one does."""
    for gpus in (1, 2, 4, 8, 16, 32):
        here = setting(model, gpus)
        for plan in candidates(model, here.cluster, precision(model)).plans:
            found = evaluate(here, plan)
            if isinstance(found, Evaluation):
                return here, found
    return None


def check(found: Evaluation, work: Workload) -> None:
    """All requests finish, in order of cause, at times that are neither nothing nor absurd."""
    o = found.outcome
    assert (o.first > o.sent).all() and (o.finish > o.first).all() and np.isfinite(o.finish).all()
    step = (o.finish - o.first) / (work.output - 1)
    assert (step > 5e-5).all() and (step < 0.5).all()


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_is_planned_and_simulated(name: str) -> None:
    model = load_model(name)
    found = first_fit(model)
    assert found is not None, f"{name} fits nowhere up to 32 GPUs"
    check(found[1], found[0].workload)


def test_the_bundle_is_whole() -> None:
    assert len(NAMES) >= 157 and len(DECODERS) >= 156


# Layouts that are really served, on clusters they need.
SERVED = [
    ("deepseek-ai--DeepSeek-V3", 8, "TP8"), ("deepseek-ai--DeepSeek-V3", 8, "DEP8"), ("deepseek-ai--DeepSeek-V3", 8, "TEP8"),
    ("deepseek-ai--DeepSeek-V3", 8, "DP2TP4/EP8"), ("deepseek-ai--DeepSeek-V3", 32, "DEP32"),
    ("deepseek-ai--DeepSeek-V3", 32, "PP4×TP8"), ("moonshotai--Kimi-K2-Instruct", 16, "TP16"),
    ("moonshotai--Kimi-K2-Instruct", 16, "DEP16"), ("deepseek-ai--DeepSeek-V3.2", 8, "DEP8"),
    ("Qwen--Qwen3-235B-A22B", 8, "TP8/TP2EP4"), ("openai--gpt-oss-120b", 4, "DEP4"),
    ("MiniMaxAI--MiniMax-M2.5", 8, "TEP8"), ("deepseek-ai--DeepSeek-V4-Pro", 16, "DEP16"),
    ("Qwen--Qwen3.5-397B-A17B", 16, "2×TEP8"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "gpus", "text"), SERVED)
def test_layouts_that_are_served(name: str, gpus: int, text: str) -> None:
    model = load_model(name)
    here = setting(model, gpus)
    found = evaluate(here, parse_plan(text, precision(model)))
    assert isinstance(found, Evaluation), found
    check(found, here.workload)


@pytest.mark.parametrize(
    ("name", "gpus"),
    [("deepseek-ai--DeepSeek-V3.2", 8), ("Qwen--Qwen3-Next-80B-A3B-Instruct", 2), ("openai--gpt-oss-120b", 8)],
)
def test_the_account_adds_up(name: str, gpus: int) -> None:
    model = load_model(name)
    here = setting(model, gpus)
    found = evaluate(here, parse_plan(f"TP{gpus}", precision(model)))
    assert isinstance(found, Evaluation)
    axes = axes_for(here.engine, 1, here.workload.size, here.workload.longest)
    spent = account(found.stages, found.costs, found.outcome, here.pricer, here.engine, axes, 1.0)
    assert sum(v for _, v in spent.seconds) == pytest.approx(spent.busy, rel=0.02)
    assert 0.0 < spent.mfu < 1.0 and 0.0 < spent.mbu < 1.0
    assert sum(share for _, share in spent.provenance) == pytest.approx(1.0)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
@pytest.mark.parametrize("gpu", ["h100-sxm", "b200-sxm", "l40s", "mi300x", "mi325x", "mi355x"])
def test_the_account_adds_up_on_every_kind_of_gpu_and_engine(gpu: str, engine: str) -> None:
    """Also where speeds, the host's constants and the pace of a release were fitted on served runs."""
    for name, plan, size in (("qwen3-30b-a3b", "DEP2", 2), ("llama-3.1-8b", "PP2×TP1", 2)):
        spent = api.simulate(name, plan, gpu=gpu, gpus=size, engine=engine, prompt_len=700, output_len=60, num_requests=40,
                             request_rate=9.0).ranked[0].account  # fmt: skip
        assert sum(v for _, v in spent.seconds) == pytest.approx(spent.busy, rel=1e-6)
        assert sum(share for _, share in spent.provenance) == pytest.approx(1.0)


def test_the_account_adds_up_where_exchanges_hide_behind_computation() -> None:
    spent = api.simulate("deepseek-v3", "DEP16", gpu="h200-sxm", gpus=8, nodes=2, engine="sglang", prompt_len=2000, output_len=40,
                         num_requests=200).ranked[0].account  # fmt: skip
    assert sum(v for _, v in spent.seconds) == pytest.approx(spent.busy, rel=1e-6)


@pytest.mark.parametrize(
    ("gpu", "engine"),
    [("b200_sxm", "tensorrt-llm"), ("h100_sxm", "sglang"), ("a100_sxm_80gb", "vllm"), ("mi300x", "vllm")],
)
def test_one_checkpoint_on_other_gpus_and_engines(gpu: str, engine: str) -> None:
    # MXFP4 experts meet 8-bit activations on Blackwell, 16-bit ones elsewhere; none of these is refused
    model = load_model("openai--gpt-oss-120b")
    here = setting(model, 8, gpu, engine)
    found = evaluate(here, parse_plan("TP8", precision(model)))
    assert isinstance(found, Evaluation)
    check(found, here.workload)


# ---- what an engine can be told -------------------------------------------------------------------------------------

MOE, DENSE = "deepseek-ai--DeepSeek-V3", "llama-3.1-70b"


@pytest.mark.parametrize(
    ("model", "plan", "engine", "reason"),
    [
        (MOE, "DEP8", "vllm", ""), (MOE, "DP2TP4/EP8", "vllm", ""), (MOE, "TEP8", "tensorrt-llm", ""),
        (MOE, "TP8/TP2EP4", "sglang", ""), (MOE, "TP8/TP2EP4", "tensorrt-llm", ""),
        (MOE, "TP8/TP2EP4", "vllm", "over all GPUs of a replica or over none"),
        (MOE, "DP2TP4/EP8", "tensorrt-llm", "lane of its own"), (DENSE, "2×TP4", "vllm", ""),
        (DENSE, "DP2TP4/TP8", "vllm", "dense FFN"), (DENSE, "TP8/DP8", "sglang", "feed-forward replicas"),
        (DENSE, "TP8", "orca", "without a server"),
    ],
)  # fmt: skip
def test_what_engines_can_run(model: str, plan: str, engine: str, reason: str) -> None:
    said = runnable(parse_plan(plan), load_model(model), engine)
    assert (reason in said) if reason else said == ""


def test_bounds_are_declared_with_numbers() -> None:
    space = candidates(load_model(MOE), Cluster(GPU, 8, 16))
    reasons = {r.rule: r.reason for r in space.rejected}
    assert any(plan.lanes == 128 for plan in space.plans)  # no bound on lanes
    assert "span nodes" in reasons["experts split both ways stay in a node"]
