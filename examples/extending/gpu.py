"""A GPU: one file with sources (tomorrow-1.toml beside this script)."""

from pathlib import Path

import apexsim

study = apexsim.plan("llama-3.1-70b", gpu=str(Path(__file__).with_name("tomorrow-1.toml")), gpus=4, prompt_len=512, output_len=64,
                     num_requests=32, request_rate=2.0)  # fmt: skip
best = study.ranked[0]
assert any("transferred" in note for note in study.notes)
print(best.plan.shorthand, f"{best.metrics.tpot.mean * 1e3:.1f} ms per token")
