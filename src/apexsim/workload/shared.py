"""Requests that share what they begin with: prefixes and sessions that are made up, and loads in stages (floor 2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from apexsim.errors import InputError
from apexsim.workload.synth import arrivals
from apexsim.workload.trace import Chains, Ints, Workload

UNIT = 16  # tokens of an id: the block of most engines
MOST_IDS = 20_000_000  # of all requests together: beyond, ids stand for more tokens


@dataclass(frozen=True, slots=True)
class LoadStage:
    """A part of a load: `rate` [1/s] for so many `seconds`; the next one begins when its last request has ended."""

    rate: float
    seconds: float

    @property
    def count(self) -> int:
        """Its requests."""
        return int(self.rate * self.seconds + 1e-9)


def stages_of(text: str, flag: str = "--stages") -> tuple[LoadStage, ...]:
    """The stages that "3:20,10:20" names, RATE:SECONDS each; raises InputError."""
    found = []
    for part in text.split(","):
        rate, sign, seconds = part.strip().partition(":")
        try:
            found.append(LoadStage(float(rate), float(seconds.removesuffix("s"))))
        except ValueError:
            raise InputError(f"cannot read the stage '{part.strip()}'", flag, "write RATE:SECONDS, e.g. 3:20,10:20") from None
        if not (sign and 0 < found[-1].rate < 1e6 and 0 < found[-1].seconds < 1e8):
            raise InputError(f"a stage has a rate and a duration above 0, got '{part.strip()}'", flag, "write e.g. 3:20,10:20")
        if not found[-1].count:
            raise InputError(f"the stage '{part.strip()}' has no whole request", flag, "make it longer")
    return tuple(found)


def in_stages(work: Workload, stages: tuple[LoadStage, ...], rng: np.random.Generator, burstiness: float = 1.0) -> Workload:
    """The requests as the stages send them: exactly rate · seconds of each, by the clock of a load that never waits."""
    counts = [stage.count for stage in stages]
    assert sum(counts) == work.size
    begin = np.cumsum([0.0, *(stage.seconds for stage in stages)])[:-1]
    each = [at + arrivals(n, stage.rate, burstiness, rng) for at, n, stage in zip(begin, counts, stages)]
    return replace(work, arrive=np.concatenate(each), mode="open", stage=np.cumsum(counts)[:-1], begin=begin[1:])


# ---- what prompts begin with ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SharedPrefixes:
    """`count` texts of so many `tokens`, one of which stands before each prompt; even: each before as many, as nearly as can be."""

    tokens: int
    count: int
    even: bool = False

    def drawn(self, count: int, rng: np.random.Generator) -> Ints:
        """Which of them each of `count` requests begins with."""
        if self.even:
            return rng.permutation(np.arange(count) % self.count)
        return rng.integers(0, self.count, count)


def prefixes_named(text: str, flag: str = "--shared-prefix") -> SharedPrefixes:
    """What "2000x50" names: 50 prefixes of 2,000 tokens; "2000": one; "2000x50:even" uses each as often.  Raises InputError."""
    sizes, colon, how = text.lower().replace("×", "x").replace("_", "").partition(":")
    tokens, sign, count = sizes.partition("x")
    if how != "even" and colon:
        raise InputError(f"cannot read the shared prefix '{text}'", flag, "write TOKENSxCOUNT or TOKENSxCOUNT:even, e.g. 2000x50:even")
    if not (tokens.strip().isdecimal() and (count.strip().isdecimal() or not sign)) or len(text) > 20:
        raise InputError(f"cannot read the shared prefix '{text}'", flag, "write TOKENSxCOUNT, e.g. 2000x50")
    found = SharedPrefixes(int(tokens), int(count) if sign else 1, bool(colon))
    if not (0 < found.tokens <= 1 << 30 and 0 < found.count <= 1 << 30):
        raise InputError(f"prefixes have tokens, and there is at least one, got '{text}'", flag, "write TOKENSxCOUNT, e.g. 2000x50")
    return found


def related(work: Workload, shared_prefix: str | None, turns: int | None, turn_gap: float | None, rng: np.random.Generator) -> Workload:
    """The requests with what they share, in the words of the command line; without any as they are."""
    prefixes = prefixes_named(shared_prefix) if shared_prefix else None
    if turns is not None and turns < 1:
        raise InputError(f"expected a whole number of at least 1, got {turns}", "--turns")
    if turns is not None:
        return in_sessions(work, turns, turn_gap or 0.0, prefixes, rng)
    return sharing(work, prefixes, rng) if prefixes else work


def sharing(work: Workload, prefixes: SharedPrefixes, rng: np.random.Generator) -> Workload:
    """The requests with a prefix drawn for each in front of its prompt; ids stand for whole units of prefixes."""
    which = prefixes.drawn(work.size, rng)
    unit = _unit(work.size * prefixes.tokens)
    each = prefixes.tokens // unit
    ids = (which[:, None] * each + np.arange(each)).ravel()
    how = "each as often, in random order" if prefixes.even else "drawn at random"
    note = f"each prompt begins with one of {prefixes.count:,} prefixes of {prefixes.tokens:,} tokens, {how}"
    return replace(
        work,
        prompt=work.prompt + prefixes.tokens,
        prefix=Chains(ids, np.arange(work.size + 1) * each),
        block=unit,
        notes=(*work.notes, note),
    )


def in_sessions(work: Workload, turns: int, think: float, prefixes: SharedPrefixes | None, rng: np.random.Generator) -> Workload:
    """The requests as turns of sessions, `turns` each: a turn is sent `think` s after the answer to the one before, and its prompt
    is all that was said so far, answers too, and its own tokens; the first turns keep their arrivals."""
    session, turn = np.divmod(np.arange(work.size), turns)
    said = work.prompt + work.output  # of each turn by itself
    ahead = prefixes.tokens if prefixes else 0
    whole = np.cumsum(said)
    before = whole - said - (whole - said)[session * turns]
    prompt = work.prompt + before + ahead
    after = np.where(turn > 0, np.arange(work.size) - 1, -1)
    sessions = int(session[-1]) + 1
    which = prefixes.drawn(sessions, rng) if prefixes else np.zeros(sessions, np.int64)
    chains, unit = _spoken(prompt + work.output, session, which, ahead)
    note = f"sessions of {turns} turns, each sent {think:g} s after the answer before it, with all that was said in front of it"
    return replace(
        work, prompt=prompt, after=after, delay=np.where(turn > 0, think, 0.0), prefix=chains, block=unit, notes=(*work.notes, note)
    )


def _spoken(tokens: Ints, session: Ints, which: Ints, ahead: int) -> tuple[Chains, int]:
    """The ids of all that each turn has said in the end [tokens], and tokens of an id: those of its prefix, then its session's own."""
    unit = _unit(int(tokens.sum()))
    shared, size = ahead // unit, -(-tokens // unit)
    begin = np.concatenate(([0], np.cumsum(size)))
    place = np.arange(begin[-1]) - np.repeat(begin[:-1], size)
    longest = int(size.max())
    mine = np.repeat(session, size) * longest + place + (int(which.max()) + 1) * shared
    return Chains(np.where(place < shared, np.repeat(which[session], size) * shared + place, mine), begin), unit


def _unit(tokens: int) -> int:
    """Tokens of an id where all requests have so many."""
    return UNIT * max(1, -(-tokens // (UNIT * MOST_IDS)))


# ---- cycles of prompts ---------------------------------------------------------------------------------------------------


def cycled(prompt: Ints, ids: Ints, unit: int, count: int) -> tuple[Ints, Chains]:
    """The prompts of `count` requests that take a list [P] of them from its begin over and over, with the ids [P, K] of each."""
    at = np.arange(count) % len(prompt)
    return prompt[at], Chains(ids[at].ravel(), np.arange(count + 1) * ids.shape[1])
