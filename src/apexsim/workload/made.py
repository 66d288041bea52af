"""Traces made from a seed: given means and spreads, or drawn from another trace (floor 2)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from apexsim.workload.describe import describe
from apexsim.workload.presets import PREFIXES, Preset, drawn
from apexsim.workload.stream import NO_HASHES, Requests
from apexsim.workload.synth import arrivals, spread_lengths

LONGEST = 1 << 40  # tokens that no request reaches


def made(
    num_requests: int, request_rate: float | None = None, burstiness: float | None = None, seed: int = 0,
    prompt_len: float | None = None, output_len: float | None = None, prompt_cv: float = 0.0, output_cv: float = 0.0,
    lengths: str = "lognormal", max_length: int | None = None, like: Requests | Preset | None = None,
) -> Requests:  # fmt: skip
    """`num_requests` requests: lengths first, then arrivals, so that a seed gives the same lengths at every rate.

    like: a preset, which gives the lengths, or a trace: prompt and output are drawn from it in pairs, with replacement,
    which keeps their correlation; rate and burstiness are its own where none is given.  Without a rate all requests come at
    once.  Successive requests are independent: drifts of the rate over the day and sessions are not reproduced.
    """
    rng = np.random.default_rng(seed)
    longest = max_length or LONGEST
    notes: tuple[str, ...] = ()
    if isinstance(like, Preset):
        prompt, output = (np.minimum(tokens, longest) for tokens in drawn(like, num_requests, rng))
        notes = (like.told, PREFIXES)
    elif like is not None:
        at = rng.integers(0, like.size, num_requests)
        prompt, output = (np.minimum(tokens[at], longest) for tokens in (like.prompt, like.output))
        known = describe(like).arrivals
        if known is not None:
            request_rate = request_rate or known.rate
            burstiness = burstiness or min(max(known.burstiness, 0.01), 100.0)
    else:
        assert prompt_len is not None and output_len is not None
        prompt = spread_lengths(prompt_len, prompt_cv, num_requests, rng, lengths, longest)
        output = spread_lengths(output_len, output_cv, num_requests, rng, lengths, longest)
    none = Requests(np.zeros(num_requests), prompt, output, NO_HASHES, NO_HASHES, timed=False, source="synthetic", notes=notes)
    if request_rate is None or math.isinf(request_rate):
        return none
    return replace(none, arrive=arrivals(num_requests, request_rate, burstiness or 1.0, rng), timed=True)
