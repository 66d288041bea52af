"""The report for a browser: complete, small, offline, and safe whatever names hold; pictures of the same."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

import apexsim
from apexsim import api
from apexsim.cli import main
from apexsim.report.blocks import Bars, Chart, ChartSeries, Code, Heat, Page, PageTable, Rows, Section, TableCell, Tile
from apexsim.report.html import page
from apexsim.report.renderers import VIEWS, Look, pictured, rendered
from apexsim.search.curve import with_curves
from apexsim.search.fleet import Fleet
from apexsim.search.follow import fleet
from apexsim.search.inverse import size
from apexsim.search.size import Size
from apexsim.search.study import Study
from apexsim.search.sweep import Sweep
from apexsim.search.together import SharedFleet
from test_fleet import wave

Capture = pytest.CaptureFixture[str]
MADE = {"prompt_len": 200, "output_len": 30, "num_requests": 60}
HOSTILE = "</script><script>alert(1)</script>\"'&<b>\u2028\x1b[31m{{data}}"
MOST_BYTES = 1_500_000
Answer = Study | Sweep | Size | Fleet | SharedFleet
KINDS: tuple[type, ...] = (Study, Sweep, Size, Fleet, SharedFleet)
OVER_TIME = (Fleet, SharedFleet)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Parts(HTMLParser):
    """Tags, scripts and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.within: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.within.append(tag)
        self.scripts += [""] if tag == "script" else []

    def handle_endtag(self, tag: str) -> None:
        while self.within and self.within.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.within and self.within[-1] == "script":
            self.scripts[-1] += data
        else:
            self.words.append(data)


@pytest.fixture(scope="module")
def study() -> Study:
    found = api.plan("mixtral-8x7b", gpu="h100", gpus=8, request_rate=4.0, slos=("ttft:p95=900ms",), tune=True, sensitivity=True, **MADE)
    return with_curves(found)


@pytest.fixture(scope="module")
def answers(study: Study) -> dict[type, Answer]:
    each = {"trace": wave(1.0, 180.0), "slos": ("ttft:p95=2s",), "gpus": 1}
    two = {"chat": {"model": "llama-3.1-8b", **each}, "code": {"model": "qwen3-8b", **each}}
    return {
        Fleet: fleet("llama-3.1-8b", gpu="l4", every=60.0, **each),
        SharedFleet: apexsim.fleet(two, gpu="l4", gpus=3, every=60.0),
        Study: study,
        Sweep: api.sweep("llama-3.1-8b", gpu=["l40s", "h100"], gpus=1, request_rate=[1.0, 4.0, 9.0], **MADE),
        Size: size("llama-3.1-8b", gpu="l40s", gpus=1, slos=("ttft:p95=500ms",), **MADE),
    }  # fmt: skip


def test_every_answer_has_every_form() -> None:
    assert set(VIEWS) == {kind.__name__ for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_page_is_one_offline_file(kind: type, answers: dict[type, Answer]) -> None:
    text = rendered(answers[kind], "html", Look())
    assert len(text.encode()) < MOST_BYTES and text.startswith("<!doctype html>")
    found = Parts(text)
    assert not [tag for tag, attrs in found.tags if tag in ("link", "img", "iframe") or "src" in attrs]
    assert "default-src 'none'" in text and "Leon Sorokin" in text and "prefers-color-scheme" in text
    assert "{{" not in text.replace("{{", "", 0) or not re.search(r"\{\{\w+\}\}", text)
    data = json.loads(next(s for s in found.scripts if s.startswith('{"charts"')))
    anchors = {attrs["id"] for tag, attrs in found.tags if tag == "section"}
    assert {attrs["href"] for tag, attrs in found.tags if tag == "a"} == {f"#{a}" for a in anchors}
    charts = [attrs["data-chart"] for _, attrs in found.tags if "data-chart" in attrs]
    assert charts == [str(i) for i in range(len(data["charts"]))] and len(charts) >= (2 if kind in (Size, *OVER_TIME) else 4)
    assert {attrs["data-key"] for _, attrs in found.tags if "data-key" in attrs} <= set(data["details"])


def test_the_answer_comes_first_and_every_plan_stands_in_the_table(study: Study) -> None:
    text = rendered(study, "html", Look())
    words = Parts(text).words
    assert words.index(study.ranked[0].plan.shorthand) > next(i for i, w in enumerate(words) if "keeps" in w)
    assert all(run.plan.shorthand in words for run in study.ranked)
    for anchor in (
        "launch",
        "plans",
        "pareto",
        "load",
        "layouts",
        "tuned",
        "what-if",
        "memory",
        "latency",
        "course",
        "question",
        "sources",
    ):
        assert f'<section id="{anchor}">' in text, anchor


def test_what_cannot_be_says_why() -> None:
    found = api.plan("llama-3.1-70b", gpu="h100", gpus=8, **MADE)
    reasons = [attrs["data-why"] for _, attrs in Parts(rendered(found, "html", Look())).tags if "data-why" in attrs]
    assert reasons and any("GiB" in (reason or "") for reason in reasons)


def test_no_name_breaks_out(study: Study) -> None:
    work = replace(study.setting.workload, name=HOSTILE, source=HOSTILE)
    setting = replace(study.setting, workload=work, model=replace(study.setting.model, name=HOSTILE))
    evil = replace(study, setting=setting, notes=(HOSTILE,), inputs={**study.inputs, "trace": HOSTILE, "model": HOSTILE},
                   heuristic=HOSTILE)  # fmt: skip
    text, plain = rendered(evil, "html", Look()), rendered(study, "html", Look())
    assert [tag for tag, _ in Parts(text).tags].count("script") == [tag for tag, _ in Parts(plain).tags].count("script") == 3
    assert "alert(1)</script>" not in text and "<b>" not in text and "\x1b" not in text and text.count('id="data"') == 1


def test_every_block_escapes_its_words() -> None:
    evil = HOSTILE
    blocks = [
        Rows([(evil, evil)]), PageTable([evil], ["left"], [[TableCell(evil, 1.0)]] * 9, [evil] * 9, [(evil, evil)]),
        Chart(evil, evil, evil, [ChartSeries(evil, [1.0], [2.0], labels=[evil], keys=[evil])], note=evil),
        Heat([evil], [evil, evil], [[Tile(evil, 0.5, evil, evil), Tile(evil, float("nan"), evil)]], evil),
        Bars([(evil, [(evil, 1.0, evil)])], evil), Code(evil, [evil]),
    ]  # fmt: skip
    text = page(Page(evil, [evil], [Section(evil, evil, blocks)], [evil], {evil: {"title": evil}}))
    found = Parts(text)
    assert [tag for tag, _ in found.tags].count("script") == 3 and "b" not in [tag for tag, _ in found.tags]
    data = json.loads(next(s for s in found.scripts if s.startswith('{"charts"')))
    assert data["charts"][0]["title"] == evil and list(data["details"]) == [evil]


def test_the_same_study_gives_the_same_bytes(study: Study) -> None:
    assert rendered(study, "html", Look()) == rendered(study, "html", Look())


def test_files_of_others_are_as_they_were_published() -> None:
    folder = files("apexsim") / "data/web"
    for row in tomllib.loads((folder / "SOURCES.toml").read_text(encoding="utf-8")).values():
        assert row["source"] and "MIT" in row["licence"] and row["version"]
        for name, wanted in row["sha256"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == wanted
    assert "MIT License" in (folder / "uPlot.LICENSE").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("no Chromium here")
    yield found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_browser_draws_every_chart(kind: type, answers: dict[type, Answer], browser: str, tmp_path: Path) -> None:
    file = tmp_path / "r.html"
    file.write_text(rendered(answers[kind], "html", Look()), encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'home'}", "--window-size=1200,30000",
             "--virtual-time-budget=5000", "--dump-dom"]  # fmt: skip
    try:
        done = subprocess.run([browser, *flags, file.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("the browser does not answer here")
    if "</html>" not in done.stdout:
        pytest.skip("the browser does not run here")
    assert done.stdout.count("<canvas") == done.stdout.count('class="chart"') > 0


@pytest.mark.parametrize(("name", "magic"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml"), ("p.pdf", b"%PDF")])
def test_a_picture_is_of_the_kind_of_its_name(name: str, magic: bytes, study: Study) -> None:
    pytest.importorskip("matplotlib")
    assert pictured(study, Look(file=name)).startswith(magic)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OVER_TIME], ids=lambda kind: kind.__name__)
def test_every_answer_has_a_picture(kind: type, answers: dict[type, Answer]) -> None:
    pytest.importorskip("matplotlib")
    assert len(pictured(answers[kind], Look(file="x.png"))) > 5_000


ONE = ["simulate", "llama-3.1-8b", "--gpu", "l40s:1", "--tp", "1", "--prompt-len", "64", "--output-len", "8", "--num-requests", "30"]


@pytest.mark.parametrize("flag", ["--html", "--plot", "--perfetto"])
@pytest.mark.parametrize(("path", "told"), [
    ("no/where/x.html", "does not exist"), (".", "is a folder"), ("x.zzz", "zzz"), ("/dev/full", "No space left"),
])  # fmt: skip
def test_places_that_cannot_be_written_are_one_line(flag: str, path: str, told: str, capsys: Capture, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    if flag == "--plot":
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    code = main([*ONE, flag, path])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith(f"apexsim: {flag}: ") and told in err
    assert not list(tmp_path.iterdir())


def test_a_page_on_standard_output_is_alone_there(capsys: Capture) -> None:
    assert main([*ONE, "--html", "-"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("<!doctype html>") and out.endswith("</html>\n")


def test_the_files_are_written_beside_the_report(capsys: Capture, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    html, svg = tmp_path / "r.html", tmp_path / "p.svg"
    assert main([*ONE, "--html", str(html), "--plot", str(svg)]) == 0
    assert "simulated" in capsys.readouterr().out
    assert html.read_text(encoding="utf-8").endswith("</html>\n") and svg.read_bytes().startswith(b"<?xml")
