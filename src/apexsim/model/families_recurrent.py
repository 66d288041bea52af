"""Families that mix attention with state spaces, short convolutions or lightning attention (floor 2).

Facts follow the reference implementations in Hugging Face transformers; tests compare the counts with the models that those
build.  Mixers for which no kernel was measured say so in a note: what they are priced as.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from apexsim.model.builders import attention, block, ffn, frame
from apexsim.model.cell import Cell
from apexsim.model.cells import Experts, LinearAttention
from apexsim.model.config import EXPERTS, HEADS, INNER, TOP_K, Config
from apexsim.model.families_moe import experts, is_moe
from apexsim.model.model import Model

JAMBA_HEAD = 64  # channels that stand for one head of the scan
SHORT_CONVOLUTION = "no kernel of its short convolutions was measured: priced by the bytes they move (roofline)"
LIGHTNING = "no lightning-attention kernel was measured: priced as a Gated DeltaNet scan with a state of the same size"


def mamba_mixer(c: Config, inner: int, groups: int, norm: bool = True) -> LinearAttention:
    """Mamba-2 under the keys of Bamba, Falcon-H1 and Granite 4."""
    heads, state, conv = c.count("mamba_n_heads"), c.count("mamba_d_state"), c.count("mamba_d_conv", default=4)
    dim, mixed = inner // heads, inner + 2 * groups * state
    projections = ((inner + mixed + heads, c.hidden), (c.hidden, inner))
    count = sum(n * k for n, k in projections) + mixed * (conv + c.flag("mamba_conv_bias", True)) + 3 * heads + inner * norm
    return LinearAttention("mamba2", groups, heads, state, dim, conv, groups, 4, count, projections)


def mamba_hybrid(c: Config) -> Model:
    """Mamba-2 and attention layers by turns (Bamba, Granite 4 hybrids), or side by side in each (Falcon-H1)."""
    inner = c.count("mamba_d_ssm", default=int(c.number("mamba_expand", 2) * c.hidden))
    mixer = mamba_mixer(c, inner, c.count("mamba_n_groups", default=1), c.flag("mamba_rms_norm", True))
    full = attention(c, out_bias=c.flag("attention_bias"))
    both = c.text("model_type") == "falcon_h1"
    listed = c.numbers("attn_layer_indices")
    kinds = c.data.get("layers_block_type") or c.data.get("layer_types")
    if not isinstance(kinds, list) or len(kinds) < c.layers:
        kinds = ["attention" if i in listed else "mamba" for i in range(c.layers)]
    routed = c.has("num_local_experts") and c.count("num_local_experts", low=0) > 0
    shared = c.count("shared_intermediate_size", default=0, low=0)
    second: Cell = ffn(c, inner=shared if c.has("shared_intermediate_size") else 0)
    if routed:
        second = Experts(c.count("num_local_experts"), c.count("num_experts_per_tok"), c.count(*INNER), shared_inner=shared)
    layers = [
        block(c, *((full, mixer) if both else (full if kind in ("attention", "full_attention") else mixer,)), second)
        for kind in kinds[: c.layers]
    ]
    rotary: dict[str, Any] = {"rope_dim": 0} if c.text("position_embedding_type") == "nope" else {}
    return frame(c, layers, tied=True, **rotary)


def lfm2(c: Config) -> Model:
    """Short gated convolutions and grouped-query attention by turns, experts behind all but the first layers (Liquid LFM2)."""
    conv, width = c.count("conv_L_cache", default=3), c.hidden
    projections = ((3 * width, width), (width, width))
    count = 4 * width * width + width * conv + width * c.flag("conv_bias") * 5
    full, listed = attention(c, qk_norm="head"), c.numbers("full_attn_idxs")
    parts = full.heads  # channels are cut as heads are
    short = LinearAttention("conv", parts, parts, 0, width // parts, conv, parameters=count, projections=projections)
    kinds = c.per_layer("layer_types", c.layers) or ["full_attention" if i in listed else "conv" for i in range(c.layers)]
    dense = ffn(c, inner=_lfm2_inner(c))
    layers = [block(c, full if kind == "full_attention" else short, dense) for kind in kinds]
    if c.has("num_experts"):
        moe = experts(c, router_bias=c.flag("use_expert_bias"))
        layers = [replace(b, cells=(b.cells[0], moe)) if sparse else b for b, sparse in zip(layers, is_moe(c), strict=True)]
    return frame(c, layers, tied=True, rope_dim=full.head_dim, notes=(SHORT_CONVOLUTION,))


def _lfm2_inner(c: Config) -> int:
    """Inner width of the dense layers: two thirds of the stated one, rounded up, where the config asks for that."""
    inner = c.count("block_ff_dim", *INNER)
    if not c.flag("block_auto_adjust_ff_dim", not c.has("moe_intermediate_size")):
        return inner
    unit = c.count("block_multiple_of", default=256)
    return -(-int(2 * inner / 3 * c.number("block_ffn_dim_multiplier", 1.0)) // unit) * unit


def jamba(c: Config) -> Model:
    """Mamba-1 and attention layers by turns, experts in every other layer; the scan is priced as Mamba-2's."""
    inner, state, rank = int(c.number("mamba_expand", 2) * c.hidden), c.count("mamba_d_state"), c.count("mamba_dt_rank")
    conv, full = c.count("mamba_d_conv", default=4), attention(c)
    projections = ((2 * inner, c.hidden), (rank + 2 * state, inner), (inner, rank), (c.hidden, inner))
    norms = rank + 2 * state
    count = sum(n * k for n, k in projections) + inner * (state + 1 + conv + c.flag("mamba_conv_bias", True) + 1) + norms
    heads = max(1, inner // JAMBA_HEAD)
    mixer = LinearAttention("mamba2", 1, heads, state, inner // heads, conv, 1, 4, count, projections)
    moe = Experts(c.count("num_experts"), c.count("num_experts_per_tok"), c.count(*INNER)) if c.count("num_experts") > 1 else ffn(c)
    every, first = c.count("attn_layer_period"), c.count("attn_layer_offset", low=0)
    sparse, start = c.count("expert_layer_period"), c.count("expert_layer_offset", low=0)
    layers = [block(c, full if i % every == first else mixer, moe if i % sparse == start else ffn(c)) for i in range(c.layers)]
    return frame(c, layers, rope_dim=0, notes=("its Mamba-1 scan is priced as one of Mamba-2",))


def minimax(c: Config) -> Model:
    """Lightning attention with an output gate, full attention every so often, experts in every layer (MiniMax-01 and M1)."""
    full, heads = attention(c), c.count(*HEADS)
    width = heads * full.head_dim
    projections = ((3 * width, c.hidden), (width, c.hidden), (c.hidden, width))
    linear = LinearAttention(
        "gdn",
        heads,
        heads,
        full.head_dim,
        full.head_dim,
        1,
        parameters=5 * width * c.hidden + width,
        projections=projections,
    )
    kinds = c.per_layer("layer_types", c.layers) or [
        "full_attention" if x == 1 else "linear" for x in c.per_layer("attn_type_list", c.layers) or []
    ]
    moe = Experts(c.count(*EXPERTS), c.count(*TOP_K), c.count(*INNER))
    layers = [block(c, full if kind == "full_attention" else linear, moe) for kind in kinds]
    return frame(c, layers, notes=(LIGHTNING,))


RECURRENT = {
    "bamba": mamba_hybrid, "falcon_h1": mamba_hybrid, "granitemoehybrid": mamba_hybrid, "lfm2": lfm2, "lfm2_moe": lfm2,
    "jamba": jamba, "minimax": minimax, "minimax_text_01": minimax, "minimax_m1": minimax, "MiniMaxText01ForCausalLM": minimax,
    "MiniMaxM1ForCausalLM": minimax,
}  # fmt: skip
