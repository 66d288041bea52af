"""What a model *is*: stacks of layers, each layer a block of cells (floor 1).

Cells carry dimensions only.  How a cell counts parameters, stores cache and lowers to ops lives in `cells`;
which cells a `config.json` means lives in `families`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Attention:
    """Multi-head, grouped-query or multi-query attention, full or windowed, self or cross."""

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
    index_heads: int = 0  # block-sparse attention: the indexer's heads, key width and tokens kept
    index_dim: int = 0
    index_top_k: int = 0
    index_shared: bool = False  # uses another layer's indices


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (MLA); with an indexer it is sparse (DSA)."""

    heads: int
    q_rank: int  # 0 = queries projected directly
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int
    index_heads: int = 0
    index_dim: int = 0
    index_top_k: int = 0
    index_shared: bool = False  # uses another layer's indices
    window: int = 0  # tokens kept uncompressed (compressed latent attention)
    compress: int = 0  # tokens per cached latent beyond the window; 0 = none
    shared_kv: bool = False  # the latent itself is key and value of all heads: no up-projection
    o_groups: int = 0  # grouped low-rank output projection: groups and rank of each; 0 = one full projection
    o_rank: int = 0
    sinks: bool = False  # one learned logit per head
    gate: bool = False  # an output gate of heads x v_dim
    extra: int = 0


@dataclass(frozen=True, slots=True)
class Ffn:
    """Dense feed-forward layer."""

    inner: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Experts:
    """Routed experts, optionally with always-active shared experts beside them."""

    experts: int
    top_k: int
    inner: int
    gated: bool = True
    bias: bool = False
    shared_inner: int = 0
    shared_gate: bool = False  # a learned scalar gate on the shared expert
    router_bias: bool = False
    capacity: float = 0.0  # 0 = no capacity factor
    latent: int = 0  # routed experts work in this width between two projections; 0 = hidden
    extra: int = 0


@dataclass(frozen=True, slots=True)
class LinearAttention:
    """A recurrent mixer: Gated DeltaNet, Mamba2 or KDA."""

    kind: str  # "gdn", "mamba2", "kda"
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv: int = 4
    groups: int = 1
    state_width: int = 4  # bytes per number of the recurrent state
    parameters: int = 0  # exact count from the family function
    projections: tuple[tuple[int, int], ...] = ()  # (n, k) of its GEMMs, whole layer


Cell = Attention | LatentAttention | Ffn | Experts | LinearAttention


@dataclass(frozen=True, slots=True)
class Block:
    """One kind of layer: its cells in order, and the parameters of its norms."""

    cells: tuple[Cell, ...]
    norm_parameters: int = 0
    parallel: bool = False  # attention and FFN read the same input and share one reduction


@dataclass(frozen=True, slots=True)
class Stack:
    """A run of layers: `layers[i]` is the index into `blocks` of layer i."""

    role: str  # "decoder" or "encoder"
    hidden: int
    blocks: tuple[Block, ...]
    layers: tuple[int, ...]
    source_length: int = 0  # encoder: fixed input length in tokens, 0 = the prompt
    front: tuple[tuple[int, int], ...] = ()  # (n, k) of the products that make one input position of an encoder


@dataclass(frozen=True, slots=True)
class Model:
    """A language model as its `config.json` describes it."""

    name: str
    family: str
    vocab: int
    max_length: int
    stacks: tuple[Stack, ...]
    tied: bool = False
    position_rows: int = 0  # learned position embeddings
    embed_dim: int = 0  # 0 = hidden
    head_bias: bool = False
    final_norm_parameters: int = 0
    rope_dim: int = 0  # rotary width of the cos/sin cache, all tables and longer ones counted; 0 = none
    vision: Any = None  # a model.vision.Vision, where images can be given
    deepstack: int = 0  # first layers that the vision tower feeds besides the embedding
    has_head: bool = True  # False: an encoder that answers with vectors
    extra_parameters: int = 0  # anything else that is loaded (towers, projections between stacks …)
    extra_parts: tuple[tuple[str, int], ...] = ()  # named shares of extra_parameters ("vision", n) …
    outside_parts: tuple[tuple[str, int], ...] = ()  # not in the total: ("mtp", n), towers published apart
    weight_dtypes: tuple[tuple[str, str], ...] = field(default=())  # part -> dtype where the config quantises
    kv_dtype: str = ""  # "" = the config does not say
    unread: str = ""  # what its quantisation says that is not known: weights, KV cache; the user's formats decide
    unread_kv: str = ""
    dtype: str = "bf16"
    notes: tuple[str, ...] = ()
    source: str = ""

    @property
    def decoder(self) -> Stack:
        """The generating stack (for encoder-only models: their only stack)."""
        return self.stacks[-1]

    @property
    def hidden(self) -> int:
        """Width of the generating stack."""
        return self.decoder.hidden
