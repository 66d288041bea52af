"""Several models on one cluster: laws of needs, of what is dealt out when it is short, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import apexsim
from apexsim.cli.main import main
from apexsim.errors import InputError
from apexsim.report.fleetpage import fleet_json
from apexsim.report.html import page as html_page
from apexsim.report.plain import dumps
from apexsim.report.schema import schema_of
from apexsim.report.sharedpage import render, shared_json
from apexsim.report.table import rows
from apexsim.report.webfleet import page_of_shared
from apexsim.search import together as shared
from apexsim.search.together import SharedFleet, dealt_out
from test_fleet import wave

WHOLE: dict[str, Any] = {"gpu": "l4", "every": 60.0, "policy": "instant,reactive,fixed"}
MODELS: dict[str, dict[str, Any]] = {
    "chat": {"model": "llama-3.1-8b", "trace": wave(3.0, 300.0), "slos": ("ttft:p95=2s", "tpot:p95=80ms"), "gpus": 1},
    "code": {"model": "qwen3-8b", "trace": wave(2.0, 300.0), "ttft": "2s", "gpus": 1, "begins": "2min", "priority": 1},
}
WANTED = st.lists(st.tuples(st.integers(0, 6), st.sampled_from((1, 2, 4, 8)), st.integers(0, 2)), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def found() -> SharedFleet:
    made: SharedFleet = apexsim.fleet(MODELS, gpus=4, **WHOLE)
    return made


# ---- who gets what -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(models=WANTED, gpus=st.integers(0, 60))
def test_what_is_dealt_fits_and_more_gpus_leave_no_more_short(models: list[tuple[int, int, int]], gpus: int) -> None:
    wanted, sizes, priorities = (list(column) for column in zip(*models))
    less, more = (dealt_out(wanted, sizes, priorities, n) for n in (gpus, gpus + 1))
    sums = [sum(n * size for n, size in zip(given_, sizes)) for given_ in (less, more)]
    assert sums[0] <= gpus and sums[0] <= sums[1]
    assert all(0 <= n <= most for n, most in zip(less, wanted))
    left = gpus - sums[0]
    assert all(n == most or size > left for n, most, size in zip(less, wanted, sizes))  # nothing lies idle that someone can use


@settings(deadline=None)
@given(models=WANTED, gpus=st.integers(0, 60))
def test_a_model_of_least_priority_takes_nothing_from_others(models: list[tuple[int, int, int]], gpus: int) -> None:
    wanted, sizes, priorities = (list(column) for column in zip(*models))
    with_it = dealt_out([*wanted, 3], [*sizes, 1], [*priorities, -1], gpus)
    assert with_it[:-1] == dealt_out(wanted, sizes, priorities, gpus)


def test_equals_have_equal_shares() -> None:
    assert dealt_out([4, 8], [1, 1], [0, 0], 6) == [2, 4]
    assert dealt_out([4, 8], [1, 1], [0, 1], 6) == [0, 6]
    assert dealt_out([9, 1], [1, 1], [0, 0], 2) == [1, 1]  # each its first before any its second


# ---- answers -------------------------------------------------------------------------------------------------------------


def test_one_model_alone_has_the_answer_that_it_had() -> None:
    table = {name: value for name, value in MODELS["chat"].items() if name != "model"}
    alone = apexsim.fleet("llama-3.1-8b", **table, **WHOLE)
    shared = apexsim.fleet({"chat": MODELS["chat"]}, **WHOLE)
    one = shared.tenants[0]
    assert dumps(fleet_json(one.alone)) == dumps(fleet_json(alone))
    assert [str(c) for c in one.courses] == [str(c) for c in alone.courses]


def test_sums_conserve(found: SharedFleet) -> None:
    told = shared_json(found)
    assert told["begin_s"] == 120.0 and found.count == 3  # what two traces of five minutes have in common, two apart
    assert told["need"] == [sum(column) for column in zip(*(one["need"] for one in told["models"]))]
    assert told["lacking"] == [max(0, n - 4) for n in told["need"]]
    assert told["peak_gpus"] <= told["fixed_split_gpus"]
    for at, policy in enumerate(told["policies"]):
        given_ = np.sum([one["policies"][at]["given"] for one in told["models"]], axis=0)
        asked = np.sum([one["policies"][at]["asked"] for one in told["models"]], axis=0)
        assert (given_ == np.minimum(asked, 4)).all()  # replicas of one GPU: all of them are used
        assert policy["gpu_hours"] == pytest.approx(given_.sum() / 60.0)


def test_who_is_given_less_misses_and_who_comes_first_does_not(found: SharedFleet) -> None:
    chat, code = found.tenants
    short = found.lacking(found.need) > 0
    assert short.any(), "the case is meant to be short"
    assert code.courses[0].kept.all() and (chat.courses[0].kept == ~short).all()


def test_the_order_of_the_models_does_not_matter(found: SharedFleet) -> None:
    other = apexsim.fleet(dict(reversed(MODELS.items())), gpus=4, **WHOLE)
    assert dumps(shared_json(other)) == dumps(shared_json(found))


def test_more_gpus_are_never_short_by_more(found: SharedFleet) -> None:
    ample = apexsim.fleet(MODELS, gpus=64, **WHOLE)
    assert not ample.lacking(ample.need).any() and (ample.need == found.need).all()
    for one in ample.tenants:  # and then nobody notices the others
        part = slice(one.first, one.first + ample.count)
        for course, alone in zip(one.courses, one.alone.courses):
            assert (course.paid == alone.paid[part]).all() and (course.kept == alone.kept[part]).all()


def test_every_form_of_the_answer(found: SharedFleet) -> None:
    jsonschema.Draft202012Validator(schema_of("shared_fleet")).validate(json.loads(dumps(shared_json(found))))
    page = render(found, width=80, everything=True)
    assert max(map(len, page.splitlines())) <= 80 and "short in" in page
    assert html_page(page_of_shared(found)).count("<table") >= 3
    assert len(rows(found)) == 2 * 3 and "models" in str(found)


# ---- the file ------------------------------------------------------------------------------------------------------------

GOOD = '[chat]\nmodel = "llama-3.1-8b"\ntrace = "t.csv"\nttft = "2s"\n'
BAD = [
    ("", "no model stands in it"),
    ("x = [", "is not TOML"),
    ("gpus = 3\n" + GOOD, "stands outside of a table"),
    (GOOD + GOOD, "is not TOML"),  # two of one name
    (GOOD + 'gpu = "l4"', "is of the whole cluster"),
    (GOOD + "tttf = 3", "unknown key 'tttf'"),
    ('[chat]\nmodel = "llama-3.1-8b"\ntrace = 5\nttft = "1s"\n', "trace = 5 is not what was expected; write a text"),
    (GOOD + 'priority = "high"', "is not what was expected"),
    (GOOD + "max-num-seqs = true", "is not what was expected"),
    (GOOD + "max-num-seqs = 0", "of at least 1"),
    (GOOD + "begins = 7", "no whole number of intervals"),
    (GOOD.replace('model = "llama-3.1-8b"\n', ""), "no model is named"),
    (GOOD.replace('trace = "t.csv"\n', ""), "a model without a trace"),
    (GOOD.replace('ttft = "2s"\n', ""), "a model without a limit"),
    (GOOD.replace("llama-3.1-8b", "nonesuch"), "[chat]"),
    (GOOD + GOOD.replace("[chat]", "[late]") + 'begins = "20min"', "have no interval in common"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = wave(1.0, 120.0)
    lines = [f"{a},{p},{o}" for a, p, o in zip(work.arrive, work.prompt, work.output)]
    (tmp_path / "t.csv").write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *lines]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("text", "said"), BAD, ids=[said for _, said in BAD])
def test_a_file_that_makes_no_sense_is_refused_in_one_line(text: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "models.toml").write_text(text)
    assert main(["fleet", "models.toml", "--gpu", "l4:1", "--every", "1min"]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if "is running" not in line]
    assert len(told) == 1 and said in told[0]


def test_the_file_the_command_line_and_python_agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "models.toml").write_text(GOOD + "gpus = 1\nmax-num-seqs = 32\npriority = 2\n")
    words = ["fleet", "models.toml", "--gpu", "l4", "--gpus", "8", "--every", "1min", "--policy", "fixed", "--json"]
    assert main(words) == 0
    typed = json.loads(capsys.readouterr().out)
    python = json.loads(dumps(shared_json(apexsim.fleet("models.toml", gpu="l4", gpus=8, every="1min", policy="fixed"))))
    for each in (typed, python):
        each.pop("inputs")
        each["models"][0]["alone"].pop("inputs")
    assert typed == python and typed["gpus"] == 8 and typed["models"][0]["priority"] == 2


@pytest.mark.parametrize(("models", "said"), [
    ({"a": {**MODELS["chat"], "gpu": "l4"}}, "is of the whole cluster"), ({"a": {**MODELS["chat"], "nope": 1}}, "unknown keyword"),
    ({"a": {"model": "llama-3.1-8b", "ttft": "1s"}}, "without a trace"), ({"a": {**MODELS["chat"], "priority": 0.5}}, "no whole number"),
])  # fmt: skip
def test_python_refuses_as_much(models: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        apexsim.fleet(models, **WHOLE)


def test_several_kinds_of_gpu_are_refused() -> None:
    with pytest.raises(InputError, match="one kind"):
        apexsim.fleet(MODELS, **{**WHOLE, "gpu": "l4,l40s"})


def test_traces_without_a_common_interval_are_refused_before_anything_is_simulated(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def followed(*_: Any, **__: Any) -> None:
        raise AssertionError("simulated")

    monkeypatch.setattr(shared, "followed_alone", followed)
    (folder / "models.toml").write_text(GOOD + GOOD.replace("[chat]", "[late]") + 'begins = "20min"')
    assert main(["fleet", "models.toml", "--gpu", "l4:1", "--every", "1min"]) == 2
    assert "have no interval in common" in capsys.readouterr().err
    with pytest.raises(InputError, match="have no interval in common"):
        apexsim.fleet("models.toml", gpu="l4:1", every="1min")
