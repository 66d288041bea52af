"""`validate`: every kind of measured file is known by its columns; each row says what was predicted, and how sure that is."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apexsim.doubt import LEVELS
from apexsim.engines import load_engine, settled
from apexsim.errors import InputError
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.plan.plan import Layout, Plan
from apexsim.search.error import interval
from apexsim.search.evaluate import Evaluation
from apexsim.validate.cases import Case
from apexsim.validate.facts import facts, holds, scripted, settings, suspect
from apexsim.validate.kinds import KINDS, read_cases, read_rows
from apexsim.validate.replay import Bench, predicted_ms, run
from apexsim.validate.rows import Skipped
from apexsim.validate.score import summarise
from apexsim.validate.served_cases import SeedSpan
from apexsim.validate.step_cases import Batch, Machine, Steps, costs_of, step_seconds
from apexsim.validate.words import render
from apexsim.workload.trace import Workload

CLOSED = {"id": "a", "origin": "inferencex", "backend": "vllm", "backend_version": "0.12.0", "system": "h100_sxm", "precision": "bf16",
          "config": "meta-llama--Meta-Llama-3.1-8B", "concurrency": "4", "num_prompts": "8", "isl": "128", "osl": "16", "len_dist": "",
          "attn_tp": "1", "ttft_mean_ms": "20", "ttft_median_ms": "15", "tpot_mean_ms": "7", "suspect": ""}  # fmt: skip
STEP = {"id": "s", "config": "codellama--CodeLlama-34b-hf", "gpu": "h100_sxm", "engine": "vllm 0.15.1", "tp": "2",
        "batch_num_prefill_reqs": "0", "batch_num_decode_reqs": "8", "batch_prefill_tokens": "0", "batch_decode_tokens": "8",
        "kv_blocks_total_gpu": "26602", "kv_blocks_free_gpu": "26202", "queue_running_depth": "8", "period_us": "22000"}  # fmt: skip
COLD = {"id": "c", "config": "openai--gpt-oss-20b", "gpu": "h200_sxm", "tp": "1", "engine": "vllm 0.23", "prompt_tokens": "2048",
        "ttft_ms": "60", "max_num_batched_tokens": "8192"}  # fmt: skip
WIDE = {"id": "w", "config": "deepseek-ai--DeepSeek-V3", "gpu": "h100_sxm", "gpus_per_node": "8", "phase": "decode", "ep": "32",
        "prompt_tokens": "2000", "batch_per_gpu": "64", "tok_s_per_node": "20000", "engine": "sglang 0.5.6"}  # fmt: skip
GAP = {"model": "Qwen/Qwen3-8B", "task": "gpqa", "gpu_model": "H100", "avg_batch_size": "15.9", "avg_output_len": "2000",
       "max_num_seqs": "16", "median_itl_ms": "8", "weight_precision": "bfloat16", "num_gpus": "1", "expert_parallel": "1",
       "max_num_batched_tokens": ""}  # fmt: skip
BENCH = {"config": "gpt-oss-20b MXFP4, vLLM 0.22.0, 1xH200 (x), TP1, max-num-batched-tokens 8192, ISL 800 OSL 50 x U[0.8,1]",
         "backend": "vllm", "num_prompts": "8", "max_concurrency": "4", "mean_ttft_ms": "40", "median_ttft_ms": "35", "mean_e2el_ms": "300",
         "label": "l", "set": "results_exp"}  # fmt: skip
QUEUED = {"model": "llama-3.1-8b-instruct", "kind": "output", "run": "_1", "max_num_seqs": "8", "engine": "vllm_0.8.5.sif",
          "num_prompts": "16", "total_input_tokens": "1600", "total_output_tokens": "320", "mean_ttft_ms": "50",
          "mean_tpot_ms": "9"}  # fmt: skip
RATED = {"gpu": "a10", "model": "phi-4-mini-instruct", "strategy": "poisson@4.00", "n": "20", "duration_s": "8", "itl_ms_mean": "20",
         "prompt_tokens_mean": "100", "output_tokens_mean": "20"}  # fmt: skip
ACROSS = {"id": "p", "config": "meta-llama--Llama-3.3-70B-Instruct", "gpu": "a100_pcie_80gb", "tp": "2", "pp": "2", "nodes": "2",
          "link": "ethernet", "requests": "8", "prompt_mean": "64", "output_mean": "8", "request_rate": "inf", "req_s": "3",
          "ttft_ms": "300", "tpot_ms": "60"}  # fmt: skip
APART = {"id": "d", "origin": "inferencex", "backend": "sglang", "backend_version": "0.5.8", "system": "h100_sxm", "precision": "bf16",
         "config": "meta-llama--Meta-Llama-3.1-8B", "concurrency": "4", "num_prompts": "8", "isl": "128", "osl": "16", "len_dist": "",
         "draft_tokens": "0", "template_tokens": "0", "regime": "", "kv_dtype": "", "measured_date": "2026-02-01", "suspect": "",
         "prefill_workers": "1", "prefill_gpus": "2", "prefill_attn_tp": "2", "decode_workers": "2", "decode_gpus": "4",
         "decode_attn_tp": "1", "decode_attn_dp": "2", "decode_max_seqs": "64", "ttft_median_ms": "60", "tpot_median_ms": "6",
         "tput_out_per_gpu": "100"}  # fmt: skip
APART_OPEN = {"id": "o", "backend": "vllm", "backend_version": "~0.8 (2025-05)", "gpu": "A100-80GB-SXM", "precision": "bf16",
              "config": "meta-llama--Meta-Llama-3.1-8B", "mode": "disaggregated", "prefill_workers": "1", "decode_workers": "1",
              "replicas": "0", "gpus": "2", "attn_tp": "1", "notes": "decode pods with enforce-eager", "isl": "400", "osl": "20",
              "arrival": "gamma, burstiness 50", "rate_rps": "2", "num_requests": "8", "out_tok_s": "40", "ttft_median_ms": "200",
              "tpot_median_ms": "15"}  # fmt: skip
AGAIN = {"id": "x", "suspect": "", "origin": "here", "experiment": "e", "stage": "0", "system": "h100_sxm", "backend": "vllm",
         "backend_version": "0.15.1", "precision": "bf16", "replicas": "1", "routing": "single", "attn_tp": "1", "max_model_len": "4096",
         "token_budget": "2048", "max_seqs": "128", "prefix_caching": "1", "workload": "short", "rate_rps": "2", "num_requests": "6",
         "first_request": "0", "prompt_tokens_mean": "90", "output_tokens": "8", "distinct_prompts": "", "n_cold": "",
         "ttft_mean_ms": "20", "tpot_mean_ms": "7", "e2e_mean_ms": "80", "config": "meta-llama--Meta-Llama-3.1-8B"}  # fmt: skip
MOVED = {"id": "m", "config": "Qwen--Qwen3-8B", "backend": "vllm 0.11.2",
         "network": "8x ConnectX-7 RoCE per node, 200 GB/s stated as ceiling",
         "prompt_tokens": "1024", "kv_bytes_stated": "146000000", "transfer_ms": "1.5"}  # fmt: skip
PULLED = {"id": "k", "config": "openai--gpt-oss-120b", "gpu": "h200_sxm", "tp": "1", "link": "rdma", "prompt_tokens": "2048",
          "pull_ms": "49", "recompute_ms": "70.6"}  # fmt: skip
LADDER = {"id": "l", "config": "Qwen--Qwen3-32B", "engine": "vllm", "gpu": "h100_sxm", "replicas": "8", "tp": "2", "policy": "round-robin",
          "rate": "10", "out_tok_s": "4944", "ttft_ms": "", "ttft_stat": "", "prefixes": "150", "questions": "5", "shared_tokens": "6000",
          "own_tokens": "1200", "output_tokens": "1000", "stage_s": "20", "gpu_memory_utilization": "", "suspect": ""}  # fmt: skip
FILES = {"prefill and decode apart": APART, "prefill and decode apart, open loop": APART_OPEN,
         "closed loop": CLOSED, "scheduler steps": STEP, "cold prompts": COLD, "wide expert parallelism": WIDE, "gaps at a batch": GAP,
         "serving benchmark": BENCH, "queued at once": QUEUED, "rated open loop": RATED, "pipeline across nodes": ACROSS,
         "prefix caching": AGAIN, "KV transfer": MOVED, "KV pull": PULLED}  # fmt: skip


def written(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_known_by_its_columns_and_its_row_predicted(kind: str, tmp_path: Path) -> None:
    found = run(written(tmp_path / "rows.csv", FILES[kind]))
    [row] = found["rows"]
    assert found["kind"] == kind and row["status"] == "ok", row["reason"]
    assert row["metrics"] and set(row["metrics"]) <= set(KINDS[kind].metrics)
    for name, pair in row["metrics"].items():
        assert pair["predicted"] > 0 and pair["error"] == pytest.approx(pair["predicted"] / pair["measured"] - 1)
        assert list(row["interval"][name]) == [str(level) for level in LEVELS]
        assert all(low < pair["predicted"] < high for low, high in row["interval"][name].values())
    assert found["file"] in render(found)


def test_no_file_is_of_two_kinds(tmp_path: Path) -> None:
    for kind, row in (FILES | {"routing ladder": LADDER}).items():
        assert read_rows(written(tmp_path / "rows.csv", row))[0] == kind
        assert [name for name, known in KINDS.items() if known.columns <= set(row)] == [kind]


def test_what_is_assumed_stands_in_the_reason(tmp_path: Path) -> None:
    rows = [CLOSED | {"precision": "fp8"}, CLOSED | {"id": "b", "backend_version": ""}]
    first, second = run(written(tmp_path / "rows.csv", *rows))["rows"]
    assert "formats as in nvidia--Llama-3.1-70B-Instruct-FP8" in first["reason"] and "version not stated" in second["reason"]


def test_a_row_that_cannot_be_read_spoils_no_other(tmp_path: Path) -> None:
    bad = [CLOSED | {"id": "b", "concurrency": "x"}, CLOSED | {"id": "c", "config": ""}, CLOSED | {"id": "d", "precision": "fp6"}]
    found = read_cases(written(tmp_path / "rows.csv", CLOSED, *bad))[1]
    assert isinstance(found[0], Case) and [type(row) for row in found[1:]] == [Skipped] * 3
    assert all(isinstance(row, Skipped) and row.reason for row in found[1:])


def test_suspect_rows_are_predicted_and_score_apart(tmp_path: Path) -> None:
    rows = [CLOSED, CLOSED | {"id": "b", "ttft_mean_ms": "5000", "suspect": "no_warmup"}]
    found = run(written(tmp_path / "rows.csv", *rows))
    assert [row["suspect"] for row in found["rows"]] == ["", "no_warmup"] and found["summary"]["apart"] == 1
    assert found["summary"]["metrics"]["ttft_mean_ms"]["n"] == 1
    assert found["summary"]["by"]["suspect"]["no_warmup"]["ttft_mean_ms"]["n"] == 1
    assert "stand apart" in render(found)


# ---- facts ----------------------------------------------------------------------------------------------------------------


def test_facts_hold_where_their_patterns_match() -> None:
    fact: dict[str, Any] = {"when": {"a": ["x*", "y"]}, "unless": {"b": "no"}, "least": {"n": 5}, "before": "2025-12"}
    row = {"a": "xx", "b": "", "n": "5", "measured_date": "2025-11-30"}
    assert holds(fact, row)
    others: list[dict[str, str]] = [{"a": "z"}, {"b": "no"}, {"n": "4"}, {"measured_date": "2025-12-01"}, {"measured_date": ""}]
    assert not any(holds(fact, row | other) for other in others)


def test_facts_of_the_file_say_what_they_set() -> None:
    kinds = "suspect layout setting cache checkpoint network pull release stall start_up transfer"
    assert set(facts()) == set(kinds.split())
    llama = {"backend": "trtllm", "origin": "inferencex", "launch_batch_wait": "20.0"}
    assert settings(llama, 1, 8) == {"batch_wait_ratio": 0.9}
    assert settings(llama | {"launch_batch_wait": "40.0"}, 2, 8) == {"batch_wait_ratio": 0.8, "balance_wait": 60}
    other = {"backend": "trtllm", "origin": "nvidia-aic-gap-analysis", "config": "meta-llama--Meta-Llama-3.1-8B"}
    assert settings(other, 1, 8) == {"tokenise_s": 0.0, "chunk": 1, "max_num_batched_tokens": 3072, "max_num_seqs": 7}
    assert suspect({"config": "openai--gpt-oss-120b", "system": "h100_sxm", "concurrency": "512"}) == "client saturated"


def test_launch_scripts_chose_layouts_by_length_and_users() -> None:
    row = {"backend": "trtllm", "config": "deepseek-ai--DeepSeek-R1", "precision": "fp4", "system": "b200_sxm", "attn_tp": "8.0",
           "measured_date": "2025-11-01", "isl": "1024", "osl": "1024"}  # fmt: skip
    found = [scripted(row | {"concurrency": str(users)}, 8) for users in (8, 16, 256)]
    assert found == [None, (Layout(tp=8), Layout(ep=8)), (Layout(8, 1), Layout(ep=8))]


def test_a_cold_server_keeps_its_first_requests_waiting_and_no_others(tmp_path: Path) -> None:
    row = CLOSED | {"backend": "trtllm", "backend_version": "1.1.0", "config": "deepseek-ai--DeepSeek-R1", "precision": "fp8",
                    "system": "h200_sxm", "attn_tp": "8", "moe_tp": "8", "moe_ep": "1", "num_prompts": "40",
                    "measured_date": "2025-12-15"}  # fmt: skip
    rows = [row | {"id": name, "warmup": text} for name, text in (("warm", "2*conc"), ("cold", "none or 1 test request"))]
    warm, cold = (case for case in read_cases(written(tmp_path / "rows.csv", *rows))[1] if isinstance(case, Case))
    assert (warm.stall, cold.stall) == (0.0, 1.2)
    bench = Bench()
    before, after = (predicted_ms(case_run, case) for case in (warm, cold) if isinstance(case_run := bench.predict(case)[0], Evaluation))
    moved = {name: after[name] - before[name] for name in before if name.endswith("_ms")}
    late = 1200.0 * 4 / 40  # four users' first requests of forty
    assert math.isclose(moved["ttft_mean_ms"], late) and math.isclose(moved["e2e_mean_ms"], late)
    assert all(abs(moved[f"{name}_ms"]) < 1e-6 for name in ("tpot_mean", "tpot_median", "ttft_median", "itl_mean"))
    assert after["req_s"] < before["req_s"]


# ---- intervals and steps -----------------------------------------------------------------------------------------------------


def test_intervals_widen_with_certainty_and_with_what_is_transferred() -> None:
    engine = settled(load_engine("vllm"), 80e9, "h100-sxm", 4096)
    system = Machine(load_model("llama-3.1-8b"), Cluster(load_gpu("h100-sxm"), 1), engine, Plan(1, 1, Layout(), Layout()), 8, 4096)
    near, far = (interval("ttft_mean_ms", 100.0, system, {kind: 1.0}) for kind in ("measured", "transferred"))
    assert far["68"][0] < near["68"][0] < 100.0 < near["68"][1] < far["68"][1]
    assert near["95"][0] < near["80"][0] < near["68"][0] and math.isclose(near["80"][0] * near["80"][1], 100.0**2)
    assert interval("kv_tokens", 1.0, system, {}) == {} == interval("ttft_mean_ms", 0.0, system, {})


def test_scores_tell_how_often_intervals_held() -> None:
    rows: list[dict[str, Any]] = [
        {
            "status": "ok",
            "labels": {"engine": "vllm"},
            "metrics": {"m": {"measured": m, "predicted": 1.0}},
            "interval": {"m": {"80": [0.5, 2]}},
        }
        for m in (1.0, 1.5, 3.0, 0.1)
    ]
    assert summarise(rows)["within"] == {"m": {"80": 0.5}}


@pytest.mark.parametrize(("layout", "lanes"), [(Layout(tp=2), 1), (Layout(dp=2), 2)])
def test_a_priced_step_is_the_simulated_one(layout: Layout, lanes: int) -> None:
    """Eight sequences a lane that decode one token, and one prompt by itself."""
    model, gpu = load_model("qwen3-30b-a3b"), load_gpu("h100-sxm")
    engine = replace(settled(load_engine("vllm@0.12.0"), gpu.memory_bytes, gpu.name, 4096), tokenise_s=0.0, request_s=0.0)
    plan, cluster, bench, most = Plan(1, 1, layout, Layout(ep=2)), Cluster(gpu, 2), Bench(), 8 * lanes
    machine = Machine(model, cluster, engine, plan, most, 2048)
    costs = costs_of(machine, bench.pricer(machine))

    def simulated(prompt: int, output: int, count: int) -> Any:
        work = Workload("w", np.zeros(count), np.full(count, prompt), np.full(count, output), "offline")
        found, _ = bench.predict(Case("a", model, cluster, engine, plan, work, 4096, {}, {}))
        assert isinstance(found, Evaluation)
        return found.outcome

    run = simulated(512, 2, most)
    assert float((run.finish - run.first).min()) == pytest.approx(step_seconds(costs, Batch(8, 513.0), lanes), rel=1e-3)
    if lanes == 1:
        assert float(simulated(1024, 1, 1).first[0]) == pytest.approx(step_seconds(costs, Batch(0, 0.0, 1, 1024), lanes), rel=1e-3)


@pytest.mark.parametrize("tokens", [1, 16, 100, 1024])
def test_a_priced_step_of_decodes_and_a_prompt_is_the_simulated_one(tokens: int) -> None:
    """One sequence decodes; a prompt that asks for one token comes in between, and lengthens one step."""
    model, gpu = load_model("qwen3-8b"), load_gpu("h100-sxm")
    engine = replace(settled(load_engine("vllm@0.15.1"), gpu.memory_bytes, gpu.name, 4096), tokenise_s=0.0, request_s=0.0, reuse=0)
    plan, cluster, bench = Plan(1, 1, Layout(), Layout()), Cluster(gpu, 1), Bench()
    machine = Machine(model, cluster, engine, plan, 8, 4096)
    costs = costs_of(machine, bench.pricer(machine))
    assert costs.ramp > 1.0 and costs.beside > 0.0

    def finish(arrive: list[float], prompt: list[int], output: list[int]) -> float:
        work = Workload("w", np.array(arrive), np.array(prompt), np.array(output))
        found, _ = bench.predict(Case("a", model, cluster, engine, plan, work, 4096, {}, {}))
        assert isinstance(found, Evaluation)
        return float(found.outcome.finish[0])

    longer = finish([0.0, 0.3], [512, tokens], [100, 1]) - finish([0.0], [512], [100])
    alone, both = (step_seconds(costs, batch, 1) for batch in (Batch(1, 560.0), Batch(1, 560.0, 1, tokens)))
    assert longer == pytest.approx(both - alone, rel=0.01)


def test_a_step_is_read_as_its_batch(tmp_path: Path) -> None:
    mixed = STEP | {"batch_num_prefill_reqs": "2", "batch_prefill_tokens": "100", "queue_running_depth": "10"}
    decode, both = read_cases(written(tmp_path / "rows.csv", STEP, mixed))[1]
    assert isinstance(decode, Steps) and isinstance(both, Steps) and decode.machine is both.machine
    assert decode.batch == Batch(8, 800.0) and both.batch == Batch(8, 640.0, 2, 50, 590)
    assert decode.measured == 22.0 and decode.value(0.02) == 20.0


def test_stages_of_an_experiment_are_parts_of_one_run(tmp_path: Path) -> None:
    """Prompts come from the file beside it, in order, over and over, each with an id of its own."""
    written(tmp_path / "prefix_prompts.csv", *({"experiment": "e", "prompt_id": str(i), "prompt_tokens": str(50 + i)} for i in range(4)))
    rows = [
        AGAIN | {"id": str(k), "stage": str(k), "distinct_prompts": "4", "n_cold": n, "rate_rps": r}
        for k, n, r in ((0, "4", "2"), (1, "0", "3"))
    ]
    first, second = read_cases(written(tmp_path / "rows.csv", *rows))[1]
    assert isinstance(first, SeedSpan) and isinstance(second, SeedSpan) and first.runs[0] is second.runs[0]
    work = first.runs[0].workload
    assert (first.begin, first.end, second.begin, second.end, first.cold) == (0, 6, 6, 12, 4)
    assert work.prompt.tolist() == [50, 51, 52, 53] * 3 and work.stage.tolist() == [6] and work.begin.tolist() == [3.0]
    assert [chain[0] for chain in work.prefix] == [0, 1, 2, 3] * 3
    assert isinstance(read_cases(written(tmp_path / "rows.csv", rows[0] | {"experiment": "f"}))[1][0], Skipped)


def test_a_ladder_is_one_run_per_seed_and_policy(tmp_path: Path) -> None:
    rows = [LADDER, LADDER | {"id": "b", "rate": "60"}, LADDER | {"id": "c", "policy": "prefix-aware"}, LADDER | {"id": "d", "rate": "11"},
            LADDER | {"id": "e", "policy": "best"}]  # fmt: skip
    low, high, routed, unknown, policy = read_cases(written(tmp_path / "rows.csv", *rows))[1]
    assert isinstance(low, SeedSpan) and isinstance(high, SeedSpan) and isinstance(routed, SeedSpan)
    assert low.runs is high.runs and len(low.runs) > 1 and routed.runs[0].router.name == "llm-d"
    work = low.runs[0].workload
    assert (low.end - low.begin, high.end - high.begin, high.end) == (200, 1500, work.size)
    assert {len(chain) for chain in work.prefix} == {6} and len({chain[0] for chain in work.prefix}) == 150
    assert isinstance(unknown, Skipped) and "no stage" in unknown.reason and isinstance(policy, Skipped)


def test_files_of_no_kind_name_the_columns_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no known kind") as told:
        read_rows(written(tmp_path / "rows.csv", {"a": "1"}))
    assert "period_us" in str(told.value.hint) or "period_us" in told.value.line()


def test_the_page_lists_every_kind_and_metric() -> None:
    page = (Path(__file__).parent.parent / "docs/validation.md").read_text(encoding="utf-8")
    assert [name for name in KINDS if f"| {name} |" not in page] == []
