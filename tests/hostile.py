"""Hostile command lines and files, as strategies: one row of KINDS for each kind of attack (scripts/attack.py runs them)."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from apexsim.cli.rows import Opt, options_of
from test_formats import SAMPLES

ROOT = Path(__file__).parents[1]
EXAMPLES, DATA = ROOT / "examples", ROOT / "src/apexsim/data"


JSON_OF = {"compare": "compare",
           "plan": "study", "simulate": "study", "fit": "fit", "models": "models", "gpus": "gpus", "engines": "engines",
           "workloads": "workloads",
    "trace describe": "trace",
           "device check": "device", "apex": "apex"}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A command line, the files it is run beside, and environment variables; schema: of its JSON."""

    words: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Smaller is easier to read."""
        return sum(map(len, self.words)) + sum(map(len, self.files.values()))

    @property
    def json_on_stdout(self) -> bool:
        """Whether standard output holds JSON and nothing else."""
        return self.words[-2:] == ("--json", "-")

    @property
    def schema(self) -> str:
        """The output that the JSON of the command is; "" where it may be any."""
        return JSON_OF.get(" ".join(self.words[:2]), JSON_OF.get(self.words[0], ""))

    def json_in(self, name: str) -> bool:
        """Whether a file that was written holds JSON."""
        return ("--json", name) in pairwise(self.words) and ("--output", name) not in pairwise(self.words)

    def replaced(self, name: str) -> bool:
        """Whether a file is one that the command line writes and nothing of it reads."""
        return sum(word.rpartition("=")[2].removeprefix("./") in (name, name.partition("/")[0]) for word in self.words) < 2 and any(
            word.endswith(name) for word in self.words
        )

    def told(self) -> str:
        """The case in a line or two."""
        files = "".join(f"\n    {name}: {content[:700]!r}" for name, content in self.files.items())
        return f"{' '.join(map(repr, self.words))[:900]}{files}"


# ---- words and numbers that nobody should type ---------------------------------------------------------------------

NUMBERS = (
    "0", "-0", "1", "-1", "2", "3", "7", "00", "0x10", "1e3", "1E3", "1.5", "0.0", "-0.0", "1e-320", "1e308", "1e309", "1e400",
    "-1e400", "nan",
    "NaN", "-nan", "inf", "+inf", "-inf", "Infinity", "+5", " 5 ", "5 ", "\t5", "1_000", "1__0", "1,000", "1.000,5", "5k", "5K", "1.5k",
    "1e3k", "k",
    "2m", "3G", "²", "5²", "１２", "٣", "½", "Ⅷ", "一", "9" * 20, "9" * 400, "9" * 5000, "0." + "0" * 400 + "1", "1e", "e1", "--", "-",
    ".", "..", "5.", ".5",
    "1/2", "50%", "True", "None", "null", "[]", "{}", "1;2", "1\n2", "4096", "4097", "65536", "2147483647", "2147483648",
    "9223372036854775807",
    "9223372036854775808", "18446744073709551616", "1e18", "1e19", "-9223372036854775809", "0.1", "0.5", "0.999999", "1.0000001",
    "1e-9", "8", "16",
)  # fmt: skip
JUNK = (
    "", " ", "\t", "\n", "a\nb", "\x1b[2J", "\x1b]0;x\x07", "\r", "\x07", "\u202eabc", "\u2028", "\ufeff", "é", "ß", "İ", "🐉", "\udcff",
    "\ud83d", "a" * 81,
    "x" * 300, "y" * 5000, "z" * 60000, "'", "'" * 200, '"', "`id`", "$(id)", "$HOME", "~", "~nouser", "~nouser/x", "%s%n", "%(x)s",
    "{}", "{0}", "[red]x[/red]",
    "[/]", "[bold", "../..", "/", "//", ".", "./", "/dev/null", "/dev/zero", "/proc/self/mem", "/proc/self/environ", "/nonexistent/a/b",
    "C:\\x\\y.json",
    "\\\\server\\share", "con", "nul", "file:///etc/passwd", "http://[::1", "example:", "example:none", "example:../x",
    "example:creation", "a,b", ",", ",,",
    "a=b", "=", "a:b", ":", "@", "a@b", "@1", "-x", "--x", "--", "-", "*", "?", "h100", "h100:8", "tp8", "fp8", "auto", "none", "None",
    "true", "null",
)  # fmt: skip
LETTERS = st.characters(exclude_characters="\0/")
WORDS = st.one_of(
    st.sampled_from(JUNK), st.sampled_from(NUMBERS), st.text(LETTERS, max_size=12), st.integers().map(str), st.floats().map(str)
)
OUTPUTS = st.sampled_from(
    (
        "-",
        "out.json",
        "",
        ".",
        "no/dir/x",
        "o" * 300,
        "/dev/full",
        "t.jsonl",
        "./t.jsonl",
        "npu/gemm_0.csv",
        "run.json",
        "m.csv",
        "\x1b[2J",
        "a\nb",
        "~nouser/x",
        "/",
    )
)
COUNTED = (
    "num_requests",
    "concurrency",
    "num_warmups",
    "gpus",
    "nodes",
    "num_nodes",
    "num_gpus_per_node",
    "encoder_gpus",
)  # a large value is a large question, no attack


def value_of(opt: Opt) -> st.SearchStrategy[str]:
    """Hostile values of an option."""
    if opt.writes:
        return OUTPUTS
    if opt.type in (int, float, list[int]):
        small = st.sampled_from([n for n in NUMBERS if not (opt.name in COUNTED and re.fullmatch(r"\+?[\d_]{4,9}|[23][mG]", n))])
        if opt.name in COUNTED:
            return st.one_of(small, st.sampled_from(JUNK), st.integers(-2, 4).map(str))
        return st.one_of(small, st.sampled_from(JUNK), st.integers(-9, 99).map(str), st.floats(-2, 2).map(str))
    return WORDS


# ---- options -------------------------------------------------------------------------------------------------------

MADE = ("--prompt-len", "64", "--output-len", "6", "--num-requests", "6")
EIGHT = ("llama-3.1-8b", "--gpu", "h100:1")
BASES: dict[str, tuple[tuple[str, ...], ...]] = {
    "plan": (("plan", *EIGHT, *MADE), ("plan", "qwen3-30b-a3b", "--gpu", "l40s:2", *MADE), ("plan", *EIGHT, "--trace", "t.jsonl"),
             ("plan", "llama-3.1-8b", "--gpu", "h100:2", "--disaggregate", *MADE)),
    "simulate": (("simulate", *EIGHT, "--plan", "TP1", *MADE), ("simulate", "mixtral-8x7b", "--gpu", "h200:2", "--tp", "2", *MADE),
                 ("simulate", *EIGHT, "--plan", "TP1", "--trace", "t.jsonl"),
                 ("simulate", "llama-3.1-8b", "--gpu", "h100:2", "--plan", "TP1+TP1", *MADE)),
    "size": (("size", *EIGHT, *MADE, "--ttft", "900"),),
    "fleet": (("fleet", *EIGHT, "--trace", "t.jsonl", "--every", "1s", "--ttft", "900"),),
    "fit": (("fit", *EIGHT), ("fit", "deepseek-v3", "--gpu", "h200:8", "--tp", "8"), ("fit", "qwen3-30b-a3b", "--gpu", "h100:2",
        "--plan", "DEP2")),
    "apex": (("apex", "--model", "llama3-8b", "--num-gpus-per-node", "1", *MADE), ("apex", "--model", "whisper", "--num-gpus-per-node", "1",
             "--num-requests", "4"), ("apex", "--model", "clip", "--num-gpus-per-node", "1", "--num-requests", "4")),
    "compare": (("compare", "before.json", "after.json"),),
    "models": (("models",),), "gpus": (("gpus",),), "engines": (("engines",),), "workloads": (("workloads",),), "schema": (("schema",),),
    "validate": (("validate", "m.csv"),),
    "calibrate": (("calibrate", "run.json", "--model", "llama-3.1-8b", "--plan", "TP1", "--gpu", "h100"),
                  ("calibrate", "--suggest", "llama-3.1-8b", "--gpu", "h100")),
    "fit-host": (("fit-host", "m.csv"),),
    "fit-power": (("fit-power", "m.csv"),),
    "replay": (("replay", "t.jsonl", "--url", "http://127.0.0.1:9", "--model", "llama-3.1-8b"),
               ("replay", "--compare", "run.json", "--model", "llama-3.1-8b", "--plan", "TP1", "--gpu", "h100:1")),
    "trace describe": (("trace", "describe", "t.jsonl"), ("trace", "describe", "t.csv")),
    "trace convert": (("trace", "convert", "t.jsonl"), ("trace", "convert", "t.csv")),
    "trace filter": (("trace", "filter", "t.jsonl"),),
    "trace scale": (("trace", "scale", "t.jsonl"),),
    "trace synth": (("trace", "synth", *MADE), ("trace", "synth", "--like", "t.jsonl", "--num-requests", "5")),
    "trace tokenize": (("trace", "tokenize", "texts.json", "--chars-per-token", "4"),),
    "device check": (("device", "check", "npu"),),
    "device add": (("device", "add", "npu"),),
    "profile gemm": (("profile", "gemm", "--out", "npu", "--gpu", "h100", "--dry-run"),),
}  # fmt: skip
JSON_TOO = tuple(name for name in BASES if any(opt.name == "json" for opt in options_of(name)))


def head(path: Path, lines: int) -> bytes:
    """The first lines of a file."""
    return b"".join(path.read_bytes().splitlines(keepends=True)[:lines])


RUN = {
    "date": "20260101-000000", "mode": "open", "model_id": "m", "request_rate": 2.0, "num_prompts": 3, "duration": 3.0,
    "input_lens": [64, 65, 66], "output_lens": [3, 2, 4], "ttfts": [0.02, 0.03, 0.02], "itls": [[0.01, 0.01], [0.01], [0.01, 0.012, 0.01]],
    "start_times": [0.0, 0.5, 1.0], "latencies": [0.04, 0.04, 0.052], "errors": ["", "", ""], "generated_texts": ["a", "b", "c"],
}  # fmt: skip
RESULT = json.dumps({
    "format": "apexsim.study/2", "inputs": {"model": "m", "plan": "TP1"}, "best": None, "understood": {"engine": {"name": "vllm"}},
    "error_bars": {"comparison": 0.04}, "verdict": {"keeps": True},
    "ranked": [{"shorthand": "TP1", "plan": {"devices": 1, "replicas": 1, "stages": 1},
                "metrics": {"completed": 3, "ttft_ms": {"mean": 5.0}},
                "account": {"seconds": {"ffn": 1.0}}}],
}).encode()  # fmt: skip
TALKS = head(EXAMPLES / "conversations.json", 10_000)
STANDING: dict[str, bytes] = {  # beside every command line
    "t.jsonl": head(EXAMPLES / "creation_05.jsonl", 6),
    "t.csv": head(EXAMPLES / "azure_conversation.csv", 6),
    "m.csv": head(ROOT / "validation/closed_loop.csv", 3),
    "run.json": json.dumps(RUN).encode(),
    "texts.json": TALKS,
    "before.json": RESULT,
    "after.json": RESULT,
    **{f"npu/{path.name}": path.read_bytes() for path in sorted((EXAMPLES / "devices/npu-1").iterdir())},
}
NEEDED = {name: {word for base in bases for word in base if word in STANDING or word == "npu"} for name, bases in BASES.items()}


def standing(command: str) -> dict[str, bytes]:
    """The files that the command lines of a command name."""
    names = NEEDED[command]
    return {name: content for name, content in STANDING.items() if name in names or name.partition("/")[0] in names}


@st.composite
def options(draw: Callable[[Any], Any]) -> Case:
    """A sound command line with hostile options, or with a word of it replaced."""
    command = draw(st.sampled_from(sorted(BASES)))
    words = list(draw(st.sampled_from(BASES[command])))
    for _ in range(draw(st.integers(1, 3))):
        how = draw(st.integers(0, 9))
        opt = draw(st.sampled_from(options_of(command)))
        if how == 0 and len(words) > 1:  # a word is something else; the place of an output stays
            words[draw(st.integers(1, len(words) - 1))] = draw(WORDS)
        elif how == 1 and len(words) > 1:
            del words[draw(st.integers(1, len(words) - 1))]
        elif opt.type is bool:
            words += [opt.flag if how > 2 else f"{opt.flag}={draw(WORDS)}"]
        else:
            value = draw(value_of(opt))
            words += [f"{opt.flag}={value}"] if how == 2 else [draw(st.sampled_from(opt.flags or (opt.flag,))), value]
    if command in JSON_TOO and draw(st.booleans()):
        words += ["--json", "-"]
    return Case(tuple(words), standing(command))


# ---- grammars: plans, limits, names --------------------------------------------------------------------------------

PIECES = ("+mtp:3", "eagle3:", "ngram:1..2",
    "TP", "PP", "DP", "EP", "DEP", "TEP", "tp", "×", "x", "*", "/", "@", "fp8", "bf16", "int4", "nvfp4", "auto", "810MHz", "MHz",
    "1", "2", "4", "8", "0",
          "-1", "99999999999999999999", "1e9", "²", "１", " ", "  ", "+", ":", ",", "[", "(", ")", "+E", "A", "", "@fp8", "/TP2", "2×",
    "PP2×", "kv", "@@")  # fmt: skip
LIMITS = ("ttft", "tpot", "itl", "e2e", "e2el", "queue", "goodput", ":", "=", "<", "<=", ">", "p95", "p50", "p99", "p100", "p0", "mean",
    "max", "min", "500",
          "1", "0", "-1", "1e400", "nan", "inf", "ms", "s", "us", "h", "²", "１", " ", ",", "ttft:p95=1s", "tpot=50ms", "1_0", "",
    "median", "std", "0x1")  # fmt: skip
NAMES = ("h100", "h100-sxm", "l4", "a100", "gb10", ":", "8", "2x8x", "2x", "x", "0", "-1", "@", "1200", "MHz", "99999", "²", "npu", "/",
    ".toml", ".", "..",
         "llama-3.1-8b", "llama", "/", "meta-llama/", "Llama-3.1-8B", ".json", "~", "\\", "C:", "vllm", "sglang", "@0.19.0", "@1", "@",
    "trtllm", "orca", "apex")  # fmt: skip


def spelled(pieces: tuple[str, ...], most: int = 6) -> st.SearchStrategy[str]:
    """Pieces of a grammar in any order."""
    return st.one_of(
        st.lists(st.sampled_from(pieces), max_size=most).map("".join),
        st.lists(st.one_of(st.sampled_from(pieces), WORDS), max_size=3).map("".join),
    )


@st.composite
def plans(draw: Callable[[Any], Any]) -> Case:
    """Plans as nobody spells them."""
    text = draw(spelled(PIECES))
    base = draw(st.sampled_from((
        ("simulate", "llama-3.1-8b", "--gpu", "h100:2", *MADE), ("simulate", "qwen3-30b-a3b", "--gpu", "h100:4", *MADE), ("fit",
            "llama-3.1-8b", "--gpu", "h100:2"),
        ("fit", "deepseek-v3", "--gpu", "h200:8"),
    )))  # fmt: skip
    return Case((*base, "--plan", text, "--json", "-"))


@st.composite
def limits(draw: Callable[[Any], Any]) -> Case:
    """Limits, objectives and prices as nobody spells them."""
    words: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        flag = draw(st.sampled_from(("--speculate", "--acceptance",
            "--slo", "--ttft", "--tpot", "--goodput", "--objective", "--price", "--power-cap", "--pue",
            "--server-overhead", "--quant",
                                     "--clock", "--image-size", "--route", "--too-long", "--expert-load", "--map",
            "--time-unit")))  # fmt: skip
        words += [flag, draw(st.one_of(spelled(LIMITS), WORDS))]
    base = draw(
        st.sampled_from(
            (("simulate", *EIGHT, "--plan", "TP1", *MADE), ("plan", *EIGHT, *MADE), ("plan", "mixtral-8x7b", "--gpu", "h100:2", *MADE))
        )
    )
    return Case((*base, *words, "--json", "-"))


@st.composite
def names(draw: Callable[[Any], Any]) -> Case:
    """Names of models, GPUs, engines and commands that nobody has."""
    word = draw(st.one_of(spelled(NAMES), WORDS))
    return Case(tuple(draw(st.sampled_from((
        ("fit", word, "--gpu", "h100:1", "--json", "-"), ("fit", "qwen3-8b", "--gpu", word, "--json", "-"), ("fit", *EIGHT, "--engine",
            word, "--json", "-"),
        ("plan", *EIGHT, *MADE, "--engine", word, "--json", "-"), ("simulate", *EIGHT, "--plan", "TP1", *MADE, "--gpus", word, "--json",
            "-"),
        ("models", word, "--json", "-"), ("gpus", word), ("engines", word, "--json", "-"), ("workloads", word, "--json", "-"),
        ("schema", word), (word,), ("trace", word),
        ("help", word), (word, "--help"),
        ("apex", "--model", word, "--num-gpus-per-node", "1", *MADE), ("apex", "--model", "llama3-8b", "--gpu", word,
            "--num-gpus-per-node", "1", *MADE),
    )))))  # fmt: skip


# ---- values in files -----------------------------------------------------------------------------------------------

HUGE = 10**400
ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.sampled_from((HUGE, -HUGE, 2**31, 2**63, 2**64, 10**18, 10**12, 10**7, 65536)),
    st.floats(),
    st.sampled_from((1e300, 1e-300, 0.0, -0.0, 0.5, 1.5)), st.sampled_from(JUNK), st.sampled_from(NUMBERS), st.text(max_size=8),
    st.just([]), st.just({}),
    st.lists(st.one_of(st.none(), st.integers(-2, 9), st.text(max_size=3), st.floats()), max_size=4),
    st.dictionaries(st.text(max_size=4), st.one_of(st.none(), st.integers(-2, 9), st.text(max_size=3)), max_size=3),
    st.just([[[[1]]]]), st.just({"a": {"b": {"c": 1}}}),
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    found: list[tuple[Any, Any]] = []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found += [(value, key), *places(inner)]
    return found


@st.composite
def mutated(draw: Callable[[Any], Any], value: Any, most: int = 3) -> Any:
    """A JSON value with odd values, missing keys, other types."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, most))):
        at = places(value)
        if not at:
            break
        inside, key = at[draw(st.integers(0, len(at) - 1))]
        old, how = inside[key], draw(st.integers(0, 9))
        if how == 0:
            del inside[key]
        elif how == 1:
            inside[key] = [old]
        elif how == 2:
            inside[key] = str(old)
        elif how == 3 and isinstance(old, (int, float)) and not isinstance(old, bool):
            inside[key] = draw(
                st.sampled_from(
                    (
                        -old,
                        old * 2,
                        old * 1000003,
                        old + 1,
                        old * 0.5 if abs(old) < 1e200 else 0,
                        0 * old,
                        old * 1e30 if abs(old) < 1e200 else 1,
                    )
                )
            )
        elif how == 4 and isinstance(inside, dict):
            inside[draw(st.text(max_size=6))] = deepcopy(draw(ODD))
        elif how == 5 and isinstance(inside, list):
            inside.extend([old] * draw(st.integers(1, 5)))
        else:
            inside[key] = deepcopy(draw(ODD))
    return value


def dumped(value: Any) -> bytes:
    """JSON, as Python writes it: NaN, infinity and half pairs included."""
    return json.dumps(value).encode()


SPOILERS = (b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b",", b'"', b"'", b"{", b"}", b"[", b"]", b":", b";", b"\t",
    b"\x1b[2J", b"\xed\xa0\xbd", b"NaN",
            b"-", b"1e999", b"9" * 30, b"9" * 400, b"9" * 5000, b" ", b"null", b"\\", b"\\u0000", b"\\ud83d", b"\xe2\x80\xa8", b"\x85",
    b"0x1f", b"=", b"#", b"|",
            b'""', b"-1", b"0", b"1.5", b"true", b"--", b"\x1a", b"[" * 3000, b"{\"a\":" * 3000)  # fmt: skip


@st.composite
def spoiled(draw: Callable[[Any], Any], content: bytes, most: int = 3) -> bytes:
    """Bytes with pieces cut out, doubled, replaced by something hostile, cut short, packed and damaged."""
    made = content
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(len(made), 1)))
        end = min(len(made), at + draw(st.sampled_from((0, 1, 1, 2, 5, 20, 100))))
        how = draw(st.integers(0, 11))
        if how <= 5:
            made = made[:at] + draw(st.sampled_from(SPOILERS)) + made[end:]
        elif how == 6:
            made = made[:at] + made[end:]
        elif how == 7:
            made = made[:at]
        elif how == 8:
            made = made[:end] + made[at:]
        elif how == 9:
            made = made[:at] + draw(st.binary(max_size=4)) + made[end:]
        else:  # a field or number is something else
            fields = [m.span() for m in re.finditer(rb"[^\s,:\[\]{}]+", made)][:400]
            if fields:
                a, b = fields[draw(st.integers(0, len(fields) - 1))]
                made = made[:a] + draw(st.one_of(st.sampled_from(SPOILERS), st.sampled_from(NUMBERS).map(lambda t: t.encode()))) + made[b:]
    wrap = draw(st.integers(0, 19))
    if wrap == 0:
        packed = gzip.compress(made, mtime=0)
        cut = draw(st.integers(0, len(packed)))
        return packed if draw(st.booleans()) else packed[:cut] + draw(st.binary(max_size=2)) + packed[cut + draw(st.integers(0, 1)) :]
    if wrap == 1:
        return made.decode("utf-8", "replace").encode(
            draw(st.sampled_from(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1"))), "replace"
        )
    return (
        made.rstrip(b"\n")
        if wrap == 2
        else made.replace(b"\n", b"\r\n")
        if wrap == 3
        else made.replace(b"\n", b"\r")
        if wrap == 4
        else made
    )


CONFIGS = sorted(DATA.glob("models/*.json"))
QUANTISATIONS = (
    {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}, {"quant_method": "gptq", "bits": 4,
        "group_size": 128},
    {"quant_method": "awq", "bits": 4, "group_size": 128, "modules_to_not_convert": ["lm_head"]}, {"quant_method": "bitsandbytes",
        "load_in_4bit": True},
    {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {"weights": {"num_bits": 4,
        "type": "int", "group_size": 128,
     "strategy": "group"}, "input_activations": None, "targets": ["Linear"]}}, "ignore": ["lm_head"], "kv_cache_scheme": None},
    {"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": ["lm_head"], "kv_cache_quant_algo": "FP8"},
    {"quant_method": "mxfp4"},
    {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}, "input_tensors": {"dtype": "fp8_e4m3"}}},
    {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 128}}}},
    {"quant_method": "zzz", "bits": 4},
    {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}, {"quant_method": "auto-round",
        "bits": 4, "group_size": 128},
    {"quant_method": "fbgemm_fp8"}, {"quant_method": "higgs", "bits": 4}, {"quant_method": "exl2", "bits": 4.5},
    {"quant_method": "aqlm"}, {"quant_method": "eetq"},
)  # fmt: skip


@st.composite
def config(draw: Callable[[Any], Any]) -> Case:
    """Configurations of bundled models, mutated."""
    value = json.loads(draw(st.sampled_from(CONFIGS)).read_text(encoding="utf-8"))
    if draw(st.integers(0, 3)) == 0:
        value["quantization_config"] = draw(st.sampled_from(QUANTISATIONS))
    if draw(st.integers(0, 7)) == 0:
        content = draw(spoiled(json.dumps(value).encode()))
    elif "quantization_config" in value and draw(st.booleans()):
        value["quantization_config"] = draw(mutated(value["quantization_config"]))
        content = dumped(value)
    else:
        content = dumped(draw(mutated(value)))
    how = draw(st.integers(0, 9))
    files = {"m/config.json" if how < 8 else "m.json": content}
    if how == 0:
        files["m/hf_quant_config.json"] = dumped(draw(mutated({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8",
            "kv_cache_quant_algo": "FP8",
                                                  "exclude_modules": ["lm_head"], "group_size": 16}})))  # fmt: skip
    model, gpu = ("m" if how < 8 else "m.json"), draw(st.sampled_from(("h100:8", "b200:8", "h200:1")))
    if draw(st.integers(0, 5)) == 0:
        return Case(("plan", model, "--gpu", gpu, *MADE, "--json", "-"), files)
    return Case(("fit", model, "--gpu", gpu, "--json", "-"), files)


GPUS = sorted(DATA.glob("gpus/*.toml"))
CELLS = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(("nan", "inf", "-inf", "''", '"x"', "[]", "[1]", "{}", "{a=1}", "true",
    "1979-05-27", "'''", "1e400", "-1", "0",
                  "1e-300", "1e300", '"\\u0000"', '"\\ud83d"', '"\\u001b[2J"', "9" * 400, "0.5", "[1,2,3]", '["a","b"]')))  # fmt: skip


@st.composite
def gpu(draw: Callable[[Any], Any]) -> Case:
    """GPU files with other values, without lines, with lines twice, spoiled."""
    lines = draw(st.sampled_from(GPUS)).read_text(encoding="utf-8").splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at, how = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, 8))
        if how == 0 and len(lines) > 1:
            del lines[at]
        elif how == 1:
            lines.insert(draw(st.integers(0, len(lines))), lines[at])
        elif "=" in lines[at]:
            lines[at] = f"{lines[at].partition('=')[0]}= {draw(CELLS)}"
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    content = draw(spoiled(content)) if draw(st.integers(0, 5)) == 0 else content
    words = draw(st.sampled_from((("fit", "qwen3-8b", "--gpu", "g.toml:1"), ("simulate", "qwen3-8b", "--plan", "TP1", "--gpu",
        "g.toml:1", *MADE), ("plan", "mixtral-8x7b",
                                  "--gpu", "g.toml:8", *MADE), ("simulate", "qwen3-8b", "--plan", "TP2", "--gpu", "g.toml@1200:2",
                                      *MADE))))  # fmt: skip
    return Case((*words, "--json", "-"), {"g.toml": content})


@st.composite
def device(draw: Callable[[Any], Any]) -> Case:
    """Device folders with spoiled tables and figures."""
    files = {
        f"npu/{path.name}": head(path, draw(st.sampled_from((3, 12, 10_000)))) for path in sorted((EXAMPLES / "devices/npu-1").iterdir())
    }
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(files)))
        files[name] = draw(spoiled(files[name]))
    if draw(st.integers(0, 4)) == 0:
        files.pop(draw(st.sampled_from(sorted(files))))
    words = draw(st.sampled_from((("device", "check", "npu"), ("device", "check", "npu"), ("fit", "qwen3-8b", "--gpu", "npu:1"),
                                  ("simulate", "qwen3-8b", "--plan", "TP1", "--gpu", "npu:1", *MADE), ("plan", "mixtral-8x7b", "--gpu",
                                      "npu:8", *MADE))))  # fmt: skip
    return Case((*words, "--json", "-"), files)


ONCE = {**{name: text.encode() for name, text in SAMPLES.items()}, "creation": head(EXAMPLES / "creation_05.jsonl", 5),
        "mooncake-real": head(EXAMPLES / "mooncake_conversation.jsonl", 2), "azure-real": head(EXAMPLES / "azure_conversation.csv", 5),
        "run": dumped(RUN), "tabs": b"start_time\tinput_tokens\toutput_tokens\n1\t5\t6\n2\t7\t8\n",
        "dates": b"date,prompt_tokens,completion_tokens\n02/03/2026 10:00:00 PM,5,6\n02/04/2026 10:00:00 PM,7,8\n"}  # fmt: skip


@st.composite
def traces(draw: Callable[[Any], Any]) -> Case:
    """Traces of all formats: spoiled bytes, and rows with odd values."""
    name = draw(st.sampled_from(sorted(ONCE)))
    content = ONCE[name]
    if content[:1] == b"{" and draw(st.booleans()):
        try:
            rows = [json.loads(line) for line in content.splitlines()]
            rows[-1] = draw(mutated(rows[-1]))
            content = b"\n".join(map(dumped, rows))
        except ValueError:
            content = draw(spoiled(content))
    else:
        content = draw(spoiled(content))
    words = draw(st.sampled_from((
        ("trace", "describe", "t", "--json", "-"), ("trace", "describe", "t", "--skip-bad", "3", "--json", "-"), ("trace", "convert",
            "t", "--to", "mooncake"),
        ("trace", "convert", "t", "--to", "azure", "--skip-bad", "9"), ("trace", "convert", "t", "--to", "request-log", "-o", "u"),
        ("trace", "scale", "t", "--request-rate", "2"),
        ("trace", "filter", "t", "--max-context", "4096"), ("trace", "synth", "--like", "t", "--num-requests", "3"), ("trace",
            "describe", "t", "--time-unit", "us"),
        ("trace", "describe", "t", "--format", "apex"), ("trace", "describe", "t", "--map", "time=t,in=in,out=out"),
        ("simulate", "qwen3-8b", "--plan", "TP1", "--gpu", "h100:1", "--trace", "t", "--json", "-"), ("plan", "qwen3-8b", "--gpu",
            "h100:1", "--trace", "t",
         "--request-rate", "2", "--too-long", "clip", "--json", "-"), ("apex", "--model", "llama3-8b", "--num-gpus-per-node", "1",
             "--trace-file", "t"),
    )))  # fmt: skip
    return Case(words, {"t": content})


LOG = (EXAMPLES / "qwen3-8b-startup.log").read_bytes()


@st.composite
def log(draw: Callable[[Any], Any]) -> Case:
    """Start-up logs."""
    return Case(
        ("fit", "qwen3-8b", "--gpu", "h100:1", "--max-model-len", "8192", "--log", "l", "--json", "-"), {"l": draw(spoiled(LOG, 4))}
    )


@st.composite
def measured(draw: Callable[[Any], Any]) -> Case:
    """Result files of a run that was sent."""
    content = draw(spoiled(dumped(RUN))) if draw(st.integers(0, 3)) == 0 else dumped(draw(mutated(RUN, 4)))
    words = ("replay", "--compare", "r.json", "--model", "qwen3-8b", "--plan", "TP1", "--gpu", "h100:1")
    more = draw(st.sampled_from(((), ("--warmup", "1"), ("--json", "-"), ("--json", "-"), ("--json", "out.json"))))
    return Case((*words, *more), {"r.json": content})


@st.composite
def experts(draw: Callable[[Any], Any]) -> Case:
    """Counts of tokens by expert."""
    base = draw(st.sampled_from(([10, 1, 1, 1, 1, 1, 1, 1], [[5, 1, 1, 1, 1, 1, 1, 1], [1, 2, 3, 4, 5, 6, 7, 8]], [1] * 8)))
    content = draw(st.one_of(spoiled(dumped(base)), mutated(base).map(dumped), ODD.map(dumped)))
    plan = draw(st.sampled_from(("TP2", "TEP2", "DEP2")))
    return Case(
        ("simulate", "mixtral-8x7b", "--gpu", "h200:2", "--plan", plan, *MADE, "--expert-load", "e.json", "--json", "-"),
        {"e.json": content},
    )


TABLES = {name: head(ROOT / f"validation/{name}.csv", 3) for name in ("closed_loop", "open_loop", "request_level")}


@st.composite
def tables(draw: Callable[[Any], Any]) -> Case:
    """Measured systems."""
    content = draw(spoiled(TABLES[draw(st.sampled_from(sorted(TABLES)))], 4))
    words = draw(
        st.sampled_from(
            (
                ("validate", "m.csv", "--json", "-"),
                ("validate", "m.csv", "--json", "-"),
                ("validate", "m.csv"),
                ("fit-power", "m.csv"),
                ("fit-host", "m.csv"),
            )
        )
    )
    return Case(words, {"m.csv": content})


TEXTS = {"talks": TALKS[:3000], "csv": b"prompt,response\nhello world,hi there\nWhat is it?,Nothing.\n",
    "jsonl": b'{"prompt": "a b", "output": "c"}\n{"prompt": "d", "output": "e f"}\n',
         "batch": b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":'
                  b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":9}}\n',
         "chats": dumped([{"messages": [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": "d"}]}]),
    "plain": b"one prompt\nanother one\n"}  # fmt: skip
TOKENS = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None,
          "decoder": None, "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1, "b": 2}, "unk_token": "[UNK]"}}  # fmt: skip


@st.composite
def texts(draw: Callable[[Any], Any]) -> Case:
    """Datasets of texts, and tokenizers."""
    name = draw(st.sampled_from(sorted(TEXTS)))
    content = TEXTS[name]
    if name in ("jsonl", "batch") and draw(st.booleans()):
        content = b"\n".join(dumped(draw(mutated(json.loads(line)))) for line in content.splitlines())
    else:
        content = draw(spoiled(content))
    files = {"d": content}
    how = draw(st.sampled_from((("--chars-per-token", "4"), ("--tokens-per-word", "1.3", "--turns", "all"), ("--chars-per-token", "3",
        "--skip-bad", "9", "--to", "mooncake"),
                                ("--tokenizer", "tok/tokenizer.json"))))  # fmt: skip
    if how[0] == "--tokenizer":
        files["tok/tokenizer.json"] = draw(st.one_of(st.just(dumped(TOKENS)), spoiled(dumped(TOKENS)), mutated(TOKENS).map(dumped)))
    return Case(("trace", "tokenize", "d", *how, "--output-len", "5") if draw(st.booleans()) else ("trace", "tokenize", "d", *how), files)


KINDS: dict[str, st.SearchStrategy[Case]] = {
    "options": options(), "plans": plans(), "limits": limits(), "names": names(), "config": config(), "gpu": gpu(), "device": device(),
    "traces": traces(),
    "log": log(), "measured": measured(), "experts": experts(), "tables": tables(), "texts": texts(),
}  # fmt: skip
