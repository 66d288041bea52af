"""Workloads by name: what is drawn has the lengths that the source has, at every door, from a seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import apexsim
from apexsim.cli.main import main
from apexsim.errors import InputError
from apexsim.workload.made import made
from apexsim.workload.presets import drawn, preset_of, presets
from apexsim.workload.stream import read_trace
from apexsim.workload.synth import Coming, like

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("chat", "rag", "code", "summary", "agent", "reasoning")
ASKED = {"gpu": "h100:1", "num_requests": 64}
OWN = '[mine]\nabout = "tickets"\npercent = [0, 50, 100]\nprompt = [10, 20, 90]\noutput = [1, 5, 7]\nrank_correlation = 0.5\n'


def ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values))


@pytest.mark.parametrize("name", list(presets()))
def test_what_is_drawn_is_what_the_table_says(name: str) -> None:
    preset = presets()[name]
    prompt, output = drawn(preset, 200_000, np.random.default_rng(1))
    for kind, lengths in (("prompt", prompt), ("output", output)):
        assert lengths.mean() == pytest.approx(preset.mean(kind), rel=0.02)
        assert np.percentile(lengths, (10, 50, 90)) == pytest.approx([preset.at(kind, p) for p in (10, 50, 90)], rel=0.04, abs=1)
        assert lengths.min() >= 1 and lengths.max() <= getattr(preset, kind)[-1]
        assert len(np.unique(lengths)) > 100  # a distribution, no constant
    assert np.corrcoef(ranks(prompt), ranks(output))[0, 1] == pytest.approx(preset.rank_correlation, abs=0.02)


def test_every_preset_says_where_it_is_from() -> None:
    assert set(NAMES) <= set(presets())
    for preset in presets().values():
        assert preset.about and preset.source and preset.url.startswith("https://") and preset.licence and preset.requests > 0


@pytest.mark.parametrize(("name", "file"), [("summary", "summarization_05.jsonl"), ("writing", "creation_05.jsonl")])
def test_a_preset_has_the_statistics_of_its_trace(name: str, file: str) -> None:
    found, preset = read_trace(EXAMPLES / file), presets()[name]
    for kind, lengths in (("prompt", found.prompt), ("output", found.output)):
        assert preset.mean(kind) == pytest.approx(lengths.mean(), rel=0.01)
        assert [preset.at(kind, p) for p in (5, 50, 95)] == pytest.approx(np.percentile(lengths, (5, 50, 95)), rel=0.02)
    assert preset.rank_correlation == pytest.approx(np.corrcoef(ranks(found.prompt), ranks(found.output))[0, 1], abs=0.01)


def test_the_published_means_of_traces_that_are_not_bundled() -> None:
    """Azure 2023 conversation 1,155 and 211, code 2,048 and 28; Mooncake tool and agent 8,596 and 182, conversation 12,035 and 343."""
    known = {"chat": (1155, 211), "code": (2048, 27.9), "agent": (8596, 182), "long-chat": (12035, 343)}
    for name, means in known.items():
        assert [presets()[name].mean(kind) for kind in ("prompt", "output")] == pytest.approx(means, rel=0.04)


def test_a_seed_gives_the_same_requests_at_every_rate() -> None:
    one, two, other = (like(presets()["chat"], 100, Coming(request_rate=rate), seed) for rate, seed in ((1.0, 3), (9.0, 3), (1.0, 4)))
    assert (one.prompt == two.prompt).all() and (one.output == two.output).all() and one.arrive[-1] == pytest.approx(9 * two.arrive[-1])
    assert (one.prompt != other.prompt).any()
    synth = made(100, request_rate=1.0, seed=3, like=presets()["chat"])
    assert (synth.prompt == one.prompt).all() and (synth.output == one.output).all()  # what is written is what is simulated


@pytest.mark.parametrize("load", [{}, {"request_rate": 2.0}, {"concurrency": 8}])
def test_a_question_with_a_preset(load: dict[str, float]) -> None:
    study = apexsim.simulate("llama-3.1-8b", plan="TP1", workload="code", seed=1, **ASKED, **load)
    assert study.inputs["workload"] == "code" and study.setting.workload.size == 64
    told = apexsim.render(study)
    assert "workload code" in told and "2,063 prompt and 29 output tokens" in told and "Azure LLM inference trace 2023" in told
    assert "not part of a workload preset" in told and "--workload code" in told  # the question again


@pytest.mark.parametrize("beside", ["--trace=examples/creation_05.jsonl", "--prompt-len=5", "--output-len=5", "--length-spread=0.1"])
def test_what_would_do_nothing_beside_a_preset_is_refused(beside: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.1-8b", "--gpu", "h100:1", "--workload", "chat", beside]) == 2
    assert "it has no effect" in capsys.readouterr().err


def test_a_seed_has_an_effect_on_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "synth", "--workload", "chat", "--seed", "3", "--num-requests", "2"]) == 0
    first = capsys.readouterr().out
    assert main(["trace", "synth", "--workload", "chat", "--seed", "4", "--num-requests", "2"]) == 0
    assert capsys.readouterr().out != first


def test_sizing_for_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "llama-3.1-8b", "--gpu", "h100:1", "--workload", "chat", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    users = told["users"]
    assert users["typical_source"] == "workload chat" and users["typical_prompt"] == pytest.approx(1147, rel=0.05)
    assert users["typical_output"] == pytest.approx(210, rel=0.05) and users["typical"] > users["full"]
    assert main(["fit", "llama-3.1-8b", "--gpu", "h100:1", "--workload", "chat", "--max-model-len", "4096"]) == 2
    assert "longer than the 4096 tokens" in capsys.readouterr().err


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workloads"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in NAMES)
    assert main(["workloads", "chat", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == "chat" and row["licence"] == "CC-BY-4.0" and row["prompt_tokens"]["p50"] == 1020
    assert main(["workloads", "articles"]) == 0 and "summary" in capsys.readouterr().out


# ---- files of one's own ---------------------------------------------------------------------------------------------


def test_a_file_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN, encoding="utf-8")
    mine = preset_of(str(path))
    assert (mine.name, mine.mean("prompt"), mine.mean("output")) == ("mine", 35.0, 4.5)
    assert main(["simulate", "llama-3.1-8b", "--plan", "TP1", "--gpu", "h100:1", "--workload", str(path), "--num-requests", "9"]) == 0
    assert "workload mine" in capsys.readouterr().out
    assert main(["workloads", str(path)]) == 0 and "tickets" in capsys.readouterr().out


BROKEN = {
    "no toml": ("{", "is not TOML"),
    "two tables": (OWN + "[other]\n", "holds one table"),
    "no table": ("percent = 3", "holds one table"),
    "unknown key": (OWN + "prompts = [1]\n", "unknown key 'prompts'; did you mean"),
    "no prompt": (OWN.replace("prompt = [10, 20, 90]\n", ""), "'prompt' must be a list"),
    "texts": (OWN.replace("[10, 20, 90]", '["a", "b", "c"]'), "'prompt' must be a list"),
    "falls": (OWN.replace("[10, 20, 90]", "[10, 9, 90]"), "'prompt' must rise"),
    "zero": (OWN.replace("[1, 5, 7]", "[0, 5, 7]"), "'output' must rise, from 1"),
    "not a number": (OWN.replace("[1, 5, 7]", "[1, 5, inf]"), "'output' must be a list"),
    "short": (OWN.replace("[1, 5, 7]", "[1, 5]"), "'output' has 2 lengths, 'percent' 3"),
    "percent": (OWN.replace("[0, 50, 100]", "[1, 50, 100]"), "'percent' must rise from 0 to 100"),
    "twice": (OWN.replace("[0, 50, 100]", "[0, 0, 100]"), "'percent' must rise from 0 to 100"),
    "correlation": (OWN.replace("0.5", "1.5"), "from -1 to 1"),
    "correlation text": (OWN.replace("0.5", '"high"'), "from -1 to 1"),
    "about": (OWN.replace('"tickets"', "3"), "'about' must be a text"),
    "requests": (OWN + "requests = -1\n", "'requests' must be a whole number"),
    "empty": ("", "holds one table"),
    "binary": ("\0", "binary"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_line(kind: str, tmp_path: Path) -> None:
    text, told = BROKEN[kind]
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        preset_of(str(path))
    assert told in f"{error.value.what}; {error.value.hint}"


def test_a_wrong_name_names_the_nearest() -> None:
    with pytest.raises(InputError, match="no workload is called 'chatt'"):
        preset_of("chatt")
    with pytest.raises(InputError, match="does not exist"):
        preset_of("nothing-here.toml")


def test_the_page_has_the_figures_of_the_file() -> None:
    page = (EXAMPLES.parent / "docs/traces.md").read_text(encoding="utf-8")
    for name, preset in presets().items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
        for kind in ("prompt", "output"):
            assert ", ".join(f"{v:,.0f}" for v in (preset.mean(kind), preset.at(kind, 50), preset.at(kind, 90))) in row
        assert preset.source in row and preset.licence in row


def test_what_is_sent_to_a_server_is_what_is_simulated() -> None:
    from apexsim.cli.replay import _workload

    given = {"workload": "chat", "request_rate": 2.0, "burstiness": None, "concurrency": None, "warmup": 1, "num_requests": 30, "seed": 5}
    sent = _workload("", given)
    asked = apexsim.simulate("llama-3.1-8b", plan="TP1", workload="chat", gpu="h100:1", request_rate=2.0, num_requests=30, seed=5, warmup=1)
    work = asked.setting.workload
    assert (sent.prompt == work.prompt).all() and (sent.output == work.output).all() and sent.warmup == work.warmup
    assert sent.arrive == pytest.approx(work.arrive)


def test_a_replay_takes_one_kind_of_requests(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["replay", "examples/creation_05.jsonl", "--workload", "chat", "--url", "http://localhost:1", "--model", "m"]
    assert main(words) == 2
    assert "give a trace to send, --workload NAME, or --compare FILE" in capsys.readouterr().err
