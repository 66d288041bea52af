"""Traces changed and written: other formats, fewer requests, another load (floor 2)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from apexsim.errors import InputError, nearest
from apexsim.workload.formats import SPAN_HIGH
from apexsim.workload.load import paced
from apexsim.workload.nested import DYNAMO, DYNAMO_VERSION
from apexsim.workload.trace import Workload

ROWS = 50_000  # rows written at once
TOLD = 1e-6  # [s] coarser times are worth a note
LONGEST = 1 << 40  # tokens that no request reaches
ANY = -1  # tokens of a prefix block: the file says how many

# ---- formats that are written -------------------------------------------------------------------------------------

Rows = Callable[[Workload, int, int], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Writer:
    """How a format is written: the line above the rows, the rows from a to b, and what they cannot hold.

    step: resolution of its times [s], 0 = all digits; zero: time starts at the first request; block: prompt tokens per
    prefix block, 0 where the format has none; links: it says who waits for whom.
    """

    head: str
    rows: Rows
    step: float = 0.0
    zero: bool = False
    block: int = 0
    links: bool = False


def _templated(template: str, scale: float) -> Rows:
    """Rows of whole times and two lengths."""

    def rows(requests: Workload, a: int, b: int) -> Iterator[str]:
        when = np.rint(requests.arrive[a:b] * scale).astype(np.int64)
        return map(template.__mod__, zip(when.tolist(), requests.prompt[a:b].tolist(), requests.output[a:b].tolist()))

    return rows


def _seconds(requests: Workload, a: int, b: int) -> Iterator[str]:
    """Rows of CSV with the shortest decimals that give the same float."""
    arrive, prompt, output = (x[a:b].tolist() for x in (requests.arrive, requests.prompt, requests.output))
    return map("%r,%d,%d\n".__mod__, zip(arrive, prompt, output))


def _clock(requests: Workload, a: int, b: int) -> Iterator[str]:
    """Rows of CSV with dates from the first of January 2000 on, seven decimals as in the published traces."""
    ticks = np.rint(requests.arrive[a:b] * 1e7).astype(np.int64) * 100
    stamps = np.datetime_as_string(np.datetime64("2000-01-01", "ns") + ticks.astype("timedelta64[ns]"))
    words = (stamp.replace("T", " ")[:27] for stamp in stamps.tolist())
    return map("%s,%d,%d\n".__mod__, zip(words, requests.prompt[a:b].tolist(), requests.output[a:b].tolist()))


_MOONCAKE = '{"timestamp":%d,"input_length":%d,"output_length":%d'


def _mooncake(requests: Workload, a: int, b: int) -> Iterator[str]:
    """Rows of JSON, with prefix blocks where there are some."""
    plain = _templated(_MOONCAKE, 1e3)(requests, a, b)
    if not requests.block:
        return (row + "}\n" for row in plain)
    chains = requests.prefix[a:b]
    return (f'{row},"hash_ids":{json.dumps(chain, separators=(",", ":"))}}}\n' for row, chain in zip(plain, chains))


def _dynamo(requests: Workload, a: int, b: int) -> Iterator[str]:
    """Rows of Dynamo's agentic Mooncake, one play, below the record that says how many tokens an id stands for; answers' ids are
    those that later prompts repeat, and blocks that no one shares get ids of their own."""
    block = requests.block or 64
    if a == 0:
        source = {"format": "apexsim", "digest": ""}
        head = {"schema": DYNAMO, "version": DYNAMO_VERSION, "block_size": block, "hash_id_scope": "local", "source": source}
        yield json.dumps(head, separators=(",", ":")) + "\n"
    low, most = (int(requests.prefix.ids.min()), int(requests.prefix.ids.max())) if len(requests.prefix.ids) else (0, 0)
    width, begins = -(-int(requests.prompt.max()) // block), _first_turns(requests)
    for i in range(a, b):
        prompt, after = int(requests.prompt[i]), int(requests.after[i]) if len(requests.after) else -1
        row = {"request_id": str(i), "play_id": "0", "session_id": str(begins[i]), "model": "", "input_length": prompt,
               "output_length": int(requests.output[i]), "hash_ids": [], "not_before_ms": float(requests.arrive[i]) * 1e3}  # fmt: skip
        if requests.block:
            size, own = -(-prompt // block), most - low + 1 + i * width
            known = [h - low for h in requests.prefix[i][:size]]
            row["hash_ids"] = known + list(range(own, own + size - len(known)))
        if after >= 0:
            others = np.flatnonzero(requests.join[:, 0] == i)
            named = [(after, requests.delay[i]), *zip(requests.join[others, 1], requests.join_delay[others])]
            row["dependencies"] = [_dependency(int(p), float(wait), p == after) for p, wait in named]
        yield json.dumps(row, separators=(",", ":")) + "\n"


def _dependency(before: int, wait: float, sequence: bool) -> dict[str, Any]:
    """Whom a request waits for, in Dynamo's words."""
    relation = "sequence" if sequence else "join"
    return {"request_id": str(before), "trigger": "completion", "delay_ms": wait * 1e3, "relation": relation}


def _first_turns(requests: Workload) -> list[int]:
    """The request with which the session of each begins."""
    first = list(range(requests.size))
    for i, p in enumerate(requests.after.tolist()):
        first[i] = first[p] if p >= 0 else i
    return first


_APEX = '{"StartTimeOffset": %d, "ContextTokens": %d, "GeneratedTokens": %d}\n'
_LLMSERVINGSIM = '{"arrival_time_ns": %d, "input_toks": %d, "output_toks": %d}\n'
WRITERS: dict[str, Writer] = {
    "apex": Writer("", _templated(_APEX, 1e9), 1e-9),
    "azure": Writer("TIMESTAMP,ContextTokens,GeneratedTokens\n", _clock, 1e-7, zero=True),
    "mooncake": Writer("", _mooncake, 1e-3, zero=True, block=512),
    "vidur": Writer("arrived_at,num_prefill_tokens,num_decode_tokens\n", _seconds),
    "llmservingsim": Writer("", _templated(_LLMSERVINGSIM, 1e9), 1e-9),
    "dynamo": Writer("", _dynamo, block=ANY, links=True),
    "request-log": Writer("arrival_s,isl,osl\n", _seconds),
}


def writer_of(fmt: str) -> Writer:
    """How a format is written."""
    if fmt not in WRITERS:
        raise InputError(f"cannot write the trace format '{fmt}'", "--to", nearest(fmt, WRITERS))
    return WRITERS[fmt]


def written(requests: Workload, fmt: str) -> tuple[Iterator[str], tuple[str, ...]]:
    """The text of a trace file in parts, and what the format cannot hold of this trace."""
    writer = writer_of(fmt)
    _check(requests)
    losses = []
    if requests.timed and writer.step > TOLD and np.any(np.abs(np.rint(x := requests.arrive / writer.step) - x) > 1e-3):
        losses.append(f"times are rounded to {writer.step * 1e3:g} ms")
    if writer.zero and requests.timed and requests.size and requests.arrive[0] > 0:
        losses.append(f"{fmt} counts time from the first request, {requests.arrive[0]:g} s earlier than here")
    if (requests.after >= 0).any() and not writer.links:
        losses.append(f"{fmt} does not say who waits for whom: every turn is written at its moment (--to dynamo keeps sessions)")
    if requests.block and writer.block not in (requests.block, ANY):
        losses.append(f"prefix blocks of {requests.block} tokens are left out: {fmt} holds {writer.block or 'none'}")
        requests = requests.without_prefixes()
    if not requests.timed:
        losses.append("the trace has no times: every request is written at 0")
    return _parts(requests, writer), tuple(losses)


def _check(requests: Workload) -> None:
    """Refuse what no reader would take: changed lengths or times that are out of all proportion."""
    longest = int(max(requests.prompt.max(), requests.output.max())) if requests.size else 0
    if longest > LONGEST:
        raise InputError(f"the trace would have a request of {longest:.3g} tokens", requests.source, "change it by less")
    last = float(requests.arrive[-1]) if requests.size else 0.0
    if not last <= SPAN_HIGH:
        told = f"the trace would last {last / 31_536_000.0:.3g} years"
        raise InputError(told, requests.source, f"readers take {SPAN_HIGH / 31_536_000.0:g} at most")


def _parts(requests: Workload, writer: Writer) -> Iterator[str]:
    if writer.head:
        yield writer.head
    for a in range(0, requests.size, ROWS):
        yield "".join(writer.rows(requests, a, min(a + ROWS, requests.size)))


# ---- fewer requests -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeptLengths:
    """Which requests stay: lengths [tokens] between bounds that both belong, arrivals [s] in [since, until), the first
    `head` of them, then a random `share`."""

    min_prompt: int = 1
    max_prompt: int = LONGEST
    min_output: int = 1
    max_output: int = LONGEST
    max_context: int = 2 * LONGEST
    since: float = 0.0
    until: float = math.inf
    head: int = 0
    share: float = 1.0


def filtered(requests: Workload, limits: KeptLengths, seed: int = 0) -> Workload:
    """The requests within the limits; time then counts from `since`.

    A random share thins the stream: each request stays with that probability, so that a Poisson stream stays one.
    """
    prompt, output, arrive = requests.prompt, requests.output, requests.arrive
    if not requests.timed and (limits.since > 0 or limits.until < math.inf):
        raise InputError("the trace has no times to filter by", "--since/--until")
    keep = (prompt >= limits.min_prompt) & (prompt <= limits.max_prompt) & (output >= limits.min_output)
    keep &= (output <= limits.max_output) & (prompt + output <= limits.max_context)
    keep &= (arrive >= limits.since) & (arrive < limits.until)
    if limits.head:
        keep &= np.cumsum(keep) <= limits.head
    if limits.share < 1.0:
        keep &= np.random.default_rng(seed).random(requests.size) < limits.share
    count = int(keep.sum())
    if not count:
        longest = int((prompt + output).max())
        told = f"no request of {requests.size} is left (longest {longest} tokens, last at {arrive[-1]:g} s)"
        raise InputError(told, requests.source, "widen the limits")
    kept = requests.only(keep, f"{count} of {requests.size} requests kept")
    return replace(kept, arrive=kept.arrive - limits.since) if limits.since > 0 else kept


# ---- another load -------------------------------------------------------------------------------------------------


def scaled(requests: Workload, factor: float = 1.0, rate: float | None = None, prompt: float = 1.0, output: float = 1.0) -> Workload:
    """The trace at another load: arrivals `factor` times as fast, or at a mean `rate` [1/s]; lengths times a number.

    The pattern of the arrivals stays, time is stretched; lengths are rounded and at least 1 token.
    """
    made: dict[str, Any] = {"arrive": requests.arrive / factor} if factor != 1.0 else {}
    if rate is not None:
        made["arrive"] = paced(requests.arrive, rate)
    for name, by in (("prompt", prompt), ("output", output)):
        if by != 1.0:
            made[name] = np.clip(np.rint(getattr(requests, name) * by), 1, 2 * LONGEST).astype(np.int64)
    if requests.block and prompt != 1.0:
        requests = requests.without_prefixes()
        made["notes"] = (*requests.notes, "prefix blocks are left out: prompts have changed")
    return replace(requests, **made)
