"""Fit and judge the speeds of kernels on AMD GPUs from served runs (data/fitted.toml).

    python scripts/fit_rocm.py FILE            errors with the shipped numbers, and with releases left out
    python scripts/fit_rocm.py FILE --fit      the numbers that are best on half of the groups, judged on the other half
    python scripts/fit_rocm.py FILE --paces    the pace of every release

FILE: closed-loop rows of InferenceX on AMD (figures of the Apache-2.0 benchmark SemiAnalysisAI/InferenceX), one a configuration: the
columns of validation/closed_loop.csv with medians.  A group is GPU, weight format and release.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from apexsim.cost import fitted as home
from apexsim.cost.bank import _BANKS
from apexsim.engines import EngineRow, closest, override, settled
from apexsim.errors import InputError, Rejected
from apexsim.hardware import Cluster, load_gpu
from apexsim.metrics import Times
from apexsim.plan.plan import Layout, Plan, Precision
from apexsim.search.evaluate import evaluate
from apexsim.search.setting import setting_of
from apexsim.validate.kinds import read_rows
from apexsim.validate.rows import WIDEST, Row, model_named, number, whole
from apexsim.workload.synth import inferencex_population
from apexsim.workload.trace import Workload

FORMATS = {"fp8": ((), "fp8_block"), "fp4": ((("attention", "bf16"),), "mxfp4")}
METRICS = ("tpot_median_ms", "ttft_median_ms")
BOUNDS = (0.3, 3.0)  # of a factor in one round


@dataclass(frozen=True)
class Run:
    """One row as a question, and what was measured [ms]."""

    group: tuple[str, str, str]
    ask: tuple[Any, ...]
    measured: tuple[float, float]
    users: int


def runs_of(path: Path) -> Iterator[Run]:
    """Rows that nothing speaks against but a missing warm-up, of a known release."""
    for row in read_rows(path, "closed loop")[1]:
        if set(filter(None, row["suspect"].split(";"))) - {"no_warmup"} or not row["backend_version"]:
            continue
        group = (row["system"], row["precision"], row["backend_version"].replace(".post", "-"))
        yield Run(group, _question(row), (_measured(row, METRICS[0]), _measured(row, METRICS[1])), whole(row, "concurrency", 1, 1))


def _measured(row: Row, metric: str) -> float:
    value = number(row, metric)
    if not value > 0.0:
        raise InputError(f"expected a time in '{metric}', got '{row[metric]}'", f"row {row['id']}")
    return value


def _question(row: Row) -> tuple[Any, ...]:
    if row["precision"] not in FORMATS:
        raise InputError(f"expected a format of {', '.join(FORMATS)}, got '{row['precision']}'", f"row {row['id']} precision")
    parts, default = FORMATS[row["precision"]]
    tp = whole(row, "attn_tp", 1, 1, WIDEST)
    kv = "fp8" if row["launch_kv_dtype"].startswith("fp8") else "bf16"
    plan = Plan(1, 1, Layout(tp=tp), Layout(tp=tp), Precision(parts, default, "auto", kv))
    count, template = whole(row, "num_prompts", 1, 1), whole(row, "template_tokens")
    prompt, output = inferencex_population(whole(row, "isl", 1, template + 1) - template, whole(row, "osl", 1, 1), count)
    work = Workload(row["id"], np.zeros(count), prompt + template, output, "closed", whole(row, "concurrency", 1, 1))
    cluster = Cluster(load_gpu(row["system"]), tp)
    return model_named(row["config"]), cluster, _engine(row, cluster, work.longest), work, plan


def _engine(row: Row, cluster: Cluster, length: int) -> EngineRow:
    version = row["backend_version"].split(".post")[0]
    chunk, pre = whole(row, "launch_chunked_prefill_size"), whole(row, "launch_max_prefill_tokens")
    found = replace(closest(f"{row['backend']}@{version}"), asked=version)
    most = whole(row, "launch_cudagraph", 128)
    pad = (*(n for n in (1, 2, 4) if n <= most), *range(8, most + 1, 8))
    found = override(found, max_num_batched_tokens=chunk or None, prefill_limit=pre or None, pad=pad,
                     memory_fraction=number(row, "launch_gpu_mem_frac", 0.8))  # fmt: skip
    return settled(found, cluster.gpu.memory_bytes, cluster.gpu.name, length)


def predicted(run: Run) -> tuple[float, float]:
    """Medians of TPOT and TTFT [ms] with the numbers that are in force."""
    model, cluster, engine, work, plan = run.ask
    setting = setting_of(model, cluster, engine, work, work.longest)
    found = evaluate(setting, plan)
    if isinstance(found, Rejected):
        raise InputError(found.reason, f"row {work.name}")
    o = found.outcome
    times = Times(o.sent, o.first, o.finish, work.output)
    return 1e3 * float(np.median(times.tpot)), 1e3 * float(np.median(times.ttft))


def errors(runs: list[Run]) -> np.ndarray:
    """Log of predicted over measured [run, metric]."""
    return np.log(np.array([predicted(run) for run in runs]) / np.array([run.measured for run in runs]))


# ---- numbers in force ---------------------------------------------------------------------------------------------------

Numbers = dict[str, float]


def put(numbers: Numbers) -> None:
    """Put numbers of the common part and the pace of architectures into force: `launch_us`, `gemm.flop`, `cdna3.slower`."""
    data = home._data()
    for key, value in numbers.items():
        head, _, tail = key.rpartition(".")
        if head.startswith("cdna"):
            data["arch"][head][tail] = value
        elif head:
            data["common"]["families"][head][tail] = value
        else:
            data["common"][key] = value
    home.fitted_for.cache_clear()
    _BANKS.clear()


def now() -> Numbers:
    """The numbers in force."""
    data = home._data()
    found = {key: float(value) for key, value in data["common"].items() if not isinstance(value, dict)}
    found |= {f"{family}.{key}": float(v) for family, each in data["common"]["families"].items() for key, v in each.items()}
    return found | {f"{arch}.{key}": float(v) for arch, row in data["arch"].items() for key, v in row.items()}


def paceless() -> None:
    """Take the paces of releases out of force."""
    home._data()["pace"] = []
    put({})


def levelled(runs: list[Run], error: np.ndarray) -> np.ndarray:
    """Errors without the level of each group in TPOT, which is its pace: what the common numbers can be blamed for."""
    out = error.copy()
    for group in {run.group for run in runs}:
        mine = [i for i, run in enumerate(runs) if run.group == group]
        out[mine] -= np.median(error[mine, 0])
    return out


def fit(runs: list[Run], free: list[str], rounds: int = 2) -> Numbers:
    """Coordinate descent on the mean absolute log errors, half of the weight on what remains within groups."""

    def loss() -> float:
        found = errors(runs)
        return float(np.abs(found).mean() + np.abs(levelled(runs, found)).mean())

    best, numbers = loss(), now()
    for step in (1.3, 1.12)[:rounds]:
        for key in free:
            for factor in (step, 1.0 / step):
                while True:
                    put({key: numbers[key] * factor})
                    new = loss()
                    if new >= best - 1e-4:
                        put({key: numbers[key]})
                        break
                    best, numbers[key] = new, numbers[key] * factor
            print(f"  {key:22s} {numbers[key]:.4g}   loss {best:.4f}", flush=True)
    return numbers


def told(runs: list[Run], error: np.ndarray, by: Callable[[Run], Any]) -> None:
    """Median, p90 and bias by a key."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for i, run in enumerate(runs):
        groups[by(run)].append(i)
    for key in sorted(groups, key=str):
        rows = error[groups[key]]
        cells = "   ".join(
            f"{name} {np.median(np.abs(np.expm1(rows[:, m]))):6.1%} / {np.quantile(np.abs(np.expm1(rows[:, m])), 0.9):6.1%}"
            f" ({math.exp(np.median(rows[:, m])) - 1:+.1%})"
            for m, name in enumerate(("TPOT", "TTFT"))
        )
        print(f"{key!s:44s} {len(rows):4d}  {cells}")


def paces(runs: list[Run]) -> dict[tuple[str, str], float]:
    """The pace of every release on every architecture: the factor on kernels that takes the median error of its TPOT to 0."""
    found: dict[tuple[str, str], float] = {}
    for arch, version in sorted({(load_gpu(r.group[0]).arch, r.group[2].split("-")[0]) for r in runs}):
        mine = [r for r in runs if load_gpu(r.group[0]).arch == arch and r.group[2].split("-")[0] == version]
        pace = 1.0
        for _ in range(3):
            home._data()["pace"] = [{"engine": "sglang", "since": "0.0.0", "factor": pace}]
            put({})
            pace *= math.exp(-float(np.median(errors(mine)[:, 0])))
        found[arch, version] = pace
        print(f"sglang {version} on {arch}: {pace:.2f} ({len(mine)} runs)", flush=True)
    return found


FREE = ["launch_us", "cdna3.slower", "experts.flop", "prompt_launch_us", "experts.bytes", "gap_us", "collective_launches", "gemm.flop"]


def main() -> int:
    """As the docstring says; what cannot be read is one line, and 2."""
    try:
        run()
    except InputError as error:
        print(f"fit_rocm: {error.line()}", file=sys.stderr)
        return 2
    return 0


def run() -> None:
    """Read, fit or judge, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--paces", action="store_true")
    args = parser.parse_args()
    runs = list(runs_of(args.file))
    if not runs:
        raise InputError("holds no run of a known release that nothing speaks against", str(args.file), "give InferenceX's rows on AMD")
    if args.fit:
        paceless()
        half = set(sorted({run.group for run in runs})[::2])
        print(fit([run for run in runs if run.group in half and run.users in (4, 16, 64)], FREE))
        runs = [run for run in runs if run.group not in half]
    elif args.paces:
        paces(runs)
        return
    else:
        told(runs, errors(runs), lambda run: "with the paces of releases")
        paceless()
    error = errors(runs)
    told(runs, error, lambda run: run.group)
    told(runs, error, lambda run: "no release known")


if __name__ == "__main__":
    sys.exit(main())
