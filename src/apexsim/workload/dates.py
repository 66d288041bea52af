"""Dates and times of traces (floor 2).

ISO 8601 with any number of decimals and an optional zone; dates with slashes, dots or names of months.  Where neither day
nor month can be told the month comes first, which is said; `dmy` and `mdy` state the order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.errors import InputError
from apexsim.workload.containers import FileTable
from apexsim.workload.meaning import is_number

_YEAR = re.compile(r"(1[7-9]|2[01])\d\d-")  # what nanoseconds in 64 bits reach, and no count of seconds
_ZONE = re.compile(r"\s*(?:Z|UTC|GMT|([+-])(0\d|1[0-4])(?::?([0-5]\d))?)$")
_BASIC = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)([.,]\d+)?")
_WEEKDAY = re.compile(r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+", re.IGNORECASE)
_MONTH_NAMED = re.compile(r"([A-Za-z]{3})[a-z]*\.? +(\d{1,2}),? +(\d{4})[ :T,]+(.*)")
_CTIME = re.compile(r"([A-Za-z]{3}) +(\d{1,2}) +([\d:.]+) +(\d{4})")
ISO = "write dates as 2026-01-31T10:00:00, with Z or +01:00 where there is a zone"
_NUMBERED = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d\d)[ T,]+(.*)")
_NAMED = re.compile(r"(\d{1,2})[/ -]([A-Za-z]{3})[a-z]*[/ -](\d{4})[ :T,]+(.*)")
_YEAR_FIRST = re.compile(r"(\d{4})[/.](\d\d?)[/.](\d\d?)[ T,]+(.*)")
_HALF_DAY = re.compile(r"(\d{1,2})(:.*?)\s*([AaPp])\.?[Mm]\.?$")
_LETTERS = re.compile("[A-SU-Za-z]")  # all but the T between date and time
MONTHS = {name: i for i, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)}


def stamps(table: FileTable, key: str, order: str) -> NDArray[np.datetime64]:
    """A column of dates and times [ns]; without a zone all rows share one.  order: clock, mdy or dmy."""
    cells = [str(cell).strip() for cell in table.column(key)]
    if any(cell.endswith("z") or cell[10:11] == "t" for cell in cells):
        cells = [cell.upper() for cell in cells]
    shift = _shifts(cells, table, key)
    if any(cell[4:5] != "-" or cell[10:11] not in ("T", " ", "") or "," in cell for cell in cells):
        cells = _plain(cells, order, table, key)
    strange = {begin for begin in {cell[:5] for cell in cells} if not _YEAR.fullmatch(begin)}
    if strange:
        row = next(i for i, cell in enumerate(cells) if cell[:5] in strange)
        hint = "for numbers: --time-unit UNIT" if is_number(cells[row]) else f"expected a year from 1700 to 2199; {ISO}"
        raise InputError(f"'{key}' is not a date and time: {cells[row]!r}", table.at(row), hint)
    try:
        found = np.array(cells, dtype="datetime64[ns]") if all(map(_has_no_zone, cells)) else None
    except ValueError:
        found = None
    if found is None:
        row = next(i for i, cell in enumerate(cells) if not _is_stamp(cell))
        raise InputError(f"'{key}' is not a date and time: {cells[row]!r}", table.at(row), ISO)
    if np.isnat(found).any():
        raise InputError(f"'{key}' is not a date and time", table.at(int(np.argmax(np.isnat(found)))))
    shifted: NDArray[np.datetime64] = found - np.asarray(shift, dtype="timedelta64[s]")
    return shifted


def ordered(cells: Sequence[Any]) -> str:
    """What dates of numbers tell of their order: "dmy", "mdy", "both" (they contradict), "open" (no telling), "" (no such)."""
    found = [m for m in map(_NUMBERED.match, (str(cell).strip() for cell in cells)) if m]
    day, month = any(int(m[1]) > 12 for m in found), any(int(m[3]) > 12 for m in found)
    return ("both" if day and month else "dmy" if day else "mdy" if month else "open") if found else ""


def _plain(cells: list[str], order: str, table: FileTable, key: str) -> list[str]:
    """Dates of other forms as those of ISO."""
    told = ordered(cells)
    if told == "both" or (order != "clock" and told not in (order, "open", "")):
        row = next(i for i, cell in enumerate(cells) if (m := _NUMBERED.match(cell)) and int(m[3 if order != "mdy" else 1]) > 12)
        raise InputError(f"'{key}' has no such month: {cells[row]!r}", table.at(row), "--time-unit dmy or mdy states the order")
    day_first = order == "dmy" or told == "dmy"
    return [_iso(cell, day_first) for cell in cells]


def _iso(cell: str, day_first: bool) -> str:
    cell = _WEEKDAY.sub("", cell, 1)
    if m := _NUMBERED.match(cell):
        day, month = (m[1], m[3]) if day_first else (m[3], m[1])
        return f"{'20' * (len(m[4]) == 2)}{m[4]}-{int(month):02}-{int(day):02}T{_hours(m[5])}"
    if (m := _NAMED.match(cell)) and m[2].lower() in MONTHS:
        return f"{m[3]}-{MONTHS[m[2].lower()]:02}-{int(m[1]):02}T{_hours(m[4])}"
    if (m := _MONTH_NAMED.match(cell)) and m[1].lower() in MONTHS:
        return f"{m[3]}-{MONTHS[m[1].lower()]:02}-{int(m[2]):02}T{_hours(m[4])}"
    if (m := _CTIME.fullmatch(cell)) and m[1].lower() in MONTHS:
        return f"{m[4]}-{MONTHS[m[1].lower()]:02}-{int(m[2]):02}T{_hours(m[3])}"
    if m := _BASIC.fullmatch(cell):
        return f"{m[1]}-{m[2]}-{m[3]}T{m[4]}:{m[5]}:{m[6]}{(m[7] or '').replace(',', '.')}"
    if m := _YEAR_FIRST.match(cell):
        return f"{m[1]}-{int(m[2]):02}-{int(m[3]):02}T{_hours(m[4])}"
    return cell.replace(",", ".") if _YEAR.match(cell) else cell


def _hours(text: str) -> str:
    """A time of day as ISO writes it."""
    text = text.strip().replace(",", ".")
    if m := _HALF_DAY.match(text):
        text = f"{int(m[1]) % 12 + 12 * (m[3] in 'pP')}{m[2]}"
    return "0" + text if text[1:2] == ":" else text


def _has_no_zone(cell: str) -> bool:
    """Whether no zone is left that numpy would complain about in words of its own."""
    return cell.count("-") <= 2 and "+" not in cell and not _LETTERS.search(cell)


def _shifts(cells: list[str], table: FileTable, key: str) -> NDArray[np.int64] | int:
    """Offset of each date and time from UTC [s], whose zones are cut off the cells (modified in place); all have one, or none."""
    every = "".join(cells)
    if not (_LETTERS.search(every) or "+" in every or every.count("-") > 2 * len(cells)):
        return 0
    common = _zone(cells[0])
    if common and every.count(common[0]) == len(cells) and all(cell.endswith(common[0]) for cell in cells):
        size = len(common[0])
        cells[:] = [cell[:-size] for cell in cells]
        return _offset(common)
    shift = np.zeros(len(cells), dtype=np.int64)
    bare = []
    for i, cell in enumerate(cells):
        zone = _zone(cell)
        if zone:
            cells[i] = cell[: zone.start()]
            shift[i] = _offset(zone)
        else:
            bare.append(i)
    if bare and len(bare) < len(cells):
        hint = "write Z or +01:00 behind all, or none"
        raise InputError(f"'{key}' has dates with a zone and without one", table.at(bare[0]), hint)
    return shift


def _zone(cell: str) -> re.Match[str] | None:
    """The zone at the end of a date with a time; the day of a date alone is none."""
    zone = _ZONE.search(cell) if cell[-1:] in ("Z", "C", "T") or "+" in cell or cell.count("-") > 2 or cell[4:5] != "-" else None
    return zone if zone and (not zone[1] or ":" in cell[: zone.start()] or "T" in cell[: zone.start()]) else None


def _offset(zone: re.Match[str]) -> int:
    return (int(zone[2]) * 3600 + int(zone[3] or 0) * 60) * (1 if zone[1] == "+" else -1) if zone[1] else 0


def _is_stamp(cell: str) -> bool:
    try:
        return _has_no_zone(cell) and bool(cell) and np.datetime64(cell, "ns") is not None
    except ValueError:
        return False
