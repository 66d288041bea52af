"""Recurrent mixers: Gated DeltaNet, Mamba2, KDA, lightning attention, short convolutions (floor 2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from apexsim.model.cell import Cell, Divided, Kernels, Module, Share, portion, under
from apexsim.model.ops import ACT, Gemm, Op, Scan, Stream

AT = {"nemotron_h": "mixer", "bamba": "mamba", "falcon_h1": "mamba", "granitemoehybrid": "mamba", "jamba": "mamba"}
INWARD = ("in_proj_qkvz", "in_proj_qkv", "in_proj_z", "in_proj", "q_proj", "k_proj", "v_proj")


@dataclass(frozen=True, slots=True)
class LinearAttention(Cell):
    """A mixer that keeps a state of fixed size instead of keys and values."""

    name = "linear attention"
    place = "attention"
    # Convolution, gates, norms and the chunked scan's many parts; a decode updates the state in one kernel.  Held against
    # one system: Qwen3.8-27B (48 such layers of 64), batch 1, eager vLLM: 41.7 ms
    # (github.com/local-inference-lab/vllm/pull/314), 50 µs a unit.
    usual = Kernels(8, 46, 10, 10)
    recurrent = True

    kind: str  # "gdn", "mamba2", "kda"
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv: int = 4
    groups: int = 1
    state_width: int = 4  # bytes per number of the recurrent state
    parameters: int = 0  # exact count from the family function
    projections: tuple[tuple[int, int], ...] = ()  # (n, k) of its GEMMs, whole layer; the last leads out
    parts: int = 1  # products that each of those inward is in the checkpoint

    def count(self, hidden: int, tp: int = 1, ep: int = 1, shared_tp: int = 0) -> dict[str, int]:
        """All of it, divided evenly."""
        return {"attention": ceil(self.parameters / tp)}

    def divided(self) -> tuple[Divided, ...]:
        keys = Divided(self.key_heads, f"{self.key_heads} {self.kind} key heads or groups", repeated=True)
        return Divided(self.value_heads, f"{self.value_heads} {self.kind} heads"), keys

    def tensors(self, hidden: int, tp: int, ep: int) -> tuple[tuple[str, int], ...]:
        return tuple(("attention", ceil(n * k / tp)) for n, k in self.projections)

    def modules(self, hidden: int, family: str) -> list[Module]:
        """The projections in, of gates and out; a cell that does not list them counts as one."""
        sizes = [n * k for n, k in self.projections] or [self.parameters]
        names = [INWARD, *[("in_proj_ba", "in_proj_a", "in_proj_b")] * (len(sizes) - 2), ("out_proj", "o_proj")]
        at = AT.get(family, "linear_attn")
        return [Module("attention", n, under(at, w)) for n, w in zip(sizes, names[: len(sizes)], strict=True)]

    def state_bytes(self, tp: int = 1) -> float:
        """Convolution inputs (2·key_heads·key_dim + value_heads·value_dim)/tp·(conv − 1) in 16 bit, and the recurrent state
        (value_heads/tp)·key_dim·value_dim."""
        width = 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim
        conv = width / tp * (self.conv - 1) * 2
        return conv + self.value_heads / tp * self.key_dim * self.value_dim * self.state_width

    def lower(self, share: Share) -> list[Op]:
        keys, values = (max(1, ceil(n / share.tp)) for n in (self.key_heads, self.value_heads))
        return [
            *(self._inward(share, n, k) for n, k in self.projections[:-1]),
            *(share.gemm("out", "attention", n, ceil(k / share.tp)) for n, k in self.projections[-1:]),
            Scan("scan", self.kind, keys, values, self.key_dim, self.value_dim, share.axis),
            Stream("elementwise", ACT * 4 * share.hidden, share.axis),
        ]

    def _inward(self, share: Share, n: int, k: int) -> Gemm:
        """A product of a layer's input; gates and decays, a number or two a head, stay in 16 bit whatever the checkpoint's format."""
        width = ceil(n / share.tp)
        if n <= 2 * self.value_heads:
            return Gemm("qkv", width, k, axis=share.axis, split=share.split, parts=self.parts, aside=True)
        return replace(share.gemm("qkv", "attention", width, k), parts=self.parts)

    def words(self, tp: int, ep: int) -> str:
        return f"{portion(tp, self.value_heads)} heads ({self.kind})"
