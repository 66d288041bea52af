"""Who waits for whom: turns of sessions and graphs of agents, from the ids that the records of a file give (floor 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apexsim.errors import InputError
from apexsim.workload.trace import Chain, Chains, Floats, Ints, chains_of

EARLY = 1e-6  # [s] by which a request may come before the one it waits for: times are rounded
MINTED = 64  # tokens of a block that is told by its length alone
MOST_IDS = 200_000_000  # of all requests together


@dataclass(frozen=True, slots=True)
class Wait:
    """One request that another waits for: its id, and seconds from its answer, or from its sending, on."""

    name: str
    delay: float
    sent: bool = False


@dataclass(frozen=True, slots=True)
class RecordLink:
    """What a record says of those before it.

    name: its id, "" = none; waits: those whom it names; session: whose turn it is, "" = nobody's; delay [s]: from the answer to the
    turn before it, None where it is not told; turn: its place in the session, None: as the file has it; ended [s]: when its answer
    had come, by the clock of the file, NaN = unknown; prefix: tokens of its prompt that the turns before it have, −1 = unknown.
    """

    name: str = ""
    waits: tuple[Wait, ...] = ()
    session: str = ""
    delay: float | None = None
    turn: float | None = None
    ended: float = math.nan
    prefix: int = -1


@dataclass(frozen=True, slots=True)
class Woven:
    """arrive [R] s, no earlier than that of whom a request waits for; after, delay [R], join, join_delay [J] as in `Workload`; order: [R]
    requests so that everyone stands behind those; turns: [R] the turn before, −1 = none."""

    arrive: Floats
    after: Ints
    delay: Floats
    join: Ints
    join_delay: Floats
    order: Ints
    turns: Ints


def seconds(value: Any, scale: float, what: str) -> float:
    """A delay [s] that a record states; raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"'{what}' is no number: {value!r}")
    if value < 0:
        raise ValueError(f"'{what}' is negative: {value:g}")
    return float(value * scale)


def woven(links: Sequence[RecordLink], times: Floats, where: Sequence[str]) -> Woven:
    """Who waits for whom; times: [R] s, NaN where a record has none; where: the place of each.  Raises InputError."""
    edges, turns = _edges(links, times, where)
    depth = _ordered(edges, links, where)
    arrive = np.where(np.isnan(times), 0.0, times)
    waits: list[list[tuple[int, float]]] = [[] for _ in links]
    for i in np.argsort(depth, kind="stable").tolist():
        if not edges[i]:
            continue
        early = next((p for p, _, _ in edges[i] if times[i] < times[p] - EARLY), -1)
        if early >= 0:
            told = f"{_named(links, i)} comes {times[early] - times[i]:g} s before {_named(links, early)}, which it waits for"
            raise InputError(told, where[i])
        due = max(arrive[p] + wait for p, wait, _ in edges[i])
        waits[i] = [one for edge in edges[i] for one in _whom(waits, *edge)]
        arrive[i] = due if np.isnan(times[i]) else max(arrive[i], max(arrive[p] for p, _, _ in edges[i]))
    after = np.array([some[0][0] if some else -1 for some in waits], np.int64)
    delay = np.array([some[0][1] if some else 0.0 for some in waits])
    rest = sorted((p, i, wait) for i, some in enumerate(waits) for p, wait in some[1:])
    join = np.array([(i, p) for p, i, _ in rest], np.int64).reshape(-1, 2)
    sorted_yet = bool((after < np.arange(len(after))).all() and (join[:, 1] < join[:, 0]).all() and (np.diff(arrive) >= 0).all())
    order = np.arange(len(after)) if sorted_yet else np.lexsort((depth, arrive))
    return Woven(arrive, after, delay, join, np.array([wait for _, _, wait in rest]), order, turns)


def _whom(waits: Sequence[Sequence[tuple[int, float]]], p: int, wait: float, sent: bool) -> list[tuple[int, float]]:
    """Whom a request waits for by one that it names, and how long [s]: who waits for a sending waits for what made that one be sent."""
    return [(q, before + wait) for q, before in waits[p]] if sent else [(p, wait)]


def _named(links: Sequence[RecordLink], i: int) -> str:
    """A request as its file names it."""
    if links[i].name:
        return f"request '{links[i].name}'"
    return f"a turn of session '{links[i].session}'" if links[i].session else "a request"


def _edges(links: Sequence[RecordLink], times: Floats, where: Sequence[str]) -> tuple[list[list[tuple[int, float, bool]]], Ints]:
    """(whom, s, from its sending on) of each request, and the turn before it."""
    known = _known(links, where)
    edges: list[list[tuple[int, float, bool]]] = [[] for _ in links]
    for i, link in enumerate(links):
        for wait in link.waits:
            if wait.name not in known:
                raise InputError(f"{_named(links, i)} waits for '{wait.name}', which no record has", where[i])
            edges[i].append((known[wait.name], wait.delay, wait.sent))
    turns = _turns(links, times, where)
    for i in np.flatnonzero(turns >= 0).tolist():
        p = int(turns[i])
        edges[i].append((p, _gap(links, times, i, p, where), False))
    return edges, turns


def _known(links: Sequence[RecordLink], where: Sequence[str]) -> Mapping[str, int]:
    """Requests by their ids."""
    found: dict[str, int] = {}
    for i, link in enumerate(links):
        if link.name and found.setdefault(link.name, i) != i:
            raise InputError(f"two records have the id '{link.name}'", where[i], f"the first one: {where[found[link.name]]}")
    return found


def _turns(links: Sequence[RecordLink], times: Floats, where: Sequence[str]) -> Ints:
    """The turn before each request, −1 for first ones."""
    sessions: dict[str, list[int]] = {}
    for i, link in enumerate(links):
        if link.session:
            sessions.setdefault(link.session, []).append(i)
    before = np.full(len(links), -1)
    for members in sessions.values():
        if links[members[0]].turn is not None:
            members.sort(key=lambda i: (times[i], links[i].turn or 0))
        first = links[members[0]]
        if first.delay:
            raise InputError(f"the first turn of session '{first.session}' has a delay, and nobody to wait for", where[members[0]])
        before[members[1:]] = members[:-1]
    return before


def _gap(links: Sequence[RecordLink], times: Floats, i: int, p: int, where: Sequence[str]) -> float:
    """Seconds from the answer of turn p to turn i: as told, as recorded, or as far as their times lie apart."""
    told, ended = links[i].delay, links[p].ended
    if told is not None:
        return told
    apart = float(times[i] - (times[p] if math.isnan(ended) else ended))
    if math.isnan(apart):
        raise InputError(f"{_named(links, i)} has neither a time nor a delay", where[i])
    if math.isnan(ended) and apart < -EARLY:
        raise InputError(f"{_named(links, i)} comes {-apart:g} s before the turn before it", where[i])
    return max(0.0, apart)


def _ordered(edges: Sequence[Sequence[tuple[int, float, bool]]], links: Sequence[RecordLink], where: Sequence[str]) -> Ints:
    """How many stand before each request in a row, each waiting for the next one; raises InputError where they go round."""
    followers: list[list[int]] = [[] for _ in edges]
    missing = [len(some) for some in edges]
    for i, some in enumerate(edges):
        for p, _, _ in some:
            followers[p].append(i)
    depth = np.zeros(len(edges), np.int64)
    free = [i for i, n in enumerate(missing) if n == 0]
    for i in free:
        for c in followers[i]:
            missing[c] -= 1
            depth[c] = max(depth[c], depth[i] + 1)
            if not missing[c]:
                free.append(c)
    if len(free) < len(edges):
        i = next(i for i, n in enumerate(missing) if n)
        raise InputError(f"{_named(links, i)} waits, by those it names, for itself", where[i])
    return depth


# ---- what turns share ----------------------------------------------------------------------------------------------------


def answered(chains: Chains, prompt: Ints, output: Ints, after: Ints, block: int) -> Chains:
    """The chains with the ids of answers that a later prompt repeats: those of who waits for the answer, where his prompt begins
    with the other's and is long enough for its answer too."""
    found: list[Chain] = list(chains)
    for i in np.flatnonzero(after >= 0).tolist():
        p = int(after[i])
        whole, said = int(prompt[p]) // block, int(prompt[p] + output[p])
        if prompt[i] >= said and len(found[p]) * block < said and whole and chains[i][:whole] == found[p][:whole]:
            found[p] = chains[i][: -(-said // block)]
    return chains_of(found)


def minted(links: Sequence[RecordLink], prompt: Ints, output: Ints, turns: Ints, where: Sequence[str]) -> Chains:
    """Chains of sessions that tell how many tokens of each prompt the turns before it have, and not which."""
    found: list[Ints] = [np.zeros(0, np.int64)] * len(links)
    following = {int(p): i for i, p in enumerate(turns.tolist()) if p >= 0}
    used = held = 0
    for first in np.flatnonzero(turns < 0).tolist():
        i, before = first, np.zeros(0, np.int64)
        while i >= 0:
            kept = before[: max(0, links[i].prefix) // MINTED]
            fresh = max(0, -(-int(prompt[i] + output[i]) // MINTED) - len(kept))
            before = found[i] = np.concatenate((kept, np.arange(used, used + fresh)))
            used, held = used + fresh, held + len(before)
            if held > MOST_IDS:
                raise InputError(f"more than {MOST_IDS:,} blocks of prompts: too many to hold", where[i], "take fewer sessions of the file")
            i = following.get(i, -1)
    return Chains(np.concatenate(found), np.cumsum([0, *map(len, found)]))
