"""Step by step what vLLM's own scheduler did (tests/golden/vllm_schedules.json, recorded by scripts/record_schedules.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import naive
import toy_costs as toy
from apexsim.engine.kernel import simulate
from apexsim.engine.types import ADMIT_CHUNK, ADMIT_FIT, AHEAD, Requests, Rules

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "vllm_schedules.json").read_text(encoding="utf-8"))
KINDS = sorted({tuple((k, c["rules"][k]) for k in ("chunk", "ahead", "reserve")) for c in GOLDEN["cases"]})
COSTS = toy.plain()  # every step takes a second


def of_kind(kind: tuple[tuple[str, int], ...]) -> list[dict[str, Any]]:
    """The cases with these rules."""
    return [c for c in GOLDEN["cases"] if dict(kind).items() <= c["rules"].items()]


def world(case: dict[str, Any]) -> tuple[Requests, Rules, int]:
    """A case as the simulator takes it: requests, rules and KV blocks."""
    said = case["rules"]
    rules = toy.VLLM_V1._replace(
        chunk=said["chunk"], budget=said["budget"], max_seqs=said["seats"], block=said["block"],
        admission=ADMIT_FIT if said["reserve"] else ADMIT_CHUNK, lag=AHEAD if said["ahead"] else 0,
    )  # fmt: skip
    arrive, prompt, output = zip(*case["requests"])
    return toy.open_loop(arrive, prompt, output), rules, said["blocks"]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_twin_forms_vllms_steps(kind: tuple[tuple[str, int], ...]) -> None:
    for case in of_kind(kind):
        requests, rules, blocks = world(case)
        done = naive.simulate(requests, rules, toy.NO_HOST, COSTS, blocks)
        mine = [[s.begin, sorted([[x.index, 1] for x in s.decodes] + [[c.sequence.index, c.tokens] for c in s.chunks])] for s in done.steps]
        assert mine == [[begin, sorted(held)] for begin, held in case["steps"]]
        assert done.column("preempted") == case["thrown"]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_engine_ends_when_vllm_does(kind: tuple[tuple[str, int], ...]) -> None:
    for case in of_kind(kind):
        requests, rules, blocks = world(case)
        done = simulate(requests, rules, toy.NO_HOST, COSTS, blocks)
        np.testing.assert_allclose(done.finish, case["finish"], atol=1e-9)
        assert done.preempted.tolist() == case["thrown"]


def test_the_recorded_cases_meet_what_is_rare() -> None:
    assert len(KINDS) == 8 and GOLDEN["vllm"]
    for kind in KINDS:
        cases = of_kind(kind)
        assert sum(sum(c["thrown"]) > 0 for c in cases) >= 2, kind
        chunks = [n for c in cases for _, held in c["steps"] for _, n in held]
        assert max(chunks) > 8 and len(cases) >= 10
