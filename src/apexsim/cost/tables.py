"""From ops to the engine's tables (floor 3).

    decode step:  Σ dense ops(padded n) + gap·gaps + head(s) + decode attention, outside captured graphs at least floor·launches
    prompt step:  factor·(Σ dense ops(n) + gap·gaps) + exchanges(n) + head(s) + prompt attention + (1 + beside·r)·decode attention,
                  at least floor·launches, another floor above the largest captured size, plus add·launches·r with
                  r = min(1, prompt tokens of a lane / ramp)
    both:         plus step + sequence·s on the host, where steps are not formed ahead; head(s) holds the choice of tokens

Tokens are those that one device meets: of its lane, or of all lanes where a cell gathers them; graphs are captured for a lane's tokens.
Of two half batches (`half_batches`) HIDDEN of the shorter of computation and exchange of a layer runs beside the longer; attention over
the context is not counted there, so that less is hidden where the exchange is the longer.
Gaps: small kernels less the norms that all-reduces do.  Host terms come from the engine's row.  Every op is priced on a few hundred
token counts and spread linearly onto the dense axis; equal layers are priced once and multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from apexsim.cost import collectives
from apexsim.cost.price import Pricer, quantised_apart
from apexsim.cost.roofline import BYTE_SHARE
from apexsim.engine.types import ADMIT_RESERVE, AHEAD, BARE, DECODE, FULL, LOOSE, PROMPT, Costs, Host, Rules
from apexsim.engines import DECODES_ONLY, IN_PARTS, EngineRow
from apexsim.model.ops import ACT, Attend, Axis, Collective, Cross, Gemm, Grouped, Index, Layer, Mla, Op, Stream
from apexsim.plan.lower import GREEDY_BYTES, StageOps
from apexsim.plan.plan import Plan

Array = NDArray[np.float64]
Reader = Attend | Cross | Mla | Index  # ops that grow with the context
Readers = tuple[tuple[Reader, int], ...]  # with how often they occur
K = TypeVar("K")
T = TypeVar("T")
HIDDEN = 0.5  # of the shorter of compute and exchange; four published layouts of DeepSeek-V3, leaving one out: 0.5 to 0.6
STRIDE = 16  # tokens between two points of the prompt attention table
# Full tiles of products: the tables hold this many rows and one more.  Graphs are captured at such sizes, and budgets end there.
EDGES = np.concatenate([np.arange(32.0, 128.0, 16.0), np.arange(128.0, 256.0, 32.0), np.arange(256.0, 4353.0, 256.0)])


@dataclass(frozen=True, slots=True)
class Axes:
    """The points on which ops are priced and the dense axes they are spread on."""

    tokens: int  # largest number of tokens of a step (all lanes)
    sequences: int  # largest number of sequences of a lane
    length: int  # longest prompt + output
    lanes: int

    def token_points(self) -> Array:
        """Token counts at which dense ops are priced: every one up to 32, then 6 % apart, and both sides of a full tile."""
        return _token_points(max(self.tokens, 33))

    def batch_points(self) -> Array:
        """Batches at which decode attention is priced."""
        return _batch_points(max(self.sequences, 2))

    def nodes(self) -> Array:
        """Context nodes, multiples of 16: 0, then about 20 % apart."""
        return _nodes(16 * (-(-self.length // 16) + 1))


@lru_cache(maxsize=64)
def _token_points(top: int) -> Array:
    steps = np.arange(0, np.log(top / 32) / np.log(1.06) + 1)
    edges = EDGES[top > EDGES]
    return np.unique(np.minimum(np.concatenate([np.arange(1, 33), np.round(32 * 1.06**steps), edges, edges + 1.0]), top))


@lru_cache(maxsize=64)
def _batch_points(top: int) -> Array:
    return np.unique(np.minimum(np.concatenate([np.arange(1, 9), np.round(8 * 1.25 ** np.arange(0, 40))]), top))


@lru_cache(maxsize=64)
def _nodes(top: int) -> Array:
    grown = np.concatenate([[0, 16, 32, 48, 64, 96, 128], 16 * np.round(8 * 1.2 ** np.arange(1, 80))])
    return np.unique(np.minimum(grown, top)).astype(float)


def axes_for(engine: EngineRow, lanes: int, requests: int, longest: int, width: int = 1) -> Axes:
    """Axes for a workload: no more sequences than requests, budgets as the engine has them; width: tokens of a step that each decoding
    sequence takes up."""
    sequences = min(engine.max_num_seqs, max(requests, 1))
    tokens = lanes * (max(engine.max_num_batched_tokens, longest) + sequences * width)
    return Axes(tokens, sequences, longest, lanes)


def rules_for(engine: EngineRow, blocks: int, block_size: int, requests: int, lanes: int, look: int = 0) -> Rules:
    """The engine's batching rules as numbers; a batch never holds more sequences than there are requests.  look: slots that a decoding
    sequence keeps behind its tokens, unless those of its whole output are reserved."""
    return Rules(
        mix=engine.mix,
        chunk=engine.chunk,
        budget=engine.max_num_batched_tokens,
        max_seqs=min(engine.max_num_seqs, max(requests, 1)),
        block=block_size,
        watermark=int(engine.watermark * blocks),
        admission=engine.admission,
        preempt=engine.preempt,
        order=engine.order,
        lag=engine.lag,
        poll=engine.poll_interval,
        pad_lanes=1 if lanes > 1 else 0,
        prefill_limit=engine.prefill_limit or FULL,
        wait=engine.balance_wait if lanes > 1 else engine.batch_wait_iters,
        wait_tokens=math.ceil(engine.batch_wait_ratio * engine.max_num_batched_tokens),
        reuse=engine.reuse,
        rest_first=engine.rest_first,
        look=look if engine.admission != ADMIT_RESERVE else 0,
    )


def host_for(engine: EngineRow) -> Host:
    """The front-end path of a request."""
    return Host(tokenise=engine.tokenise_s, request=engine.request_s)


def seen_tokens(op: Op, points: Array) -> Array:
    """Tokens that an op sees when the step has `points` of them."""
    split = getattr(op, "split", 1)
    return points if split == 1 else np.ceil(points / split)


def _dense(stage: StageOps, pricer: Pricer, points: Array, axis: Axis, kind: int) -> tuple[Array, dict[Grouped, Array]]:
    """Seconds [n] of all ops of a stage that grow with `axis`, without exchanges (`travel`); routed experts apart."""
    total, routed = np.zeros_like(points), dict[Grouped, Array]()
    for ops, count in [(layer.ops, n) for layer, n in stage.layers] + [(stage.entry, 1), (stage.head, 1)]:
        for op in ops:
            if isinstance(op, (Attend, Cross, Index)) or op.axis is not axis or travels(op) or not runs(op, kind):
                continue
            seconds = count * pricer.dense(op, seen_tokens(op, points), kind == DECODE).seconds
            if isinstance(op, Grouped):
                routed[op] = routed.get(op, 0.0) + seconds
            else:
                total += seconds
    return total, routed


def travel(stage: StageOps, pricer: Pricer, points: Array, engine: EngineRow, lanes: int, kind: int) -> Array:
    """Seconds [n] that tokens on the way to their experts and back keep a stage busy; of two half batches HIDDEN of the shorter of
    computation and exchange runs beside the longer."""
    total, factor = np.zeros_like(points), engine.prompt_factor if kind == PROMPT else 1.0
    for layer, count in stage.layers:
        sent = np.sum([pricer.dense(op, points, kind == DECODE).seconds for op in layer.ops if travels(op)], axis=0)
        if engine.half_batches and np.any(sent):
            sent = sent - HIDDEN * np.minimum(sent, factor * _computed(layer, pricer, points, lanes, kind))
        total += count * sent
    return total


def _computed(layer: Layer, pricer: Pricer, points: Array, lanes: int, kind: int) -> Array:
    """Seconds [n] of the ops of a layer that grow with tokens and do not travel."""
    total = np.zeros_like(points)
    for op in layer.ops:
        if isinstance(op, (Attend, Cross, Index)) or op.axis is Axis.SEQUENCE or travels(op) or not runs(op, kind):
            continue
        n = np.ceil(points / lanes) if op.axis is Axis.LANE else points
        total += pricer.dense(op, seen_tokens(op, n), kind == DECODE).seconds
    return total


def travels(op: Op) -> bool:
    """Whether an op carries tokens to their experts and back."""
    return isinstance(op, Collective) and op.route is not None


def met(op: Op, n: NDArray[np.int64], at: NDArray[np.int64]) -> Array:
    """Tokens that a step of n tokens padded to `at` is priced at.  Padding chooses no experts of its own: SGLang masks it out of the
    routing (num_token_non_padded), TensorRT-LLM's is one dummy request over and over.  So its rows count only as far as the experts
    are read anyway, 1 - (1 - k/E)^n of them."""
    rows = at.astype(float)
    if not isinstance(op, Grouped) or at is n:
        return rows
    end = int(np.max(np.flatnonzero(at != n), initial=-1)) + 1  # beyond it nothing is padded
    idle, n, at = 1.0 - op.top_k / max(op.experts, op.top_k + 1), n[:end], at[:end]
    rows[:end] = n + (at - n) * (1.0 - idle ** (n / op.split))
    return rows


def runs(op: Op, kind: int) -> bool:
    """Whether steps of a kind run an op on the main stream; what captured steps run beside the experts is theirs."""
    if not isinstance(op, Gemm):
        return True
    return not (op.beside and kind == DECODE) and op.only in ("", "decode" if kind == DECODE else "prompt")


@lru_cache(maxsize=64)
def padded(captured: tuple[int, ...], size: int, lanes: int = 1) -> NDArray[np.int64]:
    """[size] tokens that n become where each of `lanes` equal lanes is padded to a captured size; larger batches run as they are."""
    n = np.arange(size)
    if not captured:
        return n
    sizes, each = np.asarray(captured), -(-n // lanes)
    up = sizes[np.minimum(np.searchsorted(sizes, each), len(sizes) - 1)] * lanes
    return np.where((n > 0) & (each <= sizes[-1]), np.minimum(up, size - 1), n)


def small_kernels(stage: StageOps, engine: EngineRow) -> int:
    """Small kernels of one step: those of its layers but the norms that all-reduces do on the way."""
    found = stage.gaps
    for layer, count in stage.layers:
        reduces = sum(isinstance(op, Collective) and op.kind == "all_reduce" for op in layer.ops)
        found -= count * min(engine.joined_norms, reduces)
    return found


def _token_table(stage: StageOps, pricer: Pricer, engine: EngineRow, axes: Axes, axis: Axis, size: int) -> Array:
    """[K, n] seconds of the ops on one axis, factors and gaps included."""
    lanes = 1 if axis is Axis.LANE else axes.lanes
    points, n = axes.token_points(), np.arange(size)
    table = np.zeros((2, size))
    for kind in (DECODE, PROMPT):
        total, routed = _dense(stage, pricer, points, axis, kind)
        at = padded(engine.sizes, size, lanes) if kind == DECODE else n
        seconds = np.interp(at, points, total + (engine.gap_s * small_kernels(stage, engine) if axis is Axis.TOTAL else 0.0))
        for op, each in routed.items():
            seconds += np.interp(met(op, n, at), points, each)
        table[kind] = seconds * (engine.prompt_factor if kind == PROMPT else 1.0)
        if axis is Axis.TOTAL and axes.lanes > 1:
            table[kind] += np.interp(at, points, travel(stage, pricer, points, engine, axes.lanes, kind))
    table[:, 0] = 0.0
    return table


def _attention_ops(stages: tuple[StageOps, ...]) -> list[Readers]:
    return [tuple((op, n) for layer, n in s.layers for op in layer.ops if isinstance(op, Reader)) for s in stages]


def _window(op: Reader) -> int:
    """Tokens of the context that matter to an op."""
    if isinstance(op, Mla):
        return (op.top_k if not op.compress else 0) or (op.window if op.direct and not op.compress else 0) or FULL
    return op.window if isinstance(op, Attend) and op.window else FULL


def _spread(points: Array, values: Array, size: int) -> Array:
    """Rows [d, c] at batch `points` spread onto 0…size−1, linearly; row 0 is no work."""
    d = np.arange(size, dtype=float)
    i = np.clip(np.searchsorted(points, d, side="right") - 1, 0, len(points) - 2)
    x = np.clip((d - points[i]) / (points[i + 1] - points[i]), 0.0, None)[:, None]
    out = values[i] * (1 - x) + values[i + 1] * x
    out[0] = 0.0
    return out


@dataclass(frozen=True, slots=True)
class DraftReads:
    """What a sequence asks attention for in a decode step: with `width` tokens at once, and of the readers that draft `again` times
    with one."""

    width: int = 1
    readers: Readers = ()
    again: int = 0


PLAIN = DraftReads()


def drafts_of(stage: StageOps, width: int) -> DraftReads:
    """Those of a stage."""
    drafter = stage.drafter
    if drafter is None:
        return DraftReads(width)
    return DraftReads(width, tuple((op, n) for layer, n in drafter.layers for op in layer.ops if isinstance(op, Reader)), drafter.again)


def _decode_table(ops: Readers, windows: list[int], pricer: Pricer, axes: Axes, nodes: Array, drafts: DraftReads = PLAIN) -> Array:
    """[W, D, C] seconds; rising in the context."""
    size, points = axes.sequences + 2, axes.batch_points()
    table = np.zeros((len(windows), size, len(nodes)))
    for op, count in [(wide(op, drafts.width), n) for op, n in ops] + [(op, n * drafts.again) for op, n in drafts.readers]:
        seconds = pricer.decode(op, points, np.minimum(nodes, _window(op))).seconds
        table[windows.index(_window(op))] += count * _spread(points, np.maximum.accumulate(seconds, axis=1), size)
    return table


def wide(op: Reader, width: int) -> Reader:
    """The op of a sequence that asks with `width` tokens at once: the cache is read once, for so many times the query heads."""
    return op if width == 1 else replace(op, heads=op.heads * width)


def _prefill_table(ops: Readers, pricer: Pricer, axes: Axes) -> tuple[Array, float]:
    """[x] seconds of a prompt of STRIDE·x tokens, and the launch of the kernels of one step."""
    points = axes.nodes()
    dense = np.arange(-(-axes.length // STRIDE) + 2) * float(STRIDE)
    table, base = np.zeros_like(dense), 0.0
    for op, count in ops:
        priced, launch = pricer.prefill(op, points)
        table += count * np.interp(dense, points, priced.seconds)
        base += count * launch
    return table, base


def _locate(nodes: Array) -> NDArray[np.int64]:
    """Node at or below context 16·x."""
    at = np.searchsorted(nodes, np.arange(int(nodes[-1]) // 16 + 1) * 16.0, side="right") - 1
    return np.ascontiguousarray(np.clip(at, 0, len(nodes) - 2), np.int64)


def compile_costs(stages: tuple[StageOps, ...], plan: Plan, pricer: Pricer, engine: EngineRow, axes: Axes, hidden: int) -> Costs:
    """The engine's tables for one plan."""
    engine, pace = hosted(pricer, engine)
    width = plan.draft.width if plan.draft else 1
    size, attention = axes.tokens + 1, _attention_ops(stages)
    windows = sorted({_window(op) for ops in attention for op, _ in ops}, reverse=True) or [FULL]
    nodes = axes.nodes()
    prefill = _each(attention, lambda ops: _prefill_table(ops, pricer, axes))
    sample = np.zeros((len(stages), axes.sequences + 2))
    for s, stage in enumerate(stages):
        seconds, _ = _dense(stage, pricer, axes.token_points(), Axis.SEQUENCE, DECODE)
        count = np.arange(sample.shape[1])
        sample[s] = np.interp(count * width, axes.token_points(), seconds) + count * width * _choosing(stage, pricer, engine)
        sample[s] += drafting_seconds(stage, pricer, engine, axes, count)
        sample[s, 0] = 0.0
    own = axes.tokens // axes.lanes + 1  # tokens of one lane
    lane = [np.zeros((2, size))] * len(stages)
    if plan.lanes > 1:
        lane = _each(stages, lambda stage: _token_table(stage, pricer, engine, axes, Axis.LANE, own))
    total = _each(stages, lambda stage: _token_table(stage, pricer, engine, axes, Axis.TOTAL, size))
    asked = [(ops, drafts_of(stage, width)) for ops, stage in zip(attention, stages)]
    decode = _each(asked, lambda one: _decode_table(one[0], windows, pricer, axes, nodes, one[1]))
    floor, add = _host_terms(stages, pricer, engine)
    each = engine.sequence_s if in_turn(engine) else 0.0
    each += engine.draft_sequence_s / plan.lanes if plan.draft else 0.0  # each lane has a host of its own
    hop, hop_token = _hops(len(stages), plan, pricer, hidden)
    costs = Costs(
        lane=_stacked(lane),
        total=_stacked(total),
        sample=sample,
        decode=_stacked(decode),
        nodes=nodes,
        locate=_locate(nodes),
        windows=np.asarray(windows, np.int64),
        prefill=_stacked([table for table, _ in prefill]),
        stride=STRIDE,
        prompt_base=np.asarray([b for _, b in prefill]),
        floor=floor,
        captured=engine.max_capture,
        add=add,
        add_seq=float(each),
        hop=hop,
        hop_token=hop_token,
        ramp=float(engine.prompt_full_tokens),
        beside=float(engine.prompt_decode_share),
    )
    return costs if pace == 1.0 else _paced(costs, pace)


def hosted(pricer: Pricer, engine: EngineRow) -> tuple[EngineRow, float]:
    """An engine's row with the host's constants of the GPU's software, and the pace of its release, where both were fitted on runs."""
    fitted = pricer.bank.fitted
    return (fitted.hosted(engine), fitted.pace(engine)) if fitted else (engine, 1.0)


def _paced(costs: Costs, pace: float) -> Costs:
    """All that kernels take, times the pace of a release; what the host takes stays."""
    scaled = {name: getattr(costs, name) * pace for name in ("lane", "total", "sample", "decode", "prefill", "prompt_base")}
    return costs._replace(**scaled)


def drafting_seconds(stage: StageOps, pricer: Pricer, engine: EngineRow, axes: Axes, count: NDArray[np.int64]) -> Array:
    """Seconds of a step for the drafts of `count` sequences of each lane, attention left out: the head of each draft, and the layers that
    draft once more for each but the first.  Their first pass is part of the step itself; where no graph holds that, it waits for its
    launches."""
    drafter, points, total = stage.drafter, axes.token_points(), np.zeros(len(count))
    if drafter is None:
        return total
    for op in drafter.head:
        total += (drafter.again + 1) * np.interp(count, points, pricer.dense(op, points, True).seconds)
    for op, n in ((op, n) for layer, n in drafter.layers for op in layer.ops):
        if not isinstance(op, (Attend, Cross, Index)) and runs(op, DECODE):
            rows = count if op.axis is Axis.LANE else count * axes.lanes
            total += n * drafter.again * np.interp(rows, points, pricer.dense(op, seen_tokens(op, points), True).seconds)
    total += drafter.again * engine.gap_s * drafter.gaps
    total += engine.draft_launch_s * drafter.decode_launches
    return np.where(count > 0, total, 0.0)


def _choosing(stage: StageOps, pricer: Pricer, engine: EngineRow) -> float:
    """Seconds per sequence of choosing among its logits otherwise than greedily: a sort and masks over the vocabulary, in many passes."""
    logits = sum(op.bytes_per_token for op in stage.head if isinstance(op, Stream) and op.label == "sample") / GREEDY_BYTES
    return engine.logit_bytes * logits / (BYTE_SHARE * pricer.bank.peaks.bandwidth)


def _each(items: Iterable[K], make: Callable[[K], T]) -> list[T]:
    """`make` of every item, once for equal ones: the stages in the middle of a pipeline are alike."""
    made: dict[K, T] = {}
    return [made[item] if item in made else made.setdefault(item, make(item)) for item in items]


def _stacked(tables: list[Array]) -> Array:
    """Tables of all stages; no copy of a single one."""
    return tables[0][None] if len(tables) == 1 else np.stack(tables)


def in_turn(engine: EngineRow) -> bool:
    """Whether the host forms a step while the GPU waits for it; where steps are formed ahead, that work hides behind the GPU."""
    return engine.lag < AHEAD


def _host_terms(stages: tuple[StageOps, ...], pricer: Pricer, engine: EngineRow) -> tuple[Array, Array]:
    """[S, 2K] floor and [S, K] addition of a step: launches per stage (with what quantises apart), the scheduler's own time on the
    first.  Without graphs at all, a step runs the model's own code, which launches no faster than compiled code does.  Where a prompt
    step's parts are captured, those with more tokens than the largest graph are launched by the host."""
    apart = [sum(n * sum(quantised_apart(pricer, op) for op in layer.ops) for layer, n in s.layers) for s in stages]
    launches = np.asarray([float(s.launches + more) for s, more in zip(stages, apart, strict=True)])
    decodes = np.asarray([float(s.decode_launches + more) for s, more in zip(stages, apart, strict=True)])
    floor, add = np.zeros((len(stages), 4)), np.zeros((len(stages), 2))
    prompt = engine.prompt_eager_launch_s if engine.prompt_graphs == DECODES_ONLY else engine.prompt_floor_launch_s
    least = 0.0 if engine.pad else engine.eager_launch_s
    floor[:, PROMPT] = max(prompt, least) * launches
    loose = engine.prompt_eager_launch_s if engine.prompt_graphs == IN_PARTS else 0.0
    compiled = np.asarray([float(s.compiled_launches + more) for s, more in zip(stages, apart, strict=True)])
    floor[:, LOOSE] = np.maximum(max(prompt, least) * launches, loose * compiled)
    floor[:, BARE] = max(prompt, least, engine.bare_launch_s) * decodes
    add[:, PROMPT] = engine.prompt_add_launch_s * launches
    add[0] += engine.step_s if in_turn(engine) else 0.0
    return floor, add


def _hops(stages: int, plan: Plan, pricer: Pricer, hidden: int) -> tuple[Array, Array]:
    """[S] seconds, and seconds per token of all lanes, of handing activations (and the residual) to a stage; each rank sends its share."""
    hop, hop_token = np.zeros(stages), np.zeros(stages)
    if stages > 1:
        link = pricer.cluster.link(2, plan.stage_devices)
        fixed, per_byte = collectives.hop(pricer.bank, link, 2 if link is pricer.cluster.gpu.nic else 1)
        hop[1:], hop_token[1:] = fixed, 2 * ACT * hidden / plan.stage_devices * per_byte
    return hop, hop_token
