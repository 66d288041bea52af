"""Values of a stranger's JSON, and requests from the means that it tells (floor 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.calibrate.points import SHARES, Key
from apexsim.workload.trace import Workload

I8 = NDArray[np.int64]
MOST = 1e12
LONGEST = 1 << 26  # tokens of a request
UNEVEN = 0.1  # half width of lengths over their mean where nothing is known but that they differ: as `plan` has it for users
WHOLE = 1e-6  # tokens


class Bad(ValueError):
    """A run that cannot be used; says why."""


class Fields:
    """An object of a file; anything else counts as an empty one."""

    def __init__(self, value: Any) -> None:
        self.value: Mapping[str, Any] = value if isinstance(value, dict) else {}

    def number(self, *names: str, absent: float = math.nan, least: float = -math.inf, most: float = MOST, endless: bool = False) -> float:
        """The first of the names that has a value, as a number within limits, with `endless` infinity too; raises Bad where it is none.
        What has a `least` must be there, unless it is said what it is where it is `absent`."""
        name = next((each for each in names if self.value.get(each) is not None), "")
        value = self.value.get(name) if name else None
        if value is None:
            if least > -math.inf and absent != absent:
                raise Bad(f"has no '{names[0]}'")
            return absent
        try:
            made = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            made = math.nan
        if made != made or made < max(least, 0.0) or (made > most and not (endless and made == math.inf)):
            raise Bad(f"'{name}' is {str(value)[:30]!r}, expected a number from {max(least, 0.0):g} to {most:g}")
        return made

    def text(self, name: str) -> str:
        """A short text; "" where there is none."""
        value = self.value.get(name)
        return value[:200] if isinstance(value, str) else ""

    def truth(self, name: str) -> bool:
        """Is it true, also as text?"""
        value = self.value.get(name)
        return value is True or (isinstance(value, str) and value.strip().lower() in ("true", "1", "yes"))

    def inner(self, name: str) -> Fields:
        """The object inside."""
        return Fields(self.value.get(name))

    def items(self, name: str) -> list[Any]:
        """The list inside."""
        value = self.value.get(name)
        return value if isinstance(value, list) else []


def lengths(mean: float, size: int, spread: float = 0.0, seed: int = 0, sd: float = math.nan) -> I8:
    """[size] tokens of a mean, uniform about it.

    spread: half their width over the mean; 0: what the standard deviation says, else as the mean tells: requests of one length have a
    whole one, and others do not end all at once."""
    if not 1.0 <= mean <= LONGEST:
        raise Bad(f"the mean length is {mean:.3g} tokens, expected 1 to {LONGEST}")
    told = math.sqrt(3.0) * sd / mean if sd == sd else UNEVEN * (abs(mean - round(mean)) > WHOLE)
    half = min(spread or told, 1.0) * mean
    drawn = np.random.default_rng(seed).uniform(mean - half, mean + half, size) if half else np.full(size, mean)
    return np.maximum(1, np.round(drawn)).astype(np.int64)


def loaded(prompt: I8, output: I8, users: float, rate: float, burstiness: float = 1.0) -> Workload:
    """The requests under a load: users, or a rate [1/s] with gamma-distributed gaps (infinite burstiness: evenly), or all at once."""
    size = min(len(prompt), len(output))
    prompt, output, none = prompt[:size], output[:size], np.zeros(size)
    timed = rate == rate and 0.0 < rate < math.inf
    if users == users and users > 0 and not timed:
        return Workload("measured", none, prompt, output, "closed", min(int(users), MOST_USERS))
    if not timed:
        return Workload("measured", none, prompt, output, "offline")
    if not burstiness > 0.0:
        raise Bad(f"the burstiness is {burstiness:g}")
    gaps = np.random.default_rng(0).gamma(burstiness, 1.0, size) if burstiness < math.inf else np.ones(size)
    arrive = np.cumsum(gaps) - gaps[0]
    span = (size - 1) / rate  # as vLLM's bench stretches them
    return Workload("measured", arrive * (span / arrive[-1] if arrive[-1] > 0 else 1.0), prompt, output, "open")


MOST_USERS = 1_000_000


def stats_of_all(metric: str, values: NDArray[np.float64]) -> dict[Key, float]:
    """Mean and percentiles of a latency [s]."""
    return {(metric, "mean"): float(values.mean()), **{(metric, stat): float(np.quantile(values, q)) for stat, q in SHARES.items()}}
