"""Prefill and decode apart: two pools, each with a plan, a cluster and an engine of its own (floor 5).

A request is computed in the prefill pool, which makes its first token; its cache is handed over, and the decode pool makes the
other tokens.  docs/pools.md says by which rules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from apexsim.cost.tables import host_for
from apexsim.engine.apart import Crossing, PoolSide, simulate_apart
from apexsim.engine.kernel import Outcome
from apexsim.engine.types import FULL, INFINITY, NO_DRAFTS
from apexsim.engine_file import CROSSINGS, among
from apexsim.engines import EngineRow
from apexsim.errors import InputError, Rejected
from apexsim.hardware import Cluster
from apexsim.plan.plan import Plan
from apexsim.plan.pool import handed_bytes
from apexsim.plan.weights import stages_of
from apexsim.search.evaluate import GAP_LIMIT, Evaluation, Ready, ready, requests_of, route_of
from apexsim.search.setting import Decider, Setting

DECODE_FIRST, BEFORE_TRANSFER = CROSSINGS[:2]


@dataclass(frozen=True, slots=True)
class Handover:
    """How a request goes from prefill to decode.

    rule: "decode-first", a place and the prompt's blocks at decode before it is computed (SGLang); "before-transfer", the prompt's blocks
    before they are sent (vLLM with NIXL); "footprint", a place and the blocks of prompt and output before that (TensorRT-LLM, Dynamo).
    """

    rule: str
    hop_s: float  # router and hand-shake [s]
    latency_s: float  # of a transfer [s]
    bytes_s: float  # of one link [byte/s]
    links: int = 0  # of a decode replica, which its transfers share; 0: one of each GPU
    parallel: bool = True  # transfers of a receiver overlap in all but the wire; else one after the other
    recompute_first: bool = False  # the first token is made at decode (vLLM)
    late: bool = False  # results of a prefill step go out one step late while more prompts wait (SGLang)
    staged: int = 0  # places beyond those that run, for each that may run …
    staged_upto: int = 0  # … where no more than this many may
    finds: bool = False  # decode looks for the prompt in its own cache first (vLLM), and is sent what it lacks


@dataclass(frozen=True, slots=True)
class ApartEvaluation:
    """Two simulated pools, and the requests as their clients see them."""

    prefill: Evaluation
    decode: Evaluation
    handover: Handover
    outcome: Outcome  # of the requests: sent, start, first, finish
    crossing: Crossing  # the hand-over in the engine's numbers
    local: NDArray[np.bool_]  # [R] whether the prompt was computed at decode

    @property
    def devices(self) -> int:
        """GPUs of both pools."""
        return self.prefill.plan.devices + self.decode.plan.devices


def handover_of(engine: EngineRow, cluster: Cluster) -> Handover:
    """How a server hands over by default, over the network of the decode cluster; raises InputError where it does not."""
    told = engine.server.crossed
    if told is None:
        raise InputError(
            f"{engine.server.name} does not serve prefill and decode apart", "--engine", "expected vllm, sglang or tensorrt-llm"
        )
    rate = told.link_share * cluster.gpu.nic.bandwidth
    return Handover(told.rule, told.hop_s, told.latency_s, rate, parallel=told.parallel, recompute_first=told.recompute_first,
                    late=told.late, staged=told.staged, staged_upto=told.staged_upto, finds=told.finds)  # fmt: skip


def evaluate_apart(prefill: Setting, plan_p: Plan, decode: Setting, plan_d: Plan, handover: Handover) -> ApartEvaluation | Rejected:
    """Simulate a plan for each pool; both settings hold the same workload, and the first one's decider says what stays at decode.

    Where the decode pool drafts, the prefill pool computes what its draft layers keep of the prompt as well."""
    among(handover.rule, CROSSINGS, "rule", "hand-over")
    assert prefill.workload.size == decode.workload.size, "both pools serve the same requests"
    work = prefill.workload
    if len(work.stage):
        raise InputError("a load in stages is simulated on one pool", "--stages", "give --request-rate")
    first = replace(prefill, workload=replace(work, output=np.ones_like(work.output)), engine=_unmixed(prefill.engine))
    last = replace(decode, workload=work, engine=decode.engine if handover.finds else replace(decode.engine, reuse=0))
    one, two = ready(first, replace(plan_p, draft=plan_d.draft)), ready(last, plan_d)
    if isinstance(one, Rejected):
        return one
    if isinstance(two, Rejected):
        return two
    crossing = _deciding(_crossing(handover, two, decode), prefill.decider, one)
    before = _side(replace(one, rules=one.rules._replace(look=0), drafts=NO_DRAFTS), prefill)
    both = simulate_apart(requests_of(work, one.reuse or two.reuse), before, _side(two, decode), crossing, gaps=work.size < GAP_LIMIT)
    return ApartEvaluation(one.done(both.prefill), two.done(both.decode), handover, both.whole, crossing, both.local)


def _unmixed(engine: EngineRow) -> EngineRow:
    """The engine of a pool that never decodes.  Where prompts and decodes share steps, the factor of prompt steps was fitted on such
    steps; one of prompts alone takes what its kernels do (docs/log.md)."""
    return replace(engine, prompt_factor=1.0) if engine.mix else engine


def _side(made: Ready, setting: Setting) -> PoolSide:
    """A pool as the engine takes it: what comes from another pool waits for no company, and is looked for at every step."""
    rules = made.rules._replace(wait=0, poll=1)
    return PoolSide(
        rules,
        host_for(made.engine),
        made.costs,
        made.blocks,
        made.plan.replicas,
        made.plan.lanes,
        route_of(setting, made.plan)._replace(age=0.0),
        made.drafts,
        made.offload,
    )


def _deciding(crossing: Crossing, decider: Decider, made: Ready) -> Crossing:
    """The same with what stays at decode; the largest step is that of a prefill server."""
    busy = decider.busy * made.rules.budget * made.plan.lanes
    return replace(crossing, near=decider.tokens, share=min(decider.share, INFINITY), busy=min(busy, INFINITY))


def _crossing(handover: Handover, made: Ready, setting: Setting) -> Crossing:
    """The hand-over in the engine's numbers; each GPU of the receiver gets its part of a cache over its share of the links."""
    plan, seats = made.plan, made.rules.max_seqs
    staged = handover.staged * seats if made.engine.max_num_seqs <= handover.staged_upto else 0
    share = (handover.links or plan.replica_devices) / plan.replica_devices
    mean = float(setting.workload.prompt.mean())
    token_s = handed_bytes(plan, stages_of(setting.model, plan.stages), made.engine, mean) / mean / (handover.bytes_s * share)
    return Crossing(
        first=handover.rule == DECODE_FIRST,
        slots=FULL if handover.rule == BEFORE_TRANSFER else seats + staged,
        seated=handover.rule == BEFORE_TRANSFER,
        recompute=handover.recompute_first,
        again=handover.rule == BEFORE_TRANSFER,
        hop_s=handover.hop_s,
        latency_s=handover.latency_s,
        token_s=token_s,
        parallel=handover.parallel,
        lag=handover.late,
    )
