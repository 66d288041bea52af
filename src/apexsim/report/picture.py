"""Writing a picture without ever leaving half of one (floor 6)."""

from __future__ import annotations

from typing import Any

from apexsim.errors import InputError
from apexsim.examples import expanded


def saved(figure: Any, path: str) -> None:
    """Write a matplotlib figure to `path`, replacing it at once; raises InputError where it cannot be written."""
    target = expanded(path)
    aside = target.with_name(f".{target.name}.part")
    try:
        figure.savefig(aside, dpi=120, format=target.suffix[1:] or "png")
        aside.replace(target)
    except (OSError, ValueError) as error:
        aside.unlink(missing_ok=True)
        raise InputError(f"cannot write the picture '{path}': {error}", "--plot", "use .png, .svg or .pdf") from None
