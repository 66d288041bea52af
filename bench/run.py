"""Speed of apexsim in figures and ratios, one core, warm process.

    python bench/run.py [--json FILE]

Every line is measured in this run; a ratio compares two things of this run, or a published figure of a peer (see docs/peers.md).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apexsim import api
from apexsim.cost.tables import axes_for, compile_costs, host_for, rules_for
from apexsim.engine import cache, kernel
from apexsim.engine.kernel import simulate
from apexsim.engine.types import Costs, Host, Requests, Rules
from apexsim.model.families import load_model
from apexsim.plan.lower import lower
from apexsim.plan.plan import parse_plan
from apexsim.workload.stream import read_trace

ROOT = Path(__file__).resolve().parent.parent
TRACE = str(ROOT / "examples" / "creation_05.jsonl")
MAIN_JOB = {"gpu": "h100-sxm", "gpus": 8, "trace": TRACE}
MOST_MB = 2000  # of a question with a trace of ten million rows
APEX_WALL, APEX_PLANS, APEX_REQUESTS = 405.0, 26, 512  # s for the main job, APEX+ on two cores


def best(action: Callable[[], object], times: int = 5) -> float:
    """Shortest of several runs [s]."""
    took = []
    for _ in range(times):
        begin = time.perf_counter()
        action()
        took.append(time.perf_counter() - begin)
    return min(took)


@dataclass(frozen=True)
class Case:
    """What the simulator is timed with: 2,048 tokens in and 256 out, on 8 × H100."""

    model: str = "llama-3.1-70b"
    plan: str = "TP8"
    rate: float = 4.0  # requests/s, Poisson
    users: int = 0  # closed loop


CASES = {
    "one stage": Case(),
    "closed loop": Case(users=64),
    "two stages": Case(plan="PP2×TP4", rate=3.0),
    "eight lanes": Case("deepseek-v3", "DEP8"),
    "two windows": Case("gpt-oss-120b"),
    "four replicas": Case("llama-3.1-8b", "4×TP2", 40.0),
}


def kernel_input(requests: int, case: Case = CASES["one stage"]) -> tuple[Requests, Rules, Host, Costs, int]:
    """What `simulate` takes for so many requests."""
    setting, precision, _, _ = api.ask(case.model, gpu="h100-sxm", gpus=8, prompt_len=2048, output_len=256,
                                       num_requests=64, request_rate=4.0)  # fmt: skip
    plan = parse_plan(case.plan, precision)
    stages = lower(setting.model, plan, setting.cluster.gpu.flops)
    axes = axes_for(setting.engine, plan.lanes, 4096, setting.workload.longest)
    costs = compile_costs(stages, plan, setting.pricer, setting.engine, axes, setting.model.hidden)
    arrive = np.cumsum(np.random.default_rng(0).exponential(1 / case.rate, requests)) * (case.users == 0)
    work = Requests(arrive, np.full(requests, 2048), np.full(requests, 256), case.users, 0.0)
    return work, rules_for(setting.engine, 100_000, 16, 4096, plan.lanes), host_for(setting.engine), costs, 100_000


def kernel_rate(requests: int, gaps: bool, case: Case = CASES["one stage"]) -> float:
    """Requests per second of the simulator alone."""
    work, rules, host, costs, blocks = kernel_input(requests, case)
    plan = parse_plan(case.plan)
    return requests / best(
        lambda: simulate(work, rules, host, costs, blocks, replicas=plan.replicas, lanes=plan.lanes, gaps=gaps),
        9 if requests < 100_000 else 3,
    )


def compilation() -> float:
    """CPU seconds of the first simulation of a machine, with nothing compiled yet."""
    code = "import time, run; w = run.kernel_input(64); t = time.process_time(); run.simulate(*w); print(time.process_time() - t)"
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, cache.VARIABLE: folder, "PYTHONPATH": os.pathsep.join(["bench", *filter(None, sys.path)])}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def narrow_ratio() -> float:
    """Time of the general machine code over that for one stage, lane and window, same result."""
    given = kernel_input(4096)
    pays = kernel._pays
    took = []
    for choice in (False, True):
        kernel._pays = lambda *_, choice=choice: choice
        simulate(*given)
        took.append(best(lambda: simulate(*given), 15))
    kernel._pays = pays
    return took[0] / took[1]


def jump_ratio() -> float:
    """Stepping time over jumping time, same result."""
    work, rules, host, costs, blocks = kernel_input(1024)
    step = best(lambda: simulate(work, rules, host, costs, blocks, jump=False), 3)
    return step / best(lambda: simulate(work, rules, host, costs, blocks), 5)


def million() -> tuple[float, float]:
    """One million requests in a process of its own: (requests/s, peak memory [MB])."""
    code = (
        "import sys, resource; sys.path.insert(0, 'bench'); import run; r = run.kernel_rate(1_000_000, False); "
        "print(r, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return float(out[0]), float(out[1])


def ten_million() -> float:
    """Peak memory of `apexsim simulate` with a trace of ten million rows [MB], the heuristic plan beside the one asked for."""
    code = (
        "import sys, resource; from apexsim.cli.main import main; code = main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr); sys.exit(code)"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        with path.open("w", encoding="utf-8") as file:
            file.write("arrived_at,num_prefill_tokens,num_decode_tokens\n")
            for start in range(0, 10_000_000, 100_000):
                file.writelines(f"{n / 10},{100 + n % 1900},{10 + n % 290}\n" for n in range(start, start + 100_000))
        words = ["simulate", "llama-3.1-8b", "--gpu", "h100:2", "--plan", "2xTP1", "--trace", str(path)]
        out = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return float(out.stderr.split()[-1])


def command() -> float:
    """The whole main job as a command, start-up included [s]."""
    line = [
        str(Path(sys.executable).parent / "apexsim"),
        "plan",
        "llama-3.1-70b",
        "--gpu",
        "h100-sxm",
        "--gpus",
        "8",
        "--trace",
        TRACE,
    ]
    return best(lambda: subprocess.run(line, capture_output=True, check=True, env={**os.environ, "NO_COLOR": "1"}), 3)


def help_time() -> float:
    """`apexsim --help` [s]."""
    line = [str(Path(sys.executable).parent / "apexsim"), "--help"]
    return best(lambda: subprocess.run(line, capture_output=True, check=True), 5)


def trace_rows() -> float:
    """Rows of a CSV trace read per second, streamed."""
    count = 400_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        rows = "".join(map("%d.25,%d,7\n".__mod__, zip(range(count), range(1, count + 1))))
        path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + rows, encoding="utf-8")
        return count / best(lambda: read_trace(path), 3)


def config_ms() -> float:
    """Reading a model configuration [ms]."""
    return 1e3 * best(lambda: load_model("deepseek-v3"), 20)


def main() -> int:
    """Measure, print, optionally write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="")
    args = parser.parse_args()
    api.plan("llama-3.1-70b", workers=1, **MAIN_JOB)
    search = best(lambda: api.plan("llama-3.1-70b", workers=1, **MAIN_JOB))
    study = api.plan("llama-3.1-70b", workers=1, **MAIN_JOB)
    rate, memory = million()
    figures = {
        "search of the main job, one core, warm [s]": search,
        "simulated plans of the main job": float(len(study.ranked)),
        "request-plans per second": len(study.ranked) * APEX_REQUESTS / search,
        "times faster than APEX+ per plan (published 405 s for 26)": (APEX_WALL / APEX_PLANS) / (search / len(study.ranked)),
        "whole command [s]": command(),
        "apexsim --help [s]": help_time(),
        "first compilation, CPU [s]": compilation(),
        **{f"kernel, 4,096 requests, {name} [requests/s]": kernel_rate(4096, True, case) for name, case in CASES.items()},
        "general over narrow machine code, one stage [ratio]": narrow_ratio(),
        "kernel, one million requests [requests/s]": rate,
        "peak memory with one million requests [MB]": memory,
        f"peak memory of simulate with ten million rows [MB], at most {MOST_MB:,}": (biggest := ten_million()),
        "trace rows read [rows/s]": trace_rows(),
        "a model configuration [ms]": config_ms(),
        "the key of the compiled engine [ms]": 1e3 * best(cache.key, 20),
        "jumping over stepping, 1,024 requests [ratio]": jump_ratio(),
        "peak memory of this process [MB]": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    for name, value in figures.items():
        print(f"{name:60s} {value:14,.3f}" if value < 100 else f"{name:60s} {value:14,.0f}")
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return int(biggest > MOST_MB)


if __name__ == "__main__":
    sys.exit(main())
