"""What every reader of measured rows needs: cells as numbers, and the answers that need no simulation (floor 5)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from apexsim.engines import server_named
from apexsim.errors import InputError
from apexsim.hardware import load_gpu
from apexsim.model.families import load_model
from apexsim.model.model import Model

Row = Mapping[str, str]
MOST = 10_000_000  # tokens of one request: more is a slip
REQUESTS, USERS = 1_000_000, 100_000  # of one run, likewise
WIDEST = 4096  # ways that something is split or copied


class Cells(dict[str, str]):
    """A row by the names of its columns; one that is not there is the file's fault."""

    def __missing__(self, key: str) -> str:
        raise InputError(f"the row has no '{key}'", f"row {self.get('id', '')}".strip())


@dataclass(frozen=True, slots=True)
class Answered:
    """A row whose prediction needs no simulation: metric -> {"measured", "predicted"}."""

    id: str
    metrics: dict[str, Any]
    labels: dict[str, str]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is not replayed."""

    id: str
    reason: str
    labels: dict[str, str]


def number(row: Row, key: str, default: float = math.nan) -> float:
    """A cell as a finite number; empty or nan is `default`.  Raises InputError where it is none."""
    text = (row.get(key) or "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise InputError(f"'{key}' is no number: '{text[:40]}'", f"row {row.get('id', '')}".strip())
    return default if math.isnan(value) else value


def whole(row: Row, key: str, default: int = 0, least: int = 0, most: int = MOST) -> int:
    """A cell as a whole number within limits; empty is `default`.  Raises InputError where it is none."""
    value = number(row, key)
    if math.isnan(value):
        return default
    if value % 1 or not least <= value <= most:
        raise InputError(f"'{key}' is no whole number from {least} to {most:,}: {value:g}", f"row {row.get('id', '')}".strip())
    return int(value)


def needed(row: Row, key: str, least: int = 1, most: int = MOST) -> int:
    """A cell without which nothing can be predicted, as a whole number; raises InputError where it is empty or no such number."""
    return whole(row, _filled(row, key), least, least, most)


def amount(row: Row, key: str, least: float = 0.0, most: float = MOST) -> float:
    """The same of any number."""
    value = number(row, _filled(row, key))
    if not least <= value <= most:
        raise InputError(f"'{key}' is no number from {least:g} to {most:,}: {value:g}", f"row {row.get('id', '')}".strip())
    return value


def _filled(row: Row, key: str) -> str:
    if math.isnan(number(row, key)):
        raise InputError(f"the row has no '{key}'", f"row {row.get('id', '')}".strip())
    return key


def share(row: Row, whole_of: int, key: str, parts: int) -> int:
    """So many of something in each of `parts`; raises InputError where they do not divide."""
    if whole_of % parts:
        raise InputError(f"'{key}' is {parts}, which does not divide {whole_of}", f"row {row.get('id', '')}".strip())
    return whole_of // parts


# ---- the same, spelled otherwise -----------------------------------------------------------------------------------------

ENGINES = {"tensorrt-llm": "trtllm"}  # as files of measured runs call them
ALSO = {"sgl": "sglang", "trt": "trtllm"}  # … and what they are called beside their names
PER_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0}  # s of a unit at the end of a column's name
TIMED = re.compile(r"(.+)_(us|ms|s)")


def engine_spelled(text: str) -> str:
    """An engine's name, with what may follow it, as files of measured runs spell it: "TensorRT-LLM 1.2" is "trtllm 1.2", "dynamo-sglang"
    is "sglang"; other texts stay as they are."""
    name, space, rest = text.strip().partition(" ")
    word = name.lower().replace("_", "-")
    for part in (word, *(re.split(r"[-/]", word) if not re.search(r"\d", word) else ())):
        known = server_named(ALSO.get(part, part))
        if known:
            return ENGINES.get(known, known) + space + rest
    return text


KINDS_OF_GPU = ("pcie", "nvl", "sff", "ada", "ti", "super", "max", "laptop", "mig", "d")  # words at a name's end that make another card


@lru_cache(maxsize=256)
def gpu_spelled(text: str) -> str:
    """A GPU's name as the catalogue has it: "h100_sxm5" is "h100_sxm", and what a fleet calls its machines ("h100-cw", "mi355x-amds") is
    the card alone; texts that this does not make known stay as they are."""
    short = re.sub(r"sxm\d", "sxm", text.strip(), flags=re.IGNORECASE)
    head, _, tail = short.replace("_", "-").rpartition("-")
    forms = (text, short, *((head,) if tail.isalpha() and tail.lower() not in KINDS_OF_GPU else ()))
    return next(filter(_is_gpu, forms), text)


def _is_gpu(text: str) -> bool:
    try:
        return bool(text and load_gpu(text))
    except InputError:
        return False


def units(columns: Iterable[str]) -> dict[str, tuple[str, float]]:
    """Columns of times under the units that they do not have: name -> (the column that there is, what multiplies it)."""
    there, found = set(columns), dict[str, tuple[str, float]]()
    for column in there:
        if timed := TIMED.fullmatch(column):
            own = PER_S[timed[2]]
            found |= {f"{timed[1]}_{unit}": (column, own / per) for unit, per in PER_S.items() if f"{timed[1]}_{unit}" not in there}
    return found


def converted(text: str, factor: float) -> str:
    """A cell in another unit; what is no number stays as it is."""
    try:
        return repr(float(text) * factor)
    except ValueError:
        return text


def flag(row: Row, key: str) -> bool:
    """Is a cell true?"""
    return (row.get(key) or "").strip().lower() in ("1", "1.0", "true", "yes")


@lru_cache(maxsize=256)
def model_named(name: str) -> Model:
    """A bundled model, read once for all the rows that name it."""
    return load_model(name)
