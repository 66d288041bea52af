"""Sessions and graphs of agents: who waits for whom, what they share, and every file that contradicts itself is told in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apexsim.cli.main import main
from apexsim.errors import InputError
from apexsim.workload.asked import Asked
from apexsim.workload.convert import written
from apexsim.workload.lru import Lru, hits, reachable
from apexsim.workload.prefixes import prefixes_of
from apexsim.workload.stream import read_trace
from apexsim.workload.trace import Workload, chains_of

Rows = list[dict[str, Any]]
SESSIONS: Rows = [  # blocks of 512 tokens, times in ms
    {"session_id": "a", "timestamp": 0, "input_length": 1000, "output_length": 24, "hash_ids": [1, 2]},
    {"session_id": "b", "timestamp": 500, "input_length": 600, "output_length": 10, "hash_ids": [1, 9]},
    {"session_id": "a", "delay": 2000, "input_length": 1500, "output_length": 8, "hash_ids": [1, 2, 3]},
    {"session_id": "b", "timestamp": 4500, "input_length": 1024, "output_length": 8, "hash_ids": [1, 9]},
]
WAITING: Rows = [
    {"request_id": "x", "wait_for": [], "timestamp": 0, "input_length": 10, "output_length": 5, "hash_ids": [1]},
    {"request_id": "y", "wait_for": ["x"], "delay": 100, "input_length": 20, "output_length": 5, "hash_ids": [2]},
    {"request_id": "z", "wait_for": ["x", "y"], "delay": 50, "input_length": 30, "output_length": 5, "hash_ids": [3]},
]
DYNAMO: Rows = [
    {"schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 16, "hash_id_scope": "local", "source": {}},
    {"request_id": "x", "play_id": "p", "input_length": 32, "output_length": 16, "hash_ids": [1, 2], "not_before_ms": 0},
    {"request_id": "y", "play_id": "p", "input_length": 64, "output_length": 4, "hash_ids": [1, 2, 3, 4], "not_before_ms": 900,
     "dependencies": [{"request_id": "x", "trigger": "completion", "delay_ms": 300, "relation": "sequence"}]},
    {"request_id": "w", "play_id": "p", "input_length": 16, "output_length": 4, "hash_ids": [7], "not_before_ms": 950,
     "dependencies": [{"request_id": "y", "trigger": "dispatch", "delay_ms": 50, "relation": "spawn"}]},
]  # fmt: skip
WEKA: Rows = [
    {"id": "one", "block_size": 64, "requests": [
        {"t": 0.0, "in": 128, "out": 10, "hash_ids": [1, 2], "api_time": 2.0},
        {"t": 2.5, "type": "subagent", "requests": [
            {"t": 3.0, "in": 64, "out": 5, "hash_ids": [8], "api_time": 4.0},
            {"t": 7.5, "in": 100, "out": 5, "hash_ids": [8, 9], "api_time": 1.0}]},
        {"t": 9.0, "in": 256, "out": 9, "hash_ids": [1, 2, 3, 4], "api_time": 1.0}]},
    {"id": "two", "block_size": 64, "requests": [{"t": 0.0, "in": 64, "out": 3, "hash_ids": [1], "api_time": 1.0}]},
]  # fmt: skip


def lab(index: int, asked: str, said: str, whole: int, had: int) -> dict[str, Any]:
    """A round of TraceLab, in minute 40."""
    events = [{"event_type": "user_message", "timestamp": f"2026-06-01T05:40:{asked}Z"},
              {"event_type": "text", "timestamp": f"2026-06-01T05:40:{said}Z"}]  # fmt: skip
    return {"session_id": "c:1", "round_index": index, "input_tokens_total": whole, "prefix_tokens": had,
            "newly_append_tokens": whole - had, "output_tokens": 64, "timing_events": events}  # fmt: skip


TRACELAB: Rows = [lab(0, "10.0", "13.0", 640, 0), lab(1, "14.5", "20.0", 1280, 640), lab(2, "19.0", "22.0", 1400, 704)]
GOOD = {"sessions": SESSIONS, "waiting": WAITING, "dynamo": DYNAMO, "weka": WEKA, "tracelab": TRACELAB}


def read(folder: Path, rows: Rows | str) -> Workload:
    """What a file of such lines holds."""
    path = folder / "t.jsonl"
    path.write_text(rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows)))
    return read_trace(path)


# ---- who waits for whom ------------------------------------------------------------------------------------------------


def test_turns_wait_for_the_answer_and_their_delay(tmp_path: Path) -> None:
    work = read(tmp_path, SESSIONS)
    assert work.after.tolist() == [-1, -1, 0, 1] and work.delay.tolist() == [0.0, 0.0, 2.0, 4.0]
    assert work.line.tolist() == [1, 2, 3, 4] and work.arrive.tolist() == [0.0, 0.5, 2.0, 4.5]


def test_who_waits_for_several_waits_for_all_of_them(tmp_path: Path) -> None:
    work = read(tmp_path, WAITING)
    assert work.after.tolist() == [-1, 0, 0] and work.delay.tolist() == [0.0, 0.1, 0.05]
    assert work.join.tolist() == [[2, 1]] and work.join_delay.tolist() == [0.05]
    again = read(tmp_path, "".join(written(work, "dynamo")[0]))
    assert again.join.tolist() == [[2, 1]] and again.join_delay.tolist() == [0.05]
    assert not len(work.only(np.array([0, 2])).join)


def test_who_waits_for_a_sending_waits_for_what_caused_that(tmp_path: Path) -> None:
    work = read(tmp_path, DYNAMO)
    assert work.after.tolist() == [-1, 0, 0] and work.delay.tolist() == pytest.approx([0.0, 0.3, 0.35])


def test_calls_of_agents_wait_for_the_last_that_had_been_answered(tmp_path: Path) -> None:
    work = read(tmp_path, WEKA)
    by_prompt = {int(prompt): i for i, prompt in enumerate(work.prompt.tolist()) if work.line[i] == 1}
    first, child, second, joined = (by_prompt[n] for n in (128, 64, 100, 256))
    assert work.size == 5 and (work.after == -1).sum() == 2
    assert (
        work.after[child] == first
        and work.after[second] == child
        and work.after[joined] == second
        and work.delay[child] == pytest.approx(1.0)
    )
    assert work.delay[joined] == pytest.approx(0.5)  # the sub-agent's last answer came at 8.5 s


def test_without_times_of_answers_calls_come_as_recorded(tmp_path: Path) -> None:
    rows = deepcopy(WEKA)
    del rows[0]["requests"][0]["api_time"]
    work = read(tmp_path, rows[:1])
    assert not len(work.after) and work.arrive.tolist() == [0.0, 3.0, 7.5, 9.0]


def test_rounds_follow_answers_and_share_what_was_recorded(tmp_path: Path) -> None:
    work = read(tmp_path, TRACELAB)
    assert work.after.tolist() == [-1, 0, 1] and work.delay.tolist() == pytest.approx([0.0, 1.5, 0.0])
    first, second, third = work.prefix
    assert work.block == 64 and first[:10] == second[:10] and first[10] != second[10] and second[:11] == third[:11]


def test_answers_are_found_by_who_repeats_them(tmp_path: Path) -> None:
    known = prefixes_of(read(tmp_path, DYNAMO))
    assert known is not None and known.reach.tolist() == [48, 48, 0]


def test_texts_are_ids_too(tmp_path: Path) -> None:
    named = [row | {"hash_ids": [f"h{h}" for h in row["hash_ids"]]} for row in SESSIONS]
    both = [prefixes_of(read(tmp_path, rows)) for rows in (SESSIONS, named)]
    assert both[0] is not None and both[1] is not None and (both[0].reach == both[1].reach).all()


# ---- made, written, read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [{"shared_prefix": "200x3"}, {"turns": 3, "turn_gap": 2.5}, {"turns": 2, "shared_prefix": "64x2:even"}, {"length_spread": 0.5}],
    ids=str,
)
def test_what_is_made_up_is_read_as_it_was_written(tmp_path: Path, more: dict[str, Any]) -> None:
    made = Asked(prompt_len=100, output_len=20, num_requests=40, request_rate=4.0, **more).requests()
    again = read(tmp_path, "".join(written(made, "dynamo")[0]))
    assert (again.prompt == made.prompt).all() and (again.output == made.output).all()
    assert again.arrive == pytest.approx(made.arrive, rel=1e-12)
    assert again.after.tolist() == (made.after.tolist() or [-1] * 40 if more.get("turns") else [])
    one, two = prefixes_of(made), prefixes_of(again)
    assert (one is None) == (two is None)
    if one is not None and two is not None:
        assert (one.reach == two.reach).all() and one.unit == two.unit
        assert shared_by(one) == shared_by(two)


def shared_by(known: Any) -> list[list[int]]:
    """The ids of each request as far as others have them, numbered as they come."""
    number: dict[int, int] = {}
    ends = known.chain_at + -(-known.reach // known.unit)
    return [[number.setdefault(h, len(number)) for h in known.chain[a:b].tolist()] for a, b in zip(known.chain_at, ends)]


def test_a_format_without_sessions_says_that_they_are_lost() -> None:
    made = Asked(prompt_len=100, output_len=20, num_requests=4, request_rate=4.0, turns=2).requests()
    assert any("who waits for whom" in loss for loss in written(made, "mooncake")[1])


def test_an_even_prefix_stands_before_as_many() -> None:
    made = Asked(prompt_len=10, output_len=2, num_requests=40, shared_prefix="32x10:even").requests()
    assert sorted(np.bincount([chain[0] // 2 for chain in made.prefix]).tolist()) == [4] * 10


@pytest.mark.parametrize("seed", range(8))
def test_stack_distances_hold_what_a_cache_of_each_size_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chains = [tuple(rng.integers(0, 12, rng.integers(1, 6)).tolist()) for _ in range(60)]
    chains = [tuple(dict.fromkeys(chain)) for chain in chains]
    chains = [tuple(hash(chain[: k + 1]) % 10**9 for k in range(len(chain))) for chain in chains]
    prompt = np.array([10_000 * len(chain) - int(rng.integers(0, 9_999)) for chain in chains])
    work = Workload("w", np.zeros(60), prompt, np.ones(60, np.int64), "offline", prefix=chains_of(chains), block=10_000)
    found = reachable(work)
    assert found
    for reach in found:
        assert reach.hit == pytest.approx(hits(work, reach.tokens // 10_000).sum() / prompt.sum())
    assert Lru(1).match(chains[0]) == 0


# ---- hostile files ---------------------------------------------------------------------------------------------------------


def put(at: int, **keys: Any) -> Callable[[Rows], None]:
    """Row `at` with other values."""
    return lambda rows: rows[at].update(keys)


def drop(at: int, key: str) -> Callable[[Rows], None]:
    """Row `at` without a key."""
    return lambda rows: rows[at].pop(key) and None


def call(path: tuple[Any, ...], value: Any) -> Callable[[Rows], None]:
    """Another value deep inside."""

    def change(rows: Rows) -> None:
        inner: Any = rows
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return change


NAN, INF = float("nan"), float("inf")
HOSTILE: list[tuple[str, Callable[[Rows], None], str]] = [
    ("sessions", put(2, delay=-5), r"t.jsonl:3: .*'delay' is negative: -5"),
    ("sessions", put(2, delay="soon"), r"t.jsonl:3: .*'delay' is no number: 'soon'"),
    ("sessions", put(2, delay=NAN), r"t.jsonl:3: .*'delay' is no number"),
    ("sessions", put(2, delay=INF), r"t.jsonl:3: .*'delay' is no number"),
    ("sessions", put(2, delay=True), r"t.jsonl:3: .*'delay' is no number"),
    ("sessions", put(0, delay=7), r"t.jsonl:1: the first turn of session 'a' has a delay"),
    ("sessions", put(3, timestamp=100), r"t.jsonl:4: a turn of session 'b' comes 0.4 s before"),
    ("sessions", put(3, timestamp=-100), r"t.jsonl:4: arrival 'timestamp' is negative"),
    ("sessions", put(3, timestamp="noon"), r"t.jsonl:4: arrival 'timestamp' is not a number: 'noon'"),
    ("sessions", put(3, timestamp=INF), r"t.jsonl:4: arrival 'timestamp' is not a number"),
    ("sessions", drop(2, "delay"), r"t.jsonl:3: a turn of session 'a' has neither a time nor a delay"),
    ("sessions", put(0, hash_ids=[1]), None),  # type: ignore[list-item]
    ("sessions", put(2, hash_ids=[1]), r"t.jsonl:3: 1 prefix blocks of 512 tokens for a prompt of 1500"),
    ("sessions", put(2, hash_ids=[1, 2, 3, 4]), r"t.jsonl:3: 4 prefix blocks of 512 tokens for a prompt of 1500"),
    ("sessions", put(2, hash_ids=[1, 2.5, 3]), r"t.jsonl:3: 'hash_ids' must be a list of whole numbers or texts"),
    ("sessions", put(2, hash_ids=[1, None, 3]), r"t.jsonl:3: 'hash_ids' must be a list"),
    ("sessions", put(2, hash_ids=[1, True, 3]), r"t.jsonl:3: 'hash_ids' must be a list"),
    ("sessions", put(2, hash_ids=[1, [2], 3]), r"t.jsonl:3: 'hash_ids' must be a list"),
    ("sessions", put(2, hash_ids=[1, 2**70, 3]), r"more than 64 bits"),
    ("sessions", put(2, hash_ids="123"), r"t.jsonl:3: 'hash_ids' must be a list"),
    ("sessions", put(2, input_length=0), r"t.jsonl:3: prompt length 'input_length' is 0"),
    ("sessions", drop(2, "output_length"), r"t.jsonl:3: .*'output_length' is missing"),
    ("waiting", put(1, wait_for=["q"]), r"t.jsonl:2: request 'y' waits for 'q', which no record has"),
    ("waiting", put(1, wait_for=["y"]), r"t.jsonl:2: request 'y' waits, by those it names, for itself"),
    ("waiting", put(0, wait_for=["z"]), r"t.jsonl:1: request 'x' waits, by those it names, for itself"),
    ("waiting", put(1, wait_for="x"), r"t.jsonl:2: .*'wait_for' is no list of ids: 'x'"),
    ("waiting", put(2, request_id="x"), r"t.jsonl:3: two records have the id 'x'"),
    ("waiting", put(1, timestamp=5) , None),  # type: ignore[list-item]
    ("dynamo", call((2, "dependencies", 0, "request_id"), "zz"), r"t.jsonl:3: request 'y' waits for 'zz', which no record has"),
    ("dynamo", call((2, "dependencies", 0, "request_id"), "w"), r"t.jsonl:3: request 'y' waits, by those it names, for itself"),
    ("dynamo", call((2, "dependencies", 0, "delay_ms"), -1), r"t.jsonl:3: .*'delay_ms' is negative: -1"),
    ("dynamo", call((2, "dependencies", 0, "delay_ms"), None), r"t.jsonl:3: .*'delay_ms' is no number: None"),
    ("dynamo", call((2, "dependencies", 0), {"request_id": "x"}), r"t.jsonl:3: .*key 'delay_ms' is missing"),
    ("dynamo", call((2, "dependencies"), ["x"]), r"t.jsonl:3: "),
    ("dynamo", put(1, not_before_ms=2000), r"t.jsonl:3: request 'y' comes 1.1 s before request 'x', which it waits for"),
    ("dynamo", put(2, request_id="x"), r"t.jsonl:3: two records have the id 'x'"),
    ("dynamo", put(0, version=3), r"t.jsonl:1: .*version 3, dynamo.agentic_mooncake 2 is read"),
    ("dynamo", put(0, block_size=0.5), r"t.jsonl:1: 'block_size' is no number of tokens: 0.5"),
    ("dynamo", put(0, block_size=-16), r"t.jsonl:1: 'block_size' is no number of tokens: -16"),
    ("dynamo", put(0, block_size=32), r"t.jsonl:2: 2 prefix blocks of 32 tokens for a prompt of 32"),
    ("dynamo", lambda rows: rows.insert(3, rows[0] | {"block_size": 32}), r"t.jsonl:4: blocks of 32 tokens, and of 16 before"),
    ("dynamo", put(1, hash_ids=[1, 2, 3]), r"t.jsonl:2: 3 prefix blocks of 16 tokens for a prompt of 32"),
    ("dynamo", drop(2, "play_id"), r"t.jsonl:3: .*key 'play_id' is missing"),
    ("dynamo", put(2, not_before_ms=None), None),  # type: ignore[list-item]
    ("dynamo", lambda rows: rows.__delitem__(slice(1, None)), r"t.jsonl: the trace has no requests"),
    ("weka", put(1, block_size=32), r"t.jsonl:2: blocks of 32 tokens, and of 64 before"),
    ("weka", call((0, "requests", 0, "api_time"), -1.0), r"t.jsonl:1: .*'api_time' is negative: -1"),
    ("weka", call((0, "requests", 0, "api_time"), "x"), r"t.jsonl:1: .*'api_time' is no number: 'x'"),
    ("weka", call((0, "requests", 0, "t"), -3.0), r"t.jsonl:1: arrival 't' is negative"),
    ("weka", call((0, "requests", 0, "t"), NAN), r"t.jsonl:1: "),
    ("weka", call((0, "requests", 0, "hash_ids"), ["a", "b"]), r"t.jsonl:1: "),
    ("weka", call((0, "requests", 1, "requests", 0, "in"), 0), r"t.jsonl:1: prompt length 'in' is 0"),
    ("weka", call((0, "requests", 1, "requests"), 5), r"t.jsonl:1: "),
    ("tracelab", put(1, prefix_tokens=2000), r"t.jsonl:2: .*2000 prefix_tokens of 1280 input_tokens_total"),
    ("tracelab", put(1, prefix_tokens=-1), r"t.jsonl:2: .*-1 prefix_tokens of 1280"),
    ("tracelab", put(1, newly_append_tokens=5), r"t.jsonl:2: .*640 prefix_tokens and 5 newly_append_tokens are not 1280"),
    ("tracelab", put(1, timing_events=[]), r"t.jsonl:2: .*'timing_events' has no moment"),
    ("tracelab", call((1, "timing_events", 0, "timestamp"), "noon"), r"t.jsonl:2: .*noon"),
    ("tracelab", put(1, prefix_tokens="x"), r"t.jsonl:2: "),
    ("tracelab", drop(1, "session_id"), r"t.jsonl:2: .*key 'session_id' is missing"),
    ("tracelab", put(1, output_tokens=-1), r"t.jsonl:2: output length 'output_tokens' is negative"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "told"), HOSTILE, ids=[f"{at}-{row[0]}" for at, row in enumerate(HOSTILE)])
def test_a_file_that_contradicts_itself_is_one_line(tmp_path: Path, name: str, change: Callable[[Rows], None], told: str | None) -> None:
    rows = deepcopy(GOOD[name])
    assert read(tmp_path, rows).size
    change(rows)
    if told is None:  # strange, and no contradiction
        assert read(tmp_path, rows).size
        return
    with pytest.raises(InputError, match=told) as caught:
        read(tmp_path, rows)
    assert "\n" not in caught.value.line()


def test_the_command_line_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, [*WAITING, WAITING[0]])))
    assert main(["trace", "describe", str(path)]) == 2 and "two records have the id 'x'" in capsys.readouterr().err
