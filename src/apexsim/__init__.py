"""apexsim: plan and predict LLM serving.

    import apexsim
    study = apexsim.plan("llama-3.1-70b", gpu="h100-sxm", gpus=8, trace="examples/creation_05.jsonl")
    print(study.ranked[0].plan.shorthand)
    print(apexsim.render(study))

Everything below is loaded when it is first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import apexsim.calibrate as calibrate
import apexsim.plan as plan

TYPE_CHECKING = False  # as `typing` has it, which alone takes ten times as long to load as all of this
if TYPE_CHECKING:
    from typing import Any

    from apexsim.calibrate.run import Calibration
    from apexsim.search.study import Study

__version__ = "0.1.0"

WHERE = {  # public noun or verb -> module it lives in
    "simulate": "apexsim.api",
    "sweep": "apexsim.api",
    "size": "apexsim.search.inverse",
    "fleet": "apexsim.search.follow",
    "suggest": "apexsim.calibrate.run",
    "render": "apexsim.report.text",
    "study_json": "apexsim.report.jsonout",
    "launch": "apexsim.report.launch",
    "load_model": "apexsim.model.families",
    "load_gpu": "apexsim.hardware",
    "load_engine": "apexsim.engines",
    "read_trace": "apexsim.workload.stream",
    "synthetic": "apexsim.workload.synth",
    "presets": "apexsim.workload.presets",
    "parse_plan": "apexsim.plan.plan",
    "measure": "apexsim.metrics",
    "Cluster": "apexsim.hardware",
    "Gpu": "apexsim.gpu",
    "Model": "apexsim.model.model",
    "Workload": "apexsim.workload.trace",
    "Plan": "apexsim.plan.plan",
    "Metrics": "apexsim.metrics",
    "Study": "apexsim.search.study",
    "Sweep": "apexsim.search.sweep",
    "Size": "apexsim.search.size",
    "Fleet": "apexsim.search.fleet",
    "InputError": "apexsim.errors",
    "Infeasible": "apexsim.errors",
    "Rejected": "apexsim.errors",
}
__all__ = ["__version__", "calibrate", "plan", *WHERE]


class _Verb(ModuleType):
    """The package `apexsim.plan` is also the verb: calling it ranks every plan (see `apexsim.api.plan`)."""

    def __call__(self, model: str, **question: Any) -> Study:
        from apexsim.api import plan

        return plan(model, **question)


class _Calibrate(ModuleType):
    """The package `apexsim.calibrate` is also the verb (see `apexsim.calibrate.run.calibrate`)."""

    def __call__(self, results: str | list[str], **question: Any) -> Calibration:
        from apexsim.calibrate.run import calibrate

        return calibrate(results, **question)


plan.__class__ = _Verb
calibrate.__class__ = _Calibrate


def __getattr__(name: str) -> Any:
    if name not in WHERE:
        raise AttributeError(f"module 'apexsim' has no attribute '{name}'")
    return getattr(import_module(WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *WHERE])
