"""A cell: one class that says what it counts, stores and computes on one device.  Differential attention (arXiv:2410.05258):
each head subtracts one softmax from another, over the same values."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import apexsim
from apexsim.model import families
from apexsim.model.builders import block, ffn, uniform
from apexsim.model.cell import Cell, Divided, Kernels, Share, portion
from apexsim.model.config import Config
from apexsim.model.model import Model
from apexsim.model.ops import Attend, Op


@dataclass(frozen=True, slots=True)
class Differential(Cell):
    """Two queries, two keys and one value, twice as wide, for each head."""

    name = "differential attention"
    place = "attention"  # divided as a plan divides attention
    usual = Kernels(gaps=4, launches=8, decode_launches=8, compiled_launches=6)

    heads: int
    head_dim: int

    def count(self, hidden: int, tp: int = 1, ep: int = 1, shared_tp: int = 0) -> dict[str, int]:
        products = 4 * hidden * (self.heads // tp) * 2 * self.head_dim  # queries, keys, values, out
        return {"attention": products + 6 * self.head_dim}  # four vectors weigh the second softmax, one norm

    def divided(self) -> tuple[Divided, ...]:
        return (Divided(self.heads, f"{self.heads} differential heads"),)

    def kv_elements(self, tp: int = 1) -> int:
        return self.heads // tp * 4 * self.head_dim

    def lower(self, share: Share) -> list[Op]:
        heads = self.heads // share.tp
        one = Attend("attention", heads, heads, self.head_dim, 2 * self.head_dim, kv_dtype=share.kv)
        qkv = share.gemm("qkv", "attention", 6 * heads * self.head_dim, share.hidden)
        return [qkv, one, one, share.gemm("out", "attention", share.hidden, 2 * heads * self.head_dim, after="attention")]

    def words(self, tp: int, ep: int) -> str:
        return f"{portion(tp, self.heads)} heads"


def toy(c: Config) -> Model:
    """A decoder of such layers."""
    return uniform(c, block(c, Differential(c.count("num_attention_heads"), c.count("head_dim")), ffn(c)))


families.FAMILIES["toy"] = toy

CONFIG = {"model_type": "toy", "hidden_size": 2048, "num_attention_heads": 16, "head_dim": 64, "intermediate_size": 8192,
          "num_hidden_layers": 24, "vocab_size": 32000, "max_position_embeddings": 4096}  # fmt: skip
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "config.json").write_text(json.dumps(CONFIG))
    study = apexsim.plan(folder, gpu="h100-sxm", gpus=2, prompt_len=512, output_len=64, num_requests=32, request_rate=2.0)
best = study.ranked[0]
assert best.room.kv_bytes // best.room.tokens == 24 * 16 * 4 * 64 * 2 // best.plan.attention.tp
print(best.plan.shorthand, f"{best.metrics.tpot.mean * 1e3:.1f} ms per token, {best.room.tokens:,} tokens of cache")
