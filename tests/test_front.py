"""Pareto fronts: nothing on them is beaten, all that is left out is, and the knee and the risk mean what they say."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apexsim import api
from apexsim.aims import NAMES, ROWS, knee_of, parse_aims, undominated
from apexsim.cli import main
from apexsim.errors import InputError
from apexsim.report.frontpage import front_json
from apexsim.search.front import Candidate, front_of, of_study
from apexsim.search.study import Study

Capture = pytest.CaptureFixture[str]
Tuples = list[tuple[float, ...]]
MADE = {"prompt_len": 300, "output_len": 40, "num_requests": 80}
POINTS = st.integers(2, 3).flatmap(lambda n: st.tuples(
    st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, 3.0, math.nan])] * n), max_size=12), st.tuples(*[st.sampled_from([1, -1])] * n)
))  # fmt: skip


def beats(a: tuple[float, ...], b: tuple[float, ...], signs: tuple[int, ...]) -> bool:
    """As good in everything and better in something, word by word."""
    return all(s * x <= s * y for s, x, y in zip(signs, a, b)) and any(s * x < s * y for s, x, y in zip(signs, a, b))


@given(POINTS)
def test_a_front_is_what_nothing_beats(drawn: tuple[Tuples, tuple[int, ...]]) -> None:
    values, signs = drawn
    whole = [v for v in values if not any(map(math.isnan, v))]
    kept = undominated(values, signs)
    slow = {v for v in whole if not any(beats(w, v, signs) for w in whole)}
    assert {values[i] for i in kept} == slow and len(kept) == len(slow)


@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)), min_size=3, max_size=9), st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_knee_does_not_hang_on_units(values: Tuples, a: float, b: float) -> None:
    at = knee_of(values, (1, -1))
    assert 0 <= at < len(values)
    scaled = knee_of([(a * x, b * y) for x, y in values], (1, -1))
    gap = [math.hypot(*_unit(values, i)) for i in (at, scaled)]
    assert math.isclose(gap[0], gap[1], rel_tol=1e-6, abs_tol=1e-9)


def _unit(values: Tuples, i: int) -> tuple[float, float]:
    """How far from the best of both, each in the range of all."""
    (a, b), (x, y) = zip(*values), values[i]
    return ((x - min(a)) / ((max(a) - min(a)) or 1.0), (max(b) - y) / ((max(b) - min(b)) or 1.0))


def test_the_knee_of_a_bend_is_its_corner() -> None:
    assert knee_of([(0.0, 10.0), (1.0, 1.0), (10.0, 0.0)], (1, 1)) == 1
    assert knee_of([(1.0, 2.0), (2.0, 1.0)], (1, 1)) == -1


@pytest.fixture(scope="module")
def study() -> Study:
    return api.plan("mixtral-8x7b", gpu="h100", gpus=8, concurrency=12, pareto="tok/s/user,tok/s/gpu,$", **MADE)


def test_no_plan_of_a_study_beats_one_on_its_front(study: Study) -> None:
    front = of_study(study)
    signs = tuple(aim.sign for aim in front.aims)
    assert len(front.members) + len(front.others) + front.out == len(study.ranked)
    for one in front.members:
        assert not any(beats(other.at, one.at, signs) for other in (*front.members, *front.others))
    for one in front.others:
        assert any(beats(other.at, one.at, signs) or other.at == one.at for other in front.members)


def test_inferencex_axes_are_what_they_say(study: Study) -> None:
    user, gpu = parse_aims("interactivity,tput_per_gpu")
    m = study.ranked[0].metrics
    assert user.value(m) == 1.0 / m.tpot.median
    assert gpu.value(m) == (m.prompt_tokens + m.output_tokens) / m.duration_s / 8


def test_a_risk_moves_every_value_to_its_bad_end(study: Study) -> None:
    aims = parse_aims("tok/s/user,tok/s/gpu,ttft")
    at_median, at_risk = (front_of(aims, risk, [Candidate("", study.setting, study.ranked[0])]).members[0] for risk in (0.0, 0.05))
    assert at_median.at == at_median.values == at_risk.values
    assert all(aim.sign * bad > aim.sign * usual for aim, bad, usual in zip(aims, at_risk.at, at_median.at))
    assert all(low < v < high for low, v, high in zip(at_risk.low, at_risk.values, at_risk.high))


def test_what_misses_a_limit_or_does_not_keep_up_is_on_no_front(study: Study) -> None:
    first = study.ranked[0]
    drowned = replace(first, metrics=replace(first.metrics, saturated=True))
    missed = replace(first, key=(2.0, *first.key[1:]))
    front = front_of(parse_aims(), 0.0, [Candidate("", study.setting, run) for run in (drowned, missed)])
    assert (front.members, front.out) == ((), 2)


def test_the_front_of_lists_holds_that_of_every_combination() -> None:
    aims = "tok/s/user,tok/s/gpu"
    lists = api.sweep("llama-3.1-8b", gpu=["l40s", "h100"], gpus=2, concurrency=[2, 16], pareto=aims, **MADE)
    whole = lists.front(lambda point: ",".join(map(str, point.values)))
    every = []
    for gpu in ("l40s", "h100"):
        for users in (2, 16):
            alone = api.plan("llama-3.1-8b", gpu=gpu, gpus=2, concurrency=users, pareto=aims, **MADE)
            every += [m.values for m in of_study(alone).members]
    signs = [aim.sign for aim in whole.aims]
    assert sorted(m.values for m in whole.members) == sorted(every[i] for i in undominated(every, signs))
    assert {m.candidate.label for m in whole.members} <= {f"{users},{gpu}" for gpu in ("l40s", "h100") for users in (2, 16)}


def test_the_report_and_the_json_tell_the_same_front(capsys: Capture) -> None:
    words = ["plan", "llama-3.1-8b", "--gpu", "l40s,h100", "--gpus", "1", "--concurrency", "2,16", "--prompt-len", "300", "--output-len",
             "40", "--num-requests", "80", "--pareto", "tok/s/user,tok/s/GPU"]  # fmt: skip
    assert main([*words, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)["pareto"]
    assert main(words) == 0
    text = capsys.readouterr().out.partition("\npareto ")[2].partition("\nlaunch ")[0]
    assert found["members"] and all(f"{m['label']} {m['plan']}" in text for m in found["members"])
    assert sum(m["knee"] for m in found["members"]) <= 1 and [g["name"] for g in found["goals"]] == ["tok/s/user", "tok/s/gpu"]


def test_a_study_without_goals_has_no_front() -> None:
    plain = api.plan("llama-3.1-8b", gpu="h100:1", prompt_len=9, output_len=3, num_requests=3)
    assert not plain.goal.aims and front_json(of_study(plain, parse_aims("ttft,cost")))["members"]


@pytest.mark.parametrize(("text", "told"), [
    ("ttft", "two or three"), ("ttft,ttft", "two or three"), ("ttft,tpot,e2e,$", "two or three"), ("tofu,ttft", "unknown goal 'tofu'"),
    ("ttft:p77,$", "unknown statistic"), ("$:p95,ttft", "one number of a run"), (",", "unknown goal"), ("goodput,$", "limits"),
])  # fmt: skip
def test_bad_goals_are_one_line(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told.replace("$", r"\$")) as error:
        api.plan("llama-3.1-8b", gpu="h100:1", prompt_len=9, output_len=3, num_requests=3, pareto=text)
    assert error.value.where == "--pareto"


def test_every_goal_reads_back() -> None:
    for name in NAMES:
        for aim in parse_aims(f"{name},{'rent' if NAMES[name] != 'rent' else 'gpus'}"):
            assert parse_aims(f"{aim},{'power' if aim.name != 'power' else 'gpus'}")[0] == aim
    assert set(NAMES.values()) == set(ROWS)


def test_one_plan_has_no_front() -> None:
    with pytest.raises(InputError, match="nothing is searched"):
        api.simulate("llama-3.1-8b", "TP1", gpu="h100:1", prompt_len=9, output_len=3, num_requests=3, pareto="ttft,$")
