"""The load that is asked for is the load that is simulated, written and sent: one function for all three (floor 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apexsim.errors import InputError
from apexsim.workload.synth import LONGEST_RUN, arrivals

F8 = NDArray[np.float64]
ROUND = 1024  # tokens: a model length that is taken from the requests is rounded up to this


def model_length(longest: int, most: int) -> int:
    """The model length for requests of at most `longest` tokens, rounded up, and at most the model's own, `most`."""
    return min(-(-longest // ROUND) * ROUND, most)


def mean_rate(arrive: F8) -> float:
    """Requests per second, (n − 1) / (last − first); infinite where all come at once."""
    span = float(arrive[-1] - arrive[0])
    return (len(arrive) - 1) / span if span > 0 else float("inf")


def paced(arrive: F8, rate: float, seed: int | None = None) -> F8:
    """The arrivals [s] of a trace, ascending, at a mean `rate` [1/s], the first one at 0: the pattern stays, time is stretched.

    Where all come at once there is no pattern: Poisson arrivals are drawn from `seed`; without one that is refused.
    """
    if len(arrive) / rate > LONGEST_RUN:
        told = f"{len(arrive)} requests would last {len(arrive) / rate / 31_536_000.0:.3g} years"
        raise InputError(told, "--request-rate", "give requests per second")
    if arrive[-1] > arrive[0]:
        stretched: F8 = (arrive - arrive[0]) * (mean_rate(arrive) / rate)
        return stretched
    if seed is None:
        raise InputError("the trace has no arrival times to scale", "--request-rate", "give it a rate: trace synth --like")
    drawn = arrivals(len(arrive), rate, 1.0, np.random.default_rng(seed))
    begun: F8 = drawn - drawn[0]
    return begun
