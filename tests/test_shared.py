"""Made-up requests that share what they begin with, sessions, and loads in stages."""

from __future__ import annotations

import numpy as np
import pytest

import apexsim
from apexsim.errors import InputError
from apexsim.workload.asked import Asked
from apexsim.workload.columns import ideal_hit
from apexsim.workload.prefixes import prefixes_of
from apexsim.workload.shared import prefixes_named, stages_of
from apexsim.workload.trace import Workload


def asked(**more: object) -> Workload:
    """Requests of 100 and 20 tokens."""
    return Asked(**{"prompt_len": 100, "output_len": 20, "num_requests": 60, **more}).requests()  # type: ignore[arg-type]


def test_a_prefix_stands_before_each_prompt_and_is_all_that_it_shares() -> None:
    work = asked(shared_prefix="160x5", request_rate=4.0)
    assert (work.prompt == 260).all() and work.block == 16 and {len(chain) for chain in work.prefix} == {10}
    assert len({chain[0] for chain in work.prefix}) == 5
    known = prefixes_of(work)
    assert known is not None and (known.reach == 160).all()
    assert ideal_hit(work) == pytest.approx((60 - 5) * 160 / (60 * 260))


def test_lengths_and_arrivals_stay_as_they_are_without() -> None:
    plain, shared = (asked(request_rate=4.0, length_spread=0.5, **more) for more in ({}, {"shared_prefix": "160x5"}))
    assert (shared.prompt - plain.prompt == 160).all() and (shared.arrive == plain.arrive).all()


def test_a_turn_holds_all_that_was_said_before_it() -> None:
    work = asked(turns=3, turn_gap=2.0, request_rate=4.0)
    assert work.prompt[:6].tolist() == [100, 220, 340] * 2
    assert work.after[:6].tolist() == [-1, 0, 1, -1, 3, 4] and work.delay[:3].tolist() == [0.0, 2.0, 2.0]
    first, second, third = (work.prefix[i] for i in range(3))
    assert len(first) == 8 and second[:8] == first and third[:15] == second and work.prefix[3][0] != first[0]
    known = prefixes_of(work)
    assert known is not None and known.reach[:3].tolist() == [120, 240, 240]  # what is said last no one hears again


def test_sessions_share_a_prefix_and_nothing_else() -> None:
    work = asked(turns=2, shared_prefix="32", request_rate=4.0)
    assert work.prompt[:2].tolist() == [132, 252]
    assert work.prefix[0][:2] == work.prefix[2][:2] and not set(work.prefix[0][2:]) & set(work.prefix[2])


def test_stages_have_their_requests_and_their_clock() -> None:
    work = asked(stages="2:10,5:4s", num_requests=None)
    assert work.size == 40 and work.stage.tolist() == [20] and work.begin.tolist() == [10.0]
    assert work.arrive[19] <= 10.0 + 1e-9 and work.since[19] == work.arrive[19] and work.since[-1] == pytest.approx(4.0)
    assert work.only(np.arange(10, 30)).stage.tolist() == [10] and not len(work.only(np.arange(20, 40)).stage)


@pytest.mark.parametrize("text", ["", "3", "3:", "0:5", "3:0", "a:b", "0.1:1", "3:20,", "nan:5", "inf:1"])
def test_a_stage_that_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(InputError, match="stage"):
        stages_of(text)


@pytest.mark.parametrize("text", ["", "x", "0x5", "5x0", "2000x", "-1x2", "1.5x2", "9" * 30])
def test_a_prefix_that_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(InputError, match="prefix"):
        prefixes_named(text)


@pytest.mark.parametrize("route", ["least-outstanding", "prefix-hash", "llm-d", "session-hash"])
def test_users_send_where_the_route_says(route: str) -> None:
    """As many requests are under way as there are users, wherever these go; those of a prefix to one server where its hash decides."""
    study = apexsim.simulate("llama-3.1-8b", "4×TP1", gpu="h100:4", shared_prefix="1600x6", prompt_len=200, output_len=20, concurrency=9,
                             num_requests=90, route=route, warmup=0)  # fmt: skip
    run, work = next(a for a in study.ranked if a.plan.shorthand == "4×TP1"), study.setting.workload
    assert run.outcome is not None
    sent, finish, where = run.outcome.sent, run.outcome.finish, run.outcome.replica
    under_way = [int(((sent <= t) & (finish > t)).sum()) for t in sent]
    assert max(under_way) == 9 and min(under_way[9:-9]) >= 8 and (np.diff(sent) >= 0).all()
    by_prefix = {chain[0]: {int(where[i]) for i in range(90) if work.prefix[i][0] == chain[0]} for chain in work.prefix}
    assert len(by_prefix) == 6 and (all(len(servers) == 1 for servers in by_prefix.values()) == (route == "prefix-hash"))


def test_one_run_has_one_route() -> None:
    with pytest.raises(InputError, match="one run has one routing"):
        apexsim.simulate("llama-3.1-8b", "2×TP1", gpu="h100:2", prompt_len=100, output_len=10, request_rate=1.0, route="session,llm-d")
