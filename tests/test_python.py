"""Who asks in Python: signatures that say all, answers that show themselves, messages without options, columns as requests."""

from __future__ import annotations

import inspect
import json
import runpy
import subprocess
import sys
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apexsim
from apexsim import api
from apexsim.cli.rows import Opt, options_of
from apexsim.report.renderers import page_of
from apexsim.views import spoken
from apexsim.workload.given import workload_of

ROOT = Path(__file__).parent.parent
ASKED: dict[str, Any] = {"gpu": "l4:2", "prompt_len": 100, "output_len": 10, "num_requests": 20, "request_rate": 2.0}
VERBS = ("plan", "simulate", "sweep", "size", "fit", "models", "gpus", "workloads", "calibrate")


@pytest.fixture(scope="module")
def study() -> Any:
    return apexsim.plan("llama-3.1-8b", **ASKED, ttft=500)


# ---- signatures ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_every_keyword_with_its_meaning(verb: str) -> None:
    function = getattr(apexsim, verb)
    assert inspect.isfunction(function) and function.__module__ == "apexsim.verbs"
    parameters = inspect.signature(function).parameters
    if verb not in ("models", "gpus", "workloads", "calibrate"):
        assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        assert [name for name in parameters if f"    {name}: " not in function.__doc__] == []
    else:
        assert function.__doc__


def test_the_verbs_are_what_the_table_of_options_says() -> None:
    pytest.importorskip("ruff")
    made = runpy.run_path(str(ROOT / "scripts/verbs.py"))["source"]()
    assert made == (ROOT / "src/apexsim/verbs.py").read_text(encoding="utf-8"), "run: python scripts/verbs.py > src/apexsim/verbs.py"


def test_every_keyword_of_the_question_has_its_place() -> None:
    own = set(inspect.signature(api.ask).parameters)
    for verb in ("plan", "simulate", "sweep"):
        assert own - set(inspect.signature(getattr(apexsim, verb)).parameters) == (set(api.SEARCHED) if verb == "simulate" else set())


def test_packages_that_are_verbs_are_still_packages() -> None:
    code = ("import apexsim, apexsim.plan.space as s, sys; from apexsim.plan.plan import Plan; from apexsim.calibrate.fit import fit; "
            "assert callable(apexsim.plan) and apexsim.plan.space is s and callable(apexsim.calibrate); print('ok')")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "ok\n"


def test_types_are_for_everyone() -> None:
    assert (ROOT / "src/apexsim/py.typed").exists()


# ---- answers ------------------------------------------------------------------------------------------------------------------


def test_an_answer_is_three_lines_and_a_page(study: Any) -> None:
    assert len(repr(study).splitlines()) == 3 and len(repr(study)) < 1200 and "keeps ttft:p95=500ms" in repr(study)
    page = study._repr_html_()
    assert page.count("<tr>") == len(study.ranked) + 1 and "<script" not in page and len(page) < 20_000


def test_names_of_foreign_origin_are_escaped_in_pages() -> None:
    name = "<script>alert(1)</script>"
    shown = apexsim.simulate({**SMALL, "_name_or_path": name}, "TP1", gpu="l4:1", prompt_len=5, output_len=2, num_requests=2)
    assert name not in shown._repr_html_() and "&lt;script&gt;" in shown._repr_html_()


def test_tables_have_a_row_for_each_plan_combination_and_cluster(study: Any) -> None:
    pandas = pytest.importorskip("pandas")
    table = study.table()
    assert isinstance(table, pandas.DataFrame) and list(table["plan"]) == [run.plan.shorthand for run in study.ranked]
    assert table["ttft_p95_ms"][0] == pytest.approx(study.best.metrics.ttft.p95 * 1e3)
    swept = apexsim.sweep("llama-3.1-8b", **{**ASKED, "gpu": ["l4", "l40s"]}, gpus=1)
    assert list(swept.table()["gpu"]) == ["l4", "l40s"] and len(repr(swept).splitlines()) == 3
    sized = apexsim.size("llama-3.1-8b", gpu="l4", gpus=1, prompt_len=100, output_len=10, num_requests=40, slos="ttft:p95=500ms")
    assert sized.table()["value"][0] == sized.best.value and len(repr(sized).splitlines()) == 3


def test_without_pandas_a_table_is_a_list_of_dicts(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert [row["plan"] for row in study.table()] == [run.plan.shorthand for run in study.ranked]


def test_requests_are_columns_that_agree_with_the_metrics(study: Any) -> None:
    found = study.requests()
    assert len(found["sent_s"]) == 20
    ttft = np.asarray(found["first_s"]) - np.asarray(found["sent_s"])
    assert ttft.mean() == pytest.approx(study.ranked[0].metrics.ttft.mean)


def test_a_study_has_a_picture(study: Any) -> None:
    pytest.importorskip("matplotlib")
    axes = study.plot().axes[0]
    assert len(axes.lines) == len(study.ranked) and axes.get_xlabel().startswith("output tokens/s of each user")


def test_fit_and_catalogues_answer() -> None:
    assert apexsim.fit("llama-3.1-8b", gpu="l4:1", max_model_len=8192).plan.shorthand == "TP1"
    assert apexsim.gpus("h100")[0]["name"].startswith("h100") and apexsim.models("llama") and apexsim.workloads()


# ---- models, GPUs and requests by hand ------------------------------------------------------------------------------------------

SMALL = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "num_hidden_layers": 2, "vocab_size": 512,
         "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512, "max_position_embeddings": 4096}  # fmt: skip


def test_a_model_and_a_gpu_are_dicts() -> None:
    gpu = {"base": "h100-sxm", "name": "mine", "memory": {"total_gib": 60}}
    found = apexsim.simulate({**SMALL, "_name_or_path": "tiny"}, "TP1", gpu=gpu, gpus=1, prompt_len=10, output_len=3, num_requests=3)
    assert found.setting.model.name == "tiny" and found.setting.cluster.gpu.name == "mine"
    assert (found.inputs["model"], found.inputs["gpu"]) == ("tiny", "mine")


@pytest.mark.parametrize("given", [
    [(0.0, 10, 3), (1.0, 20, 4), (2.5, 30, 5)],
    {"arrive": [0.0, 1.0, 2.5], "prompt": [10, 20, 30], "output": [3, 4, 5]},
    {"timestamp": np.array([1.0, 0.0, 2.5]), "input_tokens": np.array([20, 10, 30]), "output_tokens": np.array([4, 3, 5])},
    {"time": np.array(["2026-01-01T00:00:00", "2026-01-01T00:00:01", "2026-01-01T00:00:02.5"], "M8[ms]"), "isl": [10, 20, 30],
     "osl": [3, 4, 5]},
])  # fmt: skip
def test_requests_come_as_columns_or_rows(given: Any) -> None:
    work = workload_of(given)
    assert work.arrive == pytest.approx([0.0, 1.0, 2.5])
    assert (work.prompt.tolist(), work.output.tolist(), work.mode) == ([10, 20, 30], [3, 4, 5], "open")
    assert apexsim.simulate("llama-3.1-8b", "TP1", gpu="l4:1", trace=given).ranked[0].metrics.completed == 3


def test_a_dataframe_is_a_trace_and_without_times_all_come_at_once() -> None:
    pandas = pytest.importorskip("pandas")
    work = workload_of(pandas.DataFrame({"prompt": [10, 20], "output": [3, 4]}))
    assert work.mode == "offline" and work.arrive.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("given", [
    {"prompt": [10]}, {"prompt": [10, 0], "output": [1, 1]}, {"prompt": [1.5], "output": [1]}, {"prompt": ["x"], "output": [1]},
    {"prompt": [10], "output": [1, 2]}, {"prompt": [], "output": []}, [(1,)], ["ab"], [],
    {"arrive": [np.nan], "prompt": [1], "output": [1]},
    {"arrive": [0.0, 1.0], "prompt": [1], "output": [1]},
])  # fmt: skip
def test_columns_that_are_no_requests_are_one_line(given: Any) -> None:
    with pytest.raises(apexsim.Error) as error:
        apexsim.plan("llama-3.1-8b", gpu="l4:1", trace=given)
    assert "\n" not in str(error.value) and str(error.value).startswith("trace: ")


# ---- messages -----------------------------------------------------------------------------------------------------------------

WRONG: list[dict[str, Any]] = [
    {"gpu": "l4"}, {"gpu": "nothing:1"}, {"burstiness": 2.0, "request_rate": None}, {"objective": "speed"}, {"slos": "ttft"},
    {"risk": 0.9}, {"engine": "nothing"}, {"prompt_len": "x"}, {"power_cap": -1.0}, {"route": "x"}, {"settings": {"nothing": 1}},
    {"ttft": "soon"}, {"tp": 3}, {"price": "x"}, {"workload": "nothing", "prompt_len": None, "output_len": None},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_messages_speak_of_keywords(wrong: dict[str, Any]) -> None:
    with pytest.raises(apexsim.Error) as error:
        apexsim.plan("llama-3.1-8b", **{**ASKED, **wrong})
    assert "--" not in str(error.value) and "\n" not in str(error.value)


BOUNDED = [(verb, opt) for verb in ("plan", "simulate", "sweep", "size", "fleet", "fit")
           for opt in options_of("plan" if verb == "sweep" else verb)
           if opt.name in inspect.signature(getattr(apexsim, verb)).parameters and isfinite(opt.least)]  # fmt: skip


@pytest.mark.parametrize(("verb", "opt"), BOUNDED, ids=lambda x: getattr(x, "name", x))
def test_numbers_have_the_bounds_that_options_have(verb: str, opt: Opt) -> None:
    """Python takes what the command line takes, no more: zero turns made sessions of nothing."""
    for value in (opt.least if opt.above else opt.least - 1, opt.most + 1 if isfinite(opt.most) else opt.least - 2):
        number = int(value) if opt.type in (int, list[int]) else value
        with pytest.raises(apexsim.InputError, match=r"expected .*number") as told:
            getattr(apexsim, verb)("llama-3.1-8b", **{"gpu": "h100:1", opt.name: number})
        assert "--" not in str(told.value)


def test_options_become_keywords() -> None:
    assert spoken("add --request-rate R, or --slo ttft:p95=1s") == "add request_rate=R, or slos ttft:p95=1s"


def test_both_kinds_of_error_have_one_base() -> None:
    assert issubclass(apexsim.InputError, apexsim.Error) and issubclass(apexsim.Infeasible, apexsim.Error)
    with pytest.raises(apexsim.Error):
        apexsim.plan("llama-3.1-405b", gpu="l4:1", prompt_len=10, output_len=2)


# ---- the notebook ---------------------------------------------------------------------------------------------------------------


def test_the_cells_of_the_notebook_give_what_they_show() -> None:
    pytest.importorskip("pandas"), pytest.importorskip("matplotlib")
    path = ROOT / "docs/notebook.ipynb"
    made = runpy.run_path(str(ROOT / "scripts/notebook.py"))["executed"]()
    held = json.loads(path.read_text(encoding="utf-8"))
    assert [cell["source"] for cell in held["cells"]] == [cell["source"] for cell in made["cells"]], "run: python scripts/notebook.py"
    for cell, again in zip(held["cells"], made["cells"]):
        for output, told in zip(cell.get("outputs", ()), again.get("outputs", ()), strict=True):
            text = output.get("text") or output["data"].get("text/plain")
            assert text == (told.get("text") or told["data"].get("text/plain"))


def test_steps_are_columns_and_account_for_every_prompt_token() -> None:
    asked = {"gpu": "l40s", "gpus": 2, "prompt_len": 300, "output_len": 30, "num_requests": 3000, "request_rate": 20.0}
    sampled, whole = (apexsim.simulate("llama-3.1-8b", "2xTP1", **asked, steps=steps) for steps in (False, True))
    assert sampled.ranked[0].metrics == whole.ranked[0].metrics
    few, every = ({name: np.asarray(study.steps()[name]) for name in study.steps()} for study in (sampled, whole))
    assert len(few["start_s"]) <= 2048 < len(every["start_s"]) and few.keys() == every.keys()
    assert every["prompt_tokens"].sum() == 300 * 3000 and set(every["replica"]) == {0, 1}
    assert (np.diff(every["start_s"]) >= 0).all() and (every["duration_s"] >= 0).all() and every["kv_share"].max() <= 1.0
    end = max(np.asarray(whole.requests()["finish_s"]))
    assert (every["start_s"] + every["duration_s"]).max() == pytest.approx(end)


# ---- whatever a keyword is given -----------------------------------------------------------------------------------------

WRONG = (object(), b"x", 10**400, -(10**400), float("nan"), float("inf"), "", "\x00", [None], [[]], {}, {"a": {}}, (), True, 1j, range(3))


@pytest.mark.parametrize("verb", ["plan", "simulate", "sweep", "size", "fleet", "fit", "calibrate"])
def test_a_keyword_takes_what_it_says_or_refuses_in_words(verb: str) -> None:
    """Every keyword with what it cannot mean: an answer, or an error of the project's own."""
    call = getattr(apexsim, verb)
    usual: dict[str, Any] = {"results": "no-such-file.json"} if verb == "calibrate" else {"model": "no-such-model", "gpu": "l4"}
    usual = {"model": "llama-3.1-8b", "gpu": "l4:1"} if verb == "fit" else usual
    names = [name for name, one in inspect.signature(call).parameters.items() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    for name in names:
        for value in WRONG:
            with suppress(apexsim.Error):
                call(**{**usual, name: value})


@pytest.mark.parametrize("what", ["models", "gpus", "workloads"])
def test_a_catalogue_takes_a_text(what: str) -> None:
    for value in (5, None, b"x", ["a"]):
        with pytest.raises(apexsim.InputError, match="expected a text"):
            getattr(apexsim, what)(value)


# ---- every answer shows itself ---------------------------------------------------------------------------------------------------


ANSWERS = {
    "plan": lambda: apexsim.plan("llama-3.1-8b", **ASKED),
    "sweep": lambda: apexsim.sweep("llama-3.1-8b", **{**ASKED, "request_rate": [1.0, 2.0]}),
    "size": lambda: apexsim.size("llama-3.1-8b", **{**ASKED, "request_rate": None, "num_requests": 200, "ttft": 900}),
    "fleet": lambda: apexsim.fleet("llama-3.1-8b", gpu="l4:2", trace="example:creation", every="10min", ttft="2s", policy="fixed"),
    "fit": lambda: apexsim.fit("llama-3.1-8b", gpu="l4:2"),
    "no fit": lambda: apexsim.fit("llama-3.1-70b", gpu="l4:2"),
    "calibrate": lambda: apexsim.calibrate([str(ROOT / "examples/minimax-h200-runs.json")], gpu="h200"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_answer_has_three_lines_a_page_rows_a_picture_and_a_report(kind: str) -> None:
    answer = ANSWERS[kind]()
    lines = repr(answer).splitlines()
    assert len(lines) == 3 and all(len(line) < 700 for line in lines) and "--" not in lines[1]
    assert answer._repr_html_().startswith("<div><b>") and len(answer.table()) >= 1
    assert len(apexsim.render(answer)) > len(lines[1]) and apexsim.render(answer, width=80, color=True)
    with suppress(ImportError):
        import matplotlib.figure

        assert isinstance(answer.plot(), matplotlib.figure.Figure)


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(apexsim.InputError, match="Fit has no such form; it is of answers: Study"):
        page_of(ANSWERS["fit"]())
    with pytest.raises(apexsim.InputError, match="int has no such form"):
        apexsim.render(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gpus", "gpu", "engine", "request_rate", "max_num_batched_tokens"])
def test_several_values_of_one_question_point_to_the_verb_that_compares_them(name: str) -> None:
    values = {
        "gpus": [1, 2],
        "gpu": ["h100", "l4"],
        "engine": ["vllm", "sglang"],
        "request_rate": [1, 2],
        "max_num_batched_tokens": [1024, 2048],
    }
    with pytest.raises(apexsim.InputError, match=f"{name}: expected .*, got list; apexsim.sweep compares several"):
        apexsim.plan("llama-3.1-8b", **{"gpu": "h100", "prompt_len": 100, "output_len": 10, name: values[name]})
    with pytest.raises(apexsim.InputError, match=r"apexsim\.sweep compares several"):
        apexsim.simulate("llama-3.1-8b", **{"gpu": "h100", "plan": "TP1", "prompt_len": 100, "output_len": 10, name: values[name]})
