"""A dataset of texts becomes a trace of lengths (floor 2).

Texts are read, counted in batches and forgotten; what is kept is two numbers per request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np

from apexsim.errors import InputError
from apexsim.examples import located
from apexsim.workload.stream import NAMED
from apexsim.workload.synth import arrivals
from apexsim.workload.talks import KNOWN, LONGEST, NoAnswer, Talk, Wish, talk_of
from apexsim.workload.texts import Dataset, read_texts
from apexsim.workload.tokens import Counter
from apexsim.workload.trace import NO_CHAINS, Chains, Ints, Workload

TEXTS, CHARS = 4096, 1 << 22  # a batch: texts, or characters, at most (one text may be longer)
Told = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """When requests come: at a mean `rate` [1/s] with gamma gaps of shape `burstiness` from a `seed` (None: all at once),
    and the next turn of a conversation `gap` [s] after the one before."""

    rate: float | None = None
    burstiness: float = 1.0
    seed: int = 0
    gap: float = 0.0


@dataclass(frozen=True, slots=True)
class KeptBounds:
    """What is kept: no request longer than `context` [tokens, prompt + output], the first `count` of those, and up to
    `skip` records that cannot be used are passed over."""

    context: int = 2 * LONGEST
    count: int = LONGEST
    skip: int = 0


@dataclass(slots=True)
class _Found:
    """The requests so far, and what was left out."""

    prompt: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    talk: list[int] = field(default_factory=list)  # conversation that each request is of
    long: int = 0
    silent: int = 0
    skipped: int = 0
    faults: list[str] = field(default_factory=list)


def tokenized(
    path: str | Path, counter: Counter, wish: Wish, bounds: KeptBounds, pace: Pace, block: int = 0, told: Told | None = None
) -> Workload:
    """The requests of a dataset as lengths [tokens].

    block: tokens of a prefix block where turns of a conversation shall share them, 0 for none; told: called with the
    bytes read, those of the file, and a word.
    """
    dataset = read_texts(path, KNOWN)
    found, where, size = _Found(), str(path), located(path).stat().st_size
    for batch in _batches(_talks(dataset, found, wish, bounds, where)):
        _count(found, batch, counter, wish, bounds)
        if told:
            told(dataset.read(), size, f"{len(found.prompt)} requests")
        if len(found.prompt) >= bounds.count:
            break
    return _requests(found, where, dataset.kind, counter, wish, bounds, pace, block)


def _talks(dataset: Dataset, found: _Found, wish: Wish, bounds: KeptBounds, where: str) -> Iterator[Talk]:
    """The conversations of a dataset; records that cannot be used are counted, or are the error."""
    for line, record in dataset.records:
        try:
            if isinstance(record, InputError):
                raise record
            yield talk_of(record, wish)
        except NoAnswer:
            found.silent += 1
        except InputError as fault:
            error = InputError(fault.what, fault.where or f"{where}:{line}", fault.hint)
            found.skipped += 1
            if found.skipped > bounds.skip:
                raise _beyond(error, bounds.skip) from None
            found.faults += [f"{error.where}: {error.what}"] if len(found.faults) < NAMED else []


def _beyond(error: InputError, limit: int) -> InputError:
    if limit:
        return InputError(f"more than {limit} records cannot be used, the next one: {error.what}", error.where, error.hint)
    return InputError(error.what, error.where, error.hint or "--skip-bad N passes over such records")


def _batches(talks: Iterator[Talk]) -> Iterator[list[Talk]]:
    batch: list[Talk] = []
    texts = chars = 0
    for talk in talks:
        batch.append(talk)
        texts += len(talk.parts)
        chars += sum(len(part) for part in talk.parts if isinstance(part, str))
        if texts >= TEXTS or chars >= CHARS:
            yield batch
            batch, texts, chars = [], 0, 0
    if batch:
        yield batch


def _count(found: _Found, batch: list[Talk], counter: Counter, wish: Wish, bounds: KeptBounds) -> None:
    """Add the requests of a batch."""
    sizes = iter(counter.count([part for talk in batch for part in talk.parts if isinstance(part, str)]))
    for talk in batch:
        tokens = [part if isinstance(part, int) else next(sizes) for part in talk.parts]
        before = [0, *accumulate(tokens)]
        number = found.talk[-1] + 1 if found.talk else 0
        for ask in talk.asks:
            prompt, output = max(1, before[ask] + counter.special), wish.length or max(1, tokens[ask])
            if prompt + output > bounds.context:
                found.long += 1
            elif len(found.prompt) < bounds.count:
                found.prompt.append(prompt)
                found.output.append(output)
                found.talk.append(number)


# ---- the trace ----------------------------------------------------------------------------------------------------


def _requests(found: _Found, where: str, kind: str, counter: Counter, wish: Wish, bounds: KeptBounds, pace: Pace, block: int) -> Workload:
    if not found.prompt:
        told = f"{found.silent} records without an answer, {found.long} longer than {bounds.context} tokens, "
        told += f"{found.skipped} that cannot be used"
        hint = "--output-len N gives them one" if found.silent else ""
        raise InputError(f"no request is left: {told}", where, hint)
    prompt, output, talk = (np.array(x, dtype=np.int64) for x in (found.prompt, found.output, found.talk))
    turn = np.arange(len(talk)) - np.searchsorted(talk, talk)  # of each request in its conversation
    prefix = _shared(prompt, talk, block) if block and wish.every else NO_CHAINS
    arrive, timed = np.zeros(len(prompt)), pace.rate is not None and math.isfinite(pace.rate)
    if timed:
        begins = int(talk[-1]) + 1
        rng = np.random.default_rng(pace.seed)
        assert pace.rate is not None
        arrive = arrivals(begins, pace.rate * begins / len(talk), pace.burstiness, rng)[talk] + turn * pace.gap
    notes = _notes(found, counter, bounds, pace if timed and wish.every else None)
    name, mode, block = Path(where).name.split(".")[0], "open" if timed else "offline", block if len(prefix) else 0
    made = Workload(
        name,
        arrive,
        prompt,
        output,
        mode,
        prefix=prefix,
        block=block,
        source=where,
        notes=notes,
        fmt=kind,
        skipped=found.skipped,
        faults=tuple(found.faults),
    )
    return made.only(np.argsort(arrive, kind="stable"))


def _shared(prompt: Ints, talk: Ints, block: int) -> Chains:
    """Prefix blocks of conversations that grow: full blocks are those of all later turns, a last one that is not full is
    of its turn alone."""
    full, size = prompt // block, -(-prompt // block)
    first = np.concatenate(([0], np.cumsum(size)))
    at = np.arange(first[-1]) - np.repeat(first[:-1], size)
    longest = int(size.max())
    hashes = np.repeat(talk, size) * longest + at
    partial = at >= np.repeat(full, size)
    hashes[partial] = (int(talk[-1]) + 1) * longest + np.arange(int(partial.sum()))
    return Chains(hashes, first)


def _notes(found: _Found, counter: Counter, bounds: KeptBounds, spread: Pace | None) -> tuple[str, ...]:
    notes = [counter.note]
    if found.silent:
        notes.append(f"{found.silent} records without an answer left out (--output-len N keeps them)")
    if found.long:
        notes.append(f"{found.long} requests longer than {bounds.context} tokens left out")
    if spread is not None:
        notes.append(f"turns of a conversation come {spread.gap:g} s apart")
    return tuple(notes)
