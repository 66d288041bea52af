"""Rows of measured runs as strangers write them: other spellings mean the same, what is missing is asked for, what no run has is named."""

from __future__ import annotations

import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from apexsim.errors import InputError
from apexsim.model.names import model_names
from apexsim.model.served import label_word, served
from apexsim.validate.kinds import KINDS, read_cases, read_rows
from apexsim.validate.replay import PREDICT, Bench, run
from apexsim.validate.rows import Skipped, engine_spelled, gpu_spelled
from apexsim.validate.score import summarise
from test_validate import AGAIN, APART, APART_OPEN, CLOSED, COLD, FILES, GAP, LADDER, QUEUED, RATED, STEP, WIDE, written

ENERGY = {"id": "e", "quality_class": "primary", "gpu": "H100", "model": "meta-llama/Llama-3.1-8B-Instruct", "task": "lm-arena-chat",
          "precision": "bfloat16", "engine": "vllm", "gpus": "1", "dp": "1", "ep": "1", "load": "8", "osl_mean": "40", "isl_mean": "",
          "out_tok_s_per_gpu": "900", "power_w_per_gpu": "500", "J_per_out_token": "0.5", "quality": "", "spec": "",
          "config": "meta-llama--Meta-Llama-3.1-8B"}  # fmt: skip
MEMORY = {"id": "m", "engine": "vllm", "version": "0.19.0", "model_id": "meta-llama/Llama-3.1-8B", "gpu": "H100", "gpu_known": "log",
          "gpu_total_gib": "79.1", "tp": "1", "dp": "", "pp": "", "ep": "", "quant": "", "kv_dtype": "", "util": "0.9",
          "max_model_len": "8192", "weights_gib": "15", "kv_gib": "54", "kv_tokens": "440000", "outcome": "ok",
          "config": "meta-llama--Meta-Llama-3.1-8B"}  # fmt: skip
OFFLINE = {"id": "f", "gpu": "H100", "config": "meta-llama--Meta-Llama-3.1-8B", "precision": "FP8", "isl": "128", "osl": "16",
           "num_requests": "8", "tp": "1", "pp": "1", "ep": "", "attn_dp": "", "gpus": "1", "out_tok_s_per_gpu": "900"}  # fmt: skip
TIMED = {"hw": "RTXPRO6000", "model": "Llama-3.1-8B", "tp": "1", "dp": "1", "ep": "", "max_num_seqs": "8", "max_num_batched_tokens": "2048",
         "vllm": "0.19.0", "dtype": "bfloat16", "request_id": "0", "arrival_s": "0", "isl": "100", "osl": "9", "ttft_s": "0.05",
         "tpot_ms": "12", "latency_s": "0.146", "config": "meta-llama--Meta-Llama-3.1-8B"}  # fmt: skip
ALL = FILES | {"energy": ENERGY, "start-up memory": MEMORY, "offline throughput": OFFLINE, "request level": TIMED}


def told(tmp_path: Path, *rows: dict[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run(written(tmp_path / "rows.csv", *rows))["rows"]
    return found


def values(row: dict[str, Any]) -> dict[str, float]:
    return {name: pair["predicted"] for name, pair in row["metrics"].items()}


# ---- the same, spelled otherwise -----------------------------------------------------------------------------------------

LABELS = {
    "fp8": "FP8 float8 fp8_e4m3 e4m3 fp8e4m3 float8_e4m3fn fp8_e5m2 w8a8-fp8",
    "fp8_block": "fp8-block fp8_blockwise FP8-block-wise fp8(block)", "fp8_tensor": "fp8-per-tensor FP8-Dynamic fp8_static",
    "nvfp4": "NVFP4 modelopt_fp4 nv-fp4 nvfp4/fp4", "mxfp4": "MXFP4 mx-fp4", "fp4": "FP4 float4 fp4_e2m1 w4a4",
    "int4": "INT4 w4a16 GPTQ gptq-int4 uint4 4-bit q4", "awq": "AWQ int4-awq awq_marlin", "int8": "w8a16 8bit GPTQ-Int8",
    "w8a8": "W8A8-INT8 smoothquant", "nf4": "bnb bitsandbytes nf4 bnb4", "bf16": "bfloat16 BF16 none unquantized bf16/fp16",
    "fp16": "half float16 16bit 16-bit", "": "auto Native original - n/a unknown",
}  # fmt: skip


@pytest.mark.parametrize("meant", LABELS)
def test_a_format_is_known_however_it_is_spelled(meant: str) -> None:
    assert {each: label_word(each) for each in LABELS[meant].split()} == dict.fromkeys(LABELS[meant].split(), meant)
    assert label_word("int4 (GPTQ)") == "int4" and label_word("nvfp4 (modelopt)") == "nvfp4"


@pytest.mark.parametrize("label", ["fp8", "fp4", "int4", "int8", "awq", "w8a8", "bf16", ""])
def test_every_model_is_served_in_every_format_and_what_was_assumed_is_said(label: str) -> None:
    for name in model_names()[::7]:
        found = served(name, label)
        assert found.model.layers if hasattr(found.model, "layers") else found.model
    assert "GPTQ-Int4 as usual" in served("EleutherAI--gpt-j-6b", "int4").assumed


def test_engines_and_gpus_are_known_however_they_are_spelled() -> None:
    names = {"vLLM": "vllm", "SGLang": "sglang", "TensorRT-LLM": "trtllm", "tensorrt_llm": "trtllm", "trt": "trtllm", "TRT-LLM": "trtllm",
             "dynamo-sglang": "sglang", "vllm-rocm": "vllm", "vLLM 0.15.1": "vllm 0.15.1", "vllm_0.8.5.sif": "vllm_0.8.5.sif",
             "own engine": "own engine", "atom": "atom"}  # fmt: skip
    assert {each: engine_spelled(each) for each in names} == names
    cards = {"h100_sxm5": "h100_sxm", "h100-cw": "h100", "mi355x-amds": "mi355x", "h100_pcie": "h100_pcie", "nobody-pcie": "nobody-pcie"}
    assert {each: gpu_spelled(each) for each in cards} == cards


SAME = {
    "spelled otherwise": {"backend": "vLLM", "system": "H100-SXM5", "precision": "bfloat16", "concurrency": "4.0"},
    "no width of lanes": {"attn_tp": "", "gpus": "1"}, "a cache without a word": {"launch_kv_dtype": "auto"},
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_other_spellings_are_the_same_run(name: str, tmp_path: Path) -> None:
    first = {**dict.fromkeys(SAME[name], ""), **CLOSED}
    one, other = told(tmp_path, first, first | SAME[name] | {"id": "b"})
    assert values(one) == values(other) and one["interval"] == other["interval"]


def test_columns_in_any_order_with_others_beside_and_times_in_any_unit(tmp_path: Path) -> None:
    [plain] = told(tmp_path, CLOSED)
    moved = dict(reversed(CLOSED.items())) | {"notes": 'a "b",\nc'}
    moved["ttft_mean_s"], moved["tpot_mean_us"] = "0.020", "7000"
    del moved["ttft_mean_ms"], moved["tpot_mean_ms"]
    [found] = told(tmp_path, {f" {name} ": cell for name, cell in moved.items()})
    assert values(found) == values(plain)
    assert {name: pair["measured"] for name, pair in found["metrics"].items()} == pytest.approx(
        {name: pair["measured"] for name, pair in plain["metrics"].items()}
    )


@pytest.mark.parametrize("column", ["id", "origin", "precision", "len_dist", "num_prompts", "backend_version", "suspect", "ttft_median_ms"])
def test_what_is_not_needed_may_be_missing(column: str, tmp_path: Path) -> None:
    [found] = told(tmp_path, {name: cell for name, cell in CLOSED.items() if name != column})
    assert found["status"] == "ok" and found["id"] == ("0" if column == "id" else "a")


def test_a_configuration_may_be_written_as_its_file(tmp_path: Path) -> None:
    names = ("zai-org--GLM-5", "zai-org--GLM-5.json", "zai-org/GLM-5")
    assert {served(name, "fp8").model.weight_dtypes for name in names} == {served("zai-org--GLM-5-FP8", "").model.weight_dtypes}
    path = tmp_path / "zai-org--GLM-5.json"
    path.write_text((files("apexsim") / "data/models/zai-org--GLM-5.json").read_text(encoding="utf-8"))
    assert (
        served(str(path), "fp8").assumed == ""
        and served(str(path), "fp8").model.weight_dtypes == served(names[0], "fp8").model.weight_dtypes
    )


def test_a_run_that_existed_finds_room_beside_graphs(tmp_path: Path) -> None:
    """All of a GPU's memory is more than is there where graphs take theirs beside the cache: nearly all of it is tried then."""
    wide = {"config": "deepseek-ai--DeepSeek-R1", "precision": "bf16", "attn_tp": "8", "moe_tp": "8", "backend": "sglang",
            "backend_version": "0.5.9", "system": "b200_sxm"}  # fmt: skip
    [found] = told(tmp_path, CLOSED | wide)
    assert found["status"] == "ok" and "since the run existed" in found["reason"]


NARROW = {"fp8_e4m3fn": "fp8", "fp8_ds_mla": "fp8", "nvfp4": "taken as fp8"}


@pytest.mark.parametrize("word", NARROW)
def test_caches_of_every_engine_are_read(word: str, tmp_path: Path) -> None:
    one, other = told(tmp_path, CLOSED | {"launch_kv_dtype": word}, CLOSED | {"launch_kv_dtype": "fp8"})
    assert one["status"] == "ok" and values(one) == values(other) and (NARROW[word] == "fp8" or NARROW[word] in one["reason"])


# ---- what is missing is asked for ----------------------------------------------------------------------------------------

NEEDED = [(CLOSED, "isl"), (CLOSED, "osl"), (CLOSED, "concurrency"), (CLOSED, "attn_tp"), (APART, "osl"), (APART_OPEN, "num_requests"),
          (APART_OPEN, "attn_tp"), (AGAIN, "rate_rps"), (AGAIN, "num_requests"), (AGAIN, "output_tokens"), (LADDER, "output_tokens"),
          (GAP, "num_gpus"), (GAP, "avg_output_len"), (QUEUED, "total_output_tokens"), (RATED, "output_tokens_mean"), (COLD, "tp"),
          (STEP, "kv_blocks_free_gpu"), (WIDE, "ep"), (ENERGY, "gpus"), (OFFLINE, "num_requests")]  # fmt: skip


@pytest.mark.parametrize(("row", "column"), NEEDED, ids=[f"{row.get('id', '')} {column}" for row, column in NEEDED])
def test_without_what_is_needed_a_row_says_so(row: dict[str, str], column: str, tmp_path: Path) -> None:
    """A width of 1, a length of 0 or a rate of nothing would be a wrong number without a word."""
    [found] = read_cases(written(tmp_path / "rows.csv", row | {column: ""}))[1]
    assert isinstance(found, Skipped) and f"no '{column}'" in found.reason


def test_widths_follow_from_the_gpus_where_they_do(tmp_path: Path) -> None:
    [found] = told(tmp_path, CLOSED | {"attn_tp": "", "gpus": "2"})
    [wide] = told(tmp_path, CLOSED | {"attn_tp": "2"})
    assert values(found) == values(wide)
    [odd] = told(tmp_path, CLOSED | {"attn_tp": "", "attn_dp": "2", "gpus": "3"})
    assert "does not divide 3" in odd["reason"]


def test_requests_without_their_latency_have_it_from_their_pace(tmp_path: Path) -> None:
    [whole] = told(tmp_path, TIMED)
    for column in ("latency_s", "tpot_ms"):
        [found] = told(tmp_path, {name: cell for name, cell in TIMED.items() if name != column})
        for name, pair in found["metrics"].items():
            assert pair["measured"] == pytest.approx(whole["metrics"][name]["measured"], rel=0.01)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,backend,concurrency,attn_tp,isl,isl\na,vllm,1,1,100,200\n")
    with pytest.raises(InputError, match="two columns are called 'isl'"):
        read_rows(path)


# ---- figures that no run has ---------------------------------------------------------------------------------------------

ABSURD = ("", "0", "-1", "0.5", "3", "1e9", "1e30", "1e300", "nan", "inf", "x", "1e-300")


@pytest.mark.parametrize("kind", ALL)
def test_no_cell_of_any_kind_ends_in_a_traceback(kind: str, tmp_path: Path) -> None:
    """Each cell in turn holds each absurd figure: the row is predicted, in numbers that are some, or says why it is not.  Nothing is
    caught to make it so: a fault of the program would show."""
    bench, row = Bench(), ALL[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for column in row:
            for bad in ABSURD:
                try:
                    cases = read_cases(written(tmp_path / "rows.csv", row | {column: bad}))[1]
                except InputError:
                    continue
                rows = [PREDICT[type(case)](bench, case) for case in cases]
                assert all(pair["predicted"] == pair["predicted"] for found in rows for pair in found["metrics"].values()), (column, bad)
                assert all(found["status"] == "ok" or found["reason"] for found in rows)
                summarise(rows)


@pytest.mark.parametrize("value", ["1e-300", "1e-30"])
def test_a_figure_of_no_clock_is_left_out_and_named(value: str, tmp_path: Path) -> None:
    [found] = told(tmp_path, CLOSED | {"ttft_mean_ms": value})
    assert "ttft_mean_ms" not in found["metrics"] and "tpot_mean_ms" in found["metrics"]
    assert f"ttft_mean_ms left out: {float(value):g} is no measured value" in found["reason"]


# ---- how sure ------------------------------------------------------------------------------------------------------------


def test_logs_and_pairs_carry_intervals_too(tmp_path: Path) -> None:
    [log] = told(tmp_path, MEMORY)
    assert set(log["interval"]) == {"weights_gib", "kv_gib", "kv_tokens", "kv_tokens_given_kv_gib"}
    runs = [CLOSED | {"id": "plain"}, CLOSED | {"id": "drafts", "spec": "mtp", "draft_tokens": "1", "config": "deepseek-ai--DeepSeek-V3",
                                                "precision": "fp8", "attn_tp": "16"}]  # fmt: skip
    runs[0] |= {"spec": "", "draft_tokens": "", "config": "deepseek-ai--DeepSeek-V3", "precision": "fp8", "attn_tp": "16"}
    written(tmp_path / "runs.csv", *runs)
    pair = {"id_spec": "drafts", "id_base": "plain", "mode": "aggregated", "backend": "vllm", "system": "h100_sxm", "draft_tokens": "1",
            "ids_in": "runs.csv", "speedup_tpot": "1.5", "speedup_e2e": "1.4", "config": "deepseek-ai--DeepSeek-V3"}  # fmt: skip
    [found] = told(tmp_path, pair)
    assert found["status"] == "ok", found["reason"]
    assert all(low < found["metrics"][name]["predicted"] < high for name, bar in found["interval"].items() for low, high in bar.values())
    assert set(found["interval"]) == {"speedup_tpot", "speedup_e2e"} == set(KINDS["drafting pairs"].metrics)
