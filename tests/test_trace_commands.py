"""`apexsim trace`: streamed reading, statistics, formats back and forth, made, filtered and scaled traces."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexsim.cli import main
from apexsim.errors import InputError
from apexsim.workload import stream
from apexsim.workload.columns import ideal_hit
from apexsim.workload.convert import ANY, WRITERS, KeptLengths, filtered, scaled, written
from apexsim.workload.describe import describe
from apexsim.workload.formats import FORMATS
from apexsim.workload.made import made
from apexsim.workload.stream import read_trace
from apexsim.workload.synth import SHAPES, Spread, spread_lengths
from apexsim.workload.trace import Workload

EXAMPLES = Path(__file__).parents[1] / "examples"
CREATION, MOONCAKE = EXAMPLES / "creation_05.jsonl", EXAMPLES / "mooncake_conversation.jsonl"
AZURE = EXAMPLES / "azure_conversation.csv"
Capture = pytest.CaptureFixture[str]
GOOD = '{"StartTimeOffset": %d, "ContextTokens": 10, "GeneratedTokens": 5}\n'


def file_of(folder: Path, text: str | bytes, name: str = "t") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def numbered(work: Workload) -> list[list[int]]:
    """Its chains, with ids as they come."""
    found: dict[int, int] = {}
    return [[found.setdefault(one, len(found)) for one in chain] for chain in work.prefix]


def same(a: Workload, b: Workload, within: float = 0.0) -> bool:
    """Whether two traces hold the same requests, times within so many seconds."""
    exact = all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("prompt", "output")) and numbered(a) == numbered(b)
    return exact and a.size == b.size and bool(np.all(np.abs(a.arrive - b.arrive) <= within))


def stamped(count: int, **more: object) -> Workload:
    """A made trace of some length."""
    return made(count, Spread(300, 50, 1.0, 0.5), 2.0, **more)  # type: ignore[arg-type]


# ---- streamed reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [997, 1 << 22])
@pytest.mark.parametrize("path", [CREATION, MOONCAKE, AZURE], ids=lambda p: p.name)
def test_blocks_of_any_size_read_what_the_whole_file_reads(path: Path, block: int, monkeypatch) -> None:
    monkeypatch.setattr(stream, "BLOCK", 1 << 30)
    whole = read_trace(path)
    monkeypatch.setattr(stream, "BLOCK", block)
    assert same(read_trace(path), whole) and whole.size > 100


@pytest.mark.parametrize("quoted", ['"a\nb"', '"x, y"', '"say ""hi"""'])
def test_quoted_cells_are_never_cut(tmp_path: Path, quoted: str, monkeypatch) -> None:
    text = "Timestamp,Model,Request tokens,Response tokens\n" + "".join(f"{i},{quoted},{7 + i},3\n" for i in range(40))
    monkeypatch.setattr(stream, "BLOCK", 64)
    found = read_trace(file_of(tmp_path, text))
    assert found.prompt.tolist() == [*range(7, 47)] and found.arrive.tolist() == [*range(40)]


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_gzip_byte_order_mark_and_line_ends(tmp_path: Path, end: str) -> None:
    text = "\ufeffarrived_at,num_prefill_tokens,num_decode_tokens\r\n1.5,7,3\r\n3,9,4" + end
    found = read_trace(file_of(tmp_path, gzip.compress(text.encode()), "t.csv.gz"))
    assert (found.arrive.tolist(), found.prompt.tolist(), found.fmt) == ([1.5, 3.0], [7, 9], "vidur")


BROKEN = "".join(GOOD % (i * 10**9) for i in range(3)) + "{oops\n" + GOOD % 5e9 + GOOD.replace("10", "0") % 6e9 + "[1]\n"


def test_lines_that_cannot_be_used_are_passed_over_and_named(tmp_path: Path) -> None:
    found = read_trace(file_of(tmp_path, BROKEN + GOOD % 9e9), skip=3)
    assert (found.size, found.skipped, found.arrive[-1]) == (5, 3, 9.0)
    assert [fault.split(":")[1] for fault in found.faults] == ["4", "6", "7"]


@pytest.mark.parametrize(("skip", "told"), [(0, "t:4: not JSON.*--skip-bad N"), (2, "t:7: more than 2 lines cannot be used")])
def test_more_broken_lines_than_allowed_name_the_next_one(tmp_path: Path, skip: int, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_trace(file_of(tmp_path, BROKEN), skip=skip)


def test_failed_requests_of_burstgpt_are_passed_over(tmp_path: Path) -> None:
    rows = "".join(f"{i},ChatGPT,7,{0 if i % 3 == 0 else 5},12,API log\n" for i in range(300))
    path = file_of(tmp_path, "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + rows)
    found = read_trace(path, skip=1000)
    assert (found.size, found.skipped, found.fmt) == (200, 100, "burstgpt")


def test_a_line_is_counted_once_whatever_else_its_block_holds(tmp_path: Path) -> None:
    rows = "1,7,3\n2,7,0\n3,-1,3\n4,7,3\n5,0,3\n6,x,3\n7,7\n8,7,3\n"
    found = read_trace(file_of(tmp_path, "arrived_at,num_prefill_tokens,num_decode_tokens\n" + rows), skip=5)
    assert (found.arrive.tolist(), found.skipped) == ([1.0, 4.0, 8.0], 5)
    assert sorted(fault.split(":")[1] for fault in found.faults) == ["3", "4", "6", "7", "8"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(16, 200))
def test_exactly_the_good_lines_are_read(tmp_path_factory, good: list[bool], block: int) -> None:
    path = file_of(tmp_path_factory.mktemp("g"), "".join(GOOD % (i * 10**9) if g else "{]\n" for i, g in enumerate(good)))
    usual, stream.BLOCK = stream.BLOCK, block
    try:
        arrive = read_trace(path, skip=len(good)).arrive.tolist() if any(good) else []
    finally:
        stream.BLOCK = usual
    assert arrive == pytest.approx([float(i) for i, g in enumerate(good) if g])


# ---- nested formats ------------------------------------------------------------------------------------------------


def weka(marker: float, inner: float) -> str:
    sub = {"type": "subagent", "t": marker, "requests": [{"t": inner, "in": 64, "out": 2, "hash_ids": [1]}]}
    return json.dumps({"id": "a", "requests": [{"t": 0.0, "in": 100, "out": 5, "hash_ids": [1, 2]}, sub]})


@pytest.mark.parametrize(("inner", "at"), [(3.0, 13.0), (13.0, 13.0)])
def test_times_of_sub_agents_are_relative_or_absolute(tmp_path: Path, inner: float, at: float) -> None:
    assert read_trace(file_of(tmp_path, weka(10.0, inner))).arrive.tolist() == [0.0, at]


def test_hashes_of_two_conversations_do_not_mix(tmp_path: Path) -> None:
    found = read_trace(file_of(tmp_path, weka(10.0, 3.0) + "\n" + weka(10.0, 3.0)))
    assert len(set(found.prefix.ids.tolist())) == 4 and describe(found).ideal_hit == pytest.approx(128 / 328)


def test_a_session_of_tools_grows_by_what_was_said(tmp_path: Path) -> None:
    record = {"num_turns": 2, "input_prompt_length": 100, "assistant_response_length": [10, 20],
              "tool_call_output_length": [5, 6], "tool_call_latency": [1.0, 2.0], "final_assistant_response_length": 30}  # fmt: skip
    found = read_trace(file_of(tmp_path, json.dumps(record)))
    assert (found.prompt.tolist(), found.output.tolist()) == ([100, 115, 141], [10, 20, 30])
    assert found.arrive.tolist() == [0.0, 1.0, 3.0] and "earliest" in found.notes[0]


def test_sub_requests_follow_each_other(tmp_path: Path) -> None:
    parts = [{"input_toks": 5, "output_toks": 2, "tool_duration_ns": 10**9}, {"input_toks": 9, "output_toks": 3}]
    found = read_trace(file_of(tmp_path, json.dumps({"session_id": 1, "arrival_time_ns": 10**9, "sub_requests": parts})))
    assert (found.arrive.tolist(), found.prompt.tolist()) == ([1.0, 2.0], [5, 9])


def test_text_is_no_tokens_unless_asked(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "x" * 400}, {"from": "gpt", "value": "y" * 41}]
    path = file_of(tmp_path, json.dumps([{"id": "a", "conversations": talk}, {"id": "b", "conversations": talk[:1]}]))
    with pytest.raises(InputError, match="--chars-per-token"):
        read_trace(path)
    with pytest.raises(InputError, match="tokenizer"):
        read_trace(path)
    found = read_trace(path, chars_per_token=4)
    assert (found.prompt.tolist(), found.output.tolist(), found.timed) == ([100], [10], False)
    assert "estimates" in " ".join(found.notes)
    with pytest.raises(InputError, match="nothing is estimated"):  # where lengths are given
        read_trace(file_of(tmp_path, "arrival_s,isl,osl\n0,20,2\n1,20,2\n"), chars_per_token=4)


def test_a_nested_record_that_lacks_a_key_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="t:2: 'requests' cannot be laid out"):
        read_trace(file_of(tmp_path, weka(1.0, 0.5) + '\n{"id": "b", "requests": [{"t": 1}]}\n'))


# ---- statistics ----------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_numpy() -> None:
    load = read_trace(AZURE)
    found = describe(load)
    gaps = np.diff(load.arrive)
    assert found.prompt.cv == pytest.approx(load.prompt.std() / load.prompt.mean(), rel=1e-12)
    assert found.correlation == pytest.approx(np.corrcoef(np.log(load.prompt), np.log(load.output))[0, 1], rel=1e-9)
    assert found.arrivals is not None
    assert found.arrivals.burstiness == pytest.approx((gaps.mean() / gaps.std()) ** 2, rel=1e-12)
    assert sum(found.arrivals.over_time) * found.arrivals.part == pytest.approx(load.size)
    assert sum(found.output.octaves) == load.size and found.arrivals.windows[0].peak == 12


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0])
def test_burstiness_of_a_gamma_stream_is_found_again(shape: float) -> None:
    found = describe(made(40_000, Spread(10, 10), 3.0, shape)).arrivals
    assert found is not None and found.burstiness == pytest.approx(shape, rel=0.06)
    assert found.rate == pytest.approx(3.0, rel=1e-3)  # the generator's last request is at n / rate, its first one gap after 0


def test_a_poisson_stream_has_dispersion_one_at_every_width() -> None:
    found = describe(made(40_000, Spread(10, 10), 3.0)).arrivals
    assert found is not None
    for w in found.windows:
        windows = 40_000 / 3.0 / w.width
        assert w.dispersion == pytest.approx(1.0, abs=4 * (2 / windows) ** 0.5)


def test_prefix_reuse_is_that_of_the_reader() -> None:
    assert describe(read_trace(MOONCAKE)).ideal_hit == ideal_hit(read_trace(MOONCAKE))


@pytest.mark.parametrize("count", [1, 2])
def test_the_smallest_traces_are_described(count: int, tmp_path: Path, capsys: Capture) -> None:
    path = file_of(tmp_path, "".join(GOOD % 1e9 for _ in range(count)))
    assert main(["trace", "describe", str(path)]) == 0 and "requests" in capsys.readouterr().out


# ---- written and read again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", WRITERS)
@pytest.mark.parametrize("source", [CREATION, MOONCAKE, AZURE], ids=lambda p: p.name)
def test_a_written_trace_is_read_again(fmt: str, source: Path, tmp_path: Path) -> None:
    """All of it, up to the resolution of the format and the moment its clock starts at."""
    load = read_trace(source)
    parts, losses = written(load, fmt)
    again = read_trace(file_of(tmp_path, "".join(parts)))
    writer = WRITERS[fmt]
    start = float(np.rint(load.arrive[0] / writer.step) * writer.step) if writer.zero else 0.0
    kept = load if load.block and writer.block in (load.block, ANY) else load.without_prefixes()
    assert again.fmt == fmt and same(replace(kept, arrive=kept.arrive - start), again, max(0.51 * writer.step, 1e-9))
    assert any("left out" in loss for loss in losses) == (load.block not in (0, writer.block) and writer.block != ANY)
    assert any("earlier" in loss for loss in losses) == (start > 0)


def test_every_written_format_is_one_that_is_read() -> None:
    assert set(WRITERS) <= {row.name for row in FORMATS}


def test_the_page_names_every_format_and_says_which_are_written() -> None:
    page = (EXAMPLES.parent / "docs/traces.md").read_text(encoding="utf-8").split("## Formats")[1].split("\n## ")[0]
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    marks = {name.strip(): row[5].strip() for row in rows for name in row[1].split(",")}
    assert {row.name: marks[row.name] == "✓" for row in FORMATS} == {row.name: row.name in WRITERS for row in FORMATS}


def test_rows_are_written_in_parts_without_a_seam(monkeypatch) -> None:
    whole = "".join(written(read_trace(MOONCAKE), "mooncake")[0])
    monkeypatch.setattr("apexsim.workload.convert.ROWS", 7)
    assert "".join(written(read_trace(MOONCAKE), "mooncake")[0]) == whole


def test_choosing_requests_keeps_their_prefixes() -> None:
    load = read_trace(MOONCAKE)
    chains = list(load.prefix)
    at = np.array([5, 0, 1700])
    assert list(load.only(at).prefix) == [chains[i] for i in at]


# ---- filtered and scaled -------------------------------------------------------------------------------------------


def test_limits_hold_and_nothing_else_goes() -> None:
    load = stamped(2000)
    kept = filtered(load, KeptLengths(min_prompt=50, max_prompt=500, min_output=20, max_output=80, max_context=520))
    fits = (load.prompt >= 50) & (load.prompt <= 500) & (load.output >= 20) & (load.output <= 80) & (load.prompt + load.output <= 520)
    assert 0 < kept.size < load.size and kept.size == int(fits.sum()) and np.array_equal(kept.arrive, load.arrive[fits])


def test_a_window_of_time_starts_at_zero() -> None:
    load = stamped(2000)
    kept = filtered(load, KeptLengths(since=100.0, until=200.0, head=150))
    assert kept.arrive[0] == load.arrive[load.arrive >= 100][0] - 100 and kept.arrive[-1] < 100 and kept.size == 150


def test_a_random_share_is_seeded() -> None:
    load = stamped(4000)
    once, again, other = (filtered(load, KeptLengths(share=0.25), seed) for seed in (1, 1, 2))
    assert same(once, again) and not np.array_equal(once.prompt, other.prompt) and once.size == pytest.approx(1000, abs=110)


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(InputError, match="no request of 100 is left"):
        filtered(stamped(100), KeptLengths(min_prompt=10**6))


def test_scaled_rate_and_lengths() -> None:
    load = stamped(500)
    fast = scaled(load, rate=5.0, prompt=2.0, output=0.001)
    assert describe(fast).arrivals.rate == pytest.approx(5.0) and np.array_equal(fast.prompt, 2 * load.prompt)  # type: ignore[union-attr]
    assert set(fast.output.tolist()) == {1} and np.allclose(np.diff(scaled(load, rate=2.5).arrive), 2 * np.diff(fast.arrive))


def test_prefixes_go_when_prompts_change() -> None:
    changed = scaled(read_trace(MOONCAKE), prompt=0.5)
    assert changed.block == 0 and "prefix blocks are left out" in changed.notes[-1]


# ---- made ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_lengths_have_the_mean_and_spread_asked_for(shape: str) -> None:
    drawn = spread_lengths(500, 0.5, 200_000, np.random.default_rng(0), shape)
    assert drawn.mean() == pytest.approx(500, rel=0.01) and drawn.std() / drawn.mean() == pytest.approx(0.5, rel=0.02)


def test_a_trace_like_another_keeps_pairs_rate_and_burstiness() -> None:
    like = read_trace(AZURE)
    found, twin = describe(like), describe(made(20_000, like=like))
    assert twin.prompt.stats.mean == pytest.approx(found.prompt.stats.mean, rel=0.03)
    assert twin.correlation == pytest.approx(found.correlation, abs=0.03)
    assert twin.arrivals.rate == pytest.approx(found.arrivals.rate, rel=1e-3)  # type: ignore[union-attr]
    assert twin.arrivals.burstiness == pytest.approx(found.arrivals.burstiness, rel=0.08)  # type: ignore[union-attr]


def test_the_same_seed_gives_the_same_lengths_at_every_rate() -> None:
    slow, fast = stamped(100, seed=3), made(100, Spread(300, 50, 1.0, 0.5), 9.0, None, 3)
    assert np.array_equal(slow.prompt, fast.prompt) and np.allclose(slow.arrive * 2, fast.arrive * 9)


# ---- commands ------------------------------------------------------------------------------------------------------


def run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main(["trace", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_describe_prints_a_page_and_json(capsys: Capture) -> None:
    code, out, err = run(capsys, "describe", str(MOONCAKE))
    assert code == 0 and err == "" and all(word in out for word in ("burstiness", "prefix reuse", "over time"))
    data = json.loads(run(capsys, "describe", str(MOONCAKE), "--json")[1])
    assert (data["requests"], data["trace_format"], data["prompt_tokens"]["total"]) == (1756, "mooncake", 24587692)


def test_commands_chain_and_report_beside(tmp_path: Path, capsys: Capture) -> None:
    made_file, small = str(tmp_path / "a.csv"), str(tmp_path / "b.jsonl")
    words = ["--prompt-len", "100", "--output-len", "20", "--request-rate", "2", "--num-requests", "50"]
    assert run(capsys, "synth", *words, "--to", "vidur", "-o", made_file) == (0, "", "")
    code, out, err = run(capsys, "filter", made_file, "--head", "10", "-o", small)
    assert (code, out) == (0, "") and "10 of 50 requests kept" in err and read_trace(small).size == 10
    assert run(capsys, "scale", small, "--rate-factor", "2", "-o", small)[0] == 2  # what is read is never replaced
    scaled = str(tmp_path / "c.jsonl")
    assert run(capsys, "scale", small, "--rate-factor", "2", "-o", scaled)[0] == 0 and read_trace(scaled).size == 10


REFUSED = [
    (["describe", "none.csv"], "does not exist"),
    (["describe", str(AZURE), "--format", "apx"], "did you mean apex"),
    (["describe", str(AZURE), "--map", "when=a"], "cannot read the column map"),
    (["describe", str(AZURE), "--skip-bad", "-1"], "whole number of at least 0"),
    (["describe", str(AZURE), "--plot", "no/such/folder.png"], "does not exist"),
    (["convert", str(AZURE), "--to", "mooncak"], "did you mean mooncake"),
    (["convert", "none.csv", "-o", "no/such/folder.csv"], "does not exist"),
    (["synth"], "no lengths"),
    (["synth", "--like", str(AZURE), "--prompt-len", "5"], "drop one of both"),
    (["synth", "--prompt-len", "5", "--output-len", "5", "--prompt-cv", "1", "--lengths", "normal"], "unknown distribution"),
    (["synth", "--prompt-len", "5", "--output-len", "5", "--prompt-cv", "2", "--lengths", "uniform"], "use lognormal"),
    (["filter", str(AZURE), "--since", "soon"], "cannot read 'soon' as a time"),
    (["filter", str(AZURE), "--share", "0"], "above 0"),
    (["scale", str(AZURE), "--rate-factor", "2", "--request-rate", "2"], "not both"),
    (["unknown"], "known: convert, describe, filter, scale, synth, tokenize"),
]


@pytest.mark.parametrize(("words", "told"), REFUSED, ids=lambda v: " ".join(v[:2]) if isinstance(v, list) else None)
def test_bad_input_is_one_line(words: list[str], told: str, capsys: Capture, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words)
    assert (code, out, err.count("\n")) == (2, "", 1) and told in err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_drawn_where_there_is_something_to_draw_with(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("matplotlib")
    assert run(capsys, "describe", str(AZURE), "--plot", str(tmp_path / "p.png"))[0] == 0
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def test_a_picture_of_unknown_kind_is_refused(capsys: Capture) -> None:
    pytest.importorskip("matplotlib")
    code, out, err = run(capsys, "describe", str(AZURE), "--plot", "picture.xyz")
    assert (code, out) == (2, "") and "cannot write the picture" in err


def test_without_matplotlib_the_extra_is_named(monkeypatch, capsys: Capture) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    code, out, err = run(capsys, "describe", str(AZURE), "--plot", "p.png")
    assert (code, out) == (2, "") and "apexsim[plot]" in err
