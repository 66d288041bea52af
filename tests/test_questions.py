"""Twenty typical questions: one command gives the whole answer to each."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from apexsim.cli import main

ROOT = Path(__file__).parent.parent
QUESTIONS: list[dict[str, Any]] = tomllib.loads((ROOT / "examples/questions.toml").read_text(encoding="utf-8"))["question"]


def test_there_are_twenty_and_each_is_another() -> None:
    assert len(QUESTIONS) == 20 and len({q["run"] for q in QUESTIONS}) == len({q["asks"] for q in QUESTIONS}) == 20


@pytest.mark.parametrize("question", QUESTIONS, ids=[q["asks"][:50] for q in QUESTIONS])
def test_one_command_gives_the_answer(question: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word.replace("FOLDER", str(tmp_path / "out")) for word in shlex.split(question["run"])]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert re.search(question["says"], out), out[:2000]
    assert "fault" not in out
