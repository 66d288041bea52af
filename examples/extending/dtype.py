"""A number format: one row of DTYPES.  Six bits per weight, multiplied in 16 bit: fewer bytes, the same FLOP."""

import apexsim
from apexsim.model.dtypes import DTYPES, Dtype

DTYPES["fp6"] = Dtype("fp6", 0.75 + 2.0 / 128, "w4a16", "bf16", weight_only=True)

question = {"gpu": "h100-sxm", "gpus": 1, "prompt_len": 256, "output_len": 64, "num_requests": 8}
wide = apexsim.plan("llama-3.1-8b", **question).ranked[0]
slim = apexsim.plan("llama-3.1-8b", weight_dtype="fp6", **question).ranked[0]
print(f"{wide.metrics.tpot.mean * 1e3:.2f} -> {slim.metrics.tpot.mean * 1e3:.2f} ms per token")
assert slim.metrics.tpot.mean < 0.7 * wide.metrics.tpot.mean
assert dict(slim.room.ledger)["weights"] < 0.5 * dict(wide.room.ledger)["weights"]
