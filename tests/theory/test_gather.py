"""How long prompts wait for company, in steps of one second."""

from __future__ import annotations

import numpy as np
import pytest

import toy_costs as toy
from worlds import World

RULES = toy.TRTLLM_WAIT._replace(lag=0, pad_lanes=0, wait=7, wait_tokens=100)


def first_tokens(arrive: list[float], prompt: list[int], output: list[int], lanes: int = 1, **rules: int) -> list[float]:
    """Times [s] of the first tokens."""
    asked = toy.open_loop(arrive, prompt, output)
    done = World(asked, RULES._replace(**rules), toy.NO_HOST, toy.plain(), 1_000, lanes=lanes).run()
    return [float(x) for x in done.first]


def test_a_lone_prompt_waits_its_steps_beside_decodes() -> None:
    """The first decodes from 1 s on; the second is seen by the step at 2 s, waits 7 steps and runs in the one at 9 s."""
    np.testing.assert_allclose(first_tokens([0.0, 1.5], [10, 10], [40, 2]), [1.0, 10.0])


def test_nothing_waits_when_nothing_decodes() -> None:
    np.testing.assert_allclose(first_tokens([0.0, 50.0], [10, 10], [2, 2]), [1.0, 51.0])


def test_enough_tokens_end_the_wait() -> None:
    """50 + 1 tokens wait; with the third request's 60 the step is full enough."""
    np.testing.assert_allclose(first_tokens([0.0, 1.5, 4.5], [10, 50, 60], [40, 2, 2]), [1.0, 6.0, 6.0])


@pytest.mark.parametrize(("second", "first_token"), [(4.5, 6.0), (99.0, 8.0)])
def test_lanes_wait_for_a_prompt_on_each_or_the_end_of_the_count(second: float, first_token: float) -> None:
    """Both lanes decode from 1 s on and the count runs from there: 7 steps, unless both have a prompt before."""
    found = first_tokens([0.0, 0.0, 1.5, second], [10] * 4, [60, 60, 2, 2], lanes=2)
    np.testing.assert_allclose(found[2], first_token)


def test_whole_prompts_stay_below_their_limit_in_a_step() -> None:
    """Prompts of 50 with a limit of 150: two in a step, as a third would reach it."""
    found = first_tokens([0.0] * 4, [50] * 4, [1] * 4, prefill_limit=150, wait=0)
    np.testing.assert_allclose(found, [1.0, 1.0, 2.0, 2.0])
