"""Records that hold several requests each, or say who waits for whom, laid out as one record per request (floor 2).

A nested format is a row of `NESTED`: the keys that only its records have, and a function from one record to flat ones.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any

from apexsim.errors import InputError
from apexsim.workload.waits import RecordLink, Wait, seconds

Record = dict[str, Any]
LOCAL = 1 << 40  # hashes that are local to a conversation are told apart by its number times this
LINK = "link"  # the column of whom requests wait for
WEKA_BLOCK = 64  # tokens, where a conversation does not say
EVERYONE = -1  # of the threads of a conversation
DYNAMO, DYNAMO_VERSION = "dynamo.agentic_mooncake", 2


def _weka(record: Record, number: int) -> Iterator[Record]:
    """One conversation of an agent trace: `requests` of {t [s], in, out, hash_ids}, nested under sub-agents.

    Times count from the start of the conversation.  Those of a sub-agent count from its marker where one of them lies
    before it, else from the start of the conversation: both are in use.
    """
    calls: list[tuple[Record, float, int]] = []  # request, shift of its clock, sub-agent or 0
    for agent, request in enumerate(record["requests"], 1):
        inner = request.get("requests")
        if inner is None:
            calls.append((request, 0.0, 0))
            continue
        marker = request.get("t", 0.0)
        shift = marker if any(nested["t"] < marker for nested in inner) else 0.0
        calls += [(nested, shift, agent) for nested in inner]
    block = record.get("block_size", WEKA_BLOCK)
    links = _causes(calls, number) if calls and all(call.get("api_time") is not None for call, _, _ in calls) else None
    for at, (request, shift, _) in enumerate(calls):
        flat = {"t": request["t"] + shift, "in": request["in"], "out": request["out"]}
        hashes = request.get("hash_ids", [])[: -(-request["in"] // block)]
        yield flat | {"hash_ids": [h + number * LOCAL for h in hashes], LINK: links[at] if links else RecordLink()}


def _causes(calls: Sequence[tuple[Record, float, int]], number: int) -> list[RecordLink]:
    """Whom each call waits for: of those that had been answered when it was sent the last, in the main thread of all of them, in a
    sub-agent of its own and the main thread's."""
    begun = [call["t"] + shift for call, shift, _ in calls]
    ends = [t + seconds(call["api_time"], 1.0, "api_time") for t, (call, _, _) in zip(begun, calls)]
    threads: dict[int, list[tuple[float, int]]] = {}
    for at in sorted(range(len(calls)), key=ends.__getitem__):
        for thread in {calls[at][2], EVERYONE}:
            threads.setdefault(thread, []).append((ends[at], at))
    links = []
    for at, (_, _, own) in enumerate(calls):
        heard = [_last(threads.get(thread, []), begun[at], at) for thread in ((0, own) if own else (EVERYONE,))]
        end, cause = max(heard)
        waits = (Wait(f"{number}:{cause}", begun[at] - end),) if cause >= 0 else ()
        links.append(RecordLink(f"{number}:{at}", waits))
    return links


def _last(ended: Sequence[tuple[float, int]], t: float, me: int) -> tuple[float, int]:
    """Of calls in the order of their ends the last that had ended by t, −1 = none."""
    x = bisect_right(ended, (t, len(ended) + me)) - 1
    while x >= 0 and ended[x][1] == me:
        x -= 1
    return ended[x] if x >= 0 else (-math.inf, -1)


def _mooncake_turn(record: Record, number: int) -> Iterator[Record]:
    """A request of Dynamo's Mooncake rows: a turn of a session, or one that waits for others by their ids; times in ms."""
    session, waits = record.get("session_id"), record.get("wait_for") or []
    told = record.get("delay", record.get("delay_ms"))
    delay = None if told is None else seconds(told, 1e-3, "delay")
    if not isinstance(waits, list):
        raise ValueError(f"'wait_for' is no list of ids: {waits!r}")
    names = tuple(Wait(str(name), delay or 0.0) for name in waits)
    request = str(record.get("request_id") or "")
    link = (
        RecordLink(request, names)
        if "wait_for" in record
        else RecordLink(request, session="" if session is None else str(session), delay=delay)
    )
    yield {
        "timestamp": record.get("timestamp", record.get("created_time")),
        "input_length": _either(record, "input_length", "input_tokens"),
        "output_length": _either(record, "output_length", "output_tokens"),
        "hash_ids": record.get("hash_ids") or [], LINK: link,
    }  # fmt: skip


def _either(record: Record, key: str, alias: str) -> Any:
    return record[alias] if key not in record and alias in record else record[key]


def _dynamo(record: Record, number: int) -> Iterator[Record]:
    """A request of Dynamo's agentic Mooncake, version 2, in ms; its ids are those of its play; the first record says what they count."""
    if "schema" in record:
        if record["schema"] != DYNAMO or record.get("version") != DYNAMO_VERSION:
            raise ValueError(f"schema '{record['schema']}' of version {record.get('version')!r}, {DYNAMO} {DYNAMO_VERSION} is read")
        return
    named = record.get("dependencies") or []
    waits = tuple(
        Wait(str(one["request_id"]), seconds(one["delay_ms"], 1e-3, "delay_ms"), one.get("trigger") == "dispatch") for one in named
    )
    hashes, play = record.get("hash_ids") or [], record["play_id"]
    yield {
        "not_before_ms": record["not_before_ms"],
        "input_length": _either(record, "input_length", "input_tokens"),
        "output_length": _either(record, "output_length", "output_tokens"),
        "hash_ids": [f"{play}:{h}" if type(h) is int else h for h in hashes], LINK: RecordLink(str(record["request_id"]), waits),
    }  # fmt: skip


ASKS = ("user_message", "tool_result")


def _tracelab(record: Record, number: int) -> Iterator[Record]:
    """A round of TraceLab: it is sent with the last of what it is asked, and has ended with the last of what it says."""
    events = [(datetime.fromisoformat(one["timestamp"]).timestamp(), one["event_type"] in ASKS) for one in record["timing_events"]]
    if not events:
        raise ValueError("'timing_events' has no moment")
    whole, had = record["input_tokens_total"], record["prefix_tokens"]
    if not 0 <= had <= whole:
        raise ValueError(f"{had} prefix_tokens of {whole} input_tokens_total")
    if record.get("newly_append_tokens") not in (None, whole - had):
        raise ValueError(f"{had} prefix_tokens and {record['newly_append_tokens']} newly_append_tokens are not {whole} input_tokens_total")
    said = [t for t, asks in events if not asks]
    asked = [t for t, asks in events if asks and (not said or t <= max(said))] or [min(t for t, _ in events)]
    ended = max(said) if said else math.nan
    link = RecordLink(session=str(record["session_id"]), turn=record["round_index"], ended=ended, prefix=had)
    yield {"sent_s": max(asked), "input_tokens_total": whole, "output_tokens": record["output_tokens"], LINK: link}


def _trie(record: Record, _: int) -> Iterator[Record]:
    """One session of tool calls: every turn sees all that was said before; it comes, at the earliest, after the tools.

    The time a turn takes to be served is not in the file, so that arrivals [s] are those of an infinitely fast server.
    """
    said, tools, waits = (record[key] for key in ("assistant_response_length", "tool_call_output_length", "tool_call_latency"))
    grown = accumulate((a + b for a, b in zip(said, tools)), initial=record["input_prompt_length"])
    when = accumulate(waits, initial=0.0)
    for at, prompt, output in zip(when, grown, [*said, record["final_assistant_response_length"]]):
        yield {"arrive_s": at, "prompt_tokens": prompt, "output_tokens": output}


def _sub_requests(record: Record, _: int) -> Iterator[Record]:
    """A session of LLMServingSim: sub-requests one after the other, each after the tool before it (service time 0)."""
    at = record["arrival_time_ns"]
    for part in record["sub_requests"]:
        yield {"arrival_time_ns": at, "input_toks": part["input_toks"], "output_toks": part["output_toks"]}
        at += part.get("tool_duration_ns", 0)


def _aiperf(record: Record, _: int) -> Iterator[Record]:
    """One measured request of aiperf's per-request export; failed ones are left out."""
    metrics = record["metrics"]
    if not record.get("error") and "input_sequence_length" in metrics:
        yield {
            "request_start_ns": record["metadata"]["request_start_ns"],
            "input_sequence_length": metrics["input_sequence_length"]["value"],
            "output_sequence_length": metrics["output_sequence_length"]["value"],
        }


def _sharegpt(record: Record, _: int) -> Iterator[Record]:
    """First two turns of a conversation, as serving benchmarks take them; lengths in characters."""
    turns = record["conversations"]
    if len(turns) >= 2 and turns[0]["value"] and turns[1]["value"]:
        yield {"prompt_chars": len(turns[0]["value"]), "output_chars": len(turns[1]["value"])}


def _rollout(record: Record, _: int) -> Iterator[Record]:
    """One trajectory: the model's turns, each after the prompt, the turns before it and what was observed between."""
    said = record["out_lens"]
    seen = [*record.get("obs_lens", []), *([0] * len(said))]
    grown = accumulate((a + b for a, b in zip(said, seen)), initial=record["prompt_len"])
    for prompt, output in zip(grown, said):
        yield {"turn_prompt": prompt, "turn_output": output}


def _guidellm(record: Record, _: int) -> Iterator[Record]:
    """The requests that succeeded, of every benchmark of a GuideLLM report."""
    for benchmark in record["benchmarks"]:
        found = benchmark["requests"]
        for request in found["successful"] if isinstance(found, dict) else found:
            info = request.get("info") or request.get("scheduler_info") or {}
            timings = info.get("timings") or info.get("request_timings") or {}
            start = request.get("start_time", request.get("request_start_time", timings.get("request_start")))
            lengths = {f"{kind}_tokens": _tokens(request, kind) for kind in ("prompt", "output")}
            yield {"start_time": start, **lengths}


def _tokens(request: Record, kind: str) -> Any:
    """The tokens of a request as GuideLLM wrote them, in older and newer reports."""
    metrics = request.get(f"{'input' if kind == 'prompt' else kind}_metrics") or {}
    found = request.get(f"{kind}_tokens", metrics.get("total_tokens") or metrics.get("text_tokens"))
    return request[f"{kind}_tokens"] if found is None else found


def _genai_perf(record: Record, _: int) -> Iterator[Record]:
    """Requests of a genai-perf profile, which holds texts and no tokens: lengths in characters."""
    for experiment in record["experiments"]:
        for request in experiment["requests"]:
            said = sum(map(_chars, (part.get("response", "") for part in request["response_outputs"])))
            if not said:
                raise ValueError("neither the tokens nor the texts of the answers are in it: export the responses")
            payload = request["request_inputs"].get("payload", "")
            yield {"sent_ns": request["timestamp"], "payload_chars": _chars(payload), "response_chars": said}


def _chars(text: Any) -> int:
    """Characters of the texts in a JSON message, or in what else was sent."""
    if isinstance(text, str) and text.lstrip().startswith(("{", "data:")):
        return sum(_said(json.loads(part.strip())) for part in text.split("data:") if part.strip().startswith("{"))
    return len(text) if isinstance(text, str) else 0


def _said(value: Any) -> int:
    if isinstance(value, dict):
        return sum(len(v) if key in ("content", "prompt", "text") and isinstance(v, str) else _said(v) for key, v in value.items())
    return sum(map(_said, value)) if isinstance(value, list) else 0


NESTED: tuple[tuple[str, Callable[[Record, int], Iterator[Record]]], ...] = (
    ("schema", _dynamo),
    ("not_before_ms", _dynamo),
    ("newly_append_tokens", _tracelab),
    ("session_id", _mooncake_turn),
    ("wait_for", _mooncake_turn),
    ("requests", _weka),
    ("out_lens", _rollout),
    ("benchmarks", _guidellm),
    ("experiments", _genai_perf),
    ("input_prompt_length", _trie),
    ("sub_requests", _sub_requests),
    ("metrics", _aiperf),
    ("conversations", _sharegpt),
)


def is_nested(record: Record) -> bool:
    """Whether a record is of a nested format."""
    return any(_is(record, key) for key, _ in NESTED)


def _is(record: Record, key: str) -> bool:
    """Some keys are those of many files: there the requests must be those of a conversation, or in Mooncake's words."""
    if key == "requests":
        return key in record and _first_has(record[key], ("t", "requests"))
    if key in ("session_id", "wait_for"):
        return key in record and isinstance(record.get("hash_ids"), list) and not {"input_length", "input_tokens"}.isdisjoint(record)
    return key in record and (key != "schema" or record[key] == DYNAMO)


def _first_has(rows: Any, keys: Sequence[str]) -> bool:
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict) and any(key in rows[0] for key in keys)


def unfolded(records: Sequence[Record], line: Sequence[int], where: str) -> tuple[list[Record], list[int]]:
    """One record per request, each with the line of the record that it came from."""
    key, lay_out = next((key, lay_out) for key, lay_out in NESTED if _is(records[0], key))
    flat: list[Record] = []
    lines: list[int] = []
    for number, record in zip(line, records):
        try:
            some = list(lay_out(record, number))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            told = f"'{key}' cannot be laid out as requests ({_why(error)})"
            raise InputError(told, f"{where}:{number}") from None
        flat += some
        lines += [number] * len(some)
    if not flat and key != "schema":
        raise InputError(f"'{key}' holds no request", f"{where}:{line[0]}")
    return flat, lines


def block_of(records: Sequence[Record], line: Sequence[int], where: str) -> int:
    """Tokens of a block that records state, 0 where none does; raises InputError where they do not agree."""
    found = 0
    for number, record in zip(line, records):
        block = record.get("block_size", 0) or 0
        if type(block) is not int or not 0 <= block <= 1 << 20:
            raise InputError(f"'block_size' is no number of tokens: {block!r}", f"{where}:{number}")
        found = agreed(found, block, f"{where}:{number}")
    return found


def agreed(before: int, block: int, place: str) -> int:
    """The one size of blocks [tokens] that is told, 0 = none yet."""
    if before and block and before != block:
        raise InputError(f"blocks of {block} tokens, and of {before} before", place, "write one file for each size of blocks")
    return block or before


def _why(error: Exception) -> str:
    return f"key {error} is missing" if isinstance(error, KeyError) else str(error)
