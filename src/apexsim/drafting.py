"""Drafts of a step, and how many of them are accepted (floor 1).

A step that holds K drafts of a sequence verifies them with its newest token and makes 1 + (accepted drafts) tokens of it: the
acceptance length, 1 to K + 1, is their mean.  It depends on model, method and text, and falls from position to position, which no
single rate describes: `data/acceptance.csv` holds measured lengths by K, and people give their own.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from statistics import median

from apexsim.errors import InputError, nearest
from apexsim.examples import expanded
from apexsim.files import lines, loads

MOST = 16  # drafts of a step: more is a slip
METHODS = {  # what drafts, in words
    "mtp": "the model's own multi-token-prediction layer",
    "eagle3": "an EAGLE-3 head: one dense layer over three of the model's hidden states",
    "ngram": "what followed the same tokens before in the request itself",
    "draft": "a smaller model with the same vocabulary",
}
NOT_SIMULATED = {  # how people ask for it -> what it is
    "eagle": "EAGLE of the first two kinds", "eagle2": "EAGLE of the first two kinds",
    "medusa": "Medusa", "suffix": "suffix decoding", "adaptive": "drafts whose number follows acceptance",
}  # fmt: skip
_DRAFTS = re.compile(
    r"(?P<method>[A-Za-z0-9_-]+)(?::(?P<model>[^,+]*))?:(?P<first>\d{1,4})(?:\.\.(?P<last>\d{1,4})|(?P<more>to\d{1,6}(?:/\d{1,4}to\d{1,6})*/\d{1,4}))?"
)
_RANGE = re.compile(r"(\d+)to(\d+)/")
BY_BATCH = "3to32/1to128/0"  # how a number of drafts that follows the batch is written
SPELLED = {"draft_model": "draft", "draft-model": "draft", "standalone": "draft"}  # the engines' words for it
LENGTH = "length:"
SCATTER = 0.1  # by which more drafts may seem to make fewer tokens, each K being a run of its own (5 % in data/acceptance.csv)
SUFFIXES = re.compile(r"-(?:nvfp4|mxfp4|fp8|fp4|int4|bf16)$")


@dataclass(frozen=True, slots=True)
class Drafting:
    """How a plan drafts: `tokens` drafts in each step, by a method; model: the one that drafts, where it is another.

    by: where the number follows the batch, (sequences of the step up to which, drafts) in order, the last without an end (0); `tokens` is
    then the most."""

    method: str
    tokens: int
    model: str = ""
    by: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        many = "/".join(f"{k}to{end}" if end else str(k) for end, k in self.by) or str(self.tokens)
        return ":".join(filter(None, (self.method, self.model, many)))

    @property
    def width(self) -> int:
        """Tokens of the step that a decoding sequence takes up, at most."""
        return self.tokens + 1

    @property
    def kinds(self) -> tuple[Drafting, ...]:
        """The ways of drafting with one number each that it is made of, ascending; with 0 the layers that draft still see every token."""
        return tuple(replace(self, tokens=k, by=()) for k in sorted({k for _, k in self.by} or {self.tokens}))

    def drafts(self, sequences: int) -> int:
        """Drafts of each of so many sequences."""
        return next((k for end, k in self.by if sequences <= end or not end), self.tokens)

    def of_batches(self, most: int) -> list[int]:
        """Those of 0, 1 … `most` sequences."""
        return [self.drafts(d) for d in range(most + 1)] if self.by else [self.tokens] * (most + 1)

    @property
    def layers(self) -> int:
        """Draft layers behind the model's own."""
        return int(self.method in ("mtp", "eagle3"))


def parse_drafting(text: str, where: str = "--plan") -> Drafting:
    """ "mtp:3": what stands behind a plan's shorthand."""
    match = _DRAFTS.fullmatch(text.strip())
    if not match or match["last"]:
        hint = f"write the method and the drafts of a step, e.g. TP8+mtp:3, or by its sequences: TP8+mtp:{BY_BATCH}"
        raise InputError(f"cannot read '{text}' as drafts", where, hint)
    return _drafting(match, int(match["first"]), where)


def _drafting(said: re.Match[str], tokens: int, where: str) -> Drafting:
    word, model = said["method"].lower(), (said["model"] or "").strip()
    method = SPELLED.get(word, word)
    if method not in METHODS:
        raise InputError(f"unknown way of drafting '{method}'", where, nearest(method, METHODS))
    by = _by_batch(said, where) if said["more"] else ()
    tokens = max((k for _, k in by), default=tokens)
    if not 1 <= tokens <= MOST:
        raise InputError(f"expected 1 to {MOST} drafts in a step, got {tokens}", where)
    if method == "draft" and not model:
        raise InputError("a draft model is not named", where, f"write draft:MODEL:K, e.g. draft:qwen3-0.6b:{tokens}")
    if method != "draft" and said["model"] is not None:
        raise InputError(f"{method} takes no model, got '{model}'", where, f"write {method}:{tokens}, or draft:MODEL:{tokens}")
    return Drafting(method, tokens, model, by)


def _by_batch(said: re.Match[str], where: str) -> tuple[tuple[int, int], ...]:
    """(sequences up to which, drafts) of "3to32/1to128/0": ends ascend, and no range drafts as the one before it."""
    text = said["first"] + said["more"]
    by = (*((int(end), int(k)) for k, end in _RANGE.findall(text)), (0, int(text.rpartition("/")[2])))
    ends = [0, *(end for end, _ in by[:-1])]
    if any(b <= a for a, b in pairwise(ends)):
        raise InputError(f"ranges of sequences must ascend from 1, got '{text}'", where, f"write e.g. {BY_BATCH}")
    if any(a[1] == b[1] for a, b in pairwise(by)):
        raise InputError(f"two ranges side by side have the same drafts in '{text}'", where, f"write them as one, e.g. {BY_BATCH}")
    return by


def ranged(drafts: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The ranges of what d = 1, 2 … sequences have, the last one's going on; none where all have the same."""
    by = [(d, k) for d, (k, after) in enumerate(pairwise(drafts), 1) if after != k]
    return (*by, (0, drafts[-1])) if by else ()


def parse_speculate(text: str, where: str = "--speculate") -> tuple[Drafting | None, ...]:
    """The ways of drafting that "mtp:1..4,eagle3:3,none" names, in order; a range is compared with drafting not at all."""
    found: list[Drafting | None] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        if part.lower() == "none":
            found.append(None)
            continue
        match, name = _DRAFTS.fullmatch(part), part.partition(":")[0].lower()
        if name in NOT_SIMULATED:
            raise InputError(
                f"not modelled: {NOT_SIMULATED[name]}", where, f"its ways of drafting are {', '.join(METHODS)} with K drafts: mtp:3"
            )
        if not match:
            raise InputError(
                f"cannot read '{part}'", where, f"write METHOD:K or METHOD:K..K, e.g. mtp:3 or none,mtp:1..4, or mtp:{BY_BATCH}"
            )
        first = int(match["first"])
        last = int(match["last"] or first)
        if last < first:
            raise InputError(f"'{part}' ends before it begins", where, f"write {part.rpartition(':')[0]}:{last}..{first}")
        found += [None] if match["last"] else []
        found += [_drafting(match, k, where) for k in range(first, max(first, min(last, MOST + 1)) + 1)]
    if not found:
        raise InputError("names no way of drafting", where, "write METHOD:K, e.g. mtp:3")
    return tuple(dict.fromkeys(found))


# ---- acceptance ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Mean tokens of a step by its drafts: lengths[K], 1 at K = 0; and who says so.

    assumed: nobody has said it of this model, method and text.
    """

    lengths: tuple[float, ...]
    source: str
    assumed: bool = False

    @property
    def most(self) -> int:
        """Drafts up to which it is known."""
        return len(self.lengths) - 1

    def length(self, drafts: int, where: str = "--acceptance") -> float:
        """Tokens of a step with so many drafts; raises InputError where nobody knows."""
        if drafts > self.most:
            told = f"says nothing of {drafts} drafts ({self.source}: up to {self.most})"
            raise InputError(told, where, f"give {drafts} values, or draft less")
        return self.lengths[drafts]


def of_rate(rate: float, source: str) -> Acceptance:
    """Each draft is accepted with the same probability if the one before it was: 1 + a + a² + …"""
    return Acceptance(tuple(sum(rate**i for i in range(k + 1)) for k in range(MOST + 1)), source)


def of_positions(rates: list[float], source: str, where: str) -> Acceptance:
    """rates[i]: share of the drafts of position i + 1 that are accepted, counted over all steps; they cannot rise."""
    for rate in rates:
        if not 0.0 <= rate <= 1.0:
            raise InputError(f"acceptance is a share from 0 to 1, got {rate:g}", where, f"a number of tokens is written {LENGTH}2.3")
    if any(b > a for a, b in pairwise(rates)):
        raise InputError(
            "a draft is accepted only with those before it: shares cannot rise from position to position",
            where,
            "give shares of all steps, as vllm:spec_decode_num_accepted_tokens_per_pos counts them",
        )
    return Acceptance(tuple(1.0 + sum(rates[:k]) for k in range(len(rates) + 1)), source)


def of_lengths(lengths: list[float], source: str, where: str) -> Acceptance:
    """lengths[i]: mean tokens of a step with i + 1 drafts, its own among them."""
    for k, length in enumerate(lengths, 1):
        if not 1.0 <= length <= k + 1:
            raise InputError(f"a step with {k} draft{'s' * (k > 1)} makes 1 to {k + 1} tokens, got {length:g}", where)
    for k, (fewer, more) in enumerate(pairwise(lengths), 1):
        if more < fewer * (1 - SCATTER):
            raise InputError(f"{k + 1} drafts cannot make fewer tokens than {k}, got {more:g} after {fewer:g}", where)
    return Acceptance((1.0, *lengths), source)


_NUMERIC = re.compile(r"[-+.,]?\d|[-+.,]|[-+]?(?:nan|inf|infinity)\b", re.IGNORECASE)  # how numbers begin, and no name does


def parse_acceptance(text: str, drafts: int, where: str = "--acceptance") -> Acceptance:
    """What a user says of acceptance: a rate, a rate for each position, lengths, a file, or the name of a measured table.

    drafts: the most that the question asks about, which one length alone is taken to be of.
    """
    words = text.strip()
    if words.lower().startswith(LENGTH):
        return _told_lengths(_numbers(words[len(LENGTH) :], where), words, drafts, where)
    if _NUMERIC.match(words) and not Path(expanded(words)).is_file():
        rates = _numbers(words, where)
        if len(rates) == 1 and 0.0 <= rates[0] <= 1.0:
            return of_rate(rates[0], f"given: {words} at every position")
        return of_positions(rates, f"given: {words}", where)
    if Path(expanded(words)).is_file():
        return _from_file(words)
    return _named(words, where)


def _told_lengths(lengths: list[float], words: str, drafts: int, where: str) -> Acceptance:
    if len(lengths) > 1 or drafts == 1:
        return of_lengths(lengths, f"given: {words}", where)
    if not 1.0 <= lengths[0] <= drafts + 1:
        raise InputError(f"a step with {drafts} drafts makes 1 to {drafts + 1} tokens, got {lengths[0]:g}", where)
    return Acceptance((*of_rate(_rate_of(lengths[0], drafts), "").lengths[:drafts], lengths[0]), f"given: {words} at {drafts} drafts")


def _rate_of(length: float, drafts: int) -> float:
    """The rate that makes so many tokens of so many drafts, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if of_rate(middle, "").lengths[drafts] < length else (low, middle)
    return low


def _numbers(text: str, where: str, most: float = 1e6) -> list[float]:
    found = []
    for word in text.split(","):
        try:
            found.append(float(word))
        except ValueError:
            raise InputError(f"cannot read '{word.strip()}' as a number", where, f"write 0.8, 0.8,0.6,0.4 or {LENGTH}1.8,2.3") from None
        if not abs(found[-1]) < most:
            raise InputError(f"expected a finite number, got {word.strip()}", where)
    if len(found) > MOST:
        raise InputError(f"expected at most {MOST} positions, got {len(found)}", where)
    return found


# ---- files and counters ----------------------------------------------------------------------------------------------

_STEPS = re.compile(r"^vllm:spec_decode_num_drafts(?:_total)?(?:\{[^}]*\})?\s+([\d.eE+-]+)\s*$", re.MULTILINE)
_ACCEPTED = re.compile(
    r"^vllm:spec_decode_num_accepted_tokens_per_pos(?:_total)?\{[^}]*position=\"(\d+)\"[^}]*\}\s+([\d.eE+-]+)\s*$", re.MULTILINE
)


_TOLD = "spec_decode_per_position_acceptance_rates"  # of a result of vLLM's bench serve: of each position, over drafted steps


def _from_file(path: str) -> Acceptance:
    """The user's own: counters as a vLLM server's /metrics says them, a result of its bench serve, or a CSV with the columns drafts and
    length, or position and rate."""
    text = "".join(lines(path, "file of acceptance"))
    if text.lstrip().startswith("{"):
        return _from_result(text, path)
    if "spec_decode_num_drafts" in text:
        return _from_counters(text, path)
    rows = list(csv.DictReader(text.splitlines()))
    names = {name.strip().lower() for name in (rows[0] if rows else {}) if name}
    for key, value, make in (("drafts", "length", of_lengths), ("position", "rate", of_positions)):
        if {key, value} <= names:
            return make(_column(rows, key, value, path), path, path)
    raise InputError("holds no acceptance", path, "give columns drafts,length or position,rate, a server's /metrics or bench JSON")


def _column(rows: list[dict[str, str]], key: str, value: str, path: str) -> list[float]:
    """The values in the order of 1, 2, 3 …, none left out."""
    found: dict[float, float] = {}
    for row in rows:
        clean = {str(name).strip().lower(): text for name, text in row.items()}
        at = _numbers(clean[key] or "", path)[0]
        if at in found:
            raise InputError(f"'{key}' {at:g} stands in it twice", path, "once each")
        found[at] = _numbers(clean[value] or "", path)[0]
    if sorted(found) != list(range(1, len(found) + 1)) or len(found) > MOST:
        raise InputError(f"'{key}' must be 1, 2, 3 … up to {MOST}", path)
    return [found[k] for k in sorted(found)]


def _from_result(text: str, path: str) -> Acceptance:
    """The rates that a benchmark result holds."""
    try:
        told = loads(text)
    except (ValueError, RecursionError):
        raise InputError("cannot be read as JSON", path, "give a result of vllm bench serve --save-result") from None
    rates = told.get(_TOLD)
    if not isinstance(rates, list) or not rates or not all(type(x) in (int, float) for x in rates):
        raise InputError(f"holds no list '{_TOLD}'", path, "bench a server that drafts, or save its /metrics")
    return of_positions(_numbers(",".join(map(str, rates)), path), f"{path}, as its benchmark counted", path)


def _from_counters(text: str, path: str) -> Acceptance:
    """Accepted drafts of each position over drafted steps, all models and engines of the server together."""
    steps = sum(x for word in _STEPS.findall(text) for x in _numbers(word, path, 1e18))
    counts: dict[int, float] = {}
    for position, value in _ACCEPTED.findall(text):
        counts[int(position)] = counts.get(int(position), 0.0) + _numbers(value, path, 1e18)[0]
    if not steps > 0 or sorted(counts) != list(range(len(counts))) or not counts:
        raise InputError("its counters say nothing of drafts", path, "let the server draft first, and save its /metrics")
    return of_positions([counts[i] / steps for i in sorted(counts)], f"counters of {path}", path)


# ---- the table that is shipped ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AcceptedLengths:
    """Lengths of one model, method and kind of text."""

    model: str
    method: str
    task: str
    engine: str
    lengths: tuple[float, ...]
    source: str

    @property
    def name(self) -> str:
        """What people call it: model:task."""
        return f"{self.model}:{self.task}"


RANDOM = "random-tokens"  # of benchmarks that send no text: nobody's, but for those who compare with them
USUAL = "coding"  # what is taken where nobody says what the text is


@cache
def measured() -> tuple[AcceptedLengths, ...]:
    """The rows of the table, lengths from K = 0 on."""
    return tuple(_read())


def _read() -> Iterator[AcceptedLengths]:
    path = str(files("apexsim") / "data/acceptance.csv")
    rows: dict[tuple[str, ...], dict[int, float]] = {}
    for row in csv.DictReader(line for line in lines(path, "table of acceptance") if not line.startswith("#")):
        head = tuple(row[name] for name in ("model", "method", "task", "engine", "source"))
        rows.setdefault(head, {})[int(row["drafts"])] = float(row["length"])
    for (model, method, task, engine, source), found in rows.items():
        known = [found[k] for k in sorted(found)] if sorted(found) == list(range(1, len(found) + 1)) else []
        if known:
            yield AcceptedLengths(model, method, task, engine, (1.0, *known), source)
        else:  # some K alone: what lies between is not said
            for k, length in found.items():
                yield AcceptedLengths(model, method, task, engine, (*of_rate(_rate_of(length, k), "").lengths[:k], length), source)


def plain(model: str) -> str:
    """A model's name without its maker."""
    return model.lower().replace("--", "/").rpartition("/")[2]


def alike(one: str, other: str) -> bool:
    """Whether two names are those of one model, in whatever format."""
    return SUFFIXES.sub("", plain(one)) == SUFFIXES.sub("", plain(other))


def _named(name: str, where: str) -> Acceptance:
    """A row by model:task, or by what is unique of it."""
    wanted = name.strip().lower()
    found = [row for row in measured() if wanted in (row.name, row.model)]
    if not found:
        raise InputError(f"unknown acceptance '{name}'", where, nearest(wanted, [row.name for row in measured()]))
    return Acceptance(found[0].lengths, f"{found[0].name}, {found[0].source}")


def acceptance_for(engine: str, model: str, drafting: Drafting, task: str = "") -> Acceptance:
    """What is known of a model's acceptance where nobody says it: as was measured of it, else of a model of the same family, else the
    median of the method's models.

    task: a kind of text, "" for the usual one.
    """
    rows = [row for row in measured() if row.method == drafting.method and len(row.lengths) > drafting.tokens]
    rows = [row for row in rows if row.engine in ("", engine)]
    exact, own = [row for row in rows if plain(row.model) == plain(model)], [row for row in rows if alike(row.model, model)]
    for found in ([row for row in exact if task and task in row.task], [row for row in own if RANDOM not in row.task]):
        if found:
            return Acceptance(found[0].lengths, f"{found[0].name}, {found[0].source}", assumed=not task)
    kin = [row for row in rows if RANDOM not in row.task and plain(row.model).partition("-")[0] == plain(model).partition("-")[0]]
    if kin:
        return Acceptance(kin[0].lengths, f"as {kin[0].name}, {kin[0].source}", assumed=True)
    others = [row for row in rows if RANDOM not in row.task]
    if not others:
        raise InputError(
            f"nothing is known of the acceptance of {drafting.method} with {drafting.tokens} drafts",
            "--acceptance",
            "give your own: --acceptance 0.7 (of each draft), 0.8,0.6,0.4 (by position), or length:2.2",
        )
    lengths = tuple(median(row.lengths[k] for row in others) for k in range(drafting.tokens + 1))
    names = len({row.model for row in others})
    return Acceptance(lengths, f"median of {names} other model{'s' * (names > 1)} with {drafting.method}, {others[0].source}", True)
