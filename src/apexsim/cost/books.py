"""Price books: what an hour of a GPU costs, in one book for all GPUs (floor 3).

The usual book is the one that prices the most GPUs of the catalogue, whatever GPU is asked about: prices of several
books do not compare, since some are rent and some are what owning costs.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from apexsim.errors import InputError
from apexsim.gpu import Gpu
from apexsim.gpu_file import PRICE_BOOKS
from apexsim.hardware import gpu_names, priced

GIVEN = "given"  # the "book" of a number that the user gave


@dataclass(frozen=True, slots=True)
class Book:
    """A price book: in words, whether it is an owner's cost (else rent), its day and source."""

    words: str
    owner: bool
    date: str
    source: str


@cache
def books() -> dict[str, Book]:
    """Every price book, by its key in the GPU files."""
    data = tomllib.loads((resources.files("apexsim") / "data/prices.toml").read_text(encoding="utf-8"))
    assert set(data) == set(PRICE_BOOKS), "data/prices.toml and the GPU files have other books"
    return {key: Book(**row) for key, row in data.items()}


def typed(key: str) -> str:
    """A book's key as people type it: on-demand."""
    return key.replace("_", "-")


@cache
def usual_book() -> str:
    """The book that prices the most GPUs."""
    return max(books(), key=priced)


def price_of(text: str | float | None, gpu: Gpu) -> tuple[float, str]:
    """Price of a GPU [$/h] and its book: a number, a book, or nothing for the usual one; NaN where that has none.

    A GPU that a file of the user prices in one book only is priced in that one.
    """
    if text is None:
        own = next(iter(gpu.prices), "") if len(gpu.prices) == 1 and gpu.name not in gpu_names() else ""
        book = own or usual_book()
        return gpu.prices.get(book, math.nan), book
    key = str(text).strip().lower().replace("-", "_")
    if key in gpu.prices:
        return gpu.prices[key], key
    if key in books():
        raise InputError(missing(gpu, key), "--price", "give $/h of one GPU" + ", or one of those" * bool(gpu.prices))
    try:
        usd = float(text)
    except ValueError:
        usd = math.nan
    if not (usd >= 0 and math.isfinite(usd)):
        known = ", ".join(map(typed, books()))
        raise InputError(f"cannot read the price '{text}'", "--price", f"write $/h of one GPU, or a price book: {known}")
    return usd, GIVEN


def missing(gpu: Gpu, key: str) -> str:
    """That a GPU has no price in a book, and which it has."""
    there = ", ".join(f"{typed(name)} (${usd:.2f}/h)" for name, usd in gpu.prices.items())
    return f"{gpu.name} has no {typed(key)} price; it has {there}" if there else f"{gpu.name} has no price in any book"


def told(book: str) -> str:
    """A book for people: on-demand rent, May 2026."""
    return GIVEN if book == GIVEN else f"{books()[book].words}, {books()[book].date}"
