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
from apexsim.search import remedy
from apexsim.search.holding import STEP
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


@pytest.mark.parametrize("more", [
    {"request_rate": 90.0, **LIMIT}, {"request_rate": 200.0}, {"concurrency": 400, **LIMIT},
    {"request_rate": 200.0, "shared_prefix": "1000x5"},
], ids=str)  # fmt: skip
def test_what_is_advised_in_overload_is_the_load_that_head_room_and_size_tell(more: dict[str, Any]) -> None:
    """Of the near plans the most, however short the run of the question is: its own few requests are over before the queue has grown."""
    study = roomy(**{**more, "num_requests": 200})
    asked = float(more.get("request_rate") or more["concurrency"])
    most = max(run.headroom.times for run in study.ranked[:3]) * asked
    (advised,) = [value for remedy in study.remedies for key, value in remedy.changes.items() if key in ("request_rate", "concurrency")]
    assert 0.85 * most <= advised < asked and all(run.headroom.times * asked >= 0.999 * advised for run in study.ranked
                                                  if run.plan.shorthand == study.remedies[0].shorthand and run.headroom)  # fmt: skip
    longer = apexsim.plan("llama-3.1-8b", **{**ASKED, **more, "num_requests": 4000, **study.remedies[0].changes})
    plan = next(run for run in longer.ranked if run.plan.shorthand == study.remedies[0].shorthand)
    assert not plan.metrics.saturated


@pytest.mark.parametrize("more", [
    {"request_rate": 200.0}, {"request_rate": 90.0, **LIMIT}, {"concurrency": 400, **LIMIT}, {"request_rate": 90.0, **LIMIT, "tp": 2},
    {"request_rate": 90.0, **LIMIT, "enable_expert_parallel": False}, {"request_rate": 900.0, **LIMIT, "pp": 1, "gpus": 4, "nodes": 2},
    {"request_rate": 90.0, **LIMIT, "power_cap": 50.0},
], ids=str)  # fmt: skip
def test_every_change_that_is_tried_can_be_asked_for(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that is refused as bad input looks like one that does not help; formats and clocks alone may be."""
    bad = []
    monkeypatch.setattr(remedy, "refused", lambda trial, error: bad.append((dict(trial.changes), error.line())))
    study = apexsim.plan("llama-3.1-8b", **{**ASKED, **more, "num_requests": 200})
    assert (study.remedies or study.tried) and not [one for one in bad if not one[0].keys() & {"quant", "weight_dtype", "clock"}]


def test_more_gpus_are_tried_with_copies_of_plain_plans() -> None:
    """In overload others come first than those that keep the limits on more GPUs: twice 2×TP2 does, twice PP4 does not."""
    asked = {"gpu": "h100-sxm", "prompt_len": 3000, "output_len": 400, "num_requests": 150, "request_rate": 12.0,
             "slos": ("ttft:p95=500ms", "tpot:p95=40ms")}  # fmt: skip
    study = apexsim.plan("qwen3-32b", gpus=4, **asked)
    more = next(one for one in study.remedies if "GPU" in one.words or "h100" in one.words)
    assert apexsim.simulate("qwen3-32b", more.shorthand, **{**asked, **more.changes}).ranked[0].keeps


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


def test_lists_have_the_head_room_of_each_combination(capsys: pytest.CaptureFixture[str]) -> None:
    """That of its first plan, as the question alone has it; a load that is not raised has none."""
    found = apexsim.sweep(
        "llama-3.1-8b", **{**ASKED, **LIMIT, "gpus": [1, 2], "request_rate": [4.0, 90.0], "num_requests": 300}, headroom=True
    )
    for point in found.points:
        gpus, rate = (dict(zip((axis.name for axis in found.axes), point.values))[name] for name in ("gpus", "request_rate"))
        alone = roomy(**LIMIT, gpus=gpus, request_rate=rate, num_requests=300).ranked[0]
        assert alone.plan == point.first.plan and point.first.headroom.times == alone.headroom.times
        assert (point.first.headroom.times >= 1.0) is found.good(point)
    words = ["plan", "llama-3.1-8b", "--gpu", "l40s,l4", "--gpus", "1", "--prompt-len", "64", "--output-len", "8", "--num-requests", "40"]
    assert main([*words, "--request-rate", "2", "--headroom"]) == 0 and "head-" in capsys.readouterr().out
    assert main([*words, "--request-rate", "2", "--headroom", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    jsonschema.validate(told, schema_of("sweep"))
    assert all(point["headroom"]["times"] > 1 for point in told["points"])
    assert main([*words, "--headroom"]) == 0 and "none is known: all requests come at once" in capsys.readouterr().out
