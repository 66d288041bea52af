"""Error bars from validation (floor 5).

`data/certainty.toml` is written by scripts/certainty.py from measured systems, never by hand: for each engine, kind of model (dense, or
with routed experts, whose load and kernels are known less well) and metric the scale of the *rest*, and of the *offset* of a system that
the fit saw, of one whose model, GPU or release it did not see, and of kernels that were borrowed.  What is new about a question adds its
part in squares.  Energy is power over throughput, so the spread of the power law is added to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from apexsim.cost.account import Account
from apexsim.cost.power import power_spread
from apexsim.data_files import table
from apexsim.doubt import SIGMA, Doubt, intervals
from apexsim.engine_file import order
from apexsim.engines import EngineRow
from apexsim.gpu import Gpu
from apexsim.hardware import Cluster
from apexsim.model.model import Model
from apexsim.model.parts import routed
from apexsim.search.setting import Setting

KIND = {
    "ttft": "ttft",
    "queue": "ttft",
    "tpot": "tpot",
    "itl": "tpot",
    "e2e": "e2e",
    "throughput": "e2e",
    "goodput": "e2e",
    "cost": "e2e",
    "energy": "e2e",
    "wall-energy": "e2e",
}
MEASURED = {  # first word of a measured metric's name -> what it is an instance of
    "ttft": "ttft", "tpot": "tpot", "itl": "itl", "step": "tpot", "e2e": "e2e", "out": "throughput", "req": "throughput",
    "tok": "throughput", "power": "power", "j": "energy",
}  # fmt: skip
OF_POWER = ("energy", "wall-energy")
LENDER = "NVIDIA"  # vendor of the GPUs whose tables are lent
KINDS = ("dense", "experts")  # of models
NEWS = {"model": "models", "gpu": "gpus", "release": "releases"}  # what may be new -> where what was seen is listed


class System(Protocol):
    """What is served, on what, by what: of a question or of a measured run."""

    @property
    def model(self) -> Model:
        """The model."""

    @property
    def cluster(self) -> Cluster:
        """The GPUs."""

    @property
    def engine(self) -> EngineRow:
        """The engine's row."""


def certainty() -> dict[str, Any]:
    """The shipped table."""
    return table("certainty.toml")


def signature(model: Model) -> str:
    """What tells one model from another whatever its name: architecture, layers and width."""
    return f"{model.family} {sum(len(stack.layers) for stack in model.stacks)}x{model.hidden}"


def release_of(engine: EngineRow) -> str:
    """The release by its three numbers: candidates and post-releases count as it."""
    return ".".join(map(str, order(engine.spoken)))


def news(system: System) -> tuple[str, ...]:
    """What about a question no fit has seen: "model", "gpu", "release"; all of them for an engine without measured runs, nothing where
    the user's own runs of this very system were calibrated on."""
    if own_of(system):
        return ()
    seen = certainty()["seen"].get(system.engine.server.name)
    if seen is None:
        return tuple(NEWS)
    of = {"model": signature(system.model), "gpu": system.cluster.gpu.name, "release": release_of(system.engine)}
    return tuple(what for what, where in NEWS.items() if of[what] not in seen[where])


def system_of(setting: Setting) -> dict[str, str]:
    """What the runs of one offset have in common, by the names of NEWS."""
    return {"model": signature(setting.model), "gpu": setting.cluster.gpu.name, "release": f"{setting.engine.name} {setting.engine.spoken}"}


def strange(setting: Setting) -> tuple[str, ...]:
    """What about a question is not that of its profile: "model", "gpu", "release"; nothing without a profile."""
    kept = setting.profile.system if setting.profile else {}
    return tuple(what for what, name in system_of(setting).items() if kept.get(what, name) != name)


def calibrated_note(setting: Setting) -> str:
    """What a profile changed, and why error bars stay as they are where it was measured on something else."""
    profile = setting.profile
    assert profile is not None
    by = profile.factors
    told = f"calibrated by '{profile.name}': decode × {by.decode:.2f}, prefill × {by.prefill:.2f}, launch × {by.launch:.2f}"
    told += f", cache × {by.kv:.2f}" * (by.kv != 1.0) + f", power × {by.power:.2f}" * (by.power != 1.0)
    other = strange(setting)
    names = system_of(setting)
    apart = ", ".join(f"{what} {names[what]}, not {profile.system.get(what, 'named')}" for what in other)
    return f"{told}; error bars stay those of an uncalibrated system: {apart}" if other else told


def kind_of(model: Model) -> str:
    """One of KINDS."""
    return "experts" if routed(model) else "dense"


def rest_of(system: System, name: str) -> float:
    """The scale of what differs from run to run of one system, by metric."""
    return _row(system, KIND.get(name, "e2e"))["rest"]


def own_of(system: System) -> Mapping[str, Doubt]:
    """What a calibration on runs of this very system left, by metric; {} without one."""
    profile = system.profile if isinstance(system, Setting) and not strange(system) else None
    return profile.left if profile else {}


def doubt_of(name: str, system: System, spent: Account) -> Doubt:
    """How far a prediction of a metric or objective may be off, by what its time was spent on (`doubt_by`)."""
    return doubt_by(name, system, dict(spent.provenance))


def doubt_by(name: str, system: System, shares: Mapping[str, float]) -> Doubt:
    """How far a prediction of a metric or objective may be off; wider where something is new and where kernels were not measured.

    shares: of the time by provenance; the offset of kernels that were borrowed or come from a roofline counts by theirs.  Where the
    user's own runs of this system were calibrated on, what they left is the doubt (`calibrate.profile`)."""
    own, kind = own_of(system), KIND.get(name, "e2e")
    if name == "power":
        return own.get("power", Doubt(0.0, power_spread()[0] / SIGMA))
    power = own["power"].offset if "power" in own and name in OF_POWER else _power(name)[0] / SIGMA
    return own[kind].wider(power) if kind in own else _usual(kind, system, shares).wider(0.0, power)


def _usual(kind: str, system: System, shares: Mapping[str, float]) -> Doubt:
    """The doubt without a calibration, less the power's."""
    gpu = system.cluster.gpu
    row, new = _row(system, kind), news(system)
    squares = row["known"] ** 2 + sum(max(0.0, row[what] ** 2 - row["known"] ** 2) for what in new)
    squares += certainty()["added"]["unseen"][kind_of(system.model)][kind] ** 2 if new else 0.0
    guessed = shares.get("roofline", 0.0) + shares.get("transferred", 0.0)
    far = certainty()["added"]["foreign" if _foreign(gpu) else "transferred"][kind]
    return Doubt(math.sqrt(squares), row["rest"]).wider(far * guessed)


def interval(metric: str, value: float, system: System, shares: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Where the measured value lies with a probability of 68, 80 and 95 %.

    metric: as `validate` names it ("ttft_mean_ms"); {} for those without a recorded spread, and where nothing is predicted."""
    name = MEASURED.get(metric.partition("_")[0], "")
    return intervals(value, doubt_by(name, system, shares)) if name and value > 0.0 else {}


def _foreign(gpu: Gpu) -> bool:
    """Whether its kernels are priced from another vendor's, of which nothing was measured."""
    return not gpu.kernels and gpu.vendor != LENDER


def _row(system: System, kind: str) -> dict[str, float]:
    """The scales of an engine and kind of model; of an engine without measured runs the widest."""
    known, engine, model = certainty(), system.engine.server.name, kind_of(system.model)
    if engine in known["seen"]:
        return dict(known[engine][model][kind])
    rows = [known[name][model][kind] for name in known["seen"]]
    return {what: max(row[what] for row in rows) for what in rows[0]}


def error_of(name: str, system: System, spent: Account) -> float:
    """The error bar of a prediction: half the 68 % interval, relative."""
    return doubt_of(name, system, spent).half


def comparison_error(name: str) -> float:
    """Relative difference below which two plans of one study cannot be told apart: their offset is the same."""
    return math.hypot(certainty()["comparison"][KIND.get(name, "e2e")], _power(name)[1])


def tie(value: float, other: float, width: float) -> bool:
    """Whether two values cannot be told apart.  width: relative."""
    return abs(math.log(value / other)) <= width if value > 0 and other > 0 else value == other


def _power(name: str) -> tuple[float, float]:
    return power_spread() if name in OF_POWER else (0.0, 0.0)
