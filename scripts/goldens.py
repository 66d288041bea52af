"""Three hundred questions and what was answered, so that moving the code about can be seen to change nothing.

    python scripts/goldens.py record FILE     ask them all and write down the answers
    python scripts/goldens.py check FILE      ask those of the file again; says which answers differ, and where
    python scripts/goldens.py ask FILE N      show question N and its answer now

Questions are drawn with a seed over all commands, models, GPUs, engines, workloads and formats, and asked in this process.  Of each
answer the file keeps the exit code, a hash of the whole, one of each part (so that a difference can be found) and a few figures.
Numbers are compared to nine digits: the last ones may hang on the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

FORMAT = "apexsim.goldens/1"
SEED, COUNT, DIGITS = 20_261_126, 300, 9
MODELS = (
    "llama-3.1-8b", "llama-3.1-70b", "qwen3-8b", "qwen--qwen3-30b-a3b", "qwen--qwen3-235b-a22b", "mixtral-8x7b", "openai--gpt-oss-20b",
    "openai--gpt-oss-120b", "google--gemma-2-9b-it", "google--gemma-2-27b-it", "deepseek-ai--deepseek-v2-lite", "deepseek-v3",
    "deepseek-ai--deepseek-v3.2", "qwen3-next-80b-a3b", "moonshotai--kimi-k2-instruct", "microsoft--phi-4", "gpt2", "qwen2.5-vl-7b",
    "minimaxai--minimax-m2.5", "qwen--qwen1.5-moe-a2.7b",
)  # fmt: skip
GPUS = (
    "h100:1", "h100:2", "h100:4", "h100:8", "2x8xh100", "h200:8", "h200:2", "b200:4", "b200:8", "a100-sxm:4", "a100-sxm:8", "l4:1",
    "l40s:4", "rtx-4090:2", "rtx-pro-6000:1", "mi300x:8", "gb200:4", "4x4xgb200", "b300:8", "gb10:1",
)  # fmt: skip
ENGINES = ("vllm", "vllm", "vllm@0.6.0", "vllm@0.10.0", "vllm@0.19.0", "sglang", "sglang", "trtllm", "sarathi", "orca", "apex")
WORDS = {  # of the largest step and of the sequences, by engine
    "sglang": ("--chunked-prefill-size", "--max-running-requests", "--mem-fraction-static"),
    "trtllm": ("--max-num-tokens", "--max-batch-size", "--free-gpu-memory-fraction"),
}
OWN = ("--max-num-batched-tokens", "--max-num-seqs", "--gpu-memory-utilization")
PLANS = {1: ("TP1", "TP1@fp8"), 2: ("TP2", "2×TP1", "PP2×TP1", "DEP2"), 4: ("TP4", "2×TP2", "PP2×TP2", "DEP4", "TP4@fp8"),
         8: ("TP8", "2×TP4", "PP2×TP4", "DEP8", "TEP8", "8×TP1", "DP2TP4/TP8", "TP8@fp8"),
         16: ("TP16", "DEP16", "PP2×TP8", "2×DEP8")}  # fmt: skip
ODD = 25  # questions that the command line refuses: so many are enough
TRACES = ("creation", "lmsys", "summarization", "azure", "mooncake", "conversations")
Draw = random.Random


# ---- questions ----------------------------------------------------------------------------------------------------------


def some(rng: Draw, share: float, *words: str) -> list[str]:
    """The words, in a share of the questions."""
    return list(words) if rng.random() < share else []


def load(rng: Draw) -> list[str]:
    """A stream of requests: lengths with arrivals, users or all at once, or a trace."""
    if rng.random() < 0.1:
        return ["--trace", f"example:{rng.choice(TRACES)}"]
    words = ["--prompt-len", str(rng.choice([20, 128, 1000, 3000, 7000])), "--output-len", str(rng.choice([1, 16, 100, 250]))]
    words += ["--num-requests", str(rng.choice([16, 40, 90])), *some(rng, 0.1, "--warmup", "4")]
    coming = (["--request-rate", str(rng.choice([0.3, 2, 8])), *some(rng, 0.3, "--seed", "7")],
              ["--concurrency", str(rng.choice([1, 4, 24, 64]))], [])  # fmt: skip
    return words + rng.choice(coming)


def settings(rng: Draw) -> list[str]:
    """Engine, its settings in its own words, and the format of the cache."""
    engine = rng.choice(ENGINES)
    tokens, sequences, memory = WORDS.get(engine, OWN)
    words = ["--engine", engine, *some(rng, 0.2, tokens, str(rng.choice([512, 2048, 16384])))]
    words += some(rng, 0.2, sequences, str(rng.choice([8, 64, 300]))) + some(rng, 0.1, memory, "0.8")
    return words + some(rng, 0.1, "--kv-cache-dtype", "fp8") + some(rng, 0.12, "--max-model-len", rng.choice(["8192", "16384"]))


def goal(rng: Draw) -> list[str]:
    """What counts."""
    names = ("e2e", "ttft:p99", "tpot", "itl:p95", "throughput", "cost", "energy", "wall-energy")
    words = some(rng, 0.5, "--objective", rng.choice(names)) + some(rng, 0.25, "--slo", rng.choice(["ttft:p95=400ms", "tpot:p95=25ms"]))
    words += some(rng, 0.1, "--power-cap", "500") + some(rng, 0.08, "--goodput", "ttft:500", "tpot:40")
    return words + some(rng, 0.15, "--price", rng.choice(["2.5", "neocloud"]))


def plan(rng: Draw) -> list[str]:
    words = ["plan", rng.choice(MODELS), "--gpu", rng.choice(GPUS), *load(rng), *settings(rng), *goal(rng)]
    words += some(rng, 0.15, "--quant", rng.choice(["fp8", "auto,fp8", "int4"]))
    return words + some(rng, 0.1, "--hypothetical") + some(rng, 0.05, "--clock", "1200,1500") + some(rng, 0.1, "--tp", "2")


def count_of(gpu: str) -> int:
    """GPUs that a spelling such as 2x8xh100 or h100:8 counts."""
    if ":" in gpu:
        return int(gpu.partition(":")[2])
    nodes, each, _ = gpu.split("x", 2)
    return int(nodes) * int(each)


def simulate(rng: Draw) -> list[str]:
    gpu = rng.choice(GPUS)
    words = ["simulate", rng.choice(MODELS), "--gpu", gpu, "--plan", rng.choice(PLANS[count_of(gpu)]), *load(rng), *settings(rng)]
    return words + goal(rng) + some(rng, 0.1, "--route", "least-outstanding")


def fit(rng: Draw) -> list[str]:
    gpu = rng.choice(GPUS)
    widths = [str(n) for n in (1, 2, 4, 8) if n <= count_of(gpu)]
    return ["fit", rng.choice(MODELS), "--gpu", gpu, *some(rng, 0.6, "--tp", rng.choice(widths)), *settings(rng)]


def catalogue(rng: Draw) -> list[str]:
    return rng.choice([["models", rng.choice(["qwen", "llama", "deepseek", "zzz", "gemma"])], ["models"], ["gpus"], ["engines"],
                       ["gpus", rng.choice(["h100", "b200-sxm", "mi300x", "l4"])], ["engines", rng.choice(["vllm", "sglang", "orca"])],
                       ["models", rng.choice(MODELS)]])  # fmt: skip


def trace(rng: Draw) -> list[str]:
    return ["trace", "describe", f"example:{rng.choice(TRACES)}"]


def apex(rng: Draw) -> list[str]:
    model = rng.choice(["llama3-70b", "mixtral-8x7b-local", "whisper", "gpt3-15b"])
    return ["apex", "--model", model, "--num-gpus-per-node", rng.choice(["1", "2", "4"]), "--prompt-len", "64", "--output-len", "8",
            "--num-requests", "12"]  # fmt: skip


COMMANDS: Mapping[Callable[[Draw], list[str]], int] = {plan: 36, simulate: 34, fit: 18, catalogue: 5, trace: 4, apex: 3}


def questions(seed: int = SEED) -> Iterator[list[str]]:
    """Command lines without their --json, without end, each once; the same for the same seed."""
    rng, seen = random.Random(seed), set[tuple[str, ...]]()
    makers = [maker for maker, weight in COMMANDS.items() for _ in range(weight)]
    while True:
        words = rng.choice(makers)(rng)
        if tuple(words) not in seen:
            seen.add(tuple(words))
            yield words


# ---- answers ------------------------------------------------------------------------------------------------------------


def answered(words: list[str]) -> tuple[int, str, str]:
    """Exit code, standard output and error of a command line with --json."""
    from apexsim.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([*words, "--json", "-"])
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


def canonical(value: Any) -> Any:
    """The value with its numbers to DIGITS digits."""
    if isinstance(value, dict):
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, float):  # what is no more than rounding, such as the deviation of equal times, is none
        return float(f"{value:.{DIGITS}g}") if abs(value) > 10.0**-DIGITS else 0.0
    return value


def digest(value: Any, length: int = 8) -> str:
    """A short hash of a canonical value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:length]


def figures(told: Any) -> dict[str, Any]:
    """A few numbers of an answer that say what changed."""
    if not isinstance(told, dict):
        return {"entries": len(told)} if isinstance(told, list) else {}
    found: dict[str, Any] = {name: told[name] for name in ("best", "plan", "kv_tokens", "max_concurrency") if name in told}
    rows = told.get("ranked") or []
    if rows:
        metrics = rows[0].get("metrics", {})
        found |= {"plans": len(rows), "ttft_ms": metrics.get("ttft_ms", {}).get("mean"), "e2el_ms": metrics.get("e2el_ms", {}).get("mean")}
    return {name: canonical(value) for name, value in found.items() if not isinstance(value, dict | list)}


def answer(words: list[str]) -> dict[str, Any]:
    """What is kept of a question's answer."""
    code, out, err = answered(words)
    told = canonical(json.loads(out)) if out.strip() else {"said": err}
    parts = {key: digest(value) for key, value in told.items()} if isinstance(told, dict) else {}
    return {"ask": words, "code": code, "hash": digest([code, told], 16), "figures": figures(told), "parts": parts}


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """How an answer differs from the one that was kept; "" where it does not."""
    if before["hash"] == now["hash"]:
        return ""
    if before["code"] != now["code"]:
        return f"exit code {before['code']} -> {now['code']}"
    old, new = before["parts"], now["parts"]
    where = [key for key in [*old, *(k for k in new if k not in old)] if old.get(key) != new.get(key)]
    moved = [f"{k} {before['figures'].get(k)} -> {v}" for k, v in now["figures"].items() if before["figures"].get(k) != v]
    return f"differs in {', '.join(where) or 'its entries'}" + (f" ({'; '.join(moved)})" if moved else "")


def checked(kept: list[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    """(number, difference) of each kept answer."""
    for row in kept:
        yield row["number"], difference(row, answer(row["ask"]))


def kept_in(file: Path) -> list[dict[str, Any]]:
    """The answers of a file, numbered."""
    rows = json.loads(file.read_text(encoding="utf-8"))["answers"]
    return [{"number": number, **row} for number, row in enumerate(rows)]


def record(file: Path) -> None:
    """Ask all questions and write the answers, one a line."""
    rows: list[dict[str, Any]] = []
    for words in questions():
        found = answer(words)
        if found["code"] != 2 or sum(row["code"] == 2 for row in rows) < ODD:
            rows.append(found)
        if len(rows) == COUNT:
            break
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'{{"format":"{FORMAT}","answers":[\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """0 when no answer differs."""
    parser = argparse.ArgumentParser(prog="goldens", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("record", "check", "ask"))
    parser.add_argument("file", type=Path)
    parser.add_argument("number", type=int, nargs="?", default=0)
    args = parser.parse_args(argv)
    start = time.monotonic()
    if args.verb == "record":
        record(args.file)
        return 0
    if not args.file.is_file():
        parser.error(f"no file {args.file}: make it with record")
    kept = kept_in(args.file)
    if not 0 <= args.number < len(kept):
        parser.error(f"{args.file} has questions 0 to {len(kept) - 1}, none {args.number}")
    if args.verb == "ask":
        words = kept[args.number]["ask"]
        print("apexsim", *words, answered(words)[1], sep="\n")
        return 0
    wrong = 0
    for number, told in checked(kept):
        if told:
            wrong += 1
            print(f"{number:3d} apexsim {' '.join(kept[number]['ask'])}\n    {told}", flush=True)
    print(f"{len(kept) - wrong} of {len(kept)} answers are as they were ({time.monotonic() - start:.0f} s)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
