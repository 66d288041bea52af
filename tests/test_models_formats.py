"""Every way of saying how a checkpoint is quantised is understood, or refused in one line that says what to give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apexsim.errors import InputError
from apexsim.model.dtypes import dtype
from apexsim.model.families import load_model
from apexsim.model.model import Model
from apexsim.model.modules import Patterns
from apexsim.model.names import DATA
from apexsim.model.quantisation import READERS
from apexsim.plan.choose import precision_of

LLAMA = {
    "model_type": "llama", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 100,
    "intermediate_size": 512, "max_position_embeddings": 512,
}  # fmt: skip
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}


def load(folder: Path, section: Any, base: dict[str, Any] | None = None) -> Model:
    """A small Llama (or Mixtral) with this quantization_config."""
    file = folder / "config.json"
    file.write_text(json.dumps({**(base or LLAMA), "quantization_config": section}), encoding="utf-8")
    return load_model(str(file))


def group(bits: int, kind: str, acts: bool = False, **more: Any) -> dict[str, Any]:
    """One group of compressed-tensors."""
    return {
        "targets": ["Linear"], "weights": {"num_bits": bits, "type": kind, **more},
        "input_activations": {"num_bits": bits} if acts else None,
    }  # fmt: skip


def groups(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A section of compressed-tensors."""
    named = {f"group_{i}": row for i, row in enumerate(rows)}
    return {"quant_method": "compressed-tensors", "config_groups": named, "ignore": ["lm_head"], **more}


def quark(name: str, **more: Any) -> dict[str, Any]:
    """A section of Quark."""
    return {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": name, **more}, "input_tensors": {"dtype": name}}}


def torchao(kind: str, **data: Any) -> dict[str, Any]:
    """A section of torchao, serialised."""
    return {"quant_method": "torchao", "quant_type": {"default": {"_type": kind, "_data": data}}}


BITS = [  # section, stored bits per weight by the method's own packing
    ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4.125),
    ({"quant_method": "gptq", "bits": 4, "group_size": 32}, 4.5),
    ({"quant_method": "gptq", "bits": 4, "group_size": -1}, 4.0),
    ({"quant_method": "gptq", "bits": 8, "group_size": 128}, 8.125),
    ({"quant_method": "gptq", "bits": 3, "group_size": 128}, 3.125),
    ({"quant_method": "gptq_marlin", "bits": 4, "group_size": 128}, 4.125),
    ({"quant_method": "gptqmodel", "bits": 2, "group_size": 64}, 2.25),
    ({"quant_method": "bitblas", "bits": 4, "group_size": 128}, 4.125),
    ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4.156),
    ({"quant_method": "awq_marlin", "w_bit": 4, "q_group_size": 64}, 4.3125),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, 4.25),
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8.125),
    ({"quant_method": "fp8", "activation_scheme": "static"}, 8.0),
    ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8.002),
    ({"quant_method": "fbgemm_fp8"}, 8.0),
    ({"quant_method": "ptpc_fp8"}, 8.0),
    ({"quant_method": "eetq"}, 8.125),
    ({"quant_method": "tpu_int8"}, 8.125),
    ({"quant_method": "rtn", "bits": 4}, 4.125),
    ({"quant_method": "mxfp4"}, 4.25),
    ({"quant_method": "petit_nvfp4"}, 4.5),
    ({"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True}, 4.125),
    ({"quant_method": "auto-round", "bits": 2, "group_size": 64, "sym": True}, 2.25),
    ({"quant_method": "auto-round", "bits": 4, "data_type": "mx_fp", "group_size": 32}, 4.25),
    ({"quant_method": "intel/auto-round", "bits": 8, "group_size": 128, "sym": True}, 8.125),
    ({"quant_method": "inc", "bits": 3, "group_size": 128, "sym": True}, 3.125),
    ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}, 4.5),
    ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 2, "group_size": 16}}}, 4.0),
    ({"quant_method": "aqlm", "in_group_size": 8, "num_codebooks": 1, "nbits_per_codebook": 16}, 2.0),
    ({"quant_method": "vptq", "config_for_layers": {"a": {"vector_lens": [-1, 8], "num_centroids": [-1, 65536]}}}, 2.0),
    ({"quant_method": "higgs", "bits": 4, "group_size": 256}, 4.0625),
    ({"quant_method": "quanto", "weights": "int8"}, 8.125),
    ({"quant_method": "fp_quant", "forward_dtype": "nvfp4"}, 4.5),
    (quark("fp8_e4m3"), 8.0),
    (quark("fp4", group_size=32), 4.25),
    (quark("int8"), 8.0),
    (quark("uint4", group_size=128), 4.156),
    (torchao("Int4WeightOnlyConfig", group_size=128), 4.25),
    (torchao("Int8WeightOnlyConfig"), 8.125),
    (torchao("Float8DynamicActivationFloat8WeightConfig"), 8.0),
    ({"quant_method": "torchao", "quant_type": "int4_weight_only", "quant_type_kwargs": {"group_size": 64}}, 4.5),
    (groups(group(4, "int", group_size=128, strategy="group")), 4.125),
    (groups(group(4, "int", group_size=32, strategy="group")), 4.5),
    (groups(group(4, "int", group_size=128, strategy="group", symmetric=False)), 4.156),
    (groups(group(8, "int", acts=True, strategy="channel")), 8.0),
    (groups(group(8, "float", acts=True, strategy="channel")), 8.0),
    (groups(group(4, "float", acts=True, group_size=16)), 4.5),
    (groups(group(4, "float", group_size=32), format="mxfp4-pack-quantized"), 4.25),
    ({"quant_method": "compressed-tensors", "config_groups": [group(4, "int", group_size=128)]}, 4.125),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}, 4.5),
    ({"quant_method": "modelopt", "quant_algo": "FP8"}, 8.0),
    ({"quant_algo": "W4A16_AWQ", "group_size": 128}, 4.16),
]  # fmt: skip


@pytest.mark.parametrize(("section", "bits"), BITS, ids=lambda x: json.dumps(x)[:70] if isinstance(x, dict) else str(x))
def test_stored_bits_of_linear_layers(tmp_path: Path, section: dict[str, Any], bits: float) -> None:
    formats = dict(load(tmp_path, section).weight_dtypes)
    assert [8 * dtype(formats[part]).stored for part in ("attention", "ffn")] == [pytest.approx(bits, rel=0.011)] * 2


MIXED = [  # section, bits of attention and FFN
    (groups({**group(8, "float", acts=True), "targets": ["re:.*self_attn.*"]},
            {**group(4, "float", group_size=16), "targets": ["re:.*mlp.*"]}), 8.0, 4.5),
    (groups(group(4, "int", group_size=128), ignore=["re:.*self_attn.*"]), 16.0, 4.125),
    (groups(group(4, "int", group_size=128), ignore=["model.layers.0.mlp.down_proj"]), 4.125, 4.125 + 11.875 / 12),
    ({"quant_method": "auto-round", "bits": 4, "group_size": 128, "extra_config": {".*self_attn.*": {"bits": 16}}}, 16.0, 4.125),
    ({"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"-:.*attn.*": {}, "+:.*mlp.*": {"bits": 8}}}, 16.0, 8.125),
    ({**quark("fp8_e4m3"), "layer_quant_config": {"*mlp*": {"weight": {"dtype": "fp4", "group_size": 32}}}}, 8.0, 4.25),
    ({**quark("fp8_e4m3"), "exclude": ["re:.*self_attn.*"]}, 16.0, 8.0),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": ["model.layers.*.self_attn*", "lm_head"]}, 16.0, 4.5),
    ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {
        f"model.layers.{i}.{m}": {"quant_algo": a} for i in range(4)
        for m, a in (("self_attn.q_proj", "FP8"), ("self_attn.k_proj", "FP8"), ("self_attn.v_proj", "FP8"), ("self_attn.o_proj", "FP8"),
                     ("mlp.gate_proj", "NVFP4"), ("mlp.up_proj", "NVFP4"), ("mlp.down_proj", "NVFP4"))}}, 8.0, 4.5),
    ({"quant_method": "fp8", "modules_to_not_convert": ["self_attn"]}, 16.0, 8.0),
]  # fmt: skip


@pytest.mark.parametrize(("section", "attention", "ffn"), MIXED, ids=range(len(MIXED)))
def test_modules_of_their_own_formats(tmp_path: Path, section: dict[str, Any], attention: float, ffn: float) -> None:
    formats = dict(load(tmp_path, section).weight_dtypes)
    bits = [8 * dtype(formats.get(part, "bf16")).stored for part in ("attention", "ffn")]
    assert bits == [pytest.approx(attention, rel=0.011), pytest.approx(ffn, rel=0.011)]


def test_only_the_experts(tmp_path: Path) -> None:
    assert [dict(load(tmp_path, {"quant_method": m}, MIXTRAL).weight_dtypes) for m in ("mxfp4", "experts_int8")] == [
        {"experts": "mxfp4"},
        {"experts": "int8"},
    ]


def test_shared_experts_of_a_4_bit_mixture_stay_in_8_bit(tmp_path: Path) -> None:
    section = {"quant_method": "w4afp8", "weight_block_size": [128, 128]}
    path = tmp_path / "config.json"
    given = json.loads((DATA / "deepseek-ai--DeepSeek-R1.json").read_text(encoding="utf-8"))
    path.write_text(json.dumps({**given, "quantization_config": section}), encoding="utf-8")
    formats = dict(load_model(str(path)).weight_dtypes)
    assert (formats["experts"], formats["shared"], formats["attention"]) == ("w4a8", "fp8_block", "fp8_block")


def test_a_layer_list_is_said(tmp_path: Path) -> None:
    section = groups(group(4, "int", group_size=128), ignore=["model.layers.0.mlp.down_proj"])
    assert any("ffn" in note and "counted as int4~" in note for note in load(tmp_path, section).notes)


UNKNOWN = [
    {"quant_method": "zzz", "bits": 4}, {"quant_method": "exl2", "bits": 4.0}, {"quant_method": "gguf"},
    {"quant_method": "spqr", "bits": 3}, {"bits": 4}, {"quant_method": "modelopt", "quant_algo": "NEW"}, {"quant_method": "quark"},
    quark("fp3"), torchao("NewConfig"),
    groups(group(8, "complex")), groups({**group(8, "float"), "targets": ["re:.*nothing.*"]}),
    {"quant_method": "compressed-tensors", "config_groups": {}}, {"quant_method": "quanto", "weights": "int1"},
    {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, {"quant_method": "hqq"}, {"quant_method": "vptq"},
]  # fmt: skip


@pytest.mark.parametrize("section", UNKNOWN, ids=lambda x: json.dumps(x)[:60])
def test_what_is_not_known_is_refused_unless_the_user_says_it(tmp_path: Path, section: dict[str, Any]) -> None:
    model = load(tmp_path, section)
    with pytest.raises(InputError) as error:
        precision_of(model, None, None, None)
    assert ("--weight-dtype" in error.value.line(), "quantization_config" in error.value.line(), "\n" in error.value.line()) == (
        True, True, False,
    )  # fmt: skip
    assert precision_of(model, "int4", None, None).default == "int4"


@pytest.mark.parametrize("method", READERS)
def test_no_method_counts_as_16_bit_in_silence(tmp_path: Path, method: str) -> None:
    try:
        model = load(tmp_path, {"quant_method": method}, MIXTRAL)
    except InputError as error:
        assert "key '" in error.line()
        return
    assert model.unread or any(dtype(form).stored < 2.0 for _, form in model.weight_dtypes)


@pytest.mark.parametrize(
    ("scheme", "kv"),
    [
        ({"kv_cache_quant_algo": "FP8"}, "fp8"),
        ({"kv_cache_quant_algo": "INT8"}, "int8"),
        ({"kv_cache_scheme": {"num_bits": 8, "type": "float"}}, "fp8"),
        ({"kv_cache_scheme": "FP8"}, "fp8"),
        ({"kv_cache_quant_algo": None}, ""),
    ],
)
def test_format_of_the_cache(tmp_path: Path, scheme: dict[str, Any], kv: str) -> None:
    assert load(tmp_path, {"quant_method": "modelopt", "quant_algo": "FP8", **scheme}).kv_dtype == kv


def test_quarks_cache_is_read_or_refused(tmp_path: Path) -> None:
    fp8 = {"weight": {"dtype": "fp8_e4m3"}}

    def quark(name: str) -> Any:
        cache = {"*k_proj": {"output_tensors": {"dtype": name}}}
        return load(tmp_path, {"quant_method": "quark", "global_quant_config": fp8, "kv_cache_quant_config": cache})

    assert [precision_of(quark(name), None, None, None).kv for name in ("fp8_e4m3", "bfloat16")] == ["fp8", "bf16"]
    with pytest.raises(InputError, match="--kv-dtype"):
        precision_of(quark("uint4"), None, None, None)


@pytest.mark.parametrize("scheme", [{"kv_cache_quant_algo": "NVFP4"}, {"kv_cache_scheme": {"num_bits": 4, "type": "int"}}])
def test_a_cache_that_is_not_known_is_refused(tmp_path: Path, scheme: dict[str, Any]) -> None:
    model = load(tmp_path, {"quant_method": "modelopt", "quant_algo": "FP8", **scheme})
    with pytest.raises(InputError, match="--kv-dtype"):
        precision_of(model, None, None, None)
    assert precision_of(model, None, None, "fp8").kv == "fp8"


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "group_size"),
        ({"quant_method": "gptq", "bits": 4, "group_size": -7}, "group_size"),
        ({"quant_method": "gptq", "bits": 4, "group_size": "wide"}, "group_size"),
        ({"quant_method": "gptq", "bits": 0}, "bits"),
        ({"quant_method": "awq", "bits": 400}, "bits"),
        ({"quant_method": "awq", "modules_to_not_convert": 5}, "modules_to_not_convert"),
        ({"quant_method": "awq", "modules_to_not_convert": [5]}, "modules_to_not_convert"),
        ({"quant_method": "modelopt", "quant_algo": 5}, "quant_algo"),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": 5}, "kv_cache_quant_algo"),
        ({"quant_method": 5}, "quant_method"),
        ({"quant_method": "fp8", "weight_block_size": 128}, "weight_block_size"),
        ({"quant_method": "fp8", "weight_block_size": [0, 128]}, "weight_block_size"),
        ({"quant_method": "compressed-tensors", "config_groups": 5}, "config_groups"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": 5}}, "config_groups.a"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"targets": 5, "weights": {"num_bits": 4}}}}, "targets"),
        ({"quant_method": "auto-round", "bits": 4, "extra_config": 5}, "extra_config"),
        ({"quant_method": "quark", "global_quant_config": {"weight": 5}}, "weight"),
        ({"quant_method": "torchao", "quant_type": 5}, "quant_type"),
    ],
    ids=lambda x: json.dumps(x)[:70],
)
def test_an_impossible_value_names_its_key(tmp_path: Path, section: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError, match=f"key '{key}'"):
        load(tmp_path, section)


def test_hf_quant_config_with_an_impossible_algorithm(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": 5}}), encoding="utf-8")
    with pytest.raises(InputError, match="key 'quant_algo'"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    "pattern", ["re:.*mlp.*", "re:.*layers..\\.mlp", "*mlp*", "re:.*layers\\.\\d\\d\\..*", "layers.7.mlp", "re:.*[.]mlp$", "layers.*.up"]
)
def test_what_is_remembered_of_a_pattern_holds_for_each_layer(pattern: str) -> None:
    """Layers are told apart where a pattern can: by a number in it, or by how many digits theirs has."""
    asked = Patterns([pattern])
    for path in ("mlp", "mlp.up", "self_attn.q", "up"):
        for layer in (None, *range(0, 120, 3), 7):
            assert asked._path(layer, path) == Patterns([pattern])._named(layer, path)
