"""Speeds of kernels that were fitted on served runs, where nobody timed single kernels (floor 3).

    t = pace · (launch + max(FLOP / (share · peak), bytes / (share · bandwidth)))         of products, experts, attention, small kernels
    t = pace · (launches · launch + bytes of a ring / (0.75 · link))                      of a collective inside a node
    a step that holds a prompt takes at least prompt_launch for each of the model's launches

The numbers stand in `data/fitted.toml`; `scripts/fit_rocm.py` fits them on half of the groups of GPU, format and release and judges them on
the other.  Architectures differ in how long a kernel's fixed part is (`slower`).  The pace is a property of a release of an engine, whose
kernels are rewritten from month to month.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from apexsim.cost.ring import LINK_SHARE, MOVES, Wire
from apexsim.cost.roofline import STATED, Array, Speed
from apexsim.engine_file import order
from apexsim.engines import EngineRow
from apexsim.gpu import Gpu
from apexsim.units import US


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was fitted for one architecture.

    speeds: by family of kernels; collective_launches: kernels that a collective counts for; gap: of a small kernel [s];
    prompt_launch: floor and prompt_add: addition of a step that holds a prompt, per launch [s];
    paces: (engine, first release, factor), oldest first.
    """

    arch: str
    speeds: Mapping[str, Speed]
    collective_launches: float
    gap: float
    prompt_launch: float
    prompt_add: float
    paces: tuple[tuple[str, str, float], ...]
    exchange: float  # of tokens with their experts in a decode step, beyond the formula: each way [s]

    def speed(self, family: str) -> Speed:
        """What kernels of a family reach."""
        return self.speeds.get(family, STATED)

    def collective(self, kind: str, nbytes: ArrayLike, gpus: int, wire: Wire) -> Array:
        """Seconds of a collective of `gpus` ranks inside a node."""
        share, _ = MOVES[kind](float(max(gpus, 2)))
        fixed = self.collective_launches * self.speed("small").launch
        return np.asarray(fixed + share * np.asarray(nbytes, float) / (LINK_SHARE * wire.bandwidth), float)

    def pace(self, engine: EngineRow) -> float:
        """Time of kernels over that of the releases the rest was fitted on: of the newest measured release that is no newer, else 1."""
        asked = order(engine.spoken)
        known = [factor for name, first, factor in self.paces if name == engine.name and order(first) <= asked]
        return known[-1] if known else 1.0

    def hosted(self, engine: EngineRow) -> EngineRow:
        """An engine's row with the host's constants of this software stack."""
        return replace(
            engine,
            gap_s=self.gap,
            prompt_factor=1.0,
            prompt_floor_launch_s=self.prompt_launch,
            prompt_eager_launch_s=self.prompt_launch,
            prompt_add_launch_s=self.prompt_add,
        )


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads((files("apexsim") / "data/fitted.toml").read_text(encoding="utf-8"))


@cache
def fitted_for(arch: str) -> Fitted | None:
    """What was fitted for an architecture; None where nothing was."""
    data = _data()
    name = data["stands_for"].get(arch, arch)
    if name not in data["arch"]:
        return None
    row, common = data["arch"][name], data["common"]
    slower = float(row["slower"])
    launch = common["launch_us"] * US * slower
    speeds = {family: Speed(launch, each["flop"] * row.get("flop", 1.0), each["bytes"]) for family, each in common["families"].items()}
    paces = tuple((p["engine"], p["since"], float(p["factor"])) for p in data["pace"])
    return Fitted(
        arch,
        speeds,
        common["collective_launches"],
        common["gap_us"] * US * slower,
        common["prompt_launch_us"] * US * slower,
        common["prompt_add_us"] * US * slower,
        paces,
        common["exchange_us"] * US * slower,
    )


def guessed(gpu: Gpu) -> str:
    """Where kernel times of a GPU come from of which no kernel was timed and that borrows none: fitted, or roofline."""
    return "fitted" if fitted_for(gpu.arch) else "roofline"
