"""Families that differ in a few habits from the usual decoder, and decoders that nobody has written down yet (floor 2).

A family here is a row of `ROWS`: what its layers do that its `config.json` does not say.  A type without a row is read by its
keys alone, with a note that says so and the counted parameters.  Facts follow the reference implementations in Hugging
Face transformers; tests compare the counts with the models that those build.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from apexsim.errors import InputError
from apexsim.model.builders import VECTORS, attention, block, ffn, frame, max_length, slides
from apexsim.model.cell import Cell
from apexsim.model.cells import Attention, Experts, Ffn
from apexsim.model.config import EXPERTS, HEADS, INNER, TOP_K, Config
from apexsim.model.count import total_parameters
from apexsim.model.families_moe import is_moe, latent, mtp
from apexsim.model.model import Block, Model
from apexsim.model.towers import linear
from apexsim.units import format_count

GATED_ACTS = ("silu", "swish", "swiglu", "geglu", "glu")
POSITION_KEYS = (
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "rotary_dim",
    "rotary_pct",
    "rotary_emb_base",
    "partial_rotary_factor",
    "alibi",
)
DBRX_LENGTH = 2048  # default of transformers' DbrxConfig
COMMON_TOP_K = (*TOP_K, "moe_topk", "moe_k")
COMMON_EXPERTS = (*EXPERTS, "moe_num_experts")
COMMON_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert")


@dataclass(frozen=True, slots=True)
class Habits:
    """Habits of a family; None = as the keys say."""

    norms: int = 2  # per layer, of the hidden width
    norm_width: int = 1  # parameters of a norm over the hidden width: 0 none, 1 scale, 2 scale and shift
    gated: bool | None = None
    qk_norm: str | None = None
    qkv_bias: bool | None = None
    out_bias: bool | None = None
    mlp_bias: bool | None = None
    parallel: bool = False
    tied: bool = True  # transformers' own default
    learned: int | None = None  # rows of learned positions beyond the stated length; None = no such table
    head_bias: bool = False
    final: int | None = None  # parameters of the last norm and of norms behind the embedding, in hidden widths
    cross: bool = False  # decoders of encoder-decoder models attend to the encoder's output
    router_bias: bool | None = None
    dense_head: bool = False  # BERT's: a square projection and a norm before the head, and two rows of token types
    extra: int = 0  # further parameters per layer, in hidden widths


BERT = Habits(norm_width=2, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, learned=0, final=2, head_bias=True,
           dense_head=True)  # fmt: skip
BART = Habits(norms=3, norm_width=2, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, learned=2, final=2, cross=True)
ROWS: dict[str, Habits] = {
    "apertus": Habits(gated=False, qk_norm="head", tied=False), "arcee": Habits(gated=False, tied=False), "helium": Habits(tied=False),
    "smollm3": Habits(), "aria_text": Habits(tied=False), "diffllama": Habits(tied=False), "ernie4_5": Habits(),
    "seed_oss": Habits(tied=False),
    "ministral": Habits(tied=False), "ministral3": Habits(tied=False), "exaone4": Habits(qk_norm="head", tied=False),
    "hunyuan_v1_dense": Habits(qk_norm="head"), "hunyuan_v1_moe": Habits(qk_norm="head"), "internlm3": Habits(tied=False),
    "internlm2": Habits(tied=False), "olmo": Habits(norm_width=0, tied=False, final=0), "olmo2": Habits(qk_norm="full", tied=False),
    "olmo3": Habits(qk_norm="full", tied=False), "olmoe": Habits(qk_norm="full", tied=False),
    "flex_olmo": Habits(qk_norm="full", tied=False),
    "cohere": Habits(norms=1, parallel=True), "cohere2": Habits(norms=1, parallel=True), "glm": Habits(out_bias=False, tied=False),
    "glm4": Habits(norms=4, out_bias=False, tied=False), "glm4v_text": Habits(norms=4, qkv_bias=True, out_bias=False, tied=False),
    "Glm4vMoe_text": Habits(qkv_bias=True, out_bias=False, tied=False),
    "glm4_moe": Habits(out_bias=False, tied=False), "glm4v_moe_text": Habits(out_bias=False, tied=False),
    "nemotron": Habits(norm_width=2, gated=False, tied=False), "starcoder2": Habits(norm_width=2, gated=False),
    "stablelm": Habits(norm_width=2, gated=True, tied=False),
    "persimmon": Habits(norm_width=2, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, tied=False),
    "phimoe": Habits(norm_width=2, tied=False, router_bias=False), "granitemoe": Habits(), "granitemoeshared": Habits(),
    "dots1": Habits(qk_norm="head", tied=False), "exaone": Habits(tied=False),
    "exaone_moe": Habits(qk_norm="head", tied=False), "internlm": Habits(tied=False),
    "deepseek": Habits(tied=False), "solar_open": Habits(tied=False, router_bias=True), "grok-1": Habits(), "grok-2": Habits(tied=False),
    "bailing_moe": Habits(qk_norm="head", tied=False), "minicpm": Habits(), "minicpm3": Habits(),
    "chatglm": Habits(qkv_bias=True, out_bias=False, tied=False), "qwen": Habits(qkv_bias=True, out_bias=False, tied=False),
    "ernie4_5_moe": Habits(router_bias=True), "vaultgemma": Habits(),
    "gpt_neo": Habits(norm_width=2, gated=False, qkv_bias=False, out_bias=True, mlp_bias=True, learned=0),
    "codegen": Habits(norms=1, norm_width=2, gated=False, mlp_bias=True, parallel=True, tied=False, head_bias=True),
    "gpt_neox_japanese": Habits(norm_width=2, gated=False, tied=False),
    "xglm": Habits(norm_width=2, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True),
    "biogpt": Habits(norm_width=2, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, learned=2),
    "mpt": Habits(gated=False, qkv_bias=False),
    "openai-gpt": Habits(norm_width=2, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, learned=0, final=0),
    "bitnet": Habits(tied=False, extra=1), "qwen2_vl_text": Habits(qkv_bias=True, out_bias=False, tied=False),
    "qwen2_vl": Habits(qkv_bias=True, out_bias=False, tied=False), "baichuan": Habits(tied=False),
    "emu3_text_model": Habits(tied=False),
    "kosmos_2_text_model": Habits(norm_width=2, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True),
    "ctrl": Habits(norm_width=2, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, head_bias=True),
    "xlm": Habits(norm_width=2, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, learned=0, head_bias=True),
    "modernbert-decoder": Habits(gated=True), "doge": Habits(qk_norm="head", tied=False, extra=2),
    "chameleon": Habits(qk_norm="head", tied=False),
    **dict.fromkeys(("bart", "mbart", "plbart", "mvp", "blenderbot", "blenderbot-small"), BART),
    **dict.fromkeys(("pegasus", "marian", "bigbird_pegasus", "trocr", "speech_to_text_2", "prophetnet", "xlm-prophetnet"), replace(BART,
        learned=0)),
    **dict.fromkeys(
        ("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert", "qdqbert",
         "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "roformer"), BERT),
}  # fmt: skip
UNSUITED = {  # mixers whose cost is not modelled: said so instead of guessed
    "rwkv": "an RWKV mixer", "mamba": "a Mamba-1 mixer", "mamba2": "a Mamba-2 mixer without attention", "falcon_mamba": "a Mamba-1 mixer",
    "xlstm": "an xLSTM mixer", "recurrent_gemma": "an RG-LRU mixer", "zamba": "shared Mamba blocks", "zamba2": "shared Mamba blocks",
    "reformer": "LSH attention", "transfo-xl": "segment recurrence", "mega": "moving-average attention", "xlnet": "two-stream attention",
    "jetmoe": "experts of attention heads", "udop": "an encoder of pages",
    "pix2struct": "an encoder of pages",
    "evolla": "protein encoders", "EvollaModel": "protein encoders", "idefics": "cross-attention to images",
    "blt": "byte patches of several transformers", "moshi": "several token streams", "cpmant": "bucketed position biases",
}  # fmt: skip


def by_keys(c: Config) -> Model:
    """A decoder from the habits of its family, or from its keys alone where the family has no row."""
    kind = c.text("model_type")
    row = ROWS.get(kind)
    c = _plain(c)
    model = _decoder(c, row or _guessed(c))
    if row is not None:
        return model
    note = (
        f"no one has written '{kind or 'this architecture'}' down here: read by its keys as a generic decoder, "
        f"{format_count(total_parameters(model))} parameters counted; compare them with the published figure"
    )
    return replace(model, notes=(*model.notes, note))


def _plain(c: Config) -> Config:
    """The configuration with the decoder's own keys under the usual names."""
    names = {
        "num_hidden_layers": ("decoder_layers", "num_decoder_layers", "n_layers", "layers"),
        "num_attention_heads": ("decoder_attention_heads", "attention_heads", "num_decoder_attention_heads", "n_heads"),
        "intermediate_size": ("decoder_ffn_dim", "dff"), "max_position_embeddings": ("max_target_positions", "max_seq_len"),
        "hidden_size": ("emb_dim",), "vocab_size": ("padded_vocab_size",), "num_key_value_heads": ("multi_query_group_num",),
        "head_dim": ("kv_channels",),
    }  # fmt: skip
    data = dict(c.data)
    for usual, others in names.items():
        for other in others:
            if data.get(other) is not None and (data.get(usual) is None or other.startswith("decoder_")):
                data[usual] = c.count(other)  # checked under the name that the file has
    if c.text("model_type") == "qwen" and c.has("intermediate_size"):
        data["intermediate_size"] = c.count("intermediate_size") // 2  # of gate and value together
    if c.text("model_type") == "xlm":
        data["intermediate_size"] = 4 * c.count("emb_dim")
    if c.text("model_type").lower().startswith(("glm4_moe", "glm4vmoe")) and not c.has("head_dim"):
        data["head_dim"] = c.hidden // c.count(*HEADS)  # rounded down, as its own code does
    if c.has("expansion_ratio") and not c.has("intermediate_size"):
        data["intermediate_size"] = int(c.number("expansion_ratio", 4.0) * c.hidden)
    return Config(data, c.where, c.name)


def _guessed(c: Config) -> Habits:
    """Habits that the keys suggest: LayerNorm and biases where a gelu or relu stands, learned positions without rotary ones."""
    act = c.text("hidden_act", c.text("hidden_activation", c.text("activation_function", "silu"))).lower()
    old = not any(word in act for word in GATED_ACTS) and not c.has("rms_norm_eps", "hidden_activation")
    rotary = any(key in c.data for key in POSITION_KEYS)
    shift = c.has("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "layernorm_epsilon") and old
    plain = True if old and not any(k.endswith("bias") for k in c.data) else None
    return Habits(
        norm_width=2 if shift else 1,
        gated=not old,
        qkv_bias=plain,
        out_bias=plain,
        mlp_bias=plain,
        learned=0 if old and not rotary else None,
    )


def _decoder(c: Config, row: Habits) -> Model:
    if c.has("kv_lora_rank"):
        mixers: list[Cell] = [latent(c)] * c.layers
    else:
        mixers = _mixers(c, row)
    sparse = _sparse(c)
    moe = _experts(c, row) if any(sparse) else None
    dense = _ffn(c, row) if moe is None or not all(sparse) else None
    behind: list[Cell] = [moe if s and moe is not None else dense or _ffn(c, row) for s in sparse]
    cross: tuple[Cell, ...] = ()
    if row.cross:
        own = mixers[0]
        assert isinstance(own, Attention)
        cross = (replace(own, cross=True, causal=False, source=c.count("max_position_embeddings", default=1024)),)
    layers = [
        replace(
            block(c, mixer, *cross, second, parallel=row.parallel),
            norm_parameters=(row.norms * row.norm_width + row.extra) * c.hidden,
        )
        for mixer, second in zip(mixers, behind, strict=True)
    ]
    final = row.norm_width if row.final is None else row.final
    width = c.count("embedding_size", "word_embed_proj_dim", default=c.hidden)
    rows = 0 if row.learned is None else max_length(c) + row.learned
    changes: dict[str, Any] = {"rope_dim": 0} if row.learned is not None or not isinstance(mixers[0], Attention) else {}
    between = 2 * linear(width, c.hidden) if width != c.hidden else 0
    between += c.hidden * (c.hidden + 5) if row.dense_head else 0
    reads = row.dense_head and not c.flag("is_decoder")
    return frame(
        c,
        layers,
        tied=row.tied,
        final_norm_parameters=final * c.hidden,
        head_bias=row.head_bias or c.flag("lm_head_bias"),
        position_rows=rows,
        embed_dim=width,
        extra_parameters=between,
        extra_parts=(("projection", between),) if between else (),
        outside_parts=mtp(c, layers[-1]),
        generates=not reads,
        notes=(VECTORS,) if reads else (),
        **changes,
    )


def _mixers(c: Config, row: Habits) -> list[Cell]:
    bias = c.flag("attention_bias") or c.flag("qkv_bias") or c.flag("use_qkv_bias") or c.flag("use_bias")
    out = c.flag("attention_out_bias") or c.flag("use_bias") or (c.flag("attention_bias") and not c.has("attention_out_bias"))
    norm = row.qk_norm
    if norm is None:
        asked = c.flag("use_qk_norm") or c.flag("qk_layernorm") or c.flag("use_qk_layernorm")
        norm = ("full" if row.parallel else "head") if asked else ""
    elif any(c.data.get(key) is False for key in ("use_qk_norm", "qk_layernorm")):
        norm = ""
    cell = attention(
        c,
        qkv_bias=bias if row.qkv_bias is None else row.qkv_bias,
        out_bias=out if row.out_bias is None else row.out_bias,
        qk_norm=norm,
    )
    window = c.count("sliding_window", "sliding_window_size", "window_size", "local_attention", default=0, low=0)
    kinds = c.per_layer("layer_types", c.layers) if isinstance(c.data.get("layer_types"), list) else None
    if kinds is None:
        kinds = [""] * c.layers
        if c.has("sliding_window") and c.data.get("use_sliding_window") is not False:
            kinds = ["sliding"] * c.layers
    return [replace(cell, window=window if slides(c, kind) else 0) for kind in kinds]


def _ffn(c: Config, row: Habits) -> Ffn:
    bias = c.flag("use_bias") or c.flag("mlp_bias") if row.mlp_bias is None else row.mlp_bias
    return ffn(c, gated=row.gated is not False, bias=bias)


def _sparse(c: Config) -> list[bool]:
    """Which layers hold experts; none without both their number and the choice per token."""
    if c.data.get("is_moe") is False or not c.has(*COMMON_EXPERTS) or _first(c, COMMON_EXPERTS) < 2:
        return [False] * c.layers
    if c.has("moe_layer_start_index"):
        first, every = c.count("moe_layer_start_index", low=0), c.count("moe_layer_interval", default=1)
        last = c.count("moe_layer_end_index", default=c.layers - 1, low=0)
        return [first <= i <= last and (i + 1) % every == 0 for i in range(c.layers)]
    return is_moe(c)


def _first(c: Config, keys: tuple[str, ...], low: int = 1) -> int:
    """A whole number, or the first layer's where each layer has its own."""
    for key in keys:
        value = c.data.get(key)
        if isinstance(value, list) and value:
            return Config({key: value[0]}, c.where).count(key, low=low)
        if value is not None:
            return c.count(key, low=low)
    return c.count(*keys)


def _experts(c: Config, row: Habits) -> Experts:
    count, top_k = _first(c, COMMON_EXPERTS), _first(c, COMMON_TOP_K)
    if top_k > count:
        raise InputError(f"key '{COMMON_TOP_K[0]}' = {top_k} is more than the {count} experts", c.where)
    own = c.has("moe_intermediate_size")
    inner = _first(c, ("moe_intermediate_size",)) if own else c.count(*INNER)
    number = _first(c, COMMON_SHARED, low=0) if c.has(*COMMON_SHARED) else 0
    shared = number * inner or c.count("shared_intermediate_size", "shared_expert_intermediate_size", default=0, low=0)
    biased = c.text("topk_method") == "noaux_tc" or c.flag("moe_router_enable_expert_bias")
    return Experts(
        count,
        top_k,
        inner,
        gated=row.gated is not False,
        shared_inner=shared,
        router_bias=biased if row.router_bias is None else row.router_bias,
    )


def dbrx(c: Config) -> Model:
    """Experts in every layer, keys of attention and FFN in sections of their own."""
    attn, ff = c.sub("attn_config"), c.sub("ffn_config")
    if attn is None or ff is None:
        raise InputError("keys 'attn_config' and 'ffn_config' are needed", c.where)
    data = {**c.data, "num_attention_heads": c.data.get("n_heads"), "num_hidden_layers": c.data.get("n_layers")}
    c = Config({**data, "max_position_embeddings": c.count("max_seq_len", default=DBRX_LENGTH)}, c.where, c.name)
    cell = attention(c, kv_heads=attn.count("kv_n_heads", default=c.count(*HEADS)))
    moe = Experts(
        ff.count("moe_num_experts", default=4),
        ff.count("moe_top_k", default=1),
        ff.count("ffn_hidden_size", default=3584),
    )
    return frame(c, [block(c, cell, moe)] * c.layers, tied=False)


def gemma3n(c: Config) -> Model:
    """Gemma 3n: per-layer embeddings, four alternating residual streams, a low-rank path beside attention, shared caches."""
    width, narrow, streams, rank = (
        c.hidden,
        c.count("hidden_size_per_layer_input"),
        c.count("altup_num_inputs"),
        c.count("laurel_rank"),
    )
    inner = c.data.get("intermediate_size")
    wide = c.per_layer("intermediate_size", c.layers) if isinstance(inner, list) else [inner] * c.layers
    kinds = c.per_layer("layer_types", c.layers) or ["sliding_attention"] * c.layers
    window, shared = c.count("sliding_window"), c.count("num_kv_shared_layers", default=0, low=0)
    cell = attention(c, qk_norm="head")
    kept = 2 * c.hidden * cell.kv_heads * cell.head_dim + cell.head_dim  # of layers that read another one's cache
    beside = 8 * width + streams**2 + streams**3 + streams * width + 2 * width * rank + 2 * width * narrow
    layers = []
    for i, kind in enumerate(kinds):
        mixer = replace(cell, window=window if slides(c, kind) else 0)
        if i >= c.layers - shared:
            mixer = replace(mixer, shares_kv=True, qkv_out_extra=kept)
        dense = Ffn(Config({"intermediate_size": (wide or [])[i]}, c.where).count("intermediate_size"))
        layers.append(Block((mixer, dense), beside))
    rows = c.count("vocab_size_per_layer_input") * narrow * c.layers
    mixing = 2 * (streams - 1) * width**2 + narrow * c.layers * width + narrow
    parts = (("per-layer embedding", rows), ("projection", mixing))
    return frame(c, layers, tied=True, extra_parts=parts, extra_parameters=rows + mixing)


KEYED = {**dict.fromkeys(ROWS, by_keys), "dbrx": dbrx, "gemma3n_text": gemma3n}
