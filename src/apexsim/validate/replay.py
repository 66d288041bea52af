"""Replay measured systems and score the predictions (floor 5).

What a row asks for decides how it is predicted (`PREDICT`): a run is simulated, a step is priced, some rows are answered as they are
read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.calibrate.profile import Profile, load_profile
from apexsim.cost.account import account
from apexsim.cost.price import Pricer, pricer_for
from apexsim.doubt import SIGMA, Doubt, intervals
from apexsim.engine.kernel import Outcome
from apexsim.engine.types import Costs
from apexsim.errors import Rejected
from apexsim.metrics import Times
from apexsim.search.apart import evaluate_apart
from apexsim.search.assess import energy_of
from apexsim.search.error import System, interval, rest_of
from apexsim.search.evaluate import Evaluation, evaluate
from apexsim.search.setting import Setting, calibrated
from apexsim.validate.apart_cases import Apart
from apexsim.validate.cases import Case
from apexsim.validate.draft_cases import Pair
from apexsim.validate.facts import facts
from apexsim.validate.kinds import Asked, read_cases
from apexsim.validate.rows import Answered, Skipped
from apexsim.validate.score import summarise
from apexsim.validate.served_cases import Moved, SeedSpan, mean_of
from apexsim.validate.step_cases import Machine, Steps, costs_of, step_seconds

FORMAT = "apexsim.validation/1"
WITH_GRAPHS, NEARLY = 0.98, 0.95  # of a GPU's memory
SMALLEST, LARGEST = 1e-9, 1e15  # of measured figures
LEAST_PEAK = 4096  # tokens, or sequences, at once that a run that existed had room for


class Bench:
    """Pricers are shared between cases of equal GPU, engine and width."""

    def __init__(self, profile: Profile | None = None) -> None:
        self.profile = profile
        self.pricers: dict[tuple[Any, ...], Pricer] = {}
        self.guard, self.locks = Lock(), dict[int, Any]()
        self.runs: dict[int, tuple[Case, Any]] = {}  # by the case's identity
        self.priced: dict[int, tuple[Machine, Costs]] = {}  # by the machine's identity

    def pricer(self, case: Case | Machine) -> Pricer:
        """The pricer of a case."""
        server, fused = case.engine.server.name, case.engine.fused(case.cluster.gpu.arch)
        custom = case.custom_all_reduce if isinstance(case, Case) else True
        key = (case.cluster.gpu.name, server, case.cluster.per_node, case.cluster.nodes, custom, fused, case.engine.joined_inputs,
               case.engine.experts_as)  # fmt: skip
        if key not in self.pricers:
            self.pricers[key] = pricer_for(case.engine, case.cluster, custom_all_reduce=custom)
        return self.pricers[key]

    def costs(self, machine: Machine) -> Costs:
        """The tables of a machine, made once for all of its steps."""
        if id(machine) not in self.priced:
            self.priced[id(machine)] = machine, costs_of(machine, self.pricer(machine))
        return self.priced[id(machine)][1]

    def setting(self, case: Case) -> Setting:
        """What a case was measured on, as a question."""
        setting = Setting(
            case.model,
            case.cluster,
            case.engine,
            case.workload,
            self.pricer(case),
            case.max_model_len,
            case.router,
            acceptance=case.accepts,
        )
        return calibrated(setting, self.profile) if self.profile else setting

    def once(self, case: Case) -> tuple[Evaluation | Rejected, tuple[str, ...]]:
        """`predict`, of a run that several rows are parts of."""
        with self.guard:
            lock = self.locks.setdefault(id(case), Lock())
        with lock:
            if id(case) not in self.runs:
                self.runs[id(case)] = case, self.predict(case)
            found: tuple[Evaluation | Rejected, tuple[str, ...]] = self.runs[id(case)][1]
            return found

    def predict(self, case: Case) -> tuple[Evaluation | Rejected, tuple[str, ...]]:
        """The simulated run; one that measured fits though the sizing says no gets just enough memory, and a note."""
        setting = self.setting(case)
        found = evaluate(setting, case.plan, case.handed)
        if isinstance(found, Evaluation):
            return found, ()
        note = f"sized with the whole GPU, since the run existed: {found.reason}"
        refused = []
        for one in roomy(setting):
            again = evaluate(one, case.plan, case.handed)
            if isinstance(again, Evaluation):
                return again, (note,)
            refused.append(again)
        return refused[0], (note,)


def roomy(setting: Setting) -> Iterator[Setting]:
    """The same with all of the GPU's memory, or nearly all where graphs take theirs beside the cache, and no more of anything than the
    workload needs."""
    for fraction in (1.0, WITH_GRAPHS, NEARLY):
        engine = replace(setting.engine, memory_fraction=fraction, max_num_seqs=min(setting.engine.max_num_seqs, setting.workload.size))
        yield replace(setting, engine=engine, max_model_len=setting.workload.longest)


def predicted_ms(found: Evaluation, case: Case) -> dict[str, float]:
    """Means and medians over requests [ms]: TTFT, TPOT (outputs of one token left out), end to end; ITL over all gaps; rates per s."""
    outcome = stalled(found.outcome, case.stall) if case.stall else found.outcome
    return told_ms(outcome, case.workload.output, case.plan.devices)


def stalled(o: Outcome, seconds: float) -> Outcome:
    """The same run where nothing moved for so long after the first requests had been sent: they wait, all others come later."""
    return replace(o, sent=np.where(o.sent > o.sent.min(), o.sent + seconds, o.sent), first=o.first + seconds, finish=o.finish + seconds)


def told_ms(o: Outcome, output: NDArray[np.int64], devices: int) -> dict[str, float]:
    """The same of an outcome on so many GPUs."""
    times = Times(o.sent, o.first, o.finish, output)
    tpot = times.tpot[times.several]
    told = {"ttft": times.ttft, "tpot": tpot if len(tpot) else np.zeros(1), "e2e": times.e2e}
    stats = (("mean", np.mean), ("median", np.median))
    return {
        **{f"{name}_{stat}_ms": 1e3 * float(how(values)) for name, values in told.items() for stat, how in stats},
        "ttft_ms": 1e3 * float(times.ttft.mean()),
        "itl_mean_ms": 1e3 * float((o.finish - o.first).sum() / max(1, int((output - 1).sum()))),
        "out_tok_s_per_gpu": float(output.sum() / times.duration) / devices,
        "req_s": len(output) / times.duration,
    }


ENERGY = ("power_w_per_gpu", "j_per_out_token")


def predicted_energy(setting: Setting, found: Evaluation, case: Case) -> dict[str, float]:
    """W of a GPU and J per output token of the run; nothing where the case measured neither."""
    if not case.measured.keys() & set(ENERGY):
        return {}
    energy = energy_of(setting, found)
    return dict(zip(ENERGY, (energy.watts, energy.per_output_token)))


def shares_of(setting: Setting, found: Evaluation) -> dict[str, float]:
    """Shares of the priced time of a run by the provenance of its prices."""
    duration = float(found.outcome.finish.max())
    spent = account(found.stages, found.costs, found.outcome, setting.pricer, found.engine, found.axes, duration)
    return dict(spent.provenance)


def _run(bench: Bench, case: Case) -> dict[str, Any]:
    """A simulated run."""
    found, notes = bench.predict(case)
    if isinstance(found, Rejected):
        return _record(case, "skipped", found.reason)
    setting = bench.setting(case)
    predicted = predicted_ms(found, case) | predicted_energy(setting, found, case)
    metrics = case.known | {
        name: {"measured": value, "predicted": predicted[name]} for name, value in case.measured.items() if name in predicted
    }
    shares = shares_of(setting, found)
    record = _record(case, "ok", "; ".join((*case.notes, *notes)), metrics, shares, setting)
    return record | {"provenance": provenance(bench.pricer(case))}


def _pair(bench: Bench, pair: Pair) -> dict[str, Any]:
    """Two simulated runs and by how much the one with drafts is faster."""
    told, notes = [], [*pair.notes]
    for case in (pair.drafts, pair.plain):
        found, more = bench.predict(case)
        if isinstance(found, Rejected):
            return _record(pair, "skipped", found.reason)
        told.append(predicted_ms(found, case))
        notes += more
    drafts, plain = told
    assert pair.drafts.plan.draft is not None
    notes.append(bench.setting(pair.drafts).accepts(pair.drafts.plan.draft).source)
    predicted = {name: plain[f"{name[8:]}_median_ms"] / drafts[f"{name[8:]}_median_ms"] for name in pair.measured}
    metrics = {name: {"measured": value, "predicted": predicted[name]} for name, value in pair.measured.items()}
    system = bench.setting(pair.plain)
    bars = {name: told_of(predicted[name], twins(system, name.removeprefix("speedup_"))) for name in metrics}
    record = _record(pair, "ok", "; ".join(dict.fromkeys(notes)), metrics)
    bars = {name: bar for name, bar in bars.items() if name in record["metrics"]}
    return record | {"interval": bars, "provenance": provenance(bench.pricer(pair.plain))}


def twins(system: System, name: str) -> Doubt:
    """How far the ratio of two runs of one system may be off: their offset cancels, what differs from run to run counts twice."""
    return Doubt(0.0, math.sqrt(2.0) * rest_of(system, name))


def told_of(value: float, doubt: Doubt) -> dict[str, list[float]]:
    """Intervals as the record has them."""
    return {level: list(bar) for level, bar in intervals(value, doubt).items()}


def _apart(bench: Bench, row: Apart) -> dict[str, Any]:
    """A simulated run of two pools; one that measured fits though the sizing says no gets just enough memory, and a note."""
    sides, notes = [(bench.setting(case), case.plan) for case in (row.prefill, row.decode)], row.notes
    found = evaluate_apart(*sides[0], *sides[1], row.handover)
    for what, change in ((f"for {LEAST_PEAK} tokens and sequences at once", _narrow), (f"with {NEARLY:.0%} of the GPU", _nearly_whole)):
        if isinstance(found, Rejected):
            notes += (f"sized {what}, since the run existed: {found.reason}",)
            sides = [(change(setting), plan) for setting, plan in sides]
            found = evaluate_apart(*sides[0], *sides[1], row.handover)
    if isinstance(found, Rejected):
        return _record(row, "skipped", found.reason)
    predicted = told_ms(found.outcome, row.prefill.workload.output, found.devices)
    metrics = {name: {"measured": value, "predicted": predicted[name]} for name, value in row.measured.items()}
    system = sides[1][0]  # intervals are those of one server; what hand-overs add to them is not known
    record = _record(row, "ok", "; ".join(notes), metrics, shares_of(system, found.decode), system)
    return record | {"provenance": provenance(bench.pricer(row.decode))}


def _narrow(setting: Setting) -> Setting:
    """The same, sized for no more tokens and sequences at once than a run that existed had room for."""
    most = min(setting.engine.max_num_seqs, LEAST_PEAK)
    return replace(setting, engine=replace(setting.engine, profile_tokens=LEAST_PEAK, max_num_seqs=most))


def _nearly_whole(setting: Setting) -> Setting:
    """The same with more of the GPU's memory than engines take by themselves."""
    return replace(setting, engine=replace(setting.engine, memory_fraction=NEARLY))


def _part(bench: Bench, row: SeedSpan) -> dict[str, Any]:
    """A part of a run, with every seed of it; the spread over them stands in the reason."""
    each = [bench.once(case) for case in row.runs]
    lost = next((found for found, _ in each if isinstance(found, Rejected)), None)
    if lost is not None:
        return _record(row, "skipped", lost.reason)
    case, runs = row.runs[0], [found for found, _ in each if isinstance(found, Evaluation)]
    predicted, spread = mean_of([row.values(run.outcome, one.workload.output) for run, one in zip(runs, row.runs)])
    metrics = {name: {"measured": value, "predicted": predicted[name]} for name, value in row.measured.items() if name in predicted}
    told = [f"{name} varies by {spread[name]:.0%} between {len(runs)} seeds" for name in metrics if name in spread]
    setting = bench.setting(case)
    record = _record(row, "ok", "; ".join((*row.notes, *each[0][1], *told)), metrics, shares_of(setting, runs[0]), setting)
    return record | {"provenance": provenance(bench.pricer(case))}


def _moved(bench: Bench, row: Moved) -> dict[str, Any]:
    """A transfer by its formula."""
    metrics = {name: {"measured": value, "predicted": row.predicted[name]} for name, value in row.measured.items()}
    bars = {name: told_of(pair["predicted"], Doubt(0.0, row.sigma / SIGMA)) for name, pair in metrics.items()}
    record = _record(row, "ok", "; ".join(row.notes), metrics)
    return record | {"interval": {name: bar for name, bar in bars.items() if name in record["metrics"]}}


def _step(bench: Bench, steps: Steps) -> dict[str, Any]:
    """A priced step."""
    machine = steps.machine
    predicted = steps.value(step_seconds(bench.costs(machine), steps.batch, machine.plan.lanes))
    told = "measured" if machine.cluster.gpu.kernels else "transferred"
    metrics = {steps.metric: {"measured": steps.measured, "predicted": predicted}}
    return _record(steps, "ok", "; ".join(steps.notes), metrics, {told: 1.0}, machine) | {"provenance": told}


def _answered(row: Answered) -> dict[str, Any]:
    """What was answered as it was read; intervals as far as other logs lay from theirs."""
    record = _record(row, "ok", row.reason, row.metrics)
    bars = {name: logged(name, pair["predicted"]) for name, pair in record["metrics"].items()}
    return record | {"interval": {name: bar for name, bar in bars.items() if bar}}


def logged(metric: str, value: float) -> dict[str, list[float]]:
    """Intervals of a figure of a start-up log; {} of answers that are yes or no."""
    fact = next((each for each in facts()["start_up"] if each["metric"] == metric), None)
    return {level: [value * math.exp(-far), value * math.exp(far)] for level, far in fact["within"].items()} if fact and value > 0 else {}


PREDICT: dict[type, Callable[[Bench, Any], dict[str, Any]]] = {
    Case: _run,
    Pair: _pair,
    Apart: _apart,
    Steps: _step,
    SeedSpan: _part,
    Moved: _moved,
    Answered: lambda bench, row: _answered(row),
    Skipped: lambda bench, row: _record(row, "skipped", row.reason),
}


def _record(
    row: Asked,
    status: str,
    reason: str,
    metrics: dict[str, Any] | None = None,
    shares: Mapping[str, float] | None = None,
    system: System | None = None,
) -> dict[str, Any]:
    """A row of the record; intervals where the provenance of the time is known."""
    absurd = {name: pair["measured"] for name, pair in (metrics or {}).items() if not _measurable(pair["measured"])}
    found = {name: {**pair, "error": relative(pair)} for name, pair in (metrics or {}).items() if name not in absurd}
    reason = "; ".join(filter(None, (reason, *(f"{name} left out: {value:g} is no measured value" for name, value in absurd.items()))))
    bars = {name: interval(name, pair["predicted"], system, shares) for name, pair in found.items()} if shares and system else {}
    return {"id": row.id, "status": status, "reason": reason, "suspect": row.labels.get("suspect", ""), "metrics": found,
            "interval": {name: bar for name, bar in bars.items() if bar}, "labels": row.labels}  # fmt: skip


def _measurable(value: float) -> bool:
    """Whether a figure may have been measured, in any unit: zeros are, smaller and larger ones than of any clock or meter are not."""
    return value == 0.0 or SMALLEST <= value <= LARGEST


def relative(pair: Mapping[str, float]) -> float:
    """Predicted over measured − 1; NaN where nothing was measured."""
    return pair["predicted"] / pair["measured"] - 1.0 if pair["measured"] else math.nan


def provenance(pricer: Pricer) -> str:
    """Where the kernel times of a case come from."""
    return "measured" if pricer.cluster.gpu.kernels else "transferred"


def run(
    path: str | Path,
    *,
    workers: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
    profile: str = "",
) -> dict[str, Any]:
    """Replay every row of a file that can be; the record that `render` and `--json` show.  profile: the name of a calibration."""
    kind, cases = read_cases(path)
    bench = Bench(load_profile(profile) if profile else None)
    for case in cases:
        if isinstance(case, Case):
            bench.pricer(case)
        elif isinstance(case, Apart):
            bench.pricer(case.prefill)
            bench.pricer(case.decode)
        elif isinstance(case, SeedSpan):
            bench.pricer(case.runs[0])
        elif isinstance(case, Steps):
            bench.costs(case.machine)
    rows = []
    with ThreadPoolExecutor(workers or 2) as pool:
        for row in pool.map(lambda c: PREDICT[type(c)](bench, c), cases):
            rows.append(row)
            if progress:
                progress(len(rows), len(cases), str(row["id"]))
    return {"format": FORMAT, "kind": kind, "file": Path(path).name, "summary": summarise(rows), "rows": rows}
