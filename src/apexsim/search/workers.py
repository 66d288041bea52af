"""What one server of a pool can do alone: the numbers by which pools are matched (floor 5).

A prefill server is given a pile of prompts of the workload, a decode server as many requests of mean length as it has room for, their
prompts known, and fewer; all these runs are those of the simulator itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from apexsim.engine.kernel import simulate
from apexsim.engine.types import Host, Requests
from apexsim.errors import Rejected
from apexsim.plan.plan import Plan
from apexsim.search.evaluate import Ready, ready
from apexsim.search.setting import Setting
from apexsim.workload.columns import ideal_hit
from apexsim.workload.trace import Workload

PILE = 32  # prompts of a prefill server, at least; four for each lane
STEPS = 32  # decode steps that are timed
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # sequences of a lane at which they are
READ = Host(0.0, 0.0)  # a front end that has read all requests
SLOWER = 1.02  # a layout this much slower than another of the same size in everything is not paired


@dataclass(frozen=True, slots=True)
class Worker:
    """One server.  rate: requests that it takes in per second at full work; alone: time of a prompt, or of a step of one sequence, with
    nobody else there [s]; steps: (sequences, time of a step [s]) of a decode server, ascending, up to its full batch; with drafts these
    are times of a token."""

    plan: Plan
    rate: float
    alone: float
    steps: tuple[tuple[int, float], ...] = ()

    @property
    def size(self) -> int:
        """GPUs of the server."""
        return self.plan.devices

    def pace(self, tokens: float) -> float:
        """Time of a step [s] where so many tokens per second are asked of it; that of the full batch where it cannot make as many."""
        sizes, times = (np.array(column, float) for column in zip(*self.steps))
        made = np.maximum.accumulate(sizes / times)
        return float(np.interp(tokens, made, times))

    def beaten(self, other: Worker) -> bool:
        """Whether another server of the same size is better in everything."""
        return other.rate >= self.rate * SLOWER and other.alone * SLOWER <= self.alone


def prefill_worker(setting: Setting, plan: Plan) -> Worker | Rejected:
    """A server of prompts: prompts per second, and the time of one."""
    work = setting.workload
    count = max(PILE, 4 * plan.lanes)
    at = np.linspace(0, work.size - 1, count).astype(np.int64)
    made = ready(replace(setting, workload=replace(work, output=np.ones_like(work.output))), plan)
    if isinstance(made, Rejected):
        return made
    one = np.ones(count, np.int64)
    hit = ideal_hit(work) if made.reuse and work.block else 0.0  # of a cache without bounds: the simulation tells what there is
    pile = Requests(np.zeros(count), work.prompt[at], one, cached=(work.prompt[at] * hit).astype(np.int64).clip(0, work.prompt[at] - 1))
    took = float(_run(made, pile)[1].max())
    mean = np.full(1, max(1, round(float(work.prompt.mean()))), np.int64)
    return Worker(plan, count / took, float(_run(made, Requests(np.zeros(1), mean, one[:1]))[1].max()))


def decode_worker(setting: Setting, plan: Plan) -> Worker | Rejected:
    """A server of tokens: requests per second at a full batch, and the time of a step with one sequence and with all."""
    made = ready(setting, plan)
    if isinstance(made, Rejected):
        return made
    work = setting.workload
    output, middle = float(work.output.mean()), _held(work)
    room = made.blocks * made.rules.block // max(1, math.ceil(middle) + STEPS)
    batch = max(1, min(room, made.rules.max_seqs, -(-work.size // plan.lanes))) * plan.lanes
    sizes = sorted({1, *(n * plan.lanes for n in SIZES if n * plan.lanes < batch), batch})
    steps = tuple((n, _step(made, middle, n)) for n in sizes)
    return Worker(plan, batch / (output * steps[-1][1]), steps[0][1], steps)


def _held(work: Workload) -> float:
    """Mean tokens that a decoding request holds."""
    weight = work.output.astype(float)
    return float((weight * (work.prompt + 0.5 * work.output)).sum() / weight.sum())


def _step(made: Ready, context: float, sequences: int) -> float:
    """Mean time of a decode step [s] with so many sequences at a mean context [tokens], of all lanes."""
    prompt = np.full(sequences, max(2, round(context)), np.int64)
    asked = Requests(np.zeros(sequences), prompt, np.full(sequences, STEPS + 1, np.int64), cached=prompt - 1)
    first, finish = _run(made, asked)
    return float(np.median(finish - first)) / STEPS


def _run(made: Ready, asked: Requests) -> tuple[np.ndarray, np.ndarray]:
    """First tokens and ends of requests on one server [s], all of which it has read already."""
    done = simulate(asked, made.rules, READ, made.costs, made.blocks, replicas=1, lanes=made.plan.lanes, gaps=False, drafts=made.drafts)
    return done.first, done.finish
