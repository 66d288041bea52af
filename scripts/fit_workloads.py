"""Writes src/apexsim/data/workloads.toml anew from public traces.

    python scripts/fit_workloads.py FOLDER > src/apexsim/data/workloads.toml

What each preset is made of, and where to get it, stands in `SOURCES`; the files are looked for in FOLDER.  Of a trace the
percentiles of prompt and output and their rank correlation are taken; of a source that only gives statistics, its
quartiles, and two upper percentiles such that its mean and standard deviation come out.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apexsim.workload.stream import read_trace

Floats = NDArray[np.float64]
LEVELS = (0, 1, *range(5, 100, 5), 97, 98, 99, 99.5, 99.9, 100)
LENGTHS = ("prompt", "output")


@dataclass(frozen=True)
class Figures:
    """What a source gives: lengths at percentiles, the rank correlation, the number of requests."""

    percent: tuple[float, ...]
    prompt: Floats
    output: Floats
    rank_correlation: float
    requests: int


@dataclass(frozen=True)
class Source:
    """One preset: what it stands for, where it is from, and how its figures are got from the folder."""

    about: str
    source: str
    url: str
    licence: str
    figures: Callable[[Path], Figures]
    note: str = ""


def ranks(values: Floats, weight: Floats) -> Floats:
    """Mean rank of each value, as a share; equal values share theirs."""
    _, at = np.unique(values, return_inverse=True)
    mass = np.bincount(at, weight)
    return ((np.cumsum(mass) - 0.5 * mass) / mass.sum())[at]


def of_pairs(prompt: Floats, output: Floats, weight: Floats | None = None, requests: int = 0) -> Figures:
    """Percentiles and rank correlation of pairs of lengths, each counted `weight` times."""
    w = np.ones(len(prompt)) if weight is None else weight
    x, y = ranks(prompt, w), ranks(output, w)
    x, y = x - np.average(x, weights=w), y - np.average(y, weights=w)
    rho = float((w * x * y).sum() / np.sqrt((w * x * x).sum() * (w * y * y).sum()))
    return Figures(LEVELS, percentiles(prompt, w), percentiles(output, w), rho, requests or len(prompt))


def percentiles(values: Floats, weight: Floats) -> Floats:
    """Lengths at `LEVELS`."""
    order = np.argsort(values, kind="stable")
    mass = np.cumsum(weight[order])
    at = np.searchsorted(mass, np.array(LEVELS) / 100.0 * mass[-1] * (1.0 - 1e-12))
    return values[order][np.minimum(at, len(values) - 1)]


def trace(name: str) -> Callable[[Path], Figures]:
    """The figures of a trace in any format that apexsim reads."""

    def read(folder: Path) -> Figures:
        found = read_trace(folder / name)
        return of_pairs(found.prompt.astype(float), found.output.astype(float))

    return read


def servegen(name: str) -> Callable[[Path], Figures]:
    """The figures of a folder of ServeGen: customers, their rates by ten minutes, their lengths by six hours.

    Within a customer and a window prompt and output are published apart: they count as independent there.
    """

    def read(folder: Path) -> Figures:
        weights, marginals = [], []
        for file in sorted((folder / name).glob("chunk-*-dataset.json")):
            rows = [line.split(",") for line in file.with_name(file.name.replace("-dataset.json", "-trace.csv")).read_text().split()]
            rate = np.array([[float(row[0]), float(row[1])] for row in rows])
            windows = {int(key): value for key, value in json.loads(file.read_text()).items()}
            for begin, fields in windows.items():
                pdfs = [ast.literal_eval(fields[f"{kind}_tokens"]) for kind in ("input", "output")]
                inside = (rate[:, 0] >= begin) & (rate[:, 0] < begin + 21_600)
                served = float(rate[inside, 1].sum()) * 600.0
                if all(pdfs) and served > 0:
                    weights.append(served)
                    marginals.append([(np.maximum(1.0, np.array(list(p), dtype=float)), np.array(list(p.values()))) for p in pdfs])
        drawn = np.random.default_rng(0)
        share = np.array(weights) / sum(weights)
        pairs = [np.column_stack([drawn.choice(x, size, p=p / p.sum()) for x, p in both])
                 for both, size in zip(marginals, np.maximum(1, np.rint(share * 1_000_000)).astype(int))]  # fmt: skip
        whole = np.concatenate(pairs)
        return of_pairs(whole[:, 0], whole[:, 1], requests=round(sum(weights)))

    return read


def stated(requests: int, prompt: tuple[float, ...], output: tuple[float, ...]) -> Callable[[Path], Figures]:
    """Figures of statistics: (minimum, quartiles, maximum, mean, standard deviation) of each length."""

    def made(_: Path) -> Figures:
        return Figures((0, 25, 50, 75, 90, 99, 100), completed(*prompt), completed(*output), 0.0, requests)

    return made


def completed(low: float, q1: float, median: float, q3: float, high: float, mean: float, std: float) -> Floats:
    """Lengths at 0, 25, 50, 75, 90, 99 and 100 percent: the upper two such that mean and deviation come nearest."""
    mass = np.array([0.25, 0.25, 0.25, 0.15, 0.09, 0.01])
    best, found = np.inf, np.zeros(7)
    for p90 in np.geomspace(q3 * 1.001, high, 400):
        for p99 in np.geomspace(p90, high, 200):
            x = np.array([low, q1, median, q3, p90, p99, high])
            m = float((mass * (x[1:] + x[:-1])).sum()) / 2.0
            square = float((mass * (x[1:] ** 2 + x[1:] * x[:-1] + x[:-1] ** 2)).sum()) / 3.0
            off = abs(np.log(m / mean)) * 4.0 + abs(np.log(np.sqrt(max(square - m * m, 1e-9)) / std))
            if off < best:
                best, found = off, x
    return found


AZURE = "https://github.com/Azure/AzurePublicDataset"
APEX_PLUS = "https://github.com/microsoft/apex_plus"
SOURCES = {
    "chat": Source("answers to people who write to an assistant, with what was said before",
                   "Azure LLM inference trace 2023, conversation", AZURE, "CC-BY-4.0", trace("AzureLLMInferenceTrace_conv.csv"),
                   "of November 2023: later assistants write more"),
    "rag": Source("questions answered from retrieved passages, with history and web pages",
                  "RAGPulse, a university's question answering, 2025",
                  "https://github.com/flashserve/RAGPulse", "MIT", trace("0_trace.jsonl")),
    "code": Source("completions of code in an editor: long contexts, a line or two of answer", "Azure LLM inference trace 2023, code",
                   AZURE, "CC-BY-4.0", trace("AzureLLMInferenceTrace_code.csv")),
    "summary": Source("summaries of articles", "arXiv summaries of APEX+'s traces", APEX_PLUS, "MIT", trace("summarization_05.jsonl"),
                      "articles are cut at 4,096 tokens"),
    "agent": Source("steps of agents that call tools: a context that grows, and short calls", "Mooncake FAST'25 trace, tool and agent",
                    "https://github.com/kvcache-ai/Mooncake", "Apache-2.0",
                    stated(23_608, (890, 3227, 6345, 7470, 125_546, 8589.957, 10_994.03), (1, 13, 30, 356, 2000, 182.134, 242.276)),
                    "from published statistics (minimum, quartiles, maximum, mean and deviation: the page on benchmarks of NVIDIA Dynamo, "
                    "Apache-2.0); their correlation is not published and taken as 0"),
    "reasoning": Source("answers of a model that thinks first: long outputs", "ServeGen, DeepSeek-R1 of a cloud service, 2025",
                        "https://github.com/alibaba/ServeGen", "Apache-2.0", servegen("deepseek-r1"),
                        "the output holds the reasoning; correlation only as far as customers differ"),
    "long-chat": Source("chat about long documents", "Mooncake FAST'25 trace, conversation", "https://github.com/kvcache-ai/Mooncake",
                        "Apache-2.0", trace("conversation_trace.jsonl"), "37% of the prompt tokens repeat a prefix"),
    "writing": Source("long texts on short prompts", "text creation of APEX+'s traces", APEX_PLUS, "MIT", trace("creation_05.jsonl")),
}  # fmt: skip
HEAD = """# Workloads by name: lengths at percentiles [tokens], and Spearman's rank correlation of prompt and output.
# Written by scripts/fit_workloads.py from the sources that it names; docs/traces.md says how lengths are drawn.
"""


def table(name: str, source: Source, found: Figures) -> str:
    """One preset as TOML."""
    texts = {key: getattr(source, key) for key in ("about", "source", "url", "licence", "note")}
    rows = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in texts.items() if value]
    lengths = {"percent": found.percent, **{kind: np.rint(getattr(found, kind)).astype(int).tolist() for kind in LENGTHS}}
    rows += [f"{key} = [{', '.join(f'{v:g}' if v % 1 else str(int(v)) for v in values)}]" for key, values in lengths.items()]
    return f"\n[{name}]\n" + "\n".join([*rows, f"rank_correlation = {found.rank_correlation:.3f}", f"requests = {found.requests}"]) + "\n"


def main(folder: str) -> None:
    """Print the file."""
    sys.stdout.write(HEAD + "".join(table(name, source, source.figures(Path(folder))) for name, source in SOURCES.items()))


if __name__ == "__main__":
    main(sys.argv[1])
