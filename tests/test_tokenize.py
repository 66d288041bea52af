"""`apexsim trace tokenize`: datasets of texts become traces of lengths."""

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from apexsim.cli import main
from apexsim.errors import InputError
from apexsim.workload import texts
from apexsim.workload.describe import describe
from apexsim.workload.stream import read_trace
from apexsim.workload.talks import Wish
from apexsim.workload.texts import read_texts
from apexsim.workload.tokenize import KeptBounds, Pace, tokenized
from apexsim.workload.tokens import Counter, by_chars, by_tokenizer, by_words
from apexsim.workload.trace import Workload

CHATS = Path(__file__).parents[1] / "examples/conversations.json"
WORDS, FIRST = by_words(1.0), Wish()
Capture = pytest.CaptureFixture[str]
TALK = [("human", "a b c"), ("gpt", "d e"), ("human", "f"), ("gpt", "g h i j")]


def file_of(folder: Path, data: object, name: str = "t.jsonl") -> Path:
    """Text as it is, a list as JSON lines."""
    text = data if isinstance(data, str) else "\n".join(map(json.dumps, data))  # type: ignore[call-overload]
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def lengths(path: Path, wish: Wish = FIRST, **bounds: int) -> list[tuple[int, int]]:
    """(prompt, output) of each request, one token per word."""
    found = tokenized(path, WORDS, wish, KeptBounds(**bounds), Pace())
    return list(zip(found.prompt.tolist(), found.output.tolist()))


def talk(turns: list[tuple[str, str]], a: str = "from", b: str = "value") -> list[dict[str, str]]:
    return [{a: role, b: text} for role, text in turns]


def chat(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    names = {"human": "user", "gpt": "assistant"}
    return talk([(names.get(role, role), text) for role, text in turns], "role", "content")


# ---- what a record asks --------------------------------------------------------------------------------------------

SHAPES = [
    ({"conversations": talk(TALK)}, (3, 2)),
    ({"conversations": talk([("system", "s s"), *TALK])}, (5, 2)),
    ({"conversations": talk([("gpt", "x y"), ("human", "z")])}, (2, 1)),  # as serving benchmarks take them
    ({"conversation": chat(TALK)}, (3, 2)),
    ({"messages": chat(TALK)}, (3, 2)),
    ({"messages": chat(TALK[:3]), "response": "k l m"}, (6, 3)),
    ({"messages": chat(TALK[:1]), "max_tokens": 64}, (3, 64)),
    ({"body": {"messages": chat(TALK), "max_completion_tokens": 9}}, (10, 9)),
    ({"body": {"prompt": [5, 6, 7, 8], "max_tokens": 2}}, (4, 2)),
    ({"prompt": "a b", "completion": "c"}, (2, 1)),
    ({"prompt": chat(TALK[:1]), "completion": chat(TALK[1:2])}, (3, 2)),
    ({"Instruction": "a b", "Input": "c d e", "Output": "f"}, (5, 1)),
    ({"instruction": "a b", "context": "c", "response": "f g"}, (3, 2)),
    ({"system": "s", "question": "a b", "response": "c"}, (3, 1)),
    ({"question": "how many", "answer": 72}, (2, 1)),
    ({"prompt": [{"role": "user", "content": [{"type": "text", "text": "a b"}, {"type": "image_url"}]}], "output": "c"}, (2, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("record", "expected"), SHAPES, ids=lambda v: ",".join(v) if isinstance(v, dict) else None)
def test_a_record_is_a_request(record: dict[str, object], expected: tuple[int, int], tmp_path: Path) -> None:
    assert lengths(file_of(tmp_path, [record])) == [expected]


@pytest.mark.parametrize("key", ["conversations", "messages", "conversation"])
def test_every_turn_follows_what_was_said_before(key: str, tmp_path: Path) -> None:
    assert lengths(file_of(tmp_path, [{key: chat(TALK)}]), Wish(every=True)) == [(3, 2), (6, 4)]


def test_outputs_of_one_length_need_no_answers(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"prompt": "a b"}, {"prompt": "c"}])
    assert lengths(path, Wish(length=50)) == [(2, 50), (1, 50)]
    assert lengths(file_of(tmp_path, [{"messages": chat(TALK)}]), Wish(every=True, length=50)) == [(3, 50), (6, 50)]


def test_named_columns_are_taken(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"prompt": "no", "Ask": "a b c", "Say": "d e"}])
    assert lengths(path, Wish("ask", "Say")) == [(3, 2)]


# ---- files ---------------------------------------------------------------------------------------------------------

ROWS = [{"prompt": 'a "b", c', "completion": "d\ne"}, {"prompt": "ü ö", "completion": "f"}]
CSV = 'prompt,completion\r\n"a ""b"", c","d\ne"\r\nü ö,f\r\n'
FILES = [
    ("t.json", json.dumps(ROWS)),
    ("t.json", json.dumps(ROWS, indent=2)),
    ("t.json", json.dumps({"version": 1, "data": ROWS}, indent=1)),
    ("t.json", json.dumps({"rows": [{"row_idx": i, "row": row} for i, row in enumerate(ROWS)]}, indent=1)),
    ("t", "\n\n".join(map(json.dumps, ROWS)) + "\n\n"),
    ("t.jsonl", "\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)),
    ("t.csv", CSV),
    ("t", CSV),
    ("t.tsv", 'prompt\tcompletion\na b, c\t"d\ne"\nü ö\tf'),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(("name", "text"), FILES, ids=[str(i) for i in range(len(FILES))])
def test_containers_are_found(name: str, text: str, mark: str, packed: bool, tmp_path: Path) -> None:
    path = file_of(tmp_path, mark + text, name)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert lengths(path) == [(3, 2), (2, 1)]


def test_a_text_is_a_prompt_a_line(tmp_path: Path) -> None:
    text = "[INST] tell me, why\n\nonce\r\n"
    assert lengths(file_of(tmp_path, text), Wish(length=9)) == [(4, 9), (1, 9)]
    with pytest.raises(InputError, match="--output-len"):
        lengths(file_of(tmp_path, text))


def test_windows_of_any_size_read_the_same_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    rows = [{"prompt": "p " * draw.randint(1, 90), "completion": '"é\\n] ,' * draw.randint(1, 9)} for _ in range(60)]
    path = file_of(tmp_path, json.dumps(rows, indent=1), "t.json")
    whole = list(read_texts(path, ()).records)
    for block in (1, 2, 7, 64, 1000):
        monkeypatch.setattr(texts, "BLOCK", block)
        assert list(read_texts(path, ()).records) == whole
    assert [record for _, record in whole] == rows and [line for line, _ in whole] == list(range(2, 242, 4))


def test_an_array_is_not_held_as_a_whole(tmp_path: Path) -> None:
    import tracemalloc

    row = json.dumps({"prompt": "word " * 200, "completion": "word " * 100})
    path = file_of(tmp_path, "[" + ",".join([row] * 12_000) + "]", "t.json")
    tracemalloc.start()
    count = sum(1 for _ in read_texts(path, ()).records)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 12_000 and path.stat().st_size > 18e6 and peak < 12e6


GOOD = '{"prompt": "a", "completion": "b"}'
BAD_FILES = [
    ("", "the dataset is empty"),
    (" \n", "the dataset is empty"),
    ("a\0b", "binary"),
    ("[]", "no request is left"),
    (GOOD + "\n{oops\n" + GOOD, "t:2: not JSON"),
    (GOOD + "\n[1]\n", "t:2: expected a JSON object, got list"),
    (GOOD + '\n{"prompt": "a"}', "t:2: no column is known to hold the output among: prompt; name it with --output-field"),
    (GOOD + '\n{"x": 1, "y": 2}', "t:2: no column is known to hold the prompt among: x, y"),
    (GOOD + '\n{"prompt": "", "completion": "b"}', "t:2: the prompt is empty"),
    (GOOD + '\n{"prompt": {"a": 1}, "completion": "b"}', "t:2: 'prompt' holds no text but dict"),
    (GOOD + '\n{"conversations": 5}', "t:2: a conversation is a list of turns, got int"),
    (GOOD + '\n{"conversations": ["a"]}', "t:2: a turn is an object"),
    (GOOD + '\n{"body": []}', "t:2: 'body' is no object but list"),
    (GOOD + '\n{"body": {"prompt": "a", "max_tokens": -1}}', "t:2: 'max_tokens' is no number of tokens: -1"),
    (f"[{GOOD},\n{GOOD}", "t:2: the array is not closed"),
    (f"[{GOOD}\n{GOOD}]", "t:2: not JSON: expected ',' or ']'"),
    (f"[{GOOD},\n" + GOOD[:-3], "t:2: not JSON: Unterminated string"),
    (f"[{GOOD},\n" + '{"prompt" 5}' + "x" * 5000, "t:2: not JSON: Expecting ':'"),
    (f"[{GOOD}]\n]", "t:2: not JSON: ']' after the end"),
    (f"[{GOOD}\n,5]", "t:2: expected a JSON object, got int"),
    ("prompt,Prompt,completion\na,b,c\n", "t:1: the header names 'prompt' twice"),
    ('prompt,completion\na,b\na,b,c\n', "t:3: 3 cells, the header has 2"),
    ('prompt,completion\na,b\n"a,b\nc,d\n', "t:3: not CSV"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), BAD_FILES, ids=[told for _, told in BAD_FILES])
def test_a_fault_names_its_line(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        lengths(file_of(tmp_path, text, "t"))
    assert told in error.value.line() and "\n" not in error.value.line()


def test_records_that_cannot_be_used_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = file_of(tmp_path, f'{GOOD}\n{{oops\n{GOOD}\n[1]\n{{"prompt": "", "completion": "b"}}\n{GOOD}\n')
    found = tokenized(path, WORDS, Wish(), KeptBounds(skip=3), Pace())
    assert (found.size, found.skipped) == (3, 3) and [f.split(":")[1] for f in found.faults] == ["2", "4", "5"]
    with pytest.raises(InputError, match=r"t.jsonl:5: more than 2 records cannot be used"):
        tokenized(path, WORDS, Wish(), KeptBounds(skip=2), Pace())


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_line_of_other_bytes_is_one_fault(name: str, tmp_path: Path) -> None:
    rows = ["prompt,completion", "a,b", "\udcff,b", "c d,e"] if name == "t.csv" else [GOOD, "\udcff", GOOD]
    path = tmp_path / name
    path.write_bytes("\n".join(rows).encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=f"{name}:{len(rows) - 1}: the line is not UTF-8"):
        lengths(path)
    assert len(lengths(path, skip=1)) == 2


@pytest.mark.parametrize("text", [GOOD + "\n", "[" + ",".join([GOOD] * 20_000) + "]"], ids=["lines", "array"])
def test_a_cut_archive_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress(text.encode())[:-9])
    with pytest.raises(InputError, match=r"cannot be read"):
        lengths(path)


# ---- what is kept, and when it comes -------------------------------------------------------------------------------


def test_limits_leave_out_and_say_so(tmp_path: Path) -> None:
    rows = [{"prompt": "a " * n, "completion": "b"} for n in (5, 50, 6, 7)] + [{"conversations": talk(TALK[:1])}]
    found = tokenized(file_of(tmp_path, rows), WORDS, Wish(), KeptBounds(context=20), Pace())
    assert found.prompt.tolist() == [5, 6, 7]
    assert found.notes[1:] == (
        "1 records without an answer left out (--output-len N keeps them)",
        "1 requests longer than 20 tokens left out",
    )
    assert lengths(file_of(tmp_path, rows), count=2) == [(5, 1), (50, 1)]


def test_arrivals_are_those_of_a_seed_and_a_rate(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"prompt": "a", "completion": "b"}] * 4000)
    once, again = (tokenized(path, WORDS, Wish(), KeptBounds(), Pace(4.0, 1.0, 7)) for _ in range(2))
    known = describe(once).arrivals
    assert np.array_equal(once.arrive, again.arrive) and known is not None
    assert known.rate == pytest.approx(4.0, rel=1e-3) and known.burstiness == pytest.approx(1.0, rel=0.1)


def sessions(folder: Path, block: int = 4) -> Workload:
    path = file_of(folder, [{"messages": chat(TALK)}, {"messages": chat(TALK)}])
    return tokenized(path, WORDS, Wish(every=True), KeptBounds(), Pace(1.0, gap=3.0), block)


def test_turns_come_one_after_the_other_and_share_their_blocks(tmp_path: Path) -> None:
    found = sessions(tmp_path)
    assert sorted(found.prompt.tolist()) == [3, 3, 6, 6] and np.all(np.diff(found.arrive) >= 0)
    later = found.arrive[found.prompt == 6] - found.arrive[found.prompt == 3]
    assert later == pytest.approx([3.0, 3.0])
    assert len(set(found.prefix.ids.tolist())) == len(found.prefix.ids) == 6  # a block that is not full is nobody else's
    assert describe(sessions(tmp_path, 1)).ideal_hit == pytest.approx(6 / 18)  # the first turn of each in the second


# ---- tokenizers ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small byte-level tokenizer that puts one token before a text, and would cut and pad."""
    library = pytest.importorskip("tokenizers")
    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([CHATS.read_text(encoding="utf-8")], trainer)
    made.post_processor = library.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made.enable_truncation(3)
    made.enable_padding()
    folder = tmp_path_factory.mktemp("model")
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("name", ["", "tokenizer.json"])
def test_lengths_are_those_of_the_tokenizer(tokenizer: Path, name: str) -> None:
    from tokenizers import Tokenizer

    plain = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    plain.no_truncation()
    plain.no_padding()
    turns = [record["conversations"] for record in json.loads(CHATS.read_text(encoding="utf-8"))]
    firsts = [turn[-2:] if turn[0]["from"] == "system" else turn[:2] for turn in turns]
    found = tokenized(CHATS, by_tokenizer(str(tokenizer / name)), Wish(), KeptBounds(), Pace())
    assert found.output.tolist() == [len(plain.encode(b["value"], add_special_tokens=False).ids) for _, b in firsts]
    ahead = [len(plain.encode(t[0]["value"], add_special_tokens=False).ids) * (t[0]["from"] == "system") for t in turns]
    assert found.prompt.tolist() == [len(plain.encode(a["value"]).ids) + n for (a, _), n in zip(firsts, ahead)]


def test_a_name_is_looked_up_in_the_cache_and_never_fetched_unasked(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(name: str, file: str) -> str:
        asked.append(name)
        return str(tokenizer / file)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=download))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--some-one--Tiny-1B" / "snapshots" / "abc"
    place.mkdir(parents=True)
    (place / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    assert by_tokenizer("some-one/tiny-1b").special == 1
    with pytest.raises(InputError, match=r"did you mean some-one/tiny-1b\?.*--download"):
        by_tokenizer("someone/tiny-1b")
    assert asked == [] and by_tokenizer("someone/tiny-1b", download=True).special == 1 and asked == ["someone/tiny-1b"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [("none/here/tokenizer.json", "", "does not exist"), (".", "", "holds no tokenizer.json"), ("t.json", "{}", "is no tokenizer"),
     ("t.json", "\udcff", "not UTF-8")],
)  # fmt: skip
def test_what_is_no_tokenizer_is_named(name: str, text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tokenizers")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=told):
        by_tokenizer(name)


def test_half_of_a_pair_is_counted_as_one_sign(tokenizer: Path) -> None:
    count = by_tokenizer(str(tokenizer)).count
    assert count([json.loads('"a\\ud800b"'), "ü"]) == count(["a?b", "ü"])


def test_estimates_say_what_they_are() -> None:
    assert [c.count(["", "a", "ab cd ef gh"]) for c in (by_chars(4), by_words(1.3))] == [[0, 1, 3], [0, 1, 5]]
    assert "characters over 4" in by_chars(4).note and isinstance(by_words(1.3), Counter)


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_writes_a_trace(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "t.csv"
    words = ["trace", "tokenize", str(CHATS), "--tokens-per-word", "1", "--request-rate", "2", "--to", "vidur", "-o", str(out)]
    assert main(words) == 0 and capsys.readouterr() == ("", "apexsim: lengths are estimates: 1 tokens per word\n")
    found = read_trace(out)
    assert (found.size, found.fmt, found.arrive[-1]) == (8, "vidur", 4.0)


REFUSED = [
    ([], "no way to count tokens is given; give one of them"),
    (["--chars-per-token", "4", "--tokens-per-word", "1"], "in more than one way"),
    (["--chars-per-token", "0"], "--chars-per-token: expected a number above 0"),
    (["--chars-per-token", "4", "--turns", "al"], "did you mean all?"),
    (["--chars-per-token", "4", "--turn-gap", "-1"], "--turn-gap: expected a number of at least 0"),
    (["--chars-per-token", "4", "--max-model-len", "2"], "8 longer than 2 tokens"),
    (["--chars-per-token", "4", "--to", "apx"], "did you mean apex"),
    (["--chars-per-token", "4", "--prompt-field", "x"], "there is no column 'x'"),
]


@pytest.mark.parametrize(("words", "told"), REFUSED, ids=lambda v: " ".join(v) if isinstance(v, list) else None)
def test_bad_input_is_one_line(words: list[str], told: str, capsys: Capture) -> None:
    code = main(["trace", "tokenize", str(CHATS), *words])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1) and told in err


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert main(["trace", "tokenize", str(CHATS), "--tokenizer", "x"]) == 2
    assert "apexsim[tokenize]" in capsys.readouterr().err
