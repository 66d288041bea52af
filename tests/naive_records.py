"""What the twin (naive.py) keeps: sequences, chunks, steps, lanes, groups and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from apexsim.engine.types import DECODE, PROMPT

NEVER = float("inf")


@dataclass(eq=False)
class Sequence:
    """One request on its way."""

    index: int
    prompt: int
    output: int
    cached: int = 0  # tokens of the prompt that need not be computed
    replica: int = 0
    sent: float = NEVER
    seen: float = NEVER
    start: float = NEVER
    times: list[float] = field(default_factory=list)  # s, of each token
    bursts: list[float] = field(default_factory=list)  # s, of each step that made any
    target: int = 0  # tokens to hold before it decodes in this stay
    computed: int = 0  # of them, cached, done or in flight
    context: int = 0  # cached tokens while decoding
    held: int = 0  # KV blocks
    lane: int = -1
    thrown: int = 0  # times
    joined: int = 0  # how many had their prompt computed before it
    found: list[Any] = field(default_factory=list)  # naive_prefix: leading blocks that the lane has
    shared: int = 0  # of them, that others hold
    blocks: list[Any] = field(default_factory=list)  # that it has
    hit: int = 0  # tokens found when it first started
    loads: list[Any] = field(default_factory=list)  # naive_prefix: tier and key of each block behind those
    asked: bool = False  # they are on their way, or have come


@dataclass(eq=False)
class Chunk:
    """The part of a prompt that a step computes."""

    sequence: Sequence
    done: int
    tokens: int

    @property
    def last(self) -> bool:
        """The prompt is complete after it."""
        return self.done + self.tokens == self.sequence.target


@dataclass(eq=False)
class Step:
    """One step: who takes part, when it began and when its results are known."""

    replica: int
    group: int
    decodes: list[Sequence]
    chunks: list[Chunk]
    begin: float = 0.0
    end: float = 0.0
    tokens: int = 0  # of all lanes, as priced
    load: float = 0.0  # s, of blocks from tiers
    width: int = 1  # tokens that each decode takes up
    ahead: float = 0.0  # tokens beyond the context at which decodes are priced

    @property
    def kind(self) -> int:
        """Which cost table it uses."""
        return PROMPT if self.chunks else DECODE


@dataclass(eq=False)
class Lane:
    """One KV cache."""

    free: int
    admitted: int = 0
    partial: Sequence | None = None
    leaving: list[Sequence] = field(default_factory=list)  # finished, not yet let go
    pool: Any = None  # naive_prefix.Pool, where prompts share prefixes


@dataclass(eq=False)
class Group:
    """One micro-batch in flight."""

    number: int
    decoding: list[Sequence] = field(default_factory=list)  # in order of joining
    ready: float = 0.0
    flight: Step | None = None
    began: float = 0.0  # its last step
    phase: int = 0  # decode steps since it looked at the queue, modulo poll
    clock: int = 0  # of its decode steps [1/1000 token with drafts, else token]
    waited: int = 0  # steps for which prompts have waited for company
    asleep: bool = False  # it found nothing to start, until the next results of the replica


@dataclass
class Naive:
    """What happened."""

    sequences: list[Sequence]
    steps: list[Step]
    lowest: int  # fewest free blocks a lane ever had

    def column(self, name: str) -> list[float]:
        """start, finish … of each request."""
        of = {
            "sent": lambda x: x.sent,
            "start": lambda x: x.start,
            "first": lambda x: (x.times or [NEVER])[0],
            "finish": lambda x: (x.times or [NEVER])[-1],
            "preempted": lambda x: x.thrown,
            "replica": lambda x: x.replica,
            "hit": lambda x: x.hit,
        }[name]
        return [of(x) for x in self.sequences]

    def gaps(self) -> list[float]:
        """All gaps between steps that made tokens of the same sequence [s], ascending."""
        return sorted(b - a for x in self.sequences for a, b in zip(x.bursts, x.bursts[1:]))
