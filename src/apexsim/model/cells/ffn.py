"""The dense feed-forward layer (floor 2)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from apexsim.model.cell import Cell, Divided, Kernels, Module, Share, portion, under
from apexsim.model.ops import ACT, Axis, Gemm, Op, Stream

AT = {"deepseek_v4": "ffn", "llama4_text": "feed_forward", "nemotron_h": "mixer", "jamba": "feed_forward", "lfm2": "feed_forward"}
GATE, UP, DOWN = ("gate_proj", "gate_up_proj", "w1", "fc1"), ("up_proj", "gate_up_proj", "w3", "fc1"), ("down_proj", "w2", "fc2")


@dataclass(frozen=True, slots=True)
class Ffn(Cell):
    """Up (and gate), activation, down."""

    name = "FFN"
    place = "ffn"
    usual = Kernels(1, 4, 4, 4)  # norm, up, activation, down

    inner: int
    gated: bool = True
    bias: bool = False

    def count(self, hidden: int, tp: int = 1, ep: int = 1, shared_tp: int = 0) -> dict[str, int]:
        inner, up = ceil(self.inner / tp), 2 if self.gated else 1
        return {"ffn": hidden * inner * (up + 1) + (up * inner + hidden) * self.bias}

    def divided(self) -> tuple[Divided, ...]:
        return (Divided(self.inner, f"inner width {self.inner}"),)

    def tensors(self, hidden: int, tp: int, ep: int) -> tuple[tuple[str, int], ...]:
        return fused("ffn", ceil(self.inner / tp) * hidden, self.gated)

    def modules(self, hidden: int, family: str) -> list[Module]:
        at, one = AT.get(family, "mlp"), hidden * self.inner
        return [Module("ffn", one, under(at, names)) for names in ((GATE,) if self.gated else ()) + (UP, DOWN)]

    def lower(self, share: Share) -> list[Op]:
        """Norm with residual (of a device's own tokens), up (and gate), activation, down."""
        up, width = 2 if self.gated else 1, ceil(self.inner / share.tp)
        dense = products(share, "ffn", width, self.gated, share.split)
        return [*dense, *streams(share, 4.0 * share.hidden, (up + 1.0) * width)]

    def token_width(self, tp: int, ep: int) -> float:
        return self.inner / tp

    def words(self, tp: int, ep: int) -> str:
        return f"{portion(tp, self.inner)} columns"


def fused(part: str, one: int, gated: bool) -> tuple[tuple[str, int], ...]:
    """The two weight tensors of a dense FFN, of `one` parameters for each product."""
    return (part, one * (2 if gated else 1)), (part, one)


def products(share: Share, part: str, width: int, gated: bool, split: int) -> list[Gemm]:
    """The two products of a dense FFN, of `width` columns on this device."""
    return [
        share.gemm(part, part, (2 if gated else 1) * width, share.hidden, split),
        share.gemm(part, part, share.hidden, width, split, after="activation"),
    ]


def streams(share: Share, own: float, all_: float) -> list[Op]:
    """Element-wise work on numbers of a device's own tokens, and of the tokens that its replica of the cell sees."""
    if share.own == share.split:
        return [Stream("elementwise", ACT * (own + all_), Axis.TOTAL, share.split)]
    return [Stream("elementwise", ACT * own, Axis.TOTAL, share.own), Stream("elementwise", ACT * all_, Axis.TOTAL, share.split)]
