"""A stream of requests (floor 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests and how they come.

    arrive: [R] s from the first moment of the trace, ascending (all 0 for closed and offline);
    prompt, output: [R] tokens, ≥ 1; mode: "open" (arrivals given), "closed" (`concurrency` users, each sends its
    next request `think` s after the last one finished) or "offline" (all queued at once);
    warmup: requests at the start that metrics leave out; line: [R] line number in the source file (0 = synthetic);
    ideal_hit: share of prompt tokens that an unlimited prefix cache would hold, NaN when unknown.
    """

    name: str
    arrive: NDArray[np.float64]
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    mode: str = "open"
    concurrency: int = 0
    think: float = 0.0
    warmup: int = 0
    line: NDArray[np.integer[Any]] | None = None
    prefix_hashes: Sequence[tuple[int, ...]] = ()
    hash_block: int = 0
    ideal_hit: float = float("nan")
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of requests."""
        return len(self.prompt)

    @property
    def longest(self) -> int:
        """Longest prompt + output [tokens]."""
        return int((self.prompt + self.output).max())
