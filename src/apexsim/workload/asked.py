"""The requests that a question asks for: a trace, lengths of a known use or made-up ones, under a load (floor 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from apexsim.errors import InputError
from apexsim.model.model import Model
from apexsim.workload.classes import classed, column_of
from apexsim.workload.convert import scaled
from apexsim.workload.formats import ALL_AT_ONCE, fit_lengths
from apexsim.workload.load import ROUND, model_length, paced
from apexsim.workload.presets import preset_of
from apexsim.workload.shared import in_stages, related, stages_of
from apexsim.workload.stream import read_trace
from apexsim.workload.synth import Coming, Spread, like, synthetic, varied
from apexsim.workload.trace import Workload

REQUESTS = 1024  # made up where nothing else is said
IMAGE = "1024x1024"  # pixels
CLOSED_SPREAD = 0.1  # of the length: constant lengths keep a closed loop in lockstep for ever, which no real load does
WHAT_IF = {
    "factor": ("--rate-factor", "arrivals"),
    "prompt": ("--prompt-factor", "prompt lengths"),
    "output": ("--output-factor", "output lengths"),
}
MOST_IMAGES = 10_000  # of a request


class TraceFile:
    """A trace file that is read when it is first needed, and once, however often its question is asked again."""

    def __init__(self, path: str, columns: str | None, time_unit: str | None, classes: str | None = None) -> None:
        self.path, self.columns, self.time_unit, self.classes = path, columns, time_unit, classes

    @cached_property
    def work(self) -> Workload:
        """What the file holds."""
        return read_trace(self.path, columns=columns_of(self.columns), time_unit=self.time_unit or "", classes=column_of(self.classes))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question says of its requests.  Lengths in tokens, rates in requests/s, None where nothing is said."""

    trace: str | Workload | TraceFile | None = None
    workload: str | None = None
    time_unit: str | None = None
    columns: str | None = None
    prompt_len: int | None = None
    output_len: int | None = None
    num_requests: int | None = None
    request_rate: float | None = None
    burstiness: float | None = None
    concurrency: int | None = None
    seed: int | None = None
    length_spread: float | None = None
    warmup: int | None = None
    max_model_len: int | None = None
    stages: str | None = None
    shared_prefix: str | None = None
    turns: int | None = None
    turn_gap: float | None = None
    images: int = 0
    image_size: str | None = None
    too_long: str = "error"
    rate_factor: float | None = None
    prompt_factor: float | None = None
    output_factor: float | None = None
    classes: str | None = None
    prompt_cv: float | None = None
    output_cv: float | None = None
    lengths: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Asked:
        """What the keywords of a question say, among others."""
        return cls(**{name: given[name] for name in cls.__slots__})

    @property
    def count(self) -> int:
        """Requests that are made up."""
        if self.stages:
            return sum(stage.count for stage in stages_of(self.stages))
        return REQUESTS if self.num_requests is None else self.num_requests

    @property
    def irregular(self) -> float:
        """Burstiness of arrivals that are made up."""
        return 1.0 if self.burstiness is None else self.burstiness

    def on(self, model: Model) -> tuple[Workload, int, int]:
        """The requests as a model takes them, the patches of one image, and the model length."""
        work = self._otherwise(self.requests())
        if not isinstance(self.trace, Workload) or self.concurrency is not None:  # a workload made by hand says itself what it leaves out
            work = settled_in(work, self.warmup)
        work, patches = with_image_tokens(model, work, self.images, self.image_size or IMAGE)
        work, length = lengths_of(model, work, self.max_model_len, self.too_long)
        return classed(work, self.classes), patches, length

    def _otherwise(self, work: Workload) -> Workload:
        """The requests as they would be: arrivals so many times as fast, lengths so many times as long."""
        given = {"factor": self.rate_factor, "prompt": self.prompt_factor, "output": self.output_factor}
        asked = {name: value for name, value in given.items() if value is not None}
        for name, value in asked.items():
            if not (0.0 < value < math.inf):
                raise InputError(f"expected a number above 0, got {value}", WHAT_IF[name][0])
        if "factor" in asked and work.mode != "open":
            raise InputError("it has no effect: these requests do not come at a rate", "--rate-factor", "drop it")
        if not asked:
            return work
        told = ", ".join(f"{WHAT_IF[name][1]} × {value:g}" for name, value in asked.items())
        made = scaled(work, **asked)
        return replace(made, notes=(*made.notes, f"what if: {told}"))

    def requests(self) -> Workload:
        """The requests as they come."""
        if self.trace is not None:
            return self._of_trace(self.trace)
        made = self._made_up() if self.workload is None else like(preset_of(self.workload), self.count, self._coming(), self.seed or 0)
        return self._related(made)

    def _related(self, made: Workload) -> Workload:
        """The requests in the stages of a load, with what they share; what is drawn for it leaves lengths and arrivals as they are."""
        rng = np.random.default_rng((self.seed or 0, 1))
        if self.stages:
            made = in_stages(made, stages_of(self.stages), rng, self.irregular)
        return related(made, self.shared_prefix, self.turns, self.turn_gap, rng)

    def _coming(self) -> Coming:
        """How requests that are made up come."""
        return Coming(finite(self.request_rate), self.irregular, self.concurrency, 0.0, self.warmup or 0)

    def _of_trace(self, trace: str | Workload | TraceFile) -> Workload:
        if self.prompt_len is not None or self.output_len is not None:
            hint = "drop --prompt-len and --output-len"
            raise InputError("a trace and synthetic lengths are both given", "--trace", hint)
        file = TraceFile(trace, self.columns, self.time_unit, self.classes) if isinstance(trace, str) else trace
        read = file if isinstance(file, Workload) else replace(file.work, warmup=self.warmup or 0)
        if self.seed is not None and read.arrive[-1] > read.arrive[0]:
            raise InputError("it has no effect: the trace has its own arrivals, which are stretched", "--seed", "drop it")
        return reloaded(read, self.request_rate, self.concurrency, self.seed or 0)

    def _made_up(self) -> Workload:
        """Synthetic lengths with a rate, a concurrency or neither; an infinite rate is all at once."""
        if self.prompt_len is None or self.output_len is None:
            raise InputError("no workload", "", "give --workload NAME, --trace FILE, or --prompt-len N and --output-len N")
        if self.prompt_cv or self.output_cv:
            spread_ = Spread(self.prompt_len, self.output_len, self.prompt_cv or 0.0, self.output_cv or 0.0, self.lengths or "lognormal")
            return varied(spread_, self.count, self._coming(), self.seed or 0)
        users = self.concurrency is not None
        spread = self.length_spread if self.length_spread is not None else CLOSED_SPREAD if users else 0.0
        made = synthetic(self.prompt_len, self.output_len, self.count, self._coming(), self.seed or 0, spread)
        if spread == CLOSED_SPREAD and users:
            note = f"lengths drawn within ±{CLOSED_SPREAD:.0%} (--length-spread 0 keeps them constant, in lockstep)"
            return replace(made, notes=(*made.notes, note))
        return made


COLUMNS = {"time": "arrive", "in": "prompt", "out": "output", "prefix": "shared", "arrive": "arrive", "prompt": "prompt",
           "output": "output"}  # fmt: skip


def columns_of(text: str | None) -> dict[str, str] | None:
    """The column map that "time=ts,in=prompt,out=usage.gen" names, with commas or semicolons; prefix= may be empty."""
    if not text:
        return None
    pairs = [part.partition("=") for part in text.replace(";", ",").split(",")]
    if any(not sign or key.strip() not in COLUMNS or not (name.strip() or key.strip() == "prefix") for key, sign, name in pairs):
        raise InputError(f"cannot read the column map '{text}'", "--map", "write time=COLUMN,in=COLUMN,out=COLUMN")
    twice = next(
        (key.strip() for i, (key, *_) in enumerate(pairs) if COLUMNS[key.strip()] in {COLUMNS[k.strip()] for k, *_ in pairs[:i]}), ""
    )
    if twice:
        raise InputError(f"the column map names '{twice}' twice", "--map", "once each")
    return {COLUMNS[key.strip()]: name.strip() for key, _, name in pairs}


def finite(rate: float | None) -> float | None:
    """A rate [1/s] that spaces arrivals, if there is one; an infinite rate is all at once."""
    return None if rate == math.inf else rate


def settled_in(work: Workload, warmup: int | None) -> Workload:
    """A closed loop without the first request of each user, where nothing else was asked for and enough is left.

    Users of a simulation start in the same moment, which those of a service do not: their first requests queue behind
    each other, and nothing that comes later does.
    """
    if work.mode != "closed" or warmup is not None or work.concurrency == 1:
        return work
    users = work.concurrency
    if work.size < 2 * users:
        note = f"fewer than two requests per user: nothing is left out, and latencies hold the burst of {users:,} users starting together"
        return replace(work, notes=(*work.notes, note))
    note = f"the first request of each of the {users:,} users is left out: they start together (--warmup 0 counts all)"
    return replace(work, warmup=users, notes=(*work.notes, note))


def reloaded(work: Workload, rate: float | None, concurrency: int | None, seed: int = 0) -> Workload:
    """The lengths of a trace under another load, if one is given: users, all at once (an infinite rate), or a mean rate.

    A trace without times is given Poisson arrivals at the rate, drawn from `seed`.
    """
    if rate is not None and concurrency is not None:
        raise InputError("--request-rate and --concurrency are both given", "", "use one of them")
    if concurrency is not None:
        note = f"arrivals of the trace replaced by {concurrency} users in a closed loop"
        return replace(work, arrive=work.arrive * 0.0, mode="closed", concurrency=concurrency, notes=(*work.notes, note))
    if rate is None:
        return work
    if rate == math.inf:
        return replace(work, arrive=work.arrive * 0.0, mode="offline", notes=(*work.notes, "arrivals of the trace replaced by all at once"))
    timed = bool(work.arrive[-1] > work.arrive[0])
    made = paced(work.arrive, rate, seed)
    how = "of the trace stretched to" if timed else "drawn at random (the trace has no times) at"
    notes = tuple(note for note in work.notes if timed or note != ALL_AT_ONCE)
    return replace(work, arrive=made, mode="open", notes=(*notes, f"arrivals {how} {rate:.12g} requests/s"))


def lengths_of(model: Model, work: Workload, max_model_len: int | None, too_long: str) -> tuple[Workload, int]:
    """The workload that fits, and the model length: the user's, else the longest request rounded up to 1,024."""
    if max_model_len is not None and (max_model_len < 2 or max_model_len > 16 * model.max_length):
        raise InputError(
            f"a model length of {max_model_len} is impossible for {model.name}",
            "--max-model-len",
            f"it takes {model.max_length}",
        )
    limit = max_model_len or model.max_length
    work = fit_lengths(work, limit, too_long)
    if max_model_len is not None:
        return work, max_model_len
    length = model_length(work.longest, model.max_length)
    how = "the model's own" if length == model.max_length else f"the longest ({work.longest:,} tokens) rounded up to {ROUND:,}"
    note = f"room is counted for requests of {length:,} tokens: {how}; the launch line allows what the model does"
    return replace(work, notes=(*work.notes, note)), length


def _side(text: str) -> bool:
    """Whether a text is a number of pixels."""
    return text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) > 0


def with_image_tokens(model: Model, work: Workload, images: int, size: str) -> tuple[Workload, int]:
    """Prompts with `images` images of "WIDTHxHEIGHT" pixels each, and the patches of one image."""
    if not images:
        return work, 0
    if images < 0:
        raise InputError(f"expected a number of images of at least 0, got {images}", "--images")
    if model.vision is None:
        raise InputError(f"{model.name} has no vision tower whose sizes are known", "--images", "drop --images or choose a vision model")
    wide, sign, high = size.lower().partition("x")
    if not (sign and _side(wide) and _side(high)):
        raise InputError(f"cannot read the image size '{size}'", "--image-size", "write e.g. 1024x768")
    if images > MOST_IMAGES:
        raise InputError(f"expected at most {MOST_IMAGES:,} images, got {images:.3g}", "--images")
    patches, tokens = model.vision.patches(int(wide), int(high)), model.vision.tokens_of(int(wide), int(high))
    note = f"{images} image(s) of {size} per request: {tokens:,} tokens and {patches:,} patches each, encoded with the prompt"
    return replace(work, prompt=work.prompt + images * tokens, notes=(*work.notes, note)), patches
