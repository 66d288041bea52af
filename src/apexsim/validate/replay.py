"""Replay measured systems and score the predictions (floor 5)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from apexsim.calibrate.profile import Profile, load_profile
from apexsim.cost.price import Pricer, pricer_for
from apexsim.errors import Rejected
from apexsim.metrics import Times
from apexsim.search.assess import energy_of
from apexsim.search.evaluate import Evaluation, evaluate
from apexsim.search.setting import Setting, calibrated
from apexsim.validate.cases import Case
from apexsim.validate.kinds import read_cases
from apexsim.validate.rows import Answered, Skipped
from apexsim.validate.score import summarise

FORMAT = "apexsim.validation/1"


class Bench:
    """Pricers are shared between cases of equal GPU, engine and width."""

    def __init__(self, profile: Profile | None = None) -> None:
        self.profile = profile
        self.pricers: dict[tuple[Any, ...], Pricer] = {}

    def pricer(self, case: Case) -> Pricer:
        """The pricer of a case."""
        server, fused = case.engine.server.name, case.engine.fuses(case.cluster.gpu.arch)
        key = (case.cluster.gpu.name, server, case.cluster.per_node, case.cluster.nodes, case.custom_all_reduce, fused)
        if key not in self.pricers:
            self.pricers[key] = pricer_for(case.engine, case.cluster, custom_all_reduce=case.custom_all_reduce)
        return self.pricers[key]

    def setting(self, case: Case) -> Setting:
        """What a case was measured on, as a question."""
        setting = Setting(case.model, case.cluster, case.engine, case.workload, self.pricer(case), case.max_model_len)
        return calibrated(setting, self.profile) if self.profile else setting

    def predict(self, case: Case) -> tuple[Evaluation | Rejected, tuple[str, ...]]:
        """The simulated run; one that measured fits though the sizing says no gets just enough memory, and a note."""
        setting = self.setting(case)
        found = evaluate(setting, case.plan)
        if isinstance(found, Evaluation):
            return found, ()
        roomy = replace(setting.engine, memory_fraction=1.0, max_num_seqs=min(case.engine.max_num_seqs, case.workload.size))
        note = f"sized with the whole GPU, since the run existed: {found.reason}"
        return evaluate(replace(setting, engine=roomy, max_model_len=case.workload.longest), case.plan), (note,)


def predicted_ms(found: Evaluation, case: Case) -> dict[str, float]:
    """Means over requests [ms]: TTFT, TPOT (outputs of one token left out), ITL over all gaps, end to end; output tokens per s and GPU."""
    o, output = found.outcome, case.workload.output
    times = Times(o.sent, o.first, o.finish, output)
    many = times.several
    return {
        "ttft_mean_ms": 1e3 * float(times.ttft.mean()),
        "tpot_mean_ms": 1e3 * float(times.tpot[many].mean()) if many.any() else 0.0,
        "itl_mean_ms": 1e3 * float((o.finish - o.first).sum() / max(1, int((output - 1).sum()))),
        "e2e_mean_ms": 1e3 * float(times.e2e.mean()),
        "out_tok_s_per_gpu": float(output.sum() / times.duration) / case.plan.devices,
    }


ENERGY = ("power_w_per_gpu", "j_per_out_token")


def predicted_energy(setting: Setting, found: Evaluation, case: Case) -> dict[str, float]:
    """W of a GPU and J per output token of the run; nothing where the case measured neither."""
    if not case.measured.keys() & set(ENERGY):
        return {}
    energy = energy_of(setting, found)
    return dict(zip(ENERGY, (energy.watts, energy.per_output_token)))


def _row(bench: Bench, case: Case | Answered | Skipped) -> dict[str, Any]:
    if isinstance(case, Answered):
        return {"id": case.id, "status": "ok", "reason": case.reason, "metrics": case.metrics, "labels": case.labels}
    if isinstance(case, Skipped):
        return {"id": case.id, "status": "skipped", "reason": case.reason, "metrics": {}, "labels": case.labels}
    found, notes = bench.predict(case)
    if isinstance(found, Rejected):
        return {"id": case.id, "status": "skipped", "reason": found.reason, "metrics": {}, "labels": case.labels}
    predicted = predicted_ms(found, case) | predicted_energy(bench.setting(case), found, case)
    metrics = case.known | {
        name: {"measured": value, "predicted": predicted[name]} for name, value in case.measured.items() if name in predicted
    }
    return {"id": case.id, "status": "ok", "reason": "; ".join(notes), "metrics": metrics, "provenance": provenance(bench.pricer(case)),
            "labels": case.labels}  # fmt: skip


def provenance(pricer: Pricer) -> str:
    """Where the kernel times of a case come from."""
    return "measured" if pricer.cluster.gpu.kernels else "transferred"


def run(
    path: str | Path, *, workers: int = 0, progress: Callable[[int, int, str], None] | None = None, profile: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Replay every row of a file that can be; the record that `render` and `--json` show.  profile: the name of a calibration."""
    kind, cases = read_cases(path)
    bench = Bench(load_profile(profile) if profile else None)
    for case in cases:
        if isinstance(case, Case):
            bench.pricer(case)
    rows = []
    with ThreadPoolExecutor(workers or 2) as pool:
        for row in pool.map(lambda c: _row(bench, c), cases):
            rows.append(row)
            if progress:
                progress(len(rows), len(cases), str(row["id"]))
    return {"format": FORMAT, "kind": kind, "file": Path(path).name, "summary": summarise(rows), "rows": rows}
