"""Multi-head latent attention (MLA), sparse (DSA) with an indexer, or compressed (floor 2)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from apexsim.model.cell import Cache, Cell, Divided, Kernels, Module, Share, portion, under
from apexsim.model.cells.attention import AT
from apexsim.model.cells.indexer import NO_INDEXER, Indexer
from apexsim.model.ops import ACT, Mla, Op, Stream

BLOCK, OF_WINDOW, SCALES = 256, 64, 8  # tokens of a block, and of the window's; bytes of a latent's scales


@dataclass(frozen=True, slots=True)
class LatentAttention(Cell):
    """Attention whose keys and values are read out of one latent per token (or per `compress` tokens)."""

    name = "latent attention"
    place = "attention"
    usual = Kernels(3, 16, 16, 6)  # two low-rank pairs with norms, absorbed products, rotary, cache write

    heads: int
    q_rank: int  # 0 = queries projected directly
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int
    index: Indexer = NO_INDEXER
    window: int = 0  # tokens kept uncompressed (compressed latent attention)
    compress: int = 0  # tokens per cached latent beyond the window; 0 = none
    shared_kv: bool = False  # the latent itself is key and value of all heads: no up-projection
    o_groups: int = 0  # grouped low-rank output projection: groups and rank of each; 0 = one full projection
    o_rank: int = 0
    sinks: bool = False  # one learned logit per head
    gate: bool = False  # an output gate of heads x v_dim
    extra: int = 0

    @property
    def qk_dim(self) -> int:
        """Width of a head's queries and keys."""
        return self.nope_dim + self.rope_dim

    def latent_width(self) -> int:
        """The latent and its rotary key."""
        return self.kv_rank + self.rope_dim

    def up(self, tp: int) -> int:
        """Parameters of the key and value up-projections on one device."""
        return self.kv_rank * ceil(self.heads / tp) * (self.nope_dim + self.v_dim)

    def count(self, hidden: int, tp: int = 1, ep: int = 1, shared_tp: int = 0) -> dict[str, int]:
        """Low-rank pairs with their norms, out, sinks, gates and the indexer."""
        heads, rank = ceil(self.heads / tp), self.q_rank or hidden
        n = (hidden * self.q_rank + self.q_rank) if self.q_rank else 0  # down-projection and its norm
        n += rank * heads * self.qk_dim
        n += hidden * self.latent_width() + self.kv_rank
        n += 0 if self.shared_kv else self.up(tp)
        n += heads * self.v_dim * (self.o_rank if self.o_groups else hidden)
        n += ceil(self.o_groups / tp) * self.o_rank * hidden
        n += heads * self.sinks + hidden * heads * self.v_dim * self.gate
        return {"attention": n + self.index.parameters(hidden, rank) + self.extra}

    def divided(self) -> tuple[Divided, ...]:
        return (Divided(self.heads, f"{self.heads} attention heads"),)

    def tensors(self, hidden: int, tp: int, ep: int) -> tuple[tuple[str, int], ...]:
        """Both down-projections fused, two up-projections, out."""
        heads, rank = ceil(self.heads / tp), self.q_rank or hidden
        down = hidden * (self.q_rank + self.latent_width())
        sizes = (down, rank * heads * self.qk_dim, self.up(tp), heads * self.v_dim * hidden)
        return tuple(("attention", n) for n in sizes)

    def absorbed(self, tp: int) -> int:
        """The key and value up-projections once more, for absorbed decode."""
        return 0 if self.shared_kv else self.up(tp)

    def modules(self, hidden: int, family: str) -> list[Module]:
        """Down- and up-projections and out, under DeepSeek's names."""
        rank, at = self.q_rank or hidden, AT.get(family, "self_attn")
        found: list[tuple[tuple[str, ...], int]] = [(("q_b_proj", "q_proj", "wq_b"), rank * self.heads * self.qk_dim)]
        found += [(("q_a_proj", "fused_qkv_a_proj", "wq_a"), hidden * self.q_rank)] if self.q_rank else []
        found += [(("kv_a_proj_with_mqa", "fused_qkv_a_proj", "wkv"), hidden * self.latent_width())]
        found += [] if self.shared_kv else [(("kv_b_proj",), self.up(1))]
        out = self.heads * self.v_dim * (self.o_rank if self.o_groups else hidden)
        return [Module("attention", n, under(at, w)) for w, n in [*found, (("o_proj", "wo_a"), out)]]

    def kv_elements(self, tp: int = 1) -> int:
        """The latent, whole on every device; compressed, one per `compress` tokens."""
        return ceil(self.latent_width() / max(1, self.compress))

    def index_bytes(self) -> float:
        """The indexer's key of each token, or of `compress` tokens."""
        return self.index.key_bytes() / max(1, self.compress)

    def kv_window(self) -> int:
        """Its window; where older tokens are compressed the window counts in `state_bytes`."""
        return 0 if self.compress else self.window

    def caches(self) -> tuple[Cache, ...]:
        """Of a latent that is its own key and value: the window, the compressed latents and index keys, and what the compressors keep.

        Pages as in vLLM 0.25: a latent in 8 bit with a 16-bit rotary part and its scales, blocks of BLOCK tokens, and of OF_WINDOW in the
        window; a compressor keeps keys and gates of its window in 32 bit, two windows where they overlap (ratio 4)."""
        if not self.shared_kv or not self.window:
            return ()
        entry, found = self.kv_rank + 2 * self.rope_dim + SCALES, [Cache(OF_WINDOW, self.window, 0)]
        found[0] = found[0]._replace(page=OF_WINDOW * entry)
        if not self.compress:
            return tuple(found)
        overlap, kept = (2, 4) if self.index.top_k else (1, 8)  # windows of a compressor, tokens of a block of what it keeps
        sizes = [(entry, self.latent_width())]
        sizes += [(self.index.dim + 4, self.index.dim)] if self.index.top_k else []
        for stored, width in sizes:
            found += [Cache(BLOCK, 0, BLOCK // self.compress * stored)]
            found += [Cache(kept, overlap * self.compress, kept * 2 * overlap * width * 4)]
        return tuple(found)

    def state_bytes(self, tp: int = 1) -> float:
        """The uncompressed recent window, in 16 bit."""
        return 2.0 * self.window * self.latent_width() if self.compress > 0 else 0.0

    def lower(self, share: Share) -> list[Op]:
        """Low-rank queries, latent, absorbed or decompressed attention, out."""
        heads, latent, hidden = ceil(self.heads / share.tp), self.latent_width(), share.hidden
        moved = 4 * hidden + 2 * (self.q_rank + latent) + 2 * heads * self.qk_dim + 2 * latent
        return [
            *self._inward(share, heads),
            Mla("attention", heads, self.kv_rank, self.rope_dim, self.nope_dim, self.v_dim, share.kv, self.index.top_k,
                self.window, self.compress, self.shared_kv, share.axis),
            *self.index.lower(share, self.q_rank or hidden, self.compress),
            *self._outward(share, heads),
            Stream("elementwise", ACT * moved, share.axis),
        ]  # fmt: skip

    def _inward(self, share: Share, heads: int) -> list[Op]:
        """Products that make queries, the latent, and for prompts the keys and values."""
        hidden, latent, queries = share.hidden, self.latent_width(), heads * self.qk_dim
        products = [(self.q_rank + latent, hidden), (queries, self.q_rank)] if self.q_rank else [(queries + latent, hidden)]
        ops: list[Op] = [share.gemm("qkv", "attention", n, k) for n, k in products]
        if not self.shared_kv:
            ops.append(share.gemm("qkv", "attention", heads * (self.nope_dim + self.v_dim), self.kv_rank, only="prompt"))
        if self.gate:
            ops.append(share.gemm("qkv", "attention", heads * self.v_dim, hidden))
        if self.extra >= hidden:  # compressors of keys and values, whole on every device
            ops.append(share.gemm("qkv", "attention", self.extra // hidden, hidden))
        return ops

    def _outward(self, share: Share, heads: int) -> list[Op]:
        """One product, or one of low rank for each group of heads and one that joins them."""
        width = heads * self.v_dim
        ops: list[Op] = []
        if self.o_groups:
            ops.append(share.gemm("out", "attention", self.o_rank, width, after="attention"))
            width = ceil(self.o_groups / share.tp) * self.o_rank
        return [*ops, share.gemm("out", "attention", share.hidden, width, after="attention")]

    def kernels(self) -> tuple[Kernels, ...]:
        return (self.usual, *self.index.kernels())

    def words(self, tp: int, ep: int) -> str:
        return f"{portion(tp, self.heads)} heads, the whole latent"
