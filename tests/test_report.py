"""What is told of a study: text, JSON and what to type next."""

from __future__ import annotations

import json
import math
import shlex

import pytest

from apexsim import api
from apexsim.cli import main
from apexsim.plan.plan import parse_plan
from apexsim.report.again import again
from apexsim.report.detail import gpu_seconds, layout_rows, memory_rows, rival_of
from apexsim.report.draw import bar, change, percent, sig, sparkline, stacked
from apexsim.report.intro import funnel_line, nearest_misses
from apexsim.report.jsonout import study_json
from apexsim.report.layout import layouts
from apexsim.report.plain import clean, dumps
from apexsim.report.ranking import ranking
from apexsim.report.text import render
from apexsim.search.study import Study

QUESTION = {"gpu": "h100-sxm", "gpus": 8, "prompt_len": 200, "output_len": 20, "num_requests": 40, "request_rate": 5.0}


@pytest.fixture(scope="module")
def study() -> Study:
    return api.plan("llama-3.1-70b", **QUESTION, slos=("ttft<200ms", "ttft:p95<20ms"))


@pytest.fixture(scope="module")
def routed() -> Study:
    return api.plan("qwen3-30b-a3b", **{**QUESTION, "gpus": 4})


# ---- numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value,text",
    [
        (0.0433, "0.0433"),
        (13.02, "13.0"),
        (1234.5, "1,230"),
        (0.0, "0"),
        (9.999, "10.00"),
        (math.nan, "–"),
        (-5.5, "-5.50"),
    ],
)
def test_three_digits_without_exponents(value: float, text: str) -> None:
    assert sig(value) == text


def test_shares_and_changes() -> None:
    assert (percent(0.513), percent(0.0229), change(76, 100), change(1.0, 1.0), change(1.0, math.nan)) == (
        "51%",
        "2.3%",
        "−24%",
        "same",
        "–",
    )


@pytest.mark.parametrize("parts", [[1, 1, 1], [100, 0.01, 0], [0, 0, 5]])
def test_stacked_bars_have_their_width_and_hide_nothing(parts: list[float]) -> None:
    drawn = stacked(parts, 20, "abc")
    assert len(drawn) == 20 and set(drawn) == {glyph for glyph, part in zip("abc", parts) if part > 0}


def test_bars_and_sparklines() -> None:
    assert (bar(0.5, 4), bar(0.0, 4), sparkline([0, 1, 2]), sparkline([0, 0])) == ("██", "", "▁▅█", "▁▁")


# ---- text ----------------------------------------------------------------------------------------------------------


def test_the_report_has_all_its_parts(study: Study) -> None:
    text = render(study)
    words = ["answer", "also", "model", "cluster", "workload", "engine", "goal", "note", "layouts", "ranked", "p99", "memory", "MFU"]
    words += ["TTFT [ms]", "KV room", "in detail", "where GPU time goes", "cost data", "against", "launch", "then"]
    assert [word for word in words if word not in text] == []


def test_every_statistic_is_there_and_no_number_is_cut(study: Study) -> None:
    made = ranking(study, study.ranked, math.inf)
    heads = [column.title for column in made.columns]
    assert made.whole and all(any(name in head and "p99" in head for head in heads) for name in ("TTFT", "TPOT", "ITL", "E2E"))
    assert "…" not in "".join(cell for column in made.columns for cell in column.cells)


def test_plain_text_has_no_escapes_and_no_blanks_at_the_end(study: Study) -> None:
    text = render(study)
    assert "\x1b" not in text and not any(line != line.rstrip() for line in text.splitlines())


def test_colours_change_nothing_but_colours(study: Study) -> None:
    import re

    painted = render(study, width=140, color=True)
    bare = "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", painted).splitlines())
    assert "\x1b[" in painted and bare == render(study, width=140).rstrip("\n")


def test_plans_are_numbered_in_the_order_of_the_study(study: Study) -> None:
    made = ranking(study, study.ranked, math.inf).columns
    assert made[0].cells == tuple(str(i + 1) for i in range(len(study.ranked)))


def test_the_funnel_adds_up_in_plain_words(study: Study) -> None:
    import re

    line = funnel_line(study)
    whole, *parts = (int(n) for n in re.findall(r"\b\d+\b", line.split(";")[0]))
    assert whole == sum(parts) and "20 repeat other layouts" in line and "vllm can start 9 of these" in line


def test_the_nearest_misses_come_first(study: Study) -> None:
    import re

    short = [float(re.search(r"([\d.]+) GiB short", r.reason)[1]) for r in nearest_misses(study.rejected)]  # type: ignore[index]
    assert short and short == sorted(short)


def test_memory_lines_add_up_to_the_gpu(study: Study) -> None:
    best = study.ranked[0]
    total = study.setting.cluster.gpu.memory_bytes
    assert sum(size for _, size in best.room.ledger) == pytest.approx(total) and "GiB" in memory_rows(best.only)[0][1]


def test_time_by_class_adds_up_to_the_busy_time(study: Study) -> None:
    for ranked in study.ranked:
        assert sum(gpu_seconds(ranked).values()) == pytest.approx(ranked.account.busy * ranked.plan.stage_devices, rel=0.03)


def test_the_rival_is_the_heuristic_plan_unless_that_wins(study: Study) -> None:
    heuristic = next(r for r in study.ranked if r.plan.shorthand == study.heuristic)
    other = next(r for r in study.ranked if r is not heuristic)
    assert rival_of(study, other) is heuristic and rival_of(study, heuristic) is not heuristic


def test_a_simulated_plan_is_reported_without_a_funnel() -> None:
    text = render(api.simulate("llama-3.1-70b", "PP2×TP4", **QUESTION))
    assert "simulated" in text and "layouts" not in text and "PP2×TP4 in detail" in text and "2 with 40 + 40 layers" in text


# ---- layouts -------------------------------------------------------------------------------------------------------


def test_layouts_name_cells_and_collectives(study: Study) -> None:
    tp8 = next(r for r in study.ranked if r.plan.shorthand == "TP8")
    (layer,) = layouts(study.setting, tp8.plan, tp8.only.stages)
    assert [c["layout"] for c in layer["cells"]] == ["TP8", "TP8"] and layer["layers"] == 80
    assert [(m["kind"], m["per_layer"], m["group"]) for m in layer["collectives"]] == [("all_reduce", 2, 8)]


def test_layouts_of_experts_and_stages_are_told(routed: Study) -> None:
    for ranked in (*routed.ranked, *routed.hypothetical):
        assert "experts" in layout_rows(routed.setting, ranked.only)[0][1]


# ---- JSON ----------------------------------------------------------------------------------------------------------


def test_json_has_the_promised_keys(study: Study) -> None:
    found = study_json(study)
    assert set(found) >= {"format", "inputs", "funnel", "ranked", "rejected", "notes"}
    assert set(found["ranked"][0]) >= {
        "plan", "shorthand", "value", "ratio_to_heuristic", "keeps_constraints", "tie_with_best", "room", "metrics",
        "account", "provenance", "layout", "launch",
    }  # fmt: skip


def test_json_is_plain_and_finite(study: Study) -> None:
    text = dumps(study_json(study))
    assert json.loads(text) == study_json(study) and "NaN" not in text and "Infinity" not in text


def test_json_reads_back_every_plan(study: Study) -> None:
    assert [parse_plan(r["shorthand"]) for r in study_json(study)["ranked"]] == [r.plan for r in study.ranked]


def test_what_is_not_finite_becomes_null() -> None:
    assert clean({"a": (math.nan, math.inf, 1.5, True, None), 3: "x"}) == {"a": [None, None, 1.5, True, None], "3": "x"}


# ---- what to type next ----------------------------------------------------------------------------------------------


def test_what_to_type_next_can_be_typed(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    typed = again("simulate", study.inputs, {"nodes": 1, "seed": 0}, plan="2×TP4", slos=("ttft<1s",))
    assert "--nodes" not in typed and "--plan 2xTP4" in typed and "--slo ttft=1s" in typed and "'" not in typed
    assert main([*shlex.split(typed)[1:], "--json", "-"]) == 0 and json.loads(capsys.readouterr().out)["ranked"]
