"""Every bundled configuration loads and counts what was counted independently; bad ones fail with one clear line."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path

import pytest

from apexsim.errors import InputError
from apexsim.model import names
from apexsim.model.count import active_parameters, model_parameters, total_parameters
from apexsim.model.families import load_model
from apexsim.model.families_dense import DENSE
from apexsim.model.names import DATA, aliases, catalogue, hub_id, model_names

with (DATA / "index.csv").open(encoding="utf-8", newline="") as _file:
    INDEX = {row["name"]: row for row in csv.DictReader(_file)}
VISION = ("Ministral-3-", "gemma-3-4b", "gemma-3-12b", "gemma-3-27b", "granite-vision", "llava", "Mistral-Small", "dots.ocr", "-VL-")
DENSE_DECODERS = [n for n, r in INDEX.items() if r["family"] in DENSE and int(r["counted_total"]) and not any(v in n for v in VISION)]
ROUNDED = (  # published totals that are rounded or count other parts: data/models/README.md
    "Qwen3-1.7B", "Qwen3-Omni", "Qwen3.5-27B", "Qwen3.6-27B", "Qwen3.5-9B", "DeepSeek-V4-Pro", "gemma-4", "Gemma-4",
    "Llama-4-Scout", "Kimi-K2", "Nemotron-3.5-Lightning", "Step-3.7",
)  # fmt: skip
LLAMA = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100,
    "intermediate_size": 128, "max_position_embeddings": 512,
}  # fmt: skip


def rounded(name: str) -> bool:
    """Is the published figure rounded, or does it count other parts?"""
    return any(part in name for part in ROUNDED)


def config(folder: Path, **changes: object) -> Path:
    """A small Llama with some keys replaced (None removes)."""
    data = {k: v for k, v in {**LLAMA, **changes}.items() if v is not None}
    file = folder / "config.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    return file


@pytest.mark.parametrize("name", DENSE_DECODERS)
def test_dense_decoder_counts_exactly(name: str) -> None:
    assert total_parameters(load_model(name)) == int(INDEX[name]["counted_total"])


@pytest.mark.parametrize("name", [n for n, r in INDEX.items() if int(r["counted_total"])])
def test_total_agrees_with_independent_count(name: str) -> None:
    assert total_parameters(load_model(name)) == pytest.approx(int(INDEX[name]["counted_total"]), rel=0.005)


@pytest.mark.parametrize("name", [n for n, r in INDEX.items() if int(r["counted_active"]) and "MiniMax-M3" not in n])
def test_active_agrees_with_independent_count(name: str) -> None:
    assert active_parameters(load_model(name)) == pytest.approx(int(INDEX[name]["counted_active"]), rel=0.005)


@pytest.mark.parametrize("name", [n for n, r in INDEX.items() if int(r["published_total"]) and not rounded(n)])
def test_total_agrees_with_published_figure(name: str) -> None:
    assert total_parameters(load_model(name)) == pytest.approx(int(INDEX[name]["published_total"]), rel=0.01)


def test_minimax_m3_active_agrees_with_published_figure() -> None:
    # the independent count takes the dense layers 4 times too narrow and leaves the indexer out
    assert active_parameters(load_model("minimax-m3")) == pytest.approx(26e9, rel=0.01)


def test_index_is_up_to_date() -> None:
    counted = [(n, total_parameters(m := load_model(n)), active_parameters(m), m.max_length) for n in model_names()]
    assert counted == [(e.name, e.total, e.active, e.max_length) for e in catalogue()]


def test_there_are_421_configs_each_with_a_source() -> None:
    assert [len(catalogue()), all(e.source for e in catalogue())] == [421, True]


def test_what_nobody_looked_up_claims_no_published_figure() -> None:
    recalled = [r for r in INDEX.values() if r["kind"] == "recalled"]
    assert recalled and all(int(r["published_total"]) == 0 and "checkpoint holds" not in r["source"] for r in recalled)
    assert all("recalled" in r["source"] or "as a user gave it" in r["source"] for r in recalled)


def test_answers_from_recalled_dimensions_say_so() -> None:
    told = {name for name in INDEX if names.RECALLED in load_model(name).notes}
    assert told == {name for name, row in INDEX.items() if row["kind"] == "recalled"}


def test_aliases_name_bundled_configs() -> None:
    assert {known.stem for known in aliases().values()} <= set(model_names())


@pytest.mark.parametrize("alias", list(aliases()))
def test_alias_loads(alias: str) -> None:
    assert load_model(alias).vocab > 0


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("llama-3.1-70b", "meta-llama/Meta-Llama-3.1-70B"),
        ("llama3-70b", "meta-llama/Meta-Llama-3-70B"),
        ("LLAMA3.1-70B", "meta-llama/Meta-Llama-3.1-70B"),
        ("llama-7b", "huggyllama/llama-7b"),
        ("llama-30b", "huggyllama/llama-30b"),
        ("bloom", "bigscience/bloom"),
        ("gpt-j", "EleutherAI/gpt-j-6b"),
        ("gpt-neox", "EleutherAI/gpt-neox-20b"),
        ("wizardcoder", "WizardLM/WizardCoder-15B-V1.0"),
        ("mistral-7b", "mistralai/Mistral-7B-v0.1"),
        ("mixtral-8x7b", "mistralai/Mixtral-8x7B-v0.1"),
        ("qwen3-32b", "Qwen/Qwen3-32B"),
        ("gpt-oss-120b", "openai/gpt-oss-120b"),
        ("deepseek-v3", "deepseek-ai/DeepSeek-V3"),
        ("openai/gpt-oss-20b", "openai/gpt-oss-20b"),
        ("openai--gpt-oss-20b", "openai/gpt-oss-20b"),
        ("llama-3.3-70b", "meta-llama/Llama-3.3-70B-Instruct"),
        ("llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("vicuna-13b", "lmsys/vicuna-13b-v1.5"),
    ],
)
def test_short_names(alias: str, name: str) -> None:
    assert load_model(alias).name == name


IDS = [*(hub_id(stem) for stem in model_names()), *(known.id for known in aliases().values())]


@pytest.mark.parametrize("name", sorted(set(IDS)))
def test_a_hub_id_keeps_its_name(name: str) -> None:
    # what a launch line starts is what was typed, never another checkpoint of the same architecture
    assert [load_model(typed).name for typed in (name, name.lower(), name.replace("/", "--"))] == [name] * 3


@pytest.mark.parametrize("name", sorted({*model_names(), *aliases()}))
def test_every_name_is_printed_as_a_hub_id(name: str) -> None:
    printed = load_model(name).name
    assert printed.count("/") == 1 and "--" not in printed


def test_another_owner_keeps_its_name() -> None:
    assert load_model("unsloth/Meta-Llama-3.1-8B").name == "unsloth/Meta-Llama-3.1-8B"


def test_alias_that_differs_from_its_file() -> None:
    assert load_model("Qwen/Qwen3-30B-A3B-Instruct-2507").max_length == 262144


def test_overrides() -> None:
    model = load_model("gpt2", max_length=512, dtype="fp16", changes={"n_layer": 2})
    assert (model.max_length, model.dtype, len(model.decoder.layers)) == (512, "fp16", 2)


def test_path_and_folder(tmp_path: Path) -> None:
    file = config(tmp_path)
    by_file, by_folder = load_model(str(file)), load_model(str(tmp_path))
    assert (by_file, by_file.name) == (by_folder, tmp_path.name)


def test_source_note_is_ignored(tmp_path: Path) -> None:
    assert total_parameters(load_model(str(config(tmp_path, _source="somewhere")))) > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"vocab_size": None}, "vocab_size"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"head_dim": 0}, "head_dim"),
        ({"intermediate_size": None}, "intermediate_size"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"intermediate_size": "wide"}, "intermediate_size"),
        ({"intermediate_size": 1.5}, "intermediate_size"),
        ({"hidden_size": float("nan")}, "hidden_size"),
        ({"max_position_embeddings": float("inf")}, "max_position_embeddings"),
        ({"hidden_size": True}, "hidden_size"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"model_type": "llamma"}, "did you mean llama"),
        ({"model_type": None}, "model_type"),
        ({"model_type": "mixtral"}, "n_routed_experts"),
        ({"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 4}, "num_experts_per_tok"),
        ({"model_type": "nemotron_h"}, "mamba_num_heads"),
        ({"model_type": "deepseek_v3"}, "kv_lora_rank"),
    ],
)
def test_bad_config_names_file_and_key(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    file = config(tmp_path, **changes)
    with pytest.raises(InputError) as error:
        load_model(str(file))
    assert (words in error.value.line(), str(file) in error.value.line(), "\n" in error.value.line()) == (
        True,
        True,
        False,
    )


@pytest.mark.parametrize("text", ["", "{", "[1]", "not json"])
def test_not_a_json_object(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="JSON"):
        load_model(str(tmp_path))


def test_missing_file() -> None:
    with pytest.raises(InputError, match="no such model file"):
        load_model("./nowhere/config.json")


def test_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean .*qwen3-32b"):
        load_model("qwen3-32")


def test_hub_id_that_the_hub_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_ask", lambda name, answer: answer.__setitem__(slice(None), (json.dumps(LLAMA), "")))
    assert load_model("someone/some-unknown-model").name == "someone/some-unknown-model"


def test_hub_id_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_ask", lambda name, answer: answer.__setitem__(1, "no route to host"))
    with pytest.raises(InputError, match="no route to host"):
        load_model("someone/some-unknown-model")


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "HUB_SECONDS", 0.01)
    monkeypatch.setattr(names, "_ask", lambda name, answer: threading.Event().wait(1.0))
    with pytest.raises(InputError, match="no answer within"):
        load_model("someone/some-unknown-model")


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.1-8B-Instrct", "Qwen/Qwen3-23B-A22B-FP8/x", "deepseek-ai/DeepSek-V3", "qwen3-32"])
def test_the_hub_is_not_asked_for_a_slip_of_the_pen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_ask", lambda name, answer: pytest.fail("asked"))
    with pytest.raises(InputError, match="did you mean"):
        load_model(name)


@pytest.mark.parametrize("name", ["model.gguf", "TheBloke/Llama-2-7B-GGUF", "unsloth/Qwen3-8B-GGUF:Q4_K_M", "weights.safetensors"])
def test_weights_are_refused_clearly(name: str) -> None:
    with pytest.raises(InputError, match=r"not read.*give"):
        load_model(name)


@pytest.mark.parametrize(
    ("name", "weights", "kv"),
    [
        ("meta-llama--Meta-Llama-3.1-70B", {}, ""),
        ("Qwen--Qwen3-32B-FP8", dict.fromkeys(("attention", "ffn"), "fp8_block"), ""),
        ("Qwen--Qwen3-32B-FP8-Static-PerTensor", dict.fromkeys(("attention", "ffn"), "fp8"), "fp8"),
        ("openai--gpt-oss-120b", {"experts": "mxfp4"}, ""),
        ("moonshotai--Kimi-K2.5", {"experts": "int4~4.5"}, ""),
        ("nvidia--Gemma-4-31B-IT-NVFP4", {"ffn": "nvfp4"}, "fp8"),
        ("nvidia--Gemma-4-26B-A4B-NVFP4", {"experts": "nvfp4"}, "fp8"),
        ("nvidia--Qwen3.6-27B-NVFP4", {"attention": "fp8", "ffn": "nvfp4", "head": "nvfp4"}, "fp8"),
        ("deepseek-ai--DeepSeek-V4-Flash", {"attention": "fp8_block", "experts": "mxfp4", "shared": "fp8_block"}, ""),
        ("nvidia--DeepSeek-V4-Pro-NVFP4", {"attention": "fp8_block", "experts": "nvfp4", "shared": "fp8_block"}, ""),
        ("nvidia--Kimi-K2.5-NVFP4", dict.fromkeys(("experts", "ffn", "shared"), "nvfp4"), "fp8"),
    ],
)
def test_number_formats(name: str, weights: dict[str, str], kv: str) -> None:
    model = load_model(name)
    counts = model_parameters(model)
    assert ({p: d for p, d in model.weight_dtypes if p in counts}, model.kv_dtype) == (weights, kv)


def test_hf_quant_config_beside_the_config(tmp_path: Path) -> None:
    config(tmp_path)
    section = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(section), encoding="utf-8")
    model = load_model(str(tmp_path))
    assert (dict(model.weight_dtypes)["ffn"], model.kv_dtype) == ("fp8", "fp8")


def test_prediction_layers_stand_outside_the_total() -> None:
    # one more layer, 2 x hidden^2 and three norms; 14 B in the checkpoint with its copies of embedding and head
    assert dict(load_model("deepseek-v3").outside_parts)["mtp"] == pytest.approx(11.6e9, rel=0.01)
