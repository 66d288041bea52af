"""Power and energy: laws of the formula, of a run, and of the replay of measured rows."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import apexsim
from apexsim import api
from apexsim.cost.power import Energy, gpu_watts, loaded_share, power_law
from apexsim.errors import InputError
from apexsim.hardware import load_gpu
from apexsim.objective import parse_objective
from apexsim.report.energy import least_energy
from apexsim.validate.energy_cases import energy_row, given_watts, understand
from apexsim.validate.fit_power import Points, fit, left_out, predicted
from apexsim.validate.kinds import read_cases
from apexsim.validate.replay import run
from apexsim.validate.rows import Skipped

H100 = load_gpu("h100-sxm")
LAW, SERVER = power_law()
SHARE = st.floats(0.0, 1.0)


@given(SHARE, SHARE, SHARE)
def test_power_lies_between_idle_and_the_limit(memory, compute, active):
    watts = gpu_watts(H100, memory * H100.memory_bandwidth, compute * H100.flops["bf16"], active)
    assert H100.idle_w <= watts <= H100.tdp_w


@given(SHARE, SHARE, SHARE, SHARE)
def test_more_work_never_draws_less(a, b, c, d):
    few, many = sorted((a, b)), sorted((c, d))
    low, high = (gpu_watts(H100, m * H100.memory_bandwidth, f * H100.flops["bf16"]) for m, f in zip(few, many))
    assert low <= high + 1e-9


def test_a_gpu_without_work_draws_its_idle_power():
    assert gpu_watts(H100, 0.0, 0.0, 0.0) == H100.idle_w


def test_far_below_the_ceiling_the_law_is_linear():
    """200 GB/s on a 700 W card: the base and 200e9 × J/byte, less than 0.3 % bent away."""
    watts = 700.0 * float(loaded_share(2e11, 0.0, 700.0, LAW))
    assert watts == pytest.approx(LAW.base * 700.0 + 2e11 * LAW.per_byte, rel=3e-3)


def test_a_gpu_of_unknown_limit_has_unknown_power():
    assert math.isnan(gpu_watts(load_gpu("tpu-v5e"), 1e11, 1e12))


def test_joules_are_shared_out_completely():
    spent = Energy(500.0, 8, 10.0, 3000, 1000, 50)
    assert spent.joules == 40_000.0
    assert (spent.per_output_token, spent.per_token, spent.per_request) == (40.0, 10.0, 800.0)


def test_servers_are_counted_whole_and_the_facility_on_top():
    assert SERVER.wall_w(500.0, 8) == pytest.approx(1700 + 1.11 * 4000)
    assert SERVER.wall_w(500.0, 9) == pytest.approx(2 * 1700 + 1.11 * 4500)
    assert SERVER.wall_w(500.0, 8, facility=True) == pytest.approx(1.3 * (1700 + 1.11 * 4000))


# ---- a study ------------------------------------------------------------------------------------------------------------

ASKED = {"gpu": "h100-sxm", "gpus": 2, "prompt_len": 256, "output_len": 64, "num_requests": 48}


@pytest.fixture(scope="module")
def study():
    return apexsim.plan("llama-3.1-8b", **ASKED, request_rate=20.0, objective="energy")


def test_the_objective_ranks_by_joules_per_output_token(study):
    values = [r.metrics.energy.per_output_token for r in study.ranked]
    assert values == sorted(values) == [r.value for r in study.ranked]


def test_the_energy_of_a_run_is_that_of_its_own_rates(study):
    for ranked in study.ranked:
        spent = ranked.metrics.energy
        assert H100.idle_w < spent.watts < H100.tdp_w
        assert spent.output_tokens == 48 * 64 and spent.devices == 2
        assert spent.span == pytest.approx(ranked.metrics.duration_s)


def test_an_idle_cluster_draws_less_than_a_busy_one(study):
    slow = apexsim.plan("llama-3.1-8b", **ASKED, request_rate=0.5, objective="energy")
    busy, idle = (float(np.mean([r.metrics.energy.watts for r in s.ranked])) for s in (study, slow))
    assert H100.idle_w < idle < busy


def test_the_report_weighs_energy_against_latency(study):
    page = " ".join(apexsim.render(study).split())
    assert "J per output token" in page and "at the wall" in page
    assert least_energy(study).split()[0] in {r.plan.shorthand for r in study.ranked}


def test_energy_cannot_be_an_objective_where_power_is_unknown(study):
    metrics = replace(study.ranked[0].metrics, energy=Energy())
    with pytest.raises(InputError, match="tdp_w"):
        parse_objective("energy").value(metrics)


# ---- clocks -------------------------------------------------------------------------------------------------------------


def test_a_lower_clock_is_slower_and_draws_less():
    runs = [apexsim.plan("llama-3.1-8b", **ASKED | {"gpu": gpu, "gpus": 1}).ranked[0].metrics
            for gpu in ("h100-sxm", "h100-sxm@1400MHz", "h100-sxm@810")]  # fmt: skip
    times, watts = ([getter(m) for m in runs] for getter in (lambda m: m.duration_s, lambda m: m.energy.watts))
    assert times == sorted(times) and watts == sorted(watts, reverse=True) and len(set(times)) == 3


def test_above_the_knees_only_the_power_changes():
    slower = load_gpu("h100-sxm@1600")
    assert (slower.flops, slower.memory_bandwidth) == (H100.flops, H100.memory_bandwidth)
    assert gpu_watts(slower, 1e12, 1e13) < gpu_watts(H100, 1e12, 1e13)


@pytest.fixture(scope="module")
def clocked():
    return apexsim.plan("llama-3.1-8b", **ASKED, request_rate=20.0, objective="energy", clock="810, 1410,1980")


def test_a_search_over_clocks_holds_every_plan_at_every_clock(study, clocked):
    plans = {r.plan.shorthand for r in study.ranked}
    assert {r.plan.shorthand for r in clocked.ranked} == {p + tail for p in plans for tail in ("", "@810MHz", "@1410MHz")}
    assert clocked.ranked[0].value <= study.ranked[0].value


def test_a_plan_at_a_clock_is_that_plan_on_such_gpus(clocked):
    slow = next(r for r in clocked.ranked if r.plan.shorthand == "TP2@810MHz")
    alone = apexsim.simulate("llama-3.1-8b", "TP2", **{**ASKED, "gpu": "h100-sxm@810MHz"}, request_rate=20.0).ranked[0]
    named = apexsim.simulate("llama-3.1-8b", "TP2@810MHz", **ASKED, request_rate=20.0).ranked[0]
    assert slow.metrics == alone.metrics == named.metrics


def test_the_command_of_a_clocked_plan_says_how_to_lock_it(clocked):
    from apexsim.report.launch import launch

    slow = next(r for r in clocked.ranked if r.plan.clock == 810)
    assert launch(clocked.setting, slow.plan).commands[0] == "sudo nvidia-smi --lock-gpu-clocks=810,810"
    page = apexsim.render(clocked)
    assert "estimates" in page and "--clock" not in page.split("apexsim simulate")[1].split("apexsim plan")[0]


def test_under_a_power_cap_slower_clocks_come_first(clocked):
    drawn = sorted(r.metrics.energy.watts for r in clocked.ranked)
    cap = (drawn[0] + drawn[-1]) / 2
    study = apexsim.plan("llama-3.1-8b", **ASKED, request_rate=20.0, clock="810,1410,1980", power_cap=cap)
    over = [r.metrics.energy.watts > cap for r in study.ranked]
    assert over == sorted(over) and {True, False} == set(over) and [r.keeps for r in study.ranked] == [not x for x in over]
    assert f"power-cap={cap:.12g}W" in apexsim.render(study) and "✗" in apexsim.render(study, everything=True)
    with pytest.raises(InputError, match="power"):
        apexsim.plan("llama-3.1-8b", **{**ASKED, "gpu": "tpu-v5e"}, power_cap=100.0)


@pytest.mark.parametrize("clock", ["fast", "5000", "0", "-810", "810;1410"])
def test_impossible_clocks_are_refused(clock):
    with pytest.raises(InputError, match=r"clock"):
        apexsim.plan("llama-3.1-8b", **ASKED, clock=clock)


def test_a_gpu_has_one_clock():
    with pytest.raises(InputError, match="already"):
        apexsim.plan("llama-3.1-8b", **{**ASKED, "gpu": "h100-sxm@1200"}, clock="810")


def test_servers_count_in_the_energy_at_the_wall():
    asked = dict(ASKED, request_rate=20.0, objective="wall-energy")
    usual, lean = apexsim.plan("llama-3.1-8b", **asked), apexsim.plan("llama-3.1-8b", **asked, server_overhead=0.0, pue=1.0)
    assert usual.ranked[0].value > lean.ranked[0].value > usual.ranked[0].metrics.energy.per_output_token
    spent = lean.ranked[0].metrics.energy
    assert spent.facility_w == spent.wall_w == pytest.approx(1.11 * 2 * spent.watts)


def test_the_highest_clock_is_the_gpu_itself():
    assert load_gpu("h100-sxm@1980MHz") == H100


@pytest.mark.parametrize("name", ["h100-sxm@2500", "h100-sxm@50MHz", "rtx-3090@1000", "nothing@1000"])
def test_impossible_clocks_are_input_errors(name):
    with pytest.raises(InputError):
        load_gpu(name)


# ---- measured rows ------------------------------------------------------------------------------------------------------

ROW = {
    "id": "a", "quality_class": "primary", "source": "made up", "gpu": "H100", "model": "meta-llama/Llama-3.1-8B-Instruct",
    "task": "lm-arena-chat", "precision": "bfloat16", "engine": "vllm", "gpus": "1.0", "tp": "1.0", "dp": "1.0", "ep": "1.0",
    "load_kind": "max_num_seqs (saturated)", "load": "32.0", "osl_mean": "396", "out_tok_s_per_gpu": "3300", "isl_mean": "",
    "power_w_per_gpu": "560", "J_per_out_token": "0.17", "quality": "direct", "spec": "", "config": "meta-llama--Meta-Llama-3.1-8B",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"task": "image-chat"}, "image and video"), ({"quality_class": "secondary_spec"}, "acceptance"),
        ({"quality_class": "secondary_weak", "load": ""}, "not recorded"), ({"config": ""}, "names no"), ({"load": ""}, "not recorded"),
        ({"task": "poetry"}, "prompt length"), ({"engine": "deepspeed"}, "no rules"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_predicted_say_why(change, reason):
    found = understand(ROW | change)
    assert isinstance(found, Skipped) and reason in found.reason


def test_a_saturated_run_and_its_own_throughput_give_the_same_power(tmp_path):
    """The simulated throughput, given back, must give the simulated power: two countings of one steady state."""
    made = _replay(tmp_path, [ROW])["rows"][0]["metrics"]
    speed, watts = (made[k]["predicted"] for k in ("out_tok_s_per_gpu", "power_w_per_gpu"))
    again = understand(ROW | {"out_tok_s_per_gpu": str(speed)})
    assert not isinstance(again, Skipped)
    assert given_watts(again) == pytest.approx(watts, rel=0.03)


def test_joules_per_token_are_watts_over_throughput(tmp_path):
    made = _replay(tmp_path, [ROW])["rows"][0]["metrics"]
    watts, speed, joules = (made[k]["predicted"] for k in ("power_w_per_gpu", "out_tok_s_per_gpu", "j_per_out_token"))
    assert joules == pytest.approx(watts / speed)


def test_classes_are_scored_apart(tmp_path):
    giant = {"id": "b", "model": "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "precision": "fp8", "gpus": "8.0", "ep": "8.0", "load": "8.0",
             "config": "Qwen--Qwen3-235B-A22B"}  # fmt: skip
    found = _replay(tmp_path, [ROW, ROW | giant])
    assert found["kind"] == "energy"
    assert set(found["summary"]["by"]["quality"]) == {"primary", "primary, FP8 of 235B and 480B"}


def test_a_slot_of_a_saturated_server_is_never_empty(tmp_path):
    case = energy_row(ROW, tmp_path)
    assert not isinstance(case, Skipped)
    waves = case.workload.output[: 32 * 6].reshape(6, 32).sum(axis=0) + case.workload.output[32 * 6 :]
    assert np.abs(waves - 6 * 396).max() <= 1


def _replay(tmp_path, rows):
    path = tmp_path / "energy.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROW))
        writer.writeheader()
        writer.writerows(rows)
    assert len(read_cases(path)[1]) == len(rows)
    return run(path, workers=1)


# ---- fitting ------------------------------------------------------------------------------------------------------------


def test_the_fit_finds_the_law_that_made_the_points():
    rng = np.random.default_rng(1)
    truth = replace(LAW, base=0.22, per_byte=150e-12, per_flop=2.0e-12)
    points = Points(rng.uniform(0.1, 0.8, 60) * 3.35e12, rng.uniform(0, 0.5, 60) * 1e15, np.full(60, 700.0), np.full(60, 74.0),
                    np.empty(60), np.array(["a", "b", "c"] * 20))  # fmt: skip
    points = replace(points, watts=predicted(truth, points))
    found = fit(points, LAW)
    assert (found.base, found.per_byte, found.per_flop) == pytest.approx((truth.base, truth.per_byte, truth.per_flop), rel=1e-3)
    assert np.abs(left_out(points, LAW)[0]).max() < 1e-3


def test_memory_bound_kernels_take_as_much_longer_as_the_law_says():
    from apexsim.cost import attention, gemm
    from apexsim.cost.attention import causal
    from apexsim.cost.bank import load_bank

    full, low = load_bank(H100), load_bank(load_gpu("h100-sxm@810"))
    times = [attention.price(bank, causal("decode", 8, 1, 128), 64.0, 4096.0).seconds for bank in (full, low)]
    assert 1.35 < times[1] / times[0] < 0.58 * 1980 / 810 + 1e-9  # the launch stays
    products = [gemm.price(bank, 8192.0, 8192, 8192, "bf16").seconds for bank in (full, low)]
    assert products[1] / products[0] == pytest.approx(0.76 * 1980 / 810, rel=0.01)


@pytest.mark.parametrize("axis", ["quant", "clock"])
def test_one_plan_is_not_searched_over(axis):
    with pytest.raises(InputError, match="names its own"):
        api.simulate("llama-3.1-8b", "TP2", **ASKED, **{axis: "fp8" if axis == "quant" else "810"})
