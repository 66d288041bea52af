"""Traces as tools, spreadsheets and people write them: each variant is read as it is meant, or refused in one line that says why.

A variant that is read has three requests: prompts of 100, 101 and 1,102 tokens, outputs of 20, 21 and 22, at 0, 1.5 and 3 s.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from apexsim.cli.main import main
from apexsim.errors import InputError
from apexsim.workload.stream import read_trace
from apexsim.workload.trace import Workload

TIMES, PROMPTS, OUTPUTS = (0.0, 1.5, 3.0), (100, 101, 1102), (20, 21, 22)
EPOCH = 1_764_000_000
ROWS = tuple(zip(("0", "1.5", "3"), map(str, PROMPTS), map(str, OUTPUTS)))
NAMES = ("arrival_time", "prompt_tokens", "output_tokens")
Capture = pytest.CaptureFixture[str]


def table(names: Sequence[str] = NAMES, rows: Sequence[Sequence[str]] = ROWS, sign: str = ",", end: str = "\n") -> str:
    return "".join(sign.join(row) + end for row in (names, *rows))


def column(number: int, cells: Sequence[str]) -> list[list[str]]:
    """The rows with other cells in one column."""
    return [[cell if i == number else old for i, old in enumerate(row)] for row, cell in zip(ROWS, cells)]


def lines(record: Callable[[float, int, int], Any]) -> str:
    return "".join(json.dumps(record(*row)) + "\n" for row in zip(TIMES, PROMPTS, OUTPUTS))


def records() -> list[dict[str, float]]:
    return [dict(zip(NAMES, row)) for row in zip(TIMES, PROMPTS, OUTPUTS)]


def at(times: Sequence[object], name: str = "timestamp") -> str:
    return table((name, *NAMES[1:]), column(0, list(map(str, times))))


def iso(second: float) -> str:
    return f"2026-01-01T00:00:0{second:g}"


# ---- how the table is written ---------------------------------------------------------------------------------------

SHAPES: dict[str, str | bytes] = {
    "commas": table(),
    "semicolons": table(sign=";"),
    "tabs": table(sign="\t"),
    "bars": table(sign="|"),
    "byte order mark": b"\xef\xbb\xbf" + table().encode(),
    "CRLF": table(end="\r\n"),
    "no last line end": table().rstrip(),
    "blank lines": "\n" + table().replace("\n", "\n\n"),
    "remarks": "# made by a tool\n# seconds\n" + table(),
    "trailing comma": table(end=",\n"),
    "quoted": table([f'"{name}"' for name in NAMES], [[f'"{cell}"' for cell in row] for row in ROWS]),
    "blanks around": table(sign=" , "),
    "an index": table(("", *NAMES), [(str(i), *row) for i, row in enumerate(ROWS)]),
    "other columns": table((*NAMES, "model", "total_tokens", "ttft_ms"), [(*row, "m", "9", "3.5") for row in ROWS]),
    "other order": table(NAMES[::-1], [row[::-1] for row in ROWS]),
    "unsorted": table(rows=ROWS[::-1]),
    "floats": table(rows=[(t, p + ".0", o + ".0") for t, p, o in ROWS]),
    "scientific": table(rows=column(1, ("1e2", "1.01e2", "1.102e3"))),
    "plus signs": table(rows=column(1, ("+100", "+101", "+1102"))),
    "thousands": table(rows=column(1, ("100", "101", '"1,102"'))),
    "thousands by blanks": table(rows=column(1, ("100", "101", "1 102"))),
    "thousands by apostrophes": table(rows=column(1, ("100", "101", "1'102"))),
    "thousands by thin blanks": table(rows=column(1, ("100", "101", "1\u202f102"))),
    "thousands by points": table(rows=column(1, ("100", "101", "1.102")), sign=";"),
    "decimal commas": table(rows=column(0, ("0", "1,5", "3")), sign=";"),
    "decimal commas and points": table(rows=[("0", "100", "20"), ("1,5", "101", "21"), ("3,0", "1.102", "22")], sign=";"),
    "capitals": table([name.upper() for name in NAMES]),
    "camels": table(("arrivalTime", "promptTokens", "outputTokens")),
    "blanks in names": table(("Arrival Time", "Prompt Tokens", "Output Tokens")),
    "hyphens": table([name.replace("_", "-") for name in NAMES]),
    "a unit in brackets": table(("arrival (ms)", "isl", "osl"), column(0, ("0", "1500", "3000"))),
    "a unit in square brackets": table(("arrival[us]", "isl", "osl"), column(0, ("0", "1500000", "3000000"))),
    "a unit in words": table(("arrival seconds", "input length", "output length")),
    "lines": lines(lambda t, p, o: dict(zip(NAMES, (t, p, o)))),
    "lines with a mark": b"\xef\xbb\xbf" + lines(lambda t, p, o: dict(zip(NAMES, (t, p, o)))).encode(),
    "lines and blank ones": "\n" + lines(lambda t, p, o: dict(zip(NAMES, (t, p, o)))).replace("\n", "\n\n"),
    "numbers as texts": lines(lambda t, p, o: dict(zip(NAMES, map(str, (t, p, o))))),
    "nested": lines(lambda t, p, o: {"a": {"b": {"arrival_time": t}}, "u": {"prompt_tokens": p, "output_tokens": o}}),
    "keys with points": lines(lambda t, p, o: {"at.arrival_time": t, "x": {"u.prompt_tokens": p, "u.output_tokens": o}}),
    "token ids": lines(lambda t, p, o: {"arrival_time": t, "prompt_token_ids": [1] * p, "output_token_ids": [1] * o}),
    "an array": json.dumps(records()),
    "an array over lines": json.dumps(records(), indent=1),
    "wrapped": json.dumps({"meta": 1, "requests": records()}),
    "columns of lists": json.dumps({name: list(v) for name, v in zip(NAMES, (TIMES, PROMPTS, OUTPUTS))}),
    "columns by row": json.dumps({name: dict(zip("012", v)) for name, v in zip(NAMES, (TIMES, PROMPTS, OUTPUTS))}),
    "names and rows": json.dumps({"columns": NAMES, "index": [0, 1, 2], "data": list(zip(TIMES, PROMPTS, OUTPUTS))}),
    "by id": json.dumps({f"r{i}": record for i, record in enumerate(records())}),
}

# ---- clocks ----------------------------------------------------------------------------------------------------------

CLOCKS = {
    "epoch in s": at([f"{EPOCH + t:.1f}" for t in TIMES]),
    "epoch in ms": at([round((EPOCH + t) * 1e3) for t in TIMES]),
    "epoch in us": at([round((EPOCH + t) * 1e6) for t in TIMES]),
    "epoch in ns": at([EPOCH * 10**9 + round(t * 1e9) for t in TIMES]),
    "epoch with its unit": at([round((EPOCH + t) * 1e3) for t in TIMES], "arrival_timestamp_ms"),
    "ISO": at([iso(t) for t in TIMES]),
    "ISO with Z": at([iso(t) + "Z" for t in TIMES]),
    "ISO with small letters": at([(iso(t) + "Z").lower() for t in TIMES]),
    "ISO with a blank": at([iso(t).replace("T", " ") for t in TIMES]),
    "ISO with zones": at(["2026-01-01T02:00:00+02:00", "2025-12-31T19:00:01.5-05:00", "2026-01-01T00:00:03+00:00"]),
    "ISO with short zones": at([iso(t) + "+00" for t in TIMES]),
    "ISO with plain zones": at([iso(t) + "+0130" for t in TIMES]),
    "ISO with nanoseconds": at(["2026-01-01T00:00:00.000000000Z", "2026-01-01T00:00:01.500000000Z", "2026-01-01T00:00:03.000000000Z"]),
    "ISO without signs": at(["20260101T000000Z", "20260101T000001.5Z", "20260101T000003Z"]),
    "UTC in a word": at([iso(t).replace("T", " ") + " UTC" for t in TIMES]),
    "slashes, year first": at([f"2026/01/01 00:00:0{t:g}" for t in TIMES]),
    "month first by its size": at([f"01/31/2026 00:00:0{t:g}" for t in TIMES]),
    "day first by its size": at([f"31/01/2026 00:00:0{t:g}" for t in TIMES]),
    "day first with points": at([f"31.01.2026 00:00:0{t:g}" for t in TIMES]),
    "afternoons": at([f"1/31/2026 1:00:0{t:g} PM" for t in TIMES]),
    "web servers": at([f"31/Jan/2026:10:00:0{t:g} +0100" for t in TIMES]),
    "mail": at([f'"Thu, 01 Jan 2026 00:00:0{t:g} GMT"' for t in TIMES]),
    "names of months": at([f'"Jan 31, 2026 10:00:0{t:g} AM"' for t in TIMES]),
    "C": at([f"Thu Jan  1 00:00:0{t:g} 2026" for t in TIMES]),
}

# ---- tools -----------------------------------------------------------------------------------------------------------

TOOLS = {
    "OpenAI usage": lines(lambda t, p, o: {"created": EPOCH + t, "usage": {
        "prompt_tokens": p, "completion_tokens": o, "total_tokens": p + o, "prompt_tokens_details": {"cached_tokens": 64}}}),
    "OpenAI responses": lines(lambda t, p, o: {"created_at": EPOCH + t, "usage": {
        "input_tokens": p, "input_tokens_details": {"cached_tokens": 3}, "output_tokens": o,
        "output_tokens_details": {"reasoning_tokens": 9}}}),
    "Anthropic messages": lines(lambda t, p, o: {"timestamp": iso(t) + "Z", "message": {"usage": {
        "input_tokens": p - 90, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 80, "output_tokens": o}}}),
    "Gemini": lines(lambda t, p, o: {"createTime": iso(t) + "Z", "usageMetadata": {
        "promptTokenCount": p, "candidatesTokenCount": o, "totalTokenCount": p + o}}),
    "Ollama": lines(lambda t, p, o: {"created_at": iso(t) + "Z", "prompt_eval_count": p, "eval_count": o, "eval_duration": 10**6}),
    "Bedrock": lines(lambda t, p, o: {"timestamp": iso(t) + "Z", "input": {"inputTokenCount": p}, "output": {"outputTokenCount": o}}),
    "Langfuse": lines(lambda t, p, o: {"startTime": iso(t) + "Z", "endTime": iso(9) + "Z",
                                       "usage": {"input": p, "output": o, "total": p + o}}),
    "OpenTelemetry": lines(lambda t, p, o: {"start_time_unix_nano": round((EPOCH + t) * 1e9), "attributes": {
        "gen_ai.usage.input_tokens": p, "gen_ai.usage.output_tokens": o}}),
    "LiteLLM": table(("request_id", "startTime", "endTime", "prompt_tokens", "completion_tokens", "spend"),
                     [("a", iso(t) + "+00:00", iso(9) + "+00:00", str(p), str(o), "0.1") for t, p, o in zip(TIMES, PROMPTS, OUTPUTS)]),
    "LMCache": table(("", "prompt_tokens", "generation_tokens", "ttft", "generation_time", "user_id", "question_id", "launch_time",
                      "finish_time"), [("0", str(p), str(o), "0.1", "1", "1", "1", f"{EPOCH + t}", f"{EPOCH + 9}")
                                       for t, p, o in zip(TIMES, PROMPTS, OUTPUTS)]),
    "aiperf": lines(lambda t, p, o: {"metadata": {"request_start_ns": round((EPOCH + t) * 1e9)}, "error": None, "metrics": {
        "input_sequence_length": {"value": p, "unit": "tokens"}, "output_sequence_length": {"value": o}}}),
    "GuideLLM": json.dumps({"metadata": {}, "benchmarks": [{"requests": {"successful": [
        {"request_start_time": EPOCH + t, "prompt_tokens": p, "output_tokens": o} for t, p, o in zip(TIMES, PROMPTS, OUTPUTS)]}}]}),
    "newer GuideLLM": json.dumps({"benchmarks": [{"requests": {"successful": [
        {"info": {"timings": {"request_start": EPOCH + t}}, "input_metrics": {"text_tokens": p}, "output_metrics": {"text_tokens": o}}
        for t, p, o in zip(TIMES, PROMPTS, OUTPUTS)]}}]}),
    "vLLM": lines(lambda t, p, o: {"request_id": "a", "arrival_time": EPOCH + t, "num_prompt_tokens": p, "num_generation_tokens": o,
                                   "time_in_queue": 0.1, "finished_time": 1}),
    "vLLM bench": json.dumps({"input_lens": PROMPTS, "output_lens": OUTPUTS, "start_times": [7 + t for t in TIMES], "errors": [""] * 3}),
    "Mooncake in ms": lines(lambda t, p, o: {"timestamp": round(t * 1e3), "input_length": p, "output_length": o,
                                             "hash_ids": list(range(-(-int(p) // 512)))}),
    "Mooncake in s": lines(lambda t, p, o: {"timestamp": t, "input_length": p, "output_length": o}),
    "RAGPulse": lines(lambda t, p, o: {"timestamp": f"{t:g}", "input_length": p, "output_length": o, "hash_ids": {"sys_prompt": [1]}}),
    "a prefix apart": table(("arrival_time", "prefix_len", "input_len", "output_len"),
                            [(t, "50", str(int(p) - 50), o) for t, p, o in ROWS]),
    "cached tokens inside": table((*NAMES, "cached_tokens"), [(*row, "50") for row in ROWS]),
}  # fmt: skip
UNTIMED = {
    "TensorRT-LLM": lines(lambda t, p, o: {"task_id": 1, "input_ids": [1] * p, "output_tokens": o}),
    "TensorRT-LLM log": lines(lambda t, p, o: {"task_id": 1, "input_ids": [1] * p, "output_ids": [2] * o}),
    "verl": lines(lambda t, p, o: {"prompt_ids": [1] * p, "response_ids": [2] * o, "step": 1}),
    "lengths": lines(lambda t, p, o: {"prompt_length": p, "response_length": o}),
    "SGLang bench": json.dumps({"input_lens": PROMPTS, "output_lens": OUTPUTS, "itls": [[0.1]] * 3}),
    "two sides": lines(lambda t, p, o: {"human_tokens": p, "gpt_tokens": o}),
    "rollouts": json.dumps({"prompt_len": 100, "out_lens": [20, 21, 22], "obs_lens": [-19, 980]}),
}
READ: dict[str, str | bytes] = {**SHAPES, **CLOCKS, **TOOLS}


def read(folder: Path, text: str | bytes) -> Workload:
    path = folder / "t.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_trace(path)


@pytest.mark.parametrize("kind", READ)
def test_a_variant_is_read_as_it_is_meant(kind: str, tmp_path: Path) -> None:
    found = read(tmp_path, READ[kind])
    assert (found.prompt.tolist(), found.output.tolist()) == (list(PROMPTS), list(OUTPUTS))
    assert (found.arrive - found.arrive[0]).tolist() == pytest.approx(TIMES, abs=1e-6) and found.timed


@pytest.mark.parametrize("kind", UNTIMED)
def test_lengths_without_times_are_read(kind: str, tmp_path: Path) -> None:
    found = read(tmp_path, UNTIMED[kind])
    assert (found.prompt.tolist(), found.output.tolist(), found.timed) == (list(PROMPTS), list(OUTPUTS), False)


@pytest.mark.parametrize("kind", ["thousands", "mail", "columns of lists", "OpenTelemetry", "GuideLLM", "tabs"])
def test_every_command_takes_it(kind: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(READ[kind].encode() if isinstance(READ[kind], str) else READ[kind])
    assert main(["trace", "describe", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["span_s"] == pytest.approx(3.0)
    assert main(["trace", "convert", str(path), "--to", "vidur"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(",1102,22")
    assert main(["simulate", "llama-3.1-8b", "--gpu", "h100:1", "--plan", "TP1", "--trace", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["understood"]["workload"]["requests"] == 3


BAD = '{"arrival_time": 0, "prompt_tokens": %s, "output_tokens": 20}\n'
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "is empty"),
    "blanks": ("\n \n", "is empty"),
    "a header": (table(rows=()), "a header and no requests"),
    "no header": (table(ROWS[0], ROWS[1:]), "the first line holds numbers"),
    "a missing length": (table(rows=column(2, ("", "21", "22"))), "output length 'output_tokens' is not a number: ''"),
    "a missing length later": (table(rows=column(2, ("20", "", "22"))), ":3: output length 'output_tokens' is not a number: ''"),
    "a missing time": (table(rows=column(0, ("", "1", "2"))), "arrival 'arrival_time' is not a number: ''"),
    "NaN": (table(rows=column(1, ("nan", "101", "102"))), "prompt length 'prompt_tokens' is not a number: 'nan'"),
    "NULL": (table(rows=column(2, ("NULL", "NULL", "NULL"))), "output length 'output_tokens' is not a number: 'NULL'"),
    "an endless time": (table(rows=column(0, ("inf", "1", "2"))), "arrival 'arrival_time' is not a number: 'inf'"),
    "zero": (table(rows=column(2, ("0", "21", "22"))), "output length 'output_tokens' is 0"),
    "negative": (table(rows=column(1, ("100", "-1", "22"))), ":3: prompt length 'prompt_tokens' is negative"),
    "a fraction": (table(rows=column(1, ("100.5", "101", "102"))), "is not a whole number: 100.5"),
    "a negative time": (table(rows=column(0, ("-1", "0", "1"))), "arrival 'arrival_time' is negative"),
    "words": (table(rows=column(1, ("100", "many", "102"))), ":3: prompt length 'prompt_tokens' is not a number: 'many'"),
    "half a thousand": (table(rows=column(1, ("100", '"1,02"', "102"))), "is not a number: '1,02'"),
    "a short row": ("arrival_time,prompt_tokens,output_tokens\n0,100,20\n1,101\n", ":3: 2 cells, the header has 3"),
    "a name twice": (table(("t", "isl", "isl")), "names 'isl' twice"),
    "one column": ("prompt_tokens\n5\n", "neither CSV with a header nor JSON lines"),
    "old line ends": (table(end="\r"), "lines must end in a line feed"),
    "UTF-16": (table().encode("utf-16"), "UTF-16"),
    "Latin letters": (b"arrival_time,prompt_tokens,output_tokens,n\xe4me\n0,1,2,a\n", "not UTF-8"),
    "null": (BAD % "null", "prompt length 'prompt_tokens' is not a number: None"),
    "true": (BAD % "true", "prompt length 'prompt_tokens' is not a number: True"),
    "JSON's NaN": (BAD % "NaN", "prompt length 'prompt_tokens' is not a number: nan"),
    "a text": (BAD % '"x"', "prompt length 'prompt_tokens' is not a number: 'x'"),
    "no token ids": ('{"prompt_token_ids": [], "output_token_ids": [1]}', "prompt length 'prompt_token_ids' is 0"),
    "a key that ends": (BAD % 5 + '{"arrival_time": 1, "prompt_tokens": 5}\n', ":2: key 'output_tokens' is missing"),
    "cut off": (BAD % 5 + '{"arrival_time": 1, "promp', ":2: not JSON"),
    "rows without names": ("[0, 100, 20]\n[1, 100, 20]\n", "expected a JSON object, got list"),
    "a comma too many": ('[{"arrival_time": 0, "prompt_tokens": 5, "output_tokens": 5},]', "not JSON"),
    "columns of unequal length": ('{"arrival_time": [0, 1], "prompt_tokens": [5], "output_tokens": [5]}', "has 1 entries"),
    "texts": ('{"prompt": "hello", "output_tokens": 3}\n', "trace tokenize"),
    "totals": ('{"mean_ttft_ms": 1, "p99_ttft_ms": 2, "completed": 3, "total_input_tokens": 9}', "totals of a benchmark run"),
    "no zone": (at([iso(t) + "+25:00" for t in TIMES]), "write dates as"),
    "a zone in letters": (at([iso(t).replace("T", " ") + " EST" for t in TIMES]), "write dates as"),
    "a time of day": (at(["00:00:00", "00:00:01", "00:00:03"]), "write dates as"),
    "both orders": (at(["13/01/2026 10:00", "01/13/2026 10:00", "01/13/2026 10:01"]), "dmy or mdy"),
    "failed runs": ('{"metadata": {"request_start_ns": 1}, "metrics": {}, "error": "x"}\n', "holds no request"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_says_what_and_where(kind: str, tmp_path: Path, capsys: Capture) -> None:
    text, told = REFUSED[kind]
    with pytest.raises(InputError) as error:
        read(tmp_path, text)
    assert told in f"{error.value.where}: {error.value.what}; {error.value.hint}"
    assert main(["trace", "describe", str(tmp_path / "t.txt")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) <= 2  # one line, beside "is running"


def test_what_nobody_can_tell_is_said(tmp_path: Path) -> None:
    found = read(tmp_path, at(["01/02/2026 00:00:00", "01/02/2026 00:00:01", "02/02/2026 00:00:03"]))
    assert any("month first" in note and "--time-unit dmy" in note for note in found.notes)
    assert any("--time-unit UNIT for another" in note for note in read(tmp_path, table()).notes)
