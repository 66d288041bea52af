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
