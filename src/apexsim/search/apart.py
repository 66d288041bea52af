"""Prefill and decode apart: two pools, each with a plan, a cluster and an engine of its own (floor 5).

A request is computed in the prefill pool, which makes its first token; its cache is handed over, and the decode pool makes the
other tokens.  docs/pools.md says by which rules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from apexsim.cost.tables import host_for
from apexsim.engine.kernel import Outcome, simulate
from apexsim.engines import EngineRow
from apexsim.errors import Rejected
from apexsim.hardware import Cluster
from apexsim.plan.plan import Plan
from apexsim.search.evaluate import Evaluation, ready, requests_of
from apexsim.search.setting import ROUTES, Setting

RULES = ("decode-first", "before-transfer", "footprint")  # when, and for what, the decode pool takes a request in


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
    links: int = 1  # of a decode replica, which its transfers share
    parallel: bool = True  # transfers of a receiver overlap in all but the wire; else one after the other
    recompute_first: bool = False  # the first token is made at decode (vLLM)


@dataclass(frozen=True, slots=True)
class ApartEvaluation:
    """Two simulated pools, and the requests as their clients see them."""

    prefill: Evaluation
    decode: Evaluation
    handover: Handover
    outcome: Outcome  # of the requests: sent, start, first, finish

    @property
    def devices(self) -> int:
        """GPUs of both pools."""
        return self.prefill.plan.devices + self.decode.plan.devices


def evaluate_apart(prefill: Setting, plan_p: Plan, decode: Setting, plan_d: Plan, handover: Handover) -> ApartEvaluation | Rejected:
    """Simulate a plan for each pool; both settings hold the same workload."""
    work = prefill.workload
    first = replace(prefill, workload=replace(work, output=np.ones_like(work.output)))
    one, two = ready(first, plan_p), ready(decode, plan_d)
    if isinstance(one, Rejected):
        return one
    if isinstance(two, Rejected):
        return two
    asked = requests_of(first.workload)
    a = simulate(asked, one.rules, host_for(one.engine), one.costs, one.blocks, replicas=plan_p.replicas, lanes=plan_p.lanes,
                 route=ROUTES.index(prefill.route))  # fmt: skip
    order = np.argsort(a.finish, kind="stable")
    arrive = a.finish[order] + handover.hop_s + handover.latency_s
    then = asked._replace(arrive=arrive, prompt=work.prompt[order], output=work.output[order], cached=work.prompt[order] - 1, users=0)
    b = simulate(then, two.rules, host_for(two.engine), two.costs, two.blocks, replicas=plan_d.replicas, lanes=plan_d.lanes,
                 route=ROUTES.index(decode.route))  # fmt: skip
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    b = replace(b, sent=b.sent[back], start=b.start[back], first=b.first[back], finish=b.finish[back], preempted=b.preempted[back], replica=b.replica[back])
    return ApartEvaluation(one.done(a), two.done(b), handover, replace(b, sent=a.sent, start=a.start, first=a.first))


def handover_of(engine: EngineRow, cluster: Cluster) -> Handover:
    """How an engine hands over on a cluster."""
    rule = {"sglang": "decode-first", "tensorrt-llm": "footprint"}.get(engine.server.name, "before-transfer")
    return Handover(rule, 0.04, 0.001, cluster.gpu.nic.bandwidth, links=cluster.per_node)
