"""What an image costs: its tokens by the model's own rule, and the vision tower's work (floor 2).

Dynamic towers (Qwen-VL, Pixtral, MoonViT, dots) cut the image as it is into patches and merge a square of them into one token; fixed ones
(SigLIP of Gemma 3, CLIP of LLaVA) scale every image to one square.  Gemma 3 pools its patches to a stated number of tokens; LLaVA-NeXT
and InternVL add tiles of the same square, four at the most here.  Images of Llama 3.2 Vision add no tokens, its layers attend to them.
Ignored: windows of Qwen2.5-VL's tower (all layers attend to the whole image, too slow for large images), row separators, resizing limits
of the processors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from apexsim.errors import InputError
from apexsim.model.config import HIDDEN, INNER, LAYERS, Config
from apexsim.model.towers import SIGLIP_SIDE, TOWERS

FIXED = ("gemma3", "llava", "llava_next", "paligemma", "internvl_chat")  # model types whose images become one square
GATED = ("qwen2_5_vl", "mistral3", "dots_ocr", "gemma4")
TILED = ("llava_next", "internvl_chat")
TILES = 4  # tiles of these beside the whole image


@dataclass(frozen=True, slots=True)
class Vision:
    """A vision tower: a transformer over patches, and how patches become tokens."""

    layers: int
    width: int
    inner: int
    heads: int
    gated: bool
    patch: int  # pixels of a patch's side
    merge: int  # patches of a token's side
    side: int  # pixels of the square every image becomes; 0 = as it is
    tokens: int  # tokens of an image where stated; 0 = patches / merge²
    tiles: int  # squares per image

    def patches(self, wide: int, high: int) -> int:
        """Patches of one image of wide × high pixels."""
        if self.side:
            return (self.side // self.patch) ** 2 * self.tiles
        unit = self.patch * self.merge
        return math.ceil(wide / unit) * math.ceil(high / unit) * self.merge**2

    def tokens_of(self, wide: int, high: int) -> int:
        """Tokens that one image adds to the prompt."""
        return self.tokens * self.tiles if self.tokens else self.patches(wide, high) // self.merge**2


def vision_of(config: Config) -> Vision | None:
    """The vision tower that a config describes; None where there is none, or one whose sizes are not known."""
    try:
        return _vision(config)
    except InputError:
        if config.text("model_type") in TOWERS:
            raise
        return None  # a tower that nobody has written down: images cannot be priced


def _vision(config: Config) -> Vision | None:
    v = config.sub("vision_config") or config.sub("thinker_config", "vision_config")
    kind = config.text("model_type")
    depths = {"depth", "num_hidden_layers", "vt_num_hidden_layers"}
    if v is None or kind == "mllama" or not set(v.data) & {"patch_size"} or not set(v.data) & depths:
        return None
    kernel = v.numbers("merge_kernel_size")
    moon = kind.startswith("kimi")
    if kind == "qwen2_vl":  # its width stands under another name, its output's under the usual one
        width = v.count("embed_dim")
        v = Config({**v.data, "hidden_size": width, "intermediate_size": int(v.number("mlp_ratio", 4.0) * width)}, v.where)
    merge = kernel[0] if kernel else v.count("spatial_merge_size", default=2 if moon else 0)
    merge = merge or config.count("spatial_merge_size", "scale_factor", default=2 if kind == "internvl_chat" else 1)
    fixed = kind in FIXED and v.text("model_type") != "pixtral"
    return Vision(
        layers=v.count("vt_num_hidden_layers", *LAYERS),
        width=v.count("vt_hidden_size", *HIDDEN),
        inner=v.count("vt_intermediate_size", *INNER),
        heads=v.count("vt_num_attention_heads", "num_heads", "num_attention_heads"),
        gated=kind in GATED,
        patch=v.count("patch_size"),
        merge=merge,
        side=v.count("image_size", default=SIGLIP_SIDE) if fixed else 0,
        tokens=config.count("mm_tokens_per_image", default=0) if fixed else 0,
        tiles=1 + TILES if kind in TILED else 1,
    )
