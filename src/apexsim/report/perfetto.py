"""A run for the trace viewers ui.perfetto.dev and chrome://tracing (floor 6).

Each replica is a process: a row of its batches, counters of its sequences, prompt tokens, KV blocks and queue, and its first requests
with their time in the queue, on the prompt and on the answer.  A batch lasts until the next that was noted: runs of pure decoding are
one, and of long runs only an even sample is noted (`engine.notes`).  Stages of a pipeline work on batches in turn and have no rows of
their own: when each of them was busy is not kept.  Format: Trace Event Format, times in µs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from apexsim.engine.kernel import Outcome
from apexsim.search.assess import Assessed, outcome_of
from apexsim.search.study import Study

MICRO = 1e6
REQUESTS = 2_000  # of a replica
PHASES = ("queue", "prompt", "answer")
Event = dict[str, Any]


def rendered(study: Study) -> Iterator[str]:
    """The file of the first plan's run, in parts."""
    run = study.ranked[0]
    outcome = outcome_of(study.setting, run)
    yield '{"displayTimeUnit":"ms","traceEvents":[\n'
    first = True
    for event in _events(study, run, outcome):
        yield ("" if first else ",\n") + json.dumps(event, separators=(",", ":"))
        first = False
    yield "\n]}\n"


def _events(study: Study, run: Assessed, outcome: Outcome) -> Iterator[Event]:
    pool = run.sides[-1]  # of two, the one that makes the tokens
    for replica in range(pool.plan.replicas):
        yield _named("process_name", replica, f"replica {replica + 1} of {pool.plan.shorthand} on {study.setting.cluster.gpu.name}")
        yield _named("thread_name", replica, "batch")
        yield from _batches(run, outcome, replica)
        mine = np.flatnonzero(outcome.replica == replica)
        yield from _waiting(outcome, replica, mine)
        yield from _requests(study, outcome, replica, mine[:REQUESTS])


def _named(kind: str, replica: int, name: str) -> Event:
    return {"ph": "M", "name": kind, "pid": replica + 1, "tid": 0, "args": {"name": name}}


def _batches(run: Assessed, outcome: Outcome, replica: int) -> Iterator[Event]:
    """Slices and counters from the noted batches."""
    rows = outcome.timeline[outcome.timeline[:, 1] == replica]
    rows = rows[rows[:, 0].argsort(kind="stable")]
    mine = outcome.replica == replica
    end = float(outcome.finish[mine].max()) if mine.any() else 0.0
    until = [*rows[1:, 0].tolist(), end]
    blocks = run.room.blocks * run.sides[-1].plan.lanes
    for (start, _, sequences, used, prompts), stop in zip(rows.tolist(), until):
        if sequences or prompts:
            name = " + ".join(filter(None, (f"{sequences:.0f} decoding" * bool(sequences), f"{prompts:.0f} prompt tokens" * bool(prompts))))
            yield {"ph": "X", "name": name, "cat": "batch", "pid": replica + 1, "tid": 0, "ts": start * MICRO,
                   "dur": max(0.0, stop - start) * MICRO}  # fmt: skip
        for what, value in (("sequences", sequences), ("prompt tokens", prompts), ("KV blocks", used)):
            yield _counter(what, replica, start, value)
        if blocks:
            yield _counter("KV share %", replica, start, round(100.0 * used / blocks, 3))


def _counter(what: str, replica: int, at: float, value: float) -> Event:
    return {"ph": "C", "name": what, "pid": replica + 1, "ts": at * MICRO, "args": {"value": value}}


def _waiting(outcome: Outcome, replica: int, mine: Any) -> Iterator[Event]:
    """The queue: one more when a request is sent, one less when it first starts."""
    times = np.concatenate((outcome.sent[mine], outcome.start[mine]))
    steps = np.concatenate((np.ones(len(mine)), -np.ones(len(mine))))
    order = np.lexsort((-steps, times))
    length = np.cumsum(steps[order])
    times = times[order]
    last = np.append(times[1:] != times[:-1], True) if len(times) else np.zeros(0, np.bool_)
    for at, value in zip(times[last].tolist(), length[last].tolist()):
        yield _counter("queue", replica, at, value)


def _requests(study: Study, outcome: Outcome, replica: int, mine: Any) -> Iterator[Event]:
    """Phases of the first requests, as nested slices."""
    work = study.setting.workload
    for r in mine.tolist():
        moments = (outcome.sent[r], outcome.start[r], outcome.first[r], outcome.finish[r])
        common = {"cat": "request", "id": r, "pid": replica + 1, "tid": 0}
        told = {"prompt tokens": int(work.prompt[r]), "output tokens": int(work.output[r])}
        yield {"ph": "b", "name": f"request {r}", "ts": float(moments[0]) * MICRO, "args": told, **common}
        for name, start, stop in zip(PHASES, moments, moments[1:]):
            yield {"ph": "b", "name": name, "ts": float(start) * MICRO, **common}
            yield {"ph": "e", "name": name, "ts": float(stop) * MICRO, **common}
        yield {"ph": "e", "name": f"request {r}", "ts": float(moments[3]) * MICRO, **common}
