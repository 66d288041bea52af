"""The linear modules of a model under the names that checkpoints give them, and which of them a pattern names (floor 2).

Only names that tell formats apart count: each family's names of attention, FFN and experts, with synonyms side by side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from apexsim.model.cells import parameters
from apexsim.model.model import Attention, Cell, Experts, Ffn, LatentAttention, LinearAttention, Model

PREFIXES = ("model.", "model.language_model.", "language_model.model.", "")  # of "layers.N…" in whole paths
EXPERTS_AT = {  # family -> the path of routed experts, where it is not the usual one
    "mixtral": "block_sparse_moe.experts.0", "minimax_m2": "block_sparse_moe.experts.0", "phimoe": "block_sparse_moe.experts.0",
    "granitemoe": "block_sparse_moe.experts.0", "granitemoehybrid": "block_sparse_moe.experts.0", "gemma4_text": "experts",
    "deepseek_v4": "ffn.experts.0", "llama4_text": "feed_forward.experts", "nemotron_h": "mixer.experts.0", "dbrx": "ffn.experts",
    "jamba": "feed_forward.experts.0",
}  # fmt: skip
FFN_AT = {"deepseek_v4": "ffn", "llama4_text": "feed_forward", "nemotron_h": "mixer", "jamba": "feed_forward", "lfm2": "feed_forward"}
MIXER_AT = {"deepseek_v4": "attn", "nemotron_h": "mixer", "dots1": "self_attn"}
SCAN_AT = {"nemotron_h": "mixer", "bamba": "mamba", "falcon_h1": "mamba", "granitemoehybrid": "mamba", "jamba": "mamba"}
GATE, UP, DOWN = ("gate_proj", "gate_up_proj", "w1", "fc1"), ("up_proj", "gate_up_proj", "w3", "fc1"), ("down_proj", "w2", "fc2")


@dataclass(frozen=True, slots=True)
class Module:
    """Linear weights that one name stands for: their part, how many, and their paths below "layers.N."."""

    part: str
    size: int
    paths: tuple[str, ...]


def modules(model: Model) -> Iterator[tuple[int, Module]]:
    """(layer, module) of the generating stack."""
    stack = model.decoder
    blocks = [[m for cell in b.cells for m in _modules(cell, stack.hidden, model.family)] for b in stack.blocks]
    for layer, index in enumerate(stack.layers):
        for module in blocks[index]:
            yield layer, module


def _modules(cell: Cell, hidden: int, family: str) -> list[Module]:
    match cell:
        case Attention():
            at, dim, value = MIXER_AT.get(family, "self_attn"), cell.head_dim, cell.v_head_dim or cell.head_dim
            kv = 0 if cell.shares_kv else cell.kv_heads
            sizes = (cell.heads * dim * (2 if cell.gate else 1), kv * dim, 0 if cell.k_is_v else kv * value, cell.heads * value)
            names = (("q_proj", "qkv_proj"), ("k_proj", "qkv_proj"), ("v_proj", "qkv_proj"), ("o_proj", "dense", "out_proj"))
            return [Module("attention", hidden * n, _under(at, w)) for n, w in zip(sizes, names, strict=True) if n]
        case LatentAttention():
            at, width, rank = MIXER_AT.get(family, "self_attn"), cell.nope_dim + cell.rope_dim, cell.q_rank or hidden
            found: list[tuple[tuple[str, ...], int]] = [(("q_b_proj", "q_proj", "wq_b"), rank * cell.heads * width)]
            found += [(("q_a_proj", "fused_qkv_a_proj", "wq_a"), hidden * cell.q_rank)] if cell.q_rank else []
            found += [(("kv_a_proj_with_mqa", "fused_qkv_a_proj", "wkv"), hidden * (cell.kv_rank + cell.rope_dim))]
            found += [] if cell.shared_kv else [(("kv_b_proj",), cell.kv_rank * cell.heads * (cell.nope_dim + cell.v_dim))]
            out = cell.heads * cell.v_dim * (cell.o_rank if cell.o_groups else hidden)
            return [Module("attention", n, _under(at, w)) for w, n in [*found, (("o_proj", "wo_a"), out)]]
        case LinearAttention():
            return _scan(cell, SCAN_AT.get(family, "linear_attn"))
        case Experts():
            return _experts(cell, hidden, family)
        case Ffn():
            at, one = FFN_AT.get(family, "mlp"), hidden * cell.inner
            gate = [Module("ffn", one, _under(at, GATE))] if cell.gated else []
            return [*gate, Module("ffn", one, _under(at, UP)), Module("ffn", one, _under(at, DOWN))]


def _under(at: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{at}.{name}" for name in names)


def _scan(cell: LinearAttention, at: str) -> list[Module]:
    """The projections in, of gates and out; a cell that does not list them counts as one."""
    sizes = [n * k for n, k in cell.projections] or [cell.parameters]
    inward = ("in_proj_qkvz", "in_proj_qkv", "in_proj_z", "in_proj", "q_proj", "k_proj", "v_proj")
    names = [inward, *[("in_proj_ba", "in_proj_a", "in_proj_b")] * (len(sizes) - 2), ("out_proj", "o_proj")]
    return [Module("attention", n, _under(at, w)) for n, w in zip(sizes, names[: len(sizes)], strict=True)]


def _experts(cell: Experts, hidden: int, family: str) -> list[Module]:
    counts, base = parameters(cell, hidden), EXPERTS_AT.get(family, "mlp.experts.0")
    inner = FFN_AT.get(family, "mlp")
    fused = dict.fromkeys((base, base.removesuffix(".0")))
    found = [Module("experts", counts["experts"], (*_under(base, (*GATE, *UP, *DOWN)), *(f"{p}.gate_up_proj" for p in fused)))]
    if counts["shared"]:
        names = ("shared_experts", "shared_expert")
        found.append(Module("shared", counts["shared"], tuple(p for s in names for p in _under(f"{inner}.{s}", (*GATE, *DOWN)))))
    return found


HEAD = Module("head", 1, ("lm_head", "head"))


class Patterns:
    """Module names, wildcards and "re:" expressions, sorted by the layer that they name."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.plain: set[str] = set()
        self.tests: dict[int | None, list[re.Pattern[str]]] = {}
        self.whole: list[re.Pattern[str]] = []
        for pattern in dict.fromkeys(patterns):
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
        full = path if layer is None else f"layers.{layer}.{path}"
        words = full.split(".")
        if any(".".join(words[i:j]) in self.plain for i in range(len(words)) for j in range(i + 1, len(words) + 1)):
            return True
        if any(test.match(full) for key in (layer, None) for test in self.tests.get(key, ())):
            return True
        return any(test.match(prefix + full) for test in self.whole for prefix in PREFIXES)


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except re.error:
        return re.compile(re.escape(expression))
