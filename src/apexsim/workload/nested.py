"""Records that hold several requests each, laid out as one record per request (floor 2).

A nested format is a row of `NESTED`: the key that only its records have, and a function from one record to flat ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from apexsim.errors import InputError

Record = dict[str, Any]
LOCAL = 1 << 40  # hashes that are local to a conversation are told apart by its number times this


def _weka(record: Record, number: int) -> Iterator[Record]:
    """One conversation of an agent trace: `requests` of {t [s], in, out, hash_ids}, nested under sub-agents.

    Times count from the start of the conversation.  Those of a sub-agent count from its marker where one of them lies
    before it, else from the start of the conversation: both are in use.
    """
    for request in record["requests"]:
        inner = request.get("requests")
        if inner is None:
            yield _weka_request(request, 0.0, number)
            continue
        marker = request.get("t", 0.0)
        shift = marker if any(nested["t"] < marker for nested in inner) else 0.0
        for nested in inner:
            yield _weka_request(nested, shift, number)


def _weka_request(request: Record, shift: float, number: int) -> Record:
    flat = {"t": request["t"] + shift, "in": request["in"], "out": request["out"]}
    hashes = request.get("hash_ids", [])
    return flat | {"hash_ids": [h + number * LOCAL for h in hashes[: -(-request["in"] // 64)]]}


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
    """`requests` is a key of many files: there the requests must be those of a conversation."""
    return key in record and (key != "requests" or _first_has(record[key], ("t", "requests")))


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
    if not flat:
        raise InputError(f"'{key}' holds no request", f"{where}:{line[0]}")
    return flat, lines


def _why(error: Exception) -> str:
    return f"key {error} is missing" if isinstance(error, KeyError) else str(error)
