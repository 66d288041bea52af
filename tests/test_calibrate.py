"""Calibration: what result files mean, factors that are found again, profiles that scale prices and narrow error bars."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apexsim
from apexsim import api
from apexsim.calibrate import profile as kept
from apexsim.calibrate.corners import Shape, corners, missing
from apexsim.calibrate.fit import PRIOR, fit, folds_of, solved
from apexsim.calibrate.points import RunPoint, predicted
from apexsim.calibrate.profile import Profile, left_of, load_profile, save
from apexsim.calibrate.read import FileRun, Passed, kind_of, read_results
from apexsim.cli import main
from apexsim.cost.factors import UNCHANGED, Factors
from apexsim.doubt import Doubt
from apexsim.errors import InputError, Rejected
from apexsim.plan.plan import parse_plan
from apexsim.report.calibratepage import calibration_json
from apexsim.search.assess import assess
from apexsim.search.error import doubt_of, news, strange, system_of
from apexsim.search.setting import Setting, calibrated
from apexsim.workload.trace import Workload

Capture = pytest.CaptureFixture[str]
EXAMPLE = str(Path(__file__).parent.parent / "examples/minimax-h200-runs.json")
TRUE = Factors(decode=1.2, prefill=0.85, launch=1.3)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APEXSIM_PROFILES", str(tmp_path / "profiles"))
    return tmp_path


def asked(users: int = 4, prompt: int = 512, count: int = 24, **more: Any) -> Setting:
    work = Workload("made", np.zeros(count), np.full(count, prompt), np.full(count, 48), "closed", users)
    return api.ask("llama-3.1-8b", gpu="h100:1", trace=work, **more)[0]


def asked_of(point: RunPoint) -> Setting:
    """The question of a point, to another engine."""
    return api.ask("llama-3.1-8b", gpu="h100:1", trace=point.setting.workload, engine="sglang")[0]


def points(factors: Factors = TRUE, odd: float = 1.0) -> list[RunPoint]:
    """Four designed runs as a machine with these factors would measure them; the first one's TTFT is off by `odd`."""
    made, plan = [], parse_plan("TP1")
    for at, (users, prompt) in enumerate([(1, 256), (1, 4096), (16, 256), (16, 4096)]):
        bare = RunPoint(f"run {at}", asked(users, prompt, 12 * users if users == 1 else 48), plan, {})
        told = predicted(bare, factors)
        assert not isinstance(told, Rejected)
        measured = {key: told[key] for key in (("ttft", "mean"), ("tpot", "mean"), ("power", "mean"))}
        made.append(replace(bare, measured={**measured, ("ttft", "mean"): measured["ttft", "mean"] * (odd if at == 0 else 1.0)}))
    return made


# ---- factors -------------------------------------------------------------------------------------------------------------


def test_factors_scale_steps_and_the_account_alike() -> None:
    """With equal factors everything takes so much longer, and shares of time stay what they were."""
    setting, plan = asked(), parse_plan("TP1")
    goal = api.ask("llama-3.1-8b", gpu="h100:1", prompt_len=9, output_len=9, num_requests=3)[2]
    twice = Profile("x", system_of(setting), Factors(2.0, 2.0, 2.0), {}, {})
    runs = [assess(each, goal, plan) for each in (setting, calibrated(setting, twice))]
    one, two = (run for run in runs if not isinstance(run, Rejected))
    assert two.metrics.tpot.mean == pytest.approx(2 * one.metrics.tpot.mean, rel=1e-6)
    assert two.metrics.ttft.mean == pytest.approx(2 * one.metrics.ttft.mean, rel=1e-3)
    assert dict(two.account.seconds).keys() == dict(one.account.seconds).keys()
    for name, seconds in one.account.seconds:
        assert dict(two.account.seconds)[name] == pytest.approx(2 * seconds, rel=1e-6), name
    assert sum(s for _, s in two.account.seconds) == pytest.approx(two.account.busy, rel=0.02)


def test_each_factor_acts_on_its_own_kind() -> None:
    point = points(UNCHANGED)[3]
    base = predicted(point, UNCHANGED)
    assert not isinstance(base, Rejected)
    for factors, grows in ((Factors(decode=1.5), "tpot"), (Factors(prefill=1.5), "ttft"), (Factors(power=1.5), "power")):
        told = predicted(point, factors)
        assert not isinstance(told, Rejected)
        own = told[grows, "mean"] / base[grows, "mean"]
        assert 1.2 < own <= 1.6, grows
    less = predicted(point, Factors(kv=0.05))
    assert not isinstance(less, Rejected) and less["ttft", "mean"] > base["ttft", "mean"]


def test_pricers_share_what_was_priced_and_slowed_ones_keep_their_factors() -> None:
    setting = calibrated(asked(), Profile("x", {}, TRUE, {}, {}))
    assert setting.at(1410).pricer.factors == TRUE and asked().pricer.factors == UNCHANGED
    assert setting.pricer._seen is setting.pricer.scaled(UNCHANGED)._seen


# ---- the fit -------------------------------------------------------------------------------------------------------------


def test_factors_are_found_again_and_held_back_errors_fall() -> None:
    made = points()
    found = fit(made)
    assert np.exp(found.log)[0] == pytest.approx(TRUE.decode, rel=0.03)
    assert np.exp(found.log)[1] == pytest.approx(TRUE.prefill, rel=0.12)
    size = [np.mean([abs(told["tpot", "mean"]) for told in errors]) for errors in (found.before, found.after)]
    assert size[1] < size[0] / 4
    assert (found.sd < PRIOR + 1e-9).all()


def test_right_predictions_stay() -> None:
    assert np.abs(fit(points(UNCHANGED)).log).max() < 0.01


def test_one_odd_run_does_not_rule() -> None:
    assert abs(fit(points(UNCHANGED, odd=10.0)).log[0]) < 0.05


def test_without_runs_the_prior_stays() -> None:
    z, sd = solved(np.zeros((2, 3)), np.array([0.5, -0.3]), np.ones(2, bool), np.full(2, 0.05))
    assert np.abs(z).max() == 0.0 and sd == pytest.approx(PRIOR)


@pytest.mark.parametrize("size", [2, 5, 11, 12, 40])
def test_every_run_is_held_back_once(size: int) -> None:
    folds = folds_of(size)
    assert sorted(i for fold in folds for i in fold) == list(range(size)) and len(folds) == (size if size < 12 else 4)


def test_corners_are_the_extremes() -> None:
    made = points(UNCHANGED)
    inner = replace(made[0], name="inner", setting=asked(4, 1024))
    assert [p.name for p in corners([inner, *made])] == ["run 0", "run 2", "run 1", "run 3"]
    assert missing([Shape(300, 9, 2), Shape(300, 9, 64)], made) == [Shape(300, 9, 64)]


# ---- profiles ------------------------------------------------------------------------------------------------------------


def kept_one(setting: Setting, name: str = "mine") -> Profile:
    made = Profile(name, system_of(setting), TRUE, {"ttft": Doubt(0.02, 0.04), "tpot": Doubt(0.01, 0.02), "e2e": Doubt(0.01, 0.02)}, {})
    save(made)
    return made


def test_a_profile_is_read_as_it_was_kept() -> None:
    made = kept_one(asked())
    assert load_profile("mine") == made and kept.kept() == ["mine"]
    with pytest.raises(InputError, match="is there already"):
        save(made)
    save(made, force=True)


def test_a_profile_acts_anywhere_and_narrows_bars_where_it_was_measured() -> None:
    kept_one(asked())
    question: dict[str, Any] = {"gpu": "h100:1", "prompt_len": 256, "output_len": 16, "num_requests": 8}
    bare, own = (api.simulate("llama-3.1-8b", "TP1", **question, **more) for more in ({}, {"profile": "mine"}))
    assert own.ranked[0].metrics.tpot.mean > bare.ranked[0].metrics.tpot.mean
    assert own.error[0] < bare.error[0] and news(own.setting) == () and any("calibrated by 'mine'" in note for note in own.notes)
    for more in ({"gpu": "h200:1"}, {"engine": "sglang"}, {"engine": "vllm@0.11.0"}):
        bare, far = (api.simulate("llama-3.1-8b", "TP1", **{**question, **more}, **each) for each in ({}, {"profile": "mine"}))
        assert far.setting.engine.gap_s == pytest.approx(bare.setting.engine.gap_s * TRUE.decode)
        assert strange(far.setting) and any("error bars stay" in note for note in far.notes)
        spent = bare.ranked[0].account
        assert doubt_of("ttft", far.setting, spent).offset == pytest.approx(doubt_of("ttft", bare.setting, spent).offset)


def test_the_doubt_left_falls_with_runs_and_never_to_nothing() -> None:
    few, many = left_of([0.01] * 2, 0.1), left_of([0.01] * 32, 0.1)
    assert 0 < many.offset < few.offset < 0.1 and 0 < many.rest < few.rest
    assert left_of([0.0] * 4, 0.1).rest == pytest.approx(0.1 / math.sqrt(2))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "apexsim.profile/1"}', '{"format": 3}', "null", "\0", "[" * 100_000])
def test_a_damaged_profile_is_one_line(text: str, capsys: Capture) -> None:
    kept_one(asked())
    kept.place("mine").write_text(text)
    assert (
        main(["simulate", "llama-3.1-8b", "--gpu", "h100:1", "--tp", "1", "--prompt-len", "9", "--output-len", "2", "--profile", "mine"])
        == 2
    )
    err = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in err if "running" not in line]) == 1


@pytest.mark.parametrize("name", ["none", "../mine", "", "a/b", "x" * 200])
def test_names_of_profiles(name: str) -> None:
    with pytest.raises(InputError):
        load_profile(name)


# ---- readers -------------------------------------------------------------------------------------------------------------


def flat(**more: Any) -> dict[str, Any]:
    return {"model_id": "llama", "num_prompts": 40, "completed": 40, "failed": 0, "request_rate": "inf", "max_concurrency": 4,
            "total_input_tokens": 40 * 500, "total_output_tokens": 40 * 100, "mean_ttft_ms": 50.0, "mean_tpot_ms": 10.0,
            "mean_e2el_ms": 1040.0, "output_throughput": 380.0, **more}  # fmt: skip


def sglang(**more: Any) -> dict[str, Any]:
    found = flat(**more)
    found["mean_e2e_latency_ms"] = found.pop("mean_e2el_ms")
    return {**found, "server_info": {"tp_size": 4, "dp_size": 2, "enable_dp_attention": True, "ep_size": 4, "max_total_num_tokens": 9e5}}


def guide(**more: Any) -> dict[str, Any]:
    def one(mean: float) -> dict[str, Any]:
        return {"successful": {"mean": mean, "median": mean, "percentiles": {"p99": 2 * mean}}}

    metrics = {"time_to_first_token_ms": one(50.0), "request_latency": one(1.04), "time_per_output_token_ms": one(10.4),
               "prompt_token_count": one(500.0), "output_token_count": one(100.0), "output_tokens_per_second": one(380.0),
               "request_totals": {"successful": 40, "errored": 0}, **more}  # fmt: skip
    return {"benchmarks": [{"config": {"strategy": {"type_": "concurrent", "streams": 4}}, "metrics": metrics}], "metadata": {}}


def aiperf(**more: Any) -> dict[str, Any]:
    def one(mean: float, unit: str = "ms") -> dict[str, Any]:
        return {"unit": unit, "avg": mean, "p50": mean}

    return {"time_to_first_token": one(50.0), "inter_token_latency": one(10.0), "request_latency": one(1.04, "sec"),
            "request_count": one(40, "requests"), "input_sequence_length": one(500), "output_sequence_length": one(100),
            "output_token_throughput": one(380.0), "input_config": {"loadgen": {"concurrency": 4}},
            "telemetry_data": {"endpoints": {"a": {"gpus": {"0": {"metrics": {"gpu_power_usage": {"avg": 400.0}}}}}}}, **more}  # fmt: skip


def infx(**more: Any) -> dict[str, Any]:
    return {"hw": "h200", "conc": 4, "isl": 500, "osl": 100, "framework": "vllm", "tp": 4, "mean_ttft": 0.05, "mean_tpot": 0.01, **more}


def record(at: int) -> dict[str, Any]:
    metrics = {"input_sequence_length": 500, "output_sequence_length": 100}
    times = {"time_to_first_token": 50.0, "request_latency": 1040.0}
    return {"metadata": {"request_start_ns": 1_759_000_000_000_000_000 + at * 10**8}, "error": None,
            "metrics": {**{k: {"value": v, "unit": "tokens"} for k, v in metrics.items()},
                        **{k: {"value": v, "unit": "ms"} for k, v in times.items()}}}  # fmt: skip


def written(folder: Path, *docs: Any) -> str:
    path = folder / "result.json"
    path.write_text("\n".join(doc if isinstance(doc, str) else json.dumps(doc) for doc in docs) + "\n")
    return str(path)


FORMS: dict[str, Callable[[], list[Any]]] = {
    "vllm": lambda: [flat()], "sglang": lambda: [sglang(), sglang()], "guidellm": lambda: [guide()], "aiperf": lambda: [aiperf()],
    "inferencex": lambda: [infx()], "records": lambda: [record(at) for at in range(12)], "sweep": lambda: [[flat(), flat()]],
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_all_programs_mean_the_same(name: str, folder: Path) -> None:
    found = read_results(written(folder, *FORMS[name]()))
    runs = [run for run in found if isinstance(run, FileRun)]
    assert len(runs) == len(found) >= 1
    for run in runs:
        assert run.measured["ttft", "mean"] == pytest.approx(0.05) and run.measured["tpot", "mean"] == pytest.approx(0.01)
        if name != "inferencex":
            assert (
                run.measured["e2e", "mean"] == pytest.approx(1.04)
                and run.workload.prompt.mean() == 500
                and run.workload.output.mean() == 100
            )
        assert run.workload.mode == ("open" if name == "records" else "closed") and run.workload.concurrency in (0, 4)
    if name == "sglang":
        assert runs[0].widths and runs[0].widths.plan == "1×DP2TP2/EP4" and runs[0].kv_tokens == 9e5
        assert parse_plan(runs[0].widths.plan).devices == 4
    if name == "aiperf":
        assert runs[0].measured["power", "mean"] == 400.0


def test_guidellm_has_its_own_itl_taken_first(folder: Path) -> None:
    block = {"successful": {"mean": 11.0}}
    run = read_results(written(folder, guide(inter_token_latency_ms=block)))[0]
    assert isinstance(run, FileRun) and run.measured["tpot", "mean"] == pytest.approx(0.011)


def test_a_detailed_run_is_replayed_as_it_was(folder: Path) -> None:
    rows = {"input_lens": [500] * 12, "output_lens": [3] * 12, "ttfts": [0.05] * 12, "itls": [[0.01, 0.01]] * 12, "errors": [""] * 12,
            "start_times": [0.5 * i for i in range(12)], "request_rate": 2.0, "max_concurrency": None}  # fmt: skip
    run = read_results(written(folder, rows))[0]
    assert isinstance(run, FileRun) and run.workload.mode == "open" and run.workload.arrive[1] == pytest.approx(0.5)
    assert run.measured["tpot", "mean"] == pytest.approx(0.01) and run.measured["ttft", "p99"] == pytest.approx(0.05)


def test_open_loops_have_arrivals(folder: Path) -> None:
    run = read_results(written(folder, flat(request_rate=2.0, max_concurrency=None)))[0]
    assert isinstance(run, FileRun) and run.workload.mode == "open" and run.workload.arrive[-1] == pytest.approx(39 / 2.0)


# ---- what files say of their servers -----------------------------------------------------------------------------------------


def read_one(folder: Path, *docs: Any) -> FileRun:
    found = read_results(written(folder, *docs))[0]
    assert isinstance(found, FileRun), found.reason
    return found


def test_settings_of_a_sweep_are_those_of_its_runs(folder: Path) -> None:
    """A run with 8 seats is no run of an engine that has 1024, whichever way its flags are written."""
    for sign in ("_", "-"):
        flags = {"max_num_seqs": 8, "max_num_batched_tokens": 4096, "gpu_memory_utilization": 0.8, "kv_cache_dtype": "fp8",
                 "enforce_eager": True, "max_model_len": 8192, "tensor_parallel_size": 2}  # fmt: skip
        run = read_one(folder, flat(**{name.replace("_", sign): value for name, value in flags.items()}))
        assert run.server.settings == {"max_num_seqs": 8, "max_num_batched_tokens": 4096, "memory_fraction": 0.8, "pad": ()}
        assert run.server.question == {"max_model_len": 8192, "kv_dtype": "fp8"} and run.widths and run.widths.tp == 2


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), 10**30, -1, 0, True, "x", [], {}, None])
def test_settings_that_are_none_leave_the_engine_its_own(bad: Any, folder: Path) -> None:
    for name in (
        "max_num_seqs",
        "max_num_batched_tokens",
        "gpu_memory_utilization",
        "block_size",
        "max_cudagraph_capture_size",
        "max_model_len",
    ):
        run = read_one(folder, flat(**{name: bad}))
        assert not run.server.settings and not run.server.question


def test_a_sweep_is_the_same_as_a_table(folder: Path) -> None:
    docs = [flat(run_number=at, max_num_seqs=8, tensor_parallel_size=2, request_goodput=None) for at in range(2)]
    table = folder / "summary.csv"
    lines = [
        ",".join(["", *docs[0]]),
        *(",".join([str(at), *("" if v is None else str(v) for v in doc.values())]) for at, doc in enumerate(docs)),
    ]
    table.write_text("\n".join(lines) + "\n")
    one, other = read_results(written(folder, docs)), read_results(str(table))
    for a, b in zip(one, other, strict=True):
        assert isinstance(a, FileRun) and isinstance(b, FileRun)
        told = [{key: value for key, value in run.measured.items() if value == value} for run in (a, b)]
        assert told[0] == told[1] and (a.server, a.widths) == (b.server, b.widths) and (a.workload.prompt == b.workload.prompt).all()


def test_lists_and_lines_of_detailed_runs_are_replayed_one_by_one(folder: Path) -> None:
    rows = {"input_lens": [500] * 12, "output_lens": [3] * 12, "ttfts": [0.05] * 12, "itls": [[0.01, 0.01]] * 12, "errors": [""] * 12,
            "start_times": [0.5 * i for i in range(12)], "request_rate": 2.0, "max_concurrency": None}  # fmt: skip
    for docs in ([[rows, rows]], [rows, rows]):
        found = read_results(written(folder, *docs))
        assert [run.tool for run in found if isinstance(run, FileRun)] == ["detailed run"] * 2


def test_a_server_of_sglang_tells_its_settings_and_release(folder: Path) -> None:
    info = {"tp_size": 4, "dp_size": 4, "enable_dp_attention": True, "max_running_requests": 256, "chunked_prefill_size": 4096,
            "mem_fraction_static": 0.85, "kv_cache_dtype": "fp8_e4m3", "version": "0.5.9.post1", "disaggregation_mode": "null",
            "speculative_algorithm": None}  # fmt: skip
    run = read_one(folder, sglang() | {"server_info": info}, sglang())
    assert (run.server.engine, run.server.release) == ("sglang", "0.5.9.post1")
    assert run.server.settings == {"max_num_seqs": 64, "max_num_batched_tokens": 4096, "memory_fraction": 0.85}
    assert run.server.question == {"kv_dtype": "fp8_e4m3"}


def test_power_of_several_gpus_is_that_of_one(folder: Path) -> None:
    run = read_one(folder, flat(gpu_avg_power_w=2000.0, energy_gpu_ids=[0, 1, 2, 3]))
    assert run.measured["power", "mean"] == 500.0


def test_lengths_that_are_not_told_keep_no_users_in_lockstep(folder: Path) -> None:
    """All alike only where the mean is whole: users whose answers end together send all prompts at once, and TTFT is another."""
    alike, uneven = read_one(folder, flat()), read_one(folder, flat(total_output_tokens=40 * 100 - 7))
    assert (alike.workload.output == 100).all() and len(set(uneven.workload.output)) > 10
    assert uneven.workload.output.mean() == pytest.approx(100, rel=0.03)


def test_lengths_of_sglang_are_drawn_as_its_benchmark_draws_them(folder: Path) -> None:
    run = read_one(folder, sglang(dataset_name="random", random_range_ratio=0.0), sglang())
    assert run.workload.prompt.min() < 0.2 * run.workload.prompt.mean() and run.workload.prompt.max() > 1.7 * run.workload.prompt.mean()


PHASE = {"name": "profiling", "kind": "profiling", "type": "poisson", "rate": 2.0, "requests": 40}


def test_todays_aiperf_is_read(folder: Path) -> None:
    """Phases instead of a load generator, names of the maker before those of power, warm-up beside the records."""
    watts = {"endpoints": {"a": {"gpus": {"0": {"metrics": {"nvidia_power_usage": {"unit": "W", "avg": 300.0}}}}}}}
    config = {"models": {"items": [{"name": "llama"}]}, "phases": [{"name": "warmup", "kind": "warmup", "concurrency": 9}, PHASE]}
    run = read_one(folder, aiperf(input_config=config, telemetry_data=watts))
    assert run.workload.mode == "open" and run.workload.arrive[-1] == pytest.approx(39 / 2.0)
    assert run.measured["power", "mean"] == 300.0 and run.about["model"] == "llama"
    cold = record(0) | {"metadata": {**record(0)["metadata"], "benchmark_phase": "warmup"}}
    assert read_one(folder, cold, *(record(at) for at in range(12))).workload.size == 12


def test_todays_guidellm_is_read_request_by_request(folder: Path) -> None:
    requests = [{"request_start_time": 1.7e9 + at, "prompt_tokens": 400 + at, "output_tokens": 100} for at in range(40)]
    doc = guide()
    doc["benchmarks"][0] |= {"requests": {"successful": requests}}
    doc["config"] = {"spec": {"backend": {"model": "llama"}}}
    run = read_one(folder, doc)
    assert run.workload.prompt[-1] == 439 and run.workload.mode == "closed" and run.about["model"] == "llama"
    doc["benchmarks"][0]["config"] = {"strategy": {"type_": "trace", "time_scale": 1.0}}
    run = read_one(folder, doc)
    assert run.workload.mode == "open" and run.workload.arrive[3] == pytest.approx(3.0)


def test_rows_of_inferencex_name_release_and_format(folder: Path) -> None:
    run = read_one(folder, infx(image="nvcr.io#nvidia/tensorrt-llm/release:1.2.0rc6.post2", framework="dynamo-trt", precision="fp4"))
    assert (run.server.engine, run.server.release, run.server.precision) == ("tensorrt-llm", "1.2.0rc6.post2", "fp4")
    assert read_one(folder, infx(image="vllm/vllm-openai:nightly-0ab")).server.release == ""


FAULTS = {
    "failed": (flat(completed=30, failed=10), "10 of 40 requests failed"),
    "short": (flat(completed=6, total_input_tokens=3000, total_output_tokens=600), "too short: 6 requests"),
    "few a user": (flat(max_concurrency=32), "too short: 40 requests, expected at least 64"),
    "nothing": (flat(completed=0), "'completed' is '0'"),
    "beyond": (flat(mean_ttft_ms=2000.0), "mean TTFT 2 s is beyond"),
    "sum": (flat(mean_tpot_ms=30.0), "contradicts itself: TTFT"),
    "crowded": (flat(output_throughput=3800.0), "39.5 requests in flight with 4 users"),
    "drafts": (flat(spec_decode_acceptance_length=2.5), "speculative decoding"),
    "text": (flat(mean_ttft_ms="soon"), "'mean_ttft_ms' is 'soon'"),
    "negative": (flat(mean_tpot_ms=-1), "expected a number"),
    "object": (flat(max_concurrency={}), "'max_concurrency' is '{}'"),
    "endless": (flat(total_input_tokens=float("inf")), "expected a number"),
    "huge": (flat(num_prompts=1e30, completed=1e30), "expected a number"),
    "unit": (aiperf(time_to_first_token={"unit": "weeks", "avg": 1}), "the unit 'weeks'"),
    "cancelled": (aiperf(was_cancelled=True), "cancelled"),
    "disagg": (infx(disagg=True), "disaggregated"),
    "widths": (infx(ep=3), "do not fit together"),
    "no lengths": ({"mean_ttft_ms": 1, "total_output_tokens": 5, "completed": 9}, "has no 'total_input_tokens'"),
    "lost": ({key: value for key, value in flat(completed=30).items() if key != "failed"}, "10 of 40 requests failed"),
    "ramp": (flat(ramp_up_strategy="linear"), "its rate ramps up"),
    "drafts of a sweep": (flat(speculative_config='{"method": "mtp"}'), "speculative decoding"),
    "drafts of a server": (sglang() | {"server_info": {"tp_size": 1, "speculative_algorithm": "EAGLE"}}, "speculative decoding"),
    "a pool": (sglang() | {"server_info": {"tp_size": 1, "disaggregation_mode": "decode"}}, "were apart"),
    "prefixes": (sglang(dataset_name="generated-shared-prefix"), "share prefixes"),
    "errors of aiperf": (aiperf(error_request_count={"unit": "requests", "avg": 10}), "10 of 50 requests failed"),
    "phases": (aiperf(input_config={"phases": [PHASE, PHASE | {"name": "b"}]}), "of 2 phases together"),
    "schedule": (aiperf(input_config={"phases": [{"type": "fixed_schedule"}]}), "the load 'fixed_schedule'"),
    "mtp": (infx(mtp="on"), "speculative"),
    "context": (infx(dcp_size=2), "context parallelism"),
    "sglang widths": (sglang(server_info={"tp": 8, "dp": 3, "enable_dp_attention": True}), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_not_used_says_why(name: str, folder: Path) -> None:
    doc, told = FAULTS[name]
    found = read_results(written(folder, doc))
    if told:
        assert len(found) == 1 and isinstance(found[0], Passed) and told in found[0].reason


def test_mixed_and_broken_lines_are_counted(folder: Path) -> None:
    found = read_results(written(folder, sglang(), "{", {"what": 1}, "7", sglang(mean_ttft_ms=9e9)))
    assert [isinstance(each, FileRun) for each in found].count(True) == 1 and len(found) == 5


STRANGE = ("", "{}", "[]", "7", "null", "nonsense", '{"benchmarks": 3}', '{"metadata": 1, "metrics": 2}', "[" * 200_000, "\0\0",
           '{"mean_ttft_ms": [], "total_output_tokens": {}}', '{"a": 1}\n{"b": 2}', "a,b\n1,2\n", "a,b\n1\n")  # fmt: skip


@pytest.mark.parametrize("text", STRANGE)
def test_strange_files_are_one_line_and_exit_code_2(text: str, folder: Path, capsys: Capture) -> None:
    path = folder / "x.json"
    path.write_text(text)
    assert main(["calibrate", str(path), "--model", "llama-3.1-8b", "--gpu", "h100", "--plan", "TP1"]) == 2
    err = [line for line in capsys.readouterr().err.strip().splitlines() if "running" not in line]
    assert len(err) == 1 and "Traceback" not in err[0]


@pytest.mark.parametrize("name", FORMS)
def test_values_of_any_kind_never_raise(name: str, folder: Path) -> None:
    """Each value of a sound file in turn becomes something else: the run is used or passed over."""
    rubbish = (None, "x", [], {}, -1, 1e300, True, "inf")

    def spoiled(value: Any, bad: Any) -> list[Any]:
        if isinstance(value, dict):
            return [{**value, key: each} for key in value for each in (bad, *spoiled(value[key], bad))]
        return [[each, *value[1:]] for each in (bad, *spoiled(value[0], bad))] if isinstance(value, list) and value else []

    first, *rest = FORMS[name]()
    for bad in rubbish:
        for each in spoiled(first, bad)[:40]:
            if isinstance(each, dict) and not kind_of(each):
                continue
            assert all(isinstance(run, (FileRun, Passed)) for run in read_results(written(folder, each, *rest[:1])))


# ---- the command ---------------------------------------------------------------------------------------------------------


def test_the_example_in_python_and_on_the_command_line(folder: Path, capsys: Capture) -> None:
    # a release later than the one that was run, with another kernel of experts: what its prices miss, the factors find
    words = ["calibrate", EXAMPLE, "--gpu", "h200", "--engine", "vllm@0.17.0", "--save", "my-h200", "--json", "-"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    found = apexsim.calibrate(EXAMPLE, gpu="h200", engine="vllm@0.17.0")
    assert told["factors"]["decode"]["value"] == pytest.approx(found.factors.decode)
    assert told["errors"]["tpot"]["after"]["median_abs_error"] < told["errors"]["tpot"]["before"]["median_abs_error"] / 2
    assert len(told["runs"]) == 6 and told["profile"] == "my-h200" and len(told["next"]) == 2
    jsonschema = pytest.importorskip("jsonschema")
    from apexsim.report.plain import clean
    from apexsim.report.schema import schema_of

    for value in (told, clean(calibration_json(found))):
        jsonschema.Draft202012Validator(schema_of("calibration")).validate(value)
    assert main(words) == 2 and "is there already" in capsys.readouterr().err
    assert load_profile("my-h200").about["runs"] == 6 and load_profile("my-h200").system["release"] == "vllm 0.17.0"


def test_cache_and_power_are_taken_as_servers_state_them(folder: Path) -> None:
    """Files of a machine with a smaller cache that draws more: one is stated, the other a ratio, and neither moves the rest."""
    docs = []
    for point in points(UNCHANGED):
        work, told = point.setting.workload, predicted(replace(point, setting=asked_of(point)), UNCHANGED)
        assert not isinstance(told, Rejected)
        tokens = {"total_input_tokens": int(work.prompt.sum()), "total_output_tokens": int(work.output.sum())}
        names = {"ttft": "mean_ttft_ms", "tpot": "mean_tpot_ms", "e2e": "mean_e2e_latency_ms"}
        times = {name: 1e3 * told[metric, "mean"] for metric, name in names.items()}
        load = {"completed": work.size, "request_rate": float("inf"), "max_concurrency": work.concurrency}
        server = {"server_info": {"tp_size": 1, "max_total_num_tokens": 200_000}, "gpu_avg_power_w": 1.25 * told["power", "mean"]}
        docs.append({**load, **tokens, **times, **server})
    found = apexsim.calibrate(written(folder, *docs), model="llama-3.1-8b", gpu="h100", engine="sglang")
    assert found.factors.power == pytest.approx(1.25, rel=0.02) and found.profile.left["power"].rest < 0.05
    assert 0.3 < found.factors.kv < 0.9 and found.told["kv"]
    assert found.factors.decode == pytest.approx(1.0, abs=0.02)


def test_suggestions_keep_their_schema_and_speak_the_engine(capsys: Capture) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from apexsim.report.schema import schema_of

    for engine, word in (("vllm", "vllm bench serve"), ("sglang", "sglang.bench_serving")):
        assert main(["calibrate", "--suggest", "llama-3.1-8b", "--gpu", "h100", "--engine", engine, "--json", "-"]) == 0
        told = json.loads(capsys.readouterr().out)
        jsonschema.Draft202012Validator(schema_of("suggestion")).validate(told)
        assert len(told["runs"]) == 4 and all(word in run["command"] for run in told["runs"])


REFUSED = {
    "nothing": (["calibrate"], "give result files, or --suggest MODEL"),
    "both": (["calibrate", EXAMPLE, "--suggest", "llama-3.1-8b"], "give result files, or --suggest MODEL"),
    "no gpu": (["calibrate", EXAMPLE], "--gpu"),
    "other gpu": (["calibrate", EXAMPLE, "--gpu", "h100"], "a run on h200, asked was h100"),
    "other engine": (["calibrate", EXAMPLE, "--gpu", "h200", "--engine", "sglang"], "a run of vllm, asked was sglang"),
    "other plan": (["calibrate", EXAMPLE, "--gpu", "h200", "--plan", "TP8"], "a run of 1×TP4, asked was TP8"),
    "model": (["calibrate", EXAMPLE, "--gpu", "h200", "--model", "lama"], "lama"),
    "name": (["calibrate", EXAMPLE, "--gpu", "h200", "--save", "a/b"], "is no name of a profile"),
    "where": (["calibrate", EXAMPLE, "--gpu", "h200", "--where", "x"], "write LABEL=VALUE"),
    "where of JSON": (["calibrate", EXAMPLE, "--gpu", "h200", "--where", "release=0"], "it has no effect: all runs are of it"),
    "where of nothing": (["calibrate", EXAMPLE, "--gpu", "h200", "--where", "release=9.9"], "no run is of release=9.9"),
    "force": (["calibrate", EXAMPLE, "--gpu", "h200", "--force"], "nothing is kept"),
    "suggest": (["calibrate", "--suggest", "llama-3.1-8b", "--gpu", "h200", "--save", "x"], "nothing is read beside --suggest"),
    "no file": (["calibrate", "nowhere.json", "--gpu", "h200"], "does not exist"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_calibrated_is_one_line(name: str, capsys: Capture) -> None:
    words, told = REFUSED[name]
    assert main(words) == 2
    err = [line for line in capsys.readouterr().err.strip().splitlines() if "running" not in line]
    assert len(err) == 1 and told in err[0]


MIXED = {
    "another model": ({"model": "Qwen/Qwen3-32B"}, ["--model", "minimax-m2.5"], "a run of Qwen/Qwen3-32B, asked was"),
    "another release": ({"image": "vllm/vllm-openai:v0.19.0"}, ["--engine", "vllm@0.16.0"], "a run of vllm 0.19.0, asked was vllm@0.16.0"),
    "a GPU of a like name": ({"hw": "gb200"}, [], "a run on gb200, asked was h200"),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_runs_of_another_system_are_passed_over_and_counted(name: str, folder: Path, capsys: Capture) -> None:
    change, words, told = MIXED[name]
    rows = json.loads(Path(EXAMPLE).read_text())[:2]
    path = written(folder, [*rows, rows[0] | change])
    assert main(["calibrate", path, "--gpu", "h200", *words, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["runs"]) == 2 and [each["reason"] for each in found["passed"]] == [found["passed"][0]["reason"]]
    assert told in found["passed"][0]["reason"]


def test_one_of_several_systems_is_chosen_in_any_file(folder: Path, capsys: Capture) -> None:
    rows = json.loads(Path(EXAMPLE).read_text())[:2]
    path = written(folder, [*rows, *({**row, "image": "vllm/vllm-openai:v0.19.0"} for row in rows)])
    assert main(["calibrate", path, "--gpu", "h200"]) == 2 and "--where release=" in capsys.readouterr().err
    assert main(["calibrate", path, "--gpu", "h200", "--where", "release=0.19.0", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["system"]["release"] == "0.19.0"


def test_a_broken_file_among_others_is_one_line(folder: Path, capsys: Capture) -> None:
    (folder / "broken.json").write_text('{"mean_ttft_ms": ')
    assert main(["calibrate", EXAMPLE, str(folder / "broken.json"), "--gpu", "h200", "--json", "-"]) == 0
    assert "neither JSON nor JSON lines" in json.loads(capsys.readouterr().out)["passed"][0]["reason"]


def test_rows_with_medians_alone_are_calibrated_on(folder: Path) -> None:
    head = "backend,backend_version,system,config,precision,isl,osl,concurrency,attn_tp,ttft_median_ms,tpot_median_ms"
    rows = [f"vllm,0.19.0,h100_sxm,meta-llama--Meta-Llama-3.1-8B,bf16,1024,64,{users},1,{40 * users**0.5},8" for users in (1, 4)]
    path = folder / "rows.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    found = apexsim.calibrate(str(path))
    assert [set(point.measured) for point in found.gathered.points] == [{("ttft", "median"), ("tpot", "median")}] * 2


def test_a_table_of_several_systems_asks_for_one(capsys: Capture) -> None:
    path = str(Path(__file__).parent.parent / "validation/closed_loop.csv")
    assert main(["calibrate", path, "--model", "gpt-oss-120b", "--gpu", "h100-sxm", "--engine", "sglang"]) == 2
    assert "runs can be used, expected at least 2" in capsys.readouterr().err
