"""Traces for viewers: every request and batch of a short run, in order and balanced."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from apexsim import api
from apexsim.report.perfetto import rendered
from apexsim.search.assess import outcome_of
from apexsim.search.study import Study


@pytest.fixture(scope="module")
def study() -> Study:
    return api.simulate("llama-3.1-8b", "2×TP1", gpu="l40s", gpus=2, prompt_len=300, output_len=20, num_requests=60, request_rate=12.0)


@pytest.fixture(scope="module")
def events(study: Study) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads("".join(rendered(study)))["traceEvents"]
    return found


def test_every_replica_is_a_process(events: list[dict[str, Any]]) -> None:
    names = [e["args"]["name"] for e in events if e["name"] == "process_name"]
    assert len(names) == 2 and {e["pid"] for e in events} == {1, 2}


def test_every_phase_of_a_request_ends(study: Study, events: list[dict[str, Any]]) -> None:
    begun, ended = (Counter((e["id"], e["name"]) for e in events if e["ph"] == ph) for ph in "be")
    assert begun == ended and sum(begun.values()) == 4 * 60
    outcome = outcome_of(study.setting, study.ranked[0])
    for event in (e for e in events if e["ph"] == "b" and e["name"] == "answer"):
        assert event["ts"] == pytest.approx(1e6 * outcome.first[event["id"]])


def test_batches_do_not_overlap_and_hold_every_prompt(events: list[dict[str, Any]]) -> None:
    prompts = 0
    for pid in (1, 2):
        slices = sorted((e["ts"], e["ts"] + e["dur"], e["name"]) for e in events if e["ph"] == "X" and e["pid"] == pid)
        assert all(a[1] <= b[0] + 1e-3 for a, b in pairwise(slices))
        prompts += sum(int(name.split(" prompt")[0].split()[-1]) for _, _, name in slices if "prompt" in name)
    assert prompts == 60 * 300


def test_the_queue_empties(events: list[dict[str, Any]]) -> None:
    for pid in (1, 2):
        lengths = [e["args"]["value"] for e in events if e["ph"] == "C" and e["name"] == "queue" and e["pid"] == pid]
        assert lengths[-1] == 0 and min(lengths) == 0
    shares = [e["args"]["value"] for e in events if e["name"] == "KV share %"]
    assert shares and 0 <= min(shares) <= max(shares) <= 100
