"""How long planning takes from 8B to 1T parameters and from 8 to 512 GPUs.

    python bench/scale.py [--requests 1000] [MODEL:GPUS …]

Prints, per question, the plans enumerated, those simulated, and the seconds of the second of two runs (tables read, code
compiled).  The time grows with plans, not with parameters: equal layers are priced once and multiplied.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from apexsim.cost.bank import load_bank
from apexsim.cost.price import Pricer
from apexsim.engines import load_engine, settled
from apexsim.errors import Infeasible
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.objective import parse_objective
from apexsim.plan.plan import Precision
from apexsim.plan.space import candidates
from apexsim.search.goal import Goal
from apexsim.search.search import search
from apexsim.search.setting import Setting
from apexsim.workload.trace import Workload

QUESTIONS = ("llama-3.1-8b:8", "llama-3.1-70b:8", "deepseek-ai--DeepSeek-V3:8", "deepseek-ai--DeepSeek-V3:32",
             "llama-3.1-70b:64", "moonshotai--Kimi-K2-Instruct:64", "moonshotai--Kimi-K2-Instruct:512")  # fmt: skip
LENGTH = 8192


def workload(requests: int) -> Workload:
    """Poisson arrivals, ten a second; prompts of 100 to 2,000 tokens, outputs of 50 to 400."""
    rng = np.random.default_rng(0)
    arrive = np.cumsum(rng.exponential(0.1, requests))
    return Workload("scale", arrive, rng.integers(100, 2000, requests), rng.integers(50, 400, requests))


def once(name: str, gpus: int, work: Workload) -> tuple[int, int, float]:
    """(plans enumerated, plans simulated, seconds)."""
    model, gpu = load_model(name), load_gpu("h200_sxm")
    cluster = Cluster(gpu, min(8, gpus), max(1, gpus // 8))
    engine = settled(load_engine("vllm"), gpu.memory_bytes, gpu.name, LENGTH)
    setting = Setting(model, cluster, engine, work, Pricer(load_bank(gpu, "vllm"), cluster), LENGTH)
    start = time.perf_counter()
    space = candidates(model, cluster, Precision(model.weight_dtypes, model.dtype, "auto", model.kv_dtype or "bf16"))
    try:
        study = search(setting, space, Goal(parse_objective("e2e", ())))
    except Infeasible:
        return space.enumerated, 0, time.perf_counter() - start
    return space.enumerated, len(study.ranked), time.perf_counter() - start


def main() -> None:
    """Ask every question twice and print the second time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", default=list(QUESTIONS), metavar="MODEL:GPUS")
    parser.add_argument("--requests", type=int, default=1000)
    args = parser.parse_args()
    work = workload(args.requests)
    print(f"{'model':36} {'GPUs':>5} {'enumerated':>11} {'simulated':>10} {'s':>7} {'ms/plan':>8}")
    for question in args.questions:
        name, _, gpus = question.partition(":")
        once(name, int(gpus), work)
        enumerated, simulated, took = once(name, int(gpus), work)
        each = 1e3 * took / max(simulated, 1)
        print(f"{name:36} {int(gpus):5} {enumerated:11} {simulated:10} {took:7.2f} {each:8.1f}", flush=True)


if __name__ == "__main__":
    main()
