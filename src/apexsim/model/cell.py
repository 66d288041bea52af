"""What one part of a layer is asked: what it counts, stores and computes on one device (floor 1).

A cell is a frozen dataclass of dimensions (`model/cells/`) that answers for itself.  Four answers are its own: `count`,
`divided`, `lower` and `words`; all others say here that there is nothing of the kind.  Every answer is pure arithmetic, for
the whole cell (tp = ep = 1) as for its largest device.  Sharding follows vLLM, SGLang and TensorRT-LLM: heads, columns and
experts are divided, key/value heads are repeated once tp exceeds them, latent projections, routers and norms stand on every
device.  Not modelled: padding inside quantised kernels, but for the experts of MXFP4 (`padded`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from apexsim.model.ops import Axis, Gemm, Op

Place = Literal["attention", "ffn", "experts"]
LINEAR = ("attention", "ffn", "experts", "shared")  # parts whose weights are linear: what checkpoints quantise
QUANTISED = ("fp8_block", "nvfp4", "mxfp4", "int8")  # kernels whose activations get their scales at run time


@dataclass(frozen=True, slots=True)
class Share:
    """One device's share of a cell: what divides it, whose tokens it sees, how its weights are multiplied.

    tp, ep: devices that divide the cell; axis, split: its tokens, and the replicas of it that divide these; own: parts that
    the tokens between two cells lie in (what is done to a device's own tokens, before these are gathered or sent);
    attention_tp: devices that divide the attention, and with it shared experts; kernel: part -> (GEMM kernel, bytes per
    weight); kv: format of the KV cache; sent: tokens travel to their experts instead of all being gathered.
    """

    hidden: int
    tp: int
    ep: int
    axis: Axis
    split: int
    own: int
    attention_tp: int
    kernel: Callable[[str], tuple[str, float]]
    kv: str
    sent: bool = False

    def gemm(self, label: str, part: str, n: int, k: int, split: int = 0, only: str = "", after: str = "norm") -> Gemm:
        """A product with the weights of a part; `split` where it is not the cell's, `after`: what wrote its input."""
        kernel, size = self.kernel(part)
        behind = after if kernel in QUANTISED else ""
        return Gemm(label, n, k, kernel, size, self.axis, split or self.split, behind, only)


class Kernels(NamedTuple):
    """Kernels of a cell beside those that are priced one by one.

    gaps: small ones without a table (norm, rotary, cache write, activation, routing …), each of which leaves a gap in a
    captured step; launches, decode_launches: all that an eager step with prompts, or of decodes only, starts on the host;
    compiled_launches: of the former where the engine compiles the model and what is small goes into what stands beside it.
    """

    gaps: int
    launches: int
    decode_launches: int
    compiled_launches: int


class Divided(NamedTuple):
    """Heads or columns that tp divides: how many, in words, and whether each is repeated once tp exceeds them."""

    number: int
    words: str
    repeated: bool = False

    def uneven(self, tp: int) -> str | None:
        """Why tp does not divide them, or None when it does."""
        if not self.number % tp or (self.repeated and not tp % self.number):
            return None
        return f"{self.words} {'neither divide nor are' if self.repeated else 'cannot be'} divided by tp {tp}"


@dataclass(frozen=True, slots=True)
class Module:
    """Linear weights that one name stands for: their part, how many, and their paths below "layers.N."."""

    part: str
    size: int
    paths: tuple[str, ...]


def under(at: str, names: Iterable[str]) -> tuple[str, ...]:
    """Names below a module, as paths."""
    return tuple(f"{at}.{name}" for name in names)


def portion(parts: int, whole: int) -> str:
    """What one of `parts` devices holds of a whole, in words: "8 of 64"."""
    return f"{-(-whole // parts):,} of {whole:,}" if parts > 1 else f"{whole:,}"


class Cache(NamedTuple):
    """One of the caches of a layer: tokens of a block, tokens looked back (0 = all), bytes of a block's page."""

    block: int
    window: int
    page: int


class Cell(ABC):
    """One part of a layer.  `name` is what pages call it, `place` which layout of a plan divides it: that of "attention", of
    "ffn", or of "experts", which may be divided as whole experts too."""

    __slots__ = ()
    name: ClassVar[str]
    place: ClassVar[Place]
    usual: ClassVar[Kernels]  # the kernels that every such cell has
    recurrent: ClassVar[bool] = False  # a state of fixed size is all that it keeps of a sequence

    # ---- weights ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def count(self, hidden: int, tp: int = 1, ep: int = 1, shared_tp: int = 0) -> dict[str, int]:
        """Parameters on the largest device by part ("attention", "ffn", "experts", "shared", "router").

        tp divides heads and inner widths, ep the experts; shared experts are divided by `shared_tp` (0 = tp): give the
        attention's tp where an engine shards them with the dense layers while the routed experts are expert parallel.
        """

    @abstractmethod
    def divided(self) -> tuple[Divided, ...]:
        """What tp divides."""

    def split_rules(self, tp: int, ep: int = 1) -> str | None:
        """Why engines cannot split this cell so, or None when they can."""
        return next((why for part in self.divided() if (why := part.uneven(tp))), None)

    def idle(self, hidden: int) -> int:
        """Parameters of the whole cell that one token does not meet."""
        return 0

    def tensors(self, hidden: int, tp: int, ep: int) -> tuple[tuple[str, int], ...]:
        """Large weight tensors on one device (part, parameters), fused as engines fuse them: one for each part."""
        return tuple(self.count(hidden, tp, ep).items())

    def padded(self, hidden: int, tp: int, outer: int, inner: int) -> float:
        """How much larger its experts are in memory where kernels want their widths in multiples."""
        return 1.0

    def absorbed(self, tp: int) -> int:
        """Extra 16-bit copy of weights that engines keep on a device, in parameters."""
        return 0

    def modules(self, hidden: int, family: str) -> list[Module]:
        """Linear weights under the names that checkpoints of a family give them."""
        return [Module(part, n, ()) for part, n in self.count(hidden).items() if part in LINEAR]

    # ---- cache ------------------------------------------------------------------------------------------------------

    @property
    def cross(self) -> bool:
        """Whether it reads the encoder's output: `source` tokens of it."""
        return False

    @property
    def source(self) -> int:
        """Tokens of the encoder's output that it reads."""
        return 0

    def kv_elements(self, tp: int = 1) -> int:
        """Cache elements per token of the sequence and device."""
        return 0

    def prompt_elements(self, tp: int = 1) -> int:
        """Cache elements per token of the encoder's input and device (cross-attention)."""
        return 0

    def index_bytes(self) -> float:
        """Cache of a sparse-attention indexer, per token and device [byte], never divided."""
        return 0.0

    def kv_bytes(self, tp: int, element: float) -> float:
        """Cache per token and device [byte] with `element` bytes per number, indexer included."""
        return self.kv_elements(tp) * element + self.index_bytes()

    def latent_width(self) -> int:
        """Width of a latent row of the cache, which some engines pad; 0 = no such rows."""
        return 0

    def kv_window(self) -> int:
        """Tokens of a sequence that the cell keeps (0 = all)."""
        return 0

    def reach(self) -> tuple[int, int]:
        """(tokens looked back, spare blocks), both 0 without a window: a window may straddle one more block."""
        window = self.kv_window()
        return (window - 1, 1) if window else (0, 0)

    def caches(self) -> tuple[Cache, ...]:
        """The caches of a layer that keeps several of different lengths; () where there is one of `kv_bytes`."""
        return ()

    def state_bytes(self, tp: int = 1) -> float:
        """State per sequence and device, whatever its length [byte]."""
        return 0.0

    # ---- work -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def lower(self, share: Share) -> list[Op]:
        """What one device does in it."""

    def kernels(self) -> tuple[Kernels, ...]:
        """Its usual kernels, and those of what it holds besides."""
        return (self.usual,)

    def token_width(self, tp: int, ep: int) -> float:
        """Inner activations of a token on one device, held while the cell runs."""
        return 0.0

    def route(self, hidden: int) -> tuple[int, int, int, int] | None:
        """(hidden size, experts per token, experts) of a cell whose tokens go to experts."""
        return None

    def heads_words(self) -> str:
        """Its heads, as the line about the model names them."""
        return ""

    @abstractmethod
    def words(self, tp: int, ep: int) -> str:
        """What of it lies on one device, in words."""
