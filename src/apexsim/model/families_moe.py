"""Mixture-of-experts families, with grouped-query or latent attention (floor 2).

Facts follow the reference implementations in Hugging Face transformers and vLLM.  Layers for multi-token prediction
are counted apart (`Model.outside_parts`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from apexsim.errors import InputError
from apexsim.model.builders import attention, block, ffn, frame, slides, windows
from apexsim.model.cell import Cell
from apexsim.model.cells import NO_INDEXER, Attention, Experts, Indexer, LatentAttention
from apexsim.model.config import EXPERTS, HEADS, INNER, TOP_K, Config
from apexsim.model.model import Block, Model

CHUNK_EVERY = 4  # Llama 4: every fourth layer attends to everything, without rotary positions


def experts(c: Config, inner: int = 0, **changes: Any) -> Experts:
    """Routed experts from the usual keys; `changes` are fields of `Experts`."""
    count, top_k = c.count(*EXPERTS), c.count(*TOP_K)
    if top_k > count:
        raise InputError(f"key '{TOP_K[0]}' = {top_k} is more than the {count} experts", c.where)
    inner = inner or c.count("moe_intermediate_size", *INNER)
    shared = c.count("n_shared_experts", "num_shared_experts", default=0, low=0) * inner
    bias = c.text("topk_method") == "noaux_tc" or c.flag("use_routing_bias") or c.flag("use_moe_router_bias")
    kept = c.count("topk_group", default=0, low=0) if c.count("n_group", default=1, low=0) > 1 else 0
    return Experts(count, top_k, inner, **{"shared_inner": shared, "router_bias": bias, "kept": kept, **changes})


def is_moe(c: Config) -> list[bool]:
    """Which layers hold experts: `mlp_layer_types`, `moe_layer_freq` lists, dense first layers, steps, listed ones."""
    layers = c.layers
    kinds = c.per_layer("mlp_layer_types", layers)
    if kinds is not None:
        return [kind == "sparse" for kind in kinds]
    listed = next((key for key in ("moe_layer_freq", "is_moe_layer") if isinstance(c.data.get(key), list)), None)
    if listed is not None:
        return [bool(x) for x in c.per_layer(listed, layers) or []]
    first = c.count("first_k_dense_replace", "num_dense_layers", default=0, low=0)
    step = c.count("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq", default=1)
    dense = set(c.numbers("mlp_only_layers"))
    offset = 0 if c.has("moe_layer_freq") else 1  # DeepSeek counts layers from 0, Qwen and Llama 4 from 1
    return [i >= first and (i + offset) % step == 0 and i not in dense for i in range(layers)]


def mtp(c: Config, one: Block) -> tuple[tuple[str, int], ...]:
    """Multi-token prediction: blocks like the last one, each with a projection of 2 hidden widths and three norms."""
    layers = c.count("num_nextn_predict_layers", "num_mtp_modules", "mtp_num_hidden_layers", default=0, low=0)
    body = one.norm_parameters + sum(n for cell in one.cells for n in cell.count(c.hidden).values())
    return (("mtp", layers * (body + 2 * c.hidden**2 + 3 * c.hidden)),) if layers else ()


def _mixed(c: Config, mixers: list[Cell], moe: Experts, dense_inner: int = 0, **changes: Any) -> Model:
    """A decoder with one mixer per layer, and experts or a dense FFN behind it."""
    sparse = is_moe(c)
    dense = ffn(c, inner=dense_inner) if not all(sparse) else None
    layers = [block(c, mixer, moe if s or dense is None else dense) for mixer, s in zip(mixers, sparse, strict=True)]
    return frame(c, layers, outside_parts=mtp(c, layers[-1]), **changes)


def mixtral(c: Config) -> Model:
    """Mistral with experts in every layer."""
    cells = attention(c)
    return _mixed(c, [replace(cells, window=w) for w in windows(c)], experts(c))


def qwen2_moe(c: Config) -> Model:
    """Qwen2 with experts and a gated shared expert."""
    shared = c.count("shared_expert_intermediate_size", default=0, low=0)
    return _mixed(c, [attention(c, qkv_bias=True)] * c.layers, experts(c, shared_inner=shared, shared_gate=shared > 0))


def qwen3_moe(c: Config) -> Model:
    """Qwen3 with experts, most often in every layer."""
    return _mixed(c, [attention(c, qk_norm="head")] * c.layers, experts(c, shared_inner=0))


def minimax_m2(c: Config) -> Model:
    """Norms over the whole query and key width, router bias, no shared expert."""
    norm = {"per_layer": "full"}.get(c.text("qk_norm_type", "per_layer"), "head") if c.flag("use_qk_norm") else ""
    return _mixed(c, [attention(c, qk_norm=norm)] * c.layers, experts(c, inner=c.count(*INNER)))


def minimax_m3(c: Config) -> Model:
    """Block-sparse attention chosen by an indexer in most layers; dense first layers, one shared expert."""
    sparse = c.sub("sparse_attention_config")
    full = attention(c, qk_norm="head")
    mixers: list[Cell] = [full] * c.layers
    if sparse is not None:
        kept = sparse.count("sparse_topk_blocks") * sparse.count("sparse_block_size")
        heads, width = sparse.count("sparse_num_index_heads"), sparse.count("sparse_index_dim")
        indexed = replace(full, index=Indexer(heads, width, kept))
        mixers = [indexed if s else full for s in sparse.per_layer("sparse_attention_freq", c.layers) or []]
    return _mixed(c, mixers, experts(c), dense_inner=c.count("dense_intermediate_size"))


GPT_OSS_SKEW = 0.9  # python scripts/fit_load.py


def gpt_oss(c: Config) -> Model:
    """Alternating windows, attention sinks, biases in attention, router and experts."""
    cells = attention(c, out_bias=c.flag("attention_bias"), sinks=True)
    moe = replace(experts(c, inner=c.count(*INNER), bias=True, router_bias=True), skew=GPT_OSS_SKEW)
    return _mixed(c, [replace(cells, window=w) for w in windows(c, every=2)], moe)


def latent(c: Config) -> LatentAttention:
    """Latent attention from DeepSeek's keys, with an indexer where the config has one."""
    heads = c.count(*HEADS)
    scorers = c.count("index_n_heads", default=0, low=0)
    index = Indexer(scorers, c.count("index_head_dim"), c.count("index_topk")) if scorers else NO_INDEXER
    return LatentAttention(
        heads,
        c.count("q_lora_rank", default=0, low=0),
        c.count("kv_lora_rank"),
        c.count("qk_nope_head_dim"),
        c.count("qk_rope_head_dim"),
        c.count("v_head_dim"),
        index,
    )


def deepseek(c: Config) -> Model:
    """Latent attention, dense first layers, shared and routed experts: DeepSeek V2-V3.2, Kimi K2, GLM-5."""
    cell = latent(c)
    kinds = c.per_layer("indexer_types", c.layers) or ["full"] * c.layers
    mixers: list[Cell] = [replace(cell, index=replace(cell.index, shared=kind == "shared")) for kind in kinds]
    return _mixed(c, mixers, experts(c), rope_dim=cell.rope_dim)


def llama4(c: Config) -> Model:
    """Chunked local attention but for every fourth layer; one routed and one shared expert in MoE layers."""
    chunk = c.count("attention_chunk_size", default=0, low=0)
    cells, inner = attention(c), c.count(*INNER)
    mixers: list[Cell] = [replace(cells, chunk=0 if (i + 1) % CHUNK_EVERY == 0 else chunk) for i in range(c.layers)]
    return _mixed(c, mixers, experts(c, inner=inner, shared_inner=inner), dense_inner=c.count("intermediate_size_mlp"))


def mimo_v2(c: Config) -> Model:
    """Sliding layers have their own heads and attention sinks; values are narrower than keys."""
    window, layers = c.count("sliding_window"), c.layers
    full = attention(c, v_head_dim=c.count("v_head_dim"), sinks=c.flag("add_full_attention_sink_bias"))
    local = Attention(
        c.count("swa_num_attention_heads"),
        c.count("swa_num_key_value_heads"),
        c.count("swa_head_dim"),
        v_head_dim=c.count("swa_v_head_dim"),
        window=window,
        sinks=c.flag("add_swa_attention_sink_bias"),
    )
    pattern = c.per_layer("hybrid_layer_pattern", layers) or [0] * layers
    return _mixed(c, [local if p else full for p in pattern], experts(c))


def step3p7(c: Config) -> Model:
    """Sliding layers, dense first layers, one shared expert beside the routed ones."""
    cells = attention(c, qk_norm="head")
    moe = experts(c, shared_inner=c.count("share_expert_dim", default=0, low=0))
    return _mixed(c, [replace(cells, window=w) for w in windows(c)], moe)


def longcat(c: Config) -> Model:
    """Two latent attentions and two dense FFNs a layer, one set of experts beside them, some of which compute nothing (LongCat-Flash)."""
    real, idle, chosen = c.count("n_routed_experts"), c.count("zero_expert_num", default=0, low=0), c.count("moe_topk", *TOP_K)
    busy = max(1, round(chosen * real / (real + idle)))
    moe = Experts(real, busy, c.count("expert_ffn_hidden_size"), extra=c.hidden * idle)  # the router scores all of them
    mixer, dense = latent(c), ffn(c, inner=c.count("ffn_hidden_size", *INNER))
    layers = [block(c, mixer, dense, moe), block(c, mixer, dense)] * c.layers
    note = f"of {chosen} experts per token {busy} are counted: so many have weights on average, the others pass the token on"
    return frame(c, layers, rope_dim=mixer.rope_dim, notes=(note,) if idle else ())


def afmoe(c: Config) -> Model:
    """Gated attention with query/key norms, sliding but for every fourth layer, four norms, dense first layers (Arcee Trinity)."""
    full = attention(c, qk_norm="head", gate=True)
    every = c.count("global_attn_every_n_layers", default=CHUNK_EVERY)
    moe, dense = experts(c, router_bias=True), ffn(c)
    layers = [
        block(c, replace(full, window=w), moe if sparse else dense, norms=4)
        for w, sparse in zip(windows(c, every=every), is_moe(c), strict=True)
    ]
    return frame(c, layers)


def laguna(c: Config) -> Model:
    """More heads in sliding layers, one gate per head, a shared expert."""
    heads = c.per_layer("num_attention_heads_per_layer", c.layers) or [c.count(*HEADS)] * c.layers
    kinds = c.per_layer("layer_types", c.layers) or [""] * c.layers
    window = c.count("sliding_window", default=0, low=0)
    mixers: list[Cell] = [
        attention(c, heads=n, qk_norm="head", qkv_out_extra=c.hidden * n, window=window if slides(c, kind) else 0)
        for n, kind in zip(heads, kinds, strict=True)
    ]
    return _mixed(c, mixers, experts(c, shared_inner=c.count("shared_expert_intermediate_size"), router_bias=True))


MOE = {
    "mixtral": mixtral, "qwen2_moe": qwen2_moe, "qwen3_moe": qwen3_moe, "qwen3_vl_moe_text": qwen3_moe,
    "qwen3_omni_moe_text": qwen3_moe, "minimax_m2": minimax_m2, "minimax_m3": minimax_m3, "gpt_oss": gpt_oss,
    "deepseek_v2": deepseek, "deepseek_v3": deepseek, "deepseek_v32": deepseek, "kimi_k2": deepseek,
    "glm_moe_dsa": deepseek, "llama4_text": llama4, "mimo_v2_flash": mimo_v2, "step3p7": step3p7,
    "step3p5": step3p7, "afmoe": afmoe, "longcat_flash": longcat, "laguna": laguna,
}  # fmt: skip
