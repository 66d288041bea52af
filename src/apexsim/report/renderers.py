"""Every form in which an answer is told, one row each: a renderer sees the answer, how it is to look, and nothing else (floor 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from apexsim.report import fleetpage, html, plot, sizepage, sweep, text, webfleet, weblists, webstudy
from apexsim.report.blocks import Page
from apexsim.report.jsonout import study_json
from apexsim.report.plain import dumps
from apexsim.search.fleet import Fleet
from apexsim.search.size import Size
from apexsim.search.study import Study
from apexsim.search.sweep import Sweep


@dataclass(frozen=True, slots=True)
class Look:
    """How an answer is to look.  width: columns of the terminal, if any; top: rows shown, None: as many as usual; everything: every row;
    file: where a picture goes, whose suffix says of which kind it is."""

    width: int | None = None
    color: bool = False
    top: int | None = None
    everything: bool = False
    file: str = ""


Answer = Study | Sweep | Size | Fleet
Renderer = Callable[[Any, Look], str]
PAGES: dict[type, Callable[[Any], Page]] = {
    Study: webstudy.page_of,
    Sweep: weblists.page_of_sweep,
    Size: weblists.page_of_size,
    Fleet: webfleet.page_of_fleet,
}
RENDERERS: dict[str, dict[type, Renderer]] = {
    "text": {
        Study: lambda study, look: text.render(study, **_given(look)),
        Sweep: lambda found, look: sweep.render(found, **_given(look)),
        Size: lambda found, look: sizepage.render(found, **_given(look)),
        Fleet: lambda found, look: fleetpage.render(found, **_given(look)),
    },
    "json": {
        Study: lambda study, look: dumps(study_json(study)),
        Sweep: lambda found, look: dumps(sweep.sweep_json(found)),
        Size: lambda found, look: dumps(sizepage.size_json(found)),
        Fleet: lambda found, look: dumps(fleetpage.fleet_json(found)),
    },
    "html": {kind: lambda answer, look: html.page(page_of(answer)) for kind in PAGES},
}


def _given(look: Look) -> dict[str, Any]:
    return {name: value for name, value in asdict(look).items() if value is not None and name != "file"}


def page_of(answer: Answer) -> Page:
    """An answer as a page, before it is HTML or a picture."""
    return PAGES[type(answer)](answer)


def rendered(answer: Answer, form: str, look: Look) -> str:
    """An answer in one of the forms."""
    return RENDERERS[form][type(answer)](answer, look)


def pictured(answer: Answer, look: Look) -> bytes:
    """An answer as a picture of the kind of its file."""
    return plot.drawn(page_of(answer), look.file)
