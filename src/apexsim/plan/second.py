"""The model that drafts for another, and the plan that it is served by (floor 3).

It is a model like any other: its weights, cache, layers and head are counted and priced by the same code, with the plan's own split.
Engines divide it as they divide the model: vLLM asks for equal tensor parallelism (v1/spec_decode/draft_model.py), SGLang and
TensorRT-LLM load it with the server's own.  With pipeline stages it stands whole on the last.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from apexsim.model.dtypes import dtype
from apexsim.model.families import load_model
from apexsim.model.model import Model
from apexsim.plan.plan import Plan, Precision


@cache
def second_model(name: str) -> Model:
    """The model of that name or config.json; raises InputError where there is none."""
    return load_model(name)


def second_of(plan: Plan) -> tuple[Model, Plan]:
    """The model that drafts for a plan that names one, and its own plan: in its checkpoint's formats, with the plan's cache format."""
    assert plan.draft is not None and plan.draft.model
    model = second_model(plan.draft.model)
    formats = Precision(model.weight_dtypes, dtype(model.dtype).name, "auto", plan.precision.kv)
    return model, replace(plan, stages=1, precision=formats, draft=None)
