"""The layer that drafts beside a model (floor 2)."""

from __future__ import annotations

from dataclasses import replace

from apexsim.model.cells.ffn import Ffn
from apexsim.model.model import Block, Model

EAGLE_STATES = 3  # hidden states of the model that an EAGLE-3 head reads: of a low, a middle and a high layer


def draft_block(model: Model, method: str) -> tuple[Block, int]:
    """The draft layer, and how many hidden states are joined in front of it.

    MTP: a layer like the last one, over the hidden state and the embedding (DeepSeek-V3, 2412.19437, 2.2).  EAGLE-3: attention like the
    model's and one dense FFN, of its dense layers' width or of four hidden widths where it has none, over three hidden states and then
    over the joined one and the embedding (2503.01840, 3.1).
    """
    last = model.decoder.blocks[model.decoder.layers[-1]]
    if method == "mtp":
        return last, 2
    mixer = next(c for block in reversed(model.decoder.blocks) for c in block.cells if c.place == "attention" and not c.recurrent)
    dense = next((c for block in model.decoder.blocks for c in block.cells if c.place == "ffn"), Ffn(4 * model.hidden))
    return replace(last, cells=(mixer, dense)), EAGLE_STATES + 1
