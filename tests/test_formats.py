"""Traces: every format is read as it is meant, every broken file gives one line that names the place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from apexsim.errors import InputError
from apexsim.workload.columns import ideal_hit
from apexsim.workload.formats import FORMATS, fit_lengths
from apexsim.workload.stream import read_trace
from apexsim.workload.trace import Workload, chains_of

EXAMPLES = Path(__file__).parents[1] / "examples"


def apex(offset: object, prompt: object = 10, output: object = 5) -> str:
    return json.dumps({"StartTimeOffset": offset, "ContextTokens": prompt, "GeneratedTokens": output})


def write(folder: Path, text: str | bytes, name: str = "t.jsonl") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


SHIPPED = [  # file, requests, first and last arrival [s], prompt and output tokens
    ("creation_05.jsonl", 512, 0.618518284, 1097.988150291, 157563, 585888),
    ("lmsys_05.jsonl", 1024, 0.197890289, 2023.671132367, 63148, 165996),
    ("summarization_05.jsonl", 1302, 2.098471872, 2716.054079010, 3584478, 222011),
    ("mooncake_conversation.jsonl", 1756, 0.0, 600.0, 24587692, 621356),
    ("azure_conversation.csv", 2000, 0.0, 424.2594570, 2209565, 529807),
]


@pytest.mark.parametrize(("file", "count", "first", "last", "prompt", "output"), SHIPPED)
def test_shipped_traces(file, count, first, last, prompt, output) -> None:
    load = read_trace(EXAMPLES / file)
    assert (load.size, int(load.prompt.sum()), int(load.output.sum()), load.mode) == (count, prompt, output, "open")
    assert load.arrive[[0, -1]] == pytest.approx([first, last], abs=1e-9) and not load.notes


SAMPLES = {  # format: two requests, at 1.5 s and 3 s (or at 0 and 1.5 s where the format's clock starts at the first)
    "apex": apex(1_500_000_000, 7, 3) + "\n" + apex(3_000_000_000, 9, 4),
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:17:03.9799600,7,3\r\n2023-11-16 18:17:05.4799600,9,4",
    "bailian": '{"chat_id":1,"timestamp":5.0,"input_length":7,"output_length":3,"hash_ids":[1]}\n'
    '{"chat_id":2,"timestamp":6.5,"input_length":9,"output_length":4,"hash_ids":[1]}',
    "mooncake": '{"timestamp":500,"input_length":7,"output_length":3,"hash_ids":[1]}\n'
    '{"timestamp":2000,"input_length":9,"output_length":4,"hash_ids":[1]}',
    "mooncake-sessions": '{"session_id":"a","timestamp":500,"input_length":7,"output_length":3,"hash_ids":[1]}\n'
    '{"session_id":"b","timestamp":2000,"input_length":9,"output_length":4,"hash_ids":[1]}',
    "dynamo": '{"schema":"dynamo.agentic_mooncake","version":2,"block_size":64,"hash_id_scope":"local","source":{}}\n'
    '{"request_id":"a","play_id":"p","session_id":"s","input_length":7,"output_length":3,"hash_ids":[1],"not_before_ms":1500.0}\n'
    '{"request_id":"b","play_id":"p","session_id":"t","input_length":9,"output_length":4,"hash_ids":[1],"not_before_ms":3000.0}',
    "tracelab": '{"session_id":"a","round_index":0,"input_tokens_total":7,"prefix_tokens":0,"newly_append_tokens":7,"output_tokens":3,'
    '"timing_events":[{"event_type":"user_message","timestamp":"2026-06-01T05:40:20Z"}]}\n'
    '{"session_id":"b","round_index":0,"input_tokens_total":9,"prefix_tokens":0,"newly_append_tokens":9,"output_tokens":4,'
    '"timing_events":[{"event_type":"user_message","timestamp":"2026-06-01T05:40:21.5Z"}]}',
    "ragpulse": '{"timestamp":"1.5","input_length":7,"output_length":3,"hash_ids":{"sys_prompt":[1],"history":[]},"session_id":"a"}\n'
    '{"timestamp":"3","input_length":9,"output_length":4,"hash_ids":{"sys_prompt":[1],"history":[2]},"session_id":"b"}',
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,x,7,3,10,a\n6.5,x,9,4,13,a",
    "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens\n1.5,7,3\n3,9,4",
    "llmservingsim": '{"input_toks":7,"output_toks":3,"arrival_time_ns":1500000000}\n'
    '{"input_toks":9,"output_toks":4,"arrival_time_ns":3000000000}',
    "request-log": "hw,arrival_s,isl,osl\nx,1.5,7,3\nx,3,9,4",
    "azure-lmm": "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
    "2025-01-01 00:00:01,2,7,3\n2025-01-01 00:00:02.5,0,9,4",
    "mooncake-tokens": '{"timestamp":500,"input_tokens":7,"output_tokens":3,"hash_ids":[1]}\n'
    '{"timestamp":2000,"input_tokens":9,"output_tokens":4,"hash_ids":[1]}',
    "vidur-lengths": "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n7,3,10,2.3\n9,4,13,2.25",
    "blis": "request_id,prefix_length,input_tokens,output_tokens,arrival_time_us\n0,4,3,3,1500000\n1,0,9,4,3000000",
    "weka": '{"id":"a","requests":[{"t":1.5,"in":7,"out":3,"hash_ids":[1]},{"t":3,"in":9,"out":4,"hash_ids":[1]}]}',
    "trie": '{"num_turns":2,"input_prompt_length":7,"assistant_response_length":[3],"tool_call_output_length":[-1],'
    '"tool_call_latency":[1.5],"final_assistant_response_length":4}',
    "aiperf": "\n".join(
        json.dumps({"metadata": {"request_start_ns": ns}, "metrics": {
            "input_sequence_length": {"value": i}, "output_sequence_length": {"value": o}}})
        for ns, i, o in ((10**18, 7, 3), (10**18 + 1_500_000_000, 9, 4))
    ),
    "guidellm": json.dumps({"benchmarks": [{"requests": {"successful": [
        {"start_time": 1.7e9 + t, "prompt_tokens": i, "output_tokens": o} for t, i, o in ((0, 7, 3), (1.5, 9, 4))], "errored": []}}]}),
    "rollout": '{"prompt_len": 7, "out_lens": [3, 4], "obs_lens": [-1, 2]}',
    "sglang-bench": json.dumps({"input_lens": [7, 9], "output_lens": [3, 4], "itls": [[0.1], [0.1]]}),
    "vllm-bench": json.dumps(
        {"input_lens": [7, 8, 9], "output_lens": [3, 0, 4], "start_times": [70.5, 71, 72.0], "errors": ["", "x", ""]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", [f for f in FORMATS if not f.chars], ids=lambda f: f.name)
@pytest.mark.parametrize("asked", [False, True])
def test_every_format(tmp_path: Path, row, asked: bool) -> None:
    load = read_trace(write(tmp_path, SAMPLES[row.name]), row.name if asked else "auto")
    start = 0.0 if row.zero or row.name == "trie" else 1.5
    assert load.arrive == pytest.approx([start, start + 1.5] if row.arrive else [0, 0], abs=1e-6)
    assert (load.prompt.tolist(), load.output.tolist(), load.block) == ([7, 9], [3, 4], row.block)
    assert load.mode == ("open" if row.arrive else "offline")


def test_other_columns_by_map(tmp_path: Path) -> None:
    path = write(tmp_path, "when,q,a\n100,5,6\n1100,7,8\n")
    load = read_trace(path, columns={"arrive": "when", "prompt": "q", "output": "a"}, time_unit="ms")
    assert (load.arrive.tolist(), load.prompt.tolist(), load.output.tolist()) == ([0.1, 1.1], [5, 7], [6, 8])


def test_time_zones_are_read(tmp_path: Path) -> None:
    stamps = ["2024-05-10 00:00:00.0+00:00", "2024-05-10T02:00:01.5+02:00", "2024-05-09 19:00:02-0500"]
    rows = "".join(f"{s},1,1\n" for s in [*stamps, "2024-05-10 00:00:03Z"])
    load = read_trace(write(tmp_path, AZURE + rows))
    assert load.arrive == pytest.approx([0.0, 1.5, 2.0, 3.0], abs=1e-6)


def test_requests_are_sorted_with_their_lines(tmp_path: Path) -> None:
    load = read_trace(write(tmp_path, "\n".join([apex(3e9, 30), "", apex(1e9, 10), apex(2e9, 20)])))
    assert (load.prompt.tolist(), load.line.tolist()) == ([10, 20, 30], [3, 4, 1]) and "sorted" in load.notes[0]


@pytest.mark.parametrize("text", ["\ufeff" + apex(1e9), apex(1e9) + "\r\n", f"[{apex(1e9)}]", f"[\n{apex(1e9)}\n]"])
def test_containers(tmp_path: Path, text: str) -> None:
    assert read_trace(write(tmp_path, text)).arrive.tolist() == [1.0]


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GOOD = apex(1e9)
BROKEN = [  # content -> what the error says; {f} is the file
    ("", "is empty"),
    (" \n ", "is empty"),
    (b"\x7fELF\0\0", "is binary"),
    (b"\xff\xfe\x31", "not UTF-8"),
    ("hello", "neither CSV with a header nor JSON lines"),
    ("a,b\n1,2", "no columns of prompt and output lengths among: a, b"),
    (AZURE, "header and no requests"),
    ("[]", "no requests"),
    (GOOD + '\n{"StartTimeOffset": 1,', r"t.jsonl:2: not JSON"),
    ('{"StartTimeOffset": 1,\n' + GOOD, r"t.jsonl:1: not JSON"),
    (GOOD + "\n[1]", r"t.jsonl:2: expected a JSON object, got list"),
    (GOOD + '\n{"StartTimeOffset": 5, "ContextTokens": 3}', r"t.jsonl:2: key 'GeneratedTokens' is missing"),
    ('{"StartTimeOffset": 5, "ContextTokens": 3}', r"t.jsonl:1: key 'GeneratedTokens' is missing"),
    (GOOD + "\n" + apex(2e9, -3), r"t.jsonl:2: prompt length 'ContextTokens' is negative: -3"),
    (GOOD + "\n" + apex(2e9, 3.5), r"t.jsonl:2: .* not a whole number: 3.5"),
    (GOOD + "\n" + apex(2e9, 3, 0) + "\n" + apex(2e9, 3, 0), r"t.jsonl:2: output .* is 0: 0"),
    (GOOD + "\n" + apex(2e9, "many"), r"t.jsonl:2: .* not a number: 'many'"),
    (GOOD + "\n" + apex(2e9, None), r"t.jsonl:2: .* not a number: None"),
    (GOOD + "\n" + apex(2e9, True), r"t.jsonl:2: .* not a number: True"),
    (GOOD + "\n" + apex(2e9, float("nan")), r"t.jsonl:2: .* not a number: nan"),
    (GOOD + "\n" + apex(2e9, 1e300), r"t.jsonl:2: .* cannot be tokens"),
    (GOOD + "\n" + apex(float("inf")), r"t.jsonl:2: .* not a number: inf"),
    (GOOD + "\n" + apex(-2e9), r"t.jsonl:2: arrival 'StartTimeOffset' is negative"),
    ("arrival,input_len,output_len\n0,10,10\n-1,10,10\n", r"t.jsonl:3: arrival 'arrival' is negative: -1"),
    (AZURE + "2023-11-16 18:17:03,1,2\nlater,1,2", r"t.jsonl:3: 'TIMESTAMP' is not a date and time: 'later'"),
    (AZURE + "2023-11-16 18:17:03,1,2\n,1,2", r"t.jsonl:3: 'TIMESTAMP' is not a date and time"),
    (AZURE + "2023-11-16 18:17:03,1", r"t.jsonl:2: 2 cells, the header has 3"),
    (AZURE + "2023-11-16 18:17:03,1,2.5", r"t.jsonl:2: .* not a whole number: 2.5"),
    ('{"input_lens": [1], "output_lens": [1, 2], "start_times": [0]}', "'output_lens' has 2 entries"),
    ('{"timestamp":0,"input_length":7,"output_length":3,"hash_ids":[1.5]}', r"t.jsonl:1: 'hash_ids' must be a list"),
    ('{"timestamp":0,"input_length":7,"output_length":3,"hash_ids":[1,2]}', r"t.jsonl:1: 2 prefix blocks"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "told"), BROKEN)
def test_a_broken_file_is_one_line(tmp_path: Path, content: str | bytes, told: str) -> None:
    with pytest.raises(InputError, match=told) as error:
        read_trace(write(tmp_path, content))
    assert "t.jsonl" in str(error.value) and "\n" not in str(error.value)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_trace(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="is a directory"):
        read_trace(tmp_path)


@pytest.mark.parametrize(("unit", "scale"), [("s", 1.0), ("ms", 1e3)])
def test_offsets_that_cannot_be_ns(tmp_path: Path, unit: str, scale: float) -> None:
    path = write(tmp_path, "\n".join(apex(2.0 * i * scale) for i in range(200)))
    with pytest.raises(InputError, match=f"read in ns gives 200 requests within .*--time-unit {unit}$"):
        read_trace(path)
    assert read_trace(path, time_unit=unit).arrive[-1] == pytest.approx(398)


def test_offsets_of_years(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"200 requests within .* d .*--time-unit ns"):
        read_trace(write(tmp_path, "\n".join(apex(2e9 * i) for i in range(200))), time_unit="s")


def test_offsets_of_the_wall_clock(tmp_path: Path) -> None:
    load = read_trace(write(tmp_path, "\n".join(apex(1_700_000_000_000_000_000 + 10**9 * i) for i in range(20))))
    assert load.arrive == pytest.approx(np.arange(20.0)) and "those of a clock" in load.notes[0]


def test_odd_rates_are_noted(tmp_path: Path) -> None:
    load = read_trace(write(tmp_path, "\n".join(apex(2_000_000 * i) for i in range(200))))
    assert "check the time unit" in load.notes[0]


def test_all_at_once_is_fine(tmp_path: Path) -> None:
    assert read_trace(write(tmp_path, "\n".join(apex(0) for _ in range(200)))).arrive.max() == 0


def test_unknown_names() -> None:
    path = EXAMPLES / "creation_05.jsonl"
    with pytest.raises(InputError, match="did you mean apex"):
        read_trace(path, "apx")
    with pytest.raises(InputError, match="unknown time unit"):
        read_trace(path, time_unit="weeks")
    with pytest.raises(InputError, match="names the prompt and the output"):
        read_trace(path, columns={"arrive": "StartTimeOffset"})


def test_ideal_hit_by_hand() -> None:
    # blocks of 4: 6 tokens (none known); 9 tokens, 1 block known; 6 tokens, both known, the last holds 2 tokens;
    # 4 tokens whose block follows an unseen one: a chain ends at the first miss
    prompt = np.array([6, 9, 6, 8])
    work = Workload("t", np.zeros(4), prompt, prompt, prefix=chains_of(((1, 2), (1, 3, 4), (1, 2), (9, 2))), block=4)
    assert ideal_hit(work) == pytest.approx((0 + 4 + 6 + 0) / 29)


def test_ideal_hit_of_the_mooncake_slice() -> None:
    assert ideal_hit(read_trace(EXAMPLES / "mooncake_conversation.jsonl")) == pytest.approx(0.2885, abs=1e-4)


def test_too_long_is_told_with_lines(tmp_path: Path) -> None:
    load = read_trace(write(tmp_path, "\n".join([apex(1e9, 90, 20), apex(2e9, 5, 5), apex(3e9, 200, 5)])))
    told = r"2 of 3 requests are longer than 100 tokens \(longest 205\), first on lines 1, 3; --too-long drop\|clip"
    with pytest.raises(InputError, match=told):
        fit_lengths(load, 100)


def test_too_long_dropped_and_clipped(tmp_path: Path) -> None:
    load = read_trace(write(tmp_path, "\n".join([apex(1e9, 90, 20), apex(2e9, 5, 5), apex(3e9, 200, 5)])))
    drop, clip = fit_lengths(load, 100, "drop"), fit_lengths(load, 100, "clip")
    assert (drop.prompt.tolist(), drop.arrive.tolist(), drop.line.tolist()) == ([5], [2.0], [2])
    assert (clip.prompt.tolist(), clip.output.tolist()) == ([90, 5, 99], [10, 5, 1])
    assert "dropped" in drop.notes[-1] and "clipped" in clip.notes[-1] and clip.longest == 100
    with pytest.raises(InputError, match="no request is left"):
        fit_lengths(load, 9, "drop")


@pytest.mark.parametrize("policy", ["drop", "clip"])
def test_prefixes_follow_the_lengths(policy: str) -> None:
    load = fit_lengths(read_trace(EXAMPLES / "mooncake_conversation.jsonl"), 8192, policy)
    blocks = [len(h) for h in load.prefix]
    assert len(blocks) == load.size and np.all(np.array(blocks) <= -(-load.prompt // 512)) and 0 < ideal_hit(load) < 1


def test_fitting_requests_stay_as_they_are() -> None:
    load = read_trace(EXAMPLES / "lmsys_05.jsonl")
    assert fit_lengths(load, load.longest) is load
