"""Multi-head, grouped-query and multi-query attention, full or windowed, self or cross (floor 2)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from apexsim.model.cell import Cell, Divided, Kernels, Module, Share, portion, under
from apexsim.model.cells.indexer import NO_INDEXER, Indexer
from apexsim.model.ops import ACT, Attend, Collective, Cross, Op, Stream

QK_NORM = Kernels(2, 0, 0, 0)
NORM_BYTES = 8.0  # per token: two sums of squares, of queries and keys, in 32 bit
AT = {"deepseek_v4": "attn", "nemotron_h": "mixer", "dots1": "self_attn"}  # family -> its module in checkpoints


@dataclass(frozen=True, slots=True)
class Attention(Cell):
    """Softmax attention over cached keys and values."""

    name = "attention"
    place = "attention"
    usual = Kernels(3, 6, 6, 6)  # norm, qkv, rotary, cache write, attention, out

    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int = 0  # 0 = head_dim
    window: int = 0  # tokens seen by a sliding window; 0 = all
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: str = ""  # "", "head" (one vector of head_dim each) or "full" (the projected width)
    gate: bool = False  # an output gate doubles the query projection
    sinks: bool = False  # one learned logit per head
    shares_kv: bool = False  # reads another layer's cache and has no key/value projection
    cross: bool = False  # keys and values come from the encoder
    source: int = 0  # cross: tokens of the encoder's output that it reads
    causal: bool = True
    chunk: int = 0  # chunked local attention: tokens per chunk; 0 = none
    qkv_out_extra: int = 0  # parameters not covered above (relative position tables …)
    k_is_v: bool = False  # one projection serves keys and values (both are cached)
    index: Indexer = NO_INDEXER  # block-sparse attention

    @property
    def value_dim(self) -> int:
        """Width of a head's values."""
        return self.v_head_dim or self.head_dim

    def widths(self, tp: int) -> tuple[int, int, int]:
        """Widths of the query (with its gate), key and value projections of one device."""
        kv = 0 if self.shares_kv else self.held_kv_heads(tp)
        queries = ceil(self.heads / tp) * self.head_dim * (2 if self.gate else 1)
        return queries, kv * self.head_dim, 0 if self.k_is_v else kv * self.value_dim

    def held_kv_heads(self, tp: int) -> int:
        """Key/value heads that one device reads: repeated once tp exceeds them."""
        return max(1, ceil(self.kv_heads / tp))

    def count(self, hidden: int, tp: int = 1, ep: int = 1, shared_tp: int = 0) -> dict[str, int]:
        """Projections, biases, norms of queries and keys, sinks and the indexer."""
        heads, (queries, keys, values) = ceil(self.heads / tp), self.widths(tp)
        n = hidden * (queries + keys + values) + heads * self.value_dim * hidden
        n += (queries + keys + values) * self.qkv_bias + hidden * self.out_bias + heads * self.sinks
        norms = {"head": self.head_dim * (1 if self.shares_kv else 2), "full": heads * self.head_dim + keys}
        n += norms.get(self.qk_norm, 0) + self.index.parameters(hidden, hidden) + self.qkv_out_extra
        return {"attention": n}

    def divided(self) -> tuple[Divided, ...]:
        keys = Divided(self.kv_heads, f"{self.kv_heads} key/value heads", repeated=True)
        return Divided(self.heads, f"{self.heads} attention heads"), keys

    def tensors(self, hidden: int, tp: int, ep: int) -> tuple[tuple[str, int], ...]:
        """Query-key-value fused, and out."""
        out = ceil(self.heads / tp) * self.value_dim * hidden
        return ("attention", hidden * sum(self.widths(tp))), ("attention", out)

    def modules(self, hidden: int, family: str) -> list[Module]:
        """Queries, keys, values and out; keys that are values have no second name."""
        sizes = (*self.widths(1), self.heads * self.value_dim)
        names = (("q_proj", "qkv_proj"), ("k_proj", "qkv_proj"), ("v_proj", "qkv_proj"), ("o_proj", "dense", "out_proj"))
        at = AT.get(family, "self_attn")
        return [Module("attention", hidden * n, under(at, w)) for n, w in zip(sizes, names, strict=True) if n]

    def kv_elements(self, tp: int = 1) -> int:
        """Keys and values of the heads held; encoders and layers that read another layer's cache store nothing."""
        return self._elements(tp) if self.causal and not self.cross else 0

    def prompt_elements(self, tp: int = 1) -> int:
        return self._elements(tp) if self.cross else 0

    def _elements(self, tp: int) -> int:
        return 0 if self.shares_kv else self.held_kv_heads(tp) * (self.head_dim + self.value_dim)

    def index_bytes(self) -> float:
        return self.index.key_bytes()

    def kv_window(self) -> int:
        return self.window or self.chunk

    def reach(self) -> tuple[int, int]:
        """A chunk starts on its own block."""
        return (self.kv_window(), 0) if self.chunk else Cell.reach(self)

    def lower(self, share: Share) -> list[Op]:
        """Query-key-value, attention over min(context, window or chunk), out."""
        q, kv = ceil(self.heads / share.tp), self.held_kv_heads(share.tp)
        if self.cross:
            return self._cross(share, q, kv)
        hidden, dim, v_dim = share.hidden, self.head_dim, self.value_dim
        window = min((w for w in (self.window, self.chunk, self.index.top_k) if w), default=0)
        moved = 4 * hidden + 2 * (q + kv) * dim + 2 * kv * (dim + v_dim)  # norm with residual, rotary, cache write
        ops: list[Op] = [
            share.gemm("qkv", "attention", sum(self.widths(share.tp)), hidden),
            Attend("attention", q, kv, dim, v_dim, window, share.kv, self.causal),
            share.gemm("out", "attention", hidden, q * v_dim, after="attention"),
            Stream("elementwise", ACT * moved, share.axis),
        ]
        if self.qkv_out_extra >= hidden and not self.shares_kv:  # gates per head and kin, beside the queries
            ops.append(share.gemm("qkv", "attention", -(-self.qkv_out_extra // hidden // share.tp), hidden))
        if self.qk_norm == "full" and share.tp > 1:  # the norm runs over all heads: their sums of squares are added
            ops.append(Collective("all_reduce", "all_reduce", NORM_BYTES, share.tp, 1, share.axis))
        return [*ops, *self.index.lower(share, hidden, 1)]

    def _cross(self, share: Share, q: int, kv: int) -> list[Op]:
        """Queries of the decoder over keys and values of the encoder's output, which is as wide as the decoder."""
        hidden, dim, v_dim = share.hidden, self.head_dim, self.value_dim
        project = share.gemm("cross keys", "attention", kv * (dim + v_dim), hidden)
        return [
            share.gemm("qkv", "attention", q * dim, hidden),
            Cross("cross attention", q, kv, dim, v_dim, self.source, project, share.kv),
            share.gemm("out", "attention", hidden, q * v_dim, after="attention"),
            Stream("elementwise", ACT * (4 * hidden + 2 * q * dim), share.axis),
        ]

    def kernels(self) -> tuple[Kernels, ...]:
        return (self.usual, *((QK_NORM,) if self.qk_norm else ()), *self.index.kernels())

    def heads_words(self) -> str:
        return f"{self.heads} heads, {self.kv_heads} KV heads"

    def words(self, tp: int, ep: int) -> str:
        """Heads and key/value heads, how often the latter are repeated, and the window."""
        kv = f"{max(1, -(-self.kv_heads // tp))} of {self.kv_heads} KV heads" if tp > 1 else f"{self.kv_heads} KV heads"
        repeated = f" (each on {tp // self.kv_heads} GPUs)" if tp > self.kv_heads else ""
        span = f", window {self.kv_window():,}" if self.kv_window() else ""
        return f"{portion(tp, self.heads)} heads, {kv}{repeated}{span}"
