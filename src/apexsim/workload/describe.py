"""What a trace is like: lengths, arrivals, burstiness, prefix reuse (floor 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apexsim.stats import Stats, stats_of
from apexsim.workload.columns import ideal_hit
from apexsim.workload.load import mean_rate
from apexsim.workload.lru import HitReach, reachable
from apexsim.workload.trace import Floats, Ints, Workload

WINDOWS = (1.0, 10.0, 60.0, 600.0, 3600.0)  # [s] over which arrivals are counted
FEWEST, MOST = 10, 5_000_000  # windows in the trace, for the counts to say something and to fit into memory
SLICE = 1 << 18  # requests taken at once where a whole column more would cost memory
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Lengths:
    """Token counts of one kind: their distribution, their sum, and how many lie in each octave [2^k, 2^(k+1))."""

    stats: Stats
    total: int
    octaves: tuple[int, ...]

    @property
    def cv(self) -> float:
        """Standard deviation over the mean."""
        return self.stats.std / self.stats.mean


@dataclass(frozen=True, slots=True)
class Window:
    """Arrivals counted in windows of `width` [s]: the highest rate [1/s], and variance over mean of the counts.

    That index of dispersion is 1 for a Poisson process at every width; where it grows with the width, the rate drifts.
    """

    width: float
    peak: float
    dispersion: float


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When requests come.

    rate [1/s]: gaps over the time from the first arrival to the last;
    gap [s]: between one arrival and the next; burstiness: 1 / cv² of the gaps, the gamma shape that would give
    their spread (1 = Poisson, below 1 burstier); together: share of requests that come with the one before;
    over_time: requests per second in equal parts of the trace, each `part` [s] long.
    """

    rate: float
    gap: Stats
    gap_cv: float
    burstiness: float
    together: float
    windows: tuple[Window, ...]
    part: float
    over_time: Floats


@dataclass(frozen=True, slots=True)
class Description:
    """A trace in numbers.

    correlation: Pearson's, of the logarithms of prompt and output, NaN where one of them is constant;
    ideal_hit: share of prompt tokens that an unlimited prefix cache holds, NaN where the file has no prefixes;
    reachable: the same of one cache of a size, by size; empty where prefixes are not known;
    arrivals: None where the file has no times, or one moment only.
    """

    requests: int
    span: float
    prompt: Lengths
    output: Lengths
    context: Lengths
    correlation: float
    ideal_hit: float
    reachable: tuple[HitReach, ...]
    arrivals: Arrivals | None


def describe(requests: Workload, parts: int = 60) -> Description:
    """Everything there is to say about a trace; `parts`: into how many the rate over time is cut."""
    known = requests.timed and requests.span > 0
    return Description(
        requests.size,
        requests.span,
        _lengths(requests.prompt),
        _lengths(requests.output),
        _lengths(requests.prompt + requests.output),
        _correlation(requests.prompt, requests.output),
        ideal_hit(requests),
        reachable(requests),
        _arrivals(requests.arrive, parts) if known else None,
    )


def _lengths(tokens: Ints) -> Lengths:
    octaves = np.zeros(64, dtype=np.int64)
    for start in range(0, len(tokens), SLICE):
        octaves += np.bincount(np.frexp(tokens[start : start + SLICE].astype(np.float64))[1] - 1, minlength=64)
    last = int(np.flatnonzero(octaves)[-1]) + 1
    return Lengths(stats_of(tokens.astype(np.float64)), int(tokens.sum()), tuple(octaves[:last].tolist()))


def _correlation(prompt: Ints, output: Ints) -> float:
    """Pearson's correlation of the logarithms, slice by slice."""
    count, sums = len(prompt), np.zeros(5)
    origin = np.log(prompt[0]), np.log(output[0])  # near the mean, so that squares do not cancel
    for start in range(0, count, SLICE):
        x = np.log(prompt[start : start + SLICE]) - origin[0]
        y = np.log(output[start : start + SLICE]) - origin[1]
        sums += (x.sum(), y.sum(), x @ x, y @ y, x @ y)
    mx, my, xx, yy, xy = sums / count
    variances = (xx - mx * mx) * (yy - my * my)
    return float((xy - mx * my) / np.sqrt(variances)) if variances > 1e-18 else NAN


def _arrivals(arrive: Floats, parts: int) -> Arrivals:
    gaps = np.diff(arrive)
    gap = stats_of(gaps)
    cv = gap.std / gap.mean
    span = float(arrive[-1] - arrive[0])
    part = span / parts
    counts = np.histogram(arrive, bins=parts, range=(float(arrive[0]), float(arrive[-1])))[0]
    return Arrivals(
        mean_rate(arrive),
        gap,
        cv,
        1.0 / cv**2 if cv > 1e-9 else float("inf"),
        float((gaps == 0).sum()) / len(arrive),
        tuple(_window(arrive, w) for w in WINDOWS if FEWEST * w <= span < MOST * w),
        part,
        counts / part,
    )


def _window(arrive: Floats, width: float) -> Window:
    """Counts in whole windows from the first arrival on; the last, cut short, is left out."""
    number = ((arrive - arrive[0]) / width).astype(np.int64)
    counts = np.bincount(number)[: int((arrive[-1] - arrive[0]) / width)]
    return Window(width, float(counts.max()) / width, float(counts.var() / counts.mean()))
