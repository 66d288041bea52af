"""The twin's blocks with what they hold, written from docs/caching.md: objects and lists, found by looking."""

from __future__ import annotations

from dataclasses import dataclass

from apexsim.engine.types import Requests, Rules
from naive_records import Sequence


@dataclass(eq=False)
class Block:
    """Room for `block` tokens."""

    key: tuple[str | int, int, int] | None = None  # what it is found by
    holders: int = 0


class Pool:
    """All blocks of a lane."""

    def __init__(self, blocks: int, rules: Rules, requests: Requests) -> None:
        self.free = [Block() for _ in range(blocks)]  # the first is taken first
        self.named: list[Block] = []  # in the order of naming
        self.rules, self.requests = rules, requests

    def key(self, x: Sequence, j: int) -> tuple[str | int, int, int]:
        """Of block j of a request: where in which story it ends, or its own."""
        end = (j + 1) * self.rules.block
        if end > self.requests.reach[x.index]:
            return "own", x.index, j
        return "story", int(self.requests.chain[self.requests.chain_at[x.index] + (end - 1) // self.requests.unit]), j

    def find(self, x: Sequence, j: int) -> Block | None:
        """The block that was named first."""
        key = self.key(x, j)
        return next((b for b in self.named if b.key == key), None)

    def look(self, x: Sequence) -> None:
        """What of the request is here."""
        x.found = []
        for j in range((x.target - 1) // self.rules.block):
            block = self.find(x, j)
            if block is None:
                break
            x.found.append(block)
        x.computed, x.shared = len(x.found) * self.rules.block, sum(b.holders > 0 for b in x.found)

    def join(self, x: Sequence) -> None:
        """It holds what it has found."""
        for block in x.found:
            block.holders += 1
            if block in self.free:
                self.free.remove(block)
        x.blocks, x.shared = list(x.found), 0

    def take(self, x: Sequence, held: int) -> None:
        """It has so many blocks."""
        while len(x.blocks) < held:
            block = self.free.pop(0)
            if block.key is not None:
                self.named.remove(block)
            block.key, block.holders = None, 1
            x.blocks.append(block)

    def name(self, x: Sequence, tokens: int, own: bool = False) -> None:
        """The blocks that the first `tokens` tokens fill can be found; its own ones only once it needs that."""
        for j, block in enumerate(x.blocks[: tokens // self.rules.block]):
            key = self.key(x, j)
            if block.key is None and (own or key[0] != "own"):
                block.key = key
                self.named.append(block)

    def go(self, x: Sequence, tokens: int, again: bool) -> None:
        """It gives all back, the last first."""
        self.name(x, tokens, again)
        for j in reversed(range(len(x.blocks))):
            block = x.blocks[j]
            block.holders -= 1
            if block.holders == 0 and self.rules.rest_first and j >= tokens // self.rules.block:
                self.free.insert(0, block)
            elif block.holders == 0:
                self.free.append(block)
        x.blocks = []
