"""A model family: one function, one row of FAMILIES."""

import json

from apexsim.model import count, families
from apexsim.model.builders import attention, block, ffn, uniform
from apexsim.model.config import Config, parse_config
from apexsim.model.model import Model


def toy(c: Config) -> Model:
    """Llama without a gate in its FFN and with norms on queries and keys."""
    return uniform(c, block(c, attention(c, qk_norm="head"), ffn(c, gated=False)))


families.FAMILIES["toy"] = toy

CONFIG = {"model_type": "toy", "hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 2048,
          "num_hidden_layers": 4, "vocab_size": 1000, "max_position_embeddings": 4096}  # fmt: skip
model = families.build_model(parse_config(json.dumps(CONFIG), "toy.json", "toy"))
per_layer = 512 * (512 + 2 * 2 * 64 + 512) + 2 * 512 * 2048 + 2 * 512 + 2 * 64
assert count.total_parameters(model) == 4 * per_layer + 2 * 1000 * 512 + 512
print(model.name, f"{count.total_parameters(model):,} parameters")
