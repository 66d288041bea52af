"""Launches of all kinds, for the laws and for the engines' own parsers: models × engines × GPUs × plans × formats × settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from apexsim import api
from apexsim.model.families import load_model
from apexsim.model.names import model_names
from apexsim.plan.plan import Plan, Precision, quantised
from apexsim.plan.space import candidates
from apexsim.report.launch import Launch, ServerStart, asked, launch
from apexsim.search.setting import Setting

LOAD: dict[str, Any] = {"prompt_len": 700, "output_len": 100, "num_requests": 4, "request_rate": 1.0}
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"settings": {"pad": ()}},
    {"settings": {"max_num_seqs": 7, "memory_fraction": 0.85}},
    {"settings": {"max_num_batched_tokens": 512, "chunk": 1}, "kv_dtype": "fp8"},
    {"settings": {"chunk": 0}, "route": "least-outstanding"},
    {"max_model_len": 1500},
)
CLUSTERS = (("h200-sxm", 8, 1), ("h100-sxm", 4, 2), ("mi300x", 4, 1), ("b200-sxm", 8, 2), ("l40s", 2, 4), ("a100-sxm-80gb", 8, 1))
SHORTEST = 1500  # tokens of a model that takes part
FORMATS = ("", "fp8", "int4")


@dataclass(frozen=True)
class Case:
    """A plan, and how it is started."""

    setting: Setting
    plan: Plan
    ask: ServerStart
    launch: Launch

    def __str__(self) -> str:
        cluster = self.setting.cluster
        where = f"{cluster.nodes}x{cluster.per_node} {cluster.gpu.name}"
        return f"{self.setting.model.name} {self.plan.shorthand} on {where} by {self.setting.engine.label}"


def kind(plan: Plan) -> tuple[bool, ...]:
    """What sets plans apart for a launch."""
    ffn, lane = plan.ffn, plan.attention.tp
    return (plan.replicas > 1, plan.stages > 1, plan.lanes > 1, lane > 1, ffn.ep > 1, ffn.ep > 1 and ffn.tp > 1)


def kinds(setting: Setting, precision: Precision) -> list[Plan]:
    """One plan of each kind."""
    found: dict[tuple[bool, ...], Plan] = {}
    for plan in candidates(setting.model, setting.cluster, precision).plans:
        found.setdefault(kind(plan), plan)
    return list(found.values())


def cases(engines: tuple[str, ...], every: int = 1) -> Iterator[Case]:
    """Launches that can be started; cluster, format and settings rotate over the models, each `every`-th model is taken."""
    names = [name for name in model_names() if load_model(name).max_length >= SHORTEST]
    for i, name in enumerate(names[::every]):
        for j, engine in enumerate(engines):
            gpu, gpus, nodes = CLUSTERS[(i + j) % len(CLUSTERS)]
            how = SETTINGS[(i + i // len(CLUSTERS) + 2 * j) % len(SETTINGS)]
            setting, precision, *_ = api.ask(name, gpu=gpu, gpus=gpus, nodes=nodes, engine=engine, **LOAD, **how)
            form = FORMATS[(i + j) % len(FORMATS)]
            for plan in kinds(setting, quantised(precision, form) if form else precision):
                started, ask = launch(setting, plan), asked(setting, plan)
                if started.runnable and isinstance(ask, ServerStart):
                    yield Case(setting, plan, ask, started)
