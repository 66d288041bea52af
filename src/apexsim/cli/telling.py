"""An answer where it was asked for: JSON, pages, pictures, tables, each to its own place (floor 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from apexsim.cli.exchange import exchange
from apexsim.cli.files import STDOUT
from apexsim.cli.outside import deliver, page_size, write_atomic

if TYPE_CHECKING:
    from apexsim.report.renderers import Answer

DATA = ("json", "csv", "bench_json", "benchmark_report", "html", "perfetto")  # beside which standard output holds no page


def tell(answer: Answer, given: Mapping[str, Any]) -> None:
    """Every form of an answer that was asked for, and its page unless standard output holds data."""
    from apexsim.report.renderers import Look, pictured, rendered

    columns, color = page_size() if given["output"] in (None, STDOUT) else (None, False)
    look = Look(columns, color, given.get("top"), given.get("all", False))
    if given["json"] is not None:
        deliver(rendered(answer, "json", look), given["json"], "--json")
    if given.get("html") or given.get("plot"):
        answer = _with_curves(answer)
    if given.get("html"):
        deliver(rendered(answer, "html", look), given["html"], "--html")
    if given.get("plot"):
        write_atomic(given["plot"], pictured(answer, replace(look, file=given["plot"])), "--plot")
    exchange(answer, given)
    if given["output"] is not None or not any(given.get(name) == STDOUT for name in DATA):
        deliver(rendered(answer, "text", look), given["output"] or STDOUT, "--output")


def _with_curves(answer: Answer) -> Answer:
    """The answer with what its charts need and its text does not."""
    from apexsim.search.curve import with_curves
    from apexsim.search.study import Study

    return with_curves(answer) if isinstance(answer, Study) else answer
