"""Head-room: the most load over the load asked for, on the side that the study says, as size finds it."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import jsonschema
import pytest

import apexsim
from apexsim.cli import main
from apexsim.report.schema import schema_of
from apexsim.search.headroom import STEP
from apexsim.search.size import kept

ASKED: dict[str, Any] = {"gpu": "l40s", "gpus": 2, "prompt_len": 300, "output_len": 40, "num_requests": 4096}
LIMIT = {"slos": ("ttft:p95=300ms", "tpot:p95=60ms")}


def roomy(**more: Any) -> Any:
    """A study with head-room."""
    return apexsim.plan("llama-3.1-8b", **{**ASKED, **more}, headroom=True)


def test_it_is_what_size_finds_over_the_load_whatever_the_load() -> None:
    most = {one.plan.shorthand: one.value for one in apexsim.size("llama-3.1-8b", **{**ASKED, **LIMIT}).found}
    found = [(rate, run) for rate in (5.0, 20.0) for run in roomy(request_rate=rate, **LIMIT).ranked]
    held = {(run.plan.shorthand, rate): run.headroom.times * rate for rate, run in found}
    assert most and all(held[name, 5.0] == pytest.approx(value, rel=0.06) for name, value in most.items())
    assert all(held[name, 20.0] == pytest.approx(held[name, 5.0], rel=0.06) for name in most)


@pytest.mark.parametrize("more", [
    {"request_rate": 4.0, **LIMIT}, {"request_rate": 90.0, **LIMIT}, {"request_rate": 4.0}, {"concurrency": 8, **LIMIT},
    {"request_rate": 4.0, "slos": ("ttft=200ms",)}, {"request_rate": 4.0, "slos": ("ttft:p95=1ms",)},
])  # fmt: skip
def test_it_is_at_least_once_where_the_load_is_kept_and_less_where_not(more: dict[str, Any]) -> None:
    study = roomy(**{**more, "num_requests": 300})
    for run in study.ranked:
        assert (run.headroom.times >= 1.0) is kept(run, 0.95)
    first = study.ranked[0].headroom
    assert first.low <= first.times <= first.high
    plain = apexsim.plan("llama-3.1-8b", **{**ASKED, **more, "num_requests": 300})
    assert [(run.plan, run.value) for run in plain.ranked] == [(run.plan, run.value) for run in study.ranked]


def test_a_looser_limit_never_leaves_less() -> None:
    rooms = [roomy(request_rate=4.0, slos=(f"ttft:p95={ms}ms",), tp=1).ranked[0].headroom.times for ms in (120, 200, 1000)]
    assert rooms == sorted(rooms) and rooms[0] < rooms[-1] / STEP


def test_it_stands_in_the_table_the_json_and_the_csv(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "llama-3.1-8b", "--gpu", "l40s:1", "--prompt-len", "64", "--output-len", "8", "--num-requests", "40", "--headroom"]
    assert main([*words, "--request-rate", "2", "--ttft", "900"]) == 0
    assert "head-room" in capsys.readouterr().out
    assert main([*words, "--request-rate", "2", "--ttft", "900", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(schema_of("study")).validate(told)
    times = told["ranked"][0]["headroom"]["times"]
    assert times > 1 and main([*words, "--request-rate", "2", "--ttft", "900", "--csv", "-"]) == 0
    (row, *_) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(row["headroom"]) == pytest.approx(times)


@pytest.mark.parametrize(("more", "why"), [
    (["--concurrency", "4"], "users without a limit can wait"), ([], "all requests come at once"),
])  # fmt: skip
def test_where_there_is_none_it_says_why(more: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "llama-3.1-8b", "--gpu", "l40s:1", "--prompt-len", "64", "--output-len", "8", "--num-requests", "12", "--headroom"]
    assert main([*words, *more]) == 0
    assert why in " ".join(capsys.readouterr().out.split())


def test_stages_have_loads_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "llama-3.1-8b", "--gpu", "l40s:1", "--prompt-len", "64", "--output-len", "8", "--stages", "1:5,2:5", "--headroom"]
    assert main(words) == 2 and "--headroom: it has no effect" in capsys.readouterr().err
