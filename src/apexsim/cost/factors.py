"""What a user's own runs say about prices: one multiplier for each cause (floor 3).

    decode    kernels of steps that only decode, decode attention, head, and the small kernels of every step
    prefill   kernels of steps that hold prompt tokens, prompt attention
    launch    all that the host does: launches of prompt steps and their floors, the scheduler's step, tokenising, requests
    kv        blocks of the KV cache
    power     mean power of the GPUs

Factors act where prices are read (`Pricer.scaled`) and on the engine's host constants (`on_host`), so that tables, the account of where
time went and energies all agree.  Ignored: hops between pipeline stages and the encoder of images, which keep their prices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from apexsim.engines import EngineRow

HOST = ("prompt_add_launch_s", "prompt_floor_launch_s", "prompt_eager_launch_s", "bare_launch_s", "eager_launch_s", "tokenise_s",
        "request_s", "step_s", "sequence_s")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Factors:
    """Measured over predicted, by cause; 1 changes nothing."""

    decode: float = 1.0
    prefill: float = 1.0
    launch: float = 1.0
    kv: float = 1.0
    power: float = 1.0

    def on_host(self, engine: EngineRow) -> EngineRow:
        """The engine with its host constants scaled."""
        scaled = {name: getattr(engine, name) * self.launch for name in HOST}
        return replace(engine, gap_s=engine.gap_s * self.decode, **scaled)


UNCHANGED = Factors()
