"""What a kernel is asked for: the shape of its operands, and the FLOP and bytes of it (floor 3).

Every count is of one device.  Pure physics: which tables, GPUs or engines there are is unknown here.

gemm     y[m, n] = x[m, k] · w[k, n]: 2mnk FLOP; bytes m·k·a + n·k·w + 2·m·n with the kernel's formats
decode   b sequences, one new token each over c cached: 4·b·c·h·d FLOP; 2·b·c·g·d·s bytes of cache plus queries, outputs
prefill  b prompts of l tokens from zero: 4·b·h·d·A FLOP, A = l(l+1)/2, or W·l - W(W-1)/2 with a window W < l
         (h heads and g kv heads, d head size, s bytes per cached number)
experts  t tokens, E experts of inner size i over hidden size d, k per token, split tp-fold and ep-fold:
         pairs = t·k / ep        FLOP = 2·M·pairs·d·i/tp            M = 3 matrices when gated, else 2
         experts touched = E/ep · (1 - (1 - k/E)^t)                 bytes = touched·M·d·(i/tp)·w + activations
scan     a state of value_heads × key_dim × value_dim numbers of 4 bytes per sequence; of a decode 2 · state bytes per sequence,
         of a prompt t·value_heads·(8·key_dim·value_dim + 128·(key_dim + value_dim)) FLOP, chunks of 64 tokens
dispatch each of t tokens of a rank goes to the ranks of its k experts in 8 bit and comes back in 16: at most t·min(k, ranks) copies
         leave, of d·(1 + 2) bytes for both ways
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from apexsim.cost.roofline import Array, Kernel

KV_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.0}
LATENT_V, EXPANDED_V = 512 / 576, 128 / 192  # DeepSeek-V2 and later, Kimi K2: latent 512 + 64, heads 128 + 64 and 128
LOADS = {"balanced": 0, "uniform": 0, "power_law_1.01": 101, "power_law_1.2": 120}  # name -> value on the table's axis
REACH, RANKS = 0.8, 64  # of the tokens that the busiest expert of a power law may get; points at which the law is taken
STATE_BYTES = 4.0
BMM_IN, BMM_OUT = 128, 512  # sizes of the absorbed products of the measured latent attention
COPY_BYTES = 3.0  # per number of a token sent to an expert: 8 bit out, 16 bit back


def gemm_work(m: ArrayLike, n: ArrayLike, k: ArrayLike, kernel: Kernel) -> tuple[Array, Array]:
    """FLOP and bytes of a GEMM whose operands and result cross the memory bus once; the result is 16 bit."""
    rows, columns, depth = np.asarray(m, float), np.asarray(n, float), np.asarray(k, float)
    nbytes = rows * depth * kernel.act_bytes + columns * depth * kernel.weight_bytes + 2.0 * rows * columns
    return 2.0 * rows * columns * depth, nbytes


class Heads(NamedTuple):
    """Heads of one device: query heads, kv heads, head size, window (0 = none)."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int = 0


def decode_work(batch: Array, context: Array, shape: Heads, kv_bytes: float) -> tuple[Array, Array]:
    """FLOP and bytes of decode attention."""
    seen = np.minimum(context, shape.window) if shape.window else context
    cache = 2.0 * batch * seen * shape.kv_heads * shape.head_dim * kv_bytes
    return 4.0 * batch * seen * shape.heads * shape.head_dim, cache + 4.0 * batch * shape.heads * shape.head_dim


def area(length: Array, window: float) -> Array:
    """Query-key pairs of a causal prompt: l(l+1)/2, or W·l - W(W-1)/2 beyond a window W."""
    w = np.minimum(length, window) if window else length
    return w * length - w * (w - 1) / 2


def prefill_work(batch: Array, length: Array, shape: Heads, kv_bytes: float) -> tuple[Array, Array]:
    """FLOP and bytes of causal prefill attention."""
    tokens = batch * length * shape.head_dim
    flop = 4.0 * batch * shape.heads * shape.head_dim * area(length, shape.window)
    return flop, tokens * (4.0 * shape.heads + 2 * kv_bytes * shape.kv_heads)


def latent_decode_work(batch: Array, context: Array, shape: Heads, kv_bytes: float) -> tuple[Array, Array]:
    """FLOP and bytes of absorbed latent attention: K is the whole latent (head_dim), V the part without rope (8/9)."""
    flop = 2.0 * batch * context * shape.heads * shape.head_dim * (1 + LATENT_V)
    read = batch * context * shape.head_dim * kv_bytes
    return flop, read + 2.0 * batch * shape.heads * shape.head_dim * (1 + LATENT_V)


def latent_prefill_work(batch: Array, length: Array, shape: Heads, kv_bytes: float) -> tuple[Array, Array]:
    """FLOP and bytes of decompressed latent attention: heads of head_dim for Q and K, of 2/3 of it for V and O."""
    del kv_bytes  # decompressed keys and values are 16 bit
    flop = 2.0 * batch * shape.heads * area(length, shape.window) * shape.head_dim * (1 + EXPANDED_V)
    return flop, 4.0 * batch * length * shape.heads * shape.head_dim * (1 + EXPANDED_V)


def encoder_work(batch: Array, length: Array, shape: Heads, kv_bytes: float) -> tuple[Array, Array]:
    """FLOP and bytes of bidirectional attention."""
    del kv_bytes
    size = batch * length * shape.head_dim * shape.heads
    return 4.0 * size * length, 8.0 * size


ATTENTION: dict[tuple[str, str], Callable[[Array, Array, Heads, float], tuple[Array, Array]]] = {
    ("attention", "decode"): decode_work,
    ("attention", "prefill"): prefill_work,
    ("mla", "decode"): latent_decode_work,
    ("mla", "prefill"): latent_prefill_work,
    ("encoder", "prefill"): encoder_work,
}


class ExpertLayer(NamedTuple):
    """A layer of routed experts: hidden size, inner size of a whole expert, top k, experts, its split, gated or not."""

    hidden: int
    inner: int
    top_k: int
    experts: int
    tp: int = 1
    ep: int = 1
    gated: bool = True

    def features(self) -> Array:
        """What makes two layers alike, as logarithms [5]."""
        return np.log([self.hidden, self.inner / self.tp, self.top_k, self.experts / self.ep, self.ep])


def expert_work(tokens: Array, layer: ExpertLayer, kernel: Kernel) -> tuple[Array, Array]:
    """FLOP and bytes of one rank, uniform routing."""
    matrices = 3.0 if layer.gated else 2.0
    inner = layer.inner / layer.tp
    pairs = tokens * layer.top_k / layer.ep
    touched = layer.experts / layer.ep * -np.expm1(tokens * np.log1p(-layer.top_k / max(layer.experts, layer.top_k + 1)))
    moved = pairs * (layer.hidden * (kernel.act_bytes + 2.0) + inner * (matrices - 1.0) * 2.0)
    return (
        2.0 * matrices * pairs * layer.hidden * inner,
        touched * matrices * layer.hidden * inner * kernel.weight_bytes + moved,
    )


def chosen(tokens: Array, layer: ExpertLayer, load: int) -> Array:
    """Mean share of the experts that any of t tokens [T] chooses.

    Even routing: 1 - (1 - k/E)^t.  A power law: experts are as popular as the quantiles of a density x^-a on 1 … REACH·t, as the tables'
    sampler draws them, and an expert of popularity p is chosen by a token with probability min(1, k·p / sum of p).
    """
    t = np.asarray(tokens, float)
    even = min(1.0, layer.top_k / layer.experts)
    if not load or even == 1.0:
        return np.asarray(-np.expm1(t * np.log1p(-min(even, 1.0 - 1e-12))))
    power = 1.0 - load / 100.0
    top = np.maximum(REACH * t[..., None], 1.0) ** power
    popular = (1.0 + (top - 1.0) * (np.arange(RANKS) + 0.5) / RANKS) ** (1.0 / power)
    each = np.minimum(even * popular / popular.mean(axis=-1, keepdims=True), 1.0 - 1e-12)
    return np.asarray(-np.expm1(t[..., None] * np.log1p(-each)).mean(axis=-1))


def expert_least(tokens: Array, layer: ExpertLayer, kernel: Kernel, load: int = 0) -> tuple[Array, Array]:
    """FLOP and bytes that one rank cannot do without: its pairs, and the weights of its experts that are chosen.

    Prices take even routing, which trained routers come near and by which reports count what was read: the tables' power law leaves a fifth
    of the experts of a step of 128 tokens untouched (a floor for the tables themselves, not for a model)."""
    each = (3.0 if layer.gated else 2.0) * layer.hidden * layer.inner / layer.tp
    weights = layer.experts / layer.ep * chosen(tokens, layer, load) * each * kernel.weight_bytes
    return 2.0 * tokens * layer.top_k / layer.ep * each, weights


def pairs(tokens: Array, layer: ExpertLayer) -> Array:
    """Tokens of a layer's mean expert."""
    return tokens * layer.top_k / layer.experts


class RecurrentState(NamedTuple):
    """Heads of one device and the sizes of their state."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int


def scan_work(phase: str, batch: Array, length: Array, state: RecurrentState) -> tuple[Array, Array]:
    """FLOP and bytes of a scan."""
    size = state.value_heads * state.key_dim * state.value_dim
    tokens = batch * length
    chunk = 128.0 * state.value_heads * (state.key_dim + state.value_dim) if phase == "prefill" else 0.0
    streams = 2.0 * (2 * state.key_heads * state.key_dim + 2 * state.value_heads * state.value_dim)
    return tokens * (8.0 * size + chunk), 2.0 * STATE_BYTES * batch * size + tokens * streams


def bmm_work(tokens: Array, heads: Array, weight_bytes: float = 2.0) -> tuple[Array, Array]:
    """FLOP and bytes of one absorbed product (128 x 512 per head)."""
    weights = heads * BMM_IN * BMM_OUT
    return 2.0 * tokens * weights, weights * weight_bytes + 2.0 * tokens * heads * (BMM_IN + BMM_OUT)


class Routing(NamedTuple):
    """Hidden size, experts per token, experts of the layer, and groups of these that a token's experts lie in (0 = any)."""

    hidden: int
    top_k: int
    experts: int
    kept: int = 0


def met(top_k: int, places: int) -> float:
    """Mean number of `places` that hold any of a token's experts, which lie anywhere: places · (1 - (1 - 1/places)^k)."""
    return float(places * -np.expm1(top_k * np.log1p(-1.0 / places))) if places > 1 else 1.0


def volume(route: Routing, ranks: int) -> float:
    """Bytes that leave a rank per token, both ways."""
    return min(route.top_k, ranks) * route.hidden * COPY_BYTES
