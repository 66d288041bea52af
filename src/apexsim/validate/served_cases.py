"""Runs with prefix caching: several rows that measured parts of one run, and transfers of what is cached (floor 5).

A run whose arrivals were not recorded is simulated with several seeds; the mean is the prediction, and the spread is told.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from apexsim.engine.kernel import Outcome
from apexsim.errors import InputError
from apexsim.files import lines
from apexsim.hardware import Cluster, load_gpu
from apexsim.metrics import Times
from apexsim.plan.plan import Layout, Plan
from apexsim.search.setting import Router
from apexsim.validate.cases import Case, engine_for, formats, labels_of, measured, rules_of
from apexsim.validate.facts import known, release, spelled, suspect
from apexsim.validate.facts import settings as in_force
from apexsim.validate.open_cases import SLOWEST
from apexsim.validate.rows import REQUESTS, WIDEST, Cells, Row, Skipped, amount, needed, number, whole
from apexsim.workload.shared import LoadStage, cycled, in_stages
from apexsim.workload.trace import Chains, Ints, Workload

TIMES = {f"{name}_{stat}_ms": f"{name}_{stat}_ms" for name in ("ttft", "tpot", "e2e") for stat in ("mean", "median")}
PARTS = TIMES | {f"ttft_{use}_median_ms": f"ttft_{use}_median_ms" for use in ("cold", "warm")}
SEEDS = 3
HEAVIEST = 1e15  # bytes of one transfer
UNNAMED_LENGTH = 20_000  # tokens: rows say 10-20k, the deployments 20000


@dataclass(frozen=True, slots=True)
class SeedSpan:
    """Requests [begin, end) of a run, which is simulated once for each seed.

    cold: how many of them, from the first one on, find nothing in the cache; stat: what ttft_ms is, "p50" or "p90"; within: only
    first tokens in so many seconds from the begin on were counted.
    """

    id: str
    runs: tuple[Case, ...]
    begin: int
    end: int
    measured: dict[str, float]
    labels: dict[str, str]
    notes: tuple[str, ...] = ()
    cold: int = 0
    stat: str = ""
    within: float = math.inf

    def values(self, outcome: Outcome, output: Ints) -> dict[str, float]:
        """The metrics of the part."""
        mine = slice(self.begin, self.end)
        times = Times(outcome.sent[mine], outcome.first[mine], outcome.finish[mine], output[mine])
        told = {"ttft": times.ttft, "tpot": times.tpot[times.several], "e2e": times.e2e}
        found = {
            f"{name}_{stat}_ms": 1e3 * float(how(x))
            for name, x in told.items()
            for stat, how in (("mean", np.mean), ("median", np.median))
            if len(x)
        }
        found["out_tok_s"] = float(times.output.sum() / times.duration)
        seen = times.ttft[outcome.first[mine] - times.sent[0] <= self.within]
        if self.stat and len(seen):
            found["ttft_ms"] = 1e3 * float(np.percentile(seen, float(self.stat.removeprefix("p"))))
        uses = {"cold": times.ttft[: self.cold], "warm": times.ttft[self.cold :]}
        return found | {f"ttft_{use}_median_ms": 1e3 * float(np.median(x)) for use, x in uses.items() if len(x)}


def mean_of(each: list[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Means over seeds, and standard deviations over them as a share; by metric."""
    names = [name for name in each[0] if all(name in one for one in each)]
    values = {name: np.array([one[name] for one in each]) for name in names}
    spread = {name: float(x.std(ddof=1) / x.mean()) for name, x in values.items() if len(x) > 1 and x.mean() > 0}
    return {name: float(x.mean()) for name, x in values.items()}, spread


# ---- prompts that come again ---------------------------------------------------------------------------------------------


def open_prefixes(rows: list[Row], where: Path) -> Iterator[SeedSpan | Case | Skipped]:
    """Load stages of runs: those of one experiment with distinct prompts follow each other on one server."""
    runs: dict[str, list[Row]] = {}
    for row in rows:
        runs.setdefault(row["experiment"] if row["distinct_prompts"] else row["id"], []).append(row)
    for name, members in runs.items():
        try:
            if members[0]["distinct_prompts"]:
                yield from _stages(members, _lengths_beside(where, "prefix_prompts.csv", "experiment", name, "prompt_tokens"))
            else:
                yield _listed(members[0], where)
        except InputError as error:
            yield from (Skipped(row["id"], error.line(), _labels(row)) for row in members)


def _lengths_beside(where: Path, file: str, key: str, value: str, column: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A column of the file that stands beside the rows', of the rows whose key has a value ("" = all)."""
    path = str(where.parent / file)
    found = [Cells(row) for row in csv.DictReader(lines(path, "file of prompts")) if not key or row.get(key) == value]
    if not found:
        raise InputError(f"holds no prompts of '{value}'", path)
    return np.array([number(row, column) for row in found])


def _labels(row: Row) -> dict[str, str]:
    told = suspect(row).split(" (")[0]
    return labels_of(
        row,
        row["backend"],
        row["system"],
        workload=spelled(row, "workload").split(" ")[0],
        rate=spelled(row, "rate_rps"),
        suspect=told,
        origin="",
        layout=f"{spelled(row, 'replicas')}×TP{spelled(row, 'attn_tp')}",
    )


def _served(row: Row, work: Workload, found: dict[str, float], router: str = "round-robin") -> Case:
    """A run as its row says it was served."""
    gpu, width = load_gpu(row["system"]), Layout(tp=needed(row, "attn_tp", 1, WIDEST))
    model, precision, assumed = formats(row, row["config"], spelled(row, "precision"), gpu)
    plan = Plan(whole(row, "replicas", 1, 1, WIDEST), 1, width, width, precision)
    length = max(whole(row, "max_model_len") if spelled(row, "max_model_len").isdecimal() else UNNAMED_LENGTH, work.longest)
    rules, note = rules_of(row["backend"], row["backend_version"].lstrip("~").split(" ")[0])
    settings = {"max_num_batched_tokens": whole(row, "token_budget") or None, "max_num_seqs": whole(row, "max_seqs") or None}
    engine = engine_for(rules, {**settings, **in_force(row, 1, 0)}, gpu, length)
    return Case(
        row["id"],
        model,
        Cluster(gpu, plan.devices),
        engine,
        plan,
        work,
        length,
        found,
        _labels(row),
        notes=assumed + note,
        router=Router(router),
    )


def _stages(rows: list[Row], lengths: np.ndarray[Any, np.dtype[np.float64]]) -> Iterator[SeedSpan]:
    """One run: the prompts are taken in order, over and over, through all stages; each is known once it has been computed."""
    rates, counts = [amount(row, "rate_rps", SLOWEST) for row in rows], [needed(row, "num_requests", most=REQUESTS) for row in rows]
    stages, count = tuple(LoadStage(rate, n / rate) for rate, n in zip(rates, counts)), sum(counts)
    prompt, ids = lengths.astype(np.int64), np.arange(len(lengths))[:, None]
    prompts, chains = cycled(prompt, ids, int(prompt.max()), count)
    output = np.concatenate([np.full(n, max(1, round(amount(row, "output_tokens")))) for row, n in zip(rows, counts)])
    plain = Workload(rows[0]["experiment"], np.zeros(count), prompts, output, prefix=chains, block=int(prompt.max()))
    case = _served(rows[0], in_stages(plain, stages, np.random.default_rng(0)), {})
    begin = 0
    for row, n in zip(rows, counts):
        end = begin + n
        yield SeedSpan(row["id"], (case,), begin, end, measured(row, PARTS), _labels(row), case.notes, cold=whole(row, "n_cold"))
        begin = end


LISTED = "of each prompt as much is known as its unloaded TTFT implies"
ALIKE = "prompts and outputs of mean length; nothing of them is known"


def _listed(row: Row, where: Path) -> Case:
    """A list of requests at a constant interval: the one that stands beside the file, or requests that are all alike."""
    count, rate = needed(row, "num_requests", most=REQUESTS), amount(row, "rate_rps", SLOWEST)
    if spelled(row, "workload").startswith("sharegpt252"):
        columns = ("prompt_tokens", "generation_tokens", "uncached_tokens_est")
        prompt, output, rest = (_lengths_beside(where, "prefix_sharegpt252.csv", "", "", c)[:count].astype(np.int64) for c in columns)
        had, note = np.clip(prompt - np.maximum(rest, 1), 0, prompt - 1), LISTED
    else:
        prompt, output = (np.full(count, max(1, round(amount(row, c)))) for c in ("prompt_tokens_mean", "output_tokens"))
        had, note = np.zeros(count, np.int64), ALIKE
    work = Workload(row["id"], np.arange(len(prompt)) / rate, prompt, output, cached=had)
    case = _served(
        row, work, measured(row, TIMES), "round-robin" if spelled(row, "routing").startswith("kubernetes") else "least-outstanding"
    )
    return replace(case, notes=(*case.notes, note))


# ---- routers -------------------------------------------------------------------------------------------------------------

ROUTED = {"round-robin": Router(), "prefix-aware": Router("llm-d")}
STAGES = "15:50 3:20 10:20 15:20 20:38 22:34 25:30 30:25 35:21 40:38 43:36 46:33 49:30 52:29 55:27 57:26 60:25"  # of the guide
COUNTED = 46.0  # requests/s up to which the vLLM arm in turn counted only first tokens within the stage


def ladder(rows: list[Row], where: Path) -> Iterator[SeedSpan | Skipped]:
    """Stages of rising rates over shared prefixes, in one run of each engine and policy."""
    runs: dict[tuple[str, str], tuple[Case, ...]] = {}
    for row in rows:
        try:
            key = row["engine"], row["policy"]
            if key not in runs:
                runs[key] = tuple(_climb(row, seed) for seed in range(SEEDS))
            yield _rung(row, runs[key])
        except InputError as error:
            yield Skipped(row["id"], error.line(), _rung_labels(row))


def _rung_labels(row: Row) -> dict[str, str]:
    return labels_of(
        row,
        row["engine"],
        row["gpu"],
        workload=row["policy"],
        rate=row["rate"],
        suspect=suspect(row),
        layout=f"{spelled(row, 'replicas')}×TP{spelled(row, 'tp')}",
    )


def _steps() -> tuple[LoadStage, ...]:
    return tuple(LoadStage(*map(float, one.split(":"))) for one in STAGES.split())


def _rung(row: Row, runs: tuple[Case, ...]) -> SeedSpan:
    """The stage of a row's rate; the first one only warms up."""
    rate = number(row, "rate")
    at = next((k for k, stage in enumerate(_steps()) if k and stage.rate == rate), 0)
    if not at:
        raise InputError(f"no stage has the rate {rate:g}", f"row {row['id']}")
    edges = np.cumsum([0, *(stage.count for stage in _steps())])
    late = row["engine"] == "vllm" and row["policy"] == "round-robin" and rate <= COUNTED
    found = measured(row, {"out_tok_s": "out_tok_s", "ttft_ms": "ttft_ms"})
    return SeedSpan(
        row["id"],
        runs,
        int(edges[at]),
        int(edges[at + 1]),
        found,
        _rung_labels(row),
        runs[0].notes,
        stat=row["ttft_stat"] or "p50",
        within=_steps()[at].seconds if late else math.inf,
    )


def _asked(row: Row, seed: int) -> Workload:
    """The requests of all stages: in each the shuffled questions are taken from the first one on."""
    shared, own, count = (needed(row, key) for key in ("shared_tokens", "own_tokens", "prefixes"))
    rng, stages, unit = np.random.default_rng(seed), _steps(), math.gcd(shared, own)
    order = rng.permutation(count * needed(row, "questions", most=REQUESTS))
    first, rest = shared // unit, own // unit
    ids = np.hstack(((order % count)[:, None] * first + np.arange(first), count * first + order[:, None] * rest + np.arange(rest)))
    parts = [cycled(np.full(len(order), shared + own), ids, unit, stage.count) for stage in stages]
    prompt, output = np.concatenate([p for p, _ in parts]), needed(row, "output_tokens")
    chains = Chains(np.concatenate([c.ids for _, c in parts]), np.arange(len(prompt) + 1) * (first + rest))
    plain = Workload(row["id"], np.zeros(len(prompt)), prompt, np.full(len(prompt), output), prefix=chains, block=unit)
    return in_stages(plain, stages, rng)


def _climb(row: Row, seed: int) -> Case:
    """The whole run."""
    if row["policy"] not in ROUTED:
        raise InputError(f"unknown policy '{row['policy']}'", f"row {row['id']}", f"use {', '.join(ROUTED)}")
    gpu, width, work = load_gpu(row["gpu"]), Layout(tp=needed(row, "tp", 1, WIDEST)), _asked(row, seed)
    model, precision, assumed = formats(row, row["config"], "", gpu)
    plan = Plan(whole(row, "replicas", 1, 1, WIDEST), 1, width, width, precision)
    rules, note = rules_of(row["engine"], release(row))
    fraction = number(row, "gpu_memory_utilization")
    length = max(model.max_length, work.longest)
    told = {} if math.isnan(fraction) else {"memory_fraction": fraction}
    engine = engine_for(rules, in_force(row, 1, 0) | told, gpu, length)
    return Case(
        row["id"],
        model,
        Cluster(gpu, plan.devices),
        engine,
        plan,
        work,
        length,
        {},
        _rung_labels(row),
        notes=assumed + note,
        router=ROUTED[row["policy"]],
    )


# ---- transfers of what is cached -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moved:
    """A transfer that a formula predicts, and its error bar: σ of the logarithm."""

    id: str
    measured: dict[str, float]
    predicted: dict[str, float]
    labels: dict[str, str]
    sigma: float
    notes: tuple[str, ...] = field(default=())


def transfer(row: Row, where: Path) -> Moved | Skipped:
    """KV blocks from one pool to another: latency + bytes / share of the network's rate; the GPU plays no part."""
    labels = {"engine": spelled(row, "backend").split(" ")[0], "gpu": "", "model": row["config"], "suspect": suspect(row)}
    fact = next(known("transfer", row), None)
    if fact is None:
        return Skipped(row["id"], f"nothing is known of the network '{row['network'][:60]}'", labels)
    seconds = fact["latency_s"] + amount(row, "kv_bytes_stated", 0.0, HEAVIEST) / fact["bytes_s"]
    return Moved(
        row["id"], measured(row, {"transfer_ms": "transfer_ms"}), {"transfer_ms": 1e3 * seconds}, labels, fact["sigma"], (fact["source"],)
    )


def pull(row: Row, where: Path) -> Moved | Skipped:
    """A prefix from a peer's cache: what a pull costs whatever it moves + bytes / the rate of one request's pull."""
    labels = labels_of(row, "vllm", row["gpu"], layout=f"TP{spelled(row, 'tp')}", suspect=suspect(row))
    fact = next(known("pull", row), None)
    if fact is None:
        return Skipped(row["id"], f"nothing is known of pulls of {row['config']} over '{row['link']}'", labels)
    seconds = fact["latency_s"] + needed(row, "prompt_tokens") * fact["bytes_token"] / fact["bytes_s"]
    return Moved(row["id"], measured(row, {"pull_ms": "pull_ms"}), {"pull_ms": 1e3 * seconds}, labels, fact["sigma"], (fact["source"],))
