"""Power and energy of GPUs from what they do (floor 3).

    P = TDP · x / (1 + (x / c)^s)^(1/s)        x = p0 + (e_B · bytes/s + e_F · FLOP/s) / TDP

bytes/s and FLOP/s: DRAM traffic and bf16-equivalent products of one GPU, averaged over the time that its replica has work; p0, e_B,
e_F, c (the ceiling) and s: `data/power.toml`, with their sources.  While nothing is in flight a GPU draws its idle power.
Joules per byte and per FLOP are shared between GPUs, fractions of TDP are not.  Ignored: links, unpacking of narrow weights,
temperature, differences between specimens (about 5 %).
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apexsim.clock import clock_law
from apexsim.gpu import Gpu

Array = NDArray[np.float64]
J_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """Constants of the law.

    base: share of TDP; per_byte [J/byte]; per_flop [J/FLOP at bf16]; ceiling: share of TDP; idle_share: of TDP, where unknown.
    """

    base: float
    per_byte: float
    per_flop: float
    ceiling: float
    sharpness: float
    idle_share: float


@dataclass(frozen=True, slots=True)
class ServerPower:
    """What surrounds the GPUs: base [W] per `gpus` of them, losses per GPU watt, and the facility's factor."""

    gpus: int
    base_w: float
    per_gpu_watt: float
    facility: float

    def wall_w(self, gpu_w: float, gpus: int, facility: bool = False) -> float:
        """Power at the wall [W] of `gpus` GPUs that draw `gpu_w` each; whole servers; `facility`: with cooling and supply."""
        servers = math.ceil(gpus / self.gpus)
        return (servers * self.base_w + self.per_gpu_watt * gpus * gpu_w) * (self.facility if facility else 1.0)


@cache
def _constants() -> dict[str, Any]:
    return tomllib.loads((files("apexsim") / "data/power.toml").read_text(encoding="utf-8"))


def power_spread() -> tuple[float, float]:
    """Robust log standard deviation of predicted over measured power: of one run, and between two plans of one load."""
    data = _constants()["spread"]
    return data["run"], data["comparison"]


@cache
def power_law() -> tuple[PowerLaw, ServerPower]:
    """The shipped constants."""
    data = _constants()
    law = PowerLaw(
        data["base"], data["per_byte_pj"] * 1e-12, data["per_flop_pj"] * 1e-12, data["ceiling"], data["sharpness"], data["idle_share"]
    )
    server = data["server"]
    return law, ServerPower(server["gpus"], server["base_w"], server["per_gpu_watt"], server["facility"])


def loaded_share(bytes_per_s: ArrayLike, flop_per_s: ArrayLike, tdp_w: ArrayLike, law: PowerLaw) -> Array:
    """Power over TDP of a GPU at work [1]; rates in byte/s and bf16-equivalent FLOP/s.  Rises with both, below the ceiling."""
    work = law.per_byte * np.asarray(bytes_per_s, float) + law.per_flop * np.asarray(flop_per_s, float)
    x = law.base + work / np.asarray(tdp_w, float)
    return np.asarray(x / (1.0 + (x / law.ceiling) ** law.sharpness) ** (1.0 / law.sharpness))


def slowed(law: PowerLaw, clock: float, idle_share: float) -> PowerLaw:
    """The law at a lower SM clock: what it draws above idle goes with clock · V², a FLOP with V², a byte stays."""
    volt = clock_law().voltage(clock)
    base = idle_share + max(0.0, law.base - idle_share) * clock * volt**2
    return replace(law, base=base, per_flop=law.per_flop * volt**2)


def gpu_watts(gpu: Gpu, bytes_per_s: float, flop_per_s: float, active: float = 1.0, law: PowerLaw | None = None) -> float:
    """Mean power [W] of one GPU over a run of which a share `active` had work; rates are means over the whole run.

    Between idle and TDP always; NaN where the GPU's TDP is unknown.  No more counts than the GPU
    could do: its memory bandwidth and its bf16 peak.
    """
    law = law or power_law()[0]
    idle = gpu.idle_w if gpu.idle_w == gpu.idle_w else law.idle_share * gpu.tdp_w
    if active <= 0.0:
        return idle
    law = slowed(law, gpu.clock, idle / gpu.tdp_w) if gpu.clock < 1.0 else law
    moved = min(bytes_per_s / active, gpu.memory_bandwidth)
    reckoned = min(flop_per_s / active, gpu.flops["bf16"])
    loaded = gpu.tdp_w * float(loaded_share(moved, reckoned, gpu.tdp_w, law))
    return (1.0 - active) * idle + active * max(idle, min(loaded, gpu.tdp_w))


@dataclass(frozen=True, slots=True)
class Energy:
    """What a whole run drew, warm-up included.

    watts: mean of one GPU [W]; devices: GPUs; span [s] from the first send to the last token; tokens, requests: of the whole run.
    """

    watts: float = math.nan
    devices: int = 0
    span: float = math.nan
    prompt_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    server: ServerPower = field(default_factory=lambda: power_law()[1])

    @property
    def joules(self) -> float:
        """Energy of all GPUs [J]."""
        return self.watts * self.devices * self.span

    @property
    def per_output_token(self) -> float:
        """[J/token], over output tokens."""
        return self.joules / max(self.output_tokens, 1)

    @property
    def per_token(self) -> float:
        """[J/token], over prompt and output tokens."""
        return self.joules / max(self.prompt_tokens + self.output_tokens, 1)

    @property
    def per_request(self) -> float:
        """[J] of GPUs per request."""
        return self.joules / max(self.requests, 1)

    @property
    def wall_w(self) -> float:
        """Power [W] of the servers at the wall."""
        return self.server.wall_w(self.watts, self.devices)

    @property
    def wall_per_output_token(self) -> float:
        """Energy [J/token] of the servers at the wall, over output tokens."""
        return self.wall_w * self.span / max(self.output_tokens, 1)

    @property
    def facility_w(self) -> float:
        """Power [W] with the facility's share."""
        return self.server.wall_w(self.watts, self.devices, facility=True)

    def to_json(self) -> dict[str, float | None]:
        """Plain numbers with units in the keys; None where the GPU's power is unknown."""
        found = {
            "power_w_per_gpu": self.watts,
            "gpu_kwh": self.joules / J_PER_KWH,
            "j_per_out_token": self.per_output_token,
            "j_per_token": self.per_token,
            "j_per_request": self.per_request,
            "servers_w_at_wall": self.wall_w,
            "servers_j_per_out_token": self.wall_per_output_token,
            "facility_w": self.facility_w,
            "facility_kwh": self.facility_w * self.span / J_PER_KWH,
        }
        return {key: value if math.isfinite(value) else None for key, value in found.items()}
