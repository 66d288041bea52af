"""Small made-up cost tables, workloads and rules for the tests of the engine.

Every table is C-contiguous float64 or int64, so that the kernel is compiled for one set of types only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apexsim.engine.types import FULL, Costs, Host, Requests, Rules

F8 = NDArray[np.float64]

VLLM_V1 = Rules(mix=1, chunk=1, budget=256, max_seqs=16, block=16, watermark=0, admission=0, preempt=1, order=0,
                lag=0, poll=1, pad_lanes=0, prefill_limit=FULL, wait=0, wait_tokens=0)  # fmt: skip
VLLM_V0 = VLLM_V1._replace(mix=0, chunk=0, admission=1, watermark=1)
SGLANG = VLLM_V1._replace(mix=0, chunk=1, admission=1, poll=5, block=1, prefill_limit=300)
TRTLLM = VLLM_V1._replace(chunk=0, admission=2, lag=1, pad_lanes=1)
TRTLLM_WAIT = TRTLLM._replace(wait=7, wait_tokens=200)
ORCA = VLLM_V1._replace(chunk=0, admission=2, block=1)
NO_HOST = Host(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Toy:
    """Sizes and speeds of a made-up model.  Times in seconds."""

    stages: int = 1
    windows: tuple[int, ...] = (FULL,)
    max_seqs: int = 16  # decoding sequences of one lane
    tokens: int = 4096  # longest row of the token tables
    longest: int = 2048  # longest context
    weight: float = 8e-3  # a step with nothing in it
    token: float = 1e-5  # per token
    prompt_factor: float = 1.3  # of a step that holds prompt tokens
    read: float = 2e-8  # per cached token and decode step
    square: float = 2e-11  # per squared prompt token
    floor: float = 2e-3
    bare: float = 0.0  # floor of a decode step beyond `captured`
    loose: float = 0.0  # … and of one with prompt tokens
    captured: int = 1 << 30
    add: float = 1e-3
    add_seq: float = 0.0
    prompt_add: float = 0.0  # more for a step of `ramp` prompt tokens
    ramp: float = 1.0
    beside: float = 0.0
    hop: float = 1e-5
    hop_token: float = 1e-9
    uneven: float = 0.0  # how much slower each further stage is


def nodes(longest: int) -> F8:
    """Context nodes: 0, 16, 32, 64 … to beyond the longest context [tokens]."""
    count = max(2, int(np.ceil(np.log2(max(longest, 1) / 16))) + 2)
    return np.concatenate([[0.0], 16.0 * 2.0 ** np.arange(count)])


def per_stage(rows: ArrayLike, toy: Toy) -> F8:
    """The same table for each stage, split evenly but for `uneven`."""
    share = (1.0 + toy.uneven * np.arange(toy.stages)) / toy.stages
    return np.ascontiguousarray(np.multiply.outer(share, np.asarray(rows, np.float64)))


def costs(toy: Toy) -> Costs:
    """The tables of a toy model."""
    n = np.arange(toy.tokens + 1.0)
    at = nodes(toy.longest)
    cells = np.arange(int(at[-1]) // 16 + 1) * 16
    step = toy.weight + toy.token * n
    d = np.arange(toy.max_seqs + 2.0)[:, None]
    decode = 5e-6 + toy.read * d * at * (1.0 + 0.1 * np.log1p(at))
    x = 16.0 * np.arange(toy.longest // 16 + 3)
    first = (np.arange(toy.stages) > 0).astype(np.float64)
    return Costs(
        lane=per_stage([0.1 * toy.token * n, 0.2 * toy.token * n], toy),
        total=per_stage([step, toy.prompt_factor * step], toy),
        sample=per_stage(1e-4 + 1e-6 * n, toy),
        decode=per_stage([decode] * len(toy.windows), toy),
        nodes=at,
        locate=(np.searchsorted(at, cells, side="right") - 1).astype(np.int64),
        windows=np.array(toy.windows, np.int64),
        prefill=per_stage(1e-7 * x + toy.square * x * x, toy),
        stride=16,
        prompt_base=np.full(toy.stages, 1e-5),
        floor=np.tile([toy.floor, toy.floor, max(toy.floor, toy.bare), max(toy.floor, toy.loose)], (toy.stages, 1)),
        captured=toy.captured,
        add=np.tile([toy.add, toy.add + toy.prompt_add], (toy.stages, 1)),
        add_seq=toy.add_seq,
        hop=toy.hop * first,
        hop_token=toy.hop_token * first,
        ramp=toy.ramp,
        beside=toy.beside,
    )


def plain(stages: int = 1, step: float = 1.0, kinds: tuple[float, float] = (1.0, 1.0), max_seqs: int = 16, tokens: int = 4096) -> Costs:
    """Tables in which every step takes `step`·kinds[kind] seconds on each stage, whatever it holds."""
    toy = costs(Toy(stages=stages, max_seqs=max_seqs, tokens=tokens))
    flat = {name: np.zeros_like(getattr(toy, name)) for name in _TIMED}
    flat["total"] += step * np.array(kinds)[None, :, None]
    return toy._replace(**flat, add_seq=0.0, beside=0.0)


_TIMED = ("lane", "total", "sample", "decode", "prefill", "prompt_base", "floor", "add", "hop", "hop_token")


def offline(prompt: ArrayLike, output: ArrayLike) -> Requests:
    """All queued at 0."""
    return open_loop(np.zeros(np.size(prompt)), prompt, output)


def open_loop(arrive: ArrayLike, prompt: ArrayLike, output: ArrayLike) -> Requests:
    """Arrivals given [s]."""
    return Requests(np.array(arrive, np.float64), np.array(prompt, np.int64), np.array(output, np.int64), 0, 0.0)


def closed_loop(users: int, prompt: ArrayLike, output: ArrayLike, think: float = 0.0) -> Requests:
    """`users` at a time."""
    return offline(prompt, output)._replace(users=users, think=float(think))


def poisson(rate: float, size: int, seed: int, prompt: tuple[int, int] = (1, 300), output: tuple[int, int] = (1, 60)
            ) -> Requests:  # fmt: skip
    """Poisson arrivals, uniform lengths (ends included)."""
    rng = np.random.default_rng(seed)
    arrive = np.cumsum(rng.exponential(1.0 / rate, size))
    return open_loop(arrive, rng.integers(*prompt, size, endpoint=True), rng.integers(*output, size, endpoint=True))
