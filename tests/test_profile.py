"""The procedure of a measurement, on accelerators that are made up: sizes, going on, budgets, and a folder that planning takes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from apexsim.cli import main
from apexsim.cli.profile import described
from apexsim.cost.device_check import check_device
from apexsim.errors import InputError
from apexsim.hardware import load_gpu
from apexsim.profile import jobs as profile_jobs
from apexsim.profile.jobs import COARSE, WHAT, Family, TimedRow, families, jobs, refined
from apexsim.profile.run import Paper, Sample, forecast, measure
from apexsim.profile.store import Store

GPU = load_gpu("h100-sxm")


class Counting(Paper):
    """A made-up accelerator that counts, and is cut off after `most` measurements."""

    seen: list[TimedRow]
    most: float = math.inf

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", [])

    def measure(self, job: TimedRow) -> Sample:
        if len(self.seen) >= self.most:
            raise KeyboardInterrupt
        self.seen.append(job)
        return Paper.measure(self, job)


def counting(ranks: int = 4, most: float = math.inf) -> Counting:
    backend = Counting(GPU, ranks)
    object.__setattr__(backend, "seen", [])
    object.__setattr__(backend, "most", most)
    return backend


@pytest.fixture(autouse=True)
def few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_jobs, "SIZES", (1024, 4096))
    monkeypatch.setattr(profile_jobs, "HEADS", ((8, 2, 128),))
    monkeypatch.setattr(profile_jobs, "BATCHES", (1, 16))


def gemm() -> Family:
    return next(families("gemm", ("half",), 1))


def test_a_straight_curve_needs_no_more_sizes() -> None:
    assert refined(gemm(), lambda job: 1e-6 * (10 + job.size("n")), 0.05) == list(COARSE["n"])


def test_sizes_are_added_where_a_curve_bends() -> None:
    added = set(refined(gemm(), lambda job: max(1e-5, 1e-7 * job.size("n")), 0.05)) - set(COARSE["n"])
    assert added and all(16 < size < 1024 for size in added)  # it bends at 100 tokens


def test_a_wider_tolerance_never_adds_sizes() -> None:
    counts = [len(refined(gemm(), lambda job: 1e-9 * job.size("n") ** 1.5, x)) for x in (0.01, 0.1, 0.5)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]


def test_all_shapes_are_measured_on_the_same_sizes(tmp_path: Path) -> None:
    measure("gemm", counting(), Store(tmp_path))
    assert "of the grid" not in str(check_with(tmp_path).covers)


def check_with(folder: Path):  # type: ignore[no-untyped-def]
    (folder / "device.toml").write_text(described(GPU))
    return check_device(folder)


def test_everything_that_is_written_is_a_sound_device(tmp_path: Path) -> None:
    measure("all", counting(), Store(tmp_path))
    report = check_with(tmp_path)
    sources = {cover.operator: cover.source for cover in report.covers}
    assert report.sound, report.findings
    assert {sources[name] for name in ("matrix products, 16 bit", "decode attention", "routed experts, 16 bit", "send")} == {"measured"}


def test_a_run_that_was_cut_short_goes_on_and_measures_nothing_twice(tmp_path: Path) -> None:
    whole = counting()
    measure("gemm", whole, Store(tmp_path / "whole"))
    first, second = counting(most=7), counting()
    with pytest.raises(KeyboardInterrupt):
        measure("gemm", first, Store(tmp_path / "cut"))
    measure("gemm", second, Store(tmp_path / "cut"))
    assert first.seen + second.seen == whole.seen
    assert (tmp_path / "cut/gemm_0.csv").read_text() == (tmp_path / "whole/gemm_0.csv").read_text()


def test_a_line_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    measure("gemm", counting(), Store(tmp_path))
    path = tmp_path / "gemm_0.csv"
    text = path.read_text()
    path.write_text(text[:-4])
    again = counting()
    measure("gemm", again, Store(tmp_path))
    assert len(again.seen) == 1 and path.read_text() == text


def test_what_cannot_run_is_tried_once(tmp_path: Path) -> None:
    class Small(Counting):
        def measure(self, job: TimedRow) -> Sample:
            sample = Counting.measure(self, job)
            return Sample(math.nan) if job.size("m") > 2000 else sample

    def small() -> Small:
        backend = Small(GPU, 1)
        object.__setattr__(backend, "seen", [])
        return backend

    done = measure("gemm", small(), Store(tmp_path))
    again = small()
    measure("gemm", again, Store(tmp_path))
    assert done.impossible > 0 and again.seen == []


def test_a_spent_budget_leaves_the_rest(tmp_path: Path) -> None:
    backend = counting()
    done = measure("gemm", backend, Store(tmp_path), budget=0.0)
    assert done.measured == len(backend.seen) == 0 and done.left == 20


def test_a_foreign_file_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "gemm_0.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="not written by a measurement"):
        Store(tmp_path)


def test_progress_says_how_long_it_takes(tmp_path: Path) -> None:
    told: list[str] = []
    measure("gemm", counting(), Store(tmp_path), progress=lambda done, total, what: told.append(what))
    assert "finding sizes" in told[0] and "left" in told[-1]


def test_jobs_stay_within_what_one_kernel_is_asked_for() -> None:
    for family in families("attention", ("half",), 1):
        assert all(job.size("batch_size") * job.size("seq_len") <= 4_194_304 for job in jobs(family, [128, 32768]))


def test_one_device_has_no_collectives() -> None:
    assert list(families("comm", ("half",), 1)) == []
    assert {f.kind for f in families("comm", ("half",), 8)} == set(WHAT["comm"])


def test_a_forecast_counts_what_a_run_measures(tmp_path: Path) -> None:
    backend = counting()
    measure("gemm", backend, Store(tmp_path))
    assert next(forecast("gemm", Paper(GPU, 4), ("half",), 0.05)).rows <= len(backend.seen)


def test_a_dry_run_needs_no_accelerator(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "all", "--out", "nowhere", "--gpu", "h100-sxm", "--dry-run"]) == 0
    assert "rows, about" in capsys.readouterr().out and not Path("nowhere").exists()


def test_without_an_accelerator_a_measurement_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        import torch
    except ImportError:
        torch = None
    if torch is not None and torch.cuda.is_available():
        pytest.skip("an accelerator is here")
    assert main(["profile", "gemm", "--out", str(tmp_path / "x"), "--gpu", "h100-sxm"]) == 2
    assert "--dry-run" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_torch_on_the_cpu_follows_the_procedure(tmp_path: Path) -> None:
    pytest.importorskip("torch", exc_type=ImportError)
    from apexsim.profile.torch_timer import TorchTimer

    timer = TorchTimer("cpu", min_time=1e-3)
    store = Store(tmp_path)
    rows = [
        TimedRow("gemm", "float", (64, 64, 8)),
        TimedRow("mha", "half", (32, 4, 2, 0, 1, 64)),
        TimedRow("decode", "half", (32, 4, 2, 0, 2, 64)),
        TimedRow("moe", "half", (64, 32, 2, 4, 1, 1, 1, 0, 8)),
    ]
    for job in rows:
        store.add(job, timer.measure(job).seconds)
    assert all(0 < seconds < 1 for seconds in Store(tmp_path).seconds.values()) and len(store.seconds) == 4


def test_torch_collectives_on_the_cpu() -> None:
    pytest.importorskip("torch", exc_type=ImportError)
    from apexsim.profile.torch_comm import RankGroup

    group = RankGroup(2, "cpu")
    try:
        times = [group.seconds(TimedRow(kind, "half", (1, 2, 4096))) for kind in WHAT["comm"]]
    finally:
        group.close()
    assert all(0 < t < 5 for t in times)
