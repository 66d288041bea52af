"""The indexer of sparse attention: a small scorer that chooses which cached tokens are read (floor 2)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from apexsim.model.cell import Kernels, Share
from apexsim.model.ops import Gemm, Index, Op

BLOCK = 128  # elements of the indexer's FP8 key per fp32 scale (DeepSeek-V3.2)
KERNELS = Kernels(2, 8, 8, 8)  # two projections, key norm, rotary with quantisation, cache write, scores, top-k


@dataclass(frozen=True, slots=True)
class Indexer:
    """Heads, key width and tokens kept (DeepSeek-V3.2 report, 2.1); whole on every device.  0 heads: there is none."""

    heads: int = 0
    dim: int = 0
    top_k: int = 0
    shared: bool = False  # uses another layer's indices: nothing of its own

    @property
    def owned(self) -> bool:
        """Whether the layer has weights, cache and kernels for it."""
        return self.heads > 0 and not self.shared

    def parameters(self, hidden: int, query_width: int) -> int:
        """Index query and key projections, key norm and head weights."""
        if not self.owned:
            return 0
        return query_width * self.heads * self.dim + hidden * self.dim + 2 * self.dim + hidden * self.heads

    def key_bytes(self) -> float:
        """An FP8 key and its scales [byte]."""
        return self.dim + 4.0 * ceil(self.dim / BLOCK) if self.owned else 0.0

    def lower(self, share: Share, rank: int, compress: int) -> list[Op]:
        """Query, key and head-weight projections, scores and top k."""
        if not self.owned:
            return []
        return [
            share.gemm("index", "attention", self.heads * self.dim, rank),
            Gemm("index", self.dim + self.heads, share.hidden, "bf16", 2.0, share.axis),
            Index("index", self.heads, self.dim, max(1, compress)),
        ]

    def kernels(self) -> tuple[Kernels, ...]:
        """Its kernels, where it has any."""
        return (KERNELS,) if self.owned else ()


NO_INDEXER = Indexer()
