"""A sample of the recorded questions is answered as it was; `make goldens` asks all of them.

Where an answer is meant to change, record again: python scripts/goldens.py record tests/golden/questions.json
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from goldens import answer, canonical, difference, kept_in, questions  # noqa: E402

KEPT = kept_in(ROOT / "tests/golden/questions.json")
SAMPLE = [row for row in KEPT[::11] if row["figures"].get("plans", 0) <= 40]  # large searches are left to `make goldens`


@pytest.mark.parametrize("row", SAMPLE, ids=[f"{row['number']} {row['ask'][0]}" for row in SAMPLE])
def test_an_answer_is_as_it_was(row: dict) -> None:
    assert difference(row, answer(row["ask"])) == "", " ".join(row["ask"])


def test_three_hundred_questions_ask_everything() -> None:
    commands, codes = Counter(row["ask"][0] for row in KEPT), Counter(row["code"] for row in KEPT)
    assert len(KEPT) == 300 and {"plan", "simulate", "fit", "models", "gpus", "engines", "trace", "apex"} <= set(commands)
    assert codes[0] > 180 and min(codes[2], codes[3], codes[4]) > 5
    words = {word for row in KEPT for word in row["ask"]}
    assert {"--quant", "--kv-cache-dtype", "--slo", "--objective", "--hypothetical", "--concurrency", "--trace", "--clock"} <= words


def test_questions_are_the_same_for_the_same_seed() -> None:
    one, two, other = questions(5), questions(5), questions(6)
    drawn = [[next(maker) for _ in range(20)] for maker in (one, two, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_difference_is_found_and_placed() -> None:
    before = answer(["fit", "llama-3.1-8b", "--gpu", "h100:1"])
    assert difference(before, before) == "" and before["code"] == 0 and before["parts"]
    part = next(iter(before["parts"]))
    told = difference(before, before | {"hash": "x", "parts": before["parts"] | {part: "y"}})
    assert told == f"differs in {part}" and "exit code 0 -> 2" in difference(before, before | {"hash": "x", "code": 2})
    assert canonical({"b": [1.00000000001, 2], "a": "x"}) == {"a": "x", "b": [1.0, 2]}
