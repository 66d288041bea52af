"""A plan that was sized: the answer to "does it fit", and what its cache is good for (floor 3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from apexsim.engines import EngineRow
from apexsim.errors import InputError, Rejected
from apexsim.hardware import Cluster
from apexsim.model.model import Model
from apexsim.plan.limits import most_sequences, sure_blocks
from apexsim.plan.memory import Room, room, size
from apexsim.plan.plan import Plan
from apexsim.plan.pool import request_blocks
from apexsim.plan.space import Scene, check
from apexsim.views import Shown

LITTLE = 2.0  # requests of full length at once: a cache for fewer is called small


@dataclass(frozen=True, slots=True)
class Typical:
    """The requests that users send: mean prompt and output [tokens], the longest prompt [tokens], how often each length
    (prompt + output) occurs, and where that is from."""

    prompt: float
    output: float
    longest_prompt: int
    lengths: tuple[tuple[int, int], ...]
    source: str


# the chat scenario of the public benchmark InferenceX: 1,024 prompt and 1,024 output tokens
USUAL = Typical(1024.0, 1024.0, 1024, ((2048, 1),), "InferenceX's chat scenario")


def usual(length: int) -> Typical:
    """What users are taken to send where nobody says it; a model with a shorter context gets requests that fill it."""
    whole = min(length, USUAL.lengths[0][0])
    prompt = whole - whole // 2
    if whole == USUAL.lengths[0][0]:
        return USUAL
    return Typical(float(prompt), float(whole - prompt), prompt, ((whole, 1),), "the longest allowed")


def typical_of(prompt: Sequence[int], output: Sequence[int], longest: int, source: str, where: str) -> Typical:
    """The requests of a trace or a preset: prompt, output: [R] tokens.  Raises InputError where some are longer than `longest`."""
    counts = Counter(p + o for p, o in zip(prompt, output, strict=True))
    many = sum(n for length, n in counts.items() if length > longest)
    if many:
        told = f"{many} of {len(prompt)} requests are longer than the {longest} tokens that the server allows"
        other = f"or: apexsim trace filter --max-context {longest}" if where == "--trace" else "or --prompt-len and --output-len"
        raise InputError(told, where, f"give a larger --max-model-len, {other}")
    return Typical(sum(prompt) / len(prompt), sum(output) / len(output), max(prompt), tuple(sorted(counts.items())), source)


@dataclass(frozen=True, slots=True, repr=False)
class Fit(Shown):
    """The answer: `found` is the room, or why there is none; nearest: what would fit, in words, "" = nothing tried does;
    levers: what would give more; others: the layouts that fit as well, in the field's order."""

    model: Model
    cluster: Cluster
    engine: EngineRow
    plan: Plan
    max_model_len: int
    found: Room | Rejected
    nearest: str = ""
    notes: tuple[str, ...] = ()
    typical: Typical = USUAL
    levers: tuple[Lever, ...] = ()
    others: tuple[Fit, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the engine would start."""
        return isinstance(self.found, Room)

    @property
    def little(self) -> bool:
        """Whether it fits with little room: for less than two requests of full length, or perhaps not for one."""
        found = self.found
        if isinstance(found, Rejected) or not caches(found):
            return False
        return found.max_concurrency < LITTLE or request_blocks(found.pool, self.max_model_len, self.engine) > sure_blocks(found)

    @property
    def room(self) -> Room | None:
        """The room, also of a cache that is too small for one request of full length; None where nothing is left for one."""
        if isinstance(self.found, Room):
            return self.found
        scene = Scene(self.model, self.cluster)
        found = None if check(self.plan, scene) else size(self.model, self.plan, self.cluster, self.engine, self.max_model_len)
        return found if isinstance(found, Room) else None


@dataclass(frozen=True, slots=True)
class Lever:
    """A change of the question, sized: its kind, the engine's words for it, and the answer then."""

    kind: str
    words: str
    answer: Fit


def caches(found: Room) -> bool:
    """Whether requests hold memory on the GPU while they run."""
    return bool(found.pool.groups) or found.pool.block_bytes > 1.0


def judged(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow, length: int) -> Room | Rejected:
    """The room of a plan as the engine sees it: rules of splitting first, then memory."""
    broken = check(plan, Scene(model, cluster))
    if broken:
        return broken
    asked = room if engine.memory.refuses else size
    return asked(model, plan, cluster, engine, length)


def sized(answer: Fit, **changes: Any) -> Fit:
    """The answer to a changed question."""
    asked = replace(answer, nearest="", notes=(), levers=(), others=(), **changes)
    return replace(asked, found=judged(asked.model, asked.plan, asked.cluster, asked.engine, asked.max_model_len))


def longest(answer: Fit) -> int:
    """The longest request that the cache holds [token]; 0 where nothing is left for a cache."""
    found = answer.room
    if found is None or not found.pool.groups:
        return 0
    count, low, high = int(found.kv_bytes // found.pool.block_bytes), 0, answer.max_model_len
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if request_blocks(found.pool, middle, answer.engine) <= count else (low, middle - 1)
    return low


def users(answer: Fit, lengths: tuple[tuple[int, int], ...]) -> tuple[float, bool]:
    """(users at once whose requests have these lengths, on all GPUs together; whether the engine's own limit of sequences
    is what stops there).  Each holds what its whole request needs.  Infinite where requests hold nothing."""
    found, copies = answer.room, answer.plan.replicas * answer.plan.lanes
    if found is None:
        return 0.0, False
    most = most_sequences(found, answer.engine)
    if not caches(found):
        return float(most * copies), True
    blocks = sum(n * request_blocks(found.pool, length, answer.engine) for length, n in lengths)
    held = int(found.kv_bytes // found.pool.block_bytes) * sum(n for _, n in lengths) / blocks
    return min(held, float(most)) * copies, held >= most


def full_users(answer: Fit) -> float:
    """Users at once whose requests have the full length."""
    return users(answer, ((answer.max_model_len, 1),))[0]


def typical_users(answer: Fit) -> float:
    """Users at once whose requests are typical."""
    return users(answer, answer.typical.lengths)[0]
