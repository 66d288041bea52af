"""Whatever lies in a file: it is read by its meaning, or refused in one line, in bounded memory and in no time."""

from __future__ import annotations

import gzip
import json
import re
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from apexsim.cli.main import main
from apexsim.errors import InputError
from apexsim.workload import stream
from apexsim.workload.stream import read_trace

Capture = pytest.CaptureFixture[str]
ALIVE = re.compile(r"^apexsim: .* is running …\n", re.MULTILINE)  # a slow machine's sign of life, beside the one line
HALF = 1_764_000_000
READ = {  # name: text, arrivals, prompts, outputs, word of a note
    "epoch-ms.csv": (f"request_id,arrival_timestamp_ms,input_token_num,output_token_num\nr0,{HALF}000,100,20\nr1,{HALF}040,101,21\n",
                     [0, 0.04], [100, 101], [20, 21], "clock"),
    "epoch.jsonl": ("".join(json.dumps({"created": HALF + i, "usage": {"prompt_tokens": 7 + i, "completion_tokens": 3}}) + "\n"
                            for i in range(2)), [0, 1], [7, 8], [3, 3], "since 1970"),
    "epoch-ns.jsonl": ("".join(json.dumps({"sent": (HALF * 10 + 5 * i) * 10**8, "input_len": 7, "gen_len": 3}) + "\n"
                               for i in range(2)), [0, 0.5], [7, 7], [3, 3], "ns since 1970"),
    "prefix.csv": ("id,input_len,output_len,arrival_time,tool_wait_after_ms,prefix_len\n0,18231,412,0.0,15,0\n1,911,233,1500.0,8,18643\n",
                   [0, 1.5], [18231, 19554], [412, 233], "read in ms"),
    "seconds.jsonl": ("".join(json.dumps({"timestamp": t, "input_length": 5, "output_length": 2}) + "\n" for t in (0.0, 0.5, 1.0)),
                      [0, 0.5, 1.0], [5] * 3, [2] * 3, "read in s"),
    "milliseconds.jsonl": ("".join(json.dumps({"timestamp": t, "input_length": 5, "output_length": 2}) + "\n"
                                   for t in (0, 1500, 3000)), [0, 1.5, 3.0], [5] * 3, [2] * 3, ""),
    "ids.jsonl": ('{"task_id":0,"input_ids":[1,2,3],"output_tokens":9}\n{"task_id":1,"input_ids":[1],"output_tokens":9}\n',
                  [0, 0], [3, 1], [9, 9], "sent at once"),
    "rounds.csv": ("prompt_tokens,generation_tokens,ttft,generation_time,user_id,launch_time,finish_time\n"
                   "5,6,0.1,2,0,1.5,3\n7,8,0.1,2,1,2.5,4\n",
                   [1.5, 2.5], [5, 7], [6, 8], "launch_time"),
    "tabs.tsv": ("start_time\tinput_tokens\toutput_tokens\n1\t5\t6\n2\t7\t8\n", [1, 2], [5, 7], [6, 8], "columns read"),
    "bars.csv": ("Start|Context Tokens|Generated Tokens\n2026-01-01T00:00:00.5+00:00|5|6\n2026-01-01T00:00:02.5+00:00|7|8\n",
                 [0, 2], [5, 7], [6, 8], "columns read"),
    "american.csv": ("date,prompt_tokens,completion_tokens\n02/03/2026 10:00:00 PM,5,6\n02/04/2026 10:00:00 PM,7,8\n",
                     [0, 86400], [5, 7], [6, 8], "month first"),
    "european.csv": ("date,prompt_tokens,completion_tokens\n13.03.2026 10:00,5,6\n14.03.2026 10:00,7,8\n", [0, 86400], [5, 7], [6, 8], ""),
    "apache.csv": ("time,in,out\n31/Jan/2026:10:00:00 +0000,5,6\n31/Jan/2026:10:00:01 +0000,7,8\n", [0, 1], [5, 7], [6, 8], ""),
    "whole.json": (json.dumps({"requests": [{"arrival": 0.0, "isl": 5, "osl": 6}, {"arrival": 1.0, "isl": 7, "osl": 8}]}, indent=1),
                   [0, 1], [5, 7], [6, 8], "arrival"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_columns_are_read_by_what_they_mean(name: str, tmp_path: Path) -> None:
    text, arrive, prompt, output, note = READ[name]
    (tmp_path / name).write_text(text)
    found = read_trace(tmp_path / name)
    assert found.arrive == pytest.approx(arrive, abs=1e-6)
    assert (found.prompt.tolist(), found.output.tolist()) == (prompt, output)
    assert note in " ".join(found.notes)


def test_a_map_names_inner_keys_and_keeps_the_prefix(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"a": {"b": t, "c": 5}, "o": 2, "prefix_len": 3}) + "\n" for t in (0, 1)))
    mapped = {"arrive": "a.b", "prompt": "a.c", "output": "o"}
    assert read_trace(path, columns=mapped, time_unit="s").prompt.tolist() == [8, 8]
    assert read_trace(path, columns=mapped | {"shared": ""}, time_unit="s").prompt.tolist() == [5, 5]
    assert read_trace(path, columns={"prompt": "a.c", "output": "o"}).mode == "offline"


def test_day_first_is_stated(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("date,prompt_tokens,completion_tokens\n02/03/2026 10:00,5,6\n03/03/2026 10:00,7,8\n")
    assert read_trace(path, time_unit="dmy").arrive.tolist() == [0, 86400]
    assert read_trace(path, time_unit="mdy").arrive.tolist() == [0, 28 * 86400]


REFUSED = {
    "sglang.jsonl": ('{"mean_ttft_ms": 1, "mean_tpot_ms": 2, "completed": 3, "total_input_tokens": 9, "random_input_len": 8}',
                     "totals of a"),
    "texts.jsonl": ('{"prompt": "hello", "output_tokens": 3}', "tokenize"),
    "genai.json": ('{"experiments":[{"requests":[{"timestamp":1,"request_inputs":{"payload":"{}"},"response_outputs":[]}]}]}', "neither"),
    "span.csv": ("TIMESTAMP,ContextTokens,GeneratedTokens\n2199-12-31 00:00:00,1,1\n1700-01-01 00:00:00,1,1\n", "spans from"),
    "month.csv": ("date,prompt_tokens,completion_tokens\n13/01/2026 10:00,5,6\n01/13/2026 10:00,7,8\n", "dmy or mdy"),
    "zone.csv": ("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00+25,1,1\n", "not a date"),
    "long.jsonl": ('{"StartTimeOffset":' + "9" * 400 + ',"ContextTokens":1,"GeneratedTokens":1}', "not a number"),
    "trie.jsonl": ('{"input_prompt_length":1,"assistant_response_length":[1],"tool_call_output_length":[1],"tool_call_latency":['
                   + "9" * 400 + '],"final_assistant_response_length":1}', "cannot be laid out"),
    "weka.jsonl": ('{"requests":[{"t":' + "9" * 400 + ',"in":1,"out":1,"hash_ids":[]}]}', "cannot be laid out"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_says_what_is_missing(name: str, tmp_path: Path, capsys: Capture) -> None:
    text, told = REFUSED[name]
    (tmp_path / name).write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["trace", "describe", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert (out, ALIVE.sub("", err).count("\n")) == ("", 1) and told in err


@pytest.mark.parametrize("command", ["describe", "convert"])
@pytest.mark.parametrize("skip", [0, 1000])
def test_damaged_files_are_one_line(command: str, skip: int, tmp_path: Path, capsys: Capture) -> None:
    packed = bytearray(gzip.compress(b"arrived_at,num_prefill_tokens,num_decode_tokens\n" + b"1,2,3\n" * 5000))
    packed[len(packed) // 2] ^= 0xFF
    bad = {
        "flip.gz": bytes(packed),
        "cut.gz": bytes(packed[:50]),
        "bad.csv": b"arrived_at,isl,osl\n1,n/a,2\n",
        "nul.csv": b"a,b\n" + bytes(99),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        assert main(["trace", command, str(tmp_path / name), "--skip-bad", str(skip)]) == 2, name
        assert ALIVE.sub("", capsys.readouterr().err).count("\n") == 1


def test_a_file_without_ends_of_lines_is_read_in_proportion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes that are joined are a small multiple of the file's."""
    monkeypatch.setattr(stream, "BLOCK", 1 << 10)
    (tmp_path / "t").write_bytes(b"x" * (1 << 20))
    sizes: list[int] = []
    monkeypatch.setattr(stream, "_outside_quotes", lambda data, cut: sizes.append(len(data)) or 0)
    with pytest.raises(InputError):
        read_trace(tmp_path / "t")
    assert sum(sizes) < 4 << 20 and len(sizes) < 20


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory")
@pytest.mark.parametrize("words", [["trace", "describe", "{}"], ["fit", "{}", "--gpu", "l4", "--gpus", "1"],
                                   ["fit", "qwen3-8b", "--gpu", "l4", "--gpus", "1", "--log", "{}"], ["validate", "{}"],
                                   ["replay", "--compare", "{}", "--model", "m", "--plan", "TP1", "--gpu", "l4",
                                    "--gpus", "1"]])  # fmt: skip
def test_a_bomb_is_refused_in_bounded_memory(words: list[str], tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.gz"
    with gzip.open(bomb, "wb", 1) as file:
        for _ in range(192):
            file.write(b"[" + b" " * (1 << 22))
    limit = 3 << 30
    done = subprocess.run(
        [sys.executable, "-m", "apexsim", *(word.format(bomb) for word in words)], capture_output=True, text=True, timeout=300, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    told = ALIVE.sub("", done.stderr)
    assert (done.returncode, told.count("\n")) == (2, 1) and "not enough memory" not in told, told


def test_lines_are_kept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n2,5,6\n\n1,7,8\n")
    found = read_trace(tmp_path / "t.csv")
    assert found.line is not None and found.line.tolist() == [4, 2] and np.all(np.diff(found.arrive) > 0)
