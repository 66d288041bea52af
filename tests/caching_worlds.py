"""Small random workloads whose prompts share prefixes, the same on every machine: what vLLM's scheduler did with them is recorded
(scripts/record_caching.py), and the simulator has to do the same (tests/published/test_vllm_caching.py).

Only `random()` of the standard library draws, which Python promises to repeat in every release.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import product
from random import Random
from typing import Any

KINDS = [dict(zip(("chunk", "ahead", "reserve"), kind)) for kind in product((1, 0), (0, 1), (1, 0))]
FINE = 1 << 21  # times are whole numbers of 1/FINE s


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in tokens, with the answer that it will get."""

    arrive: float  # s, where it waits for nobody
    prompt: list[int]
    output: list[int]
    after: int = -1  # the request that has to be finished first
    delay: float = 0.0  # s from then on


@dataclass(frozen=True, slots=True)
class Case:
    """Limits of a scheduler and the requests that meet them."""

    rules: dict[str, int]
    requests: list[Asked]


@dataclass(slots=True)
class Told:
    """What became of them."""

    steps: list[tuple[float, list[list[int]]]]  # s, who took part with how many tokens
    start: list[float]
    first: list[float]
    finish: list[float]
    thrown: list[int]
    hit: list[int]  # tokens found when it first started


@dataclass(slots=True)
class Teller:
    """Draws stories: tokens that nobody else has, and prompts that go on with what is there."""

    dice: Random
    said: int = 0
    starts: list[list[int]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def below(self, n: int) -> int:
        """0 … n − 1."""
        return int(self.dice.random() * n)

    def of(self, *these: Any) -> Any:
        """One of these."""
        return these[self.below(len(these))]

    def fresh(self, tokens: int) -> list[int]:
        """Tokens that were never said before."""
        self.said += tokens
        return list(range(self.said - tokens, self.said))

    def asks(self, longest: int, most: int) -> tuple[list[int], list[int], int]:
        """A prompt, its answer, and whose answer it has to wait for."""
        how, more = self.dice.random(), self.fresh(self.below(longest + 1))
        answer = self.fresh(1 + self.below(most))
        if self.asked and how < 0.35:  # the next turn of one that was asked before, or from within its answer
            i = self.below(len(self.asked))
            said = self.asked[i].output
            past = self.asked[i].prompt + (said if how < 0.25 else said[: self.below(len(said) + 1)])
            return past + (more or self.fresh(1)), answer, i if how < 0.3 else -1
        if self.asked and how < 0.4:  # the beginning of another prompt
            prompt = self.of(*self.asked).prompt
            return prompt[: 1 + self.below(len(prompt))], answer, -1
        if self.asked and how < 0.55:  # the same again, and perhaps the same answer, for a while
            again = self.of(*self.asked)
            same = again.output[: len(answer)][: self.below(len(answer) + 1)] if how < 0.5 else []
            return list(again.prompt), same + answer[len(same) :], -1
        if how < 0.85:
            start = self.of(*self.starts)
            return start[: self.below(len(start) + 1)] + (more or self.fresh(1)), answer, -1
        return more or self.fresh(1), answer, -1


def story(teller: Teller, size: int, longest: int) -> list[Asked]:
    """Requests, no arrival of which can fall on the start of a step that takes whole seconds."""
    teller.starts = [teller.fresh(1 + teller.below(longest)) for _ in range(teller.of(1, 2, 3))]
    most, pause, at = teller.of(1, 8, 30), teller.of(0.0, 0.5, 0.5, 3.0), 0.0
    for i in range(size):
        at += pause * 2 * teller.dice.random()
        prompt, output, after = teller.asks(longest, most)
        arrive = int(at) + (i + 1) / 64 if pause else 0.0
        delay = teller.below(4) + 2.0 ** -(7 + i)
        teller.asked.append(Asked(arrive, prompt, output, after, delay))
    return teller.asked


def case_of(number: int) -> Case:
    """The workload of this number; its kind is the number modulo the number of kinds."""
    teller, kind = Teller(Random(number)), KINDS[number % len(KINDS)]
    requests = story(teller, 2 + teller.below(12), teller.of(6, 30, 90))
    block, seats = teller.of(1, 2, 4, 4, 16), teller.of(1, 2, 4, 16)
    whole = max(len(x.prompt) + len(x.output) for x in requests)
    budget = max(seats, teller.of(8, 24, 64), 0 if kind["chunk"] else whole)
    blocks = int(-(-whole // block) * teller.of(1.0, 1.0, 1.2, 1.5, 2.5, 6.0))
    return Case({"budget": budget, "seats": seats, "block": block, "blocks": blocks, **kind}, requests)


def _digest(told: object) -> str:
    return hashlib.blake2b(repr(told).encode(), digest_size=4).hexdigest()


def _fine(times: list[float]) -> list[int]:
    return [round(t * FINE) for t in times]


def steps_digest(told: Told) -> str:
    """Of who took part in which step with how many tokens."""
    return _digest([(round(begin * FINE), sorted(held)) for begin, held in told.steps])


def ends_digest(told: Told) -> str:
    """Of when each request started and finished, what it found and how often it was thrown out."""
    return _digest((_fine(told.start), _fine(told.first), _fine(told.finish), [*map(int, told.thrown)], [*map(int, told.hit)]))
