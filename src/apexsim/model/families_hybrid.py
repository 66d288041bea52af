"""Families that mix attention with linear attention, state space or compressed attention, and Gemma 4 (floor 2).

Facts follow the reference implementations in Hugging Face transformers, vLLM and the models' own code.
"""

from __future__ import annotations

from dataclasses import replace

from apexsim.errors import InputError
from apexsim.model.builders import attention, block, ffn, frame, rope_dim, slides
from apexsim.model.cell import Cell
from apexsim.model.cells import NO_INDEXER, Attention, Ffn, Indexer, LatentAttention, LinearAttention
from apexsim.model.config import HEADS, INNER, Config
from apexsim.model.families_moe import experts, is_moe, latent, mtp
from apexsim.model.model import Block, Model

MAMBA, MOE, ATTENTION, MLP = "mamba", "moe", "attention", "mlp"
PATTERN = {"M": MAMBA, "E": MOE, "*": ATTENTION, "-": MLP}  # letters of Nemotron-H's hybrid_override_pattern
WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}


def gated_delta_net(c: Config, parts: int = 1) -> LinearAttention:
    """Gated DeltaNet of Qwen3-Next: projections to q, k, v, z, beta and decay, convolution, gated norm, output.  parts: Qwen3.5 holds z
    apart from q, k and v, and decay apart from beta."""
    kh, vh = c.count("linear_num_key_heads"), c.count("linear_num_value_heads")
    kd, vd = c.count("linear_key_head_dim"), c.count("linear_value_head_dim")
    conv, keys, values = c.count("linear_conv_kernel_dim", default=4), 2 * kh * kd, vh * vd
    projections = ((keys + 2 * values, c.hidden), (2 * vh, c.hidden), (c.hidden, values))
    count = sum(n * k for n, k in projections) + (keys + values) * conv + 2 * vh + vd
    return LinearAttention("gdn", kh, vh, kd, vd, conv, parameters=count, projections=projections, parts=parts)


def mamba2(c: Config) -> LinearAttention:
    """Mamba2: key heads are groups, the key width is the state size; A, D and dt biases, gated norm."""
    heads, dim = c.count("mamba_num_heads"), c.count("mamba_head_dim")
    groups, state, conv = c.count("n_groups"), c.count("ssm_state_size"), c.count("conv_kernel", default=4)
    inner, mixed = heads * dim, heads * dim + 2 * groups * state
    projections = ((inner + mixed + heads, c.hidden), (c.hidden, inner))
    count = sum(n * k for n, k in projections) + mixed * (conv + c.flag("use_conv_bias")) + 3 * heads + inner
    width = WIDTHS.get(c.text("mamba_ssm_cache_dtype"), 2)
    return LinearAttention("mamba2", groups, heads, state, dim, conv, groups, width, count, projections)


def kimi_delta(c: Config) -> LinearAttention:
    """Kimi delta attention: q, k, v, low-rank decay, beta, an output gate (low or full rank), three convolutions."""
    row = c.sub("linear_attn_config")
    if row is None:
        raise InputError("key 'linear_attn_config' is missing", c.where)
    heads, dim, conv = row.count("num_heads"), row.count("head_dim"), row.count("short_conv_kernel_size", default=4)
    width = heads * dim
    low = ((dim, c.hidden), (width, dim))
    gate = ((width, c.hidden),) if row.flag("use_full_rank_gate") else low
    projections = ((3 * width, c.hidden), *low, (heads, c.hidden), *gate, (c.hidden, width))
    count = sum(n * k for n, k in projections) + 3 * width * conv + heads + width + dim
    return LinearAttention("kda", heads, heads, dim, dim, conv, parameters=count, projections=projections)


def qwen3_next(c: Config) -> Model:
    """Three Gated DeltaNet layers to one gated full attention; experts with a gated shared one, or a dense FFN."""
    full: Cell = attention(c, qk_norm="head", gate=True)
    every = c.count("full_attention_interval", default=4)
    regular = ["" if (i + 1) % every else "full_attention" for i in range(c.layers)]
    kinds = c.per_layer("layer_types", c.layers) or regular
    shared = c.count("shared_expert_intermediate_size", default=0, low=0)
    moe = experts(c, shared_inner=shared, shared_gate=shared > 0) if c.has("num_experts") else ffn(c)
    linear, dense = gated_delta_net(c, 2 if c.text("model_type").startswith("qwen3_5") else 1), None if all(is_moe(c)) else ffn(c)
    layers = [
        block(c, full if kind == "full_attention" else linear, moe if s or dense is None else dense)
        for kind, s in zip(kinds, is_moe(c), strict=True)
    ]
    last = block(c, full, layers[-1].cells[1])
    return frame(c, layers, outside_parts=mtp(c, last))


def nemotron_h(c: Config) -> Model:
    """One mixer a layer behind one norm: Mamba2, attention, squared-ReLU FFN or (latent) experts."""
    kinds = c.data.get("layers_block_type") or [PATTERN.get(x, x) for x in c.text("hybrid_override_pattern")]
    cells: dict[str, Cell] = {MAMBA: mamba2(c), ATTENTION: attention(c)}
    if MLP in kinds:
        cells[MLP] = Ffn(c.count(*INNER), gated=False, bias=c.flag("mlp_bias"))
    if MOE in kinds:
        wide = c.count("moe_shared_expert_intermediate_size", default=0, low=0)
        shared, low = c.count("n_shared_experts", default=0, low=0), c.count("moe_latent_size", default=0, low=0)
        cells[MOE] = experts(c, gated=False, shared_inner=shared * wide, router_bias=True, latent=low)
    strange = [k for k in kinds if k not in cells]
    if strange or not kinds:
        what = f"key 'hybrid_override_pattern' names {strange[:1] or 'no layers'}"
        raise InputError(what, c.where, f"known: {', '.join(PATTERN)}")
    extra = [PATTERN.get(x, x) for x in c.data.get("mtp_layers_block_type") or c.text("mtp_hybrid_override_pattern")]
    return frame(
        c,
        [block(c, cells[k], norms=1) for k in kinds],
        rope_dim=0,
        outside_parts=mtp(c, block(c, *(cells[k] for k in extra if k in cells))) if extra else (),
    )


def kimi_linear(c: Config) -> Model:
    """Three Kimi delta attention layers to one latent attention, experts in a narrower width; dense first layers."""
    row = c.sub("linear_attn_config")
    linear, full = kimi_delta(c), replace(latent(c), gate=c.flag("mla_use_output_gate"))
    moe = experts(c, latent=c.count("routed_expert_hidden_size", default=0, low=0))
    kda = set(row.numbers("kda_layers")) if row is not None else set()
    dense = ffn(c)
    layers = [block(c, linear if i + 1 in kda else full, moe if sparse else dense) for i, sparse in enumerate(is_moe(c))]
    return frame(c, layers, outside_parts=mtp(c, layers[-1]), rope_dim=0 if c.flag("mla_use_nope") else full.rope_dim)


def deepseek_v4(c: Config) -> Model:
    """Shared-KV attention over a window and compressed tokens, grouped output projection, widened residual stream."""
    ratios = c.per_layer("compress_ratios", c.layers)
    if ratios is None:
        raise InputError("key 'compress_ratios' is missing", c.where)
    moe = experts(c)
    streams = c.count("hc_mult", default=1)
    mixing = 2 * (streams * c.hidden + 1) * (2 + streams) * streams + 6 if streams > 1 else 0
    cells = {r: _compressed(c, int(r)) for r in dict.fromkeys(ratios)}
    layers = [Block((cells[r], moe), 2 * c.hidden + mixing) for r in ratios]
    final = c.hidden + ((streams * c.hidden + 1) * streams + 1 if streams > 1 else 0)
    rotary = 2 * c.count("qk_rope_head_dim")  # two tables: plain and compressed positions
    return frame(c, layers, final_norm_parameters=final, outside_parts=mtp(c, layers[0]), rope_dim=rotary)


def _compressed(c: Config, ratio: int) -> LatentAttention:
    """One layer's attention; compressors stand in `extra` (key/value and gate projections, positions, norm)."""
    dim, rope, index = c.count("head_dim"), c.count("qk_rope_head_dim"), c.count("index_head_dim")
    overlap = 2 if ratio == 4 else 1

    def compressor(width: int) -> int:
        return 2 * c.hidden * overlap * width + ratio * overlap * width + width if ratio else 0

    indexed = ratio == 4
    extra = rope + compressor(dim) + (compressor(index) - c.hidden * index - 2 * index if indexed else 0)
    return LatentAttention(
        c.count(*HEADS),
        c.count("q_lora_rank"),
        dim - rope,
        dim - rope,
        rope,
        dim,
        window=c.count("sliding_window"),
        compress=ratio,
        shared_kv=True,
        o_groups=c.count("o_groups"),
        o_rank=c.count("o_lora_rank"),
        sinks=True,
        extra=extra,
        index=Indexer(c.count("index_n_heads"), index, c.count("index_topk")) if indexed else NO_INDEXER,
    )


def gemma4(c: Config) -> Model:
    """Full layers have wider heads and may use keys as values; experts beside the FFN, per-layer embeddings."""
    kinds = c.per_layer("layer_types", c.layers) or []
    shared = c.count("num_kv_shared_layers", default=0, low=0)
    narrow = c.count("hidden_size_per_layer_input", default=0, low=0)
    local, full = _gemma4_attention(c)
    moe = (experts(c, extra=c.hidden + c.count("num_experts")),) if c.flag("enable_moe_block") else ()
    dense = ffn(c)
    wide = replace(dense, inner=2 * dense.inner) if c.flag("use_double_wide_mlp") else dense  # of layers that read another's cache
    norms = 4 + (3 if c.flag("enable_moe_block") else 0) + (1 if narrow else 0)
    layers = []
    for i, kind in enumerate(kinds):
        mixer, second = local if slides(c, kind) else full, dense
        if i >= c.layers - shared:  # the checkpoint still holds the unused key and value projections
            mixer, second = replace(mixer, shares_kv=True, qkv_out_extra=2 * c.hidden * mixer.kv_heads * mixer.head_dim), wide
        layers.append(Block((mixer, second, *moe), norms * c.hidden + 1 + 2 * c.hidden * narrow))
    tables = rope_dim(c, local.head_dim) + int(full.head_dim * _full_rotary(c))
    rows = c.count("vocab_size_per_layer_input", default=0, low=0) * narrow * c.layers
    parts = (("per-layer embedding", rows), ("projection", narrow * (c.layers * c.hidden + 1))) if narrow else ()
    return frame(c, layers, tied=True, rope_dim=tables, extra_parts=parts, extra_parameters=sum(n for _, n in parts))


def _full_rotary(c: Config) -> float:
    row = c.sub("rope_parameters", "full_attention")
    return row.number("partial_rotary_factor", 1.0) if row else 1.0


def _gemma4_attention(c: Config) -> tuple[Attention, Attention]:
    local = attention(c, qk_norm="head", window=c.count("sliding_window"))
    same = c.flag("attention_k_eq_v")
    kv = c.count("num_global_key_value_heads", default=local.kv_heads) if same else local.kv_heads
    dim = c.count("global_head_dim", default=local.head_dim)
    return local, attention(c, kv_heads=kv, head_dim=dim, qk_norm="head", k_is_v=same)


HYBRID = {
    "qwen3_next": qwen3_next, "qwen3_5_text": qwen3_next, "qwen3_5_moe_text": qwen3_next, "nemotron_h": nemotron_h,
    "kimi_linear": kimi_linear, "deepseek_v4": deepseek_v4, "DeepseekV4ForCausalLM": deepseek_v4, "gemma4_text": gemma4,
}  # fmt: skip
