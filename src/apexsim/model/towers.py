"""Parameters of vision and audio towers and their projectors (floor 2).

Counts follow the reference implementations in Hugging Face transformers.  `tower_parts` names what the total includes;
towers that published totals leave out (Gemma 4, Kimi K2.5, Kimi K3) come back as outside parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt, prod

from apexsim.model.config import HIDDEN, INNER, LAYERS, Config

SIGLIP_SIDE = 224  # pixels, where the config leaves it out
MLLAMA = {  # defaults of transformers' MllamaVisionConfig, which a config.json leaves out
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_global_layers": 8, "image_size": 448, "patch_size": 14,
    "max_num_tiles": 4, "vision_output_dim": 7680, "supported_aspect_ratios": [[]] * 8,
}  # fmt: skip
MEL_HALVINGS = 3  # strided convolutions in front of the Qwen3-Omni audio encoder
Parts = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Tower:
    """A transformer encoder: its layers, width, FFN width and whether it has biases and a gated FFN."""

    layers: int
    width: int
    inner: int
    bias: bool = True
    gated: bool = False
    norm_bias: bool = True
    attention: int = 0  # width of queries, keys and values; 0 = width

    @property
    def count(self) -> int:
        """Parameters of all layers: attention, FFN and two norms each."""
        w, inner, up = self.width, self.inner, 2 if self.gated else 1
        qkv = self.attention or w
        one = 4 * w * qkv + (3 * qkv + w) * self.bias
        one += w * inner * (up + 1) + (up * inner + w) * self.bias + 2 * w * (1 + self.norm_bias)
        return self.layers * one


def linear(wide: int, narrow: int, bias: bool = True) -> int:
    """Parameters of one projection from `wide` to `narrow`."""
    return wide * narrow + narrow * bias


def _tower(v: Config, **changes: bool) -> Tower:
    return Tower(v.count(*LAYERS), v.count(*HIDDEN), v.count(*INNER), **changes)


def _patches(v: Config, bias: bool = True) -> int:
    channels = v.count("num_channels", "in_channels", "in_chans", default=3)
    frames, side = v.count("temporal_patch_size", default=1), v.count("patch_size")
    return linear(channels * frames * side * side, v.count(*HIDDEN), bias)


def qwen3_vl(v: Config, c: Config) -> int:
    """Learned positions, layer norms, one merger and one more per deep-stack layer."""
    width, out = v.count(*HIDDEN), v.count("out_hidden_size")
    merged = width * v.count("spatial_merge_size") ** 2
    merger = linear(merged, merged) + linear(merged, out)
    deep = len(v.numbers("deepstack_visual_indexes"))
    positions = v.count("num_position_embeddings") * width
    return _tower(v).count + _patches(v) + positions + merger + 2 * width + deep * (merger + 2 * merged)


def qwen2_5_vl(v: Config, c: Config) -> int:
    """RMS norms, gated FFN with biases, one merger."""
    width = v.count(*HIDDEN)
    merged = width * v.count("spatial_merge_size") ** 2
    tower = _tower(v, gated=True, norm_bias=False).count
    return tower + _patches(v, False) + width + linear(merged, merged) + linear(merged, v.count("out_hidden_size"))


def qwen2_vl(v: Config, c: Config) -> int:
    """Layer norms, ungated FFN with biases, one merger; `hidden_size` is the width behind it."""
    width, out = v.count("embed_dim"), v.count("hidden_size")
    tower = Tower(v.count("depth"), width, int(v.number("mlp_ratio", 4.0) * width)).count
    merged = width * v.count("spatial_merge_size", default=2) ** 2
    patches = linear(3 * v.count("temporal_patch_size", default=2) * v.count("patch_size") ** 2, width, False)
    return tower + patches + 2 * width + linear(merged, merged) + linear(merged, out)


def glm4v(v: Config, c: Config) -> int:
    """RMS norms, gated FFN without biases, a convolution that merges and a gated projector."""
    width, out, inner = v.count(*HIDDEN), v.count("out_hidden_size"), v.count("intermediate_size")
    side, merge = v.count("image_size") // v.count("patch_size"), v.count("spatial_merge_size", default=2)
    tower = Tower(v.count(*LAYERS), width, out, bias=False, gated=True, norm_bias=False).count
    merger = out * out + 2 * out + 3 * out * inner
    frames = v.count("temporal_patch_size", default=2)
    patches = linear(3 * frames * v.count("patch_size") ** 2, width)
    return tower + patches + side * side * width + 2 * width + linear(merge * merge * width, out) + merger


def siglip(v: Config) -> int:
    """SigLIP without its pooling head: learned positions, a last layer norm."""
    width, side = v.count(*HIDDEN), v.count("image_size", default=SIGLIP_SIDE) // v.count("patch_size")
    return _tower(v).count + _patches(v) + side * side * width + 2 * width


def clip_vit(v: Config) -> int:
    """CLIP's vision transformer: class token, learned positions, layer norms in front and behind."""
    width, side = v.count(*HIDDEN), v.count("image_size") // v.count("patch_size")
    return _tower(v).count + _patches(v, False) + (side * side + 2) * width + 4 * width


def gemma3(v: Config, c: Config) -> int:
    """SigLIP, a norm and one projection without bias."""
    return siglip(v) + v.count(*HIDDEN) * (c.hidden + 1)


def llava(v: Config, c: Config) -> int:
    """CLIP, SigLIP or Pixtral's tower, a two-layer projector over the chosen feature layers, LLaVA-NeXT's newline vector."""
    body = next((count(v) for kind, count in BODIES.items() if v.text("model_type").startswith(kind)), 0) or clip_vit(v)
    chosen = c.data.get("vision_feature_layer")
    features = v.count(*HIDDEN) * (len(chosen) if isinstance(chosen, list) else 1)
    newline = c.hidden if c.text("model_type") == "llava_next" else 0
    return body + linear(features, c.hidden) + linear(c.hidden, c.hidden) + newline


def pixtral_vit(v: Config) -> int:
    """Rotary vision transformer without biases, RMS norms and a gated FFN."""
    return _tower(v, bias=False, gated=True, norm_bias=False).count + _patches(v, False) + v.count(*HIDDEN)


BODIES = {"siglip": siglip, "pixtral": pixtral_vit}  # towers under LLaVA's projector, CLIP where none is named


def pixtral(v: Config, c: Config) -> int:
    """Pixtral's tower, a patch merger and a two-layer projector."""
    width, merge = v.count(*HIDDEN), c.count("spatial_merge_size", default=2)
    bias = c.flag("multimodal_projector_bias")
    tower = pixtral_vit(v)
    projector = width + linear(merge * merge * width, width, False) + linear(width, c.hidden, bias)
    return tower + projector + linear(c.hidden, c.hidden, bias)


def intern_vit(v: Config, c: Config) -> int:
    """InternViT: class token, learned positions, scaled residuals, norms of queries and keys in the large one; four patches
    merged into a token by a norm and two projections."""
    width, side = v.count(*HIDDEN), v.count("image_size") // v.count("patch_size")
    rms, merged = v.text("norm_type") == "rms_norm", 4 * width
    tower = Tower(v.count(*LAYERS), width, v.count(*INNER), norm_bias=not rms)
    extra = 2 * width + 2 * width * v.flag("qk_normalization") - 3 * width * (not v.flag("qkv_bias", True))
    front = _patches(v) + (side * side + 2) * width
    return tower.count + tower.layers * extra + front + 2 * merged + linear(merged, c.hidden) + linear(c.hidden, c.hidden)


def mllama(v: Config, c: Config) -> int:
    """Llama 3.2 Vision: two towers one behind the other, position and tile tables, kept layers side by side in one projection."""
    v = Config({**MLLAMA, **v.data}, v.where)
    width, inner, local, over = v.count(*HIDDEN), v.count(*INNER), v.count(*LAYERS), v.count("num_global_layers")
    one = 4 * width * width + linear(width, inner) + linear(inner, width) + 4 * width
    tokens, tiles = (v.count("image_size") // v.count("patch_size")) ** 2 + 1, v.count("max_num_tiles")
    ratios = v.size("supported_aspect_ratios") + 1
    tables = tokens * width * (1 + ratios * tiles) + 1 + 2 * (ratios * tiles * width + 1)
    front = width + _patches(v, False) + 4 * width
    return (local + over) * one + 2 * over + tables + front + linear(v.count("vision_output_dim"), c.hidden)


def paligemma(v: Config, c: Config) -> int:
    """SigLIP and one projection."""
    return siglip(v) + linear(v.count(*HIDDEN), c.hidden)


def idefics3(v: Config, c: Config) -> int:
    """SigLIP and one projection without bias over a square of its patches (Idefics 3, SmolVLM)."""
    return siglip(v) + v.count(*HIDDEN) * c.count("scale_factor", default=2) ** 2 * c.hidden


def lfm2_vl(v: Config, c: Config) -> int:
    """SigLIP 2 for images of any shape, a square of patches merged by two projections."""
    side = isqrt(v.count("num_patches")) * v.count("patch_size")
    merged, inner = v.count(*HIDDEN) * c.count("downsample_factor", default=2) ** 2, c.count("projector_hidden_size")
    norm = 2 * merged * c.flag("projector_use_layernorm", True)
    return siglip(Config({**v.data, "image_size": side}, v.where)) + norm + linear(merged, inner) + linear(inner, c.hidden)


def moonvit(v: Config, c: Config) -> int:
    """MoonViT: learned positions on a grid, a last norm, a merging projector."""
    width = v.count("vt_hidden_size", *HIDDEN)
    bias, norm = v.flag("linear_bias", True), v.text("norm_type") != "rmsnorm"
    tower = Tower(
        v.count("vt_num_hidden_layers", *LAYERS),
        width,
        v.count("vt_intermediate_size", *INNER),
        bias,
        norm_bias=norm,
        attention=v.count("qkv_hidden_size", default=width),
    )
    kernel = v.numbers("merge_kernel_size") or [2, 2]
    merged = width * prod(kernel)
    positions = v.count("init_pos_emb_height") * v.count("init_pos_emb_width") * width
    patches = linear(3 * v.count("patch_size") ** 2, width, v.flag("patch_embed_proj_bias", True))
    norms = 4 * width  # behind the tower and in front of the projector
    return tower.count + patches + positions + norms + linear(merged, merged) + linear(merged, c.hidden)


def dots(v: Config, c: Config) -> int:
    """Rotary vision transformer with RMS norms and a gated FFN, a merging projector."""
    width, bias = v.count(*HIDDEN), v.flag("use_bias")
    merged = width * v.count("spatial_merge_size") ** 2
    tower = _tower(v, bias=bias, gated=True, norm_bias=False).count + _patches(v) + width
    return tower + width * v.flag("post_norm") + 2 * width + linear(merged, merged) + linear(merged, c.hidden)


def gemma4(v: Config, c: Config) -> int:
    """Gated FFN, four norms a layer and norms of query and key heads; two position tables; one projection."""
    width = v.count(*HIDDEN)
    tower = _tower(v, bias=False, gated=True, norm_bias=True)
    norms = tower.layers * 2 * v.count("head_dim")
    positions = 2 * v.count("position_embedding_size") * width
    return tower.count + norms + _patches(v, False) + positions + width * c.hidden


def qwen3_audio(a: Config, c: Config) -> int:
    """Whisper's encoder layers behind three 3x3 convolutions, two projections; positions are computed."""
    width, channels = a.count("d_model"), a.count("downsample_hidden_size")
    tower = Tower(a.count("encoder_layers"), width, a.count("encoder_ffn_dim")).count
    bins = a.count("num_mel_bins")
    for _ in range(MEL_HALVINGS):
        bins = (bins + 1) // 2
    front = linear(9, channels) + 2 * linear(9 * channels, channels) + channels * bins * width
    return tower + front + 2 * width + linear(width, width) + linear(width, a.count("output_dim"))


def whisper_encoder(a: Config) -> int:
    """Whisper's encoder: two convolutions, positions, keys without bias."""
    width = a.count("d_model", *HIDDEN)
    tower = Tower(a.count("encoder_layers", *LAYERS), width, a.count("encoder_ffn_dim", *INNER))
    front = linear(3 * a.count("num_mel_bins"), width) + linear(3 * width, width) + a.count("max_source_positions") * width
    return tower.count - tower.layers * width + front + 2 * width


def voxtral(a: Config, c: Config) -> int:
    """Whisper's encoder, four positions joined by two projections."""
    return whisper_encoder(a) + (a.count("encoder_ffn_dim", *INNER) + c.hidden) * c.hidden


def qwen2_audio(a: Config, c: Config) -> int:
    """Whisper's encoder and one projection."""
    return whisper_encoder(a) + linear(a.count("d_model"), a.count("output_dim", default=c.hidden))


AUDIO: dict[str, Callable[[Config, Config], int]] = {
    "qwen3_omni_moe": qwen3_audio, "voxtral": voxtral, "qwen2_5_omni": qwen2_audio, "qwen2_audio": qwen2_audio,
}  # fmt: skip
TOWERS: dict[str, Callable[[Config, Config], int]] = {
    "qwen3_vl": qwen3_vl, "qwen3_vl_moe": qwen3_vl, "qwen3_5": qwen3_vl, "qwen3_5_moe": qwen3_vl,
    "qwen3_omni_moe": qwen3_vl, "qwen2_5_vl": qwen2_5_vl, "gemma3": gemma3, "gemma4": gemma4, "llava": llava,
    "llava_next": llava, "mistral3": pixtral, "kimi_vl": moonvit, "kimi_k25": moonvit, "kimi_k3": moonvit,
    "dots_ocr": dots, "qwen2_vl": qwen2_vl, "glm4v": glm4v, "glm4v_moe": glm4v,
    "internvl_chat": intern_vit, "mllama": mllama, "paligemma": paligemma,
    "qwen2_5_omni": qwen2_5_vl, "lfm2_vl": lfm2_vl, "idefics3": idefics3, "smolvlm": idefics3,
}  # fmt: skip
OUTSIDE = ("gemma4", "kimi_k25", "kimi_k3")  # published totals and names count the language model alone


def uncounted(config: Config) -> tuple[str, ...]:
    """A remark where a config has a tower that nobody has written down."""
    sections = (("vision_config",), ("audio_config",), ("thinker_config", "vision_config"), ("thinker_config", "audio_config"))
    has = any(config.sub(*keys) is not None for keys in sections) or config.has("vision_tower", "img_processor", "embd_layer")
    if config.text("model_type") in (*TOWERS, *AUDIO, "clip") or not has:
        return ()
    return (f"the vision or audio tower of '{config.text('model_type')}' is not counted: language model only",)


def tower_parts(config: Config, inner: Config) -> tuple[Parts, Parts]:
    """Named parameters of a config's towers: (in the total, outside of it)."""
    kind = config.text("model_type")
    if kind not in TOWERS and kind not in AUDIO:
        return (), ()
    around = Config({**config.data, "hidden_size": inner.hidden}, config.where, config.name)
    vision = config.sub("vision_config") or config.sub("thinker_config", "vision_config")
    audio = config.sub("thinker_config", "audio_config") or config.sub("audio_config")
    parts: Parts = ()
    if vision is not None:
        parts += (("vision", TOWERS[kind](vision, around)),)
    if audio is not None and kind in AUDIO:
        parts += (("audio", AUDIO[kind](audio, around)),)
    return ((), parts) if kind in OUTSIDE else (parts, ())
