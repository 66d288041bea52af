"""Pieces that model families are put together from: cells, blocks, stacks and the frame of a decoder (floor 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apexsim.errors import InputError
from apexsim.model.cell import Cell
from apexsim.model.cells import Attention, Ffn
from apexsim.model.config import HEADS, INNER, POSITIONS, Config
from apexsim.model.model import Block, Model, Stack

DEFAULT_LENGTH = 2048  # where a config names no maximum length (Falcon)
SLIDING = ("sliding_attention", "chunked_attention", "sliding")
FULL = ("full_attention", "attention", "full", "global", "global_attention", "")  # "": nothing is said of the layer


def attention(c: Config, heads: int = 0, kv_heads: int = 0, **changes: Any) -> Attention:
    """Self-attention from the usual keys; `changes` are fields of `Attention` (biases, windows, norms)."""
    heads = heads or c.count(*HEADS)
    kv_heads = kv_heads or c.count("num_key_value_heads", "num_kv_heads", default=heads)
    head_dim = changes.pop("head_dim", 0) or c.count("head_dim", "attention_head_dim", "d_kv", default=0)
    if not head_dim:
        head_dim, rest = divmod(c.hidden, heads)
        if rest:
            what = f"hidden size {c.hidden} cannot be divided by key '{HEADS[0]}' = {heads}"
            raise InputError(what, c.where, "give 'head_dim'")
    if heads % kv_heads:
        raise InputError(f"key 'num_key_value_heads' = {kv_heads} does not divide {heads} heads", c.where)
    bias = c.flag("attention_bias") or c.flag("qkv_bias")
    return Attention(heads, kv_heads, head_dim, **{"qkv_bias": bias, **changes})


def ffn(c: Config, gated: bool = True, bias: bool = False, inner: int = 0) -> Ffn:
    """Dense feed-forward layer; in the older ungated ones a missing inner width means 4 x hidden."""
    return Ffn(inner or c.count(*INNER, default=None if gated else 4 * c.hidden), gated, bias or c.flag("mlp_bias"))


def block(c: Config, *cells: Cell, norms: int = 2, bias: bool = False, parallel: bool = False) -> Block:
    """Cells in order with `norms` norms of the hidden width (twice as many parameters with a bias: LayerNorm)."""
    return Block(cells, norms * c.hidden * (2 if bias else 1), parallel)


def stack(
    hidden: int, layers: Sequence[Block], role: str = "decoder", source_length: int = 0, front: tuple[tuple[int, int], ...] = ()
) -> Stack:
    """Layers in order, equal blocks stored once."""
    unique = {b: i for i, b in enumerate(dict.fromkeys(layers))}
    return Stack(role, hidden, tuple(unique), tuple(unique[b] for b in layers), source_length, front)


def max_length(c: Config) -> int:
    """Most positions of a sequence; YaRN stretches those of before by its factor, as engines count (vllm/config, max_model_len)."""
    stated = c.count(*POSITIONS, default=DEFAULT_LENGTH)
    rope = next((c.sub(key) for key in ("rope_scaling", "rope_parameters") if isinstance(c.data.get(key), Mapping)), None)
    if rope is None or "yarn" not in (rope.data.get("type"), rope.data.get("rope_type")):
        return stated
    return max(stated, int(rope.count("original_max_position_embeddings", default=stated) * rope.number("factor", 1.0)))


def slides(c: Config, kind: object) -> bool:
    """Whether a layer of that kind has a sliding window; raises InputError for a kind that layers of this family have not."""
    if kind in SLIDING or kind in FULL:
        return kind in SLIDING
    told = f"key 'layer_types' has {str(kind)[:40]!r}: such layers are not known of '{c.text('model_type')}'"
    raise InputError(told, c.where, f"known are {', '.join((*SLIDING[:2], *FULL[:2]))}")


def windows(c: Config, every: int = 0, offset: int = 0) -> list[int]:
    """Sliding window of each layer, 0 = full: from `layer_types`, else every `every`-th layer full, else all alike."""
    window = c.count("sliding_window", "sliding_window_size", default=0, low=0)
    if not c.flag("use_sliding_window", True):
        window = 0
    kinds = c.per_layer("layer_types", c.layers)
    if kinds is not None:
        return [window if slides(c, kind) else 0 for kind in kinds]
    if every:
        return [0 if (i + 1 + offset) % every == 0 else window for i in range(c.layers)]
    return [window] * c.layers


def rope_dim(c: Config, head_dim: int, tables: int = 1) -> int:
    """Width of the rotary cache: the rotated share of a head, times the number of distinct tables."""
    inner = c.sub("rope_parameters")
    factor = c.number("partial_rotary_factor", inner.number("partial_rotary_factor", 1.0) if inner else 1.0)
    share = c.count("rotary_dim", default=0, low=0) or int(head_dim * c.number("rotary_pct", factor))
    return min(share, head_dim) * tables


def frame(c: Config, layers: Sequence[Block], tied: bool = False, norm_bias: bool = False, **changes: Any) -> Model:
    """A decoder-only model around its layers; `tied` is the family's default, `changes` are fields of `Model`."""
    first = next((cell for b in layers for cell in b.cells if isinstance(cell, Attention)), None)
    return Model(
        **{
            "name": c.name,
            "family": c.text("model_type"),
            "vocab": c.count("vocab_size"),
            "max_length": max_length(c),
            "stacks": (stack(c.hidden, layers),),
            "tied": c.flag("tie_word_embeddings", tied),
            "final_norm_parameters": c.hidden * (2 if norm_bias else 1),
            "rope_dim": rope_dim(c, first.head_dim) if first else 0,
            "dtype": c.dtype,
            "source": c.where,
            **changes,
        }
    )


VECTORS = (
    "it generates nothing: a text is answered with vectors or classes, and nothing is kept in a cache; ask with --output-len 1, then "
    "TTFT is the time of an answer"
)


def uniform(c: Config, one: Block, **changes: Any) -> Model:
    """A decoder whose layers are all alike."""
    return frame(c, [one] * c.layers, **changes)
