"""Options: names of other tools, counts, engines' own words, contradictions, and that no option is in vain."""

from __future__ import annotations

import json
import os
import shlex
import threading
from pathlib import Path
from typing import Any

import pytest

from apexsim import api
from apexsim.cli import main
from apexsim.cli.clashes import CLASHES
from apexsim.cli.names import EVERYWHERE, MODEL, NAMES, OF_ENGINES, TOTAL, VERSION, engines_with_words, name_of
from apexsim.cli.options import flags_of_command
from apexsim.cli.rows import COMMANDS, options_of
from apexsim.cli.words import json_on_stdout, translated
from apexsim.cost.books import books, price_of, usual_book
from apexsim.engines import engine_names, facts, flags_of
from apexsim.errors import LONGEST_LINE, LONGEST_WORD, InputError
from apexsim.hardware import all_gpus, cluster_of
from apexsim.units import parse_count
from apexsim.workload import asked as asked_of

ROOT = Path(__file__).parent.parent
TRACE = str(ROOT / "examples/lmsys_05.jsonl")
Capture = pytest.CaptureFixture[str]
MADE = {"prompt_len": 64, "output_len": 8, "num_requests": 12}
SMALL = ["llama-3.1-8b", "--gpu", "h100:2", "--prompt-len", "64", "--output-len", "8", "--num-requests", "12"]


def refused(capsys: Capture, *words: str, code: int = 2) -> str:
    """The one line that says why a command was refused."""
    got = main(list(words))
    out, err = capsys.readouterr()
    assert (got, out, err.count("\n")) == (code, "", 1) and err.startswith("apexsim: "), (got, out, err)
    return err


def study(capsys: Capture, *words: str) -> dict[str, Any]:
    """The JSON of a study."""
    assert main([*words, "--json", "-"]) == 0, words
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


# ---- names that people bring ------------------------------------------------------------------------------------------------

VALUES = {"gpu": "h100", "gpus": "2", "nodes": "1", "prompt_len": "1k", "tp": "2", "engine": "sglang", "kv_dtype": "fp8_e4m3",
          "weight_dtype": "fp8", "trace": "x.csv", "request_rate": "2.5"}  # fmt: skip


THEIRS = [
    (row, command) for row in NAMES for command in COMMANDS
    if row.option in {opt.name for opt in options_of(command)} and row.flag not in flags_of_command(command)
    and row.flag != "--random-range-ratio" and not row.bare
]  # fmt: skip


@pytest.mark.parametrize(("row", "command"), THEIRS, ids=[f"{row.flag} {command}" for row, command in THEIRS])
def test_a_name_means_its_option_in_every_command_that_has_it(row: Any, command: str) -> None:
    own = {opt.name: opt for opt in options_of(command)}
    value = VALUES.get(row.option, "3")
    words, typed = translated(command, [row.flag, value, "x"])
    ((option, meant),) = row.options(value).items()
    assert words == [own[option].flag, meant, "x"] and typed == {own[option].flag: row.flag}
    assert translated(command, [f"{row.flag}={value}", "x"])[0] == words


def test_a_name_without_a_value_is_our_switch() -> None:
    words, typed = translated("plan", ["--disable-radix-cache", "x"])
    assert words == ["--no-enable-prefix-caching", "x"] and typed == {"--no-enable-prefix-caching": "--disable-radix-cache"}


@pytest.mark.parametrize("engine", engines_with_words())
def test_each_word_of_an_engine_acts_on_it_and_on_no_other(engine: str) -> None:
    for setting, word in flags_of(engine).items():
        option, _ = OF_ENGINES[setting]
        value = ["0.8"] if setting == "memory_fraction" else [] if setting == "enforce_eager" else ["64"]
        words, _ = translated("plan", [word, *value, "--engine", f"{engine}@1" if engine != "vllm" else engine])
        assert words[: 1 + len(value)] == ["--" + option.replace("_", "-"), *value]
        for other in engine_names():
            family = str(facts(other)["engine"])
            if family == engine or word in EVERYWHERE or word in flags_of(family).values():
                continue
            theirs = flags_of(family).get(setting)
            if theirs is None and word == "--" + option.replace("_", "-"):
                continue  # the other engine has no word of its own
            with pytest.raises(InputError) as error:
                translated("plan", [word, *value, "--engine", other])
            assert str(facts(engine)["about"]) in error.value.line() and (theirs or "no such setting") in error.value.line()


def test_settings_in_an_engines_words_reach_its_row(capsys: Capture) -> None:
    asked = ["--engine", "sglang", "--mem-fraction-static", "0.7", "--chunked-prefill-size", "4k", "--max-running-requests", "48",
             "--page-size", "16", "--context-length", "8k", "--disable-cuda-graph"]  # fmt: skip
    engine = study(capsys, "simulate", *SMALL, "--tp", "2", *asked)["understood"]["engine"]
    assert (engine["gpu_memory_utilization"], engine["max_num_batched_tokens"], engine["max_num_seqs"]) == (0.7, 4096, 48)
    assert (engine["block_size"], engine["max_model_len"], engine["max_capture"]) == (16, 8192, 0)
    asked = ["--backend", "trtllm", "--kv_cache_free_gpu_memory_fraction", "0.7", "--max_num_tokens", "4096", "--max_batch_size", "48",
             "--max_seq_len", "2048"]  # fmt: skip
    engine = study(capsys, "simulate", *SMALL, "--tp", "2", *asked)["understood"]["engine"]
    assert (engine["gpu_memory_utilization"], engine["max_num_batched_tokens"], engine["max_num_seqs"]) == (0.7, 4096, 48)
    assert (engine["name"], engine["max_model_len"]) == ("tensorrt-llm", 2048)


def test_the_lines_that_a_report_suggests_run_again_in_the_engines_words(capsys: Capture) -> None:
    words = [*SMALL, "--engine", "sglang@0.5.7", "--max-running-requests", "99", "--disable-cuda-graph", "--chunked-prefill-size=-1"]
    assert main(["plan", *words]) == 0
    text = " ".join(capsys.readouterr().out.replace("\\\n", " ").split())
    assert "sglang 0.5.7: rules of 0.5.6 (released 2025-12-03)" in text and "max-running-requests 99" in text
    again = shlex.split(text.split("then apexsim plan ")[1].split(" then ")[0].partition(" --json")[0])
    assert "--max-running-requests" in again and "--disable-cuda-graph" in again and "--no-enable-chunked-prefill" in again
    engine = study(capsys, "plan", *again)["understood"]["engine"]
    assert (engine["max_num_seqs"], engine["max_capture"], engine["chunked_prefill"]) == (99, 0, False)


@pytest.mark.parametrize("word", ["--dtype", "--kv-cache-dtype"])
def test_auto_is_the_checkpoints_own_format(word: str, capsys: Capture) -> None:
    words = ["llama-3.1-8b", "--gpu", "h100:1", "--isl", "8", "--osl", "8", "--num-prompts", "2"]
    named, plain = (study(capsys, "plan", *words, *more)["ranked"] for more in ([word, "auto"], []))
    assert named[0]["plan"] == plain[0]["plan"]


@pytest.mark.parametrize(
    "words", [["ttft:500", "tpot:50"], ["ttft:500 tpot:50"], ["ttft: 500  TPOT:50ms"], ["ttft:500", "--goodput=tpot:50"]]
)
def test_limits_of_each_request_stand_in_one_word_or_several(words: list[str], capsys: Capture) -> None:
    assert study(capsys, "plan", *SMALL, "--goodput", *words)["slos"] == ["ttft=500ms", "tpot=50ms"]


def test_statistics_and_numbers_of_gpus_that_are_none_say_what_there_is(capsys: Capture) -> None:
    assert "unknown statistic 'p99.9' in SLO 'ttft:p99.9=1s'; known: mean, p50" in refused(capsys, "plan", *SMALL, "--slo", "ttft:p99.9=1s")
    words = ["llama-3.1-8b", "--gpu", "h100:1,2", *SMALL[3:]]
    assert "unknown GPU '2'; several numbers of GPUs are a list of --gpus: --gpus 1,2" in refused(capsys, "plan", *words)


def test_a_whole_command_line_of_another_tool_is_understood(capsys: Capture) -> None:
    theirs = ["--model-path", "llama-3.1-8b", "--system", "h100_sxm", "--total-gpus", "16", "--backend", "vllm", "--backend-version",
              "0.19.0", "--isl", "1k", "--osl", "8", "--num-prompts", "9", "--max-concurrency", "3", "-tp", "8", "--dtype", "float16",
              "--kv-cache-dtype", "auto"]  # fmt: skip
    found = study(capsys, "plan", *theirs)
    assert found["understood"]["cluster"].items() >= {"gpu": "h100-sxm", "per_node": 8, "nodes": 2}.items()
    assert found["understood"]["engine"]["version"] == "0.19.0" and found["understood"]["workload"]["prompt_tokens_max"] > 1000
    assert all(each["plan"]["attention"]["tp"] == 8 for each in found["ranked"])
    assert found["ranked"][0]["plan"]["precision"] | {"weights": "fp16", "kv": "bf16"} == found["ranked"][0]["plan"]["precision"]


TWICE = [
    (["--isl", "1k"], "--prompt-len 64 and --isl 1k are one option with two values"),
    (["--isl", "64", "--input-len", "2k"], "--isl 64 and --input-len 2k are one option with two values"),
    (["--request-rate", "4", "--qps", "5"], "--request-rate 4 and --qps 5"),
    (["--gpus", "4", "--num-gpus", "2"], "counted twice"),
    (["--prompt-len", "1k"], "--prompt-len 64 and --prompt-len 1k are one option with two values"),
    (["--gpu=l4:1"], "drop one of both, or ask with each: --gpu h100:2,l4:1"),
    (["--objective", "ttft", "--objective", "cost"], "--objective ttft and --objective cost are one option with two values; drop one of"),
    (["--json", "a.json", "--json=b.json"], "--json a.json and --json b.json"),
    (["--tp", "2", "--tensor-parallel-size", "1"], "--tp 2 and --tensor-parallel-size 1"),
    (["--model", "llama-2-7b"], "the model is given twice"),
    (["--engine", "vllm@0.19.0", "--backend-version", "0.20.0"], "names its version"),
]


@pytest.mark.parametrize(("words", "told"), TWICE, ids=lambda v: v[0] if isinstance(v, list) else None)
def test_an_option_that_is_given_twice_with_two_values_is_refused(words: list[str], told: str, capsys: Capture) -> None:
    assert told in refused(capsys, "plan", *SMALL, *words)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_of_any_command_silently_takes_the_last_of_two_values(command: str, capsys: Capture) -> None:
    for opt in options_of(command):
        if opt.type in (str, int, float):
            assert main([*command.split(), f"{opt.flag}=3", f"{opt.flag}=4"]) == 2
            assert f"{opt.flag} 3 and {opt.flag} 4 are one option with two values" in " ".join(capsys.readouterr().err.split())


def test_two_spellings_with_one_value_are_fine(capsys: Capture) -> None:
    found = study(capsys, "simulate", "llama-3.1-8b", "--gpu=h100:1", "--tp", "1", "--isl", "1k", "--input-len", "1024", "--osl", "4",
                  "--num-prompts", "2k", "--num-requests", "2000", "--osl=4", "--num-requests", "2k")  # fmt: skip
    assert (found["inputs"]["prompt_len"], found["inputs"]["num_requests"]) == (1024, 2000)


def test_names_stand_for_options_that_exist() -> None:
    known = {opt.name for command in COMMANDS for opt in options_of(command)}
    assert {row.option for row in NAMES} - {TOTAL, VERSION, MODEL} <= known and {option for option, _ in OF_ENGINES.values()} <= known
    spellings = [row.flag for row in NAMES] + [word for name in engines_with_words() for word in flags_of(name).values()]
    shown = {flag for command in ("plan", "simulate", "fit") for flag in flags_of_command(command)}
    assert len(spellings) == len(set(spellings)) and not shown & {row.flag for row in NAMES}
    assert all(name_of(flag) for flag in spellings) and name_of("--no-such-name") is None


def test_the_page_of_names_is_what_the_table_says() -> None:
    import runpy

    page = runpy.run_path(str(ROOT / "scripts/names_page.py"))["page"]()
    assert page == (ROOT / "docs/names.md").read_text(encoding="utf-8"), "run: python scripts/names_page.py > docs/names.md"


# ---- counts, clusters, complaints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "tokens", "count"), [
    ("1k", True, 1024), ("1K", False, 1000), ("32k", True, 32768), ("1.5M", False, 1_500_000), ("1M", True, 2**20), ("0.5k", True, 512),
    ("300", True, 300), ("4.1M", False, 4_100_000), ("16.1k", False, 16_100), ("2.01k", False, 2010),
])  # fmt: skip
def test_k_and_m(text: str, tokens: bool, count: int) -> None:
    assert parse_count(text, tokens) == count


@pytest.mark.parametrize("text", ["1k5", "1.3k", "", "k", "1e3", "1,024", "0x10", "٣k5", "9" * 5000, "1kk", "inf", "nan", "1.5"])
def test_what_is_no_whole_number_is_said_in_our_words(text: str, capsys: Capture) -> None:
    error = refused(capsys, "plan", *SMALL[:3], "--prompt-len", text, "--output-len", "4")
    assert "expected a whole number" in error or "given without a value" in error
    assert "parse" not in error and len(error) < LONGEST_LINE


NUMBERS = [(command, opt) for command in COMMANDS for opt in options_of(command) if opt.type in (int, float, list[int])]


@pytest.mark.parametrize(("command", "opt"), NUMBERS, ids=lambda v: v if isinstance(v, str) else v.flag)
def test_every_number_is_refused_in_our_words(command: str, opt: Any, capsys: Capture) -> None:
    arguments = {"plan": ["m", "--gpu", "h100"], "simulate": ["m", "--gpu", "h100"], "fit": ["m", "--gpu", "h100"],
                 "size": ["m", "--gpu", "h100"], "fleet": ["m", "--gpu", "h100"], "fit-host": ["f"],
                 "fit-power": ["f"], "replay": ["--model", "m"], "apex": ["--model", "m", "--num-gpus-per-node", "2"],
                 "web": []}  # fmt: skip
    need = arguments.get(command, [] if command.startswith("trace synth") else ["f"])
    need = ["--out", "x"] if command.startswith("profile") else need
    need = need[: need.index(opt.flag)] if opt.flag in need else need
    error = refused(capsys, *command.split(), *need, opt.flag, "1k5x")
    assert f"{opt.flag}: expected a {'whole ' if opt.type is not float else ''}number, got '1k5x'" in error or (
        opt.tokens and "expected a whole number, got '1k5x'" in error
    )


@pytest.mark.parametrize(("spec", "nodes", "per_node", "name"), [
    ("h100:8", 1, 8, "h100-sxm"), ("2x8xh100", 2, 8, "h100-sxm"), ("h100x8", 1, 8, "h100-sxm"), ("8xh100", 1, 8, "h100-sxm"),
    ("8 × H100", 1, 8, "h100-sxm"), ("mi300x8", 1, 8, "mi300x"), ("mi300x:8", 1, 8, "mi300x"), ("rtx4090x2", 1, 2, "rtx-4090"),
    ("h200-sxm@1200MHz:4", 1, 4, "h200-sxm@1200MHz"),
])  # fmt: skip
def test_a_gpu_may_hold_its_counts(spec: str, nodes: int, per_node: int, name: str) -> None:
    found = cluster_of(spec)
    assert (found.nodes, found.per_node, found.gpu.name) == (nodes, per_node, name)
    assert cluster_of(spec, per_node) == found
    with pytest.raises(InputError, match="gpus"):
        cluster_of(spec, per_node + 1)
    with pytest.raises(InputError):
        cluster_of(spec.replace(str(per_node), "0", 1) if "mi300" not in spec and "200" not in spec else "h100:0")


def test_every_gpu_of_the_catalogue_is_itself_with_and_without_counts() -> None:
    for gpu in all_gpus():
        for name in (gpu.name, *gpu.aliases):
            assert cluster_of(name, 3).gpu is gpu and cluster_of(f"{name}:5") == cluster_of(f"5x{name}") == cluster_of(name, 5)


def test_a_gpu_file_takes_counts_too(tmp_path: Path) -> None:
    text = (ROOT / "src/apexsim/data/gpus/l4.toml").read_text(encoding="utf-8").replace('name = "l4"', 'name = "mine"')
    (tmp_path / "my.toml").write_text(text)
    assert cluster_of(f"{tmp_path}/my.toml:4").per_node == 4 and cluster_of(f"2x{tmp_path}/my.toml").gpu.name == "mine"


@pytest.mark.parametrize("words", [
    ["plan", "x" * 100_000, *SMALL[1:]], ["x" * 100_000], ["plan", *SMALL, "--" + "x" * 9999], ["plan", *SMALL, "--gpu", "y" * 9999],
    ["simulate", *SMALL, "--plan", "TP" + "1" * 9999], ["plan", *SMALL, "--slo", "z" * 9999], ["plan", *SMALL, "--seed", "1" * 4000 + "x"],
    ["plan", *SMALL, "--engine", "vllm@" + "1" * 9999], ["plan", *SMALL, "--objective", "a b" * 3000],
    ["replay", TRACE, "--model", "m", "--url", "q" * 9999],
])  # fmt: skip
def test_long_values_are_cut(words: list[str], capsys: Capture) -> None:
    code = main(words)
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1 and len(err) < 700 and max(map(len, err.split())) <= LONGEST_WORD + 2


LISTED = [
    (["plan", *SMALL, "--objective", "latency"], ("e2e", "ttft", "tpot", "itl", "throughput", "goodput", "cost", "energy", "wall-energy")),
    (["plan", *SMALL, "--engine", "tgi"], ("vllm", "sglang", "tensorrt-llm", "orca", "sarathi", "apex")),
    (["list"], ("plan", "simulate", "fit", "trace", "engines", "schema")),
    (["recommend"], ("plan", "models")),
    (["trace", "shrink"], ("describe", "convert", "filter", "scale", "synth", "tokenize")),
    (["plan", *SMALL, "--price", "cheap"], ("on-demand", "retail", "neocloud", "hyperscaler")),
    (["plan", "llama-3.1-8b", "--gpu", "a100:2", *SMALL[3:], "--price", "retail"], ("a100-sxm-80gb has no retail price", "on-demand")),
]


@pytest.mark.parametrize(("words", "known"), LISTED, ids=lambda v: v[-1] if isinstance(v, list) else None)
def test_what_is_unknown_lists_what_there_is(words: list[str], known: tuple[str, ...], capsys: Capture) -> None:
    error = refused(capsys, *words)
    assert [word for word in known if word not in error] == []


def test_suggestions_come_from_the_same_level(capsys: Capture) -> None:
    for word in ("list", "recommend", "gemm", "describe", "convert", "attention"):
        told = refused(capsys, word).split("see:")[0]
        assert not {"gemm,", "convert,", "attention,", "synth,", "comm,"} & set(told.split("known: ")[-1].split())


def test_help_and_version_as_commands(capsys: Capture) -> None:
    for words in (["help"], ["help", "plan"], ["help", "trace"], ["help", "trace", "scale"], ["version"]):
        assert main(words) == 0 and capsys.readouterr().out
    assert main(["help", "plan"]) == 0
    first = capsys.readouterr().out
    assert main(["plan", "--help"]) == 0 and capsys.readouterr().out == first
    assert "no such command 'bogus'" in refused(capsys, "help", "bogus")


@pytest.mark.parametrize("command", ["plan", "simulate", "fit"])
def test_help_names_the_engines_and_none_of_the_hidden_names(command: str, capsys: Capture) -> None:
    assert main([command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "sglang" in text and "tensorrt-llm" in text and "--isl" not in text and "--model-path" not in text


def test_when_json_has_standard_output() -> None:
    assert all(map(json_on_stdout, (["--json"], ["--json", "-"], ["--json=-"], ["x", "--json", "--all"])))
    assert not any(map(json_on_stdout, ([], ["--json", "x.json"], ["--json=x.json"])))


# ---- widths -----------------------------------------------------------------------------------------------------------------


def test_widths_restrict_the_search(capsys: Capture) -> None:
    whole = study(capsys, "plan", "mixtral-8x7b", "--gpu", "h100:4", *SMALL[3:])
    asks = {"--tp": lambda p: p["attention"]["tp"], "--pp": lambda p: p["stages"], "--dp": lambda p: p["attention"]["dp"],
            "--ep": lambda p: p["ffn"]["ep"]}  # fmt: skip
    for flag, of in asks.items():
        for n in ("1", "2", "4"):
            found = study(capsys, "plan", "mixtral-8x7b", "--gpu", "h100:4", *SMALL[3:], flag, n)
            kept = [each["shorthand"] for each in whole["ranked"] if of(each["plan"]) == int(n)]
            assert [each["shorthand"] for each in found["ranked"]] == kept
            assert found["funnel"][0]["count"] == whole["funnel"][0]["count"]
    spread = study(capsys, "plan", "mixtral-8x7b", "--gpu", "h100:4", *SMALL[3:], "--enable-expert-parallel", "--pp", "1")
    assert spread["ranked"] and all(each["plan"]["ffn"]["ep"] in (2, 4) and each["plan"]["ffn"]["tp"] == 1 for each in spread["ranked"])


@pytest.mark.parametrize(("words", "plan"), [
    (["--tp", "4"], "TP4"), (["--tp", "2"], "2×TP2"), (["--pp", "4"], "PP4×TP1"), (["--tp", "2", "--pp", "2"], "PP2×TP2"),
    (["--tp", "4", "--enable-expert-parallel"], "TEP4"), (["--dp", "4", "--ep", "4"], "DEP4"), (["--tp", "2", "--dp", "2"], "DP2TP2/TP4"),
    (["--tp", "4", "--ep", "2"], "TP4/TP2EP2"), (["--plan", "tp2 pp2"], "PP2×TP2"), (["--plan", "PP4"], "PP4×TP1"),
])  # fmt: skip
def test_widths_name_the_plan(words: list[str], plan: str, capsys: Capture) -> None:
    assert study(capsys, "simulate", "mixtral-8x7b", "--gpu", "h100:4", *SMALL[3:], *words)["ranked"][0]["shorthand"] == plan


WIDE = [
    (["plan", *SMALL, "--tp", "3"], "no plan of 2 GPUs has --tp 3"),
    (["plan", *SMALL, "--ep", "2"], "no plan of 2 GPUs has --ep 2"),
    (["plan", *SMALL, "--enable-expert-parallel"], "no routed experts"),
    (["simulate", *SMALL], "missing option '--plan'"),
    (["simulate", *SMALL, "--tp", "1", "--dp", "1"], "make 2 of them"),
    (["simulate", *SMALL, "--plan", "TP2", "--tp", "2"], "--tp: it has no effect: the plan names its own widths"),
    (["fit", *SMALL[:3], "--plan", "TP2", "--tp", "1"], "--tp: it has no effect: the plan names its own widths"),
    (["fit", *SMALL[:3], "--ep", "2"], "no routed experts"),
]


@pytest.mark.parametrize(("words", "told"), WIDE, ids=lambda v: " ".join(v[-2:]) if isinstance(v, list) else None)
def test_impossible_widths_are_refused(words: list[str], told: str, capsys: Capture) -> None:
    assert told in refused(capsys, *words)


# ---- prices -----------------------------------------------------------------------------------------------------------------


def test_one_book_prices_every_gpu() -> None:
    counts = {key: sum(key in gpu.prices for gpu in all_gpus()) for key in books()}
    assert counts[usual_book()] == max(counts.values())
    for gpu in all_gpus():
        usd, book = price_of(None, gpu)
        assert book == usual_book() and (usd == gpu.prices.get(book) or usd != usd)


def test_a_price_says_its_book_its_day_and_whose_it_is(capsys: Capture) -> None:
    for name, owner in (("on-demand", False), ("retail", False), ("neocloud", True), ("hyperscaler", True)):
        price = study(capsys, "simulate", *SMALL, "--tp", "2", "--price", name)["understood"]["price"]
        assert price["book"] == name and price["owners_cost"] == owner and price["date"]
        assert main(["simulate", *SMALL, "--tp", "2", "--price", name]) == 0
        assert ("owner's cost" in capsys.readouterr().out) == owner


def test_a_gpu_without_the_usual_price_names_the_books_it_has(capsys: Capture) -> None:
    lacking = [gpu for gpu in all_gpus() if gpu.prices and usual_book() not in gpu.prices]
    for gpu in lacking[:1]:
        words = ["simulate", "llama-3.1-8b", "--gpu", f"{gpu.name}:1", "--tp", "1", *SMALL[3:]]
        assert main(words) == 0
        assert f"{gpu.name} has no on-demand price; it has" in " ".join(capsys.readouterr().out.split())


# ---- nothing in vain --------------------------------------------------------------------------------------------------------

CONTEXTS = {
    "rate": {**MADE, "request_rate": 4.0},
    "users": {**MADE, "concurrency": 3},
    "at once": MADE,
    "lengths": {**MADE, "length_spread": 0.5},
    "trace": {"trace": TRACE},
    "trace at a rate": {"trace": TRACE, "request_rate": 3.0},
    "trace, users": {"trace": TRACE, "concurrency": 3},
    "workload": {"workload": "code", "num_requests": 40},
    "workload at a rate": {"workload": "code", "num_requests": 40, "request_rate": 4.0},
    "routed sessions": {**MADE, "request_rate": 4.0, "turns": 3, "route": "least-outstanding"},
}
OTHERWISE: dict[str, Any] = {  # a value that is not the default
    "risk": 0.05, "sampling": "top-p", "stages": "3:4,9:2", "shared_prefix": "640x3", "turns": 2, "turn_gap": 3.0, "signal_age": 5.0,
    "kv_offload": "cpu:1GB",
    "prompt_len": 70, "output_len": 9, "num_requests": 7, "length_spread": 0.3, "request_rate": 9.0, "burstiness": 0.4, "concurrency": 5,
    "seed": 7, "warmup": 2, "images": 2, "image_size": "512x512", "max_num_seqs": 3, "max_num_batched_tokens": 64,
    "gpu_memory_utilization": 0.5, "max_model_len": 9000, "block_size": 32,
    "max_cudagraph_capture_size": 64, "weight_dtype": "fp8", "activation_dtype": "fp8",
    "kv_dtype": "fp8", "dtype": "fp32", "objective": "throughput", "slo": "ttft:p95<1ms", "power_cap": 100.0, "price": "7",
    "server_overhead": 1.0, "pue": 2.0, "tp": 1, "pp": 1, "dp": 1, "ep": 1, "quant": "fp8", "clock": "1410", "expert_load": "balanced",
    "speculate": "eagle3:2", "acceptance": "0.5", "classes": "short:64,long",
    "prompt_cv": 0.7, "output_cv": 0.8, "lengths": "gamma",
    "engine": "sglang", "route": "least-outstanding", "map": "time=StartTimeOffset,in=ContextTokens,out=GeneratedTokens",
    "time_unit": "ms", "workload": "summary", "nodes": 2, "nic": "100Gb", "pcie": "x8", "ttft": "1", "tpot": "1", "goodput": "ttft:500",
    "pareto": "ttft,$", "rate_factor": 2.0, "prompt_factor": 1.5, "output_factor": 1.5,
}  # fmt: skip
ONLY_TEXT = {
    "csv",
    "parquet",
    "bench_json",
    "benchmark_report",
    "gpu",
    "gpus",
    "top",
    "all",
    "json",
    "output",
    "emit",
    "force",
    "workers",
    "ray",
    "trace",
    "plan",
    "html",
    "plot",
    "against",
}  # how and where, not what is asked
POLICIES = {
    "profile",
    "too_long",
    "enable_chunked_prefill",
    "prefill_settings",
    "decode_settings",
    "connector",
    "conditional_disagg",
}  # a case that these questions do not meet, or the default; profiles: test_calibrate.py; pools: test_split.py
FLAGS_ONLY = {opt.name for opt in options_of("plan") if opt.type is bool} - ONLY_TEXT - POLICIES
EXPERTS = ("expert_load", "ep")  # of experts


def words_of(asked: dict[str, Any]) -> list[str]:
    """Options of the command line."""
    return [word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))]


def answer(capsys: Capture, words: list[str]) -> tuple[int, Any]:
    """Exit code and what the study says, but for the question as it was typed."""
    code = main([*words, "--json", "-"])
    found = json.loads(capsys.readouterr().out)
    return code, {key: value for key, value in found.items() if key != "inputs"}


BEFORE: dict[tuple[str, ...], tuple[int, Any]] = {}  # answers to questions that many options are added to


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("option", sorted(set(OTHERWISE) | FLAGS_ONLY))
def test_an_option_changes_the_study_or_is_refused(option: str, context: str, capsys: Capture) -> None:
    base = CONTEXTS[context]
    if option in base or (option == "request_rate" and "concurrency" in base):
        return
    head = ["plan", "mixtral-8x7b" if option in EXPERTS else "llama-3.1-8b", "--gpu", "h100:2", "--workers", "1"]
    asked = (*head, *words_of(base))
    before = BEFORE[asked] = BEFORE.get(asked) or answer(capsys, [*asked])
    code, after = answer(capsys, [*head, *words_of({**base, option: OTHERWISE.get(option, True)})])
    assert before[0] == 0 and (code == 2 or after != before[1]), "it is taken and does nothing"


OF_FIT: dict[str, Any] = {
    "gpus": 4, "nodes": 2, "nic": "100Gb", "pcie": "x8", "tp": 2, "pp": 2, "dp": 2, "ep": 2, "enable_expert_parallel": True,
    "plan": "TP2", "engine": "sglang",
    "max_num_seqs": 7, "max_num_batched_tokens": 512, "gpu_memory_utilization": 0.5, "max_model_len": 4096, "block_size": 32,
    "max_cudagraph_capture_size": 64, "enforce_eager": True, "num_speculative_tokens": 2,
    "weight_dtype": "fp8", "kv_dtype": "fp8", "dtype": "fp32",
    "prompt_len": 900, "output_len": 90, "trace": "example:creation", "map": "in=x", "workload": "chat",
}  # fmt: skip


@pytest.mark.parametrize("model", ["llama-3.1-8b", "mixtral-8x7b", "deepseek-v3", "qwen3-next-80b-a3b"])
@pytest.mark.parametrize("option", OF_FIT)
def test_an_option_changes_the_fit_or_is_refused(option: str, model: str, capsys: Capture) -> None:
    if (option, model) == ("block_size", "qwen3-next-80b-a3b"):
        return  # blocks grow to hold the recurrent state, 16 or 32 tokens at a time
    head = ["fit", model, "--gpu", "h200", *(["--gpus", "8"] if option != "gpus" else [])]
    base = [] if option == "gpus" else ["--tp", "8"] if option in ("pp", "dp", "ep", "enable_expert_parallel") else []
    base += ["--gpus", "8"] if option == "gpus" else []
    before = answer(capsys, [*head, *base])
    more = {option: OF_FIT[option]} if option != "gpus" else {}
    code, after = answer(capsys, [*head, *(base if option != "gpus" else ["--gpus", "4"]), *words_of(more)])
    assert before[0] in (0, 3) and (code == 2 or after != before[1]), "it is taken and does nothing"


def test_every_option_of_a_fit_is_tried() -> None:
    assert {opt.name for opt in options_of("fit")} - set(OF_FIT) - {"gpu", "log", "json"} == set()


def test_every_option_of_a_question_is_tried() -> None:
    asked = {opt.name for opt in options_of("plan")}
    assert asked - set(OTHERWISE) - FLAGS_ONLY - ONLY_TEXT - POLICIES == set()


def test_a_policy_acts_where_its_case_is_met(capsys: Capture) -> None:
    old = [*SMALL, "--request-rate", "9", "--engine", "vllm@0.6.0"]
    assert answer(capsys, ["plan", *old]) != answer(capsys, ["plan", *old, "--enable-chunked-prefill"])
    short = ["simulate", *SMALL[:3], "--tp", "2", "--trace", TRACE, "--max-model-len", "512"]
    for how, code in (("error", 2), ("drop", 0), ("clip", 0)):
        assert main([*short, "--too-long", how, "--json"]) == code
        capsys.readouterr()


def test_what_only_a_report_shows_is_refused_where_none_is_written(capsys: Capture) -> None:
    for more in (["--top", "3"], ["--all"]):
        assert main(["plan", *SMALL, "--json", "-", *more]) == 2 and "no report is written" in capsys.readouterr().err


IN_VAIN = [
    (["plan", *SMALL[:3], "--trace", TRACE, "--num-requests", "5"], "--num-requests: it has no effect: a trace has its own requests"),
    (["plan", *SMALL[:3], "--trace", TRACE, "--burstiness", "1"], "--burstiness: it has no effect"),
    (["plan", *SMALL[:3], "--trace", TRACE, "--length-spread", "0"], "--length-spread: it has no effect"),
    (["plan", *SMALL[:3], "--trace", TRACE, "--seed", "0"], "--seed: it has no effect"),
    (["plan", *SMALL[:3], "--trace", TRACE, "--seed", "0", "--request-rate", "2"], "--seed: it has no effect"),
    (["plan", *SMALL, "--burstiness", "0.5"], "--burstiness: it has no effect"),
    (["plan", *SMALL, "--burstiness", "0.5", "--request-rate", "inf"], "--burstiness: it has no effect"),
    (["plan", *SMALL, "--seed", "1"], "nothing is drawn"),
    (["plan", *SMALL, "--time-unit", "ms"], "no trace is read"),
    (["plan", *SMALL, "--quant", "fp8", "--weight-dtype", "int8"], "--weight-dtype: it has no effect"),
    (["plan", *SMALL, "--expert-load", "balanced"], "no routed experts"),
    (["plan", *SMALL, "--weight-dtype", "fp8", "--dtype", "fp16"], "--dtype: it has no effect"),
    (["replay", "--compare", "x.json", "--model", "m", "--request-rate", "3"], "nothing is sent beside --compare"),
    (["replay", TRACE, "--model", "m", "--url", "http://localhost:1", "--gpu", "l4"], "nothing is predicted"),
    (["trace", "synth", "--prompt-len", "5", "--output-len", "5", "--lengths", "gamma"], "all lengths are the same"),
    (["trace", "synth", "--like", TRACE, "--prompt-cv", "1"], "lengths are given and drawn"),
    (["trace", "filter", TRACE, "--seed", "3"], "nothing is drawn"),
    (["trace", "tokenize", "x", "--chars-per-token", "4", "--turn-gap", "3"], "only first turns"),
    (["profile", "gemm", "--out", "x", "--gpu", "l4", "--dry-run", "--budget", "3"], "a dry run measures nothing"),
]


@pytest.mark.parametrize(("words", "told"), IN_VAIN, ids=lambda v: " ".join(v[-2:]) if isinstance(v, list) else None)
def test_options_in_vain_are_one_line(words: list[str], told: str, capsys: Capture) -> None:
    assert told in refused(capsys, *words)


@pytest.mark.parametrize("command", CLASHES)
def test_the_table_of_clashes_names_options_of_the_command(command: str) -> None:
    known = {opt.name for opt in options_of(command)}
    assert [clash.option for clash in CLASHES[command] if clash.option not in known] == []


def test_python_refuses_what_the_command_line_refuses() -> None:
    for more in ({"num_requests": 5}, {"burstiness": 2.0}, {"seed": 3}, {"length_spread": 0.1}):
        with pytest.raises(InputError, match="no effect"):
            api.plan("llama-3.1-8b", gpu="h100:1", trace=TRACE, **more)
    with pytest.raises(InputError, match="no effect"):
        api.plan("llama-3.1-8b", gpu="h100:1", prompt_len=5, output_len=5, burstiness=2.0)
    for more in ({"tp": 1}, {"hypothetical": True}, {"quant": "fp8"}):
        with pytest.raises(InputError, match=r"no effect|nothing is searched"):
            api.simulate("llama-3.1-8b", "TP1", gpu="h100:1", prompt_len=5, output_len=5, **more)


def test_a_trace_is_read_once_however_often_its_question_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would help is asked of the same trace, which may be a pipe that is empty by then."""
    asked = {"gpu": "h100:1", "request_rate": 60.0, "slos": ("ttft:p95=20ms",)}
    told = api.simulate("llama-3.1-8b", "TP1", trace=TRACE, **asked)
    pipe, read = tmp_path / "pipe.jsonl", []
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(Path(TRACE).read_bytes()), daemon=True)
    writer.start()
    whole = asked_of.read_trace
    monkeypatch.setattr(asked_of, "read_trace", lambda *a, **k: read.append(a) or whole(*a, **k))
    piped = api.simulate("llama-3.1-8b", "TP1", trace=str(pipe), **asked)
    assert len(read) == 1 and told.remedies + told.tried
    assert (piped.remedies, piped.tried) == (told.remedies, told.tried)
