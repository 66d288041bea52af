"""An accelerator of one's own: a made-up NPU in a folder, faults put into it one by one, and what planning makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from apexsim.cli import main
from apexsim.cost import attention, collectives, experts, gemm
from apexsim.cost.attention import causal
from apexsim.cost.bank import load_bank
from apexsim.cost.device_check import Report, check_device
from apexsim.cost.roofline import Provenance
from apexsim.cost.shapes import ExpertLayer
from apexsim.errors import InputError
from apexsim.hardware import load_gpu

NPU = Path(__file__).parent.parent / "examples/devices/npu-1"


@pytest.fixture
def npu(tmp_path: Path) -> Path:
    return Path(shutil.copytree(NPU, tmp_path / "npu"))


def edit(path: Path, line: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")


def said(report: Report, level: str) -> str:
    return "\n".join(f.line() for f in report.findings if f.level == level)


def test_the_example_is_sound_and_says_where_each_time_comes_from() -> None:
    report = check_device(NPU)
    sources = {cover.operator: cover.source for cover in report.covers}
    assert report.sound and sources["prompt attention"] == sources["all-reduce in a node"] == "measured"
    assert sources["routed experts, 16 bit"] == "transferred" and sources["send"] == "roofline"


def test_measured_points_come_back_verbatim_and_labelled() -> None:
    bank = load_bank(load_gpu(str(NPU)))
    rows = [x.split(",") for x in (NPU / "gemm_0.csv").read_text().splitlines()[1:]]
    rows = [r for r in rows if r[1:3] == ["4096", "14336"]]
    priced = gemm.price(bank, [float(r[3]) for r in rows], 4096, 14336, "bf16")
    np.testing.assert_allclose(priced.seconds * 1e6, [float(r[4]) for r in rows], rtol=1e-12)
    assert (priced.provenance == Provenance.MEASURED).all()
    assert gemm.price(bank, [50], 4096, 14336, "bf16").provenance[0] == Provenance.INTERPOLATED
    assert gemm.price(bank, [50_000], 4096, 14336, "bf16").provenance[0] == Provenance.EXTRAPOLATED


def test_decode_and_collectives_are_read_with_their_units() -> None:
    bank = load_bank(load_gpu(str(NPU)))
    row = next(x for x in (NPU / "decode_0.csv").read_text().splitlines() if x.startswith("128,32,8,8,2048,"))
    assert attention.price(bank, causal("decode", 32, 8, 128), 8, 2048).seconds == pytest.approx(float(row.split(",")[-1]) * 1e-6)
    row = next(x for x in (NPU / "all_reduce.csv").read_text().splitlines() if x.startswith("1,4,half,1024,"))
    assert collectives.price(bank, "all_reduce", 2.0**20, 4).seconds == pytest.approx(float(row.split(",")[-1]) * 1e-6)


def test_what_the_folder_lacks_is_borrowed_or_computed() -> None:
    bank = load_bank(load_gpu(str(NPU)))
    assert experts.price(bank, [64], ExpertLayer(2048, 768, 8, 128, 1, 1), "bf16").provenance[0] == Provenance.TRANSFERRED
    assert collectives.price(bank, "send", [2.0**20], 2).provenance[0] == Provenance.ROOFLINE


@pytest.mark.parametrize(
    "file,line,text,expected",
    [
        ("gemm_0.csv", 1, "dtype,m,k,n,time", "column 'time' has the unit 'none'"),
        ("gemm_0.csv", 1, "dtype,m,k,n,time(ms)", "no row reaches more than 0.0008 of the peak; are the times in ns?"),
        ("all_reduce.csv", 1, "num_nodes,num_gpus_per_node,dtype,size(b),time(us)", "check the units of size and time"),
        ("gemm_0.csv", 1, "", "the file is empty"),
        ("gemm_0.csv", 1, "dtype;m;k;n;time(us)", "columns are separated by ';', expected ','"),
        ("gemm_0.csv", 5, "half,1024,1024,128,8,5", "6 cells, the header has 5"),
        ("gemm_0.csv", 5, "half,1024,1024,12.5,8", "'12.5' in column n is not a whole number"),
        ("gemm_0.csv", 1, "dtype,m,k,n,time(ns)", "are the times in ms?"),
        ("gemm_0.csv", 1, "dtype,m,k,tokens,time(us)", "column 'n' (tokens) is missing"),
        ("gemm_0.csv", 5, "half,1024,1024,128,nan", "not finite"),
        ("gemm_0.csv", 5, "half,1024,1024,128,", "a cell is empty in column time"),
        ("gemm_0.csv", 5, "half,1024,1024,128,-3", "above 0"),
        ("gemm_0.csv", 5, "half,1024,1024,many,8", "'many' is no number"),
        ("gemm_0.csv", 5, "1024,half,1024,128,8", "are columns swapped?"),
        ("gemm_0.csv", 5, "quarter,1024,1024,128,8", "unknown dtype 'quarter'"),
        ("all_reduce.csv", 10, "1,65536,half,2,900", "num_gpus_per_node and size look swapped"),
        ("mha_0.csv", 5, "128,32,5,1,8192,half,2000", "no multiple of kv heads"),
    ],
)
def test_a_fault_is_refused_with_its_place(npu: Path, file: str, line: int, text: str, expected: str) -> None:
    edit(npu / file, line, text)
    report = check_device(npu)
    assert expected in said(report, "error") and file in said(report, "error")


def test_an_unsound_folder_is_never_priced(npu: Path) -> None:
    edit(npu / "gemm_0.csv", 5, "half,1024,1024,128,nan")
    with pytest.raises(InputError, match="line 5"):
        load_bank(load_gpu(str(npu)))


@pytest.mark.parametrize(
    "line,text,expected",
    [
        (8, "half,1024,1024,8192,1", "times the peak"),
        (5, "half,1024,1024,128,900", "slower than larger sizes"),
        (6, "half,1024,1024,128,7.0", "a size stands twice"),
    ],
)
def test_points_that_stand_apart_are_named(npu: Path, line: int, text: str, expected: str) -> None:
    edit(npu / "gemm_0.csv", line, text)
    assert expected in said(check_device(npu), "error") + said(check_device(npu), "warning")


def test_gaps_and_missing_ends_are_named(npu: Path) -> None:
    text = (npu / "all_reduce.csv").read_text().splitlines()
    kept = [x for x in text if x.split(",")[3] not in ("64", "256", "65536")]
    (npu / "all_reduce.csv").write_text("\n".join(kept) + "\n")
    report = check_device(npu)
    assert "gaps in size: 16 to 1024 KiB" in said(report, "warning")
    assert "size above 16384 KiB was not timed" in said(report, "note")


def test_a_description_in_the_wrong_unit_is_doubted(npu: Path) -> None:
    text = (npu / "device.toml").read_text().replace("bandwidth_gb_s = 1600", "bandwidth_gb_s = 1.6")
    (npu / "device.toml").write_text(text)
    assert "[memory] bandwidth_gb_s = 1.6 GB/s is unusual" in said(check_device(npu), "warning")


def test_other_clocks_and_other_files_are_not_read(npu: Path) -> None:
    shutil.copy(npu / "gemm_0.csv", npu / "gemm_1200.csv")
    (npu / "softmax.csv").write_text("a,b\n1,2\n")
    notes = said(check_device(npu), "note")
    assert "1200 MHz" in notes and "softmax.csv" in notes


def test_check_tells_in_json_and_by_exit_code(npu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", "check", str(npu), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sound"] is True
    edit(npu / "gemm_0.csv", 5, "half,1024,1024,128,nan")
    assert main(["device", "check", str(npu)]) == 2
    assert "cannot be used" in capsys.readouterr().out


def test_a_device_that_was_added_is_known_by_its_name(
    npu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APEXSIM_DEVICES", str(tmp_path / "kept"))
    assert main(["device", "add", str(npu)]) == 0
    assert load_gpu("NPU-1").kernels == str(tmp_path / "kept/npu1")
    assert main(["device", "add", str(npu)]) == 2 and "--force" in capsys.readouterr().err
    assert main(["device", "add", str(npu), "--force"]) == 0
    assert main(["device", "add", str(npu), "--name", "h100-sxm"]) == 2


def test_an_example_is_added_again_like_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APEXSIM_DEVICES", str(tmp_path / "kept"))
    monkeypatch.chdir(tmp_path)
    codes = [main(["device", "add", *words]) for words in (["example:npu-1"], ["examples/devices/npu-1"], ["example:npu-1", "--force"])]
    assert codes == [0, 2, 0] and "--force" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--gpu", "--device"])
def test_fit_takes_the_folder(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "llama-3.1-8b", flag, str(NPU), "--gpus", "1"]) == 0
    assert "npu-1" in capsys.readouterr().out


def test_plan_takes_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--gpus", "2", "--prompt-len", "500", "--output-len", "50", "--num-requests", "20", "--json", "-"]
    assert main(["plan", "llama-3.1-8b", "--gpu", str(NPU), *words]) == 0
    assert "npu-1" in capsys.readouterr().out
