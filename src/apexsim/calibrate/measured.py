"""Files of measured systems, which name model, GPU, engine and plan of each row, as points (floor 5).

The one place that uses the readers of `apexsim.validate`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from apexsim.calibrate.points import Key, RunPoint
from apexsim.calibrate.read import Passed
from apexsim.errors import Rejected
from apexsim.plan.limits import started
from apexsim.plan.plan import Plan
from apexsim.search.error import signature
from apexsim.search.setting import Setting
from apexsim.validate.cases import Case
from apexsim.validate.kinds import read_cases
from apexsim.validate.replay import Bench, roomy
from apexsim.validate.rows import Skipped

KEYS: dict[str, Key] = {
    **{f"{name}_{stat}_ms": (name, stat) for name in ("ttft", "tpot", "e2e") for stat in ("mean", "median")},
    "itl_mean_ms": ("itl", "mean"),
}  # fmt: skip
POWER = "power_w_per_gpu"


def read_measured(path: str | Path, keep: Callable[[Setting, Plan], bool] = lambda setting, plan: True) -> list[RunPoint | Passed]:
    """Every row of a file that is kept and can be replayed; those that cannot say why."""
    kind, cases = read_cases(path)
    bench, found = Bench(), list[RunPoint | Passed]()
    for case in cases:
        where = f"{path}: {case.id}"
        if isinstance(case, Case):
            if not keep(bench.setting(case), case.plan):
                continue
            found.append(_point(case, bench, where))
        else:
            found.append(Passed(where, case.reason if isinstance(case, Skipped) else f"rows of {kind} measure no latencies"))
    return found


def _point(case: Case, bench: Bench, where: str) -> RunPoint | Passed:
    if case.labels.get("suspect"):
        return Passed(where, f"the measurement is known to be off: {case.labels['suspect']}")
    measured = {KEYS[name]: value / 1e3 for name, value in case.measured.items() if name in KEYS and value > 0}
    if case.measured.get(POWER, 0.0) > 0:
        measured[("power", "mean")] = case.measured[POWER]
    if not any(key[0] != "power" for key in measured):
        return Passed(where, "the row measures no latencies")
    setting = startable(bench.setting(case), case)
    if isinstance(setting, Rejected):
        return Passed(where, f"cannot be simulated: {setting.reason}")
    return RunPoint(where, setting, case.plan, measured)


def startable(setting: Setting, case: Case) -> Setting | Rejected:
    """The setting; a run that exists though the sizing says it does not fit gets the whole GPU, as in `validate`."""
    found = None
    for one in (setting, *roomy(setting)):
        start = started(one.model, case.plan, one.cluster, one.engine, one.max_model_len)
        if not isinstance(start, Rejected):
            return one
        found = found or start
    assert found is not None
    return found


def group_of(setting: Setting, plan: Plan) -> tuple[str, ...]:
    """What tells one system from another: engine, release, model, GPU, formats."""
    formats = plan.precision
    parts = "/".join(dict.fromkeys((formats.default, *(fmt for _, fmt in formats.weights))))
    return setting.engine.name, setting.engine.spoken, f"{setting.model.name} ({signature(setting.model)})", setting.cluster.gpu.name, parts
