"""Dense decoder-only families: which cells their `config.json` means (floor 2).

Facts follow the reference implementations in Hugging Face transformers (biases, norms, tied weights, parallel blocks).
"""

from __future__ import annotations

from dataclasses import replace

from apexsim.errors import InputError
from apexsim.model.builders import attention, block, ffn, frame, rope_dim, uniform, windows
from apexsim.model.cell import Cell
from apexsim.model.config import HEADS, Config
from apexsim.model.model import Block, Model

IMAGE_TOKENS = 4 * 1601  # Llama 3.2 Vision: most tiles of an image x (patches + class token) that cross-attention reads
MLLAMA_SERVED = "vLLM serves Llama 3.2 Vision up to 0.10.2 only: newer ones refuse the architecture"  # its list of former models
IMAGE_ROWS = 8  # rows of its embedding that the vocabulary does not count
FFN_MULTIPLE = 256  # inner widths of the searched Nemotron architectures are rounded up to it


def llama(c: Config) -> Model:
    """RMS norms, grouped queries, gated FFN: Llama 1-3, Yi, CodeLlama, TinyLlama, Mistral, Phi-3/4, Granite."""
    cells, inner = attention(c, out_bias=c.flag("attention_bias")), ffn(c)
    return frame(c, [block(c, replace(cells, window=w), inner) for w in windows(c)])


def qwen2(c: Config) -> Model:
    """Llama with biases on query, key and value: Qwen2 and 2.5, MiMo, dots.ocr; windows only when asked for."""
    on = c.flag("use_sliding_window", False)
    cells, inner = attention(c, qkv_bias=True), ffn(c)
    return frame(c, [block(c, replace(cells, window=w if on else 0), inner) for w in windows(c)])


def qwen3(c: Config) -> Model:
    """Llama with a norm on each query and key head."""
    return uniform(c, block(c, attention(c, qk_norm="head"), ffn(c)))


def gemma(c: Config) -> Model:
    """Llama with tied embeddings."""
    return uniform(c, block(c, attention(c), ffn(c)), tied=True)


def gemma2(c: Config) -> Model:
    """Four norms a layer; sliding and full layers alternate, the first one sliding."""
    cells, inner = attention(c), ffn(c)
    layers = [block(c, replace(cells, window=w), inner, norms=4) for w in windows(c, every=2)]
    return frame(c, layers, tied=True)


def gemma3(c: Config) -> Model:
    """Gemma 2 with query/key norms, five sliding layers to a full one and two rotary tables."""
    every = c.count("sliding_window_pattern", "_sliding_window_pattern", default=6)
    cells, inner = attention(c, qk_norm="head"), ffn(c)
    layers = [block(c, replace(cells, window=w), inner, norms=4) for w in windows(c, every=every)]
    return frame(c, layers, tied=True, rope_dim=rope_dim(c, cells.head_dim, tables=2))


def gpt2(c: Config) -> Model:
    """Layer norms, biases everywhere, learned positions, tied embeddings."""
    one = block(c, attention(c, qkv_bias=True, out_bias=True), ffn(c, gated=False, bias=True), bias=True)
    return uniform(c, one, tied=True, norm_bias=True, position_rows=c.count("n_positions", "n_ctx"), rope_dim=0)


def gpt_bigcode(c: Config) -> Model:
    """GPT-2 with a single key/value head (multi-query attention)."""
    kv = 1 if c.flag("multi_query", True) else c.count(*HEADS)
    cells = attention(c, kv_heads=kv, qkv_bias=True, out_bias=True)
    one = block(c, cells, ffn(c, gated=False, bias=True), bias=True)
    return uniform(c, one, tied=True, norm_bias=True, position_rows=c.count("n_positions"), rope_dim=0)


def opt(c: Config) -> Model:
    """Layer norms, biases, learned positions with two spare rows; narrow embeddings are projected in and out."""
    one = block(c, attention(c, qkv_bias=True, out_bias=True), ffn(c, gated=False, bias=True), bias=True)
    width = c.count("word_embed_proj_dim", default=c.hidden)
    projections = (("projection", 2 * width * c.hidden),) if width != c.hidden else ()
    norm = 2 * c.hidden if c.flag("do_layer_norm_before", True) and not c.flag("_remove_final_layer_norm") else 0
    return uniform(
        c,
        one,
        tied=True,
        position_rows=c.count("max_position_embeddings") + 2,
        rope_dim=0,
        final_norm_parameters=norm,
        embed_dim=width,
        extra_parts=projections,
        extra_parameters=sum(n for _, n in projections),
    )


def gptj(c: Config) -> Model:
    """Attention and FFN in parallel behind one layer norm; biases in the FFN and on the head."""
    one = block(c, attention(c), ffn(c, gated=False, bias=True), norms=1, bias=True, parallel=True)
    return uniform(c, one, norm_bias=True, head_bias=True)


def gpt_neox(c: Config) -> Model:
    """Attention and FFN in parallel, each behind its own layer norm; biases."""
    cells = attention(c, qkv_bias=c.flag("attention_bias", True), out_bias=c.flag("attention_bias", True))
    parallel = c.flag("use_parallel_residual", True)
    one = block(c, cells, ffn(c, gated=False, bias=True), bias=True, parallel=parallel)
    return uniform(c, one, norm_bias=True)


def phi(c: Config) -> Model:
    """Phi-1 and -2: GPT-J's parallel block with biases in attention too."""
    cells = attention(c, qkv_bias=True, out_bias=True)
    one = block(c, cells, ffn(c, gated=False, bias=True), norms=1, bias=True, parallel=True)
    return uniform(c, one, norm_bias=True, head_bias=True)


def bloom(c: Config) -> Model:
    """Layer norms (one behind the embedding), biases, ALiBi positions, tied embeddings."""
    one = block(c, attention(c, qkv_bias=True, out_bias=True), ffn(c, gated=False, bias=True), bias=True)
    return uniform(c, one, tied=True, final_norm_parameters=4 * c.hidden, rope_dim=0)


def falcon(c: Config) -> Model:
    """Parallel blocks; the 7B has one key/value head and one norm, the new architecture grouped heads and two norms."""
    new, bias = c.flag("new_decoder_architecture"), c.flag("bias")
    heads = c.count(*HEADS)
    kv = c.count("num_kv_heads", default=heads) if new else 1 if c.flag("multi_query", True) else heads
    parallel = new or c.flag("parallel_attn", True)
    norms = (c.count("num_ln_in_parallel_attn", default=2) if new else 1) if parallel else 2
    cells = attention(c, kv_heads=kv, qkv_bias=bias, out_bias=bias)
    one = block(c, cells, ffn(c, gated=False, bias=bias), norms=norms, bias=True, parallel=parallel)
    changes = {"rope_dim": 0} if c.flag("alibi") else {}
    return uniform(c, one, tied=True, norm_bias=True, **changes)


def mllama(c: Config) -> Model:
    """Llama whose listed layers attend to an image instead (gated, with query/key norms); eight spare rows of the embedding."""
    inner, cells = ffn(c), attention(c)
    across = replace(cells, cross=True, causal=False, qk_norm="head", qkv_out_extra=2, source=IMAGE_TOKENS)
    crossing = set(c.numbers("cross_attention_layers") or range(3, c.layers, 5))  # as the family's own default does
    layers = [block(c, across if i in crossing else cells, inner) for i in range(c.layers)]
    parts = (("image tokens", IMAGE_ROWS * c.hidden),)
    note = f"every request is priced with one image of {IMAGE_TOKENS:,} tokens, which {len(crossing)} layers attend to"
    return frame(c, layers, extra_parts=parts, extra_parameters=parts[0][1], notes=(note, MLLAMA_SERVED))


def nemotron_nas(c: Config) -> Model:
    """Llama layers whose attention and FFN were searched: any of them can be absent, heads and widths vary."""
    rows = c.per_layer("block_configs", c.layers)
    if rows is None:
        raise InputError("key 'block_configs' is missing", c.where)
    layers = [_searched(Config(row, f"{c.where}: block_configs[{i}]"), c) for i, row in enumerate(rows)]
    return frame(c, layers)


def _searched(row: Config, c: Config) -> Block:
    mixer, mlp = row.sub("attention"), row.sub("ffn")
    if mixer is None or mlp is None:
        raise InputError("keys 'attention' and 'ffn' are needed", row.where)
    if mixer.flag("replace_with_linear") or mlp.flag("replace_with_linear"):
        raise InputError("'replace_with_linear' layers are not known", row.where)
    heads = c.count(*HEADS)
    cells: list[Cell] = []
    if not mixer.flag("no_op"):
        cells.append(attention(c, kv_heads=heads // mixer.count("n_heads_in_group")))
    if not mlp.flag("no_op"):
        inner = int(2 * mlp.number("ffn_mult", 0) * c.hidden / 3)
        cells.append(ffn(c, inner=-(-inner // FFN_MULTIPLE) * FFN_MULTIPLE))
    return block(c, *cells, norms=len(cells))


DENSE = {
    "llama": llama, "mistral": llama, "granite": llama, "phi3": llama, "yi": llama, "LlamaForCausalLM": llama,
    "MistralForCausalLM": llama, "qwen2": qwen2, "mimo": qwen2, "dots_ocr": qwen2,
    "qwen2_5_vl": qwen2, "qwen2_5_omni_text": qwen2, "qwen3": qwen3, "qwen3_vl_text": qwen3,
    "gemma": gemma, "gemma2": gemma2, "gemma3_text": gemma3, "gpt2": gpt2, "gpt_bigcode": gpt_bigcode, "opt": opt,
    "gptj": gptj, "gpt_neox": gpt_neox, "phi": phi, "bloom": bloom, "falcon": falcon,
    "RefinedWebModel": falcon, "RefinedWeb": falcon, "nemotron-nas": nemotron_nas, "mllama_text_model": mllama,
    "phi3_v": llama, "phi4mm": llama, "solar": llama,
}  # fmt: skip
