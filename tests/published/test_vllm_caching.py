"""What vLLM's own scheduler did with prefix caching on (tests/golden/vllm_caching.json, recorded by scripts/record_caching.py)."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import naive
import toy_costs as toy
from apexsim.engine.kernel import simulate
from apexsim.engine.types import ADMIT_CHUNK, ADMIT_FIT, AHEAD, AT_ONCE, Requests, Rules
from caching_worlds import KINDS, Asked, Case, Told, case_of, ends_digest, steps_digest

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "vllm_caching.json").read_text(encoding="utf-8"))
COSTS = toy.plain()  # every step takes a second
REST_FIRST_FROM = (0, 23)  # release of vLLM
EVERY = 16  # of so many workloads the slow twin serves one


def told_by_tokens(asked: list[Asked]) -> Requests:
    """The requests with a chain of ids, one a token: equal ids for equal beginnings, as far as another one has them."""
    known: dict[tuple[int, int], int] = {}
    chains: list[list[int]] = []
    for x in asked:
        node, chain = -1, []
        for token in x.prompt + x.output:
            node = known.setdefault((node, token), len(known))
            chain.append(node)
        chains.append(chain)
    many = np.bincount(np.concatenate([np.array(chain) for chain in chains])) > 1
    reach = np.array([int(many[chain].sum()) for chain in chains])
    arrive, prompt, output = [x.arrive for x in asked], [len(x.prompt) for x in asked], [len(x.output) for x in asked]
    return toy.open_loop(arrive, prompt, output)._replace(
        after=np.array([x.after for x in asked]), delay=np.array([x.delay for x in asked]),
        chain=np.concatenate([np.array(chain[:n], np.int64) for chain, n in zip(chains, [*reach[:-1], max(1, reach[-1])])]),
        chain_at=np.cumsum([0, *reach[:-1]]), reach=reach, unit=1,
    )  # fmt: skip


def world(case: Case, rest_first: bool) -> tuple[Requests, Rules, int]:
    """A case as the simulator takes it: requests, rules and KV blocks."""
    said = case.rules
    rules = toy.VLLM_V1._replace(
        chunk=said["chunk"], budget=said["budget"], max_seqs=said["seats"], block=said["block"], reuse=AT_ONCE, rest_first=int(rest_first),
        admission=ADMIT_FIT if said["reserve"] else ADMIT_CHUNK, lag=AHEAD if said["ahead"] else 0,
    )  # fmt: skip
    return told_by_tokens(case.requests), rules, said["blocks"]


def told_by_twin(case: Case, rest_first: bool) -> Told:
    """What the twin does with it."""
    requests, rules, blocks = world(case, rest_first)
    done = naive.simulate(requests, rules, toy.NO_HOST, COSTS, blocks)
    steps = [(s.begin, [[x.index, 1] for x in s.decodes] + [[c.sequence.index, c.tokens] for c in s.chunks]) for s in done.steps]
    start, first, finish, thrown, hit = (done.column(name) for name in ("start", "first", "finish", "preempted", "hit"))
    return Told(steps, start, first, finish, [*map(int, thrown)], [*map(int, hit)])


def told_by_engine(case: Case, rest_first: bool) -> Told:
    """What the engine does with it; it keeps no steps."""
    requests, rules, blocks = world(case, rest_first)
    done = simulate(requests, rules, toy.NO_HOST, COSTS, blocks)
    return Told([], done.start.tolist(), done.first.tolist(), done.finish.tolist(), done.preempted.tolist(), done.hit.tolist())
