"""Classes of requests: read from a trace or told by length, and limits that hold for one class alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import apexsim
from apexsim.cli import main
from apexsim.errors import InputError
from apexsim.metrics import measure
from apexsim.report.schema import schema_of
from apexsim.search.assess import outcome_of
from apexsim.slo import parse_slo
from apexsim.workload.classes import bounds_of, classed
from apexsim.workload.stream import read_trace

SHORT, LONG = 100, 3000
ASKED: dict[str, Any] = {"gpu": "l40s", "gpus": 1}


def trace(folder: Path, size: int = 60) -> str:
    """Chats and batches in turn, with a priority and an id."""
    rows = [f"{i * 0.25},{LONG if i % 3 == 2 else SHORT},{8 if i % 3 == 2 else 20},{'batch' if i % 3 == 2 else 'chat'},{i % 3},r{i}"
            for i in range(size)]  # fmt: skip
    path = folder / "mixed.csv"
    path.write_text("\n".join(["arrival_s,isl,osl,class,priority,id", *rows]) + "\n", encoding="utf-8")
    return str(path)


# ---- what is typed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "kind", "metric", "stat", "limit"), [
    ("chat:ttft:p95=500ms", "chat", "ttft", "p95", 0.5), ("a/b:e2e=1s", "a/b", "e2e", "", 1.0), ("batch:e2e<60s", "batch", "e2e", "", 60.0),
    ("chat:ttft:500", "chat", "ttft", "", 0.5),
    ("Tier 1:tpot:mean<=50", "Tier 1", "tpot", "mean", 0.05), ("ttft:p95=1s", "", "ttft", "p95", 1.0),
])  # fmt: skip
def test_a_limit_may_name_a_class_and_reads_back(text: str, kind: str, metric: str, stat: str, limit: float) -> None:
    slo = parse_slo(text)
    assert (slo.kind, slo.metric, slo.stat, slo.limit_s) == (kind, metric, stat, limit) and parse_slo(str(slo)) == slo


@pytest.mark.parametrize("text", ["chat:itl:p99=5", "ttft:ttft=5", ":ttft=5", "chat:=5", "chat:ttft:p95", "chat:speed=3"])
def test_limits_that_mean_nothing_are_one_line(text: str) -> None:
    with pytest.raises(InputError) as told:
        parse_slo(text)
    assert "\n" not in told.value.line()


@pytest.mark.parametrize("text", ["short:2k", "short:2k,long:8k", "a:2k,b:1k,c", "a:1,a", "ttft:2k,long", "a:x,b", ",b:1", "a:0,b"])
def test_classes_that_mean_nothing_are_one_line(text: str) -> None:
    with pytest.raises(InputError) as told:
        bounds_of(text)
    assert "\n" not in told.value.line()


def test_prompts_up_to_a_length_are_of_its_class(tmp_path: Path) -> None:
    work = classed(read_trace(trace(tmp_path)), f"short:{SHORT},long")
    assert work.kinds == ("short", "long") and (work.kind == (work.prompt > SHORT)).all()
    assert (work.only(np.arange(5, 20)).kind == work.kind[5:20]).all()


def test_a_column_names_the_classes_in_any_container(tmp_path: Path) -> None:
    path = trace(tmp_path)
    lines = tmp_path / "mixed.jsonl"
    work = read_trace(path, classes="class")
    lines.write_text("".join(json.dumps({"timestamp": 1000.0 * a, "input_length": int(p), "output_length": int(o), "hash_ids": [],
                                         "tier": float(k)}) + "\n"
                             for a, p, o, k in zip(work.arrive, work.prompt, work.output, work.kind)), encoding="utf-8")  # fmt: skip
    assert work.kinds == ("chat", "batch") and (work.kind == (work.prompt > SHORT)).all()
    other = read_trace(str(lines), classes="tier")
    assert other.kinds == ("0", "1") and (other.kind == work.kind).all()


# ---- what it means ---------------------------------------------------------------------------------------------------------------


def test_each_request_counts_by_the_limits_of_its_class(tmp_path: Path) -> None:
    asked = {**ASKED, "trace": trace(tmp_path), "classes": "class"}
    limits = ("chat:ttft=60ms", "batch:ttft=400ms", "chat:tpot:p95=30ms", "e2e=1s")
    study = apexsim.simulate("llama-3.1-8b", "TP1", **asked, slos=limits)
    run, work = study.ranked[0], study.setting.workload
    m, outcome = run.metrics, outcome_of(study.setting, run)
    ttft, e2e, chat = outcome.first - outcome.sent, outcome.finish - outcome.sent, work.kind == 0
    good = np.where(chat, ttft <= 0.06, ttft <= 0.4) & (e2e <= 1.0)
    assert m.goodput_req_s == pytest.approx(good.sum() / m.duration_s) and m.attainment == pytest.approx(good.mean())
    tpot = ((outcome.finish - outcome.first) / (work.output - 1))[chat]
    (margin,) = run.limits
    assert margin.kind == "chat" and margin.measured == pytest.approx(float(np.percentile(tpot, 95)))
    assert [kind.requests for kind in m.kinds] == [40, 20]
    assert m.kinds[1].attainment == pytest.approx(good[~chat].mean())
    assert m.least_attained == min(kind.attainment for kind in m.kinds)
    plain = apexsim.simulate("llama-3.1-8b", "TP1", **{**asked, "classes": None})
    assert plain.ranked[0].metrics.kinds == () and plain.ranked[0].value == run.value


def test_one_class_of_all_requests_has_their_numbers(tmp_path: Path) -> None:
    study = apexsim.simulate("llama-3.1-8b", "TP1", **ASKED, trace=trace(tmp_path), classes="all:1M,none")
    run = study.ranked[0].metrics
    assert run.kinds[0].ttft == run.ttft and run.kinds[0].tpot == run.tpot and run.kinds[1].requests == 0
    again = measure(outcome_of(study.setting, study.ranked[0]), study.setting.workload, devices=1, slos=(parse_slo("none:ttft=1"),))
    assert again.attainment == 1.0


def test_a_tighter_limit_of_one_class_never_allows_more_load() -> None:
    asked = {**ASKED, "workload": "chat", "num_requests": 1000, "classes": "short:500,long"}
    found = [apexsim.size("llama-3.1-8b", **asked, slos=(f"short:ttft:p95={ms}ms", "long:ttft:p95=2s")).best for ms in (120, 300, 2000)]
    rates = [one.value for one in found if one]
    assert len(rates) == 3 and rates == sorted(rates) and rates[0] < rates[2]


# ---- what is told -----------------------------------------------------------------------------------------------------------------


def test_the_report_and_the_json_have_every_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "llama-3.1-8b", "--gpu", "l40s:1", "--trace", trace(tmp_path), "--classes", "class"]
    limits = ["--slo", "chat:ttft:p95=500", "--slo", "batch:e2e:p95<60s", "--goodput", "chat:tpot:40"]
    assert main([*words, *limits]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "classes chat 40, batch 20" in page and "chat TTFT p95" in page and "batch E2E p95" in page and "batch 20 requests" in page
    assert main([*words, *limits, "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(schema_of("study")).validate(told)
    assert [kind["class"] for kind in told["ranked"][0]["metrics"]["classes"]] == ["chat", "batch"]
    assert told["slos"] == ["chat:ttft:p95=500ms", "batch:e2e:p95=60s", "chat:tpot=40ms"]
    assert main([*words, "--csv", "-"]) == 0 and "batch_e2e_p95_ms" in capsys.readouterr().out


@pytest.mark.parametrize(("more", "told"), [
    (["--slo", "chat:ttft=5"], "the requests have no classes"), (["--classes", "class", "--slo", "vip:ttft=5"], "there are chat, batch"),
    (["--classes", "tier"], "no column 'tier'; columns: arrival_s"), (["--classes", "id"], "more than 20 values"),
])  # fmt: skip
def test_classes_that_are_not_there_are_one_line(more: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.1-8b", "--gpu", "l40s:1", "--trace", trace(tmp_path), *more]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


def test_a_column_without_a_trace_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.1-8b", "--gpu", "l40s:1", "--workload", "chat", "--classes", "priority"]) == 2
    assert "no trace is read" in capsys.readouterr().err


def test_columns_in_python_may_hold_classes() -> None:
    given = {"arrive": [0.0, 1.0, 2.0, 3.0], "prompt": [10, 500, 10, 500], "output": [4, 4, 4, 4], "class": ["a", "b", "a", "b"]}
    study = apexsim.simulate("llama-3.1-8b", "TP1", **ASKED, trace=given, classes="class", slos="a:ttft=1s")
    assert [(kind.name, kind.requests) for kind in study.ranked[0].metrics.kinds] == [("a", 2), ("b", 2)]
