"""What a model *is*: stacks of layers, each layer a block of cells (floor 1).

A cell answers for itself (`cell`, `cells/`); which cells a `config.json` means lives in `families`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from apexsim.model.cell import Cell


@dataclass(frozen=True, slots=True)
class Block:
    """One kind of layer: its cells in order, and the parameters of its norms."""

    cells: tuple[Cell, ...]
    norm_parameters: int = 0
    parallel: bool = False  # attention and FFN read the same input and share one reduction


@dataclass(frozen=True, slots=True)
class Stack:
    """A run of layers: `layers[i]` is the index into `blocks` of layer i."""

    role: str  # "decoder" or "encoder"
    hidden: int
    blocks: tuple[Block, ...]
    layers: tuple[int, ...]
    source_length: int = 0  # encoder: fixed input length in tokens, 0 = the prompt
    front: tuple[tuple[int, int], ...] = ()  # (n, k) of the products that make one input position of an encoder


@dataclass(frozen=True, slots=True)
class Model:
    """A language model as its `config.json` describes it."""

    name: str
    family: str
    vocab: int
    max_length: int
    stacks: tuple[Stack, ...]
    tied: bool = False
    position_rows: int = 0  # learned position embeddings
    embed_dim: int = 0  # 0 = hidden
    head_bias: bool = False
    final_norm_parameters: int = 0
    rope_dim: int = 0  # rotary width of the cos/sin cache, all tables and longer ones counted; 0 = none
    vision: Any = None  # a model.vision.Vision, where images can be given
    deepstack: int = 0  # first layers that the vision tower feeds besides the embedding
    has_head: bool = True  # False: an encoder that answers with vectors
    generates: bool = True  # False: it reads a text and answers with vectors or classes, not with tokens
    extra_parameters: int = 0  # anything else that is loaded (towers, projections between stacks …)
    extra_parts: tuple[tuple[str, int], ...] = ()  # named shares of extra_parameters ("vision", n) …
    outside_parts: tuple[tuple[str, int], ...] = ()  # not in the total: ("mtp", n), towers published apart
    weight_dtypes: tuple[tuple[str, str], ...] = field(default=())  # part -> dtype where the config quantises
    kv_dtype: str = ""  # "" = the config does not say
    unread: str = ""  # what its quantisation says that is not known: weights, KV cache; the user's formats decide
    unread_kv: str = ""
    dtype: str = "bf16"
    notes: tuple[str, ...] = ()
    source: str = ""

    @property
    def decoder(self) -> Stack:
        """The generating stack (for encoder-only models: their only stack)."""
        return self.stacks[-1]

    @property
    def hidden(self) -> int:
        """Width of the generating stack."""
        return self.decoder.hidden
