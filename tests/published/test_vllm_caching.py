"""What vLLM's own scheduler did with prefix caching on (tests/golden/vllm_caching.json, recorded by scripts/record_caching.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import naive
import toy_costs as toy
from apexsim.engine.kernel import simulate
from apexsim.engine.types import ADMIT_CHUNK, ADMIT_FIT, AHEAD, AT_ONCE, Requests, Rules
from apexsim.engines import load_engine
from caching_worlds import KINDS, Asked, Case, Told, case_of, ends_digest, steps_digest

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "vllm_caching.json").read_text(encoding="utf-8"))
COSTS = toy.plain()  # every step takes a second
REST_FIRST_FROM = (0, 24)  # release of vLLM
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


def digests(record: dict[str, Any], name: str) -> list[str]:
    """Of one kind, in the order of the workloads."""
    told = "".join(record[name])
    return [told[i : i + 8] for i in range(0, len(told), 8)]


def rest_first(record: dict[str, Any]) -> bool:
    """Are blocks without a key taken first in this release?"""
    return tuple(map(int, record["vllm"].split(".")[:2])) >= REST_FIRST_FROM


each_release = pytest.mark.parametrize("record", GOLDEN["records"], ids=lambda record: record["vllm"])


@each_release
def test_the_engine_serves_as_vllm_does(record: dict[str, Any]) -> None:
    """Start, first token, finish, preemptions and hits of every request of every workload."""
    first, ends = record["first"], digests(record, "ends")
    wrong = [first + i for i, told in enumerate(ends) if ends_digest(told_by_engine(case_of(first + i), rest_first(record))) != told]
    assert not wrong


@each_release
def test_the_twin_forms_vllms_steps(record: dict[str, Any]) -> None:
    first, steps, ends = record["first"], digests(record, "steps"), digests(record, "ends")
    for i in range(0, len(steps), EVERY + 1):  # all kinds: their number does not divide this one
        told = told_by_twin(case_of(first + i), rest_first(record))
        assert (steps_digest(told), ends_digest(told)) == (steps[i], ends[i]), first + i


def test_releases_differ_in_what_they_take_first() -> None:
    """Of the same workloads; the newest one is recorded with enough of them."""
    newest, *older = GOLDEN["records"]
    assert len(digests(newest, "steps")) >= 4000
    for record in older:
        same = digests(newest, "ends")[: len(digests(record, "ends"))] == digests(record, "ends")
        assert same == (rest_first(record) == rest_first(newest)), record["vllm"]


@each_release
def test_the_rows_of_the_engine_know_the_release(record: dict[str, Any]) -> None:
    assert load_engine(f"vllm@{record['vllm']}").rest_first == int(rest_first(record))


def test_the_workloads_meet_what_is_rare() -> None:
    served = [(case_of(i), told_by_engine(case_of(i), True)) for i in range(40 * len(KINDS))]
    for k in range(len(KINDS)):
        mine = served[k :: len(KINDS)]
        assert sum(any(told.thrown) for _, told in mine) >= 4, KINDS[k]
        assert sum(any(told.hit) for _, told in mine) >= 20, KINDS[k]
        assert sum(_shares_a_step(told) for _, told in mine) >= 4, KINDS[k]


def _shares_a_step(told: Told) -> bool:
    """Did somebody find what another one's step, begun with its own, was only about to compute?"""
    return any(h and told.start.count(s) > 1 for h, s in zip(told.hit, told.start))
