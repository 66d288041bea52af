"""Traces made from a seed: given means and spreads, or drawn from another trace (floor 2)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from apexsim.workload.describe import describe
from apexsim.workload.presets import PREFIXES, Preset, drawn
from apexsim.workload.synth import Spread, arrivals, spread_lengths
from apexsim.workload.trace import Ints, Workload

LONGEST = 1 << 40  # tokens that no request reaches


def made(
    num_requests: int,
    like: Spread | Preset | Workload,
    request_rate: float | None = None,
    burstiness: float | None = None,
    seed: int = 0,
    max_length: int | None = None,
) -> Workload:
    """`num_requests` requests: lengths first, then arrivals, so that a seed gives the same lengths at every rate.

    like: means and spreads, a preset, or a trace: prompt and output are drawn from it in pairs, with replacement, which
    keeps their correlation; rate and burstiness are its own where none is given.  Without a rate all requests come at
    once.  Successive requests are independent: drifts of the rate over the day and sessions are not reproduced.
    """
    rng = np.random.default_rng(seed)
    prompt, output = (np.minimum(tokens, max_length or LONGEST) for tokens in _lengths(like, num_requests, rng, max_length or LONGEST))
    known = describe(like).arrivals if isinstance(like, Workload) else None
    if known is not None:
        request_rate = request_rate or known.rate
        burstiness = burstiness or min(max(known.burstiness, 0.01), 100.0)
    notes = (like.told, PREFIXES) if isinstance(like, Preset) else ()
    none = Workload("synthetic", np.zeros(num_requests), prompt, output, "offline", source="synthetic", notes=notes)
    if request_rate is None or math.isinf(request_rate):
        return none
    return replace(none, arrive=arrivals(num_requests, request_rate, burstiness or 1.0, rng), mode="open")


def _lengths(like: Spread | Preset | Workload, count: int, rng: np.random.Generator, longest: int) -> tuple[Ints, Ints]:
    """Prompts and outputs [tokens]."""
    if isinstance(like, Preset):
        return drawn(like, count, rng)
    if isinstance(like, Workload):
        at = rng.integers(0, like.size, count)
        return like.prompt[at], like.output[at]
    prompt = spread_lengths(like.prompt_len, like.prompt_cv, count, rng, like.shape, longest)
    return prompt, spread_lengths(like.output_len, like.output_cv, count, rng, like.shape, longest)
