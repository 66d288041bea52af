"""Error bars from validation (floor 5).

`data/residuals.toml` holds the spread (log standard deviation, robust) of predicted over measured values, by metric and by the
provenance that dominates a result.  It is written by the validation gate from measured systems, never by hand.  Energy is power
over throughput, so the spread of the power law is added to it in squares.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from apexsim.cost.account import Account
from apexsim.cost.power import power_spread
from apexsim.gpu import Gpu

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
OF_POWER = ("energy", "wall-energy")
MEASURED = {  # first word of a measured metric's name -> what it is an instance of
    "ttft": "ttft", "tpot": "tpot", "itl": "itl", "step": "tpot", "e2e": "e2e", "out": "throughput", "req": "throughput",
    "tok": "throughput", "power": "power", "j": "energy",
}  # fmt: skip
LEVELS = {"68": 0.9945, "80": 1.2816, "95": 1.9600}  # share of cases [%] -> standard deviations of a normal distribution
LENDER = "NVIDIA"  # vendor of the GPUs whose tables are lent


@cache
def residuals() -> dict[str, Any]:
    """The shipped table."""
    return tomllib.loads((files("apexsim") / "data/residuals.toml").read_text(encoding="utf-8"))


def objective_error(name: str, spent: Account, foreign: bool = False) -> float:
    """Relative half-width (one robust standard deviation) of a prediction, wider where kernels were not measured.

    foreign: the kernels are another vendor's, of which nothing was measured; the spread of a far relative's (A100) stands for it.
    """
    return _spread(name, dict(spent.provenance), foreign)


def _spread(name: str, shares: Mapping[str, float], foreign: bool) -> float:
    """Log standard deviation of a metric by the provenance of its time."""
    if name == "power":
        return power_spread()[0]
    row = residuals()[KIND.get(name, "e2e")]
    guessed = shares.get("roofline", 0.0) + shares.get("transferred", 0.0)
    return math.hypot(row["measured"] * (1.0 - guessed) + row["foreign" if foreign else "transferred"] * guessed, _power(name)[0])


def interval(metric: str, value: float, shares: Mapping[str, float], gpu: Gpu) -> dict[str, list[float]]:
    """Where the measured value lies with a probability of 68, 80 and 95 %: log-normal about the prediction.

    metric: as `validate` names it ("ttft_mean_ms"); {} for those without a recorded spread, and where nothing is predicted.
    shares: of the time by provenance, as in an account.
    """
    name = MEASURED.get(metric.partition("_")[0], "")
    if not name or not value > 0.0:
        return {}
    width = _spread(name, shares, _foreign(gpu))
    return {level: [value * math.exp(-z * width), value * math.exp(z * width)] for level, z in LEVELS.items()}


def _foreign(gpu: Gpu) -> bool:
    """Whether nothing was measured of a GPU's vendor."""
    return not gpu.kernels and gpu.vendor != LENDER


def error_of(name: str, spent: Account, gpu: Gpu) -> float:
    """The error bar of a prediction on a GPU."""
    return objective_error(name, spent, _foreign(gpu))


def comparison_error(name: str) -> float:
    """Relative difference below which two plans of one study cannot be told apart."""
    return math.hypot(residuals()[KIND.get(name, "e2e")]["comparison"], _power(name)[1])


def tie(value: float, other: float, width: float) -> bool:
    """Whether two values cannot be told apart.  width: relative."""
    return abs(math.log(value / other)) <= width if value > 0 and other > 0 else value == other


def _power(name: str) -> tuple[float, float]:
    return power_spread() if name in OF_POWER else (0.0, 0.0)
