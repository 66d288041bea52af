"""A measured run as a point: a question, a plan, and what was measured there (floor 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from apexsim.cost.factors import Factors
from apexsim.errors import Rejected
from apexsim.metrics import F8, Times
from apexsim.plan.plan import Plan
from apexsim.search.assess import energy_of
from apexsim.search.evaluate import Evaluation, evaluate
from apexsim.search.setting import Setting

Key = tuple[str, str]  # metric and statistic: ("ttft", "mean") [s], ("throughput", "mean") [output tokens/s], ("power", "mean") [W]
STATS = ("mean", "median", "p90", "p95", "p99")  # the first that was measured is fitted
SHARES = {"median": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
LATENCIES = ("ttft", "tpot", "itl", "e2e")


@dataclass(frozen=True, slots=True)
class RunPoint:
    """One run: where it is from, what was asked, and measured values [s, tokens/s, W]."""

    name: str
    setting: Setting
    plan: Plan
    measured: Mapping[Key, float]

    @property
    def prompt(self) -> float:
        """Mean prompt [tokens]."""
        return float(self.setting.workload.prompt.mean())

    @property
    def load(self) -> tuple[str, float]:
        """("users", C), ("req/s", R) or ("requests at once", N)."""
        work = self.setting.workload
        if work.mode == "closed":
            return "users", float(work.concurrency)
        span = float(work.arrive[-1] - work.arrive[0])
        return ("req/s", (work.size - 1) / span) if work.mode == "open" and span > 0 else ("requests at once", float(work.size))

    @property
    def fitted(self) -> dict[str, Key]:
        """What of it tells factors: TTFT and the pace of tokens; end to end or throughput only where neither stands by itself."""
        best = {
            metric: (metric, stat) for stat in reversed(STATS) for metric in (*LATENCIES, "throughput") if (metric, stat) in self.measured
        }
        pace = next((best[name] for name in ("tpot", "itl", "e2e", "throughput") if name in best), None)
        return {key[0]: key for key in (best.get("ttft"), pace) if key}


def predicted(point: RunPoint, factors: Factors) -> dict[Key, float] | Rejected:
    """What a point would measure were prices as the factors say."""
    base = point.setting
    setting = replace(base, pricer=base.pricer.scaled(factors), engine=factors.on_host(base.engine))
    found = evaluate(setting, point.plan)
    return found if isinstance(found, Rejected) else _told(setting, found)


def _told(setting: Setting, found: Evaluation) -> dict[Key, float]:
    """All statistics of a run, over all its requests: clients leave none out."""
    o, output = found.outcome, setting.workload.output
    times = Times(o.sent, o.first, o.finish, output)
    told = _stats("ttft", times.ttft) | _stats("e2e", times.e2e)
    told[("throughput", "mean")] = float(output.sum()) / times.duration
    told[("power", "mean")] = energy_of(setting, found).watts
    if times.several.any():
        told |= _stats("tpot", times.tpot[times.several])
        told[("itl", "mean")] = float((o.finish - o.first).sum() / (output - 1).sum())
    return told


def _stats(metric: str, values: F8) -> dict[Key, float]:
    return {(metric, "mean"): float(values.mean()), **{(metric, stat): float(np.quantile(values, q)) for stat, q in SHARES.items()}}


def log_errors(point: RunPoint, told: Mapping[Key, float]) -> dict[Key, float]:
    """log(predicted / measured) of everything that was measured and is predicted."""
    return {key: math.log(told[key] / value) for key, value in point.measured.items() if told.get(key, 0.0) > 0.0 and value > 0.0}
