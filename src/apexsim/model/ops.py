"""Priced things: what one device does in one layer of one step (floor 1).

An `Op` says what is computed, never how long it takes.  Every count is *per device*, already divided by the layout.
`axis` says which number of tokens an op sees:

    LANE      tokens of one attention lane (cell-level data parallel attention has several lanes)
    TOTAL     tokens of all lanes together, divided evenly over `split` replicas of the cell
    SEQUENCE  sampled sequences of the step (LM head, sampler)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

ACT = 2.0  # bytes of an activation between kernels: engines keep the residual stream in 16 bit
SKEW = 0.5  # the experts of a layer are as popular as i^-SKEW, i = 1, 2, …; python scripts/fit_load.py finds it on measured runs


class Axis(IntEnum):
    """Which count of the step an op grows with."""

    LANE = 0
    TOTAL = 1
    SEQUENCE = 2


@dataclass(frozen=True, slots=True)
class Gemm:
    """y[m, n] = x[m, k] · w[k, n], m tokens.  `kernel` is the GEMM kernel's dtype key, `weight_bytes` [byte/parameter]."""

    label: str  # op class of the breakdown: "qkv", "out", "ffn", "head", …
    n: int
    k: int
    kernel: str = "bf16"  # bf16, fp32, fp8 (per tensor), fp8_block, nvfp4, w8a16, w4a16 …
    weight_bytes: float = 2.0
    axis: Axis = Axis.TOTAL
    split: int = 1
    after: str = ""  # "norm", "attention" or "activation": what wrote the activations, where these get their scales at run time
    only: str = ""  # "decode" or "prompt" where only steps of that kind run it
    beside: bool = False  # captured steps run it on a second stream, see `Grouped.beside`
    parts: int = 1  # products that it is in the checkpoint, and in engines that do not join these
    aside: bool = False  # small, with a larger product of the same input to run beside on a second stream


@dataclass(frozen=True, slots=True)
class Attend:
    """Attention of one device's heads over cached keys and values (prefill and decode kernels)."""

    label: str
    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    window: int = 0  # 0 = full attention
    kv_dtype: str = "bf16"
    causal: bool = True


@dataclass(frozen=True, slots=True)
class Cross:
    """Attention over the encoder's output: every token of a request reads the same `source` tokens, whose keys and values
    `project` makes once per request."""

    label: str
    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    source: int
    project: Gemm
    kv_dtype: str = "bf16"


@dataclass(frozen=True, slots=True)
class Mla:
    """Latent attention: absorbed decode over the latent, decompressed prefill.

    A token sees min(context, top_k) tokens, or with `compress` its `window` and min(context / compress, top_k) latents.
    direct: the latent itself is key and value of all heads, so nothing is absorbed, and prompts read it as decodes do.
    """

    label: str
    heads: int
    kv_rank: int
    rope_dim: int
    nope_dim: int
    v_dim: int
    kv_dtype: str = "bf16"
    top_k: int = 0  # sparse attention reads at most this many tokens
    window: int = 0
    compress: int = 0
    direct: bool = False
    axis: Axis = Axis.TOTAL


@dataclass(frozen=True, slots=True)
class Index:
    """Indexer of sparse attention: scores of all cached keys (8 bit), then the top k of them.  Never divided over tp."""

    label: str
    heads: int
    dim: int
    compress: int = 1  # tokens per key


@dataclass(frozen=True, slots=True)
class Grouped:
    """Routed experts of one device: grouped GEMMs over the experts it holds.

    beside: the shared experts, which captured steps run on a second stream: the longer of both counts, not the sum;
    sent: tokens travel to their experts, so that a device meets its own pairs alone; skew: exponent of the experts' popularity.
    """

    label: str
    hidden: int
    inner: int  # of a whole expert, before tp
    experts: int  # in the whole layer
    top_k: int
    tp: int
    ep: int
    gated: bool = True
    kernel: str = "bf16"
    weight_bytes: float = 2.0
    axis: Axis = Axis.TOTAL
    split: int = 1
    beside: tuple[Gemm, ...] = ()
    sent: bool = False
    skew: float = SKEW


@dataclass(frozen=True, slots=True)
class Scan:
    """Linear attention or state space update of one device's heads."""

    label: str
    kind: str  # "gdn", "mamba2", "kda"
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    axis: Axis = Axis.TOTAL
    split: int = 1


@dataclass(frozen=True, slots=True)
class Stream:
    """Element-wise work that only moves bytes (norms, rotary, activation, residual)."""

    label: str
    bytes_per_token: float
    axis: Axis = Axis.TOTAL
    split: int = 1


@dataclass(frozen=True, slots=True)
class Collective:
    """One collective of `group` devices `stride` apart; `bytes_per_token` of the full (gathered) tensor.

    route: (hidden size, experts per token, experts, groups of these that a token's lie in or 0) where tokens travel to their experts and
    back in one call.
    """

    label: str
    kind: str  # all_reduce, all_gather, reduce_scatter, all_to_all, send
    bytes_per_token: float
    group: int
    stride: int = 1
    axis: Axis = Axis.TOTAL
    split: int = 1
    route: tuple[int, int, int, int] | None = None


Op = Gemm | Attend | Cross | Mla | Index | Grouped | Scan | Stream | Collective


@dataclass(frozen=True, slots=True)
class Layer:
    """The ops of one layer on one device, with the host-side counts.

    gaps: small kernels without a table, each leaving a gap between two measured ones;
    launches, decode_launches: host launch units of an eager forward that holds prompts, and of one that only decodes;
    compiled_launches: of the former where the engine compiles the model.
    """

    ops: tuple[Op, ...]
    gaps: int
    launches: int
    decode_launches: int
    compiled_launches: int
