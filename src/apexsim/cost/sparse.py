"""Attention that does not read the whole context: indexers, top-k and compressed latents (floor 3).

Per query token over c cached ones, an indexer with H heads of d numbers and one 8-bit key per r tokens takes
    scores   3.6 µs + max(2·H·d·c/r FLOP / 42 % of the FP8 peak, c/r·(d + 8) bytes / 80 % of the bandwidth)
    top k    4 µs + 4·c/r bytes / 20 % of the bandwidth
and attention then sees s = min(c, k) tokens, or with compression min(c, window) + min(c/r, k) latents:
    FLOP = 2·h·s·(latent + value)   bytes = s·latent·(bytes of the cache)   (decode, absorbed)
Decode attention itself comes from the measured latent kernel at s.  Prompts longer than k attend in absorbed form from their first token
(shorter ones are decompressed): each token costs 2·max(h, padded)·k·(latent + value) FLOP at 55 % of the 16-bit peak, since the kernels
work on 64 heads at least, on 128 where Blackwell reads a 16-bit cache.  Formulas, labelled roofline.

The shares are medians of the indexer kernels of SGLang 0.5.14 (DeepGEMM scores 0.37–0.44, fused top k 0.12–0.38) with more
than 1e8 scores on H100, H200, B200 and B300, in aiconfigurator-core 0.12.0 (Apache-2.0).  Below 1e6 scores they take up to
twice as long.  The padding and the 55 % come from the whole modules of DeepSeek-V3.2 there (SGLang, 4,096 to 8,192 tokens, 16 to
128 heads, H200 and B200; 46 to 63 % after projections and indexer are taken off): 8,192 tokens on H200 take 5.9 ms with 16 heads,
6.9 with 64 and 12.1 with 128.  Ignored: gathering scattered pages, block granularity of the top k, other engines' kernels.
"""

from __future__ import annotations

import numpy as np

from apexsim.cost import attention
from apexsim.cost.attention import latent
from apexsim.cost.bank import Bank
from apexsim.cost.roofline import BYTE_SHARE, FLOP_SHARE, LAUNCH, Array, Priced, Provenance, labelled, worst
from apexsim.model.ops import Index, Mla

SCALE, SCORE = 4.0, 4.0  # bytes of a key's scale, and of a score
PEAK_SHARE, TOP_SHARE = 0.42, 0.20  # of the FP8 peak that scores reach, of the bandwidth that the top k reaches
SPARSE_SHARE = 0.55  # of the 16-bit peak that attention over the best k of a prompt reaches, on its padded heads
PADDED, PADDED_WIDE = 64, 128  # heads that its kernels work on at least; those of Blackwell on a 16-bit cache
SCORES_LAUNCH, TOP_LAUNCH = 3.6e-6, 4.0e-6  # [s]


def seen(op: Mla, context: Array) -> Array:
    """Latents that a token reads: min(c, k), or the window and what is left of the compressed rest."""
    if op.compress > 0:
        rest = context / op.compress
        return np.minimum(context, op.window) + (np.minimum(rest, op.top_k) if op.top_k else rest)
    limit = op.top_k or (op.window if op.direct else 0)
    return np.minimum(context, limit) if limit else context


def index_decode(bank: Bank, op: Index, batch: Array, context: Array) -> Priced:
    """Seconds [d, c] of scores and top k for one new token per sequence."""
    keys = batch * context / op.compress
    moved = keys * (op.dim + SCALE + SCORE) / (BYTE_SHARE * bank.peaks.bandwidth)
    seconds = np.maximum(_scores(bank, op, keys), moved) + _best(bank, keys) + SCORES_LAUNCH + TOP_LAUNCH
    return labelled(seconds, Provenance.ROOFLINE)


def _scores(bank: Bank, op: Index, pairs: Array) -> Array:
    """Seconds of the products of so many query-key pairs."""
    return 2.0 * op.heads * op.dim * pairs / (PEAK_SHARE * bank.peaks.rate("fp8"))


def _best(bank: Bank, pairs: Array) -> Array:
    """Seconds of finding the top k among so many scores."""
    return SCORE * pairs / (TOP_SHARE * bank.peaks.bandwidth)


def index_prefill(bank: Bank, op: Index, length: Array) -> tuple[Priced, float]:
    """Marginal seconds [x] of one prompt, and the launch of both kernels."""
    pairs = length * (length + 1.0) / 2.0 / op.compress
    return labelled(_scores(bank, op, pairs) + _best(bank, pairs), Provenance.ROOFLINE), SCORES_LAUNCH + TOP_LAUNCH


def _absorbed(op: Mla) -> float:
    """FLOP per query token and latent read."""
    value = op.v_dim if op.direct else op.kv_rank
    return 2.0 * op.heads * (op.kv_rank + op.rope_dim + value)


def mla_decode(bank: Bank, op: Mla, batch: Array, context: Array) -> Priced:
    """Seconds [d, c] of absorbed decode over the latents that are read."""
    ask = latent("decode", op.heads, op.kv_rank + op.rope_dim, op.kv_dtype)
    return attention.price(bank, ask, batch, np.maximum(seen(op, context), 1.0))


def mla_prefill(bank: Bank, op: Mla, length: Array) -> tuple[Priced, float]:
    """Marginal seconds [x] of one prompt, and the launch of its kernel."""
    rate = FLOP_SHARE * bank.peaks.rate("bf16")
    if op.direct:
        grid = np.arange(0.0, float(length.max()) + 64.0, 64.0)
        read = seen(op, grid)
        area = np.r_[0.0, np.cumsum((read[1:] + read[:-1]) * 32.0)]
        return labelled(_absorbed(op) * np.interp(length, grid, area) / rate, Provenance.ROOFLINE), LAUNCH
    ask = latent("prefill", op.heads, op.nope_dim + op.rope_dim, op.kv_dtype)
    launch = attention.launch(bank, ask)
    if not op.top_k or length.max() <= op.top_k:
        return attention.marginal(bank, ask, length), launch
    inside = attention.marginal(bank, ask, np.minimum(length, op.top_k))
    sparse = np.where(length > op.top_k, length * _sparse_token(bank, op), 0.0)
    label = np.where(length > op.top_k, worst(inside.provenance, Provenance.ROOFLINE), inside.provenance).astype(np.int8)
    return Priced(np.maximum(inside.seconds, sparse), label), launch


def _sparse_token(bank: Bank, op: Mla) -> float:
    """Seconds of a prompt's token that attends to the best k."""
    fewest = PADDED_WIDE if bank.peaks.has("fp4") and op.kv_dtype != "fp8" else PADDED
    flop = _absorbed(op) * max(op.heads, fewest) / op.heads * op.top_k
    return flop / (SPARSE_SHARE * bank.peaks.rate("bf16"))
