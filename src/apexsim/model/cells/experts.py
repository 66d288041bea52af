"""Routed experts, optionally with always-active shared experts beside them (floor 2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from apexsim.model.cell import Cell, Divided, Kernels, Module, Share, portion, under
from apexsim.model.cells.ffn import AT, DOWN, GATE, UP, fused, products
from apexsim.model.ops import ACT, SKEW, Axis, Gemm, Grouped, Op, Stream

SHARED = Kernels(2, 3, 3, 3)
EXPERTS_AT = {  # family -> the path of routed experts, where it is not the usual one
    "mixtral": "block_sparse_moe.experts.0", "minimax_m2": "block_sparse_moe.experts.0", "phimoe": "block_sparse_moe.experts.0",
    "granitemoe": "block_sparse_moe.experts.0", "granitemoehybrid": "block_sparse_moe.experts.0", "gemma4_text": "experts",
    "deepseek_v4": "ffn.experts.0", "llama4_text": "feed_forward.experts", "nemotron_h": "mixer.experts.0", "dbrx": "ffn.experts",
    "jamba": "feed_forward.experts.0",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Experts(Cell):
    """FFNs of which a router chooses `top_k` for each token."""

    name = "experts"
    place = "experts"
    # router, top-k, sort, two grouped products with their activation and quantisation, gather, combine
    usual = Kernels(3, 12, 12, 12)

    experts: int
    top_k: int
    inner: int
    gated: bool = True
    bias: bool = False
    shared_inner: int = 0
    shared_gate: bool = False  # a learned scalar gate on the shared expert
    router_bias: bool = False
    capacity: float = 0.0  # 0 = no capacity factor
    latent: int = 0  # routed experts work in this width between two projections; 0 = hidden
    extra: int = 0
    kept: int = 0  # groups of experts that a token's may lie in; 0 = any
    skew: float = SKEW

    def widths(self, hidden: int, tp: int) -> tuple[int, int]:
        """Outer and inner width of one expert on one device."""
        return self.latent or hidden, ceil(self.inner / tp)

    def one(self, hidden: int, tp: int = 1) -> int:
        """Parameters of one expert on one device."""
        (width, inner), up = self.widths(hidden, tp), 2 if self.gated else 1
        return width * inner * (up + 1) + (up * inner + width) * self.bias

    def count(self, hidden: int, tp: int = 1, ep: int = 1, shared_tp: int = 0) -> dict[str, int]:
        """Experts, shared experts, and the router with latent projections, which is whole on every device."""
        beside, up = ceil(self.shared_inner / (shared_tp or tp)), 2 if self.gated else 1
        router = hidden * self.experts + self.experts * self.router_bias + self.extra
        return {
            "experts": ceil(self.experts / ep) * self.one(hidden, tp),
            "shared": hidden * beside * (up + 1) + hidden * self.shared_gate,
            "router": router + (2 * hidden * self.latent if self.latent else 0),
        }

    def idle(self, hidden: int) -> int:
        return self.one(hidden) * (self.experts - self.top_k)

    def divided(self) -> tuple[Divided, ...]:
        shared = Divided(self.shared_inner, f"shared expert inner width {self.shared_inner}")
        return Divided(self.inner, f"expert inner width {self.inner}"), shared

    def split_rules(self, tp: int, ep: int = 1) -> str | None:
        few = f"{self.experts} experts are fewer than ep {ep}" if self.experts < ep else None
        return few or Cell.split_rules(self, tp)

    def tensors(self, hidden: int, tp: int, ep: int) -> tuple[tuple[str, int], ...]:
        """All experts of a device in two tensors, and the shared ones."""
        width, inner = self.widths(hidden, tp)
        shared = ceil(self.shared_inner / tp) * hidden
        return fused("experts", ceil(self.experts / ep) * inner * width, self.gated) + fused("shared", shared, self.gated)

    def padded(self, hidden: int, tp: int, outer: int, inner: int) -> float:
        wide, columns = self.widths(hidden, tp)
        return ceil(wide / outer) * outer * ceil(columns / inner) * inner / (wide * columns)

    def modules(self, hidden: int, family: str) -> list[Module]:
        """Routed and shared experts, each under all the names of their products."""
        counts, base = self.count(hidden), EXPERTS_AT.get(family, "mlp.experts.0")
        fused_paths = (f"{path}.gate_up_proj" for path in dict.fromkeys((base, base.removesuffix(".0"))))
        found = [Module("experts", counts["experts"], (*under(base, (*GATE, *UP, *DOWN)), *fused_paths))]
        if counts["shared"]:
            at = (f"{AT.get(family, 'mlp')}.{name}" for name in ("shared_experts", "shared_expert"))
            found.append(Module("shared", counts["shared"], tuple(path for a in at for path in under(a, (*GATE, *DOWN)))))
        return found

    def lower(self, share: Share) -> list[Op]:
        """Router, shared experts and latent projections run on a device's own tokens, before these are gathered or sent."""
        (kernel, size), width = share.kernel("experts"), self.latent or share.hidden
        shared = self._shared(share)
        ops: list[Op] = [
            Gemm("router", self.experts, share.hidden, "bf16", 2.0, Axis.TOTAL, share.own),
            Grouped("experts", width, self.inner, self.experts, self.top_k, share.tp, share.ep, self.gated, kernel, size,
                    Axis.TOTAL, share.split, tuple(shared), share.sent, self.skew),
            *shared,
            Stream("elementwise", ACT * 4.0 * share.hidden, Axis.TOTAL, share.own),  # pairs: in the experts' times
        ]  # fmt: skip
        if self.latent:
            pairs = ((self.latent, share.hidden), (share.hidden, self.latent))
            ops += [share.gemm("experts", "experts", n, k, share.own) for n, k in pairs]
        return ops

    def _shared(self, share: Share) -> list[Gemm]:
        if not self.shared_inner:
            return []
        dense = products(share, "shared", ceil(self.shared_inner / share.attention_tp), self.gated, share.own)
        return [replace(op, beside=True) for op in dense]

    def kernels(self) -> tuple[Kernels, ...]:
        return (self.usual, SHARED) if self.shared_inner else (self.usual,)

    def token_width(self, tp: int, ep: int) -> float:
        """Columns of the experts that a token passes through."""
        return (self.top_k * self.inner + self.shared_inner) / (tp * ep)

    def route(self, hidden: int) -> tuple[int, int, int, int] | None:
        return hidden, self.top_k, self.experts, self.kept

    def words(self, tp: int, ep: int) -> str:
        columns = f", {portion(tp, self.inner)} columns of each" if tp > 1 else ""
        shared = f", shared {self.shared_inner:,}" if self.shared_inner else ""
        return f"{portion(ep, self.experts)} experts ({self.top_k} per token{columns}{shared})"
