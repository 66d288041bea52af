"""GPUs at a lower SM clock (floor 1).

    time × max(1, k / c)        c: clock over its maximum; k: a knee, one for memory-bound and one for compute-bound kernels

A GPU at a lower clock is one with lower peaks that borrows the measured kernels of its own full clock: memory-bound times stretch by
the bandwidth, compute-bound ones by the FLOP/s, launches stay.  Core power falls as c·V(c)², see `voltage`; DRAM energy per byte stays.
All constants (`data/power.toml`, [clock]) are estimates.  Ignored: links, and clocks that the power limit lowers by itself.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from apexsim.errors import InputError
from apexsim.gpu import Gpu

LEAST = 0.1  # of the highest clock


@dataclass(frozen=True, slots=True)
class ClockLaw:
    """Shares of the highest clock, and of the voltage there."""

    memory_knee: float
    compute_knee: float
    voltage_floor: float
    floor_until: float

    def voltage(self, clock: float) -> float:
        """Core voltage over that at the highest clock: a floor, then linear."""
        rise = max(0.0, clock - self.floor_until) / (1.0 - self.floor_until)
        return self.voltage_floor + (1.0 - self.voltage_floor) * rise


@cache
def clock_law() -> ClockLaw:
    """The shipped constants."""
    return ClockLaw(**tomllib.loads((files("apexsim") / "data/power.toml").read_text(encoding="utf-8"))["clock"])


def stretch(clock: float) -> float:
    """How many times as long memory-bound kernels take at a share `clock` of the highest clock."""
    return max(1.0, clock_law().memory_knee / clock)


def at_clock(gpu: Gpu, mhz: float, where: str = "--gpu") -> Gpu:
    """The GPU with its SM clock fixed at `mhz`; raises InputError where its highest clock is unknown or passed."""
    highest, hint = gpu.clock_mhz, f"{gpu.name} runs from {LEAST * gpu.clock_mhz:.0f} to {gpu.clock_mhz:.0f} MHz"
    if not highest > 0:
        raise InputError(f"the highest clock of {gpu.name} is not known", where, "give a GPU file with clock_mhz")
    if not LEAST * highest <= mhz <= highest:
        raise InputError(f"no clock of {mhz:.0f} MHz", where, hint)
    if gpu.clock < 1.0:
        raise InputError(f"{gpu.name} has a clock already", where, "give one clock")
    share, law = mhz / highest, clock_law()
    if share == 1.0:
        return gpu
    flops = MappingProxyType({name: peak * min(1.0, share / law.compute_knee) for name, peak in gpu.flops.items()})
    bandwidth = gpu.memory_bandwidth / stretch(share)
    return replace(
        gpu,
        name=f"{gpu.name}@{mhz:.0f}MHz",
        flops=flops,
        memory_bandwidth=bandwidth,
        kernels="",
        borrow=gpu.kernels or gpu.borrow,
        clock=share,
    )
