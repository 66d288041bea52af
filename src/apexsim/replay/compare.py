"""A measured run beside the prediction for the same requests (floor 5).

The prediction is made for what was really sent: moments of sending, prompt and output tokens as the server counted
them.  Requests that failed are left out of it, though they loaded the server too; so a run with many failures is
predicted too fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim import api
from apexsim.errors import InputError
from apexsim.metrics import Times
from apexsim.replay.record import Measured, ReplayRun, measured
from apexsim.search.assess import outcome_of
from apexsim.search.study import Study
from apexsim.workload.trace import Workload

F8 = NDArray[np.float64]
STATS = ("mean", "median", "p90", "p95", "p99")
LATENCIES = ("ttft", "tpot", "itl", "e2el")
RATES = {
    "request_throughput": "request_throughput_per_s", "output_throughput": "output_throughput_tok_s",
    "duration_s": "duration_s", "mean_concurrency": "mean_concurrency",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ComparedStatistic:
    """One statistic of one metric, measured and predicted [s, 1/s, token/s]."""

    metric: str
    stat: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Relative error of the prediction; NaN where nothing was measured."""
        return self.predicted / self.measured - 1.0 if self.measured > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A plan's prediction for a run: rows, and both sides per request after the warm-up, in the order of sending.

    series: by latency but itl, ([R] measured, [R] predicted) [s]; send: [R] moment of sending [s].
    """

    plan: str
    rows: tuple[ComparedStatistic, ...]
    send: F8
    series: Mapping[str, tuple[F8, F8]]
    study: Study

    def off(self, metric: str) -> float:
        """Median over requests of the absolute relative error."""
        was, will = self.series[metric]
        some = was > 0
        return float(np.median(np.abs(will[some] / was[some] - 1.0))) if some.any() else float("nan")


def sent_workload(run: ReplayRun) -> tuple[Workload, list[int]]:
    """The requests of a run that finished as a workload, and their places in the run, ascending by sending."""
    order = [i for i in np.argsort([s.start for s in run.sent], kind="stable").tolist() if not run.sent[i].error]
    if not order:
        raise InputError("nothing to compare: no request finished", "", next(iter(run.failures), ""))
    rows = [run.sent[i] for i in order]
    start = np.array([s.start for s in rows])
    prompt, output = (np.array([getattr(s, name) for s in rows], np.int64) for name in ("input_len", "output_len"))
    skipped = sum(i < run.warmup for i in order)
    arrive = start - start[0] if run.mode == "open" else np.zeros(len(rows))
    work = Workload("replay", arrive, prompt, output, run.mode, run.concurrency, warmup=skipped, source="measured run")
    if not run.block:
        return work, order
    common = run.chains.only(np.array(order)).cut(-(-prompt // run.block))
    return replace(work, prefix=common, block=run.block), order


def predicted(work: Workload, model: str, plan: str, question: Mapping[str, Any]) -> Study:
    """The plan simulated on a workload; raises InputError and Infeasible."""
    return api.simulate(model, plan, **question, trace=work)


def compare(run: ReplayRun, model: str, plan: str, question: Mapping[str, Any]) -> Comparison:
    """Predict what a run measured.  question: keywords of `api.ask` for cluster, engine and precision."""
    work, order = sent_workload(run)
    study = predicted(work, model, plan, question)
    best, was = study.ranked[0], measured(run)
    rows = [_latency(name, stat, was, best.metrics) for name in LATENCIES for stat in STATS]
    rows += [ComparedStatistic(name, "", float(getattr(was, name)), float(getattr(best.metrics, own))) for name, own in RATES.items()]
    send, series = _per_request(run, order, study)
    return Comparison(best.plan.shorthand, tuple(rows), send, series, study)


def _latency(name: str, stat: str, was: Measured, will: Any) -> ComparedStatistic:
    return ComparedStatistic(name, stat, getattr(was, name).value(stat), getattr(will, name).value(stat))


def _per_request(run: ReplayRun, order: list[int], study: Study) -> tuple[F8, dict[str, tuple[F8, F8]]]:
    """Moments of sending and both sides of the latencies of each request after the warm-up."""
    keep = np.array([k for k, i in enumerate(order) if i >= run.warmup], dtype=np.int64)
    rows = [run.sent[order[k]] for k in keep]
    start, first, last = (np.array([getattr(s, name) for s in rows]) for name in ("start", "first", "last"))
    found = outcome_of(study.setting, study.ranked[0])
    output = np.array([s.output_len for s in rows])
    was, will = Times(start, first, last, output), Times(found.sent[keep], found.first[keep], found.finish[keep], output)
    some = was.several
    return start, {"ttft": (was.ttft, will.ttft), "tpot": (was.tpot[some], will.tpot[some]), "e2el": (was.e2e, will.e2e)}
