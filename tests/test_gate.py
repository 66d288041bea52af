"""The fidelity gate covers every shipped file, and sees an error that has grown, a figure that is gone, a row not replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apexsim.validate.gate import FEW, FILES, SLACK, counts, key_figures, worse

VALIDATION = Path(__file__).parent.parent / "validation"
BEFORE = {"a.csv": {"coverage": 1.0, "vllm ttft_mean_ms median": 0.1}}


def test_every_shipped_file_is_replayed_and_recorded() -> None:
    recorded = json.loads((VALIDATION / "recorded.json").read_text(encoding="utf-8"))
    assert set(recorded) == set(FILES) == {f.name for f in VALIDATION.glob("*.csv")} - {"left_out.csv"}
    kinds = {name.split()[1] for figures in recorded.values() for name in figures if name != "coverage"}
    assert {"weights_gib", "kv_tokens", "power_w_per_gpu", "j_per_out_token", "out_tok_s_per_gpu", "ttft_mean_ms"} <= kinds


@pytest.mark.parametrize(
    ("now", "bad"),
    [
        (BEFORE, False), ({"a.csv": {"coverage": 1.0, "vllm ttft_mean_ms median": 0.1 + 0.9 * SLACK["median"]}}, False),
        ({"a.csv": {"coverage": 1.0, "vllm ttft_mean_ms median": 0.1 + 1.1 * SLACK["median"]}}, True), ({"a.csv": {"coverage": 1.0}}, True),
        ({"a.csv": {"coverage": 0.99, "vllm ttft_mean_ms median": 0.1}}, True), ({}, True),
        ({"a.csv": {"coverage": 1.0, "vllm ttft_mean_ms median": 0.01}, "b.csv": {"coverage": 0.5}}, False),
    ],
)  # fmt: skip
def test_the_gate_fails_when_an_error_grows(now: dict[str, dict[str, float]], bad: bool) -> None:
    assert bool(worse(BEFORE, now)) == bad


def row(predicted: float, metric: str = "ttft_mean_ms", measured: float = 1.0, status: str = "ok", **labels: str) -> dict[str, Any]:
    """A replayed row."""
    found = {"measured": measured, "predicted": predicted}
    return {"status": status, "labels": {"engine": "vllm", **labels}, "metrics": {metric: found}}


def test_figures_are_medians_and_shares_of_wrong_answers() -> None:
    rows = [row(1.1), row(0.8), row(1.0), row(9.0, suspect="1"), row(9.0, status="skipped"), row(9.0, origin="others")]
    rows += [row(1.0, "fits"), row(0.0, "fits"), row(1.0, "fits", 0.0), row(0.0, "fits", 0.0)]
    rows += [row(2.0, quality="primary, FP8 of giants"), row(3.0, engine="sglang", quality="primary", origin="inferencex")]
    found = key_figures({"rows": rows, "summary": {"coverage": 0.9}})
    assert found == {"coverage": 0.9, "vllm fits wrong": 0.5, "vllm ttft_mean_ms median": 0.1, "sglang ttft_mean_ms median": 2.0}
    assert not counts(rows[3]) and counts(rows[0])


def test_many_rows_are_held_to_their_tail_and_to_their_intervals() -> None:
    bar = {"interval": {"ttft_mean_ms": {"80": (0.5, 1.05)}}}
    rows = [row(1.0 + 0.01 * i) | bar for i in range(FEW - 2)] + [row(2.0, measured=1.5) | bar, row(2.0, measured=1.5) | bar]
    found = key_figures({"rows": rows, "summary": {"coverage": 1.0}})
    assert found["vllm ttft_mean_ms interval"] == pytest.approx(0.1) and 0.1 < found["vllm ttft_mean_ms p90"] < 0.4
    few = key_figures({"rows": rows[1:], "summary": {"coverage": 1.0}})
    assert not {"vllm ttft_mean_ms interval", "vllm ttft_mean_ms p90"} & set(few)
