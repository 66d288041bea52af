"""What a run measured, per request, in the detailed schema of vLLM's `bench serve` (floor 5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.errors import InputError
from apexsim.files import DOCUMENT, read_json
from apexsim.metrics import Times
from apexsim.stats import NAN, Stats, plain, stats_of
from apexsim.workload.trace import NO_CHAINS, Chains, chains_of

F8 = NDArray[np.float64]
NOT_SENT = "not sent: the run had stopped"
MODES = ("open", "closed", "offline")
ROWS = ("output_lens", "ttfts", "itls", "start_times", "latencies", "errors", "queue_times", "generated_texts",
        "requested_input_lens", "requested_output_lens")  # fmt: skip
MOST = 1e12  # tokens of a request, or seconds on any clock
LATENCIES = ("ttft", "tpot", "itl", "e2el")
KEPT = ("date", "endpoint_type", "backend", "label", "url", "model_id", "tokenizer_id", "request_rate", "burstiness",
        "client_cpu_share")  # fmt: skip
PREDICTED = "predicted by apexsim"  # how the backend of a file begins that holds no measurement
SHOWN = {"mean": "mean", "median": "median", "std": "std", **{p: p for p in ("p75", "p90", "p95", "p99")}}


@dataclass(slots=True)
class Sent:
    """One request, filled in while its answer comes.

    prompt, output: tokens asked for; due, start, first, last: when it should be sent, was sent, gave its first and last
    chunk [s from the start of the run], NaN = not yet; gaps: between chunks [s]; *_tokens: counts that the server
    reported, 0 = none; steps: chunks; ended, done: the answer's end was announced, the stream's end came.
    """

    prompt: int
    output: int
    due: float = 0.0
    start: float = NAN
    first: float = NAN
    last: float = NAN
    gaps: list[float] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0
    steps: int = 0
    ended: bool = False
    done: bool = False
    error: str = ""

    @property
    def input_len(self) -> int:
        """Prompt tokens: the server's count, else what was asked."""
        return self.prompt_tokens or self.prompt

    @property
    def output_len(self) -> int:
        """Output tokens: the server's count, else the chunks that came."""
        return self.output_tokens or self.steps


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """Requests in the order of the trace, and how they were sent.

    mode: "open", "closed" or "offline"; warmup: requests at the start that statistics leave out; stopped: why the run
    ended early, "" if it did not; about: what else the file's head says; chains, block: what prompts had in common, as in a
    workload (block 0: nothing).
    """

    sent: tuple[Sent, ...]
    mode: str
    concurrency: int = 0
    warmup: int = 0
    stopped: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    chains: Chains = NO_CHAINS
    block: int = 0

    @property
    def good(self) -> list[Sent]:
        """Finished requests after the warm-up."""
        return [s for s in self.sent[self.warmup :] if not s.error]

    @property
    def failures(self) -> dict[str, int]:
        """Requests by what went wrong with them, most frequent first, warm-up included."""
        return dict(Counter(s.error for s in self.sent if s.error).most_common())


@dataclass(frozen=True, slots=True)
class Measured:
    """A run in numbers, over finished requests after the warm-up [s, 1/s, tokens].

    Definitions are those of `metrics.Metrics`; itl is over all gaps between chunks, chunk_tokens their mean size;
    late: how long after it was due a request was sent; uneven: requests whose output is not as long as was asked.
    """

    completed: int
    failed: int
    prompt_tokens: int
    output_tokens: int
    duration_s: float
    ttft: Stats
    tpot: Stats
    itl: Stats
    e2el: Stats
    late: Stats
    mean_concurrency: float
    chunk_tokens: float
    uneven: int
    prompt_off: float  # mean of (tokens the server counted / tokens asked) - 1

    @property
    def request_throughput(self) -> float:
        """[1/s]."""
        return self.completed / self.duration_s

    @property
    def output_throughput(self) -> float:
        """[token/s]."""
        return self.output_tokens / self.duration_s

    @property
    def total_throughput(self) -> float:
        """[token/s]."""
        return (self.prompt_tokens + self.output_tokens) / self.duration_s


def measured(run: ReplayRun) -> Measured:
    """The statistics; raises InputError where no request finished."""
    good = run.good
    if not good:
        why = run.stopped or next(iter(run.failures), "all of them are warm-up")
        raise InputError(f"nothing measured: no request finished ({why})", str(run.about.get("url", "")))
    start, first, last = (np.array([getattr(s, name) for s in good]) for name in ("start", "first", "last"))
    tokens = np.array([s.output_len for s in good])
    times = Times(start, first, last, tokens)
    prompts = sum(s.input_len for s in good)
    return Measured(
        completed=len(good),
        failed=len(run.sent[run.warmup :]) - len(good),
        prompt_tokens=prompts,
        output_tokens=int(tokens.sum()),
        duration_s=times.duration,
        ttft=stats_of(times.ttft),
        tpot=stats_of(times.tpot[times.several]),
        itl=stats_of(np.array([gap for s in good for gap in s.gaps])),
        e2el=stats_of(times.e2e),
        late=stats_of(np.array([s.start - s.due for s in good])) if run.mode == "open" else Stats(),
        mean_concurrency=times.concurrency,
        chunk_tokens=float(tokens.sum()) / max(sum(s.steps for s in good), 1),
        uneven=sum(s.output_len != s.output for s in good),
        prompt_off=prompts / sum(s.prompt for s in good) - 1.0,
    )


# ---- the file -----------------------------------------------------------------------------------------------------


def run_json(run: ReplayRun) -> dict[str, Any]:
    """The run in the schema of `vllm bench serve --save-result --save-detailed`, with a few keys of our own.

    Ours: partial, stopped, warmup, mode, requested_*_lens, prefix_ids (of each prompt's blocks of prefix_block tokens).
    Per-request times are in seconds; a request that failed has its error, and what had come until then.
    """
    done = [s for s in run.sent if not s.error]
    head: dict[str, Any] = {
        **run.about, "num_prompts": len(run.sent), "max_concurrency": run.concurrency or None, "mode": run.mode,
        "warmup": run.warmup, "partial": bool(run.failures), "stopped": run.stopped,
        "failed": len(run.sent) - len(done), "completed": 0,
    }  # fmt: skip
    if run.good:
        head |= _summary(measured(run)) | _peaks(done)
    rows = run.sent
    return head | {
        "input_lens": [s.input_len for s in rows], "output_lens": [s.output_len for s in rows],
        "ttfts": [_span(s.start, s.first) for s in rows], "itls": [s.gaps for s in rows],
        "latencies": [_span(s.start, s.last) for s in rows], "start_times": [plain(s.start) for s in rows],
        "queue_times": [_span(s.due, s.start) if run.mode == "open" else 0.0 for s in rows],
        "generated_texts": ["".join(s.text) for s in rows], "errors": [s.error for s in rows],
        "requested_input_lens": [s.prompt for s in rows], "requested_output_lens": [s.output for s in rows],
        **prefix_json(run.chains, run.block),
    }  # fmt: skip


def prefix_json(chains: Chains, block: int) -> dict[str, Any]:
    """What prompts have in common, in small numbers; nothing where they have nothing."""
    if not block:
        return {}
    _, ids = np.unique(chains.ids, return_inverse=True)
    return {"prefix_block": block, "prefix_ids": list(Chains(ids, chains.first))}


def _prefix(whole: Mapping[str, Any], size: int) -> tuple[Chains, int]:
    """The same read back; raises ValueError where it is not that."""
    block, told = whole.get("prefix_block"), whole.get("prefix_ids")
    if block is None and told is None:
        return NO_CHAINS, 0
    if type(block) is not int or not 0 < block <= MOST or not isinstance(told, list) or len(told) != size:
        raise ValueError("prefix_block and prefix_ids")
    if not all(isinstance(chain, list) and all(type(i) is int and 0 <= i <= MOST for i in chain) for chain in told):
        raise ValueError("prefix_ids")
    return chains_of([tuple(chain) for chain in told]), block


def _span(begin: float, end: float) -> float:
    """Seconds between two moments; 0 where one of them did not come, as in vLLM's files."""
    return end - begin if end - begin > 0 else 0.0


def _summary(found: Measured) -> dict[str, Any]:
    keys = {
        "completed": found.completed, "duration": found.duration_s, "total_input_tokens": found.prompt_tokens,
        "total_output_tokens": found.output_tokens, "request_throughput": found.request_throughput,
        "output_throughput": found.output_throughput, "total_token_throughput": found.total_throughput,
        "request_goodput": None,
    }  # fmt: skip
    for name in LATENCIES:
        numbers = asdict(getattr(found, name))
        keys |= {f"{key}_{name}_ms": plain(numbers[stat] * 1e3) for key, stat in SHOWN.items()}
    return keys


def _peaks(done: list[Sent]) -> dict[str, Any]:
    """Most requests in flight at once, and most chunks in any second counted from the start of the run."""
    moments = sorted([(s.start, 1) for s in done] + [(s.last, -1) for s in done])
    flying = np.cumsum([step for _, step in moments])
    seconds = np.concatenate([np.cumsum([s.first, *s.gaps]) for s in done]).astype(np.int64)
    share = sum(s.output_len for s in done) / max(sum(s.steps for s in done), 1)
    most = float(np.bincount(np.maximum(seconds, 0)).max()) * share
    return {"max_concurrent_requests": int(flying.max()), "max_output_tokens_per_s": most}


def read_run(path: str | Path) -> ReplayRun:
    """A detailed result file, of this program or of vLLM's `bench serve --save-result --save-detailed`."""
    return run_of(read_json(path, "result file", DOCUMENT), str(path))


def run_of(whole: Any, where: str) -> ReplayRun:
    """The same, of the value that a file holds; raises InputError."""
    columns = ("input_lens", "output_lens", "ttfts", "itls")
    missing = [key for key in columns if not isinstance(whole, dict) or not isinstance(whole.get(key), list)]
    if missing:
        raise InputError(f"has no per-request '{missing[0]}'", where, "save it with --save-detailed")
    size = len(whole["input_lens"])
    short = next((key for key in ROWS if isinstance(whole.get(key), list) and len(whole[key]) not in (size, 0)), "")
    if short:
        raise InputError(f"'{short}' has {len(whole[short])} entries, 'input_lens' {size}", where)
    try:
        users, warmup = (int(_number(whole.get(key) or 0, key)) for key in ("max_concurrency", "warmup"))
    except ValueError as error:
        raise InputError(str(error), where) from None
    endless = str(whole.get("request_rate", "inf")).lower() in ("inf", "infinity") and not whole.get("ramp_up_strategy")
    mode = whole.get("mode") or ("open" if not endless else "closed" if users else "offline")
    if mode not in MODES:
        raise InputError(f"unknown mode '{mode}'", where, f"expected {', '.join(MODES)}")
    if mode == "open" and not (isinstance(whole.get("start_times"), list) and whole["start_times"]):
        raise InputError("has no start_times, so its arrivals are unknown", where, "save it with a newer vLLM")
    try:
        sent = tuple(_read(whole, i) for i in range(size))
        chains, block = _prefix(whole, size)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"its per-request lists do not fit together ({error})", where) from None
    origin = min((s.start for s in sent if s.start == s.start), default=0.0)
    sent = tuple(replace(s, due=s.due - origin, start=s.start - origin, first=s.first - origin, last=s.last - origin) for s in sent)
    about = {key: value for key, value in whole.items() if isinstance(value, (str, float, int)) and key in KEPT}
    return ReplayRun(sent, mode, users, warmup, str(whole.get("stopped") or ""), about, chains, block)


def _number(value: Any, key: str) -> float:
    """A number of tokens, users or seconds; raises ValueError where it is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MOST:
        return float(value)
    raise ValueError(f"{key} is {str(value)[:40]!r}, expected a number from 0 to {MOST:g}")


def _read(whole: Mapping[str, Any], i: int) -> Sent:
    """One request of a file."""

    def cell(key: str, absent: Any) -> Any:
        return whole[key][i] if isinstance(whole.get(key), list) and whole[key] else absent

    def number(key: str, absent: Any = 0.0) -> float:
        return _number(cell(key, absent) or 0.0, f"{key}[{i}]")

    gaps = [_number(gap, f"itls[{i}]") for gap in whole["itls"][i]]
    prompt, output, ttft = int(number("input_lens")), int(number("output_lens")), number("ttfts")
    error = str(cell("errors", "") or "")
    missing = cell("start_times", 0.0) is None
    if missing and not error:
        raise ValueError(f"start_times[{i}] is missing")
    start = NAN if missing else number("start_times")
    latency = number("latencies") or ttft + sum(gaps)
    if not error and prompt < 1:
        raise ValueError(f"input_lens[{i}] is 0")
    if not error and (output < 1 or ttft <= 0):
        error = "no output"
    asked = int(number("requested_input_lens", prompt)), int(number("requested_output_lens", output))
    due = start - number("queue_times")
    return Sent(
        *asked,
        due,
        start,
        start + ttft if ttft > 0 else NAN,
        start + latency if latency > 0 else NAN,
        gaps,
        [str(cell("generated_texts", ""))],
        prompt,
        output,
        len(gaps) + (ttft > 0),
        not error,
        not error,
        error,
    )
