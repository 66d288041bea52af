"""Engine rows: lookup by version, inheritance, sources, settled defaults, checked overrides."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from importlib.resources import files

import pytest

from apexsim.engines import EngineRow, closest, differences, engine_names, engine_versions, load_engine, newest_version, override, settled
from apexsim.errors import InputError
from apexsim.gpu import Gpu
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.plan.limits import prompts_captured, unstartable
from apexsim.plan.plan import parse_plan
from apexsim.units import GiB

H100, A100, L4 = (79.19 * GiB, "h100-sxm"), (79.15 * GiB, "a100-sxm-80gb"), (22.03 * GiB, "l4")


def test_every_version_of_every_engine_loads() -> None:
    assert {"vllm", "orca", "sarathi", "sglang", "tensorrt-llm"} <= set(engine_names())
    for name in engine_names():
        for version in engine_versions(name):
            row = load_engine(f"{name}@{version}")
            assert (row.name, row.version) == (name, version)
            assert list(row.pad) == sorted(set(row.pad))


def test_every_constant_names_a_source() -> None:
    for name in engine_names():
        data = tomllib.loads((files("apexsim") / f"data/engines/{name}.toml").read_text(encoding="utf-8"))
        for row in data["row"]:
            for table in ("rules", "host", "memory"):
                for key, constant in row.get(table, {}).items():
                    assert len(constant) == 2 and constant[1] in data["sources"], (name, row["version"], key)


@pytest.mark.parametrize(
    ("spec", "lag", "admission"),
    [("vllm@0.13.0", 1, 0), ("vllm@0.14.0", 2, 0), ("vllm@0.18.1", 2, 0), ("vllm@0.19.0", 2, 3), ("sglang", 1, 1), ("orca", 1, 2)],
)
def test_steps_formed_ahead_and_prompts_that_must_fit_belong_to_vllm(spec: str, lag: int, admission: int) -> None:
    row = load_engine(spec)
    assert (row.lag, row.admission) == (lag, admission)


@pytest.mark.parametrize(
    ("spec", "version"),
    [
        ("vllm@0.6.0", "0.6.0"),
        ("vllm@0.6.6.post1", "0.6.0"),
        ("vLLM@0.10.2", "0.10.0"),
        ("vllm@0.19.2rc1", "0.19.0"),
        ("vllm@v0.20.1", "0.20.0"),
        ("vllm", engine_versions("vllm")[-1]),
    ],
)
def test_a_version_takes_the_newest_row_that_is_not_newer(spec: str, version: str) -> None:
    assert load_engine(spec).version == version


@pytest.mark.parametrize("spec", ["vllm@9.9", "vllm@0.5.5", "sglang@0.99", "trtllm@0.21", "orca@2"])
def test_a_version_beyond_both_ends_is_refused_and_both_are_named(spec: str) -> None:
    name = load_engine(spec.partition("@")[0]).name
    with pytest.raises(InputError) as refused:
        load_engine(spec)
    assert engine_versions(name)[0] in refused.value.line() and newest_version(name) in refused.value.line()


@pytest.mark.parametrize("name", engine_names())
def test_every_version_that_an_engine_lists_has_rules_and_those_between_say_whose(name: str) -> None:
    for version in (*engine_versions(name), newest_version(name)):
        row = load_engine(f"{name}@{version}")
        between = version not in engine_versions(name)
        assert row.asked == version * between and row.label == f"{name} {version}" + f": rules of {row.version}" * between
    assert closest(f"{name}@999").version == engine_versions(name)[-1] and closest(f"{name}@0.0.1").version == engine_versions(name)[0]


def test_days_of_release_ascend_with_the_versions() -> None:
    for name in engine_names():
        days = [load_engine(f"{name}@{version}").released for version in engine_versions(name)]
        assert days == sorted(days) and (len(days) == 1 or all(re.fullmatch(r"20\d\d-\d\d-\d\d", day) for day in days))


@pytest.mark.parametrize("spec", ["vlm", "vllm@zero", "vllm@0.23.1@x", "vllm@", "vllm@0.2", "", "@1"])
def test_unknown_engines_and_versions_are_refused(spec: str) -> None:
    with pytest.raises(InputError):
        load_engine(spec)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(InputError, match="vllm"):
        load_engine("vlm")


def test_vllm_v0_is_prefill_first_with_a_synchronous_scheduler() -> None:
    row = load_engine("vllm@0.6.0")
    assert (row.mix, row.chunk, row.admission, row.lag) == (0, 0, 1, 0)
    assert row.step_s > 1e-3 and row.sequence_s > 1e-4 and row.prompt_add_launch_s > 5e-6
    assert load_engine("vllm@0.8.0").lag == 1 and load_engine("vllm@0.8.0").step_s < row.step_s / 10  # V1, still in turn
    assert load_engine("vllm").lag == 2  # formed ahead: what is left of it hides behind the GPU
    assert len(row.pad) == 35 and row.max_capture == 256


def test_chunked_prefill_of_v0_mixes_under_512_tokens() -> None:
    row = settled(override(load_engine("vllm@0.6.0"), chunk=1), *H100, 8192)
    assert (row.mix, row.chunk, row.max_num_batched_tokens) == (1, 1, 512)
    assert settled(override(load_engine("vllm@0.6.0"), chunk=1, max_num_batched_tokens=2048), *H100, 8192).max_num_batched_tokens == 2048


@pytest.mark.parametrize(("gpu", "sequences", "tokens"), [(H100, 1024, 8192), (A100, 256, 2048), (L4, 256, 2048)])
def test_large_gpus_get_large_defaults(gpu: tuple[float, str], sequences: int, tokens: int) -> None:
    row = settled(load_engine("vllm@0.19.0"), *gpu, 8192)
    assert (row.max_num_seqs, row.max_num_batched_tokens) == (sequences, tokens)


def test_whole_prompts_need_a_budget_as_long_as_the_model() -> None:
    row = load_engine("vllm@0.6.0")
    assert settled(row, *H100, 8192).max_num_batched_tokens == 8192
    assert settled(row, *H100, 1024).max_num_batched_tokens == 2048
    with pytest.raises(InputError, match="longest request"):
        settled(override(row, max_num_batched_tokens=4096), *H100, 8192)


def test_settling_twice_changes_nothing() -> None:
    row = settled(load_engine("vllm"), *H100, 8192)
    assert settled(row, *H100, 8192) == row


def test_capture_ends_with_the_batch() -> None:
    assert settled(override(load_engine("vllm@0.6.0"), max_num_seqs=60), *H100, 2048).max_capture == 64
    assert settled(override(load_engine("vllm"), max_num_seqs=64), *H100, 2048).max_capture == 128
    assert settled(override(load_engine("vllm"), pad=()), *H100, 2048).max_capture == 0


@pytest.mark.parametrize(
    "setting",
    [
        {"max_num_seqs": 0},
        {"max_num_seqs": 2.5},
        {"max_num_batched_tokens": -1},
        {"block_size": 0},
        {"memory_fraction": 0.0},
        {"memory_fraction": 1.1},
        {"memory_fraction": float("nan")},
        {"admission": 4},
        {"max_num_seq": 4},
    ],
)
def test_bad_settings_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(InputError):
        override(load_engine("vllm"), **setting)


def test_none_keeps_the_default_and_the_row_itself_is_untouched() -> None:
    row = load_engine("vllm")
    assert override(row, max_num_seqs=None, chunk=None) == row
    override(row, max_num_seqs=8)
    assert load_engine("vllm") == row


def test_policies_differ_where_their_papers_do() -> None:
    orca, sarathi = load_engine("orca"), load_engine("sarathi")
    assert (orca.chunk, orca.mix, orca.admission, orca.preempt) == (0, 1, 2, 0)
    assert (sarathi.chunk, sarathi.mix, sarathi.max_num_batched_tokens) == (1, 1, 512)


def on(row: EngineRow, gpu: Gpu) -> EngineRow:
    return settled(row, gpu.memory_bytes, gpu.name, 4096)


def test_constants_of_some_gpus_hold_there_and_not_against_the_users_own() -> None:
    b200, b300, h100, rtx = (load_gpu(name) for name in ("b200-sxm", "b300-sxm", "h100-sxm", "rtx-4090"))
    new, old = load_engine("vllm@0.28.0"), load_engine("vllm@0.27.0")
    assert on(new, b200).max_num_batched_tokens == 16384 and on(old, b200).max_num_batched_tokens == 8192
    assert on(new, b200).max_capture == 1024 and on(new, h100).max_capture == 512 and not on(new, b200).here
    assert on(override(new, max_num_batched_tokens=4096), b200).max_num_batched_tokens == 4096
    assert on(load_engine("sglang"), rtx).max_num_batched_tokens == 2048
    assert on(load_engine("sglang"), b300).prompt_add_launch_s == 0.0 < on(load_engine("sglang"), b200).prompt_add_launch_s


@pytest.mark.parametrize("model, plan, captured", [
    ("llama-3.1-8b", "TP1", True), ("llama-3.1-8b", "PP2", False), ("qwen3-30b-a3b", "DEP2", False),
    ("deepseek-r1", "TP8", False), ("deepseek-ai--deepseek-v3.2", "TP8", False), ("qwen3-next-80b-a3b", "TP2", False),
])  # fmt: skip
def test_prompt_steps_are_captured_where_model_and_plan_allow_it(model: str, plan: str, captured: bool) -> None:
    row = load_engine("sglang@0.5.10")
    assert (prompts_captured(load_model(model), parse_plan(plan), row).prompt_add_launch_s == 0.0) == captured
    assert prompts_captured(load_model(model), parse_plan(plan), load_engine("sglang@0.5.9")) == load_engine("sglang@0.5.9")


@pytest.mark.parametrize("spec, rising", [("vllm@0.11.0", 350), ("vllm@0.17.0", 55), ("vllm@0.21.0", 30)])
def test_sampling_costs_by_release_and_only_where_it_is_asked_for(spec: str, rising: int) -> None:
    row = load_engine(spec)
    assert row.logit_bytes == 0 and override(row, sampling="top-p").logit_bytes == rising
    assert override(row, sampling="penalties").logit_bytes == rising + row.logit_penalty_bytes
    with pytest.raises(InputError, match="greedy or top-p or penalties"):
        override(row, sampling="beam")


def test_an_upgrade_tells_what_it_changes() -> None:
    before, now = (on(load_engine(spec), load_gpu("b200-sxm")) for spec in ("vllm@0.25", "vllm@0.33"))
    assert ("max_num_batched_tokens", 8192, 16384) in differences(before, now) and differences(now, now) == []


def test_the_largest_graph_that_is_asked_for() -> None:
    """vLLM captures it however few sequences it takes, SGLang no batch that it never has; sizes go on as far apart as the last ones."""
    few = {"capture": 2048, "max_num_seqs": 8}
    vllm, sglang = (settled(override(load_engine(name), **few), 80e9, "h100-sxm", 4096) for name in ("vllm", "sglang"))
    assert vllm.max_capture == 2048 and sglang.max_capture == 8
    assert {b - a for a, b in zip(vllm.pad[-50:], vllm.pad[-49:])} == {16} and vllm.pad == tuple(sorted(set(vllm.pad)))
    small = settled(override(load_engine("vllm"), capture=100), 80e9, "h100-sxm", 4096)
    assert small.max_capture == 96 and small.pad[:4] == (1, 2, 4, 8)
    with pytest.raises(InputError, match="without graphs there is no largest one"):
        override(load_engine("vllm"), capture=64, pad=())


def test_a_largest_graph_is_no_wish_of_a_release_that_cannot_be_told() -> None:
    model, plan = load_model("llama-3.1-8b"), parse_plan("TP1")
    one = Cluster(load_gpu("h100-sxm"), 1)
    for spec, able in (
        ("vllm@0.6.0", False),
        ("vllm@0.8.5", False),
        ("vllm@0.10.0", True),
        ("vllm", True),
        ("sglang", True),
        ("trtllm", True),
    ):
        row = settled(override(load_engine(spec), capture=64), 80e9, "h100-sxm", 4096)
        assert ("no word for the sizes of CUDA graphs" in unstartable(model, plan, one, row)) != able, spec
    single = replace(load_engine("vllm"), pad=(8,), here=())
    assert override(single, capture=30).pad == (8, 16, 24)


@pytest.mark.parametrize("word", ["enable_prefix_caching", "no_enable_prefix_caching", "disable_radix_cache", "enable_block_reuse",
                                  "enable_chunked_prefill", "enforce_eager", "disable_cuda_graph"])  # fmt: skip
def test_switches_by_the_words_of_engines_are_told_what_they_are_here(word: str) -> None:
    """And what the hint says is taken."""
    row = load_engine("vllm")
    with pytest.raises(InputError) as told:
        override(row, **{word: False})
    found = re.findall(r"'(\w+)': (\(\)|\d)", told.value.hint)
    assert found
    for key, value in found:
        override(row, **{key: () if value == "()" else int(value)})
