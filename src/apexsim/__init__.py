"""apexsim: plan and predict LLM serving.

    import apexsim
    study = apexsim.plan("llama-3.1-70b", gpu="h100-sxm", gpus=8, trace="example:creation")
    print(study)
    print(apexsim.render(study))

Everything below is loaded when it is first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module

import apexsim.calibrate
import apexsim.plan  # noqa: F401  # the packages, whose places the verbs of these names take
from apexsim import verbs
from apexsim import views as _views
from apexsim.verbs import calibrate as calibrate
from apexsim.verbs import fit as fit
from apexsim.verbs import fleet as fleet
from apexsim.verbs import gpus as gpus
from apexsim.verbs import models as models
from apexsim.verbs import plan as plan
from apexsim.verbs import simulate as simulate
from apexsim.verbs import size as size
from apexsim.verbs import sweep as sweep
from apexsim.verbs import workloads as workloads

TYPE_CHECKING = False  # as `typing` has it, which alone takes ten times as long to load as all of this
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

WHERE = {  # public noun or verb -> module it lives in
    "suggest": "apexsim.calibrate.run",
    "render": "apexsim.report.renderers",
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
    "Error": "apexsim.errors",
    "InputError": "apexsim.errors",
    "Infeasible": "apexsim.errors",
    "Rejected": "apexsim.errors",
}
VERBS = ("calibrate", "fit", "fleet", "gpus", "models", "plan", "simulate", "size", "sweep", "workloads")
__all__ = ["__version__", *VERBS, *WHERE]


def _both(name: str) -> None:
    """A package that is a verb too: the function takes the package's place among the modules, with all that imports need of one."""
    package, function = sys.modules[f"{__name__}.{name}"], getattr(verbs, name)
    for key in ("__path__", "__spec__", "__file__", "__package__", "__loader__"):
        setattr(function, key, getattr(package, key))
    sys.modules[f"{__name__}.{name}"] = function


_both("plan")
_both("calibrate")
_views.source = lambda: verbs._calls().views()


def __getattr__(name: str) -> Any:
    if name not in WHERE:
        raise AttributeError(f"module 'apexsim' has no attribute '{name}'")
    return getattr(import_module(WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *WHERE])
