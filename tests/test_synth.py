"""Made-up workloads: the statistics that were asked for, and the population of a public benchmark to the token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apexsim import api
from apexsim.cli import main
from apexsim.errors import InputError
from apexsim.workload.stream import read_trace
from apexsim.workload.synth import Coming, inferencex_population, synthetic

POPULATION = [  # concurrency, sum of inputs, sum of outputs of 10 × concurrency requests at 8192/1024
    (1, 73973, 9303),
    (2, 147984, 18705),
    (4, 294050, 36805),
    (8, 584809, 74069),
    (16, 1175032, 146426),
]


@pytest.mark.parametrize(("concurrency", "inputs", "outputs"), POPULATION)
def test_inferencex_population(concurrency: int, inputs: int, outputs: int) -> None:
    prompt, output = inferencex_population(8192, 1024, 10 * concurrency)
    assert (int(prompt.sum()), int(output.sum())) == (inputs, outputs)


def test_open_loop_lasts_as_asked() -> None:
    load = synthetic(100, 20, 500, Coming(4.0))
    assert load.mode == "open" and load.arrive[0] > 0 and load.arrive[-1] == pytest.approx(125.0)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_burstiness_is_the_gamma_shape(burstiness: float) -> None:
    gaps = np.diff(synthetic(10, 10, 20_000, Coming(3.0, burstiness)).arrive)
    # squared coefficient of variation of a gamma variable = 1 / shape; its standard error here is below 5 %
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(1 / burstiness, rel=0.15)


def test_closed_and_offline() -> None:
    closed = synthetic(100, 20, 64, Coming(concurrency=8, think=0.5, warmup=16), spread=0.2)
    assert (closed.mode, closed.concurrency, closed.think, closed.warmup) == ("closed", 8, 0.5, 16)
    assert synthetic(100, 20, 64).mode == "offline" and not closed.arrive.any()


def test_spread_keeps_the_mean_and_the_bounds() -> None:
    load = synthetic(1000, 50, 20_000, spread=0.2)
    assert (load.prompt.min(), load.prompt.max(), load.output.min(), load.output.max()) == (800, 1200, 40, 60)
    # standard error of the mean: 400 / sqrt(12 · 20,000) = 0.8
    assert load.prompt.mean() == pytest.approx(1000, abs=4)


def test_spread_never_gives_empty_requests() -> None:
    load = synthetic(1, 2, 1000, spread=1.0)
    assert load.prompt.min() == load.prompt.max() == 1 and set(load.output) == {1, 2, 3}


def test_seed_decides_everything() -> None:
    first, again, other = (synthetic(100, 20, 64, Coming(1.0), spread=0.5, seed=s) for s in (3, 3, 4))
    assert np.array_equal(first.arrive, again.arrive) and np.array_equal(first.prompt, again.prompt)
    assert not np.array_equal(first.arrive, other.arrive) and not np.array_equal(first.prompt, other.prompt)


def test_rate_does_not_change_the_requests() -> None:
    slow, fast = (synthetic(100, 20, 64, Coming(r), spread=0.5) for r in (1.0, 8.0))
    assert np.array_equal(slow.prompt, fast.prompt) and slow.arrive == pytest.approx(8 * fast.arrive)


def test_constant_closed_loop_is_warned_of() -> None:
    assert "lockstep" in synthetic(100, 20, coming=Coming(concurrency=8)).notes[0] and not synthetic(100, 20, coming=Coming(1.0)).notes


FAULTS = [
    ({"prompt_len": 0}, "prompt length"),
    ({"prompt_len": 12.5}, "prompt length"),
    ({"output_len": -1}, "output length"),
    ({"num_requests": 0}, "number of requests"),
    ({"request_rate": 0.0}, "request rate"),
    ({"request_rate": -2.0}, "request rate"),
    ({"request_rate": float("nan")}, "request rate"),
    ({"request_rate": float("inf")}, "request rate"),
    ({"request_rate": 1.0, "burstiness": 0.0}, "burstiness"),
    ({"request_rate": 1.0, "burstiness": 1e-9}, "burstiness"),
    ({"concurrency": 0}, "concurrency"),
    ({"concurrency": 2.5}, "concurrency"),
    ({"concurrency": 4, "request_rate": 1.0}, "not both"),
    ({"seed": -1}, "seed"),
    ({"spread": 1.5}, "spread"),
    ({"spread": float("nan")}, "spread"),
    ({"concurrency": 4, "think": -1.0}, "think"),
    ({"think": 1.0}, "think"),
    ({"num_requests": 8, "warmup": 8}, "warm-up"),
    ({"warmup": -1}, "warm-up"),
]


@pytest.mark.parametrize(("change", "told"), FAULTS)
def test_faults_are_named(change: dict, told: str) -> None:
    own = {name: change[name] for name in ("prompt_len", "output_len", "num_requests", "seed", "spread") if name in change}
    change = {name: value for name, value in change.items() if name not in own}
    with pytest.raises(InputError, match=told):
        synthetic(**{"prompt_len": 100, "output_len": 20, **own}, coming=Coming(**change))


@pytest.mark.parametrize("shape", ["lognormal", "gamma", "uniform"])
def test_a_question_draws_the_lengths_of_trace_synth(shape: str, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    words = ["--prompt-len", "500", "--output-len", "60", "--prompt-cv", "0.5", "--output-cv", "0.4", "--num-requests", "200",
             "--request-rate", "4", "--seed", "3", "--lengths", shape]  # fmt: skip
    assert main(["trace", "synth", *words, "--to", "request-log", "-o", str(out)]) == 0
    asked = {"prompt_len": 500, "output_len": 60, "prompt_cv": 0.5, "output_cv": 0.4, "num_requests": 200, "request_rate": 4.0, "seed": 3}
    work = api.ask("llama-3.1-8b", gpu="h100:1", **asked, lengths=shape)[0].workload
    made = read_trace(out)
    assert (work.prompt == made.prompt).all() and (work.output == made.output).all() and work.arrive == pytest.approx(made.arrive, abs=1e-6)
    assert work.prompt.std() / work.prompt.mean() == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize("more", [
    {"length_spread": 0.2, "prompt_cv": 1.0}, {"lengths": "gamma"}, {"prompt_cv": 1.0, "lengths": "cauchy"}, {"prompt_cv": -1.0},
    {"prompt_cv": 1.0, "lengths": "uniform"}, {"prompt_cv": 1.0, "workload": "chat", "prompt_len": None, "output_len": None},
])  # fmt: skip
def test_spreads_that_contradict_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        api.ask("llama-3.1-8b", **{"gpu": "h100:1", "prompt_len": 500, "output_len": 60, **more})
