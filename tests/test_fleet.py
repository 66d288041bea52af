"""A fleet over time: laws of need, of policies and of the page, and what is refused."""

from __future__ import annotations

import json
import pickle
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import apexsim
from apexsim.api import ask
from apexsim.cli.main import main
from apexsim.errors import Infeasible, InputError, Unkept
from apexsim.objective import chance_of
from apexsim.report.again import again
from apexsim.report.fleetpage import fleet_json, render
from apexsim.report.plain import dumps
from apexsim.report.schema import schema_of
from apexsim.report.webfleet import page_of_fleet
from apexsim.search.error import doubt_of
from apexsim.search.fleet import Fleet, Trace
from apexsim.search.mix import _keeps as mix_keeps
from apexsim.search.mix import dealt
from apexsim.search.policy import POLICIES, ScalingRule
from apexsim.workload.trace import Workload

NEEDS = st.lists(st.integers(1, 9), min_size=1, max_size=40)
RULES = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 8))
QUESTION: dict[str, Any] = {"gpu": "l4", "gpus": 1, "slos": ("ttft:p95=2s", "tpot:p95=80ms"), "every": 60.0}


def wave(rate: float = 3.0, span: float = 600.0) -> Workload:
    """Requests that come three times as fast in the middle as at the ends."""
    rng = np.random.default_rng(3)
    at = np.sort(np.concatenate([rng.uniform(0, span, int(rate * span / 2)), rng.uniform(span / 3, 2 * span / 3, int(rate * span / 2))]))
    at -= at[0]
    return Workload("wave", at, np.full(len(at), 400), np.full(len(at), 60), source="wave")


@pytest.fixture(scope="module")
def found() -> Fleet:
    return apexsim.fleet("llama-3.1-8b", trace=wave(), **QUESTION)


def test_a_fleet_with_a_risk_needs_as_many_replicas_or_more(found: Fleet) -> None:
    """And each interval keeps its limits at that risk by the rule of `plan`, not by the median."""
    asked = {**QUESTION, "slos": ("ttft:p95=2s", "tpot:p95=80ms"), "risk": 0.1}
    careful = apexsim.fleet("llama-3.1-8b", trace=wave(), **asked)
    assert careful.unit.plan == found.unit.plan and careful.unit.value < found.unit.value
    assert all(own.need >= usual.need for own, usual in zip(careful.intervals, found.intervals))
    setting, _, goal, _ = ask("llama-3.1-8b", trace=wave(), **{k: v for k, v in asked.items() if k != "every"})
    trace = Trace(setting, careful.unit.plan, goal, careful.asked, careful.unit.value, careful.unit.run.account)
    tight = careful.intervals[len(careful.intervals) // 2]
    at = careful.intervals.index(tight)
    limits = goal.limits(trace.tried(at, tight.need).metrics, lambda name: doubt_of(name, setting, trace.spent))
    assert chance_of(limits) >= 0.9 and trace.keeps(at, tight.need)


# ---- policies ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(need=NEEDS, other=NEEDS, rule=RULES)
def test_policies_see_no_future_and_keep_their_words(need: list[int], other: list[int], rule: tuple[int, int, int]) -> None:
    counts = np.array(need, np.int64)
    made = ScalingRule(*rule, load=10 * counts)
    for policy in POLICIES.values():
        paid = policy(counts, made)
        assert paid.shape == counts.shape and (paid >= 1).all()
        assert (made.ready(paid) <= paid).all()
    assert (POLICIES["fixed"](counts, made) == counts.max()).all()
    assert (POLICIES["instant"](counts, made) == counts).all()
    assert (made.ready(POLICIES["scheduled"](counts, made)) >= counts).all()
    cut = len(need) // 2 + 1
    changed = np.array([*need[:cut], *other], np.int64)
    other_rule = ScalingRule(*rule, load=10 * changed)
    for name in ("reactive", "predictive"):  # what is asked for in an interval depends on those before it alone
        assert (POLICIES[name](counts, made)[:cut] == POLICIES[name](changed, other_rule)[:cut]).all(), name


@given(need=NEEDS, rule=RULES)
def test_holding_longer_never_asks_for_less(need: list[int], rule: tuple[int, int, int]) -> None:
    counts, (lag, hold, day) = np.array(need, np.int64), rule
    for name in ("reactive", "predictive"):
        less, more = (POLICIES[name](counts, ScalingRule(lag, h, day, counts)) for h in (hold, hold + 1))
        assert (more >= less).all()


@given(load=st.lists(st.integers(1, 50), min_size=1, max_size=60), need=st.integers(1, 9), day=st.integers(1, 20))
def test_no_more_is_foretold_than_serves_what_is_foretold(load: list[int], need: int, day: int) -> None:
    loads = np.array([100, *load], np.int64)  # the first of which so many replicas serve
    paid = POLICIES["predictive"](np.full_like(loads, need), ScalingRule(0, 0, day, loads))
    assert (paid <= need).all()  # twice as many requests at most are foretold of at most half of them


@given(need=st.integers(1, 50), load=st.integers(0, 1000), count=st.integers(1, 50), rule=RULES)
def test_a_steady_load_is_foretold_as_it_is(need: int, load: int, count: int, rule: tuple[int, int, int]) -> None:
    needs = np.full(count, need, np.int64)
    for name in ("predictive", "reactive", "scheduled"):
        assert (POLICIES[name](needs, ScalingRule(*rule, load=np.full(count, load, np.int64))) == need).all(), name


# ---- needs ---------------------------------------------------------------------------------------------------------------


def test_more_requests_need_no_fewer_replicas(found: Fleet) -> None:
    busy = max(found.intervals, key=lambda i: i.requests)
    assert busy.need > min(i.need for i in found.intervals)  # the wave is seen
    one = wave()
    twice = Workload("twice", np.repeat(one.arrive, 2), np.repeat(one.prompt, 2), np.repeat(one.output, 2), source="twice")
    more = apexsim.fleet("llama-3.1-8b", trace=twice, **QUESTION, policy="instant")
    assert all(m.need >= i.need and m.requests == 2 * i.requests for m, i in zip(more.intervals, found.intervals, strict=True))
    assert sum(i.requests for i in found.intervals) == one.size


def test_an_interval_misses_with_one_replica_fewer(found: Fleet) -> None:
    question = {k: v for k, v in QUESTION.items() if k != "every"}
    setting, _, goal, _ = ask("llama-3.1-8b", trace=wave(), **question)
    trace = Trace(setting, found.unit.plan, goal, found.asked, found.unit.value, found.unit.run.account)
    for t, interval in enumerate(found.intervals):
        assert trace.keeps(t, interval.need)
        assert interval.need == 1 or not trace.keeps(t, interval.need - 1)


def test_a_tighter_limit_needs_no_fewer(found: Fleet) -> None:
    tight = apexsim.fleet("llama-3.1-8b", trace=wave(), **{**QUESTION, "slos": ("ttft:p95=1s", "tpot:p95=75ms")}, policy="instant")
    assert sum(i.need for i in tight.intervals) * tight.gpus >= sum(i.need for i in found.intervals) * found.gpus


def test_the_bound_is_the_least_of_all_that_miss_nothing(found: Fleet) -> None:
    by = {course.policy: course for course in found.courses}
    assert by["instant"].kept.all() and by["fixed"].kept.all() and by["scheduled"].kept.all()
    for course in found.courses:
        assert found.gpu_hours(course) >= found.gpu_hours(by["instant"]) or not course.kept.all()
        assert (course.serving <= course.paid).all()
        assert course.kept[course.serving >= by["instant"].paid].all()
    assert found.kwh(by["fixed"]) > found.kwh(by["instant"]) > 0.0


@pytest.mark.parametrize("rate", [0.05, 0.5, 6.0])
def test_no_number_of_gpus_that_is_named_is_cheaper_than_the_one_that_is_found(rate: float) -> None:
    """A large replica is cheaper for each request, and dearer where there are few."""
    own = {"gpu": "h100", "slos": ("ttft:p95=1s", "tpot:p95=30ms"), "every": 60.0, "policy": "instant"}
    free = apexsim.fleet("llama-3.1-8b", trace=wave(rate), **own)
    named = [apexsim.fleet("llama-3.1-8b", trace=wave(rate), gpus=gpus, **own) for gpus in (1, 2)]
    assert free.dollars(free.courses[0]) <= 1.02 * min(one.dollars(one.courses[0]) for one in named)


def test_the_kind_that_is_cheapest_for_a_small_load_is_followed() -> None:
    own = {"slos": ("ttft:p95=2s", "tpot:p95=100ms"), "every": 60.0, "gpus": 1, "policy": "instant"}
    both = apexsim.fleet("llama-3.1-8b", trace=wave(0.2), gpu=["h100", "l4"], **own)
    alone = [apexsim.fleet("llama-3.1-8b", trace=wave(0.2), gpu=gpu, **own) for gpu in ("h100", "l4")]
    assert both.dollars(both.courses[0]) == min(one.dollars(one.courses[0]) for one in alone)
    assert both.unit.setting.cluster.gpu.name == "l4"


def test_an_interval_that_no_number_of_replicas_keeps_is_told_without_trying_thousands(found: Fleet) -> None:
    """Long prompts in one interval: beside nobody they come too late."""
    one = wave()
    late = Workload("late", one.arrive, np.where(one.arrive > 300.0, 9000, one.prompt), one.output, source="late")
    setting, _, goal, _ = ask("llama-3.1-8b", trace=late, gpu="l4", gpus=1, slos=QUESTION["slos"])
    trace = Trace(setting, found.unit.plan, goal, found.asked, found.unit.value, found.unit.run.account)
    with pytest.raises(Unkept, match="from 5 min 0 s: its requests miss them even one by one"):
        trace.need(5)
    assert trace.apart(5) > 1.0 and max(trace.done[5]) < 40
    assert all(not trace.keeps(5, count) for count in (64, trace.slice(5).size))


# ---- the page and its doors -----------------------------------------------------------------------------------------------


def test_page_and_json_say_the_same(found: Fleet) -> None:
    told, page = fleet_json(found), render(found, width=100)
    assert told["sentences"][0].split(":")[0] in " ".join(page.split())
    assert [i["replicas"] for i in told["intervals"]] == [i.need for i in found.intervals]
    assert {p["policy"] for p in told["policies"]} == set(POLICIES)
    assert all(len(line) <= 100 for line in page.splitlines())
    json.dumps(told, allow_nan=False)


def test_the_command_under_a_page_asks_what_was_asked(found: Fleet) -> None:
    """Its words name the file that requests were read from, and every word of a fleet that was not left as it is."""
    other = apexsim.fleet("llama-3.1-8b", trace=wave(), **{**QUESTION, "every": "2min"}, hold=1, policy="fixed", spare=0.5)
    typed = next(text for name, text in page_of_fleet(other).sections[-1].blocks[0].rows if name == "again")  # type: ignore[union-attr]
    words = shlex.split(typed)[3:]
    assert dict(zip(words[::2], words[1::2])) == {
        "--gpu": "l4", "--gpus": "1", "--trace": "wave", "--slo": "tpot:p95=80ms", "--every": "2min", "--policy": "fixed", "--hold": "1",
        "--spare": "0.5",
    }  # fmt: skip
    free = apexsim.fleet("llama-3.1-8b", trace=wave(), **{**QUESTION, "gpus": None})
    assert "gpus" not in free.inputs and page_of_fleet(free).sections[0].blocks[0].rows[0][3].text == "0.40"  # type: ignore[union-attr]
    assert "--every 60" in " ".join(again("fleet", {"model": "m", **found.inputs}, {}).split())


def test_whoever_simulates_the_intervals_the_answer_is_the_same(found: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, and as workers do it that know nothing but what is sent to them."""
    alone = apexsim.fleet("llama-3.1-8b", trace=wave(), **QUESTION, workers=1)

    def elsewhere(work: Any, plans: Any, *_: Any) -> Any:
        return (pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(work))(plan))) for plan in plans)

    monkeypatch.setattr("apexsim.search.fleet.evaluated", elsewhere)
    sent = apexsim.fleet("llama-3.1-8b", trace=wave(), **QUESTION)
    assert fleet_json(sent) == fleet_json(alone) == fleet_json(found)


def test_a_fleet_shows_itself(found: Fleet) -> None:
    assert len(repr(found).splitlines()) == 3 and "<table>" in found._repr_html_()
    rows = list(found.table()["policy"]) if hasattr(found.table(), "columns") else [row["policy"] for row in found.table()]
    assert rows == list(POLICIES)


def test_every_interval_is_shown_where_all_is_asked(found: Fleet) -> None:
    assert len(render(found, everything=True).splitlines()) - len(render(found).splitlines()) == len(found.intervals) + 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"every": "0s"}, "every"), ({"every": "soon"}, "every"), ({"every": "3h"}, "every"), ({"every": 1e-4}, "every"),
    ({"policy": "magic"}, "policy"), ({"start_up_time": "-3s"}, "start_up_time"), ({"slos": ()}, "limit"),
    ({"trace": None}, "trace"),
    ({"trace": Workload("x", np.zeros(9), np.full(9, 9), np.full(9, 9), mode="offline")}, "trace"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "word"), WRONG, ids=lambda v: str(v)[:40])
def test_what_makes_no_sense_is_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError) as error:
        apexsim.fleet("llama-3.1-8b", **{**QUESTION, "trace": wave(), **change})
    assert word in f"{error.value} {error.value.where}"


def test_a_limit_that_no_replica_keeps_is_infeasible() -> None:
    with pytest.raises(Infeasible):
        apexsim.fleet("llama-3.1-8b", trace=wave(), **{**QUESTION, "slos": ("ttft:p95=1ms",)})


@settings(max_examples=5, deadline=None)
@given(spare=st.sampled_from([0.0, 0.2, 1.0]))
def test_spare_replicas_come_on_top(found: Fleet, spare: float) -> None:
    more = apexsim.fleet("llama-3.1-8b", trace=wave(), **QUESTION, spare=spare, policy="instant")
    assert [int(x) for x in more.courses[0].paid] == [int(np.ceil(i.need * (1 + spare) - 1e-9)) for i in found.intervals]
    assert ("the spare not counted" in fleet_json(more)["sentences"][0]) == (spare > 0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    lines += [f"2026-01-05 00:{int(t // 60):02}:{t % 60:09.6f},400,60" for t in wave(1.0, 300.0).arrive]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    words = ["fleet", "llama-3.1-8b", "--gpu", "l4:1", "--trace", str(tmp_path / "t.csv"), "--every", "1min", "--ttft", "2s", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == "apexsim.fleet/1" and len(told["intervals"]) == 5


# ---- mixes ---------------------------------------------------------------------------------------------------------------


def test_a_mix_is_never_dearer_than_the_best_kind_alone_and_keeps_the_limits() -> None:
    rng = np.random.default_rng(5)
    counts = (20, 40, 66, 130, 150)  # requests of a second
    at = np.concatenate([60.0 * t + np.sort(rng.uniform(0, 60, 15 * n)) for t, n in enumerate(counts)])
    work = Workload("steps", at - at[0], np.full(len(at), 200), np.full(len(at), 20), source="steps")
    found = apexsim.fleet("llama-3.1-8b", trace=work, gpu=["l40s", "l4"], gpus=1, slos=("ttft:p95=2s",), every=60.0, policy="instant")
    mix, need = found.mix, [i.need for i in found.intervals]
    assert mix is not None and len(mix.units) == 2 and mix.counts.shape == (len(need), 2)
    rents = np.array([unit.rent for unit in mix.units])
    assert all(row @ rents <= n * rents[0] + 1e-9 for row, n in zip(mix.counts, need)) and mix.dollars <= mix.alone(need)
    jsonschema.Draft202012Validator(schema_of("fleet")).validate(json.loads(dumps(fleet_json(found))))
    assert "alone" in " ".join(fleet_json(found)["sentences"])
    alone = apexsim.fleet("llama-3.1-8b", trace=work, gpu=found.unit.setting.cluster.gpu.name, gpus=1, slos=("ttft:p95=2s",), every=60.0,
                          policy="instant")  # fmt: skip
    assert [i.need for i in alone.intervals] == need and alone.mix is None


@given(size=st.integers(1, 500), share=st.floats(0.01, 0.99))
def test_requests_are_dealt_in_their_shares_without_runs(size: int, share: float) -> None:
    to_b = dealt(size, share)
    assert abs(int(to_b.sum()) - size * share) <= 1.0
    gaps = np.diff(np.flatnonzero(to_b))
    assert not len(gaps) or gaps.max() <= np.ceil(1.0 / share) + 1e-9


def test_two_kinds_that_are_one_serve_as_much(found: Fleet) -> None:
    """Dealt in equal shares to 1 + 1 replicas, or round-robin to 2: the same but for who comes first."""
    setting, _, goal, _ = ask("llama-3.1-8b", trace=wave(), gpu="l4", gpus=1, slos=QUESTION["slos"])
    trace = Trace(setting, found.unit.plan, goal, found.asked, found.unit.value, found.unit.run.account)
    for t in range(trace.count):
        assert mix_keeps(trace, 1, trace, 1, t) is trace.keeps(t, 2)
