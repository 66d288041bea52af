"""`fit`: every bundled model sizes or says why not; the answer is held against a log line by line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from apexsim.cli import main
from apexsim.engines import load_engine, settled
from apexsim.errors import InputError, Rejected
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.model.names import model_names
from apexsim.plan.fit import Fit, Widths, fit, longest, plan_of
from apexsim.plan.memory import Room, fractions, size
from apexsim.plan.plan import Precision
from apexsim.plan.weights import unsplit
from apexsim.report.startup_log import compared, logged
from apexsim.units import MiB

LOG = str(Path(__file__).parent.parent / "examples/qwen3-8b-startup.log")
LARGE = Cluster(load_gpu("b300-sxm"), 8, 4)


def answer(name: str, cluster: Cluster, widths: Widths, spec: str = "vllm", length: int = 0) -> Fit:
    model = load_model(name)
    length = length or min(model.max_length, 8192)
    engine = settled(load_engine(spec), cluster.gpu.memory_bytes, cluster.gpu.name, length)
    precision = Precision(model.weight_dtypes, "bf16", "auto", model.kv_dtype or "bf16")
    return fit(model, cluster, engine, widths, precision, length)


@pytest.mark.parametrize("name", model_names())
def test_every_bundled_model_sizes_on_a_cluster_large_enough(name: str) -> None:
    model = load_model(name)
    found = [answer(name, LARGE, Widths(tp=8, pp=pp)) for pp in (1, min(4, len(model.decoder.layers)))]
    assert any(a.fits for a in found) or all(isinstance(a.found, Rejected) and a.found.reason for a in found)


@pytest.mark.parametrize("name", model_names())
def test_every_bundled_model_fits_with_no_width_given(name: str) -> None:
    found = answer(name, LARGE, Widths())
    assert found.fits or (isinstance(found.found, Rejected) and "GiB short" in found.found.reason and found.nearest)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["fit", *words])
    out = capsys.readouterr()
    return code, out.out, out.err


H100 = ("--gpu", "h100-sxm", "--gpus", "8")


def test_a_width_not_given_is_filled_by_replicas(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "llama-3.1-70b", *H100, "--tp", "4", "--json")
    found = json.loads(out)
    assert code == 0 and found["plan"] == "2×TP4" and sum(row["bytes"] for row in found["ledger"]) == found["gpu_memory_bytes"]


def test_what_does_not_fit_says_why_and_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "llama-3.1-70b", *H100, "--tp", "1")
    assert code == 3 and not out and "GiB short" in err and "2×TP4 on these GPUs would fit" in err


def test_heads_that_cannot_be_divided_are_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "gpt2", *H100, "--tp", "8")
    assert code == 3 and "12 attention heads cannot be divided by tp 8" in err


def test_widths_that_need_another_number_of_gpus_are_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "llama-3.1-8b", *H100, "--tp", "3")[0] == 2


def test_a_log_is_compared_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    flags = (
        "--engine",
        "vllm@0.19",
        "--max-model-len",
        "8192",
        "--gpu-memory-utilization",
        "0.95",
        "--log",
        LOG,
        "--json",
    )
    code, out, _ = run(capsys, "qwen3-8b", "--gpu", "h100-sxm", "--gpus", "1", *flags)
    lines = {row["line"]: row for row in json.loads(out)["comparison"]}
    assert code == 0 and len(lines) == 8
    for name in ("weights_gib", "kv_gib", "kv_tokens", "max_concurrency"):
        assert lines[name]["predicted"] == pytest.approx(lines[name]["logged"], rel=0.002)


LOGGED = [
    ("INFO model_runner.py:1115] Loading model weights took 14.9888 GB", {"weights_gib": 14.9888}),
    ("the rest of the memory reserved for KV Cache is 57.77GiB.", {"kv_gib": 57.77}),
    ("# GPU blocks: 27,000, # CPU blocks: 2048", {"kv_blocks": 27000.0}),
    ("Load weight end. type=LlamaForCausalLM, avail mem=60.9 GB, mem usage=15.0 GB.", {"weights_gib": 15.0}),
    (
        "KV Cache is allocated. #tokens: 400000, K size: 20.00 GB, V size: 21.50 GB",
        {"kv_tokens": 400000.0, "kv_gib": 41.5},
    ),
    (
        "[MemUsageChange] Allocated 64.75 GiB for max tokens in paged KV cache (132608).",
        {"kv_gib": 64.75, "kv_tokens": 132608.0},
    ),
    ("(w0) Model loading took 7.6 GiB\n(w1) Model loading took 7.7 GiB", {"weights_gib": 7.7}),
]


@pytest.mark.parametrize(("text", "values"), LOGGED)
def test_the_lines_of_each_engine_are_read(text: str, values: dict[str, float]) -> None:
    assert logged(text) == pytest.approx(values)


def test_a_text_without_memory_lines_is_refused() -> None:
    with pytest.raises(InputError, match="no memory line"):
        compared("hello", {})


def test_the_longest_request_just_fits() -> None:
    tight = answer("llama-3.1-70b", Cluster(load_gpu("h100-sxm"), 2), Widths(tp=2), length=131072)
    tokens = longest(tight)
    assert f"--max-model-len {tokens}" in tight.nearest
    assert answer("llama-3.1-70b", tight.cluster, Widths(tp=2), length=tokens).fits
    assert not answer("llama-3.1-70b", tight.cluster, Widths(tp=2), length=tokens + 16).fits


@pytest.mark.parametrize("spec", ["vllm@0.19", "vllm@0.22", "sglang", "tensorrt-llm"])
def test_the_fraction_of_the_engine_itself_comes_back(spec: str) -> None:
    found = answer("llama-3.1-8b", Cluster(load_gpu("h100-sxm"), 1), Widths(tp=1), spec)
    assert isinstance(found.found, Room)
    assert fractions(found.found, found.engine)[found.engine.memory.budget] == pytest.approx(found.engine.memory_fraction)


def test_only_vllm_insists_on_room_for_the_longest_request() -> None:
    one = Cluster(load_gpu("h100-sxm"), 2)
    fit_by = {spec: answer("llama-3.1-70b", one, Widths(tp=2), spec, 131072).fits for spec in ("vllm", "sglang")}
    assert fit_by == {"vllm": False, "sglang": True}


def test_page_sizes_are_made_equal_over_kinds_of_layers() -> None:
    """Gemma 4 26B: 5 full layers of 4,096 byte a token beside 25 windowed ones of 8,192; vLLM 0.25 logged 14.78 requests
    of 262,144 tokens in 83.89 GiB."""
    model = load_model("google--gemma-4-26B-A4B")
    gpu = load_gpu("gb10")
    engine = settled(load_engine("vllm@0.25.1"), gpu.memory_bytes, gpu.name, 262144)
    plan = plan_of(model, Cluster(gpu, 1), Widths(tp=1), Precision(model.weight_dtypes))
    found = size(model, plan, Cluster(gpu, 1), engine, 262144)
    assert isinstance(found, Room)
    assert [g.block_tokens for g in found.pool.groups] == [32] + [16] * 5 and found.pool.block_bytes == 5 * 16 * 8192


def test_the_allocator_keeps_up_to_one_mebibyte() -> None:
    """Qwen3-4B: 30, 20, 95 and 47.5 MiB a layer cost 1.5 MiB more; 36 layers explain vLLM's 7.5552 GiB."""
    assert [unsplit(n * MiB) / MiB for n in (30, 20, 95, 47.5, 12.5, 9.5)] == [0, 0, 1, 0.5, 0, 0]


def test_fit_needs_no_compiler() -> None:
    code = "import sys; from apexsim.cli import main; main(sys.argv[1:]); sys.exit('numba' in sys.modules)"
    words = ["fit", "llama-3.1-8b", "--gpu", "h100-sxm", "--gpus", "1"]
    assert subprocess.run([sys.executable, "-c", code, *words], capture_output=True).returncode == 0


HEAD = (
    "id,engine,version,model_id,quant,gpu,gpu_total_gib,gpu_known,tp,pp,dp,ep,util,max_model_len,max_num_seqs,"
    "max_num_batched_tokens,kv_dtype,block_size,enforce_eager,spec_decode,weights_gib,kv_gib,kv_tokens,outcome,config"
)
ROWS = (
    "A,vllm,0.19.0,microsoft/phi-4,,H100-80GB-SXM,79.19,log,1,1,1,,0.95,8192,1024,8192,auto,16,False,,27.39,46.08,241568,ok,"
    "microsoft--phi-4",
    "B,vllm,0.19.0,microsoft/phi-4,,H100-80GB-SXM,79.19,inferred,1,1,1,,0.95,8192,1024,8192,auto,16,False,,27.39,46.08,241568,ok,"
    "microsoft--phi-4",
    "C,vllm,0.19.0,microsoft/phi-4,,Nobody's GPU,20.0,stated,1,1,1,,0.95,8192,1024,8192,auto,16,False,,,,,fail,microsoft--phi-4",
    "D,vllm,0.19.0,unknown,,H100-80GB-SXM,79.19,log,1,1,1,,0.95,8192,1024,8192,auto,16,False,,27.39,46.08,241568,ok,",
)


def test_start_up_logs_are_replayed_row_by_row(tmp_path: Path) -> None:
    """The figures of phi-4 are those of github.com/llm-d-incubation/llm-d-planner (Apache-2.0)."""
    from apexsim.validate.replay import run as replay
    from apexsim.validate.words import render

    file = tmp_path / "memory.csv"
    file.write_text("\n".join((HEAD, *ROWS)), encoding="utf-8")
    record = replay(file)
    rows = {row["id"]: row for row in record["rows"]}
    assert rows["A"]["metrics"]["kv_tokens"]["predicted"] == pytest.approx(241568, rel=0.002)
    assert set(rows["B"]["metrics"]) == {"weights_gib", "kv_tokens_given_kv_gib"}
    fits = rows["C"]["metrics"]["fits"]
    assert (fits["measured"], fits["predicted"]) == (0.0, 0.0) and set(rows["C"]["metrics"]) == {"fits"}
    assert rows["D"]["status"] == "skipped"
    assert record["summary"]["metrics"]["fits"]["accuracy"] == 1.0 and "100.0% right" in render(record)


def test_an_engine_that_does_not_chunk_is_sized_for_the_longest_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mean of a stream says nothing of the step that its longest prompt needs whole."""
    path = tmp_path / "trace.csv"
    path.write_text("time,prompt_tokens,completion_tokens\n" + "".join(f"{i},900,40\n" for i in range(40)) + "41,30000,40\n")
    words = ["fit", "llama-3.1-8b", "--gpu", "h100-sxm:1", "--engine", "tensorrt-llm", "--trace", str(path)]
    assert main([*words, "--json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["max_num_batched_tokens"]
    assert isinstance(tokens, int) and tokens >= 30_000
    assert main([*words, "--max-num-tokens", "4096"]) == 2 and "longest prompt of 30000 tokens" in capsys.readouterr().err
