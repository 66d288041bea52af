"""Error bars from validation (floor 5).

`data/residuals.toml` holds the spread (log standard deviation, robust) of predicted over measured values, by metric and by the
provenance that dominates a result.  It is written by the validation gate from measured systems, never by hand.  Energy is power
over throughput, so the spread of the power law is added to it in squares.
"""

from __future__ import annotations

import math
import tomllib
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
LENDER = "NVIDIA"  # vendor of the GPUs whose tables are lent


@cache
def residuals() -> dict[str, Any]:
    """The shipped table."""
    return tomllib.loads((files("apexsim") / "data/residuals.toml").read_text(encoding="utf-8"))


def objective_error(name: str, spent: Account, foreign: bool = False) -> float:
    """Relative half-width (one robust standard deviation) of a prediction, wider where kernels were not measured.

    foreign: the kernels are another vendor's, of which nothing was measured; the spread of a far relative's (A100) stands for it.
    """
    row = residuals()[KIND.get(name, "e2e")]
    shares = dict(spent.provenance)
    guessed = shares.get("roofline", 0.0) + shares.get("transferred", 0.0)
    return math.hypot(row["measured"] * (1.0 - guessed) + row["foreign" if foreign else "transferred"] * guessed, _power(name)[0])


def error_of(name: str, spent: Account, gpu: Gpu) -> float:
    """The error bar of a prediction on a GPU."""
    return objective_error(name, spent, not gpu.kernels and gpu.vendor != LENDER)


def comparison_error(name: str) -> float:
    """Relative difference below which two plans of one study cannot be told apart."""
    return math.hypot(residuals()[KIND.get(name, "e2e")]["comparison"], _power(name)[1])


def tie(value: float, other: float, width: float) -> bool:
    """Whether two values cannot be told apart.  width: relative."""
    return abs(math.log(value / other)) <= width if value > 0 and other > 0 else value == other


def _power(name: str) -> tuple[float, float]:
    return power_spread() if name in OF_POWER else (0.0, 0.0)
