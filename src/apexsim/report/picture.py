"""Pictures: a figure that can be drawn here, and what its file holds (floor 6)."""

from __future__ import annotations

import io
import logging
from typing import Any

from apexsim.errors import InputError, shown
from apexsim.examples import expanded

HINT = "use .png, .svg or .pdf"


def figure(path: str, size: tuple[float, float] = (10, 6)) -> Any:
    """An empty matplotlib figure of a size [inch] for the file `path`; raises InputError where none can be made, or none of its kind."""
    try:
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it cannot keep its fonts it does without
        from matplotlib.figure import Figure

        made = Figure(figsize=size, layout="constrained")
    except ImportError:
        raise InputError("pictures need matplotlib", "--plot", "pip install 'apexsim[plot]'") from None
    except Exception as error:  # its settings are read when it is loaded: MPLBACKEND, a matplotlibrc
        told = " ".join(str(error).split())[:200]
        raise InputError(f"matplotlib cannot be used: {told}", "--plot", "see MPLBACKEND and matplotlibrc") from None
    kind = _kind(path)
    if kind not in made.canvas.get_supported_filetypes():
        raise InputError(f"cannot write the picture '{path}': no kind of picture is called '.{kind}'", "--plot", HINT)
    return made


def titled(drawing: Any, text: str) -> None:
    """A title of foreign words: they are shown, not read as mathematics."""
    drawing.suptitle(shown(text), parse_math=False)


def picture(drawing: Any, path: str) -> bytes:
    """What the file of a picture holds; its kind follows from the name.  Raises InputError where it cannot be drawn."""
    held = io.BytesIO()
    try:
        drawing.savefig(held, dpi=120, format=_kind(path))
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"the picture cannot be drawn: {error}", "--plot", HINT) from None
    return held.getvalue()


def _kind(path: str) -> str:
    return expanded(path).suffix[1:].lower() or "png"
