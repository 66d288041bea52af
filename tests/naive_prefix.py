"""The twin's blocks with what they hold, written from docs/caching.md: objects and lists, found by looking."""

from __future__ import annotations

from dataclasses import dataclass

from apexsim.engine.types import EVICTED, FILLED, Offload, Requests, Rules
from naive_records import Sequence


@dataclass(eq=False)
class Block:
    """Room for `block` tokens."""

    key: tuple[str | int, int, int] | None = None  # what it is found by
    holders: int = 0


class Tier:
    """What lies behind the blocks of a lane, those used longest ago first."""

    def __init__(self, room: int, latency: float, block: float) -> None:
        self.room, self.latency, self.block = room, latency, block
        self.held: list[object] = []

    def keep(self, what: object) -> None:
        """It is the one used last."""
        if what in self.held:
            self.held.remove(what)
        elif len(self.held) == self.room:
            self.held.pop(0)
        self.held.append(what)


class Pool:
    """All blocks of a lane."""

    def __init__(self, blocks: int, rules: Rules, requests: Requests, offload: Offload) -> None:
        each = zip(offload.blocks.tolist(), offload.latency.tolist(), offload.block.tolist())
        self.tiers = [Tier(room, latency, block) for room, latency, block in each if room]
        self.write, self.prompts = offload.write, offload.prompts
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
        x.loads = []
        for j in range(len(x.found), (x.target - 1) // self.rules.block):
            tier = next((tier for tier in self.tiers if self.key(x, j) in tier.held), None)
            if tier is None:
                break
            x.loads.append((tier, self.key(x, j)))
        x.computed, x.shared = (len(x.found) + len(x.loads)) * self.rules.block, sum(b.holders > 0 for b in x.found)

    def seconds(self, x: Sequence) -> float:
        """What loading its blocks takes."""
        used = [tier for tier, _ in x.loads]
        return sum(tier.latency + used.count(tier) * tier.block for tier in self.tiers if tier in used)

    def go_up(self, x: Sequence) -> None:
        """Its blocks have been loaded."""
        for tier in self.tiers if self.write == EVICTED else []:
            tier.held = [what for what in tier.held if what not in [key for _, key in x.loads]]

    def kept(self, x: Sequence) -> int:
        """Leading blocks that tiers are given."""
        return (x.prompt if self.prompts else x.prompt + x.output) // self.rules.block

    def down(self, key: object, write: int) -> None:
        """The tiers are given a block."""
        for tier in self.tiers if self.write == write else []:
            tier.keep(key)

    def join(self, x: Sequence) -> None:
        """It holds what it has found."""
        for block in x.found:
            block.holders += 1
            if block in self.free:
                self.free.remove(block)
        for block in reversed(x.found[: self.kept(x)]):
            self.down(block.key, FILLED)
        x.blocks, x.shared = list(x.found), 0

    def take(self, x: Sequence, held: int) -> None:
        """It has so many blocks."""
        while len(x.blocks) < held:
            block = self.free.pop(0)
            if block.key is not None:
                self.named.remove(block)
                self.down(block.key, EVICTED)
            block.key, block.holders = None, 1
            x.blocks.append(block)

    def name(self, x: Sequence, tokens: int, own: bool = False) -> None:
        """The blocks that the first `tokens` tokens fill can be found; its own ones only once it needs that."""
        for j, block in enumerate(x.blocks[: tokens // self.rules.block]):
            key = self.key(x, j)
            if block.key is None and (own or key[0] != "own"):
                block.key = key
                self.named.append(block)
                if j < self.kept(x):
                    self.down(key, FILLED)

    def go(self, x: Sequence, tokens: int, again: bool) -> None:
        """It gives all back, the last first."""
        self.name(x, tokens, again)
        for block in x.blocks[: min(tokens // self.rules.block, self.kept(x))]:
            for tier in self.tiers if block.key is None else []:
                tier.keep(object())
        for j in reversed(range(len(x.blocks))):
            block = x.blocks[j]
            block.holders -= 1
            if block.holders == 0 and self.rules.rest_first and j >= tokens // self.rules.block:
                self.free.insert(0, block)
            elif block.holders == 0:
                self.free.append(block)
        x.blocks = []
