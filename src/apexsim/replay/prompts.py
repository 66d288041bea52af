"""Prompts of a wanted number of tokens (floor 5).

Token ids are exact, but only the completions interface takes them.  Text is made of short common words, one token each
in nearly all vocabularies; without the server's tokenizer its length is an estimate, so the count that the server
reports is what is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apexsim.errors import InputError, nearest
from apexsim.workload.trace import Workload

KINDS = ("ids", "text")
LOWEST, HIGHEST = 1000, 16384  # ids in every vocabulary of 16,384 tokens, clear of the special ones at its start
_TEXT = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city name team minute idea body back face level door art war party"
)
WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is sent for each request of a workload.

    kind: "ids" or "text"; unique: no two prompts share a prefix.  Otherwise blocks of equal hash in the trace become
    equal blocks of tokens, so that a prefix cache on the server hits as it would have in the trace.
    """

    work: Workload
    kind: str = "ids"
    seed: int = 0
    unique: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"unknown kind of prompt '{self.kind}'", "--prompts", nearest(self.kind, KINDS))

    def of(self, request: int) -> str | list[int]:
        """The prompt of a request, by its place in the workload."""
        return self._written(self._ids(request, int(self.work.prompt[request])))

    def spare(self, number: int) -> str | list[int]:
        """A prompt that no request has, of the first request's length, for tries before the run."""
        return self._written(self._drawn((self.seed, 2, number), int(self.work.prompt[0])))

    def _written(self, ids: list[int]) -> str | list[int]:
        return ids if self.kind == "ids" else " ".join(WORDS[i % len(WORDS)] for i in ids)

    def _ids(self, request: int, length: int) -> list[int]:
        hashes = self.work.prefix[request] if self.work.block and not self.unique else ()
        ids: list[int] = []
        for value in hashes[: -(-length // max(self.work.block, 1))]:
            ids += self._drawn((self.seed, 1, value & (2**63 - 1)), self.work.block)
        return ids[:length] + self._drawn((self.seed, 0, request), max(0, length - len(ids)))

    @staticmethod
    def _drawn(key: tuple[int, ...], count: int) -> list[int]:
        drawn: list[int] = np.random.default_rng(key).integers(LOWEST, HIGHEST, count).tolist()
        return drawn
