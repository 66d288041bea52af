"""The engine against queueing theory: formulas with confidence intervals over independent seeds.

Each seed is one sample; the formula must lie within a 99.9 % Student interval of the samples' mean.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp

import numpy as np
import pytest
from numpy.typing import NDArray

import toy_costs as toy
from apexsim.engine.kernel import Outcome
from apexsim.engine.types import Requests, Rules
from worlds import World

Array = NDArray[np.float64]
SIZE, WARM = 20_000, 2_000  # requests of a seed, of them left out at the start
SEEDS = range(12)
STUDENT = 4.437  # two-sided 99.9 % quantile of Student's t with 11 degrees of freedom
STEP = 0.010  # s
ONE_BY_ONE = toy.ORCA._replace(max_seqs=1)
ALL_TOGETHER = toy.ORCA._replace(max_seqs=500, budget=500)


def assert_covers(samples: list[float], exact: float) -> None:
    """The exact value is inside the interval, and the interval is narrow enough to mean something."""
    assert len(samples) == len(SEEDS)
    mean = float(np.mean(samples))
    half = STUDENT * float(np.std(samples, ddof=1)) / len(samples) ** 0.5
    assert abs(mean - exact) <= half, f"{exact} outside {mean} ± {half}"
    assert half <= 0.1 * exact


def serve(rate: float, seed: int, rules: Rules, outputs: Callable[[np.random.Generator], Array] | None = None,
          kinds: tuple[float, float] = (1.0, 1.0)) -> tuple[Requests, Outcome]:  # fmt: skip
    """Poisson arrivals of one-token prompts on a machine whose steps take STEP·kinds seconds."""
    rng = np.random.default_rng(seed)
    arrive = np.cumsum(rng.exponential(1.0 / rate, SIZE))
    output = np.ones(SIZE) if outputs is None else outputs(rng)
    asked = toy.open_loop(arrive, np.ones(SIZE), output)
    costs = toy.plain(step=STEP, kinds=kinds, max_seqs=rules.max_seqs, tokens=1024)
    return asked, World(asked, rules, toy.NO_HOST, costs, 1_000_000).run()


def waits(rate: float, rules: Rules, outputs: Callable[[np.random.Generator], Array] | None = None,
          kinds: tuple[float, float] = (1.0, 1.0)) -> list[float]:  # fmt: skip
    """Mean wait before the first step [s], per seed."""
    runs = [serve(rate, seed, rules, outputs, kinds)[1] for seed in SEEDS]
    return [float((x.start - x.sent)[WARM:].mean()) for x in runs]


def one_to_nine(rng: np.random.Generator) -> Array:
    """Output lengths, each as likely as the others."""
    return rng.integers(1, 10, SIZE).astype(np.float64)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_m_d_1(load: float) -> None:
    """Pollaczek–Khinchine for constant service: W = ρ·D / (2·(1 − ρ))."""
    assert_covers(waits(load / STEP, ONE_BY_ONE), load * STEP / (2 * (1 - load)))


@pytest.mark.parametrize("load", [0.4, 0.7])
def test_m_g_1(load: float) -> None:
    """Pollaczek–Khinchine, W = λ·E[S²] / (2·(1 − ρ)); S = 3 D + (o − 1)·D with uniform output lengths o in 1…9."""
    service = STEP * (3 + np.arange(9))
    rate = load / service.mean()
    exact = rate * (service**2).mean() / (2 * (1 - load))
    assert_covers(waits(rate, ONE_BY_ONE, one_to_nine, (1.0, 3.0)), exact)


@pytest.mark.parametrize("together", [0.5, 2.0, 8.0])
def test_m_d_1_with_batches(together: float) -> None:
    """Bulk service without limit: each step of length D takes all who wait.

    A busy period has e^{λD} steps on average (another one follows unless nobody came), so the server is busy for a
    share b = D·e^{λD} / (D·e^{λD} + 1/λ) of the time; who comes then waits D/2 on average, the others do not wait.
    """
    rate = together / STEP
    busy = STEP * exp(together)
    exact = busy / (busy + 1 / rate) * STEP / 2
    assert_covers(waits(rate, ALL_TOGETHER), exact)


def test_littles_law_of_the_decoding_batch() -> None:
    """Mean number that decode × time = Σ time from first to last token: the batch's books against the requests'."""
    asked = toy.poisson(30.0, 60, seed=2)
    done = World(asked, toy.VLLM_V1, toy.NO_HOST, toy.costs(toy.Toy()), 2_000).run(jump=False)
    begin, decoding = done.timeline[:, 0], done.timeline[:, 2]
    assert done.total("decode_steps") + done.total("prompt_steps") == len(begin)  # every step has its row
    assert np.isclose(decoding[:-1] @ np.diff(begin) + decoding[-1] * (done.finish.max() - begin[-1]),
                      (done.finish - done.first).sum(), rtol=1e-9)  # fmt: skip


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_littles_law_of_the_whole_system(load: float) -> None:
    """Poisson arrivals see time averages, so L = λ·T: the mean number in the system that an arrival finds."""
    found, expected = [], []
    for seed in SEEDS:
        rate = load / STEP
        done = serve(rate, seed, ONE_BY_ONE)[1]
        before = np.arange(SIZE) - np.searchsorted(np.sort(done.finish), done.sent)
        found.append(float(before[WARM:].mean()))
        expected.append(rate * float((done.finish - done.sent)[WARM:].mean()))
    exact = load + load**2 / (2 * (1 - load))  # M/D/1
    assert_covers(found, exact)
    assert_covers(expected, exact)


@pytest.mark.parametrize("think", [0.0, 0.5])
def test_interactive_response_time_law(think: float) -> None:
    """Closed loop of C users: C = X·(T + Z), up to the ends of the run."""
    users, size = 20, 4_000
    rng = np.random.default_rng(1)
    asked = toy.closed_loop(users, rng.integers(1, 200, size), rng.integers(1, 60, size), think)
    done = World(asked, toy.VLLM_V1, toy.NO_HOST, toy.costs(toy.Toy()), 5_000).run()
    span = done.finish.max() - done.sent.min()
    throughput, response = size / span, float((done.finish - done.sent).mean())
    assert np.isclose(throughput * (response + think), users, rtol=2 * users / size)
