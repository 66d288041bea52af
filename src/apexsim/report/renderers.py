"""Every form in which an answer is told, one row each: a renderer sees the answer, how it is to look, and nothing else (floor 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from apexsim.errors import InputError
from apexsim.report.plain import dumps

if TYPE_CHECKING:
    from apexsim.calibrate.run import Calibration
    from apexsim.plan.sized import Fit
    from apexsim.report.blocks import Page
    from apexsim.search.fleet import Fleet
    from apexsim.search.size import Size
    from apexsim.search.study import Study
    from apexsim.search.sweep import Sweep
    from apexsim.search.together import SharedFleet

    Answer = Study | Sweep | Size | Fleet | SharedFleet | Fit | Calibration


@dataclass(frozen=True, slots=True)
class Look:
    """How an answer is to look.  width: columns of the terminal, if any; top: rows shown, None: as many as usual; everything: every row;
    file: where a picture goes, whose suffix says of which kind it is."""

    width: int | None = None
    color: bool = False
    top: int | None = None
    everything: bool = False
    file: str = ""


class Views(NamedTuple):
    """Which function of which module of this folder tells an answer; loaded when it is asked for, since most are not."""

    text: str  # a page for the terminal
    plain: str  # values for JSON
    page: str  # a Page for a browser


VIEWS = {  # type of answer -> where it is told
    "Study": Views("text.render", "jsonout.study_json", "webstudy.page_of"),
    "Sweep": Views("sweep.render", "sweep.sweep_json", "weblists.page_of_sweep"),
    "Size": Views("sizepage.render", "sizepage.size_json", "weblists.page_of_size"),
    "Fleet": Views("fleetpage.render", "fleetpage.fleet_json", "webfleet.page_of_fleet"),
    "SharedFleet": Views("sharedpage.render", "sharedpage.shared_json", "webfleet.page_of_shared"),
}
PRINTED = {  # answers that have no page for a browser
    "Fit": {"text": "ledger.render", "plain": "ledger.fit_json"},
    "Calibration": {"text": "calibratepage.render", "plain": "calibratepage.calibration_json"},
}
RENDERERS: dict[str, Callable[[Answer, Look], str]] = {
    "text": lambda answer, look: str(_told(answer, "text", **_given(look))),
    "json": lambda answer, look: dumps(_told(answer, "plain")),
    "html": lambda answer, look: str(_loaded("html.page")(page_of(answer))),
}


def _given(look: Look) -> dict[str, Any]:
    return {name: value for name, value in asdict(look).items() if value is not None and name != "file"}


def _loaded(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(".")
    found: Callable[..., Any] = getattr(import_module(f"apexsim.report.{module}"), function)
    return found


def _told(answer: Answer, view: str, **how: Any) -> Any:
    forms = {**PRINTED, **{kind: views._asdict() for kind, views in VIEWS.items()}}
    kind = type(answer).__name__
    if view not in forms.get(kind, ()):
        known = ", ".join(one for one, views in forms.items() if view in views)
        raise InputError(f"{kind} has no such form", "", f"it is of answers: {known}")
    return _loaded(forms[kind][view])(answer, **how)


def render(answer: Answer, *, width: int | None = None, color: bool = False, top: int | None = None, everything: bool = False) -> str:
    """The whole report of any answer as text.  width: columns of the terminal, if any; color: with ANSI codes; top: rows shown, as many
    as usual without; everything: every row with every statistic.  Raises InputError for what is no answer."""
    return rendered(answer, "text", Look(width, color, top, everything))


def page_of(answer: Answer) -> Page:
    """An answer as a page, before it is HTML or a picture."""
    page: Page = _told(answer, "page")
    return page


def rendered(answer: Answer, form: str, look: Look) -> str:
    """An answer in one of the forms."""
    return RENDERERS[form](answer, look)


def pictured(answer: Answer, look: Look) -> bytes:
    """An answer as a picture of the kind of its file."""
    picture: bytes = _loaded("plot.drawn")(page_of(answer), look.file)
    return picture
