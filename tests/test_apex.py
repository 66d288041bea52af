"""The drop-in command for APEX+, and encoders chained to decoders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apexsim.cli import main
from apexsim.cli.apex import spelled
from apexsim.cost import attention, gemm
from apexsim.cost.attention import causal
from apexsim.cost.bank import load_bank
from apexsim.cost.load import ExpertLoad
from apexsim.cost.price import ATTEND
from apexsim.errors import InputError
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.cells import Experts
from apexsim.model.count import total_parameters
from apexsim.model.families import load_model
from apexsim.model.ops import Attend, Collective, Cross, Gemm
from apexsim.model.parts import audio_windows, decoder_part, encoder_part, routed, with_experts, with_image
from apexsim.objective import parse_objective
from apexsim.plan.choose import engine_of, precision_of
from apexsim.plan.lower import lower
from apexsim.plan.memory import room
from apexsim.plan.plan import parse_plan
from apexsim.search.chain import ChainPart, ChainQuestion, chained
from apexsim.search.goal import Goal
from apexsim.units import GiB
from apexsim.workload.synth import Coming, synthetic

CREATION = str(Path(__file__).parent.parent / "examples/creation_05.jsonl")
FEW = ["--num-requests", "8"]
LINES = {
    "all": "--model llama3-70b --num-gpus-per-node 2 --prompt-len 128 --output-len 64 --all",
    "whisper": "--model whisper --num-gpus-per-node 2 --prompt-len 128 --output-len 2048",
    "trace": f"--model llama3-70b --num-gpus-per-node 2 --trace-file {CREATION}",
    "quantised": f"--model llama3-70b --num-gpus-per-node 2 --trace-file {CREATION} --kv-dtype float8 --weight-dtype float8 "
    "--activation-dtype half",
    "experts": f"--model mixtral-8x7b-local --num-gpus-per-node 4 --num-experts 8 --trace-file {CREATION}",
    "slo": "--num-gpus 8 --num-nodes 1 --model llama3-70b --num-requests 10 --ttft-slo 100 --tpot-slo 30 --max-batch 10",
    "t5": "--model t5 --num-gpus-per-node 2",
    "clip": "--model clip --num-gpus-per-node 2",
    "bloom": "--model bloom --num-gpus-per-node 8",
    "clock": "--model llama-7b --num-gpus-per-node 1 --frequency 810 --disable-ray",
    "v100": "--model llama-7b --gpu V100-PCIE-16GB --num-gpus-per-node 4",
    "float": "--model llama-7b --num-gpus-per-node 1 --kv-dtype float --weight-dtype float --activation-dtype float",
}  # fmt: skip
ROWS = (
    "Throughput: Avg. Tokens generated per second", "Throughput: Avg. Tokens processed per second",
    "Throughput: Requests per second", "Latency: Avg. Time to first token (TTFT in msec)",
    "Latency: Avg. Time per output token (TPOT in msec)", "Avg. TBT Percentile: P50", "Avg. TBT Percentile: P95",
    "Request Completion Latency: 50th percentile", "Request Completion Latency: 95th percentile",
    "Avg. MFU Per iteration", "MBU", "Latency SLO Metrics", "Time breakdown", "Idle", "Total", "Energy Consumption: ",
    "# Model replicas: ", "# Stages: ", "# Blocks per stage: ", "Parameter size per device (GB)",
)  # fmt: skip


def page(capsys: pytest.CaptureFixture[str], line: str) -> str:
    words = line.split()
    extra = [] if {"--trace-file", "--num-requests"} & set(words) else FEW
    assert main(["apex", *words, *extra]) == 0
    return capsys.readouterr().out


def value(text: str, row: str) -> float:
    """The number of a row, the last search of the page."""
    line = [x for x in text.splitlines() if x.strip().startswith(row)][-1]
    return float(line.split(row)[1].split()[0])


@pytest.mark.parametrize("name", LINES)
def test_every_line_runs_and_prints_every_row(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = page(capsys, LINES[name])
    missing = [row for row in ROWS if row not in text]
    silent = {"Latency: Avg. Time to first token (TTFT in msec)", "Latency: Avg. Time per output token (TPOT in msec)",
              "Throughput: Avg. Tokens generated per second", "Avg. TBT Percentile: P50", "Avg. TBT Percentile: P95"}  # fmt: skip
    assert set(missing) <= (silent if name == "clip" else set())


def test_the_breakdown_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    text = page(capsys, LINES["trace"]).split("* Time breakdown:")[1].split("Energy")[0]
    shares = [float(line.split()[-1]) for line in text.splitlines() if "±" in line]
    assert sum(shares) == pytest.approx(100.0, abs=0.1 * len(shares))


def test_queueing_is_in_the_first_token_and_the_makespan_in_the_throughput(capsys: pytest.CaptureFixture[str]) -> None:
    line = "--model llama-7b --num-gpus-per-node 1 --prompt-len 128 --output-len 32 --num-requests 16 --max-batch-size 1"
    text = page(capsys, line)
    rate, ttft, tpot = (value(text, row) for row in (ROWS[2], ROWS[3], ROWS[4]))
    assert ttft / 1e3 == pytest.approx(7.5 / rate, rel=0.25)  # the mean request waits for half of the others
    assert tpot < 20


def test_a_lower_clock_is_slower_and_narrow_weights_are_faster(capsys: pytest.CaptureFixture[str]) -> None:
    line = "--model llama-7b --num-gpus-per-node 1 --prompt-len 64 --output-len 64"
    plain, slow, narrow = (value(page(capsys, line + x), ROWS[4]) for x in ("", " --frequency 810", " --weight-dtype float8"))
    assert slow > 1.1 * plain and narrow < 0.8 * plain


def test_further_percentiles_stand_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    line = "--model llama-7b --num-gpus-per-node 1 --request-percentiles 10 99 --token-percentiles 75"
    text = page(capsys, line)
    found = [value(text, f"Request Completion Latency: {p}th percentile") for p in (10, 50, 95, 99)]
    assert found == sorted(found) and "Avg. TBT Percentile: P75" in text


def test_beginnings_of_flags() -> None:
    assert spelled(["--num-gpus", "2", "--max-batch=4"]) == ["--num-gpus-per-node", "2", "--max-batch-size=4"]
    assert spelled(["--output", "5"]) == ["--output-len", "5"]
    assert spelled(["--request-percentiles", "1", "2"]) == ["--request-percentiles", "1", "--request-percentiles", "2"]
    with pytest.raises(InputError, match="may be"):
        spelled(["--num", "2"])


@pytest.mark.parametrize("line", ["--model llama-7b --num 2", "--model llama-7b --num-gpus-per-node 1 --frequency 5",
                                  "--model mixtral-8x7b --num-gpus-per-node 8 --topk 9"])  # fmt: skip
def test_what_cannot_be_is_refused(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apex", *line.split()]) == 2 and capsys.readouterr().err.count("\n") == 1


def test_the_room_is_the_originals() -> None:
    gpu = load_gpu("H100-SXM-80GB")
    cluster = Cluster(replace(gpu, memory_bytes=gpu.memory_nominal_bytes), 2)
    model, plan = load_model("llama3-70b"), parse_plan("TP2")
    found = dict(room(model, plan, cluster, engine_of("apex", {}, cluster, 2176), 2176).ledger)  # type: ignore[union-attr]
    assert found["KV cache"] == pytest.approx(80 * GiB - GiB - found["weights"], abs=1)


# ---- experts -------------------------------------------------------------------------------------------------------


def test_experts_of_a_dense_model() -> None:
    dense = load_model("llama-7b")
    sparse = with_experts(dense, 4, None)
    cell = next(c for c in sparse.decoder.blocks[0].cells if isinstance(c, Experts))
    ffn = 3 * 4096 * 11008 * 32
    assert (cell.experts, cell.top_k) == (4, 2)
    assert total_parameters(sparse) == total_parameters(dense) + 3 * ffn + 32 * 4 * 4096
    assert not routed(with_experts(load_model("mixtral-8x7b"), 1, None)) and with_experts(dense, None, 2) is dense


@pytest.mark.parametrize(("flag", "low", "high"), [("--num-experts", 8, 32), ("--topk", 1, 8), ("--capacity-factor", 1.0, 4.0)])
def test_the_switches_act(flag: str, low: float, high: float, capsys: pytest.CaptureFixture[str]) -> None:
    line = "--model mixtral-8x7b --num-gpus-per-node 8 --prompt-len 2048 --output-len 4 --num-requests 32"
    rates = [value(page(capsys, f"{line} {flag} {x}"), ROWS[2]) for x in (low, high)]
    assert rates[0] > rates[1]


# ---- encoders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "published"), [("whisper", 1543.49e6), ("t5", 11135.3e6), ("clip", 427.6e6)])
def test_parameters(name: str, published: float) -> None:
    """Totals of the published checkpoints: whisper-large-v3, flan-t5-xxl, clip-vit-large-patch14."""
    model = load_model({"t5": "t5-xxl"}.get(name, name))
    assert total_parameters(model) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(("name", "twice", "rounded"), [("whisper", 0, 1.55e9), ("t5-xxl", 1, 11.3e9), ("clip", 0, 0.304e9)])
def test_rounded_parameters(name: str, twice: int, rounded: float) -> None:
    """As they are quoted: Flan-T5-XXL with the embedding that both halves share counted twice, CLIP's encoder of images alone."""
    model = load_model(name)
    part = encoder_part(model) if name == "clip" else model
    assert part is not None
    assert total_parameters(part) + twice * model.vocab * model.hidden == pytest.approx(rounded, rel=0.01)


@pytest.mark.parametrize("name", ["whisper", "t5-xxl"])
def test_the_parts_are_the_whole(name: str) -> None:
    model = load_model(name)
    parts = [p for p in (encoder_part(model), decoder_part(model, 100)) if p is not None]
    shared = model.vocab * model.hidden if parts[0].vocab else 0
    assert sum(total_parameters(p) for p in parts) - shared == total_parameters(model)


def chain(name: str, gpus: int = 2, rate: float | None = None, output: int = 12) -> tuple[ChainPart, ...]:
    cluster = Cluster(load_gpu("h100-sxm"), gpus)
    work = synthetic(200, output, 60, Coming(rate), spread=0.5)
    goal = Goal(parse_objective("e2e", ()))
    model = load_model(name)
    return chained(model, cluster, work, ChainQuestion(precision_of(model, "half", "half", "half"), goal, "apex", 256))


@pytest.mark.parametrize("name", ["whisper", "t5-xxl"])
@pytest.mark.parametrize("rate", [None, 20.0])
def test_no_token_before_its_encoding_ends(name: str, rate: float | None) -> None:
    encoder, decoder = chain(name, rate=rate)
    encoded = np.sort(encoder.study.ranked[0].outcome.finish)
    for ranked in decoder.study.ranked:
        assert (ranked.outcome.start >= encoded - 1e-9).all()
    assert (decoder.study.setting.workload.arrive >= decoder.sent).all()
    assert sorted(decoder.study.setting.workload.output) == sorted(synthetic(200, 12, 60, Coming(rate), spread=0.5).output)


@pytest.mark.parametrize("gpus", [1, 4, 8])
@pytest.mark.parametrize("name", ["whisper", "clip"])
def test_plans_on_one_to_eight_gpus(name: str, gpus: int) -> None:
    assert all(part.study.ranked for part in chain(name, gpus))


def test_decoder_sequences_stay_within_the_memory_of_their_cross_keys() -> None:
    """Whisper: 1,500 positions x 2 x 1,280 x 32 layers x 2 byte of the encoder's output beside each request's own cache."""
    part = chain("whisper", 1)[1]
    found, each = part.study.ranked[0].room, 1500 * 2 * 1280 * 32 * 2.0
    own = -(-part.study.setting.workload.longest // found.block_size) * found.block_size * 2 * 1280 * 32 * 2.0
    assert found.max_concurrency == pytest.approx(found.kv_bytes / (each + own), rel=0.02)


def test_bidirectional_attention_costs_more_than_causal() -> None:
    bank, lengths = load_bank(load_gpu("h100-sxm")), np.array([8192.0, 16384.0])
    full, half = (
        ATTEND[Attend][1](bank, Attend("attention", 16, 16, 64, 64, 0, "bf16", causal), lengths)[0].seconds for causal in (False, True)
    )
    assert (full > 1.3 * half).all() and (full < 3 * half).all()


def test_cross_attention_reads_the_source_whatever_the_context() -> None:
    op = Cross("cross attention", 20, 20, 64, 64, 1500, Gemm("cross keys", 2560, 1280))
    bank = load_bank(load_gpu("h100-sxm"))
    priced = ATTEND[Cross][0](bank, op, np.array([[1.0], [8.0]]), np.array([[0.0, 100.0, 9000.0]])).seconds
    alone = attention.price(bank, causal("decode", 20, 20, 64), np.array([1.0, 8.0]), 1500.0).seconds
    assert priced == pytest.approx(np.repeat(alone[:, None], 3, axis=1))
    prompt = ATTEND[Cross][1](bank, op, np.array([0.0, 1500.0]))[0].seconds
    assert prompt[0] == pytest.approx(gemm.price(bank, np.array([1500.0]), 2560, 1280, "bf16").seconds[0])
    assert prompt[1] > prompt[0]


def test_a_decoder_layer_with_cross_attention_reduces_three_times() -> None:
    model = decoder_part(load_model("whisper"), 1500)
    assert model is not None
    layer = lower(model, parse_plan("TP2"), load_gpu("h100-sxm").flops)[0].layers[0][0]
    assert [op.kind for op in layer.ops if isinstance(op, Collective)] == ["all_reduce"] * 3
    assert sum(isinstance(op, Cross) for op in layer.ops) == sum(isinstance(op, Attend) for op in layer.ops) == 1


def test_sounds_and_images_become_tokens_by_the_models_own_rules() -> None:
    """Whisper: 1,500 positions are 30 s.  CLIP ViT-L/14: 224 pixels are 16 x 16 patches and one class token; 336 are 24 x 24."""
    whisper, image = load_model("whisper"), load_model("clip")
    assert [audio_windows(whisper, s) for s in (0.5, 30.0, 30.1, 95.0)] == [1, 1, 2, 4]
    assert [with_image(image, px).stacks[0].source_length for px in (224, 336)] == [257, 577]
    for wrong in (lambda: audio_windows(image, 1.0), lambda: with_image(whisper, 224), lambda: with_image(image, 3)):
        with pytest.raises(InputError):
            wrong()


def test_longer_sounds_take_longer(capsys: pytest.CaptureFixture[str]) -> None:
    line = "--model whisper --num-gpus-per-node 1 --prompt-len 4 --output-len 16 --audio-seconds"
    short, long = (value(page(capsys, f"{line} {s}"), "Total") for s in (20, 600))
    assert long > 3 * short


def test_a_capacity_is_a_share_of_slots() -> None:
    load = ExpertLoad(capacity=1.25)
    assert (load.imbalance(8, 1), load.imbalance(8, 4), load.timed(2, 8)) == (1.25, 1.25, "balanced")


def test_positions_of_sounds_and_images_are_not_tokenised() -> None:
    """Requests that come together are encoded in steps as large as the budget, not one by one behind a tokeniser."""
    encoder = chain("whisper", 1, output=1)[0]
    steps = np.unique(encoder.study.ranked[0].outcome.finish)
    assert len(steps) == -(-60 // (65536 // 1500))


def test_the_encoder_may_have_a_cluster_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    line = "--model whisper --num-gpus-per-node 2 --encoder-gpus 1 --prompt-len 16 --output-len 8 --num-requests 4"
    text = page(capsys, line)
    assert "Generated 1 encoder candidate plans." in text and "Generated 1 decoder" not in text
