"""Default configurations of every causal and image-text type of transformers 4.57 load, count right, or are refused with a reason.

`model_types.json` holds the keys that matter of each and the parameters of the model that transformers itself builds from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apexsim.errors import InputError
from apexsim.model.config import parse_config
from apexsim.model.count import total_parameters
from apexsim.model.families import build_model
from apexsim.model.families_keys import UNSUITED
from apexsim.model.model import Model

TYPES: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "model_types.json").read_text(encoding="utf-8"))
# no language model of known cost, or defaults without keys of experts
REFUSED = {*UNSUITED, "evolla", "deepseek_v2", "longcat_flash", "pixtral"}
APART = {  # counted differently on purpose, or defaults that no checkpoint has; kind -> relative difference that is known
    "gemma3": 0.003, "llama4": 0.005, "whisper": 0.3, "modernbert-decoder": 0.005, "big_bird": 0.005, "electra": 0.01,
    "bert-generation": 0.004, "roformer": 0.01, "prophetnet": 0.03, "xlm-prophetnet": 0.03, "fuyu": 0.002, "shieldgemma2": 0.04,
}  # fmt: skip


def built(kind: str) -> Model:
    """The model of a type's default configuration."""
    return build_model(parse_config(json.dumps(TYPES[kind]["config"]), kind, kind))


def said(model: Model, words: str) -> bool:
    return any(words in note for note in model.notes)


@pytest.mark.parametrize("kind", [k for k in TYPES if k not in REFUSED])
def test_a_default_configuration_loads(kind: str) -> None:
    assert total_parameters(built(kind)) > 0


@pytest.mark.parametrize("kind", [k for k in TYPES if k not in REFUSED and "parameters" in TYPES[k]])
def test_a_default_configuration_counts_right_or_says_why_not(kind: str) -> None:
    """What is not counted leaves the total below; what is read by its keys alone may differ by norms and position tables."""
    model, right = built(kind), TYPES[kind]["parameters"]
    total = total_parameters(model) + sum(n for name, n in model.outside_parts if name != "mtp")
    if said(model, "not counted"):
        assert 0 < total <= 1.005 * right
    else:
        assert total == pytest.approx(right, rel=0.15 if said(model, "generic decoder") else APART.get(kind, 0.001))


@pytest.mark.parametrize("kind", sorted(set(TYPES) & REFUSED))
def test_what_is_refused_is_refused_with_a_reason(kind: str) -> None:
    with pytest.raises(InputError, match=r"not modelled|is missing"):
        built(kind)


def test_most_types_load() -> None:
    assert [len(TYPES), sum(k not in REFUSED for k in TYPES) >= 150] == [175, True]


def test_a_type_that_nobody_has_written_down_is_read_by_its_keys() -> None:
    config = {
        "model_type": "brand_new", "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 1000, "intermediate_size": 512, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    }  # fmt: skip
    new = build_model(parse_config(json.dumps(config), "new", "new"))
    llama = build_model(parse_config(json.dumps({**config, "model_type": "llama"}), "llama", "llama"))
    assert (total_parameters(new), said(new, "generic decoder")) == (total_parameters(llama), True)
