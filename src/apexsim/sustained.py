"""What share of its peak a card holds while it multiplies, under its power limit, and of its bandwidth (floor 1).

    FLOP/s:  share = min(0.9, 0.8 · TDP / (energy of a FLOP · peak))
    byte/s:  share = 15/16 where ECC lies in the memory itself, else 1

The energy of a FLOP is a property of the architecture (its process and units), measured on one card of each: `data/sustained.toml`.
Narrow formats cost as much less as they are faster, so one share serves all.  Where a card borrows the tables of another, its
compute-bound times go with peak × share of both: an L4 of 72 W holds a smaller part of its peak than an L40S, an RTX 4090 a larger.

GDDR6 cards for data centres keep ECC bits in the same memory: a sixteenth of it is missing from what they report, and reads take more.
That is how they are told from cards without (RTX), whose bandwidth is whole.

A GPU file may state what was measured, `[sustained] bf16` in TFLOP/s, instead.  Ignored: that voltage, and with it the energy of a FLOP,
falls with the clock; cooling; power limits that an owner sets.
"""

from __future__ import annotations

import math
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _law() -> dict[str, Any]:
    return tomllib.loads((files("apexsim") / "data/sustained.toml").read_text(encoding="utf-8"))


def held_share(arch: str, tdp_w: float, peak: float) -> float:
    """Share of its 16-bit peak [FLOP/s] that a card of an architecture holds; NaN where the energy of its FLOP is not known."""
    law = _law()
    joules = float(law["pj_per_flop"].get(arch, math.nan)) * 1e-12
    if not tdp_w > 0 or math.isnan(joules):
        return math.nan
    return min(float(law["ceiling"]), float(law["busy"]) * tdp_w / (joules * peak))


def streamed_share(arch: str, reported: float, nominal: float) -> float:
    """Share of its bandwidth that ECC leaves a card whose memory [byte] shows what it keeps for it."""
    law = _law()["ecc"]
    return float(law["share"]) if arch in law["arch"] and reported < float(law["reported"]) * nominal else 1.0


def against(held: float, streamed: float, system: str) -> tuple[float, float]:
    """FLOP/s and byte/s of a card over what its peaks say, against times that were measured on a system; 1 where a share is unknown."""
    lender, stream = _law()["lender"].get(system, (math.nan, 1.0))
    return held / lender if held > 0 and lender > 0 else 1.0, streamed / stream
