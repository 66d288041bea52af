"""The requests of a workload again and again, until a run is not over before the batch has filled (floor 2).

Each repetition comes behind the one before at the same rate.  Prompts that share a beginning share it with those of their own repetition
alone, as other users' would: found again by a later one, a cache would hold everything.  Who waits for whom is repeated, too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from apexsim.workload.trace import NO_CHAINS, NO_FLOATS, NO_INTS, Chains, Ints, Workload


def repeated(work: Workload, least: int) -> Workload:
    """At least so many requests; as they are where there are enough, or where they come in stages."""
    times = -(-least // work.size)
    if times < 2 or len(work.stage):
        return work
    period = work.span * work.size / max(1, work.size - 1)
    arrive = (work.arrive[None, :] + period * np.arange(times)[:, None]).ravel()
    bare = replace(work, after=NO_INTS, delay=NO_FLOATS, join=np.zeros((0, 2), np.int64), join_delay=NO_FLOATS, prefix=NO_CHAINS, block=0)
    return replace(
        bare.only(np.tile(np.arange(work.size), times)),
        arrive=arrive,
        warmup=work.warmup,
        after=_later(work.after, work.size, times),
        delay=np.tile(work.delay, times),
        join=_later(work.join, work.size, times),
        join_delay=np.tile(work.join_delay, times),
        prefix=_others(work.prefix, times) if work.block else NO_CHAINS,
        block=work.block,
    )


def _later(places: Ints, size: int, times: int) -> Ints:
    """Places of requests in each repetition; none (−1) stays none."""
    found: Ints = np.concatenate([np.where(places >= 0, places + size * k, places) for k in range(times)])
    return found


def _others(chains: Chains, times: int) -> Chains:
    """The chains of each repetition, of ids that no other has."""
    _, ids = np.unique(chains.ids, return_inverse=True)
    count, own = int(ids.max(initial=-1)) + 1, np.diff(chains.first)
    every = (ids[None, :] + count * np.arange(times)[:, None]).ravel()
    return Chains(every, np.concatenate(([0], np.cumsum(np.tile(own, times)))))
