"""Memory grows with the requests by so many bytes each, whatever is done with them: ten million fit in 2 GB."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from apexsim import api
from apexsim.report.text import render
from apexsim.workload.describe import describe
from apexsim.workload.stream import read_trace

SMALL, LARGE = 5_000, 20_000
MOST = 180.0  # byte of a request: 1.8 GB of ten million, beside 0.12 GB of the program


def table(folder: Path, rows: int, hashes: bool) -> Path:
    path = folder / f"{rows}{hashes}"
    with path.open("w", encoding="utf-8") as file:
        if not hashes:
            file.write("arrived_at,num_prefill_tokens,num_decode_tokens\n")
            file.writelines(f"{n / 10},{100 + n % 1900},{10 + n % 29}\n" for n in range(rows))
        for n in range(rows if hashes else 0):
            file.write(f'{{"timestamp": {n * 100}, "input_length": 1000, "output_length": 9, "hash_ids": [{n % 7}, {n}]}}\n')
    return path


def peak(action) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def per_request(action, folder: Path, hashes: bool = False) -> float:
    """Bytes that each further request costs at the peak."""
    small, large = table(folder, SMALL, hashes), table(folder, LARGE, hashes)
    action(small)  # what is compiled and loaded once
    return (peak(lambda: action(large)) - peak(lambda: action(small))) / (LARGE - SMALL)


def simulated(path: Path) -> None:
    asked = {"plan": "2xTP1", "gpu": "h100:2", "slos": ("ttft=1s", "itl=20ms", "e2e:p95=9s")}  # the heuristic plan stands beside it
    render(api.simulate("llama-3.1-8b", trace=str(path), **asked))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read at once, which does not grow with the file, is small beside these files."""
    monkeypatch.setattr("apexsim.workload.stream.BLOCK", 1 << 14)


@pytest.mark.parametrize("hashes", [False, True])
def test_a_simulated_trace(tmp_path: Path, hashes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apexsim.search.evaluate.GAP_LIMIT", 0)  # as with a million requests and more
    assert (
        per_request(simulated, tmp_path, hashes) < MOST + 260.0 * hashes
    )  # two ids and an edge, and what the caches of two replicas know of them


def test_a_trace_of_equal_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apexsim.search.evaluate.GAP_LIMIT", 0)
    head, row = "arrived_at,num_prefill_tokens,num_decode_tokens\n", "%d,100,9\n"  # every statistic lies in one bracket

    def equal(path: Path) -> None:
        rows = SMALL if str(SMALL) in path.name else LARGE
        path.write_text(head + "".join(map(row.__mod__, range(0, 9 * rows, 9))), encoding="utf-8")
        simulated(path)

    assert per_request(equal, tmp_path) < MOST


def test_a_trace_that_is_read(tmp_path: Path) -> None:
    assert per_request(read_trace, tmp_path) < 48.0
    assert per_request(lambda path: describe(read_trace(path)), tmp_path) < 90.0


def test_prefix_blocks_are_held_as_one_array(tmp_path: Path) -> None:
    assert per_request(read_trace, tmp_path, hashes=True) < 110.0
