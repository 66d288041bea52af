"""Command lines that tests vary: a word that is given again takes the place of the one before."""

from __future__ import annotations

from collections.abc import Sequence

OFTEN = ("--slo", "--goodput")  # which may be repeated


def varied(words: Sequence[str]) -> list[str]:
    """The words, of an option that stands twice only the last, with its value."""
    made: list[str] = []
    for at, word in enumerate(words):
        before = words[at - 1] if at else ""
        value = before.startswith("--") and "=" not in before and not str(word).startswith("--")
        option = before if value else word
        again = option.startswith("--") and option not in OFTEN and option in words[at + 1 :]
        made += [] if again else [word]
    return made
