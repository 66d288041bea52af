"""Where the time of a run went, and how well the GPU was used (floor 3).

Steps are counted by their tokens, so the share of every op is its price at those counts times how often they came.

    MFU = FLOP done per device / (peak of the weights' compute format × busy seconds)
    MBU = bytes moved per device / (memory bandwidth × busy seconds)

"Done" and "moved" are what the kernels really do on one device: replicated heads, all touched weights of every step, the KV read
by every decode.  Padding is not useful work and is not counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apexsim.cost.power import Energy, gpu_watts
from apexsim.cost.price import Pricer
from apexsim.cost.roofline import KERNELS, Peaks, Provenance
from apexsim.cost.tables import Axes, hosted, met, padded, runs, seen_tokens, small_kernels, travel, travels
from apexsim.cost.work import Demand, Done, done
from apexsim.engine.kernel import Outcome
from apexsim.engine.types import DECODE, PROMPT, SUM_NAMES, Costs
from apexsim.engines import EngineRow
from apexsim.gpu import Gpu
from apexsim.model.ops import Attend, Axis, Collective, Cross, Gemm, Grouped, Index, Mla, Op
from apexsim.plan.lower import StageOps
from apexsim.plan.plan import Plan
from apexsim.workload.trace import Workload

Array = NDArray[np.float64]
UNBOUND = ("host", "collectives", "small kernels")  # work that neither peak bounds


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What bounds a run: the largest class of work, its share of the busy time, and the peak ("" = none) that it is nearest to."""

    kind: str = ""
    share: float = 0.0
    peak: str = ""

    def __str__(self) -> str:
        return f"{self.peak}{': ' * bool(self.peak)}{self.kind} ({self.share:.0%} of busy time)" if self.kind else "nothing ran"


@dataclass(frozen=True, slots=True)
class Account:
    """Device-seconds by class (all stages of all replicas), shares of provenance, and use of the hardware."""

    seconds: tuple[tuple[str, float], ...]  # largest first; sums to `busy`
    busy: float  # device-groups × s: stages of all replicas
    idle: float
    provenance: tuple[tuple[str, float], ...]  # share of priced device time
    flop: float  # per device, mean over stages and replicas
    nbytes: float
    mfu: float
    mbu: float
    bottleneck: Bottleneck


@dataclass(frozen=True, slots=True)
class Tally:
    """Device-seconds by class and by provenance, added up op by op.

    engine: the row with the host's constants of this GPU's software; pace: what all kernel times are multiplied by.
    """

    pricer: Pricer
    engine: EngineRow
    axes: Axes
    pace: float
    seconds: dict[str, float]
    shares: Array

    def dense(self, op: Op, count: int, kind: int, at: Array, steps: NDArray[np.int64]) -> None:
        """Add what one op took in all steps of a kind: `steps` of them at (padded) token counts `at`."""
        points = self.axes.token_points()
        priced = self.pricer.dense(op, seen_tokens(op, points), kind == DECODE)
        took = self.pace * count * self.factor(kind) * steps * np.interp(at, points, priced.seconds)
        self.seconds["collectives" if isinstance(op, Collective) else op.label] += float(took.sum())
        codes = priced.provenance[np.minimum(np.searchsorted(points, at), len(points) - 1)]
        np.add.at(self.shares, codes, took)

    def exchanges(self, stage: StageOps, kind: int, at: Array, steps: NDArray[np.int64]) -> None:
        """Add what tokens on the way to their experts and back took of a stage, what computation hides left out."""
        points, ops = self.axes.token_points(), [op for layer, _ in stage.layers for op in layer.ops if travels(op)]
        if not ops:
            return
        each = travel(stage, self.pricer, points, self.engine, self.axes.lanes, kind)
        took = self.pace * float((steps * np.interp(at, points, each)).sum())
        self.seconds["collectives"] += took
        self.shares[int(np.median(self.pricer.dense(ops[0], points, kind == DECODE).provenance))] += took

    def factor(self, kind: int) -> float:
        """What kernels of such steps take, over their own times."""
        return self.engine.prompt_factor if kind == PROMPT else 1.0


def account(
    stages: tuple[StageOps, ...], costs: Costs, outcome: Outcome, pricer: Pricer, engine: EngineRow, axes: Axes, duration: float
) -> Account:
    """Break a run down.  `duration` [s]: from the first request to the last token."""
    row, pace = hosted(pricer, engine)
    tally = Tally(pricer, row, axes, pace, defaultdict(float), np.zeros(len(Provenance)))
    seconds, shares = tally.seconds, tally.shares
    used = usage(stages, costs, outcome, axes.lanes, pricer.bank.peaks)
    _add_dense(tally, stages, outcome)
    _add_attention(tally, stages, outcome)
    seconds["head and sampling"] += outcome.total("sample_s")
    seconds["host"] += outcome.total("host_s") + outcome.total("floor_s")
    busy = outcome.total("busy_s")
    groups = outcome.hist.shape[0] * len(stages)
    ranked = sorted(((k, v) for k, v in seconds.items() if v > 0.0), key=lambda kv: -kv[1])
    total = max(shares.sum(), 1e-30)
    peak = pricer.bank.peaks.rate(_compute(stages))
    flop, nbytes = used.flop * groups, used.nbytes * groups
    return Account(
        tuple(ranked),
        busy,
        max(0.0, duration * groups - busy),
        tuple((p.name.lower(), float(shares[p] / total)) for p in Provenance if shares[p] > 0),
        used.flop,
        used.nbytes,
        flop / (peak * busy) if busy else 0.0,
        nbytes / (pricer.bank.peaks.bandwidth * busy) if busy else 0.0,
        _bottleneck(ranked, flop / peak, nbytes / pricer.bank.peaks.bandwidth),
    )


def together(pools: list[tuple[Account, Plan]]) -> Account:
    """The account of several pools as one: device-seconds add up, shares and rates are means weighted by the GPUs, of MFU and MBU while
    they are busy; what bounds the pool that has least idle time bounds all."""
    if len(pools) == 1:
        return pools[0][0]
    seconds: dict[str, float] = defaultdict(float)
    shares: dict[str, float] = defaultdict(float)
    work = [one.busy * plan.stage_devices for one, plan in pools]
    gpus = [plan.devices for _, plan in pools]
    for (one, _), weight in zip(pools, work):
        for name, took in one.seconds:
            seconds[name] += took
        for name, share in one.provenance:
            shares[name] += share * weight / max(sum(work), 1e-30)

    ones = [one for one, _ in pools]
    fullest = max(ones, key=lambda one: one.busy / max(one.busy + one.idle, 1e-30))
    return Account(
        tuple(sorted(seconds.items(), key=lambda kv: -kv[1])),
        sum(one.busy for one in ones),
        sum(one.idle for one in ones),
        tuple((p.name.lower(), shares[p.name.lower()]) for p in Provenance if shares[p.name.lower()] > 0.0),
        _mean([one.flop for one in ones], gpus),
        _mean([one.nbytes for one in ones], gpus),
        _mean([one.mfu for one in ones], work),
        _mean([one.mbu for one in ones], work),
        fullest.bottleneck,
    )


def _mean(values: Iterable[float], weights: Sequence[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights)) / max(sum(weights), 1e-30)


def usage(stages: tuple[StageOps, ...], costs: Costs, outcome: Outcome, lanes: int, peaks: Peaks) -> Done:
    """What the run asked of one device, mean over stages and replicas; the head's products for every sampled token included."""
    hist = outcome.hist.sum(axis=0)
    demand = _demand(outcome, costs, hist, lanes)
    total = done([*_ops(stages), *((op, 1) for stage in stages for op in stage.head)], demand, peaks)
    devices = outcome.hist.shape[0] * len(stages)
    return Done(total.flop / devices, total.flop16 / devices, total.nbytes / devices)


def run_energy(gpu: Gpu, used: Done, outcome: Outcome, workload: Workload, devices: int) -> Energy:
    """Power and energy of a whole run; a replica is active for at most the sum of its stages' busy seconds."""
    span = float(outcome.finish.max() - outcome.sent.min())
    busy = outcome.sums[:, SUM_NAMES.index("busy_s")]
    active = float(np.minimum(busy / span, 1.0).mean()) if span > 0 else 0.0
    watts = gpu_watts(gpu, used.nbytes / span, used.flop16 / span, active) if span > 0 else gpu.idle_w
    tokens = int(workload.prompt.sum()), int(workload.output.sum())
    return Energy(watts, devices, span, *tokens, workload.size)


def _ops(stages: Iterable[StageOps]) -> list[tuple[Op, int]]:
    """Distinct ops of all stages, and how often they occur."""
    found: Counter[Op] = Counter()
    for stage in stages:
        for layer, n in stage.layers:
            for op in layer.ops:
                found[op] += n
        found.update(stage.entry)
    return list(found.items())


def _met(steps: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token counts that occurred, and how often."""
    n = np.flatnonzero(steps[1:]) + 1
    return n, steps[n]


def _add_dense(tally: Tally, stages: tuple[StageOps, ...], outcome: Outcome) -> None:
    """Ops that grow with tokens, and the gaps between kernels."""
    hist = outcome.hist.sum(axis=0)
    lane_hist = outcome.hist_lane.sum(axis=0) if outcome.hist_lane.shape[2] > 1 else hist
    lanes = {Axis.TOTAL: tally.axes.lanes, Axis.LANE: 1}
    came = {axis: [_met(h[kind]) for kind in (DECODE, PROMPT)] for axis, h in ((Axis.TOTAL, hist), (Axis.LANE, lane_hist))}

    def priced_at(n: NDArray[np.int64], kind: int, axis: Axis) -> NDArray[np.int64]:
        return padded(tally.engine.sizes, hist.shape[1], lanes[axis])[n] if kind == DECODE else n

    for kind in (DECODE, PROMPT):
        for op, count in _ops(stages):
            if isinstance(op, (Attend, Cross, Index)) or travels(op) or not runs(op, kind):
                continue
            n, steps = came[op.axis][kind]
            if len(n):
                tally.dense(op, count, kind, met(op, n, priced_at(n, kind, op.axis)), steps)
        n, steps = came[Axis.TOTAL][kind]
        gaps = tally.pace * tally.engine.gap_s * tally.factor(kind) * float(steps.sum())
        for stage in stages:
            tally.seconds["small kernels"] += gaps * small_kernels(stage, tally.engine)
            if len(n):
                tally.exchanges(stage, kind, priced_at(n, kind, Axis.TOTAL).astype(float), steps)


def _add_attention(tally: Tally, stages: tuple[StageOps, ...], outcome: Outcome) -> None:
    decode, prefill = outcome.total("decode_attention_s"), outcome.total("prefill_attention_s")
    tally.seconds["decode attention"] += decode
    tally.seconds["prefill attention"] += prefill
    op = next((o for o, _ in _ops(stages[:1]) if isinstance(o, (Attend, Mla))), None)
    if op is not None:
        nodes, points = tally.axes.nodes(), tally.axes.batch_points()
        tally.shares[int(np.median(tally.pricer.decode(op, points, nodes).provenance))] += decode
        tally.shares[int(np.median(tally.pricer.prefill(op, nodes)[0].provenance))] += prefill


def _demand(outcome: Outcome, costs: Costs, hist: NDArray[np.int64], lanes: int) -> Demand:
    """What the run asked of one replica's devices, all replicas together."""
    pairs = outcome.read.sum(axis=0)
    rows = tuple((int(w), float(pairs[DECODE, i]), float(pairs[PROMPT, i])) for i, w in enumerate(costs.windows[: pairs.shape[1]]))
    tokens = outcome.total("decode_tokens"), outcome.total("prompt_tokens")
    n, steps = _met(hist.sum(axis=0))
    sampled = (tokens[0] + len(outcome.finish)) / lanes  # one for each decode, and the first tokens
    return Demand(*tokens, float(hist.sum()), lanes, rows, sampled, (n.astype(float), steps.astype(float)))


def _compute(stages: tuple[StageOps, ...]) -> str:
    """The compute format that most GEMM FLOP use."""
    size: dict[str, float] = defaultdict(float)
    for op, n in _ops(stages):
        if isinstance(op, Gemm):
            size[KERNELS[op.kernel].compute] += n * op.n * op.k
        elif isinstance(op, Grouped):
            size[KERNELS[op.kernel].compute] += n * op.hidden * op.inner * op.top_k
    return max(size, key=lambda k: size[k]) if size else "bf16"


def _bottleneck(ranked: list[tuple[str, float]], compute: float, memory: float) -> Bottleneck:
    if not ranked:
        return Bottleneck()
    name, top = ranked[0]
    peak = "" if name in UNBOUND else "memory bandwidth" if memory > compute else "compute"
    return Bottleneck(name, top / sum(v for _, v in ranked), peak)
