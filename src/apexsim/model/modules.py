"""The linear modules of a model under the names that checkpoints give them, and which of them a pattern names (floor 2).

Only names that tell formats apart count: each family's names of attention, FFN and experts, with synonyms side by side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from functools import lru_cache
from re import _constants as sre_constants  # type: ignore[attr-defined]
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any

from apexsim.errors import InputError
from apexsim.model.cell import Module
from apexsim.model.model import Model

PREFIXES = ("model.", "model.language_model.", "language_model.model.", "")  # of "layers.N…" in whole paths


def modules(model: Model) -> Iterator[tuple[int, Module]]:
    """(layer, module) of the generating stack."""
    stack = model.decoder
    blocks = [[m for cell in b.cells for m in cell.modules(stack.hidden, model.family)] for b in stack.blocks]
    for layer, index in enumerate(stack.layers):
        for module in blocks[index]:
            yield layer, module


HEAD = Module("head", 1, ("lm_head", "head"))


class Patterns:
    """Module names, wildcards and "re:" expressions, sorted by the layer that they name.

    Where none of them holds a digit they cannot tell one layer from another whose number has as many digits.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = dict.fromkeys(patterns)
        self.tells_layers = any(char.isdigit() for pattern in patterns for char in pattern)
        self.known: dict[tuple[int | None, str], bool] = {}
        self.plain: set[str] = set()
        self.tests: dict[int | None, list[re.Pattern[str]]] = {}
        self.whole: list[re.Pattern[str]] = []
        for pattern in patterns:
            self._add(pattern)

    def _add(self, pattern: str) -> None:
        if pattern.startswith("re:"):
            self.whole.append(_compiled(pattern[3:]))
            return
        plain = re.sub(r"^.*?(?=layers\.)", "", pattern).rstrip(".")
        layer = re.match(r"layers\.(\d+)\.", plain)
        if not set(plain) & set("*?["):
            self.plain.add(plain)
        else:
            self.tests.setdefault(int(layer[1]) if layer else None, []).append(re.compile(translate(plain + "*")))

    def names(self, layer: int | None, module: Module) -> bool:
        """Does any pattern name the module of a layer (None: outside of the layers)?"""
        return any(self._path(layer, path) for path in module.paths)

    def _path(self, layer: int | None, path: str) -> bool:
        if self.tells_layers or layer is None:
            return self._named(layer, path)
        key = len(str(layer)), path
        if key not in self.known:
            self.known[key] = self._named(layer, path)
        return self.known[key]

    def _named(self, layer: int | None, path: str) -> bool:
        full = path if layer is None else f"layers.{layer}.{path}"
        words = full.split(".")
        if any(".".join(words[i:j]) in self.plain for i in range(len(words)) for j in range(i + 1, len(words) + 1)):
            return True
        if any(test.match(full) for key in (layer, None) for test in self.tests.get(key, ())):
            return True
        return any(test.match(prefix + full) for test in self.whole for prefix in PREFIXES)


REPEATS = 6  # parts of an expression without an end that stand behind each other: names are short, yet n^k steps are many


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> re.Pattern[str]:
    """An expression of a config; raises InputError where it is none, or might not come to an end."""
    where = f"expression '{expression[:60]}'"
    try:
        found = re.compile(expression)
        tree = sre_parser.parse(expression)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"is no regular expression: {error}", where) from None
    if _endless(tree) > REPEATS:
        raise InputError("repeats within repeats: it might not come to an end", where, "write it without nested * or +")
    return found


def _endless(tree: Iterable[Any]) -> int:
    """Repeats without an end that a name may have to be tried against together.  One within another counts as too many where nothing
    fixed stands between two turns of the outer one, so that a text can be dealt to both in many ways."""
    found = 0
    for kind, told in tree:
        if kind in (sre_constants.MAX_REPEAT, sre_constants.MIN_REPEAT, sre_constants.POSSESSIVE_REPEAT):
            inner, most = _endless(told[2]), told[1]
            blind = inner and not _fixed(told[2])
            found += inner if most == 1 else REPEATS + 1 if blind and most > REPEATS else inner * most if blind else inner + 1
        elif kind is sre_constants.BRANCH:
            found += max(map(_endless, told[1]), default=0)
        elif kind in (sre_constants.SUBPATTERN, sre_constants.ASSERT, sre_constants.ASSERT_NOT):
            found += _endless(told[-1])
        elif kind is sre_constants.ATOMIC_GROUP:
            found += _endless(told)
    return found


def _fixed(tree: Iterable[Any]) -> bool:
    """Whether a character stands in it that must be met."""
    return any(kind is sre_constants.LITERAL or (kind is sre_constants.SUBPATTERN and _fixed(told[-1])) for kind, told in tree)
