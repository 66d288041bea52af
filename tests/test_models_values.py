"""Impossible values are refused in one line that names their key, whatever the family: generated from one bundled config of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from apexsim.errors import InputError
from apexsim.model.config import parse_config
from apexsim.model.families import build_model
from apexsim.model.names import DATA, catalogue

FIRST = {entry.family: entry.name for entry in reversed(catalogue())}  # family -> its first file
WRONG: tuple[Any, ...] = (-1, "x", 1.5, 10**15, [], [1, "a"], float("nan"), -128, 0, {"a": 1}, True)
ROUNDS = 3  # wrong values that every key is tried with
SECTIONS = ("text_config", "llm_config", "thinker_config", "linear_attn_config", "attn_config", "ffn_config")


def paths(data: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of nested objects."""
    for key, value in data.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths(value, (*above, key))


def with_value(data: dict[str, Any], path: tuple[str, ...], value: Any) -> str:
    """The JSON with one value replaced."""
    copy: dict[str, Any] = json.loads(json.dumps(data))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(copy)


@pytest.mark.parametrize("family", sorted(FIRST))
def test_an_impossible_value_loads_or_names_its_key(family: str) -> None:
    data = json.loads((DATA / f"{FIRST[family]}.json").read_text(encoding="utf-8"))
    nameless = []
    for i, path in enumerate(paths(data)):
        for turn in range(ROUNDS):
            value = WRONG[(i + turn * 4) % len(WRONG)]
            try:
                build_model(parse_config(with_value(data, path, value), "a.json", FIRST[family]))
            except InputError as error:  # anything else is a traceback
                emptied = path[-1] in SECTIONS and isinstance(value, dict)  # what it lacks is named then
                if path[-1] not in str(error) and not emptied:
                    nameless.append((path, value, str(error)))
    assert nameless == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("text_config", []), ("vision_config", 7), ("model_type", 0), ("tie_word_embeddings", "x"), ("attention_bias", 2),
        ("partial_rotary_factor", float("inf")), ("partial_rotary_factor", 0), ("mlp_only_layers", "all"), ("rope_parameters", 1.0),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_not_taken_for_a_missing_one(key: str, value: Any) -> None:
    config = json.loads((DATA / "Qwen--Qwen3-30B-A3B.json").read_text(encoding="utf-8"))
    with pytest.raises(InputError, match=f"key '{key}' must be"):
        build_model(parse_config(json.dumps({**config, key: value}), "a.json", "a"))


QWEN = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584, "num_hidden_layers": 4,
        "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064,
        "max_position_embeddings": 32768, "torch_dtype": "bfloat16"}  # fmt: skip
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def qwen(**changes: Any) -> Any:
    """A small model with some keys changed."""
    return build_model(parse_config(json.dumps(QWEN | changes), "config.json", "qwen"))


@pytest.mark.parametrize(("changes", "told"), [
    ({"torch_dtype": "banana"}, "'torch_dtype' must be"),
    ({"dtype": "float8_e4m3fn", "torch_dtype": None}, "'dtype' must be"),
    ({"layer_types": ["banana"] * 4}, "'layer_types' has 'banana'"),
    ({"layer_types": ["linear_attention"] * 3 + ["full_attention"]}, "'layer_types' has 'linear_attention'"),
    ({"rope_scaling": YARN | {"factor": -4}}, "'factor' must be"),
    ({"rope_scaling": YARN | {"factor": "NaN"}}, "'factor' must be"),
    ({"hidden_size": 10**30}, "must be at most"),
    ({"hidden_size": 10**400}, "400|401"),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4, "dynamic": {"+:.*mlp.*": 8}}}, "'dynamic..:.*mlp.*' must be an object"),
    ({"quantization_config": {"quant_method": "auto-round", "bits": 4, "extra_config": {"mlp": 8}}}, "'extra_config.mlp' must be an"),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4, "dynamic": {"+:(((": {"bits": 8}}}}, "no regular expression"),
], ids=str)  # fmt: skip
def test_what_cannot_be_meant_is_refused_and_not_passed_over(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        qwen(**changes)


@pytest.mark.parametrize("expression", ["(((", "(.*.*)*(.*.*)*(.+)+(.+)+(.+)+x$", "(a*)*b", ".*.*.*.*.*.*.*.*x"])
def test_an_expression_that_is_none_or_never_ends_is_refused(expression: str) -> None:
    weights = {"num_bits": 8, "type": "float"}
    with pytest.raises(InputError, match=r"regular expression|repeats within repeats"):
        qwen(quantization_config={"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"], "weights": weights}},
                                  "ignore": [f"re:{expression}"]})  # fmt: skip


def test_yarn_stretches_the_positions_and_other_scalings_do_not() -> None:
    """As engines count: those of before times the factor; what the config states already is not stretched again."""
    assert qwen().max_length == 32768 and qwen(rope_scaling=YARN).max_length == 131_072
    assert qwen(rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}).max_length == 32768
    assert qwen(rope_scaling={"type": "yarn", "factor": 2.0}).max_length == 65_536
    assert qwen(rope_scaling={"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}).max_length == 32768


@pytest.mark.parametrize("key", ["*.mlp.gate_proj", r"(?i)model\.layers\.0\.MLP.*", r"^model\.(\w+\.)*mlp\..*", r"layers\.(\d+\.)+mlp"])
def test_patterns_that_writers_of_checkpoints_use_are_read(key: str) -> None:
    for section in ({"quant_method": "gptq", "dynamic": {f"+:{key}": {"bits": 8}}},
                    {"quant_method": "auto-round", "extra_config": {key: {"bits": 8}}}):  # fmt: skip
        assert qwen(quantization_config={"bits": 4, **section}).max_length == 32768
    gate = {"quant_method": "auto-round", "bits": 4, "extra_config": {"*.mlp.*": {"bits": 16}}}
    assert dict(qwen(quantization_config=gate).weight_dtypes) != dict(qwen(quantization_config={**gate, "extra_config": {}}).weight_dtypes)
