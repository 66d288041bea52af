"""What a cell counts and stores: parameters, shares of a device, cache (floor 2).

Every function is pure arithmetic on the dimensions of a cell.  One set of counting functions serves both the whole
layer (tp = ep = 1) and the largest device.  Sharding follows vLLM, SGLang and TensorRT-LLM: heads, columns and experts
are divided, key/value heads are repeated once tp exceeds them, latent projections, routers and norms stand on every
device.  Not modelled: padding inside quantised kernels (some engines pad MXFP4 experts by 7-12 %).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

from apexsim.model.model import Attention, Block, Cell, Experts, Ffn, LatentAttention, LinearAttention, Model

PARTS = ("attention", "ffn", "experts", "shared", "router", "norm", "embedding", "position", "head")
VOCAB_PAD = 64  # rows; engines pad the vocabulary to this multiple before dividing it (vLLM DEFAULT_VOCAB_PADDING_SIZE)
INDEX_BLOCK = 128  # elements of the indexer's FP8 key per fp32 scale (DeepSeek-V3.2)
INACTIVE = ("per-layer embedding",)  # extra parts that are looked up, not multiplied


def _attention(cell: Attention, hidden: int, tp: int, ep: int, shared_tp: int) -> dict[str, int]:
    dim, value = cell.head_dim, cell.v_head_dim or cell.head_dim
    heads, kv = ceil(cell.heads / tp), _kv_heads(cell, tp)
    queries, keys, values = heads * dim * (2 if cell.gate else 1), kv * dim, 0 if cell.k_is_v else kv * value
    count = hidden * (queries + keys + values) + heads * value * hidden
    count += (queries + keys + values) * cell.qkv_bias + hidden * cell.out_bias + heads * cell.sinks
    norms = {"head": dim * (1 if cell.shares_kv else 2), "full": heads * dim + keys}
    count += norms.get(cell.qk_norm, 0) + _indexer(cell, hidden, hidden) + cell.qkv_out_extra
    return {"attention": count}


def _indexer(cell: Attention | LatentAttention, hidden: int, query_width: int) -> int:
    """Index query and key projections, key norm and head weights (DeepSeek-V3.2 report, 2.1), replicated."""
    if not cell.index_heads or cell.index_shared:
        return 0
    query = query_width * cell.index_heads * cell.index_dim
    return query + hidden * cell.index_dim + 2 * cell.index_dim + hidden * cell.index_heads


def _latent(cell: LatentAttention, hidden: int, tp: int, ep: int, shared_tp: int) -> dict[str, int]:
    heads, width = ceil(cell.heads / tp), cell.nope_dim + cell.rope_dim
    rank = cell.q_rank or hidden
    count = (hidden * cell.q_rank + cell.q_rank) if cell.q_rank else 0  # down-projection and its norm
    count += rank * heads * width
    count += hidden * (cell.kv_rank + cell.rope_dim) + cell.kv_rank
    count += 0 if cell.shared_kv else cell.kv_rank * heads * (cell.nope_dim + cell.v_dim)
    count += heads * cell.v_dim * (cell.o_rank if cell.o_groups else hidden)
    count += ceil(cell.o_groups / tp) * cell.o_rank * hidden
    count += heads * cell.sinks + hidden * heads * cell.v_dim * cell.gate
    return {"attention": count + _indexer(cell, hidden, rank) + cell.extra}


def _ffn(cell: Ffn, hidden: int, tp: int, ep: int, shared_tp: int) -> dict[str, int]:
    inner, up = ceil(cell.inner / tp), 2 if cell.gated else 1
    return {"ffn": hidden * inner * (up + 1) + (up * inner + hidden) * cell.bias}


def _experts(cell: Experts, hidden: int, tp: int, ep: int, shared_tp: int) -> dict[str, int]:
    inner, up = ceil(cell.inner / tp), 2 if cell.gated else 1
    width = cell.latent or hidden
    one = width * inner * (up + 1) + (up * inner + width) * cell.bias
    beside = ceil(cell.shared_inner / shared_tp)
    router = hidden * cell.experts + cell.experts * cell.router_bias + cell.extra
    return {
        "experts": ceil(cell.experts / ep) * one,
        "shared": hidden * beside * (up + 1) + hidden * cell.shared_gate,
        "router": router + (2 * hidden * cell.latent if cell.latent else 0),
    }


def _scan(cell: LinearAttention, hidden: int, tp: int, ep: int, shared_tp: int) -> dict[str, int]:
    return {"attention": ceil(cell.parameters / tp)}


_COUNT: dict[type, Callable[[Any, int, int, int, int], dict[str, int]]] = {
    Attention: _attention,
    LatentAttention: _latent,
    Ffn: _ffn,
    Experts: _experts,
    LinearAttention: _scan,
}


def parameters(cell: Cell, hidden: int) -> dict[str, int]:
    """Parameters of the whole cell by part: "attention", "ffn", "experts", "shared", "router"."""
    return _COUNT[type(cell)](cell, hidden, 1, 1, 1)


def device_parameters(cell: Cell, hidden: int, tp: int, ep: int = 1, shared_tp: int = 0) -> dict[str, int]:
    """Parameters of the cell on its largest device, by part.

    tp divides heads and inner widths, ep the experts; shared experts are divided by `shared_tp` (0 = tp): give the
    attention's tp where an engine shards them with the dense layers while the routed experts are expert parallel.
    Routers, latent down-projections and norms are whole on every device.
    """
    return _COUNT[type(cell)](cell, hidden, tp, ep, shared_tp or tp)


def absorbed_parameters(cell: Cell, tp: int) -> int:
    """Extra 16-bit copy of the key and value up-projections that engines keep for absorbed MLA decode, per device."""
    if not isinstance(cell, LatentAttention) or cell.shared_kv:
        return 0
    return cell.kv_rank * ceil(cell.heads / tp) * (cell.nope_dim + cell.v_dim)


def _kv_heads(cell: Attention, tp: int) -> int:
    return 0 if cell.shares_kv else max(1, ceil(cell.kv_heads / tp))


def kv_elements(cell: Cell, tp: int = 1) -> int:
    """Cache elements per token of the sequence and device: keys and values of the heads held, or the latent (whole).

    Cross-attention (see `prompt_elements`), encoders and layers that read another layer's cache store nothing here.
    Compressed latent attention stores one latent per `compress` tokens; its recent window counts in `state_bytes`.
    """
    if isinstance(cell, LatentAttention):
        return ceil((cell.kv_rank + cell.rope_dim) / max(1, cell.compress))
    if isinstance(cell, Attention) and cell.causal and not cell.cross:
        return _kv_heads(cell, tp) * (cell.head_dim + (cell.v_head_dim or cell.head_dim))
    return 0


def prompt_elements(cell: Cell, tp: int = 1) -> int:
    """Cache elements per token of the encoder's input and device (cross-attention)."""
    if isinstance(cell, Attention) and cell.cross:
        return _kv_heads(cell, tp) * (cell.head_dim + (cell.v_head_dim or cell.head_dim))
    return 0


def kv_window(cell: Cell) -> int:
    """Tokens of a sequence that the cell keeps (0 = all)."""
    if isinstance(cell, Attention):
        return cell.window or cell.chunk
    if isinstance(cell, LatentAttention) and not cell.compress:
        return cell.window
    return 0


def index_bytes(cell: Cell) -> float:
    """Cache of a sparse-attention indexer, per token and device [byte]: an FP8 key and its scales, never divided."""
    if not isinstance(cell, Attention | LatentAttention) or not cell.index_heads or cell.index_shared:
        return 0.0
    per_key = cell.index_dim + 4.0 * ceil(cell.index_dim / INDEX_BLOCK)
    return per_key / max(1, cell.compress if isinstance(cell, LatentAttention) else 1)


def kv_bytes(cell: Cell, tp: int, element: float) -> float:
    """Cache per token and device [byte] with `element` bytes per number, indexer included."""
    return kv_elements(cell, tp) * element + index_bytes(cell)


def state_bytes(cell: Cell, tp: int = 1) -> float:
    """State per sequence and device, whatever its length [byte].

    Linear attention: convolution inputs (2·key_heads·key_dim + value_heads·value_dim)/tp·(conv − 1) in 16 bit and the
    recurrent state (value_heads/tp)·key_dim·value_dim.  Compressed latent attention: its uncompressed recent window.
    """
    if isinstance(cell, LatentAttention) and cell.compress > 0:
        return 2.0 * cell.window * (cell.kv_rank + cell.rope_dim)
    if not isinstance(cell, LinearAttention):
        return 0.0
    width = 2 * cell.key_heads * cell.key_dim + cell.value_heads * cell.value_dim
    conv = width / tp * (cell.conv - 1) * 2
    return conv + cell.value_heads / tp * cell.key_dim * cell.value_dim * cell.state_width


def _blocks(model: Model) -> Iterator[tuple[int, Block, int]]:
    """(hidden, block, times it occurs) of every block of every stack."""
    for stack in model.stacks:
        for i, block in enumerate(stack.blocks):
            times = stack.layers.count(i)
            if times:
                yield stack.hidden, block, times


def model_parameters(model: Model) -> dict[str, int]:
    """Parameters by part, extra parts that the total includes under their own names; tied weights count once.

    `Model.outside_parts` (MTP layers, towers that the published total leaves out) are not in it.
    """
    counts = dict.fromkeys(PARTS, 0)
    for hidden, block, times in _blocks(model):
        counts["norm"] += block.norm_parameters * times
        for cell in block.cells:
            for part, n in parameters(cell, hidden).items():
                counts[part] += n * times
    width = model.embed_dim or model.hidden
    counts["norm"] += model.final_norm_parameters
    counts["embedding"] = model.vocab * width
    counts["position"] = model.position_rows * model.hidden
    counts["head"] = (0 if model.tied or not model.has_head else model.vocab * width) + model.vocab * model.head_bias
    for name, n in model.extra_parts:
        counts[name] = counts.get(name, 0) + n
    rest = model.extra_parameters - sum(n for _, n in model.extra_parts)
    if rest:
        counts["other"] = rest
    return {part: n for part, n in counts.items() if n}


def total_parameters(model: Model) -> int:
    """All parameters of the model (see `model_parameters`)."""
    return sum(model_parameters(model).values())


def active_parameters(model: Model) -> int:
    """Parameters that take part in one token: all but the experts not chosen; embedding and head included."""
    counts = model_parameters(model)
    idle = sum(counts.get(name, 0) for name in INACTIVE)
    for hidden, block, times in _blocks(model):
        for cell in block.cells:
            if isinstance(cell, Experts):
                idle += times * parameters(cell, hidden)["experts"] * (cell.experts - cell.top_k) // cell.experts
    return sum(counts.values()) - idle


def device_vocab(model: Model, tp: int) -> dict[str, int]:
    """Embedding and head parameters of one device: rows padded to a multiple of 64, divided by tp; tied is one copy."""
    rows = ceil(ceil(model.vocab / VOCAB_PAD) * VOCAB_PAD / tp)
    width = model.embed_dim or model.hidden
    head = 0 if model.tied or not model.has_head else rows * width
    return {"embedding": rows * width, "head": head + rows * model.head_bias}


def rope_bytes(model: Model) -> float:
    """The rotary cos/sin cache of one device [byte]: positions x rotary width, 16 bit; 0 without rotary positions."""
    return 2.0 * model.max_length * model.rope_dim


def _split_attention(cell: Attention, tp: int, ep: int) -> str | None:
    if cell.heads % tp:
        return f"{cell.heads} attention heads cannot be divided by tp {tp}"
    if cell.kv_heads % tp and tp % cell.kv_heads:
        return f"{cell.kv_heads} key/value heads neither divide nor are divided by tp {tp}"
    return None


def _split_latent(cell: LatentAttention, tp: int, ep: int) -> str | None:
    return f"{cell.heads} attention heads cannot be divided by tp {tp}" if cell.heads % tp else None


def _split_ffn(cell: Ffn, tp: int, ep: int) -> str | None:
    return f"inner width {cell.inner} cannot be divided by tp {tp}" if cell.inner % tp else None


def _split_experts(cell: Experts, tp: int, ep: int) -> str | None:
    if cell.experts < ep:
        return f"{cell.experts} experts are fewer than ep {ep}"
    if cell.inner % tp:
        return f"expert inner width {cell.inner} cannot be divided by tp {tp}"
    if cell.shared_inner % tp:
        return f"shared expert inner width {cell.shared_inner} cannot be divided by tp {tp}"
    return None


def _split_scan(cell: LinearAttention, tp: int, ep: int) -> str | None:
    if cell.value_heads % tp:
        return f"{cell.value_heads} {cell.kind} heads cannot be divided by tp {tp}"
    if cell.key_heads % tp and tp % cell.key_heads:
        return f"{cell.key_heads} {cell.kind} key heads or groups neither divide nor are divided by tp {tp}"
    return None


_SPLIT: dict[type, Callable[[Any, int, int], str | None]] = {
    Attention: _split_attention,
    LatentAttention: _split_latent,
    Ffn: _split_ffn,
    Experts: _split_experts,
    LinearAttention: _split_scan,
}


def split_rules(cell: Cell, hidden: int, tp: int, ep: int = 1) -> str | None:
    """Why engines cannot split this cell so, or None when they can."""
    return _SPLIT[type(cell)](cell, tp, ep)
