"""Popular hub ids resolve offline, under the name that was typed, to the right size and format; unsure ones are unknown."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from apexsim.errors import InputError
from apexsim.model import names
from apexsim.model.count import model_parameters, total_parameters
from apexsim.model.families import load_model
from apexsim.model.names import aliases, core, cores, find_known, hub_id, model_names

IDS = [  # id, parameters [1e9], format of the FFN or experts ("" = 16 bit)
    ("meta-llama/Llama-3.2-3B-Instruct", 3.21, ""), ("meta-llama/Llama-3.2-1B", 1.24, ""), ("meta-llama/Llama-3.3-70B-Instruct", 70.6, ""),
    ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", 70.6, ""), ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1.78, ""),
    ("Qwen/QwQ-32B", 32.8, ""), ("Qwen/Qwen2.5-Coder-32B-Instruct", 32.8, ""), ("mistralai/Mistral-7B-Instruct-v0.3", 7.25, ""),
    ("google/gemma-3-1b-it", 1.0, ""), ("zai-org/GLM-4.6", 353, ""), ("zai-org/GLM-4.5-Air-FP8", 106.9, "fp8"),
    ("Qwen/Qwen3-4B-Instruct-2507", 4.02, ""), ("unsloth/Llama-3.2-3B-Instruct-bnb-4bit", 3.21, "nf4"),
    ("RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8-dynamic", 70.6, "fp8"), ("Qwen/Qwen3-14B-AWQ", 14.8, "awq"),
    ("Qwen/Qwen3.5-397B-A17B-FP8", 396.8, "fp8_block"), ("nvidia/Llama-3.3-70B-Instruct-NVFP4", 70.6, "nvfp4"),
    ("RedHatAI/Llama-3.3-70B-Instruct-quantized.w4a16", 70.6, "int4"), ("RedHatAI/Qwen2.5-7B-Instruct-quantized.w8a8", 7.62, "w8a8"),
    ("Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4", 72.7, "int4"), ("Qwen/Qwen2.5-72B-Instruct-GPTQ-Int8", 72.7, "int8"),
    ("amd/Llama-3.3-70B-Instruct-MXFP4-Preview", 70.6, "mxfp4"), ("google/gemma-3-27b-it-qat-q4_0-unquantized", 27.4, ""),
    ("QuantTrio/Qwen3-235B-A22B-Instruct-2507-AWQ", 235.1, "awq"), ("Qwen/Qwen3.6-27B", 27.4, ""),
    ("Qwen/Qwen3.6-27B-FP8", 27.4, "fp8_block"),
    ("unsloth/gpt-oss-20b-BF16", 20.9, ""), ("CohereLabs/c4ai-command-r-plus", 103.8, ""), ("microsoft/Phi-4-mini-instruct", 3.84, ""),
    ("TheBloke/Mixtral-8x7B-Instruct-v0.1-GPTQ", 46.7, "int4"), ("Intel/Qwen3-32B-int4-AutoRound", 32.8, "int4"),
    ("Qwen/Qwen2-VL-7B-Instruct", 8.29, ""), ("ibm-granite/granite-4.0-h-small", 32.2, ""), ("tencent/Hunyuan-A13B-Instruct", 80.4, ""),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_ask", lambda name, answer: answer.__setitem__(1, "offline"))


@pytest.mark.parametrize(("name", "billions", "form"), IDS)
def test_popular_id(name: str, billions: float, form: str) -> None:
    model = load_model(name)
    formats = dict(model.weight_dtypes)
    part = "experts" if any(n in name for n in ("A22B", "A17B", "8x7B", "gpt-oss", "GLM")) else "ffn"
    assert (model.name, total_parameters(model) / 1e9, formats.get(part, "")) == (name, pytest.approx(billions, rel=0.01), form)


@pytest.mark.parametrize(
    "name",
    [
        "meta-llama/Llama-3.2-8B", "meta-llama/Llama-3.4-70B", "Qwen/Qwen3-7B", "Qwen/Qwen2.5-8B", "mistralai/Mistral-7B-Instruct-v0.9",
        "google/gemma-3-9b-it", "deepseek-ai/DeepSeek-V5", "someone/Llama-3.1-8B-MedTune", "zai-org/GLM-4.9", "FP8/fp8", "a/instruct",
    ],
)  # fmt: skip
def test_another_size_or_version_is_unknown(name: str) -> None:
    with pytest.raises(InputError, match="unknown model"):
        load_model(name)


SUFFIXES = ("-AWQ", "-GPTQ-Int4", "-FP8-dynamic", "-NVFP4", "-quantized.w8a8", "-bnb-4bit", "-Instruct", "-unsloth-bnb-4bit")


@pytest.mark.parametrize("stem", model_names())
def test_a_suffix_never_changes_the_architecture(stem: str) -> None:
    own = find_known(hub_id(stem))
    assert own is not None
    for suffix in SUFFIXES:
        typed = f"someone/{stem.partition('--')[2]}{suffix}"
        known = find_known(typed)
        assert known is not None and known.id == typed
        assert core(known.stem) == core(stem) or cores()[core(stem)].stem == known.stem


def test_popular_ids_resolve_to_their_size_and_format() -> None:
    """Sizes as their names and cards say, to 4 %; "" = the format is not looked at (it differs by part)."""
    with (Path(__file__).parent / "popular_ids.csv").open(encoding="utf-8", newline="") as rows:
        listed = list(csv.DictReader(rows))
    wrong = []
    for row in listed:
        model = load_model(row["id"])
        sizes = [total_parameters(model), total_parameters(model) + sum(n for _, n in model.outside_parts)]
        forms = dict(model.weight_dtypes)
        form = forms.get("experts") or forms.get("ffn") or ""
        right = any(abs(size / 1e9 / float(row["billions"]) - 1) < 0.04 for size in sizes) and form.startswith(row["format"])
        wrong += [] if right else [(row["id"], sizes, form)]
    assert (len(listed) > 750, wrong) == (True, [])


def test_every_other_name_means_a_model_that_loads() -> None:
    assert all(total_parameters(load_model(alias)) > 0 for alias in aliases())


SEES = re.compile(r"[-_](vl|vision|ocr|omni|audio)\b|voxtral|pixtral|llava|paligemma|internvl|smolvlm|\d\.?\d?v\b")


@pytest.mark.parametrize("name", [n for n in (*map(hub_id, model_names()), *(k.id for k in aliases().values())) if SEES.search(n.lower())])
def test_a_model_that_sees_or_hears_counts_its_tower_or_says_that_it_does_not(name: str) -> None:
    model = load_model(name)
    towers = {"vision", "audio", "audio input", "image input"} & {*model_parameters(model), *(part for part, _ in model.outside_parts)}
    assert towers or any("not counted" in note for note in model.notes)


def test_a_release_that_is_not_listed_is_taken_for_another_one_and_said_so() -> None:
    model = load_model("Qwen/Qwen3-30B-A3B-Instruct-2611-FP8")
    assert (model.name, model.max_length, any("release 2611 is not listed" in note for note in model.notes)) == (
        "Qwen/Qwen3-30B-A3B-Instruct-2611-FP8", 262144, True,
    )  # fmt: skip


def test_a_date_without_a_size_says_nothing() -> None:
    """Mistral Small has had 22, 24 and 119 billion parameters."""
    with pytest.raises(InputError, match="unknown model"):
        load_model("mistralai/Mistral-Small-Instruct-2611")


def test_the_version_of_a_format_is_not_the_models() -> None:
    assert [core("DeepSeek-R1-0528-NVFP4-v2"), core("gemma-3-27b-it-GPTQ-4b-128g"), core("Mistral-7B-v0.3-AWQ")] == [
        "deepseek-r1-0528", "gemma-3-27b", "mistral-7b-v0.3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("mistralai/Mixtrl-8x7B-Instruct-v0.1", "mixtral-8x7b-instruct-v0.1"), ("Qwen/Qwen3-Codr-30B-A3B-Instruct", "qwen3-coder-30b"),
        ("meta-llama/Lama-3.3-70B-Instruct", "llama-3.3-70b"), ("deepseek-ai/DeepSek-V3.1-Terminus", "deepseek-v3.1"),
    ],
)  # fmt: skip
def test_a_slip_is_refused_with_what_was_meant_and_without_the_network(typed: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ask_hub", lambda name: pytest.fail("the hub was asked"))
    with pytest.raises(InputError, match=f"did you mean.*{re.escape(meant)}"):
        load_model(typed)
