"""What prefix caching comes to, as the page says it."""

from __future__ import annotations

from typing import Any

import pytest

import apexsim
from apexsim.report.reuse import reuse_rows
from apexsim.units import format_seconds

ASKED: dict[str, Any] = {"gpu": "l40s", "gpus": 2, "prompt_len": 300, "output_len": 20, "num_requests": 200, "request_rate": 8.0}
SHARED = [{"shared_prefix": "2000x5"}, {"turns": 4}, {"turns": 4, "route": "session"}, {"trace": "example:mooncake"}]


@pytest.mark.parametrize("more", SHARED, ids=str)
def test_what_caching_does_is_what_the_question_without_it_comes_to(more: dict[str, Any]) -> None:
    own = {name: value for name, value in ASKED.items() if name not in ("prompt_len", "output_len", "num_requests") or "trace" not in more}
    cached, bare = (apexsim.simulate("llama-3.1-8b", "2xTP1", **{**own, **more}, settings=settings) for settings in ({}, {"reuse": 0}))
    told = " ".join(text for _, text in reuse_rows(cached.setting, cached.ranked[0]))
    pairs = [(one.ranked[0].metrics.e2el.mean, one.ranked[0].metrics.ttft.p95) for one in (bare, cached)]
    for name, before, now in zip(("mean E2E", "TTFT p95"), *pairs, strict=True):
        assert f"{name} {format_seconds(before)} → {format_seconds(now)}" in told
    assert not reuse_rows(bare.setting, bare.ranked[0])


def test_where_nothing_is_shared_nothing_is_said() -> None:
    study = apexsim.simulate("llama-3.1-8b", "2xTP1", **ASKED)
    assert reuse_rows(study.setting, study.ranked[0]) == []
