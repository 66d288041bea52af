"""Encoder-decoder and encoder-only families: T5, Whisper, CLIP (floor 2).

Facts follow the reference implementations in Hugging Face transformers.
"""

from __future__ import annotations

from dataclasses import replace

from apexsim.errors import InputError
from apexsim.model.builders import VECTORS, attention, block, ffn, stack
from apexsim.model.cells import Attention, Ffn
from apexsim.model.config import Config
from apexsim.model.model import Block, Model
from apexsim.model.towers import linear

WHISPER_SECONDS_POSITIONS = 1500  # encoder positions of a 30 s window (max_source_positions)

DECODER_ALONE = "the decoder alone, requests encoded before they come; `apexsim apex` plans the encoder too"


def t5(c: Config) -> Model:
    """Encoder and decoder with relative position tables in their first layers; no biases."""
    gated = c.text("feed_forward_proj", "relu").startswith("gated")
    cells, inner, heads = attention(c), ffn(c, gated=gated), c.count("num_heads")
    table = c.count("relative_attention_num_buckets", default=32) * heads
    own, cross = replace(cells, causal=False), replace(cells, cross=True, causal=False, source=c.count("n_positions", default=512))
    coder = [block(c, replace(own, qkv_out_extra=0 if i else table), inner) for i in range(c.count("num_layers"))]
    depth = c.count("num_decoder_layers", default=len(coder))
    decoder = [block(c, replace(cells, qkv_out_extra=0 if i else table), cross, inner, norms=3) for i in range(depth)]
    return Model(
        c.name,
        "t5",
        c.count("vocab_size"),
        c.count("n_positions", default=512),
        (stack(c.hidden, coder, "encoder"), stack(c.hidden, decoder)),
        tied=c.flag("tie_word_embeddings", True),
        final_norm_parameters=2 * c.hidden,
        dtype=c.dtype,
        notes=(DECODER_ALONE,),
    )


def whisper(c: Config) -> Model:
    """Convolutions and an encoder over a fixed window of audio, a decoder with cross-attention; keys have no bias."""
    width, source = c.hidden, c.count("max_source_positions", default=WHISPER_SECONDS_POSITIONS)

    def cell(side: str) -> Attention:
        return attention(c, c.count(f"{side}_attention_heads"), qkv_bias=True, out_bias=True, qkv_out_extra=-width)

    def inner(side: str) -> Ffn:
        return ffn(c, gated=False, bias=True, inner=c.count(f"{side}_ffn_dim"))

    coder = block(c, replace(cell("encoder"), causal=False), inner("encoder"), bias=True)
    cross = replace(cell("decoder"), cross=True, causal=False, source=source)
    decoder = block(c, cell("decoder"), cross, inner("decoder"), norms=3, bias=True)
    front = linear(3 * c.count("num_mel_bins") + 3 * width, width) + width  # two convolutions of width 3
    audio = ((2 * width, 3 * c.count("num_mel_bins")), (width, 3 * width))  # two frames per position, then one of both
    parts = (("audio input", front), ("encoder position", source * width))
    length = c.count("max_target_positions", default=448)
    stacks = (
        stack(width, [coder] * c.count("encoder_layers"), "encoder", source, audio),
        stack(width, [decoder] * c.count("decoder_layers")),
    )
    return Model(
        c.name,
        "whisper",
        c.count("vocab_size"),
        length,
        stacks,
        tied=c.flag("tie_word_embeddings", True),
        position_rows=length,
        final_norm_parameters=4 * width,
        extra_parameters=sum(n for _, n in parts),
        extra_parts=parts,
        dtype=c.dtype,
        notes=(DECODER_ALONE,),
    )


def clip(c: Config) -> Model:
    """An image and a text encoder side by side, each projected to a common width."""
    text, vision = c.sub("text_config"), c.sub("vision_config")
    if text is None or vision is None:
        raise InputError("keys 'text_config' and 'vision_config' are needed", c.where)
    side = vision.count("image_size") // vision.count("patch_size")
    patches = (3 * vision.count("patch_size") ** 2 + side * side + 2 + 4) * vision.hidden
    common, pixels = c.count("projection_dim"), ((vision.hidden, 3 * vision.count("patch_size") ** 2),)
    parts = (("image input", patches), ("projection", (vision.hidden + text.hidden) * common + 1))
    return Model(
        c.name,
        "clip",
        text.count("vocab_size"),
        text.count("max_position_embeddings"),
        (stack(vision.hidden, _coder(vision), "encoder", side * side + 1, pixels), stack(text.hidden, _coder(text), "encoder")),
        has_head=False,
        generates=False,
        notes=(VECTORS,),
        position_rows=text.count("max_position_embeddings"),
        final_norm_parameters=2 * text.hidden,
        extra_parameters=sum(n for _, n in parts),
        extra_parts=parts,
        dtype=c.dtype,
    )


def _coder(c: Config) -> list[Block]:
    cells = attention(c, qkv_bias=True, out_bias=True, causal=False)
    return [block(c, cells, ffn(c, gated=False, bias=True), bias=True)] * c.layers


ENCODER = {"t5": t5, "mt5": t5, "whisper": whisper, "clip": clip}
