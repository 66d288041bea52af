"""Made-up workloads: random lengths and arrivals from a seed (floor 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from apexsim.errors import InputError
from apexsim.workload.presets import PREFIXES, Preset, drawn
from apexsim.workload.trace import Floats, Ints, Workload

LONGEST_RUN = 1e11  # [s] of made-up requests; beyond, differences of times lose their meaning


def _whole(value: int, least: int, what: str, where: str) -> int:
    """`value` if it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{what} must be a whole number ≥ {least}, got {value}", where)
    return int(value)


def _real(value: float, least: float, what: str, where: str, strict: bool = True, most: float = math.inf) -> float:
    """`value` if it is a finite number above (or from) `least` and at most `most`."""
    fine = isinstance(value, (int, float, np.floating)) and math.isfinite(value) and value <= most
    if not fine or value < least or (strict and value == least):
        bound = f"{'>' if strict else '≥'} {least:g}" + (f" and ≤ {most:g}" if most < math.inf else "")
        raise InputError(f"{what} must be a number {bound}, got {value}", where)
    return float(value)


def lengths(mean: int, spread: float, count: int, rng: np.random.Generator) -> Ints:
    """`count` whole lengths, uniform in [mean·(1 − spread), mean·(1 + spread)], at least 1 [tokens].

    Bounds are rounded to the same distance on both sides, so that the mean stays.
    """
    reach = longest_of(mean, spread) - mean
    return rng.integers(mean - reach, mean + reach + 1, count, dtype=np.int64)


def longest_of(mean: int, spread: float) -> int:
    """The longest of lengths that are drawn about a mean [tokens]."""
    return mean + min(round(mean * spread), mean - 1)


def mean_of(longest: int, spread: float) -> int:
    """The largest mean about which no length is drawn that is longer than that [tokens]; 0 where there is none."""
    mean = min(longest, int(longest / (1.0 + spread)) + 2)
    while mean > 0 and longest_of(mean, spread) > longest:
        mean -= 1
    return mean


def arrivals(count: int, rate: float, burstiness: float, rng: np.random.Generator) -> Floats:
    """Arrival times [s] at `rate` [requests/s]: gamma gaps of shape `burstiness`, rescaled to last count / rate.

    Shape 1 is a Poisson process, below 1 is burstier, above 1 more even.  The first request comes after the first
    gap and the last one exactly at count / rate, as vLLM's serving benchmark makes them.
    """
    if count / rate > LONGEST_RUN:
        told = f"{count} requests would last {count / rate / 31_536_000.0:.3g} years"
        raise InputError(told, "--request-rate", "give requests per second")
    gaps = rng.gamma(burstiness, 1.0 / (rate * burstiness), count)
    times = np.cumsum(gaps)
    if not times[-1] > 0 or not math.isfinite(times[-1]):
        raise InputError(f"no arrival pattern comes of burstiness {burstiness:g}", "--burstiness", "use 0.01 to 100")
    scaled: Floats = times * (count / rate / times[-1])
    return scaled


@dataclass(frozen=True, slots=True)
class Coming:
    """How made-up requests come: open loop at `request_rate` [1/s], closed loop of `concurrency` users, or all at once.

    burstiness: shape of the gamma gaps of an open loop; think [s]: pause of a user in a closed loop; warmup: requests at
    the start that metrics leave out.
    """

    request_rate: float | None = None
    burstiness: float = 1.0
    concurrency: int | None = None
    think: float = 0.0
    warmup: int = 0


def _check(coming: Coming, count: int) -> None:
    """Raise InputError where requests cannot come so."""
    _real(coming.think, 0.0, "the think time", "--think", strict=False)
    if _whole(coming.warmup, 0, "the number of warm-up requests", "--warmup") >= count:
        raise InputError(f"{coming.warmup} warm-up requests leave none of {count} to measure", "--warmup")
    if coming.request_rate is not None and coming.concurrency is not None:
        raise InputError("give a request rate or a concurrency, not both", "--request-rate/--concurrency")
    if coming.think and coming.concurrency is None:
        raise InputError("a think time needs a closed loop", "--think", "add --concurrency")


def _arranged(name: str, prompt: Ints, output: Ints, coming: Coming, rng: np.random.Generator) -> Workload:
    """Requests of these lengths, as they come; arrivals are drawn after the lengths."""
    count = len(prompt)
    arrive, mode, users = np.zeros(count), "offline", 0
    if coming.request_rate is not None:
        rate = _real(coming.request_rate, 0.0, "the request rate", "--request-rate")
        arrive = arrivals(count, rate, _real(coming.burstiness, 0.0, "the burstiness", "--burstiness"), rng)
        mode = "open"
    elif coming.concurrency is not None:
        users, mode = _whole(coming.concurrency, 1, "the concurrency", "--concurrency"), "closed"
    return Workload(
        name=name,
        arrive=arrive,
        prompt=prompt,
        output=output,
        mode=mode,
        concurrency=users,
        think=coming.think,
        warmup=int(coming.warmup),
        source="synthetic",
    )


def synthetic(
    prompt_len: int, output_len: int, num_requests: int = 1024, coming: Coming = Coming(), seed: int = 0, spread: float = 0.0
) -> Workload:
    """Random requests: open loop, closed loop, or all at once.

    spread: half width of the uniform lengths as a share of their mean (0 = constant).  Lengths are drawn before arrivals, so
    that the same seed gives the same requests at every rate.
    """
    prompt_len = _whole(prompt_len, 1, "the prompt length", "--prompt-len")
    output_len = _whole(output_len, 1, "the output length", "--output-len")
    count = _whole(num_requests, 1, "the number of requests", "--num-requests")
    rng = np.random.default_rng(_whole(seed, 0, "the seed", "--seed"))
    spread = _real(spread, 0.0, "the spread of lengths", "--spread", strict=False, most=1.0)
    _check(coming, count)
    prompt, output = lengths(prompt_len, spread, count, rng), lengths(output_len, spread, count, rng)
    made = _arranged(f"{prompt_len}+{output_len}", prompt, output, coming, rng)
    lockstep = made.mode == "closed" and not spread and made.concurrency > 1
    note = "constant lengths keep users in lockstep, real traffic does not: use a spread"
    return replace(made, notes=(note,)) if lockstep else made


def like(preset: Preset, num_requests: int = 1024, coming: Coming = Coming(), seed: int = 0) -> Workload:
    """Requests with the lengths of a preset; the same seed gives the same requests at every rate."""
    count = _whole(num_requests, 1, "the number of requests", "--num-requests")
    rng = np.random.default_rng(_whole(seed, 0, "the seed", "--seed"))
    _check(coming, count)
    made = _arranged(preset.name, *drawn(preset, count, rng), coming, rng)
    notes = (preset.told, *([f"{preset.name}: {preset.note}"] if preset.note else []), PREFIXES)
    return replace(made, source=f"workload {preset.name}", notes=notes)


# ---- lengths of a given spread ------------------------------------------------------------------------------------


def _lognormal(mean: float, cv: float, count: int, rng: np.random.Generator) -> Floats:
    """exp of a normal with σ² = ln(1 + cv²) and μ = ln(mean) − σ²/2."""
    var = math.log1p(cv * cv)
    return rng.lognormal(math.log(mean) - var / 2.0, math.sqrt(var), count)


def _gamma(mean: float, cv: float, count: int, rng: np.random.Generator) -> Floats:
    """Gamma of shape 1/cv² and scale mean·cv²; cv 1 is the exponential."""
    return rng.gamma(1.0 / (cv * cv), mean * cv * cv, count)


def _uniform(mean: float, cv: float, count: int, rng: np.random.Generator) -> Floats:
    """Uniform within mean·(1 ± √3·cv)."""
    reach = math.sqrt(3.0) * cv
    if reach > 1.0:
        told = f"uniform lengths spread to cv {1 / math.sqrt(3.0):.2f} at most, got {cv:g}"
        raise InputError(told, "--lengths", "use lognormal")
    return rng.uniform(mean * (1.0 - reach), mean * (1.0 + reach), count)


SHAPES = {"lognormal": _lognormal, "gamma": _gamma, "uniform": _uniform}


def spread_lengths(mean: float, cv: float, count: int, rng: np.random.Generator, shape: str = "lognormal", longest: int = 1 << 40) -> Ints:
    """`count` lengths of mean `mean` and coefficient of variation `cv`, rounded, in [1, longest] [tokens].

    Rounding and the bounds move the mean and the spread a little; cv 0 gives constant lengths.
    """
    if shape not in SHAPES:
        raise InputError(f"unknown distribution of lengths '{shape}'", "--lengths", f"use {', '.join(SHAPES)}")
    drawn = SHAPES[shape](mean, cv, count, rng) if cv > 0 else np.full(count, float(mean))
    whole: Ints = np.clip(np.rint(drawn), 1, longest).astype(np.int64)
    return whole


@dataclass(frozen=True, slots=True)
class Spread:
    """Lengths of a mean [tokens] and a coefficient of variation, drawn from a distribution of `SHAPES`."""

    prompt_len: float
    output_len: float
    prompt_cv: float = 0.0
    output_cv: float = 0.0
    shape: str = "lognormal"


def varied(like: Spread, num_requests: int = 1024, coming: Coming = Coming(), seed: int = 0) -> Workload:
    """Requests with lengths of a distribution; lengths are drawn before arrivals, as `workload.made` draws them: the same seed gives the
    same requests at every rate, and those of `apexsim trace synth`."""
    count = _whole(num_requests, 1, "the number of requests", "--num-requests")
    rng = np.random.default_rng(_whole(seed, 0, "the seed", "--seed"))
    _check(coming, count)
    means = (("prompt", like.prompt_len, like.prompt_cv), ("output", like.output_len, like.output_cv))
    for what, mean, cv in means:
        _real(mean, 1.0, f"the mean {what} length", f"--{what}-len", strict=False)
        _real(cv, 0.0, f"the variation of {what} lengths", f"--{what}-cv", strict=False, most=100.0)
    prompt, output = (spread_lengths(mean, cv, count, rng, like.shape) for _, mean, cv in means)
    told = ", ".join(f"{what} {mean:g}{f' (cv {cv:g})' * (cv > 0)}" for what, mean, cv in means)
    made = _arranged(f"{like.prompt_len:g}+{like.output_len:g}", prompt, output, coming, rng)
    return replace(made, notes=(f"{like.shape} lengths, means {told}; drawn: {prompt.mean():,.0f} and {output.mean():,.0f} tokens",))


def inferencex_population(isl: int, osl: int, num_prompts: int) -> tuple[Ints, Ints]:
    """Prompt and output lengths of an InferenceX run: uniform in [0.8 L, L], all prompts first, from seed 0 [tokens].

    Source: the random dataset of that benchmark (random-range-ratio 0.8, legacy NumPy generator), Apache-2.0.
    """
    draw = np.random.RandomState(0)
    isl = _whole(isl, 2, "the input length", "isl")
    osl = _whole(osl, 2, "the output length", "osl")
    count = _whole(num_prompts, 1, "the number of prompts", "num_prompts")
    prompt = draw.randint(int(0.8 * isl), isl + 1, count)
    output = draw.randint(int(0.8 * osl), osl + 1, count)
    return prompt.astype(np.int64), output.astype(np.int64)
